"""Embedding through the cache: every content once, ever; the right row to the right content."""

import itertools
import multiprocessing
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart import features, rowcache
from headstart.backbone import Card, cache_folder
from headstart.backbones.fake import Fake
from headstart.errors import ContentError, StorageError
from headstart.example import keys as keys_of
from headstart.features import embed, grouped
from headstart.rowcache import Cache


@dataclass
class Counting:
    """The fake backbone, writing down what it is asked."""

    asked: list[str] = field(default_factory=list)
    stop_after: int | None = None

    @property
    def card(self) -> Card:
        return Fake().card

    def encode(self, contents):
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += contents
        return Fake().encode(contents)


def words(n, start=0):
    return [f"word{i} and word{i * i}" for i in range(start, start + n)]


def test_values_and_order(tmp_path):
    texts = words(50)
    found = embed(texts, Fake(), Cache(tmp_path))
    np.testing.assert_array_equal(found.values, Fake().encode(texts))
    np.testing.assert_array_equal(found.keys, keys_of(t.encode() for t in texts))
    assert found.fingerprint == Fake().card.fingerprint
    assert (found.encoded, found.notes) == (50, ())
    assert found.values.dtype == np.float32
    assert not found.values.flags.writeable


def test_nothing_is_encoded_twice(tmp_path):
    backbone, cache = Counting(), Cache(tmp_path)
    texts = words(30) + words(30)[::-1] + [""] * 4
    first = embed(texts, backbone, cache)
    assert sorted(backbone.asked) == sorted([*words(30), ""])
    assert first.encoded == 31
    for other in (cache, Cache(tmp_path)):
        second = embed(texts[::-1] + words(3, 30), backbone, other)
        np.testing.assert_array_equal(second.values[: len(texts)][::-1], first.values)
    assert len(backbone.asked) == len(set(backbone.asked)) == 34
    assert embed(words(30), backbone, Cache(tmp_path)).encoded == 0


def test_rows_in_file_order_are_a_view(tmp_path):
    embed(words(30), Fake(), Cache(tmp_path))
    found = embed(words(20, 5), Fake(), Cache(tmp_path))
    assert isinstance(found.values, np.memmap)
    assert not isinstance(embed(words(20)[::-1], Fake(), Cache(tmp_path)).values, np.memmap)


def test_without_a_cache():
    backbone = Counting()
    found = embed(["a", "b", "a"], backbone, None)
    assert backbone.asked == ["a", "b"]
    np.testing.assert_array_equal(found.values, Fake().encode(["a", "b", "a"]))


def test_nothing_to_embed(tmp_path):
    found = embed([], Fake(), Cache(tmp_path))
    assert found.values.shape == (0, 64)
    assert found.keys.shape == (0, 2)


def test_arrow_contents(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "CHUNK_ROWS", 7)
    texts = words(25) + words(10)
    chunked = pa.chunked_array([texts[:9], [], texts[9:]], pa.large_string())
    np.testing.assert_array_equal(embed(chunked, Fake(), Cache(tmp_path)).values, Fake().encode(texts))


def test_given_keys_are_used_and_checked(tmp_path):
    keys = keys_of([b"1", b"2"])
    assert embed(["x", "y"], Fake(), Cache(tmp_path), keys=keys).keys is keys
    assert embed(["anything", "else"], Counting(stop_after=0), Cache(tmp_path), keys=keys).encoded == 0
    with pytest.raises(ValueError, match=r"\(2, 2\), not \(3, 2\)"):
        embed(["x"] * 3, Fake(), None, keys=keys)


def test_an_interrupt_loses_at_most_a_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "CHUNK_ROWS", 10)
    backbone = Counting(stop_after=35)
    with pytest.raises(KeyboardInterrupt):
        embed(words(100), backbone, Cache(tmp_path))
    resumed = Counting()
    assert embed(words(100), resumed, Cache(tmp_path)).encoded == 60
    assert not set(backbone.asked) & set(resumed.asked)


def test_progress_counts_what_is_encoded(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "CHUNK_ROWS", 10)
    embed(words(5), Fake(), Cache(tmp_path))
    seen = []
    embed(words(28) + words(28), Fake(), Cache(tmp_path), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(10, 23), (20, 23), (23, 23)]


def test_long_texts_make_short_chunks(monkeypatch):
    monkeypatch.setattr(features, "CHUNK_LETTERS", 3000)
    texts = ["a" * 1400] * 6 + ["b"] * 5
    bounds = [(start, end) for start, end, _ in features.chunks(texts, np.arange(11))]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == 11
    assert all(a[1] == b[0] for a, b in itertools.pairwise(bounds))
    assert len(bounds) >= 3


def test_damaged_rows_are_encoded_again_once(tmp_path):
    cache = Cache(tmp_path)
    embed(words(20), Fake(), cache)
    path = cache.table(Fake().card.fingerprint, 64).values_path
    content = bytearray(path.read_bytes())
    content[256 * 7 + 5] ^= 4
    content[256 * 11] ^= 1
    path.write_bytes(content)
    backbone = Counting()
    found = embed([*words(20), words(20)[7]], backbone, Cache(tmp_path))
    assert backbone.asked == [words(20)[7], words(20)[11]]
    assert found.notes == ("3 cached rows were damaged and are encoded again.",)
    np.testing.assert_array_equal(found.values[:20], Fake().encode(words(20)))
    clean = embed(words(20), Counting(stop_after=0), Cache(tmp_path))
    assert (clean.encoded, clean.notes) == (0, ())
    np.testing.assert_array_equal(clean.values, Fake().encode(words(20)))


def test_a_cache_that_cannot_be_used_is_said_and_done_without(tmp_path):
    (tmp_path / "features").write_text("in the way")
    found = embed(words(5), Fake(), Cache(tmp_path))
    np.testing.assert_array_equal(found.values, Fake().encode(words(5)))
    assert "cannot be" in found.notes[0]
    assert "HEADSTART_CACHE" in found.notes[0]
    assert len(found.notes) == 1


def test_a_disk_that_fills_up_is_said_once(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "CHUNK_ROWS", 10)
    real, calls = rowcache.Table.append, []

    def append(self, keys, values):
        calls.append(1)
        if len(calls) == 2:
            raise StorageError("the disk is full.")
        real(self, keys, values)

    monkeypatch.setattr(rowcache.Table, "append", append)
    found = embed(words(50), Fake(), Cache(tmp_path))
    np.testing.assert_array_equal(found.values, Fake().encode(words(50)))
    assert found.notes == ("the disk is full. What is encoded from here on is not cached.",)
    assert len(calls) == 2
    assert embed(words(50), Fake(), Cache(tmp_path)).encoded == 40


def test_a_row_that_came_meanwhile_is_not_encoded(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "CHUNK_ROWS", 10)

    class Overtaken(Counting):
        def encode(self, contents):
            if not self.asked:
                embed(words(30, 15), Fake(), Cache(tmp_path))  # another process
            return super().encode(contents)

    backbone = Overtaken()
    found = embed(words(40), backbone, Cache(tmp_path))
    assert backbone.asked == words(15)
    assert found.encoded == 15
    np.testing.assert_array_equal(found.values, Fake().encode(words(40)))


def test_large_results_lie_in_a_mapped_file(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "IN_MEMORY", 100)
    found = embed(words(9), Fake(), Cache(tmp_path))
    assert isinstance(found.values, np.memmap)
    np.testing.assert_array_equal(found.values, Fake().encode(words(9)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with pytest.raises(StorageError, match="TMPDIR"):
        embed(words(9), Fake(), None)


def embed_all(folder):
    embed(words(200), Fake(), Cache(folder))


def test_two_processes_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=embed_all, args=(tmp_path,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    found = embed(words(200), Counting(stop_after=0), Cache(tmp_path))
    np.testing.assert_array_equal(found.values, Fake().encode(words(200)))


@settings(max_examples=50, deadline=None)
@given(calls=st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=9), max_size=6), rows=st.integers(1, 5))
def test_any_calls_give_the_backbone_s_own_rows(tmp_path_factory, calls, rows):
    cache, backbone = Cache(tmp_path_factory.mktemp("any")), Counting()
    before = features.CHUNK_ROWS
    features.CHUNK_ROWS = rows
    try:
        for texts in calls:
            found = embed(texts, backbone, cache)
            np.testing.assert_array_equal(found.values, Fake().encode(texts))
    finally:
        features.CHUNK_ROWS = before
    assert len(backbone.asked) == len({text for texts in calls for text in texts})


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_groups_are_those_of_a_dictionary(pairs):
    first, members, edges = grouped(np.array(pairs, np.uint64).reshape(-1, 2))
    expected: dict[tuple[int, int], list[int]] = {}
    for i, pair in enumerate(pairs):
        expected.setdefault(pair, []).append(i)
    assert first.tolist() == [rows[0] for rows in expected.values()]
    got = [members[a:b].tolist() for a, b in itertools.pairwise(edges)]
    assert got == list(expected.values())


def test_where_the_cache_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    assert Cache().folder == tmp_path / "features"
    monkeypatch.delenv("HEADSTART_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert str(cache_folder()) == "/x/headstart"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/nowhere")
    assert str(cache_folder()) == "/nowhere/.cache/headstart"


@dataclass
class Choosy:
    """A backbone that cannot read contents with an x in them."""

    calls: int = 0

    @property
    def card(self) -> Card:
        return Fake().card

    def encode(self, contents):
        self.calls += 1
        wrong = [(i, "an x") for i, text in enumerate(contents) if "x" in text]
        if wrong:
            raise ContentError(wrong)
        return Fake().encode(contents)


def test_what_cannot_be_read_is_named_and_the_rest_is_embedded(tmp_path):
    contents = ["a", "x1", "b", "a", "x1", "x2"]
    faults: dict[int, str] = {}
    found = embed(contents, Choosy(), Cache(tmp_path), faults=faults)
    assert faults == {1: "an x", 4: "an x", 5: "an x"}
    assert list(np.flatnonzero(np.isnan(found.values).any(1))) == [1, 4, 5]
    np.testing.assert_array_equal(found.values[[0, 2, 3]], Fake().encode(["a", "b", "a"]))
    assert found.encoded == 2
    again = embed(["a", "b"], Choosy(), Cache(tmp_path))
    assert again.encoded == 0  # what could be read was kept


def test_what_cannot_be_read_is_an_error_unless_asked_for(tmp_path):
    with pytest.raises(ContentError, match="content number 2 of the call and 1 others cannot be read: an x") as caught:
        embed(["a", "x", "x"], Choosy(), Cache(tmp_path))
    assert caught.value.faults == ((1, "an x"), (2, "an x"))


def test_bytes_are_contents_too(tmp_path):
    class Bytes:
        card = Fake().card

        def encode(self, contents):
            return Fake().encode([content.decode() for content in contents])

    X = embed([b"one two", b"three"], Bytes(), Cache(tmp_path)).values
    np.testing.assert_array_equal(X, Fake().encode(["one two", "three"]))
    arrow = pa.array([b"three", b"four"], pa.large_binary())
    found = embed(arrow, Bytes(), Cache(tmp_path))
    assert found.encoded == 1
