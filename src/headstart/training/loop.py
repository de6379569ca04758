"""The training loop above a tap: cached states in, a better network and head out; seeded, bounded in memory, resumable.

Letters: n rows, b of them in a batch, t places, c classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headstart import tensors
from headstart.halved import PADDED, Halves
from headstart.head import CLASSIFICATION, MULTILABEL
from headstart.states import States
from headstart.storage import write_file
from headstart.training.above import Above, device
from headstart.training.losses import contrast, wrong

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Tick = Callable[[int, int, float], None]  # steps done, of how many, the loss

PLACES = 8_192  # padded places in one batch, at most: what bounds the memory of a step
JUDGED = 16_384  # the same without gradients
SORTED = 16  # batches that are drawn together and sorted by length, so that little is padded
SAVED = 20.0  # seconds between two notes of where the training stands
WARM = 0.1  # of the steps


@dataclass(frozen=True)
class Recipe:
    """How to train. The figures were chosen on Banking77 and on film reviews; docs/tune.md says how."""

    epochs: int
    rate: float = 3e-4  # of the last block
    decay: float = 0.8  # of the rate, from a block to the one below it
    head: float = 3e-2  # rate of the head
    batch: int = 32
    contrast: float = 0.5  # weight of the contrastive loss
    dropout: float = 0.1
    shrink: float = 0.01  # weight decay
    views: int = 1  # times a row stands in its batch, each time with other places dropped
    rank: int | None = None  # of low-rank updates; None: the whole weights


@dataclass(frozen=True)
class Task:
    """What is trained on: n rows with their states and targets."""

    states: States
    T: Floats  # (n, c): shares of one label, noughts and ones of several, or a number in standard deviations
    weight: Floats  # (n,)
    kind: str  # head.TASKS


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to."""

    loss: float  # mean over its steps
    held: float | None  # loss of the held-out rows
    right: float | None  # their accuracy, or what stands for it


@dataclass(frozen=True)
class Trained:
    """A network that was trained."""

    above: Above
    history: tuple[Epoch, ...]
    epochs: int  # after which the kept weights stood
    scores: Floats | None  # (h, c) of the held-out rows, by the kept weights


class Interrupted(Exception):
    """The time is up: nothing of this training is kept but its checkpoint."""


def train(
    halves: Halves,
    task: Task,
    rows: Rows,
    held: Rows,
    start: tuple[Floats, Floats],
    recipe: Recipe,
    *,
    seed: int,
    decide: bool = False,
    until: int | None = None,
    checkpoint: Path | None = None,
    deadline: float | None = None,
    tick: Tick = lambda done, total, loss: None,
    given: dict[str, Floats] | None = None,
) -> Trained:
    """Train on `rows` from the head `start` (W, b); judge on `held` after every epoch.

    decide: keep the weights of the last epoch that is as good on the held-out rows as the best; else those of epoch
    `until`, or the last. checkpoint: a file from which an interrupted training goes on to the same end. deadline: of
    time.monotonic, after which Interrupted is raised. given: weights to start from, in place of the published ones.
    """
    with _seeded(seed):
        above = Above(halves, *start, rank=recipe.rank, dropout=recipe.dropout)
        if given:
            above.graph.load(given)
        above.to(device())
        return _Run(above, task, rows, held, recipe, seed, checkpoint, deadline, tick).run(decide, until)


def _seeded(seed: int) -> Any:
    """Random numbers of torch's own, seeded, that leave those of the caller alone."""

    class Seeded:
        def __enter__(self) -> None:
            self.fork = torch.random.fork_rng(range(torch.cuda.device_count()))
            self.fork.__enter__()
            torch.manual_seed(seed)

        def __exit__(self, *error: Any) -> None:
            self.fork.__exit__(*error)

    return Seeded()


def batches(
    lengths: Rows, rows: Rows, size: int, seed: tuple[int, ...], places: int = PLACES, *, padded: bool = True
) -> list[Rows]:
    """One epoch's batches: every row once, at random, rows of like length together, none above `places`.

    padded: whether rows of different lengths may stand in one batch.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(rows)
    drawn = size * int(np.clip(len(rows) // (4 * size), 1, SORTED))
    found: list[Rows] = []
    for low in range(0, len(order), drawn):
        some = order[low : low + drawn]
        some = some[np.argsort(lengths[some], kind="stable")] if drawn > size else some
        for start in range(0, len(some), size):
            found += _bounded(lengths, some[start : start + size], places, padded)
    return [found[i] for i in rng.permutation(len(found))]


def _bounded(lengths: Rows, batch: Rows, places: int, padded: bool) -> list[Rows]:
    if not padded and len(np.unique(lengths[batch])) > 1:
        order = batch[np.argsort(lengths[batch], kind="stable")]
        edges = np.flatnonzero(np.diff(lengths[order])) + 1
        return [part for some in np.split(order, edges) for part in _bounded(lengths, some, places, True)]
    most = max(1, places // int(lengths[batch].max(initial=1)))  # rows
    return np.array_split(batch, max(1, -(-len(batch) // most)))


def _padded(halves: Halves) -> bool:
    """Whether rows of different lengths may be run together."""
    return halves.masked or halves.kind not in PADDED


def features(above: Above, task: Task, rows: Rows) -> Floats:
    """(len(rows), d) features of rows, by the network as it stands."""
    found: Floats = np.empty((len(rows), above.W.shape[0]), np.float32)
    for at, F in _judging(above, task, rows):
        found[at] = F.cpu().numpy()
    return found


def alone(above: Above, states: Sequence[Floats]) -> Floats:
    """(n, d) features of n states, each run by itself."""
    above.eval()
    with torch.no_grad():
        found = [above.features(torch.from_numpy(one[None]), torch.tensor([len(one)])) for one in states]
    return np.asarray(torch.cat(found).numpy(), np.float32)


def _judging(above: Above, task: Task, rows: Rows) -> Iterator[tuple[Rows, Any]]:
    above.eval()
    lengths = task.states.lengths[rows]
    order = np.argsort(-lengths, kind="stable")
    with torch.no_grad():
        for part in np.array_split(order, max(1, -(-len(order) // 128))):
            for at in _bounded(lengths, part, JUDGED, _padded(above.halves)):
                if len(at):
                    yield at, _features(above, task, rows[at])


def _features(above: Above, task: Task, batch: Rows) -> Any:
    where = above.W.device
    states = torch.from_numpy(task.states.batch(batch)).to(where)
    lengths = torch.from_numpy(task.states.lengths[batch]).to(where)
    faster = torch.autocast("cuda", torch.bfloat16) if where.type == "cuda" else nullcontext()
    with faster:
        found = above.features(states, lengths)
    return found.float()


class _Run:
    """One training: what changes from step to step, all of which a checkpoint holds."""

    def __init__(
        self, above: Above, task: Task, rows: Rows, held: Rows, recipe: Recipe, seed: int, checkpoint: Path | None,
        deadline: float | None, tick: Tick,
    ) -> None:  # fmt: skip
        self.above, self.task, self.rows, self.held = above, task, rows, held
        self.recipe, self.seed, self.checkpoint, self.deadline, self.tick = recipe, seed, checkpoint, deadline, tick
        self.optimiser = torch.optim.AdamW(
            above.groups(recipe.rate, recipe.decay, recipe.head, recipe.shrink), betas=(0.9, 0.98), fused=True
        )
        self.rates = [group["lr"] for group in self.optimiser.param_groups]
        self.parameters = [one for group in self.optimiser.param_groups for one in group["params"]]
        self.T = torch.from_numpy(task.T).to(above.W.device)
        self.weight = torch.from_numpy(task.weight).to(above.W.device)
        self.history: list[Epoch] = []
        self.losses: list[float] = []
        self.epoch = self.step = self.place = 0  # place: batches of this epoch that are done
        self.kept: list[tuple[list[Any], Floats]] = []  # weights and scores of each epoch, where one is to be chosen
        self.saved = time.monotonic()
        self.sound = True  # whether all that changes belongs to one and the same step: Ctrl-C comes when it likes

    def run(self, decide: bool, until: int | None) -> Trained:
        last = until if until is not None else self.recipe.epochs
        total = self.recipe.epochs * len(self._batches(0))
        if self.checkpoint is not None and self.checkpoint.exists():
            self.restore()
        try:
            while self.epoch < last:
                self._epoch(total)
                self._judge(decide)
        except (KeyboardInterrupt, Interrupted):
            if self.sound:
                self.save()
            raise
        if decide and self.history and len(self.held):
            chosen = _chosen(self.history, len(self.held))
            weights, scores = self.kept[chosen]
            with torch.no_grad():
                for one, value in zip(self.parameters, weights, strict=True):
                    one.copy_(value)
            return self._trained(chosen + 1, scores)
        return self._trained(last, self._scores() if len(self.held) else None)

    def _trained(self, epochs: int, scores: Floats | None) -> Trained:
        self.above.eval()
        return Trained(self.above, tuple(self.history), epochs, scores)

    def _batches(self, epoch: int) -> list[Rows]:
        return batches(
            self.task.states.lengths,
            self.rows,
            self.recipe.batch,
            (self.seed, epoch),
            padded=_padded(self.above.halves),
        )

    def _epoch(self, total: int) -> None:
        """Take the steps of this epoch that are not done yet."""
        todo = self._batches(self.epoch)
        for batch in todo[self.place :]:
            if self.deadline is not None and time.monotonic() > self.deadline:
                raise Interrupted
            share = (self.step + 1) / max(total, 1)
            scale = min(1.0, share / WARM) * min(1.0, max(0.0, 1 - share) / (1 - WARM))
            for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
                group["lr"] = rate * scale
            self.sound = False
            self.losses.append(self._step(batch))
            self.step, self.place = self.step + 1, self.place + 1
            self.sound = True
            self.tick(self.step, total, self.losses[-1])
            if self.checkpoint is not None and time.monotonic() - self.saved > SAVED:
                self.save()

    def _step(self, batch: Rows) -> float:
        self.above.train()
        batch = np.tile(batch, self.recipe.views)
        F = _features(self.above, self.task, batch)
        T, weight = self.T[batch], self.weight[batch]
        rows = wrong(self.above.scores(F), T, self.task.kind)
        loss = (rows * weight).sum() / weight.sum().clamp_min(1e-12)
        if self.recipe.contrast and self.task.kind in (CLASSIFICATION, MULTILABEL) and len(batch) > 1:
            loss = loss + self.recipe.contrast * contrast(F, T, weight, several=self.task.kind == MULTILABEL)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        return float(loss.detach())

    def _scores(self) -> Floats:
        found = np.empty((len(self.held), self.T.shape[1]), np.float32)
        for at, F in _judging(self.above, self.task, self.held):
            found[at] = self.above.scores(F).cpu().numpy()
        return found

    def _judge(self, keep: bool) -> None:
        """Note how the epoch went."""
        epoch = Epoch(float(np.mean(self.losses)) if self.losses else 0.0, None, None)
        kept = []
        if len(self.held):
            T = self.task.T[self.held]
            with torch.no_grad():
                scores = self._scores()
                held = float(wrong(torch.from_numpy(scores), torch.from_numpy(T), self.task.kind).mean())
            epoch = Epoch(epoch.loss, held, _right(scores, T, self.task.kind))
            kept = [([one.detach().cpu().clone() for one in self.parameters], scores)] if keep else []
        self.sound = False
        self.history, self.kept, self.losses = [*self.history, epoch], [*self.kept, *kept], []
        self.epoch, self.place = self.epoch + 1, 0
        self.sound = True

    def save(self) -> None:
        """Note where the training stands, atomically."""
        if self.checkpoint is None:
            return
        arrays: dict[str, Any] = {}
        for i, one in enumerate(self.parameters):
            arrays[f"value.{i}"] = one.detach()
            arrays |= {f"{name}.{i}": value for name, value in self.optimiser.state.get(one, {}).items()}
        for e, (weights, scores) in enumerate(self.kept):
            arrays |= {f"kept.{e}.{i}": value for i, value in enumerate(weights)} | {f"scores.{e}": scores}
        arrays["random"] = torch.get_rng_state()
        if self.above.W.device.type == "cuda":
            arrays["random.cuda"] = torch.cuda.get_rng_state()
        none = [[np.nan if x is None else x for x in (e.loss, e.held, e.right)] for e in self.history]
        arrays["nothing"] = np.isnan(np.array(none, np.float64).reshape(-1, 3)).astype(np.uint8)
        arrays["history"] = np.nan_to_num(np.array(none, np.float64).reshape(-1, 3))
        arrays["losses"] = np.array(self.losses, np.float64)
        arrays["at"] = np.array([self.epoch, self.step, self.place], np.int64)
        plain = {k: v if isinstance(v, np.ndarray) else v.cpu().numpy() for k, v in arrays.items()}
        write_file(self.checkpoint, tensors.packed(plain))
        self.saved = time.monotonic()

    def restore(self) -> None:
        """Go on where the checkpoint stands. Raises ModelError on one that is damaged."""
        assert self.checkpoint is not None
        arrays = {name: torch.from_numpy(np.array(value)) for name, value in tensors.load(self.checkpoint).items()}
        with torch.no_grad():
            for i, one in enumerate(self.parameters):
                one.copy_(arrays[f"value.{i}"])
                names = ("step", "exp_avg", "exp_avg_sq")
                there = {name: arrays[f"{name}.{i}"] for name in names if f"{name}.{i}" in arrays}
                if there:
                    self.optimiser.state[one] = {
                        k: v.to(one.device) if k != "step" or one.is_cuda else v for k, v in there.items()
                    }
        self.epoch, self.step, self.place = (int(x) for x in arrays["at"])
        self.losses = arrays["losses"].tolist()
        rows = zip(arrays["history"].tolist(), arrays["nothing"].tolist(), strict=True)
        self.history = [Epoch(*(None if n else x for x, n in zip(xs, ns, strict=True))) for xs, ns in rows]  # type: ignore[arg-type]
        epochs = sum(name.startswith("scores.") for name in arrays)
        self.kept = [
            ([arrays[f"kept.{e}.{i}"] for i in range(len(self.parameters))], arrays[f"scores.{e}"].numpy())
            for e in range(epochs)
        ]
        torch.set_rng_state(arrays["random"])
        if "random.cuda" in arrays:
            torch.cuda.set_rng_state(arrays["random.cuda"])


def _right(Z: Floats, T: Floats, kind: str) -> float:
    """Accuracy; for several labels the share of labels that are right; for a number 1 minus the squared error."""
    if kind == CLASSIFICATION:
        return float((Z.argmax(1) == T.argmax(1)).mean())
    if kind == MULTILABEL:
        return float(((Z > 0) == (T > 0.5)).mean())
    return float(1 - ((Z - T) ** 2).mean())


def _chosen(history: list[Epoch], n: int) -> int:
    """The last epoch whose held-out rows are right as often as in the best, give or take half a standard error."""
    right = np.array([epoch.right for epoch in history], np.float64)
    best = float(right.max())
    give = 0.5 * np.sqrt(max(best * (1 - best), 0.25 / n) / n)
    return int(np.flatnonzero(right >= best - give)[-1])
