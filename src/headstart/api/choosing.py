"""The verbs that say what to use: select, advise; and those for base models: bases, add_base, remove_base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.errors import InputError, NotFound
from headstart.gathering import Columns, gather
from headstart.progress import Progress, silent
from headstart.storage import write_file


def select(
    data: object,
    *,
    backbones: Sequence[str] | None = None,
    licence: str = "any",
    max_size: float | None = None,
    max_latency: float | None = None,
    budget: float | None = None,
    text: str | None = None,
    image: str | None = None,
    label: str | None = None,
    names: object = None,
    task: str | None = None,
    encoding: str | None = None,
    seed: int = 0,
    page: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Try base models, cut everywhere, on labelled data: {candidates, recommended, excluded, warnings, seconds, ...}.

    backbones: their names; None for all that are built in or installed. licence: any, commercial, or a list. max_size:
    megabytes; max_latency: milliseconds an example, measured here; budget: seconds. page: where to write `choice_page`.
    Raises InputError, NotFound, DataError.
    """
    from headstart import choosing  # these verbs import what predicting needs not
    from headstart.bases import offers
    from headstart.candidates import Limits

    limits = Limits(licence, max_size, max_latency, budget)
    _folder_of(page)
    columns = Columns(text=text, image=image, label=label, names=names, encoding=encoding)
    train, _, _ = gather(data, None, None, None, {}, columns, task)
    if train is None:
        raise InputError("no example has a label; base models are compared on labelled ones.")
    fitting, excluded = choosing.suitable(train.modality, backbones, limits)
    found = choosing.select(train, fitting, limits, seed=seed, say=say, progress=progress)
    found |= {"excluded": excluded, "not_installed": offers(train.modality, limits)}
    if page is not None:
        choice_page(found, page)
    return found


def advise(
    data: object,
    *,
    budget: str | float | None = "10m",
    licence: str = "any",
    backbone: str | None = None,
    text: str | None = None,
    image: str | None = None,
    label: str | None = None,
    names: object = None,
    task: str | None = None,
    encoding: str | None = None,
    seed: int = 0,
    page: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """What to use on labelled data, from the cheapest answer up.

    Returns {recommended, rungs, seconds, curve, classes, distance, not_tried, sentences, ...}. budget: seconds, or '90s',
    '10m', '1h'; None for no limit. page: where to write it with its picture. After Ctrl-C what was found so far, with
    `interrupted`. Raises InputError, NotFound, DataError.
    """
    from headstart import advice, advicepage, advising, ladder
    from headstart.licence import checked

    limit = None if budget is None else ladder.seconds(budget)
    checked(licence)
    _folder_of(page)
    columns = Columns(text=text, image=image, label=label, names=names, encoding=encoding)
    train, _, _ = gather(data, None, None, None, {}, columns, task)
    if train is None:
        raise InputError("no example has a label; the ladder is climbed on labelled ones.")
    base, why = advising.usual(train.modality, backbone, licence)
    found = advising.advise(
        train, base, why=why, climb=advising.tuner, budget=limit, seed=seed, say=say, progress=progress
    )
    found["next"] = advice.command(found, str(data) if isinstance(data, str | Path) else "DATA")
    if page is not None:
        write_file(page, advicepage.page(found).encode())
    return found


def choice_page(found: Mapping[str, Any], path: Path) -> None:
    """Write what `select` found as one HTML page with a picture."""
    _folder_of(path)
    from headstart import pareto

    write_file(path, pareto.page(found).encode())


def _folder_of(page: Path | None) -> None:
    """Raise NotFound where a page could not be written, before the work is done."""
    if page is not None and (page.is_dir() or not page.parent.is_dir()):
        what = (
            "that is a folder; give the name of a page"
            if page.is_dir()
            else f"no such folder to write {page.name} into"
        )
        raise NotFound(f"{page if page.is_dir() else page.parent}: {what}.")


def bases(*, measure: bool = False) -> dict[str, Any]:
    """The base models there are: {built_in, installed, catalogue}, rows each, and the provider that runs installed ones.

    With `measure` they are timed first.
    """
    from headstart import bases as home
    from headstart.backbones import onnx as runtime

    if measure:
        home.measure()
    return {**home.bases(), "provider": runtime.providers()[0]}


def add_base(
    source: str,
    *,
    name: str | None = None,
    card: str | Path | None = None,
    licence: str | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Install a base model from hf:owner/name[@revision], a name of the catalogue, a folder or an .onnx file."""
    from headstart.hub import adding

    return adding.add(source, name=name, card=card, licence=licence, progress=progress)


def remove_base(name: str) -> dict[str, Any]:
    """Remove an installed base model; models that were made on it can then no longer predict."""
    from headstart.hub import adding

    return adding.remove(name)
