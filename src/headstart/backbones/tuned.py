"""A backbone of which only the last blocks are a model's own: a published base, and the tensors that were retrained.

    tuned.json            the base and its fingerprint, the tap up to which it stays as published, and for every changed
                          tensor its sha256, its shape and its block above the tap
    changed.safetensors   the new values, float32: whole tensors, or NAME/up (rows, r) and NAME/down (r, columns), whose
                          product is added to the published NAME (Hu et al. 2021, LoRA, section 4.1)

The weights of the base are not here, but in the package or folder it is published in. That nothing below the tap
changed is no claim of this file: it is seen in the graph, each time that is put together.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import backbones, jsontext, tensors
from headstart.backbone import Backbone, Card, Contents, Portable, Tap
from headstart.backbones import changes, minilm, plain
from headstart.backbones import onnx as runtime
from headstart.backbones.changes import Description, Tensor, Values, applied
from headstart.backbones.minilm import MiniLM
from headstart.backbones.network import Network, once, told
from headstart.errors import InputError, ModelError
from headstart.graph import cut as cutting
from headstart.graph.reading import inlined, said
from headstart.graph.taps import Found
from headstart.preprocessing import Preprocessing
from headstart.storage import write_file


@dataclass(frozen=True)
class Difference:
    """What sets a tuned backbone apart from its base, as it was found in the graph."""

    base: str
    blocks: int  # that differ, the last ones
    of: int  # blocks up to the cut
    tensors: int  # that differ
    bytes: int  # of what is kept of them
    others: int  # tensors of the base's graph that are as published
    digest: str  # sha256 of the base's weights

    def __str__(self) -> str:
        """The difference in a sentence."""
        size = f"{self.bytes / 1e6:.1f} MB" if self.bytes >= 1e5 else f"{self.bytes / 1e3:.1f} kB"
        return (
            f"only the {_last(self.blocks, self.of)} of {self.base} differ{'s' if self.blocks == 1 else ''}: "
            f"{self.tensors:,} tensors, {size}; the other {self.others:,} are the published ones (sha256 "
            f"{self.digest[:16]}...)"
        )


def _last(blocks: int, of: int) -> str:
    return f"last {blocks} of {of} blocks" if blocks > 1 else f"last of {of} blocks"


def write(folder: Path, base: Backbone, tap: str, blocks: int, changed: Values) -> None:
    """Write what sets a tuned backbone apart from its base: tuned.json and changed.safetensors.

    `changed` has for names of initialisers of `base.graph()` their new values, or NAME/up and NAME/down; `blocks` are
    those above the tap, up to the deepest that the base's cut needs. What the tap needs too and was not changed is left
    out. Of a tuned base the base is the published one, and both changes are kept. Raises InputError where the base
    cannot be had by its name, ModelError on values that are not finite or do not lie above the tap.
    """
    if isinstance(base, Tuned):
        base, tap, blocks, changed = _together(base, tap, changed)
    found = _published(base)
    card, model = found.card, _whole(found)
    where = changes.blocks(model, found.found, tap, card.cut)
    old = {tensor.name: tensor for tensor in model.graph.initializer}
    new = {name: np.ascontiguousarray(values, "<f4").reshape(np.shape(values)) for name, values in changed.items()}
    new = {name: values for name, values in new.items() if where.get(name) != 0 or not _same(old[name], values)}
    if wrong := next((name for name, values in new.items() if not np.isfinite(values).all()), None):
        raise ModelError(f"the new values of tensor {said(wrong)} are not all finite.")
    listed = {
        name: Tensor(changes.sha256(values), values.shape, where.get(changes.target(name, old), 0))
        for name, values in new.items()
    }
    made = Description({name: getattr(card, name) for name in changes.BASE}, tap, blocks, listed)
    changes.proved(made, model, found.found)
    facts = jsontext.parse(jsontext.write({"format": changes.FORMAT, **asdict(made)}))
    changes.parsed(facts, changes.INDEX)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors.save(folder / changes.ARRAYS, {changes.key(name): values for name, values in new.items()})
    write_file(folder / changes.INDEX, (jsontext.write(facts, indent=1) + "\n").encode())


def _same(tensor: Any, values: NDArray[np.float32]) -> bool:
    """Whether the values are those a tensor has."""
    from onnx import numpy_helper

    return bool(np.array_equal(numpy_helper.to_array(tensor), values))


def _outside(base: MiniLM | Network) -> tuple[Any, Path]:
    """The whole graph of a published base, whose weights may be outside it, in a folder. Raises ModelError if altered."""
    if isinstance(base, Network):
        return base.graph(), base.folder
    import onnx

    folder = minilm.weights()
    minilm.check(folder / minilm.WEIGHTS_FILE)
    return onnx.load_from_string(minilm.GRAPHS["float32"].read_bytes()), folder


def _whole(base: MiniLM | Network) -> Any:
    """The same with its weights inside."""
    model = base.graph()
    if isinstance(base, Network):
        inlined(model, base.folder)
    return model


def ready(base: Backbone) -> None:
    """Raises InputError where what is retrained of a base could not be written, because it is not had by its name."""
    _published(base.base if isinstance(base, Tuned) else base)


def _published(base: Backbone) -> MiniLM | Network:
    """The base in float32, as it is found by its name. Raises InputError where it is not."""
    card = base.card
    if isinstance(base, MiniLM):
        return MiniLM("float32", card.cut)
    try:
        found = backbones.load(card.name, precision=card.precision, cut=card.cut)
    except InputError as error:
        raise InputError(f"the base of a tuned model must be one that is built in or installed: {error}") from None
    if not isinstance(found, Network) or card.precision != "float32":
        raise InputError(f"{card.name} has no network in float32, so nothing of it can be retrained.")
    if found.card.fingerprint != card.fingerprint:
        raise InputError(
            f"the base of a tuned model must be one that is built in or installed, and the {card.name} that is installed is "
            "another one."
        )
    return found


def _together(base: Tuned, tap: str, changed: Values) -> tuple[MiniLM | Network, str, int, Values]:
    """What is to be written of a tuned base that was tuned again: its own base, the lower tap, and both changes."""
    from onnx import numpy_helper

    model, order = base.graph(), [place.name for place in base.found]
    names = {tensor.name for tensor in model.graph.initializer}
    applied(model, changed)
    lower = min(tap, base.description.tap, key=order.index)
    mine = {changes.target(name, names) for name in (*changed, *base.description.tensors)}
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name in mine}
    if strange := sorted(mine - values.keys()):
        raise ModelError(f"tensor {said(strange[0])} is not in the graph of {base.card.name}.")
    return base.base, lower, max(1, len(changes.span(base.found, lower, base.cut)[0])), values


@dataclass(frozen=True)
class Tuned:
    """A published base whose last blocks were retrained. Nothing is loaded before the first `encode`."""

    folder: Path
    description: Description
    cut: str
    view: str = ""  # of pictures, as Network.seen has it

    @classmethod
    def open(cls, folder: Path, cut: str | None = None) -> Tuned:
        """The backbone in a folder, at the cut it was made for or another. Raises ModelError, InputError."""
        found = changes.read(folder)
        made = cls(Path(folder), found, str(found.base["cut"]))
        return made if cut is None or cut == made.cut else made.at(cut)

    @cached_property
    def base(self) -> MiniLM | Network:
        """The base as published, at this cut. Raises NotFound where it is missing, ModelError where it is another."""
        known, name = self.description.base, str(self.description.base["name"])
        found = backbones.load(name, precision=known["precision"], cut=known["cut"])
        if not isinstance(found, MiniLM | Network) or found.card.fingerprint != known["fingerprint"]:
            raise ModelError(
                f"the last {self.description.blocks} blocks were retrained on base {name} with fingerprint "
                f"{str(known['fingerprint'])[:16]}..., but the one here has {found.card.fingerprint[:16]}...: on other "
                "weights they mean nothing. Install the same base."
            )
        found = found.at(self.cut)
        return found.seen(self.view) if self.view and isinstance(found, Network) else found

    @cached_property
    def card(self) -> Card:
        """What is known of it: what is known of its base, and a fingerprint of its own."""
        decides = {
            "base": self.base.card.fingerprint,
            "tensors": {name: [one.sha256, list(one.shape)] for name, one in self.description.tensors.items()},
            "pooling": cutting.VERSION,
            "format": changes.FORMAT,
        }
        return replace(self.base.card, fingerprint=hashlib.sha256(jsontext.write(decides).encode()).hexdigest())

    @property
    def taps(self) -> tuple[Tap, ...]:
        """Where it can be cut."""
        return self.base.taps

    @property
    def found(self) -> list[Found]:
        """Where its graph can be cut."""
        return self.base.found

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How a picture becomes the network's input; None for texts."""
        return self.base.preprocessing if isinstance(self.base, Network) else None

    @property
    def provider(self) -> str:
        """Where it is run: cuda, coreml, openvino or cpu."""
        return self.base.provider if isinstance(self.base, Network) else "cpu"

    def at(self, cut: str) -> Tuned:
        """The same network cut elsewhere. Raises InputError."""
        self.base.at(cut)
        return self if cut == self.cut else replace(self, cut=cut)

    def seen(self, view: str) -> Tuned:
        """The same network, looking at every picture in another way: "", "flip" or "crop". Raises InputError."""
        if not isinstance(self.base, Network):
            raise InputError(f"{self.card.name} is a network for texts: there is nothing to look at in another way.")
        self.base.seen(view)
        return replace(self, view=view)

    def graph(self) -> Any:
        """The whole graph with its weights and the new values inside. Raises ModelError on what was altered."""
        model = _whole(self.base)
        changes.proved(self.description, model, self.found)
        applied(model, changes.load(self.folder, self.description))
        return model

    def check(self) -> Difference:
        """What differs from the base, as it is seen in both graphs, tensor by tensor. Raises ModelError."""
        known, card = self.description, self.base.card
        pairs = list(zip(_whole(self.base).graph.initializer, self.graph().graph.initializer, strict=True))
        names = {a.name for a, _ in pairs}
        mine = {changes.target(name, names) for name in known.tensors}
        for a, b in pairs:
            if a.name not in mine and a != b:
                raise ModelError(f"tensor {said(a.name)} is not the published one.")
        return Difference(
            base=card.name,
            blocks=known.blocks,
            of=changes.span(self.found, known.tap, str(known.base["cut"]))[1],
            tensors=len(mine),
            bytes=sum(4 * math.prod(entry.shape) for entry in known.tensors.values()),
            others=sum(a.data_type == 1 and a.name not in mine for a, _ in pairs),
            digest=card.digest,
        )

    def differs(self) -> dict[str, Any]:
        """What `check` finds, as JSON has it."""
        found = self.check()
        return {**asdict(found), "said": str(found)}

    @property
    def learned(self) -> bool:
        """That it was learned from labelled rows, so that these rows prove nothing about it."""
        return True

    @property
    def said(self) -> str:
        """What it is, in words: minilm, its last 2 of 6 blocks retrained."""
        known = self.description
        of = changes.span(self.found, known.tap, str(known.base["cut"]))[1]
        return f"{known.base['name']}, its {_last(known.blocks, of)} retrained"

    def portable(self) -> Portable:
        """The network below the cut with the new values inside. Raises ModelError on what was altered."""
        bare = self.base.at(
            self.taps[0].name
        ).portable()  # for its tokeniser or its preprocessing; the smallest there is
        return replace(bare, model=cutting.features(self.graph(), self.cut, self.found))

    @cached_property
    def _opened(self) -> Any:
        """A session in which the weights of the base are mapped from where they lie, unless changes are added to them."""
        model, folder = _outside(self.base)
        if {tensor.name for tensor in model.graph.initializer} >= set(self.description.tensors):
            changes.proved(self.description, model, self.found)
            applied(model, changes.load(self.folder, self.description))
        else:
            model = self.graph()
        below = cutting.features(model, self.cut, self.found)
        with told(self.card.name):
            return runtime.session(below.SerializeToString(), folder, provider=self.provider)

    def encode(self, contents: Contents) -> NDArray[np.float32]:
        """Features of n texts or n picture files, (n, width) float32 of unit length. Raises as its base does."""
        base, found = self.base, np.empty((len(contents), self.card.width), np.float32)
        if len(contents) == 0:
            return found
        if self.card.modality == "text":
            rows = base.rows(contents)  # type: ignore[arg-type]  # it looks itself
            with told(self.card.name):
                found = runtime.run(self._opened, ["features"], rows, alone=self.alone)[0]
        else:
            assert isinstance(base, Network)
            base.pictured(
                contents, self._opened, ["features"], lambda batch, values: found.__setitem__(batch, values[0])
            )
        return runtime.finite(found, self.said)

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """The token numbers of every text. Raises InputError on what is no text."""
        return self.base.rows(texts)

    def ran(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Features of n rows of equally many tokens, those of `rows`, on this thread alone. Raises ModelError."""
        return once(self.through, rows, self.card.name, alone=self.alone)

    @cached_property
    def through(self) -> runtime.Pass:
        """What its features come out of; loaded when it is first asked for. Raises ModelError."""
        return runtime.Pass.of(self._opened, ["features"])

    @property
    def alone(self) -> bool:
        """Whether its rows must be run one by one."""
        return isinstance(self.base, Network) and self.base.description.alone

    def halves(self) -> tuple[Any, Path, Any]:
        """The network in two at its tap: the graph below, as published, the folder that may hold its weights, and the
        graph above with the new values inside, which gives `features`.

        The outputs of the one are the inputs of the other. Raises InputError where it cannot be cut there, because the
        cut takes something below the tap, say; ModelError on what was altered.
        """
        model, folder = _outside(self.base)
        changes.proved(self.description, model, self.found)
        place = cutting.parts(self.description.tap, self.found)[0][0]
        below, above = cutting.halves(cutting.features(model, self.cut, self.found), place, "features")
        if isinstance(self.base, Network):
            inlined(above, folder)
        else:
            plain.inlined(above, minilm.published(folder))
        applied(above, changes.load(self.folder, self.description))
        return below, folder, above

    def counted(self, texts: Sequence[str]) -> tuple[list[int], list[int]]:
        """For every text how many tokens it makes, and how many of them are unknown pieces."""
        return self.base.counted(texts)
