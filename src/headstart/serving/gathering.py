"""Features of contents by one or several bases: what is remembered, and what the lanes make of the rest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbone import Contents
from headstart.errors import ContentError
from headstart.example import key as key_of
from headstart.features import canonical
from headstart.serving.encoders import Encoder
from headstart.serving.lanes import Lanes, Ticket
from headstart.serving.recent import Recent

Floats = NDArray[np.float32]
Features = dict[str, Floats]  # fingerprint -> (n, d)


@dataclass(frozen=True, slots=True)
class Part:
    """What one lane gives: for every fingerprint the rows remembered, None where there are none, of distinct contents."""

    encoder: Encoder
    rows: dict[str, list[Any]]
    missing: list[int]  # places among the distinct contents


class Gathering:
    """One call: every distinct content goes once through every lane, unless its features are remembered."""

    def __init__(
        self,
        lanes: Lanes,
        recent: Recent,
        contents: Contents,
        bases: Iterable[tuple[Encoder, str]],
        done: Callable[[Features | BaseException], None],
        *,
        deadline: float,
        fresh: bool = False,
    ) -> None:
        """bases: an encoder and the fingerprint wanted of it. `done` is called once, with X (n, d) by fingerprint or with
        what went wrong, on a thread of the lanes, unless it is cancelled. fresh: past what is remembered.
        """
        self.lanes, self.recent, self.contents, self.done, self.deadline = lanes, recent, contents, done, deadline
        self.keys = [key_of(canonical(content)) for content in contents]  # 16 bytes each
        place: dict[bytes, int] = {}  # of each distinct content
        self.first: list[int] = []  # where each of them is given first
        for i, key in enumerate(self.keys):
            if place.setdefault(key, len(place)) == len(self.first):
                self.first.append(i)
        self.distinct, self.at = list(place), [place[key] for key in self.keys]
        wanted: dict[str, tuple[Encoder, dict[str, None]]] = {}
        for encoder, fingerprint in bases:
            wanted.setdefault(encoder.key, (encoder, {}))[1][fingerprint] = None
        self.parts = [self._part(encoder, list(fingerprints), fresh) for encoder, fingerprints in wanted.values()]
        self.hits = sum(len(self.distinct) - len(part.missing) for part in self.parts)
        self.X: Features = {}
        self._tickets: list[Ticket] = []
        self._left, self._over, self._lock = 0, False, threading.Lock()

    def _part(self, encoder: Encoder, fingerprints: list[str], fresh: bool) -> Part:
        nothing: list[Any] = [None] * len(self.distinct)
        rows = {one: nothing.copy() if fresh else self.recent.get(one, self.distinct) for one in fingerprints}
        return Part(encoder, rows, [j for j in range(len(self.distinct)) if any(r[j] is None for r in rows.values())])

    def begin(self) -> None:
        """Send what is missing to the lanes. Raises Overloaded, Draining, unless `done` has been told of a fault before."""
        self._left = sum(bool(part.missing) for part in self.parts)
        for part in self.parts:
            if not part.missing:
                self._put_together(part, {})
        if not self._left:
            self.lanes.call(partial(self._end, self.X))
            return
        try:
            for part in self.parts:
                if part.missing:
                    contents = [self.contents[self.first[j]] for j in part.missing]
                    arrived = partial(self._arrived, part)
                    ticket = self.lanes.submit(
                        part.encoder, contents, frozenset(part.rows), arrived, deadline=self.deadline,
                        admitted=bool(self._tickets),
                    )  # fmt: skip
                    self._tickets.append(ticket)
        except BaseException:
            if self.cancel():
                raise

    def cancel(self) -> bool:
        """Drop what waits; `done` will not be called. False when it was called already."""
        with self._lock:
            if self._over:
                return False
            self._over = True
        for ticket in self._tickets:
            ticket.cancel()
        return True

    def _arrived(self, part: Part, result: Mapping[str, Floats] | BaseException) -> None:
        if isinstance(result, BaseException):
            self._end(placed(result, [self.first[j] for j in part.missing]))
            return
        keys = [self.distinct[j] for j in part.missing]
        for fingerprint, X in result.items():
            self.recent.put(fingerprint, keys, X)
        self._put_together(part, result)
        with self._lock:
            self._left -= 1
            last = not self._left
        if last:
            self._end(self.X)

    def _put_together(self, part: Part, new: Mapping[str, Floats]) -> None:
        """Remembered and new rows as X (n, d), for every fingerprint of a lane."""
        for fingerprint, rows in part.rows.items():
            if len(part.missing) == len(rows):
                X = new[fingerprint]
            else:
                for j, row in zip(part.missing, new.get(fingerprint, ()), strict=True):
                    rows[j] = row
                X = np.stack(rows)
            self.X[fingerprint] = X if len(self.at) == len(rows) else X[self.at]

    def _end(self, result: Features | BaseException) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
        if isinstance(result, BaseException):
            for ticket in self._tickets:
                ticket.cancel()
        self.done(result)


def placed(error: BaseException, places: list[int]) -> BaseException:
    """An error about contents of a lane as one about those of the call."""
    if isinstance(error, ContentError):
        return ContentError([(places[at], why) for at, why in error.faults])
    return error
