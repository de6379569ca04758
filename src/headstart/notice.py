"""Telling the running servers of a project that something was committed, and hearing what became of it.

A server listens on a loopback port of its own and registers it, with a token, in PROJECT/serving/; who may read that
file (mode 0600) may tell it. A notice is two lines, the token and "changed"; the answer is one line of JSON, sent when
the server has done what follows from the change. Nothing depends on a notice: what was committed stays so, and a server
reads it when it starts.

A killed server leaves its registration behind. It is removed by the next who finds nobody there, or somebody else.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from headstart import jsontext
from headstart.errors import HeadstartError

LINE = 200  # bytes of a line that a server reads
PATIENCE = 2.0  # seconds a server waits for a notice, and a teller for a connection
ANSWER = 1 << 20  # bytes of an answer
SLOW = (
    "it has not answered in time. What was committed stands, and it follows once it can; look at what it serves with "
    "headstart deployments --server URL. If it hangs, end the process with this number (kill {pid}) and start it again."
)

OnChange = Callable[[], Awaitable[dict[str, Any]]]


def folder(root: Path) -> Path:
    """Where the running servers of a project are registered."""
    return root / "serving"


class Listening:
    """A server's ear: `async with`, or `open` and `close`.

    `why` says why nobody can tell it anything (the project cannot be written, say), None when all is well.
    """

    def __init__(self, root: Path, on_change: OnChange) -> None:
        self.why: str | None = None
        self._root, self._on_change = root, on_change
        self._token = secrets.token_hex(32).encode()
        self._server: asyncio.Server | None = None
        self._file: Path | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen, and register."""
        try:
            self._server = await asyncio.start_server(self._heard, "127.0.0.1", 0, limit=LINE)
            self._file = await asyncio.to_thread(self._register, self._server.sockets[0].getsockname()[1])
        except OSError as error:
            await self.close()
            self.why = f"{folder(self._root)}: no notices can be had here ({error.strerror or error})."

    def _register(self, port: int) -> Path:
        """Write the registration: wholly there or not at all, and never readable by others."""
        place = folder(self._root)
        place.mkdir(exist_ok=True)
        path = place / f"{os.getpid()}.{secrets.token_hex(4)}.json"
        temporary = path.with_suffix(".tmp")
        facts = {"pid": os.getpid(), "port": port, "token": self._token.decode(), "host": socket.gethostname()}
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(jsontext.write(facts).encode())
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        return path

    async def close(self) -> None:
        """Hear nothing any more; the registration is removed."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)
            self._file = None
        if self._server is not None:
            self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._server = None

    async def __aenter__(self) -> Listening:
        await self.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def _heard(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            async with asyncio.timeout(PATIENCE):
                token = await reader.readline()
                right = hmac.compare_digest(token, self._token + b"\n")
                changed = right and await reader.readline() == b"changed\n"
            if changed:
                writer.write(jsontext.write(await self._answer()).encode() + b"\n")
                await writer.drain()
        except TimeoutError:
            writer.write(b'{"detail":"the notice came too slowly","ok":false}\n')
        except (ConnectionError, ValueError):
            pass  # ValueError: a line too long. Who sends such a thing, or goes away, is no teller: no answer
        finally:
            writer.close()

    async def _answer(self) -> dict[str, Any]:
        try:
            return await self._on_change()
        except HeadstartError as error:
            return {"ok": False, "detail": str(error)}
        except Exception as error:
            logging.getLogger("headstart").exception("a change could not be followed")
            return {"ok": False, "detail": f"{type(error).__name__}: {error}"}


def listen(root: Path, on_change: OnChange) -> Listening:
    """What listens for notices to a project: `async with notice.listen(root, on_change) as listening:`.

    Every notice runs `on_change`, whose answer {"ok": bool, "detail": ...} goes back to who told; "only" in it: the
    names that this server was started for.
    """
    return Listening(root, on_change)


def running(root: Path, *, but: int | None = None) -> int:
    """How many server processes of a project are registered and alive. `but`: a pid to leave out."""
    return sum(_alive(path.name.split(".")[0]) for path in _files(root, but))


def _alive(pid: str) -> bool:
    """Whether there may be such a process here."""
    if os.name == "nt" or not pid.isdecimal():  # signal 0 ends a process there
        return True
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _files(root: Path, but: int | None) -> list[Path]:
    return sorted(path for path in folder(root).glob("*.json") if path.name.split(".")[0] != str(but))


def about(name: str, told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the servers said of a change of one name: those that leave it out say so, `serves` False."""
    found = []
    for one in told:
        only = one.pop("only", None)
        serves = only is None or name in only
        if one["ok"] and not serves:
            one = {**one, "detail": f"it was started with --models and does not serve {name!r}."}
        found.append({**one, "serves": serves})
    return found


def tell(root: Path, *, but: int | None = None, timeout: float = 60.0) -> list[dict[str, Any]]:
    """Tell every live server of a project that something was committed, and wait up to `timeout` seconds in all.

    Returns {"pid", "ok", "detail"} of each, and "only" where it is started for some names, none where none runs. `but`: a
    pid to leave out, one's own. Registrations of servers that are gone are removed.
    """
    end = time.monotonic() + timeout
    files = _files(root, but)
    if not files:
        return []
    with ThreadPoolExecutor(min(32, len(files))) as threads:
        return [answer for answer in threads.map(lambda path: _tell(path, end), files) if answer is not None]


def _tell(path: Path, end: float) -> dict[str, Any] | None:
    """Tell one server; None where it is gone, and its registration with it."""
    try:
        facts = _facts(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return {"pid": None, "ok": False, "detail": f"{path}: it cannot be read, so nobody was told ({error})."}
    pid = facts["pid"]
    if facts["host"] != socket.gethostname():
        return {
            "pid": pid,
            "ok": False,
            "detail": f"it runs on {facts['host']!r}: restart it there to have the change.",
        }
    try:
        answer = _asked(facts, end)
    except TimeoutError:
        return {"pid": pid, "ok": False, "detail": SLOW.format(pid=pid)}
    except (
        ConnectionError,
        ValueError,
    ):  # nobody there, or somebody else, who knows neither our token nor our language
        path.unlink(missing_ok=True)
        return None
    except OSError as error:
        return {"pid": pid, "ok": False, "detail": f"it could not be told: {error.strerror or error}."}
    return {"ok": False, "detail": "", **answer, "pid": pid}


def _facts(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        facts = jsontext.parse(file.read(4096).decode("utf-8"))
    kinds = {"pid": int, "port": int, "token": str, "host": str}
    if not isinstance(facts, dict) or any(not isinstance(facts.get(name), kind) for name, kind in kinds.items()):
        raise ValueError("it is no registration")
    return facts


def _asked(facts: dict[str, Any], end: float) -> dict[str, Any]:
    """Send one notice; its answer. Raises TimeoutError, other OSErrors, and ValueError for what is no answer."""
    received = b""
    with socket.create_connection(("127.0.0.1", facts["port"]), timeout=PATIENCE) as connection:
        connection.sendall(f"{facts['token']}\nchanged\n".encode())
        while not received.endswith(b"\n"):
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
            part = connection.recv(65536)
            if not part or len(received) > ANSWER:
                raise ValueError("no answer")
            received += part
    answer = jsontext.parse(received.decode("utf-8"))
    if not isinstance(answer, dict):
        raise ValueError("no answer")
    return answer
