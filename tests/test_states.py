"""States on the disk: what is read is what was made, whatever is killed, torn, flipped, deleted, full or too large."""

import errno
import multiprocessing
import os
import shutil
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart import states
from headstart.backbones import network
from headstart.errors import ContentError, InputError, StorageError
from headstart.halved import halved
from headstart.states import HEADER, RECORD, Shelf, collect
from small_graphs import picture, picture_folder, text_folder

WIDTH = 6


class Fake:
    """Halves whose states are drawn from the text; "broken" ones cannot be read, "huge" ones are too large for float16."""

    base, tap = None, "1"

    def __init__(self, kind="tokens", name="f", factor=1.0):
        self.kind, self.fingerprint, self.factor, self.width, self.asked = kind, name, factor, WIDTH, []

    def state(self, text):
        draw = np.random.default_rng(list(text.encode()))
        shape = {"map": (WIDTH, 2, 3), "grid": (2, 3, WIDTH), "vector": (WIDTH,)}.get(
            self.kind, (1 + len(text) % 7, WIDTH)
        )
        value = draw.standard_normal(shape).astype(np.float32)
        return value * np.float32(1e6) if text.startswith("huge") else value

    def states(self, contents):
        if wrong := [(i, "it is broken") for i, text in enumerate(contents) if text.startswith("broken")]:
            raise ContentError(wrong)
        self.asked += contents
        return [self.state(text) for text in contents]

    def features(self, values):
        """Of unit length; with a large factor they hang on what rounding takes away."""
        X = np.stack([value.reshape(-1, WIDTH).mean(axis=0) for value in values])
        X = np.sin(X * self.factor) if self.factor > 1 else X
        return X / np.linalg.norm(X, axis=1, keepdims=True)


def right(found, halves, texts, atol=2e-3):
    """Every row is what it must be, alone and together."""
    lengths = [len(halves.state(text)) if halves.kind in states.PADDED else 1 for text in texts]
    assert found.lengths.tolist() == lengths
    if not texts:
        return
    X = found.batch(np.arange(len(texts)))
    assert X.dtype == np.float32
    assert X.flags.c_contiguous
    for x, text, length in zip(X, texts, lengths, strict=True):
        want = halves.state(text)
        got = x[:length] if halves.kind in states.PADDED else x
        assert np.abs(got - want).max() <= atol * np.abs(want).max()
        assert halves.kind not in states.PADDED or not x[length:].any()


def shelf_of(folder, halves, dtype="float16"):
    return Shelf(folder / "states", halves.fingerprint, dtype)


TEXTS = [f"text {i}" + "x" * (i % 11) for i in range(150)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("abc", max_size=4), max_size=20),
    st.sampled_from(["tokens", "stream", "turned", "map", "vector"]),
    st.data(),
)
def test_a_batch_gives_back_what_went_in(tmp_path_factory, texts, kind, data):
    folder, halves = tmp_path_factory.mktemp("states"), Fake(kind)
    first = data.draw(st.integers(0, len(texts)))
    collect(texts[:first], halves, folder=folder)
    found = collect(texts, halves, folder=folder)
    assert len(halves.asked) == len(set(texts))  # each once
    right(found, halves, texts)
    if texts:
        rows = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=12))
        X = found.batch(np.array(rows, np.int64))
        shape = halves.state("").shape
        longest = max((found.lengths[i] for i in rows), default=0)
        assert X.shape == (len(rows), *((longest, WIDTH) if kind in states.PADDED else shape))
        for x, i in zip(X, rows, strict=True):
            want = halves.state(texts[i])
            assert np.abs((x[: len(want)] if kind in states.PADDED else x) - want).max() <= 4e-3


def test_what_is_kept_is_not_made_again(tmp_path):
    halves, told = Fake(), []
    found = collect(TEXTS, halves, folder=tmp_path, progress=lambda done, total: told.append((done, total)))
    assert (found.computed, found.dtype, found.notes) == (150, "float16", ())
    assert told[-1] == (150, 150)
    assert told == sorted(set(told))
    again = collect([*TEXTS[::-1], "new", TEXTS[3]], halves, folder=tmp_path)
    assert again.computed == 1
    right(again, halves, [*TEXTS[::-1], "new", TEXTS[3]])
    assert len(halves.asked) == 151
    assert again.values[-1] is again.values[149 - 3]
    assert again.size == sum(2 * value.nbytes // 4 for value in map(halves.state, [*TEXTS, "new"]))
    assert not again.values[0].flags.writeable
    other = collect(TEXTS, Fake(name="g"), folder=tmp_path)
    assert other.computed == 150
    none = collect([], Fake(name="h"), folder=tmp_path)
    assert (len(none), none.computed, none.batch([]).shape) == (0, 0, (0, 0, WIDTH))
    arrow = collect(pa.array(TEXTS), halves, folder=tmp_path)
    assert arrow.computed == 0
    with pytest.raises(ValueError, match="keys have shape"):
        collect(TEXTS, halves, keys=np.zeros((3, 2), np.uint64), folder=tmp_path)


def test_nothing_is_made_before_something_is_written(tmp_path):
    assert Shelf(tmp_path / "absent", "f", "float16").read(np.zeros((2, 2), np.uint64)) == ([None, None], 0)
    assert not (tmp_path / "absent").exists()


def test_precision_is_chosen_by_what_the_upper_half_makes_of_it(tmp_path):
    halves = Fake(factor=3e3)
    found = collect(TEXTS, halves, folder=tmp_path)
    assert found.dtype == "float32"
    assert [path.name[-7:] for path in (tmp_path / "states").iterdir()] == ["float32"]
    right(found, halves, TEXTS, atol=0)
    assert collect(TEXTS, Fake(), folder=tmp_path).computed == 0  # what is there is used
    assert states.agrees(Fake(), [Fake().state("a")])
    assert not states.agrees(Fake(), [Fake().state("huge")])


def test_a_number_too_large_for_float16_is_met_late(tmp_path, monkeypatch):
    monkeypatch.setattr(states, "SAMPLE", 4)
    monkeypatch.setattr(states, "TEXTS", 16)
    texts = [*TEXTS[:40], "huge", *TEXTS[40:]]
    halves = Fake()
    found = collect(texts, halves, folder=tmp_path)
    assert found.dtype == "float32"
    right(found, halves, texts, atol=0)
    assert collect(texts, halves, folder=tmp_path).computed == 0


def test_what_cannot_be_read_is_named_and_has_no_places(tmp_path):
    texts = ["a", "broken", "b", "broken", "broken too", *TEXTS]
    halves = Fake()
    with pytest.raises(ContentError) as caught:
        collect(texts, halves, folder=tmp_path)
    assert [i for i, _ in caught.value.faults] == [1, 3, 4]
    faults = {}
    found = collect(texts, halves, folder=tmp_path, faults=faults)
    assert faults == dict.fromkeys([1, 3, 4], "it is broken")
    assert found.computed == 0
    assert found.lengths[:6].tolist() == [2, 0, 2, 0, 0, 1 + len(TEXTS[0]) % 7]
    X = found.batch([0, 1, 2])
    assert X.shape == (3, 2, WIDTH)
    assert not X[1].any()
    nothing = collect(["broken"], Fake(name="g"), folder=tmp_path, faults={})
    assert nothing.batch([0]).shape == (1, 0, WIDTH)


def small_steps(monkeypatch):
    monkeypatch.setattr(states, "SAMPLE", 8)
    monkeypatch.setattr(states, "TEXTS", 8)


def test_interrupted_only_the_chunk_in_work_is_lost(tmp_path, monkeypatch):
    small_steps(monkeypatch)

    def stop(done, total):
        if done >= 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(TEXTS, Fake(), folder=tmp_path, progress=stop)
    halves = Fake()
    right(collect(TEXTS, halves, folder=tmp_path), halves, TEXTS)
    assert len(halves.asked) == 110


class Killed(BaseException):
    """What a kill is to the code: nothing after it runs."""


@pytest.mark.parametrize("calls", range(1, 8))
@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_killed_at_any_write(tmp_path, monkeypatch, calls, share):
    """Writes in order: header, values, keys, values, keys, ...; `share` of the last one arrives."""
    small_steps(monkeypatch)
    texts, left, real = TEXTS[:40], [calls], states.write

    def write(file, offset, content):
        left[0] -= 1
        if left[0] == 0:
            real(file, offset, content[: int(share * len(content))])
            raise Killed
        real(file, offset, content)

    monkeypatch.setattr(states, "write", write)
    with pytest.raises(Killed):
        collect(texts, Fake(), folder=tmp_path)
    monkeypatch.setattr(states, "write", real)
    halves = Fake()
    first = collect(texts, halves, folder=tmp_path)
    right(first, halves, texts)
    whole = 0 if calls < 3 else (calls - 1) // 2  # chunks whose records were begun to be written
    assert len(halves.asked) <= 40 - 8 * max(0, whole - (share < 1 or calls % 2 == 0))
    again = collect(texts, halves, folder=tmp_path)
    assert (again.computed, again.notes) == (0, ())
    right(again, halves, texts)
    shelf = shelf_of(tmp_path, halves)
    assert (
        shelf.values_path.stat().st_size
        <= 8 * sum(-(-len(halves.state(text)) * WIDTH * 2 // 8) for text in texts) + 200
    )


@pytest.mark.parametrize("tail", [1, 7, 39])
def test_a_torn_tail_is_ignored_and_overwritten(tmp_path, tail):
    halves = Fake()
    collect(TEXTS[:20], halves, folder=tmp_path)
    shelf = shelf_of(tmp_path, halves)
    sizes = [path.stat().st_size for path in (shelf.keys_path, shelf.values_path)]
    for path in (shelf.keys_path, shelf.values_path):
        with open(path, "ab") as file:
            file.write(b"\xff" * tail)
    right(collect(TEXTS[:20], halves, folder=tmp_path), halves, TEXTS[:20])
    collect(TEXTS[:25], halves, folder=tmp_path)
    assert len(halves.asked) == 25
    right(collect(TEXTS[:25], halves, folder=tmp_path), halves, TEXTS[:25])
    assert shelf.keys_path.stat().st_size == sizes[0] + 5 * RECORD.itemsize
    assert shelf.values_path.stat().st_size % 8 == 0


def test_values_cut_short_are_made_again(tmp_path):
    halves = Fake()
    collect(TEXTS[:20], halves, folder=tmp_path)
    shelf = shelf_of(tmp_path, halves)
    os.truncate(shelf.values_path, shelf.values_path.stat().st_size // 2 + 3)
    found = collect(TEXTS[:20], halves, folder=tmp_path)
    assert 5 < found.computed < 15
    assert found.notes == (f"{found.computed} kept states were damaged and are computed again.",)
    right(found, halves, TEXTS[:20])
    assert collect(TEXTS[:20], halves, folder=tmp_path).notes == ()
    os.truncate(shelf.values_path, 0)
    assert collect(TEXTS[:20], halves, folder=tmp_path).computed == 20


def test_every_flipped_bit_is_found(tmp_path):
    halves, texts = Fake(), ["a", "bb", "ccc"]
    collect(texts, halves, folder=tmp_path)
    shelf = shelf_of(tmp_path, halves)
    draw = np.random.default_rng(0)
    for path in (shelf.keys_path, shelf.values_path):
        good = path.read_bytes()
        for place in draw.choice(8 * len(good), 150, replace=False):
            bad = bytearray(good)
            bad[place // 8] ^= 1 << place % 8
            path.write_bytes(bad)
            keys = states.keys_of(text.encode() for text in texts)
            try:
                values, _ = shelf_of(tmp_path, halves).read(keys)
            except StorageError:
                assert place < 8 * HEADER
                continue
            for value, text in zip(values, texts, strict=True):
                assert value is None or np.abs(value - halves.state(text)).max() <= 4e-3
        path.write_bytes(good)
    assert collect(texts, halves, folder=tmp_path).computed == 0


def test_a_full_disk_is_said_and_done_without(tmp_path, monkeypatch):
    small_steps(monkeypatch)
    real, calls = states.write, []

    def write(file, offset, content):
        calls.append(len(content))
        if len(calls) > 5:
            real(file, offset, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, offset, content)

    monkeypatch.setattr(states, "write", write)
    halves = Fake()
    found = collect(TEXTS, halves, folder=tmp_path)
    right(found, halves, TEXTS)
    assert len(halves.asked) == 150
    assert len(found.notes) == 1
    assert "No space left on device" in found.notes[0]
    assert "stays in memory" in found.notes[0]
    shelf = shelf_of(tmp_path, halves)
    assert shelf.values_path.stat().st_size == calls[1] + calls[3]  # the space was given back
    monkeypatch.setattr(states, "write", real)
    assert collect(TEXTS, Fake(), folder=tmp_path).computed == 150 - 16


def test_a_folder_that_cannot_be_used(tmp_path):
    halves = Fake()
    (tmp_path / "states").write_text("a file, and no folder")
    found = collect(TEXTS, halves, folder=tmp_path)
    right(found, halves, TEXTS)
    assert "cannot be written" in found.notes[0]
    os.remove(tmp_path / "states")
    collect(TEXTS[:5], halves, folder=tmp_path)
    shelf = shelf_of(tmp_path, halves)
    shelf.keys_path.write_bytes(b"something else" * 20)
    found = collect(TEXTS, halves, folder=tmp_path)
    right(found, halves, TEXTS)
    assert "holds no states of this version" in found.notes[0]


def test_a_folder_that_may_only_be_read(tmp_path, monkeypatch):
    halves = Fake()
    collect(TEXTS[:50], halves, folder=tmp_path)

    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(states, "open_grown", refused)
    found = collect(TEXTS, halves, folder=tmp_path)
    assert found.computed == 100
    right(found, halves, TEXTS)
    assert "cannot be written (Permission denied)" in found.notes[0]


def test_the_folder_may_be_deleted_at_any_time(tmp_path, monkeypatch):
    small_steps(monkeypatch)
    halves = Fake()
    found = collect(TEXTS, halves, folder=tmp_path, progress=lambda *_: shutil.rmtree(tmp_path / "states"))
    shutil.rmtree(tmp_path / "states", ignore_errors=True)
    right(found, halves, TEXTS)
    assert found.notes == ()


def test_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(states, "LARGE", 3000)
    halves = Fake()
    found = collect(TEXTS, halves, folder=tmp_path)
    assert len(found.notes) == 1
    assert "the states of 150 contents at tap 1 take about 0.0 GB in" in found.notes[0]
    assert len(collect(TEXTS, halves, folder=tmp_path).notes) == 1
    monkeypatch.setattr(states, "LARGEST", 4000)
    for one in (halves, fresh := Fake(name="new")):
        with pytest.raises(InputError, match="is the most: take fewer examples, or a tap nearer to the output"):
            collect(TEXTS, one, folder=tmp_path)
    assert len(fresh.asked) <= states.SAMPLE  # it is seen in the sample
    monkeypatch.setattr(states, "LARGEST", 1 << 40)
    (tmp_path / "no").mkdir()
    (tmp_path / "no" / "states").write_text("no folder")
    with pytest.raises(StorageError, match=r"too much for memory alone: .* cannot be written"):
        collect(TEXTS, Fake(), folder=tmp_path / "no")


def test_a_record_that_points_nowhere_moves_nothing(tmp_path):
    halves = Fake()
    collect(TEXTS[:9], halves, folder=tmp_path)
    shelf = shelf_of(tmp_path, halves)
    size = shelf.values_path.stat().st_size
    records = np.fromfile(shelf.keys_path, RECORD, offset=HEADER)
    records["start"][3] = 1 << 30
    shelf.keys_path.write_bytes(shelf.keys_path.read_bytes()[:HEADER] + records.tobytes())
    found = collect(TEXTS[:12], halves, folder=tmp_path)
    assert (found.computed, found.notes) == (4, ("1 kept states were damaged and are computed again.",))
    right(found, halves, TEXTS[:12])
    assert size < shelf.values_path.stat().st_size < 2 * size


def test_what_another_process_made_meanwhile_is_taken(tmp_path, monkeypatch):
    small_steps(monkeypatch)
    halves, other = Fake(), Fake()
    found = collect(TEXTS, halves, folder=tmp_path, progress=lambda *_: collect(TEXTS, other, folder=tmp_path))
    assert (found.computed, len(other.asked)) == (8, 142)
    right(found, halves, TEXTS)


def test_a_shelf_that_was_deleted_and_made_anew_is_read_anew(tmp_path):
    halves = Fake()
    keys = states.keys_of(text.encode() for text in TEXTS[:4])
    shelf = shelf_of(tmp_path, halves)
    collect(TEXTS[:2], halves, folder=tmp_path)
    assert [value is None for value in shelf.read(keys)[0]] == [False, False, True, True]
    os.rename(tmp_path / "states", tmp_path / "old")
    collect(TEXTS[3:4], halves, folder=tmp_path)
    assert [value is None for value in shelf.read(keys)[0]] == [True, True, True, False]


def gathers(folder, low, high):
    states.SAMPLE = states.TEXTS = 8
    halves = Fake()
    right(collect(TEXTS[low:high], halves, folder=folder), halves, TEXTS[low:high])


def test_two_processes_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=gathers, args=(tmp_path, *span)) for span in ((0, 100), (50, 150))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    halves = Fake()
    found = collect(TEXTS, halves, folder=tmp_path)
    assert (found.computed, found.notes) == (0, ())
    right(found, halves, TEXTS)


def test_a_batch_is_quick(tmp_path):
    halves = Fake()
    halves.width = 384
    halves.state = lambda text: np.full((24, 384), len(text), np.float32)
    halves.features = lambda values: np.ones((len(values), 1), np.float32)
    found = collect(TEXTS, halves, folder=tmp_path)
    rows, took = np.arange(0, 128, 4), []
    for _ in range(50):
        start = time.perf_counter()
        X = found.batch(rows)
        took.append(time.perf_counter() - start)
    assert X.shape == (32, 24, 384)
    assert (X[:, 0, 0] == [len(TEXTS[i]) for i in rows]).all()
    assert min(took) < 1e-3


@pytest.mark.parametrize("kind", ["text", "pictures"])
def test_networks(tmp_path, kind):
    if kind == "text":
        net, contents = (
            network.Network.open(text_folder(tmp_path / "x")),
            ["the apple", "", "iron and zinc", "the apple"],
        )
    else:
        net = network.Network.open(picture_folder(tmp_path / "x"))
        contents = [*[picture(seed) for seed in range(9)], picture(1)]
    halves = halved(net.at("2"), "0")
    found = collect(contents, halves, folder=tmp_path)
    assert found.computed == len(set(contents))
    assert found.dtype == "float16"
    X = halves.features([found.batch([i])[0] for i in range(len(contents))])
    apart = np.linalg.norm(X - net.at("2").encode(contents), axis=1)
    assert apart.max() <= states.AGREE
    if kind == "pictures":
        faults = {}
        collect([*contents, b"nothing"], halves, folder=tmp_path, faults=faults)
        assert list(faults) == [10]


def test_the_cache_is_that_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    collect(TEXTS[:3], Fake())
    assert len(list((tmp_path / "states").iterdir())) == 1
