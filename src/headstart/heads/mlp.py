"""A layer of rectified units beside a linear path; its weights are learned by training/mlp.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from headstart.head import CLASSIFICATION, MULTILABEL, REGRESSION, Array, checked


@dataclass(frozen=True)
class Mlp:
    """scores = relu(X up + bend) down + X W + b, of h units: up (d, h), bend (h,), down (h, c), W (d, c), b (c,).

    With down at zero it is the linear head.
    """

    name: ClassVar[str] = "mlp"
    tasks: ClassVar[frozenset[str]] = frozenset((CLASSIFICATION, MULTILABEL, REGRESSION))

    W: Array
    b: Array
    up: Array
    bend: Array
    down: Array

    def scores(self, X: Array) -> Array:
        """(n, d) -> (n, c) logits, or the number."""
        hidden = np.maximum(X @ self.up + self.bend, 0)  # (n, h)
        return np.asarray(hidden @ self.down + X @ self.W + self.b, np.float32)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Both paths."""
        return {"W": self.W, "b": self.b, "up": self.up, "bend": self.bend, "down": self.down}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Rebuild; raises ValueError."""
        W, b, up, bend, down = checked(arrays, W=2, b=1, up=2, bend=1, down=2)
        d, c = W.shape
        h = up.shape[1]
        if (b.shape, up.shape, bend.shape, down.shape) != ((c,), (d, h), (h,), (h, c)):
            raise ValueError(
                f"W {W.shape}, b {b.shape}, up {up.shape}, bend {bend.shape}, down {down.shape} do not fit"
            )
        return cls(W, b, up, bend, down)
