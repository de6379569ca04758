"""The page: head, verdict, contents and sections around them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headstart.report import distilling, making, mistakes, quality, shrinking, trust, tuning
from headstart.report.shell import document
from headstart.report.words import SENTENCE, clean, kind, moment, number, plain, plural, record, sequence, show

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
    ("tuned", "Tuning", tuning.tuned),
    ("distilled", "Teaching", distilling.distilled),
    ("shrunk", "Shrinking", shrinking.shrunk),
    ("again", "Again", making.again),
)
TASKS = {
    "classification": "One label of many",
    "multilabel": "Several labels at once",
    "regression": "A number for each {}",
}


def render(facts: Mapping[str, Any]) -> str:
    """The report of a model as one self-contained HTML page.

    facts: what `fit` found, as in a model folder's facts.json. Pieces that are missing, null or of an unexpected shape
    are left out; strings are escaped and shortened; a picture that is not a small JPEG or PNG is left out too. No
    network, no script; the same facts give the same page.
    """
    name = facts.get("name") or "model"
    parts = [(anchor, word, made) for anchor, word, make in SECTIONS if (made := make(facts))]
    contents = "".join(f'<li><a href="#{anchor}">{word}</a></li>' for anchor, word, _ in parts)
    nav = f'<nav aria-label="Contents"><ul>{contents}</ul></nav>' if len(parts) > 2 else ""
    body = "\n".join(made for _, _, made in parts)
    by = f" {show(facts['headstart'], 40)}" if facts.get("headstart") else ""
    return document(
        f"{plain(name)} – Headstart report",
        f"{_title(facts, name)}{_verdict(facts)}{nav}",
        body,
        f"Made by Headstart{by}. This page is complete in itself: it loads nothing and sends nothing.",
    )


def _title(facts: Mapping[str, Any], name: object) -> str:
    called, labels, used = kind(facts), sequence(facts.get("labels")), number(record(facts.get("data")).get("used"))
    words = [
        TASKS.get(clean(facts.get("task")), "").format(called.one),
        plural(len(labels), "label") if labels else "",
        plural(used, f"labelled {called.row}") if used is not None else "",
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
