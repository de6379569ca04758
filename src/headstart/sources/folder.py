"""A folder with a subfolder of .txt files per class; above those may be folders named train, test and so on."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow as pa

from headstart.batches import CELL_LIMIT
from headstart.errors import DataError, InputError
from headstart.rawfile import blocks, fingerprint, shown
from headstart.source import Source
from headstart.textfile import decode

SPLITS = frozenset(("train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"))
AT_ONCE = 1024  # files a batch
_DATA = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".arrow", ".feather")
_MUTE = ("SOURCE.txt", "README.txt", "LICENSE.txt")


@dataclass(frozen=True)
class _File:
    path: Path
    id: str  # its path in the folder
    label: str | None
    split: str | None


def read(path: Path, encoding: str | None = None) -> Source:
    """A source of a folder of texts. Raises DataError when there are none, or a link leads out of the folder."""
    name = shown(path.name or str(path))
    skipped: list[str] = []
    tops = _folders(path, path, skipped)
    splits = bool(tops) and all(top.name.lower() in SPLITS for top in tops)
    files = []
    for top in tops:
        for folder in _folders(top, path, skipped) if splits else [top]:
            label, split = _label(folder, name), top.name.lower() if splits else None
            files += [_File(f, _id(f, path), label, split) for f in _texts(folder, path, skipped)]
            skipped += [_id(f, path) + "/" for f in _folders(folder, path, [])]
    if not files:  # no classes: texts without labels
        files = [_File(f, _id(f, path), None, None) for f in _texts(path, path, []) if f.name not in _MUTE]
    if not files:
        raise DataError("this folder holds no .txt files in subfolders.", file=name, todo=_hint(path))
    labelled = files[0].label is not None
    columns = ("text", *(("label",) if labelled else ()), "id", *(("split",) if splits else ()))
    notes = [f"{len(files):,} .txt files" + (f" in {len({f.label for f in files}):,} folders" if labelled else "")]
    if skipped:
        notes.append(
            f"{len(skipped):,} other things in the folder are not read: "
            + ", ".join(shown(s) for s in skipped[:5])
            + ", ..." * (len(skipped) > 5)
        )

    @cache
    def digest() -> str:
        sha = hashlib.sha256()
        for file in files:
            sha.update(f"{file.id}\0{fingerprint(file.path)}\n".encode())
        return sha.hexdigest()

    return Source(
        name=name,
        columns=columns,
        batches=lambda: _batches(files, columns, encoding, notes),
        digest=digest,
        rows=len(files),
        notes=notes,
    )


def _batches(
    files: list[_File], columns: tuple[str, ...], encoding: str | None, notes: list[str]
) -> Iterator[pa.RecordBatch]:
    said: dict[str, list[str]] = {}
    for start in range(0, len(files), AT_ONCE):
        part = files[start : start + AT_ONCE]
        cells: dict[str, list[str | None]] = {"text": []}
        for row, file in enumerate(part, start + 1):
            text, remarks = _text(file, row, encoding)
            cells["text"].append(text)
            for remark in remarks:
                said.setdefault(remark.split(":")[0], []).append(file.id)
        cells |= {"label": [f.label for f in part], "id": [f.id for f in part], "split": [f.split for f in part]}
        yield pa.RecordBatch.from_arrays([pa.array(cells[c], pa.large_string()) for c in columns], names=list(columns))
    notes += [f"{len(ids):,} files {remark}, the first {shown(ids[0])}" for remark, ids in said.items()]


def _text(file: _File, row: int, encoding: str | None) -> tuple[str, tuple[str, ...]]:
    size, parts = 0, []
    for block in blocks(file.path):
        size += len(block)
        if size > CELL_LIMIT:
            raise DataError(
                f"a text of more than {CELL_LIMIT:,} bytes, which is the limit.", file=shown(file.id), row=row
            )
        parts.append(block)
    return decode(b"".join(parts), shown(file.id), encoding)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        raise InputError(
            f"{shown(str(folder))}: it cannot be read: {(error.strerror or str(error)).lower()}."
        ) from None


def _folders(folder: Path, root: Path, skipped: list[str]) -> list[Path]:
    """Subfolders in byte order of their names; links to folders and hidden folders are skipped."""
    found = []
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            if not entry.name.startswith("."):
                found.append(folder / entry.name)
        elif not entry.name.endswith(".txt") or folder == root:
            skipped.append(_id(folder / entry.name, root))
    return found


def _texts(folder: Path, root: Path, skipped: list[str]) -> list[Path]:
    """The .txt files of a folder in byte order of their names. Pipes, sockets, devices and dead links are skipped."""
    found = []
    for entry in _entries(folder):
        path = folder / entry.name
        if not entry.name.lower().endswith(".txt"):
            if not entry.is_dir(follow_symlinks=False):
                skipped.append(_id(path, root))
            continue
        try:
            real = path.resolve(strict=True)
            mode = real.stat().st_mode
        except (OSError, RuntimeError):
            skipped.append(_id(path, root))
            continue
        if entry.is_symlink() and not real.is_relative_to(root.resolve()):
            raise DataError(
                f"{shown(_id(path, root))} is a link to a file outside of the folder.",
                file=shown(root.name),
                todo="Copy the file into the folder, or remove the link.",
            )
        if stat.S_ISREG(mode):
            found.append(path)
        else:
            skipped.append(_id(path, root))
    return found


def _id(path: Path, root: Path) -> str:
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def _label(folder: Path, name: str) -> str:
    try:
        return os.fsencode(folder.name).decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(
            f"the folder name {os.fsencode(folder.name)!r} is not UTF-8, so it is no label.",
            file=name,
            todo="Rename it.",
        ) from None


def _hint(path: Path) -> str:
    names = [entry.name for entry in _entries(path) if entry.name.lower().endswith(_DATA)]
    if names:
        return "Name one of the files in it: " + ", ".join(shown(n) for n in names[:5]) + ", ..." * (len(names) > 5)
    return "Make a subfolder for each class and put one text into each file."
