"""Make a model's backbone smaller and quicker, and prove on folds what that costs.

Depth first: one pass says how good the features are at every tap. Then, from the shallowest tap that keeps to the loss,
the network below it has its layers turned to 8 bits and its vocabulary cut to what the user's texts need, and then, while
the loss allows it, its feed-forward channels pruned: half of them, three quarters. The quickest that keeps to the loss is
kept; what would be no quicker is not made. What a step takes from data it takes from two folds of the examples, and is
judged on the others; the network that is kept is made once more with all of them. Which one is kept is decided by the
figures that are shown, so that its loss is a little larger than it looks; the interval says how much.

Letters: n examples, d feature width, c classes. X (n, d), T (n, c).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import backbones
from headstart.backbone import Backbone, Contents, Portable, joined, parts
from headstart.backbones import network
from headstart.candidates import cuts, megabytes, milliseconds, share_below
from headstart.choosing import figure, mean, points, spread
from headstart.compress import channels, fuse, integers, vocabulary
from headstart.dataset import Dataset
from headstart.embedding import readable
from headstart.errors import InputError
from headstart.folds import folds, tied
from headstart.head import CLASSIFICATION
from headstart.selection import agreement, judged

MOST = 3_000  # rows the steps are judged on
MADE_FROM = (0, 1)  # folds whose rows the steps are made from; the other three judge
TIMED = 12  # contents the time of one is measured on
TRIES = 6  # combinations that are built
LEAST = 30  # rows that judge, at least
ALIKE = 1.2  # times that differ by less are the same: then fewer operations and megabytes decide
KEPT = (1.0, 0.5, 0.25)  # shares of the feed-forward channels
ENOUGH = 200  # texts to prune channels on: with fewer the layers that are fitted anew do not hold on other texts
PIECES = 12_000  # of the vocabulary, at most

Floats = NDArray[np.float64]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """One smaller network, and what it costs."""

    name: str
    base: Backbone
    right: Floats  # (n,) out of fold
    answers: NDArray[np.float32]  # (n, c) out of fold
    mb: float
    ms: float
    notes: tuple[str, ...] = ()  # what could not be done, and why
    seconds: float = 0.0  # to make and judge it

    def loss(self, whole: Step) -> float:
        """How much better the whole is, on the rows that judge."""
        d = whole.right - self.right
        return float(np.nanmean(d))

    def row(self, whole: Step, task: str, groups: NDArray[np.int64]) -> dict[str, Any]:
        """The step as it is shown."""
        held = np.isfinite(self.right)
        accuracy, low, high = figure(self.right, groups, task)
        loss, give = (0.0, 0.0) if self is whole else mean((whole.right - self.right)[held], groups[held])
        return {
            "name": self.name, "accuracy": accuracy, "low": low, "high": high, "loss": loss, "loss_low": loss - give,
            "loss_high": loss + give, "agreement": agreement(self.answers[held], whole.answers[held], task),
            "mb": round(self.mb, 2), "ms": round(self.ms, 3), "n": int(held.sum()), "kept": False, "notes": list(self.notes),
            "seconds": round(self.seconds, 1),
        }  # fmt: skip


@dataclass(frozen=True)
class Shrunk:
    """The network that is kept, and everything that was tried."""

    base: Backbone
    folder: Path | None  # where its files lie; None when the backbone is a known one, only cut or in another precision
    facts: dict[str, Any]  # before, after, steps


class Bench:
    """The rows that steps are made from and judged on."""

    def __init__(self, data: Dataset, base: Backbone, seed: int) -> None:
        data, _ = readable(data, base)
        self.data = data.take(spread(data, MOST, seed))
        self.groups = tied(*(() if self.data.group is None else (self.data.group,)), keys=self.data.keys)
        target = self.data.y if self.data.task == CLASSIFICATION else self.data.T
        self.fold = folds(target, groups=self.groups, seed=seed)[0]
        self.making = np.flatnonzero(np.isin(self.fold, MADE_FROM))
        self.timed = self.data.raw(spread(self.data, TIMED, seed))

    def contents(self, *, everything: bool) -> Contents:
        """What a step may look at."""
        return self.data.raw() if everything else self.data.raw(self.making)

    def step(
        self, name: str, base: Backbone, X: NDArray[np.float32] | None = None, notes: tuple[str, ...] = ()
    ) -> Step:
        """Judge a backbone, on the rows it was not made from."""
        start = time.perf_counter()
        if X is None:
            _, X = readable(self.data, base)
        right, answers = judged(X, self.data.targets(), task=self.data.task, folds=self.fold)
        right[self.making] = np.nan
        ms = milliseconds(base, self.timed)
        return Step(name, base, right, answers, megabytes(base), ms, notes, time.perf_counter() - start)


def shrink(
    base: Backbone,
    data: Dataset,
    folder: Path,
    *,
    max_loss: float,
    seed: int = 0,
    say: Say = lambda line: None,
) -> Shrunk:
    """The quickest network made from `base` that loses at most `max_loss` (a share) on labelled data; files in `folder`.

    Raises InputError for a backbone without a network, or when nothing smaller keeps to the loss.
    """
    if _in_integers(base):
        raise InputError(
            f"the network of {base.card.name} is in 8-bit integers already, so there is little left to take; shrink a model "
            "on the base as it was published."
        )
    exact = backbones.exact(base)
    exact.portable()  # raises for what has no network
    bench = Bench(data, base, seed)
    whole = bench.step("as it is", base)
    n = int(np.isfinite(whole.right).sum())
    if n < LEAST:
        raise InputError(
            f"{len(bench.data):,} labelled examples leave {n:,} to judge on, too few to see a loss; give more with --data."
        )
    say(f"judging on {n:,} examples; as it is: {_told(whole, whole, data.task)}")
    steps, shallower = [whole], _depths(bench, exact, whole, say)
    steps += [step for step in shallower if step.base.card.fingerprint != base.card.fingerprint]
    allowed = [step for step in shallower if step.loss(whole) <= max_loss or step is shallower[-1]]
    kept, found = None, list[Step]()
    for plans in _plans(allowed, exact, len(bench.making), say):
        for plan in plans:
            if len(found) == TRIES or (kept is not None and plan.cost >= kept[0].cost):
                continue
            start = time.perf_counter()
            with tempfile.TemporaryDirectory(prefix="headstart-") as trial:
                made = _made(plan, bench.contents(everything=False), Path(trial) / "trial")
                if made is None:
                    break
                tried = bench.step(made.name, made.base, notes=made.notes)
            found.append(replace(tried, seconds=time.perf_counter() - start))
            say(f"{tried.name}: {_told(found[-1], whole, data.task)}")
            if tried.loss(whole) > max_loss or (tried.mb >= whole.mb and tried.ms >= whole.ms):
                break
            if kept is not None and tried.ms > ALIKE * kept[1].ms:
                break
            kept = plan, found[-1]
    steps += found
    rows = [step.row(whole, data.task, bench.groups) for step in steps]
    if kept is None:
        least = f": the nearest loses {points(min(s.loss(whole) for s in found), data.task)}" if found else ""
        raise NothingSmaller(
            f"nothing smaller keeps within {points(max_loss, data.task)}{least}. Allow more with --max-loss, or give more "
            "examples with --data."
        )
    say(f"kept: {kept[1].name}; it is made once more with all {len(bench.data):,} examples")
    final = _made(kept[0], bench.contents(everything=True), folder)
    assert final is not None
    after = rows[steps.index(kept[1])]
    after["kept"] = True
    facts = {"before": rows[0], "after": after, "steps": rows[1:], "max_loss": max_loss, "task": data.task}
    return Shrunk(final.base, folder, facts)


def _told(step: Step, whole: Step, task: str) -> str:
    """A step in a line."""
    lost = "" if step is whole else f"{points(step.loss(whole), task)} lost, "
    return f"{lost}{step.mb:.1f} MB, {step.ms:.2f} ms ({step.seconds:.1f} s)"


class NothingSmaller(InputError):
    """No smaller network keeps within the allowed loss."""


def _in_integers(base: Backbone) -> bool:
    """Whether its published network, not only the one that runs, is in 8-bit integers."""
    return base.card.precision != "float32" and base.card.name not in backbones.USUAL.values()


def _depths(bench: Bench, exact: Backbone, whole: Step, say: Say) -> list[Step]:
    """Every cut not above the backbone's own, in one pass, its own the last."""
    own = share_below(exact, exact.card.cut)
    found = [cut for cut in cuts(exact) if share_below(exact, cut) <= own and cut != exact.card.cut] + [exact.card.cut]
    wide = exact.at("+".join(dict.fromkeys("+".join(found).split("+"))))
    _, X = readable(bench.data, wide)
    pieces = parts(X, wide.card)
    steps: list[Step] = []
    for cut in found:
        name = f"cut {cut}" + (", float32" if cut == exact.card.cut else "")
        steps.append(bench.step(name, exact.at(cut), joined(pieces, cut)))
        say(f"{name}: {_told(steps[-1], whole, bench.data.task)}")
    return steps


@dataclass(frozen=True)
class Plan:
    """A combination that can be made."""

    base: Backbone
    keep: float  # share of the feed-forward channels
    bits: bool  # 8 in the layers
    pieces: bool  # a smaller vocabulary, in 8 bits; else the whole one in 16
    cost: float  # guessed share of the operations


def _plans(allowed: Sequence[Step], exact: Backbone, making: int, say: Say) -> list[list[Plan]]:
    """Combinations to try in order; those behind one that loses too much are left out.

    The feed-forward channels are a little more than half of a block's time.
    """
    text = exact.card.modality == "text"
    enough = text and making >= ENOUGH
    if text and not enough:
        say(f"the channels stay: {making:,} texts are too few to fit layers to fewer of them")
    plans: list[list[Plan]] = []
    for step in allowed:
        base, below = step.base, max(share_below(exact, step.base.card.cut), 0.01)
        plans.append(
            [Plan(base, keep, True, text, below * (0.45 + 0.55 * keep)) for keep in KEPT[: 3 if enough else 1]]
        )
        if not text and base.card.cut != exact.card.cut:
            plans.append([Plan(base, 1.0, False, False, 1.5 * below)])
    if text:
        plans.append([Plan(allowed[-1].base, 1.0, True, False, 1.1)])
    return plans


@dataclass(frozen=True)
class Made:
    """A network made smaller, as a folder."""

    base: Backbone
    name: str
    notes: tuple[str, ...]


def _made(plan: Plan, contents: Contents, folder: Path) -> Made | None:
    """The network below a cut, compressed with what the contents show; None where it has no channels to prune.

    What cannot be done to a network is left out and said: no linear layer, a vocabulary of a kind that cannot be cut.
    """
    said, notes = [f"cut {plan.base.card.cut}"], list[str]()
    portable, _ = fuse.plain(plan.base.portable())
    if plan.keep < 1:
        if not channels.pairs(portable.model):
            return None
        try:
            portable, facts = channels.prune(portable, contents, keep=plan.keep)
        except InputError:  # too few tokens; that all channels stay was tried before
            return None
        said.append(f"{facts.kept / max(facts.of, 1):.0%} of the channels")
    if plan.bits:
        try:
            portable, _ = integers.quantise(portable, contents)
            said.append("int8")
        except InputError as error:
            notes.append(str(error))
    if plan.pieces:
        try:
            portable, facts = vocabulary.prune(portable, contents, most=PIECES)
            said.append(f"{facts.kept:,} of {facts.of:,} pieces")
        except InputError as error:
            notes.append(str(error))
    if portable.modality == "text":
        try:
            portable, _ = vocabulary.narrow(portable, kind := "int8" if plan.pieces else "float16")
            said.append(f"pieces in {kind}")
        except InputError as error:
            notes.append(str(error))
    write(portable, plan.base, folder, "int8" if len(said) > 1 else "float32")
    return Made(network.Network.open(folder), ", ".join(said), tuple(dict.fromkeys(notes)))


def write(portable: Portable, base: Backbone, folder: Path, precision: str) -> None:
    """A portable network as a backbone's folder."""
    card = base.card
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(portable.model.SerializeToString(deterministic=True))
    if portable.tokeniser:
        (folder / "tokenizer.json").write_bytes(portable.tokeniser)
    network.describe(
        folder, name=f"{card.name}-small", modality=card.modality, licence=card.licence, source=card.source,
        revision=card.revision, preprocessing=portable.preprocessing, tokens=portable.tokens or None,
        notes=[f"made from {said}"] if (said := getattr(base, "said", None)) else (),
        cut="top", precision=precision,
    )  # fmt: skip
