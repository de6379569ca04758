"""Cells that hold pictures: which columns they are, and how a cell becomes a picture file's bytes.

A cell is a file's bytes, the path of a file, or the structure of Hugging Face datasets: {"bytes", "path"}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from headstart import picturefile
from headstart.errors import DataError
from headstart.rawfile import shown

ROWS = 256  # the most pictures of a piece
BYTES = 64 << 20  # of the pictures of a piece; one picture may be as large
LOOKED_AT = 20  # cells

_NAMED = {
    "image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "pic", "file", "files", "filename",
    "filenames", "path", "paths", "filepath", "filepaths", "imagepath", "pixels", "jpg", "png",
}  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A few rows of a picture column."""

    start: int  # the place of the first in the array
    names: list[str]  # of the files, as far as they have one; else "row 7"
    contents: list[bytes | None]  # None where there is no picture
    reasons: dict[int, str]  # for these, by their place in the piece
    misnamed: list[str]  # names whose ending promises another kind of picture


def is_packed(kind: pa.DataType) -> bool:
    """Whether cells of this type may hold the bytes of pictures."""
    if pa.types.is_struct(kind):
        return {field.name for field in kind} >= {"bytes", "path"}
    return is_bytes(kind)


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's for bytes."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def candidates(sample: pa.Table, load: Callable[[str], bytes] | None) -> dict[str, str]:
    """The columns that hold pictures, and why they seem to: bytes that are pictures, or paths of files that exist."""
    found = {}
    for name in sample.column_names:
        column = sample.column(name)
        named = bool(_NAMED & set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())))
        if is_packed(column.type):
            if _has_pictures(column, load) or (named and column.null_count < len(column)):
                found[name] = "it holds picture files"
        elif pa.types.is_large_string(column.type) and load is not None:
            cells = _first(column)
            alike = sum(map(picturefile.is_like, cells))
            if cells and (named or 2 * alike > len(cells)) and any(_exists(cell, load) for cell in cells):
                found[name] = "it names picture files"
    packed = {name: why for name, why in found.items() if is_packed(sample.column(name).type)}
    return packed or found


def lost(sample: pa.Table) -> tuple[str, str] | None:
    """A column whose cells end like pictures though no such file exists, and its first cell; None where there is none."""
    for name in sample.column_names:
        if pa.types.is_large_string(sample.column(name).type):
            cells = _first(sample.column(name))
            if cells and all(map(picturefile.is_like, cells)):
                return name, cells[0]
    return None


def pieces(cells: pa.Array, load: Callable[[str], bytes] | None, seen: int) -> Iterator[Piece]:
    """The pictures of an array of cells, a few at a time: at most ROWS, and BYTES but for the last. `seen` rows before."""
    start, names, contents, reasons, wrong, size = 0, [], [], {}, [], 0
    packed = is_packed(cells.type)
    for place in range(len(cells)):
        value = cells[place].as_py()
        name, content, why = _of(value, load) if packed else _named(value, load)
        names.append(_legible(name) or f"row {seen + place + 1}")
        contents.append(content)
        if content is None:
            reasons[place - start] = why
        elif name and picturefile.misnamed(name, content[: picturefile.HEAD]):
            wrong.append(names[-1])
        size += len(content or b"")
        if len(names) == ROWS or size >= BYTES:
            yield Piece(start, names, contents, reasons, wrong)
            start, names, contents, reasons, wrong, size = place + 1, [], [], {}, [], 0
    if names:
        yield Piece(start, names, contents, reasons, wrong)


def _of(
    value: bytes | Mapping[str, object] | None, load: Callable[[str], bytes] | None
) -> tuple[str, bytes | None, str]:
    """Name, content and reason of a cell of bytes, or of the structure of Hugging Face."""
    if isinstance(value, Mapping):
        path, value = value.get("path"), value.get("bytes")  # type: ignore[assignment]
        name = path if isinstance(path, str) else ""
        if value is None and name:
            return _named(name, load)
    else:
        name = ""
    if not isinstance(value, bytes):
        return name, None, "the cell is empty"
    why = picturefile.refusal(value[: picturefile.HEAD], len(value))
    return name, value if why is None else None, why or ""


def _named(value: object, load: Callable[[str], bytes] | None) -> tuple[str, bytes | None, str]:
    """The same of a cell with a path."""
    cell = value.strip() if isinstance(value, str) else ""
    if not cell:
        return "", None, "the cell is empty"
    if load is None:
        return cell, None, "a table without a place of its own cannot name files"
    try:
        return cell, load(cell), ""
    except DataError:  # of the whole archive
        raise
    except ValueError as error:
        return cell, None, shown(str(error))


def _legible(name: str) -> str:
    """A file's name on one line: control and formatting characters are written out."""
    return name if name.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def _first(column: pa.ChunkedArray) -> list[str]:
    return [cell.strip() for cell in column.drop_null().slice(0, LOOKED_AT).to_pylist() if cell.strip()]


def _exists(cell: str, load: Callable[[str], bytes]) -> bool:
    if not 0 < len(cell) <= 4096 or "\n" in cell:
        return False
    try:
        load(cell)
    except DataError:
        raise
    except ValueError:
        return False
    return True


def _has_pictures(column: pa.ChunkedArray, load: Callable[[str], bytes] | None) -> bool:
    seen = 0
    for value in column:
        if not value.is_valid:
            continue
        cell = value.as_py()
        if _of(cell, load)[1] is not None:
            return True
        seen += 1
        if seen == LOOKED_AT:
            return False
    return False
