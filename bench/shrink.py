"""`headstart shrink` of the Banking77 model in float32 at full depth: how much smaller, how much quicker, at what loss."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench import texts
from bench.table import Row, run

TITLE = "Shrinking the Banking77 model"


def seconds(base, contents: list[str], *, turns: int = 3) -> float:
    """Median time of encoding all contents at once, on all cores."""
    base.encode(contents[:64])
    found = []
    for _ in range(turns):
        start = time.perf_counter()
        base.encode(contents)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def rows() -> list[Row]:
    """Size, speed, accuracy on the test set and agreement, before and after."""
    from headstart import api

    test = texts.banking("test")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train = texts.write_csv(folder / "train.csv", texts.banking("train"))
        held = str(texts.write_csv(folder / "test.csv", test))
        run([sys.executable, "-m", "headstart", "fit", str(train), "--name", "full", "--precision", "float32",
             "--project", name, "--json"])  # fmt: skip
        done = run([sys.executable, "-m", "headstart", "shrink", "full", "--project", name, "--json"])
        facts = json.loads(done.out)
        for step in [facts["before"], *facts["steps"]]:
            print("    ", step, flush=True)
        old, new = api.load("full", project=folder), api.load(facts["name"], project=folder)
        before, after = (api.evaluate(model, held)["test"]["accuracy"] for model in (old, new))
        contents = [text for text, _ in test]
        same = np.mean([a.label == b.label for a, b in zip(old.predict(contents), new.predict(contents), strict=True)])
        turns = [(seconds(old.backbone, contents, turns=1), seconds(new.backbone, contents, turns=1)) for _ in range(5)]
        quicker = statistics.median(a / b for a, b in turns)
        smaller = facts["before"]["mb"] / facts["after"]["mb"]
    return [
        Row("points lost on the 3,080 test rows", f"{100 * (before - after):.2f} ({100 * before:.2f} to {100 * after:.2f} %)",
            "<= 1", bool(before - after <= 0.01), facts["after"]["name"]),
        Row("points lost on folds, as `shrink` says", f"{100 * facts['after']['loss']:.2f}", "<= 1",
            bool(facts["after"]["loss"] <= 0.01), f"{facts['after']['n']:,} examples"),
        Row("smaller", f"{smaller:.1f} times ({facts['before']['mb']:.1f} MB to {facts['after']['mb']:.1f} MB)", ">= 4 times",
            bool(smaller >= 4)),
        Row("quicker, 3,080 texts at once, tokenising included", f"{quicker:.2f} times "
            f"({statistics.median(a for a, _ in turns):.2f} s to {statistics.median(b for _, b in turns):.2f} s)", ">= 3 times",
            bool(quicker >= 3), f"one text alone: {facts['before']['ms']:.2f} ms to {facts['after']['ms']:.2f} ms"),
        Row("the same label on the test set", f"{100 * same:.1f} %", "", None,
            f"on folds {100 * facts['after']['agreement']:.1f} %"),
        Row("time of `shrink` itself", f"{done.seconds:.0f} s", "", None),
    ]  # fmt: skip
