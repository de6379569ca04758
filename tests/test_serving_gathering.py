"""Features of one call, from memory and from several lanes."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from headstart.errors import ModelError, Overloaded
from headstart.serving.gathering import Gathering
from headstart.serving.recent import Recent


class Lanes:
    """What is submitted waits until it is let go; the lane `full` takes nothing."""

    def __init__(self, full=None, broken=None):
        self.full, self.broken, self.given, self.cancelled = full, broken, [], []

    def submit(self, encoder, contents, wanted, done, *, deadline, admitted):
        if encoder.key == self.full:
            raise Overloaded("full.", 1.0)
        if encoder.key == self.broken:
            done(ModelError("broken."))
        self.given.append((list(contents), done, wanted, admitted))
        return SimpleNamespace(cancel=lambda: self.cancelled.append(encoder.key))

    def call(self, work):
        work()


def gathering(lanes, said, texts, *keys, recent=None):
    bases = [(SimpleNamespace(key=key), key) for key in keys]
    return Gathering(lanes, recent or Recent(1 << 20), texts, bases, said.append, deadline=0.0)


def answer(lanes):
    for contents, done, wanted, _ in lanes.given:
        done({name: np.array([[ord(text[0])] for text in contents], np.float32) for name in wanted})


def test_rows_come_together_in_order_and_are_remembered():
    lanes, said, recent = Lanes(), [], Recent(1 << 20)
    gathering(lanes, said, ["b", "a", "b", "c"], "x", "y", recent=recent).begin()
    assert [given[0] for given in lanes.given] == [["b", "a", "c"]] * 2
    assert [given[3] for given in lanes.given] == [False, True]  # the second part of what was let in
    answer(lanes)
    assert said[0]["x"][:, 0].tolist() == said[0]["y"][:, 0].tolist() == [98, 97, 98, 99]
    again, lanes = [], Lanes()
    gathering(lanes, again, ["c", "d", "b", "d"], "x", recent=recent).begin()
    assert lanes.given[0][0] == ["d"]
    answer(lanes)
    assert again[0]["x"][:, 0].tolist() == [99, 100, 98, 100]


def test_what_is_refused_half_way_is_taken_back_and_nobody_is_told():
    lanes, said = Lanes(full="y"), []
    with pytest.raises(Overloaded):
        gathering(lanes, said, ["a"], "x", "y").begin()
    assert lanes.cancelled == ["x"]
    answer(lanes)
    assert said == []


def test_who_has_been_told_of_a_fault_is_not_told_again():
    """A lane fails while the next one is asked, and that one is full: one outcome, not two."""
    lanes, said = Lanes(broken="x", full="y"), []
    gathering(lanes, said, ["a"], "x", "y").begin()
    assert [str(one) for one in said] == ["broken."]


def test_one_outcome_whatever_comes_at_once():
    for _ in range(200):
        lanes, said = Lanes(), []
        one = gathering(lanes, said, ["a"], "x", "y")
        one.begin()
        cancelled = []
        threads = [
            threading.Thread(target=lanes.given[0][1], args=(ModelError("broken."),)),
            threading.Thread(target=lanes.given[1][1], args=({"y": np.ones((1, 1), np.float32)},)),
            threading.Thread(target=lambda one=one, cancelled=cancelled: cancelled.append(one.cancel())),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(said) == (0 if cancelled == [True] else 1)
