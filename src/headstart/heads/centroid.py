"""Nearest class mean by cosine (prototypes, Snell et al. 2017, section 2.3, on unit features)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from headstart.head import CLASSIFICATION, Array, checked, unit

BLOCK = 16_384
SHARPNESS = 20.0  # logits per unit of cosine; calibration sets the rest


@dataclass(frozen=True)
class Centroid:
    """Class means (c, d) of unit length, and the mean (d,) taken from every feature first."""

    name: ClassVar[str] = "centroid"
    tasks: ClassVar[frozenset[str]] = frozenset((CLASSIFICATION,))

    means: Array
    centre: Array

    @classmethod
    def fit(cls, X: Array, T: Array, weight: Array | None = None) -> Self:
        """X (n, d), T (n, c) shares."""
        w = T if weight is None else T * weight[:, None]
        centre = np.asarray(X.mean(0), np.float32)
        sums = np.zeros((T.shape[1], X.shape[1]), np.float32)
        for low in range(0, len(X), BLOCK):  # X may be a memory map
            sums += w[low : low + BLOCK].T @ unit(X[low : low + BLOCK] - centre)
        return cls(unit(sums), centre)

    def scores(self, X: Array) -> Array:
        """(n, d) -> (n, c) logits."""
        return np.asarray(SHARPNESS * (unit(X - self.centre) @ self.means.T), np.float32)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The means and the centre."""
        return {"means": self.means, "centre": self.centre}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Rebuild; raises ValueError."""
        means, centre = checked(arrays, means=2, centre=1)
        if centre.shape != means.shape[1:]:
            raise ValueError(f"means {means.shape} and centre {centre.shape} do not fit")
        return cls(means, centre)
