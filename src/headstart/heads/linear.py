"""A linear head: scores are x W + b. Logistic regression (see logistic.py) for labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from headstart.head import CLASSIFICATION, MULTILABEL, Array, checked


@dataclass(frozen=True)
class Linear:
    """Weights W (d, c) and b (c,)."""

    name: ClassVar[str] = "linear"
    tasks: ClassVar[frozenset[str]] = frozenset((CLASSIFICATION, MULTILABEL))

    W: Array
    b: Array

    def scores(self, X: Array) -> Array:
        """(n, d) -> (n, c) logits."""
        return np.asarray(X @ self.W + self.b, np.float32)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """W and b."""
        return {"W": self.W, "b": self.b}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Rebuild; raises ValueError."""
        W, b = checked(arrays, W=2, b=1)
        if b.shape != W.shape[1:]:
            raise ValueError(f"W {W.shape} and b {b.shape} do not fit")
        return cls(W, b)
