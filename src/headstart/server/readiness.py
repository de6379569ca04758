"""Whether a server predicts: one trial at a time, whose result is good for a second."""

from __future__ import annotations

import asyncio
import time

from headstart.errors import HeadstartError, TooLate
from headstart.serving.engine import Engine

TRIAL = 5.0  # seconds that a prediction may take to count as ready
FRESH = 1.0  # seconds


class Readiness:
    """Trials of an engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.trial: asyncio.Future[None] | None = None
        self.result: str | None = None  # what was wrong
        self.until = 0.0  # time.monotonic() seconds

    async def fault(self) -> str | None:
        """Why the server cannot predict; None when it can."""
        if time.monotonic() < self.until:
            return self.result
        if self.trial is None or self.trial.done():
            self.trial = asyncio.ensure_future(asyncio.to_thread(self.engine.ready))
            self.trial.add_done_callback(lambda trial: trial.cancelled() or trial.exception())  # noted, if nobody waits
        try:
            await asyncio.wait_for(asyncio.shield(self.trial), TRIAL)
            self.result = None
        except TimeoutError as error:  # TooLate among them
            late = isinstance(error, TooLate)
            self.result = str(error) if late else f"a prediction takes more than {TRIAL:g} seconds."
        except HeadstartError as error:
            self.result = str(error)
        self.until = time.monotonic() + FRESH
        return self.result
