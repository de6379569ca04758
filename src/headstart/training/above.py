"""What is above a tap, with its pooling and its head, as one module: cached states in, features and scores out.

Letters: b examples of a batch, t places, w channels of the states, d feature width, c classes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from headstart.halved import Halves
from headstart.training.graph import Graph

Tensor = Any
FAR = -1e9


def device() -> Any:
    """Where training runs: the GPU when there is one, the CPU else."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Above(torch.nn.Module):  # type: ignore[misc]
    """The graph above a tap, the pooling of its cut, and a linear head."""

    def __init__(
        self, halves: Halves, W: NDArray[np.float32], b: NDArray[np.float32], *, rank: int | None, dropout: float
    ) -> None:
        super().__init__()
        self.halves = halves
        self.graph = Graph(halves.above, rank=rank, dropout=dropout)
        self.names = [output.name for output in halves.above.graph.output]
        self.W = torch.nn.Parameter(torch.tensor(np.asarray(W, np.float32)))  # (d, c)
        self.b = torch.nn.Parameter(torch.tensor(np.asarray(b, np.float32)))  # (c,)

    def features(self, states: Tensor, lengths: Tensor) -> Tensor:
        """(b, d) of unit length, as graph.cut.features makes them; padded places count nothing.

        states: as halved.Halves.states gives them, one after the other, padded with noughts; lengths (b,).
        """
        halves = self.halves
        b, t = len(states), (states.shape[1] if halves.kind in ("tokens", "stream", "turned") else 1)
        mask = torch.arange(t, device=states.device) < lengths[:, None]  # (b, t)
        given = states
        if halves.kind == "stream":
            given = states.reshape(b * t, -1)
        elif halves.kind == "turned":
            given = states.transpose(0, 1)
        feeds = {halves.tensor: given}
        feeds |= {name: torch.from_numpy(value) for name, value in halves.numbers(b, t).items()}
        if halves.masked:
            feeds["attention_mask"] = mask.to(torch.int64)
        made = dict(zip(self.names, self.graph(feeds), strict=True))
        units = []
        for part in halves.parts:
            pooled = _pooled(made[part.tensor].float(), part.kind, part.largest, mask)
            units.append(functional.normalize(pooled, dim=1, eps=1e-12))
        return torch.cat(units, 1) / math.sqrt(len(units))

    def scores(self, F: Tensor) -> Tensor:
        """(b, d) -> (b, c)."""
        return F @ self.W + self.b

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """What was changed in the graph, by the names of its initialisers."""
        return self.graph.changed()

    def head(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """W (d, c) and b (c,)."""
        return self.W.detach().cpu().numpy().copy(), self.b.detach().cpu().numpy().copy()

    def groups(self, rate: float, decay: float, head: float, shrink: float) -> list[dict[str, Any]]:
        """Parameters with their rates: the last block's `rate`, `decay` times less for every block below it.

        Weight decay holds for matrices only (Loshchilov and Hutter 2019); the rates by layer are those of Howard and
        Ruder (2018, section 3.2).
        """
        found: dict[tuple[int, bool], list[Any]] = {}
        for name, some in self.graph.weights().items():
            depth = self.halves.depth.get(name, self.halves.blocks)
            for parameter in some:
                found.setdefault((depth, parameter.ndim > 1), []).append(parameter)
        groups = [
            {"params": some, "lr": rate * decay ** (self.halves.blocks - depth), "weight_decay": shrink * matrix}
            for (depth, matrix), some in sorted(found.items())
        ]
        return [*groups, {"params": [self.W, self.b], "lr": head, "weight_decay": 0.0}]


def _pooled(x: Tensor, kind: str, largest: bool, mask: Tensor) -> Tensor:
    """The mean or the largest over the places of a tap, (b, width)."""
    b, t = mask.shape
    if kind == "vector":
        return x
    if kind in ("map", "grid"):
        axes = (2, 3) if kind == "map" else (1, 2)
        return x.amax(axes) if largest else x.mean(axes)
    if kind == "stream":
        x = x.reshape(b, t, -1)
    elif kind == "turned":
        x = x.transpose(0, 1)
    there = mask[..., None]  # (b, t, 1)
    if largest:
        return x.masked_fill(~there, FAR).amax(1)
    return (x * there).sum(1) / there.sum(1)
