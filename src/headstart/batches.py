"""Arrow batches made plain (bounded in rows and cell size, without dictionaries, extension types or class codes), and
kept: in memory while they are few, on disk when they are many.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from headstart.errors import DataError, StorageError
from headstart.rawfile import shown

ROWS = 16_384  # the most rows of a batch
CELL_LIMIT = 1 << 20  # bytes of UTF-8 in one cell
COLUMN_LIMIT = 10_000
SPILL = 64 << 20  # bytes of contents above which they go to disk

_UNPICKLES = b"arrow.py_extension_type"


@contextmanager
def arrow_faults(name: str, what: str = "the file is damaged or not what it seems") -> Iterator[None]:
    """Turn whatever Arrow raises on a damaged file, or an odd table, into a DataError."""
    try:
        yield
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"the file is damaged, or asks for too much memory: {_first(error)}.", file=name) from None
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, EOFError, OverflowError) as error:
        raise DataError(f"{what}: {_first(error)}.", file=name) from None


def plain(name: str, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of at most ROWS, every column a plain Arrow type.

    Dictionaries become their values, extension types their storage, Hugging Face class codes their names (-1: null).
    Raises DataError with row and column for a cell of more than CELL_LIMIT bytes or a code without a name.
    """
    row = 0
    for batch in batches:
        names = class_names(batch.schema)
        for start in range(0, batch.num_rows, ROWS):
            piece = batch.slice(start, ROWS)
            with arrow_faults(name):
                arrays = [
                    _plain(piece.column(i), names.get(field.name), name, row, field)
                    for i, field in enumerate(piece.schema)
                ]
            for array, column in zip(arrays, piece.schema.names, strict=True):
                _check_cells(array, name, row, column)
            yield pa.RecordBatch.from_arrays(arrays, names=piece.schema.names)
            row += piece.num_rows


def check_columns(name: str, columns: Iterable[str]) -> tuple[str, ...]:
    """The column names, if there are any, not too many, and all different. Raises DataError."""
    columns = tuple(columns)
    if not columns:
        raise DataError("there are no columns.", file=name)
    if len(columns) > COLUMN_LIMIT:
        raise DataError(f"{len(columns):,} columns; at most {COLUMN_LIMIT:,} are read.", file=name)
    seen: dict[str, int] = {}
    for number, column in enumerate(columns, 1):
        if column in seen:
            raise DataError(
                f"columns {seen[column]} and {number} have the same name {column!r}.",
                file=name,
                todo="Rename one of them.",
            )
        seen[column] = number
    return columns


def check_schema(name: str, schema: pa.Schema) -> tuple[str, ...]:
    """Column names of an Arrow schema; refuses extension types whose loading would run a pickle."""
    for field in schema:
        metadata = field.metadata or {}
        if metadata.get(b"ARROW:extension:name") == _UNPICKLES or _is_pickled(field.type):
            raise DataError(
                "its type is a Python object, and reading it would run code from the file.",
                file=name,
                column=field.name,
                todo="Write the column as text or numbers.",
            )
    return check_columns(name, schema.names)


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Names of class codes, column by column, from the features Hugging Face writes into a schema's metadata."""
    raw = (schema.metadata or {}).get(b"huggingface")
    if raw is None:
        return {}
    try:
        features = json.loads(raw)["info"]["features"]
        return features_names(features)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def features_names(features: dict[str, Any]) -> dict[str, list[str]]:
    """Names of class codes from a Hugging Face features description: ClassLabel, or a list of it."""
    found = {}
    for column, feature in features.items():
        if isinstance(feature, list) and len(feature) == 1:
            feature = feature[0]
        if isinstance(feature, dict) and isinstance(feature.get("feature"), dict):
            feature = feature["feature"]
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            names = feature.get("names")
            if isinstance(names, list) and all(isinstance(name, str) for name in names):
                found[column] = names
    return found


class Contents:
    """Contents on their way into a data set: kept in memory, or from SPILL bytes on in a file that goes with them.

    `kind` is large_string for texts, large_binary for pictures.
    """

    def __init__(self, kind: pa.DataType | None = None) -> None:
        self.kind = kind or pa.large_string()
        self.parts: list[pa.Array] = []
        self.size = 0
        self.path: Path | None = None
        self.writer: pa.RecordBatchFileWriter | None = None
        self.closing: weakref.finalize[Any, Any] | None = None

    def add(self, contents: pa.Array) -> None:
        """Take in one batch."""
        self.parts.append(contents)
        self.size += contents.nbytes
        if self.size > SPILL or self.writer is not None:
            self._spill()

    def finish(self) -> pa.ChunkedArray:
        """All contents, memory-mapped if they lie on disk."""
        if self.writer is None or self.path is None:
            return pa.chunked_array(self.parts, self.kind)
        try:
            self.writer.close()
            table = pa.ipc.open_file(pa.memory_map(str(self.path))).read_all()
        except OSError as error:
            raise _disk(error) from None
        contents = table.column("content")
        if os.name == "posix" and self.closing is not None:
            self.closing()  # the map keeps the bytes; nothing is left behind, however the process ends
        return contents

    def _spill(self) -> None:
        schema = pa.schema([("content", self.kind)])
        try:
            if self.writer is None:
                handle, path = tempfile.mkstemp(prefix="headstart-", suffix=".arrow")
                os.close(handle)
                self.path = Path(path)
                self.closing = weakref.finalize(self, partial(self.path.unlink, missing_ok=True))
                self.writer = pa.ipc.new_file(path, schema)
            for part in self.parts:
                self.writer.write_batch(pa.RecordBatch.from_arrays([part], schema=schema))
        except OSError as error:
            raise _disk(error) from None
        self.parts.clear()


def _disk(error: OSError) -> StorageError:
    full = error.errno == errno.ENOSPC
    return StorageError(
        f"The contents do not fit into the temporary folder {tempfile.gettempdir()}: "
        + ("the disk is full." if full else f"{error}.")
        + " Set TMPDIR to a folder with room."
    )


def _is_pickled(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name.encode() == _UNPICKLES


def _plain(array: pa.Array, names: list[str] | None, file: str, row: int, field: pa.Field) -> pa.Array:
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary.cast(_large(array.type.value_type)).take(array.indices)
    if pa.types.is_run_end_encoded(array.type):
        array = pc.run_end_decode(array)
    array = array.cast(_large(array.type))
    if names is None:
        return array
    if pa.types.is_integer(array.type):
        return _named(array, names, file, row, field)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        values = _named(array.flatten(), names, file, row, field)
        lengths = pc.fill_null(pc.list_value_length(array), 0)
        offsets = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths.cast(pa.int64()))])
        return pa.LargeListArray.from_arrays(offsets, values, mask=array.is_null())
    return array


def _large(kind: pa.DataType) -> pa.DataType:
    """The type with 64-bit offsets for text, bytes and lists, and without views, for which Arrow has few functions."""
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary(kind) or pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.large_list(_large(kind.value_type))
    return kind


def _named(codes: pa.Array, names: list[str], file: str, row: int, field: pa.Field) -> pa.Array:
    codes = codes.cast(pa.int64())
    codes = pc.if_else(pc.equal(codes, -1), None, codes)
    wrong = pc.fill_null(pc.or_(pc.less(codes, 0), pc.greater_equal(codes, len(names))), False)
    if pc.any(wrong).as_py():
        at = pc.index(wrong, True).as_py()
        raise DataError(
            f"the class code {codes[at]} has no name; the file names {len(names)} classes.",
            file=file,
            row=row + at + 1,
            column=field.name,
        )
    return pa.array(names, pa.large_string()).take(codes)


def _check_cells(array: pa.Array, file: str, row: int, column: str) -> None:
    kind = array.type
    if pa.types.is_large_list(kind):
        lengths = pc.list_value_length(array)  # labels or tokens, each of at least a byte
    elif pa.types.is_large_string(kind):
        lengths = pc.binary_length(array)
    else:
        return
    largest = pc.max(lengths).as_py()
    if largest is not None and largest > CELL_LIMIT:
        at = pc.index(lengths, largest).as_py()
        raise DataError(
            f"a cell of {largest:,} bytes; at most {CELL_LIMIT:,} are read.",
            file=file,
            row=row + at + 1,
            column=column,
            todo="Shorten it or remove the row.",
        )


def _first(error: BaseException) -> str:
    said = str(error).strip().splitlines()
    return shown(said[0].rstrip(".")[:200]) if said else type(error).__name__
