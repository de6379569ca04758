"""What a source does not say of itself: a card in TOML; and what a graph says: its inputs, and the files beside it.

licence = "MIT"                 SPDX, or the name of the terms
modality = "image"              or "text"
name = "my-cells"
file = "onnx/model.onnx"        which ONNX file of several
cut = "top"
tokens = 128                    a text is cut after so many
prefix = "query: "              put before every text
notes = ["trained on slides of one hospital"]

[preprocessing]                 of pictures
width = 224
height = 224
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.errors import InputError, ModelError, NotFound, near
from headstart.hub import layout
from headstart.preprocessing import Preprocessing

LIMIT = 64 << 10  # bytes of a card
_TEXTS = ("licence", "modality", "name", "file", "cut", "prefix")


@dataclass(frozen=True)
class Card:
    """What somebody says of a source; None: nothing."""

    licence: str | None = None
    modality: str | None = None
    name: str | None = None
    file: str | None = None
    cut: str | None = None
    prefix: str | None = None
    tokens: int | None = None
    preprocessing: Preprocessing | None = None
    notes: tuple[str, ...] = ()
    fallback: str = "unknown"  # the licence where neither the card nor the source states one
    hint: str | None = None  # the ONNX file to take where it is there


def read(path: Path) -> Card:
    """A card from a TOML file. Raises NotFound, InputError with the line to mend."""
    if not path.is_file():
        raise NotFound(f"there is no card {path}.")
    if path.stat().st_size > LIMIT:
        raise InputError(f"{path.name} has {path.stat().st_size:,} bytes; a card has at most {LIMIT:,}.")
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} is no TOML: {error}.") from error
    return of(found, path.name)


def of(found: Mapping[str, Any], where: str) -> Card:
    """A card of the values of a TOML table. Raises InputError."""
    known = {*_TEXTS, "tokens", "notes", "preprocessing"}
    for key, value in found.items():
        if key not in known:
            raise InputError(f"{where}: {key!r} is not known in a card.{near(key, known)}")
        if key in _TEXTS and (not isinstance(value, str) or len(value) > 500):
            raise InputError(f"{where}: {key} must be a text.")
    made = dict(found)
    if made.get("modality") not in (None, "text", "image"):
        raise InputError(f'{where}: modality {made["modality"]!r} is neither "text" nor "image".')
    tokens = made.get("tokens")
    if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, int) or not 1 <= tokens <= 1 << 16):
        raise InputError(f"{where}: tokens {tokens!r} is no whole number from 1 to 65,536.")
    notes = made.get("notes", [])
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise InputError(f"{where}: notes must be a list of texts.")
    made["notes"] = tuple(notes)
    if "preprocessing" in made:
        try:
            made["preprocessing"] = Preprocessing.from_facts(made["preprocessing"])
        except ValueError as error:
            raise InputError(f"{where}: preprocessing: {error}.") from error
    return Card(**made)


def outside(path: Path) -> list[str]:
    """The names of the files beside an ONNX file that hold its weights. Raises ModelError where they lead elsewhere."""
    import onnx
    from google.protobuf.message import DecodeError

    from headstart.graph import reading

    if what := layout.sniff(path):
        raise ModelError(f"{path.name} is {what}, whatever its name says; an ONNX file is needed.")
    if path.stat().st_size > reading.LIMIT:
        raise ModelError(f"{path.name} has {path.stat().st_size:,} bytes, and {reading.LIMIT:,} are allowed.")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (DecodeError, RecursionError, ValueError):
        raise ModelError(f"{path.name} is not an ONNX file, or it is damaged or nested too deeply.") from None
    if not model.graph.node:
        raise ModelError(f"{path.name} is not an ONNX file: it holds no graph.")
    names = {
        reading.external(tensor)["location"]
        for graph, _ in reading.graphs(model.graph)
        for tensor in reading.tensors(graph)
        if len(tensor.external_data) or tensor.data_location == tensor.EXTERNAL
    }
    if clash := names & {"model.onnx", "backbone.json", "tokenizer.json"}:
        raise ModelError(f"{path.name} names {clash.pop()!r} as the file of its weights.")
    return sorted(names)


def take(folder: Path, graph: str, new: Path) -> None:
    """Copy an ONNX file as model.onnx, and the files of its weights beside it."""
    path = layout.plain(folder / graph, folder)
    for name in outside(path):
        beside = (folder / graph).parent / name
        if not beside.is_file():
            raise ModelError(f"{graph} has its weights in {name}, which is not beside it.")
        shutil.copyfile(layout.plain(beside, folder), new / name)
    shutil.copyfile(path, new / "model.onnx")


def kind(path: Path, said: str | None) -> tuple[str, tuple[int | None, int | None]]:
    """("text" or "image", height and width of its pictures where the graph states them) of a graph's inputs.

    Raises InputError where the inputs are neither, or not what the card says; ModelError.
    """
    from headstart.graph import reading

    model = reading.load(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value.type.tensor_type for value in model.graph.input if value.name not in weights}
    found, shape = None, (None, None)
    if "input_ids" in inputs and not any("pixel" in name for name in inputs):
        found = "text"
    pictures = [one for one in inputs.values() if len(one.shape.dim) == 4]
    if len(inputs) == 1 and pictures:
        found = "image"
        dims = [d.dim_value if d.HasField("dim_value") else None for d in pictures[0].shape.dim]
        shape = (dims[1], dims[2]) if dims[3] == 3 else (dims[2], dims[3])
    if found is None or said not in (None, found):
        names = ", ".join(inputs) or "none"
        raise InputError(
            f"its inputs ({names}) are not those of {said or 'a text or picture'} network: input_ids (n, t), or one of "
            f"pictures (n, 3, h, w)."
        )
    return found, shape


def pictures(given: Card, said: layout.Said, stated: tuple[int | None, int | None]) -> Preprocessing:
    """How pictures are prepared: the card's word, else preprocessor_config.json's. Raises InputError."""
    if given.preprocessing is not None:
        made = given.preprocessing
    elif said.pictures:
        try:
            made = Preprocessing.from_hub(said.pictures)
        except ValueError as error:
            raise InputError(
                f"its preprocessor_config.json is not understood ({error}): state the preprocessing in a card and give it "
                f"with --card."
            ) from error
    else:
        raise InputError(
            "how pictures are prepared is not in the file: state it in a card (a TOML file with the table "
            "[preprocessing]: width, height, mean, std, resize) and give it with --card."
        )
    for side, want, have in (("height", stated[0], made.height), ("width", stated[1], made.width)):
        if want not in (None, 0, have):
            raise InputError(f"the network takes pictures of {side} {want}, and the preprocessing makes {have}.")
    return made
