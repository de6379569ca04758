"""A file on disk as bytes: what may be read at all, its digest, and whether it changed while it was read."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headstart.errors import DataError, InputError, NotFound, near

BLOCK = 1 << 20  # bytes read at once

_SPECIAL = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True)
class Stamp:
    """What the file system says of one version of a file."""

    size: int  # bytes
    modified: int  # nanoseconds
    inode: int


def shown(name: str) -> str:
    """A file or column name fit for a message: control and formatting characters are escaped."""
    return name if name.isprintable() else ascii(name)[1:-1]


def stamp(path: Path) -> Stamp:
    """Size, time and inode of a regular file. Raises NotFound; DataError for what is no regular file."""
    name = shown(path.name)
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise missing(path) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: it cannot be opened: {_reason(error)}.") from None
    for is_special, what in _SPECIAL:
        if is_special(status.st_mode):
            raise DataError(f"this is {what}, not a file.", file=name, todo="Give a file, or - for standard input.")
    if not stat.S_ISREG(status.st_mode):
        raise DataError("this is not a regular file.", file=name)
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino)


def missing(path: Path) -> NotFound:
    """The error for a path that does not exist; it offers near names from the nearest folder that does."""
    folder = path.parent
    if not folder.is_dir():
        return NotFound(f"{shown(str(path))}: there is no such file, nor a folder {shown(str(folder))!r}.")
    try:
        names = [shown(entry) for entry in os.listdir(folder)]
    except OSError:
        names = []
    return NotFound(f"{shown(str(path))}: there is no such file.{near(shown(path.name), names)}")


def blocks(path: Path) -> Iterator[bytes]:
    """The file's bytes in blocks of at most BLOCK bytes. Raises DataError when the file changes meanwhile."""
    name = shown(path.name)
    before = stamp(path)
    size = 0
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
            while block := file.read(BLOCK):
                size += len(block)
                yield block
    except PermissionError:
        raise InputError(f"{name}: no permission to read it. Ask for it with chmod +r, or copy the file.") from None
    except OSError as error:
        raise DataError(f"it cannot be read: {_reason(error)}.", file=name) from None
    if size != before.size or stamp(path) != before:
        raise changed(name)


def changed(name: str) -> DataError:
    """The error for a file that was written to while it was read."""
    return DataError("the file changed while it was being read.", file=name, todo="Try again when it is complete.")


def fingerprint(path: Path) -> str:
    """Sha256 of the file's bytes, in hex."""
    sha = hashlib.sha256()
    for block in blocks(path):
        sha.update(block)
    return sha.hexdigest()


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
