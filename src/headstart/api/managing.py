"""The verbs on models that are there: load, predict, evaluate, export, show, verify, report, remove; and the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart import deployments, saved, verdict
from headstart.embedding import SKIP
from headstart.errors import HeadstartError, InputError, NotFound
from headstart.model import Model, Prediction, replay
from headstart.model import load as load_folder
from headstart.progress import Progress, silent
from headstart.project import Project
from headstart.rowcache import Cache
from headstart.storage import write_file


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
        "advice": facts.get("advice"),
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
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure a model on labelled data: {name, task, test: figures, per_class, confusion, notes}."""
    if not isinstance(model, Model):
        model = load(model, project=project)
    return model.evaluate(
        data, text=text, image=image, label=label, names=names, encoding=encoding, broken=broken,
        progress=lambda done, total: progress("embedding", done, total),
    )  # fmt: skip


def export(name: str | Path, folder: str | Path, *, unknown: bool = True, project: str | Path = ".") -> dict[str, Any]:
    """Write a model as plain ONNX with all that is needed to predict without Headstart. Raises InputError, ModelError."""
    from headstart import exporting

    return exporting.export(load(name, project=project), Path(folder), unknown=unknown)


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
    """Check every digest, read everything, replay the probes from the text on. Raises ModelError.

    Of a model whose backbone was retrained `tuned` says what differs from the published one, and that nothing else does.
    """
    folder = _folder(name, project)
    model = load_folder(folder)
    result, differs = replay(model), getattr(model.backbone, "differs", None)
    return {
        "name": model.name, "folder": str(folder), "files": len(model.card["files"]) + 1, "probes": result.probes,
        "features": result.features, "answers": result.answers, "same_labels": result.same_labels,
        "digest": model.card["digest"], **({"tuned": differs()} if differs else {}),
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
    """Remove a model with all its versions; returns their numbers. Raises NotFound, InputError for one that is deployed."""
    root = Project(Path(project))
    root.current(name)
    for one in deployments.table(root.root).values():
        if name in {pointer.model for pointer in (one.live, one.challenger) if pointer}:
            raise InputError(
                f"model {name!r} is deployed as {one.name!r}: headstart undeploy {one.name}, then remove it."
            )
    return root.remove(name)


def cache(*, clear: bool = False) -> dict[str, Any]:
    """Where the feature cache is and how large; with `clear`, empty it (the size is what it was)."""
    where = Cache()
    size = where.clear() if clear else where.size()
    return {"folder": str(where.folder), "bytes": size, "cleared": clear}
