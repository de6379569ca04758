"""An ONNX graph read for training: its nodes as plain values, its initialisers as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import InputError
from headstart.graph.reading import STANDARD, said, takes

Arrays = dict[str, NDArray[Any]]
CARRIERS = frozenset(
    {"Identity", "Cast", "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Expand", "Dropout"}
)


@dataclass(frozen=True)
class Op:
    """One operation: an input that is not given is ''. `reads` holds what graphs inside it take, too."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str = ""
    domain: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    reads: tuple[str, ...] = ()


def read(model: Any) -> tuple[list[Op], Arrays]:
    """Operations in their order, and initialisers and constants; half precision as float32. Raises InputError."""
    from onnx import numpy_helper

    arrays: Arrays = {}
    for tensor in model.graph.initializer:
        if tensor.data_location or len(tensor.external_data):
            raise InputError(f"the weights {said(tensor.name)} lie outside the graph: put them inside it first.")
        arrays[tensor.name] = full(numpy_helper.to_array(tensor))
    ops = []
    for i, node in enumerate(model.graph.node):
        attributes = {a.name: _value(a) for a in node.attribute}
        domain = "" if node.domain in STANDARD else node.domain
        if node.op_type == "Constant" and not domain and (value := _constant(attributes)) is not None:
            arrays[node.output[0]] = full(value)
            continue
        reads = tuple(takes(node))
        name = node.name or f"number {i + 1}"
        ops.append(Op(node.op_type, tuple(node.input), tuple(node.output), name, domain, attributes, reads))
    return ops, arrays


def full(value: NDArray[Any]) -> NDArray[Any]:
    """Half precision as float32, all else as it is."""
    return value.astype(np.float32) if value.dtype.name in ("float16", "bfloat16") else value


def _value(attribute: Any) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _constant(attributes: Mapping[str, Any]) -> NDArray[Any] | None:
    """The value of a Constant node; None for texts and sparse ones."""
    for key, kind in (("value", None), ("value_float", np.float32), ("value_floats", np.float32),
                      ("value_int", np.int64), ("value_ints", np.int64)):  # fmt: skip
        if key in attributes:
            return np.asarray(attributes[key], kind)
    return None


def used(ops: Iterable[Op]) -> dict[str, list[tuple[Op, int]]]:
    """Tensor name -> the operations that read it, with the number of the input."""
    found: dict[str, list[tuple[Op, int]]] = {}
    for op in ops:
        for i, name in enumerate(op.inputs):
            if name:
                found.setdefault(name, []).append((op, i))
    return found


def made(ops: Iterable[Op]) -> dict[str, Op]:
    """Tensor name -> the operation that makes it."""
    return {name: op for op in ops for name in op.outputs if name}


def needed(ops: Sequence[Op], outputs: Iterable[str]) -> list[Op]:
    """The operations that some tensors need, in order."""
    wanted, kept = set(outputs), []
    for op in reversed(ops):
        if wanted & set(op.outputs):
            kept.append(op)
            wanted |= set(op.reads or op.inputs)
    return kept[::-1]
