"""Choosing a base and a cut: the best where it is better, the cheapest where nothing tells them apart."""

import numpy as np
import pytest

from headstart import backbones, choosing
from headstart.choosing import Candidate, Limits, cuts, select, spread, suitable
from headstart.dataset import read
from headstart.errors import InputError, NotFound
from toybase import Toy

WORDS = ("fruit", "metal", "bird", "tree")


def rows(n, seed=0):
    rng = np.random.default_rng(seed)
    return read([(f"{WORDS[i % 4]} {rng.integers(1 << 30)}", WORDS[i % 4]) for i in range(n)])


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Time is the share of the network that runs, so that tests do not depend on the machine."""

    def milliseconds(base, contents):
        deepest = max([int(p.removeprefix("max")) for p in base.card.cut.split("+")], default=0)
        return 10.0 * (deepest + 1) / len(base.taps) * (base.megabytes / 30)

    monkeypatch.setattr(choosing, "milliseconds", milliseconds)
    monkeypatch.setattr(choosing, "far", lambda base, part, features: ("near", "It knows such texts."))


def test_cuts_follow_the_usual_one():
    assert cuts(Toy()) == ["0", "1", "2"]
    assert cuts(Toy(cut="2+max2")) == ["0+max0", "1+max1", "2+max2"]
    assert cuts(backbones.load("fake")) == ["top"]


def test_the_deep_cut_is_recommended_where_only_it_knows():
    found = select(rows(300), [Toy()], Limits())
    best = found["recommended"]
    assert (best["backbone"], best["cut"]) == ("toy", "2")
    assert best["low"] < best["accuracy"] <= best["high"]
    assert "the best of" in best["why"]
    assert "points behind" in best["why"]
    by_cut = {row["cut"]: row for row in found["candidates"]}
    assert by_cut["0"]["accuracy"] < by_cut["1"]["accuracy"] < by_cut["2"]["accuracy"]
    assert by_cut["0"]["mb"] == pytest.approx(10)
    assert found["n"] == 300
    assert found["seconds"] > 0


def test_the_cheapest_is_recommended_where_nothing_tells_them_apart():
    found = select(rows(300), [Toy(signal=(4.0, 4.0, 4.0))], Limits())
    assert found["recommended"]["cut"] == "0"
    assert "do not tell it from the best" in found["recommended"]["why"] or "quickest" in found["recommended"]["why"]


def test_one_pass_serves_every_cut_of_a_base():
    toy = Toy()
    select(rows(120, seed=7), [toy], Limits())
    wide = [n for cut, n in toy.asked if cut == "0+1+2"]
    assert sum(wide) == 120
    assert not [n for cut, n in toy.asked if "+" not in cut and n > 1]


def test_the_hopeless_do_not_see_the_large_sample():
    toy = Toy(signal=(0.0, 0.0, 0.0, 0.0, 0.0, 3.0), cut="5")
    found = select(rows(2_000), [toy], Limits())
    seen = {row["cut"]: row["n"] for row in found["candidates"]}
    assert seen["5"] == 2_000
    assert min(seen.values()) < 1_000
    assert found["candidates"][0]["cut"] == "5"


def test_limits_of_size_and_latency():
    toy = Toy()
    found = select(rows(200), [toy], Limits(size=21))
    assert {row["cut"] for row in found["candidates"]} == {"0", "1"}
    quick = select(rows(200), [toy], Limits(latency=7))
    assert quick["recommended"]["cut"] in ("0", "1")
    with pytest.raises(InputError, match="limits"):
        select(rows(200), [toy], Limits(size=1))


def test_a_budget_makes_the_samples_smaller():
    said = []
    found = select(rows(2_000), [Toy()], Limits(budget=0.001), say=said.append)
    assert max(row["n"] for row in found["candidates"]) <= choosing.LEAST
    assert "about" in said[0]


def test_the_sample_has_every_class_in_its_proportion_and_grows():
    data = read([(f"a {i}", "a" if i % 10 else "b") for i in range(1000)])
    small, large = spread(data, 100, 0), spread(data, 400, 0)
    assert set(small.tolist()) <= set(large.tolist())
    assert abs(int((data.y[small] == 1).sum()) - 10) <= 1
    assert list(small) == sorted(small)


def test_what_cannot_be_read_is_left_out_for_all():
    data = read(
        [(text, label) for text, label in [("x", "fruit")] + [(f"{w} {i}", w) for w in WORDS for i in range(30)]]
    )
    found = select(data, [Toy()], Limits())
    assert {row["n"] for row in found["candidates"]} == {120}


def test_suitable_names_what_is_left_out_and_why(monkeypatch):
    known = {"good": Toy("good"), "closed": Toy("closed", licence="CC-BY-NC-4.0"), "large": Toy("large", megabytes=900)}
    real = backbones.load
    monkeypatch.setattr(backbones, "load", lambda name, **more: known.get(name) or real(name, **more))
    kept, out = suitable("text", ["good", "closed", "large"], Limits(licence="commercial", size=100))
    assert [base.card.name for base in kept] == ["good", "words"]
    assert {one["backbone"]: one["why"] for one in out} == {
        "closed": "its licence, CC-BY-NC-4.0, is not known to allow commercial use",
        "large": "even at its shallowest cut it has 300 MB",
    }
    with pytest.raises(NotFound, match="no backbone 'goood'"):
        suitable("text", ["goood"], Limits())


def test_a_tie_is_decided_by_the_rows_both_were_judged_on():
    right = np.r_[np.ones(80), np.zeros(20)]
    worse = right.copy()
    worse[:3] = 0
    best, other = (Candidate(Toy(), False, right=r) for r in (right, worse))
    loss, noise = other.behind(best)
    assert loss == pytest.approx(0.03)
    assert 0 < noise < 0.03
