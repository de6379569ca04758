"""POST /v1/embeddings, asked with OpenAI's own client."""

import asyncio
import base64
import importlib.util
import time

import numpy as np
import pytest

from headstart import apikeys, backbones
from headstart.backbone import Card, joined, parts
from headstart.backbones import minilm
from headstart.errors import InputError, Overloaded

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")
clientserver = pytest.importorskip("clientserver")
embeddings = pytest.importorskip("headstart.server.openai")

TEXTS = clientserver.TEXTS


@pytest.fixture(scope="module")
def service():
    made = clientserver.serve(clientserver.project())
    yield made
    made.engine.close(5)


def web(service):
    return httpx.AsyncClient(transport=httpx.ASGITransport(clientserver.app(service)), base_url="http://localhost")


def ask(service, call, key="none"):
    """call(client) with an AsyncOpenAI client of an app in this process."""

    async def run():
        async with web(service) as http:
            client = openai.AsyncOpenAI(api_key=key, base_url="http://localhost/v1", http_client=http, max_retries=0)
            return await call(client)

    return asyncio.run(run())


def create(service, key="none", **asked):
    asked = {"input": TEXTS, "model": "topics", **asked}
    return ask(service, lambda client: client.embeddings.create(**asked), key)


def post(service, content, **headers):
    async def run():
        async with web(service) as http:
            return await http.post(
                "/v1/embeddings", content=content, headers={"content-type": "application/json", **headers}
            )

    return asyncio.run(run())


def vectors(found):
    assert [one.index for one in found.data] == list(range(len(found.data)))
    return np.array([one.embedding for one in found.data], np.float32)


@pytest.mark.parametrize("asked", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_vectors_are_the_features_in_order(service, asked):
    """C20: the client asks for base64 unless told; it decodes it itself then."""
    found = create(service, **asked)
    if asked.get("encoding_format") == "base64":
        X = np.array([np.frombuffer(base64.b64decode(one.embedding), "<f4") for one in found.data])
    else:
        X = vectors(found)
    np.testing.assert_allclose(X, backbones.load("fake").encode(TEXTS), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1, atol=1e-5)
    assert (found.object, found.model) == ("list", "topics")
    words = sum(len(text.split()) for text in TEXTS)
    assert (found.usage.prompt_tokens, found.usage.total_tokens) == (words, words)


def test_one_text_and_the_name_of_a_base_model(service):
    X = vectors(create(service, input=TEXTS[1], model="fake"))
    np.testing.assert_allclose(X, backbones.load("fake").encode(TEXTS[1:2]), atol=1e-6)
    np.testing.assert_array_equal(vectors(create(service, dimensions=64.0)), vectors(create(service)))


def test_models_are_listed_for_the_client(service):
    listed = ask(service, lambda client: client.models.list())
    assert {"topics", "tags", "size", "colours"} <= {one.id for one in listed.data}
    one = ask(service, lambda client: client.models.retrieve("topics"))
    assert (one.id, one.object) == ("topics", "model")
    with pytest.raises(openai.NotFoundError) as found:
        ask(service, lambda client: client.models.retrieve("topix"))
    assert "Did you mean 'topics'" in found.value.body["message"]
    assert found.value.code == "not_found"


def test_a_name_that_is_not_served(service):
    with pytest.raises(openai.NotFoundError) as found:
        create(service, model="topic")
    assert "topics" in found.value.body["message"]
    assert set(found.value.body) == {"message", "type", "param", "code"}
    assert found.value.code == "not_found"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"input": []}, "one at least"),
        ({"input": [1, 2, 3]}, "send texts"),
        ({"input": [[1, 2], [3]]}, "send texts"),
        ({"input": ["a", 1]}, "list of texts"),
        ({"input": {"a": 1}}, "list of texts"),
        ({"input": None}, "`input`"),
        ({"input": ["a"] * 1025}, "at most 1,024"),
        ({"input": ["a", "b" * 1_000_001]}, "text 1 has 1,000,001 characters"),
        ({"model": None}, "`model`"),
        ({"model": "colours"}, "image"),
        ({"encoding_format": "int8"}, "float or base64"),
        ({"dimensions": 63}, "64 dimensions, not 63"),
        ({"dimensions": 0}, "not 0"),
        ({"dimensions": True}, "whole number"),
        ({"dimensions": 64.5}, "whole number"),
        ({"user": 5}, "`user`"),
        ({"extra_body": {"nothing": 1}}, "no field 'nothing'"),
    ],
)
def test_what_cannot_be_used_is_said_in_words(service, asked, words):
    with pytest.raises(openai.BadRequestError) as found:
        create(service, **asked)
    assert words in found.value.body["message"]
    assert found.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"{", b"\xff", b'{"input":"\\ud800","model":"topics"}', b"[" * 90_000, b'{"a":NaN}'],
)
def test_bodies_that_are_no_request(service, content):
    """C4: never 500."""
    answer = post(service, content)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_refusals_before_the_route_have_the_same_form(service):
    answer = post(service, b"{}", **{"content-type": "text/plain"})
    assert (answer.status_code, set(answer.json())) == (415, {"error"})
    small = clientserver.changed(service, max_json=100)
    answer = post(small, b'{"input":"%s","model":"topics"}' % (b"a" * 200))
    assert (answer.status_code, set(answer.json())) == (413, {"error"})


def test_keys_and_rates(service, tmp_path):
    """C11, C24: what the client makes of 401, 403 and 429."""
    apikeys.create(tmp_path, "reader", ["read"])
    _, reads = apikeys.create(tmp_path, "other", ["read"])
    _, asks = apikeys.create(tmp_path, "slow", ["predict"], rate=0.01)
    keyed = clientserver.replace(service, keyring=apikeys.Keyring.of(tmp_path))
    with pytest.raises(openai.AuthenticationError):
        create(keyed, key="hs_wrong")
    with pytest.raises(openai.PermissionDeniedError):
        create(keyed, key=reads)

    async def twice(client):
        await client.embeddings.create(input="a", model="topics")
        with pytest.raises(openai.RateLimitError) as found:
            await client.embeddings.create(input="a", model="topics")
        return found.value

    limited = ask(keyed, twice, asks)
    assert int(limited.response.headers["retry-after"]) > 1
    assert limited.type == "rate_limit_error"


def test_a_full_server(service, monkeypatch):
    async def full(*_):
        raise Overloaded("too much.", 2.4)

    monkeypatch.setattr(service.engine, "embed", full)
    with pytest.raises(openai.RateLimitError) as found:
        create(service)
    assert found.value.response.headers["retry-after"] == "3"


def test_the_deadline_of_the_request_is_told_to_the_engine(service, monkeypatch):
    """C19."""
    seen = []
    real = service.engine.embed

    async def noted(contents, name, deadline):
        seen.append(deadline - time.monotonic())
        return await real(contents, name, deadline)

    monkeypatch.setattr(service.engine, "embed", noted)
    create(service, extra_headers={"X-Timeout-Ms": "2500"})
    assert 1 < seen[0] <= 2.5


def card(*widths):
    cut = "+".join(f"p{i}" for i in range(len(widths)))
    return Card("some", "text", sum(widths), "MIT", "here", "0" * 64, "float32", cut, "f" * 64, widths)


def test_the_leading_part_of_a_cut_is_its_own_embedding():
    pieces = {f"p{i}": row / np.linalg.norm(row, axis=1, keepdims=True) for i, row in enumerate(np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32))}  # fmt: skip
    X = joined(pieces, "p0+p1+p2")
    of = card(4, 4, 4)
    np.testing.assert_allclose(embeddings.shortened(X, of, 4), pieces["p0"], atol=1e-6)
    np.testing.assert_allclose(embeddings.shortened(X, of, 4), parts(X, of)["p0"], atol=1e-6)
    np.testing.assert_allclose(embeddings.shortened(X, of, 8), joined(pieces, "p0+p1"), atol=1e-6)
    assert embeddings.shortened(X, of, 12) is X is embeddings.shortened(X, of, None)
    with pytest.raises(InputError, match="4 or 8 or 12 dimensions, not 6"):
        embeddings.shortened(X, of, 6)


def test_384_of_minilm_are_the_published_sentence_embedding():
    if importlib.util.find_spec(minilm.MODULE) is None:
        pytest.skip("the weights of all-MiniLM-L6-v2 are not installed")
    base = backbones.load("minilm", cut="6+max6")
    X = embeddings.shortened(base.encode(TEXTS), base.card, 384)
    np.testing.assert_allclose(X, base.at("6").encode(TEXTS), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1, atol=1e-5)
