"""The feature cache: a million rows of 384 float32, written, read in order, read in random order."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from bench.table import Row
from headstart.features import Cache, embed

TITLE = "Feature cache"
ROWS, WIDTH = 1_000_000, 384


class Ready:
    """A backbone that must not be asked."""

    class card:
        width, fingerprint = WIDTH, "bench"

    def encode(self, contents):
        raise AssertionError("a cached row was encoded again")


class Blank:
    """A million contents that are never looked at."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n


def run(rows: int = ROWS) -> dict[str, float]:
    """Rows a second."""
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 2**63, (rows, 2), dtype=np.uint64)
    values = rng.standard_normal((10_000, WIDTH), dtype=np.float32)
    shuffled = keys[rng.permutation(rows)]
    with tempfile.TemporaryDirectory(prefix="headstart-bench-") as folder:
        table = Cache(Path(folder)).table("bench", WIDTH)
        start = time.perf_counter()
        for low in range(0, rows, len(values)):
            table.append(keys[low : low + len(values)], values[: len(keys[low : low + len(values)])])
        speed = {"append": rows / (time.perf_counter() - start)}
        for name, asked in (("in order", keys), ("in random order", shuffled)):
            best = np.inf
            for _ in range(2):  # the first time the machine also finds the memory
                cache = Cache(Path(folder))  # a new index each time, as in a new process
                start = time.perf_counter()
                found = embed(Blank(rows), Ready(), cache, keys=asked)  # type: ignore[arg-type]
                best = min(best, time.perf_counter() - start)
                assert found.encoded == 0
                assert found.values.shape == (rows, WIDTH)
                del found
            speed[name] = rows / best
        found = embed(Blank(rows), Ready(), Cache(Path(folder)), keys=keys)  # type: ignore[arg-type]
        assert (found.values[: len(values)] == values).all()
    return speed


def rows() -> list[Row]:
    """For the page of results."""
    speed = run()
    found = [
        Row(f"{ROWS:,} rows read {name}", f"{speed[name]:,.0f} rows/s", ">= 500,000", speed[name] >= 500_000)
        for name in speed
        if name != "append"
    ]
    return [Row(f"{ROWS:,} rows appended, flushed every 10,000", f"{speed['append']:,.0f} rows/s", "", None), *found]


if __name__ == "__main__":
    print(run())
