"""The Open Inference Protocol v2 over HTTP, as KServe and Triton clients speak it, binary tensors too.

Every fault of a request is 400 with {"error": words}; what a model cannot be found for is 404.
"""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from headstart.server import context, openinference, reading, tensorcodec
from headstart.server.dialect import FLAG, JSON, TEXT, Route, aside, asked, record, responses, several
from headstart.server.native import unless_gone
from headstart.server.openinference import Asker
from headstart.server.service import Service
from headstart.serving.asked import Said

SHAPE = several({"type": "integer"})
TENSOR = record(["name", "datatype", "shape"], name=TEXT, datatype=TEXT, shape=SHAPE)
GIVEN = record(
    ["name", "datatype", "shape", "data"],
    name={"enum": ["text", "image"]},
    datatype={"const": "BYTES"},
    shape=several({"type": "integer", "minimum": 1}, minItems=1, maxItems=2),
    data=several({"type": "string"}, minItems=1),
)
REQUEST = record(
    ["inputs"],
    id=TEXT,
    inputs=several(GIVEN, minItems=1, maxItems=1),
    outputs=several(record(["name"], name={"enum": list(openinference.OUTPUTS)})),
)
SENT = record(["name", "datatype", "shape"], name=TEXT, datatype=TEXT, shape=SHAPE, data={"type": "array"})
RESPONSE = record(
    ["model_name", "model_version", "outputs"], model_name=TEXT, model_version=TEXT, outputs=several(SENT)
)
SERVER = record(["name", "version", "extensions"], name=TEXT, version=TEXT, extensions=several(TEXT))
MODEL = record(
    ["name", "versions", "platform", "inputs", "outputs"],
    name=TEXT, versions=several(TEXT), platform=TEXT, inputs=several(TENSOR), outputs=several(TENSOR),
)  # fmt: skip
READY = record(["name", "ready"], name=TEXT, ready=FLAG)
ERROR = record(["error"], error=TEXT)


def written(said: Said, request: tensorcodec.Request) -> tuple[bytes, int | None]:
    """The body of a response, and the length of its JSON part where bytes follow."""
    parts = []
    for out in openinference.outs(said, request.wanted):
        parts.append(tensorcodec.described(out, request.binary.get(out.name, request.all_binary)))
    found: dict[str, Any] = {
        "model_name": said.name,
        "model_version": openinference.number(said.served),
        "parameters": {"digest": said.served.digest, "arm": said.arm},
        "outputs": [head for head, _ in parts],
    }
    if request.id:
        found["id"] = request.id
    head = orjson.dumps(found)
    if not any("parameters" in one for one, _ in parts):
        return head, None
    return head + b"".join(raw for _, raw in parts), len(head)


def routes(service: Service) -> APIRouter:
    """The routes under /v2."""
    router = APIRouter(prefix="/v2", route_class=Route, tags=["Open Inference Protocol v2"])

    @router.get("", operation_id="v2_server", summary="What this server is", responses=responses(SERVER, ERROR))
    async def server() -> Response:
        return _json(openinference.SERVER)

    @router.get(
        "/health/live",
        operation_id="v2_live",
        summary="The process answers",
        responses=responses(record(["live"], live=FLAG), ERROR),
    )
    async def live() -> Response:
        return _json({"live": True})

    @router.get(
        "/health/ready",
        operation_id="v2_ready",
        summary="Its models answer: tried with a real prediction",
        responses=responses(record(["ready"], ready=FLAG), ERROR),
    )
    async def ready() -> Response:
        if fault := await service.readiness.fault():
            raise HTTPException(503, f"the server is not ready: {fault}")
        return _json({"ready": True})

    @router.get(
        "/models/{name}",
        operation_id="v2_model",
        summary="What a model reads and says",
        responses=responses(MODEL, ERROR),
    )
    async def model(name: str) -> Response:
        return _json(openinference.metadata(service, name, None))

    @router.get(
        "/models/{name}/versions/{version}",
        operation_id="v2_model_version",
        summary="What a version of a model reads and says",
        responses=responses(MODEL, ERROR),
    )
    async def model_version(name: str, version: str) -> Response:
        return _json(openinference.metadata(service, name, version))

    @router.get(
        "/models/{name}/ready",
        operation_id="v2_model_ready",
        summary="Whether a model is loaded",
        responses=responses(READY, ERROR),
    )
    async def model_ready(name: str) -> Response:
        openinference.find(service, name, None)
        return _json({"name": name, "ready": True})

    @router.get(
        "/models/{name}/versions/{version}/ready",
        operation_id="v2_model_version_ready",
        summary="Whether a version of a model is loaded",
        responses=responses(READY, ERROR),
    )
    async def model_version_ready(name: str, version: str) -> Response:
        openinference.find(service, name, version)
        return _json({"name": name, "ready": True})

    async def inferred(request: Request, name: str, version: str | None) -> Response:
        openinference.find(service, name, version)
        body, settings = await reading.whole(request, service.settings.max_body), service.settings
        header = request.headers.get(tensorcodec.HEADER)
        given = await aside(len(body), tensorcodec.read, body, header, settings.max_inputs)
        known = context.of(request.scope, settings.deadline)
        asker = Asker(known.deadline, request.headers.get("X-Request-Key"), known.key.id if known.key else None)
        asking = openinference.infer(service, name, version, given.given, given.wanted, asker)
        said = await unless_gone(request, asking)
        answer, length = await aside(16 * said.answers.P.size, written, said, given)
        if length is None:
            return Response(answer, media_type=JSON)
        return Response(answer, headers={tensorcodec.HEADER: str(length)}, media_type="application/octet-stream")

    @router.post(
        "/models/{name}/infer",
        operation_id="v2_infer",
        summary="Ask a model",
        responses=responses(RESPONSE, ERROR, body=True),
        openapi_extra=asked(REQUEST),
    )
    async def infer(request: Request, name: str) -> Response:
        return await inferred(request, name, None)

    @router.post(
        "/models/{name}/versions/{version}/infer",
        operation_id="v2_infer_version",
        summary="Ask a version of a model",
        responses=responses(RESPONSE, ERROR, body=True),
        openapi_extra=asked(REQUEST),
    )
    async def infer_version(request: Request, name: str, version: str) -> Response:
        return await inferred(request, name, version)

    return router


def _json(found: Any) -> Response:
    return Response(orjson.dumps(found), media_type=JSON)
