"""Named arrays in a safetensors file, read more strictly than the library does.

The library guards the framing (lengths, offsets, overlaps, trailing bytes). It lets through duplicate names, names
with slashes or newlines, megabytes of metadata, and NaN or infinite values; here these are refused. The framing is
never tried as anything else, so a file that is also a valid pickle stays just a safetensors file.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from headstart import jsontext
from headstart.errors import ModelError

HEADER_LIMIT = 1 << 20  # bytes
_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,256}")

Arrays = dict[str, NDArray[np.generic]]


class Stored:
    """An array that stays in its file: its rows are read when they are asked for, and no memory or descriptor is held.

    (A mapped file would count as memory of the process, and end it with a signal where the file becomes shorter.)
    """

    def __init__(self, path: Path, offset: int, like: NDArray[np.generic]) -> None:
        self.shape, self.dtype, self.ndim, self.size = like.shape, like.dtype, like.ndim, like.size
        self._path, self._offset, self._as_it_was = path, offset, _state(os.stat(path))

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Rows without a step. Raises ModelError when the file has gone or is not the one it was."""
        low, high, _ = rows.indices(len(self))
        found = np.empty((max(high - low, 0), *self.shape[1:]), self.dtype)
        row = self.dtype.itemsize * math.prod(self.shape[1:])
        try:
            with open(self._path, "rb", buffering=0) as file:
                file.seek(self._offset + low * row)
                same = _state(os.fstat(file.fileno())) == self._as_it_was and file.readinto(found.data) == found.nbytes
        except OSError as error:
            raise ModelError(f"{self._path}: cannot be read any more: {error.strerror}.") from error
        if not same:
            raise ModelError(f"{self._path}: changed since the model was loaded. Load it anew.")
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)


def _state(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns


def packed(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Arrays as the bytes of a file; the same arrays give the same bytes."""
    from safetensors.numpy import save as serialise

    return bytes(serialise({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}))


def save(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write arrays. The caller flushes and renames."""
    path.write_bytes(packed(arrays))


def load(path: Path, stored: Collection[str] = ()) -> Arrays:
    """Read every array of a file; those named in `stored` are checked all the same, and left there (see `Stored`).

    Raises ModelError naming the file, the array and what is wrong.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as deserialise

    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}.") from error
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > len(content) - 8:
        raise ModelError(f"{path}: truncated: {len(content)} bytes are too few for a safetensors file.")
    if size > HEADER_LIMIT:
        raise ModelError(f"{path}: its header claims {size:,} bytes; {HEADER_LIMIT:,} are allowed.")
    header = content[8 : 8 + size]
    try:
        if not header.startswith(b"{"):
            raise ValueError("it does not start with '{'")
        entries = jsontext.parse(header.decode("utf-8"))
        names = [name for name in entries if name != "__metadata__"]
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{path}: bad safetensors header: {error}.") from error
    for name in names:
        if not _NAME.fullmatch(name):
            raise ModelError(f"{path}: bad array name {name[:40]!r}.")
    try:
        arrays: Arrays = dict(deserialise(content))
    except (SafetensorError, TypeError, KeyError, ValueError) as error:
        raise ModelError(f"{path}: not a sound safetensors file: {error}.") from error
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            index = int(np.flatnonzero(~np.isfinite(array))[0])
            raise ModelError(f"{path}: array {name!r} has a value that is not finite at position {index}.")
    for name in set(stored) & set(arrays):
        offset = 8 + size + int(entries[name]["data_offsets"][0])
        arrays[name] = cast(NDArray[np.generic], Stored(path, offset, arrays[name]))
    return arrays


def part(arrays: Mapping[str, NDArray[np.generic]], prefix: str) -> Arrays:
    """The arrays whose names begin with `prefix.`, without it."""
    start = prefix + "."
    return {name[len(start) :]: array for name, array in arrays.items() if name.startswith(start)}


def prefixed(arrays: Mapping[str, NDArray[np.generic]], prefix: str) -> Arrays:
    """The arrays with `prefix.` before their names."""
    return {f"{prefix}.{name}": array for name, array in arrays.items()}
