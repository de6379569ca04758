"""States at a tap on the disk: what the lower half of a network gives for a content, by its key, computed once.

A shelf is a folder of one set of states in one precision: two files that only ever grow, as in rowcache.

    values   numbers of one content after the other, each content's beginning at a multiple of 8 bytes
    keys     a header of 72 bytes, then a record of 40 bytes for every content: its key, where its values begin (in
             words of 8 bytes), how many places it has, and the sum of its words

A content is there when its record is. Values are flushed to the disk before their records are written, both under a
lock that the system releases when a process dies; what a torn write left behind is overwritten by the next one. The
sums find values that the disk has changed since. The folder may be deleted at any time.

States are kept in float16 where that makes no difference: for up to 64 contents the features that the upper half makes
of the rounded states lie within 2e-3 of those of the exact ones. Both have unit length and the distance is the
Euclidean one, the root of twice the cosine distance: neighbours are some tenths apart. Else, and when a number is too
large for float16, they are kept in float32.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbone import Contents, cache_folder
from headstart.errors import ContentError, InputError, StorageError
from headstart.example import keys as keys_of
from headstart.features import canonical, chunks, grouped, pick
from headstart.halved import PADDED, Halves
from headstart.rowcache import Keys, Rows, lock, open_grown, write

FORMAT = b"HSSTAT01"
HEADER = 72
RECORD = np.dtype([("first", "<u8"), ("second", "<u8"), ("start", "<u8"), ("length", "<u8"), ("sum", "<u8")])
SALT = 0x9E3779B97F4A7C15  # so that noughts under a key of noughts do not look sound
SAMPLE = 64  # contents on which float16 is tried
AGREE = 2e-3  # the largest distance of two features, of unit length, that makes no difference
LARGE, LARGEST = 4 << 30, 32 << 30  # bytes of one set of states: from where it is said, and from where refused
TEXTS, PICTURES = 512, 64  # contents between two writes

Values = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class States:
    """The states of n contents, in order; those of equal contents lie once."""

    lengths: NDArray[np.int64]  # (n,) places; 1 for maps, grids and vectors; 0 for what cannot be read
    kind: str  # of the tap: tokens map grid vector stream turned
    shape: tuple[int, ...]  # of one place: (d,), or the whole state of maps and grids
    dtype: str  # as it is kept: float16 or float32
    computed: int  # contents that the lower half was run on
    notes: tuple[str, ...]  # one line each: no room, damaged values, large
    values: Sequence[Values]  # n views of a mapped file, (places, *shape), read-only

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def size(self) -> int:
        """Bytes, equal contents counted once."""
        return sum({id(value): value.nbytes for value in self.values}.values())

    def batch(self, rows: Any) -> NDArray[np.float32]:
        """States of some rows, in any order: (b, t, d) for tokens, stream and turned, noughts behind the places of a
        row, t of the longest; (b, *shape) for maps, grids and vectors.
        """
        found = [self.values[i] for i in rows]
        longest = max(map(len, found), default=0) if self.kind in PADDED else 1
        out = np.empty((len(found), longest, *self.shape), np.float32)
        for place, value in zip(out, found, strict=True):
            count = len(value)
            place[:count] = value
            place[count:] = 0
        return out if self.kind in PADDED else out[:, 0]


def collect(
    contents: Contents,
    halves: Halves,
    *,
    keys: Keys | None = None,
    folder: Path | None = None,
    faults: dict[int, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> States:
    """The states of n contents at a tap: read from the disk, or made once, each, and written there.

    contents: a sequence of str or bytes, or an Arrow array. keys (n, 2) uint64: theirs, computed where not given.
    `folder`: the cache, by default that of the user. Contents that cannot be read raise ContentError; where `faults` is
    given they are put into it instead, place -> reason, and have no places. progress(done, total) is told after every
    chunk how many of the contents to be run are done. A disk that refuses is said in `notes`, and what it does not take
    stays in memory. Interrupted or killed, at most the chunk in work is lost. Raises InputError above 32 GB.
    """
    n = len(contents)
    if keys is None:
        keys = keys_of(canonical(content) for content in pick(contents, np.arange(n)))
    if keys.shape != (n, 2):
        raise ValueError(f"keys have shape {keys.shape}, not ({n}, 2)")
    first, members, edges = grouped(keys)
    group = np.empty(n, np.int64)  # of every row: equal contents are one
    group[members] = np.repeat(np.arange(len(first)), np.diff(edges))
    root = (folder or cache_folder()) / "states"
    try:
        work = _Work(contents, halves, keys[first], first, root, None)
        work.run(progress)
    except _TooCoarse:
        work = _Work(contents, halves, keys[first], first, root, "float32")
        work.run(progress)
    unread = {int(row): work.unread[int(group[row])] for row in np.flatnonzero(np.isin(group, list(work.unread)))}
    if unread and faults is None:
        raise ContentError(sorted(unread.items()))
    if faults is not None:
        faults.update(unread)
    return work.states(group)


class _TooCoarse(Exception):
    """A number is too large for float16."""


class _Work:
    """Unique contents and their states, as far as they are known; `rows` are their places in `contents`."""

    def __init__(
        self, contents: Contents, halves: Halves, keys: Keys, rows: Rows, root: Path, dtype: str | None
    ) -> None:
        self.contents, self.halves, self.keys, self.rows = contents, halves, keys, rows
        self.values: list[Values | None] = [None] * len(keys)
        self.shape: tuple[int, ...] = (halves.width,)
        self.unread: dict[int, str] = {}
        self.notes: list[str] = []
        self.computed = 0
        there = [
            one for one in ("float32", "float16") if os.path.exists(Shelf(root, halves.fingerprint, one).keys_path)
        ]
        self.dtype = dtype or (there[0] if there else None)  # None: not yet chosen
        self.root, self.shelf = root, None if self.dtype is None else Shelf(root, halves.fingerprint, self.dtype)

    def run(self, progress: Callable[[int, int], None] | None) -> None:
        """Read what is kept and make the rest, piece by piece. Raises InputError, StorageError, _TooCoarse."""
        damaged = self._read(range(len(self.keys)))
        if damaged:
            self.notes.append(f"{damaged} kept states were damaged and are computed again.")
        missing = [i for i, value in enumerate(self.values) if value is None]
        done = 0
        for piece, texts in self._pieces(missing):
            self._make(piece, texts)
            if done == 0:
                self._bounded(len(missing) / len(piece))
            done += len(piece)
            if progress:
                progress(done, len(missing))
        if not missing:
            self._bounded(1)

    def _pieces(self, missing: Sequence[int]) -> Iterator[tuple[list[int], list[Any]]]:
        """What is missing, in pieces: first a sample of all of it, by which precision and size are judged."""
        sample = sorted({missing[int(i)] for i in np.linspace(0, len(missing) - 1, SAMPLE)}) if missing else []
        rest = np.setdiff1d(missing, sample).astype(np.int64)
        if sample:
            yield sample, pick(self.contents, self.rows[sample])
        for start, _, texts in chunks(self.contents, self.rows[rest]):
            step = TEXTS if isinstance(texts[0], str) else PICTURES
            for low in range(0, len(texts), step):
                part = texts[low : low + step]
                yield rest[start + low : start + low + len(part)].tolist(), part

    def _read(self, asked: Sequence[int]) -> int:
        """Take from the shelf what it has; gives how many were damaged."""
        if self.shelf is None or not len(asked):
            return 0
        try:
            found, damaged = self.shelf.read(self.keys[asked])
        except StorageError as error:
            self.shelf, self.notes = None, [*self.notes, f"{error} What is computed stays in memory."]
            return 0
        self.shape = self.shelf.shape or self.shape
        for i, value in zip(asked, found, strict=True):
            self.values[i] = value
        return damaged

    def _make(self, piece: Sequence[int], texts: list[Any]) -> None:
        """Run the lower half on a piece, and keep what it gives."""
        self._read(piece)  # another process may have made these meanwhile
        left = [k for k, i in enumerate(piece) if self.values[i] is None]
        states, wrong = _run(self.halves, [texts[k] for k in left])
        self.unread.update((piece[left[k]], why) for k, why in wrong.items())
        fresh = [piece[k] for j, k in enumerate(left) if j not in wrong]
        self.computed += len(fresh)
        if not fresh:
            return
        self.shape = states[0].shape[1:]
        if self.dtype is None:
            self.dtype = "float16" if agrees(self.halves, states) else "float32"
            self.shelf = Shelf(self.root, self.halves.fingerprint, self.dtype)
        with np.errstate(over="ignore"):
            kept: list[Values] = [one.astype(self.dtype) for one in states]
        if self.dtype == "float16" and not all(np.isfinite(one).all() for one in kept):
            raise _TooCoarse
        if self.shelf:
            try:
                kept = self.shelf.append(self.keys[fresh], kept)
            except StorageError as error:
                self.shelf, self.notes = None, [*self.notes, f"{error} What is computed from here on stays in memory."]
        for i, value in zip(fresh, kept, strict=True):
            value.flags.writeable = False
            self.values[i] = value

    def _bounded(self, more: float) -> None:
        """Say or raise what the states take: those known, times `more` for those just made."""
        size = int(sum(value.nbytes for value in self.values if value is not None) * more)
        said = f"the states of {len(self.keys):,} contents at tap {self.halves.tap} take about {size / 2**30:.1f} GB"
        if size > LARGEST:
            raise InputError(
                f"{said}, and {LARGEST >> 30} GB is the most: take fewer examples, or a tap nearer to the output."
            )
        if size > LARGE and self.shelf:
            self.notes.append(f"{said} in {self.shelf.keys_path.parent}.")
        elif size > LARGE:
            raise StorageError(f"{said}, too much for memory alone: {self.notes[-1]}")

    def states(self, group: NDArray[np.int64]) -> States:
        """Those of all rows; `group` says for each which content it holds."""
        none = np.zeros((0, *self.shape), self.dtype or "float32")
        values = [none if value is None else value for value in self.values]
        lengths = np.array([len(value) for value in values], np.int64)
        kind, dtype = self.halves.kind, self.dtype or "float32"
        return States(
            lengths[group], kind, self.shape, dtype, self.computed, tuple(self.notes), [values[i] for i in group]
        )


def agrees(halves: Halves, states: Sequence[NDArray[np.float32]]) -> bool:
    """Whether the features of states rounded to float16 lie within AGREE of those of the states, each (places, ...)."""
    exact = [one if halves.kind in PADDED else one[0] for one in states]
    with np.errstate(over="ignore"):
        rounded = [one.astype(np.float16).astype(np.float32) for one in exact]
    if not all(np.isfinite(one).all() for one in rounded):
        return False
    apart = halves.features(exact) - halves.features(rounded)
    return bool(np.linalg.norm(apart, axis=1).max() <= AGREE)


def _run(halves: Halves, contents: list[Any]) -> tuple[list[NDArray[np.float32]], dict[int, str]]:
    """States (places, ...) of what can be read, in order, and the reasons of what cannot."""
    wrong: dict[int, str] = {}
    try:
        found = halves.states(contents)
    except ContentError as error:
        wrong = dict(error.faults)
        found = halves.states([one for i, one in enumerate(contents) if i not in wrong])
    return [one if halves.kind in PADDED else one[None] for one in found], wrong


class Shelf:
    """The two files of one set of states in one precision, and an index of their keys in memory."""

    def __init__(self, root: Path, fingerprint: str, dtype: str) -> None:
        self.name = hashlib.sha256(f"{fingerprint} {dtype}".encode()).digest()
        folder = root / f"{hashlib.sha256(fingerprint.encode()).hexdigest()[:32]}-{dtype}"
        self.keys_path, self.values_path = folder / "keys", folder / "values"
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self._forget()

    def _forget(self) -> None:
        self.shape: tuple[int, ...] = ()  # of one place; () before anything is known
        self._file: os.stat_result | None = None
        self._records: list[tuple[int, ...]] = []
        self._index: dict[bytes, int] = {}

    def _header(self, shape: tuple[int, ...]) -> bytes:
        return struct.pack(
            "<8sII4I32s8x", FORMAT, self.dtype.itemsize, len(shape), *shape, *[0] * (4 - len(shape)), self.name
        )

    def _check(self, header: bytes) -> tuple[int, ...]:
        """The shape in a header. Raises StorageError unless it is one of ours."""
        shape = struct.unpack("<8xII4I40x", header)[2:] if len(header) == HEADER else ()
        count = header[12] if len(header) == HEADER else 9
        shape = tuple(shape[:count])
        if count > 4 or header != self._header(shape):
            raise StorageError(
                f"{self.keys_path} holds no states of this version for this backbone: remove it, or choose another "
                "folder with HEADSTART_CACHE."
            )
        return shape

    def _refused(self, what: str, error: OSError) -> StorageError:
        return StorageError(
            f"{self.keys_path.parent}: kept states cannot be {what} ({error.strerror or error}): free some space, or "
            "choose another folder with HEADSTART_CACHE."
        )

    def words(self, length: int) -> int:
        """Words of 8 bytes that so many places take."""
        return -(-length * int(np.prod(self.shape)) * self.dtype.itemsize // 8)

    def read(self, keys: Keys) -> tuple[list[Values | None], int]:
        """Views of the states under keys (n, 2), each (places, *shape); None where there are none. How many were damaged.

        Raises StorageError.
        """
        try:
            with open(self.keys_path, "rb") as file:
                now = os.fstat(file.fileno())
                if self._file is None or not os.path.samestat(self._file, now):
                    self._forget()
                self._file = now
                if now.st_size < HEADER:
                    return [None] * len(keys), 0
                self.shape = self._check(file.read(HEADER))
                known = len(self._records)
                file.seek(HEADER + RECORD.itemsize * known)
                raw = file.read()
                raw = raw[: len(raw) // RECORD.itemsize * RECORD.itemsize]
            size = self.values_path.stat().st_size // 8
            mapped = np.memmap(self.values_path, "<u8", "r", 0, (size,)) if size else np.zeros(0, np.uint64)
        except FileNotFoundError:
            self._forget()
            return [None] * len(keys), 0
        except OSError as error:
            raise self._refused("read", error) from error
        self._records += np.frombuffer(raw, RECORD).tolist()
        step = RECORD.itemsize
        self._index.update((raw[i * step : i * step + 16], known + i) for i in range(len(raw) // step))
        flat, damaged = mapped.view(np.ndarray), 0
        found: list[Values | None] = []
        for key in split(keys):
            number = self._index.get(key)
            value = None if number is None else self._sound(flat, self._records[number])
            damaged += number is not None and value is None
            found.append(value)
        return found, damaged

    def _sound(self, flat: NDArray[np.uint64], record: tuple[int, ...]) -> Values | None:
        """A content's states in the mapped words; None where they are not what was written."""
        first, second, start, length, total = record
        if length > 8 * len(flat) or start + self.words(length) > len(flat):
            return None
        words = flat[start : start + self.words(length)]
        if checked(words, first, second, start, length) != total:
            return None
        return self._shaped(words, length)

    def _shaped(self, words: NDArray[np.uint64], length: int) -> Values:
        count = length * int(np.prod(self.shape))
        return words.view(self.dtype)[:count].reshape(length, *self.shape)

    def append(self, keys: Keys, states: Sequence[Values]) -> list[Values]:
        """Add states (places, *shape) under keys (m, 2); gives views of the file. They are on the disk when this returns.

        Raises StorageError.
        """
        for attempt in range(100):
            try:
                self.keys_path.parent.mkdir(parents=True, exist_ok=True)
                with open_grown(self.keys_path) as file:
                    lock(file)
                    if os.path.samestat(os.fstat(file.fileno()), os.stat(self.keys_path)):
                        return self._write(file, keys, states)
            except StorageError:
                raise
            except OSError as error:
                if not isinstance(error, FileNotFoundError) or attempt == 99:
                    raise self._refused("written", error) from error
            # here the folder was deleted while we waited or wrote: once more, in a new one
        raise StorageError(f"{self.keys_path.parent} is deleted again and again.")

    def _write(self, file: IO[bytes], keys: Keys, states: Sequence[Values]) -> list[Values]:
        """Write states behind the last whole ones, values first; the lock is held."""
        if os.fstat(file.fileno()).st_size < HEADER:
            write(file, 0, self._header(states[0].shape[1:]))
        file.seek(0)
        self.shape = self._check(file.read(HEADER))
        if states[0].shape[1:] != self.shape:
            raise StorageError(f"{self.keys_path} holds states of another shape: remove it.")
        raw = file.read()
        n = len(raw) // RECORD.itemsize
        old = np.frombuffer(raw[: n * RECORD.itemsize], RECORD)
        with open_grown(self.values_path) as rows:
            limit = os.fstat(rows.fileno()).st_size // 8
            ends = [start + self.words(length) for _, _, start, length, _ in old.tolist()]
            begin = max((end for end in ends if end <= limit), default=0)
            padded = [np.zeros(self.words(len(one)), np.uint64) for one in states]
            records, start = np.empty(len(states), RECORD), begin
            for i, (words, one, (first, second)) in enumerate(zip(padded, states, keys.tolist(), strict=True)):
                words.view(self.dtype)[: one.size] = one.ravel()
                records[i] = (first, second, start, len(one), checked(words, first, second, start, len(one)))
                start += len(words)
            try:
                write(rows, 8 * begin, b"".join(words.tobytes() for words in padded))
            except OSError:
                rows.truncate(8 * begin)  # give the space back
                raise
            size = start - begin
            mapped = np.memmap(rows, "<u8", "r", 8 * begin, (size,)).view(np.ndarray)
        write(file, HEADER + RECORD.itemsize * n, records.tobytes())
        return [self._shaped(mapped[int(r["start"]) - begin :][: self.words(int(r["length"]))], int(r["length"]))
                for r in records]  # fmt: skip


def checked(words: NDArray[np.uint64], first: int, second: int, start: int, length: int) -> int:
    """The check sum of a record: the wrapping sum of its words, its key, where it is, and a salt."""
    return (int(words.sum(dtype=np.uint64)) + first + second + start + length + SALT) % 2**64


def split(keys: Keys) -> list[bytes]:
    """Keys (n, 2) as n times 16 bytes."""
    raw = np.ascontiguousarray(keys, "<u8").tobytes()
    return [raw[i : i + 16] for i in range(0, len(raw), 16)]
