"""Headstart: a small special-purpose model of your own, from a pre-trained base and a little labelled data.

>>> import headstart
>>> model = headstart.fit([("where is my parcel", "delivery"), ...])    # doctest: +SKIP
>>> model.predict(["my parcel never came"])                             # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.api import (
        advise,
        distil,
        evaluate,
        export,
        fit,
        load,
        models,
        predict,
        remove,
        select,
        shrink,
        tune,
        verify,
    )
    from headstart.errors import HeadstartError
    from headstart.model import Model, Prediction

__version__ = "0.1.0"

__all__ = [
    "HeadstartError", "Model", "Prediction", "advise", "distil", "evaluate", "export", "fit", "load", "models", "predict", "remove", "select",
    "shrink", "tune", "verify",
]  # fmt: skip

_HOME = {"HeadstartError": "errors", "Model": "model", "Prediction": "model"}


def __getattr__(name: str) -> Any:
    """Load a public name at its first use, so that `import headstart` stays instant."""
    if name not in __all__:
        raise AttributeError(f"module 'headstart' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"headstart.{_HOME.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return __all__
