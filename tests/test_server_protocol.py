"""HTTP on real sockets: what is refused, and how long patience lasts (faults C5, C6, C8)."""

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("uvicorn")

import uvicorn

from headstart.server.protocol import protocol
from headstart.server.settings import Settings

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
LARGE = 20 << 20


class App:
    """Reads the body and answers; what the path says makes it behave otherwise."""

    def __init__(self):
        self.gone, self.running, self.waits = 0, 0, threading.Event()

    async def __call__(self, scope, receive, send):
        self.running += 1
        try:
            body = b"ok"
            if scope["path"] == "/early":
                await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"2")]})
                await send({"type": "http.response.body", "body": b"no"})
                return
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.gone += 1
                    return
                if not message.get("more_body"):
                    break
            if scope["path"] == "/large":
                body = b"x" * LARGE
            if scope["path"] == "/medium":
                body = b"x" * 50_000
            if scope["path"] == "/slow":
                await asyncio.sleep(0.8)
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
            )
            for i in range(0, len(body), 65536):
                await send(
                    {"type": "http.response.body", "body": body[i : i + 65536], "more_body": i + 65536 < len(body)}
                )
        finally:
            self.running -= 1


class Running:
    def __init__(self, **changes):
        times = {"header_time": 0.4, "body_time": 0.4, "send_time": 0.4, "keep_alive": 0.4, **changes}
        most = times.pop("most", 10_000)
        self.app = App()
        self.config = uvicorn.Config(
            self.app,
            http=protocol(Settings(Path("none"), **times), most),
            interface="asgi3",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self.server = uvicorn.Server(self.config)
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.address = self.sock.getsockname()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.005)

    def _run(self):
        with asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
            runner.run(self.server.serve([self.sock]))

    def connect(self, timeout=5.0):
        return socket.create_connection(self.address, timeout=timeout)

    def say(self, data):
        """What comes back until the server closes. Fails when it does not."""
        with self.connect() as connection:
            connection.sendall(data)
            return everything(connection)

    def stop(self):
        self.server.should_exit = True
        self.thread.join(5)


def everything(connection):
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def wait_for(truth, seconds=5.0):
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end, "it did not become so"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def server():
    running = Running()
    yield running
    running.stop()


def status(answer):
    assert answer.startswith(b"HTTP/1.1 "), answer[:80]
    return int(answer[9:12])


def test_answers(server):
    assert server.say(GET).endswith(b"ok")


REFUSED = [
        ("CL and TE", POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("TE and CL", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
        ("CL twice", POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
        ("CL negative", POST + b"Content-Length: -3\r\n\r\nabc", 400),
        ("CL with a sign", POST + b"Content-Length: +3\r\n\r\nabc", 400),
        ("CL list", POST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
        ("CL beyond 64 bits", POST + b"Content-Length: 99999999999999999999999\r\n\r\nabc", 400),
        ("chunked twice", POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
        ("chunked in two headers", POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n", 400),
        ("gzip in transit", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        ("TE identity", POST + b"Transfer-Encoding: identity\r\n\r\n", 400),
        ("TE before a space", POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        ("TE in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("bare LF", b"GET / HTTP/1.1\nHost: a\n\n", 400),
        ("one bare LF", b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        ("folded header", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
        ("NUL in a header", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
        ("bad chunk", POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", 400),
        ("negative chunk", POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", 400),
        ("huge chunk", POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400),
        ("LF in a chunk extension", POST + b"Transfer-Encoding: chunked\r\n\r\n3;a=b\nx\r\nabc\r\n0\r\n\r\n", 400),
        ("no host", b"GET / HTTP/1.1\r\n\r\n", 400),
        ("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("HTTP/2.0 on a line", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        ("CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\nfoo", 400),
        ("unknown method", b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(100), 400),
        ("1 MB header", b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n", 431),
        ("10^4 headers", b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 10_000 + b"\r\n", 431),
        ("101 headers", b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 100 + b"\r\n", 431),
        ("70 KB in 70 headers", b"GET / HTTP/1.1\r\nHost: a\r\n" + (b"X: " + b"a" * 1000 + b"\r\n") * 70 + b"\r\n", 431),
        ("150 KB in 100 headers in one piece", b"GET / HTTP/1.1\r\nHost: a\r\n" + (b"X: " + b"a" * 1500 + b"\r\n") * 99 + b"\r\n", 431),
        ("1 MB URL", b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        ("headers that do not end", b"GET / HT", 408),
        ("a body that does not come", POST + b"Content-Length: 300\r\n\r\nabc", 408),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "expected"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refused_and_closed(server, name, data, expected):
    answer = server.say(data)
    assert status(answer) == expected, name
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.count(b"\r\ncontent-length: ") == 1  # nothing of what followed was read as a request
    assert server.say(LAST).endswith(b"ok")
    wait_for(lambda: server.app.running == 0)  # C8: no task is left behind


def test_100_headers_and_large_ones_are_taken(server):
    headers = b"".join(b"X%d: %s\r\n" % (i, b"a" * 500) for i in range(99))
    assert status(server.say(b"GET / HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n")) == 200


def test_a_large_body_is_no_large_head(server):
    body = b"x" * 3_000_000
    assert status(server.say(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)) == 200


def test_an_idle_connection_is_closed(server):
    assert server.say(b"") == b""
    assert server.say(GET).count(b"200 OK") == 1  # and one that was used, too


def test_a_slow_header_is_cut_even_after_a_request(server):
    with server.connect() as connection:
        connection.sendall(GET)
        assert connection.recv(4096).endswith(b"ok")
        began = time.monotonic()
        try:
            for letter in b"GET / HTTP/1.1\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa":
                connection.sendall(bytes([letter]))
                time.sleep(0.05)
        except ConnectionError:
            pass
        assert time.monotonic() - began < 3.2  # all of it would have taken longer


def test_a_slow_body_is_cut():
    """A byte every 50 ms never lets a reader's timeout pass; the whole has one too."""
    running = Running(body_time=0.3)
    try:
        with running.connect() as connection:
            connection.sendall(POST + b"Content-Length: 1000\r\n\r\n")
            sent, connection_open = 0, True
            while connection_open and sent < 200:
                try:
                    connection.sendall(b"a")
                    sent += 1
                    time.sleep(0.05)
                    connection.settimeout(0.001)
                    try:
                        connection_open = bool(connection.recv(100))
                        break
                    except TimeoutError:
                        connection.settimeout(5)
                except ConnectionError:
                    break
        assert sent < 60
        wait_for(lambda: running.app.gone == 1)
    finally:
        running.stop()


def test_a_long_body_that_keeps_coming_is_read(server):
    with server.connect() as connection:
        connection.sendall(POST + b"Content-Length: 200000\r\n\r\n")
        for _ in range(20):  # 1 s, more than body_time
            connection.sendall(b"x" * 10_000)
            time.sleep(0.05)
        assert connection.recv(4096).endswith(b"ok")


@pytest.mark.parametrize("end", [b"", b"Connection: close\r\n"])
def test_a_client_that_stops_reading_is_cut(server, end):
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n" + end + b"\r\n")
        wait_for(lambda: not server.server.server_state.connections)
        wait_for(lambda: server.app.running == 0)


def test_a_small_answer_that_is_not_taken_is_cut():
    """It waits in the buffers of the connection, which never say that they are full."""
    running = Running(send_time=60.0)
    try:
        running.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(running.address)
            connection.sendall(b"GET /medium HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_for(lambda: running.server.server_state.total_requests == 1)
            wait_for(lambda: not running.server.server_state.connections)
    finally:
        running.stop()


def test_every_deadline_holds_after_a_longer_one():
    """The timer stands at the end of keep_alive; a new request brings the end of its headers forward."""
    running = Running(keep_alive=60.0)
    try:
        with running.connect() as connection:
            connection.sendall(GET)
            assert connection.recv(4096).endswith(b"ok")
            time.sleep(0.5)  # the timer of the first headers has fired, and was set anew
            connection.sendall(b"GET / HT")
            assert status(everything(connection)) == 408
    finally:
        running.stop()


def test_a_request_in_work_is_not_cut(server):
    """The application takes longer than any deadline of the connection."""
    assert server.say(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").endswith(b"ok")


def test_half_close_frees_the_request(server):
    with server.connect() as connection:
        connection.sendall(POST + b"Content-Length: 300\r\n\r\nabc")
        connection.shutdown(socket.SHUT_WR)
        everything(connection)
    wait_for(lambda: server.app.running == 0)


def test_what_came_whole_before_nonsense_is_answered(server):
    answer = server.say(POST + b"Content-Length: 2\r\n\r\nabc nonsense\r\n\r\n" + GET)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert status(answer) == 200
    assert b"connection: close" in answer


def test_requests_sent_ahead_are_answered_in_order_and_bounded(server):
    assert server.say(GET * 20).count(b"200 OK") == 20
    assert 30 < server.say(GET * 2000).count(b"200 OK") < 40


def test_a_refusal_before_the_body_reaches_a_client_that_sends_on(server):
    body = b"x" * 5_000_000
    with server.connect() as connection:
        connection.sendall(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body + GET)
        assert everything(connection).count(b"HTTP/1.1 ") == 2  # and the connection can be used again


def test_early_answer_then_a_body_that_stalls(server):
    with server.connect() as connection:
        connection.sendall(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab")
        answer = connection.recv(4096)
        with contextlib.suppress(ConnectionError):
            answer += everything(connection)
    assert answer.count(b"\r\ncontent-length:") == 1  # never a second answer to one request


def test_long_headers_sent_ahead_are_refused_too(server):
    headers = (b"X: " + b"a" * 1000 + b"\r\n") * 90
    answer = server.say(GET + b"GET / HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n")
    assert answer.count(b"200 OK") == 1
    assert b"connection: close" in answer


def test_upgrade_is_answered_and_closed(server):
    answer = server.say(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    assert status(answer) == 200
    assert b"connection: close" in answer


def test_idle_connections_stop_nobody_and_leave_nothing():
    """500 that say nothing or half a line; others are answered; every descriptor comes back."""
    running = Running(header_time=1.0)
    try:
        descriptors = Path("/proc/self/fd")
        before = len(os.listdir(descriptors)) if descriptors.exists() else 0
        idle = [running.connect() for _ in range(500)]
        for connection in idle[::2]:
            connection.sendall(b"GET / HTTP/1.1\r\nHost:")
        with running.connect() as connection:
            for _ in range(20):
                connection.sendall(GET)
                assert connection.recv(4096).endswith(b"ok")
        for connection in idle[1::2]:
            assert connection.recv(100) == b""
            connection.close()
        for connection in idle[::2]:
            assert status(connection.recv(4096)) == 408
            connection.close()
        wait_for(lambda: not running.server.server_state.connections)
        if before:
            wait_for(lambda: len(os.listdir(descriptors)) <= before + 2)
    finally:
        running.stop()


def test_more_connections_than_there_is_room_for_are_closed():
    running = Running(most=20, header_time=30.0)
    try:
        idle = [running.connect() for _ in range(20)]
        wait_for(lambda: len(running.server.server_state.connections) == 20)
        with running.connect() as connection, contextlib.suppress(ConnectionError):
            assert connection.recv(10) == b""
        idle[0].close()
        wait_for(lambda: len(running.server.server_state.connections) == 19)
        with running.connect() as connection:
            connection.sendall(GET)
            assert connection.recv(4096).endswith(b"ok")
        for connection in idle:
            connection.close()
    finally:
        running.stop()
