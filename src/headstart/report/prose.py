"""The shapes a section is written in: heading, paragraphs, lists, something to open. Arguments are already escaped."""

from __future__ import annotations

from collections.abc import Sequence


def section(ident: str, heading: str, how: str, body: str) -> str:
    """A section: its heading, its picture, and how to read it; nothing without a picture."""
    if not body:
        return ""
    return (
        f'<section aria-labelledby="{ident}"><h2 id="{ident}">{heading}</h2>'
        f'<div class="body">{body}</div><div class="how">{how}</div></section>'
    )


def p(*sentences: str, kind: str = "") -> str:
    """A paragraph of sentences; nothing without a sentence."""
    said = " ".join(s for s in sentences if s)
    return f"<p{f' class={kind}' if kind else ''}>{said}</p>" if said else ""


def fold(summary: str, body: str) -> str:
    """Something to open; nothing when there is nothing in it."""
    return f"<details><summary>{summary}</summary>{body}</details>" if body else ""


def listing(pairs: Sequence[tuple[str, str]]) -> str:
    """A description list; pairs without a value are left out."""
    inside = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs if value)
    return f"<dl>{inside}</dl>" if inside else ""
