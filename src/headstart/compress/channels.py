"""Inner channels of feed-forward layers that matter least are dropped, and the layer after them is fitted anew.

A pair is two linear layers with nothing but channel-wise functions between: y = f(x W1 + b1) W2 + b2, gated ones too.
Of its K inner channels h the share `keep` stays. What is minimised, over tokens of the user's contents, is
|target - (h_S W + b)|^2 + ridge: the target is what the *whole* network has after the pair, h what the network pruned
so far has inside it, so that a pair makes up for what was lost below it (channel pruning, He et al. 2017, section 3.1
and 3.2). Where the pair's output is added to a stream, the target is the sum, less the pruned network's own stream.
Channels leave by the error their leaving adds when the others are refitted, |w_j|^2 / (G^-1)_jj with G the inner Gram
matrix: optimal brain surgeon, on whole channels (Hassibi and Stork 1993; ZipLM, Kurtic et al. 2023, section 3.1). They
leave some at a time, not one by one as there.

Letters: T tokens, K inner channels, N outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbone import Contents, Portable
from headstart.compress.layers import Linear, linears, plain_nodes
from headstart.compress.stepping import Front
from headstart.compress.surgery import Facts, arrays, copied, feeds, makers, rebuilt, size, spread, users
from headstart.errors import InputError

SAMPLE = 1_500  # contents that channels are judged and layers refitted on
RIDGE = 1e-3  # of the mean diagonal of the Gram matrix
ROUNDS = 10  # in which channels leave
GATHERED = 8  # batches at a time
WISE = {
    "Gelu", "FastGelu", "QuickGelu", "BiasGelu", "Relu", "Erf", "Tanh", "Sigmoid", "Mul", "Add", "Sub", "Div", "Pow",
    "Elu", "LeakyRelu", "Selu", "Softplus", "HardSigmoid", "HardSwish", "Mish", "Swish", "Clip", "Identity", "Sqrt", "Neg",
}  # fmt: skip
MULTIPLE = 32  # channels stay in multiples of this, for whole vector instructions

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """A feed-forward part: layers `ups` make the inner channels, `down` uses them."""

    ups: tuple[Linear, ...]
    down: Linear
    vectors: tuple[str, ...]  # constants (K,) between them
    stream: str | None  # what the output is added to
    total: str  # the tensor after the pair: down.y, or its sum with the stream


def pairs(model: Any) -> list[Pair]:
    """The feed-forward parts of a graph, in its order."""
    layers = linears(model)
    by_y = {layer.y: layer for layer in layers}
    values, made, used = arrays(model), makers(model), users(model)
    found = []
    for down in layers:
        ups: dict[str, Linear] = {}
        vectors: set[str] = set()
        between: set[str] = set()
        left, sound = [down.x], True
        while left and sound:
            name = left.pop()
            if name in between or name in ups:
                continue
            if name in by_y:
                ups[name] = by_y[name]
            elif name in values:
                if values[name].size > 1:
                    sound = values[name].shape == (len(down.W),)
                    vectors.add(name)
            elif name in made and made[name].op_type in WISE and len(made[name].output) == 1:
                between.add(name)
                left += [given for given in made[name].input if given]
            else:
                sound = False
        inner = between | set(ups)
        inside = between | {down.nodes[0]}
        sound = sound and bool(ups) and all(layer.W.shape[1] == len(down.W) for layer in ups.values())
        sound = sound and all(user.output[0] in inside for name in inner for user in used.get(name, []))
        sound = sound and all(len(used[name]) == 1 for name in vectors)
        if sound:
            found.append(Pair(tuple(ups.values()), down, tuple(sorted(vectors)), *_stream(down, used, values)))
    return found


def _stream(down: Linear, used: dict[str, list[Any]], values: dict[str, Any]) -> tuple[str | None, str]:
    after = used.get(down.y, [])
    if len(after) == 1 and after[0].op_type == "Add":
        other = next((name for name in after[0].input if name != down.y), None)
        if other is not None and other not in values:
            return other, after[0].output[0]
    return None, down.y


def prune(portable: Portable, contents: Contents, *, keep: float = 0.5, sample: int = SAMPLE) -> tuple[Portable, Facts]:
    """The network with about the share `keep` of the inner channels of its feed-forward layers.

    Judged on up to `sample` contents, spread evenly over those given. Raises InputError where no feed-forward part in
    float32 is found, or the contents have fewer tokens than channels stay.
    """
    if not 0 < keep < 1:
        raise InputError(f"the share of channels to keep is between 0 and 1, not {keep}.")
    before, original, made = size(portable), copied(portable).model, copied(portable)
    found = pairs(made.model)
    if not found:
        raise InputError("no feed-forward part in float32 was found in this network; prune channels before 8 bits.")
    given = tuple(feed for _, feed in feeds(made, spread(contents, sample)))
    if not given:
        raise InputError("channels are judged on contents, and there are none.")
    whole, front = Front(given), Front(given)
    kept = of = 0
    errors = []
    for i in range(len(found)):
        pair = pairs(made.model)[i]
        K = len(pair.down.W)
        left = min(K, max(MULTIPLE, round(keep * K / MULTIPLE) * MULTIPLE))
        kept, of = kept + left, of + K
        stream = [pair.stream] if pair.stream else []
        whole = whole.moved(original, [pair.total])
        front = front.moved(made.model, [*{up.x for up in pair.ups}, *stream])
        moments = _moments(whole.values(original, [pair.total]), front.values(made.model, [pair.down.x, *stream]), pair)
        if moments.count < 2 * left:
            raise InputError(
                f"{moments.count:,} tokens are too few to fit {left:,} channels of a layer to; give at least "
                f"{2 * left:,} tokens, some {2 * left // 12:,} short texts."
            )
        rows, W, b, error = _fitted(moments, left)
        errors.append(error)
        _sliced(made.model, pair, rows, W, b)
    note = (
        f"{kept:,} of {of:,} inner channels of {len(found)} feed-forward parts kept and refitted on {moments.count:,} tokens; "
        f"unexplained in them: " + ", ".join(f"{error:.1%}" for error in errors) + "."
    )
    return made, Facts("channels", before, size(made), kept, of, (note,))


@dataclass(frozen=True)
class Moments:
    """Sums over T tokens of inner channels h and targets."""

    count: int
    mean: Doubles  # (K,)
    aim: Doubles  # (N,)
    gram: Doubles  # (K, K) of h, about its mean, over T
    cross: Doubles  # (K, N)
    power: float  # mean squared length of the target about its mean


def _moments(targets: Iterator[list[Any]], inside: Iterator[list[Any]], pair: Pair) -> Moments:
    """From the tensors [total] of the whole network and [inner channels, stream or nothing] of the pruned one."""
    K, N = pair.down.W.shape
    count, power = 0, 0.0
    gram, cross, mean, aim = np.zeros((K, K)), np.zeros((K, N)), np.zeros(K), np.zeros(N)
    for batches in _gathered(zip(targets, inside, strict=True)):
        h = np.concatenate([found[0].reshape(-1, K) for _, found in batches])
        target = np.concatenate([whole[0].reshape(-1, N) for whole, _ in batches])
        if pair.stream:
            target = target - np.concatenate([found[1].reshape(-1, N) for _, found in batches])
        gram += h.T @ h
        cross += h.T @ target
        mean += h.sum(0)
        aim += target.sum(0)
        power += float((target.astype(np.float64) ** 2).sum())
        count += len(h)
    mean, aim = mean / count, aim / count
    return Moments(
        count, mean, aim, gram / count - np.outer(mean, mean), cross / count - np.outer(mean, aim),
        power / count - float(aim @ aim),
    )  # fmt: skip


def _gathered(batches: Iterable[Any]) -> Iterator[list[Any]]:
    """Some batches at a time: a sum over few long ones is quicker than over many short ones."""
    held = []
    for batch in batches:
        held.append(batch)
        if len(held) == GATHERED:
            yield held
            held = []
    if held:
        yield held


def _fitted(m: Moments, left: int) -> tuple[NDArray[np.int64], Doubles, Doubles, float]:
    """Which channels stay, their weights (left, N) and bias (N,), and the share of the target left unexplained."""
    rows = np.arange(len(m.gram))
    gram = m.gram + np.eye(len(rows)) * RIDGE * np.trace(m.gram) / len(rows)
    inverse = np.linalg.inv(gram)
    goals = np.unique(np.geomspace(left, len(rows), ROUNDS + 1).astype(int))[::-1][1:]
    for goal in goals.tolist():
        cost = ((inverse @ m.cross[rows]) ** 2).sum(1) / np.maximum(np.diag(inverse), 1e-12)
        order = np.argsort(-cost, kind="stable")
        stay, leave = np.sort(order[:goal]), order[goal:]
        across = inverse[np.ix_(stay, leave)]  # the inverse of what stays, from that of all: no new one is needed
        inverse = inverse[np.ix_(stay, stay)] - across @ np.linalg.solve(inverse[np.ix_(leave, leave)], across.T)
        rows = rows[stay]
    W = np.linalg.solve(gram[np.ix_(rows, rows)], m.cross[rows])
    explained = 2 * (W * m.cross[rows]).sum() - (W * (m.gram[np.ix_(rows, rows)] @ W)).sum()
    return rows, W, m.aim - m.mean[rows] @ W, float(1 - explained / max(m.power, 1e-12))


def _sliced(model: Any, pair: Pair, rows: NDArray[np.int64], W: Doubles, b: Doubles) -> None:
    """Write the pair with its channels `rows` and the new weights after them."""
    values = arrays(model)
    new: dict[str, Any] = {}
    gone = {name for layer in (*pair.ups, pair.down) for name in layer.nodes}
    nodes = [node for node in model.graph.node if node.output[0] not in gone]
    for up in pair.ups:
        nodes += plain_nodes(up, up.W[:, rows], None if up.b is None else up.b[rows], new)
    for name in pair.vectors:
        new[name] = values[name][rows]
    nodes += plain_nodes(pair.down, W.astype(np.float32), b.astype(np.float32), new)
    rebuilt(model, nodes, new)
