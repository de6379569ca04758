import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.why import Region, pieces, place, regions, words


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


GRID = [(i / 4, j / 4, (i + 1) / 4, (j + 1) / 4) for j in range(4) for i in range(4)]


def test_the_region_that_matters_is_found():
    P = np.full((17, 2), 0.9, np.float32)
    P[1 + 6, 1] = 0.2  # third of the second row
    P[1 + 5, 1] = 0.6
    P[1 + 0, 1] = 1.0  # covering this one makes it surer
    found = regions(GRID, P, 1)
    assert [(r.left, r.top, r.right, r.bottom) for r in found] == [(0.5, 0.25, 0.75, 0.5), (0.25, 0.25, 0.5, 0.5)]
    np.testing.assert_allclose([r.drop for r in found], [0.7, 0.3], rtol=1e-6)
    assert [place(r) for r in found] == ["centre", "centre"]
    assert regions(GRID, P, 0) == []
    assert len(regions(GRID, P, 1, top=1)) == 1


@given(
    st.integers(0, 20).flatmap(
        lambda m: st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=m + 1, max_size=m + 1)
    ),
    st.integers(0, 2),
    st.integers(0, 6),
)
def test_regions_are_the_largest_drops(rows, column, top):
    P = np.array(rows, np.float32)
    boxes = [(k / 100, 0.0, k / 100 + 0.01, 1.0) for k in range(len(P) - 1)]
    found = regions(boxes, P, column, top=top)
    drops = [float(P[0, column] - p) for p in P[1:, column]]
    assert [r.drop for r in found] == sorted((d for d in drops if d > 0), reverse=True)[:top]
    for r in found:
        assert drops[boxes.index((r.left, r.top, r.right, r.bottom))] == r.drop


def test_equal_regions_come_in_their_order():
    P = np.array([[1.0], [0.5], [0.5], [0.5]], np.float32)
    assert [r.left for r in regions([(0.4, 0, 1, 1), (0.2, 0, 1, 1), (0.3, 0, 1, 1)], P, 0)] == [0.4, 0.2, 0.3]


def test_a_picture_nothing_was_covered_of_has_no_reason():
    assert regions([], np.ones((1, 3), np.float32), 2) == []


@pytest.mark.parametrize("shape", [(16, 2), (18, 2), (17,)])
def test_answers_of_another_number_are_refused(shape):
    with pytest.raises(ValueError, match="16 boxes need"):
        regions(GRID, np.zeros(shape, np.float32), 0)


@pytest.mark.parametrize(
    ("x", "y", "name"),
    [
        (0.1, 0.1, "upper left"),
        (0.5, 0.1, "top"),
        (0.9, 0.1, "upper right"),
        (0.1, 0.5, "left"),
        (0.5, 0.5, "centre"),
        (0.9, 0.5, "right"),
        (0.1, 0.9, "lower left"),
        (0.5, 0.9, "bottom"),
        (1.0, 1.0, "lower right"),
    ],
)
def test_places_are_named(x, y, name):
    assert place(Region(x - 0.05, y - 0.05, x + 0.05, y + 0.05, 0.3)) == name


@given(*[st.floats(-0.5, 1.5)] * 4)
def test_every_region_has_a_place_and_its_mirror_the_mirrored_one(a, b, c, d):
    left, right, top, bottom = *sorted((a, b)), *sorted((c, d))
    here, there = place(Region(left, top, right, bottom, 1.0)), place(Region(1 - right, top, 1 - left, bottom, 1.0))
    middle = (left + right) / 2
    if min(abs(middle - 1 / 3), abs(middle - 2 / 3)) > 1e-9:
        assert there == here.replace("left", "?").replace("right", "left").replace("?", "right")
