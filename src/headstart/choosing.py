"""Which backbone, cut where: every fitting candidate tried on the user's own data, cheap ones and simple ones included.

A backbone runs once over a sample for all of its cuts. Every cut is judged by cross-fitted heads; the promising half
goes on to a larger sample (successive halving, Jamieson and Talwalkar 2016, section 3). The recommended one is the
quickest among those that save a fifth of the best one's time and lose no more than a point to it, and no more than one
standard error of the loss; a cut of a network only where the loss is still within the point with half a standard error
more. Without that last rule, in simulations of eight candidates, 300 rows and cuts that lose half a point or a point each,
the recommended one was 1.2 to 1.3 points worse than the best in truth; with it 0.6 to 0.7.

Letters: n examples, d feature width, c classes. X (n, d), T (n, c).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import backbones, evaluation, transferability
from headstart.backbone import Backbone, joined, parts
from headstart.candidates import Candidate, Limits, Line, cuts, line_of, megabytes, milliseconds, share_below
from headstart.dataset import Dataset
from headstart.domain import far
from headstart.embedding import readable
from headstart.errors import HeadstartError, InputError
from headstart.features import embed
from headstart.folds import folds, tied
from headstart.head import CLASSIFICATION, MULTILABEL, REGRESSION
from headstart.licence import refused
from headstart.progress import Progress
from headstart.rowcache import Cache
from headstart.selection import judged

QUICKER = 0.8  # of the best one's time: what saves less is not worth a point
SMALL, DEALS = 600, 3  # so few rows are dealt into folds so often: chance in the dealing is then averaged out
FIRST, MOST = 400, 4_000  # rows of the first sample, at least, and of the last, at most
LEAST = 200  # rows, however short the time
TIMED = 12  # contents the cost of one is measured on
FEW = 100  # rows below which a choice is said to be rough
FILTERED = 16  # cuts of one backbone that are judged by heads; of more, those LogME likes best

Say = Callable[[str], None]


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
    _countable(data)
    bases = [_quick(base, data, say) for base in bases]
    contents = data.raw(spread(data, TIMED, seed))
    lines = {base.card.name: line_of(base, contents) for base in bases}
    everything = [one for base in bases for one in _candidates(base, limits, lines[base.card.name])]
    if not everything:
        raise InputError("no candidate keeps to the limits of size and latency.")
    first, last, needed = _sizes(len(data), everything, lines, data.T.shape[1], limits.budget)
    stages = f"{first:,} examples and then, the promising ones, on {last:,}" if first < last else f"{last:,} examples"
    names = len({one.backbone.card.name for one in everything})
    candidates = "1 candidate" if len(everything) == 1 else f"{len(everything)} candidates of {names} base models"
    say(f"{candidates} on {stages} of {len(data):,}: about {needed:.0f} s")
    running, out = everything, list[Candidate]()
    distances: dict[str, tuple[str, str]] = {}
    for size in dict.fromkeys((first, last)):
        part = data.take(spread(data, size, seed))
        running, found = _judged(running, part, seed, progress)
        distances |= found
        if size != last:
            running, dropped = _promising(running)
            out += dropped
    costs = {one.name: milliseconds(one.backbone.at(one.backbone.card.cut), contents) for one in running}
    if limits.latency is not None:
        slow = [one for one in running if costs[one.name] > limits.latency]
        running = [one for one in running if one not in slow]
        out += slow
        if not running:
            least = min(slow, key=lambda one: costs[one.name])
            raise InputError(
                f"no candidate answers within {limits.latency:g} ms here; the quickest, {least.name}, needs "
                f"{costs[least.name]:.3g} ms."
            )
    best = max(running, key=lambda one: (one.merit, not one.simple, one.operations))  # of equals the deepest
    if not np.isfinite(best.merit):
        raise InputError(f"{data.name}: no example could be held out; label at least 2, better 8, of each class.")
    quicker = [one for one in running if one.alike(best) and costs[one.name] <= QUICKER * costs[best.name]]
    chosen = min([best, *quicker], key=lambda one: costs[one.name])
    rows = []
    for one in [*sorted(running, key=lambda one: -one.merit), *sorted(out, key=lambda one: -one.merit)]:
        ms = costs[one.name] if one.name in costs else lines[one.backbone.card.name](one.operations)
        level, sentence = distances[one.backbone.card.name]
        loss, noise = one.behind(best) if one in running else (1.0, 0.0)
        rows.append(
            _row(one, data.task, ms, one.name in costs)
            | {"distance": level, "note": sentence, "tie": one is chosen or one is best or loss <= 2 * noise}
        )
    where = next(i for i, one in enumerate(rows) if (one["backbone"], one["cut"]) == _key(chosen))
    return {
        "data": data.name, "modality": data.modality, "task": data.task, "n": len(data), "candidates": rows,
        "recommended": {**rows[where], "why": _why(chosen, best, running, costs, data.task)}, "excluded": [],
        "warnings": _warnings(data, best, distances), "seconds": round(time.perf_counter() - start, 2),
    }  # fmt: skip


def _countable(data: Dataset) -> None:
    """Raise InputError where no row could be held out."""
    if len(data) < 4 or (data.task == CLASSIFICATION and np.bincount(data.y, minlength=1).max() < 2):
        raise InputError(
            f"{data.name}: {len(data):,} labelled examples, and no class with two of them: nothing can be held out to "
            "compare base models on. Label at least 2, better 8, of each class."
        )


def _quick(base: Backbone, data: Dataset, say: Say) -> Backbone:
    """The base in the precision that `fit` would take on these contents."""
    if base.card.name not in backbones.USUAL.values():
        return base
    where = Cache()
    found, _, said = backbones.choose_precision(
        base.card.name,
        data.contents,
        cut=base.card.cut,
        encode=lambda base, contents: embed(contents, base, where).values,
    )
    say(said)
    return found


def _warnings(data: Dataset, best: Candidate, distances: dict[str, tuple[str, str]]) -> list[str]:
    """What a reader of the table must know."""
    found = [sentence for level, sentence in distances.values() if level == "too far"]
    n = int(np.isfinite(best.right).sum())
    if n < FEW:
        found.append(f"{n:,} examples are few to compare by: candidates that are points apart look alike here.")
    if data.task == CLASSIFICATION:
        usual = float(np.bincount(data.y).max() / len(data))
        low = evaluation.proportion(best.right[np.isfinite(best.right)]).low
        if low <= usual:
            found.append(
                f"no candidate is surely better than always saying the most frequent label ({100 * usual:.0f} %): nothing "
                "that these base models see may say which label an example carries."
            )
    return found


def _key(one: Candidate) -> tuple[str, str]:
    return one.backbone.card.name, one.backbone.card.cut


def _candidates(base: Backbone, limits: Limits, line: Line) -> list[Candidate]:
    """The cuts of one base that keep to the size and, as far as can be told before they are timed, the latency."""
    simple = base.card.name in backbones.NO_NETWORK.values()
    found = []
    for cut in cuts(base):
        one = Candidate(base.at(cut), simple, share_below(base, cut))
        small = limits.size is None or megabytes(one.backbone) <= limits.size
        quick = limits.latency is None or 0.5 * line(one.operations) <= limits.latency
        if small and quick:
            found.append(one)
    return found


def _sizes(
    n: int, everything: Sequence[Candidate], lines: dict[str, Line], classes: int, budget: float | None
) -> tuple[int, int, float]:
    """Rows of the first and the last sample, and the seconds that both will take."""
    deepest = {one.backbone.card.name: one.operations for one in everything}
    once = {name: lines[name](share) for name, share in deepest.items()}  # milliseconds of one row
    widths = [one.backbone.card.width for one in everything]
    embedding = sum(once.values()) / 1000
    heads = sum(5 * 0.8 * d * (d + 10 * classes) for d in widths) / 1e10

    def needed(first: int, last: int) -> float:
        deals = DEALS if last <= SMALL else 1
        return 2 + last * embedding + deals * heads * (first + (0.5 * last if last > first else 0))

    last = min(n, MOST)
    first = min(last, max(FIRST, 3 * last // 8))
    if budget is not None and needed(first, last) > budget:
        share = max(0.05, budget / needed(first, last))
        first, last = (max(min(n, LEAST), int(size * share)) for size in (first, last))
    return first, max(first, last), needed(first, last)


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
        repeats = DEALS if len(kept) <= SMALL else 1
        dealt = folds(target[kept], repeats=repeats, groups=groups, seed=seed)
        pieces, T = parts(X, wide.card), rows.targets()
        features = {one.name: joined(pieces, one.backbone.card.cut) for one in mine}
        liked = _filtered(_different(mine, features), features, rows)
        for done, one in enumerate(liked):
            right = np.full(len(part), np.nan)
            hits = [judged(features[one.name], T, task=rows.task, folds=deal)[0] for deal in dealt]
            right[kept] = np.mean(hits, axis=0)  # NaN where a row was not held out in some deal
            tie = np.full(len(part), -1, np.int64)
            tie[kept] = groups
            found.append(replace(one, right=right, groups=tie, rounds=one.rounds + 1))
            progress(f"{name}: heads", done + 1, len(liked))
        by_cut = {one.backbone.card.cut: features[one.name] for one in liked}
        distances[name] = ("", "") if mine[0].simple else far(mine[-1].backbone, rows, by_cut)
    return found, distances


def _different(mine: list[Candidate], features: dict[str, NDArray[np.float32]]) -> list[Candidate]:
    """Without cuts that give what a later one gives: a network's own output often is its last tap."""
    return [
        one
        for i, one in enumerate(mine)
        if not any(
            features[one.name].shape == features[other.name].shape
            and np.allclose(features[one.name], features[other.name], rtol=0, atol=1e-5)
            for other in mine[i + 1 :]
        )
    ]


def _filtered(mine: list[Candidate], features: dict[str, NDArray[np.float32]], rows: Dataset) -> list[Candidate]:
    """The candidates with their LogME; of very many cuts those it likes best."""
    if rows.task == MULTILABEL or all(one.logme is not None for one in mine):
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


def _row(one: Candidate, task: str, ms: float, measured: bool) -> dict[str, Any]:
    """A candidate as it is shown."""
    card, held = one.backbone.card, np.isfinite(one.right)
    accuracy, low, high = figure(one.right, one.groups, task)
    return {
        "backbone": card.name, "cut": card.cut, "precision": card.precision, "accuracy": accuracy, "low": low, "high": high,
        "n": int(held.sum()), "mb": round(megabytes(one.backbone), 2), "ms": round(ms, 3), "measured": measured,
        "parameters": card.parameters, "licence": card.licence, "width": card.width, "logme": one.logme,
        "simple": one.simple,
    }  # fmt: skip


def figure(right: NDArray[np.float64], groups: NDArray[np.int64] | None, task: str) -> tuple[float, float, float]:
    """Accuracy, F1 a row or R² with its 95 % interval, of how right each row (n,) is; NaN where it was not held out."""
    held = np.isfinite(right)
    if task == CLASSIFICATION and held.any():
        found = evaluation.proportion(right[held], groups=None if groups is None else groups[held])
        return found.value, found.low, found.high
    if not held.any():
        return 0.0, 0.0, 1.0
    tied_rows = np.arange(len(right)) if groups is None else groups
    middle, half = mean(right[held] + (1.0 if task == REGRESSION else 0.0), tied_rows[held])
    return middle, middle - half, min(1.0, middle + half)


def mean(x: NDArray[np.float64], groups: NDArray[np.int64]) -> tuple[float, float]:
    """The mean of n values and half its 95 % interval, where rows of a group go together; one row more is off by one."""
    middle, n = float(x.mean()), len(x)
    apart = np.bincount(np.unique(groups, return_inverse=True)[1], x - middle)
    return middle, 1.96 * float(np.sqrt((apart**2).sum() + 1)) / n


def points(loss: float, task: str) -> str:
    """A loss in words: points of accuracy or of F1, a share of R²."""
    return f"{loss:.3f} of R²" if task == REGRESSION else f"{100 * loss:.1f} points"


def _why(chosen: Candidate, best: Candidate, running: list[Candidate], costs: dict[str, float], task: str) -> str:
    """The recommendation in a sentence."""
    n = int(np.isfinite(chosen.right).sum())
    if chosen is best:
        if len(running) == 1:
            return f"{chosen.name}: the only candidate left, on {n:,} examples."
        line = f"{chosen.name}: the best of {len(running)} on {n:,} examples"
        quicker = [one for one in running if costs[one.name] < costs[chosen.name]]
        if not quicker:
            line += ", and the quickest."
        else:
            near = min(quicker, key=lambda one: one.behind(best)[0])
            loss, noise = near.behind(best)
            line += f"; the nearest quicker one, {near.name}, is {points(loss, task)} behind"
            line += f" (give or take {points(2 * noise, task)})." if loss <= 2 * noise else "."
    else:
        loss, _ = chosen.behind(best)
        times = costs[best.name] / max(costs[chosen.name], 1e-6)
        line = (
            f"{chosen.name}: {n:,} examples do not tell it from the best, {best.name} ({points(max(loss, 0.0), task)}), "
            f"and it is {times:.1f} times as quick."
        )
    return ("A simple model is enough here. " if chosen.simple else "") + line
