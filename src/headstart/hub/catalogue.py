"""The catalogue: good backbones of the Hub, as their documentation states them; and those that are installed.

catalogue.toml says of every field where it was read (`checked`), and lists those that could not be verified
(`unverified`). Revision and digests are not in it: they are pinned at the first download (pins.py).
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from headstart import backbones
from headstart.backbones import described
from headstart.backbones.described import Description
from headstart.errors import ModelError, NotFound, near
from headstart.hub import cards, pins, speed

FILE = Path(__file__).parent / "catalogue.toml"


@dataclass(frozen=True)
class Entry:
    """One backbone of the catalogue. None: not stated by the documents that were read."""

    name: str
    source: str  # "hf:owner/name", or "built in"
    modality: str  # text | image
    about: str  # what it is good for, in a line
    checked: str  # the documents, and when they were read
    width: int | None = None
    depth: int | None = None  # blocks
    parameters: int | None = None
    licence: str = "unknown"
    size: int | None = None  # bytes of the file, about
    file: str | None = None  # the ONNX file that the repository carries
    base: str | None = None  # the repository that an ONNX copy was made of
    languages: str | None = None
    tokens: int | None = None
    pooling: str | None = None  # as documented: mean | cls
    prefix: str | None = None  # as documented, for features
    unverified: tuple[str, ...] = ()

    def filled(self, card: cards.Card) -> cards.Card:
        """A card with what the catalogue says where the card says nothing."""
        notes = [*card.notes]
        if self.pooling == "cls":
            notes.append("its authors take the first token's state as the feature; here it is the mean, as everywhere")
        if self.base:
            notes.append(f"an ONNX copy of {self.base}")
        return replace(
            card,
            hint=self.file,
            modality=card.modality or self.modality,
            prefix=card.prefix if card.prefix is not None else self.prefix,
            tokens=card.tokens or self.tokens,
            fallback=self.licence,
            notes=tuple(notes),
        )


_WHOLE = ("width", "depth", "parameters", "size", "tokens")
_NEEDED = ("name", "source", "modality", "about", "checked")


def _fits(key: str, value: Any) -> bool:
    if key in _WHOLE:
        return isinstance(value, int) and not isinstance(value, bool) and value > 0
    return isinstance(value, list) if key == "unverified" else isinstance(value, str) and value != ""


@cache
def entries() -> tuple[Entry, ...]:
    """The catalogue, in its order. Raises ModelError when the file in the package was damaged."""
    found = tomllib.loads(FILE.read_text("utf-8"))
    made: list[Entry] = []
    for table in found.get("backbone", []):
        known = set(Entry.__dataclass_fields__)
        where = f"{FILE.name}: {table.get('name', 'an entry without a name')}"
        if wrong := set(table) - known or set(_NEEDED) - set(table):
            raise ModelError(f"{where}: {sorted(wrong)[0]!r} is not known, or missing.")
        for key, value in table.items():
            if not _fits(key, value):
                raise ModelError(f"{where}: {key} = {value!r} cannot be.")
        unverified = tuple(table.get("unverified", ()))
        if table["modality"] not in ("text", "image") or not set(unverified) <= known:
            raise ModelError(f"{where}: modality {table['modality']!r}, unverified {unverified}.")
        made.append(Entry(**{**table, "unverified": unverified}))
    if len({entry.name for entry in made}) != len(made):
        raise ModelError(f"{FILE.name} has a name twice.")
    return tuple(made)


def find(name: str) -> Entry:
    """An entry by name. Raises NotFound with near names."""
    for entry in entries():
        if entry.name == name:
            return entry
    raise NotFound(f"the catalogue has no {name!r}.{near(name, (entry.name for entry in entries()))}")


def row(folder: Path, made: Description) -> dict[str, Any]:
    """One installed backbone as a row: no network is loaded for it."""
    files = dict(made.files)
    weights = [name for name in files if name not in ("tokenizer.json", "LICENSE", "README.md")]
    inside = [name for name in weights if name != made.graph] or weights
    depths = [int(place.name) for place in made.taps]
    return {
        "name": folder.name,
        "modality": made.modality,
        "width": sum(place.width for place in made.chosen(made.cut)),
        "depth": max(depths, default=None),
        "parameters": made.parameters,
        "licence": made.licence,
        "size": sum((folder / name).stat().st_size for name in weights),
        "source": made.source,
        "revision": made.revision,
        "digest": files[max(inside, key=lambda name: (folder / name).stat().st_size)],
        "precision": made.precision,
        "cut": made.cut,
        "speed": speed.measured().get(folder.name, {}).get("per_second"),
        "folder": str(folder),
    }


def installed(folder: Path | None = None) -> list[dict[str, Any]]:
    """The installed backbones as rows, by name; a damaged one has only name, folder and `fault`."""
    where = folder or backbones.folder()
    rows = []
    for path in sorted(where.iterdir()) if where.is_dir() else ():
        if path.name.startswith(".") or not (path / backbones.INDEX).is_file():
            continue
        try:
            rows.append(row(path, described.read(path)))
        except (ModelError, OSError) as error:
            rows.append({"name": path.name, "folder": str(path), "fault": str(error)})
    return rows


def listed() -> list[dict[str, Any]]:
    """The catalogue as rows, with what is pinned and whether it is installed: what `headstart backbones` shows."""
    there = {one["source"] for one in installed() if "source" in one}
    return [
        {
            "name": entry.name, "modality": entry.modality, "width": entry.width, "depth": entry.depth,
            "parameters": entry.parameters, "licence": entry.licence, "size": entry.size, "source": entry.source,
            "revision": pins.revision(entry.source), "about": entry.about, "languages": entry.languages,
            "unverified": list(entry.unverified), "checked": entry.checked,
            "installed": entry.source in there or entry.source == "built in",
        }
        for entry in entries()
    ]  # fmt: skip
