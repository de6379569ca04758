"""A backbone that is a folder: the contract on small networks and on every real one at hand; damaged folders."""

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from headstart.backbone import parts
from headstart.backbones import described, minilm, network
from headstart.backbones import onnx as runtime
from headstart.errors import ContentError, InputError, ModelError, NotFound
from headstart.graph import cut, shapes
from headstart.preprocessing import Preprocessing
from small_graphs import convolutions, transformer

WORDS = [
    "[UNK]",
    "[PAD]",
    *["apple", "pear", "plum", "iron", "zinc", "tin", "crow", "owl", "wren", "the", "a", "my", "some", "of", "and"],
]
TEXTS = ["the apple of my owl", "iron and zinc", "", "wren", "plum " * 40, "iron and zinc"]
FACTS = {"licence": "Apache-2.0", "source": "made in a test", "revision": "1"}


def picture(seed=0, size=(40, 30), form="JPEG"):
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((size[0] * 2, size[1] * 2)).save(file, form)
    return file.getvalue()


def words(folder, names=WORDS):
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(names)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))


def text_folder(folder, **facts):
    folder.mkdir()
    (folder / "model.onnx").write_bytes(transformer(3, pre=True)[0].SerializeToString())
    words(folder)
    network.describe(folder, **{"name": "small", "modality": "text", "tokens": 16, **FACTS, **facts})
    return folder


def picture_folder(folder, model=None, **facts):
    folder.mkdir()
    (folder / "model.onnx").write_bytes((model or convolutions()[0]).SerializeToString())
    how = Preprocessing(32, 32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    network.describe(folder, **{"name": "small", "modality": "image", "preprocessing": how, **FACTS, **facts})
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return network.Network.open(text_folder(tmp_path_factory.mktemp("net") / "text"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return network.Network.open(picture_folder(tmp_path_factory.mktemp("net") / "pictures"))


REAL = ["minilm", "mobilenet_v1_1.0_224_embedding_extractor_fp32", "mobilenet_v2_1.0_224_fp32",
        "keras_mobilenet_v2_0.35_224"]  # fmt: skip


@pytest.fixture(scope="module", params=["small text", "small pictures", "small, batch of 1", *REAL])
def any_network(request, tmp_path_factory):
    """(network, contents)"""
    folder = tmp_path_factory.mktemp("net") / "x"
    drawn = [picture(seed, (60 + seed, 50)) for seed in range(5)]
    if request.param == "small text":
        return network.Network.open(text_folder(folder)), TEXTS
    if request.param == "small pictures":
        return network.Network.open(picture_folder(folder)), drawn
    if request.param == "small, batch of 1":
        return network.Network.open(picture_folder(folder, convolutions(batch=1, flat="Reshape")[0])), drawn
    folder.mkdir()
    if request.param == "minilm":
        try:
            weights = minilm.weights()
        except InputError as error:
            pytest.skip(str(error))
        shutil.copyfile(minilm.GRAPHS["float32"], folder / "model.onnx")
        for name in minilm.DIGESTS:
            shutil.copyfile(weights / name, folder / name)
        network.describe(folder, name="all-minilm", modality="text", tokens=256, **FACTS)
        return network.Network.open(folder), TEXTS
    file = request.getfixturevalue("shared") / "backbones" / f"{request.param}.onnx"
    shutil.copyfile(file, folder / "model.onnx")
    how = Preprocessing(224, 224, scale=1 / 128, mean=(1.0, 1.0, 1.0))
    network.describe(folder, name="mobilenet", modality="image", preprocessing=how, **FACTS)
    return network.Network.open(folder), drawn


def test_rows_do_not_feel_one_another_and_are_the_same_each_time(any_network):
    net, contents = any_network
    X = net.encode(contents)
    assert X.shape == (len(contents), net.card.width)
    assert X.dtype == np.float32
    assert np.abs(np.linalg.norm(X, axis=1) - 1).max() <= 1e-5
    alone = np.concatenate([net.encode([content]) for content in contents])
    assert np.abs(X - alone).max() <= 1e-5
    order = np.random.default_rng(0).permutation(len(contents))
    assert np.abs(net.encode([contents[i] for i in order]) - X[order]).max() <= 1e-5
    assert np.array_equal(net.encode(contents), X)
    assert np.abs(network.Network.open(net.folder).encode(contents) - X).max() <= 1e-5
    assert net.encode([]).shape == (0, net.card.width)


def test_several_taps_in_one_pass_are_those_one_by_one(any_network):
    net, contents = any_network
    names = [tap.name for tap in net.taps] + ["max1", "top"]
    many = net.at("+".join(names))
    assert many.card.widths == tuple(net.at(name).card.width for name in names)
    for name, X in parts(many.encode(contents), many.card).items():
        assert np.abs(net.at(name).encode(contents) - X).max() <= 1e-5


def test_taps_and_costs(any_network):
    net, _ = any_network
    shares = [tap.operations for tap in net.taps]
    assert shares == sorted(set(shares))
    assert shares[0] > 0
    assert 0.5 < shares[-1] <= 1
    assert len(net.taps) == {"all-minilm": 7, "mobilenet": 5}.get(net.card.name, len(net.taps))
    cards = [net.at(tap.name).card for tap in net.taps]
    sizes = [net.at(tap.name).portable().model.ByteSize() for tap in net.taps]
    assert sizes == sorted(set(sizes))
    assert [card.size for card in cards] == sorted({card.size for card in cards})
    assert sizes[-1] <= 1.05 * sum(file.stat().st_size for file in net.folder.iterdir())
    assert len({card.fingerprint for card in cards}) == len(cards)


def test_halves_composed_are_the_whole_at_every_tap(any_network):
    net, _contents = any_network
    model = net.graph()
    top = net.description.top.tensor
    text = net.card.modality == "text"
    size = None if text else (net.preprocessing.height, net.preprocessing.width)
    feed = shapes.feed(model, net.card.modality, 3, 9, size, 15)
    outputs = {value.name for value in model.graph.output}
    whole = shapes.run(shapes.session(model, net.folder), [top], feed)[0] if top in outputs else None
    for place in net.description.taps:
        below, above = cut.halves(model, place, top)
        low = shapes.session(below, net.folder)
        names = [output.name for output in low.get_outputs()]
        given = {i.name: feed[i.name] for i in low.get_inputs()}
        states = dict(zip(names, shapes.run(low, names, given), strict=True))
        high = shapes.session(above, net.folder)
        composed = shapes.run(high, [top], {i.name: {**feed, **states}[i.name] for i in high.get_inputs()})[0]
        assert np.abs(composed - whole).max() <= 1e-5 * max(1, np.abs(whole).max())


def test_states_pool_to_features(any_network):
    net, contents = any_network
    for tap in (net.taps[0], net.taps[-1]):
        states = net.states(contents, tap.name)
        assert all(state.shape[1] == tap.width and len(state) > 0 for state in states)
        pooled = np.stack([state.mean(axis=0) for state in states])
        pooled /= np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
        assert np.abs(net.at(tap.name).encode(contents) - pooled).max() <= 1e-5
    assert net.states([], "0") == []


def test_what_is_given_away_gives_the_same(any_network):
    net, contents = any_network
    given_away = net.portable()
    assert given_away.modality == net.card.modality
    X = net.encode(contents[:2])
    session = shapes.session(given_away.model, None)
    for i, content in enumerate(contents[:2]):
        if given_away.modality == "text":
            tokeniser = Tokenizer.from_str(given_away.tokeniser.decode())
            tokeniser.no_padding()
            tokeniser.enable_truncation(given_away.tokens)
            feed = np.array([tokeniser.encode(content).ids], np.int64)
        else:
            how = given_away.preprocessing
            from headstart.modalities.image import decoded

            feed = how.apply(decoded(content, how.least))[None]
        got = session.run(["features"], {session.get_inputs()[0].name: feed})[0]
        assert np.abs(got[0] - X[i]).max() <= 1e-5


def test_minilm_in_a_folder_is_minilm(any_network):
    net, contents = any_network
    if net.card.name != "all-minilm":
        pytest.skip("this is about MiniLM")
    for name in ("6+max6", "0", "2+max4"):
        assert np.abs(net.at(name).encode(contents) - minilm.MiniLM(cut=name).encode(contents)).max() <= 1e-5
    assert net.at("4").card.parameters == minilm.parameters(4)


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


def test_every_picture_that_cannot_be_read_is_named(pictures):
    contents = [picture(1), b"no picture", picture(2), picture(3)[:50], *[picture(4)] * 20, b""]
    with pytest.raises(ContentError) as caught:
        pictures.encode(contents)
    assert [i for i, _ in caught.value.faults] == [1, 3, 24]
    assert all(reason for _, reason in caught.value.faults)
    with pytest.raises(InputError, match="is a str, not a picture's bytes"):
        pictures.encode([picture(1), "text"])


def test_texts_that_are_none(text):
    with pytest.raises(InputError, match="is a bytes, not a str"):
        text.encode([b"x"])
    with pytest.raises(InputError, match=r"number 1 .* lone surrogate"):
        text.encode(["x", "a \ud800"])
    long = ("apple " * 5000).strip()
    assert np.array_equal(text.encode([long]), text.encode([" ".join(["apple"] * 16)]))


def test_what_the_runtime_says_is_told(text):
    net = replace(text, description=replace(text.description, tokens=100))  # there are 64 positions
    for use in (lambda: net.encode(["plum " * 90]), lambda: net.states(["plum " * 90], "1")):
        with pytest.raises(ModelError, match="small: ONNX Runtime cannot run the graph"):
            use()


def test_another_look_has_another_fingerprint(pictures, text):
    flipped = pictures.seen("flip")
    assert flipped.preprocessing.view == "flip"
    assert flipped.card.fingerprint != pictures.card.fingerprint
    assert not np.allclose(flipped.encode([picture(1)]), pictures.encode([picture(1)]), atol=1e-4)
    assert flipped.seen("") == pictures
    assert pictures.seen("").card == pictures.card
    for net, view in ((pictures, "upside down"), (text, "flip")):
        with pytest.raises(InputError, match=r"view|nothing to look at"):
            net.seen(view)


def test_everything_that_decides_a_feature_is_in_the_fingerprint(pictures):
    known = pictures.description
    other = Preprocessing(32, 32)
    changes = {"preprocessing": other, "precision": "int8", "alone": True, "files": (("model.onnx", "0" * 64),)}
    prints = {
        replace(pictures, description=replace(known, **{key: value})).card.fingerprint for key, value in changes.items()
    }
    assert len(prints | {pictures.card.fingerprint}) == 1 + len(changes)
    assert replace(pictures, description=replace(known, name="other", notes=("x",))).fingerprint == pictures.fingerprint


def test_reading_the_card_opens_nothing(text):
    code = (
        "import sys; from pathlib import Path; from headstart.backbones.network import Network\n"
        f"n = Network.open(Path({str(text.folder)!r})); n.card, n.taps, n.at('1').card\n"
        "print([m for m in ('onnx', 'onnxruntime', 'tokenizers', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_changed_file_is_refused(tmp_path):
    """faults.md A12"""
    folder = picture_folder(tmp_path / "a")
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(bytes(content))
    net = network.Network.open(folder)
    for use in (lambda: net.encode([picture()]), net.portable, lambda: net.states([picture()], "0")):
        with pytest.raises(ModelError, match="is not the file that was installed"):
            use()
    os.remove(folder / "model.onnx")
    with pytest.raises(ModelError, match=r"model\.onnx is missing"):
        network.Network.open(folder)
    (folder / "model.onnx").symlink_to(folder / "backbone.json")
    with pytest.raises(ModelError, match="is a link"):
        network.Network.open(folder)
    with pytest.raises(NotFound):
        network.Network.open(tmp_path)


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


_TAP = {"name": "0", "tensor": "x", "kind": "tokens", "width": 4, "parameters": 1, "operations": 0.5, "size": 4}


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


def test_providers(monkeypatch):
    monkeypatch.delenv("HEADSTART_PROVIDER", raising=False)
    assert runtime.providers()[-1] == "cpu"
    assert set(runtime.providers()) <= set(runtime.PROVIDERS)
    import onnxruntime

    there = ["CPUExecutionProvider", "CoreMLExecutionProvider", "CUDAExecutionProvider", "OtherExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    assert runtime.providers() == ["cuda", "coreml", "cpu"]
    for chosen, found in (("cpu", ["cpu"]), ("CUDA", ["cuda", "cpu"])):
        monkeypatch.setenv("HEADSTART_PROVIDER", chosen)
        assert runtime.providers() == found
    for wrong, words in (("openvino", "not in the ONNX Runtime"), ("abacus", "not known")):
        monkeypatch.setenv("HEADSTART_PROVIDER", wrong)
        with pytest.raises(InputError, match=words):
            runtime.providers()


def test_the_folder_may_lie_anywhere(tmp_path, text):
    moved = tmp_path / "with a space" / "ümlaut"
    shutil.copytree(text.folder, moved)
    assert np.array_equal(network.Network.open(Path(moved)).encode(TEXTS), text.encode(TEXTS))
