"""An ONNX graph as a torch module: its operators run node by node, its weights are parameters.

What depends on initialisers that are not trained is computed once, shapes are small tensors on the CPU, and a tensor
is let go after its last use. Half precision becomes float32.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import InputError, ModelError, near
from headstart.graph.flow import SIDES
from headstart.graph.reading import said
from headstart.training import nodes, rewriting, weights
from headstart.training import torch as _torch
from headstart.training.nodes import Op
from headstart.training.operators import SHAPES, Node, Run, array, elementwise, maker
from headstart.training.rewriting import DOWN, FROZEN, RATE, UP

torch: Any = _torch()
Tensor = Any
SMALL = 64  # whole numbers that stay on the CPU: shapes, axes, places; and any one number
OURS = (ModelError, InputError, torch.OutOfMemoryError)  # raised as they are


def lacking(model: Any) -> list[str]:
    """The operators of a graph that the interpreter does not know, sorted; [] when it can be trained."""
    ops = nodes.needed(nodes.read(model)[0], [value.name for value in model.graph.output])
    return sorted({f"{op.domain}.{op.kind}".lstrip(".") for op in ops if maker(op.domain, op.kind) is None})


class Graph(torch.nn.Module):  # type: ignore[misc]
    """The graph of an onnx.ModelProto whose weights are inside it.

    Parameters are the weights as `weights.found` tells them, or the initialisers that `trainable` names. With `rank`,
    every weight W (rows, columns) that only linear layers use gets an update of low rank, W + up @ down with up
    (rows, r) nought at first and down (r, columns) random; all else stays as it is (Hu et al. 2021, LoRA, section 4.1;
    their factor alpha / r is 1 here, so that what is kept is up and down alone). `dropout` is a share from 0 to 1 of the
    numbers that are dropped in train() mode: of attention probabilities, and of what linear layers add to the residual
    stream. Raises ModelError for an operator that is not known, InputError for names that are no weights.
    """

    def __init__(
        self, model: Any, *, rank: int | None = None, trainable: Collection[str] | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if missing := lacking(model):
            raise ModelError(
                f"the operators {', '.join(missing)} are not known to the interpreter, so this part of the network cannot "
                "be trained. Take a cut above them, or train a head on frozen features."
            )
        if not 0 <= dropout < 1:
            raise InputError(f"dropout {dropout} cannot be: it is a share, 0 <= dropout < 1.")
        if rank is not None and rank < 1:
            raise InputError(f"rank {rank} cannot be: it is 1 or more.")
        self.dropout = dropout
        self.outputs = [value.name for value in model.graph.output]
        ops, arrays = nodes.read(model)
        ops = nodes.needed(ops, self.outputs)
        self.inputs, self._data, found = _weights(model, ops, arrays, trainable)
        opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
        if rank is not None:
            found = {name: True for name, matrix in found.items() if matrix}
        self._start = {name: arrays[name].astype(np.float32, copy=False) for name in found}
        self._places: dict[str, tuple[str, ...]] = {}  # weight -> the parameters that make it
        for i, (name, value) in enumerate(self._start.items()):
            self._add(i, name, torch.from_numpy(np.array(value)), rank)
        ops = nodes.needed(_folded(ops, arrays, self._start, opsets), self.outputs)
        if rank is not None:
            ops = rewriting.factored(ops, self._start)
        if dropout:
            ops = rewriting.dropping(ops, self._data)
        self._compiled(ops, {name: value for name, value in arrays.items() if name not in self._start}, opsets)

    def _add(self, i: int, name: str, value: Tensor, rank: int | None) -> None:
        """Make the parameters of one weight."""
        if rank is None:
            self.register_parameter(f"weight{i}", torch.nn.Parameter(value))
            self._places[name] = (f"weight{i}",)
            return
        rows, columns = value.shape
        self.register_buffer(f"frozen{i}", value, persistent=False)
        self.register_parameter(f"up{i}", torch.nn.Parameter(torch.zeros(rows, rank)))
        self.register_parameter(f"down{i}", torch.nn.Parameter(torch.randn(rank, columns) / columns**0.5))
        self._places[name] = (f"up{i}", f"down{i}", f"frozen{i}")

    def _compiled(self, ops: list[Op], constants: nodes.Arrays, opsets: Mapping[str, int]) -> None:
        """Give every tensor a place, and make the steps: function, places read, places written, places let go."""
        places = {"": 0, RATE: 1}
        for name in [*self.inputs, *(n for op in ops for n in (*op.inputs, *op.outputs)), *self.outputs]:
            places.setdefault(name, len(places))
        self._ops, self._count = ops, len(places)
        self._given = {name: places[name] for name in self.inputs}
        self._results = [places[name] for name in self.outputs]
        read = {name for op in ops for name in op.inputs} | set(self.outputs)
        self._whole: list[tuple[int, tuple[str, ...]]] = []  # places, and the up, down and frozen part they are made of
        self._kept: list[tuple[int, str]] = []  # places, and the parameter or buffer that stands there
        self._small: list[tuple[int, Tensor]] = []  # places, and shapes and the like, which stay on the CPU
        for weight, parts in self._places.items():
            if weight in read:
                self._whole += [(places[weight], parts)] if len(parts) > 1 else []
                self._kept += [(places[weight], parts[0])] if len(parts) == 1 else []
            names = (weight + UP, weight + DOWN, weight + FROZEN)
            self._kept += [(places[n], part) for n, part in zip(names, parts, strict=False) if n in read]
        for i, name in enumerate(sorted(read & set(constants))):
            value = _tensor(constants[name])
            if value.numel() <= (1 if value.is_floating_point() else SMALL):
                self._small.append((places[name], value))
            else:
                self.register_buffer(f"constant{i}", value, persistent=False)
                self._kept.append((places[name], f"constant{i}"))
        last = {name: i for i, op in enumerate(ops) for name in op.inputs}
        stay = {"", RATE, *self.outputs}
        self._steps: list[tuple[Run, tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = []
        for i, op in enumerate(ops):
            gone = {places[n] for n in {*op.inputs, *op.outputs} - stay if last.get(n, i) == i}
            run = _run(op, {n: constants[n] for n in op.inputs if n in constants}, opsets)
            self._steps.append(
                (run, tuple(places[n] for n in op.inputs), tuple(places[n] for n in op.outputs), tuple(gone))
            )

    def forward(self, feeds: Mapping[str, Tensor]) -> list[Tensor]:
        """The outputs of the graph, in order. Whole numbers among the feeds may stay on the CPU."""
        values: list[Any] = [None] * self._count
        values[1] = self.dropout if self.training else 0.0
        for name, at in self._given.items():
            if name not in feeds:
                raise InputError(f"the graph needs {said(name)}, and is given {', '.join(feeds) or 'nothing'}.")
            values[at] = feeds[name]
        away = any(value.device.type != "cpu" for value in feeds.values())
        for at, value in self._small:
            values[at] = value
        for at, place in self._kept:
            values[at] = getattr(self, place)
        for at, parts in self._whole:
            up, down, frozen = (getattr(self, place) for place in parts)
            values[at] = torch.addmm(frozen, up, down)
        for i, (run, inputs, outputs, gone) in enumerate(self._steps):
            given = [values[at] for at in inputs]
            if away:
                given = _together(self._ops[i], given)
            try:
                result = run(*given)
            except OURS:
                raise
            except (RuntimeError, IndexError, ValueError) as error:
                raise _failed(self._ops[i], given, error) from error
            if len(outputs) == 1 and not isinstance(result, tuple):
                values[outputs[0]] = result
            else:
                for at, one in zip(outputs, result, strict=False):
                    values[at] = one
            for at in gone:
                values[at] = None
        return [values[at] for at in self._results]

    def weights(self) -> dict[str, tuple[Any, ...]]:
        """Initialiser name -> its parameters: (value,), or (up, down)."""
        return {name: tuple(getattr(self, p) for p in made[:2]) for name, made in self._places.items()}

    def changed(self) -> dict[str, NDArray[np.float32]]:
        """Initialiser name -> its value where that is no more what it was; with rank NAME/up and NAME/down."""
        new: dict[str, NDArray[np.float32]] = {}
        for name, parts in self.weights().items():
            values = [array(part).astype(np.float32) for part in parts]
            if len(values) == 2:
                if values[0].any():
                    new |= {f"{name}/up": values[0], f"{name}/down": values[1]}
            elif not np.array_equal(values[0], self._start[name]):
                new[name] = values[0].copy()
        return new

    def load(self, changed: Mapping[str, NDArray[np.float32]]) -> None:
        """The inverse of `changed`: weights that it does not name are as they were at first. Raises InputError."""
        with torch.no_grad():
            known = set()
            for name, parts in self.weights().items():
                if len(parts) == 1:
                    names, first = [name], [self._start[name]]
                else:
                    names, first = (
                        [f"{name}/up", f"{name}/down"],
                        [np.zeros(parts[0].shape, np.float32), array(parts[1])],
                    )
                known |= set(names)
                for key, part, value in zip(names, parts, first, strict=True):
                    new = np.asarray(changed.get(key, value), np.float32)
                    if new.shape != tuple(part.shape):
                        raise InputError(
                            f"weights {said(key)} of shape {new.shape}, and {tuple(part.shape)} is needed."
                        )
                    part.copy_(torch.from_numpy(new.copy()))
        if wrong := sorted(set(changed) - known):
            raise InputError(f"{said(wrong[0])} is no weight that is trained here.{near(wrong[0], known)}")


def _weights(
    model: Any, ops: list[Op], arrays: nodes.Arrays, trainable: Collection[str] | None
) -> tuple[list[str], list[str], dict[str, bool]]:
    """Names of the inputs that are needed, of those that are content, and of the weights that are trained. Raises InputError."""
    read = {name for op in ops for name in op.reads} | {value.name for value in model.graph.output}
    inputs = [value for value in model.graph.input if value.name in read and value.name not in arrays]
    floats = [value.name for value in inputs if value.type.tensor_type.elem_type in (1, 10, 11, 16)]
    names = [tensor.name for tensor in model.graph.initializer]
    data = floats or [value.name for value in inputs if value.name not in SIDES]
    found = weights.found(ops, arrays, names, data)
    if trainable is not None:
        for name in trainable:
            if name not in names or arrays[name].dtype.kind != "f":
                raise InputError(f"{said(name)} is no weight of the graph.{near(name, found)}")
            if any(op.kind == "BatchNormalization" and name in op.inputs[3:5] for op in ops):
                raise InputError(f"{said(name)} is a running mean or variance, which training never changes.")
        found = {name: found.get(name, False) for name in names if name in set(trainable)}
    return [value.name for value in inputs], data, found


def _run(op: Op, constants: nodes.Arrays, opsets: Mapping[str, int]) -> Run:
    """The function of one operation."""
    make = rewriting.OPERATORS[op.kind] if op.domain == rewriting.OURS else maker(op.domain, op.kind)
    assert make is not None
    known = {i: constants[name] for i, name in enumerate(op.inputs) if name in constants}
    return make(Node(op.kind, op.name, opsets.get(op.domain, 1), op.attributes, known, len(op.outputs)))


def _folded(ops: list[Op], arrays: nodes.Arrays, kept: Collection[str], opsets: Mapping[str, int]) -> list[Op]:
    """Compute once what depends on nothing but constants: into `arrays`; gives the operations that are left."""
    left = []
    with torch.no_grad():
        for op in ops:
            if any(name and (name in kept or name not in arrays) for name in op.reads or op.inputs):
                left.append(op)
                continue
            given = [None if not name else _tensor(arrays[name]) for name in op.inputs]
            try:
                result = _run(op, arrays, opsets)(*given)
            except OURS:
                raise
            except (RuntimeError, IndexError, ValueError) as error:
                raise _failed(op, given, error) from error
            for name, value in zip(op.outputs, result if isinstance(result, tuple) else (result,), strict=False):
                if name and value is not None:
                    arrays[name] = array(value)
    return left


def _tensor(value: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(value, order="C"))


def _together(op: Op, given: list[Any]) -> list[Any]:
    """Where an operation has inputs on a device, its others are brought there; shapes and scalars stay on the CPU."""
    device = next((v.device for v in given if isinstance(v, torch.Tensor) and v.device.type != "cpu"), None)
    if device is None:
        return given
    stay = SHAPES.get(op.kind, ())
    scalar = 0 if op.kind in elementwise.OPERATORS else -1  # torch takes single numbers from anywhere here
    return [
        v.to(device) if isinstance(v, torch.Tensor) and i not in stay and v.ndim > scalar else v
        for i, v in enumerate(given)
    ]


def _failed(op: Op, given: list[Any], error: Exception) -> ModelError:
    """What went wrong, with the node and the shapes."""
    shapes = ", ".join("none" if v is None else str(tuple(getattr(v, "shape", ()))) for v in given)
    return ModelError(f"node {said(op.name)} ({op.kind}) cannot be run on {shapes}: {str(error).splitlines()[0][:200]}")
