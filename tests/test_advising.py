"""The ladder: every rung judged on the same rows, the cheapest that is as good as the best, nothing tried for nothing."""

from dataclasses import dataclass, field
from importlib import import_module

import numpy as np
import pytest

from headstart import advice, advising, backbones, candidates, ladder, rung
from headstart.backbone import Tap
from headstart.dataset import read
from headstart.errors import InputError, MissingExtra, NotFound
from toybase import Toy

WORDS = ("fruit", "metal", "bird", "tree")


def rows(n, seed=0, labels=WORDS):
    """Texts whose first word is the label, but for one in ten, which says another."""
    rng = np.random.default_rng(seed)
    said = [i % len(labels) for i in range(n)]
    seen = [(k + 1) % len(labels) if i % 10 == 3 else k for i, k in enumerate(said)]
    return read([(f"{WORDS[seen[i]]} {rng.integers(1 << 30)}", labels[said[i]]) for i in range(n)])


@dataclass(frozen=True)
class Shallow(Toy):
    """A toy with token vectors: its first tap costs nothing."""

    @property
    def taps(self):
        last = len(self.signal) - 1
        return tuple(Tap(str(i), 12, int(1e6 * i), i / last) for i in range(last + 1))

    def at(self, cut):
        Toy.at(self, cut)
        return Shallow(self.name, self.signal, cut, self.licence, self.megabytes, self.asked)


@dataclass(frozen=True)
class Blind:
    """The baseline without a network, of texts it sees nothing in."""

    seen: float = 0.0
    toy: Toy = field(default_factory=lambda: Toy(name="words", signal=(0.0,), cut="0"))

    @property
    def card(self):
        return self.toy.card

    def encode(self, contents):
        return self.toy.encode(contents)


@dataclass(frozen=True)
class Tried:
    k: int
    rung: str
    right: np.ndarray
    scores: np.ndarray
    seconds: float


def tuner(share, *, seconds=1.0, fault=None, asked=None, seed=1):
    """A climb whose rungs are right on share[k] of the rows."""

    def climb(base, train, *, ks, folds, budget, seed=seed, say, progress):
        if asked is not None:
            asked.append((tuple(ks), budget, len(folds) == len(train), base.card.cut))
        for k in ks:
            if fault is not None and k >= fault[0]:
                raise fault[1]
            right = (np.random.default_rng(7).permutation(len(train)) < share[k] * len(train)).astype(float)
            right[folds < 0] = np.nan
            yield Tried(k, ladder.named(k, len(base.taps) - 1), right, np.zeros((len(train), 4), np.float32), seconds)

    return climb


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Time is the share of the network that runs; the baseline sees nothing; the base knows such texts."""

    def milliseconds(base, contents):
        if base.card.name == "words":
            return 0.1
        deepest = max(int(p.removeprefix("max")) for p in base.card.cut.split("+"))
        return 0.2 + 10.0 * base.taps[deepest].operations

    load = backbones.load
    for module in (advising, rung, candidates):
        monkeypatch.setattr(module, "milliseconds", milliseconds)
    monkeypatch.setattr(advising, "far", lambda base, part, features: ("near", "It knows such texts."))
    monkeypatch.setattr(backbones, "load", lambda name, **more: Blind() if name == "words" else load(name, **more))
    monkeypatch.setattr(ladder, "paying", lambda *_, **__: (0.1, 0.02, 0.3, "Tuning would probably pay."))


DEEP = Shallow(signal=(0.0, 0.2, 0.4, 0.6, 3.0), cut="4")


def by_name(found):
    return {row["rung"]: row for row in found["rungs"]}


def test_every_rung_is_judged_on_the_same_rows_from_cheap_to_dear(monkeypatch):
    monkeypatch.setattr("headstart.rung.SEVERAL", 0)  # as with many rows
    found = advising.advise(rows(200), DEEP, climb=tuner({1: 0.9, 2: 0.9, 3: 0.9, 4: 0.9}))
    names = [row["rung"] for row in found["rungs"]]
    assert names == ["majority", "no-network", "static", "linear", "blocks:1", "blocks:2", "blocks:3", "all"]
    assert {row["n"] for row in found["rungs"] if row["tried"]} == {200}
    for row in found["rungs"]:
        assert row["low"] <= row["accuracy"] <= row["high"]
    assert by_name(found)["majority"]["accuracy"] == pytest.approx(0.25)
    assert by_name(found)["static"]["cut"] == "0"
    assert by_name(found)["linear"]["cut"] in ("4", "0+2+4")
    assert found["recommended"]["rung"] == "linear"  # 0.9 by the first word; the tuned ones are no better
    linear, static = by_name(found)["linear"], by_name(found)["static"]
    assert linear["gain"] == pytest.approx(linear["accuracy"] - static["accuracy"])
    assert "Use a linear head on frozen features of toy" in found["sentences"][0]
    assert found["sentences"][0].count("%") == 2


def test_a_tuned_rung_that_is_better_by_more_than_its_noise_is_recommended():
    found = advising.advise(rows(300), DEEP, climb=tuner({1: 0.5, 2: 0.99, 3: 0.99, 4: 0.99}))
    assert found["recommended"]["rung"] == "linear"  # one block was far behind: the rest was not tried
    why = by_name(found)["blocks:2"]["why"]
    assert "blocks:1 is" in why
    assert "behind linear already" in why
    found = advising.advise(rows(300), DEEP, climb=tuner({1: 0.9, 2: 0.99, 3: 0.99, 4: 0.99}))
    assert found["recommended"]["rung"] == "blocks:2"
    assert by_name(found)["blocks:3"]["tie"]
    assert by_name(found)["all"]["tie"]
    assert any("blocks:3 or all: a tie" in line for line in found["sentences"])
    assert advice.command(found, "a b.csv") == "headstart tune 'a b.csv' --blocks 2 --backbone toy"


def test_the_tuner_gets_the_rows_the_folds_and_what_is_left_of_the_time():
    asked = []
    advising.advise(rows(120), DEEP, climb=tuner(dict.fromkeys(range(5), 0.9), asked=asked), budget=1000)
    ((ks, budget, fits, cut),) = asked
    assert ks == (1, 2, 3, 4)
    assert fits
    assert cut == "4"
    assert 900 < budget < 1000


def test_what_does_not_fit_into_the_time_is_not_begun():
    asked = []
    found = advising.advise(
        rows(300), DEEP, climb=tuner(dict.fromkeys(range(5), 0.9), seconds=1e4, asked=asked), budget=600
    )
    assert by_name(found)["blocks:1"]["tried"]
    assert not by_name(found)["blocks:2"]["tried"]  # the first took 10,000 s: the second would take more
    assert "are left" in by_name(found)["blocks:2"]["why"]
    found = advising.advise(rows(300), DEEP, climb=tuner(dict.fromkeys(range(5), 0.9)), budget=5)
    assert "would take about" in by_name(found)["blocks:1"]["why"]
    assert found["recommended"]["rung"] == "linear"
    assert [one["rung"] for one in found["not_tried"]] == ["blocks:1", "blocks:2", "blocks:3", "all"]


def test_a_short_time_means_fewer_rows():
    found = advising.advise(rows(2000), DEEP, budget=10)
    assert 200 <= found["n"] < 500
    assert found["labelled"] == 2000
    assert any("of 2,000 labelled" in line for line in found["sentences"])


def test_without_torch_the_forecast_stands_and_the_pip_line_is_said():
    missing = MissingExtra("tuning needs torch: pip install 'headstart[torch]'")
    found = advising.advise(rows(200), DEEP, climb=tuner({}, fault=(1, missing)))
    assert [row["tried"] for row in found["rungs"]] == [True] * 4 + [False] * 4
    assert "pip install" in by_name(found)["all"]["why"]
    assert found["forecast"]["says"] == "Tuning would probably pay."
    assert "Tuning would probably pay." in found["sentences"]
    assert any("It was not tried: tuning needs torch" in line for line in found["sentences"])


def test_a_tuner_that_gives_up_half_way_leaves_what_it_found():
    fault = InputError("the graph has an operator that cannot be trained.")
    found = advising.advise(rows(200), DEEP, climb=tuner({1: 0.9}, fault=(2, fault)))
    assert by_name(found)["blocks:1"]["tried"]
    assert "operator" in by_name(found)["blocks:2"]["why"]
    assert len(found["rungs"]) == 8


def test_nothing_is_tuned_where_the_features_say_that_it_cannot_pay(monkeypatch):
    monkeypatch.setattr(ladder, "paying", lambda *_, **__: (0.0, 0.0, 0.004, "It would not help."))
    asked = []
    found = advising.advise(rows(200), DEEP, climb=tuner({}, asked=asked))
    assert not asked
    assert "0.4 points of gain at most" in by_name(found)["blocks:1"]["why"]


def test_the_climb_stops_where_nothing_is_left_to_gain(monkeypatch):
    monkeypatch.setattr(backbones, "load", lambda name, **more: Blind(toy=Toy(name="words", signal=(9.0,), cut="0")))
    data = read([(f"{WORDS[i % 4]} {i}", WORDS[i % 4]) for i in range(800)])
    toy = Shallow(signal=(0.0, 1.0), cut="1")
    found = advising.advise(data, toy, climb=tuner({}))
    assert found["recommended"]["rung"] == "no-network"
    assert [row["rung"] for row in found["rungs"] if row["tried"]] == ["majority", "no-network"]
    assert "nothing is left to gain" in by_name(found)["linear"]["why"]
    assert not toy.asked
    assert advice.command(found, "x.csv") == "headstart fit x.csv --backbone words"


def test_labels_that_nothing_tells_apart_get_no_model():
    rng = np.random.default_rng(0)
    data = read([(f"{WORDS[i % 4]} {i}", str(rng.integers(2))) for i in range(200)])
    found = advising.advise(data, Shallow(signal=(1.0, 1.0), cut="1"), climb=tuner({1: 0.5}))
    assert found["recommended"]["rung"] == "majority"
    assert "Fit no model yet" in found["sentences"][0]
    assert advice.command(found, "x.csv") is None
    assert "not shown to be better than the same answer" in found["warnings"][0]


def judged(name, right):
    right = np.asarray(right, float)
    return rung.Rung(name, right, right.copy())


def test_few_examples_leave_room_for_what_is_known_of_other_sets(monkeypatch):
    monkeypatch.setattr("headstart.rung.SEVERAL", 0)  # as with many rows
    few, many = np.arange(20) < 12, np.arange(20_000) < 12_000
    for cheap, won in ((few, True), (many, False)):
        rows, dear = np.arange(len(cheap)), np.roll(cheap, 1)
        assert rung.better(judged("static", cheap), judged("linear", dear), rows) is won  # equally right on both
        assert not rung.better(judged("linear", cheap), judged("blocks:1", dear), rows)  # that costs minutes: no gift
        assert rung.better(judged("majority", cheap), judged("linear", dear), rows) is won
    far = np.arange(20_000) < 13_000
    assert rung.better(judged("static", many), judged("linear", far), np.arange(20_000))
    assert rung.better(judged("linear", many), judged("blocks:1", far), np.arange(20_000))


def test_control_c_keeps_what_was_found(monkeypatch):
    monkeypatch.setattr("headstart.rung.SEVERAL", 0)  # as with many rows
    found = advising.advise(rows(200), DEEP, climb=tuner({1: 0.9}, fault=(2, KeyboardInterrupt())))
    assert found["interrupted"]
    assert found["recommended"]["rung"] == "linear"
    assert [row["rung"] for row in found["rungs"]][-1] == "blocks:1"
    assert "Interrupted" in found["warnings"][0]


def test_a_closed_tuner_is_told_so():
    closed = []

    def climb(base, train, *, ks, folds, budget, seed, say, progress):
        try:
            yield Tried(1, "blocks:1", np.zeros(len(train)), np.zeros((len(train), 4)), 1.0)
        finally:
            closed.append(True)

    advising.advise(rows(200), DEEP, climb=climb)
    assert closed


def test_without_a_base_the_reason_is_given():
    found = advising.advise(rows(60), None, why="no base model is installed.")
    assert [row["rung"] for row in found["rungs"] if row["tried"]] == ["majority", "no-network"]
    assert {one["why"] for one in found["not_tried"]} == {"no base model is installed."}
    assert found["curve"] is not None


def test_too_far_a_base_is_not_tuned(monkeypatch):
    monkeypatch.setattr(advising, "far", lambda base, part, features: ("too far", "The toy is too far."))
    found = advising.advise(rows(100), DEEP, climb=tuner({}))
    assert "too far" in by_name(found)["all"]["why"]
    assert "The toy is too far." in found["warnings"]


def test_the_curve_and_the_classes_that_need_labels():
    found = advising.advise(rows(300), DEEP)
    assert found["curve"]["doubling"]["n"] == 600
    assert any("Twice the labels (600)" in line for line in found["sentences"])
    assert all(set(one) == {"label", "n", "recall", "gain"} for one in found["classes"])
    assert found["distance"] == {"level": "near", "sentence": "It knows such texts."}


@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_other_tasks(task):
    rng = np.random.default_rng(0)
    if task == "regression":
        data = read([(f"{WORDS[i % 4]} {i}", float(i % 4) + 0.1 * rng.normal()) for i in range(120)], task=task)
    else:
        data = read(
            [(f"{WORDS[i % 4]} {i}", [WORDS[i % 4], "even" if i % 2 else "odd"]) for i in range(120)], task=task
        )
    found = advising.advise(data, Shallow(signal=(0.0, 2.0), cut="1"))
    assert found["recommended"]["rung"] == "linear"
    assert found["curve"] is None
    assert ("R²" if task == "regression" else "F1 a row") in found["sentences"][0]


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(InputError, match="nothing can be held out"):
        advising.advise(read([("fruit 1", "a"), ("bird 2", "b"), ("tree 3", "c"), ("metal 4", "d")]), DEEP)


def test_usual_base_and_licence(monkeypatch):
    monkeypatch.setattr(backbones, "load", lambda name, **_: Toy(licence="CC-BY-NC-4.0"))
    base, why = advising.usual("text", None, "commercial")
    assert base is None
    assert "not known to allow commercial use" in why
    with pytest.raises(InputError, match="left out"):
        advising.usual("text", "toy", "commercial")
    with pytest.raises(InputError, match="these examples are image"):
        advising.usual("image", "toy", "any")
    assert advising.usual("text", "toy", "any")[0] is not None
    assert advising.usual("text", "words", "any")[0] is None
    monkeypatch.undo()
    with pytest.raises(NotFound):
        advising.usual("text", "nosuch", "any")


@pytest.fixture
def line(monkeypatch):
    """The command line, over a verb that gives what it is told."""
    from typer.testing import CliRunner

    import_module("headstart.cli.advising")  # the command hangs itself on the application
    from headstart import api
    from headstart.cli.app import app

    def call(found, *args):
        asked = {}

        def verb(data, **more):
            asked.update(more, data=data)
            return found

        monkeypatch.setattr(api, "advise", verb, raising=False)
        return CliRunner().invoke(app, ["advise", "tickets.csv", *args], env={"COLUMNS": "160"}), asked

    return call


def test_the_command_prints_the_ladder_and_the_next_step(line):
    found = advising.advise(rows(200), DEEP) | {"next": "headstart fit tickets.csv --backbone toy --cut 4"}
    done, asked = line(found, "--budget", "90s", "--licence", "commercial", "--backbone", "toy")
    assert done.exit_code == 0, done.output
    assert (asked["budget"], asked["licence"], asked["backbone"]) == ("90s", "commercial", "toy")
    for word in ("majority", "no-network", "static", "linear", "not tried: blocks:1, blocks:2, blocks:3, all:"):
        assert word in done.output
    assert "Next:   headstart fit tickets.csv --backbone toy --cut 4" in done.output


def test_the_command_prints_json(line):
    import json

    found = advising.advise(rows(200), DEEP) | {"next": None}
    done, _ = line(found, "--json")
    told = json.loads(done.stdout)  # json has no NaN: print_json would have failed
    assert set(told) >= {
        "recommended", "rungs", "seconds", "curve", "classes", "distance", "not_tried", "warnings", "sentences"
    }  # fmt: skip
    assert set(told["recommended"]) >= {"rung", "accuracy", "low", "high"}
    keys = {"rung", "accuracy", "low", "high", "n", "seconds", "ms", "mb", "gain", "tried", "why"}
    assert all(set(row) >= keys for row in told["rungs"])


def test_the_exit_code_of_an_interruption(line):
    fault = (1, KeyboardInterrupt())
    found = advising.advise(rows(200), DEEP, climb=tuner({}, fault=fault)) | {"next": None}
    done, _ = line(found)
    assert done.exit_code == 130
    assert "Interrupted" in done.output
    assert "linear" in done.output


def test_a_tuned_rung_on_few_rows_is_weighed_with_what_tuning_brings():
    groups = np.arange(60)
    low = judged("linear", np.arange(60) < 36)
    assert rung.better(low, judged("all", np.arange(60) < 36), groups)  # no gain seen, much wrong
    assert not rung.better(low, judged("all", np.arange(60) < 20), groups)  # a clear loss
    assert not rung.better(judged("linear", np.ones(60, bool)), judged("all", np.ones(60, bool)), groups)
