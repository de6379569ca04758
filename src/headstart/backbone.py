"""What a backbone is: a card and a frozen, row-wise, deterministic `encode`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
