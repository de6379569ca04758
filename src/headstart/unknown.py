"""Input unlike the training data: a novelty score, the threshold above which the answer is "unknown", and its catch.

The score is the sum of two standardised parts: the distance to the training examples (mean cosine distance to the 2
nearest, of at most 4,000 kept) and the lack of confidence (minus the log odds of the likeliest label).

It was chosen on Banking77 with 10 of its 77 classes hidden, as the mean share of them caught over draws when 5 % of
good input is refused, with all training texts and with 10 a class: 56 and 36 %. Distance alone 51 and 32, confidence
alone 27 and 18, Mahalanobis distance (Lee et al. 2018) 35 and 32, relative Mahalanobis (Ren et al. 2021) 47 and 36,
distance to centroids 36 and 35. Text messages and film reviews are caught to 99.8 % or more. The nearest neighbours
are as in Sun et al. (2022, section 3), who leave confidence out. With 4,000 kept of 10,003 texts 53 % are caught, with
2,000 49 %.

Letters: n examples, d feature width, c classes, q queries, r references. X (n, d), y (n,)
codes, P (n, c) probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from headstart.unitrows import POOL, unit

Floats = NDArray[np.float64]
REFERENCES = 4000  # kept: 3 MB and 50 to 100 microseconds an input at d = 384
QUERIES = 2000  # rows the threshold and the estimate are made from
NEAREST = 2
ROUNDS = 10
MANY, FEW = 512, 64  # references, and inputs, of which it is quicker to look at the neighbourhood first


@dataclass(frozen=True)
class Unknown:
    """What is needed to tell that an input is unlike the training data."""

    references: NDArray[np.float16]  # (r, d) unit vectors; of a served model a `tensors.Stored`
    centre: NDArray[np.float32]  # (2,) mean of distance and of lack of confidence over good input
    spread: NDArray[np.float32]  # (2,) their standard deviations; 0 leaves the part out
    threshold: float
    share: float  # of good input that was to be refused

    def scores(self, X: NDArray[np.floating], P: NDArray[np.floating] | None = None) -> NDArray[np.float32]:
        """Novelty (n,) float32 of features (n, d) answered with probabilities (n, c); P is not looked at where the
        score was made without confidence (numbers, several labels).
        """
        return self._novelty(self._nearest(unit(X)), self._doubts(P))

    def refused(
        self, X: NDArray[np.floating], P: NDArray[np.floating] | None = None, *, done: bool = False
    ) -> NDArray[np.bool_]:
        """(n,) True where the answer should be "unknown": where `scores` are above the threshold.

        done: the rows of X have length 1 already. A row of few is compared with the references in its neighbourhood first:
        if it is near enough to those it needs no others, as more can only bring it nearer.
        """
        U, doubts, r = np.asarray(X, np.float32) if done else unit(X), self._doubts(P), len(self.references)
        if r < MANY or len(U) > FEW or not self.spread[0] > 0:
            return self._novelty(self._nearest(U), doubts) > self.threshold
        # more than rounding changes: float32 products over d terms in another order, and the sum
        slack = 2 * U.shape[1] * np.finfo(np.float32).eps / float(self.spread[0]) + 1e-6 * (1 + abs(self.threshold))
        novelty = self._novelty(POOL.rows(self, self.references).near(U, NEAREST), doubts)
        left = np.flatnonzero(~(novelty <= self.threshold - slack))
        if len(left):
            novelty[left] = self._novelty(self._nearest(U[left]), np.broadcast_to(doubts, len(U))[left])
            if (np.abs(novelty[left] - self.threshold) <= slack).any():
                return self._novelty(self._nearest(U), doubts) > self.threshold
        return novelty > self.threshold

    def _doubts(self, P: NDArray[np.floating] | None) -> Floats:
        """The part of the score that is lack of confidence, (n,); (1,) zero where there is none."""
        if not self.spread[1] > 0:
            return np.zeros(1)
        if P is None:
            raise ValueError("This novelty score needs the probabilities too.")
        return np.asarray((_doubt(P) - self.centre[1]) / self.spread[1])

    def _nearest(self, U: NDArray[np.float32]) -> NDArray[np.floating]:
        """Similarities (n, NEAREST) of unit vectors (n, d) to the nearest references."""
        if not self.spread[0] > 0:
            return np.zeros((len(U), NEAREST))
        rows = POOL.rows(self, self.references).rows
        parts = [_nearest(U[start : start + 1024] @ rows.T) for start in range(0, max(len(U), 1), 1024)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _novelty(self, nearest: NDArray[np.floating], doubts: Floats) -> NDArray[np.float32]:
        """The scores (n,)."""
        found = (_distance(nearest) - self.centre[0]) / self.spread[0] if self.spread[0] > 0 else np.zeros(len(nearest))
        return np.asarray(found + doubts, np.float32)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Everything learned, as named arrays."""
        limits = np.array([self.threshold, self.share], np.float32)
        return {"references": self.references, "centre": self.centre, "spread": self.spread, "limits": limits}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Rebuild; raises ValueError on missing names, wrong shapes, or values that are not finite."""
        if missing := {"references", "centre", "spread", "limits"} - set(arrays):
            raise ValueError(f"unknown lacks the arrays {sorted(missing)}")
        references = arrays["references"]  # or a `tensors.Stored`, whose values were looked at there
        centre, spread, limits = (np.asarray(arrays[k]) for k in ("centre", "spread", "limits"))
        shapes = [part.shape for part in (centre, spread, limits)]
        if references.ndim != 2 or not references.size or shapes != [(2,)] * 3:
            raise ValueError(f"unknown has arrays of shapes {references.shape}, {shapes}")
        for name, part in (("references", references), ("centre", centre), ("spread", spread), ("limits", limits)):
            if part.dtype.kind != "f" or (isinstance(part, np.ndarray) and not np.isfinite(part).all()):
                raise ValueError(f"unknown holds values in {name} that are no finite numbers")
        if (np.asarray(spread, np.float32) < 0).any():
            raise ValueError("unknown holds a negative spread")
        kept: Any = references if references.dtype == np.float16 else np.asarray(references, np.float16)
        return cls(kept, centre.astype(np.float32), spread.astype(np.float32), float(limits[0]), float(limits[1]))


def refusals(several: Sequence[Unknown], U: NDArray[np.float32], P: NDArray[np.float32]) -> NDArray[np.bool_]:
    """`refused` of h models at once: unit vectors (n, d) that each answered with its part of P (n, c, h) -> (n, h)."""
    nearest = np.zeros((len(U), len(several), NEAREST), np.float32)
    for j, one in enumerate(several):
        if len(one.references) < MANY:
            nearest[:, j] = one._nearest(U)
    centre, spread = (np.array([getattr(one, part) for one in several]) for part in ("centre", "spread"))  # (h, 2)
    spread[spread <= 0] = np.inf
    novelty = (_distance(nearest.reshape(-1, NEAREST)).reshape(nearest.shape[:2]) - centre[:, 0]) / spread[:, 0]
    if np.isfinite(spread[:, 1]).any():
        novelty += (_doubt(P) - centre[:, 1]) / spread[:, 1]
    unknown = np.asarray(np.float32(novelty) > np.array([one.threshold for one in several], np.float32))
    for j, one in enumerate(several):
        if len(one.references) >= MANY:
            unknown[:, j] = one.refused(U, P[:, :, j], done=True)
    return unknown


@dataclass(frozen=True)
class Caught:
    """Estimate of the share of foreign inputs that is answered "unknown"; None where it cannot be had."""

    refused: float  # share of good input wrongly refused, over the same rounds
    caught: float | None
    low: float | None
    high: float | None
    per_class: tuple[tuple[int, float, int], ...]  # (class, share caught when it was hidden, n)
    says: str

    def facts(self, labels: Sequence[str]) -> dict[str, Any]:
        """The piece "unknown" of the facts."""
        return {
            "refused": self.refused,
            "caught": self.caught,
            "caught_low": self.low,
            "caught_high": self.high,
            "per_class": [{"label": labels[j], "caught": share, "n": n} for j, share, n in self.per_class],
            "says": self.says,
        }


def learn(
    X: NDArray[np.floating],
    y: NDArray[np.integer] | None = None,
    P: NDArray[np.floating] | None = None,
    *,
    groups: NDArray[np.integer] | None = None,
    share: float = 0.05,
    seed: int = 0,
    spaces: Sequence[tuple[NDArray[np.integer], NDArray[np.floating]]] = (),
) -> tuple[Unknown, Caught]:
    """Learn what good input looks like, and estimate what is caught.

    X: (n, d) features of the training rows; y: (n,) codes, -1 unlabelled (left out); P: (n, c) calibrated out-of-fold
    probabilities, rows never tested NaN; y and P are None for numbers and several labels, where distance alone decides.
    groups: (n,) codes of rows that belong together (duplicates): they are not each other's neighbours here.
    share: of good input that may be refused. spaces: where the features were themselves learned from these rows, for
    every fold its rows and the features (n, d) of all rows by a network that did not see those: a row's distance is then
    measured in the space it had no part in, and what is caught is not estimated, as no class can be hidden.

    The threshold is the conformal quantile (Vovk et al. 2005, section 2.2) of up to 2,000 training rows, each scored
    as if it were new: its probabilities are out of fold, and neither it nor its group is among its neighbours.

    The estimate hides every class once, in at most 10 rounds: from the neighbours by leaving its rows out, from the
    confidence by a ridge regression that never saw it. On Banking77 it says 44 % with all texts and 25 % with 10 a
    class (mean of 6 draws), where ridge heads refitted without the classes caught 44 and 26 % of the test rows. (Only
    taking the hidden classes' columns out of P, as if the model had not been trained against them, says 57 % with all
    texts.)
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, not {share}.")
    known = np.ones(len(X), np.bool_) if y is None else y >= 0
    tested = known.copy() if P is None else known & np.isfinite(P).all(1)
    if not known.any():
        raise ValueError("There is no labelled row to learn from.")
    rng = np.random.default_rng(seed)
    references = _spread_out(np.flatnonzero(known), y, REFERENCES, rng)
    pool = np.flatnonzero(tested) if tested.any() else np.flatnonzero(known)
    confident = P is not None and tested.any()
    queries = np.sort(rng.choice(pool, QUERIES, replace=False)) if len(pool) > QUERIES else pool
    kept = unit(X[references]).astype(np.float16)

    c = 0 if y is None or P is None else P.shape[1]
    rounds = min(c, ROUNDS) if c > 2 and confident and not spaces else 1
    hidden_in = rng.permutation(c) % rounds if rounds > 1 else np.zeros(max(c, 1), np.int64)  # (c,) round of a class
    block = np.zeros(len(references), np.int64) if rounds == 1 or y is None else hidden_in[y[references]]
    code = np.arange(len(X)) if groups is None else groups
    similarity = _apart(spaces, queries, references) if spaces else unit(X[queries]) @ unit(kept).T  # (q, r)
    similarity[code[queries][:, None] == code[references]] = -2.0
    # (q, rounds, 2): nearest in the rows each round hides; hiding a round then leaves the others' nearest
    nearest = np.stack([_nearest(similarity[:, block == i]) for i in range(rounds)], 1)
    distance = _distance(nearest.reshape(len(queries), -1))
    parts = [distance] + ([_doubt(P[queries])] if P is not None and confident else [])
    centre, spread = np.zeros(2, np.float32), np.zeros(2, np.float32)
    for i, part in enumerate(parts):
        centre[i], spread[i] = part.mean(), _deviation(part)
    novelty = sum((part - centre[i]) / spread[i] for i, part in enumerate(parts))
    unknown = Unknown(kept, centre, spread, _threshold(np.asarray(novelty), share), share)
    if rounds == 1 or P is None or y is None:
        return unknown, _unmeasured(c, share, len(pool), learned=bool(spaces))

    caught, refused = np.zeros(len(queries), np.bool_), []
    axes = _axes(kept, rng)
    doubts = _Doubts(unit(kept) @ axes, y[references], hidden_in, rounds)
    inside = np.zeros(len(X), np.bool_)
    inside[references] = True
    Q = unit(X[queries]) @ axes
    for i in range(rounds):
        foreign = hidden_in[y[queries]] == i
        if foreign.all():
            continue
        others = np.delete(nearest, i, 1).reshape(len(queries), -1)
        both = np.stack([_distance(others), doubts.without(i, Q, y[queries], inside[queries])], 1)
        good = both[~foreign]
        novelty = ((both - good.mean(0)) / [_deviation(part) for part in good.T]).sum(1)
        limit = _threshold(novelty[~foreign], share)
        caught[foreign] = novelty[foreign] > limit
        refused.append(float((novelty[~foreign] > limit).mean()))
    hits, size = np.bincount(y[queries], caught, minlength=c), np.bincount(y[queries], minlength=c)
    return unknown, _measured(hits, size, float(np.mean(refused)), share, rounds)


class _Doubts:
    """How sure a model would be that never saw the classes of a round: ridge regression on 128 axes of the references.

    Everything is made of sums over the rounds, so hiding one is a subtraction; the answers to the references themselves
    are leave-one-out in closed form (Allen 1974); one temperature makes probabilities of them.
    """

    def __init__(
        self, R: NDArray[np.float32], y: NDArray[np.integer], hidden_in: NDArray[np.integer], rounds: int
    ) -> None:
        c, d = len(hidden_in), R.shape[1]
        self.hidden_in = hidden_in
        self.n = np.bincount(y, minlength=c).astype(np.float64)  # (c,)
        self.sums = np.zeros((c, d))
        order = np.argsort(y, kind="stable")
        there, first = np.unique(y[order], return_index=True)
        self.sums[there] = np.add.reduceat(R[order].astype(np.float64), first, axis=0)
        parts = (R[hidden_in[y] == i] for i in range(rounds))
        self.moments = np.stack([(part.T @ part).astype(np.float64) for part in parts])  # (rounds, d, d)
        self.total = self.moments.sum(0)

    def without(self, i: int, Q: NDArray[np.float32], y: NDArray[np.integer], inside: NDArray[np.bool_]) -> Floats:
        """Doubt (q,) of the model without round i about Q (q, d); y (q,) codes; inside (q,): is a reference."""
        kept = np.flatnonzero((self.hidden_in != i) & (self.n > 0))
        n = self.n[kept].sum()
        mean, rate = self.sums[kept].sum(0) / n, self.n[kept] / n
        A = self.total - self.moments[i] - n * np.outer(mean, mean) + np.eye(len(mean))
        Z = Q - mean
        U = Z @ np.linalg.inv(A)
        S = U @ (self.sums[kept] - self.n[kept, None] * mean).T + rate
        column = np.full(len(self.hidden_in), -1)
        column[kept] = np.arange(len(kept))
        good = self.hidden_in[y] != i
        out = np.flatnonzero(inside & good)
        h = np.minimum((U[out] * Z[out]).sum(1) + 1 / n, 0.99)[:, None]
        own = column[y[out]][:, None] == np.arange(len(kept))
        S[out] = (S[out] - h * own) / (1 - h)
        good = np.flatnonzero(good & (column[y] >= 0))
        good = good[:: max(1, len(good) // 500)]
        return _doubt(_softmax(_slope(S[good], column[y[good]]) * S))


def _measured(hits: NDArray[Any], size: NDArray[np.integer], refused: float, share: float, rounds: int) -> Caught:
    seen = np.flatnonzero(size)
    x, m = hits[seen], size[seen].astype(np.float64)
    value, low, high = _between(x, m)
    says = (
        f"Of inputs of a kind it was never shown, about {100 * value:.0f} % are answered with 'unknown' (95 % interval "
        f"{100 * low:.0f} to {100 * high:.0f}), at the price of {100 * share:.2g} % of good inputs: measured by hiding "
        f"its own {len(seen)} classes in {rounds} rounds. Inputs less like the training data are easier to catch."
    )
    per_class = tuple((int(j), float(hits[j] / size[j]), int(size[j])) for j in seen)
    return Caught(refused, value, low, high, per_class, says)


def _apart(
    spaces: Sequence[tuple[NDArray[np.integer], NDArray[np.floating]]],
    queries: NDArray[np.integer],
    references: NDArray[np.integer],
) -> NDArray[np.float32]:
    """Similarity (q, r) of every query to the references outside its fold, by the network that did not see that fold."""
    similarity = np.full((len(queries), len(references)), -2.0, np.float32)
    for rows, X in spaces:
        at, others = np.flatnonzero(np.isin(queries, rows)), np.flatnonzero(~np.isin(references, rows))
        similarity[np.ix_(at, others)] = unit(X[queries[at]]) @ unit(X[references[others]]).T
    return similarity


def _unmeasured(c: int, share: float, n: int, *, learned: bool = False) -> Caught:
    why = {0: "Without single labels no class can be hidden", 2: "With 2 classes none can be hidden"}.get(
        c,
        "The features were learned from every class, so none can be hidden"
        if learned
        else "No example could be tested",
    )
    says = (
        f"{why}, so how many foreign inputs are caught was not measured; {100 * share:.2g} % of good ones are refused"
    )
    says += "."
    if n < 1 / share:
        says += f" That share is rough: it rests on {n} examples."
    return Caught(share, None, None, None, (), says)


def _between(x: Floats, m: Floats) -> tuple[float, float, float]:
    """Share sum(x) / sum(m) with the Wilson interval at the number of examples it is worth, classes being the unit.

    The design effect as in Kish (1965, section 8.2), with one made-up class caught by none, so that it stays near its
    worst where nearly all are caught.
    """
    n, share = m.sum(), float(x.sum() / m.sum())
    size = (m * m).sum() / n
    deff = (((x - share * m) ** 2).sum() + size**2) / (n * share * (1 - share) + size)
    n = n / min(max(deff, 1.0), size)
    z2 = 1.959963984540054**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n) + 0.25 / n
    return share, float(max(0.0, middle - half)), float(min(1.0, middle + half))


def _deviation(part: Floats) -> float:
    """Standard deviation, 1 where nothing varies."""
    found = float(part.std())
    return found if found > 1e-6 else 1.0


def _threshold(novelty: Floats, share: float) -> float:
    """The value that a new good input exceeds with probability `share`; the largest seen where there are too few."""
    ranked = np.sort(novelty)
    return float(ranked[min(len(ranked), math.ceil((len(ranked) + 1) * (1 - share))) - 1])


def _spread_out(
    rows: NDArray[np.integer], y: NDArray[np.integer] | None, most: int, rng: np.random.Generator
) -> NDArray[np.integer]:
    """At most `most` of the rows, at random, the classes in equal numbers as far as they reach."""
    if len(rows) <= most:
        return rows
    rows = rng.permutation(rows)
    if y is not None:
        order = np.argsort(y[rows], kind="stable")
        sizes = np.bincount(y[rows])
        rank = np.empty(len(rows), np.int64)
        rank[order] = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        rows = rows[np.argsort(rank, kind="stable")]
    return np.sort(rows[:most])


def _distance(nearest: NDArray[np.floating]) -> Floats:
    """Mean cosine distance (q,) to the nearest of what is left, (q, k) similarities; below -1 is missing."""
    best = _nearest(nearest)
    there = best > -1.5
    if there.all():
        return np.asarray(1 - best.sum(1, dtype=np.float64) / NEAREST)
    mean = np.where(there, best, 0).sum(1, dtype=np.float64) / np.maximum(there.sum(1), 1)
    return np.where(there.any(1), 1 - mean, 1.0)


def _nearest(similarity: NDArray[np.floating]) -> NDArray[np.floating]:
    """The NEAREST largest of each row, (q, r) -> (q, NEAREST); -2 stands for what is missing."""
    short = NEAREST - similarity.shape[1]
    if short > 0:
        return np.pad(similarity, ((0, 0), (0, short)), constant_values=-2.0)
    return np.partition(similarity, -NEAREST, axis=1)[:, -NEAREST:] if short else similarity


def _doubt(P: NDArray[np.floating]) -> Floats:
    """Minus the log odds of the likeliest label, (n,), of P (n, c); or (n, h) of (n, c, h). No row need sum to 1."""
    P = np.asarray(P, np.float64)
    top = P.max(1) / np.maximum(P.sum(1), 1e-300)
    unsure, sure = (np.log(np.minimum(np.maximum(part, 1e-6), 1.0)) for part in (1 - top, top))
    return np.asarray(unsure - sure, np.float64)


def _slope(S: Floats, y: NDArray[np.integer]) -> float:
    """The factor of scores (q, c) with the lowest log loss on codes y, of 24 between 1 and 100."""
    own = S[np.arange(len(S)), y]
    top = S.max(1)

    def loss(slope: float) -> float:
        return float((np.log(np.exp(slope * (S - top[:, None])).sum(1)) + slope * (top - own)).mean())

    return float(min(np.geomspace(1, 100, 24), key=loss))


def _softmax(S: Floats) -> Floats:
    E = np.exp(S - S.max(1, keepdims=True))
    return np.asarray(E / E.sum(1, keepdims=True))


def _axes(references: NDArray[np.float16], rng: np.random.Generator) -> NDArray[np.float32]:
    """128 orthonormal directions (d, 128) that hold most of the references; the ridge regressions need no more.

    Randomised range finding with one power step (Halko, Martinsson and Tropp 2011, algorithm 4.3).
    """
    R = unit(references)
    start = rng.standard_normal((R.shape[1], min(128, R.shape[1])), np.float32)
    return np.asarray(np.linalg.qr(R.T @ (R @ (R.T @ (R @ start))))[0], np.float32)
