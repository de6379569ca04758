"""Learn and prove: from features and labels to a head, its calibration and thresholds, and the facts about them.

Every figure comes from out-of-fold scores: an example is judged by a head that saw neither it, nor its duplicates, nor
its group. A test set given apart is looked at once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import curation, curve, evaluation, modalities, unknown
from headstart.answers import Answers, measure
from headstart.calibration import Calibration, calibrate, calibrate_multilabel
from headstart.dataset import Dataset
from headstart.folds import folds, tied
from headstart.head import CLASSIFICATION, MULTILABEL, REGRESSION, Head
from headstart.heads.prior import Prior
from headstart.selection import Choice, choose
from headstart.thresholds import tune
from headstart.unknown import Unknown

Floats = NDArray[np.float32]
Clock = Callable[[str], AbstractContextManager[None]]
Spaces = Sequence[tuple[NDArray[np.int64], Floats]]  # for every fold its rows and the features of all
SHOWN = 50  # suspects kept in the facts
POINTS = 500  # of a scatter picture
SHORT = 300  # characters of a text kept in the facts


@dataclass(frozen=True)
class Learned:
    """A head with everything around it, and what is known of it."""

    task: str
    labels: tuple[str, ...]
    head: Head
    choice: Mapping[str, Any]  # name, strength, pool, why
    calibration: Calibration
    unknown: Unknown | None
    thresholds: Floats | None
    facts: dict[str, Any]
    scores: Floats | None = None  # (n, c) out of fold, NaN where a row was not held out


def learn(
    train: Dataset,
    X: Floats,
    *,
    pool: Floats | None,
    names: Floats | None,
    views: Floats | None = None,
    held: tuple[Dataset, Floats] | None,
    head: str,
    balanced: bool,
    refuse: float,
    seed: int,
    clock: Clock,
) -> Learned:
    """Choose a head on folds, calibrate, and measure everything the report shows.

    train: n labelled examples with features X (n, d). pool: (m, d) features of rows without a label. names: (c, d)
    features of what the label names mean. views: (n, d) features of a second view of each. held: a test set with its
    features, used for its figures only.
    """
    task = train.task
    groups = tied(*(() if train.group is None else (train.group,)), keys=train.keys)
    target = train.y if task == CLASSIFICATION else train.T
    T = train.targets()
    with clock("fit"):
        dealt = folds(target, repeats=_repeats(len(train)), groups=groups, seed=seed)
        choice = choose(
            X,
            T,
            task=task,
            folds=dealt,
            head=head,
            weight=_weight(train, T, balanced),
            names=names,
            pool=pool,
            views=views,
            seed=seed,
        )
    with clock("evaluate"):
        return prove(train, X, choice, dealt, groups, pool=pool, held=held, refuse=refuse, seed=seed)


def prove(
    train: Dataset,
    X: Floats,
    choice: Choice,
    dealt: NDArray[np.integer[Any]],
    groups: NDArray[np.int64],
    *,
    pool: Floats | None,
    held: tuple[Dataset, Floats] | None,
    refuse: float,
    seed: int,
    spaces: Spaces = (),
) -> Learned:
    """Calibrate a chosen head and measure everything the report shows.

    dealt (repeats, n): the folds of its out-of-fold scores. spaces: see unknown.learn; features that were learned from
    these rows have no learning curve.
    """
    task = train.task
    judged = _Judged(train, X, train.targets(), groups, dealt, choice, seed, spaces)
    proven = {CLASSIFICATION: _one_label, MULTILABEL: _several_labels, REGRESSION: _number}[task](judged, refuse)
    learned = Learned(
        task, train.labels, choice.head,
        {"name": choice.name, "strength": choice.strength, "pool": choice.pool, "views": choice.views, "why": choice.why},
        proven.calibration, proven.unknown, proven.thresholds, _facts(train, choice, pool) | proven.facts,
        choice.scores[0],
    )  # fmt: skip
    if held is not None:
        _test(learned, *held, train.keys)
    return learned


@dataclass(frozen=True)
class _Judged:
    """What the figures are made from."""

    train: Dataset
    X: Floats
    T: Floats
    groups: NDArray[np.int64]
    dealt: NDArray[np.integer[Any]]  # (repeats, n)
    choice: Choice
    seed: int
    spaces: Spaces

    def how(self) -> str:
        """How the figures were had, in words."""
        k, repeats = int(self.dealt.max()) + 1, len(self.dealt)
        if k == 1:
            return "held out"
        return f"cross-fitted in {k} folds" + (f", {repeats} times" if repeats > 1 else "")

    def inner(self) -> NDArray[np.integer[Any]]:
        """(n,) folds of the rows that have a score, to learn from some what is tried on others; dealt anew where all of
        them were held out together.
        """
        rows, fold = self.tested(), self.dealt[0]
        if len(np.unique(fold[rows])) > 1 or len(rows) < 2:
            return np.asarray(fold)
        target = self.train.y if self.train.task == CLASSIFICATION else self.train.T
        found = np.full(len(fold), -1, np.int8)
        found[rows] = folds(target[rows], groups=self.groups[rows], seed=self.seed)[0]
        return found

    def within(self, rows: NDArray[np.int64]) -> Spaces:
        """The spaces of some rows alone, numbered anew."""
        place = np.full(len(self.train), -1, np.int64)
        place[rows] = np.arange(len(rows))
        return [(place[mine[place[mine] >= 0]], X[rows]) for mine, X in self.spaces]

    def tested(self) -> NDArray[np.int64]:
        """The rows that have an out-of-fold score."""
        return np.flatnonzero(np.isfinite(self.choice.scores[0]).all(1))


@dataclass(frozen=True)
class _Proven:
    calibration: Calibration
    unknown: Unknown | None
    thresholds: Floats | None
    facts: dict[str, Any]


def _repeats(n: int) -> int:
    """More deals where there are few examples; one is enough where there are many."""
    return 1 if n > 3000 else 2 if n > 600 else 3


def _weight(train: Dataset, T: Floats, balanced: bool) -> Floats | None:
    weight = train.weight
    if balanced and train.task == CLASSIFICATION:
        counts = np.maximum(T.sum(0), 1)
        weight = (1.0 if weight is None else weight) * (T @ (len(T) / (len(counts) * counts)))
    return None if weight is None else np.asarray(weight, np.float32)


def _facts(train: Dataset, choice: Choice, pool: Floats | None) -> dict[str, Any]:
    if train.task == REGRESSION:
        classes = []
    else:
        classes = [
            {"label": label, "n": int(n)} for label, n in zip(train.labels, (train.targets() > 0).sum(0), strict=True)
        ]
    groups = None if train.group is None else len(np.unique(train.group))
    return {
        "modality": train.modality,
        "task": train.task,
        "labels": list(train.labels),
        "data": {
            "name": train.name, "digest": train.digest, "rows": int(train.rows.max(initial=0)), "used": len(train),
            "unlabelled": 0 if pool is None else len(pool), "duplicates": train.duplicates, "conflicts": train.conflicts,
            "groups": groups, "classes": classes, "notes": list(train.notes), "test_overlap": None,
            "unlabelled_pool": len(pool) if choice.pool and pool is not None else 0,
            "faults": [asdict(fault) for fault in train.faults],
        },
        "head": {
            "name": choice.name, "strength": choice.strength, "pool": choice.pool, "views": choice.views,
            "why": choice.why, "tie": choice.tie,
            "candidates": list(choice.candidates),
        },
        "estimate": None, "test": None, "per_class": [], "per_class_from": "estimate", "confusion": None, "confused": [],
        "suspects": [], "calibration": None, "thresholds": None, "unknown": None, "curve": None, "scatter": None,
    }  # fmt: skip


def _one_label(judged: _Judged, refuse: float) -> _Proven:
    train, choice, seed = judged.train, judged.choice, judged.seed
    rows, y = judged.tested(), judged.train.y
    if not len(rows):
        return _Proven(Calibration(), None, None, {})
    calibration, reliability = calibrate(choice.scores[0], y, fold=judged.inner(), seed=seed)
    P = np.zeros(choice.scores.shape[1:], np.float32)
    P[rows] = calibration.apply(choice.scores[0][rows])
    said = choice.scores[:, rows].argmax(2)  # (repeats, n)
    found = evaluation.report_classification(y[rows], said, train.labels, groups=judged.groups[rows], seed=seed)
    strange, caught = unknown.learn(
        judged.X[rows], y[rows], P[rows], groups=judged.groups[rows], share=refuse, seed=seed, spaces=judged.within(rows)
    )  # fmt: skip
    learning = (
        None
        if judged.spaces
        else curve.learning_curve(
            judged.X, y, judged.dealt[0], _quick, groups=judged.groups, seed=seed, shown=found["estimate"]["accuracy"]
        )
    )
    facts: dict[str, Any] = {
        **found,
        "estimate": {**found["estimate"], "how": judged.how()},
        "confused": _examples(found["confused"], train, y, P, rows),
        "suspects": _suspects(train, P, rows),
        "calibration": reliability.facts(),
        "unknown": caught.facts(train.labels),
        "curve": None if learning is None else learning.facts(train.labels),
    }
    return _Proven(calibration, strange, None, facts)


def _several_labels(judged: _Judged, refuse: float) -> _Proven:
    train, choice, seed = judged.train, judged.choice, judged.seed
    rows = judged.tested()
    if not len(rows):
        return _Proven(Calibration(several=True), None, np.full(len(train.labels), 0.5, np.float32), {})
    T, groups = judged.T[rows], judged.groups[rows]
    calibration, reliability = calibrate_multilabel(choice.scores[0][rows], T, fold=judged.inner()[rows], seed=seed)
    P = calibration.apply(choice.scores[0][rows])
    tuned = tune(P, T, fold=judged.inner()[rows], seed=seed)
    found = evaluation.report_multilabel(T, P, train.labels, chosen=tuned.chosen, groups=groups, seed=seed)
    strange, caught = unknown.learn(
        judged.X[rows], None, None, groups=groups, share=refuse, seed=seed, spaces=judged.within(rows)
    )
    facts: dict[str, Any] = {
        **found,
        "estimate": {**found["estimate"], "how": judged.how()},
        "calibration": reliability.facts(),
        "thresholds": [
            {"label": label, "threshold": float(t), "n": int(n)}
            for label, t, n in zip(train.labels, tuned.thresholds, T.sum(0), strict=True)
        ],
        "unknown": caught.facts(train.labels),
    }
    return _Proven(calibration, strange, tuned.thresholds, facts)


def _number(judged: _Judged, refuse: float) -> _Proven:
    choice, seed = judged.choice, judged.seed
    rows = judged.tested()
    if not len(rows):
        return _Proven(Calibration(), None, None, {})
    true, said = judged.T[rows, 0], choice.scores[0][rows, 0]
    found = evaluation.report_regression(true, said, groups=judged.groups[rows], seed=seed)
    strange, caught = unknown.learn(
        judged.X[rows], None, None, groups=judged.groups[rows], share=refuse, seed=seed, spaces=judged.within(rows)
    )
    some = np.random.default_rng(seed).permutation(len(rows))[:POINTS]
    facts: dict[str, Any] = {
        **found,
        "estimate": {**found["estimate"], "how": judged.how()},
        "scatter": [[float(true[i]), float(said[i])] for i in some],
        "unknown": caught.facts(()),
    }
    return _Proven(Calibration(), strange, None, facts)


def _quick(X: Floats, T: Floats) -> Callable[[Floats], Floats]:
    """Ridge regression on the targets (a least-squares discriminant): in closed form, for the shape of the curve."""
    centre, share = X.mean(0), T.mean(0)
    Z = X - centre
    gram = Z.T @ Z
    gram[np.diag_indices(len(gram))] += 0.1 * np.trace(gram) / len(gram) + 1e-6
    W = np.linalg.solve(gram, Z.T @ (T - share))
    return lambda new: np.asarray((new - centre) @ W + share, np.float32)


def _examples(
    pairs: Sequence[Mapping[str, Any]], train: Dataset, y: NDArray[np.int32], P: Floats, rows: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """The most confused pairs with up to three real examples each, the surest mistakes first."""
    codes = {label: j for j, label in enumerate(train.labels)}
    said, sure = P[rows].argmax(1), P[rows].max(1)
    found = []
    for pair in pairs:
        i, j = codes[pair["true"]], codes[pair["predicted"]]
        wrong = np.flatnonzero((y[rows] == i) & (said == j))
        best = wrong[np.argsort(-sure[wrong], kind="stable")][:3]
        examples = [
            {**one, "probability": float(sure[b])} for b, one in zip(best, _shown(train, rows[best]), strict=True)
        ]
        found.append({**pair, "examples": examples})
    return found


def _suspects(train: Dataset, P: Floats, rows: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Labels that look wrong, the likeliest mistakes first."""
    suspects = curation.suspects(P[rows], train.y[rows])
    index = rows[suspects.index[:SHOWN]]
    return [
        {**one, "given": train.labels[train.y[i]], "suggested": train.labels[j], "probability": float(p)}
        for i, one, j, p in zip(
            index, _shown(train, index), suspects.suggested[:SHOWN], suspects.probability[:SHOWN], strict=True
        )
    ]


def _shown(train: Dataset, index: NDArray[np.int64]) -> list[dict[str, Any]]:
    """{row, text} of the rows at `index`; of pictures the file's name, and `picture`, a small one."""
    found: list[dict[str, Any]] = [
        {"row": int(train.rows[i]), "text": text[:SHORT]} for i, text in zip(index, train.texts(index), strict=True)
    ]
    if train.modality == "text":
        return found
    shown = modalities.load(train.modality).shown
    return [{**one, "picture": shown(content)} for one, content in zip(found, train.raw(index), strict=True)]


def _test(learned: Learned, held: Dataset, X: Floats, trained: NDArray[np.uint64]) -> None:
    """Add the figures of a test set to the facts."""
    scores = learned.head.scores(X)
    if learned.task == REGRESSION:
        answers = Answers(scores, np.zeros(scores.shape, bool), np.zeros(len(X), bool))
    else:
        P = learned.calibration.apply(scores)
        chosen = (
            P.argmax(1)[:, None] == np.arange(P.shape[1]) if learned.thresholds is None else learned.thresholds <= P
        )
        answers = Answers(P, chosen, np.zeros(len(X), bool))
    found = measure(learned.task, learned.labels, answers, held, trained)
    learned.facts["test"] = found["test"]
    learned.facts["data"]["test_overlap"] = found["overlap"]
    if found["per_class"]:
        learned.facts.update(per_class=found["per_class"], per_class_from="test")


def from_names(labels: tuple[str, ...], names: Floats, pool: Floats | None) -> Learned:
    """A zero-shot head from the features (c, d) of what the labels mean; nothing about it can be measured."""
    head = Prior.of(names, pool)
    why = "there are no labelled examples, so the label names stand for the classes"
    facts: dict[str, Any] = {
        "modality": "text",
        "task": CLASSIFICATION,
        "labels": list(labels),
        "data": {
            "name": "label names", "digest": "", "rows": 0, "used": 0, "unlabelled": 0 if pool is None else len(pool),
            "duplicates": 0, "conflicts": 0, "groups": None, "classes": [{"label": x, "n": 0} for x in labels],
            "notes": [], "test_overlap": None, "unlabelled_pool": 0, "faults": [],
        },
        "head": {
            "name": "prior", "strength": None, "pool": pool is not None, "views": False, "why": why, "tie": None,
            "candidates": [],
        },
        "estimate": None, "test": None, "per_class": [], "per_class_from": "estimate", "confusion": None, "confused": [],
        "suspects": [], "calibration": None, "thresholds": None, "unknown": None, "curve": None, "scatter": None,
    }  # fmt: skip
    choice = {"name": "prior", "strength": None, "pool": pool is not None, "views": False, "why": why}
    return Learned(CLASSIFICATION, labels, head, choice, Calibration(), None, None, facts)
