"""Traces of requests, read from the SDK's exporter in memory."""

import asyncio
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from headstart.answers import Answers
from headstart.errors import MissingExtra
from headstart.server import tracing
from headstart.server.metrics import Metrics
from headstart.serving.asked import Reply, Said

SECRET = "where is my parcel"


def reply(models=1):
    answers = Answers(np.ones((3, 1), np.float32), np.ones((3, 1), bool), np.zeros(3, bool))
    served = SimpleNamespace(version="v3", task="classification")
    said = tuple(Said(f"m{i}", served, "live", answers, "id") for i in range(models))
    return Reply(said, {"encode": 0.02, "answer": 0.001}, 1)


@pytest.fixture
def traced(monkeypatch):
    """Ask a traced application; gives (ask, finished): finished() is what the exporter got."""
    exporter, metrics = InMemorySpanExporter(), Metrics()
    monkeypatch.setattr(tracing, "BatchSpanProcessor", tracing_simple())

    def ask(work=None, *, status=200, headers=(), path="/v1/models/m0/predict", models=1, streamed=False):
        async def app(scope, receive, send):
            scope["route"] = SimpleNamespace(path="/v1/models/{name}/predict")
            if work:
                work()
            if streamed:
                await send({"type": "http.response.start", "status": status, "headers": []})
                metrics.replied(reply(models))
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": SECRET.encode()})
            await asyncio.to_thread(metrics.replied, reply(models))

        async def quiet(message=None):
            return {"type": "http.request", "body": SECRET.encode()}

        around = tracing.traced(app, metrics, exporter)
        scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers)}
        asyncio.run(around(scope, quiet, quiet))

    return ask, exporter.get_finished_spans


def tracing_simple():
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    return SimpleSpanProcessor


def test_a_request_and_its_stages(traced):
    ask, finished = traced
    ask()
    spans = {span.name: span for span in finished()}
    request = spans.pop("POST /v1/models/{name}/predict")
    assert set(spans) == {"encode", "answer"}
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["headstart.inputs"] == 3
    assert request.attributes["headstart.model"] == ("m0@v3",)
    for span in spans.values():
        assert span.parent.span_id == request.context.span_id
        assert span.context.trace_id == request.context.trace_id
    assert spans["encode"].end_time == spans["answer"].start_time
    assert (spans["encode"].end_time - spans["encode"].start_time) / 1e9 == pytest.approx(0.02)
    assert spans["answer"].end_time <= request.end_time
    assert request.resource.attributes["service.name"] == "headstart"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_stage_ends_before_the_request(traced, streamed):
    ask, finished = traced
    ask(streamed=streamed)
    *stages, request = finished()
    assert len(stages) == 2
    assert all(stage.end_time <= request.end_time for stage in stages)


def test_a_clients_trace_goes_on(traced):
    ask, finished = traced
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    ask(headers=[(b"traceparent", f"00-{trace}-{parent}-01".encode())])
    request = finished()[-1]
    assert f"{request.context.trace_id:032x}" == trace
    assert f"{request.parent.span_id:016x}" == parent


@pytest.mark.parametrize(
    "garbage", [b"", b"00-zz", b"\xff" * 50, b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01", b"x" * 100_000]
)
def test_a_traceparent_that_is_none_begins_a_new_trace(traced, garbage):
    ask, finished = traced
    ask(headers=[(b"traceparent", garbage), (b"tracestate", garbage)])
    assert finished()[-1].parent is None


def test_a_trace_that_is_not_sampled_costs_no_spans(traced):
    ask, finished = traced
    ask(headers=[(b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")])
    assert finished() == ()


def test_faults_are_marked_and_nothing_is_swallowed(traced):
    ask, finished = traced
    ask(status=503)
    assert finished()[-1].status.status_code is StatusCode.ERROR

    def broken():
        raise ZeroDivisionError(SECRET)

    with pytest.raises(ZeroDivisionError):
        ask(broken)
    assert finished()[-1].attributes["error.type"] == "ZeroDivisionError"
    assert finished()[-1].end_time is not None


def test_no_input_is_in_a_span(traced):
    ask, finished = traced
    ask(headers=[(b"authorization", b"Bearer hs_secret")], models=20)
    text = " ".join(span.to_json() for span in finished())
    assert SECRET not in text
    assert "hs_secret" not in text
    assert '"headstart.models": 20' in text
    assert "m19" not in text  # of many only the number


def test_a_long_path_is_cut(traced):
    ask, finished = traced
    ask(path="/" + "a" * 10_000)
    assert len(finished()[-1].attributes["url.path"]) == tracing.PATH


def test_a_reply_outside_a_request_is_no_span(traced):
    ask, finished = traced
    ask()
    before, metrics = len(finished()), Metrics()
    tracing.traced(None, metrics, InMemorySpanExporter())
    metrics.replied(reply())
    assert len(finished()) == before


def test_the_service_is_called_what_the_environment_says(monkeypatch):
    assert tracing._resource().attributes["service.name"] == "headstart"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    assert tracing._resource().attributes["service.name"] == "mine"


def test_without_the_extra_the_pip_line_is_said(monkeypatch):
    monkeypatch.setattr(tracing, "EXPORTER", "opentelemetry.exporter.of.nobody")
    with pytest.raises(MissingExtra, match=r"pip install 'headstart\[otel\]'"):
        tracing._otlp()
    hidden = "import sys; sys.modules['opentelemetry'] = None; import headstart.server.tracing"
    found = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, timeout=30)
    assert "pip install 'headstart[otel]'" in found.stderr
