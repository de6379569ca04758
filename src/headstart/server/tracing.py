"""OpenTelemetry traces: a span a request that was let in, and under it one for each stage of its work.

Needs the extra `otel`. Where spans go, how many are kept and what the service is called is said by the standard
environment variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME ...); without them they go to a
collector on this machine. A trace that a client began goes on (W3C `traceparent`). No input, label or key is in a span.

    app = tracing.traced(app, metrics)      inside the gate: what it refuses is counted, not traced
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headstart.errors import MissingExtra

try:
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
    from opentelemetry.trace import Span, SpanKind, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    raise MissingExtra("--otel needs OpenTelemetry: pip install 'headstart[otel]'") from error

if TYPE_CHECKING:
    from headstart.server.metrics import Metrics

EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
STAGES = ("encode", "answer")  # of a Reply, in their order
NAMED = 8  # models that a span names; of more it says how many
PATH = 300  # letters of a path

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


@dataclass
class _Open:
    """The request that is being answered."""

    span: Span
    began: int = 0  # of its answer, unix nanoseconds
    over: bool = False  # its last byte was sent


_open: ContextVar[_Open | None] = ContextVar("request", default=None)


def traced(app: App, metrics: Metrics, exporter: SpanExporter | None = None) -> App:
    """An ASGI application that traces `app`; the stages come from the replies that `metrics` is told of.

    exporter: where spans go, an OTLP one by default. Raises MissingExtra.
    """
    provider = TracerProvider(resource=_resource())
    provider.add_span_processor(BatchSpanProcessor(_otlp() if exporter is None else exporter))
    tracer = provider.get_tracer("headstart")
    propagator = TraceContextTextMapPropagator()

    async def around(
        scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in (b"traceparent", b"tracestate")
        }
        attributes = {"http.request.method": scope["method"], "url.path": scope["path"][:PATH]}
        span = tracer.start_span(scope["method"], propagator.extract(headers), SpanKind.SERVER, attributes)
        request = _Open(span)
        token = _open.set(request)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.began = time.time_ns()
                span.set_attribute("http.response.status_code", message["status"])
                if (route := getattr(scope.get("route"), "path", None)) is not None:  # the router found it meanwhile
                    span.set_attribute("http.route", route)
                    span.update_name(f"{scope['method']} {route}")
                if message["status"] >= 500:
                    span.set_status(StatusCode.ERROR)
            elif message["type"] == "http.response.body" and not message.get("more_body"):
                request.over = True
            await send(message)

        try:
            await app(scope, receive, sent)
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            _open.reset(token)
            span.end()

    def stages(reply: Any) -> None:
        """Spans of a reply's stages, which ended when the answer began; while lines are streamed, now."""
        request = _open.get()
        if request is None or not request.span.is_recording():
            return
        end = request.began if request.over else time.time_ns()
        names = [f"{said.name}@{said.served.version}" for said in reply.said[:NAMED]]
        attributes = {
            "headstart.models": len(reply.said),
            "headstart.inputs": len(reply.said[0].answers.P) if reply.said else 0,
            "headstart.remembered": reply.hits,
        }
        request.span.set_attributes({**attributes, **({"headstart.model": names} if len(reply.said) <= NAMED else {})})
        parent = trace.set_span_in_context(request.span)
        for name in reversed(STAGES):
            if (seconds := reply.seconds.get(name)) is not None:
                start = end - int(seconds * 1e9)
                tracer.start_span(name, parent, start_time=start).end(end)
                end = start

    metrics.also = stages
    return around


def _otlp() -> SpanExporter:
    try:
        found: SpanExporter = importlib.import_module(EXPORTER).OTLPSpanExporter()
    except ImportError as error:
        raise MissingExtra("--otel needs an OTLP exporter: pip install 'headstart[otel]'") from error
    return found


def _resource() -> Resource:
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create({} if named else {"service.name": "headstart"})
