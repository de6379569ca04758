import gc
import threading

import numpy as np
import pytest

from headstart.unitrows import Pool, Rows, _rows, unit


class Owner:
    pass


def references(r=10, d=8, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(r, d))).astype(np.float16)


@pytest.mark.parametrize("shape", [(1, 1), (3, 384), (500, 40), (20_000, 2), (2, 70_000)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_are_those_of_numpy_bit_for_bit(shape, dtype):
    X = np.random.default_rng(0).normal(size=shape).astype(dtype)
    X[0] = 0
    assert np.array_equal(_rows(X), unit(X))


def test_every_finite_half_number_is_made_whole():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)]
    X = np.stack([every, np.ones_like(every)], axis=1)
    assert np.array_equal(_rows(X), unit(X))
    assert np.array_equal(np.signbit(_rows(X)), np.signbit(unit(X)))


def test_rows_are_made_once():
    pool, owner, kept = Pool(1 << 20), Owner(), references()
    whole = pool.rows(owner, kept)
    assert pool.rows(owner, kept) is whole
    assert pool.size == whole.rows.nbytes
    np.testing.assert_array_equal(whole.rows, unit(kept))


@pytest.mark.parametrize("r", [4, 9, 600])
def test_the_neighbourhood_never_promises_more_than_there_is(r):
    rng = np.random.default_rng(r)
    rows = Rows(unit(rng.normal(size=(r, 8))))
    U = np.concatenate([unit(rng.normal(size=(40, 8))), rows.rows[:4]])
    best = np.sort(U @ rows.rows.T, axis=1)[:, -2:]
    first = np.sort(rows.near(U, 2), axis=1)
    np.testing.assert_allclose(first, best, atol=1e-6)  # all are looked at
    found = np.sort(rows.near(U, 2), axis=1)
    assert (found <= best + 1e-6).all()
    assert (found > best - 1e-6).mean() > 0.4  # and often it is what there is
    np.testing.assert_allclose(found[40:, 1], 1, atol=1e-5)  # a row finds itself


def test_memory_is_bounded_whatever_is_asked():
    pool, owners, kept = Pool(1000), [Owner() for _ in range(200)], references()  # 320 bytes each
    for owner in owners:
        pool.rows(owner, kept)
        assert pool.size <= 1000
    assert len(pool._kept) == 3
    large = references(100)
    for _ in range(100):  # what is larger than all is kept alone, in time
        np.testing.assert_array_equal(pool.rows(owners[0], large).rows, unit(large))
    assert list(pool._kept) == [id(owners[0])]


def test_asking_more_in_turn_than_there_is_room_for_leaves_most_of_them_there():
    pool, owners = Pool(320 * 80), [Owner() for _ in range(100)]
    misses = 0

    class Counted:
        def __getitem__(self, rows):
            nonlocal misses
            misses += 1
            return references()[rows]

    for _ in range(20):
        for owner in owners:
            pool.rows(owner, Counted())
    assert misses < 1200  # of 2,000; the least recently used alone would miss them all


def test_rows_vanish_with_their_owner():
    pool, owner = Pool(1 << 20), Owner()
    pool.rows(owner, references())
    del owner
    gc.collect()
    assert (pool.size, len(pool._kept)) == (0, 0)


def test_many_threads():
    pool, owners, faults = Pool(3000), [Owner() for _ in range(20)], []
    truth = [unit(references(seed=i)) for i in range(20)]

    def ask(seed):
        rng = np.random.default_rng(seed)
        for i in rng.integers(0, 20, 300):
            if not np.array_equal(pool.rows(owners[i], references(seed=i)).rows, truth[i]):
                faults.append(i)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert pool.size == sum(one.rows.nbytes for _, one in pool._kept.values()) <= 3000
