"""Predictions for an input of any size: batches in, batches out, nothing kept.

The output takes its name only when it is whole. After an interruption the same command starts over, at the speed of the
feature cache for what was already embedded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from headstart import jsontext
from headstart.errors import InputError
from headstart.head import MULTILABEL, REGRESSION
from headstart.model import Answers, Model
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


def columns(model: Model, answers: Answers, *, every: bool) -> dict[str, pa.Array]:
    """The columns that `predict` adds, (n,) each: label, probability, unknown; with `every` one more a label."""
    unknown = pa.array(answers.unknown)
    if model.task == REGRESSION:
        return {"value": pa.array(answers.P[:, 0]), "unknown": unknown}
    names = pa.array(model.labels, pa.large_string())
    if model.task == MULTILABEL:
        label: pa.Array = pa.array(
            [[model.labels[j] for j in np.flatnonzero(row)] for row in answers.chosen], pa.list_(pa.large_string())
        )
    else:
        label = names.take(pa.array(answers.P.argmax(1)))
    found = {"label": label, "probability": pa.array(answers.P.max(1)), "unknown": unknown}
    if every:
        found |= {f"probability {name}": pa.array(answers.P[:, j]) for j, name in enumerate(model.labels)}
    return found


def beside(given: pa.RecordBatch, added: dict[str, pa.Array]) -> pa.Table:
    """The given columns, then the added ones; a given column of an added name is called 'given ...' instead."""
    names = [f"given {name}" if name in added else name for name in given.schema.names]
    return pa.table([*given.columns, *added.values()], names=[*names, *added])


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
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(output) as file:
        opened: Sink
        if kind == "parquet":
            opened = _Parquet(file)
        elif kind == "jsonl":
            opened = _JsonLines(file)
        else:
            opened = _Delimited(file, "\t" if kind == "tsv" else ",")
        yield opened
        opened.close()


class _Delimited:
    """CSV. Lists are joined by ';'. A text cell a spreadsheet would run as a formula gets an apostrophe before it."""

    def __init__(self, file: IO[bytes], delimiter: str) -> None:
        self.file, self.delimiter, self.header = file, delimiter, True

    def write(self, table: pa.Table) -> None:
        flat = [_flat(column) for column in table.columns]
        pyarrow.csv.write_csv(
            pa.table(flat, names=table.column_names),
            self.file,
            pyarrow.csv.WriteOptions(include_header=self.header, delimiter=self.delimiter),
        )
        self.header = False

    def close(self) -> None:
        pass


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        column = pc.binary_join(column.cast(pa.list_(pa.string())), ";").cast(pa.large_string())
    elif pa.types.is_nested(kind):
        column = pa.chunked_array([[None if v is None else jsontext.write(v) for v in column.to_pylist()]], pa.large_string())
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
        self.file, self.writer = file, None

    def write(self, table: pa.Table) -> None:
        if self.writer is None:
            self.writer = pyarrow.parquet.ParquetWriter(self.file, table.schema, compression="zstd")
        self.writer.write_table(table.cast(self.writer.schema))

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
