"""POST /v1/embeddings as the OpenAI clients speak it.

`model` is a deployed name, or a base model that one of them stands on; its vectors have unit length. `dimensions` can be
the whole width or that of the leading parts of the base's cut. `usage` counts words, not the tokens of any tokeniser.
"""

from __future__ import annotations

import base64
import math
from itertools import accumulate
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from headstart.backbone import Card
from headstart.errors import InputError
from headstart.server import context, reading
from headstart.server.dialect import COUNT, JSON, NUMBER, TEXT, Route, aside, asked, record, responses, several
from headstart.server.native import unless_gone
from headstart.server.service import Service

FORMATS = ("float", "base64")
REQUEST = {
    **record(
        ["input", "model"],
        input={"oneOf": [TEXT, several(TEXT, minItems=1)]},
        model=TEXT,
        encoding_format={"enum": list(FORMATS), "default": "float"},
        dimensions={"type": "integer", "minimum": 1},
        user=TEXT,
    ),
    "additionalProperties": False,
}
RESPONSE = record(
    ["object", "model", "data", "usage"],
    object={"const": "list"},
    model=TEXT,
    data=several(
        record(
            ["object", "index", "embedding"],
            object={"const": "embedding"},
            index=COUNT,
            embedding={"oneOf": [several(NUMBER), {"type": "string", "format": "byte"}]},
        )
    ),
    usage=record(["prompt_tokens", "total_tokens"], prompt_tokens=COUNT, total_tokens=COUNT),
)
MAYBE = {"type": ["string", "null"]}
ERROR = record(
    ["error"], error=record(["message", "type", "param", "code"], message=TEXT, type=TEXT, param=MAYBE, code=MAYBE)
)


def read(found: Any, limit: int, longest: int) -> dict[str, Any]:
    """The fields of a request, `input` as a list of texts: at most `limit`, each of `longest` characters. Raises InputError."""
    if not isinstance(found, dict):
        raise InputError("the request must be a JSON object with `input` and `model`.")
    for name in found:
        if name not in REQUEST["properties"]:
            raise InputError(f"there is no field {name[:80]!r} here; there is {', '.join(REQUEST['properties'])}.")
    sent = found.get("input")
    texts = [sent] if isinstance(sent, str) else sent
    if not isinstance(texts, list) or not texts:
        raise InputError("`input` must be a text or a list of texts, one at least.")
    if len(texts) > limit:
        raise InputError(f"`input` has {len(texts):,} texts; at most {limit:,} may come in one request.")
    if not all(isinstance(one, str) for one in texts):
        if all(isinstance(one, int | list) for one in texts):
            raise InputError("token numbers belong to one tokeniser, and this server has others: send texts.")
        raise InputError("`input` must be a text or a list of texts.")
    for i, text in enumerate(texts):
        if len(text) > longest:
            raise InputError(f"text {i} has {len(text):,} characters; at most {longest:,} are read.")
    if not isinstance(found.get("model"), str):
        raise InputError("`model` must be the name of a deployed model or of a base model.")
    if found.get("encoding_format", "float") not in FORMATS:
        raise InputError("`encoding_format` must be float or base64.")
    size = found.get("dimensions", 1)
    if type(size) not in (int, float) or size != int(size):
        raise InputError("`dimensions` must be a whole number.")
    if not isinstance(found.get("user", ""), str):
        raise InputError("`user` must be a string.")
    return {**found, "input": texts}


def shortened(X: NDArray[np.float32], card: Card, dimensions: int | None) -> NDArray[np.float32]:
    """Features (n, d) -> the parts of the cut that make up `dimensions`, of unit length again. Raises InputError."""
    widths = list(accumulate(card.widths or (card.width,)))
    if dimensions is None or dimensions == widths[-1]:
        return X
    if dimensions not in widths:
        raise InputError(f"base model {card.name} gives {' or '.join(map(str, widths))} dimensions, not {dimensions}.")
    kept = widths.index(dimensions) + 1
    return X[:, :dimensions] * np.float32(math.sqrt(len(widths) / kept))


def written(X: NDArray[np.float32], given: dict[str, Any]) -> bytes:
    """The body of the response: n vectors in the order of the inputs.

    Each is written by itself: between two of them other threads get their turn, the event loop's among them.
    """
    X, plain = np.ascontiguousarray(X, "<f4"), given.get("encoding_format", "float") == "float"
    rows = []
    for i, row in enumerate(X):
        vector = row if plain else base64.b64encode(row).decode()
        one = {"object": "embedding", "index": i, "embedding": vector}
        rows.append(orjson.dumps(one, option=orjson.OPT_SERIALIZE_NUMPY))
    words = sum(len(text.split()) for text in given["input"])
    rest = {"object": "list", "model": given["model"], "usage": {"prompt_tokens": words, "total_tokens": words}}
    return orjson.dumps(rest)[:-1] + b',"data":[' + b",".join(rows) + b"]}"


def routes(service: Service) -> APIRouter:
    """POST /v1/embeddings."""
    router = APIRouter(prefix="/v1", route_class=Route, tags=["OpenAI"])

    @router.post(
        "/embeddings",
        operation_id="embeddings",
        summary="Vectors of unit length, one a text, in the form of OpenAI's API",
        responses=responses(RESPONSE, ERROR, body=True),
        openapi_extra=asked(REQUEST),
    )
    async def embeddings(request: Request) -> Response:
        settings = service.settings
        given = read(await reading.json(request, settings.max_json), settings.max_inputs, settings.max_text)
        known = context.of(request.scope, settings.deadline)
        X, card = await unless_gone(request, service.engine.embed(given["input"], given["model"], known.deadline))
        X = shortened(X, card, given.get("dimensions"))
        return Response(await aside(X.nbytes, written, X, given), media_type=JSON)

    return router
