"""LogME and the H-score against their definitions, and what must hold of both."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.transferability import logme


def blobs(n=120, d=6, c=3, apart=2.0, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % c
    return rng.standard_normal((n, d)) + apart * rng.standard_normal((c, d))[y], y


def evidence(X, t, alpha, beta):
    """The log density of t under N(0, I / beta + X X^T / alpha)."""
    C = np.eye(len(X)) / beta + X @ X.T / alpha
    sign, logdet = np.linalg.slogdet(C)
    assert sign > 0
    return -(len(X) * np.log(2 * np.pi) + logdet + t @ np.linalg.solve(C, t)) / 2


def best(X, t):
    """The largest evidence, by a search on a grid that is made finer."""
    low, high = np.array([-6.0, -6.0]), np.array([8.0, 8.0])
    for _ in range(6):
        grid = [(a, b) for a in np.linspace(low[0], high[0], 9) for b in np.linspace(low[1], high[1], 9)]
        values = [evidence(X, t, np.exp(a), np.exp(b)) for a, b in grid]
        at = np.array(grid[int(np.argmax(values))])
        width = (high - low) / 6
        low, high = at - width, at + width
    return max(values)


@pytest.mark.parametrize(("n", "d"), [(40, 5), (30, 30), (20, 45)])
def test_logme_is_the_largest_evidence_a_row(n, d):
    X, y = blobs(n, d, 2, apart=0.5)
    expected = np.mean([best(X, (y == c).astype(float)) for c in (0, 1)]) / n
    assert logme(X, y) == pytest.approx(expected, abs=2e-3)


def test_logme_of_a_regression():
    X, _ = blobs(50, 4)
    t = X @ np.array([1.0, -2, 0, 1]) + np.random.default_rng(1).standard_normal(50)
    assert logme(X, t) == pytest.approx(best(X, t) / 50, abs=2e-3)
    both = np.stack([t, X[:, 0] ** 2], 1)
    assert logme(X, both) == pytest.approx((logme(X, t) + logme(X, both[:, 1])) / 2)
    gone = t.copy()
    gone[::7] = np.nan
    assert logme(X, gone) == pytest.approx(logme(X[np.isfinite(gone)], gone[np.isfinite(gone)]))


@settings(max_examples=25, deadline=None)
@given(st.integers(12, 60), st.integers(1, 30), st.integers(2, 4), st.integers(0, 10**6))
def test_neither_feels_a_rotation_or_the_order_or_the_names_of_classes(n, d, c, seed):
    X, y = blobs(n, d, c, seed=seed)
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    order = rng.permutation(n)
    assert logme((X @ turn)[order], (7 * y + 3)[order]) == pytest.approx(logme(X, y), rel=1e-3, abs=1e-4)


def test_both_grow_with_separation():
    values = [logme(*blobs(300, 8, 3, apart=apart)) for apart in (0.0, 0.5, 1.0, 2.0, 4.0)]
    assert values == sorted(values)
    assert values[-1] > values[0] + 0.5


def test_unlabelled_rows_are_left_out():
    X, y = blobs()
    assert logme(np.concatenate([X, X + 9]), np.concatenate([y, np.full(len(y), -1)])) == pytest.approx(logme(X, y))


def test_odd_features():
    y = np.arange(10) % 2
    assert np.isfinite(logme(np.zeros((10, 3)), y))
    assert np.isfinite(logme(np.ones((10, 3)), y))
    assert np.isfinite(logme(np.eye(10), y))
    assert np.isfinite(logme(y[:, None].astype(float), y))  # an exact fit
    assert np.isfinite(logme(np.ones((10, 3)), np.zeros(10, int)))  # one class
    for X, codes in ((np.ones((3, 2)), y), (np.ones((10, 2)), -y - 1), (np.full((10, 2), np.nan), y), (np.ones(10), y)):
        with pytest.raises(ValueError):
            logme(X, codes)


def test_it_is_quick():
    X, y = blobs(3000, 384, 77)
    start = time.process_time()
    logme(X, y)
    assert time.process_time() - start < 3
