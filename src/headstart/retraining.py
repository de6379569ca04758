"""From gathered rows to a model whose final blocks were retrained: climb, keep what pays, prove, save."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import jsontext, learning, proof, saved, storage, tuning
from headstart.backbone import Backbone
from headstart.backbones import tuned
from headstart.choosing import figure, points
from headstart.dataset import Dataset
from headstart.embedding import readable
from headstart.errors import InputError, ModelError
from headstart.ground import Ground, Network, Tried, ground
from headstart.halved import halved
from headstart.head import CLASSIFICATION, REGRESSION
from headstart.heads.linear import Linear
from headstart.heads.ridge import Ridge
from headstart.keeping import Clock, backbone_facts, keep, origin
from headstart.model import Model
from headstart.progress import Progress

Floats = NDArray[np.float32]
Say = Callable[[str], None]
CLOSE = 1e-4  # how far torch and ONNX Runtime may be apart in a feature value


def retrain(
    name: str,
    train: Dataset,
    held: Dataset | None,
    pool: Dataset | None,
    given: Mapping[str, str],
    base: Backbone,
    clock: Clock,
    *,
    blocks: str = "auto",
    rank: int | None = None,
    budget: float | None = None,
    resume: bool = False,
    refuse: float = 0.05,
    seed: int = 0,
    made_from: str | None = None,
    project: Path,
    say: Say,
    progress: Progress,
) -> tuple[Model | None, dict[str, Any]]:
    """Tune, and save the model where tuning beats the linear head on folds; else None. And what was found, for both.

    budget: seconds in which to be done, about. resume: go on with an interrupted run on the same rows. made_from: the
    model that the rows and the base were taken from.
    """
    deadline = None if budget is None else time.monotonic() + 0.9 * budget
    steps = tuning.rungs(base, blocks, len(train))
    tuned.ready(base)  # before anything takes long
    plan = {
        "data": train.digest, "rows": len(train), "base": base.card.fingerprint, "steps": [list(step) for step in steps],
        "rank": rank, "seed": seed, "pool": None if pool is None else pool.digest,
    }  # fmt: skip
    folder = _journal(project, name, plan, resume, say)
    with clock("embed"):
        train, X = readable(train, base, progress=lambda done, total: progress("embedding", done, total))
        named = learning.names(train, given, base)
        free = None if pool is None else readable(pool, base)
    with clock("fit"):
        standing = ground(base, train, X, seed=seed, names=named, pool=free)
        say(f"linear head on frozen features: {_told(standing, standing.first)}")
        if train.task == CLASSIFICATION and float(np.nanmean(standing.first.right)) == 1.0:
            say("the linear head is right on every held-out row: nothing is left to gain")
            steps = []
        tried, stopped = _climbed(standing, steps, rank, deadline, folder, say, progress)
        best = standing.first
        for one in tried:
            best = one if tuning.better(standing, best, one) else best
        facts = _facts(standing, tried, best, base, rank, made_from, stopped)
        if best is standing.first:
            if not stopped:
                _done(folder)
            return None, facts
        network, how = tuning.final(
            standing, best, rank=rank, deadline=time.monotonic() if stopped else deadline, folder=folder, say=say,
            progress=progress,
        )  # fmt: skip
    facts |= {"how": how, "epochs": network.epochs, "history": [list(one.history) for one in best.networks]}
    say(f"kept: {best.rung}, {how}")
    model = _saved(
        name, train, held, given, standing, best, network, facts, clock, refuse=refuse, seed=seed, project=project,
        progress=progress,
    )  # fmt: skip
    if not stopped:
        _done(folder)
    return model, facts


def _journal(project: Path, name: str, plan: Mapping[str, Any], resume: bool, say: Say) -> Path:
    """The folder of an unfinished run; what lies there of another run is removed. Raises InputError."""
    folder = project / "unfinished" / name
    index, wanted = folder / "plan.json", jsontext.write(plan)
    if resume:
        if not index.exists():
            raise InputError(
                f"there is no interrupted run of {name!r} to go on with in this project; leave out --resume."
            )
        if index.read_text("utf-8") != wanted:
            raise InputError(
                f"the interrupted run of {name!r} was on other rows, another base or with other flags; give those again, "
                "or start anew without --resume."
            )
        say("going on with the interrupted run")
        return folder
    with storage.refusals(folder):
        if folder.exists():
            say(f"what an interrupted run of {name!r} had done is thrown away: --resume would have gone on with it")
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    storage.write_file(index, wanted.encode())
    return folder


def _done(folder: Path) -> None:
    """Remove the folder of a run that is finished, and the one around it when that is empty."""
    shutil.rmtree(folder)
    with contextlib.suppress(OSError):  # other runs lie there
        folder.parent.rmdir()


def _climbed(
    standing: Ground,
    steps: Sequence[tuple[str, int, str]],
    rank: int | None,
    deadline: float | None,
    folder: Path,
    say: Say,
    progress: Progress,
) -> tuple[list[Tried], bool]:
    """The rungs that were tried, and whether Ctrl-C ended it; that is raised again where none is better than linear."""
    tried: list[Tried] = []
    try:
        for one in tuning.climb(
            standing, steps, rank=rank, deadline=deadline, folder=folder, say=say, progress=progress
        ):
            tried.append(one)
            gain, noise = standing.behind(standing.first, one)
            say(
                f"{one.rung}: {_told(standing, one)}; {points(gain, standing.task)} better than linear, give or take "
                f"{points(2 * noise, standing.task)} ({one.seconds:.0f} s)"
            )
            if gain < -noise:
                say(f"{one.rung} is worse than the linear head: nothing dearer is tried")
                break
    except KeyboardInterrupt:
        if not any(tuning.better(standing, standing.first, one) for one in tried):
            raise
        say("interrupted: the best so far is kept; --resume goes on")
        return tried, True
    return tried, False


def _told(standing: Ground, one: Tried) -> str:
    value, low, high = figure(one.right, standing.groups, standing.task)
    n = int(np.isfinite(one.right).sum())
    if standing.task == REGRESSION:
        return f"R² {value:.3f} ({low:.3f} to {high:.3f}) on {n:,} held-out rows"
    return f"{100 * value:.1f} % ({100 * low:.1f} to {100 * high:.1f}) on {n:,} held-out rows"


def _facts(
    standing: Ground,
    tried: Sequence[Tried],
    best: Tried,
    base: Backbone,
    rank: int | None,
    made_from: str | None,
    stopped: bool,
) -> dict[str, Any]:
    """The piece "tuning" of the facts, so far."""
    rows = []
    for one in [standing.first, *tried]:
        value, low, high = figure(one.right, standing.groups, standing.task)
        gain, noise = standing.behind(standing.first, one) if one is not standing.first else (0.0, 0.0)
        rows.append(
            {
                "rung": one.rung, "blocks": one.k, "accuracy": value, "low": low, "high": high,
                "n": int(np.isfinite(one.right).sum()), "gain": gain, "noise": noise, "seconds": round(one.seconds, 1),
                "kept": one is best,
            }
        )  # fmt: skip
    return {
        "kept": best.rung, "blocks": best.k, "tap": best.tap, "base": base.card.name, "rank": rank, "rungs": rows,
        "from": made_from, "interrupted": stopped, "task": standing.task,
        "unlabelled": 0 if standing.pool is None else len(standing.pool[0]),
    }  # fmt: skip


def _saved(
    name: str,
    train: Dataset,
    held: Dataset | None,
    given: Mapping[str, str],
    standing: Ground,
    best: Tried,
    network: Network,
    facts: dict[str, Any],
    clock: Clock,
    *,
    refuse: float,
    seed: int,
    project: Path,
    progress: Progress,
) -> Model:
    with tempfile.TemporaryDirectory(prefix="headstart-") as place:
        folder = Path(place) / "made"
        tuned.write(folder, standing.base, best.tap, best.k, network.changed)
        made = tuned.Tuned.open(folder)
        spread = np.sort(np.random.default_rng(seed).permutation(len(train))[: saved.PROBE_COUNT[train.modality]])
        probes = train.raw(spread)
        with clock("evaluate"):
            apart = _apart(standing, best, network, made, probes)
            test = None
            if held is not None:
                test = readable(held, made, progress=lambda done, total: progress("embedding the test", done, total))
            head = (Ridge if train.task == REGRESSION else Linear)(network.W, network.b)
            why = f"trained together with {best.rung} of {standing.base.card.name}, started from the linear head"
            choice = replace(
                standing.linear, head=head, scores=best.scores[None], why=why, tie=None, views=False, candidates=(),
                pool=standing.pool is not None,
            )  # fmt: skip
            spaces = [
                (np.flatnonzero(standing.fold == part), one.space)
                for part, one in zip(standing.judged, best.networks, strict=True)
            ]
            learned = proof.prove(
                train, network.space, choice, standing.fold[None], standing.groups,
                pool=None if standing.pool is None else standing.pool[1], held=test, refuse=refuse, seed=seed, spaces=spaces,
            )  # fmt: skip
        about = {**backbone_facts(made), "agreement": None, "carried": True}
        told = {**facts, "torch": apart, **made.differs()}
        return keep(
            name, learned, {**learned.facts, **origin(name, seed), "backbone": about, "tuning": told}, made, train,
            project, clock, probes=probes, X=network.space, carried=folder,
        )  # fmt: skip


def _apart(standing: Ground, best: Tried, network: Network, made: Backbone, probes: Any) -> float:
    """How far torch and ONNX Runtime are apart on the probes. Raises ModelError where it is too far."""
    from headstart.training import loop
    from headstart.training.above import Above

    halves = halved(standing.base, best.tap)
    rank = next((value.shape[0] for name, value in network.changed.items() if name.endswith("/down")), None)
    above = Above(halves, network.W, network.b, rank=rank, dropout=0.0)
    above.graph.load(network.changed)
    found = loop.alone(above, halves.states(probes))
    apart = float(np.abs(found - made.encode(probes)).max())
    if not apart <= CLOSE:
        raise ModelError(
            f"torch and ONNX Runtime differ by {apart:.2g} in the features of the probes ({CLOSE:g} is allowed), so the "
            "tuned model was not saved."
        )
    return apart
