"""Write a model into a project: card, arrays, probes, report; and believe it only when a fresh process answers alike."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from headstart import modelcard, proof, saved, tensors, verdict
from headstart.backbone import Backbone
from headstart.dataset import Dataset
from headstart.head import CLASSIFICATION, MULTILABEL
from headstart.model import Model
from headstart.model import load as load_folder
from headstart.project import Project
from headstart.report import render

KEPT = 20_000  # training examples a model keeps for `why`


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


def backbone_facts(base: Backbone) -> dict[str, Any]:
    """What a card says of a backbone."""
    card = base.card
    return {
        "name": card.name, "digest": card.digest, "licence": card.licence, "source": card.source,
        "precision": card.precision, "width": card.width, "cut": card.cut, "modality": card.modality,
        "fingerprint": card.fingerprint,
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
    probes: Sequence[str],
) -> Model:
    """Write the model into the project as its next version, have a fresh process replay it, and make it current."""
    card = {
        "name": name,
        "task": learned.task,
        "labels": list(learned.labels),
        "backbone": backbone_facts(base),
        "head": {k: learned.choice[k] for k in ("name", "strength", "pool", "why")},
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
    inputs = [text[: saved.PROBE_LENGTH] for text in probes[: saved.PROBE_COUNT]]
    X = base.encode(inputs)

    def write(folder: Path) -> None:
        tensors.save(folder / saved.ARRAYS, model.arrays())
        saved.write_probes(folder, inputs, X, model.answer(X).P)
        if train is not None:
            _write_examples(folder / saved.EXAMPLES, train)
        facts["seconds"] = clock.so_far()
        facts["verdict"] = verdict.sentences(facts)
        saved.write_json(folder / saved.FACTS, facts)
        (folder / saved.REPORT).write_text(render(facts), "utf-8")
        (folder / saved.README).write_text(modelcard.render(card, facts), "utf-8")
        saved.seal(folder, card)
        saved.replayed(saved.replay_apart(folder), folder)

    return load_folder(Project(project).commit(name, write))


def _write_examples(path: Path, train: Dataset) -> None:
    """Keep the training examples, or an even sample of them, for `why`: key, text, label, row."""
    index = np.arange(len(train))
    if len(index) > KEPT:
        index = np.sort(np.random.default_rng(0).permutation(index)[:KEPT])
    part = train.take(index)
    if train.task == CLASSIFICATION:
        label = pa.array(train.labels, pa.large_string()).take(pa.array(part.y))
    elif train.task == MULTILABEL:
        label = pa.array(["; ".join(train.labels[j] for j in np.flatnonzero(row > 0)) for row in part.T])
    else:
        label = pa.array([f"{value:.6g}" for value in part.T[:, 0]])
    table = pa.table(
        {
            "key": pa.array([key.tobytes().hex() for key in part.keys]),
            "text": part.contents,
            "label": label,
            "row": pa.array(part.rows),
        }
    )
    pyarrow.parquet.write_table(table, path, compression="zstd")
