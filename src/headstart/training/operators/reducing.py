"""Operators that take many numbers together: sums and means over axes, the largest, its place, running sums, softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headstart.training import torch as _torch
from headstart.training.operators.node import Maker, Node, Run, whole

torch: Any = _torch()


def reduction(over: Callable[[Any, list[int], bool], Any], scalar: Callable[[Any], Any] = lambda x: x) -> Maker:
    """A reduction over axes: an attribute in older opsets, an input in newer ones; none means all, or nothing."""

    def make(node: Node) -> Run:
        fixed = node.get("axes") or node.ints(1)
        keep, nothing = bool(node.get("keepdims", 1)), bool(node.get("noop_with_empty_axes", 0))

        def run(x: Any, axes: Any = None) -> Any:
            chosen = fixed if fixed is not None else ([] if axes is None else whole(axes))
            if not chosen:
                if nothing:
                    return scalar(x)
                chosen = list(range(x.ndim))
            return over(x, chosen, keep) if chosen else scalar(x)

        return run

    return make


def _sum(x: Any, axes: list[int], keep: bool) -> Any:
    return torch.sum(x, axes, keepdim=keep, dtype=x.dtype)


def _mean(x: Any, axes: list[int], keep: bool) -> Any:
    if x.is_floating_point():
        return torch.mean(x, axes, keepdim=keep)
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    return torch.div(_sum(x, axes, keep), count, rounding_mode="trunc")


def _prod(x: Any, axes: list[int], keep: bool) -> Any:
    for axis in sorted((a % x.ndim for a in axes), reverse=True):
        x = torch.prod(x, axis, keepdim=keep, dtype=x.dtype)
    return x


def _l2(x: Any, axes: list[int], keep: bool) -> Any:
    if not x.is_floating_point():
        return torch.sqrt(_sum(x * x, axes, keep).double()).to(x.dtype)
    return torch.linalg.vector_norm(x, 2, axes, keepdim=keep)


def place(pick: Run) -> Maker:
    """The place of the largest or smallest; the first of equals, or the last."""

    def make(node: Node) -> Run:
        axis, keep, last = node.get("axis", 0), bool(node.get("keepdims", 1)), node.get("select_last_index", 0)

        def run(x: Any) -> Any:
            if last:
                return x.shape[axis] - 1 - first(torch.flip(x, [axis]))
            return first(x)

        def first(x: Any) -> Any:
            best = pick(x, axis, True)
            return torch.argmax((x == best).to(torch.int8), dim=axis, keepdim=keep)  # the first of equals

        return run

    return make


def running(node: Node) -> Run:
    """Sums up to each place of an axis."""
    exclusive, reverse = node.get("exclusive", 0), node.get("reverse", 0)

    def run(x: Any, axis: Any) -> Any:
        (where,) = whole(axis)
        y = torch.flip(x, [where]) if reverse else x
        total = torch.cumsum(y, where, dtype=y.dtype)
        total = total - y if exclusive else total
        return torch.flip(total, [where]) if reverse else total

    return run


def softmax(node: Node) -> Run:
    """Over one axis; before opset 13 over all axes from one on."""
    of = {"Softmax": torch.softmax, "LogSoftmax": torch.log_softmax}[node.kind]
    if node.opset >= 13:
        axis = node.get("axis", -1)
        return lambda x: of(x, axis)
    start = node.get("axis", 1)

    def run(x: Any) -> Any:
        return of(x.flatten(start % x.ndim), -1).reshape(x.shape)

    return run


def top(node: Node) -> Run:
    """The largest or smallest along an axis, and their places."""
    axis, largest, ordered = node.get("axis", -1), bool(node.get("largest", 1)), bool(node.get("sorted", 1))

    def run(x: Any, k: Any) -> Any:
        found = torch.topk(x, whole(k)[0], axis, largest, ordered)
        return found.values, found.indices

    return run


def unit(node: Node) -> Run:
    """Division by the length along an axis; what has none stays nought."""
    axis, p = node.get("axis", -1), node.get("p", 2)

    def run(x: Any) -> Any:
        length = torch.linalg.vector_norm(x, p, axis, keepdim=True)
        return x / torch.where(length == 0, torch.ones_like(length), length)

    return run


OPERATORS: dict[str, Maker] = {
    "ReduceSum": reduction(_sum),
    "ReduceMean": reduction(_mean),
    "ReduceMax": reduction(lambda x, axes, keep: torch.amax(x, axes, keepdim=keep)),
    "ReduceMin": reduction(lambda x, axes, keep: torch.amin(x, axes, keepdim=keep)),
    "ReduceProd": reduction(_prod),
    "ReduceL1": reduction(lambda x, axes, keep: _sum(x.abs(), axes, keep), torch.abs),
    "ReduceL2": reduction(_l2, torch.abs),
    "ReduceSumSquare": reduction(lambda x, axes, keep: _sum(x * x, axes, keep), torch.square),
    "ReduceLogSum": reduction(lambda x, axes, keep: torch.log(_sum(x, axes, keep)), torch.log),
    "ReduceLogSumExp": reduction(lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep)),
    "ArgMax": place(lambda x, axis, keep: torch.amax(x, axis, keepdim=keep)),
    "ArgMin": place(lambda x, axis, keep: torch.amin(x, axis, keepdim=keep)),
    "CumSum": running,
    "Softmax": softmax,
    "LogSoftmax": softmax,
    "TopK": top,
    "LpNormalization": unit,
}
