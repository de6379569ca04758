"""Arrow on disk: the IPC file format (Feather version 2 is the same) and the IPC stream format."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc

from headstart.batches import arrow_faults, check_schema
from headstart.rawfile import changed, fingerprint, shown, stamp
from headstart.source import Source


def read(path: Path) -> Source:
    """A source of one Arrow file. Raises DataError for a damaged one."""
    name = shown(path.name)
    with arrow_faults(name), pa.OSFile(str(path)) as file:
        columns = check_schema(name, _open(file).schema)
    return Source(
        name=name, columns=columns, batches=lambda: stream(path, name), digest=cache(lambda: fingerprint(path))
    )


def stream(path: Path, name: str) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow file or stream. Read, not mapped: a file cut short under a map ends the process."""
    before = stamp(path)
    with arrow_faults(name), pa.OSFile(str(path)) as file:
        reader = _open(file)
        is_file = isinstance(reader, pa.ipc.RecordBatchFileReader)
        for batch in (reader.get_batch(i) for i in range(reader.num_record_batches)) if is_file else reader:
            batch.validate(full=True)
            yield batch
    if stamp(path) != before:
        raise changed(name)


def _open(file: pa.NativeFile) -> pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader:
    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    return pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)
