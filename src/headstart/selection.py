"""Which head: candidates compared on folds, the winner trained on everything, and a sentence that says why.

Every candidate is judged on rows it was not trained on. Two candidates whose difference is within its own noise are
called a tie. Unlabelled rows are used only where the folds show a gain beyond the noise.

Letters: n examples, d feature width, c classes, m unlabelled rows, r deals into folds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import InputError
from headstart.head import CLASSIFICATION, MULTILABEL, REGRESSION, Array, Head
from headstart.heads.centroid import Centroid
from headstart.heads.linear import Linear
from headstart.heads.nearest import Nearest
from headstart.heads.ridge import Ridge
from headstart.logistic import Moments, Weights, moments, problem
from headstart.propagation import spread

Folds = NDArray[np.integer[Any]]
Train = Callable[[Array, Array, Array | None], Head]  # X, T, weight

STRENGTHS = (0.3, 0.1, 0.03, 0.01)  # of the linear head, strong first: each starts from the one before
RIDGES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
MOST_FOLDED = 50_000  # rows that folds are made of; above it an even sample stands for all
MOST_NEAREST = 5_000  # rows among which nearest neighbours are looked for
LARGE = 3_000  # rows above which strengths are compared on one fold instead of all, in the within-class metric
COARSE, FINE = 3e-2, 1e-2  # tolerances of the solver, while strengths are compared and else
MOST_POOL = 10_000  # unlabelled rows used
NAMED = 2.0  # examples that the meaning of a label's name counts for
LABELLED = 3.0  # unlabelled rows that a labelled one counts for


@dataclass(frozen=True)
class Choice:
    """The chosen head, and how it was found."""

    head: Head  # trained on every row
    train: Train  # the same on other rows
    name: str
    strength: float | None
    pool: bool  # whether unlabelled rows were used
    views: bool  # whether further views of the rows were trained on
    scores: Array  # (r, n, c) out-of-fold scores; NaN where a row was never held out
    candidates: tuple[dict[str, Any], ...]  # head, strength, metric, pool, accuracy, low, high
    why: str
    tie: str | None


@dataclass(frozen=True)
class _Candidate:
    name: str
    strength: float | None
    train: Train
    metric: str = ""
    pool: bool = False
    views: bool = False

    def said(self) -> str:
        """The candidate in words."""
        parts = [self.name]
        if self.strength is not None:
            parts.append(f"strength {self.strength:g}")
        if self.metric:
            parts.append(f"{self.metric} metric")
        if self.pool:
            parts.append("with unlabelled rows")
        if self.views:
            parts.append("with mirrored views")
        return ", ".join(parts)


def choose(
    X: Array,
    T: Array,
    *,
    task: str,
    folds: Folds,
    head: str = "auto",
    weight: Array | None = None,
    names: Array | None = None,
    pool: Array | None = None,
    views: Array | None = None,
    seed: int = 0,
) -> Choice:
    """Compare heads on folds and train the best on all rows.

    X: (n, d); T: (n, c) targets; folds: (r, n) fold numbers, -1 always trains. names: (c, d) features of what the label
    names mean. pool: (m, d) features without labels. views: (n, d) features of a second view of each row, never judged
    by. Raises InputError for a head that cannot do the task.
    """
    X, folds = np.asarray(X), np.atleast_2d(folds)
    some = _sample(len(X), seed)
    inner = _Crossed(X, T, folds, weight, task, views)
    if some is not None:
        w, V = (None if one is None else one[some] for one in (weight, views))
        inner = _Crossed(X[some], T[some], folds[:, some], w, task, V)
    candidates = _candidates(inner, task, head, names)
    judged = [(candidate, inner.scores(candidate.train, 0)) for candidate in candidates]
    gained = [(candidate, S, inner.right(S)) for candidate, S in judged]
    best = max(gained, key=lambda row: _merit(row[2]))
    usable = task == CLASSIFICATION and best[0].name != "nearest" and np.isfinite(_merit(best[2]))
    if pool is not None and len(pool) and usable:
        helped = _with_pool(best[0], pool, names, seed)
        S = inner.scores(helped.train, 0)
        gained.append((helped, S, inner.right(S)))
        gain, noise = _difference(gained[-1][2], best[2])
        if gain > noise:
            best = gained[-1]
    if views is not None and np.isfinite(_merit(best[2])):
        helped = replace(best[0], views=True)
        S = inner.scores(helped.train, 0, views=True)
        gained.append((helped, S, inner.right(S)))
        gain, noise = _difference(gained[-1][2], best[2])
        if gain > noise:
            best = gained[-1]
    winner = best[0]
    scores = np.full((len(folds), len(X), T.shape[1]), np.nan, np.float32)
    where = np.arange(len(X)) if some is None else some
    for deal in range(len(folds)):
        scores[deal, where] = best[1] if deal == 0 else inner.scores(winner.train, deal, views=winner.views)
    if winner.views:  # X itself else: it may be too large for a copy
        X, T, weight = _Crossed(X, T, folds, weight, task, views).rows(np.ones(len(X), bool), True)
    trained = winner.train(X, T, weight)
    listed = sorted(gained, key=lambda row: -_merit(row[2]))
    return Choice(
        head=trained,
        train=winner.train,
        name=winner.name,
        strength=winner.strength,
        pool=winner.pool,
        views=winner.views,
        scores=scores,
        candidates=tuple(_listed(candidate, right, task) for candidate, _, right in listed),
        why=_why(best, listed, task),
        tie=_tie(best, listed),
    )


def judged(X: Array, T: Array, *, task: str, folds: Folds) -> tuple[NDArray[np.float64], Array]:
    """How right a head of the usual kind and strength is on each row (n,), and its scores (n, c), out of fold.

    NaN where a row was not held out. For comparing features, not heads: one training a fold, nothing chosen. Right is 1
    or 0 for one label; for several labels the F1 of the row; for a number minus the squared error over the variance. X:
    (n, d); T: (n, c); folds: (n,).
    """

    def train(X: Array, T: Array, weight: Array | None) -> Head:
        if task == REGRESSION:
            return Ridge.fit(X, T, 0.1)
        metric, strength = ("plain", 0.03) if task == MULTILABEL else ("within", 0.1)
        weights = _paths(X, T, None, task, (strength,), metric, tolerance=COARSE)[metric, strength]
        return Linear(weights.W, weights.b)

    crossed = _Crossed(np.asarray(X), T, np.atleast_2d(folds), None, task)
    S = crossed.scores(train, 0)
    return crossed.right(S), S


@dataclass(frozen=True)
class _Crossed:
    """Rows with their folds."""

    X: Array
    T: Array
    folds: Folds
    weight: Array | None
    task: str
    views: Array | None = None

    def rows(self, kept: NDArray[np.bool_], views: bool) -> tuple[Array, Array, Array | None]:
        """X, T and weight of the kept rows; with their second views below them, when said."""
        X, T, weight = self.X[kept], self.T[kept], None if self.weight is None else self.weight[kept]
        if not views or self.views is None:
            return X, T, weight
        twice = None if weight is None else np.concatenate([weight, weight])
        return np.concatenate([X, self.views[kept]]), np.concatenate([T, T]), twice

    def scores(self, train: Train, deal: int, *, views: bool = False) -> Array:
        """Out-of-fold scores (n, c) in one deal; NaN for rows not held out."""
        fold = self.folds[deal]
        S = np.full(self.T.shape, np.nan, np.float32)
        for part in range(int(fold.max(initial=-1)) + 1):
            out = fold == part
            if out.any() and not out.all():
                S[out] = train(*self.rows(~out, views)).scores(self.X[out])
        return S

    def right(self, S: Array) -> NDArray[np.float64]:
        """How right each held-out row is, (n,)."""
        return right(S, self.T, self.task)


def right(S: Array, T: Array, task: str) -> NDArray[np.float64]:
    """How right scores (n, c) are on each row, (n,), larger is better; NaN where a row was not held out (scores NaN).

    1 or 0 for one label; for several labels the F1 of the row at a half; for a number minus the squared error over the
    variance.
    """
    held = np.isfinite(S).all(1)
    found = np.full(len(S), np.nan)
    Z, Y = S[held].astype(np.float64), T[held]
    if task == REGRESSION:
        found[held] = -((Z[:, 0] - Y[:, 0]) ** 2) / max(float(T[:, 0].var()), 1e-12)
    elif task == MULTILABEL:
        said = Z > 0
        both = 2 * (said & (Y > 0)).sum(1)
        size = said.sum(1) + (Y > 0).sum(1)
        found[held] = np.where(size > 0, both / np.maximum(size, 1), 1.0)
    else:
        found[held] = Z.argmax(1) == Y.argmax(1)
    return found


def agreement(a: Array, b: Array, task: str) -> float:
    """The share of rows with the same answer in scores (n, c), 0 deciding of several labels; of a number the correlation."""
    if task == REGRESSION:
        return float(np.corrcoef(a[:, 0], b[:, 0])[0, 1]) if len(a) > 1 else 1.0
    if task == MULTILABEL:
        return float(((a > 0) == (b > 0)).all(1).mean())
    return float((a.argmax(1) == b.argmax(1)).mean())


def _merit(right: NDArray[np.float64]) -> float:
    held = np.isfinite(right)
    return float(right[held].mean()) if held.any() else -np.inf


def _difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float]:
    """The mean difference a - b on rows both were held out on, and its standard error."""
    d = (a - b)[np.isfinite(a) & np.isfinite(b)]
    if len(d) < 2:
        return 0.0, np.inf
    return float(d.mean()), float(d.std(ddof=1) / np.sqrt(len(d)))


def _sample(n: int, seed: int) -> NDArray[np.int64] | None:
    if n <= MOST_FOLDED:
        return None
    return np.sort(np.random.default_rng(seed).permutation(n)[:MOST_FOLDED])


def _candidates(inner: _Crossed, task: str, head: str, names: Array | None) -> list[_Candidate]:
    """The candidates of a task, or those of one head."""
    n = len(inner.X)
    found: list[_Candidate] = []
    if task == CLASSIFICATION and head in ("auto", "centroid"):
        found.append(_Candidate("centroid", None, lambda X, T, w: Centroid.fit(*_named(X, T, w, names))))
    if head == "nearest" or (head == "auto" and n <= MOST_NEAREST):
        number = task == REGRESSION
        found.append(_Candidate("nearest", None, lambda X, T, w: Nearest.fit(X, T, number=number)))
    if task == REGRESSION and head in ("auto", "ridge"):
        found.append(_best_of([_ridge(strength) for strength in RIDGES], inner))
    if task != REGRESSION and head in ("auto", "linear"):
        found.append(_linear(inner, task, names))
    if not found:
        raise InputError(f"head {head!r} cannot do {task}; use auto.")
    return found


def _ridge(strength: float) -> _Candidate:
    return _Candidate("ridge", strength, lambda X, T, w: Ridge.fit(X, T, strength, w))


def _best_of(candidates: list[_Candidate], inner: _Crossed) -> _Candidate:
    return max(candidates, key=lambda one: _merit(inner.right(inner.scores(one.train, 0))))


def _linear(inner: _Crossed, task: str, names: Array | None) -> _Candidate:
    """The linear head at its best strength and metric, found along warm-started paths on folds."""
    fold = inner.folds[0]
    parts = [part for part in range(int(fold.max(initial=-1)) + 1) if 0 < (fold == part).sum() < len(fold)]
    parts = parts[:1] if len(inner.X) > LARGE else parts
    if task == MULTILABEL:
        metrics: tuple[str, ...] = ("plain",)
    else:
        metrics = ("within",) if len(inner.X) > LARGE else ("plain", "within", "both")
    right = {(metric, strength): np.full(len(fold), np.nan) for metric in metrics for strength in STRENGTHS}
    for part in parts:
        out = fold == part
        weight = None if inner.weight is None else inner.weight[~out]
        named = _named(inner.X[~out], inner.T[~out], weight, names)
        paths = _paths(*named, task, STRENGTHS, metrics[-1], tolerance=COARSE)
        held = replace(inner, T=inner.T[out])
        for key, weights in paths.items():
            right[key][out] = held.right(Linear(weights.W, weights.b).scores(inner.X[out]))
    usual = (metrics[-1], 0.1 if metrics[-1] == "within" else 0.03)
    best = max(right, key=lambda key: _merit(right[key]))
    gain, noise = _difference(right[best], right[usual])
    metric, strength = best if gain > 2 * noise else usual  # what differs by chance is left as it usually is

    def train(X: Array, T: Array, weight: Array | None) -> Head:
        weights = _paths(*_named(X, T, weight, names), task, (strength,), metric)[metric, strength]
        return Linear(weights.W, weights.b)

    return _Candidate("linear", strength, train, metric if task == CLASSIFICATION else "")


def _paths(
    X: Array,
    T: Array,
    weight: Array | None,
    task: str,
    strengths: Sequence[float],
    metric: str,
    *,
    tolerance: float = FINE,
) -> dict[tuple[str, float], Weights]:
    """Solutions by metric and strength; 'both' is the mean of the two others, which is again a linear head.

    With fewer rows than features the work is done in the space the rows span: the solution lies in it.
    """
    basis = np.linalg.qr(X.T)[0] if len(X) < 0.75 * X.shape[1] else None
    if basis is not None:
        X = X @ basis
    known: Moments = moments(X, T, weight)
    found: dict[tuple[str, float], Weights] = {}
    for kind in ("plain", "within") if metric == "both" else (metric,):
        M = known.within() if kind == "within" else None
        setting = problem(X, T, weight=weight, several=task == MULTILABEL, metric=M, known=known)
        last: Weights | None = None
        for strength in strengths:
            last = setting.solve(strength, start=last, tolerance=tolerance)
            found[kind, strength] = last if basis is None else Weights(basis @ last.W, last.b)
    if metric == "both":
        for strength in strengths:
            one, two = found["plain", strength], found["within", strength]
            half = np.float32(0.5)
            found["both", strength] = Weights(half * (one.W + two.W), half * (one.b + two.b))
    return found


def _named(X: Array, T: Array, weight: Array | None, names: Array | None) -> tuple[Array, Array, Array | None]:
    """Add what the label names mean as NAMED examples of each class; where examples abound it makes no difference."""
    c = T.shape[1]
    if names is None or len(X) > 100 * c:
        return X, T, weight
    w = np.ones(len(X), np.float32) if weight is None else weight
    return (
        np.concatenate([X, names]),
        np.concatenate([T, np.eye(c, dtype=np.float32)]),
        np.concatenate([w, np.full(c, NAMED, np.float32)]),
    )


def _with_pool(base: _Candidate, pool: Array, names: Array | None, seed: int) -> _Candidate:
    """A linear head on labelled rows and on what a first head, smoothed over neighbours, says of the unlabelled."""
    U = np.asarray(pool, np.float32)
    if len(U) > MOST_POOL:
        U = U[np.sort(np.random.default_rng(seed).permutation(len(U))[:MOST_POOL])]

    def train(X: Array, T: Array, weight: Array | None) -> Head:
        first = base.train(X, T, weight)
        A, TA, w = _named(X, T, weight, names)
        soft = spread(A, TA, U, first.scores(U))
        own = np.ones(len(A), np.float32) if w is None else w
        rows, targets = np.concatenate([A, U]), np.concatenate([TA, soft])
        shares = np.concatenate([LABELLED * own, np.ones(len(U), np.float32)])
        weights = _paths(rows, targets, shares, CLASSIFICATION, (0.1,), "within")["within", 0.1]
        return Linear(weights.W, weights.b)

    return _Candidate("linear", 0.1, train, "within", pool=True)


def _listed(candidate: _Candidate, right: NDArray[np.float64], task: str) -> dict[str, Any]:
    held = right[np.isfinite(right)] + (1.0 if task == REGRESSION else 0.0)
    value = float(held.mean()) if len(held) else 0.0
    half = 1.96 * float(held.std(ddof=1)) / np.sqrt(len(held)) if len(held) > 1 else 0.0
    return {
        "head": candidate.name, "strength": candidate.strength, "metric": candidate.metric, "pool": candidate.pool,
        "views": candidate.views,
        "accuracy": value, "low": value - half, "high": value + half if task == REGRESSION else min(1.0, value + half),
    }  # fmt: skip


def _figure(task: str) -> str:
    return {REGRESSION: "R²", MULTILABEL: "F1 a row"}.get(task, "accuracy")


Row = tuple[_Candidate, Array, NDArray[np.float64]]


def _why(best: Row, listed: list[Row], task: str) -> str:
    shift = 1.0 if task == REGRESSION else 0.0
    line = f"{best[0].said()}: {_figure(task)} {_merit(best[2]) + shift:.3f} on folds"
    others = [row for row in listed if row[0] is not best[0]]
    if others:
        line += "; " + ", ".join(f"{row[0].said()} {_merit(row[2]) + shift:.3f}" for row in others)
    return line


def _tie(best: Row, listed: list[Row]) -> str | None:
    tied = []
    for row in listed:
        gain, noise = _difference(best[2], row[2])
        if row[0] is not best[0] and gain <= 1.96 * noise and np.isfinite(noise):
            tied.append(row[0].said())
    if not tied:
        return None
    return f"These examples do not tell {best[0].said()} apart from {' or '.join(tied)}: a tie."
