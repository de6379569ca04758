import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.folds import folds, overlap, split, tied


def components(columns, n):
    """Union-find, one row at a time: the plain way."""
    parent = list(range(n))

    def root(i):
        while parent[i] != i:
            i = parent[i]
        return i

    for column in columns:
        first = {}
        for i, value in enumerate(column):
            if value is not None:
                parent[root(i)] = root(first.setdefault(value, i))
    seen = {}
    return [seen.setdefault(root(i), len(seen)) for i in range(n)]


@given(
    st.integers(1, 40).flatmap(
        lambda n: st.lists(st.lists(st.integers(-1, 12), min_size=n, max_size=n), min_size=1, max_size=3)
    )
)
def test_tied_is_union_find(columns):
    found = tied(*(np.array(column) for column in columns))
    plain = components([[None if v < 0 else v for v in column] for column in columns], len(columns[0]))
    assert found.tolist() == plain


def test_tied_joins_duplicates_and_groups():
    keys = np.array([[1, 1], [2, 2], [1, 1], [1, 2], [2, 2]], np.uint64)
    assert tied(keys=keys).tolist() == [0, 1, 0, 2, 1]
    assert tied(np.array([7, -1, -1, 7, -1]), keys=keys).tolist() == [0, 1, 0, 0, 1]
    assert tied(np.array(["a", "b", "a"])).tolist() == [0, 1, 0]
    assert tied(np.zeros(0, int)).tolist() == []


def test_tied_follows_a_long_chain_fast():
    n = 200_001
    shuffled = np.random.default_rng(0).permutation(n)
    start = time.perf_counter()
    assert tied((np.arange(n) // 2)[shuffled], ((np.arange(n) + 1) // 2)[shuffled]).max() == 0
    assert time.perf_counter() - start < 3


def test_tied_refuses_what_it_cannot_number():
    with pytest.raises(ValueError, match="differ in length"):
        tied(np.zeros(3, int), np.zeros(4, int))
    with pytest.raises(ValueError, match="needs a column"):
        tied()


labels = st.lists(st.integers(-1, 6), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(labels, st.integers(2, 7), st.integers(0, 3), st.data())
def test_groups_stay_together_and_no_label_is_unseen(y, k, seed, data):
    y = np.array(y)
    groups = np.array(data.draw(st.lists(st.integers(0, 20), min_size=len(y), max_size=len(y))))
    for fold in folds(y, k=k, repeats=2, groups=groups, seed=seed):
        assert (fold[y < 0] == -1).all()
        for group in np.unique(groups):
            assert len(set(fold[(groups == group) & (y >= 0)])) <= 1
        for part in range(k):
            assert set(y[fold == part]) <= set(y[(fold != part) & (y >= 0)])
    test = split(y, 0.3, groups=groups, seed=seed)
    assert set(y[test]) <= set(y[~test & (y >= 0)])
    assert not (test & (y < 0)).any()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=10, max_size=200), st.integers(2, 6), st.integers(0, 5))
def test_labels_are_spread_to_within_one(y, k, seed):
    y = np.array(y)
    fold = folds(y, k=k, seed=seed)[0]
    for label in np.unique(y):
        sizes = np.bincount(fold[(y == label) & (fold >= 0)], minlength=k)
        if (y == label).sum() == 1:
            assert (fold[y == label] == -1).all()
        else:
            assert sizes.sum() == (y == label).sum()
            assert sizes.max() - sizes.min() <= 1
    assert np.ptp(np.bincount(fold[fold >= 0], minlength=k)) <= 1 + (fold < 0).sum()


def test_a_few_examples_lower_k_but_small_classes_do_not():
    assert folds(np.array([0, 0, 1, 1]), k=5)[0].max() <= 3
    y = np.repeat(np.arange(3), [2, 40, 40])
    fold = folds(y)[0]
    assert fold.max() == 4
    assert len(set(fold[:2])) == 2


def test_repeats_and_seeds_differ_and_are_repeatable():
    y = np.repeat(np.arange(4), 10)
    many = folds(y, repeats=3, seed=1)
    assert many.shape == (3, 40)
    assert many.dtype == np.int8
    assert (many[0] != many[1]).any()
    assert np.array_equal(many, folds(y, repeats=3, seed=1))
    assert not np.array_equal(many, folds(y, repeats=3, seed=2))


def test_several_labels_spread_the_rare_ones():
    rng = np.random.default_rng(0)
    T = (rng.random((1000, 12)) < np.linspace(0.005, 0.4, 12)).astype(np.float32)
    T[3] = np.nan
    fold = folds(T)[0]
    assert fold[3] == -1
    rarest = int(np.nansum(T, 0).argmin())
    sizes = np.bincount(fold[(T[:, rarest] == 1) & (fold >= 0)], minlength=5)
    assert sizes.max() - sizes.min() <= 1
    for j in range(12):
        share = [np.nanmean(T[fold == f, j]) for f in range(5)]
        assert np.ptp(share) < 0.06


def test_numbers_are_spread_over_their_range():
    y = np.random.default_rng(0).lognormal(size=1003).astype(np.float32)
    y[7] = np.nan
    fold = folds(y[:, None])[0]
    assert fold[7] == -1
    medians = [np.median(y[fold == f]) for f in range(5)]
    assert np.ptp(medians) < 0.1
    assert np.ptp(np.bincount(fold[fold >= 0])) <= 1


def test_sizes_of_groups_are_balanced():
    groups = np.repeat(np.arange(200), np.random.default_rng(0).integers(1, 60, 200))
    y = groups % 3
    fold = folds(y, groups=groups)[0]
    sizes = np.bincount(fold[fold >= 0])
    assert np.ptp(sizes) < 0.05 * len(y)


@given(st.floats(0.05, 0.9), st.integers(0, 9))
def test_split_takes_its_share_of_each_label(share, seed):
    y = np.repeat(np.arange(5), [10, 20, 30, 40, 100])
    test = split(y, share, seed=seed)
    for label in range(5):
        assert abs(test[y == label].sum() - share * (y == label).sum()) <= 1


def test_bad_shares_and_ks_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        split(np.zeros(5, int), 1.0)
    with pytest.raises(ValueError, match="2 to 127"):
        folds(np.zeros(5, int), k=1)


def test_overlap_finds_equal_content():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 2**63, (500, 2), dtype=np.uint64)
    b = np.concatenate([rng.integers(0, 2**63, (5, 2), dtype=np.uint64), a[[3, 99]], a[[3]]])
    assert overlap(a, b).tolist() == [5, 6, 7]
    half = a.copy()
    half[:, 1] += 1
    assert overlap(a, half).tolist() == []


def test_is_fast():
    rng = np.random.default_rng(0)
    y, keys = rng.integers(0, 77, 10_000), rng.integers(0, 200_000, (10_000, 1)).repeat(2, 1).astype(np.uint64)
    times = []
    for _ in range(3):
        start = time.process_time()
        folds(y, repeats=3, groups=tied(keys=keys))
        times.append(time.process_time() - start)
    assert min(times) < 0.1
