"""Training what lies above a cut: the ONNX graph as a torch module. The only room, beside hub/foreign.py, that uses torch."""

from __future__ import annotations

import importlib
from typing import Any

from headstart.errors import MissingExtra

INSTALL = "pip install 'headstart[torch]'"


def torch() -> Any:
    """The module torch. Raises MissingExtra with the pip line when it is not installed."""
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtra(f"training layers of a network needs torch, which is not installed: {INSTALL}") from None
