"""JSON as the standard has it: stricter than Python's reader, which lets four bad things through.

Duplicate keys (the last wins silently), NaN and Infinity, numbers that overflow to infinity, and nesting deep enough
to end in a RecursionError are refused; lone surrogates too, for they cannot be written out again.
"""

from __future__ import annotations

import json
from typing import Any


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the key {name!r} occurs twice")
            seen.add(name)
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"the number {digits[:20]} is too large")
    return number


_decoder = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)


def parse(text: str) -> Any:
    """The value of one JSON text. Raises ValueError, never another kind, with a reason in words."""
    try:
        value = _decoder.decode(text)
        if "\\u" in text:  # only an escape can bring in a lone surrogate
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("it contains half of a surrogate pair (\\ud800 to \\udfff)") from None
    return value


def write(value: Any, *, indent: int | None = None) -> str:
    """JSON text with sorted keys; raises ValueError on NaN and infinities."""
    separators = (",", ": ") if indent else (",", ":")
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, indent=indent, separators=separators)
