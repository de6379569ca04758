"""Make a model's backbone smaller and quicker, and prove on folds what that costs.

Depth first: one pass says how good the features are at every tap. Then, from the cheapest combination up, the network
below a tap has its feed-forward channels pruned, its linear layers turned to 8 bits and its vocabulary cut to what the
user's texts need; the first that loses no more than was allowed is kept. What a step takes from data it takes from two
folds of the examples, and is judged on the others; the network that is kept is made once more with all of them.

Letters: n examples, d feature width, c classes. X (n, d), T (n, c).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import backbones, evaluation
from headstart.backbone import Backbone, Contents, Portable, parts
from headstart.backbones import network
from headstart.choosing import cuts, megabytes, milliseconds, spread
from headstart.compress import channels, fuse, integers, vocabulary
from headstart.dataset import Dataset
from headstart.embedding import readable
from headstart.errors import InputError
from headstart.folds import folds, tied
from headstart.head import CLASSIFICATION, MULTILABEL, REGRESSION
from headstart.selection import judged

MOST = 3_000  # rows the steps are judged on
MADE_FROM = (0, 1)  # folds whose rows the steps are made from; the other three judge
TIMED = 12  # contents the time of one is measured on
TRIES = 6  # combinations that are built
KEPT = (0.25, 0.5, 1.0)  # shares of the feed-forward channels
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

    def loss(self, whole: Step) -> float:
        """How much better the whole is, on the rows that judge."""
        d = whole.right - self.right
        return float(np.nanmean(d))

    def row(self, whole: Step, task: str, groups: NDArray[np.int64]) -> dict[str, Any]:
        """The step as it is shown."""
        held = np.isfinite(self.right)
        if task == CLASSIFICATION:
            found = evaluation.proportion(self.right[held], groups=groups[held])
            accuracy, low, high = found.value, found.low, found.high
        else:
            right = self.right[held] + (1.0 if task == REGRESSION else 0.0)
            half = 1.96 * float(right.std(ddof=1)) / np.sqrt(len(right))
            accuracy, low, high = float(right.mean()), float(right.mean()) - half, min(1.0, float(right.mean()) + half)
        return {
            "name": self.name, "accuracy": accuracy, "low": low, "high": high, "loss": self.loss(whole),
            "agreement": _agreement(self.answers[held], whole.answers[held], task), "mb": round(self.mb, 2),
            "ms": round(self.ms, 3), "n": int(held.sum()), "kept": False,
        }  # fmt: skip


def _agreement(a: NDArray[np.float32], b: NDArray[np.float32], task: str) -> float:
    """The share of rows with the same answer; for a number the correlation."""
    if task == REGRESSION:
        return float(np.corrcoef(a[:, 0], b[:, 0])[0, 1]) if len(a) > 1 else 1.0
    if task == MULTILABEL:
        return float(((a > 0) == (b > 0)).all(1).mean())
    return float((a.argmax(1) == b.argmax(1)).mean())


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

    def step(self, name: str, base: Backbone, X: NDArray[np.float32] | None = None) -> Step:
        """Judge a backbone, on the rows it was not made from."""
        if X is None:
            _, X = readable(self.data, base)
        right, answers = judged(X, self.data.targets(), task=self.data.task, folds=self.fold)
        right[self.making] = np.nan
        return Step(name, base, right, answers, megabytes(base), milliseconds(base, self.timed))


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
    exact = _exact(base)
    exact.portable()  # raises for what has no network
    bench = Bench(data, base, seed)
    whole = bench.step("as it is", base)
    say(f"judging on {int(np.isfinite(whole.right).sum()):,} examples; as it is: {whole.mb:.1f} MB, {whole.ms:.2f} ms")
    steps = [whole]
    if exact.card.fingerprint != base.card.fingerprint:
        steps.append(bench.step("float32", exact))
    shallower = _depths(bench, exact, say)
    steps += [step for step in shallower if step.base.card.cut != exact.card.cut]
    allowed = [step for step in shallower if step.loss(whole) <= max_loss]
    kept: Step | None = None
    for step, keep in _plans(allowed, exact)[:TRIES]:
        with tempfile.TemporaryDirectory(prefix="headstart-") as trial:
            made, name = _made(step.base, bench.contents(everything=False), keep, Path(trial) / "trial")
            tried = bench.step(name, made)
        steps.append(tried)
        say(f"{name}: {100 * tried.loss(whole):+.1f} points lost, {tried.mb:.1f} MB, {tried.ms:.2f} ms")
        if tried.loss(whole) <= max_loss:
            kept = tried
            made, _ = _made(step.base, bench.contents(everything=True), keep, folder)
            break
    rows = [step.row(whole, data.task, bench.groups) for step in steps]
    if kept is None:
        raise NothingSmaller(
            f"nothing smaller keeps within {100 * max_loss:g} points: the nearest of {len(steps) - 1} tried loses "
            f"{100 * min((s.loss(whole) for s in steps[1:]), default=float('nan')):.1f}. Allow more with --max-loss."
        )
    after = rows[steps.index(kept)]
    after["kept"] = True
    facts = {"before": rows[0], "after": after, "steps": rows[1:], "max_loss": max_loss}
    return Shrunk(made, folder, facts)


class NothingSmaller(InputError):
    """No smaller network keeps within the allowed loss."""


def _exact(base: Backbone) -> Backbone:
    """The backbone in float32, where it is built in and runs in int8."""
    card = base.card
    return backbones.load(card.name, cut=card.cut) if card.name == "minilm" else base


def _depths(bench: Bench, exact: Backbone, say: Say) -> list[Step]:
    """Every cut not above the backbone's own, in one pass."""
    depth = {tap.name: i for i, tap in enumerate(exact.taps)}
    deepest = depth.get(exact.card.cut.split("+")[-1].removeprefix("max"), len(depth))
    found = [cut for cut in cuts(exact) if depth.get(cut.split("+")[-1].removeprefix("max"), deepest) <= deepest]
    wide = exact.at("+".join(dict.fromkeys("+".join(found).split("+"))))
    _, X = readable(bench.data, wide)
    pieces = parts(X, wide.card)
    steps = []
    for cut in found:
        names = cut.split("+")
        joined = np.asarray(np.concatenate([pieces[name] for name in names], axis=1) / np.sqrt(len(names)), np.float32)
        steps.append(bench.step(f"cut {cut}", exact.at(cut), joined))
        say(
            f"cut {cut}: accuracy {100 * np.nanmean(steps[-1].right):.1f}, {steps[-1].mb:.1f} MB, {steps[-1].ms:.2f} ms"
        )
    return steps


def _plans(allowed: Sequence[Step], exact: Backbone) -> list[tuple[Step, float]]:
    """Cuts and shares of feed-forward channels, the cheapest first; these are a little more than half of a block's time."""
    share = {tap.name: max(tap.operations, 0.01) for tap in exact.taps}
    shares = KEPT if exact.card.modality == "text" else (1.0,)
    plans = []
    for step in allowed:
        below = share.get(step.base.card.cut.split("+")[-1].removeprefix("max"), 1.0)
        plans += [(below * (0.45 + 0.55 * keep), step, keep) for keep in shares]
    return [(step, keep) for _, step, keep in sorted(plans, key=lambda plan: plan[0])]


def _made(base: Backbone, contents: Contents, keep: float, folder: Path) -> tuple[Backbone, str]:
    """The network below a cut, compressed with what the contents show, as a folder; and its name in words."""
    said = [f"cut {base.card.cut}"]
    portable = base.portable()
    portable, _ = fuse.plain(portable)
    if keep < 1:
        portable, _ = channels.prune(portable, contents, keep=keep)
        said.append(f"{keep:.0%} of the channels")
    portable, _ = integers.quantise(portable, contents)
    said.append("int8")
    if portable.modality == "text":
        portable, facts = vocabulary.prune(portable, contents, most=PIECES)
        said.append(f"{facts.kept:,} of {facts.of:,} pieces")
        portable, _ = vocabulary.narrow(portable, "int8")
    write(portable, base, folder)
    return network.Network.open(folder), ", ".join(said)


def write(portable: Portable, base: Backbone, folder: Path) -> None:
    """A portable network as a backbone's folder."""
    card = base.card
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(portable.model.SerializeToString(deterministic=True))
    if portable.tokeniser:
        (folder / "tokenizer.json").write_bytes(portable.tokeniser)
    network.describe(
        folder, name=f"{card.name}-small", modality=card.modality, licence=card.licence, source=card.source,
        revision=card.revision, preprocessing=portable.preprocessing, tokens=portable.tokens or None, notes=(),
        cut="top", precision="int8",
    )  # fmt: skip
