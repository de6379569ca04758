"""Features of recent inputs, kept in memory: what was just encoded is not encoded again.

A shelf for each fingerprint, so that a model that goes takes its rows with it at once; the row used longest ago, of all
shelves, makes room first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

ROW = 350  # bytes that a row takes beside its values: its key, the fields of the array, its place on the shelf


@dataclass(slots=True)
class Shelf:
    """The rows of one fingerprint, that used longest ago first; beside each, when it was used."""

    rows: OrderedDict[bytes, tuple[int, NDArray[np.float32]]] = field(default_factory=OrderedDict)
    bytes: int = 0


class Recent:
    """Rows of features by fingerprint and content key, `limit` bytes at most; 0 keeps nothing. Thread-safe.

    `hits` and `misses` count the keys asked for, `bytes` is what the rows take now.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.hits = self.misses = self.bytes = 0
        self._lock = threading.Lock()
        self._shelves: dict[str, Shelf] = {}
        self._clock = 0  # counts uses

    def get(self, fingerprint: str, keys: Sequence[bytes]) -> list[NDArray[np.float32] | None]:
        """For each key its row (d,), which is read-only, or None."""
        found: list[NDArray[np.float32] | None] = []
        with self._lock:
            shelf = self._shelves.get(fingerprint)
            for key in keys:
                kept = shelf.rows.get(key) if shelf else None
                if shelf is None or kept is None:
                    self.misses += 1
                    found.append(None)
                    continue
                self.hits += 1
                self._clock += 1
                shelf.rows[key] = self._clock, kept[1]
                shelf.rows.move_to_end(key)
                found.append(kept[1])
        return found

    def put(self, fingerprint: str, keys: Sequence[bytes], X: NDArray[np.float32]) -> None:
        """Keep rows X (n, d) under n keys. Each is copied: a row does not hold the batch it came from in memory."""
        size = ROW + X[:1].nbytes
        if size > self.limit:
            return
        fresh = [row.copy() for row in X]  # outside the lock
        with self._lock:
            shelf = self._shelves.setdefault(fingerprint, Shelf())
            for key, row in zip(keys, fresh, strict=True):
                row.setflags(write=False)
                before = shelf.rows.get(key)
                grown = size if before is None else row.nbytes - before[1].nbytes
                self._clock += 1
                shelf.rows[key] = self._clock, row
                shelf.rows.move_to_end(key)
                shelf.bytes += grown
                self.bytes += grown
            while self.bytes > self.limit:
                self._make_room()

    def forget(self, fingerprint: str) -> None:
        """Drop the rows of one fingerprint."""
        with self._lock:
            shelf = self._shelves.pop(fingerprint, None)
            self.bytes -= shelf.bytes if shelf else 0
        # the rows themselves go here, with the last name of the shelf, outside the lock

    def _make_room(self) -> None:
        """Drop the row used longest ago."""
        oldest = min(self._shelves, key=lambda name: next(iter(self._shelves[name].rows.values()))[0])
        shelf = self._shelves[oldest]
        _, (_, row) = shelf.rows.popitem(last=False)
        shelf.bytes -= ROW + row.nbytes
        self.bytes -= ROW + row.nbytes
        if not shelf.rows:
            del self._shelves[oldest]
