"""`headstart advise` on eight sets: the rung it recommends against every rung that was tried, on rows nobody has seen.

Every rung is trained on the same rows and measured on the test rows; a tuned rung that does not finish in LIMIT seconds
is left out, and said.
"""

from __future__ import annotations

import json
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench import pictures, texts
from bench.sets import halves
from bench.table import SHARED, Row

TITLE = "Advice: the recommended rung against the best one"
BUDGET, LIMIT, MOST = "60s", 90.0, 2_000  # of advise; seconds a tuned rung is given; test rows


def subjectivity() -> texts.Rows:
    """Sentences, subjective or objective."""
    found: texts.Rows = []
    with zipfile.ZipFile(SHARED / "data/sentence_polarity/subjectivity.zip") as archive:
        for name in sorted(archive.namelist()):
            if name.endswith((".objective", ".subjective")) or "5000" in Path(name).name:
                lines = archive.read(name).decode("latin-1").splitlines()
                found += [(line.strip(), "plot" if "plot" in name else "quote") for line in lines if line.strip()]
    return found


def snips() -> texts.Rows:
    """Requests to an assistant by intent."""
    found: texts.Rows = []
    for path in sorted((SHARED / "data/snips").rglob("train_*_full.json")):
        for intent, examples in json.loads(path.read_bytes().decode("utf-8", "replace")).items():
            found += [("".join(part["text"] for part in one["data"]).strip(), intent) for one in examples]
    return [row for row in found if row[0]]


def sets() -> Iterator[tuple[str, object, object]]:
    """Name, training rows, test rows."""
    train, test = texts.banking("train"), texts.banking("test")
    yield "Banking77, 10 per class", texts.few(train, 10, 0)[0], test
    for name, rows, n in (
        ("snips, 10 per class", snips(), 10), ("sms_spam, 10 per class", texts.sms(), 10),
        ("sentence_polarity, 32 per class", texts.polarity(), 32), ("subjectivity, 32 per class", subjectivity(), 32),
        ("medical_abstracts, 10 per class", texts.medical(), 10),
    ):  # fmt: skip
        train, test = halves(rows)
        yield name, texts.few(train, n, 0)[0], test
    yield "sms_spam, full", *halves(texts.sms())
    every = pictures.pictures()
    chosen, others = pictures.split(every, 20, 0)
    yield "trashnet, 20 per class, mobilenet-v1", [every[i] for i in chosen], [every[i] for i in others]


def table(rows: list) -> pa.Table:
    """Rows as a table to read."""
    column = "image" if isinstance(rows[0][0], bytes) else "text"
    kind = pa.large_binary() if column == "image" else pa.large_string()
    return pa.table({column: pa.array([r[0] for r in rows], kind), "label": [r[1] for r in rows]})


def exhaustive(train: list, test: list, base_name: str, folder: Path) -> tuple[dict[str, float], list[str]]:
    """Test accuracy by rung, and what was not finished."""
    import headstart
    from headstart import api, backbones, tuning
    from headstart.dataset import read
    from headstart.embedding import readable
    from headstart.ground import ground
    from headstart.halved import halved
    from headstart.states import collect
    from headstart.training import loop
    from headstart.training.above import Above

    rows, held = table(train), table(test)
    simple = "words" if "text" in rows.column_names else "colours"
    plans = {"no-network": (simple, None), "linear": (base_name, None)}
    if simple == "words":
        plans["static"] = (base_name, "0+max0")
    labels = [label for _, label in train]
    usual = max(set(labels), key=labels.count)
    found = {"majority": float(np.mean([label == usual for _, label in test]))}
    for rung, (base, cut) in plans.items():
        model = headstart.fit(rows, test=held, name=rung, backbone=base, cut=cut, views=False, project=folder)
        found[rung] = api.facts(model)["test"]["accuracy"]
    data, late = read(rows), []
    data, X = readable(data, exact := backbones.exact(backbones.load(base_name)))
    known = read(held, known=data.labels)
    standing = ground(exact, data, X, seed=0)
    for step in tuning.rungs(exact, "auto"):
        out = folder / step[2].replace(":", "-")
        out.mkdir(exist_ok=True)
        given = {"folder": out, "deadline": time.monotonic() + LIMIT}
        tried = list(tuning.climb(standing, [step], **given))
        if not tried or len(tried[0].networks) < len(standing.judged):
            late.append(step[2])
            continue
        network, _ = tuning.final(standing, tried[0], **given)
        upper = halved(exact, step[0])
        above = Above(upper, network.W, network.b, rank=None, dropout=0.0)
        above.graph.load(network.changed)
        task = loop.Task(
            collect(known.contents, upper, keys=known.keys), known.targets(), np.ones(len(known), np.float32), data.task
        )
        scores = loop.features(above, task, np.arange(len(known))) @ network.W + network.b
        found[step[2]] = float((scores.argmax(1) == known.y).mean())
    return found, late


def rows() -> list[Row]:
    """A row a set, and the mean regret."""
    from headstart import api

    pictures.add("mobilenet-v1")
    made, regrets, spent = [], [], 0.0
    for name, train, test in sets():
        assert isinstance(train, list)
        assert isinstance(test, list)
        some = np.sort(np.random.default_rng(0).permutation(len(test))[:MOST])
        test = [test[i] for i in some]
        base = "mobilenet-v1" if isinstance(train[0][0], bytes) else "minilm"
        start = time.perf_counter()
        said = api.advise(table(train), budget=BUDGET, backbone=base)
        seconds = time.perf_counter() - start
        with tempfile.TemporaryDirectory() as folder:
            found, late = exhaustive(train, test, base, Path(folder))
        rung = said["recommended"]["rung"]
        near = rung if rung in found else min((r for r in found if r.startswith("blocks")), default="linear")
        best = max(found, key=lambda one: found[one])
        regret = found[best] - found[near]
        regrets.append(regret)
        spent += seconds
        made.append(
            Row(name, f"{rung}: {100 * found[near]:.1f} %, the best {best}: {100 * found[best]:.1f} %", "within 1 point on average",
                None, f"{seconds:.0f} s; " + ", ".join(f"{r} {100 * v:.1f}" for r, v in found.items())
                + (f"; not in {LIMIT:.0f} s: {', '.join(late)}" if late else ""))
        )  # fmt: skip
        print("   ", made[-1], flush=True)
    mean = float(np.mean(regrets))
    made.append(
        Row("mean over the sets", f"{100 * mean:.2f} points behind the best rung", "<= 1 point", mean <= 0.01,
            f"{spent:.0f} s of advise in all, --budget {BUDGET} each; rungs that were not tried are not counted")
    )  # fmt: skip
    return made
