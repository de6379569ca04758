"""What is chosen from: a base model at a cut, what it costs here, and how it compares with the best.

Letters: n examples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbone import Backbone
from headstart.errors import InputError
from headstart.licence import checked

ALIKE = 0.01  # what a cheaper candidate may lose to the best, at most
TOLD = 0.05  # half a standard error up to which examples may say that a simple model is enough
AGAIN, PATIENCE = 10, 0.5  # times a content is timed, at most; seconds after which none is timed again

Floats = NDArray[np.float64]
Line = Callable[[float], float]  # share of a network's operations -> milliseconds


@dataclass(frozen=True)
class Limits:
    """What a candidate must keep to; None is no limit."""

    licence: str = "any"  # any, commercial, or a list
    size: float | None = None  # megabytes below the cut
    latency: float | None = None  # milliseconds an example
    budget: float | None = None  # seconds for the whole choice

    def __post_init__(self) -> None:
        checked(self.licence)
        for flag, value in (("size", self.size), ("latency", self.latency), ("budget", self.budget)):
            if value is not None and not value > 0:
                name = flag if flag == "budget" else f"max-{flag}"
                raise InputError(f"--{name} {value:g} leaves room for nothing: give a number above 0.")


@dataclass(frozen=True)
class Candidate:
    """A backbone at one cut, and what was found of it on the last sample it was judged on."""

    backbone: Backbone
    simple: bool  # needs no network
    operations: float = 1.0  # share of the network's operations below the cut
    right: Floats = field(default_factory=lambda: np.zeros(0))  # (n,)
    groups: NDArray[np.int64] | None = None  # (n,)
    logme: float | None = None
    rounds: int = 0

    @property
    def name(self) -> str:
        """Backbone and cut, in words."""
        card = self.backbone.card
        return card.name if self.simple else f"{card.name} cut {card.cut}"

    @property
    def merit(self) -> float:
        """The mean of how right it is."""
        held = np.isfinite(self.right)
        return float(self.right[held].mean()) if held.any() else -np.inf

    def behind(self, best: Candidate) -> tuple[float, float]:
        """How much the best is better on the same rows, and the standard error of that.

        Rows of a group count together, and one row more on which the two differ, so that an error is never nothing.
        """
        d = best.right - self.right
        held = np.isfinite(d)
        n = int(held.sum())
        if n < 2:
            return 0.0, np.inf
        loss = float(d[held].mean())
        apart: Floats = d[held] - loss
        if self.groups is not None:
            code = np.unique(self.groups[held], return_inverse=True)[1]
            apart = np.bincount(code, apart).astype(np.float64)
        return loss, float(np.sqrt((apart**2).sum() + 1)) / n

    def alike(self, best: Candidate) -> bool:
        """Whether it may be taken in place of the best: what that costs, for all that is known, is a point at most."""
        loss, noise = self.behind(best)
        sure = noise / 2 <= TOLD if self.simple else loss + noise / 2 <= ALIKE
        return loss <= min(ALIKE, noise) and sure


def cuts(base: Backbone) -> list[str]:
    """The cuts of a backbone that are tried: its usual one, and the same at every tap."""
    usual, names = base.card.cut, [tap.name for tap in base.taps]
    kinds = ["max" if part.startswith("max") else "" for part in usual.split("+") if part != "top"] or [""]
    found = ["+".join(kind + name for kind in dict.fromkeys(kinds)) for name in names]
    return found if usual in found else [*found, usual]


def megabytes(base: Backbone) -> float:
    """The weights below the cut."""
    return (base.card.size or 0) / 1e6


def share_below(base: Backbone, cut: str) -> float:
    """The share of the network's operations below a cut."""
    shares = {tap.name: tap.operations for tap in base.taps}
    return max(shares.get(part.removeprefix("max"), 1.0) for part in cut.split("+"))


def line_of(base: Backbone, contents: Sequence[Any]) -> Line:
    """Milliseconds one content takes, by the share of the operations below a cut: through the first and the usual cut."""
    usual = milliseconds(base.at(base.card.cut), contents)
    if len(base.taps) < 2:
        return lambda share: usual
    first = min(usual, milliseconds(base.at(cuts(base)[0]), contents))
    low, high = (share_below(base, cut) for cut in (cuts(base)[0], base.card.cut))
    return lambda share: first + (usual - first) * (share - low) / max(high - low, 1e-6)


def milliseconds(base: Backbone, contents: Sequence[Any]) -> float:
    """The median time of one content alone, of each the shortest of up to ten times: what else runs here only adds."""
    base.encode(contents[:1])
    start, least = time.perf_counter(), np.full(len(contents), np.inf)
    for _ in range(AGAIN):
        for i, content in enumerate(contents):
            before = time.perf_counter()
            base.encode([content])
            least[i] = min(least[i], time.perf_counter() - before)
        if time.perf_counter() - start > PATIENCE:
            break
    return 1000 * float(np.median(least))
