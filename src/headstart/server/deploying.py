"""Deployments over HTTP: what answers under which name, and its changes while the server runs.

A change is loaded, tried and committed by this process, one change at a time; then the other processes of the server
are told to follow, and the answer says what became of each.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from headstart import deployments, notice
from headstart.errors import InputError, NotFound, Overloaded, near
from headstart.server import describing, reading
from headstart.server.schemas import Change, Deploy, Deployment, Deployments
from headstart.server.service import Service
from headstart.serving.served import Served
from headstart.serving.shelf import suited

WAITING = 16  # changes that wait for their turn
HISTORY = 50  # changes of a name that are shown


def routes(service: Service) -> APIRouter:
    """Under /v1/deployments."""
    router = APIRouter(prefix="/v1/deployments", tags=["deployments"])
    engine, root = service.engine, service.settings.project
    turn, waiting = asyncio.Lock(), [0]

    @router.get(
        "",
        operation_id="list_deployments",
        summary="All names, and what answers under them",
        responses=describing.answers(200, Deployments),
    )
    async def every() -> Response:
        found = await asyncio.to_thread(states, service)
        return _json({"deployments": list(found.values())})

    @router.get(
        "/{name}",
        operation_id="get_deployment",
        summary="One name",
        responses=describing.answers(200, Deployment, 404),
        openapi_extra=describing.asks(path=("name",)),
    )
    async def one(request: Request) -> Response:
        name, found = request.path_params["name"], await asyncio.to_thread(states, service)
        if name not in found:
            raise NotFound(f"nothing is deployed as {name[:80]!r}.{near(name[:80], found)}")
        if found[name]["live"] is None and found[name]["fault"] is None:
            raise NotFound(f"{name!r} was undeployed by change {found[name]['seq']}. Deploy it anew, or roll it back.")
        last = await asyncio.to_thread(deployments.history, root, name, HISTORY)
        return _json({**found[name], "history": last})

    @router.post(
        "",
        status_code=201,
        operation_id="deploy",
        summary="Let a version answer under a name, wholly, for a share of requests, or as a shadow",
        responses=describing.answers(201, Deployment, *describing.CHANGING),
        openapi_extra=describing.asks(Deploy, "deploy"),
    )
    async def deploy(request: Request) -> Response:
        wish = reading.checked(Deploy, await reading.json(request, service.settings.max_json))
        if wish.shadow and wish.canary is not None:
            raise InputError("give 'shadow' or 'canary', not both.")
        name = wish.as_ or wish.model
        mode = "shadow" if wish.shadow else "canary" if wish.canary is not None else None
        found = await changed(
            name,
            lambda: engine.deploy(
                wish.model, wish.version, name, mode=mode, share=wish.canary or 0.0, expected=wish.expected
            ),
        )
        return _json(found, 201, {"Location": f"/v1/deployments/{name}"})

    @router.post(
        "/{name}/rollback",
        operation_id="rollback",
        summary="Take a challenger away, or let the version before answer again",
        responses=describing.answers(200, Deployment, *describing.CHANGING),
        openapi_extra=describing.asks(Change, "change", path=("name",), optional=True),
    )
    async def rollback(request: Request) -> Response:
        name, expected = request.path_params["name"], None
        if "content-type" in request.headers or await reading.whole(request, service.settings.max_json):
            expected = reading.checked(Change, await reading.json(request, service.settings.max_json)).expected
        return _json(await changed(name, lambda: engine.rollback(name, expected=expected)))

    @router.delete(
        "/{name}",
        operation_id="undeploy",
        summary="Serve a name no more",
        responses=describing.answers(200, Deployment, *describing.CHANGING),
        openapi_extra={
            "parameters": [
                *describing.asks(path=("name",))["parameters"],
                {
                    "name": "expected", "in": "query", "required": False, "description": "refuse unless it is the seq",
                    "schema": {"type": "integer", "minimum": 0, "maximum": 2**53},
                },
            ]
        },
    )  # fmt: skip
    async def undeploy(request: Request) -> Response:
        name, expected = request.path_params["name"], request.query_params.get("expected")
        if expected is not None and not (expected.isascii() and expected.isdigit() and int(expected[:20]) <= 2**53):
            raise InputError(f"parameter 'expected' is {expected[:40]!r}; it must be a whole number.")
        number = None if expected is None else int(expected)
        return _json(await changed(name, lambda: engine.undeploy(name, expected=number)))

    async def changed(name: str, change: Callable[[], Any]) -> dict[str, Any]:
        """Make a change, let the other processes follow, and give the name's new state. Raises as the engine does."""

        def make() -> dict[str, Any]:
            change()
            ours = {"pid": os.getpid(), "ok": True, "detail": "", "serves": True}
            told = notice.about(name, notice.tell(root, but=os.getpid()))
            return {**states(service)[name], "servers": [ours, *told]}

        if waiting[0] >= WAITING:
            raise Overloaded(f"{WAITING} changes of deployments wait already.", 5.0)
        waiting[0] += 1
        try:
            async with turn:
                return await asyncio.to_thread(make)
        finally:
            waiting[0] -= 1

    return router


def states(service: Service) -> dict[str, dict[str, Any]]:
    """Every name that is served, was, or cannot be, as `Deployment` has it. Raises StorageError, ModelError."""
    table, faults = service.engine.table, service.engine.faults
    commits, only = deployments.table(service.settings.project), service.settings.models
    processes = 1 + notice.running(service.settings.project, but=os.getpid())
    found: dict[str, dict[str, Any]] = {}
    for name in sorted({*table, *faults, *commits}):
        if only is not None and name not in only:
            continue
        one, commit = table.get(name), commits.get(name)
        if one is not None:
            state: dict[str, Any] = {
                "live": pointer(one.live), "challenger": pointer(one.challenger), "mode": one.mode, "share": one.share,
                "seq": one.seq,
                "counts": {
                    "compared": one.counts.compared, "agreed": one.counts.agreed, "skipped": one.counts.skipped,
                } if one.mode == "shadow" else None,
            }  # fmt: skip
        elif commit is not None:
            state = {
                "live": commit.live and vars(commit.live), "challenger": commit.challenger and vars(commit.challenger),
                "mode": commit.mode, "share": commit.share, "seq": commit.seq, "counts": None,
            }  # fmt: skip
        else:
            state = {"live": None, "challenger": None, "mode": None, "share": 0.0, "seq": 0, "counts": None}
        note = suited(name, one.live, one.challenger) if one is not None and one.challenger is not None else None
        found[name] = {"name": name, **state, "note": note, "processes": processes, "fault": faults.get(name)}
    return found


def pointer(served: Served | None) -> dict[str, str] | None:
    """What names a version."""
    return None if served is None else {"model": served.name, "version": served.version, "digest": served.digest}


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, media_type=reading.JSON)
