"""What the nodes of a graph cost: numbers in their weights, and operations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from headstart.graph.reading import count, nbytes, takes

Shapes = Mapping[str, tuple[int, ...]]
_PRODUCTS = """
    MatMul FusedMatMul TransposeMatMul MatMulInteger QLinearMatMul MatMulIntegerToFloat DynamicQuantizeMatMul
    MatMulNBits Gemm FusedGemm QGemm
"""
PRODUCTS = frozenset(_PRODUCTS.split())
CONVOLUTIONS = frozenset({"Conv", "FusedConv", "NhwcFusedConv", "QLinearConv", "ConvInteger", "NhwcConv"})


def weights(graph: Any) -> dict[str, Any]:
    """The constant tensors of a graph by name: initialisers, and the tensors of Constant nodes."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            found.update((node.output[0], a.t) for a in node.attribute if a.name == "value" and a.HasField("t"))
    return found


def parameters(nodes: Iterable[Any], tensors: Mapping[str, Any]) -> tuple[int, int]:
    """Numbers in the weights that nodes use, and their bytes; a weight used twice counts once.

    Whole numbers of 32 bits and more are shapes and indices, not weights; nor are single numbers.
    """
    from onnx import TensorProto as T

    used = {name for node in nodes for name in takes(node) if name in tensors}
    kinds = {T.INT64, T.INT32, T.UINT64, T.UINT32, T.BOOL}
    mine = [tensors[name] for name in used if tensors[name].data_type not in kinds and len(tensors[name].dims)]
    return sum(map(count, mine)), sum(map(nbytes, mine))


def operations(node: Any, shapes: Shapes, tensors: Mapping[str, Any]) -> float:
    """Multiplications of a node on observed shapes; one an output element where it multiplies no matrices."""
    made = math.prod(shapes.get(node.output[0], (1,))) if node.output else 1

    def dims(i: int) -> tuple[int, ...]:
        name = node.input[i] if len(node.input) > i else ""
        return tuple(tensors[name].dims) if name in tensors else shapes.get(name, ())

    attributes = {a.name: a.i for a in node.attribute}
    if node.op_type in PRODUCTS and (given := dims(0)):
        across = given[-2] if attributes.get("transA") and len(given) > 1 else given[-1]
        return float(made) * across
    if node.op_type in CONVOLUTIONS:
        kernel = dims(3 if node.op_type == "QLinearConv" else 1)  # (out, in / group, h, w)
        return float(made) * math.prod(kernel[1:])
    if node.op_type == "ConvTranspose" and (given := dims(0)):
        return float(math.prod(given)) * math.prod(dims(1)[1:])
    if node.op_type in ("Attention", "QAttention", "MultiHeadAttention", "GroupQueryAttention") and len(dims(0)) == 3:
        n, t, d = dims(0)
        return n * (2.0 * t * t * d + (t * d * dims(1)[-1] if node.op_type in ("Attention", "QAttention") else 0))
    if node.op_type in ("LSTM", "GRU", "RNN") and (given := dims(0)):
        return float(math.prod(given[:2])) * (math.prod(dims(1)) + math.prod(dims(2)))
    if node.op_type == "Einsum" and dims(0):
        return float(made) * dims(0)[-1]
    return float(made)
