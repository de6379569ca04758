"""What a backbone is: a card and a frozen, row-wise, deterministic `encode`."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from headstart.preprocessing import Preprocessing

Contents = Sequence[str] | Sequence[bytes]  # texts, or picture files as bytes


@dataclass(frozen=True)
class Card:
    """What is known of a backbone without running it.

    `fingerprint` is the hex digest of everything that decides a feature: weights, graph, preprocessing, cut, precision.
    """

    name: str
    modality: str  # text | image
    width: int  # d, the length of one feature
    licence: str  # SPDX identifier, the name of the terms, or "unknown"
    source: str
    digest: str  # sha256 of the weights
    precision: str  # float32 | int8
    cut: str  # the taps the features are taken at, joined by +; "top" is the network's own output
    fingerprint: str
    widths: tuple[int, ...] = ()  # of the parts of the cut, in order; their sum is `width`
    revision: str | None = None  # of the source
    parameters: int | None = None  # below the cut
    size: int | None = None  # bytes of the weights below the cut


def arithmetic(name: str, modality: str, width: int, recipe: str) -> Card:
    """The card of a backbone that needs no network; `recipe` says everything that decides its features."""
    digest = hashlib.sha256(recipe.encode()).hexdigest()
    return Card(
        name, modality, width, "Apache-2.0", "computed", digest, "float32", "top", digest, (width,), parameters=0, size=0
    )  # fmt: skip


@dataclass(frozen=True)
class Tap:
    """A place where a network can be cut: everything from its input to its output passes through here."""

    name: str  # "0" after the embedding or the stem, then "1", "2", ... up to the last block
    width: int  # channels
    parameters: int  # below the tap
    operations: float  # share below the tap, 0 to 1


@dataclass(frozen=True)
class Portable:
    """A backbone as what any ONNX runtime needs to get the same features, and nothing else.

    The graph takes `input_ids` (n, t) int64, of rows with equally many tokens (and, where it has these inputs,
    `attention_mask` of ones and `token_type_ids` of zeros), or one input of preprocessed pictures; its one output
    `features` is (n, width) float32, equal to what `encode` gives.
    """

    model: Any  # onnx.ModelProto with its weights inside
    modality: str
    tokeniser: bytes = b""  # tokenizer.json, of texts
    tokens: int = 0  # a text is cut after so many
    preprocessing: Preprocessing | None = None  # of pictures


class Backbone(Protocol):
    """A frozen network, cut somewhere."""

    @property
    def card(self) -> Card:
        """What is known of it; reading it runs nothing."""
        ...

    @property
    def taps(self) -> tuple[Tap, ...]:
        """Where it can be cut, from the input to the output; () where it cannot."""
        ...

    def at(self, cut: str) -> Backbone:
        """The same network cut elsewhere.

        A cut is a tap's name (the mean over its tokens or places), "max" and a tap's name (the largest, channel by
        channel), "top" (the network's own output), or several joined by +. Each part has unit length, and the whole
        too: the parts stand side by side, divided by the root of their number. Raises InputError.
        """
        ...

    def encode(self, contents: Contents) -> NDArray[np.float32]:
        """Features of n contents, (n, d) float32 of unit length.

        Row-wise (a row does not depend on the others in the call, to 1e-5) and deterministic. Raises ContentError when
        some contents cannot be read, and says which; InputError when they are of another kind altogether.
        """
        ...

    def portable(self) -> Portable:
        """The network below the cut, on its own. Raises InputError where there is no network to give away."""
        ...


def parts(X: NDArray[np.float32], card: Card) -> dict[str, NDArray[np.float32]]:
    """Features (n, d) at a cut of several parts -> for each part its features (n, width) of unit length."""
    names = card.cut.split("+")
    edges = np.cumsum([0, *card.widths])
    root = np.float32(math.sqrt(len(names)))
    return {name: X[:, low:high] * root for name, low, high in zip(names, edges[:-1], edges[1:], strict=True)}


def joined(pieces: Mapping[str, NDArray[np.float32]], cut: str) -> NDArray[np.float32]:
    """Features (n, d) at a cut, out of those of its parts: what `parts` takes apart."""
    names = cut.split("+")
    return np.asarray(np.concatenate([pieces[name] for name in names], axis=1) / np.sqrt(len(names)), np.float32)


def cache_folder() -> Path:
    """Where features and fetched weights are kept: $HEADSTART_CACHE, else headstart in the user's cache folder.

    Nothing is made here, and nothing says that the folder can be written.
    """
    if chosen := os.environ.get("HEADSTART_CACHE"):
        return Path(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "headstart"
    if os.name == "nt" and (base := os.environ.get("LOCALAPPDATA")):
        return Path(base) / "headstart" / "cache"
    return Path(os.path.expanduser("~")) / ".cache" / "headstart"
