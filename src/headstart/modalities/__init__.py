"""The modalities. Their names are listed without importing them; `load` imports one."""

from __future__ import annotations

from importlib import import_module

from headstart.errors import NotFound, near
from headstart.modality import Modality

NAMES = ("image", "text")


def load(name: str) -> Modality:
    """The modality of that name. Raises NotFound."""
    if name not in NAMES:
        raise NotFound(f"There is no modality {name!r}; there is {' and '.join(NAMES)}.{near(name, NAMES)}")
    modality: Modality = import_module(f"headstart.modalities.{name}")
    return modality
