"""The gate before the application: who may come in, with what (faults B18, C5, C7, C10, C11, C24, H7, H8)."""

import asyncio
import io
import json
import logging
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("starlette")

from headstart import apikeys
from headstart.errors import (
    Conflict,
    ContentError,
    DataError,
    Denied,
    Draining,
    InputError,
    MissingExtra,
    ModelError,
    NotFound,
    Overloaded,
    StorageError,
    TooLate,
)
from headstart.server import problems
from headstart.server.door import Door
from headstart.server.gate import Gate, drained
from headstart.server.groups import group
from headstart.server.logs import Events, Others
from headstart.server.settings import Settings

SETTINGS = Settings(Path("none"), max_body=1000)
PREDICT = "/v1/models/tickets/predict"


class Keyring:
    """Keys without a database: the secret is "good-<scopes>"."""

    def __init__(self, known=False, rate=None):
        self.known, self.ever, self.rate = known, known, rate

    def check(self, secret):
        name, _, scopes = secret.partition("-")
        if name != "good":
            return None
        return apikeys.Key(scopes, scopes, frozenset(scopes.split(",")), self.rate, "", None, None)


class Answer:
    def __init__(self, sent):
        self.sent = sent
        self.status = sent[0]["status"] if sent else None
        self.headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]} if sent else {}
        self.body = b"".join(message.get("body", b"") for message in sent[1:])

    def json(self):
        return json.loads(self.body)


async def reads(scope, receive, send):
    """An application that reads the body and says how long it was."""
    length = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client went away")
        length += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    body = b"%d" % length
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def gate(app=reads, settings=SETTINGS, keyring=None, busy=lambda: None, **hooks):
    return Gate(app, settings, Door(settings, keyring or Keyring()), busy, **hooks)


def ask(gate, method="GET", path="/v1/models", headers=(), body=(b"",)):
    """One request through the gate; body: its parts."""
    return asyncio.run(asked(gate, method, path, headers, body))


async def asked(gate, method="GET", path="/v1/models", headers=(), body=(b"",)):
    sent, parts = [], list(body)
    names = {name.lower() for name, _ in headers}
    headers = [*headers] if "host" in names else [("host", "localhost:8400"), *headers]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }

    async def receive():
        if not parts:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message):
        sent.append(message)

    await gate(scope, receive, send)
    answer = Answer(sent)
    answer.context = scope.get("headstart")
    answer.unread = len(parts)
    return answer


# ids, deadlines, headers


def test_a_request_gets_an_id_a_deadline_and_safe_headers():
    answer = ask(gate())
    assert answer.status == 200
    assert answer.headers["x-request-id"] == answer.context.id
    assert len(answer.context.id) == 16
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert 0 < answer.context.deadline - time.monotonic() <= SETTINGS.deadline
    assert answer.context.key is None


@pytest.mark.parametrize("own", ["abc", "A-b_c.9", "x" * 64])
def test_a_clients_own_id_comes_back(own):
    assert ask(gate(), headers=[("X-Request-Id", own)]).headers["x-request-id"] == own


@pytest.mark.parametrize("own", ["", "x" * 65, "a b", "a\tb", "é", "<script>", "a;b"])
def test_an_id_that_could_be_an_attack_does_not(own):
    assert ask(gate(), headers=[("X-Request-Id", own)]).headers["x-request-id"] != own


@pytest.mark.parametrize(("given", "seconds"), [("1", 0.001), ("2500", 2.5), ("3600000", 3600)])
def test_the_deadline_of_a_client(given, seconds):
    began = time.monotonic()
    answer = ask(gate(), headers=[("X-Timeout-Ms", given)])
    assert began + seconds <= answer.context.deadline <= time.monotonic() + seconds


@pytest.mark.parametrize("given", ["0", "-1", "3600001", "1.5", "", "1e3", "²", "99999999999999999999", "nan"])
def test_a_deadline_that_is_none_is_refused(given):
    assert ask(gate(), headers=[("X-Timeout-Ms", given)]).status == 400


@pytest.mark.parametrize("name", ["X-Timeout-Ms", "Content-Type", "Content-Length", "Host", "Origin"])
def test_a_header_that_decides_may_come_once(name):
    assert ask(gate(), "POST", headers=[(name, "localhost"), (name, "localhost")]).status == 400


# names and pages: DNS rebinding, forged requests


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8400", "127.0.0.1:1", "[::1]:8400", "[::1]", "127.0.0.1"])
def test_own_names_are_answered(host):
    assert ask(gate(), headers=[("Host", host)]).status == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8400", "localhost.evil", "", "[::2]", "0.0.0.0", "192.168.1.2", "[evil]", "localhost@evil"])  # fmt: skip
def test_other_names_are_not(host):
    answer = ask(gate(), "POST", PREDICT, [("Host", host)])
    assert answer.status == 421
    assert answer.unread == 1


def test_names_that_are_allowed_and_names_where_there_are_keys():
    named = replace(SETTINGS, hosts=("models.example.com",))
    assert ask(gate(settings=named), headers=[("Host", "Models.example.com:80")]).status == 200
    assert ask(gate(settings=named), headers=[("Host", "evil.example")]).status == 421
    key = [("Host", "any.example"), ("Authorization", "Bearer good-read")]
    assert ask(gate(keyring=Keyring(True)), headers=key).status == 200
    assert ask(gate(settings=named, keyring=Keyring(True)), headers=key).status == 421
    assert ask(gate(settings=replace(SETTINGS, host="0.0.0.0", insecure=True)), headers=key).status == 200


@pytest.mark.parametrize("origin", ["http://evil", "null", "https://localhost:8400.evil", "http://localhost:8401", "", "http://", "localhost:8400"])  # fmt: skip
def test_pages_of_others_may_not_call(origin):
    for method in ("GET", "POST", "OPTIONS"):
        assert ask(gate(), method, PREDICT, [("Origin", origin)]).status == 403
    assert ask(gate(), "GET", "/health/live", [("Origin", origin)]).status == 403


def test_our_own_page_may():
    answer = ask(gate(), "POST", PREDICT, [("Origin", "http://localhost:8400")])
    assert answer.status == 200
    assert "access-control-allow-origin" not in answer.headers


def test_cors_when_it_is_allowed():
    shop = gate(settings=replace(SETTINGS, cors=("https://shop.example",)), keyring=Keyring(True))
    page = ("Origin", "https://shop.example")
    before = ask(shop, "OPTIONS", PREDICT, [page, ("Access-Control-Request-Method", "POST")])
    assert (before.status, before.body) == (204, b"")
    assert before.headers["access-control-allow-origin"] == "https://shop.example"
    assert "authorization" in before.headers["access-control-allow-headers"]
    assert ask(shop, "POST", PREDICT, [page]).status == 401  # and the page can read why
    assert ask(shop, "POST", PREDICT, [page]).headers["access-control-allow-origin"] == "https://shop.example"
    good = ask(shop, "POST", PREDICT, [page, ("Authorization", "Bearer good-predict")])
    assert (good.status, good.headers["vary"]) == (200, "origin")
    assert ask(shop, "OPTIONS", PREDICT, [page]).status == 401  # no preflight
    assert ask(shop, "OPTIONS", PREDICT, [("Origin", "https://shop.example.evil"), ("Access-Control-Request-Method", "POST")]).status == 403  # fmt: skip


# keys


@pytest.mark.parametrize(
    "given",
    [None, "", "Bearer", "Bearer ", "Bearer bad", "Basic good-read", "good-read", "Bearer good-read " + "x" * 10_000,
     "Bearer\tgood-read", "Bearer é", "Bearer \x00"],
)  # fmt: skip
def test_without_a_right_key(given):
    counted = []
    answer = ask(
        gate(keyring=Keyring(True), refused=counted.append),
        "POST",
        PREDICT,
        [] if given is None else [("Authorization", given)],
    )
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["type"] == "urn:headstart:denied"
    assert answer.unread == 1  # the body was not read
    assert counted == ["key"]


def test_two_keys_are_none():
    two = [("Authorization", "Bearer good-predict")] * 2
    assert ask(gate(keyring=Keyring(True)), "POST", PREDICT, two).status == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_may_be_written_in_any_case(scheme):
    answer = ask(gate(keyring=Keyring(True)), headers=[("Authorization", f"{scheme} good-read")])
    assert answer.status == 200
    assert answer.context.key.id == "read"


PATHS = ["/v1/models", "/v1/models/x", "/metrics", "/docs", "/openapi.json", "/v1/predictions/1", "/v1/deployments", "/v2", "/v2/models/x", "/nothing"]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "needed"),
    [
        *(("GET", path, "read") for path in PATHS),
        *(("POST", path, "predict") for path in ("/v1/predict", PREDICT, "/v1/embeddings", "/v1/feedback", "/v2/models/x/infer", "/nothing")),
        ("PUT", PREDICT, "predict"),
        ("POST", "/v1/deployments", "deploy"),
        ("POST", "/v1/deployments/x/rollback", "deploy"),
        ("DELETE", "/v1/deployments/x", "deploy"),
        ("PATCH", "/v1/deployments/x", "deploy"),
        ("DELETE", "/v1/models/x", "predict"),
    ],
)  # fmt: skip
def test_scopes(method, path, needed):
    """Metrics and the page of the interface need a key, too."""
    door = gate(keyring=Keyring(True))
    for scope in apikeys.SCOPES:
        expected = 200 if scope == needed else 403
        assert ask(door, method, path, [("Authorization", f"Bearer good-{scope}")]).status == expected
    assert ask(door, method, path).status == 401
    assert ask(gate(), method, path).status == 200  # where there are no keys


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"])
def test_health_needs_no_key(path):
    assert ask(gate(keyring=Keyring(True)), path=path).status == 200


def test_a_server_for_others_stays_closed_when_its_last_key_is_revoked():
    away = replace(SETTINGS, host="0.0.0.0")
    assert ask(gate(settings=away, keyring=Keyring(False))).status == 401
    assert ask(gate(settings=replace(away, insecure=True), keyring=Keyring(False))).status == 200


def test_a_key_has_a_rate_and_others_do_not_suffer():
    door = gate(keyring=Keyring(True, rate=5))
    abusive = [ask(door, headers=[("Authorization", "Bearer good-read")]) for _ in range(20)]
    assert [answer.status for answer in abusive[:5]] == [200] * 5
    refused = [answer for answer in abusive if answer.status == 429]
    assert len(refused) >= 10
    assert int(refused[0].headers["retry-after"]) == 1
    assert ask(door, headers=[("Authorization", "Bearer good-read,predict")]).status == 200


def test_a_slow_rate_says_when():
    door = gate(keyring=Keyring(True, rate=0.01))
    key = [("Authorization", "Bearer good-read")]
    assert ask(door, headers=key).status == 200
    answer = ask(door, headers=key)
    assert answer.status == 429
    assert 95 <= int(answer.headers["retry-after"]) <= 101


def test_no_key_is_said_again():
    """Neither in an answer nor in the log."""
    stream = io.StringIO()
    events = Events("json", stream)
    door = gate(keyring=Keyring(True), events=events)
    answer = ask(door, "POST", PREDICT, [("Authorization", "Bearer hs_secretsecret")])
    events.close()
    assert "secretsecret" not in stream.getvalue() + str(answer.headers) + answer.body.decode()


# bodies


def test_a_body_too_large_is_refused_before_it_is_read():
    answer = ask(gate(), "POST", PREDICT, [("Content-Length", "1001")], [b"x" * 1001])
    assert answer.status == 413
    assert answer.unread == 1


@pytest.mark.parametrize("length", ["-1", "+1", "1e3", "", "9" * 30, "0x10", "1,1"])
def test_a_length_that_is_none(length):
    assert ask(gate(), "POST", PREDICT, [("Content-Length", length)]).status == 400


def test_a_stream_is_counted_as_it_comes():
    assert ask(gate(), "POST", PREDICT, body=[b"x" * 250] * 4).body == b"1000"
    answer = ask(gate(), "POST", PREDICT, body=[b"x" * 250] * 100)
    assert answer.status == 413
    assert answer.unread == 95  # the fifth part was too much


def test_lines_have_no_end():
    lines = [("Content-Type", "application/x-ndjson; charset=utf-8")]
    assert ask(gate(), "POST", PREDICT, lines, [b"x" * 250] * 100).body == b"25000"


def test_an_application_that_answers_after_a_refusal_is_not_heard():
    async def stubborn(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"too late"})

    answer = ask(gate(stubborn), "POST", PREDICT, body=[b"x" * 600] * 3)
    assert (answer.status, len(answer.sent)) == (413, 2)


def test_all_bodies_together_are_bounded():
    async def run():
        door, hold = gate(), asyncio.Event()

        async def client():
            async def parts():
                yield {"type": "http.request", "body": b"x" * 990, "more_body": True}
                await hold.wait()
                yield {"type": "http.request", "body": b"", "more_body": False}

            sent, source = [], parts()
            scope = {"type": "http", "method": "POST", "path": PREDICT, "headers": [(b"host", b"localhost")]}

            async def send(message):
                sent.append(message)

            await door(scope, source.__anext__, send)
            return sent[0]["status"]

        tasks = [asyncio.create_task(client()) for _ in range(20)]
        await asyncio.sleep(0.01)
        held = door.held
        hold.set()
        return await asyncio.gather(*tasks), held, door.held, door.inflight

    statuses, held, after, inflight = asyncio.run(run())
    assert held <= 9 * 1000
    assert statuses.count(200) == 8
    assert statuses.count(429) == 12
    assert (after, inflight) == (0, 0)


@pytest.mark.parametrize(
    ("coding", "expected"),
    [
        ("gzip", 415),
        ("br", 415),
        ("deflate", 415),
        ("gzip, identity", 415),
        ("", 415),
        ("identity", 200),
        ("IDENTITY", 200),
    ],
)
def test_compressed_bodies_are_not_read(coding, expected):
    assert ask(gate(), "POST", PREDICT, [("Content-Encoding", coding)]).status == expected


# too much to do


def test_overload_is_asked_before_the_body_is_read():
    counted = []
    door = gate(busy=lambda: 2.3, refused=counted.append)
    for path in (PREDICT, "/v1/predict", "/v1/embeddings", "/v2/models/x/infer", "/v2/models/x/versions/v1/infer"):
        answer = ask(door, "POST", path)
        assert (answer.status, answer.unread, answer.headers["retry-after"]) == (429, 1, "3")
    assert counted == ["overloaded"] * 5
    for method, path in [
        ("GET", "/v1/models"),
        ("POST", "/v1/deployments"),
        ("POST", "/v1/feedback"),
        ("GET", "/metrics"),
    ]:
        assert ask(door, method, path).status == 200


def test_who_waits_for_a_word_before_it_sends_gets_a_closed_connection():
    answer = ask(gate(busy=lambda: 1.0), "POST", PREDICT, [("Expect", "100-continue")])
    assert (answer.status, answer.headers["connection"]) == (429, "close")


def test_draining():
    async def run():
        go = asyncio.Event()

        async def slow(scope, receive, send):
            await go.wait()
            await reads(scope, receive, send)

        door = gate(slow)
        first = asyncio.create_task(asked(door))
        await asyncio.sleep(0)
        assert not await drained(door, 0.05)
        late, ready = await asked(door, "POST", PREDICT), await asked(door, path="/health/ready")
        end = asyncio.create_task(drained(door, 5))
        await asyncio.sleep(0.01)
        go.set()
        return await first, late, ready, await asked(door, path="/health/live"), await end

    first, late, ready, live, ended = asyncio.run(run())
    assert (first.status, live.status, ended) == (200, 200, True)
    for answer in (late, ready):
        assert (answer.status, answer.headers["connection"]) == (503, "close")
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["type"] == "urn:headstart:draining"


# what goes wrong inside


def test_a_fault_that_escapes_says_nothing_and_is_logged():
    async def broken(scope, receive, send):
        raise RuntimeError("the password is swordfish")

    stream = io.StringIO()
    events, seen = Events("json", stream), []
    answer = ask(gate(broken, events=events, seen=lambda *what: seen.append(what[:2])), "POST", PREDICT)
    events.close()
    assert answer.status == 500
    assert "swordfish" not in answer.body.decode() + stream.getvalue()
    assert b"Traceback" not in answer.body
    assert answer.json()["instance"].endswith(answer.headers["x-request-id"])
    line = next(json.loads(line) for line in stream.getvalue().splitlines() if '"broken"' in line)
    assert line["id"] == answer.headers["x-request-id"]
    assert line["error"] == "RuntimeError"
    assert "test_server_gate.py" in line["where"]
    assert seen == [("predict", 500)]


def test_our_own_errors_keep_their_words_on_the_way_out():
    async def missing(scope, receive, send):
        raise NotFound("no model 'x'. Did you mean 'y'?")

    answer = ask(gate(missing))
    assert (answer.status, answer.json()["detail"]) == (404, "no model 'x'. Did you mean 'y'?")


def test_half_an_answer_is_not_completed():
    async def half(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    seen = []
    answer = ask(gate(half, seen=lambda *what: seen.append(what[1])))
    assert len(answer.sent) == 1  # uvicorn closes the connection
    assert seen == [500]


def test_a_client_that_went_away_is_no_fault():
    stream, seen = io.StringIO(), []
    events = Events("json", stream)
    answer = ask(gate(events=events, seen=lambda *what: seen.append(what[1])), "POST", PREDICT, body=())
    events.close()
    assert answer.sent == []
    assert seen == [499]
    assert '"broken"' not in stream.getvalue()


def test_head_has_no_body():
    assert ask(gate(keyring=Keyring(True)), "HEAD").body == b""


# counting and logging


def test_groups_are_few_whatever_is_asked():
    paths = [f"/v1/models/{i}" for i in range(500)] + [f"/{i}" for i in range(500)]
    paths += [f"/v2/models/{i}/infer" for i in range(500)] + [f"/v1/deployments/{i}/x/{i}" for i in range(500)]
    paths += ["", "/", "//", "/v1/models/../../etc/passwd/predict", "/v1", "/v2/" + "x" * 10_000]
    assert len({group(path) for path in paths}) <= 6


NAUGHTY = ["a\nb", "\x1b[31mred", "a\r\nSet-Cookie: x=1", "\x00", "\u202eevil", "\x85", "\ud800", "x" * 5000, "\u2028"]


@pytest.mark.parametrize("form", ["json", "human"])
@pytest.mark.parametrize("text", NAUGHTY)
def test_nothing_from_outside_writes_a_line_of_its_own(form, text):
    stream = io.StringIO()
    events = Events(form, stream)
    door = gate(events=events)
    ask(door, path="/" + text)
    events.say("event", words=text)
    events.close()
    written = stream.getvalue()
    assert len(written.splitlines()) == 2
    assert written.isascii() or form == "human"
    assert all(ch.isprintable() or ch == "\n" for ch in written)
    assert len(written) < 1500


def test_the_log_has_bounds_and_says_what_it_dropped():
    class Stuck(io.StringIO):
        import threading

        go = threading.Event()

        def write(self, text):
            self.go.wait(5)
            return super().write(text)

    stream = Stuck()
    events = Events("json", stream, room=10)
    for i in range(1000):
        events.say("event", number=i)
    assert events.dropped > 900
    stream.go.set()
    events.close()
    assert '"dropped"' in stream.getvalue()
    assert len(stream.getvalue().splitlines()) < 30


def test_what_others_log_has_no_values():
    stream = io.StringIO()
    events = Events("json", stream)
    logger = logging.Logger("part")
    logger.addHandler(Others(events))
    logger.warning("not said")
    try:
        raise ValueError("the text of a customer")
    except ValueError:
        logger.exception("a question could not be answered")
    events.close()
    [line] = stream.getvalue().splitlines()
    assert json.loads(line)["words"] == "a question could not be answered"
    assert json.loads(line)["error"] == "ValueError"
    assert "test_server_gate.py" in line
    assert "customer" not in line


def test_requests_are_logged_with_status_time_and_key():
    stream = io.StringIO()
    events = Events("human", stream)
    door = gate(events=events, keyring=Keyring(True))
    ask(door, "POST", PREDICT, [("Authorization", "Bearer good-predict"), ("X-Request-Id", "mine")])
    ask(door, path="/health/live")  # probes are not logged
    events.close()
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert f"POST {PREDICT} 200 " in line
    assert "mine key=predict" in line


# problems


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (NotFound("x"), 404, "not-found"),
        (Conflict("x"), 409, "conflict"),
        (ContentError([(0, "x")]), 422, "data"),
        (DataError("x"), 422, "data"),
        (InputError("x"), 422, "input"),
        (Overloaded("x", 7.2), 429, "overloaded"),
        (Draining("x"), 503, "draining"),
        (TooLate("x"), 504, "too-late"),
        (Denied("x", 401), 401, "denied"),
        (Denied("x", 403), 403, "denied"),
        (ModelError("x"), 503, "model"),
        (MissingExtra("x"), 503, "missing-extra"),
        (StorageError("x"), 503, "storage"),
    ],
)
def test_every_error_has_its_status_and_its_words(error, status, kind):
    code, headers, body = problems.problem(error, path=PREDICT)
    found, headers = json.loads(body), dict(headers)
    assert (code, found["status"], found["type"]) == (status, status, f"urn:headstart:{kind}")
    assert found["detail"] == str(error)
    assert headers[b"content-type"] == b"application/problem+json"
    assert (b"retry-after" in headers) == (status in (429, 503))


def test_a_model_that_cannot_be_deployed_is_the_clients_matter():
    assert problems.problem(ModelError("x"), path="/v1/deployments")[0] == 422


def test_dialects():
    error = Overloaded("too much 😀 \ud800", 3)
    assert json.loads(problems.problem(error, path="/v2/models/x/infer")[2]) == {"error": str(error)}
    said = json.loads(problems.problem(error, path="/v1/embeddings")[2])["error"]
    assert said == {"message": str(error), "type": "rate_limit_error", "param": None, "code": "overloaded"}
    said = json.loads(problems.problem(Denied("x", 401), path="/v1/embeddings")[2])["error"]
    assert (said["type"], said["code"]) == ("invalid_request_error", "invalid_api_key")
    assert json.loads(problems.problem(404)[2])["type"] == "about:blank"
    assert json.loads(problems.problem(ValueError("secret"))[2])["status"] == 500


# settings


def test_strangers_need_a_key_before_the_server_starts(tmp_path):
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        Settings(tmp_path, host=host).checked()
    for host in ("0.0.0.0", "::", "192.168.1.2", "models.example.com", "", "127.0.0.1.evil.example"):
        with pytest.raises(InputError, match="headstart keys create"):
            Settings(tmp_path, host=host).checked()
        Settings(tmp_path, host=host, insecure=True).checked()
    key, _ = apikeys.create(tmp_path, "first", ["predict"])
    Settings(tmp_path, host="0.0.0.0").checked()
    apikeys.revoke(tmp_path, key.id)
    with pytest.raises(InputError, match="headstart keys create"):
        Settings(tmp_path, host="0.0.0.0").checked()


@pytest.mark.parametrize(
    "wrong",
    [{"port": -1}, {"port": 65536}, {"grpc_port": 70000}, {"workers": 0}, {"workers": 10_000}, {"deadline": 0},
     {"deadline": float("nan")}, {"queue": -1.0}, {"header_time": float("inf")}, {"max_wait": -0.1}, {"cache": -1},
     {"max_body": 0}, {"max_inputs": 0}, {"cors": ("*",)}, {"cors": ("shop.example",)}, {"cors": ("https://a/b",)},
     {"hosts": ("*",)}, {"hosts": ("a:1",)}, {"log": "maybe"}, {"log_format": "xml"}],
)  # fmt: skip
def test_settings_that_cannot_be(tmp_path, wrong):
    with pytest.raises(InputError):
        Settings(tmp_path, **wrong).checked()


def test_probes_come_by_address():
    """A prober calls the server by its address; everything else must call it by name (fault C24)."""
    guarded = gate(settings=replace(SETTINGS, hosts=("models.example.com",)))
    there = [("Host", "10.1.2.3:8400")]
    for path in ("/health/live", "/health/ready", "/v2/health/ready"):
        assert ask(guarded, path=path, headers=there).status == 200
    refused = ask(guarded, path="/v1/models", headers=there)
    assert refused.status == 421
    assert refused.json()["instance"] == f"urn:headstart:request:{refused.headers['x-request-id']}"


@pytest.mark.parametrize("id_", ["my-own.id_7", ""])
def test_what_the_gate_refuses_names_the_request(id_):
    """421, 400, 401, 413, 415, 429 and 503 carry the id of the request, those written beforehand too."""
    own = [("X-Request-Id", id_)] if id_ else []
    draining = gate()
    draining.draining = True
    refusals = [
        (400, ask(gate(), headers=[("X-Timeout-Ms", "soon"), *own])),
        (401, ask(gate(keyring=Keyring(known=True)), headers=own)),
        (413, ask(gate(), "POST", PREDICT, [("Content-Length", "1001"), *own])),
        (415, ask(gate(), "POST", PREDICT, [("Content-Encoding", "gzip"), *own])),
        (429, ask(gate(busy=lambda: 2.5), "POST", PREDICT, own)),
        (429, ask(gate(busy=lambda: 2.5), "POST", PREDICT, own)),
        (503, ask(draining, headers=own)),
    ]
    for status, answer in refusals:
        assert answer.status == status
        assert answer.headers["x-request-id"] == (id_ or answer.headers["x-request-id"])
        assert answer.json()["instance"] == f"urn:headstart:request:{answer.headers['x-request-id']}"
        assert int(answer.headers["content-length"]) == len(answer.body)
    assert len({answer.headers["x-request-id"] for _, answer in refusals}) == (1 if id_ else len(refusals))
    assert b"urn:headstart:request" not in ask(gate(busy=lambda: 1.0), "POST", "/v2/models/x/infer").body


def test_settings_are_refused_by_their_flags_and_units(tmp_path):
    for wrong, words in (
        ({"max_wait": -0.1}, "--max-wait is -100 milliseconds, and must be 0 or more"),
        ({"deadline": 0.0}, "--deadline is 0 seconds"),
        ({"cache": -(1 << 20)}, "--cache-mb is -1 MB"),
        ({"grpc_port": 70000}, "--grpc-port is 70000"),
        ({"max_inputs": 0}, "--max-inputs is 0 inputs, and must be 1 or more"),
        ({"max_body": 0}, "--max-body is 0 MB, and must be more than 0"),
        ({"workers": 0}, "--workers is 0"),
        ({"log": "maybe"}, "--log can be"),
    ):
        with pytest.raises(InputError) as found:
            Settings(tmp_path, **wrong).checked()
        assert words in str(found.value)
