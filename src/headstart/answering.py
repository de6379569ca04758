"""Head, calibration and unknown as an ONNX graph: features go in, the answers of `Model.answer` come out.

Standard operators alone, in forms that mean the same from opset 13 on, so that the graph can stand above any network.
Each head and each method of calibration is written as its own file computes it (heads/, calibration.py, unknown.py).
Where a difference of 1e-7 would be blown up by a logarithm, as in the doubt of a sure answer, the graph computes in
float64 as they do.

Letters: n examples, d feature width, c classes, k asked for, r references.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from headstart.calibration import EDGE, Calibration
from headstart.errors import ModelError
from headstart.head import MULTILABEL, REGRESSION, Head
from headstart.heads import centroid, nearest, prior
from headstart.heads.centroid import Centroid
from headstart.heads.linear import Linear
from headstart.heads.nearest import Nearest
from headstart.heads.prior import Prior
from headstart.heads.ridge import Ridge
from headstart.unknown import NEAREST, Unknown

OLDEST = 13  # opset
FEATURES, PROBABILITIES, VALUE, UNKNOWN = "features", "probabilities", "value", "unknown"
PREFIX = "answer/"  # of every name but the input and the outputs


class Nodes:
    """Nodes and constants of a graph in the making; every call gives the name of the new tensor."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Any, dtype: type[np.generic] = np.float32) -> str:
        """An array that is part of the graph."""
        name = f"{PREFIX}constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype), name))
        return name

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """One node with one output."""
        name = output or f"{PREFIX}{operator}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], f"{PREFIX}{len(self.nodes)}", **attributes))
        return name

    def top(self, x: str, k: int) -> tuple[str, str]:
        """The k largest of every row and their places, (n, k) each."""
        values, places = (f"{PREFIX}TopK{len(self.nodes)}{part}" for part in ("", "/places"))
        count = self.constant([k], np.int64)
        self.nodes.append(helper.make_node("TopK", [x, count], [values, places], f"{PREFIX}{len(self.nodes)}", axis=1))
        return values, places

    def total(self, x: str, *, keep: bool = True) -> str:
        """The sums of the rows, (n, 1), or (n,) without `keep`."""
        return self.add("ReduceSum", x, self.constant([1], np.int64), keepdims=int(keep))

    def unit(self, x: str) -> str:
        """Rows of length 1; a zero row stays zero."""
        length = self.add("Sqrt", self.total(self.add("Mul", x, x)))
        return self.add("Div", x, self.add("Max", length, self.constant(1e-12)))

    def clip(self, x: str, low: float, high: float, dtype: type[np.generic] = np.float32) -> str:
        """Values between low and high."""
        return self.add("Clip", x, self.constant(low, dtype), self.constant(high, dtype))

    def double(self, x: str) -> str:
        """As float64."""
        return self.add("Cast", x, to=TensorProto.DOUBLE)


def graph(head: Head, calibration: Calibration, unknown: Unknown | None, task: str, width: int) -> onnx.GraphProto:
    """`features` (n, width) float32 -> `probabilities` (n, c) float32, or `value` (n, 1) of a number; and `unknown`
    (n,) bool where an Unknown is given. Raises ModelError for a head that has no such graph.
    """
    g = Nodes()
    scores = _scores(g, head)
    outputs = []
    if task == REGRESSION:
        P = g.add("Identity", scores, output=VALUE)
        outputs.append(helper.make_tensor_value_info(VALUE, TensorProto.FLOAT, ["n", 1]))
    else:
        c = _classes(head)
        P = g.add("Identity", _probabilities(g, scores, calibration, c, task == MULTILABEL), output=PROBABILITIES)
        outputs.append(helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, ["n", c]))
    if unknown is not None:
        g.add("Identity", _refused(g, unknown, P), output=UNKNOWN)
        outputs.append(helper.make_tensor_value_info(UNKNOWN, TensorProto.BOOL, ["n"]))
    given = [helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["n", width])]
    return helper.make_graph(g.nodes, "answers", given, outputs, g.constants)


def _classes(head: Head) -> int:
    """The number of columns of a head's scores."""
    arrays = head.arrays()
    if isinstance(head, Nearest):
        return int(arrays["T"].shape[1])
    return int((arrays["b"] if isinstance(head, Linear | Ridge) else next(iter(arrays.values()))).shape[0])


def _scores(g: Nodes, head: Head) -> str:
    """(n, d) -> (n, c), as `head.scores`."""
    if isinstance(head, Linear | Ridge):
        return g.add("Add", g.add("MatMul", FEATURES, g.constant(head.W)), g.constant(head.b))
    if isinstance(head, Centroid):
        return _cosines(g, head.means, head.centre, centroid.SHARPNESS)
    if isinstance(head, Prior):
        return _cosines(g, head.names, head.centre, prior.SHARPNESS)
    if isinstance(head, Nearest):
        return _neighbours(g, head)
    raise ModelError(f"a head {head.name!r} cannot be written as a graph.")


def _cosines(g: Nodes, directions: NDArray[np.float32], centre: NDArray[np.float32], sharpness: float) -> str:
    """Cosines (n, c) with unit directions (c, d), after the centre (d,) is taken away, times sharpness."""
    apart = g.unit(g.add("Sub", FEATURES, g.constant(centre)))
    return g.add("Mul", g.add("MatMul", apart, g.constant(directions.T)), g.constant(sharpness))


def _neighbours(g: Nodes, head: Nearest) -> str:
    """Log odds (n, c) of the shares among the k nearest, or their mean number (n, 1)."""
    similar, places = g.top(g.add("MatMul", g.unit(FEATURES), g.constant(head.X.T)), head.k)  # (n, k)
    weight = g.add("Softmax", g.add("Mul", similar, g.constant(nearest.SHARPNESS)), axis=1)
    of_each = g.add("Gather", g.constant(head.T), places, axis=0)  # (n, k, c)
    column = g.add("Unsqueeze", weight, g.constant([2], np.int64))  # (n, k, 1)
    found = g.total(g.add("Mul", of_each, column), keep=False)  # (n, c)
    if head.number:
        return found
    share = g.clip(found, 0.01, 0.99)
    return g.add("Log", g.add("Div", share, g.add("Sub", g.constant(1.0), share)))


def _probabilities(g: Nodes, scores: str, calibration: Calibration, c: int, several: bool) -> str:
    """Scores (n, c) -> probabilities (n, c), as `Calibration.apply`."""
    slope, shift = g.constant(calibration.slope), g.constant(calibration.shift)
    S = g.add("Add", g.add("Mul", scores, slope), shift)
    if several:
        return g.clip(g.add("Sigmoid", S), EDGE, 1 - EDGE)
    P = g.add("Softmax", S, axis=1)
    if calibration.method == "isotonic":
        P = _interpolated(g, P, calibration.knots)
    P = g.clip(P, EDGE / c, 1 - EDGE)
    return g.add("Div", P, g.total(P))


def _interpolated(g: Nodes, P: str, knots: NDArray[np.float32]) -> str:
    """P (n, c) through the straight lines between the knots (2, k): as numpy.interp, steps upward included."""
    x, y = knots.astype(np.float64)
    run, rise = np.diff(x), np.diff(y)
    slope = np.append(np.where(run > 0, rise / np.where(run > 0, run, 1), 0), 0)  # (k,); level after the last knot
    P = g.add("Max", g.double(P), g.constant(x[0], np.float64))
    passed = g.add("GreaterOrEqual", g.add("Unsqueeze", P, g.constant([2], np.int64)), g.constant(x[1:], np.float64))
    counts = g.add("Cast", passed, to=TensorProto.INT64)  # (n, c, k - 1)
    place = g.add("ReduceSum", counts, g.constant([2], np.int64), keepdims=0)  # (n, c) number of the line
    start, level, steep = (g.add("Gather", g.constant(part, np.float64), place) for part in (x, y, slope))
    line = g.add("Add", level, g.add("Mul", steep, g.add("Sub", P, start)))
    return g.add("Cast", line, to=TensorProto.FLOAT)


def _refused(g: Nodes, unknown: Unknown, P: str) -> str:
    """(n,) bool: the answer should be "unknown", as `Unknown.refused`. P (n, c)."""
    # (r, d) float16 in the file; the runtime multiplies this out once, when it loads
    rows = g.unit(g.add("Cast", g.constant(unknown.references, np.float16), to=TensorProto.FLOAT))
    similarity = g.add("MatMul", g.unit(FEATURES), g.add("Transpose", rows, perm=[1, 0]))
    k = min(NEAREST, len(unknown.references))
    mean = g.add("Div", g.total(g.double(g.top(similarity, k)[0]), keep=False), g.constant(k, np.float64))
    parts = [g.add("Sub", g.constant(1.0, np.float64), mean)]
    if unknown.spread[1] > 0:
        parts.append(_doubt(g, P))
    novelty = g.add("Mul", parts[0], g.constant(0.0, np.float64))  # (n,)
    for i, part in enumerate(parts):
        if unknown.spread[i] > 0:
            away = g.add("Sub", part, g.constant(unknown.centre[i], np.float64))
            novelty = g.add("Add", novelty, g.add("Div", away, g.constant(unknown.spread[i], np.float64)))
    return g.add("Greater", g.add("Cast", novelty, to=TensorProto.FLOAT), g.constant(unknown.threshold))


def _doubt(g: Nodes, P: str) -> str:
    """Minus the log odds of the likeliest label, (n,) float64."""
    P = g.double(P)
    whole = g.add("Max", g.total(P), g.constant(1e-300, np.float64))
    share = g.add("Squeeze", g.add("Div", g.top(P, 1)[0], whole), g.constant([1], np.int64))
    rest = g.add("Sub", g.constant(1.0, np.float64), share)
    odds = [g.add("Log", g.clip(part, 1e-6, 1.0, np.float64)) for part in (rest, share)]
    return g.add("Sub", *odds)
