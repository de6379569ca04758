"""Every error Headstart raises on purpose.

HeadstartError
├── InputError (ValueError)             what the user gave cannot be used: exit code 2
│   ├── NotFound (FileNotFoundError)    no such file, model or column; near names are offered
│   ├── DataError                       a fault inside a data file; names file, row and column
│   └── Conflict                        somebody else changed it meanwhile, or it says something else already
├── ModelError (ValueError)             a saved model is damaged, hostile or too new: exit code 2
├── MissingExtra (ImportError)          an optional dependency is needed; the message is the pip line
├── StorageError (OSError)              the disk or the cache refused: exit code 1
├── Overloaded                          a server has too much to do: come again after `retry` seconds
├── Draining                            a server is about to stop and takes nothing new
├── TooLate (TimeoutError)              not answered before its deadline
├── Denied (PermissionError)            no key, a wrong one, or one that may not do this
└── Unreachable (ConnectionError)       no server answers there

A message holds the numbers, the names and the next step. The command line prints it without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class HeadstartError(Exception):
    """The root of the tree; catching it catches everything Headstart raises on purpose."""

    exit_code = 1


class InputError(HeadstartError, ValueError):
    """What the user gave (a file, a flag, a column name) cannot be used."""

    exit_code = 2


class NotFound(InputError, FileNotFoundError):
    """Something named does not exist; the message offers near names."""

    __str__ = Exception.__str__  # OSError would print an errno


class DataError(InputError):
    """A fault inside a data file.

    `row` is the 1-based record number (the header is not counted) or, where no record could be formed, the 1-based
    line; `column` is its name.
    """

    def __init__(
        self,
        what: str,
        *,
        file: str | None = None,
        row: int | None = None,
        line: int | None = None,
        column: str | None = None,
        todo: str | None = None,
    ) -> None:
        self.file, self.row, self.line, self.column = file, row, line, column
        where = ", ".join(
            part
            for part in (
                file,
                f"line {line}" if line is not None else None,
                f"row {row}" if row is not None else None,
                f"column {column!r}" if column is not None else None,
            )
            if part
        )
        super().__init__((f"{where}: " if where else "") + what + (f" {todo}" if todo else ""))


class ContentError(DataError):
    """Some contents of a call cannot be read, a broken picture say; the others can.

    `faults` holds for each its place in the call, from 0, and the reason, without a full stop.
    """

    def __init__(self, faults: Sequence[tuple[int, str]]) -> None:
        self.faults = tuple(faults)
        first, why = self.faults[0]
        more = f" and {len(self.faults) - 1:,} others" if len(self.faults) > 1 else ""
        super().__init__(f"content number {first + 1} of the call{more} cannot be read: {why}.")


class Conflict(InputError):
    """What was asked does not go with what is there now."""


class ModelError(HeadstartError, ValueError):
    """A saved model cannot be trusted or read."""

    exit_code = 2


class MissingExtra(HeadstartError, ImportError):
    """An optional dependency is needed for what was asked."""

    exit_code = 2


class StorageError(HeadstartError, OSError):
    """The disk, the cache or a project folder refused a read or a write."""

    __str__ = Exception.__str__


class Overloaded(HeadstartError):
    """A server has too much to do. `retry`: after how many seconds to come again."""

    def __init__(self, what: str, retry: float) -> None:
        self.retry = retry
        super().__init__(what)


class Draining(HeadstartError):
    """A server is about to stop: it finishes what it accepted and takes nothing new."""


class TooLate(HeadstartError, TimeoutError):
    """Not answered before its deadline; nothing is computed for it any more."""

    __str__ = Exception.__str__


class Denied(HeadstartError, PermissionError):
    """No key, a wrong one (`status` 401), or one that may not do this (403)."""

    __str__ = Exception.__str__

    def __init__(self, what: str, status: int) -> None:
        self.status = status
        super().__init__(what)


class Unreachable(HeadstartError, ConnectionError):
    """No server answers at an address."""

    __str__ = Exception.__str__


def near(name: str, known: Iterable[str]) -> str:
    """Say which known names are near `name`: ' Did you mean ...?' or the list when it is short, else ''."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return " Did you mean " + " or ".join(repr(c) for c in close) + "?"
    if 0 < len(names) <= 8:
        return " There is " + ", ".join(repr(n) for n in names) + "."
    return ""
