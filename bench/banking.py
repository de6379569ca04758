"""Banking77 in full: `headstart fit`, cold and warm, against the usual script, whole processes in one run."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

from bench.table import SHARED, Row, Run, run

TITLE = "Banking77 in full, against sentence-transformers and LogisticRegression"
FOLDER = SHARED / "data/banking77/banking_data"
RUNS = 2


def fit(cache: Path, project: Path, *more: str) -> tuple[Run, dict]:
    """One `headstart fit` on the full training file with its test file."""
    command = [sys.executable, "-m", "headstart", "fit", str(FOLDER / "train.csv"), "--test", str(FOLDER / "test.csv")]
    done = run([*command, "--project", str(project), "--json", *more], env={"HEADSTART_CACHE": str(cache)})
    return done, json.loads(done.out)


def peer() -> tuple[Run, dict]:
    """One run of the usual script."""
    done = run(
        [sys.executable, "-m", "bench.peer", str(FOLDER / "train.csv"), str(FOLDER / "test.csv")],
        env={"HF_HUB_OFFLINE": "1"}, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    return done, json.loads(done.out.splitlines()[-1])


def rows() -> list[Row]:
    """Alternate ours and the peer's, so that a change of the machine's speed meets both."""
    cold, warm, usual = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(RUNS):
            cache, project = Path(folder, f"cache{i}"), Path(folder, "project")
            cold.append(fit(cache, project))
            warm.append(fit(cache, project))
            usual.append(peer())
    ratio = statistics.median(c[0].seconds / p[0].seconds for c, p in zip(cold, usual, strict=True))
    again = statistics.median(w[0].seconds for w in warm)
    ours, theirs = cold[0][1]["test"], usual[0][1]
    parts = warm[len(warm) // 2][1]["seconds"]
    return [
        Row("cold `fit`, report and proof included, over the usual script", f"{ratio:.2f} "
            f"({statistics.median(c[0].seconds for c in cold):.1f} s to {statistics.median(p[0].seconds for p in usual):.1f} s)",
            "<= 0.33", ratio <= 1 / 3, f"median of {RUNS}; peak of all processes {cold[0][0].peak_mb:,.0f} MB"),
        Row("accuracy on the 3,080 test rows", f"{100 * ours['accuracy']:.2f} % ({100 * ours['low']:.1f} to "
            f"{100 * ours['high']:.1f}), the usual script {100 * theirs['accuracy']:.2f} %", ">= 93.5 and no less accurate",
            ours["accuracy"] >= max(0.935, theirs["accuracy"])),
        Row("`fit` with a warm cache, whole process", f"{again:.2f} s", "<= 3 s", again <= 3,
            ", ".join(f"{name} {value:.2f}" for name, value in parts.items())),
    ]  # fmt: skip
