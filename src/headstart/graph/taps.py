"""Where a graph can be cut, found in the graph itself: no list of architectures, no names of layers.

A tap is a tensor through which everything on the way from the input to the output passes (flow.joints), at the end of
a block or stage (blocks.ends). Shapes are seen by running the graph on a little made-up content of two sizes: the
dimensions that change tell rows and tokens from channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.errors import ModelError
from headstart.graph import blocks, costs, flow, freeing, shapes
from headstart.graph.reading import said, takes

SAME = 1e-4  # of the largest number: rows run together may differ so much from rows run alone
SUMS = frozenset({"Add", "Sum", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "QLinearAdd"})
KINDS = ("tokens", "map", "grid", "vector", "stream", "turned")


@dataclass(frozen=True)
class Found:
    """A tensor through which everything from the input to the output passes, at the end of a block."""

    name: str  # "0", "1", ...; "top" is the network's own output
    tensor: str
    kind: (
        str  # tokens (n, t, d), map (n, d, h, w), grid (n, h, w, d), vector (n, d), stream (n * t, d), turned (t, n, d)
    )
    width: int  # d
    parameters: int  # numbers in the weights below
    operations: float  # share of the whole below, 0 to 1
    size: int = 0  # bytes of the weights below


@dataclass(frozen=True)
class Anatomy:
    """What a graph is, as far as cutting it goes."""

    data: str  # the input with the content
    taps: tuple[Found, ...]  # from the input to the output
    top: Found | None  # the network's own output; None where it has no shape to pool
    classes: bool  # the output holds scores of classes, not a feature
    alone: bool  # rows must be run one by one
    words: int  # rows of the embedding of a text network, else 0
    parameters: int  # of the whole way to the output
    layout: str  # of the input: NCHW or NHWC for pictures, else ""
    dtype: str  # of the input: float32, float16, uint8, int64, ...


def find(model: Any, folder: Path | None = None, modality: str | None = None) -> list[Found]:
    """The taps of a graph whose weights are inside or in `folder`. Raises ModelError."""
    return list(anatomy(model, folder, modality).taps)


def anatomy(
    model: Any,
    folder: Path | None = None,
    modality: str | None = None,
    size: tuple[int, int] | None = None,
    longest: int | None = None,
) -> Anatomy:
    """Taps, output and habits of a graph; runs it a few times on made-up content.

    Pictures have `size` (height, width); one of the texts has `longest` tokens. Raises ModelError when the graph cannot
    be run on these, or has no output that depends on the content.
    """
    main = flow.data(model, modality)
    declared = flow.dims(main) or []
    tokens = len(declared) == 2 and flow.kind(main) in (6, 7)
    modality = modality or ("text" if tokens else None)
    if tokens and declared[1] is not None:
        raise ModelError(f"it takes texts of exactly {declared[1]} tokens: export it with a free sequence length.")
    words = _words(model, main.name) if tokens else 0
    trial = _Trial(freeing.freed(model, modality), folder, modality, size, words, (2, 3) if tokens else (1, 2))
    try:
        alone = not trial.independent()
    except ModelError:
        if not declared or declared[0] is None:
            raise
        alone = True
    if alone:
        if declared and (declared[0] or 1) > 1:
            raise ModelError(f"it takes exactly {declared[0]} rows at a time: export it with a free batch size.")
        trial = _Trial(model, folder, modality, size, words, (1, 1))
        trial.independent()
    if tokens and longest:
        trial.long(longest)
    return _described(trial, alone)


class _Trial:
    """A graph with made-up content of two sizes: n and t rows and tokens of each."""

    def __init__(
        self,
        model: Any,
        folder: Path | None,
        modality: str | None,
        size: tuple[int, int] | None,
        words: int,
        rows: tuple[int, int],
    ) -> None:
        self.model, self.folder, self.modality, self.words = model, folder, modality, words
        self.rows, self.lengths = rows, (5, 7)
        self.data = flow.data(model, modality).name
        self.feeds = [
            shapes.feed(model, modality, n, t, size, min(words or 2, 1000), seed)
            for seed, (n, t) in enumerate(zip(self.rows, self.lengths, strict=True))
        ]
        self.content = flow.carried(model.graph.node, self.data)
        self.output = ""

    def independent(self) -> bool:
        """Choose the output; whether a row alone gives what it gives among others. Raises ModelError."""
        opened = shapes.session(self.model, self.folder)
        names = [v.name for v in self.model.graph.output if v.name in self.content]
        values = dict(zip(names, shapes.run(opened, names, self.feeds[1]), strict=True))
        ranks = {name: value.ndim for name, value in values.items()}
        widths = {name: value.shape[-1] if value.ndim else None for name, value in values.items()}
        self.output = flow.chosen(self.model, ranks, widths, self.modality)
        together = values[self.output].astype(np.float64)
        if not np.isfinite(together).all():
            raise ModelError(f"its output {said(self.output)} is not finite on made-up content.")
        if together.ndim == 0 or together.shape[0] != self.rows[1]:
            return self.rows[1] == 1  # no row of its own for every row
        for i in range(self.rows[1]):
            one = {name: value[i : i + 1] for name, value in self.feeds[1].items()}
            apart = shapes.run(opened, [self.output], one)[0].astype(np.float64)
            if apart.shape != together[i : i + 1].shape:
                return False
            if np.abs(apart - together[i : i + 1]).max() > SAME * max(1e-3, float(np.abs(together).max())):
                return False
        return True

    def long(self, tokens: int) -> None:
        """Raise ModelError when a text of so many tokens cannot be run."""
        feed = shapes.feed(self.model, self.modality, 1, tokens, None, min(self.words or 2, 1000))
        try:
            shapes.run(shapes.session(self.model, self.folder), [self.output], feed)
        except ModelError as error:
            raise ModelError(f"it does not take texts of {tokens:,} tokens: {error}") from None


def _words(model: Any, data: str) -> int:
    """Rows of the table in which the token numbers are looked up; 0 where there is none."""
    tensors = costs.weights(model.graph)
    same = {data}
    for node in model.graph.node:
        if node.op_type in ("Cast", "Identity", "Reshape", "Flatten") and node.input[0] in same:
            same.update(node.output)
        elif node.op_type == "Gather" and node.input[1] in same and node.input[0] in tensors:
            return int(tensors[node.input[0]].dims[0])
        elif node.op_type == "EmbedLayerNormalization" and node.input[0] in same and node.input[2] in tensors:
            return int(tensors[node.input[2]].dims[0])
    return 0


def _described(trial: _Trial, alone: bool) -> Anatomy:
    model = trial.model
    nodes, tensors = list(model.graph.node), costs.weights(model.graph)
    way = flow.flow(model, trial.output, trial.modality)
    needed = flow.ancestors(nodes, [trial.output])
    made = [name for i in needed for name in nodes[i].output if name and not nodes[i].op_type.startswith("Sequence")]
    (first, second), types = shapes.observe(model, made, trial.feeds, trial.folder, way.joints)
    work = {
        i: costs.operations(nodes[i], {**first, trial.data: trial.feeds[0][trial.data].shape}, tensors) for i in needed
    }
    whole = sum(work.values()) or 1.0
    layouts = _layouts(nodes, way, first, trial)
    kinds = {
        name: _kind(first[name], second[name], trial, layouts.get(name, "")) if types.get(name) else ""
        for name in way.joints
    }

    def found(name: str, joint: str) -> Found:
        below = flow.ancestors(nodes, [joint])
        numbers, size = costs.parameters((nodes[i] for i in below), tensors)
        width = first[joint][1 if kinds[joint] == "map" else -1]
        return Found(name, joint, kinds[joint], width, numbers, sum(work[i] for i in below) / whole, size)

    joints, segments = list(way.joints), _segments(nodes, way, tensors, work, first, kinds, trial)
    if joints[-1] == trial.output and len(segments) > 1 and not kinds[trial.output]:
        joints, segments = joints[:-1], segments[:-1]
    ends = blocks.ends(segments)
    taps = tuple(found(str(number), joints[i]) for number, i in ends.items())
    if not taps and not kinds[trial.output]:
        raise ModelError("nothing in it can be pooled: no tensor that everything passes through has rows of channels.")
    output = first[trial.output]
    return Anatomy(
        data=trial.data,
        taps=taps,
        top=found("top", trial.output) if kinds[trial.output] else None,
        classes=flow.classes(model, trial.output, len(output), output[-1] if output else None),
        alone=alone,
        words=trial.words,
        parameters=costs.parameters((nodes[i] for i in needed), tensors)[0],
        layout=layouts.get(trial.data, ""),
        dtype=str(trial.feeds[0][trial.data].dtype),
    )


def _kind(a: Sequence[int], b: Sequence[int], trial: _Trial, layout: str) -> str:
    """What the dimensions of a joint are, from its shapes on two sizes of content; "" where they cannot be told."""
    (n, m), (t, u) = trial.rows, trial.lengths
    if len(a) != len(b) or 0 in a or layout == "second":
        return ""
    if len(a) == 2 and a[1] == b[1]:
        if (a[0], b[0]) == (n, m):
            return "vector"
        if a[0] % n == 0 and b[0] % m == 0 and (a[0] // n == b[0] // m or (a[0], b[0]) == (n * t, m * u)):
            return "stream"
    if len(a) == 3 and a[2] == b[2]:
        if (a[0], b[0]) == (n, m):
            return "tokens"
        if (a[1], b[1]) == (n, m):
            return "turned"
    if len(a) == 4 and (a[0], b[0]) == (n, m) and layout:
        kind, axis = ("map", 1) if layout == "NCHW" else ("grid", 3)
        return kind if a[axis] == b[axis] else ""
    return ""


def _layouts(nodes: Sequence[Any], way: flow.Flow, seen: Mapping[str, Sequence[int]], trial: _Trial) -> dict[str, str]:
    """Where the channels are: NCHW or NHWC for four dimensions, "second" for (n, d, t). Convolutions are NCHW here."""
    shape = trial.feeds[0][trial.data].shape
    found = {}
    if len(shape) == 4:
        found[trial.data] = "NHWC" if shape[3] in (1, 3) and shape[1] not in (1, 3) else "NCHW"
    for i in way.nodes:
        node = nodes[i]
        before = next((name for name in takes(node) if name in way.content), "")
        layout = next((found[name] for name in takes(node) if name in found), "")
        rank = len(seen.get(node.output[0], ()))
        source = seen.get(before, shape if before == trial.data else ())
        if node.op_type == "Transpose":
            order = next((list(a.ints) for a in node.attribute if a.name == "perm"), [])
            layout = {(0, 2, 3, 1): "NHWC", (0, 3, 1, 2): "NCHW"}.get(tuple(order), "" if rank < 4 else layout)
        elif node.op_type.startswith("Nhwc"):
            layout = "NHWC"
        elif "Conv" in node.op_type or node.op_type.endswith("Pool"):
            layout = "NCHW" if rank == 4 else layout
        elif node.op_type in ("Reshape", "Flatten", "Squeeze"):
            channels = seen[node.output[0]][1] if rank > 1 else 0
            if len(source) == 4 and rank == 3:
                layout = "second" if layout == "NCHW" and channels == source[1] != seen[node.output[0]][2] else ""
            elif len(source) == 3 and rank == 4:  # (n, t, d) of a grid, or the heads of an attention
                layout = "NCHW" if layout == "second" else "NHWC" if seen[node.output[0]][3] == source[2] else ""
            elif rank < 3:
                layout = ""
        elif rank < 3:
            layout = ""
        if layout:
            found.update((name, layout) for name in node.output if name)
    return found


def _segments(
    nodes: Sequence[Any],
    way: flow.Flow,
    tensors: Mapping[str, Any],
    work: Mapping[int, float],
    seen: Mapping[str, Sequence[int]],
    kinds: Mapping[str, str],
    trial: _Trial,
) -> list[blocks.Segment]:
    """What lies between the joints."""
    found, inside = [], []
    joints = iter(way.joints)
    joint = next(joints)
    for i in way.nodes:
        inside.append(i)
        if joint not in nodes[i].output:
            continue
        marks = []
        for k in inside:
            others = [name for name in takes(nodes[k]) if name not in way.content]
            used = [tuple(tensors[name].dims) if name in tensors else tuple(seen.get(name, ())) for name in others]
            marks.append((nodes[k].op_type, tuple(sorted(dims for dims in used if np.prod(dims) > 1))))
        dims, kind = seen[joint], kinds[joint]
        places = {"map": dims[2:], "grid": dims[1:3], "tokens": dims[1:2], "turned": dims[:1]}.get(kind, ())
        count = int(np.prod(places)) if places else (dims[0] // trial.rows[0] if kind == "stream" else 1)
        merges = nodes[i].op_type in SUMS and len({name for name in nodes[i].input if name in way.content}) > 1
        found.append(
            blocks.Segment(
                signature=tuple(sorted(marks)),
                outline=tuple(sorted(mark for mark in marks if any(len(dims) > 1 for dims in mark[1]))),
                operators=tuple(nodes[k].op_type for k in inside),
                work=sum(work.get(k, 0.0) for k in inside),
                places=count,
                kind=kind,
                merges=merges,
            )
        )
        inside = []
        joint = next(joints, "")
    return found
