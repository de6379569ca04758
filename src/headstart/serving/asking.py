"""One question on its way: what is remembered, what the lanes give, the answers, the log, and the shadows behind it."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.answers import Answers
from headstart.errors import Draining, HeadstartError, Overloaded
from headstart.example import key as key_of
from headstart.features import canonical
from headstart.head import MULTILABEL, REGRESSION
from headstart.predictionlog import Row
from headstart.serving.asked import SHADOW, Question, Reply, Said
from headstart.serving.gathering import Gathering
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
        asked = table.asked(question)
        self.asked = [(one, *one.arm(question, self._dealt)) for one in asked]
        self.shadows = [
            one for one in asked if one.mode == SHADOW and one.challenger_loaded and question.version is None
        ]
        bases = [(loaded.encoder, loaded.served.fingerprint) for _, _, loaded in self.asked]
        self.gathering = Gathering(
            engine.lanes, engine.recent, question.contents, bases, self._gathered,
            deadline=question.deadline, fresh=question.fresh,
        )  # fmt: skip
        self.X: dict[str, Floats] = {}
        self.given_up = False
        self.began, self.encoded = time.monotonic(), 0.0

    def _dealt(self) -> bytes:
        """What a canary is dealt by without a key: the contents."""
        return b"".join(key_of(canonical(content)) for content in self.contents)

    def begin(self) -> None:
        """Send it to the lanes. Raises Overloaded, Draining; then nothing is left of it."""
        try:
            self.gathering.begin()
        except BaseException:
            self.table.__exit__()
            raise

    def cancel(self) -> None:
        """Nobody waits any more: what waits in the lanes is dropped."""
        self.given_up = True
        if self.gathering.cancel():
            self.table.__exit__()

    def _gathered(self, result: dict[str, Floats] | BaseException) -> None:
        if isinstance(result, BaseException):
            self._end(result)
            return
        self.X, self.encoded = result, time.monotonic()
        try:
            said = self._said()
            rows = [] if self.engine.log is None else [row for one in said for row in self._rows(one)]
        except Exception as error:
            if not isinstance(error, HeadstartError):
                logger.exception("a question could not be answered")
            self._end(error)
            return
        seconds = {"encode": self.encoded - self.began, "answer": time.monotonic() - self.encoded}
        reply = Reply(said, seconds, self.gathering.hits)
        if self.question.why:
            explained = partial(self._explained, rows)
            self.engine.explaining.of(reply, self.contents, self.X, explained, self._gone)
        else:
            self._log(rows, reply)

    def _gone(self) -> bool:
        return self.given_up or time.monotonic() > self.question.deadline

    def _explained(self, rows: list[Row], result: Reply | BaseException) -> None:
        if isinstance(result, BaseException):
            self._end(result)
        else:
            self._log(rows, result)

    def _said(self) -> tuple[Said, ...]:
        served = [loaded.served for _, _, loaded in self.asked]
        answers = self.table.stack.answers(served, self.X, judge=self.question.judge)
        called = f"{time.time_ns() // 1_000_000:011x}{secrets.token_hex(8)}"
        return tuple(
            Said(one.name, loaded.served, arm, found, f"{called}-{m}")
            for m, ((one, arm, loaded), found) in enumerate(zip(self.asked, answers, strict=True))
        )

    def _log(self, rows: list[Row], reply: Reply) -> None:
        """Write down what was said, and say it; in this order where the disk is waited for."""
        log = self.engine.log
        if log is None or not self.engine.log_wait:
            if log is not None:
                log.put(rows)
            self._end(reply)
        elif not log.put(rows, lambda error: self._end(reply if error is None else error)):
            self._end(Overloaded("more predictions wait to be written than there is room for.", 1.0))

    def _rows(self, said: Said) -> list[Row]:
        """The rows of the prediction log."""
        served, answers = said.served, said.answers
        at, mark = time.time(), served.fingerprint[:16]
        found = []
        for i, key in enumerate(self.gathering.keys):
            label, probability = stated(served, answers, i)
            found.append(
                Row(
                    f"{said.id}.{i}", at, said.name, served.name, served.version, served.digest, said.arm, json.dumps(label),
                    probability, bool(answers.unknown[i]), f"{mark}:{key.hex()}", self._text(i), self.question.by,
                )
            )  # fmt: skip
        return found

    def _text(self, i: int) -> str | None:
        content = self.contents[i] if self.engine.log_inputs else None
        return content if isinstance(content, str) else None

    def _end(self, result: Reply | BaseException) -> None:
        """Say it, and let the table go, once the shadows have looked at it."""
        listening = False
        try:
            self.done(result)
            if self.shadows and isinstance(result, Reply):
                self.engine.lanes.call(partial(self._shadow, result))
                listening = True
        except Draining:  # no more shadows
            return
        finally:
            if not listening:
                self.table.__exit__()

    def _shadow(self, reply: Reply) -> None:
        """Let challengers that only listen answer too; on another base only while nothing else is to be done."""
        try:
            self._compare(reply)
        finally:
            self.table.__exit__()

    def _compare(self, reply: Reply) -> None:
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
        [answers] = asked.table.stack.answers([served], X, judge=asked.engine.log is not None)
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
