"""A saved model: what is saved is what was trained, and nothing damaged or hostile is believed."""

import contextlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import headstart
from conftest import ROOT, sentences
from headstart import learning, saved, tensors
from headstart.backbones import minilm, tuned
from headstart.dataset import read
from headstart.errors import HeadstartError, InputError, ModelError, NotFound
from headstart.keeping import Clock
from headstart.model import load, replay

OWN = (saved.FILES - saved.CARRIED) | {saved.CARD}  # of a model without a backbone of its own


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    project = tmp_path_factory.mktemp("project")
    model = headstart.fit(sentences(90), name="easy", project=project, backbone="fake")
    return model.folder


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "v1")


def test_the_folder_holds_only_what_a_model_is(folder):
    assert {p.name for p in folder.iterdir()} == OWN
    card = json.loads((folder / "card.json").read_text())
    assert card["format"] == 3
    assert card["task"] == "classification"
    assert card["labels"] == ["bird", "fruit", "metal"]
    assert card["backbone"]["licence"]
    assert card["data"]["digest"]
    assert card["seed"] == 0
    assert str(folder.parent) not in (folder / "card.json").read_text()
    assert "model-index" in (folder / "README.md").read_text()


def test_loaded_equals_trained(folder):
    model = load(folder)
    texts = [text for text, _ in sentences(30, seed=5)]
    again = load(folder)
    assert model.predict(texts) == again.predict(texts)
    result = replay(model)
    assert result.probes == 64
    assert result.features <= 1e-6
    assert result.answers <= 1e-6
    assert result.same_labels


def test_identical_runs_give_identical_arrays(tmp_path):
    one = headstart.fit(sentences(60), name="a", project=tmp_path / "1", backbone="fake")
    two = headstart.fit(sentences(60), name="a", project=tmp_path / "2", backbone="fake")
    for name in (saved.ARRAYS, saved.PROBE_ARRAYS, saved.PROBES):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()


@pytest.mark.parametrize("name", sorted(OWN))
def test_every_flipped_bit_is_found(copy, name):
    path = copy / name
    content = bytearray(path.read_bytes())
    draw = np.random.default_rng(0)
    for at in draw.integers(0, len(content), 5):
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(draw.integers(0, 8))
        path.write_bytes(damaged)
        with pytest.raises(ModelError):
            load(copy)
    path.write_bytes(content)
    load(copy)


@pytest.mark.parametrize("name", sorted(OWN))
def test_truncated_and_missing_files_are_named(copy, name):
    path = copy / name
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ModelError):
        load(copy)
    path.unlink()
    with pytest.raises((ModelError, NotFound), match=name.replace(".", r"\.")):
        load(copy)


def resealed(copy, change):
    """Change the folder and sign it again, as someone with bad intent would."""
    card = json.loads((copy / "card.json").read_text())
    change(card)
    (copy / "card.json").unlink()
    card.pop("digest")
    version = card["format"]
    for path in copy.iterdir():
        assert path.is_file() or path.is_symlink()
    sealed = {**card, "files": {p.name: saved.sha256(p) for p in sorted(copy.iterdir())}, "format": version}
    sealed["digest"] = saved._card_digest(sealed)
    saved.write_json(copy / "card.json", sealed)


def rewrite(copy, change):
    arrays = tensors.load(copy / saved.ARRAYS)
    change(arrays)
    tensors.save(copy / saved.ARRAYS, arrays)


def test_a_newer_format_says_to_update(copy):
    resealed(copy, lambda card: card.update(format=99))
    with pytest.raises(ModelError, match=r"format 99.*up to 3.*pip install -U"):
        load(copy)


def hostile_nan(copy, card):
    def change(arrays):
        name = next(n for n in arrays if arrays[n].dtype == np.float32 and arrays[n].size)
        arrays[name] = np.full_like(arrays[name], np.nan)

    arrays = tensors.load(copy / saved.ARRAYS)
    change(arrays)
    tensors.save(copy / saved.ARRAYS, arrays)


def hostile_shape(copy, card):
    rewrite(copy, lambda arrays: arrays.update({n: a[..., :-1] for n, a in arrays.items() if n.startswith("head.")}))


def hostile_swap(copy, card):
    rewrite(copy, lambda arrays: arrays.update({n: -a for n, a in arrays.items() if n.startswith("head.")}))


def hostile_huge(copy, card):
    rewrite(
        copy,
        lambda arrays: arrays.update(
            {n: np.full_like(a, 1e38) for n, a in arrays.items() if n.startswith("head.") and a.dtype == np.float32}
        ),
    )


def hostile_missing(copy, card):
    rewrite(copy, lambda arrays: [arrays.pop(n) for n in list(arrays) if n.startswith("head.")])


def hostile_duplicate_label(copy, card):
    card["labels"] = ["bird", "bird", "metal"]


def hostile_one_label(copy, card):
    card["labels"] = ["bird"]


def hostile_labels(copy, card):
    card["labels"] = {"a": 1}


def hostile_head(copy, card):
    card["head"]["name"] = "../../evil"


def hostile_task(copy, card):
    card["task"] = "x"


def hostile_width(copy, card):
    card["backbone"]["width"] = 10**9


def hostile_extra_file(copy, card):
    (copy / "evil.py").write_text("print('no')")


def hostile_duplicate_tensor(copy, card):
    entry = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = f'{{"a":{entry},"a":{entry}}}'.encode()
    (copy / saved.ARRAYS).write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)


def hostile_header(copy, card):
    (copy / saved.ARRAYS).write_bytes(struct.pack("<Q", 5 << 20) + b"{}" + b" " * (5 << 20))


def hostile_pickle(copy, card):
    (copy / saved.ARRAYS).write_bytes(b"\x80\x04cos\nsystem\n(S'touch /tmp/owned'\ntR.")


HOSTILE = {name: change for name, change in globals().items() if name.startswith("hostile_")}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_folders_are_refused(copy, name):
    resealed(copy, lambda card: HOSTILE[name](copy, card))
    with pytest.raises(ModelError) as caught:
        load(copy)
    assert len(str(caught.value)) > 20


def test_card_paths_outside_the_folder_are_refused(copy):
    card = json.loads((copy / "card.json").read_text())
    card["files"]["../../../etc/passwd"] = card["files"].pop("README.md")
    card["digest"] = saved._card_digest(card)
    saved.write_json(copy / "card.json", card)
    with pytest.raises(ModelError, match="list of files"):
        load(copy)


MIXED = {
    "a network without its graph": {"backbone.json"},
    "a graph without its description": {"model.onnx", "tokenizer.json"},
    "a retrained one without its values": {"tuned.json"},
    "a retrained one with a network": {"tuned.json", "changed.safetensors", "backbone.json", "model.onnx"},
    "a retrained one with a tokeniser": {"tuned.json", "changed.safetensors", "tokenizer.json"},
    "two indexes": {"tuned.json", "changed.safetensors", "static.json", "vectors.safetensors", "tokenizer.json"},
    "vectors without a tokeniser": {"static.json", "vectors.safetensors"},
}


@pytest.mark.parametrize("what", MIXED)
def test_backbones_that_are_a_mix_are_refused(copy, what):
    def put(card):
        for name in MIXED[what]:
            (copy / name).write_bytes(b"{}")

    resealed(copy, put)
    with pytest.raises(ModelError, match="together are no backbone of format 3"):
        load(copy)


@pytest.mark.parametrize(("form", "files"), [(1, saved.NETWORK), (2, saved.TUNED), (2, saved.STATIC)])
def test_a_format_has_no_backbones_of_later_ones(copy, form, files):
    def put(card):
        card["format"] = form
        for name in files:
            (copy / name).write_bytes(b"{}")

    resealed(copy, put)
    with pytest.raises(ModelError, match=f"no backbone of format {form}"):
        load(copy)
    resealed(copy, lambda card: card.update(format=0))
    with pytest.raises(ModelError, match="there is no format 0"):
        load(copy)


def test_a_link_is_no_file_of_a_model(copy, tmp_path):
    shutil.move(copy / "facts.json", tmp_path / "elsewhere.json")
    (copy / "facts.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ModelError, match=r"facts\.json.*plain file"):
        load(copy)


def test_another_backbone_is_refused_by_fingerprint(copy):
    resealed(copy, lambda card: card["backbone"].update(fingerprint="0" * 64))
    with pytest.raises(ModelError, match="fingerprint 0000"):
        load(copy).predict(["apple"])


def test_what_answers_differently_is_not_saved(tmp_path, monkeypatch):
    real = saved.write_probes

    def tampered(folder, texts, features, probabilities):
        real(folder, texts, features, probabilities[::-1].copy())

    monkeypatch.setattr(saved, "write_probes", tampered)
    with pytest.raises(ModelError, match="not saved"):
        headstart.fit(sentences(60), name="easy", project=tmp_path, backbone="fake")
    assert list(tmp_path.iterdir()) == []


def test_loading_and_predicting_open_no_socket(folder):
    script = (
        "import sys\n"
        "def audit(event, args):\n"
        "    if event.startswith('socket.'): sys.exit('network: ' + event)\n"
        "sys.addaudithook(audit)\n"
        "import headstart\n"
        f"print(headstart.load({str(folder)!r}).predict(['apple pear'])[0].label)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "fruit"), done.stderr


def test_a_backbone_that_is_gone_is_named_and_nothing_else_is_blamed(copy, tmp_path):
    resealed(copy, lambda card: card["backbone"].update(name="gone"))
    for use in (lambda model: model.predict(["apple"]), replay):
        with pytest.raises(NotFound, match=r"^model 'easy' needs the base model it was made on: .*'gone'"):
            use(load(copy))
    with pytest.raises(NotFound, match="needs the base model"):
        headstart.api.predict_file(load(copy), ["apple"], output=tmp_path / "out.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["v1"]


def weights_or_skip():
    try:
        minilm.weights()
    except InputError as error:
        pytest.skip(str(error))


OLD = sorted((ROOT / "tests" / "saved").iterdir())


@pytest.mark.parametrize("old", OLD, ids=[folder.name for folder in OLD])
def test_old_formats_stay_readable(old, tmp_path):
    """Every model ever saved in tests/saved/ must load, answer its probes and predict.

    `python tests/test_saved.py PROJECT` makes the folders of today's format anew.
    """
    model = load(old)
    if model.card["backbone"]["name"] == minilm.NAME:
        weights_or_skip()
    assert replay(model).same_labels
    if model.modality == "text":
        assert [p.label for p in model.predict(["apple fig plum", "iron zinc"])] == ["fruit", "metal"]
        given = pa.table({"text": ["iron zinc"]})
    else:
        assert [p.label for p in model.predict([tile("blue", 30), tile("red", 30)])] == ["blue", "red"]
        given = pa.table({"image": [tile("blue", 30)]})
    assert headstart.api.predict_file(model, given, output=tmp_path / "out.csv", why=True)["rows"] == 1
    assert "similarity" in (tmp_path / "out.csv").read_text()
    assert headstart.api.facts(model)["name"] == model.name


def test_a_folder_of_each_format_and_kind_is_kept():
    found = {(json.loads((folder / saved.CARD).read_text())["format"], load(folder).modality) for folder in OLD}
    assert found >= {(1, "text"), (2, "text"), (2, "image"), (3, "text")}
    indexes = {
        name for folder in OLD for name in ("backbone.json", "tuned.json", "static.json") if (folder / name).exists()
    }
    assert "tuned.json" in indexes


def tile(colour, shade):
    """A small picture of one colour, as PNG."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (225, shade, shade) if colour == "red" else (shade, shade, 225)).save(file, "PNG")
    return file.getvalue()


def make_tuned(project, words):
    """A model on MiniLM whose last block was retrained: a norm whole, and a weight by a change of low rank."""
    from onnx import numpy_helper

    base, folder = minilm.MiniLM("float32", "6"), project / "changed"
    W = {tensor.name: numpy_helper.to_array(tensor) for tensor in base.graph().graph.initializer}
    last, draw = "encoder.layer.5.output", np.random.default_rng(0)
    up, down = (draw.normal(0, 0.05, shape).astype(np.float32) for shape in ((384, 2), (2, 1536)))
    norm = W[f"{last}.LayerNorm.weight"] * np.float32(1.1)
    name = f"{last}.dense.weight"
    tuned.write(folder, base, "5", 1, {f"{last}.LayerNorm.weight": norm, f"{name}/up": up, f"{name}/down": down})
    learning.supervised(
        "tuned", read(words), None, None, {}, tuned.Tuned.open(folder), Clock(), project=project,
        progress=lambda *_: None, carried=folder,
    )  # fmt: skip
    shutil.rmtree(folder)


def make(project):
    """A text model, a model of pictures and a retrained one, as small as they get."""
    words = [
        (f"{text} {i}", label) for i, (text, label) in enumerate([("apple fig", "fruit"), ("iron tin", "metal")] * 8)
    ]
    headstart.fit(words, name="texts", backbone="fake", project=project)
    pictures = [(tile(colour, shade), colour) for shade in range(10, 90, 10) for colour in ("red", "blue")]
    contents, labels = map(list, zip(*pictures, strict=True))
    headstart.fit(contents, labels, name="pictures", backbone="colours", project=project)
    make_tuned(project, words)


def test_every_refusal_is_ours(copy):
    """Random damage to a resealed folder ends in our error or in a model, never in another exception."""
    draw = np.random.default_rng(1)
    original = {p.name: p.read_bytes() for p in copy.iterdir()}
    for _ in range(40):
        name = draw.choice([saved.ARRAYS, saved.PROBES, saved.PROBE_ARRAYS])
        content = bytearray(original[name])
        for at in draw.integers(0, len(content), 3):
            content[at] = int(draw.integers(0, 256))
        (copy / name).write_bytes(content)
        resealed(copy, lambda card: None)
        with contextlib.suppress(HeadstartError):
            load(copy)
        (copy / name).write_bytes(original[name])
    assert os.path.exists(copy)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
