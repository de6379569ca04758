"""Serving from the command line: a real server, deployments with and without one, keys, and a model on a server."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import headstart
from conftest import sentences
from headstart import api, apikeys, notice
from headstart import deployments as commits
from headstart.backbones.fake import Fake
from headstart.cli import app
from headstart.cli.serving import _seconds, _share
from headstart.errors import Conflict, HeadstartError, InputError, ModelError, NotFound

SHORT = {"COLUMNS": "200", "PYTHONIOENCODING": "utf-8"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project of `easy`, versions 1 and 2 that differ, and `other`; only read."""
    root = tmp_path_factory.mktemp("serving")
    headstart.fit(sentences(60), name="easy", backbone="fake", project=root)
    headstart.fit(sentences(90, seed=1), name="easy", backbone="fake", project=root)
    shutil.copytree(root / "models" / "easy" / "v1", root / "models" / "other" / "v1")
    (root / "models" / "other" / "current").write_text("v1")
    with open(root / "new.csv", "w", newline="") as file:
        csv.writer(file).writerows([("id", "text"), *((i, t) for i, (t, _) in enumerate(sentences(20, seed=9)))])
    return root


@pytest.fixture
def root(made, tmp_path):
    """A copy to change."""
    return shutil.copytree(made, tmp_path / "project")


def ours(*arguments, code=0):
    """What a command prints, in this process: (stdout, stderr)."""
    done = CliRunner().invoke(app, [*map(str, arguments)], env=SHORT)
    if isinstance(done.exception, HeadstartError):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.stdout, done.stderr


def run(*arguments, cwd, code=0, **env):
    """A command as a process of its own: (stdout, stderr)."""
    done = subprocess.run(
        [sys.executable, "-m", "headstart", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, encoding="utf-8", env={**os.environ, **SHORT, **env}, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def test_a_server_from_its_start_to_its_end(root):
    with subprocess.Popen(
        [sys.executable, "-m", "headstart", "serve", "--port", "0", "--log-format", "json", "--grace", "5", "--log", "on"],
        cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **SHORT},
    ) as server:  # fmt: skip
        try:
            url = json.loads(server.stdout.readline())["url"]
            there = ["--server", url]

            # predict, as with a model here
            for extra in ((), ("--all",), ("--why",)):
                found, expected = (
                    ours("predict", "easy", "crow and wren", "--project", root, *extra, *on)[0] for on in (there, ())
                )
                assert found == expected
            out, err = run("predict", "easy", "new.csv", "-o", "there.csv", *there, cwd=root)
            assert re.match(r"20 rows, \d unknown -> there\.csv", out)
            assert "text column 'text'" in err
            run("predict", "easy", "new.csv", "-o", "here.csv", cwd=root)
            rows = [
                list(csv.DictReader((root / f"{place}.csv").read_text().splitlines())) for place in ("there", "here")
            ]
            assert [(r["id"], r["text"], r["label"], r["unknown"]) for r in rows[0]] == [
                (r["id"], r["text"], r["label"], r["unknown"]) for r in rows[1]
            ]
            for a, b in zip(*rows, strict=True):
                assert float(a["probability"]) == pytest.approx(float(b["probability"]), abs=2e-6)

            # what is deployed, told from here and asked over HTTP
            said, _ = ours("deploy", "easy@1", "--project", root)
            assert "easy is answered by easy@v1" in said
            assert "1 server process followed" in said
            assert re.search(r"found +easy@v2", ours("deployments", "easy", "--project", root)[0])
            rows = json.loads(ours("deployments", "easy", *there, "--json")[0])
            assert [row["action"] for row in rows] == ["found", "deploy"]
            made = json.loads(ours("deploy", "easy", "--shadow", *there, "--json")[0])
            assert (made["live"]["version"], made["challenger"]["version"], made["mode"]) == ("v1", "v2", "shadow")
            assert made["servers"] == [{"pid": server.pid, "ok": True, "detail": "", "serves": True}]
            first = headstart.load(root / "models" / "easy" / "v1").predict("swan")[0]
            assert api.remote(url, "easy").predict("swan")[0].label == first.label
            deadline = time.monotonic() + 10
            while not (table := ours("deployments", *there)[0]).count(" % of 1") and time.monotonic() < deadline:
                time.sleep(0.05)
            assert re.search(r"easy +easy@v1 +shadow easy@v2 +unheard +\d+\.0 % of 1\b", table)
            ours("rollback", "easy", "--project", root)
            [easy] = [row for row in json.loads(ours("deployments", *there, "--json")[0]) if row["name"] == "easy"]
            assert (easy["live"]["version"], easy["challenger"]) == ("v1", None)
            ours("undeploy", "easy", *there)
            with pytest.raises(NotFound):
                api.remote(url, "easy")
            with pytest.raises(Conflict):
                ours("deploy", "easy", "--expected", "1", *there)
            with pytest.raises(NotFound, match="no version"):
                ours("deploy", "easy@9", *there)

            # a key that is made while it runs is asked for at once; one that is revoked is void at once
            out, err = ours("keys", "create", "web", "--project", root)
            secret = out.strip()
            assert re.fullmatch(r"hs_[a-z0-9]{8}_[\w-]{43}", secret)
            with pytest.raises(HeadstartError, match="HEADSTART_KEY"):
                api.remote(url, "other")
            assert api.remote(url, "other", key=secret).name == "other"
            out, _ = run("predict", "other", "crow and wren", *there, cwd=root, HEADSTART_KEY=secret)
            assert out.startswith("bird")
            ours("keys", "create", "second", "--project", root)
            ours("keys", "revoke", "web", "--project", root)
            with pytest.raises(HeadstartError, match="not known here"):
                api.remote(url, "other", key=secret)
        finally:
            server.send_signal(signal.SIGTERM)
            _, log = server.communicate(timeout=30)
    assert server.returncode == 0, log
    assert secret not in log
    assert "crow" not in log


def test_a_model_on_a_server_needs_no_base_model_here(tmp_path):
    """The command line asks a server without loading a network's runtime."""
    script = (
        "import sys; from headstart import api\n"
        "try: api.remote('http://127.0.0.1:9', 'm')\n"
        "except ConnectionError as error: print(error)\n"
        "print(sorted({'onnxruntime', 'tokenizers', 'fastapi', 'torch', 'sklearn', 'starlette'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    words, loaded = done.stdout.splitlines()
    assert "headstart serve" in words
    assert loaded == "[]"


def test_nobody_there_is_one_line_and_exit_code_1(tmp_path):
    _, err = run("predict", "m", "a text", "--server", "http://127.0.0.1:9", cwd=tmp_path, code=1)
    assert err == (
        "headstart: no server answers at http://127.0.0.1:9. Start one with: headstart serve, or look at the address.\n"
    )


# -- deployments without a server --------------------------------------------------------------------------------------


def test_deployments_hold_without_a_server(root):
    assert "holds from the next start on" in ours("deploy", "easy@v1", "--project", root)[0]
    assert commits.table(root)["easy"].live.version == "v1"
    out, _ = ours("deploy", "easy@2", "--canary", "12.5%", "--project", root)
    assert "canary easy@v2, 12.5 %" in out
    table, _ = ours("deployments", "--project", root)
    assert re.search(r"easy +easy@v1 +canary easy@v2 +12\.5 %", table)
    assert re.search(r"other +other@v1", table)
    ours("rollback", "easy", "--project", root)
    assert commits.table(root)["easy"].challenger is None
    out, _ = ours("undeploy", "easy", "--project", root)
    assert "easy is answered by nothing" in out
    ours("rollback", "easy", "--project", root)
    assert commits.table(root)["easy"].live.version == "v1"
    made = json.loads(ours("deploy", "easy", "--as", "support", "--project", root, "--json")[0])
    assert (made["name"], made["live"]["model"], made["live"]["version"]) == ("support", "easy", "v2")
    assert made["live"]["digest"] == headstart.load("easy", project=root).card["digest"]
    assert made["servers"] == []


def test_what_would_answer_is_not_guessed(root):
    """Without a server that pinned it, the current version is what answers: it cannot stand beside itself."""
    with pytest.raises(Conflict, match=r"easy@v2 is the current version.*pin what answers first.*deploy easy@v1"):
        api.deploy("easy", shadow=True, project=root)
    assert commits.table(root) == {}
    assert api.deploy("easy", project=root)["live"]["version"] == "v2"
    assert len(commits.history(root, "easy")) == 1
    with pytest.raises(Conflict, match="nothing to go back to"):
        api.rollback("easy", project=root)


def test_a_rollback_is_tried_before_it_is_committed(root, monkeypatch):
    for version in ("easy@1", "easy@2"):
        api.deploy(version, project=root)
    before = commits.seq(root)
    shutil.move(root / "models" / "easy" / "v1", root / "v1")
    with pytest.raises(NotFound, match="no version v1"):
        api.rollback("easy", project=root)
    shutil.copytree(root / "models" / "easy" / "v2", root / "models" / "easy" / "v1")
    with pytest.raises(ModelError, match="not what was deployed"):
        api.rollback("easy", project=root)
    shutil.rmtree(root / "models" / "easy" / "v1")
    shutil.move(root / "v1", root / "models" / "easy" / "v1")
    with pytest.raises(Conflict):
        api.rollback("easy", expected=before + 1, project=root)
    monkeypatch.setattr(Fake, "encode", lambda self, contents: np.ones((len(contents), self.card.width), np.float32))
    with pytest.raises(ModelError, match="probes"):
        api.rollback("easy", project=root)
    assert commits.seq(root) == before
    monkeypatch.undo()
    assert api.rollback("easy", project=root)["live"]["version"] == "v1"


def test_what_stands_beside_must_be_of_one_kind(root):
    headstart.fit(
        [(t, float(len(t))) for t, _ in sentences(60)], name="price", backbone="fake", task="regression", project=root
    )
    rows = [(text, {"fruit": "apple"}.get(label, label)) for text, label in sentences(60)]
    headstart.fit(rows, name="fewer", backbone="fake", project=root)
    with pytest.raises(InputError, match="regression"):
        api.deploy("price", name="easy", shadow=True, project=root)
    assert commits.table(root) == {}
    made = api.deploy("fewer", name="easy", shadow=True, project=root)
    assert "they share 2 of 4" in made["note"]
    out, _ = ours("deploy", "fewer", "--as", "easy", "--canary", "10%", "--project", root)
    assert "they share 2 of 4" in out


def test_the_history_of_a_name(root):
    with pytest.raises(NotFound, match="never deployed"):
        ours("deployments", "easy", "--project", root)
    with pytest.raises(NotFound, match="Did you mean 'easy'"):
        ours("deployments", "easi", "--project", root)
    ours("deploy", "easy@1", "--project", root)
    ours("deploy", "easy@2", "--canary", "10%", "--project", root)
    ours("undeploy", "easy", "--project", root)
    out, _ = ours("deployments", "easy", "--project", root)
    lines = out.splitlines()[1:]
    assert [re.split(r"  +", line.strip())[2:] for line in lines] == [
        ["found", "easy@v2"], ["deploy", "easy@v1"], ["canary", "easy@v1", "canary easy@v2", "10 %"], ["undeploy", "nothing"]
    ]  # fmt: skip
    assert len(json.loads(ours("deployments", "easy", "--json", "--project", root)[0])) == 4


def test_fit_says_what_goes_on_answering(root, easy_csv):
    out, _ = ours("fit", easy_csv, "--name", "easy", "--backbone", "fake", "--project", root)
    assert "Served" not in out
    ours("deploy", "easy@1", "--project", root)
    out, _ = ours("fit", easy_csv, "--name", "easy", "--backbone", "fake", "--project", root)
    where = f"--project {root}"
    assert f"easy is answered by easy@v1; to let easy@v4 answer: headstart deploy easy {where}" in " ".join(out.split())


def test_a_server_that_leaves_the_name_out_is_not_counted(root, monkeypatch):
    told = [{"pid": 7, "ok": True, "detail": "", "only": None}, {"pid": 8, "ok": True, "detail": "", "only": ["other"]}]
    monkeypatch.setattr(notice, "tell", lambda root: told)
    out, _ = ours("deploy", "easy", "--project", root)
    assert "1 server process followed" in out
    assert "server process 8: it was started with --models" in out


def test_agreement_says_of_how_many_processes_it_is(monkeypatch):
    from headstart.cli.serving import _agreement

    row = {"challenger": {}, "counts": {"compared": 10, "agreed": 9, "skipped": 0}, "processes": 4, "mode": "shadow"}
    assert _agreement({**row, "challenger": {"model": "m"}}) == "90.0 % of 10, of one of 4 processes"
    assert _agreement({**row, "challenger": {"model": "m"}, "processes": 1}) == "90.0 % of 10"


def test_an_older_version_is_tried_beside_the_current_one(root):
    made = api.deploy("easy@1", canary=0.5, project=root)
    assert (made["live"]["version"], made["challenger"]["version"], made["share"]) == ("v2", "v1", 0.5)


def test_what_was_never_deployed_can_be_undeployed(root):
    assert api.undeploy("easy", project=root)["live"] is None
    assert api.rollback("easy", project=root)["live"]["version"] == "v2"


def test_a_version_that_cannot_answer_changes_nothing(root):
    weights = next((root / "models" / "easy" / "v2").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(ModelError):
        api.deploy("easy", project=root)
    assert commits.table(root) == {}
    run("deploy", "easy@2", cwd=root, code=2)


def test_a_version_that_answers_otherwise_than_in_training_changes_nothing(root, monkeypatch):
    monkeypatch.setattr(Fake, "encode", lambda self, contents: np.ones((len(contents), self.card.width), np.float32))
    with pytest.raises(ModelError, match="probes"):
        api.deploy("easy", project=root)
    assert commits.table(root) == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["easi"], "Did you mean 'easy'"), (["easy@7"], "'v1', 'v2'"), (["easy@"], "no version"), (["easy@v0"], "no version"),
        (["easy@1@2"], "no version"), (["easy@latest"], "no version"), (["../easy"], "cannot name a model"),
        (["easy", "--as", "a/b"], "cannot name a model"), (["easy", "--canary", "0"], "no share"),
        (["easy", "--canary", "150%"], "no share"), (["easy", "--canary", "10%", "--shadow"], "not both"),
        (["other", "--shadow"], "it is the only one"), (["other", "--as", "x", "--shadow"], "nothing to stand beside"), (["easy", "--expected", "3"], "last commit is number 0"),
        (["easy", "--server", "nowhere"], "no URL"),
    ],
)  # fmt: skip
def test_what_cannot_be_deployed(made, arguments, words):
    with pytest.raises(InputError, match=re.escape(words)):
        ours("deploy", *arguments, "--project", made)
    assert not commits.table(made)


def test_a_server_that_could_not_follow_is_exit_code_1(root, monkeypatch):
    told = [{"pid": 7, "ok": True, "detail": ""}, {"pid": 8, "ok": False, "detail": "easy: no memory\x1b[31m is left."}]
    monkeypatch.setattr(notice, "tell", lambda root: told)
    commits.pin(root, {"easy": commits.Pointer("easy", "v1", headstart.load(root / "models/easy/v1").card["digest"])})
    for arguments in (
        ["deploy", "easy"],
        ["rollback", "easy"],
        ["undeploy", "easy", "--json"],
        ["keys", "create", "a"],
    ):
        out, err = ours(*arguments, "--project", root, code=1)
        assert err.splitlines()[-1] == "headstart: server process 8: easy: no memory [31m is left."
        assert "process 8" not in out
    assert commits.table(root)["easy"].live is None  # what was committed stays so


def test_processes_of_a_server_that_stayed_behind_are_said(root, monkeypatch):
    from headstart import client

    said = {"name": "easy", "live": None, "challenger": None, "mode": None, "share": 0, "seq": 1, "counts": None}
    monkeypatch.setattr(
        client.Server, "ask", lambda *_, **__: {**said, "servers": [{"pid": 9, "ok": False, "detail": "no memory."}]}
    )
    _, err = ours("undeploy", "easy", "--server", "http://127.0.0.1:1", code=1)
    assert "process 9: no memory." in err
    monkeypatch.setattr(client.Server, "ask", lambda *_, **__: said)
    with pytest.raises(InputError, match="Is it a Headstart server"):
        api.undeploy("easy", server="http://127.0.0.1:1")


def test_what_is_sent_to_a_server(monkeypatch):
    from headstart import client

    sent = []
    monkeypatch.setattr(
        client.Server, "ask", lambda self, *asked, **_: sent.append(asked) or {"name": "n", "servers": []}
    )
    there = {"server": "http://127.0.0.1:1"}
    api.deploy("easy@3", name="n", canary=0.1, expected=4, **there)
    api.deploy("easy", shadow=True, **there)
    api.rollback("n", expected=2, **there)
    api.rollback("a b/c", **there)
    api.undeploy("n", expected=0, **there)
    assert sent == [
        ("POST", "/v1/deployments", {"model": "easy", "version": "v3", "as": "n", "canary": 0.1, "expected": 4}),
        ("POST", "/v1/deployments", {"model": "easy", "as": "easy", "shadow": True}),
        ("POST", "/v1/deployments/n/rollback", {"expected": 2}),
        ("POST", "/v1/deployments/a%20b%2Fc/rollback", {}),
        ("DELETE", "/v1/deployments/n?expected=0", None),
    ]


# -- keys --------------------------------------------------------------------------------------------------------------


def test_keys_are_made_listed_and_revoked(root):
    assert "headstart keys create" in ours("keys", "list", "--project", root)[0]
    wanted = ["--scopes", "predict", "--rate", "100", "--expires", "90d"]
    made = json.loads(ours("keys", "create", "nightly", *wanted, "--json", "--project", root)[0])
    secret = made["secret"]
    assert made["scopes"] == ["predict"]
    assert made["rate"] == 100
    assert 89.9 * 86_400 < made["expires"] - time.time() < 90.1 * 86_400
    out, err = ours("keys", "create", "web", "--project", root)
    assert out.startswith("hs_")
    assert "only time" in err
    assert "predict and read" in err
    table, _ = ours("keys", "list", "--project", root)
    assert re.search(r"nightly +predict +100/s", table)
    everything = table + ours("keys", "list", "--json", "--project", root)[0]
    assert secret not in everything
    assert out.strip() not in everything
    assert secret.encode() not in b"".join(p.read_bytes() for p in root.glob("headstart.db*"))
    assert apikeys.Keyring.of(root).check(secret).name == "nightly"
    assert "revoked nightly" in ours("keys", "revoke", made["id"], "--project", root)[0]
    assert apikeys.Keyring.of(root).check(secret) is None
    with pytest.raises(NotFound, match="web"):
        ours("keys", "revoke", "wep", "--project", root)


@pytest.mark.parametrize(
    "arguments",
    [["a", "--scopes", "all"], ["a", "--scopes", ","], ["a", "--rate", "0"], ["a", "--rate", "nan"], ["a", "--expires", "soon"],
     ["a", "--expires", "0d"], ["", "--scopes", "read"], ["a\x1bb"]],
)  # fmt: skip
def test_keys_that_cannot_be_made(root, arguments):
    with pytest.raises(InputError):
        ours("keys", "create", *arguments, "--project", root)
    assert apikeys.keys(root) == []


def test_a_key_for_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(NotFound):
        api.keys_create("a", project=tmp_path / "none")
    assert not (tmp_path / "none").exists()


# -- options -----------------------------------------------------------------------------------------------------------


def test_every_option_of_serve_arrives(monkeypatch, tmp_path):
    from headstart.server import running

    got = []
    monkeypatch.setattr(running, "run", lambda settings: got.append(settings) or 3)
    ours("serve", code=3)
    ours(
        "serve", "--project", tmp_path, "--host", "0.0.0.0", "--port", "9000", "--models", "a, b", "--workers", "4", "--max-wait",
        "2.5", "--deadline", "3", "--max-body", "1.5", "--max-inputs", "10", "--cache-mb", "8", "--log", "wait", "--log-inputs",
        "--log-format", "json", "--insecure", "--allow-host", "x.org", "--allow-host", "y.org", "--cors", "https://z.org",
        "--grpc-port", "9001", "--otel", "--grace", "7", code=3,
    )  # fmt: skip
    plain, full = got
    from headstart.server.settings import Settings

    assert plain == Settings(Path())  # the defaults are those of the settings
    assert full == Settings(
        tmp_path, host="0.0.0.0", port=9000, models=("a", "b"), workers=4, max_wait=0.0025, deadline=3.0, max_body=3 << 19,
        max_inputs=10, cache=8 << 20, log="wait", log_inputs=True, log_format="json", insecure=True, hosts=("x.org", "y.org"),
        cors=("https://z.org",), grpc_port=9001, otel=True, grace=7.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [["--max-body", "nan"], ["--max-body", "-1"], ["--cache-mb", "inf"], ["--project", "/none/such"], ["--log", "maybe"],
     ["--workers", "0"], ["--deadline", "nan"], ["--max-wait", "inf"], ["--host", "0.0.0.0"], ["--cors", "*"], ["--port", "99999"]],
)  # fmt: skip
def test_options_that_cannot_be(tmp_path, arguments):
    with pytest.raises(InputError):
        ours("serve", "--project", tmp_path, *arguments)


@pytest.mark.parametrize("missing", ["uvicorn", "fastapi", "orjson", "prometheus_client"])
def test_serving_without_its_extra_says_the_pip_line(missing, tmp_path):
    script = f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['headstart', 'serve', '--port', '0']; from headstart.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "pip install 'headstart[serve]'" in done.stderr
    assert "Traceback" not in done.stderr


@given(st.floats(0.0001, 100))
def test_shares_are_read_in_percent_or_as_numbers(percent):
    text = f"{percent:.4f}"
    assert _share(f"{text}%") == pytest.approx(float(text) / 100)
    assert _share(f"{float(text) / 100:.6f}") == pytest.approx(float(text) / 100, abs=1e-6)


@given(st.text(max_size=8))
def test_what_is_no_share_or_time_is_said(text):
    for read in (_share, _seconds):
        try:
            value = read(text)
        except InputError:
            continue
        assert value > 0


def test_times():
    assert [_seconds(text) for text in ("30m", "12h", "90d", "6w", "1y")] == [
        1800, 43_200, 7_776_000, 3_628_800, 31_536_000
    ]  # fmt: skip
