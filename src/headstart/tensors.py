"""Named arrays in a safetensors file, read more strictly than the library does.

The library guards the framing (lengths, offsets, overlaps, trailing bytes). It lets through duplicate names, names
with slashes or newlines, megabytes of metadata, and NaN or infinite values; here these are refused. The framing is
never tried as anything else, so a file that is also a valid pickle stays just a safetensors file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart import jsontext
from headstart.errors import ModelError

HEADER_LIMIT = 1 << 20  # bytes
_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,256}")

Arrays = dict[str, NDArray[np.generic]]


def packed(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Arrays as the bytes of a file; the same arrays give the same bytes."""
    from safetensors.numpy import save as serialise

    return bytes(serialise({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}))


def save(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write arrays. The caller flushes and renames."""
    path.write_bytes(packed(arrays))


def load(path: Path) -> Arrays:
    """Read every array of a file. Raises ModelError naming the file, the array and what is wrong."""
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
        names = [name for name in jsontext.parse(header.decode("utf-8")) if name != "__metadata__"]
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
    return arrays


def part(arrays: Mapping[str, NDArray[np.generic]], prefix: str) -> Arrays:
    """The arrays whose names begin with `prefix.`, without it."""
    start = prefix + "."
    return {name[len(start) :]: array for name, array in arrays.items() if name.startswith(start)}


def prefixed(arrays: Mapping[str, NDArray[np.generic]], prefix: str) -> Arrays:
    """The arrays with `prefix.` before their names."""
    return {f"{prefix}.{name}": array for name, array in arrays.items()}
