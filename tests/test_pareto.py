"""Accuracy against cost: the front, the picture, the page."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import example_facts
from headstart import pareto
from headstart.pareto import front, page, picture

SVG = "{http://www.w3.org/2000/svg}"


def candidates(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """n made-up candidates, slow ones better on the whole."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(n):
        ms = float(10 ** rng.uniform(0, 2))
        accuracy = float(np.clip(0.7 + 0.1 * np.log10(ms) + rng.normal(0, 0.03), 0, 1))
        found.append(
            {
                "backbone": ("mobilenet-v2-100", "resnet18", "dinov2-small")[k % 3], "cut": str(k), "accuracy": accuracy,
                "low": max(0.0, accuracy - 0.03), "high": min(1.0, accuracy + 0.02), "mb": ms * float(rng.uniform(0.2, 2)),
                "ms": ms, "n": 400, "tie": accuracy > 0.85, "licence": "Apache-2.0", "note": "Near to what it has seen.",
            }
        )  # fmt: skip
    return found


def selection(n: int = 24) -> dict[str, Any]:
    rows = candidates(n)
    return {
        "data": "trash", "candidates": rows, "seconds": 41.2, "warnings": ["Judged on 400 pictures only."],
        "recommended": {"backbone": rows[n // 5]["backbone"], "cut": rows[n // 5]["cut"], "why": "Quick, and as good."},
        "excluded": [{"backbone": "clip", "why": "its licence forbids commercial use"}], "modality": "image",
    }  # fmt: skip


figures = st.one_of(
    st.none(), st.integers(0, 4), st.floats(0, 1), st.sampled_from([float("nan"), float("inf"), -1, True])
)


def dominates(a: dict[str, Any], b: dict[str, Any]) -> bool:
    no_worse = a["accuracy"] >= b["accuracy"] and a["ms"] <= b["ms"]
    return no_worse and (a["accuracy"] > b["accuracy"] or a["ms"] < b["ms"])


@given(st.lists(st.fixed_dictionaries({"accuracy": figures, "ms": figures}), max_size=12))
@settings(max_examples=400, deadline=None)
def test_nobody_on_the_front_is_dominated_and_everybody_off_it_is(rows: list[dict[str, Any]]) -> None:
    best = front(rows)
    assert len(best) == len(set(best))
    usable = [i for i, row in enumerate(rows) if pareto._place(row) is not None]
    assert set(best) <= set(usable)
    for i in usable:
        assert (i in best) is not any(dominates(rows[j], rows[i]) for j in usable)
    assert [rows[i]["ms"] for i in best] == sorted(rows[i]["ms"] for i in best)
    assert bool(best) is bool(usable)


def test_the_front_by_hand() -> None:
    rows = [
        {"ms": ms, "accuracy": a} for ms, a in ((5, 0.9), (1, 0.7), (2, 0.6), (5, 0.8), (1, 0.7), (9, 0.9), (3, None))
    ]
    assert front(rows) == [1, 4, 0]
    assert front([]) == []


def boxes(drawn: str) -> list[tuple[float, float, float, float]]:
    """Where the names in a picture are, a little narrower than they may be at most."""
    found = []
    for text in ET.fromstring(drawn).iter(f"{SVG}text"):
        if "label" in text.get("class", ""):
            wide = 0.9 * pareto._width((text.text or "").strip("\u2068\u2069"))
            x, y = float(text.get("x", 0)), float(text.get("y", 0))
            left = x - wide * {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor", "start")]
            found.append((left, y - 10, left + wide, y + 2))
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_names_do_not_overlap_and_stay_inside(n: int, seed: int) -> None:
    rows = candidates(n, seed)
    placed = boxes(picture(rows, recommended=rows[n // 2]))
    assert placed
    for k, (left, top, right, bottom) in enumerate(placed):
        assert left >= 0
        assert right <= pareto.WIDE
        assert top >= 0
        assert bottom <= pareto.HIGH
        for left_, top_, right_, bottom_ in placed[:k]:
            assert min(right, right_) <= max(left, left_) or min(bottom, bottom_) <= max(top, top_)


def test_a_front_of_forty_is_drawn_and_the_recommended_is_named() -> None:
    rows = [
        {
            "backbone": f"a-network-with-a-long-name-{k}",
            "cut": "14+top",
            "accuracy": 0.6 + 0.009 * k,
            "ms": 1.1**k,
            "mb": k,
        }
        for k in range(40)
    ]
    drawn = picture(rows, recommended={"backbone": "a-network-with-a-long-name-17", "cut": "14+top", "why": "so"})
    tree = ET.fromstring(drawn)
    (line,) = tree.iter(f"{SVG}polyline")
    places = [tuple(map(float, pair.split(","))) for pair in str(line.get("points")).split()]
    assert len(places) == 40
    assert places == sorted(places)
    assert [y for _, y in places] == sorted((y for _, y in places), reverse=True)
    steps = np.diff([x for x, _ in places])
    assert np.ptp(steps) < 0.3  # 1.1 times is one step, everywhere
    (best,) = [text for text in tree.iter(f"{SVG}text") if text.get("class") == "label best"]
    assert "long-name-17" in str(best.text)
    (ring,) = [circle for circle in tree.iter(f"{SVG}circle") if circle.get("class") == "ring"]
    assert abs(float(ring.get("cx", 0)) - places[17][0]) < 0.2
    assert str(tree.findtext(f"{SVG}desc")).count(";") == 39
    assert "Recommended: \u2068a-network-with-a-long-name-17 at 14+top\u2069." in str(tree.findtext(f"{SVG}desc"))


def test_the_picture_says_what_it_shows() -> None:
    rows = candidates(5)
    rows[0] |= {"tie": False, "accuracy": 0.1, "low": 0.05, "high": 0.2, "ms": 99.0, "mb": 1000.0}
    tree = ET.fromstring(picture(rows, recommended=None))
    assert tree.get("role") == "img"
    assert tree.findtext(f"{SVG}title") == "Accuracy against time of 5 candidates"
    dots = {str(c.findtext(f"{SVG}title")): c for c in tree.iter(f"{SVG}circle")}
    assert len(dots) == 5
    tip = "\u2068mobilenet-v2-100 at 0\u2069: 10.0\u202f% (5.0 to 20.0\u202f%), 99\u202fms, 1,000\u202fMB"
    assert dots[tip].get("class") == "dot pale"
    assert float(dots[tip].get("r", 0)) == max(float(dot.get("r", 0)) for dot in dots.values())
    whiskers = [line for line in tree.iter(f"{SVG}line") if line.get("class") == "whisker"]
    assert len(whiskers) == 5
    assert float(whiskers[0].get("y1", 0)) < float(dots[tip].get("cy", 0)) < float(whiskers[0].get("y2", 0))
    assert not [c for c in dots.values() if c.get("class") == "ring"]


def test_grey_is_off_the_front_and_known_to_be_worse() -> None:
    rows = [
        {"backbone": "quick", "ms": 1, "accuracy": 0.7, "tie": False},
        {"backbone": "good", "ms": 5, "accuracy": 0.9, "tie": True},
        {"backbone": "as good", "ms": 6, "accuracy": 0.89, "tie": True},
        {"backbone": "worse", "ms": 7, "accuracy": 0.6, "tie": False},
        {"backbone": "nobody knows", "ms": 8, "accuracy": 0.5},
    ]
    tree = ET.fromstring(picture(rows, recommended=None))
    grey = {str(c.findtext(f"{SVG}title")): "pale" in str(c.get("class")) for c in tree.iter(f"{SVG}circle")}
    assert [name for name, pale in sorted(grey.items()) if pale] == ["\u2068worse\u2069: 60.0\u202f%, 7.0\u202fms"]


@pytest.mark.parametrize("rows", [[], [{}], [{"ms": 1}, {"accuracy": 1.0}], [{"ms": 0, "accuracy": 0.5}]])
def test_without_figures_there_is_no_picture(rows: list[dict[str, Any]]) -> None:
    assert picture(rows, recommended=None) == ""


@given(st.lists(st.tuples(st.floats(1e-9, 1e12), st.floats(0, 1)), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_any_range_can_be_drawn(places: list[tuple[float, float]]) -> None:
    rows = [{"backbone": "x", "cut": str(k), "ms": ms, "accuracy": a} for k, (ms, a) in enumerate(places)]
    tree = ET.fromstring(picture(rows, recommended=rows[0]))
    for dot in tree.iter(f"{SVG}circle"):
        assert pareto.LEFT <= float(dot.get("cx", 0)) <= pareto.RIGHT
        assert pareto.TOP - 0.1 <= float(dot.get("cy", 0)) <= pareto.BOTTOM + 0.1
    words = [t for t in tree.iter(f"{SVG}text") if t.get("y") == str(pareto.BOTTOM + 20)]
    assert 1 <= len(words) <= 10


def plain(html: str) -> str:
    return re.sub(r"<[^>]+>", "", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL))


def test_the_page_tells_the_choice() -> None:
    facts = selection()
    html = page(facts)
    text = plain(html)
    chosen = facts["recommended"]
    assert f"Start from {chosen['backbone']} at cut {chosen['cut']}." in text
    for said in ("Quick, and as good.", "Judged on 400 pictures only.", "clip: its licence forbids commercial use"):
        assert said in text
    assert "24 candidates · judged on 400 held-out pictures · in 41\u202fs" in text
    assert html.count('<th scope="row">') == 24
    assert html.count("class=strong") == 1
    assert text.count("Near to what it has seen.") == 3  # once a backbone
    accuracies = [float(each) for each in re.findall(r"</svg></td><td>([\d.]+)", html)]
    assert accuracies == sorted(accuracies, reverse=True)
    assert html.count("on the front") >= len(front(facts["candidates"]))
    assert html.startswith("<!doctype html>")
    assert "default-src 'none'" in html
    assert not re.search(r"<script|src=|url\(|@import", html)


def test_what_is_said_of_some_cuts_names_them() -> None:
    facts = selection(6)
    facts["candidates"][0]["note"] = "Only here."
    text = plain(page(facts))
    assert "mobilenet-v2-100 at 0: Only here." in text
    assert "mobilenet-v2-100 at 3: Near to what it has seen." in text
    assert "resnet18: Near" in text


def test_hostile_names_stay_names() -> None:
    facts = selection(len(example_facts.HOSTILE))
    calm = page(facts)
    for row, word in zip(facts["candidates"], example_facts.HOSTILE, strict=True):
        row |= {"backbone": word, "cut": word, "licence": word, "note": word}
    facts |= {"data": example_facts.HOSTILE[0], "warnings": list(example_facts.HOSTILE)}
    facts["recommended"] = {
        "backbone": example_facts.HOSTILE[1],
        "cut": example_facts.HOSTILE[1],
        "why": "</p><script>",
    }
    facts["excluded"] = [{"backbone": word, "why": word} for word in example_facts.HOSTILE]
    html = page(facts)
    html.encode()
    for tag in ("script", "img", "h1", "style", "svg", "title"):
        assert html.count(f"<{tag}") == calm.count(f"<{tag}"), tag
    assert "\u202e" not in html
    ET.fromstring(picture(facts["candidates"], recommended=facts["recommended"]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_no_facts_break_the_page(data: st.DataObject) -> None:
    facts = json.loads(json.dumps(selection(4)))
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = facts
        while True:
            key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
            inner = place[key]
            if not isinstance(inner, dict | list) or not inner or data.draw(st.integers(0, 2)) == 0:
                place[key] = data.draw(JSON)
                break
            place = inner
    page(facts).encode()


def test_an_empty_choice_is_still_a_page() -> None:
    html = page({})
    assert "<section" not in html
    assert "0 candidates" in html
