"""The document around a page: its policy, its style, its title. Arguments are already escaped."""

from __future__ import annotations

from functools import cache
from pathlib import Path

# Nothing is loaded, run, framed or sent; the style sheet and the pictures are in the page.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Crect width='16' height='16' rx='4' fill='%230072b2'/%3E"
    "%3Cpath d='M4 11h8M4 8h5' stroke='%23fff' stroke-width='2' stroke-linecap='round'/%3E%3C/svg%3E"
)


def document(title: str, header: str, main: str, footer: str) -> str:
    """A self-contained HTML page. No script; its policy forbids loading anything."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<link rel="icon" href="{ICON}">
<style>
{style()}</style>
</head>
<body>
<header>{header}</header>
<main>
{main}
</main>
<footer><p>{footer}</p></footer>
</body>
</html>
"""


@cache
def style() -> str:
    """The style sheet of every page."""
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")
