"""How sure a figure is: 95 % intervals of shares, of anything else by bootstrap, and of differences.

Rows in one group (duplicates, one customer) count as far less than their number; everything here takes groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Z = 1.959963984540054  # of 95 %
BLOCKS = 2000


@dataclass(frozen=True)
class Proportion:
    """A share with its 95 % interval; `n` is the number of independent examples it is worth."""

    value: float
    low: float
    high: float
    n: float


@dataclass(frozen=True)
class Comparison:
    """How much more often A is right than B on the same examples, as shares of 1, with a 95 % interval."""

    difference: float
    low: float
    high: float
    tie: bool  # the interval holds 0: these examples do not tell them apart
    says: str


def wilson(share: float, n: float, z: float = Z) -> tuple[float, float]:
    """The 95 % interval of a share seen on n independent examples.

    Wilson (1927), widened by half of the continuity correction (1 / 4n a side): without it coverage falls to 89.5 % for
    shares near 1 (n = 37, share 0.985), with it to no less than 93.8 % for n from 20 to 1000 and shares from 0.5 to
    0.99, and unlike a bootstrap it says something sensible when all answers are right.
    """
    if n <= 0:
        return 0.0, 1.0
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(0.0, share * (1 - share) / n + z * z / (4 * n * n))) + 0.25 / n
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def proportion(
    hits: NDArray[Any], out_of: NDArray[Any] | None = None, *, groups: NDArray[np.integer] | None = None
) -> Proportion:
    """The share sum(hits) / sum(out_of) with its interval, where rows of a group, or what is inside a row, go together.

    hits, out_of: (n,), 0 <= hits <= out_of; out_of defaults to 1 a row. The interval is Wilson's at the effective
    number n / deff, where the design effect deff compares the variance between groups with that of independent
    examples (Kish 1965, section 8.2). One made-up group that is wrong throughout is added to both, so that with few
    errors deff stays near its worst case; with few groups Student's t takes the place of the normal quantile.
    """
    x: NDArray[Any] = np.asarray(hits, np.float64)
    m: NDArray[Any] = np.ones(len(x)) if out_of is None else np.asarray(out_of, np.float64)
    if groups is not None and len(x):
        code = np.unique(groups, return_inverse=True)[1]
        x, m = np.bincount(code, x), np.bincount(code, m)
    x, m = x[m > 0], m[m > 0]
    n = m.sum()
    if n == 0:
        return Proportion(float("nan"), 0.0, 1.0, 0.0)
    share = float(x.sum() / n)
    if (m == 1).all():
        return Proportion(share, *wilson(share, float(n)), float(n))
    size = (m * m).sum() / n  # of the group a hit finds itself in, on average
    deff = (((x - share * m) ** 2).sum() + size**2) / (n * share * (1 - share) + size)
    effective = float(n / min(max(deff, 1.0), size))
    return Proportion(share, *wilson(share, effective, _t(len(m) - 1)), effective)


def blocks(n: int, *, groups: NDArray[np.integer] | None = None, seed: int = 0) -> NDArray[np.int64]:
    """Code (n,) of the block each row is resampled with: its group or, where these are more than 2,000, one of 2,000
    random handfuls of groups. Sums over independent groups keep their variance under this, and the cost is bounded.
    """
    code = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1].astype(np.int64)
    count = int(code.max(initial=-1)) + 1
    if count <= BLOCKS:
        return code
    return (np.random.default_rng(seed).permutation(count) % BLOCKS)[code]


def interval(
    stat: Callable[[Floats], Floats], sums: NDArray[Any], *, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[Floats, Floats]:
    """Bootstrap interval (low, high) of stat(totals).

    sums: (b, m), the additive quantities of each block of `blocks`. stat takes (draws, m) resampled totals and returns
    (draws,) or (draws, j). Percentile interval, widened for small b as in Hesterberg (2015, section 5.3).
    """
    b = len(sums)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(b, size=(draws, b)) + np.arange(draws)[:, None] * b
    times = np.bincount(drawn.ravel(), minlength=draws * b).reshape(draws, b)
    found = stat(times.astype(np.float64) @ sums)
    tail = 1 - NormalDist().cdf(math.sqrt(b / max(1, b - 1)) * _t(b - 1, level))
    low, high = np.quantile(found, [tail, 1 - tail], axis=0)
    return low, high


def compare(
    right_a: NDArray[Any],
    right_b: NDArray[Any],
    *,
    groups: NDArray[np.integer] | None = None,
    names: tuple[str, str] = ("A", "B"),
) -> Comparison:
    """Compare two sets of answers to the same n examples.

    right_a, right_b: (n,) 1 or True where right (or the share of repeats in which right). Interval of Bonett and Price
    (2012): Wald after adding one example that only A and one that only B has right, which holds for few disagreements.
    """
    d: NDArray[Any] = np.asarray(right_a, np.float64) - np.asarray(right_b, np.float64)
    n = len(d)
    if n == 0:
        return Comparison(0.0, -1.0, 1.0, True, f"There are no examples to compare {names[0]} and {names[1]} on.")
    mean, size, units = float(d.mean()), 1.0, n
    if groups is not None:
        _, code, m = np.unique(groups, return_inverse=True, return_counts=True)
        d, size, units = np.bincount(code, d), float((m * m).sum() / n), len(m)
    total = n + 2 * size
    centre = d.sum() / total
    variance = max(0.0, ((d**2).sum() + 2 * size**2) / total - size * centre**2) / total
    half = (Z if size == 1 else _t(units - 1)) * math.sqrt(variance)
    low, high = max(-1.0, float(centre - half)), min(1.0, float(centre + half))
    tie = low <= 0 <= high
    better, worse = names if mean >= 0 else names[::-1]
    if tie:
        says = f"{n:,} examples are too few to tell {better} and {worse} apart: "
        says += "they are equally often right" if mean == 0 else f"{better} is {_points(abs(mean))} better"
        says += f", but anything from {100 * low:+.1f} to {100 * high:+.1f} fits ({names[0]} minus {names[1]})."
        if abs(mean) > 0 and (needed := n * (half / abs(mean)) ** 2) < 100 * n:
            says += f" It would take about {_round(needed):,} examples."
    else:
        ends = sorted((abs(low), abs(high)))
        says = f"{better} is {_points(abs(mean))} better than {worse} ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})."
    return Comparison(mean, low, high, tie, says)


def _t(df: int, level: float = 0.95) -> float:
    """Quantile of Student's t, two-sided (Abramowitz and Stegun 26.7.5), exact for 1 and 2 degrees of freedom."""
    tail = (1 + level) / 2
    if df <= 1:
        return math.tan(math.pi * (tail - 0.5))
    if df == 2:
        return (2 * tail - 1) * math.sqrt(2 / (4 * tail * (1 - tail)))
    z = NormalDist().inv_cdf(tail)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(z + sum(term / df ** (i + 1) for i, term in enumerate(terms)))


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def _round(number: float) -> int:
    """Two leading digits."""
    digits = max(0, len(str(int(number))) - 2)
    return int(round(number / 10**digits) * 10**digits)
