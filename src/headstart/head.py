"""What a head is: it turns features into scores, and is saved as arrays only.

Letters: n examples, d feature width, c classes. X (n, d) float32 features. T (n, c) float32 targets: one-hot or soft
class shares (classification), 0/1 (several labels), the number itself with c = 1 (regression).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

CLASSIFICATION = "classification"  # one label of many
MULTILABEL = "multilabel"  # several labels at once
REGRESSION = "regression"  # a number
TASKS = (CLASSIFICATION, MULTILABEL, REGRESSION)


class Head(Protocol):
    """A trained head. Implementations are frozen dataclasses of arrays."""

    name: ClassVar[str]
    tasks: ClassVar[frozenset[str]]

    def scores(self, X: Array) -> Array:
        """(n, d) -> (n, c) float32: logits (classification, several labels) or the number (regression)."""
        ...

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Everything needed to rebuild the head, as named arrays for safetensors."""
        ...

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Rebuild from `arrays()`; raises ValueError on missing names, wrong shapes, or values that are not finite."""
        ...


def unit(X: Array) -> Array:
    """Rows of length 1, (n, d); a zero row stays zero."""
    return np.asarray(X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12), np.float32)


def checked(arrays: Mapping[str, NDArray[np.generic]], **dimensions: int) -> list[NDArray[np.float32]]:
    """The named arrays as float32, each with its number of dimensions; raises ValueError when they are not so."""
    if set(arrays) != set(dimensions):
        raise ValueError(f"arrays {sorted(arrays)} are there, {sorted(dimensions)} are needed")
    found = []
    for name, ndim in dimensions.items():
        array = np.asarray(arrays[name])
        if array.ndim != ndim or array.dtype.kind not in "fiu" or not array.size:
            raise ValueError(f"array {name} of shape {array.shape} and type {array.dtype} is not what is needed")
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused below
            found.append(array.astype(np.float32))
        if not np.isfinite(found[-1]).all():
            raise ValueError(f"array {name} holds values that are not finite")
    return found
