"""Write a model into a project: card, arrays, probes, report; and believe it only when a fresh process answers alike."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from headstart import modalities, modelcard, proof, saved, tensors, verdict
from headstart.backbone import Backbone, Contents
from headstart.dataset import Dataset
from headstart.head import CLASSIFICATION, MULTILABEL
from headstart.model import Model
from headstart.model import load as load_folder
from headstart.project import Project
from headstart.report import render

KEPT = {"text": 20_000, "image": 2_000}  # training examples a model keeps for `why`


class Clock:
    """Seconds spent in the parts of a fit."""

    def __init__(self) -> None:
        self.start, self.seconds = time.perf_counter(), dict.fromkeys(("read", "embed", "fit", "evaluate"), 0.0)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count the time of a block for `part`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start

    def so_far(self) -> dict[str, float]:
        """The parts and the total, rounded to milliseconds."""
        total = time.perf_counter() - self.start
        return {part: round(value, 3) for part, value in {**self.seconds, "total": total}.items()}


def origin(name: str, seed: int) -> dict[str, Any]:
    """What a model's facts say of where it comes from."""
    return {
        "format": saved.FORMAT, "name": name, "seed": seed, "headstart": version("headstart"),
        "made": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }  # fmt: skip


def backbone_facts(base: Backbone) -> dict[str, Any]:
    """What a card says of a backbone; `said` is in words what one is that was retrained, and not as published."""
    card = base.card
    return {
        "name": card.name, "digest": card.digest, "licence": card.licence, "source": card.source,
        "precision": card.precision, "width": card.width, "cut": card.cut, "modality": card.modality,
        "fingerprint": card.fingerprint, "revision": card.revision, "parameters": card.parameters, "size": card.size,
        "widths": list(card.widths), **({"said": said} if (said := getattr(base, "said", None)) else {}),
    }  # fmt: skip


def keep(
    name: str,
    learned: proof.Learned,
    facts: dict[str, Any],
    base: Backbone,
    train: Dataset | None,
    project: Path,
    clock: Clock,
    *,
    probes: Contents,
    X: NDArray[np.float32] | None = None,
    carried: Path | None = None,
) -> Model:
    """Write the model into the project as its next version, have a fresh process replay it, and make it current.

    train: the examples to keep for `why`, None for none; X (n, d) their features, which pictures need. carried: a folder
    with a backbone of the model's own, which `base` was opened from.
    """
    card = {
        "name": name,
        "task": learned.task,
        "labels": list(learned.labels),
        "backbone": {
            **backbone_facts(base),
            "carried": carried is not None,
            "learned": bool(getattr(base, "learned", False) or facts.get("learned")),
        },
        "head": {k: learned.choice[k] for k in ("name", "strength", "pool", "views", "why")},
        "data": {k: facts["data"][k] for k in ("name", "digest", "rows", "used", "unlabelled", "classes")},
        "figures": {"estimate": facts["estimate"], "test": facts["test"]},
        "made": facts["made"],
        "seed": facts["seed"],
        "versions": {
            "headstart": facts["headstart"],
            "python": platform.python_version(),
            **{package: version(package) for package in ("numpy", "onnxruntime", "tokenizers", "pyarrow")},
        },
    }
    model = Model(card, learned.head, learned.calibration, learned.unknown, learned.thresholds)
    modality = modalities.load(base.card.modality)
    kept = [modality.probe(content) for content in probes[: saved.PROBE_COUNT[modality.name]]]
    features = base.encode([modality.unprobe(one) for one in kept])  # type: ignore[arg-type]

    def write(folder: Path) -> None:
        tensors.save(folder / saved.ARRAYS, model.arrays())
        saved.write_probes(folder, kept, features, model.answer(features).P)
        if train is not None:
            _write_examples(folder / saved.EXAMPLES, train, X)
        if carried is not None:
            for file in sorted(saved.CARRIED):
                if (carried / file).exists():
                    shutil.copyfile(carried / file, folder / file)
        facts["seconds"] = clock.so_far()
        facts["verdict"] = verdict.sentences(facts)
        saved.write_json(folder / saved.FACTS, facts)
        (folder / saved.REPORT).write_text(render(facts), "utf-8")
        (folder / saved.README).write_text(modelcard.render(card, facts), "utf-8")
        saved.seal(folder, card)
        saved.replayed(saved.replay_apart(folder), folder)

    return load_folder(Project(project).commit(name, write))


def _write_examples(path: Path, train: Dataset, X: NDArray[np.float32] | None) -> None:
    """Keep the training examples, or an even sample of them, for `why`: key, text, label, row.

    Of pictures the name, a small picture without what the camera noted in it, and the feature in float16.
    """
    index, most = np.arange(len(train)), KEPT[train.modality]
    if len(index) > most:
        index = np.sort(np.random.default_rng(0).permutation(index)[:most])
    part = train.take(index)
    if train.task == CLASSIFICATION:
        label = pa.array(train.labels, pa.large_string()).take(pa.array(part.y))
    elif train.task == MULTILABEL:
        label = pa.array(["; ".join(train.labels[j] for j in np.flatnonzero(row > 0)) for row in part.T])
    else:
        label = pa.array([f"{value:.6g}" for value in part.T[:, 0]])
    columns = {
        "key": pa.array([key.tobytes().hex() for key in part.keys]),
        "text": part.contents if train.modality == "text" else pa.array(part.texts(), pa.large_string()),
        "label": label,
        "row": pa.array(part.rows),
    }
    if train.modality != "text":
        assert X is not None
        shown = modalities.load(train.modality).shown
        small = (shown(content.as_py()) for content in part.contents)  # one by one: the whole pictures may be gigabytes
        columns["picture"] = pa.array(small, pa.large_string())
        columns["feature"] = pa.array([row.tobytes() for row in X[index].astype("<f2")], pa.binary())
    table = pa.table(columns)
    pyarrow.parquet.write_table(table, path, compression="zstd")
