"""The rows of a data set that can be read, with their features; what cannot be read is named, and left out or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headstart.backbone import Backbone
from headstart.dataset import Dataset, Fault
from headstart.errors import DataError, InputError
from headstart.features import embed
from headstart.rowcache import Cache

SKIP, REFUSE = "skip", "refuse"
BROKEN = (SKIP, REFUSE)  # what to do with files that cannot be read
SHOWN = 5


def readable(
    part: Dataset,
    base: Backbone,
    *,
    broken: str = SKIP,
    cache: Cache | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Dataset, NDArray[np.float32]]:
    """The rows whose contents the backbone can read, (n,), and their features X (n, d).

    Files that cannot be read are left out, listed in the data set's `faults` and said in its notes; with `broken`
    "refuse" they raise DataError. A cache that cannot be used is said in the notes too. Raises InputError for contents of
    another kind than the backbone's, DataError when no row is left.
    """
    if broken not in BROKEN:
        raise InputError(f"--broken {broken} is neither skip nor refuse.")
    card = base.card
    if part.modality != card.modality:
        kinds = {"text": "texts", "image": "pictures"}
        raise InputError(
            f"{part.name} holds {kinds[part.modality]}, but the base model {card.name} reads {kinds[card.modality]}. "
            f"Choose another --backbone; or if {kinds[card.modality]} are there too, name their column with --{card.modality}."
        )
    found: dict[int, str] = {}
    where = cache if cache is not None else Cache()
    features = embed(part.contents, base, where, keys=part.keys, faults=found, progress=progress)
    part, X = replace(part, notes=(*part.notes, *features.notes)), features.values
    if found:
        rows = np.array(sorted(found), np.int64)
        names = part.texts(rows)
        faults = tuple(Fault(int(part.rows[i]), name, found[int(i)]) for i, name in zip(rows, names, strict=True))
        sound = np.setdiff1d(np.arange(len(part)), rows)
        part, X = (
            replace(part.take(sound), faults=(*part.faults, *faults), notes=(*part.notes, in_words(faults))),
            X[sound],
        )
    if part.faults and broken == REFUSE:
        raise DataError(
            in_words(part.faults) + ".", file=part.name, todo="Repair or remove them, or use --broken skip."
        )
    if not len(part):
        raise DataError(
            f"no row can be read{''.join(f': {one.name}: {one.reason}' for one in part.faults[:1])}.", file=part.name
        )
    return part, X


def in_words(faults: tuple[Fault, ...]) -> str:
    """Faults in a line: how many, and the first few by name."""
    some = "; ".join(f"{fault.name}: {fault.reason}" for fault in faults[:SHOWN])
    files = "file cannot" if len(faults) == 1 else "files cannot"
    return f"{len(faults):,} {files} be read ({some}{'; ...' if len(faults) > SHOWN else ''})"
