"""How far data is from what a backbone knows: before anything is trained, and in a plain sentence.

Four measures, each on arrays:

- `neighbour_agreement`: how often the nearest other examples carry the same label, where chance would give `chance`;
- `alike`: the mean cosine between two examples;
- `fragments`: how many tokens a tokeniser needs a word. Language it was made for comes in whole words.

`verdict` puts them together. Its thresholds were set by what was measured on 600 texts a set with MiniLM (Banking77 with
30 labels, SMS spam, film reviews, medical abstracts, each of at most 400 letters), as they are and made strange, and on
150 pictures with two MobileNets (TrashNet as it is, and noise under its labels). `lift` is agreement beyond chance:

    texts                    tokens a word  unknown    lift, block 0     lift, top       alike, top   participation
    as they are                 1.2 - 1.5    0         .11 - .91       .15 - .82       .08 - .23        30 - 99
    reversed                    2.3 - 2.6    0         .08 - .47       .02 - .48       .45 - .48        35 - 44
    letters substituted         2.6 - 4.3    0         .03 - .79       .03 - .81       .55 - .86        33 - 56
    random letters               11 - 14     0        -.02 - .16      -.00 - .02       .53 - .76        51 - 61
    base64                      3.5 - 36   0 - .28    -.05 - .21      -.02 - .21       .49 - .98         2 - 11
    hexadecimal                   6 - 30   .01 - .15  -.01 - .10      -.01 - .05       .59 - .86           1.3
    pictures                                                           lift, top       alike, top   participation
    as they are                                                        .58 - .61       .38 - .49        40 - 50
    pixels in another order                                            .17 - .32       .77 - .82         6 - 8
    noise, fine and coarse                                            -.02 - .00       .87 - .98        16 - 38
    noise tinted by label                                              .55 - 1.0       .87 - .97         4 - 8

So agreement alone is no proof of nearness: substituted texts that repeat the same words keep half of it, and even
base64 keeps some. Fragments give these away. And agreement at chance is no proof of distance: the labels may be such
that nothing in the content says them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 5
BROKEN, SHATTERED = 1.9, 2.4  # tokens a word: a language half known; none that the tokeniser was made for
STRANGE = 0.05  # share of unknown tokens
LITTLE = 0.1  # lift below which neighbours say little
SAME = 0.85  # mean cosine above which pictures look alike to a network
SPACELESS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # kana and ideographs: about a word each
LOOSE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer: about four letters a word
WORD = re.compile(rf"[{SPACELESS}]|[{LOOSE}]{{1,4}}|[^\W{SPACELESS}{LOOSE}]+")
MOST = 4_000  # rows looked at; of more an even sample
BLOCK = 1024


@dataclass(frozen=True)
class Agreement:
    """How often an example's nearest neighbours carry its label, with a 95 % interval, and what chance gives."""

    share: float
    low: float
    high: float
    chance: float
    n: int  # rows looked at
    classes: int

    @property
    def lift(self) -> float:
        """The share beyond chance, of what there is beyond chance: 0 at chance, 1 where neighbours always agree."""
        return (self.share - self.chance) / max(1 - self.chance, 1e-12)

    @property
    def above(self) -> bool:
        """Whether the whole interval lies above chance."""
        return self.low > self.chance


@dataclass(frozen=True)
class Fragments:
    """How finely a tokeniser breaks texts up, over all texts."""

    per_word: float  # tokens a word
    unknown: float  # share of tokens that the tokeniser does not know
    texts: int


@dataclass(frozen=True)
class Verdict:
    """level: near | far | too far, or unknown where there is too little to say; sentence: why, for a reader."""

    level: str
    sentence: str


def neighbour_agreement(
    X: NDArray[Any], y: NDArray[Any], *, groups: NDArray[Any] | None = None, k: int = NEIGHBOURS, seed: int = 0
) -> Agreement:
    """How often the k nearest others by cosine of centred features carry an example's label.

    X: (n, d). y: (n,) codes, -1 unlabelled (left out). groups: (n,) codes; rows of one group (duplicates, one customer) are
    no neighbours of one another, and neither are rows with equal features. k is at most the size of the smallest class
    but one, where that is 1 or more. Of more than 4,000 rows an even sample is looked at. `chance` is what neighbours
    drawn at random from other rows would give. Raises ValueError on arrays that do not fit, and below 2 labelled rows.
    """
    X, y = np.asarray(X, np.float32), np.asarray(y)
    if X.ndim != 2 or y.shape != (len(X),) or y.dtype.kind not in "iu":
        raise ValueError(f"X {X.shape} and codes y {y.shape} {y.dtype} do not fit")
    if not np.isfinite(X).all():
        raise ValueError("X has values that are not finite")
    rows = np.flatnonzero(y >= 0)
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:MOST])
    X, y = X[rows], y[rows]
    n = len(X)
    if n < 2:
        raise ValueError(f"{n} labelled rows: at least 2 are needed")
    group = np.arange(n) if groups is None else np.unique(np.asarray(groups)[rows], return_inverse=True)[1]
    counts = np.unique(y, return_counts=True)[1]
    k = max(1, min(k, n - 1, int(counts.min()) - 1))
    Z = X - X.mean(0)
    lengths = np.linalg.norm(Z, axis=1, keepdims=True)
    Z /= np.maximum(lengths, np.float32(1e-12))
    middle = lengths <= 1e-6 * float(np.abs(X).max())  # (n, 1) rows with no direction of their own: they are equal
    hits, seen = np.zeros(n), np.zeros(n)
    for low in range(0, n, BLOCK):
        part = slice(low, low + BLOCK)
        S = Z[part] @ Z.T
        S[S > 1 - 1e-6] = -np.inf  # itself, and what is equal to it
        S[(group[part][:, None] == group) | (middle[part] & middle.T)] = -np.inf
        best = np.argpartition(-S, k - 1, axis=1)[:, :k]
        real = np.take_along_axis(S, best, 1) > -np.inf
        hits[part] = ((y[best] == y[part, None]) & real).sum(1)
        seen[part] = real.sum(1)
    chance = float((counts * (counts - 1)).sum() / (n * (n - 1)))
    held = seen > 0
    if not held.any():  # all rows are equal: nobody has a neighbour, and nothing is known beyond chance
        return Agreement(chance, 0.0, 1.0, chance, n, len(counts))
    share = float((hits[held] / seen[held]).mean())
    low_end, high_end = _interval(hits[held] / seen[held], share)
    return Agreement(share, low_end, high_end, chance, n, len(counts))


def _interval(values: NDArray[np.float64], share: float) -> tuple[float, float]:
    """95 % interval of a mean of shares: Wilson (1927) at the number of all-or-nothing rows of the same variance, halved.

    Halved, for neighbours are often so of one another, and then one agreement is counted twice: without it the interval
    held chance in 78 % of draws of random labels.
    """
    n, z = len(values), 1.959963984540054
    variance = float(values.var())
    worth = (n if variance <= 0 else max(1.0, n * share * (1 - share) / variance)) / 2
    middle = (share + z * z / (2 * worth)) / (1 + z * z / worth)
    half = z / (1 + z * z / worth) * math.sqrt(share * (1 - share) / worth + z * z / (4 * worth * worth))
    return max(0.0, middle - half), min(1.0, middle + half)


def alike(X: NDArray[Any]) -> float:
    """The mean cosine between two different rows of X (n, d); 1 with fewer than two. Raises ValueError."""
    X = np.asarray(X, np.float64)
    if X.ndim != 2 or not np.isfinite(X).all():
        raise ValueError(f"X must be finite and (n, d), not {X.shape}")
    n = len(X)
    if n < 2:
        return 1.0
    Z = X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12)
    return float(((Z.sum(0) ** 2).sum() - (Z**2).sum()) / (n * (n - 1)))


def words(text: str) -> int:
    """How many words a text has: runs of letters and digits, and in scripts without spaces about as many as it may be."""
    return sum(1 for _ in WORD.finditer(text))


def fragments(tokens: Sequence[int], words: Sequence[int], unknown: Sequence[int]) -> Fragments:
    """Tokens a word and the share of unknown tokens, over all texts.

    tokens, words, unknown: counts a text, tokens without those that mark beginning and end. A word is a run of letters
    and digits (\\w+). Raises ValueError on counts that do not fit.
    """
    t, w, u = (np.asarray(counts, np.float64) for counts in (tokens, words, unknown))
    if not t.shape == w.shape == u.shape or t.ndim != 1 or (np.concatenate([t, w, u]) < 0).any():
        raise ValueError("tokens, words and unknown must be counts of the same texts, 0 or more")
    if (u > t).any():
        raise ValueError("a text has more unknown tokens than tokens")
    return Fragments(float(t.sum() / max(w.sum(), 1)), float(u.sum() / max(t.sum(), 1)), len(t))


def verdict(
    agreement: Mapping[str, Agreement] | None = None,
    *,
    fragments: Fragments | None = None,
    alike: float | None = None,
    modality: str = "text",
    name: str = "the base",
) -> Verdict:
    """How far the data is from what a backbone knows, from whatever is known.

    agreement: by tap, in the order of the network. alike: of the features at its top. The level is

    - too far, where words fall to pieces (fragments), or where all pictures look alike and neighbours agree by chance;
    - far, where words break, or neighbours say little or nothing about the labels;
    - near otherwise, and unknown where nothing was measured, or on too few examples to tell.
    """
    things = "texts" if modality == "text" else "pictures"
    best, said = None, ""
    if agreement:
        tap, best = max(agreement.items(), key=lambda item: item[1].lift)
        where = f" at tap {tap}" if len(agreement) > 1 else ""
        said = (
            f"the nearest other examples carry the same label in {best.share:.0%} of cases{where} "
            f"({best.low:.0%} to {best.high:.0%}), where chance gives {best.chance:.0%}"
        )
    if fragments is not None and (fragments.per_word >= SHATTERED or fragments.unknown >= STRANGE):
        why = f"its tokeniser breaks a word of these texts into {fragments.per_word:.1f} fragments"
        if fragments.unknown >= STRANGE:
            why += f" and does not know {fragments.unknown:.0%} of them"
        more = ""
        if best is not None:
            more = f" Neighbours: {said}."
            if best.above:
                more += " Repeated fragments are enough for that, and the baseline on words sees them too."
        return Verdict(
            "too far",
            f"{name} is too far from these texts: {why}; of a language that it knows it is 1.2 to 1.5.{more} "
            "Use a base trained on such texts, or the baseline on words.",
        )
    if best is None:
        if fragments is None:
            return Verdict("unknown", f"How far {name} is from these {things} was not measured.")
        broken = fragments.per_word >= BROKEN
        return Verdict("far" if broken else "near", f"{_tokens(fragments, name)}.")
    broken = fragments is not None and fragments.per_word >= BROKEN
    language = "" if fragments is None else f" {_tokens(fragments, name)}."
    if best.above and best.lift >= LITTLE:
        level = "far" if broken else "near"
        opening = f"{name} is {'rather far from' if broken else 'near to'} these {things}"
        return Verdict(level, f"{opening}: {said}.{language}")
    if best.high - best.chance > max(2 * LITTLE * (1 - best.chance), LITTLE) and not best.above:
        return Verdict(
            "unknown",
            f"{best.n:,} labelled examples are too few to say how far {name} is from these {things}: {said}.{language}",
        )
    if not best.above and alike is not None and modality != "text" and alike >= SAME:
        return Verdict(
            "too far",
            f"{name} is too far from these {things}: to it they look alike (mean cosine {alike:.2f}), and {said}. "
            "Use a base trained on such pictures, or the baseline on colours.",
        )
    if best.above:
        return Verdict(
            "far",
            f"{name} is far from these {things}, or these labels are hard to tell: {said}, which is little.{language}",
        )
    both = (
        f"Either {name} is too far from these {things}, or nothing in the {things} says which label they carry: "
        "neighbours cannot tell the two apart. Look at a few examples: could a person label them?"
    )
    return Verdict("far", f"{said[0].upper()}{said[1:]}: no more than chance. {both}{language}")


def _tokens(found: Fragments, name: str) -> str:
    """What the fragments say, when they are not too many."""
    if found.per_word >= BROKEN:
        return f"The tokeniser of {name} needs {found.per_word:.1f} tokens a word, which is many: it knows this language badly"
    return f"The tokeniser of {name} needs {found.per_word:.1f} tokens a word, as with language that it knows"
