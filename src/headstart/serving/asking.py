"""One question on its way: what is remembered, what the lanes give, the answers, the log, and the shadows behind it."""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.answers import Answers
from headstart.errors import ContentError, HeadstartError, Overloaded
from headstart.example import key as key_of
from headstart.features import canonical
from headstart.head import MULTILABEL, REGRESSION
from headstart.predictionlog import Row
from headstart.serving.asked import SHADOW, Question, Reply, Said
from headstart.serving.encoders import Encoder
from headstart.serving.lanes import Ticket
from headstart.serving.served import Served
from headstart.serving.table import Deployed, Loaded, Table

if TYPE_CHECKING:
    from headstart.serving.engine import Engine

Floats = NDArray[np.float32]
Done = Callable[[Reply | BaseException], None]
logger = logging.getLogger(__name__)


class Asked:
    """A question on its way."""

    def __init__(self, engine: Engine, table: Table, question: Question, done: Done) -> None:
        self.engine, self.table, self.question, self.done = engine, table, question, done
        self.contents = question.contents
        self.keys = [key_of(canonical(content)) for content in question.contents]  # 16 bytes each
        asked = table.asked(question)
        joined = b"".join(self.keys)
        self.asked = [(one, *one.arm(question, lambda: joined)) for one in asked]
        self.shadows = [
            one for one in asked if one.mode == SHADOW and one.challenger_loaded and question.version is None
        ]
        self.X: dict[str, Floats] = {}
        self.hits = 0
        self.began, self.encoded = time.monotonic(), 0.0
        self.tickets: list[Ticket] = []
        self.left, self.lock, self.over = 0, threading.Lock(), False

    def begin(self) -> None:
        """Take what is remembered, and send the rest to the lanes. Raises Overloaded, Draining."""
        loaded = [one for _, _, one in self.asked]
        loaded += [one.challenger_loaded for one in self.shadows if one.challenger_loaded]
        lanes: dict[str, tuple[Encoder, set[str]]] = {}
        for one in loaded[: len(self.asked)]:
            lanes.setdefault(one.encoder.key, (one.encoder, set()))[1].add(one.served.fingerprint)
        work = []
        place: dict[bytes, int] = {}
        for i, key in enumerate(self.keys):
            place.setdefault(key, i)
        first = list(place.values())  # of every distinct content
        for encoder, wanted in lanes.values():
            rows: dict[str, list[Any]] = {f: self._remembered(f, first) for f in wanted}
            missing = [j for j, i in enumerate(first) if any(found[j] is None for found in rows.values())]
            self.hits += len(first) - len(missing)
            work.append((encoder, rows, missing))
        self.left = sum(bool(missing) for *_, missing in work) or 1
        number = {i: j for j, i in enumerate(first)}
        at = [number[place[key]] for key in self.keys]
        misses = False
        try:
            for encoder, rows, missing in work:
                if not missing:
                    self._keep(rows, {}, missing, at)
                    continue
                misses = True
                contents = [self.contents[first[j]] for j in missing]
                self.tickets.append(
                    self.engine.lanes.submit(
                        encoder, contents, frozenset(rows), _arrived(self, rows, missing, first, at),
                        deadline=self.question.deadline,
                    )
                )  # fmt: skip
        except BaseException:
            self.cancel()
            raise
        if not misses:
            self.engine.lanes.call(self._finish)

    def _remembered(self, fingerprint: str, first: list[int]) -> list[Any]:
        if self.question.fresh:
            return [None] * len(first)
        return self.engine.recent.get(fingerprint, [self.keys[i] for i in first])

    def _keep(self, rows: dict[str, list[Any]], new: Mapping[str, Floats], missing: list[int], at: list[int]) -> None:
        """Put remembered and new rows together: X (n, d) by fingerprint."""
        for fingerprint, found in rows.items():
            if len(missing) == len(found):
                X = new[fingerprint]
            else:
                for j, row in zip(missing, new.get(fingerprint, ()), strict=True):
                    found[j] = row
                X = np.stack(found)
            self.X[fingerprint] = X if len(at) == len(found) else X[at]

    def arrived(
        self,
        result: Mapping[str, Floats] | BaseException,
        rows: dict[str, list[Any]],
        missing: list[int],
        first: list[int],
        at: list[int],
    ) -> None:
        """Features of one lane are there, or are not to be had."""
        if isinstance(result, BaseException):
            self._end(_placed(result, [first[j] for j in missing]))
            return
        keys = [self.keys[first[j]] for j in missing]
        for fingerprint, X in result.items():
            self.engine.recent.put(fingerprint, keys, X)
        self._keep(rows, result, missing, at)
        with self.lock:
            self.left -= 1
            last = not self.left
        if last:
            self._finish()

    def _finish(self) -> None:
        try:
            self._answer()
        except HeadstartError as error:
            self._end(error)
        except Exception as error:
            logger.exception("a question could not be answered")
            self._end(error)

    def _answer(self) -> None:
        question, engine = self.question, self.engine
        self.encoded = time.monotonic()
        served = [loaded.served for _, _, loaded in self.asked]
        answers = self.table.stack.answers(served, self.X, judge=question.judge)
        called = secrets.token_hex(8)
        said = tuple(
            Said(one.name, loaded.served, arm, found, f"{time.time_ns() // 1_000_000:011x}{called}-{m}")
            for m, ((one, arm, loaded), found) in enumerate(zip(self.asked, answers, strict=True))
        )
        seconds = {"encode": self.encoded - self.began, "answer": time.monotonic() - self.encoded}
        if question.why:
            engine.explaining.of(said, self.contents, self.X, lambda result: self._end(
                result if isinstance(result, BaseException) else Reply(result, seconds, self.hits)
            ))  # fmt: skip
            return
        reply = Reply(said, seconds, self.hits)
        if engine.log is None:
            self._end(reply)
            return
        rows = [row for one in said for row in self._rows(one)]
        if not engine.log_wait:
            engine.log.put(rows)
            self._end(reply)
        elif not engine.log.put(rows, lambda error: self._end(reply if error is None else error)):
            self._end(Overloaded("more predictions wait to be written than there is room for.", 1.0))

    def _rows(self, said: Said) -> list[Row]:
        """The rows of the prediction log."""
        served, answers = said.served, said.answers
        at, mark = time.time(), served.fingerprint[:16]
        found = []
        for i, key in enumerate(self.keys):
            label, probability = stated(served, answers, i)
            found.append(
                Row(
                    f"{said.id}.{i}", at, said.name, served.name, served.version, served.digest, said.arm, json.dumps(label),
                    probability, bool(answers.unknown[i]), f"{mark}:{key.hex()}",
                    self._text(i),
                    self.question.by,
                )
            )  # fmt: skip
        return found

    def _text(self, i: int) -> str | None:
        content = self.contents[i] if self.engine.log_inputs else None
        return content if isinstance(content, str) else None

    def _end(self, result: Reply | BaseException) -> None:
        """Say it once, and let the table go; then the shadows may look at it."""
        with self.lock:
            if self.over:
                return
            self.over = True
        try:
            self.done(result)
        finally:
            try:
                if isinstance(result, Reply):
                    self._shadow(result)
            finally:
                self.table.__exit__()

    def cancel(self) -> None:
        """Nobody waits any more: what waits in the lanes is dropped."""
        for ticket in self.tickets:
            ticket.cancel()
        with self.lock:
            if self.over:
                return
            self.over = True
        self.table.__exit__()

    def _shadow(self, reply: Reply) -> None:
        """Let challengers that only listen answer too; on another base only while nothing else is to be done."""
        live = {one.name: one for one in reply.said}
        for one in self.shadows:
            loaded = one.challenger_loaded
            assert loaded is not None
            fingerprint = loaded.served.fingerprint
            compare = _Comparison(self, one, loaded, live[one.name])
            if fingerprint in self.X:
                compare(self.X)
                continue
            try:
                self.table.__enter__()
                self.engine.lanes.submit(
                    loaded.encoder, self.contents, frozenset((fingerprint,)), compare.later,
                    deadline=time.monotonic() + 60, spare=True,
                )  # fmt: skip
            except HeadstartError:
                self.table.__exit__()
                one.counts.add(0, 0, len(self.contents))


class _Comparison:
    """What a shadow says beside what was said."""

    def __init__(self, asked: Asked, one: Deployed, loaded: Loaded, live: Said) -> None:
        self.asked, self.one, self.loaded, self.live = asked, one, loaded, live

    def __call__(self, X: Mapping[str, Floats]) -> None:
        asked, served = self.asked, self.loaded.served
        [answers] = asked.table.stack.answers([served], X)
        same = sum(
            alike(stated(self.live.served, self.live.answers, i)[0], stated(served, answers, i)[0])
            for i in range(len(asked.contents))
        )
        self.one.counts.add(len(asked.contents), same)
        if asked.engine.log is not None:
            said = Said(self.one.name, served, SHADOW, answers, f"{self.live.id}-{SHADOW}")
            asked.engine.log.put(asked._rows(said))

    def later(self, result: Mapping[str, Floats] | BaseException) -> None:
        try:
            if isinstance(result, BaseException):
                self.one.counts.add(0, 0, len(self.asked.contents))
            else:
                self(result)
        finally:
            self.asked.table.__exit__()


def stated(served: Served, answers: Answers, i: int) -> tuple[Any, float | None]:
    """What is said of input i, as a JSON value: the likeliest label, the labels that apply, or a number; its probability."""
    if served.task == REGRESSION:
        return float(answers.P[i, 0]), None
    if served.task == MULTILABEL:
        return [served.labels[j] for j in np.flatnonzero(answers.chosen[i])], float(answers.P[i].max())
    best = int(answers.P[i].argmax())
    return served.labels[best], float(answers.P[i, best])


def alike(a: Any, b: Any) -> bool:
    """Whether two versions say the same: the same label or labels, or numbers within a hundredth."""
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= 0.01 * max(abs(a), abs(b), 1e-9)
    return bool(a == b) if not isinstance(a, list) or not isinstance(b, list) else set(a) == set(b)


def _arrived(
    asked: Asked, rows: dict[str, list[Any]], missing: list[int], first: list[int], at: list[int]
) -> Callable[[Mapping[str, Floats] | BaseException], None]:
    return lambda result: asked.arrived(result, rows, missing, first, at)


def _placed(error: BaseException, places: list[int]) -> BaseException:
    """An error about contents of a lane as one about those of the question."""
    if isinstance(error, ContentError):
        return ContentError([(places[at], why) for at, why in error.faults])
    return error
