"""A network in two halves: composed they are the whole at every tap, padded rows change nothing, what crosses is known."""

import importlib.util
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import compress_networks
from headstart.backbones import minilm, network
from headstart.backbones.minilm import MiniLM
from headstart.errors import ContentError, InputError, ModelError
from headstart.graph import cut, flow, shapes, taps
from headstart.halved import CHECKS, Halves, choices, halved, laid
from headstart.preprocessing import Preprocessing
from small_graphs import FACTS, Graph, convolutions, picture, picture_folder, text_folder, transformer, words
from toybase import Toy

here = pytest.mark.skipif(
    importlib.util.find_spec(minilm.MODULE) is None, reason="the weights of all-MiniLM-L6-v2 are not installed"
)
TEXTS = ["the apple of my owl", "iron and zinc", "", "wren", "plum " * 40, "iron and zinc"]
PICTURES = [picture(seed, (60 + seed, 50)) for seed in range(5)]


def stored(folder, model, **facts):
    """A text network of small words in a folder."""
    folder.mkdir()
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    words(folder)
    network.describe(folder, **{"name": "small", "modality": "text", "tokens": 16, **FACTS, **facts})
    return network.Network.open(folder)


def turned():
    """A text network whose places come first, as torch's own encoder layers have it: (t, n, d)."""
    g = Graph(2)
    ids = g.given("input_ids", TensorProto.INT64, ["n", "t"])
    x = g.op("Transpose", g.op("Gather", g.weight(20, 32), ids), perm=[1, 0, 2])
    for _ in range(2):
        rows = g.op("Transpose", x, perm=[1, 0, 2])
        q, k, v = (g.op("MatMul", rows, g.weight(32, 32)) for _ in range(3))
        scores = g.op("Softmax", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
        x = g.op("Add", x, g.op("Transpose", g.op("MatMul", scores, v), perm=[1, 0, 2]))
        x = g.op("Add", x, g.op("MatMul", g.op("Relu", g.op("MatMul", x, g.weight(32, 64))), g.weight(64, 32)))
    g.op("Transpose", x, perm=[1, 0, 2], out="last_hidden_state")
    return g.model("last_hidden_state", rank=3)


def patches():
    """A vision transformer whose rows are counted in every block."""
    g = Graph(3)
    x = g.op("Conv", g.given("input", TensorProto.FLOAT, ["n", 3, 32, 32]), g.weight(32, 3, 8, 8), strides=[8, 8])
    x = g.op("Transpose", g.op("Reshape", x, g.constant(np.array([0, 32, -1]))), perm=[0, 2, 1])  # (n, 16, 32)
    x = g.op("Add", x, g.weight(1, 16, 32))
    shape = g.op("Shape", x)
    for _ in range(3):
        q, k, v = (g.op("MatMul", x, g.weight(32, 32)) for _ in range(3))
        scores = g.op("Softmax", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
        x = g.op("Add", x, g.op("Reshape", g.op("MatMul", scores, v), shape))
        x = g.op("Add", x, g.op("MatMul", g.op("Relu", g.op("MatMul", x, g.weight(32, 64))), g.weight(64, 32)))
    g.op("Gather", x, g.constant(np.array(0)), axis=1, out="pooler_output")
    return g.model("pooler_output", rank=2)


def made(kind, folder):
    """(network, contents)"""
    if kind == "pre":
        return network.Network.open(text_folder(folder)), TEXTS
    if kind == "post":
        return stored(folder, transformer(2)[0]), TEXTS
    if kind == "turned":
        return stored(folder, turned()), TEXTS
    if kind in ("WordPiece", "masked"):
        portable = compress_networks.text_network(masked=kind == "masked")
        folder.mkdir()
        (folder / "model.onnx").write_bytes(portable.model.SerializeToString())
        (folder / "tokenizer.json").write_bytes(portable.tokeniser)
        network.describe(folder, name="small", modality="text", tokens=32, **FACTS)
        return network.Network.open(folder), compress_networks.texts(8)
    model = {"convolutions": lambda: convolutions()[0], "batch of 1": lambda: convolutions(batch=1, flat="Reshape")[0],
             "patches": patches}[kind]()  # fmt: skip
    return network.Network.open(picture_folder(folder, model)), PICTURES


KINDS = ["pre", "post", "turned", "WordPiece", "masked", "convolutions", "batch of 1", "patches"]


@pytest.fixture(scope="module", params=KINDS)
def small(request, tmp_path_factory):
    return made(request.param, tmp_path_factory.mktemp("net") / "x")


def composed(base, tap, contents) -> Halves:
    """The halves of a base, once they have given its features."""
    halves = halved(base, tap)
    states = halves.states(contents)
    assert len(states) == len(contents)
    assert all(state.dtype == np.float32 and state.flags.c_contiguous for state in states)
    assert np.abs(halves.features(states) - base.encode(contents)).max() <= 1e-5
    assert halves.states([]) == []
    assert halves.blocks >= 1
    assert set(halves.depth) == {tensor.name for tensor in halves.above.graph.initializer}
    assert set(halves.depth.values()) <= set(range(1, halves.blocks + 1))
    names = [value.name for value in halves.above.graph.output]
    assert names == list(dict.fromkeys(part.tensor for part in halves.parts))
    given = {value.name for value in halves.above.graph.input}
    assert given == {halves.tensor, *halves.numbers(2, 3)} | ({"attention_mask"} if halves.masked else set())
    assert all(
        tensor.data_location != TensorProto.EXTERNAL and tensor.HasField("raw_data")
        for tensor in halves.above.graph.initializer
    )
    return halves


def padding(halves, contents):
    """Rows padded to one length give, in every place they have, what they give alone."""
    states = halves.states(contents)
    lengths = [len(state) for state in states]
    X, mask = np.zeros((len(states), max(lengths) + 2, halves.width), np.float32), None
    mask = np.zeros(X.shape[:2], np.int64)
    for i, state in enumerate(states):
        X[i, : len(state)], mask[i, : len(state)] = state, 1
    session = shapes.session(halves.above, None)
    names = [output.name for output in session.get_outputs()]
    padded = dict(zip(names, session.run(names, halves.feeds(X, mask)), strict=True))
    for i, state in enumerate(states):
        alone = dict(zip(names, session.run(names, halves.feeds(state[None])), strict=True))
        for part in halves.parts:
            want = laid(alone[part.tensor], part, 1)[0]
            got = laid(padded[part.tensor], part, len(states))[i, : len(want)]
            assert np.abs(got - want).max() <= 1e-5 * max(1, np.abs(want).max())


def test_small_networks(small):
    net, contents = small
    for k, tap in enumerate(net.taps[:-1]):
        last = net.taps[-1].name
        base = net.at(f"{last}+max{tap.name}+max{last}")
        halves = composed(base, tap.name, contents)
        assert choices(base) == {one.name: len(net.taps) - 1 - i for i, one in enumerate(net.taps[: k + 1])}
        assert halves.blocks == len(net.taps) - 1 - k
        assert [part.largest for part in halves.parts] == [False, True, True]
        assert halves.masked == (net.card.modality == "text")
        shape = {"tokens": 2, "turned": 2, "stream": 2, "map": 3, "grid": 3, "vector": 1}[halves.kind]
        assert {state.ndim for state in halves.states(contents)} == {shape}
        if halves.masked:
            padding(halves, contents)
    composed(net.at("top"), net.taps[0].name, contents)


@here
@pytest.mark.parametrize("tap", "012345")
def test_minilm(tap):
    base = MiniLM("int8" if tap == "2" else "float32")
    texts = ["how do I top up my card?", "hello", "", "why was the transfer declined at the shop in spain yesterday"]
    halves = composed(MiniLM(), tap, texts)
    assert halves.blocks == 6 - int(tap)
    assert (halves.kind, halves.masked, halves.width) == ("stream", True, 384)
    assert halves.numbers(7, 9)["shape"].tolist() == [7, 9]
    padding(halves, texts)
    assert choices(base)[tap] == halves.blocks
    assert halved(base, tap).fingerprint == halves.fingerprint
    layers = {int(name.split(".")[2]) - int(tap) + 1: depth for name, depth in halves.depth.items() if "layer." in name}
    assert layers == {k: k for k in range(1, 7 - int(tap))}


@here
def test_what_minilm_says_of_its_graph_is_what_is_found_in_it():
    written, seen = MiniLM().found, taps.find(MiniLM().graph(), modality="text")
    assert len(written) == len(seen) == 7
    for a, b in zip(written, seen, strict=True):
        assert replace(a, operations=0.0) == replace(b, operations=0.0)
        assert abs(a.operations - b.operations) < 1e-3


@pytest.mark.parametrize("name", ["mobilenet_v1_1.0_224_embedding_extractor_fp32", "keras_mobilenet_v2_0.35_224"])
def test_mobilenets(shared, tmp_path, name):
    folder = tmp_path / "x"
    folder.mkdir()
    shutil.copyfile(shared / "backbones" / f"{name}.onnx", folder / "model.onnx")
    how = Preprocessing(224, 224, scale=1 / 128, mean=(1.0, 1.0, 1.0))
    network.describe(folder, name="mobilenet", modality="image", preprocessing=how, **FACTS)
    net = network.Network.open(folder)
    for tap in net.taps[:-1]:
        base = net if tap.name in "012" else net.at("4+max4")
        halves = composed(base, tap.name, PICTURES[:3])
        assert halves.kind == "map"
    assert choices(net) == {"0": 4, "1": 3, "2": 2}
    assert choices(net.at("top")) == {"0": 4, "1": 3, "2": 2, "3": 1}
    with pytest.raises(
        InputError, match="also takes tap 2, which is below tap 3: choose tap 2 or one below it, or the"
    ):
        halved(net, "3")
    with pytest.raises(InputError, match="no weights are above tap 4"):
        halved(net.at("top"), "4")


def test_a_tap_must_be_below_the_deepest_part(tmp_path):
    net = network.Network.open(text_folder(tmp_path / "x"))
    for base, tap, said in (
        (net.at("2"), "2", "nothing is above tap 2 that the cut 2 needs: choose a tap below 2"),
        (net.at("1+max2"), "3", "nothing is above tap 3"),
        (net.at("2"), "top", "nothing is above tap top"),
        (net, "9", "has no tap '9'"),
        (net.at("1+3"), "2", "also takes tap 1, which is below tap 2: choose tap 1 or one below it, or the cut 3"),
        (Toy(), "1", "toy has no network that could be trained"),
        (replace(net, description=replace(net.description, alone=True)), "0", "one by one"),
        (replace(net, description=replace(net.description, precision="int8")), "0", "is in int8"),
    ):
        with pytest.raises(InputError, match=said.replace("(", r"\(")):
            halved(base, tap)
        assert tap not in choices(base)


def test_weights_in_half_precision_are_not_trained(tmp_path):
    model = transformer(2)[0]
    for tensor in model.graph.initializer:
        if tensor.data_type == 1 and len(tensor.dims) == 2 and tensor.dims[0] == 32:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, f"{tensor.name}/half"))
            model.graph.node.insert(0, helper.make_node("Cast", [tensor.name], [tensor.name.split("/")[0]], to=1))
    with pytest.raises(InputError, match="are no float32 numbers"):
        halved(stored(tmp_path / "x", model).at("2"), "0")


def crossed(kind):
    """A network that carries something across its cut; "" for what is known of any batch."""
    g = Graph(4)
    ids = g.given("input_ids", TensorProto.INT64, ["n", "t"])
    x = g.op("Gather", g.weight(20, 32), ids)
    whole = g.op("Size", ids if not kind else g.op("MatMul", x, g.op("Transpose", x, perm=[0, 2, 1])))
    kept = g.op("Cast", g.op("Unsqueeze", g.op("Equal", ids, g.constant(np.int64(3))), g.constant(np.array([2]))), to=1)
    for _ in range(2):
        q, k = (g.op("MatMul", x, g.weight(32, 32)) for _ in range(2))
        scores = g.op("Softmax", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
        y = g.op("MatMul", scores, x)
        if kind == "Equal":
            y = g.op("Mul", y, kept)
        else:  # what a mean over all rows would be divided by: known, n * t
            y = g.op("Div", g.op("Mul", y, g.op("Cast", whole, to=1)), g.op("Cast", whole, to=1))
        x = g.op("Add", x, y)
        x = g.op("Add", x, g.op("MatMul", g.op("Relu", g.op("MatMul", x, g.weight(32, 64))), g.weight(64, 32)))
    return g.model(g.op("Identity", x, out="last_hidden_state"), rank=3)


def test_how_many_there_are_crosses_the_cut(tmp_path):
    net = stored(tmp_path / "x", crossed(""))
    halves = composed(net.at(net.taps[-1].name), "0", TEXTS)
    assert [value.tolist() for value in halves.numbers(4, 9).values()] == [36]


def test_numbers_that_cross_the_cut_are_known_for_any_batch(small):
    net, _ = small
    model = net.graph()
    for tap in net.taps[:-1]:
        halves = halved(net.at(net.taps[-1].name), tap.name)
        below, _ = cut.halves(
            model, next(found for found in net.found if found.name == tap.name), halves.parts[0].tensor
        )
        names = [value.name for value in below.graph.output][1:]
        assert set(names) == set(halves.crossing)
        how = net.preprocessing
        for n, t in (*CHECKS, (6, 11)):
            feed = shapes.feed(model, net.card.modality, n, t, (how.height, how.width) if how else None, 9)
            taken = {value.name: feed[value.name] for value in flow.inputs(below)}
            values = shapes.run(shapes.session(below, None), [halves.tensor, *names], taken)[1:]
            for name, value in zip(names, values, strict=True):
                assert np.array_equal(halves.numbers(n, t)[name], value)
                assert halves.numbers(n, t)[name].dtype == np.int64


@pytest.mark.parametrize(
    ("kind", "tap", "said"), [("Equal", "0", "what Equal makes"), ("Square", "1", "numbers that are no sums")]
)
def test_what_is_not_known_of_a_batch_is_refused(tmp_path, kind, tap, said):
    with pytest.raises(InputError, match=f"cannot be trained above tap {tap}, its graph carries {said}"):
        halved(stored(tmp_path / "x", crossed(kind)), tap)


def test_token_types_and_positions_above_the_cut_are_given(tmp_path):
    g = Graph(5)
    ids, mask, at = (g.given(n, TensorProto.INT64, ["n", "t"]) for n in ("input_ids", "attention_mask", "position_ids"))
    far = g.op("Mul", g.op("Sub", g.constant(np.float32(1)), g.op("Cast", mask, to=1)), g.constant(np.float32(-1e4)))
    bias, x = g.op("Unsqueeze", far, g.constant(np.array([1]))), g.op("Gather", g.weight(20, 32), ids)
    for _ in range(2):
        x = g.op("Add", x, g.op("Gather", g.weight(64, 32), at))  # positions in every block, as in DeBERTa
        scores = g.op(
            "Add", g.op("MatMul", g.op("MatMul", x, g.weight(32, 32)), g.op("Transpose", x, perm=[0, 2, 1])), bias
        )
        x = g.op("Add", x, g.op("MatMul", g.op("MatMul", g.op("Softmax", scores, axis=-1), x), g.weight(32, 32)))
        x = g.op("Add", x, g.op("MatMul", g.op("Relu", g.op("MatMul", x, g.weight(32, 64))), g.weight(64, 32)))
    net = stored(tmp_path / "x", g.model(g.op("Identity", x, out="last_hidden_state"), rank=3))
    halves = composed(net.at(net.taps[-1].name), net.taps[0].name, TEXTS)
    assert halves.numbers(2, 3)["position_ids"].tolist() == [[0, 1, 2]] * 2
    assert halves.masked
    padding(halves, TEXTS)


def test_a_mask_of_another_type_becomes_whole_numbers(tmp_path):
    model = transformer(2)[0]
    model.graph.input[1].type.tensor_type.elem_type = TensorProto.FLOAT
    halves = composed(stored(tmp_path / "x", model).at("2"), "0", TEXTS)
    given = {value.name: flow.kind(value) for value in halves.above.graph.input}
    assert given["attention_mask"] == TensorProto.INT64
    padding(halves, TEXTS)


def test_padding_that_cannot_be_masked_is_not_allowed(tmp_path):
    """A mean over all places inside the graph: a mask for its attention would not help."""
    net, contents = made("masked", tmp_path / "x")
    halves = composed(net.at("top"), "0", contents)  # the mean over tokens is in the graph, and asks no mask
    assert not halves.masked
    assert halves.numbers(2, 3)["attention_mask"].tolist() == [[1, 1, 1]] * 2


def test_everything_that_decides_the_states_is_in_the_fingerprint(tmp_path):
    net, _ = made("convolutions", tmp_path / "x")
    prints = [halved(one, tap).fingerprint for one in (net, net.seen("flip")) for tap in "01"]
    assert len(set(prints)) == 4
    assert halved(net.at("2+max2"), "0").fingerprint == prints[0]  # what is above decides nothing below
    other = replace(net, description=replace(net.description, preprocessing=Preprocessing(32, 32)))
    assert halved(other, "0").fingerprint != prints[0]


def test_contents_that_cannot_be_read(tmp_path):
    net, _ = made("convolutions", tmp_path / "x")
    with pytest.raises(ContentError) as caught:
        halved(net, "1").states([picture(1), b"not a picture", picture(2), b""])
    assert [i for i, _ in caught.value.faults] == [1, 3]
    with pytest.raises(InputError, match="not a picture's bytes"):
        halved(net, "1").states(["text"])
    text, _ = made("pre", tmp_path / "y")
    with pytest.raises(InputError, match="not a str"):
        halved(text, "1").states([b"x"])


def test_numbers_that_are_none_are_refused(tmp_path):
    model, ends = transformer(2, pre=True)
    weight = model.graph.initializer[0]
    model.graph.node.append(helper.make_node("Log", [weight.name], ["nan"]))
    halves = halved(stored(tmp_path / "x", transformer(2, pre=True)[0]).at("2"), "0")
    halves.below.graph.node.append(helper.make_node("Log", [ends[0]], ["logarithm"]))
    halves.below.graph.output[0].name = "logarithm"
    broken = replace(halves, tensor="logarithm")
    with pytest.raises(ModelError, match="small gives no finite numbers for content number 1"):
        broken.states(["apple pear"])
