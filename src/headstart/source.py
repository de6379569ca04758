"""What a source is: a table read in order, in bounded pieces, from wherever it lies; and how one is opened.

The content decides what a file is; its ending only breaks ties. The choices are in `sources/`, imported when needed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from headstart import picturefile
from headstart.errors import DataError, InputError
from headstart.rawfile import missing, shown, stamp
from headstart.textfile import HEAD, TextFile, open_text, utf16_without_mark

if TYPE_CHECKING:
    import pyarrow as pa

DELIMITED = (".csv", ".tsv", ".tab", ".psv")
JSON = (".json", ".jsonl", ".ndjson")
STANDARD_INPUT = "-"
IMAGE_COLUMN = "image"  # of sources that are nothing but pictures

_MAGIC = (
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\xff\xff\xff\xff", "arrow"),
)
_NOT_DATA = (
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file; save it as CSV"),
    (b"%PDF-", "a PDF document"),
    (b"SQLite format 3\0", "an SQLite database; export the table as CSV"),
    (b"\x7fELF", "a program"),
    (b"\x93NUMPY", "a numpy array"),
    (b"\x80\x02", "a Python pickle, which could run code"),
    (b"\x80\x03", "a Python pickle, which could run code"),
    (b"\x80\x04", "a Python pickle, which could run code"),
    (b"\x80\x05", "a Python pickle, which could run code"),
    (b"FEA1", "Feather version 1; write it as Feather version 2 or Parquet"),
)
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
_CONTROL = bytes(set(range(32)) - {9, 10, 12, 13, 26, 27})


@dataclass(frozen=True)
class Source:
    """A table that is read in order, in pieces.

    `batches()` reads from the beginning each time (standard input: once) and raises DataError at the first fault. All
    batches have the names of `columns`, in that order; JSON lines may give a column another type in another batch.
    `notes` grows while batches are read.
    """

    name: str
    columns: tuple[str, ...]
    batches: Callable[[], Iterator[pa.RecordBatch]]
    digest: Callable[[], str | None]  # sha256 hex of the bytes; None in memory, or before the end of standard input
    rows: int | None = None  # where it is known beforehand
    notes: list[str] = field(default_factory=list)
    load: Callable[[str], bytes] | None = None  # the picture that a cell names; raises ValueError with the reason
    modality: str | None = None  # "image" where the column IMAGE_COLUMN names pictures and there are no texts
    inside: bool = False  # whether what `load` reads is part of the digest, as in an archive


def open_source(where: object, *, encoding: str | None = None) -> Source:
    """Open a path, '-' for standard input, or a table in memory. Raises NotFound, InputError or DataError.

    A path may be CSV, TSV (or with ; or |), JSON lines, a JSON array, Parquet, Arrow (file, stream, Feather), a .txt
    file with one text a line, a folder with a subfolder of pictures or .txt files per class, such a folder as a zip or
    tar archive, a folder saved by Hugging Face datasets, or one picture. In memory: lists of texts, of (text, label)
    pairs or of dicts; Arrow, pandas, polars; Hugging Face. Pictures are named by cells, or lie in them as bytes.
    """
    if isinstance(where, Source):
        return where
    if not isinstance(where, (str, os.PathLike)):
        source = replace(_choice("memory")(where), load=partial(picturefile.read_beside, Path()))
    elif not os.fspath(where):
        raise InputError("The name of the data file is empty.")
    elif where == STANDARD_INPUT:
        source = open_table(open_text(None, encoding))
    else:
        source = _open_path(Path(where), encoding)
        if source.load is None:
            folder = Path(where) if Path(where).is_dir() else Path(where).parent
            source = replace(source, load=partial(picturefile.read_beside, folder))
    from headstart.batches import plain

    return replace(source, batches=partial(_plain, plain, source))


def _plain(plain: Callable[..., Iterator[pa.RecordBatch]], source: Source) -> Iterator[pa.RecordBatch]:
    return plain(source.name, source.batches())


def _choice(name: str) -> Callable[..., Source]:
    read: Callable[..., Source] = import_module(f"headstart.sources.{name}").read
    return read


def _open_path(path: Path, encoding: str | None) -> Source:
    name = shown(path.name)
    if "\0" in str(path):
        raise InputError(f"{shown(str(path))}: a file name cannot hold a NUL character.")
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise missing(path) from None
    except OSError as error:
        raise InputError(
            f"{shown(str(path))}: it cannot be opened: {(error.strerror or str(error)).lower()}."
        ) from None
    if is_folder:
        saved = (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()
        return _choice("saved" if saved else "folder")(path, encoding)
    if stamp(path).size == 0:
        raise DataError("the file is empty.", file=name)
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise InputError(f"{name}: it cannot be read: {(error.strerror or str(error)).lower()}.") from None
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return _choice(kind)(path)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _choice("zip")(path, encoding)
    if head[257:262] == b"ustar" or (head.startswith(_PACKED) and _is_tar(path)):
        return _choice("tar")(path, encoding)
    if picturefile.kind(head) is not None:
        return _choice("picture")(path)
    _refuse_binary(head, name)
    return open_table(open_text(path, encoding))


def _is_tar(path: Path) -> bool:
    from headstart.sources import tar

    return tar.is_tar(path)


def _refuse_binary(head: bytes, name: str) -> None:
    for magic, what in _NOT_DATA:
        if head.startswith(magic):
            raise DataError(f"this is {what}.", file=name)
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        return
    if utf16_without_mark(head) is not None:
        return
    control = len(head) - len(head.translate(None, _CONTROL))
    if b"\0" in head and control > max(2, 0.02 * len(head)):
        raise DataError(
            f"this is a binary file ({control:,} control characters in its first {len(head):,} bytes).",
            file=name,
            todo="Give CSV, TSV, JSON lines, Parquet or Arrow.",
        )


def open_table(text: TextFile) -> Source:
    """A table, or lines, of text. Raises DataError."""
    start = text.head.lstrip(" \t\r\n")
    if not start:
        if text.whole:
            raise DataError("there is nothing in it but blank lines.", file=text.name)
        raise DataError(f"the first {len(text.head):,} characters are blank.", file=text.name)
    if _is_json(text, start):
        return _choice("jsonl")(text)
    if text.ending == ".txt" and not _is_table(text):
        return _choice("lines")(text)
    return _choice("delimited")(text)


def _is_json(text: TextFile, start: str) -> bool:
    if text.ending in JSON:
        return True
    if start[0] not in "{[":
        return False
    if text.ending not in (*DELIMITED, ".txt"):
        return True
    first = start.splitlines()[0].rstrip()
    return first in ("[", "{") or (first.startswith(('{"', '[{"')) and first.endswith(("}", "]", "},")))


def _is_table(text: TextFile) -> bool:
    """Whether a .txt file is a table after all: every line of its beginning has as many tabs as the first, and some."""
    lines = text.head.splitlines()[:50]
    if not text.whole:
        lines = lines[:-1] or lines
    tabs = {line.count("\t") for line in lines if line.strip()}
    return len(tabs) == 1 and tabs != {0}
