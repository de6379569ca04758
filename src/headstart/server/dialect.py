"""Routes that speak the protocols of others, which know one word for a request that cannot be used: 400."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from headstart.errors import InputError, NotFound

JSON = "application/json"
SMALL = 16_384  # bytes that are read or written sooner than a thread is asked to
T = TypeVar("T")
REFUSALS = (400, 401, 403, 404, 421, 429, 503)
OF_BODIES = (413, 415, 504)  # what only a request with a body is refused with


class Route(APIRoute):
    """A route where what can be read and not be used is 400, not 422."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        inner = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await inner(request)
            except NotFound:
                raise
            except InputError as error:
                raise HTTPException(400, str(error)) from None

        return answered


async def aside(size: int, work: Callable[..., T], *given: Any) -> T:
    """work(*given), in a thread where the `size` in bytes of what it reads or writes would hold up the event loop."""
    return work(*given) if size <= SMALL else await asyncio.to_thread(work, *given)


def responses(schema: dict[str, Any], error: dict[str, Any], *, body: bool = False) -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI page says of the answers of a route."""
    found: dict[int | str, dict[str, Any]] = {200: {"description": "OK", "content": {JSON: {"schema": schema}}}}
    for status in sorted({*REFUSALS, *(OF_BODIES if body else ())}):
        found[status] = {"description": "Refused.", "content": {JSON: {"schema": error}}}
    return found


def asked(schema: dict[str, Any]) -> dict[str, Any]:
    """What the OpenAPI page says of the body of a request."""
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}


def record(required: Sequence[str], **properties: Any) -> dict[str, Any]:
    """The schema of a JSON object."""
    return {"type": "object", "required": list(required), "properties": properties}


def several(items: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The schema of a JSON list."""
    return {"type": "array", "items": items, **more}


TEXT, FLAG, NUMBER, COUNT = (
    {"type": "string"},
    {"type": "boolean"},
    {"type": "number"},
    {"type": "integer", "minimum": 0},
)
