"""What a report shows of a set of answers: the pieces "estimate" (or "test"), "per_class" and "confusion" of the facts.

Rows that were not tested (label -1, prediction -1, or NaN) are left out. Answers may come from several repeats of
cross-fitting, as a first axis; each row then counts once, with the mean over the repeats that tested it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.evaluation import figures, intervals

Floats = NDArray[np.float64]
Groups = NDArray[np.integer] | None


def report_classification(
    y: NDArray[np.integer],
    answers: NDArray[Any],
    labels: Sequence[str],
    *,
    groups: Groups = None,
    seed: int = 0,
    top: int = 10,
) -> dict[str, Any]:
    """One label of many.

    y: (n,) codes. answers: predicted codes (n,) or (r, n), or probabilities (n, c) or (r, n, c). groups: (n,) codes of
    rows that belong together. Returns estimate {accuracy, low, high, macro_f1, macro_f1_low, macro_f1_high, n},
    per_class, confusion {labels, counts} and confused [{true, predicted, count}].
    """
    c = len(labels)
    predicted = _codes(answers, y)  # (r, n)
    known = np.flatnonzero((y >= 0) & (predicted >= 0).any(0))
    if not len(known):
        raise ValueError("Nothing was tested: no row has both a label and an answer.")
    y, predicted = y[known], predicted[:, known]
    groups = None if groups is None else groups[known]
    tested = predicted >= 0
    weight = tested / tested.sum(0)  # (r, n): each row counts once
    right = ((predicted == y) * weight).sum(0)
    counts = sum(figures.confusion(y, p, c, w) for p, w in zip(predicted, weight, strict=True))
    block = intervals.blocks(len(y), groups=groups, seed=seed)
    b = int(block.max()) + 1
    sums = np.zeros((b, 3 * c))
    sums[:, :c] = _table(block, y, right, b, c)
    sums[:, c : 2 * c] = _table(block, y, np.ones(len(y)), b, c)
    for p, w in zip(predicted, weight, strict=True):
        sums[:, 2 * c :] += _table(block[p >= 0], p[p >= 0], w[p >= 0], b, c)
    share = intervals.proportion(right, groups=groups)
    decimals = 0 if len(predicted) == 1 else 1
    shown = np.round(counts, decimals)
    return {
        "estimate": {
            "accuracy": share.value,
            "low": share.low,
            "high": share.high,
            **_macro(sums, c, share.n / len(y), seed),
            "n": len(y),
        },
        "per_class": _per_class(sums.sum(0), labels, share.n / len(y)),
        "confusion": {"labels": list(labels), "counts": _plain(shown)},
        "confused": [
            {"true": labels[i], "predicted": labels[j], "count": round(count, decimals) if decimals else int(count)}
            for i, j, count in figures.most_confused(shown, top)
        ],
    }


def report_multilabel(
    T: NDArray[Any],
    P: NDArray[np.floating],
    labels: Sequence[str],
    *,
    chosen: NDArray[np.bool_] | None = None,
    groups: Groups = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Several labels at once.

    T: (n, c) 0/1. P: (n, c) probabilities. chosen: (n, c) the labels given after thresholds that were tuned on other
    rows; P >= 0.5 by default. Returns estimate {accuracy (every label right), low, high, micro_f1, macro_f1, each with
    _low and _high, n, and with `chosen` at_half {micro_f1, macro_f1}}, per_class, and confusion None.
    """
    known = np.flatnonzero(~(np.isnan(T).any(1) | np.isnan(P).any(1)))
    if not len(known):
        raise ValueError("Nothing was tested: no row has both labels and probabilities.")
    truth, half = T[known] > 0.5, P[known] >= 0.5
    said = half if chosen is None else chosen[known].astype(np.bool_)
    groups = None if groups is None else groups[known]
    c = truth.shape[1]
    exact = intervals.proportion((truth == said).all(1), groups=groups)
    # F1 = 2 J / (1 + J), J = right / (true or predicted): a share of decisions, which go together within a row.
    jaccard = intervals.proportion((truth & said).sum(1), (truth | said).sum(1), groups=groups)
    micro, micro_low, micro_high = (_f1(j) for j in (float(np.nan_to_num(jaccard.value)), jaccard.low, jaccard.high))
    block = intervals.blocks(len(truth), groups=groups, seed=seed)
    sums = np.zeros((int(block.max()) + 1, 3 * c))
    for i, part in enumerate((truth & said, truth, said)):
        row, column = np.nonzero(part)
        sums[:, i * c : (i + 1) * c] = _table(block[row], column, np.ones(len(row)), len(sums), c)
    estimate: dict[str, Any] = {
        "accuracy": exact.value,
        "low": exact.low,
        "high": exact.high,
        "micro_f1": micro,
        "micro_f1_low": micro_low,
        "micro_f1_high": micro_high,
        **_macro(sums, c, exact.n / len(truth), seed),
        "n": len(truth),
    }
    if chosen is not None:
        plain = [np.asarray(part.sum(0), np.float64) for part in (truth & half, truth, half)]
        estimate["at_half"] = {"micro_f1": float(figures.micro_f1(*plain)), "macro_f1": float(figures.macro_f1(*plain))}
    per_class = _per_class(sums.sum(0), labels, exact.n / len(truth))
    return {"estimate": estimate, "per_class": per_class, "confusion": None, "confused": []}


def report_regression(
    y: NDArray[np.floating],
    predicted: NDArray[np.floating],
    *,
    groups: Groups = None,
    seed: int = 0,
    points: int = 500,
) -> dict[str, Any]:
    """A number.

    y: (n,); predicted: (n,) or (r, n), whose mean is taken. Returns estimate {r2, low, high (of r2), mae, mae_low,
    mae_high, rmse, baseline_mae, n} and scatter, at most `points` pairs [true, predicted].
    """
    y, predicted = np.asarray(y, np.float64).ravel(), np.asarray(predicted, np.float64)
    predicted = predicted.reshape(-1, len(y))
    seen = ~np.isnan(predicted)
    mean = np.where(seen, predicted, 0).sum(0) / np.maximum(seen.sum(0), 1)
    known = np.flatnonzero(~np.isnan(y) & seen.any(0))
    if not len(known):
        raise ValueError("Nothing was tested: no row has both a number and an answer.")
    y, mean = y[known], mean[known]
    found = figures.number_figures(y, mean)
    block = intervals.blocks(len(y), groups=None if groups is None else groups[known], seed=seed)
    centred, error = y - y.mean(), y - mean
    columns = (np.ones(len(y)), centred, centred**2, error**2, np.abs(error))
    sums = np.stack([np.bincount(block, column) for column in columns], 1)

    def stat(t: Floats) -> Floats:
        spread = t[:, 2] - t[:, 1] ** 2 / t[:, 0]
        r2 = 1 - np.divide(t[:, 3], spread, out=np.ones(len(t)), where=spread > 1e-12 * np.abs(t[:, 2]))
        return np.stack([r2, t[:, 4] / t[:, 0]], 1)

    (r2_low, mae_low), (r2_high, mae_high) = intervals.interval(stat, sums, seed=seed)
    shown = np.arange(len(y))
    if len(y) > points:
        shown = np.sort(np.random.default_rng(seed).choice(len(y), points, replace=False))
    return {
        "estimate": {
            "r2": found.r2,
            "low": min(float(r2_low), found.r2),
            "high": max(float(r2_high), found.r2),
            "mae": found.mae,
            "mae_low": float(mae_low),
            "mae_high": float(mae_high),
            "rmse": found.rmse,
            "baseline_mae": found.baseline_mae,
            "n": len(y),
        },
        "per_class": [],
        "confusion": None,
        "confused": [],
        "scatter": [[float(y[i]), float(mean[i])] for i in shown],
    }


def _codes(answers: NDArray[Any], y: NDArray[np.integer]) -> NDArray[np.int64]:
    """Predicted codes (r, n) from codes or probabilities; -1 where a probability is NaN."""
    if answers.dtype.kind == "f":
        P = answers.reshape(-1, len(y), answers.shape[-1])
        missing = np.isnan(P).any(2)
        return np.where(missing, -1, np.where(missing[..., None], 0, P).argmax(2)).astype(np.int64)
    return answers.reshape(-1, len(y)).astype(np.int64)


def _table(block: NDArray[np.integer], column: NDArray[np.integer], weight: Floats, b: int, c: int) -> Floats:
    """Sums of weight (b, c) by block and column."""
    return np.bincount(block.astype(np.int64) * c + column, weight, minlength=b * c).reshape(b, c).astype(np.float64)


def _macro(sums: Floats, c: int, worth: float, seed: int) -> dict[str, float]:
    """Macro F1 and its interval: the bootstrap's, but no narrower than Wilson's on as many examples as classes allow.

    The mean of c shares, each of n_j examples, is as sure as one share of c² / sum(1 / n_j) examples. The bootstrap
    alone would call a perfect score, or a class with two right examples, certain.
    """

    def stat(t: Floats) -> Floats:
        return figures.macro_f1(t[:, :c], t[:, c : 2 * c], t[:, 2 * c :])

    total = sums.sum(0)
    value = float(stat(total[None])[0])
    low, high = intervals.interval(stat, sums, seed=seed)
    size = (total[c : 2 * c] + total[2 * c :]) / 2
    size = size[size > 0]
    n = min(len(size) ** 2 / (1 / size).sum(), total[c : 2 * c].sum()) * worth if len(size) else 0.0
    floor_low, floor_high = intervals.wilson(value, float(n))
    return {
        "macro_f1": value,
        "macro_f1_low": min(float(low), floor_low),
        "macro_f1_high": max(float(high), floor_high),
    }


def _per_class(total: Floats, labels: Sequence[str], worth: float) -> list[dict[str, Any]]:
    """One row a class. Its F1 interval is exact in kind: right | (true or predicted) is a binomial share J, and F1
    = 2 J / (1 + J) rises with it, so Wilson's interval carries over; `worth` is what one example counts, given groups.
    """
    c = len(labels)
    right, true, predicted = total[:c], total[c : 2 * c], total[2 * c :]
    found = figures.class_figures(right, true, predicted)
    rows = []
    for j, label in enumerate(labels):
        either = true[j] + predicted[j] - right[j]
        low, high = intervals.wilson(right[j] / either if either > 0 else 0.0, either * worth)
        rows.append(
            {
                "label": label,
                "n": round(float(true[j])),
                "precision": float(found.precision[j]),
                "recall": float(found.recall[j]),
                "f1": float(found.f1[j]),
                "f1_low": _f1(low),
                "f1_high": _f1(high),
            }
        )
    return rows


def _f1(jaccard: float) -> float:
    return 2 * jaccard / (1 + jaccard)


def _plain(counts: Floats) -> list[list[float]]:
    whole = bool((counts == np.round(counts)).all())
    return [[int(x) if whole else round(float(x), 1) for x in row] for row in counts]
