"""Teaching the head `mlp` (heads/mlp.py) from a teacher's answers, on frozen features.

The loss is that of training/losses.py against the teacher's probabilities (Hinton et al. 2015, section 2); AdamW
(Loshchilov and Hutter 2019, algorithm 2) with a rate that rises, then falls to nothing; hidden units are left out by
chance (Srivastava et al. 2014, section 4). The layer `down` begins at zero, so at first it is the linear path alone.

Letters: n examples, d feature width, c classes, h hidden units. X (n, d) float32, P (n, c).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from headstart.errors import InputError
from headstart.head import CLASSIFICATION, REGRESSION, Array
from headstart.heads.mlp import Mlp
from headstart.training import torch as installed

HIDDEN = 256
RATE, DECAY = 2e-3, 1e-2
OUT = 0.2  # share of the hidden units left out
EPOCHS, STEPS, MANY = 12, 1200, 60  # the fewest epochs and steps; the most epochs to reach those steps
SMALL, LARGE = 16, 256  # rows in a batch

Progress = Callable[[float], None]


def student(
    X: Array,
    P: Array,
    *,
    hidden: int = HIDDEN,
    seed: int = 0,
    weight: Array | None = None,
    task: str = CLASSIFICATION,
    start: tuple[Array, Array] | None = None,
    progress: Progress = lambda share: None,
) -> Mlp:
    """Learn to answer as the teacher did on these features.

    P (n, c): its probabilities, or its numbers (n, 1). start: W (d, c) and b (c,) of a linear head to begin from; else
    that path begins at zero. weight (n,): what a row counts. Raises InputError, MissingExtra without torch.
    """
    torch = installed()
    from headstart.training.losses import wrong

    if len(X) != len(P) or not len(X) or P.ndim != 2 or X.ndim != 2:
        raise InputError(f"features {X.shape} and answers {P.shape}: one row of answers is needed for each feature.")
    n, d, c = *X.shape, P.shape[1]
    rng, drawn = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    middle, size = np.zeros(c), np.ones(c)
    if task == REGRESSION:
        middle, size = P.mean(0, dtype=np.float64), np.maximum(P.std(0, dtype=np.float64), 1e-6)
    centre = X.mean(0, dtype=np.float64)
    spread = max(float(np.sqrt(X.var(0, dtype=np.float64).mean())), 1e-6)  # one for all channels: directions stay
    inputs = torch.from_numpy(np.asarray((X - centre) / spread, np.float32))
    targets = torch.from_numpy(np.asarray((P - middle) / size, np.float32))
    own = torch.from_numpy(np.ones(n, np.float32) if weight is None else np.asarray(weight, np.float32))

    W0, b0 = (np.zeros((d, c)), middle) if start is None else start
    first = [W0 * spread / size, (centre @ W0 + b0 - middle) / size]  # as seen from the inputs
    first += [rng.normal(size=(d, hidden)) * np.sqrt(2 / d), np.zeros(hidden), np.zeros((hidden, c))]
    W, b, up, bend, down = (torch.nn.Parameter(torch.from_numpy(np.asarray(array, np.float32))) for array in first)
    adam = torch.optim.AdamW([W, b, up, bend, down], lr=RATE, betas=(0.9, 0.99), weight_decay=DECAY)

    batch = min(max(n // 150, SMALL), LARGE)
    each = -(-n // batch)
    steps = each * max(EPOCHS, min(MANY, -(-STEPS // each)))
    order: list[Any] = []
    for step in range(steps):
        order = order or np.array_split(rng.permutation(n), each)
        some = torch.from_numpy(order.pop())
        active = torch.relu(inputs[some] @ up + bend)  # (b, h)
        active = active * (torch.rand(active.shape, generator=drawn) >= OUT) / (1 - OUT)
        Z = active @ down + inputs[some] @ W + b
        loss = (wrong(Z, targets[some], task) * own[some]).sum() / own[some].sum().clamp_min(1e-12)
        share = step / steps
        adam.param_groups[0]["lr"] = RATE * min(1.0, share / 0.05 + 0.01) * (1 - share)
        adam.zero_grad()
        loss.backward()
        adam.step()
        progress((step + 1) / steps)
    w, a, u, e, o = (array.detach().numpy().astype(np.float64) for array in (W, b, up, bend, down))
    w, u, o = w / spread * size, u / spread, o * size  # as seen from the features
    found = (w, a * size + middle - centre @ w, u, e - centre @ u, o)
    return Mlp(*(np.asarray(array, np.float32) for array in found))
