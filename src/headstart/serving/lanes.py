"""Work of many requests on a few threads, batched as it comes.

A lane holds what waits for one encoder. A free thread prepares (tokenises) what has arrived, then takes one run: rows
of equal size, of the lane whose turn it is, as many as the encoder's budget holds. It never waits for more to come, so
that an idle server answers at once; under load rows gather while the threads are busy, and runs fill by themselves.

What may wait is bounded by its estimated seconds, and by rows and bytes. A request is measured against what waits
before it, never against its own size.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from headstart.backbones.onnx import cores
from headstart.errors import ContentError, Draining, HeadstartError, InputError, ModelError, Overloaded, TooLate
from headstart.serving.waiting import Cost, Done, Features, Lane, Piece, Queue, Row, Ticket, nobody, scattered, together

if TYPE_CHECKING:
    from headstart.serving.encoders import Encoder

__all__ = ["Lanes", "Ticket"]

SPARE = 4_096  # rows of spare work that may wait
COSTS = 1_024  # lanes whose cost is remembered
log = logging.getLogger(__name__)


class Lanes:
    """Threads that prepare and run what is submitted, and call `done` with the features."""

    def __init__(
        self,
        *,
        threads: int | None = None,
        max_wait: float = 0.005,
        limit: float = 5.0,
        ran: Callable[[str, int, int, float], None] | None = None,
    ) -> None:
        """Start `threads` threads, one a core without it.

        max_wait: seconds that a row which is due may be passed over for fuller runs of another size. limit: seconds of
        work that may wait. ran(lane key, rows, units, seconds) is called after every run.
        """
        self.threads, self.max_wait, self.limit, self.ran = threads or cores(), max_wait, limit, ran
        self._lock = threading.Lock()  # guards everything below
        self._awake = threading.Condition(self._lock)
        self._calls: deque[Callable[[], None]] = deque()
        self._call = 0.0  # seconds of one of them, lately
        self._due, self._spare = Queue(), Queue()
        self._costs: OrderedDict[str, Cost] = OrderedDict()
        self._idle, self._alive, self._closing = 0, self.threads, False
        self._workers = [
            threading.Thread(target=self._work, name=f"headstart-lane-{i}", daemon=True) for i in range(self.threads)
        ]
        for worker in self._workers:
            worker.start()

    def submit(
        self,
        encoder: Encoder,
        contents: Sequence[Any],
        wanted: frozenset[str],
        done: Done,
        *,
        deadline: float,
        spare: bool = False,
        admitted: bool = False,
    ) -> Ticket:
        """Have n contents encoded; `done` is called once, on a thread of the lanes, unless the ticket is cancelled.

        It gets the features wanted, fingerprint -> (n, d), or an error: ContentError with every content that cannot be
        read, by its place in `contents`; TooLate when rows still waited at `deadline` (time.monotonic()).
        spare: work for idle threads, given up when there are none for long. admitted: a further part of a request that
        was let in just now, so it is not refused for load. Raises Overloaded, Draining, InputError.
        """
        if not contents:
            raise InputError("no contents were given.")
        size = _length(contents)
        n, now = len(contents), time.monotonic()
        with self._lock:
            if self._closing:
                raise Draining("the server is about to stop and takes nothing new.")
            if not admitted:
                self._admit(n, deadline - now, spare)
            queue = self._spare if spare else self._due
            cost = self._cost(encoder.key)
            units = min(size * cost.rate, n * cost.largest)
            lane = queue.lane(encoder, cost)
            ticket = Ticket(
                self._lock, queue, lane, contents, wanted, done, deadline, now, size, units / n, n, n, n, units
            )  # fmt: skip
            queue.add(ticket)
            if self._idle:
                self._awake.notify()
        return ticket

    def call(self, work: Callable[[], None]) -> None:
        """Do other short work on the same threads, in front of runs. Raises Draining when they have ended."""
        with self._lock:
            if not self._alive:
                raise Draining("the server has stopped.")
            self._calls.append(work)
            if self._idle:
                self._awake.notify()

    def busy(self) -> float | None:
        """None when a request would be let in, else after how many seconds to come again. Needs no lock."""
        seconds = self._seconds()
        if seconds <= self.limit and not self._due.full():
            return None
        return max(0.1, seconds - self.limit / 2)

    def waiting(self) -> tuple[int, float]:
        """How many rows wait, and the estimated seconds until the last of them is done; without spare work."""
        return self._due.rows, self._seconds()

    def close(self, grace: float) -> bool:
        """Refuse what is new, finish what was accepted, end the threads; True when that took at most `grace` seconds.

        Spare work that waits gets Draining at once, and so does, from here, what is not finished after `grace`.
        """
        end = time.monotonic() + grace
        with self._lock:
            self._closing = True
            rest = self._cleared(self._spare)
            self._awake.notify_all()
        self._refuse(rest)
        for worker in self._workers:
            if worker is not threading.current_thread():
                worker.join(max(0.0, end - time.monotonic()))
        with self._lock:
            rest = self._cleared(self._due)
            alive = self._alive
            self._awake.notify_all()
        self._refuse(rest)
        return not rest and not alive

    def _seconds(self) -> float:
        """Estimated seconds until all that waits is done."""
        return (self._due.seconds() + len(self._calls) * self._call) / self.threads

    def _admit(self, rows: int, left: float, spare: bool) -> None:
        """Raise Overloaded when too much waits for one more request, or more than can be done in the seconds `left`."""
        seconds, again = self._seconds(), self.busy()
        if again is None and seconds > max(0.0, left):
            again = seconds
        if spare and self._spare.rows and self._spare.rows + rows > SPARE:
            again = again or 1.0
        if again is not None:
            raise Overloaded(f"too much waits here, {seconds:.1f} seconds of work. Come again in {again:.1f} s.", again)

    def _cost(self, key: str) -> Cost:
        """What the work of a lane costs, remembered when the lane has gone."""
        cost = self._costs.setdefault(key, Cost())
        self._costs.move_to_end(key)
        if len(self._costs) > COSTS:
            self._costs.popitem(last=False)
        return cost

    def _cleared(self, queue: Queue) -> list[Ticket]:
        """Take everything out of a queue, under the lock; the tickets that have no outcome yet."""
        rest = [ticket for ticket in tuple(queue.open) if ticket.end()]
        queue.fresh.clear()
        queue.lanes.clear()
        queue.rows = queue.bytes = 0
        return rest

    def _refuse(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            _tell(ticket, Draining("the server stops and could not finish this."))

    def _work(self) -> None:
        """A thread's life. Nothing of one step is held while the next is waited for."""
        while True:
            try:
                if not self._once():
                    return
            except BaseException:  # also of what a library throws through, or no memory: the thread must live
                log.exception("work on a serving thread failed")

    def _once(self) -> bool:
        """Wait for something to do and do it; False when nothing more will come."""
        with self._lock:
            while (step := self._next()) is None:
                if self._closing:  # what others still bring, they finish
                    self._alive -= 1
                    return False
                self._idle += 1
                self._awake.wait()
                self._idle -= 1
            if self._idle and (self._calls or self._due.ready() or self._spare.ready()):
                self._awake.notify()
        step()
        return True

    def _next(self) -> Callable[[], None] | None:
        """The next step, under the lock."""
        if self._calls:
            return partial(self._called, self._calls.popleft())
        late: list[Ticket] = []
        step: Callable[[], None] | None = None
        for queue in (self._due, self._spare):
            if pieces := queue.unprepared(late):
                step = partial(self._prepare, queue, pieces)
                break
            if queue.fresh:  # only given up ones so far
                return partial(self._late, late, None)
            if found := queue.run(self._idle + 1, self.max_wait, late):
                step = partial(self._run, *found)
                break
        return partial(self._late, late, step) if late else step

    def _called(self, work: Callable[[], None]) -> None:
        """Do other work, and note what it costs."""
        began = time.perf_counter()
        work()
        self._call += 0.05 * (time.perf_counter() - began - self._call)

    def _late(self, late: list[Ticket], step: Callable[[], None] | None) -> None:
        """Answer those whose deadline has passed, then do the step."""
        for ticket in late:
            _tell(ticket, TooLate("this waited until its deadline, and nothing was computed for it."))
        if step is not None:
            step()

    def _prepare(self, queue: Queue, pieces: list[Piece]) -> None:
        """Prepare pieces of tickets together, and put their rows in the lane."""
        lane = pieces[0][0].lane
        contents = [content for _, _, taken in pieces for content in taken]
        try:
            items = lane.encoder.prepare(contents)
            sizes = [lane.encoder.size(item) for item in items]
            if len(items) != len(contents):
                raise ModelError(f"{len(items):,} of {len(contents):,} contents were prepared.")
            length = sum(ticket.bytes * len(taken) // ticket.rows for ticket, _, taken in pieces)
            lane.cost.prepared(sizes, length)
        except BaseException as error:
            for piece in pieces:
                if len(pieces) > 1:
                    self._prepare(queue, [piece])
                else:
                    self._unprepared(queue, piece, error)
            return
        with self._lock:
            pace, at = lane.cost.unit / self.threads, 0
            for ticket, first, taken in pieces:
                end = at + len(taken)
                queue.place(ticket, first, items[at:end], sizes[at:end], pace)
                at = end

    def _unprepared(self, queue: Queue, piece: Piece, error: BaseException) -> None:
        """A piece of one ticket cannot be prepared."""
        ticket, first, taken = piece
        with self._lock:
            queue.remove(ticket, len(taken))
            whole = ticket.contents
        if isinstance(error, ContentError):
            bad = [(first + place, why) for place, why in error.faults if 0 <= place < len(taken)]
            if bad:
                self._settle([(ticket, len(taken), bad)])
                return
        if isinstance(error, InputError) and len(whole) > len(taken):
            try:
                ticket.lane.encoder.prepare(whole)  # which says the place in all of them
            except InputError as better:
                error = better
        self._fail([ticket], error)

    def _run(self, lane: Lane, size: int, rows: list[Row]) -> None:
        """Run rows of equal size, and again without those that cannot be read."""
        todo = [rows] if rows else []
        while todo:
            rows = todo.pop()
            wanted = rows[0][2].wanted
            began = time.perf_counter()
            try:
                X = lane.encoder.run([row[4] for row in rows], wanted)
                for name in wanted:
                    if len(X[name]) != len(rows):
                        raise ModelError(f"{len(X[name]):,} features came for {len(rows):,} rows.")
                lane.cost.ran(len(rows) * size, seconds := time.perf_counter() - began)
                self._settle(scattered(rows, X))
                if self.ran is not None:
                    self.ran(lane.encoder.key, len(rows), len(rows) * size, seconds)
            except ContentError as error:
                faults = {place: why for place, why in error.faults if 0 <= place < len(rows)}
                self._settle([(rows[i][2], 1, [(rows[i][3], why)]) for i, why in faults.items()])
                good = [row for i, row in enumerate(rows) if i not in faults]
                if not faults:
                    self._fail(_tickets(rows), error)
                elif good:
                    todo.append(good)
            except InputError as error:
                if len(tickets := _tickets(rows)) > 1:  # it does not say whose fault it is
                    todo += [[row for row in rows if row[2] is ticket] for ticket in tickets]
                else:
                    self._fail(tickets, error)
            except BaseException as error:  # a MemoryError, a panic in a library: the others must go on
                self._fail(_tickets(rows), error)

    def _settle(self, outcomes: Sequence[tuple[Ticket, int, list[tuple[int, str]]]]) -> None:
        """So many rows of tickets have an outcome; answer those that were waiting for the last."""
        ended = []
        with self._lock:
            for ticket, rows, faults in outcomes:
                ticket.faults += faults
                ticket.left -= rows
                if not ticket.left and ticket.end():
                    ended.append(ticket)
        for ticket in ended:
            outcome: Features | BaseException
            try:
                outcome = ContentError(sorted(ticket.faults)) if ticket.faults else together(ticket)
            except BaseException as error:
                outcome = _told(error)
            _tell(ticket, outcome)

    def _fail(self, tickets: Sequence[Ticket], error: BaseException) -> None:
        """Answer tickets with an error."""
        if not isinstance(error, HeadstartError):
            log.error("a run on a serving thread failed", exc_info=error)
        with self._lock:
            ended = [ticket for ticket in tickets if ticket.end()]
        for ticket in ended:
            _tell(ticket, _told(error))


def _tell(ticket: Ticket, outcome: Features | BaseException) -> None:
    """Call `done`, and let go of it and of what the ticket held."""
    done, ticket.done, ticket.parts = ticket.done, nobody, []
    try:
        done(outcome)
    except BaseException:
        log.exception("an answer could not be handed over")


def _told(error: BaseException) -> BaseException:
    """An error as every request that it hits is told: one of ours, without what it held in memory."""
    if isinstance(error, HeadstartError):
        return error
    return ModelError(f"the features could not be computed: {type(error).__name__}: {str(error)[:500]}.")


def _tickets(rows: Sequence[Row]) -> list[Ticket]:
    """Whose rows these are, each once."""
    return list(dict.fromkeys(row[2] for row in rows))


def _length(contents: Sequence[Any]) -> int:
    """Characters of texts, bytes of pictures."""
    return sum(len(content) for content in contents if isinstance(content, str | bytes))
