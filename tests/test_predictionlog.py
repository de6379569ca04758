"""The prediction log: nothing acknowledged is lost, nothing waits, everything is bounded. F1, F3, F7, G11, C23, P1."""

import logging
import math
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import hypothesis.strategies as st
import pytest
from hypothesis import given

from headstart import database, predictionlog
from headstart.errors import Conflict, InputError, ModelError, NotFound, StorageError
from headstart.predictionlog import PredictionLog, Row, checked_label, rows


def row(id, name="tickets", **other):
    given_ = {"label": '"refund"', "probability": 0.75, "unknown": False, "feature": "0123456789abcdef:00ff"}
    return Row(id, 1000.5, name, "tickets", "v1", "d" * 64, "live", **{**given_, **other})


@pytest.fixture
def log(tmp_path):
    log = PredictionLog(tmp_path)
    yield log
    log.close()


class Waiting:
    """A `done` that can be waited for."""

    def __init__(self):
        self.said, self._called = [], threading.Event()

    def __call__(self, fault):
        self.said.append(fault)
        self._called.set()

    def wait(self):
        assert self._called.wait(20)
        [fault] = self.said
        return fault


class Disk(sqlite3.Connection):
    """A connection to a disk that is full while `full`."""

    full = False
    commits = 0

    def executemany(self, *given):
        Disk.commits += 1
        if Disk.full:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return super().executemany(*given)


@pytest.fixture
def disk(monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=Disk))
    monkeypatch.setattr(predictionlog, "RETRY", 0.01)
    yield Disk
    Disk.full = False


def test_what_was_answered_is_found(tmp_path, log):
    assert log.put(
        [row("a.0", input="where is my money", by="key"), row("a.1", label=None, probability=None, unknown=True)]
    )
    assert log.find("a.0") == {
        "id": "a.0",
        "at": 1000.5,
        "name": "tickets",
        "model": "tickets",
        "version": "v1",
        "digest": "d" * 64,
        "arm": "live",
        "label": "refund",
        "probability": 0.75,
        "unknown": False,
        "feature": "0123456789abcdef:00ff",
        "input": "where is my money",
        "by": "key",
        "feedback": None,
    }
    other = log.find("a.1")
    assert other["label"] is None
    assert other["probability"] is None
    assert other["unknown"] is True
    assert log.find("a.2") is None
    assert (log.waiting, log.written, log.shed, log.failures, log.failed) == (0, 2, 0, 0, None)


def test_done_comes_after_the_commit(tmp_path, log):
    seen = []

    def done(fault):
        with closing(sqlite3.connect(database.file(tmp_path))) as connection:
            seen.append((fault, connection.execute("SELECT count(*) FROM predictions").fetchone()[0]))

    log.put([row("a"), row("b")], done)
    log.flush()
    assert seen == [(None, 2)]


def test_rows_are_committed_together(tmp_path, disk):
    log, disk.commits = PredictionLog(tmp_path), 0
    with closing(database.open(tmp_path)) as other, database.transaction(other):
        log.put([row("first")], first := Waiting())
        waiting = [Waiting() for _ in range(200)]
        for i, done in enumerate(waiting):
            log.put([row(f"{i}")], done)
    assert first.wait() is None
    assert [done.wait() for done in waiting] == [None] * 200
    with closing(database.open(tmp_path)) as connection:
        assert connection.execute("SELECT count(*) FROM predictions").fetchone() == (201,)
    assert disk.commits <= 3
    log.close()


def test_who_waits_need_not_wait_for_company(tmp_path, log, monkeypatch):
    monkeypatch.setattr(predictionlog, "PAUSE", 30)
    monkeypatch.setattr(predictionlog, "GROUP", 10)
    done = Waiting()
    log.put([row("first")])
    time.sleep(0.05)  # the writing thread waits for company now
    log.put([row("second")], done)
    assert done.wait() is None
    log.put([row("third")])
    time.sleep(0.05)
    assert log.find("third")
    log.put([row("fourth")])
    time.sleep(0.05)
    for i in range(9):
        log.put([row(f"{i}")])
    end = time.monotonic() + 20
    while log.waiting and time.monotonic() < end:
        time.sleep(0.001)
    assert log.waiting == 0


def test_an_error_of_any_kind_does_not_end_the_log(tmp_path, log, monkeypatch):
    monkeypatch.setattr(predictionlog, "RETRY", 0.01)
    with monkeypatch.context() as broken:
        broken.setattr(log, "_prune", lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            log.flush()
        assert "division" in log.failed
    log.put([row("a")])
    assert log.find("a")
    assert log.failed is None


def test_nothing_waits_for_the_disk_and_what_waits_is_bounded(tmp_path):  # G11
    log = PredictionLog(tmp_path, room=5000)
    with closing(database.open(tmp_path)) as other, database.transaction(other):  # the disk takes nothing
        taken = sum(log.put([row(f"{i}.{j}") for j in range(10)]) for i in range(600))
    assert taken == 500
    assert log.shed == 1000
    assert not log.put([row(f"many.{i}") for i in range(5001)])
    log.flush()
    assert log.put([row("again")])
    log.close()
    assert (log.written, log.waiting, log.shed) == (5001, 0, 6001)
    assert len(rows(tmp_path, limit=9999)) == 5001
    assert not log.put([row("late")])  # closed


def test_a_disk_that_refuses(tmp_path, disk):  # F3, F7
    log = PredictionLog(tmp_path)
    disk.full = True
    log.put([row("kept.0")])
    log.put([row("kept.1")])
    done = Waiting()
    assert log.put([row("told")], done)
    fault = done.wait()
    assert isinstance(fault, StorageError)
    assert "headstart.db: could not be read or written: " in str(fault)
    with pytest.raises(StorageError, match="full"):
        log.flush()
    assert "full" in log.failed
    assert log.failures >= 1
    assert log.waiting == 2
    disk.full = False
    log.flush()
    assert log.failed is None
    assert log.waiting == 0
    assert [r["id"] for r in rows(tmp_path, limit=9)] == [
        "kept.1",
        "kept.0",
    ]  # what was refused to its caller is not there
    log.close()


def test_closing_on_a_full_disk_says_what_is_lost(tmp_path, disk):
    log = PredictionLog(tmp_path)
    disk.full = True
    log.put([row("a"), row("b")])
    with pytest.raises(StorageError, match=r"2 predictions were not written.*full"):
        log.close()


def test_everybody_who_waits_is_told_at_the_end(tmp_path, disk, monkeypatch):
    monkeypatch.setattr(predictionlog, "RETRY", 60)
    monkeypatch.setattr(predictionlog, "PAUSE", 10)
    log = PredictionLog(tmp_path)
    disk.full = True
    first, second = Waiting(), Waiting()
    with closing(database.open(tmp_path)) as other, database.transaction(other):
        for i in range(3):
            log.put([row(f"kept.{i}")])
        log.put([row("a")], first)
    assert isinstance(first.wait(), StorageError)
    assert log.failures <= 1
    assert [rows_[0].id for rows_, _ in log._puts] == ["kept.0", "kept.1", "kept.2"]  # in their order
    log.put([row("b")], second)
    with pytest.raises(StorageError, match="4 predictions"):
        log.close()
    assert isinstance(second.wait(), StorageError)


def test_a_row_that_cannot_be_stored_spoils_no_other(tmp_path, log, caplog):
    with closing(database.open(tmp_path)) as other, database.transaction(other):
        log.put([row("good.0")], good := Waiting())
        log.put([row("bad.0", input="\ud800")], bad := Waiting())
        log.put([row("bad.1", probability=object())])
        log.put([row("bad.2", by=10**30)])
        log.put([row("good.1")], better := Waiting())
    log.flush()
    assert good.wait() is None
    assert better.wait() is None
    assert isinstance(bad.wait(), InputError)
    assert {r["id"] for r in rows(tmp_path, limit=9)} == {"good.0", "good.1"}
    assert (log.written, log.shed, log.failed) == (2, 3, None)
    assert caplog.text.count("cannot be stored") == 3


def test_the_same_id_is_written_once(tmp_path, log):
    log.put([row("a")])
    log.put([row("a", name="other"), row("b")])
    log.flush()
    assert [r["name"] for r in rows(tmp_path, limit=9)] == ["tickets", "tickets"]


def test_a_caller_that_fails_does_not_end_the_log(tmp_path, log, caplog):
    def done(fault):
        raise RuntimeError("the loop is closed")

    with caplog.at_level(logging.ERROR):
        log.put([row("a")], done)
        log.flush()
    assert "the loop is closed" in caplog.text
    log.put([row("b")])
    assert log.find("b")


def test_feedback(tmp_path, log):  # C23
    log.put([row("a"), row("b", label="2.5"), row("c", label='["b"]')])
    said = log.feedback("a", "billing", by="anna")
    assert (said["id"], said["label"], said["by"]) == ("a", "billing", "anna")
    assert said["at"] <= time.time()
    assert log.feedback("a", "billing", by="otto") == said  # the same again: the same answer
    with pytest.raises(Conflict, match="'a' has the label 'billing' already, not 'refund'"):
        log.feedback("a", "refund")
    assert log.find("a")["feedback"] == said
    changed = log.feedback("a", "refund", replace=True)
    assert log.find("a")["feedback"] == changed
    several = log.feedback("c", ["refund", "b", "refund"])
    assert several["label"] == ["b", "refund"]
    assert log.feedback("c", ["b", "refund"]) == several
    for id, label in (("a", 3), ("a", ["refund"]), ("b", "refund"), ("c", "b")):
        with pytest.raises(InputError, match=f"prediction '{id}' is a"):
            log.feedback(id, label)
    with closing(database.open(tmp_path)) as connection:  # who said what stays to be seen
        assert connection.execute("SELECT label FROM feedback").fetchall() == [
            ('"billing"',), ('"refund"',), ('["b","refund"]',)
        ]  # fmt: skip
    assert log.feedback("b", 1)["label"] == 1
    assert log.feedback("b", 1.0)["label"] == 1
    with pytest.raises(NotFound, match="no prediction 'zz' is kept here"):
        log.feedback("zz", "x")


def test_feedback_to_what_another_process_has_just_answered(tmp_path, log, monkeypatch):
    monkeypatch.setattr(predictionlog, "PAUSE", 0.1)
    other = PredictionLog(tmp_path)
    other.put([row("a")])  # in the memory of the other
    assert log.feedback("a", "x")["label"] == "x"
    other.close()


def test_two_say_different_things_at_once(tmp_path, log):
    log.put([row("a")])
    log.flush()
    said = []

    def say(label):
        try:
            said.append(log.feedback("a", label)["label"])
        except Conflict:
            said.append(None)

    threads = [threading.Thread(target=say, args=[f"label {i}"]) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 4
    assert said.count(None) == 3
    assert log.find("a")["feedback"]["label"] in said


BAD_LABELS = [None, True, {}, {"a": 1}, [1], ["a", None], "", "x" * 1001, ["x" * 1001], ["a"] * 1001, [""], [["a"]]]
BAD_LABELS += [math.nan, math.inf, -math.inf, 10**400, "\ud800", ["\udfff"], b"x", ("a",)]


@pytest.mark.parametrize("label", BAD_LABELS)
def test_what_is_no_label(log, label):
    log.put([row("a")])
    with pytest.raises(InputError, match="a label"):
        log.feedback("a", label)


@given(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=1000),
        st.floats(allow_nan=False, allow_infinity=False),
        st.integers(-(2**80), 2**80),
        st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9), max_size=9),
    )
)
def test_a_label_comes_back_as_it_was_said(label):
    kept = predictionlog.jsontext.parse(predictionlog.jsontext.write(checked_label(label)))
    assert kept == (sorted(set(label)) if isinstance(label, list) else label)


def test_the_oldest_go_but_not_those_with_feedback(tmp_path):
    log = PredictionLog(tmp_path, keep=100)
    log.put([row(f"{i}") for i in range(50)])
    for i in (3, 7):
        log.feedback(f"{i}", "right")
    for turn in range(1, 10):
        log.put([row(f"{turn}.{i}") for i in range(50)])
        log.flush()
    kept = [r["id"] for r in rows(tmp_path, limit=9999)]
    assert kept == [f"{turn}.{i}" for turn in (9, 8) for i in reversed(range(50))] + ["7", "3"]
    assert log.find("3")["feedback"]["label"] == "right"
    with pytest.raises(NotFound):
        log.feedback("4", "late")
    log.close()


def test_pruning_goes_in_small_steps_past_what_is_kept(tmp_path, monkeypatch):
    log = PredictionLog(tmp_path)
    log.put([row(f"{i}") for i in range(300)])
    for i in range(0, 60, 2):
        log.feedback(f"{i}", "right")
    log.close()
    monkeypatch.setattr(predictionlog, "PRUNED", 40)
    log = PredictionLog(tmp_path, keep=10)
    left = []
    for turn in range(12):
        log.put([row(f"n{turn}")])
        log.flush()
        left.append(len(rows(tmp_path, limit=9999)))
    assert left[:3] == [301 - 20, 282 - 30, 253 - 40]  # 40 looked at each time, with feedback or not
    assert left[-1] == 10 + 30
    log.close()


def test_reading_rows(tmp_path, log):
    log.put([row(f"{i}", name="a" if i % 2 else "b") for i in range(10)])
    log.feedback("9", "x")
    found = rows(tmp_path, limit=3)
    assert [r["id"] for r in found] == ["9", "8", "7"]
    assert found[0]["feedback"]["label"] == "x"
    assert found[1]["feedback"] is None
    assert [r["id"] for r in rows(tmp_path, limit=2, name="b")] == ["8", "6"]
    assert rows(tmp_path, limit=2, name="c") == []


def test_a_damaged_database_is_refused_at_once(tmp_path):
    database.file(tmp_path).write_bytes(b"damaged" * 1000)
    with pytest.raises(ModelError, match=r"headstart\.db"):
        PredictionLog(tmp_path)


def test_closing_writes_what_waits(tmp_path):
    log = PredictionLog(tmp_path)
    log.put([row("a")])
    log.close()
    assert [r["id"] for r in rows(tmp_path, limit=9)] == ["a"]


KEPT = 500
CHILD = """
import sys, threading
from pathlib import Path
from headstart.predictionlog import PredictionLog, Row

turn = sys.argv[2]
log = PredictionLog(Path(sys.argv[1]), keep=int(sys.argv[3]))
n = 0
while True:
    n += 1
    ids = [f"{turn}.{n}.{i}" for i in range(3)]
    rows = [Row(id, 0.0, "a", "a", "v1", "d", "live", '"x"', 0.5, False, "f") for id in ids]
    def done(fault, ids=ids):
        assert fault is None
        sys.stdout.write("".join(f"row {id}\\n" for id in ids))
        sys.stdout.flush()
    log.put(rows, done)
    if n % 5 == 0:
        log.feedback(ids[0], f"label {n}")
        sys.stdout.write(f"feedback {ids[0]} label {n}\\n")
        sys.stdout.flush()
"""


def test_killed_at_any_moment(tmp_path):  # F1, P1
    acknowledged, labels = [], {}
    for turn in range(15):
        child = subprocess.Popen([sys.executable, "-c", CHILD, tmp_path, str(turn), str(KEPT)], stdout=-1, text=True)
        first = child.stdout.readline()
        time.sleep(0.004 * (turn * 7 % 15))
        child.kill()
        for line in [first, *child.stdout.read().splitlines(keepends=True)]:
            kind, id, *label = line.split()
            if line.endswith("\n"):
                if kind == "feedback":
                    labels[id] = " ".join(label)
                else:
                    acknowledged.append(id)
        child.wait()
        child.stdout.close()
        found = {r["id"]: r["feedback"] and r["feedback"]["label"] for r in rows(tmp_path, limit=99_999)}
        assert set(acknowledged[-KEPT // 2 :]) <= set(found)  # the older ones may have been pruned
        assert labels.items() <= {id: label for id, label in found.items() if label}.items()
    assert len(acknowledged) > 100
    assert len(labels) > 5
    assert sum(label is None for label in found.values()) <= KEPT + 50
    with closing(database.open(tmp_path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
