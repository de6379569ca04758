"""Which backbone, cut where: every fitting candidate tried on the user's own data, cheap ones and simple ones included.

A backbone runs once over a sample for all of its cuts. Every cut is judged by cross-fitted heads; the promising half
goes on to a larger sample (successive halving, Jamieson and Talwalkar 2016, section 3). The recommended one is the
cheapest among those that the examples do not tell apart from the best, and that lose no more than a point to it.

Letters: n examples, d feature width, c classes. X (n, d), T (n, c).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import backbones, evaluation, transferability
from headstart.backbone import Backbone, parts
from headstart.dataset import Dataset
from headstart.domain import far
from headstart.embedding import readable
from headstart.errors import HeadstartError, InputError
from headstart.folds import folds, tied
from headstart.head import CLASSIFICATION, REGRESSION
from headstart.licence import refused
from headstart.selection import judged

FIRST, MOST = 400, 4_000  # rows of the first sample, at least, and of the last, at most
LEAST = 200  # rows, however short the time
ALIKE = 0.01  # what a cheaper candidate may lose to the best, at most
TIMED = 12  # contents the cost of one is measured on
FILTERED = 16  # cuts of one backbone that are judged by heads; of more, those LogME likes best

Floats = NDArray[np.float64]
Say = Callable[[str], None]
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Limits:
    """What a candidate must keep to; None is no limit."""

    licence: str = "any"  # any, commercial, or a list
    size: float | None = None  # megabytes below the cut
    latency: float | None = None  # milliseconds an example
    budget: float | None = None  # seconds for the whole choice


@dataclass(frozen=True)
class Candidate:
    """A backbone at one cut, and what was found of it on the last sample it was judged on."""

    backbone: Backbone
    simple: bool  # needs no network
    operations: float = 1.0  # share of the network's operations below the cut
    right: Floats = field(default_factory=lambda: np.zeros(0))  # (n,)
    groups: NDArray[np.int64] | None = None  # (n,)
    logme: float | None = None
    rounds: int = 0

    @property
    def name(self) -> str:
        """Backbone and cut, in words."""
        card = self.backbone.card
        return card.name if self.simple else f"{card.name} cut {card.cut}"

    @property
    def merit(self) -> float:
        """The mean of how right it is."""
        held = np.isfinite(self.right)
        return float(self.right[held].mean()) if held.any() else -np.inf

    def behind(self, best: Candidate) -> tuple[float, float]:
        """How much the best is better on the same rows, and the standard error of that."""
        d = best.right - self.right
        d = d[np.isfinite(d)]
        return float(d.mean()), float(d.std(ddof=1) / np.sqrt(len(d))) if len(d) > 1 else np.inf


def cuts(base: Backbone) -> list[str]:
    """The cuts of a backbone that are tried: its usual one, and the same at every tap."""
    usual, names = base.card.cut, [tap.name for tap in base.taps]
    kinds = ["max" if part.startswith("max") else "" for part in usual.split("+") if part != "top"] or [""]
    found = ["+".join(kind + name for kind in kinds) for name in names]
    return found if usual in found else [*found, usual]


def suitable(modality: str, names: Sequence[str] | None, limits: Limits) -> tuple[list[Backbone], list[dict[str, str]]]:
    """The backbones of a modality that keep to licence and size, and those left out with the reason.

    names: those asked for; None for all that are built in or installed. The one that needs no network is always among
    them. Raises NotFound or InputError for a name that cannot be used.
    """
    simple = backbones.NO_NETWORK[modality]
    usual = [backbones.USUAL[modality]] if modality in backbones.USUAL else []
    kept, out = [], []
    for name in dict.fromkeys([*(names or [*usual, *backbones.installed()]), simple]):
        try:
            base = backbones.load(name)
        except HeadstartError as error:
            if names:
                raise
            out.append({"backbone": name, "why": str(error)})
            continue
        if base.card.modality != modality:
            if names:
                raise InputError(f"base model {name} is for {base.card.modality}; these examples are {modality}.")
            continue
        why = None if name == simple else refused(base.card.licence, limits.licence)
        smallest = min(megabytes(base.at(cut)) for cut in cuts(base))
        if why is None and limits.size is not None and smallest > limits.size:
            why = f"even at its shallowest cut it has {smallest:,.0f} MB"
        if why is None:
            kept.append(base)
        else:
            out.append({"backbone": name, "why": why})
    return kept, out


def megabytes(base: Backbone) -> float:
    """The weights below the cut."""
    return (base.card.size or 0) / 1e6


def select(
    data: Dataset,
    bases: Sequence[Backbone],
    limits: Limits,
    *,
    seed: int = 0,
    say: Say = lambda line: None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Try every base at every cut on n labelled examples.

    Returns {data, modality, n, candidates: [{backbone, cut, accuracy, low, high, mb, ms, ...}], recommended, excluded,
    warnings, seconds}. Raises InputError when nothing is left to choose from.
    """
    start = time.perf_counter()
    contents = data.raw(spread(data, TIMED, seed))
    speed = {base.card.fingerprint: milliseconds(base, contents) for base in bases}  # at the usual cut
    everything = [one for base in bases for one in _candidates(base, limits, speed[base.card.fingerprint])]
    if not everything:
        raise InputError("no candidate keeps to the limits of size and latency.")
    first, last, needed = _sizes(len(data), sum(speed.values()) / 1000, limits.budget)
    say(
        f"{len(everything)} candidates of {len(bases)} bases on {first:,} and then {last:,} of {len(data):,} examples: "
        f"about {needed:.0f} s"
    )
    running, out, warnings = everything, [], []
    for size in dict.fromkeys((first, last)):
        part = data.take(spread(data, size, seed))
        running, distances = _judged(running, part, seed, progress)
        if size != last:
            running, dropped = _promising(running)
            out += dropped
    costs = {one.name: milliseconds(one.backbone, contents) for one in running}
    if limits.latency is not None:
        out += [one for one in running if costs[one.name] > limits.latency]
        running = [one for one in running if costs[one.name] <= limits.latency]
    if not running:
        raise InputError(f"no candidate answers within {limits.latency} ms here.")
    best = max(running, key=lambda one: one.merit)
    chosen = _cheapest_alike(running, best, costs)
    if distances.get(chosen.backbone.card.name, ("", ""))[0] == "too far":
        warnings.append(distances[chosen.backbone.card.name][1])
    rows = []
    for one in [*sorted(running, key=lambda one: -one.merit), *sorted(out, key=lambda one: -one.merit)]:
        ms = costs.get(one.name, speed_at(one, speed, bases))
        level, sentence = distances.get(one.backbone.card.name, ("", ""))
        rows.append(_row(one, data.task, ms, one.name in costs) | {"distance": level, "note": sentence})
    where = next(i for i, one in enumerate(rows) if (one["backbone"], one["cut"]) == _key(chosen))
    return {
        "data": data.name, "modality": data.modality, "task": data.task, "n": len(data), "candidates": rows,
        "recommended": {**rows[where], "why": _why(chosen, best, running, costs)}, "excluded": [], "warnings": warnings,
        "seconds": round(time.perf_counter() - start, 2),
    }  # fmt: skip


def _key(one: Candidate) -> tuple[str, str]:
    return one.backbone.card.name, one.backbone.card.cut


def _candidates(base: Backbone, limits: Limits, ms: float) -> list[Candidate]:
    """The cuts of one base that keep to the size and, as far as can be told from the usual cut's time, the latency."""
    shares = {tap.name: tap.operations for tap in base.taps}
    simple = base.card.name in backbones.NO_NETWORK.values()
    found = []
    for cut in cuts(base):
        share = shares.get(cut.split("+")[-1].removeprefix("max"), 1.0)
        one = Candidate(base.at(cut), simple, share)
        small = limits.size is None or megabytes(one.backbone) <= limits.size
        quick = limits.latency is None or 0.5 * ms * share <= limits.latency
        if small and quick:
            found.append(one)
    return found


def _sizes(n: int, seconds: float, budget: float | None) -> tuple[int, int, float]:
    """Rows of the first and the last sample, and the seconds both will take; seconds: of one row through every base."""
    last = min(n, MOST)
    first = min(last, max(FIRST, 3 * last // 8))
    needed = seconds * (first + 0.6 * (last - first)) * 1.5 + 3  # half of the time goes to heads
    if budget is not None and needed > budget:
        share = max(0.05, budget / needed)
        first, last = max(min(n, LEAST), int(first * share)), max(min(n, LEAST), int(last * share))
        needed = seconds * (first + 0.6 * (last - first)) * 1.5 + 3
    return first, max(first, last), needed


def spread(data: Dataset, size: int, seed: int) -> NDArray[np.int64]:
    """Rows of a sample with every class in its proportion, (size,) in rising order; a smaller one lies in a larger."""
    rng = np.random.default_rng(seed)
    place = rng.random(len(data))
    if data.task == CLASSIFICATION:
        order = np.lexsort((place, data.y))
        counts = np.bincount(data.y, minlength=1)
        rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        shift = rng.random(len(counts))
        place[order] = (rank + shift[data.y[order]]) / counts[data.y[order]]
    return np.sort(np.argsort(place, kind="stable")[:size])


def _judged(
    running: Sequence[Candidate], part: Dataset, seed: int, progress: Progress
) -> tuple[list[Candidate], dict[str, tuple[str, str]]]:
    """The candidates with how right each is on the rows of `part`, and how far each base is from them."""
    target = part.y if part.task == CLASSIFICATION else part.T
    found, distances = [], {}
    for name in dict.fromkeys(one.backbone.card.name for one in running):
        mine = [one for one in running if one.backbone.card.name == name]
        wide = mine[0].backbone.at("+".join(dict.fromkeys("+".join(one.backbone.card.cut for one in mine).split("+"))))
        rows, X = readable(part, wide, progress=partial(progress, f"{name}: embedding"))
        kept = np.flatnonzero(np.isin(part.rows, rows.rows))
        groups = tied(*(() if rows.group is None else (rows.group,)), keys=rows.keys)
        dealt = folds(target[kept], groups=groups, seed=seed)[0]
        pieces, T = parts(X, wide.card), rows.targets()
        features = {one.name: _joined(one, pieces) for one in mine}
        liked = _filtered(mine, features, rows)
        for done, one in enumerate(liked):
            right = np.full(len(part), np.nan)
            right[kept], _ = judged(features[one.name], T, task=rows.task, folds=dealt)
            tie = np.full(len(part), -1, np.int64)
            tie[kept] = groups
            found.append(replace(one, right=right, groups=tie, rounds=one.rounds + 1))
            progress(f"{name}: heads", done + 1, len(liked))
        distances[name] = far(mine[-1].backbone, rows, {one.backbone.card.cut: features[one.name] for one in liked})
    return found, distances


def _joined(one: Candidate, pieces: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """The features of one cut out of those of all."""
    names = one.backbone.card.cut.split("+")
    return np.asarray(np.concatenate([pieces[name] for name in names], axis=1) / np.sqrt(len(names)), np.float32)


def _filtered(mine: list[Candidate], features: dict[str, NDArray[np.float32]], rows: Dataset) -> list[Candidate]:
    """The candidates with their LogME; of very many cuts those it likes best."""
    if rows.task not in (CLASSIFICATION, REGRESSION):
        return mine
    y = rows.y if rows.task == CLASSIFICATION else rows.T[:, 0]
    scored = [replace(one, logme=transferability.logme(features[one.name], y)) for one in mine]
    if len(scored) <= FILTERED:
        return scored
    best = sorted(scored, key=lambda one: -(one.logme or 0.0))[:FILTERED]
    return [one for one in scored if one in best or one is scored[-1]]


def _promising(running: list[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """The better half, whatever may still be as good as the best, and what needs no network; and the others."""
    best = max(running, key=lambda one: one.merit)
    ranked = sorted(running, key=lambda one: -one.merit)
    better = {id(one) for one in ranked[: max(2, (len(ranked) + 1) // 2)]}
    kept: list[Candidate] = []
    dropped: list[Candidate] = []
    for one in running:
        loss, noise = one.behind(best)
        close = loss <= 2 * noise
        (kept if one.simple or (id(one) in better and loss <= 4 * noise) or close else dropped).append(one)
    return kept, dropped


def milliseconds(base: Backbone, contents: Sequence[Any]) -> float:
    """The median time of one content alone, after one that was not counted."""
    base.encode(contents[:1])
    seconds = []
    for content in contents:
        start = time.perf_counter()
        base.encode([content])
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds))


def speed_at(one: Candidate, speed: dict[str, float], bases: Sequence[Backbone]) -> float:
    """The time of a cut that was not measured, reckoned from that of the base's usual cut."""
    base = next(base for base in bases if base.card.name == one.backbone.card.name)
    return speed[base.card.fingerprint] * one.operations


def _cheapest_alike(running: list[Candidate], best: Candidate, costs: dict[str, float]) -> Candidate:
    """The quickest of those that may be as good as the best, and lose at most a point where they were compared."""
    alike = [one for one in running if one is best or (loss := one.behind(best))[0] <= min(ALIKE, loss[1])]
    return min(alike, key=lambda one: costs[one.name])


def _row(one: Candidate, task: str, ms: float, measured: bool) -> dict[str, Any]:
    """A candidate as it is shown."""
    card, held = one.backbone.card, np.isfinite(one.right)
    if task == CLASSIFICATION and held.any():
        found = evaluation.proportion(one.right[held], groups=None if one.groups is None else one.groups[held])
        accuracy, low, high = found.value, found.low, found.high
    else:
        right = one.right[held] + (1.0 if task == REGRESSION else 0.0)
        half = 1.96 * float(right.std(ddof=1)) / np.sqrt(len(right)) if len(right) > 1 else 1.0
        accuracy = float(right.mean()) if len(right) else 0.0
        low, high = accuracy - half, min(1.0, accuracy + half)
    return {
        "backbone": card.name, "cut": card.cut, "precision": card.precision, "accuracy": accuracy, "low": low, "high": high,
        "n": int(held.sum()), "mb": round(megabytes(one.backbone), 2), "ms": round(ms, 3), "measured": measured,
        "parameters": card.parameters, "licence": card.licence, "width": card.width, "logme": one.logme,
        "simple": one.simple,
    }  # fmt: skip


def _why(chosen: Candidate, best: Candidate, running: list[Candidate], costs: dict[str, float]) -> str:
    """The recommendation in a sentence."""
    n = int(np.isfinite(chosen.right).sum())
    if chosen is best:
        quicker = [one for one in running if costs[one.name] < costs[chosen.name]]
        line = f"{chosen.name}: the best of {len(running)} on {n:,} examples"
        if not quicker:
            return line + ", and the quickest."
        near = min(quicker, key=lambda one: one.behind(best)[0])
        return line + f"; the nearest quicker one, {near.name}, is {100 * near.behind(best)[0]:.1f} points behind."
    loss, _ = chosen.behind(best)
    times = costs[best.name] / max(costs[chosen.name], 1e-6)
    line = (
        f"{chosen.name}: {n:,} examples do not tell it from the best, {best.name} "
        f"({100 * max(loss, 0.0):.1f} points), and it is {times:.1f} times as quick."
    )
    return ("A simple model is enough here. " if chosen.simple else "") + line
