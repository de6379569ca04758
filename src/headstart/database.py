"""The project's one database: PROJECT/headstart.db, which a person can read with `sqlite3`.

It holds what has to be true after a crash: which versions answer (`deployments`), who may ask (`keys`), what was
answered (`predictions`) and what turned out to be right (`feedback`). A commit is on the disk when it returns: WAL with
synchronous=FULL. Several processes may use it at once; who finds it locked waits up to 30 s.

The schema is numbered by `user_version`. An older file is brought up in one transaction, which one of several processes
that start at once makes while the others wait; a newer one is refused.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from headstart.errors import HeadstartError, ModelError, StorageError

WAIT = 30.0  # seconds for somebody else's lock

MIGRATIONS: list[list[str]] = [
    [
        """CREATE TABLE deployments (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            at TEXT NOT NULL,
            name TEXT NOT NULL,
            action TEXT NOT NULL,
            live_model TEXT, live_version TEXT, live_digest TEXT,
            challenger_model TEXT, challenger_version TEXT, challenger_digest TEXT,
            mode TEXT CHECK (mode IN ('shadow', 'canary')),
            share REAL NOT NULL,
            back INTEGER REFERENCES deployments (seq) -- the commit whose live version a rollback makes live again
        )""",
        "CREATE INDEX deployments_by_name ON deployments (name, seq)",
        "CREATE VIEW deployed AS SELECT * FROM deployments WHERE seq IN"
        " (SELECT max(seq) FROM deployments GROUP BY name)",
        "CREATE TRIGGER deployments_are_not_changed BEFORE UPDATE ON deployments"
        " BEGIN SELECT RAISE(ABORT, 'deployments are only ever added to'); END",
        "CREATE TRIGGER deployments_are_not_removed BEFORE DELETE ON deployments"
        " BEGIN SELECT RAISE(ABORT, 'deployments are only ever added to'); END",
        """CREATE TABLE keys (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            sha256 TEXT NOT NULL, -- of the whole secret, hex
            scopes TEXT NOT NULL,
            rate REAL, -- requests a second
            made TEXT NOT NULL,
            expires REAL, -- unix seconds
            revoked TEXT
        )""",
        "CREATE UNIQUE INDEX keys_by_name ON keys (name) WHERE revoked IS NULL",
        """CREATE TABLE predictions (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            at REAL NOT NULL, -- unix seconds
            name TEXT NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL, arm TEXT NOT NULL,
            label TEXT, -- JSON
            probability REAL,
            unknown INTEGER NOT NULL,
            feature TEXT NOT NULL,
            input TEXT,
            by TEXT
        )""",
        "CREATE INDEX predictions_by_name ON predictions (name)",
        """CREATE TABLE feedback (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL REFERENCES predictions (id),
            at REAL NOT NULL, -- unix seconds
            label TEXT NOT NULL, -- JSON; the last row of an id counts
            by TEXT
        )""",
        "CREATE INDEX feedback_by_id ON feedback (id, seq)",
    ]
]


def file(root: Path) -> Path:
    """Where the database of a project is."""
    return root / "headstart.db"


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Make a ModelError (the file is damaged) or a StorageError, which name `path`, of what SQLite raises."""
    try:
        yield
    except (HeadstartError, sqlite3.IntegrityError):
        raise  # said already; or a rule of a table, which the callers ask before
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise ModelError(
                f"{path}: it is damaged or no database ({error}). Put a copy of it in its place, or move it away to "
                "begin anew; no model is lost by that."
            ) from error
        if code == sqlite3.SQLITE_ERROR and "no such" in str(error):
            raise ModelError(f"{path}: it is not as Headstart makes it ({error}). Put a copy in its place.") from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StorageError(
                f"{path}: another process has kept it locked for {WAIT:.0f} s. Try again, or end that process."
            ) from error
        raise StorageError(f"{path}: could not be read or written: {error}.") from error
    except OSError as error:
        raise StorageError(f"{path}: could not be read or written: {error.strerror or error}.") from error


def open(root: Path) -> sqlite3.Connection:
    """A connection to a project's database, made where it is missing. Transactions are the caller's (autocommit).

    It may be used from any thread, by one at a time. Raises ModelError and StorageError.
    """
    path = file(root)
    with refusals(path):
        if not root.is_dir():
            raise StorageError(f"{path}: there is no folder {str(root)!r} to put it into.")
        connection = sqlite3.connect(path, timeout=WAIT, isolation_level=None, check_same_thread=False)
        try:
            _use_wal(connection)
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            if _version(connection, path) < len(MIGRATIONS):
                _migrate(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch a file to WAL. SQLite does not wait for a lock while it does that, so we do."""
    end = time.monotonic() + WAIT
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """The number of the schema. Raises ModelError where it is newer than ours."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if not 0 <= version <= len(MIGRATIONS):
        raise ModelError(
            f"{path}: it was written by a newer Headstart (format {version}, this one reads up to {len(MIGRATIONS)}). "
            "Update Headstart."
        )
    return version


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the schema up to ours, wholly or not at all. Raises ModelError where the file is not ours."""
    with transaction(connection):
        version = _version(connection, path)  # asked again: another process may have been first
        if version == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise ModelError(f"{path}: it is the database of another program. Move it away.")
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """One transaction: committed when the block ends well, else undone."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def writing(root: Path) -> Iterator[sqlite3.Connection]:
    """One writing transaction on a connection of its own; on the disk when the block has ended."""
    with refusals(file(root)), closing(open(root)) as connection, transaction(connection):
        yield connection


@contextmanager
def reading(root: Path) -> Iterator[sqlite3.Connection | None]:
    """One reading transaction, so everything read is of one moment; None where there is no database yet.

    Nothing is made or changed. It works on read-only media too.
    """
    path = file(root)
    with refusals(path):
        if not path.exists():
            yield None
            return
        opened = open(root) if _writable(path) else _open_read_only(path)
        with closing(opened) as connection, transaction(connection, "DEFERRED"):
            yield connection


def _writable(path: Path) -> bool:
    effective = os.access in os.supports_effective_ids
    return all(os.access(place, os.W_OK, effective_ids=effective) for place in (path, path.parent))


def _open_read_only(path: Path) -> sqlite3.Connection:
    """Open a database that cannot be written. Raises StorageError where a part of it waits to be put back."""
    log = path.with_name(path.name + "-wal")
    quiet = not log.exists() or log.stat().st_size == 0
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if quiet else ''}",
        uri=True,
        timeout=WAIT,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        if _version(connection, path) < len(MIGRATIONS):
            raise StorageError(
                f"{path}: it is of an older Headstart and cannot be written here. Open it elsewhere once."
            )
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError) and not quiet:
            raise StorageError(
                f"{path}: its last changes are in {log.name}, which can only be read where the folder can be written "
                f"({error}). Copy both files to such a place."
            ) from error
        raise
    return connection
