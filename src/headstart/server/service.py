"""What a server works with: the engine, the settings, the keys, the log and the metrics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from headstart.apikeys import Keyring
from headstart.predictionlog import PredictionLog
from headstart.server.door import Door
from headstart.server.metrics import Metrics
from headstart.server.readiness import Readiness
from headstart.server.settings import Settings
from headstart.serving.engine import Engine


@dataclass(frozen=True)
class Service:
    """One process of a server."""

    engine: Engine
    settings: Settings
    keyring: Keyring
    log: PredictionLog | None
    metrics: Metrics

    @cached_property
    def door(self) -> Door:
        """Who may come in."""
        return Door(self.settings, self.keyring)

    @cached_property
    def readiness(self) -> Readiness:
        """Whether it predicts."""
        return Readiness(self.engine)


def open_service(settings: Settings) -> Service:
    """Everything a server needs; `engine.start()` loads the models. Raises ModelError, StorageError."""
    metrics = Metrics()
    log = None if settings.log == "off" else PredictionLog(settings.project)
    engine = Engine(
        settings.project,
        models=settings.models,
        max_wait=settings.max_wait,
        limit=min(settings.queue, settings.deadline / 3),  # what is let in can be done in time
        memory=settings.cache,
        log=log,
        log_wait=settings.log == "wait",
        log_inputs=settings.log_inputs,
        ran=metrics.ran,
    )
    metrics.watch(engine)
    return Service(engine, settings, Keyring.of(settings.project), log, metrics)
