"""Features and their cache: the one place where content becomes numbers.

Letters, here and everywhere: n examples, d feature width, c classes, t tokens or positions, k asked for.
X (n, d) float32 features, y (n,) class codes with -1 for unlabelled, P (n, c) float32 probabilities.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from headstart.backbone import Backbone, Contents
from headstart.errors import ContentError, StorageError
from headstart.example import keys as keys_of
from headstart.rowcache import Cache, Keys, Rows, Values

CHUNK_ROWS, CHUNK_LETTERS = 4096, 400_000  # of texts encoded between two appends: a few seconds' work
CHUNK_PICTURES = 256
IN_MEMORY = 1 << 31  # bytes; larger results lie in a temporary mapped file


@dataclass(frozen=True)
class Features:
    """What embedding gives: a row for every content, in order."""

    values: Values  # (n, d), read-only; a view of the cache's file where the rows lie there one after the other
    keys: Keys  # (n, 2)
    fingerprint: str
    encoded: int  # contents that had to be encoded in this call
    notes: tuple[str, ...] = ()  # one line each: damaged rows, a cache that could not be used


def embed(
    contents: Contents,
    backbone: Backbone,
    cache: Cache | None,
    *,
    keys: Keys | None = None,
    faults: dict[int, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Features:
    """Features of n contents: the cache is read for those it knows, the others are encoded, once each, and appended.

    contents: a sequence of str or bytes, or an Arrow array of strings or binaries. keys (n, 2) uint64: their keys,
    computed where not given. Contents that cannot be read (broken pictures) raise ContentError; where `faults` is given
    they are put into it instead, place -> reason, and their rows are NaN. progress(done, total) is told after every
    chunk how many of the contents to encode are done. A cache that cannot be read or written is said in `notes` and done
    without. Interrupted or killed, at most the chunk in work is lost.
    """
    card = backbone.card
    n, d = len(contents), card.width
    if keys is None:
        keys = keys_of(canonical(content) for content in pick(contents, np.arange(n)))
    if keys.shape != (n, 2):
        raise ValueError(f"keys have shape {keys.shape}, not ({n}, 2)")
    notes: list[str] = []
    table = cache.table(card.fingerprint, d) if cache else None
    positions = np.full(n, -1, np.int64)
    try:
        if table:
            positions = table.find(keys)
            view = table.view(positions)
            if view is not None:
                return Features(view, keys, card.fingerprint, 0)
    except StorageError as error:
        table, notes = None, [f"{error} Nothing is cached."]
    out = room(n, d)
    here = np.flatnonzero(positions >= 0)
    sound = table.gather(positions[here], out, here) if table else np.zeros(0, bool)
    damaged = here[~sound]
    if len(damaged):
        notes.append(f"{len(damaged)} cached rows were damaged and are encoded again.")
    missing = np.sort(np.concatenate([np.flatnonzero(positions < 0), damaged]))
    first, members, edges = grouped(keys[missing])
    first, members = missing[first], missing[members]
    encoded = 0
    unread: dict[int, str] = {}
    for start, end, texts in chunks(contents, first):
        asked = first[start:end]
        made = np.empty((len(asked), d), np.float32)
        fresh = np.ones(len(asked), bool)
        try:
            if table:  # another process may have encoded these meanwhile
                positions = table.find(keys[asked])
                there = np.flatnonzero(positions >= 0)
                fresh[there[table.gather(positions[there], made, there)]] = False
            if fresh.any():
                new = np.flatnonzero(fresh)
                made[new], wrong = encode(backbone, [texts[i] for i in new])
                sound = np.delete(new, list(wrong))
                for i, why in wrong.items():
                    group = start + int(new[i])
                    unread.update(dict.fromkeys(members[edges[group] : edges[group + 1]].tolist(), why))
                encoded += len(sound)
                if table and len(sound):
                    table.append(keys[asked][sound], made[sound])
        except StorageError as error:
            table, notes = None, [*notes, f"{error} What is encoded from here on is not cached."]
        counts = np.diff(edges[start : end + 1])
        out[members[edges[start] : edges[end]]] = np.repeat(made, counts, axis=0)
        if progress:
            progress(end, len(first))
    if unread and faults is None:
        raise ContentError(sorted(unread.items()))
    if faults is not None:
        faults.update(sorted(unread.items()))
    out.flags.writeable = False
    return Features(out, keys, card.fingerprint, encoded, tuple(notes))


def canonical(content: str | bytes) -> bytes:
    """The bytes a content's key is made of: a text's UTF-8, a picture's file."""
    return content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content


def encode(backbone: Backbone, contents: Contents) -> tuple[Values, dict[int, str]]:
    """Features (n, d), NaN where a content cannot be read, and the reasons by place."""
    try:
        return backbone.encode(contents), {}
    except ContentError as error:
        wrong = dict(error.faults)
    values = np.full((len(contents), backbone.card.width), np.nan, np.float32)
    rest = [i for i in range(len(contents)) if i not in wrong]
    if rest:
        values[rest] = backbone.encode([contents[i] for i in rest])  # type: ignore[arg-type]
    return values, wrong


def pick(contents: Any, rows: Rows) -> list[Any]:
    """The contents at ascending rows, from a sequence or an Arrow array."""
    if not hasattr(contents, "take"):
        return [contents[i] for i in rows]
    if len(rows) == 0:
        return []
    low = int(rows[0])  # taking from a slice touches no other part of a mapped file
    found: list[Any] = contents.slice(low, int(rows[-1]) + 1 - low).take(rows - low).to_pylist()
    return found


def grouped(keys: Keys) -> tuple[Rows, Rows, Rows]:
    """Group equal keys, in the order of their first appearance.

    Returns first (u,): the row where each group begins; members (m,): all rows, group after group; edges (u + 1,):
    where each group begins in members.
    """
    if len(keys) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(1, np.int64)
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    starts = np.flatnonzero(np.concatenate([[True], (keys[order][1:] != keys[order][:-1]).any(1)]))
    group = np.empty(len(keys), np.int64)  # of every row, numbered by first appearance
    rank = np.empty(len(starts), np.int64)
    rank[np.argsort(order[starts])] = np.arange(len(starts))
    group[order] = np.repeat(rank, np.diff(np.append(starts, len(keys))))
    members = np.argsort(group, kind="stable")
    edges = np.searchsorted(group[members], np.arange(len(starts) + 1))
    return members[edges[:-1]], members, edges


def chunks(contents: Any, rows: Rows) -> Iterator[tuple[int, int, list[Any]]]:
    """Cut rows into chunks of a few seconds' work: (start, end, contents of rows[start:end])."""
    pictures = len(rows) > 0 and isinstance(pick(contents, rows[:1])[0], bytes)
    step = CHUNK_PICTURES if pictures else CHUNK_ROWS  # pictures are large
    for low in range(0, len(rows), step):
        texts = pick(contents, rows[low : low + step])
        letters = np.cumsum([min(len(text), 1500) for text in texts]) // CHUNK_LETTERS
        bounds = [0, *(np.flatnonzero(np.diff(letters)) + 1).tolist(), len(texts)]
        for start, end in pairwise(bounds):
            yield low + start, low + end, texts[start:end]


def room(n: int, d: int) -> Values:
    """Space for (n, d) float32: in memory, or above two gigabytes in a temporary mapped file. Raises StorageError."""
    size = n * d * 4
    if size <= IN_MEMORY:
        return np.empty((n, d), np.float32)
    try:
        with tempfile.TemporaryFile(prefix="headstart-") as file:  # the map outlives the name
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, np.float32, "r+" if hasattr(os, "posix_fallocate") else "w+", shape=(n, d))
    except OSError as error:
        raise StorageError(
            f"{tempfile.gettempdir()}: no room for {size / 1e9:.1f} GB of features ({error.strerror}): "
            "free some, or set TMPDIR to a larger disk."
        ) from error
