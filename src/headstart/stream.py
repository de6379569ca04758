"""Predictions for an input of any size: batches in, batches out, nothing kept.

The output takes its name only when it is whole. After an interruption the same command starts over, at the speed of the
feature cache for what was already embedded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headstart import jsontext, picturefile
from headstart.answers import Answers
from headstart.backbone import Contents
from headstart.dataset import FILE, Fault, read_contents
from headstart.embedding import BROKEN, REFUSE, SKIP
from headstart.errors import ContentError, DataError, InputError, NotFound, near
from headstart.features import embed
from headstart.head import MULTILABEL, REGRESSION
from headstart.model import Model
from headstart.rawfile import missing, shown
from headstart.reasons import Reasons
from headstart.rowcache import Cache
from headstart.sink import ENDINGS, ending, sink

CHUNK = 16_384  # contents embedded and answered at a time
OTHERS = (".txt", ".arrow", ".feather", ".zip", ".tar", *picturefile.ENDINGS)


Asked = tuple[
    Answers, list[dict[str, Any]] | None, tuple[str, ...]
]  # of the contents that could be read; reasons; notes
Ask = Callable[[Contents, dict[int, str], Callable[[int], None]], Asked]
# contents, where to put those that cannot be read (place -> reason), and who is told how many are done


class Answering(Protocol):
    """What answers in place of a model here: one on a server."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def task(self) -> str: ...  # noqa: D102
    @property
    def modality(self) -> str: ...  # noqa: D102
    @property
    def labels(self) -> tuple[str, ...]: ...  # noqa: D102

    def contents(self, given: Sequence[str | bytes | Path]) -> Contents:
        """As `Model.contents`."""
        ...

    def asking(self, *, every: bool, why: bool, pictures: bool) -> Ask:
        """Be ready to answer; pictures False: reasons without small pictures."""
        ...


def columns(model: Model | Answering, answers: Answers, *, every: bool) -> dict[str, pa.Array]:
    """The columns that `predict` adds, (n,) each: label, probability, unknown; with `every` one more a label."""
    unknown = pa.array(answers.unknown)
    if model.task == REGRESSION:
        return {"value": pa.array(answers.P[:, 0]), "unknown": unknown}
    names = pa.array(model.labels, pa.large_string())
    if model.task == MULTILABEL:
        label: pa.Array = pa.array(
            [[model.labels[j] for j in np.flatnonzero(row)] for row in answers.chosen], pa.list_(pa.large_string())
        )
    else:
        label = names.take(pa.array(answers.P.argmax(1)))
    found = {"label": label, "probability": pa.array(answers.P.max(1)), "unknown": unknown}
    if every:
        found |= {f"probability {name}": pa.array(answers.P[:, j]) for j, name in enumerate(model.labels)}
    return found


def beside(given: pa.RecordBatch, added: dict[str, pa.Array]) -> pa.Table:
    """The given columns, then the added ones; a given column of an added name is called 'given ...' instead."""
    names = [f"given {name}" if name in added else name for name in given.schema.names]
    return pa.table([*given.columns, *added.values()], names=[*names, *added])


def is_text(source: str) -> bool:
    """Whether the INPUT of `predict` is a text and not a file: no such file, and it does not look like a path.

    Raises NotFound for what looks like a path that does not exist.
    """
    if source == "-":
        return False
    if not source.strip():
        raise InputError("the text is empty.")
    try:
        if Path(source).exists():
            return False
    except (OSError, ValueError):  # too long or with a NUL: no path
        return True
    path = Path(source)
    if " " not in source and (path.suffix.lower() in (*ENDINGS, *OTHERS) or len(path.parts) > 1):
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise NotFound(f"{source}: no such file." + near(path.name, siblings))
    return True


def is_one(model: Model | Answering, source: str) -> bool:
    """Whether the INPUT of `predict` is one content: a text, or the file of one picture, by its content or its name.

    Raises NotFound for a file that is not there, InputError for an empty INPUT.
    """
    if model.modality == "text":
        return is_text(source)
    if source == "-":
        return False
    if not source.strip():
        raise InputError("the input is empty: give a picture, a folder, an archive or a table of pictures.")
    if not os.path.exists(source):
        raise NotFound(f"{missing(Path(source))} Model {model.name!r} reads pictures.")
    try:
        return os.path.isfile(source) and (
            picturefile.is_like(source) or picturefile.kind(picturefile.head(Path(source))) is not None
        )
    except OSError as error:
        raise InputError(f"{shown(source)}: it cannot be read: {(error.strerror or str(error)).lower()}.") from None


def _asking(model: Model | Answering, *, every: bool, why: bool, pictures: bool = True) -> Ask:
    """Load what answers. Raises as `Model.backbone` does."""
    if not isinstance(model, Model):
        return model.asking(every=every, why=why, pictures=pictures)
    base, cache = model.backbone, Cache()
    reasons = Reasons(model, cache, pictures=pictures) if why else None

    def ask(contents: Contents, faults: dict[int, str], say: Callable[[int], None]) -> Asked:
        features = embed(contents, base, cache, faults=faults)
        X = features.values
        if faults:
            read = [i for i in range(len(contents)) if i not in faults]
            X, contents = X[read], [contents[i] for i in read]  # type: ignore[assignment]
        answers = model.answer(X)
        return answers, reasons.of(contents, X, answers, say) if reasons else None, features.notes

    return ask


def predict_one(
    model: Model | Answering, contents: Sequence[str | bytes | Path], *, why: bool = False, every: bool = False
) -> list[dict[str, Any]]:
    """One dictionary a content: text (or file), label, probability, unknown (labels; value), and what else was asked.

    Contents are texts, or paths or bytes of pictures. Raises as `Model.predict` does.
    """
    read, faults = model.contents(contents), {}  # type: Contents, dict[int, str]
    answers, reasons, _ = _asking(model, every=every, why=why)(read, faults, lambda done: None)
    for at, reason in sorted(faults.items()):
        if isinstance(contents[at], bytes):
            raise ContentError(sorted(faults.items()))
        raise DataError(f"{reason}.", file=shown(str(contents[at])))
    found = []
    for i, given in enumerate(contents):
        row: dict[str, Any] = {"unknown": bool(answers.unknown[i])}
        if not isinstance(given, bytes):
            row = {"text" if model.modality == "text" else "file": str(given), **row}
        P = answers.P[i]
        if model.task == REGRESSION:
            row["value"] = float(P[0])
        else:
            best = int(P.argmax())
            none = model.task == MULTILABEL and not answers.chosen[i, best]
            row |= {"label": None if none else model.labels[best], "probability": float(P[best])}
        if model.task == MULTILABEL:
            row["labels"] = [model.labels[j] for j in np.flatnonzero(answers.chosen[i])]
        if every and model.task != REGRESSION:
            row["probabilities"] = dict(zip(model.labels, map(float, P), strict=True))
        if reasons is not None:
            row["why"] = reasons[i]
        found.append(row)
    return found


def predict_file(
    model: Model | Answering,
    source: object,
    *,
    output: Path | None = None,
    why: bool = False,
    every: bool = False,
    text: str | None = None,
    image: str | None = None,
    encoding: str | None = None,
    broken: str = SKIP,
    to_json: bool = False,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> dict[str, Any]:
    """Predict every row of a source, or a single content, into a file or to standard output.

    Returns {rows, unknown, broken: [{row, name, reason}], output, notes}. Memory is bounded by one batch. A row without
    text is answered like an empty text; a picture that cannot be read gets no answer and its reason in the column
    `error`, or with `broken` "refuse" raises DataError. Raises DataError too when no picture at all can be read.
    """
    if broken not in BROKEN:
        raise InputError(f"--broken {broken} is neither skip nor refuse.")
    if output is not None:
        ending(output)
        if not output.parent.exists():
            raise InputError(f"{output.parent}: no such folder to write {output.name} into.")
        if isinstance(source, str) and output.exists() and os.path.exists(source) and output.samefile(source):
            raise InputError(f"{output}: that is the input; give the output another name.")
    single = isinstance(source, str) and is_one(model, source)
    if single:
        text, image = ("text", None) if model.modality == "text" else (None, FILE)
        source = pa.table({text or FILE: [source]})
    batches, opened = read_contents(source, text=text, image=image, encoding=encoding, modality=model.modality)
    ask = _asking(model, every=every, why=why, pictures=False)  # loaded, or missed, before anything is written
    rows = unknown = 0

    def say(done: int) -> None:
        if progress is not None:
            progress("predicting", rows + done, opened.rows)

    unread: list[Fault] = []
    with sink(output, to_json=to_json) as out:
        say(0)
        for numbers, contents, given, names, wrong in batches:
            for start in range(0, len(contents), CHUNK):
                answered = _Answered.of(model, ask, contents.slice(start, CHUNK), every=every, say=say)
                part = given.slice(start, CHUNK)
                said = {i - start: why for i, why in wrong.items() if start <= i < start + len(part)} | answered.faults
                unread += [
                    Fault(int(numbers[start + i]), names[start + i] if names else f"row {numbers[start + i]}", why)
                    for i, why in sorted(said.items())
                ]
                if said and broken == REFUSE:
                    raise DataError(
                        f"{unread[0].name}: {unread[0].reason}.", file=opened.name, row=unread[0].row,
                        todo="Repair or remove it, or use --broken skip.",
                    )  # fmt: skip
                out.write(beside(part, answered.columns(said if model.modality != "text" else None)))
                rows, unknown = rows + len(part), unknown + answered.unknown
                say(0)
                opened.notes.extend(note for note in answered.notes if note not in opened.notes)
        if len(unread) == rows:
            first = f"{unread[0].name}: {unread[0].reason}"
            if single:
                raise DataError(first + ".")
            raise DataError(f"none of its {rows:,} pictures can be read ({first}).", file=opened.name)
    return {
        "rows": rows, "unknown": unknown, "broken": [asdict(fault) for fault in unread],
        "output": None if output is None else str(output), "notes": [] if single else opened.notes,
    }  # fmt: skip


@dataclass(frozen=True)
class _Answered:
    """The answers to one piece of the input."""

    n: int
    sound: NDArray[np.int64]  # places of the contents that were read
    added: dict[str, pa.Array]  # for those
    faults: dict[int, str]  # place -> reason
    unknown: int
    notes: tuple[str, ...]  # of the cache

    @classmethod
    def of(
        cls,
        model: Model | Answering,
        ask: Ask,
        contents: pa.Array,
        *,
        every: bool,
        say: Callable[[int], None],
    ) -> _Answered:
        """Answer the contents that are there; `say` is told how many are done."""
        there = np.flatnonzero(contents.is_valid().to_numpy(zero_copy_only=False))
        given = contents.take(pa.array(there)).to_pylist()
        faults: dict[int, str] = {}
        answers, reasons, notes = ask(given, faults, say)
        read = [i for i in range(len(given)) if i not in faults]
        added = columns(model, answers, every=every)
        if reasons is not None:
            added["why"] = pa.array([jsontext.write(one) for one in reasons], pa.large_string())
        wrong = {int(there[i]): why for i, why in faults.items()}
        return cls(len(contents), there[read], added, wrong, int(answers.unknown.sum()), notes)

    def columns(self, said: dict[int, str] | None) -> dict[str, pa.Array]:
        """The columns to add, null where nothing was read; with the reasons beside them, where `said` is given."""
        found = self.added
        if len(self.sound) < self.n:
            place = np.full(self.n, -1)
            place[self.sound] = np.arange(len(self.sound))
            index = pa.array(place, mask=place < 0)
            found = {name: column.take(index) for name, column in found.items()}
        if said is not None:
            found = {**found, "error": pa.array([said.get(i) for i in range(self.n)], pa.large_string())}
        return found
