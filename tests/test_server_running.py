"""A real server process from its start to its end (faults G5, H1, H3; promise P3)."""

import asyncio
import contextlib
import csv
import dataclasses
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

import headstart
from conftest import sentences
from headstart import apikeys, notice
from headstart.errors import InputError
from headstart.server import running, workers
from headstart.server.logs import Events
from headstart.server.settings import Settings

RUN = """
import json, sys
from headstart.errors import HeadstartError
from headstart.server.running import run
from headstart.server.workers import unpacked
try:
    sys.exit(run(unpacked(sys.argv[1])))
except HeadstartError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
BODY = json.dumps({"inputs": ["apple pear plum"]}).encode()
PREDICT = "/v1/models/easy/predict"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    with open(root / "easy.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *sentences(60)])
    headstart.fit(str(root / "easy.csv"), backbone="fake", name="easy", project=str(root))
    return root


class Process:
    """A server in a process of its own."""

    def __init__(self, project, **changes):
        self.settings = Settings(project, port=0, log_format="json", **{"grace": 10.0, **changes})
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, workers.packed(self.settings)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines = []
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr), daemon=True)
        self._reader.start()
        first = self.process.stdout.readline()
        self.ready = json.loads(first) if first else None
        self.port = int(self.ready["url"].rpartition(":")[2]) if first else None

    def ask(self, method="POST", path=PREDICT, body=BODY, headers=(), timeout=10):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json", **dict(headers)})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def half_sent(self):
        """A request that is let in and waits for the rest of its body."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
        connection.sendall(head.encode() + BODY[:5])
        time.sleep(0.2)
        return connection

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def ended(self, timeout=15):
        code = self.process.wait(timeout)
        self._reader.join(5)
        self.process.stdout.close()
        self.process.stderr.close()
        return code

    def events(self):
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.process.poll() is None:
            self.process.kill()
        self.ended()


def wait_for(truth, seconds=15.0):
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end, "it did not become so"
        time.sleep(0.02)


def serving(project):
    """The processes that serve a project; one that was killed leaves its registration behind."""
    found = {json.loads(path.read_text("utf-8"))["pid"] for path in (project / "serving").glob("*.json")}
    return {pid for pid in found if Path(f"/proc/{pid}").exists()}


def test_it_serves_hears_of_changes_and_ends_well(project, tmp_path):
    project = shutil.copytree(project, tmp_path / "copy")  # with a key, of which one that was revoked leaves a trace
    with Process(project) as server:
        assert server.ready["models"] == 1
        status, body = server.ask()
        assert (status, json.loads(body)["predictions"][0]["label"]) == (200, "fruit")
        assert server.ask("GET", "/health/ready", None)[0] == 200
        key, secret = apikeys.create(project, "one", ["predict"])
        try:
            assert [told["ok"] for told in notice.tell(project)] == [True]
            assert server.ask()[0] == 401
            assert server.ask(headers=[("Authorization", f"Bearer {secret}")])[0] == 200
        finally:
            apikeys.revoke(project, key.id)
        assert [told["ok"] for told in notice.tell(project)] == [True]
        assert server.ask()[0] == 401  # whoever once had a key wants one
        server.stop()
        assert server.ended() == 0
    assert list((project / "serving").glob("*.json")) == []
    text = "".join(server.lines)
    assert "apple" not in text
    assert secret not in text
    assert "Traceback" not in text
    assert [event["event"] for event in server.events()][-2:] == ["draining", "stopped"]


LATE = """
import sys
from pathlib import Path
from headstart import deployments, notice
real = notice.Listening.open
async def late(self):
    root = Path(sys.argv[2])
    pointer = deployments.table(root)["easy"].live
    deployments.deploy(root, "again", pointer)
    await real(self)
notice.Listening.open = late
"""


def test_what_is_deployed_while_a_server_starts_is_served(project, tmp_path):
    root = tmp_path / "project"
    shutil.copytree(project, root, ignore=shutil.ignore_patterns("headstart.db*", "serving"))
    settings = workers.packed(Settings(root, port=0, log_format="json"))
    process = subprocess.Popen(
        [sys.executable, "-c", LATE + RUN, settings, str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        port = int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            connection.request("POST", "/v1/models/again/predict", BODY, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert (answer.status, b"again" in answer.read()) == (200, True)
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def test_drain_answers_what_was_let_in(project):
    """20 clients in a loop, then SIGTERM: every request is answered, refused, or was never let in."""
    with Process(project) as server:
        stop, answered, refused, unanswered, broken = threading.Event(), [], [], [], []

        def client(number):
            asked, connection = 0, http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
            while not stop.is_set():
                id_, asked = f"{number}-{asked}", asked + 1
                try:
                    headers = {"Content-Type": "application/json", "X-Request-Id": id_}
                    connection.request("POST", PREDICT, BODY, headers)
                    answer = connection.getresponse()
                    content = answer.read()
                except ConnectionRefusedError:
                    return
                except (http.client.RemoteDisconnected, ConnectionError):
                    unanswered.append(id_)
                    connection.close()
                    continue
                except Exception as error:
                    broken.append((id_, error))
                    return
                if answer.status == 200:
                    json.loads(content)
                    answered.append(id_)
                elif answer.status == 503:
                    refused.append(id_)
                    assert answer.headers["connection"] == "close"
                else:
                    broken.append((id_, answer.status))

        threads = [threading.Thread(target=client, args=[number]) for number in range(20)]
        for thread in threads:
            thread.start()
        held = server.half_sent()
        wait_for(lambda: len(answered) > 100)
        before = len(answered)
        server.stop()
        wait_for(lambda: len(refused) > 20)  # it still listens, for there is one in flight
        assert server.ask("GET", "/health/ready", None)[0] == 503
        assert server.ask("GET", "/health/live", None)[0] == 200
        held.sendall(BODY[5:])
        assert held.recv(4096).startswith(b"HTTP/1.1 200 ")
        held.close()
        assert server.ended() == 0
        stop.set()
        for thread in threads:
            thread.join(10)
    assert broken == []
    assert len(answered) >= before
    let_in = {event["id"] for event in server.events() if event["event"] == "request" and event["status"] != 503}
    assert set(answered) <= let_in
    assert not let_in & set(unanswered)  # none that was let in got no answer


def test_a_second_signal_ends_it_at_once(project):
    with Process(project) as server, server.half_sent():
        server.stop(signal.SIGINT)
        wait_for(lambda: any(event["event"] == "draining" for event in server.events()))
        assert server.process.poll() is None
        server.stop()
        assert server.ended(3) == 1


def test_grace_has_an_end(project):
    with Process(project, grace=0.3) as server, server.half_sent():
        server.stop()
        assert server.ended(8) == 1
        assert server.events()[-1] == {**server.events()[-1], "event": "stopped", "unanswered": 1}


def test_two_workers_one_dies_all_end(project):
    with Process(project, workers=2) as server:

        def pids():
            return serving(project)

        first = pids()
        assert len(first) == 2
        assert server.process.pid not in first
        assert server.ready["models"] == 1
        assert {server.ask()[0] for _ in range(20)} == {200}
        os.kill(min(first), signal.SIGKILL)
        wait_for(lambda: any(event["event"] == "server died" for event in server.events()))
        assert {server.ask()[0] for _ in range(20)} == {200}
        wait_for(lambda: len(pids() - {min(first)}) == 2)
        wait_for(lambda: [told["ok"] for told in notice.tell(project)] == [True, True])
        status, metrics = server.ask("GET", "/metrics", None)
        assert status == 200
        assert b"headstart" in metrics
        server.stop()
        assert server.ended() == 0
        assert pids() == set()


def test_servers_end_when_who_watches_them_is_killed(project):
    with Process(project, workers=2) as server:
        children = serving(project)
        assert len(children) == 2
        server.process.kill()
        wait_for(lambda: not serving(project))
    with pytest.raises(ConnectionError):
        server.ask()


def test_what_cannot_be_served_is_said_once(project):
    with Process(project, models=("nothing",), workers=2) as server:
        assert server.ready is None
        assert server.ended() == 2
    said = "".join(server.lines)
    assert said.count("'nothing'") == 1
    assert "Traceback" not in said


def test_a_few_open_files_are_enough(project):
    """H3: with 64 of them it serves, and refuses connections beyond its room."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lower = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n{RUN}"
    assert soft > 64
    assert hard > 64
    settings = Settings(project, port=0, log_format="json")
    process = subprocess.Popen(
        [sys.executable, "-c", lower, workers.packed(settings)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        address = ("127.0.0.1", int(json.loads(process.stdout.readline())["url"].rpartition(":")[2]))
        idle = [socket.create_connection(address, timeout=5) for _ in range(100)]
        time.sleep(0.2)
        for connection in idle:
            connection.close()

        def answers():
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection(*address, timeout=5)
                connection.request("POST", PREDICT, BODY, {"Content-Type": "application/json"})
                status = connection.getresponse().status
                connection.close()
                return status == 200
            return False

        wait_for(answers)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()


# parts


def test_a_port_that_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port} is taken.*--port"):
            running.bound(Settings(tmp_path, port=port))


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid", "256.1.1.1"])
def test_a_host_that_is_not_ours(tmp_path, host):
    with pytest.raises(InputError, match="--host"):
        running.bound(Settings(tmp_path, host=host, port=0))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]"])
def test_addresses(tmp_path, host):
    settings = Settings(tmp_path, host=host, port=0)
    try:
        sock = running.bound(settings)
    except InputError:
        pytest.skip("no IPv6 here")
    with sock:
        url = running.address(settings, sock)
        assert url.rpartition(":")[0] == f"http://{'[::1]' if ':' in host else host}"


def test_settings_reach_another_process(tmp_path):
    settings = Settings(tmp_path, models=("a", "b"), cors=("https://a.example",), grpc_port=5, log="wait")
    assert workers.unpacked(workers.packed(settings)) == settings
    assert {f.name for f in dataclasses.fields(Settings)} == set(json.loads(workers.packed(settings)))


@pytest.mark.parametrize(("count", "cores"), [(1, 4), (2, 4), (3, 4), (4, 4), (4, 2), (8, 3)])
def test_cores_are_shared_out(count, cores):
    """G9: every core is somebody's, and nobody's twice while they last."""
    numbers = [2 * i for i in range(cores)]
    given = [workers.cores_of(place, count, numbers) for place in range(count)]
    assert set().union(*given) == set(numbers)
    assert all(given)
    if count <= cores:
        assert sum(map(len, given)) == cores
    else:
        assert {len(one) for one in given} == {1}


def test_no_restart_without_end(tmp_path, monkeypatch):
    """H1: servers that die young again and again are given up, with words."""
    lives, waits = [], []

    async def dies(self, place, answers):
        lives.append(place)
        return -9, False

    async def no_wait(awaitable, seconds):
        awaitable.close()
        waits.append(seconds)
        raise TimeoutError

    monkeypatch.setattr(workers._Watch, "once", dies)
    monkeypatch.setattr(workers.asyncio, "wait_for", no_wait)
    import io

    stream = io.StringIO()
    events = Events("json", stream)
    with socket.socket() as sock:
        code = asyncio.run(workers._Watch(Settings(tmp_path, workers=3), sock, events).run())
    events.close()
    assert code == 1
    assert lives == [0] * workers.MOST
    assert waits == sorted(waits)
    assert waits[-1] > 2 * waits[0]
    assert '"gave up"' in stream.getvalue()
    assert "exit code -9" in stream.getvalue()


def test_where_it_serves_is_said_in_a_sentence_or_as_json(tmp_path, capsys):
    with contextlib.closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"

        def said(*numbers, **changes):
            running.announce(Settings(tmp_path, **changes), sock, *numbers)
            return capsys.readouterr().out

        assert said(5) == f"Serving 5 models on {url} ({url}/docs). Stop with Ctrl+C.\n"
        assert said(5, 1).startswith("Serving 5 models (1 could not be loaded) on ")
        assert " and by gRPC on port 9001. Stop" in said(1, 0, 9001, grpc_port=0)
        assert " and by gRPC on port 9002. Stop" in said(1, grpc_port=9002)
        assert "headstart fit" in said(0)
        assert "--project" in said(0)
        assert "headstart fit" not in said(0, 2)
        found = json.loads(said(5, 1, 9001, log_format="json"))
        assert (found["models"], found["not_loaded"], found["grpc_port"]) == (5, 1, 9001)


def test_a_model_that_cannot_be_loaded_is_said_at_the_start(project, tmp_path):
    shutil.copytree(project, tmp_path / "copy")
    broken = tmp_path / "copy" / "models" / "broken" / "v1"
    shutil.copytree(tmp_path / "copy" / "models" / "easy", broken.parent)
    (broken / "card.json").write_text("{", "utf-8")
    with Process(tmp_path / "copy", grpc_port=0) as server:
        assert (server.ready["models"], server.ready["not_loaded"]) == (1, 1)
        assert server.ready["grpc_port"] > 0
        wait_for(lambda: server.events())
        [said] = [event for event in server.events() if event["event"] == "not loaded"]
        assert said["model"] == "broken"
        assert said["words"]
        server.stop()
        assert server.ended() == 0


def test_a_grpc_port_that_is_taken_is_said_in_our_words_alone(project):
    with contextlib.closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        with Process(project, grpc_port=sock.getsockname()[1]) as server:
            assert server.ready is None
            assert server.ended() == 2
        assert [line.startswith("gRPC cannot listen on 127.0.0.1:") for line in server.lines] == [True], server.lines


def test_a_project_where_no_changes_can_be_heard_of_says_so(project, tmp_path):
    shutil.copytree(project, tmp_path / "copy", ignore=shutil.ignore_patterns("serving"))
    (tmp_path / "copy" / "serving").write_text("no folder", "utf-8")
    with Process(tmp_path / "copy") as server:
        assert server.ask()[0] in (200, 401)
        wait_for(lambda: any(event["event"] == "deaf" for event in server.events()))
        [said] = [event for event in server.events() if event["event"] == "deaf"]
        assert "reach this server only when it starts again" in said["words"]
        server.stop()
        assert server.ended() == 0
