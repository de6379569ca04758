"""The feature cache: rows of numbers by content key, on the disk, shared by processes, safe from crashes.

The cache is a folder with one table for each backbone fingerprint, and a table is two files that only ever grow:

    values   rows of d float32, one after the other
    keys     a header of 72 bytes, then for every row its 16-byte content key and the 8-byte sum of the row's words

A row exists when its key does. Values are flushed to the disk before their keys are written, both under a lock that
the system releases when a process dies: whatever is killed, a reader sees whole rows only, and what a torn write left
behind is overwritten by the next one. The sums find rows that the disk has changed since. The folder may be deleted at
any time.

Letters: n rows, d feature width.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import struct
import sys
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from headstart.backbone import cache_folder
from headstart.errors import StorageError

Rows = NDArray[np.int64]
Keys = NDArray[np.uint64]
Values = NDArray[np.float32]

FORMAT = b"HSFEAT01"
HEADER = 72
RECORD = np.dtype([("first", "<u8"), ("second", "<u8"), ("sum", "<u8")])
SALT = np.uint64(0x9E3779B97F4A7C15)  # so that a row of zeros under a key of zeros does not look sound
BLOCK = 8192  # rows gathered and summed at a time


class Cache:
    """The feature cache: a folder of tables. Nothing is made before something is written."""

    def __init__(self, folder: Path | None = None) -> None:
        root = folder or cache_folder()
        self.folder, self.states = root / "features", root / "states"
        self._tables: dict[str, Table] = {}

    def table(self, fingerprint: str, width: int) -> Table:
        """The table of one backbone fingerprint, features `width` wide."""
        if fingerprint not in self._tables:
            self._tables[fingerprint] = Table(self.folder, fingerprint, width)
        return self._tables[fingerprint]

    def size(self) -> int:
        """Bytes on the disk, with those of cached states."""
        both = (self.folder, self.states)
        return sum(path.stat().st_size for folder in both for path in folder.rglob("*") if path.is_file())

    def clear(self) -> int:
        """Remove every cached feature and state, also from under other processes; returns the bytes. Raises StorageError."""
        size = self.size()
        self._tables.clear()
        for folder in (self.folder, self.states):
            gone = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.gone")
            try:
                os.rename(folder, gone)  # at once, so that nobody writes into what is half removed
                shutil.rmtree(gone)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StorageError(f"{folder}: could not be removed: {error.strerror or error}.") from error
        return size


def sums(keys: Keys, values: Values) -> Keys:
    """The check sum of every row, (n,) uint64: the wrapping sum of its words, its key and a salt."""
    words = np.ascontiguousarray(values).view(np.uint64 if values.shape[1] % 2 == 0 else np.uint32)
    total: Keys = words.sum(axis=1, dtype=np.uint64)
    return total + keys[:, 0] + keys[:, 1] + SALT


class Table:
    """The two files of one fingerprint, and an index of their keys in memory.

    The index is a list of sorted runs, the newest last; runs are merged so that each is at least twice the next.
    """

    def __init__(self, folder: Path, fingerprint: str, width: int) -> None:
        name = hashlib.sha256(fingerprint.encode()).digest()
        self.keys_path = folder / name.hex()[:32] / "keys"
        self.values_path = folder / name.hex()[:32] / "values"
        self.width = width
        self.header = struct.pack("<8sI32s28x", FORMAT, width, name)
        self._forget()

    def _forget(self) -> None:
        self._file: os.stat_result | None = None  # the file of keys that is indexed; its map keeps it from being reused
        self._n = 0
        self._records = np.zeros(0, RECORD)
        self._values = np.zeros((0, self.width), np.float32)
        self._runs: list[tuple[Keys, Rows]] = []  # sorted first halves, and the positions they belong to

    def _refresh(self) -> None:
        """Bring the index up to the files. Raises StorageError."""
        try:
            with open(self.keys_path, "rb") as file:
                now = os.fstat(file.fileno())
                n = min(rows_of(now), self.values_path.stat().st_size // (4 * self.width))
                if self._file is None or not os.path.samestat(self._file, now) or n < self._n:
                    self._forget()
                if n == self._n:
                    return
                self._check(file.read(HEADER))
                self._records = np.memmap(file, RECORD, "r", HEADER, (n,))
                self._values = np.memmap(self.values_path, np.float32, "r", 0, (n, self.width))
                self._file = now
        except FileNotFoundError:
            self._forget()
            return
        except OSError as error:
            raise self._refused("read", error) from error
        self._runs.append(sorted_run(self._records["first"][self._n :], np.arange(self._n, n)))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
            new, old = self._runs.pop(), self._runs.pop()
            self._runs.append(sorted_run(np.concatenate([old[0], new[0]]), np.concatenate([old[1], new[1]])))
        self._n = n

    def _check(self, header: bytes) -> None:
        if header != self.header:
            raise StorageError(
                f"{self.keys_path} is not a feature table of this version for this backbone: remove it, or choose "
                "another folder with HEADSTART_CACHE."
            )

    def _refused(self, what: str, error: OSError) -> StorageError:
        return StorageError(
            f"{self.keys_path.parent}: the feature cache cannot be {what} ({error.strerror or error}): free some "
            "space, or choose another folder with HEADSTART_CACHE."
        )

    def find(self, keys: Keys) -> Rows:
        """Positions (n,) int64 of keys (n, 2); -1 where absent, the newest of equal ones. Raises StorageError."""
        self._refresh()
        positions = np.full(len(keys), -1, np.int64)
        if self._n == 0 or len(keys) == 0:
            return positions
        for sorted_keys, where in self._runs:
            left = np.searchsorted(sorted_keys, keys[:, 0], side="right") - 1
            hit = np.flatnonzero((left >= 0) & (sorted_keys[left] == keys[:, 0]))
            candidate = where[left[hit]]
            same = self._records["second"][candidate] == keys[hit, 1]
            positions[hit[same]] = candidate[same]
        return positions

    def view(self, positions: Rows) -> Values | None:
        """The rows as a read-only view of the mapped file; None unless they lie in sequence and are sound."""
        if len(positions) == 0 or positions[0] < 0 or (np.diff(positions) != 1).any():
            return None
        start, end = int(positions[0]), int(positions[-1]) + 1
        for low in range(start, end, BLOCK):
            if not self._sound(slice(low, min(low + BLOCK, end)), self._values[low : min(low + BLOCK, end)]).all():
                return None
        return self._values[start:end]

    def gather(self, positions: Rows, out: Values, rows: Rows) -> NDArray[np.bool_]:
        """Copy the rows at positions (m,) into out[rows] and say which were sound, (m,) bool."""
        sound = np.empty(len(positions), bool)
        for low in range(0, len(positions), BLOCK):
            block = slice(low, low + BLOCK)
            values = self._values[positions[block]]
            sound[block] = self._sound(positions[block], values)
            out[rows[block]] = values
        return sound

    def _sound(self, where: Rows | slice, values: Values) -> NDArray[np.bool_]:
        records = self._records[where]
        found: NDArray[np.bool_] = sums(np.stack([records["first"], records["second"]], 1), values) == records["sum"]
        return found

    def append(self, keys: Keys, values: Values) -> None:
        """Add rows: keys (m, 2), values (m, d). They are on the disk when this returns. Raises StorageError."""
        records = np.empty(len(keys), RECORD)
        records["first"], records["second"], records["sum"] = keys[:, 0], keys[:, 1], sums(keys, values)
        for attempt in range(100):
            try:
                self.keys_path.parent.mkdir(parents=True, exist_ok=True)
                with open_grown(self.keys_path) as file:
                    lock(file)
                    if os.path.samestat(os.fstat(file.fileno()), os.stat(self.keys_path)):
                        self._write(file, records, np.ascontiguousarray(values, "<f4"))
                        return
            except StorageError:
                raise
            except OSError as error:
                if (
                    not isinstance(error, FileNotFoundError | FileExistsError) or attempt == 99
                ):  # mkdir, too, may be overtaken
                    raise self._refused("written", error) from error
            # here the folder was deleted while we waited or wrote: once more, in a new one

    def _write(self, file: IO[bytes], records: NDArray[np.void], values: Values) -> None:
        """Write rows behind the last whole one, values first; the lock is held."""
        if os.fstat(file.fileno()).st_size < HEADER:
            write(file, 0, self.header)
        file.seek(0)
        self._check(file.read(HEADER))
        n = rows_of(os.fstat(file.fileno()))
        with open_grown(self.values_path) as rows:
            try:
                write(rows, 4 * self.width * n, values.tobytes())
            except OSError:
                rows.truncate(4 * self.width * n)  # give the space back
                raise
        write(file, HEADER + RECORD.itemsize * n, records.tobytes())


def rows_of(keys: os.stat_result) -> int:
    """How many whole rows a file of keys holds."""
    return max(0, keys.st_size - HEADER) // RECORD.itemsize


def sorted_run(first: Keys, positions: Rows) -> tuple[Keys, Rows]:
    """Sort first halves with their positions; equal ones stay in order, so that the newest is the last."""
    order = np.argsort(first, kind="stable")
    return np.asarray(first)[order], positions[order]


def open_grown(path: Path) -> IO[bytes]:
    """Open a file for reading and writing, unbuffered; it is made where it is missing and never emptied."""
    return open(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b", 0)


def write(file: IO[bytes], offset: int, content: bytes) -> None:
    """Write all of `content` at an offset of an unbuffered file, and flush it to the disk."""
    file.seek(offset)
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
    os.fsync(file.fileno())


def lock(file: IO[bytes]) -> None:
    """Wait for the exclusive lock of an open file; the system releases it when the file is closed."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(1 << 40)  # far behind the content, which others go on reading
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
