"""The application: all routes of a service, with every error as a problem in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

import headstart
from headstart.errors import Draining, HeadstartError, Overloaded, TooLate
from headstart.server import context, deploying, describing, kserve, native, openai, problems, reading, telling
from headstart.server.service import Service

ABOUT = "Small special-purpose models on shared base models."
_TAGS = ("predict", "models", "deployments", "feedback", "health")
_WORDS = {
    404: "there is nothing at this address; GET /docs lists what there is.",
}
_BEFORE, _AFTER = "/v1/models/", "/predict"
_COUNTED = ((Overloaded, "overloaded"), (Draining, "draining"), (TooLate, "too late"))


def build(service: Service) -> FastAPI:
    """The ASGI application of a service, without the gate."""
    app = FastAPI(
        title="Headstart",
        version=headstart.__version__,
        description=ABOUT,
        openapi_tags=[{"name": name} for name in _TAGS],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    for part in (native, telling, deploying, openai, kserve):
        app.include_router(part.routes(service))

    def refused(request: Request, what: BaseException | int, detail: str = "", more: Any = None) -> Response:
        name = next((name for group, name in _COUNTED if isinstance(what, group)), None)
        if name:
            service.metrics.refused(name)
        known = context.of(request.scope)
        status, headers, body = problems.problem(what, detail, path=request.scope["path"], instance=known.id)
        response = Response(body, status)
        response.raw_headers = [*headers, *((k.lower().encode(), v.encode()) for k, v in (more or {}).items())]
        return response

    def refusal(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            return refused(request, error)
        said, more = str(error.detail), dict(error.headers or {})
        if said == problems.words(error.status_code):
            said = _WORDS.get(error.status_code, said)
        status = error.status_code
        if status == 405:
            methods = _methods(app.routes, request.scope)
            more["Allow"] = ", ".join(methods)
            said = f"this address takes {' and '.join(methods)}, not {request.method[:20]}."
            if not methods:  # it is only that a browser may ask about it
                status, said, more = 404, _WORDS[404], {}
        return refused(request, status, said, more)

    async def ours(request: Request, error: Exception) -> Response:
        return refusal(request, error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        return refused(request, 422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}.")

    app.add_exception_handler(HeadstartError, ours)
    app.add_exception_handler(HTTPException, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, ours)  # answered with a 500; it goes on to the gate, which notes it

    app.add_middleware(Shortcut, predict=native.endpoints(service)[0], refusal=refusal)

    page = cache(lambda: describing.openapi(app))
    app.openapi = page  # type: ignore[method-assign]

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(orjson.dumps(page()), media_type=reading.JSON)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return Response(describing.listed(page()), media_type="text/html", headers=policy)

    if service.settings.cors:

        @app.options("/{path:path}", include_in_schema=False)
        async def preflight() -> Response:  # the gate has let this origin in, and says so
            return Response(
                status_code=204,
                headers={
                    "Access-Control-Allow-Methods": "GET, POST, DELETE",
                    "Access-Control-Allow-Headers": "authorization, content-type, x-request-id, x-request-key, x-timeout-ms",
                    "Access-Control-Max-Age": "600",
                },
            )

    return app


class Shortcut:
    """Predictions of one model go past the routing, which costs more than all else that is done for a short text."""

    def __init__(
        self, app: ASGIApp, predict: native.Endpoint, refusal: Callable[[Request, Exception], Response]
    ) -> None:
        self.app, self.predict, self.refusal = app, predict, refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        path: str = scope.get("path", "")
        name = path[len(_BEFORE) : -len(_AFTER)]
        ours = path.startswith(_BEFORE) and path.endswith(_AFTER) and name and "/" not in name
        if not ours or scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        scope["path_params"] = {"name": name}
        request = Request(scope, receive, send)
        try:
            response = await self.predict(request)
        except (HeadstartError, HTTPException) as error:
            response = self.refusal(request, error)
        await response(scope, receive, send)


def _methods(routes: Sequence[BaseRoute], scope: Scope) -> list[str]:
    """What can be done at an address."""
    return [
        method
        for method in ("DELETE", "GET", "HEAD", "POST")
        if any(one.matches({**scope, "method": method})[0] == Match.FULL for one in routes)
    ]
