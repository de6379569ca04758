"""Teaching a static student: vectors of pieces and of pairs of words, from a teacher's answers to many texts.

The student's answer is a linear layer on the unit-length sum of vectors (backbones/static.py); vectors and layer are
trained together on the teacher's probabilities (Hinton et al. 2015, section 2), by Adam, with pieces and pairs left
out by chance. The vectors of pieces begin as the teacher's own embeddings of them: rotated to their principal axes,
the first `width` kept, and weighted by how rare a piece is (Arora et al. 2017, section 3, with the rank in the
tokeniser for the frequency, as model2vec does; our rank is that in the user's texts where a piece occurs in them).
Those of pairs begin at zero, so a pair never seen says nothing.

Pieces that do not occur in the texts keep the vector they began with: those nearest to the ones that do, and the most
frequent, as far as the megabytes go.

Banking77 in full, the teacher MiniLM with a linear head (93.8 % on the test file): the student has 93.0 and 92.7 % (two
seeds) in 6.7 MB. On a quarter of the training file held out, where the teacher has 92.7 and seeds differ by 0.3, it has
91.1, with 8,192 rows for pairs 90.9, and by 1e-4 or none for RARE no less. What a sketch of it told on the same rows:

    answers of the teacher to the rows it was trained on, or to rows held out from it       91.3  90.4   (3 seeds)
    width 64, 128, 192                                                                90.9  91.3  91.1   (3 seeds)
    none of pieces and pairs left out, a twentieth and a tenth, a tenth and a fifth   91.2  91.4  91.3   (3 seeds)
    pieces alone, and with pairs                                                            90.2  91.0    (1 seed)

Letters: n texts, c classes, d width, v pieces, m pairs, V pieces of the teacher's tokeniser. P (n, c).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbone import Portable
from headstart.backbones import static
from headstart.backbones.static import Vectors
from headstart.compress import tokenisers, vocabulary
from headstart.errors import InputError
from headstart.head import CLASSIFICATION, REGRESSION, Array, Head
from headstart.heads.linear import Linear
from headstart.heads.ridge import Ridge
from headstart.training import torch as installed

WIDTH, TOKENS, MEGABYTES = 128, 256, 8.0
PAIRS = 16_384  # rows of the table of pairs, at most
RARE = 1e-3  # a of Arora et al.: a piece of this frequency weighs half
SAID = 1000  # bytes of static.json and of the names in the tables
SCALE = 10.0  # the layer's weights are so much larger than those that are trained
RATE, LAYER = 2e-3, 2.0  # Adam's step at its largest; that of the layer over it
OUT, OUT_PAIRS = 0.1, 0.2  # shares of the pieces and of the pairs left out
EPOCHS, STEPS, MANY = 8, 600, 40  # the fewest epochs and steps; the most epochs to reach those steps
SMALL, LARGE = 16, 256  # texts in a batch

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Student:
    """What was learned: the tables of a backbone, and the head that goes with it."""

    vectors: Vectors
    head: Head  # linear, or ridge for a number
    losses: tuple[float, ...]  # the mean of every epoch


def embeddings(portable: Portable) -> NDArray[np.float32]:
    """The table (V, d) that a text network looks its pieces up in. Raises InputError where there is not one."""
    from headstart.compress.surgery import arrays

    name, _ = vocabulary.table(portable.model)
    return np.asarray(arrays(portable.model)[name], np.float32)


def student(
    texts: Sequence[str],
    P: Array,
    *,
    tokeniser: bytes,
    start: Array | None = None,
    width: int = WIDTH,
    megabytes: float = MEGABYTES,
    seed: int = 0,
    task: str = CLASSIFICATION,
    weight: Array | None = None,
    tokens: int = TOKENS,
    progress: Progress = lambda share: None,
) -> Student:
    """Learn to answer n texts as the teacher did.

    P (n, c): its probabilities (one label of many, or several labels), or its numbers (n, 1). start (V, any): its
    embeddings of the pieces, by their numbers in `tokeniser` (a tokenizer.json); without them the vectors begin at
    random. weight (n,): what a text counts. progress is told the share that is done. Raises InputError when so few
    megabytes cannot hold the pieces of the texts, MissingExtra without torch.
    """
    torch = installed()
    if len(texts) != len(P) or not len(texts) or P.ndim != 2:
        raise InputError(
            f"{len(texts)} texts and answers of shape {P.shape}: one row of answers is needed for each text."
        )
    rng = np.random.default_rng(seed)
    said, A, pairs = _begun(texts, tokeniser, start, width, megabytes, tokens, rng)
    bags = static.bags(static.opened(said, tokens), texts, tokens, len(A), pairs)
    table = np.concatenate([A, np.zeros((pairs, width), np.float32)])
    used = np.unique(np.array([i for bag in bags for part in bag for i in part], np.int64))
    short = [np.searchsorted(used, np.array(bag[0] + bag[1], np.int64)) for bag in bags]  # rows of table[used]
    middle, size = np.zeros(P.shape[1]), np.ones(P.shape[1])
    if task == REGRESSION:
        middle, size = P.mean(0, dtype=np.float64), np.maximum(P.std(0, dtype=np.float64), 1e-6)
    learned, W, b, losses = _trained(
        torch, short, np.asarray((P - middle) / size, np.float32), table[used], used < len(A), task, weight, rng, seed,
        progress,
    )  # fmt: skip
    table[used] = learned
    W, b = np.asarray(W * size, np.float32), np.asarray(b * size + middle, np.float32)
    made = Vectors.of(said, tokens, table[: len(A)], table[len(A) :])
    return Student(made, Ridge(W, b) if task == REGRESSION else Linear(W, b), tuple(losses))


def _begun(
    texts: Sequence[str], tokeniser: bytes, start: Array | None, width: int, megabytes: float, tokens: int, rng: Any
) -> tuple[bytes, Array, int]:
    """The tokeniser that is kept, the first vectors (v, d) of its pieces, and the number of pairs. Raises InputError."""
    plain = unmarked(tokeniser)
    known = tokenisers.read(plain)
    count = np.zeros(max(known.pieces) + 1)  # of every piece in the texts
    for bag, _ in static.bags(static.opened(plain, tokens), texts, tokens, len(count), 0):
        np.add.at(count, bag, 1)
    if start is not None and len(start) < len(count):
        raise InputError(f"{len(start):,} embeddings are too few for the {len(count):,} pieces of the tokeniser.")
    used = set(np.flatnonzero(count).tolist())
    need, row, room = len(known.closed(used | known.must)), width + 4, int(megabytes * 1e6) - SAID
    piece = row + len(plain) // max(1, len(known.pieces)) + 8  # bytes, with its name in the tokeniser
    pairs = PAIRS
    while pairs and pairs * row + need * piece > room:
        pairs = pairs // 2 if pairs > 256 else 0
    most = (room - pairs * row) // piece
    if most < need:
        raise InputError(
            f"{need:,} pieces of {width} numbers take {need * piece / 1e6:.1f} MB, and {megabytes:g} MB are allowed: "
            "allow more with --max-mb."
        )
    E = rng.normal(size=(len(count), width)).astype(np.float32) if start is None else np.asarray(start[: len(count)])
    kept = set(known.pieces) if most >= len(known.pieces) else vocabulary.chosen(known, E, used, most)
    said, old = tokenisers.rewritten(known, kept)
    share = (count + 0.5 / (1 + np.arange(len(count)))) / max(1.0, count.sum())  # by rank where it does not occur
    A = _axes(E, width) * (RARE / (RARE + share))[:, None]
    A /= max(float(np.linalg.norm(A[sorted(used)], axis=1).mean()) if used else 0.0, 1e-12)
    return said, A[old].astype(np.float32), pairs


def unmarked(tokeniser: bytes) -> bytes:
    """The tokenizer.json so that it can cut one chunk: no marks around it, no padding, a space before it if it must."""
    said = json.loads(tokeniser)
    said["post_processor"] = said["padding"] = said["truncation"] = None
    entries = [said.get("pre_tokenizer") or {}]
    for entry in [*entries, *(entries[0].get("pretokenizers") or [])]:
        if entry.get("type") == "ByteLevel":
            entry["add_prefix_space"] = True
    return json.dumps(said, ensure_ascii=False).encode()


def _axes(E: Array, width: int) -> Array:
    """The rows of E (V, any) on their first principal axes, (V, width); zeros where they have fewer."""
    centred = np.asarray(E - E.mean(0), np.float32)
    _, axes = np.linalg.eigh(centred.T @ centred)
    found = np.zeros((len(E), width), np.float32)
    kept = axes[:, ::-1][:, :width]
    found[:, : kept.shape[1]] = centred @ kept
    return found


def _trained(
    torch: Any, bags: list[NDArray[np.int64]], T: Array, table: Array, word: NDArray[np.bool_], task: str,
    weight: Array | None, rng: Any, seed: int, progress: Progress,
) -> tuple[Array, Array, Array, list[float]]:  # fmt: skip
    """Vectors (rows of `table`), W (d, c), b (c,), and the mean loss of every epoch. word: which rows are pieces."""
    from headstart.training.losses import wrong

    n = len(bags)
    counts = np.array([len(bag) for bag in bags])
    flat, begin = np.concatenate(bags), np.cumsum(counts) - counts
    vectors = torch.nn.Parameter(torch.from_numpy(table.copy()))
    W = torch.nn.Parameter(torch.zeros(table.shape[1], T.shape[1]))
    b = torch.nn.Parameter(torch.zeros(T.shape[1]))
    rates = (RATE, RATE * LAYER)
    adam = torch.optim.Adam([{"params": [vectors]}, {"params": [W, b]}], lr=RATE, betas=(0.9, 0.99))
    own = torch.from_numpy(np.ones(n, np.float32) if weight is None else np.asarray(weight, np.float32))
    batch = min(max(n // 75, SMALL), LARGE)
    each = -(-n // batch)
    epochs = max(EPOCHS, min(MANY, -(-STEPS // each)))
    left = np.where(word, OUT, OUT_PAIRS)  # (rows,) the chance to be left out
    targets, losses, done = torch.from_numpy(T), [], 0
    for _ in range(epochs):
        order, total = rng.permutation(n), 0.0
        for low in range(0, n, batch):
            some = order[low : low + batch]
            held = counts[some]
            at = np.repeat(begin[some] - (np.cumsum(held) - held), held) + np.arange(held.sum())
            ids, row = flat[at], np.repeat(np.arange(len(some)), held)
            kept = rng.random(len(ids)) >= left[ids]
            edges = np.searchsorted(row[kept], np.arange(len(some)))
            added = torch.nn.functional.embedding_bag(
                torch.from_numpy(ids[kept]), vectors, torch.from_numpy(edges), mode="sum"
            )  # (b, d)
            Z = SCALE * torch.nn.functional.normalize(added, dim=1) @ W + b
            loss = (wrong(Z, targets[some], task) * own[some]).sum() / own[some].sum().clamp_min(1e-12)
            share = done / (epochs * each)
            for group, rate in zip(adam.param_groups, rates, strict=True):
                group["lr"] = rate * min(1.0, share / 0.05 + 0.01) * (1 - share)
            adam.zero_grad()
            loss.backward()
            adam.step()
            total, done = total + float(loss.detach()) * len(some), done + 1
            progress(done / (epochs * each))
        losses.append(total / n)
    with torch.no_grad():
        return vectors.numpy().copy(), SCALE * W.numpy(), b.numpy().copy(), losses
