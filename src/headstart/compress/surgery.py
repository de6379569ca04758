"""The tools of the room: what a graph's tensors hold, who makes and uses them, and what they are on the user's contents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbone import Contents, Portable
from headstart.errors import InputError

BUDGET = 512  # tokens in one run
PICTURES = 8  # pictures in one run
MOST_TOKENS = 4_096  # rows of an activation kept, spread evenly over those seen

Array = NDArray[Any]
Feed = dict[str, Array]


@dataclass(frozen=True)
class Facts:
    """What a step did, in numbers and a sentence or two."""

    step: str  # "fuse", "vocabulary", "narrow", "channels", "integers"
    bytes_before: int
    bytes_after: int
    kept: int  # of `of`, what the step counts: pieces, channels, layers
    of: int
    notes: tuple[str, ...] = ()


def size(portable: Portable) -> int:
    """Bytes of the weights and of the tokeniser."""
    return sum(nbytes(tensor) for tensor in portable.model.graph.initializer) + len(portable.tokeniser)


def nbytes(tensor: Any) -> int:
    """Bytes of an initialiser's values."""
    from onnx import helper

    return int(np.prod(tensor.dims)) * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def copied(portable: Portable) -> Portable:
    """A portable whose graph may be changed; constants made by nodes have become initialisers."""
    from onnx import numpy_helper

    model = type(portable.model)()
    model.CopyFrom(portable.model)
    nodes = []
    for node in model.graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and node.domain == "" and value is not None:
            model.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(value), node.output[0]))
        else:
            nodes.append(node)
    if len(nodes) < len(model.graph.node):
        put(model.graph, "node", nodes)
    return replace(portable, model=model)


def put(holder: Any, field: str, values: Iterable[Any]) -> None:
    """Replace a repeated field of a message."""
    chosen = [type(value).FromString(value.SerializeToString()) if hasattr(value, "SerializeToString") else value
              for value in values]  # fmt: skip
    holder.ClearField(field)
    getattr(holder, field).extend(chosen)


def arrays(model: Any) -> dict[str, Array]:
    """The initialisers by name."""
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def makers(model: Any) -> dict[str, Any]:
    """The node that makes a tensor."""
    return {name: node for node in model.graph.node for name in node.output}


def users(model: Any) -> dict[str, list[Any]]:
    """The nodes that use a tensor, once for each use."""
    found: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def attribute(node: Any, name: str, default: Any) -> Any:
    """An attribute of a node, or what it is where it is not written."""
    from onnx import helper

    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def rebuilt(model: Any, nodes: Sequence[Any], new: Mapping[str, Array]) -> None:
    """Give the graph these nodes and, besides its own initialisers, `new` ones; what nothing uses leaves.

    A new initialiser takes the place of one with its name. The order of the nodes is made right.
    """
    from onnx import numpy_helper

    graph = model.graph
    needed, kept = {output.name for output in graph.output}, []
    for node in reversed(ordered(nodes)):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    tensors = [t for t in graph.initializer if t.name in needed and t.name not in new]
    tensors += [
        numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in new.items() if name in needed
    ]
    put(graph, "node", kept[::-1])
    put(graph, "initializer", tensors)
    graph.ClearField("value_info")


def ordered(nodes: Sequence[Any]) -> list[Any]:
    """The nodes, each after those whose outputs it uses, else in the order given."""
    made_by = {name: i for i, node in enumerate(nodes) for name in node.output}
    done: set[int] = set()
    found: list[Any] = []
    for start in range(len(nodes)):
        stack = [start]
        while stack:
            i = stack[-1]
            before = [made_by[name] for name in nodes[i].input if name in made_by and made_by[name] not in done]
            if i in done:
                stack.pop()
            elif before:
                stack.extend(before)
            else:
                done.add(i)
                found.append(nodes[i])
                stack.pop()
    return found


def tokeniser(portable: Portable) -> Any:
    """The tokenizers.Tokenizer of a portable: no padding, cut at its length."""
    from tokenizers import Tokenizer

    found = Tokenizer.from_str(portable.tokeniser.decode("utf-8"))
    found.no_padding()
    if portable.tokens:
        found.enable_truncation(portable.tokens)
    else:
        found.no_truncation()
    return found


def numbered(portable: Portable, texts: Sequence[str]) -> list[list[int]]:
    """The token numbers of texts, at least one each, as the backbone counts them."""
    return [list(one.ids) or [0] for one in tokeniser(portable).encode_batch(list(texts))]


def feeds(portable: Portable, contents: Contents) -> Iterator[tuple[Array, Feed]]:
    """(row numbers, what the session takes) of batches: rows of equal length, or some pictures."""
    names = [given.name for given in portable.model.graph.input]
    if portable.modality == "text":
        if not all(isinstance(content, str) for content in contents):
            raise InputError("a text network is shrunk on texts; some contents are not str.")
        rows = numbered(portable, [str(content) for content in contents])
        lengths = np.array([len(row) for row in rows], np.int64)
        order = np.argsort(lengths, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
            if len(group) == 0 or lengths[group[0]] == 0:
                continue
            most = max(1, BUDGET // int(lengths[group[0]]))
            for part in np.array_split(group, -(-len(group) // most)):
                ids = np.array([rows[i] for i in part], np.int64)
                extra = {"attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
                yield part, {"input_ids": ids, **{name: extra[name] for name in names if name in extra}}
        return
    from headstart.modalities.image import decoded

    if portable.preprocessing is None:
        raise InputError("this picture network does not say how a picture becomes its input.")
    for part in np.array_split(np.arange(len(contents)), -(-len(contents) // PICTURES) or 1):
        if len(part) == 0:
            continue
        pixels = [portable.preprocessing.apply(decoded(contents[i])) for i in part]
        yield part, {names[0]: np.stack(pixels)}


def session(model: Any) -> Any:
    """An onnxruntime.InferenceSession on one core. Raises InputError where ONNX Runtime refuses the graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def encode(portable: Portable, contents: Contents) -> NDArray[np.float32]:
    """Features of n contents, (n, width) float32, by the graph alone; for measuring and tests."""
    run = session(portable.model)
    found: dict[int, Array] = {}
    for part, feed in feeds(portable, contents):
        found.update(zip(part.tolist(), run.run(["features"], feed)[0], strict=True))
    return np.stack([found[i] for i in range(len(contents))])


def seen(portable: Portable, tensors: Sequence[str], given: Sequence[Feed]) -> dict[str, NDArray[np.float32]]:
    """What inner tensors (..., K) are on some batches: (tokens, K) float32, at most MOST_TOKENS, evenly spread."""
    from onnx import ValueInfoProto

    model = type(portable.model)()
    model.CopyFrom(portable.model)
    outputs = {output.name for output in model.graph.output}
    model.graph.output.extend(ValueInfoProto(name=name) for name in tensors if name not in outputs)
    run = session(model)
    found: dict[str, list[Array]] = {name: [] for name in tensors}
    total = sum(next(iter(feed.values())).size for feed in given) if portable.modality == "text" else 0
    every = max(1, -(-total // MOST_TOKENS))
    for feed in given:
        for name, value in zip(tensors, run.run(list(tensors), feed), strict=True):
            found[name].append(value.reshape(-1, value.shape[-1])[::every])
    return {name: np.concatenate(values) for name, values in found.items()}


def spread(contents: Contents, most: int) -> list[Any]:
    """At most so many contents, spread evenly over those given."""
    if len(contents) == 0:
        return []
    rows = np.unique(np.linspace(0, len(contents) - 1, min(most, len(contents))).astype(int))
    return [contents[i] for i in rows.tolist()]
