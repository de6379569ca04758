"""A folder with a subfolder of pictures or .txt files per class; above those may be folders named train, test and so on.

The content of a file decides what it is. Links out of the folder are refused; pipes, sockets and devices never opened.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pyarrow as pa

from headstart import picturefile
from headstart.batches import CELL_LIMIT
from headstart.errors import DataError, InputError
from headstart.rawfile import blocks, fingerprint, shown
from headstart.source import IMAGE_COLUMN, Source
from headstart.sources import tree
from headstart.sources.tree import AT_ONCE, Leaf, Row, names, printable
from headstart.textfile import decode

_DATA = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".arrow", ".feather")


def read(path: Path, encoding: str | None = None) -> Source:
    """A source of a folder of files. Raises DataError when there are none, or a link leads out of the folder."""
    name = shown(path.name or str(path))
    layout = tree.arrange(_walk(path), name)
    if layout is None:
        raise DataError("this folder holds no .txt files or pictures in subfolders.", file=name, todo=_hint(path))
    rows, notes = layout.rows, list(layout.notes)
    beside = ("label",) * layout.labelled
    split = ("split",) * layout.splits
    if layout.modality == "image":
        tables = [e.name for e in _entries(path) if e.name.lower().endswith(_DATA)] if not layout.labelled else []
        if tables:
            notes.append(f"the pictures have no labels; if {shown(tables[0])} has them, give that file instead")
        columns: tuple[str, ...] = (IMAGE_COLUMN, *beside, *split)
        odd = {row.id: row.path for row in rows if row.id != row.path}  # names that are not UTF-8
        return Source(
            name=name,
            columns=columns,
            batches=lambda: names(rows, columns),
            digest=lambda: None,
            rows=len(rows),
            notes=notes,
            load=lambda file: picturefile.read(path / odd.get(file, file)),
            modality="image",
        )
    columns = ("text", *beside, "id", *split)

    @cache
    def digest() -> str:
        sha = hashlib.sha256()
        for row in rows:
            sha.update(f"{row.id}\0{fingerprint(path / row.path)}\n".encode())
        return sha.hexdigest()

    return Source(
        name=name,
        columns=columns,
        batches=lambda: _batches(path, rows, columns, encoding, notes),
        digest=digest,
        rows=len(rows),
        notes=notes,
    )


def _batches(
    root: Path, rows: Sequence[Row], columns: tuple[str, ...], encoding: str | None, notes: list[str]
) -> Iterator[pa.RecordBatch]:
    said: dict[str, list[str]] = {}
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        cells: dict[str, list[str | None]] = {"text": []}
        for number, row in enumerate(part, start + 1):
            text, remarks = _text(root / row.path, row.id, number, encoding)
            cells["text"].append(text)
            for remark in remarks:
                said.setdefault(remark.split(":")[0], []).append(row.id)
        cells |= {"label": [r.label for r in part], "id": [r.id for r in part], "split": [r.split for r in part]}
        yield pa.RecordBatch.from_arrays([pa.array(cells[c], pa.large_string()) for c in columns], names=list(columns))
    notes += [f"{len(ids):,} files {remark}, the first {shown(ids[0])}" for remark, ids in said.items()]


def _text(path: Path, id: str, row: int, encoding: str | None) -> tuple[str, tuple[str, ...]]:
    size, parts = 0, []
    for block in blocks(path):
        size += len(block)
        if size > CELL_LIMIT:
            raise DataError(f"a text of more than {CELL_LIMIT:,} bytes, which is the limit.", file=shown(id), row=row)
        parts.append(block)
    return decode(b"".join(parts), shown(id), encoding)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        raise InputError(
            f"{shown(str(folder))}: it cannot be read: {(error.strerror or str(error)).lower()}."
        ) from None


def _walk(root: Path) -> list[Leaf]:
    """Files two levels deep, or three below folders of splits, in byte order; what lies deeper is a leaf with a slash."""
    tops = [e.name for e in _entries(root) if e.is_dir(follow_symlinks=False) and not e.name.startswith(".")]
    depth = 3 if tree.are_splits(set(tops)) else 2
    real = root.resolve()
    found: list[Leaf] = []

    def enter(folder: Path, level: int) -> None:
        for entry in _entries(folder):
            path = folder / entry.name
            at = path.relative_to(root).as_posix()
            if entry.is_dir(follow_symlinks=False):
                if entry.name.startswith("."):
                    continue
                if level == depth:
                    found.append(Leaf(at + "/"))
                else:
                    enter(path, level + 1)
            else:
                found.append(Leaf(at, _kind(entry, path, at, real)))

    enter(root, 1)
    return found


def _kind(entry: os.DirEntry[str], path: Path, at: str, root: Path) -> str:
    """What a file is; dead links, pipes, sockets and devices are nothing. Raises DataError for a link that leads out."""
    try:
        if entry.is_symlink():
            real = path.resolve(strict=True)
            if not real.is_relative_to(root):
                if tree.kind(at, None) == tree.OTHER or not real.is_file():
                    return tree.OTHER
                raise DataError(
                    f"{shown(printable(at))} is a link to a file outside of the folder.",
                    file=shown(root.name),
                    todo="Copy the file into the folder, or remove the link.",
                )
            mode = real.stat().st_mode
        else:
            mode = entry.stat(follow_symlinks=False).st_mode
    except (OSError, RuntimeError):
        return tree.OTHER
    if not stat.S_ISREG(mode):
        return tree.OTHER
    try:
        head = picturefile.head(path)
    except OSError:
        head = None
    return tree.kind(at, head)


def _hint(path: Path) -> str:
    found = [entry.name for entry in _entries(path) if entry.name.lower().endswith(_DATA)]
    if found:
        return "Name one of the files in it: " + ", ".join(shown(n) for n in found[:5]) + ", ..." * (len(found) > 5)
    return "Make a subfolder for each class and put one text or picture into each file."
