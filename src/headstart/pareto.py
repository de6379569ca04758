"""Accuracy against cost of the candidates of a selection: the Pareto front, a picture of it, and a page around it.

A row is a candidate: {backbone, cut, accuracy, low, high, mb, ms, n, tie, note} and perhaps {licence, distance}; accuracy
and its interval are shares, ms is milliseconds an example, mb megabytes, tie whether it cannot be told apart from the
best. Names come from strangers: everything is cleaned and escaped, and a piece that is missing is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from headstart.report.pictures import Axis, Strip, axis, box, strips
from headstart.report.prose import fold, p, section
from headstart.report.shell import document
from headstart.report.words import (
    SENTENCE,
    Record,
    clean,
    kind,
    milliseconds,
    number,
    percent,
    plain,
    plural,
    record,
    records,
    seconds,
    sequence,
    show,
    size,
    span,
)

WIDE, HIGH = 720, 420  # of the picture, in its own units
LEFT, RIGHT, TOP, BOTTOM = 52, 708, 34, 372  # of the plot within it
EM = 6.9  # width of a letter of the labels, on the wide side; full-width ones take twice that
LINE = 15  # height of a label
AROUND = ((1, 0), (-1, 0), (0, -1), (0, 1), (0.7, -0.7), (0.7, 0.7), (-0.7, -0.7), (-0.7, 0.7), (0.4, -0.9), (0.4, 0.9),
          (-0.4, -0.9), (-0.4, 0.9))  # fmt: skip
AMBIGUOUS = 60  # what a name costs for each mark it is nearer to than to its own, in square units covered
NAMED = 34  # characters of a label in the picture
SHOWN = 200  # candidates in the table

# The colours are those of page.css, so that the picture stands by itself too.
STYLE = """
.pareto { display: block; width: 100%; min-width: 560px; max-width: 820px; height: auto; overflow: visible; }
.pareto { --paper: #fcfbf9; --ink: #1c2024; --soft: #565d65; --rule: #e2dfd9; --blue: #0067a3; --orange: #b34700; }
@media screen and (prefers-color-scheme: dark) {
.pareto { display: block; width: 100%; min-width: 560px; max-width: 820px; height: auto; overflow: visible; }
.pareto { --paper: #15181b; --ink: #e8e6e1; --soft: #a3a9b0; --rule: #2e3338; --blue: #6cbdf0; --orange: #f0a04b; } }
.pareto text { font: 12px system-ui, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; fill: var(--soft); }
.pareto .label { fill: var(--ink); paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round; }
.pareto .best { font-weight: 600; fill: var(--orange); }
.pareto .paper { fill: var(--paper); }
.pareto .grid { stroke: var(--rule); }
.pareto .front { fill: none; stroke: var(--blue); stroke-width: 1.5; }
.pareto .whisker { stroke: var(--soft); stroke-width: 1; stroke-opacity: .6; }
.pareto .lead { stroke: var(--soft); stroke-width: .75; }
.pareto .dot { fill: var(--blue); fill-opacity: .8; stroke: var(--paper); stroke-width: 1.5; }
.pareto .pale { fill: var(--soft); fill-opacity: .45; }
.pareto .ring { fill: none; stroke: var(--orange); stroke-width: 2.5; }
"""


@dataclass(frozen=True)
class _Mark:
    """A candidate in the picture; x, y and r in its units."""

    index: int
    x: float
    y: float
    r: float
    label: str  # cleaned, not escaped


@dataclass(frozen=True)
class _Box:
    """A rectangle that words or a mark take up."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: _Box) -> float:
        """The area that both cover."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, wide) * max(0.0, high)

    def gap(self, mark: _Mark) -> float:
        """How far a mark's edge is from here; below 0 where it reaches in."""
        x = min(max(mark.x, self.left), self.right)
        y = min(max(mark.y, self.top), self.bottom)
        return math.hypot(x - mark.x, y - mark.y) - mark.r


def front(rows: Sequence[Record]) -> list[int]:
    """Indices of the rows that no other dominates, the cheapest first, of equal ones in the order given.

    A row dominates another if it is at least as accurate and at least as quick (ms), and one of them strictly. Rows that
    lack either figure are neither on the front nor keep others off it.
    """
    known = [(ms, -accuracy, i) for i, row in enumerate(rows) if (place := _place(row)) for ms, accuracy in [place]]
    found: list[int] = []
    last: tuple[float, float] | None = None
    for ms, loss, i in sorted(known):
        if last is None or loss < last[1] or (ms, loss) == last:
            found.append(i)
            last = (ms, loss)
    return found


def _place(row: Record) -> tuple[float, float] | None:
    """(ms, accuracy) where both are known and a logarithm can be had."""
    ms, accuracy = number(row.get("ms")), number(row.get("accuracy"))
    return (ms, accuracy) if ms is not None and accuracy is not None and ms > 0 else None


def _name(row: Record) -> str:
    """A candidate in words, cleaned, not escaped: 'mobilenet at 7'."""
    cut = row.get("cut")
    return clean(row.get("backbone")) + (f" at {clean(cut)}" if cut else "")


def _same(row: Record, other: Record) -> bool:
    return all((row.get(key) or None) == (other.get(key) or None) for key in ("backbone", "cut"))


def _tip(row: Record) -> str:
    """What is known of a candidate, escaped."""
    low, high, mb = (number(row.get(key)) for key in ("low", "high", "mb"))
    ms, accuracy = _place(row) or (0.0, 0.0)
    between = f" ({span(low, high)})" if low is not None and high is not None else ""
    weight = f", {size(1e6 * mb)}" if mb is not None and mb >= 0 else ""
    return f"{plain(_name(row), 2 * NAMED)}: {percent(accuracy)}{between}, {milliseconds(ms)}{weight}"


def picture(rows: Sequence[Record], *, recommended: Record | None) -> str:
    """An SVG, complete in itself: accuracy with its intervals against milliseconds an example (log scale).

    The area of a dot is its size in MB; grey dots are known to be worse than the best. The Pareto front is a line; what
    is on it and the recommended candidate ({backbone, cut}) is named where there is room. Every dot has a tooltip, and
    the description lists the front. '' when no row has both figures.
    """
    best = front(rows)
    known = [i for i, row in enumerate(rows) if _place(row) is not None]
    if not known:
        return ""
    chosen = next((i for i in known if recommended and _same(rows[i], recommended)), None)
    across, up = _across(rows, known), _up(rows, known)
    marks = {i: _mark(i, rows, known, across, up) for i in known}
    whiskers = {i: ends for i in known if (ends := _whisker(rows[i], up)) is not None}
    inside = _frame(across, up, rows, known)
    for i, (top, bottom) in whiskers.items():
        inside += (
            f'<line class="whisker" x1="{marks[i].x:.1f}" x2="{marks[i].x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'
        )
    track = " ".join(f"{marks[i].x:.1f},{marks[i].y:.1f}" for i in best)
    inside += f'<polyline class="front" points="{track}"/>' if len(best) > 1 else ""
    for mark in sorted(marks.values(), key=lambda mark: -mark.r):  # small ones above large ones
        kind = "dot pale" if rows[mark.index].get("tie") is False and mark.index not in best else "dot"
        inside += (
            f'<circle class="{kind}" cx="{mark.x:.1f}" cy="{mark.y:.1f}" r="{mark.r:.1f}">'
            f"<title>{_tip(rows[mark.index])}</title></circle>"
        )
    if chosen is not None:
        at = marks[chosen]
        inside += f'<circle class="ring" cx="{at.x:.1f}" cy="{at.y:.1f}" r="{at.r + 4:.1f}"/>'
        marks[chosen] = replace(at, r=at.r + 5)  # names keep off the ring
    named = [*([chosen] if chosen is not None else []), *(i for i in reversed(best) if i != chosen)]
    for i, words in _labels(
        [marks[i] for i in named], list(marks.values()), whiskers, [marks[i] for i in best]
    ).items():
        inside += _label(marks[i], words, i == chosen)
    title = f"Accuracy against time of {plural(len(known), 'candidate')}"
    said = f"The Pareto front, from quick to accurate: {'; '.join(_tip(rows[i]) for i in best)}."
    if chosen is not None:
        said += f" Recommended: {plain(_name(rows[chosen]), 2 * NAMED)}."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="pareto" viewBox="0 0 {WIDE} {HIGH}" width="{WIDE}" '
        f'height="{HIGH}" role="img" aria-labelledby="pareto-t pareto-d"><title id="pareto-t">{title}</title>'
        f'<desc id="pareto-d">{said}</desc><style>{STYLE}</style>'
        f'<rect class="paper" width="{WIDE}" height="{HIGH}"/>{inside}</svg>'
    )


def _across(rows: Sequence[Record], known: Sequence[int]) -> Axis:
    """The axis of the logarithm of the milliseconds, with ticks at 1, 2 and 5 times powers of ten, or at powers alone."""
    logs = [math.log10(place[0]) for i in known if (place := _place(rows[i]))]
    low, high = min(logs), max(logs)
    room = max(0.16, 0.06 * (high - low))
    low, high = low - room, high + room
    steps: tuple[int, ...] = (1,) if high - low > 3 else (1, 2, 5) if high - low > 0.5 else (1, 2, 3, 4, 5, 6, 7, 8, 9)
    values = [m * 10.0**k for k in range(math.floor(low), math.ceil(high) + 1) for m in steps]
    ticks = [(math.log10(v), milliseconds(v)) for v in values if low <= math.log10(v) <= high]
    return Axis(low, high, ticks[:: max(1, math.ceil(len(ticks) / 9))])


def _up(rows: Sequence[Record], known: Sequence[int]) -> Axis:
    ends = [v for i in known for key in ("accuracy", "low", "high") if (v := number(rows[i].get(key))) is not None]
    return axis(min(ends), max(ends), share=True, wanted=5)


def _y(value: float, up: Axis) -> float:
    return BOTTOM - (BOTTOM - TOP) * up.at(value) / 100


def _mark(i: int, rows: Sequence[Record], known: Sequence[int], across: Axis, up: Axis) -> _Mark:
    ms, accuracy = _place(rows[i]) or (1.0, 0.0)
    most = max((mb for k in known if (mb := number(rows[k].get("mb"))) is not None), default=0.0)
    mb = number(rows[i].get("mb"))
    r = max(4.0, 15.0 * math.sqrt(max(0.0, mb) / most)) if mb is not None and most > 0 else 5.0
    x = LEFT + (RIGHT - LEFT) * across.at(math.log10(ms)) / 100
    return _Mark(i, x, _y(accuracy, up), r, clean(_name(rows[i]), NAMED))


def _whisker(row: Record, up: Axis) -> tuple[float, float] | None:
    low, high = number(row.get("low")), number(row.get("high"))
    return (_y(high, up), _y(low, up)) if low is not None and high is not None else None


def _frame(across: Axis, up: Axis, rows: Sequence[Record], known: Sequence[int]) -> str:
    """Grid, ticks and the names of the axes."""
    parts = ""
    for value, name in up.ticks:
        y = _y(value, up)
        parts += f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        parts += f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{name}</text>'
    for value, name in across.ticks:
        x = LEFT + (RIGHT - LEFT) * across.at(value) / 100
        parts += f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{BOTTOM}" y2="{BOTTOM + 5}"/>'
        parts += f'<text x="{x:.1f}" y="{BOTTOM + 20}" text-anchor="middle">{name}</text>'
    largest = max((mb for i in known if (mb := number(rows[i].get("mb"))) is not None), default=0.0)
    sizes = f"area of a dot: its size, at most {size(1e6 * largest)}" if largest > 0 else ""
    parts += (
        f'<text x="8" y="14">accuracy, 95 % interval</text><text x="{RIGHT}" y="14" text-anchor="end">{sizes}</text>'
    )
    return parts + f'<text x="{RIGHT}" y="{HIGH - 8}" text-anchor="end">time for one example, log scale</text>'


def _width(words: str) -> float:
    """How wide a label is at most, about."""
    return sum(2 * EM if ord(c) > 0x2E7F else EM for c in words)


def _labels(
    named: Sequence[_Mark],
    marks: Sequence[_Mark],
    whiskers: Mapping[int, tuple[float, float]],
    best: Sequence[_Mark],
) -> dict[int, _Box]:
    """Where the names go, by index, the first first: never over each other, seldom over marks; none where none fits."""
    busy = [_Box(m.x - m.r, m.y - m.r, m.x + m.r, m.y + m.r) for m in marks]
    busy += [_Box(m.x - 1, whiskers[m.index][0], m.x + 1, whiskers[m.index][1]) for m in marks if m.index in whiskers]
    for a, b in pairwise(best):  # the line, as a string of beads
        beads = max(1, int(math.hypot(b.x - a.x, b.y - a.y) / 8))
        for k in range(beads):
            x, y = a.x + (b.x - a.x) * k / beads, a.y + (b.y - a.y) * k / beads
            busy.append(_Box(x - 2, y - 2, x + 2, y + 2))
    placed: dict[int, _Box] = {}
    for mark in named:
        tried: list[tuple[float, int, _Box]] = []
        for place, away in _around(mark):
            if place.left < LEFT or place.right > WIDE - 4 or place.top < TOP - 14 or place.bottom > BOTTOM - 2:
                continue
            if any(place.overlap(other) > 0 for other in placed.values()):
                continue
            mine = place.gap(mark)  # nearer to another mark it would be read as that one's name
            lost = AMBIGUOUS * sum(place.gap(other) < mine + 3 for other in marks if other.index != mark.index)
            tried.append((sum(place.overlap(other) for other in busy) + 3 * away + lost, len(tried), place))
        if tried:
            placed[mark.index] = min(tried)[2]
    return placed


def _around(mark: _Mark) -> list[tuple[_Box, float]]:
    """Places for a mark's name, and how far away each is: to its right first, then round it, farther and farther."""
    wide, found = _width(mark.label), []
    for away in (6, 14, 26, 42, 60, 84, 112):
        far = mark.r + away
        for x, y in AROUND:
            middle, across = mark.y + far * y, mark.x + far * x
            left = across if x > 0 else across - wide if x < 0 else across - wide / 2
            found.append((_Box(left, middle - LINE / 2, left + wide, middle + LINE / 2), float(away)))
    return found


def _label(mark: _Mark, place: _Box, chosen: bool) -> str:
    middle = (place.top + place.bottom) / 2
    anchor, x = (
        ("start", place.left) if place.left >= mark.x else ("end", place.right) if place.right <= mark.x else ("", 0)
    )
    if not anchor:
        anchor, x = "middle", (place.left + place.right) / 2
    lead = ""
    if place.gap(mark) > 10:
        end = min(max(mark.x, place.left), place.right), min(max(mark.y, place.top), place.bottom)
        lead = f'<line class="lead" x1="{mark.x:.1f}" y1="{mark.y:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"/>'
    kind = "label best" if chosen else "label"
    words = plain(mark.label)
    return f'{lead}<text class="{kind}" x="{x:.1f}" y="{middle + 4:.1f}" text-anchor="{anchor}">{words}</text>'


def page(facts: Mapping[str, Any]) -> str:
    """A selection as one self-contained HTML page: the recommendation, the picture, every candidate, what was left out.

    facts: {data, candidates, recommended {backbone, cut, why}, excluded [{backbone, why}], seconds, warnings} and perhaps
    modality. Pieces that are missing, null or of an unexpected shape are left out; no network, no script.
    """
    rows, chosen, called = records(facts.get("candidates"))[:SHOWN], record(facts.get("recommended")), kind(facts)
    took, judged = (
        number(facts.get("seconds")),
        [n for row in rows if (n := number(row.get("n"))) is not None and n > 0],
    )
    name = facts.get("data") or "a choice"
    under = [
        plural(len(rows), "candidate"),
        f"judged on {plural(max(judged), f'held-out {called.row}')}" if judged else "",
        f"in {seconds(took)}" if took is not None and took >= 0 else "",
    ]
    header = f'<p class="over">Headstart: which backbone to start from</p><h1>{show(name)}</h1>'
    header += f'<p class="under">{" · ".join(word for word in under if word)}</p>'
    if chosen.get("backbone"):
        cut = f" at cut {show(chosen['cut'])}" if chosen.get("cut") else ""
        header += f'<p class="verdict">Start from {show(chosen["backbone"])}{cut}.</p>'
    more = [chosen.get("why"), *sequence(facts.get("warnings"))[:20]]
    said = "".join(f"<li>{show(each, SENTENCE)}</li>" for each in more if isinstance(each, str) and each)
    header += f'<ul class="more">{said}</ul>' if said else ""
    drawn = picture(rows, recommended=chosen)
    how = p(
        "Each dot is a candidate: up is more accurate, left is quicker.",
        "The lines through the dots are 95 % intervals; where they overlap a lot, the candidates cannot be told apart.",
    )
    how += p(
        "The <dfn>Pareto front</dfn> is the line: for every other candidate there is one that is as accurate and as quick,",
        "and better in one of them. Grey dots are off it and worse than the best by more than chance.",
    )
    body = section("front", "Accuracy against time", how, box("Accuracy against time", drawn) if drawn else "")
    order = p("The most accurate first.", "May be as good: not to be told from the best by so few examples.")
    body += section("all", "All candidates", order, _table(rows, chosen))
    fit = p("Where the network comes from, and how near your data are to what it has seen.")
    body += section("known", "What is known of them", fit, _known(rows))
    lines = ""
    left_out = records(facts.get("excluded"))
    for row in left_out[:SHOWN]:
        lines += f"<li>{show(row.get('backbone'))}: {show(row.get('why'), SENTENCE)}</li>"
    lines = f'<ul class="notes">{lines}</ul>' if lines else ""
    if len(left_out) > 12:
        lines = fold(plural(len(left_out), "backbone"), lines)
    body += section(
        "left-out", "What was left out", p("Backbones that were not tried, or dropped on the way, and why."), lines
    )
    return document(
        f"{plain(name)} – Headstart select",
        header,
        body,
        "This page is complete in itself: it loads nothing and sends nothing.",
    )


def _table(rows: Sequence[Record], chosen: Record) -> str:
    """Every candidate, the most accurate first."""
    best = {id(rows[i]) for i in front(rows)}
    drawn = []
    for row in rows:
        value, low, high, ms, mb = (number(row.get(key)) for key in ("accuracy", "low", "high", "ms", "mb"))
        if value is None:
            continue
        mine = _same(row, chosen)
        said = (("recommended", mine), ("on the front", id(row) in best), ("may be as good", row.get("tie") is True))
        marks = ", ".join(word for word, holds in said if holds)
        cells = (
            percent(value),
            span(low, high) if low is not None and high is not None else "",
            milliseconds(ms) if ms is not None and ms >= 0 else "",
            size(1e6 * mb) if mb is not None and mb >= 0 else "",
            show(row["licence"]) if row.get("licence") else "",
        )
        name = show(row.get("backbone")) + (f" <small>at {show(row['cut'])}</small>" if row.get("cut") else "")
        name += f"<small><br>{marks}</small>" if marks else ""
        drawn.append(Strip(name, value, low, high, None, cells, "", strong=mine, pale=row.get("tie") is False))
    if not drawn:
        return ""
    drawn.sort(key=lambda strip: -(strip.value or 0.0))
    ends = [each for row in drawn for each in (row.value, row.low, row.high) if each is not None]
    heads = ("backbone", "accuracy and its interval", "accuracy", "95 % interval", "time", "size", "licence")
    return strips("Candidates", heads, drawn, axis(min(ends), max(ends), share=True))


def _known(rows: Sequence[Record]) -> str:
    """What is said of the backbones, each sentence once; with the cuts where it is not said of all of them."""
    cuts: dict[str, list[str]] = {}  # of each backbone
    said: dict[tuple[str, str], list[str]] = {}  # (backbone, sentence) -> cuts
    for row in rows:
        name, cut = show(row.get("backbone")), show(row["cut"]) if row.get("cut") else ""
        cuts.setdefault(name, []).append(cut)
        for key in ("distance", "note"):
            if row.get(key):
                said.setdefault((name, show(row[key], SENTENCE)), []).append(cut)
    lines = ""
    for (name, sentence), where in said.items():
        some = f" at {', '.join(where)}" if len(where) < len(cuts[name]) and all(where) else ""
        lines += f"<li><strong>{name}</strong>{some}: {sentence}</li>"
    return f'<ul class="notes">{lines}</ul>' if lines else ""
