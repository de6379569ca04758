"""The verbs in Python, on the instant backbone: every task, every kind of table, honest figures."""

import json

import numpy as np
import pyarrow as pa
import pytest

import headstart
from conftest import TOPICS, sentences
from headstart import api
from headstart.errors import DataError, InputError, NotFound


def fit(data, tmp_path, **more):
    return headstart.fit(data, project=tmp_path, backbone="fake", **{"name": "m", **more})


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    return fit(sentences(120), tmp_path_factory.mktemp("easy"))


def test_classification(easy):
    facts = api.facts(easy)
    assert easy.task == "classification"
    assert facts["estimate"]["accuracy"] > 0.9
    assert facts["estimate"]["low"] < facts["estimate"]["accuracy"] <= facts["estimate"]["high"]
    assert facts["unknown"]["caught"] is not None
    assert facts["curve"]["points"]
    assert facts["calibration"]["bins"]
    assert [p.label for p in easy.predict(["crow owl wren", "zinc tin lead"])] == ["bird", "metal"]
    [one] = easy.predict("plum fig pear")
    assert (one.label, one.unknown) == ("fruit", False)


def test_foreign_input_is_unknown(easy):
    assert all(p.unknown for p in easy.predict(["parliament debated taxation yesterday", "qqq zzz xxx"]))


def test_empty_calls(easy):
    assert easy.predict([]) == []
    assert len(easy.predict([""])) == 1


def test_evaluate_and_overlap(easy):
    fresh = api.evaluate(easy, sentences(30, seed=3))
    assert fresh["test"]["accuracy"] > 0.9
    again = easy.evaluate(sentences(120))
    assert any("also occur in the training data" in note for note in again["notes"])
    with pytest.raises(DataError, match="fisch"):
        api.evaluate(easy, [("x", "fisch"), ("y", "bird")])


@pytest.mark.parametrize("kind", ["pairs", "dicts", "arrow", "pandas", "polars", "y"])
def test_every_table_gives_the_same_model(kind, tmp_path):
    rows = sentences(60)
    texts, labels = map(list, zip(*rows, strict=True))
    data, y = rows, None
    if kind == "dicts":
        data = [{"text": t, "label": x} for t, x in rows]
    elif kind == "arrow":
        data = pa.table({"text": texts, "label": labels})
    elif kind in ("pandas", "polars"):
        data = pytest.importorskip(kind).DataFrame({"text": texts, "label": labels})
    elif kind == "y":
        data, y = texts, labels
    model = fit(data, tmp_path / "a", y=y)
    expected = fit(rows, tmp_path / "b")
    for name, array in expected.arrays().items():
        np.testing.assert_array_equal(model.arrays()[name], array)


def test_several_labels(tmp_path):
    rows = [
        {"text": f"{a[0]} {b[0]}", "tags": sorted({a[1], b[1]})}
        for a, b in zip(sentences(150), sentences(150, 7)[1:], strict=False)
    ]
    model = fit(rows, tmp_path)
    assert model.task == "multilabel"
    assert model.labels == ("bird", "fruit", "metal")
    figures = api.facts(model)["estimate"]
    assert figures["micro_f1"] > 0.8
    assert {"micro_f1", "macro_f1"} <= set(figures["at_half"])
    [found] = model.predict("iron copper gold wren owl crow")
    assert set(found.labels) == {"bird", "metal"}
    assert model.thresholds.shape == (3,)
    assert headstart.load("m", project=tmp_path).predict("iron tin") == model.predict("iron tin")


def test_a_number(tmp_path):
    draw = np.random.default_rng(0)
    words = {"none": 0.0, "some": 1.5, "many": 4.0}
    rows = []
    for i in range(200):
        picked = [list(words)[j] for j in draw.integers(0, 3, 3)]
        rows.append((f"{' '.join(picked)} n{i}", sum(words[w] for w in picked) + float(draw.normal(0, 0.1))))
    model = fit(rows, tmp_path)
    assert model.task == "regression"
    assert api.facts(model)["estimate"]["r2"] > 0.8
    [low], [high] = model.predict("none none none"), model.predict("many many many")
    assert low.label is None
    assert low.value < 4 < high.value


def test_labels_alone_make_a_model(tmp_path):
    model = fit(None, tmp_path, labels={kind: " ".join(words) for kind, words in TOPICS.items()})
    assert [p.label for p in model.predict(["an owl and a wren", "tin or zinc"])] == ["bird", "metal"]
    assert api.facts(model)["estimate"] is None
    assert "zero-shot" in api.facts(model)["verdict"][0]
    with pytest.raises(InputError, match="mean something"):
        fit(None, tmp_path, labels="c1,c2")


def test_a_split_column_is_the_test(tmp_path):
    table = [
        {"text": t, "label": x, "split": "test" if i % 4 == 0 else "train"} for i, (t, x) in enumerate(sentences(120))
    ]
    facts = api.facts(fit(table, tmp_path))
    assert facts["test"]["n"] == 30
    assert facts["data"]["used"] == 90


def test_unlabelled_rows_are_counted_and_may_help(tmp_path):
    rows = [(t, x if i < 12 else None) for i, (t, x) in enumerate(sentences(200))]
    facts = api.facts(fit(rows, tmp_path))
    assert facts["data"]["used"] == 12
    assert facts["data"]["unlabelled"] == 188
    assert facts["data"]["unlabelled_pool"] in (0, 188)


def test_duplicates_never_straddle_a_fold(tmp_path):
    """Random labels on texts that come twice: leaking duplicates would look better than chance."""
    draw = np.random.default_rng(0)
    rows = [(f"w{i} x{i} y{i}", "ab"[draw.integers(2)]) for i in range(150)]
    facts = api.facts(fit(rows * 2, tmp_path))
    assert facts["data"]["duplicates"] == 150
    assert facts["estimate"]["accuracy"] < 0.65


def test_groups_never_straddle_a_fold(tmp_path):
    draw = np.random.default_rng(0)
    kinds = ["ab"[k] for k in draw.integers(0, 2, 40)]
    rows = [{"text": f"g{i % 40} h{i % 40} k{i}", "label": kinds[i % 40], "group": i % 40} for i in range(200)]
    assert api.facts(fit(rows, tmp_path))["estimate"]["accuracy"] < 0.75


def test_an_unlearnable_set_is_told_apart_from_nothing(tmp_path):
    draw = np.random.default_rng(0)
    rows = [(f"u{i} v{i}", "ab"[draw.integers(2)]) for i in range(120)]
    assert any("not shown to be better" in line for line in api.facts(fit(rows, tmp_path))["verdict"])


def test_wrong_labels_are_found(tmp_path):
    rows = sentences(120)
    for i in (3, 40, 77):
        rows[i] = (rows[i][0], "bird" if rows[i][1] != "bird" else "metal")
    assert {4, 41, 78} <= {row["row"] for row in api.facts(fit(rows, tmp_path))["suspects"]}


@pytest.mark.parametrize(
    "rows",
    [
        [("a b", "x"), ("c d", "y")],
        [("a b", "x"), ("c d", "y"), ("e f", "x"), ("g h", "y")],
        [("a b", "x"), ("c d", "y"), ("e f", "z")],
        [("same", "x"), ("same", "y"), ("same", "x"), ("same", "y")],
        [*sentences(30), ("lonely", "single")],
    ],
)
def test_very_little_data_still_makes_a_model(rows, tmp_path):
    model = fit(rows, tmp_path)
    assert model.predict(["a b"])[0].label in model.labels
    assert api.facts(model)["verdict"]


def test_no_examples_means_no_texts_are_kept(tmp_path):
    model = fit([(f"{t} secretword", x) for t, x in sentences(60)], tmp_path, keep_examples=False)
    assert not (model.folder / "examples.parquet").exists()
    assert api.predict_one(model, ["apple fig"], why=True)[0]["why"]["nearest"] == []


def test_balanced_changes_the_head_and_stays_calibrated(tmp_path):
    rows = sentences(90) + [(f"{t} again", "bird") for t, x in sentences(150, 4) if x == "bird"]
    plain, even = fit(rows, tmp_path, name="a"), fit(rows, tmp_path, name="b", balanced=True)
    assert even.predict("apple fig")[0].label == "fruit"
    if plain.card["head"]["name"] == even.card["head"]["name"] == "linear":
        assert not np.array_equal(plain.head.W, even.head.W)


def test_models_and_errors(tmp_path):
    fit(sentences(60), tmp_path, name="one")
    fit(sentences(60), tmp_path, name="one")
    [row] = headstart.models(project=tmp_path)
    assert (row["name"], row["version"]) == ("one", "v2")
    assert json.dumps(row)
    with pytest.raises(NotFound, match="'one'"):
        headstart.load("onn", project=tmp_path)
    assert headstart.verify("one", project=tmp_path)["same_labels"]
    (tmp_path / "models" / "one" / "v2" / "facts.json").write_text("{}")
    assert "changed" in headstart.models(project=tmp_path)[0]["error"]
    assert headstart.remove("one", project=tmp_path) == [1, 2]


def test_given_labels_are_held_against_the_file(tmp_path):
    rows = sentences(60)
    with pytest.raises(InputError, match="'metal' is not one of --labels"):
        fit(rows, tmp_path, labels="bird,fruit")
    notes = api.facts(fit(rows, tmp_path, labels="bird,fruit,metal,stone"))["data"]["notes"]
    assert any("no example of stone" in note for note in notes)
    with pytest.raises(DataError, match="only one class"):
        fit([("a", "bird"), ("b", "bird")], tmp_path / "x", labels="bird,fruit")
    assert not (tmp_path / "x").exists()
    texts = pa.table({"text": [text for text, _ in rows]})
    assert api.facts(fit(texts, tmp_path, labels="bird,fruit"))["head"]["name"] == "prior"
