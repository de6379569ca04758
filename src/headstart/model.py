"""A model: backbone reference, cut, head, calibration, thresholds, unknown, and the card that says what it is.

Letters: n examples, d feature width, c classes. X (n, d), P (n, c).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet
from numpy.typing import NDArray

from headstart import backbones, heads, modalities, picturefile, saved, tensors
from headstart.answers import Answers, measure
from headstart.calibration import Calibration
from headstart.dataset import read
from headstart.embedding import SKIP, readable
from headstart.errors import ContentError, DataError, InputError, ModelError, NotFound
from headstart.features import Features, embed
from headstart.head import CLASSIFICATION, MULTILABEL, REGRESSION, TASKS, Head
from headstart.rawfile import missing, shown
from headstart.rowcache import Cache
from headstart.unknown import Unknown

if TYPE_CHECKING:
    from headstart.backbone import Backbone, Contents

TOLERANCE = 1e-4  # of features and probabilities between machines; on one machine they agree to 1e-6


@dataclass(frozen=True)
class Prediction:
    """What a model says of one example."""

    label: str | None  # the likeliest label; None when it is a number or no label applies
    probability: float | None  # of that label, calibrated; None when it is a number
    unknown: bool  # the input is unlike the training data: do not rely on the label
    labels: tuple[str, ...] = ()  # several labels at once: those above their thresholds
    value: float | None = None  # a number
    probabilities: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A small special-purpose model on a shared backbone."""

    card: Mapping[str, Any]
    head: Head
    calibration: Calibration
    unknown: Unknown | None
    thresholds: NDArray[np.float32] | None  # (c,), several labels only
    folder: Path | None = None

    @property
    def name(self) -> str:
        """The model's name in its project."""
        return str(self.card["name"])

    @property
    def task(self) -> str:
        """One of `head.TASKS`."""
        return str(self.card["task"])

    @property
    def modality(self) -> str:
        """What the model reads: "text" or "image"."""
        return str(self.card["backbone"].get("modality", "text"))

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names, in the order of the columns of P."""
        return tuple(self.card["labels"])

    @cached_property
    def backbone(self) -> Backbone:
        """The backbone, loaded at first use.

        Raises NotFound when it is not installed, ModelError when the one here is not the one trained on.
        """
        said = self.card["backbone"]
        carried = self.folder if said.get("carried") else None
        try:
            found = backbones.load(said["name"], precision=said["precision"], cut=said["cut"], carried=carried)
            there = found.card.fingerprint
        except NotFound as error:
            raise NotFound(f"model {self.name!r} needs the base model it was made on: {error}") from None
        except ModelError as error:  # of a retrained one the base may be another
            raise ModelError(f"model {self.name!r}: {error}") from None
        if there != said["fingerprint"]:
            raise ModelError(
                f"model {self.name!r} was trained on backbone {said['name']} with fingerprint "
                f"{said['fingerprint'][:16]}..., but the one here has {there[:16]}...: other weights, "
                "preprocessing or cut would give other features. Install the same backbone, or fit the model anew."
            )
        return found

    def answer(self, X: NDArray[np.float32], *, judge: bool = True) -> Answers:
        """Features (n, d) -> Answers. Needs no backbone. judge False: `unknown` is not looked at, and False throughout."""
        judged = self.unknown if judge else None
        scores = self.head.scores(X)
        if self.task == REGRESSION:
            unknown = judged.refused(X, scores) if judged else np.zeros(len(scores), bool)
            return Answers(scores, np.zeros(scores.shape, bool), unknown)
        P = self.calibration.apply(scores)
        if self.task == MULTILABEL:
            assert self.thresholds is not None
            chosen = self.thresholds[None, :] <= P
        else:
            chosen = np.zeros(P.shape, bool)
            chosen[np.arange(len(P)), P.argmax(1)] = True
        unknown = judged.refused(X, P) if judged else np.zeros(len(P), bool)
        return Answers(P, chosen, unknown)

    def features(self, contents: Contents, *, cache: Cache | None = None) -> Features:
        """Embed contents with this model's backbone, through the cache.

        Raises InputError on contents of another kind, ContentError on pictures that cannot be read.
        """
        return embed(contents, self.backbone, cache if cache is not None else Cache())

    def predict(
        self, contents: Sequence[str | bytes | Path] | str | bytes | Path, *, every: bool = False
    ) -> list[Prediction]:
        """Predict contents, one Prediction each, in order; `every` fills in the probability of every label.

        A content is a text; for a model of pictures the path of a file, or its bytes. Raises InputError for other
        things, NotFound for a path that leads nowhere, and DataError, with the name of a file, or ContentError, with the
        places of bytes, for a picture that cannot be read.
        """
        if not hasattr(contents, "__iter__") and not isinstance(contents, Path):
            raise InputError(f"give one content or a sequence of them, not a {type(contents).__name__}.")
        given = [contents] if isinstance(contents, str | bytes | Path) else list(contents)
        X = self.embedded(given, self.contents(given)).values
        return self.predictions(self.answer(X), every=every)

    def embedded(
        self, given: Sequence[str | bytes | Path], contents: Contents, *, cache: Cache | None = None
    ) -> Features:
        """`features` of what `contents` made of `given`: a file that cannot be read is named. Raises as `predict` does."""
        try:
            return self.features(contents, cache=cache)
        except ContentError as error:
            at, why = error.faults[0]
            if isinstance(given[at], bytes):
                raise
            raise DataError(f"{why}.", file=shown(str(given[at]))) from None

    def contents(self, given: Sequence[str | bytes | Path]) -> Contents:
        """What the backbone reads: texts as they are; of pictures the bytes. Raises NotFound, InputError."""
        is_text = self.modality == "text"
        for place, one in enumerate(given, 1):
            if not isinstance(one, str if is_text else str | bytes | Path):
                wanted = "texts" if is_text else "pictures, as paths or bytes"
                what = f"content number {place} is a {type(one).__name__}"
                raise InputError(f"{what}; model {self.name!r} reads {wanted}.")
        if is_text:
            return list(given)  # type: ignore[return-value]
        return [one if isinstance(one, bytes) else picture(Path(one)) for one in given]

    def predictions(self, answers: Answers, *, every: bool = False) -> list[Prediction]:
        """Arrays -> one Prediction an example."""
        if self.task == REGRESSION:
            return [
                Prediction(None, None, bool(unknown), value=float(value))
                for value, unknown in zip(answers.P[:, 0], answers.unknown, strict=True)
            ]
        top = answers.P.argmax(1) if len(answers.P) else np.zeros(0, int)
        found = []
        for i, best in enumerate(top):
            several = self.task == MULTILABEL
            found.append(
                Prediction(
                    label=self.labels[best] if not several or answers.chosen[i, best] else None,
                    probability=float(answers.P[i, best]),
                    unknown=bool(answers.unknown[i]),
                    labels=tuple(self.labels[j] for j in np.flatnonzero(answers.chosen[i])) if several else (),
                    probabilities=dict(zip(self.labels, map(float, answers.P[i]), strict=True)) if every else {},
                )
            )
        return found

    def evaluate(
        self,
        data: object,
        *,
        text: str | None = None,
        image: str | None = None,
        label: str | None = None,
        names: object = None,
        encoding: str | None = None,
        broken: str = SKIP,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Measure on labelled data (a path or a table): {name, task, test: figures, per_class, confusion, overlap, notes}.

        Raises InputError, NotFound or DataError on data that cannot be used, labels the model does not have among them.
        """
        known = self.labels or None
        held = read(
            data, text=text, image=image, label=label, names=names, task=self.task, encoding=encoding, known=known,
            modality=self.modality,
        )  # fmt: skip
        held = held.take(np.flatnonzero(held.y >= 0))
        if not len(held):
            raise InputError(f"{held.name}: no row has a label to compare with.")
        held, X = readable(held, self.backbone, broken=broken, progress=progress)
        found = measure(self.task, self.labels, self.answer(X), held, self._trained())
        return {"name": self.name, "task": self.task, **found, "notes": [*held.notes, *found["notes"]]}

    def _trained(self) -> NDArray[np.uint64] | None:
        """(m, 2) keys of the kept training examples, or None when none are kept."""
        if self.folder is None or not (self.folder / saved.EXAMPLES).exists():
            return None
        keys = pyarrow.parquet.read_table(self.folder / saved.EXAMPLES, columns=["key"])["key"].to_pylist()
        return np.frombuffer(bytes.fromhex("".join(keys)), "<u8").reshape(-1, 2)

    def arrays(self) -> tensors.Arrays:
        """Everything learned, as named arrays."""
        arrays = tensors.prefixed(self.head.arrays(), "head")
        arrays |= tensors.prefixed(self.calibration.arrays(), "calibration")
        if self.unknown is not None:
            arrays |= tensors.prefixed(self.unknown.arrays(), "unknown")
        if self.thresholds is not None:
            arrays["thresholds"] = self.thresholds
        return arrays


def picture(path: Path) -> bytes:
    """The bytes of a picture file. Raises NotFound, DataError."""
    if not os.path.exists(path):  # also where the name is too long to be one
        raise missing(path)
    try:
        return picturefile.read(path)
    except ValueError as error:
        raise DataError(f"{error}.", file=shown(str(path))) from None


def load(folder: Path, *, lean: bool = False) -> Model:
    """Read a saved model, trusting nothing in it. Raises NotFound or ModelError.

    The features stored with the probes go through the head; other answers than the stored ones are refused.
    lean: the references of `unknown` stay in their file until they are needed, and it must stay too.
    """
    card = saved.read_card(folder)
    labels, task, backbone = card.get("labels"), card.get("task"), card.get("backbone")
    if task not in TASKS or not isinstance(backbone, dict) or not isinstance(card.get("name"), str):
        raise ModelError(f"{folder / saved.CARD}: task, name or backbone is missing or of no known kind.")
    if not isinstance(labels, list) or not all(isinstance(x, str) for x in labels) or len(set(labels)) != len(labels):
        raise ModelError(f"{folder / saved.CARD}: its labels are not a list of different names.")
    if (task == CLASSIFICATION and len(labels) < 2) or (task == MULTILABEL and not labels):
        raise ModelError(f"{folder / saved.CARD}: {len(labels)} labels are too few for {task}.")
    arrays = tensors.load(folder / saved.ARRAYS, ("unknown.references",) if lean else ())
    thresholds = arrays.get("thresholds")
    try:
        model = Model(
            card=card,
            head=heads.load(card["head"]["name"]).from_arrays(tensors.part(arrays, "head")),
            calibration=Calibration.from_arrays(tensors.part(arrays, "calibration")),
            unknown=Unknown.from_arrays(part) if (part := tensors.part(arrays, "unknown")) else None,
            thresholds=None if thresholds is None else thresholds.astype(np.float32),
            folder=folder,
        )
        if task == MULTILABEL and (thresholds is None or thresholds.shape != (len(labels),)):
            raise ValueError("one threshold a label is needed")
        _, features, expected = saved.read_probes(folder)
        columns = 1 if task == REGRESSION else len(labels)
        if features.shape[1] != int(backbone["width"]) or expected.shape[1] != columns:
            raise ValueError(f"probes of {features.shape[1]} features and {expected.shape[1]} answers do not fit")
        if model.unknown is not None and model.unknown.references.shape[1] != features.shape[1]:
            raise ValueError(f"`unknown` knows inputs of {model.unknown.references.shape[1]} features")
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is caught as a difference below
            answered = model.answer(features, judge=False).P
    except (ValueError, KeyError, TypeError, IndexError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{folder}: its arrays do not make a model: {error}.") from error
    if answered.shape != expected.shape or not difference(answered, expected) <= TOLERANCE:
        raise ModelError(f"{folder}: the head does not give the answers that were stored with it.")
    return model


def difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference, absolute below 1 and relative above it."""
    if not expected.size:
        return 0.0
    return float(np.max(np.abs(found - expected) / np.maximum(1.0, np.abs(expected))))


@dataclass(frozen=True)
class Replay:
    """How closely the probes were answered again."""

    probes: int
    features: float  # largest difference of a feature value
    answers: float  # largest difference of a probability, or of a number relative to it
    same_labels: bool


def replay(
    model: Model, encode: Callable[[Any], NDArray[np.float32]] | None = None, *, most: int | None = None
) -> Replay:
    """Encode the stored probes anew, past the cache, and compare. Raises ModelError when they differ.

    encode: contents -> features (n, d), by default of the model's backbone. most: so many probes are enough.
    """
    assert model.folder is not None
    kept, features, expected = saved.read_probes(model.folder)
    kept, features, expected = kept[:most], features[:most], expected[:most]
    modality, encode = modalities.load(model.modality), encode or model.backbone.encode
    try:
        X = encode([modality.unprobe(one) for one in kept])  # type: ignore[arg-type]
    except (ValueError, ContentError) as error:
        raise ModelError(f"{model.folder / saved.PROBES}: a probe cannot be read: {error}") from error
    if X.shape != features.shape:
        raise ModelError(
            f"{model.folder}: {_base(model)} gave features of shape {X.shape}, {features.shape} were stored."
        )
    answers = model.answer(X)
    stored = model.answer(features)
    result = Replay(
        probes=len(kept),
        features=difference(X, features),
        answers=difference(answers.P, expected),
        same_labels=bool((answers.chosen == stored.chosen).all()),
    )
    if not (result.features <= TOLERANCE and result.answers <= 10 * TOLERANCE and result.same_labels):
        raise ModelError(
            f"{model.folder}: {result.probes} probes were answered differently than when the model was trained: features "
            f"by up to {result.features:.2g}, answers by up to {result.answers:.2g}, labels "
            f"{'the same' if result.same_labels else 'differ'}. They were encoded by {_base(model)}."
        )
    return result


def _base(model: Model) -> str:
    """Which backbone the model was made on, in words."""
    said = model.card["backbone"]
    return f"its base model {said['name']} (fingerprint {said['fingerprint'][:16]}...)"
