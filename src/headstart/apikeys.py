"""Who may ask a server: keys with scopes, of which only a hash is kept.

A secret is "hs_" + an id of 8 letters and digits + "_" + 43 characters that hold 256 random bits. It is shown once, when
it is made. A fast hash is enough for it: SHA-256 of 256 random bits cannot be searched, unlike that of a password.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headstart import database
from headstart.errors import InputError, NotFound, near

SCOPES = ("predict", "read", "deploy")
LENGTH = 55  # characters of a secret
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # without l, o, 0 and 1, which are misread
_COLUMNS = "id, name, scopes, rate, made, expires, revoked"


@dataclass(frozen=True)
class Key:
    """What is known of a key. `rate`: requests a second, None without bound; `expires`: unix seconds."""

    id: str
    name: str
    scopes: frozenset[str]
    rate: float | None
    made: str
    expires: float | None
    revoked: str | None


def _key(row: Any) -> Key:
    return Key(row[0], row[1], frozenset(row[2].split()), *row[3:7])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def create(
    root: Path, name: str, scopes: Iterable[str], rate: float | None = None, expires: float | None = None
) -> tuple[Key, str]:
    """Make a key; returns it and its secret, which cannot be read again. `expires`: unix seconds.

    Raises InputError, ModelError and StorageError.
    """
    wanted = frozenset([scopes] if isinstance(scopes, str) else scopes)
    if not 0 < len(name) <= 64 or not name.isprintable() or name != name.strip():
        raise InputError(f"{name[:80]!r} cannot name a key: use 1 to 64 characters that can be seen.")
    if not wanted or wanted - set(SCOPES):
        wrong = ", ".join(sorted(wanted - set(SCOPES))) or "nothing"
        raise InputError(f"a key may {', '.join(SCOPES)}, one or several of them; {wrong} was asked.")
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise InputError(f"the rate is {rate}: it is a number of requests a second, more than 0.")
    if expires is not None and not (math.isfinite(expires) and expires > time.time()):
        raise InputError("the key would have expired already: give a time that is to come.")
    with database.writing(root) as connection:
        if connection.execute("SELECT 1 FROM keys WHERE name = ? AND revoked IS NULL", [name]).fetchone():
            raise InputError(f"there is a key {name!r} already: revoke it first, or choose another name.")
        taken = {row[0] for row in connection.execute("SELECT id FROM keys")}
        id = next(i for i in iter(_new_id, None) if i not in taken)
        secret = f"hs_{id}_{secrets.token_urlsafe(32)}"
        key = Key(id, name, wanted, rate, _now(), expires, None)
        connection.execute(
            f"INSERT INTO keys ({_COLUMNS}, sha256) VALUES (?, ?, ?, ?, ?, ?, NULL, ?)",
            [id, name, " ".join(sorted(wanted)), rate, key.made, expires, _digest(secret).hex()],
        )
    return key, secret


def _new_id() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(8))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def keys(root: Path) -> list[Key]:
    """All keys, revoked ones too, the oldest first."""
    with database.reading(root) as connection:
        if connection is None:
            return []
        return [_key(row) for row in connection.execute(f"SELECT {_COLUMNS} FROM keys ORDER BY made, rowid")]


def revoke(root: Path, id_or_name: str) -> Key:
    """Make a key void, by its id or its name. Raises NotFound where there is none that is valid."""
    known = [key for key in keys(root) if key.revoked is None]
    found = next((key for key in known if key.id == id_or_name), None)
    found = found or next((key for key in known if key.name == id_or_name), None)
    if found is None:
        raise NotFound(f"no valid key {id_or_name[:80]!r}.{near(id_or_name, [key.name for key in known])}")
    with database.writing(root) as connection:
        query = "UPDATE keys SET revoked = coalesce(revoked, ?) WHERE id = ?"
        connection.execute(query, [_now(), found.id])
        return _key(connection.execute(f"SELECT {_COLUMNS} FROM keys WHERE id = ?", [found.id]).fetchone())


class Keyring:
    """The valid keys of a project, in memory, to check many requests against. Thread-safe."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._keys: dict[str, tuple[Key, bytes]] = {}
        self.ever = False  # whether a key was ever made, though it may be revoked

    @classmethod
    def of(cls, root: Path) -> Keyring:
        """Read the keys of a project. Raises ModelError and StorageError."""
        ring = cls(root)
        ring.reload()
        return ring

    def reload(self) -> None:
        """Read the keys again; at an error the old ones stay."""
        with database.reading(self.root) as connection:
            query = f"SELECT {_COLUMNS}, sha256 FROM keys"
            rows = connection.execute(query).fetchall() if connection else []
        found = [(_key(row), bytes.fromhex(row[7])) for row in rows]
        self._keys, self.ever = {key.id: (key, sha) for key, sha in found if key.revoked is None}, bool(found)

    @property
    def known(self) -> bool:
        """Whether there is a key that is not revoked; one that has expired counts, for it opens nothing to everybody."""
        return bool(self._keys)

    def check(self, secret: str) -> Key | None:
        """The key of a secret, or None. An id that is not known costs the same work as one that is."""
        if len(secret) != LENGTH:
            return None
        digest = _digest(secret)
        key, expected = self._keys.get(secret[3:11], _NOBODY)
        same = hmac.compare_digest(digest, expected)
        return key if same and key is not None and (key.expires is None or time.time() < key.expires) else None


_NOBODY: tuple[Key | None, bytes] = (None, secrets.token_bytes(32))
