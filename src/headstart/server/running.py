"""One process of a server from its start to its end: open, bind, say where, serve, drain.

SIGTERM or Ctrl+C: what is new gets a 503 and a closed connection, what was let in is answered, for `grace` seconds at
most; then the queue, the prediction log and the socket are closed. A second signal ends the process at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import uvicorn

from headstart import notice
from headstart.errors import InputError
from headstart.server.gate import App, Gate, drained
from headstart.server.logs import Events, Others
from headstart.server.protocol import protocol
from headstart.server.settings import Settings

if TYPE_CHECKING:
    from headstart.server.service import Service

BACKLOG = 2048
DEAF = "Deployments and keys that the command line changes reach this server only when it starts again."
LAST = 5.0  # seconds after the grace in which a process has ended
EMPTY = "There is no model here: make one with headstart fit DATA, or give the folder that holds them with --project."
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(settings: Settings) -> int:
    """Serve until a signal comes; the exit code. Raises what `Settings.checked` and loading the models raise."""
    settings = settings.checked()
    sock = bound(settings)
    if settings.workers > 1:
        from headstart.server.workers import watch

        return watch(settings, sock)
    return serve(settings, sock)


def bound(settings: Settings) -> socket.socket:
    """A socket that listens at host and port. Raises InputError where there is no such host or the port is taken."""
    host, port = settings.host.strip("[]"), settings.port
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise InputError(f"host {host!r} is not known here. Give an address of this machine with --host.") from None
    sock = socket.socket(family, kind, proto)
    try:
        if os.name != "nt":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        why = {
            errno.EADDRINUSE: f"port {port} is taken: something else, perhaps another server, listens there",
            errno.EACCES: f"port {port} may not be used by this user",
            errno.EADDRNOTAVAIL: f"{host} is no address of this machine",
        }.get(error.errno or 0, error.strerror or str(error))
        raise InputError(f"{why}. Choose another with --port (0: any that is free) and --host.") from None
    return sock


def announce(
    settings: Settings, sock: socket.socket, models: int, faults: int = 0, grpc_port: int | None = None
) -> None:
    """Say on stdout where we serve how many models, and how many could not be loaded: sentences, or one line of JSON.

    grpc_port: the one that was opened, where it is not that of the settings.
    """
    url, port = address(settings, sock), grpc_port or settings.grpc_port or None
    if settings.log_format == "json":
        found = {"event": "serving", "url": url, "models": models, "not_loaded": faults, "pid": os.getpid()}
        print(json.dumps(found | ({"grpc_port": port} if port else {})), flush=True)
        return
    lost = f" ({faults:,} could not be loaded)" if faults else ""
    calls = f" and by gRPC on port {port}" if port else ""
    line = f"Serving {models:,} model{'' if models == 1 else 's'}{lost} on {url} ({url}/docs){calls}. Stop with Ctrl+C."
    if not models and not faults:
        line += f"\n{EMPTY}"
    print(line, flush=True)


def address(settings: Settings, sock: socket.socket) -> str:
    """The URL of a bound socket, as a client here writes it."""
    host = settings.host.strip("[]")
    return f"http://{f'[{host}]' if ':' in host else host}:{sock.getsockname()[1]}"


def serve(
    settings: Settings,
    sock: socket.socket,
    ready: Callable[[Settings, socket.socket, int], None] | None = None,
    parent: int | None = None,
) -> int:
    """Serve on a socket in this process; the exit code (1: not everything was answered in time).

    ready: called once, when requests are answered, with the number of models; by default `announce`. parent: a
    descriptor at whose end of file the server stops too.
    """
    from headstart.server.app import build
    from headstart.server.service import open_service

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its pool of threads would stand beside ours
    connections = raised()
    events = Events(settings.log_format)
    try:
        service = open_service(settings)
        try:
            service.engine.start()
            gc.collect()
            gc.freeze()  # what is loaded stays: no collection need look at it again
            metrics = service.metrics
            app: App = build(service)
            if settings.otel:
                from headstart.server import tracing

                app = tracing.traced(app, metrics)
            gate = Gate(
                app,
                settings,
                service.door,
                service.engine.busy,
                seen=metrics.seen,
                refused=metrics.refused,
                events=events,
            )
            config = uvicorn.Config(
                gate,
                interface="asgi3",
                http=protocol(settings, connections),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
            )
            _quiet(events)
            server = _Server(config)
            loop = config.get_loop_factory()
            with asyncio.Runner(loop_factory=loop) as runner:
                return runner.run(_served(server, gate, service, events, sock, ready, parent))
        finally:
            if service.log is not None:
                service.log.close()
    finally:
        sock.close()
        events.close()


class _Server(uvicorn.Server):
    """uvicorn's, without its signals; `ready` is called once it listens."""

    ready: Callable[[], None]

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to us."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        self.ready()


async def _served(
    server: _Server,
    gate: Gate,
    service: Service,
    events: Events,
    sock: socket.socket,
    ready: Callable[[Settings, socket.socket, int], None] | None,
    parent: int | None,
) -> int:
    """Serve, then drain; the exit code."""
    settings, engine, loop = service.settings, service.engine, asyncio.get_running_loop()
    ended: list[float] = []  # when everything must be over
    stopping: list[asyncio.Task[None]] = []
    calls: list[Any] = []  # the gRPC server, where there is one

    def stop(why: str) -> None:
        if ended:
            os._exit(1)  # asked twice
        ended.append(time.monotonic() + settings.grace)
        last = threading.Timer(settings.grace + LAST, os._exit, [1])  # whatever hangs then
        last.daemon = True
        last.start()
        events.say("draining", why=why, inflight=gate.inflight, seconds=settings.grace)
        stopping.append(loop.create_task(drain()))

    def orphaned() -> None:
        loop.remove_reader(parent or 0)
        if not ended:
            stop("the watching process ended")

    async def drain() -> None:
        await asyncio.gather(drained(gate, settings.grace), *(one.stop(settings.grace) for one in calls))
        server.config.timeout_graceful_shutdown = max(1, round(ended[0] - time.monotonic()))
        server.should_exit = True

    async def changed() -> dict[str, Any]:
        await asyncio.to_thread(service.keyring.reload)
        faults = await asyncio.to_thread(engine.sync)
        for fault in faults:
            events.say("not loaded", words=fault)
        only = {} if settings.models is None else {"only": list(settings.models)}
        return {"ok": not faults, "detail": " ".join(faults), **only}

    for number in SIGNALS:
        loop.add_signal_handler(number, stop, signal.Signals(number).name)
    if parent is not None:
        loop.add_reader(parent, orphaned)

    def listening() -> None:
        if ready is not None:
            ready(settings, sock, len(engine.table))
        else:
            announce(settings, sock, len(engine.table), len(engine.faults), calls[0].port if calls else None)

    server.ready = listening
    for name, fault in engine.faults.items():
        events.say("not loaded", model=name, words=fault)
    for words in engine.behind():
        events.say("behind", words=words)
    async with contextlib.AsyncExitStack() as stack:
        told = await stack.enter_async_context(notice.listen(settings.project, changed))
        if told.why is not None:
            events.say("deaf", words=f"{told.why} {DEAF}")
        await asyncio.to_thread(service.keyring.reload)  # what was committed since the models were loaded
        await asyncio.to_thread(engine.sync)
        if settings.grpc_port is not None:
            from headstart.server import rpc

            calls.append(await rpc.start(service, settings.host, settings.grpc_port))
            stack.push_async_callback(calls[0].stop, 0.0)
        await server.serve(sockets=[sock])
    unanswered = gate.inflight
    done = await asyncio.to_thread(engine.close, max(0.0, ended[0] - time.monotonic()) if ended else 0.0)
    events.say("stopped", unanswered=unanswered)
    return 0 if done and not unanswered else 1


def raised() -> int:
    """Allow this process as many open files as it may have; how many connections that leaves room for."""
    try:
        import resource
    except ImportError:  # Windows
        return 500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS knows a lower bound than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    soft = 1 << 20 if soft == resource.RLIM_INFINITY else soft
    return min(100_000, soft - min(256, soft // 2))


def _quiet(events: Events) -> None:
    """What others log as faults become events; the rest of what they say is said by us."""
    for name in ("uvicorn.error", "asyncio", "headstart"):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [Others(events)], False
        log.setLevel(logging.ERROR)
