"""From the cells of a label column to codes: which task it is, what the labels are called, and what is wrong with them.

Labels are stripped and NFC-normalised, so labels that look the same are the same. An empty cell is unlabelled; the
text "NaN" is a label. Nothing else about a name is touched.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headstart import jsontext
from headstart.errors import DataError, InputError, near
from headstart.head import CLASSIFICATION, MULTILABEL, REGRESSION, TASKS

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SEPARATORS = (";", "|", ",")
FEW = 20  # whole numbers with at most so many values are classes
MANY = 1000  # classes, above which labels that hardly repeat look like an identifier


@dataclass(frozen=True)
class Labels:
    """What a label column says of n rows."""

    task: str
    names: tuple[str, ...]  # (c,) sorted; () for regression
    y: NDArray[np.int32]  # (n,) codes, or 0 where there is a label; -1 unlabelled
    T: NDArray[np.float32]  # (n, c) several labels, (n, 1) regression with NaN for unlabelled, (n, 0) classification
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Where:
    """Where label cells came from, for messages: the file, the column and the source row of each cell."""

    file: str
    column: str
    rows: NDArray[np.int64]

    def fault(self, what: str, cell: int, todo: str | None = None) -> DataError:
        """A DataError about one cell."""
        return DataError(what, file=self.file, row=int(self.rows[cell]), column=self.column, todo=todo)


def settle(
    cells: pa.ChunkedArray,
    where: Where,
    *,
    task: str | None = None,
    codes: Mapping[str, str] | None = None,
    known: Sequence[str] | None = None,
) -> Labels:
    """Turn label cells (texts, numbers, truth values or lists) into codes.

    `codes` names the values in the cells. `known` are the labels of an existing model: codes then follow their order,
    and a label outside of them is an error; without it, what cannot be learnt (one class, an identifier) is an error.
    """
    if task is not None and task not in TASKS:
        raise InputError(f"There is no task {task!r}.{near(task, TASKS)}")
    if pa.types.is_list(cells.type) or pa.types.is_large_list(cells.type):
        if task not in (None, MULTILABEL):
            raise InputError(f"{where.file}: the column {where.column!r} holds lists of labels, which is no {task}.")
        return _several(cells, where, codes, known, ())
    raw = cells.dictionary_encode().unify_dictionaries()
    values = raw.chunk(0).dictionary.to_pylist() if raw.num_chunks else []
    index = np.concatenate([_codes(chunk) for chunk in raw.chunks]) if raw.num_chunks else np.empty(0, np.int64)
    texts = _texts(values, where, index)
    counts = np.bincount(index[index >= 0], minlength=len(values))
    filled = {text: 0 for text in texts if text}
    for text, count in zip(texts, counts, strict=True):
        if text:
            filled[text] += int(count)
    if not filled and known is None:
        raise DataError(
            "every cell is empty.",
            file=where.file,
            column=where.column,
            todo="Fill in some labels, or give --labels a,b,c for a model without any labelled rows.",
        )
    notes: list[str] = []
    found = task is None
    if task is None:
        task = _task(filled, codes, known, notes)
    if task == REGRESSION:
        return _number(texts, index, where, notes)
    if task == MULTILABEL:
        lists, note = _parted(list(texts), filled, known)
        parts = pa.array(lists, pa.large_list(pa.large_string()))
        column = pa.chunked_array([parts.take(pa.array(index, mask=index < 0))])
        return _several(column, where, codes, known, (*notes, *note))
    if codes is None and all(_NUMBER.fullmatch(text) and float(text).is_integer() for text in filled):
        texts = [text and _whole(text, known) for text in texts]
    return _one(texts, index, where, codes, known, notes, found=found)


def _one(
    texts: list[str],
    index: NDArray[np.int64],
    where: Where,
    codes: Mapping[str, str] | None,
    known: Sequence[str] | None,
    notes: list[str],
    *,
    found: bool,
) -> Labels:
    texts = [text and _name(text, codes, where, index, i) for i, text in enumerate(texts)]
    names, table = _numbered(texts, known, where, lambda i: int(np.argmax(index == i)))
    lookup = np.append(table, -1).astype(np.int32)  # the last is for a null
    y = lookup[index]
    if known is None:
        _check(names, y, where, notes, running=found and codes is None)
    return Labels(CLASSIFICATION, names, y, np.empty((len(y), 0), np.float32), tuple(notes))


def _several(
    cells: pa.ChunkedArray,
    where: Where,
    codes: Mapping[str, str] | None,
    known: Sequence[str] | None,
    notes: tuple[str, ...],
) -> Labels:
    """Lists of labels; a null is unlabelled, an empty list is labelled with none."""
    n = len(cells)
    column = cells.combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], cells.type)
    parents = pc.list_parent_indices(column).to_numpy(zero_copy_only=False).astype(np.int64)
    raw = pc.list_flatten(column).dictionary_encode()
    index = _codes(raw)
    texts = _texts(raw.dictionary.to_pylist(), Where(where.file, where.column, where.rows[parents]), index)
    inner = Where(where.file, where.column, where.rows[parents])
    if codes is None and texts and all(_NUMBER.fullmatch(text) and float(text).is_integer() for text in texts if text):
        texts = [text and _whole(text, known) for text in texts]
    texts = [text and _name(text, codes, inner, index, i) for i, text in enumerate(texts)]
    names, table = _numbered(texts, known, inner, lambda i: int(np.argmax(index == i)))
    if not names:
        raise DataError("no row has a label.", file=where.file, column=where.column)
    code = np.append(table, -1)[index]
    T = np.zeros((n, len(names)), np.float32)
    T[parents[code >= 0], code[code >= 0]] = 1
    y = np.where(column.is_null().to_numpy(zero_copy_only=False), -1, 0).astype(np.int32)
    said = list(notes)
    if known is None:
        if len(names) < 2:
            raise DataError(
                f"there is only one label, {names[0]!r}.", file=where.file, column=where.column, todo="Two are needed."
            )
        _unlabelled(y, said)
        positive = T.sum(0)
        lone = [repr(names[j]) for j in np.flatnonzero(positive == 1)]
        _say_lone(lone, said)
    return Labels(MULTILABEL, names, y, T, tuple(said))


def _number(texts: list[str], index: NDArray[np.int64], where: Where, notes: list[str]) -> Labels:
    values = np.full(len(texts) + 1, np.nan, np.float32)
    for i, text in enumerate(texts):
        if not text:
            continue
        number = float(text) if _NUMBER.fullmatch(text) else math.inf
        if not abs(number) <= np.finfo(np.float32).max:
            raise where.fault(f"{text[:40]!r} is not a finite number.", int(np.argmax(index == i)))
        values[i] = number
    T = values[index].reshape(-1, 1)
    y = np.where(np.isnan(T[:, 0]), -1, 0).astype(np.int32)
    known = T[y == 0, 0]
    if len(known) and known.min() == known.max():
        what = f"every number is {known[0]:g}, so there is nothing to learn."
        raise DataError(what, file=where.file, column=where.column)
    _unlabelled(y, notes)
    return Labels(REGRESSION, (), y, T, tuple(notes))


def _task(
    filled: Mapping[str, int], codes: Mapping[str, str] | None, known: Sequence[str] | None, notes: list[str]
) -> str:
    """The task that the different label texts and their counts show; says so where it might be another."""
    if codes is not None or (known is not None and set(filled) <= set(known)):
        return CLASSIFICATION
    if all(_NUMBER.fullmatch(text) for text in filled):
        return _number_or_class(filled, notes)
    for separator in _SEPARATORS[:2]:
        if _is_parted(filled, separator):
            return MULTILABEL
    if all(text.startswith("[") and _json_list(text) is not None for text in filled):
        return MULTILABEL
    return CLASSIFICATION


def _number_or_class(filled: Mapping[str, int], notes: list[str]) -> str:
    n, numbers = sum(filled.values()), sorted({float(text) for text in filled})
    c = len(numbers)
    if c <= 2:
        return CLASSIFICATION
    whole = all(number.is_integer() for number in numbers)
    counted = whole and numbers[0] in (0, 1) and numbers[-1] - numbers[0] == c - 1
    if whole and _is_running(numbers, n):
        return CLASSIFICATION  # which is then refused as an identifier
    if whole and ((c <= FEW and (counted or c <= n / 2)) or (counted and n >= 5 * c)):
        notes.append(f"task: the {c} different whole numbers are taken as classes; use --task regression for a number")
        return CLASSIFICATION
    if not whole and c <= 10 and n >= 5 * c:
        notes.append(f"task: the {c} different numbers are taken as classes; use --task regression for a number")
        return CLASSIFICATION
    notes.append(f"task: {c:,} different numbers are taken as a number to predict; else use --task classification")
    return REGRESSION


def _is_running(numbers: Sequence[float], n: int) -> bool:
    """Whether sorted whole numbers are dense and hardly repeat on n rows, as row numbers do."""
    c = len(numbers)
    return c > FEW and 2 * c > n and numbers[-1] - numbers[0] < 2 * c


def _is_parted(filled: Mapping[str, int], separator: str) -> bool:
    """Whether cells hold several labels between separators: the parts are few, and come in different company."""
    several = [text for text in filled if separator in text]
    if not several or len(filled) < 2:
        return False
    company: Counter[str] = Counter()
    for text in filled:
        parts = {part.strip() for part in text.split(separator)}
        if "" in parts:
            return False
        company.update(parts)
    inside = {part.strip() for text in several for part in text.split(separator)}
    shared = sum(company[part] >= 2 for part in inside)
    few = len(company) < len(filled) or len(company) <= sum(filled.values()) / 2
    return few and shared >= 0.8 * len(inside)


def _parted(
    texts: list[str], filled: Mapping[str, int], known: Sequence[str] | None
) -> tuple[list[list[str] | None], tuple[str, ...]]:
    """Each different cell as a list of labels (None: empty), and what was found to part them."""
    if filled and all(_json_list(text) is not None for text in filled):
        return [_json_list(text) if text else None for text in texts], ("several labels a cell: JSON lists",)
    whole = set(known or ())
    counts = {s: sum(n for text, n in filled.items() if s in text and text not in whole) for s in _SEPARATORS}
    strong = [s for s in _SEPARATORS if counts[s] and _is_parted(filled, s)]
    separator = strong[0] if strong else max(_SEPARATORS, key=lambda s: counts[s])
    note = (f"several labels a cell, parted by {separator!r}: {counts[separator]:,} rows have several",)

    def part(text: str) -> list[str] | None:
        if not text:
            return None
        return [text] if text in whole else [p for p in text.split(separator) if p.strip()]

    return [part(text) for text in texts], note if counts[separator] else ()


def _json_list(text: str) -> list[str] | None:
    try:
        value = jsontext.parse(text)
    except ValueError:
        return None
    if not isinstance(value, list) or not all(isinstance(v, str | int) for v in value):
        return None
    return [str(v) for v in value]


def _codes(encoded: pa.DictionaryArray) -> NDArray[np.int64]:
    codes: NDArray[np.int64] = pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
    return codes


def _texts(values: Sequence[Any], where: Where, index: NDArray[np.int64]) -> list[str]:
    """Label values as stripped NFC text, '' for what counts as empty."""
    found = []
    for i, value in enumerate(values):
        if value is None or (isinstance(value, float) and math.isnan(value)):
            found.append("")
        elif isinstance(value, bool):
            found.append("true" if value else "false")
        elif isinstance(value, bytes | dict | list):
            raise where.fault(f"a value of type {type(value).__name__} is no label.", int(np.argmax(index == i)))
        else:
            found.append(unicodedata.normalize("NFC", str(value).strip()).strip())
    return found


def _whole(text: str, known: Sequence[str] | None) -> str:
    """'3.0' (a whole number that pandas made a float) as '3'."""
    return text if (known is not None and text in known) or _is_plain(text) else str(int(float(text)))


def _is_plain(text: str) -> bool:
    return text.lstrip("+-").isdigit()


def _name(text: str, codes: Mapping[str, str] | None, where: Where, index: NDArray[np.int64], i: int) -> str:
    if codes is None:
        return text
    if text in codes:
        return codes[text]
    if _NUMBER.fullmatch(text) and float(text).is_integer() and str(int(float(text))) in codes:
        return codes[str(int(float(text)))]
    if text in codes.values():
        return text
    cell = int(np.argmax(index == i))
    raise where.fault(f"the file of names has no name for {text!r}.", cell, near(text, codes).strip())


def _numbered(
    texts: Sequence[str], known: Sequence[str] | None, where: Where, first: Any
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The label names, and for each text its place among them (-1 for '')."""
    names = tuple(known) if known is not None else tuple(sorted({text for text in texts if text}))
    place = {name: j for j, name in enumerate(names)}
    for i, text in enumerate(texts):
        if text and text not in place:
            what = f"the label {text!r} is not one of the model's {len(names):,}."
            raise where.fault(what, first(i), near(text, names).strip())
    return names, np.array([place[text] if text else -1 for text in texts], np.int64)


def _check(names: tuple[str, ...], y: NDArray[np.int32], where: Where, notes: list[str], *, running: bool) -> None:
    """Refuse labels from which nothing can be learnt; say what is weak about the others."""
    counts = np.bincount(y[y >= 0], minlength=len(names))
    n, c = int(counts.sum()), len(names)
    if c == 1:
        raise DataError(
            f"there is only one class, {names[0]!r}, in {n:,} rows.",
            file=where.file,
            column=where.column,
            todo="Two or more are needed; is this the label column?",
        )
    running = running and all(_is_plain(name) for name in names) and _is_running(sorted(map(float, names)), n)
    if running or (c > MANY and 2 * c > n):
        raise DataError(
            f"{c:,} distinct labels on {n:,} rows: this looks like an identifier.",
            file=where.file,
            column=where.column,
            todo="Name the label column with --label.",
        )
    _unlabelled(y, notes)
    _say_lone(
        [f"{names[j]!r} (row {where.rows[int(np.argmax(y == j))]:,})" for j in np.flatnonzero(counts == 1)], notes
    )
    folded: dict[str, list[str]] = {}
    for name in names:
        folded.setdefault(name.casefold(), []).append(name)
    for same in folded.values():
        if len(same) > 1:
            notes.append(f"labels that differ only in case are kept apart: {', '.join(map(repr, same))}")


def _unlabelled(y: NDArray[np.int32], notes: list[str]) -> None:
    missing = int((y < 0).sum())
    if missing:
        rows = "rows have no label and serve" if missing > 1 else "row has no label and serves"
        notes.append(f"{missing:,} {rows} as unlabelled")


def _say_lone(lone: Sequence[str], notes: list[str]) -> None:
    if lone:
        has = "label has" if len(lone) == 1 else "labels have"
        more = ", ..." if len(lone) > 5 else ""
        notes.append(f"{len(lone):,} {has} only one example and cannot be evaluated: {', '.join(lone[:5])}{more}")
