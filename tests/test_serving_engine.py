"""The engine: one pass for many heads, changes while it answers, canaries, shadows, the log."""

import asyncio
import contextlib
import shutil
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import headstart
from conftest import TOPICS, sentences
from headstart import deployments
from headstart.errors import Conflict, ContentError, InputError, ModelError, NotFound, Overloaded, StorageError, TooLate
from headstart.predictionlog import PredictionLog
from headstart.serving.asked import CANARY, LIVE, Question
from headstart.serving.asking import alike, stated
from headstart.serving.engine import Engine
from headstart.serving.table import dealt_to_canary

TEXTS = ["an apple and a pear", "iron or copper", "the owl", "plum plum", "my tin"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project: `topics` in two versions, `more` on the same base, `words` on another, `price` that gives numbers."""
    root = tmp_path_factory.mktemp("served")
    numbers = [(text, float(len(text))) for text, _ in sentences(60)]
    headstart.fit(sentences(60), name="topics", project=root, backbone="fake")
    headstart.fit(sentences(90, seed=1), name="topics", project=root, backbone="fake")
    headstart.fit(sentences(60, seed=2), name="more", project=root, backbone="fake")
    headstart.fit(sentences(60), name="words", project=root, backbone="words")
    headstart.fit(numbers, name="price", project=root, backbone="fake", task="regression")
    return root


@pytest.fixture
def project(made, tmp_path):
    root = tmp_path / "project"
    shutil.copytree(made, root)
    return root


@pytest.fixture
def engine(project):
    engine = Engine(project, threads=2)
    engine.start()
    yield engine
    assert engine.close(10)


def question(*names, texts=TEXTS, **more):
    return Question(tuple(texts), names, time.monotonic() + more.pop("seconds", 30), **more)


def test_it_answers_as_the_model_itself_does(engine, project):
    reply = engine.ask(question("topics", "words", "price", "more"))
    assert [said.name for said in reply.said] == ["topics", "words", "price", "more"]
    for said in reply.said:
        model = headstart.load(said.name, project=project)
        expected = model.answer(model.backbone.encode(TEXTS))
        np.testing.assert_allclose(said.answers.P, expected.P, atol=1e-6)
        assert (said.answers.unknown == expected.unknown).all()
        assert said.served.digest == model.card["digest"]
        assert said.arm == LIVE
    assert len({said.id for said in reply.said}) == 4


def test_each_distinct_input_runs_through_each_base_once(project):
    ran = []
    engine = Engine(project, threads=1, ran=lambda base, rows, units, seconds: ran.append((base, rows)))
    engine.start()
    ran.clear()
    reply = engine.ask(question("topics", "more", "price", "words", texts=["the owl", "tin", "the owl"]))
    assert sorted(rows for _, rows in ran) == [2, 2]  # three models on one base, one on another; two distinct inputs
    assert (reply.said[0].answers.P[0] == reply.said[0].answers.P[2]).all()
    model = headstart.load("topics", project=project)
    expected = model.answer(model.backbone.encode(["the owl", "tin", "the owl"])).P
    np.testing.assert_allclose(reply.said[0].answers.P, expected, atol=1e-6)
    ran.clear()
    again = engine.ask(question("topics", texts=["tin", "the owl", "new"]))
    assert [rows for _, rows in ran] == [1]
    assert again.hits == 2
    np.testing.assert_allclose(again.said[0].answers.P[1], reply.said[0].answers.P[0], atol=1e-6)
    ran.clear()
    engine.ask(question("topics", texts=["tin"], fresh=True))
    assert [rows for _, rows in ran] == [1]
    engine.close(5)


def test_no_name_asks_every_model_that_reads_such_input(engine):
    assert [said.name for said in engine.ask(question()).said] == ["more", "price", "topics", "words"]


def test_what_cannot_be_asked_is_said(engine):
    with pytest.raises(NotFound, match="topics"):
        engine.ask(question("topcis"))
    with pytest.raises(InputError, match="reads texts"):
        engine.ask(question("topics", texts=[b"GIF89a"]))
    with pytest.raises(InputError, match="at least one"):
        engine.ask(question("topics", texts=[]))
    with pytest.raises(NotFound, match="v9"):
        engine.ask(question("topics", version="v9"))
    with pytest.raises(TooLate):
        engine.ask(question("topics", texts=["not seen before"], seconds=-1))
    with pytest.raises(InputError, match="surrogate"):
        engine.ask(question("words", "topics", texts=["fine", "\ud800"]))


def test_it_answers_in_an_event_loop_and_a_cancelled_question_is_let_go(engine):
    async def many():
        replies = await asyncio.gather(*(engine.answer(question("topics", texts=[f"apple n{i}"])) for i in range(50)))
        gone = asyncio.create_task(engine.answer(question("topics", texts=["one", "two"])))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        return replies

    assert len(asyncio.run(many())) == 50
    engine.ready()
    engine._rollout.table.unused()  # would wait for ever for a question, or a trial, that was not let go


def test_a_deployment_pins_a_version_and_a_restart_serves_the_same(engine, project):
    first = engine.ask(question("topics")).said[0].served
    assert first.version == "v2"
    engine.deploy("topics", "v1", "topics")
    engine.deploy("topics", "v2", "other")
    assert engine.ask(question("topics")).said[0].served.version == "v1"
    headstart.fit(sentences(60, seed=9), name="topics", project=project, backbone="fake")
    again = Engine(project, threads=1)
    again.start()
    assert again.ask(question("topics")).said[0].served.version == "v1"
    assert again.ask(question("other")).said[0].served.version == "v2"
    assert engine.rollback("topics").live.version == "v2"
    assert [*again.sync(), again.ask(question("topics")).said[0].served.version] == ["v2"]
    engine.undeploy("other")
    assert again.sync() == []
    assert "other" not in again.table
    with pytest.raises(NotFound):
        engine.rollback("nothing")
    again.close(5)


def test_a_version_that_cannot_be_trusted_changes_nothing(engine, project):
    path = project / "models" / "topics" / "v1" / "head.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    before = deployments.seq(project)
    with pytest.raises(ModelError):
        engine.deploy("topics", "v1", "topics")
    with pytest.raises(NotFound):
        engine.deploy("topics", "v7", "topics")
    with pytest.raises(InputError):
        engine.deploy("topics", "v2", "../x")
    assert deployments.seq(project) == before
    assert engine.ask(question("topics")).said[0].served.version == "v2"


def test_a_damaged_model_is_refused_and_the_others_are_served(project):
    (project / "models" / "more" / "v1" / "card.json").write_text("{")
    engine = Engine(project, threads=1)
    engine.start()
    assert set(engine.faults) == {"more"}
    assert engine.ask(question("topics")).said
    with pytest.raises(ModelError, match="more"):
        engine.ask(question("more"))
    engine.ready()
    engine.close(5)


def test_only_the_models_named_are_served(project):
    engine = Engine(project, models=["topics"], threads=1)
    engine.start()
    assert list(engine.table) == ["topics"]
    with pytest.raises(InputError, match="only topics"):
        engine.deploy("more", None, "more")
    engine.close(5)
    with pytest.raises(NotFound, match="topics"):
        Engine(project, models=["topisc"]).start()


def test_what_is_found_is_pinned(project):
    """After a restart, and in every process, the same versions answer, whatever was fitted meanwhile."""
    first = Engine(project, threads=1)
    first.start()
    table = deployments.table(project)
    assert {name: one.live.version for name, one in table.items()} == {
        "more": "v1", "price": "v1", "topics": "v2", "words": "v1"
    }  # fmt: skip
    assert [commit["action"] for commit in deployments.history(project, "topics")] == ["found"]
    assert {name: one.seq for name, one in first.table.items()} == {name: one.seq for name, one in table.items()}
    assert first._rollout.behind() == []
    headstart.fit(sentences(60, seed=9), name="topics", project=project, backbone="fake")
    headstart.fit(sentences(60, seed=9), name="new", project=project, backbone="fake")
    second = Engine(project, threads=1)
    second.start()
    assert second.ask(question("topics")).said[0].served.version == "v2"
    assert len(deployments.history(project, "topics")) == 1
    assert "new" in second.table
    assert first.sync() == []
    assert first.ask(question("new")).said
    [words] = second._rollout.behind()
    assert words.startswith("topics is answered by topics@v2; to let topics@v3 answer: headstart deploy topics")
    with pytest.raises(InputError, match="undeploy more"):
        headstart.remove("more", project=project)
    for engine in (first, second):
        engine.close(5)


def test_processes_that_start_at_once_agree(project):
    engines = [Engine(project, threads=1) for _ in range(2)]
    both, pinned, pin = threading.Barrier(2), [], deployments.pin

    def late(root, found):
        pinned.append(found["topics"].version)
        if len(pinned) == 1:
            (project / "models" / "topics" / "current").write_text("v1")  # what the other one finds
            both.wait(20)
            both.wait(20)
        return pin(root, found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deployments, "pin", late)
        first = threading.Thread(target=engines[0].start)
        first.start()
        both.wait(20)
        engines[1].start()
        both.wait(20)
        first.join()
    assert pinned == ["v2", "v1"]
    assert len(deployments.history(project, "topics")) == 1
    assert [one.ask(question("topics")).said[0].served.version for one in engines] == ["v1", "v1"]
    for engine in engines:
        engine.close(5)


def test_a_project_that_cannot_be_written_is_served(project, monkeypatch):
    def refused(root, found):
        raise StorageError("read-only")

    monkeypatch.setattr(deployments, "pin", refused)
    engine = Engine(project, threads=1)
    engine.start()
    assert engine.ask(question("topics")).said[0].served.version == "v2"
    assert deployments.table(project) == {}
    engine.close(5)


def test_what_does_not_suit_what_is_live_is_no_challenger(engine, project):
    before = deployments.seq(project)
    with pytest.raises(InputError, match="regression"):
        engine.deploy("price", None, "topics", mode="canary", share=0.5)
    assert deployments.seq(project) == before
    live, price = (deployments.table(project)[name].live for name in ("topics", "price"))
    deployments.deploy(project, "topics", price, mode="shadow")  # by somebody who does not look
    [words] = engine.sync()
    assert "regression" in words
    assert engine.table["topics"].challenger is None
    assert engine.ask(question("topics")).said[0].served.digest == live.digest
    assert engine.rollback("topics").seq == before + 2


def test_going_back_is_tried_first(engine, project):
    engine.deploy("topics", "v1", "topics")
    engine._rollout.table.unused()
    engine._rollout._reaper.submit(lambda: None).result()  # v2 is let go
    folder = project / "models" / "topics" / "v2"
    folder.rename(project / "v2")
    before = deployments.seq(project)
    with pytest.raises(NotFound):
        engine.rollback("topics")
    with pytest.raises(Conflict):
        engine.rollback("topics", expected=before + 1)
    assert deployments.seq(project) == before
    assert engine.ask(question("topics")).said[0].served.version == "v1"
    (project / "v2").rename(folder)
    (project / "models" / "topics" / "current").write_text("v2")
    assert engine.rollback("topics", expected=before).live.version == "v2"


def test_what_it_goes_back_to_must_answer_as_in_training(engine, project, monkeypatch):
    def otherwise(loaded, encode):
        raise ModelError(f"{loaded.served.version} answers otherwise")

    engine.deploy("topics", "v1", "topics")
    before = deployments.seq(project)
    monkeypatch.setattr("headstart.serving.rollout.check", otherwise)
    with pytest.raises(ModelError, match="v2 answers otherwise"):
        engine.rollback("topics")
    assert deployments.seq(project) == before
    assert engine.table["topics"].live.version == "v1"


def test_changing_twice_from_one_state_is_a_conflict(engine):
    seq = engine.deploy("topics", "v1", "topics").seq
    engine.deploy("topics", "v2", "topics", expected=seq)
    with pytest.raises(Conflict):
        engine.deploy("topics", "v1", "topics", expected=seq)


def test_a_canary_answers_its_share_and_always_the_same_keys(engine):
    engine.deploy("topics", "v1", "topics", mode="canary", share=0.3)

    def arms(n):
        return [engine.ask(question("topics", texts=["owl"], key=f"user{i}")).said[0].arm for i in range(n)]

    first = arms(300)
    assert first == arms(300)
    assert 0.2 < first.count(CANARY) / 300 < 0.4
    reply = engine.ask(question("topics", texts=["owl"], key=f"user{first.index(CANARY)}")).said[0]
    assert reply.served.version == "v1"
    assert engine.ask(question("topics", version="v1")).said[0].served.version == "v1"
    engine.deploy("topics", "v1", "topics", mode="canary", share=0.6)
    wider = arms(300)
    assert all(b == CANARY for a, b in zip(first, wider, strict=True) if a == CANARY)
    engine.rollback("topics")
    assert set(arms(20)) == {LIVE}


def test_dealing_does_not_depend_on_the_other_names():
    shares = [np.mean([dealt_to_canary(name, str(i).encode(), 0.1) for i in range(5000)]) for name in "abc"]
    assert all(abs(share - 0.1) < 0.02 for share in shares)
    assert not dealt_to_canary("a", b"x", 0.0)
    assert dealt_to_canary("a", b"x", 1.0)


@pytest.mark.parametrize("challenger", ["more", "words"])  # on the same base, and on another
def test_a_shadow_listens_and_is_counted(engine, challenger):
    engine.deploy(challenger, None, "topics", mode="shadow")
    reply = engine.ask(question("topics"))
    assert reply.said[0].served.version == "v2"
    counts = engine.table["topics"].counts
    for _ in range(200):
        if counts.compared:
            break
        time.sleep(0.01)
    model, other = (headstart.load(name, project=engine.root) for name in ("topics", challenger))
    same = sum(a.label == b.label for a, b in zip(model.predict(TEXTS), other.predict(TEXTS), strict=True))
    assert (counts.compared, counts.agreed) == (len(TEXTS), same)


def test_what_was_predicted_is_written_down(project):
    log = PredictionLog(project)
    engine = Engine(project, threads=1, log=log, log_wait=True, log_inputs=True)
    engine.start()
    engine.deploy("more", None, "topics", mode="shadow")
    said = engine.ask(question("topics", by="someone")).said[0]
    rows = [log.find(f"{said.id}.{i}") for i in range(len(TEXTS))]
    assert [row["input"] for row in rows] == TEXTS
    assert {(row["name"], row["version"], row["digest"], row["by"]) for row in rows} == {
        ("topics", "v2", said.served.digest, "someone")
    }
    for _ in range(500):
        if engine.table["topics"].counts.compared:
            break
        time.sleep(0.01)
    for _ in range(500):  # written by the thread that also counts
        if log.find(f"{said.id}-shadow.0"):
            break
        time.sleep(0.01)
    assert log.find(f"{said.id}-shadow.0")["arm"] == "shadow"
    explained = engine.ask(question("more", texts=["an apple"], why=True)).said[0]
    assert log.find(f"{explained.id}.0")["input"] == "an apple"
    assert engine.stats()["log_shed"] == 0
    engine.close(5)
    log.close()


def test_versions_change_while_many_ask(engine):
    """G1: every answer is wholly of one version, and of one that could answer."""
    over, wrong, asked = threading.Event(), [], []
    expected = {}
    for version in ("v1", "v2"):
        model = headstart.load(engine.root / "models" / "topics" / version)
        expected[version] = model.answer(model.backbone.encode(TEXTS)).P

    def client():
        while not over.is_set():
            said = engine.ask(question("topics")).said[0]
            asked.append(said.served.version)
            if np.abs(said.answers.P - expected[said.served.version]).max() > 1e-5:
                wrong.append(said.served.version)

    clients = [threading.Thread(target=client) for _ in range(4)]
    for one in clients:
        one.start()
    for i in range(30):
        engine.deploy("topics", f"v{1 + i % 2}", "topics")
        engine.deploy("topics", f"v{1 + i % 2}", "extra") if i % 3 else None
    over.set()
    for one in clients:
        one.join()
    assert not wrong
    assert set(asked) == {"v1", "v2"}


def test_two_engines_on_one_project_agree_on_one_winner(project):
    """G6."""
    engines = [Engine(project, threads=1) for _ in range(2)]
    for engine in engines:
        engine.start()
    engines[0].deploy("topics", "v2", "topics")
    seq = engines[0].table["topics"].seq
    won = []

    def deploy(engine, version):
        with contextlib.suppress(Conflict):
            won.append(engine.deploy("topics", version, "topics", expected=seq).live.version)

    threads = [threading.Thread(target=deploy, args=(engine, f"v{i + 1}")) for i, engine in enumerate(engines)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(won) == 1
    for engine in engines:
        assert engine.sync() == []
        assert engine.table["topics"].live.version == won[0]
        engine.close(5)


def test_what_is_not_served_any_more_is_forgotten(engine):
    before = engine.stats()
    assert before["bases"] == 2
    engine.ask(question("words"))
    engine.undeploy("words")
    for _ in range(300):
        if engine.stats()["bases"] == 1:
            break
        time.sleep(0.01)
    after = engine.stats()
    assert (after["bases"], after["models"]) == (1, before["models"] - 1)
    with pytest.raises(NotFound):
        engine.ask(question("words"))


def test_why_is_explained_and_bounded(engine):
    reply = engine.ask(question("topics", texts=["an apple"], why=True))
    assert reply.said[0].why[0]["nearest"][0]["label"] in TOPICS
    with pytest.raises(InputError, match="at most"):
        engine.ask(question("topics", texts=[f"apple {i}" for i in range(30)], why=True))


def test_an_explanation_nobody_waits_for_ends_and_lets_others_in(engine, monkeypatch):
    from headstart.reasons import Reasons

    begun, real = [], Reasons.of

    def slow(self, contents, X, answers, progress=None):
        for i in range(len(contents)):
            begun.append(i)
            time.sleep(0.05)
            progress(i)
        return real(self, contents, X, answers)

    monkeypatch.setattr(Reasons, "of", slow)

    async def given_up():
        texts = [f"apple {i}" for i in range(16)]
        task = asyncio.create_task(engine.answer(question("topics", texts=texts, why=True)))
        while not begun:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TooLate):
            await engine.answer(question("topics", texts=texts, why=True, seconds=0.12))
        return await engine.answer(question("topics", texts=["an apple"], why=True))

    assert asyncio.run(given_up()).said[0].why
    assert len(begun) < 12


def test_features_are_given_by_model_or_base(engine):
    async def both():
        until = time.monotonic() + 10
        return [await engine.embed(["the owl"], name, until) for name in ("topics", "fake")]

    (a, card), (b, _) = asyncio.run(both())
    assert (a == b).all()
    assert a.shape == (1, card.width)
    with pytest.raises(NotFound, match="fake"):
        asyncio.run(engine.embed(["x"], "fkae", time.monotonic() + 10))


def test_overload_is_said_at_once(project):
    engine = Engine(project, threads=1, limit=1e-9, memory=0)
    engine.start()
    retries = []
    asked = []
    for i in range(400):
        try:
            engine.submit(question("words", texts=[f"a b c {j} {i}" for j in range(50)]), asked.append)
        except Overloaded as error:
            retries.append(error.retry)
    assert retries
    assert min(retries) > 0
    engine.ready()  # it works, so it is
    engine.close(20)
    assert len(asked) == 400 - len(retries)


def test_what_two_versions_say_is_compared():
    assert alike("a", "a")
    assert not alike("a", "b")
    assert alike(["a", "b"], ["b", "a"])
    assert alike(100.0, 100.5)
    assert not alike(1.0, 2.0)


def test_what_is_stated_is_the_likeliest(engine):
    said = engine.ask(question("topics", "price")).said
    label, probability = stated(said[0].served, said[0].answers, 0)
    assert label == "fruit"
    assert probability == pytest.approx(said[0].answers.P[0].max())
    value, none = stated(said[1].served, said[1].answers, 0)
    assert none is None
    assert value == pytest.approx(said[1].answers.P[0, 0])


def test_errors_name_the_place_in_the_question():
    from headstart.serving.gathering import placed

    moved = placed(ContentError([(1, "broken")]), [4, 7])
    assert moved.faults == ((7, "broken"),)


def test_a_deployed_model_is_not_removed(engine, project):
    engine.deploy("more", None, "topics", mode="shadow")
    engine.undeploy("more")
    with pytest.raises(InputError, match="undeploy topics"):
        headstart.remove("more", project=project)
    engine.rollback("topics")
    assert headstart.remove("more", project=project) == [1]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 6), min_size=1, max_size=12))
def test_every_answer_belongs_to_its_input(engine, picks):
    """C16: whatever is repeated or remembered."""
    texts = [f"{['apple', 'iron', 'owl', 'plum', 'tin', 'crow', 'fig'][k]} n{k}" for k in picks]
    model = engine.table["topics"].live.model
    expected = model.answer(model.backbone.encode(texts)).P
    for fresh in (False, True):
        found = engine.ask(question("topics", "words", texts=texts, fresh=fresh)).said[0].answers.P
        np.testing.assert_allclose(found, expected, atol=1e-6)
