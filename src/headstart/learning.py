"""From gathered rows to a saved model: embed, learn and prove, keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import advice, backbones, classnames, proof, saved
from headstart.backbone import Backbone
from headstart.dataset import Dataset
from headstart.embedding import SKIP, in_words, readable
from headstart.errors import DataError, InputError
from headstart.features import embed
from headstart.head import CLASSIFICATION
from headstart.keeping import Clock, backbone_facts, keep, origin
from headstart.model import Model
from headstart.progress import Progress
from headstart.rowcache import Cache

LOOKED = 2_000  # rows that the advice to tune is made from
MOST_VIEWED = 5_000  # pictures that are embedded a second time, mirrored


def supervised(
    name: str,
    train: Dataset,
    held: Dataset | None,
    pool: Dataset | None,
    given: Mapping[str, str],
    base: Backbone,
    clock: Clock,
    *,
    agreement: float | None = None,
    said: Sequence[str] = (),
    head: str = "auto",
    views: bool = True,
    broken: str = SKIP,
    balanced: bool = False,
    refuse: float = 0.05,
    seed: int = 0,
    keep_examples: bool = True,
    project: Path,
    progress: Progress,
    more: Mapping[str, Any] | None = None,
    carried: Path | None = None,
) -> Model:
    """Learn from labelled rows and save the model.

    given: what label names mean. agreement: of int8 with float32 features; said: what to note of the backbone. more:
    further facts. carried: the folder of a backbone of the model's own. Raises as `api.fit` does.
    """
    with clock("embed"):
        given_rows = train
        train, X = readable(train, base, broken=broken, progress=partial(progress, "embedding"))
        _all_there(given_rows, train)
        held_X = pool_X = None
        if held is not None:
            held, held_X = readable(held, base, broken=broken, progress=partial(progress, "embedding the test"))
        if pool is not None:
            pool, pool_X = readable(pool, base, broken=broken, progress=partial(progress, "embedding the unlabelled"))
        second = _views(train, base, progress) if views else None
        meant = names(train, given, base)
    learned = proof.learn(
        train,
        X,
        pool=pool_X,
        names=meant,
        views=second,
        held=None if held is None or held_X is None else (held, held_X),
        head=head,
        balanced=balanced,
        refuse=refuse,
        seed=seed,
        clock=clock,
    )
    about = {**backbone_facts(base), "agreement": agreement, "carried": carried is not None}
    advised = None
    if keep_examples and more is None and carried is None:
        with clock("evaluate"):
            advised = _advised(name, train, X, learned, base, seed)
    facts = {**learned.facts, **origin(name, seed), "backbone": about, "advice": advised, **(more or {})}
    beside = (("test", held), ("unlabelled", pool))
    unread = [f"of the {what} rows, {in_words(part.faults)}" for what, part in beside if part and part.faults]
    facts["data"]["notes"] = [*facts["data"]["notes"], *unread, *said]
    spread = np.sort(np.random.default_rng(seed).permutation(len(train))[: saved.PROBE_COUNT[train.modality]])
    return keep(
        name, learned, facts, base, train if keep_examples else None, project, clock, probes=train.raw(spread), X=X,
        carried=carried,
    )  # fmt: skip


def _advised(
    name: str, train: Dataset, X: NDArray[np.float32], learned: proof.Learned, base: Backbone, seed: int
) -> str | None:
    """The advice to tune, where the base has blocks that can be and it would probably pay."""
    if train.task != CLASSIFICATION or learned.scores is None or len(base.taps) < 2:
        return None
    some = np.sort(np.random.default_rng(seed).permutation(len(train))[:LOOKED])
    found = advice.worth(
        X[some], train.y[some], learned.scores[some], name=name, modality=train.modality,
        groups=None if train.group is None else train.group[some], seed=seed,
    )  # fmt: skip
    if found is None:
        return None
    from headstart.halved import choices  # opens the graph: only where there is something to say

    return found if choices(base) else None


def _all_there(given: Dataset, read: Dataset) -> None:
    """Raise DataError for a label that lost all its examples, as none of its files can be read."""
    if read.task != CLASSIFICATION or len(read) == len(given):
        return
    gone = [given.labels[code] for code in np.setdiff1d(given.y, read.y)]
    if gone:
        last = read.faults[-1]
        raise DataError(
            f"no picture of {', '.join(map(repr, gone))} can be read, such as {last.name}: {last.reason}.",
            file=given.name, todo="Repair them, or leave the label out.",
        )  # fmt: skip


def backbone(name: str, cut: str | None, precision: str, train: Dataset) -> tuple[Backbone, float | None, list[str]]:
    """The backbone at the asked or the found precision, its agreement with float32, and what to say of it."""
    if precision != "auto":
        return backbones.load(name, precision=precision, cut=cut), None, []
    where = Cache()
    chosen, agreement, said = backbones.choose_precision(
        name, train.contents, cut=cut, encode=lambda base, contents: embed(contents, base, where).values
    )
    return chosen, agreement, [said]


def _views(train: Dataset, base: Backbone, progress: Progress) -> NDArray[np.float32] | None:
    """(n, d) features of the pictures seen in a mirror; None for texts, for many pictures, or without a network."""
    seen = getattr(base, "seen", None)
    if train.modality != "image" or seen is None or len(train) > MOST_VIEWED:
        return None
    found = embed(
        train.contents, seen("flip"), Cache(), keys=train.keys, progress=partial(progress, "embedding mirrored")
    )  # fmt: skip
    return found.values


def names(train: Dataset, given: Mapping[str, str], base: Backbone) -> NDArray[np.float32] | None:
    """(c, d) features of what the label names mean, or None when they are codes or the backbone reads no texts."""
    if train.modality != "text":
        return None
    meanings = classnames.meanings(train.labels, given) if train.labels else None
    return None if meanings is None else embed(meanings, base, Cache()).values


def zero_shot(
    name: str,
    given: Mapping[str, str],
    pool: Dataset | None,
    base: Backbone,
    seed: int,
    project: Path,
    clock: Clock,
) -> Model:
    """A model from label names alone, with what they mean.

    pool: texts without labels that the thresholds are set on. Raises InputError for names that mean nothing, or for
    pictures.
    """
    if base.card.modality != "text" or (pool is not None and pool.modality != "text"):
        raise InputError(
            "no picture has a label: a model of pictures needs labelled ones, a folder for each class, say."
        )
    labels = tuple(sorted(given))
    meanings = classnames.meanings(labels, given)
    if meanings is None:
        raise InputError(
            "without examples the labels must mean something: use words, or describe them as in "
            "--labels 'c1: about invoices; c2: about delivery'."
        )
    with clock("embed"):
        named = embed(meanings, base, Cache()).values
        texts = None if pool is None else readable(pool, base)[1]
    learned = proof.from_names(labels, named, texts)
    facts = {**learned.facts, **origin(name, seed), "backbone": {**backbone_facts(base), "agreement": None}}
    probes = list(meanings) if pool is None else [*meanings, *pool.texts(np.arange(min(len(pool), 64)))]
    return keep(name, learned, facts, base, None, project, clock, probes=probes)
