"""A .txt file: one text a line."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from headstart.batches import ROWS
from headstart.source import Source
from headstart.textfile import TextFile

COLUMN = "text"
CHARACTERS = 1 << 23  # the most characters of a batch


def read(text: TextFile) -> Source:
    """A source with the one column `text`. Blank lines are no rows."""
    notes = [*text.notes, "one text a line"]
    return Source(
        name=text.name, columns=(COLUMN,), batches=lambda: _batches(text, notes), digest=text.digest, notes=notes
    )


def _batches(text: TextFile, notes: list[str]) -> Iterator[pa.RecordBatch]:
    rows: list[str] = []
    characters = blank = 0
    for line in text.lines():
        stripped = line.rstrip("\r\n")
        if not stripped.strip():
            blank += 1
            continue
        rows.append(stripped)
        characters += len(stripped)
        if len(rows) == ROWS or characters > CHARACTERS:
            yield _batch(rows)
            rows, characters = [], 0
    if rows:
        yield _batch(rows)
    if blank:
        notes.append(f"{blank:,} blank line{'s' * (blank > 1)} skipped")


def _batch(rows: list[str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(rows, pa.large_string())], names=[COLUMN])
