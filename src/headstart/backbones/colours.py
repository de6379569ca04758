"""The baseline for pictures that needs no network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.backbone import Card, Contents, Portable, Tap
from headstart.errors import InputError

NAME = "colours"
WIDTH = 1024


@dataclass(frozen=True)
class Colours:
    """The hashing backbone. INTERFACE ONLY FOR NOW."""

    @property
    def card(self) -> Card:
        """What is known of it."""
        digest = "0" * 64
        return Card(NAME, "image", WIDTH, "Apache-2.0", "computed", digest, "float32", "top", digest, (WIDTH,))

    @property
    def taps(self) -> tuple[Tap, ...]:
        """None."""
        return ()

    def at(self, cut: str) -> Colours:
        """Only "top". Raises InputError."""
        if cut != "top":
            raise InputError(f"no cut {cut!r} in {NAME}: there is no network to cut, only top.")
        return self

    def encode(self, contents: Contents) -> NDArray[np.float32]:
        """(n, WIDTH) float32."""
        return np.zeros((len(contents), WIDTH), np.float32)

    def portable(self) -> Portable:
        """Raises InputError: there is no network."""
        raise InputError(f"there is no network in {NAME}.")
