"""Operators that move numbers about and do not change them; and those that make or read shapes.

Shapes are small int64 tensors on the CPU, wherever the content is: reading one never waits for a device.
"""

from __future__ import annotations

import math
from typing import Any

from headstart.training import torch as _torch
from headstart.training.operators.node import Maker, Node, Run, plain, whole

torch: Any = _torch()
F: Any = torch.nn.functional
ENDLESS = (2**31 - 1, 2**63 - 1)


def reshape(node: Node) -> Run:
    """Another shape: 0 keeps an axis (but for allowzero), -1 is what is left."""
    fixed, zero = node.ints(1), node.get("allowzero", 0)
    if node.opset < 5:
        fixed = node.get("shape")

    def run(x: Any, shape: Any = None) -> Any:
        dims = whole(shape) if fixed is None else fixed
        if 0 in dims and not zero:
            dims = [x.shape[i] if d == 0 else d for i, d in enumerate(dims)]
        if -1 in dims and not x.numel():  # torch cannot tell what -1 is
            known = math.prod(d for d in dims if d != -1)
            dims = [(0 if not known else x.numel() // known) if d == -1 else d for d in dims]
        return x.reshape(dims)

    return run


def transpose(node: Node) -> Run:
    """Axes in another order, by default the reverse."""
    perm = node.get("perm")
    if perm is None:
        return lambda x: x.permute(list(range(x.ndim))[::-1])
    return lambda x: x.permute(perm)


def flatten(node: Node) -> Run:
    """Two axes: what is before an axis, and the rest."""
    axis = node.get("axis", 1)

    def run(x: Any) -> Any:
        at = axis % x.ndim if axis < 0 else axis
        return x.reshape(math.prod(x.shape[:at]), math.prod(x.shape[at:]))

    return run


def _axes(node: Node) -> list[int] | None:
    """Axes, an attribute before opset 13 and an input from there on."""
    fixed = node.get("axes")
    return fixed if fixed is not None else node.ints(1)


def squeeze(node: Node) -> Run:
    """Axes of length 1 gone."""
    fixed = _axes(node)

    def run(x: Any, axes: Any = None) -> Any:
        chosen = fixed if fixed is not None else (None if axes is None else whole(axes))
        if chosen is None:
            return x.squeeze()
        for axis in sorted((a % x.ndim for a in chosen), reverse=True):
            x = x.squeeze(axis)
        return x

    return run


def unsqueeze(node: Node) -> Run:
    """Axes of length 1 added."""
    fixed = _axes(node)

    def run(x: Any, axes: Any = None) -> Any:
        chosen = fixed if fixed is not None else whole(axes)
        rank = x.ndim + len(chosen)
        for axis in sorted(a % rank for a in chosen):
            x = x.unsqueeze(axis)
        return x

    return run


def concat(node: Node) -> Run:
    """Tensors one after the other along an axis."""
    axis = node.get("axis", 1)
    return lambda *xs: torch.cat(xs, axis)


def split(node: Node) -> Run:
    """Into given widths, or into as many parts as there are outputs; the last may be smaller."""
    axis, parts = node.get("axis", 0), node.outputs
    fixed = node.get("split") or node.ints(1)

    def run(x: Any, sizes: Any = None) -> Any:
        if fixed is not None or sizes is not None:
            return torch.split(x, fixed if fixed is not None else whole(sizes), axis)
        length = x.shape[axis]
        each = -(-length // parts)
        return torch.split(x, [max(0, min(each, length - i * each)) for i in range(parts)], axis)

    return run


def cut(node: Node) -> Run:
    """Slice: attributes before opset 10, inputs from there on."""
    if node.opset < 10:
        fixed = [node.get("starts"), node.get("ends"), node.get("axes"), None]
    else:
        fixed = [node.ints(i) for i in range(1, 5)]

    def run(x: Any, *given: Any) -> Any:
        read = [
            known if known is not None else (whole(given[i]) if i < len(given) and given[i] is not None else None)
            for i, known in enumerate(fixed)
        ]
        starts, ends = read[0] or [], read[1] or []
        axes = read[2] if read[2] is not None else list(range(len(starts)))
        steps = read[3] if read[3] is not None else [1] * len(starts)
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            axis %= x.ndim
            if step > 0:
                x = x[(slice(None),) * axis + (slice(start, end, step),)]
            else:  # the largest end means the first place to ONNX Runtime
                last, least = x.shape[axis] - 1, -1 if end in ENDLESS else end + (x.shape[axis] if end < 0 else 0)
                first = start + (x.shape[axis] if start < 0 else 0)
                places = list(range(min(max(first, 0), last), min(max(least, -1), last), step))
                x = x.index_select(axis, torch.tensor(places, dtype=torch.int64, device=x.device))
        return x

    return run


def _counted(index: Any, length: int) -> Any:
    """Places counted from the end as places counted from the start."""
    return torch.where(index < 0, index + length, index)


def gather(node: Node) -> Run:
    """Rows (along an axis) by their numbers, which may count from the end."""
    axis, fixed = node.get("axis", 0), node.constants.get(1)
    if fixed is not None and fixed.ndim == 0:
        one = int(fixed)
        return lambda x, index: x.select(axis, one)
    safe = fixed is not None and bool((fixed >= 0).all())

    def run(x: Any, index: Any) -> Any:
        at = axis % x.ndim
        index = index.to(torch.int64)
        if not safe:
            index = _counted(index, x.shape[at])
        if at == 0 and x.ndim == 2 and x.is_floating_point():
            return F.embedding(index, x)
        found = x.index_select(at, index.reshape(-1))
        return found if index.ndim == 1 else found.reshape((*x.shape[:at], *index.shape, *x.shape[at + 1 :]))

    return run


def gather_elements(node: Node) -> Run:
    """Along an axis a number for each place."""
    axis = node.get("axis", 0)
    return lambda x, index: torch.gather(x, axis, _counted(index.to(torch.int64), x.shape[axis]))


def _places(x: Any, index: Any) -> tuple[Any, ...]:
    """The last axis of an index (..., k) as k tensors of places."""
    return tuple(_counted(index[..., i].to(torch.int64), x.shape[i]) for i in range(index.shape[-1]))


def gather_nd(node: Node) -> Run:
    """By places on several axes at once, perhaps within rows."""
    rows = node.get("batch_dims", 0)

    def run(x: Any, index: Any) -> Any:
        if not rows:
            return x[_places(x, index)]
        lead = x.shape[:rows]
        flat, inner = x.reshape(-1, *x.shape[rows:]), index.reshape(-1, *index.shape[rows:])
        many = torch.arange(flat.shape[0], device=x.device).reshape(-1, *[1] * (inner.ndim - 2))
        found = flat[
            (many, *(_counted(inner[..., i].to(torch.int64), flat.shape[i + 1]) for i in range(inner.shape[-1])))
        ]
        return found.reshape((*lead, *found.shape[1:]))

    return run


def scatter_nd(node: Node) -> Run:
    """New numbers at places on several axes."""
    how = node.get("reduction", "none")
    if how not in ("none", "add"):
        raise node.refuse(f"reduction {how!r}")
    return lambda x, index, new: x.index_put(_places(x, index), new, accumulate=how == "add")


def scatter(node: Node) -> Run:
    """New numbers along an axis."""
    axis, how = node.get("axis", 0), node.get("reduction", "none")
    if how not in ("none", "add"):
        raise node.refuse(f"reduction {how!r}")

    def run(x: Any, index: Any, new: Any) -> Any:
        index = _counted(index.to(torch.int64), x.shape[axis])
        return x.scatter_add(axis, index, new) if how == "add" else x.scatter(axis, index, new)

    return run


def expand(node: Node) -> Run:
    """Broadcast to a shape."""
    fixed = node.ints(1)

    def run(x: Any, shape: Any) -> Any:
        return x.expand(torch.broadcast_shapes(x.shape, fixed if fixed is not None else whole(shape)))

    return run


def tile(node: Node) -> Run:
    """Repeated along each axis."""
    fixed = node.ints(1)
    return lambda x, times: x.repeat(fixed if fixed is not None else whole(times))


def shape(node: Node) -> Run:
    """The shape, or a part of it, on the CPU."""
    start, end = node.get("start", 0), node.get("end")
    return lambda x: torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


def filled(node: Node) -> Run:
    """A tensor of one value."""
    given = node.get("value")
    one = torch.zeros(1) if given is None else torch.from_numpy(given.reshape(-1).copy())
    kind = torch.float32 if one.dtype == torch.float16 else one.dtype
    value = one[0].item()
    return lambda shape: torch.full(whole(shape), value, dtype=kind)


def counted(start: Any, end: Any, step: Any) -> Any:
    """Numbers from a start up to an end, in steps."""
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


def triangle(node: Node) -> Run:
    """The upper or lower triangle; all else nought."""
    upper = node.get("upper", 1)

    def run(x: Any, k: Any = None) -> Any:
        by = 0 if k is None else whole(k)[0]
        return torch.triu(x, by) if upper else torch.tril(x, by)

    return run


def pad(node: Node) -> Run:
    """pads, value and axes: attributes before opset 11, inputs from there on."""
    mode, fixed, where = node.get("mode", "constant"), node.get("pads") or node.ints(1), node.ints(3)
    filling = node.get("value", node.number(2))
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise node.refuse(f"mode {mode!r}")

    def run(x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
        widths = fixed if fixed is not None else whole(pads)
        chosen = where if where is not None else (list(range(x.ndim)) if axes is None else whole(axes))
        half = len(widths) // 2
        before, after = [0] * x.ndim, [0] * x.ndim
        for axis, a, b in zip(chosen, widths[:half], widths[half:], strict=True):
            before[axis % x.ndim], after[axis % x.ndim] = a, b
        if mode == "constant":
            number = filling if filling is not None else (0 if value is None else value.item())
            return F.pad(x, [w for axis in reversed(range(x.ndim)) for w in (before[axis], after[axis])], value=number)
        for axis in range(x.ndim):
            if before[axis] or after[axis]:
                places = _outside(-before[axis], x.shape[axis] + after[axis], x.shape[axis], mode)
                x = x.index_select(axis, torch.tensor(places, device=x.device))
        return x

    return run


def _outside(start: int, end: int, length: int, mode: str) -> list[int]:
    """Which places stand at start .. end - 1 when a row is carried on beyond its ends."""
    if mode == "edge":
        return [min(max(i, 0), length - 1) for i in range(start, end)]
    if mode == "wrap":
        return [i % length for i in range(start, end)]
    period = max(1, 2 * (length - 1))
    return [min(i % period, period - i % period) if length > 1 else 0 for i in range(start, end)]


def one_hot(node: Node) -> Run:
    """One value where the place is meant, another elsewhere."""
    axis = node.get("axis", -1)

    def run(index: Any, depth: Any, values: Any) -> Any:
        many = whole(depth)[0]
        at = axis % (index.ndim + 1)
        places = torch.arange(many, device=index.device).reshape(*[1] * at, many, *[1] * (index.ndim - at))
        hit = _counted(index.to(torch.int64), many).unsqueeze(at) == places
        return torch.where(hit, values[1].to(hit.device), values[0].to(hit.device))

    return run


def to_space(node: Node) -> Run:
    """Channels to pixels."""
    size, mode = node.get("blocksize"), node.get("mode", "DCR")

    def run(x: Any) -> Any:
        n, _, h, w = x.shape
        if mode == "DCR":
            return x.reshape(n, size, size, -1, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, -1, h * size, w * size)
        return x.reshape(n, -1, size, size, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, -1, h * size, w * size)

    return run


def to_depth(node: Node) -> Run:
    """Pixels to channels."""
    size = node.get("blocksize")

    def run(x: Any) -> Any:
        n, c, h, w = x.shape
        y = x.reshape(n, c, h // size, size, w // size, size).permute(0, 3, 5, 1, 2, 4)
        return y.reshape(n, -1, h // size, w // size)

    return run


# What reads some of its inputs as shapes, axes or places: these stay on the CPU.
SHAPES = {
    "Reshape": {1}, "Squeeze": {1}, "Unsqueeze": {1}, "Split": {1}, "Slice": {1, 2, 3, 4}, "Expand": {1},
    "Tile": {1}, "ConstantOfShape": {0}, "Range": {0, 1, 2}, "Trilu": {1}, "Pad": {1, 2, 3}, "OneHot": {1, 2},
    "CumSum": {1}, "TopK": {1}, "Resize": {1, 2, 3}, "Upsample": {1}, "ReduceSum": {1},
    "ReduceMean": {1}, "ReduceMax": {1}, "ReduceMin": {1}, "ReduceProd": {1}, "ReduceL1": {1}, "ReduceL2": {1},
    "ReduceSumSquare": {1}, "ReduceLogSum": {1}, "ReduceLogSumExp": {1},
}  # fmt: skip
OPERATORS: dict[str, Maker] = {
    "Reshape": reshape, "Transpose": transpose, "Flatten": flatten, "Squeeze": squeeze, "Unsqueeze": unsqueeze,
    "Concat": concat, "Split": split, "Slice": cut, "Gather": gather, "GatherElements": gather_elements,
    "GatherND": gather_nd, "ScatterND": scatter_nd, "ScatterElements": scatter, "Expand": expand, "Tile": tile,
    "Shape": shape, "Size": plain(lambda x: torch.tensor(x.numel())), "ConstantOfShape": filled,
    "Range": plain(counted), "Trilu": triangle, "Pad": pad, "OneHot": one_hot, "DepthToSpace": to_space,
    "SpaceToDepth": to_depth, "NonZero": plain(lambda x: torch.nonzero(x).T),
}  # fmt: skip
