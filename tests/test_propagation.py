import numpy as np
import pytest

from headstart import propagation
from headstart.propagation import NEIGHBOURS, neighbours, spread


def moons(n: int = 60, seed: int = 0):
    """X (n, 2) on two arcs that face each other, and which arc (n,)."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    turn = rng.uniform(0.15, 0.85, n) * np.pi + y * np.pi
    X = np.stack([np.cos(turn), np.sin(turn)], 1) + 0.02 * rng.normal(size=(n, 2))
    return X.astype(np.float32), y


def blobs(n: int, c: int = 3, d: int = 8, seed: int = 0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % c
    return (5 * np.eye(c, d)[y] + rng.normal(size=(n, d))).astype(np.float32), y


def onehot(y, c: int):
    return np.eye(c, dtype=np.float32)[y]


@pytest.mark.parametrize("n", [2, 3, NEIGHBOURS, NEIGHBOURS + 1, 50])
def test_neighbours_are_the_nearest_others_with_weights_that_sum_to_one(n):
    X = np.random.default_rng(n).normal(size=(n, 4)).astype(np.float32)
    near, weight = neighbours(X)
    k = min(NEIGHBOURS, n - 1)
    assert near.shape == weight.shape == (n, k)
    assert weight.dtype == np.float32
    np.testing.assert_allclose(weight.sum(1), 1, atol=1e-5)
    assert (weight > 0).all()
    Z = X / np.linalg.norm(X, axis=1, keepdims=True)
    cosine = Z @ Z.T
    np.fill_diagonal(cosine, -np.inf)
    for i in range(n):
        assert i not in near[i]
        assert set(near[i]) == set(np.argsort(-cosine[i])[:k])
        assert near[i][weight[i].argmax()] == cosine[i].argmax()


def test_equal_rows_are_neighbours_of_each_other_and_not_of_themselves():
    near, weight = neighbours(np.ones((8, 3), np.float32))
    assert all(i not in row and len(set(row)) == NEIGHBOURS for i, row in enumerate(near))
    np.testing.assert_allclose(weight, 1 / NEIGHBOURS, atol=1e-6)


def test_zero_rows_do_no_harm():
    near, weight = neighbours(np.zeros((7, 3), np.float32))
    assert np.isfinite(weight).all()
    assert all(i not in row for i, row in enumerate(near))


def test_blocks_do_not_matter(monkeypatch):
    X, y = blobs(90)
    T, scores = onehot(y[:6], 3), np.zeros((84, 3), np.float32)
    near, weight = neighbours(X)
    whole = spread(X[:6], T, X[6:], scores)
    monkeypatch.setattr(propagation, "BLOCK", 7)
    near_in_parts, weight_in_parts = neighbours(X)
    np.testing.assert_array_equal(np.sort(near_in_parts, 1), np.sort(near, 1))
    np.testing.assert_allclose(np.sort(weight_in_parts, 1), np.sort(weight, 1), atol=1e-5)
    np.testing.assert_allclose(spread(X[:6], T, X[6:], scores), whole, atol=1e-4)


def test_labels_spread_over_clusters_with_no_opinion_to_begin_with():
    X, y = blobs(90)
    found = spread(X[:6], onehot(y[:6], 3), X[6:], np.zeros((84, 3), np.float32))
    assert (found.argmax(1) == y[6:]).mean() > 0.95


def test_labels_spread_along_arcs_where_a_straight_opinion_is_wrong():
    X, y = moons()
    wrong = 0.05 * np.stack([X[:, 0], -X[:, 0]], 1)  # by the horizontal: right for half the rows
    found = spread(X[:8], onehot(y[:8], 2), X[8:], wrong[8:])
    assert (wrong[8:].argmax(1) == y[8:]).mean() < 0.7
    assert (found.argmax(1) == y[8:]).mean() > 0.9


def test_an_opinion_sways_rows_far_from_labels():
    X, _ = blobs(60, c=2)
    U = X[2:]
    for side in (0, 1):
        scores = np.zeros((len(U), 2), np.float32)
        scores[:, side] = 3
        assert (spread(X[:2], np.full((2, 2), 0.5, np.float32), U, scores).argmax(1) == side).all()


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 1), (1, 3), (3, 2), (NEIGHBOURS, 1), (4, 30)])
def test_small_pools_give_shares_of_the_classes(n, m):
    rng = np.random.default_rng(n + 10 * m)
    A, U = rng.normal(size=(n, 4)).astype(np.float32), rng.normal(size=(m, 4)).astype(np.float32)
    found = spread(A, onehot(np.arange(n) % 3, 3), U, rng.normal(size=(m, 3)).astype(np.float32))
    assert found.shape == (m, 3)
    assert found.dtype == np.float32
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


def test_scores_of_any_size_are_taken():
    X, y = blobs(30)
    scores = 1e6 * onehot(y[6:], 3) - 1e6
    found = spread(X[:6], onehot(y[:6], 3), X[6:], scores)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert (found.argmax(1) == y[6:]).all()


def test_nothing_given_is_changed_and_the_same_comes_out():
    X, y = blobs(40)
    A, T, U, scores = X[:6].copy(), onehot(y[:6], 3), X[6:].copy(), np.ones((34, 3), np.float32)
    first = spread(A, T, U, scores)
    assert first.tobytes() == spread(A, T, U, scores).tobytes()
    np.testing.assert_array_equal(A, X[:6])
    np.testing.assert_array_equal(T, onehot(y[:6], 3))
    np.testing.assert_array_equal(scores, 1)
