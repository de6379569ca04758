"""What is served at one moment: an immutable table of names, and the versions behind them.

A question keeps the table it began with. What only an old table uses is let go when its last question is answered.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from headstart.backbone import Backbone
from headstart.errors import InputError, ModelError, NotFound, near
from headstart.serving.asked import CANARY, LIVE, Question
from headstart.serving.encoders import Encoder
from headstart.serving.served import Served
from headstart.serving.stack import Stack


@dataclass(frozen=True, eq=False)
class Loaded:
    """One version of a model in memory, with the base it stands on."""

    served: Served
    base: Backbone
    encoder: Encoder


@dataclass(eq=False)
class Counts:
    """How often a shadow said the same as the live version, since it was loaded here."""

    compared: int = 0
    agreed: int = 0
    skipped: int = 0  # not compared, because the server had other work
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, compared: int, agreed: int, skipped: int = 0) -> None:
        """Count so many inputs more."""
        with self.lock:
            self.compared, self.agreed, self.skipped = (
                self.compared + compared, self.agreed + agreed, self.skipped + skipped
            )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Deployed:
    """A name that is served: the version that answers, and one that is tried beside it."""

    name: str
    live_loaded: Loaded
    challenger_loaded: Loaded | None = None
    mode: str | None = None  # of the challenger: shadow | canary
    share: float = 0.0  # of requests that a canary answers
    seq: int = 0  # of the commit that made it so; 0: never deployed, the project's current version
    counts: Counts = field(default_factory=Counts)

    @property
    def live(self) -> Served:
        """The version that answers."""
        return self.live_loaded.served

    @property
    def challenger(self) -> Served | None:
        """The version that is tried."""
        return self.challenger_loaded.served if self.challenger_loaded else None

    def versions(self) -> list[Loaded]:
        """Both."""
        return [self.live_loaded, *([self.challenger_loaded] if self.challenger_loaded else [])]

    def arm(self, question: Question, key: Callable[[], bytes]) -> tuple[str, Loaded]:
        """Which version answers a question. `key` gives what it is dealt by where the question has none. Raises NotFound."""
        there = {LIVE: self.live_loaded}
        if self.challenger_loaded is not None:
            there[CANARY] = self.challenger_loaded
        if question.version is not None:
            for arm, loaded in there.items():
                if loaded.served.version == question.version:
                    return arm, loaded
            versions = sorted({one.served.version for one in there.values()})
            raise NotFound(
                f"{self.name!r} is not served in version {question.version}.{near(question.version, versions)}"
            )
        if self.mode != CANARY or self.challenger_loaded is None:
            return LIVE, self.live_loaded
        dealt = key() if question.key is None else question.key.encode("utf-8", "surrogatepass")
        arm = CANARY if dealt_to_canary(self.name, dealt, self.share) else LIVE
        return arm, there[arm]


def dealt_to_canary(name: str, key: bytes, share: float) -> bool:
    """Whether a request goes to the canary: the same key always does, and whoever did at a smaller share still does."""
    digest = hashlib.blake2b(name.encode() + b"\0" + key, digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


class Table:
    """All names at one moment, by name, with their heads side by side. Never changed; `with table:` while it is used."""

    def __init__(self, deployed: Mapping[str, Deployed], before: Table | None = None) -> None:
        self.deployed = dict(sorted(deployed.items()))
        self.faults: dict[str, str] = {}  # names that cannot answer, and why
        versions = {id(one.served): one.served for name in deployed.values() for one in name.versions()}
        self.stack: Stack = Stack.of(versions.values(), before.stack if before else None)
        self._users, self._idle = 0, threading.Condition()

    def __enter__(self) -> Table:
        with self._idle:
            self._users += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._idle:
            self._users -= 1
            if not self._users:
                self._idle.notify_all()

    def unused(self) -> None:
        """Wait until nobody uses the table."""
        with self._idle:
            self._idle.wait_for(lambda: not self._users)

    def loaded(self) -> Iterable[Loaded]:
        """Every version in it; one that serves two names twice."""
        return (one for deployed in self.deployed.values() for one in deployed.versions())

    def asked(self, question: Question) -> list[Deployed]:
        """The names of a question. Raises NotFound with near names, ModelError for one that could not be loaded, and
        InputError where its contents are not what the models read.
        """
        kind = "image" if isinstance(question.contents[0], bytes) else "text"
        if not question.names:
            every = [one for one in self.deployed.values() if one.live.modality == kind]
            if not every:
                raise NotFound(f"no model that reads {_KINDS[kind]} is served here.")
            return every
        found = []
        for name in question.names:
            one = self.deployed.get(name)
            if one is None:
                if name in self.faults:
                    raise ModelError(f"model {name!r} cannot answer: {self.faults[name]}")
                raise NotFound(f"no model {name[:80]!r} is served here.{near(name[:80], self.deployed)}")
            if one.live.modality != kind:
                raise InputError(f"model {name!r} reads {_KINDS[one.live.modality]}, not {_KINDS[kind]}.")
            found.append(one)
        return found


_KINDS = {"text": "texts", "image": "pictures"}


def give_back() -> None:
    """Hand freed memory back to the system, where the C library can be asked to (glibc)."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
