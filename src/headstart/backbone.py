"""What a backbone is: a card and a frozen, row-wise, deterministic `encode`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Card:
    """What is known of a backbone without running it.

    `fingerprint` is the hex digest of everything that decides a feature: weights, graph, preprocessing, cut, precision.
    """

    name: str
    modality: str
    width: int  # d, the length of one feature
    licence: str  # SPDX identifier
    source: str
    digest: str  # sha256 of the weights
    precision: str  # float32 | int8
    cut: str  # name of the tap the features are taken at
    fingerprint: str


class Backbone(Protocol):
    """A frozen network, cut somewhere."""

    @property
    def card(self) -> Card:
        """What is known of it; reading it runs nothing."""
        ...

    def encode(self, contents: Sequence[str]) -> NDArray[np.float32]:
        """Features of n contents, (n, d) float32.

        Row-wise (a row does not depend on the others in the call, to 1e-5) and deterministic.
        """
        ...


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
