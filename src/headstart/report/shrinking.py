"""How the network was made smaller, and what that cost."""

from __future__ import annotations

from headstart.report import pictures
from headstart.report.pictures import Strip, strips
from headstart.report.prose import p, section
from headstart.report.words import Record, kind, milliseconds, number, percent, record, records, show, size, span

STEPS = 40  # steps shown


def shrunk(facts: Record) -> str:
    """A table of the steps tried, from the network as it was to the one that was kept."""
    given, called = record(facts.get("shrunk")), kind(facts)
    before, after = record(given.get("before")), record(given.get("after"))
    rows = [_row("before", before, strong=True)]
    rows += [_row(show(step.get("name")), step) for step in records(given.get("steps"))[:STEPS]]
    rows += [_row("after", after, strong=True)]
    drawn = [row for row in rows if row.value is not None]
    if not drawn:
        return ""
    ends = [each for row in drawn for each in (row.value, row.low, row.high) if each is not None]
    heads = ("step", "accuracy and its interval", "accuracy", "same answers", "size", f"time a {called.one}")
    table = strips("Steps of shrinking", heads, drawn, pictures.axis(min(ends), max(ends), share=True))
    how = p("A smaller network answers faster and takes less room; this is what that cost.")
    how += p(
        "<dfn>Same answers</dfn>: how often it says what it said before it was made smaller.",
        "Where bars overlap a lot, the accuracies cannot be told apart.",
    )
    return section("shrunk", "How it was made smaller", how, p(_said(given, before, after), kind="lead") + table)


def _row(name: str, source: Record, *, strong: bool = False) -> Strip:
    """One state of the network; its value is None where no accuracy is known."""
    value, low, high = (number(source.get(key)) for key in ("accuracy", "low", "high"))
    fate = {True: "kept", False: "not kept"}.get(source["kept"]) if isinstance(source.get("kept"), bool) else None
    agreement, mb, ms = (number(source.get(key)) for key in ("agreement", "mb", "ms"))
    cells = (
        percent(value) if value is not None else "",
        percent(agreement) if agreement is not None else "",
        size(1e6 * mb) if mb is not None and mb >= 0 else "",
        milliseconds(ms) if ms is not None and ms >= 0 else "",
    )
    tip = f"interval {span(low, high)}" if low is not None and high is not None else ""
    name += f" <small>{fate}</small>" if fate else ""
    return Strip(name, value, low, high, None, cells, tip, strong=strong, pale=fate == "not kept")


def _said(given: Record, before: Record, after: Record) -> str:
    """From what to what, in a sentence; '' when the ends are not known."""
    parts = []
    for key, word in (("mb", lambda mb: size(1e6 * mb)), ("ms", milliseconds), ("accuracy", percent)):
        old, new = number(before.get(key)), number(after.get(key))
        if old is not None and new is not None and old >= 0 and new >= 0:
            parts.append(f"{word(old)} to {word(new)}{' accuracy' if key == 'accuracy' else ''}")
    name = f"Made from {show(given['from'])}" if given.get("from") else "Made smaller"
    return f"{name}: {', '.join(parts)}." if parts else ""
