"""A project is a folder you own: plain files, safe to copy, safe for two processes at once.

    models/tickets/v1/       a saved model (see saved.py); never changed once it is there
    models/tickets/v2/
    models/tickets/current   the text "v2": which version answers

A version takes its name by renaming a finished folder, so it is there wholly or not at all, and two processes that
save at once get two versions. `current` is replaced atomically afterwards.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headstart.errors import InputError, NotFound, StorageError, near
from headstart.storage import atomic_folder, write_file

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")
_RESERVED = {"con", "prn", "aux", "nul", "current", *(f"{d}{i}" for d in ("com", "lpt") for i in range(1, 10))}
_VERSION = re.compile(r"v([1-9][0-9]{0,8})")


def checked_name(name: str) -> str:
    """`name` if it can name a model on every file system, else InputError."""
    if not _NAME.fullmatch(name) or name.lower().split(".")[0] in _RESERVED:
        raise InputError(
            f"{name[:80]!r} cannot name a model: use up to 64 letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit."
        )
    return name


def name_from(text: str) -> str:
    """A model name made from a file name: 'My Tickets (1).csv' -> 'my-tickets-1'."""
    stem = text.rsplit("/", 1)[-1].split(".")[0]
    slug = re.sub(r"[^a-z0-9_]+", "-", stem.lower()).strip("-_")[:48]
    return slug if slug and slug not in _RESERVED else "model"


@dataclass(frozen=True)
class Project:
    """A folder with models in it."""

    root: Path

    def _home(self, name: str) -> Path:
        return self.root / "models" / checked_name(name)

    def names(self) -> list[str]:
        """The models that can answer, sorted."""
        return sorted(p.parent.name for p in (self.root / "models").glob("*/current"))

    def versions(self, name: str) -> list[int]:
        """Version numbers that are there, ascending."""
        home = self._home(name)
        found = (_VERSION.fullmatch(p.name) for p in home.iterdir()) if home.is_dir() else ()
        return sorted(int(match[1]) for match in found if match)

    def current(self, name: str) -> Path:
        """The folder of the version that answers. Raises NotFound with near names."""
        home = self._home(name)
        try:
            version = (home / "current").read_text("utf-8").strip()
        except FileNotFoundError:
            where = f"{self.root}" if str(self.root) != "." else "this folder"
            raise NotFound(
                f"no model {name!r} in {where}." + (near(name, self.names()) or " Make one with: headstart fit DATA")
            ) from None
        if not _VERSION.fullmatch(version) or not (home / version).is_dir():
            raise NotFound(
                f"{home / 'current'} says {version[:20]!r}, which is not a version here. Fit the model anew."
            )
        return home / version

    def commit(self, name: str, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a new folder, make it the next version and the current one; return where it now is."""
        home = self._home(name)
        number = max(self.versions(name), default=0) + 1
        while True:
            target = home / f"v{number}"
            try:
                home.mkdir(parents=True, exist_ok=True)
                if target.exists():
                    raise FileExistsError
                with atomic_folder(target) as folder:
                    write(folder)
                break
            except (FileExistsError, StorageError) as error:
                if not target.exists():  # the disk refused, not another process
                    self._tidy(home)
                    if isinstance(error, StorageError):
                        raise
                    raise StorageError(f"{home}: a file is in the way.") from error
                number += 1
            except BaseException:
                self._tidy(home)
                raise
        write_file(home / "current", target.name.encode())
        return target

    def _tidy(self, home: Path) -> None:
        """Remove the folders made for a first version that was not saved; they stay if anything is in them."""
        for folder in (home, home.parent):
            try:
                folder.rmdir()
            except OSError:
                return

    def remove(self, name: str) -> list[int]:
        """Remove a model with all its versions; return the version numbers removed. Raises NotFound."""
        self.current(name)
        home, gone = self._home(name), self.versions(name)
        aside = home.with_name(f".{home.name}.{os.getpid()}.removed")
        try:
            os.rename(home, aside)
            shutil.rmtree(aside)
        except OSError as error:
            raise StorageError(f"{home}: could not be removed: {error.strerror or error}.") from error
        return gone
