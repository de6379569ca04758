"""Predictions: one model, several at once, and lines that stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException

from headstart.errors import ContentError, DataError, Denied, InputError, near
from headstart.server import context, describing, reading, rendering, streaming
from headstart.server.schemas import ManyPredictions, Predict, Predictions, PredictMany
from headstart.server.service import Service
from headstart.serving import explaining
from headstart.serving.asked import Question, Reply

LARGEST = 500_000  # predictions of one call
PATIENCE = 0.05  # seconds; who waits longer is watched, whether they are still there
NAMED = 20  # files of a form that are named when they cannot be read
KEY = 256  # characters of a request key
Found = TypeVar("Found")


Endpoint = Callable[[Request], Awaitable[Response]]


def routes(service: Service) -> APIRouter:
    """POST /v1/models/{name}/predict and /v1/predict."""
    router = APIRouter(tags=["predict"])
    predict, predict_many = endpoints(service)
    router.post(
        "/v1/models/{name}/predict",
        operation_id="predict",
        summary="Ask one model",
        responses=describing.answers(200, Predictions, *describing.ASKING, lines=True),
        openapi_extra=describing.asks(Predict, "predict", path=("name",), form=True, lines=True),
    )(predict)
    router.post(
        "/v1/predict",
        operation_id="predict_many",
        summary="Ask several models, or all, in one pass",
        responses=describing.answers(200, ManyPredictions, *describing.ASKING),
        openapi_extra=describing.asks(PredictMany, "predict_many", form=True),
    )(predict_many)
    return router


def endpoints(service: Service) -> tuple[Endpoint, Endpoint]:
    """What answers for one model, and for several."""
    settings = service.settings

    async def predict(request: Request) -> Response:
        name = request.path_params["name"]
        kind = reading.media_type(request, (reading.JSON, reading.FORM, reading.LINES))
        if kind == reading.LINES:
            wish = reading.checked(Predict, {**_query(request), "inputs": ""})
            return streaming.stream(service, request, name, wish, _key(request, wish))
        wish, contents, files = await _asked(request, Predict, kind)
        return await _answer(request, wish, contents, (name,), files)

    async def predict_many(request: Request) -> Response:
        kind = reading.media_type(request, (reading.JSON, reading.FORM))
        wish, contents, files = await _asked(request, PredictMany, kind)
        names = tuple(dict.fromkeys(wish.models or ()))
        if len(names) > settings.max_names:
            raise HTTPException(413, f"there are {len(names):,} models, and at most {settings.max_names:,} are asked.")
        return await _answer(request, wish, contents, names, files)

    async def _asked(request: Request, schema: type[Any], kind: str) -> tuple[Any, list[str] | list[bytes], list[str]]:
        """What is wished, the contents, and the names of the files they came in."""
        query = _query(request)
        if kind == reading.FORM:
            fields, files = await reading.form(request, settings)
            return *await asyncio.to_thread(_understood, schema, {**query, **fields}), files
        body = await reading.whole(request, settings.max_json)
        if len(body) < reading.SLOW:
            return *_understood(schema, reading.parsed(body), query), []
        return *await asyncio.to_thread(lambda: _understood(schema, reading.parsed(body), query)), []

    def _understood(schema: type[Any], value: Any, query: Any = None) -> tuple[Any, list[str] | list[bytes]]:
        wish = reading.checked(schema, {**query, **value} if query and isinstance(value, dict) else value)
        return wish, reading.contents(wish.inputs, settings)

    async def _answer(
        request: Request, wish: Predict, contents: list[str] | list[bytes], names: tuple[str, ...], files: list[str]
    ) -> Response:
        many = len(contents) * (len(names) or len(service.engine.table))
        if many > LARGEST:
            raise HTTPException(413, f"these would be {many:,} predictions, and at most {LARGEST:,} are given at once.")
        if wish.why and names and many > explaining.MOST:
            raise InputError(
                f"field 'why': {many:,} predictions are too many to explain at once; up to {explaining.MOST} are."
            )
        said = context.of(request.scope, settings.deadline)
        if wish.why and said.key is not None and "read" not in said.key.scopes:
            raise Denied(f"'why' shows training examples, and the API key {said.key.name!r} may not read.", 403)
        question = Question(
            contents, names, said.deadline, _key(request, wish), wish.unknown, wish.why, by=said.key.id if said.key else None
        )  # fmt: skip
        try:
            reply = await unless_gone(request, service.engine.answer(question))
        except ContentError as error:
            raise _by_name(error, files) if files else error from None
        alone = not isinstance(wish, PredictMany)

        def render() -> bytes:
            options = {"top": wish.top, "judge": wish.unknown}
            if alone:
                return rendering.one(reply.said[0], **options)  # type: ignore[arg-type]
            return rendering.every(reply.said, **options)  # type: ignore[arg-type]

        large = many * (1 + wish.top) >= rendering.MANY
        body = await asyncio.to_thread(render) if large else render()
        return Response(body, media_type=reading.JSON, background=BackgroundTask(count, service, reply))

    return predict, predict_many


def _by_name(error: ContentError, files: list[str]) -> DataError:
    """What cannot be read, by the names of the files it came in."""
    said = [f"file {place + 1} ({files[place][:80]!r}) cannot be read: {why}" for place, why in error.faults[:NAMED]]
    more = [f"and {len(error.faults) - NAMED:,} others"] if len(error.faults) > NAMED else []
    return DataError("; ".join(said + more) + ".")


async def count(service: Service, reply: Reply) -> None:
    """Tell the metrics of a reply, once it is sent."""
    if len(reply.said) < 32:
        service.metrics.replied(reply)
    else:
        await asyncio.to_thread(service.metrics.replied, reply)


async def unless_gone(request: Request, work: Awaitable[Found]) -> Found:
    """What `work` gives, whose body was read. A client that goes while we wait cancels it: HTTPException 499."""
    task = asyncio.current_task()
    assert task is not None
    watch: list[asyncio.Task[None]] = []
    gone = False

    async def look() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    loop = asyncio.get_running_loop()
    timer = loop.call_later(PATIENCE, lambda: watch.append(loop.create_task(look())))
    try:
        return await work
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise HTTPException(499, "the client went before the answer was there.") from None
    finally:
        timer.cancel()
        for one in watch:
            one.cancel()


def _query(request: Request) -> dict[str, Any]:
    """Fields given behind a question mark. Raises InputError."""
    if not request.scope["query_string"]:
        return {}
    given = dict(request.query_params)
    for name in given:
        if name not in describing.QUERY:
            raise InputError(f"there is no parameter {name[:80]!r}.{near(name[:80], describing.QUERY)}")
    return reading.plain(given)


def _key(request: Request, wish: Predict) -> str | None:
    """What a canary is dealt by, if the client said so. Raises InputError."""
    key = request.headers.get("x-request-key") if wish.key is None else wish.key
    if key is not None and len(key) > KEY:
        raise InputError(f"X-Request-Key has {len(key):,} characters; up to {KEY} are taken.")
    return key
