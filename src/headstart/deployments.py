"""Which version of a model answers under a name: a log of commits that is only ever added to.

A name has a live version, which answers, and may have a challenger beside it: a `shadow` answers everything unheard, a
`canary` answers a share of the requests. The last commit of a name is its present state. A rollback is a commit too: it
takes a challenger away, or makes live again what was live before; rolling back twice goes back two versions. A server
that starts pins what it serves: a name that was never deployed gets a commit `found` of the version found.

Every change may carry `expected`, the number of the last commit its author saw (0: none): if another came between, it
is refused with Conflict. Names are checked by the caller.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headstart import database
from headstart.errors import Conflict, InputError, NotFound, near

MODES = ("shadow", "canary")


@dataclass(frozen=True)
class Pointer:
    """One version of one model. `digest`: SHA-256 of its card, hex."""

    model: str
    version: str
    digest: str


@dataclass(frozen=True)
class Deployment:
    """What answers under a name. `live` None: undeployed on purpose. `share`: of a canary's requests, 0 to 1.

    `seq` is the number of the commit, ascending over all names of a project; `at` its time (ISO 8601, UTC).
    """

    name: str
    live: Pointer | None
    challenger: Pointer | None
    mode: str | None
    share: float
    seq: int
    at: str


_COLUMNS = (
    "name, live_model, live_version, live_digest, challenger_model, challenger_version, challenger_digest,"
    " mode, share, seq, at"
)


def _pointer(model: str | None, version: str, digest: str) -> Pointer | None:
    return None if model is None else Pointer(model, version, digest)


def _deployment(row: Any) -> Deployment:
    return Deployment(row[0], _pointer(*row[1:4]), _pointer(*row[4:7]), *row[7:11])


def table(root: Path) -> dict[str, Deployment]:
    """The present state of every name ever deployed, sorted by name. Raises ModelError and StorageError."""
    with database.reading(root) as connection:
        if connection is None:
            return {}
        return {
            row[0]: _deployment(row) for row in connection.execute(f"SELECT {_COLUMNS} FROM deployed ORDER BY name")
        }


def seq(root: Path) -> int:
    """The number of the last commit of the project, 0 before the first."""
    with database.reading(root) as connection:
        if connection is None:
            return 0
        return int(connection.execute("SELECT coalesce(max(seq), 0) FROM deployments").fetchone()[0])


def history(root: Path, name: str, last: int | None = None) -> list[dict[str, Any]]:
    """The commits of a name, all or the last few, the oldest first: seq, at, action, live, challenger, mode, share."""
    with database.reading(root) as connection:
        if connection is None:
            return []
        query = f"SELECT {_COLUMNS}, action FROM deployments WHERE name = ? ORDER BY seq DESC LIMIT ?"
        rows = connection.execute(query, [name, -1 if last is None else last]).fetchall()
        commits = [(_deployment(row), row[11]) for row in reversed(rows)]
    return [
        {
            "seq": commit.seq,
            "at": commit.at,
            "action": action,
            "live": vars(commit.live) if commit.live else None,
            "challenger": vars(commit.challenger) if commit.challenger else None,
            "mode": commit.mode,
            "share": commit.share,
        }
        for commit, action in commits
    ]


def lagging(root: Path, current: Mapping[str, str]) -> list[str]:
    """Sentences about names that a newer version stands behind: deployed with another version of a model than its
    current one (`current`: model -> version), or undeployed while there is a model of that name.
    """
    where = "" if root == Path() else f" --project {root}"
    said = []
    for name, one in table(root).items():
        model = one.live.model if one.live else name
        version = current.get(model)
        pointer = f"{model}@{version}"
        if version is None or (one.live and one.live.version == version):
            continue
        state = f"{name} is answered by {one.live.model}@{one.live.version}" if one.live else f"{name} is undeployed"
        if one.challenger and (one.challenger.model, one.challenger.version) == (model, version):
            state += f", with {pointer} as a {one.mode}"
        command = f"headstart deploy {model}{'' if name == model else f' --as {name}'}{where}"
        said.append(f"{state}; to let {pointer} answer: {command}")
    return said


def pin(root: Path, found: Mapping[str, Pointer]) -> list[str]:
    """Commit what answers under names that were never deployed, all at once; the names for which that was done.

    Of two processes that do so at once the first one wins: the other's names are there already, and are left as they are.
    """
    if not found:
        return []
    with database.writing(root) as connection:
        known = {row[0] for row in connection.execute("SELECT name FROM deployed")}
        names = [name for name in found if name not in known]
        for name in names:
            _commit(connection, name, "found", None, found[name])
    return names


def deploy(
    root: Path,
    name: str,
    pointer: Pointer,
    *,
    mode: str | None = None,
    share: float = 0.0,
    expected: int | None = None,
    live: Pointer | None = None,
) -> Deployment:
    """Let `pointer` answer under a name; with a mode it is set beside the live version, which goes on answering.

    `live`: what a name that was never deployed is answered by today; it is noted first, so that there is something to
    stand beside and to go back to. Raises Conflict, also where there is nothing live to stand beside; InputError.
    """
    if mode not in (None, *MODES):
        raise InputError(f"{mode!r} is no way to deploy: use 'shadow' or 'canary', or none to make the version live.")
    if not (0.0 <= share <= 1.0) or (share and mode != "canary"):
        raise InputError(
            f"the share is {share}: a canary takes a share from 0 to 1 of the requests, nothing else does."
        )
    with database.writing(root) as connection:
        before = _before(connection, name, expected, None if mode is None and live == pointer else live)
        if mode is None:
            return _commit(connection, name, "deploy", before, pointer)
        if before is None or before.live is None:
            raise Conflict(f"nothing answers as {name!r} yet, so {mode} has nothing to stand beside: deploy it first.")
        return _commit(connection, name, mode, before, before.live, pointer, mode, float(share))


def rollback(root: Path, name: str, *, expected: int | None = None) -> Deployment:
    """Take the challenger away; without one, let what was live before answer again, and what was undeployed too.

    Raises NotFound where the name was never deployed, Conflict, also where there is nothing to go back to.
    """
    with database.writing(root) as connection:
        before = _before(connection, name, expected, None)
        if before is None:
            raise _unknown(connection, name)
        if before.challenger is not None:
            return _commit(connection, name, "rollback", before, before.live)
        target = _back(connection, before.seq)
        if target is None:
            raise Conflict(f"nothing was live as {name!r} before: there is nothing to go back to.")
        return _commit(connection, name, "rollback", before, target.live)


def behind(root: Path, name: str, *, expected: int | None = None) -> Deployment | None:
    """What a rollback would make of a name, to be looked at first; `seq` and `at` are those of the commit that it would
    undo. None where there is nothing to go back to. Raises Conflict.
    """
    with database.reading(root) as connection:
        before = None if connection is None else _before(connection, name, expected, None)
        if connection is None or before is None:
            return None
        target = before if before.challenger is not None else _back(connection, before.seq)
        return target and replace(target, challenger=None, mode=None, share=0.0, seq=before.seq, at=before.at)


def undeploy(root: Path, name: str, *, expected: int | None = None, live: Pointer | None = None) -> Deployment:
    """Let nothing answer under a name any more, until it is deployed or rolled back. `live` as in `deploy`.

    Raises Conflict, and NotFound where nothing answers already.
    """
    with database.writing(root) as connection:
        before = _before(connection, name, expected, live)
        if before is None:
            raise _unknown(connection, name)
        if before.live is None:
            raise NotFound(f"nothing answers as {name!r}: it was undeployed on {before.at}.")
        return _commit(connection, name, "undeploy", before, None)


def _unknown(connection: sqlite3.Connection, name: str) -> NotFound:
    names = [row[0] for row in connection.execute("SELECT DISTINCT name FROM deployments")]
    return NotFound(f"nothing was ever deployed as {name!r}.{near(name, names)}")


def _before(connection: sqlite3.Connection, name: str, expected: int | None, live: Pointer | None) -> Deployment | None:
    """The present state of a name; a name without one gets it from `live`. Raises Conflict."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM deployed WHERE name = ?", [name]).fetchone()
    before = _deployment(row) if row else None
    last = before.seq if before else 0
    if expected is not None and expected != last:
        raise Conflict(
            f"{name!r} was changed meanwhile: its last commit is number {last}, not {expected}. "
            "Look at it again, then say it again."
        )
    if before is None and live is not None:
        before = _commit(connection, name, "found", None, live)
    return before


def _back(connection: sqlite3.Connection, seq: int) -> Deployment | None:
    """The commit that a rollback of commit `seq` goes back to."""
    query = f"SELECT {_COLUMNS} FROM deployments WHERE seq = (SELECT back FROM deployments WHERE seq = ?)"
    row = connection.execute(query, [seq]).fetchone()
    return _deployment(row) if row else None


def _commit(
    connection: sqlite3.Connection,
    name: str,
    action: str,
    before: Deployment | None,
    live: Pointer | None,
    challenger: Pointer | None = None,
    mode: str | None = None,
    share: float = 0.0,
) -> Deployment:
    """Add one commit; its `back` is the nearest commit before with another live version."""
    back = before
    if action == "rollback" and before is not None:
        back = _back(connection, before.seq)
    while back is not None and (back.live is None or back.live == live):
        back = _back(connection, back.seq)
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    made = Deployment(name, live, challenger, mode, share, 0, at)
    pointers = [
        value
        for pointer in (live, challenger)
        for value in ((pointer.model, pointer.version, pointer.digest) if pointer else (None, None, None))
    ]
    cursor = connection.execute(
        f"INSERT INTO deployments ({_COLUMNS}, action, back) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?, ?, ?)",
        [name, *pointers, mode, share, at, action, back.seq if back else None],
    )
    return replace(made, seq=int(cursor.lastrowid or 0))
