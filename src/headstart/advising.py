"""What to do with labelled data: the ladder climbed from cheap to dear, until the next rung cannot pay.

The rungs are always the same answer, a baseline without a network, the averaged token vectors of a base, a linear head on
its frozen features at several cuts, its final blocks tuned, and all of it tuned. All are judged on the same rows in the
same folds. A rung takes the place of a cheaper one only where it is better by more than the standard error of the
difference; everything else is a tie, and a tie goes to the cheaper.

Whether tuning can pay is first read from the frozen features (`ladder.paying`), so that the question is answered where
torch is not installed, too, and no time goes into what cannot pay.

Letters: n examples, d feature width, c classes, r deals into folds, k blocks. X (n, d), T (n, c), y (n,).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart import backbones, distance, ladder
from headstart.backbone import Backbone, joined, parts
from headstart.candidates import cuts, megabytes, milliseconds, share_below
from headstart.choosing import DEALS, LEAST, SMALL, TIMED, figure, mean, points, spread
from headstart.dataset import Dataset
from headstart.domain import far
from headstart.embedding import readable
from headstart.errors import InputError, MissingExtra, ModelError
from headstart.features import embed
from headstart.folds import folds, tied
from headstart.head import CLASSIFICATION
from headstart.licence import refused
from headstart.progress import Progress
from headstart.rowcache import Cache
from headstart.rung import Floats, Forecast, Ground, Rung, behind, chosen, facts
from headstart.selection import judged

MOST = 3_000  # rows that are judged on; tuning deals as many into the same folds
FROZEN = 0.4  # of the time, at most, for what needs no tuning
FINALS = 3  # cuts that are judged in every deal
SHALLOW = 0.02  # share of the operations up to which a cut is no network: token vectors, averaged
ROOM = 0.005  # error that is not worth another rung

Say = Callable[[str], None]


class Tried(Protocol):
    """A tuned rung, judged out of fold; NaN where a row was not held out."""

    @property
    def k(self) -> int:
        """Blocks that were tuned."""
        ...

    @property
    def rung(self) -> str:
        """Its name: "blocks:k" or "all"."""
        ...

    @property
    def right(self) -> Floats:
        """How right each row (n,) is."""
        ...

    @property
    def seconds(self) -> float:
        """What it took."""
        ...


Climb = Callable[..., Iterator[Tried]]  # (base, train, *, ks, folds, budget, seed, say, progress)


def usual(modality: str, name: str | None, licence: str) -> tuple[Backbone | None, str]:
    """The base that is frozen and tuned, or None and why there is none.

    name: one asked for. Raises NotFound or InputError for a name that cannot be used, or whose licence is refused.
    """
    if name in backbones.NO_NETWORK.values():
        return None, f"{name} needs no network: there is nothing to cut or to tune"
    try:
        base = backbones.load(name or backbones.usual(modality))
    except InputError as error:
        if name is not None:
            raise
        return None, str(error)
    if base.card.modality != modality:
        raise InputError(f"base model {name} is for {base.card.modality}; these examples are {modality}.")
    why = refused(base.card.licence, licence)
    if why is not None and name is not None:
        raise InputError(f"{base.card.name} is left out: {why}. Allow it with --licence, or name another --backbone.")
    return (base, "") if why is None else (None, f"{base.card.name}: {why}")


def advise(
    data: Dataset,
    base: Backbone | None,
    *,
    why: str = "",
    climb: Climb | None = None,
    budget: float | None = None,
    seed: int = 0,
    say: Say = lambda line: None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Climb the ladder on n labelled examples, within a budget in seconds.

    base: frozen, then tuned; None where there is none, and `why`. climb: tunes (`tuning.climb`); None where it cannot.
    Returns the facts {recommended, rungs, seconds, curve, classes, distance, forecast, not_tried, warnings, sentences,
    interrupted, ...}; after Ctrl-C what was found so far. Raises InputError where nothing can be held out.
    """
    start = time.perf_counter()
    ground = _ground(data, base, budget, seed)
    found: list[Rung] = []
    forecast: Forecast | None = None
    interrupted = False

    def left() -> float | None:
        return None if budget is None else budget - (time.perf_counter() - start)

    say(f"climbing on {len(ground.part):,} of {len(data):,} labelled examples")
    try:
        for rung in _frozen(ground, base, why, found, progress):
            found.append(rung)
            say(_line(rung, ground))
        forecast = _forecast(ground, found)
        for rung in _tuned(ground, base, why, found, forecast, climb, left, say, progress):
            found.append(rung)
            say(_line(rung, ground))
    except KeyboardInterrupt:
        interrupted = True
    if not any(rung.tried for rung in found):
        raise KeyboardInterrupt
    return facts(data, ground, base, found, forecast, interrupted, time.perf_counter() - start)


def _ground(data: Dataset, base: Backbone | None, budget: float | None, seed: int) -> Ground:
    """The rows and folds; fewer rows where the time is short. Raises InputError where nothing can be held out."""
    if len(data) < 4 or (data.task == CLASSIFICATION and np.bincount(data.y, minlength=1).max() < 2):
        raise InputError(
            f"{data.name}: {len(data):,} labelled examples, and no class with two of them: nothing can be held out to "
            "judge by. Label at least 2, better 8, of each class."
        )
    simple = backbones.load(backbones.NO_NETWORK[data.modality])
    data, _ = readable(data.take(spread(data, MOST, seed)), simple)
    timed = data.raw(spread(data, TIMED, seed))
    if base is not None and budget is not None:
        once = milliseconds(base, timed) / 1000
        data = data.take(spread(data, max(LEAST, int(FROZEN * budget / once)), seed))
    groups = tied(*(() if data.group is None else (data.group,)), keys=data.keys)
    target = data.y if data.task == CLASSIFICATION else data.T
    dealt = folds(target, repeats=DEALS if len(data) <= SMALL else 1, groups=groups, seed=seed)
    if (dealt < 0).all():
        raise InputError(f"{data.name}: no example could be held out; label at least 2, better 8, of each class.")
    return Ground(data, data.task, groups, dealt, timed, seed)


def _frozen(
    ground: Ground, base: Backbone | None, why: str, found: Sequence[Rung], progress: Progress
) -> Iterator[Rung]:
    """The rungs that train no network, the cheapest first."""
    part = ground.part
    same = ladder.majority(part.targets(), ground.task)
    same[(ground.dealt < 0).any(0)] = np.nan
    yield Rung(ladder.MAJORITY, same, same)
    simple = backbones.load(backbones.NO_NETWORK[part.modality])
    before = time.perf_counter()
    rows, X = readable(part, simple, progress=partial(progress, f"{simple.card.name}: embedding"))
    yield ground.rung(ladder.NO_NETWORK, X, rows, simple, time.perf_counter() - before)
    if base is None:
        yield from ([Rung(ladder.STATIC, why=why)] if part.modality == "text" else [])
        yield Rung(ladder.LINEAR, why=why)
        return
    full = _no_room(found, ground)
    shallow = cuts(base)[0]
    static = part.modality == "text" and len(base.taps) > 1 and share_below(base, shallow) <= SHALLOW
    if static and full:
        yield Rung(ladder.STATIC, why=full)
    elif static:
        before = time.perf_counter()
        tokens = base.at(shallow)
        rows, X = readable(part, tokens, progress=partial(progress, f"{tokens.card.name}: token vectors"))
        yield ground.rung(ladder.STATIC, X, rows, tokens, time.perf_counter() - before)
    full = _no_room(found, ground)
    yield Rung(ladder.LINEAR, why=full) if full else _linear(ground, base, static, progress)


def _linear(ground: Ground, base: Backbone, static: bool, progress: Progress) -> Rung:
    """A linear head on the frozen features at the best of several cuts, and at three of them side by side."""
    before = time.perf_counter()
    base = _precise(base, ground.part)
    singles = cuts(base)
    wide = base.at("+".join(dict.fromkeys("+".join(singles).split("+"))))
    rows, X = readable(ground.part, wide, progress=partial(progress, f"{base.card.name}: embedding"))
    pieces = parts(X, wide.card)
    several = [singles[0], singles[len(singles) // 2], singles[-1]]
    tried = [
        *singles[static:],
        *(["+".join(dict.fromkeys("+".join(several).split("+")))] if len(set(several)) == 3 else []),
    ]
    kept = np.flatnonzero(np.isin(ground.part.rows, rows.rows))
    right: dict[str, Floats] = {}
    for done, cut in enumerate(dict.fromkeys([*tried, *singles])):
        X, deal = joined(pieces, cut), ground.dealt[0][kept]
        right[cut] = judged(X, rows.targets(), task=ground.task, folds=deal)[0]
        progress(f"{base.card.name}: heads", done + 1, len({*tried, *singles}))
    hits: dict[str, list[Floats]] = {}
    for cut in sorted(tried, key=lambda cut: -float(np.nanmean(right[cut])))[:FINALS]:
        rest = [
            judged(joined(pieces, cut), rows.targets(), task=ground.task, folds=deal[kept])[0]
            for deal in ground.dealt[1:]
        ]
        hits[cut] = [right[cut], *rest]
    best = max(hits, key=lambda cut: float(np.nanmean(hits[cut])))
    top = joined(pieces, singles[-1])
    if ground.task == CLASSIFICATION:
        shallow = np.mean([right[cut] for cut in singles[: (len(singles) + 1) // 2]], axis=0)
        lost, half = mean(*_held(shallow - right[singles[-1]], ground.groups[kept]))
        near = distance.neighbour_agreement(top, rows.y, groups=ground.groups[kept], seed=ground.seed)
        ground.signs = ladder.Signs(near.lift, lost, half / 1.96)
    ground.far = far(base, rows, {cut: joined(pieces, cut) for cut in dict.fromkeys((singles[0], singles[-1]))})
    ground.shape = joined(pieces, max(singles, key=lambda cut: float(np.nanmean(right[cut]))))
    spent = time.perf_counter() - before
    return ground.rung(ladder.LINEAR, joined(pieces, best), rows, base.at(best), spent, hits[best])


def _held(values: Floats, groups: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
    """The values (n,) that are there, and the groups of their rows."""
    held = np.isfinite(values)
    return values[held], groups[held]


def _precise(base: Backbone, data: Dataset) -> Backbone:
    """The base in the precision that `fit` would take on these contents."""
    if base.card.name not in backbones.USUAL.values():
        return base
    where = Cache()
    found, _, _ = backbones.choose_precision(
        base.card.name, data.contents, cut=base.card.cut,
        encode=lambda base, contents: embed(contents, base, where).values,
    )  # fmt: skip
    return found


def _tuned(
    ground: Ground,
    base: Backbone | None,
    why: str,
    found: Sequence[Rung],
    forecast: Forecast | None,
    climb: Climb | None,
    left: Callable[[], float | None],
    say: Say,
    progress: Progress,
) -> Iterator[Rung]:
    """The final blocks tuned, few first, then all; what is not tried says why.

    A tuner may leave rungs out that would not be finished in time.
    """
    blocks = 0 if base is None else len(base.taps) - 1
    if base is None or blocks < 1:
        why = why or f"{base.card.name if base else 'the base'} has no blocks that could be tuned"
        yield from (Rung(name, why=why) for name in (ladder.named(1, 2), ladder.ALL))
        return
    ks = ladder.rungs(blocks)
    why = _no_room(found, ground)
    if not why and forecast is not None and forecast[2] < ladder.LEAST:
        why = f"it cannot pay: {points(forecast[2], ground.task)} of gain at most, by the frozen features"
    if not why and climb is None:
        why = "tuning is not part of this installation"
    if not why and ground.far[0] == "too far":
        why = "the base is too far from these examples: its last blocks have nothing to build on"
    if why or climb is None:
        yield from (Rung(ladder.named(k, blocks), why=why) for k in ks)
        return

    exact = backbones.exact(base)
    ms = milliseconds(exact, ground.timed)
    above = {k: 1 - exact.taps[-1 - k].operations for k in ks}
    guess = {k: ladder.effort(len(ground.part), ms, above[k]) for k in ks}
    pace = 1.0  # what tuning took of what it was thought to take
    tries: Iterator[Tried] = iter(())
    size = megabytes(exact) + 4e-6 * exact.card.width * max(1, ground.part.targets().shape[1])
    try:
        tries = climb(
            exact,
            ground.part,
            ks=ks,
            folds=ground.dealt[0],
            budget=left(),
            seed=ground.seed,
            say=say,
            progress=progress,
        )
        pending = list(ks)
        while pending:
            rest, needs = left(), pace * guess[pending[0]]
            if rest is not None and needs > rest:
                why = f"it would take about {_time(needs)}, and {_time(max(rest, 0.0))} of the time are left"
            elif len(pending) < len(ks):
                why = _not_higher(ground, found)
            one = None if why else next(tries, None)
            if one is None:
                why = why or "it would not have been finished in time"
                yield from (Rung(ladder.named(k, blocks), why=why) for k in pending)
                return
            while pending and pending[0] < one.k:  # the tuner left it out
                yield Rung(ladder.named(pending.pop(0), blocks), why="it would not have been finished in time")
            pending = [k for k in pending if k > one.k]
            pace = max(one.seconds, 1e-3) / max(guess.get(one.k, 0.0), 1e-3)
            right = np.asarray(one.right, np.float64)
            yield Rung(one.rung, right, right, one.seconds, ms, size, exact.card.name, exact.card.cut)
    except (MissingExtra, InputError, ModelError) as error:  # no torch, or a network that cannot be trained
        done = {rung.rung for rung in found}
        yield from (Rung(name, why=str(error)) for k in ks if (name := ladder.named(k, blocks)) not in done)
    finally:
        close = getattr(tries, "close", None)
        if close is not None:
            close()


def tuner(
    base: Backbone, train: Dataset, *, ks: Sequence[int], folds: NDArray[np.integer[Any]], budget: float | None, seed: int,
    say: Say, progress: Progress,
) -> Iterator[Tried]:  # fmt: skip
    """The final blocks tuned by `tuning` on the same folds.

    Raises MissingExtra without torch, InputError for a network that cannot be trained.
    """
    from headstart import training, tuning
    from headstart.ground import ground as standing_on

    training.torch()
    deadline = None if budget is None else time.monotonic() + budget
    rows, X = readable(train, base, progress=partial(progress, f"{base.card.name}: embedding"))
    kept = np.flatnonzero(np.isin(train.rows, rows.rows))
    there = {k: tap for tap, k in tuning.taps(base)}
    steps = [(there[k], k, ladder.named(k, len(base.taps) - 1)) for k in ks if k in there]
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        standing = standing_on(base, rows, X, seed=seed, fold=folds[kept])
        for one in tuning.climb(standing, steps, deadline=deadline, folder=Path(folder), say=say, progress=progress):
            right = np.full(len(train), np.nan)
            right[kept] = one.right
            yield replace(one, right=right, networks=())


def _no_room(found: Sequence[Rung], ground: Ground) -> str:
    """Why nothing is left to gain, or ''."""
    if ground.task != CLASSIFICATION:
        return ""
    for rung in found:
        if rung.right is not None:
            value, low, _ = figure(rung.right, ground.groups, ground.task)
            if 1 - low < ROOM or (value == 1.0 and 1 - low < 10 * ROOM):
                return f"{rung.rung} is right on {100 * value:.1f} %: nothing is left to gain that could be seen"
    return ""


def _not_higher(ground: Ground, found: Sequence[Rung]) -> str:
    """Why more blocks are not tried after the last: it is behind by more than its noise."""
    best, _ = chosen(found, ground.groups)
    gain, noise = behind(best, found[-1], ground.groups)
    if best is not found[-1] and gain < -noise:
        return f"{found[-1].rung} is {points(-gain, ground.task)} behind {best.rung} already"
    return ""


def _forecast(ground: Ground, found: Sequence[Rung]) -> Forecast | None:
    """What tuning would bring, by what the frozen features say; None where they were not looked at."""
    linear = next((rung for rung in found if rung.rung == ladder.LINEAR), None)
    if linear is None or linear.right is None or ground.task != CLASSIFICATION or ground.signs is None:
        return None
    right = linear.right[np.isfinite(linear.right)]
    return ladder.paying(float(right.mean()), n=len(right), signs=ground.signs)


def _line(rung: Rung, ground: Ground) -> str:
    """A rung as it is reported on the way."""
    if rung.right is None:
        return f"{rung.rung}: not tried: {rung.why}"
    value, low, high = figure(rung.right, ground.groups, ground.task)
    where = f" at {rung.cut}" if rung.rung == ladder.LINEAR else ""
    return f"{rung.rung}{where}: {value:.3f} ({low:.3f} to {high:.3f}) in {_time(rung.seconds)}"


def _time(value: float) -> str:
    """Seconds in words."""
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s" if value < 120 else f"{value / 60:.0f} min"
