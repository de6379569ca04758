"""What the other columns of a data set say: splits, groups, weights; and which rows repeat others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headstart.errors import DataError, near
from headstart.roles import SPLITS


def strings(cells: pa.Array, file: str, column: str, seen: int) -> pa.Array:
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


def joined(parts: Sequence[pa.Array], file: str, column: str) -> pa.ChunkedArray:
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


def first_missing(rows: NDArray[np.int64], seen: int) -> str:
    """The first rows that are missing, in words."""
    missing = np.setdiff1d(np.arange(1, min(seen, int(rows[-1]) + 5 if len(rows) else 5) + 1), rows)[:5]
    return f" (row {', '.join(f'{r:,}' for r in missing)}{', ...' if seen - len(rows) > len(missing) else ''})"


def splits(cells: pa.ChunkedArray, rows: NDArray[np.int64], file: str, column: str) -> NDArray[np.str_]:
    """The split of each row: train, validation or test; an empty cell is train. Raises DataError."""
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


def groups(cells: pa.ChunkedArray) -> NDArray[np.int64]:
    """Group codes; an empty cell is a group of its own."""
    encoded = cells.cast(pa.large_string()).combine_chunks().dictionary_encode()
    codes = pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False).copy()
    empty = pc.index(encoded.dictionary, "").as_py()
    alone = (codes < 0) | ((codes == empty) & (empty >= 0))
    codes[alone] = len(encoded.dictionary) + np.arange(int(alone.sum()))
    found: NDArray[np.int64] = np.unique(codes, return_inverse=True)[1].astype(np.int64)
    return found


def weights(cells: pa.ChunkedArray, rows: NDArray[np.int64], file: str, column: str) -> NDArray[np.float32]:
    """Numbers >= 0; an empty cell is 1. Raises DataError."""
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


def repeats(
    keys: NDArray[np.uint64],
    y: NDArray[np.int32],
    T: NDArray[np.float32],
    rows: NDArray[np.int64],
    what: str = "text",
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
        f"{duplicates:,} {'rows repeat' if duplicates > 1 else 'row repeats'} an earlier {what}: "
        + _pairs("row {:,} as row {:,}", rows[second], rows[first])
    ]
    if conflicts:
        notes.append(
            f"{conflicts:,} {what}{'s come' if conflicts > 1 else ' comes'} with different labels: "
            + _pairs("rows {1:,} and {0:,}", rows[second[wrong]], rows[first[wrong]])
        )
    return duplicates, conflicts, tuple(notes)


def _pairs(form: str, later: NDArray[np.int64], earlier: NDArray[np.int64]) -> str:
    """The first five pairs of rows, in the order of the later one."""
    at = np.argsort(later, kind="stable")[:5]
    return ", ".join(form.format(later[i], earlier[i]) for i in at) + ", ..." * (len(later) > 5)


def distinct(cells: pa.ChunkedArray) -> set[str]:
    """The different codes in a label column, as text."""
    values = pc.list_flatten(cells).to_pylist() if pa.types.is_nested(cells.type) else cells.unique().to_pylist()
    whole = (int(v) if isinstance(v, float) and v.is_integer() else v for v in values if v is not None)
    return {str(v).strip() for v in whole} - {""}


def memory_digest(keys: NDArray[np.uint64], labels: Sequence[str], y: NDArray[np.int32], T: NDArray[np.float32]) -> str:
    """Sha256 of contents and labels, in hex, where there is no file to take it of."""
    sha = hashlib.sha256(keys.astype("<u8").tobytes())
    sha.update("\0".join(labels).encode())
    sha.update(y.astype("<i4").tobytes())
    sha.update(T.astype("<f4").tobytes())
    return sha.hexdigest()
