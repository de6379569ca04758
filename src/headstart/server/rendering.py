"""What models said, as JSON: plainly for a few predictions, by columns for tens of thousands.

Both ways give equal JSON (numbers are written with other digits, but read the same). Probabilities have 6 decimals,
numbers the digits a float32 needs.

Letters: m models, n inputs, c classes. P (n, c).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headstart.head import CLASSIFICATION, MULTILABEL, REGRESSION
from headstart.serving.asked import Said

MANY = 500  # predictions from which on columns are quicker
DECIMALS = 6


def one(said: Said, *, top: int = 0, judge: bool = True) -> bytes:
    """The JSON object of one model: {model, source?, version, digest, predictions}."""
    return laid_out([said], top=top, judge=judge)[0]


def every(said: Sequence[Said], *, top: int = 0, judge: bool = True) -> bytes:
    """The JSON object of several models: {models: [...]}, in their order."""
    return b'{"models":[' + b",".join(laid_out(said, top=top, judge=judge)) + b"]}"


def laid_out(said: Sequence[Said], *, top: int = 0, judge: bool = True) -> list[bytes]:
    """A JSON object for each of m models."""
    found: list[bytes | None] = [None] * len(said)
    if sum(len(one.answers.P) for one in said) >= MANY and not top:
        places = [i for i, one in enumerate(said) if one.served.task == CLASSIFICATION and one.why is None]
        if places:
            for i, text in zip(places, by_columns([said[i] for i in places], judge=judge) or (), strict=False):
                found[i] = text
    return [
        orjson.dumps({**named(one), "predictions": predictions(one, top=top, judge=judge)}) if text is None else text
        for one, text in zip(said, found, strict=True)
    ]


def named(said: Said) -> dict[str, str]:
    """Which version of which model it was; `source` is the model's own name where it is deployed under another."""
    own = {} if said.served.name == said.name else {"source": said.served.name}
    return {"model": said.name, **own, "version": said.served.version, "digest": said.served.digest}


def predictions(said: Said, *, top: int = 0, judge: bool = True) -> list[dict[str, Any]]:
    """One object for each of n inputs, in their order; `top` likeliest labels; without `judge` unknown is null."""
    labels, P, task = said.served.labels, said.answers.P, said.served.task
    if task == REGRESSION:
        rows = [{"value": value} for value in written(P[:, 0])]
    else:
        best = P.argmax(1)
        shares = rounded(P[np.arange(len(P)), best]).tolist()
        rows = [{"label": labels[j], "probability": p} for j, p in zip(best.tolist(), shares, strict=True)]
    unknown: list[bool | None] = said.answers.unknown.tolist() if judge else [None] * len(P)
    found: list[dict[str, Any]] = []
    for i, row in enumerate(rows):
        made: dict[str, Any] = {"id": f"{said.id}.{i}", **row, "unknown": unknown[i]}
        if task == MULTILABEL:
            chosen = np.flatnonzero(said.answers.chosen[i]).tolist()
            made["labels"] = [labels[j] for j in chosen]
            made["label"] = row["label"] if said.answers.chosen[i, int(best[i])] else None
        if top and task != REGRESSION:
            made["top"] = likeliest(labels, P[i], top)
        if said.why is not None:
            made["why"] = said.why[i]
        found.append(made)
    return found


def likeliest(labels: Sequence[str], p: NDArray[np.float32], k: int) -> list[dict[str, Any]]:
    """The k likeliest of c labels, the likeliest first, of equal ones the first first. p (c,)."""
    order = np.argsort(-p, kind="stable")[:k]
    return [{"label": labels[j], "probability": v} for j, v in zip(order, rounded(p[order]).tolist(), strict=True)]


def rounded(p: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities with 6 decimals."""
    found: NDArray[np.float64] = np.rint(p.astype(np.float64) * 10.0**DECIMALS) / 10.0**DECIMALS
    return found


def written(values: NDArray[np.float32]) -> list[float]:
    """Numbers with no more digits than a float32 needs to be told from its neighbours."""
    return [float(str(value)) for value in values.astype(np.float32)]


def by_columns(said: Sequence[Said], *, judge: bool) -> list[bytes] | None:
    """A JSON object for each of m classifiers asked the same n inputs; None where a probability is out of range.

    All rows of all models are written at once, column by column, into one buffer, which is then cut at the models.
    """
    m, n = len(said), len(said[0].answers.P)
    best, p = np.empty((m, n), np.int64), np.empty((m, n), np.float32)
    for places in _same_width(said):
        P = np.concatenate([said[i].answers.P for i in places])  # (len(places) * n, c)
        at = P.argmax(1)
        best[places], p[places] = at.reshape(-1, n), P[np.arange(len(P)), at].reshape(-1, n)
    if not ((p >= 0) & (p <= 1)).all():  # NaN among them
        return None
    first = np.cumsum([0, *(len(one.served.labels) for one in said[:-1])])  # (m,) where a model's labels begin
    labels = pa.concat_arrays([_quoted(one.served.labels) for one in said])
    starts: list[bytes] = []  # of a model's first row, of its other rows
    for one in said:
        row = b'{"id":' + orjson.dumps(one.id)[:-1] + b"."
        starts += (orjson.dumps(named(one))[:-1] + b',"predictions":[' + row, b"," + row)
    place = np.tile(np.arange(n), m)  # (m * n,)
    start = 2 * np.repeat(np.arange(m), n) + (place > 0)
    ends = [b',"unknown":' + word + end for end in (b"}", b"}]}") for word in (b"false", b"true", b"null")]
    end = 3 * (place == n - 1) + (np.concatenate([one.answers.unknown for one in said]) if judge else 2)
    rows = pc.binary_join_element_wise(
        pa.array(starts, pa.large_binary()).take(pa.array(start)),
        pa.array([b"%d" % i for i in range(n)], pa.large_binary()).take(pa.array(place)),
        pa.scalar(b'","label":', pa.large_binary()),
        labels.take(pa.array((best + first[:, None]).ravel())),
        pa.scalar(b',"probability":', pa.large_binary()),
        _decimals(p.ravel()),
        pa.array(ends, pa.large_binary()).take(pa.array(end)),
        pa.scalar(b"", pa.large_binary()),
    )
    _, offsets, text = rows.buffers()
    edges = np.frombuffer(offsets, np.int64, m * n + 1)[::n].tolist()
    whole = memoryview(text)
    return [bytes(whole[low:high]) for low, high in pairwise(edges)]


def _same_width(said: Sequence[Said]) -> list[list[int]]:
    """The places of models with equally many classes, together."""
    found: dict[int, list[int]] = {}
    for i, one in enumerate(said):
        found.setdefault(one.answers.P.shape[1], []).append(i)
    return list(found.values())


@lru_cache(maxsize=4096)
def _quoted(labels: tuple[str, ...]) -> pa.Array:
    """Labels as JSON."""
    return pa.array([orjson.dumps(label) for label in labels], pa.large_binary())


def _decimals(p: NDArray[np.float32]) -> pa.Array:
    """Probabilities (k,) between 0 and 1 as texts of 8 characters: 0.930000."""
    millionths = np.rint(p.astype(np.float64) * 10**DECIMALS).astype(np.int64)
    text = np.zeros((len(p), DECIMALS + 2), np.uint8)
    for column in range(DECIMALS + 1, 1, -1):
        millionths, text[:, column] = np.divmod(millionths, 10)
    text[:, 0] = millionths
    text += ord("0")
    text[:, 1] = ord(".")
    offsets = np.arange(0, text.size + 1, DECIMALS + 2, dtype=np.int64)
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(p), [None, pa.py_buffer(offsets), pa.py_buffer(text)]
    )
