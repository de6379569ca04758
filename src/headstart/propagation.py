"""What unlabelled rows are: a head's first opinion, smoothed over neighbours.

Local and global consistency (Zhou et al. 2004) on the graph of nearest neighbours by cosine of centred features, with a
head's sharpened probabilities in place of zeros for the unlabelled, and the labelled rows held fast.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
NEIGHBOURS = 5
SHARE = 0.85  # of an opinion that comes from the neighbours
ROUNDS = 20
POWER = 4
BLOCK = 1024


def spread(A: Floats, T: Floats, U: Floats, scores: Floats) -> Floats:
    """Soft targets (m, c) for unlabelled rows.

    A: (n, d) labelled features with targets T (n, c); U: (m, d) unlabelled with a head's scores (m, c).
    """
    rows = np.concatenate([A, U])
    near, weight = neighbours(rows - rows.mean(0))
    first = np.concatenate([T, _sharp(_softmax(scores))])
    F = first.copy()
    for _ in range(ROUNDS):
        mixed = np.empty_like(F)
        for low in range(0, len(F), BLOCK):
            part = slice(low, low + BLOCK)
            mixed[part] = np.einsum("nk,nkc->nc", weight[part], F[near[part]])
        F = SHARE * mixed + (1 - SHARE) * first
        F[: len(A)] = T
    return _sharp(F[len(A) :])


def neighbours(X: Floats, k: int = NEIGHBOURS) -> tuple[NDArray[np.int64], Floats]:
    """The k nearest other rows of each row by cosine, (n, k), and weights (n, k) that sum to 1."""
    Z = np.asarray(X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12), np.float32)
    k = min(k, len(Z) - 1)
    index, similar = np.empty((len(Z), k), np.int64), np.empty((len(Z), k), np.float32)
    for low in range(0, len(Z), BLOCK):
        S = Z[low : low + BLOCK] @ Z.T
        S[np.arange(len(S)), np.arange(low, low + len(S))] = -2
        best = np.argpartition(-S, k - 1, axis=1)[:, :k]
        index[low : low + BLOCK], similar[low : low + BLOCK] = best, np.take_along_axis(S, best, 1)
    weight = np.exp((similar - similar.max(1, keepdims=True)) / 0.1)
    return index, np.asarray(weight / weight.sum(1, keepdims=True), np.float32)


def _softmax(Z: Floats) -> Floats:
    E = np.exp(Z - Z.max(1, keepdims=True))
    return np.asarray(E / E.sum(1, keepdims=True), np.float32)


def _sharp(P: Floats) -> Floats:
    """Raised to POWER and made to sum to 1 again."""
    Q = np.maximum(P, 0) ** POWER
    return np.asarray(Q / np.maximum(Q.sum(1, keepdims=True), 1e-12), np.float32)
