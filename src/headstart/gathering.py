"""What the user gave, gathered into the rows to learn from, the rows to test on, and the rows without a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from headstart.dataset import Dataset, read
from headstart.errors import DataError, InputError, near
from headstart.head import CLASSIFICATION, MULTILABEL


@dataclass(frozen=True)
class Columns:
    """How the user's files are to be read; None is found out."""

    text: str | None = None
    image: str | None = None
    label: str | None = None
    names: object = None  # what the label codes mean
    encoding: str | None = None

    def labelled(
        self, data: object, task: str | None, known: Sequence[str] | None = None, modality: str | None = None
    ) -> Dataset:
        """Read contents, of one kind where `modality` is given, and labels."""
        return read(
            data, text=self.text, image=self.image, label=self.label, names=self.names, task=task,
            encoding=self.encoding, known=known, modality=modality,
        )  # fmt: skip

    def bare(self, data: object, modality: str | None = None) -> Dataset:
        """Read contents alone."""
        return read(
            data, text=self.text, image=self.image, encoding=self.encoding, labelled=False, modality=modality
        )  # fmt: skip


def gather(
    data: object,
    y: Sequence[object] | None,
    test: object,
    unlabelled: object,
    given: Mapping[str, str],
    columns: Columns,
    task: str | None,
) -> tuple[Dataset | None, Dataset | None, Dataset | None]:
    """The labelled rows, the test rows, and the rows without a label; None where there are none.

    given: label names with what they mean. Raises InputError, NotFound or DataError.
    """
    if data is None and not given:
        raise InputError("give DATA, a file of labelled examples, or --labels a,b,c for a model without examples.")
    if data is None:
        return None, None, None if unlabelled is None else columns.bare(unlabelled)
    if y is not None:
        data = _table(data, y)
    if given and columns.label is None and test is None:
        found = _labelled_or_not(data, columns, task)
    else:
        found = columns.labelled(data, task)
    pool = None if unlabelled is None else columns.bare(unlabelled, found.modality)
    if not (found.y >= 0).any():
        return None, None, _joined(found, pool)
    found = _against_given(found, given)
    held = None
    if found.split is not None and (testing := (found.split == "test") & (found.y >= 0)).any():
        if test is None:
            held = replace(found.take(np.flatnonzero(testing)), faults=())
        found = found.take(np.flatnonzero(found.split != "test"))
    if test is not None:
        known = None if found.task not in (CLASSIFICATION, MULTILABEL) else found.labels
        held = columns.labelled(test, found.task, known, found.modality)
        held = held.take(np.flatnonzero(held.y >= 0))
    bare = np.flatnonzero(found.y < 0)
    if len(bare):
        pool = _joined(replace(found.take(bare), faults=()), pool)
    return found.take(np.flatnonzero(found.y >= 0)), held, pool


def _table(data: object, y: Sequence[object]) -> pa.Table:
    """Contents and labels in two sequences as a table."""
    wanted = "with y=, data is a sequence of as many texts, or of pictures as bytes or paths"
    if isinstance(data, str | bytes) or not hasattr(data, "__len__") or not hasattr(data, "__iter__"):
        raise InputError(f"{wanted}, not a {type(data).__name__}.")
    contents = [str(one) if isinstance(one, Path) else one for one in data]
    if len(contents) != len(y):
        raise InputError(f"{wanted}; there are {len(contents):,}, and {len(y):,} labels.")
    kinds = {bytes if isinstance(one, bytes) else str if isinstance(one, str) else type(one) for one in contents}
    kinds -= {type(None)}
    if kinds not in ({str}, {bytes}, set()):
        raise InputError(f"{wanted}, not of {' and '.join(sorted(kind.__name__ for kind in kinds))}.")
    pictures = kinds == {bytes}
    column = pa.array(contents, pa.large_binary() if pictures else pa.large_string())
    return pa.table({"image" if pictures else "text": column, "label": pa.array(list(y))})


def _labelled_or_not(data: object, columns: Columns, task: str | None) -> Dataset:
    """Read with labels when the file has them, else contents alone (a pool for a zero-shot model)."""
    try:
        return columns.labelled(data, task)
    except DataError:  # labels are there and something is wrong with them, or with the file
        raise
    except InputError:  # no label column was found
        return columns.bare(data)


def _against_given(found: Dataset, given: Mapping[str, str]) -> Dataset:
    """Hold the labels of a file against those of --labels: strangers are refused, those without examples noted."""
    if not given or found.task not in (CLASSIFICATION, MULTILABEL):
        return found
    if strangers := sorted(set(found.labels) - set(given)):
        raise InputError(f"{found.name}: the label {strangers[0]!r} is not one of --labels.{near(strangers[0], given)}")
    if bare := sorted(set(given) - set(found.labels)):
        said = f"no example of {', '.join(bare)}: the model cannot answer with what it has not seen"
        return replace(found, notes=(*found.notes, said))
    return found


def _joined(one: Dataset, other: Dataset | None) -> Dataset:
    """Two pools as one; only contents and keys matter. Raises InputError for pools of two kinds."""
    if other is None:
        return one
    if one.modality != other.modality:
        raise InputError(f"{one.name} and {other.name} hold different kinds of content.")
    contents = pa.chunked_array([*one.contents.chunks, *other.contents.chunks], one.contents.type)
    ids = [part.ids if part.ids is not None else pa.nulls(len(part), pa.large_string()) for part in (one, other)]
    n = len(contents)
    return replace(
        one, contents=contents, keys=np.concatenate([one.keys, other.keys]), y=np.full(n, -1, np.int32),
        rows=np.arange(1, n + 1), split=None, group=None, weight=None, faults=(*one.faults, *other.faults),
        ids=pa.chunked_array([chunk for part in ids for chunk in getattr(part, "chunks", [part])], pa.large_string()),
    )  # fmt: skip
