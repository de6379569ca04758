"""Banking77 tuned with few labels, with and without the rest as unlabelled rows; all labels: bench/distil.py."""

from __future__ import annotations

import csv
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import texts
from bench.table import Row

TITLE = "Tuning the final blocks: Banking77"
SEEDS, POOLED = range(2), range(1)  # seeds without the pool, and with it: that is 8 times the work


def tuned(train: texts.Rows, test: texts.Rows, folder: Path, *, pool: texts.Rows | None = None, **more: Any) -> dict:
    """Accuracy on the test rows of the frozen and of the tuned model, which rung was kept, and seconds of tuning."""
    import headstart
    from headstart import api

    paths = [texts.write_csv(folder / f"{name}.csv", rows) for name, rows in (("train", train), ("test", test))]
    extra = None
    if pool is not None:
        extra = folder / "pool.csv"
        with open(extra, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text",), *((text,) for text, _ in pool)])
    given: dict[str, Any] = {
        "test": str(paths[1]),
        "unlabelled": None if extra is None else str(extra),
        "project": folder,
    }
    frozen = api.facts(headstart.fit(str(paths[0]), name="frozen", precision="float32", **given))
    start = time.perf_counter()
    model, facts = headstart.tune(str(paths[0]), as_name="tuned", **given, **more)
    seconds = time.perf_counter() - start
    assert model is not None
    return {
        "frozen": frozen["test"]["accuracy"], "tuned": api.facts(model)["test"], "kept": facts["kept"], "seconds": seconds,
        "model": model, "fit": frozen["seconds"]["total"],
    }  # fmt: skip


def rows() -> list[Row]:
    """The figures."""
    train, test, made = texts.banking("train"), texts.banking("test"), []
    with tempfile.TemporaryDirectory() as name:
        for seeds, pooled, target in ((SEEDS, False, 0.88), (POOLED, True, 0.905)):
            found = []
            for seed in seeds:
                few, rest = texts.few(train, 10, seed)
                found.append(tuned(few, test, Path(name), pool=rest if pooled else None, blocks=2))
                print("   ", seed, {k: v for k, v in found[-1].items() if k not in ("model", "tuned")},
                      found[-1]["tuned"]["accuracy"], flush=True)  # fmt: skip
            values, frozen = (
                np.array(x) for x in zip(*((f["tuned"]["accuracy"], f["frozen"]) for f in found), strict=True)
            )
            what = "the rest as unlabelled rows" if pooled else "no pool"
            made.append(
                Row(f"10 per class, {what}, --blocks 2, mean of {len(found)} seeds" if len(found) > 1 else f"10 per class, {what}, --blocks 2, seed 0",
                    f"{100 * values.mean():.2f} % +-{100 * values.std(ddof=1):.2f}", f">= {100 * target:g} %",
                    bool(values.mean() >= target),
                    f"frozen {100 * frozen.mean():.2f} %; kept {', '.join(f['kept'] for f in found)}; "
                    f"{np.median([f['seconds'] for f in found]):.0f} s")
            )  # fmt: skip
    return made
