"""backbones, select, shrink and export as a user types them: tables for people, JSON for scripts, sentences for mistakes."""

import json
import os
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from headstart import backbones
from headstart.cli import app
from headstart.errors import HeadstartError
from small_graphs import text_folder
from test_shrinking import table

SELECTED = {"backbone", "cut", "accuracy", "low", "high", "mb", "ms"}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with labelled rows, a small installed base of its own cache, and a model on it."""
    folder = tmp_path_factory.mktemp("cli-bases")
    patch = pytest.MonkeyPatch()
    patch.setenv("HEADSTART_CACHE", str(folder / "cache"))
    patch.setenv("COLUMNS", "160")
    patch.chdir(folder)
    backbones.folder().mkdir(parents=True)
    text_folder(backbones.folder() / "tiny", name="tiny")
    text_folder(backbones.folder() / "closed", name="closed", licence="unknown")
    text_folder(folder / "net")
    (folder / "card.toml").write_text('modality = "text"\ntokens = 16\n')
    (folder / "rows.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in table(240)))
    (folder / "unlabelled.csv").write_text("text\n" + "".join(f"{text}\n" for text, _ in table(40)))
    run("fit", "rows.csv", "--name", "words", "--backbone", "tiny", "--json")
    yield folder
    patch.undo()


def run(*arguments):
    """The output of a command that works; a HeadstartError where it does not."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(done.exception, HeadstartError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def process(*arguments, code):
    """The same in a process, for its exit code and what stands on standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "headstart", *arguments], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("command", [["backbones"], ["backbones", "add"], ["backbones", "rm"], ["select"], ["shrink"], ["export"]])  # fmt: skip
def test_every_command_has_help(project, command):
    assert "--json" in run(*command, "--help")


def test_backbones_are_listed(project):
    said = run("backbones")
    assert "Here, for texts" in said
    assert re.search(r"tiny .* wide, .*Apache-2.0", said)
    assert "To add" in said
    found = json.loads(run("backbones", "--json"))
    assert {row["name"] for row in found["installed"]} == {"tiny", "closed"}


def test_backbones_are_added_and_removed(project):
    said = run("backbones", "add", "net", "--name", "other", "--card", "card.toml")
    assert "other" in said
    assert "reads texts" in said
    assert "--backbone other" in said
    assert "is here already" in run("backbones", "add", "net", "--name", "other", "--card", "card.toml")
    assert "removed other" in run("backbones", "rm", "other")
    facts = json.loads(run("backbones", "add", "net", "--name", "other", "--card", "card.toml", "--json"))
    assert facts["name"] == "other"
    assert json.loads(run("backbones", "rm", "other", "--json"))["size"] > 0
    assert "other" in process("backbones", "rm", "other", code=2)


@pytest.fixture(scope="module")
def selected(project):
    return json.loads(run("select", "rows.csv", "--backbone", "tiny", "--json"))


def test_select_gives_json(selected):
    assert {"candidates", "recommended", "seconds", "warnings", "excluded", "not_installed"} <= set(selected)
    assert len(selected["candidates"]) > 3
    for row in selected["candidates"]:
        assert set(row) >= SELECTED
        assert row["low"] <= row["accuracy"] <= row["high"]
    assert "words" in {row["backbone"] for row in selected["candidates"]}
    assert selected["recommended"]["why"]


def test_select_says_its_time_first_and_shows_a_table_and_a_page(project):
    said = run("select", "rows.csv", "--backbone", "tiny", "--html", "choice.html")
    lines = [line.strip() for line in said.splitlines()]
    assert re.match(r"\d+ candidates of 2 base models on 240 examples of 240: about \d+ s", lines[0])
    assert re.match(r"base +cut +accuracy +95 % interval +n +MB +ms +distance", lines[1])
    assert any(line.startswith("Next:   headstart fit rows.csv --backbone") for line in lines)
    assert "licences: " in said
    page = (project / "choice.html").read_text()
    assert "<svg" in page
    assert "tiny" in page
    assert "<script" not in page


def test_select_leaves_out_what_is_not_allowed(project):
    found = json.loads(run("select", "rows.csv", "--licence", "commercial", "--backbone", "tiny", "--backbone", "closed", "--json"))  # fmt: skip
    assert found["excluded"] == [{"backbone": "closed", "why": "its licence is not known, and unknown means no"}]
    assert "closed" not in {row["backbone"] for row in found["candidates"]}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rows.csv", "--backbone", "tinny"], "Did you mean 'tiny'"),
        (["rows.csv", "--licence", "comercial"], "Did you mean 'commercial'"),
        (["rows.csv", "--budget", "-1"], "above 0"),
        (["row.csv"], "Did you mean 'rows.csv'"),
        (["unlabelled.csv"], "label"),
        (["rows.csv", "--backbone", "colours"], "is for image"),
        (["rows.csv", "--html", "nowhere/x.html", "--backbone", "tiny"], "no such folder"),
    ],
)
def test_mistakes_of_select(project, arguments, said):
    with pytest.raises(HeadstartError, match=said) as caught:
        run("select", *arguments)
    assert caught.value.exit_code == 2


def test_a_page_that_cannot_be_written_is_said_before_the_work(project, monkeypatch):
    monkeypatch.setattr("headstart.choosing.select", lambda *_, **__: pytest.fail("it worked first"))
    with pytest.raises(HeadstartError, match="no such folder"):
        run("select", "rows.csv", "--backbone", "tiny", "--html", "nowhere/x.html")


def test_shrink_shows_steps_and_saves(project):
    said = run("shrink", "words", "--max-loss", "20", "--as", "less")
    assert re.search(r"\d+\.\d times smaller and \d+\.\d times as quick; -?\d+\.\d points lost on 1\d\d examples", said)
    assert "as it is" in said
    assert "cut 0" in said
    assert "Model less saved" in said
    assert "sound" in run("verify", "less")
    assert run("predict", "less", "the apple and the plum")
    facts = json.loads(run("shrink", "words", "--max-loss", "20", "--as", "lesser", "--json"))
    assert {"accuracy", "mb", "ms"} <= set(facts["before"])
    assert {"accuracy", "mb", "ms", "agreement"} <= set(facts["after"])
    assert facts["name"] == "lesser"
    assert facts["steps"]


def test_mistakes_of_shrink(project):
    assert "another name" in process("shrink", "words", "--as", "words", code=2)
    assert "no model 'wordz'" in process("shrink", "wordz", code=2)
    assert "0 to 100" in process("shrink", "words", "--max-loss", "-1", code=2)


def test_export_writes_what_runs_alone(project):
    said = run("export", "words", "out")
    assert "answered alike by onnxruntime alone" in said
    assert "python out/predict.py 'a new text'" in said
    facts = json.loads(run("export", "words", "out2", "--json"))
    assert facts["modality"] == "text"
    assert facts["difference"] < 1e-4
    with pytest.raises(HeadstartError, match="out"):
        run("export", "words", "out")
