"""Operators on pictures (n, c, h, w), and on rows (n, c, w) and bodies: convolution, pooling, another size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.training import torch as _torch
from headstart.training.operators.node import Maker, Node, Run, plain, whole

torch: Any = _torch()
F: Any = torch.nn.functional
CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
SPREAD = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
LARGEST = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def margins(
    node: Node, sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], holes: Sequence[int]
) -> Any:
    """Noughts before and after along each axis: (before, after), by pads or by auto_pad."""
    auto = node.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        pads = node.get("pads") or [0] * 2 * len(sizes)
        return pads[: len(sizes)], pads[len(sizes) :]
    if auto == "VALID":
        return [0] * len(sizes), [0] * len(sizes)
    total = [
        max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
        for size, k, s, d in zip(sizes, kernel, stride, holes, strict=True)
    ]
    less = [t // 2 for t in total]
    more = [t - t // 2 for t in total]
    return (less, more) if auto == "SAME_UPPER" else (more, less)


def padded(x: Any, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Any:
    """The picture with a margin."""
    if not any(before) and not any(after):
        return x
    widths = [w for a, b in zip(reversed(before), reversed(after), strict=True) for w in (a, b)]
    return F.pad(x, widths, value=value)


def convolution(node: Node) -> Run:
    """Conv on rows, pictures or bodies."""
    groups, given, holes = node.get("group", 1), node.get("strides"), node.get("dilations")

    def run(x: Any, weight: Any, bias: Any = None) -> Any:
        rank = x.ndim - 2
        stride, apart = given or [1] * rank, holes or [1] * rank
        before, after = margins(node, x.shape[2:], weight.shape[2:], stride, apart)
        if list(before) == list(after):
            return CONVOLVE[rank](x, weight, bias, stride, before, apart, groups)
        return CONVOLVE[rank](padded(x, before, after), weight, bias, stride, 0, apart, groups)

    return run


def spreading(node: Node) -> Run:
    """ConvTranspose: computed whole, then its margins are cut off."""
    groups, given, holes = node.get("group", 1), node.get("strides"), node.get("dilations")
    if node.get("output_shape") or node.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise node.refuse("output_shape or auto_pad")

    def run(x: Any, weight: Any, bias: Any = None) -> Any:
        rank = x.ndim - 2
        stride, apart, pads = given or [1] * rank, holes or [1] * rank, node.get("pads") or [0] * 2 * rank
        more = node.get("output_padding") or [0] * rank
        after = [m - p for m, p in zip(more, pads[rank:], strict=True)]
        y = SPREAD[rank](x, weight, None, stride, 0, 0, groups, apart)
        y = padded(y, [-p for p in pads[:rank]], after)
        return y if bias is None else y + bias.reshape(-1, *[1] * rank)

    return run


def windows(node: Node, x: Any, kernel: Sequence[int], stride: Sequence[int], holes: Sequence[int]) -> Any:
    """(before, after, beyond): the margins, and what more is needed after them where part of a window counts (ceil_mode).

    A window that would begin beyond the picture and its first margin is left out, as ONNX Runtime does.
    """
    before, after = margins(node, x.shape[2:], kernel, stride, holes)
    beyond = [0] * len(kernel)
    if node.get("ceil_mode", 0):
        for i, size in enumerate(x.shape[2:]):
            spare = size + before[i] + after[i] - (kernel[i] - 1) * holes[i] - 1
            last = -(-spare // stride[i])
            if last * stride[i] >= size + before[i]:
                last -= 1
            beyond[i] = max(0, last * stride[i] - spare)
    return before, after, beyond


def largest(node: Node) -> Run:
    """MaxPool."""
    kernel = node.get("kernel_shape")
    stride, holes = node.get("strides") or [1] * len(kernel), node.get("dilations") or [1] * len(kernel)
    if node.outputs > 1:
        raise node.refuse("the places of the largest")

    def run(x: Any) -> Any:
        before, after, beyond = windows(node, x, kernel, stride, holes)
        after = [a + b for a, b in zip(after, beyond, strict=True)]
        return LARGEST[len(kernel)](padded(x, before, after, -math.inf), kernel, stride, 0, holes)

    return run


def average(node: Node) -> Run:
    """AveragePool; what lies beyond the picture counts only where count_include_pad says so."""
    kernel = node.get("kernel_shape")
    stride, counted = node.get("strides") or [1] * len(kernel), node.get("count_include_pad", 0)
    if any(d != 1 for d in node.get("dilations") or []):
        raise node.refuse("an average with holes")
    mean = AVERAGE[len(kernel)]

    def run(x: Any) -> Any:
        before, after, beyond = windows(node, x, kernel, stride, [1] * len(kernel))
        y = padded(x, before, [a + b for a, b in zip(after, beyond, strict=True)])
        found = mean(y, kernel, stride)
        if not any(beyond) and (counted or not any((*before, *after))):
            return found
        ones = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device)
        ones = padded(padded(ones, before, after, 1.0 if counted else 0.0), [0] * len(kernel), beyond)
        return found / mean(ones, kernel, stride)

    return run


def response(node: Node) -> Run:
    """LRN (Krizhevsky et al. 2012, section 3.3)."""
    size, alpha, beta, bias = node.get("size"), node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0)
    if size % 2 == 0:
        raise node.refuse("an even size")
    return lambda x: F.local_response_norm(x, size, alpha, beta, bias)


def resize(node: Node) -> Run:
    """Axis by axis: each new place is a sum of 1 (nearest), 2 (linear) or 4 (cubic) old ones."""
    mode = node.get("mode", "nearest")
    old = node.kind == "Upsample" or node.opset < 11
    how = "asymmetric" if old else node.get("coordinate_transformation_mode", "half_pixel")
    rounding = "floor" if old else node.get("nearest_mode", "round_prefer_floor")
    known = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    if mode not in ("nearest", "linear", "cubic") or how not in known:
        raise node.refuse(f"mode {mode!r} with {how!r}")
    if (
        node.get("antialias", 0)
        or node.get("exclude_outside", 0)
        or node.get("keep_aspect_ratio_policy", "stretch") != "stretch"
    ):
        raise node.refuse("antialias, exclude_outside or keep_aspect_ratio_policy")

    def run(x: Any, *given: Any) -> Any:
        scales, sizes = _wanted(node, x, given, old)
        axes = node.get("axes") or list(range(x.ndim))
        for axis, scale, size in zip(axes, scales, sizes, strict=True):
            if size == x.shape[axis] and scale == 1:
                continue
            at = _old_places(size, x.shape[axis], scale, how)
            y: Any = None
            for place, share in _taken(at, mode, rounding, node.get("cubic_coeff_a", -0.75)):
                place = torch.from_numpy(np.clip(place, 0, x.shape[axis] - 1).astype(np.int64)).to(x.device)
                part = x.index_select(axis, place)
                if share is not None:
                    shape = [1] * x.ndim
                    shape[axis] = size
                    part = part * torch.from_numpy(share.astype(np.float32)).to(x.device).reshape(shape)
                y = part if y is None else y + part
            x = y
        return x

    return run


def _wanted(node: Node, x: Any, given: Sequence[Any], old: bool) -> tuple[list[float], list[int]]:
    """Scales and new sizes of the axes that change."""
    axes = node.get("axes") or list(range(x.ndim))
    lengths = [x.shape[axis] for axis in axes]
    place = 0 if old else 1
    scales = given[place] if len(given) > place else None
    if scales is None and node.get("scales"):
        scales = torch.tensor(node.get("scales"))
    if scales is not None and scales.numel():
        found = [float(v) for v in scales.tolist()]
        return found, [math.floor(n * s) for n, s in zip(lengths, found, strict=True)]
    sizes = whole(given[2])
    return [size / n for size, n in zip(sizes, lengths, strict=True)], sizes


def _old_places(size: int, length: int, scale: float, how: str) -> Any:
    """Where each new place lies among the old ones, (size,) float64."""
    new = np.arange(size, dtype=np.float64)
    if how == "align_corners":
        return new * (length - 1) / (size - 1) if size > 1 else new * 0
    if how == "asymmetric":
        return new / scale
    if how == "pytorch_half_pixel" and size == 1:
        return new * 0
    return (new + 0.5) / scale - 0.5


def _taken(at: Any, mode: str, rounding: str, a: float) -> list[tuple[Any, Any]]:
    """Old places and their shares; None for a whole one."""
    if mode == "nearest":
        rounded = {
            "round_prefer_floor": lambda: np.ceil(at - 0.5), "round_prefer_ceil": lambda: np.floor(at + 0.5),
            "floor": lambda: np.floor(at), "ceil": lambda: np.ceil(at),
        }[rounding]()  # fmt: skip
        return [(rounded, None)]
    low = np.floor(at)
    t = at - low
    if mode == "linear":
        return [(low, 1 - t), (low + 1, t)]

    def near(d: Any) -> Any:  # Keys 1981, within 1
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Any) -> Any:  # from 1 to 2
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [(low - 1, far(t + 1)), (low, near(t)), (low + 1, near(1 - t)), (low + 2, far(2 - t))]


OPERATORS: dict[str, Maker] = {
    "Conv": convolution, "ConvTranspose": spreading, "MaxPool": largest, "AveragePool": average, "LRN": response,
    "GlobalAveragePool": plain(lambda x: x.mean(list(range(2, x.ndim)), keepdim=True)),
    "GlobalMaxPool": plain(lambda x: x.amax(list(range(2, x.ndim)), keepdim=True)),
    "Resize": resize, "Upsample": resize,
}  # fmt: skip
