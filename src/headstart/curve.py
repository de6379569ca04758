"""The learning curve: how accuracy grows with labels, and how much twice as many would bring.

A quick head is trained on growing, nested, stratified parts of the training folds and tested on the held-out fold. A
power law with a floor, error = floor + a * n ** -b (Hestness et al. 2017, section 2; Figueroa et al. 2012 fit the same
to accuracy), is fitted to the points and read at twice the labels. Few points cannot tell whether there is a floor, so
two laws are fitted, with and without: their mean is the answer, and both add to its uncertainty, beside bootstrap
draws of folds and, within them, of tested groups of rows.

Extrapolation errs by more than such draws show, so the interval of the gain reaches at least from half to one and
a half times the value. Held against the mean true gain over six draws each of 50 to 3,200 labels of Banking77,
film-review sentences and text messages, it held it in 59 of 66. It fails where a curve is flat before it falls (50 text
messages: truly 3.5 points, said 0 to 2).

Letters: n examples, d feature width, c classes, s sizes. X (n, d), y (n,) codes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Features = NDArray[np.float32]
Scores = Callable[[Features], NDArray[np.floating]]
Fit = Callable[[Features, Features], Scores]

FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
MOST_TRAINED, MOST_TESTED = 20_000, 4_000  # rows of one fit
DRAWS = 400
FALLS = np.linspace(0.05, 1.5, 30)  # b
FLOORS = np.linspace(0, 0.95, 12)  # floor, as a share of the smallest error seen
WIDER = 1.4  # Student's t of 5 folds over the normal quantile


@dataclass(frozen=True)
class Curve:
    """Accuracy by number of labels, and what twice as many would bring."""

    sizes: NDArray[np.int64]  # (s,) training examples
    accuracy: Floats  # (s,)
    low: Floats  # (s,) 95 % interval
    high: Floats
    doubled: int  # twice the labels there are
    doubling: tuple[float, float, float]  # accuracy expected there: value, low, high
    gain: tuple[float, float, float]  # over today: value, low, high
    recall: Floats  # (c,) with all labels; NaN for a class never tested
    recall_half: Floats  # (c,) with half of them
    tested: NDArray[np.int64]  # (c,) how often rows of the class were tested
    count: NDArray[np.int64]  # (c,) labelled rows

    def says(self, labels: Sequence[str]) -> str:
        """The answer to "how much would twice the labels help?" in words."""
        value, low, high = (100 * part for part in self.gain)
        twice = f"Twice the labels ({self.doubled:,})"
        if high < 0.5:
            text = f"{twice} would hardly help: {value:.1f} points more ({low:.1f} to {high:.1f})."
        elif low < 0.05:
            text = f"{twice} might bring {value:.1f} points more, or nothing (0 to {high:.1f})."
        else:
            text = f"{twice} would bring about {value:.1f} points more ({low:.1f} to {high:.1f}), "
            text += f"reaching {100 * self.doubling[0]:.1f} %."
        # small classes move by chance, so their gains are shrunk before they are compared
        gain = np.nan_to_num(self.recall - self.recall_half) * self.tested / (self.tested + 20)
        best = [j for j in np.argsort(-gain, kind="stable")[:3] if gain[j] > 0.02]
        if best and high >= 0.5 and len(labels) > 2:
            text += " The second half of the labels helped most with " + ", ".join(labels[j] for j in best) + "."
        return text

    def facts(self, labels: Sequence[str]) -> dict[str, Any]:
        """The piece "curve" of the facts."""
        points = zip(self.sizes, self.accuracy, self.low, self.high, strict=True)
        keys = ("accuracy", "low", "high", "gain", "gain_low", "gain_high")
        return {
            "points": [{"n": int(n), "accuracy": float(a), "low": float(x), "high": float(z)} for n, a, x, z in points],
            "doubling": {"n": self.doubled} | dict(zip(keys, map(float, self.doubling + self.gain), strict=True)),
            "per_class": [
                {
                    "label": label,
                    "n": int(self.count[j]),
                    "recall": float(self.recall[j]),
                    "recall_half": float(self.recall_half[j]),
                    "gain": float(self.recall[j] - self.recall_half[j]),
                }
                for j, label in enumerate(labels)
                if self.tested[j]
            ],
            "says": self.says(labels),
        }


def learning_curve(
    X: Features,
    y: NDArray[np.integer],
    fold: NDArray[np.integer],
    fit: Fit,
    *,
    classes: int | None = None,
    groups: NDArray[np.integer] | None = None,
    shown: float | None = None,
    most_folds: int | None = None,
    seed: int = 0,
) -> Curve | None:
    """Measure the curve on folds; None where there are too few examples for three sizes.

    X: (n, d); y: (n,) codes, -1 unlabelled; fold: (n,) the fold each row is tested in, -1 always trains. fit takes X
    and one-hot targets (m, c) and returns the function from features to scores; it is called for 5 sizes in
    `most_folds` folds (by default 3, of fewer than 2,000 rows all), the largest on at most 20,000 rows, so with a
    closed-form head that needs 30 ms for 8,000 rows the whole takes half a second. shown: the accuracy of the real
    head: the errors of the quick one are scaled so that the curve passes through it.
    """
    known = np.flatnonzero(y >= 0)
    c = classes or int(y.max(initial=0)) + 1
    n = len(known)
    parts = np.unique(fold[known][fold[known] >= 0])
    parts = parts[: most_folds or (len(parts) if n < 2000 else 3)]
    rng = np.random.default_rng(seed)
    if c < 2 or not len(parts):
        return None
    smallest = min(int((fold[known] != part).sum()) for part in parts)
    present = len(np.unique(y[known]))
    trained = min(smallest, MOST_TRAINED)
    fractions = [part for part in FRACTIONS if part * trained >= max(8, 1.5 * present)]
    if len(fractions) < 3:
        return None
    tested, answers, sizes = [], [], np.zeros(len(fractions))
    for part in parts:
        test = known[fold[known] == part]
        test = test if len(test) <= MOST_TESTED else rng.choice(test, MOST_TESTED, replace=False)
        train = _nested(known[fold[known] != part], y, rng)[:trained]
        right = np.empty((len(test), len(fractions)), np.bool_)
        for i, fraction in enumerate(fractions):
            rows = train[: round(fraction * len(train))]
            sizes[i] += len(rows) / len(parts)
            targets = (y[rows, None] == np.arange(c)).astype(np.float32)
            right[:, i] = np.asarray(fit(X[rows], targets)(X[test])).argmax(1) == y[test]
        tested.append(test)
        answers.append(right)
    rows, right = np.concatenate(tested), np.concatenate(answers)

    error = 1 - right.mean(0)
    scale = 1.0 if shown is None or error[-1] == 0 else float(np.clip((1 - shown) / error[-1], 0.25, 4))
    drawn = _drawn(
        1.0 - right.astype(np.float64), fold[rows], rows if groups is None else groups[rows], rng
    )  # (DRAWS, s) errors
    laws = [_law(sizes, np.vstack([error, drawn]), len(rows), (n, 2 * n), floors) for floors in (FLOORS, FLOORS[:1])]
    now, later = (np.clip(scale * np.stack(part), 0, 1) for part in zip(*laws, strict=True))  # (2 laws, 1 + DRAWS)
    gain = now - later
    low, high = np.clip(np.quantile(1 - scale * drawn, [0.025, 0.975], axis=0), 0, 1)
    accuracy = np.clip(1 - scale * error, 0, 1)
    recall = _recall(right[:, -1], y[rows], c)
    value, low_gain, high_gain = _interval(gain)
    return Curve(
        sizes=np.round(sizes).astype(np.int64),
        accuracy=accuracy,
        low=np.minimum(low, accuracy),
        high=np.maximum(high, accuracy),
        doubled=2 * n,
        doubling=_interval(1 - later),
        gain=(value, min(low_gain, value / 2), max(high_gain, value * 1.5)),
        recall=recall,
        recall_half=_recall(right[:, fractions.index(0.5)], y[rows], c),
        tested=np.bincount(y[rows], minlength=c),
        count=np.bincount(y[known], minlength=c),
    )


def _nested(rows: NDArray[np.integer], y: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.integer]:
    """The rows in an order of which every beginning is stratified and, once it is c long, holds every class."""
    rows = rng.permutation(rows)
    order = np.argsort(y[rows], kind="stable")
    sizes = np.bincount(y[rows])
    rank = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    share = rank / np.repeat(sizes, sizes)
    shifted = share + np.where(rank > 0, rng.random(len(rows)), 0) / np.repeat(
        sizes, sizes
    )  # first of each class first
    return rows[order[np.argsort(shifted, kind="stable")]]


def _drawn(wrong: Floats, fold: NDArray[np.integer], groups: NDArray[np.integer], rng: np.random.Generator) -> Floats:
    """Errors (DRAWS, s) of bootstrap draws of folds and groups.

    One right and one wrong row are added for each fold: without them a perfect score would seem certain.
    """
    code = np.unique(groups, return_inverse=True)[1]
    block = rng.permutation(int(code.max()) + 1)[code] % 1000
    parts, at = np.unique(fold, return_inverse=True)
    k = len(parts)
    total, rows = np.zeros((DRAWS, wrong.shape[1])), np.zeros((DRAWS, 1))
    picked = rng.multinomial(k, np.full(k, 1 / k), DRAWS)  # (DRAWS, k)
    for i in range(k):
        mine = at == i
        there, index = np.unique(block[mine], return_inverse=True)
        b = len(there) + 2
        sums = np.zeros((b, wrong.shape[1] + 1))
        for j, column in enumerate((*wrong[mine].T, np.ones(int(mine.sum())))):
            sums[:-2, j] = np.bincount(index, column)
        sums[-2:, -1], sums[-1] = 1, 1  # one right, one wrong
        at_random = rng.integers(b, size=(DRAWS, b)) + np.arange(DRAWS)[:, None] * b
        times = np.bincount(at_random.ravel(), minlength=DRAWS * b).reshape(DRAWS, b)
        found = (times @ sums) * picked[:, [i]]
        total += found[:, :-1]
        rows += found[:, -1:]
    out: Floats = total / np.maximum(rows, 1)
    return out


def _law(sizes: Floats, error: Floats, tested: int, at: Sequence[int], floors: Floats) -> list[Floats]:
    """Power laws fitted to each row of error (b, s) by weighted least squares, read at the numbers `at`: (b,) each."""
    smooth = (error * tested + 0.5) / (tested + 1)
    weight = sizes / (smooth * (1 - smooth))  # later points tell more of what comes next than their noise says
    lowest = smooth.min(1)
    best, read = np.full(len(error), np.inf), [np.zeros(len(error)) for _ in at]
    for b in FALLS:
        x = (sizes / sizes[-1]) ** -b  # (s,)
        for share in floors:
            floor = (share * lowest)[:, None]
            a = np.maximum((weight * x * (smooth - floor)).sum(1) / (weight * x * x).sum(1), 0)
            loss = (weight * (smooth - floor - a[:, None] * x) ** 2).sum(1)
            better = loss < best
            best[better] = loss[better]
            for out, n in zip(read, at, strict=True):
                out[better] = (floor[:, 0] + a * (n / sizes[-1]) ** -b)[better]
    return read


def _interval(values: Floats) -> tuple[float, float, float]:
    """Mean of the fits to what was seen, values[:, 0], with the 95 % range of the fits to draws; within 0 and 1."""
    value = float(values[:, 0].mean())
    low, high = value + WIDER * (np.quantile(values[:, 1:], [0.025, 0.975]) - value)
    return value, max(0.0, min(float(low), value)), min(1.0, max(float(high), value))


def _recall(right: NDArray[np.bool_], y: NDArray[np.integer], c: int) -> Floats:
    size = np.bincount(y, minlength=c)
    return np.where(size > 0, np.bincount(y, right, minlength=c) / np.maximum(size, 1), np.nan)
