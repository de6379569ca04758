"""What training adds to a graph: numbers dropped in standard places, and products with updates of low rank.

Operations that are added have the domain `headstart`. RATE is the input through which they are told how much to drop.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from headstart.training import torch as _torch
from headstart.training.nodes import CARRIERS, Op, made, used
from headstart.training.operators.node import Maker, Node, Run, plain
from headstart.training.weights import content

torch: Any = _torch()
F: Any = torch.nn.functional

OURS = "headstart"
RATE = "\0rate"
FROZEN, UP, DOWN = "\0frozen", "\0up", "\0down"  # parts of a weight with an update of low rank
PRODUCTS = frozenset({"Gemm", "MatMul"})


def dropped(x: Any, rate: float) -> Any:
    """x with a share of its numbers nought, and the others so much the larger; x itself where nothing is dropped."""
    return F.dropout(x, rate) if rate else x


def updated(node: Node) -> Run:
    """Gemm or MatMul of x (..., m) with W + up @ down, never made: x W + (x up) down. Inputs: x, W, up, down, bias."""
    turned, alpha, beta = node.get("transB", 0), node.get("alpha", 1.0), node.get("beta", 1.0)
    left = node.get("transA", 0)

    def run(x: Any, W: Any, up: Any, down: Any, c: Any = None) -> Any:
        x = x.t() if left else x
        W, up, down = (W, up, down) if turned else (W.t(), down.t(), up.t())  # W (outputs, inputs)
        y = F.linear(x, W) + F.linear(F.linear(x, down), up)
        y = y if alpha == 1 else y * alpha
        return y if c is None else y + (c if beta == 1 else c * beta)

    return run


OPERATORS: dict[str, Maker] = {"Dropped": plain(dropped), "Updated": updated}


def factored(ops: list[Op], matrices: Collection[str]) -> list[Op]:
    """Products with a weight that has an update take its parts; where one is used in another way it is made whole."""
    new = []
    for op in ops:
        if op.domain == "" and op.kind in PRODUCTS and op.inputs[1] in matrices and op.inputs[0] not in matrices:
            W = op.inputs[1]
            inputs = (op.inputs[0], W + FROZEN, W + UP, W + DOWN, *op.inputs[2:])
            op = replace(op, kind="Updated", domain=OURS, inputs=inputs, reads=tuple(n for n in inputs if n))
        new.append(op)
    return new


def dropping(ops: list[Op], inputs: Collection[str]) -> list[Op]:
    """Dropout where transformers have it (Vaswani et al. 2017, section 5.4): on attention probabilities, and on what a
    linear layer adds to the residual stream. Fused attention drops nothing inside.
    """
    near, makers, flowing = used(ops), made(ops), content(ops, inputs)
    number = {id(op): i for i, op in enumerate(ops)}
    places: dict[tuple[int, int], str] = {}  # (operation, input) -> the tensor that is dropped there
    for i, op in enumerate(ops):
        if op.kind == "Softmax" and _weighs(op.outputs[0], near):
            for reader, place in near[op.outputs[0]]:
                places[number[id(reader)], place] = op.outputs[0]
        if op.kind in ("Add", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"):
            if not all(name in flowing for name in op.inputs[:2]):
                continue
            layers = [_linear(name, makers, flowing) for name in op.inputs[:2]]
            if layers[0] != layers[1]:
                place = 0 if layers[0] else 1
                places[i, place] = op.inputs[place]
    new: list[Op] = []
    for i, op in enumerate(ops):
        given = list(op.inputs)
        for place in range(len(given)):
            if (i, place) in places:
                given[place] = f"{op.inputs[place]}\0dropped{i}"
                name = f"dropout before {op.name}"
                new.append(Op("Dropped", (op.inputs[place], RATE), (given[place],), name, OURS))
        new.append(replace(op, inputs=tuple(given), reads=()) if given != list(op.inputs) else op)
    return new


def _weighs(name: str, near: dict[str, list[tuple[Op, int]]]) -> bool:
    """Whether a softmax is that of attention: all that reads it multiplies it with values."""
    readers = near.get(name, [])
    return bool(readers) and all(
        (op.kind in ("MatMul", "Einsum") and place == 0) or (op.kind in CARRIERS and _weighs(op.outputs[0], near))
        for op, place in readers
    )


def _linear(name: str, makers: dict[str, Op], flowing: Collection[str]) -> bool:
    """Whether a tensor is what a linear layer gives, perhaps with its bias, a scale, and in another shape."""
    while (op := makers.get(name)) is not None:
        weighed = [one for one in op.inputs if one and one not in flowing]
        if op.kind in ("Gemm", "MatMul", "FusedMatMul", "Updated"):
            return bool(weighed)
        if op.kind in CARRIERS:
            name = op.inputs[0]
        elif op.kind in ("Add", "Mul") and weighed:
            name = next(one for one in op.inputs if one in flowing)
        else:
            return False
    return False
