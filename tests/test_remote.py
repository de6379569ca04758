"""A remote base against a server of ours that speaks the protocol, and misbehaves as servers do."""

import base64
import hashlib
import json
import logging
import socket
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import sentences
from headstart.backbone import cache_folder
from headstart.backbones import remote, wire
from headstart.backbones.remote import PROBES, Remote, formatted, named, parsed, signature
from headstart.errors import InputError, ModelError

KEY = "sk-secret-0123456789"
D = 48


def vector(text, salt=""):
    seed = int.from_bytes(hashlib.sha256((salt + text).encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(D).astype(np.float32)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.seen = []  # (path, headers, body) of every request
        self.plan = []  # what to do with the next requests, first to last; then answer
        self.salt, self.noise, self.most, self.floats = "", 0.0, None, False


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def say(self, status, body, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.seen.append((self.path, dict(self.headers), body))
        if server.plan:
            act = server.plan.pop(0)
            if act is not None:
                act(self, body)
                return
        self.answer(body)

    def answer(self, body):
        server, texts = self.server, body["input"]
        if server.most and len(texts) > server.most:
            self.say(413, {"error": {"message": "batch too large"}})
            return
        if server.floats and body["encoding_format"] != "float":
            self.say(422, {"error": {"message": "encoding_format must be float"}})
            return
        self.say(200, answered(body, server.salt, server.noise))


def answered(body, salt="", noise=0.0):
    data = []
    for i, text in enumerate(body["input"]):
        v = vector(text, salt)[: body.get("dimensions")]
        v = v + noise * np.random.default_rng().standard_normal(len(v)).astype(np.float32)
        floats = body["encoding_format"] == "float"
        data.append({"index": i, "embedding": v.tolist() if floats else base64.b64encode(v.astype("<f4")).decode()})
    return {"data": data[::-1], "model": body["model"], "usage": {"prompt_tokens": 5, "total_tokens": 7 * len(data)}}


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    monkeypatch.setenv("HEADSTART_OFFLINE", "0")
    for name in ("HEADSTART_REMOTE_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.01)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def expected(texts, salt=""):
    X = np.stack([vector(text, salt) for text in texts])
    return X / np.linalg.norm(X, axis=1, keepdims=True)


TEXTS = [f"text number {i}" for i in range(10)]


def test_vectors_come_in_order_and_of_unit_length(server):
    base = Remote(server.url, "m", batch=4, price_per_million=2.0)
    X = base.encode([*TEXTS, "  ", TEXTS[0]])
    assert X.dtype == np.float32
    np.testing.assert_allclose(X[:10], expected(TEXTS), atol=1e-6)
    assert not X[10].any()
    np.testing.assert_array_equal(X[11], X[0])
    sizes = [len(body["input"]) for _, _, body in server.seen]
    assert sizes == [3, 4, 4, 3]  # the probe, then 11 texts
    assert {path for path, _, _ in server.seen} == {"/v1/embeddings"}
    assert (base.spent.requests, base.spent.texts, base.spent.tokens) == (4, 14, 98)
    assert base.spent.money == pytest.approx(98 * 2e-6)
    assert "98 tokens" in base.spent.said()
    assert Remote(server.url, "m").spent.money is None


def test_the_card_and_the_name(server):
    base = Remote(server.url, "org/m:1")
    card = base.card
    assert card.name == f"remote:{server.url}#org/m:1"
    assert (card.width, card.widths, card.modality, card.cut) == (D, (D,), "text", "top")
    assert named(card.name) == base
    assert base.encode([]).shape == (0, D)
    asked = len(server.seen)
    assert named(card.name).card == card
    assert len(server.seen) == asked  # the probe is kept
    assert Remote(server.url, "other").card.fingerprint != card.fingerprint
    short = Remote(server.url, "org/m:1", dimensions=8)
    assert (short.card.width, parsed(short.name)[2]) == (8, 8)
    assert named(short.name) == short
    np.testing.assert_allclose(np.linalg.norm(short.encode(TEXTS), axis=1), 1, atol=1e-6)


def test_the_fingerprint_is_the_same_elsewhere_in_spite_of_noise(server, monkeypatch, tmp_path):
    seen = set()
    server.noise = 1e-6
    for i in range(3):
        monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / str(i)))
        seen.add(Remote(server.url, "m").card.fingerprint)
    assert len(seen) == 1


def test_noise_is_no_change_and_a_change_is(server):
    first = Remote(server.url, "m")
    first.encode(TEXTS)
    server.noise = 0.01
    Remote(server.url, "m").encode(TEXTS)
    server.noise, server.salt = 0.0, "new weights"
    assert Remote(server.url, "m").card == first.card  # reading the card asks nobody
    asked = len(server.seen)
    with pytest.raises(ModelError, match=r"no longer the model it was.*anew") as raised:
        Remote(server.url, "m").encode(TEXTS)
    assert len(server.seen) == asked + 1  # no text has gone out
    path = Remote(server.url, "m").probe
    assert str(path) in str(raised.value)
    path.unlink()
    again = Remote(server.url, "m")
    np.testing.assert_allclose(again.encode(TEXTS), expected(TEXTS, "new weights"), atol=1e-6)
    assert again.card.fingerprint != first.card.fingerprint


def test_a_small_change_is_one_too(server):
    assert Remote(server.url, "m").card
    server.noise = 0.1  # a cosine of about 0.995
    with pytest.raises(ModelError, match="no longer the model"):
        Remote(server.url, "m").encode(TEXTS)


def test_a_damaged_probe_is_said(server):
    base = Remote(server.url, "m")
    assert base.card
    base.probe.write_bytes(b"rubbish")
    with pytest.raises(ModelError):
        _ = Remote(server.url, "m").card


def test_what_may_pass_is_tried_again(server):
    def broken(handler, body):
        handler.connection.shutdown(socket.SHUT_RDWR)

    def half(handler, body):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"data": [')
        handler.connection.shutdown(socket.SHUT_RDWR)

    server.plan = [
        lambda h, b: h.say(500, {"error": "oops"}), broken, half, lambda h, b: h.say(503, b"<html>busy</html>"),
        lambda h, b: h.say(429, {"error": {"message": "slow down"}}),
    ]  # fmt: skip
    np.testing.assert_allclose(Remote(server.url, "m").encode(TEXTS), expected(TEXTS), atol=1e-6)
    assert len(server.seen) == 7


def test_retry_after_is_honoured(server):
    server.plan = [lambda h, b: h.say(429, {}, Retry_After="0.4")]
    start = time.monotonic()
    assert Remote(server.url, "m").card
    assert time.monotonic() - start >= 0.4
    server.plan = [lambda h, b: h.say(429, {"error": {"message": "daily limit"}}, Retry_After="3600")]
    with pytest.raises(InputError, match=r"3,600 seconds of patience.*daily limit"):
        Remote(server.url, "m").encode(TEXTS)
    assert wire.retry_after(formatdate(time.time() + 30)) == pytest.approx(30, abs=2)
    assert wire.retry_after(formatdate(time.time() - 30)) == 0
    assert [wire.retry_after(said) for said in (None, "soon", "nan", "inf")] == [None] * 4


def test_tries_end(server):
    server.plan = [lambda h, b: h.say(500, {"error": "oops"})] * 50
    with pytest.raises(InputError, match="no answer in 6 tries; the last: status 500 oops"):
        Remote(server.url, "m").encode(TEXTS)
    assert len(server.seen) == 6


def test_a_spent_account_is_not_asked_again(server):
    server.plan = [lambda h, b: h.say(429, {"error": {"message": "You have no credit", "code": "insufficient_quota"}})]
    with pytest.raises(InputError, match="no credit"):
        Remote(server.url, "m").encode(TEXTS)
    assert len(server.seen) == 1


def wrong(change):
    def act(handler, body):
        value = answered(body | {"encoding_format": "float"})
        found = change(value)
        handler.say(200, value if found is None else found)

    return act


def put(entry, name, value):
    def change(answer):
        answer["data"][entry][name] = value

    return change


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda a: a["data"].__delitem__(0), "2 vectors for 3 texts"),
        (lambda a: a["data"].append(a["data"][0]), "4 vectors for 3 texts"),
        (put(1, "index", 0), "index"), (put(1, "index", 9), "index"), (put(1, "index", -1), "index"), (put(1, "index", True), "index"),
        (put(0, "embedding", [1.0, 2.0]), "numbers"), (put(0, "embedding", []), "numbers"), (put(0, "embedding", None), "no list"),
        (put(0, "embedding", ["a"] * D), "no list"), (put(0, "embedding", [[1.0]] * D), "no list"), (put(0, "embedding", "!!"), "base64"),
        (put(0, "embedding", "AAA="), "base64"), (put(0, "embedding", [0] * D), "zeros"), (put(0, "embedding", [10**400] * D), "large"),
        (put(0, "embedding", base64.b64encode(np.full(D, np.nan, "<f4")).decode()), "not finite"),
        (put(0, "embedding", [float("nan")] * D), "NaN"),
        (lambda a: {"object": "list"}, "no list 'data'"), (lambda a: b"[1, 2]", "no list 'data'"),
        (lambda a: b"<html>", "cannot be used"), (lambda a: b"\xff\xfe", "cannot be used"), (lambda a: b"[" * 100_000, "deeply"),
    ],
)  # fmt: skip
def test_nonsense_is_refused(server, change, part):
    server.plan = [wrong(change)]
    with pytest.raises(ModelError, match=part):
        Remote(server.url, "m").encode(TEXTS)
    assert not Remote(server.url, "m").probe.exists()


def test_a_vector_of_another_width_is_refused(server):
    Remote(server.url, "m").encode(TEXTS)
    server.plan = [None, lambda h, b: h.say(200, answered(b | {"dimensions": 8}))]
    with pytest.raises(ModelError, match="8 numbers a text, and 48 before"):
        Remote(server.url, "m").encode(TEXTS)
    server.plan = [lambda h, b: h.say(200, answered(b | {"dimensions": 9}))]
    with pytest.raises(ModelError, match="8 were asked for"):
        Remote(server.url, "m", dimensions=8).encode(TEXTS)


def test_odd_usage_is_not_believed(server):
    for usage in (None, "many", {"total_tokens": "7"}, {"total_tokens": -5}, {}):
        server.plan = [wrong(lambda a, usage=usage: a | {"usage": usage})]
        base = Remote(server.url, f"m{usage!r:.9}".replace(" ", ""))
        assert base.card
        assert base.spent.tokens == 0


def test_a_slow_body_does_not_hold_us(server):
    def drip(handler, body):
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        try:
            for _ in range(100):
                handler.wfile.write(b" ")
                time.sleep(0.05)
        except OSError:
            pass

    server.plan = [drip] * 6
    start = time.monotonic()
    with pytest.raises(InputError, match=r"no whole answer within 0\.3 seconds"):
        Remote(server.url, "m", timeout=0.3).encode(TEXTS)
    assert time.monotonic() - start < 4


def test_a_huge_body_is_not_read(server):
    def flood(handler, body):
        handler.send_response(200)
        handler.send_header("Content-Length", str(10**12))
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b" " * 65536)
        except OSError:
            pass

    server.plan = [flood]
    with pytest.raises(ModelError, match="more than the"):
        Remote(server.url, "m").encode(TEXTS)


def test_a_redirect_is_refused(server):
    server.plan = [lambda h, b: h.say(307, b"", Location=server.url + "/elsewhere")]
    with pytest.raises(InputError, match="not followed"):
        Remote(server.url, "m").encode(TEXTS)
    assert len(server.seen) == 1


def test_a_request_that_is_too_large_is_halved(server):
    server.most = 3
    np.testing.assert_allclose(Remote(server.url, "m").encode(TEXTS), expected(TEXTS), atol=1e-6)
    server.plan = [None] + [lambda h, b: h.say(400, {"error": {"message": "bad word"}})] * 20
    with pytest.raises(InputError, match=r"status 400\): bad word"):
        Remote(server.url, "m").encode(TEXTS)


def test_a_server_without_base64(server):
    server.floats = True
    np.testing.assert_allclose(Remote(server.url, "m").encode(TEXTS), expected(TEXTS), atol=1e-6)
    assert [body["encoding_format"] for _, _, body in server.seen] == ["base64", "float", "float"]


def test_long_texts_and_many_letters(server):
    long = "a" * 50_000
    Remote(server.url, "m").encode([long, "b" * 40_000, "c" * 30_000, "d"])
    sent = [[len(text) for text in body["input"]] for _, _, body in server.seen[1:]]
    assert sent == [[32_000], [32_000], [30_000, 1]] or sent == [[32_000], [32_000, 30_000, 1]]
    assert all(sum(lengths) <= wire.LETTERS or len(lengths) == 1 for lengths in sent)


@given(st.lists(st.integers(0, 80_000), max_size=40), st.integers(1, 9))
def test_batches_cover_every_text_once(lengths, most):
    found = list(wire.batches(lengths, most))
    assert [i for some in found for i in some] == list(range(len(lengths)))
    for some in found:
        assert 1 <= len(some) <= most
        assert len(some) == 1 or sum(lengths[i] for i in some) <= wire.LETTERS


def test_the_rate_is_kept(server):
    base = Remote(server.url, "m", batch=2, per_minute=600)
    start = time.monotonic()
    base.encode(TEXTS)
    assert len(server.seen) == 6
    assert 0.45 < time.monotonic() - start < 3


def test_the_key_is_sent_and_never_said(server, monkeypatch, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HEADSTART_REMOTE_KEY", KEY)
    base = Remote(server.url, "m")
    said = [repr(base), str(base.card)]
    assert server.seen[0][1]["Authorization"] == f"Bearer {KEY}"
    for status in (400, 401, 403, 404, 500):
        server.plan = [lambda h, b, status=status: h.say(status, {"error": {"message": f"wrong key {KEY}"}})] * 10
        with pytest.raises(InputError) as raised:
            Remote(server.url, "m").encode(["x"])
        said.append(str(raised.value))
        assert str(status) in said[-1]
    assert "HEADSTART_REMOTE_KEY" in said[3]
    server.plan = [lambda h, b: h.say(200, json.dumps({"x": 1})[:-1].encode() + f', "{KEY}": 1, "{KEY}": 2}}'.encode())]
    with pytest.raises(ModelError, match="twice") as raised:
        Remote(server.url, "m").encode(["x"])
    said.append(str(raised.value))
    server.plan = [lambda h, b: h.wfile.write(f"{KEY}\r\n\r\n".encode())] * 6
    with pytest.raises(InputError, match="BadStatusLine") as raised:
        Remote(server.url, "m").encode(["x"])
    said.append(str(raised.value))
    out = capfd.readouterr()
    assert KEY not in " ".join([*said, caplog.text, out.out, out.err])
    assert not [path for path in cache_folder().rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_which_key(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert Remote(server.url, "m").card
    assert "Authorization" not in server.seen[-1][1]  # it is meant for another server
    assert Remote("https://api.openai.com/v1", "m")._key() == KEY
    monkeypatch.setenv("HEADSTART_REMOTE_KEY", "ours")
    assert Remote("https://api.openai.com/v1", "m")._key() == "ours"
    monkeypatch.setenv("MY_KEY", "mine")
    assert Remote(server.url, "m2", key_env="MY_KEY").card
    assert server.seen[-1][1]["Authorization"] == "Bearer mine"
    with pytest.raises(InputError, match="NO_KEY, which is not set"):
        _ = Remote(server.url, "m3", key_env="NO_KEY").card
    monkeypatch.setenv("MY_KEY", "two\r\nlines: x")
    with pytest.raises(InputError, match="MY_KEY holds no key") as raised:
        _ = Remote(server.url, "m4", key_env="MY_KEY").card
    assert "two" not in str(raised.value)


def test_offline_asks_nobody(server, monkeypatch):
    base = Remote(server.url, "m")
    assert base.card
    monkeypatch.setenv("HEADSTART_OFFLINE", "1")
    asked = len(server.seen)
    assert Remote(server.url, "m").card == base.card
    with pytest.raises(InputError, match="HEADSTART_OFFLINE is set"):
        Remote(server.url, "m").encode(TEXTS)
    assert len(server.seen) == asked


def test_no_server(server, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match="no answer in 6 tries; the last: ConnectionRefusedError"):
        Remote(f"http://127.0.0.1:{port}/v1", "m").encode(TEXTS)


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("http://example.com/v1", "https alone"), ("ftp://localhost/v1", "https alone"), ("https://user:pw@host/v1", "no user or password"),
        ("https://host/v1?key=1", "no URL"), ("https:///v1", "no URL"), ("https://host:99999/v1", "cannot be read"), ("host/v1", "no URL"),
        ("https://ho st/v1", "no URL"), ("https://host/v1\r\nX: y", "no URL"), ("http://127.0.0.1.evil.com/v1", "https alone"),
    ],
)  # fmt: skip
def test_urls_that_are_refused(url, part):
    with pytest.raises(InputError, match=part) as raised:
        Remote(url, "m")
    assert "pw" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["https://host/v1", "http://localhost:1234/v1", "http://127.0.0.1/", "http://[::1]:80/v1"]
)
def test_urls_that_are_taken(url):
    assert parsed(formatted(url, "@cf/m-1:x", 7)) == (url, "@cf/m-1:x", 7)


@pytest.mark.parametrize(
    "name", ["remote:", "remote:https://h/v1", "remote:https://h/v1#", "https://h/v1#m", "remote:https://h#a#b", "remote:https://h#m;dimensions=0"]
)  # fmt: skip
def test_names_that_are_refused(name):
    with pytest.raises(InputError):
        parsed(name)


def test_settings_that_are_refused():
    url = "https://host/v1"
    for options in ({"dimensions": 0}, {"batch": 0}, {"timeout": 0}, {"per_minute": 0}, {"price_per_million": -1}):
        with pytest.raises(InputError):
            Remote(url, "m", **options)
    for model in ("", "a b", "a#b", "a;b", "a\nb", "x" * 201):
        with pytest.raises(InputError, match="no name of a remote model"):
            Remote(url, model)


def test_what_is_no_text_is_refused_before_anything_is_sent(server):
    for wrong_text, part in ((b"bytes", "number 1 of the call is a bytes"), ("\ud800", "lone surrogate")):
        with pytest.raises(InputError, match=part):
            Remote(server.url, "m").encode(["a", wrong_text])
    assert not server.seen


def test_there_is_nothing_to_cut_or_export():
    base = Remote("https://host/v1", "m")
    assert base.at("top") == base
    assert base.taps == ()
    with pytest.raises(InputError, match="no cut"):
        base.at("3")
    with pytest.raises(InputError, match="features, not weights"):
        base.portable()


def test_signatures_stand_noise_and_tell_models_apart():
    rng = np.random.default_rng(0)
    same = 0
    for _ in range(100):
        v = rng.standard_normal((len(PROBES), 384))
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        noisy = v + 1e-4 * rng.standard_normal(v.shape) / np.sqrt(384)
        same += signature(v.astype(np.float32)) == signature(noisy.astype(np.float32))
        other = rng.standard_normal(v.shape)
        other /= np.linalg.norm(other, axis=1, keepdims=True)
        assert signature(other) != signature(v)
    assert same >= 98


def test_a_model_on_a_server_is_made_kept_and_found_again(server, tmp_path):
    import headstart

    rows = sentences(60)
    base = formatted(server.url, "clever")
    model = headstart.fit(rows, name="far", project=tmp_path, backbone=base)
    assert model.card["backbone"]["name"] == base
    assert "secret" not in (model.folder / "card.json").read_text()
    asked = len(server.seen)
    again = headstart.load("far", project=tmp_path)
    assert again.predict(rows[0][0])[0].label == model.predict(rows[0][0])[0].label
    assert len(server.seen) - asked <= 2  # the texts were known; at most a probe
    server.salt = "another model behind the same name"
    with pytest.raises(ModelError, match="is no longer the model it was"):
        headstart.load("far", project=tmp_path).predict(["a text nobody has sent yet"])
