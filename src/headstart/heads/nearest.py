"""k nearest neighbours by cosine, weighted by nearness; for labels and for a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from headstart.head import TASKS, Array, checked, unit

SHARPNESS = 10.0  # a neighbour nearer by 0.1 of cosine counts e times as much
BLOCK = 1024


@dataclass(frozen=True)
class Nearest:
    """The training features (n, d) as unit vectors, their targets (n, c), how many are asked, and whether for a number."""

    name: ClassVar[str] = "nearest"
    tasks: ClassVar[frozenset[str]] = frozenset(TASKS)

    X: Array
    T: Array
    k: int
    number: bool

    @classmethod
    def fit(cls, X: Array, T: Array, k: int = 10, *, number: bool = False) -> Self:
        """Keep X (n, d) and T (n, c)."""
        return cls(unit(X), np.asarray(T, np.float32), min(k, len(X)), number)

    def scores(self, X: Array) -> Array:
        """(n, d) -> (n, c): log odds of the weighted share of each label among the neighbours, or their mean number."""
        found = np.empty((len(X), self.T.shape[1]), np.float32)
        for low in range(0, len(X), BLOCK):
            near = unit(X[low : low + BLOCK]) @ self.X.T
            best = np.argpartition(-near, self.k - 1, axis=1)[:, : self.k]
            similar = np.take_along_axis(near, best, 1)
            weight = np.exp(SHARPNESS * (similar - similar.max(1, keepdims=True)))
            found[low : low + BLOCK] = np.einsum("nk,nkc->nc", weight / weight.sum(1, keepdims=True), self.T[best])
        if self.number:
            return found
        share = np.clip(found, 0.01, 0.99)
        return np.asarray(np.log(share / (1 - share)), np.float32)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The kept rows."""
        return {"X": self.X, "T": self.T, "kind": np.array([self.k, self.number], np.int32)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Rebuild; raises ValueError."""
        X, T, kind = checked(arrays, X=2, T=2, kind=1)
        k, number = (int(v) for v in kind) if kind.shape == (2,) else (0, 0)
        if len(X) != len(T) or not 1 <= k <= len(X) or number not in (0, 1):
            raise ValueError(f"X {X.shape}, T {T.shape} and k {k} do not fit")
        return cls(X, T, k, bool(number))
