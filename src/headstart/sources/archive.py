"""What zip and tar archives have in common: what they may hold, and which of it are the examples.

The listing is checked before anything is read; members come into memory one at a time, and nothing is written to disk.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pyarrow as pa

from headstart import picturefile
from headstart.batches import CELL_LIMIT
from headstart.errors import DataError
from headstart.rawfile import fingerprint, shown
from headstart.source import DELIMITED, IMAGE_COLUMN, JSON, Source, open_table
from headstart.sources import tree
from headstart.sources.tree import AT_ONCE, Leaf, Row, names, printable
from headstart.textfile import HEAD, TextFile, decode

MEMBERS = 1_000_000
TOTAL = 1 << 37  # bytes of all members, unpacked
RATIO = 200  # of unpacked to packed bytes, where there is more than EXEMPT of them
EXEMPT = 1 << 20
NAME = 4096  # characters
TABLE = 256 << 20  # bytes of a table inside


@dataclass(frozen=True)
class Member:
    """One file in an archive."""

    path: str  # checked: relative, with slashes, without ..
    size: int  # bytes as declared, which is not trusted
    head: bytes  # its first bytes


@dataclass(frozen=True)
class Archive:
    """A checked listing, in the order in which reading is cheap, and how to read one member of it."""

    file: Path
    members: tuple[Member, ...]
    load: Callable[[str, int], bytes]  # path, the most bytes; raises ValueError with the reason
    notes: tuple[str, ...] = ()


def checked(path: str, seen: set[str], file: str) -> str | None:
    """A member's path without ./ before it; None for the folder itself. Raises DataError for what may lead elsewhere."""
    raw = path
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    path = path.rstrip("/")
    if path in ("", "."):
        return None
    why = None
    if len(path) > NAME:
        why = f"has a name of {len(path):,} characters"
    elif "\0" in raw:
        why = "has a NUL character in its name"
    elif path.startswith("/") or re.match(r"[A-Za-z]:", path):
        why = "has an absolute path"
    elif "\\" in path:
        why = "has a backslash in its name"
    elif any(part in ("..", "", ".") for part in path.split("/")):
        why = "has a path that leads elsewhere"
    elif path in seen:
        why = "is in the archive twice"
    if why is not None:
        raise refused(raw[:200], why, file)
    seen.add(path)
    if len(seen) > MEMBERS:
        raise DataError(f"more than {MEMBERS:,} files in this archive.", file=file)
    return path


def check_size(path: str, size: int, packed: int | None, total: int, file: str) -> None:
    """Raise DataError where a member, or all so far (`total` bytes), would unpack to too much."""
    if total > TOTAL:
        raise refused(path, f"brings the archive to more than {TOTAL:,} bytes unpacked", file)
    if packed is not None and size > EXEMPT and size > RATIO * packed:
        raise refused(
            path, f"would unpack to {size:,} bytes from {packed:,}; at most {RATIO} times as many are read", file
        )


def refused(path: str, why: str, file: str) -> DataError:
    """The error for an archive with a member that must not be there."""
    what = f"the member {shown(printable(path))} {why}."
    return DataError(what, file=file, todo="Make the archive anew from plain files, or give the unpacked folder.")


def source(archive: Archive, encoding: str | None) -> Source:
    """The examples of an archive: what a table in it names, or a folder per class. Raises DataError where there are none."""
    name = shown(archive.file.name)
    if any(member.path == "[Content_Types].xml" for member in archive.members):
        raise DataError("this is a spreadsheet or another Office file.", file=name, todo="Save the sheet as CSV.")
    top = _top([member.path for member in archive.members])
    tables = [m for m in archive.members if _is_table(m.path[len(top) :])]
    leaves = [Leaf(m.path[len(top) :], tree.kind(m.path, m.head)) for m in archive.members]
    layout = tree.arrange(leaves, name) if any(x.kind != tree.OTHER for x in leaves) else None
    digest = cache(lambda: fingerprint(archive.file))
    if len(tables) == 1:
        table, paths = _table(archive, tables[0], encoding)
        if layout is None or layout.modality == "image":
            from headstart.picturecells import candidates

            sample = next(table.batches(), None)
            named = {} if sample is None else candidates(pa.table(sample), table.load)
            if layout is None or any(paths.intersection(_paths(sample, column, top)) for column in named):
                notes = [*archive.notes, *table.notes, f"the table {shown(tables[0].path)} in the archive"]
                return replace(table, name=name, digest=digest, notes=notes)
    if layout is None:
        raise DataError(
            "this archive holds no pictures or .txt files in folders, and no single table.",
            file=name,
            todo="Pack a folder with a subfolder per class, or one CSV file with a column of paths and the pictures.",
        )
    rows, notes = layout.rows, [*archive.notes, *layout.notes]
    beside, split = ("label",) * layout.labelled, ("split",) * layout.splits
    if layout.modality == "image":
        odd = {row.id: row.path for row in rows if row.id != row.path}
        columns: tuple[str, ...] = (IMAGE_COLUMN, *beside, *split)
        return Source(
            name=name,
            columns=columns,
            batches=lambda: names(rows, columns),
            digest=digest,
            rows=len(rows),
            notes=notes,
            load=lambda file: _picture(archive, top + odd.get(file, file)),
            modality="image",
        )
    columns = ("text", *beside, "id", *split)
    return Source(
        name=name,
        columns=columns,
        batches=lambda: _texts(archive, top, rows, columns, encoding),
        digest=digest,
        rows=len(rows),
        notes=notes,
    )


def _top(paths: Sequence[str]) -> str:
    """The folder everything lies in, with its slash, where there is one that is neither a class nor a split."""
    plain = [path for path in paths if not path.startswith(("__MACOSX/", "."))]
    tops = {path.split("/", 1)[0] for path in plain}
    if len(tops) != 1 or tree.are_splits(tops):
        return ""
    (top,) = tops
    inner = [path[len(top) + 1 :] for path in plain if path != top]
    if any("/" in path for path in inner) or any(_is_table(path) for path in inner):
        return top + "/"
    return ""


def _is_table(path: str) -> bool:
    return "/" not in path and path.lower().endswith((*DELIMITED, *JSON)) and not path.startswith(".")


def _picture(archive: Archive, path: str) -> bytes:
    content = archive.load(path, picturefile.LARGEST)
    if (why := picturefile.refusal(content[: picturefile.HEAD], len(content))) is not None:
        raise ValueError(why)
    return content


def _table(archive: Archive, member: Member, encoding: str | None) -> tuple[Source, set[str]]:
    """A table inside an archive, whose cells name other members; and the paths of those."""
    name = shown(member.path)
    try:
        data = archive.load(member.path, TABLE)
    except ValueError as error:
        raise DataError(f"{error}.", file=name) from None
    if not data:
        raise DataError("the file is empty.", file=name)
    text, notes = decode(data, name, encoding)
    raw = text.encode("utf-8")
    sha = hashlib.sha256(raw).hexdigest()
    ending = picturefile.ending(member.path)

    def blocks() -> Iterator[bytes]:
        yield from (raw[start : start + (1 << 20)] for start in range(0, len(raw), 1 << 20))

    file = TextFile(name, ending, "utf-8", notes, text[:HEAD], len(text) <= HEAD, sha, blocks)
    paths = {m.path for m in archive.members}
    folder = posixpath.dirname(member.path)

    def load(cell: str) -> bytes:
        path = posixpath.normpath(posixpath.join(folder, cell.strip()))
        if path not in paths:
            path = posixpath.normpath(posixpath.join(folder, cell.strip().replace("\\", "/")))
        if path not in paths:
            raise ValueError("there is no such file in the archive")
        return _picture(archive, path)

    return replace(open_table(file), load=load, inside=True), paths


def _paths(batch: pa.RecordBatch | None, column: str, top: str) -> set[str]:
    """Where in the archive the first cells of a column point."""
    if batch is None or not pa.types.is_large_string(batch.schema.field(column).type):
        return set()
    cells = [str(cell).strip().replace("\\", "/") for cell in batch.column(column).slice(0, 1000).to_pylist() if cell]
    return {posixpath.normpath(top + cell) for cell in cells}


def _texts(
    archive: Archive, top: str, rows: Sequence[Row], columns: tuple[str, ...], encoding: str | None
) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        texts = []
        for number, row in enumerate(part, start + 1):
            try:
                texts.append(decode(archive.load(top + row.path, CELL_LIMIT), shown(row.id), encoding)[0])
            except DataError:
                raise
            except ValueError as error:
                raise DataError(f"{error}.", file=shown(row.id), row=number) from None
        cells = {
            "text": texts,
            "label": [r.label for r in part],
            "id": [r.id for r in part],
            "split": [r.split for r in part],
        }
        yield pa.RecordBatch.from_arrays([pa.array(cells[c], pa.large_string()) for c in columns], names=list(columns))
