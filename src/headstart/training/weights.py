"""Which initialisers of a graph are weights: what training changes, and what stays as it is.

An initialiser is followed through what only carries it (casts, another shape, a row taken out of it) to the first
operation that computes with it. It is a weight when it has at least two numbers and one of these uses holds:

- a factor of a product or convolution of content (Gemm, MatMul, Conv, Einsum, fused attention), or its bias;
- scale or bias of a normalisation. The running mean and variance of BatchNormalization are never trained;
- a table in which the data look up rows (Gather), or whose rows are added to content (positions, token types);
- added to content, or multiplied with it whole: biases, positions, the scale of a layer;
- joined to content by Concat: a class token.

It is none when it only makes masks, scales, epsilons or bounds (scalars, what never meets content), when it is a mask
itself (noughts, and else numbers of -50 or less, added to scores), or when rows taken out of it are multiplied with
content: these are the sines and cosines of rotary positions. Constant nodes are never trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from headstart.graph.flow import SIDES, WITHOUT_CONTENT
from headstart.training.nodes import CARRIERS, Arrays, Op, used

# Operator -> the inputs that are weights, if another input is content.
PLACES: dict[tuple[str, str], frozenset[int]] = {
    ("", kind): frozenset(places)
    for kind, places in {
        "Gemm": (0, 1, 2), "MatMul": (0, 1), "Conv": (1, 2), "ConvTranspose": (1, 2), "LayerNormalization": (1, 2),
        "RMSNormalization": (1,), "SimplifiedLayerNormalization": (1,), "BatchNormalization": (1, 2),
        "InstanceNormalization": (1, 2), "GroupNormalization": (1, 2), "PRelu": (1,), "Einsum": (0, 1, 2), "Add": (0, 1),
        "Sum": (0, 1, 2), "Mul": (0, 1), "Concat": tuple(range(64)),
    }.items()
} | {
    ("com.microsoft", kind): frozenset(places)
    for kind, places in {
        "FusedMatMul": (0, 1), "TransposeMatMul": (0, 1), "BiasGelu": (1,), "FastGelu": (1,), "BiasAdd": (1,),
        "Attention": (1, 2), "MultiHeadAttention": (3,), "SkipLayerNormalization": (2, 3, 4),
        "SkipSimplifiedLayerNormalization": (2, 3),
    }.items()
}  # fmt: skip
TAKEN = frozenset({"Gather", "Slice", "GatherElements", "GatherND"})
LINEAR = frozenset({"Gemm", "MatMul", "FusedMatMul", "TransposeMatMul"})
NEGATIVE = -50.0  # of a mask that is added to scores


def content(ops: Iterable[Op], inputs: Iterable[str]) -> set[str]:
    """Tensors made of the data by arithmetic: no shapes, comparisons, masks."""
    found = set(inputs) - set(SIDES)
    for op in ops:
        if op.kind not in WITHOUT_CONTENT and found & set(op.reads or op.inputs):
            found |= set(op.outputs)
    return found


def masks(value: NDArray[Any]) -> bool:
    """Whether an array is a mask that is added to scores."""
    low = value.min()
    return bool(low <= NEGATIVE and ((value == 0) | (value <= NEGATIVE)).all())


def found(ops: list[Op], arrays: Arrays, initialisers: Iterable[str], inputs: Iterable[str]) -> dict[str, bool]:
    """The names of the weights -> whether it is a matrix that only linear layers use (as low-rank updates want it)."""
    near, flowing = used(ops), content(ops, inputs)
    weights: dict[str, bool] = {}
    for name in initialisers:
        value = arrays[name]
        if value.dtype.kind != "f" or value.size < 2:
            continue
        uses = list(_uses(name, near, flowing, False))
        if any(use in ("weight", "linear") for use in uses):
            weights[name] = value.ndim == 2 and all(use == "linear" for use in uses)
        elif "added" in uses and not masks(value):
            weights[name] = False
    return weights


def _uses(name: str, near: dict[str, list[tuple[Op, int]]], flowing: set[str], taken: bool) -> Iterable[str]:
    """What a tensor is to the operations that compute with it: linear, weight, added, or other."""
    for op, place in near.get(name, ()):
        others = [one for i, one in enumerate(op.inputs) if one and i != place]
        meets = any(one in flowing for one in others)
        if (op.kind in CARRIERS and place == 0) or (op.kind == "Concat" and not meets):
            yield from _uses(op.outputs[0], near, flowing, taken)
        elif op.kind in TAKEN and place == 0:
            if op.kind == "Gather" and meets:
                yield "weight"
            else:
                yield from _uses(op.outputs[0], near, flowing, True)
        elif not meets or place not in PLACES.get((op.domain, op.kind), ()):
            yield "other"
        elif op.kind in ("Add", "Sum"):
            yield "added"
        elif op.kind in ("Mul", "Concat"):
            yield "other" if taken and op.kind == "Mul" else "weight"
        else:
            yield "linear" if op.kind in LINEAR and not taken else "weight"
