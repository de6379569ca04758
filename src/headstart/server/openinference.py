"""The Open Inference Protocol v2 without a wire: what a model is said to be, contents in, tensors out.

A model has one input, `text` or `image` (BYTES [n]), and outputs by its task:

    classification   label BYTES [n], probability FP32 [n], unknown BOOL [n], probabilities FP32 [n, c], id BYTES [n]
    multilabel       labels BYTES [n] (JSON lists), chosen BOOL [n, c], probabilities FP32 [n, c], unknown, id
    regression       value FP32 [n], unknown, id

Its version is the number alone: "3" of v3. Letters: n inputs, c labels.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart import __version__, jsontext
from headstart.errors import InputError, ModelError, NotFound, near
from headstart.head import MULTILABEL, REGRESSION
from headstart.server.native import KEY
from headstart.server.service import Service
from headstart.server.tensorcodec import BOOL, BYTES, FP32, Given, Out
from headstart.serving.asked import Question, Said
from headstart.serving.served import Served

SERVER = {"name": "headstart", "version": __version__, "extensions": ["binary_tensor_data"]}
OUTPUTS = {
    "label": (BYTES, False),
    "labels": (BYTES, False),
    "value": (FP32, False),
    "probability": (FP32, False),
    "chosen": (BOOL, True),
    "probabilities": (FP32, True),
    "unknown": (BOOL, False),
    "id": (BYTES, False),
}  # name -> datatype, and whether it has a column a label


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, and until when."""

    deadline: float  # time.monotonic() seconds
    key: str | None = None  # what a canary is dealt by
    by: str | None = None  # id of the API key


def has(served: Served) -> list[str]:
    """The names of the outputs of a model."""
    if served.task == REGRESSION:
        return ["value", "unknown", "id"]
    if served.task == MULTILABEL:
        return ["labels", "chosen", "probabilities", "unknown", "id"]
    return ["label", "probability", "unknown", "probabilities", "id"]


def number(served: Served) -> str:
    """The version of a model in this protocol."""
    return served.version.removeprefix("v")


def find(service: Service, name: str, version: str | None) -> Served:
    """The model of a name, in a version where one is wanted. Raises NotFound, and ModelError for one that was not loaded."""
    table = service.engine.table
    deployed = table.get(name)
    if deployed is None:
        if name in service.engine.faults:
            raise ModelError(f"model {name!r} cannot answer: {service.engine.faults[name]}")
        raise NotFound(f"no model {name[:80]!r} is served here.{near(name[:80], table)}")
    served = {number(one): one for one in (deployed.challenger, deployed.live) if one is not None}
    if version is None:
        return deployed.live
    version = version.removeprefix("v")  # as everywhere else here
    if version not in served:
        raise NotFound(f"model {name!r} is not served in version {version[:80]!r}.{near(version[:80], served)}")
    return served[version]


def metadata(service: Service, name: str, version: str | None) -> dict[str, Any]:
    """What a model reads and says. Raises NotFound."""
    served, deployed = find(service, name, version), service.engine.table[name]
    versions = sorted({number(one) for one in (deployed.live, deployed.challenger) if one is not None})
    outputs = []
    for output in has(served):
        kind, columns = OUTPUTS[output]
        outputs.append({"name": output, "datatype": kind, "shape": [-1, len(served.labels)] if columns else [-1]})
    return {
        "name": name,
        "versions": versions,
        "platform": "headstart",
        "inputs": [{"name": served.modality, "datatype": BYTES, "shape": [-1]}],
        "outputs": outputs,
        "properties": {"labels": jsontext.write(list(served.labels)), "digest": served.digest, "task": served.task},
    }


def contents(served: Served, given: Sequence[Given], longest: int) -> list[str] | list[bytes]:
    """What the model reads, out of the tensors of a request; a text has at most `longest` characters. Raises InputError."""
    wanted = served.modality
    if [one.name for one in given] != [wanted]:
        names = ", ".join(repr(one.name[:80]) for one in given[:4]) or "none"
        raise InputError(f"model {served.name!r} reads one input, {wanted!r}; the request has {names}.")
    items: Sequence[str | bytes] = given[0].items
    if not items:
        raise InputError(f"input {wanted!r} is empty; give at least one element.")
    if wanted == "text":
        return [_text(one, i, longest) for i, one in enumerate(items)]
    return [_picture(one, i) for i, one in enumerate(items)]


def _text(item: str | bytes, place: int, longest: int) -> str:
    try:
        text = item if isinstance(item, str) else item.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"element {place} of input 'text' is not UTF-8: {error.reason} at byte {error.start}."
        ) from None
    if len(text) > longest:
        raise InputError(f"element {place} of input 'text' has {len(text):,} characters; at most {longest:,} are read.")
    return text


def _picture(item: str | bytes, place: int) -> bytes:
    try:
        return base64.b64decode(item, validate=True) if isinstance(item, str) else item
    except (binascii.Error, ValueError):
        raise InputError(
            f"element {place} of input 'image' is not base64. In JSON a picture is base64 text; as binary data it is "
            "the file's own bytes."
        ) from None


async def infer(
    service: Service, name: str, version: str | None, given: Sequence[Given], wanted: Sequence[str], asker: Asker
) -> Said:
    """What one model says; `wanted` are the outputs to send, () for all. Raises what the engine does, and InputError."""
    served = find(service, name, version)
    if asker.key is not None and len(asker.key) > KEY:
        raise InputError(f"the request key has {len(asker.key):,} characters; up to {KEY} are taken.")
    for output in wanted:
        if output not in has(served):
            raise InputError(f"model {name!r} has no output {output[:80]!r}.{near(output[:80], has(served))}")
    question = Question(
        contents(served, given, service.settings.max_text),
        (name,),
        asker.deadline,
        key=asker.key,
        judge=not wanted or "unknown" in wanted,
        version=None if version is None else served.version,
        by=asker.by,
    )
    reply = await service.engine.answer(question)
    service.metrics.replied(reply)
    return reply.said[0]


def outs(said: Said, wanted: Sequence[str]) -> list[Out]:
    """The outputs of an answer, in the order wanted. Raises InputError where a canary of another task answered."""
    there = has(said.served)
    if missing := [name for name in wanted if name not in there]:
        raise InputError(f"version {number(said.served)} of {said.name!r} has no output {missing[0]!r}.")
    return [out(said, name) for name in wanted or there]


def out(said: Said, name: str) -> Out:
    """One output of an answer."""
    answers, labels = said.answers, said.served.labels
    data: Any
    match name:
        case "label":
            data = [labels[best].encode() for best in answers.P.argmax(1)]
        case "labels":
            data = [jsontext.write([labels[j] for j in np.flatnonzero(row)]).encode() for row in answers.chosen]
        case "value":
            data = answers.P[:, 0]
        case "probability":
            data = answers.P.max(1)
        case "id":
            data = [f"{said.id}.{i}".encode() for i in range(len(answers.P))]
        case _:
            data = {"chosen": answers.chosen, "probabilities": answers.P, "unknown": answers.unknown}[name]
    return Out(name, OUTPUTS[name][0], data)
