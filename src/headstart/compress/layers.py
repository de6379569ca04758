"""Linear layers in a graph: a product with a constant matrix, and the constant vector added to it, as one thing.

Letters: K inputs and N outputs of a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.compress.surgery import arrays, attribute, users

SMALLEST = 16  # inputs or outputs of what is worth treating


@dataclass(frozen=True)
class Linear:
    """y (..., N) = x (..., K) @ W + b."""

    nodes: tuple[str, ...]  # the outputs of the graph's nodes that it consists of: a Gemm, or a MatMul and its Add
    x: str
    y: str
    W: NDArray[np.float32]  # (K, N)
    b: NDArray[np.float32] | None  # (N,)
    rank: int | None  # 2 where the graph says so, by a Gemm


def linears(model: Any) -> list[Linear]:
    """The linear layers of a graph with float32 weights in it, in the graph's order."""
    values, used, outputs = arrays(model), users(model), {output.name for output in model.graph.output}
    found = []
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm") or node.domain not in ("", "ai.onnx"):
            continue
        W = values.get(node.input[1])
        if W is None or W.ndim != 2 or W.dtype != np.float32 or min(W.shape) < SMALLEST or node.input[0] in values:
            continue
        y, b, parts = node.output[0], None, [node.output[0]]
        if node.op_type == "Gemm":
            if attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1:
                continue
            W = W.T if attribute(node, "transB", 0) else W
            if len(node.input) > 2 and node.input[2]:
                b = values.get(node.input[2])
                if b is None or attribute(node, "beta", 1.0) != 1 or b.size not in (1, W.shape[1]):
                    continue
                b = np.broadcast_to(b.reshape(-1), (W.shape[1],))
        elif y not in outputs and len(used.get(y, [])) == 1 and (after := used[y][0]).op_type == "Add":
            other = values.get(after.input[1] if after.input[0] == y else after.input[0])
            if other is not None and other.shape == (W.shape[1],) and other.dtype == np.float32:
                y, b = after.output[0], other
                parts.append(y)
        found.append(Linear(tuple(parts), node.input[0], y, W, b, 2 if node.op_type == "Gemm" else None))
    return found


def plain_nodes(layer: Linear, W: NDArray[np.float32], b: NDArray[np.float32] | None, new: dict[str, Any]) -> list[Any]:
    """Nodes of a layer with other weights; their names go into `new`."""
    from onnx import helper

    new[f"{layer.y}/W"] = np.ascontiguousarray(W, np.float32)
    if b is None:
        return [helper.make_node("MatMul", [layer.x, f"{layer.y}/W"], [layer.y], name=layer.y)]
    new[f"{layer.y}/b"] = np.ascontiguousarray(b, np.float32)
    if layer.rank == 2:
        return [helper.make_node("Gemm", [layer.x, f"{layer.y}/W", f"{layer.y}/b"], [layer.y], name=layer.y)]
    return [
        helper.make_node("MatMul", [layer.x, f"{layer.y}/W"], [f"{layer.y}/bare"], name=f"{layer.y}/bare"),
        helper.make_node("Add", [f"{layer.y}/bare", f"{layer.y}/b"], [layer.y], name=layer.y),
    ]
