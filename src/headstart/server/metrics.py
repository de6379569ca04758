"""What a server counts, for Prometheus.

Labels are bounded: a model's name and version come from what is deployed, never from a request, and go when they are no
longer deployed; label values of models are in no metric. Groups of routes and reasons of refusals are at most `MOST`.

Workers: where PROMETHEUS_MULTIPROC_DIR names a folder before this module is imported, every process counts into files
there and any of them answers for all; what is pulled (queues, memory) is then up to a second old, and versions that are
gone stay at their last count until the server starts anew. `ended(pid)` is told by who watches the workers.

Calls are safe from any thread and cost a few microseconds; `replied` some 5 us a model asked: call it after the answer
is sent.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)

from headstart.head import REGRESSION
from headstart.serving.asked import SHADOW

CONTENT_TYPE = CONTENT_TYPE_LATEST
MOST = 64  # groups of routes, and reasons
OTHER = "other"
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
UNITS = (16, 32, 64, 128, 256, 512, 1024, 4096, 16384)
TEN = np.float32(10)  # in float32 0.9 * 10 is 9
SHADOWED = {
    "compared": "that were compared with those of the live version",
    "agreed": "that said the same as the live version",
    "skipped": "that were left out because the server had other work",
}
ENGINE = {
    "waiting": ("waiting", "Inputs that wait for a base model now."),
    "waiting_seconds": (
        "waiting_seconds",
        "Estimated seconds of work that wait; from 5 on requests are refused (429).",
    ),
    "hits": ("recent_hits", "Inputs whose features were still in memory: no base model ran."),
    "misses": ("recent_misses", "Inputs whose features were not in memory: a base model ran."),
    "recent_bytes": ("recent_bytes", "Bytes of memory that features of recent inputs take."),
    "models": ("models", "Versions of models in memory."),
    "bases": ("bases", "Base models in memory."),
    "log_waiting": ("log_waiting", "Predictions that wait to be written to the prediction log."),
    "log_shed": ("log_shed", "Predictions that are not in the prediction log because too many waited."),
    "log_failed": ("log_failed", "1 when the prediction log cannot be written, else 0."),
}  # what an engine says of itself -> headstart_engine_..., and what it is
RISING = frozenset(("hits", "misses", "log_shed"))  # they only grow
TENTHS = tuple(f"{k / 10:.1f}" for k in range(10))


class Watched(Protocol):
    """What the engine shows of itself; asked at every scrape."""

    @property
    def table(self) -> Mapping[str, Any]:
        """Deployment name -> what is deployed (`live`, `challenger`, `counts`)."""
        ...

    def stats(self) -> Mapping[str, Any]:
        """Numbers by name; those of `ENGINE` are shown."""
        ...


class Metrics:
    """Counters, histograms and gauges of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.own = None if self.shared else self.registry  # where the metrics of this process are registered
        if self.shared:
            multiprocess.MultiProcessCollector(self.registry)  # type: ignore[no-untyped-call]
        else:
            ProcessCollector(registry=self.registry)
        self._requests = self._counter(
            "requests", "Requests answered, by group of addresses and HTTP status.", "group", "status"
        )
        self._total = self._histogram(
            "request_seconds",
            "Seconds from a request's headers to the end of its answer, by group of addresses.",
            SECONDS,
            "group",
        )
        self._stages = self._histogram(
            "stage_seconds",
            "Seconds of a request in one stage: encode (through the base model, with the wait for its turn), answer (the heads).",
            SECONDS,
            "stage",
        )
        self._rows = self._histogram("run_rows", "Inputs in one run of a base model: how well batches fill.", ROWS)
        self._units = self._histogram(
            "run_units", "Tokens in one run of a base model; a picture counts as many as it costs.", UNITS
        )
        self._ran = self._histogram("run_seconds", "Seconds of one run of a base model.", SECONDS)
        self._refused = self._counter(
            "refused", "Requests refused, by reason: overloaded, rate, key, too late and others.", "reason"
        )
        self._predictions = self._counter(
            "predictions",
            "Predictions given, by deployed name, version, and whether the live version or a canary answered.",
            "model",
            "version",
            "arm",
        )
        self._unknown = self._counter(
            "unknown", "Predictions whose input was unlike the training data.", "model", "version"
        )
        self._confidence = self._counter(
            "confidence", "Predictions by the tenth that their probability lies in: 0.9 is 0.9 to 1.", "model", "version", "tenth"
        )  # fmt: skip
        self._shadow = {
            count: self._counter(f"shadow_{count}", f"Answers of a shadow version {words}.", "model", "version")
            for count, words in SHADOWED.items()
        }
        self._pulled: dict[str, Gauge | Counter] = {}
        self._counted: dict[tuple[str, ...], float] = {}  # what is counted elsewhere, as last read
        self._of_requests: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._of_stages: dict[str, Histogram] = {}
        self._of_reasons: dict[str, Counter] = {}
        self._of_said: dict[tuple[str, str, str], tuple[Counter, Counter, list[Counter]]] = {}
        self._of_shadow: set[tuple[str, str]] = set()
        self._groups: set[str] = set()
        self.also: Callable[[Any], None] | None = None  # told of every reply too: tracing.py
        self._engine: Watched | None = None
        self._once = threading.Lock()

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"headstart_{name}", what, labels, registry=self.own)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"headstart_{name}", what, labels, buckets=buckets, registry=self.own)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(f"headstart_{name}", what, labels, registry=self.own, multiprocess_mode="livesum")

    def watch(self, engine: Watched) -> None:
        """Ask this engine for its numbers at every scrape; beside other workers every second, on a thread of its own."""
        self._engine = engine
        if self.shared:
            threading.Thread(target=self._every_second, name="metrics", daemon=True).start()

    def _every_second(self) -> None:
        tick = threading.Event()
        while True:
            self._pull()
            tick.wait(1)

    def seen(self, group: str, status: int, seconds: float) -> None:
        """A request was answered. group: of routes, such as "predict", never a path that a client wrote."""
        try:
            count, took = self._of_requests[group, status]
        except KeyError:
            group = _bounded(group, self._groups)
            status = status if 100 <= status <= 599 else 0
            self._groups.add(group)
            count, took = self._requests.labels(group, str(status)), self._total.labels(group)
            self._of_requests[group, status] = count, took
        count.inc()
        took.observe(seconds)

    def stage(self, name: str, seconds: float) -> None:
        """One stage of a request took so long: "encode", "answer"."""
        try:
            took = self._of_stages[name]
        except KeyError:
            name = _bounded(name, self._of_stages)
            took = self._of_stages[name] = self._stages.labels(name)
        took.observe(seconds)

    def refused(self, reason: str) -> None:
        """A request was refused: "overloaded", "draining", "rate", "too large", "key"."""
        try:
            count = self._of_reasons[reason]
        except KeyError:
            reason = _bounded(reason, self._of_reasons)
            count = self._of_reasons[reason] = self._refused.labels(reason)
        count.inc()

    def ran(self, lane: str, rows: int, units: int, seconds: float) -> None:
        """A base model ran once over `rows` inputs that cost `units`; what `Lanes` calls. The lane makes no label."""
        self._rows.observe(rows)
        self._units.observe(units)
        self._ran.observe(seconds)

    def replied(self, reply: Any) -> None:
        """Count an engine's Reply: its stages, and the predictions of every model in it."""
        if self.also is not None:
            self.also(reply)
        for name, seconds in reply.seconds.items():
            self.stage(name, seconds)
        for said in reply.said:
            P = said.answers.P
            n = len(P)
            if not n:
                continue
            given, unknown, tenths = self._said(said.name, said.served.version, said.arm)
            given.inc(n)
            numbers = said.served.task == REGRESSION
            if n == 1:  # the usual request: Python is quicker than numpy here
                if said.answers.unknown[0]:
                    unknown.inc()
                if not numbers:
                    tenths[min(9, int(P.max() * TEN))].inc()
                continue
            if strange := int(np.count_nonzero(said.answers.unknown)):
                unknown.inc(strange)
            if numbers:
                continue
            places = np.minimum((P.max(1) * TEN).astype(np.intp), 9)
            for k, count in enumerate(np.bincount(places, minlength=10).tolist()):
                if count:
                    tenths[k].inc(count)

    def _said(self, name: str, version: str, arm: str) -> tuple[Counter, Counter, list[Counter]]:
        try:
            return self._of_said[name, version, arm]
        except KeyError:
            found = (
                self._predictions.labels(name, version, arm),
                self._unknown.labels(name, version),
                [self._confidence.labels(name, version, tenth) for tenth in TENTHS],
            )
            self._of_said[name, version, arm] = found
            return found

    def text(self) -> bytes:
        """The metrics as Prometheus reads them; `CONTENT_TYPE` says the format."""
        self._pull()
        return generate_latest(self.registry)

    def _pull(self) -> None:
        if self._engine is None:
            return
        with self._once:
            stats = self._engine.stats()
            for name, (called, words) in ENGINE.items():
                if name not in stats:
                    continue
                if name not in self._pulled:
                    make = self._counter if name in RISING else self._gauge
                    self._pulled[name] = make(f"engine_{called}", words)
                metric, value = self._pulled[name], stats[name]
                number = (
                    float(value) if isinstance(value, int | float) else float(value is not None)
                )  # or words: a fault
                if isinstance(metric, Counter):
                    self._raise(metric, number, name)
                else:
                    metric.set(number)
            table = dict(self._engine.table)
            for name, deployed in table.items():
                if deployed.mode == SHADOW and deployed.challenger is not None:
                    version = deployed.challenger.version
                    self._of_shadow.add((name, version))
                    for count, metric in self._shadow.items():
                        value = float(getattr(deployed.counts, count))
                        self._raise(metric.labels(name, version), value, name, version, count)
            if not self.shared:
                self._forget(table)

    def _raise(self, counter: Counter, value: float, *key: str) -> None:
        """Count what a number that is kept elsewhere rose by; one that fell began anew."""
        before = self._counted.get(key, 0.0)
        counter.inc(value - before if value >= before else value)
        self._counted[key] = value

    def _forget(self, table: Mapping[str, Any]) -> None:
        """Let go what counts versions that are no longer deployed."""
        there = {
            (name, served.version)
            for name, deployed in table.items()
            for served in (deployed.live, deployed.challenger)
            if served is not None
        }
        for name, version, arm in [key for key in list(self._of_said) if key[:2] not in there]:
            del self._of_said[name, version, arm]
            self._predictions.remove(name, version, arm)
            if not any(key[:2] == (name, version) for key in list(self._of_said)):
                self._unknown.remove(name, version)
                for tenth in TENTHS:
                    self._confidence.remove(name, version, tenth)
        shadows = {
            (name, one.challenger.version) for name, one in table.items() if one.mode == SHADOW and one.challenger
        }
        for name, version in self._of_shadow - shadows:
            self._of_shadow.discard((name, version))
            for count, metric in self._shadow.items():
                metric.remove(name, version)
                self._counted.pop((name, version, count), None)


def ended(pid: int) -> None:
    """A worker of this server ended: its gauges count no more. Nothing to do where there are no workers."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


def _bounded(name: str, known: Any) -> str:
    return name if name in known or len(known) < MOST else OTHER
