"""A graph made plain: its weights inside, one output `features`, no mask where nothing is ever masked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

TINY = 1e-12  # a feature of no length is left as it is


def inlined(model: Any, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Put the weights that lie outside an onnx.ModelProto into it, by their names."""
    from onnx import TensorProto, numpy_helper

    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(arrays[tensor.name]), tensor.name))


def joined(model: Any, outputs: Sequence[str], widths: Sequence[int]) -> None:
    """Make of k outputs (n, width) the one output `features`: each of unit length, side by side, over the root of k."""
    from onnx import TensorProto, helper, numpy_helper

    add, graph = helper.make_node, model.graph
    for name, value in (("features/axis", np.array([1])), ("features/tiny", np.float32(TINY))):
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    units = []
    for i, output in enumerate(outputs):
        length, unit = f"features/length{i}", f"features/unit{i}"
        graph.node.extend(
            [
                add("ReduceL2", [output, "features/axis"], [f"{length}/bare"], keepdims=1),
                add("Max", [f"{length}/bare", "features/tiny"], [length]),
                add("Div", [output, length], [unit if len(outputs) > 1 else "features"]),
            ]
        )
        units.append(unit)
    if len(outputs) > 1:
        root = np.asarray(math.sqrt(len(outputs)), np.float32)
        graph.initializer.append(numpy_helper.from_array(root, "features/root"))
        graph.node.append(add("Concat", units, ["features/whole"], axis=1))
        graph.node.append(add("Div", ["features/whole", "features/root"], ["features"]))
    graph.ClearField("output")
    graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", sum(widths)]))


def unmasked(model: Any) -> None:
    """Take the input `attention_mask` out of a graph whose rows are never padded: every place of it is one.

    What is made of the mask alone is known: ones, noughts or the number of tokens. Adding noughts and multiplying by
    ones falls away; a sum over the number of tokens becomes a mean. Where the mask does anything else it stays.
    """
    from onnx import helper

    graph = model.graph
    if all(given.name != "attention_mask" for given in graph.input):
        return
    kind, nodes = {"attention_mask": "ones"}, []
    same: dict[str, str] = {}  # a tensor that equals another
    made: dict[str, Any] = {}
    for node in graph.node:
        inputs = [same.get(name, name) for name in node.input]
        known = [kind.get(name) for name in inputs]
        first = known[0] if known else None
        out, op = node.output[0], node.op_type
        found = None
        if op in ("Cast", "Unsqueeze", "Identity"):
            found = first
        elif op == "Sub" and known[1] == "ones":
            found = "noughts"  # one less the mask
        elif op == "Mul" and "noughts" in known:
            found = "noughts"
        elif op == "ReduceSum" and first == "ones":
            found = "count"
        if found:
            kind[out] = found
        elif (op == "Add" and "noughts" in known) or (op == "Mul" and "ones" in known):
            same[out] = inputs[1 - known.index("noughts" if op == "Add" else "ones")]
            if out in {output.name for output in graph.output}:
                nodes.append(helper.make_node("Identity", [same[out]], [out], name=node.name))
            continue
        elif op == "Div" and known[1] == "count" and inputs[0] in made and made[inputs[0]].op_type == "ReduceSum":
            total = made[inputs[0]]
            keep = next((a.i for a in total.attribute if a.name == "keepdims"), 1)
            node = helper.make_node("ReduceMean", list(total.input), [out], name=node.name, keepdims=keep)
            inputs = list(node.input)
        new = type(node)()
        new.CopyFrom(node)
        new.ClearField("input")
        new.input.extend(inputs)
        nodes.append(new)
        made[out] = new
    needed, kept = {output.name for output in graph.output}, []
    for node in reversed(nodes):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    for field, chosen in (
        ("node", kept[::-1]),
        ("input", [given for given in graph.input if given.name in needed or given.name != "attention_mask"]),
        ("initializer", [tensor for tensor in graph.initializer if tensor.name in needed]),
    ):
        graph.ClearField(field)
        getattr(graph, field).extend(chosen)
