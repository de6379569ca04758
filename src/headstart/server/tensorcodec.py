"""Tensors of the Open Inference Protocol v2 as bytes and as JSON: the one place where their lengths are believed or not.

A tensor that comes in is of datatype BYTES, shape [n] or [n, 1]: n texts or pictures. Its binary form is, for each
element, its length as 4 bytes (little-endian, unsigned) and the bytes themselves. What goes out is BYTES, BOOL (one byte
each) or FP32 (little-endian), row by row. A shape is a claim: nothing is allocated from it, and it is compared with what
really came. Everything that does not fit is an InputError that names the tensor.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from headstart import jsontext
from headstart.errors import InputError

BYTES, BOOL, FP32 = "BYTES", "BOOL", "FP32"
OTHERS = (
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "BF16",
    "FP32",
    "FP64",
)
LENGTH = struct.Struct("<I")
LONGEST = 80  # characters of an input's name
PIECE = 8192  # numbers that are written at once
HEADER = "Inference-Header-Content-Length"


@dataclass(frozen=True, slots=True)
class Given:
    """A tensor that came in: n elements, `str` where it came as JSON text, `bytes` where as bytes."""

    name: str
    items: list[str] | list[bytes]


@dataclass(frozen=True, slots=True)
class Out:
    """A tensor to send: `data` are n byte strings (BYTES) or an array of `shape`, bool (BOOL) or float32 (FP32)."""

    name: str
    datatype: str
    data: list[bytes] | NDArray[np.bool_] | NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, ...]:
        """(n,) or (n, c)."""
        return (len(self.data),) if isinstance(self.data, list) else self.data.shape


@dataclass(frozen=True, slots=True)
class Request:
    """An inference request: its tensors, the outputs asked for (() is all), and whether they come as bytes."""

    id: str
    given: tuple[Given, ...]
    wanted: tuple[str, ...]
    binary: dict[str, bool]  # of single outputs
    all_binary: bool  # of the others


def elements(shape: object, name: str, limit: int) -> int:
    """The number n of elements that a shape [n] or [n, 1] claims, at most `limit`. Raises InputError."""
    if not isinstance(shape, Sequence) or isinstance(shape, str | bytes) or not 1 <= len(shape) <= 2:
        raise InputError(f"input {name!r}: its shape must be [n] or [n, 1], with n its number of elements.")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise InputError(f"input {name!r}: every dimension of its shape must be a whole number from 0 on.")
    n, *columns = shape
    if columns not in ([], [1]):
        raise InputError(
            f"input {name!r} is a tensor of shape [n, {columns[0]}]; give [n] or [n, 1], one row an input."
        )
    if n > limit:
        raise InputError(f"input {name!r}: its shape says {n:,} elements; at most {limit:,} may come in one request.")
    return int(n)


def accepted(name: str, datatype: object) -> None:
    """Raise InputError unless an input is called by a short name and holds BYTES."""
    if len(name) > LONGEST:
        raise InputError(
            f"input {name[:LONGEST]!r}... has a name of {len(name):,} characters; at most {LONGEST} are read."
        )
    if datatype != BYTES:
        known = f"has datatype {datatype}" if datatype in OTHERS else "has no known datatype"
        raise InputError(f"input {name!r} {known}; texts and pictures are BYTES.")


def unpack(raw: bytes | memoryview, n: int, name: str) -> list[bytes]:
    """The n elements of a BYTES tensor in binary form. Raises InputError where it holds fewer, more or others."""
    if 4 * n > len(raw):
        raise InputError(f"input {name!r}: {n:,} elements need at least {4 * n:,} bytes; {len(raw):,} came.")
    items, at, end = [], 0, len(raw)
    for i in range(n):
        if at + 4 > end:
            raise InputError(f"input {name!r} ends before the length of element {i}.")
        (size,) = LENGTH.unpack_from(raw, at)
        at += 4
        if size > end - at:
            raise InputError(f"input {name!r}: element {i} is {size:,} bytes long, but only {end - at:,} are left.")
        items.append(bytes(raw[at : at + size]))
        at += size
    if at != end:
        raise InputError(f"input {name!r}: {end - at:,} bytes follow its last element; its shape says {n:,} elements.")
    return items


def pack(out: Out) -> bytes:
    """A tensor in binary form."""
    if isinstance(out.data, list):
        return b"".join(part for item in out.data for part in (LENGTH.pack(len(item)), item))
    return np.ascontiguousarray(out.data, "<f4" if out.datatype == FP32 else np.bool_).tobytes()


def strings(data: object, n: int, name: str) -> list[str]:
    """The n strings of a tensor's JSON `data`, flat or one in a list of its own. Raises InputError."""
    if not isinstance(data, list):
        raise InputError(f"input {name!r} has no `data` (a list of strings) and no binary_data_size.")
    if len(data) != n:
        raise InputError(f"input {name!r}: its shape says {n:,} elements, its data has {len(data):,}.")
    items = [one[0] if isinstance(one, list) and len(one) == 1 else one for one in data]
    for i, one in enumerate(items):
        if not isinstance(one, str):
            raise InputError(f"input {name!r}: element {i} of its data is no string.")
    return items


def _object(value: object, what: str) -> dict[str, Any]:
    """A JSON object, {} where there is none. Raises InputError."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{what} must be a JSON object.")
    return value


def _flag(found: dict[str, Any], key: str, what: str) -> bool:
    value = found.get(key, False)
    if not isinstance(value, bool):
        raise InputError(f"{what}: {key} must be true or false.")
    return value


def _listed(value: object, what: str) -> list[tuple[str, dict[str, Any]]]:
    """Objects with different names, as (name, object). Raises InputError."""
    if not isinstance(value, list):
        raise InputError(f"`{what}s` must be a list of JSON objects.")
    found = []
    for one in value:
        if not isinstance(one, dict) or not isinstance(one.get("name"), str):
            raise InputError(f"every {what} must be a JSON object with a name.")
        found.append((one["name"], one))
    if len({name for name, _ in found}) != len(found):
        raise InputError(f"two {what}s have the same name.")
    return found


def read(body: bytes, header: str | None, limit: int) -> Request:
    """A request as it came over HTTP.

    header: what Inference-Header-Content-Length says, the length in bytes of the JSON in front of the binary tensors.
    limit: inputs at most. Raises InputError.
    """
    length = len(body)
    if header is not None:
        if not (header.isascii() and header.isdigit()) or len(header) > 18 or int(header) > len(body):
            raise InputError(f"{HEADER} must be the length of the JSON part, from 0 to the body's {len(body):,} bytes.")
        length = int(header)
    try:
        found = jsontext.parse(str(memoryview(body)[:length], "utf-8"))
    except ValueError as error:
        raise InputError(f"the request is not JSON: {error}.") from None
    if not isinstance(found, dict):
        raise InputError("the request must be a JSON object with a list of `inputs`.")
    if not isinstance(found.get("id", ""), str):
        raise InputError("the request's id must be a string.")
    given, at = [], length
    for name, one in _listed(found.get("inputs"), "input"):
        accepted(name, one.get("datatype"))
        n = elements(one.get("shape"), name, limit)
        size = _object(one.get("parameters"), f"the parameters of input {name!r}").get("binary_data_size")
        if size is None:
            given.append(Given(name, strings(one.get("data"), n, name)))
            continue
        if "data" in one:
            raise InputError(f"input {name!r} has both `data` and binary_data_size; give one.")
        if type(size) is not int or not 0 <= size <= len(body) - at:
            raise InputError(
                f"input {name!r}: its binary_data_size must be from 0 to the {len(body) - at:,} bytes left."
            )
        given.append(Given(name, unpack(memoryview(body)[at : at + size], n, name)))
        at += size
    if at != len(body):
        raise InputError(f"{len(body) - at:,} bytes follow the last binary tensor.")
    wanted, binary = [], {}
    for name, one in _listed(found.get("outputs", []), "output"):
        wanted.append(name)
        parameters = _object(one.get("parameters"), f"the parameters of output {name!r}")
        if "binary_data" in parameters:
            binary[name] = _flag(parameters, "binary_data", f"output {name!r}")
    parameters = _object(found.get("parameters"), "the request's parameters")
    every = _flag(parameters, "binary_data_output", "the request's parameters")
    return Request(found.get("id", ""), tuple(given), tuple(wanted), binary, every)


def described(out: Out, binary: bool) -> tuple[dict[str, Any], bytes]:
    """A tensor for a response over HTTP: its JSON object, and the bytes that follow the JSON (b"" for data in JSON)."""
    head: dict[str, Any] = {"name": out.name, "datatype": out.datatype, "shape": list(out.shape)}
    if binary:
        raw = pack(out)
        return {**head, "parameters": {"binary_data_size": len(raw)}}, raw
    if isinstance(out.data, list):
        return {**head, "data": [item.decode("utf-8", "replace") for item in out.data]}, b""
    return {**head, "data": numbers(out.data)}, b""


def numbers(values: NDArray[Any]) -> orjson.Fragment:
    """An array as a flat JSON list, written in pieces: between two of them other threads get their turn."""
    flat = np.ascontiguousarray(values).ravel()
    pieces = (orjson.dumps(flat[i : i + PIECE], option=orjson.OPT_SERIALIZE_NUMPY) for i in range(0, len(flat), PIECE))
    return orjson.Fragment(b"[" + b",".join(piece[1:-1] for piece in pieces) + b"]")
