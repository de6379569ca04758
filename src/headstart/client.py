"""A Headstart server, and a model on it that stands where a model here would do for predicting.

Nothing but the standard library is used and no base model is loaded. Requests keep one connection open, so an object is
for one thread at a time. Redirects are never followed. What may pass (429, 503) is tried again after as long as the
server's Retry-After says. The key comes from the argument or the environment variable HEADSTART_KEY, goes to that server
alone and is in no message.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import math
import os
import random
import re
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from headstart import jsontext
from headstart.answers import Answers
from headstart.backbone import Contents
from headstart.backbones.wire import retry_after
from headstart.errors import (
    Conflict,
    Denied,
    Draining,
    HeadstartError,
    InputError,
    ModelError,
    NotFound,
    Overloaded,
    TooLate,
    Unreachable,
)
from headstart.head import MULTILABEL, REGRESSION, TASKS
from headstart.model import Prediction, picture
from headstart.stream import Ask, Asked, predict_one

BATCH, BATCH_WHY = 256, 8  # contents in one request
BATCH_BYTES = 6_000_000  # of them, before they are written as JSON (a server takes 8 MB)
MOST_TOP = 1000  # labels that a server gives with their probabilities
LARGEST = 256 << 20  # bytes of an answer
TRIES = 6
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds
TIMEOUT = 60.0  # seconds for one request
KEY = "HEADSTART_KEY"


class _TooMuch(InputError):
    """The server takes less at once (status 413)."""


@dataclass
class Server:
    """What answers at a URL. Raises InputError for a URL that is none."""

    url: str  # http://host:8400, without /v1
    key: str | None = field(default=None, repr=False)
    timeout: float = TIMEOUT  # seconds
    _open: http.client.HTTPConnection | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.url = self.url.rstrip("/").removesuffix("/v1")  # as OpenAI's clients are told it
        try:
            parts = urlsplit(self.url)
            host, _ = parts.hostname or "", parts.port
        except ValueError as error:
            raise InputError(f"the server's URL cannot be read: {error}.") from None
        if parts.username is not None or parts.password is not None:
            raise InputError(f"the server's URL must hold no user or password: a key belongs in {KEY}.")
        if parts.scheme not in ("http", "https") or not host or not re.fullmatch(r"[\x21-\x7e]+", self.url):
            raise InputError(f"{self.url[:200]!r} is no URL of a server: write http://127.0.0.1:8400.")
        if parts.query or parts.fragment:
            raise InputError("the server's URL must end before any ? or #.")
        if os.environ.get("HEADSTART_OFFLINE", "0").lower() not in ("", "0", "false", "no") and not _loopback(host):
            raise InputError(f"{self.url} is another machine, and HEADSTART_OFFLINE is set: no server is asked.")
        self.key = (self.key or os.environ.get(KEY, "")).strip() or None
        if self.key and not re.fullmatch(r"[\x21-\x7e]+", self.key):
            raise InputError(f"the key (--key or {KEY}) holds spaces or strange letters.")

    def close(self) -> None:
        """Close the connection that is kept; the next request opens another."""
        if self._open is not None:
            self._open.close()
            self._open = None

    __del__ = close

    def ask(
        self, method: str, path: str, body: Any = None, *, crowded: int = TRIES, timeout: float | None = None
    ) -> Any:
        """The JSON that comes back. GET, and POST to .../predict, are sent again where a connection breaks.

        crowded: so many tries at a server that has too much to do (429); one that is about to stop (503) gets `TRIES`.
        Raises NotFound, InputError, Conflict, Denied, Overloaded, Draining, TooLate and Unreachable with the server's words,
        ModelError for an answer that makes no sense.
        """
        again = method == "GET" or path.endswith("/predict")
        sent = None if body is None else jsontext.write(body).encode("utf-8", "surrogatepass")
        for tried in range(1, TRIES + 1):
            status, headers, found = self._exchange(method, path, sent, timeout or self.timeout, again=again)
            if 200 <= status < 300:
                try:
                    return jsontext.parse(found.decode("utf-8"))
                except ValueError as error:
                    raise ModelError(f"{self.url} gave an answer that is no JSON: {error}.") from None
            refusal = self._error(status, found, headers.get("content-type") or "", path)
            after = retry_after(headers.get("retry-after"))
            pause = after if after is not None else min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (tried - 1))
            if isinstance(refusal, Overloaded):
                refusal.retry = pause
            tries = crowded if status == 429 else TRIES if status == 503 else 1
            if tried >= tries or pause > LONGEST_PAUSE:
                raise refusal
            time.sleep(pause + random.uniform(0, 0.1))
        raise AssertionError

    def _exchange(
        self, method: str, path: str, body: bytes | None, timeout: float, *, again: bool
    ) -> tuple[int, Any, bytes]:
        """One request and its answer; `again`: once more where a connection breaks, as a kept one does that was closed."""
        try:
            return self._once(method, path, body, timeout)
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(f"{self.url}: its certificate is not valid: {error.verify_message}.") from None
        except ssl.SSLError:
            raise Unreachable(f"{self.url} speaks no TLS. Try http{self.url.removeprefix('https')}") from None
        except TimeoutError:
            raise TooLate(f"{self.url} gave no whole answer within {timeout:g} seconds. Is it very busy?") from None
        except (OSError, http.client.HTTPException) as error:
            if again:
                return self._exchange(method, path, body, timeout, again=False)
            if isinstance(error, ConnectionRefusedError):
                raise Unreachable(
                    f"no server answers at {self.url}. Start one with: headstart serve, or look at the address."
                ) from None
            words = _plain(f"{type(error).__name__}: {error}".removesuffix(": "))
            raise Unreachable(f"{self.url} cannot be talked to ({words}). Look at the address.") from None

    def _once(self, method: str, path: str, body: bytes | None, timeout: float) -> tuple[int, Any, bytes]:
        parts, until = urlsplit(self.url), time.monotonic() + timeout
        connection = self._open
        if connection is None:
            connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            connection = connect(parts.hostname or "", parts.port, timeout=timeout)
        elif connection.sock is not None:
            connection.sock.settimeout(timeout)
        self._open = None  # until the answer is whole
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "headstart"}
        headers |= {"Content-Type": "application/json"} if body is not None else {}
        headers |= {"X-Timeout-Ms": str(int(1000 * min(timeout, 3600)))}
        headers |= {"Authorization": f"Bearer {self.key}"} if self.key else {}
        try:
            with suppress(BrokenPipeError):  # one that refuses a body early may have said why
                connection.request(method, parts.path + path, body, headers)
            response = connection.getresponse()
            found = bytearray()
            while block := response.read1(1 << 20):
                found += block
                if len(found) > LARGEST:
                    raise ModelError(f"{self.url} answered more than {LARGEST:,} bytes.")
                if time.monotonic() > until:
                    raise TimeoutError
            if response.length:
                raise http.client.IncompleteRead(bytes(found), response.length)
            response.close()  # of the connection it is done with, which stays open
        except ValueError as error:
            connection.close()
            if isinstance(error, HeadstartError | OSError):  # a certificate that is not valid is both
                raise
            raise http.client.HTTPException(str(error)) from None
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            self._open = connection
        return response.status, response.headers, bytes(found)

    def _error(self, status: int, body: bytes, kind: str, path: str) -> HeadstartError:
        """What a status says, in the server's words."""
        words = self._words(body)
        if 300 <= status < 400:
            return InputError(
                f"{self.url} sends us elsewhere (status {status}), which is not followed: give the final URL."
            )
        if status in (401, 403):
            ask = "" if self.key else f" Give --key, or set {KEY}."
            return Denied((words or f"{self.url} refuses (status {status}).") + ask, status)
        if status == 404 and (not words or "json" not in kind):
            return NotFound(f"{self.url}{path}: there is nothing. Is this a Headstart server?")
        if status == 429:
            return Overloaded(words or f"{self.url} has too much to do.", 0.0)
        words = words or f"{self.url} refused (status {status}) without a reason."
        if status >= 500 and status not in (503, 504):
            return Unreachable(f"{self.url} failed (status {status}): {words}")
        return {404: NotFound, 409: Conflict, 413: _TooMuch, 503: Draining, 504: TooLate}.get(status, InputError)(words)

    def _words(self, body: bytes) -> str:
        """The reason in a problem, at most 1,000 printable letters, without the key; "" where there is none."""
        try:
            value = jsontext.parse(body[:100_000].decode("utf-8", "replace"))
        except ValueError:
            return ""
        if not isinstance(value, dict):
            return ""
        error = value.get("error")
        words = (
            value.get("detail") or (error.get("message") if isinstance(error, dict) else error) or value.get("title")
        )
        text = _plain(words) if isinstance(words, str) else ""
        return text.replace(self.key, "...") if self.key else text


@dataclass(frozen=True)
class Remote:
    """A model on a server: what `predict_one` and `predict_file` need of one."""

    server: Server
    name: str
    version: str  # that answers now
    task: str
    modality: str
    labels: tuple[str, ...]

    @classmethod
    def open(cls, url: str, name: str, key: str | None = None, timeout: float = TIMEOUT) -> Remote:
        """Ask a server for a model. Raises NotFound with near names, Denied, Unreachable, InputError, ModelError."""
        server = Server(url, key, timeout)
        said = server.ask("GET", f"/v1/models/{quote(name, safe='')}")
        facts = said.get("headstart") if isinstance(said, dict) else None
        if not isinstance(facts, dict):
            raise ModelError(f"{server.url} does not say what {name!r} is. Is it a model, and this a Headstart server?")
        task, modality, labels, version = (facts.get(field) for field in ("task", "modality", "labels", "version"))
        if (
            task not in TASKS
            or modality not in ("text", "image")
            or not isinstance(version, str)
            or not isinstance(labels, list)
            or not all(isinstance(one, str) for one in labels)
            or (task != REGRESSION and not labels)
        ):
            raise ModelError(f"{server.url} says of {name!r} what this version does not understand: task {task!r:.40}.")
        return cls(server, name, version, task, modality, tuple(labels))

    def predict(
        self, contents: Sequence[str | bytes | Path] | str | bytes | Path, *, every: bool = False
    ) -> list[Prediction]:
        """As `Model.predict`."""
        given = [contents] if isinstance(contents, str | bytes | Path) else list(contents)
        return [
            Prediction(
                label=row.get("label"), probability=row.get("probability"), unknown=row["unknown"],
                labels=tuple(row.get("labels", ())), value=row.get("value"), probabilities=row.get("probabilities", {}),
            )
            for row in predict_one(self, given, every=every)
        ]  # fmt: skip

    def contents(self, given: Sequence[str | bytes | Path]) -> Contents:
        """As `Model.contents`. Raises NotFound, InputError."""
        reads = str if self.modality == "text" else str | bytes | Path
        for place, one in enumerate(given, 1):
            if not isinstance(one, reads):
                wanted = "texts" if self.modality == "text" else "pictures, as paths or bytes"
                raise InputError(
                    f"content number {place} is a {type(one).__name__}; model {self.name!r} reads {wanted}."
                )
        if self.modality == "text":
            return list(given)  # type: ignore[return-value]
        return [one if isinstance(one, bytes) else picture(Path(one)) for one in given]

    def asking(self, *, every: bool, why: bool, pictures: bool) -> Ask:
        """What `stream` asks. A server gives no small pictures beside its reasons, so `pictures` changes nothing."""
        asked: dict[str, Any] = {"why": True} if why else {}
        if every and len(self.labels) > MOST_TOP:
            raise InputError(
                f"--all: a server gives up to {MOST_TOP:,} labels; {self.name!r} has {len(self.labels):,}."
            )
        if every or self.task == MULTILABEL:
            asked["top"] = len(self.labels) if every else 1

        def ask(contents: Contents, faults: dict[int, str], say: Callable[[int], None]) -> Asked:
            rows: list[dict[str, Any]] = []
            notes: list[str] = []
            for some in _batches(contents, BATCH_WHY if why else BATCH):
                rows += self._rows(contents, some, asked, faults, notes)
                say(some.stop)
            reasons = [_why(row) for row in rows] if why else None
            return self._answers(rows), reasons, tuple(dict.fromkeys(notes))

        return ask

    def _rows(
        self, contents: Contents, some: range, asked: dict[str, Any], faults: dict[int, str], notes: list[str]
    ) -> list[dict[str, Any]]:
        """The predictions for some contents. What the server cannot take at once is halved; pictures it cannot read,
        one by one, go into `faults`.
        """
        inputs: list[Any] = [
            one if isinstance(one, str) else {"base64": base64.b64encode(one).decode()}
            for one in (contents[i] for i in some)
        ]
        try:
            said = self.server.ask(
                "POST", f"/v1/models/{quote(self.name, safe='')}/predict", {"inputs": inputs, **asked},
                crowded=TRIES if len(some) == 1 else 2,
            )  # fmt: skip
        except (NotFound, Conflict):
            raise
        except (InputError, Overloaded, TooLate) as error:
            if len(some) > 1 and (
                self.modality == "image" or not isinstance(error, InputError) or isinstance(error, _TooMuch)
            ):
                half = some.start + len(some) // 2
                return [
                    row
                    for part in (range(some.start, half), range(half, some.stop))
                    for row in self._rows(contents, part, asked, faults, notes)
                ]
            if self.modality != "image" or not isinstance(error, InputError):
                raise
            faults[some.start] = re.sub(r"^.*cannot be read: ", "", str(error)).removesuffix(".")
            return []
        rows = said.get("predictions") if isinstance(said, dict) else None
        if not isinstance(rows, list) or len(rows) != len(some) or not all(isinstance(row, dict) for row in rows):
            raise ModelError(f"{self.server.url} did not answer each of {len(some)} inputs with a prediction.")
        if said.get("version", self.version) != self.version:
            notes.append(f"{self.name} is {said['version']} on the server by now; it was {self.version} at first"[:200])
        return rows

    def _answers(self, rows: list[dict[str, Any]]) -> Answers:
        """Predictions as arrays; probabilities that were not asked for are 0."""
        place = {label: j for j, label in enumerate(self.labels)}
        n, c = len(rows), max(1, len(self.labels))
        P, chosen = np.zeros((n, c), np.float32), np.zeros((n, c), bool)
        try:
            unknown = np.array([bool(row["unknown"]) for row in rows], bool)
            for i, row in enumerate(rows):
                if self.task == REGRESSION:
                    P[i, 0] = _number(row["value"])
                    continue
                for one in row.get("top") or [row]:
                    P[i, place[one["label"]]] = _number(one["probability"])
                for label in row["labels"] if self.task == MULTILABEL else [row["label"]]:
                    chosen[i, place[label]] = True
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{self.server.url} answered what does not go with model {self.name!r} ({_plain(str(error))}): was it "
                "replaced by one with other labels meanwhile? Run the same command again."
            ) from None
        return Answers(P, chosen, unknown)


def _batches(contents: Contents, most: int) -> Iterator[range]:
    """Runs of at most `most` contents and BATCH_BYTES bytes; a larger one goes alone."""
    start = size = 0
    for i, content in enumerate(contents):
        more = len(content.encode("utf-8", "surrogatepass")) if isinstance(content, str) else len(content) * 4 // 3
        if i > start and (i - start >= most or size + more > BATCH_BYTES):
            yield range(start, i)
            start, size = i, 0
        size += more
    if start < len(contents):
        yield range(start, len(contents))


def _why(row: dict[str, Any]) -> dict[str, Any]:
    """The reasons of one prediction; {nearest: []} where the server gave none."""
    why = row.get("why")
    return why if isinstance(why, dict) and isinstance(why.get("nearest"), list) else {"nearest": []}


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} is no number")
    return float(value)


def _plain(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text[:1000]).split())


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
