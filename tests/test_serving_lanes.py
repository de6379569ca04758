"""Many requests on a few threads: every accepted one is answered once, with its own features, whatever happens."""

import gc
import logging
import threading
import time
import weakref
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.errors import ContentError, Draining, InputError, ModelError, Overloaded, TooLate
from headstart.serving import lanes as module
from headstart.serving import waiting
from headstart.serving.lanes import Lanes

FOREVER = 60.0  # seconds that no test takes
A, B = frozenset({"a"}), frozenset({"b"})


class Panic(BaseException):
    """What a library written in Rust throws through."""


class Fake:
    """Texts like "17 bad!": the number is the feature, the length the size, and some words are faults.

    A run says what it was given in `runs`, then waits for `gate`.
    """

    modality, budget = "text", 64

    def __init__(self, key="k", names="ab"):
        self.key, self.names = key, names
        self.runs, self.prepared, self.gate, self.began = [], [], threading.Event(), threading.Semaphore(0)
        self.gate.set()
        self.during = lambda items: None

    def prepare(self, contents):
        self.prepared.append(len(contents))
        if any("refused" in content for content in contents):
            place = next(i for i, content in enumerate(contents) if "refused" in content)
            raise InputError(f"text number {place} of the call is refused.")
        if any("crash" in content for content in contents):
            raise MemoryError
        if faults := [(i, "unlike a text") for i, content in enumerate(contents) if "unlike" in content]:
            raise ContentError(faults)
        return list(contents)

    def size(self, item):
        return len(item)

    def run(self, items, wanted):
        assert len({len(item) for item in items}) == 1, "items of one size only"
        assert len(items) == 1 or len(items) * len(items[0]) <= self.budget
        assert wanted <= set(self.names)
        self.runs.append(list(items))
        self.began.release()
        assert self.gate.wait(FOREVER)
        self.during(items)
        for word, error in (
            ("memory", MemoryError()),
            ("panic", Panic("at the disco")),
            ("declined", InputError("no.")),
        ):
            if any(word in item for item in items):
                raise error
        if faults := [(i, "broken") for i, item in enumerate(items) if "broken" in item]:
            raise ContentError(faults)
        return {name: features(items, name) for name in self.names}


def features(items, name="a"):
    return np.array([[int(item.split()[0]), ord(name)] for item in items], np.float32)


class Answer:
    """What `done` was called with, and how often."""

    def __init__(self):
        self.results, self.there = [], threading.Event()

    def __call__(self, result):
        self.results.append(result)
        self.there.set()

    def get(self):
        assert self.there.wait(FOREVER)
        [result] = self.results
        if isinstance(result, BaseException):
            raise result
        return result


@pytest.fixture
def opened():
    """Lanes with so many threads, closed after the test."""
    made = []

    def make(threads=1, **settings):
        made.append(Lanes(threads=threads, **settings))
        return made[-1]

    yield make
    for lanes in made:
        lanes.close(5)


def submit(lanes, encoder, contents, wanted=A, **more):
    answer = Answer()
    more = {"deadline": time.monotonic() + FOREVER} | more
    answer.ticket = lanes.submit(encoder, contents, wanted, answer, **more)
    return answer


def blocked(lanes, encoder):
    """Hold up one thread in a run of its own; the answer comes when the gate opens."""
    encoder.gate.clear()
    while encoder.began.acquire(blocking=False):
        pass
    answer = submit(lanes, encoder, ["0"])
    assert encoder.began.acquire(timeout=FOREVER)
    return answer


def test_features_come_back_in_order(opened):
    lanes, encoder = opened(2), Fake()
    for wanted in (A, A | B):
        contents = [f"{i} {'x' * (i % 5)}" for i in range(300)]
        result = submit(lanes, encoder, contents, wanted).get()
        assert set(result) == wanted
        for name in wanted:
            np.testing.assert_array_equal(result[name], features(contents, name))
    assert lanes.waiting() == (0, 0.0)


def test_rows_of_many_requests_share_a_run(opened):
    lanes, encoder = opened(), Fake()
    first = blocked(lanes, encoder)
    answers = [submit(lanes, encoder, [f"{i}1"]) for i in range(1, 9)]
    assert lanes.waiting()[0] == 8
    encoder.gate.set()
    assert first.get()["a"].tolist() == [[0, ord("a")]]
    assert [answer.get()["a"][0, 0] for answer in answers] == [i * 10 + 1 for i in range(1, 9)]
    assert [len(run) for run in encoder.runs] == [1, 8]
    assert encoder.prepared == [1, 8]  # tokenised in one go


def test_an_answer_holds_no_one_elses_rows(opened):
    lanes, encoder = opened(), Fake()
    blocked(lanes, encoder)
    answers = [submit(lanes, encoder, [f"{i}1"]) for i in range(1, 9)]
    encoder.gate.set()
    assert all(answer.get()["a"].base is None for answer in answers)


def test_features_wanted_apart_are_run_apart(opened):
    lanes, encoder = opened(), Fake()
    blocked(lanes, encoder)
    answers = [submit(lanes, encoder, [f"{i}1"], wanted) for i, wanted in enumerate((A, B, A, B), 1)]
    encoder.gate.set()
    assert [list(answer.get()) for answer in answers] == [["a"], ["b"], ["a"], ["b"]]
    assert [len(run) for run in encoder.runs] == [1, 2, 2]


def test_one_request_is_shared_by_idle_threads(opened):
    lanes, encoder, meet = opened(2), Fake(), threading.Barrier(2)
    encoder.budget = 128
    encoder.during = lambda items: meet.wait(FOREVER)  # breaks unless two runs go on at once
    submit(lanes, encoder, [f"{i:02}" for i in range(32)]).get()
    assert [len(run) for run in encoder.runs] == [16, 16]


def test_little_is_not_split(opened):
    lanes, encoder = opened(2), Fake()
    submit(lanes, encoder, [f"{i}" for i in range(8)]).get()
    assert [len(run) for run in encoder.runs] == [8]  # half of it would be less than a quarter of the budget


def test_a_long_request_is_prepared_in_slices(opened):
    lanes, encoder = opened(2), Fake()
    contents = [f"{i}" for i in range(1000)]
    np.testing.assert_array_equal(submit(lanes, encoder, contents).get()["a"], features(contents))
    assert max(encoder.prepared) == waiting.SLICE
    with pytest.raises(ContentError) as caught:
        submit(lanes, encoder, [f"{i} unlike" if i in (5, 300, 999) else "1" for i in range(1000)]).get()
    assert [place for place, _ in caught.value.faults] == [5, 300, 999]
    with pytest.raises(InputError, match="text number 999 of the call"):  # its place in the call, not in its slice
        submit(lanes, encoder, [*contents[:999], "refused"]).get()


FAULTS = ["", "", "", " broken", " unlike", " refused", " crash", " memory", " panic", " declined"]
JOBS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from(FAULTS), st.integers(0, 3)), min_size=1, max_size=6),
        st.sampled_from([A, B, A | B]),
        st.sampled_from(["k", "l"]),
        st.sampled_from(["", "", "", "late", "cancelled", "spare"]),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(JOBS, st.integers(1, 3), st.booleans())
def test_every_accepted_request_is_answered_once(jobs, threads, held):
    """C9, C15, C16, H2: whatever goes wrong for one of them, the others get their own features."""
    lanes, number = Lanes(threads=threads), 0
    encoders = {key: Fake(key) for key in "kl"}
    if held:
        for encoder in encoders.values():
            encoder.gate.clear()
    asked = []
    for rows, wanted, key, fate in jobs:
        contents = [f"{(number := number + 1):03}{fault}{' ' * spaces}" for fault, spaces in rows]
        more = {"late": {"deadline": time.monotonic() - 1}, "spare": {"spare": True}}.get(fate, {})
        answer = submit(lanes, encoders[key], contents, wanted, admitted=True, **more)
        if fate == "cancelled":
            answer.ticket.cancel()
        asked.append((contents, wanted, fate, answer))
    for encoder in encoders.values():
        encoder.gate.set()
    for *_, fate, answer in asked:
        assert fate == "cancelled" or answer.there.wait(FOREVER)
    assert lanes.close(FOREVER)
    shared = any(word in content for contents, *_ in asked for content in contents for word in ("memory", "panic"))
    for contents, wanted, fate, answer in asked:
        if fate == "cancelled":
            assert len(answer.results) <= 1  # it may have been answered before
            continue
        [result] = answer.results
        broken = {i for i, content in enumerate(contents) if "broken" in content or "unlike" in content}
        other = any(word in content for content in contents for word in ("refused", "crash", "declined"))
        if fate == "late":
            assert isinstance(result, TooLate)
        elif isinstance(result, ContentError):
            assert {place for place, _ in result.faults} <= broken
            assert len({place for place, _ in result.faults}) == len(result.faults)
            unlike = {i for i in broken if "unlike" in contents[i]}
            assert {place for place, _ in result.faults} == (unlike or broken)
        elif isinstance(result, BaseException):
            assert isinstance(result, InputError | ModelError)
            assert other or shared
        else:
            assert not broken
            assert not other
            for name in wanted:
                np.testing.assert_array_equal(result[name], features(contents, name))
    for encoder in encoders.values():
        ran = Counter(item for run in encoder.runs for item in run)
        assert all(ran[content] == 0 for contents, _, fate, _ in asked for content in contents if fate == "late")
    assert lanes.waiting() == (0, 0.0)
    assert lanes._due.bytes == lanes._spare.rows == lanes._spare.bytes == 0
    assert not lanes._due.open
    assert not lanes._due.lanes


def test_answers_belong_to_their_inputs_under_concurrent_requests(opened):
    """C16, with as many requests at once as there are threads here."""
    lanes, encoder, wrong = opened(3), Fake(), []

    def client(number):
        for i in range(40):
            contents = [f"{number * 10_000 + i * 100 + j:06}{' ' * ((i + j) % 4)}" for j in range(1 + i % 7)]
            result = submit(lanes, encoder, contents).get()["a"]
            if not np.array_equal(result, features(contents)):
                wrong.append(contents)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert sum(map(len, encoder.runs)) == 8 * sum(1 + i % 7 for i in range(40))  # nothing is run twice


def test_what_nobody_waits_for_is_not_run_and_the_others_are(opened):
    """C9: clients go away; their rows leave the batch."""
    lanes, encoder = opened(), Fake()
    gone_in_its_run = blocked(lanes, encoder)
    answers = [submit(lanes, encoder, [f"{i}1", f"{i}2"]) for i in range(1, 5)]
    for gone in (answers[1], answers[2], gone_in_its_run):
        gone.ticket.cancel()
        gone.ticket.cancel()
    assert lanes._due.rows == 8  # memory is held until a thread comes by
    encoder.gate.set()
    assert answers[0].get()["a"][:, 0].tolist() == [11, 12]
    assert answers[3].get()["a"][:, 0].tolist() == [41, 42]
    assert lanes.close(FOREVER)
    assert [sorted(run) for run in encoder.runs] == [["0"], ["11", "12", "41", "42"]]
    assert [answer.results for answer in (answers[1], answers[2], gone_in_its_run)] == [[], [], []]
    answers[0].ticket.cancel()  # after its answer: nothing


def test_what_is_too_late_is_not_run(opened):
    """C19, H4: a machine that slept does not work off what nobody waits for."""
    lanes, encoder = opened(), Fake()
    blocked(lanes, encoder)
    late = [submit(lanes, encoder, [f"{i:03}"] * 3) for i in range(100)]
    live = submit(lanes, encoder, ["555"])
    for answer in late:
        answer.ticket.deadline = time.monotonic()
    encoder.gate.set()
    assert live.get()["a"][0, 0] == 555
    for answer in late:
        with pytest.raises(TooLate, match="nothing was computed"):
            answer.get()
    assert encoder.runs == [["0"], ["555"]]


def test_what_becomes_too_late_after_it_was_prepared_is_not_run(opened):
    lanes, encoder = opened(), Fake()
    blocked(lanes, encoder)
    full = submit(lanes, encoder, [f"{i:02}" for i in range(20)])
    late = submit(lanes, encoder, ["777", "7777"])

    def during(items):
        if items[0] == "00":
            late.ticket.deadline = 0

    encoder.during = during
    encoder.gate.set()
    full.get()
    with pytest.raises(TooLate):
        late.get()
    assert len(encoder.runs) == 2
    assert encoder.prepared == [1, 22]


def test_too_much_is_refused_and_then_taken_again(opened):
    """C18, without a clock: any run costs more than the limit here."""
    lanes, encoder = opened(limit=1e-12), Fake()
    submit(lanes, encoder, ["1"]).get()  # now the cost is known
    first = blocked(lanes, encoder)
    assert lanes.busy() is None
    waits = submit(lanes, encoder, ["2"] * 500)  # whatever its size: nothing waits before it
    rows, seconds = lanes.waiting()
    assert rows == 500
    assert seconds > 0
    assert lanes.busy() >= 0.1
    with pytest.raises(Overloaded, match="Come again") as caught:
        submit(lanes, encoder, ["3"])
    assert caught.value.retry == lanes.busy()
    part = submit(lanes, encoder, ["4"], admitted=True)  # of the request before, say on another lane
    encoder.gate.set()
    for answer in (first, waits, part):
        answer.get()
    assert lanes.busy() is None
    submit(lanes, encoder, ["3"]).get()


def test_what_cannot_be_done_before_its_deadline_is_refused_at_once(opened):
    lanes, encoder = opened(), Fake()
    submit(lanes, encoder, ["1"]).get()
    blocked(lanes, encoder)
    submit(lanes, encoder, ["2"])
    with pytest.raises(Overloaded):
        submit(lanes, encoder, ["2"], deadline=0)
    encoder.gate.set()


@pytest.mark.parametrize(("bound", "content"), [("ROWS", "1"), ("BYTES", "1" * 20)])
def test_a_flood_is_bounded_before_anything_is_known(opened, monkeypatch, bound, content):
    monkeypatch.setattr(waiting, bound, 200)
    lanes, encoder = opened(2), Fake()
    first = blocked(lanes, encoder)
    second = blocked(lanes, encoder)
    refused, accepted, most = [], [], []

    def flood():
        for _ in range(500):
            try:
                accepted.append(submit(lanes, encoder, [content]))
            except Overloaded as error:
                refused.append(error.retry)
            most.append(lanes.waiting()[0])

    threads = [threading.Thread(target=flood) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(accepted) + len(refused) == 2000
    assert len(accepted) == max(most) == 200 // (len(content) if bound == "BYTES" else 1)
    assert min(refused) > 0
    encoder.gate.set()
    for answer in (first, second, *accepted):
        answer.get()
    assert lanes.busy() is None


def test_cancelled_floods_are_bounded_too(opened, monkeypatch):
    monkeypatch.setattr(waiting, "ROWS", 50)
    monkeypatch.setattr(waiting, "LOOK", 7)  # so that dead rows are passed over in several steps
    lanes, encoder = opened(), Fake()
    first = blocked(lanes, encoder)
    for _ in range(50):
        submit(lanes, encoder, ["1"]).ticket.cancel()
    with pytest.raises(Overloaded):
        submit(lanes, encoder, ["1"])
    behind = submit(lanes, encoder, ["2"], admitted=True)
    encoder.gate.set()
    first.get()
    behind.get()
    assert lanes.close(FOREVER)
    assert encoder.runs == [["0"], ["2"]]
    assert lanes._due.rows == 0


def test_an_error_hits_its_run_only_and_the_thread_lives(opened, caplog):
    """H2: no memory, a panic, a plain fault of ours."""
    lanes, encoder = opened(), Fake()
    for word in ("memory", "panic"):
        blocked(lanes, encoder)
        hit = [submit(lanes, encoder, [f"1 {word}"]), submit(lanes, encoder, ["2" + " " * (len(word) + 1)])]
        free = submit(lanes, encoder, ["3"])
        encoder.gate.set()
        for answer in hit:
            with pytest.raises(ModelError, match=r"MemoryError|Panic: at the disco"):
                answer.get()
        assert free.get()["a"][0, 0] == 3
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_no_memory_between_two_steps_stops_no_thread(opened, monkeypatch):
    """H2, where no request is at hand to be told."""
    lanes, encoder = opened(), Fake()
    look, failures = waiting.Queue.unprepared, iter([True, False, True])

    def fails(queue, late):
        if next(failures, False):
            raise MemoryError
        return look(queue, late)

    monkeypatch.setattr(waiting.Queue, "unprepared", fails)
    assert submit(lanes, encoder, ["7"]).get()["a"][0, 0] == 7
    assert next(failures, None) is None


def test_a_broken_content_costs_the_others_nothing(opened):
    lanes, encoder = opened(), Fake()
    blocked(lanes, encoder)
    bad = submit(lanes, encoder, ["1       ", "2 broken", "3       ", "4 broken"])
    good = submit(lanes, encoder, ["5       "])
    declined = submit(lanes, encoder, ["6 declined"])
    beside = submit(lanes, encoder, ["7         "])
    encoder.gate.set()
    with pytest.raises(ContentError) as caught:
        bad.get()
    assert caught.value.faults == ((1, "broken"), (3, "broken"))
    assert good.get()["a"][0, 0] == 5
    with pytest.raises(InputError, match="no"):
        declined.get()
    assert beside.get()["a"][0, 0] == 7


def test_an_encoder_that_loses_rows_is_caught(opened):
    lanes, encoder = opened(), Fake()
    encoder.run = lambda items, wanted: {"a": np.zeros((len(items) + 1, 2), np.float32)}
    with pytest.raises(ModelError, match="2 features came for 1 rows"):
        submit(lanes, encoder, ["1"]).get()
    encoder.run = lambda items, wanted: {}
    with pytest.raises(ModelError, match="KeyError"):
        submit(lanes, encoder, ["1"]).get()
    encoder.size = lambda item: None
    with pytest.raises(ModelError, match="TypeError"):
        submit(lanes, encoder, ["1"]).get()
    encoder.prepare = lambda contents: []
    with pytest.raises(ModelError, match="0 of 1 contents"):
        submit(lanes, encoder, ["1"]).get()


def test_no_contents_are_no_request(opened):
    with pytest.raises(InputError, match="no contents"):
        submit(opened(), Fake(), [])


def test_an_answer_that_cannot_be_handed_over_is_logged(opened, caplog):
    lanes, encoder = opened(ran=lambda *run: 1 / 0), Fake()

    def fails(result):
        raise Panic

    lanes.submit(encoder, ["1"], A, fails, deadline=time.monotonic() + FOREVER)
    lanes.call(lambda: 1 / 0)
    assert submit(lanes, encoder, ["2"]).get()["a"][0, 0] == 2
    lanes.close(FOREVER)
    assert {record.levelname for record in caplog.records} == {"ERROR"}


def test_other_work_goes_in_front(opened):
    lanes, encoder, order = opened(), Fake(), []
    encoder.during = lambda items: order.append("run")
    blocked(lanes, encoder)
    answer = submit(lanes, encoder, ["1"])
    for i in range(3):
        lanes.call(lambda i=i: order.append(i))
    encoder.gate.set()
    answer.get()
    assert order == ["run", 0, 1, 2, "run"]


def test_every_run_is_counted(opened):
    runs = []
    lanes, encoder = opened(ran=lambda *run: runs.append(run)), Fake()
    submit(lanes, encoder, ["11", "12", "13"]).get()
    lanes.close(FOREVER)
    [(key, rows, units, seconds)] = runs
    assert (key, rows, units) == ("k", 3, 6)
    assert seconds > 0


def test_spare_work_waits_until_nothing_else_does(opened, monkeypatch):
    monkeypatch.setattr(module, "SPARE", 3)
    lanes, encoder = opened(), Fake()
    blocked(lanes, encoder)
    spare = submit(lanes, encoder, ["8", "9"], spare=True)
    answers = [submit(lanes, encoder, [f"{i}" + " " * i]) for i in range(1, 4)]
    with pytest.raises(Overloaded):
        submit(lanes, encoder, ["6", "7"], spare=True)
    encoder.gate.set()
    for answer in (*answers, spare):
        answer.get()
    assert encoder.runs[-1] == ["8", "9"]
    submit(lanes, encoder, ["1"] * 10, spare=True).get()  # more than may wait, when none does


def test_closing_finishes_what_was_accepted(opened):
    """G5: nothing accepted is lost; what is new is refused."""
    lanes, encoder = opened(2), Fake()
    first, second = blocked(lanes, encoder), blocked(lanes, encoder)
    answers = [submit(lanes, encoder, [f"{i}{j}" for j in range(10)]) for i in range(100)]
    spare = submit(lanes, encoder, ["1"], spare=True)
    closed = []
    closing = threading.Thread(target=lambda: closed.append(lanes.close(FOREVER)))
    closing.start()
    with pytest.raises(Draining, match="stop"):
        spare.get()
    with pytest.raises(Draining):
        submit(lanes, encoder, ["1"])
    after = Answer()
    encoder.during = lambda items: None if after.there.is_set() else lanes.call(lambda: after("called"))
    encoder.gate.set()
    closing.join()
    assert closed == [True]
    for i, answer in enumerate(answers):
        assert answer.get()["a"][:, 0].tolist() == [int(f"{i}{j}") for j in range(10)]
    assert first.there.is_set()
    assert second.there.is_set()
    assert after.there.is_set()
    assert not any(worker.is_alive() for worker in lanes._workers)
    with pytest.raises(Draining):
        lanes.call(lambda: None)
    assert lanes.close(0) is True


def test_closing_does_not_wait_for_ever(opened):
    lanes, encoder = opened(), Fake()
    stuck = blocked(lanes, encoder)
    waits = submit(lanes, encoder, ["1"])
    assert lanes.close(0) is False
    for answer in (stuck, waits):
        with pytest.raises(Draining):
            answer.get()
    encoder.gate.set()
    for worker in lanes._workers:
        worker.join(FOREVER)
    assert len(stuck.results) == len(waits.results) == 1
    assert encoder.runs == [["0"]]


def test_lanes_of_encoders_that_are_gone_are_gone(opened):
    """G2: ten thousand encoders one after the other, and none is held."""
    lanes = opened(2)
    seen = weakref.WeakSet()
    answers = []
    for i in range(10_000):
        encoder = Fake(str(i))
        seen.add(encoder)
        answers.append(submit(lanes, encoder, ["1"]))
        if i % 100 == 99:
            for answer in answers:
                answer.get()
            answers.clear()
    del encoder, answer
    lanes.call((there := threading.Event()).set)
    assert there.wait(FOREVER)
    assert lanes.close(FOREVER)
    gc.collect()
    assert not seen
    assert not lanes._due.lanes
    assert len(lanes._costs) <= module.COSTS


def test_a_ticket_does_not_hold_its_answer(opened):
    lanes, encoder = opened(), Fake()
    blocked(lanes, encoder)
    answers = [submit(lanes, encoder, ["1"]), submit(lanes, encoder, ["2"])]
    tickets = [answer.ticket for answer in answers]
    tickets[1].cancel()
    encoder.gate.set()
    answers[0].get()
    lanes.call((there := threading.Event()).set)
    assert there.wait(FOREVER)
    held = [weakref.ref(answer) for answer in answers]
    del answers
    gc.collect()
    assert [answer() for answer in held] == [None, None]
    assert [ticket.contents for ticket in tickets] == [(), ()]


def test_an_idle_thread_holds_nothing(opened, caplog):
    caplog.set_level(logging.CRITICAL, logger="headstart.serving.lanes")  # a record would hold the traceback
    lanes, encoder = opened(), Fake()
    submit(lanes, encoder, ["1"]).get()
    broken = submit(lanes, encoder, ["1 memory"])
    with pytest.raises(ModelError):
        broken.get()
    lanes.call((there := threading.Event()).set)  # the run is over when this is done
    assert there.wait(FOREVER)
    held = weakref.ref(encoder)
    del encoder, broken
    gc.collect()
    assert held() is None


def test_of_one_key_an_old_and_a_new_encoder_run_apart(opened):
    """G1: a question that began on the old one is not answered by the new one, which may not know its features."""
    lanes, old, new = opened(), Fake(names="a"), Fake(names="b")
    blocked(lanes, old)
    first, second = submit(lanes, old, ["1"], A), submit(lanes, new, ["2"], B)
    old.gate.set()
    assert list(first.get()) == ["a"]
    assert list(second.get()) == ["b"]
    assert old.runs == [["0"], ["1"]]
    assert new.runs == [["2"]]
