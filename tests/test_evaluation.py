import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from headstart import evaluation
from headstart.evaluation import (
    compare,
    interval,
    proportion,
    report_classification,
    report_multilabel,
    report_regression,
    wilson,
)
from headstart.evaluation.intervals import _t

names = [str(i) for i in range(100)]


@given(
    st.integers(2, 6).flatmap(
        lambda c: st.lists(st.tuples(st.integers(0, c - 1), st.integers(0, c - 1)), min_size=1, max_size=80)
    )
)
@settings(max_examples=60, deadline=None)
def test_figures_are_those_of_scikit_learn(pairs):
    y, p = np.array(pairs).T
    c = 6
    found = report_classification(y, p, names[:c])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        precision, recall, f1, n = metrics.precision_recall_fscore_support(y, p, labels=range(c), zero_division=0)
        macro = metrics.f1_score(y, p, average="macro", zero_division=0)
    rows = found["per_class"]
    assert np.allclose([r["precision"] for r in rows], precision)
    assert np.allclose([r["recall"] for r in rows], recall)
    assert np.allclose([r["f1"] for r in rows], f1)
    assert [r["n"] for r in rows] == n.tolist()
    assert found["confusion"]["counts"] == metrics.confusion_matrix(y, p, labels=range(c)).tolist()
    estimate = found["estimate"]
    assert estimate["accuracy"] == pytest.approx((y == p).mean()) == evaluation.accuracy(y, p)
    assert estimate["macro_f1"] == pytest.approx(macro)
    assert 0 <= estimate["low"] <= estimate["accuracy"] <= estimate["high"] <= 1
    assert estimate["macro_f1_low"] <= estimate["macro_f1"] <= estimate["macro_f1_high"]
    assert all(0 <= r["f1_low"] <= r["f1"] + 1e-12 and r["f1"] <= r["f1_high"] + 1e-12 for r in rows)


def test_multilabel_figures_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    T = (rng.random((300, 8)) < 0.2).astype(np.float32)
    P = np.clip(0.5 * T + 0.6 * rng.random(T.shape), 0, 1)
    T[0], P[1] = np.nan, np.nan
    found = report_multilabel(T, P, names[:8], chosen=P > 0.6)
    truth, said = T[2:] > 0.5, P[2:] > 0.6
    estimate = found["estimate"]
    assert estimate["n"] == 298
    assert estimate["accuracy"] == pytest.approx(metrics.accuracy_score(truth, said))
    assert estimate["micro_f1"] == pytest.approx(metrics.f1_score(truth, said, average="micro"))
    assert estimate["macro_f1"] == pytest.approx(metrics.f1_score(truth, said, average="macro"))
    assert estimate["at_half"]["macro_f1"] == pytest.approx(metrics.f1_score(truth, P[2:] >= 0.5, average="macro"))
    assert estimate["micro_f1_low"] < estimate["micro_f1"] < estimate["micro_f1_high"]
    assert [r["f1"] for r in found["per_class"]] == pytest.approx(metrics.f1_score(truth, said, average=None).tolist())
    assert found["confusion"] is None


def test_regression_figures_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    y = rng.normal(10, 3, 700)
    p = y + rng.normal(0, 1, 700)
    y[0], p[1] = np.nan, np.nan
    found = report_regression(y, p)
    estimate = found["estimate"]
    assert estimate["r2"] == pytest.approx(metrics.r2_score(y[2:], p[2:]))
    assert estimate["mae"] == pytest.approx(metrics.mean_absolute_error(y[2:], p[2:]))
    assert estimate["rmse"] == pytest.approx(metrics.root_mean_squared_error(y[2:], p[2:]))
    assert estimate["baseline_mae"] == pytest.approx(np.abs(y[2:] - np.median(y[2:])).mean())
    assert estimate["low"] < estimate["r2"] < estimate["high"]
    assert len(found["scatter"]) == 500
    assert all(pair in list(zip(y, p, strict=True)) for pair in map(tuple, found["scatter"][:20]))
    assert report_regression(np.ones(5), np.ones(5))["estimate"]["r2"] == 0


def test_untested_rows_are_left_out_and_repeats_averaged():
    y = np.array([0, 1, 1, -1, 0])
    P = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.5, 0.5], [np.nan, np.nan]])
    found = report_classification(y, P, ["a", "b"])
    assert found["estimate"]["n"] == 3
    assert found["confusion"]["counts"] == [[1, 0], [1, 1]]
    assert found["confused"] == [{"true": "b", "predicted": "a", "count": 1}]
    both = report_classification(np.array([0, 1]), np.array([[0, 1], [1, -1]]), ["a", "b"])
    assert both["estimate"]["accuracy"] == pytest.approx(0.75)  # row 0 right in one of two, row 1 tested once
    assert both["confusion"]["counts"] == [[0.5, 0.5], [0, 1]]
    with pytest.raises(ValueError, match="Nothing was tested"):
        report_classification(np.array([-1]), np.array([0]), ["a", "b"])


def test_answers_are_plain_numbers():
    y = np.arange(20) % 2
    found = report_classification(y, y, ["a", "b"])
    kinds = {type(v) for row in [found["estimate"], *found["per_class"]] for v in row.values()}
    assert kinds <= {int, float, str}


def binomial(n, p):
    """All outcomes of n tosses and their probabilities."""
    x = np.arange(n + 1)
    factorial = np.concatenate([[0], np.cumsum(np.log(np.arange(1, n + 1)))])
    return x, np.exp(factorial[n] - factorial - factorial[::-1] + x * np.log(p) + (n - x) * np.log(1 - p))


@pytest.mark.parametrize("n", [20, 22, 37, 54, 100, 333, 1000])
def test_wilson_covers(n):
    bounds = np.array([wilson(x / n, n) for x in range(n + 1)])
    for p in np.linspace(0.5, 0.99, 50):
        _, mass = binomial(n, p)
        assert mass[(bounds[:, 0] <= p) & (p <= bounds[:, 1])].sum() >= 0.93


def test_all_right_is_not_certain():
    share = proportion(np.ones(20))
    assert (share.value, share.high) == (1.0, 1.0)
    assert 0.75 < share.low < 0.87
    assert proportion(np.zeros(0)).low == 0
    assert proportion(np.zeros(0)).high == 1
    perfect = report_classification(np.arange(20) % 4, np.arange(20) % 4, names[:4])
    assert perfect["estimate"]["macro_f1_low"] < 0.9
    assert perfect["per_class"][0]["f1_low"] < 0.8


@pytest.mark.parametrize(("groups", "size", "p"), [(15, 10, 0.8), (40, 5, 0.9), (100, 3, 0.95), (200, 2, 0.5)])
def test_groups_widen_and_cover(groups, size, p):
    rng = np.random.default_rng(0)
    code = np.repeat(np.arange(groups), size)
    hit, alone, runs = 0, 0, 300
    for _ in range(runs):
        of_group = rng.beta(p * 1.5, (1 - p) * 1.5, groups)
        right = rng.random(groups * size) < of_group[code]
        share, naive = proportion(right, groups=code), proportion(right)
        hit += share.low <= p <= share.high
        alone += naive.low <= p <= naive.high
    assert hit / runs >= 0.92
    assert size < 3 or alone / runs < hit / runs


def test_identical_groups_count_once():
    rng = np.random.default_rng(0)
    once = rng.random(100) < 0.8
    code = np.repeat(np.arange(100), 10)
    share = proportion(np.repeat(once, 10), groups=code)
    assert share.n == pytest.approx(100, rel=0.02)
    assert share.value == pytest.approx(once.mean())


def test_macro_f1_covers():
    rng = np.random.default_rng(0)
    rates = np.array([0.5, 0.3, 0.15, 0.05])
    hard = np.array([[0.95, 0.03, 0.01, 0.01], [0.05, 0.9, 0.03, 0.02], [0.1, 0.1, 0.75, 0.05], [0.1, 0.1, 0.1, 0.7]])

    def draw(n):
        y = rng.choice(4, n, p=rates)
        return y, (rng.random((n, 1)) > hard[y].cumsum(1)).sum(1)

    y, p = draw(400_000)
    truth = metrics.f1_score(y, p, average="macro")
    each = metrics.f1_score(y, p, average=None)
    hit, of_class = [], []
    for _ in range(150):
        y, p = draw(150)
        found = report_classification(y, p, names[:4])
        hit.append(found["estimate"]["macro_f1_low"] <= truth <= found["estimate"]["macro_f1_high"])
        of_class.append([r["f1_low"] <= f <= r["f1_high"] for r, f in zip(found["per_class"], each, strict=True)])
    assert np.mean(hit) >= 0.93
    assert np.mean(of_class, 0).min() >= 0.92


def test_bootstrap_of_a_mean_is_the_textbook_interval():
    x = np.random.default_rng(0).normal(5, 2, 500)
    sums = np.stack([x, np.ones(500)], 1)
    low, high = interval(lambda t: t[:, 0] / t[:, 1], sums, draws=4000)
    half = 1.965 * x.std(ddof=1) / np.sqrt(500)
    assert low == pytest.approx(x.mean() - half, abs=0.02)
    assert high == pytest.approx(x.mean() + half, abs=0.02)


def test_blocks_keep_groups_whole_and_variance():
    groups = np.random.default_rng(0).integers(0, 5000, 20_000)
    code = evaluation.blocks(20_000, groups=groups)
    assert len(np.unique(code)) == 2000
    assert all(len(np.unique(code[groups == g])) == 1 for g in range(50))
    x = np.random.default_rng(1).random(20_000) < 0.9
    code = evaluation.blocks(20_000)
    sums = np.stack([np.bincount(code, x), np.bincount(code)], 1)
    low, high = interval(lambda t: t[:, 0] / t[:, 1], sums)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.09 / 20_000), rel=0.1)


def test_students_t():
    for df, quantile in ((1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962)):
        assert _t(df) == pytest.approx(quantile, rel=0.01)


@pytest.mark.parametrize(("n", "flip"), [(30, 0.1), (100, 0.05), (500, 0.1)])
def test_compare_covers_the_true_difference(n, flip):
    rng = np.random.default_rng(0)
    hit = 0
    for _ in range(500):
        a = rng.random(n) < 0.9
        b = np.where(rng.random(n) < flip, ~a, a)  # 0.9 - flip * 0.8
        found = compare(a, b)
        hit += found.low <= 0.8 * flip <= found.high
    assert hit / 500 >= 0.93


def test_compare_is_the_interval_of_bonett_and_price():
    a, b = np.ones(40), np.ones(40)
    b[0] = 0
    one, other = (1 + 1) / 42, (0 + 1) / 42  # disagreements either way, one added to each
    half = 1.959964 * np.sqrt((one + other - (one - other) ** 2) / 42)
    found = compare(a, b)
    assert found.difference == pytest.approx(1 / 40)
    assert (found.low, found.high) == pytest.approx((one - other - half, one - other + half))


def test_compare_says_when_data_are_too_few():
    a, b = np.ones(40), np.ones(40)
    b[0] = 0
    few = compare(a, b, names=("linear", "centroid"))
    assert few.tie
    assert "40 examples are too few to tell linear and centroid apart" in few.says
    clear = compare(np.ones(400), np.arange(400) % 5 > 0, names=("linear", "centroid"))
    assert not clear.tie
    assert clear.difference == pytest.approx(0.2)
    assert clear.says.startswith("linear is 20.0 points better than centroid")
    assert compare(np.arange(400) % 5 > 0, np.ones(400), names=("a", "b")).says.startswith("b is 20.0 points better")
    assert compare(a, a).tie
    assert compare(np.zeros(0), np.zeros(0)).tie


def test_copies_do_not_make_a_comparison_clearer():
    rng = np.random.default_rng(0)
    a, b = rng.random(60) < 0.9, rng.random(60) < 0.8
    once, copied = compare(a, b), compare(np.repeat(a, 8), np.repeat(b, 8), groups=np.repeat(np.arange(60), 8))
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.05)


def test_is_fast():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 77, 10_003)
    p = np.where(rng.random(10_003) < 0.93, y, rng.integers(0, 77, 10_003))
    start = time.process_time()
    report_classification(y, p, names[:77])
    assert time.process_time() - start < 0.5
