"""Sixty seconds at five times the capacity, open loop: memory, the latency of what is accepted, and how it recovers."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from bench.load import load
from bench.service import banking, few, model, serving
from bench.table import Row

TITLE = "Serving: overload"
SECONDS, TIMES, DEADLINE = float(os.environ.get("SECONDS", "60")), 5, 2.0
EACH = 8  # texts a request


def rows() -> list[Row]:
    """Capacity by a closed loop of 32 clients; then the flood; then a second of quiet, and the capacity again."""
    texts = [text for text, _ in banking("test")]
    requests = [("/v1/models/m/predict", json.dumps({"inputs": texts[i : i + EACH]})) for i in range(0, 3000, EACH)]
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        model(project, "m", few(5, 30), precision="int8")
        with serving(project, "--cache-mb", "0", "--deadline", str(DEADLINE)) as server:
            load(server.port, requests, clients=32, seconds=3)
            before = load(server.port, requests, clients=32, seconds=8)
            memory: list[float] = []
            over = threading.Event()

            def watch() -> None:
                while not over.wait(0.5):
                    memory.append(server.memory()["VmRSS"])

            watching = threading.Thread(target=watch)
            watching.start()
            flood = load(server.port, requests, rate=TIMES * before.rate(), seconds=SECONDS, connections=1024)
            over.set()
            watching.join()
            time.sleep(1)
            after = load(server.port, requests, clients=32, seconds=8)
    said = flood.statuses()
    accepted = flood.found[flood.found[:, 2] == 200]
    goodput = len(accepted) / SECONDS
    half = np.array(memory[len(memory) // 4 :])
    grown = float(half.max() - half[0])
    p99 = flood.quantile(0.99)
    rest = ", ".join(f"{n:,} x {status}" for status, n in sorted(said.items()))
    good = set(said) <= {200, 429} and p99 <= DEADLINE and after.rate() >= 0.9 * before.rate() and grown < 30
    return [
        Row(f"{SECONDS:.0f} s at {TIMES} times the capacity of {before.rate():,.0f} requests/s ({EACH} texts each)",
            f"{rest}; accepted: {goodput:,.0f}/s ({goodput / before.rate():.0%} of capacity), p99 {p99:.2f} s; memory +{grown:.0f} MB; "
            f"after it {after.rate():,.0f}/s",
            f"memory flat, p99 <= {DEADLINE:g} s, the rest 429, recovery", good,
            f"open loop on the same cores; latency from when a request was due; memory after the first quarter, {half[0]:.0f} MB"),
    ]  # fmt: skip
