"""A backbone that is a folder: the contract on small networks and on every real one at hand; damaged folders."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from tokenizers import Tokenizer

from headstart.backbone import parts
from headstart.backbones import minilm, network
from headstart.backbones import onnx as runtime
from headstart.errors import ContentError, InputError, ModelError, NotFound
from headstart.graph import cut, shapes
from headstart.preprocessing import Preprocessing
from small_graphs import FACTS, Graph, convolutions, picture, picture_folder, text_folder, words

TEXTS = ["the apple of my owl", "iron and zinc", "", "wren", "plum " * 40, "iron and zinc"]


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


def test_rows_that_feel_one_another_are_run_one_by_one(tmp_path):
    """As after dynamic quantisation, whose scale is that of the batch."""
    g = Graph()
    x = g.op("Conv", g.given("input", TensorProto.FLOAT, ["n", 3, 32, 32]), g.weight(40, 3, 8, 8), strides=[8, 8])
    x = g.op("Relu", g.op("Add", g.op("Div", x, g.op("ReduceMax", x, keepdims=0)), g.weight(40, 1, 1)))
    g.op("ReduceMean", x, axes=[2, 3], keepdims=0, out="y")
    net = network.Network.open(picture_folder(tmp_path / "a", g.model("y", rank=2)))
    drawn = [picture(seed) for seed in range(4)]
    assert net.description.alone
    assert any("one by one" in note for note in net.description.notes)
    assert np.array_equal(net.encode(drawn), np.concatenate([net.encode([one]) for one in drawn]))
    g = Graph()
    x = g.op("Gather", g.weight(50, 40), g.given("input_ids", TensorProto.INT64, ["n", "t"]))
    x = g.op("Relu", g.op("Add", g.op("Div", x, g.op("ReduceMax", x, keepdims=0)), g.weight(40)))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "model.onnx").write_bytes(g.model(x, rank=3).SerializeToString())
    words(tmp_path / "b")
    network.describe(tmp_path / "b", name="x", modality="text", tokens=9, **FACTS)
    net = network.Network.open(tmp_path / "b")
    assert net.description.alone
    same = ["the apple", "my owl", "iron zinc"]
    assert np.array_equal(net.encode(same), np.concatenate([net.encode([one]) for one in same]))
    assert np.array_equal(net.states(same, "top")[1], net.states(same[1:2], "top")[0])


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
    assert np.array_equal(text.encode(["apple" + " " * 900 + "pear"]), text.encode(["apple pear"]))


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
    for wrong, said in (("openvino", "not in the ONNX Runtime"), ("abacus", "not known")):
        monkeypatch.setenv("HEADSTART_PROVIDER", wrong)
        with pytest.raises(InputError, match=said):
            runtime.providers()


def test_the_folder_may_lie_anywhere(tmp_path, text):
    moved = tmp_path / "with a space" / "ümlaut"
    shutil.copytree(text.folder, moved)
    assert np.array_equal(network.Network.open(Path(moved)).encode(TEXTS), text.encode(TEXTS))
