"""backbone.json: read strictly, and written only for what belongs together."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.backbones import described, network
from headstart.errors import InputError, ModelError, NotFound
from headstart.preprocessing import Preprocessing
from small_graphs import FACTS, convolutions, picture_folder, text_folder, words

_TAP = {"name": "0", "tensor": "x", "kind": "tokens", "width": 4, "parameters": 1, "operations": 0.5, "size": 4}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return network.Network.open(text_folder(tmp_path_factory.mktemp("net") / "text"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return network.Network.open(picture_folder(tmp_path_factory.mktemp("net") / "pictures"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "format 2"),
        ({"extra": 1}, "'extra' is not known"),
        ({"name": "../x"}, "letters that names do not have"),
        ({"files": {}}, "1 to 64"),
        ({"files": {"../x": "0" * 64}}, "no plain name"),
        ({"files": {"model.onnx": "0"}}, "no plain name"),
        ({"graph": "other.onnx"}, "not among the files"),
        ({"modality": "sound"}, "neither text nor image"),
        ({"tokens": 0}, "tokens from 1"),
        ({"tokens": True}, "tokens from 1"),
        ({"preprocessing": {"width": 3, "height": 3}}, "preprocessing to pictures"),
        ({"taps": [{}]}, "a tap must have"),
        ({"taps": []}, "no cut|no tap|nowhere|taps need"),
        ({"cut": "9"}, "no cut '9'"),
        ({"alone": 1}, "true or false"),
        ({"notes": [1]}, "sentences"),
        ({"licence": ""}, "licence must be text"),
        ({"parameters": -1}, "must be a number"),
        ({"revision": 3}, "revision must be text"),
    ],
)
def test_backbone_json_is_read_strictly(tmp_path, text, change, words):
    facts = {**json.loads((text.folder / "backbone.json").read_text()), **change}
    if change == {"taps": []}:
        facts["top"] = None
    (tmp_path / "backbone.json").write_text(json.dumps(facts))
    with pytest.raises(ModelError, match=words):
        described.read(tmp_path)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(sorted(_TAP)),
    st.one_of(st.none(), st.integers(-2, 2**60), st.floats(), st.text(), st.lists(st.none())),
)
def test_a_tap_of_the_file_is_right_or_refused(key, value):
    try:
        described._place({**_TAP, key: value}, ModelError)
    except ModelError:
        return
    assert key not in ("width", "size", "parameters") or isinstance(value, int)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"format": 1, "format": 1}', b'{"format": NaN}'])
def test_what_is_no_backbone_json(tmp_path, content):
    (tmp_path / "backbone.json").write_bytes(content)
    with pytest.raises(ModelError):
        described.read(tmp_path)


def test_what_does_not_belong_together_is_refused(tmp_path):
    folder = text_folder(tmp_path / "a")
    words(folder, [f"w{i}" for i in range(60)] + ["[UNK]"])
    with pytest.raises(ModelError, match="token numbers up to 60, and the network has embeddings for 50"):
        network.describe(folder, name="x", modality="text", tokens=16, **FACTS)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="is no tokeniser"):
        network.describe(folder, name="x", modality="text", tokens=16, **FACTS)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(NotFound, match=r"needs tokenizer\.json"):
        network.describe(folder, name="x", modality="text", tokens=16, **FACTS)
    with pytest.raises(InputError, match="must be said"):
        network.describe(folder, name="x", modality="image", **FACTS)
    other = Preprocessing(16, 16)
    picture_folder(tmp_path / "b")
    with pytest.raises(ModelError, match="takes pictures 3 x 32 x 32, and the preprocessing gives 3 x 16 x 16"):
        network.describe(tmp_path / "b", name="x", modality="image", preprocessing=other, **FACTS)
    other = Preprocessing(32, 32, layout="NHWC")
    with pytest.raises(ModelError, match=r"NHWC|32 x 32 x 3"):
        network.describe(tmp_path / "b", name="x", modality="image", preprocessing=other, **FACTS)
    other = Preprocessing(32, 32, dtype="uint8")
    with pytest.raises(ModelError, match="takes NCHW float32, and the preprocessing gives NCHW uint8"):
        network.describe(tmp_path / "b", name="x", modality="image", preprocessing=other, **FACTS)
    with pytest.raises(ModelError, match="does not take texts of 65 tokens"):
        text_folder(tmp_path / "c", tokens=65)  # it has 64 positions


def test_a_hostile_graph_is_refused_where_it_is_described(tmp_path):
    """faults.md A15"""
    folder = picture_folder(tmp_path / "a")
    model = convolutions()[0]
    model.graph.node[0].domain = "evil"
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    before = (folder / "backbone.json").read_bytes()
    with pytest.raises(ModelError, match=r"model\.onnx: .*custom operator"):
        network.describe(folder, name="x", modality="image", preprocessing=Preprocessing(32, 32), **FACTS)
    assert (folder / "backbone.json").read_bytes() == before


def test_python_files_beside_a_graph_are_not_run(tmp_path, monkeypatch):
    """faults.md A16"""
    folder = tmp_path / "a"
    folder.mkdir()
    for name in ("json.py", "onnx.py", "numpy.py", "headstart.py", "sitecustomize.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    monkeypatch.chdir(folder)
    (folder / "model.onnx").write_bytes(convolutions()[0].SerializeToString())
    network.describe(folder, name="x", modality="image", preprocessing=Preprocessing(32, 32), **FACTS)
    assert not (tmp_path / "canary").exists()


def test_default_cuts(tmp_path, text, pictures):
    assert (text.cut, pictures.cut) == ("top", "top")  # after the last norm; the embedding
    classes = network.Network.open(picture_folder(tmp_path / "a", convolutions(classes=True)[0]))
    assert classes.cut == "2"
    assert classes.card.width == 48
    chosen = network.Network.open(picture_folder(tmp_path / "b", cut="2+max2"))
    assert chosen.cut == "2+max2"
    assert chosen.card.width == 96
    assert network.Network.open(tmp_path / "b", cut="0").cut == "0"
    with pytest.raises(InputError, match="no cut '7' in small"):
        picture_folder(tmp_path / "c", cut="7")
    for wrong in ("7", "maxtop", "0+0", "", "max"):
        with pytest.raises(InputError, match="no cut"):
            text.at(wrong)
