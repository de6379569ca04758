"""Clients that mean no good: schemathesis against the OpenAPI page, malformed JSON, slow-loris, 10,000 idle connections.

While the last two are there an ordinary client asks all the time.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.load import Connection, connect, wired
from bench.service import Server, banking, few, model, serving
from bench.table import Row

TITLE = "Serving: hostile clients"
IDLE, SLOW, EXAMPLES = 10_000, 500, 60
BAD = [
    b"", b" ", b"{", b"}", b"[", b"{]", b'{"inputs"', b'{"inputs":', b'{"inputs":}', b'{"inputs":[}', b'{"inputs":["a",]}',
    b'{"inputs":["a"]} x', b'{"inputs":["a"]}{"inputs":["a"]}', b"{'inputs':['a']}", b'{"inputs":[NaN]}', b'{"inputs":[Infinity]}',
    b'{"inputs":[-Infinity]}', b'{"inputs":["\\ud800"]}', b'{"inputs":["\\x61"]}', b'{"inputs":["\xff\xfe"]}', b'{"inputs":["\xed\xa0\x80"]}',
    b'{"inputs":["a"],"inputs":["b"]}', b'{"inputs":["a\nb"]}', b'{"inputs":["a\x00b"]}', b"[" * 100_000, b'{"a":' * 100_000, b'{"inputs":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    b"1" * 5_000, b'{"inputs":[' + b"1" * 5_000 + b"]}", b'{"top":1e400,"inputs":["a"]}', b"1e400", b"-", b"01", b".5", b"0x10", b"nul", b"True",
    b'"inputs"', b"null", b"[]", b"3", b'{"inputs":null}', b'{"inputs":{}}', b'{"inputs":[null]}', b'{"inputs":[1]}', b'{"inputs":[["a"]]}',
    b'{"inputs":[]}', b'{"inputs":["a"],"top":-1}', b'{"inputs":["a"],"top":"x"}', b'{"inputs":["a"],"tpo":1}', b"\xef\xbb\xbf{}", '{"inputs":["a"]}'.encode("utf-16"),
    b"\x00", b"\x80\x81", b"/* c */ {}", b'{"inputs":["a"] // c\n}', b'{"inputs":["a" "b"]}', b'{"inputs"=["a"]}', b'{inputs:["a"]}', b'{"inputs":["a]}',
    b'{"inputs":["\\u00"]}', b'{"inputs":["\\"]}', b'{"inputs":["\t"]}', b'{"__proto__":{"inputs":["a"]}}', b'["a"]', b'{"":["a"]}', b'{"inputs":["' + b"a" * 2_000_000 + b'"]}',
]  # fmt: skip


async def malformed(port: int) -> dict[int, int]:
    """Each body to each route that reads JSON; how often each status came."""
    found: dict[int, int] = {}
    paths = [
        "/v1/models/m/predict",
        "/v1/predict",
        "/v1/feedback",
        "/v1/deployments",
        "/v1/embeddings",
        "/v2/models/m/infer",
    ]
    for path in paths:
        for body in BAD:
            connection = await connect(port)
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            try:
                status, _ = await asyncio.wait_for(connection.ask(head.encode() + body), 20)
            except TimeoutError:
                status = -1
            found[status] = found.get(status, 0) + 1
            if connection.transport:
                connection.transport.close()
    return found


async def beside(port: int, bodies: list[str], over: asyncio.Event) -> list[tuple[float, int]]:
    """An ordinary client; seconds and status of every request."""
    found = []
    while not over.is_set():
        start = time.perf_counter()
        connection = await connect(port)
        status, _ = await asyncio.wait_for(
            connection.ask(wired("/v1/models/m/predict", bodies[len(found) % len(bodies)])), 30
        )
        found.append((time.perf_counter() - start, status))
        if connection.transport:
            connection.transport.close()
        await asyncio.sleep(0.01)
    return found


async def crowd(port: int, bodies: list[str], idle: int, slow: int, seconds: float) -> tuple[list, int, int, int]:
    """Idle connections, and slow ones that send a letter of their header every half second; how many are still open."""
    over = asyncio.Event()
    ordinary = asyncio.create_task(beside(port, bodies, over))
    lines: list[Connection] = []
    for _ in range(0, idle + slow, 200):
        lines += await asyncio.gather(*(connect(port) for _ in range(min(200, idle + slow - len(lines)))))
    held = sum(one.transport is not None for one in lines)
    slows = lines[:slow]
    text = b"POST /v1/models/m/predict HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"a" * 200
    end = time.perf_counter() + seconds
    i = 0
    while time.perf_counter() < end:
        for one in slows:
            if one.transport is not None:
                one.transport.write(text[i : i + 1])
        i = min(i + 1, len(text) - 1)
        await asyncio.sleep(0.5)
    left_slow = sum(one.transport is not None for one in slows)
    left = sum(one.transport is not None for one in lines)
    over.set()
    found = await ordinary
    for one in lines:
        if one.transport is not None:
            one.transport.abort()
    return found, held, left_slow, left


def schemathesis(server: Server) -> tuple[str, bool]:
    """What the tool says of itself, and whether it found a fault."""
    tool = shutil.which("st") or str(Path(sys.executable).parent / "st")
    done = subprocess.run(
        [tool, "run", f"http://127.0.0.1:{server.port}/openapi.json", "--max-examples", str(EXAMPLES), "--seed", "1",
         "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,negative_data_rejection"],
        capture_output=True, text=True, check=False, timeout=1500,
    )  # fmt: skip
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    cases = re.findall(r"(\d+) generated|Test cases:\s*\n?\s*(.*)", said)
    tail = " ".join(said.split())[-300:]
    return f"exit {done.returncode}; {cases or tail}", done.returncode == 0


def rows() -> list[Row]:
    """One after the other, on one server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    idle = min(IDLE, hard - 2 * SLOW - 200)
    bodies = [json.dumps({"inputs": [text]}) for text, _ in banking("test")]
    made = []
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        model(project, "m", few(5, 20), precision="int8")
        with serving(project, "--log", "on") as server:
            said = asyncio.run(malformed(server.port))
            worst = {status for status in said if status >= 500 or status <= 0}
            made.append(Row(f"{len(BAD)} malformed or hostile bodies on six routes", ", ".join(f"{n} x {s}" for s, n in sorted(said.items())),
                            "no 5xx, no hang", not worst))  # fmt: skip
            found, held, slow, left = asyncio.run(crowd(server.port, bodies, idle, SLOW, 20))
            wrong = sum(status != 200 for _, status in found)
            times = np.array([seconds for seconds, _ in found])
            made.append(Row(f"{SLOW} slow-loris clients and {idle:,} idle connections for 20 s",
                            f"{held:,} were open; an ordinary client beside them asked {len(found):,} times, {wrong} failed, p99 {1e3 * np.quantile(times, 0.99):.0f} ms; "
                            f"slow ones still open {slow}, of all {left:,}; {server.memory()['VmRSS']:.0f} MB",
                            "no hang", not wrong and not slow))  # fmt: skip
            words, good = schemathesis(server)
            made.append(Row("schemathesis against /openapi.json", words, "no failure", good,
                            f"{EXAMPLES} examples an operation, seed 1; all phases; on a server with a prediction log"))  # fmt: skip
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return made
