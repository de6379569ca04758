"""Five minutes of load while models are deployed, replaced, rolled back and removed every second.

Every answer is held against the versions that could answer when it was given: from before a change was asked for to after
it was confirmed both are right, otherwise only one is. SECONDS in the environment shortens it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import tempfile
import time
from pathlib import Path

from bench.load import connect, wired
from bench.service import banking, few, model, serving
from bench.table import Row

TITLE = "Serving: changes under load"
SECONDS, CLIENTS = float(os.environ.get("SECONDS", "300")), 8


async def changing(port: int, until: float, spans: dict[str, list], changes: list[str], failures: list[str]) -> None:
    """Every second one change; spans[name]: (version, from when it may answer, until when)."""
    rng, now = random.Random(0), {"a": "v1", "b": "v1"}
    history = {"a": ["v1"], "b": ["v1"]}
    extra = False
    connection = await connect(port)

    async def send(path: str, body: dict, method: str = "POST") -> None:
        raw = wired(path, json.dumps(body)).replace(b"POST ", method.encode() + b" ", 1)
        status, answer = await connection.ask(raw)
        if status not in (200, 201):
            failures.append(f"{method} {path} {body}: {status} {answer[:200]!r}")

    while time.perf_counter() < until:
        name = rng.choice("ab")
        what = rng.choice(["deploy", "deploy", "rollback", "extra"])
        began = time.perf_counter()
        if what == "extra":  # a name of its own, deployed and removed
            if extra:
                await send("/v1/deployments/extra", {}, "DELETE")
            else:
                await send("/v1/deployments", {"model": "m", "version": "v1", "as": "extra"})
            extra = not extra
        else:
            if what == "rollback" and len(history[name]) > 1:
                history[name].pop()
                new = history[name][-1]
                await send(f"/v1/deployments/{name}/rollback", {})
            else:
                what, new = "deploy", rng.choice([v for v in ("v1", "v2", "v3") if v != now[name]])
                history[name].append(new)
                await send("/v1/deployments", {"model": "m", "version": new, "as": name})
            spans[name][-1][2] = time.perf_counter()  # the one before may answer until the change is confirmed
            spans[name].append([new, began, float("inf")])
            now[name] = new
        changes.append(what)
        await asyncio.sleep(max(0.0, 1.0 - (time.perf_counter() - began)))


async def client(port: int, until: float, bodies: list[str], spans: dict[str, list], found: list, seed: int) -> None:
    """Ask, and remember who answered, and when it could have."""
    rng, connection = random.Random(seed), await connect(port)
    while (began := time.perf_counter()) < until:
        name = rng.choice("ab")
        status, body = await connection.ask(wired(f"/v1/models/{name}/predict", rng.choice(bodies)))
        version = json.loads(body).get("version") if status == 200 else None
        found.append((name, began, time.perf_counter(), status, version))
        if connection.transport is None:
            connection = await connect(port)


async def work(port: int, bodies: list[str]) -> tuple[list, dict, list, list]:
    """All of it."""
    until = time.perf_counter() + SECONDS
    spans: dict[str, list] = {name: [["v1", 0.0, float("inf")]] for name in "ab"}
    changes: list[str] = []
    failures: list[str] = []
    found: list = []
    clients = [client(port, until, bodies, spans, found, seed) for seed in range(CLIENTS)]
    await asyncio.gather(changing(port, until, spans, changes, failures), *clients)
    return found, spans, changes, failures


def rows() -> list[Row]:
    """Three versions of one model, under two names that stay and one that comes and goes."""
    with tempfile.TemporaryDirectory() as folder:
        project, data = Path(folder), few(5, 30)
        for seed in range(3):
            model(project, "m", random.Random(seed).sample(data, 100), precision="int8")
        bodies = [json.dumps({"inputs": [text]}) for text, _ in banking("test")]
        with serving(project) as server:
            for name in "ab":
                server.post("/v1/deployments", {"model": "m", "version": "v1", "as": name})
            before = server.memory()["RssAnon"]
            found, spans, changes, failures = asyncio.run(work(server.port, bodies))
            after = server.memory()["RssAnon"]
        shutil.rmtree(project, ignore_errors=True)
    failed = sum(status != 200 for *_, status, _ in found)
    wrong = 0
    for name, began, ended, status, version in found:
        may = {v for v, start, stop in spans[name] if start <= ended and stop >= began}
        wrong += status == 200 and version not in may
    kinds = ", ".join(f"{changes.count(one)} {one}" for one in sorted(set(changes)))
    return [
        Row(f"{SECONDS:.0f} s of load, a change every second",
            f"{len(found):,} requests, {len(changes)} changes ({kinds}): {failed} failed, {wrong} of a wrong version, {len(failures)} changes refused",
            "0 failed, 0 wrong", not failed and not wrong and not failures,
            f"{CLIENTS} clients; memory {before:.0f} MB before, {after:.0f} MB after" + "; ".join(["", *failures[:3]])),
    ]  # fmt: skip
