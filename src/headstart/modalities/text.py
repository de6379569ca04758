"""Text: its canonical bytes are its UTF-8, nothing stripped and nothing normalised.

What a tokenizer does to a text is the backbone's business and part of its fingerprint; two texts are one example only
if they are the same characters.
"""

from __future__ import annotations

from collections.abc import Sequence

from headstart.errors import DataError

name = "text"


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
