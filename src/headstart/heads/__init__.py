"""The heads there are. `load` finds one by name; none imports another."""

from __future__ import annotations

from importlib import import_module

from headstart.errors import NotFound, near
from headstart.head import Head

_CLASSES = {
    "centroid": "Centroid",
    "linear": "Linear",
    "mlp": "Mlp",
    "nearest": "Nearest",
    "prior": "Prior",
    "ridge": "Ridge",
}
NAMES = ("centroid", "linear", "nearest", "ridge")  # those a user may ask for


def load(name: str) -> type[Head]:
    """The class of a head by name. Raises NotFound with near names."""
    if name not in _CLASSES:
        raise NotFound(f"no head {name!r}." + near(name, NAMES))
    found: type[Head] = getattr(import_module(f"headstart.heads.{name}"), _CLASSES[name])
    return found
