"""What is said of the climb: the advice, the next command, the classes that need labels, and a word after `fit`."""

import numpy as np

from headstart import advice
from test_advicepage import facts


def test_sentences_of_a_forecast_that_was_not_tried():
    found = facts()
    found["rungs"][4] |= {"tried": False, "accuracy": None, "why": "pip install it."}
    said = advice.sentences(found)
    assert "Tuning would probably pay." in said
    assert "It was not tried: pip install it." in said
    assert not any("Tuning would" in line for line in advice.sentences(facts()))  # it was tried: what was seen counts


def test_the_next_command():
    found = facts()
    assert advice.command(found, "a.csv") == "headstart fit a.csv --backbone minilm --cut 6"
    for name, line in (("all", "headstart tune a.csv --blocks 6"), ("blocks:2", "headstart tune a.csv --blocks 2")):
        found["recommended"]["rung"] = name
        assert advice.command(found, "a.csv") == line
    found["recommended"]["rung"] = "majority"
    assert advice.command(found, "a.csv") is None


def test_weakest_classes_are_those_that_gain_then_those_that_are_missed():
    rows = [
        {"label": "good", "n": 50, "recall": 0.99, "gain": 0.0},
        {"label": "gains", "n": 50, "recall": 0.6, "gain": 0.3},
        {"label": "missed", "n": 50, "recall": 0.5, "gain": 0.0},
        {"label": "tiny", "n": 1, "recall": 0.0, "gain": 1.0},
    ]
    assert [row["label"] for row in advice.weakest(rows)] == ["gains", "missed", "tiny"]


def test_worth_speaks_only_where_enough_was_held_out():
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    X = rng.normal(size=(80, 6)).astype(np.float32)
    scores = np.stack([1 - y, y], 1).astype(np.float32)
    assert advice.worth(X, y, scores, name="m", modality="image") is None
    assert advice.worth(X[:10], y[:10], scores[:10], name="m") is None
    assert advice.worth(X, y, scores, name="m") is None  # nothing is wrong
    scores[::3] = scores[::3, ::-1]  # a third is wrong, and neighbours say nothing
    assert "headstart tune m" in advice.worth(X, y, scores, name="m")


def test_dearer_and_cheaper_ties_are_said_apart():
    found = facts()
    found["rungs"][2]["tie"] = True
    said = " ".join(advice.sentences(found))
    assert "from blocks:1: a tie, and a tie goes to the cheaper" in said
    assert "from static, at less cost" in said


def test_warnings():
    found = facts()
    assert advice.warnings(found) == []
    found["recommended"] |= {"n": 40, "low": 0.1}
    found |= {"interrupted": True, "distance": {"level": "too far", "sentence": "Too far."}}
    few = advice.warnings(found)
    assert [line.split()[0] for line in few] == ["Interrupted:", "40", "Too", "It"]
    found["recommended"]["rung"] = "majority"
    assert advice.sentences(found)[0].startswith("Fit no model yet")
