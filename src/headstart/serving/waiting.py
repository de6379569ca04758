"""What waits for the threads of `lanes`: requests to be prepared, their rows by size, and which of them are next.

Turns are by time. The rows of a request are due one after the other, at the pace at which an idle server would run
them: a request of ten thousand rows does not make one of a single row wait for its end. While no row is overdue, the
fullest run goes first, because a row in a full run costs half of what it costs alone.

Nothing here starts a thread or waits. All of it is called under one lock, but for what says that it needs none.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from headstart.serving.encoders import Encoder

ROWS, BYTES = 100_000, 256 << 20  # that may wait, whatever the estimate says
SLICE = 128  # contents prepared in one go
LOOK = 1_000  # rows given up (cancelled, too late) are passed over in one go, so that the lock is held shortly
DECAY = 0.9  # of what earlier runs say of a lane's cost, with every run

Features = Mapping[str, NDArray[np.float32]]
Done = Callable[[Features | BaseException], None]


@dataclass(slots=True, eq=False)
class Ticket:
    """One piece of work that was submitted. Its fields belong to the lanes."""

    lock: threading.Lock
    queue: Queue
    lane: Lane
    contents: Sequence[Any]
    wanted: frozenset[str]
    done: Done
    deadline: float
    arrived: float
    bytes: int
    guess: float  # units of one content that is not prepared
    rows: int  # n
    waiting: int  # rows that lie in the queue, or are being prepared
    left: int  # rows without an outcome
    units: float  # that still wait, estimated for contents that are not prepared
    prepared: int = 0  # contents taken to be prepared, from the first on
    before: float = 0.0  # units of its rows that are prepared
    over: bool = False  # answered, or nobody waits for it
    faults: list[tuple[int, str]] = field(default_factory=list)
    parts: list[tuple[list[int], list[int], Features]] = field(default_factory=list)  # places, rows of X, X

    def cancel(self) -> None:
        """Drop its rows that wait. `done` is not called any more, unless that has begun already."""
        with self.lock:
            if self.end():
                self.done = nobody

    def end(self) -> bool:
        """Give up what waits, under the lock; False when it was over before."""
        if self.over:
            return False
        self.over = True
        self.lane.units -= self.units
        self.queue.open.discard(self)
        self.contents = ()
        return True


Row = tuple[float, int, Ticket, int, Any]  # when it is due, a number, whose it is, its place there, its item
Piece = tuple[Ticket, int, Sequence[Any]]  # whose it is, the place of its first content, contents


@dataclass(slots=True)
class Cost:
    """What the work of a lane costs, as runs have shown."""

    seconds: float = 0.0  # of recent runs, fading
    units: float = 0.0
    rate: float = 0.25  # units a character or byte of content
    largest: int = 0  # units of a content so far

    @property
    def unit(self) -> float:
        """Seconds a unit on one thread; 0 before the first run."""
        return self.seconds / self.units if self.units else 0.0

    def ran(self, units: int, seconds: float) -> None:
        """Take one run into account; one that was stopped half-way (a sleeping machine) counts as a slow one."""
        if self.units:
            seconds = min(seconds, 4 * self.unit * units)
        self.seconds = DECAY * self.seconds + seconds
        self.units = DECAY * self.units + units

    def prepared(self, units: Sequence[int], size: int) -> None:
        """Take the units of contents with `size` characters or bytes into account."""
        self.rate = DECAY * self.rate + (1 - DECAY) * sum(units) / max(1, size)
        self.largest = max(self.largest, *units)


@dataclass(slots=True, eq=False)
class Lane:
    """What waits for one encoder; it goes when nothing does."""

    encoder: Encoder
    cost: Cost
    rows: int = 0
    units: float = 0.0
    groups: dict[tuple[int, frozenset[str]], list[Row]] = field(default_factory=dict)  # heaps, by size and `wanted`


@dataclass(slots=True, eq=False)
class Queue:
    """What waits: tickets to be prepared, and their rows in lanes."""

    rows: int = 0
    bytes: int = 0
    fresh: deque[Ticket] = field(default_factory=deque)
    lanes: dict[int, Lane] = field(default_factory=dict)  # by the encoder's id: an old and a new one may have one key
    number: Iterator[int] = field(default_factory=itertools.count)  # of rows, so that no two compare alike
    open: set[Ticket] = field(default_factory=set)  # without an outcome

    def seconds(self) -> float:
        """Estimated work, on one thread. Needs no lock."""
        return sum(lane.units * lane.cost.unit for lane in tuple(self.lanes.values()))

    def full(self) -> bool:
        """Whether more waits than is ever allowed."""
        return self.rows >= ROWS or self.bytes >= BYTES

    def ready(self) -> bool:
        """Whether a thread would find something to do."""
        return bool(self.fresh) or any(lane.groups for lane in self.lanes.values())

    def lane(self, encoder: Encoder, cost: Cost) -> Lane:
        """The lane of an encoder, a new one where nothing waits for it."""
        lane = self.lanes.get(id(encoder))
        if lane is None:
            lane = self.lanes[id(encoder)] = Lane(encoder, cost)
        return lane

    def add(self, ticket: Ticket) -> None:
        """Let a new ticket wait."""
        lane = ticket.lane
        self.rows += ticket.rows
        self.bytes += ticket.bytes
        lane.rows += ticket.rows
        lane.units += ticket.units
        self.fresh.append(ticket)
        self.open.add(ticket)

    def remove(self, ticket: Ticket, rows: int) -> None:
        """Rows of a ticket wait no longer."""
        ticket.waiting -= rows
        ticket.lane.rows -= rows
        self.rows -= rows
        if not ticket.waiting:
            self.bytes -= ticket.bytes
        if not ticket.lane.rows:
            self.lanes.pop(id(ticket.lane.encoder), None)

    def unprepared(self, late: list[Ticket]) -> list[Piece]:
        """Contents to be prepared together, of one lane. Tickets past their deadline go to `late`."""
        pieces: list[Piece] = []
        room, now = SLICE, time.monotonic()
        for _ in range(LOOK):
            if not self.fresh or not room or (pieces and self.fresh[0].lane is not pieces[0][0].lane):
                break
            ticket = self.fresh[0]
            if ticket.over or ticket.deadline <= now:
                if ticket.end():
                    late.append(ticket)
                self.fresh.popleft()
                self.remove(ticket, ticket.rows - ticket.prepared)
                continue
            first = ticket.prepared
            taken = ticket.contents[first : first + room]
            pieces.append((ticket, first, taken))
            room -= len(taken)
            ticket.prepared += len(taken)
            if ticket.prepared == ticket.rows:
                self.fresh.popleft()
        return pieces

    def place(self, ticket: Ticket, first: int, items: Sequence[Any], sizes: Sequence[int], pace: float) -> None:
        """Let prepared items wait for their turn: those of `ticket` from place `first` on. pace: seconds a unit takes."""
        if ticket.over:
            self.remove(ticket, len(items))
            return
        lane = ticket.lane
        for place, (item, size) in enumerate(zip(items, sizes, strict=True), first):
            heap = lane.groups.setdefault((size, ticket.wanted), [])
            heapq.heappush(heap, (ticket.arrived + ticket.before * pace, next(self.number), ticket, place, item))
            ticket.before += size
        more = sum(sizes) - ticket.guess * len(sizes)
        ticket.units += more
        lane.units += more

    def run(self, share: int, max_wait: float, late: list[Ticket]) -> tuple[Lane, int, list[Row]] | None:
        """A lane, a size and the rows that run next; no rows when those looked at had been given up; None when none wait.

        What waits is shared by `share` threads. Tickets past their deadline go to `late`.
        """
        due = [(heap[0][:2], lane) for lane in self.lanes.values() for heap in lane.groups.values()]
        if not due:
            return None
        (oldest, _), lane = min(due)
        now, budget = time.monotonic(), lane.encoder.budget
        ready = {key: len(heap) * max(1, key[0]) for key, heap in lane.groups.items()}
        if len(ready) == 1:
            [key] = ready
        elif now - oldest > max_wait:
            key = min(ready, key=lambda key: lane.groups[key][0][0])
        else:
            key = max(ready, key=lambda key: (min(ready[key], budget), -lane.groups[key][0][0]))
        heap, size = lane.groups[key], max(1, key[0])
        most = max(1, min(budget, max(budget // 4, sum(ready.values()) // share)) // size)
        count = -(-len(heap) // -(-len(heap) // most))  # runs alike, not a full one and a rest
        rows: list[Row] = []
        for _ in range(min(len(heap), count + LOOK)):
            row = heapq.heappop(heap)
            ticket = row[2]
            if ticket.over:
                pass
            elif ticket.deadline <= now:
                ticket.end()
                late.append(ticket)
            else:
                rows.append(row)
                ticket.units -= key[0]
                lane.units -= key[0]
            self.remove(ticket, 1)
            if len(rows) == count:
                break
        if not heap:
            del lane.groups[key]
        return lane, key[0], rows


def nobody(result: Features | BaseException) -> None:
    """Nobody waits for it."""


def scattered(rows: Sequence[Row], X: Features) -> list[tuple[Ticket, int, list[tuple[int, str]]]]:
    """Give every ticket its part of the features of a run; how many rows each got."""
    parts: dict[Ticket, tuple[list[int], list[int]]] = {}
    for i, (_, _, ticket, place, _) in enumerate(rows):
        places, at = parts.setdefault(ticket, ([], []))
        places.append(place)
        at.append(i)
    for ticket, (places, at) in parts.items():
        ticket.parts.append((places, at, X))
    return [(ticket, len(places), []) for ticket, (places, _) in parts.items()]


def together(ticket: Ticket) -> Features:
    """The features of a ticket from its parts, copied out of the runs, so that it holds nobody else's in memory."""
    found = {}
    for name in ticket.wanted:
        first = ticket.parts[0][2][name]
        if len(first) == ticket.rows and ticket.parts[0][0] == list(range(ticket.rows)):
            found[name] = first  # a run of its own, in order
            continue
        found[name] = np.empty((ticket.rows, *first.shape[1:]), first.dtype)
        for places, at, X in ticket.parts:
            found[name][places] = X[name][at]
    return found
