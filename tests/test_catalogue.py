"""The catalogue says where everything was read; installed backbones are listed without opening a network."""

import json
import re

import pytest

from headstart import backbones
from headstart.errors import ModelError, NotFound
from headstart.hub import catalogue, pins, remote


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    return tmp_path


def test_the_catalogue_is_whole():
    found = catalogue.entries()
    assert len(found) >= 25
    assert {entry.modality for entry in found} == {"text", "image"}
    for entry in found:
        assert re.fullmatch(r"[a-z0-9][a-z0-9.\-]*", entry.name)
        if entry.source == "built in":
            assert entry.name in backbones.BUILT_IN
        else:
            repo, revision = remote.parse(entry.source)
            assert revision is None
            assert repo
            assert entry.name not in backbones.BUILT_IN


def test_nothing_is_stated_without_a_document():
    for entry in catalogue.entries():
        assert "read in November 2026" in entry.checked
        stated = {
            key for key in ("width", "depth", "parameters", "size", "file") if getattr(entry, key) is not None
        } | ({"licence"} if entry.licence != "unknown" else set())
        assert not stated & set(entry.unverified), entry.name
        missing = {"width", "depth", "parameters", "size"} - stated
        assert missing <= set(entry.unverified), (entry.name, missing - set(entry.unverified))
        if entry.licence == "unknown":
            assert "licence" in entry.unverified
        if entry.prefix:
            assert "prefix" in entry.checked


def test_find_offers_near_names():
    assert catalogue.find("bge-small-en").width == 384
    with pytest.raises(NotFound, match="Did you mean 'bge-small-en'"):
        catalogue.find("bge-smal-en")


@pytest.mark.parametrize(
    "line",
    ["width = 0", "width = true", 'colour = "red"', 'unverified = ["nothing"]', 'modality = "sound"', 'about = ""'],
)
def test_a_damaged_catalogue_is_refused(tmp_path, monkeypatch, line):
    text = 'name = "a"\nsource = "hf:a/b"\nmodality = "text"\nabout = "x"\nchecked = "y"\n'
    key = line.split(" =")[0]
    kept = "".join(one + "\n" for one in text.splitlines() if not one.startswith(key + " "))
    path = tmp_path / "catalogue.toml"
    path.write_text(f"[[backbone]]\n{kept}{line}\n")
    monkeypatch.setattr(catalogue, "FILE", path)
    catalogue.entries.cache_clear()
    with pytest.raises(ModelError, match=r"catalogue\.toml: a"):
        catalogue.entries()
    monkeypatch.undo()
    catalogue.entries.cache_clear()


def test_listed_rows_show_what_is_pinned(cache):
    (cache / "backbones").mkdir()
    pins.pin("hf:BAAI/bge-small-en-v1.5", "a" * 40, {"config.json": "0" * 64}, follow=True)
    rows = {row["name"]: row for row in catalogue.listed()}
    assert rows["bge-small-en"]["revision"] == "a" * 40
    assert rows["bge-base-en"]["revision"] is None
    assert rows["minilm"]["installed"]
    assert not rows["bge-small-en"]["installed"]


def test_a_damaged_installed_backbone_is_listed_with_its_fault(cache):
    assert catalogue.installed() == []
    folder = cache / "backbones" / "broken"
    folder.mkdir(parents=True)
    (folder / "backbone.json").write_text('{"format": 1')
    (cache / "backbones" / ".half").mkdir()
    (row,) = catalogue.installed()
    assert row["name"] == "broken"
    assert "broken" in row["fault"]


def test_pins_outlive_and_are_checked(cache):
    digests = {"config.json": "0" * 64, "model.onnx": "1" * 64}
    pins.pin("hf:a/b", "c" * 40, digests, follow=True)
    pins.pin("hf:a/b", "d" * 40, {"config.json": "2" * 64}, follow=False)
    assert pins.revision("hf:a/b") == "c" * 40
    assert pins.files("hf:a/b", "c" * 40) == digests
    assert pins.files("hf:a/b", "e" * 40) == {}
    pins.check("hf:a/b", "c" * 40, {"config.json": "0" * 64})
    with pytest.raises(ModelError, match=f"{'1' * 64}.*{'3' * 64}"):
        pins.check("hf:a/b", "c" * 40, {"model.onnx": "3" * 64})
    with pytest.raises(ModelError):
        pins.pin("hf:a/b", "c" * 40, {"model.onnx": "3" * 64}, follow=True)
    assert pins.files("hf:a/b", "c" * 40) == digests


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"format": 2, "revisions": {}, "digests": {}}', '{"format": 1, "revisions": {"a": 1}, "digests": {}}',
     '{"format": 1, "revisions": {}, "digests": {"a": {"b": "no digest"}}}', '{"format": 1}', "{" * 100000],
)  # fmt: skip
def test_damaged_pins_are_refused(cache, content):
    (cache / "backbones").mkdir()
    pins.place().write_text(content)
    with pytest.raises(ModelError, match="is damaged"):
        pins.revision("hf:a/b")


def test_pins_are_plain_json(cache):
    pins.pin("hf:a/b", "c" * 40, {"x": "0" * 64}, follow=True)
    assert json.loads(pins.place().read_text())["revisions"] == {"hf:a/b": "c" * 40}
