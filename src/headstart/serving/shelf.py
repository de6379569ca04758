"""Versions in memory: loaded once however many names use them, and let go when no name does."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbone import Backbone, Contents
from headstart.backbones.remote import Remote
from headstart.deployments import Pointer
from headstart.errors import InputError, ModelError, NotFound, near
from headstart.model import Model
from headstart.project import Project
from headstart.serving.encoders import Encoder, Encoders
from headstart.serving.served import Served
from headstart.serving.table import Loaded, give_back


class Shelf:
    """The versions of a project's models that are in memory. `load` and `let_go` go together."""

    def __init__(self, root: Path) -> None:
        self.project, self.encoders = Project(root), Encoders()
        self._loaded: dict[Path, Loaded] = {}
        self._uses: Counter[Path] = Counter()
        self._bases: dict[str, Backbone] = {}
        self._lock = threading.RLock()

    def folder(self, model: str, version: str | None = None) -> Path:
        """Where a version lies, the current one without `version`. Raises NotFound with those there."""
        current = self.project.current(model)
        if version is None:
            return current
        folder = current.parent / version
        if not folder.is_dir():
            there = [f"v{number}" for number in self.project.versions(model)]
            raise NotFound(f"model {model!r} has no version {version[:20]!r}.{near(version, there)}")
        return folder

    def pointer(self, loaded: Loaded) -> Pointer:
        """What names a loaded version in the project."""
        return Pointer(loaded.served.folder.parent.name, loaded.served.version, loaded.served.digest)

    def load(self, folder: Path, digest: str | None = None) -> Loaded:
        """The version in a folder, one use more. Raises NotFound, and ModelError also where it is not the one with `digest`."""
        with self._lock:
            loaded = self._loaded.get(folder)
            if loaded is None:
                served = Served.load(folder)
                base = self._base(served)
                loaded = Loaded(served, base, self.encoders.add(base))
            if digest not in (None, loaded.served.digest):
                if folder not in self._loaded:
                    self.encoders.drop(loaded.served.fingerprint)
                raise ModelError(
                    f"{folder} is not what was deployed: its digest is {loaded.served.digest[:16]}..., not {str(digest)[:16]}... "
                    f"If it shall answer, deploy it: headstart deploy {folder.parent.name}@{folder.name}"
                )
            self._loaded[folder] = loaded
            self._uses[folder] += 1
            return loaded

    def _base(self, served: Served) -> Backbone:
        """The base a version stands on, one object for all that share it. Raises ModelError, NotFound, InputError."""
        base = self._bases.get(served.fingerprint)
        if base is None and isinstance(served.model.backbone, Remote):
            raise InputError(
                f"model {served.name!r} cannot be served: its base model answers over the network, so a request would wait "
                "for another server, and send it what was asked."
            )
        if base is None:
            base = self._bases[served.fingerprint] = served.model.backbone
        served.model.__dict__["backbone"] = base  # in place of one that it would load for itself
        return base

    def let_go(self, loaded: Iterable[Loaded]) -> None:
        """One use fewer of each; the memory of those without any is given back."""
        freed = False
        with self._lock:
            for one in loaded:
                folder = one.served.folder
                self._uses[folder] -= 1
                if self._uses[folder]:
                    continue
                del self._uses[folder], self._loaded[folder]
                freed = True
                fingerprint = one.served.fingerprint
                self.encoders.drop(fingerprint)
                if all(other.served.fingerprint != fingerprint for other in self._loaded.values()):
                    del self._bases[fingerprint]
        if freed:
            give_back()

    def named(self, name: str) -> tuple[Backbone, Encoder] | None:
        """A base in memory by its own name, the deepest cut where there are several; None when there is none."""
        with self._lock:
            found = [base for base in self._bases.values() if base.card.name == name]
        if not found:
            return None
        base = max(found, key=lambda one: (one.card.width, one.card.fingerprint))
        return base, self.encoders.of(base.card.fingerprint)

    def bases(self) -> list[Backbone]:
        """The bases in memory."""
        with self._lock:
            return list(self._bases.values())

    def __len__(self) -> int:
        return len(self._loaded)


def suited(name: str, live: Served | Model, challenger: Served | Model) -> str | None:
    """What is to be known of a challenger beside what is live: that their labels differ, or None.

    Raises InputError where it reads or says something of another kind, so that no request could be given to both.
    """
    if live.modality != challenger.modality:
        raise InputError(
            f"a version that reads {challenger.modality}s cannot stand beside what is live as {name!r}, which reads "
            f"{live.modality}s. Deploy it under another name (--as), or make it live."
        )
    if live.task != challenger.task:
        raise InputError(
            f"a model of {challenger.task} cannot stand beside what is live as {name!r}, a model of {live.task}: their "
            "answers are not of one kind. Deploy it under another name (--as), or make it live."
        )
    ours, theirs = set(live.labels), set(challenger.labels)
    if ours == theirs:
        return None
    return f"its labels are not those of the live version: they share {len(ours & theirs)} of {len(ours | theirs)}."


def check(loaded: Loaded, encode: Callable[[Encoder, Contents, str], NDArray[np.float32]]) -> None:
    """Predict a few probes from their content on. Raises ModelError when they are answered otherwise than in training."""

    def through(contents: Any) -> NDArray[np.float32]:
        return encode(loaded.encoder, contents, loaded.served.fingerprint)

    loaded.served.check(through)
