import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss

from headstart.calibration import Calibration, calibrate, calibrate_multilabel, expected_error, isotonic, temperature


def overconfident(n, c, slope, seed=0):
    """Scores (n, c) whose true probabilities are softmax(scores / slope), and labels drawn from them."""
    rng = np.random.default_rng(seed)
    S = rng.normal(0, 1.5, (n, c)).astype(np.float32)
    E = np.exp(S)
    y = (rng.random((n, 1)) > (E / E.sum(1, keepdims=True)).cumsum(1)).sum(1).clip(0, c - 1)
    return S * slope, y


@pytest.mark.parametrize("slope", [0.2, 1.0, 5.0])
def test_temperature_finds_the_slope(slope):
    S, y = overconfident(20_000, 5, slope)
    assert temperature(S, y) == pytest.approx(1 / slope, rel=0.05)


def test_temperature_is_at_the_minimum():
    S, y = overconfident(400, 4, 3.0)
    best = temperature(S.astype(np.float64), y)

    def loss(slope):
        E = np.exp(S.astype(np.float64) * slope)
        return log_loss(y, E / E.sum(1, keepdims=True), labels=range(4))

    assert all(loss(best) <= loss(best * factor) + 1e-9 for factor in (0.8, 0.95, 1.05, 1.25))


def test_temperature_stays_finite_when_all_is_right_or_wrong():
    S = np.eye(3, dtype=np.float32)[np.arange(30) % 3]
    for y in (np.arange(30) % 3, (np.arange(30) + 1) % 3):
        assert 0 < temperature(S, y) < 1000
    assert temperature(np.zeros((5, 3), np.float32), np.zeros(5, int)) > 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 5)), min_size=1, max_size=60))
def test_isotonic_is_that_of_scikit_learn(points):
    value, weight = np.array(points).T
    x = np.arange(len(value), dtype=float)
    expected = IsotonicRegression().fit_transform(x, value, sample_weight=weight)
    assert np.allclose(isotonic(x, value * weight, weight), expected, atol=1e-6)


def test_isotonic_wants_order():
    with pytest.raises(ValueError, match="rising order"):
        isotonic(np.array([1.0, 0.0]), np.ones(2), np.ones(2))


def test_temperature_is_chosen_and_mends_overconfidence():
    S, y = overconfident(3000, 6, 4.0)
    calibration, found = calibrate(S, y)
    assert found.method == calibration.method == "temperature"
    assert found.ece_before > 0.15
    assert found.ece_after < 0.05
    fresh, truth = overconfident(20_000, 6, 4.0, seed=1)
    P = calibration.apply(fresh)
    assert expected_error(P.max(1), P.argmax(1) == truth) < 0.02
    assert sum(row["n"] for row in found.bins) == 3000
    assert len(found.bins) == 15
    assert found.facts()["method"] == "temperature"


def test_isotonic_is_chosen_where_no_temperature_fits():
    rng = np.random.default_rng(0)
    S, y = overconfident(8000, 3, 1.0)
    S = 3 * S
    y = S.argmax(1)
    y = np.where(rng.random(8000) < 0.3, rng.integers(0, 3, 8000), y)  # sure or not, 80 % are right
    S[:, :] += rng.normal(0, 1, S.shape)
    calibration, found = calibrate(S, y)
    assert found.method == calibration.method == "isotonic"
    assert found.ece_after < 0.03 < found.ece_before
    assert found.loss["isotonic"] < found.loss["temperature"] < found.loss["none"]


def test_nothing_is_fitted_to_few_or_to_good_scores():
    S, y = overconfident(15, 3, 4.0)
    assert calibrate(S, y)[0].method == "none"
    S, y = overconfident(2000, 3, 1.0)
    assert calibrate(S, y)[0].method == "none"
    empty = calibrate(np.zeros((0, 3)), np.zeros(0, int))
    assert empty[0].method == "none"
    assert empty[1].ece_after == 0


def test_unlabelled_and_untested_rows_are_left_out():
    S, y = overconfident(500, 3, 4.0)
    y[:20] = -1
    S[20:40] = np.nan
    fold = np.arange(500) % 5
    whole = calibrate(S, y, fold=fold)
    part = calibrate(S[40:], y[40:], fold=fold[40:])
    assert whole[0].slope == pytest.approx(part[0].slope)
    assert whole[1] == part[1]


@settings(max_examples=80, deadline=None)
@given(arrays.arrays(np.float32, (7, 4), elements=st.floats(-(2.0**40), 2.0**40, width=32)))
def test_probabilities_are_probabilities_and_the_likeliest_label_stays(S):
    scores, y = overconfident(1000, 4, 3.0)
    for method in ("none", "temperature", "isotonic"):
        fitted = _fitted(method, scores, y)
        P = fitted.apply(S)
        assert P.dtype == np.float32
        assert (P > 0).all()
        assert (P < 1).all()
        assert np.allclose(P.sum(1), 1, atol=1e-5)
        for row, p in zip(S, P, strict=True):
            assert p[row.argmax()] >= p.max() - 1e-6


def _fitted(method, scores, y):
    from headstart.calibration import _fit

    return _fit(method, scores, y, temperature(scores, y))


def several(n, c, seed=0, slope=3.0, shift=1.0):
    rng = np.random.default_rng(seed)
    z = rng.normal(-2, 1.5, (n, c))
    T = (rng.random((n, c)) < 1 / (1 + np.exp(-z))).astype(np.float32)
    return (slope * (z - shift * np.arange(c) / c)).astype(np.float32), T


def test_platt_mends_each_label():
    S, T = several(4000, 6)
    calibration, found = calibrate_multilabel(S, T)
    assert calibration.method == "platt"
    assert calibration.slope.shape == (6,)
    assert found.ece_after < found.ece_before / 3
    fresh, truth = several(20_000, 6, seed=1)
    P = calibration.apply(fresh)
    for j in range(6):
        assert expected_error(P[:, j], truth[:, j] > 0.5) < 0.02


def test_platt_draws_rare_labels_to_the_others():
    S, T = several(600, 8, shift=0.0)
    T[:, 7] = 0
    T[np.argsort(-S[:, 7])[:2], 7] = 1
    from headstart.calibration import _fit_several

    calibration = _fit_several("platt", S, T)
    assert np.isfinite(calibration.slope).all()
    assert calibration.slope[:7] == pytest.approx(1 / 3, rel=0.35)
    assert 0.1 < calibration.slope[7] < 0.45
    assert -4 < calibration.shift[7] < -1  # alone it would be 0.6 and -5.2


def test_several_labels_with_few_rows_or_gaps():
    S, T = several(10, 3)
    assert calibrate_multilabel(S, T)[0].method == "none"
    S, T = several(300, 3)
    T[0] = np.nan
    S[1] = np.nan
    calibration, found = calibrate_multilabel(S, T)
    assert sum(row["n"] for row in found.bins) == 298 * 3
    P = calibration.apply(S[2:])
    assert ((P > 0) & (P < 1)).all()


def test_arrays_bring_it_back():
    S, y = overconfident(3000, 4, 3.0)
    for fitted in (
        Calibration(),
        _fitted("temperature", S, y),
        _fitted("isotonic", S, y),
        calibrate_multilabel(*several(500, 3))[0],
    ):
        again = Calibration.from_arrays(fitted.arrays())
        rows = S[:50, : max(3, len(fitted.slope))] if fitted.several else S[:50]
        rows = rows[:, :3] if fitted.several else rows
        assert np.array_equal(again.apply(rows), fitted.apply(rows))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", np.array([9, 0])),
        ("kind", np.array([0])),
        ("slope", np.array([np.nan])),
        ("slope", np.array([-1.0])),
        ("shift", np.array([0.0, 0.0])),
        ("knots", np.zeros((3, 2))),
        ("knots", np.array([[0.0, 1.0], [1.0, 0.5]])),
    ],
)
def test_damaged_arrays_are_refused(name, value):
    S, y = overconfident(1000, 3, 3.0)
    good = _fitted("isotonic", S, y).arrays()
    with pytest.raises(ValueError, match="calibration"):
        Calibration.from_arrays({**good, name: value})
    del good[name]
    with pytest.raises(ValueError, match="lacks"):
        Calibration.from_arrays(good)


def test_expected_error_of_a_known_case():
    confidence, right = np.full(100, 0.9), np.arange(100) < 70
    assert expected_error(confidence, right, bins=1) == pytest.approx(0.2)
    assert expected_error(np.zeros(0), np.zeros(0, bool)) == 0
