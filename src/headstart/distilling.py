"""Teach a small student what a model knows: its probabilities, on rows with and without labels (Hinton et al. 2015).

static: token vectors in place of a network. blocks:k: the first k blocks of the base, retrained. mlp: a small network on
the frozen features of the base, which many models share.

The student that is measured has not seen the rows it is measured on; but the teacher has, so that its figures are a
little too good where no test set is given. The student that is kept is trained on all rows.

Letters: n rows with a label, m without, d feature width, c classes.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import backbones, proof, saved, tuning
from headstart.backbone import Backbone
from headstart.backbones import static, tuned
from headstart.candidates import cuts, megabytes, share_below
from headstart.choosing import figure
from headstart.dataset import Dataset
from headstart.embedding import readable
from headstart.errors import InputError, near
from headstart.features import pick
from headstart.folds import folds, tied
from headstart.ground import FEW, MOST_POOL, ground
from headstart.head import CLASSIFICATION, MULTILABEL, REGRESSION, Head
from headstart.keeping import Clock, backbone_facts, keep, origin
from headstart.model import Model
from headstart.progress import Progress
from headstart.selection import Choice, agreement, right
from headstart.tuning import Say

Floats = NDArray[np.float32]
TIMED = 400  # contents that speed is measured on
SHOWN = 20  # disagreements kept in the facts
KINDS = ("static", "blocks:K", "mlp")


@dataclass(frozen=True)
class Lesson:
    """What a student learns from: n rows with labels, m without, and the teacher's answers to both."""

    rows: Dataset
    pool: Dataset | None
    P: Floats  # (n + m, c) the teacher's probabilities, or its numbers
    fold: NDArray[np.integer[Any]]  # (n,); rows of fold 0, 1, ... are held out in turn, -1 never
    seed: int

    def learned(self, part: int | None) -> NDArray[np.int64]:
        """The places, of n + m, that are learned from while fold `part` is held out; None: all."""
        n = len(self.rows)
        kept = np.arange(n) if part is None else np.flatnonzero(self.fold != part)
        return np.concatenate([kept, np.arange(n, len(self.P))])

    def sampled(self, most: int) -> Lesson:
        """The same with at most so many rows without labels."""
        if self.pool is None or len(self.pool) <= most:
            return self
        n, m = len(self.rows), len(self.pool)
        some = np.sort(np.random.default_rng(self.seed).permutation(m)[:most])
        return replace(self, pool=self.pool.take(some), P=np.concatenate([self.P[:n], self.P[n + some]]))

    def texts(self, places: NDArray[np.int64]) -> list[str]:
        """Texts at ascending places."""
        n = len(self.rows)
        found = pick(self.rows.contents, places[places < n])
        return found if self.pool is None else found + pick(self.pool.contents, places[places >= n] - n)


@dataclass(frozen=True)
class Student:
    """A student: the backbone below it and its head; what it answered to rows it had not seen."""

    base: Backbone
    head: Head
    X: Floats  # (n, d) features of the rows with labels
    scores: Floats  # (n, c) NaN where not held out
    folder: Path | None  # of a backbone of its own
    spaces: proof.Spaces = ()


def kind(to: str) -> tuple[str, int]:
    """What `--to` says: static, blocks with their number, or mlp. Raises InputError."""
    name, _, number = to.partition(":")
    if to in ("static", "mlp"):
        return to, 0
    if name == "blocks" and number.isascii() and number.isdigit() and int(number) > 0:
        return name, int(number)
    raise InputError(
        f"--to {to}: a student is static, blocks:K with a number such as blocks:3, or mlp.{near(to, KINDS)}"
    )


def distil(
    teacher: Model,
    name: str,
    train: Dataset,
    held: Dataset | None,
    pool: Dataset | None,
    clock: Clock,
    *,
    to: str,
    base: Backbone | None = None,
    max_mb: float = 8.0,
    refuse: float = 0.05,
    seed: int = 0,
    project: Path,
    say: Say,
    progress: Progress,
) -> tuple[Model, dict[str, Any]]:
    """Train the student, measure it beside its teacher, and save it. base: another one than the teacher's.

    Returns the model and {from, to, teacher, student, agreement, n, disagree, ...}. Raises InputError, MissingExtra.
    """
    what, k = kind(to)
    with clock("embed"):
        train, X = readable(train, teacher.backbone, progress=partial(progress, "the teacher's features"))
        U = None
        if pool is not None:
            pool, U = readable(pool, teacher.backbone, progress=partial(progress, "the teacher's features, unlabelled"))
    both = X if U is None else np.concatenate([X, U])
    lesson = Lesson(train, pool, teacher.answer(both).P, _dealt(train, seed), seed)
    say(f"teacher {teacher.name}: {len(lesson.P):,} answers to learn from")
    with tempfile.TemporaryDirectory(prefix="headstart-") as place:
        folder = Path(place) / "made"
        with clock("fit"):
            student = _taught(teacher, lesson, what, k, base, folder, max_mb, progress, say)
        facts = _facts(teacher, student, lesson, to)
        say(
            f"the student is {facts['smaller']:.1f} times smaller and {facts['quicker']:.1f} times as quick, and gives "
            f"{100 * facts['agreement']:.1f} % of the teacher's answers"
        )
        return _kept(teacher, name, student, lesson, held, facts, clock, refuse, project, progress), facts


def _taught(
    teacher: Model, lesson: Lesson, what: str, k: int, base: Backbone | None, folder: Path, max_mb: float,
    progress: Progress, say: Say,
) -> Student:  # fmt: skip
    if what == "static":
        return _static(teacher, lesson, folder, max_mb, progress)
    under = base if base is not None else getattr(teacher.backbone, "base", teacher.backbone)
    if what == "blocks":
        return _blocks(lesson, under, k, folder, progress, say)
    own = under is teacher.backbone and teacher.card["backbone"].get("carried")
    if own and teacher.card["backbone"].get("learned"):
        raise InputError(
            f"the network of model {teacher.name!r} was itself learned from these examples, so a head on it cannot be "
            "measured on them; use --to static, or name a --backbone."
        )
    return _mlp(lesson, under, teacher.folder if own else None, progress)


def _dealt(train: Dataset, seed: int) -> NDArray[np.integer[Any]]:
    """Folds (n,): all five up to FEW rows, else one of ten; -1 is never held out."""
    groups = tied(*(() if train.group is None else (train.group,)), keys=train.keys)
    target = train.y if train.task == CLASSIFICATION else train.T
    fold = folds(target, k=5 if len(train) <= FEW else 10, groups=groups, seed=seed)[0]
    fold = fold if len(train) <= FEW else np.where(fold == 0, 0, -1)
    if not (fold >= 0).any():
        raise InputError(f"{train.name}: too few examples to hold any out; give more with --data.")
    return fold


def _static(teacher: Model, lesson: Lesson, folder: Path, max_mb: float, progress: Progress) -> Student:
    """Token vectors, from the teacher's own where it has them."""
    from headstart.training import static as lessons

    if teacher.modality != "text":
        raise InputError("a static student is made of words, and this model reads pictures: use --to blocks:K or mlp.")
    portable = teacher.backbone.portable()
    start = lessons.embeddings(portable)

    def taught(part: int | None, what: str) -> Any:
        rows = lesson.learned(part)
        return lessons.student(
            lesson.texts(rows), lesson.P[rows], tokeniser=portable.tokeniser, start=start, megabytes=max_mb,
            seed=lesson.seed, task=teacher.task, tokens=portable.tokens,
            progress=lambda share: progress(what, int(100 * share), 100),
        )  # fmt: skip

    n = len(lesson.rows)
    everything = lesson.texts(np.arange(n))
    scores, spaces = np.full((n, lesson.P.shape[1]), np.nan, np.float32), []
    judged = range(int(lesson.fold.max()) + 1)
    for number in judged:
        student = taught(number, f"static student, fold {number + 1} of {len(judged)}")
        out = np.flatnonzero(lesson.fold == number)
        with tempfile.TemporaryDirectory(prefix="headstart-") as trial:
            space = _written(student, teacher, Path(trial) / "trial").encode(everything)
        scores[out] = student.head.scores(space[out])
        spaces.append((out, space))
    student = taught(None, "static student, all rows")
    made = _written(student, teacher, folder)
    return Student(made, student.head, made.encode(everything), scores, folder, spaces)


def _written(student: Any, teacher: Model, folder: Path) -> static.Static:
    card = teacher.backbone.card
    folder.mkdir(parents=True, exist_ok=True)
    static.write(
        folder, student.vectors, name=f"{card.name}-static", source=card.source, licence=card.licence,
        teacher=str(teacher.card["digest"]),
    )  # fmt: skip
    return static.Static.open(folder)


def _mlp(lesson: Lesson, base: Backbone, carried: Path | None, progress: Progress) -> Student:
    """A small network on frozen features; `carried`: the folder the base lies in, where it is the teacher's own."""
    from headstart.training import mlp

    _, X = readable(lesson.rows, base, progress=partial(progress, "frozen features"))
    both = X
    if lesson.pool is not None:
        both = np.concatenate(
            [X, readable(lesson.pool, base, progress=partial(progress, "frozen features, unlabelled"))[1]]
        )

    def taught(part: int | None, what: str) -> Head:
        rows = lesson.learned(part)
        return mlp.student(
            both[rows], lesson.P[rows], seed=lesson.seed, task=lesson.rows.task,
            progress=lambda share: progress(what, int(100 * share), 100),
        )  # fmt: skip

    scores = np.full((len(X), lesson.P.shape[1]), np.nan, np.float32)
    judged = range(int(lesson.fold.max()) + 1)
    for number in judged:
        out = lesson.fold == number
        scores[out] = taught(number, f"mlp, fold {number + 1} of {len(judged)}").scores(X[out])
    return Student(base, taught(None, "mlp, all rows"), X, scores, carried)


def _blocks(lesson: Lesson, base: Backbone, k: int, folder: Path, progress: Progress, say: Say) -> Student:
    """The first blocks of the base, all retrained on the teacher's answers."""
    base = backbones.exact(base)
    tuned.ready(base)
    whole = base.at(base.card.cut)
    short = [cut for cut in cuts(whole) if share_below(whole, cut) < share_below(whole, whole.card.cut)]
    found = {tuning.taps(whole.at(cut))[-1][1]: cut for cut in short if tuning.taps(whole.at(cut))}
    if k not in found:
        raise InputError(
            f"--to blocks:{k}: a student of {base.card.name} can have {', '.join(map(str, sorted(found))) or 'no'} blocks."
        )
    student = whole.at(found[k])
    tap, blocks = tuning.taps(student)[-1]
    _, X = readable(lesson.rows, student, progress=partial(progress, "features of the student"))
    lesson = lesson.sampled(MOST_POOL)
    pool = None if lesson.pool is None else readable(lesson.pool, student)
    standing = ground(student, lesson.rows, X, seed=lesson.seed, pool=pool, fold=lesson.fold, strict=False)
    standing = replace(standing, soft=lesson.P)
    step = (tap, blocks, f"blocks:{k}")
    with tempfile.TemporaryDirectory(prefix="headstart-") as journal:
        one = next(tuning.climb(standing, [step], folder=Path(journal), say=say, progress=progress))
        network, _ = tuning.final(standing, one, folder=Path(journal), say=say, progress=progress)
    tuned.write(folder, student, tap, blocks, network.changed)
    made = tuned.Tuned.open(folder)
    head = replace(standing.linear.head, W=network.W, b=network.b)  # type: ignore[type-var]
    spaces = [
        (np.flatnonzero(standing.fold == part), each.space)
        for part, each in zip(standing.judged, one.networks, strict=True)
    ]
    return Student(made, head, network.space, one.scores, folder, spaces)


def _facts(teacher: Model, student: Student, lesson: Lesson, to: str) -> dict[str, Any]:
    """The piece "distilled" of the facts."""
    rows, task = lesson.rows, teacher.task
    held = np.flatnonzero(np.isfinite(student.scores).all(1))
    P, T = lesson.P[: len(rows)], rows.targets()
    taught = P if task == REGRESSION else P - 0.5 if task == MULTILABEL else P
    groups = tied(*(() if rows.group is None else (rows.group,)), keys=rows.keys)
    out = np.full(len(rows), np.nan)
    out[held] = right(student.scores[held], T[held], task)
    known = np.full(len(rows), np.nan)
    known[held] = right(taught[held], T[held], task)
    sample = rows.raw(np.unique(np.linspace(0, len(rows) - 1, TIMED).astype(int)))
    speed = [_speed(one, sample) for one in (teacher.backbone, student.base)]
    size = [_size(teacher), _megabytes(student)]
    both = zip(("teacher", "student"), (known, out), speed, size, strict=True)
    found: dict[str, Any] = {"from": teacher.name, "to": to, "n": len(held), "unlabelled": len(lesson.P) - len(rows)}
    own = teacher.card["figures"]["estimate"]  # by heads and networks that had not seen the rows
    for what, hits, rate, mb in both:
        value, low, high = figure(hits, groups, task)
        if what == "teacher" and own is not None and task == CLASSIFICATION:
            value, low, high = own["accuracy"], own["low"], own["high"]
        found[what] = {"accuracy": value, "low": low, "high": high, "per_second": round(rate, 1), "mb": round(mb, 3)}
    return {
        **found, "agreement": agreement(student.scores[held], taught[held], task), "quicker": speed[1] / max(speed[0], 1e-9),
        "smaller": size[0] / max(size[1], 1e-9), "disagree": _disagree(student.scores, taught, held, rows, task),
        "task": task,
    }  # fmt: skip


def _disagree(
    scores: Floats, taught: Floats, held: NDArray[np.int64], rows: Dataset, task: str
) -> list[dict[str, Any]]:
    """Held-out rows on which student and teacher differ, the surest of the teacher first, with what is right."""
    if task != CLASSIFICATION:
        return []
    mine, its = scores[held].argmax(1), taught[held].argmax(1)
    apart = np.flatnonzero(mine != its)
    apart = apart[np.argsort(-taught[held[apart]].max(1), kind="stable")][:SHOWN]
    places = held[apart]
    shown = rows.texts(np.sort(places))
    text = dict(zip(np.sort(places).tolist(), shown, strict=True))
    return [
        {
            "row": int(rows.rows[i]), "text": text[int(i)][:300], "teacher": rows.labels[its[j]],
            "student": rows.labels[mine[j]], "label": rows.labels[rows.y[i]],
        }
        for i, j in zip(places, apart, strict=True)
    ]  # fmt: skip


def _speed(base: Backbone, contents: Any) -> float:
    """Contents a second: the best of three passes over the same ones, uncached."""
    base.encode(contents[:8])
    passes = []
    for _ in range(3):
        before = time.perf_counter()
        base.encode(contents)
        passes.append(time.perf_counter() - before)
    return len(contents) / max(min(passes), 1e-9)


def _size(model: Model) -> float:
    """Megabytes of the network that a model runs."""
    return megabytes(model.backbone)


def _megabytes(student: Student) -> float:
    """Megabytes of the student's network, or of the files it has in place of one."""
    if isinstance(student.base, static.Static) and student.folder is not None:
        return sum(path.stat().st_size for path in student.folder.iterdir()) / 1e6
    return megabytes(student.base)


def _kept(
    teacher: Model, name: str, student: Student, lesson: Lesson, held: Dataset | None, facts: dict[str, Any], clock: Clock,
    refuse: float, project: Path, progress: Progress,
) -> Model:  # fmt: skip
    train, groups = (
        lesson.rows,
        tied(*(() if lesson.rows.group is None else (lesson.rows.group,)), keys=lesson.rows.keys),
    )
    test = None
    if held is not None:
        test = readable(held, student.base, progress=partial(progress, "embedding the test"))
    why = f"taught by {teacher.name}"
    choice = Choice(
        head=student.head, train=lambda X, T, w: student.head, name=student.head.name, strength=None, pool=lesson.pool is not None,
        views=False, scores=student.scores[None], candidates=(), why=why, tie=None,
    )  # fmt: skip
    judged = np.isfinite(student.scores).all(1)
    with clock("evaluate"):
        learned = proof.prove(
            train, student.X, choice, np.where(judged, lesson.fold, -1)[None], groups,
            pool=None if lesson.pool is None else lesson.P[len(train) :], held=test, refuse=refuse, seed=lesson.seed,
            spaces=student.spaces,
        )  # fmt: skip
    if learned.facts["estimate"] is not None:
        learned.facts["estimate"]["how"] += ", but its teacher had seen them"
    spread = np.sort(np.random.default_rng(lesson.seed).permutation(len(train))[: saved.PROBE_COUNT[train.modality]])
    about = {**backbone_facts(student.base), "agreement": None, "carried": student.folder is not None}
    return keep(
        name, learned, {**learned.facts, **origin(name, lesson.seed), "backbone": about, "distilled": facts}, student.base,
        train, project, clock, probes=train.raw(spread), X=student.X, carried=student.folder,
    )  # fmt: skip
