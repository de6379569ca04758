"""The project's database: made once, kept whole, refused in words. Faults F3, F4, F7, F11, F12, F13; promises P1, P9, P10."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from headstart import apikeys, database, deployments, predictionlog
from headstart.errors import ModelError, NotFound, StorageError

POINTER = deployments.Pointer("tickets", "v1", "a" * 64)


@pytest.fixture
def ordinary():
    """A folder, while we are a user to whom permissions apply."""
    folder = Path(tempfile.mkdtemp(prefix="headstart ö "))
    was = os.geteuid()
    if was == 0:
        os.chown(folder, 65534, -1)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        folder.chmod(0o700)
        os.seteuid(was)
        shutil.rmtree(folder)


def test_reading_makes_nothing(tmp_path):
    assert deployments.table(tmp_path) == {}
    assert deployments.seq(tmp_path) == 0
    assert deployments.history(tmp_path, "a") == []
    assert apikeys.keys(tmp_path) == []
    assert predictionlog.rows(tmp_path, limit=5) == []
    assert not list(tmp_path.iterdir())


def test_a_commit_is_on_the_disk_when_it_returns(tmp_path):
    with closing(database.open(tmp_path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (30_000,)


def test_a_person_can_read_it(tmp_path):
    deployments.deploy(tmp_path, "tickets", POINTER)
    with closing(sqlite3.connect(tmp_path / "headstart.db")) as connection:
        assert connection.execute("SELECT name, live_version FROM deployed").fetchall() == [("tickets", "v1")]


def test_two_processes_make_it_at_once(tmp_path):  # F12
    script = (
        "import sys; from pathlib import Path; from headstart import database; sys.stdin.readline();"
        "database.open(Path(sys.argv[1])).close(); print('made')"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", script, tmp_path], stdin=-1, stdout=-1, stderr=-1, text=True)
        for _ in range(4)
    ]
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [child.communicate(timeout=60) for child in children]
    assert said == [("made\n", "")] * 4
    with closing(database.open(tmp_path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(database.MIGRATIONS),)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_an_older_one_is_brought_up_wholly_or_not_at_all(tmp_path, monkeypatch):  # F11
    deployments.deploy(tmp_path, "tickets", POINTER)
    ours = database.MIGRATIONS
    monkeypatch.setattr(database, "MIGRATIONS", [*ours, ["CREATE TABLE later (x)", "CREATE TABLE later (x)"]])
    with pytest.raises(StorageError, match="later"):
        database.open(tmp_path)
    monkeypatch.setattr(database, "MIGRATIONS", ours)
    assert deployments.table(tmp_path)["tickets"].live == POINTER
    monkeypatch.setattr(database, "MIGRATIONS", [*ours, ["CREATE TABLE later (x)"]])
    with closing(database.open(tmp_path)) as connection:
        assert connection.execute("SELECT count(*) FROM later").fetchone() == (0,)
    monkeypatch.setattr(database, "MIGRATIONS", ours)
    with pytest.raises(ModelError, match=r"headstart\.db: it was written by a newer Headstart \(format 2, .* up to 1"):
        deployments.table(tmp_path)


def test_what_is_no_database_of_ours_is_refused_by_name(tmp_path):  # F4, F9
    path = tmp_path / "headstart.db"
    path.write_bytes(b"hello, I am no database at all" * 100)
    with pytest.raises(ModelError, match=r"headstart\.db: it is damaged or no database"):
        deployments.table(tmp_path)
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(ModelError, match="another program"):
        database.open(tmp_path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=1")
    with pytest.raises(ModelError, match="not as Headstart makes it"):
        deployments.table(tmp_path)


def test_a_damaged_page_is_found(tmp_path):  # F4
    for i in range(60):
        deployments.deploy(tmp_path, f"n{i}", POINTER)
    path = tmp_path / "headstart.db"
    content = bytearray(path.read_bytes())
    for page in range(1, len(content) // 4096):
        content[4096 * page : 4096 * page + 8] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"headstart\.db: it is damaged"):
        deployments.table(tmp_path)


def test_a_torn_log_loses_only_what_was_not_acknowledged(tmp_path):  # F4
    with closing(database.open(tmp_path)) as keeps_the_log:
        deployments.deploy(tmp_path, "a", POINTER)
        assert keeps_the_log is not None
        copy = tmp_path / "copy"
        copy.mkdir()
        shutil.copy(tmp_path / "headstart.db", copy)
        log = (tmp_path / "headstart.db-wal").read_bytes()
        (copy / "headstart.db-wal").write_bytes(log + b"\x17" * 3000)
    assert deployments.table(copy)["a"].live == POINTER


def test_a_folder_that_cannot_be_written(ordinary):  # F7, F13
    ordinary.chmod(0o500)
    with pytest.raises(StorageError, match=r"headstart\.db: could not be read or written"):
        deployments.deploy(ordinary, "a", POINTER)
    ordinary.chmod(0o700)
    deployments.deploy(ordinary, "a", POINTER)
    database.file(ordinary).chmod(0o400)
    ordinary.chmod(0o500)
    assert deployments.table(ordinary)["a"].live == POINTER  # read-only media can be read
    with pytest.raises(StorageError, match=r"headstart\.db"):
        deployments.deploy(ordinary, "a", POINTER)
    ordinary.chmod(0o700)
    database.file(ordinary).chmod(0o600)
    deployments.deploy(ordinary, "b", POINTER)  # and it goes on when it can be written again
    assert sorted(deployments.table(ordinary)) == ["a", "b"]


def test_reading_beside_a_writer_without_the_right_to_write(ordinary):  # F13
    with closing(database.open(ordinary)):
        deployments.deploy(ordinary, "a", POINTER)
        for path in ordinary.iterdir():
            path.chmod(0o400)
        ordinary.chmod(0o500)
        assert len(list(ordinary.iterdir())) == 3  # what the writer is about to put back is read too
        assert deployments.table(ordinary)["a"].live == POINTER


def test_a_copy_of_a_live_project_on_read_only_media(
    ordinary,
):  # F10, F13: refused with the reason, never the old state
    with closing(database.open(ordinary)):
        deployments.deploy(ordinary, "a", POINTER)
        copy = ordinary / "copy"
        copy.mkdir()
        for part in ("headstart.db", "headstart.db-wal"):
            shutil.copy(ordinary / part, copy)
    for part in copy.iterdir():
        part.chmod(0o400)
    copy.chmod(0o500)
    try:
        with pytest.raises(StorageError, match=r"last changes are in headstart\.db-wal"):
            deployments.table(copy)
    finally:
        copy.chmod(0o700)
    for part in copy.iterdir():
        part.chmod(0o600)
    assert deployments.table(copy)["a"].live == POINTER


def test_no_folder_or_no_file(tmp_path):
    with pytest.raises(StorageError, match="there is no folder"):
        database.open(tmp_path / "absent")
    (tmp_path / "headstart.db").mkdir()
    with pytest.raises(StorageError, match=r"headstart\.db"):
        database.open(tmp_path)


class Failing(sqlite3.Connection):
    """A connection whose statements fail from the n-th on, as on a full disk."""

    left = 0

    def execute(self, *given):
        if Failing.left <= 0 and given[0] != "ROLLBACK":
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        Failing.left -= 1
        return super().execute(*given)


def test_a_full_disk_at_every_step(tmp_path, monkeypatch):  # F3, F7
    deployments.deploy(tmp_path, "a", POINTER)
    other = deployments.Pointer("tickets", "v2", "b" * 64)
    connect = sqlite3.connect
    for n in range(1, 40):
        Failing.left = n
        monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=Failing))
        try:
            deployments.deploy(tmp_path, "a", other)
            break
        except StorageError as error:
            said = str(error)
        finally:
            monkeypatch.undo()
        assert "headstart.db: could not be read or written: database or disk is full" in said
        assert len(deployments.history(tmp_path, "a")) == 1
    assert n > 5
    assert deployments.table(tmp_path)["a"].live == other


FULL = """
import resource, sys
from pathlib import Path
from headstart.deployments import Pointer, deploy
from headstart.errors import StorageError
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
for n in range(200):
    try:
        print(deploy(Path(sys.argv[1]), "a", Pointer("tickets", f"v{n}" + "x" * 3000, "d")).seq, flush=True)
    except StorageError as error:
        print(error)
        break
"""


@pytest.mark.parametrize("limit", [0, 3000, 36_863, 70_000, 120_000])
def test_a_really_full_disk(tmp_path, limit):  # F3, F7: the system refuses to make a file longer
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path, str(limit)], capture_output=True, text=True, check=True
    )
    *seqs, error = done.stdout.splitlines()
    assert "headstart.db: could not be read or written: " in error
    assert [c["seq"] for c in deployments.history(tmp_path, "a")] == [int(seq) for seq in seqs]
    assert deployments.deploy(tmp_path, "a", POINTER).seq == len(seqs) + 1  # there is space again


def test_a_transaction_is_undone_at_an_error(tmp_path):
    with closing(database.open(tmp_path)) as connection:

        def failing():
            with database.transaction(connection):
                connection.execute("INSERT INTO deployments (at, name, action, share) VALUES ('', '', '', 0)")
                raise ZeroDivisionError

        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                failing()
        assert connection.execute("SELECT count(*) FROM deployments").fetchone() == (0,)


def test_another_is_first_with_the_migration(tmp_path, monkeypatch):  # F12
    migrate = database._migrate

    def late(connection, path):
        monkeypatch.undo()
        database.open(tmp_path).close()
        migrate(connection, path)

    monkeypatch.setattr(database, "_migrate", late)
    database.open(tmp_path).close()
    assert database._migrate is migrate
    assert deployments.deploy(tmp_path, "a", POINTER).seq == 1


class Busy(sqlite3.Connection):
    """A connection whose first statements meet a lock that SQLite does not wait for."""

    left = 3

    def execute(self, *given):
        if self.left:
            self.left -= 1
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error
        return super().execute(*given)


def test_a_refused_switch_to_wal_is_tried_again(tmp_path):  # F12
    with closing(sqlite3.connect(tmp_path / "new.db", factory=Busy)) as connection:
        database._use_wal(connection)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_switch_to_wal_waits_for_others(tmp_path):  # F12
    with closing(sqlite3.connect(tmp_path / "headstart.db", isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        opener = threading.Thread(target=lambda: database.open(tmp_path).close())
        opener.start()
        time.sleep(0.1)
        other.execute("ROLLBACK")
        opener.join(20)
    assert deployments.deploy(tmp_path, "a", POINTER).seq == 1


def test_an_error_of_the_block_is_left_as_it_is(tmp_path):
    with pytest.raises(NotFound, match="mine"), database.writing(tmp_path):
        raise NotFound("mine")


def test_somebody_keeps_it_locked(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "WAIT", 0.05)
    with closing(database.open(tmp_path)) as other, database.transaction(other):
        with pytest.raises(StorageError, match="another process has kept it locked"):
            deployments.deploy(tmp_path, "a", POINTER)
        assert deployments.table(tmp_path) == {}  # readers do not wait
    deployments.deploy(tmp_path, "a", POINTER)
