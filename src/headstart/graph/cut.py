"""Cutting a graph at its taps: the part below, with its states pooled into features or as they are; the two halves.

Rows are never padded, so side inputs hold nothing that is not known: they are made inside the graph (a mask of ones,
token types of nought, positions counted from nought), and the data are its one input.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from headstart.errors import InputError, near
from headstart.graph import flow
from headstart.graph.reading import takes
from headstart.graph.taps import Found

VERSION = 1  # of the arithmetic below: part of every fingerprint
TINY = 1e-12  # a feature of no length is left as it is
AXES = {"tokens": [1], "map": [2, 3], "grid": [1, 2], "turned": [0], "stream": [1]}


def parts(cut: str, taps: Sequence[Found]) -> list[tuple[Found, bool]]:
    """What a cut names: for each part its tap, and whether the largest is taken and not the mean. Raises InputError."""
    known = {tap.name: tap for tap in taps}
    names = cut.split("+")
    found = []
    for name in names:
        largest = name.startswith("max") and name.removeprefix("max") in known and name != "maxtop"
        tap = known.get(name.removeprefix("max") if largest else name)
        if tap is None or names.count(name) > 1:
            what = f"{name!r} stands twice in it." if tap else f"there is no tap {name!r}.{near(name, known)}"
            raise InputError(
                f"the cut {cut!r} cannot be made: {what} A cut is a tap ({', '.join(known)}), max and a tap, or several "
                "joined by +."
            )
        found.append((tap, largest))
    return found


def features(model: Any, cut: str, taps: Sequence[Found]) -> Any:
    """The graph below a cut: the data its one input, and one output `features` (n, width) float32 of unit length.

    Every part has unit length, and the whole too: parts side by side over the root of their number. What the cut does
    not need is gone, weights too. Raises InputError on a cut that names no tap.
    """
    from onnx import TensorProto

    found = parts(cut, taps)
    build = _Build(model, [tap.tensor for tap, _ in found])
    units = []
    for i, (tap, largest) in enumerate(found):
        pooled = build.pooled(tap, largest)
        length = build.add("Max", [build.reduced("ReduceL2", pooled, [1], keep=1), build.constant(np.float32(TINY))])
        units.append(build.add("Div", [pooled, length], out=None if len(found) > 1 or i else "features"))
    if len(units) > 1:
        whole = build.add("Concat", units, axis=1)
        build.add("Div", [whole, build.constant(np.float32(math.sqrt(len(units))))], out="features")
    return build.finished([("features", TensorProto.FLOAT, ["n", sum(tap.width for tap, _ in found)])])


def states(model: Any, names: Sequence[str], taps: Sequence[Found]) -> Any:
    """The graph below some taps, whose unpooled states (n, places, width) float32 are its outputs, named after the taps.

    Places are tokens, patches or the pixels of a map, row after row; one for a vector.
    """
    from onnx import TensorProto

    known = {tap.name: tap for tap in taps}
    if wrong := [name for name in names if name not in known]:
        raise InputError(f"there is no tap {wrong[0]!r}.{near(wrong[0], known)}")
    build = _Build(model, [known[name].tensor for name in names])
    for name in names:
        build.add("Identity", [build.states(known[name])], out=f"states {name}")
    return build.finished([(f"states {name}", TensorProto.FLOAT, ["n", "places", known[name].width]) for name in names])


def halves(model: Any, tap: Found, output: str | None = None) -> tuple[Any, Any]:
    """What is below a tap and what is above it: (below, above), which composed equal the whole.

    The first output of the lower half is the tap's tensor, the first input of the upper half too. What else the upper
    half needs it takes by name: side inputs, which are as they were, and a few numbers that are not content (the shape
    of the input, say), which are further outputs of the lower half. `output` is the upper half's; None: the first of
    the graph that depends on the tap.
    """
    from onnx import TensorProto, helper

    nodes = list(model.graph.node)
    start = flow.data(model).name
    content, high = flow.carried(nodes, start), flow.carried(nodes, tap.tensor)
    output = output or next((v.name for v in model.graph.output if v.name in high and v.name != tap.tensor), None)
    if output is None:
        raise InputError(f"nothing is above tap {tap.name}.")
    needed, kept, crossing = {output}, [], []
    for node in reversed(nodes):
        if not needed & set(node.output) or tap.tensor in node.output:
            continue
        low = any(name in content and name not in high for name in takes(node))
        if low and node.op_type in flow.WITHOUT_CONTENT:
            kind = (
                TensorProto.INT64
                if node.op_type in ("Shape", "Size", "NonZero", "ArgMax", "ArgMin")
                else TensorProto.BOOL
            )
            crossing += [(name, kind) for name in node.output if name in needed]
            continue
        kept.append(node)
        needed |= set(takes(node))
    if start in needed:
        raise InputError(f"tap {tap.name} is no joint: the data reach {output} by another way.")
    number = _number(model)
    tensor = helper.make_tensor_value_info(tap.tensor, number, None)
    others = [helper.make_tensor_value_info(name, kind, None) for name, kind in dict(crossing).items()]
    below = pruned(model, [tap.tensor, *(name for name, _ in crossing)], [tensor, *others])
    above = _bare(model)
    above.graph.node.extend(kept[::-1])
    _weights(above, model)
    above.graph.input.extend([tensor, *others, *(v for v in flow.inputs(model) if v.name in needed)])
    above.graph.output.extend(v for v in model.graph.output if v.name == output)
    return below, above


def pruned(model: Any, tensors: Iterable[str], outputs: Sequence[Any]) -> Any:
    """A new graph of the nodes, inputs and weights that some tensors need, with other outputs."""
    new = _bare(model)
    wanted = set(tensors)
    new.graph.node.extend(model.graph.node[i] for i in flow.ancestors(model.graph.node, wanted))
    needed = wanted | {name for node in new.graph.node for name in takes(node)}
    _weights(new, model)
    new.graph.input.extend(value for value in flow.inputs(model) if value.name in needed)
    new.graph.output.extend(outputs)
    return new


def _bare(model: Any) -> Any:
    """A model of the same versions with an empty graph."""
    new = type(model)(ir_version=model.ir_version, producer_name="headstart")
    new.opset_import.extend(model.opset_import)
    new.graph.name = "network"
    return new


def _weights(new: Any, model: Any) -> None:
    """Take over the initialisers that the nodes of a new graph use."""
    used = {name for node in new.graph.node for name in takes(node)}
    new.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in used)


def _number(model: Any) -> int:
    """The data type of the weights, which the states have too."""
    from onnx import TensorProto as T

    kinds = [tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1]
    return T.FLOAT16 if kinds.count(T.FLOAT16) > kinds.count(T.FLOAT) else T.FLOAT


class _Build:
    """A pruned graph to which nodes are added; names of ours begin with headstart/."""

    def __init__(self, model: Any, tensors: Sequence[str]) -> None:
        self.opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        self.data = flow.data(model)
        self.model = pruned(model, [*tensors, self.data.name], [])
        self.graph, self.count = self.model.graph, 0
        self._yielded = self._yield()
        if all(value.name != self.data.name for value in self.graph.input):
            self.graph.input.append(self.data)
        self._sides()
        if len(flow.dims(self.data) or ()) == 2 and flow.kind(self.data) in (6, 7):
            self._tokens()

    def _yield(self) -> dict[str, str]:
        """Give other names to the tensors that have ours, as in a graph that was cut before; old name -> new one."""
        named = {tensor.name for tensor in self.graph.initializer} | {
            n for node in self.graph.node for n in node.output
        }
        ours = [name for name in named if name == "features" or name.startswith("headstart/")]
        before = next(f"below{i}/" for i in range(len(named) + 1) if not any(n.startswith(f"below{i}/") for n in named))
        new = {name: before + name for name in ours}
        for tensor in self.graph.initializer:
            tensor.name = new.get(tensor.name, tensor.name)
        for node in self.graph.node:
            for names in (node.input, node.output):
                names[:] = [new.get(name, name) for name in names]
        return new

    def tensor(self, tap: Found) -> str:
        """The name of a tap's tensor in this graph."""
        return self._yielded.get(tap.tensor, tap.tensor)

    def add(self, kind: str, given: Sequence[str], out: str | None = None, **attributes: Any) -> str:
        """A node; gives the name of its output."""
        from onnx import helper

        self.count += 1
        out = out or f"headstart/{kind}{self.count}"
        self.graph.node.append(helper.make_node(kind, given, [out], name=f"headstart/node{self.count}", **attributes))
        return out

    def constant(self, value: Any) -> str:
        """A small tensor; gives its name."""
        from onnx import numpy_helper

        self.count += 1
        name = f"headstart/constant{self.count}"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def reduced(self, kind: str, given: str, axes: list[int], keep: int = 0) -> str:
        """A reduction over axes, which are an attribute before opset 18 and an input from there on."""
        if self.opset < 18:
            return self.add(kind, [given], axes=axes, keepdims=keep)
        return self.add(kind, [given, self.constant(np.array(axes, np.int64))], keepdims=keep)

    def rows(self) -> str:
        """The number of rows of the data, (1,) int64."""
        return self.add("Gather", [self.add("Shape", [self.data.name]), self.constant(np.array([0]))], axis=0)

    def reshaped(self, given: str, width: int) -> str:
        """(anything with n rows) -> (n, places, width)."""
        return self.add(
            "Reshape", [given, self.add("Concat", [self.rows(), self.constant(np.array([-1, width]))], axis=0)]
        )

    def states(self, tap: Found) -> str:
        """States of a tap, (n, places, width) float32."""
        given = self.add("Cast", [self.tensor(tap)], to=1)
        if tap.kind == "tokens":
            return given
        if tap.kind in ("map", "turned"):
            given = self.add("Transpose", [given], perm=[0, 2, 3, 1] if tap.kind == "map" else [1, 0, 2])
        return self.reshaped(given, tap.width)

    def pooled(self, tap: Found, largest: bool) -> str:
        """Mean or largest over the places of a tap, (n, width) float32."""
        given = self.add("Cast", [self.tensor(tap)], to=1)
        if tap.kind == "vector":
            return given
        if tap.kind == "stream":
            given = self.reshaped(given, tap.width)
        return self.reduced("ReduceMax" if largest else "ReduceMean", given, AXES[tap.kind])

    def _sides(self) -> None:
        """Make side inputs inside: ones for a mask, noughts for token types, counts for positions."""
        from onnx import helper, numpy_helper

        sides = [value for value in self.graph.input if value.name in flow.SIDES]
        if not sides:
            return
        before = list(self.graph.node)
        self.graph.ClearField("node")
        shape = self.add("Shape", [self.data.name])  # (n, t)
        for side in sides:
            ones = numpy_helper.from_array(np.array([int(side.name != "token_type_ids")], np.int64))
            made = self.add("ConstantOfShape", [shape], value=ones)
            if side.name == "position_ids":
                made = self.add("CumSum", [made, self.constant(np.int64(1))], exclusive=1)
            self.add("Cast", [made], out=side.name, to=flow.kind(side))
        self.graph.node.extend(before)
        kept = [value for value in self.graph.input if value.name not in flow.SIDES]
        self.graph.ClearField("input")
        self.graph.input.extend(helper.make_tensor_value_info(v.name, flow.kind(v), _free(v)) for v in kept)

    def _tokens(self) -> None:
        """Make the one input of a text network `input_ids`, int64 (n, t)."""
        from onnx import helper

        name, kind = self.data.name, flow.kind(self.data)
        given = helper.make_tensor_value_info("input_ids", 7, ["n", "t"])
        self.graph.ClearField("input")
        self.graph.input.append(given)
        if (name, kind) == ("input_ids", 7):
            return
        inner = "headstart/tokens" if name == "input_ids" else name
        nodes = list(self.graph.node)
        self.graph.ClearField("node")
        self.add("Cast", ["input_ids"], out=inner, to=kind)
        for node in nodes:
            node.input[:] = [inner if one == name else one for one in node.input]
        self.graph.node.extend(nodes)
        self.data = given

    def finished(self, outputs: Sequence[tuple[str, int, list[Any]]]) -> Any:
        """The model, with its outputs; every node has a name of its own."""
        from onnx import helper

        self.graph.output.extend(helper.make_tensor_value_info(*output) for output in outputs)
        taken: set[str] = set()
        for i, node in enumerate(self.graph.node):
            if not node.name or node.name in taken:
                node.name = f"headstart/unnamed{i}"
            taken.add(node.name)
        return self.model


def _free(value: Any) -> list[Any]:
    """The declared shape, names for what is free."""
    names = ("n", "t") if len(flow.dims(value) or ()) == 2 else ("n", "c", "h", "w")
    return [d if d is not None else name for d, name in zip(flow.dims(value) or (), names, strict=False)]
