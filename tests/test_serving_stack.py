"""Many heads side by side: what they say together is what each says alone."""

import gc
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.calibration import Calibration
from headstart.heads.centroid import Centroid
from headstart.heads.linear import Linear
from headstart.heads.mlp import Mlp
from headstart.heads.nearest import Nearest
from headstart.heads.prior import Prior
from headstart.heads.ridge import Ridge
from headstart.model import Model
from headstart.serving import stack as module
from headstart.serving.served import Served
from headstart.serving.stack import Stack
from headstart.unitrows import unit
from headstart.unknown import Unknown

WIDTHS = {"f1": 8, "f2": 8, "f3": 24}


def floats(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def served(rng, *, task="classification", c=3, head="linear", method="none", fingerprint="f1", references=0, name="m"):
    d, several = WIDTHS[fingerprint], task == "multilabel"
    c = 1 if task == "regression" else c
    linear = Ridge if task == "regression" else Linear
    made = {
        "linear": lambda: linear(4 * floats(rng, d, c), floats(rng, c)),
        "centroid": lambda: Centroid(floats(rng, c, d), floats(rng, d)),
        "nearest": lambda: Nearest.fit(floats(rng, 12, d), rng.random((12, c)), 3, number=task == "regression"),
        "mlp": lambda: Mlp(floats(rng, d, c), floats(rng, c), floats(rng, d, 4), floats(rng, 4), floats(rng, 4, c)),
        "prior": lambda: Prior(floats(rng, c, d), floats(rng, d)),
    }[head]  # fmt: skip
    wide = c if method == "platt" else 1
    calibration = Calibration(
        method, several, np.exp(floats(rng, wide)), floats(rng, wide),
        np.sort(rng.random((2, 5)), axis=1).astype(np.float32) if method == "isotonic" else np.zeros((2, 0), np.float32),
    ) if method != "none" else Calibration(several=several)  # fmt: skip
    unknown = None
    if references:
        confident = float(task == "classification" and rng.random() < 0.8)
        unknown = Unknown(
            unit(floats(rng, references, d)).astype(np.float16), np.array([0.5, -1], np.float32),
            np.array([0.2, confident], np.float32), float(rng.normal()), 0.05,
        )  # fmt: skip
    thresholds = rng.random(c).astype(np.float32) if several else None
    labels = tuple(f"l{j}" for j in range(0 if task == "regression" else c))
    card = {"name": name, "task": task, "labels": labels, "backbone": {"fingerprint": fingerprint}}
    model = Model(card, made(), calibration, unknown, thresholds)
    return Served(model, Path(name), name, "v1", "0" * 64, task, "text", labels, fingerprint)


def drawn(rng):
    task = str(rng.choice(["classification"] * 4 + ["multilabel", "regression"]))
    heads = {"classification": ["centroid", "nearest", "mlp", "prior"]}.get(task, ["nearest", "mlp"])
    methods = ["none", "temperature", "platt"] if task == "multilabel" else ["none", "temperature", "isotonic"]
    return served(
        rng, task=task, c=int(rng.choice([2, 3, 5])), method=str(rng.choice(methods)),
        head=str(rng.choice(["linear"] * 12 + heads)),
        fingerprint=str(rng.choice(list(WIDTHS))), references=int(rng.choice([0, 0, 0, 0, 1, 2, 30, 30, 1500])),
    )  # fmt: skip


def features(rng, n):
    return {name: unit(floats(rng, n, d)) for name, d in WIDTHS.items()}


def same(found, one, X, *, judge=True):
    expected = one.model.answer(X[one.fingerprint], judge=judge)
    assert found.P.shape == expected.P.shape
    assert found.P.dtype == expected.P.dtype == np.float32
    np.testing.assert_allclose(found.P, expected.P, rtol=1e-5 if one.task == "regression" else 0, atol=1e-6)
    for part in ("chosen", "unknown"):
        assert getattr(found, part).dtype == np.bool_
        np.testing.assert_array_equal(getattr(found, part), getattr(expected, part))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), m=st.integers(0, 40), n=st.sampled_from([0, 1, 2, 33]),
    share=st.sampled_from([0.1, 0.5, 1.0]), judge=st.booleans(),
)  # fmt: skip
def test_together_they_say_what_each_says_alone(seed, m, n, share, judge):
    rng = np.random.default_rng(seed)
    table = [drawn(rng) for _ in range(m)]
    stack, X = Stack.of(table), features(rng, n)
    asked = [table[i] for i in rng.integers(0, m, int(share * m))] if m else []  # some twice, in any order
    found = stack.answers(asked, X, judge=judge)
    assert len(found) == len(asked)
    for answers, one in zip(found, asked, strict=True):
        same(answers, one, X, judge=judge)
        assert judge or not answers.unknown.any()


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
@pytest.mark.parametrize("method", ["none", "temperature", "isotonic", "platt"])
def test_every_calibration_of_every_task(task, method):
    rng = np.random.default_rng(5)
    table = [served(rng, task=task, method=method, references=20, c=4) for _ in range(9)]
    X = features(rng, 50)
    stack = Stack.of(table)
    assert len(stack.blocks) == 1
    found = stack.answers(table, X)
    for answers, one in zip(found, table, strict=True):
        same(answers, one, X)
    if task == "classification":
        assert len({answers.unknown.sum() for answers in found}) > 1


def test_of_equal_probabilities_the_first_is_chosen():
    rng = np.random.default_rng(0)
    table = [served(rng) for _ in range(4)]
    for one in table[:2]:
        one.model.head.W[:], one.model.head.b[:] = 0, 0
    X = features(rng, 3)
    for answers, one in zip(Stack.of(table).answers(table, X), table, strict=True):
        same(answers, one, X)


def test_a_model_that_is_not_in_the_table_answers_on_its_own():
    rng = np.random.default_rng(0)
    table, other, X = [served(rng) for _ in range(4)], served(rng, references=5), features(rng, 3)
    stack = Stack.of(table)
    for answers, one in zip(stack.answers([other, *table], X), [other, *table], strict=True):
        same(answers, one, X)
    assert stack.answers([], X) == []


def test_weights_are_in_blocks_and_nowhere_else():
    rng = np.random.default_rng(0)
    table = [served(rng, c=c) for c in (3, 3, 3, 5, 5)]
    own = [weakref.ref(one.model.head.W) for one in table]
    before = [one.model.head.W.copy() for one in table]
    stack = Stack.of(table)
    gc.collect()
    assert [ref() for ref in own] == [None] * 5
    assert sorted(len(block.heads) for block in stack.blocks) == [2, 3]
    for one, W in zip(table, before, strict=True):
        block, j = stack.places[one]
        np.testing.assert_array_equal(one.model.head.W, W)
        assert np.shares_memory(one.model.head.W, block.W)
        assert block.heads[j] is one


def small(monkeypatch, heads):
    """Blocks of at most so many heads of 3 labels on 8 features."""
    monkeypatch.setattr(module, "LIMIT", heads * 3 * 8 * 4)


def checked(stack, table, limit):
    """Every head is in one block, blocks are not too large, and hardly any is too small."""
    places = [one for block in stack.blocks for one in block.heads]
    assert len(places) == len(set(places)) == len(table)
    assert set(places) == set(table) == set(stack.places)
    assert all(len(block.heads) <= limit for block in stack.blocks)
    assert sum(2 * len(block.heads) < limit for block in stack.blocks) <= 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_tables_that_change_keep_what_did_not(seed):
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        small(patch, 4)
        table = [served(rng) for _ in range(int(rng.integers(0, 20)))]
        stack, X = Stack.of(table), features(rng, 2)
        for _ in range(6):
            gone = set(rng.choice(len(table), int(rng.integers(0, len(table) + 1)) // 3, replace=False).tolist())
            left = [one for i, one in enumerate(table) if i not in gone]
            dropped = [one for i, one in enumerate(table) if i in gone]
            table = left + [served(rng) for _ in range(int(rng.integers(0, 6)))]
            rng.shuffle(table)
            old, stack = stack, Stack.of(table, stack)
            checked(stack, table, 4)
            for block in old.blocks:
                if 2 * len(block.heads) >= 4 and set(block.heads) <= set(table):
                    assert block in stack.blocks
            for answers, one in zip(stack.answers([*table, *dropped], X), [*table, *dropped], strict=True):
                same(answers, one, X)


def test_swapping_one_of_many_copies_one_block(monkeypatch):
    small(monkeypatch, 50)
    rng = np.random.default_rng(0)
    table = [served(rng) for _ in range(1000)]
    stack = Stack.of(table)
    for i in (3, 500, 999, 4):
        table[i] = served(rng)
        before, stack = stack, Stack.of(table, stack)
        checked(stack, table, 50)
        new = [block for block in stack.blocks if block not in before.blocks]
        assert sum(len(block.heads) for block in new) <= 100
    assert Stack.of(table, stack).blocks == stack.blocks


def test_blocks_of_heads_that_are_gone_are_freed_even_while_somebody_holds_the_head(monkeypatch):
    small(monkeypatch, 50)
    rng = np.random.default_rng(0)
    table = [served(rng) for _ in range(60)]
    stack = Stack.of(table)
    blocks = [weakref.ref(block.W) for block in stack.blocks]
    held, kept = table[7], table[7].model.head.W.copy()
    stack = Stack.of([one for one in table if one is not held], stack)
    gc.collect()
    assert blocks[0]() is None
    np.testing.assert_array_equal(held.model.head.W, kept)
    models = [weakref.ref(one) for one in table if one is not held]
    stack = Stack.of([], stack)
    del table
    gc.collect()
    assert not any(ref() for ref in [*models, *blocks[1:]])
    assert held.model.answer(features(rng, 2)["f1"]).P.shape == (2, 3)


def test_threads_read_while_tables_change(monkeypatch):
    small(monkeypatch, 6)
    rng = np.random.default_rng(0)
    table, X, faults = [served(rng, references=3) for _ in range(30)], features(rng, 2), []
    current = [(list(table), Stack.of(table))]
    truth = {one: one.model.answer(X["f1"]) for one in table}
    done = threading.Event()

    def read():
        while not done.is_set():
            asked, stack = current[0]
            for answers, one in zip(stack.answers(asked, X), asked, strict=True):
                if np.abs(answers.P - truth[one].P).max() > 1e-6 or (answers.unknown != truth[one].unknown).any():
                    faults.append(one)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(60):
        new = served(rng, references=3)
        truth[new] = new.model.answer(X["f1"])
        table[i % 30] = new
        current[0] = (list(table), Stack.of(table, current[0][1]))
    done.set()
    for thread in threads:
        thread.join()
    assert not faults


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_nothing_is_ever_said_to_be_certain(task):
    rng = np.random.default_rng(1)
    table = [served(rng, task=task) for _ in range(4)]
    for one in table:
        one.model.head.W[:] *= 100
    X = features(rng, 20)
    for answers, one in zip(Stack.of(table).answers(table, X), table, strict=True):
        expected = one.model.answer(X["f1"]).P
        assert 0 < expected.min() < 1e-5
        np.testing.assert_allclose(answers.P, expected, rtol=1e-4)


def test_few_of_a_block_are_asked_on_their_own(monkeypatch):
    rng = np.random.default_rng(1)
    table, X, whole = [served(rng) for _ in range(100)], features(rng, 2), []
    stack, real = Stack.of(table), module.Block._probabilities
    monkeypatch.setattr(module.Block, "_probabilities", lambda *given: whole.append(1) or real(*given))
    assert len(stack.answers(table[:8], X)) == 8
    assert not whole
    assert len(stack.answers(table[:9], X)) == 9
    assert whole == [1]


def test_a_calibration_of_another_kind_than_its_task_answers_on_its_own():
    """No model of ours is so, but a file may be."""
    rng = np.random.default_rng(1)
    table, X = [served(rng, references=5) for _ in range(6)], features(rng, 4)
    for i, one in enumerate(table):
        object.__setattr__(one.model.calibration, "several", i % 2 == 0)
    stack = Stack.of(table)
    assert len(stack.places) == 3
    for answers, one in zip(stack.answers(table, X), table, strict=True):
        same(answers, one, X)
