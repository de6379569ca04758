"""The OpenAI embeddings protocol as it goes over the wire: one post, and what its answer means, read without trust."""

from __future__ import annotations

import base64
import binascii
import http.client
import math
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from headstart import jsontext
from headstart.errors import ModelError

LETTERS = 60_000  # in one request
WIDEST = 65_536  # numbers in a vector

Floats = NDArray[np.float32]


def batches(lengths: Sequence[int], most: int) -> Iterator[range]:
    """Cut rows into runs of at most `most` texts and LETTERS letters; a longer text goes alone."""
    start = letters = 0
    for i, length in enumerate(lengths):
        if i > start and (i - start >= most or letters + length > LETTERS):
            yield range(start, i)
            start, letters = i, 0
        letters += length
    if start < len(lengths):
        yield range(start, len(lengths))


def posted(url: str, asked: bytes, key: str | None, timeout: float, most: int) -> tuple[int, Any, bytes]:
    """Post JSON: (status, headers, body). Redirects are not followed, and `timeout` holds for the whole of it.

    Raises OSError or HTTPException on a connection that breaks, ModelError on an answer of more than `most` bytes.
    """
    parts = urlsplit(url)
    connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = connect(parts.hostname or "", parts.port, timeout=timeout)
    late = threading.Event()

    def hang_up() -> None:
        late.set()
        with suppress(OSError):  # it may have ended by itself
            if connection.sock:
                connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout, hang_up)
    timer.daemon = True
    headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
    headers |= {"User-Agent": "headstart"} | ({"Authorization": f"Bearer {key}"} if key else {})
    try:
        connection.connect()
        timer.start()
        connection.request("POST", parts.path, asked, headers)
        response = connection.getresponse()
        body = response.read(most + 1)
        if response.length and len(body) <= most:
            raise http.client.IncompleteRead(body, response.length)
    except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
        if late.is_set():
            raise TimeoutError(f"no whole answer within {timeout:g} seconds") from None
        if isinstance(error, OSError | http.client.HTTPException):
            raise
        raise http.client.HTTPException(str(error)) from error
    finally:
        timer.cancel()
        connection.close()
    if late.is_set():
        raise TimeoutError(f"no whole answer within {timeout:g} seconds")
    if len(body) > most:
        raise ModelError(f"the server at {parts.hostname} answered more than the {most:,} bytes that can be right.")
    return response.status, response.headers, body


def vectors(answer: object, n: int) -> Floats:
    """The n vectors of an answer in the order of the texts, (n, d) float32 of unit length. Raises ValueError."""
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list):
        raise ValueError("it has no list 'data'")
    if len(data) != n:
        raise ValueError(f"it has {len(data)} vectors for {n} texts")
    rows: dict[int, NDArray[np.float64]] = {}
    for place, entry in enumerate(data):
        if not isinstance(entry, dict):
            raise ValueError(f"entry {place} is no object")
        index = entry.get("index", place)
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < n or index in rows:
            raise ValueError(f"entry {place} has no index of its own from 0 to {n - 1}")
        rows[index] = _numbers(entry.get("embedding"), place)
    widths = {len(row) for row in rows.values()}
    if len(widths) > 1 or not 1 <= min(widths) <= WIDEST:
        raise ValueError(f"its vectors have {sorted(widths)[:4]} numbers")
    X = np.stack([rows[i] for i in range(n)])
    length = np.linalg.norm(X, axis=1, keepdims=True)
    if not np.isfinite(length).all():
        raise ValueError("it has numbers that are not finite")
    if (length < 1e-12).any():
        raise ValueError("a vector is all zeros")
    return np.asarray(X / length, np.float32)


def _numbers(given: object, place: int) -> NDArray[np.float64]:
    """One vector, of a list of numbers or of base64 of little-endian float32. Raises ValueError."""
    if isinstance(given, str):
        try:
            return np.frombuffer(base64.b64decode(given, validate=True), "<f4").astype(np.float64)
        except (binascii.Error, ValueError):
            raise ValueError(f"the vector of entry {place} is no base64 of float32") from None
    if not isinstance(given, list) or not all(type(number) in (int, float) for number in given):
        raise ValueError(f"the vector of entry {place} is no list of numbers")
    try:
        return np.array(given, np.float64)
    except OverflowError:
        raise ValueError(f"the vector of entry {place} has a number that is too large") from None


def retry_after(said: str | None) -> float | None:
    """The seconds of a Retry-After header, which may be a date; None where it says nothing."""
    if said is None:
        return None
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(said).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def complaint(body: bytes, key: str | None) -> str:
    """What the server says went wrong, in at most 200 printable letters, without the key."""
    try:
        value = jsontext.parse(body[:100_000].decode("utf-8", "replace"))
        found = value.get("error", value) if isinstance(value, dict) else value
        if isinstance(found, dict):
            found = " ".join(str(found[part]) for part in ("message", "code", "detail") if found.get(part))
    except ValueError:
        found = body[:1000].decode("utf-8", "replace")
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in str(found)).split())
    return (text.replace(key, "...") if key else text)[:200]
