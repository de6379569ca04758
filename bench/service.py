"""A Headstart server in a process of its own, on a project made for a benchmark; and texts to ask it."""

from __future__ import annotations

import csv
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench.load import wired
from bench.table import SHARED

HERE = Path(__file__).parent


def banking(part: str) -> list[tuple[str, str]]:
    """(text, label) of Banking77."""
    path = SHARED / "data" / "banking77" / "banking_data" / f"{part}.csv"
    with open(path, newline="", encoding="utf-8") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


def few(classes: int, each: int) -> list[tuple[str, str]]:
    """Training rows of the first classes."""
    rows, found = banking("train"), []
    for name in sorted({label for _, label in rows})[:classes]:
        found += [row for row in rows if row[1] == name][:each]
    return found


def model(project: Path, name: str, rows: Sequence[tuple[str, str]], **options) -> None:
    """Fit a model on MiniLM."""
    import headstart

    headstart.fit([{"text": t, "label": y} for t, y in rows], name=name, project=project, backbone="minilm", **options)


def clones(project: Path, name: str, n: int, *, seed: int = 0, unknown: bool = True) -> list[str]:
    """n more models: `name` with its weights moved a little, so that each answers otherwise, sealed anew."""
    from headstart import heads, saved, tensors
    from headstart.calibration import Calibration
    from headstart.project import Project

    source = Project(project).current(name)
    arrays, rng = tensors.load(source / saved.ARRAYS), np.random.default_rng(seed)
    card = json.loads((source / saved.CARD).read_text())
    texts, features, _ = saved.read_probes(source)
    calibration = Calibration.from_arrays(tensors.part(arrays, "calibration"))
    made, W = [f"{name}-{i:04d}" for i in range(n)], arrays["head.W"]
    for one in made:
        home = project / "models" / one / "v1"
        home.mkdir(parents=True)
        new = {**arrays, "head.W": (W + rng.normal(0, 0.05 * W.std(), W.shape)).astype(np.float32)}
        if not unknown:
            new = {key: value for key, value in new.items() if not key.startswith("unknown.")}
        tensors.save(home / saved.ARRAYS, new)
        for file in (saved.PROBES, saved.FACTS, saved.README):
            shutil.copy(source / file, home / file)
        (home / saved.REPORT).write_text("a clone")
        head = heads.load(card["head"]["name"]).from_arrays(tensors.part(new, "head"))
        saved.write_probes(home, texts, features, calibration.apply(head.scores(features)))
        saved.seal(home, {**{k: v for k, v in card.items() if k not in ("files", "digest")}, "name": one})
        (project / "models" / one / "current").write_text("v1")
    return made


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Server:
    """`headstart serve` on a free port."""

    def __init__(
        self, project: Path, *options: str, env: dict[str, str] | None = None, port: int | None = None
    ) -> None:
        self.port, self.project, self.options = port or free_port(), project, options
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 it lives as long as the server
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headstart", "serve", "--project", str(project), "--port", str(self.port), *options],
            stdout=self.log, stderr=self.log, env={**os.environ, **(env or {})},
        )  # fmt: skip
        self.wait()

    def wait(self, seconds: float = 300) -> None:
        """Until it is ready. Exits with what it said when it ends instead."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.process.poll() is not None:
                self.log.seek(0)
                sys.exit(f"the server ended: {self.log.read().decode()[-2000:]}")
            try:
                if self.get("/health/ready")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        sys.exit("the server was not ready in time")

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def post(self, path: str, body: object, method: str = "POST") -> tuple[int, bytes]:
        """Status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def memory(self) -> dict[str, float]:
        """MB of the process: RssAnon, RssFile, VmRSS."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("Rss", "VmRSS"))}
        return {name: int(value) / 1024 for name, value in found.items()}

    def stop(self, how: int = signal.SIGTERM) -> int:
        """End it; the exit code."""
        self.process.send_signal(how)
        return self.process.wait(60)


@contextmanager
def serving(project: Path, *options: str, env: dict[str, str] | None = None) -> Iterator[Server]:
    """A server that is stopped afterwards."""
    server = Server(project, *options, env=env)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


WRK = """
local bodies = {}
for line in io.lines("%s") do bodies[#bodies + 1] = line end
local i = %d
request = function()
  i = i %% #bodies + 1
  local path, body = bodies[i]:match("^(%%S+) (.*)$")
  return wrk.format("POST", path, {["Content-Type"] = "application/json"}, body)
end
done = function(summary, latency, requests)
  io.write(string.format("RESULT %%d %%d %%d %%d %%f %%f %%f\\n", summary.requests, summary.duration, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50), latency:percentile(99), latency.mean))
end
"""


def wrk(port: int, requests: Sequence[tuple[str, str]], *, clients: int, seconds: float) -> dict[str, float]:
    """A closed loop by wrk: {rate, p50, p99 (seconds), failed}. Falls back to bench.load where wrk is not installed."""
    if shutil.which("wrk") is None:
        from bench.load import load

        found = load(port, requests, clients=clients, seconds=seconds)
        failed = len(found.found) - int((found.found[:, 2] == 200).sum())
        return {"rate": found.rate(), "p50": found.quantile(0.5), "p99": found.quantile(0.99), "failed": failed}
    with tempfile.TemporaryDirectory() as folder:
        bodies, script = Path(folder) / "bodies", Path(folder) / "ask.lua"
        bodies.write_text("".join(f"{path} {body}\n" for path, body in requests))
        script.write_text(WRK % (bodies, 0))
        done = subprocess.run(
            ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "--timeout", "60s", "-s", str(script), f"http://127.0.0.1:{port}"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    said = next(line for line in done.stdout.splitlines() if line.startswith("RESULT")).split()[1:]
    asked, micro, wrong, lost, p50, p99, _ = map(float, said)
    return {"rate": asked / micro * 1e6, "p50": p50 / 1e6, "p99": p99 / 1e6, "failed": wrong + lost}


def one_by_one(port: int, requests: Sequence[tuple[str, str]]) -> list[float]:
    """Seconds of each request, asked one after the other over one connection with TCP_NODELAY."""
    found = []
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for path, body in requests:
            raw = wired(path, body)
            start = time.perf_counter()
            line.sendall(raw)
            got, end, whole = bytearray(), -1, 0
            while end < 0 or len(got) < whole:
                got += line.recv(1 << 20)
                if end < 0 and (end := got.find(b"\r\n\r\n")) >= 0:
                    head = bytes(got[:end]).lower()
                    at = head.find(b"content-length:")
                    whole = end + 4 + (int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0)
            found.append(time.perf_counter() - start)
            if not got.startswith(b"HTTP/1.1 200"):
                sys.exit(f"the server answered {bytes(got[:300])!r}")
    return found
