"""Predictions for an input of any size: batches in, batches out, nothing kept.

The output takes its name only when it is whole. After an interruption the same command starts over, at the speed of the
feature cache for what was already embedded.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from headstart import jsontext
from headstart.answers import Answers
from headstart.dataset import read_texts
from headstart.errors import InputError, NotFound, near
from headstart.features import embed
from headstart.head import MULTILABEL, REGRESSION
from headstart.model import Model
from headstart.reasons import Reasons
from headstart.rowcache import Cache
from headstart.storage import atomic_file

CHUNK = 16_384  # texts embedded and answered at a time
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
        self.writer: pyarrow.parquet.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        if self.writer is None:
            self.writer = pyarrow.parquet.ParquetWriter(self.file, table.schema, compression="zstd")
        self.writer.write_table(table.cast(self.writer.schema))

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def is_text(source: str) -> bool:
    """Whether the INPUT of `predict` is a text and not a file: no such file, and it does not look like a path.

    Raises NotFound for what looks like a path that does not exist.
    """
    if source == "-":
        return False
    if not source.strip():
        raise InputError("the text is empty.")
    try:
        if Path(source).exists():
            return False
    except (OSError, ValueError):  # too long or with a NUL: no path
        return True
    path = Path(source)
    if " " not in source and (path.suffix.lower() in (*ENDINGS, ".txt", ".arrow", ".feather") or len(path.parts) > 1):
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise NotFound(f"{source}: no such file." + near(path.name, siblings))
    return True


def predict_texts(
    model: Model, texts: Sequence[str], *, why: bool = False, every: bool = False
) -> list[dict[str, Any]]:
    """One dictionary a text: text, label, probability, unknown (labels; value), and probabilities and why if asked."""
    cache = Cache()
    X = model.features(texts, cache=cache).values
    answers = model.answer(X)
    reasons = Reasons(model, cache).of(texts, X, answers) if why else None
    found = []
    for i, (text, prediction) in enumerate(zip(texts, model.predictions(answers, every=every), strict=True)):
        row: dict[str, Any] = {"text": text, "unknown": prediction.unknown}
        if model.task == REGRESSION:
            row["value"] = prediction.value
        else:
            row |= {"label": prediction.label, "probability": prediction.probability}
        if model.task == MULTILABEL:
            row["labels"] = list(prediction.labels)
        if every and model.task != REGRESSION:
            row["probabilities"] = dict(prediction.probabilities)
        if reasons is not None:
            row["why"] = reasons[i]
        found.append(row)
    return found


def predict_file(
    model: Model,
    source: object,
    *,
    output: Path | None = None,
    why: bool = False,
    every: bool = False,
    text: str | None = None,
    encoding: str | None = None,
    to_json: bool = False,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> dict[str, Any]:
    """Predict every row of a source into a file, or to standard output; returns {rows, unknown, output, notes}.

    Memory is bounded by one batch. A row without text is answered like an empty text.
    """
    if output is not None:
        ending(output)
        if not output.parent.exists():
            raise InputError(f"{output.parent}: no such folder to write {output.name} into.")
        if isinstance(source, str) and output.exists() and Path(source).exists() and output.samefile(source):
            raise InputError(f"{output}: that is the input; give the output another name.")
    batches, opened = read_texts(source, text=text, encoding=encoding)
    cache = Cache()
    reasons = Reasons(model, cache) if why else None
    rows = unknown = 0
    with sink(output, to_json=to_json) as out:
        for _, texts, given in batches:
            for start in range(0, len(texts), CHUNK):
                part = texts.slice(start, CHUNK).to_pylist()
                X = embed(part, model.backbone, cache).values
                answers = model.answer(X)
                added = columns(model, answers, every=every)
                if reasons is not None:
                    added |= {"why": pa.array([jsontext.write(reason) for reason in reasons.of(part, X, answers)])}
                out.write(beside(given.slice(start, CHUNK), added))
                rows, unknown = rows + len(part), unknown + int(answers.unknown.sum())
                if progress is not None:
                    progress("predicting", rows, opened.rows)
    return {"rows": rows, "unknown": unknown, "output": None if output is None else str(output), "notes": opened.notes}
