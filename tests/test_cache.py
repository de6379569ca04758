"""The feature cache: what is read is what was written, whatever is killed, torn, flipped, deleted or full."""

import errno
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart import rowcache
from headstart.errors import StorageError
from headstart.rowcache import HEADER, RECORD, Cache, sums

WIDTH = 6


def key(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 2**64, 2, dtype=np.uint64)


def keys(numbers) -> np.ndarray:
    return np.array([key(i) for i in numbers], np.uint64).reshape(-1, 2)


def value(i: int, width: int = WIDTH) -> np.ndarray:
    """The row that belongs to key(i)."""
    return np.random.default_rng([7, i]).standard_normal(width).astype(np.float32)


def values(numbers, width: int = WIDTH) -> np.ndarray:
    return np.array([value(i, width) for i in numbers], np.float32).reshape(-1, width)


def read(table, numbers):
    """Numbers whose rows are there and sound; each must be the right row."""
    positions = table.find(keys(numbers))
    there = np.flatnonzero(positions >= 0)
    out = np.full((len(positions), table.width), np.nan, np.float32)
    sound = table.gather(positions[there], out, there)
    found = [numbers[i] for i in there[sound]]
    np.testing.assert_array_equal(out[there[sound]], values(found, table.width))
    return set(found)


@pytest.fixture
def table(tmp_path):
    return Cache(tmp_path).table("fingerprint", WIDTH)


def again(table):
    """The same table as another process sees it."""
    return Cache(table.keys_path.parent.parent.parent).table("fingerprint", table.width)


def test_nothing_is_made_before_something_is_written(tmp_path):
    cache = Cache(tmp_path / "absent")
    assert (cache.table("f", 3).find(keys(range(4))) == -1).all()
    assert cache.size() == 0
    assert cache.clear() == 0
    assert not (tmp_path / "absent").exists()


def test_rows_come_back(table):
    table.append(keys(range(10)), values(range(10)))
    assert read(table, list(range(12))) == set(range(10))
    assert read(again(table), [11, 3, 3, 0]) == {3, 0}


def test_size_and_clear(tmp_path, table):
    table.append(keys(range(10)), values(range(10)))
    cache = Cache(tmp_path)
    assert cache.size() == HEADER + 10 * (RECORD.itemsize + 4 * WIDTH)
    assert cache.clear() == HEADER + 10 * (RECORD.itemsize + 4 * WIDTH)
    assert cache.size() == 0
    assert read(table, [1, 2]) == set()


def test_states_are_counted_and_cleared_too(tmp_path, table):
    """Kept states lie beside the features; either may be there without the other."""
    states = tmp_path / "states" / "a" / "values"
    states.parent.mkdir(parents=True)
    states.write_bytes(bytes(1000))
    (tmp_path / "backbones").mkdir()
    (tmp_path / "backbones" / "kept").write_bytes(bytes(10))
    cache = Cache(tmp_path)
    assert cache.size() == cache.clear() == 1000
    assert not (tmp_path / "states").exists()
    table.append(keys([1]), values([1]))
    states.parent.mkdir(parents=True)
    states.write_bytes(bytes(1000))
    assert cache.clear() == 1000 + HEADER + RECORD.itemsize + 4 * WIDTH
    assert (cache.size(), cache.clear()) == (0, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["backbones"]


def test_a_view_is_the_file_itself(table):
    table.append(keys(range(20)), values(range(20)))
    view = table.view(table.find(keys(range(5, 12))))
    assert isinstance(view, np.memmap)
    assert not view.flags.writeable
    np.testing.assert_array_equal(view, values(range(5, 12)))
    assert table.view(table.find(keys([3, 5]))) is None
    assert table.view(table.find(keys([3, 99]))) is None
    content = bytearray(table.values_path.read_bytes())
    content[4 * WIDTH * 11 + 3] ^= 1
    table.values_path.write_bytes(content)
    assert table.view(table.find(keys(range(5, 12)))) is None
    assert table.view(table.find(keys(range(5, 11)))) is not None


def test_the_newest_of_equal_keys_is_read(table):
    table.append(keys([1, 2]), values([8, 9]))
    table.append(keys([2, 1, 1]), values([5, 6, 1]))
    positions = again(table).find(keys([1, 2]))
    assert positions.tolist() == [4, 2]


def test_keys_that_share_a_half_are_told_apart(table):
    a, b = key(1), key(1)
    b[1] += np.uint64(1)
    table.append(a[None], values([1]))
    assert table.find(np.stack([a, b])).tolist() == [0, -1]


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.lists(st.integers(0, 30), max_size=8)),
            st.tuples(st.just("read"), st.lists(st.integers(0, 30), max_size=8)),
            st.tuples(st.just("tear"), st.integers(1, 60)),
            st.tuples(st.just("clear"), st.just(0)),
            st.tuples(st.just("reopen"), st.just(0)),
        ),
        max_size=14,
    ),
    width=st.sampled_from([1, 2, 5]),
)
def test_it_behaves_like_a_dictionary(tmp_path_factory, steps, width):
    folder = tmp_path_factory.mktemp("model")
    cache, known = Cache(folder), []
    table = cache.table("f", width)
    for step, given_ in steps:
        if step == "append":
            table.append(keys(given_), values(given_, width))
            known += given_
        elif step == "read":
            assert read(table, given_) == set(known) & set(given_)
        elif step == "tear" and table.keys_path.exists():  # a power cut
            os.truncate(table.keys_path, max(0, table.keys_path.stat().st_size - given_))
            known = known[: rowcache.rows_of(table.keys_path.stat())]
            table = Cache(folder).table("f", width)  # nobody outlives a power cut
        elif step == "clear":
            Cache(folder).clear()
            known = []
        elif step == "reopen":
            table = Cache(folder).table("f", width)
    assert read(table, list(range(31))) == set(known)


@pytest.mark.parametrize("tail", [1, 7, 23])
def test_a_torn_tail_is_ignored_and_overwritten(table, tail):
    table.append(keys(range(5)), values(range(5)))
    with open(table.keys_path, "ab") as file:
        file.write(b"\xff" * tail)
    with open(table.values_path, "ab") as file:
        file.write(b"\xff" * (tail + 4 * WIDTH))
    assert read(again(table), list(range(6))) == set(range(5))
    again(table).append(keys([5]), values([5]))
    assert read(again(table), list(range(6))) == set(range(6))
    assert read(table, list(range(6))) == set(range(6))


def test_values_cut_short_are_missing_or_damaged_never_wrong(table):
    table.append(keys(range(5)), values(range(5)))
    os.truncate(table.values_path, 4 * WIDTH * 3 + 2)
    assert read(again(table), list(range(5))) == {0, 1, 2}
    again(table).append(keys([7]), values([7]))
    assert read(again(table), [0, 1, 2, 3, 4, 7]) == {0, 1, 2, 7}


def test_every_flipped_bit_is_found(table):
    table.append(keys(range(3)), values(range(3)))
    good = {path: path.read_bytes() for path in (table.keys_path, table.values_path)}
    for path, content in good.items():
        first = HEADER if path == table.keys_path else 0
        for bit in range(8 * first, 8 * len(content), 5):
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            size = RECORD.itemsize if path == table.keys_path else 4 * WIDTH
            hit = (bit // 8 - first) // size
            assert read(again(table), [0, 1, 2]) == {0, 1, 2} - {hit}
        path.write_bytes(content)


def test_a_row_of_nothing_is_not_sound():
    assert sums(np.zeros((1, 2), np.uint64), np.zeros((1, WIDTH), np.float32))[0] != 0


@pytest.mark.parametrize("change", ["format", "width", "fingerprint", "short"])
def test_a_foreign_header_is_refused(table, change):
    table.append(keys(range(5)), values(range(5)))
    content = bytearray(table.keys_path.read_bytes())
    content[{"format": 7, "width": 8, "fingerprint": 20, "short": 0}[change]] ^= 1
    table.keys_path.write_bytes(content)
    other = again(table)
    with pytest.raises(StorageError, match="not a feature table of this version"):
        other.find(keys([1]))
    with pytest.raises(StorageError, match="HEADSTART_CACHE"):
        other.append(keys([1]), values([1]))


def test_the_folder_may_be_deleted_while_in_use(tmp_path, table):
    table.append(keys(range(5)), values(range(5)))
    view = table.view(table.find(keys(range(5))))
    Cache(tmp_path).clear()
    np.testing.assert_array_equal(view, values(range(5)))
    assert read(table, list(range(5))) == set()
    table.append(keys([9]), values([9]))
    assert read(table, [0, 9]) == {9}
    assert read(again(table), [0, 9]) == {9}


def test_a_full_disk_is_said_and_loses_nothing(table, monkeypatch):
    table.append(keys(range(5)), values(range(5)))
    sizes = table.keys_path.stat().st_size, table.values_path.stat().st_size

    def full(file, offset, content):
        file.seek(offset)
        file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(rowcache, "write", full)
        with pytest.raises(StorageError, match=r"cannot be written \(No space left on device\).*HEADSTART_CACHE"):
            table.append(keys(range(5, 9)), values(range(5, 9)))
    assert (table.keys_path.stat().st_size, table.values_path.stat().st_size) == sizes
    table.append(keys(range(5, 9)), values(range(5, 9)))
    assert read(again(table), list(range(9))) == set(range(9))


def test_a_real_limit_on_file_size(table):
    table.append(keys(range(5)), values(range(5)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StorageError):
            table.append(keys(range(5, 200)), values(range(5, 200)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert read(again(table), list(range(200))) == set(range(5))


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may write everywhere")
def test_a_read_only_folder_is_said(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="cannot be written"):
        Cache(tmp_path).table("f", 2).append(keys([1]), values([1], 2))
    tmp_path.chmod(0o700)


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "features").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be"):
        Cache(tmp_path).table("f", 2).append(keys([1]), values([1], 2))


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from headstart.rowcache import Cache
from test_cache import keys, values
table = Cache(Path({folder!r})).table("fingerprint", 256)
low = {low}
print("ready", flush=True)
while True:
    table.append(keys(range(low, low + 40)), values(range(low, low + 40), 256))
    low += 40
    print(low, flush=True)
"""


def killed(tmp_path, rounds: int, seed: int) -> None:
    """Kill a writer at random moments; what it said it had written must be there, and nothing wrong."""
    rng = np.random.default_rng(seed)
    low = 0
    for _ in range(rounds):
        script = WRITER.format(tests=os.path.dirname(__file__), folder=str(tmp_path), low=low)
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        said = [int(line) for line in process.stdout.read().split("\n")[:-1]]
        process.stdout.close()
        process.wait()
        acknowledged = said[-1] if said else low
        table = Cache(tmp_path).table("fingerprint", 256)
        there = read(table, list(range(acknowledged + 80)))
        assert set(range(acknowledged)) <= there
        low = acknowledged + 80
        table.append(keys(range(acknowledged, low)), values(range(acknowledged, low), 256))
        assert read(table, list(range(low))) == set(range(low))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_while_writing(tmp_path):
    killed(tmp_path, 6, 0)


@pytest.mark.slow
def test_killed_while_writing_often(tmp_path):
    killed(tmp_path, 40, 1)


def write_some(folder, start, count):
    table = Cache(folder).table("fingerprint", WIDTH)
    for low in range(start, start + count, 5):
        table.append(keys(range(low, low + 5)), values(range(low, low + 5)))


def test_two_writers_and_a_clearing_third(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_some, args=(tmp_path, start, 200)) for start in (0, 150)]
    for writer in writers:
        writer.start()
    table = Cache(tmp_path).table("fingerprint", WIDTH)
    while any(writer.is_alive() for writer in writers):
        read(table, list(range(400)))  # checks that nothing wrong is ever seen
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert read(table, list(range(400))) == set(range(350))
    assert (table.keys_path.stat().st_size - HEADER) // RECORD.itemsize == 400
    writers = [context.Process(target=write_some, args=(tmp_path, start, 200)) for start in (0, 150)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        Cache(tmp_path).clear()
        time.sleep(0.01)
    assert [writer.exitcode for writer in writers] == [0, 0]
    read(again(table), list(range(400)))
