"""The training examples a model keeps, as a data set again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from headstart import saved
from headstart.dataset import Dataset, read
from headstart.errors import InputError
from headstart.head import MULTILABEL, REGRESSION
from headstart.model import Model


def examples(model: Model, data: object = None) -> Dataset:
    """The labelled rows of `data`; without it, of texts, those that the model keeps.

    Raises InputError for a model that keeps none, or only small copies of its pictures.
    """
    if data is not None:
        found = read(data, task=model.task, known=model.labels or None)
        return found.take((found.y >= 0).nonzero()[0])
    assert model.folder is not None
    path = Path(model.folder) / saved.EXAMPLES
    if not path.exists():
        raise InputError(f"model {model.name!r} keeps no training examples; give them with --data FILE.")
    if model.modality != "text":
        raise InputError(f"model {model.name!r} keeps only small copies of its pictures; give them with --data PHOTOS.")
    table = pyarrow.parquet.read_table(path, columns=["text", "label"])
    label = table["label"]
    if model.task == MULTILABEL:
        label = pa.array([cell.split("; ") if cell else [] for cell in label.to_pylist()], pa.list_(pa.large_string()))
    elif model.task == REGRESSION:
        label = label.cast(pa.float64())
    kept = pa.table({"text": table["text"], "label": label})
    found = read(kept, text="text", label="label", task=model.task, known=model.labels or None)
    return replace(found, name=f"the examples of {model.name}")


def unseen(model: Model, rows: Dataset, say: Callable[[str], None]) -> Dataset:
    """The rows that are not among the examples a model keeps. Raises InputError where none is left."""
    assert model.folder is not None
    path = Path(model.folder) / saved.EXAMPLES
    if not path.exists():
        return rows
    known = set(pyarrow.parquet.read_table(path, columns=["key"])["key"].to_pylist())
    new = np.array([i for i, key in enumerate(rows.keys) if key.tobytes().hex() not in known], np.int64)
    if not len(new):
        raise InputError(f"every row of {rows.name} is among the examples that model {model.name!r} was trained on.")
    if len(new) < len(rows):
        say(f"{len(rows) - len(new):,} rows that model {model.name!r} was trained on are left out")
    return rows.take(new)
