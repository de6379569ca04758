"""The rows that can be read; those that cannot are named, never silent."""

import numpy as np
import pytest

from headstart.dataset import read
from headstart.embedding import readable
from headstart.errors import DataError, InputError
from headstart.rowcache import Cache
from toybase import Toy

ROWS = [("fruit 1", "a"), ("x", "a"), ("metal 2", "b"), ("x", "b"), ("fruit 1", "a")]


def test_what_cannot_be_read_is_left_out_and_named():
    part, X = readable(read(ROWS), Toy())
    assert part.texts() == ["fruit 1", "metal 2", "fruit 1"]
    assert list(part.rows) == [1, 3, 5]
    np.testing.assert_array_equal(X, Toy().encode(part.texts()))
    assert [(fault.row, fault.reason) for fault in part.faults] == [(2, "it is an x"), (4, "it is an x")]
    assert "2 files cannot be read (x: it is an x; x: it is an x)" in part.notes[-1]


def test_refuse_is_an_error_that_names_the_file_and_the_way_out():
    with pytest.raises(DataError, match=r"2 files cannot be read .*--broken skip"):
        readable(read(ROWS), Toy(), broken="refuse")
    part, _ = readable(read(ROWS).take(np.array([0, 2])), Toy(), broken="refuse")
    assert len(part) == 2


def test_a_word_that_is_neither_is_refused():
    with pytest.raises(InputError, match="--broken maybe is neither skip nor refuse"):
        readable(read(ROWS), Toy(), broken="maybe")


def test_a_cache_that_cannot_be_used_is_said(tmp_path):
    (tmp_path / "file").write_text("no folder")
    part, X = readable(read(ROWS), Toy(), cache=Cache(tmp_path / "file"))
    assert len(part) == len(X) == 3
    assert any("cached" in note for note in part.notes)


def test_nothing_left_is_an_error():
    with pytest.raises(DataError, match="no row can be read: x: it is an x"):
        readable(read(ROWS).take(np.array([1, 3])), Toy())


def test_another_kind_of_content_is_refused_before_any_work():
    class Pictures(Toy):
        @property
        def card(self):
            from dataclasses import replace

            return replace(super().card, modality="image")

    toy = Pictures()
    with pytest.raises(InputError, match="holds texts, but the base model toy reads pictures"):
        readable(read(ROWS), toy)
    assert toy.asked == []
