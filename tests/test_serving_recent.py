"""Features of recent inputs: bounded by bytes, least recently used first, against a model in ten lines."""

import gc
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.serving.recent import ROW, Recent

SIZE = ROW + 4 * 4  # of a row of four float32
NAMES = st.sampled_from(["a", "b", "c"])
KEYS = st.lists(st.integers(0, 9).map(lambda i: b"%d" % i), min_size=1, max_size=5)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NAMES, KEYS),
        st.tuples(st.just("get"), NAMES, KEYS),
        st.tuples(st.just("forget"), NAMES),
    ),
    max_size=40,
)


def rows(name, keys):
    """A row for every key that says whose it is."""
    return np.array([[ord(name), int(key), 1, 2] for key in keys], np.float32)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.integers(0, 8))
def test_it_holds_what_a_simple_model_holds(steps, room):
    recent, model = Recent(room * SIZE + 7), {}  # the model: a dict in order of use
    hits = misses = 0
    for step, name, *keys in steps:
        if step == "forget":
            recent.forget(name)
            model = {at: row for at, row in model.items() if at[0] != name}
        elif step == "put":
            recent.put(name, keys[0], rows(name, keys[0]))
            for key, row in zip(keys[0], rows(name, keys[0]), strict=True):
                model.pop((name, key), None)
                model[name, key] = row
            while len(model) > room:
                del model[next(iter(model))]
        else:
            for key, row in zip(keys[0], recent.get(name, keys[0]), strict=True):
                expected = model.pop((name, key), None)
                hits, misses = hits + (expected is not None), misses + (expected is None)
                if expected is None:
                    assert row is None
                else:
                    model[name, key] = expected
                    np.testing.assert_array_equal(row, expected)
        assert recent.bytes == len(model) * SIZE <= recent.limit
        assert (recent.hits, recent.misses) == (hits, misses)
    for name in "abc":
        there = [row is not None for row in recent.get(name, [b"%d" % i for i in range(10)])]
        assert there == [(name, b"%d" % i) in model for i in range(10)]


def test_what_was_used_longest_ago_goes_first():
    recent = Recent(3 * SIZE)
    recent.put("a", [b"1", b"2"], rows("a", [b"1", b"2"]))
    recent.put("b", [b"1"], rows("b", [b"1"]))
    recent.get("a", [b"1"])
    recent.put("b", [b"2"], rows("b", [b"2"]))
    assert [row is None for row in recent.get("a", [b"1", b"2"])] == [False, True]
    recent.put("a", [b"3"], rows("a", [b"3"]))
    assert [row is None for row in recent.get("b", [b"1", b"2"])] == [True, False]


def test_a_row_holds_no_batch_and_cannot_be_written():
    recent, X = Recent(1 << 20), np.ones((1000, 8), np.float32)
    batch = weakref.ref(X)
    recent.put("a", [b"%d" % i for i in range(1000)], X)
    X[:] = 2
    del X
    gc.collect()
    assert batch() is None
    [row] = recent.get("a", [b"7"])
    assert row.base is None
    assert row.tolist() == [1] * 8
    with pytest.raises(ValueError, match="read-only"):
        row[0] = 3


def test_a_limit_of_nothing_keeps_nothing():
    recent = Recent(0)
    recent.put("a", [b"1"], np.ones((1, 4), np.float32))
    assert recent.get("a", [b"1", b"2"]) == [None, None]
    assert (recent.bytes, recent.hits, recent.misses) == (0, 0, 2)


def test_a_row_that_is_larger_than_everything_drives_nobody_out():
    recent = Recent(3 * SIZE)
    recent.put("a", [b"1"], rows("a", [b"1"]))
    recent.put("b", [b"1"], np.ones((1, 10_000), np.float32))
    assert recent.get("a", [b"1"])[0] is not None
    assert recent.get("b", [b"1"]) == [None]


def test_a_key_for_every_row():
    with pytest.raises(ValueError, match="zip"):
        Recent(1 << 20).put("a", [b"1"], np.ones((2, 4), np.float32))


def test_what_is_forgotten_is_freed():
    recent = Recent(1 << 20)
    recent.put("a", [b"1"], rows("a", [b"1"]))
    row = weakref.ref(recent.get("a", [b"1"])[0])
    assert row() is not None
    recent.forget("a")
    recent.forget("never seen")
    assert row() is None
    assert recent.bytes == 0


def test_many_threads_keep_its_books_right():
    recent, faults = Recent(20 * SIZE), []

    def work(name):
        try:
            for i in range(300):
                keys = [b"%d" % (i + j) for j in range(5)]
                recent.put(name, keys, rows(name, keys))
                for key, row in zip(keys, recent.get(name, keys), strict=True):
                    assert row is None or row.tolist() == rows(name, [key])[0].tolist()
                if i % 50 == 0:
                    recent.forget(name)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abca"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert recent.bytes <= recent.limit
    assert recent.hits + recent.misses == 4 * 300 * 5
    for name in "abc":
        recent.forget(name)
    assert recent.bytes == 0
