"""Attacks on ONNX loaders: faults.md A12, A15, A16, and what a loader must refuse beside them."""

import contextlib
import os
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from headstart.errors import ModelError, NotFound
from headstart.graph import reading, trial
from small_graphs import Graph, convolutions, transformer


def small():
    g = Graph()
    x = g.given("input", TensorProto.FLOAT, ["n", 4])
    g.op("MatMul", x, g.weight(4, 4), out="y")
    return g.model("y")


def refused(tmp_path, model, words, limit=reading.LIMIT):
    path = tmp_path / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with pytest.raises(ModelError, match=words) as caught:
        reading.load(path, limit=limit)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def outside(location="weights.bin", **entries):
    model = small()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return model


def test_good_files_are_read(tmp_path):
    for model in (small(), transformer()[0], convolutions()[0]):
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        assert reading.load(path).graph.node == model.graph.node
    (tmp_path / "weights.bin").write_bytes(bytes(80))
    path.write_bytes(outside(offset=16, length=64).SerializeToString())
    read = reading.load(path)
    reading.inlined(read, tmp_path)
    assert numpy_helper.to_array(read.graph.initializer[0]).shape == (4, 4)
    with pytest.raises(NotFound):
        reading.load(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    "location",
    ["../../etc/passwd", "/etc/passwd", "a/../../b", "a/b", "..", ".", "", "C:\\x", "\\\\host\\x", "a\0b", "a\nb",
     "*/_ORT_MEM_ADDR_/*", "file:///etc/passwd", "x" * 300],
)  # fmt: skip
def test_a15_paths(tmp_path, location):
    refused(tmp_path, outside(location), "only a file beside|not beside")


def test_a15_links_and_bounds(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(64))
    folder = tmp_path / "model"
    folder.mkdir()
    refused(folder, outside(), "not beside it")
    (folder / "weights.bin").symlink_to(secret)
    refused(folder, outside(), "links are not followed")
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").mkdir()
    refused(folder, outside(), "no plain file")
    (folder / "weights.bin").rmdir()
    os.link(secret, folder / "weights.bin")
    refused(folder, outside(), "hard links")
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").write_bytes(bytes(64))
    refused(folder, outside(offset=1), "end at byte 65")
    refused(folder, outside(length=63), "63 bytes of data, and its dims need 64")
    refused(folder, outside(offset=-1), "no number")
    refused(folder, outside(offset="1" * 20), "no number")
    both = outside()
    both.graph.initializer[0].raw_data = bytes(64)
    refused(folder, both, "both inside and outside")


@pytest.mark.parametrize("key", ["__class__", "basepath", "tensor", "__dict__", "location"])
def test_a15_attribute_injection(tmp_path, key):
    (tmp_path / "weights.bin").write_bytes(bytes(64))
    model = outside()
    model.graph.initializer[0].external_data.add(key=key, value="x")
    refused(tmp_path, model, "external data with the key")


def test_external_data_of_a_constant_is_looked_at_too(tmp_path):
    model = small()
    node = helper.make_node("Constant", [], ["c"], value=outside("../x").graph.initializer[0])
    model.graph.node.insert(0, node)
    refused(tmp_path, model, "only a file beside")


@pytest.mark.parametrize(
    ("domain", "kind", "words"),
    [
        ("evil", "Run", "custom operator 'evil.Run'|custom operator, 'evil.Run'"),
        ("ai.onnx.ml", "TreeEnsemble", "custom operator"),
        ("com.microsoft", "NoSuch", "custom operator"),
        ("", "NoSuch", "custom operator"),
        ("", "RandomNormalLike", "random"),
    ],
)
def test_operators(tmp_path, domain, kind, words):
    model = small()
    model.graph.node[0].op_type, model.graph.node[0].domain = kind, domain
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    refused(tmp_path, model, words)


def test_operators_of_the_runtime_are_known(tmp_path):
    model = small()
    model.graph.node[0].op_type, model.graph.node[0].domain = "FusedMatMul", "com.microsoft"
    refused(tmp_path, model, "custom operator")  # the domain is not declared
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    reading.check(model)


@pytest.mark.parametrize("opset", [1, 7, 99, 2**40])
def test_opsets(tmp_path, opset):
    model = small()
    model.opset_import[0].version = opset
    refused(tmp_path, model, "opset")


def test_cycles_and_names(tmp_path):
    model = small()
    model.graph.node[0].input[0] = "z"
    model.graph.node.append(helper.make_node("Relu", ["y"], ["z"]))
    refused(tmp_path, model, "a cycle")
    model = small()
    model.graph.node[0].input[0] = "nowhere"
    refused(tmp_path, model, "which is nowhere")
    model = small()
    model.graph.node.append(helper.make_node("Relu", ["input"], ["y"]))
    refused(tmp_path, model, "two things are named 'y'")
    model = small()
    model.graph.output[0].name = "nowhere"
    refused(tmp_path, model, "nowhere")


def test_an_order_that_cannot_be_run_is_put_right(tmp_path):
    model = transformer()[0]
    nodes = list(model.graph.node)[::-1]
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    model.graph.ClearField("node")
    model.graph.node.extend(copies)
    reading.check(model)
    made = {value.name for value in model.graph.input} | {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        assert set(node.input) <= made
        made |= set(node.output)


def nested(depth):
    graph = helper.make_graph(
        [helper.make_node("Identity", ["input"], [f"deep{depth}"])], "g", [],
        [helper.make_tensor_value_info(f"deep{depth}", TensorProto.FLOAT, None)],
    )  # fmt: skip
    for i in range(depth - 1, -1, -1):
        node = helper.make_node("If", ["which"], [f"deep{i}"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info(f"deep{i}", TensorProto.FLOAT, None)])
    graph.input.append(helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 4]))
    graph.input.append(helper.make_tensor_value_info("which", TensorProto.BOOL, []))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_graphs_in_graphs(tmp_path):
    reading.check(nested(3))
    refused(tmp_path, nested(4), "nested more than 3 deep")
    refused(tmp_path, nested(12), "nested")
    model = small()
    deep = model.graph
    for _ in range(200):  # beyond what the parser itself allows
        node = deep.node.add(op_type="If", output=["x"])
        deep = node.attribute.add(name="then_branch", type=5).g
    refused(tmp_path, model.SerializeToString(), "nested too deeply|nested more")


def test_loops_functions_training(tmp_path):
    body = helper.make_graph([], "body", [], [])
    model = small()
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["z"], body=body))
    refused(tmp_path, model, "may run for ever")
    model = small()
    model.functions.add(name="f", domain="evil")
    refused(tmp_path, model, "functions of its own")
    model = small()
    model.training_info.add()
    refused(tmp_path, model, "training")
    model = small()
    model.graph.sparse_initializer.add()
    refused(tmp_path, model, "sparse")


def test_tensors_that_lie(tmp_path):
    for change, words in [
        (lambda t: t.dims.__setitem__(0, 5), "need 80 bytes, and there are 64"),
        (lambda t: t.dims.__setitem__(0, -4), "cannot be"),
        (lambda t: t.dims.__setitem__(0, 2**50), "cannot be"),
        (lambda t: t.dims.extend([1] * 20), "cannot be"),
        (lambda t: setattr(t, "data_type", TensorProto.STRING), "data type 8 is not read"),
        (lambda t: setattr(t, "data_type", 77), "data type 77 is not read"),
        (lambda t: (t.ClearField("raw_data"), t.float_data.extend([1.0] * 3)), "need 16 numbers, and there are 3"),
    ]:
        model = small()
        change(model.graph.initializer[0])
        refused(tmp_path, model, words)


def test_a16_shapes_that_fill_a_machine(tmp_path):
    model = small()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2**38
    refused(tmp_path, model, "fill a machine")
    model = small()
    model.graph.initializer.append(numpy_helper.from_array(np.array([10**6, 10**6]), "huge"))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["huge"], ["z"]))
    refused(tmp_path, model, "too many")
    refused(tmp_path, small(), "are allowed", limit=10)


@pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")
def test_a16_what_only_running_shows_dies_in_a_process_of_its_own(tmp_path):
    g = Graph()
    x = g.given("input", TensorProto.FLOAT, ["n", 3, 8, 8])
    for _ in range(12):  # each step makes the picture 16 times as large: 1 TB at the end
        x = g.op("Resize", x, "", g.constant(np.array([1, 1, 4, 4], np.float32)))
    (tmp_path / "model.onnx").write_bytes(g.model(x).SerializeToString())
    with pytest.raises(ModelError, match=r"model\.onnx: .*(memory|cannot run|could not be run)"):
        trial.anatomy(tmp_path / "model.onnx", "image", (8, 8), seconds=20, memory=2**30)


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"PK\x03\x04", b"\x08\x08", os.urandom(200)])
def test_what_is_no_onnx(tmp_path, content):
    refused(tmp_path, content, "not an ONNX|no graph")


_BYTES = transformer(1)[0].SerializeToString()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(_BYTES) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_a12_flipped_bytes_are_read_or_refused(tmp_path_factory, flips):
    content = bytearray(_BYTES)
    for place, value in flips:
        content[place] = value
    path = tmp_path_factory.mktemp("flip") / "model.onnx"
    path.write_bytes(bytes(content))
    with contextlib.suppress(ModelError):
        reading.load(path)
