"""Text: its canonical bytes are its UTF-8, nothing stripped and nothing normalised.

What a tokenizer does to a text is the backbone's business and part of its fingerprint; two texts are one example only
if they are the same characters.
"""

from __future__ import annotations

from collections.abc import Sequence

from headstart.errors import DataError

name = "text"

PROBE = 200  # characters of a text that is kept in a model


def canonical(contents: Sequence[object]) -> list[bytes]:
    """UTF-8 of n texts. Raises DataError with the row for what is no text, or holds half of a surrogate pair."""
    found = []
    for row, text in enumerate(contents, 1):
        if not isinstance(text, str):
            raise DataError(f"a {type(text).__name__} is not a text.", row=row)
        try:
            found.append(text.encode("utf-8"))
        except UnicodeEncodeError as error:
            raise DataError(
                f"half of a surrogate pair (U+{ord(text[error.start]):04X}) is not a character.", row=row
            ) from None
    return found


def shown(content: object) -> str | None:
    """None: a text is shown as it is."""
    del content
    return None


def probe(content: object) -> str:
    """The beginning of a text. Raises ValueError for what is none."""
    if not isinstance(content, str):
        raise ValueError(f"a {type(content).__name__} is not a text")
    return content[:PROBE]


def unprobe(kept: str) -> str:
    """The text that `probe` kept. Raises ValueError for what is none."""
    if not isinstance(kept, str):
        raise ValueError(f"a {type(kept).__name__} is not a text")
    return kept
