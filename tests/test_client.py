"""A model on a server: the answers of one here, and words for everything that can go wrong on the way."""

import csv
import http.client
import json
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clientserver
import headstart
from conftest import sentences
from headstart import client, errors
from headstart.client import Remote, Server
from headstart.stream import predict_file, predict_one

FACTS = {"task": "classification", "modality": "text", "labels": ["a", "b"], "version": "v1"}


def answer(inputs, version="v1"):
    rows = [{"id": f"p.{i}", "label": "a", "probability": 0.75, "unknown": False} for i, _ in enumerate(inputs)]
    return {"model": "m", "version": version, "predictions": rows}


class Script:
    """A server that answers as a test wants: `say(asked) -> (status, headers, body) | None`, None hangs up."""

    def __init__(self):
        self.asked, self.connections = [], 0
        self.say = lambda asked: (200, {}, {})
        script = self

        class Speaks(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                script.connections += 1
                super().setup()

            def answer(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                asked = SimpleNamespace(
                    method=self.command, path=self.path, headers=self.headers, body=json.loads(body) if body else None
                )
                script.asked.append(asked)
                said = script.say(asked)
                if said is None:
                    self.close_connection = True
                    return
                status, headers, content = said
                content = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {
                    "Content-Type": "application/problem+json",
                    "Content-Length": len(content),
                    **headers,
                }.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Speaks)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def model(self, **facts):
        """Be a server of model m; other requests are answered by what is returned."""

        def serves(rest):
            def say(asked):
                if asked.method == "GET":
                    return 200, {}, {"id": "m", "headstart": {**FACTS, **facts}}
                return rest(asked)

            self.say = say
            return Remote.open(self.url, "m")

        return serves


@pytest.fixture
def script():
    made = Script()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(autouse=True)
def naps(monkeypatch):
    """How long the client would have slept."""
    found = []
    monkeypatch.setattr(client.time, "sleep", found.append)
    monkeypatch.delenv("HEADSTART_KEY", raising=False)
    return found


@pytest.fixture(scope="module")
def home():
    return clientserver.project()


@pytest.fixture(scope="module")
def url(home):
    service = clientserver.serve(home)
    with clientserver.Live(clientserver.app(service)) as address:
        yield f"http://{address}"
    service.engine.close(5)


# -- the same answers as here ------------------------------------------------------------------------------------------


def alike(found, expected):
    """Equal but for the digits that a server does not write."""
    if isinstance(expected, float):
        return found == pytest.approx(expected, abs=2e-6 if round(expected, 4) != expected else 1.01e-4, rel=1e-5)
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(alike(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(alike, found, expected))
    return found == expected


@pytest.mark.parametrize("name", ["topics", "tags", "size"])
@pytest.mark.parametrize("every", [False, True])
def test_one_text_is_answered_as_here(url, home, name, every):
    here, there = headstart.load(name, project=home), Remote.open(url, name)
    assert (there.task, there.labels, there.modality) == (here.task, here.labels, here.modality)
    texts = [*clientserver.TEXTS, "", "zzz qqq 日本 \x00 𝔘"]
    for why in (False, True):
        found, expected = (predict_one(m, texts, every=every, why=why) for m in (there, here))
        assert alike(found, expected)
    found, expected = (m.predict(texts, every=every) for m in (there, here))
    assert alike([vars(p) for p in found], [{**vars(p), "probabilities": dict(p.probabilities)} for p in expected])


@pytest.mark.parametrize("name", ["topics", "tags", "size"])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_file_is_answered_as_here(url, home, tmp_path, name, ending, monkeypatch):
    monkeypatch.setattr(client, "BATCH", 7)
    with open(tmp_path / "in.csv", "w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *sentences(30, seed=5), ("", "x")])
    said, summaries = [], []
    for place, model in (("there", Remote.open(url, name)), ("here", headstart.load(name, project=home))):
        out = tmp_path / f"{place}.{ending}"
        summary = predict_file(
            model, str(tmp_path / "in.csv"), output=out, every=name == "topics", progress=lambda *now: said.append(now)
        )
        summaries.append({**summary, "output": None})
    assert summaries[0] == summaries[1]
    assert ("predicting", 7, None) in [(what, done, None) for what, done, _ in said]
    there, here = tmp_path / f"there.{ending}", tmp_path / f"here.{ending}"
    if ending == "parquet":
        there, here = pyarrow.parquet.read_table(there), pyarrow.parquet.read_table(here)
        assert there.schema == here.schema
        assert alike(there.to_pylist(), here.to_pylist())
    elif ending == "jsonl":
        assert alike(*([json.loads(line) for line in p.read_text().splitlines()] for p in (there, here)))
    else:
        rows = [list(csv.reader(p.read_text().splitlines())) for p in (there, here)]
        assert alike(*([[_cell(cell) for cell in row] for row in one] for one in rows))


def _cell(text):
    try:
        return float(text)
    except ValueError:
        return text


def test_pictures_are_answered_as_here_and_broken_ones_are_named(url, home, tmp_path):
    album = tmp_path / "album"
    album.mkdir()
    for i in range(6):
        (album / f"{i}.png").write_bytes(clientserver.plain((200, 20 * i, 30)))
    whole = (album / "1.png").read_bytes()
    (album / "1.png").write_bytes(whole[: len(whole) // 2])
    (album / "4.png").write_bytes(whole[:60])
    here, there = headstart.load("colours", project=home), Remote.open(url, "colours")
    for model, place in ((there, "there"), (here, "here")):
        model_summary = predict_file(model, str(album), output=tmp_path / f"{place}.parquet")
        assert [one["row"] for one in model_summary["broken"]] == [2, 5]
        (tmp_path / f"{place}.json").write_text(json.dumps(model_summary["broken"]))
    assert (tmp_path / "there.json").read_text() == (tmp_path / "here.json").read_text()
    assert alike(*(pyarrow.parquet.read_table(tmp_path / f"{p}.parquet").to_pylist() for p in ("there", "here")))
    picture = album / "0.png"
    for why in (False, True):
        rows = [predict_one(m, [picture, picture.read_bytes()], every=True, why=why) for m in (there, here)]
        for near in (near for row in rows[1] if why for near in row["why"]["nearest"]):
            near.pop("picture")  # a server gives none
        assert alike(*rows)
    for wrong in (album / "1.png", (album / "1.png").read_bytes(), tmp_path / "none.png", 7):
        words = []
        for model in (there, here):
            with pytest.raises(errors.InputError) as error:
                model.predict([wrong])
            words.append((type(error.value), str(error.value)))
        assert words[0] == words[1]
    for model in (there, here):
        with pytest.raises(errors.DataError, match=r"1\.png"):
            predict_file(model, str(album), output=tmp_path / "no.csv", broken="refuse")
    assert not (tmp_path / "no.csv").exists()


def test_a_name_that_is_not_there(url):
    with pytest.raises(errors.NotFound, match="Did you mean 'topics'"):
        Remote.open(url, "topic")
    for name in ("a/../topics", "", "fake"):
        with pytest.raises((errors.NotFound, errors.ModelError, errors.InputError)):
            Remote.open(url, name)


# -- the way there -----------------------------------------------------------------------------------------------------


def test_one_connection_is_kept(script):
    model = script.model()(lambda asked: (200, {}, answer(asked.body["inputs"])))
    for _ in range(5):
        model.predict(["x", "y"])
    assert len(script.asked) == 6
    assert script.connections == 1


def test_a_kept_connection_that_was_closed_is_opened_anew(script):
    seen = []

    def say(asked):
        seen.append(asked)
        return None if len(seen) == 2 else (200, {}, answer(asked.body["inputs"]))

    model = script.model()(say)
    assert len(model.predict(["x"])) == len(model.predict(["x"])) == 1
    assert len(seen) == 3


def test_a_change_is_never_sent_twice(script):
    server = Server(script.url)
    server.ask("GET", "/v1/models")
    script.say = lambda asked: None
    with pytest.raises(errors.Unreachable, match="cannot be talked to"):
        server.ask("POST", "/v1/deployments", {"model": "m"})
    assert [asked.method for asked in script.asked] == ["GET", "POST"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_said(script, naps, status):
    replies = [(status, {"Retry-After": "7"}, {"detail": "too much to do."})] * 2
    model = script.model()(lambda asked: replies.pop() if replies else (200, {}, answer(asked.body["inputs"])))
    assert len(model.predict(["x"])) == 1
    assert [int(nap) for nap in naps] == [7, 7]


def test_patience_ends(script, naps):
    model = script.model()(lambda asked: (429, {"Retry-After": "3"}, {"detail": "too much to do."}))
    with pytest.raises(errors.Overloaded, match="too much to do") as error:
        model.predict(["x"])
    assert error.value.retry == 3
    assert len(naps) == client.TRIES - 1
    script.say = lambda asked: (429, {"Retry-After": "3600"}, {"detail": "come tomorrow."})
    with pytest.raises(errors.Overloaded, match="tomorrow"):
        Remote.open(script.url, "m")
    assert len(naps) == client.TRIES - 1


def test_what_a_server_cannot_take_at_once_is_halved(script):
    """Also where its queue can never hold so much; nothing is lost or changes places."""

    def say(asked):
        inputs = asked.body["inputs"]
        if len(inputs) > 9:
            return (429 if len(script.asked) % 2 else 413), {"Retry-After": "0"}, {"detail": "too much."}
        rows = [{"label": "a", "probability": int(text) / 1000, "unknown": False} for text in inputs]
        return 200, {}, {"version": "v1", "predictions": rows}

    model = script.model()(say)
    found = model.predict([str(i) for i in range(100)])
    assert [round(one.probability * 1000) for one in found] == list(range(100))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InputError), (401, errors.Denied), (403, errors.Denied), (404, errors.NotFound), (409, errors.Conflict),
        (413, errors.InputError), (415, errors.InputError), (421, errors.InputError), (422, errors.InputError),
        (500, errors.Unreachable), (502, errors.Unreachable), (503, errors.Draining), (504, errors.TooLate),
    ],
)  # fmt: skip
def test_a_servers_words_become_the_same_errors(script, status, kind):
    script.say = lambda asked: (status, {}, {"type": "x", "title": "t", "status": status, "detail": "the words."})
    with pytest.raises(kind, match=r"the words\.") as error:
        Server(script.url).ask("GET", "/v1/models/m")
    assert type(error.value) in (kind, client._TooMuch)
    if isinstance(error.value, errors.Denied):
        assert error.value.status == status
        assert "HEADSTART_KEY" in str(error.value)


@pytest.mark.parametrize("body", [b"", b"<html>nginx</html>", b"[]", b"\xff\xfe", b'{"detail": 7}', b"[" * 5000])
def test_what_is_no_problem_in_words(script, body):
    script.say = lambda asked: (404, {"Content-Type": "text/html"}, body)
    with pytest.raises(errors.NotFound, match="Is this a Headstart server"):
        Server(script.url).ask("GET", "/x")
    script.say = lambda asked: (422, {}, body)
    with pytest.raises(errors.InputError, match="422"):
        Server(script.url).ask("GET", "/x")


def test_words_are_short_and_fit_for_a_terminal(script):
    script.say = lambda asked: (422, {}, {"detail": "\x1b[31mred\u202e\n" + "x" * 10_000})
    with pytest.raises(errors.InputError) as error:
        Server(script.url).ask("GET", "/x")
    assert str(error.value).isprintable()
    assert len(str(error.value)) <= 1000


def test_redirects_are_not_followed_and_the_key_stays(script):
    other = Script()
    script.say = lambda asked: (307, {"Location": other.url + "/v1/models/m"}, b"")
    with pytest.raises(errors.InputError, match="not followed"):
        Remote.open(script.url, "m", key="hs_secret")
    assert script.asked[0].headers["Authorization"] == "Bearer hs_secret"
    assert other.asked == []
    other.server.shutdown()
    other.server.server_close()


def test_the_key_is_taken_from_the_environment_and_never_shown(script, monkeypatch):
    monkeypatch.setenv("HEADSTART_KEY", " hs_secret\n")
    server = Server(script.url)
    script.say = lambda asked: (403, {}, {"detail": f"{asked.headers['Authorization']} may not."})
    with pytest.raises(errors.Denied) as error:
        server.ask("GET", "/x")
    assert script.asked[0].headers["Authorization"] == "Bearer hs_secret"
    assert "hs_secret" not in f"{error.value} {server!r}"
    for wrong in ("with space", "naïve", "two\nlines"):
        with pytest.raises(errors.InputError, match="strange letters") as error:
            Server(script.url, wrong)
        assert wrong not in str(error.value)


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8400", "ftp://host", "http://", "http://user:pw@host", "http://host:99999", "http://[::1", "http://ho st",
     "http://host/?a=b", "http://host/#f", "http://host\r\nX: y", "file:///etc/passwd"],
)  # fmt: skip
def test_what_is_no_url(url):
    with pytest.raises(errors.InputError):
        Server(url)


def test_offline_means_this_machine_alone(monkeypatch):
    monkeypatch.setenv("HEADSTART_OFFLINE", "1")
    for host in ("example.com", "10.0.0.1", "[2001:db8::1]"):
        with pytest.raises(errors.InputError, match="HEADSTART_OFFLINE"):
            Server(f"http://{host}:8400")
    for host in ("localhost", "127.0.0.1", "[::1]"):
        Server(f"http://{host}:8400")


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(errors.Unreachable, match="headstart serve"):
        Remote.open(f"http://127.0.0.1:{port}", "m")


def test_a_certificate_that_is_not_valid_is_said(monkeypatch):
    error = ssl.SSLCertVerificationError(1, "verify failed")
    error.verify_message = "self-signed certificate"

    def connect(self):
        raise error

    monkeypatch.setattr(http.client.HTTPSConnection, "connect", connect)
    with pytest.raises(errors.Unreachable, match="its certificate is not valid: self-signed"):
        Remote.open("https://localhost:1", "m")


def raw(talk):
    """The URL of a listener that does `talk(connection)` once."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run():
        with listener, listener.accept()[0] as connection:
            connection.recv(65536)
            talk(connection)

    threading.Thread(target=run, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_that_says_nothing_or_drips_is_left():
    left = threading.Event()

    def drips(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not left.wait(0.05):
            connection.sendall(b" ")

    for talk in (lambda connection: left.wait(10), drips):
        with pytest.raises(errors.TooLate, match="no whole answer"):
            Remote.open(raw(talk), "m", timeout=0.3)
    left.set()


@pytest.mark.parametrize(
    "said",
    [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n"],
)  # fmt: skip
def test_what_is_no_http(said):
    with pytest.raises((errors.Unreachable, errors.ModelError)):
        Remote.open(raw(lambda connection: connection.sendall(said)), "m")


def test_an_endless_answer_is_cut_off(script, monkeypatch):
    monkeypatch.setattr(client, "LARGEST", 1000)
    script.say = lambda asked: (200, {}, b" " * 5000)
    with pytest.raises(errors.ModelError, match="more than 1,000 bytes"):
        Server(script.url).ask("GET", "/x")


# -- answers that make no sense ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "facts",
    [{"task": "dance"}, {"labels": None}, {"labels": [1, 2]}, {"labels": []}, {"modality": "sound"}, {"version": 3}],
)
def test_a_model_that_is_none(script, facts):
    with pytest.raises(errors.ModelError, match="does not understand"):
        script.model(**facts)(None)


@pytest.mark.parametrize("said", [[], {}, {"headstart": []}, {"id": "m"}, "m", None])
def test_something_else_than_a_model(script, said):
    script.say = lambda asked: (200, {}, said)
    with pytest.raises(errors.ModelError, match="does not say"):
        Remote.open(script.url, "m")


@pytest.mark.parametrize(
    "row",
    [
        {"label": "c", "probability": 0.5, "unknown": False}, {"label": None, "probability": 0.5, "unknown": False},
        {"label": "a", "probability": "high", "unknown": False}, {"label": "a", "probability": None, "unknown": False},
        {"label": "a", "probability": True, "unknown": False}, {"label": "a", "probability": 0.5}, {}, 7,
        {"label": ["a"], "probability": 0.5, "unknown": False}, {"label": "a", "top": "x", "unknown": False},
    ],
)  # fmt: skip
def test_a_prediction_that_is_none(script, row):
    model = script.model()(lambda asked: (200, {}, {"version": "v1", "predictions": [row]}))
    with pytest.raises(errors.ModelError):
        model.predict(["x"])


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b'{"predictions": NaN}', b"[]", b'{"predictions": []}', b'{"predictions": [{}, {}]}']
)
def test_an_answer_that_is_none(script, body):
    model = script.model()(lambda asked: (200, {}, body))
    with pytest.raises(errors.ModelError):
        model.predict(["x"])


def test_a_version_that_is_replaced_meanwhile_is_said(script, tmp_path):
    model = script.model()(lambda asked: (200, {}, answer(asked.body["inputs"], "v2")))
    summary = predict_file(model, ["x", "y"], output=tmp_path / "out.csv")
    assert [note for note in summary["notes"] if "v2" in note and "v1" in note]


def test_all_of_more_labels_than_a_server_gives_is_refused(script):
    model = script.model(labels=[f"l{i}" for i in range(1001)])(None)
    with pytest.raises(errors.InputError, match="1,001"):
        model.predict(["x"], every=True)


# -- batches -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=40) | st.binary(max_size=60), max_size=60), st.integers(1, 9), st.integers(1, 100))
def test_batches_cover_everything_once_and_are_bounded(contents, most, size):
    before, client.BATCH_BYTES = client.BATCH_BYTES, size
    try:
        found = list(client._batches(contents, most))
    finally:
        client.BATCH_BYTES = before
    assert [i for some in found for i in some] == list(range(len(contents)))
    for some in found:
        sizes = [
            len(one.encode("utf-8", "surrogatepass")) if isinstance(one, str) else len(one)
            for one in contents[some.start : some.stop]
        ]
        assert 1 <= len(some) <= most
        assert len(some) == 1 or sum(sizes) <= size


def test_a_request_says_how_long_we_wait_and_asks_for_no_more_than_needed(script):
    model = script.model()(lambda asked: (200, {}, answer(asked.body["inputs"])))
    model.predict(["x"] * 300)
    first, second = script.asked[1:]
    assert (len(first.body["inputs"]), len(second.body["inputs"])) == (256, 44)
    assert first.body.keys() == {"inputs"}
    assert first.headers["X-Timeout-Ms"] == "60000"
    assert first.headers["Accept-Encoding"] == "identity"


def test_the_address_that_openais_clients_are_told_is_taken(script):
    script.say = lambda asked: (200, {}, {})
    assert Server(f"{script.url}/v1").ask("GET", "/v1/models") == {}
    assert [asked.path for asked in script.asked] == ["/v1/models"]


def test_https_to_a_server_without_it(script):
    with pytest.raises(errors.Unreachable, match=f"Try http://{script.url.removeprefix('http://')}"):
        Server(script.url.replace("http://", "https://")).ask("GET", "/v1/models")
