"""Answers as JSON: the plain way and the way by columns say the same."""

from types import SimpleNamespace

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.answers import Answers
from headstart.head import CLASSIFICATION, MULTILABEL, REGRESSION
from headstart.server import rendering
from headstart.serving.asked import Said

HOSTILE = [
    '"',
    "\\",
    "\\u0000",
    "\x00",
    "\n\r\t",
    "</script>",
    "\u2028",
    "é",
    "é",
    "\u202e",
    "🦉",
    "",
    " ",
    "null",
    ',"x":1',
    "}]}",
]


def said(P, labels, *, task=CLASSIFICATION, unknown=None, name="m", id="abc-0", chosen=None, why=None):
    P = np.asarray(P, np.float32)
    chosen = np.zeros(P.shape, bool) if chosen is None else np.asarray(chosen)
    unknown = np.zeros(len(P), bool) if unknown is None else np.asarray(unknown)
    served = SimpleNamespace(name=name, version="v3", digest="d" * 64, labels=tuple(labels), task=task)
    return Said(name, served, "live", Answers(P, chosen, unknown), id, why)


labels = st.lists(
    st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    min_size=1,
    max_size=5,
    unique=True,
)


@st.composite
def replies(draw):
    n = draw(st.integers(1, 4))
    made = []
    for i in range(draw(st.integers(1, 5))):
        names = draw(labels)
        share = st.floats(0, 1, width=32) | st.sampled_from([0.0, 1.0, 5e-7, 1e-6, 0.9999995, 0.1234565])
        P = draw(st.lists(st.lists(share, min_size=len(names), max_size=len(names)), min_size=n, max_size=n))
        unknown = draw(st.lists(st.booleans(), min_size=n, max_size=n))
        made.append(said(P, names, unknown=unknown, name=f"m{i}", id=f"id{i}"))
    return made


@settings(max_examples=150, deadline=None)
@given(replies(), st.booleans())
def test_columns_give_what_the_plain_way_gives(made, judge):
    columns = [orjson.loads(text) for text in rendering.by_columns(made, judge=judge)]
    plain = [{**rendering.named(one), "predictions": rendering.predictions(one, judge=judge)} for one in made]
    assert columns == orjson.loads(orjson.dumps(plain))
    assert [list(one["predictions"][0]) for one in columns] == [["id", "label", "probability", "unknown"]] * len(made)


def test_a_thousand_models_are_cut_apart_at_the_right_places(monkeypatch):
    rng = np.random.default_rng(0)
    made = []
    for i in range(100):
        c = 2 + i % 4
        task = (CLASSIFICATION, CLASSIFICATION, MULTILABEL, REGRESSION)[i % 4]
        P = rng.dirichlet(np.ones(c), 8)[:, : 1 if task == REGRESSION else c]
        made.append(
            said(
                P,
                [f"{i}-{j}" for j in range(c)],
                task=task,
                name=f"m{i}",
                id=f"x{i}",
                unknown=P[:, 0] > 0.5,
                chosen=P > 0.4,
            )
        )
    quick = rendering.every(made)
    calls = []
    monkeypatch.setattr(rendering, "MANY", 10**9)
    monkeypatch.setattr(rendering, "by_columns", lambda *a, **k: calls.append(a))
    assert orjson.loads(rendering.every(made)) == orjson.loads(quick)
    assert not calls
    found = orjson.loads(quick)["models"]
    assert [one["model"] for one in found] == [f"m{i}" for i in range(100)]
    assert found[7]["predictions"][3]["id"] == "x7.3"


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1.5, -0.1])
def test_what_is_no_probability_is_left_to_the_plain_way(wrong):
    P = np.full((600, 2), 0.25)
    P[17, 1] = wrong
    made = said(P, "ab")
    assert rendering.by_columns([made], judge=True) is None or wrong == -0.1
    found = orjson.loads(rendering.one(made))["predictions"]
    assert len(found) == 600


def test_numbers_have_the_digits_of_a_float32():
    made = said([[1.2], [3e-7], [16777216.0], [-0.5]], (), task=REGRESSION)
    assert [one["value"] for one in rendering.predictions(made)] == [1.2, 3e-7, 16777216.0, -0.5]
    assert list(rendering.predictions(made)[0]) == ["id", "value", "unknown"]


def test_several_labels_and_none():
    made = said([[0.7, 0.6], [0.1, 0.2]], "ab", task=MULTILABEL, chosen=[[True, True], [False, False]])
    both, none = rendering.predictions(made)
    assert (both["label"], both["labels"], both["probability"]) == ("a", ["a", "b"], 0.7)
    assert (none["label"], none["labels"], none["probability"]) == (None, [], 0.2)


def test_top_is_in_order_and_no_longer_than_the_labels():
    made = said([[0.2, 0.5, 0.3], [1 / 3, 1 / 3, 1 / 3]], "abc")
    first, second = rendering.predictions(made, top=2)
    assert first["top"] == [{"label": "b", "probability": 0.5}, {"label": "c", "probability": 0.3}]
    assert [one["label"] for one in second["top"]] == ["a", "b"]
    assert len(rendering.predictions(made, top=9)[0]["top"]) == 3


def test_reasons_stand_with_their_prediction():
    made = said([[1, 0], [0, 1]], "ab", why=[{"words": [1]}, {"words": [2]}])
    assert [one["why"]["words"] for one in rendering.predictions(made)] == [[1], [2]]


def test_unjudged_is_null():
    made = said(np.tile([[0.6, 0.4]], (600, 1)), "ab")
    assert {one["unknown"] for one in orjson.loads(rendering.one(made, judge=False))["predictions"]} == {None}
