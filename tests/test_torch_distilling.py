"""Students that answer as their teacher does: saved, replayed, measured on rows they have not seen."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

import compress_networks  # noqa: E402
from headstart import api, backbones, distilling, tuning  # noqa: E402
from headstart.backbones import network  # noqa: E402
from headstart.backbones.static import Static  # noqa: E402
from headstart.backbones.tuned import Tuned  # noqa: E402
from headstart.dataset import read  # noqa: E402
from headstart.distilling import Lesson, kind  # noqa: E402
from headstart.errors import InputError, MissingExtra, NotFound  # noqa: E402
from small_graphs import FACTS, picture, picture_folder, text_folder  # noqa: E402
from test_torch_tuning import at, command, forgetful, quick, table, written  # noqa: E402

pytestmark = pytest.mark.torch
torch.set_num_threads(1)
TOS = ["static", "blocks:2", "mlp"]


def pieces(folder: Path) -> None:
    """A network whose tokeniser spells words in pieces, as a static student needs it."""
    portable = compress_networks.text_network(masked=True)
    folder.mkdir()
    (folder / "model.onnx").write_bytes(portable.model.SerializeToString())
    (folder / "tokenizer.json").write_bytes(portable.tokeniser)
    network.describe(folder, name=folder.name, modality="text", tokens=32, **FACTS)


def looks():
    """Pictures of noise and bright ones of one colour."""
    y = ["noise" if i % 2 else "bright" for i in range(40)]
    files = [picture(i, (32, 32)) if i % 2 else flat(i) for i in range(40)]
    return pa.table({"image": pa.array(files, pa.large_binary()), "label": y})


def flat(seed: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 40), tuple(np.random.default_rng(seed).integers(150, 255, 3).tolist())).save(file, "PNG")
    return file.getvalue()


def teacher(to: str) -> str:
    return "spelt" if to == "static" else "kinds"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A teacher of texts, "kinds", one of pictures, "looks", and rows without labels; in a cache of this module's own."""
    folder = tmp_path_factory.mktemp("distil")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(tuning, "recipe", quick)
        patch.setattr("headstart.training.static.STEPS", 60)
        patch.setattr("headstart.training.mlp.STEPS", 300)
        patch.setattr(distilling, "TIMED", 40)
        backbones.folder().mkdir(parents=True)
        forgetful(backbones.folder() / "forgetful")
        text_folder(backbones.folder() / "letters", name="letters")
        picture_folder(backbones.folder() / "scenes", name="scenes")
        pieces(backbones.folder() / "pieces")
        written(folder / "kinds.csv", table(80, of=("easy",)))
        written(folder / "test.csv", table(30, 3, of=("easy",)))
        written(folder / "more.csv", [(text,) for text, _ in table(50, 4, of=("easy",))], ("text",))
        api.fit(folder / "kinds.csv", project=folder, backbone="forgetful", name="kinds")
        api.fit(folder / "kinds.csv", project=folder, backbone="pieces", name="spelt")
        api.fit(looks(), project=folder, backbone="scenes", name="looks", views=False)
        yield folder


@pytest.fixture(scope="module", params=TOS)
def student(request, project):
    model, facts = api.distil(
        teacher(request.param), to=request.param, project=project, test=str(project / "test.csv"),
        unlabelled=str(project / "more.csv"), as_name=f"of-{request.param.replace(':', '-')}",
    )  # fmt: skip
    return request.param, model, facts


def test_a_student_answers_as_its_teacher(student, project):
    to, model, facts = student
    assert (facts["from"], facts["to"], facts["n"], facts["unlabelled"]) == (teacher(to), to, 80, 50)
    assert facts["agreement"] > 0.85
    assert facts["student"]["accuracy"] > 0.85
    assert facts["teacher"]["accuracy"] > 0.9
    one = api.load(teacher(to), project=project)
    texts = [text for text, _ in table(40, 9, of=("easy",))]
    same = [a.label == b.label for a, b in zip(model.predict(texts), one.predict(texts), strict=True)]
    assert np.mean(same) > 0.85
    assert api.facts(model)["test"]["accuracy"] > 0.85
    assert api.facts(model)["distilled"]["agreement"] == facts["agreement"]
    assert {"accuracy", "low", "high", "per_second", "mb"} == set(facts["student"])
    for row in facts["disagree"]:
        assert row["teacher"] != row["student"]


def test_a_student_is_replayed_and_needs_no_torch(student, project):
    to, model, _ = student
    assert api.verify(model.name, project=project)["same_labels"] == 1
    assert isinstance(model.backbone, {"static": Static, "blocks:2": Tuned}.get(to, object))
    assert model.head.name == ("mlp" if to == "mlp" else "linear")
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from headstart import api\n"
        f"api.verify({model.name!r}, project={str(project)!r})"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_rows_without_a_label_are_told_of(student):
    """The data's own facts know of the rows without labels that were answered and learned from."""
    data = api.facts(student[1])["data"]
    assert (data["used"], data["unlabelled"]) == (80, 50)


def test_a_student_is_smaller(student):
    to, _, facts = student
    assert facts["smaller"] == pytest.approx(facts["teacher"]["mb"] / facts["student"]["mb"], rel=0.1)
    if to == "static":
        assert facts["quicker"] > 1
    if to == "blocks:2":
        assert facts["smaller"] > 1


@pytest.mark.parametrize("to", TOS)
def test_rows_without_a_label_take_part(project, monkeypatch, to):
    """What is learned from are the teacher's answers to all rows but those held out; of every row its own."""
    from headstart.training import loop, mlp, static

    seen = []

    def told(function, places, answers):
        def spied(*args, **options):
            seen.append((args[places], args[answers]))
            return function(*args, **options)

        return spied

    monkeypatch.setattr(static, "student", told(static.student, 0, 1))
    monkeypatch.setattr(mlp, "student", told(mlp.student, 0, 1))
    monkeypatch.setattr(loop, "train", told(loop.train, 2, 1))
    answered = []
    monkeypatch.setattr(distilling, "Lesson", lambda *given: answered.append(given) or Lesson(*given))
    for where in ("ground", "distilling"):
        monkeypatch.setattr(f"headstart.{where}.MOST_POOL", 20 if to == "blocks:2" else 5000)
    api.distil(teacher(to), to=to, project=project, unlabelled=str(project / "more.csv"), as_name="x")
    _, pool, P, fold, _ = answered[0]
    assert P.shape == (130, 2)
    held = [np.flatnonzero(fold == part) for part in range(5)]
    m = 20 if to == "blocks:2" else 50
    sizes = [80 - len(out) + m for out in held] + ([] if to == "blocks:2" else [80 + m])
    assert [len(one[0]) for one in seen][-len(sizes) :] == sizes
    if to == "blocks:2":
        task = seen[1][1]
        base = backbones.load("forgetful")
        some = np.sort(np.random.default_rng(0).permutation(50)[:20])
        np.testing.assert_array_equal(task.T, np.concatenate([P[:80], P[80 + some]]))
        for rows_, _ in seen[1:]:
            assert set(range(80, 100)) <= set(rows_.tolist())
        assert base.card.name == "forgetful"
    elif to == "static":
        texts = pool.raw(np.arange(50))
        assert seen[-1][0][-50:] == list(texts)
        np.testing.assert_array_equal(seen[-1][1], P)
    else:
        np.testing.assert_array_equal(seen[-1][1], P)
        np.testing.assert_array_equal(seen[0][1], P[np.r_[np.setdiff1d(np.arange(80), held[0]), 80:130]])


@pytest.mark.parametrize(("to", "meant"), [("statik", "static"), ("blocks", "blocks:"), ("block:3", "blocks:"), ("mpl", "mlp"),
                                           ("blocks:0", "blocks:"), ("blocks:x", "blocks:"), ("", "static"), ("static:2", "static")])  # fmt: skip
def test_what_no_student_can_be_is_refused(project, to, meant):
    with pytest.raises(InputError, match=f"--to {to}: a student is static, blocks:K .*{meant}"):
        kind(to)
    with pytest.raises(InputError):
        api.distil(teacher(to), to=to, project=project)


def test_kinds():
    assert kind("static") == ("static", 0)
    assert kind("mlp") == ("mlp", 0)
    assert kind("blocks:12") == ("blocks", 12)


def test_blocks_that_are_not_there_are_refused(project):
    with pytest.raises(InputError, match=r"--to blocks:7: a student of forgetful can have .*1, 2"):
        api.distil("kinds", to="blocks:7", project=project)


@pytest.mark.parametrize("to", TOS)
def test_pictures(project, to):
    if to == "static":
        with pytest.raises(InputError, match="reads pictures: use --to blocks:K or mlp"):
            api.distil("looks", to=to, project=project, data=looks())
        return
    with pytest.raises(InputError, match="small copies of its pictures; give them with --data"):
        api.distil("looks", to=to, project=project)
    model, facts = api.distil("looks", to=to, project=project, data=looks())
    assert facts["agreement"] > 0.7
    assert api.verify(model.name, project=project)["same_labels"] == 1


@pytest.mark.parametrize(("task", "to"), [("regression", "static"), ("regression", "blocks:2"), ("multilabel", "mlp")])
def test_numbers_and_several_labels(project, tmp_path, task, to):
    rows = [
        (text, 1000 + 50 * (label == "fruit") if task == "regression" else label + "; " * ("the" in text) + "the" * ("the" in text))
        for text, label in table(60, of=("easy",))
    ]  # fmt: skip
    path = written(tmp_path / "rows.csv", rows)
    api.fit(path, project=tmp_path, backbone="pieces" if to == "static" else "forgetful", name="t", task=task)
    model, facts = api.distil("t", to=to, project=tmp_path)
    assert facts["task"] == task
    assert facts["agreement"] > 0.6
    assert facts["disagree"] == []
    if task == "regression":
        values = [one.value for one in model.predict(["apple", "iron"])]
        assert values[0] > values[1] + 15
    assert api.verify(model.name, project=tmp_path)["probes"] > 0


def test_a_teacher_without_examples_is_refused(project):
    api.fit(labels=["fruit", "metal"], project=project, backbone="letters", name="zero")
    with pytest.raises(InputError, match="made from label names alone"):
        api.distil("zero", to="static", project=project)


def test_with_five_folds_of_which_three_are_judged(project, tmp_path, monkeypatch):
    monkeypatch.setattr("headstart.ground.VERY_FEW", 30)
    model, facts = api.distil("kinds", to="blocks:2", project=project, as_name="three")
    fold = distilling._dealt(read(str(project / "kinds.csv")), 0)
    assert facts["n"] == int((fold < 3).sum()) < 80
    assert "3 folds" in api.facts(model)["estimate"]["how"]
    assert api.verify(model.name, project=project)["same_labels"] == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_mb": 0}, InputError, "--max-mb 0"),
        ({"max_mb": 0.002, "to": "static", "name": "spelt"}, InputError, "--max-mb"),
        ({"seed": -1}, InputError, "--seed -1"),
        ({"as_name": "kinds"}, InputError, "another name"),
        ({"backbone": "scenes"}, InputError, "does not read what 'kinds' reads"),
        ({"backbone": "leters", "to": "mlp"}, NotFound, "letters"),
        ({"name": "kind"}, NotFound, "kinds"),
    ],
)
def test_mistakes_are_said(project, options, error, message):
    given = {"name": "kinds", "to": "mlp", **options}
    with pytest.raises(error, match=message):
        api.distil(given.pop("name"), project=project, **given)


def test_without_torch_the_pip_line_is_said(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r"pip install 'headstart\[torch\]'"):
        api.distil("kinds", to="mlp", project=project)


def test_another_base(project):
    model, facts = api.distil("kinds", to="mlp", project=project, backbone="letters", as_name="lettered")
    assert model.card["backbone"]["name"] == "letters"
    assert facts["agreement"] > 0.5


def test_the_command_line(project):
    done = command("distil", "kinds", "--to", "mlp", "--as", "cl", "--project", project)
    assert done.exit_code == 0, done.output
    for said in ("teacher", "student", "times smaller", "Model cl saved"):
        assert said in done.output
    found = json.loads(command("distil", "kinds", "--to", "mlp", "--as", "js", "--project", project, "--json").stdout)
    assert found["name"] == "js"
    assert {"from", "to", "teacher", "student", "agreement", "n", "disagree", "quicker", "smaller"} <= set(
        found["distilled"]
    )
    wrong = command("distil", "kinds", "--to", "mlpp", "--project", project)
    assert isinstance(wrong.exception, InputError)


def test_the_same_seed_gives_the_same_student(project):
    rows = read(str(project / "kinds.csv"))
    P = rows.targets()
    one, two = (
        distilling._mlp(
            Lesson(rows, None, P, distilling._dealt(rows, 0), 3), backbones.load("forgetful"), None, lambda *told: None
        )
        for _ in range(2)
    )
    assert one.scores.tobytes() == two.scores.tobytes()
    for name, value in one.head.arrays().items():
        assert value.tobytes() == two.head.arrays()[name].tobytes()


def test_places_of_a_lesson(tmp_path):
    rows = read(str(written(at(tmp_path) / "rows.csv", [(f"r{i}", "ab"[i % 2]) for i in range(6)])))
    pool = read(str(written(tmp_path / "pool.csv", [(f"u{i}",) for i in range(3)], ("text",))), labelled=False)
    lesson = Lesson(rows, pool, np.zeros((9, 2), np.float32), np.array([0, 0, 1, 1, -1, -1]), 0)
    assert lesson.learned(0).tolist() == [2, 3, 4, 5, 6, 7, 8]
    assert lesson.learned(None).tolist() == list(range(9))
    assert lesson.texts(lesson.learned(1)) == ["r0", "r1", "r4", "r5", "u0", "u1", "u2"]
    assert Path(tmp_path).exists()
