"""JSON lines: one value a line; or one JSON array of such values.

A value is an object (its keys are the columns), a text, or a list of a text and its label. The keys seen in
the first rows (a mebibyte of the file, or 1,024 elements of an array) are the columns; a key that first comes later is
left out, and said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import pyarrow as pa

from headstart import jsontext
from headstart.batches import check_columns
from headstart.errors import DataError
from headstart.source import Source
from headstart.textfile import LINE_LIMIT, TextFile, breaks, split_lines

AT_ONCE = 1024  # elements of an array
PAIR = ("text", "label")

_SPACE = " \t\r\n"
_extent = json.JSONDecoder()  # finds where a value ends; jsontext then judges it

Row = dict[str, Any]


def read(text: TextFile) -> Source:
    """A source of one JSON file. Reads the first rows; raises DataError for what they show."""
    chunks = _chunks(text)
    first = next(chunks, [])
    if not first:
        raise DataError("no rows: the array is empty.", file=text.name)
    names: dict[str, None] = {}
    for row in first:
        names.update(dict.fromkeys(row))
    columns = check_columns(text.name, names)
    notes = list(text.notes)
    begun = [chain([first], chunks)]  # standard input can be read only once, so the first reading goes on from here
    return Source(
        name=text.name,
        columns=columns,
        batches=lambda: _batches(begun.pop() if begun else _chunks(text), columns, notes),
        digest=text.digest,
        notes=notes,
    )


def to_array(values: list[Any]) -> pa.Array:
    """JSON values as an Arrow array of texts, numbers, booleans or lists of them; what is mixed becomes JSON text."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {str}:
        return pa.array(values, pa.large_string())
    if kinds in ({int}, {bool}) or kinds <= {int, float}:
        try:
            return pa.array(values, pa.float64() if float in kinds else None)
        except (pa.ArrowInvalid, OverflowError):
            pass
    elif kinds == {list}:
        inner = {type(item) for value in values if value for item in value}
        if inner <= {str}:
            return pa.array(values, pa.large_list(pa.large_string()))
        if inner in ({int}, {bool}, {float}):
            try:
                return pa.array(values)
            except (pa.ArrowInvalid, OverflowError):
                pass
    return pa.array([v if v is None or isinstance(v, str) else jsontext.write(v) for v in values], pa.large_string())


def _batches(chunks: Iterator[list[Row]], columns: tuple[str, ...], notes: list[str]) -> Iterator[pa.RecordBatch]:
    known = frozenset(columns)
    late: dict[str, list[int]] = {}
    done = 0
    for rows in chunks:
        if not known.issuperset(chain.from_iterable(rows)):
            for number, row in enumerate(rows, done + 1):
                for key in row.keys() - known:
                    late.setdefault(key, [number, 0])[1] += 1
        arrays = [to_array([row.get(name) for row in rows]) for name in columns]
        yield pa.RecordBatch.from_arrays(arrays, names=list(columns))
        done += len(rows)
    for key, (first, count) in sorted(late.items()):
        notes.append(f"the key {key!r} first comes in row {first:,} and is left out ({count:,} rows have it)")


def _chunks(text: TextFile) -> Iterator[list[Row]]:
    """Rows in pieces of about a block of the file."""
    if _is_array(text):
        values = _array(text)
        while some := list(islice(values, AT_ONCE)):
            yield [_row(value, text.name, line) for line, value in some]
        return
    line = 1
    for piece in text.pieces():
        rows = _flat_objects(piece)
        if rows is None:
            rows = [_row(value, text.name, number) for number, value in _lines(piece, text.name, line)]
        if rows:
            yield rows
        line += breaks(piece)


def _flat_objects(piece: str) -> list[Row] | None:
    """The objects of a piece, parsed at once, if every line surely is one object; else None.

    With as many opening braces as lines, each at the beginning of one, and every line ending with a closing one, the
    i-th of n objects can only be the i-th line, for no text goes on over the end of a line. Whatever is not so is left
    to be read line by line.
    """
    n = piece.count("{")
    if piece.count("\n{") + piece.startswith("{") != n or "\r" in piece:
        return None
    if piece.count("}\n") + piece.endswith("}") != n or breaks(piece) + (not piece.endswith("\n")) != n:
        return None
    try:
        rows = jsontext.parse("[" + piece.rstrip("\n").replace("}\n", "},\n") + "]")
    except ValueError:
        return None
    return rows if len(rows) == n and all(rows) else None


def _row(value: Any, name: str, line: int) -> Row:
    if isinstance(value, dict) and value:
        return value
    if isinstance(value, str):
        return {PAIR[0]: value}
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):
        return dict(zip(PAIR, value, strict=True))
    raise DataError(
        f"{_what(value)} is not a row.",
        file=name,
        line=line,
        todo='A row is an object such as {"text": "...", "label": "..."}.',
    )


def _what(value: Any) -> str:
    if isinstance(value, dict):
        return "an object without keys"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "null" if value is None else "a truth value" if isinstance(value, bool) else "a number"


def _lines(piece: str, name: str, number: int) -> Iterator[tuple[int, Any]]:
    for line in split_lines(piece):
        stripped = line.strip(_SPACE)
        if stripped:
            try:
                yield number, jsontext.parse(stripped)
            except ValueError as error:
                cut = not line.endswith(("\n", "\r"))
                raise _fault(error, stripped, name, number, cut=cut) from None
        number += 1


def _fault(error: ValueError, piece: str, name: str, line: int, *, cut: bool) -> DataError:
    reason = str(error)
    todo = None
    if isinstance(error, json.JSONDecodeError):
        reason = f"{error.msg} at character {error.pos + 1:,}"
        if error.msg == "Extra data":
            reason = f"more follows the first value, at character {error.pos + 1:,}"
            todo = "Put one value on a line."
        elif piece in ("{", "["):
            todo = "JSON lines have a whole object on each line; or make the file one array of objects."
    elif "integer string conversion" in reason:
        reason = "a number of more than 4,300 digits"
    if cut and todo is None:
        return DataError(f"the last line is cut off or not JSON: {reason}.", file=name, line=line)
    return DataError(f"this is not JSON: {reason}.", file=name, line=line, todo=todo)


def _is_array(text: TextFile) -> bool:
    """Whether the file is one array; not so if its first line is a whole array and another line follows."""
    start = text.head.lstrip(_SPACE)
    if not start.startswith("["):
        return False
    first, _, rest = start.partition("\n")
    if not rest.strip(_SPACE):
        try:
            value = jsontext.parse(first.strip(_SPACE))
        except ValueError:
            return True
        return not (len(value) == 2 and isinstance(value[0], str) and not isinstance(value[1], str | dict | list))
    try:
        jsontext.parse(first.strip(_SPACE))
    except ValueError:
        return True
    return False


def _array(text: TextFile) -> Iterator[tuple[int, Any]]:
    """The elements of one array, without holding more than one and a block of text."""
    reader = _Window(text)
    reader.skip("[")
    if reader.peek() == "]":
        reader.skip("]")
    else:
        while True:
            line, piece = reader.value()
            try:
                yield line, jsontext.parse(piece)
            except ValueError as error:
                raise _fault(error, piece, text.name, line, cut=False) from None
            if reader.peek() == "]":
                reader.skip("]")
                break
            reader.skip(",")
    if reader.peek():
        raise DataError(
            "something follows the end of the array.", file=text.name, line=reader.line, todo="One array is one file."
        )


class _Window:
    """A piece of the text that moves forward: what is before `at` has been read."""

    def __init__(self, text: TextFile) -> None:
        self.name = text.name
        self.pieces = text.pieces(whole_lines=False)
        self.buffer, self.at, self.line = "", 0, 1

    def more(self) -> bool:
        """Take in more of the file; False at its end."""
        piece = next(self.pieces, "")
        self.buffer, self.at = self.buffer[self.at :] + piece, 0
        return bool(piece)

    def peek(self) -> str:
        """The next character that is not space, or '' at the end."""
        while True:
            while self.at < len(self.buffer):
                character = self.buffer[self.at]
                if character not in _SPACE:
                    return character
                self.line += character == "\n"
                self.at += 1
            if not self.more():
                return ""

    def skip(self, wanted: str) -> None:
        """Step over one character that must be next."""
        found = self.peek()
        if found != wanted:
            said = f"{found!r}" if found else "the end of the file"
            raise DataError(
                f"{said} where {wanted!r} is expected; the array is cut off or damaged.", file=self.name, line=self.line
            )
        self.at += 1

    def value(self) -> tuple[int, str]:
        """The line and the text of the next value."""
        self.peek()
        while True:
            try:
                _, end = _extent.raw_decode(self.buffer, self.at)
                break
            except RecursionError:
                raise DataError("this is not JSON: it is nested too deeply.", file=self.name, line=self.line) from None
            except ValueError as error:
                if len(self.buffer) - self.at > LINE_LIMIT:
                    raise DataError(
                        f"a value of more than {LINE_LIMIT:,} characters, or one that is never closed.",
                        file=self.name,
                        line=self.line,
                    ) from None
                if not self.more():
                    raise self._broken(error) from None
        line, piece = self.line, self.buffer[self.at : end]
        self.line += piece.count("\n")
        self.at = end
        return line, piece

    def _broken(self, error: ValueError) -> DataError:
        if isinstance(error, json.JSONDecodeError):
            line = self.line + self.buffer.count("\n", self.at, error.pos)
            reason = error.msg
            if error.pos >= len(self.buffer.rstrip(_SPACE)):
                reason += "; the file is cut off"
            return DataError(f"this is not JSON: {reason}.", file=self.name, line=line)
        return _fault(error, "", self.name, self.line, cut=False)
