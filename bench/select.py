"""`headstart select` against fitting every candidate on everything: what it picks, and at what share of the cost."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet

from bench import pictures, texts
from bench.table import Row, run

TITLE = "Choosing a base and a cut"


def command(arguments: list[str], cache: Path) -> tuple[dict, float]:
    """One command with --json in a process and with a cache of its own, and its seconds."""
    done = run([sys.executable, "-m", "headstart", *arguments, "--json"], env={"HEADSTART_CACHE": str(cache)})
    return json.loads(done.out), done.seconds


def fresh(folder: Path, bases: Path) -> Path:
    """A cache with the installed bases and nothing embedded."""
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    shutil.copytree(bases, cache)
    return cache


def compared(train: Path, test: Path, asked: list[str], folder: Path, bases: Path) -> Row:
    """What `select` picks, beside the best of all candidates on the test set."""
    found, seconds = command(["select", str(train), *asked], fresh(folder, bases))
    spent, accuracy = 0.0, {}
    for one in found["candidates"]:
        cut = [] if one["simple"] else ["--cut", one["cut"]]
        facts, took = command(
            ["fit", str(train), "--test", str(test), "--backbone", one["backbone"], *cut, "--name", "every",
             "--project", str(folder), "--no-views"],
            fresh(folder, bases),
        )  # fmt: skip
        spent += took
        accuracy[one["backbone"], one["cut"]] = facts["test"]["accuracy"]
        print(f"    {one['backbone']} {one['cut']}: test {100 * facts['test']['accuracy']:.1f}, select {100 * one['accuracy']:.1f} "
              f"on {one['n']}, {took:.1f} s", flush=True)  # fmt: skip
    best = max(accuracy, key=accuracy.__getitem__)
    picked = found["recommended"]["backbone"], found["recommended"]["cut"]
    loss, share = accuracy[best] - accuracy[picked], seconds / spent
    return Row(
        f"{train.stem}: {len(accuracy)} candidates", f"picks {' '.join(picked)}, {100 * loss:.1f} points below the best "
        f"({' '.join(best)}, {100 * accuracy[best]:.1f} %), at {100 * share:.0f} % of the cost ({seconds:.1f} s of {spent:.0f} s)",
        "<= 1 point, <= 25 %", bool(loss <= 0.01 and share <= 0.25), f"{found['n']:,} examples",
    )  # fmt: skip


def rows() -> list[Row]:
    """Banking77 with 10 a class and in full; trashnet with three bases of pictures."""
    with tempfile.TemporaryDirectory() as name:
        folder, bare = Path(name), Path(name) / "bare"
        bare.mkdir()
        test = texts.write_csv(folder / "test.csv", texts.banking("test"))
        few, _ = texts.few(texts.banking("train"), 10, 0)
        made = [
            compared(texts.write_csv(folder / f"{stem}.csv", part), test, [], folder, bare)
            for stem, part in (("banking77-10", few), ("banking77-full", texts.banking("train")))
        ]
        bases = folder / "bases"
        for base in pictures.BASES:
            source = pictures.SHARED / "backbones" / pictures.BASES[base][0]
            command(["backbones", "add", str(source), "--card", str(pictures.card(folder, base))], bases)
        files = pictures.pictures()
        train, held = pictures.split(files, 50, 0)
        for stem, index in (("trashnet-50", train), ("trashnet-test", held)):
            pyarrow.parquet.write_table(pictures.table(files, index), folder / f"{stem}.parquet")
        made.append(compared(folder / "trashnet-50.parquet", folder / "trashnet-test.parquet", [], folder, bases))
    return made
