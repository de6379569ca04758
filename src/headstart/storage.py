"""Files that are either wholly the old ones or wholly the new ones.

A write goes to a temporary file beside its target, is flushed to the disk, and takes its name by a rename, which
POSIX makes atomic; then the folder itself is flushed, so that the rename survives a power cut too.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from headstart.errors import HeadstartError, StorageError


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk (nothing to do where folders cannot be opened, as on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes the name `path` when the block ends well, and vanishes when it does not."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if isinstance(error, HeadstartError):
            raise
        raise StorageError(f"{path}: could not be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Make a StorageError, which names `path`, of what the system raises."""
    try:
        yield
    except OSError as error:
        if isinstance(error, HeadstartError):
            raise
        raise StorageError(f"{path}: could not be written: {error.strerror or error}.") from error


def write_file(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically and durably."""
    with atomic_file(path) as file:
        file.write(content)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A new folder that takes the name `target` when the block ends well, and vanishes when it does not.

    `target` must not exist: a folder is never replaced, a new version gets a new name. Raises StorageError.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        for file in temporary.iterdir():
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())
        sync_folder(temporary)
        os.rename(temporary, target)
        sync_folder(target.parent)
    except OSError as error:
        if isinstance(error, HeadstartError):
            raise
        raise StorageError(f"{target}: could not be written: {error.strerror or error}.") from error
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)
