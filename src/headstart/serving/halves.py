"""Networks retrained above one tap of one base: what is below is the same for all of them, and is run once.

Each has a graph of its own for what is above. The two together are the graph that `Tuned.encode` runs, cut in two, and
so are their features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import onnx as runtime
from headstart.backbones.network import Network, told
from headstart.backbones.tuned import Tuned
from headstart.graph.reading import takes


@dataclass(frozen=True, eq=False)
class Upper:
    """What is above the tap, of one network."""

    session: Any
    said: str  # the network, in words
    width: int  # of its features

    def ran(self, crossing: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Features (n, width) of what crosses the cut. Raises ModelError."""
        with told(self.said):
            return runtime.finite(self.session.run(["features"], crossing)[0], self.said)


@dataclass(frozen=True, eq=False)
class Lower:
    """What is below the tap, as published, and for every network its fingerprint and what is above."""

    name: str  # of the base
    pictures: Network | None  # the base, where it reads pictures
    through: runtime.Pass  # its outputs are the inputs of the upper parts
    uppers: dict[str, Upper] = field(default_factory=dict)

    def ran(self, items: Sequence[Any], uppers: Mapping[str, Upper]) -> dict[str, NDArray[np.float32]]:
        """Features of n rows of equally many tokens, or of n picture files, on this thread alone: one pass below, and
        one above for every network given. Raises ContentError, ModelError.
        """
        crossing = self.through.outputs
        if self.pictures is None:
            with told(self.name):
                states = dict(zip(crossing, self.through.ran(items), strict=True))
            return {name: upper.ran(states) for name, upper in uppers.items()}
        found = {name: np.empty((len(items), upper.width), np.float32) for name, upper in uppers.items()}

        def keep(batch: NDArray[np.int64], values: list[Any]) -> None:
            states = dict(zip(crossing, values, strict=True))
            for name, upper in uppers.items():
                found[name][batch] = upper.ran(states)

        with runtime.on_this_thread():
            self.pictures.pictured(items, self.through.session, crossing, keep)
        return found


@dataclass(frozen=True, eq=False)
class Split:
    """A tuned network cut in two, nothing of it loaded."""

    tuned: Tuned
    key: str  # the hex digest of everything that decides what the lower part gives
    below: Any  # onnx.ModelProto; its weights may be in `folder`
    folder: Path
    above: Any  # onnx.ModelProto with its weights inside

    def lower(self) -> Lower:
        """The lower part, loaded, without networks above it."""
        outputs = [value.name for value in self.below.graph.output]
        through = runtime.Pass.of(self._session(self.below, self.folder), outputs)
        base = self.tuned.base
        pictures = base if isinstance(base, Network) and base.description.modality == "image" else None
        return Lower(base.card.name, pictures, through)

    def upper(self) -> Upper:
        """The upper part, loaded."""
        return Upper(self._session(self.above, None), self.tuned.said, self.tuned.card.width)

    def _session(self, graph: Any, folder: Path | None) -> Any:
        with told(self.tuned.card.name):
            return runtime.session(graph.SerializeToString(), folder, provider=self.tuned.provider)


def split(tuned: Tuned) -> Split:
    """Cut a tuned network at its tap. Raises InputError where it has no joint there, ModelError on what was altered."""
    below, folder, above = tuned.halves()
    _named(below, above)
    read = tuned.base.at(tuned.description.tap).card.fingerprint  # weights, tokeniser, preprocessing, view
    key = hashlib.sha256(read.encode() + below.SerializeToString(deterministic=True)).hexdigest()
    return Split(tuned, key, below, folder, above)


def _named(below: Any, above: Any) -> None:
    """Call what crosses beside the tap by how it is computed, each once: then it is the same for all cuts above."""
    crossing = {value.name for value in list(below.graph.output)[1:]}
    new = {}
    for node in below.graph.node:
        if len(node.output) == 1 and node.output[0] in crossing:
            bare = type(node).FromString(node.SerializeToString())
            bare.ClearField("name")
            bare.ClearField("output")
            digest = hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()
            new[node.output[0]] = f"headstart/crossing {digest[:32]}"
    if any(new.keys() & (set(takes(node)) - set(node.input)) for part in (below, above) for node in part.graph.node):
        return  # a graph within the graph takes it by its name
    for graph in (below.graph, above.graph):
        for node in graph.node:
            node.input[:] = [new.get(name, name) for name in node.input]
            if node.output[0] in new:
                node.name = node.output[0] = new[node.output[0]]
        for value in (*graph.input, *graph.output):
            value.name = new.get(value.name, value.name)
        for listed in (graph.node, graph.input, graph.output):
            first: dict[str, Any] = {}
            for one in listed:
                first.setdefault(one.output[0] if hasattr(one, "op_type") else one.name, one)
            del listed[:]
            listed.extend(first.values())
