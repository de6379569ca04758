"""kill -9 under load, fifty times: the same deployments afterwards, and everything that was acknowledged is there."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import sqlite3
import tempfile
import threading
import time
from pathlib import Path

from bench.service import Server, banking, few, model
from bench.table import Row

TITLE = "Serving: kill -9"
KILLS = int(os.environ.get("KILLS", "50"))


def ask(port: int, bodies: list[str], answered: list, told: list, over: threading.Event, seed: int) -> None:
    """Predict, and give feedback on every third answer, until the server is gone."""
    rng = random.Random(seed)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        headers = {"Content-Type": "application/json"}
        while not over.is_set():
            connection.request("POST", "/v1/models/m/predict", rng.choice(bodies), headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                continue
            ids = [one["id"] for one in json.loads(body)["predictions"]]
            answered += ids
            if rng.random() < 0.3:
                connection.request("POST", "/v1/feedback", json.dumps({"id": ids[0], "label": "late"}), headers)
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    told.append(ids[0])
    except (OSError, http.client.HTTPException):
        return


def rows() -> list[Row]:
    """--log wait: an answer is given when its rows are on the disk."""
    lost = other = broken = 0
    answered: list[str] = []
    told: list[str] = []
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        model(project, "m", few(5, 20), precision="int8")
        model(project, "m", few(5, 25), precision="int8")
        bodies = [json.dumps({"inputs": [text]}) for text, _ in banking("test")]
        server = Server(project, "--log", "wait")
        for i in range(KILLS):
            name, version = f"n{i % 5}", rng.choice(["v1", "v2"])
            status, _ = server.post("/v1/deployments", {"model": "m", "version": version, "as": name})
            before = {one["name"]: one["live"] for one in json.loads(server.get("/v1/deployments")[1])["deployments"]}
            over = threading.Event()
            clients = [
                threading.Thread(target=ask, args=(server.port, bodies, answered, told, over, 100 * i + j))
                for j in range(4)
            ]
            for one in clients:
                one.start()
            time.sleep(rng.uniform(0.1, 0.8))
            server.stop(signal.SIGKILL)
            over.set()
            for one in clients:
                one.join()
            server = Server(project, "--log", "wait")
            after = {one["name"]: one["live"] for one in json.loads(server.get("/v1/deployments")[1])["deployments"]}
            other += after != before or status not in (200, 201)
        server.stop()
        base = sqlite3.connect(project / "headstart.db")
        there = {row[0] for row in base.execute("select id from predictions")}
        late = {row[0] for row in base.execute("select id from feedback")}
        broken = base.execute("pragma integrity_check").fetchone()[0] != "ok"
        lost = len(set(answered) - there) + len(set(told) - late)
    return [
        Row(f"{KILLS} kills under load",
            f"{len(answered):,} predictions and {len(told):,} late labels acknowledged, {lost} lost; {other} times other deployments; "
            f"database {'damaged' if broken else 'sound'}",
            "0 lost, same deployments", not lost and not other and not broken, "--log wait, 4 clients"),
    ]  # fmt: skip
