import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from headstart import logistic
from headstart.logistic import Problem, Weights, moments, problem


def blobs(n: int = 240, d: int = 6, c: int = 4, seed: int = 0, apart: float = 1.5):
    """X (n, d), codes y (n,) and one-hot T (n, c) of overlapping classes, away from the origin."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % c
    X = rng.normal(size=(n, d)) * np.linspace(0.3, 2, d) + apart * rng.normal(size=(c, d))[y] + 3
    return X.astype(np.float32), y, np.eye(c, dtype=np.float32)[y]


def several(n: int = 200, seed: int = 1):
    """X (n, 5) and T (n, 3) of 0 and 1."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 5)).astype(np.float32)
    return X, (X @ rng.normal(size=(5, 3)) + rng.normal(size=(n, 3)) > 0.5).astype(np.float32)


def loss(setting: Problem, strength: float, w: Weights) -> float:
    """The objective as the docstring of the module states it, in double precision."""
    X, T, W = setting.X.astype(float), setting.T.astype(float), w.W.astype(float)
    Z = X @ W + w.b
    own = np.ones(len(X)) if setting.weight is None else setting.weight
    if setting.several:
        each = (np.logaddexp(0, Z) - Z * T).sum(1)
    else:
        top = Z.max(1)
        each = (top + np.log(np.exp(Z - top[:, None]).sum(1))) * T.sum(1) - (Z * T).sum(1)
    M = np.eye(len(W)) if setting.metric is None else setting.metric
    return float(own @ each + strength * setting.scale / 2 * np.trace(W.T @ M @ W))


def trace(X, weight=None) -> float:
    mean = np.average(X.astype(float), axis=0, weights=weight)
    return float(np.average((X - mean) ** 2, axis=0, weights=weight).sum())


def reference(X, y, strength: float, weight=None) -> LogisticRegression:
    model = LogisticRegression(C=1 / (strength * trace(X, weight)), tol=1e-8, max_iter=5000)
    return model.fit(X.astype(float), y, sample_weight=weight)


def same(a: Weights, b: Weights, X, atol: float = 5e-3) -> None:
    """The same scores but for a shift of the row, which the softmax does not see."""
    A, B = X @ a.W + a.b, X @ b.W + b.b
    np.testing.assert_allclose(A - A.mean(1, keepdims=True), B - B.mean(1, keepdims=True), atol=atol)


@pytest.mark.parametrize("strength", [0.3, 0.03, 0.003])
@pytest.mark.parametrize("weighted", [False, True])
def test_softmax_has_the_optimum_of_scikit_learn(strength, weighted):
    X, y, T = blobs()
    weight = np.random.default_rng(2).uniform(0.2, 3, len(X)).astype(np.float32) if weighted else None
    setting = problem(X, T, weight=weight)
    assert setting.scale == pytest.approx(trace(X, weight), rel=1e-3)
    theirs = reference(X, y, strength, weight)
    best = loss(setting, strength, Weights(theirs.coef_.T, theirs.intercept_))
    constant = loss(setting, strength, Weights(np.zeros((6, 4)), np.zeros(4)))
    assert best <= loss(setting, strength, setting.solve(strength)) * 1.000_01 < best + 0.01 * (constant - best)
    assert loss(setting, strength, setting.solve(strength, tolerance=1e-3)) == pytest.approx(best, rel=1e-3)
    close = setting.solve(strength, tolerance=1e-4)
    assert loss(setting, strength, close) == pytest.approx(best, rel=1e-5)
    P = theirs.predict_proba(X)
    Z = np.exp(X @ close.W + close.b)
    np.testing.assert_allclose(Z / Z.sum(1, keepdims=True), P, atol=5e-3)


@pytest.mark.parametrize("strength", [0.3, 0.01])
def test_sigmoid_has_the_optimum_of_one_against_the_rest(strength):
    X, T = several()
    setting = problem(X, T, several=True)
    C = 1 / (strength * trace(X))
    theirs = OneVsRestClassifier(LogisticRegression(C=C, tol=1e-8)).fit(X.astype(float), T.astype(int))
    W = np.concatenate([one.coef_ for one in theirs.estimators_]).T
    b = np.concatenate([one.intercept_ for one in theirs.estimators_])
    found = setting.solve(strength)
    assert loss(setting, strength, found) == pytest.approx(loss(setting, strength, Weights(W, b)), rel=1e-3)
    np.testing.assert_allclose(setting.solve(strength, tolerance=1e-4).W, W, atol=5e-3)


@pytest.mark.parametrize("metric", [False, True])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_a_weight_is_a_repeated_row(kind, metric):
    X, T = blobs(60)[::2] if kind == "softmax" else several(60)
    times = np.random.default_rng(3).integers(1, 4, len(X))
    found = []
    for rows, targets, weight in (
        (X, T, times.astype(np.float32)),
        (np.repeat(X, times, 0), np.repeat(T, times, 0), None),
    ):
        known = moments(rows, targets, weight)
        M = known.within() if metric else None
        setting = problem(rows, targets, weight=weight, several=kind == "sigmoid", metric=M)
        found.append(setting.solve(0.1, tolerance=1e-4))
    np.testing.assert_allclose(found[0].W, found[1].W, atol=2e-3)
    np.testing.assert_allclose(found[0].b, found[1].b, atol=1e-2)


def test_soft_targets_are_rows_shared_between_classes():
    X, _, _ = blobs(50, c=3)
    share = np.random.default_rng(4).dirichlet(np.ones(3), 50).astype(np.float32)
    soft = problem(X, share)
    hard = problem(np.repeat(X, 3, 0), np.tile(np.eye(3, dtype=np.float32), (50, 1)), weight=share.ravel())
    same(soft.solve(0.1, tolerance=1e-4), hard.solve(0.1, tolerance=1e-4), X)


@pytest.mark.parametrize("metric", [False, True])
def test_a_warm_start_reaches_the_same_solution(metric):
    X, _, T = blobs()
    setting = problem(X, T, metric=moments(X, T).within() if metric else None)
    cold = setting.solve(0.01, tolerance=1e-4)
    warm = setting.solve(0.01, start=setting.solve(0.3), tolerance=1e-4)
    same(cold, warm, X, 0.1)  # of scores that differ by 20
    assert loss(setting, 0.01, warm) == pytest.approx(loss(setting, 0.01, cold), rel=1e-5)


def test_from_the_solution_nothing_is_left_to_do():
    X, _, T = blobs()
    setting = problem(X, T)
    found = setting.solve(0.1, tolerance=1e-3)
    again = setting.solve(0.1, start=found, tolerance=2e-3)
    np.testing.assert_allclose(again.W, found.W, atol=1e-6)
    np.testing.assert_allclose(again.b, found.b, atol=1e-5)


def test_the_metric_is_in_the_optimum():
    """No step away from the solution lowers the stated objective, and the metric does change it."""
    X, _, T = blobs()
    setting = problem(X, T, metric=moments(X, T).within(0.1))
    found = setting.solve(0.1, tolerance=1e-4)
    least = loss(setting, 0.1, found)
    rng = np.random.default_rng(5)
    for size in (0.3, 0.03):
        for _ in range(20):
            other = Weights(found.W + size * rng.normal(size=found.W.shape), found.b + size * rng.normal(size=4))
            assert loss(setting, 0.1, other) > least * (1 - 1e-6)
    assert loss(setting, 0.1, problem(X, T).solve(0.1, tolerance=1e-4)) > least * 1.001


def test_a_stronger_penalty_gives_smaller_weights():
    X, _, T = blobs()
    setting = problem(X, T)
    sizes = [np.linalg.norm(setting.solve(strength).W) for strength in (0.003, 0.03, 0.3, 3)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 4 * sizes[-1]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 39), st.integers(0, 2**31), st.booleans())
def test_moments_add_and_subtract(cut, seed, weighted):
    rng = np.random.default_rng(seed)
    X, T = rng.normal(size=(40, 3)).astype(np.float32), rng.dirichlet(np.ones(2), 40).astype(np.float32)
    weight = rng.uniform(0.1, 2, 40).astype(np.float32) if weighted else None
    w = np.ones(40) if weight is None else weight
    first, second = (
        moments(X[part], T[part], None if weight is None else weight[part]) for part in (slice(cut), slice(cut, None))
    )
    whole = moments(X, T, weight)
    truth = {"count": w.sum(), "total": w @ X, "gram": (X.T * w) @ X, "classes": w @ T, "sums": (T.T * w) @ X}
    for name, value in truth.items():
        np.testing.assert_allclose(getattr(whole, name), value, atol=1e-3)
        np.testing.assert_allclose(getattr(first + second, name), value, atol=1e-3)
        np.testing.assert_allclose(getattr(whole - second, name), getattr(first, name), atol=1e-3)
    np.testing.assert_allclose(whole.covariance(), np.cov(X.T, aweights=w, ddof=0), atol=1e-3)


def test_moments_of_no_rows():
    none = moments(np.zeros((0, 3), np.float32), np.zeros((0, 2), np.float32))
    X, _, T = blobs(20, 3, 2)
    np.testing.assert_array_equal((moments(X, T) + none).gram, moments(X, T).gram)


def test_the_within_metric_is_the_scatter_within_classes_with_mean_diagonal_one():
    X, y, T = blobs()
    scatter = sum(np.cov(X[y == k].T, ddof=0) * (y == k).sum() for k in range(4))
    for shrink in (0.0, 0.5, 1.0):
        M = moments(X, T).within(shrink)
        assert np.diag(M).mean() == pytest.approx(1, abs=1e-3)
        np.testing.assert_allclose(M, (1 - shrink) * scatter / np.trace(scatter) * 6 + shrink * np.eye(6), atol=5e-3)
    assert np.linalg.eigvalsh(moments(X, T).within()).min() > 0


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("seed", range(5))
def test_no_scatter_within_classes_leaves_a_sound_metric(times, seed):
    """One distinct row a class: all that is left of the scatter is rounding, which must not become the metric."""
    X = np.random.default_rng(seed).normal(size=(3, 16)).astype(np.float32)
    X, T = np.repeat(X, times, 0), np.repeat(np.eye(3, dtype=np.float32), times, 0)
    M = moments(X, T).within()
    assert np.diag(M).max() < 10
    assert np.linalg.eigvalsh(M).min() > 0
    found = problem(X, T, metric=M).solve(0.1)
    assert ((X @ found.W + found.b).argmax(1) == T.argmax(1)).all()


def test_an_empty_class_is_left_out_of_the_metric_and_never_wins():
    X, _, T = blobs()
    wide = np.concatenate([T, np.zeros((len(T), 1), np.float32)], 1)
    np.testing.assert_allclose(moments(X, wide).within(), moments(X, T).within(), atol=1e-5)
    found = problem(X, wide, metric=moments(X, wide).within()).solve(0.1)
    assert ((X @ found.W + found.b).argmax(1) < 4).all()


def test_the_same_input_gives_the_same_bytes():
    X, _, T = blobs()
    first, second = (problem(X, T, metric=moments(X, T).within()).solve(0.03) for _ in range(2))
    assert first.W.tobytes() == second.W.tobytes()
    assert first.b.tobytes() == second.b.tobytes()
    assert first.W.dtype == first.b.dtype == np.float32


@pytest.mark.parametrize("metric", [False, True])
def test_constant_features_and_duplicated_rows(metric):
    X, _, T = blobs(40, 3, 2)
    wide = np.concatenate([X, np.full((40, 2), 7, np.float32), X[:, :1]], 1)
    wide, targets = np.repeat(wide, 3, 0), np.repeat(T, 3, 0)
    found = problem(wide, targets, metric=moments(wide, targets).within() if metric else None).solve(0.01)
    assert np.isfinite(found.W).all()
    assert np.isfinite(found.b).all()
    assert ((wide @ found.W + found.b).argmax(1) == targets.argmax(1)).mean() > 0.8
    if not metric:
        np.testing.assert_allclose(found.W[0], found.W[5], atol=1e-3)  # twin features share the weight
        np.testing.assert_allclose(found.W[3:5], 0, atol=1e-3)


def test_nothing_but_constant_features_leaves_the_frequencies():
    T = np.eye(2, dtype=np.float32)[[0, 0, 0, 1]]
    found = problem(np.ones((4, 3), np.float32), T).solve(0.1)
    P = np.exp(np.ones(3) @ found.W + found.b)
    np.testing.assert_allclose(P / P.sum(), [0.75, 0.25], atol=1e-2)


def test_one_feature():
    X, y, T = blobs(80, 1, 2)
    # scikit-learn has one vector for two classes, here there are two of half its length: half the penalty
    found, theirs = problem(X, T).solve(0.03, tolerance=1e-4), reference(X, y, 0.015)
    assert found.W.shape == (1, 2)
    np.testing.assert_allclose(found.W[:, 1] - found.W[:, 0], theirs.coef_[0], rtol=5e-2)
    agree = (X @ found.W + found.b).argmax(1) == theirs.predict(X)
    assert agree.mean() > 0.97


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_memory_map_read_in_blocks_equals_memory(tmp_path, monkeypatch, kind, weighted):
    X, T = several(201) if kind == "sigmoid" else blobs(201)[::2]
    weight = np.random.default_rng(6).uniform(0.5, 2, len(X)).astype(np.float32) if weighted else None
    whole = problem(X, T, weight=weight, several=kind == "sigmoid").solve(0.1, tolerance=1e-4)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    monkeypatch.setattr(logistic, "BLOCK", 32)
    np.testing.assert_allclose(moments(mapped, T, weight).gram, moments(X, T, weight).gram, rtol=1e-5)
    parts = problem(mapped, T, weight=weight, several=kind == "sigmoid").solve(0.1, tolerance=1e-4)
    np.testing.assert_allclose(parts.W, whole.W, atol=2e-3)
    np.testing.assert_allclose(parts.b, whole.b, atol=1e-2)


def test_scores_far_from_zero_do_not_overflow():
    X, _, T = blobs(60, apart=50)
    for kind in (False, True):
        found = problem(X * 1000, T, several=kind).solve(1e-4)
        assert np.isfinite(found.W).all()
        assert ((X * 1000 @ found.W + found.b).argmax(1) == T.argmax(1)).all()
