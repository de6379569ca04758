"""Linear layers in 8-bit integers with constants measured once, so that a row never depends on its neighbours.

Dynamic quantisation takes its scale over the whole batch: a row's feature would change with the other rows in the call,
and a cache of features would be wrong. Here everything is fixed beforehand:

- activations: uint8, one scale and zero point a layer, from the range seen on a calibration text;
- smoothing: channel k of the input is divided, row k of the weights multiplied by c_k = a_k^0.8 / w_k^0.2, where a_k
  and w_k are the largest magnitudes of the channel and of the row (SmoothQuant, Xiao et al. 2023, section 4, equation
  4; their strength is 0.5). Before the attention's output layer the division is folded into the value projection;
- weights: one step an output column, 7 bits (-64 ... 64) instead of 8, so that the 16-bit sums of the AVX2 instruction
  vpmaddubsw cannot overflow (255 * 64 * 2 < 2**15) and every processor gives the same integers.

Query, key and value are one layer (named ...attention.self); the query carries the attention's 1/sqrt(32).

Letters: K inputs and N outputs of a layer. Published weights are (N, K), as in torch; made ones (K, N).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

STRENGTH = 0.8
LIMIT = 64
LOCATION = "made-at-load"  # what the graph calls the file of the tensors that `quantised` makes
PARTS = ("query", "key", "value")
HEAD_WIDTH = 32

Arrays = Mapping[str, NDArray[np.float32]]


def layers(names: Iterable[str]) -> list[str]:
    """The names of the linear layers in a published file's tensor names, query, key and value as one."""
    found = {name.removesuffix(".weight") for name in names if name.endswith((".dense.weight", ".query.weight"))}
    return sorted(name.removesuffix(".query") for name in found if not name.startswith("pooler"))


def joined(layer: str, published: Arrays) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights (K, N) and bias (N,) of a layer, float32; query, key and value side by side, the query scaled."""
    if not layer.endswith(".self"):
        return published[f"{layer}.weight"].T, published[f"{layer}.bias"]
    W = np.concatenate([published[f"{layer}.{part}.weight"] for part in PARTS]).T
    b = np.concatenate([published[f"{layer}.{part}.bias"] for part in PARTS])
    scale = np.ones(W.shape[1], np.float32)
    scale[: W.shape[1] // 3] = HEAD_WIDTH**-0.5
    return W * scale, b * scale


def calibrated(inputs: Arrays, published: Arrays) -> dict[str, NDArray[np.generic]]:
    """The constants of every layer from inputs seen on calibration texts.

    inputs: for every published linear layer, (tokens, K) float32. Returns for every layer `.smooth` (K,) float32,
    `.scale` () float32 and `.zero` () uint8.
    """
    constants: dict[str, NDArray[np.generic]] = {}
    for layer in layers(published):
        x = inputs[f"{layer}.query" if layer.endswith(".self") else layer].astype(np.float64)
        W = joined(layer, published)[0].astype(np.float64)
        channel = np.maximum(np.abs(x).max(0), 1e-5)
        row = np.maximum(np.abs(W).max(1), 1e-5)
        smooth = channel**STRENGTH / row ** (1 - STRENGTH)
        smooth /= np.exp(np.log(smooth).mean())
        low, high = min((x / smooth).min(), 0.0), max((x / smooth).max(), 0.0)
        scale = (high - low) / 255
        constants[f"{layer}.smooth"] = smooth.astype(np.float32)
        constants[f"{layer}.scale"] = np.array(scale, np.float32)
        constants[f"{layer}.zero"] = np.array(np.clip(np.rint(-low / scale), 0, 255), np.uint8)
    return constants


def quantised(published: Arrays, constants: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.generic]]:
    """Tensors of the int8 graph: a layer's `.int8` (K, N) int8, `.step`, `.offset` (N,), `.inverse` (K,) float32."""
    made: dict[str, NDArray[np.generic]] = {}
    for layer in layers(published):
        W, b = joined(layer, published)
        W = W * constants[f"{layer}.smooth"][:, None]
        if layer.endswith(".self"):  # the value projection gives what the output layer wants, already smoothed
            value = np.ones(W.shape[1], np.float32)
            value[-W.shape[0] :] = 1 / constants[f"{layer.removesuffix('.self')}.output.dense.smooth"]
            W, b = W * value, b * value
        step = np.maximum(np.abs(W).max(0), np.float32(1e-12)) / np.float32(LIMIT)
        made[f"{layer}.int8"] = np.ascontiguousarray(np.rint(W / step).astype(np.int8))
        made[f"{layer}.step"], made[f"{layer}.offset"] = step.astype(np.float32), b.astype(np.float32)
        made[f"{layer}.inverse"] = 1 / constants[f"{layer}.smooth"]
    return made
