"""Why an answer: the words whose removal changes it most, found by leaving them out (occlusion).

Zeiler & Fergus 2014, Sec. 2.1, on words instead of image patches. Long texts are taken in runs of words, so that a text
costs at most `limit` extra inputs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Weight:
    """A piece of the text and how much the answer loses without it."""

    text: str
    start: int  # character offsets into the text
    end: int
    drop: float  # probability (or value) of the answer with the whole text, minus without this piece


def pieces(text: str, limit: int = 64) -> list[tuple[int, int]]:
    """Character spans of the words of a text, or of even runs of words when there are more than `limit`."""
    words = [match.span() for match in _WORD.finditer(text)]
    run = max(1, -(-len(words) // limit))
    return [(words[i][0], words[min(i + run, len(words)) - 1][1]) for i in range(0, len(words), run)]


def words(
    text: str, column: int, answer: Callable[[Sequence[str]], NDArray[np.float32]], *, top: int = 5
) -> list[Weight]:
    """The `top` pieces of `text` that hold up the answer in column `column` most, strongest first.

    `answer` maps m texts to (m, c) probabilities. A text of one word has nothing that could be left out.
    """
    spans = pieces(text)
    if len(spans) < 2:
        return []
    without = [text[:start] + text[end:].lstrip() for start, end in spans]
    P = answer([text, *without])[:, column]
    drops = P[0] - P[1:]
    order = np.argsort(-drops, kind="stable")[:top]
    return [Weight(text[slice(*spans[i])], spans[i][0], spans[i][1], float(drops[i])) for i in order if drops[i] > 0]
