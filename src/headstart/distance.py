"""How far data is from what a backbone knows. INTERFACE ONLY FOR NOW (signatures stay)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Agreement:
    """How often an example's nearest neighbours carry its label, with a 95 % interval and what chance gives."""

    share: float
    low: float
    high: float
    chance: float
    n: int  # rows looked at
    classes: int


@dataclass(frozen=True)
class Fragments:
    """How finely a tokeniser breaks texts up."""

    per_word: float  # tokens a word
    unknown: float  # share of tokens that the tokeniser does not know
    texts: int


@dataclass(frozen=True)
class Verdict:
    """level: near | far | too far; sentence: why, for a reader."""

    level: str
    sentence: str


def neighbour_agreement(X: NDArray[Any], y: NDArray[Any], *, groups: NDArray[Any] | None = None, seed: int = 0) -> Agreement:
    """X (n, d), y (n,) codes."""
    raise NotImplementedError


def effective_rank(X: NDArray[Any]) -> tuple[float, float]:
    """(Roy and Vetterli's effective rank, participation ratio)."""
    raise NotImplementedError


def fragments(tokens: Sequence[int], words: Sequence[int], unknown: Sequence[int]) -> Fragments:
    """Counts a text."""
    raise NotImplementedError


def verdict(
    agreement: Mapping[str, Agreement] | None = None,
    rank: float | None = None,
    fragments: Fragments | None = None,
    *,
    modality: str = "text",
    name: str = "the base",
) -> Verdict:
    """All that is known -> a level and a sentence."""
    raise NotImplementedError
