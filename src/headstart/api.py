"""The verbs: fit, load, predict, evaluate, select, shrink, export, models, facts, verify, report, remove, cache, and
those for base models: bases, add_base, remove_base.

Everything the command line does is here, for Python; the command line only parses and prints.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart import backbones, classnames, heads, learning, saved, verdict
from headstart.embedding import BROKEN, SKIP
from headstart.errors import HeadstartError, InputError, NotFound, near
from headstart.gathering import Columns, gather
from headstart.head import TASKS
from headstart.keeping import Clock
from headstart.kept import examples
from headstart.model import Model, Prediction, replay
from headstart.model import load as load_folder
from headstart.project import Project, checked_name, name_from
from headstart.rowcache import Cache
from headstart.storage import write_file
from headstart.stream import is_one, predict_file, predict_one

__all__ = [
    "add_base", "bases", "cache", "choice_page", "evaluate", "export", "facts", "fit", "is_one", "load", "models", "predict",
    "predict_file", "predict_one", "remove", "remove_base", "report", "select", "shrink", "summary", "verify",
]  # fmt: skip

Progress = Callable[[str, int, int | None], None]


def _silent(what: str, done: int, total: int | None) -> None:
    """Report nothing."""


def fit(
    data: object = None,
    y: Sequence[object] | None = None,
    *,
    name: str | None = None,
    test: object = None,
    unlabelled: object = None,
    labels: str | Sequence[str] | Mapping[str, str] | None = None,
    text: str | None = None,
    image: str | None = None,
    label: str | None = None,
    names: object = None,
    task: str | None = None,
    head: str = "auto",
    backbone: str = "auto",
    cut: str | None = None,
    precision: str = "auto",
    views: bool = True,
    broken: str = SKIP,
    balanced: bool = False,
    refuse: float = 0.05,
    encoding: str | None = None,
    seed: int = 0,
    keep_examples: bool = True,
    project: str | Path = ".",
    progress: Progress = _silent,
) -> Model:
    """Train a model on labelled texts or pictures, prove how good it is, save it in the project, and return it.

    `data` is a path or a table in memory (see docs/data.md); with `y`, a sequence of texts, or of picture files as bytes.
    Every other argument is the flag of the same name of `headstart fit`. Raises InputError, NotFound or DataError on what
    cannot be used, ModelError when the saved model does not answer as the trained one, StorageError when the disk
    refuses; then nothing is saved.
    """
    _check(task=task, head=head, refuse=refuse, seed=seed, broken=broken, project=Path(project))
    chosen_name = checked_name(name if name is not None else name_from(_name_of(data)))
    given = classnames.given(labels)
    clock = Clock()
    columns = Columns(text=text, image=image, label=label, names=names, encoding=encoding)
    with clock("read"):
        train, held, pool = gather(data, y, test, unlabelled, given, columns, task)
    if train is None:
        base = backbones.load(_named(backbone, "text"), cut=cut, precision=None if precision == "auto" else precision)
        return learning.zero_shot(chosen_name, given, pool, base, seed, Path(project), clock)
    with clock("embed"):
        base, agreement, said = learning.backbone(_named(backbone, train.modality), cut, precision, train)
    return learning.supervised(
        chosen_name, train, held, pool, given, base, clock, agreement=agreement, said=said, head=head, views=views,
        broken=broken, balanced=balanced, refuse=refuse, seed=seed, keep_examples=keep_examples, project=Path(project),
        progress=progress,
    )  # fmt: skip


def _named(backbone: str, modality: str) -> str:
    return backbones.usual(modality) if backbone == "auto" else backbone


def _check(*, task: str | None, head: str, refuse: float, seed: int, broken: str, project: Path) -> None:
    """Refuse flags that mean nothing before any work is done."""
    if task is not None and task not in TASKS:
        raise InputError(f"no task {task!r}." + near(task, TASKS))
    if head != "auto" and head not in heads.NAMES:
        raise InputError(f"no head {head!r}." + near(head, ["auto", *heads.NAMES]))
    if broken not in BROKEN:
        raise InputError(f"--broken {broken} is neither skip nor refuse.")
    if not 0 < refuse < 0.5:
        raise InputError(f"--refuse {refuse} is not a share of good input between 0 and 0.5, such as 0.05.")
    if seed < 0:
        raise InputError(f"--seed {seed} is negative: give 0 or more.")
    if project.exists() and not project.is_dir():
        raise InputError(f"--project {project} is a file; give a folder.")


def _name_of(data: object) -> str:
    return str(data) if isinstance(data, str | Path) and str(data) != "-" else "model"


def load(name: str | Path, *, project: str | Path = ".") -> Model:
    """A model of the project by name, or of a folder by path. Raises NotFound, InputError or ModelError."""
    return load_folder(_folder(name, project))


def _folder(name: str | Path, project: str | Path) -> Path:
    path = Path(name)
    if (path / saved.CARD).is_file() or len(path.parts) > 1:
        return path
    return Project(Path(project)).current(str(name))


def facts(model: Model) -> dict[str, Any]:
    """Everything the report of a saved model shows; docs/report.md says what the pieces mean."""
    assert model.folder is not None
    found: dict[str, Any] = saved.read_json(model.folder / saved.FACTS)
    return found


def summary(model: Model, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What `fit --json` prints."""
    return {
        "name": model.name,
        "task": model.task,
        "labels": list(model.labels),
        "backbone": facts["backbone"],
        "head": facts["head"],
        "n_train": facts["data"]["used"],
        "estimate": facts["estimate"],
        "test": facts["test"],
        "unknown": facts["unknown"],
        "curve": facts["curve"],
        "calibration": facts["calibration"] and {k: v for k, v in facts["calibration"].items() if k != "bins"},
        "suspects": len(facts["suspects"]),
        "verdict": facts["verdict"],
        "notes": facts["data"]["notes"],
        "seconds": facts["seconds"],
        "folder": str(model.folder),
        "report": str(model.folder / saved.REPORT) if model.folder else None,
        "digest": model.card["digest"],
    }


def predict(
    name: str | Path | Model, contents: Sequence[str | bytes | Path] | str | bytes | Path, *, project: str | Path = "."
) -> list[Prediction]:
    """Predict texts, or pictures by path or bytes, with a model given by name, folder or itself; in order."""
    return (name if isinstance(name, Model) else load(name, project=project)).predict(contents)


def evaluate(
    model: Model | str | Path,
    data: object,
    *,
    text: str | None = None,
    image: str | None = None,
    label: str | None = None,
    names: object = None,
    encoding: str | None = None,
    broken: str = SKIP,
    project: str | Path = ".",
    progress: Progress = _silent,
) -> dict[str, Any]:
    """Measure a model on labelled data: {name, task, test: figures, per_class, confusion, notes}."""
    if not isinstance(model, Model):
        model = load(model, project=project)
    return model.evaluate(
        data, text=text, image=image, label=label, names=names, encoding=encoding, broken=broken,
        progress=lambda done, total: progress("embedding", done, total),
    )  # fmt: skip


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
    progress: Progress = _silent,
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


def shrink(
    name: str | Path,
    *,
    data: object = None,
    max_loss: float = 1.0,
    as_name: str | None = None,
    seed: int = 0,
    project: str | Path = ".",
    say: Callable[[str], None] = lambda line: None,
    progress: Progress = _silent,
) -> tuple[Model, dict[str, Any]]:
    """A smaller, quicker model that loses at most `max_loss` points on folds, saved as a new one, and what it took.

    The facts are {name, before, after, steps}. data: labelled examples; by default those the model keeps. Raises
    InputError when nothing smaller keeps to the loss.
    """
    from headstart import shrinking

    if not 0 <= max_loss <= 100:
        raise InputError(f"--max-loss {max_loss:g} is not a number of points from 0 to 100.")
    model = load(name, project=project)
    chosen_name = checked_name(as_name if as_name is not None else f"{model.name}-small")
    if chosen_name == model.name:
        raise InputError(f"the smaller model needs another name than {model.name!r}; give one with --as.")
    if not model.card["data"]["used"]:
        raise InputError(
            f"model {model.name!r} was made from label names alone, and shrinking needs labelled examples to judge on: fit a "
            "model on some first."
        )
    clock = Clock()
    with clock("read"):
        train = examples(model, data)
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        made = shrinking.shrink(
            model.backbone, train, Path(folder) / "made", max_loss=max_loss / 100, seed=seed, say=say
        )  # fmt: skip
        shrunk = {"from": model.name, **made.facts}
        smaller = learning.supervised(
            chosen_name, train, None, None, {}, made.base, clock, seed=seed, project=Path(project), progress=progress,
            more={"shrunk": shrunk}, carried=made.folder,
        )  # fmt: skip
    return smaller, {"name": smaller.name, **shrunk}


def export(name: str | Path, folder: str | Path, *, unknown: bool = True, project: str | Path = ".") -> dict[str, Any]:
    """Write a model as plain ONNX with all that is needed to predict without Headstart. Raises InputError, ModelError."""
    from headstart import exporting

    return exporting.export(load(name, project=project), Path(folder), unknown=unknown)


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
    progress: Progress = _silent,
) -> dict[str, Any]:
    """Install a base model from hf:owner/name[@revision], a name of the catalogue, a folder or an .onnx file."""
    from headstart.hub import adding

    return adding.add(source, name=name, card=card, licence=licence, progress=progress)


def remove_base(name: str) -> dict[str, Any]:
    """Remove an installed base model; models that were made on it can then no longer predict."""
    from headstart.hub import adding

    return adding.remove(name)


def models(*, project: str | Path = ".") -> list[dict[str, Any]]:
    """The models of a project, a row each; a damaged one has an `error`."""
    root = Project(Path(project))
    rows: list[dict[str, Any]] = []
    for name in root.names():
        try:
            folder = root.current(name)
            card = saved.read_card(folder)
        except HeadstartError as error:
            rows.append({"name": name, "error": str(error)})
            continue
        rows.append(
            {
                "name": name, "version": folder.name, "task": card["task"], "labels": len(card["labels"]),
                "n_train": card["data"]["used"], "figure": verdict.figure(card), "made": card["made"],
                "digest": card["digest"], "folder": str(folder),
            }
        )  # fmt: skip
    return rows


def verify(name: str | Path, *, project: str | Path = ".") -> dict[str, Any]:
    """Check every digest, read everything, replay the probes from the text on. Raises ModelError."""
    folder = _folder(name, project)
    model = load_folder(folder)
    result = replay(model)
    return {
        "name": model.name, "folder": str(folder), "files": len(model.card["files"]) + 1, "probes": result.probes,
        "features": result.features, "answers": result.answers, "same_labels": result.same_labels,
        "digest": model.card["digest"],
    }  # fmt: skip


def report(name: str | Path, *, output: Path | None = None, project: str | Path = ".") -> Path:
    """The path of a model's report; with `output`, of a copy of it."""
    path = _folder(name, project) / saved.REPORT
    if not path.is_file():
        raise NotFound(f"{path}: no report there.")
    if output is None:
        return path
    target = output / saved.REPORT if output.is_dir() else output
    if not target.parent.is_dir():
        raise NotFound(f"{target.parent}: no such folder to write {target.name} into.")
    write_file(target, path.read_bytes())
    return target


def remove(name: str, *, project: str | Path = ".") -> list[int]:
    """Remove a model with all its versions; returns their numbers."""
    return Project(Path(project)).remove(name)


def cache(*, clear: bool = False) -> dict[str, Any]:
    """Where the feature cache is and how large; with `clear`, empty it (the size is what it was)."""
    where = Cache()
    size = where.clear() if clear else where.size()
    return {"folder": str(where.folder), "bytes": size, "cleared": clear}
