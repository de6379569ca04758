"""A model that is served: nothing of it is believed unseen, and it costs little more than its weights."""

import gc
import json
import os
import shutil
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

import headstart
from conftest import sentences
from headstart import backbones, model, saved, tensors
from headstart.errors import HeadstartError, ModelError, NotFound
from headstart.serving.served import PROBES, Served
from headstart.serving.stack import Stack
from headstart.unitrows import POOL


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    project = tmp_path_factory.mktemp("project")
    return headstart.fit(sentences(240), name="easy", project=project, backbone="fake", head="linear").folder


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "easy" / "v7")


def resealed(folder, change):
    """Change a saved model's card and arrays, and seal it as if it had been saved so."""
    card, arrays = json.loads((folder / saved.CARD).read_text()), tensors.load(folder / saved.ARRAYS)
    change(card, arrays)
    tensors.save(folder / saved.ARRAYS, arrays)
    (folder / saved.CARD).unlink()
    saved.seal(folder, card)
    return folder


def copies(folder, root, n):
    """n models like the one saved, with other weights."""
    whole, (inputs, features, _) = model.load(folder), saved.read_probes(folder)
    for i in range(n):
        other = shutil.copytree(folder, root / f"m{i}" / "v1")
        noise = np.random.default_rng(i).normal(size=whole.head.W.shape).astype(np.float32)
        changed = replace(whole, head=replace(whole.head, W=whole.head.W + 0.1 * noise))
        saved.write_probes(other, inputs, features, changed.answer(features).P)
        yield resealed(other, lambda card, arrays, i=i, W=changed.head.W: (card.update(name=f"m{i}"), arrays.update({"head.W": W})))  # fmt: skip


def test_it_answers_as_the_model_does(copy):
    whole, served = model.load(copy), Served.load(copy)
    _, X, _ = saved.read_probes(copy)
    for judge in (True, False):
        found, expected = served.model.answer(X, judge=judge), whole.answer(X, judge=judge)
        for part in ("P", "chosen", "unknown"):
            np.testing.assert_array_equal(getattr(found, part), getattr(expected, part))
    assert (served.name, served.version, served.task, served.modality) == ("easy", "v7", "classification", "text")
    assert served.labels == served.model.labels == ("bird", "fruit", "metal")
    assert (served.folder, served.digest) == (copy, json.loads((copy / "card.json").read_text())["digest"])
    assert served.fingerprint == backbones.load("fake").card.fingerprint
    texts = [text for text, _ in sentences(9, seed=4)]
    assert served.model.predict(texts, every=True) == whole.predict(texts, every=True)


def test_two_are_equal_only_when_they_are_one(copy):
    one, other = Served.load(copy), Served.load(copy)
    assert one != other
    assert len({one, other, one}) == 2


def test_a_thousand_are_cheap(folder, tmp_path):
    """Traced memory of one more linear head: its weights and 50 KB at most; measured in processes it is the same."""
    folders = list(copies(folder, tmp_path, 24))
    kept = [Served.load(folders[0])]
    stack = Stack.of(kept)
    gc.collect()
    tracemalloc.start()
    try:
        kept += [Served.load(one) for one in folders[1:]]
        stack = Stack.of(kept, stack)
        gc.collect()
        each = tracemalloc.get_traced_memory()[0] / (len(folders) - 1)
    finally:
        tracemalloc.stop()
    weights = kept[0].model.head.W.nbytes
    assert weights <= each <= weights + 20_000  # 50,000 are promised, of which a process needs some for itself
    assert isinstance(kept[0].model.unknown.references, tensors.Stored)
    assert set(kept[0].model.card) == {"name", "task", "labels", "backbone", "head", "data", "made", "digest"}
    assert set(kept[0].model.card["data"]) == {"used"}
    assert all(one.labels[0] is kept[0].labels[0] for one in kept)
    assert kept[5].fingerprint is kept[0].fingerprint


def test_load_answer_unload_in_a_loop_leaves_nothing(folder):  # G2
    _, X, _ = saved.read_probes(folder)

    def cycle():
        served = Served.load(folder)
        stack = Stack.of([served], None)
        stack.answers([served], {served.fingerprint: X[:2]})

    for _ in range(5):
        cycle()
    gc.collect()
    files, size, rows = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc") else 0, POOL.size, len(POOL._kept)
    tracemalloc.start()
    try:
        cycle()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(40):
            cycle()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 40 * 200
    assert (POOL.size, len(POOL._kept)) == (size, rows)
    if files:
        assert len(os.listdir("/proc/self/fd")) == files


def test_a_flipped_bit_in_any_file_refuses_that_model_alone(folder, tmp_path):  # F9
    for i, name in enumerate(sorted(p.name for p in folder.iterdir())):
        other = shutil.copytree(folder, tmp_path / f"m{i}" / "v1")
        content = bytearray((other / name).read_bytes())
        content[len(content) // 2] ^= 4
        (other / name).write_bytes(content)
        with pytest.raises(HeadstartError) as caught:
            Served.load(other)
        assert str(other) in str(caught.value)
    assert Served.load(folder).name == "easy"
    with pytest.raises(NotFound):
        Served.load(tmp_path / "none")


@pytest.mark.parametrize("how", ["gone", "cut"])
def test_references_that_rot_while_served_are_an_error_and_no_crash(copy, how):  # F9
    served, (_, X, _) = Served.load(copy), saved.read_probes(copy)
    path = copy / saved.ARRAYS
    path.unlink() if how == "gone" else os.truncate(path, 100)
    with pytest.raises(ModelError, match=r"head\.safetensors"):
        served.model.answer(X)
    assert served.model.answer(X, judge=False).P.shape == (len(X), 3)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda card, arrays: card["backbone"].pop("fingerprint"), "fingerprint"),
        (lambda card, arrays: card["backbone"].update(fingerprint=5), "lacks"),
        (lambda card, arrays: card.update(data=[]), "lacks"),
        (lambda card, arrays: card.update(labels=["a", "b"]), "do not fit"),
        (lambda card, arrays: arrays.update({"unknown.references": np.ones((3, 5), np.float16)}), "5 features"),
        (
            lambda card, arrays: arrays.update({"unknown.references": np.full((3, 64), np.nan, np.float16)}),
            "not finite",
        ),
        (lambda card, arrays: arrays.update({"unknown.references": np.ones((3, 64), np.int8)}), "no finite numbers"),
        (lambda card, arrays: arrays.update({"head.W": -arrays["head.W"]}), "does not give the answers"),
    ],
)
def test_what_was_sealed_wrongly_is_refused(copy, change, word):
    resealed(copy, change)
    with pytest.raises(ModelError, match=word):
        Served.load(copy)


def test_references_in_another_type_are_brought_along(copy):
    resealed(
        copy, lambda card, arrays: arrays.update({"unknown.references": arrays["unknown.references"].astype("f4")})
    )
    assert Served.load(copy).model.unknown.references.dtype == np.float16


def test_check_answers_a_few_probes_from_the_content_on(copy):
    served, asked = Served.load(copy), []

    def encode(contents):
        asked.append(len(contents))
        return backbones.load("fake").encode(contents)

    served.check(encode)
    assert asked == [PROBES]
    assert len(saved.read_probes(copy)[0]) > PROBES


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda X: X[:, ::-1].copy(), "answered differently"),  # A10: another backbone of the same shape
        (
            lambda X: X + np.float32(1e-3) * (np.arange(X.shape[1]) == 3),
            "answered differently",
        ),  # A12: one bit, one layer
        (lambda X: X[:, :5], "shape"),
        (lambda X: X[:3], "shape"),
        (lambda X: X * np.float32(np.nan), "answered differently"),
    ],
)
def test_check_refuses_the_features_of_another_backbone(copy, spoil, word):
    with pytest.raises(ModelError, match=word) as caught:
        Served.load(copy).check(lambda contents: spoil(backbones.load("fake").encode(contents)))
    assert "its base model fake (fingerprint" in str(caught.value)
    assert str(copy) in str(caught.value)
