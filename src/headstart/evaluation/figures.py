"""Figures of merit, from answers or from the counts right, true and predicted of each class.

Letters: n examples, c classes. `right`, `true` and `predicted` are counts (..., c); the class is the last axis, so the
functions take one set of counts or a thousand resampled ones. A share of nothing (0 / 0) is 0, as in scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ClassFigures:
    """Figures of each class, (c,) each."""

    precision: Floats
    recall: Floats
    f1: Floats
    n: Floats  # true examples


@dataclass(frozen=True)
class NumberFigures:
    """How far predicted numbers are off, in the number's own unit except r2."""

    r2: float
    mae: float
    rmse: float
    baseline_mae: float  # of always saying the median


def accuracy(y: NDArray[np.integer], predicted: NDArray[np.integer]) -> float:
    """Share of the rows with y >= 0 that are predicted right."""
    known = y >= 0
    return float((y[known] == predicted[known]).mean()) if known.any() else float("nan")


def confusion(
    y: NDArray[np.integer], predicted: NDArray[np.integer], c: int, weight: Floats | None = None
) -> NDArray[np.float64]:
    """Counts (c, c), rows true, columns predicted; examples with a negative code on either side are left out."""
    known = (y >= 0) & (predicted >= 0)
    cell = y[known].astype(np.int64) * c + predicted[known]
    return (
        np.bincount(cell, None if weight is None else weight[known], minlength=c * c).reshape(c, c).astype(np.float64)
    )


def class_figures(right: Floats, true: Floats, predicted: Floats) -> ClassFigures:
    """Precision, recall and F1 of each class; counts (..., c)."""
    return ClassFigures(
        _share(right, predicted), _share(right, true), _share(2 * right, true + predicted), np.asarray(true, np.float64)
    )


def macro_f1(right: Floats, true: Floats, predicted: Floats) -> Floats:
    """Mean F1 (...,) over the classes that occur, truly or as an answer, as scikit-learn has it; counts (..., c)."""
    occurs = (np.asarray(true) + predicted) > 0
    return _share((_share(2 * right, true + predicted) * occurs).sum(-1), occurs.sum(-1))


def micro_f1(right: Floats, true: Floats, predicted: Floats) -> Floats:
    """F1 (...,) of all label decisions together; counts (..., c)."""
    return _share(2 * right.sum(-1), true.sum(-1) + predicted.sum(-1))


def most_confused(counts: Floats, top: int = 10) -> list[tuple[int, int, float]]:
    """The (true, predicted, count) off the diagonal with the largest counts, largest first; counts (c, c)."""
    off = counts * (1 - np.eye(len(counts)))
    order = np.argsort(-off, axis=None, kind="stable")[:top]
    pairs = [(int(i // len(counts)), int(i % len(counts)), float(off.flat[i])) for i in order]
    return [pair for pair in pairs if pair[2] > 0]


def number_figures(y: Floats, predicted: Floats) -> NumberFigures:
    """r2, mean absolute and root mean square error of (n,) numbers; r2 is 0 where y does not vary."""
    error = np.asarray(y, np.float64) - predicted
    spread = float(((y - np.mean(y)) ** 2).sum())
    return NumberFigures(
        r2=1 - float((error**2).sum()) / spread if spread > 0 else 0.0,
        mae=float(np.abs(error).mean()),
        rmse=float(np.sqrt((error**2).mean())),
        baseline_mae=float(np.abs(y - np.median(y)).mean()),
    )


def _share(part: Floats, whole: Floats) -> Floats:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)
