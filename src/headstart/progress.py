"""How a long step says how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]  # what is done, how much of it, of how much


def silent(what: str, done: int, total: int | None) -> None:
    """Say nothing."""
