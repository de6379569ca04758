"""The heads of everything that is served, side by side: asking many on the same features is one matrix product.

Linear heads of one kind (features, task, number of labels) share blocks of two megabytes. Their weights are nowhere
else: a head's W is a view into its block. A table that changes takes over every block in which nothing changed.

Letters: n inputs, d feature width, c labels, h heads of a block. X (n, d), P (n, c).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from headstart.answers import Answers
from headstart.calibration import EDGE
from headstart.head import MULTILABEL, REGRESSION, unit
from headstart.heads.linear import Linear
from headstart.heads.ridge import Ridge
from headstart.serving.served import Served
from headstart.unknown import refusals

LIMIT = 2 << 20  # bytes of the weights of a block
FEW = 12  # a block is multiplied as a whole when more than one in so many of its heads is asked

Kind = tuple[str, int, str, int]  # fingerprint, d, task, c


@dataclass(frozen=True, eq=False)
class Block:
    """Heads of one kind."""

    kind: Kind
    heads: tuple[Served, ...]
    W: NDArray[np.float32]  # (c, h, d)
    b: NDArray[np.float32]  # (c, h)
    slope: NDArray[np.float32]  # (c, h), of the calibrations
    shift: NDArray[np.float32]  # (c, h)
    thresholds: NDArray[np.float32]  # (c, h), of several labels; else 0
    isotonic: tuple[int, ...]  # heads whose probabilities also go through a step curve

    @classmethod
    def of(cls, kind: Kind, heads: Sequence[Served]) -> Self:
        """Copy the weights of heads into one block, and let them read them there."""
        _, d, _, c = kind
        models = [one.model for one in heads]
        W = np.empty((c, len(heads), d), np.float32)  # rows of weights are whole, which matrix products need
        for j, one in enumerate(heads):
            W[:, j] = _weights(one).W.T
            _place(one, W[:, j].T)
        calibrations = [model.calibration for model in models]

        def columns(parts: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
            return np.ascontiguousarray(np.array([np.broadcast_to(part, c) for part in parts], np.float32).T)

        return cls(
            kind,
            tuple(heads),
            W,
            columns(_weights(one).b for one in heads),
            columns(one.slope for one in calibrations),
            columns(one.shift for one in calibrations),
            columns(np.zeros(1, np.float32) if one.thresholds is None else one.thresholds for one in models),
            tuple(j for j, one in enumerate(calibrations) if one.method == "isotonic"),
        )

    def answers(self, asked: Sequence[int], X: NDArray[np.float32], U: NDArray[np.float32] | None) -> Iterator[Answers]:
        """What the heads at these places say of X (n, d); U (n, d) are its rows at length 1, None to judge nothing."""
        P, chosen = self._probabilities(X)
        unknown = np.zeros((len(self.heads), len(X)), np.bool_)
        if U is not None and (judged := [j for j in asked if self.heads[j].model.unknown is not None]):
            several = [found for j in judged if (found := self.heads[j].model.unknown) is not None]
            unknown[judged] = refusals(several, U, P[:, :, judged]).T
        by_head = list(P.transpose(2, 0, 1)), list(chosen.transpose(2, 0, 1)), list(unknown)
        return (Answers(by_head[0][j], by_head[1][j], by_head[2][j]) for j in asked)

    def _probabilities(self, X: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """P and chosen, both (n, c, h): what `Calibration.apply` and `Model.answer` make of the scores of every head."""
        _, d, task, c = self.kind
        n, h = len(X), len(self.heads)
        S = np.asarray(X @ self.W.reshape(c * h, d).T, np.float32).reshape(n, c, h)
        S += self.b
        if task == REGRESSION:
            return S, np.zeros(S.shape, np.bool_)
        S *= self.slope
        S += self.shift
        if task == MULTILABEL:
            S *= np.float32(0.5)
            np.tanh(S, out=S)
            P = np.clip(np.float32(0.5) * (1 + S), EDGE, 1 - EDGE)
            return P, self.thresholds <= P
        S -= S.max(1, keepdims=True)
        P = np.exp(S, out=S)
        P /= P.sum(1, keepdims=True)
        for j in self.isotonic:
            P[:, :, j] = np.interp(P[:, :, j], *self.heads[j].model.calibration.knots.astype(np.float64))
        np.clip(P, EDGE / c, 1 - EDGE, out=P)
        P /= P.sum(1, keepdims=True)
        chosen = P.max(1, keepdims=True) == P
        if np.count_nonzero(chosen) != n * h:  # of equals the first
            chosen = np.arange(c)[:, None] == P.argmax(1)[:, None, :]
        return P, chosen


@dataclass(frozen=True, eq=False)
class Stack:
    """The heads of a whole table; nothing in it changes, so any number of threads may read it."""

    blocks: tuple[Block, ...]
    places: Mapping[Served, tuple[Block, int]]  # of the heads in blocks; all others answer on their own

    @classmethod
    def of(cls, served: Iterable[Served], before: Stack | None = None) -> Self:
        """Lay out the heads of `served`; blocks of `before` without other heads are taken over.

        Of a kind at most one block is less than half full, and that one is made anew when heads come.
        """
        kinds: dict[Kind, dict[Served, None]] = {}
        for one in served:
            if (kind := _kind(one)) is not None:
                kinds.setdefault(kind, {})[one] = None
        blocks = []
        for block in before.blocks if before is not None else ():
            wanted = kinds.get(block.kind, {})
            gone = [one for one in block.heads if one not in wanted]
            for one in gone:  # whoever still holds it does not hold the block
                _place(one, _weights(one).W.copy())
            if not gone and (2 * block.W.nbytes >= LIMIT or len(wanted) == len(block.heads)):
                blocks.append(block)
                for one in block.heads:
                    del wanted[one]
        for kind, left in kinds.items():
            heads, size = list(left), max(1, LIMIT // (4 * kind[1] * kind[3]))
            blocks += [Block.of(kind, heads[low : low + size]) for low in range(0, len(heads), size)]
        return cls(tuple(blocks), {one: (block, j) for block in blocks for j, one in enumerate(block.heads)})

    def answers(
        self, asked: Sequence[Served], X: Mapping[str, NDArray[np.float32]], *, judge: bool = True
    ) -> list[Answers]:
        """What each of `asked` says of n inputs, in order; X holds the features (n, d) of each fingerprint.

        Equal to `Model.answer` but for rounding in float32. judge False: whether an input is unlike the training data is
        not looked at, and `unknown` is False throughout.
        """
        found: dict[int, Answers] = {}
        in_blocks: dict[Block, list[tuple[int, int]]] = {}  # place in asked, in block
        for i, one in enumerate(asked):
            if (place := self.places.get(one)) is not None:
                in_blocks.setdefault(place[0], []).append((i, place[1]))
        units: dict[str, NDArray[np.float32]] = {}
        for block, rows in in_blocks.items():
            if len(rows) > 1 and len(rows) * FEW > len(block.heads):
                key = block.kind[0]
                if judge and key not in units:
                    units[key] = unit(X[key])
                said = block.answers([j for _, j in rows], X[key], units.get(key))
                found.update(zip((i for i, _ in rows), said, strict=True))
        return [
            found[i] if i in found else one.model.answer(X[one.fingerprint], judge=judge) for i, one in enumerate(asked)
        ]


def _weights(one: Served) -> Linear | Ridge:
    assert isinstance(one.model.head, Linear | Ridge)
    return one.model.head


def _place(one: Served, W: NDArray[np.float32]) -> None:
    """Let a head read its weights, the same numbers, at another address."""
    object.__setattr__(one.model.head, "W", W)


def _kind(one: Served) -> Kind | None:
    """What a head must have in common with others to share a block; None where it is of no such kind."""
    head, calibration, task = one.model.head, one.model.calibration, one.task
    if not isinstance(head, Linear | Ridge) or calibration.several != (task == MULTILABEL):
        return None
    d, c = head.W.shape
    if calibration.slope.size not in (1, c):
        return None
    return one.fingerprint, d, task, c
