"""Deployments: a log of commits, against a small model, through reopening, kills and two at once. F1, G6, P1."""

import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headstart import database
from headstart.deployments import Pointer, behind, deploy, history, lagging, pin, rollback, seq, table, undeploy
from headstart.errors import Conflict, InputError, NotFound

V1, V2, V3, V4 = (Pointer("tickets", f"v{i}", f"{i}" * 64) for i in range(1, 5))


def test_deploying_makes_live_and_takes_the_challenger_away(tmp_path):
    first = deploy(tmp_path, "a", V1)
    assert (first.live, first.challenger, first.mode, first.share, first.seq) == (V1, None, None, 0.0, 1)
    beside = deploy(tmp_path, "a", V2, mode="canary", share=0.1)
    assert (beside.live, beside.challenger, beside.mode, beside.share) == (V1, V2, "canary", 0.1)
    instead = deploy(tmp_path, "a", V3, mode="shadow")
    assert (instead.live, instead.challenger, instead.mode, instead.share) == (V1, V3, "shadow", 0.0)
    promoted = deploy(tmp_path, "a", V3)
    assert (promoted.live, promoted.challenger, promoted.mode) == (V3, None, None)
    assert table(tmp_path) == {"a": promoted}
    assert seq(tmp_path) == promoted.seq == 4


def test_rolling_back(tmp_path):
    for version in (V1, V2, V3):
        deploy(tmp_path, "a", version)
    deploy(tmp_path, "a", V4, mode="shadow")
    assert rollback(tmp_path, "a").challenger is None
    assert table(tmp_path)["a"].live == V3
    assert [rollback(tmp_path, "a").live for _ in range(2)] == [V2, V1]
    with pytest.raises(InputError, match="nothing to go back to"):
        rollback(tmp_path, "a")
    deploy(tmp_path, "a", V1)  # the same again is not something to go back to
    with pytest.raises(InputError, match="nothing to go back to"):
        rollback(tmp_path, "a")
    assert undeploy(tmp_path, "a").live is None
    assert rollback(tmp_path, "a").live == V1


def test_what_was_undeployed_comes_back(tmp_path):
    deploy(tmp_path, "a", V1)
    deploy(tmp_path, "a", V2)
    deploy(tmp_path, "a", V3, mode="canary", share=0.5)
    gone = undeploy(tmp_path, "a")
    assert (gone.live, gone.challenger, gone.mode, gone.share) == (None, None, None, 0.0)
    with pytest.raises(NotFound, match="undeployed on"):
        undeploy(tmp_path, "a")
    with pytest.raises(InputError, match="deploy it first"):
        deploy(tmp_path, "a", V3, mode="shadow")
    assert rollback(tmp_path, "a").live == V2
    assert rollback(tmp_path, "a").live == V1


def test_going_back_past_a_time_without_an_answer(tmp_path):
    deploy(tmp_path, "a", V1)
    undeploy(tmp_path, "a")
    deploy(tmp_path, "a", V2)
    assert rollback(tmp_path, "a").live == V1
    with pytest.raises(InputError, match="nothing to go back to"):
        rollback(tmp_path, "a")


def test_a_name_served_but_never_deployed(tmp_path):
    with pytest.raises(InputError, match="nothing answers as 'a' yet"):
        deploy(tmp_path, "a", V2, mode="shadow")
    assert seq(tmp_path) == 0
    beside = deploy(tmp_path, "a", V2, mode="shadow", live=V1, expected=0)
    assert (beside.live, beside.challenger) == (V1, V2)
    assert deploy(tmp_path, "b", V2, live=V1).live == V2
    assert rollback(tmp_path, "b").live == V1
    assert undeploy(tmp_path, "c", live=V1).live is None
    assert rollback(tmp_path, "c").live == V1
    assert deploy(tmp_path, "a", V3, live=V4).live == V3
    assert rollback(tmp_path, "a").live == V1  # `live` was not asked: the name had been deployed


def test_unknown_names_and_bad_ways(tmp_path):
    deploy(tmp_path, "tickets", V1)
    for change in (rollback, undeploy):
        with pytest.raises(NotFound, match=r"'tickes'.*Did you mean 'tickets'"):
            change(tmp_path, "tickes")
    for given in ({"mode": "blue"}, {"share": 0.5}, {"mode": "shadow", "share": 0.1}, {"mode": "canary", "share": 1.1}):
        with pytest.raises(InputError):
            deploy(tmp_path, "tickets", V2, **given)
    with pytest.raises(InputError, match="nan"):
        deploy(tmp_path, "tickets", V2, mode="canary", share=float("nan"))
    assert seq(tmp_path) == 1


def test_history_has_every_commit(tmp_path):
    deploy(tmp_path, "a", V2, mode="canary", share=0.25, live=V1)
    deploy(tmp_path, "b", V1)
    rollback(tmp_path, "a")
    undeploy(tmp_path, "a")
    found = history(tmp_path, "a")
    assert [c["action"] for c in found] == ["found", "canary", "rollback", "undeploy"]
    assert [c["seq"] for c in found] == [1, 2, 4, 5]
    assert found[1]["challenger"] == {"model": "tickets", "version": "v2", "digest": "2" * 64}
    assert found[1]["share"] == 0.25
    assert found[3]["live"] is None
    assert [c["at"] for c in found] == sorted(c["at"] for c in found)
    assert found[0]["at"].endswith("Z")


def test_it_is_only_ever_added_to(tmp_path):
    deploy(tmp_path, "a", V1)
    with closing(database.open(tmp_path)) as connection:
        for statement in ("DELETE FROM deployments", "UPDATE deployments SET live_version = 'v9'"):
            with pytest.raises(sqlite3.IntegrityError, match="only ever added to"):
                connection.execute(statement)


def test_history_of_the_last_few(tmp_path):
    for version in (V1, V2, V3):
        deploy(tmp_path, "a", version)
    assert [c["live"]["version"] for c in history(tmp_path, "a", 2)] == ["v2", "v3"]


def test_pinning_leaves_alone_what_is_there(tmp_path):
    assert pin(tmp_path, {}) == []
    assert not list(tmp_path.iterdir())
    deploy(tmp_path, "a", V1)
    deploy(tmp_path, "gone", V1)
    undeploy(tmp_path, "gone")
    assert pin(tmp_path, {"a": V2, "b": V2, "c": V3, "gone": V2}) == ["b", "c"]
    found = table(tmp_path)
    assert (found["a"].live, found["b"].live, found["c"].live, found["gone"].live) == (V1, V2, V3, None)
    assert [c["action"] for c in history(tmp_path, "b")] == ["found"]
    won = []
    pins = [{f"n{i}": Pointer("t", f"v{k}", "d") for i in range(20)} for k in range(4)]
    threads = [threading.Thread(target=lambda found=found: won.append(pin(tmp_path, found))) for found in pins]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, won)) == [0, 0, 0, 20]
    assert len({table(tmp_path)[f"n{i}"].live.version for i in range(20)}) == 1


def test_what_a_rollback_would_make(tmp_path):
    assert behind(tmp_path, "a") is None
    deploy(tmp_path, "a", V1)
    assert behind(tmp_path, "a") is None
    assert behind(tmp_path, "b") is None
    for change in (
        lambda: deploy(tmp_path, "a", V2),
        lambda: deploy(tmp_path, "a", V3, mode="canary", share=0.2),
        lambda: undeploy(tmp_path, "a"),
    ):
        last = change().seq
        would = behind(tmp_path, "a", expected=last)
        assert would.seq == last
        with pytest.raises(Conflict):
            behind(tmp_path, "a", expected=last - 1)
        made = rollback(tmp_path, "a", expected=would.seq)
        assert (made.live, made.challenger, made.mode, made.share) == (would.live, None, None, 0.0)
        assert would.challenger is None
        deploy(tmp_path, "a", V2)


def test_what_a_newer_version_stands_behind(tmp_path, monkeypatch):
    deploy(tmp_path, "tickets", V1)
    deploy(tmp_path, "mail", V1)
    deploy(tmp_path, "mail", V2, mode="shadow")
    deploy(tmp_path, "late", V2)
    deploy(tmp_path, "other", Pointer("other", "v1", "d"))
    monkeypatch.chdir(tmp_path)
    assert lagging(Path(), {"tickets": "v2", "other": "v1"}) == [
        "mail is answered by tickets@v1, with tickets@v2 as a shadow; to let tickets@v2 answer: headstart deploy tickets --as mail",
        "tickets is answered by tickets@v1; to let tickets@v2 answer: headstart deploy tickets",
    ]
    undeploy(tmp_path, "tickets")
    [words] = lagging(tmp_path, {"tickets": "v2"})[1:]
    assert words == f"tickets is undeployed; to let tickets@v2 answer: headstart deploy tickets --project {tmp_path}"
    assert lagging(tmp_path, {}) == []


def test_compare_and_swap(tmp_path):  # G6
    last = deploy(tmp_path, "a", V1, expected=0).seq
    deploy(tmp_path, "b", V1)  # another name is no change of this one
    with pytest.raises(Conflict, match="its last commit is number 1, not 0"):
        deploy(tmp_path, "a", V2, expected=0)
    for change in (rollback, undeploy):
        with pytest.raises(Conflict):
            change(tmp_path, "a", expected=last + 1)
    outcomes = []

    def promote(version):
        try:
            outcomes.append(deploy(tmp_path, "a", version, expected=last).live)
        except Conflict:
            outcomes.append(None)

    threads = [threading.Thread(target=promote, args=[Pointer("t", f"v{i}", "d")]) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4
    assert outcomes.count(None) == 3
    assert table(tmp_path)["a"].live in outcomes


class Names(RuleBasedStateMachine):
    """The log against a model: for each name a stack of live versions, and whether it is undeployed."""

    def __init__(self):
        super().__init__()
        import tempfile
        from pathlib import Path

        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.model: dict[str, list] = {}  # name: [stack of live, challenger, mode, share, undeployed, seq]
        self.commits = 0

    def teardown(self):
        self.folder.cleanup()

    names = st.sampled_from(["a", "b"])
    versions = st.sampled_from([V1, V2, V3])

    def committed(self, name):
        self.commits += 1
        self.model[name][5] = self.commits

    @rule(name=names, version=versions)
    def live(self, name, version):
        deploy(self.root, name, version)
        state = self.model.setdefault(name, [[], None, None, 0.0, False, 0])
        if not state[0] or state[0][-1] != version:
            state[0].append(version)
        state[1:5] = [None, None, 0.0, False]
        self.committed(name)

    @rule(name=names, version=versions, mode=st.sampled_from(["shadow", "canary"]), share=st.sampled_from([0.0, 0.2]))
    def beside(self, name, version, mode, share):
        share = share if mode == "canary" else 0.0
        state = self.model.get(name)
        if state is None or state[4]:
            with pytest.raises(InputError):
                deploy(self.root, name, version, mode=mode, share=share)
            return
        deploy(self.root, name, version, mode=mode, share=share)
        state[1:4] = [version, mode, share]
        self.committed(name)

    @rule(name=names)
    def back(self, name):
        state = self.model.get(name)
        if state is None or (state[1] is None and not state[4] and len(state[0]) < 2):
            with pytest.raises(InputError):
                rollback(self.root, name)
            return
        rollback(self.root, name)
        if state[1] is None and not state[4]:
            state[0].pop()
        state[1:5] = [None, None, 0.0, False]
        self.committed(name)

    @rule(name=names)
    def away(self, name):
        state = self.model.get(name)
        if state is None or state[4]:
            with pytest.raises(NotFound):
                undeploy(self.root, name)
            return
        undeploy(self.root, name)
        state[1:5] = [None, None, 0.0, True]
        self.committed(name)

    @rule(name=names, version=versions)
    def late(self, name, version):
        last = self.model[name][5] if name in self.model else 0
        with pytest.raises(Conflict):
            deploy(self.root, name, version, expected=last + 1)

    @invariant()
    def same(self):
        found = {name: (d.live, d.challenger, d.mode, d.share, d.seq) for name, d in table(self.root).items()}
        assert found == {
            name: (None if undeployed else stack[-1], challenger, mode, share, last)
            for name, (stack, challenger, mode, share, undeployed, last) in self.model.items()
        }
        assert seq(self.root) == self.commits
        assert sum(len(history(self.root, name)) for name in self.model) == self.commits


Names.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
test_against_a_model = Names.TestCase


CHILD = """
import sys
from pathlib import Path
from headstart.deployments import Pointer, deploy
n = int(sys.argv[2])
while True:
    n += 1
    made = deploy(Path(sys.argv[1]), f"n{n % 3}", Pointer("tickets", f"v{n}", "d"))
    print(made.seq, n, flush=True)
"""


def test_killed_at_any_moment(tmp_path):  # F1
    acknowledged = {}
    for turn in range(20):
        child = subprocess.Popen([sys.executable, "-c", CHILD, tmp_path, str(turn * 10_000)], stdout=-1, text=True)
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(0.0017 * turn)
        child.kill()
        for line in [first, *child.stdout.read().splitlines(keepends=True)]:
            if line.endswith("\n"):
                number, n = line.split()
                acknowledged[int(number)] = n
        child.wait()
        child.stdout.close()
        found = {c["seq"]: c["live"]["version"] for name in ("n0", "n1", "n2") for c in history(tmp_path, name)}
        assert {number: f"v{n}" for number, n in acknowledged.items()}.items() <= found.items()
    assert len(acknowledged) > 20
    with closing(database.open(tmp_path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
