"""A data set: texts with labels, splits, groups and where they came from; and how one is read.

read(where)        everything, for `fit` and `evaluate`; large contents lie on disk, memory-mapped
read_texts(where)  a stream of texts in bounded memory, for `predict`
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headstart import example
from headstart.batches import Contents
from headstart.errors import DataError, near
from headstart.head import CLASSIFICATION
from headstart.labels import Where, settle
from headstart.roles import SPLITS, Roles, choose, code_names
from headstart.source import Source, open_source

SAMPLE = 20_000  # rows that are looked at to choose the columns
ROW_LIMIT = 100_000_000  # rows of one data set
_BLANK = r"^[\s\p{Z}\p{Cf}\p{Cc}]*$"  # spaces, zero-width and control characters


@dataclass(frozen=True)
class Dataset:
    """n examples in the order of their source."""

    name: str  # "tickets.csv", "memory"
    task: str
    contents: pa.ChunkedArray  # (n,) large_string; memory-mapped when large
    labels: tuple[str, ...]  # (c,) in sorted order; () for regression
    T: NDArray[np.float32]  # (n, c) several labels; (n, 1) regression, NaN unlabelled; (n, 0) classification: see y
    y: NDArray[np.int32]  # (n,) codes, -1 unlabelled; several labels and regression: 0 labelled, -1 unlabelled
    rows: NDArray[np.int64]  # (n,) 1-based row in the source
    keys: NDArray[np.uint64]  # (n, 2) content keys
    split: NDArray[np.str_] | None  # (n,) "train", "validation" or "test"
    group: NDArray[np.int64] | None  # (n,) codes; rows of one group stay together
    ids: pa.ChunkedArray | None  # (n,) large_string
    weight: NDArray[np.float32] | None  # (n,) >= 0
    notes: tuple[str, ...]  # one line each: what was chosen and why, what was left out and how much
    digest: str  # sha256 hex of the source's bytes, or of contents and labels when it has none
    duplicates: int = 0  # rows whose content came in an earlier row
    conflicts: int = 0  # contents that come with different labels
    roles: Roles | None = None  # the column that plays each role

    def __len__(self) -> int:
        return len(self.y)

    def targets(self) -> NDArray[np.float32]:
        """(n, c) float32: one-hot for classification, zeros where unlabelled; otherwise T."""
        if self.task != CLASSIFICATION:
            return self.T
        found = np.zeros((len(self), len(self.labels)), np.float32)
        labelled = np.flatnonzero(self.y >= 0)
        found[labelled, self.y[labelled]] = 1
        return found

    def texts(self, index: NDArray[np.int64] | None = None) -> list[str]:
        """The contents as strings, of all n rows or of those at `index`."""
        found: list[str] = (self.contents if index is None else self.contents.take(pa.array(index))).to_pylist()
        return found

    def take(self, index: NDArray[np.int64]) -> Dataset:
        """The data set of the rows at `index`, in that order; labels, notes and digest stay, the counts are new."""
        index = np.asarray(index, np.int64)
        at = pa.array(index)
        part = replace(
            self,
            contents=self.contents.take(at),
            T=self.T[index],
            y=self.y[index],
            rows=self.rows[index],
            keys=self.keys[index],
            split=None if self.split is None else self.split[index],
            group=None if self.group is None else self.group[index],
            ids=None if self.ids is None else self.ids.take(at),
            weight=None if self.weight is None else self.weight[index],
        )
        duplicates, conflicts, _ = _repeats(part.keys, part.y, part.T, part.rows)
        return replace(part, duplicates=duplicates, conflicts=conflicts)


def read(
    where: object,
    *,
    text: str | None = None,
    label: str | None = None,
    split: str | None = None,
    group: str | None = None,
    id: str | None = None,
    weight: str | None = None,
    task: str | None = None,
    names: object = None,
    encoding: str | None = None,
    labelled: bool = True,
    known: Sequence[str] | None = None,
) -> Dataset:
    """Read a data set from a path, '-' or a table in memory (see `open_source`).

    Column arguments override what is found. `names` is a second file (or a dict) that names the codes in the label
    column. `labelled=False` reads texts alone. `known` are the labels of an existing model, for a file it is to be
    measured on: codes then follow its order, one class is enough, and a label it does not have is an error. Blank texts
    are left out and counted. Raises NotFound, InputError or DataError, each with what to do.
    """
    source = open_source(where, encoding=encoding)
    if source.rows is not None and source.rows > ROW_LIMIT:
        raise DataError(f"{source.rows:,} rows; a data set may have {ROW_LIMIT:,}.", file=source.name)
    asked = {"text": text, "label": label, "split": split, "group": group, "id": id, "weight": weight}
    roles, batches = _roles(source, asked, labelled=labelled)
    columns = {role: column for role in asked if (column := getattr(roles, role)) is not None}
    contents = Contents()
    parts: dict[str, list[pa.Array]] = {role: [] for role in columns if role != "text"}
    rows: list[NDArray[np.int64]] = []
    keys: list[NDArray[np.uint64]] = []
    seen = 0
    for batch in batches:
        texts = _strings(batch.column(columns["text"]), source.name, columns["text"], seen)
        kept = pc.invert(pc.fill_null(pc.match_substring_regex(texts, _BLANK), True))
        rows.append(np.flatnonzero(kept.to_numpy(zero_copy_only=False)) + seen + 1)
        seen += batch.num_rows
        if seen > ROW_LIMIT:
            raise DataError(f"more than {ROW_LIMIT:,} rows, the most a data set may have.", file=source.name)
        full = len(rows[-1]) == batch.num_rows
        texts = texts if full else texts.filter(kept)
        contents.add(texts)
        keys.append(example.keys(texts.cast(pa.large_binary()).to_pylist()))
        for role, part in parts.items():
            cells = batch.column(columns[role])
            part.append(cells if full else cells.filter(kept))
    if seen == 0:
        raise DataError("there are no rows.", file=source.name, todo="A header alone is not enough.")
    row, key = np.concatenate(rows), np.concatenate(keys)
    if not len(row):
        raise DataError("every text is blank.", file=source.name, column=columns["text"], todo="Is it the text column?")
    notes = [*source.notes, *roles.why]
    if len(row) < seen:
        blank = f"{seen - len(row):,} of {seen:,} rows {'have' if seen - len(row) > 1 else 'has'} a blank text"
        notes.append(f"{blank} and {'are' if seen - len(row) > 1 else 'is'} left out{_first_missing(row, seen)}")
    held = {role: _joined(part, source.name, columns[role]) for role, part in parts.items()}
    T, y = np.empty((len(row), 0), np.float32), np.full(len(row), -1, np.int32)
    found_task, label_names = task or CLASSIFICATION, tuple(known or ())
    if roles.label is not None:
        place = Where(source.name, roles.label, row)
        codes = None if names is None else code_names(names, _distinct(held["label"]))
        settled = settle(held["label"], place, task=task, codes=codes, known=known)
        T, y, found_task, label_names = settled.T, settled.y, settled.task, settled.names
        notes += settled.notes
    duplicates, conflicts, said = _repeats(key, y, T, row)
    digest = source.digest()
    return Dataset(
        name=source.name,
        task=found_task,
        contents=contents.finish(),
        labels=label_names,
        T=T,
        y=y,
        rows=row,
        keys=key,
        split=_splits(held["split"], row, source.name, columns["split"]) if "split" in held else None,
        group=_groups(held["group"]) if "group" in held else None,
        ids=held["id"].cast(pa.large_string()) if "id" in held else None,
        weight=_weights(held["weight"], row, source.name, columns["weight"]) if "weight" in held else None,
        notes=(*notes, *said),
        digest=_memory_digest(key, label_names, y, T) if digest is None else digest,
        duplicates=duplicates,
        conflicts=conflicts,
        roles=roles,
    )


def read_texts(
    where: object, *, text: str | None = None, encoding: str | None = None
) -> tuple[Iterator[tuple[NDArray[np.int64], pa.LargeStringArray, pa.RecordBatch]], Source]:
    """Stream the texts of a source: batches of (rows (k,), texts (k,) large_string, the columns as given), and it.

    Every row of the source is given, in order; a text that is missing is "". Memory is bounded by one batch.
    """
    source = open_source(where, encoding=encoding)
    roles, batches = _roles(source, {"text": text}, labelled=False)
    source.notes.extend(roles.why)

    def stream() -> Iterator[tuple[NDArray[np.int64], pa.LargeStringArray, pa.RecordBatch]]:
        seen = 0
        for batch in batches:
            texts = pc.fill_null(_strings(batch.column(roles.text), source.name, roles.text, seen), "")
            yield np.arange(seen + 1, seen + len(texts) + 1), texts, batch
            seen += len(texts)
        if seen == 0:
            raise DataError("there are no rows.", file=source.name)

    return stream(), source


def _roles(
    source: Source, asked: Mapping[str, str | None], *, labelled: bool
) -> tuple[Roles, Iterator[pa.RecordBatch]]:
    """The roles of the columns, from the first SAMPLE rows, and all batches."""
    batches = source.batches()
    first: list[pa.RecordBatch] = []
    for batch in batches:
        first.append(batch)
        if sum(b.num_rows for b in first) >= SAMPLE:
            break
    sample = {
        column: _joined([batch.column(i) for batch in first], source.name, column)
        for i, column in enumerate(source.columns)
    }
    if not first:
        raise DataError("there are no rows.", file=source.name, todo="A header alone is not enough.")
    return choose(source.name, pa.table(sample), asked, labelled=labelled), chain(first, batches)


def _strings(cells: pa.Array, file: str, column: str, seen: int) -> pa.Array:
    """Text cells as large_string; numbers are written out. Raises DataError for lists, structures and raw bytes."""
    kind = cells.type
    if pa.types.is_large_string(kind):
        return cells
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise DataError(f"its cells are {kind}, not text.", file=file, row=seen + 1, column=column)
    try:
        return cells.cast(pa.large_string())
    except pa.ArrowException as error:
        raise DataError(f"its cells are {kind}, not text: {error}.", file=file, row=seen + 1, column=column) from None


def _joined(parts: Sequence[pa.Array], file: str, column: str) -> pa.ChunkedArray:
    """One column of parts that may differ in type: all texts, or all lists of texts, where they do."""
    kinds = {part.type for part in parts} - {pa.null()}
    if len(kinds) == 1:
        kind = kinds.pop()
    elif not kinds:
        kind = pa.large_string()
    elif any(pa.types.is_list(k) or pa.types.is_large_list(k) for k in kinds):
        kind = pa.large_list(pa.large_string())
        parts = [_lists(part, file, column) for part in parts]
    elif all(pa.types.is_integer(k) or pa.types.is_floating(k) for k in kinds):
        kind = pa.float64()
    else:
        kind = pa.large_string()
    try:
        return pa.chunked_array([part.cast(kind) for part in parts], kind)
    except pa.ArrowException as error:
        raise DataError(f"its cells are of kinds that do not fit: {error}.", file=file, column=column) from None


def _lists(part: pa.Array, file: str, column: str) -> pa.Array:
    if pa.types.is_list(part.type) or pa.types.is_large_list(part.type) or pa.types.is_null(part.type):
        return part
    if part.null_count < len(part):
        raise DataError("some cells are lists and others are not.", file=file, column=column)
    return pa.nulls(len(part))


def _first_missing(rows: NDArray[np.int64], seen: int) -> str:
    missing = np.setdiff1d(np.arange(1, min(seen, int(rows[-1]) + 5 if len(rows) else 5) + 1), rows)[:5]
    return f" (row {', '.join(f'{r:,}' for r in missing)}{', ...' if seen - len(rows) > len(missing) else ''})"


def _splits(cells: pa.ChunkedArray, rows: NDArray[np.int64], file: str, column: str) -> NDArray[np.str_]:
    found = np.empty(len(rows), "U10")
    for i, value in enumerate(cells.cast(pa.large_string()).to_pylist()):
        name = (value or "train").strip().lower() or "train"
        if name not in SPLITS:
            raise DataError(
                f"{value!r} names no split.",
                file=file,
                row=int(rows[i]),
                column=column,
                todo=f"Splits are train, validation and test.{near(name, SPLITS)}",
            )
        found[i] = SPLITS[name]
    return found


def _groups(cells: pa.ChunkedArray) -> NDArray[np.int64]:
    """Group codes; an empty cell is a group of its own."""
    encoded = cells.cast(pa.large_string()).combine_chunks().dictionary_encode()
    codes = pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False).copy()
    empty = pc.index(encoded.dictionary, "").as_py()
    alone = (codes < 0) | ((codes == empty) & (empty >= 0))
    codes[alone] = len(encoded.dictionary) + np.arange(int(alone.sum()))
    found: NDArray[np.int64] = np.unique(codes, return_inverse=True)[1].astype(np.int64)
    return found


def _weights(cells: pa.ChunkedArray, rows: NDArray[np.int64], file: str, column: str) -> NDArray[np.float32]:
    found = np.ones(len(rows), np.float32)
    for i, value in enumerate(cells.to_pylist()):
        if value is None or value == "":
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = np.nan
        if not 0 <= number < np.finfo(np.float32).max:
            raise DataError(f"{value!r} is no weight, a number >= 0.", file=file, row=int(rows[i]), column=column)
        found[i] = number
    return found


def _repeats(
    keys: NDArray[np.uint64], y: NDArray[np.int32], T: NDArray[np.float32], rows: NDArray[np.int64]
) -> tuple[int, int, tuple[str, ...]]:
    """How many rows repeat an earlier content, how many contents come with different labels, and both in words."""
    if len(keys) < 2:
        return 0, 0, ()
    order = np.lexsort((rows, keys[:, 1], keys[:, 0]))
    same = np.all(keys[order[1:]] == keys[order[:-1]], axis=1)  # (n-1,) equal to the one before
    duplicates = int(same.sum())
    if not duplicates:
        return 0, 0, ()
    first = order[:-1][same]
    second = order[1:][same]
    labelled = (y[first] >= 0) & (y[second] >= 0)
    unlike = y[first] != y[second]
    if T.shape[1]:
        unlike |= np.any(T[first] != T[second], axis=1)
    group = np.cumsum(np.concatenate([[True], ~same]))[1:][same]  # the content each pair belongs to
    wrong = labelled & unlike
    conflicts = len(np.unique(group[wrong]))
    notes = [
        f"{duplicates:,} {'rows repeat' if duplicates > 1 else 'row repeats'} an earlier text: "
        + _pairs("row {:,} as row {:,}", rows[second], rows[first])
    ]
    if conflicts:
        notes.append(
            f"{conflicts:,} {'texts come' if conflicts > 1 else 'text comes'} with different labels: "
            + _pairs("rows {1:,} and {0:,}", rows[second[wrong]], rows[first[wrong]])
        )
    return duplicates, conflicts, tuple(notes)


def _pairs(form: str, later: NDArray[np.int64], earlier: NDArray[np.int64]) -> str:
    """The first five pairs of rows, in the order of the later one."""
    at = np.argsort(later, kind="stable")[:5]
    return ", ".join(form.format(later[i], earlier[i]) for i in at) + ", ..." * (len(later) > 5)


def _distinct(cells: pa.ChunkedArray) -> set[str]:
    """The different codes in a label column, as text."""
    values = pc.list_flatten(cells).to_pylist() if pa.types.is_nested(cells.type) else cells.unique().to_pylist()
    whole = (int(v) if isinstance(v, float) and v.is_integer() else v for v in values if v is not None)
    return {str(v).strip() for v in whole} - {""}


def _memory_digest(
    keys: NDArray[np.uint64], labels: Sequence[str], y: NDArray[np.int32], T: NDArray[np.float32]
) -> str:
    sha = hashlib.sha256(keys.astype("<u8").tobytes())
    sha.update("\0".join(labels).encode())
    sha.update(y.astype("<i4").tobytes())
    sha.update(T.astype("<f4").tobytes())
    return sha.hexdigest()
