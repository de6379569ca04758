"""Questions in, answers out: remembered features are taken, the others run through their bases in batches shared with
other questions, and all heads asked stand side by side above them.

A question is worked on by the threads of `Lanes`; nobody waits in a thread for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbone import Card, Contents
from headstart.errors import InputError, ModelError, Overloaded, TooLate
from headstart.predictionlog import PredictionLog
from headstart.serving.asked import Question, Reply
from headstart.serving.asking import Asked, Done
from headstart.serving.encoders import Encoder
from headstart.serving.explaining import Explaining
from headstart.serving.gathering import Features, Gathering
from headstart.serving.lanes import Lanes
from headstart.serving.recent import Recent
from headstart.serving.rollout import Rollout
from headstart.serving.table import Deployed

Floats = NDArray[np.float32]
TRIAL = 60.0  # seconds that a trial may take
MANY = 32  # names, from which on a question is not begun in the event loop
LARGE = 200_000  # letters or bytes of a question that is not begun in the event loop


class Engine:
    """Every model of a project, answering."""

    def __init__(
        self,
        root: Path,
        *,
        models: Sequence[str] | None = None,
        threads: int | None = None,
        max_wait: float = 0.005,
        limit: float = 5.0,
        memory: int = 64 << 20,
        log: PredictionLog | None = None,
        log_wait: bool = False,
        log_inputs: bool = False,
        ran: Callable[[str, int, int, float], None] | None = None,
    ) -> None:
        """max_wait and limit in seconds, as in `Lanes`; memory: bytes of remembered features; log_wait: an answer is given
        when its rows are on the disk; ran(base, rows, units, seconds) is told of every run.
        """
        self.root, self.log, self.log_wait, self.log_inputs = root, log, log_wait, log_inputs
        self.lanes = Lanes(threads=threads, max_wait=max_wait, limit=limit, ran=ran)
        self.recent = Recent(memory)
        self._rollout = Rollout(root, models, self._encoded, self.recent.forget)
        self.explaining = Explaining()

    @property
    def table(self) -> Mapping[str, Deployed]:
        """What is served now, by name."""
        return self._rollout.table.deployed

    @property
    def faults(self) -> Mapping[str, str]:
        """Names that cannot answer, and why."""
        return self._rollout.table.faults

    # -- asking ------------------------------------------------------------------------------------------------------

    async def answer(self, question: Question) -> Reply:
        """Answer a question. A cancelled task takes its contents out of the queue.

        Raises NotFound, InputError, ContentError, Overloaded, Draining, TooLate, ModelError, StorageError.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()
        done = partial(_told, loop, future)
        large = sum(map(len, question.contents)) > LARGE or not 0 < len(question.names) < MANY
        asked = await asyncio.to_thread(self.submit, question, done) if large else self.submit(question, done)
        late = TooLate("not answered before its deadline; ask for less at once, or allow it more time.")
        timer = loop.call_later(max(0.0, question.deadline - time.monotonic()), _settled, future, late)
        try:
            return await future
        except (asyncio.CancelledError, TooLate):
            asked.cancel()
            raise
        finally:
            timer.cancel()

    def ask(self, question: Question) -> Reply:
        """Answer a question, blocking. Raises as `answer` does."""
        future: Future[Reply] = Future()
        self.submit(question, partial(_settled, future))
        return future.result()

    def submit(self, question: Question, done: Done) -> Asked:
        """Begin to answer; `done` is called once, on a thread of the lanes. Raises at once what can be told at once."""
        if not len(question.contents):
            raise InputError("there is nothing to answer: give at least one input.")
        table = self._rollout.using()
        try:
            asked = Asked(self, table, question, done)
        except BaseException:
            table.__exit__()
            raise
        asked.begin()
        return asked

    def busy(self) -> float | None:
        """None, or the seconds after which to come again."""
        return self.lanes.busy()

    async def embed(self, contents: Contents, name: str, deadline: float) -> tuple[Floats, Card]:
        """Features (n, d) of contents by the base of a deployed name, or by a base in memory. Raises as `answer`."""
        base, encoder = self._rollout.base(name)
        kind = "image" if contents and isinstance(contents[0], bytes) else "text"
        if base.card.modality != kind:
            raise InputError(f"{name!r} does not read such contents; it reads {base.card.modality}s.")
        fingerprint = base.card.fingerprint
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Features] = loop.create_future()
        gathering = Gathering(
            self.lanes, self.recent, contents, [(encoder, fingerprint)], partial(_told, loop, future), deadline=deadline
        )
        gathering.begin()
        try:
            return (await future)[fingerprint], base.card
        except asyncio.CancelledError:
            gathering.cancel()
            raise

    def _encoded(self, encoder: Encoder, contents: Contents, fingerprint: str) -> Floats:
        """Features (n, d) past what is remembered, waited for in a thread: a trial of what is served."""
        future: Future[Features] = Future()
        Gathering(
            self.lanes, self.recent, contents, [(encoder, fingerprint)], partial(_settled, future),
            deadline=time.monotonic() + TRIAL, fresh=True,
        ).begin()  # fmt: skip
        return future.result()[fingerprint]

    # -- changing ----------------------------------------------------------------------------------------------------

    def start(self, say: Callable[[int, int], None] | None = None) -> None:
        """Load what is deployed, and the current version of every other model. say(done, total)."""
        self._rollout.start(say)

    def sync(self) -> list[str]:
        """Follow the deployments of the project; what could not be followed, in words."""
        return self._rollout.sync()

    def deploy(
        self,
        model: str,
        version: str | None,
        name: str,
        *,
        mode: str | None = None,
        share: float = 0.0,
        expected: int | None = None,
    ) -> Deployed:
        """Load a version, let it predict, commit it, and serve it. Nothing changes when that fails.

        Raises NotFound, InputError, ModelError, Conflict, StorageError.
        """
        return self._rollout.deploy(model, version, name, mode=mode, share=share, expected=expected)

    def rollback(self, name: str, *, expected: int | None = None) -> Deployed:
        """Take a challenger away; without one the version that was live before answers again. Raises as `deploy`."""
        return self._rollout.rollback(name, expected=expected)

    def undeploy(self, name: str, *, expected: int | None = None) -> None:
        """Serve a name no more. Raises NotFound, Conflict, StorageError."""
        self._rollout.undeploy(name, expected=expected)

    # -- watching ----------------------------------------------------------------------------------------------------

    def behind(self) -> list[str]:
        """What is served although the project has a newer version, in sentences."""
        return self._rollout.behind()

    def ready(self) -> None:
        """Predict a probe on every base in memory. Raises ModelError, Draining, TooLate."""
        if self.faults and not self.table:
            raise ModelError(f"no model could be loaded: {'; '.join(map(str, self.faults.values()))}")
        try:
            self._rollout.check()
        except Overloaded:  # it is working
            return

    def stats(self) -> dict[str, Any]:
        """Numbers of now: what waits, what is remembered, what is in memory."""
        rows, seconds = self.lanes.waiting()
        found: dict[str, Any] = {
            "waiting": rows, "waiting_seconds": seconds, "hits": self.recent.hits, "misses": self.recent.misses,
            "recent_bytes": self.recent.bytes, "models": len(self._rollout.shelf), "bases": len(self._rollout.shelf.bases()),
        }  # fmt: skip
        if self.log is not None:
            found |= {"log_waiting": self.log.waiting, "log_shed": self.log.shed, "log_failed": self.log.failed}
        return found

    def close(self, grace: float = 30.0) -> bool:
        """Finish what was accepted, within so many seconds; whether all of it was."""
        done = self.lanes.close(grace)
        self.explaining.close()
        self._rollout.close()
        return done


def _settled(future: Any, result: Any) -> None:
    """Give a future its result, or what went wrong, unless nobody waits for it."""
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)


def _told(loop: asyncio.AbstractEventLoop, future: Any, result: Any) -> None:
    """The same in the loop, unless that has ended."""
    try:
        loop.call_soon_threadsafe(_settled, future, result)
    except RuntimeError:
        if not loop.is_closed():
            raise
