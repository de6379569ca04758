"""The page of advice: complete, escaped, and never broken by a piece that is missing."""

import copy
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart import advice, advicepage

EVIL = "<script>alert(1)</script>\u202e\"'&"


def rung(name, value, **more):
    row = {
        "rung": name, "accuracy": value, "low": None, "high": None, "n": 0, "seconds": None, "ms": None, "mb": None,
        "gain": None, "noise": None, "tried": value is not None, "why": "", "backbone": "minilm", "cut": "6", "tie": False,
        "recommended": False,
    }  # fmt: skip
    if value is not None:
        row |= {"low": value - 0.04, "high": value + 0.03, "n": 240, "seconds": 2.5, "ms": 3.1, "mb": 90.0}
    return row | more


def facts():
    rows = [
        rung("majority", 0.2, seconds=0.0, ms=0.0, mb=0.0, backbone=None, cut=None),
        rung("no-network", 0.6, gain=0.4, noise=0.03, backbone="words", cut="top"),
        rung("static", 0.65, gain=0.05, noise=0.02),
        rung("linear", 0.7, gain=0.05, noise=0.02, recommended=True),
        rung("blocks:1", 0.71, gain=0.01, noise=0.02, tie=True),
        rung("all", None, why="it would take about 20 min, and 3 min of the time are left"),
    ]
    keys = ("rung", "accuracy", "low", "high", "n", "seconds", "ms", "mb", "backbone", "cut")
    points = [{"n": n, "accuracy": a, "low": a - 0.1, "high": a + 0.1} for n, a in ((50, 0.5), (100, 0.6), (200, 0.7))]
    found = {
        "data": "tickets.csv", "modality": "text", "task": "classification", "n": 240, "labelled": 900,
        "recommended": {key: rows[3][key] for key in keys}, "rungs": rows, "seconds": 31.0,
        "curve": {
            "points": points, "doubling": {"n": 480, "accuracy": 0.75, "low": 0.7, "high": 0.8, "gain": 0.05},
            "says": "Twice the labels (480) would bring about 5.0 points more (2.0 to 8.0).",
        },
        "classes": [{"label": "refund", "n": 30, "recall": 0.4, "gain": 0.1}],
        "distance": {"level": "near", "sentence": "minilm is near to these texts."},
        "forecast": {"gain": 0.1, "low": 0.02, "high": 0.2, "says": "Tuning would probably pay."},
        "not_tried": [{"rung": "all", "why": rows[5]["why"]}], "warnings": [], "interrupted": False, "blocks": 6,
    }  # fmt: skip
    return found | {"sentences": advice.sentences(found), "warnings": advice.warnings(found)}


class Reader(HTMLParser):
    """Collects tags, and the words between them."""

    def __init__(self):
        super().__init__()
        self.tags, self.words = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words += data


def read(page):
    reader = Reader()
    reader.feed(page)
    return reader


def svg(page):
    return ElementTree.fromstring(re.search(r"<svg xmlns.*?</svg>", page, re.DOTALL)[0])


def test_the_page_says_what_to_use_and_shows_every_rung():
    page = advicepage.page(facts())
    words = read(page).words
    assert "Use a linear head on frozen features of minilm, cut 6: accuracy 70.0 % expected (66.0 to 73.0 %" in words
    assert "do not tell it from blocks:1: a tie" in words
    assert "about 20 min" in words
    assert "refund (40 % found, n 30)" in words
    names = [node.text for node in svg(page).iter("{http://www.w3.org/2000/svg}text")]
    assert [name.strip("\u2068\u2069") for name in names if "\u2068" in (name or "")] == [
        "majority", "no-network", "static", "linear", "blocks:1", "all",
    ]  # fmt: skip


def test_the_ladder_stands_where_its_figures_are():
    drawn = svg(advicepage.page(facts()))
    dots = [node for node in drawn.iter() if node.get("class") == "dot"]
    assert len(dots) == 5
    assert [float(dot.get("cx")) for dot in dots] == sorted(float(dot.get("cx")) for dot in dots)
    heights = [float(dot.get("cy")) for dot in dots]
    assert heights == sorted(set(heights), reverse=True)  # more accurate is higher
    (ring,) = [node for node in drawn.iter() if node.get("class") == "ring"]
    assert ring.get("cy") == dots[3].get("cy")
    assert len([node for node in drawn.iter() if node.get("class") == "hollow"]) == 1


def test_the_page_loads_and_runs_nothing():
    page = advicepage.page(facts())
    tags = read(page).tags
    assert not {tag for tag, _ in tags} & {"script", "img", "iframe", "object", "form"}
    for tag, found in tags:
        assert not [key for key in found if key.startswith("on") or key == "src"]
        assert tag != "link" or found["href"].startswith("data:")
    assert "default-src 'none'" in page


def test_names_of_strangers_are_escaped_everywhere():
    found = facts()
    found["data"] = found["recommended"]["backbone"] = found["recommended"]["cut"] = EVIL
    for row in found["rungs"]:
        row |= {"rung": EVIL, "why": EVIL, "backbone": EVIL, "cut": EVIL}
    found["classes"][0]["label"] = EVIL
    found["not_tried"] = [{"rung": EVIL, "why": EVIL}]
    found["sentences"], found["warnings"] = [EVIL, EVIL], [EVIL]
    page = advicepage.page(found)
    assert "<script" not in page
    assert "\u202e" not in page
    assert "script" not in {tag for tag, _ in read(page).tags}
    svg(page)


def test_every_piece_may_be_missing():
    whole = facts()
    for key in whole:
        for value in (None, "?", 7, [], {}, [None, 3], float("nan")):
            advicepage.page({**whole, key: value})
    assert "<svg xmlns" not in advicepage.page({})
    for key in whole["rungs"][0]:
        found = copy.deepcopy(whole)
        for row in found["rungs"]:
            del row[key]
        advicepage.page(found)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["rung", "accuracy", "low", "high", "n", "seconds", "tried", "why"]), inner, max_size=4
        ),
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(sorted(facts())), JSON, max_size=6))
def test_whatever_it_is_given_it_is_a_page(found):
    page = advicepage.page(found)
    assert page.startswith("<!doctype html>")
    if "<svg xmlns" in page:
        svg(page)


@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_other_figures_are_called_by_their_names(task):
    found = facts() | {"task": task, "curve": None, "classes": []}
    page = advicepage.page(found)
    assert ("R²" if task == "regression" else "F1 a row") in read(page).words
    if task == "regression":
        assert "0.700" in page
