"""The gate before the application: who may come in, with what, and how it is noted. One pure ASGI middleware.

A request is judged by its headers before its body is read, in this order: is the server stopping (503)? Is it called by
a name of its own (but for health: probes come by address), from a page of its own (421, 403: against DNS rebinding and
forged requests, see `_stranger`)? Has it a key, with the scope, within the key's rate (401, 403, 429)? Is its body of a kind and size we take (400, 415, 413)?
Is there room for its work (429)? Most requests end here when a server has too much to do, so that this costs
microseconds. What a client sends after that is counted as it comes.

The application finds a `Context` (id, deadline, key) in the scope. What it says gets headers for safety; a fault that
escapes it becomes a 500 that says nothing, and a line in the log.
"""

from __future__ import annotations

import asyncio
import functools
import math
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from headstart.apikeys import Key
from headstart.errors import Denied, Draining, HeadstartError, Overloaded
from headstart.server import problems
from headstart.server.context import SCOPE, Context
from headstart.server.door import Door
from headstart.server.groups import HEAVY, OPEN, group, scope_of
from headstart.server.logs import Events, where
from headstart.server.settings import Settings

Message = MutableMapping[str, Any]
App = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]

WANTED = frozenset(
    (
        b"host", b"origin", b"authorization", b"content-length", b"content-encoding", b"content-type", b"expect",
        b"x-request-id", b"x-timeout-ms", b"access-control-request-method",
    )
)  # fmt: skip
SAFE = [(b"x-content-type-options", b"nosniff"), (b"x-frame-options", b"DENY")]
PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, POST, DELETE"),
    (b"access-control-allow-headers", b"authorization, content-type, x-request-id, x-request-key, x-timeout-ms"),
    (b"access-control-max-age", b"600"),
]
LONGEST_TIMEOUT = 3_600_000  # milliseconds
BODIES = 8  # times the largest body: what all bodies that are being read may hold together
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_TIMEOUT = re.compile(rb"[0-9]{1,7}")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


_NOBODY = "0" * 16


@functools.lru_cache(256)
def _crowded(of: str, seconds: int) -> problems.Answer:
    path = {"embeddings": "/v1/embeddings", "infer": "/v2"}.get(of, "")
    error = Overloaded("the server has too much to do at present.", seconds)
    return problems.problem(error, path=path, instance=_NOBODY)


def _overloaded(of: str, seconds: int, id_: str) -> problems.Answer:
    """What most requests get when there is too much to do: written once, but for the id of the request."""
    status, headers, body = _crowded(of, seconds)
    body = body.replace(_NOBODY.encode(), id_.encode())
    return (
        status,
        [(b"content-length", b"%d" % len(body)), *(one for one in headers if one[0] != b"content-length")],
        body,
    )


class Refused(Exception):
    """A request that ends at the gate: why, and under which name it is counted."""

    def __init__(
        self,
        what: HeadstartError | int,
        detail: str = "",
        reason: str | None = None,
        answer: problems.Answer | None = None,  # where it is ready
    ) -> None:
        self.what, self.detail, self.reason, self.answer = what, detail, reason, answer
        super().__init__(detail)


class Gate:
    """The middleware. `seen(group, status, seconds)` is called after every answer, `refused(reason)` for those refused."""

    def __init__(
        self,
        app: App,
        settings: Settings,
        door: Door,
        busy: Callable[[], float | None],
        *,
        seen: Callable[[str, int, float], None] | None = None,
        refused: Callable[[str], None] | None = None,
        events: Events | None = None,
    ) -> None:
        self.app, self.settings, self.door, self.busy = app, settings, door, busy
        self.seen, self.refused, self.events = seen, refused, events
        self.draining = False
        self.inflight = 0  # requests that were let in and are not answered
        self.held = 0  # bytes of bodies that are being read
        self._loopback = settings.loopback
        self._hosts = frozenset(h.lower() for h in ("localhost", "127.0.0.1", "[::1]", settings.host, *settings.hosts))
        self._cors = frozenset(origin.lower().encode() for origin in settings.cors)

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return  # no WebSocket is spoken here; the start and end of a process are running.py's
        visit = Visit(self, scope, receive, send)
        try:
            context = visit.enter()
        except Refused as no:
            await visit.refuse(no)
            visit.leave()
            return
        scope[SCOPE] = context
        self.inflight += 1
        try:
            await self.app(scope, visit.receive, visit.send)
        except Exception as error:
            await visit.broken(error)
        finally:
            self.inflight -= 1
            self.held -= visit.got
            visit.leave()

    def admit(self, visit: Visit, found: dict[bytes, bytes]) -> Key | None:
        """Who asks. Raises Refused."""
        settings, locked = self.settings, self.door.locked
        host = found.get(b"host")
        if host is not None and visit.group not in OPEN and (settings.hosts or (self._loopback and not locked)):
            self._named(host)
        origin = found.get(b"origin")
        if origin is not None:
            self._stranger(origin, host, visit)
            if visit.origin and visit.method == "OPTIONS" and b"access-control-request-method" in found:
                raise Refused(204, answer=(204, PREFLIGHT, b""))  # a browser asks before it sends the key
        token = found.get(b"authorization")
        try:
            sent = () if token is None else (token.decode("latin-1"),)
            return self.door.key(sent, scope_of(visit.method, visit.group))
        except Denied as error:
            raise Refused(error, reason="key") from None
        except Overloaded as error:
            raise Refused(error, reason="rate") from None

    def _named(self, host: bytes) -> None:
        """Refuse a request to a name that is not ours: a page elsewhere may have had its own name point at us."""
        name = host.decode("latin-1").lower()
        name = name[: name.find("]") + 1] if name.startswith("[") else name.partition(":")[0]
        if name not in self._hosts:
            raise Refused(
                421, f"this server does not answer to the name {name[:80]!r}. Allow it with --allow-host.", "host"
            )

    def _stranger(self, origin: bytes, host: bytes | None, visit: Visit) -> None:
        """Refuse a request that a page of somebody else makes in a browser of ours."""
        low = origin.lower()
        if low in self._cors:
            visit.origin = origin
        elif host is None or low.partition(b"://")[2] != host.lower():
            words = f"pages of {origin[:80].decode('latin-1')!r} may not call this server. Allow them with --cors."
            raise Refused(403, words, "origin")


class Visit:
    """One request on its way through the gate."""

    __slots__ = (
        "_gate", "_receive", "_send", "_state", "bounded", "close", "gone", "got", "group", "id", "key", "method", "origin",
        "over", "path", "scope", "start", "status",
    )  # fmt: skip

    def __init__(
        self,
        gate: Gate,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        self._gate, self._receive, self._send, self.scope = gate, receive, send, scope
        self.start = time.monotonic()
        self.path: str = scope["path"]
        self.method: str = scope["method"]
        self.group = group(self.path)
        self.id = ""
        self.origin: bytes | None = None  # of a page that may read the answer
        self.key: Key | None = None
        self.status = 0  # of the answer, once it began
        self.over = False  # refused while its body came: what the application still says is dropped
        self.gone = False  # the client went away
        self.close = False
        self.bounded = True  # its body is counted as a whole
        self.got = 0  # bytes of it that came

    def enter(self) -> Context:
        """Judge the headers. Raises Refused."""
        gate, found, twice = self._gate, dict[bytes, bytes](), False
        for name, value in self.scope["headers"]:
            if name in WANTED:
                twice = twice or name in found
                found[name] = value
        id_ = found.get(b"x-request-id")
        self.id = id_.decode() if id_ is not None and _ID.fullmatch(id_) else secrets.token_hex(8)
        self.close = b"expect" in found  # it waits to be told to send its body; it will not be
        if gate.draining and self.group != "live":
            self.close = True
            raise Refused(Draining("the server is about to stop and takes nothing new."), reason="draining")
        if twice:
            self._once()
        self.key = key = gate.admit(self, found)
        settings = gate.settings
        wait = found.get(b"x-timeout-ms")
        seconds = settings.deadline
        if wait is not None:
            if not _TIMEOUT.fullmatch(wait) or not 0 < int(wait) <= LONGEST_TIMEOUT:
                raise Refused(400, f"X-Timeout-Ms is a whole number of milliseconds from 1 to {LONGEST_TIMEOUT:,}.")
            seconds = int(wait) / 1000
        if self.method not in ("GET", "HEAD"):
            self._body(found)
            if self.group in HEAVY:
                later = gate.busy()
                if later is not None:
                    raise Refused(429, reason="overloaded", answer=_overloaded(self.group, math.ceil(later), self.id))
        return Context(self.id, self.start + seconds, key)

    def _once(self) -> None:
        names = [name for name, _ in self.scope["headers"] if name in WANTED]
        double = {name for name in names if names.count(name) > 1}
        if b"authorization" in double and self._gate.door.locked:
            raise Refused(Denied("two API keys came with the request; send one.", 401), reason="key")
        raise Refused(400, f"the header {min(double).decode()} came more than once.")

    def _body(self, found: dict[bytes, bytes]) -> None:
        """Judge the body by what is said of it, before any of it is read."""
        coding = found.get(b"content-encoding", b"identity")
        if coding.lower() != b"identity":
            raise Refused(415, "a compressed body is not read: send it as it is (no Content-Encoding).", "body")
        self.bounded = not found.get(b"content-type", b"").lower().startswith(b"application/x-ndjson")
        length = found.get(b"content-length")
        if length is not None and not _LENGTH.fullmatch(length):
            raise Refused(400, "Content-Length is not a number of bytes.", "body")
        if length is not None and self.bounded and int(length) > self._gate.settings.max_body:
            raise self._large()

    def _large(self) -> Refused:
        return Refused(
            413, f"the body is larger than {self._gate.settings.max_body:,} bytes. Send less at a time.", "too large"
        )

    async def receive(self) -> Message:
        """What the client sends, counted."""
        if self.over:
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone = True
            return message
        if self.bounded:
            gate, come = self._gate, len(message.get("body", b""))
            self.got += come
            gate.held += come
            no = None
            if self.got > gate.settings.max_body:
                no = self._large()
            elif gate.held > BODIES * gate.settings.max_body:
                no = Refused(Overloaded("too many large bodies are being read.", 1.0), reason="overloaded")
            if no is not None:
                await self.refuse(no)
                return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        """What the application answers, with our headers."""
        if self.over:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._ours()]
        await self._send(message)

    def _ours(self) -> list[tuple[bytes, bytes]]:
        ours = [(b"x-request-id", self.id.encode()), *SAFE]
        if self.origin is not None:
            ours += [
                (b"access-control-allow-origin", self.origin),
                (b"access-control-expose-headers", b"x-request-id, retry-after"),
                (b"vary", b"origin"),
            ]
        return ours

    async def refuse(self, no: Refused) -> None:
        """Answer with a refusal, if nothing was answered yet, and drop what the application still says."""
        if no.reason is not None and self._gate.refused is not None:
            self._gate.refused(no.reason)
        await self._end(no.answer or problems.problem(no.what, no.detail, path=self.path, instance=self.id))

    async def broken(self, error: Exception) -> None:
        """The application failed. A client that went away needs no answer, one that has half of it cannot be told."""
        if self.gone or self.over:
            return
        if self._gate.events is not None and not isinstance(error, HeadstartError):
            self._gate.events.say("broken", id=self.id, path=self.path, error=type(error).__name__, where=where(error))
        if self.status:
            self.status = 500  # half an answer: the server closes the connection
            return
        await self._end(problems.problem(error, path=self.path, instance=self.id))

    async def _end(self, answer: problems.Answer) -> None:
        self.over = True
        if self.status:
            return
        self.status, headers, body = answer
        headers = [*headers, *self._ours()]
        if self.close and (b"connection", b"close") not in headers:
            headers.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": self.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else body})

    def leave(self) -> None:
        """Note how it went."""
        gate, seconds = self._gate, time.monotonic() - self.start
        status = self.status or 499
        if gate.seen is not None:
            gate.seen(self.group, status, seconds)
        if gate.events is not None and (self.group not in OPEN or status >= 400):
            method = self.method if self.method in _METHODS else "OTHER"
            gate.events.request(method, self.path, status, seconds, self.id, self.key.id if self.key else None)


async def drained(gate: Gate, grace: float) -> bool:
    """Let nothing new in and wait until all that was let in is answered, `grace` seconds at most; whether it was."""
    gate.draining = True
    end = time.monotonic() + grace
    while gate.inflight and time.monotonic() < end:
        await asyncio.sleep(0.02)
    return not gate.inflight
