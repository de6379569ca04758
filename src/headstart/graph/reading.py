"""Reading an ONNX file that nobody vouches for. Nothing is run; what is odd is refused, with its name.

Refused are: weights outside the file's own folder (ways up, absolute ways, links), unknown keys of external data (they
become attributes of Python objects in onnx itself: CVE-2026-34445), memory addresses in place of file names, operators
nobody knows, loops, random numbers, functions, graphs in graphs in graphs, cycles, names given twice, tensors whose
data are not as long as their dims say, and shapes that would fill a machine.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headstart.errors import ModelError, NotFound

LIMIT = 2**31 - 1  # bytes of one ONNX file: no more can be parsed
WEIGHTS = 2**35  # bytes of all weights together
ELEMENTS = 2**28  # of a tensor that the graph makes out of nothing
NODES = 100_000
DEPTH = 3  # graphs in graphs, as the branches of an If
OPSETS = range(8, 27)  # of the standard operators

_MICROSOFT = """
    Attention BiasAdd BiasGelu BiasSoftmax BiasSplitGelu DecoderMaskedMultiHeadAttention DequantizeLinear
    DynamicQuantizeMatMul EmbedLayerNormalization FastGelu FusedConv FusedGemm FusedMatMul FusedMatMulActivation
    GatherBlockQuantized Gelu GroupNorm GroupQueryAttention MatMulIntegerToFloat MatMulNBits MultiHeadAttention NhwcConv
    NhwcFusedConv NhwcMaxPool QAttention QEmbedLayerNormalization QGemm QLinearAdd QLinearAveragePool QLinearConcat
    QLinearConv QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid QLinearSoftmax
    QMoE QOrderedMatMul QuantizeLinear QuickGelu RelativePositionBias RotaryEmbedding SkipGroupNorm
    SkipLayerNormalization SkipSimplifiedLayerNormalization TransposeMatMul
"""
MICROSOFT = frozenset(_MICROSOFT.split())
LOOPS = frozenset({"Loop", "Scan", "SequenceMap"})
RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
OUTSIDE_ONNX = frozenset({"SimplifiedLayerNormalization"})  # standard for ONNX Runtime, not for ONNX
STANDARD, ONNXRUNTIME = ("", "ai.onnx"), ("com.microsoft",)
KEYS = frozenset({"location", "offset", "length", "checksum"})


def load(path: Path, *, limit: int = LIMIT) -> Any:
    """The onnx.ModelProto in a file of at most `limit` bytes; weights outside it stay there, and are known to fit.

    Raises NotFound, ModelError with the reason.
    """
    import onnx
    from google.protobuf.message import DecodeError

    path = Path(path)
    if not path.is_file():
        raise NotFound(f"{path} is not there.")
    size = path.stat().st_size
    if size > min(limit, LIMIT):
        raise ModelError(f"{path.name} has {size:,} bytes, and {min(limit, LIMIT):,} are allowed.")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (DecodeError, RecursionError, ValueError):
        raise ModelError(f"{path.name} is not an ONNX file, or it is damaged or nested too deeply.") from None
    try:
        check(model, path.parent)
    except ModelError as error:
        raise ModelError(f"{path.name}: {error}") from None
    return model


def check(model: Any, folder: Path | None = None) -> None:
    """Raise ModelError unless a graph is one that may be run; its nodes are put in an order in which they can be run.

    Weights outside the model must lie in `folder`, each as long as its dims say.
    """
    if not model.HasField("graph") or not model.graph.node:
        raise ModelError("it holds no graph.")
    _names(model)
    if len(model.functions):
        raise ModelError(f"it holds functions of its own, as {said(model.functions[0].name)}: export it without.")
    if len(model.training_info):
        raise ModelError("it holds a training graph: export it for inference.")
    opsets: dict[str, int] = {}
    for entry in model.opset_import:
        domain = "" if entry.domain in STANDARD else entry.domain
        if opsets.setdefault(domain, entry.version) != entry.version:
            raise ModelError(f"it names two versions of the operators {said(domain or 'ai.onnx')}.")
    if opsets.get("", 0) not in OPSETS:
        raise ModelError(f"opset {opsets.get('', 0)}: opsets {OPSETS[0]} to {OPSETS[-1]} are known.")
    total = 0
    for graph, depth in graphs(model.graph):
        if depth > DEPTH:
            raise ModelError(f"graphs are nested more than {DEPTH} deep.")
        if len(graph.sparse_initializer):
            raise ModelError("sparse weights are not read: export it with ordinary ones.")
        for value in (*graph.input, *graph.output, *graph.value_info):
            _declared(value)
        for node in graph.node:
            _operator(node, opsets)
        for tensor in tensors(graph):
            total += _tensor(tensor, folder)
            if total > WEIGHTS:
                raise ModelError(f"more than {WEIGHTS:,} bytes of weights.")
    if sum(len(graph.node) for graph, _ in graphs(model.graph)) > NODES:
        raise ModelError(f"more than {NODES:,} operations.")
    _made(model.graph)
    _order(model.graph, frozenset())


def _names(model: Any) -> None:
    """Raise ModelError unless every name is text: the parser gives bytes for what is not UTF-8."""
    found = [entry.domain for entry in model.opset_import]
    for graph, _ in graphs(model.graph):
        found += [thing.name for thing in (*graph.input, *graph.output, *graph.value_info, *graph.initializer)]
        for node in graph.node:
            found += [node.name, node.op_type, node.domain, *node.input, *node.output]
            found += [attribute.name for attribute in node.attribute]
    if any(not isinstance(name, str) for name in found):
        raise ModelError("a name in it is not UTF-8: the file is damaged.")


def said(name: str) -> str:
    """A name of a foreign file, fit to be printed."""
    name = str(name)
    return repr(name if len(name) <= 80 else name[:77] + "...")


def graphs(graph: Any) -> Iterator[tuple[Any, int]]:
    """A graph and those in it, each with its depth; at most one level too deep."""
    found = [(graph, 0)]
    while found:
        one, depth = found.pop()
        yield one, depth
        if depth <= DEPTH:
            for node in one.node:
                for attribute in node.attribute:
                    found += [
                        (g, depth + 1) for g in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
                    ]


def tensors(graph: Any) -> Iterator[Any]:
    """Every tensor that a graph holds itself: initialisers, and what its nodes have as attributes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor") or len(attribute.sparse_tensors):
                raise ModelError("sparse weights are not read: export it with ordinary ones.")
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def takes(node: Any) -> list[str]:
    """The names a node reads: its inputs, and what the graphs in it take from outside."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            own = {value.name for value in inner.input} | {tensor.name for tensor in inner.initializer}
            for one in inner.node:
                names += [name for name in takes(one) if name not in own]
                own |= set(one.output)
            names += [value.name for value in inner.output if value.name not in own]
    return names


def external(tensor: Any) -> dict[str, str]:
    """Where the data of a tensor lie outside its file. Raises ModelError on what is not a plain name beside it."""
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        if not isinstance(entry.value, str) or entry.key not in KEYS or entry.key in entries:
            raise ModelError(f"tensor {said(tensor.name)}: external data with the key {said(entry.key)}.")
        entries[entry.key] = entry.value
    location = entries.get("location", "")
    if not re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_. +=@()-]{0,199}", location) or set(location) <= {"."}:
        raise ModelError(
            f"tensor {said(tensor.name)}: its data are said to be in {said(location)}, and only a file beside the graph "
            "is read."
        )
    for key in ("offset", "length"):
        if not re.fullmatch(r"[0-9]{1,15}", entries.get(key, "0")):
            raise ModelError(f"tensor {said(tensor.name)}: {key} {said(entries[key])} of external data is no number.")
    return entries


def located(tensor: Any, folder: Path) -> tuple[Path, int, int]:
    """File, first byte and length of a tensor's external data, known to be there. Raises ModelError."""
    entries, size = external(tensor), nbytes(tensor)
    path = folder / entries["location"]
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        raise ModelError(f"the file {said(path.name)} with its weights is not beside it.") from None
    if not stat.S_ISREG(found.st_mode):
        raise ModelError(f"the weights {said(path.name)} are no plain file: links are not followed.")
    if found.st_nlink > 1:
        raise ModelError(f"the weights {said(path.name)} have {found.st_nlink} names (hard links): copy the file.")
    start, length = int(entries.get("offset", "0")), int(entries.get("length", str(size)))
    if length != size:
        raise ModelError(f"tensor {said(tensor.name)}: {length:,} bytes of data, and its dims need {size:,}.")
    if start + length > found.st_size:
        raise ModelError(
            f"tensor {said(tensor.name)}: its data end at byte {start + length:,} of {said(path.name)}, which has "
            f"{found.st_size:,}."
        )
    return path, start, length


def count(tensor: Any) -> int:
    """Elements of a tensor."""
    return math.prod(tensor.dims)


def bits() -> dict[int, int]:
    """Bits an element, by ONNX data type; texts and complex numbers are not among them."""
    from onnx import TensorProto as T

    sizes = {"FLOAT": 32, "DOUBLE": 64, "FLOAT16": 16, "BFLOAT16": 16, "BOOL": 8, "INT4": 4, "UINT4": 4}
    sizes |= {f"{sign}INT{n}": n for sign in ("", "U") for n in (8, 16, 32, 64)}
    sizes |= dict.fromkeys(("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"), 8)
    return {getattr(T, name): n for name, n in sizes.items()}


def nbytes(tensor: Any) -> int:
    """Bytes of a tensor's data, by its dims and type. Raises ModelError on dims or a type that cannot be."""
    if len(tensor.dims) > 16 or any(not 0 <= d < 2**40 for d in tensor.dims) or count(tensor) > WEIGHTS:
        raise ModelError(f"tensor {said(tensor.name)}: dims {list(tensor.dims)[:8]} cannot be.")
    width = bits().get(tensor.data_type)
    if width is None:
        raise ModelError(f"tensor {said(tensor.name)}: data type {tensor.data_type} is not read.")
    return -(-count(tensor) * width // 8)


def _tensor(tensor: Any, folder: Path | None) -> int:
    """Raise ModelError unless the data of a tensor are as long as its dims say; gives their bytes."""
    from onnx import TensorProto as T

    size = nbytes(tensor)
    if tensor.data_location == T.EXTERNAL or len(tensor.external_data):
        if tensor.data_location != T.EXTERNAL or tensor.HasField("raw_data"):
            raise ModelError(f"tensor {said(tensor.name)}: its data are both inside and outside.")
        if folder is None:
            raise ModelError(f"tensor {said(tensor.name)}: its data lie outside.")
        located(tensor, folder)
        return size
    if tensor.HasField("segment"):
        raise ModelError(f"tensor {said(tensor.name)} is in segments, which nobody writes.")
    if tensor.HasField("raw_data"):
        found, wanted = len(tensor.raw_data), size
    else:
        field = {T.FLOAT: "float_data", T.DOUBLE: "double_data", T.INT64: "int64_data"}.get(tensor.data_type)
        field = field or ("uint64_data" if tensor.data_type in (T.UINT32, T.UINT64) else "int32_data")
        packed = 2 if tensor.data_type in (T.INT4, T.UINT4) else 1
        found, wanted = len(getattr(tensor, field)), -(-count(tensor) // packed)
    if found != wanted:
        raise ModelError(
            f"tensor {said(tensor.name)}: dims {list(tensor.dims)[:8]} need {wanted:,} "
            f"{'bytes' if tensor.HasField('raw_data') else 'numbers'}, and there are {found:,}."
        )
    return size


def _declared(value: Any) -> None:
    """Raise ModelError on a declared shape that cannot be."""
    if not value.HasField("type"):
        return
    if not value.type.HasField("tensor_type"):
        raise ModelError(f"{said(value.name)} is not a tensor.")
    dims = [d.dim_value for d in value.type.tensor_type.shape.dim if d.HasField("dim_value")]
    if any(not 0 <= d < 2**31 for d in dims) or math.prod(max(1, d) for d in dims) > 4 * ELEMENTS:
        raise ModelError(f"{said(value.name)} is declared with the shape {dims[:8]}, which would fill a machine.")


def _operator(node: Any, opsets: dict[str, int]) -> None:
    """Raise ModelError on a node whose operator is not known, or not wanted."""
    import onnx

    domain, kind = "" if node.domain in STANDARD else node.domain, node.op_type
    if domain in ONNXRUNTIME:
        known = kind in MICROSOFT and domain in opsets
    elif domain == "":
        known = onnx.defs.has(kind, opsets[""], "") or kind in OUTSIDE_ONNX
    else:
        known = False
    if not known:
        raise ModelError(
            f"node {said(node.name)} is a custom operator, {said(f'{domain}.{kind}' if domain else kind)}, and only "
            "those of ONNX and of ONNX Runtime are run."
        )
    if kind in LOOPS:
        raise ModelError(f"node {said(node.name)} is a {kind}, which may run for ever.")
    if kind in RANDOM:
        raise ModelError(f"node {said(node.name)} ({kind}) draws random numbers: features must be the same each time.")


def _made(graph: Any) -> None:
    """Raise ModelError when a graph makes a tensor out of constants that would fill a machine."""
    from onnx import numpy_helper

    constants = {t.name: t for t in graph.initializer if count(t) <= 64}
    for node in graph.node:
        if node.op_type == "Constant" and node.output and node.attribute and node.attribute[0].HasField("t"):
            constants[node.output[0]] = node.attribute[0].t
    for node in graph.node:
        place = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1, "Range": 1}.get(node.op_type)
        if place is None or len(node.input) <= place or (known := constants.get(node.input[place])) is None:
            continue
        if known.data_location or count(known) > 64:
            continue
        values = numpy_helper.to_array(known).ravel().tolist()
        if math.prod(max(1, abs(v)) for v in values) > ELEMENTS:
            raise ModelError(f"node {said(node.name)} ({node.op_type}) makes {values[:8]} elements: too many.")


def _order(graph: Any, outer: frozenset[str]) -> None:
    """Put the nodes of a graph (and of those in it) in an order that can be run. Raises ModelError on cycles."""
    given = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    made: dict[str, int] = {}
    for i, node in enumerate(graph.node):
        if not any(node.output):
            raise ModelError(f"node {said(node.name)} has no output.")
        for name in node.output:
            if name and (name in made or name in given or name in outer):
                raise ModelError(f"two things are named {said(name)}.")
            if name:
                made[name] = i
    names = [value.name for value in graph.input]
    if len(set(names)) < len(names) or len({t.name for t in graph.initializer}) < len(graph.initializer):
        raise ModelError("two inputs or two weights have the same name.")
    known = outer | given
    waits: list[set[int]] = []
    users: dict[int, list[int]] = {}
    for i, node in enumerate(graph.node):
        waits.append({made[name] for name in takes(node) if name in made})
        for name in takes(node):
            if name not in made and name not in known:
                raise ModelError(f"node {said(node.name)} ({node.op_type}) reads {said(name)}, which is nowhere.")
        for before in waits[i]:
            users.setdefault(before, []).append(i)
    for value in graph.output:
        if value.name not in made and value.name not in known:
            raise ModelError(f"the output {said(value.name)} is nowhere.")
    if any(before >= i for i, first in enumerate(waits) for before in first):
        left = [len(first) for first in waits]
        order = [i for i, n in enumerate(left) if n == 0]
        for i in order:
            for user in users.get(i, ()):
                left[user] -= 1
                if left[user] == 0:
                    order.append(user)
        if len(order) < len(graph.node):
            stuck = next(node for node, n in zip(graph.node, left, strict=True) if n)
            raise ModelError(f"a cycle: node {said(stuck.name)} ({stuck.op_type}) waits for itself.")
        nodes = [graph.node[i] for i in order]
        copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
        graph.ClearField("node")
        graph.node.extend(copies)
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _order(inner, known | frozenset(made))


def inlined(model: Any, folder: Path) -> None:
    """Put the weights that lie outside a checked graph, in `folder`, into it. Raises ModelError when they do not fit."""
    from onnx import TensorProto

    size = sum(nbytes(tensor) for graph, _ in graphs(model.graph) for tensor in tensors(graph))
    if size > LIMIT:
        raise ModelError(f"its weights have {size / 1e9:.1f} GB, and an ONNX file holds at most 2.")
    for graph, _ in graphs(model.graph):
        for tensor in tensors(graph):
            if tensor.data_location != TensorProto.EXTERNAL:
                continue
            path, start, length = located(tensor, folder)
            with open(path, "rb") as file:
                file.seek(start)
                raw = file.read(length)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = raw
