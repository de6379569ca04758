"""Kept training features as float32 vectors of length 1, made when they are needed and kept in bounded memory.

They lie in a model's file in float16, a few megabytes a model; of a thousand models few are in use at a time.

Letters: n rows, d feature width, r references. X (n, d).
"""

from __future__ import annotations

import math
import random
import threading
import weakref
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Rows:
    """References (r, d) as float32 unit vectors, and groups of those that are near one another.

    A group is what is nearest to one of the square root of r rows, its leader.
    """

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self.rows = rows
        self._groups: tuple[NDArray[np.float32], list[Any]] | None = None
        self._asked = False

    def near(self, U: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        """Similarities (n, k) of unit vectors (n, d) to the k nearest in the two groups whose leaders are the nearest.

        These are at most those to the k nearest of all.
        """
        if not self._asked:  # rows that are asked only once are not worth the grouping
            self._asked = True
            return np.partition(U @ self.rows.T, -k, axis=1)[:, -k:]
        if self._groups is None:
            leaders = self.rows[np.unique(np.linspace(0, len(self.rows) - 1, math.isqrt(len(self.rows))).astype(int))]
            of = np.concatenate(
                [(self.rows[low : low + 1024] @ leaders.T).argmax(1) for low in range(0, len(self.rows), 1024)]
            )
            self._groups = leaders, [np.flatnonzero(of == j) for j in range(len(leaders))]
        leaders, groups = self._groups
        best = np.argpartition(U @ leaders.T, -2, axis=1)[:, -2:]
        found = np.full((len(U), k), -2.0, np.float32)
        for i, (a, b) in enumerate(best.tolist()):
            similar = self.rows[np.concatenate([groups[a], groups[b]])] @ U[i]
            most = min(k, len(similar))
            found[i, :most] = np.partition(similar, -most)[-most:]
        return found


class Pool:
    """References in use as float32 unit vectors: at most `limit` bytes, or those of one model; thread-safe.

    The least recently used go first. A full pool takes in one newcomer of eight, so that asking more models in turn than
    it has room for leaves most of it as it is.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0  # bytes
        self._lock = threading.RLock()  # a collection of garbage while it is held may call `_drop`
        self._kept: OrderedDict[int, tuple[weakref.ref[Any], Rows]] = OrderedDict()

    def rows(self, owner: object, references: NDArray[np.floating]) -> Rows:
        """The owner's references (r, d), at length 1. They are kept while the owner lives."""
        key = id(owner)
        with self._lock:
            if (kept := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return kept[1]
        found = Rows(_rows(references[:]))
        size = found.rows.nbytes
        with self._lock:
            if self.size + size <= self.limit or not self._kept or random.random() < 1 / 8:
                self._drop(key)
                self._kept[key] = weakref.ref(owner, lambda _: self._drop(key)), found
                self.size += size
                while self.size > self.limit and len(self._kept) > 1:
                    self._drop(next(iter(self._kept)))
        return found

    def _drop(self, key: int) -> None:
        with self._lock:
            if (gone := self._kept.pop(key, None)) is not None:
                self.size -= gone[1].rows.nbytes


POOL = Pool(24 << 20)  # of all models together


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
