"""The page: head, verdict, contents and sections around them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from headstart.report import making, mistakes, quality, trust
from headstart.report.words import SENTENCE, clean, moment, number, plain, plural, record, sequence, show

# Nothing is loaded, run, framed or sent; the style sheet is in the page.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Crect width='16' height='16' rx='4' fill='%230072b2'/%3E"
    "%3Cpath d='M4 11h8M4 8h5' stroke='%23fff' stroke-width='2' stroke-linecap='round'/%3E%3C/svg%3E"
)
SECTIONS = (  # anchor, its word in the contents, what writes it
    ("good", "How good", quality.how_good),
    ("curve-h", "More labels", quality.more_labels),
    ("labels", "Labels", quality.by_label),
    ("scatter-h", "Predicted", quality.against_true),
    ("mixed", "Mix-ups", mistakes.mix_ups),
    ("suspects", "Wrong labels", mistakes.wrong_labels),
    ("trust", "Trust", trust.probabilities),
    ("unknown-h", "Unknown", trust.unknown),
    ("thresholds", "Thresholds", trust.thresholds),
    ("data", "Data", making.data),
    ("made", "Making", making.made),
    ("again", "Again", making.again),
)
TASKS = {
    "classification": "One label of many",
    "multilabel": "Several labels at once",
    "regression": "A number for each text",
}


def render(facts: Mapping[str, Any]) -> str:
    """The report of a model as one self-contained HTML page.

    facts: what `fit` found, as in a model folder's facts.json. Pieces that are missing, null or of an unexpected shape
    are left out; strings are escaped and shortened. No network, no script; the same facts give the same page.
    """
    name = facts.get("name") or "model"
    parts = [(anchor, word, made) for anchor, word, make in SECTIONS if (made := make(facts))]
    contents = "".join(f'<li><a href="#{anchor}">{word}</a></li>' for anchor, word, _ in parts)
    nav = f'<nav aria-label="Contents"><ul>{contents}</ul></nav>' if len(parts) > 2 else ""
    body = "\n".join(made for _, _, made in parts)
    by = f" {show(facts['headstart'], 40)}" if facts.get("headstart") else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{plain(name)} – Headstart report</title>
<link rel="icon" href="{ICON}">
<style>
{_style()}</style>
</head>
<body>
<header>{_title(facts, name)}{_verdict(facts)}{nav}</header>
<main>
{body}
</main>
<footer><p>Made by Headstart{by}. This page is complete in itself: it loads nothing and sends nothing.</p></footer>
</body>
</html>
"""


def _title(facts: Mapping[str, Any], name: object) -> str:
    labels, used = sequence(facts.get("labels")), number(record(facts.get("data")).get("used"))
    words = [
        TASKS.get(clean(facts.get("task")), ""),
        plural(len(labels), "label") if labels else "",
        plural(used, "labelled row") if used is not None else "",
        moment(facts["made"]) if facts.get("made") else "",
    ]
    line = " · ".join(word for word in words if word)
    return f'<p class="over">Headstart report</p><h1>{show(name)}</h1>' + (
        f'<p class="under">{line}</p>' if line else ""
    )


def _verdict(facts: Mapping[str, Any]) -> str:
    said = [show(each, SENTENCE) for each in sequence(facts.get("verdict"))[:20] if isinstance(each, str)]
    if not said:
        return ""
    more = "".join(f"<li>{sentence}</li>" for sentence in said[1:])
    return f'<p class="verdict">{said[0]}</p>' + (f'<ul class="more">{more}</ul>' if more else "")


@cache
def _style() -> str:
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")
