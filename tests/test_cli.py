"""The command line as a user meets it: a real process, its words and its exit codes."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from conftest import sentences
from headstart.errors import InputError


def run(*arguments, cwd, code=0, stdin=None, **env):
    done = subprocess.run(
        [sys.executable, "-m", "headstart", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, encoding="utf-8", input=stdin,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "200", **env},
    )  # fmt: skip
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with one fitted model on the fake backbone."""
    folder = tmp_path_factory.mktemp("cli")
    with open(folder / "easy.csv", "w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *sentences(90)])
    with open(folder / "new.csv", "w", newline="") as file:
        csv.writer(file).writerows([("id", "text"), *((i, t) for i, (t, _) in enumerate(sentences(20, seed=9)))])
    done = run("fit", "easy.csv", "--test", "easy.csv", "--json", "--backbone", "fake", cwd=folder)
    (folder / "fit.json").write_text(done.stdout)
    return folder


def test_fit_json_has_what_a_script_wants(project):
    fitted = json.loads((project / "fit.json").read_text())
    assert {"name", "task", "labels", "backbone", "head", "n_train", "seconds", "estimate", "test"} <= set(fitted)
    assert fitted["name"] == "easy"
    assert fitted["task"] == "classification"
    assert fitted["labels"] == ["bird", "fruit", "metal"]
    assert fitted["n_train"] == 90
    assert {"read", "embed", "fit", "evaluate", "total"} <= set(fitted["seconds"])
    assert {"accuracy", "low", "high", "macro_f1"} <= set(fitted["estimate"])
    assert {"accuracy", "low", "high", "macro_f1", "n"} <= set(fitted["test"])
    assert fitted["estimate"]["low"] <= fitted["estimate"]["accuracy"] <= fitted["estimate"]["high"]


@pytest.mark.parametrize("command", ["fit", "predict", "evaluate", "models", "show", "verify", "report", "rm", "cache"])
def test_every_command_has_help(command, tmp_path):
    assert "--json" in run(command, "--help", cwd=tmp_path).stdout


def test_a_text(project):
    assert "fruit" in run("predict", "easy", "apple plum fig", "--why", cwd=project).stdout
    row = json.loads(run("predict", "easy", "apple plum fig", "--why", "--all", "--json", cwd=project).stdout)
    assert row["label"] == "fruit"
    assert 0 < row["probability"] <= 1
    assert row["unknown"] in (True, False)
    assert abs(sum(row["probabilities"].values()) - 1) < 1e-4
    assert row["why"]["nearest"][0]["label"] == "fruit"
    assert row["why"]["nearest"][0]["key"]
    assert {w["text"] for w in row["why"]["words"]} <= {"apple", "plum", "fig"}


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_files_by_their_endings(project, tmp_path, ending):
    import pyarrow.csv
    import pyarrow.parquet

    out = tmp_path / f"out.{ending}"
    run("predict", "easy", "new.csv", "-o", out, cwd=project)
    if ending == "parquet":
        rows = pyarrow.parquet.read_table(out).to_pylist()
    elif ending == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        with open(out, newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t" if ending == "tsv" else ","))
    assert [str(r["id"]) for r in rows] == [str(i) for i in range(20)]
    assert [r["text"] for r in rows] == [t for t, _ in sentences(20, seed=9)]
    assert [r["label"] for r in rows] == [label for _, label in sentences(20, seed=9)]
    assert all(0 < float(r["probability"]) <= 1 for r in rows)
    assert {str(r["unknown"]).lower() for r in rows} <= {"true", "false"}
    assert list(tmp_path.iterdir()) == [out]


def test_parquet_keeps_one_type_a_column_or_says_why_it_cannot(project, tmp_path, monkeypatch):
    import pyarrow.parquet

    import headstart
    from headstart.sources import jsonl

    monkeypatch.setattr(jsonl, "AT_ONCE", 2)
    model, out = headstart.load("easy", project=project), tmp_path / "out.parquet"

    def columns_of(*values):
        rows = [{"text": "iron tin", "more": value} for value in values]
        (tmp_path / "in.json").write_text(json.dumps(rows))
        headstart.api.predict_file(model, str(tmp_path / "in.json"), output=out)
        table = pyarrow.parquet.read_table(out)
        assert set(table["label"].to_pylist()) == {"metal"}
        return table["more"].to_pylist()

    assert columns_of(None, None, "a", None) == [None, None, "a", None]
    assert columns_of(None, None, 7, 8) == [None, None, "7", "8"]
    assert columns_of(None, None, ["b"], ["c", "d"]) == [None, None, '["b"]', '["c","d"]']
    assert columns_of(1, 2, None, None) == [1, 2, None, None]
    out.unlink()
    with pytest.raises(InputError, match=r"column 'more': from row 3 on its cells are double.*\.jsonl or \.csv"):
        columns_of(1, 2, 1.5, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["in.json"]


def test_one_text_goes_to_a_file_too(project, tmp_path):
    done = run("predict", "easy", "iron tin", "-o", tmp_path / "one.csv", cwd=project)
    assert done.stdout.startswith("1 row, 0 unknown -> ")
    with open(tmp_path / "one.csv", newline="") as file:
        assert [(row["text"], row["label"]) for row in csv.DictReader(file)] == [("iron tin", "metal")]


def test_a_stream(project):
    done = run("predict", "easy", "-", "--json", cwd=project, stdin='{"text": "iron tin"}\n{"text": "owl"}\n')
    assert [json.loads(line)["label"] for line in done.stdout.splitlines()] == ["metal", "bird"]
    done = run("predict", "easy", "-", cwd=project, stdin="text\niron tin\nowl\n")
    assert [row["label"] for row in csv.DictReader(done.stdout.splitlines())] == ["metal", "bird"]


def test_an_unreadable_ending_writes_nothing(project, tmp_path):
    done = run("predict", "easy", "new.csv", "-o", tmp_path / "out.xlsx", cwd=project, code=2)
    assert ".xlsx" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_evaluate_models_show_verify_report(project):
    found = json.loads(run("evaluate", "easy", "easy.csv", "--json", cwd=project).stdout)
    assert {"accuracy", "low", "high", "macro_f1", "n"} <= set(found["test"])
    assert found["test"]["n"] == 90
    assert "accuracy" in run("evaluate", "easy", "easy.csv", cwd=project).stdout
    [row] = json.loads(run("models", "--json", cwd=project).stdout)
    assert row["name"] == "easy"
    assert "easy" in run("models", cwd=project).stdout
    assert json.loads(run("show", "easy", "--json", cwd=project).stdout)["name"] == "easy"
    assert "fake" in run("show", "easy", cwd=project).stdout
    assert json.loads(run("verify", "easy", "--json", cwd=project).stdout)["probes"] == 64
    assert "sound" in run("verify", "easy", cwd=project).stdout
    assert run("report", "easy", cwd=project).stdout.strip().endswith("report.html")
    assert (project / json.loads(run("report", "easy", "--json", cwd=project).stdout)["report"]).exists()


def test_rm(project, tmp_path):
    (tmp_path / "d.csv").write_bytes((project / "easy.csv").read_bytes())
    run("fit", "d.csv", "--name", "gone", "--backbone", "fake", cwd=tmp_path)
    assert json.loads(run("rm", "gone", "--json", cwd=tmp_path).stdout) == {"removed": "gone", "versions": [1]}
    assert "gone" in run("predict", "gone", "x", cwd=tmp_path, code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "eazy.csv"], "'easy.csv'"),
        (["fit", "easy.csv", "--text", "txt"], "'text'"),
        (["fit", "easy.csv", "--label", "lable"], "'label'"),
        (["fit", "easy.csv", "--name", "../x"], "cannot name a model"),
        (["fit", "easy.csv", "--head", "liner"], "'linear'"),
        (["fit", "easy.csv", "--task", "classificaton"], "'classification'"),
        (["fit", "easy.csv", "--refuse", "2"], "refuse"),
        (["fit"], "DATA"),
        (["predict", "esy", "a text"], "'easy'"),
        (["predict", "easy", "nwe.csv"], "'new.csv'"),
        (["evaluate", "easy", "new.csv"], "label"),
        (["verify", "nothing"], "no model"),
        (["predict", "easy", ""], "the text is empty"),
        (["predict", "easy", "new.csv", "-o", "new.csv"], "that is the input"),
        (["predict", "easy", "new.csv", "-o", "nowhere/out.csv"], "no such folder"),
    ],
)
def test_mistakes_are_answered_kindly(project, arguments, words):
    before = sorted(p for p in project.rglob("*"))
    done = run(*arguments, cwd=project, code=2)
    assert words in done.stderr
    assert sorted(p for p in project.rglob("*")) == before


def test_a_reader_that_goes_away_is_no_error(project):
    with open(project / "many.csv", "w") as file:
        file.write("text\n" + "apple fig\n" * 30_000)
    done = subprocess.run(
        f"{sys.executable} -m headstart predict easy many.csv | head -1",
        shell=True,
        cwd=project,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "text,label,probability,unknown"
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals are not sent this way on Windows")
def test_an_interrupt_leaves_nothing_half_written(project, tmp_path):
    with open(tmp_path / "many.csv", "w") as file:
        file.write("text\n" + "".join(f"apple fig {i}\n" for i in range(400_000)))
    process = subprocess.Popen(
        [sys.executable, "-m", "headstart", "predict", str(project / "models/easy/v1"), "many.csv", "-o", "out.csv"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".out.csv*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "same command again" in said
    assert [p.name for p in tmp_path.iterdir()] == ["many.csv"]


def test_hostile_names_reach_the_terminal_harmlessly(project, tmp_path):
    rows = [("\x1b[31mred\x1b[0m [bold]a[/bold]", "[red]x\x1b]0;owned\x07"), ("b", "=cmd|' /C calc'!A0")] * 20
    with open(tmp_path / "bad.csv", "w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((f"{t} {i}", label) for i, (t, label) in enumerate(rows))])
    done = run("fit", "bad.csv", "--backbone", "fake", cwd=tmp_path)
    assert "\x1b]0;" not in done.stdout
    run("predict", "bad", "bad.csv", "-o", "out.csv", cwd=tmp_path)
    with open(tmp_path / "out.csv", newline="") as file:
        found = {row["label"] for row in csv.DictReader(file)}
    assert "'=cmd|' /C calc'!A0" in found
