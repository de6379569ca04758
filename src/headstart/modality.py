"""What a modality is: how one kind of content becomes canonical bytes, and how it is shown to a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Modality(Protocol):
    """One kind of content: text, image, table row, series."""

    name: str

    def canonical(self, contents: Sequence[object]) -> list[bytes]:
        """The bytes that decide an example's key, one per content. Equal contents give equal bytes."""
        ...
