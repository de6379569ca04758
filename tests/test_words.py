"""The baseline on words: row-wise, the same in every process, and good enough to be a baseline."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import sentences
from headstart.backbones import words
from headstart.backbones.words import Words
from headstart.errors import InputError
from headstart.folds import folds
from headstart.heads.centroid import Centroid
from headstart.selection import choose

TEXTS = [
    "How do I reset my password?",
    "",
    "ok",
    "我的订单什么时候能到？ 🎉",
    "a" * 300,
    "How do I change my password?",
    "don't",
    "\ud800 x",
    "?!",
]


def test_shape_card_and_length():
    X = Words().encode(TEXTS)
    assert X.shape == (len(TEXTS), Words().card.width) == (9, 2048)
    assert X.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), [1, 0, 1, 1, 1, 1, 1, 1, 1], atol=1e-6)
    assert Words().encode([]).shape == (0, 2048)
    card = Words().card
    assert (card.modality, card.cut, card.widths, len(card.fingerprint)) == ("text", "top", (2048,), 64)
    assert Words().taps == ()


def test_it_is_what_the_definition_says():
    """The word counts by hand: 'ab ab' has the word twice, its pieces twice and one pair."""
    X = np.zeros(2048)

    def add(code, times):
        X[(code >> 1) % 2048] += (1 - 2 * (code & 1)) * (1 + np.log(times))

    for piece in (" a", "ab", "b ", " ab", "ab ", " ab "):
        add(words.hashed("p", piece), 2)
    word = words.hashed("w", "ab")
    add(word, 2)
    add((word * int(words.PAIR) + word) % 2**40, 1)
    np.testing.assert_allclose(Words().encode(["Ab  aB"])[0], X / np.linalg.norm(X), atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=6))
def test_a_row_depends_on_its_text_alone(texts):
    X = Words().encode(texts)
    assert np.isfinite(X).all()
    for row, text in zip(X, texts, strict=True):
        np.testing.assert_array_equal(row, Words().encode([text])[0])
    np.testing.assert_array_equal(Words().encode(texts[::-1]), X[::-1])


def test_chunks_do_not_show(monkeypatch):
    texts = [f"text number {i} of {i % 7} kinds" for i in range(1100)] + ["word " * 3000, "end"]
    X = Words().encode(texts)
    monkeypatch.setattr(words, "TEXTS", 7)
    monkeypatch.setattr(words, "TOKENS", 20)
    np.testing.assert_array_equal(Words().encode(texts), X)


def test_meaning_is_near_and_order_counts():
    X = Words().encode(["reset my password", "change my password", "the parcel came", "password my reset"])
    assert X[0] @ X[1] > X[0] @ X[2] + 0.3
    assert 0.7 < X[0] @ X[3] < 0.999


def test_it_is_the_same_in_every_process():
    script = "from headstart.backbones.words import Words; print(Words().encode(['a small house']).tobytes().hex())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == Words().encode(["a small house"]).tobytes().hex()


@pytest.mark.parametrize("content", [None, 3, b"bytes", ["list"]])
def test_what_is_no_text_is_refused(content):
    with pytest.raises(InputError, match="number 1 of the call"):
        Words().encode(["a", content])


def test_there_is_nothing_to_cut_or_export():
    assert Words().at("top") == Words()
    with pytest.raises(InputError, match="no cut '3' in words"):
        Words().at("3")
    with pytest.raises(InputError, match="there is no network"):
        Words().portable()


def fitted(train, labels, test):
    """Accuracy of the linear head, test being (texts, labels)."""
    names, y = np.unique(labels, return_inverse=True)
    T = np.eye(len(names), dtype=np.float32)[y]
    head = choose(Words().encode(train), T, task="classification", folds=folds(y), head="linear").head
    return float((names[head.scores(Words().encode(test[0])).argmax(1)] == np.array(test[1])).mean())


def test_easy_classes_are_learned():
    rows = sentences(120)
    texts, labels = zip(*rows, strict=True)
    assert fitted(texts[:60], labels[:60], (texts[60:], labels[60:])) > 0.9


def test_it_holds_its_own_on_real_texts(shared):
    """Banking77, 10 a class, by class means alone, the quickest head: 66.2; the linear head reaches 74.5."""
    folder = shared / "data" / "banking77" / "banking_data"
    read = {}
    for part in ("train", "test"):
        with open(folder / f"{part}.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        read[part] = [row["text"] for row in rows], np.array([row["category"] for row in rows])
    texts, labels = read["train"]
    rng = np.random.default_rng(0)
    some = [i for name in np.unique(labels) for i in rng.choice(np.flatnonzero(labels == name), 10, replace=False)]
    names, y = np.unique(labels[some], return_inverse=True)
    X = Words().encode([texts[i] for i in some])
    head = Centroid.fit(X, np.eye(len(names), dtype=np.float32)[y])
    asked, right = read["test"]
    assert (names[head.scores(Words().encode(asked)).argmax(1)] == right).mean() > 0.65
