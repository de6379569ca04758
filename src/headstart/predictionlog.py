"""What was answered, kept in the project's database, and what turned out to be right.

Rows are handed over in memory and written by one thread, many in a commit, so that a request never waits for the disk
unless it asks to. What was acknowledged, by `done` or by an answer of `feedback`, survives kill -9 and a power cut.
What waits is bounded, and so is what is kept: the oldest predictions go, but not those with feedback.
"""

from __future__ import annotations

import logging
import sqlite3
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from headstart import database, jsontext
from headstart.errors import Conflict, InputError, NotFound, StorageError

PAUSE = 0.05  # seconds that rows wait for company
GROUP = 2_000  # rows that are company enough; a commit takes about so many
RETRY = 0.5  # seconds before a disk that refused is tried again
PRUNED = 4_000  # rows looked at in a commit to remove the oldest; more than come in with it

BOUND = 1_000  # characters of a label, and labels of a list

Label = str | int | float | list[str]
Done = Callable[[BaseException | None], None]


class Row(NamedTuple):
    """One prediction. `at`: unix seconds; `label`: JSON; `feature`: fingerprint[:16]:content key, hex."""

    id: str
    at: float
    name: str
    model: str
    version: str
    digest: str
    arm: str
    label: str | None
    probability: float | None
    unknown: bool
    feature: str
    input: str | None = None
    by: str | None = None


Put = tuple[Sequence[Row], Done | None]

_COLUMNS = ", ".join(Row._fields)
_INSERT = f"INSERT INTO predictions ({_COLUMNS}) VALUES ({', '.join('?' * len(Row._fields))}) ON CONFLICT (id) DO NOTHING"  # a commit that failed may yet have reached the disk; it is written again


_UNFIT = (ValueError, OverflowError, sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.IntegrityError)


class PredictionLog:
    """Predictions on their way to the database. Thread-safe.

    `room`: rows that may wait; `keep`: rows kept. `waiting`, `written`, `shed` (refused: no room, or not storable) and
    `failures` (commits) count; `failed` says why the last commit failed, None when it did not.
    Raises ModelError and StorageError where the database cannot be opened.
    """

    def __init__(self, root: Path, *, room: int = 100_000, keep: int = 10_000_000) -> None:
        self.root, self.room, self.keep = root, room, keep
        self.waiting = self.written = self.shed = self.failures = 0
        self.failed: str | None = None
        self._puts: deque[Put] = deque()
        self._urgent = self._closing = False
        self._wake = threading.Condition()
        self._connection = database.open(root)  # the writing thread's
        self._asked = database.open(root)  # for find and feedback, one at a time
        self._asking = threading.Lock()
        self._mark = 0  # predictions up to this seq are pruned
        self._thread = threading.Thread(target=self._run, name="headstart-log", daemon=True)
        self._thread.start()

    def put(self, rows: Sequence[Row], done: Done | None = None) -> bool:
        """Hand rows over, without waiting; False, and counted, when there is no room for them.

        `done` is called once, on the writing thread: with None after the commit is on the disk, else with the reason
        why these rows were not written and will not be.
        """
        with self._wake:
            if self._closing or self.waiting + len(rows) > self.room:
                self.shed += len(rows)
                return False
            first = not self._puts
            self._puts.append((rows, done))
            self.waiting += len(rows)
            self._urgent |= done is not None
            if first or self._urgent or self.waiting >= GROUP:
                self._wake.notify()
        return True

    def flush(self) -> None:
        """Wait until everything handed over so far is on the disk. Raises StorageError where it is not."""
        written, faults = threading.Event(), []

        def done(error: BaseException | None) -> None:
            faults.append(error)
            written.set()

        if self.put((), done):
            written.wait()
            if faults[0] is not None:
                raise faults[0]

    def find(self, id: str) -> dict[str, Any] | None:
        """One prediction with its feedback, or None. Waits for the disk when need be. Raises StorageError."""
        found = self._stored(id)
        if found is None and self.waiting:
            self.flush()
            found = self._stored(id)
        return found

    def _stored(self, id: str) -> dict[str, Any] | None:
        with self._asking, database.refusals(database.file(self.root)):
            found = self._asked.execute(f"{_READ} WHERE p.id = ?", [id]).fetchall()
        return _prediction(found[0]) if found else None

    def feedback(self, id: str, label: Label, *, by: str | None = None, replace: bool = False) -> dict[str, Any]:
        """Note what was right: a text, a number or a list of texts. It is on the disk when this returns.

        Saying the same again answers the same; another label is a Conflict unless it may `replace` the first. Raises
        NotFound, InputError, Conflict, StorageError.
        """
        value = checked_label(label)
        if self.find(id) is None:
            time.sleep(3 * PAUSE)  # another process may have just made it, and writes it within that time
        with (
            self._asking,
            database.refusals(database.file(self.root)),
            database.transaction(self._asked),
        ):
            found = self._asked.execute(f"{_READ} WHERE p.id = ?", [id]).fetchall()
            if not found:
                raise NotFound(f"no prediction {_short(id)} is kept here.")
            said = _prediction(found[0])
            if (kind := _kind(said["label"])) != _kind(value):
                raise InputError(f"prediction {_short(id)} is {kind}, so its label is {kind} too, not {_kind(value)}.")
            before: dict[str, Any] | None = said["feedback"]
            if before is not None and before["label"] == value:
                return before
            if before is not None and not replace:
                raise Conflict(
                    f"prediction {_short(id)} has the label {_short(before['label'])} already, not {_short(value)}. "
                    "Say replace to change it."
                )
            now = [time.time(), jsontext.write(value), by]
            self._asked.execute("INSERT INTO feedback (id, at, label, by) VALUES (?, ?, ?, ?)", [id, *now])
        return _feedback(id, now)

    def close(self) -> None:
        """Write what waits and end. Raises StorageError where the disk refuses it; those rows are lost."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        self._connection.close()
        self._asked.close()
        if self.waiting:
            raise StorageError(f"{self.waiting:,} predictions were not written. {self.failed}")

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._puts or self._closing)
                self._wake.wait_for(lambda: self._urgent or self._closing or self.waiting >= GROUP, PAUSE)
                if not self._puts:
                    return
                taken, n = [], 0
                while self._puts and n < GROUP:
                    taken.append(self._puts.popleft())
                    n += len(taken[-1][0])
                self._urgent = any(done for _, done in self._puts)
            fault, spoilt = self._write(taken)
            again = [put for put in taken if fault is not None and put[1] is None]
            with self._wake:
                self._puts.extendleft(reversed(again))
                self.waiting -= n - sum(len(rows) for rows, _ in again)
                self.failed = str(fault) if fault is not None else None
            for number, (_, done) in enumerate(taken):
                if done is not None:
                    _call(done, fault or spoilt.get(number))
            if fault is not None and self._gives_up(fault):
                return

    def _gives_up(self, fault: BaseException) -> bool:
        """Wait a while after a fault; when the log is closing, tell those who wait that it is over."""
        with self._wake:
            self.failures += 1
            self._wake.wait_for(lambda: self._closing, RETRY)
            waiting = [done for _, done in self._puts if done is not None] if self._closing else []
        for done in waiting:
            _call(done, fault)
        return self._closing

    def _write(self, puts: Sequence[Put]) -> tuple[BaseException | None, dict[int, BaseException]]:
        """Commit rows: the fault where that failed; else by number the puts with something that cannot be stored."""
        spoilt: dict[int, BaseException] = {}
        try:
            with database.refusals(database.file(self.root)), database.transaction(self._connection):
                try:
                    self._connection.executemany(_INSERT, [row for rows, _ in puts for row in rows])
                except _UNFIT:
                    spoilt = self._write_singly(puts)
                mark = self._prune()
        except Exception as error:  # whatever it is, this thread goes on, and `failed` says it
            return error, {}
        self._mark = mark
        lost = sum(len(puts[number][0]) for number in spoilt)
        self.shed += lost
        self.written += sum(len(rows) for rows, _ in puts) - lost
        return None, spoilt

    def _write_singly(self, puts: Sequence[Put]) -> dict[int, BaseException]:
        """Store what can be stored, put by put."""
        spoilt: dict[int, BaseException] = {}
        for number, (rows, _) in enumerate(puts):
            try:
                self._connection.executemany(_INSERT, rows)
            except _UNFIT as error:
                spoilt[number] = InputError(f"a prediction cannot be stored: {error}.")
                logging.getLogger("headstart").error("%s", spoilt[number])
        return spoilt

    def _prune(self) -> int:
        """Remove some of the oldest predictions beyond `keep`; returns up to which seq that is done."""
        (end,) = self._connection.execute("SELECT coalesce(max(seq), 0) - ? FROM predictions", [self.keep]).fetchone()
        if end <= self._mark:
            return self._mark
        (mark,) = self._connection.execute(
            "SELECT max(seq) FROM (SELECT seq FROM predictions WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?)",
            [self._mark, end, PRUNED],
        ).fetchone()
        if mark is None:
            return self._mark
        self._connection.execute(
            "DELETE FROM predictions WHERE seq > ? AND seq <= ?"
            " AND NOT EXISTS (SELECT 1 FROM feedback WHERE feedback.id = predictions.id)",
            [self._mark, mark],
        )
        return int(mark)


def _call(done: Done, fault: BaseException | None) -> None:
    try:
        done(fault)
    except Exception:
        logging.getLogger("headstart").exception("a caller of the prediction log failed at its answer")


def checked_label(label: Any) -> Label:
    """A label that can be kept, a list sorted and without repetitions. Raises InputError."""
    if isinstance(label, list) and len(label) <= BOUND and all(isinstance(part, str) for part in label):
        return sorted({_checked_text(part) for part in label})
    if isinstance(label, str):
        return _checked_text(label)
    if isinstance(label, int | float) and not isinstance(label, bool) and abs(label) <= sys.float_info.max:
        return label
    raise InputError(f"a label is a text, a finite number or a list of up to {BOUND:,} texts, not {_short(label)}.")


def _checked_text(text: str) -> str:
    if not 0 < len(text) <= BOUND or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError(f"a label has 1 to {BOUND:,} characters of Unicode; {_short(text)} has {len(text):,}.")
    return text


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


_READ = (
    f"SELECT {', '.join('p.' + column for column in Row._fields)}, f.at, f.label, f.by FROM predictions AS p"
    " LEFT JOIN feedback AS f ON f.seq = (SELECT max(seq) FROM feedback WHERE id = p.id)"
)


def _feedback(id: str, row: Sequence[Any]) -> dict[str, Any]:
    return {"id": id, "label": jsontext.parse(row[1]), "at": row[0], "by": row[2]}


def _prediction(row: Sequence[Any]) -> dict[str, Any]:
    found = dict(zip(Row._fields, row[:-3], strict=True))
    found["label"] = None if found["label"] is None else jsontext.parse(found["label"])
    found["unknown"] = bool(found["unknown"])
    return {**found, "feedback": None if row[-3] is None else _feedback(found["id"], row[-3:])}


def rows(root: Path, *, limit: int, name: str | None = None) -> list[dict[str, Any]]:
    """The last predictions, of one name or all, the newest first, as `find` gives them."""
    where, values = ("WHERE p.name = ?", [name]) if name is not None else ("", [])
    with database.reading(root) as connection:
        if connection is None:
            return []
        query = f"{_READ} {where} ORDER BY p.seq DESC LIMIT ?"
        return [_prediction(row) for row in connection.execute(query, [*values, limit])]


def _kind(label: Any) -> str:
    return "a list of texts" if isinstance(label, list) else "a text" if isinstance(label, str) else "a number"
