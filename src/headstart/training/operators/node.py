"""One node of a graph as the operators see it: attributes, and those inputs that are known before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import ModelError
from headstart.graph.reading import said

Run = Callable[..., Any]  # tensors (None for an optional input that is not given) -> a tensor, or a tuple of them


@dataclass(frozen=True)
class Node:
    """A node before it is run. `opset` is that of its domain; `constants` maps input numbers to their values."""

    kind: str
    name: str
    opset: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[int, NDArray[Any]] = field(default_factory=dict)
    outputs: int = 1

    def get(self, key: str, default: Any = None) -> Any:
        """An attribute: int, float, text, a list of them, or an array."""
        return self.attributes.get(key, default)

    def ints(self, place: int) -> list[int] | None:
        """The whole numbers of an input that is known, else None."""
        found = self.constants.get(place)
        return None if found is None else [int(v) for v in found.ravel()]

    def number(self, place: int) -> float | None:
        """The one number of an input that is known, else None."""
        found = self.constants.get(place)
        return None if found is None or found.size != 1 else found.item()

    def refuse(self, what: str) -> ModelError:
        """The error that says what of this node is not known here."""
        return ModelError(
            f"node {said(self.name)} ({self.kind}): {what} is not known to the interpreter, so nothing below it can be "
            "trained. Take a cut above it, or train a head on frozen features."
        )


Maker = Callable[[Node], Run]


def plain(run: Run) -> Maker:
    """The maker of an operator without attributes."""
    return lambda node: run


def whole(x: Any) -> list[int]:
    """The whole numbers in a tensor that stands for a shape, an axis or a place."""
    found: Any = x.reshape(-1).tolist()
    return [int(v) for v in found]


def array(tensor: Any) -> NDArray[Any]:
    """A tensor on the CPU as a numpy array."""
    return np.asarray(tensor.detach().cpu().numpy())
