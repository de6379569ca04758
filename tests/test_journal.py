"""What a training has finished: written whole or not at all, and read as it was."""

import json

import numpy as np
import pytest

from headstart import journal
from headstart.errors import HeadstartError, StorageError

FACTS = {"epochs": 3, "history": [{"loss": 0.5, "held": None, "right": 0.25}]}
ARRAYS = {"W": np.arange(6, dtype=np.float32).reshape(2, 3), "scores": np.zeros((0, 3), np.float32)}
CHANGED = {
    "/model/layer.0/q.weight/up": np.ones((4, 1), np.float32),
    "onnx::MatMul_17": np.full((2, 2), 0.1, np.float32),
    "名 前": np.zeros(3, np.float32),
}


def test_what_was_written_is_read(tmp_path):
    file = tmp_path / "blocks-2-0"
    assert journal.read(file) is None
    journal.write(file, FACTS, ARRAYS, CHANGED)
    facts, arrays, changed = journal.read(file)
    assert facts == FACTS
    for found, given in ((arrays, ARRAYS), (changed, CHANGED)):
        assert set(found) == set(given)
        for name, value in given.items():
            assert found[name].dtype == np.float32
            np.testing.assert_array_equal(found[name], value)
    journal.write(file, FACTS, ARRAYS, {})
    assert journal.read(file)[2] == {}


def test_a_network_is_finished_when_its_index_is_there(tmp_path, monkeypatch):
    """A crash between the two files, or before them, leaves an unfinished one, which can be gone on with."""
    file = tmp_path / "x"
    journal.unfinished(file).write_bytes(b"so far")
    written = []

    def refused(path, content):
        written.append(path.name)
        if len(written) > 1:
            raise KeyboardInterrupt
        path.write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr(journal, "write_file", refused)
        with pytest.raises(KeyboardInterrupt):
            journal.write(file, FACTS, ARRAYS, CHANGED)
    assert written == ["x.safetensors", "x.json"]
    assert journal.read(file) is None
    assert journal.unfinished(file).read_bytes() == b"so far"
    journal.write(file, FACTS, ARRAYS, CHANGED)
    assert journal.read(file) is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json", "x.safetensors"]


def test_names_that_share_a_beginning_are_not_mixed_up(tmp_path):
    for name in ("all-1", "all-10"):
        journal.write(tmp_path / name, {"epochs": len(name)}, {}, {})
    assert journal.read(tmp_path / "all-1")[0] == {"epochs": 5}
    assert journal.read(tmp_path / "all-10")[0] == {"epochs": 6}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b'{"epochs": 1}', b'{"changed": ["a", "b"]}'])
def test_a_damaged_index_is_said(tmp_path, content):
    file = tmp_path / "x"
    journal.write(file, FACTS, ARRAYS, {"a": np.zeros(2, np.float32)})
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"x\.json.*--resume"):
        journal.read(file)


def test_damaged_arrays_are_said(tmp_path):
    file = tmp_path / "x"
    journal.write(file, FACTS, ARRAYS, CHANGED)
    whole = (tmp_path / "x.safetensors").read_bytes()
    for content in (b"", whole[:40], whole[:-3], b"x" * 100):
        (tmp_path / "x.safetensors").write_bytes(content)
        with pytest.raises(HeadstartError, match=r"x\.safetensors"):
            journal.read(file)
    (tmp_path / "x.safetensors").unlink()
    with pytest.raises(HeadstartError, match=r"x\.safetensors"):
        journal.read(file)


def test_the_index_is_plain_json(tmp_path):
    journal.write(tmp_path / "x", FACTS, ARRAYS, CHANGED)
    assert json.loads((tmp_path / "x.json").read_text("utf-8"))["changed"] == sorted(CHANGED)
