"""Taps found from graphs: joints against brute force, blocks and stages of networks whose ends are known."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from headstart.backbones import minilm
from headstart.errors import ModelError
from headstart.graph import blocks, flow, freeing, reading, taps
from small_graphs import Graph, convolutions, transformer


def reachable(nodes, data, output, without):
    """Whether content gets from the data to the output when one tensor is taken away: brute force."""
    known = {data} - {without}
    for node in nodes:
        if node.op_type not in flow.WITHOUT_CONTENT and known & set(node.input):
            known |= set(node.output) - {without}
    return output in known


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_joints_are_those_without_which_nothing_arrives(draw):
    g = Graph()
    names = [g.given("input", TensorProto.FLOAT, ["n", 4]), g.given("position_ids", TensorProto.INT64, ["n", 4])]
    for _ in range(draw.draw(st.integers(1, 14))):
        recent = st.integers(max(0, len(names) - 4), len(names) - 1)
        picks = [names[i] for i in draw.draw(st.lists(recent, min_size=1, max_size=2))]
        kind = draw.draw(st.sampled_from(["Relu", "Add", "Add", "Shape"]))
        names.append(g.op(kind, *picks[: 2 if kind == "Add" else 1]))
    model = g.model(names[-1])
    nodes = list(model.graph.node)
    if names[-1] not in flow.carried(nodes, "input"):
        with pytest.raises(ModelError, match="does not depend"):
            flow.flow(model, names[-1])
        return
    way = flow.flow(model, names[-1])
    content = [name for name in names if name in way.content and name != "input"]
    expected = [name for name in content if not reachable(nodes, "input", names[-1], name)]
    assert list(way.joints) == expected
    assert way.joints[-1] == names[-1]


@pytest.mark.parametrize("pre", [False, True])
@pytest.mark.parametrize("depth", [2, 3, 6])
def test_a_transformer_is_cut_after_the_embedding_and_after_every_block(pre, depth):
    model, ends = transformer(depth, pre=pre)
    found = taps.anatomy(model)
    assert [tap.name for tap in found.taps] == [str(k) for k in range(depth + 1)]
    assert [tap.tensor for tap in found.taps] == ends
    assert {(tap.kind, tap.width) for tap in found.taps} == {("tokens", 32)}
    assert (found.data, found.words, found.alone, found.classes) == ("input_ids", 50, False, False)
    assert found.top.tensor == "last_hidden_state"


def test_shares_rise_to_one_and_parameters_are_counted():
    model, _ = transformer(3)
    found = taps.anatomy(model)
    shares = [tap.operations for tap in found.taps]
    assert shares == sorted(set(shares))
    assert 0 < shares[0] < 0.1
    assert 0.99 < shares[-1] <= 1 == found.top.operations
    first, block = found.taps[0].parameters, 4 * 32 * 32 + 2 * 32 * 64 + 4 * 32
    assert first == (50 + 2 + 64) * 32 + 2 * 32
    assert [tap.parameters - first for tap in found.taps] == [k * block for k in range(4)]
    assert [tap.size for tap in found.taps] == [4 * tap.parameters for tap in found.taps]
    steps = np.diff(shares)
    assert np.allclose(steps, steps[0], atol=1e-3)  # the mask is made below the first block


def test_many_blocks_give_every_second_or_third():
    model, ends = transformer(24, d=32)
    found = taps.anatomy(model).taps
    assert [tap.name for tap in found] == [str(k) for k in range(0, 25, 2)]
    assert [tap.tensor for tap in found] == ends[::2]


def test_stages_of_convolutions():
    model, ends = convolutions()
    found = taps.anatomy(model)
    assert [tap.tensor for tap in found.taps] == ends
    assert [(tap.kind, tap.width) for tap in found.taps] == [("map", 8), ("map", 16), ("map", 48)]
    assert (found.top.kind, found.top.width, found.classes) == ("vector", 48, False)


def test_an_embedding_is_preferred_to_classes():
    assert taps.anatomy(convolutions(classes="both")[0]).top.tensor == "embedding"
    found = taps.anatomy(convolutions(classes=True)[0])
    assert found.classes
    assert found.top.tensor == "logits"


def test_patches_with_a_first_token():
    """A vision transformer: convolution, flattened, turned, a token put before, blocks, norm, the first token."""
    g = Graph()
    x = g.op("Conv", g.given("pixel_values", TensorProto.FLOAT, ["n", 3, 16, 16]), g.weight(8, 3, 4, 4), strides=[4, 4])
    x = g.op("Transpose", g.op("Reshape", x, g.constant(np.array([0, 8, -1]))), perm=[0, 2, 1])  # (n, 16, 8)
    rows = g.op("Gather", g.op("Shape", x), g.constant(np.array([0])), axis=0)
    first = g.op("Expand", g.weight(1, 1, 8), g.op("Concat", rows, g.constant(np.array([1, 8])), axis=0))
    x = g.op("Add", g.op("Concat", first, x, axis=1), g.weight(1, 17, 8))
    ends = [x]
    for _ in range(3):
        q, k, v = (g.op("MatMul", x, g.weight(8, 8)) for _ in range(3))
        scores = g.op("Softmax", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
        x = g.op("Add", x, g.op("MatMul", scores, v))
        x = g.op("Add", x, g.op("MatMul", g.op("Relu", g.op("MatMul", x, g.weight(8, 16))), g.weight(16, 8)))
        ends.append(x)
    g.op("Gather", x, g.constant(np.array(0)), axis=1, out="pooler_output")
    found = taps.anatomy(g.model("pooler_output"))
    assert [tap.tensor for tap in found.taps] == ends
    assert {tap.kind for tap in found.taps} == {"tokens"}


def test_channels_before_places_are_no_tokens():
    g = Graph()
    x = g.op("Conv", g.given("input", TensorProto.FLOAT, ["n", 3, 16, 16]), g.weight(40, 3, 4, 4), strides=[4, 4])
    y = g.op("Reshape", x, g.constant(np.array([0, 40, -1])))  # (n, 40, 16)
    assert {(tap.tensor, tap.kind) for tap in taps.find(g.model(y))} == {(x, "map")}


def test_channels_last():
    g = Graph()
    x = g.op("Transpose", g.given("input", TensorProto.FLOAT, [1, 32, 32, 3]), perm=[0, 3, 1, 2])
    channels = 3
    for width in (6, 12, 24):
        x = g.op("Relu", g.op("Conv", x, g.weight(width, channels, 3, 3), strides=[2, 2], pads=[1] * 4))
        x = g.op("Relu", g.op("Conv", x, g.weight(width, width, 3, 3), pads=[1] * 4))
        channels = width
    g.op("Transpose", x, perm=[0, 2, 3, 1], out="y")
    found = taps.anatomy(g.model("y"))
    assert [(tap.kind, tap.width) for tap in found.taps] == [("map", 6), ("map", 12), ("grid", 24)]
    assert not found.alone  # the declared batch of 1 was made free


def test_what_flows_around_a_block_is_no_tap():
    g = Graph()
    x = g.op("MatMul", g.given("input", TensorProto.FLOAT, ["n", 40]), g.weight(40, 40))
    first = x
    for _ in range(3):
        x = g.op("Relu", g.op("MatMul", x, g.weight(40, 40)))
    g.op("Concat", first, x, axis=1, out="y")  # the dense connection: only before and after it there is one tensor
    assert {tap.tensor for tap in taps.find(g.model("y"))} == {first, "y"}


@pytest.mark.parametrize("flat", ["Flatten", "Reshape"])
def test_a_fixed_batch_is_freed(flat):
    found = taps.anatomy(convolutions(batch=1, flat=flat)[0])
    assert not found.alone
    assert found.top.width == 48
    model = convolutions(batch=1)[0]
    assert flow.dims(freeing.freed(model).graph.input[0])[0] is None
    assert flow.dims(model.graph.input[0])[0] == 1


def test_rows_that_feel_one_another_are_run_alone():
    g = Graph()
    x = g.op("MatMul", g.given("input", TensorProto.FLOAT, ["n", 40]), g.weight(40, 40))
    g.op("Div", x, g.op("ReduceMax", x, keepdims=0), out="y")  # as dynamic quantisation has it
    assert taps.anatomy(g.model("y")).alone


def test_a_fixed_batch_that_cannot_be_freed():
    g = Graph()
    x = g.op("Conv", g.given("input", TensorProto.FLOAT, [4, 3, 8, 8]), g.weight(8, 3, 3, 3))
    g.op("Add", g.op("ReduceMean", x, axes=[2, 3], keepdims=0), g.weight(4, 8), out="y")
    with pytest.raises(ModelError, match="exactly 4 rows at a time"):
        taps.find(g.model("y"))


def test_what_cannot_be_used_is_said():
    g = Graph()
    g.op("Relu", g.given("input_ids", TensorProto.INT64, ["n", 128]), out="y")
    with pytest.raises(ModelError, match="exactly 128 tokens"):
        taps.find(g.model("y"))
    g = Graph()
    x = g.op("Add", g.given("a", TensorProto.FLOAT, ["n", 4]), g.given("b", TensorProto.FLOAT, ["n", 4]))
    with pytest.raises(ModelError, match="none of its inputs"):
        taps.find(g.model(x))
    model, _ = transformer(2)
    model.graph.input[1].name = "something"
    for node in model.graph.node:
        node.input[:] = ["something" if name == "attention_mask" else name for name in node.input]
    with pytest.raises(ModelError, match="nothing is known to give it"):
        taps.find(model)
    with pytest.raises(ModelError, match="none of its inputs is known to be one picture"):
        taps.find(transformer(2)[0], None, "image")
    g = Graph()
    x = g.op("MatMul", g.given("input", TensorProto.FLOAT, ["n", 40]), g.weight(41, 40))
    with pytest.raises(ModelError, match="ONNX Runtime"):
        taps.find(g.model(x))


def segments(word, **other):
    usual = {"operators": ("MatMul",), "work": 1.0, "places": 1, "kind": "tokens", "merges": False}
    return [blocks.Segment(signature=letter, outline=letter, **{**usual, **other}) for letter in word]


@pytest.mark.parametrize(
    ("word", "ends"),
    [
        ("enanfnanfnanfn", [1, 5, 9, 13]),  # norm after each sum: the norm of the embedding is not a block's end
        ("eafafafn", [0, 2, 4, 6]),
        ("afafaf", [-1, 1, 3, 5]),
        ("abc", []),
        ("", []),
    ],
)
def test_repetition(word, ends):
    assert blocks.repeated(segments(word)) == ends


def test_minilm_has_seven_taps(tmp_path):
    try:
        folder = minilm.weights()
    except Exception as error:
        pytest.skip(str(error))
    shutil.copyfile(minilm.GRAPHS["float32"], tmp_path / "model.onnx")
    shutil.copyfile(folder / minilm.WEIGHTS_FILE, tmp_path / minilm.WEIGHTS_FILE)
    found = taps.anatomy(reading.load(tmp_path / "model.onnx"), tmp_path)
    assert [tap.name for tap in found.taps] == list("0123456")
    assert [tap.parameters for tap in found.taps] == [minilm.parameters(k) for k in range(7)]
    assert {tap.width for tap in found.taps} == {384}
    assert np.allclose([tap.operations for tap in found.taps], np.arange(7) / 6, atol=1e-3)


@pytest.mark.parametrize(
    ("file", "widths"),
    [
        ("mobilenet_v1_1.0_224_embedding_extractor_fp32", [64, 128, 256, 512, 1024]),
        ("mobilenet_v2_1.0_224_fp32", [96, 24, 32, 96, 1280]),
        ("keras_mobilenet_v2_0.35_224", [48, 8, 16, 32, 1280]),
    ],
)
def test_mobilenets(shared, file, widths):
    found = taps.anatomy(reading.load(shared / "backbones" / f"{file}.onnx"))
    assert [tap.width for tap in found.taps] == widths
    shares = [tap.operations for tap in found.taps]
    assert shares == sorted(shares)
    assert found.top.operations == 1
    assert found.top.kind == "vector"
    assert (found.top.width, found.classes, found.alone) == (widths[-1], False, False)
