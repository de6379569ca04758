"""The backbones there are. `load` finds one by name; nothing heavy is imported before one is used.

Built in are minilm (texts), words (texts, no network), colours (pictures, no network) and fake (for tests). A remote one
is named by its address, "remote:https://...#model"; every other name is that of an installed folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbone import Backbone, Contents, cache_folder
from headstart.errors import InputError, NotFound, near

BUILT_IN = ("colours", "fake", "minilm", "words")
REMOTE = "remote:"
INDEX = "backbone.json"  # what makes a folder a backbone
USUAL = {"text": "minilm"}  # the base of a modality, where none is named
NO_NETWORK = {"text": "words", "image": "colours"}
ENOUGH = 0.97  # int8 must keep this share of what distinguishes the user's texts
SAMPLE = 64

Encode = Callable[[Backbone, Contents], NDArray[np.float32]]


def folder() -> Path:
    """Where installed backbones lie, a folder each."""
    return cache_folder() / "backbones"


def installed() -> list[str]:
    """The names of the installed backbones, sorted."""
    where = folder()
    if not where.is_dir():
        return []
    return sorted(path.name for path in where.iterdir() if (path / INDEX).is_file() and not path.name.startswith("."))


def load(name: str, *, precision: str | None = None, cut: str | None = None, carried: Path | None = None) -> Backbone:
    """A backbone by name: built in, installed, remote, or carried in a model's folder. Loads no weights.

    What is carried is told by the file it has: backbone.json, tuned.json or static.json.

    Raises NotFound for an unknown name, InputError for a precision or cut it does not have, ModelError for a folder that
    is damaged.
    """
    if carried is None and name == "minilm":
        from headstart.backbones import minilm

        return minilm.MiniLM(precision or "float32", cut or minilm.CUT)
    if carried is not None or (name not in BUILT_IN and not name.startswith(REMOTE)):
        place = carried or folder() / name
        if carried is None and (Path(name).name != name or not (place / INDEX).is_file()):
            raise NotFound(
                f"no backbone {name!r} is built in or installed.{near(name, [*BUILT_IN, *installed()])} "
                "`headstart backbones` lists those there are and those that can be added."
            )
        found = _opened(place, cut, carried is not None)
    else:
        found = _without_network(name)
        if cut is not None:
            found = found.at(cut)
    if precision is not None and precision != found.card.precision:  # a remote one is asked for its card at a price
        raise InputError(f"backbone {name!r} has only precision {found.card.precision}, not {precision}.")
    return found


def _opened(place: Path, cut: str | None, carried: bool) -> Backbone:
    """What lies in a folder: a network, or what only a model's folder holds, token vectors or a base retrained above."""
    if carried and (place / "tuned.json").is_file():
        from headstart.backbones import tuned

        return tuned.Tuned.open(place, cut=cut)
    if carried and (place / "static.json").is_file():
        from headstart.backbones import static

        return static.Static.open(place, cut=cut)
    from headstart.backbones import network

    return network.Network.open(place, cut=cut)


def _without_network(name: str) -> Backbone:
    """One that has no network here."""
    if name == "words":
        from headstart.backbones import words

        return words.Words()
    if name == "colours":
        from headstart.backbones import colours

        return colours.Colours()
    if name == "fake":
        from headstart.backbones import fake

        return fake.Fake()
    from headstart.backbones import remote

    return remote.named(name)


def exact(base: Backbone) -> Backbone:
    """The base in float32, where it is built in and would run in int8; one that was retrained is in float32."""
    int8 = base.card.precision != "float32" and base.card.name in USUAL.values()
    return load(base.card.name, cut=base.card.cut) if int8 else base


def usual(modality: str) -> str:
    """The base where the user names none: the built-in one, or the only installed one. Raises InputError."""
    if modality in USUAL:
        return USUAL[modality]
    fitting = [name for name in installed() if load(name).card.modality == modality]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise InputError(
            f"several base models for pictures are installed: {', '.join(fitting)}. Name one with --backbone, or let "
            "`headstart select DATA` find the best."
        )
    raise InputError(
        "no base model for pictures is installed. Add one, `headstart backbones add mobilenet-v2` or a file of your own "
        f"(`headstart backbones` lists more); or use --backbone {NO_NETWORK[modality]}, which needs none."
    )


def _encode(backbone: Backbone, contents: Contents) -> NDArray[np.float32]:
    return backbone.encode(contents)


def agreement(approximate: Backbone, exact: Backbone, contents: Any, *, encode: Encode = _encode) -> float:
    """The share of what distinguishes the contents that the approximate backbone keeps, at most 1.

    1 - mean |a_i - e_i|^2 / mean |e_i - mean(e)|^2 over at most 64 contents spread evenly over those given: the
    fraction of variance unexplained, taken from one. A cosine would flatter texts that are all alike. `encode(backbone,
    contents)` may go through a feature cache. Where all contents are equal the mean cosine is given instead.
    """
    rows = np.unique(np.linspace(0, len(contents) - 1, min(SAMPLE, len(contents))).astype(int))
    sample = contents.take(rows).to_pylist() if hasattr(contents, "take") else [contents[i] for i in rows.tolist()]
    a, e = (encode(backbone, sample).astype(np.float64) for backbone in (approximate, exact))
    spread = ((e - e.mean(0)) ** 2).sum(1).mean()
    if spread < 1e-9:
        return float(((a * e).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(e, axis=1), 1e-12)).mean())
    return float(1 - ((a - e) ** 2).sum(1).mean() / spread)


def choose_precision(
    name: str, contents: Any, *, cut: str | None = None, encode: Encode = _encode
) -> tuple[Backbone, float | None, str]:
    """The backbone in int8 if that is good enough on these contents, else in float32.

    Returns (backbone, agreement or None where there is no choice, a sentence that says what was chosen and why).
    """
    exact = load(name, cut=cut)
    if name != "minilm" or len(contents) == 0:
        return exact, None, f"base model {name}, cut {exact.card.cut}, {exact.card.precision}."
    quick = load(name, precision="int8", cut=cut)
    kept = agreement(quick, exact, contents, encode=encode)
    n = min(SAMPLE, len(contents))
    said = f"on {n} of your texts int8 features keep {kept:.1%} of what distinguishes them in float32"
    if kept >= ENOUGH:
        return quick, kept, f"{name} in int8, the faster: {said}."
    return exact, kept, f"{name} in float32: {said}, and {ENOUGH:.0%} is asked."
