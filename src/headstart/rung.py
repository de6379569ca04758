"""What stands on the ladder: a rung, the rows that all of them are judged on, which one is worth its cost, and the facts.

Letters: n examples, d feature width, c classes, r deals into folds. X (n, d), T (n, c), y (n,).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import advice, curve, ladder
from headstart.backbone import Backbone
from headstart.candidates import megabytes, milliseconds
from headstart.choosing import figure, mean
from headstart.dataset import Dataset
from headstart.ground import FEW as SEVERAL
from headstart.ground import likely
from headstart.head import CLASSIFICATION
from headstart.heads.ridge import Ridge
from headstart.selection import judged

WORTH = 0.005  # what a dearer rung must be better by, at least
FEW = 100  # rows from which no model at all may be the best
HOPED = (ladder.NO_NETWORK, ladder.STATIC, ladder.LINEAR)
ROOMY = 0.2  # share of errors from which such a rung can bring all it did elsewhere
BRINGS, SPREAD = 0.035, 0.05  # of each over the one below, on eleven sets of texts with 10 to 32 examples a class

Floats = NDArray[np.float64]
Forecast = tuple[float, float, float, str]  # gain, low, high, in words


@dataclass(frozen=True)
class Rung:
    """One way to do it, and what was found of it; `why` says why it was not tried."""

    rung: str
    right: Floats | None = None  # (n,) how right each row is, out of fold, over all deals
    first: Floats | None = None  # (n,) in the first deal, which tuned rungs are judged in
    seconds: float = 0.0
    ms: float = 0.0  # for one example
    mb: float = 0.0  # of weights
    base: str | None = None
    cut: str | None = None
    why: str = ""

    @property
    def tried(self) -> bool:
        """Whether it was judged."""
        return self.right is not None


@dataclass
class Ground:
    """The rows that every rung is judged on, and what is seen of them on the way up."""

    part: Dataset
    task: str
    groups: NDArray[np.int64]  # (n,)
    dealt: NDArray[np.integer[Any]]  # (r, n)
    timed: list[str] | list[bytes]
    seed: int
    signs: ladder.Signs | None = None  # what the frozen features say of tuning
    far: tuple[str, str] = ("unknown", "")
    shape: NDArray[np.float32] | None = None  # (n, d) features that the learning curve is measured on

    def rung(
        self, name: str, X: NDArray[np.float32], rows: Dataset, base: Backbone, seconds: float,
        known: Sequence[Floats] | None = None,
    ) -> Rung:  # fmt: skip
        """A head on frozen features X of `rows`, those of the part that the base can read, judged out of fold.

        known: how right each of these rows is in every deal, where that was found before.
        """
        before = time.perf_counter()
        kept = np.flatnonzero(np.isin(self.part.rows, rows.rows))
        hits = known or [judged(X, rows.targets(), task=self.task, folds=deal[kept])[0] for deal in self.dealt]
        first, right = np.full(len(self.part), np.nan), np.full(len(self.part), np.nan)
        first[kept], right[kept] = hits[0], np.mean(hits, axis=0)
        spent = seconds + time.perf_counter() - before
        weight = 4e-6 * (X.shape[1] + 1) * max(1, rows.targets().shape[1])
        if self.shape is None or name == ladder.STATIC:
            self.shape = X
        return Rung(
            name, right, first, spent, milliseconds(base, self.timed), megabytes(base) + weight, base.card.name, base.card.cut
        )  # fmt: skip


def behind(best: Rung, other: Rung, groups: NDArray[np.int64]) -> tuple[float, float]:
    """How much better `other` is than `best` on the same rows in the same folds, and the standard error of that."""
    frozen = best.first is not best.right and other.first is not other.right
    a, b = (best.right, other.right) if frozen else (best.first, other.first)
    assert a is not None
    assert b is not None
    d = b - a
    held = np.isfinite(d)
    if held.sum() < 2:
        return 0.0, np.inf
    gain, half = mean(d[held], groups[held])
    return gain, half / 1.96


def chosen(found: Sequence[Rung], groups: NDArray[np.int64]) -> tuple[Rung, list[Rung]]:
    """The rung that is worth its cost, and the others that these examples do not tell from it."""
    tried = [rung for rung in found if rung.tried]
    best = tried[0]
    for rung in tried[1:]:
        if better(best, rung, groups):
            best = rung
    ties = []
    for rung in tried:
        gain, noise = behind(best, rung, groups)
        if rung is not best and abs(gain) <= noise:
            ties.append(rung)
    return best, ties


def better(best: Rung, other: Rung, groups: NDArray[np.int64]) -> bool:
    """Whether a dearer rung takes the place of a cheaper one.

    One that trains a network must be better by more than its noise; on few rows `ground.likely` tells. Those that do not cost little more than one another,
    and few examples tell little: there, what such a rung brought on other sets is weighed in by its precision. Anything is
    worth a try before the same answer to everything, unless 100 examples or more show that it is no better.
    """
    gain, noise = behind(best, other, groups)
    assert other.right is not None
    assert best.right is not None
    errors = min(1.0, 1.0 - float(np.nanmean(best.right)))
    if best.rung == ladder.MAJORITY:
        return gain > noise if np.isfinite(other.right).sum() >= FEW else gain > -2 * noise
    if other.rung in HOPED and best.rung in HOPED:
        hope = HOPED.index(other.rung) - HOPED.index(best.rung)  # rungs between them, each adds its variance
        room = min(1.0, errors / ROOMY)  # where little is wrong little can be brought
        told, known = 1 / max(noise, 1e-6) ** 2, 1 / max(hope * (room * SPREAD) ** 2, 1e-12)
        return (gain * told + hope * room * BRINGS * known) / (told + known) >= WORTH
    if best.rung in HOPED and np.isfinite(other.right).sum() <= SEVERAL:  # of several networks, as `tune` keeps them
        return likely(gain, noise, errors)
    return gain > noise and gain >= WORTH


def _curve(ground: Ground, accuracy: float) -> dict[str, Any] | None:
    """The learning curve on the deepest frozen features seen, through the accuracy given; None where it cannot be had."""
    if ground.task != CLASSIFICATION or ground.shape is None or len(ground.shape) != len(ground.part):
        return None
    found = curve.learning_curve(
        ground.shape, ground.part.y, ground.dealt[0], lambda X, T: Ridge.fit(X, T, 0.1).scores,
        classes=len(ground.part.labels), groups=ground.groups, shown=accuracy, seed=ground.seed,
    )  # fmt: skip
    return None if found is None else found.facts(ground.part.labels)


def facts(
    data: Dataset, ground: Ground, base: Backbone | None, found: list[Rung],
    forecast: Forecast | None, interrupted: bool, spent: float,
) -> dict[str, Any]:  # fmt: skip
    """Everything the page shows."""
    best, ties = chosen(found, ground.groups)
    rows: list[dict[str, Any]] = []
    below: Rung | None = None
    for rung in found:
        row: dict[str, Any] = {
            "rung": rung.rung, "accuracy": None, "low": None, "high": None, "n": 0, "seconds": None, "ms": None, "mb": None,
            "gain": None, "noise": None, "tried": rung.tried, "why": rung.why, "backbone": rung.base, "cut": rung.cut,
            "tie": rung in ties, "recommended": rung is best,
        }  # fmt: skip
        if rung.right is not None:
            accuracy, low, high = figure(rung.right, ground.groups, ground.task)
            row |= {"accuracy": accuracy, "low": low, "high": high, "n": int(np.isfinite(rung.right).sum())}
            row |= {"seconds": round(rung.seconds, 2), "ms": round(rung.ms, 3), "mb": round(rung.mb, 2)}
            if below is not None:
                gain, noise = behind(below, rung, ground.groups)
                row |= {"gain": gain, "noise": noise if np.isfinite(noise) else None}
            below = rung
        rows.append(row)
    mine = rows[found.index(best)]
    learning = _curve(ground, mine["accuracy"])
    recommended = {
        key: mine[key] for key in ("rung", "accuracy", "low", "high", "n", "seconds", "ms", "mb", "backbone", "cut")
    }
    told: dict[str, Any] = {
        "data": data.name, "modality": data.modality, "task": data.task, "n": len(ground.part), "labelled": len(data),
        "recommended": recommended, "rungs": rows, "seconds": round(spent, 2), "curve": learning,
        "classes": [] if learning is None else advice.weakest(learning["per_class"]),
        "distance": {"level": ground.far[0], "sentence": ground.far[1]},
        "forecast": None if forecast is None else dict(zip(("gain", "low", "high", "says"), forecast, strict=True)),
        "not_tried": [{"rung": row["rung"], "why": row["why"]} for row in rows if not row["tried"]],
        "warnings": [], "interrupted": interrupted, "blocks": 0 if base is None else max(len(base.taps) - 1, 0),
    }  # fmt: skip
    told["warnings"] = advice.warnings(told)
    told["sentences"] = advice.sentences(told)
    return told
