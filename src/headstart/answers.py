"""What a model says of n examples, as arrays, and how good that is on a labelled data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import evaluation
from headstart.dataset import Dataset
from headstart.errors import InputError
from headstart.folds import overlap, tied
from headstart.head import CLASSIFICATION, MULTILABEL, REGRESSION


@dataclass(frozen=True)
class Answers:
    """What a model says of n examples, as arrays."""

    P: NDArray[np.float32]  # (n, c) probabilities, or (n, 1) numbers
    chosen: NDArray[np.bool_]  # (n, c) the labels that apply; all False for numbers
    unknown: NDArray[np.bool_]  # (n,)


def measure(
    task: str,
    labels: Sequence[str],
    answers: Answers,
    held: Dataset,
    trained: NDArray[np.uint64] | None,
) -> dict[str, Any]:
    """Figures of answers to a labelled data set: {test, per_class, confusion, overlap, notes}.

    trained: (m, 2) keys of the training examples, to count test rows that occur there too; None when not known.
    """
    groups = tied(*(() if held.group is None else (held.group,)), keys=held.keys)
    if task == REGRESSION and not len(held):
        raise InputError(f"{held.name}: no row has a number to compare with.")

    def figures(rows: NDArray[np.int64]) -> dict[str, Any]:
        if task == CLASSIFICATION:
            return evaluation.report_classification(held.y[rows], answers.P[rows], labels, groups=groups[rows])
        if task == MULTILABEL:
            return evaluation.report_multilabel(
                held.T[rows], answers.P[rows], labels, chosen=answers.chosen[rows], groups=groups[rows]
            )
        return evaluation.report_regression(held.T[rows, 0], answers.P[rows, 0], groups=groups[rows])

    found = figures(np.arange(len(held)))
    test, notes = found["estimate"], []
    seen = np.zeros(0, np.int64) if trained is None else overlap(trained, held.keys)
    if len(seen):
        apart = np.setdiff1d(np.arange(len(held)), seen)
        notes.append(f"{len(seen):,} of {len(held):,} rows also occur in the training data")
        if len(apart):
            test = {**test, "apart": figures(apart)["estimate"]}
    if answers.unknown.any():
        notes.append(
            f"{int(answers.unknown.sum()):,} rows are answered with 'unknown'; their labels are counted all the same"
        )
    return {
        "test": test,
        "per_class": found.get("per_class") or [],
        "confusion": found.get("confusion"),
        "overlap": None if trained is None else len(seen),
        "notes": notes,
    }
