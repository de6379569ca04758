"""HTTP/1.1 on a socket: uvicorn's own, with an end to patience and stricter about what it reads.

A client gets `header_time` for the headers of a request, `body_time` for its body (and a second more for every
`SLOWEST` bytes that came: long bodies may take long, if they keep coming) and `send_time` to take what waits for it. A
connection without a request lives for `keep_alive`. One timer a connection, which is moved only when it fires: a
request costs no more than two assignments.

llhttp, below, refuses bare line feeds, a length that is negative, doubled or beside Transfer-Encoding. We refuse more
headers or longer ones than `MOST_HEADERS` and `LONGEST_HEAD`, any Transfer-Encoding but chunked, a request without
a Host or with two, and more than `MOST_WAITING` requests sent ahead on one connection. What is refused closes the
connection: who reads on after a message he did not understand can be made to read another's.
"""

from __future__ import annotations

import asyncio
import functools
import math
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from headstart.server import problems
from headstart.server.settings import Settings

LONGEST_HEAD = 64 << 10  # bytes: the request line and the headers
LONGEST_URL = 16 << 10
MOST_HEADERS = 100
MOST_WAITING = 32  # requests
SLOWEST = 1000  # bytes a second of a body
LINGER = 1.0  # seconds
_NEVER = math.inf


class _Refused(Exception):
    """Raised through the parser: what it reads is not taken."""


def protocol(settings: Settings, most: int = 100_000) -> Any:
    """What uvicorn's Config takes as `http`. most: connections at once; more are closed as they come."""
    return functools.partial(Http, settings=settings, most=most)


class Http(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, settings: Settings, most: int, **named: Any) -> None:
        super().__init__(*args, **named)
        self._settings, self._most = settings, most
        self._read_by = _NEVER  # when the client must have sent what we wait for (loop time)
        self._written_by = _NEVER  # when it must have taken what waits for it
        self._timer: asyncio.TimerHandle | None = None
        self._head = 0  # bytes of the head that is being read
        self._in_head = self._in_body = self._amid = False
        self._body_since, self._body_bytes = 0.0, 0
        self._encoded = False
        self._hosts = 0
        self._deaf = False  # what comes is not read any more
        self._refusal = (400, "what was sent is not HTTP/1.1.")

    # the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came."""
        super().connection_made(transport)
        if len(self.connections) > self._most:
            transport.abort()
            return
        self._read_by = self.loop.time() + self._settings.header_time
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """It went, or was sent away."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        if self._deaf or self.transport.is_closing():
            return
        if not (self._in_head or self._in_body):  # the first bytes of a request
            self._head, self._in_head = 0, True
            self._read_by = self.loop.time() + self._settings.header_time
        self._head += len(data)
        super().data_received(data)
        if self._in_head and self._head > LONGEST_HEAD and not self._deaf:
            self._refusal = (431, f"the headers are longer than {LONGEST_HEAD:,} bytes.")
            self.send_400_response("")
        if (self._in_head or self._in_body) and not self._deaf:  # seldom: most requests come whole
            self._watch()

    def pause_writing(self) -> None:
        """More waits for the client than it takes."""
        super().pause_writing()
        self._written_by = self.loop.time() + self._settings.send_time
        self._watch()

    def resume_writing(self) -> None:
        """It takes it."""
        super().resume_writing()
        self._written_by = _NEVER

    # the message

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._amid = not self._in_head  # in the bytes that also held the end of the one before
        if self._amid:
            self._head, self._in_head = 0, True
            self._read_by = self.loop.time() + self._settings.header_time
        self._hosts = 0
        self._encoded = False

    def on_url(self, url: bytes) -> None:
        """A piece of the URL."""
        super().on_url(url)
        if len(self.url) > LONGEST_URL:
            self._refuse(414, f"the URL is longer than {LONGEST_URL:,} bytes.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, whole."""
        super().on_header(name, value)
        if len(self.headers) > MOST_HEADERS:
            self._refuse(431, f"there are more than {MOST_HEADERS} headers.")
        name = self.headers[-1][0]
        if name == b"host":
            self._hosts += 1
        elif name == b"transfer-encoding":
            if self._encoded or value.strip().lower() != b"chunked":
                self._refuse(400, "a body may be sent with Transfer-Encoding: chunked, once, and with no other.")
            self._encoded = True

    def on_headers_complete(self) -> None:
        """The head is read: the request goes to the application."""
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._refuse(505, "HTTP/1.1 is spoken here.")
        if self._hosts > 1 or (self._hosts == 0 and version == "1.1"):
            self._refuse(400, "a request has one Host header.")
        if self._encoded and version == "1.0":
            self._refuse(400, "HTTP/1.0 knows no Transfer-Encoding.")
        perhaps = self._head > LONGEST_HEAD or self._amid  # the body may have come with them
        if perhaps and sum(len(name) + len(value) + 4 for name, value in self.headers) > LONGEST_HEAD:
            self._refuse(431, f"the headers are longer than {LONGEST_HEAD:,} bytes.")
        if len(self.pipeline) >= MOST_WAITING:
            self._refuse(400, f"more than {MOST_WAITING} requests were sent ahead.")
        super().on_headers_complete()
        self._in_head, self._in_body = False, True
        self._body_since, self._body_bytes = self.loop.time(), 0
        self._read_by = self._body_since + self._settings.body_time

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is read."""
        super().on_message_complete()
        self._in_body = False
        self._read_by = _NEVER if not self.cycle.response_complete else self._idle_end()

    def on_response_complete(self) -> None:
        """The request is answered."""
        super().on_response_complete()
        self._unset_keepalive_if_required()  # our timer does this
        if self.transport.is_closing():
            self._written_by = self.loop.time() + self._settings.send_time
        elif not (self._in_head or self._in_body or self.pipeline):
            self._read_by = self._idle_end()
        self._watch()

    def _idle_end(self) -> float:
        return self.loop.time() + self._settings.keep_alive

    # what is refused

    def _refuse(self, status: int, detail: str) -> None:
        """Stop the parser, which then asks for `send_400_response`."""
        self._refusal = (status, detail)
        raise _Refused(detail)

    def send_400_response(self, msg: str) -> None:
        """Say what was wrong and close. Requests that came whole before it are answered first."""
        cycle = self.cycle
        self._deaf = True
        if cycle is not None and not cycle.response_complete:
            if not self._in_body:
                cycle.keep_alive = False  # its end is the end of the connection
                self._read_by = _NEVER
                return
            cycle.disconnected = True  # the application is told, and says nothing more
            cycle.message_event.set()
            if cycle.response_started or self.pipeline:  # no word in the middle of another answer
                self.transport.abort()
                return
        elif self._in_body:  # answered before its body was read
            self.transport.abort()
            return
        status, headers, body = problems.problem(*self._refusal)
        head = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[status] + head + b"connection: close\r\n\r\n" + body)
        self.transport.write_eof()  # and listen a little: closed with bytes unread, the client would lose our answer
        self.flow.resume_reading()
        self._read_by = _NEVER
        self._written_by = self.loop.time() + LINGER
        self._watch()

    def _unsupported_upgrade_warning(self) -> None:
        """No other protocol is spoken: the request is answered as it is, and the connection closed."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    # patience

    def _watch(self) -> None:
        """See to it that the timer fires no later than needed."""
        due = min(self._read_by, self._written_by)
        if due is _NEVER or (self._timer is not None and self._timer.when() <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(due, self._late)

    def _late(self) -> None:
        """The timer fired: close if something is overdue, else look again when it may be."""
        self._timer = None
        now = self.loop.time()
        if self._written_by <= now:
            self.transport.abort()
            return
        if self._in_body and not self.cycle.response_complete:
            self._read_by = self._body_since + self._settings.body_time + self._body_bytes / SLOWEST
        if self._read_by <= now:
            if self.flow.read_paused:  # it is we who do not read
                self._read_by = now + self._settings.body_time
            elif self._in_head or self._in_body:
                self._refusal = (408, "the request did not come in time.")
                self.send_400_response("")
                return
            elif self.transport.get_write_buffer_size():
                self.transport.abort()
                return
            else:
                self.transport.close()
                return
        self._watch()
