"""A network cut in two at a tap: what is below is frozen and run once a content, what is above can be trained.

The lower half gives states: what the tap's tensor holds for one content. The upper half is a graph of its own that
takes a batch of states, the mask of padded rows, and the few numbers that cross the cut and are no content (the shape
of the input, say), which are known for any batch without running anything.

Letters: n rows, t places (tokens), d width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import jsontext
from headstart.backbone import Backbone, Contents
from headstart.backbones import onnx as runtime
from headstart.backbones.minilm import MiniLM
from headstart.backbones.network import Network, passed, told
from headstart.errors import InputError, ModelError, near
from headstart.graph import cut as cutting
from headstart.graph import flow, shapes
from headstart.graph.reading import inlined, takes
from headstart.graph.taps import Found

VERSION = 1  # of the arithmetic of states: part of every fingerprint
PADDED = ("tokens", "stream", "turned")  # kinds whose contents have places of their own number
BATCH = 64  # pictures count as so many places when batches are made: eight in one
SIZES = ((1, 2), (2, 2), (1, 3), (2, 3))  # rows and places on which the numbers that cross the cut are read
CHECKS = ((3, 5), (5, 4))  # and on which they are tried
FLOAT, HALF = 1, (10, 16)  # ONNX data types: float32; float16, bfloat16
MASK = "attention_mask"
OURS = "headstart/"  # names of ours begin so
JOINED = f"{OURS}parts"
FAR = -1e9  # added to the score of a place that holds nothing
APART = 1e-4  # of the largest number: a padded row may differ so much from one alone


@dataclass(frozen=True)
class Part:
    """One part of the cut that the feature is taken at."""

    tensor: str  # an output of the upper half
    kind: str  # tokens map grid vector stream turned, as graph.taps.Found has it
    width: int
    largest: bool  # the largest over the places is taken, and not the mean


@dataclass(frozen=True, eq=False)
class Halves:
    """A network cut in two at a tap. A batch of n rows, as the upper half takes it: tokens (n, t, d), stream (n * t, d),
    turned (t, n, d), map (n, d, h, w), grid (n, h, w, d), vector (n, d).
    """

    base: Backbone  # in float32
    tap: str
    blocks: int  # taps above this one up to the deepest that the cut needs; at least 1
    above: Any  # onnx.ModelProto, weights inside; inputs: `tensor`, the mask, the numbers; outputs: the parts' tensors
    tensor: str
    kind: str  # of the tap's tensor
    width: int
    parts: tuple[Part, ...]  # of the cut, in order
    masked: bool  # rows may be padded: `attention_mask` (n, t) int64, an input of the upper half, says where
    fingerprint: str  # the hex digest of everything that decides the states
    depth: Mapping[str, int]  # initialiser above the tap -> which block above the tap holds it, 1 to `blocks`
    below: Any = field(repr=False)  # onnx.ModelProto of the lower half; its weights may be outside it
    crossing: Mapping[str, NDArray[np.int64]] = field(repr=False)  # name -> (..., 4): times 1, n, t and n * t, summed
    sides: Mapping[str, Any] = field(repr=False)  # token types and positions that the upper half takes -> their dtype

    @cached_property
    def _opened(self) -> Any:
        reader = _reader(self.base)
        folder = reader.folder if isinstance(reader, Network) else None
        with told(self.base.card.name):
            return runtime.session(self.below.SerializeToString(), folder, provider=runtime.providers()[0])

    def states(self, contents: Contents) -> list[NDArray[np.float32]]:
        """What the tap holds of every content: tokens, stream, turned (t, d); map (d, h, w); grid (h, w, d); vector (d,).

        Rows run together are equally long, so nothing is padded. Raises ContentError with every picture that cannot be
        read, InputError on what is no text or no bytes, ModelError where the network gives no number.
        """
        if len(contents) == 0:
            return []
        reader, found = _reader(self.base), [np.empty(0, np.float32)] * len(contents)

        def keep(batch: Any, values: list[Any]) -> None:
            value = values[0]
            if self.kind == "stream":
                value = value.reshape(len(batch), -1, self.width)
            elif self.kind == "turned":
                value = value.swapaxes(0, 1)
            for i, one in zip(batch, value, strict=True):
                found[i] = np.ascontiguousarray(one)

        if isinstance(reader, Network) and reader.description.modality == "image":
            reader.pictured(contents, self._opened, [self.tensor], keep)
        else:
            rows = reader.rows(contents)  # type: ignore[arg-type]  # it looks itself
            with told(self.base.card.name):
                passed(rows, self._opened, [self.tensor], keep)
        for i, value in enumerate(found):
            if not np.isfinite(value).all():
                raise ModelError(
                    f"{self.base.card.name} gives no finite numbers for content number {i + 1} of the call."
                )
        return found

    def numbers(self, n: int, t: int) -> dict[str, NDArray[Any]]:
        """What the upper half takes beside states and mask, for a batch of n rows of t places: integers, by name."""
        terms = np.array([1, n, t, n * t], np.int64)
        found: dict[str, NDArray[Any]] = {name: np.asarray(factors @ terms) for name, factors in self.crossing.items()}
        found.update((name, shapes.side(name, n, t).astype(dtype)) for name, dtype in self.sides.items())
        return found

    @cached_property
    def _upper(self) -> Any:
        return shapes.session(self.above, None)

    def features(self, states: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """The features (n, width of the cut) that ONNX Runtime makes of states: those `base.encode` gives, unit length."""
        made = np.empty((len(states), sum(part.width for part in self.parts)), np.float32)
        lengths = np.array([len(one) if self.kind in PADDED else BATCH for one in states], np.int64)
        names = list(dict.fromkeys(part.tensor for part in self.parts))
        for batch in runtime.batches(lengths, 1):
            feeds = self.feeds(np.stack([states[i] for i in batch]))
            values = dict(zip(names, shapes.run(self._upper, names, feeds), strict=True))
            units = [
                places.max(axis=1) if part.largest else places.mean(axis=1)
                for part in self.parts
                for places in [laid(values[part.tensor], part, len(batch))]
            ]
            units = [one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), cutting.TINY) for one in units]
            made[batch] = np.concatenate(units, axis=1) / np.float32(np.sqrt(len(units)))
        return made

    def feeds(self, states: NDArray[np.float32], mask: NDArray[np.int64] | None = None) -> dict[str, NDArray[Any]]:
        """The inputs of the upper half for a batch of states that lie row after row: (n, t, d) for tokens, stream and
        turned, and as they are for the others. `mask` (n, t): where a row holds something; None: everywhere.
        """
        n, t = len(states), states.shape[1] if self.kind in PADDED else 0
        found = self.numbers(n, t)
        if self.kind == "stream":
            states = states.reshape(-1, self.width)
        elif self.kind == "turned":
            states = states.swapaxes(0, 1)
        found[self.tensor] = states
        if self.masked:
            found[MASK] = np.ones((n, t), np.int64) if mask is None else mask
        return found


def laid(value: NDArray[np.float32], part: Part, n: int) -> NDArray[np.float32]:
    """A part's tensor of n rows, row after row: (n, places, width)."""
    if part.kind == "map":
        value = value.transpose(0, 2, 3, 1)
    return (value.swapaxes(0, 1) if part.kind == "turned" else value).reshape(n, -1, part.width)


def halved(base: Backbone, tap: str) -> Halves:
    """A backbone cut in two at one of its taps, below the deepest part of its cut.

    A transformer without a mask is given one, where padding then changes nothing. Raises InputError where there is no
    network in float32, no such tap, or nothing above it that could be trained.
    """
    base = MiniLM("float32", base.cut) if isinstance(base, MiniLM) else base
    reader, name = _reader(base), base.card.name
    if base.card.precision != "float32":
        raise InputError(f"{name} is in {base.card.precision}, and only a network in float32 can be trained.")
    if isinstance(reader, Network) and reader.description.alone:
        raise InputError(
            f"{name} takes its rows one by one, because together they change one another: it cannot be trained."
        )
    found: list[Found] = base.found  # type: ignore[attr-defined]  # _reader has looked
    place, upper, parts = _places(base, tap, found)
    model = base.graph()  # type: ignore[attr-defined]
    below, above = _cut(model, place, [part.tensor for part in parts])
    if any(tensor.data_type in HALF for tensor in above.graph.initializer):
        raise InputError(f"the weights of {name} are no float32 numbers: it cannot be trained.")
    if not any(tensor.data_type == FLOAT and len(tensor.dims) for tensor in above.graph.initializer):
        raise InputError(f"no weights are above tap {tap} that the cut {base.card.cut} needs: choose a tap below.")
    if isinstance(reader, Network):
        inlined(above, reader.folder)
    sides = {v.name: shapes.DTYPES[flow.kind(v)] for v in above.graph.input if v.name in flow.SIDES}
    names = [v.name for v in above.graph.input if v.name not in (place.tensor, *flow.SIDES)]
    blocks = max(1, len(upper))
    recipe = jsontext.write([VERSION, base.at(tap).card.fingerprint, place.tensor, place.kind])
    made = Halves(
        base=base, tap=tap, blocks=blocks, above=above, tensor=place.tensor, kind=place.kind, width=place.width,
        parts=parts, masked=False, fingerprint=hashlib.sha256(recipe.encode()).hexdigest(),
        depth=_depth(above, upper, blocks), below=_filled(cutting.pruned(below, [place.tensor], [below.graph.output[0]]), model),
        crossing=_crossing(model, below, names, tap, reader), sides=sides,
    )  # fmt: skip
    if place.kind not in PADDED or base.card.modality != "text":
        return made  # pictures have equally many places
    others = {name: dtype for name, dtype in sides.items() if name != MASK}
    masked = replace(made, above=above if MASK in sides else with_mask(made), masked=True, sides=others)
    return masked if _apart(masked) else made


def choices(base: Backbone) -> dict[str, int]:
    """The taps that a backbone can be halved at, as far as is known without opening its graph -> the blocks above.

    {} where there is nothing that could be trained.
    """
    if not isinstance(base, MiniLM) and base.card.precision != "float32":
        return {}
    try:
        reader = _reader(base)
    except InputError:
        return {}
    if isinstance(reader, Network) and reader.description.alone:
        return {}
    found: list[Found] = base.found  # type: ignore[attr-defined]  # _reader has looked
    chosen = [found.index(place) for place, _ in cutting.parts(base.card.cut, found)]
    deepest, first = found[max(chosen)], min(chosen)
    return {
        place.name: max(1, len([at for at in found[i + 1 : max(chosen) + 1] if at.name != "top"]))
        for i, place in enumerate(found[:max(chosen)])
        if i <= first and place.parameters < deepest.parameters
    }  # fmt: skip


def _places(base: Backbone, tap: str, found: Sequence[Found]) -> tuple[Found, list[Found], tuple[Part, ...]]:
    """The tap, the taps above it up to the deepest that the cut needs, and the cut's parts. Raises InputError."""
    cut = base.card.cut
    chosen = cutting.parts(cut, found)
    order = {place.name: i for i, place in enumerate(found)}
    if tap not in order:
        raise InputError(f"{base.card.name} has no tap {tap!r}.{near(tap, order)}")
    deepest = max(order[part.name] for part, _ in chosen)
    if order[tap] >= deepest:
        raise InputError(
            f"nothing is above tap {tap} that the cut {cut} needs: choose a tap below {found[deepest].name}."
        )
    if lower := [part.name for part, _ in chosen if order[part.name] < order[tap]]:
        rest = [name for name, (at, _) in zip(cut.split("+"), chosen, strict=True) if at.name not in lower]
        raise InputError(
            f"the cut {cut} also takes tap {lower[0]}, which is below tap {tap}: choose tap {lower[0]} or one below it, "
            f"or the cut {'+'.join(rest)}."
        )
    parts = tuple(Part(part.tensor, part.kind, part.width, largest) for part, largest in chosen)
    return found[order[tap]], [at for at in found[order[tap] + 1 : deepest + 1] if at.name != "top"], parts


def _reader(base: Any) -> MiniLM | Network:
    """The backbone that reads contents: itself, or what a tuned one was made from. Raises InputError."""
    reader = base
    while not isinstance(reader, MiniLM | Network):
        if not (hasattr(reader, "base") and hasattr(reader, "graph")):
            raise InputError(f"{base.card.name} has no network that could be trained: choose another base.")
        reader = reader.base
    return reader


def _cut(model: Any, tap: Found, tensors: Sequence[str]) -> tuple[Any, Any]:
    """The lower half, hollow, and the upper one, whose outputs are some tensors, unpooled, each once."""
    from onnx import TensorProto, helper

    tensors = list(dict.fromkeys(tensors))
    joint = _hollow(model)
    joint.graph.node.append(helper.make_node("Sum", tensors, [JOINED]))  # what needs them all, for a moment
    joint.graph.output.append(helper.make_tensor_value_info(JOINED, TensorProto.FLOAT, None))
    below, above = cutting.halves(joint, tap, JOINED)
    _filled(above, model)
    del above.graph.node[next(i for i, node in enumerate(above.graph.node) if JOINED in node.output)]
    above.graph.ClearField("output")
    above.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
    for value in above.graph.input:
        if value.name == MASK and flow.kind(value) != TensorProto.INT64:
            inner, kind = f"{OURS}given mask", flow.kind(value)
            for node in above.graph.node:
                node.input[:] = [inner if name == value.name else name for name in node.input]
            above.graph.node.insert(0, helper.make_node("Cast", [value.name], [inner], to=kind))
            value.type.tensor_type.elem_type = TensorProto.INT64
    return below, above


def with_mask(halves: Halves) -> Any:
    """The upper half with a mask that it was exported without: a large negative number is added to what each softmax
    over t places, (n, t, t) or (n, heads, t, t), takes of places that hold nothing (Vaswani et al. 2017, section 3.2.3).
    """
    from onnx import TensorProto, helper, numpy_helper

    above = type(halves.above)()
    above.CopyFrom(halves.above)
    taken = [node.input[0] for node in above.graph.node if node.op_type == "Softmax"]
    n, t = 3, 5
    feeds = halves.feeds(np.zeros((n, t, halves.width), np.float32))
    seen = shapes.observe(above, taken, [feeds], None)[0][0] if taken else {}
    biases = {rank: f"{OURS}bias{rank}" for rank in (3, 4)}  # by the rank of the scores
    numbers: dict[str, Any] = {"one": np.float32(1), "far": np.float32(FAR)}
    numbers |= {f"shape{rank}": np.array([0, *[1] * (rank - 2), -1], np.int64) for rank in biases}
    nodes = [
        helper.make_node("Constant", [], [OURS + name], value=numpy_helper.from_array(np.asarray(value)))
        for name, value in numbers.items()
    ]
    nodes += [
        helper.make_node("Cast", [MASK], [f"{OURS}mask"], to=TensorProto.FLOAT),
        helper.make_node("Sub", [f"{OURS}one", f"{OURS}mask"], [f"{OURS}nothing"]),
        helper.make_node("Mul", [f"{OURS}nothing", f"{OURS}far"], [f"{OURS}far off"]),
        *(
            helper.make_node("Reshape", [f"{OURS}far off", f"{OURS}shape{rank}"], [bias])
            for rank, bias in biases.items()
        ),
    ]
    for node in above.graph.node:
        shape = seen.get(node.input[0], ()) if node.op_type == "Softmax" else ()
        if len(shape) in biases and shape[0] == n and shape[-2:] == (t, t):
            scores = f"{OURS}scores {node.output[0]}"
            nodes.append(helper.make_node("Add", [node.input[0], biases[len(shape)]], [scores]))
            node.input[0] = scores
        nodes.append(node)
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    above.graph.ClearField("node")
    above.graph.node.extend(copies)
    above.graph.input.append(helper.make_tensor_value_info(MASK, TensorProto.INT64, ["n", "t"]))
    return above


def _apart(halves: Halves) -> bool:
    """Whether a padded row gives what it gives alone, in every part: seen on made-up states."""
    states = np.random.default_rng(0).standard_normal((2, 5, halves.width)).astype(np.float32)
    states[1, 3:] = 0
    names = list(dict.fromkeys(part.tensor for part in halves.parts))
    together = halves.feeds(states, np.array([[1] * 5, [1] * 3 + [0] * 2], np.int64))
    many, one = (shapes.run(halves._upper, names, feeds) for feeds in (together, halves.feeds(states[1:, :3])))
    for part in halves.parts:
        padded, alone = (laid(values[names.index(part.tensor)], part, n) for values, n in ((many, 2), (one, 1)))
        if np.abs(padded[1, : alone.shape[1]] - alone[0]).max() > APART * max(1.0, float(np.abs(alone).max())):
            return False
    return True


def _hollow(model: Any) -> Any:
    """A copy whose initialisers have names and shapes and hold nothing: cutting copies a graph some times."""
    new = type(model)(ir_version=model.ir_version, producer_name=model.producer_name)
    new.opset_import.extend(model.opset_import)
    new.graph.name = model.graph.name
    for what in ("node", "input", "output"):
        getattr(new.graph, what).extend(getattr(model.graph, what))
    for tensor in model.graph.initializer:
        new.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    return new


def _filled(part: Any, model: Any) -> Any:
    """A part of a hollow copy, its initialisers those of the model."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for tensor in part.graph.initializer:
        tensor.CopyFrom(tensors[tensor.name])
    return part


def _depth(above: Any, upper: Sequence[Found], blocks: int) -> dict[str, int]:
    """For every initialiser of the upper half the block above the tap that first needs it."""
    known = [tensor.name for tensor in above.graph.initializer]
    depth = dict.fromkeys(known, blocks)
    for number in range(len(upper), 0, -1):
        needed = flow.ancestors(above.graph.node, [upper[number - 1].tensor])
        used = {name for i in needed for name in takes(above.graph.node[i])}
        depth.update(dict.fromkeys(used & depth.keys(), number))
    return depth


def _crossing(
    model: Any, below: Any, names: Sequence[str], tap: str, reader: MiniLM | Network
) -> dict[str, NDArray[np.int64]]:
    """What crosses the cut, as sums of 1, n, t and n * t, each element of it. Raises InputError where it is none."""
    if not names:
        return {}

    def refused(name: str, what: str) -> InputError:
        return InputError(
            f"{reader.card.name} cannot be trained above tap {tap}, its graph carries {what} ({name}) across the cut: "
            "choose tap 0, or another base."
        )

    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    for name in names:
        if makers[name] not in ("Shape", "Size"):
            raise refused(name, f"what {makers[name]} makes of the content")
    how = None if isinstance(reader, MiniLM) else reader.preprocessing
    small = _filled(cutting.pruned(below, names, [v for v in below.graph.output if v.name in names]), model)
    folder: Path | None = getattr(reader, "folder", None)
    opened, taken = shapes.session(small, folder), {v.name for v in small.graph.input}
    seen: dict[str, list[NDArray[np.int64]]] = {name: [] for name in names}
    for n, t in (*SIZES, *CHECKS):
        feed = shapes.feed(model, reader.card.modality, n, t, (how.height, how.width) if how else None, 2, seed=n)
        values = shapes.run(opened, names, {name: value for name, value in feed.items() if name in taken})
        for name, value in zip(names, values, strict=True):
            seen[name].append(value)
    found = {}
    terms = np.array([[1, n, t, n * t] for n, t in (*SIZES, *CHECKS)], np.float64)
    for name, values in seen.items():
        if len({value.shape for value in values}) > 1:
            raise refused(name, "numbers that change with the content")
        stacked = np.stack(values)  # (sizes, ...)
        flat = stacked.reshape(len(terms), -1)
        factors = np.round(np.linalg.solve(terms[: len(SIZES)], flat[: len(SIZES)])).astype(np.int64)  # (4, elements)
        if (terms.astype(np.int64) @ factors != flat).any():
            raise refused(name, "numbers that are no sums of rows and places")
        found[name] = factors.T.reshape(*stacked.shape[1:], len(SIZES))
    return found
