"""One picture file: a source of one row."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pyarrow as pa

from headstart import picturefile
from headstart.rawfile import fingerprint, shown
from headstart.source import IMAGE_COLUMN, Source


def read(path: Path) -> Source:
    """A source of the one picture, without a label."""
    name = shown(path.name)
    batch = pa.RecordBatch.from_arrays([pa.array([name], pa.large_string())], names=[IMAGE_COLUMN])
    return Source(
        name=name,
        columns=(IMAGE_COLUMN,),
        batches=lambda: iter([batch]),
        digest=cache(lambda: fingerprint(path)),
        rows=1,
        load=lambda _: picturefile.read(path),
        modality="image",
    )
