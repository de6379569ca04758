"""trashnet: `headstart fit` on 50 pictures a class on frozen MobileNet features, beside raw pixels and histograms."""

from __future__ import annotations

import io
import json
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.table import SHARED, Row

TITLE = "Pictures: trashnet, 6 classes"
SEEDS = range(5)
FOLDER = SHARED / "data/trashnet"
BASES = {
    "mobilenet-v1": ("mobilenet_v1_1.0_224_embedding_extractor_fp32.onnx", 1 / 128, 1.0),
    "mobilenet-v2": ("mobilenet_v2_1.0_224_fp32.onnx", 1 / 128, 1.0),
    "mobilenet-v2-035": ("keras_mobilenet_v2_0.35_224.onnx", 1 / 127.5, 1.0),
}


def card(folder: Path, name: str) -> Path:
    """The TOML card of one of the three bases."""
    _, scale, mean = BASES[name]
    path = folder / f"{name}.toml"
    path.write_text(
        f'name = "{name}"\nmodality = "image"\nlicence = "Apache-2.0"\n[preprocessing]\nwidth = 224\nheight = 224\n'
        f'resize = "squash"\nscale = {scale!r}\nmean = [{mean}, {mean}, {mean}]\n'
    )
    return path


def add(name: str) -> None:
    """Install one of the three bases in the cache of this process, unless it is there."""
    from headstart import backbones
    from headstart.hub.adding import add

    if name not in backbones.installed():
        with tempfile.TemporaryDirectory() as folder:
            add(str(SHARED / "backbones" / BASES[name][0]), card=card(Path(folder), name))


def pictures() -> list[tuple[bytes, str]]:
    """The files with their labels, in order."""
    return [(path.read_bytes(), path.parent.name) for path in sorted(FOLDER.glob("*/*.jpg"))]


def split(rows: list[tuple[bytes, str]], each: int, seed: int) -> tuple[list[int], list[int]]:
    """Rows to train on, `each` a class, and the others."""
    draw, labels = np.random.default_rng(seed), np.array([label for _, label in rows])
    chosen = np.concatenate(
        [draw.choice(np.flatnonzero(labels == label), each, replace=False) for label in sorted(set(labels))]
    )
    return sorted(chosen.tolist()), sorted(set(range(len(rows))) - set(chosen.tolist()))


def table(rows: list[tuple[bytes, str]], index: list[int]) -> pa.Table:
    """Pictures and labels as `fit` reads them from memory."""
    return pa.table(
        {"image": pa.array([rows[i][0] for i in index], pa.large_binary()), "label": [rows[i][1] for i in index]}
    )


def fitted(rows: list[tuple[bytes, str]], base: str, each: int, project: Path) -> tuple[list[float], str]:
    """Test accuracies over the seeds, and for how many of them mirrored views were used."""
    import headstart
    from headstart import api

    found, views = [], 0
    for seed in SEEDS:
        train, test = split(rows, each, seed)
        model = headstart.fit(
            table(rows, train), test=table(rows, test), name="waste", backbone=base, project=project, seed=seed
        )
        facts = api.facts(model)
        found.append(facts["test"]["accuracy"])
        views += facts["head"]["views"]
    return found, f"mirrored views used for {views} of {len(found)}"


def pixels(rows: list[tuple[bytes, str]], each: int) -> list[float]:
    """Logistic regression on 16 x 16 raw pixels."""
    from PIL import Image
    from sklearn.linear_model import LogisticRegression

    X = np.array([np.asarray(Image.open(io.BytesIO(raw)).convert("RGB").resize((16, 16))).ravel() for raw, _ in rows])
    y = np.array([label for _, label in rows])
    found = []
    for seed in SEEDS:
        train, test = split(rows, each, seed)
        head = LogisticRegression(max_iter=2000, C=0.01).fit(X[train] / 255, y[train])
        found.append(float((head.predict(X[test] / 255) == y[test]).mean()))
    return found


def throughput(rows: list[tuple[bytes, str]]) -> tuple[float, float, float]:
    """Pictures a second of encode from files, of the network alone on ready arrays, and of decoding alone.

    All on the same cores and in the same batches, turn and turn about; medians of five turns.
    """
    from headstart import backbones
    from headstart.backbones import network
    from headstart.modalities.image import decoded

    base = backbones.load("mobilenet-v1")
    files = [raw for raw, _ in rows][::2]
    looks = base.preprocessing
    session, name = base._opened, None
    arrays = np.stack([looks.apply(decoded(raw, looks.least)) for raw in files])
    name = session.get_inputs()[0].name
    cores, size = len(os.sched_getaffinity(0)), network.PICTURES

    def alone(start: int) -> None:
        session.run(None, {name: arrays[start : start + size]})

    def decode(raw: bytes) -> None:
        looks.apply(decoded(raw, looks.least))

    def timed(work) -> float:
        start = time.perf_counter()
        work()
        return len(files) / (time.perf_counter() - start)

    def spread(one, over) -> None:
        with ThreadPoolExecutor(cores) as pool:
            for _ in pool.map(one, over):
                pass

    base.encode(files[:16])
    turns = [
        (
            timed(lambda: base.encode(files)),
            timed(lambda: spread(alone, range(0, len(files), size))),
            timed(lambda: spread(decode, files)),
        )
        for _ in range(5)
    ]
    return tuple(statistics.median(turn[i] for turn in turns) for i in range(3))


def shown(values: list[float]) -> str:
    """Mean with the interval of the mean over the seeds (Student's t, 4 degrees of freedom)."""
    mean, half = np.mean(values), 2.776 * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{100 * mean:.1f} % ({100 * (mean - half):.1f} to {100 * (mean + half):.1f})"


def rows() -> list[Row]:
    """Accuracy of each base, of histograms and of pixels; and how much of the network's speed is reached."""
    files = pictures()
    made = []
    with tempfile.TemporaryDirectory() as folder:
        for base in BASES:
            add(base)
        for base in (*BASES, "colours"):
            values, note = fitted(files, base, 50, Path(folder))
            target = 0.87 if base == "mobilenet-v1" else None
            made.append(
                Row(f"{base}, 50 per class, mean of {len(values)} splits, 300 to test on", shown(values),
                    "" if target is None else ">= 87 %", None if target is None else bool(np.mean(values) >= target), note)
            )  # fmt: skip
        made.append(Row("16 x 16 raw pixels, logistic regression, the same splits", shown(pixels(files, 50)), "", None))
    encoded, alone, decoding = throughput(files)
    made.append(
        Row("decode + encode, mobilenet-v1, 512 x 384 JPEG, against the network alone on ready arrays",
            f"{100 * encoded / alone:.0f} % ({encoded:.1f} against {alone:.1f} pictures a second)", ">= 90 %",
            encoded >= 0.9 * alone, f"decoding and resizing alone: {decoding:.0f} a second")
    )  # fmt: skip
    return made


if __name__ == "__main__":
    print(json.dumps([row.__dict__ for row in rows()], indent=1))
