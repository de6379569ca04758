"""Which versions are served, and how that changes while questions are answered.

The project's deployments say what is served (deployments.py). A name that was never deployed is pinned when the process
begins: what is current then is committed, so every process and every restart serves the same. Where the project cannot
be written, it answers with what was current all the same. A new table is made beside the one in use and put in its place at once.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart import deployments, notice
from headstart.backbone import Backbone, Contents
from headstart.deployments import Deployment, Pointer
from headstart.errors import Conflict, HeadstartError, InputError, ModelError, NotFound, StorageError, near
from headstart.project import checked_name
from headstart.serving.encoders import Encoder
from headstart.serving.shelf import Shelf, check, suited
from headstart.serving.table import Deployed, Loaded, Table

TELLING = 10.0  # seconds that other servers get to follow what a new one has pinned

Encode = Callable[[Encoder, Contents, str], NDArray[np.float32]]


class Rollout:
    """The table in use, and the only place that replaces it."""

    def __init__(self, root: Path, models: Sequence[str] | None, encode: Encode, forget: Callable[[str], None]) -> None:
        self.root, self.only, self.encode, self.forget = root, models, encode, forget
        self.shelf = Shelf(root)
        self.table = Table({})
        self._swap = threading.Lock()  # while the table is taken or replaced
        self._changing = threading.RLock()  # one change at a time
        self._reaper = ThreadPoolExecutor(1, "letting-go")
        self._undeployed: dict[str, Path] = {}  # names that were never deployed -> the version they began with

    def close(self) -> None:
        """End the thread that lets go."""
        self._reaper.shutdown(wait=False, cancel_futures=True)

    def using(self) -> Table:
        """The table in use, entered."""
        with self._swap:
            return self.table.__enter__()

    def base(self, name: str) -> tuple[Backbone, Encoder]:
        """The base of a served name, or a base in memory by its own name. Raises NotFound."""
        one = self.table.deployed.get(name)
        if one is not None:
            return one.live_loaded.base, one.live_loaded.encoder
        found = self.shelf.named(name)
        if found is None:
            known = [*self.table.deployed, *(base.card.name for base in self.shelf.bases())]
            raise NotFound(f"no model and no base model {name[:80]!r} is served here.{near(name[:80], known)}")
        return found

    def start(self, say: Callable[[int, int], None] | None = None) -> None:
        """Load everything. What cannot be loaded is a fault of its name, and the others are served. Raises NotFound for
        a name that was asked for and is not there.
        """
        with self._changing:
            project = self.shelf.project
            for name in self.only or ():
                if name not in deployments.table(self.root):
                    project.current(checked_name(name))
            for name in project.names():
                if self.only is None or name in self.only:
                    try:
                        self._undeployed[name] = project.current(name)
                    except HeadstartError as error:
                        self.table.faults[name] = str(error)
            self._follow(say)
            faults = dict(self.table.faults)
            for fingerprint, loaded in {one.served.fingerprint: one for one in self.table.loaded()}.items():
                try:
                    check(loaded, self.encode)
                except HeadstartError as error:  # none of the models on this base can be trusted
                    for name, one in self.table.deployed.items():
                        if one.live.fingerprint == fingerprint:
                            faults[name] = str(error)
            sound = {name: one for name, one in self.table.deployed.items() if name not in faults}
            if len(sound) < len(self.table.deployed):
                gone = [one for one in self.table.deployed.values() if one.name in faults]
                self._replace(sound, faults, [loaded for one in gone for loaded in one.versions()])
            self.table.faults.update(faults)
            self._pin()

    def _pin(self) -> None:
        """Commit what answers under names that were never deployed, or serve what another process has pinned."""
        found = {name: self.shelf.pointer(one.live_loaded) for name, one in self.table.deployed.items() if not one.seq}
        try:
            pinned = deployments.pin(self.root, found)
        except StorageError:  # it cannot be written here; what we have answers
            return
        if found:
            self._follow(None)
        if pinned:
            notice.tell(self.root, but=os.getpid(), timeout=TELLING)  # processes that began before, and know them not

    def behind(self) -> list[str]:
        """Names that are served by another version than the current one of their model, in sentences."""
        current = {}
        for name in self.shelf.project.names():
            if self.only is None or name in self.only:
                with contextlib.suppress(HeadstartError):  # a fault of that name, and said as such
                    current[name] = self.shelf.project.current(name).name
        return deployments.lagging(self.root, current)

    def check(self) -> None:
        """Predict a probe on every base in memory. Raises what went wrong."""
        table = self.using()
        try:
            for loaded in {one.served.fingerprint: one for one in table.loaded()}.values():
                check(loaded, self.encode)
        finally:
            table.__exit__()

    def sync(self) -> list[str]:
        """Follow the deployments; returns the faults in words. A name whose new version fails keeps its old one."""
        with self._changing:
            return self._follow(None)

    def _follow(self, say: Callable[[int, int], None] | None) -> list[str]:
        known = deployments.table(self.root)
        wanted = [name for name in {**self._undeployed, **known} if self.only is None or name in self.only]
        now, faults, gone, words = dict(self.table.deployed), dict(self.table.faults), [], []
        for done, name in enumerate(wanted):
            before, commit = now.get(name), known.get(name)
            if before is None or commit is None or before.seq != commit.seq:
                if commit is not None and commit.live is None:
                    new = None
                elif before is not None and commit is None:
                    continue
                else:
                    try:
                        new = self._loaded(name, commit)
                    except HeadstartError as error:
                        words.append(f"{name}: {error}")
                        if before is None:
                            faults[name] = str(error)
                        continue
                faults.pop(name, None)
                now.pop(name, None)
                if new is not None:
                    now[name] = new
                gone += before.versions() if before else []
            if say:
                say(done + 1, len(wanted))
        self._replace(now, faults, gone)
        return words

    def _loaded(self, name: str, commit: Deployment | None) -> Deployed:
        """A name with its versions in memory. Raises HeadstartError; then nothing is kept."""
        if commit is None:
            return Deployed(name, self.shelf.load(self._undeployed[name]))
        assert commit.live is not None
        held = [self._point(commit.live)]
        try:
            if commit.challenger is not None:
                held.append(self._point(commit.challenger))
                suited(name, held[0].served, held[1].served)
        except BaseException:
            self.shelf.let_go(held)
            raise
        return Deployed(name, held[0], held[1] if held[1:] else None, commit.mode, commit.share, commit.seq)

    def _point(self, pointer: Pointer) -> Loaded:
        return self.shelf.load(self.shelf.folder(pointer.model, pointer.version), pointer.digest)

    def _replace(self, now: dict[str, Deployed], faults: dict[str, str], gone: list[Loaded]) -> None:
        """Put a new table in the place of the one in use, and let go of what only that used, once it is unused."""
        table = Table(now, self.table)
        table.faults = faults
        with self._swap:
            old, self.table = self.table, table

        self._reaper.submit(self._let_go, old, gone)

    def _let_go(self, old: Table, gone: list[Loaded]) -> None:
        """One table after the other, the oldest first: what is gone from one may be in use through an older one."""
        old.unused()
        self.shelf.let_go(gone)
        for fingerprint in {one.served.fingerprint for one in gone} - {
            one.card.fingerprint for one in self.shelf.bases()
        }:
            self.forget(fingerprint)

    def deploy(
        self, model: str, version: str | None, name: str, *, mode: str | None, share: float, expected: int | None
    ) -> Deployed:
        """Load, check, commit, serve. Raises HeadstartError; then nothing has changed."""
        self._ours(checked_name(name))
        with self._changing:
            self._follow(None)
            loaded = self.shelf.load(self.shelf.folder(checked_name(model), version))
            try:
                before = self.table.deployed.get(name)
                if mode is not None and name in self.table.faults:
                    raise ModelError(f"what is live as {name!r} cannot answer: {self.table.faults[name]}")
                if mode is not None and before is not None:
                    suited(name, before.live, loaded.served)
                check(loaded, self.encode)
                live = None if before is None else self.shelf.pointer(before.live_loaded)
                pointer = self.shelf.pointer(loaded)
                made = deployments.deploy(
                    self.root, name, pointer, mode=mode, share=share, expected=expected, live=live
                )
                return self._followed(made)
            finally:
                self.shelf.let_go([loaded])

    def rollback(self, name: str, *, expected: int | None) -> Deployed:
        """Load what was there before, check it, commit, serve. Raises HeadstartError; then nothing has changed."""
        with self._changing:
            self._follow(None)
            self._known(name)
            target = deployments.behind(self.root, name, expected=expected)
            if target is None or target.live is None:
                return self._followed(deployments.rollback(self.root, name, expected=expected))  # which says why not
            loaded = self._point(target.live)
            try:
                before = self.table.deployed.get(name)
                if before is None or loaded is not before.live_loaded:
                    check(loaded, self.encode)
                return self._followed(deployments.rollback(self.root, name, expected=target.seq))
            finally:
                self.shelf.let_go([loaded])

    def _followed(self, made: Deployment) -> Deployed:
        """Serve what was committed. Raises Conflict where another commit came after it, or it cannot be served."""
        words = [said for said in self._follow(None) if said.startswith(f"{made.name}: ")]
        one = self.table.deployed.get(made.name)
        if one is None or one.seq < made.seq:
            why = words[0] if words else "it was changed again meanwhile."
            raise Conflict(f"the change is committed as number {made.seq}, but not served: {why}")
        return one

    def undeploy(self, name: str, *, expected: int | None) -> None:
        """Serve a name no more. Raises HeadstartError."""
        with self._changing:
            self._known(name)
            before = self.table.deployed.get(name)
            live = None if before is None else self.shelf.pointer(before.live_loaded)
            deployments.undeploy(self.root, name, expected=expected, live=live)
            self._follow(None)

    def _ours(self, name: str) -> None:
        if self.only is not None and name not in self.only:
            raise InputError(
                f"this server serves only {', '.join(self.only)}; start it without --models to serve {name!r}."
            )

    def _known(self, name: str) -> None:
        """Raises NotFound, and InputError where this server leaves the name out."""
        known = {**self.table.deployed, **deployments.table(self.root)}
        if name not in known:
            raise NotFound(f"nothing is served as {name[:80]!r}.{near(name[:80], known)}")
        self._ours(name)
