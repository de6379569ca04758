"""How content flows through a graph: from which input, to which output, and through which tensors all of it passes.

Content is what is made of the data input by arithmetic. A shape, a comparison or the place of a largest number taken
of it is not content: masks and positions are made of these, and reach into every block of a transformer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.errors import ModelError
from headstart.graph.reading import said, takes

_WITHOUT_CONTENT = """
    Shape Size Equal Less LessOrEqual Greater GreaterOrEqual Not And Or Xor IsNaN IsInf NonZero ArgMax ArgMin
    ConstantOfShape EyeLike
"""
WITHOUT_CONTENT = frozenset(_WITHOUT_CONTENT.split())
SIDES = ("attention_mask", "token_type_ids", "position_ids")  # they say something about the data, and are not it
TEXT, PICTURE = ("input_ids",), ("pixel_values", "input", "images", "image")
EMBEDDINGS = ("sentence_embedding", "image_embeds", "text_embeds", "image_embedding", "text_embedding", "embeddings")
FEW = 32  # numbers a row are no feature
HIDDEN = re.compile(r"hidden_states|attentions|past|present")
CLASSES = re.compile(r"logits|prob|softmax|class", re.IGNORECASE)


@dataclass(frozen=True)
class Flow:
    """The way from the data input to one output."""

    data: str
    output: str
    nodes: tuple[int, ...]  # of the graph, in order, on a way from the data to the output
    content: frozenset[str]  # tensors made of the data
    joints: tuple[str, ...]  # every way passes through each of them; in order; the output is the last


def inputs(model: Any) -> list[Any]:
    """The inputs that must be given: those without a default value."""
    known = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in known]


def kind(value: Any) -> int:
    """ONNX data type of an input or output."""
    return int(value.type.tensor_type.elem_type)


def dims(value: Any) -> list[int | None] | None:
    """The declared shape, None where a dimension is free; None when nothing is declared."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    return [d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim]


def data(model: Any, modality: str | None = None) -> Any:
    """The input that carries the content. Raises ModelError when no input or more than one could be it."""
    from onnx import TensorProto as T

    given = inputs(model)
    texts = [v for v in given if v.name in TEXT]
    pictures = [v for v in given if kind(v) in (T.FLOAT, T.FLOAT16, T.UINT8) and len(dims(v) or ()) == 4]
    rest = [v for v in given if v.name not in SIDES]
    for found in {"text": [texts], "image": [pictures]}.get(modality or "", [texts, pictures]):
        if len(found) == 1:
            return found[0]
    if len(rest) == 1 and modality is None:
        return rest[0]
    if modality == "text" and len(rest) == 1 and kind(rest[0]) in (T.INT64, T.INT32):
        return rest[0]
    names = ", ".join(said(v.name) for v in given[:8]) or "none"
    wanted = {"text": "token numbers input_ids", "image": "one picture (n, 3, h, w)"}.get(modality or "", "content")
    raise ModelError(f"none of its inputs is known to be {wanted}: it has {names}.")


def carried(nodes: Iterable[Any], data: str) -> frozenset[str]:
    """The tensors that carry content."""
    found = {data}
    for node in nodes:
        if node.op_type not in WITHOUT_CONTENT and any(name in found for name in takes(node)):
            found.update(name for name in node.output if name)
    return frozenset(found)


def ancestors(nodes: Sequence[Any], wanted: Iterable[str], stop: Iterable[str] = ()) -> list[int]:
    """Numbers of the nodes that `wanted` tensors need, in order; what is in `stop` is taken as given."""
    given = set(stop)
    needed, found = set(wanted) - given, []
    for i in range(len(nodes) - 1, -1, -1):
        if any(name in needed for name in nodes[i].output):
            found.append(i)
            needed.update(name for name in takes(nodes[i]) if name not in given)
    return found[::-1]


def joints(nodes: Sequence[Any], path: Sequence[int], content: frozenset[str], data: str, output: str) -> list[str]:
    """The tensors through which every way from the data to the output passes, in order, without the data itself.

    On the way every node is before or after a joint, whatever the order, or a way would lead around it. So a tensor is
    a joint exactly when, once its node has run, it is the only one that something later still waits for.
    """
    last = {name: i for i in path for name in takes(nodes[i]) if name in content}
    last[output] = len(nodes)
    open_: set[str] = {data}
    found: list[str] = []
    for i in path:
        open_.update(name for name in nodes[i].output if last.get(name, -1) > i)
        open_ -= {name for name in takes(nodes[i]) if last.get(name) == i}
        if len(open_) == 1:
            found += open_
    return found


def flow(model: Any, output: str, modality: str | None = None) -> Flow:
    """The way to an output. Raises ModelError when it does not depend on the data."""
    nodes, start = model.graph.node, data(model, modality).name
    content = carried(nodes, start)
    if output not in content:
        raise ModelError(f"its output {said(output)} does not depend on {said(start)}.")
    needed = set(ancestors(nodes, [output]))
    reaching, path = {output}, []
    for i in range(len(nodes) - 1, -1, -1):  # content only: a way through a mask is no way
        node = nodes[i]
        read = [name for name in takes(node) if name in content]
        if i in needed and read and node.op_type not in WITHOUT_CONTENT and reaching & set(node.output):
            path.append(i)
            reaching.update(read)
    path.reverse()
    return Flow(start, output, tuple(path), content, tuple(joints(nodes, path, content, start, output)))


def chosen(model: Any, ranks: dict[str, int], widths: dict[str, int | None], modality: str | None = None) -> str:
    """The output that is the network's own feature: an embedding before states, states before classes.

    `ranks` and `widths` (the last dimension) of the outputs are observed ones. Raises ModelError.
    """
    nodes, start = list(model.graph.node), data(model, modality).name
    content = carried(nodes, start)
    names = [value.name for value in model.graph.output if value.name in content]
    if not names:
        raise ModelError(f"no output depends on {said(start)}.")

    def order(name: str) -> tuple[int, int]:
        depth = len(ancestors(nodes, [name]))
        if classes(model, name, ranks[name], widths[name]):
            return 0, depth
        if ranks[name] not in (2, 3, 4) or HIDDEN.search(name.replace("last_hidden_state", "")):
            return 1, -depth
        if name in EMBEDDINGS:
            return 5, -EMBEDDINGS.index(name)
        if ranks[name] == 2:  # the pooler of a BERT was trained for another task, those of vision networks are meant
            return (2 if modality == "text" and "pooler" in name else 4), depth
        return 3, depth

    return str(max(names, key=order))


def classes(model: Any, output: str, rank: int, width: int | None) -> bool:
    """Whether an output holds scores of classes, not a feature: by its name, by what makes it, by how many there are."""
    maker = next((node.op_type for node in model.graph.node if output in node.output), "")
    known = rank == 2 and width is not None and (width in (1000, 1001, 21841, 21843) or width < FEW)
    return known or CLASSES.search(output) is not None or maker in ("Softmax", "LogSoftmax")
