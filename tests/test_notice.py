"""Notices: every live server hears of a commit, dead ones leave no trace. Fault F14; C8 and C11 for the port."""

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from headstart import notice
from headstart.errors import ModelError

CHILD = """
import asyncio, sys
from pathlib import Path
from headstart import notice

async def changed():
    print("heard", flush=True)
    return {"ok": True, "detail": ["v2"]}

async def main():
    async with notice.listen(Path(sys.argv[1]), changed) as listening:
        print(listening.why, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def server(tmp_path):
    """A server of its own process, killed at the end."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, tmp_path], stdout=-1, text=True)
    assert child.stdout.readline() == "None\n"
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def registered(root):
    return [json.loads(path.read_text()) for path in sorted(notice.folder(root).glob("*.json"))]


def spoken(port, sent, close=False):
    """What the port answers to bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(sent)
        if close:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while part := connection.recv(4096):
                received += part
        except ConnectionResetError:
            pass
        return received


def listening(root, work, on_change=None):
    """Run `work` in a thread while a server of this process listens; its result, and how often a change was heard."""
    heard = []

    async def changed():
        heard.append(1)
        return {"ok": True, "detail": []}

    async def main():
        async with notice.listen(root, on_change or changed) as ear:
            assert ear.why is None
            return await asyncio.to_thread(work)

    return asyncio.run(main()), len(heard)


def test_a_server_hears_and_answers(tmp_path, server):
    assert notice.tell(tmp_path) == [{"pid": server.pid, "ok": True, "detail": ["v2"]}]
    assert server.stdout.readline() == "heard\n"
    assert notice.tell(tmp_path, but=server.pid) == []
    [path] = notice.folder(tmp_path).iterdir()
    assert path.name.startswith(f"{server.pid}.")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(registered(tmp_path)[0]["token"]) == 64


def test_nobody_there(tmp_path):
    assert notice.tell(tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_a_killed_server_leaves_no_trace(tmp_path, server):  # F14
    server.send_signal(signal.SIGKILL)
    server.wait()
    assert len(registered(tmp_path)) == 1
    assert notice.tell(tmp_path) == []
    assert not list(notice.folder(tmp_path).iterdir())


def test_somebody_else_has_the_port_now(tmp_path):  # F14: pid and port used again, with another token
    def work():
        facts = registered(tmp_path)[0]
        stale = notice.folder(tmp_path) / f"{facts['pid']}.00000000.json"
        stale.write_text(json.dumps({**facts, "token": "0" * 64}))
        answers = notice.tell(tmp_path)
        return answers, stale.exists(), len(registered(tmp_path))

    (answers, there, left), heard = listening(tmp_path, work)
    assert [answer["ok"] for answer in answers] == [True]
    assert heard == 1
    assert not there
    assert left == 1
    assert registered(tmp_path) == []  # closed: removed


def test_another_program_has_the_port_now(tmp_path):  # F14
    notice.folder(tmp_path).mkdir()
    with socket.create_server(("127.0.0.1", 0)) as other:
        facts = {"pid": 1, "port": other.getsockname()[1], "token": "0" * 64, "host": socket.gethostname()}
        (notice.folder(tmp_path) / "1.json").write_text(json.dumps(facts))

        async def main():
            task = asyncio.create_task(asyncio.to_thread(notice.tell, tmp_path))
            connection, _ = await asyncio.to_thread(other.accept)
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()
            return await task

        assert asyncio.run(main()) == []
    assert registered(tmp_path) == []


def test_a_server_that_does_not_answer_stays_registered(tmp_path, server):
    server.send_signal(signal.SIGSTOP)
    [answer] = notice.tell(tmp_path, timeout=0.2)
    assert (answer["pid"], answer["ok"]) == (server.pid, False)
    for words in ("has not answered in time", "What was committed stands", f"kill {server.pid}"):
        assert words in answer["detail"]
    assert notice.tell(tmp_path, timeout=0) == [answer]
    server.send_signal(signal.SIGCONT)
    assert [a["ok"] for a in notice.tell(tmp_path)] == [True]


def test_several_are_told_at_once(tmp_path):
    async def main():
        meeting = asyncio.Barrier(5)

        async def changed():
            await meeting.wait()  # nobody answers before all have heard
            return {"ok": True, "detail": []}

        async with asyncio.TaskGroup() as group:
            ears = [notice.listen(tmp_path, changed) for _ in range(5)]
            for ear in ears:
                group.create_task(ear.open())
        answers = await asyncio.to_thread(notice.tell, tmp_path, timeout=20)
        for ear in ears:
            await ear.close()
        return answers

    assert [a["ok"] for a in asyncio.run(main())] == [True] * 5
    assert registered(tmp_path) == []


def test_a_server_on_another_host(tmp_path):
    notice.folder(tmp_path).mkdir()
    facts = {"pid": 1, "port": 1, "token": "0" * 64, "host": "elsewhere"}
    (notice.folder(tmp_path) / "1.json").write_text(json.dumps(facts))
    [answer] = notice.tell(tmp_path)
    assert not answer["ok"]
    assert "runs on 'elsewhere'" in answer["detail"]
    assert len(registered(tmp_path)) == 1  # it may be alive there


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"pid":1,"port":"x","token":"","host":""}', b"\xff", b"[" * 4000]
)
def test_a_file_that_is_no_registration(tmp_path, content):
    notice.folder(tmp_path).mkdir()
    (notice.folder(tmp_path) / "7.json").write_bytes(content)
    [answer] = notice.tell(tmp_path)
    assert not answer["ok"]
    assert "7.json" in answer["detail"]


def test_who_has_no_token_gets_nothing(tmp_path):  # C11
    def work():
        facts = registered(tmp_path)[0]
        token = facts["token"].encode()
        wrong = [
            b"",
            b"\n",
            b"\nchanged\n",
            b"0" * 64 + b"\nchanged\n",
            token[:-1] + b"\nchanged\n",
            token + b"x\nchanged\n",
            token + b"\r\nchanged\n",
            token + b"\nchange\n",
            b"\x00" * 10_000,
            b"x" * 10_000 + b"\nchanged\n",
            "é".encode() + b"\nchanged\n",
        ]
        return [spoken(facts["port"], sent, close=True) for sent in wrong], notice.tell(tmp_path)

    (said, answers), heard = listening(tmp_path, work)
    assert said == [b""] * 11
    assert heard == 1
    assert answers[0]["ok"]


def test_a_line_without_an_end_is_not_waited_for(tmp_path):
    said, heard = listening(tmp_path, lambda: spoken(registered(tmp_path)[0]["port"], b"x" * 2000))
    assert said == b""
    assert heard == 0


def test_who_says_nothing_is_let_go(tmp_path, monkeypatch):  # C8
    monkeypatch.setattr(notice, "PATIENCE", 0.1)
    said, heard = listening(tmp_path, lambda: spoken(registered(tmp_path)[0]["port"], b"12"))
    assert b"too slowly" in said
    assert heard == 0


@pytest.mark.parametrize(
    ("error", "words"), [(ModelError("v2 is damaged."), "v2 is damaged."), (KeyError("x"), "KeyError: 'x'")]
)
def test_a_change_that_fails_is_told(tmp_path, error, words):
    async def changed():
        raise error

    answers, _ = listening(tmp_path, lambda: notice.tell(tmp_path), changed)
    assert answers == [{"pid": os.getpid(), "ok": False, "detail": words}]


def test_a_project_that_cannot_be_written():  # F13
    folder = Path(tempfile.mkdtemp())
    was = os.geteuid()
    folder.chmod(0o555)

    async def main():
        async with notice.listen(folder, None) as ear:
            return ear.why

    try:
        if was == 0:
            os.seteuid(65534)
        why = asyncio.run(main())
    finally:
        os.seteuid(was)
        shutil.rmtree(folder)
    assert str(folder) in why
    assert "no notices can be had here" in why


def test_closing_while_somebody_waits(tmp_path):
    async def main():
        started = asyncio.Event()

        async def changed():
            started.set()
            await asyncio.sleep(60)

        ear = notice.listen(tmp_path, changed)
        await ear.open()
        told = asyncio.create_task(asyncio.to_thread(notice.tell, tmp_path, timeout=20))
        await started.wait()
        await ear.close()
        return await told

    assert asyncio.run(main()) == []


def test_processes_are_counted(tmp_path, server):
    assert notice.running(tmp_path) == 1
    assert notice.running(tmp_path, but=server.pid) == 0
    server.kill()
    server.wait()
    assert len(registered(tmp_path)) == 1
    assert notice.running(tmp_path) == 0


def test_who_leaves_a_name_out_says_so():
    told = [
        {"pid": 1, "ok": True, "detail": "", "only": ["a"]},
        {"pid": 2, "ok": True, "detail": "", "only": None},
        {"pid": 3, "ok": False, "detail": "no memory", "only": ["a"]},
    ]
    found = notice.about("b", told)
    assert [one["serves"] for one in found] == [False, True, False]
    assert "--models" in found[0]["detail"]
    assert found[2]["detail"] == "no memory"
