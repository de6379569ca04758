"""What a server counts, read back as Prometheus reads it."""

import json
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from headstart.answers import Answers
from headstart.server.metrics import MOST, Metrics
from headstart.serving.asked import Reply, Said


def said(name="tickets", version="v1", P=((0.1, 0.9),), unknown=(False,), arm="live", task="classification"):
    P = np.array(P, np.float32)
    served = SimpleNamespace(version=version, task=task)
    return Said(name, served, arm, Answers(P, np.zeros(P.shape, bool), np.array(unknown)), "id")


def deployed(live="v1", challenger=None, mode="shadow", **counts):
    """A row of an engine's table."""
    versions = {name: v and SimpleNamespace(version=v) for name, v in (("live", live), ("challenger", challenger))}
    return SimpleNamespace(
        **versions,
        mode=challenger and mode,
        counts=SimpleNamespace(**{"compared": 0, "agreed": 0, "skipped": 0, **counts}),
    )


class Engine:
    def __init__(self, table, **stats):
        self.table, self._stats = table, stats

    def stats(self):
        return self._stats


def read(metrics) -> dict:
    """(sample name, labels as a sorted tuple) -> value, of what is ours."""
    return {
        (sample.name.removeprefix("headstart_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
        if sample.name.startswith("headstart_")
    }


def at(found, name, **labels):
    return found[name, tuple(sorted(labels.items()))]


def test_requests_are_counted_and_timed():
    metrics = Metrics()
    for seconds in (0.001, 0.003, 4.0):
        metrics.seen("predict", 200, seconds)
    metrics.seen("predict", 429, 0.0001)
    found = read(metrics)
    assert at(found, "requests_total", group="predict", status="200") == 3
    assert at(found, "requests_total", group="predict", status="429") == 1
    assert at(found, "request_seconds_count", group="predict") == 4
    assert at(found, "request_seconds_bucket", group="predict", le="0.005") == 3
    assert at(found, "request_seconds_sum", group="predict") == pytest.approx(4.0041)


def test_runs_and_stages():
    metrics = Metrics()
    metrics.ran("lane", 8, 96, 0.012)
    metrics.ran("another", 1, 12, 0.002)
    metrics.replied(Reply((said(),), {"encode": 0.02, "answer": 0.0001}, 0))
    found = read(metrics)
    assert at(found, "run_rows_sum") == 9
    assert at(found, "run_rows_bucket", le="4.0") == 1
    assert at(found, "run_units_sum") == 108
    assert at(found, "run_seconds_count") == 2
    assert at(found, "stage_seconds_sum", stage="encode") == pytest.approx(0.02)
    assert at(found, "stage_seconds_count", stage="answer") == 1


def test_predictions_by_model_version_and_arm():
    metrics = Metrics()
    rows = [[0.04, 0.96], [0.45, 0.55], [0.5, 0.5], [1.0, 0.0]]
    metrics.replied(Reply((said(P=rows, unknown=[True, False, True, False]),)))
    metrics.replied(Reply((said(P=[[0.05, 0.95]]), said(version="v2", arm="canary", P=[[0.31, 0.29]], unknown=[True]))))
    metrics.replied(
        Reply((said("price", P=[[1234.5]], task="regression"), said("none", P=np.zeros((0, 2)), unknown=[])))
    )
    found = read(metrics)
    assert at(found, "predictions_total", model="tickets", version="v1", arm="live") == 5
    assert at(found, "predictions_total", model="tickets", version="v2", arm="canary") == 1
    assert at(found, "unknown_total", model="tickets", version="v1") == 2
    assert at(found, "unknown_total", model="tickets", version="v2") == 1
    tenths = [at(found, "confidence_total", model="tickets", version="v1", tenth=f"{k / 10:.1f}") for k in range(10)]
    assert tenths == [0, 0, 0, 0, 0, 2, 0, 0, 0, 3]
    assert at(found, "confidence_total", model="tickets", version="v2", tenth="0.3") == 1
    assert at(found, "predictions_total", model="price", version="v1", arm="live") == 1
    assert at(found, "confidence_total", model="price", version="v1", tenth="0.9") == 0
    assert not [key for key in found if ("model", "none") in key[1]]


def test_one_input_and_many_fall_into_the_same_tenths():
    P = np.random.default_rng(0).dirichlet([1, 1], 300).astype(np.float32)
    P = np.concatenate([P, [[1.0, 0.0], [0.0, 0.0], [0.9, 0.1], [0.7, 0.3], [0.3, 0.2]]]).astype(np.float32)
    alone, together = Metrics(), Metrics()
    for row in P:
        alone.replied(Reply((said(P=[row]),)))
    together.replied(Reply((said(P=P, unknown=np.zeros(len(P), bool)),)))
    confidences = [{k: v for k, v in read(m).items() if k[0] == "confidence_total"} for m in (alone, together)]
    assert confidences[0] == confidences[1]
    assert sum(confidences[0].values()) == len(P)


def test_what_is_pulled_from_the_engine():
    table = {"tickets": deployed("v1", "v2", compared=40, agreed=39, skipped=2), "waste": deployed()}
    table["fruit"] = deployed("v1", "v2", mode="canary")
    engine = Engine(table, waiting=7, waiting_seconds=0.25, log_shed=3, hits=5, misses=8, name="no number")
    metrics = Metrics()
    metrics.watch(engine)
    found = read(metrics)
    assert at(found, "engine_waiting") == 7
    assert at(found, "engine_waiting_seconds") == 0.25
    assert at(found, "engine_log_shed_total") == 3
    assert (at(found, "engine_recent_hits_total"), at(found, "engine_recent_misses_total")) == (5, 8)
    assert at(found, "shadow_agreed_total", model="tickets", version="v2") == 39
    assert at(found, "shadow_skipped_total", model="tickets", version="v2") == 2
    assert not [key for key in found if key[0].startswith("shadow") and ("model", "tickets") not in key[1]]
    assert not [key for key in found if key[0] == "engine_name"]
    engine._stats["hits"] = 9
    table["tickets"] = deployed("v1", "v2", compared=7, agreed=6)  # another start of the same version: counted on
    found = read(metrics)
    assert at(found, "engine_recent_hits_total") == 9
    assert at(found, "shadow_compared_total", model="tickets", version="v2") == 47
    kinds = dict(line.split()[2:4] for line in metrics.text().decode().splitlines() if line.startswith("# TYPE"))
    assert kinds["headstart_engine_waiting"] == "gauge"
    assert {kind for name, kind in kinds.items() if name.endswith("_total")} == {"counter"}


def test_versions_that_are_gone_are_forgotten():
    """10,000 replacements of a model leave no trace (fault H7, G2)."""
    engine = Engine({"tickets": deployed("v1", "v2")})
    metrics = Metrics()
    metrics.watch(engine)
    metrics.replied(Reply((said(), said(version="v2", arm="canary"))))
    assert at(read(metrics), "predictions_total", model="tickets", version="v2", arm="canary") == 1
    for k in range(2, 30):
        engine.table = {"tickets": deployed(f"v{k}")}
        metrics.replied(Reply((said(version=f"v{k}"),)))
        metrics.text()
    found = read(metrics)
    assert {dict(key[1]).get("version") for key in found if "version" in dict(key[1])} == {"v29"}
    assert at(found, "predictions_total", model="tickets", version="v29", arm="live") == 1
    assert not [key for key in found if key[0].startswith("shadow")]


def test_a_version_that_went_from_canary_to_live_keeps_its_counts():
    engine = Engine({"tickets": deployed("v1", "v2")})
    metrics = Metrics()
    metrics.watch(engine)
    metrics.replied(Reply((said(version="v2", arm="canary", unknown=[True]),)))
    engine.table = {"tickets": deployed("v2")}
    metrics.replied(Reply((said(version="v2", unknown=[True]),)))
    found = read(metrics)
    assert at(found, "unknown_total", model="tickets", version="v2") == 2
    assert at(found, "confidence_total", model="tickets", version="v2", tenth="0.9") == 2


def test_labels_are_bounded():
    """Whatever a client makes us name, the series stay few (fault H7)."""
    metrics = Metrics()
    for k in range(10_000):
        metrics.seen(f"/v1/models/{k}", 404 + k % 3, 0.001)
        metrics.refused(f"reason {k}")
        metrics.stage(f"stage {k}", 0.001)
    found = read(metrics)
    for name, label in (("requests_total", "group"), ("refused_total", "reason"), ("stage_seconds_count", "stage")):
        values = {dict(labels)[label] for key, labels in found if key == name}
        assert len(values) <= MOST + 1, name
        assert "other" in values
    assert sum(value for (name, _), value in found.items() if name == "requests_total") == 10_000
    metrics.seen("predict", 10**9, 0.001)
    assert any(dict(labels).get("status") == "0" for name, labels in read(metrics) if name == "requests_total")


def test_counting_from_many_threads_loses_nothing():
    metrics = Metrics()
    metrics.watch(Engine({"tickets": deployed()}))

    def work():
        for _ in range(200):
            metrics.seen("predict", 200, 0.001)
            metrics.replied(Reply((said(),), {"encode": 0.001}))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        metrics.text()
    for thread in threads:
        thread.join()
    found = read(metrics)
    assert at(found, "requests_total", group="predict", status="200") == 800
    assert at(found, "predictions_total", model="tickets", version="v1", arm="live") == 800


WORKER = """
import sys, json
from headstart.server.metrics import Metrics
class Engine:
    table = {}
    def stats(self): return {"waiting": 2}
metrics = Metrics()
metrics.seen("predict", 200, 0.001)
metrics.watch(Engine())
text = metrics.text().decode()
print(json.dumps([line for line in text.splitlines() if not line.startswith("#") and "bucket" not in line]), flush=True)
sys.stdin.readline()
"""


def test_any_worker_answers_for_all(tmp_path):
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    workers = []
    try:
        for _ in range(2):
            one = subprocess.Popen(
                [sys.executable, "-c", WORKER], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            workers.append(one)
            said = one.stdout.readline()
        lines = dict(line.rsplit(" ", 1) for line in json.loads(said))
        assert float(lines['headstart_requests_total{group="predict",status="200"}']) == 2
        assert float(lines["headstart_engine_waiting"]) == 4
    finally:
        for one in workers:
            one.communicate("\n", timeout=10)
    gone = f"from headstart.server.metrics import ended; ended({workers[0].pid})"
    subprocess.run([sys.executable, "-c", gone], env=env, check=True, timeout=30)
    assert not list(tmp_path.glob(f"gauge_live*{workers[0].pid}.db"))
    assert list(tmp_path.glob(f"gauge_live*{workers[1].pid}.db"))
