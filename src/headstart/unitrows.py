"""Kept training features as float32 vectors of length 1, made when they are needed and kept in bounded memory.

They lie in a model's file in float16, a few megabytes a model; of a thousand models few are in use at a time.

Letters: n rows, d feature width, r references. X (n, d).
"""

from __future__ import annotations

import random
import threading
import weakref
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Pool:
    """References in use as float32 unit vectors: at most `limit` bytes, or those of one model; thread-safe.

    The least recently used go first. A full pool takes in one newcomer of eight, so that asking more models in turn than
    it has room for leaves most of it as it is.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0  # bytes
        self._lock = threading.RLock()  # a collection of garbage while it is held may call `_drop`
        self._kept: OrderedDict[int, tuple[weakref.ref[Any], NDArray[np.float32]]] = OrderedDict()

    def rows(self, owner: object, references: NDArray[np.floating], most: int) -> NDArray[np.float32]:
        """The first `most` of the owner's references (r, d), at length 1: (most, d). They are kept while the owner lives."""
        key = id(owner)
        with self._lock:
            if (kept := self._kept.get(key)) is not None and len(kept[1]) >= most:
                self._kept.move_to_end(key)
                return kept[1][:most]
        rows = _rows(references[:most])
        with self._lock:
            if self.size + rows.nbytes <= self.limit or not self._kept or random.random() < 1 / 8:
                self._drop(key)
                self._kept[key] = weakref.ref(owner, lambda _: self._drop(key)), rows
                self.size += rows.nbytes
                while self.size > self.limit and len(self._kept) > 1:
                    self._drop(next(iter(self._kept)))
        return rows

    def _drop(self, key: int) -> None:
        with self._lock:
            if (gone := self._kept.pop(key, None)) is not None:
                self.size -= gone[1].nbytes


POOL = Pool(32 << 20)  # of all models together


def _rows(references: NDArray[np.floating]) -> NDArray[np.float32]:
    """`unit` of finite numbers, bit for bit, but quicker than numpy makes float32 of float16; in pieces of 64 KB."""
    found = np.empty(references.shape, np.float32)
    step = max(1, (64 << 10) // (4 * references.shape[1]))
    bits = np.empty((step, references.shape[1]), np.int32)
    for start in range(0, len(found), step):
        part, rows = references[start : start + step], found[start : start + step]
        if part.dtype == np.float16:  # exponent and fraction are moved to their places, and the exponent gets 112 more
            moved = bits[: len(part)]
            moved[:] = part.view(np.int16)
            np.left_shift(moved, 13, out=moved)
            np.bitwise_and(moved, np.int32(-0x70002000), out=moved)
            np.multiply(moved.view(np.float32), np.float32(2.0**112), out=rows)
        else:
            rows[:] = part
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return found


def unit(X: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of length 1, (n, d); a zero row stays zero."""
    X = np.asarray(X, np.float32)
    return np.asarray(X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12), np.float32)
