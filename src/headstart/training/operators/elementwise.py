"""Operators that work number by number, with broadcasting: arithmetic, comparison, activation, casts.

float16 and bfloat16 are computed in float32: training in half precision is torch.autocast's business.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

from headstart.training import torch as _torch
from headstart.training.operators.node import Maker, Node, Run, plain

torch: Any = _torch()
F: Any = torch.nn.functional

DTYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool,
    10: torch.float32, 11: torch.float64, 16: torch.float32,
}  # fmt: skip
ROOT = 1 / math.sqrt(2)


def cast(node: Node) -> Run:
    """To another data type; half precision is float32 here."""
    kind = DTYPES.get(node.get("to"))
    if kind is None:
        raise node.refuse(f"a cast to the data type {node.get('to')}")
    return lambda x: x if x.dtype == kind else x.to(kind)


def divide(a: Any, b: Any) -> Any:
    """A quotient; whole numbers are cut off towards nought."""
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def modulo(node: Node) -> Run:
    """What is left of a division: with the sign of the divisor, or with `fmod` that of the dividend."""
    return torch.fmod if node.get("fmod", 0) else torch.remainder  # type: ignore[no-any-return]


def power(node: Node) -> Run:
    """A power; squares and roots, which are many, by themselves."""
    known = node.number(1)
    if known is not None:
        known = float(known)
        if known == 2:
            return lambda x, y: x * x
        if known == 0.5:
            return lambda x, y: x.sqrt()
    return lambda x, y: torch.pow(x, y).to(x.dtype)


def clip(node: Node) -> Run:
    """Bounds are attributes before opset 11."""
    low, high = node.get("min", node.number(1)), node.get("max", node.number(2))

    def run(x: Any, least: Any = None, most: Any = None) -> Any:
        least, most = low if low is not None else least, high if high is not None else most
        if isinstance(least, torch.Tensor) != isinstance(most, torch.Tensor):
            x, least = (x, least) if least is None else (torch.clamp(x, min=least), None)
        return x if least is None and most is None else torch.clamp(x, least, most)

    return run


def several(pair: Run) -> Maker:
    """An operator on any number of tensors, two at a time."""
    return plain(lambda *xs: reduce(pair, xs))


def mean(*xs: Any) -> Any:
    """The mean of several tensors."""
    return reduce(torch.add, xs) / len(xs)


def gelu(node: Node) -> Run:
    """Hendrycks and Gimpel 2016, exact or by tanh."""
    how = node.get("approximate", "none")
    return lambda x: F.gelu(x, approximate=how)


def gelu_bias(how: str) -> Maker:
    """Gelu of a sum with a bias."""
    return plain(lambda x, bias=None: F.gelu(x if bias is None else x + bias, approximate=how))


def swish(node: Node) -> Run:
    """x times the sigmoid of alpha x."""
    alpha = node.get("alpha", 1.702 if node.kind == "QuickGelu" else 1.0)
    return lambda x: x * torch.sigmoid(alpha * x)


def leaky(node: Node) -> Run:
    """Below nought a small slope."""
    slope = node.get("alpha", 0.01)
    return lambda x: F.leaky_relu(x, slope)


def elu(node: Node) -> Run:
    """Elu and Celu."""
    alpha = node.get("alpha", 1.0)
    if node.kind == "Celu":
        return lambda x: F.celu(x, alpha)
    return lambda x: F.elu(x, alpha)


def selu(node: Node) -> Run:
    """Klambauer et al. 2017."""
    alpha, gamma = node.get("alpha", 1.6732632423543772), node.get("gamma", 1.0507009873554805)
    return lambda x: gamma * F.elu(x, alpha)


def hard_sigmoid(node: Node) -> Run:
    """A line cut off at 0 and 1."""
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0, 1)


def thresholded(node: Node) -> Run:
    """Nought up to a threshold."""
    alpha = node.get("alpha", 1.0)
    return lambda x: torch.where(x > alpha, x, torch.zeros_like(x))


def infinite(node: Node) -> Run:
    """Where numbers are infinite, of one sign or of both."""
    up, down = node.get("detect_positive", 1), node.get("detect_negative", 1)
    if up and down:
        return torch.isinf  # type: ignore[no-any-return]
    return torch.isposinf if up else torch.isneginf  # type: ignore[no-any-return]


def softplus(x: Any) -> Any:
    """log(1 + exp x)."""
    return torch.logaddexp(x, torch.zeros_like(x))


OPERATORS: dict[str, Maker] = {
    "Add": plain(torch.add), "Sub": plain(torch.sub), "Mul": plain(torch.mul), "Div": plain(divide),
    "Mod": modulo, "Pow": power, "Sqrt": plain(torch.sqrt), "Neg": plain(torch.neg), "Exp": plain(torch.exp),
    "Log": plain(torch.log), "Abs": plain(torch.abs), "Sign": plain(torch.sign), "Floor": plain(torch.floor),
    "Reciprocal": plain(torch.reciprocal), "Ceil": plain(torch.ceil), "Round": plain(torch.round),
    "Sin": plain(torch.sin), "Cos": plain(torch.cos), "Tan": plain(torch.tan), "Atan": plain(torch.atan),
    "Asin": plain(torch.asin), "Acos": plain(torch.acos), "Sinh": plain(torch.sinh), "Cosh": plain(torch.cosh),
    "Max": several(torch.maximum), "Min": several(torch.minimum), "Sum": several(torch.add), "Mean": plain(mean),
    "Equal": plain(torch.eq), "Less": plain(torch.lt), "LessOrEqual": plain(torch.le), "Greater": plain(torch.gt),
    "GreaterOrEqual": plain(torch.ge), "Not": plain(torch.logical_not), "And": plain(torch.logical_and),
    "Or": plain(torch.logical_or), "Xor": plain(torch.logical_xor), "IsNaN": plain(torch.isnan), "IsInf": infinite,
    "Where": plain(torch.where), "Cast": cast, "CastLike": plain(lambda x, like: x.to(like.dtype)),
    "Identity": plain(lambda x: x), "Dropout": plain(lambda x, *rest: x), "Clip": clip,
    "Erf": plain(torch.erf), "Tanh": plain(torch.tanh), "Sigmoid": plain(torch.sigmoid), "Relu": plain(torch.relu),
    "LeakyRelu": leaky, "Elu": elu, "Celu": elu, "Selu": selu, "HardSigmoid": hard_sigmoid,
    "HardSwish": plain(lambda x: x * torch.clamp(x / 6 + 0.5, 0, 1)), "Softplus": plain(softplus),
    "Softsign": plain(F.softsign), "Mish": plain(lambda x: x * torch.tanh(softplus(x))), "Swish": swish,
    "ThresholdedRelu": thresholded, "PRelu": plain(lambda x, slope: torch.where(x < 0, slope * x, x)), "Gelu": gelu,
}  # fmt: skip
MICROSOFT: dict[str, Maker] = {
    "Gelu": plain(F.gelu), "BiasGelu": gelu_bias("none"), "FastGelu": gelu_bias("tanh"), "QuickGelu": swish,
    "BiasAdd": plain(lambda x, bias, skip: x + bias + skip),
}  # fmt: skip
