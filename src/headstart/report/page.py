"""The page: head, verdict, contents and sections around them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from headstart.report import sections
from headstart.report.words import SENTENCE, clean, moment, number, plain, plural, record, sequence, show

# Nothing is loaded, run, framed or sent; the style sheet is in the page.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect width='16' height='16' rx='4'"
    " fill='%230072b2'/%3E%3Cpath d='M4 11h8M4 8h5' stroke='%23fff' stroke-width='2' stroke-linecap='round'/%3E%3C/svg%3E"
)
ORDER = (
    ("good", "How good", sections.how_good),
    ("curve-h", "More labels", sections.more_labels),
    ("labels", "Labels", sections.by_label),
    ("scatter-h", "Predicted", sections.against_true),
    ("mixed", "Mix-ups", sections.mix_ups),
    ("suspects", "Wrong labels", sections.wrong_labels),
    ("trust", "Trust", sections.trust),
    ("unknown", "Unknown", sections.unknown),
    ("thresholds", "Thresholds", sections.thresholds),
    ("data", "Data", sections.data),
    ("made", "Making", sections.made),
    ("again", "Again", sections.again),
)
TASKS = {
    "classification": "Text classification, one label of many",
    "multilabel": "Text classification, several labels at once",
    "regression": "A number from a text",
}


def render(facts: Mapping[str, Any]) -> str:
    """The report of a model as one self-contained HTML page.

    facts: what `fit` found, as in a model folder's facts.json. Pieces that are missing, null or of an unexpected shape
    are left out; strings are escaped and shortened. No network, no script; the same facts give the same page.
    """
    name = facts.get("name") or "model"
    parts = [(ident, word, made) for ident, word, make in ORDER if (made := make(facts))]
    contents = "".join(f'<li><a href="#{ident}">{word}</a></li>' for ident, word, _ in parts)
    nav = f'<nav aria-label="Contents"><ul>{contents}</ul></nav>' if len(parts) > 2 else ""
    version = f" {show(facts['headstart'], 40)}" if facts.get("headstart") else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f'<title>{plain(name)} – Headstart report</title>\n<link rel="icon" href="{ICON}">\n<style>\n{_style()}</style>\n</head>\n'
        f"<body>\n<header>{_title(facts, name)}{_verdict(facts)}{nav}</header>\n"
        f"<main>\n{chr(10).join(made for _, _, made in parts)}\n</main>\n"
        f"<footer><p>Made by Headstart{version}. This page is complete in itself: it loads nothing and sends nothing.</p></footer>\n"
        "</body>\n</html>\n"
    )


def _title(facts: Mapping[str, Any], name: object) -> str:
    data = record(facts.get("data"))
    labels, used = sequence(facts.get("labels")), number(data.get("used"))
    words = [TASKS.get(clean(facts.get("task")), "")]
    words += [plural(len(labels), "label")] if labels else []
    words += [plural(used, "labelled row")] if used is not None else []
    words += [moment(facts["made"])] if facts.get("made") else []
    line = " · ".join(word for word in words if word)
    return f'<p class="over">Headstart report</p><h1>{show(name)}</h1>' + (
        f'<p class="under">{line}</p>' if line else ""
    )


def _verdict(facts: Mapping[str, Any]) -> str:
    said = [show(sentence, SENTENCE) for sentence in sequence(facts.get("verdict"))[:12] if isinstance(sentence, str)]
    if not said:
        return ""
    more = "".join(f"<li>{sentence}</li>" for sentence in said[1:])
    return f'<p class="verdict">{said[0]}</p>' + (f'<ul class="more">{more}</ul>' if more else "")


@cache
def _style() -> str:
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")
