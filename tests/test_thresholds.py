import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from headstart.thresholds import GRID, tune


def made(n, c, seed=0, rate=0.08):
    """True probabilities (n, c) and the labels drawn from them; many labels, most of them rare."""
    rng = np.random.default_rng(seed)
    base = np.log(rate * np.geomspace(0.1, 2, c))
    P = 1 / (1 + np.exp(-(base + rng.normal(0, 1.8, (n, c)))))
    return P.astype(np.float32), (rng.random((n, c)) < P).astype(np.float32)


def micro(truth, given):
    return 2 * (truth * given).sum() / (truth.sum() + given.sum())


def own_best(P, T):
    """Each label's own best threshold of the grid."""
    found = []
    for p, t in zip(P.T, T.T, strict=True):
        given = p[:, None] >= GRID
        found.append(GRID[np.argmax(2 * (given * t[:, None]).sum(0) / (given.sum(0) + t.sum() + 1e-9))])
    return np.array(found)


def test_tuned_beats_one_half_on_rows_never_seen():
    P, T = made(1500, 20)
    found = tune(P, T)
    fresh, truth = made(20_000, 20, seed=1)
    tuned, half = found.apply(fresh), fresh >= 0.5
    assert f1_score(truth, tuned, average="micro") > f1_score(truth, half, average="micro") + 0.05
    assert (
        f1_score(truth, tuned, average="macro", zero_division=0)
        > f1_score(truth, half, average="macro", zero_division=0) + 0.05
    )
    # the cross-fitted figures foretell it
    assert found.tuned.micro_f1 == pytest.approx(f1_score(truth, tuned, average="micro"), abs=0.04)
    assert found.half.micro_f1 == pytest.approx(f1_score(T, P >= 0.5, average="micro"))
    assert found.tuned.micro_f1 == pytest.approx(f1_score(T, found.chosen, average="micro"))


def test_no_threshold_beats_the_best_by_search():
    P, T = made(300, 1, rate=0.3)
    found = tune(P, T)
    best = max(f1_score(T[:, 0], P[:, 0] >= t) for t in GRID.astype(np.float32))
    assert f1_score(T[:, 0], found.apply(P)[:, 0]) == pytest.approx(best, abs=0.02)


def test_small_labels_do_not_overfit():
    """With 3 to 8 examples a label, shrunk thresholds do better on new rows than each label's own best."""
    gains = []
    for seed in range(5):
        P, T = made(150, 30, seed=seed, rate=0.06)
        found = tune(P, T, seed=seed)
        fresh, truth = made(5000, 30, seed=100 + seed, rate=0.06)
        shrunk, own = (micro(truth, t <= fresh) for t in (found.thresholds, own_best(P, T)))
        gains.append(shrunk - own)
    assert np.mean(gains) > 0.02


def test_a_label_that_differs_gets_its_own_threshold():
    P, T = made(4000, 6, rate=0.2)
    honest = tune(P, T)
    bent = P.copy()
    bent[:, 0] = bent[:, 0] ** 3  # this label's probabilities are far too low
    found = tune(bent, T)
    assert found.thresholds[0] < honest.thresholds[0] / 2
    assert found.thresholds[1:] == pytest.approx(honest.thresholds[1:], abs=0.12)
    assert found.strength < np.inf


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 1000))
def test_any_data_gives_thresholds(n, c, seed):
    rng = np.random.default_rng(seed)
    P = rng.random((n, c)).astype(np.float32)
    T = (rng.random((n, c)) < rng.random(c)).astype(np.float32)
    found = tune(P, T, top_when_none=bool(seed % 2))
    assert found.thresholds.shape == (c,)
    assert ((found.thresholds > 0) & (found.thresholds < 1)).all()
    assert found.chosen.shape == (n, c)
    assert 0 <= found.tuned.macro_f1 <= 1
    assert found.n.tolist() == T.sum(0).tolist()


def test_a_label_without_examples_stays_with_the_common_threshold():
    P, T = made(800, 5, rate=0.3)
    T[:, 0] = 0
    found = tune(P, T)
    assert 0.05 < found.thresholds[0] <= 0.99


def test_top_when_none_is_used_where_every_row_has_a_label():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, 600)
    P = np.where(rng.random(600) < 0.6, 0.3, 0.05)[:, None] * rng.uniform(0.8, 1.2, (600, 10))
    P[np.arange(600), y] = np.where(P.max(1) > 0.1, 0.9, 0.25)  # clear among noise, or faint but alone
    T = np.eye(10)[y]
    plain, filled = tune(P, T), tune(P, T, top_when_none=True)
    assert not plain.top_when_none
    assert filled.top_when_none
    assert filled.chosen.any(1).all()
    assert filled.apply(P).any(1).all()
    assert filled.tuned.micro_f1 > plain.tuned.micro_f1
    sparse_P, sparse_T = made(2000, 5, rate=0.02)
    assert not tune(sparse_P, sparse_T, top_when_none=True).top_when_none


def test_folds_and_seeds_are_repeatable():
    P, T = made(400, 6)
    fold = np.arange(400) % 4
    a, b = tune(P, T, fold=fold), tune(P, T, fold=fold)
    assert np.array_equal(a.thresholds, b.thresholds)
    assert np.array_equal(a.chosen, b.chosen)
    rows = fold == 0  # what a fold holds has no part in its own thresholds
    assert a.chosen[rows].any()
    assert (a.chosen[rows] == (_thresholds_without(P, T, fold) <= P[rows])).all()


def _thresholds_without(P, T, fold):
    from headstart.thresholds import _best, _strength, _tables

    right, wrong = _tables(P, T > 0.5, fold, 4)
    true = np.stack([T[fold == i].sum(0) for i in range(4)])
    strength = _strength(right, wrong, true, [1, 2, 3])
    return GRID[_best(right[1:].sum(0), wrong[1:].sum(0), true[1:].sum(0), strength)]
