"""Operators with weights: products, normalisations, and the fused attention of ONNX Runtime and of ONNX 23."""

from __future__ import annotations

import math
from typing import Any

from headstart.training import torch as _torch
from headstart.training.operators.node import Maker, Node, Run, plain

torch: Any = _torch()
F: Any = torch.nn.functional


def gemm(node: Node) -> Run:
    """alpha * A @ B + beta * C, of which A (m, k), B (k, n)."""
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    left, right = node.get("transA", 0), node.get("transB", 0)

    def run(a: Any, b: Any, c: Any = None) -> Any:
        a, b = a.t() if left else a, b if right else b.t()  # b (n, k)
        if alpha == 1 and beta == 1 and (c is None or c.shape == b.shape[:1]):
            return F.linear(a, b, c)
        found = F.linear(a, b) * alpha if alpha != 1 else F.linear(a, b)
        return found if c is None else found + (c if beta == 1 else c * beta)

    return run


def product(node: Node) -> Run:
    """FusedMatMul: alpha * A @ B, either transposed in its last two axes."""
    alpha, left, right = node.get("alpha", 1.0), node.get("transA", 0), node.get("transB", 0)
    if node.get("transBatchA", 0) or node.get("transBatchB", 0):
        raise node.refuse("a product transposed in its first axes")

    def run(a: Any, b: Any) -> Any:
        a = a.transpose(-1, -2) if left and a.ndim > 1 else a
        found = torch.matmul(a, b.transpose(-1, -2) if right and b.ndim > 1 else b)
        return found if alpha == 1 else found * alpha

    return run


def einsum(node: Node) -> Run:
    """Sums of products as an equation says."""
    equation = node.get("equation").replace(" ", "")
    return lambda *xs: torch.einsum(equation, *xs)


def layer_norm(node: Node) -> Run:
    """Ba et al. 2016, over the axes from one on; mean and spread too where they are asked for."""
    axis, tiny, more = node.get("axis", -1), node.get("epsilon", 1e-5), node.outputs > 1

    def run(x: Any, scale: Any, bias: Any = None) -> Any:
        shape = tuple(x.shape[axis % x.ndim :])
        if not more and scale.shape == shape and (bias is None or bias.shape == shape):
            return F.layer_norm(x, shape, scale, bias, tiny)
        axes = list(range(axis % x.ndim, x.ndim))
        spread, middle = torch.var_mean(x, axes, correction=0, keepdim=True)
        over = torch.rsqrt(spread + tiny)
        y = (x - middle) * over * scale
        y = y if bias is None else y + bias
        return (y, middle, over) if more else y

    return run


def rms_norm(node: Node) -> Run:
    """Zhang and Sennrich 2019: divided by the root of the mean square."""
    axis, tiny = node.get("axis", -1), node.get("epsilon", 1e-5)

    def run(x: Any, scale: Any) -> Any:
        axes = list(range(axis % x.ndim, x.ndim))
        return x * torch.rsqrt(torch.mean(x * x, axes, keepdim=True) + tiny) * scale

    return run


def skip_norm(node: Node) -> Run:
    """The norm of a sum. Outputs: the norm, (mean and spread, not made), the sum itself."""
    tiny, simple = (
        node.get("epsilon", 1e-12 if node.kind == "SkipLayerNormalization" else 1e-5),
        node.kind.startswith("SkipS"),
    )
    more = node.outputs > 1

    def run(x: Any, skip: Any, scale: Any, *rest: Any) -> Any:
        shift = None if simple or not rest else rest[0]
        bias = rest[-1] if len(rest) > (0 if simple else 1) else None
        total = x + skip if bias is None else x + skip + bias
        if simple:
            y = total * torch.rsqrt(torch.mean(total * total, -1, keepdim=True) + tiny) * scale
        else:
            y = F.layer_norm(total, (total.shape[-1],), scale, shift, tiny)
        return (y, None, None, total) if more else y

    return run


def batch_norm(node: Node) -> Run:
    """With the statistics that were learnt before, which stay as they are (inference)."""
    tiny = node.get("epsilon", 1e-5)
    if node.get("training_mode", 0):
        raise node.refuse("training_mode")
    return lambda x, scale, bias, mean, var: F.batch_norm(x, mean, var, scale, bias, False, 0.0, tiny)


def instance_norm(node: Node) -> Run:
    """Every channel of every row by itself."""
    tiny = node.get("epsilon", 1e-5)
    return lambda x, scale, bias: torch.group_norm(x, x.shape[1], scale, bias, tiny)


def group_norm(node: Node) -> Run:
    """Scale and bias are one a group before opset 21, one a channel from there on."""
    tiny, groups = node.get("epsilon", 1e-5), node.get("num_groups")

    def run(x: Any, scale: Any, bias: Any) -> Any:
        if node.opset < 21:
            each = x.shape[1] // groups
            scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
        return torch.group_norm(x, groups, scale, bias, tiny)

    return run


def heads(x: Any, n: int) -> Any:
    """(b, t, n * w) -> (b, n, t, w)."""
    return x.reshape(x.shape[0], x.shape[1], n, -1).transpose(1, 2)


def joined(x: Any) -> Any:
    """(b, n, t, w) -> (b, t, n * w)."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def _masked(node: Node, mask: Any, bias: Any, like: Any) -> Any:
    """What is added to scores (b, n, t, t): from a mask (b, t) of ones and noughts, or lengths (b,), and a bias."""
    if mask is not None:
        if mask.ndim == 1:
            mask = torch.arange(like.shape[1], device=mask.device) < mask.unsqueeze(1)
        if mask.ndim == 2:
            mask = mask[:, None, None, :]
        elif mask.ndim == 3:
            mask = mask[:, None]
        mask = (1 - mask.to(like.dtype)) * node.get("mask_filter_value", -10000.0)
    return mask if bias is None else bias if mask is None else mask + bias


def attention_microsoft(node: Node) -> Run:
    """com.microsoft Attention: query, key and value are made here. Inputs: x, weights, bias, mask, past, scores' bias."""
    n, sizes = node.get("num_heads"), node.get("qkv_hidden_sizes")
    if node.get("unidirectional", 0) or node.get("do_rotary", 0) or node.outputs > 1:
        raise node.refuse("attention that looks back only, turns or remembers")

    def run(x: Any, weight: Any, bias: Any = None, mask: Any = None, past: Any = None, extra: Any = None) -> Any:
        if past is not None:
            raise node.refuse("a past")
        whole_width = weight.shape[1]
        q, k, v = (heads(part, n) for part in torch.split(
            F.linear(x, weight.t(), bias), sizes or whole_width // 3, -1))  # fmt: skip
        return joined(
            F.scaled_dot_product_attention(q, k, v, _masked(node, mask, extra, x), scale=node.get("scale") or None)
        )

    return run


def attention_heads(node: Node) -> Run:
    """com.microsoft MultiHeadAttention on query, key, value (b, t, d)."""
    n = node.get("num_heads")
    if node.get("unidirectional", 0) or node.outputs > 1:
        raise node.refuse("attention that looks back only or remembers")

    def run(
        q: Any, k: Any = None, v: Any = None, bias: Any = None, mask: Any = None, extra: Any = None, *past: Any
    ) -> Any:
        if k is None or v is None or k.ndim != 3 or any(p is not None for p in past):
            raise node.refuse("packed keys, or a past")
        if bias is not None:
            a, b, c = torch.split(bias, [q.shape[-1], k.shape[-1], v.shape[-1]])
            q, k, v = q + a, k + b, v + c
        added = _masked(node, mask, extra, k)
        return joined(
            F.scaled_dot_product_attention(
                heads(q, n), heads(k, n), heads(v, n), added, scale=node.get("scale") or None
            )
        )

    return run


def attention(node: Node) -> Run:
    """Attention of ONNX 23: (b, n, t, w), or (b, t, n * w) with the numbers of heads as attributes."""
    many, few, scale, causal = (
        node.get("q_num_heads"),
        node.get("kv_num_heads"),
        node.get("scale"),
        node.get("is_causal", 0),
    )
    if node.get("softcap", 0.0) or node.outputs > 1:
        raise node.refuse("softcap, or what is kept of attention")

    def run(q: Any, k: Any, v: Any, mask: Any = None, *past: Any) -> Any:
        if any(p is not None for p in past):
            raise node.refuse("a past")
        flat = q.ndim == 3
        if flat:
            q, k, v = heads(q, many), heads(k, few), heads(v, few)
        if q.shape[1] != k.shape[1]:
            times = q.shape[1] // k.shape[1]
            k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
        if causal:
            seen = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
            if mask is None:
                mask = seen
            else:
                mask = mask & seen if mask.dtype == torch.bool else mask.masked_fill(~seen, -math.inf)
        y = F.scaled_dot_product_attention(q, k, v, mask, scale=scale)
        return joined(y) if flat else y

    return run


OPERATORS: dict[str, Maker] = {
    "Gemm": gemm, "MatMul": plain(torch.matmul), "Einsum": einsum, "LayerNormalization": layer_norm,
    "RMSNormalization": rms_norm, "SimplifiedLayerNormalization": rms_norm, "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm, "GroupNormalization": group_norm, "Attention": attention,
}  # fmt: skip
MICROSOFT: dict[str, Maker] = {
    "FusedMatMul": product, "TransposeMatMul": product, "SkipLayerNormalization": skip_norm,
    "SkipSimplifiedLayerNormalization": skip_norm, "Attention": attention_microsoft,
    "MultiHeadAttention": attention_heads,
}  # fmt: skip
