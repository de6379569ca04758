import os

import pytest

from headstart.errors import StorageError
from headstart.storage import atomic_file, atomic_folder, write_file


def test_write_replaces_whole(tmp_path):
    target = tmp_path / "a.txt"
    write_file(target, b"one")
    write_file(target, b"two")
    assert target.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_block_leaves_the_old_file_and_no_rubbish(tmp_path):
    target = tmp_path / "a.txt"
    write_file(target, b"old")
    with pytest.raises(RuntimeError), atomic_file(target) as file:  # noqa: PT012 - it is the block's end that is tested
        file.write(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_every_failing_call_is_named_and_leaves_the_old_file(tmp_path, monkeypatch, call):
    target = tmp_path / "a.txt"
    write_file(target, b"old")

    def fail(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StorageError, match=r"a\.txt.*No space left"):
        write_file(target, b"new")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "models" / "v1"
    with pytest.raises(RuntimeError), atomic_folder(target) as folder:  # noqa: PT012 - as above
        (folder / "x").write_text("x")
        raise RuntimeError
    assert list((tmp_path / "models").iterdir()) == []
    with atomic_folder(target) as folder:
        (folder / "x").write_text("x")
        assert not target.exists()
    assert (target / "x").read_text() == "x"
    with pytest.raises(StorageError), atomic_folder(target) as folder:
        (folder / "x").write_text("y")
    assert (target / "x").read_text() == "x"
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["v1"]
