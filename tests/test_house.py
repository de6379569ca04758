"""The rules of the house, checked: rows, light imports, no strangers."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import headstart

SRC = Path(headstart.__file__).parent
ROWS = [
    ["errors"],
    ["storage", "jsontext", "progress"],
    ["tensors", "database"],
    ["deployments", "apikeys", "predictionlog", "notice", "unitrows"],
    [
        "folds",
        "evaluation",
        "calibration",
        "thresholds",
        "unknown",
        "curve",
        "ladder",
        "curation",
        "why",
        "logistic",
        "propagation",
        "transferability",
        "distance",
        "licence",
    ],
    ["verdict", "modelcard", "report", "advice"],
    ["pareto", "advicepage"],
    ["preprocessing"],
    ["example", "modality", "backbone", "head", "rawfile", "picturefile"],
    ["graph", "modalities"],
    ["textfile", "batches", "picturecells", "rowcache", "sink"],
    ["source"],
    ["sources", "backbones", "heads", "roles", "labels"],
    ["features", "columns", "compress", "answering", "exported_predict", "journal"],
    ["halved"],
    ["states"],
    ["hub"],
    ["dataset", "selection", "training"],
    ["candidates"],
    ["ground"],
    ["embedding", "domain", "gathering", "classnames", "saved", "answers"],
    ["choosing", "model"],
    ["replay", "project", "proof", "reasons", "bases", "kept", "exporting", "shrinking", "rung", "tuning"],
    ["stream", "keeping", "terminal", "advising"],
    ["learning"],
    ["retraining", "distilling"],
    ["serving", "client"],
    ["api"],
    ["server"],
    ["cli", "sklearn", "__init__", "__main__"],
]
ROW = {name: number for number, names in enumerate(ROWS) for name in names}
FACES = {("__main__", "cli"), ("source", "sources")}  # what a contract opens, it imports at use


def room(path: Path) -> str:
    """The top-level name a file belongs to: heads/linear.py -> heads."""
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imported(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "headstart":
            parts = node.module.split(".")
            yield from ([parts[1]] if len(parts) > 1 else [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("headstart."):
                    yield alias.name.split(".")[1]


def test_every_module_has_a_row():
    assert {room(p) for p in SRC.rglob("*.py")} <= set(ROW)


def test_imports_point_downwards():
    wrong = []
    for path in SRC.rglob("*.py"):
        here = room(path)
        for there in imported(ast.parse(path.read_text("utf-8"))):
            if there == "__version__" or there == here:
                continue
            if ROW[there] >= ROW[here] and (here, there) not in FACES:
                wrong.append(f"{path.relative_to(SRC)} (row {ROW[here]}) imports {there} (row {ROW[there]})")
    assert not wrong


def loaded(code: str) -> set[str]:
    script = f"import sys, json; {code}; print(json.dumps(sorted(m.split('.')[0] for m in sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_is_light():
    heavy = {"torch", "sklearn", "scipy", "onnxruntime", "onnx", "pyarrow", "tokenizers", "pandas", "numpy", "rich"}
    assert not heavy & loaded("import headstart")


def test_the_core_never_loads_what_is_not_core():
    strangers = {"torch", "sklearn", "scipy", "transformers", "pandas", "polars", "datasets"}
    names = [n for n in sorted(ROW) if n not in ("sklearn", "__main__", "__init__")]
    assert not strangers & loaded("import " + ", ".join(f"headstart.{n}" for n in names))


def test_all_is_sorted_and_complete():
    assert headstart.__all__ == sorted(headstart.__all__)
    for name in headstart.__all__:
        assert getattr(headstart, name) is not None


def test_files_stay_one_idea():
    long = [str(p.relative_to(SRC)) for p in SRC.rglob("*.py") if p.read_text("utf-8").count("\n") > 420]
    assert not long
