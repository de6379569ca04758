"""One version of a model, loaded to answer and for nothing else: what a thousand of them cost is their weights."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from headstart import model, saved
from headstart.errors import ModelError
from headstart.model import Model

PROBES = 8  # of those a model keeps, so many are answered again before it serves


@dataclass(frozen=True, eq=False)
class Served:
    """A model that answers. Two are equal only when they are one and the same."""

    model: Model  # its card holds only what answering needs; `unknown.references` stay in the file
    folder: Path
    name: str
    version: str  # "v3"
    digest: str  # sha256 hex of the card
    task: str
    modality: str
    labels: tuple[str, ...]
    fingerprint: str  # of its features, which are `model.card["backbone"]["width"]` wide

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a saved model, checking all that `model.load` checks. Raises NotFound or ModelError."""
        whole = model.load(folder, lean=True)
        try:
            card = _slim(whole.card)
            slim = replace(whole, card=card)
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{folder / saved.CARD}: lacks what a model is served by: {error}.") from error
        return cls(
            slim, folder, slim.name, folder.name, card["digest"], slim.task, slim.modality, card["labels"],
            card["backbone"]["fingerprint"],
        )  # fmt: skip

    def check(self, encode: Callable[[list[Any]], NDArray[np.float32]]) -> None:
        """Answer the first probes from the content on, and compare with what was stored when the model was made.

        encode: n contents -> features (n, d) of this model's fingerprint. Raises ModelError where they differ.
        """
        model.replay(self.model, encode, most=PROBES)


def _slim(card: Mapping[str, Any]) -> dict[str, Any]:
    """What answering needs of a card; equal strings of many models are kept once. Raises KeyError and the like."""
    base = {key: sys.intern(value) if isinstance(value, str) else value for key, value in card["backbone"].items()}
    sys.intern(base["fingerprint"])  # a text
    return {
        "name": sys.intern(card["name"]),
        "task": sys.intern(card["task"]),
        "labels": tuple(map(sys.intern, card["labels"])),
        "backbone": base,
        "head": {"name": sys.intern(card["head"]["name"])},
        "data": {"used": card.get("data", {}).get("used")},
        "made": card.get("made"),
        "digest": card["digest"],
    }
