"""What every rung of tuning stands on: rows, folds, frozen features, and the linear head on them.

Letters: n rows with a label, m without, d feature width, c classes, k blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbone import Backbone
from headstart.candidates import Candidate
from headstart.dataset import Dataset
from headstart.errors import InputError
from headstart.folds import folds, tied
from headstart.head import CLASSIFICATION, REGRESSION
from headstart.selection import Choice, choose, right

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Start = tuple[Floats, Floats]  # W (d, c) and b (c,)

FEW = 1_500  # rows up to which several folds are held out
LARGE = 3_000  # rows above which a tenth is held out, and not a fifth
VERY_FEW = 300  # rows up to which all five folds are held out, and a row stands twice in its batch
HELD = 3  # folds held out between VERY_FEW and FEW
MOST_POOL = 5_000  # rows without a label that take part
PRIOR, SPREAD = 0.1, 0.2  # shares of the errors that tuning on few rows is thought to take away; chosen by hand


def likely(gain: float, noise: float, errors: float) -> bool:
    """Whether tuning on few rows, whose networks gained `gain` on the rows held out, give or take `noise`, is to be kept.

    What is kept is the mean of several networks, which is better than each of those that were judged (film reviews, 32 a
    class: 66.8 each, 72.3 together; Banking77, 10 a class: 84.9 and 86.6), and the noise is larger than most gains. It is
    thought likely beforehand that tuning takes PRIOR of the `errors` away, give or take SPREAD, and it is kept when,
    after what the folds say, a gain is still the likelier (the mean of a normal prior and a normal likelihood is above
    0). With a fifth of 460 held-out rows wrong that asks for no loss beyond 0.2 points, with two fifths of 64 for none
    beyond 2.
    """
    return errors > 0 and gain / noise**2 + PRIOR * errors / (SPREAD * errors) ** 2 > 0


@dataclass(frozen=True)
class Network:
    """The blocks above a tap and the head, after training on some of the rows."""

    changed: dict[str, Floats]  # by the names of the graph's initialisers
    W: Floats
    b: Floats
    scores: Floats  # (h, c) of the rows held out
    space: Floats  # (n, d) features of all rows
    history: tuple[dict[str, Any], ...]  # an epoch each: loss, held, right
    epochs: int


@dataclass(frozen=True)
class Tried:
    """A rung of the ladder, judged on folds."""

    k: int
    rung: str  # "linear", "blocks:k" or "all"
    tap: str
    right: NDArray[np.float64]  # (n,) out of fold; NaN where not held out
    scores: Floats  # (n, c)
    seconds: float
    networks: tuple[Network, ...] = ()  # one a fold


@dataclass(frozen=True)
class Ground:
    """What every rung stands on: rows, folds, features at the usual cut, and the linear head on them."""

    base: Backbone  # in float32
    data: Dataset
    X: Floats  # (n, d) frozen features
    T: Floats  # (n, c)
    groups: Rows
    fold: NDArray[np.integer[Any]]  # (n,)
    judged: tuple[int, ...]  # the folds that are held out
    linear: Choice  # chosen on these folds
    weight: Floats
    seed: int
    pool: tuple[Dataset, Floats] | None = None  # m rows without a label and their features, where they are used
    soft: Floats | None = None  # (n + m, c) a teacher's answers, to be learned in place of T

    @property
    def task(self) -> str:
        """One of head.TASKS."""
        return self.data.task

    @cached_property
    def scale(self) -> tuple[float, float]:
        """The mean and the standard deviation of a number; 0 and 1 for labels."""
        if self.task != REGRESSION:
            return 0.0, 1.0
        return float(self.T.mean()), max(float(self.T.std()), 1e-12)

    @cached_property
    def first(self) -> Tried:
        """The rung below all others: the linear head on frozen features."""
        return Tried(0, "linear", "", right(self.linear.scores[0], self.T, self.task), self.linear.scores[0], 0.0)

    def start(self, rows: Rows) -> Start:
        """The linear head trained on some rows, in the units of training."""
        head: Any = self.linear.train(self.X[rows], self.T[rows], self.weight[rows])
        middle, spread = self.scale
        return head.W / np.float32(spread), (head.b - np.float32(middle)) / np.float32(spread)

    def behind(self, one: Tried, other: Tried) -> tuple[float, float]:
        """How much `other` is better than `one`, and the standard error of that."""
        a, b = (Candidate(self.base, False, right=tried.right, groups=self.groups) for tried in (one, other))
        return a.behind(b)


def ground(
    base: Backbone,
    data: Dataset,
    X: Floats,
    *,
    seed: int,
    names: Floats | None = None,
    pool: tuple[Dataset, Floats] | None = None,
    fold: NDArray[np.integer[Any]] | None = None,
    strict: bool = True,
) -> Ground:
    """Deal the rows to folds, unless they are dealt, and find the linear head.

    X (n, d): features of the rows at the base's cut. names (c, d): of what the label names mean. pool: rows without a
    label with their features; used where the linear head gains from them, or always when not `strict`. Raises InputError
    for too few rows.
    """
    n, T = len(data), data.targets()
    groups = tied(*(() if data.group is None else (data.group,)), keys=data.keys)
    target = data.y if data.task == CLASSIFICATION else data.T
    k = 10 if n > LARGE else 5
    fold = folds(target, k=k, groups=groups, seed=seed)[0] if fold is None else fold
    held = int(fold.max(initial=-1)) + 1 if n <= VERY_FEW else HELD if n <= FEW else 1
    judged = tuple(range(held))
    fold = np.where(np.isin(fold, judged), fold, -1)
    if not (fold >= 0).any():
        raise InputError(
            f"{data.name}: no example can be held out to judge on; label at least 2, better 8, of each class."
        )
    head = "ridge" if data.task == REGRESSION else "linear"
    if pool is not None and len(pool[0]) > MOST_POOL:
        some = np.sort(np.random.default_rng(seed).permutation(len(pool[0]))[:MOST_POOL])
        pool = pool[0].take(some), pool[1][some]
    linear = choose(
        X, T, task=data.task, folds=fold[None], head=head, weight=data.weight, names=names, seed=seed,
        pool=None if pool is None else pool[1],
    )  # fmt: skip
    weight = np.ones(n, np.float32) if data.weight is None else data.weight
    return Ground(
        base, data, X, T, groups, fold, judged, linear, weight, seed, pool if linear.pool or not strict else None
    )
