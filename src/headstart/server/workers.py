"""Several processes on one socket: one that watches, N that serve.

The watching process holds the socket and loads no model. A server that dies is started again, later and later; when
servers die young again and again it gives up and says so, instead of loading models for ever. Every server gets cores
of its own, so that their threads do not stand in one another's way. Each counts the rate of a key for itself.

    python -m headstart.server.workers DESCRIPTOR PLACE SETTINGS      one server, started by the watching process
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from headstart.errors import HeadstartError
from headstart.server.logs import Events
from headstart.server.running import announce, serve
from headstart.server.settings import Settings

YOUNG = 30.0  # seconds: one that dies before is likely to die again
MOST = 5  # deaths in a row of the young
SHARED = "PROMETHEUS_MULTIPROC_DIR"


def watch(settings: Settings, sock: socket.socket) -> int:
    """Start the servers and see to it that they run, until a signal comes; the exit code."""
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        os.environ.setdefault(SHARED, folder)
        events = Events(settings.log_format)
        try:
            return asyncio.run(_Watch(settings, sock, events).run())
        finally:
            sock.close()
            events.close()


def packed(settings: Settings) -> str:
    """Settings as text, for another process."""
    return json.dumps({**dataclasses.asdict(settings), "project": str(settings.project)})


def unpacked(text: str) -> Settings:
    """The settings of such a text."""
    found: dict[str, Any] = json.loads(text)
    tuples = {name: tuple(value) for name, value in found.items() if isinstance(value, list)}
    return Settings(**{**found, **tuples, "project": Path(found["project"])})


def cores_of(place: int, workers: int, cores: list[int]) -> set[int]:
    """The cores of one server of several: all are given out, none twice while they last."""
    return set(cores[place % workers :: workers]) or {cores[place % len(cores)]}


class _Watch:
    """What the watching process knows."""

    def __init__(self, settings: Settings, sock: socket.socket, events: Events) -> None:
        self.settings, self.sock, self.events = settings, sock, events
        self.children: dict[int, asyncio.subprocess.Process] = {}
        self.stopping = asyncio.Event()
        self.code = 0
        self.ready: set[int] = set()
        self.announced = False

    async def run(self) -> int:
        from headstart.server.metrics import ended  # once its folder is known

        self.ended = ended
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        first = asyncio.Event()
        tasks = [asyncio.create_task(self.keep(0, first))]
        waits = [asyncio.create_task(first.wait()), tasks[0]]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)  # one finds what is wrong, not all of them
        waits[0].cancel()
        if first.is_set():
            tasks += [
                asyncio.create_task(self.keep(place, asyncio.Event())) for place in range(1, self.settings.workers)
            ]
        await asyncio.gather(*tasks)
        return self.code

    def stop(self) -> None:
        """Pass a signal on; the second time too, which ends them at once."""
        self.stopping.set()
        for child in self.children.values():
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)

    def give_up(self, code: int, words: str) -> None:
        self.events.say("gave up", words=words)
        self.code = code
        self.stop()

    async def keep(self, place: int, answers: asyncio.Event) -> None:
        """Keep one server running."""
        deaths = 0
        while not self.stopping.is_set():
            began = time.monotonic()
            code, up = await self.once(place, answers)
            if self.stopping.is_set():
                early = not up and code == -signal.SIGTERM  # told to stop before it listened for that
                self.code = self.code or (0 if code == 0 or early else 1)
                return
            if code == 2 and not up:
                self.give_up(2, "a server could not start; what was wrong is said above")
                return
            deaths = deaths + 1 if time.monotonic() - began < YOUNG else 1
            if deaths >= MOST:
                self.give_up(1, f"a server died {deaths} times in a row soon after its start (exit code {code})")
                return
            wait = 0.25 * 2**deaths
            self.events.say("server died", code=code, again_in=wait)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), wait)

    async def once(self, place: int, answers: asyncio.Event) -> tuple[int, bool]:
        """One life of a server: its exit code, and whether it ever answered."""
        descriptor = self.sock.fileno()
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headstart.server.workers", str(descriptor), str(place), packed(self.settings),
            stdin=asyncio.subprocess.PIPE,  # never written: its end tells the server that we are gone
            stdout=asyncio.subprocess.PIPE,
            pass_fds=[descriptor],
            start_new_session=True,  # Ctrl+C is for us; we pass it on
        )  # fmt: skip
        self.children[place] = child
        if self.stopping.is_set():
            child.send_signal(signal.SIGTERM)
        assert child.stdout is not None
        up = await child.stdout.readline()
        if up:
            answers.set()
            self.ready.add(place)
            if len(self.ready) == self.settings.workers and not self.announced:
                self.announced = True
                announce(self.settings, self.sock, int(up))
        code = await child.wait()
        self.ended(child.pid)
        return code, bool(up)


def main(descriptor: str, place: str, text: str) -> int:
    """One server."""
    settings = unpacked(text)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores_of(int(place), settings.workers, sorted(os.sched_getaffinity(0))))
    try:
        return serve(settings, socket.socket(fileno=int(descriptor)), _ready, parent=sys.stdin.fileno())
    except HeadstartError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code


def _ready(settings: Settings, sock: socket.socket, models: int) -> None:
    print(models, flush=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
