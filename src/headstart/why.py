"""Why an answer: the words, or the regions of a picture, whose removal changes it most (occlusion).

Zeiler & Fergus 2014, Sec. 2.1. For words the same idea on runs of words: a long text costs at most `limit` extra inputs.
For pictures whoever knows the modality covers the regions; here are only the answers to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"\S+")
_PLACES = (  # names of the ninths of a picture, from the upper left
    ("upper left", "top", "upper right"),
    ("left", "centre", "right"),
    ("lower left", "bottom", "lower right"),
)


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


@dataclass(frozen=True)
class Region:
    """A rectangle of a picture and how much the answer loses when it is covered."""

    left: float  # edges as shares of the picture's width and height, 0 to 1, from the upper left
    top: float
    right: float
    bottom: float
    drop: float  # probability (or value) of the answer with the whole picture, minus with this region covered


def regions(
    boxes: Sequence[tuple[float, float, float, float]], P: NDArray[np.floating[Any]], column: int, *, top: int = 5
) -> list[Region]:
    """The `top` regions of a picture that hold up the answer in column `column` most, strongest first.

    boxes: m rectangles (left, top, right, bottom) in shares of the picture. P: (1 + m, c) answers, row 0 for the whole
    picture, row 1 + i with box i covered. Regions whose cover leaves the answer as it is or strengthens it are left out;
    of equal ones the first comes first. Neighbours stay apart even if both matter. ValueError: P has another shape.
    """
    if P.ndim != 2 or len(P) != 1 + len(boxes):
        raise ValueError(f"P has shape {P.shape}; {len(boxes)} boxes need ({1 + len(boxes)}, c).")
    drops = P[0, column] - P[1:, column]  # (m,)
    order = np.argsort(-drops, kind="stable")[:top]
    return [Region(*boxes[int(i)], float(drops[i])) for i in order if drops[i] > 0]


def place(region: Region) -> str:
    """Where the middle of a region lies, in words: "upper left", "top", "centre", "right", ..., ninths of the picture."""
    across, down = (region.left + region.right) / 2, (region.top + region.bottom) / 2
    row, column = (min(2, max(0, int(3 * share))) for share in (down, across))
    return _PLACES[row][column]
