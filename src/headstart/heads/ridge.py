"""Ridge regression for a number, in closed form (Hoerl and Kennard 1970)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from headstart.head import REGRESSION, Array, checked


@dataclass(frozen=True)
class Ridge:
    """Weights W (d, 1) and b (1,)."""

    name: ClassVar[str] = "ridge"
    tasks: ClassVar[frozenset[str]] = frozenset((REGRESSION,))

    W: Array
    b: Array

    @classmethod
    def fit(cls, X: Array, T: Array, strength: float, weight: Array | None = None) -> Self:
        """X (n, d), T (n, 1); `strength` times the mean squared norm of X is added to the diagonal of its Gram matrix."""
        w = np.ones(len(X), np.float32) if weight is None else weight
        centre, level = (w @ X) / w.sum(), (w @ T) / w.sum()
        Z, t = (X - centre) * w[:, None], T - level
        gram = (Z.T @ (X - centre)).astype(np.float64)
        gram[np.diag_indices(len(gram))] += strength * max(np.trace(gram) / w.sum(), 1e-12) + 1e-9
        W = np.linalg.solve(gram, (Z.T @ t).astype(np.float64)).astype(np.float32)
        return cls(W, np.asarray(level - centre @ W, np.float32))

    def scores(self, X: Array) -> Array:
        """(n, d) -> (n, 1) numbers."""
        return np.asarray(X @ self.W + self.b, np.float32)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """W and b."""
        return {"W": self.W, "b": self.b}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Rebuild; raises ValueError."""
        W, b = checked(arrays, W=2, b=1)
        if W.shape[1] != 1 or b.shape != (1,):
            raise ValueError(f"W {W.shape} and b {b.shape} are not those of one number")
        return cls(W, b)
