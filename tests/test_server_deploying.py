"""Deployments, models, feedback and health over HTTP."""

import os
import threading
import time

import pytest

import servedapp
from clientserver import TEXTS
from headstart import apikeys, deployments, notice, saved
from headstart.errors import ModelError
from headstart.server import readiness, telling

PREDICT = "/v1/models/{}/predict"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return servedapp.project(tmp_path_factory)


@pytest.fixture
def root(made, tmp_path):
    return servedapp.copied(made, tmp_path / "project")


@pytest.fixture
def client(root):
    with servedapp.client(root, log="on") as found:
        yield found


def version(client, name="topics"):
    found = client.post(PREDICT.format(name), json={"inputs": "fig"})
    return found.json().get("version", found.status_code)


def problem(response, status, *words):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    for word in words:
        assert word in response.json()["detail"], response.json()["detail"]


def test_a_version_is_deployed_rolled_back_and_undeployed(client, root):
    assert version(client) == "v2"
    found = client.post("/v1/deployments", json={"model": "topics", "version": "v1"})
    assert found.status_code == 201
    assert found.headers["location"] == "/v1/deployments/topics"
    state = found.json()
    assert state["live"]["version"] == "v1"
    assert (state["challenger"], state["mode"]) == (None, None)
    assert state["servers"] == [{"pid": os.getpid(), "ok": True, "detail": "", "serves": True}]
    assert state["seq"] == deployments.table(root)["topics"].seq
    assert version(client) == "v1"
    shown = client.get("/v1/deployments/topics").json()
    assert [commit["action"] for commit in shown.pop("history")] == ["found", "deploy"]
    assert shown == {k: v for k, v in state.items() if k != "servers"}
    back = client.post("/v1/deployments/topics/rollback")
    assert back.status_code == 200, back.text
    assert back.json()["live"]["version"] == version(client) == "v2"
    gone = client.delete("/v1/deployments/topics")
    assert gone.status_code == 200
    assert gone.json()["live"] is None
    assert version(client) == 404
    problem(client.get("/v1/deployments/topics"), 404, f"change {gone.json()['seq']}")
    [listed] = [one for one in client.get("/v1/deployments").json()["deployments"] if one["name"] == "topics"]
    assert (listed["live"], listed["seq"]) == (None, gone.json()["seq"])
    assert client.get("/v1/models/topics").status_code == 404
    assert client.post("/v1/deployments/topics/rollback").json()["live"]["version"] == version(client)


def test_another_name_a_canary_and_a_shadow(client):
    client.post("/v1/deployments", json={"model": "topics", "version": "v1", "as": "mail"})
    assert version(client, "mail") == "v1"
    state = client.post("/v1/deployments", json={"model": "topics", "as": "mail", "canary": 1.0}).json()
    assert (state["mode"], state["share"], state["live"]["version"], state["challenger"]["version"]) == (
        "canary",
        1.0,
        "v1",
        "v2",
    )
    assert version(client, "mail") == "v2"
    assert client.post("/v1/deployments/mail/rollback", json={}).json()["challenger"] is None
    state = client.post("/v1/deployments", json={"model": "topics", "as": "mail", "shadow": True}).json()
    assert state["mode"] == "shadow"
    assert version(client, "mail") == "v1"
    for _ in range(100):
        counts = client.get("/v1/deployments/mail").json()["counts"]
        if counts["compared"]:
            break
        time.sleep(0.02)
    assert counts == {"compared": 1, "agreed": 1, "skipped": 0}
    assert client.get("/v1/models/mail").json()["headstart"]["challenger"]["version"] == "v2"


def test_who_expects_another_state_gets_a_conflict(client):
    seq = client.post("/v1/deployments", json={"model": "topics", "version": "v1"}).json()["seq"]
    problem(client.post("/v1/deployments", json={"model": "topics", "expected": seq + 1}), 409)
    problem(client.post("/v1/deployments/topics/rollback", json={"expected": seq + 1}), 409)
    problem(client.delete(f"/v1/deployments/topics?expected={seq + 1}"), 409)
    assert version(client) == "v1"
    assert client.post("/v1/deployments", json={"model": "topics", "expected": seq}).status_code == 201
    assert version(client) == "v2"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, "'model' is missing"),
        ({"model": "topic"}, 404, "topics"),
        ({"model": "topics", "version": "v9"}, 404, "v9"),
        ({"model": "topics", "version": "../v1"}, 422, "'version'"),
        ({"model": "../topics"}, 422, "'model'"),
        ({"model": "topics", "as": "a/b"}, 422, "'as'"),
        ({"model": "topics", "as": "con"}, 422, "con"),
        ({"model": "topics", "canary": 1.5}, 422, "'canary'"),
        ({"model": "topics", "canary": 0.5, "shadow": True}, 422, "not both"),
        ({"model": "topics", "shaddow": True}, 422, "Did you mean 'shadow'"),
        ({"model": "topics", "expected": -1}, 422, "'expected'"),
    ],
)
def test_what_cannot_be_deployed(client, body, status, words):
    problem(client.post("/v1/deployments", json=body), status, words)
    assert version(client) == "v2"


def test_g3_a_damaged_version_leaves_the_old_one_serving(client, root):
    weights = root / "models" / "topics" / "v1" / saved.ARRAYS
    data = bytearray(weights.read_bytes())
    data[-20:] = b"\xff" * 20
    weights.write_bytes(data)
    before = deployments.seq(root)
    problem(client.post("/v1/deployments", json={"model": "topics", "version": "v1"}), 422)
    assert version(client) == "v2"
    assert deployments.seq(root) == before
    assert client.get("/health/ready").status_code == 200


def test_c12_names_in_paths_are_looked_up(client):
    for name in ("%2e%2e%2ftopics", "topics%00", "a" * 3000, "topic"):
        assert client.get(f"/v1/deployments/{name}").status_code == 404
        assert client.delete(f"/v1/deployments/{name}").status_code == 404
        assert client.post(f"/v1/deployments/{name}/rollback").status_code == 404
    problem(client.get("/v1/deployments/topic"), 404, "topics")
    problem(client.delete("/v1/deployments/topics?expected=x"), 422, "'expected'")
    problem(client.delete("/v1/deployments/topics?expected=" + "9" * 5000), 422, "'expected'")


def test_other_processes_are_told_and_those_that_fail_are_named(client, monkeypatch):
    told = []

    def tell(root, *, but=None, timeout=60):
        told.append(but)
        return [
            {"pid": 7, "ok": False, "detail": "its disk is full"},
            {"pid": 8, "ok": True, "detail": "", "only": ["tags"]},
        ]

    monkeypatch.setattr(notice, "tell", tell)
    state = client.post("/v1/deployments", json={"model": "topics", "version": "v1"}).json()
    assert [(one["pid"], one["ok"], one["serves"]) for one in state["servers"]] == [
        (os.getpid(), True, True), (7, False, True), (8, True, False)
    ]  # fmt: skip
    assert state["servers"][1]["detail"] == "its disk is full"
    assert "--models" in state["servers"][2]["detail"]
    assert told == [os.getpid()]


def test_the_last_changes_are_shown(client, monkeypatch):
    monkeypatch.setattr("headstart.server.deploying.HISTORY", 3)
    for version in ("v1", "v2", "v1", "v2"):
        client.post("/v1/deployments", json={"model": "topics", "version": version})
    found = client.get("/v1/deployments/topics").json()
    assert [commit["live"]["version"] for commit in found["history"]] == ["v2", "v1", "v2"]
    assert found["history"][-1]["seq"] == found["seq"]


def test_it_is_said_of_how_many_processes_the_counts_are_one(client, monkeypatch):
    assert client.get("/v1/deployments/topics").json()["processes"] == 1
    monkeypatch.setattr(notice, "running", lambda root, *, but=None: 3)
    assert client.get("/v1/deployments/topics").json()["processes"] == 4


def test_a_challenger_of_another_kind_is_refused_and_other_labels_are_said(client):
    before = client.get("/v1/deployments/topics").json()["seq"]
    problem(client.post("/v1/deployments", json={"model": "tags", "as": "topics", "shadow": True}), 422, "multilabel")
    assert client.get("/v1/deployments/topics").json()["seq"] == before
    same = client.post("/v1/deployments", json={"model": "topics", "version": "v1", "shadow": True}).json()
    assert same["note"] is None


def test_going_back_to_what_is_damaged_changes_nothing(client, root):
    client.post("/v1/deployments", json={"model": "topics", "version": "v1"})
    client.post("/v1/deployments", json={"model": "topics", "version": "v2"})
    time.sleep(0.2)  # v1 is let go
    (root / "models" / "topics" / "v1" / saved.ARRAYS).write_bytes(b"gone")
    before = deployments.seq(root)
    problem(client.post("/v1/deployments/topics/rollback"), 422, saved.ARRAYS)
    assert (deployments.seq(root), version(client)) == (before, "v2")


def test_changes_go_one_at_a_time_and_requests_go_on(client):
    wrong, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            found = client.post(PREDICT.format("topics"), json={"inputs": TEXTS})
            if found.status_code != 200 or found.json()["version"] not in ("v1", "v2"):
                wrong.append(found.text)

    def change(which):
        for _ in range(5):
            found = client.post("/v1/deployments", json={"model": "topics", "version": which})
            if found.status_code != 201:
                wrong.append(found.text)

    asking = [threading.Thread(target=ask) for _ in range(2)]
    changing = [threading.Thread(target=change, args=(which,)) for which in ("v1", "v2")]
    for thread in asking + changing:
        thread.start()
    for thread in changing:
        thread.join()
    stop.set()
    for thread in asking:
        thread.join()
    assert not wrong
    assert client.get("/v1/deployments/topics").json()["seq"] >= 10


def test_too_many_changes_at_once_are_refused(client, monkeypatch):
    monkeypatch.setattr("headstart.server.deploying.WAITING", 0)
    found = client.post("/v1/deployments", json={"model": "topics", "version": "v1"})
    problem(found, 429)
    assert "retry-after" in found.headers


# -- models ------------------------------------------------------------------------------------------------------------


def test_models_in_the_form_of_openai(client, monkeypatch):
    found = client.get("/v1/models").json()
    assert found["object"] == "list"
    assert [one["id"] for one in found["data"]] == ["colours", "size", "tags", "topics"]
    topics = found["data"][3]
    assert topics == client.get("/v1/models/topics").json()
    assert topics["object"] == "model"
    assert topics["created"] > 1_600_000_000
    assert topics["headstart"]["labels"] == ["bird", "fruit", "metal"]
    assert (topics["headstart"]["version"], topics["headstart"]["backbone"]) == ("v2", "fake")
    monkeypatch.setattr(telling, "LABELS", 2)
    short = client.get("/v1/models").json()["data"][3]["headstart"]
    assert (short["labels"], short["classes"]) == (["bird", "fruit"], 3)
    assert len(client.get("/v1/models/topics").json()["headstart"]["labels"]) == 3


def test_only_some_models_are_served(root):
    with servedapp.client(root, models=("topics",)) as client:
        assert [one["id"] for one in client.get("/v1/models").json()["data"]] == ["topics"]
        assert [one["name"] for one in client.get("/v1/deployments").json()["deployments"]] == ["topics"]
        problem(client.post(PREDICT.format("tags"), json={"inputs": "fig"}), 404)
        problem(client.post("/v1/deployments", json={"model": "tags"}), 422, "topics")
        deployments.pin(root, {"tags": deployments.table(root)["topics"].live})
        problem(client.post("/v1/deployments/tags/rollback"), 422, "topics")
        problem(client.delete("/v1/deployments/tags"), 422, "topics")
        assert deployments.table(root)["tags"].live


# -- feedback ----------------------------------------------------------------------------------------------------------


def test_c23_feedback_is_kept_once_and_replaced_only_when_said(client):
    [said] = client.post(PREDICT.format("topics"), json={"inputs": "fig"}).json()["predictions"]
    kept = client.get(f"/v1/predictions/{said['id']}").json()
    assert (kept["id"], kept["name"], kept["version"], kept["label"]) == (said["id"], "topics", "v2", said["label"])
    assert (kept["feedback"], kept["input"]) == (None, None)
    first = client.post("/v1/feedback", json={"id": said["id"], "label": "bird"})
    assert first.status_code == 200
    assert client.post("/v1/feedback", json={"id": said["id"], "label": "bird"}).json() == first.json()
    problem(client.post("/v1/feedback", json={"id": said["id"], "label": "fruit"}), 409, "'bird'")
    again = client.post("/v1/feedback", json={"id": said["id"], "label": "fruit", "replace": True})
    assert again.json()["label"] == "fruit"
    assert client.get(f"/v1/predictions/{said['id']}").json()["feedback"]["label"] == "fruit"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"id": "nothing", "label": "a"}, 404),
        ({"id": "nothing"}, 422),
        ({"label": "a"}, 422),
        ({"id": 3, "label": "a"}, 422),
        ({"id": "nothing", "label": None}, 422),
        ({"id": "nothing", "label": {"a": 1}}, 422),
        ({"id": "nothing", "label": True}, 422),
        ({"id": "nothing", "label": [1]}, 422),
        ({"id": "n" * 201, "label": "a"}, 422),
    ],
)
def test_feedback_that_cannot_be_taken(client, body, status):
    problem(client.post("/v1/feedback", json=body), status)


def test_without_a_log_there_is_no_feedback(root):
    with servedapp.client(root) as client:
        problem(client.post("/v1/feedback", json={"id": "a", "label": "b"}), 409, "--log")
        problem(client.get("/v1/predictions/a"), 409, "--log")


def test_the_key_that_asked_is_kept(root):
    key, secret = apikeys.create(root, "me", {"predict", "read"})
    with servedapp.client(root, gate=True, log="wait", log_inputs=True) as client:
        problem(client.post(PREDICT.format("topics"), json={"inputs": "fig"}), 401)
        client.headers["Authorization"] = f"Bearer {secret}"
        [said] = client.post(PREDICT.format("topics"), json={"inputs": "fig"}).json()["predictions"]
        kept = client.get(f"/v1/predictions/{said['id']}").json()
        assert (kept["by"], kept["input"]) == (key.id, "fig")
        assert client.post("/v1/feedback", json={"id": said["id"], "label": "bird"}).json()["by"] == key.id
        problem(client.delete("/v1/deployments/topics"), 403)


# -- health ------------------------------------------------------------------------------------------------------------


def test_ready_is_a_prediction_tried_once_a_second(client, monkeypatch):
    tried = []
    monkeypatch.setattr(client.service.engine, "ready", lambda: tried.append(1))
    assert client.get("/health/live").json() == {"status": "live"}
    assert [client.get("/health/ready").json() for _ in range(3)] == [{"status": "ready"}] * 3
    assert tried == [1]


def test_not_ready(client, monkeypatch):
    def ready():
        raise ModelError("topics answers otherwise.")

    monkeypatch.setattr(client.service.engine, "ready", ready)
    found = client.get("/health/ready")
    problem(found, 503, "topics answers otherwise")
    assert "retry-after" in found.headers


def test_a_trial_that_hangs_is_not_tried_again_beside_itself(client, monkeypatch):
    hold, tried = threading.Event(), []

    def ready():
        tried.append(1)
        hold.wait(20)

    monkeypatch.setattr(client.service.engine, "ready", ready)
    monkeypatch.setattr(readiness, "TRIAL", 0.05)
    monkeypatch.setattr(readiness, "FRESH", 0.0)
    for _ in range(3):
        problem(client.get("/health/ready"), 503, "more than")
    assert tried == [1]
    hold.set()


def test_metrics_count_what_was_said(client):
    client.post(PREDICT.format("topics"), json={"inputs": TEXTS})
    found = client.get("/metrics")
    assert found.headers["content-type"].startswith("text/plain")
    assert f'headstart_predictions_total{{arm="live",model="topics",version="v2"}} {len(TEXTS)}.0' in found.text
