"""An exported folder in a bare environment, ONNX Runtime, NumPy and tokenizers alone, against Headstart itself."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import headstart
from bench.table import SHARED, Row, run
from headstart import exporting

TITLE = "Exported: ONNX Runtime alone in a bare environment"
FOLDER = SHARED / "data/banking77/banking_data"
NEEDED = ("onnxruntime", "numpy", "tokenizers")


def bare(folder: Path) -> Path:
    """The Python of a fresh environment that holds what an exported folder of texts needs."""
    run([sys.executable, "-m", "venv", str(folder)])
    python = folder / "bin" / "python"
    wanted = [f"{name}=={version(name)}" for name in NEEDED]
    run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted])
    return python


def asked(python: Path, folder: Path, texts: list[str]) -> tuple[list[dict], float]:
    """What predict.py says of texts, in order, and the seconds it took: as lines, those with line breaks as arguments."""
    lines = [i for i, text in enumerate(texts) if not set(text) & set("\r\n")]
    rest = sorted(set(range(len(texts))) - set(lines))
    command, start = [str(python), "-I", str(folder / "predict.py")], time.perf_counter()
    piped = "".join(texts[i] + "\n" for i in lines)
    done = subprocess.run(command, input=piped, capture_output=True, encoding="utf-8", check=True, cwd="/")
    seconds = time.perf_counter() - start
    said = dict(zip(lines, map(json.loads, done.stdout.splitlines()), strict=True))
    if rest:
        more = subprocess.run([*command, *(texts[i] for i in rest)], capture_output=True, encoding="utf-8", check=True)
        said |= dict(zip(rest, map(json.loads, more.stdout.splitlines()), strict=True))
    return [said[i] for i in range(len(texts))], seconds


def rows() -> list[Row]:
    """Fit on Banking77, export, and answer its 3,080 test texts with and without Headstart."""
    with open(FOLDER / "test.csv", encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        python = bare(here / "bare")
        listed = run([str(python), "-m", "pip", "list", "--format=freeze"]).out
        strangers = [name for name in ("headstart", "onnx", "torch", "pyarrow") if f"\n{name}==" in "\n" + listed]
        for precision in ("float32", "int8"):
            model = headstart.fit(FOLDER / "train.csv", project=here, precision=precision, name=precision)
            start = time.perf_counter()
            facts = exporting.export(model, here / f"out-{precision}")
            took = time.perf_counter() - start
            ours = model.predict(texts)
            theirs, seconds = asked(python, here / f"out-{precision}", texts)
            pairs = list(zip(ours, theirs, strict=True))
            labels = sum(one.label != said["label"] for one, said in pairs)
            unknown = sum(one.unknown != said["unknown"] for one, said in pairs)
            apart = max(abs(one.probability - said["probability"]) for one, said in pairs)
            found.append(
                Row(f"Banking77, {precision}: labels that differ on {len(texts):,} test texts, largest difference of a "
                    "probability", f"{labels}, {apart:.1e}", "0, <= 1e-4", labels == 0 and apart <= 1e-4 and not strangers,
                    f"{unknown} differ in `unknown`; {facts['bytes'] / 1e6:.0f} MB, written and checked in {took:.1f} s; "
                    f"{1000 * seconds / len(texts):.1f} ms a text, one by one")
            )  # fmt: skip
    return found
