"""The base models a user has and could have: built in, installed, and in the catalogue."""

from __future__ import annotations

from typing import Any

from headstart import backbones
from headstart.backbone import Backbone
from headstart.candidates import Limits
from headstart.hub import catalogue, speed
from headstart.licence import refused

HIDDEN = ("fake",)  # for tests


def bases() -> dict[str, list[dict[str, Any]]]:
    """{built_in, installed, catalogue}: rows with name, modality, width, depth, parameters, licence, size, source, speed.

    Rows of the catalogue also say what could not be verified, and whether they are installed. Nothing is loaded.
    """
    return {
        "built_in": [_built_in(backbones.load(name)) for name in backbones.BUILT_IN if name not in HIDDEN],
        "installed": catalogue.installed(),
        "catalogue": [{"speed": None, **row} for row in catalogue.listed()],
    }


def _built_in(base: Backbone) -> dict[str, Any]:
    card = base.card
    return {
        "name": card.name, "modality": card.modality, "width": card.width, "depth": max(len(base.taps) - 1, 0),
        "parameters": card.parameters, "licence": card.licence, "size": card.size, "source": card.source,
        "revision": card.revision, "digest": card.digest, "precision": card.precision,
        "speed": speed.measured().get(card.name, {}).get("per_second"),
    }  # fmt: skip


def measure() -> dict[str, float]:
    """Time every base that is here on this machine; contents a second by name, kept for the list."""
    found = {}
    for name in [*(name for name in backbones.BUILT_IN if name not in HIDDEN), *backbones.installed()]:
        trial = speed.tried(backbones.load(name))
        speed.keep(name, trial)
        found[name] = float(trial["per_second"])
    return found


def offers(modality: str, limits: Limits) -> list[str]:
    """Names of the catalogue that are not installed and, as far as it says, keep to licence and size."""
    here = backbones.installed()  # under the name of the catalogue, if from elsewhere
    return [
        row["name"]
        for row in catalogue.listed()
        if not row["installed"] and row["name"] not in here and row["modality"] == modality and refused(row["licence"], limits.licence) is None
        and (limits.size is None or (row["size"] is not None and row["size"] <= limits.size * 1e6))
    ]  # fmt: skip
