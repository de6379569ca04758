"""Predictions for an input of any size: batches in, batches out, nothing kept.

The output takes its name only when it is whole. After an interruption the same command starts over, at the speed of the
feature cache for what was already embedded.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from headstart import jsontext, picturefile
from headstart.answers import Answers
from headstart.backbone import Backbone
from headstart.dataset import FILE, Fault, read_contents
from headstart.embedding import BROKEN, REFUSE, SKIP
from headstart.errors import DataError, InputError, NotFound, near
from headstart.features import embed
from headstart.head import MULTILABEL, REGRESSION
from headstart.model import Model
from headstart.rawfile import missing, shown
from headstart.reasons import Reasons
from headstart.rowcache import Cache
from headstart.storage import atomic_file

CHUNK = 16_384  # contents embedded and answered at a time
OTHERS = (".txt", ".arrow", ".feather", ".zip", ".tar", *picturefile.ENDINGS)
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
    if " " not in source and (path.suffix.lower() in (*ENDINGS, *OTHERS) or len(path.parts) > 1):
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise NotFound(f"{source}: no such file." + near(path.name, siblings))
    return True


def is_one(model: Model, source: str) -> bool:
    """Whether the INPUT of `predict` is one content: a text, or the file of one picture, by its content or its name.

    Raises NotFound for a file that is not there, InputError for an empty INPUT.
    """
    if model.modality == "text":
        return is_text(source)
    if source == "-":
        return False
    if not source.strip():
        raise InputError("the input is empty: give a picture, a folder, an archive or a table of pictures.")
    if not os.path.exists(source):
        raise NotFound(f"{missing(Path(source))} Model {model.name!r} reads pictures.")
    try:
        return os.path.isfile(source) and (
            picturefile.is_like(source) or picturefile.kind(picturefile.head(Path(source))) is not None
        )
    except OSError as error:
        raise InputError(f"{shown(source)}: it cannot be read: {(error.strerror or str(error)).lower()}.") from None


def predict_one(
    model: Model, contents: Sequence[str | bytes | Path], *, why: bool = False, every: bool = False
) -> list[dict[str, Any]]:
    """One dictionary a content: text (or file), label, probability, unknown (labels; value), and what else was asked.

    Contents are texts, or paths or bytes of pictures. Raises as `Model.predict` does.
    """
    cache = Cache()
    read = model.contents(contents)
    X = model.embedded(contents, read, cache=cache).values
    answers = model.answer(X)
    reasons = Reasons(model, cache).of(read, X, answers) if why else None
    found = []
    for i, (given, prediction) in enumerate(zip(contents, model.predictions(answers, every=every), strict=True)):
        row: dict[str, Any] = {"unknown": prediction.unknown}
        if not isinstance(given, bytes):
            row = {"text" if model.modality == "text" else "file": str(given), **row}
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
    image: str | None = None,
    encoding: str | None = None,
    broken: str = SKIP,
    to_json: bool = False,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> dict[str, Any]:
    """Predict every row of a source, or a single content, into a file or to standard output.

    Returns {rows, unknown, broken: [{row, name, reason}], output, notes}. Memory is bounded by one batch. A row without
    text is answered like an empty text; a picture that cannot be read gets no answer and its reason in the column
    `error`, or with `broken` "refuse" raises DataError. Raises DataError too when no picture at all can be read.
    """
    if broken not in BROKEN:
        raise InputError(f"--broken {broken} is neither skip nor refuse.")
    if output is not None:
        ending(output)
        if not output.parent.exists():
            raise InputError(f"{output.parent}: no such folder to write {output.name} into.")
        if isinstance(source, str) and output.exists() and os.path.exists(source) and output.samefile(source):
            raise InputError(f"{output}: that is the input; give the output another name.")
    single = isinstance(source, str) and is_one(model, source)
    if single:
        text, image = ("text", None) if model.modality == "text" else (None, FILE)
        source = pa.table({text or FILE: [source]})
    batches, opened = read_contents(source, text=text, image=image, encoding=encoding, modality=model.modality)
    base = model.backbone  # loaded, or missed, before anything is written
    cache = Cache()
    reasons = Reasons(model, cache, pictures=False) if why else None
    rows = unknown = 0

    def say(done: int) -> None:
        if progress is not None:
            progress("predicting", rows + done, opened.rows)

    unread: list[Fault] = []
    with sink(output, to_json=to_json) as out:
        say(0)
        for numbers, contents, given, names, wrong in batches:
            for start in range(0, len(contents), CHUNK):
                answered = _Answered.of(model, base, cache, reasons, contents.slice(start, CHUNK), every=every, say=say)
                part = given.slice(start, CHUNK)
                said = {i - start: why for i, why in wrong.items() if start <= i < start + len(part)} | answered.faults
                unread += [
                    Fault(int(numbers[start + i]), names[start + i] if names else f"row {numbers[start + i]}", why)
                    for i, why in sorted(said.items())
                ]
                if said and broken == REFUSE:
                    raise DataError(
                        f"{unread[0].name}: {unread[0].reason}.", file=opened.name, row=unread[0].row,
                        todo="Repair or remove it, or use --broken skip.",
                    )  # fmt: skip
                out.write(beside(part, answered.columns(said if model.modality != "text" else None)))
                rows, unknown = rows + len(part), unknown + answered.unknown
                say(0)
                opened.notes.extend(note for note in answered.notes if note not in opened.notes)
        if len(unread) == rows:
            first = f"{unread[0].name}: {unread[0].reason}"
            if single:
                raise DataError(first + ".")
            raise DataError(f"none of its {rows:,} pictures can be read ({first}).", file=opened.name)
    return {
        "rows": rows, "unknown": unknown, "broken": [asdict(fault) for fault in unread],
        "output": None if output is None else str(output), "notes": [] if single else opened.notes,
    }  # fmt: skip


@dataclass(frozen=True)
class _Answered:
    """The answers to one piece of the input."""

    n: int
    sound: NDArray[np.int64]  # places of the contents that were read
    added: dict[str, pa.Array]  # for those
    faults: dict[int, str]  # place -> reason
    unknown: int
    notes: tuple[str, ...]  # of the cache

    @classmethod
    def of(
        cls,
        model: Model,
        base: Backbone,
        cache: Cache,
        reasons: Reasons | None,
        contents: pa.Array,
        *,
        every: bool,
        say: Callable[[int], None],
    ) -> _Answered:
        """Embed and answer the contents that are there; `say` is told how many have their reasons."""
        there = np.flatnonzero(contents.is_valid().to_numpy(zero_copy_only=False))
        given = contents.take(pa.array(there)).to_pylist()
        faults: dict[int, str] = {}
        features = embed(given, base, cache, faults=faults)
        X = features.values
        read = [i for i in range(len(given)) if i not in faults]
        if faults:
            X, given = X[read], [given[i] for i in read]
        answers = model.answer(X)
        added = columns(model, answers, every=every)
        if reasons is not None:
            found = reasons.of(given, X, answers, say)
            added["why"] = pa.array([jsontext.write(one) for one in found], pa.large_string())
        wrong = {int(there[i]): why for i, why in faults.items()}
        return cls(len(contents), there[read], added, wrong, int(answers.unknown.sum()), features.notes)

    def columns(self, said: dict[int, str] | None) -> dict[str, pa.Array]:
        """The columns to add, null where nothing was read; with the reasons beside them, where `said` is given."""
        found = self.added
        if len(self.sound) < self.n:
            place = np.full(self.n, -1)
            place[self.sound] = np.arange(len(self.sound))
            index = pa.array(place, mask=place < 0)
            found = {name: column.take(index) for name, column in found.items()}
        if said is not None:
            found = {**found, "error": pa.array([said.get(i) for i in range(self.n)], pa.large_string())}
        return found
