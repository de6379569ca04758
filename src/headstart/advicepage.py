"""The advice as one HTML page: what to use, the ladder as a picture, and every rung with what it costs.

facts are those of `advising.advise`. Names come from strangers: everything is cleaned and escaped, and a piece that is
missing or of an unexpected shape is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from headstart.report.pictures import Axis, Point, Strip, axis, box, curve, strips
from headstart.report.prose import p, section
from headstart.report.shell import document
from headstart.report.words import (
    SENTENCE,
    Record,
    clean,
    figure,
    kind,
    milliseconds,
    number,
    percent,
    plain,
    plural,
    points,
    record,
    records,
    seconds,
    sequence,
    show,
    size,
    span,
)

HIGH, LEFT, TOP, BOTTOM = 360, 52, 26, 282  # of the picture, and of the plot within it, in its own units
STEP = 96  # width of a rung
MOST = 16  # rungs in the picture
SHOWN = 40  # rungs in the table
CUT = ("static", "linear")  # rungs whose cut is a choice

# The colours are those of page.css, so that the picture stands by itself too.
STYLE = """
.ladder { display: block; width: 100%; min-width: 560px; max-width: 860px; height: auto; overflow: visible; }
.ladder { --paper: #fcfbf9; --ink: #1c2024; --soft: #565d65; --rule: #e2dfd9; --blue: #0067a3; --orange: #b34700; }
@media screen and (prefers-color-scheme: dark) {
.ladder { --paper: #15181b; --ink: #e8e6e1; --soft: #a3a9b0; --rule: #2e3338; --blue: #6cbdf0; --orange: #f0a04b; } }
.ladder text { font: 12px system-ui, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; fill: var(--soft); }
.ladder .name { fill: var(--ink); paint-order: stroke; stroke: var(--paper); stroke-width: 3px; }
.ladder .best { font-weight: 600; fill: var(--orange); }
.ladder .paper { fill: var(--paper); }
.ladder .grid { stroke: var(--rule); }
.ladder .climb { fill: none; stroke: var(--blue); stroke-width: 1.5; stroke-opacity: .5; }
.ladder .whisker { stroke: var(--blue); stroke-width: 7; stroke-opacity: .25; stroke-linecap: round; }
.ladder .dot { fill: var(--blue); stroke: var(--paper); stroke-width: 1.5; }
.ladder .hollow { fill: none; stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 3 3; }
.ladder .ring { fill: none; stroke: var(--orange); stroke-width: 2.5; }
"""


def picture(facts: Mapping[str, Any]) -> str:
    """An SVG, complete in itself: the rungs from cheap to dear, the figure of each with its interval, and what it costs.

    A rung that was not tried is a dashed circle at the foot, or where the forecast puts it. '' without a figure.
    """
    rows = records(facts.get("rungs"))[:MOST]
    known = [row for row in rows if number(row.get("accuracy")) is not None]
    if not known:
        return ""
    share = facts.get("task") != "regression"
    ends = [v for row in known for key in ("accuracy", "low", "high") if (v := number(row.get(key))) is not None]
    up = axis(min(ends), max(ends), share=share, wanted=5)
    wide = LEFT + STEP * len(rows) + 12
    inside, track, said = "", [], []
    for place, tick in up.ticks:
        y = _y(place, up)
        inside += f'<line class="grid" x1="{LEFT}" x2="{wide - 12}" y1="{y:.1f}" y2="{y:.1f}"/>'
        inside += f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>'
    marks = ""
    for i, row in enumerate(rows):
        x, name = LEFT + STEP * (i + 0.5), clean(row.get("rung"), 14)
        value, low, high = (number(row.get(key)) for key in ("accuracy", "low", "high"))
        best = row.get("recommended") is True
        marks += f'<text class="{"best" if best else "name"}" x="{x:.1f}" y="{BOTTOM + 22}" text-anchor="middle">{plain(name)}</text>'
        for line, words in enumerate(_costs(row)):
            marks += f'<text x="{x:.1f}" y="{BOTTOM + 40 + 16 * line}" text-anchor="middle">{words}</text>'
        if value is None:
            why = plain(row.get("why") or "not tried", SENTENCE)
            marks += f'<circle class="hollow" cx="{x:.1f}" cy="{BOTTOM - 8}" r="6"><title>{why}</title></circle>'
            continue
        y = _y(value, up)
        track.append(f"{x:.1f},{y:.1f}")
        if low is not None and high is not None:
            marks += f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{_y(high, up):.1f}" y2="{_y(low, up):.1f}"/>'
        tip = f"{plain(name)}: {_figure(value, share)}{_between(low, high, share)}"
        said.append(tip)
        marks += f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="5.5"><title>{tip}</title></circle>'
        above = y - 14 if high is None else min(y - 14, _y(high, up) - 9)
        marks += f'<text class="name" x="{x:.1f}" y="{above:.1f}" text-anchor="middle">{_figure(value, share)}</text>'
        if best:
            marks += f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="9.5"/>'
    inside += f'<polyline class="climb" points="{" ".join(track)}"/>' if len(track) > 1 else ""
    inside += f'<text x="8" y="12">{_called(facts)}, 95 % interval</text>'
    inside += f'<text x="{wide - 12}" y="{HIGH - 6}" text-anchor="end">from cheap to dear: seconds to train, then to run</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="ladder" viewBox="0 0 {wide} {HIGH}" width="{wide}" '
        f'height="{HIGH}" role="img" aria-labelledby="ladder-t ladder-d"><title id="ladder-t">The ladder, from cheap to '
        f'dear</title><desc id="ladder-d">{"; ".join(said)}.</desc><style>{STYLE}</style>'
        f'<rect class="paper" width="{wide}" height="{HIGH}"/>{inside}{marks}</svg>'
    )


def _y(value: float, up: Axis) -> float:
    return BOTTOM - (BOTTOM - TOP) * up.at(value) / 100


def _costs(row: Record) -> list[str]:
    """Two short lines: what it costs to train, and to run."""
    if row.get("tried") is not True:
        return ["not tried"]
    train, ms = number(row.get("seconds")), number(row.get("ms"))
    return [
        seconds(train) if train is not None and train > 0 else "",
        milliseconds(ms) if ms is not None and ms > 0 else "",
    ]


def _figure(value: float, share: bool) -> str:
    return percent(value) if share else f"{value:.3f}"


def _between(low: float | None, high: float | None, share: bool) -> str:
    if low is None or high is None:
        return ""
    return f" ({span(low, high) if share else f'{low:.3f} to {high:.3f}'})"


def page(facts: Mapping[str, Any]) -> str:
    """The advice as one self-contained HTML page; no network, no script."""
    best, called, took = record(facts.get("recommended")), kind(facts), number(facts.get("seconds"))
    name, judged = facts.get("data") or "advice", number(best.get("n"))
    said = [line for line in sequence(facts.get("sentences")) if isinstance(line, str) and line]
    under = [
        f"judged on {plural(judged, f'held-out {called.row}')}" if judged is not None else "",
        f"in {seconds(took)}" if took is not None and took >= 0 else "",
    ]
    header = f'<p class="over">Headstart: what to do with these {called.many}</p><h1>{show(name)}</h1>'
    header += f'<p class="under">{" · ".join(word for word in under if word)}</p>'
    header += f'<p class="verdict">{show(said[0], SENTENCE)}</p>' if said else ""
    more = [*said[1:], *(line for line in sequence(facts.get("warnings"))[:20] if isinstance(line, str))]
    lines = "".join(f"<li>{show(line, SENTENCE)}</li>" for line in more)
    header += f'<ul class="more">{lines}</ul>' if lines else ""
    drawn = picture(facts)
    how = p(
        "From left to right every rung costs more.",
        "Dots are what was measured on examples that were held out; the bars are 95 % intervals.",
        "A dashed circle was not tried; its reason is below.",
    )
    how += p(
        "A rung takes the place of a cheaper one only where it is better by more than the noise on the same examples."
    )
    body = section("ladder", "The ladder", how, box("The ladder", drawn) if drawn else "")
    order = p("Gain: over the rung below that was tried, in points, with its standard error.")
    body += section("rungs", "Every rung", order, _table(facts))
    body += _curve(facts)
    lines = "".join(
        f"<li>{show(row.get('rung'))}: {show(row.get('why'), SENTENCE)}</li>"
        for row in records(facts.get("not_tried"))[:SHOWN]
    )
    body += section(
        "not-tried", "What was not tried", p("And why."), f'<ul class="notes">{lines}</ul>' if lines else ""
    )
    return document(
        f"{plain(name)} – Headstart advise", header, body,
        "This page is complete in itself: it loads nothing and sends nothing.",
    )  # fmt: skip


def _table(facts: Mapping[str, Any]) -> str:
    """Every rung with its figures, from cheap to dear."""
    share, drawn = facts.get("task") != "regression", list[Strip]()
    for row in records(facts.get("rungs"))[:SHOWN]:
        value, low, high, gain, noise = (number(row.get(key)) for key in ("accuracy", "low", "high", "gain", "noise"))
        train, ms, mb = (number(row.get(key)) for key in ("seconds", "ms", "mb"))
        best, name = row.get("recommended") is True, show(row.get("rung"))
        notes = (
            (show(row.get("cut")), row.get("rung") in CUT and bool(row.get("cut"))),
            ("recommended", best),
            ("a tie with it", row.get("tie") is True),
            ("not tried", value is None),
        )
        said = ", ".join(note for note, holds in notes if holds)
        change = "" if gain is None else points(gain) if share else figure(gain)
        change += f" ± {100 * noise:.1f}" if noise is not None and share and change else ""
        cells = (
            _figure(value, share) if value is not None else "",
            _between(low, high, share).strip(" ()") if value is not None else "",
            change,
            seconds(train) if train is not None and train > 0 else "",
            milliseconds(ms) if ms is not None and ms > 0 else "",
            size(1e6 * mb) if mb is not None and mb > 0 else "",
        )
        name += f"<small><br>{said}</small>" if said else ""
        drawn.append(Strip(name, value, low, high, None, cells, "", strong=best, pale=value is None))
    ends = [each for row in drawn for each in (row.value, row.low, row.high) if each is not None]
    if not ends:
        return ""
    called = _called(facts)
    heads = ("rung", f"{called} and its interval", called, "95 % interval", "gain", "to train", "to run", "size")
    return strips("Rungs", heads, drawn, axis(min(ends), max(ends), share=share))


def _called(facts: Mapping[str, Any]) -> str:
    """What the figures are."""
    return {"regression": "R²", "multilabel": "F1 a row"}.get(str(facts.get("task")), "accuracy")


def _curve(facts: Mapping[str, Any]) -> str:
    """The learning curve, and the classes that more labels would help."""
    found = record(facts.get("curve"))
    known = [point for row in records(found.get("points")) if (point := _point(row)) is not None]
    if len(known) < 2 or any(a.n >= b.n for a, b in pairwise(known)):
        return ""
    doubled = _point(record(found.get("doubling")))
    drawn = curve(
        "advice-curve", known, doubled if doubled and doubled.n > known[-1].n else None, "Learning curve", "accuracy"
    )
    classes = "".join(
        f"<li>{show(row.get('label'))}: {percent(recall)} found</li>"
        for row in records(facts.get("classes"))[:SHOWN]
        if (recall := number(row.get("recall"))) is not None
    )
    how = p("How accuracy grew with labels, on a quick head, and where twice as many would lead.")
    how += p("The next labels help most with:") + f'<ul class="notes">{classes}</ul>' if classes else ""
    return section("curve", "What more labels would give", how, drawn)


def _point(row: Record) -> Point | None:
    n, value = number(row.get("n")), number(row.get("accuracy"))
    if n is None or n < 1 or value is None:
        return None
    return Point(n, value, number(row.get("low")), number(row.get("high")))
