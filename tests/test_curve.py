import time

import numpy as np
import pytest

from headstart.curve import FLOORS, _law, _nested, learning_curve
from headstart.folds import folds


def centroid(X, T):
    M = (T.T @ X) / np.maximum(T.sum(0), 1)[:, None]
    return lambda Q: Q @ M.T - (M * M).sum(1) / 2


NO_FLOOR = np.zeros(1)


def ridge(X, T):
    centre, rate = X.mean(0), T.mean(0)
    Z = X - centre
    W = np.linalg.solve(Z.T @ Z + np.eye(X.shape[1], dtype=np.float32), Z.T @ (T - rate))
    return lambda Q: (Q - centre) @ W + rate


def made(n, c=6, d=40, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(c, d)) * 0.5
    y = rng.integers(0, c, n)
    return (centres[y] + noise * rng.normal(size=(n, d))).astype(np.float32), y


def test_points_grow_and_are_nested():
    X, y = made(1200)
    curve = learning_curve(X, y, folds(y)[0], ridge)
    assert curve.sizes.tolist() == [60, 120, 240, 480, 960]
    assert curve.accuracy[-1] > curve.accuracy[0] + 0.1
    assert (curve.low <= curve.accuracy).all()
    assert (curve.accuracy <= curve.high).all()
    assert (np.diff(curve.high - curve.low) < 0.02).all()
    assert curve.doubled == 2400
    order = _nested(np.arange(1200), y, np.random.default_rng(0))
    assert sorted(order) == list(range(1200))
    for size in (6, 60, 333):
        counts = np.bincount(y[order[:size]], minlength=6)
        assert counts.min() >= 1
        assert np.abs(counts - size * np.bincount(y) / 1200).max() <= 2


def test_laws_with_and_without_a_floor_are_weighed_alike():
    """A curve that has gone flat: without a floor it would fall on, with one it stops; the answer lies halfway."""
    wrong = {50: 400, 100: 320, 200: 280, 400: 260, 800: 250}  # of 1,000

    def staged(X, T):
        # right for all but the given number of the held-out rows, which are numbered in X
        mistakes = wrong[min(wrong, key=lambda size: abs(size - len(X)))]
        return lambda Q: np.where((Q[:, :1] % 1000 < mistakes) == (np.arange(2) == Q[:, 1:]), 0.0, 1.0)

    y = np.arange(1000) % 2
    X = np.stack([np.random.default_rng(0).permutation(1000), y], 1).astype(np.float32)
    curve = learning_curve(X, y, folds(y)[0], staged)
    assert curve.accuracy == pytest.approx([0.6, 0.68, 0.72, 0.74, 0.75])
    sizes, error = curve.sizes.astype(float), 1 - curve.accuracy[None]
    floored, bare = (
        float(np.subtract(*_law(sizes, error, 1000, (1000, 2000), floors))[0]) for floors in (FLOORS, NO_FLOOR)
    )
    assert floored < bare / 2
    assert curve.gain[0] == pytest.approx((floored + bare) / 2)


def test_last_point_is_plain_cross_fitting():
    X, y = made(600)
    fold = folds(y)[0]
    curve = learning_curve(X, y, fold, ridge)
    T = np.eye(6, dtype=np.float32)[y]
    right = np.concatenate(
        [ridge(X[fold != i], T[fold != i])(X[fold == i]).argmax(1) == y[fold == i] for i in range(5)]
    )
    assert curve.accuracy[-1] == pytest.approx(right.mean(), abs=1e-6)
    rows = np.concatenate([np.flatnonzero(fold == i) for i in range(5)])
    assert curve.recall == pytest.approx([right[y[rows] == j].mean() for j in range(6)], abs=1e-6)


def test_the_law_reads_a_power_law_back():
    sizes = np.array([100.0, 200, 400, 800, 1600])
    error = 0.9 * sizes**-0.4
    now, later = _law(sizes, error[None], 10**7, (1600, 3200), NO_FLOOR)
    assert now[0] == pytest.approx(error[-1], rel=0.02)
    assert later[0] == pytest.approx(0.9 * 3200**-0.4, rel=0.03)
    floored = 0.1 + 2 * sizes**-0.6
    _, later = _law(sizes, floored[None], 10**7, (1600, 3200), np.linspace(0, 0.95, 39))
    assert later[0] == pytest.approx(0.1 + 2 * 3200**-0.6, rel=0.03)


@pytest.mark.parametrize(("n", "noise"), [(80, 1.0), (200, 1.3), (400, 1.6), (1500, 2.0)])
def test_the_gain_holds_the_truth(n, noise):
    said, gained = [], []
    for seed in range(8):
        X, y = made(2 * n, noise=noise, seed=seed)
        fresh, truth = made(4000, noise=noise, seed=100 + seed)
        T = np.eye(6, dtype=np.float32)[y]
        now, later = ((centroid(X[:m], T[:m])(fresh).argmax(1) == truth).mean() for m in (n, 2 * n))
        gained.append(later - now)
        said.append(learning_curve(X[:n], y[:n], folds(y[:n], seed=seed)[0], centroid, seed=seed).gain)
    assert sum(low <= np.mean(gained) <= high for _, low, high in said) >= 7
    assert np.mean([value for value, *_ in said]) == pytest.approx(np.mean(gained), abs=0.03)


def test_anchored_at_the_accuracy_shown():
    X, y = made(600)
    fold = folds(y)[0]
    plain = learning_curve(X, y, fold, ridge)
    shown = 1 - (1 - plain.accuracy[-1]) / 2
    curve = learning_curve(X, y, fold, ridge, shown=shown)
    assert curve.accuracy[-1] == pytest.approx(shown)
    assert 1 - curve.accuracy == pytest.approx((1 - plain.accuracy) / 2)
    assert curve.gain[0] == pytest.approx(plain.gain[0] / 2)


def test_facts_and_words():
    X, y = made(600)
    labels = list("abcdef")
    curve = learning_curve(X, y, folds(y)[0], ridge)
    facts = curve.facts(labels)
    assert [set(point) for point in facts["points"]] == [{"n", "accuracy", "low", "high"}] * len(curve.sizes)
    assert set(facts["doubling"]) == {"n", "accuracy", "low", "high", "gain", "gain_low", "gain_high"}
    assert [row["label"] for row in facts["per_class"]] == labels
    assert facts["per_class"][0]["gain"] == pytest.approx(
        facts["per_class"][0]["recall"] - facts["per_class"][0]["recall_half"]
    )
    assert "1,200" in facts["says"]
    assert f"{100 * curve.gain[0]:.1f} points more" in facts["says"]


def test_nothing_to_gain_is_said():
    X, y = made(3000, noise=0.1)
    curve = learning_curve(X, y, folds(y)[0], ridge)
    assert curve.accuracy[-1] == 1
    assert curve.low[-1] < 1
    assert "hardly help" in curve.says(list("abcdef"))


def test_a_class_that_lags_is_named():
    X, y = made(1500, c=4, noise=0.6)
    rng = np.random.default_rng(0)
    mine = np.flatnonzero(y == 3)  # made of many small clusters, so that it is learnt late
    X[mine] = rng.normal(size=(120, 40))[rng.integers(0, 120, len(mine))] + 0.1 * rng.normal(size=(len(mine), 40))
    curve = learning_curve(X, y, folds(y)[0], nearest)
    assert (curve.recall - curve.recall_half).argmax() == 3
    assert curve.says(["a", "b", "c", "late one"]).endswith("helped most with late one.")


def nearest(X, T):
    return lambda Q: T[(Q @ X.T - (X * X).sum(1) / 2).argmax(1)]


def test_too_few_examples_give_no_curve():
    X, y = made(20)
    assert learning_curve(X, y, folds(y)[0], ridge) is None
    assert learning_curve(X, np.zeros(20, int), folds(y)[0], ridge) is None
    assert learning_curve(X, np.full(20, -1), folds(y)[0], ridge) is None


def test_unlabelled_rows_and_groups_and_seeds():
    X, y = made(600)
    groups = np.arange(600) // 3
    y[:60] = -1
    fold = folds(y, groups=groups)[0]
    one, two = (learning_curve(X, y, fold, ridge, groups=groups, seed=4) for _ in range(2))
    assert one.says(list("abcdef")) == two.says(list("abcdef"))
    assert np.array_equal(one.low, two.low)
    assert one.count.sum() == 540


def test_large_sets_are_capped():
    seen = []

    def spy(X, T):
        seen.append(len(X))
        return lambda Q: np.zeros((len(Q), T.shape[1]))

    X, y = np.zeros((60_000, 2), np.float32), np.arange(60_000) % 3
    curve = learning_curve(X, y, folds(y)[0], spy)
    assert max(seen) == 20_000
    assert len(seen) == 15
    assert curve.doubled == 120_000


def test_is_fast():
    X, y = made(10_003, c=77, d=384)
    fold = folds(y)[0]

    def instant(X, T):
        return lambda Q: Q @ np.zeros((Q.shape[1], T.shape[1]), np.float32)

    start = time.process_time()
    learning_curve(X, y, fold, instant)
    assert time.process_time() - start < 0.6
