"""Facts into safe words and numbers.

Every string that reaches the page passes through `clean`: labels and texts come from strangers. Every number passes
through `number`: what is missing, null, not finite or of another type is None, and a piece without it is left out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any, TypeVar

LABEL = 60  # characters of a label shown
TEXT = 280  # characters of an example shown
SENTENCE = 600  # characters of a sentence of ours shown: it may quote a label

THIN = "\u202f"  # narrow no-break space, before a percent sign
_MARKS = 4  # combining marks kept on one letter; more is decoration that covers its neighbours
# Characters that reorder or hide what surrounds them are named instead of obeyed. The marks and joiners that Arabic,
# Hebrew, Persian and emoji need (U+200C to U+200F, U+061C) stay.
_NAMED = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\u2060\u200b\u00ad")

_URI = re.compile(r"data:image/(?:jpeg|png);base64,[A-Za-z0-9+/]+={0,2}")
_URI_LENGTH = 40_000  # characters; a picture of 96 pixels needs about 4,000

Record = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """What the contents of a modality are called."""

    one: str
    many: str
    row: str  # an example of it, in a file or a folder
    rows: str
    test: str  # where the rows come from that are used once, for the report


TEXTS = Kind("text", "texts", "row", "rows", "test file")
PICTURES = Kind("picture", "pictures", "picture", "pictures", "test set")


def kind(facts: Record) -> Kind:
    """What the contents of these facts are called; of models older than pictures, and of anything else, texts."""
    return PICTURES if facts.get("modality") == "image" else TEXTS


def number(value: object) -> float | None:
    """A finite number of ordinary size, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e15 else None  # which NaN is not


def record(value: object) -> Record:
    """A JSON object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def records(value: object) -> list[Record]:
    """The objects of a JSON array, else nothing."""
    return [each for each in sequence(value) if isinstance(each, Mapping)]


def sequence(value: object) -> Sequence[Any]:
    """A JSON array, else an empty one."""
    return value if isinstance(value, list | tuple) else ()


def shorter(rows: Sequence[T], most: int) -> tuple[Sequence[T], Sequence[T]]:
    """What of a list is shown and what is folded away; a fold of a few is not worth its line."""
    return (rows, []) if len(rows) <= most + most // 5 + 1 else (rows[:most], rows[most:])


def thumbnail(value: object) -> str | None:
    """A picture as the data URI of a small JPEG or PNG, safe in an attribute; None for anything else."""
    if not isinstance(value, str) or len(value) > _URI_LENGTH:
        return None
    return value if _URI.fullmatch(value) else None


def clean(value: object, most: int = LABEL) -> str:
    """At most `most` visible characters of a string; not yet escaped.

    White space becomes single spaces; control characters, direction overrides and other invisible characters become
    their code points, ⟨U+202E⟩; lone surrogates and noncharacters U+FFFD; marks piled on one letter are cut.
    """
    text = value if isinstance(value, str) else "" if value is None else str(value)
    text = text.strip()
    start = " ".join(text[: 8 * most].split())  # no need to look through 10 MB
    if not start:
        return "(empty)"
    if len(start) > most or len(text) > 8 * most:
        start = start[: most - 1].rstrip() + "…"
    text = start
    if text.isascii() and text.isprintable():
        return text
    kept: list[str] = []
    marks = 0
    for c in text:
        kind = unicodedata.category(c)
        marks = marks + 1 if kind[0] == "M" else 0
        if marks > _MARKS:
            continue
        code = ord(c)
        if kind == "Cs" or code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF:
            kept.append("\ufffd")
        elif kind == "Cc" or c in _NAMED or 0xE0000 <= code <= 0xE007F:
            kept.append(f"⟨U+{code:04X}⟩")
        else:
            kept.append(c)
    return "".join(kept)


def show(value: object, most: int = LABEL) -> str:
    """A string for the body of the page: cleaned, escaped, isolated in its direction, breakable after underscores."""
    return f"<bdi>{escape(clean(value, most)).replace('_', '_<wbr>')}</bdi>"


def plain(value: object, most: int = LABEL) -> str:
    """A string for an attribute or an SVG title: cleaned, escaped, isolated by characters instead of an element."""
    return f"\u2068{escape(clean(value, most))}\u2069"


def percent(value: float, digits: int = 1) -> str:
    """0.874 -> '87.4 %'."""
    return f"{100 * value:.{digits}f}{THIN}%"


def span(low: float, high: float) -> str:
    """The ends of an interval of shares: '83.1 to 91.0 %'."""
    return f"{100 * low:.1f} to {100 * high:.1f}{THIN}%"


def points(value: float) -> str:
    """A difference of shares in percentage points, signed: '+1.6'."""
    return f"{100 * value:+.1f}".replace("-", "−")


def count(value: float) -> str:
    """A count: 10003 -> '10,003'."""
    return f"{value:,.0f}"


def figure(value: float) -> str:
    """A quantity of unknown size to four digits: '0.7123', '12.35', '1,204'."""
    return (f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.4g}").replace("-", "−")


def seconds(value: float) -> str:
    """A duration: '0.03 s', '2.4 s', '73 s', '12 min'."""
    if value < 9.95:
        return f"{value:.{2 if value < 1 else 1}f}{THIN}s"
    return f"{value:.0f}{THIN}s" if value < 600 else f"{value / 60:.0f}{THIN}min"


def size(value: float) -> str:
    """Bytes: '640 bytes', '12.3 kB', '4.12 MB', '1,204 MB'."""
    if value < 1e3:
        return f"{value:.0f} bytes"
    power, unit = (1e3, "kB") if value < 1e6 else (1e6, "MB")
    amount = value / power
    return f"{amount:,.{2 if amount < 9.995 else 1 if amount < 99.95 else 0}f}{THIN}{unit}"


def milliseconds(value: float) -> str:
    """A short duration, in milliseconds: '0.042 ms', '3.1 ms', '27 ms', '1,204 ms'."""
    return f"{value:,.{0 if value >= 9.95 else 1}f}{THIN}ms" if value >= 0.95 else f"{value:.2g}{THIN}ms"


def times(value: float) -> str:
    """A factor to two digits: '0.51 times', '2.5 times', '14 times', '330 times'."""
    if value < 9.95:
        return f"{value:.2g} times"
    power = 10.0 ** max(0, len(f"{value:.0f}") - 2)
    return f"{round(value / power) * power:,.0f} times"


def plural(value: float, one: str, many: str | None = None) -> str:
    """'1 row', '2 rows', '1,204 rows'."""
    return f"{count(value)} {one if value == 1 else many or one + 's'}"


def moment(value: object) -> str:
    """An ISO 8601 time as a `time` element: '21 November 2026, 04:50 UTC'; any other string as it is."""
    text = clean(value, 40)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return show(text)
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when
    name = when.tzname() or "UTC"
    return f'<time datetime="{escape(when.isoformat())}">{when.day} {when:%B %Y, %H:%M} {escape(name)}</time>'
