import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headstart.why import pieces, words


@given(st.text(max_size=300), st.integers(1, 20))
def test_pieces_cover_every_word_once_and_respect_the_limit(text, limit):
    spans = pieces(text, limit)
    assert len(spans) <= limit
    assert " ".join(text[a:b] for a, b in spans).split() == text.split()
    assert all(a < b for a, b in spans)


def count_bad(texts):
    p = np.array([t.split().count("bad") / 4 for t in texts], np.float32)
    return np.stack([1 - p, p], axis=1)


def test_the_word_that_matters_is_found():
    found = words("this was bad service", 1, count_bad)
    assert [w.text for w in found] == ["bad"]
    assert found[0].drop == np.float32(0.25)
    assert (found[0].start, found[0].end) == (9, 12)


def test_one_word_has_no_reason():
    assert words("bad", 1, count_bad) == []
