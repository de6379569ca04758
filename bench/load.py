"""Load on a server over keep-alive connections: closed loop (each client asks again when it is answered) or open loop
(requests begin at a constant rate, whatever has been answered). A process of its own: python -m bench.load < plan.

The plan is JSON: {port, requests: [[path, body, headers], ...], clients | rate, seconds, connections}. What comes back is
JSON: for every request [began, seconds, status], began counted from the start. In the open loop seconds count from when
the request was due, so that a server that falls behind is not flattered.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        self.waiting: asyncio.Future | None = None
        self.got = b""

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got = self.got + data if self.got else data
        end = self.got.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.got[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self.got) >= end + 4 + length:
            body, status = self.got[end + 4 : end + 4 + length], int(head[9:12])
            self.got = self.got[end + 4 + length :]
            waiting, self.waiting = self.waiting, None
            if waiting and not waiting.done():
                waiting.set_result((status, body))

    def connection_lost(self, error) -> None:
        if self.waiting and not self.waiting.done():
            self.waiting.set_result((0, b""))  # no answer
        self.transport = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        if self.transport is None or self.transport.is_closing():
            return 0, b""
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.waiting


def wired(path: str, body: str, headers: Sequence[str] = ()) -> bytes:
    """A request as bytes."""
    raw = body.encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(raw)}",
    ]
    return ("\r\n".join([*lines, *headers]) + "\r\n\r\n").encode() + raw


async def connect(port: int) -> Connection:
    """A new connection."""
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return connection


async def closed(port: int, requests: list[bytes], clients: int, seconds: float) -> list:
    """Each client asks again as soon as it is answered."""
    start, found, turn = time.perf_counter(), [], iter(range(10**12))

    async def client() -> None:
        connection = await connect(port)
        while (began := time.perf_counter()) - start < seconds:
            status, _ = await connection.ask(requests[next(turn) % len(requests)])
            found.append((began - start, time.perf_counter() - began, status))
            if connection.transport is None:
                connection = await connect(port)

    await asyncio.gather(*(client() for _ in range(clients)))
    return found


async def opened(port: int, requests: list[bytes], rate: float, seconds: float, connections: int) -> list:
    """A request is due every 1 / rate seconds; where no connection is free it waits for one, and the wait counts."""
    found: list = []
    due: deque[tuple[float, int]] = deque()
    free = [await connect(port) for _ in range(connections)]
    start, tasks = time.perf_counter(), set()

    async def one(connection: Connection) -> None:
        while due:
            at, i = due.popleft()
            if connection.transport is None:  # it was closed while nothing was asked
                connection = await connect(port)
            status, _ = await connection.ask(requests[i % len(requests)])
            found.append((at, time.perf_counter() - start - at, status))
        free.append(connection)

    i = 0
    while (now := time.perf_counter() - start) < seconds:
        while i < now * rate:
            due.append((i / rate, i))
            i += 1
        for _ in range(min(len(free), len(due))):
            task = asyncio.create_task(one(free.pop()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.sleep(max(0.0005, i / rate - (time.perf_counter() - start)))
    await asyncio.wait_for(asyncio.gather(*tasks), 120)
    return found


@dataclass(frozen=True)
class Load:
    """What a load run found."""

    found: np.ndarray  # (n, 3): began, seconds, status
    seconds: float

    def statuses(self) -> dict[int, int]:
        """How often each status came; 0 is no answer."""
        return dict(Counter(self.found[:, 2].astype(int).tolist()))

    def rate(self) -> float:
        """Answers of status 200 a second."""
        return float((self.found[:, 2] == 200).sum() / self.seconds)

    def quantile(self, q: float) -> float:
        """Seconds, of answers of status 200."""
        good = self.found[self.found[:, 2] == 200, 1]
        return float(np.quantile(good, q)) if len(good) else float("nan")


def load(
    port: int, requests: Sequence[tuple], *, seconds: float, clients: int = 0, rate: float = 0, connections: int = 256
) -> Load:
    """Run a load in a process of its own; closed loop with `clients`, open loop with `rate`."""
    plan = {"port": port, "requests": [list(one) for one in requests], "clients": clients, "rate": rate,
            "seconds": seconds, "connections": connections}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"], input=json.dumps(plan), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"the load generator failed:\n{done.stderr}")
    return Load(np.array(json.loads(done.stdout)).reshape(-1, 3), seconds)


def main() -> None:
    """Carry out the plan on standard input."""
    plan = json.load(sys.stdin)
    requests = [wired(*one) for one in plan["requests"]]
    if plan["clients"]:
        work = closed(plan["port"], requests, plan["clients"], plan["seconds"])
    else:
        work = opened(plan["port"], requests, plan["rate"], plan["seconds"], plan["connections"])
    try:
        import uvloop

        found = uvloop.run(work)
    except ImportError:
        found = asyncio.run(work)
    json.dump([[round(a, 5), round(b, 6), c] for a, b, c in found], sys.stdout)


if __name__ == "__main__":
    main()
