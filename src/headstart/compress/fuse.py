"""The same network in fewer, larger steps: no mask where nothing is masked, layers with one input as one product.

Each change is tried on two small batches of unlike shape and undone where the features move by more than 1e-5, so what
is looked for may be described loosely.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from headstart.backbone import Portable
from headstart.backbones.plain import unmasked
from headstart.compress.channels import pairs
from headstart.compress.layers import Linear, linears, plain_nodes
from headstart.compress.surgery import Facts, Feed, copied, rebuilt, session, size

NEAR = 1e-5
SHAPES = ((2, 5), (3, 9))  # rows, tokens


def plain(portable: Portable) -> tuple[Portable, Facts]:
    """The text network without its mask and with query, key and value in one layer, where that gives the same."""
    before, nodes = size(portable), len(portable.model.graph.node)
    if portable.modality != "text":
        return portable, Facts("fuse", before, before, nodes, nodes, ("a picture network is left as it is.",))
    notes = []
    for change, said in ((unmasked, "the mask is gone"), (merged, "layers with one input are one product")):
        tried = changed(portable, change)
        if tried is not None and len(tried.model.graph.node) != len(portable.model.graph.node):
            portable = tried
            notes.append(said)
    note = "; ".join(notes) or "nothing to join"
    return portable, Facts("fuse", before, size(portable), len(portable.model.graph.node), nodes, (f"{note}.",))


def changed(portable: Portable, change: Callable[[Any], None]) -> Portable | None:
    """The portable with its graph changed, or None where its features are not the same then."""
    tried = copied(portable)
    change(tried.model)
    run, again = session(portable.model), session(tried.model)
    for feed in _probes(portable):
        given = {entry.name: feed[entry.name] for entry in again.get_inputs()}
        if not np.allclose(run.run(["features"], feed)[0], again.run(["features"], given)[0], rtol=0, atol=NEAR):
            return None
    return replace(portable, model=tried.model)


def _probes(portable: Portable) -> list[Feed]:
    draw = np.random.default_rng(0)
    found = []
    for shape in SHAPES:
        ids = draw.integers(0, 10, shape)
        rest = {"attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        names = [given.name for given in portable.model.graph.input]
        found.append({"input_ids": ids, **{name: rest[name] for name in names if name in rest}})
    return found


def merged(model: Any) -> None:
    """Linear layers with one input become one, and its output is split; gates of feed-forward parts stay by themselves."""
    from onnx import helper

    gates = {up.y for pair in pairs(model) for up in pair.ups}
    groups: dict[str, list[Linear]] = {}
    for layer in linears(model):
        if layer.y not in gates:
            groups.setdefault(layer.x, []).append(layer)
    groups = {x: group for x, group in groups.items() if len(group) > 1}
    gone = {name for group in groups.values() for layer in group for name in layer.nodes}
    nodes = [node for node in model.graph.node if node.output[0] not in gone]
    new: dict[str, Any] = {}
    for x, group in groups.items():
        W = np.concatenate([layer.W for layer in group], axis=1)
        b = np.concatenate([np.zeros(layer.W.shape[1], np.float32) if layer.b is None else layer.b for layer in group])
        rank = 2 if all(layer.rank == 2 for layer in group) else None
        nodes += plain_nodes(Linear((), x, f"{x}/joined", W, b, rank), W, b, new)
        new[f"{x}/widths"] = np.array([layer.W.shape[1] for layer in group], np.int64)
        outputs = [layer.y for layer in group]
        nodes.append(helper.make_node("Split", [f"{x}/joined", f"{x}/widths"], outputs, name=f"{x}/split", axis=-1))
    rebuilt(model, nodes, new)
