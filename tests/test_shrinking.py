"""Making a backbone smaller: what is kept loses no more than allowed, judged on rows it was not made from."""

import random
from dataclasses import replace

import numpy as np
import pytest

from headstart import api, backbones, shrinking
from headstart.backbones import network
from headstart.dataset import read
from headstart.errors import InputError
from headstart.shrinking import Bench, NothingSmaller, shrink
from small_graphs import picture, picture_folder, text_folder
from toybase import Toy

TOPICS = {"fruit": ["apple", "pear", "plum"], "metal": ["iron", "zinc", "tin"], "bird": ["crow", "owl", "wren"]}


def table(n, seed=0):
    draw, rows = random.Random(seed), []
    for i in range(n):
        label = list(TOPICS)[i % 3]
        rest = [draw.choice(["the", "a", "my", "some", "of", "and"]) for _ in range(draw.randrange(6))]
        words = [draw.choice(TOPICS[label]), draw.choice(TOPICS[label]), *rest]
        draw.shuffle(words)
        rows.append((" ".join(words), label))
    return rows


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return network.Network.open(text_folder(tmp_path_factory.mktemp("base") / "small"))


@pytest.fixture(scope="module")
def shrunk(small, tmp_path_factory):
    said = []
    folder = tmp_path_factory.mktemp("made") / "made"
    return shrink(small, read(table(240)), folder, max_loss=0.05, say=said.append), said


def test_what_is_kept_is_smaller_and_keeps_to_the_loss(shrunk):
    made, said = shrunk
    before, after, steps = (made.facts[key] for key in ("before", "after", "steps"))
    assert after["mb"] < before["mb"] or after["ms"] < before["ms"]
    assert after["loss"] <= 0.05
    assert after["loss_low"] <= after["loss"] <= after["loss_high"]
    assert [step["kept"] for step in steps].count(True) == 1
    assert after in steps
    assert before["name"] == "as it is"
    assert (before["loss"], before["agreement"]) == (0, 1)
    for step in steps:
        assert step["low"] <= step["accuracy"] <= step["high"]
        assert 0 <= step["agreement"] <= 1
    assert any("kept:" in line for line in said)
    assert "channels stay" in " ".join(said)  # 240 texts are too few to choose them by


def test_the_network_that_is_kept_is_a_backbone(shrunk):
    base = network.Network.open(shrunk[0].folder)
    texts = [text for text, _ in table(10)]
    X = base.encode(texts)
    assert X.shape == (10, base.card.width)
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1, atol=1e-5)
    assert base.card.name == "small-small"
    assert base.card.licence == "Apache-2.0"


def test_steps_are_judged_on_rows_they_were_not_made_from(small):
    bench = Bench(read(table(150)), small, 0)
    step = bench.step("x", small)
    judging = np.flatnonzero(np.isfinite(step.right))
    assert not set(judging) & set(bench.making)
    assert set(judging) | set(bench.making) == set(range(len(bench.data)))
    assert 0.3 < len(bench.making) / len(bench.data) < 0.5
    made_from = bench.contents(everything=False)
    assert not set(made_from) & set(bench.data.raw(judging))  # equal texts lie on one side
    assert len(bench.contents(everything=True)) == len(bench.data)


def test_a_loss_is_the_paired_one_with_an_interval(small):
    bench = Bench(read(table(150)), small, 0)
    whole = bench.step("as it is", small)
    worse = replace(whole, right=np.where(np.arange(len(whole.right)) % 10 == 0, 0.0, whole.right))
    worse.right[bench.making] = np.nan
    row = worse.row(whole, "classification", bench.groups)
    expected = np.nanmean(whole.right - worse.right)
    assert row["loss"] == pytest.approx(expected)
    assert row["loss_low"] < expected < row["loss_high"]
    assert row["agreement"] == 1


def test_with_enough_texts_channels_are_pruned_only_while_it_pays(small, tmp_path, monkeypatch):
    monkeypatch.setattr(shrinking, "ENOUGH", 60)
    kept = []
    real = shrinking.channels.prune
    monkeypatch.setattr(
        shrinking.channels,
        "prune",
        lambda portable, contents, keep: (kept.append(keep), real(portable, contents, keep=keep))[1],
    )
    monkeypatch.setattr(shrinking, "_depths", lambda bench, exact, whole, say: [bench.step("cut 3", exact)])
    shrink(small, read(table(240)), tmp_path / "a", max_loss=1.0)
    assert kept[0] == 0.5  # the quick ones after the sure one
    kept.clear()
    with pytest.raises(NothingSmaller):
        shrink(small, read(table(240)), tmp_path / "b", max_loss=-1.0)
    assert kept == []  # 8 bits lost too much, so that fewer channels are not tried


def test_nothing_smaller_is_a_sentence_and_code_2(small, tmp_path):
    with pytest.raises(
        NothingSmaller, match=r"the nearest loses -?\d+\.\d points\. Allow more with --max-loss"
    ) as caught:
        shrink(small, read(table(150)), tmp_path / "x", max_loss=-0.9)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("base", [Toy(), backbones.load("words")])
def test_what_has_no_network_is_refused(base, tmp_path):
    with pytest.raises(InputError, match="no network"):
        shrink(base, read([(f"{w} {i}", w) for w in ("a", "b") for i in range(60)]), tmp_path / "x", max_loss=0.01)


def test_what_is_in_8_bits_already_is_refused(shrunk, tmp_path):
    made = shrunk[0].base
    if made.card.precision == "float32":
        pytest.fail("the small network was not turned to 8 bits")
    with pytest.raises(InputError, match="8-bit integers already"):
        shrink(made, read(table(150)), tmp_path / "x", max_loss=0.01)


def test_too_few_to_judge_on(small, tmp_path):
    with pytest.raises(InputError, match="too few to see a loss"):
        shrink(small, read(table(24)), tmp_path / "x", max_loss=0.01)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_several_labels_and_numbers(small, tmp_path, task):
    rows = table(200)
    value = {"fruit": 0.0, "metal": 1.0, "bird": 2.0}
    data = read([(text, value[label] if task == "regression" else [label, "all"]) for text, label in rows], task=task)
    made = shrink(small, data, tmp_path / "made", max_loss=0.3)
    after = made.facts["after"]
    assert made.facts["task"] == task
    assert after["accuracy"] <= 1
    assert -1 <= after["agreement"] <= 1


def test_pictures(tmp_path):
    base = network.Network.open(picture_folder(tmp_path / "base"))
    rows = [(picture(i, (40 + 20 * (i % 2), 30)), "ab"[i % 2]) for i in range(80)]
    made = shrink(
        base, read([{"image": content, "label": label} for content, label in rows]), tmp_path / "made", max_loss=0.5
    )
    assert network.Network.open(made.folder).encode([rows[0][0]]).shape == (1, made.base.card.width)
    assert made.facts["after"]["n"] == 48


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with a model on an installed small base, and its smaller one."""
    folder = tmp_path_factory.mktemp("project")
    place = backbones.folder() / "small-try"
    place.parent.mkdir(parents=True, exist_ok=True)
    text_folder(place, name="small-try")
    api.fit(read_rows(folder), name="words", backbone="small-try", project=folder)
    model, facts = api.shrink("words", max_loss=20, project=folder)
    return folder, model, facts


def read_rows(folder):
    path = folder / "rows.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in table(240)))
    return path


def test_the_verb_saves_a_model_that_stands_alone(project, tmp_path):
    import shutil

    folder, model, facts = project
    assert (model.name, facts["name"], facts["from"]) == ("words-small", "words-small", "words")
    assert api.verify("words-small", project=folder)["same_labels"]
    assert api.facts(model)["shrunk"]["after"]["kept"]
    assert "How it was made smaller" in api.report("words-small", project=folder).read_text()
    text = "the apple and my plum"
    before = api.predict("words-small", text, project=folder)
    hidden = backbones.folder() / "small-try"
    hidden.rename(tmp_path / "hidden")
    try:
        moved = tmp_path / "moved"
        shutil.copytree(model.folder, moved)
        assert api.predict(moved, text) == before
        found = api.export(moved, tmp_path / "out")
        assert found["difference"] < 1e-4
    finally:
        (tmp_path / "hidden").rename(hidden)


def test_the_verb_refuses_what_makes_no_sense(project):
    folder, _, _ = project
    with pytest.raises(InputError, match="another name"):
        api.shrink("words", as_name="words", project=folder)
    with pytest.raises(InputError, match="0 to 100"):
        api.shrink("words", max_loss=float("nan"), project=folder)
    with pytest.raises(InputError, match="8-bit integers already"):
        api.shrink("words-small", project=folder)
    api.fit(labels=["red fruit", "blue bird"], name="zero", backbone="small-try", project=folder)
    with pytest.raises(InputError, match="label names alone"):
        api.shrink("zero", data=folder / "rows.csv", project=folder)
