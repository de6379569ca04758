"""The Open Inference Protocol v2 over gRPC, in the event loop that serves HTTP too. Needs the extra `grpc`.

API keys come in the metadata as over HTTP: `authorization: Bearer hs_...`; `x-request-key` deals a canary. A call's own
deadline holds where it is sooner than the server's.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from headstart.errors import (
    Denied,
    Draining,
    HeadstartError,
    InputError,
    MissingExtra,
    ModelError,
    NotFound,
    Overloaded,
    StorageError,
    TooLate,
)
from headstart.server import openinference, problems, tensorcodec
from headstart.server.dialect import aside
from headstart.server.openinference import Asker
from headstart.server.service import Service
from headstart.serving.asked import Said

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what it says is said by us, in words
try:
    import grpc
    from google.protobuf.message import DecodeError

    from headstart.server.rpcmessages import CLASSES, SERVICE
except ImportError:
    raise MissingExtra("gRPC needs more packages: pip install 'headstart[grpc]'") from None

CODES = (
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (Denied, grpc.StatusCode.PERMISSION_DENIED),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Draining, grpc.StatusCode.UNAVAILABLE),
    (TooLate, grpc.StatusCode.DEADLINE_EXCEEDED),
    (InputError, grpc.StatusCode.INVALID_ARGUMENT),
    (ModelError, grpc.StatusCode.UNAVAILABLE),
    (StorageError, grpc.StatusCode.UNAVAILABLE),
)  # the first that fits
SCOPES = {"ModelReady": "read", "ServerMetadata": "read", "ModelMetadata": "read", "ModelInfer": "predict"}
MOST = 256  # calls at once
Answer = Callable[[bytes, Any], Awaitable[Any]]  # (message, grpc.aio.ServicerContext) -> response
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listening:
    """A gRPC server that answers."""

    server: Any  # grpc.aio.Server
    port: int

    async def stop(self, grace: float | None = None) -> None:
        """Take nothing new, finish what runs within `grace` seconds, and end."""
        await self.server.stop(grace)


async def start(service: Service, host: str, port: int) -> Listening:
    """Serve on host:port (0: any free one). Raises InputError when it cannot listen there."""
    settings = service.settings
    server = grpc.aio.server(
        maximum_concurrent_rpcs=MOST,
        options=[
            ("grpc.max_receive_message_length", settings.max_body),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", int(settings.workers > 1)),
            ("grpc.max_metadata_size", 16_384),
        ],
    )
    methods = {
        "ServerLive": _server_live, "ServerReady": _server_ready, "ModelReady": _model_ready,
        "ServerMetadata": _server_metadata, "ModelMetadata": _model_metadata, "ModelInfer": _model_infer,
    }  # fmt: skip
    rows = {
        name: grpc.unary_unary_rpc_method_handler(
            _answering(service, name, answer),
            response_serializer=CLASSES[f"{name}Response"].SerializeToString,
        )
        for name, answer in methods.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, rows),))
    where = f"[{host}]" if ":" in host and not host.startswith("[") else host
    try:
        bound = server.add_insecure_port(f"{where}:{port}")
    except RuntimeError:
        raise InputError(
            f"gRPC cannot listen on {where}:{port}: perhaps the port is taken. Choose another with --grpc-port (0: any)."
        ) from None
    await server.start()
    return Listening(server, bound)


def code_of(error: HeadstartError) -> Any:
    """The status code of an error."""
    if isinstance(error, Denied) and error.status == 401:
        return grpc.StatusCode.UNAUTHENTICATED
    return next((code for kind, code in CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def _answering(service: Service, name: str, answer: Callable[[Service, Any, Asker], Awaitable[Any]]) -> Answer:
    """A method with its key checked, its errors as statuses, and counted."""
    scope = SCOPES.get(name)

    async def answered(message: bytes, call: Any) -> Any:
        began, status, code = time.monotonic(), 500, grpc.StatusCode.INTERNAL
        trailing: tuple[tuple[str, str], ...] = ()
        try:
            who = asker(service, call, scope)
            response = await answer(service, await aside(len(message), _read, name, message), who)
            service.metrics.seen("grpc", 200, time.monotonic() - began)
            return response
        except HeadstartError as error:
            status, code, words = problems.kind(error)[0], code_of(error), str(error)
            if isinstance(error, Overloaded):
                trailing = (("retry-after", str(max(1, math.ceil(error.retry)))),)
        except Exception:
            logger.exception("gRPC %s failed", name)
            words = "the server made a mistake; its log says more."
        service.metrics.seen("grpc", status, time.monotonic() - began)
        return await call.abort(code, words, trailing)

    return answered


def _read(name: str, message: bytes) -> Any:
    """The request of a method. Raises InputError."""
    try:
        return CLASSES[f"{name}Request"].FromString(message)
    except DecodeError as error:
        raise InputError(f"this is no {name}Request: {error}") from None


def asker(service: Service, call: Any, scope: str | None) -> Asker:
    """Who calls, and until when. Raises Denied, Overloaded."""
    remaining, now = call.time_remaining(), time.monotonic()
    sent: dict[str, list[Any]] = {}
    for name, value in call.invocation_metadata() or ():
        sent.setdefault(name, []).append(value)
    key = service.door.key(sent.get("authorization", []), scope)
    if scope == "predict" and (later := service.engine.busy()) is not None:
        raise Overloaded("the server has too much to do at present.", later)
    deadline = now + min(service.settings.deadline, math.inf if remaining is None else remaining)
    return Asker(deadline, sent.get("x-request-key", [None])[0], key.id if key else None)


async def _server_live(service: Service, request: Any, asker: Asker) -> Any:
    return CLASSES["ServerLiveResponse"](live=True)


async def _server_ready(service: Service, request: Any, asker: Asker) -> Any:
    return CLASSES["ServerReadyResponse"](ready=await service.readiness.fault() is None)


async def _model_ready(service: Service, request: Any, asker: Asker) -> Any:
    openinference.find(service, request.name, request.version or None)
    return CLASSES["ModelReadyResponse"](ready=True)


async def _server_metadata(service: Service, request: Any, asker: Asker) -> Any:
    return CLASSES["ServerMetadataResponse"](**openinference.SERVER)


async def _model_metadata(service: Service, request: Any, asker: Asker) -> Any:
    return CLASSES["ModelMetadataResponse"](**openinference.metadata(service, request.name, request.version or None))


async def _model_infer(service: Service, request: Any, asker: Asker) -> Any:
    given, wanted = await aside(request.ByteSize(), _given, request, service.settings.max_inputs)
    said = await openinference.infer(service, request.model_name, request.model_version or None, given, wanted, asker)
    return await aside(said.answers.P.size * 16, _response, said, wanted, request.id)


def _given(request: Any, limit: int) -> tuple[list[tensorcodec.Given], list[str]]:
    """The tensors of a request (all raw, or all in `contents`) and the outputs it wants. Raises InputError."""
    wanted = [one.name for one in request.outputs]
    if len(set(wanted)) < len(wanted):
        raise InputError("two outputs have the same name.")
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InputError(
            f"{len(raw)} raw_input_contents came for {len(request.inputs)} inputs; give one an input, or none."
        )
    found = []
    for i, one in enumerate(request.inputs):
        tensorcodec.accepted(one.name, one.datatype)
        n = tensorcodec.elements(list(one.shape), one.name, limit)
        if raw:
            if one.HasField("contents"):
                raise InputError(f"input {one.name!r} has both contents and raw_input_contents; give one.")
            found.append(tensorcodec.Given(one.name, tensorcodec.unpack(raw[i], n, one.name)))
            continue
        items = list(one.contents.bytes_contents)
        if len(items) != n:
            raise InputError(f"input {one.name!r}: its shape says {n:,} elements, its bytes_contents {len(items):,}.")
        found.append(tensorcodec.Given(one.name, items))
    return found, wanted


def _response(said: Said, wanted: list[str], called: str) -> Any:
    """A ModelInferResponse, its tensors raw."""
    response = CLASSES["ModelInferResponse"](
        model_name=said.name, model_version=openinference.number(said.served), id=called
    )
    response.parameters["digest"].string_param = said.served.digest
    response.parameters["arm"].string_param = said.arm
    for out in openinference.outs(said, wanted):
        response.outputs.add(name=out.name, datatype=out.datatype, shape=out.shape)
        response.raw_output_contents.append(tensorcodec.pack(out))
    return response
