"""Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from headstart.batches import arrow_faults, check_schema
from headstart.rawfile import changed, fingerprint, shown, stamp
from headstart.source import Source

AT_ONCE = 1024  # rows; a dictionary page can make a small file of a huge table, so few are held
BYTES = 64 << 20  # unpacked, as the file says, of the rows held; pictures are large


def read(path: Path) -> Source:
    """A source of one Parquet file. Raises DataError for a damaged one."""
    name = shown(path.name)
    with arrow_faults(name), pq.ParquetFile(str(path)) as file:
        columns = check_schema(name, file.schema_arrow)
        rows = file.metadata.num_rows
    return Source(
        name=name,
        columns=columns,
        batches=lambda: _batches(path, name),
        digest=cache(lambda: fingerprint(path)),
        rows=rows,
    )


def _batches(path: Path, name: str) -> Iterator[pa.RecordBatch]:
    before = stamp(path)
    with arrow_faults(name), pq.ParquetFile(str(path)) as file:
        metadata = file.schema_arrow.metadata
        size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        rows = max(1, min(AT_ONCE, BYTES * max(1, file.metadata.num_rows) // max(1, size)))
        for batch in file.iter_batches(batch_size=rows):
            batch.validate(full=True)
            yield batch.replace_schema_metadata(metadata)
    if stamp(path) != before:
        raise changed(name)
