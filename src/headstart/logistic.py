"""Logistic regression for many classes, folds and strengths, in single precision.

Minimises  sum_i w_i loss(t_i, (x_i - mu) W + b) + strength * scale / 2 * tr(W' M W)  over W (d, c) and b (c,), with the
softmax loss (one label of many; t may be soft) or the sigmoid loss (several labels). The bias is not penalised.

The penalty has a metric M. With M = I it is the usual L2. With M the within-class scatter, shrunk towards I, directions
in which examples of one class differ cost more: the regularised form of linear discriminant analysis (Friedman 1989,
section 2), with a discriminative loss. `scale`, the mean |x - mu|^2, makes strengths comparable.

The method is L-BFGS (Nocedal and Wright 2006, algorithm 7.4) that begins from the inverse of a bound on the curvature,
Gram matrix plus penalty (Boehning 1992, less its constant): some 10 to 20 passes over X whatever its conditioning.

Letters: n examples, d feature width, c classes. X (n, d) float32, maybe a memory map, read in blocks; T (n, c) float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Value = Callable[[Floats], tuple[float, Floats]]
BLOCK = 16_384  # rows read at a time
MEMORY = 10  # steps that L-BFGS remembers
SHRINK = 0.5  # share of the identity in the within-class metric


@dataclass(frozen=True)
class Moments:
    """Sums over rows, additive over parts of the data."""

    count: float  # sum of weights
    total: Floats  # (d,) sum of w x
    gram: Floats  # (d, d) sum of w x x'
    classes: Floats  # (c,) sum of w t
    sums: Floats  # (c, d) sum of w t x'

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count, self.total + other.total, self.gram + other.gram,
            self.classes + other.classes, self.sums + other.sums,
        )  # fmt: skip

    def __sub__(self, other: Moments) -> Moments:
        return Moments(
            self.count - other.count, self.total - other.total, self.gram - other.gram,
            self.classes - other.classes, self.sums - other.sums,
        )  # fmt: skip

    def covariance(self) -> Floats:
        """(d, d) about the mean."""
        mean = self.total / self.count
        return np.asarray(self.gram / self.count - np.outer(mean, mean), np.float32)

    def within(self, shrink: float = SHRINK) -> Floats:
        """(d, d) scatter within classes, shrunk towards the identity, with mean diagonal 1."""
        known = self.classes > 0
        sums = self.sums[known]
        scatter = self.gram - (sums / self.classes[known, None]).T @ sums
        size = float(np.trace(scatter)) / len(scatter)
        if size <= 1e-5 * float(np.trace(self.gram)) / len(scatter):  # equal rows a class: rounding is left
            return np.eye(len(scatter), dtype=np.float32)
        mixed = (1 - shrink) / size * scatter
        mixed[np.diag_indices(len(mixed))] += shrink
        return np.asarray(mixed, np.float32)


def moments(X: Floats, T: Floats, weight: Floats | None = None) -> Moments:
    """The moments of n rows, in one pass."""
    n, d = X.shape
    parts = []
    for start in range(0, n, BLOCK):
        x, t = np.asarray(X[start : start + BLOCK], np.float32), T[start : start + BLOCK]
        w = None if weight is None else weight[start : start + BLOCK, None]
        wx = x if w is None else np.asarray(x * w, np.float32)
        wt = t if w is None else np.asarray(t * w, np.float32)
        parts.append(Moments(float(len(x) if w is None else w.sum()), wx.sum(0), wx.T @ x, wt.sum(0), wt.T @ x))
    if not parts:
        c = T.shape[1]
        shapes = ((d,), (d, d), (c,), (c, d))
        return Moments(0.0, *(np.zeros(shape, np.float32) for shape in shapes))
    return sum(parts[1:], parts[0])


@dataclass(frozen=True)
class Weights:
    """A solution: scores are x W + b."""

    W: Floats  # (d, c)
    b: Floats  # (c,)


@dataclass(frozen=True)
class Problem:
    """Rows, targets and penalty, prepared once for any number of strengths."""

    X: Floats
    T: Floats
    weight: Floats | None
    several: bool
    moments: Moments
    metric: Floats | None  # (d, d) M
    scale: float
    inverse: Floats  # (d, d) inverse of a bound on the curvature, at a middling strength

    def solve(
        self, strength: float, *, start: Weights | None = None, tolerance: float = 1e-2, most: int = 100
    ) -> Weights:
        """Minimise; `tolerance` is the gradient's norm over that of the constant model. start: a solution nearby."""
        m, X, T = self.moments, self.X, self.T
        (d, c), mean = (X.shape[1], T.shape[1]), m.total / m.count
        pull = np.float32(strength * self.scale)
        bend = np.float32(1 / (0.25 * m.count))  # the inverse of the bias's curvature
        share = np.clip(m.classes / m.count, 1e-6, 1 - 1e-6)
        b0 = np.log(share / (1 - share)) if self.several else np.log(share / share.sum())

        def value(x: Floats) -> tuple[float, Floats]:
            W, b = x[:-1], x[-1]
            shift = b - mean @ W
            loss, gradient, slope = 0.0, np.zeros((d, c), np.float32), np.zeros(c, np.float32)
            for low in range(0, len(X), BLOCK):
                rows, t = X[low : low + BLOCK], T[low : low + BLOCK]
                w = None if self.weight is None else self.weight[low : low + BLOCK]
                part, G = (_sigmoid if self.several else _softmax)(rows @ W + shift, t, w)
                loss += part
                gradient += rows.T @ G
                slope += G.sum(0)
            pulled = pull * (W if self.metric is None else self.metric @ W)
            gradient += pulled - np.outer(mean, slope)
            return loss + 0.5 * float(np.vdot(W, pulled)), np.concatenate([gradient, slope[None]])

        def straight(g: Floats) -> Floats:
            return np.concatenate([self.inverse @ g[:-1], g[-1:] * bend])

        constant = np.outer(mean, m.classes) - m.sums.T  # the gradient at W = 0, b = b0
        goal = tolerance * max(float(np.vdot(constant, self.inverse @ constant)), 0.0) ** 0.5
        if start is None:
            x = np.concatenate([np.zeros((d, c)), b0[None]])
        else:
            x = np.concatenate([start.W, (start.b + mean @ start.W)[None]])
        x = _descend(value, straight, x.astype(np.float32), goal, most)
        return Weights(x[:-1], np.asarray(x[-1] - mean @ x[:-1], np.float32))


def problem(
    X: Floats,
    T: Floats,
    *,
    weight: Floats | None = None,
    several: bool = False,
    metric: Floats | None = None,
    known: Moments | None = None,
    near: float = 0.1,
) -> Problem:
    """Prepare rows X (n, d) and targets T (n, c).

    metric: (d, d) M, by default I. known: the moments of X, T, weight, when they are there already. near: the strength
    that the bound on the curvature is made for.
    """
    m = known or moments(X, T, weight)
    covariance = m.covariance()
    scale = max(float(np.trace(covariance)), 1e-12)
    bend = 0.25 if several else min(0.25, 2 / T.shape[1])
    bound = np.float32(bend * m.count) * covariance
    if metric is None:
        bound[np.diag_indices(len(bound))] += near * scale
    else:
        bound += np.float32(near * scale) * metric
    bound[np.diag_indices(len(bound))] += 1e-5 * float(np.trace(bound)) / len(bound)
    return Problem(X, T, weight, several, m, metric, scale, np.linalg.inv(bound))


def _descend(value: Value, straight: Callable[[Floats], Floats], x: Floats, goal: float, most: int) -> Floats:
    """L-BFGS with halving steps, until the gradient's length, in the metric of `straight`, is at most `goal`."""
    f, g = value(x)
    steps: list[tuple[Floats, Floats, float]] = []
    for _ in range(most):
        if float(np.vdot(g, straight(g))) <= goal**2:
            break
        move = _direction(g, steps, straight)
        down, size = float(np.vdot(move, g)), 1.0
        while True:
            new = x - np.float32(size) * move
            f_new, g_new = value(new)
            if f_new <= f - 1e-4 * size * down or size < 1e-3:
                break
            size *= 0.5
        if not f_new < f:  # single precision has no more to give
            break
        s, y = new - x, g_new - g
        if (curve := float(np.vdot(s, y))) > 1e-12:
            steps = [*steps[1 - MEMORY :], (s, y, curve)]
        x, f, g = new, f_new, g_new
    return x


def _direction(g: Floats, steps: list[tuple[Floats, Floats, float]], straight: Callable[[Floats], Floats]) -> Floats:
    q = g.copy()
    used = []
    for s, y, curve in reversed(steps):
        a = np.float32(np.vdot(s, q) / curve)
        q -= a * y
        used.append(a)
    q = straight(q)
    if steps:
        _, y, curve = steps[-1]
        q *= np.float32(curve / float(np.vdot(y, straight(y))))
    for (s, y, curve), a in zip(steps, reversed(used), strict=True):
        q += (a - np.float32(np.vdot(y, q) / curve)) * s
    return q


def _softmax(Z: Floats, T: Floats, weight: Floats | None) -> tuple[float, Floats]:
    """Loss and its gradient by the scores; Z is overwritten."""
    Z -= Z.max(1, keepdims=True)
    picked = np.einsum("ij,ij->i", Z, T)
    np.exp(Z, out=Z)
    total, mass = Z.sum(1), T.sum(1)
    loss = np.log(total) * mass - picked
    Z *= (mass / total)[:, None]
    Z -= T
    if weight is not None:
        loss = loss * weight
        Z *= weight[:, None]
    return float(loss.sum(dtype=np.float64)), Z


def _sigmoid(Z: Floats, T: Floats, weight: Floats | None) -> tuple[float, Floats]:
    small = np.exp(-np.abs(Z))
    loss = (np.maximum(Z, 0) - Z * T + np.log1p(small)).sum(1)
    G = np.where(Z >= 0, 1 / (1 + small), small / (1 + small)) - T
    if weight is not None:
        loss = loss * weight
        G *= weight[:, None]
    return float(loss.sum(dtype=np.float64)), G
