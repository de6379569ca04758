"""Lines in, lines out: one input a line, answered in order as they come, however many there are.

Up to 64 lines, or what has come, are one question; at most `AHEAD` questions wait for their turn, then no more is read
until the client took answers. So the memory is bounded, and a client must read while it writes. A line that cannot be
answered gets {"error": problem, "line": number}, and the stream goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, NamedTuple

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from headstart.errors import ContentError, HeadstartError, InputError, ModelError, NotFound, Overloaded, near
from headstart.server import context, describing, problems, reading, rendering
from headstart.server.schemas import Predict
from headstart.server.service import Service
from headstart.serving.asked import Question

TOGETHER = 64  # lines of one question
AHEAD = 3  # questions under way beside the one that is being sent


class Line(NamedTuple):
    """A line of the body: its number, from 1, and its bytes; None where it is too long."""

    number: int
    text: bytes | None


def stream(service: Service, request: Request, name: str, wish: Predict, key: str | None) -> Response:
    """The answer to a body of lines. Raises NotFound and the like before anything is sent."""
    if wish.why:
        raise InputError("field 'why' is not for lines: ask for single inputs.")
    if name not in service.engine.table:
        if fault := service.engine.faults.get(name):
            raise ModelError(f"model {name!r} cannot answer: {fault}")
        raise NotFound(f"no model {name[:80]!r} is served here.{near(name[:80], service.engine.table)}")
    return Streamed(Stream(service, request, name, wish, key))


class Streamed(Response):
    """A response that is sent while its request is still read."""

    media_type = reading.LINES

    def __init__(self, lines: Stream) -> None:
        super().__init__()
        self.lines = lines
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answers as they come; stop everything when the client goes."""
        if "expect" in self.lines.request.headers:
            await self.lines.open()  # a client that waits to be told to send is told before its answer begins
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        answers = self.lines.answers()
        try:
            async for body in answers:
                await send({"type": "http.response.body", "body": body, "more_body": True})
        except (ClientDisconnect, OSError):
            return  # nobody listens
        finally:
            await answers.aclose()
        await send({"type": "http.response.body", "body": b""})


class Stream:
    """The lines of one request and what is said to them."""

    def __init__(self, service: Service, request: Request, name: str, wish: Predict, key: str | None) -> None:
        self.service, self.request, self.name, self.wish, self.key = service, request, name, wish, key
        known = context.of(request.scope, service.settings.deadline)
        self.patience = max(0.001, known.deadline - time.monotonic())  # seconds for each question
        self.by = known.key.id if known.key else None

    async def open(self) -> None:
        """Wait for the first piece of the body."""
        first, receive = [await self.request.receive()], self.request.receive

        async def received() -> Message:
            return first.pop() if first else await receive()

        self.request = Request(self.request.scope, received)

    async def answers(self) -> AsyncGenerator[bytes, None]:
        """The lines of the answer, in order, as many at once as were one question."""
        under_way: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(AHEAD - 1)
        begun: set[asyncio.Task[bytes]] = set()
        faults: list[Exception] = []

        async def read() -> None:
            try:
                async for lines in together(self.request, self.service.settings.max_json):
                    task = asyncio.create_task(self.question(lines))
                    begun.add(task)
                    task.add_done_callback(begun.discard)
                    await under_way.put(task)
            except Exception as error:
                faults.append(error)
            await under_way.put(None)

        reader = asyncio.create_task(read())
        try:
            while (task := await under_way.get()) is not None:
                yield await task
            if faults:
                raise faults[0]
        finally:
            reader.cancel()
            for task in begun:
                task.cancel()

    async def question(self, lines: Sequence[Line]) -> bytes:
        """What is said to some lines, a line each."""
        said: dict[int, dict[str, Any]] = {}  # by the place in `lines`
        contents: dict[int, Any] = {}
        for i, line in enumerate(lines):
            try:
                contents[i] = self.content(line)
            except HTTPException as error:
                said[i] = problems.members(error.status_code, str(error.detail))
            except HeadstartError as error:
                said[i] = problems.members(error)
        faults = dict(said)
        deadline = time.monotonic() + self.patience
        for kind in (str, bytes):
            places = [i for i, content in contents.items() if isinstance(content, kind)]
            await self._ask(places, contents, deadline, said, faults)
        return b"".join(
            orjson.dumps({"error": said[i], "line": line.number} if i in faults else said[i]) + b"\n"
            for i, line in enumerate(lines)
        )

    async def _ask(
        self, places: list[int], contents: dict[int, Any], deadline: float, said: dict[int, Any], faults: dict[int, Any]
    ) -> None:
        """Answer the contents at some places, all of one kind, around those that cannot be read."""
        while places:
            question = Question(
                [contents[i] for i in places], (self.name,), deadline, self.key, self.wish.unknown, by=self.by
            )  # fmt: skip
            try:
                reply = await self.service.engine.answer(question)
            except ContentError as error:
                broken = {places[at]: why for at, why in error.faults}
                for i, why in broken.items():
                    said[i] = faults[i] = problems.members(ContentError([(0, why)]), f"it cannot be read: {why}.")
                places = [i for i in places if i not in broken]
                continue
            except Overloaded as error:  # a stream can wait
                if time.monotonic() + error.retry < deadline:
                    await asyncio.sleep(error.retry)
                    continue
                self._failed(error, places, said, faults)
                return
            except HeadstartError as error:
                self._failed(error, places, said, faults)
                return
            one = reply.said[0]
            named = rendering.named(one)
            found = rendering.predictions(one, top=self.wish.top, judge=self.wish.unknown)
            said.update((i, {**named, **prediction}) for i, prediction in zip(places, found, strict=True))
            self.service.metrics.replied(reply)
            return

    def _failed(self, error: HeadstartError, places: list[int], said: dict[int, Any], faults: dict[int, Any]) -> None:
        for i in places:
            said[i] = faults[i] = problems.members(error)

    def content(self, line: Line) -> str | bytes:
        """What a line holds: a text, or a picture. Raises HTTPException, InputError."""
        if line.text is None:
            raise HTTPException(413, f"the line has more than {self.service.settings.max_json:,} bytes.")
        value = reading.parsed(line.text, "line")
        if isinstance(value, dict) and set(value) != {"base64"}:
            for name in value:
                if name in describing.QUERY:
                    raise InputError(f"the line has {name!r}, which is said once for all lines: /predict?{name}=...")
                if name != "input":
                    raise InputError(f"the line has a field {name[:80]!r}.{near(name[:80], ('input',))}")
            if not value:
                raise InputError('the line is an empty object; write {"input": ...}.')
            value = value["input"]
        if not isinstance(value, str | dict) or (isinstance(value, dict) and "base64" not in value):
            raise InputError(
                f'the line is {reading.called(value)}; write one input a line: a text, or {{"input": ...}}.'
            )
        return reading.contents(value, self.service.settings)[0]


async def together(request: Request, longest: int) -> AsyncIterator[list[Line]]:
    """Lines of a body as they come, up to `TOGETHER` at once; empty ones are counted and left out.

    Of a line of more than `longest` bytes nothing is kept.
    """
    number, rest, size, cut = 1, list[bytes](), 0, False
    lines: list[Line] = []
    async for piece in request.stream():
        *ended, last = piece.split(b"\n")
        for part in ended:
            cut = cut or size + len(part) > longest
            text = None if cut else b"".join((*rest, part)).strip()
            if text != b"":
                lines.append(Line(number, text))
            number, rest, size, cut = number + 1, [], 0, False
            if len(lines) == TOGETHER:
                yield lines
                lines = []
        size += len(last)
        cut = cut or size > longest
        rest = [] if cut else [*rest, last] if last else rest
        if len(rest) > 64:
            rest = [b"".join(rest)]
        if lines:
            yield lines
            lines = []
    if cut or b"".join(rest).strip():
        yield [Line(number, None if cut else b"".join(rest).strip())]
