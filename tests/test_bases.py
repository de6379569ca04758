"""The lists of base models: what is here, what can be added, and what a licence and a size leave of it."""

import json
import subprocess
import sys

import pytest

from headstart import api, backbones, bases
from headstart.candidates import Limits
from headstart.errors import InputError
from headstart.hub import catalogue, speed
from small_graphs import text_folder

KEYS = {"name", "modality", "width", "depth", "parameters", "licence", "size", "source", "speed"}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def installed(cache):
    backbones.folder().mkdir(parents=True)
    text_folder(backbones.folder() / "mine", name="mine")
    return "mine"


def test_the_lists_have_the_same_facts(installed):
    found = bases.bases()
    assert set(found) == {"built_in", "installed", "catalogue"}
    assert [row["name"] for row in found["built_in"]] == ["colours", "minilm", "words"]
    assert [row["name"] for row in found["installed"]] == ["mine"]
    for row in (*found["built_in"], *found["installed"], *found["catalogue"]):
        assert set(row) >= KEYS, row["name"]
    json.dumps(found, allow_nan=False)


def test_a_damaged_base_is_a_row_with_its_fault(installed):
    (backbones.folder() / "mine" / "backbone.json").write_text("{")
    (row,) = bases.bases()["installed"]
    assert row["name"] == "mine"
    assert row["fault"]


def test_offers_keep_to_licence_and_size(cache):
    everything = bases.offers("text", Limits())
    free = bases.offers("text", Limits(licence="commercial"))
    small = bases.offers("text", Limits(size=150))
    rows = {row["name"]: row for row in catalogue.listed()}
    assert set(free) <= set(everything)
    assert all(rows[name]["licence"] not in ("unknown", "", None) for name in free)
    assert all(rows[name]["size"] <= 150e6 for name in small)
    assert 0 < len(small) < len(everything)
    assert not set(bases.offers("image", Limits())) & set(everything)
    assert bases.offers("text", Limits(licence="no-such-terms")) == []


def test_a_name_that_is_here_is_not_offered(cache):
    backbones.folder().mkdir(parents=True)
    (name, *_) = bases.offers("text", Limits())
    text_folder(backbones.folder() / name, name=name)
    assert name not in bases.offers("text", Limits())


def test_what_is_measured_is_kept_for_the_list(installed, monkeypatch):
    monkeypatch.setattr(speed, "ENOUGH", 0.01)
    monkeypatch.setattr(backbones, "BUILT_IN", ("colours", "fake", "words"))
    found = bases.measure()
    assert set(found) == {"colours", "words", "mine"}
    assert all(value > 0 for value in found.values())
    listed = {row["name"]: row["speed"] for part in bases.bases().values() for row in part if row["name"] in found}
    assert listed == pytest.approx(found)


def test_a_base_is_added_and_removed_by_the_verbs(cache, tmp_path):
    folder = text_folder(tmp_path / "net")
    card = tmp_path / "card.toml"
    card.write_text('modality = "text"\ntokens = 16\n')
    facts = api.add_base(str(folder), name="net", card=card)
    assert facts["name"] == "net"
    assert [row["name"] for row in api.bases()["installed"]] == ["net"]
    assert api.add_base(str(folder), name="net", card=card)["already"]
    api.remove_base("net")
    assert api.bases()["installed"] == []


def test_where_networks_run_is_shown(installed, monkeypatch):
    monkeypatch.setenv("HEADSTART_PROVIDER", "cpu")
    assert api.bases()["provider"] == "cpu"
    monkeypatch.setenv("HEADSTART_PROVIDER", "abacus")
    with pytest.raises(InputError, match="abacus is not known"):
        api.bases()


def test_listing_loads_nothing_heavy(installed):
    script = (
        "import sys; from headstart import bases; bases.bases(); "
        "print(sorted({'onnx', 'onnxruntime', 'tokenizers', 'PIL', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
