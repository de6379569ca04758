"""The backbones there are. `load` finds one by name; nothing heavy is imported before one is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.backbone import Backbone
from headstart.errors import InputError, NotFound, near

NAMES = ("fake", "minilm")
ENOUGH = 0.97  # int8 must keep this share of what distinguishes the user's texts
SAMPLE = 64

Encode = Callable[[Backbone, Sequence[str]], NDArray[np.float32]]


def load(name: str, *, precision: str | None = None, cut: str | None = None) -> Backbone:
    """A backbone by name: "minilm" (float32 or int8; cut "6+max6", "6", ...) or "fake". Loads no weights.

    Raises NotFound for an unknown name, InputError for a precision or cut it does not have.
    """
    if name == "minilm":
        from headstart.backbones import minilm

        return minilm.MiniLM(precision or "float32", cut or minilm.CUT)
    if name == "fake":
        from headstart.backbones import fake

        if precision not in (None, "float32") or cut not in (None, "top"):
            raise InputError(f"backbone 'fake' has only precision float32 and cut top, not {precision} and {cut}.")
        return fake.Fake()
    raise NotFound(f"no backbone {name!r}.{near(name, NAMES)}")


def _encode(backbone: Backbone, contents: Sequence[str]) -> NDArray[np.float32]:
    return backbone.encode(contents)


def agreement(approximate: Backbone, exact: Backbone, contents: Sequence[str], *, encode: Encode = _encode) -> float:
    """The share of what distinguishes the contents that the approximate backbone keeps, at most 1.

    1 - mean |a_i - e_i|^2 / mean |e_i - mean(e)|^2 over at most 64 contents spread evenly over those given: the
    fraction of variance unexplained, taken from one. A cosine would flatter texts that are all alike. `encode(backbone,
    contents)` may go through a feature cache. Where all contents are equal the mean cosine is given instead.
    """
    rows = np.unique(np.linspace(0, len(contents) - 1, min(SAMPLE, len(contents))).astype(int))
    sample = [str(contents[i]) for i in rows.tolist()]  # an Arrow array gives scalars
    a, e = (encode(backbone, sample).astype(np.float64) for backbone in (approximate, exact))
    spread = ((e - e.mean(0)) ** 2).sum(1).mean()
    if spread < 1e-9:
        return float(((a * e).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(e, axis=1), 1e-12)).mean())
    return float(1 - ((a - e) ** 2).sum(1).mean() / spread)


def choose_precision(
    name: str, contents: Sequence[str], *, cut: str | None = None, encode: Encode = _encode
) -> tuple[Backbone, float | None, str]:
    """The backbone in int8 if that is good enough on these contents, else in float32.

    Returns (backbone, agreement or None where there is no choice, a sentence that says what was chosen and why).
    """
    exact = load(name, cut=cut)
    if name != "minilm" or len(contents) == 0:
        return exact, None, f"{name} in float32."
    quick = load(name, precision="int8", cut=cut)
    kept = agreement(quick, exact, contents, encode=encode)
    n = min(SAMPLE, len(contents))
    said = f"on {n} of your texts int8 features keep {kept:.1%} of what distinguishes them in float32"
    if kept >= ENOUGH:
        return quick, kept, f"{name} in int8, the faster: {said}."
    return exact, kept, f"{name} in float32: {said}, and {ENOUGH:.0%} is asked."
