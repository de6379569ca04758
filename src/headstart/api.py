"""The verbs: fit, load, predict, evaluate, models, facts, verify, report, remove, cache.

Everything the command line does is here, for Python; the command line only parses and prints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from headstart import backbones, classnames, heads, proof, saved, verdict
from headstart.backbone import Backbone
from headstart.dataset import Dataset, read
from headstart.errors import DataError, HeadstartError, InputError, NotFound, near
from headstart.features import Features, embed
from headstart.head import CLASSIFICATION, MULTILABEL, TASKS
from headstart.keeping import Clock, backbone_facts, keep
from headstart.model import Model, Prediction, replay
from headstart.model import load as load_folder
from headstart.project import Project, checked_name, name_from
from headstart.rowcache import Cache
from headstart.storage import write_file
from headstart.stream import is_text, predict_file, predict_texts

__all__ = [
    "cache", "evaluate", "facts", "fit", "is_text", "load", "models", "predict", "predict_file", "predict_texts", "remove",
    "report", "summary", "verify",
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
    label: str | None = None,
    names: object = None,
    task: str | None = None,
    head: str = "auto",
    backbone: str = "minilm",
    precision: str = "auto",
    balanced: bool = False,
    refuse: float = 0.05,
    encoding: str | None = None,
    seed: int = 0,
    keep_examples: bool = True,
    project: str | Path = ".",
    progress: Progress = _silent,
) -> Model:
    """Train a model on labelled texts, prove how good it is, save it in the project, and return it.

    `data` is a path or a table in memory (see docs/data.md); with `y`, a sequence of texts. Every other argument is the
    flag of the same name of `headstart fit`. Raises InputError, NotFound or DataError on what cannot be used, ModelError
    when the saved model does not answer as the trained one, StorageError when the disk refuses; then nothing is saved.
    """
    _check(task=task, head=head, refuse=refuse, seed=seed, project=Path(project))
    chosen_name = checked_name(name if name is not None else name_from(_name_of(data)))
    given = classnames.given(labels)
    clock = Clock()
    with clock("read"):
        train, held, pool = _read(data, y, test, unlabelled, given, text, label, names, task, encoding)
    if train is None:
        return _zero_shot(chosen_name, given, pool, backbone, precision, seed, refuse, Path(project), clock)
    with clock("embed"):
        base, agreement, said = _backbone(backbone, precision, train)
        features = _embed(train, base, progress, "embedding")
        held_features = None if held is None else _embed(held, base, progress, "embedding the test")
        pool_features = None if pool is None else _embed(pool, base, progress, "embedding the unlabelled")
        name_features = _names(train, given, base)
    learned = proof.learn(
        train,
        features.values,
        pool=None if pool_features is None else pool_features.values,
        names=name_features,
        held=None if held is None or held_features is None else (held, held_features.values),
        head=head,
        balanced=balanced,
        refuse=refuse,
        seed=seed,
        clock=clock,
    )
    facts = {
        **learned.facts,
        "format": saved.FORMAT,
        "name": chosen_name,
        "made": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "headstart": version("headstart"),
        "seed": seed,
        "backbone": {**backbone_facts(base), "agreement": agreement},
    }
    facts["data"]["notes"] = [*facts["data"]["notes"], *said]
    spread = np.sort(np.random.default_rng(seed).permutation(len(train))[: saved.PROBE_COUNT])
    kept = train if keep_examples else None
    return keep(chosen_name, learned, facts, base, kept, Path(project), clock, probes=train.texts(spread))


def _check(*, task: str | None, head: str, refuse: float, seed: int, project: Path) -> None:
    """Refuse flags that mean nothing before any work is done."""
    if task is not None and task not in TASKS:
        raise InputError(f"no task {task!r}." + near(task, TASKS))
    if head != "auto" and head not in heads.NAMES:
        raise InputError(f"no head {head!r}." + near(head, ["auto", *heads.NAMES]))
    if not 0 < refuse < 0.5:
        raise InputError(f"--refuse {refuse} is not a share of good input between 0 and 0.5, such as 0.05.")
    if seed < 0:
        raise InputError(f"--seed {seed} is negative: give 0 or more.")
    if project.exists() and not project.is_dir():
        raise InputError(f"--project {project} is a file; give a folder.")


def _name_of(data: object) -> str:
    return str(data) if isinstance(data, str | Path) and str(data) != "-" else "model"


def _read(
    data: object,
    y: Sequence[object] | None,
    test: object,
    unlabelled: object,
    given: Mapping[str, str],
    text: str | None,
    label: str | None,
    names: object,
    task: str | None,
    encoding: str | None,
) -> tuple[Dataset | None, Dataset | None, Dataset | None]:
    """The labelled rows, the test rows, and the rows without a label; None where there are none."""
    if data is None and not given:
        raise InputError("give DATA, a file of labelled texts, or --labels a,b,c for a model without examples.")
    pool = None if unlabelled is None else read(unlabelled, text=text, encoding=encoding, labelled=False)
    if data is None:
        return None, None, pool
    if y is not None:
        texts = list(data) if isinstance(data, Sequence | np.ndarray) else data
        if not isinstance(texts, list) or len(texts) != len(y):
            raise InputError("with y=, data is a sequence of as many texts.")
        data = pa.table({"text": pa.array(texts, pa.large_string()), "label": pa.array(list(y))})
    if given and label is None and test is None:
        found = _labelled_or_not(data, text, names, task, encoding)
    else:
        found = read(data, text=text, label=label, names=names, task=task, encoding=encoding)
    if not (found.y >= 0).any():
        return None, None, _joined(found, pool)
    found = _against_given(found, given)
    held = None
    if found.split is not None and (testing := (found.split == "test") & (found.y >= 0)).any():
        if test is None:
            held = found.take(np.flatnonzero(testing))
        found = found.take(np.flatnonzero(found.split != "test"))
    if test is not None:
        known = None if found.task not in (CLASSIFICATION, MULTILABEL) else found.labels
        held = read(
            test, text=text, label=label, names=names, task=found.task, encoding=encoding, known=known
        )  # fmt: skip
        held = held.take(np.flatnonzero(held.y >= 0))
    bare = np.flatnonzero(found.y < 0)
    if len(bare):
        pool = _joined(found.take(bare), pool)
    return found.take(np.flatnonzero(found.y >= 0)), held, pool


def _labelled_or_not(data: object, text: str | None, names: object, task: str | None, encoding: str | None) -> Dataset:
    """Read with labels when the file has them, else texts alone (a pool for a zero-shot model)."""
    try:
        return read(data, text=text, names=names, task=task, encoding=encoding)
    except DataError:  # labels are there and something is wrong with them, or with the file
        raise
    except InputError:  # no label column was found
        return read(data, text=text, encoding=encoding, labelled=False)


def _against_given(found: Dataset, given: Mapping[str, str]) -> Dataset:
    """Hold the labels of a file against those of --labels: strangers are refused, those without examples noted."""
    if not given or found.task not in (CLASSIFICATION, MULTILABEL):
        return found
    if strangers := sorted(set(found.labels) - set(given)):
        raise InputError(f"{found.name}: the label {strangers[0]!r} is not one of --labels.{near(strangers[0], given)}")
    if bare := sorted(set(given) - set(found.labels)):
        said = f"no example of {', '.join(bare)}: the model cannot answer with what it has not seen"
        return replace(found, notes=(*found.notes, said))
    return found


def _joined(one: Dataset, other: Dataset | None) -> Dataset:
    """Two pools as one; only contents and keys matter."""
    if other is None:
        return one
    contents = pa.chunked_array([*one.contents.chunks, *other.contents.chunks], pa.large_string())
    n = len(contents)
    return replace(
        one, contents=contents, keys=np.concatenate([one.keys, other.keys]), y=np.full(n, -1, np.int32),
        rows=np.arange(1, n + 1), split=None, group=None, ids=None, weight=None,
    )  # fmt: skip


def _backbone(name: str, precision: str, train: Dataset) -> tuple[Backbone, float | None, list[str]]:
    """The backbone at the asked or the found precision, its agreement with float32, and what to say of it."""
    if precision != "auto":
        return backbones.load(name, precision=precision), None, []
    where = Cache()
    chosen, agreement, said = backbones.choose_precision(
        name, train.contents, encode=lambda base, texts: embed(texts, base, where).values
    )
    return chosen, agreement, [said]


def _embed(part: Dataset, base: Backbone, progress: Progress, what: str) -> Features:
    return embed(part.contents, base, Cache(), keys=part.keys, progress=lambda done, total: progress(what, done, total))


def _names(train: Dataset, given: Mapping[str, str], base: Backbone) -> np.ndarray[Any, Any] | None:
    """(c, d) features of what the label names mean, or None when they are codes."""
    meanings = classnames.meanings(train.labels, given) if train.labels else None
    return None if meanings is None else embed(meanings, base, Cache()).values


def _zero_shot(
    name: str,
    given: Mapping[str, str],
    pool: Dataset | None,
    backbone: str,
    precision: str,
    seed: int,
    refuse: float,
    project: Path,
    clock: Clock,
) -> Model:
    """A model from label names alone."""
    labels = tuple(sorted(given))
    meanings = classnames.meanings(labels, given)
    if meanings is None:
        raise InputError(
            "without examples the labels must mean something: use words, or describe them as in "
            "--labels 'c1: about invoices; c2: about delivery'."
        )
    base = backbones.load(backbone, precision="float32" if precision == "auto" else precision)
    with clock("embed"):
        named = embed(meanings, base, Cache()).values
        texts = None if pool is None else embed(pool.contents, base, Cache(), keys=pool.keys).values
    learned = proof.from_names(labels, named, texts)
    facts = {
        **learned.facts, "format": saved.FORMAT, "name": name, "seed": seed,
        "made": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "headstart": version("headstart"),
        "backbone": {**backbone_facts(base), "agreement": None},
    }  # fmt: skip
    probes = list(meanings) if pool is None else [*meanings, *pool.texts(np.arange(min(len(pool), 64)))]
    return keep(name, learned, facts, base, None, project, clock, probes=probes)


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


def predict(name: str | Path | Model, texts: Sequence[str] | str, *, project: str | Path = ".") -> list[Prediction]:
    """Predict texts with a model given by name, folder or itself; one Prediction a text, in order."""
    return (name if isinstance(name, Model) else load(name, project=project)).predict(texts)


def evaluate(
    model: Model | str | Path,
    data: object,
    *,
    text: str | None = None,
    label: str | None = None,
    names: object = None,
    encoding: str | None = None,
    project: str | Path = ".",
    progress: Progress = _silent,
) -> dict[str, Any]:
    """Measure a model on labelled data: {name, task, test: figures, per_class, confusion, notes}."""
    if not isinstance(model, Model):
        model = load(model, project=project)
    return model.evaluate(
        data, text=text, label=label, names=names, encoding=encoding,
        progress=lambda done, total: progress("embedding", done, total),
    )  # fmt: skip


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
