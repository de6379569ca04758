"""Retraining the final blocks: kept only where it pays, nothing of a held-out fold seen, gone on with to the same end.

The network here drops, behind its last block, the channels in which "owl" and "wren" differ: frozen features cannot
tell them apart, retrained ones can. The kinds of the other words lie open.
"""

import csv
import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import onnx  # noqa: E402
from onnx import numpy_helper  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from headstart import api, backbones, journal, retraining, tensors, tuning  # noqa: E402
from headstart.backbones import network  # noqa: E402
from headstart.cli import app  # noqa: E402
from headstart.dataset import read  # noqa: E402
from headstart.errors import HeadstartError, InputError, MissingExtra, NotFound  # noqa: E402
from headstart.ground import ground as deal  # noqa: E402
from headstart.head import REGRESSION  # noqa: E402
from headstart.heads.linear import Linear  # noqa: E402
from headstart.heads.ridge import Ridge  # noqa: E402
from headstart.training import loop  # noqa: E402
from headstart.training.above import Above  # noqa: E402
from headstart.training.loop import Recipe  # noqa: E402
from small_graphs import FACTS, WORDS, picture_folder, text_folder, transformer, words  # noqa: E402

pytestmark = pytest.mark.torch
torch.set_num_threads(1)
SHORT = ["the", "a", "my", "some", "of", "and"]
KINDS = {"fruit": ["apple", "pear", "plum"], "metal": ["iron", "zinc", "tin"]}
HIDDEN = 28  # channels from here on are dropped behind the last block


def forgetful(folder: Path) -> None:
    """A transformer in which "owl" and "wren" differ in two channels alone, which no matrix and no output reads."""
    model = transformer(3, pre=True)[0]
    values = {t.name: numpy_helper.to_array(t).copy() for t in model.graph.initializer}
    table = next(v for v in values.values() if v.shape == (50, 32))
    owl, wren = WORDS.index("owl"), WORDS.index("wren")
    table[:, HIDDEN:] = 0
    table[wren] = table[owl]
    table[owl, HIDDEN : HIDDEN + 2], table[wren, HIDDEN : HIDDEN + 2] = (2, -2), (-2, 2)
    for kind, side in zip(KINDS.values(), (3, -3), strict=True):
        table[[WORDS.index(word) for word in kind], :2] = side, -side  # what lies open
    for value in values.values():
        if value.shape in ((32, 32), (32, 64)):
            value[HIDDEN:] = 0
        if value.shape in ((64, 32), (32, 32), (2, 32)):
            value[:, HIDDEN:] = 0  # nor is anything added to them, or the norms could tell
    gains = [name for name, value in values.items() if value.shape == (32,)]
    for name in gains[:-2:2]:
        values[name][:] = 1
    values[gains[-2]][:], values[gains[-1]][:] = 1, 0
    values[gains[-2]][HIDDEN:] = 0
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    words(folder)
    network.describe(folder, **{"name": folder.name, "modality": "text", "tokens": 16, **FACTS})


def table(n: int, seed: int = 0, of=("hard",)) -> list[tuple[str, str]]:
    """n texts with labels: owl or wren ("hard"), fruit or metal ("easy")."""
    draw, rows = random.Random(seed), []
    for i in range(n):
        if "hard" in of:
            label = ("owl", "wren")[i % 2]
            first = label
        else:
            label = list(KINDS)[i % 2]
            first = draw.choice(KINDS[label])
        some = [first, *(draw.choice(SHORT) for _ in range(1 + draw.randrange(6)))]
        draw.shuffle(some)
        rows.append((" ".join(some), label))
    return rows


def written(path: Path, rows, header=("text", "label")) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def quick(n: int, rank: int | None) -> Recipe:
    return Recipe(epochs=8, rate=1e-2 if rank is None else 3e-2, batch=16, rank=rank)


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory):
    """A cache of this module's own with the small networks installed, and a recipe that suits them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(tuning, "recipe", quick)
        backbones.folder().mkdir(parents=True)
        forgetful(backbones.folder() / "forgetful")
        text_folder(backbones.folder() / "letters", name="letters")
        picture_folder(backbones.folder() / "scenes", name="scenes")
        yield


def standing(rows, base: str = "forgetful", seed: int = 0, **options):
    data = read(rows, **{key: options.pop(key) for key in ("label", "task") if key in options})
    known = backbones.load(base)
    return deal(known, data, known.encode(data.raw(np.arange(len(data)))), seed=seed, **options)


def climbed(ground, folder, blocks="2", **options):
    return list(tuning.climb(ground, tuning.rungs(ground.base, blocks), folder=folder, **options))


def at(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="module")
def hard(tmp_path_factory):
    """The ground of a task that frozen features cannot solve, and its one rung climbed."""
    ground = standing(table(80))
    return ground, climbed(ground, tmp_path_factory.mktemp("hard"))[0]


def test_what_frozen_features_cannot_tell_retrained_ones_can(hard):
    ground, tried = hard
    assert np.nanmean(ground.first.right) < 0.75
    assert np.nanmean(tried.right) > 0.95
    assert tuning.better(ground, ground.first, tried)
    assert not tuning.better(ground, tried, ground.first)
    assert (tried.k, tried.rung, len(tried.networks)) == (2, "blocks:2", 5)
    assert np.isfinite(tried.scores).all()
    gain, noise = ground.behind(ground.first, tried)
    assert gain == pytest.approx(np.mean(tried.right - ground.first.right))
    assert 0 < noise < gain


def test_better_is_more_than_the_noise(hard):
    ground, tried = hard
    several = tried.networks * 2 if len(tried.networks) == 1 else tried.networks
    assert len(several) > 1
    for gained, once, folds in ((0, False, False), (1, False, False), (3, False, True), (30, True, True)):
        right = np.zeros(len(ground.data))
        right[:gained] = 1
        for networks, expected in ((several[:1], once), (several, folds)):
            one, other = (replace(tried, right=r, networks=networks) for r in (np.zeros_like(right), right))
            assert tuning.better(ground, one, other) is expected
    mixed = np.array([1.0, 0.0] * 40)
    mixed[:6] = 1
    assert not tuning.better(ground, replace(tried, right=1 - mixed), replace(tried, right=mixed))


def test_nothing_of_a_held_out_fold_reaches_its_network(hard, tmp_path):
    """Other labels of its rows change none of its scores, where the head's strength and the folds are the same."""
    ground, tried = hard
    T, y = ground.T.copy(), ground.data.y.copy()
    out = np.flatnonzero(ground.fold == 1)
    T[out], y[out] = T[out][::-1, ::-1], 1 - y[out][::-1]
    other = replace(ground, T=T, data=replace(ground.data, y=y))
    again = climbed(other, tmp_path)[0]
    assert again.scores[out].tobytes() == tried.scores[out].tobytes()
    assert again.scores[ground.fold == 0].tobytes() != tried.scores[ground.fold == 0].tobytes()
    for name, value in tried.networks[1].changed.items():
        assert value.tobytes() == again.networks[1].changed[name].tobytes()
    assert again.networks[1].space.tobytes() == tried.networks[1].space.tobytes()


def test_a_network_is_what_it_scored(hard):
    ground, tried = hard
    halves = tuning.halved(ground.base, tried.tap)
    contents = ground.data.raw(np.arange(len(ground.data)))
    for part, one in enumerate(tried.networks):
        above = Above(halves, one.W, one.b, rank=None, dropout=0.0)
        above.graph.load(one.changed)
        space = loop.alone(above, halves.states(contents))
        np.testing.assert_allclose(space, one.space, atol=2e-3)  # states in half precision
        out = ground.fold == part
        np.testing.assert_allclose((space @ one.W + one.b)[out], one.scores, atol=0.1)


def test_weights_below_the_tap_stay(hard):
    ground, tried = hard
    halves = tuning.halved(ground.base, tried.tap)
    assert all(set(one.changed) <= set(halves.depth) for one in tried.networks)
    assert set(halves.depth.values()) == {1, 2}


def test_one_block_is_a_block_and_not_the_norm_behind_it():
    """The last rung but linear retrains the matrices of the last block."""
    for name in ("letters", "scenes"):
        base = backbones.load(name)
        for tap, k in tuning.taps(base):
            halves = tuning.halved(base, tap)
            assert halves.blocks == k
            matrices = [t.name for t in halves.above.graph.initializer if len(t.dims) > 1]
            assert {halves.depth[one] for one in matrices} == set(range(1, k + 1))
        ks = [k for _, k in tuning.taps(base)]
        assert ks == list(range(1, len(ks) + 1))


@pytest.mark.parametrize("blocks", ["9", "4"])
def test_blocks_that_are_not_there_are_refused(blocks):
    with pytest.raises(InputError, match=rf"--blocks {blocks}: letters can be .*final 1, 2, 3 blocks at the cut top"):
        tuning.rungs(backbones.load("letters"), blocks)


def test_rungs():
    base = backbones.load("letters")
    assert [(k, rung) for _, k, rung in tuning.rungs(base, "auto")] == [(1, "blocks:1"), (3, "all")]
    assert [(k, rung) for _, k, rung in tuning.rungs(base, "all")] == [(3, "all")]
    assert [(k, rung) for _, k, rung in tuning.rungs(base, 2)] == [(2, "blocks:2")]
    assert [(k, rung) for _, k, rung in tuning.rungs(base.at("2"), "all")] == [(2, "all")]
    for name in ("words", "fake", "colours"):
        with pytest.raises(InputError, match="no network that could be trained"):
            tuning.rungs(backbones.load(name), "auto")
    with pytest.raises(
        InputError, match=r"no weights are above tap|has no blocks that can be trained|nothing is above"
    ):
        tuning.rungs(base.at("0"), "auto")


@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_numbers_and_several_labels(task, tmp_path):
    draw, rows = random.Random(1), []
    for text, label in table(100):
        fruit = draw.random() < 0.5
        text += " " + draw.choice(KINDS["fruit" if fruit else "metal"])
        number = 1000 + 50 * (label == "owl") + 10 * fruit
        several = "; ".join([label] + ["fruit"] * fruit)
        rows.append((text, number if task == "regression" else several))
    path = written(tmp_path / "rows.csv", rows)
    ground = standing(str(path), task=task)
    tried = climbed(ground, at(tmp_path / "j"))[0]
    assert tuning.better(ground, ground.first, tried)
    assert ground.task == task
    if task == REGRESSION:
        assert np.abs(tried.scores - ground.T).mean() < 15
        assert np.nanmean(tried.right) > -0.5 > np.nanmean(ground.first.right)
        assert ground.scale[0] == pytest.approx(ground.T.mean())
    network_, how = tuning.final(ground, tried, folder=tmp_path / "j")
    assert how.startswith("the mean of 5 networks")
    head = (Ridge if task == REGRESSION else Linear)(network_.W, network_.b)
    said = head.scores(network_.space)
    if task == REGRESSION:
        assert np.abs(said - ground.T).mean() < 15
    else:
        assert ((said > 0) == (ground.T > 0)).mean() > 0.9


def test_low_rank_and_the_mean_of_its_networks(tmp_path):
    ground = standing(table(100))
    tried = climbed(ground, tmp_path, rank=2)[0]
    assert np.nanmean(tried.right) > np.nanmean(ground.first.right)
    changed, W, b = tuning.mean(tried.networks)
    known = {t.name: numpy_helper.to_array(t) for t in ground.base.graph().graph.initializer}
    names = {name.rsplit("/", 1)[0] for name in changed}
    assert names
    for name in names:
        parts = [known[name] + one.changed[f"{name}/up"] @ one.changed[f"{name}/down"] for one in tried.networks]
        merged = known[name] + changed[f"{name}/up"] @ changed[f"{name}/down"]
        np.testing.assert_allclose(merged, np.mean(parts, axis=0), atol=1e-5)
        assert changed[f"{name}/down"].shape[0] == 10
    np.testing.assert_allclose(W, np.mean([one.W for one in tried.networks], axis=0), atol=1e-6)
    np.testing.assert_allclose(b, np.mean([one.b for one in tried.networks], axis=0), atol=1e-6)
    network_, _ = tuning.final(ground, tried, rank=2, folder=tmp_path)
    assert (network_.space @ W + b).argmax(1).tolist() == ground.data.y.tolist()


def test_the_mean_of_whole_networks(hard):
    changed, W, _ = tuning.mean(hard[1].networks)
    for name, value in changed.items():
        np.testing.assert_allclose(value, np.mean([one.changed[name] for one in hard[1].networks], axis=0), atol=1e-6)
    np.testing.assert_allclose(W, np.mean([one.W for one in hard[1].networks], axis=0), atol=1e-6)


def test_networks_of_which_some_left_a_weight_as_it_was(hard):
    """A weight without a gradient in one fold is missing there: it counts as it was, and is not lost."""
    low = [replace(one, changed={"w/up": np.ones((2, 1)), "w/down": np.ones((1, 2))}) for one in hard[1].networks[:2]]
    low[0] = replace(low[0], changed={})
    changed, _, _ = tuning.mean(low)
    np.testing.assert_allclose(changed["w/up"] @ changed["w/down"], np.full((2, 2), 0.5))


def test_rows_without_a_label_take_part(tmp_path):
    texts = [text for text, _ in table(60, seed=7)]
    pool = read(str(written(tmp_path / "pool.csv", [(text,) for text in texts], ("text",))), labelled=False)
    base = backbones.load("forgetful")
    data = read(str(written(tmp_path / "rows.csv", table(60))))
    X, U = (base.encode(one.raw(np.arange(len(one)))) for one in (data, pool))
    ground = deal(base, data, X, seed=0, pool=(pool, U), strict=False)
    assert ground.pool is not None
    halves = tuning.halved(base, "1")
    states = tuning.collected(ground, halves, lambda *told: None)
    assert len(states) == len(data) + len(pool)
    start = ground.start(np.arange(len(data)))
    task = tuning.task_of(ground, states, start)
    said = U @ start[0] + start[1]
    np.testing.assert_allclose(task.T[len(data) :].argmax(1), said.argmax(1))
    np.testing.assert_allclose(task.T.sum(1), 1, atol=1e-5)
    assert task.weight.tolist() == [3.0] * len(data) + [1.0] * len(pool)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        train = loop.train
        patch.setattr(loop, "train", lambda h, t, rows, held, *more, **o: (
            seen.append((rows, held)), train(h, t, rows, held, *more, **o))[1])  # fmt: skip
        tried = climbed(ground, at(tmp_path / "j"))[0]
    for rows, held in seen[1:]:
        assert set(range(len(data), len(states))) <= set(rows.tolist())
        assert not set(rows.tolist()) & set(held.tolist())
    assert tried.networks[0].space.shape[0] == len(data)


def test_many_rows_without_a_label_are_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr("headstart.ground.MOST_POOL", 10)
    texts = [text for text, _ in table(40, seed=7)]
    pool = read(str(written(tmp_path / "pool.csv", [(text,) for text in texts], ("text",))), labelled=False)
    base = backbones.load("forgetful")
    data = read(table(60))
    X, U = (base.encode(one.raw(np.arange(len(one)))) for one in (data, pool))
    ground = deal(base, data, X, seed=0, pool=(pool, U), strict=False)
    assert len(ground.pool[0]) == len(ground.pool[1]) == 10
    np.testing.assert_allclose(base.encode(ground.pool[0].raw(np.arange(10))), ground.pool[1], atol=1e-5)


def test_a_budget_that_is_too_small_skips_and_says_so(tmp_path):
    said = []
    ground = standing(table(60))
    assert climbed(ground, tmp_path, "auto", deadline=loop.time.monotonic() + 0.001, say=said.append) == []
    assert len(said) == 2
    assert all("not tried, it would take about" in line for line in said)
    assert said[0].startswith("blocks:1")


def test_a_rung_that_runs_out_of_time_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "seconds", lambda *given: 0.0)
    said, deadline = [], loop.time.monotonic() + 0.4
    assert climbed(standing(table(80)), tmp_path, "2", deadline=deadline, say=said.append) == []
    assert said[-1] == "blocks:2: not finished in time"


def test_folds_that_are_held_out(monkeypatch):
    monkeypatch.setattr("headstart.ground.VERY_FEW", 30)
    monkeypatch.setattr("headstart.ground.FEW", 60)
    for n, judged in ((30, 5), (40, 3), (80, 1)):
        ground = standing(table(n))
        assert ground.judged == tuple(range(judged))
        assert set(ground.fold) == set(range(judged)) | (set() if judged == 5 else {-1})
    with pytest.raises(InputError, match="no example can be held out"):
        standing([("owl", "owl"), ("a wren", "wren")])


def test_one_part_held_out_is_trained_once_more_on_all_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("headstart.ground.VERY_FEW", 30)
    monkeypatch.setattr("headstart.ground.FEW", 60)
    ground = standing(table(80))
    tried = climbed(ground, tmp_path)[0]
    assert len(tried.networks) == 1
    network_, how = tuning.final(ground, tried, folder=tmp_path)
    assert how == "trained once more on all rows"
    assert network_.epochs == tried.networks[0].epochs
    assert network_.W.tobytes() != tried.networks[0].W.tobytes()
    late = loop.time.monotonic()
    said = []
    kept, how = tuning.final(ground, tried, folder=tmp_path, deadline=late, say=said.append)
    assert kept is tried.networks[0]
    assert how == "trained on 80 % of the rows, judged on the others"
    assert "no time" in said[0]


# From here on through the door: api.tune and the command line.


@pytest.fixture
def project(tmp_path):
    written(tmp_path / "birds.csv", table(80))
    written(tmp_path / "kinds.csv", table(80, of=("easy",)))
    return tmp_path


def tune(project, data="birds.csv", **options):
    return api.tune(str(project / data), project=project, backbone="forgetful", **{"blocks": "2", **options})


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A project with a tuned model, and what was found."""
    folder = tmp_path_factory.mktemp("tuned")
    written(folder / "birds.csv", table(80))
    written(folder / "test.csv", table(40, seed=5))
    return folder, *tune(folder, test=str(folder / "test.csv"))


def test_a_tuned_model_is_saved_and_proven(tuned):
    folder, model, facts = tuned
    assert facts["kept"] == "blocks:2"
    assert [row["rung"] for row in facts["rungs"]] == ["linear", "blocks:2"]
    assert [row["kept"] for row in facts["rungs"]] == [False, True]
    assert facts["rungs"][1]["gain"] > facts["rungs"][1]["noise"] > 0
    assert api.facts(model)["tuning"]["torch"] <= retraining.CLOSE
    assert api.facts(model)["test"]["accuracy"] > 0.95
    assert api.facts(model)["estimate"]["accuracy"] > 0.9
    assert (api.facts(model)["curve"], api.facts(model)["unknown"]["caught"]) == (None, None)
    found = api.verify(model.name, project=folder)
    assert found["same_labels"] == 1
    assert "last 2 of 3 blocks of forgetful differ" in found["tuned"]["said"]
    answers = model.predict(["the owl of", "my wren"])
    assert [one.label for one in answers] == ["owl", "wren"]
    assert not (folder / "unfinished" / model.name).exists()


def test_it_predicts_without_torch(tuned):
    folder, model, _ = tuned
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from headstart import api\n"
        f"model = api.load({model.name!r}, project={str(folder)!r})\n"
        "print([one.label for one in model.predict(['the owl of', 'my wren'])])\n"
        f"api.verify({model.name!r}, project={str(folder)!r})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['owl', 'wren']"


def changed(model) -> bytes:
    return (Path(model.folder) / "backbone" / "changed.safetensors").read_bytes() if (
        Path(model.folder) / "backbone" / "changed.safetensors"
    ).exists() else next(Path(model.folder).rglob("changed.safetensors")).read_bytes()  # fmt: skip


def test_the_same_seed_gives_the_same_model(tuned, project):
    again, _ = tune(project)
    assert changed(again) == changed(tuned[1])
    assert again.head.W.tobytes() == tuned[1].head.W.tobytes()
    other, _ = tune(project, seed=1, as_name="other")
    assert changed(other) != changed(again)


def test_where_the_head_alone_is_right_nothing_is_tuned(project):
    said = []
    model, facts = tune(project, "kinds.csv", say=said.append)
    assert facts["kept"] == "linear"
    assert facts["rungs"][0]["accuracy"] == 1
    assert "no blocks were retrained" in said[-1]
    assert model.card["backbone"]["name"] == "forgetful"
    assert api.facts(model)["tuning"]["kept"] == "linear"
    assert not list(Path(model.folder).rglob("changed.safetensors"))
    assert not (project / "unfinished" / "kinds").exists()
    done = command("tune", "kinds", "--blocks", "2", "--project", project)
    assert done.exit_code == 0
    assert "No blocks were retrained: model kinds stays as it is" in done.output
    found = json.loads(command("tune", "kinds", "--blocks", "2", "--project", project, "--json").stdout)
    assert list(found) == ["tuning"]
    assert (found["tuning"]["from"], found["tuning"]["kept"]) == ("kinds", "linear")
    assert api.models(project=project)[0]["version"] == "v1"


def test_a_model_can_be_tuned(project):
    api.fit(project / "birds.csv", project=project, backbone="forgetful", name="birds")
    model, facts = api.tune("birds", project=project, blocks="2")
    assert (model.name, facts["from"]) == ("birds-tuned", "birds")
    again, facts = api.tune("birds-tuned", project=project, blocks="1", as_name="third")
    assert again is None or again.name == "third"
    with pytest.raises(InputError, match="another name"):
        api.tune("birds", project=project, as_name="birds")


def interrupted(monkeypatch, at_fold: int, step: int):
    """Ctrl-C at a step of a fold's training."""
    trained = tuning.trained
    calls = []

    def broken(*args, tick, **options):
        calls.append(1)

        def stop(done, total, loss):
            tick(done, total, loss)
            if len(calls) == at_fold and done == step:
                raise KeyboardInterrupt

        return trained(*args, tick=stop, **options)

    monkeypatch.setattr(tuning, "trained", broken)


@pytest.mark.parametrize(("fold", "step"), [(1, 1), (4, 17)])
def test_interrupted_and_gone_on_with_it_is_the_same_model(tuned, project, monkeypatch, fold, step):
    with monkeypatch.context() as patch:
        interrupted(patch, fold, step)
        with pytest.raises(KeyboardInterrupt):
            tune(project)
    folder = project / "unfinished" / "birds"
    assert len(list(folder.glob("blocks-2-*.json"))) == fold - 1
    assert len(list(folder.glob("*.part"))) == 1
    assert api.models(project=project) == []
    said = []
    with monkeypatch.context() as patch:
        count, train = [], loop.train
        patch.setattr(loop, "train", lambda *args, **options: count.append(1) or train(*args, **options))
        model, facts = tune(project, resume=True, say=said.append)
    assert len(count) == 1 + 5 - (fold - 1)  # one to see how long it takes
    assert "going on with the interrupted run" in said
    assert changed(model) == changed(tuned[1])
    assert model.head.W.tobytes() == tuned[1].head.W.tobytes()
    for row, whole in zip(facts["rungs"], tuned[2]["rungs"], strict=True):
        assert {**row, "seconds": 0} == {**whole, "seconds": 0}
    assert facts["history"] == tuned[2]["history"]
    assert not folder.exists()


def test_resume_of_another_run_is_refused(project, monkeypatch):
    with pytest.raises(InputError, match=r"no interrupted run of 'birds'.*leave out --resume"):
        tune(project, resume=True)
    with monkeypatch.context() as patch:
        interrupted(patch, 1, 2)
        with pytest.raises(KeyboardInterrupt):
            tune(project)
    for options in ({"seed": 1}, {"blocks": "1"}, {"low_rank": 2}, {"cut": "3"}):
        with pytest.raises(InputError, match="on other rows, another base or with other flags"):
            tune(project, resume=True, **options)
    written(project / "birds.csv", table(80, seed=3))
    with pytest.raises(InputError, match="on other rows"):
        tune(project, resume=True)
    assert (project / "unfinished" / "birds" / "blocks-2-0.part").exists()
    model, _ = tune(project)  # anew
    assert model is not None
    assert not (project / "unfinished" / "birds").exists()


def test_interrupted_after_a_rung_that_pays_that_is_kept(project, monkeypatch):
    monkeypatch.setattr(tuning, "rungs", lambda base, blocks, n: [("1", 2, "blocks:2"), ("0", 3, "all")])
    said = []
    with monkeypatch.context() as patch:
        interrupted(patch, 7, 3)
        model, facts = tune(project, blocks="auto", say=said.append)
    assert facts["interrupted"]
    assert facts["kept"] == "blocks:2"
    assert any("--resume goes on" in line for line in said)
    assert api.verify(model.name, project=project)["same_labels"] == 1
    again, facts = tune(project, blocks="auto", resume=True)
    assert not facts["interrupted"]
    assert [row["rung"] for row in facts["rungs"]] == ["linear", "blocks:2", "all"]
    assert again is not None


def test_a_base_that_only_a_model_carries_is_refused_before_any_training(project, tmp_path, monkeypatch):
    """Its weights cannot be had by name, so what is retrained of it could not be written."""
    api.fit(project / "birds.csv", project=project, backbone="forgetful", name="birds")
    forgetful(tmp_path / "own")
    model = api.load("birds", project=project)
    monkeypatch.setattr(type(model), "backbone", network.Network.open(tmp_path / "own"))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train", lambda *args, **options: pytest.fail("it was trained"))
        with pytest.raises(InputError, match="built in or installed"):
            api.tune("birds", project=project, blocks="2")
        with pytest.raises(InputError, match="built in or installed"):
            api.distil("birds", to="blocks:2", project=project)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"blocks": "two"}, InputError, "--blocks two is neither auto, all, nor a number"),
        ({"blocks": "0"}, InputError, "--blocks 0"),
        ({"low_rank": 0}, InputError, "--low-rank 0 is not a rank"),
        ({"budget": "soon"}, InputError, "'soon' is not a time"),
        ({"refuse": 0.7}, InputError, "--refuse"),
        ({"seed": -1}, InputError, "--seed -1"),
        ({"as_name": "a/b"}, InputError, "cannot name a model"),
        ({"task": "clasification"}, InputError, "classification"),
        ({"data": "bird.csv"}, NotFound, "birds.csv"),
    ],
)
def test_mistakes_are_said(project, options, error, message):
    with pytest.raises(error, match=message):
        tune(project, **options)
    assert not (project / "models").exists()


def test_a_name_that_is_nearly_right(project, tuned):
    with pytest.raises(NotFound, match=r"brids: neither a model of this project nor a file.*birds"):
        api.tune("brids", project=tuned[0])


def test_without_torch_the_pip_line_is_said(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r"pip install 'headstart\[torch\]'"):
        tune(project)
    done = command("tune", project / "birds.csv", "--project", project)
    assert isinstance(done.exception, MissingExtra)


def test_a_model_that_keeps_no_rows_is_refused_in_words_that_fit(project):
    api.fit(project / "birds.csv", project=project, backbone="forgetful", name="bare", keep_examples=False)
    with pytest.raises(InputError, match="keeps no training examples") as error:
        api.tune("bare", project=project)
    assert "--data" not in str(error.value)  # which tune does not take


def command(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "200"})


def test_the_command_line(project):
    given = ["--backbone", "forgetful", "--blocks", "2", "--project", project]
    done = command("tune", project / "birds.csv", *given)
    assert done.exit_code == 0, done.output
    for said in ("the head alone", "the last 2 blocks", "Model birds saved", "give or take"):
        assert said in done.output
    found = json.loads(command("tune", project / "birds.csv", *given, "--as", "b", "--json").stdout)
    assert found["name"] == "b"
    assert found["tuning"]["kept"] == "blocks:2"
    assert {"rung", "blocks", "accuracy", "low", "high", "n", "gain", "noise", "seconds", "kept"} == set(
        found["tuning"]["rungs"][0]
    )
    wrong = command("tune", "knds", "--project", project)
    assert isinstance(wrong.exception, HeadstartError)
    assert wrong.exception.exit_code != 0


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_the_command_line_interrupted(project, monkeypatch, form):
    given = [project / "birds.csv", "--backbone", "forgetful", "--blocks", "auto", "--project", project, *form]
    monkeypatch.setattr(tuning, "rungs", lambda base, blocks, n: [("1", 2, "blocks:2"), ("0", 3, "all")])
    with monkeypatch.context() as patch:
        interrupted(patch, 7, 3)
        done = command("tune", *given)
    assert done.exit_code == 130
    assert "Traceback" not in done.output
    with monkeypatch.context() as patch:
        interrupted(patch, 1, 3)
        done = command("tune", *given, "--as", "none")
    assert done.exit_code == 130
    assert not (project / "models" / "none").exists()


def test_who_interrupts_is_told_how_to_go_on(monkeypatch, capsys):
    from headstart import cli

    monkeypatch.setattr(cli, "app", lambda: sys.exit(130))
    monkeypatch.setattr(sys, "argv", ["headstart", "tune", "birds.csv"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "tune" in (said := capsys.readouterr().err)
    assert "--resume" in said  # the same command again would begin anew


def test_a_finished_network_is_read_and_not_trained(hard, tmp_path, monkeypatch):
    ground, tried = hard
    for part, one in enumerate(tried.networks):
        arrays = {"W": one.W, "b": one.b, "scores": one.scores, "space": one.space}
        journal.write(
            tmp_path / f"blocks-2-{part}", {"epochs": one.epochs, "history": list(one.history)}, arrays, one.changed
        )
    monkeypatch.setattr(tuning, "seconds", lambda *given: 0.0)
    monkeypatch.setattr(loop, "train", lambda *args, **options: pytest.fail("it was trained"))
    again = climbed(ground, tmp_path)[0]
    assert again.scores.tobytes() == tried.scores.tobytes()
    assert again.networks[0].history == tried.networks[0].history


def test_arrays_of_the_journal_are_plain(hard, tmp_path):
    one = hard[1].networks[0]
    journal.write(tmp_path / "x", {}, {"W": one.W}, one.changed)
    assert len(tensors.load(tmp_path / "x.safetensors")) == 1 + len(one.changed)
