"""ONNX graphs in ONNX Runtime: weights mapped from their published file, rows run in batches of exactly equal length.

Rows of one length need no padding, so nothing is computed in vain and no row can feel another. Each run uses one core,
and as many runs go on at once as there are cores: no core ever waits for another inside a layer. Who has threads of
its own says `on_this_thread`, and all of it happens there.
"""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import InputError, ModelError, near

BUDGET = 512  # tokens in one run: fewer and many more are both slower by 5 %
SMALLEST = 128  # fewer tokens than this a run waste time
PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cpu": "CPUExecutionProvider",
}  # where a graph is run, the first that is there
SETTINGS = {"cuda": {"use_tf32": "0"}}  # tf32 has 10 bits of fraction: features would not be those of the CPU
_HERE = threading.local()  # whether this thread is to use no other


@contextmanager
def on_this_thread() -> Iterator[None]:
    """Whatever this thread runs within is run on it alone: it has one core."""
    before = getattr(_HERE, "alone", False)
    _HERE.alone = True
    try:
        yield
    finally:
        _HERE.alone = before


def cores() -> int:
    """How many cores this thread may use: those of the process, within its quota, or one within `on_this_thread`."""
    if getattr(_HERE, "alone", False):
        return 1
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(there, quota() or there)


@functools.cache
def quota(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """How many cores the control groups of this process leave it, rounded up; None where they set no bound.

    Read once: `cpu.max` of version 2, `cpu.cfs_quota_us` of version 1; the least of its groups' and those above them.
    """
    found: list[float] = []
    for line in _read(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = groups / controllers if (groups / controllers).is_dir() else groups / "cpu" if controllers else groups
        group = base / path.strip("/")
        for folder in (group, *group.parents):  # in a container its own path may not be there, but the top is
            if controllers:
                words = [_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()]
            else:
                words = _read(folder / "cpu.max").split()
            if len(words) == 2 and all(word.isdecimal() and int(word) for word in words):
                found.append(int(words[0]) / int(words[1]))
            if folder == base:
                break
    return max(1, math.ceil(min(found))) if found else None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:  # there is no such group, or it is not shown to us
        return ""


def providers() -> list[str]:
    """Where graphs are run, by the short names of PROVIDERS: what ONNX Runtime has here, the best first, cpu the last.

    $HEADSTART_PROVIDER chooses one of them. Raises InputError when it is not there.
    """
    import onnxruntime

    there = set(onnxruntime.get_available_providers())
    found = [name for name, full in PROVIDERS.items() if full in there]
    chosen = os.environ.get("HEADSTART_PROVIDER", "").lower()
    if not chosen:
        return found
    if chosen not in found:
        what = "is not in the ONNX Runtime installed here" if chosen in PROVIDERS else "is not known"
        raise InputError(f"HEADSTART_PROVIDER={chosen} {what}.{near(chosen, found)}")
    return list(dict.fromkeys([chosen, "cpu"]))


def session(
    graph: bytes,
    folder: Path | None,
    made: Mapping[str, NDArray[np.generic]] | None = None,
    *,
    provider: str = "cpu",
) -> Any:
    """An onnxruntime.InferenceSession of a graph whose weights are inside it or external.

    Initialisers named in `made` are taken from there, the others from the files in `folder`, which ONNX Runtime maps
    into memory. Names that the graph does not hold are left out (a cut graph has fewer). `provider` is one of
    `providers()`; what it cannot run is run on the CPU.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    if made:
        names = [name for name in made if name.encode() in graph]
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(made[name]) for name in names]
        options.add_external_initializers(names, values)
    wanted = [(PROVIDERS[name], SETTINGS.get(name, {})) for name in dict.fromkeys([provider, "cpu"])]
    return onnxruntime.InferenceSession(graph, options, providers=wanted)


def pruned(graph: bytes, outputs: Sequence[str]) -> bytes:
    """The graph without what `outputs` do not need."""
    import onnx

    model = onnx.load_from_string(graph)
    needed, nodes = set(outputs), []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    kept_outputs = [o for o in model.graph.output if o.name in needed]
    kept_initialisers = [i for i in model.graph.initializer if i.name in needed]
    for field, kept in (("node", nodes[::-1]), ("output", kept_outputs), ("initializer", kept_initialisers)):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(kept)
    return bytes(model.SerializeToString())


def batches(lengths: NDArray[np.int64], parallel: int) -> list[NDArray[np.int64]]:
    """Split row numbers into batches of exactly equal length, each of about BUDGET tokens, the longest rows first."""
    budget = int(min(BUDGET, max(SMALLEST, lengths.sum() // max(1, parallel))))
    order = np.argsort(-lengths, kind="stable")
    edges = np.flatnonzero(np.diff(lengths[order])) + 1
    found = []
    for group in np.split(order, edges):
        if len(group):
            rows = max(1, budget // max(1, int(lengths[group[0]])))
            found += np.array_split(group, -(-len(group) // rows))
    return found


@dataclass(frozen=True)
class Pass:
    """A session and the names that a run of it needs: a session makes them anew whenever it is asked."""

    session: Any
    outputs: list[str]
    masked: bool

    @classmethod
    def of(cls, session: Any, outputs: Sequence[str]) -> Pass:
        """The pass that gives some outputs of a session."""
        return cls(session, list(outputs), any(given.name == "attention_mask" for given in session.get_inputs()))

    def ran(self, rows: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """One run of n rows of equally many tokens, on this thread: for every output an array (n, width) float32."""
        tokens = np.array(rows, np.int64)
        feed = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)} if self.masked else {"input_ids": tokens}
        found: list[NDArray[np.float32]] = self.session.run(self.outputs, feed)
        return found


def finite(X: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Features of n contents, themselves. Raises ModelError with the first that are not all numbers."""
    if not np.isfinite(X).all():
        row = int(np.flatnonzero(~np.isfinite(X).all(axis=1))[0])
        raise ModelError(f"{name} gives no finite numbers for content number {row + 1} of the call.")
    return X


def run(
    session: Any, outputs: Sequence[str], rows: Sequence[Sequence[int]], *, alone: bool = False
) -> list[NDArray[np.float32]]:
    """Run n rows of token numbers through a session, on all cores; `alone`: every row in a run of its own.

    Returns for every output name an array (n, width) float32, in the order of the rows.
    """
    through = Pass.of(session, outputs)
    sizes = {output.name: output.shape[-1] for output in session.get_outputs()}
    results = [np.empty((len(rows), sizes[name]), np.float32) for name in outputs]

    def one(batch: NDArray[np.int64]) -> None:
        for result, value in zip(results, through.ran([rows[i] for i in batch]), strict=True):
            result[batch] = value

    if alone:
        work = [np.array([i]) for i in range(len(rows))]
    else:
        work = batches(np.array([len(row) for row in rows], np.int64), cores())
    spread(one, work)
    return results


def spread(one: Callable[[Any], None], work: Sequence[Any]) -> None:
    """Do pieces of work on all cores, a thread a core; the first exception is raised."""
    parallel = min(cores(), len(work))
    if parallel < 2:
        for piece in work:
            one(piece)
        return
    with ThreadPoolExecutor(parallel) as pool:
        for _ in pool.map(one, work):
            pass
