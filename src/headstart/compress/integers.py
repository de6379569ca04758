"""A network in 8-bit integers with constants measured once on the user's contents: a row never depends on its batch.

Linear layers of text networks, as backbones/int8.py does for the embedded one, here for any graph:

- activations: uint8, one scale and zero point a layer, from the range seen;
- smoothing: channel k of the input is divided, row k of the weights multiplied by c_k = a_k^0.8 / w_k^0.2, where a_k
  and w_k are the largest magnitudes (SmoothQuant, Xiao et al. 2023, section 4, equation 4; their strength is 0.5).
  Ours is left out where the layer's outputs are hardly nearer with it, for it costs a pass over the activations;
- weights: one step an output column, 7 bits (-64 ... 64), so that the 16-bit sums of the AVX2 instruction vpmaddubsw
  cannot overflow (255 * 64 * 2 < 2**15) and every processor gives the same integers;
- bias: the mean error on the contents seen is taken from it (Nagel et al. 2019, section 4.2, from data).

Layers with one input (query, key, value) share its smoothing and are quantised once. Convolutions of picture networks:
`pictures.py`. Letters: K inputs and N outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbone import Contents, Portable
from headstart.compress.layers import Linear, linears
from headstart.compress.surgery import Facts, copied, feeds, put, rebuilt, seen, size, spread
from headstart.errors import InputError

STRENGTH = 0.8
LIMIT = 64
SAMPLE = 256  # contents that constants are measured on
PAYS = 1.25  # smoothing must make the squared error of a layer's outputs this many times smaller
DOMAIN = "com.microsoft"
WHOLE = ("MatMulIntegerToFloat", "MatMulInteger", "ConvInteger", "QLinearConv", "QLinearMatMul", "QuantizeLinear")

Floats = NDArray[np.float32]


def quantise(portable: Portable, contents: Contents) -> tuple[Portable, Facts]:
    """The network in 8-bit integers, constants from up to 256 of the contents. A text network in int8 stays as it is.

    Raises InputError where it has no layer to treat, or the contents are no contents of its modality.
    """
    before = size(portable)
    if any(node.op_type in WHOLE for node in portable.model.graph.node):
        return portable, Facts("integers", before, before, 0, 0, ("the network is in 8-bit integers already.",))
    if portable.modality != "text":
        from headstart.compress.pictures import quantised

        return quantised(portable, contents)
    made = copied(portable)
    layers = linears(made.model)
    if not layers:
        raise InputError("this network has no linear layer with weights of its own, so nothing to hold in 8 bits.")
    given = [feed for _, feed in feeds(made, spread(contents, SAMPLE))]
    if not given:
        raise InputError("8-bit constants are measured on contents, and there are none.")
    groups: dict[str, list[Linear]] = {}
    for layer in layers:
        groups.setdefault(layer.x, []).append(layer)
    inputs = seen(made, list(groups), given)
    new: dict[str, Any] = {}
    nodes: list[Any] = []
    for x, group in groups.items():
        nodes += _treated(x, inputs[x], group, new)
    treated = {name for layer in layers for name in layer.nodes}
    kept = [node for node in made.model.graph.node if node.output[0] not in treated]
    for node in kept:
        if node.op_type == "Gelu" and node.domain == "":  # the quicker form, 5e-4 away at most, is lost in the rounding
            put(node, "attribute", [])
            node.attribute.append(_text("approximate", "tanh"))
    rebuilt(made.model, kept + nodes, new)
    if all(opset.domain != DOMAIN for opset in made.model.opset_import):
        made.model.opset_import.add(domain=DOMAIN, version=1)
    smoothed = sum(name.endswith("/inverse") for name in new)
    note = f"{len(layers)} linear layers in 8 bits, {smoothed} of {len(groups)} inputs smoothed, measured on {len(inputs[layers[0].x]):,} tokens."
    return made, Facts("integers", before, size(made), len(layers), len(layers), (note,))


def _text(name: str, value: str) -> Any:
    from onnx import helper

    return helper.make_attribute(name, value)


def _treated(x: str, seen_x: Floats, group: Sequence[Linear], new: dict[str, Any]) -> list[Any]:
    """The nodes of layers with one input x, in integers; their constants go into `new`."""
    from onnx import helper

    W = np.concatenate([layer.W for layer in group], axis=1)  # (K, N of all)
    exact = seen_x @ W
    plain = _constants(seen_x, W, np.ones(len(W), np.float32))
    smooth = _constants(seen_x, W, smoothing(seen_x, W))
    errors = [_error(seen_x, exact, found) for found in (plain, smooth)]
    chosen = smooth if errors[0] > PAYS * errors[1] else plain
    inverse, scale, zero, Q, step = chosen
    shift = (exact - _through(seen_x, *chosen)).mean(0)
    nodes, entering = [], x
    if (inverse != 1).any():
        new[f"{x}/inverse"], entering = inverse, f"{x}/smooth"
        nodes.append(helper.make_node("Mul", [x, f"{x}/inverse"], [entering], name=entering))
    new[f"{x}/scale"], new[f"{x}/zero"] = scale, zero
    nodes.append(
        helper.make_node("QuantizeLinear", [entering, f"{x}/scale", f"{x}/zero"], [f"{x}/uint8"], name=f"{x}/uint8")
    )
    low = 0
    for layer in group:
        high = low + layer.W.shape[1]
        b = np.zeros(high - low, np.float32) if layer.b is None else layer.b
        for name, value in (("int8", Q[:, low:high]), ("step", step[low:high]), ("offset", b + shift[low:high])):
            new[f"{layer.y}/{name}"] = np.ascontiguousarray(value)
        given = [f"{x}/uint8", f"{layer.y}/int8", f"{x}/scale", f"{layer.y}/step", f"{x}/zero", "", f"{layer.y}/offset"]
        nodes.append(helper.make_node("MatMulIntegerToFloat", given, [layer.y], name=layer.y, domain=DOMAIN))
        low = high
    return nodes


Constants = tuple[
    Floats, Floats, NDArray[np.uint8], NDArray[np.int8], Floats
]  # inverse (K,), scale, zero, Q (K, N), step (N,)


def smoothing(x: Floats, W: Floats) -> Floats:
    """c (K,): what the channels of x (tokens, K) are divided and the rows of W (K, N) multiplied by; geometric mean 1."""
    channel, row = np.maximum(np.abs(x).max(0), 1e-5), np.maximum(np.abs(W).max(1), 1e-5)
    c = channel**STRENGTH / row ** (1 - STRENGTH)
    return np.asarray(c / np.exp(np.log(c).mean()), np.float32)


def _constants(x: Floats, W: Floats, c: Floats) -> Constants:
    x, W = x / c, W * c[:, None]
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = max(high - low, 1e-9) / 255
    zero = np.clip(np.rint(-low / scale), 0, 255)
    step = np.maximum(np.abs(W).max(0), 1e-12) / LIMIT
    return (
        (1 / c).astype(np.float32), np.asarray(scale, np.float32), np.asarray(zero, np.uint8),
        np.rint(W / step).astype(np.int8), step.astype(np.float32),
    )  # fmt: skip


def _through(x: Floats, inverse: Floats, scale: Floats, zero: Any, Q: NDArray[np.int8], step: Floats) -> Floats:
    """What the integer layer gives, without its bias."""
    q = np.clip(np.rint(x * inverse / scale) + float(zero), 0, 255) - float(zero)
    return np.asarray((q.astype(np.float32) @ Q.astype(np.float32)) * (scale * step), np.float32)


def _error(x: Floats, exact: Floats, constants: Constants) -> float:
    """Squared error of the integer layer's outputs, over all."""
    return float(((exact - _through(x, *constants)) ** 2).sum())
