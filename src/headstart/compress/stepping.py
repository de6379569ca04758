"""A network run a piece at a time: what lies at the front is kept for every batch, so nothing is computed twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.compress.surgery import Array, Feed, makers, rebuilt, session


@dataclass(frozen=True)
class Front:
    """How far some batches have come: `done` names nodes by their first output, `live` holds what is still needed."""

    live: tuple[Feed, ...]
    done: frozenset[str] = frozenset()

    def moved(self, model: Any, targets: Sequence[str]) -> Front:
        """The front once `targets` are computed; they stay in it."""
        there = set(self.live[0])
        nodes = below(model, targets, there)
        done = self.done | {node.output[0] for node in nodes}
        fresh = {name for node in nodes for name in node.output}
        later = {name for node in model.graph.node if node.output[0] not in done for name in node.input}
        stay = (there | fresh) & (later | set(targets))
        new = sorted(stay - there)
        values = self.values(model, new) if new else ([] for _ in self.live)
        live = tuple(
            {name: value for name, value in (*feed.items(), *zip(new, found, strict=True)) if name in stay}
            for feed, found in zip(self.live, values, strict=True)
        )
        return Front(live, done)

    def values(self, model: Any, names: Sequence[str]) -> Iterator[list[Array]]:
        """What tensors are, batch by batch; the front stays where it is."""
        there = self.live[0]
        wanted = [name for name in names if name not in there]
        run = session(piece(model, there, wanted)) if wanted else None
        entering = [entry.name for entry in run.get_inputs()] if run else []
        for feed in self.live:
            found = run.run(wanted, {name: feed[name] for name in entering}) if run else []
            known = feed | dict(zip(wanted, found, strict=True))
            yield [known[name] for name in names]


def below(model: Any, targets: Sequence[str], there: Sequence[str] | set[str] | Feed) -> list[Any]:
    """The nodes that lead from tensors that are there to others, in the graph's order."""
    made, needed, left = makers(model), set[str](), list(targets)
    while left:
        name = left.pop()
        if name in made and name not in there and made[name].output[0] not in needed:
            needed.add(made[name].output[0])
            left += [given for given in made[name].input if given]
    return [node for node in model.graph.node if node.output[0] in needed]


def piece(model: Any, there: Feed, targets: Sequence[str]) -> Any:
    """The part of a graph between tensors that are there and others."""
    from onnx import ValueInfoProto, helper

    made, nodes = type(model)(), below(model, targets, there)
    used = {name for node in nodes for name in node.input}
    made.ir_version = model.ir_version
    made.opset_import.extend(model.opset_import)
    made.graph.name = "piece"
    made.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in used)
    for name in sorted(used & set(there)):
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(there[name].dtype))
        made.graph.input.append(helper.make_tensor_value_info(name, kind, None))
    made.graph.output.extend(ValueInfoProto(name=name) for name in targets)
    rebuilt(made, nodes, {})
    return made
