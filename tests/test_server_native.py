"""Predictions over HTTP: what is taken, what is answered, and what is refused in words."""

import asyncio
import base64
import json
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headstart
import servedapp
from clientserver import COLOURS, TEXTS, Live, plain
from conftest import sentences
from headstart import apikeys
from headstart.errors import Overloaded, TooLate
from headstart.server import native, reading, streaming
from headstart.server.app import build
from headstart.serving import explaining

PREDICT = "/v1/models/topics/predict"
LINES = {"Content-Type": "application/x-ndjson"}
JSON = {"Content-Type": "application/json"}
KEYS = {"asker": {"predict"}, "reader": {"predict", "read"}}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return servedapp.project(tmp_path_factory)


@pytest.fixture(scope="module")
def client(root):
    with servedapp.client(root, max_inputs=40, max_json=100_000, max_body=400_000, max_text=20_000) as found:
        yield found


def problem(response, status, *words):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found = response.json()
    assert found["status"] == status
    for word in words:
        assert word in found["detail"], found["detail"]
    return found


# -- answers -----------------------------------------------------------------------------------------------------------


def test_it_says_what_the_model_says(client, root):
    found = client.post(PREDICT, json={"inputs": TEXTS}).json()
    model = headstart.load("topics", project=root)
    assert (found["model"], found["version"], found["digest"]) == ("topics", "v2", model.card["digest"])
    for said, expected in zip(found["predictions"], model.predict(TEXTS), strict=True):
        assert said["label"] == expected.label
        assert said["probability"] == pytest.approx(expected.probability, abs=2e-6)
        assert said["unknown"] == expected.unknown
        assert set(said) == {"id", "label", "probability", "unknown"}


def test_one_text_is_one_prediction(client):
    assert len(client.post(PREDICT, json={"inputs": "my apple"}).json()["predictions"]) == 1


def test_equal_inputs_get_equal_answers_and_ids_of_their_own(client):
    found = client.post(PREDICT, json={"inputs": ["fig", "tin", "fig"]}).json()["predictions"]
    ids = [one.pop("id") for one in found]
    assert found[0] == found[2] != found[1]
    assert len(set(ids)) == 3


def test_options(client):
    found = client.post(PREDICT, json={"inputs": ["fig"], "top": 2, "unknown": False, "why": True, "key": "me"}).json()
    [said] = found["predictions"]
    assert said["unknown"] is None
    assert len(said["top"]) == 2
    assert said["top"][0] == {"label": said["label"], "probability": said["probability"]}
    assert {"nearest", "words"} <= set(said["why"])


def test_options_behind_a_question_mark(client):
    [said] = client.post(f"{PREDICT}?top=1&unknown=false", json={"inputs": "fig"}).json()["predictions"]
    assert len(said["top"]) == 1
    assert said["unknown"] is None
    [said] = client.post(f"{PREDICT}?top=1", json={"inputs": "fig", "top": 2}).json()["predictions"]
    assert len(said["top"]) == 2
    problem(client.post(f"{PREDICT}?tops=1", json={"inputs": "fig"}), 422, "'tops'", "'top'")
    problem(client.post(f"{PREDICT}?top=x", json={"inputs": "fig"}), 422, "'top'")


def test_numbers_and_several_labels(client):
    [said] = client.post("/v1/models/size/predict", json={"inputs": "fig"}).json()["predictions"]
    assert set(said) == {"id", "value", "unknown"}
    [said] = client.post("/v1/models/tags/predict", json={"inputs": "my apple fig plum"}).json()["predictions"]
    assert set(said) == {"id", "label", "probability", "unknown", "labels"}


def test_many_models_in_the_order_asked(client):
    found = client.post("/v1/predict", json={"inputs": TEXTS, "models": ["size", "topics"]}).json()["models"]
    assert [one["model"] for one in found] == ["size", "topics"]
    assert [len(one["predictions"]) for one in found] == [len(TEXTS)] * 2


def test_all_models_that_read_such_inputs(client):
    found = client.post("/v1/predict", json={"inputs": "fig"}).json()["models"]
    assert [one["model"] for one in found] == ["size", "tags", "topics"]
    content = base64.b64encode(plain(COLOURS["red"])).decode()
    found = client.post("/v1/predict", json={"inputs": {"base64": content}}).json()["models"]
    assert [one["model"] for one in found] == ["colours"]


def test_large_answers_equal_small_ones(client, monkeypatch):
    texts = [text for text, _ in sentences(40)]
    few = client.post("/v1/predict", json={"inputs": texts}).json()
    monkeypatch.setattr("headstart.server.rendering.MANY", 1)
    many = client.post("/v1/predict", json={"inputs": texts}).json()
    for one in (few, many):
        for model in one["models"]:
            for said in model["predictions"]:
                said.pop("id")
    assert few == many


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_pictures_in_json_and_in_a_form(client):
    pictures = [plain(COLOURS[name]) for name in ("red", "blue", "red")]
    sent = [{"base64": base64.b64encode(one).decode()} for one in pictures]
    found = client.post("/v1/models/colours/predict", json={"inputs": sent}).json()["predictions"]
    assert [one["label"] for one in found] == ["red", "blue", "red"]
    files = [("inputs", (f"../../{i}.png", one)) for i, one in enumerate(pictures)]
    form = client.post("/v1/models/colours/predict", files=files, data={"top": "1", "unknown": "false"}).json()
    assert [one["label"] for one in form["predictions"]] == ["red", "blue", "red"]
    assert form["predictions"][0]["unknown"] is None
    assert len(form["predictions"][0]["top"]) == 1


def test_a_form_for_many_models(client):
    problem(client.post("/v1/predict", data={"inputs": ["fig", "tin"]}), 415, "x-www-form-urlencoded")
    files = [("inputs", plain(COLOURS["red"])), ("models", (None, "colours")), ("models", (None, "size"))]
    problem(client.post("/v1/predict", files=files), 422, "'size' reads texts")
    [found] = client.post("/v1/predict", files=files[:2]).json()["models"]
    assert [one["label"] for one in found["predictions"]] == ["red"]


def test_c15_a_broken_picture_is_named_by_its_place(client):
    good, bad = plain(COLOURS["red"]), plain(COLOURS["red"])[:40]
    sent = [{"base64": base64.b64encode(one).decode()} for one in [good] * 5 + [bad] + [good] * 3]
    found = problem(client.post("/v1/models/colours/predict", json={"inputs": sent}), 422, "number 6 of the call")
    assert found["type"] == "urn:headstart:data"


def test_the_wrong_kind_of_input(client):
    content = base64.b64encode(plain(COLOURS["red"])).decode()
    problem(client.post(PREDICT, json={"inputs": {"base64": content}}), 422, "reads texts")
    problem(client.post("/v1/models/colours/predict", json={"inputs": "red"}), 422, "reads pictures")
    problem(client.post(PREDICT, json={"inputs": ["a", {"base64": content}]}), 422, "one kind at a time")


@pytest.mark.parametrize("wrong", ["", "%%%%", "YQ", "YQ==\n", "é", 3, None])
def test_base64_is_strict(client, wrong):
    found = client.post("/v1/models/colours/predict", json={"inputs": [{"base64": wrong}]})
    problem(found, 422, "base64" if wrong != "" else "it is empty")


# -- C4, C5: bodies ----------------------------------------------------------------------------------------------------

BROKEN = [
    b"", b"{", b"[1,]", b'{"inputs": "a"} x', b'{"inputs": NaN}', b'{"inputs": "a", "top": Infinity}',
    b'{"inputs": "\\ud800"}', b'{"inputs": "a", "inputs": "b"}', b'{"inputs": "a", "top": ' + b"1" * 5000 + b"}",
    b"[" * 50_000, b'{"inputs":' * 9_000, b'{"inputs": "a", "top": 1e400}', b"\xff\xfe{\x00}\x00", b'{"inputs": "\xff"}',
    b"\xef\xbb\xbf{}", b"{'inputs': 'a'}", b'{"inputs": "\x00"}', b'{"inputs": "a\nb"}',
]  # fmt: skip


@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
def test_c4_what_is_no_json_is_400_in_words(client, body):
    problem(client.post(PREDICT, content=body, headers=JSON), 400, "the body")


@settings(max_examples=25, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=6), x, max_size=3),
        max_leaves=8,
    )
)
def test_c4_any_json_gets_a_defined_answer(client, value):
    for sent in (value, {"inputs": value}, {"inputs": "fig", "top": value}, {"inputs": "fig", "models": value}):
        body = json.dumps(sent).encode()
        for path in (PREDICT, "/v1/predict"):
            found = client.post(path, content=body, headers=JSON)
            assert found.status_code in (200, 400, 404, 413, 422), found.text


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60))
def test_c4_any_bytes_get_a_defined_answer(client, body):
    assert client.post(PREDICT, content=body, headers=JSON).status_code in (400, 422)
    assert client.post(PREDICT, content=body, headers=LINES).status_code == 200
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post(PREDICT, content=b"--x\r\n" + body, headers=form).status_code in (400, 422)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (None, 415), ("text/plain", 415), ("application/x-www-form-urlencoded", 415), ("application/json; charset=utf-7", 415),
        ("application/json; charset=UTF-8", 200), ('application/json;charset="utf-8"', 200), ("APPLICATION/JSON", 200),
        ("multipart/form-data", 400), ("multipart/form-data; boundary=", 400), ("multipart/form-data; boundary=a", 400),
        ("application/jsonx", 415), ("", 415), (";", 415),
    ],
)  # fmt: skip
def test_c5_content_types(client, kind, status):
    headers = {} if kind is None else {"Content-Type": kind}
    found = client.post(PREDICT, content=b'{"inputs": "fig"}', headers=headers)
    assert found.status_code == status, found.text


def test_c5_two_content_types(client):
    headers = [("content-type", "application/json"), ("content-type", "text/plain")]
    problem(client.post(PREDICT, content=b'{"inputs": "fig"}', headers=headers), 400, "two Content-Type")


def test_c7_compressed_bodies_are_refused(client):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    problem(client.post(PREDICT, content=b"\x1f\x8b", headers=headers), 415, "compressed")


def form(*parts, boundary=b"x"):
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"
    return {"content": body, "headers": {"Content-Type": "multipart/form-data; boundary=x"}}


FILE = b'Content-Disposition: form-data; name="inputs"; filename="../../x"\r\n\r\n' + plain(COLOURS["red"])


def field(name, value):
    return b'Content-Disposition: form-data; name="%s"\r\n\r\n%s' % (name, value)


def test_c5_forms(client):
    path = "/v1/models/colours/predict"
    assert client.post(path, **form(FILE)).status_code == 200
    problem(client.post(PREDICT, **form(FILE)), 422, "reads texts")
    problem(client.post(path, **form(*[field(b"key", b"x")] * 20_000)), 413)
    problem(client.post(path, **form(*[FILE] * 41)), 413, "Too many files")
    problem(client.post(path, **form(b"Content-Disposition: form-data\r\n\r\nfig")), 400)
    problem(client.post(path, **form(FILE, field(b"inptus", b"x"))), 422, "'inputs'")
    problem(client.post(path, **form(field(b"inputs", b"fig"))), 422, "'inputs' are files")
    problem(client.post(path, **form(FILE.replace(b"inputs", b"top"))), 422, "'inputs' are files")
    problem(client.post(path, **form(FILE, *[field(b"top", b"1")] * 2)), 422, "twice")
    problem(client.post(path, **form(FILE, field(b"why", b"yes"))), 422, "'why'")
    problem(client.post(path, **form(FILE, field(b"key", b"x" * 70_000))), 413)
    problem(client.post(path, **form()), 422, "missing")
    nested = (
        FILE.partition(b"\r\n\r\n")[0] + b"\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n\r\nfig\r\n--y--"
    )
    problem(client.post(path, **form(nested)), 422, "no picture")
    problem(client.post(path, content=b"--x\r\n" + FILE + b"\r\n", headers=form()["headers"]), 400, "cut short")
    problem(client.post(path, content=b"y" * 500_000, headers=form()["headers"]), 413)


def test_bodies_are_bounded_whatever_they_say_of_themselves(client):
    problem(client.post(PREDICT, content=b'{"inputs": "' + b"a" * 100_000 + b'"}', headers=JSON), 413, "100,000 bytes")
    chunks = iter([b'{"inputs": "'] + [b"a" * 10_000] * 20)
    problem(client.post(PREDICT, content=chunks, headers=JSON), 413)


# -- fields ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "'inputs' is missing"),
        ([], "an object is expected"),
        ({"input": "a"}, "Did you mean 'inputs'"),
        ({"inputs": "a", "topp": 1}, "Did you mean 'top'"),
        ({"inputs": "a", "top": "1"}, "'top'"),
        ({"inputs": "a", "top": -1}, "'top'"),
        ({"inputs": "a", "top": True}, "'top'"),
        ({"inputs": "a", "why": 1}, "'why'"),
        ({"inputs": "a", "key": "k" * 257}, "'key'"),
        ({"inputs": []}, "at least one"),
        ({"inputs": [1]}, "inputs.0"),
        ({"inputs": ["a", None]}, "inputs.1"),
        ({"inputs": [["a"]]}, "inputs.0"),
        ({"inputs": {"base64": "YQ==", "x": 1}}, "nothing more"),
        ({"inputs": "a" * 20_001}, "20,000 characters"),
    ],
)
def test_fields_that_are_wrong_are_named(client, body, words):
    problem(client.post(PREDICT, json=body), 422, words)


def test_c17_how_many_inputs(client):
    problem(client.post(PREDICT, json={"inputs": []}), 422)
    assert len(client.post(PREDICT, json={"inputs": ["a"] * 40}).json()["predictions"]) == 40
    problem(client.post(PREDICT, json={"inputs": ["a"] * 41}), 413, "41 inputs", "40")


def test_too_many_predictions_and_reasons(client, monkeypatch):
    monkeypatch.setattr(native, "LARGEST", 5)
    problem(client.post("/v1/predict", json={"inputs": ["a", "b"]}), 413, "8 predictions")
    monkeypatch.setattr(native, "LARGEST", 10**6)
    words = f"up to {explaining.MOST}"
    both = {"inputs": ["a"] * (explaining.MOST // 2 + 1), "models": ["topics", "tags"], "why": True}
    problem(client.post("/v1/predict", json=both), 422, "'why'", words)
    problem(client.post(PREDICT, json={"inputs": ["a"] * (explaining.MOST + 1), "why": True}), 422, "'why'", words)
    assert client.post(PREDICT, json={"inputs": ["a"] * explaining.MOST, "why": True}).status_code == 200


def test_a_request_key_in_a_header(client):
    problem(client.post(PREDICT, json={"inputs": "a"}, headers={"X-Request-Key": "k" * 257}), 422, "X-Request-Key")
    assert client.post(PREDICT, json={"inputs": "a"}, headers={"X-Request-Key": "k"}).status_code == 200


# -- C12, C22: names ---------------------------------------------------------------------------------------------------

PATHS = [
    "%2e%2e%2ftopics",
    "topics%00",
    "..;",
    "topics%2f..",
    "%5c",
    "c:",
    "file:%2f%2fx",
    "%EF%BC%8E",
    "topic",
    "a" * 3000,
]


@pytest.mark.parametrize("name", PATHS)
def test_c12_c22_names_that_are_not_served(client, name):
    for path in (f"/v1/models/{name}/predict", f"/v1/models/{name}"):
        found = client.post(path, json={"inputs": "a"}) if path.endswith("predict") else client.get(path)
        problem(found, 404)
    problem(client.post(f"/v1/models/{name}/predict", content=b'"a"\n', headers=LINES), 404)


def test_c22_near_names_are_offered(client):
    problem(client.post("/v1/models/topic/predict", json={"inputs": "a"}), 404, "Did you mean 'topics'")
    problem(client.post("/v1/predict", json={"inputs": "a", "models": ["topics", "topic"]}), 404, "'topics'")
    problem(client.post("/v1//models/topics/predict", json={"inputs": "a"}), 404, "address")
    problem(client.post("/v1/models/topics/predict/", json={"inputs": "a"}), 404)
    assert client.get(PREDICT).status_code == 405
    assert client.get(PREDICT).headers["allow"] == "POST"
    assert client.put("/v1/deployments/topics").headers["allow"] == "DELETE, GET"


# -- C9, C14, C16, C19 -------------------------------------------------------------------------------------------------


def test_c14_alone_and_among_others(client):
    texts = [text for text, _ in sentences(32)]
    together = client.post(PREDICT, json={"inputs": texts}).json()["predictions"]
    for text, said in list(zip(texts, together, strict=True))[::7]:
        [alone] = client.post(PREDICT, json={"inputs": text}).json()["predictions"]
        assert alone["label"] == said["label"]
        assert alone["probability"] == pytest.approx(said["probability"], abs=2e-6)


def test_c16_answers_stay_with_their_inputs_under_concurrency(client):
    texts = ["x" * k for k in range(1, 41)]
    alone = {
        t: v["value"]
        for t, v in zip(
            texts, client.post("/v1/models/size/predict", json={"inputs": texts}).json()["predictions"], strict=True
        )
    }
    assert len(set(alone.values())) > 10
    wrong = []

    def ask(seed):
        rng = np.random.default_rng(seed)
        for _ in range(10):
            mine = [texts[i] for i in rng.permutation(40)[: rng.integers(1, 9)]]
            found = client.post("/v1/models/size/predict", json={"inputs": mine}).json()["predictions"]
            wrong.extend(t for t, v in zip(mine, found, strict=True) if abs(v["value"] - alone[t]) > 1e-3)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_the_engine_refuses(client, monkeypatch):
    async def late(question):
        raise TooLate("not answered in 5 ms.")

    monkeypatch.setattr(client.service.engine, "answer", late)
    problem(client.post(PREDICT, json={"inputs": "a"}), 504, "5 ms")

    async def busy(question):
        raise Overloaded("come again.", 2.5)

    monkeypatch.setattr(client.service.engine, "answer", busy)
    found = client.post(PREDICT, json={"inputs": "a"})
    problem(found, 429)
    assert found.headers["retry-after"] == "3"

    async def broken(question):
        raise RuntimeError("a secret")

    monkeypatch.setattr(client.service.engine, "answer", broken)
    found = client.post(PREDICT, json={"inputs": "a"})
    problem(found, 500)
    assert "secret" not in found.text


def test_c9_a_client_that_goes_cancels_its_question(client, monkeypatch):
    cancelled = []

    async def slow(question):
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(question)
            raise

    monkeypatch.setattr(client.service.engine, "answer", slow)
    sent = []

    async def visit():
        body = b'{"inputs": "a"}'
        said = [{"type": "http.request", "body": body, "more_body": False}, {"type": "http.disconnect"}]

        async def receive():
            return said.pop(0)

        async def send(message):
            sent.append(message)

        headers = [(b"content-type", b"application/json")]
        scope = {
            "type": "http",
            "method": "POST",
            "path": PREDICT,
            "raw_path": PREDICT.encode(),
            "query_string": b"",
            "headers": headers,
            "http_version": "1.1",
            "scheme": "http",
            "server": ("x", 1),
            "client": ("y", 2),
            "root_path": "",
        }
        _, waiting = await asyncio.wait({asyncio.create_task(build(client.service)(scope, receive, send))}, timeout=10)
        assert not waiting

    asyncio.run(visit())
    assert len(cancelled) == 1
    assert sent[0]["status"] == 499


def test_a_task_that_is_cancelled_from_elsewhere_stays_cancelled():
    class Request:
        async def receive(self):
            await asyncio.sleep(60)

    async def main():
        task = asyncio.create_task(native.unless_gone(Request(), asyncio.sleep(60)))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await native.unless_gone(Request(), asyncio.sleep(0.1, "done")) == "done"
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


# -- lines -------------------------------------------------------------------------------------------------------------


def lines(response):
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def test_lines_in_lines_out(client):
    body = b'"fig"\n{"input": "tin"}\n\n  \r\n{"input": "wren"}'
    found = lines(client.post(f"{PREDICT}?top=1", content=body, headers=LINES))
    expected = client.post(PREDICT, json={"inputs": ["fig", "tin", "wren"], "top": 1}).json()
    assert [one["label"] for one in found] == [one["label"] for one in expected["predictions"]]
    assert {(one["model"], one["version"], one["digest"]) for one in found} == {("topics", "v2", expected["digest"])}
    assert len({one["id"] for one in found}) == 3
    assert len(found[0]["top"]) == 1


def test_a_bad_line_is_named_and_the_others_are_answered(client):
    bad = [
        b"{",
        b"3",
        b'{"text": "a"}',
        b'["a"]',
        b"\xff",
        b'"' + b"a" * 20_001 + b'"',
        b'"' + b"a" * 150_000 + b'"',
        b'{"base64": "YQ=="}',
    ]
    body = b"\n".join(part for one in bad for part in (b'"fig"', one)) + b"\n"
    found = lines(client.post(PREDICT, content=body, headers=LINES))
    assert len(found) == 2 * len(bad)
    assert all(one["label"] for one in found[::2])
    assert [one["line"] for one in found[1::2]] == list(range(2, 2 * len(bad) + 1, 2))
    assert [one["error"]["status"] for one in found[1::2]] == [400, 422, 422, 422, 400, 422, 413, 422]


def test_broken_pictures_among_lines(client):
    good, bad = (
        json.dumps({"input": {"base64": base64.b64encode(one).decode()}}).encode()
        for one in (plain(COLOURS["red"]), b"xxxx")
    )
    found = lines(
        client.post("/v1/models/colours/predict", content=b"\n".join([b"{", good, bad, good, bad]), headers=LINES)
    )
    assert [one.get("label") for one in found] == [None, "red", None, "red", None]
    assert [one["line"] for one in found[::2]] == [1, 3, 5]


def test_lines_wait_when_there_is_too_much_to_do(client, monkeypatch):
    answer, refused = client.service.engine.answer, []

    async def busy(question):
        if len(refused) < 2:
            refused.append(1)
            raise Overloaded("later.", 0.01)
        return await answer(question)

    monkeypatch.setattr(client.service.engine, "answer", busy)
    assert lines(client.post(PREDICT, content=b'"fig"\n', headers=LINES))[0]["label"]

    async def never(question):
        raise Overloaded("later.", 1e9)

    monkeypatch.setattr(client.service.engine, "answer", never)
    assert lines(client.post(PREDICT, content=b'"fig"\n', headers=LINES))[0]["error"]["status"] == 429


def pieces(texts, size):
    whole = "".join(json.dumps(text) + "\n" for text in texts).encode()
    return [whole[i : i + size] for i in range(0, len(whole), size)]


class Slow:
    """A request whose body comes in pieces, counted."""

    def __init__(self, pieces):
        self.pieces, self.read = pieces, 0
        self.scope = {}

    async def stream(self):
        for piece in self.pieces:
            self.read += 1
            await asyncio.sleep(0)
            yield piece


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=200), st.integers(1, 300))
def test_lines_are_cut_right_wherever_the_pieces_end(texts, size):
    async def main():
        return [line async for batch in streaming.together(Slow(pieces(texts, size)), 1000) for line in batch]

    found = asyncio.run(main())
    assert [json.loads(line.text) for line in found] == texts
    assert [line.number for line in found] == list(range(1, len(texts) + 1))


def test_nothing_is_kept_of_a_line_without_end():
    async def main():
        request = Slow([b'"a"\n'] + [b"x" * 1000] * 50 + [b'\n"b"\n', b"y" * 2000])
        return [line async for batch in streaming.together(request, 1500) for line in batch]

    assert asyncio.run(main()) == [(1, b'"a"'), (2, None), (3, b'"b"'), (4, None)]


def test_who_does_not_take_answers_is_not_read_further(client):
    request = Slow(pieces([f"text {i}" for i in range(6400)], 700))
    wish = reading.checked(native.Predict, {"inputs": ""})

    async def main():
        stream = streaming.Stream(client.service, request, "topics", wish, None)
        answers = stream.answers()
        await anext(answers)
        await asyncio.sleep(0.3)
        read = request.read
        await asyncio.sleep(0.1)
        assert request.read == read
        assert read < len(request.pieces) / 4
        await answers.aclose()
        await asyncio.sleep(0.05)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def resident():
    """Bytes of this process in memory; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except FileNotFoundError:
        return 0


def test_twenty_thousand_lines_over_a_real_connection(root):
    texts = [f"{('apple', 'iron', 'owl')[i % 3]} n{i}" for i in range(20_000)]
    with servedapp.client(root) as found, Live(build(found.service)) as address:
        ids, labels, sizes = set(), [], []

        def body():
            for k in range(0, len(texts), 100):
                yield "".join(json.dumps(text) + "\n" for text in texts[k : k + 100]).encode()

        async def main():
            reader, writer = await asyncio.open_connection(*address.split(":"))
            writer.write(
                f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
            )

            async def write():
                for chunk in body():
                    writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                    await writer.drain()
                writer.write(b"0\r\n\r\n")

            task, rest = asyncio.create_task(write()), b""
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            while size := int(await reader.readline(), 16):
                rest += await reader.readexactly(size)
                await reader.readexactly(2)
                *ended, rest = rest.split(b"\n")
                for line in ended:
                    one = json.loads(line)
                    ids.add(one["id"])
                    labels.append(one["label"])
                if len(labels) >= 2000:
                    sizes.append(resident())
            await task
            writer.close()

        asyncio.run(main())
        assert len(ids) == len(labels) == 20_000
        expected = httpx.post(f"http://{address}{PREDICT}", json={"inputs": texts[:300]}).json()["predictions"]
        assert labels[:300] == [one["label"] for one in expected]
        assert max(sizes) - min(sizes) < 50e6


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/deployments", {"model": "bank@v1"}, "with the version in 'version' ('bank' and 'v1')"),
        ("/v1/deployments", {"model": "a b"}, "must be a name: up to 64 letters"),
        ("/v1/deployments", {"model": "topics", "version": "1"}, "field 'version' must be a version such as 'v3'"),
        ("/v1/deployments", {"model": "topics", "canary": 2}, "field 'canary' must be at most 1"),
        ("/v1/deployments", {"model": "topics", "canary": 0}, "field 'canary' must be more than 0"),
        ("/v1/deployments", {"model": "topics", "shadow": "yes"}, "field 'shadow' must be true or false; it is 'yes'"),
        ("/v1/predict", {"inputs": "a", "models": []}, "field 'models' must not be empty"),
        ("/v1/predict", {"inputs": "a", "models": "topics"}, "field 'models' must be a list; it is 'topics'"),
        ("/v1/predict", {"inputs": "a", "top": 1.5}, "field 'top' must be a whole number; it is 1.5"),
        ("/v1/predict", {"inputs": "a", "top": 2000}, "field 'top' must be at most 1000"),
        ("/v1/predict", {"inputs": "a", "key": "k" * 300}, "field 'key' must have at most 256 letters"),
        (
            "/v1/feedback",
            {"id": "x", "label": {"a": 1}},
            "field 'label' must be a label, a list of labels, or a number",
        ),
        ("/v1/feedback", {"id": "x", "label": ""}, "field 'label' must not be empty"),
    ],
)
def test_what_is_wrong_is_said_without_jargon(client, path, body, words):
    detail = problem(client.post(path, json=body), 422, words)["detail"]
    assert "pattern" not in detail
    assert "validation" not in detail


def test_forms_are_helped(client):
    path = "/v1/models/colours/predict"
    problem(client.post(path, **form(field(b"inputs", b"hello"))), 422, "'hello'", "inputs=@FILE")
    problem(client.post("/v1/predict", **form(FILE, field(b"models", b"colours,topics"))), 422, "repeat the field")
    files = [("inputs", (name, content)) for name, content in
             (("good.png", plain(COLOURS["red"])), ("bad.png", b"xxxx"), ("worse.png", b"yyyy"))]  # fmt: skip
    detail = problem(client.post(path, files=files), 422, "file 2 ('bad.png')", "file 3 ('worse.png')")["detail"]
    assert "good.png" not in detail


def test_fields_of_a_line_are_helped(client):
    body = b'{"inputt": "fig"}\n{"input": "fig", "top": 2}\n{}\n{"input": "fig"}\n'
    found = lines(client.post(PREDICT, content=body, headers=LINES))
    details = [one["error"]["detail"] for one in found[:3]]
    assert details[0] == "the line has a field 'inputt'. Did you mean 'input'?"
    assert "?top=" in details[1]
    assert "empty" in details[2]
    assert found[3]["label"]


def test_a_client_that_waits_to_be_told_to_send_lines_is_told_at_once(root):
    """Expect: 100-continue is answered before the answer begins, as curl -T wants it."""
    with servedapp.client(root) as found, Live(build(found.service)) as address:

        async def main():
            reader, writer = await asyncio.open_connection(*address.split(":"))
            body = b'"fig"\n'
            writer.write(
                f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nExpect: 100-continue\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            )
            assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).startswith(b"HTTP/1.1 100 ")
            writer.write(body)
            whole = await asyncio.wait_for(reader.read(), 5)
            assert whole.startswith(b"HTTP/1.1 200 ")
            assert b'"label":' in whole
            writer.close()

        asyncio.run(main())


# -- addresses ---------------------------------------------------------------------------------------------------------


def test_addresses_that_are_not_there_are_said_to_every_client(client):
    for path in ("/v1/models/nope", "/v1/completions"):
        found = problem(client.get(path), 404)
        assert found["error"]["message"] == found["detail"]
        assert found["error"]["type"] == "invalid_request_error"
    assert problem(client.get("/v1/models/nope"), 404)["error"]["code"] == "not_found"
    assert "error" not in problem(client.get("/nothing"), 404)
    assert "error" not in problem(client.post(PREDICT, json={}), 422)


def test_head_and_the_words_of_405(client):
    for path in ("/health/live", "/health/ready", "/v1/models"):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
    refused = client.put("/v1/deployments/topics")
    problem(refused, 405, "takes DELETE and GET, not PUT")
    assert refused.headers["allow"] == "DELETE, GET"
    problem(client.get(PREDICT), 405, "takes POST, not GET")


def test_a_model_under_another_name_says_its_own(tmp_path, root):
    with servedapp.client(servedapp.copied(root, tmp_path / "project")) as found:
        assert "source" not in found.post(PREDICT, json={"inputs": "fig"}).json()
        assert found.post("/v1/deployments", json={"model": "topics", "as": "fruit"}).status_code == 201
        said = found.post("/v1/models/fruit/predict", json={"inputs": "fig"}).json()
        assert (said["model"], said["source"]) == ("fruit", "topics")
        [line] = lines(found.post("/v1/models/fruit/predict", content=b'"fig"', headers=LINES))
        assert (line["model"], line["source"]) == ("fruit", "topics")


def test_what_shows_training_examples_needs_the_scope_read(root, tmp_path):
    own = servedapp.copied(root, tmp_path / "project")
    secrets = {name: apikeys.create(own, name, scopes)[1] for name, scopes in KEYS.items()}
    with servedapp.client(own, gate=True) as client:
        for name, status in (("asker", 403), ("reader", 200)):
            headers = {"Authorization": f"Bearer {secrets[name]}"}
            found = client.post(PREDICT, json={"inputs": ["fig"], "why": True}, headers=headers)
            assert found.status_code == status, found.text
            assert client.post(PREDICT, json={"inputs": ["fig"]}, headers=headers).status_code == 200
