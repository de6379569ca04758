"""An instant backbone for tests and demonstrations: hashed words and letter triples, added up with random signs.

The hashing trick (Weinberger et al. 2009, section 2), with four signed places a word instead of one. Texts that share
words are near one another; nothing else is known. It needs no weights and gives the same numbers in every process.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from headstart.backbone import Card, Contents, Portable, Tap, arithmetic
from headstart.errors import InputError

NAME = "fake"
WIDTH = 64
PLACES = 4
WORD = re.compile(r"\w+")


def grams(text: str) -> Iterator[str]:
    """The words of a text in lower case, and the triples of letters in each."""
    for word in WORD.findall(text.lower()):
        yield word
        padded = f"<{word}>"
        yield from (padded[i : i + 3] for i in range(len(padded) - 2))


@lru_cache(100_000)
def places(gram: str) -> tuple[tuple[int, float], ...]:
    """The channels a word or triple adds to, with signs; words weigh twice."""
    digest = hashlib.blake2b(gram.encode("utf-8", "surrogatepass"), digest_size=2 * PLACES).digest()
    weight = 1.0 if len(gram) == 3 else 2.0
    return tuple((digest[2 * i] % WIDTH, weight if digest[2 * i + 1] & 1 else -weight) for i in range(PLACES))


@dataclass(frozen=True)
class Fake:
    """The hashing backbone."""

    @property
    def card(self) -> Card:
        """What is known of it; reading it runs nothing."""
        return arithmetic(NAME, "text", WIDTH, "headstart fake backbone 1")

    @property
    def taps(self) -> tuple[Tap, ...]:
        """It cannot be cut."""
        return ()

    def at(self, cut: str) -> Fake:
        """Itself. Raises InputError for another cut than "top"."""
        if cut != "top":
            raise InputError(f"backbone {NAME!r} has only the cut top, not {cut}.")
        return self

    def portable(self) -> Portable:
        """Raises InputError: there is no network."""
        raise InputError(f"backbone {NAME!r} hashes words; it has no network that could be given away.")

    def encode(self, contents: Contents) -> NDArray[np.float32]:
        """Features of n texts, (n, 64) float32 of unit length; a text without words is all zeros. Raises InputError."""
        X = np.zeros((len(contents), WIDTH), np.float32)
        for i, text in enumerate(contents):
            if not isinstance(text, str):
                raise InputError(f"text number {i} of the call is a {type(text).__name__}, not a str.")
            for gram in grams(text):
                for channel, value in places(gram):
                    X[i, channel] += value
        X /= np.maximum(np.linalg.norm(X, axis=1, keepdims=True), np.float32(1e-12))
        return X
