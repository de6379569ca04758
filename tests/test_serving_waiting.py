"""Which rows are next: turns by time, fuller runs first, and no request that makes the others wait for its end."""

import threading
import time
from types import SimpleNamespace

import pytest

from headstart.serving import waiting
from headstart.serving.waiting import Cost, Queue, Ticket, nobody

WANTED = frozenset({"a"})


def encoder(key="k", budget=64):
    return SimpleNamespace(key=key, budget=budget)


def ticket(queue, encoder, sizes, *, arrived=0.0, pace=0.0, late=False):
    """A ticket whose rows of these sizes are prepared, one due `pace` seconds a unit after the other."""
    n = len(sizes)
    lane = queue.lane(encoder, Cost())
    deadline = time.monotonic() + (-1 if late else 60)
    made = Ticket(
        threading.Lock(), queue, lane, [""] * n, WANTED, nobody, deadline, arrived, 10, 0.0, n, n, n, 0.0
    )  # fmt: skip
    queue.add(made)
    while queue.fresh and (pieces := queue.unprepared([])):
        for one, first, taken in pieces:
            queue.place(one, first, [f"{encoder.key}{size}" for size in sizes[first : first + len(taken)]],
                        sizes[first : first + len(taken)], pace)  # fmt: skip
    return made


def run(queue, *, share=1, max_wait=1e12):
    """The lane's key, the size and the number of rows of the next run."""
    found = queue.run(share, max_wait, [])
    return found and (found[0].encoder.key, found[1], len(found[2]))


def test_the_fullest_run_goes_first_and_the_oldest_once_it_is_overdue():
    for max_wait, expected in ((1e12, [(7, 5), (3, 1), (2, 1)]), (0.0, [(3, 1), (7, 5), (2, 1)])):
        queue, one = Queue(), encoder()
        ticket(queue, one, [3], arrived=1.0)
        ticket(queue, one, [7] * 5 + [2], arrived=2.0)
        assert [run(queue, max_wait=max_wait)[1:] for _ in range(3)] == expected
        assert run(queue) is None


def test_of_full_runs_the_oldest_goes_first():
    queue, one = Queue(), encoder(budget=12)
    ticket(queue, one, [4] * 3, arrived=1.0)
    ticket(queue, one, [6] * 30, arrived=2.0)
    assert run(queue) == ("k", 4, 3)


def test_the_lane_with_the_oldest_row_is_next():
    queue, first, second = Queue(), encoder("first"), encoder("second")
    ticket(queue, first, [4] * 40, arrived=2.0)
    ticket(queue, second, [4], arrived=1.0)
    assert [run(queue)[0] for _ in range(4)] == ["second", "first", "first", "first"]
    assert not queue.lanes


@pytest.mark.parametrize(
    ("share", "rows", "expected"),
    [(1, 16, [16]), (1, 17, [9, 8]), (1, 40, [14, 13, 13]), (2, 16, [8, 8]), (4, 16, [4] * 4), (16, 16, [4] * 4), (2, 3, [3])],
)  # fmt: skip
def test_runs_are_alike_and_neither_too_long_nor_too_short(share, rows, expected):
    queue = Queue()
    ticket(queue, encoder(), [4] * rows)
    found = []
    while one := run(queue, share=share if not found else max(1, share - len(found))):
        found.append(one[2])
    assert found == expected


def test_a_row_larger_than_the_budget_runs_alone():
    queue = Queue()
    ticket(queue, encoder(budget=4), [9, 9])
    assert [run(queue), run(queue), run(queue)] == [("k", 9, 1), ("k", 9, 1), None]


def test_a_long_request_does_not_make_a_short_one_wait_for_its_end():
    """C24: the rows of a request are due one after the other."""
    queue, one = Queue(), encoder()
    long = ticket(queue, one, [16] * 400, arrived=100.0, pace=0.01)  # 64 seconds of work
    for _ in range(3):
        run(queue, max_wait=0.0)
    ticket(queue, one, [16], arrived=101.0)
    _, _, rows = queue.run(1, 0.0, [])
    assert sum(row[2] is not long for row in rows) == 1  # with the rows due a second after the long one came


def test_those_given_up_are_passed_over_a_bounded_number_at_a_time(monkeypatch):
    monkeypatch.setattr(waiting, "LOOK", 5)
    queue, one = Queue(), encoder()
    for _ in range(100):
        ticket(queue, one, [4]).end()
    live = ticket(queue, one, [4], arrived=1.0)
    steps = []
    while (found := queue.run(1, 1e12, [])) and not found[2]:
        steps.append(queue.rows)
    assert len(steps) > 1
    assert found[2][0][2] is live
    assert queue.rows == queue.bytes == 0
    assert not queue.lanes


def test_a_ticket_too_late_is_told_once_and_its_units_count_no_more():
    queue, one, late = Queue(), encoder(), []
    gone = ticket(queue, one, [4, 4, 5])
    live = ticket(queue, one, [4])
    gone.deadline = 0
    lane, size, rows = queue.run(1, 1e12, late)
    assert late == [gone]
    assert size == 4
    assert [row[2] for row in rows] == [live]
    assert lane.units == 0
    assert queue.run(1, 1e12, late) == (lane, 5, [])
    assert late == [gone]
    assert queue.run(1, 1e12, late) is None


def test_seconds_are_those_of_the_units_that_wait():
    queue, one = Queue(), encoder()
    first = ticket(queue, one, [4, 6])
    first.lane.cost.ran(100, 2.0)
    assert queue.seconds() == pytest.approx(10 * 0.02)
    second = ticket(queue, one, [30])
    assert queue.seconds() == pytest.approx(40 * 0.02)
    second.end()
    assert queue.seconds() == pytest.approx(10 * 0.02)
    run(queue, max_wait=0.0)
    assert queue.seconds() in (pytest.approx(4 * 0.02), pytest.approx(6 * 0.02))


def test_a_cost_follows_the_runs_and_forgives_a_sleep():
    cost = Cost()
    assert cost.unit == 0
    for _ in range(50):
        cost.ran(100, 1.0)
    assert cost.unit == pytest.approx(0.01)
    cost.ran(100, 1000.0)  # the machine slept
    assert 0.01 < cost.unit < 0.02
    for _ in range(100):
        cost.ran(100, 3.0)
    assert cost.unit == pytest.approx(0.03, rel=0.01)


def test_contents_that_are_not_prepared_are_measured_by_their_length():
    cost = Cost()
    for _ in range(100):
        cost.prepared([10, 30], 400)
    assert cost.rate == pytest.approx(0.1, rel=1e-3)
    assert cost.largest == 30
    cost.prepared([0], 0)  # an empty text
    assert 0 < cost.rate < 0.1
