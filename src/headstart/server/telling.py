"""What a server tells of itself and is told of its answers: models, predictions that are kept, feedback, health."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from headstart.errors import Conflict, ModelError, NotFound, near
from headstart.predictionlog import PredictionLog
from headstart.server import context, describing, metrics, reading
from headstart.server.deploying import pointer
from headstart.server.schemas import Feedback, Given, Health, Kept, Models, ModelShown
from headstart.server.service import Service
from headstart.serving.table import Deployed

LABELS = 100  # of a model among others; alone it shows all


def routes(service: Service) -> APIRouter:
    """/v1/models, /v1/feedback, /v1/predictions, /health, /metrics."""
    router = APIRouter()

    @router.head("/v1/models", include_in_schema=False)
    @router.get(
        "/v1/models",
        tags=["models"],
        operation_id="list_models",
        summary="All models that are served, in the form of OpenAI's API",
        responses=describing.answers(200, Models),
    )
    async def models() -> Response:
        table = service.engine.table

        def render() -> bytes:
            return orjson.dumps({"object": "list", "data": [shown(one, LABELS) for one in table.values()]})

        return Response(await asyncio.to_thread(render), media_type=reading.JSON)

    @router.get(
        "/v1/models/{name}",
        tags=["models"],
        operation_id="get_model",
        summary="One model",
        responses=describing.answers(200, ModelShown, 404),
        openapi_extra=describing.asks(path=("name",)),
    )
    async def model(request: Request) -> Response:
        name, table = request.path_params["name"], service.engine.table
        if name not in table:
            if fault := service.engine.faults.get(name):
                raise ModelError(f"model {name!r} cannot answer: {fault}")
            raise NotFound(f"no model {name[:80]!r} is served here.{near(name[:80], table)}")
        return Response(orjson.dumps(shown(table[name])), media_type=reading.JSON)

    @router.post(
        "/v1/feedback",
        tags=["feedback"],
        operation_id="feedback",
        summary="Say what a prediction should have been; it is on the disk when this answers",
        responses=describing.answers(200, Given, *describing.CHANGING),
        openapi_extra=describing.asks(Feedback, "feedback"),
    )
    async def feedback(request: Request) -> Response:
        given = reading.checked(Feedback, await reading.json(request, service.settings.max_json))
        log, known = kept(service), context.of(request.scope)
        by = known.key.id if known.key else None
        found = await asyncio.to_thread(log.feedback, given.id, given.label, by=by, replace=given.replace)
        return Response(orjson.dumps(found), media_type=reading.JSON)

    @router.get(
        "/v1/predictions/{id}",
        tags=["feedback"],
        operation_id="get_prediction",
        summary="A prediction that is kept, and the feedback to it",
        responses=describing.answers(200, Kept, 404, 409),
        openapi_extra=describing.asks(path=("id",)),
    )
    async def prediction(request: Request) -> Response:
        id_ = request.path_params["id"]
        found = await asyncio.to_thread(kept(service).find, id_)
        if found is None:
            raise NotFound(f"no prediction {id_[:80]!r} is kept here.")
        return Response(orjson.dumps(found), media_type=reading.JSON)

    @router.head("/health/live", include_in_schema=False)
    @router.get(
        "/health/live",
        tags=["health"],
        operation_id="live",
        summary="Whether the process answers",
        responses=describing.answers(200, Health, open=True),
    )
    async def live() -> Response:
        return Response(b'{"status":"live"}', media_type=reading.JSON)

    @router.head("/health/ready", include_in_schema=False)
    @router.get(
        "/health/ready",
        tags=["health"],
        operation_id="ready",
        summary="Whether it can predict, by a real prediction on every base model",
        responses=describing.answers(200, Health, 503, open=True),
    )
    async def ready() -> Response:
        if fault := await service.readiness.fault():
            raise HTTPException(503, f"the server is not ready: {fault}")
        return Response(b'{"status":"ready"}', media_type=reading.JSON)

    @router.get(
        "/metrics",
        tags=["health"],
        operation_id="metrics",
        summary="Counts and times, for Prometheus",
        responses={
            **describing.answers(200, Health),
            200: {"description": "OK", "content": {metrics.CONTENT_TYPE.split(";")[0]: {"schema": {"type": "string"}}}},
        },
        response_class=Response,
    )
    async def numbers() -> Response:
        text = await asyncio.to_thread(service.metrics.text)
        return Response(text, headers={"Content-Type": metrics.CONTENT_TYPE})

    return router


def shown(deployed: Deployed, most: int | None = None) -> dict[str, Any]:
    """A model in the form of OpenAI's list, with at most so many of its labels."""
    served = deployed.live
    backbone = served.model.card["backbone"]
    return {
        "id": deployed.name,
        "object": "model",
        "created": _seconds(served.model.card.get("made")),
        "owned_by": "headstart",
        "headstart": {
            "task": served.task,
            "labels": list(served.labels[:most]),
            "classes": len(served.labels),
            "version": served.version,
            "digest": served.digest,
            "modality": served.modality,
            "backbone": backbone["name"],
            "fingerprint": served.fingerprint,
            "challenger": pointer(deployed.challenger),
            "mode": deployed.mode,
        },
    }


def _seconds(made: object) -> int:
    """ISO 8601 -> unix seconds; 0 where a card does not say it."""
    try:
        at = datetime.fromisoformat(str(made))
    except ValueError:
        return 0
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())


def kept(service: Service) -> PredictionLog:
    """The log of predictions. Raises Conflict when there is none."""
    if service.log is None:
        raise Conflict("this server keeps no predictions: start it with --log on.")
    return service.log
