"""Errors as a client reads them: RFC 9457 problem details, with the words the command line prints.

`type` names the kind, so that a program need not read words: "urn:headstart:not-found" and so on for the errors of
errors.py, "about:blank" where the status says it all. Two places speak the dialect of the clients people have: the
Open Inference Protocol (/v2/...) {"error": words}, and the embeddings of OpenAI {"error": {message, type, param, code}};
what is not found under /v1 is both, a problem and an `error`.

A fault that nobody foresaw is a 500 and says nothing of itself: what it was stands in the server's log.
"""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import Any

from headstart.errors import (
    Conflict,
    DataError,
    Denied,
    Draining,
    HeadstartError,
    InputError,
    MissingExtra,
    ModelError,
    NotFound,
    Overloaded,
    StorageError,
    TooLate,
)

Answer = tuple[int, list[tuple[bytes, bytes]], bytes]  # status, headers, body

KINDS: tuple[tuple[type[HeadstartError], int, str], ...] = (  # the first that fits
    (NotFound, 404, "not-found"),
    (Conflict, 409, "conflict"),
    (DataError, 422, "data"),
    (InputError, 422, "input"),
    (Overloaded, 429, "overloaded"),
    (Draining, 503, "draining"),
    (TooLate, 504, "too-late"),
    (Denied, 401, "denied"),  # or 403: the error says it
    (ModelError, 503, "model"),  # 422 in a deploy: what was sent cannot be used
    (MissingExtra, 503, "missing-extra"),  # the same
    (StorageError, 503, "storage"),
)
_BROKEN = "Something in the server broke. Its log says what, under the id of this request (X-Request-Id)."
_TITLES = {429: "Too Many Requests", 499: "Client Closed Request"}
_LATER = 5.0  # seconds: when to come again after a 503 that names no time


def words(code: int) -> str:
    """What HTTP calls a status: 404 -> 'Not Found'."""
    try:
        return _TITLES.get(code) or HTTPStatus(code).phrase
    except ValueError:
        return "Error"


def kind(error: BaseException, path: str = "") -> tuple[int, str]:
    """The status and the type of an error that reached the outside at `path`."""
    for group, code, name in KINDS:
        if isinstance(error, group):
            if isinstance(error, Denied):
                code = error.status
            elif isinstance(error, (ModelError, MissingExtra)) and path.startswith("/v1/deployments"):
                code = 422
            return code, f"urn:headstart:{name}"
    return 500, "about:blank"


def status(error: BaseException, path: str = "") -> int:
    """The status of an error that reached the outside at `path`."""
    return kind(error, path)[0]


def headers(what: BaseException | int) -> dict[str, str]:
    """What an error says beside its body: when to come again (429, 503), how to come in (401)."""
    code = what if isinstance(what, int) else status(what)
    found = {}
    if code in (429, 503):
        retry = what.retry if isinstance(what, Overloaded) else 1.0 if code == 429 else _LATER
        found["Retry-After"] = str(max(1, min(3600, math.ceil(retry))))
    if code == 401:
        found["WWW-Authenticate"] = "Bearer"
    if code == 415:
        found["Accept-Encoding"] = "identity"
    if isinstance(what, Draining):
        found["Connection"] = "close"
    return found


def detail_of(error: BaseException) -> str:
    """The words of an error of ours; of any other, words that give nothing away."""
    return str(error) if isinstance(error, HeadstartError) else _BROKEN


def members(what: BaseException | int, detail: str = "", *, path: str = "", instance: str = "") -> dict[str, Any]:
    """The members of a problem, as for an answer that carries problems inside (one line of many, say)."""
    if isinstance(what, BaseException):
        code, type_ = kind(what, path)
        detail = detail or detail_of(what)
    else:
        code, type_ = what, "about:blank"
    found = {"type": type_, "title": words(code), "status": code, "detail": detail or words(code) + "."}
    if instance:
        found["instance"] = f"urn:headstart:request:{instance}"
    return found


def problem(what: BaseException | int, detail: str = "", *, path: str = "", instance: str = "") -> Answer:
    """An error as an answer, in the form that clients of `path` expect: (status, headers, body).

    what: an error, or a status with `detail`. instance: the id of the request. A 429 and a 503 say when to come again.
    """
    found = members(what, detail, path=path, instance=instance)
    code: int = found["status"]
    kind_ = b"application/json"
    if path.startswith("/v2"):
        body: dict[str, Any] = {"error": found["detail"]}
    elif path.startswith("/v1/embeddings"):
        body = {"error": {"message": found["detail"], "type": _dialect(code), "param": None, "code": _code(found)}}
    else:
        kind_, body = b"application/problem+json", found
        if code == 404 and path.startswith("/v1/"):  # the clients of OpenAI look for it
            said = {"message": found["detail"], "type": _dialect(code), "code": _code(found)}
            body = {**found, "error": said}
    content = json.dumps(body).encode()  # ASCII: a lone surrogate in a name stays an escape
    told = [(b"content-type", kind_), (b"content-length", b"%d" % len(content))]
    told += [(name.lower().encode(), value.encode()) for name, value in headers(what).items()]
    return code, told, content


def _dialect(code: int) -> str:
    if code == 429:
        return "rate_limit_error"
    return "server_error" if code >= 500 else "invalid_request_error"


def _code(found: dict[str, Any]) -> str | None:
    if found["status"] == 401:
        return "invalid_api_key"
    name = found["type"].removeprefix("urn:headstart:")
    return None if name == "about:blank" else name.replace("-", "_")
