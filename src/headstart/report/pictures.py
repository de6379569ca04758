"""Pictures: numbers in, HTML and SVG out.

Two families. A *strip* is a row of a table with a mark on a shared axis; the table holds the same numbers as text, so
the strip itself is hidden from screen readers. A *plot* is a stand-alone SVG with a title and a description.

All SVG here is laid out in percentages of its box and pixels of type, so a picture narrows to a phone without its words
shrinking; lines that need a path live in a nested SVG stretched over the box. Strings passed in are already escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from headstart.report.words import THIN, count, figure, percent

Ticks = Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Axis:
    """A linear axis from `low` to `high` with its ticks."""

    low: float
    high: float
    ticks: Ticks

    def at(self, value: float) -> float:
        """Where a value lies, in percent of the axis, clipped to its ends."""
        return 100 * min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


SHARE = Axis(0.0, 1.0, [(0, "0"), (0.25, "25"), (0.5, "50"), (0.75, "75"), (1, f"100{THIN}%")])


def axis(low: float, high: float, *, share: bool = False, wanted: int = 4) -> Axis:
    """An axis around [low, high] in about `wanted` round steps (1, 2 or 5 times a power of ten).

    With `share` the ticks are percentages and the axis stays within 0 and 1.
    """
    if share:
        low, high = min(1.0, max(0.0, low)), min(1.0, max(0.0, high))
    if high - low < 1e-6 * max(1.0, abs(high)):
        low, high = low - 0.02 * max(0.5, abs(low)), high + 0.02 * max(0.5, abs(high))
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    values = [k * step for k in range(first, last + 1)]
    if share:
        values = [v for v in values if -1e-9 < v < 1 + 1e-9]
    digits = max(0, -math.floor(math.log10(step) + (2 if share else 0) + 1e-9))
    names = [f"{100 * v if share else v:,.{digits}f}".replace("-", "−") for v in values]
    if share:
        names[-1] += f"{THIN}%"
    return Axis(values[0], values[-1], list(zip(values, names, strict=True)))


def _p(percentage: float) -> str:
    """A percentage as short as it can be: '12.5%'."""
    return f"{percentage:.2f}".rstrip("0").rstrip(".") + "%"


def _text(kind: str, x: float, y: str, words: str, more: str = "", anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{_p(x)}" y="{y}" text-anchor="{anchor}"{more}>{words}</text>'


def _vertical(kind: str, x: float, y1: str, y2: str, more: str = "") -> str:
    return f'<line class="{kind}" x1="{_p(x)}" x2="{_p(x)}" y1="{y1}" y2="{y2}"{more}/>'


def _dot(kind: str, x: float, y: str, r: float, tip: str = "") -> str:
    inside = f"><title>{tip}</title></circle>" if tip else "/>"
    return f'<circle class="{kind}" cx="{_p(x)}" cy="{y}" r="{r:.3g}"{inside}'


def _outward(at: float) -> str:
    """The anchor that keeps words inside the box at its ends."""
    return "start" if at < 2 else "end" if at > 98 else "middle"


def box(name: str, inside: str) -> str:
    """A box that scrolls sideways by itself, so that the page never does."""
    return f'<div class="scroll" role="group" tabindex="0" aria-label="{name}">{inside}</div>'


@dataclass(frozen=True)
class Strip:
    """One row: a name, a mark at `value`, its interval, perhaps a hollow second mark, and further cells of text."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    second: float | None = None
    cells: tuple[str, ...] = ()
    tip: str = ""
    strong: bool = False
    pale: bool = False


def strips(
    caption: str,
    heads: Sequence[str],
    rows: Sequence[Strip],
    along: Axis = SHARE,
    *,
    line: float | None = None,
    bar: bool = False,
) -> str:
    """A table of strips on one axis. heads: the name column, the strip column, then one for each further cell.

    `line` draws a dashed line at a value in every row; `bar` draws bars from the start of the axis instead of dots.
    """
    first, second, *others = heads
    head = f'<th scope="col">{first}</th><th scope="col" class="wide">{second}</th>'
    head += "".join(f'<th scope="col">{name}</th>' for name in others)
    body = ""
    for row in rows:
        kind = " class=strong" if row.strong else " class=pale" if row.pale else ""
        cells = "".join(f"<td>{cell}</td>" for cell in row.cells)
        body += f'<tr{kind}><th scope="row">{row.name}</th><td>{_strip(row, along, line, bar)}</td>{cells}</tr>'
    ticks = along.ticks if len(along.ticks) < 4 else along.ticks[:: max(1, (len(along.ticks) - 1) // 2)]
    if len(along.ticks) % 2 == 0:  # no tick in the middle
        ticks = [along.ticks[0], along.ticks[-1]]
    words = "".join(_text("axis", at, "12", name, anchor=_outward(at)) for v, name in ticks for at in (along.at(v),))
    foot = f'<td></td><td><svg class="ticks">{words}</svg></td>{"<td></td>" * len(others)}'
    return box(
        caption,
        f'<table class="strips"><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
        f'<tbody>{body}</tbody><tfoot aria-hidden="true"><tr>{foot}</tr></tfoot></table>',
    )


def _strip(row: Strip, along: Axis, line: float | None, bar: bool) -> str:
    marks = f"<title>{row.tip}</title>" if row.tip else ""
    marks += '<line class="track" x1="0" x2="100%" y1="11" y2="11"/>'
    if line is not None:
        marks += _vertical("base", along.at(line), "0", "22")
    if row.low is not None and row.high is not None:
        start, wide = along.at(row.low), along.at(row.high) - along.at(row.low)
        marks += f'<rect class="band" x="{_p(start)}" width="{_p(max(wide, 0.4))}" y="5" height="12" rx="3"/>'
    if row.second is not None:
        marks += _dot("hollow", along.at(row.second), "11", 4)
    if row.value is not None and bar:
        marks += f'<rect class="bar" width="{_p(along.at(row.value))}" y="6" height="10" rx="2"/>'
    elif row.value is not None:
        marks += _dot("dot", along.at(row.value), "11", 4.5)
    return f'<svg class="strip" aria-hidden="true">{marks}</svg>'


def _plot(kind: str, ident: str, title: str, said: str, inside: str) -> str:
    return (
        f'<svg class="plot {kind}" role="img" aria-labelledby="{ident}-t {ident}-d">'
        f'<title id="{ident}-t">{title}</title><desc id="{ident}-d">{said}</desc>{inside}</svg>'
    )


def gauge(
    ident: str, value: float, low: float | None, high: float | None, base: tuple[float, str] | None, title: str
) -> str:
    """The headline: a share on an axis from 0 to 100 %, its interval, and the baseline it has to beat, if any."""
    parts = '<line class="track" x1="0" x2="100%" y1="34" y2="34"/>'
    for v, name in SHARE.ticks:
        at = SHARE.at(v)
        parts += _vertical("tick", at, "47", "52") + _text("axis", at, "66", name, anchor=_outward(at))
    said = f"{title}: {percent(value)}."
    if base is not None:
        at = SHARE.at(base[0])
        anchor, shift = ("start", 7) if base[0] < 0.5 else ("end", -7)
        parts += _vertical("base", at, "20", "90") + _text("note", at, "90", base[1], f' dx="{shift}"', anchor)
        said += f" {base[1]}."
    if low is not None and high is not None:
        start, end = SHARE.at(low), SHARE.at(high)
        wide = _p(max(end - start, 0.5))
        parts += f'<rect class="band" x="{_p(start)}" width="{wide}" y="22" height="24" rx="5"/>'
        parts += _text("end", start, "15", f"{100 * low:.1f}", anchor="start" if start < 8 else "end")
        parts += _text("end", end, "15", f"{100 * high:.1f}", anchor="start")
        said += f" 95 % interval from {percent(low)} to {percent(high)}."
    parts += _dot("dot", SHARE.at(value), "34", 7)
    return _plot("gauge", ident, title, said, parts)


def _frame(up: Axis, across: Ticks, x_name: str, y_name: str) -> str:
    """Grid, tick words and axis names; the padding of the box holds the words. across: (percent of the width, word)."""
    parts = ""
    for value, name in up.ticks:
        y = _p(100 - up.at(value))
        parts += f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
        parts += f'<text class="axis" x="-8" y="{y}" dy=".32em" text-anchor="end">{name}</text>'
    for at, name in across:
        parts += _text("axis", at, "100%", name, ' dy="18"')
    parts += f'<text class="name" x="-8" y="0" dy="-16" text-anchor="start">{y_name}</text>'
    return parts + _text("name", 100, "100%", x_name, ' dy="37"', "end")


@dataclass(frozen=True)
class Point:
    """A point of the learning curve: `value` reached with `n` labelled examples."""

    n: float
    value: float
    low: float | None
    high: float | None

    def says(self, word: str) -> str:
        """What a tooltip tells."""
        between = (
            f", interval {percent(self.low)} to {percent(self.high)}"
            if self.low is not None and self.high is not None
            else ""
        )
        return f"{count(self.n)} labelled examples: {percent(self.value)} {word}{between}"


def curve(ident: str, known: Sequence[Point], doubled: Point | None, title: str, y_name: str) -> str:
    """The learning curve over the logarithm of n, its band, and the point expected at twice the labels.

    known: at least two points, n rising; their values are shares.
    """
    every = [*known, *([doubled] if doubled else [])]
    ends = [v for p in every for v in (p.low, p.value, p.high) if v is not None]
    up = axis(min(ends), max(ends), share=True)
    first, last = math.log(every[0].n), math.log(every[-1].n)

    def x(p: Point) -> float:
        return 3 + 94 * (math.log(p.n) - first) / (last - first) if last > first else 50.0

    def y(value: float) -> float:
        return 100 - up.at(value)

    def track(marks: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{a:.2f},{b:.2f}" for a, b in marks)

    ticks: list[tuple[float, str]] = []
    for p in reversed(every):  # from the right, leaving out words that would touch
        if not ticks or ticks[-1][0] - x(p) > 14:
            ticks.append((x(p), count(p.n) + (" (2×)" if p is doubled else "")))
    top = [(x(p), y(p.high)) for p in known if p.high is not None]
    bottom = [(x(p), y(p.low)) for p in known if p.low is not None]
    lines = f'<polygon class="band" points="{track([*top, *reversed(bottom)])}"/>' if len(top) > 1 else ""
    lines += f'<polyline class="line" points="{track([(x(p), y(p.value)) for p in known])}"/>'
    dots = "".join(_dot("dot", x(p), _p(y(p.value)), 4.5, p.says("measured")) for p in known)
    said = "; ".join(f"{percent(p.value)} with {count(p.n)} labelled examples" for p in known) + "."
    if doubled is not None:
        end = (x(doubled), y(doubled.value))
        lines += f'<polyline class="line guess" points="{track([(x(known[-1]), y(known[-1].value)), end])}"/>'
        if doubled.low is not None and doubled.high is not None:
            dots += _vertical("whisker", end[0], _p(y(doubled.low)), _p(y(doubled.high)))
        dots += _dot("hollow", end[0], _p(end[1]), 5.5, doubled.says("expected"))
        said += f" Expected with {count(doubled.n)}: {percent(doubled.value)}."
    stretched = f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">{lines}</svg>'
    frame = _frame(up, ticks, "labelled examples, log scale", y_name)
    return f'<div class="padded">{_plot("curve", ident, title, said, frame + stretched + dots)}</div>'


@dataclass(frozen=True)
class Bin:
    """Answers given with about the same probability: how many, how sure they were, how often right."""

    n: float
    confidence: float
    accuracy: float


DIAGONAL = '<line class="base" x1="0" y1="100%" x2="100%" y2="0"/>'


def reliability(ident: str, bins: Sequence[Bin]) -> str:
    """How often answers were right against how sure they were; on the diagonal, a probability means what it says."""
    most = max(b.n for b in bins)
    marks, said = "", []
    for b in bins:
        x, y = SHARE.at(b.confidence), _p(100 - SHARE.at(b.accuracy))
        said.append(f"{percent(b.confidence)} sure, right in {percent(b.accuracy)} of {count(b.n)}")
        marks += _vertical("gap", x, _p(100 - x), y) + _dot("dot", x, y, 3.5 + 7 * math.sqrt(b.n / most), said[-1])
    ticks = [(SHARE.at(v), name) for v, name in SHARE.ticks]
    frame = _frame(SHARE, ticks, "how sure it was", "how often it was right")
    inside = _plot("square", ident, "Reliability", "; ".join(said) + ".", frame + DIAGONAL + marks)
    return f'<div class="padded square">{inside}</div>'


def scatter(ident: str, pairs: Sequence[tuple[float, float]]) -> str:
    """Predicted against true numbers, (true, predicted), on equal axes; on the diagonal a prediction is exact."""
    every = [v for pair in pairs for v in pair]
    both = axis(min(every), max(every))
    marks = "".join(f'<circle cx="{_p(both.at(t))}" cy="{_p(100 - both.at(p))}" r="3"/>' for t, p in pairs)
    trues = [t for t, _ in pairs]
    said = f"{count(len(pairs))} rows, true values from {figure(min(trues))} to {figure(max(trues))}."
    frame = _frame(both, [(both.at(v), name) for v, name in both.ticks], "true", "predicted")
    inside = _plot("square", ident, "Predicted against true", said, f'{frame}{DIAGONAL}<g class="cloud">{marks}</g>')
    return f'<div class="padded square">{inside}</div>'


SHADES = 8  # of each hue, written out in page.css


def heat(
    caption: str,
    labels: Sequence[str],
    tips: Sequence[str],
    counts: Sequence[Sequence[float]],
    rest: Sequence[float] | None,
) -> str:
    """A confusion table: rows are true, columns predicted; shades are shares of the row (blue right, orange wrong).

    labels: as shown; tips: the same for attributes; counts: (c, c); rest: mistakes of each row outside the table, shown
    as a last column, or None.
    """
    head = "".join(f'<th scope="col"><span>{label}</span></th>' for label in labels)
    head += '<th scope="col"><span>elsewhere</span></th>' if rest is not None else ""
    body = ""
    for i, row in enumerate(counts):
        total = sum(row) + (rest[i] if rest is not None else 0)
        cells = "".join(_cell(v, total, i == j) for j, v in enumerate(row))
        cells += _cell(rest[i], total, False) if rest is not None else ""
        body += f'<tr><th scope="row" title="{tips[i]}">{labels[i]}</th>{cells}</tr>'
    corner = "<td>answer →<br>true ↓</td>"
    kind = "heat dense" if len(labels) > 12 else "heat"
    return box(
        caption,
        f'<table class="{kind}"><caption>{caption}</caption><thead><tr>{corner}{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>",
    )


def _cell(value: float, total: float, right: bool) -> str:
    if value <= 0 or total <= 0:
        return "<td>0</td>" if right else "<td></td>"
    share = value / total
    shade = min(SHADES, max(1, math.ceil(SHADES * (share if right else math.sqrt(share)))))  # small mistakes show too
    return f'<td class="{"r" if right else "w"}{shade}">{count(value)}</td>'
