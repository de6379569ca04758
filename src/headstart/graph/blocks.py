"""Which joints end a block: by the repetition of what lies between them, or by the shrinking of the places.

A transformer repeats one unit; a convolutional network has stages, each on a coarser grid. Both can be told from the
sequence of segments between joints, without knowing a single architecture.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

TAPS = 16  # more are not worth their line in a list
PERIOD = 64  # segments of one unit at most
MOST = 0.5  # of the work is in the repeated units of a transformer

PLACES = ("map", "grid", "tokens")
_ACTIVATIONS = """
    Relu Clip HardSwish HardSigmoid LeakyRelu PRelu Elu Selu Sigmoid Tanh Gelu QuickGelu FastGelu Mish Swish Softplus
    BatchNormalization Identity Cast QuantizeLinear DequantizeLinear
"""
ACTIVATIONS = frozenset(_ACTIVATIONS.split())


@dataclass(frozen=True)
class Segment:
    """What lies between a joint and the one before, and what the joint is."""

    signature: Hashable  # equal where the same operators work with weights of the same shapes
    outline: Hashable  # the same without what has no matrix: a first block often lacks a norm
    operators: tuple[str, ...]  # on the way
    work: float  # operations
    places: int  # tokens or pixels of the joint, a row
    kind: str  # of the joint, as in taps.Found; "" where it cannot be pooled
    merges: bool  # it ends by adding two tensors of the way


def repeated(segments: Sequence[Segment]) -> list[int]:
    """The joints at which a repeated unit begins or ends: k + 1 numbers for k units, or [] when nothing is repeated.

    Where more units end at the same place when only their matrices are compared, a unit is taken to differ in small
    things.
    """
    found = _repeated(segments, [segment.signature for segment in segments])
    rough = _repeated(segments, [segment.outline for segment in segments])
    if found and set(found[1:]) < set(rough[1:]) and rough[-1] == found[-1]:
        return rough
    return found or rough


def _repeated(segments: Sequence[Segment], signatures: Sequence[Hashable]) -> list[int]:
    """`repeated` by one kind of signature.

    The unit is the smallest whose repetition in a row holds the most work; the last one ends where the repetition
    ends, because what is left over is a norm after the embedding rather than a norm after the last block.
    """
    m = len(segments)
    best: tuple[float, int, list[int]] = (0.0, 0, [])
    for period in range(1, min(PERIOD, m // 2) + 1):
        start = 0
        for i in range(m - period + 1):
            if i < m - period and signatures[i] == signatures[i + period]:
                continue
            units = (i - start + period) // period
            if units > 1:
                end = i + period  # segments start .. end - 1 repeat
                first = end - units * period
                work = sum(segment.work for segment in segments[first:end])
                if work > best[0] * (1 + 1e-9):
                    best = work, period, list(range(first - 1, end, period))
            start = i + 1
    return best[2]


def stages(segments: Sequence[Segment]) -> list[int]:
    """The last joint on every grid, from fine to coarse.

    On a grid with residual connections it is the last sum, with the activation after it: what follows already belongs
    to the next stage. The last grid is taken whole.
    """
    stem = next((i for i, segment in enumerate(segments) if segment.outline), len(segments))  # before it: pixels
    usable = [i for i in range(stem, len(segments)) if segments[i].kind in PLACES and segments[i].places > 1]
    grids: list[list[int]] = []
    for i in usable:
        if not grids or segments[i].places < segments[grids[-1][-1]].places:
            grids.append([i])
        elif segments[i].places == segments[grids[-1][-1]].places:
            grids[-1].append(i)
    found = []
    for joints in grids[:-1]:
        sums = [i for i in joints if segments[i].merges]
        end = sums[-1] if sums else joints[-1]
        while sums and end + 1 in joints and set(segments[end + 1].operators) <= ACTIVATIONS:
            end += 1
        found.append(end)
    return found + ([grids[-1][-1]] if grids else [])


def ends(segments: Sequence[Segment]) -> dict[int, int]:
    """The joints that are taps, by the number in their names: blocks where units repeat, else stages, else shares."""
    units = repeated(segments)
    grids = stages(segments)
    whole = sum(segment.work for segment in segments) or 1.0
    if units:
        share = sum(segment.work for segment in segments[units[0] + 1 : units[-1] + 1]) / whole
        flat = segments[units[-1]].kind not in ("map", "grid")
        if len(grids) < 3 or (share >= MOST and flat):
            numbered = [(k, i) for k, i in enumerate(units) if i >= 0 and segments[i].kind]
            step = -(-(len(units) - 1) // TAPS)
            last = len(units) - 1
            if numbered and last - numbered[0][0] >= 1:
                return {k: i for k, i in numbered if (last - k) % step == 0 or k == numbered[0][0]}
    if len(grids) > 1:
        return dict(enumerate(grids))
    usable = [i for i, segment in enumerate(segments) if segment.kind]
    kept: list[int] = []
    done, mark = 0.0, 0.0
    for i, segment in enumerate(segments):
        done += segment.work
        if i in usable and (done / whole >= mark or i == usable[-1]):
            kept.append(i)
            mark = done / whole + 1 / 8
    return dict(enumerate(kept))
