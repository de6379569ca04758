"""What is proved of a head whose out-of-fold scores come from one part that was held out, once."""

import numpy as np
import pyarrow as pa
import pytest

from headstart import proof
from headstart.dataset import read
from headstart.folds import folds
from headstart.head import CLASSIFICATION, MULTILABEL, REGRESSION
from headstart.selection import choose

N = 400


def labels(task, X):
    if task == CLASSIFICATION:
        return [f"c{j}" for j in X[:, :5].argmax(1)]
    if task == MULTILABEL:
        return [[f"l{j}" for j in range(4) if row[j] > 0] for row in X]
    return X[:, 0].astype(float).tolist()


@pytest.mark.parametrize("task", [CLASSIFICATION, MULTILABEL, REGRESSION])
@pytest.mark.parametrize("parts", [1, 2])
def test_one_part_held_out_is_enough(task, parts):
    X = np.random.default_rng(0).normal(size=(N, 20)).astype(np.float32)
    rows = read(pa.table({"text": [f"row {i}" for i in range(N)], "label": labels(task, X)}), task=task)
    fold = folds(rows.y if task == CLASSIFICATION else rows.T, k=5, seed=0)[0]
    fold = np.where(fold < parts, fold, -1)
    head = "ridge" if task == REGRESSION else "linear"
    choice = choose(X, rows.targets(), task=task, folds=fold[None], head=head)
    spaces = [(np.flatnonzero(fold == part), X) for part in range(parts)]
    found = proof.prove(
        rows, X, choice, fold[None], np.arange(N), pool=None, held=None, refuse=0.05, seed=0, spaces=spaces
    )
    estimate = found.facts["estimate"]
    held = int((fold >= 0).sum())
    assert estimate["n"] == held
    assert estimate["how"] == ("held out" if parts == 1 else "cross-fitted in 2 folds")
    assert found.facts["curve"] is None
    assert "learned from every class" in found.facts["unknown"]["says"] or task != CLASSIFICATION
    if task == CLASSIFICATION:
        assert estimate["accuracy"] > 0.7
        assert found.facts["calibration"] is not None
    assert found.unknown is not None
