"""How well features suit labels, without training a head: LogME, for a shortlist of backbones.

A single number, larger is better, comparable between backbones on the same rows and labels only. It ranks
well enough to leave out the hopeless, not well enough to decide (weighted Kendall's tau of about 0.67 with accuracy
after training, on average over published comparisons).

Letters: n examples, d feature width, c classes, r the rank of X.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ROUNDS = 50  # at most, of the fixed point
CLOSE = 1e-4  # relative change of alpha / beta at which it is found
FLOOR = 1e-12  # keeps an exact fit from dividing by nothing


def logme(X: NDArray[Any], y: NDArray[Any]) -> float:
    """The logarithm of the maximum evidence, a row: how well a Bayesian linear model explains the labels by X.

    You, Liu, Wang and Long (2021), "LogME", sections 4.1 and 4.2, by the fixed point iteration of You et al. (2022),
    "Ranking and Tuning Pre-trained Models", section 4.3, all classes at once. Where d > r the determinant is taken over
    all d directions, as equation 2 has it.

    X: (n, d). y: (n,) integer codes, -1 for rows without a label (left out): the mean over one-against-rest targets; or
    floats (n,) or (n, t): targets of a regression, the mean over its columns; NaN is left out. Scale matters, so compare
    features of one kind (unit length). Raises ValueError on what is no such array, or on fewer than 2 labelled rows.
    """
    X, T = _targets(X, y)
    n = len(X)
    spectrum, Z = _projected(X, T)  # (r,), (r, t) squared components of the targets along the left singular vectors
    rest = np.maximum((T**2).sum(0) - Z.sum(0), 0.0)  # (t,) what no direction of X explains
    s = spectrum[:, None]
    ratio = np.ones(T.shape[1])  # alpha / beta, a target
    alpha = beta = miss = size = np.ones(T.shape[1])
    for _ in range(ROUNDS):
        used = (s / (s + ratio)).sum(0)  # gamma, the effective number of parameters
        size = (s * Z / (s + ratio) ** 2).sum(0)  # |m|^2
        miss = (Z * (ratio / (s + ratio)) ** 2).sum(0) + rest  # |X m - y|^2
        alpha = used / (size + FLOOR)
        beta = (n - used) / (miss + FLOOR)
        new = np.clip(alpha / np.maximum(beta, FLOOR), FLOOR, 1 / FLOOR)
        done = np.abs(new - ratio) <= CLOSE * ratio
        ratio = new
        if done.all():
            break
    r = len(spectrum)
    alpha, beta = np.maximum(alpha, FLOOR), np.maximum(beta, FLOOR)
    evidence = (
        r / 2 * np.log(alpha)  # d/2 log alpha less the (d - r)/2 log alpha of the empty directions' determinant
        + n / 2 * np.log(beta)
        - np.log(alpha + beta * s).sum(0) / 2
        - beta / 2 * miss
        - alpha / 2 * size
        - n / 2 * np.log(2 * np.pi)
    )
    return float((evidence / n).mean())


def _projected(X: Floats, T: Floats) -> tuple[Floats, Floats]:
    """The r squared singular values of X that are not 0, and the squared components (r, t) of T along their directions.

    From the smaller of the two Gram matrices: of the singular values only those below 1e-6 of the largest are lost.
    """
    n, d = X.shape
    if d <= n:
        values, V = np.linalg.eigh(X.T @ X)
        kept = values > values[-1] * 1e-12
        Z = (V[:, kept].T @ (X.T @ T)) ** 2 / values[kept, None]
    else:
        values, U = np.linalg.eigh(X @ X.T)
        kept = values > values[-1] * 1e-12
        Z = (U[:, kept].T @ T) ** 2
    return values[kept], Z


def _targets(X: NDArray[Any], y: NDArray[Any]) -> tuple[Floats, Floats]:
    """The labelled rows of X (n, d) and their targets (n, t): one column a class that occurs, or the numbers given."""
    X, y = np.asarray(X, np.float64), np.asarray(y)
    if X.ndim != 2 or len(X) != len(y):
        raise ValueError(f"X {X.shape} and y {y.shape} do not fit")
    if y.dtype.kind in "iub":
        if y.ndim != 1:
            raise ValueError(f"class codes must be (n,), not {y.shape}")
        held = np.asarray(y >= 0)
        _, code = np.unique(y[held], return_inverse=True)
        T = np.zeros((int(held.sum()), int(code.max(initial=-1)) + 1))
        T[np.arange(len(T)), code] = 1
    else:
        T = np.asarray(y, np.float64).reshape(len(y), -1)
        held = np.asarray(np.isfinite(T).all(1))
        T = T[held]
    X = X[held]
    if len(X) < 2:
        raise ValueError(f"{len(X)} labelled rows: at least 2 are needed")
    if not np.isfinite(X).all():
        raise ValueError("X has values that are not finite")
    return X, T
