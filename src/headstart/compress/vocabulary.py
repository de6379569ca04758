"""The vocabulary a user needs: pieces that no text of theirs, nor a near one, is made of leave the embedding table.

Kept are, in this order: special pieces, single letters and bytes (so that anything can still be spelled), every piece
of the user's texts, and up to `most` in all: half of what is left for the pieces nearest to those used, by the cosine
of their embeddings (other forms of the same words, words of the same matter), half for the most frequent of the rest.

Texts made of kept pieces have the same features as before; `tokenisers.py` says why. For a language
model of many languages: Abdaoui et al. 2020, "Load what you need", section 3; ours also keeps what is near.

Letters: V pieces, v of them kept, d channels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbone import Contents, Portable
from headstart.compress import tokenisers
from headstart.compress.surgery import Facts, arrays, copied, encode, makers, numbered, rebuilt, size, spread, users
from headstart.errors import InputError

MOST = 12_000
BLOCK = 1_024  # rows of a cosine table at a time
SAME = 1e-6
CHECKED = 64  # texts held against the unpruned network


def prune(portable: Portable, contents: Contents, *, most: int = MOST) -> tuple[Portable, Facts]:
    """The network with at most `most` pieces, or as many as the texts use where those are more.

    Raises InputError for pictures, for a tokeniser whose pieces cannot be dropped, and for a graph without one table
    of embeddings looked up by `input_ids`.
    """
    before = size(portable)
    if portable.modality != "text" or not portable.tokeniser:
        raise InputError("only a text network has a vocabulary to prune.")
    vocabulary = tokenisers.read(portable.tokeniser)
    made = copied(portable)
    name, _ = table(made.model)
    E = arrays(made.model)[name]  # (V, d)
    if max(vocabulary.pieces) >= len(E):
        raise InputError(
            f"the tokeniser has piece number {max(vocabulary.pieces):,}, the embedding table {len(E):,} rows."
        )
    used = {number for row in numbered(portable, [str(text) for text in contents]) for number in row}
    kept = chosen(vocabulary, E, used, most)
    said, old = tokenisers.rewritten(vocabulary, kept)
    rebuilt(made.model, list(made.model.graph.node), {name: E[old]})
    made = replace(made, tokeniser=said)
    _check(portable, made, contents)
    note = (
        f"{len(used):,} pieces are in the texts, {len(vocabulary.must):,} spell anything, "
        f"{len(kept) - len(used | vocabulary.must):,} are near or frequent; texts of kept pieces have the same features."
    )
    return made, Facts("vocabulary", before, size(made), len(old), len(vocabulary.pieces), (note,))


def _check(portable: Portable, made: Portable, contents: Contents) -> None:
    """Hold some of the texts, all of kept pieces, against the network as it was. Raises InputError where they differ."""
    some = spread(contents, CHECKED)
    if some and not np.allclose(encode(made, some), encode(portable, some), rtol=0, atol=SAME):
        raise InputError(
            "this network does more with token numbers than to look up embeddings; its vocabulary cannot be pruned."
        )


def table(model: Any) -> tuple[str, list[Any]]:
    """The name of the embedding table and the Gather nodes that look `input_ids` up in it. Raises InputError."""
    values = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    made = makers(model)
    found: dict[str, list[Any]] = {}
    for node in model.graph.node:
        if node.op_type == "Gather" and len(values.get(node.input[0], ())) == 2:
            source = node.input[1]
            while source in made and made[source].op_type in ("Cast", "Identity", "Reshape", "Flatten"):
                source = made[source].input[0]
            if source == "input_ids":
                found.setdefault(node.input[0], []).append(node)
    if len(found) != 1:
        raise InputError(f"{len(found)} embedding tables are looked up by input_ids in this network; one is needed.")
    [(name, nodes)] = found.items()
    if len(users(model)[name]) != len(nodes):
        raise InputError("the embedding table of this network has other uses; it cannot be changed.")
    return name, nodes


def chosen(vocabulary: tokenisers.Vocabulary, E: NDArray[Any], used: set[int], most: int) -> set[int]:
    """The numbers of the pieces that stay: what must, what is used, then what is near and what is frequent."""
    kept = vocabulary.closed(used | vocabulary.must)
    near = nearest(E, sorted(used - vocabulary.must), kept, vocabulary.order)
    for goal, candidates in (((len(kept) + most) // 2, near), (most, vocabulary.order)):
        for number in candidates:
            if len(kept) >= goal:
                break
            if number not in kept and len(more := vocabulary.closed({number}) | kept) <= most:
                kept = more
    return kept


def nearest(E: NDArray[Any], used: list[int], kept: set[int], order: tuple[int, ...]) -> list[int]:
    """Pieces that are not kept, those of the largest cosine to a used one first; E (V, d)."""
    rest = np.array([number for number in order if number not in kept], np.int64)
    if len(rest) == 0 or not used:
        return []
    unit = E.astype(np.float32) - E.mean(0, dtype=np.float32)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    anchors = unit[used].T
    best = np.concatenate([(unit[rest[i : i + BLOCK]] @ anchors).max(1) for i in range(0, len(rest), BLOCK)])
    return [int(number) for number in rest[np.argsort(-best, kind="stable")]]


def narrow(portable: Portable, kind: str = "int8") -> tuple[Portable, Facts]:
    """The embedding table in 8 bits, one step a piece, or in "float16". Raises InputError for another kind, or no table."""
    from onnx import TensorProto, helper

    before, made = size(portable), copied(portable)
    if kind not in ("int8", "float16"):
        raise InputError(f"an embedding table is held in int8 or float16, not {kind!r}.")
    name, gathers = table(made.model)
    E = arrays(made.model)[name]
    if E.dtype != np.float32:
        raise InputError(f"the embedding table is {E.dtype} already.")
    new: dict[str, Any] = {}
    nodes = [node for node in made.model.graph.node if node.output[0] not in {g.output[0] for g in gathers}]
    if kind == "int8":
        step = np.maximum(np.abs(E).max(1, keepdims=True), 1e-12) / 127  # (V, 1)
        new[f"{name}/int8"], new[f"{name}/step"] = np.rint(E / step).astype(np.int8), step.astype(np.float32)
    else:
        new[f"{name}/float16"] = E.astype(np.float16)
    for gather in gathers:
        ids, y = gather.input[1], gather.output[0]
        last = y if kind == "float16" else f"{y}/float"
        nodes.append(helper.make_node("Gather", [f"{name}/{kind}", ids], [f"{y}/{kind}"], name=f"{y}/{kind}", axis=0))
        nodes.append(helper.make_node("Cast", [f"{y}/{kind}"], [last], name=last, to=TensorProto.FLOAT))
        if kind == "int8":
            nodes.append(helper.make_node("Gather", [f"{name}/step", ids], [f"{y}/step"], name=f"{y}/step", axis=0))
            nodes.append(helper.make_node("Mul", [last, f"{y}/step"], [y], name=y))
    rebuilt(made.model, nodes, new)
    note = f"the embedding table of {len(E):,} pieces is held in {kind}."
    return made, Facts("narrow", before, size(made), len(E), len(E), (note,))
