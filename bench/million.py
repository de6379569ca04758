"""A million cached rows, 20 classes: time and memory of choosing and fitting a linear head on a memory map."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from bench.table import Row, run

TITLE = "A million rows"
N, D, C = 1_000_000, 768, 20


def make(path: Path) -> None:
    """Rows around 20 centres, written in pieces."""
    import numpy as np

    draw = np.random.default_rng(0)
    centres = draw.standard_normal((C, D), np.float32)
    X = np.memmap(path / "X", np.float32, "w+", shape=(N, D))
    y = draw.integers(0, C, N)
    for low in range(0, N, 50_000):
        part = slice(low, low + 50_000)
        rows = centres[y[part]] + 4 * draw.standard_normal((50_000, D), np.float32)
        X[part] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    X.flush()
    np.save(path / "y.npy", y)


def fit(path: Path) -> None:
    """Choose and train a head; print seconds, peak memory that is not the file's, and accuracy on the rows."""
    import time

    import numpy as np

    from headstart.folds import folds
    from headstart.selection import choose

    X = np.memmap(path / "X", np.float32, "r", shape=(N, D))
    y = np.load(path / "y.npy")
    start = time.perf_counter()
    T = np.zeros((N, C), np.float32)
    T[np.arange(N), y] = 1
    choice = choose(X, T, task="classification", folds=folds(y), head="linear")
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()
    own = {
        line.split(":")[0]: int(line.split()[1])
        for line in status.splitlines()
        if line.startswith(("RssAnon", "VmHWM"))
    }
    right = float((choice.head.scores(X[:50_000]).argmax(1) == y[:50_000]).mean())
    print(json.dumps({"seconds": seconds, "anonymous_mb": own["RssAnon"] / 1024, "peak_mb": own["VmHWM"] / 1024,
                      "accuracy": right, "why": choice.why}))  # fmt: skip


def rows() -> list[Row]:
    """One run in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        found = json.loads(run([sys.executable, "-m", "bench.million", folder]).out)
    return [
        Row(f"choose the strength on folds and fit a linear head, {N:,} x {D}, {C} classes", f"{found['seconds']:.0f} s", "<= 60 s", found["seconds"] <= 60,
            found["why"]),
        Row("peak resident memory, pages of the mapped 3 GB file included", f"{found['peak_mb'] / 1024:.1f} GB", "<= 4 GB",
            found["peak_mb"] <= 4096, f"{found['anonymous_mb'] / 1024:.1f} GB of it not the file's at the end"),
    ]  # fmt: skip


if __name__ == "__main__":
    fit(Path(sys.argv[1]))
