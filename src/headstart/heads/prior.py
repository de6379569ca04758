"""Zero-shot: a class is the direction of what its name means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from headstart.head import CLASSIFICATION, Array, checked, unit

SHARPNESS = 15.0


@dataclass(frozen=True)
class Prior:
    """Directions (c, d) of the label names, and the mean (d,) taken from every feature first."""

    name: ClassVar[str] = "prior"
    tasks: ClassVar[frozenset[str]] = frozenset((CLASSIFICATION,))

    names: Array
    centre: Array

    @classmethod
    def of(cls, names: Array, pool: Array | None = None) -> Self:
        """names: (c, d) features; texts without labels, (m, d), say where the middle of the texts lies."""
        about = names.mean(0)
        return cls(
            unit(names - about), np.asarray(about if pool is None or not len(pool) else pool.mean(0), np.float32)
        )

    def scores(self, X: Array) -> Array:
        """(n, d) -> (n, c) logits."""
        return np.asarray(SHARPNESS * (unit(X - self.centre) @ self.names.T), np.float32)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The directions and the centre."""
        return {"names": self.names, "centre": self.centre}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Rebuild; raises ValueError."""
        names, centre = checked(arrays, names=2, centre=1)
        if centre.shape != names.shape[1:]:
            raise ValueError(f"names {names.shape} and centre {centre.shape} do not fit")
        return cls(names, centre)
