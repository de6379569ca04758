"""The OpenAPI page is complete and true: schemathesis asks whatever it says can be asked."""

import warnings
from collections import Counter

import pytest
import schemathesis
from schemathesis.engine import events, from_schema

import servedapp
from headstart.server.app import build
from headstart.server.gate import Gate

OURS = r"^/(v1/(?!embeddings)|health/|metrics)"
MORE = ["positive_data_acceptance"]  # what fits the page can still be no picture, or nothing to go back to


@schemathesis.serializer("application/x-ndjson")
def lines(ctx, value):
    """For the page a body of lines is one text."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    root = servedapp.copied(servedapp.project(tmp_path_factory), tmp_path_factory.mktemp("openapi") / "project")
    with servedapp.client(root, log="on", hosts=("testserver",)) as found:
        yield found


def test_c1_whatever_the_page_says_can_be_asked_is_answered_as_it_says(client):
    service = client.service
    gate = Gate(build(service), service.settings, service.door, service.engine.busy)
    schema = schemathesis.openapi.from_asgi("/openapi.json", gate).include(path_regex=OURS)
    schema.config.generation.update(max_examples=5, deterministic=True, no_shrink=True, database="none")
    schema.config.checks.update(excluded_check_names=MORE)
    schema.config.phases.update(phases=["examples", "coverage", "fuzzing"])
    faults, asked = [], Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        for event in from_schema(schema).execute():
            if isinstance(event, events.NonFatalError | events.FatalError):
                faults.append(f"{event.label}: {event.value!r}")
            if isinstance(event, events.ScenarioFinished):
                for case, nodes in event.recorder.checks.items():
                    asked[event.label] += 1
                    for node in nodes:
                        if node.failure_info is not None:
                            failure = node.failure_info.failure
                            curl = event.recorder.cases[case].value.as_curl_command()[:600]
                            faults.append(f"{failure.title}: {failure.message}\n{curl}")
    assert not faults, "\n\n".join(faults)
    assert len(asked) == 14
    assert sum(asked.values()) > 200


def test_every_operation_says_what_it_is(client):
    found = client.get("/openapi.json").json()
    assert found["openapi"].startswith("3.1")
    names = []
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            names.append(operation["operationId"])
            assert operation["summary"]
            assert operation["tags"]
            assert "__" not in operation["operationId"]
            assert not operation["operationId"].endswith(("_get", "_post"))
            if method == "get":
                assert not {"413", "415"} & set(operation["responses"]), path
            if path.startswith("/v1/") and path != "/v1/embeddings":
                assert {"400", "401", "403", "429", "503"} <= set(operation["responses"])
                for status, response in operation["responses"].items():
                    if int(status) >= 400:
                        assert list(response["content"]) == ["application/problem+json"]
    assert len(names) == len(set(names))
    known = found["components"]["schemas"]
    for name in ("Predict", "PredictMany", "Deploy", "Feedback", "Change", "Prediction", "Deployment"):
        assert known[name]["additionalProperties"] is False
    text = str(found)
    for part in text.split("#/components/schemas/")[1:]:
        assert part.split("'")[0] in known


def test_the_list_of_operations_needs_nothing_from_elsewhere(client):
    found = client.get("/docs")
    assert found.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in found.headers["content-security-policy"]
    assert "<script" not in found.text
    assert "http" not in found.text.replace("HTTP", "")
    for path in client.get("/openapi.json").json()["paths"]:
        assert path in found.text


def test_browsers_of_allowed_origins_are_answered_before_they_ask(client, tmp_path_factory):
    asking = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    path = "/v1/models/topics/predict"
    assert client.options(path, headers=asking).status_code == 405
    root = servedapp.project(tmp_path_factory)
    with servedapp.client(root, gate=True, models=("topics",), cors=("https://app.example",)) as found:
        before = found.options(path, headers=asking)
        assert before.status_code == 204
        assert before.headers.get_list("access-control-allow-origin") == ["https://app.example"]
        assert "POST" in before.headers["access-control-allow-methods"]
        after = found.post(path, json={"inputs": "fig"}, headers={"Origin": "https://app.example"})
        assert after.headers.get_list("access-control-allow-origin") == ["https://app.example"]
        assert found.options(path, headers={**asking, "Origin": "https://evil.example"}).status_code == 403
