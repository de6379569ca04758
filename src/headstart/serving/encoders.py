"""The base models of everything that is served, each loaded once, as passes that a thread runs alone.

Contents are prepared first (tokenised, looked at) and run later, so that rows of several requests can go together: items
of one size, in one run, on the thread that asks. Nothing here starts a thread, and `run` may be called by several at
once. What an encoder holds is its own, so that dropping it frees it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.backbone import Backbone, Contents
from headstart.backbones.minilm import MiniLM
from headstart.backbones.network import Network
from headstart.backbones.onnx import BUDGET, on_this_thread
from headstart.backbones.tuned import Tuned
from headstart.errors import ContentError, InputError, ModelError
from headstart.picturefile import HEAD, refusal
from headstart.serving.halves import Lower, split

PICTURE = 64  # units that a picture costs: eight in a run
LETTERS, TEXTS = 256, 256  # of a text without a network that cost a unit; units in a run of such texts

Features = dict[str, NDArray[np.float32]]


class Encoder(Protocol):
    """One pass that gives the features of one backbone or of several."""

    @property
    def key(self) -> str:
        """What is shared: encoders of one key are one."""
        ...

    @property
    def modality(self) -> str:
        """text or image."""
        ...

    @property
    def budget(self) -> int:
        """The units that one run is best given."""
        ...

    def prepare(self, contents: Contents) -> list[Any]:
        """An item for every content. Raises InputError on what is no text or no bytes, ContentError."""
        ...

    def size(self, item: Any) -> int:
        """What an item costs, in units. Only items of equal size may run together."""
        ...

    def run(self, items: Sequence[Any], wanted: frozenset[str]) -> Features:
        """Features of n items of equal size, on this thread alone: fingerprint -> (n, d) float32, as `encode` gives.

        Raises ContentError with the places of what cannot be read, ModelError on a network that gives no number.
        """
        ...


@dataclass(frozen=True, eq=False)
class Tokens:
    """A network for texts. An item is a row of token numbers, and costs as many units."""

    key: str  # the backbone's fingerprint
    base: MiniLM | Network | Tuned
    modality: str = "text"
    budget: int = BUDGET

    def prepare(self, contents: Contents) -> list[list[int]]:
        """The token numbers of every text."""
        return self.base.rows(contents)  # type: ignore[arg-type]  # it looks itself

    def size(self, item: Sequence[int]) -> int:
        """The number of tokens."""
        return len(item)

    def run(self, items: Sequence[Sequence[int]], wanted: frozenset[str]) -> Features:
        """Features of rows of equally many tokens."""
        checked(wanted, (self.key,))
        return {self.key: self.base.ran(items)} if wanted else {}


@dataclass(frozen=True, eq=False)
class Whole:
    """Any other backbone: a network for pictures, whose item is the file, or one without a network, whose item is the text."""

    key: str  # the backbone's fingerprint
    base: Backbone
    modality: str
    budget: int

    def prepare(self, contents: Contents) -> list[Any]:
        """The contents themselves, looked at. Pictures are not decoded yet."""
        return looked_at(contents) if self.modality == "image" else read(contents)

    def size(self, item: Any) -> int:
        """The same for all pictures; of a text by its letters, so roughly that many go together."""
        return PICTURE if self.modality == "image" else 1 << (max(1, -(-len(item) // LETTERS)) - 1).bit_length()

    def run(self, items: Sequence[Any], wanted: frozenset[str]) -> Features:
        """Features of contents."""
        checked(wanted, (self.key,))
        if not wanted:
            return {}
        with on_this_thread():
            return {self.key: self.base.encode(items)}


@dataclass(frozen=True, eq=False)
class Halved:
    """What several retrained networks have below, and each of them above. An item is what it is for their base."""

    key: str  # of what is below
    base: Tokens | Whole
    lower: Lower

    @property
    def modality(self) -> str:
        """That of the base."""
        return self.base.modality

    @property
    def budget(self) -> int:
        """That of the base."""
        return self.base.budget

    def prepare(self, contents: Contents) -> list[Any]:
        """What the base makes of them."""
        return self.base.prepare(contents)

    def size(self, item: Any) -> int:
        """What it costs the base."""
        return self.base.size(item)

    def run(self, items: Sequence[Any], wanted: frozenset[str]) -> Features:
        """Features of every network wanted, with one pass below."""
        uppers = self.lower.uppers.copy()  # others come and go meanwhile
        checked(wanted, uppers)
        return self.lower.ran(items, {name: uppers[name] for name in wanted}) if wanted else {}


class Encoders:
    """The encoders of everything that is loaded, by the fingerprint of the features, with their uses counted.

    May be used by several threads; one loads at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._encoders: dict[str, Encoder] = {}
        self._uses: Counter[str] = Counter()

    def add(self, base: Backbone) -> Encoder:
        """The encoder that gives the features of a base, loaded if it was not; one use more.

        Raises InputError, NotFound or ModelError where the base cannot be had or was altered; then nothing is kept.
        """
        fingerprint = base.card.fingerprint
        with self._lock:
            found = self._encoders.get(fingerprint) or self._loaded(base, fingerprint)
            self._encoders[fingerprint] = found
            self._uses[fingerprint] += 1
            return found

    def drop(self, fingerprint: str) -> None:
        """One use fewer; without any what was loaded for it is let go, once the runs in work are done.

        Raises ModelError where there is none.
        """
        with self._lock:
            encoder = self.of(fingerprint)
            self._uses[fingerprint] -= 1
            if self._uses[fingerprint]:
                return
            del self._uses[fingerprint], self._encoders[fingerprint]
            if isinstance(encoder, Halved):
                del encoder.lower.uppers[fingerprint]
            elif isinstance(encoder, Tokens | Whole):
                emptied(encoder.base)

    def of(self, fingerprint: str) -> Encoder:
        """The encoder that gives the features of a fingerprint. Raises ModelError where none is loaded."""
        found = self._encoders.get(fingerprint)
        if found is None:
            raise gone(fingerprint)
        return found

    def _loaded(self, base: Backbone, fingerprint: str) -> Encoder:
        if isinstance(base, Tuned) and not base.alone:
            try:
                return self._halved(base, fingerprint)
            except InputError:  # it has no joint at its tap: it is run as a whole
                pass
        return opened(base)

    def _halved(self, tuned: Tuned, fingerprint: str) -> Halved:
        parts = split(tuned)
        upper = parts.upper()
        there = (one for one in self._encoders.values() if isinstance(one, Halved) and one.key == parts.key)
        found = next(there, None) or Halved(parts.key, plain(tuned.base), parts.lower())
        found.lower.uppers[fingerprint] = upper
        return found


def plain(base: Backbone) -> Tokens | Whole:
    """The encoder of a base on its own; nothing is loaded yet."""
    card = base.card
    if card.modality == "text" and isinstance(base, MiniLM | Network | Tuned):
        return Tokens(card.fingerprint, base)
    return Whole(card.fingerprint, base, card.modality, BUDGET if card.modality == "image" else TEXTS)


def opened(base: Backbone) -> Tokens | Whole:
    """The same, loaded: nobody's first request waits for it."""
    encoder = plain(base)
    if isinstance(encoder, Tokens):
        encoder.prepare([""])
    if isinstance(base, MiniLM | Network | Tuned):
        _ = base.through
    return encoder


def emptied(base: Any) -> None:
    """Make a backbone forget what it has loaded. Where somebody else still uses it, it is loaded again."""
    for name in [name for name in vars(base) if isinstance(getattr(type(base), name, None), cached_property)]:
        vars(base).pop(name, None)


def gone(fingerprint: str) -> ModelError:
    """The error for features that nothing gives."""
    return ModelError(f"the base model with fingerprint {fingerprint[:16]}... is not loaded any more.")


def checked(wanted: frozenset[str], there: Iterable[str]) -> None:
    """Raise ModelError unless all fingerprints wanted are there."""
    if missing := sorted(wanted.difference(there)):
        raise gone(missing[0])


def read(contents: Contents) -> list[str]:
    """Texts, each Unicode. Raises InputError."""
    for i, text in enumerate(contents):
        if not isinstance(text, str):
            raise InputError(f"text number {i} of the call is a {type(text).__name__}, not a str.")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputError(f"text number {i} of the call is not Unicode: a lone surrogate.") from None
    return list(contents)  # type: ignore[arg-type]  # looked at above


def looked_at(contents: Contents) -> list[bytes]:
    """Picture files that begin like ones that are read. Raises InputError on what is no bytes, ContentError."""
    for i, content in enumerate(contents):
        if not isinstance(content, bytes):
            raise InputError(
                f"content number {i + 1} of the call is a {type(content).__name__}, not a picture's bytes."
            )
    whys = ((i, refusal(content[:HEAD], len(content))) for i, content in enumerate(contents))  # type: ignore[arg-type]
    if faults := [(i, why) for i, why in whys if why is not None]:
        raise ContentError(faults)
    return list(contents)  # type: ignore[arg-type]  # looked at above
