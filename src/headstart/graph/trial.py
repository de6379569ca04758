"""The anatomy of a graph nobody vouches for, taken in a process of its own with limits on memory and time.

Reading refuses what can be seen without running; what cannot (a graph that grows a tensor step by step until the
machine is full, a node that never ends) dies here, and the caller gets a sentence.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from headstart import jsontext
from headstart.errors import HeadstartError, ModelError, NotFound
from headstart.graph.taps import Anatomy, Found

SECONDS = 300  # of computing, and twice as many of waiting
MEMORY = 6 * 2**30  # bytes, and TIMES as many as the files have
TIMES = 8
KEPT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "PYTHONHOME", "VIRTUAL_ENV", "LANG", "LC_ALL")


def anatomy(
    path: Path,
    modality: str | None = None,
    size: tuple[int, int] | None = None,
    tokens: int | None = None,
    *,
    seconds: int = SECONDS,
    memory: int = MEMORY,
) -> Anatomy:
    """Read a graph and take its anatomy (taps.anatomy) in another process. Raises ModelError, NotFound."""
    path = Path(path)
    if not path.is_file():
        raise NotFound(f"{path} is not there.")
    weight = sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())
    order = {
        "path": str(path.resolve()), "modality": modality, "size": size, "tokens": tokens, "seconds": seconds,
        "memory": memory + TIMES * weight,
    }  # fmt: skip
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    # -P and another working folder: a json.py beside a graph must not be imported
    limit = f"it could not be run within {seconds} s and {memory // 2**30} GiB and {TIMES} times its size"
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-B", "-m", "headstart.graph.trial"],
            input=json.dumps(order), capture_output=True, text=True, encoding="utf-8", errors="replace",
            timeout=2 * seconds, env=environment, cwd=Path(sys.executable).parent,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ModelError(f"{path.name}: {limit}: too long.") from None
    try:
        answer = jsontext.parse(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["it was stopped"])[-1][:200]
        raise ModelError(f"{path.name}: {limit} ({last}).") from None
    if "error" in answer:
        raise ModelError(
            answer["error"] if answer["error"].startswith(path.name) else f"{path.name}: {answer['error']}"
        )
    taps = tuple(Found(**tap) for tap in answer.pop("taps"))
    top = answer.pop("top")
    return Anatomy(**answer, taps=taps, top=Found(**top) if top else None)


def _limit(seconds: int, memory: int) -> None:
    """Bounds for this process, where the system has them."""
    if sys.platform == "win32":
        return
    import resource

    bounds = (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    )
    for what, most in bounds:
        hard = resource.getrlimit(what)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(what, (allowed, hard))
        except (ValueError, OSError):  # macOS does not bound the address space
            continue


def _main() -> dict[str, Any]:
    from headstart.graph import reading, taps

    order = json.loads(sys.stdin.read())
    _limit(order["seconds"], order["memory"])
    try:
        path = Path(order["path"])
        size = tuple(order["size"]) if order["size"] else None
        return asdict(taps.anatomy(reading.load(path), path.parent, order["modality"], size, order["tokens"]))
    except HeadstartError as error:
        return {"error": str(error)}
    except (MemoryError, RecursionError) as error:
        return {"error": f"it needs more memory than it may have ({type(error).__name__})."}


if __name__ == "__main__":
    print(json.dumps(_main()))
