"""Where predictions go: a CSV, JSON lines or Parquet file, which takes its name only when it is whole, or standard output."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from headstart import jsontext
from headstart.errors import DataError, InputError
from headstart.storage import atomic_file

ENDINGS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet"}


class Sink(Protocol):
    """Where batches of predictions go."""

    def write(self, table: pa.Table) -> None:
        """Take one batch."""
        ...

    def close(self) -> None:
        """Finish the file."""
        ...


def ending(output: Path) -> str:
    """The format an output's ending asks for. Raises InputError."""
    try:
        return ENDINGS[output.suffix.lower()]
    except KeyError:
        raise InputError(
            f"{output}: cannot tell a format from the ending {output.suffix!r}: use {', '.join(ENDINGS)}."
        ) from None


@contextmanager
def sink(output: Path | None, *, to_json: bool) -> Iterator[Sink]:
    """A sink for a file, or for standard output as CSV or JSON lines."""
    if output is None:
        sys.stdout.flush()
        stream = _JsonLines(sys.stdout.buffer) if to_json else _Delimited(sys.stdout.buffer, ",")
        yield stream
        stream.close()
        sys.stdout.buffer.flush()
        return
    kind = ending(output)
    with atomic_file(output) as file:
        opened: Sink
        if kind == "parquet":
            opened = _Parquet(file)
        elif kind == "jsonl":
            opened = _JsonLines(file)
        else:
            opened = _Delimited(file, "\t" if kind == "tsv" else ",")
        try:
            yield opened
        finally:
            opened.close()  # while the file is open, also after an error: a Parquet writer would write to it later


class _Delimited:
    """CSV. Lists are joined by ';'. A text cell a spreadsheet would run as a formula gets an apostrophe before it."""

    def __init__(self, file: IO[bytes], delimiter: str) -> None:
        self.file, self.delimiter, self.header = file, delimiter, True

    def write(self, table: pa.Table) -> None:
        if self.header:
            line = io.StringIO(newline="")
            csv.writer(line, delimiter=self.delimiter, lineterminator="\n").writerow(table.column_names)
            self.file.write(line.getvalue().encode())
            self.header = False
        flat = [_flat(column) for column in table.columns]
        options = pyarrow.csv.WriteOptions(include_header=False, delimiter=self.delimiter, quoting_style="needed")
        pyarrow.csv.write_csv(pa.table(flat, names=table.column_names), self.file, options)

    def close(self) -> None:
        pass


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        column = pc.binary_join(column.cast(pa.list_(pa.string())), ";").cast(pa.large_string())
    elif pa.types.is_nested(kind):
        column = pa.chunked_array(
            [[None if v is None else jsontext.write(v) for v in column.to_pylist()]], pa.large_string()
        )
    elif pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        formula = pc.and_(
            pc.match_substring_regex(column, r"^[=+\-@\t\r]"),
            pc.invert(pc.match_substring_regex(column, r"^[+-]?[0-9.,]+([eE][+-]?[0-9]+)?$")),
        )
        if pc.any(formula).as_py():
            prefixed = pc.binary_join_element_wise(pa.scalar("'", column.type), column, pa.scalar("", column.type))
            column = pc.if_else(formula, prefixed, column)
    return column


class _JsonLines:
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def write(self, table: pa.Table) -> None:
        lines = [jsontext.write(_jsonable(row)) + "\n" for row in table.to_pylist()]
        self.file.write("".join(lines).encode())

    def close(self) -> None:
        pass


def _jsonable(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if value is None or isinstance(value, str | int | float | bool | list | dict) else str(value)
        for name, value in row.items()
    }


class _Parquet:
    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.rows = 0
        self.writer: pyarrow.parquet.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        if self.writer is None:
            fields = [pa.field(f.name, pa.large_string() if pa.types.is_null(f.type) else f.type) for f in table.schema]
            self.writer = pyarrow.parquet.ParquetWriter(self.file, pa.schema(fields), compression="zstd")
        cells = [self._cast(column, field) for column, field in zip(table.columns, self.writer.schema, strict=True)]
        self.writer.write_table(pa.table(cells, schema=self.writer.schema))
        self.rows += len(table)

    def _cast(self, column: pa.ChunkedArray, wanted: pa.Field) -> pa.ChunkedArray:
        """A column in the type of the first batch, which a file of JSON lines need not keep to. Raises DataError."""
        try:
            if pa.types.is_large_string(wanted.type) and pa.types.is_nested(column.type):
                written = [None if value is None else jsontext.write(value) for value in column.to_pylist()]
                return pa.chunked_array([pa.array(written, wanted.type)])
            return column.cast(wanted.type)
        except pa.ArrowException:
            raise DataError(
                f"from row {self.rows + 1:,} on its cells are {column.type}, but {wanted.type} before.",
                column=wanted.name, todo="Parquet needs one type a column: write .jsonl or .csv instead.",
            ) from None  # fmt: skip

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
