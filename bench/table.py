"""What every benchmark returns, the machine it ran on, and the page all of it becomes."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("HEADSTART_SHARED", HERE.parent.parent / "shared"))


@dataclass(frozen=True)
class Row:
    """One figure."""

    work: str
    measured: str
    target: str  # '' when the figure is only reported
    met: bool | None  # None when there is no target
    note: str = ""


@dataclass(frozen=True)
class Run:
    """One command as a whole process."""

    seconds: float
    peak_mb: float
    out: str


def run(command: list[str], *, env: dict[str, str] | None = None, cwd: Path | None = None) -> Run:
    """Run a command to its end, timed from outside, with the peak memory of its largest process."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}, cwd=cwd
    )
    out, error = process.communicate()
    seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{error}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return Run(seconds, peak, out)


def machine() -> str:
    """Processor, cores and versions, in a line."""
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    import numpy
    import onnxruntime

    return (
        f"{model}, {os.cpu_count()} cores; Python {platform.python_version()}, numpy {numpy.__version__}, "
        f"onnxruntime {onnxruntime.__version__}"
    )


def keep(name: str, title: str, rows: list[Row]) -> None:
    """Store one benchmark's rows and write the page anew."""
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    stored = {"title": title, "machine": machine(), "day": time.strftime("%Y-%m-%d"), "rows": [asdict(r) for r in rows]}
    (folder / f"{name}.json").write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", "utf-8")
    write_page()


def write_page() -> None:
    """RESULTS.md from everything that was measured."""
    lines = [
        "# Measured",
        "",
        "Written by `make bench` (`python -m bench NAME` for one of them). Times on shared machines move by half: compare the",
        "ratios, which come from one run each.",
    ]
    for path in sorted((HERE / "results").glob("*.json")):
        stored = json.loads(path.read_text("utf-8"))
        lines += [
            "",
            f"## {stored['title']}",
            "",
            f"`python -m bench {path.stem}` on {stored['day']}: {stored['machine']}.",
            "",
        ]
        lines += ["| work | measured | must reach | |", "|---|---|---|---|"]
        for row in stored["rows"]:
            mark = {True: "met", False: "**missed**", None: ""}[row["met"]]
            note = f"{mark}; {row['note']}" if mark and row["note"] else mark or row["note"]
            lines.append(f"| {row['work']} | {row['measured']} | {row['target']} | {note} |")
    (HERE / "RESULTS.md").write_text("\n".join(lines) + "\n", "utf-8")
