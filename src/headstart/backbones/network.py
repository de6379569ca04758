"""A backbone that is a folder: an ONNX graph, what it needs, and backbone.json, which says what it is.

Reading its card and taps opens no graph. The first `encode` checks every file against its sha256, reads the graph as
one that nobody vouches for, and keeps only what is below the cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import jsontext
from headstart.backbone import Card, Contents, Portable, Tap
from headstart.backbones import described
from headstart.backbones import onnx as runtime
from headstart.backbones.described import TOKENISER, Description, Place, describe
from headstart.errors import ContentError, InputError, ModelError
from headstart.graph import cut as cutting
from headstart.graph import flow, shapes
from headstart.graph.taps import Found
from headstart.preprocessing import Preprocessing

__all__ = ["Network", "describe"]

PICTURES = 8  # in one run: fewer and more are both slower

Keep = Callable[[Any, list[Any]], None]  # takes the numbers of a batch's contents, and the outputs of its run


@contextmanager
def told(name: str) -> Iterator[None]:
    """Make a ModelError of what ONNX Runtime raises: it has a class for each of its states, and no common one."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        words = " ".join(str(error).split())[:300]
        raise ModelError(f"{name}: ONNX Runtime cannot run the graph: {words}") from error


def passed(
    rows: Sequence[Sequence[int]], opened: Any, outputs: Sequence[str], keep: Keep, *, alone: bool = False
) -> None:
    """Run n rows of token numbers through a session, on all cores, in batches of exactly equal length.

    `keep(numbers, values)` takes the outputs of a batch. Masks, token types and positions are made where they are asked
    for; `alone`: every row in a run of its own.
    """
    lengths = np.array([len(row) for row in rows], np.int64)
    work = [np.array([i]) for i in range(len(rows))] if alone else runtime.batches(lengths, runtime.cores())
    kinds = {one.name: np.int32 if "int32" in one.type else np.float32 if "float" in one.type else np.int64
             for one in opened.get_inputs()}  # fmt: skip

    def one(batch: NDArray[np.int64]) -> None:
        tokens = np.array([rows[i] for i in batch], np.int64)
        feed = {
            name: (shapes.side(name, *tokens.shape) if name in flow.SIDES else tokens).astype(kind, copy=False)
            for name, kind in kinds.items()
        }
        keep(batch, opened.run(list(outputs), feed))

    runtime.spread(one, work)


def once(through: runtime.Pass, rows: Sequence[Sequence[int]], name: str, *, alone: bool) -> NDArray[np.float32]:
    """The one output (n, width) of a pass of n rows of equally many tokens, on this thread; `alone`: row by row."""
    with told(name):
        found = [through.ran([row])[0] for row in rows] if alone else through.ran(rows)
    return runtime.finite(np.concatenate(found) if len(found) > 1 else found[0], name)


@dataclass(frozen=True)
class Network:
    """The network in a folder, cut somewhere. Nothing is loaded before the first `encode`."""

    folder: Path
    description: Description
    cut: str

    @classmethod
    def open(cls, folder: Path, *, cut: str | None = None) -> Network:
        """The backbone in a folder, at its default cut or another one.

        The files must be there; their digests are checked before anything of them is used, at the first `encode`.
        Raises NotFound, ModelError for a folder that is damaged, InputError for a cut it does not have.
        """
        folder = Path(folder)
        found = described.read(folder)
        for name, _ in found.files:
            path = folder / name
            if path.is_symlink() or not path.is_file():
                raise ModelError(f"{folder}: the file {name} is {'a link' if path.is_symlink() else 'missing'}.")
        return cls(folder, found, found.cut).at(cut or found.cut)

    @cached_property
    def places(self) -> list[Place]:
        """The parts of the cut."""
        return self.description.chosen(self.cut)

    @cached_property
    def card(self) -> Card:
        """What is known of it; reading it opens no graph."""
        facts, deepest = self.description, max(self.places, key=lambda place: place.operations)
        files = dict(facts.files)
        return Card(
            name=facts.name,
            modality=facts.modality,
            width=sum(place.width for place in self.places),
            licence=facts.licence,
            source=facts.source,
            digest=hashlib.sha256("".join(files[name] for name in sorted(files)).encode()).hexdigest(),
            precision=facts.precision,
            cut=self.cut,
            fingerprint=self.fingerprint,
            widths=tuple(place.width for place in self.places),
            revision=facts.revision,
            parameters=deepest.parameters,
            size=deepest.size,
        )

    @property
    def fingerprint(self) -> str:
        """The hex digest of everything that decides a feature. The name and the notes are not in it."""
        facts = self.description
        decides = {
            "files": [sha for name, sha in facts.files if not name.lower().endswith((".md", "license", ".txt"))],
            "names": [name for name, _ in facts.files],
            "graph": facts.graph,
            "modality": facts.modality,
            "preprocessing": facts.preprocessing.facts() if facts.preprocessing else None,
            "tokens": facts.tokens,
            "cut": self.cut,
            "parts": [[place.tensor, place.kind, place.width] for place in self.places],
            "precision": facts.precision,
            "alone": facts.alone,
            "pooling": cutting.VERSION,
        }
        return hashlib.sha256(jsontext.write(decides).encode()).hexdigest()

    @property
    def taps(self) -> tuple[Tap, ...]:
        """Where it can be cut."""
        return tuple(Tap(p.name, p.width, p.parameters, p.operations) for p in self.description.taps)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How a picture becomes the network's input."""
        return self.description.preprocessing

    def at(self, cut: str) -> Network:
        """The same network cut elsewhere. Raises InputError."""
        self.description.chosen(cut)
        return self if cut == self.cut else Network(self.folder, self.description, cut)

    def seen(self, view: str) -> Network:
        """The same network, looking at every picture in another way: "", "flip" or "crop". Raises InputError."""
        if self.preprocessing is None:
            raise InputError(
                f"{self.description.name} is a network for texts: there is nothing to look at in another way."
            )
        try:
            looked = replace(self.preprocessing, view=view)
        except ValueError as error:
            raise InputError(f"no view {view!r}: {error}.") from None
        return Network(self.folder, replace(self.description, preprocessing=looked), self.cut)

    def check(self) -> None:
        """Raise ModelError unless every file is the one that was described. A file is read once a process."""
        for name, sha in self.description.files:
            found = described.digest(self.folder / name)
            if found != sha:
                raise ModelError(
                    f"{self.folder / name} is not the file that was installed: its sha256 is {found}, not {sha}. "
                    f"Remove the backbone and add it again."
                )

    def graph(self) -> Any:
        """The whole graph, checked; its weights may be outside it, in the folder. Raises ModelError."""
        from headstart.graph import freeing, reading

        self.check()
        model = reading.load(self.folder / self.description.graph)
        return model if self.description.alone else freeing.freed(model)

    def features(self) -> Any:
        """The graph below the cut, `features` its output; its weights may be outside it, in the folder."""
        return cutting.features(self.graph(), self.cut, self.found)

    @property
    def found(self) -> list[Found]:
        """The taps and the network's own output, as they stand in backbone.json."""
        return [
            Found(p.name, p.tensor, p.kind, p.width, p.parameters, p.operations, p.size)
            for p in self.description.places
        ]

    @cached_property
    def _opened(self) -> Any:
        return self._session(self.features())

    @cached_property
    def _words(self) -> Any:
        from headstart.backbones.tokens import tokeniser

        self.check()
        return tokeniser(self.folder / TOKENISER, self.description.tokens or 1)

    def _session(self, model: Any) -> Any:
        """A session where the best provider is. Raises ModelError with the runtime's words."""
        with told(self.description.name):
            return runtime.session(model.SerializeToString(), self.folder, provider=self.provider)

    @property
    def provider(self) -> str:
        """Where it is run: cuda, coreml, openvino or cpu."""
        return runtime.providers()[0]

    def encode(self, contents: Contents) -> NDArray[np.float32]:
        """Features of n texts or n picture files, (n, width) float32 of unit length.

        Raises ContentError with every picture that cannot be read, InputError on what is no text or no bytes, ModelError
        on a folder that was altered or a network that gives no number.
        """
        if len(contents) == 0:
            return np.empty((0, self.card.width), np.float32)
        if self.description.modality == "text":
            rows = self.rows(contents)  # type: ignore[arg-type]  # it looks itself
            with told(self.description.name):
                found = runtime.run(self._opened, ["features"], rows, alone=self.description.alone)[0]
        else:
            found = np.empty((len(contents), self.card.width), np.float32)
            self.pictured(
                contents, self._opened, ["features"], lambda batch, values: found.__setitem__(batch, values[0])
            )
        return runtime.finite(found, self.description.name)

    def ran(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Features of n rows of equally many tokens, those of `rows`, on this thread alone. Raises ModelError."""
        return once(self.through, rows, self.description.name, alone=self.description.alone)

    @cached_property
    def through(self) -> runtime.Pass:
        """What its features come out of; loaded when it is first asked for. Raises ModelError."""
        return runtime.Pass.of(self._opened, ["features"])

    def counted(self, texts: Sequence[str]) -> tuple[list[int], list[int]]:
        """For every text how many tokens it makes, and how many of them are unknown pieces."""
        from headstart.backbones.tokens import counted

        return counted(self._words, texts, self.description.tokens or 1)

    def states(self, contents: Contents, tap: str) -> list[NDArray[np.float32]]:
        """The unpooled states at a tap, for each content (places, width) float32: tokens, patches or pixels of a map."""
        if len(contents) == 0:
            return []
        output = f"states {tap}"
        opened = self._session(cutting.states(self.graph(), [tap], self.found))
        found: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(contents)

        def keep(batch: Any, values: list[Any]) -> None:
            for i, value in zip(batch, values[0], strict=True):
                found[i] = value

        if self.description.modality == "image":
            self.pictured(contents, opened, [output], keep)
        else:
            with told(self.description.name):
                passed(self.rows(contents), opened, [output], keep, alone=self.description.alone)  # type: ignore[arg-type]
        return found

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """The token numbers of every text. Raises InputError on what is no text."""
        from headstart.backbones.tokens import tokenise

        return tokenise(self._words, texts, self.description.tokens or 1)

    def pictured(self, contents: Contents, opened: Any, outputs: Sequence[str], keep: Keep) -> None:
        """Decode, prepare and run pictures, on all cores, so that one is decoded while another is in the network.

        `keep(numbers, values)` takes the outputs of a batch. Once a picture is broken the others are only decoded, to
        find all that are. Raises ContentError, InputError.
        """
        from headstart.modalities.image import decoded

        how = self.preprocessing
        assert how is not None
        for i, content in enumerate(contents):
            if not isinstance(content, bytes):
                raise InputError(
                    f"content number {i + 1} of the call is a {type(content).__name__}, not a picture's bytes."
                )
        name = opened.get_inputs()[0].name
        faults: list[tuple[int, str]] = []

        def one(batch: range) -> None:
            ready = []
            for i in batch:
                try:
                    ready.append(how.apply(decoded(contents[i], how.least)))  # type: ignore[arg-type]
                except ValueError as error:
                    faults.append((i, str(error)))
            if not faults:
                keep(np.arange(batch.start, batch.stop), opened.run(list(outputs), {name: np.stack(ready)}))

        step = 1 if self.description.alone else max(1, min(PICTURES, -(-len(contents) // runtime.cores())))
        with told(self.description.name):
            runtime.spread(one, [range(i, min(i + step, len(contents))) for i in range(0, len(contents), step)])
        if faults:
            raise ContentError(sorted(faults))

    def portable(self) -> Portable:
        """The network below the cut with its weights inside. Raises ModelError on a folder that was altered."""
        from headstart.graph import reading

        model = self.features()
        reading.inlined(model, self.folder)
        text = self.description.modality == "text"
        return Portable(
            model=model,
            modality=self.description.modality,
            tokeniser=(self.folder / TOKENISER).read_bytes() if text else b"",
            tokens=self.description.tokens or 0,
            preprocessing=self.preprocessing,
        )
