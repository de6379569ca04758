"""Banking77 with few labels: `headstart fit` on 10 and 30 rows a class, with and without the rest as unlabelled rows."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import numpy as np

from bench import texts
from bench.table import Row

TITLE = "Banking77, few labels"
SEEDS = range(5)


def accuracies(n: int, *, pool: bool, folder: Path) -> list[tuple[float, bool, float]]:
    """For each seed: accuracy on the 3,080 test rows, whether the pool was used, and seconds of fit."""
    import headstart
    from headstart import api

    test = texts.write_csv(folder / "test.csv", texts.banking("test"))
    found = []
    for seed in SEEDS:
        few, rest = texts.few(texts.banking("train"), n, seed)
        train = texts.write_csv(folder / "train.csv", few)
        more = folder / "pool.csv"
        with open(more, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text",), *((text,) for text, _ in rest)])
        model = headstart.fit(
            str(train),
            test=str(test),
            unlabelled=str(more) if pool else None,
            name="few",
            project=folder,
            precision="auto",
        )
        facts = api.facts(model)
        found.append((facts["test"]["accuracy"], facts["head"]["pool"], facts["seconds"]["fit"]))
    return found


def rows() -> list[Row]:
    """The three figures."""
    made = []
    with tempfile.TemporaryDirectory() as name:
        for n, pool, target in ((10, False, 0.865), (10, True, 0.89), (30, False, 0.91)):
            found = accuracies(n, pool=pool, folder=Path(name))
            values = np.array([accuracy for accuracy, _, _ in found])
            note = f"fit {np.median([seconds for *_, seconds in found]):.1f} s"
            if pool:
                note += (
                    f"; the folds chose to use the pool for {sum(used for _, used, _ in found)} of {len(found)} seeds"
                )
            made.append(
                Row(
                    f"{n} per class, {'the rest as unlabelled pool' if pool else 'no pool'}, mean of {len(found)} seeds",
                    f"{100 * values.mean():.2f} % +-{100 * values.std(ddof=1):.2f}",
                    f">= {100 * target:g} %", bool(values.mean() >= target), note,
                )
            )  # fmt: skip
    return made
