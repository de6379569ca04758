"""What a running server says of itself, on stderr: a line an event or request, for a person or as JSON.

A line is written by a thread of its own: a reader that is slow (a full pipe, say) never holds up an answer; when
too much waits, lines are dropped and counted. No input is ever logged, no key, no header. What comes from outside
(a path) is cut, and its control characters are replaced.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from collections import deque
from typing import IO, Any

_LONGEST = 300  # characters of a value


def safe(text: object) -> str:
    """Text on one line, nothing in it that a terminal or a log reader acts on."""
    text = str(text)[:_LONGEST]
    return text if text.isprintable() else "".join(ch if ch.isprintable() else "?" for ch in text)


GATHER = 0.05  # seconds


class Events:
    """Writes lines. `form`: human or json."""

    def __init__(self, form: str = "human", stream: IO[str] | None = None, room: int = 10_000) -> None:
        self._json = form == "json"
        self._stream = sys.stderr if stream is None else stream
        self._room = room
        self._lines: deque[tuple[float, str, dict[str, Any]]] = deque()
        self._new = threading.Event()
        self._end = threading.Event()
        self._second, self._stamp = -1, ""  # the time as last written
        self.dropped = 0
        self._thread = threading.Thread(target=self._write, name="headstart-log", daemon=True)
        self._thread.start()

    def say(self, event: str, **fields: Any) -> None:
        """Log that something happened. Never blocks."""
        if len(self._lines) >= self._room:
            self.dropped += 1
            return
        self._lines.append((time.time(), event, fields))
        if not self._new.is_set():
            self._new.set()

    def request(self, method: str, path: str, status: int, seconds: float, id: str, key: str | None) -> None:
        """Log a request that was answered. key: the id of the API key, which is no secret."""
        self.say("request", method=method, path=path, status=status, ms=round(1000 * seconds, 2), id=id, key=key)

    def close(self) -> None:
        """Write what waits."""
        self._end.set()
        self._new.set()
        self._thread.join(2.0)

    def _write(self) -> None:
        while True:
            self._new.wait()
            self._end.wait(
                GATHER
            )  # many lines at once: a line alone costs the thread that serves more than its own work
            self._new.clear()
            dropped = 0
            while self._lines or self.dropped > dropped:
                lines = [self._lines.popleft() for _ in range(min(len(self._lines), 256))]
                if self.dropped > dropped:
                    lines.append((time.time(), "dropped", {"lines": self.dropped}))
                    dropped = self.dropped
                try:
                    self._stream.write("".join(self._line(*line) for line in lines))
                    self._stream.flush()
                except (OSError, ValueError):  # nobody reads: there is nowhere to say so
                    self._lines.clear()
            if self._end.is_set() and not self._lines:
                return

    def _line(self, at: float, event: str, fields: dict[str, Any]) -> str:
        fields = {k: v if isinstance(v, (int, float, bool)) else safe(v) for k, v in fields.items() if v is not None}
        if int(at) != self._second:
            self._second, self._stamp = int(at), time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
        when = f"{self._stamp}.{int(at % 1 * 1000):03d}Z"
        if self._json:
            return json.dumps({"at": when, "event": event, **fields}) + "\n"
        if event == "request":
            line = "{method} {path} {status} {ms} ms".format(**fields)
            return f"{when} {line} {fields['id']}" + (f" key={fields['key']}" if "key" in fields else "") + "\n"
        return f"{when} {event}" + "".join(f" {name}={value}" for name, value in fields.items()) + "\n"


def where(error: BaseException) -> str:
    """The places an error came through, the last first: no values, no message, for those may hold inputs."""
    frames = traceback.extract_tb(error.__traceback__)[-12:]
    return " < ".join(f"{f.filename.rpartition('/')[2]}:{f.lineno} {f.name}" for f in reversed(frames))


class Others(logging.Handler):
    """What the parts below log as wrong, as an event, without a traceback."""

    def __init__(self, events: Events) -> None:
        super().__init__(logging.ERROR)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        """Log it."""
        error = record.exc_info[1] if record.exc_info else None
        found = {} if error is None else {"error": type(error).__name__, "where": where(error)}
        self._events.say("fault", of=record.name, words=record.getMessage(), **found)
