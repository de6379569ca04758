"""A data set: contents with labels, splits, groups and where they came from; and how one is read.

read(where)           everything, for `fit` and `evaluate`; large contents lie on disk, memory-mapped
read_contents(where)  a stream of texts or pictures in bounded memory, for `predict`
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headstart import example
from headstart.batches import Contents
from headstart.columns import (
    distinct,
    first_missing,
    groups,
    joined,
    memory_digest,
    repeats,
    splits,
    strings,
    weights,
)
from headstart.errors import DataError, InputError
from headstart.head import CLASSIFICATION
from headstart.labels import Where, settle
from headstart.picturecells import candidates, is_packed, lost, pieces
from headstart.rawfile import shown
from headstart.roles import Roles, choose, code_names
from headstart.source import IMAGE_COLUMN, Source, open_source

SAMPLE = 20_000  # rows that are looked at to choose the columns
SAMPLE_BYTES = 64 << 20  # of them; pictures are large
ROW_LIMIT = 100_000_000  # rows of one data set
FILE = "file"  # the column of predictions that names a picture
TODO = "Give pictures: a folder, an archive, or a table with a column of paths or of bytes."
_BLANK = r"^[\s\p{Z}\p{Cf}\p{Cc}]*$"  # spaces, zero-width and control characters


@dataclass(frozen=True)
class Fault:
    """A row whose content cannot be read, and is left out."""

    row: int  # 1-based, in the source
    name: str  # of the file, or "row 7"
    reason: str  # without a full stop: "the JPEG file is cut short"


@dataclass(frozen=True)
class Dataset:
    """n examples in the order of their source."""

    name: str  # "tickets.csv", "memory"
    task: str
    contents: pa.ChunkedArray  # (n,) large_string, or large_binary of picture files; memory-mapped when large
    labels: tuple[str, ...]  # (c,) in sorted order; () for regression
    T: NDArray[np.float32]  # (n, c) several labels; (n, 1) regression, NaN unlabelled; (n, 0) classification: see y
    y: NDArray[np.int32]  # (n,) codes, -1 unlabelled; several labels and regression: 0 labelled, -1 unlabelled
    rows: NDArray[np.int64]  # (n,) 1-based row in the source
    keys: NDArray[np.uint64]  # (n, 2) content keys
    split: NDArray[np.str_] | None  # (n,) "train", "validation" or "test"
    group: NDArray[np.int64] | None  # (n,) codes; rows of one group stay together
    ids: pa.ChunkedArray | None  # (n,) large_string; of pictures the names of their files
    weight: NDArray[np.float32] | None  # (n,) >= 0
    notes: tuple[str, ...]  # one line each: what was chosen and why, what was left out and how much
    digest: str  # sha256 hex of the source's bytes, or of contents and labels when it has none
    duplicates: int = 0  # rows whose content came in an earlier row
    conflicts: int = 0  # contents that come with different labels
    roles: Roles | None = None  # the column that plays each role
    modality: str = "text"  # text | image
    faults: tuple[Fault, ...] = ()  # rows that are left out because their content cannot be read

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
        """What a person reads of all n rows or of those at `index`: the texts, or the names of the pictures."""
        if self.modality == "text":
            return self.raw(index)  # type: ignore[return-value]
        if self.ids is None:
            return [f"row {row}" for row in (self.rows if index is None else self.rows[index]).tolist()]
        found: list[str] = (self.ids if index is None else self.ids.take(pa.array(index))).to_pylist()
        return found

    def raw(self, index: NDArray[np.int64] | None = None) -> list[str] | list[bytes]:
        """The contents of all n rows or of those at `index`: texts, or the bytes of picture files."""
        if index is None:
            return self.contents.to_pylist()  # type: ignore[no-any-return]
        return [self.contents[int(i)].as_py() for i in index]  # one by one: a take of Arrow would copy whole chunks

    def take(self, index: NDArray[np.int64]) -> Dataset:
        """The data set of the rows at `index`, in that order; labels, notes and digest stay, the counts are new."""
        index = np.asarray(index, np.int64)
        at = pa.array(index)
        part = replace(
            self,
            contents=_taken(self.contents, index),
            T=self.T[index],
            y=self.y[index],
            rows=self.rows[index],
            keys=self.keys[index],
            split=None if self.split is None else self.split[index],
            group=None if self.group is None else self.group[index],
            ids=None if self.ids is None else self.ids.take(at),
            weight=None if self.weight is None else self.weight[index],
        )
        duplicates, conflicts, _ = repeats(part.keys, part.y, part.T, part.rows)
        return replace(part, duplicates=duplicates, conflicts=conflicts)


def _taken(contents: pa.ChunkedArray, index: NDArray[np.int64]) -> pa.ChunkedArray:
    """The contents at `index`. Pictures are not copied: each run of neighbours is a slice."""
    if not pa.types.is_large_binary(contents.type):
        return contents.take(pa.array(index))
    runs = np.split(index, np.flatnonzero(np.diff(index) != 1) + 1) if len(index) else []
    chunks = [chunk for run in runs for chunk in contents.slice(int(run[0]), len(run)).chunks]
    return pa.chunked_array(chunks, contents.type)


def read(
    where: object,
    *,
    text: str | None = None,
    image: str | None = None,
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
    modality: str | None = None,
) -> Dataset:
    """Read a data set from a path, '-' or a table in memory (see `open_source`).

    Column arguments override what is found; `text` or `image` names the column of contents. `names` is a second file
    (or a dict) that names the codes in the label column. `labelled=False` reads contents alone. `known` are the labels
    of an existing model, for a file it is to be measured on: codes then follow its order, one class is enough, and a
    label it does not have is an error. `modality` refuses contents of the other kind. Blank texts, and files that are
    no pictures, are left out and counted; pictures are not decoded here. Raises NotFound, InputError or DataError, each
    with what to do.
    """
    source = open_source(where, encoding=encoding)
    if source.rows is not None and source.rows > ROW_LIMIT:
        raise DataError(f"{source.rows:,} rows; a data set may have {ROW_LIMIT:,}.", file=source.name)
    asked = {"text": text, "image": image, "label": label, "split": split, "group": group, "id": id, "weight": weight}
    roles, batches = _roles(source, asked, labelled=labelled, modality=modality)
    columns = {role: column for role in asked if (column := getattr(roles, role)) is not None}
    kind = "text" if roles.image is None else "image"
    contents = Contents(pa.large_string() if kind == "text" else pa.large_binary())
    parts: dict[str, list[pa.Array]] = {role: [] for role in columns if role not in ("text", "image")}
    rows: list[NDArray[np.int64]] = []
    keys: list[NDArray[np.uint64]] = []
    files: list[str] = []
    faults: list[Fault] = []
    misnamed: list[str] = []
    unseen: set[str] = set()  # labels of files that cannot be read
    seen = 0
    for batch, found, filed, reasons, odd in _contents(source, roles, batches):
        kept = pc.is_valid(found)
        rows.append(np.flatnonzero(kept.to_numpy(zero_copy_only=False)) + seen + 1)
        faults += [Fault(seen + at + 1, filed[at], why) for at, why in reasons.items()]
        misnamed += odd
        seen += batch.num_rows
        if seen > ROW_LIMIT:
            raise DataError(f"more than {ROW_LIMIT:,} rows, the most a data set may have.", file=source.name)
        full = len(rows[-1]) == batch.num_rows
        found = found if full else found.drop_null()
        contents.add(found)
        files += filed if full else [name for at, name in enumerate(filed) if at not in reasons]
        keys.append(example.keys(found.cast(pa.large_binary()).to_pylist()))
        for role, part in parts.items():
            cells = batch.column(columns[role])
            part.append(cells if full else cells.filter(kept))
            if role == "label" and reasons and pa.types.is_large_string(cells.type):
                unseen.update(cells.take(pa.array(list(reasons))).drop_null().to_pylist())
    if seen == 0:
        raise DataError("there are no rows.", file=source.name, todo="A header alone is not enough.")
    row, key = np.concatenate(rows), np.concatenate(keys)
    if not len(row):
        if faults:
            what = f"none of its {seen:,} rows has a picture that can be read ({faults[0].name}: {faults[0].reason})."
            raise DataError(what, file=source.name, column=columns["image"])
        raise DataError("every text is blank.", file=source.name, column=columns["text"], todo="Is it the text column?")
    notes = [*source.notes, *roles.why]
    if misnamed:
        said = f"{len(misnamed):,} pictures are of another kind than their endings say"
        if len(misnamed) == 1:
            said = "1 picture is of another kind than its ending says"
        notes.append(f"{said}: {few(misnamed)}")
    if faults:
        said = few([f"{fault.name}: {fault.reason}" for fault in faults], "; ")
        notes.append(f"{len(faults):,} of {seen:,} files cannot be read as pictures and are left out: {said}")
    elif len(row) < seen:
        blank = f"{seen - len(row):,} of {seen:,} rows {'have' if seen - len(row) > 1 else 'has'} a blank text"
        notes.append(f"{blank} and {'are' if seen - len(row) > 1 else 'is'} left out{first_missing(row, seen)}")
    held = {role: joined(part, source.name, columns[role]) for role, part in parts.items()}
    T, y = np.empty((len(row), 0), np.float32), np.full(len(row), -1, np.int32)
    found_task, label_names = task or CLASSIFICATION, tuple(known or ())
    if roles.label is not None:
        place = Where(source.name, roles.label, row)
        codes = None if names is None else code_names(names, distinct(held["label"]))
        settled = settle(held["label"], place, task=task, codes=codes, known=known)
        T, y, found_task, label_names = settled.T, settled.y, settled.task, settled.names
        notes += settled.notes
        if found_task == CLASSIFICATION and known is None and codes is None:
            gone = sorted(label for label in unseen if label.strip() and label.strip() not in label_names)
            if gone:
                notes.append(
                    f"no picture of {few([repr(label) for label in gone])} can be read: these labels are unknown"
                )
    duplicates, conflicts, said_of = repeats(key, y, T, row, "text" if kind == "text" else "picture")
    digest = None if kind == "image" and not source.inside else source.digest()
    ids = held["id"].cast(pa.large_string()) if "id" in held else None
    if kind == "image" and id is None:
        ids = pa.chunked_array([pa.array(files, pa.large_string())])
    return Dataset(
        name=source.name,
        task=found_task,
        contents=contents.finish(),
        labels=label_names,
        T=T,
        y=y,
        rows=row,
        keys=key,
        split=splits(held["split"], row, source.name, columns["split"]) if "split" in held else None,
        group=groups(held["group"]) if "group" in held else None,
        ids=ids,
        weight=weights(held["weight"], row, source.name, columns["weight"]) if "weight" in held else None,
        notes=(*notes, *said_of),
        digest=memory_digest(key, label_names, y, T) if digest is None else digest,
        duplicates=duplicates,
        conflicts=conflicts,
        roles=roles,
        modality=kind,
        faults=tuple(faults),
    )


Streamed = tuple[NDArray[np.int64], pa.Array, pa.RecordBatch, list[str], dict[int, str]]


def read_contents(
    where: object,
    *,
    text: str | None = None,
    image: str | None = None,
    encoding: str | None = None,
    modality: str = "text",
) -> tuple[Iterator[Streamed], Source]:
    """Stream the contents of a source: batches of (rows, contents, columns, names, reasons), and the source.

    rows (k,) int64 from 1; contents (k,) large_string, or large_binary of picture files; the columns as given, but for
    pictures that lie in cells, whose names stand in a column "file"; names (k,) of the pictures, none of texts; reasons
    place -> why there is no picture. Every row of the source is given, in order; a text that is missing is "", a picture
    null. Memory is bounded by one batch: of
    pictures at most 256, and 64 MB or one picture. Raises InputError for contents of the other modality.
    """
    source = open_source(where, encoding=encoding)
    roles, batches = _roles(source, {"text": text, "image": image}, labelled=False, modality=modality)
    source.notes.extend(roles.why)

    def stream() -> Iterator[Streamed]:
        seen = 0
        for batch, found, filed, reasons, _ in _contents(source, roles, batches, blank=True):
            given = batch if roles.image is None else _named(batch, roles.image, filed)
            yield np.arange(seen + 1, seen + len(found) + 1), found, given, filed, reasons
            seen += len(found)
        if seen == 0:
            raise DataError("there are no rows.", file=source.name)

    return stream(), source


def read_texts(
    where: object, *, text: str | None = None, encoding: str | None = None
) -> tuple[Iterator[tuple[NDArray[np.int64], pa.LargeStringArray, pa.RecordBatch]], Source]:
    """`read_contents` of texts, without the reasons there cannot be."""
    stream, source = read_contents(where, text=text, encoding=encoding)
    return ((rows, texts, given) for rows, texts, given, *_ in stream), source


_Read = tuple[pa.RecordBatch, pa.Array, list[str], dict[int, str], list[str]]


def _contents(
    source: Source, roles: Roles, batches: Iterable[pa.RecordBatch], *, blank: bool = False
) -> Iterator[_Read]:
    """Batches with their contents, the names of the files, why some are null, and the names that are wrong.

    A blank text is null, or with `blank` as it is.
    """
    seen = 0
    for batch in batches:
        cells = batch.column(roles.content)
        if roles.image is None:
            texts = strings(cells, source.name, roles.content, seen)
            if blank:
                texts = pc.fill_null(texts, "")
            else:
                texts = pc.if_else(pc.match_substring_regex(texts, _BLANK), None, texts)
            yield batch, texts, [], {}, []
        elif not (is_packed(cells.type) or pa.types.is_large_string(cells.type) or pa.types.is_null(cells.type)):
            what = f"its cells are {cells.type}, neither pictures nor paths."
            raise DataError(what, file=source.name, row=seen + 1, column=roles.image)
        else:
            for piece in pieces(cells, source.load, seen):
                found = pa.array(piece.contents, pa.large_binary())
                yield batch.slice(piece.start, len(found)), found, piece.names, piece.reasons, piece.misnamed
        seen += batch.num_rows


def _named(batch: pa.RecordBatch, column: str, names: Sequence[str]) -> pa.RecordBatch:
    """The columns with the names of the pictures instead of their bytes."""
    kept = [i for i, field in enumerate(batch.schema) if not is_packed(field.type) and field.name != FILE]
    if pa.types.is_large_string(batch.column(column).type) and column not in (IMAGE_COLUMN, FILE):
        return batch.select(kept)  # a column of paths stays what it was
    kept = [i for i in kept if batch.schema.names[i] != column]
    files = pa.array(names, pa.large_string())
    arrays = [files, *(batch.column(i) for i in kept)]
    return pa.RecordBatch.from_arrays(arrays, names=[FILE, *(batch.schema.names[i] for i in kept)])


def _roles(
    source: Source, asked: Mapping[str, str | None], *, labelled: bool, modality: str | None
) -> tuple[Roles, Iterator[pa.RecordBatch]]:
    """The roles of the columns, from the first SAMPLE rows, and all batches. Raises InputError for the other modality."""
    batches = source.batches()
    first: list[pa.RecordBatch] = []
    for batch in batches:
        first.append(batch)
        if sum(b.num_rows for b in first) >= SAMPLE or sum(b.nbytes for b in first) >= SAMPLE_BYTES:
            break
    sample = pa.table(
        {
            column: joined([batch.column(i) for batch in first], source.name, column)
            for i, column in enumerate(source.columns)
        }
    )
    if not first:
        raise DataError("there are no rows.", file=source.name, todo="A header alone is not enough.")
    if source.modality == "image":
        pictures = {IMAGE_COLUMN: "the pictures"}
    else:
        pictures = {} if asked.get("image") else candidates(sample, source.load)
    wanted = modality if not (asked.get("text") or asked.get("image")) else None
    if modality == "image" and (asked.get("text") or (wanted and not pictures)):
        gone = None if asked.get("text") else lost(sample)
        if gone is not None:
            raise DataError(
                f"there is no picture {shown(gone[1])!r}; paths are relative to the file.",
                file=source.name,
                row=1,
                column=gone[0],
            )
        raise InputError(f"{source.name} holds texts, but pictures are wanted. {TODO}")
    if modality == "text" and (asked.get("image") or source.modality == "image"):
        raise InputError(f"{source.name} holds pictures, but texts are wanted.")
    found = choose(source.name, sample, asked, labelled=labelled, pictures=pictures, modality=wanted)
    if found.image is None and not asked.get("text") and (gone := lost(sample.select([found.content]))) is not None:
        raise DataError(
            f"its cells end like pictures, but there is no {shown(gone[1])!r}.",
            file=source.name,
            row=1,
            column=found.content,
            todo="Paths are relative to the file that holds them. If they are texts, say so with --text.",
        )
    return found, chain(first, batches)


def few(names: Sequence[str], between: str = ", ") -> str:
    """The first five of many."""
    return between.join(names[:5]) + f"{between}..." * (len(names) > 5)
