"""Scores into probabilities that mean what they say: of the answers given with 80 %, 80 % are right.

Methods, simplest first; a later one is taken only where it lowers the log loss on held-out folds by more than one
standard error:
    none         softmax (one label of many) or sigmoid (several labels)
    temperature  the same of scores / t, one t for all (Guo et al. 2017, section 4.2)
    isotonic     one rising step curve for the probabilities of all classes, after temperature, normalised again
                 (IRM in Zhang, Kailkhura and Han 2020, section 3.3; ours joins the steps by straight lines)
    platt        several labels: sigmoid(a * score + b) a label (Platt 1999), drawn towards one a, b for all
None changes which label is likeliest (platt: the order of examples within a label), and none says 0 or 1.

Letters: n examples, c classes. scores (n, c) float, y (n,) codes or T (n, c) 0/1, P (n, c) probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
METHODS = ("none", "temperature", "isotonic", "platt")
EDGE = 1e-6  # no probability is nearer to 0 or 1
SHRINK = 30.0  # platt: the strength of the common curve, in units of its own second derivative for one average label
FEWEST = 20  # below so many rows nothing is fitted
MOST = 20_000  # of more rows so many are drawn: the figures are then known to 0.3 points anyway


@dataclass(frozen=True)
class Calibration:
    """How scores become probabilities."""

    method: str = "none"
    several: bool = False  # several labels at once: sigmoid in place of softmax
    slope: NDArray[np.float32] = field(default_factory=lambda: np.ones(1, np.float32))  # (1,), platt (c,)
    shift: NDArray[np.float32] = field(default_factory=lambda: np.zeros(1, np.float32))  # (1,), platt (c,)
    knots: NDArray[np.float32] = field(default_factory=lambda: np.zeros((2, 0), np.float32))  # isotonic (2, k)

    def apply(self, scores: NDArray[np.floating]) -> NDArray[np.float32]:
        """(n, c) scores -> (n, c) float32 probabilities; the rows sum to 1 unless there are several labels."""
        S = np.asarray(scores, np.float32) * self.slope + self.shift
        if self.several:
            return np.asarray(np.clip(_sigmoid(S), EDGE, 1 - EDGE), np.float32)
        P = _softmax(S)
        if self.method == "isotonic":
            P = np.interp(P, *self.knots.astype(np.float64))
        P = np.clip(P, EDGE / P.shape[1], 1 - EDGE)
        return np.asarray(P / P.sum(1, keepdims=True), np.float32)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Everything learned, as named arrays."""
        kind = np.array([METHODS.index(self.method), self.several], np.int32)
        return {"kind": kind, "slope": self.slope, "shift": self.shift, "knots": self.knots}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Rebuild; raises ValueError on missing names, wrong shapes, or values that are not finite."""
        if missing := {"kind", "slope", "shift", "knots"} - set(arrays):
            raise ValueError(f"calibration lacks the arrays {sorted(missing)}")
        kind, slope, shift, knots = (np.asarray(arrays[name]) for name in ("kind", "slope", "shift", "knots"))
        if kind.shape != (2,) or not (0 <= int(kind[0]) < len(METHODS) and int(kind[1]) in (0, 1)):
            raise ValueError(f"calibration of unknown kind {kind.tolist()}")
        if slope.ndim != 1 or slope.shape != shift.shape or knots.ndim != 2 or knots.shape[0] != 2:
            raise ValueError(f"calibration arrays of shapes {slope.shape}, {shift.shape}, {knots.shape} do not fit")
        slope, shift, knots = (part.astype(np.float32) for part in (slope, shift, knots))
        if not all(np.isfinite(part).all() for part in (slope, shift, knots)) or (slope <= 0).any():
            raise ValueError("calibration holds values that are not finite, or slopes that are not positive")
        method = METHODS[int(kind[0])]
        rising = (
            knots.shape[1] >= 2 and (np.diff(knots, axis=1) >= 0).all() and bool(((knots >= 0) & (knots <= 1)).all())
        )
        if method == "isotonic" and not rising:
            raise ValueError("the knots of an isotonic calibration must rise from 0 to 1")
        return cls(method, bool(kind[1]), slope, shift, knots)


@dataclass(frozen=True)
class Reliability:
    """What calibration did, measured on rows it was not fitted on."""

    method: str
    ece_before: float  # expected calibration error
    ece_after: float
    noise: float  # what a perfectly calibrated model would show on as few rows
    bins: tuple[dict[str, float], ...]  # low, high, n, confidence, accuracy; after calibration
    loss: Mapping[str, float]  # mean log loss by method

    def facts(self) -> dict[str, Any]:
        """The piece "calibration" of the facts."""
        return {
            "method": self.method,
            "ece_before": self.ece_before,
            "ece_after": self.ece_after,
            "noise": self.noise,
            "bins": [dict(part) for part in self.bins],
        }


def calibrate(
    scores: NDArray[np.floating], y: NDArray[np.integer], *, fold: NDArray[np.integer] | None = None, seed: int = 0
) -> tuple[Calibration, Reliability]:
    """Choose and fit the calibration of one label of many, from out-of-fold scores.

    scores: (n, c); y: (n,) codes, -1 unlabelled, those rows and rows with NaN scores are left out. fold: (n,) parts
    that each method is fitted without and judged on, for the choice and the figures; by default 5 at random.
    """
    known = _draw(np.flatnonzero((y >= 0) & np.isfinite(scores).all(1)), seed)
    S, codes = np.asarray(scores[known], np.float32), y[known].astype(np.int64)
    methods = METHODS[:1] if len(S) < FEWEST else METHODS[:2] if len(S) < 10 * FEWEST else METHODS[:3]
    parts = _parts(fold, known, seed)
    apart = {method: np.empty(S.shape, np.float32) for method in methods}
    slope = temperature(S, codes) if len(methods) > 1 else 1.0
    for part in np.unique(parts):
        held = parts == part
        rest, right = S[~held], codes[~held]
        near = temperature(rest, right, start=slope) if len(methods) > 1 else 1.0
        for method, P in apart.items():
            P[held] = _fit(method, rest, right, near).apply(S[held])
    losses = {method: -np.log(P[np.arange(len(S)), codes].astype(np.float64)) for method, P in apart.items()}
    method = _choose(losses)
    before, after = (_top(apart[name], codes) for name in ("none", method))
    return _fit(method, S, codes, slope), _reliability(method, before, after, losses)


def calibrate_multilabel(
    scores: NDArray[np.floating], T: NDArray[np.generic], *, fold: NDArray[np.integer] | None = None, seed: int = 0
) -> tuple[Calibration, Reliability]:
    """The same for several labels at once; T: (n, c) 0/1, NaN where unlabelled. Each (row, label) is one answer."""
    known = _draw(np.flatnonzero((np.isfinite(scores) & np.isfinite(np.asarray(T, np.float32))).all(1)), seed)
    S, truth = np.asarray(scores[known], np.float64), np.asarray(T[known], np.float64)
    methods = ("none",) if len(S) < FEWEST else ("none", "temperature", "platt")
    parts = _parts(fold, known, seed)
    apart = {method: np.empty(S.shape) for method in methods}
    for part in np.unique(parts):
        held = parts == part
        for method, P in apart.items():
            P[held] = _fit_several(method, S[~held], truth[~held]).apply(S[held])
    losses = {m: -np.where(truth > 0.5, np.log(P), np.log1p(-P)).mean(1) for m, P in apart.items()}
    method = _choose(losses)
    before, after = ((apart[name].ravel(), (truth > 0.5).ravel()) for name in ("none", method))
    return _fit_several(method, S, truth), _reliability(method, before, after, losses)


def temperature(scores: NDArray[np.floating], y: NDArray[np.integer], *, start: float = 1.0) -> float:
    """The slope 1 / t that minimises the log loss of softmax(slope * scores), by Newton on its logarithm, to 1e-4.

    scores: (n, c), any float type, which is also what is computed in; y: (n,) codes, all known.
    """
    S = scores - scores[np.arange(len(scores)), y][:, None]
    log_slope = float(np.log(start))
    for _ in range(30):
        slope = np.exp(log_slope)
        P = _softmax(S * S.dtype.type(slope))
        mean = np.einsum("ij,ij->i", P, S)
        first = slope * float(mean.mean(dtype=np.float64))  # derivatives by the logarithm of the slope
        P *= S
        spread = np.einsum("ij,ij->i", P, S) - mean**2
        second = slope**2 * float(spread.mean(dtype=np.float64)) + abs(first)
        step = float(np.clip(first / max(second, 1e-12), -1.0, 1.0))
        log_slope = float(np.clip(log_slope - step, -6.0, 6.0))
        if abs(step) < 1e-4:
            break
    return float(np.exp(log_slope))


def isotonic(x: NDArray[Any], hits: NDArray[Any], weight: NDArray[Any]) -> Floats:
    """Rising values (k,) nearest to hits / weight, in squares weighted by weight; x (k,) rises, and is only checked.

    Pool adjacent violators (Ayer et al. 1955).
    """
    if (np.diff(x) < 0).any():
        raise ValueError("isotonic() needs x in rising order.")
    pooled: list[tuple[float, float, int]] = []
    for h, w in zip(hits.tolist(), weight.tolist(), strict=True):
        count = 1
        while pooled and pooled[-1][0] * w >= h * pooled[-1][1]:
            before = pooled.pop()
            h, w, count = h + before[0], w + before[1], count + before[2]
        pooled.append((h, w, count))
    return np.repeat([h / w for h, w, _ in pooled], [count for *_, count in pooled])


def expected_error(confidence: Floats, right: NDArray[np.bool_], bins: int = 15) -> float:
    """Expected calibration error (Naeini et al. 2015): mean |confidence - accuracy| over bins of equal numbers."""
    rows = _bins(confidence, right, bins)
    return sum(row["n"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / max(1, len(confidence))


def _fit(method: str, S: NDArray[np.float32], y: NDArray[np.integer], slope: float) -> Calibration:
    if method == "none":
        return Calibration()
    slopes = np.array([slope], np.float32)
    if method == "temperature":
        return Calibration(method, slope=slopes)
    P = _softmax(S * slopes)
    fine = 4096  # equal cells of p, joined below into bins of equal expected hits
    cell = np.minimum((P * np.float32(fine)).astype(np.int32), fine - 1)
    n, sum_p = np.bincount(cell.ravel(), minlength=fine), np.bincount(cell.ravel(), P.ravel(), minlength=fine)
    hit = np.bincount(cell[np.arange(len(y)), y], minlength=fine)
    bins = max(2, min(100, len(S) // 20))
    part = np.minimum(np.cumsum(sum_p) / sum_p.sum() * bins, bins - 1).astype(np.int64)
    size, sum_p, hits = (np.bincount(part, w.astype(np.float64), minlength=bins) for w in (n, sum_p, hit))
    filled = size > 0
    mean = sum_p[filled] / size[filled]
    value = isotonic(mean, hits[filled] + mean, size[filled] + 1.0)  # one made-up example a bin
    line = np.linspace(0, 1, len(mean)) * 1e-5  # rising strictly, so that the likeliest label stays so
    knots = np.array([[0, *mean, 1], [0, *(value * (1 - 2e-5) + line), 1]])
    return Calibration("isotonic", slope=slopes, knots=np.maximum.accumulate(knots, 1).astype(np.float32))


def _fit_several(method: str, S: Floats, T: Floats) -> Calibration:
    if method == "none" or not len(S):
        return Calibration(several=True)
    shared = _platt(S.reshape(-1, 1), T.reshape(-1, 1), np.array([[1.0], [0.0]]), 1e-6 * np.eye(2))
    if method == "platt":
        # the second derivative at the common curve, for one average label of one row, times SHRINK
        p = _sigmoid(S * shared[0] + shared[1])
        w = p * (1 - p)
        H = np.array([[(w * S * S).sum(), (w * S).sum()], [(w * S).sum(), w.sum()]]) / S.size
        shared = _platt(S, T, np.repeat(shared, S.shape[1], 1), SHRINK * H + 1e-6 * np.eye(2))
    slope, shift = np.maximum(shared[0], 1e-3).astype(np.float32), shared[1].astype(np.float32)
    return Calibration(method, True, slope, shift)


def _platt(S: Floats, T: Floats, start: Floats, prior: Floats) -> Floats:
    """Slopes and shifts (2, c) of each column, penalised by prior (2, 2) for leaving start (2, c); damped Newton."""
    theta = start.copy()
    rate = (T.sum(0) + 0.5) / (len(T) + 1)  # targets of Platt (1999), section 2.2: never exactly 0 and 1
    soft = np.where(T > 0.5, 1 - 0.5 / (len(T) * rate + 1), 0.5 / (len(T) * (1 - rate) + 1))
    for _ in range(50):
        P = _sigmoid(S * theta[0] + theta[1])
        error, w = P - soft, P * (1 - P)
        away = prior @ (theta - start)
        g = np.stack([(error * S).sum(0), error.sum(0)]) + away
        aa, ab, bb = (w * S * S).sum(0) + prior[0, 0], (w * S).sum(0) + prior[0, 1], w.sum(0) + prior[1, 1]
        det = np.maximum(aa * bb - ab * ab, 1e-12)
        step = np.stack([bb * g[0] - ab * g[1], aa * g[1] - ab * g[0]]) / det
        step /= np.maximum(1.0, np.abs(step).max(0))
        theta -= step
        if np.abs(step).max() < 1e-7:
            break
    return theta


def _choose(losses: Mapping[str, Floats]) -> str:
    """The simplest method that no later one beats by more than one standard error of the paired difference."""
    best = "none"
    for method, loss in losses.items():
        gain = losses[best] - loss
        if len(gain) > 1 and gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)):
            best = method
    return best


def _reliability(
    method: str,
    before: tuple[Floats, NDArray[np.bool_]],
    after: tuple[Floats, NDArray[np.bool_]],
    losses: Mapping[str, Floats],
) -> Reliability:
    n, bins = len(after[0]), _bins(*after)
    spread = [row["n"] * np.sqrt(2 / np.pi * row["confidence"] * (1 - row["confidence"]) / row["n"]) for row in bins]
    return Reliability(
        method=method,
        ece_before=expected_error(*before),
        ece_after=expected_error(*after),
        noise=float(sum(spread) / max(1, n)),
        bins=tuple(bins),
        loss={name: float(loss.mean()) if len(loss) else float("nan") for name, loss in losses.items()},
    )


def _bins(confidence: Floats, right: NDArray[np.bool_], bins: int = 15) -> list[dict[str, float]]:
    order = np.argsort(confidence, kind="stable")
    found = []
    for part in np.array_split(order, min(bins, len(order)) or 1):
        if len(part):
            low, high = float(confidence[part[0]]), float(confidence[part[-1]])
            mean, share = float(confidence[part].mean()), float(right[part].mean())
            found.append({"low": low, "high": high, "n": len(part), "confidence": mean, "accuracy": share})
    return found


def _top(P: NDArray[np.float32], y: NDArray[np.integer]) -> tuple[Floats, NDArray[np.bool_]]:
    return P.max(1, initial=0.0).astype(np.float64), P.argmax(1) == y


def _parts(fold: NDArray[np.integer] | None, known: NDArray[np.integer], seed: int) -> NDArray[np.integer]:
    parts: NDArray[np.integer] = np.random.default_rng(seed).permutation(len(known)) % 5
    if fold is not None:
        parts = fold[known]
    return parts


def _draw(rows: NDArray[np.integer], seed: int) -> NDArray[np.integer]:
    if len(rows) <= MOST:
        return rows
    return np.sort(np.random.default_rng(seed).permutation(rows)[:MOST])


def _softmax(S: NDArray[Any]) -> NDArray[Any]:
    E: NDArray[Any] = S - S.max(1, keepdims=True)
    np.exp(E, out=E)
    E /= E.sum(1, keepdims=True)
    return E


def _sigmoid(S: NDArray[Any]) -> NDArray[Any]:
    out: NDArray[Any] = 0.5 * (1 + np.tanh(0.5 * S))
    return out
