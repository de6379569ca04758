"""Keys: shown once, kept as hashes, compared in constant time. Faults C11, H8."""

import hashlib
import hmac
import math
import re
import time

import hypothesis.strategies as st
import pytest
from hypothesis import given

from headstart import apikeys, database
from headstart.errors import InputError, ModelError, NotFound


def test_a_key_is_made_and_checked(tmp_path):
    key, secret = apikeys.create(tmp_path, "grafana", ["read", "predict"], rate=5.0)
    assert re.fullmatch(r"hs_[a-z2-9]{8}_[A-Za-z0-9_-]{43}", secret)
    assert len(secret) == apikeys.LENGTH
    assert secret[3:11] == key.id
    assert (key.name, key.scopes, key.rate, key.expires) == ("grafana", {"predict", "read"}, 5.0, None)
    ring = apikeys.Keyring.of(tmp_path)
    assert ring.known
    assert ring.check(secret) == key
    assert apikeys.keys(tmp_path) == [key]
    last = "A" if secret[-1] != "A" else "B"
    for wrong in ("", "hs_", secret[:-1], secret + "x", secret[:-1] + last, secret.upper(), "x" + secret[1:]):
        assert ring.check(wrong) is None
    assert ring.check(secret[:11] + "x" + secret[12:]) is None


def test_another_keys_id_does_not_help(tmp_path):
    (one, first), (two, second) = (apikeys.create(tmp_path, name, ["deploy"]) for name in ("one", "two"))
    ring = apikeys.Keyring.of(tmp_path)
    assert ring.check(first) == one
    assert ring.check(second) == two
    assert ring.check(f"hs_{two.id}_{first[12:]}") is None


def test_only_a_hash_is_on_the_disk(tmp_path):  # H8
    key, secret = apikeys.create(tmp_path, "grafana", ["read"])
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret.encode() not in content
    assert secret[12:].encode() not in content
    assert hashlib.sha256(secret.encode()).hexdigest().encode() in content
    ring = apikeys.Keyring.of(tmp_path)
    ring.check(secret)
    assert secret[12:] not in repr(key) + repr(ring) + repr(vars(ring))


def test_the_same_work_for_everybody(tmp_path, monkeypatch):  # C11
    _, secret = apikeys.create(tmp_path, "one", ["read"])
    _, gone = apikeys.create(tmp_path, "two", ["read"])
    apikeys.revoke(tmp_path, "two")
    ring = apikeys.Keyring.of(tmp_path)
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or real(a, b))
    for given_ in (
        secret,
        gone,
        "hs_aaaaaaaa_" + "x" * 43,
        secret[:-1] + "!",
        "é" * apikeys.LENGTH,
        "\ud800" * apikeys.LENGTH,
    ):
        ring.check(given_)
    assert compared == [(32, 32)] * 6


def test_revoking(tmp_path):
    key, secret = apikeys.create(tmp_path, "grafana", ["read"])
    ring = apikeys.Keyring.of(tmp_path)
    gone = apikeys.revoke(tmp_path, "grafana")
    assert gone.id == key.id
    assert gone.revoked is not None
    assert ring.check(secret) == key  # what is in memory stays until it is read again
    ring.reload()
    assert ring.check(secret) is None
    assert not ring.known
    with pytest.raises(NotFound, match="no valid key 'grafana'"):
        apikeys.revoke(tmp_path, "grafana")
    again, _ = apikeys.create(tmp_path, "grafana", ["read"])  # the name is free again
    assert apikeys.keys(tmp_path) == [gone, again]
    assert apikeys.revoke(tmp_path, again.id).id == again.id
    apikeys.create(tmp_path, "prometheus", ["read"])
    with pytest.raises(NotFound, match="Did you mean 'prometheus'"):
        apikeys.revoke(tmp_path, "prometeus")


def test_revoking_one_leaves_the_others(tmp_path):
    ids = [apikeys.create(tmp_path, f"key {i}", ["read"])[0].id for i in range(5)]
    apikeys.revoke(tmp_path, sorted(ids)[2])
    assert {key.id for key in apikeys.keys(tmp_path) if key.revoked} == {sorted(ids)[2]}


def test_expiry_is_by_the_clock(tmp_path, monkeypatch):  # C11
    now = time.time()
    key, secret = apikeys.create(tmp_path, "short", ["read"], expires=now + 100)
    ring = apikeys.Keyring.of(tmp_path)
    assert ring.check(secret) == key
    monkeypatch.setattr(time, "time", lambda: now + 100)
    assert ring.check(secret) is None
    assert ring.known  # a project whose only key has expired is not open to everybody
    with pytest.raises(InputError, match="expired already"):
        apikeys.create(tmp_path, "past", ["read"], expires=now)


def test_names_are_unique_among_those_that_are_valid(tmp_path):
    apikeys.create(tmp_path, "grafana", ["read"])
    with pytest.raises(InputError, match="there is a key 'grafana' already"):
        apikeys.create(tmp_path, "grafana", ["read"])
    assert len(apikeys.keys(tmp_path)) == 1


@pytest.mark.parametrize(
    ("name", "scopes", "rate", "expires", "words"),
    [
        ("", ["read"], None, None, "cannot name a key"),
        ("a\nb", ["read"], None, None, "cannot name a key"),
        (" a", ["read"], None, None, "cannot name a key"),
        ("x" * 65, ["read"], None, None, "cannot name a key"),
        ("a", [], None, None, "nothing was asked"),
        ("a", ["read", "root"], None, None, "root was asked"),
        ("a", ["read"], 0.0, None, "requests a second"),
        ("a", ["read"], math.nan, None, "requests a second"),
        ("a", ["read"], math.inf, None, "requests a second"),
        ("a", ["read"], None, math.inf, "expired"),
    ],
)
def test_what_cannot_be_a_key(tmp_path, name, scopes, rate, expires, words):
    with pytest.raises(InputError, match=words):
        apikeys.create(tmp_path, name, scopes, rate, expires)
    assert not list(tmp_path.iterdir())


def test_a_reload_that_fails_keeps_the_old_keys(tmp_path):
    key, secret = apikeys.create(tmp_path, "a", ["read"])
    ring = apikeys.Keyring.of(tmp_path)
    database.file(tmp_path).write_bytes(b"no database" * 999)
    with pytest.raises(ModelError):
        ring.reload()
    assert ring.check(secret) == key


def test_no_keys_no_database(tmp_path):
    ring = apikeys.Keyring.of(tmp_path)
    assert not ring.known
    assert ring.check("hs_aaaaaaaa_" + "x" * 43) is None
    with pytest.raises(NotFound):
        apikeys.revoke(tmp_path, "a")
    assert not list(tmp_path.iterdir())


@given(st.one_of(st.text(st.characters(), min_size=0, max_size=60), st.text(min_size=55, max_size=55)))
def test_garbage_is_nobody(secret):
    assert apikeys.Keyring(database.Path("/")).check(secret) is None
