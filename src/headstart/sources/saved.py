"""A folder saved by Hugging Face datasets (`save_to_disk`), read without importing it.

One data set is Arrow streams beside `state.json` and `dataset_info.json`; several (a DatasetDict) are folders named in
`dataset_dict.json`, which become the column `split`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc

from headstart import jsontext
from headstart.batches import arrow_faults, check_schema
from headstart.errors import DataError
from headstart.rawfile import blocks, changed, fingerprint, shown, stamp
from headstart.source import Source

SPLIT = "split"


def read(path: Path, encoding: str | None = None) -> Source:
    """A source of one saved folder. Raises DataError when a part is missing or damaged. `encoding` is not used."""
    name = shown(path.name)
    parts: list[tuple[str | None, Path]] = [(None, path)]
    if (path / "dataset_dict.json").is_file():
        splits = _json(path / "dataset_dict.json").get("splits")
        if not isinstance(splits, list) or not splits:
            raise DataError("dataset_dict.json names no splits.", file=name)
        parts = [(split, path / _plain_name(split, name)) for split in splits]
    files = [(split, file, _features(folder)) for split, folder in parts for file in _files(folder, name)]
    columns: tuple[str, ...] = ()
    for split, file, _ in files:
        stamp(file)
        with arrow_faults(shown(file.name)), pa.OSFile(str(file)) as opened:
            names = check_schema(shown(file.name), pa.ipc.open_stream(opened).schema)
        if split is not None and SPLIT not in names:
            names = (*names, SPLIT)
        if columns and names != columns:
            raise DataError(
                f"its columns are {', '.join(names)}, but others here have {', '.join(columns)}.", file=shown(file.name)
            )
        columns = names

    @cache
    def digest() -> str:
        return hashlib.sha256("\n".join(fingerprint(file) for _, file, _ in files).encode()).hexdigest()

    return Source(name=name, columns=columns, batches=lambda: _batches(files), digest=digest)


def _batches(files: list[tuple[str | None, Path, bytes | None]]) -> Iterator[pa.RecordBatch]:
    for split, path, features in files:
        name = shown(path.name)
        before = stamp(path)
        with arrow_faults(name), pa.OSFile(str(path)) as file:
            for batch in pa.ipc.open_stream(file):
                batch.validate(full=True)
                if split is not None and SPLIT not in batch.schema.names:
                    batch = batch.append_column(SPLIT, pa.array([split] * batch.num_rows, pa.large_string()))
                if features is not None:
                    batch = batch.replace_schema_metadata({b"huggingface": features})
                yield batch
        if stamp(path) != before:
            raise changed(name)


def _files(folder: Path, name: str) -> list[Path]:
    found = _json(folder / "state.json").get("_data_files")
    names = [part.get("filename") if isinstance(part, dict) else None for part in found or []]
    if not names:
        raise DataError(f"{shown(folder.name)}/state.json names no data files.", file=name)
    return [folder / _plain_name(each, name) for each in names]


def _features(folder: Path) -> bytes | None:
    """The features of dataset_info.json in the form they have in a schema's metadata, if the file is there."""
    if not (folder / "dataset_info.json").is_file():
        return None
    features = _json(folder / "dataset_info.json").get("features")
    return json.dumps({"info": {"features": features}}).encode() if isinstance(features, dict) else None


def _plain_name(name: object, file: str) -> str:
    if not isinstance(name, str) or not name or name in (".", "..") or any(c in name for c in "/\\\0:"):
        raise DataError(f"it names {name!r}, which is no plain file name.", file=file)
    return name


def _json(path: Path) -> dict[str, Any]:
    name = f"{shown(path.parent.name)}/{path.name}"
    if stamp(path).size > 1 << 24:
        raise DataError("it is too large for a description.", file=name)
    try:
        value = jsontext.parse(b"".join(blocks(path)).decode("utf-8"))
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"this is not JSON: {error}.", file=name) from None
    if not isinstance(value, dict):
        raise DataError("this is not a JSON object.", file=name)
    return value
