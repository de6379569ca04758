"""A .txt file: one text a line."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from headstart.source import Source
from headstart.textfile import TextFile, split_lines

COLUMN = "text"


def read(text: TextFile) -> Source:
    """A source with the one column `text`. Blank lines are no rows."""
    notes = [*text.notes, "one text a line"]
    return Source(
        name=text.name, columns=(COLUMN,), batches=lambda: _batches(text, notes), digest=text.digest, notes=notes
    )


def _batches(text: TextFile, notes: list[str]) -> Iterator[pa.RecordBatch]:
    blank = 0
    for piece in text.pieces():
        lines = [line.rstrip("\r\n") for line in split_lines(piece)]
        rows = [line for line in lines if line.strip()]
        blank += len(lines) - len(rows)
        if rows:
            yield pa.RecordBatch.from_arrays([pa.array(rows, pa.large_string())], names=[COLUMN])
    if blank:
        notes.append(f"{blank:,} blank line{'s' * (blank > 1)} skipped")
