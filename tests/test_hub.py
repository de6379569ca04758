"""Files from the Hub, against a local server that speaks its API (rows A12, A15 of the faults, and the network's own)."""

import hashlib
import socket

import pytest

from headstart.errors import InputError, ModelError, NotFound, StorageError
from headstart.hub import remote
from hubserver import serving

BIG = bytes(range(256)) * 4000  # 1 MB
FILES = {"config.json": b'{"model_type": "bert"}', "onnx/model.onnx": BIG, "README.md": b"---\nlicense: mit\n---\n"}


@pytest.fixture
def online(monkeypatch, tmp_path):
    """The local server as the Hub, a cache of its own, no token, quick attempts."""
    for variable in ("HEADSTART_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(remote, "WAIT", 0.0)
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.put("ann/small", FILES)
        yield server


def test_parse():
    assert remote.parse("hf:ann/small") == ("ann/small", None)
    assert remote.parse("hf:ann/small@v1.0") == ("ann/small", "v1.0")
    for bad in ("hf:small", "hf:../x", "hf:a/..", "hf:a/b@", "hf:a/b@../c", "hf:a/b/c", "hf:a b/c", "hf:http://x/y"):
        with pytest.raises(InputError, match=r"hf:OWNER/NAME|revision"):
            remote.parse(bad)


def test_a_listing_names_commit_sizes_and_digests(online):
    found = remote.listing("ann/small")
    assert found.revision == online.main["ann/small"]
    assert found.files["onnx/model.onnx"] == remote.Remote(len(BIG), hashlib.sha256(BIG).hexdigest())
    assert found.files["config.json"].git
    assert not found.files["config.json"].sha256
    assert remote.listing("ann/small", found.revision) == found


def test_a_file_comes_whole_with_its_digest_and_its_progress(online, tmp_path):
    said = []
    listed = remote.listing("ann/small")
    digest = remote.fetch(listed, "onnx/model.onnx", tmp_path / "a" / "model.onnx", lambda *s: said.append(s))
    assert (tmp_path / "a" / "model.onnx").read_bytes() == BIG
    assert digest == hashlib.sha256(BIG).hexdigest()
    assert said[-1] == ("onnx/model.onnx", len(BIG), len(BIG))
    remote.fetch(listed, "config.json", tmp_path / "config.json")
    before = len(online.requests)
    remote.fetch(listed, "config.json", tmp_path / "config.json")  # it is there: nothing is asked
    assert len(online.requests) == before


def test_a_broken_connection_is_gone_on_from(online, tmp_path):
    online.cut["onnx/model.onnx"] = [300_000, 300_000]
    remote.fetch(remote.listing("ann/small"), "onnx/model.onnx", tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == BIG
    ranges = [one[2] for one in online.asked("resolve")]
    assert ranges == [None, "bytes=300000-", "bytes=600000-"]


def test_after_too_many_breaks_the_next_call_goes_on(online, tmp_path):
    online.cut["onnx/model.onnx"] = [200_000] + [0] * remote.ATTEMPTS
    listed = remote.listing("ann/small")
    with pytest.raises(InputError, match=r"goes on from there|are kept"):
        remote.fetch(listed, "onnx/model.onnx", tmp_path / "m")
    assert not (tmp_path / "m").exists()
    assert (tmp_path / "m.part").stat().st_size == 200_000
    online.requests.clear()
    remote.fetch(listed, "onnx/model.onnx", tmp_path / "m")
    assert [one[2] for one in online.asked("resolve")] == ["bytes=200000-"]
    assert (tmp_path / "m").read_bytes() == BIG


def test_a_server_without_ranges_sends_all_of_it_again(online, tmp_path):
    online.ranges = False
    online.cut["onnx/model.onnx"] = [200_000]
    remote.fetch(remote.listing("ann/small"), "onnx/model.onnx", tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == BIG


def test_a_changed_file_is_refused_and_removed(online, tmp_path):
    changed = BIG[:-1] + b"\0"
    online.swapped["onnx/model.onnx"] = changed
    with pytest.raises(ModelError) as error:
        remote.fetch(remote.listing("ann/small"), "onnx/model.onnx", tmp_path / "m")
    for bytes_ in (BIG, changed):
        assert hashlib.sha256(bytes_).hexdigest() in str(error.value)
    assert list(tmp_path.glob("m*")) == []


def test_a_changed_small_file_is_refused_by_its_git_digest(online, tmp_path):
    online.swapped["config.json"] = FILES["config.json"].replace(b"bert", b"evil")
    with pytest.raises(ModelError, match="git digest"):
        remote.fetch(remote.listing("ann/small"), "config.json", tmp_path / "c")


def test_more_bytes_than_stated_are_not_taken(online, tmp_path):
    online.swapped["onnx/model.onnx"] = BIG * 3
    with pytest.raises(ModelError, match="more than the 1,024,000 bytes"):
        remote.fetch(remote.listing("ann/small"), "onnx/model.onnx", tmp_path / "m")
    assert list(tmp_path.glob("m*")) == []


def test_a_damaged_file_of_an_earlier_call_is_refused(online, tmp_path):
    (tmp_path / "m").write_bytes(b"x" * len(BIG))
    with pytest.raises(ModelError, match="sha256"):
        remote.fetch(remote.listing("ann/small"), "onnx/model.onnx", tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_model_says_what_to_do(online, tmp_path, monkeypatch, status):
    online.gated["ann/small"] = status
    listed = remote.listing("ann/small")
    with pytest.raises(InputError, match=r"gated \(no token was sent\).*hf auth login.*HF_TOKEN"):
        remote.fetch(listed, "config.json", tmp_path / "c")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(InputError, match="your token was sent"):
        remote.fetch(listed, "config.json", tmp_path / "c")
    monkeypatch.setenv("HF_TOKEN", online.token)
    remote.fetch(listed, "config.json", tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == FILES["config.json"]


def test_what_is_not_there(online, tmp_path):
    with pytest.raises(NotFound, match=r"ann/smal'.*Did you mean 'ann/small'"):
        remote.listing("ann/smal")
    with pytest.raises(NotFound, match="no such revision"):
        remote.listing("ann/small", "v9")
    with pytest.raises(NotFound, match=r"holds no onnx/modell.onnx.*Did you mean 'onnx/model.onnx'"):
        remote.fetch(remote.listing("ann/small"), "onnx/modell.onnx", tmp_path / "x")


def test_no_network_at_all(online, tmp_path, monkeypatch):
    listed = remote.listing("ann/small")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(InputError, match=f"127.0.0.1:{port} cannot be reached.*Check the network"):
        remote.listing("ann/small")
    with pytest.raises(InputError, match="cannot be reached"):
        remote.fetch(listed, "config.json", tmp_path / "c")


@pytest.mark.parametrize("variable", ["HEADSTART_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_asks_nothing(online, tmp_path, monkeypatch, variable):
    listed = remote.listing("ann/small")
    monkeypatch.setenv(variable, "1")
    online.requests.clear()
    with pytest.raises(InputError, match=f"{variable} is set"):
        remote.listing("ann/small")
    with pytest.raises(InputError, match=f"{variable} is set"):
        remote.fetch(listed, "config.json", tmp_path / "c")
    assert online.requests == []


def snapshot(folder, revision, files):
    """Files as the Hub's library keeps them: blobs, and links to them at a commit."""
    root = folder / "models--ann--small"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(revision)
    (root / "blobs").mkdir()
    for name, content in files.items():
        blob = root / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        link = root / "snapshots" / revision / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)


def test_what_the_hubs_cache_holds_is_taken_from_there(online, tmp_path, monkeypatch):
    revision = online.main["ann/small"]
    snapshot(tmp_path / "hf", revision, FILES)
    listed = remote.listing("ann/small")
    online.requests.clear()
    remote.fetch(listed, "onnx/model.onnx", tmp_path / "m")
    assert online.requests == []
    assert not (tmp_path / "m").is_symlink()
    monkeypatch.setenv("HEADSTART_OFFLINE", "1")
    found = remote.listing("ann/small")
    assert found.local
    assert found.revision == revision
    assert set(found.files) == set(FILES)
    remote.fetch(found, "config.json", tmp_path / "c")
    assert online.requests == []


def test_names_that_lead_out_of_the_folder_are_refused(online):
    online.put("ann/evil", {"config.json": b"{}", "../../etc/passwd": b"x"})
    with pytest.raises(ModelError, match="leads out"):
        remote.listing("ann/evil")


def test_nothing_is_told_but_what_is_asked(online, tmp_path):
    remote.fetch(remote.listing("ann/small"), "config.json", tmp_path / "c")
    assert [one[:2] for one in online.requests] == [
        ("GET", "/api/models/ann/small"),
        ("GET", f"/ann/small/resolve/{online.main['ann/small']}/config.json"),
    ]


def test_a_token_is_not_carried_to_another_host(online, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", online.token)
    with serving() as other:
        other.put("ann/small", FILES)
        online.elsewhere = other.url
        remote.fetch(remote.listing("ann/small"), "onnx/model.onnx", tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == BIG
    assert online.tokens == [f"Bearer {online.token}"]
    assert other.tokens == [None]


def test_a_full_disk_is_said_before_the_download(online, tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    listed = remote.listing("ann/small")
    online.requests.clear()
    with pytest.raises(StorageError, match="has 1,024,000 bytes, and 1,000 are free"):
        remote.fetch(listed, "onnx/model.onnx", tmp_path / "m")
    assert online.requests == []


def test_what_is_no_hub_is_said(online, tmp_path):
    for body in (b"<html>welcome</html>", b"[]", b"{", b'{"sha": 1, "siblings": [1]}'):
        online.body = body
        with pytest.raises((InputError, ModelError), match=r"does not answer as the Hub does|names no commit"):
            remote.listing("ann/small")
