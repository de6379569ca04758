"""Retrain the final blocks of a base, from the cheapest up, and keep them only where folds say that it pays.

The frozen part is run once a content: its states at a tap are cached, and every epoch, fold and trial starts from them.
Every network starts from the published blocks and from the linear head of its fold, so before the first step it is the
linear model. Up to FEW rows several of five folds are held out, one after the other, and the network that is kept is the
mean of those trained without them (Wortsman et al. 2022, section 3, who average networks of different settings; here
each has seen another four fifths of the rows). Above, one part of the rows is held out once, and the network is trained
once more on all of them where the time allows it.

Rows without a label take part when the linear head gains from them: with what that head says of them as their target.

Letters: n rows with a label, m without, d feature width, c classes, k blocks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from headstart import journal
from headstart.backbone import Backbone
from headstart.errors import InputError
from headstart.ground import LARGE, VERY_FEW, Floats, Ground, Network, Start, Tried, likely
from headstart.halved import Halves, choices, halved
from headstart.head import REGRESSION
from headstart.progress import Progress
from headstart.selection import right
from headstart.states import States, collect

Say = Callable[[str], None]

ENOUGH = 100  # held-out rows that may decide after how many epochs to stop
LABELLED = 3.0  # unlabelled rows that a labelled one counts for


def taps(base: Backbone) -> list[tuple[str, int]]:
    """Where training can begin: (tap, blocks above it), the fewest blocks first; [] where nothing can be trained."""
    found: dict[int, str] = {}
    for tap, k in choices(base).items():  # of taps with as many blocks above them the lowest: a norm alone is no block
        found.setdefault(k, tap)
    return [(tap, k) for k, tap in sorted(found.items())]


def rungs(base: Backbone, blocks: str | int, n: int = LARGE) -> list[tuple[str, int, str]]:
    """(tap, k, rung) to climb with n rows: for "auto" about a third of the blocks and then all, where rows are very few
    all at once; else k. Raises InputError.
    """
    there = taps(base)
    if not there:
        halved(base, base.taps[0].name if base.taps else "0")  # says why not
        raise InputError(f"{base.card.name} has no blocks that can be trained.")
    most = there[-1][1]
    if blocks == "auto":
        third = max(1, round(most / 3))
        asked = sorted({min((k for _, k in there), key=lambda k: (abs(k - third), k)), most})
        asked = asked[-1:] if n <= VERY_FEW else asked
    else:
        asked = [most if blocks == "all" else int(blocks)]
    names = {k: tap for tap, k in there}
    if asked[0] not in names:
        raise InputError(
            f"--blocks {blocks}: {base.card.name} can be retrained from its final "
            f"{', '.join(str(k) for _, k in there)} blocks at the cut {base.card.cut}."
        )
    return [(names[k], k, "all" if k == most else f"blocks:{k}") for k in asked]


def climb(
    standing: Ground,
    steps: Sequence[tuple[str, int, str]],
    *,
    rank: int | None = None,
    deadline: float | None = None,
    folder: Path,
    say: Say = lambda line: None,
    progress: Progress = lambda what, done, total: None,
) -> Iterator[Tried]:
    """Train every rung on the folds. What is finished lies in `folder`, and is taken from there when asked again.

    deadline: of time.monotonic; a rung that would not be finished by then is left out, and said. Raises MissingExtra
    without torch.
    """
    from headstart import training

    training.torch()
    for tap, k, rung in steps:
        start = time.monotonic()
        halves = halved(standing.base, tap)
        states = collected(standing, halves, progress)
        how = recipe(int((standing.fold != standing.judged[0]).sum()) + len(states) - len(standing.data), rank)
        needed = seconds(standing, halves, states, how) * len(standing.judged)
        left = math.inf if deadline is None else max(deadline - time.monotonic(), 0.0)
        file = folder / rung.replace(":", "-")
        epochs = journal.once(file, how.epochs if needed <= left else int(how.epochs * left / needed))
        if not epochs:
            say(f"{rung}: not tried, it would take about {needed:.0f} s and {left:.0f} s are left")
            continue
        short = f", {epochs} of {how.epochs} epochs for want of time" if epochs < how.epochs else ""
        say(f"{rung}: about {needed * epochs / how.epochs:.0f} s{short}")
        how = replace(how, epochs=epochs)
        networks, scores = [], np.full(standing.T.shape, np.nan, np.float32)
        until: int | None = None
        for number, part in enumerate(standing.judged):
            what = f"{rung}, fold {number + 1} of {len(standing.judged)}"
            network = trained(
                standing, halves, states, part, how=how, until=until, deadline=deadline,
                file=file.with_name(f"{file.name}-{part}"), tick=_told(progress, what),
            )  # fmt: skip
            if network is None:
                say(f"{rung}: not finished in time")
                break
            until = network.epochs if until is None else until
            scores[standing.fold == part] = network.scores
            networks.append(network)
        else:
            judged = right(scores, standing.T, standing.task)
            yield Tried(k, rung, tap, judged, scores, time.monotonic() - start, tuple(networks))


def _told(progress: Progress, what: str) -> Callable[[int, int, float], None]:
    return lambda done, total, loss: progress(what, done, total)


def collected(standing: Ground, halves: Halves, progress: Progress) -> States:
    """The states of all contents at a tap, those with a label first; from the disk or made once."""
    contents, keys = standing.data.contents, standing.data.keys
    if standing.pool is not None:
        more = standing.pool[0]
        contents = pa.chunked_array([*contents.chunks, *more.contents.chunks], contents.type)
        keys = np.concatenate([keys, more.keys])
    return collect(
        contents, halves, keys=keys, progress=lambda done, total: progress(f"states at tap {halves.tap}", done, total)
    )  # fmt: skip


def recipe(n: int, rank: int | None) -> Any:
    """How to train on n rows."""
    from headstart.training.loop import Recipe

    few = n <= LARGE
    found = Recipe(epochs=5 if few else 3, rate=5e-4 if few else 3e-4, views=2 if n <= VERY_FEW else 1, rank=rank)
    return found if rank is None else replace(found, rate=5 * found.rate)


def task_of(standing: Ground, states: States, start: Start) -> Any:
    """What the training loop needs of the rows; those without a label have for a target what the head `start` says."""
    from headstart.training.loop import Task

    middle, spread = standing.scale
    T, weight = (standing.T - np.float32(middle)) / np.float32(spread), standing.weight
    if standing.soft is not None:
        T = (standing.soft - np.float32(middle)) / np.float32(spread)
        weight = np.concatenate([weight, np.ones(len(T) - len(weight), np.float32)])
    elif standing.pool is not None:
        U = standing.pool[1]
        said = U @ start[0] + start[1]
        E = np.exp(said - said.max(1, keepdims=True))
        T = np.concatenate([T, E / E.sum(1, keepdims=True)])
        weight = np.concatenate([LABELLED * weight, np.ones(len(U), np.float32)])
    return Task(states, np.asarray(T, np.float32), np.asarray(weight, np.float32), standing.task)


def seconds(standing: Ground, halves: Halves, states: States, how: Any) -> float:
    """How long one training takes here, by a few steps that are thrown away."""
    from headstart.training import loop

    labelled = np.arange(len(standing.data))
    n = int((standing.fold != standing.judged[0]).sum()) + len(states) - len(labelled)
    start = standing.start(labelled)
    size = max(2, min(how.batch, len(states) // 4))
    many = 16 if len(states) > 64 * size else 4  # batches; of many rows those of like length stand together
    some = np.sort(np.random.default_rng(0).permutation(len(states))[: many * size])
    at: list[float] = []
    loop.train(
        halves, task_of(standing, states, start), some, some[:0], start, replace(how, epochs=1, batch=size), seed=0,
        tick=lambda done, total, loss: at.append(time.monotonic()),
    )  # fmt: skip
    row = float(np.median(np.diff(at))) / size if len(at) > 1 else 0.01  # with all its views, there and back
    alone = row / how.views / 3
    held = int((standing.fold == standing.judged[0]).sum())
    return float(how.epochs * (n * row + held * alone) + len(labelled) * alone)


def trained(
    standing: Ground,
    halves: Halves,
    states: States,
    part: int | None,
    *,
    how: Any,
    until: int | None,
    deadline: float | None,
    file: Path,
    tick: Callable[[int, int, float], None],
) -> Network | None:
    """The network trained without the rows of a fold (None: on all rows), or None where the time is up.

    how: a loop.Recipe. until: epochs after which to stop; None: this fold decides. What is done lies in `file`, as does an unfinished one.
    """
    from headstart.training import loop

    if (done := journal.read(file)) is not None:
        return _network(*done)
    n = len(standing.data)
    out = np.flatnonzero(standing.fold == part) if part is not None else np.zeros(0, np.int64)
    labelled = np.setdiff1d(np.arange(n), out)
    start = standing.start(labelled)
    task = task_of(standing, states, start)
    rows = np.concatenate([labelled, np.arange(n, len(states))])
    try:
        found = loop.train(
            halves, task, rows, out, start, how, seed=standing.seed + 1000 * (part or 0),
            decide=until is None and len(out) >= ENOUGH, until=until, checkpoint=journal.unfinished(file),
            deadline=deadline, tick=tick,
        )  # fmt: skip
    except loop.Interrupted:
        return None
    W, b = found.above.head()
    middle, spread = standing.scale
    scores = np.zeros((0, standing.T.shape[1]), np.float32) if found.scores is None else found.scores
    space = loop.features(found.above, task, np.arange(n))
    history = [{"loss": e.loss, "held": e.held, "right": e.right} for e in found.history]
    facts = {"epochs": found.epochs, "history": history}
    arrays = {"W": W * np.float32(spread), "b": b * np.float32(spread) + np.float32(middle)}
    arrays |= {"scores": scores * np.float32(spread) + np.float32(middle), "space": space}
    journal.write(file, facts, arrays, found.above.weights())
    return _network(facts, arrays, found.above.weights())


def _network(facts: dict[str, Any], arrays: dict[str, Any], changed: dict[str, Any]) -> Network:
    return Network(
        changed, arrays["W"], arrays["b"], arrays["scores"], arrays["space"], tuple(facts["history"]), facts["epochs"]
    )  # fmt: skip


def better(standing: Ground, one: Tried, other: Tried) -> bool:
    """Whether `other` is kept in place of the cheaper `one`.

    It must be better on the held-out rows by more than the noise of the difference; by twice as much where one part was
    held out, once, as the same rows chose the epoch. Where several networks are trained on few rows and the head alone
    is the cheaper, `ground.likely` tells.
    """
    loss, noise = standing.behind(other, one)
    if len(other.networks) < 2:
        return -loss > 2 * noise
    if one.networks:
        return -loss > noise
    return likely(-loss, noise, (0.0 if standing.task == REGRESSION else 1.0) - float(np.nanmean(one.right)))


def final(
    standing: Ground,
    best: Tried,
    *,
    rank: int | None = None,
    deadline: float | None = None,
    folder: Path,
    say: Say = lambda line: None,
    progress: Progress = lambda what, done, total: None,
) -> tuple[Network, str]:
    """The network of a rung that is kept, and how it was made, in words."""
    from onnx import numpy_helper

    from headstart.training import loop
    from headstart.training.above import Above

    halves = halved(standing.base, best.tap)
    states = collected(standing, halves, progress)
    if len(best.networks) > 1:
        first = {tensor.name: numpy_helper.to_array(tensor) for tensor in halves.above.graph.initializer}
        changed, W, b = mean(best.networks, first)
        above = Above(halves, W, b, rank=None if rank is None else rank * len(best.networks), dropout=0.0)
        above.graph.load(changed)
        space = loop.features(above, task_of(standing, states, (W, b)), np.arange(len(standing.data)))
        return replace(best.networks[0], changed=changed, W=W, b=b, space=space), (
            f"the mean of {len(best.networks)} networks, each trained without one of {int(standing.fold.max()) + 1} folds"
        )
    judged = best.networks[0]
    share = 100 * float((standing.fold < 0).mean())
    kept = judged, f"trained on {share:.0f} % of the rows, judged on the others"
    needed = 1.15 * best.seconds * len(standing.data) / max(1, int((standing.fold < 0).sum()))
    if deadline is not None and time.monotonic() + needed > deadline:
        say(f"{best.rung}: there is no time to train it once more on all rows ({needed:.0f} s)")
        return kept
    how = replace(recipe(len(states), rank), epochs=len(judged.history))
    network = trained(
        standing, halves, states, None, how=how, until=judged.epochs, deadline=deadline,
        file=folder / f"{best.rung.replace(':', '-')}-all", tick=_told(progress, f"{best.rung}, all rows"),
    )  # fmt: skip
    return kept if network is None else (network, "trained once more on all rows")


def mean(
    networks: Sequence[Network], published: Mapping[str, Floats] = MappingProxyType({})
) -> tuple[dict[str, Floats], Floats, Floats]:
    """The mean of networks that started from the same weights, `published` where one did not change: changed, W, b."""

    def middle(parts: list[Floats]) -> Floats:
        return np.asarray(sum(parts) / np.float32(len(parts)), np.float32)

    changed: dict[str, Floats] = {}
    for name in sorted({name for one in networks for name in one.changed}):
        some = next(one.changed[name] for one in networks if name in one.changed)
        first = published.get(name, np.zeros_like(some))  # of low rank: nothing is added
        parts = [one.changed.get(name, first) for one in networks]
        if name.endswith("/up"):  # the mean of products up @ down is the product of all ups and downs, side by side
            changed[name] = np.concatenate(parts, axis=1) / np.float32(len(parts))
        else:
            changed[name] = np.concatenate(parts) if name.endswith("/down") else middle(parts)
    return changed, middle([one.W for one in networks]), middle([one.b for one in networks])
