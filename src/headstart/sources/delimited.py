"""Tables as text with a separator: CSV, TSV, and the same with ; or |.

Python's csv reader does the reading, in strict mode and under watch: left alone it lets a quote that never closes
swallow the rest of the file, and rows of any width pass.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import pyarrow as pa

from headstart.batches import CELL_LIMIT, ROWS, check_columns
from headstart.errors import DataError
from headstart.source import Source
from headstart.textfile import TextFile, breaks, split_lines

CHARACTERS = 1 << 23  # the most characters of a batch, about
AT_ONCE = 256  # rows between two looks at how much was read
_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}


@dataclass(frozen=True)
class Dialect:
    """How cells are told apart. A quote inside quotes is doubled, or escaped, or quotes are nothing special."""

    delimiter: str
    quotes: str  # "doubled" | "escaped" | "none"

    def reader(self, lines: Iterable[str]) -> Any:
        """Python's csv reader for this dialect, strict."""
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            strict=True,
            escapechar="\\" if self.quotes == "escaped" else None,
            quoting=csv.QUOTE_NONE if self.quotes == "none" else csv.QUOTE_MINIMAL,
        )


@dataclass(frozen=True)
class Header:
    """The columns of a file: their names, where they are, and how wide a row may be."""

    names: tuple[str, ...]
    needed: int  # cells a row must have: up to the last column with a name
    width: int  # cells of the header, the last ones perhaps without a name
    given: bool  # False: the first row is data already


def read(text: TextFile) -> Source:
    """A source of one delimited text file. Raises DataError for what its first rows show."""
    if csv.field_size_limit() < CELL_LIMIT:
        csv.field_size_limit(CELL_LIMIT)  # a setting of the process; only ever raised
    dialect, sample = _find_dialect(text)
    header, notes = _find_header(text.name, dialect, sample)
    if dialect.quotes == "escaped":
        notes = (*notes, "a quote inside quotes is escaped by a backslash")
    elif dialect.quotes == "none":
        notes = (*notes, "quotes are ordinary characters, and no cell is put in them")
    if dialect.delimiter != "," and not (dialect.delimiter == "\t" and text.ending in (".tsv", ".tab")):
        notes = (f"cells are separated by {_NAMES[dialect.delimiter]}", *notes)
    said = [*text.notes, *notes]
    return Source(
        name=text.name,
        columns=header.names,
        batches=lambda: _batches(text, dialect, header, said),
        digest=text.digest,
        notes=said,
    )


def _batches(text: TextFile, dialect: Dialect, header: Header, notes: list[str]) -> Iterator[pa.RecordBatch]:
    """Batches of strings. Adds to `notes` what was left out, when it has been read to the end."""
    skipped = beyond = first_beyond = 0
    read_so_far = 0
    for rows, blank in _Reading(text, dialect, header).chunks():
        skipped += blank
        cells = list(zip(*rows, strict=True))
        for column in cells[header.needed : header.width]:
            filled = [i for i, cell in enumerate(column) if cell.strip()]
            if filled and not beyond:
                first_beyond = read_so_far + filled[0] + 1
            beyond += len(filled)
        read_so_far += len(rows)
        arrays = [pa.array(column, pa.large_string()) for column in cells[: header.needed]]
        yield pa.RecordBatch.from_arrays(arrays, names=list(header.names))
    if skipped:
        notes.append(f"{skipped:,} blank line{'s' * (skipped > 1)} skipped")
    if header.width > header.needed:
        what = "all empty" if not beyond else f"{beyond:,} cells there hold something, first in row {first_beyond:,}"
        count = header.width - header.needed
        which = (
            f"the last {count:,} columns have no name and are" if count > 1 else "the last column has no name and is"
        )
        notes.append(f"{which} left out ({what})")


class _Reading:
    """One reading of a file from its beginning, with the text of the current chunk kept to explain a fault."""

    def __init__(self, text: TextFile, dialect: Dialect, header: Header) -> None:
        self.text, self.dialect, self.header = text, dialect, header
        self.rows = 0  # data rows given so far
        self.start = 0  # lines before the current chunk
        self.pieces: deque[tuple[int, str]] = deque()  # lines before a piece of the text, and it
        self.characters = 0  # taken in for the current chunk

    def _feed(self) -> Iterator[Iterator[str]]:
        before = 0
        for piece in self.text.pieces():
            self.pieces.append((before, piece))
            self.characters += len(piece)
            before += breaks(piece)
            yield split_lines(piece)

    def chunks(self) -> Iterator[tuple[list[list[str]], int]]:
        """Rows, each `width` cells wide, and how many blank lines were skipped among them."""
        reader = self.dialect.reader(chain.from_iterable(self._feed()))
        if self.header.given:
            next(filter(None, reader), None)
            self._next_chunk(reader.line_num)
        more = True
        while more:
            rows: list[list[str]] = []
            try:
                while more and len(rows) < ROWS and self.characters < CHARACTERS:
                    some = list(islice(reader, AT_ONCE))
                    rows += some
                    more = len(some) == AT_ONCE
            except csv.Error as error:
                raise self._explain(str(error), reader.line_num) from None
            found = len(rows)
            rows = self._squared(rows)
            if rows:
                yield rows, found - len(rows)
            self.rows += len(rows)
            self._next_chunk(reader.line_num)

    def _next_chunk(self, line: int) -> None:
        self.start = line
        self.characters = 0
        while len(self.pieces) > 1 and self.pieces[1][0] <= line:
            self.pieces.popleft()

    def _recent(self) -> list[str]:
        """The lines of the current chunk."""
        if not self.pieces:
            return []
        lines = chain.from_iterable(split_lines(piece) for _, piece in self.pieces)
        return list(islice(lines, self.start - self.pieces[0][0], None))

    def _squared(self, rows: list[list[str]]) -> list[list[str]]:
        """The rows without blank lines, each as wide as the header. Raises DataError for a ragged one."""
        width = self.header.width
        if set(map(len, rows)) <= {width}:
            return rows
        squared: list[list[str]] = []
        for row in rows:
            if not row or (len(row) == 1 and self.header.needed > 1 and not row[0].strip()):
                continue
            if len(row) < self.header.needed or any(row[width:]):
                raise self._ragged(len(squared) + 1, len(row))
            squared.append((row + [""] * (width - len(row)))[:width])
        return squared

    def _ragged(self, number: int, cells: int) -> DataError:
        line, seen = 0, 0
        reader = self.dialect.reader(self._recent())
        for row in reader:
            seen += bool(row) and not (len(row) == 1 and self.header.needed > 1 and not row[0].strip())
            if seen == number:
                break
            line = reader.line_num
        names = f"{self.header.needed:,} column{'s' * (self.header.needed > 1)}"
        todo = "A cell is missing, or a line was broken inside a cell without quotes."
        if cells > self.header.width:
            todo = f"Put a cell that holds {self.dialect.delimiter!r} in double quotes."
        return DataError(
            f"{cells:,} cell{'s' * (cells != 1)} where the header has {names}.",
            file=self.text.name,
            line=self.start + line + 1,
            row=self.rows + number,
            todo=todo,
        )

    def _explain(self, error: str, at: int) -> DataError:
        """The fault at line `at`: where its record began, and which quote opened there."""
        recent = self._recent()[: at - self.start]
        reader = self.dialect.reader(recent)
        records = start = 0
        try:
            for row in reader:
                records += bool(row)
                start = reader.line_num
        except csv.Error:
            pass
        opened, column, size = _last_cell(recent[start:], self.dialect)
        name = self.header.names[column] if column < len(self.header.names) else None

        def fault(what: str, todo: str) -> DataError:
            row, line = self.rows + records + 1, self.start + start + opened + 1
            return DataError(what, file=self.text.name, row=row, line=line, column=name, todo=todo)

        if "field larger" in error or size > CELL_LIMIT:
            return fault(
                f"a cell of more than {CELL_LIMIT:,} characters, which is the limit.",
                "Shorten it; or, if a quote opens it that never closes, close the quote.",
            )
        if "end of data" in error:
            return fault("the quote opened here never closes.", "Close it, or double a quote that belongs to the text.")
        return fault(
            f"the quote opened here closes before {_offender(error)} (line {at:,}).",
            "A quote was left open, or one inside a quoted cell is not doubled.",
        )


def _offender(error: str) -> str:
    return "something other than the end of the cell" if "expected after" in error else f"a fault ({error})"


def _last_cell(lines: list[str], dialect: Dialect) -> tuple[int, int, int]:
    """Where the last quoted cell of a faulty record opens: line offset, column, and how many characters follow it."""
    opened, column, at, size = 0, 0, 0, 0
    quoted, fresh, escaped, after = False, True, False, False
    for offset, line in enumerate(lines):
        for character in line:
            if quoted:
                size += 1
                if escaped:
                    escaped = False
                elif character == "\\" and dialect.quotes == "escaped":
                    escaped = True
                elif character == '"':
                    quoted, after = False, True
                continue
            if after and character == '"':
                quoted, after = True, False
                continue
            if after and character not in (dialect.delimiter, "\r", "\n"):
                return opened, column, size
            after = False
            if character == dialect.delimiter:
                at, fresh = at + 1, True
            elif character == '"' and fresh and dialect.quotes != "none":
                quoted, fresh, opened, column, size = True, False, offset, at, 0
            else:
                size = 1 if fresh else size + 1
                column, opened, fresh = (at, offset, False) if fresh else (column, opened, False)
                if size > CELL_LIMIT:
                    return opened, column, size
    return opened, column, size


def _find_dialect(text: TextFile) -> tuple[Dialect, list[list[str]]]:
    """The separator and the quoting under which the first rows are most alike, and those rows."""
    head = text.head
    if not text.whole:
        head = head[: max(head.rfind("\n"), head.rfind("\r")) + 1] or head
    favourite = "\t" if text.ending in (".tsv", ".tab") else "|" if text.ending == ".psv" else ","
    best: tuple[tuple[float, ...], Dialect, list[list[str]]] | None = None
    for quotes in ("doubled", "escaped", "none"):
        for delimiter in _NAMES:
            if (quotes == "none" and delimiter != "\t") or (quotes == "escaped" and '\\"' not in head):
                continue
            dialect = Dialect(delimiter, quotes)
            rows, whole = _parse(head, dialect, text.whole)
            if not rows:
                continue
            needed = _needed(rows[0])
            if needed < 2 and delimiter != favourite:
                continue
            fit = sum(len(row) >= needed and not any(row[len(rows[0]) :]) for row in rows) / len(rows)
            score = (needed > 1, whole, round(fit, 2), quotes == "doubled", delimiter == favourite, needed)
            if best is None or score > best[0]:
                best = score, dialect, rows
    if best is None:
        dialect = Dialect(favourite, "doubled")
        return dialect, _parse(head, dialect, text.whole)[0]
    return best[1], best[2]


def _parse(head: str, dialect: Dialect, complete: bool) -> tuple[list[list[str]], bool]:
    """The rows of the head, without blank lines, and whether it could be read without a fault."""
    rows: list[list[str]] = []
    try:
        for row in dialect.reader(split_lines(head)):
            if row:
                rows.append(row)
    except csv.Error as error:
        return rows, not complete and "end of data" in str(error)  # cut within a cell that may close later
    return rows, True


def _needed(header: list[str]) -> int:
    return max((i + 1 for i, cell in enumerate(header) if cell.strip()), default=0)


def _find_header(name: str, dialect: Dialect, rows: list[list[str]]) -> tuple[Header, tuple[str, ...]]:
    if not rows:
        raise DataError(
            "the first quote never closes, or the first row is too long.", file=name, line=1, todo="Repair the header."
        )
    first, rest = rows[0], rows[1:]
    repeated = _repeated(first, rest)
    if repeated is not None:
        names = tuple(f"column_{i + 1}" for i in range(len(first)))
        times = sum(row[repeated : repeated + 1] == [first[repeated]] for row in rest)
        note = (
            f"the first line is data and not column names ({first[repeated]!r} comes again {times:,} times in the next"
            f" {len(rest):,} rows); the columns are called {', '.join(names[:3])}{', ...' * (len(names) > 3)}"
        )
        return Header(check_columns(name, names), len(first), len(first), given=False), (note,)
    needed = _needed(first)
    if len(first) == 1 and len(first[0].split()) >= 4:
        note = f"the first line is a text and not a column name ({first[0][:40]!r}); the column is called text"
        return Header(("text",), 1, 1, given=False), (note,)
    if needed == 0:
        raise DataError("the header has no column names.", file=name, line=1, todo="Write them into the first line.")
    names = tuple(cell.strip() or f"column_{i + 1}" for i, cell in enumerate(first[:needed]))
    unnamed = [n for n, cell in zip(names, first, strict=False) if not cell.strip()]
    notes = (f"columns without a name are called {', '.join(unnamed)}",) if unnamed else ()
    return Header(check_columns(name, names), needed, len(first), given=True), notes


def _repeated(first: list[str], rest: list[list[str]]) -> int | None:
    """The column in which the first row's cell comes again among few values, so that the row is data; else None."""
    if len(rest) < 3:
        return None
    for i, cell in enumerate(first):
        values = [row[i] for row in rest if i < len(row)]
        if cell.strip() and values.count(cell) >= 2 and len(set(values)) <= len(values) / 2:
            return i
    return None
