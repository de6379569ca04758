"""What sets a tuned backbone apart from its base: tuned.json, read strictly, proved in the base's graph, and applied.

A changed tensor is given whole, or as NAME/up (rows, r) and NAME/down (r, columns), whose product is added to the
published NAME (Hu et al. 2021, LoRA, section 4.1).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import jsontext, tensors
from headstart.backbones.described import NAME
from headstart.errors import InputError, ModelError
from headstart.graph import cut as cutting
from headstart.graph import flow
from headstart.graph.reading import said, takes
from headstart.graph.taps import Found

FORMAT = 1
INDEX, ARRAYS = "tuned.json", "changed.safetensors"
LIMIT, LARGEST = 2**22, 2**31  # bytes of tuned.json, of changed.safetensors
MOST, DEEPEST = 4096, 64  # tensors, blocks
UP, DOWN = "/up", "/down"  # of a change of low rank
KEYS = frozenset({"format", "base", "tap", "blocks", "tensors"})
BASE = frozenset({"name", "precision", "cut", "fingerprint", "digest", "licence", "source", "revision"})
SHA = re.compile(r"[0-9a-f]{64}")

Values = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Tensor:
    """One array of the file, as tuned.json has it."""

    sha256: str  # of its values, little-endian float32, row after row
    shape: tuple[int, ...]
    block: int  # above the tap, 1 the first


@dataclass(frozen=True)
class Description:
    """What tuned.json holds."""

    base: Mapping[str, str | None]
    tap: str  # up to here the base is as published
    blocks: int  # above the tap, up to the deepest that the cut needs
    tensors: Mapping[str, Tensor]


def sha256(values: NDArray[np.float32]) -> str:
    """The digest of a tensor's values."""
    return hashlib.sha256(np.ascontiguousarray(values, "<f4").tobytes()).hexdigest()


def key(name: str) -> str:
    """An initialiser's name as the name of an array: letters that those do not have as their numbers between dashes."""
    made = re.sub(r"[^A-Za-z0-9_.]", lambda letter: f"-{ord(letter[0]):x}-", name)
    return made if 0 < len(made) <= 256 else hashlib.sha256(name.encode()).hexdigest()


def applied(model: Any, changed: Values) -> None:
    """Put new values into the initialisers of an onnx.ModelProto that holds its weights: W, or W + up @ down.

    What the model does not hold is left out: a graph that was cut has fewer. Raises ModelError on another shape.
    """
    from onnx import numpy_helper

    known = {tensor.name for tensor in model.graph.initializer}
    for tensor in model.graph.initializer:
        name = tensor.name
        if name in changed:
            new = changed[name]
        elif low_rank(name, changed, known):
            up, down = (changed[name + part].astype(np.float64) for part in (UP, DOWN))
            new = np.asarray(numpy_helper.to_array(tensor) + up @ down, np.float32)
        else:
            continue
        if new.shape != tuple(tensor.dims):
            raise ModelError(f"the new values of tensor {said(name)} are {new.shape}, and it is {tuple(tensor.dims)}.")
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(new, np.float32, order="C"), name))


def low_rank(name: str, changed: Container[str], known: Container[str]) -> bool:
    """Whether a tensor's change is one of low rank; an initialiser that happens to be called NAME/up is itself meant."""
    return all(name + part in changed and name + part not in known for part in (UP, DOWN))


def target(name: str, known: Container[str]) -> str:
    """The initialiser that a changed tensor is for: its own name, or what stands before /up or /down."""
    return name if name in known else name.removesuffix(UP) if name.endswith(UP) else name.removesuffix(DOWN)


def span(found: Sequence[Found], tap: str, cut: str) -> tuple[list[Found], int]:
    """The taps above a tap up to the deepest that a cut needs, and the number of blocks up to there.

    Raises InputError for a tap or a cut that is not there.
    """
    order = [place.name for place in found]
    below, needed = cutting.parts(tap, found)[0][0], [place for place, _ in cutting.parts(cut, found)]
    taps = [place for place in found[: max(order.index(place.name) for place in needed) + 1] if place.name != "top"]
    return taps[order.index(below.name) + 1 :], max(1, len(taps) - 1)


def blocks(model: Any, found: Sequence[Found], tap: str, cut: str) -> dict[str, int]:
    """For every initialiser that a cut needs its block above a tap, from 1; 0 where the tap needs it too.

    What follows the last tap counts as part of the last block. Raises InputError for a tap or a cut that is not there.
    """
    upper, nodes = span(found, tap, cut)[0], list(model.graph.node)
    known = {tensor.name for tensor in model.graph.initializer}

    def used(places: Sequence[Found]) -> set[str]:
        """The initialisers that some tensors are made with."""
        return {n for i in flow.ancestors(nodes, [p.tensor for p in places]) for n in takes(nodes[i])} & known

    block = dict.fromkeys(used([place for place, _ in cutting.parts(cut, found)]), max(1, len(upper)))
    for number in range(len(upper), 0, -1):
        block.update(dict.fromkeys(used([upper[number - 1]]) & block.keys(), number))
    block.update(dict.fromkeys(used([cutting.parts(tap, found)[0][0]]) & block.keys(), 0))
    return block


def proved(description: Description, model: Any, found: Sequence[Found]) -> None:
    """Raise ModelError unless every changed tensor is one of the base's graph, above the tap and not below it."""
    from onnx import TensorProto

    tap, cut, listed = description.tap, str(description.base["cut"]), description.tensors
    try:
        (upper, of), where = span(found, tap, cut), blocks(model, found, tap, cut)
    except InputError as error:
        raise ModelError(f"{INDEX}: {error}") from None
    if description.blocks != max(1, len(upper)):
        raise ModelError(
            f"{INDEX}: {description.blocks} blocks above tap {tap}, and up to cut {cut} there are {len(upper)}."
        )
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, entry in listed.items():
        one = target(name, weights)
        if one not in weights or not (one == name or low_rank(one, listed, weights)):
            raise ModelError(f"tensor {said(name)} is not in the graph of {description.base['name']}.")
        dims = tuple(weights[one].dims)
        if one == name:
            fits = entry.shape == dims
        else:
            up, down = listed[one + UP].shape, listed[one + DOWN].shape
            fits = len(up) == len(down) == 2 and up[1] == down[0] > 0 and (up[0], down[1]) == dims
        if one != name and one in listed:
            raise ModelError(f"tensor {said(one)} is changed twice, as a whole and by a low rank.")
        if not fits or weights[one].data_type != TensorProto.FLOAT:
            raise ModelError(f"tensor {said(name)} of shape {entry.shape} does not fit the base's {dims}.")
        if where.get(one, 0) == 0:
            what = f"below tap {tap}, where nothing may change" if one in where else f"above the cut {cut}"
            raise ModelError(
                f"tensor {said(one)} lies {what}: it is not in the last {max(1, len(upper))} of {of} blocks."
            )
        if where[one] != entry.block:
            raise ModelError(f"tensor {said(name)} lies in block {where[one]} above tap {tap}, not in {entry.block}.")


def load(folder: Path, description: Description) -> dict[str, NDArray[np.float32]]:
    """The changed tensors, each checked. Raises ModelError that names the one that is not what was trained."""
    path, listed = Path(folder) / ARRAYS, description.tensors
    _plain(path, LARGEST)
    arrays = tensors.load(path)
    if odd := sorted(set(arrays) ^ {key(name) for name in listed}):
        raise ModelError(f"{path}: array {odd[0]!r} is {'not known' if odd[0] in arrays else 'missing'}.")
    found = {}
    for name, entry in listed.items():
        values = arrays[key(name)]
        if values.dtype != np.float32 or values.shape != (
            entry.shape or (1,)
        ):  # a single number is saved as a row of one
            raise ModelError(
                f"{path}: tensor {said(name)} is {values.dtype} {values.shape}, not float32 {entry.shape}."
            )
        found[name] = values.astype(np.float32, copy=False).reshape(entry.shape)
        if sha256(found[name]) != entry.sha256:
            raise ModelError(f"{path}: tensor {said(name)} was changed since it was trained: its sha256 is another.")
    return found


def _plain(path: Path, most: int) -> None:
    """Raise ModelError unless there is a plain file of at most so many bytes."""
    if path.is_symlink() or not path.is_file():
        raise ModelError(f"{path.parent}: the file {path.name} is missing, or no plain file.")
    if path.stat().st_size > most:
        raise ModelError(f"{path} has more than {most:,} bytes.")


def read(folder: Path) -> Description:
    """The description in a folder. Raises ModelError."""
    path = Path(folder) / INDEX
    _plain(path, LIMIT)
    _plain(Path(folder) / ARRAYS, LARGEST)
    try:
        return parsed(jsontext.parse(path.read_bytes().decode("utf-8")), str(path))
    except (ValueError, UnicodeDecodeError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path}: {error}.") from None


def parsed(facts: Any, where: str) -> Description:
    """A description of facts, each checked. Raises ModelError with what is wrong."""

    def wrong(what: str) -> ModelError:
        return ModelError(f"{where}: {what}.")

    def fits(value: Any, keys: frozenset[str], what: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise wrong(f"{what} is no object")
        if odd := sorted(set(value) ^ keys):
            raise wrong(f"{what}: {odd[0][:80]!r} is {'missing' if odd[0] in keys else 'not known'}")
        return value

    facts = fits(facts, KEYS, "it")
    if facts["format"] != FORMAT or isinstance(facts["format"], bool):
        raise wrong(f"format {facts['format']!r}: this version of headstart reads {FORMAT}")
    base = fits(facts["base"], BASE, "base")
    for name, value in base.items():
        if not (isinstance(value, str) and 0 < len(value) <= 500) and not (name == "revision" and value is None):
            raise wrong(f"base: {name} must be text of 1 to 500 letters")
    if not all(SHA.fullmatch(base[name]) for name in ("fingerprint", "digest")) or base["precision"] != "float32":
        raise wrong("base: fingerprint and digest must be a sha256, precision float32")
    if not NAME.fullmatch(base["name"]):
        raise wrong(f"base: {base['name'][:80]!r} is no name of a base with a network")
    if not isinstance(facts["tap"], str) or not 0 < len(facts["tap"]) <= 20:
        raise wrong("tap must be the name of one")
    most, listed = facts["blocks"], facts["tensors"]
    if not _whole(most, 1, DEEPEST):
        raise wrong(f"blocks must be a number from 1 to {DEEPEST}")
    if not isinstance(listed, dict) or not 0 < len(listed) <= MOST:
        raise wrong(f"tensors must be an object of 1 to {MOST:,}")
    found = {}
    for name, entry in listed.items():
        what = f"tensors: {name[:80]!r}"
        entry = fits(entry, frozenset({"sha256", "shape", "block"}), what)
        shape = entry["shape"]
        if not 0 < len(name) <= 1000 or not isinstance(entry["sha256"], str) or not SHA.fullmatch(entry["sha256"]):
            raise wrong(f"{what} has no name or no sha256")
        if not isinstance(shape, list) or len(shape) > 8 or not all(_whole(n, 0, LARGEST) for n in shape):
            raise wrong(f"{what}: its shape cannot be")
        if not _whole(entry["block"], 1, most):
            raise wrong(f"{what}: its block must be a number from 1 to {most}")
        found[name] = Tensor(entry["sha256"], tuple(shape), entry["block"])
    if len({key(name) for name in found}) < len(found):
        raise wrong("two tensors have the same name")
    return Description(base, facts["tap"], most, found)


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
