"""What a modality is: how one kind of content becomes canonical bytes, and how it is shown to a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Modality(Protocol):
    """One kind of content: text, image. Each is a module in `modalities/`, found by name with `modalities.load`."""

    name: str

    def canonical(self, contents: Sequence[object]) -> list[bytes]:
        """The bytes that decide an example's key, one per content. Equal contents give equal bytes."""
        ...

    def shown(self, content: object) -> str | None:
        """A small picture of the content as a data URI, or None where the content is shown as it is (texts)."""
        ...

    def probe(self, content: object) -> str:
        """The content, or a smaller one like it, as text a model can keep in JSON; nothing but what a network sees."""
        ...

    def unprobe(self, kept: str) -> str | bytes:
        """The content that `probe` kept. Raises ValueError."""
        ...
