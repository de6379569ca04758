"""Bodies of requests: JSON, forms with files, and what is in them; nothing is read beyond its bound.

What is no HTTP or JSON that can be read is an HTTPException (400, 413, 415); what can be read and is not what we take
is an InputError, which becomes a 422.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from headstart import jsontext
from headstart.errors import InputError, near
from headstart.server.settings import Settings

JSON, FORM, LINES = "application/json", "multipart/form-data", "application/x-ndjson"
SLOW = 32_768  # bytes of JSON from which on a thread reads them
FIELDS = 16  # of a form, beside its inputs
FIELD = 65_536  # bytes of one
Schema = TypeVar("Schema", bound=BaseModel)


def media_type(request: Request, known: Sequence[str] = (JSON,)) -> str:
    """Which of the known kinds of body it is. Raises HTTPException 400 and 415."""
    given = request.headers.getlist("content-type")
    if len(given) > 1:
        raise HTTPException(400, "there are two Content-Type headers.")
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise HTTPException(415, "compressed bodies are not read: send it without Content-Encoding.")
    kind, *parameters = (given[0] if given else "none").split(";")
    kind = kind.strip().lower()
    if kind not in known:
        raise HTTPException(415, f"Content-Type is {kind[:80]!r}; send {' or '.join(known)}.")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in ("utf-8", "utf8", "us-ascii"):
            raise HTTPException(415, f"charset is {value.strip()[:40]!r}; send UTF-8.")
    return kind


async def whole(request: Request, limit: int) -> bytes:
    """The body. Raises HTTPException 400 when it ends too early, 413 when it has more than `limit` bytes."""
    _announced(request, limit)
    receive, body = request.receive, b""
    pieces: list[bytes] = []
    got, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HTTPException(400, "the body ended too early.")
        body, more = message.get("body", b""), message.get("more_body", False)
        got += len(body)
        if got > limit:
            raise _large(limit)
        pieces.append(body)
    return body if len(pieces) == 1 else b"".join(pieces)


async def bounded(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """The pieces of the body, as they come. Raises as `whole`."""
    _announced(request, limit)
    got = 0
    try:
        async for piece in request.stream():
            got += len(piece)
            if got > limit:
                raise _large(limit)
            yield piece
    except ClientDisconnect:
        raise HTTPException(400, "the body ended too early.") from None


def _announced(request: Request, limit: int) -> None:
    said = request.headers.get("content-length", "")
    if said.isascii() and said.isdigit() and len(said) < 19 and int(said) > limit:
        raise _large(limit)


def _large(limit: int) -> HTTPException:
    return HTTPException(413, f"the body has more than {limit:,} bytes: send it in parts.")


async def json(request: Request, limit: int) -> Any:
    """The body as a JSON value. Raises HTTPException 400, 413, 415."""
    media_type(request)
    body = await whole(request, limit)
    return parsed(body) if len(body) < SLOW else await asyncio.to_thread(parsed, body)


def parsed(body: bytes, what: str = "body") -> Any:
    """A JSON text in UTF-8. Raises HTTPException 400 with the reason."""
    try:
        return jsontext.parse(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise HTTPException(400, f"the {what} is not UTF-8: byte {error.start:,} is wrong.") from None
    except ValueError as error:
        raise HTTPException(400, f"the {what} cannot be read as JSON: {error}.") from None


def checked(schema: type[Schema], value: Any) -> Schema:
    """A JSON value as what `schema` says. Raises InputError that names the first field that is wrong."""
    if not isinstance(value, dict):
        raise InputError(f"the body is {called(value)}; an object is expected.")
    known = [field.alias or name for name, field in schema.model_fields.items()]
    for name in value:
        if name not in known:
            raise InputError(f"there is no field {name[:80]!r}.{near(name[:80], known)}")
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"] if part in known or isinstance(part, int))
        if first["type"] == "missing":
            raise InputError(f"the field {where!r} is missing.") from None
        raise InputError(f"field {where!r} {_wrong(where, first)}; it is {called(first['input'])}.") from None


_KINDS = {
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "too_short": "must have at least {min_length:,} entries",
    "too_long": "must have at most {max_length:,} entries",
    "string_too_short": "must have at least {min_length:,} letters",
    "string_too_long": "must have at most {max_length:,} letters",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
}


def _wrong(where: str, error: Any) -> str:
    """What must be otherwise, of a fault that pydantic found."""
    kind, given = error["type"], error["input"]
    if where == "label" and kind.endswith("_type"):
        return "must be a label, a list of labels, or a number"
    if where == "version":
        return "must be a version such as 'v3'"
    if kind == "string_pattern_mismatch":
        name, mark, version = given.partition("@") if where == "model" else (given, "", "")
        if mark:
            return f"must be a name alone, with the version in 'version' ({name[:64]!r} and {version[:10]!r})"
        return "must be a name: up to 64 letters, digits, '.', '_' and '-'"
    if kind in ("too_short", "string_too_short") and error["ctx"]["min_length"] == 1:
        return "must not be empty"
    known = _KINDS.get(kind)
    return known.format(**error.get("ctx", {})) if known else f"cannot be used ({error['msg'].lower()})"


def contents(value: Any, settings: Settings) -> list[str] | list[bytes]:
    """The field `inputs`: one or several texts, or pictures in base64. Raises InputError, HTTPException 413."""
    given = value if isinstance(value, list) else [value]
    if not given:
        raise InputError("field 'inputs' is an empty list: give at least one input.")
    if len(given) > settings.max_inputs:
        raise HTTPException(
            413, f"there are {len(given):,} inputs, and at most {settings.max_inputs:,} are taken: send them in parts."
        )
    kinds = set(map(type, given))
    if kinds == {str}:
        if max(map(len, given)) > settings.max_text:
            at = next(i for i, text in enumerate(given) if len(text) > settings.max_text)
            raise InputError(f"field 'inputs.{at}' has more than {settings.max_text:,} characters: cut it.")
        return given
    if kinds == {bytes}:  # files of a form
        return given
    if kinds == {dict}:
        return [picture(one, f"inputs.{i}") for i, one in enumerate(given)]
    for i, one in enumerate(given):
        if not isinstance(one, str | dict | bytes):
            raise InputError(
                f'field \'inputs.{i}\' is {called(one)}; give a text, or a picture as {{"base64": "..."}}.'
            )
    raise InputError("field 'inputs' has texts and pictures: ask for them one kind at a time.")


def picture(value: dict[str, Any], where: str) -> bytes:
    """The bytes of {"base64": ...}. Raises InputError."""
    if set(value) != {"base64"} or not isinstance(value["base64"], str):
        raise InputError(f'field {where!r} is no picture: write it as {{"base64": "..."}} and nothing more.')
    try:
        return base64.b64decode(value["base64"].encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise InputError(f"field {where + '.base64'!r} is not base64 (A-Z a-z 0-9 + / and = at the end).") from None


async def form(request: Request, settings: Settings) -> tuple[dict[str, Any], list[str]]:
    """A form: `inputs` the bytes of its files, `models` a list, other fields as JSON would have them; the files' names.

    Raises HTTPException 400 and 413, InputError.
    """
    ended: list[bool] = []

    async def pieces() -> AsyncGenerator[bytes, None]:
        async for piece in bounded(request, settings.max_body):
            yield piece
        if not ended:
            raise HTTPException(400, "the form is cut short: its last boundary is missing.")

    parser = MultiPartParser(
        request.headers, pieces(), max_files=settings.max_inputs, max_fields=FIELDS + settings.max_names, max_part_size=FIELD
    )  # fmt: skip
    parser.on_end = lambda: ended.append(True)  # type: ignore[method-assign]
    try:
        data = await parser.parse()
    except MultiPartException as error:
        full = error.message.startswith(("Too many", "Part exceeded"))
        raise HTTPException(413 if full else 400, f"the form cannot be read: {error.message}") from None
    except (UnicodeDecodeError, ValueError):
        raise HTTPException(400, "the form cannot be read: its headers are damaged.") from None
    try:
        return await _fields(data)
    finally:
        await data.close()


async def _fields(data: FormData) -> tuple[dict[str, Any], list[str]]:
    found: dict[str, Any] = {}
    names: list[str] = []
    for name, value in data.multi_items():
        if isinstance(value, str) and name == "inputs":
            raise InputError(
                f"field 'inputs' of the form is the text {called(value)}: 'inputs' are files. Send one as inputs=@FILE "
                "(curl -F), and texts as JSON."
            )
        if isinstance(value, UploadFile) and name != "inputs":
            raise InputError(f"field {name[:80]!r} of the form is a file: 'inputs' are files, and nothing else is one.")
        if isinstance(value, UploadFile):
            found.setdefault(name, []).append(await value.read())
            names.append(value.filename or "")
        elif name == "models" and "," in value:
            raise InputError(f"field 'models' of the form is {called(value)}: repeat the field, once for each model.")
        elif name == "models":
            found.setdefault(name, []).append(value)
        elif name in found:
            raise InputError(f"the form has the field {name[:80]!r} twice.")
        else:
            found[name] = value
    return plain(found), names


def plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that came as texts, in a form or behind a question mark, as JSON would have them. Raises InputError."""
    found = dict(fields)
    for name in ("why", "unknown"):
        if name in found:
            if found[name] not in ("true", "false"):
                raise InputError(f"field {name!r} is {found[name][:40]!r}; it can be true or false.")
            found[name] = found[name] == "true"
    if "top" in found:
        text = found["top"]
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise InputError(f"field 'top' is {text[:40]!r}; it must be a whole number.")
        found["top"] = int(text)
    return found


def called(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return repr(value) if len(value) <= 40 else f"{value[:37]!r}..."
    if isinstance(value, int | float):
        return str(value) if isinstance(value, float) or abs(value) < 10**20 else "a number of many digits"
    return "a list" if isinstance(value, list) else "an object"
