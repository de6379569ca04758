"""The Open Inference Protocol v2 over HTTP, asked with Triton's own client."""

import asyncio
import base64
import json

import numpy as np
import pytest

import headstart
from headstart import apikeys
from headstart.errors import ModelError
from headstart.model import load

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
triton = pytest.importorskip("tritonclient.http")
InferenceServerException = pytest.importorskip("tritonclient.utils").InferenceServerException
clientserver = pytest.importorskip("clientserver")

TEXTS = clientserver.TEXTS


@pytest.fixture(scope="module")
def service():
    made = clientserver.serve(clientserver.project())
    yield made
    made.engine.close(5)


@pytest.fixture(scope="module")
def client(service):
    with clientserver.Live(clientserver.app(service)) as where:
        made = triton.InferenceServerClient(where, concurrency=2)
        yield made
        made.close()


def truth(service, name, contents):
    """(labels, answers) of a model asked directly."""
    model = load(service.engine.table[name].live.folder)
    return model.labels, model.answer(model.backbone.encode(contents))


def tensor(items, name="text", shape=None, binary=True):
    made = triton.InferInput(name, shape or [len(items)], "BYTES")
    raw = [one if isinstance(one, bytes) else one.encode() for one in items]
    made.set_data_from_numpy(np.array(raw, np.object_).reshape(shape or [len(items)]), binary_data=binary)
    return made


def test_a_server_that_lives(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    said = client.get_server_metadata()
    assert said == {"name": "headstart", "version": headstart.__version__, "extensions": ["binary_tensor_data"]}


def test_models_say_what_they_read_and_give(client, service):
    assert client.is_model_ready("topics")
    assert client.is_model_ready("topics", "1")
    assert not client.is_model_ready("topics", "2")
    assert not client.is_model_ready("topix")
    said = client.get_model_metadata("topics", "1")
    assert said == client.get_model_metadata("topics")
    assert (said["name"], said["versions"], said["platform"]) == ("topics", ["1"], "headstart")
    assert said["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert [(one["name"], one["datatype"], one["shape"]) for one in said["outputs"]] == [
        ("label", "BYTES", [-1]),
        ("probability", "FP32", [-1]),
        ("unknown", "BOOL", [-1]),
        ("probabilities", "FP32", [-1, 3]),
        ("id", "BYTES", [-1]),
    ]
    assert json.loads(said["properties"]["labels"]) == list(truth(service, "topics", TEXTS)[0])
    assert client.get_model_metadata("colours")["inputs"][0]["name"] == "image"


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("shape", [[len(TEXTS)], [len(TEXTS), 1]])
@pytest.mark.parametrize("outputs", ["none", "binary", "json"])
def test_a_classifier_answers(client, service, binary, shape, outputs):
    """C20: binary and JSON tensors, both ways."""
    names = ["probabilities", "label", "id", "unknown", "probability"]
    wanted = (
        None if outputs == "none" else [triton.InferRequestedOutput(n, binary_data=outputs == "binary") for n in names]
    )
    found = client.infer("topics", [tensor(TEXTS, shape=shape, binary=binary)], outputs=wanted, request_id="abc")
    labels, answers = truth(service, "topics", TEXTS)
    np.testing.assert_allclose(found.as_numpy("probabilities"), answers.P, atol=1e-6)
    assert found.as_numpy("probabilities").dtype == np.float32
    np.testing.assert_allclose(found.as_numpy("probability"), answers.P.max(1), atol=1e-6)
    said = [one if isinstance(one, str) else one.decode() for one in found.as_numpy("label")]
    assert said == [labels[best] for best in answers.P.argmax(1)]
    np.testing.assert_array_equal(found.as_numpy("unknown"), answers.unknown)
    assert found.as_numpy("unknown").dtype == np.bool_
    ids = [str(one) for one in found.as_numpy("id")]
    assert len(set(ids)) == len(TEXTS)
    whole = found.get_response()
    assert (whole["id"], whole["model_name"], whole["model_version"]) == ("abc", "topics", "1")
    assert whole["parameters"]["digest"] == service.engine.table["topics"].live.digest
    assert [one["name"] for one in whole["outputs"]] == names if wanted else len(whole["outputs"]) == 5


def test_only_the_outputs_asked_for_come(client):
    found = client.infer("topics", [tensor(TEXTS)], outputs=[triton.InferRequestedOutput("label", binary_data=False)])
    assert [one["name"] for one in found.get_response()["outputs"]] == ["label"]
    assert found.as_numpy("probability") is None


def test_each_output_is_bytes_or_json_as_asked(service):
    """binary_data of an output goes before binary_data_output of the request."""
    wanted = [
        {"name": "probability", "parameters": {"binary_data": False}},
        {"name": "unknown", "parameters": {"binary_data": True}},
        {"name": "label"},
    ]
    for every in (True, False):
        asked = {"inputs": [ONE], "outputs": wanted, "parameters": {"binary_data_output": every}}
        answer = web(service, "POST", "/v2/models/topics/infer", json=asked)
        assert answer.headers["content-type"] == "application/octet-stream"
        length = int(answer.headers["Inference-Header-Content-Length"])
        said = json.loads(answer.content[:length])["outputs"]
        assert ["data" in one for one in said] == [True, False, not every]
        assert len(answer.content) - length == 1 + every * (4 + len("metal"))


def test_several_labels_and_numbers(client, service):
    found = client.infer("tags", [tensor(TEXTS)])
    labels, answers = truth(service, "tags", TEXTS)
    np.testing.assert_array_equal(found.as_numpy("chosen"), answers.chosen)
    np.testing.assert_allclose(found.as_numpy("probabilities"), answers.P, atol=1e-6)
    expected = [[labels[j] for j in np.flatnonzero(row)] for row in answers.chosen]
    assert [json.loads(one) for one in found.as_numpy("labels")] == expected
    found = client.infer("size", [tensor(TEXTS)])
    np.testing.assert_allclose(found.as_numpy("value"), truth(service, "size", TEXTS)[1].P[:, 0], rtol=1e-5)
    assert found.as_numpy("unknown").shape == (len(TEXTS),)


@pytest.mark.parametrize("binary", [True, False])
def test_pictures(client, service, binary):
    """As binary data the file's own bytes, in JSON base64."""
    pictures = [clientserver.plain(colour) for colour in clientserver.COLOURS.values()]
    sent = pictures if binary else [base64.b64encode(one) for one in pictures]
    found = client.infer("colours", [tensor(sent, "image", binary=binary)])
    assert [one.decode() for one in found.as_numpy("label")] == list(clientserver.COLOURS)


def test_many_at_once(client):
    """C16: answers stand in the order of the inputs."""
    asked = [client.async_infer("topics", [tensor([text])]) for text in TEXTS * 5]
    whole = client.infer("topics", [tensor(TEXTS)]).as_numpy("probabilities")
    for i, one in enumerate(asked):
        np.testing.assert_allclose(one.get_result().as_numpy("probabilities")[0], whole[i % len(TEXTS)], atol=1e-6)
    texts = [f"apple {i} iron" for i in range(1024)]
    found = client.infer("topics", [tensor(texts)])
    some = client.infer("topics", [tensor(texts[700:710])])
    np.testing.assert_allclose(found.as_numpy("probabilities")[700:710], some.as_numpy("probabilities"), atol=1e-5)


def refused(client, status, words, name="topics", tensors=None, **more):
    with pytest.raises(InferenceServerException) as found:
        client.infer(name, tensors or [tensor(TEXTS)], **more)
    assert found.value.status() == str(status)
    assert words in found.value.message()


def test_what_the_client_is_refused(client):
    refused(client, 404, "no model 'topix' is served here. Did you mean 'topics'", "topix")
    refused(client, 404, "not served in version '9'", model_version="9")
    refused(client, 404, "not served in version '9'", model_version="v9")
    refused(client, 400, "no output 'lable'. Did you mean 'label'", outputs=[triton.InferRequestedOutput("lable")])
    refused(client, 400, "reads one input, 'text'", tensors=[tensor(TEXTS, "image")])
    refused(client, 400, "reads one input, 'text'", tensors=[tensor(TEXTS), tensor(TEXTS, "more")])
    refused(client, 400, "element 1 of input 'text' is not UTF-8", tensors=[tensor([b"a", b"\xff"])])
    refused(client, 400, "at most 1,024", tensors=[tensor(["a"] * 1025)])
    refused(client, 400, "cannot be read", "colours", [tensor([b"no picture"], "image")])
    refused(client, 400, "not base64", "colours", [tensor(["?"], "image", binary=False)])
    refused(client, 400, "request key has 257", headers={"X-Request-Key": "k" * 257})
    numbers = triton.InferInput("text", [2], "FP32")
    numbers.set_data_from_numpy(np.zeros(2, np.float32))
    refused(client, 400, "has datatype FP32", tensors=[numbers])
    wide = tensor(TEXTS, shape=[2, 2])
    refused(client, 400, "[n, 2]", tensors=[wide])
    assert client.infer("topics", [tensor(TEXTS)], model_version="v1").as_numpy("id").shape == (len(TEXTS),)
    assert client.infer("topics", [tensor(TEXTS)], model_version="1").as_numpy("id").shape == (len(TEXTS),)


def test_keys(service, tmp_path):
    """C11."""
    _, reads = apikeys.create(tmp_path, "reader", ["read"])
    keyed = clientserver.replace(service, keyring=apikeys.Keyring.of(tmp_path))
    with clientserver.Live(clientserver.app(keyed)) as where:
        client = triton.InferenceServerClient(where)
        assert client.is_server_live()
        refused(client, 401, "no API key", headers={})
        refused(client, 403, "'predict'", headers={"Authorization": f"Bearer {reads}"})
        assert client.is_model_ready("topics", headers={"Authorization": f"Bearer {reads}"})
        client.close()


def web(service, method, path, **more):
    async def run():
        at = httpx.ASGITransport(clientserver.app(service))
        async with httpx.AsyncClient(transport=at, base_url="http://localhost") as http:
            return await http.request(method, path, **more)

    return asyncio.run(run())


ONE = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["iron"]}


@pytest.mark.parametrize(
    ("content", "header"),
    [
        (b"", None), (b"{}", None), (b"\xff", None), (b'{"inputs":[]}', None), (b'{"inputs":"\\ud800"}', None),
        (json.dumps({"inputs": [{**ONE, "shape": [2**63]}]}).encode(), None),
        (json.dumps({"inputs": [{**ONE, "shape": [-1]}]}).encode(), None),
        (json.dumps({"inputs": [{**ONE, "shape": [0], "data": []}]}).encode(), None),
        (json.dumps({"inputs": [ONE]}).encode(), "9999"), (json.dumps({"inputs": [ONE]}).encode() + b"x", None),
    ],
)  # fmt: skip
def test_requests_that_are_none(service, content, header):
    """C21: 400 with {"error": words}."""
    headers = {"Inference-Header-Content-Length": header} if header else {}
    answer = web(service, "POST", "/v2/models/topics/infer", content=content, headers=headers)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"]


def test_every_refusal_has_the_protocols_form(service, monkeypatch):
    for path in ("/v2/models/nope", "/v2/models/nope/ready", "/v2/models/topics/versions/7/ready", "/v2/nothing"):
        answer = web(service, "GET", path)
        assert (answer.status_code, list(answer.json())) == (404, ["error"])
    small = clientserver.changed(service, max_body=50)
    answer = web(small, "POST", "/v2/models/topics/infer", json={"inputs": [ONE]})
    assert (answer.status_code, list(answer.json())) == (413, ["error"])
    small = clientserver.changed(service, max_text=3)
    answer = web(small, "POST", "/v2/models/topics/infer", json={"inputs": [ONE]})
    assert (answer.status_code, answer.json()["error"][:9]) == (400, "element 0")

    def sick():
        raise ModelError("the base broke.")

    monkeypatch.setattr(service.engine, "ready", sick)
    service.readiness.until = 0.0
    answer = web(service, "GET", "/v2/health/ready")
    service.readiness.until = 0.0
    assert (answer.status_code, answer.json()) == (503, {"error": "the server is not ready: the base broke."})


def test_unknown_is_judged_only_when_it_is_sent(service, monkeypatch):
    seen = []
    real = service.engine.answer

    async def noted(question):
        seen.append((question.judge, question.key, question.version))
        return await real(question)

    monkeypatch.setattr(service.engine, "answer", noted)
    path = "/v2/models/topics/versions/1/infer"
    for outputs in ([], [{"name": "label"}], [{"name": "unknown"}]):
        asked = {"inputs": [ONE], "outputs": outputs}
        assert web(service, "POST", path, json=asked, headers={"X-Request-Key": "u1"}).status_code == 200
    assert seen == [(True, "u1", "v1"), (False, "u1", "v1"), (True, "u1", "v1")]


def test_versions_beside_one_another(tmp_path):
    """A challenger has its own version; without one a canary is dealt by the request key."""
    for seed in (0, 1):
        rows = clientserver.sentences(60, seed)
        texts, labels = [text for text, _ in rows], [label for _, label in rows]
        headstart.fit(texts, labels, name="topics", backbone="fake", project=tmp_path)
    service = clientserver.serve(tmp_path)
    service.engine.deploy("topics", "v1", "topics")
    service.engine.deploy("topics", "v2", "topics", mode="canary", share=0.5)
    assert web(service, "GET", "/v2/models/topics").json()["versions"] == ["1", "2"]
    live, new = (service.engine.table["topics"].live, service.engine.table["topics"].challenger)
    for version, served in (("1", live), ("2", new)):
        path = f"/v2/models/topics/versions/{version}"
        assert web(service, "GET", path).json()["properties"]["digest"] == served.digest
        said = web(service, "POST", f"{path}/infer", json={"inputs": [ONE]}).json()
        assert (said["model_version"], said["parameters"]["digest"]) == (version, served.digest)

    def dealt(key):
        asked = {"inputs": [ONE], "outputs": [{"name": "label"}]}
        said = web(service, "POST", "/v2/models/topics/infer", json=asked, headers={"X-Request-Key": key}).json()
        return said["model_version"], said["parameters"]["arm"]

    found = [dealt(f"user {i}") for i in range(20)]
    assert set(found) == {("1", "live"), ("2", "canary")}
    assert found == [dealt(f"user {i}") for i in range(20)]
    service.engine.close(5)


def test_a_model_that_could_not_be_loaded(service, monkeypatch):
    monkeypatch.setattr(type(service.engine), "faults", {"broken": "its weights differ."})
    answer = web(service, "GET", "/v2/models/broken/ready")
    assert (answer.status_code, answer.json()) == (503, {"error": "model 'broken' cannot answer: its weights differ."})
