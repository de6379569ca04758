"""One, a hundred and a thousand models on MiniLM in one process: throughput when every request asks one of them at random,
memory a model, and the latency of asking all of them at once. Linear heads of five classes; the memory of recent inputs
is switched off.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
from pathlib import Path

from bench.service import Server, banking, clones, few, model, one_by_one, wrk
from bench.table import Row
from bench.texts import medical

TITLE = "Serving: many models on one base"
COUNTS, TURNS, SECONDS, CLIENTS, CLASSES, WIDTH = (1, 100, 1000), 3, 8, 32, 5, 768


def project(folder: Path, count: int, *, unknown: bool) -> list[str]:
    """A project of `count` models; their names."""
    model(folder, "m", few(CLASSES, 20), precision="int8", head="linear")
    names = clones(folder, "m", count, unknown=unknown)
    for path in sorted((folder / "models" / "m").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (folder / "models" / "m").rmdir()
    return names


def throughput(servers: dict[int, tuple[Server, list[str]]], texts: list[str]) -> dict[int, list[float]]:
    """Texts a second for each number of models, turn by turn."""
    rng, found = random.Random(0), {count: [] for count in servers}
    order = list(servers.items())
    for turn in range(-1, TURNS):  # the first is to warm up; then each is once the first
        for count, (server, names) in order[turn % len(order) :] + order[: turn % len(order)]:
            asked = [(f"/v1/models/{rng.choice(names)}/predict", json.dumps({"inputs": [text]})) for text in texts]
            rate = wrk(server.port, asked, clients=CLIENTS, seconds=SECONDS if turn >= 0 else 2)["rate"]
            if turn >= 0:
                found[count].append(rate)
    return found


def rows() -> list[Row]:
    """With `unknown`, as `fit` makes models, and without."""
    made = []
    texts = [text for text, _ in banking("test")]
    longer = [text for text, _ in medical()][:320]
    for unknown in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            names = {count: project(Path(folder) / str(count), count, unknown=unknown) for count in COUNTS}
            kind = "" if unknown else ", without unknown"
            servers = {count: (Server(Path(folder) / str(count), "--cache-mb", "0"), names[count]) for count in COUNTS}
            try:
                found = throughput(servers, texts)
                mid = {count: statistics.median(values) for count, values in found.items()}
                apart = max(mid.values()) / min(mid.values()) - 1
                said = ", ".join(f"{count:,}: {rate:,.0f}/s" for count, rate in mid.items())
                made.append(Row(f"every request asks one of 1, 100, 1,000 models at random{kind}", f"{said}; {apart:.0%} apart",
                                "within 10 %", apart <= 0.10,
                                f"medians of {TURNS} turns of {SECONDS} s, {CLIENTS} clients, one text each, wrk"))  # fmt: skip
                memory = {count: server.memory() for count, (server, _) in servers.items()}
                weights = 4 * CLASSES * (WIDTH + 1) / 1024
                anon = (memory[1000]["RssAnon"] - memory[1]["RssAnon"]) * 1024 / 999
                files = (memory[1000]["RssFile"] - memory[1]["RssFile"]) * 1024 / 999
                made.append(Row(f"added memory a linear head of {CLASSES} classes, after that load{kind}",
                                f"{anon:.0f} KB ({files:.0f} KB more mapped from files); weights {weights:.0f} KB",
                                f"<= {weights + 50:.0f} KB", anon <= weights + 50, "RssAnon of 1,000 less that of 1, over 999"))  # fmt: skip
                server, all_names = servers[1000]
                for what, inputs in (("12 tokens", texts), ("up to 256 tokens, medical abstracts", longer)):
                    batches = [inputs[i : i + 32] for i in range(0, 320, 32)]
                    one = [(f"/v1/models/{all_names[0]}/predict", json.dumps({"inputs": b})) for b in batches]
                    every = [("/v1/predict", json.dumps({"inputs": b})) for b in batches]
                    one_by_one(server.port, one[:2] + every[:2])
                    single, whole = [], []
                    for _ in range(TURNS):
                        single += one_by_one(server.port, one)
                        whole += one_by_one(server.port, every)
                    a, b = statistics.median(single), statistics.median(whole)
                    made.append(Row(f"one request of 32 texts ({what}) asks all 1,000{kind}",
                                    f"{1e3 * b:.0f} ms against {1e3 * a:.0f} ms of asking one: {b / a:.2f}x", "<= 1.3x", b / a <= 1.3,
                                    "32,000 answers as JSON; medians, to the last byte of the answer"))  # fmt: skip
            finally:
                for server, _ in servers.values():
                    server.stop()
    return made
