"""How far the user's examples are from what a base model knows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from headstart import distance
from headstart.backbone import Backbone
from headstart.dataset import Dataset
from headstart.folds import tied
from headstart.head import CLASSIFICATION

LOOKED_AT = 1_000  # texts whose tokens are counted
LONGEST = 2_000  # characters of each


def far(base: Backbone, rows: Dataset, features: Mapping[str, NDArray[np.float32]]) -> tuple[str, str]:
    """(level, sentence) of labelled rows (n) with their features (n, d) at some cuts of the base, the deepest last.

    The level is near, far, too far, or unknown where there is too little to tell by.
    """
    groups = tied(*(() if rows.group is None else (rows.group,)), keys=rows.keys)
    agreement = None
    if rows.task == CLASSIFICATION:
        agreement = {cut: distance.neighbour_agreement(X, rows.y, groups=groups) for cut, X in features.items()}
    alike = distance.alike(list(features.values())[-1]) if rows.modality == "image" else None
    found = distance.verdict(
        agreement, fragments=_fragments(base, rows), alike=alike, modality=rows.modality, name=base.card.name
    )  # fmt: skip
    return found.level, found.sentence


def _fragments(base: Backbone, rows: Dataset) -> distance.Fragments | None:
    """How finely the base's tokeniser breaks the texts up; None for pictures and for bases without one."""
    counted = getattr(base, "counted", None)  # of those that have a tokeniser
    if rows.modality != "text" or counted is None:
        return None
    texts = [text[:LONGEST] for text in rows.texts(np.arange(min(len(rows), LOOKED_AT)))]
    tokens, unknown = counted(texts)
    return distance.fragments(tokens, [distance.words(text) for text in texts], unknown)
