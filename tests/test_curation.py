import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.curation import conflicts, near_duplicates, suspects

SHARED = Path(os.environ.get("HEADSTART_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "label_errors"


def confident_joint(P, y):
    """Confident learning row by row, as the paper writes it (equation 2)."""
    c = P.shape[1]
    t = [P[y == j, j].mean() if (y == j).any() else np.inf for j in range(c)]
    found = {}
    for i in range(len(y)):
        above = [j for j in range(c) if P[i, j] >= t[j] - 1e-12]
        if above:
            j = max(above, key=lambda j: P[i, j])
            if j != y[i] and P[i, j] > P[i, y[i]]:
                found[i] = j
    return found


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(2, 5), st.integers(0, 10_000))
def test_suspects_are_those_of_the_paper(n, c, seed):
    rng = np.random.default_rng(seed)
    P, y = rng.dirichlet(np.full(c, 0.5), n), rng.integers(0, c, n)
    found = suspects(P, y)
    assert dict(zip(found.index.tolist(), found.suggested.tolist(), strict=True)) == confident_joint(P, y)
    assert (np.diff(found.margin) <= 1e-12).all()
    assert np.allclose(found.probability, P[found.index, found.suggested])


def test_planted_errors_come_first():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 1000)
    given_ = truth.copy()
    wrong = rng.choice(1000, 50, replace=False)
    given_[wrong] = (given_[wrong] + 1 + rng.integers(0, 4, 50)) % 5
    S = rng.normal(0, 1, (1000, 5))
    S[np.arange(1000), truth] += 3.5
    P = np.exp(S) / np.exp(S).sum(1, keepdims=True)
    found = suspects(P, given_)
    assert np.isin(found.index[:30], wrong).mean() > 0.9
    assert np.isin(wrong, found.index).mean() > 0.55
    planted = np.isin(found.index, wrong)
    assert (found.suggested[planted] == truth[found.index[planted]]).mean() > 0.95


def test_unlabelled_and_untested_rows_are_left_out():
    P, y = np.array([[0.1, 0.9], [0.9, 0.1], [0.2, 0.8], [np.nan, np.nan], [0.05, 0.95]]), np.array([0, 0, 1, 1, -1])
    assert suspects(P, y).index.tolist() == [0]
    assert not len(suspects(P[:0], y[:0]).index)


SETS = [  # set, file of human verdicts, precision among those that humans judged, recall of the errors they confirmed
    ("20news_test_set", "20news", 0.85, 0.45),
    ("cifar10_test_set", "cifar10", 0.2, 0.85),
    ("imdb_test_set", "imdb", 0.55, 0.8),
    ("mnist_test_set", "mnist", 0.45, 0.45),
]


@pytest.mark.parametrize(("name", "verdicts", "precision", "recall"), SETS)
def test_public_label_errors_are_found(name, verdicts, precision, recall):
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED}; set HEADSTART_SHARED")
    P = np.load(SHARED / "cross_validated_predicted_probabilities" / f"{name}_pyx.npy").astype(np.float32)
    y = np.load(SHARED / "original_test_labels" / f"{name}_original_labels.npy").astype(int)
    judged = json.loads((SHARED / "mturk" / f"{verdicts}_mturk.json").read_text("utf-8"))
    rows = [item["id"] for item in judged]
    if verdicts == "imdb":
        files = json.loads((SHARED / "dataset_indexing" / "imdb_test_set_index_to_filename.json").read_text("utf-8"))
        at = {file: i for i, file in enumerate(files)}
        rows = [at[row.removeprefix("test/") + ".txt"] for row in rows]
    wrong = np.array([item["mturk"]["given"] < 3 for item in judged])  # fewer than 3 of 5 people agree with the label
    found = np.isin(rows, suspects(P, y).index)
    assert (wrong & found).sum() / found.sum() >= precision
    assert (wrong & found).sum() / wrong.sum() >= recall


def test_conflicts():
    keys = np.array([[1, 1], [2, 2], [1, 1], [2, 2], [1, 2], [1, 1], [3, 3], [3, 3]], np.uint64)
    y = np.array([0, 1, 1, 1, 0, 0, 2, -1])
    assert [rows.tolist() for rows in conflicts(keys, y)] == [[0, 2, 5]]
    assert conflicts(keys[:0], y[:0]) == []
    assert conflicts(keys, np.full(8, -1)) == []


@pytest.mark.parametrize("d", [3, 64, 200])
@pytest.mark.parametrize("similarity", [0.9, 0.98])
def test_near_duplicates_are_all_found(d, similarity):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, d)).astype(np.float32)
    X = np.concatenate(
        [
            X,
            3 * X[:40] + rng.uniform(0.1, 1, (40, 1)).astype(np.float32) * rng.normal(size=(40, d)).astype(np.float32),
            X[:5],
        ]
    )
    U = X / np.linalg.norm(X, axis=1, keepdims=True)
    S = U @ U.T
    i, j = np.nonzero(np.triu(similarity <= S, 1))
    sure = np.abs(S[i, j] - similarity) > 1e-5
    found = near_duplicates(X, similarity=similarity, most=10**6)
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert set(zip(i[sure].tolist(), j[sure].tolist(), strict=True)) <= pairs
    assert (found.first < found.second).all()
    assert (np.diff(found.similarity) <= 0).all()
    assert found.similarity.min() >= similarity
    assert np.allclose(found.similarity, S[found.first, found.second], atol=1e-5)


def test_many_pairs_are_bounded_to_the_most_similar():
    rng = np.random.default_rng(0)
    X = np.ones((400, 16), np.float32) + 0.05 * rng.normal(size=(400, 16)).astype(np.float32)
    X = np.concatenate([X, X[:10]])
    found = near_duplicates(X, similarity=0.9, most=50)
    assert len(found.first) == 50
    assert found.similarity[:10] == pytest.approx(1, abs=1e-6)
    assert {(i, i + 400) for i in range(10)} == set(
        zip(found.first[:10].tolist(), found.second[:10].tolist(), strict=True)
    )


def test_many_rows_are_divided_and_most_pairs_found():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6000, 64)).astype(np.float32)
    X = np.concatenate([X, X[:500] + 0.05 * rng.normal(size=(500, 64)).astype(np.float32)])
    found = near_duplicates(X, exact=2500)
    assert len(found.first) >= 450
    assert (found.second - found.first == 6000).all()


def test_no_rows_and_no_pairs():
    assert not len(near_duplicates(np.zeros((0, 8), np.float32)).first)
    assert not len(near_duplicates(np.eye(8, dtype=np.float32)).first)


def test_is_fast():
    X = np.random.default_rng(0).normal(size=(10_000, 384)).astype(np.float32)
    start = time.process_time()
    near_duplicates(X)
    assert time.process_time() - start < 2
