"""Pictures: numbers in, HTML and SVG out.

Two families. A *strip* is a row of a table with a mark on a shared axis; the table holds the same numbers as text, so
the strip itself is hidden from screen readers. A *plot* is a stand-alone SVG with a title and a description.

All SVG here is laid out in percentages of its box and pixels of type, so a picture narrows to a phone without its words
shrinking: lines that need a path live in a nested SVG stretched over the box. Arguments named `name`, `cells`, `title`,
`tip` and so on are already escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from headstart.report.words import count, figure, percent

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


SHARE = Axis(0.0, 1.0, [(0, "0"), (0.25, "25"), (0.5, "50"), (0.75, "75"), (1, "100 %")])


def axis(low: float, high: float, *, share: bool = False, wanted: int = 4, floor: float = -math.inf) -> Axis:
    """An axis around [low, high] with about `wanted` round steps of 1, 2 or 5 times a power of ten.

    With `share` the ticks are percentages and the axis stays within 0 and 1; it never starts below `floor`.
    """
    if share:
        low, high, floor = max(0.0, low), min(1.0, high), 0.0
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.02 * max(0.5, abs(low)), high + 0.02 * max(0.5, abs(high))
    raw = (high - low) / wanted
    step = next(
        m * 10 ** math.floor(math.log10(raw)) for m in (1, 2, 5, 10) if m * 10 ** math.floor(math.log10(raw)) >= raw
    )
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    values = [
        k * step for k in range(first, last + 1) if k * step >= floor - 1e-12 and not (share and k * step > 1 + 1e-9)
    ]
    digits = max(0, -math.floor(math.log10(step) + (2 if share else 0) + 1e-9))
    names = [f"{100 * v:.{digits}f}" if share else f"{v:,.{digits}f}".replace("-", "−") for v in values]
    if share:
        names[-1] += " %"
    return Axis(values[0], values[-1], list(zip(values, names, strict=True)))


def _p(percentage: float) -> str:
    """A percentage as short as it can be: '12.5%'."""
    return f"{percentage:.2f}".rstrip("0").rstrip(".") + "%"


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


def _strip(row: Strip, along: Axis, line: float | None, bar: bool) -> str:
    marks = ['<line class="track" x1="0" x2="100%" y1="11" y2="11"/>']
    if line is not None:
        marks.append(f'<line class="base" x1="{_p(along.at(line))}" x2="{_p(along.at(line))}" y1="0" y2="22"/>')
    if row.low is not None and row.high is not None:
        start, end = along.at(row.low), along.at(row.high)
        marks.append(
            f'<rect class="band" x="{_p(start)}" width="{_p(max(end - start, 0.4))}" y="5" height="12" rx="3"/>'
        )
    if row.second is not None:
        marks.append(f'<circle class="hollow" cx="{_p(along.at(row.second))}" cy="11" r="4"/>')
    if row.value is not None:
        where = _p(along.at(row.value))
        marks.append(
            f'<rect class="bar" width="{where}" y="6" height="10" rx="2"/>'
            if bar
            else f'<circle class="dot" cx="{where}" cy="11" r="4.5"/>'
        )
    tip = f"<title>{row.tip}</title>" if row.tip else ""
    return f'<svg class="strip" aria-hidden="true">{tip}{"".join(marks)}</svg>'


def strips(
    caption: str,
    heads: Sequence[str],
    rows: Sequence[Strip],
    along: Axis = SHARE,
    *,
    line: float | None = None,
    bar: bool = False,
    ticks: bool = True,
) -> str:
    """A table of strips. `heads`: the name column, the strip column, then one for each further cell."""
    head = "".join(f'<th scope="col"{" class=wide" if i == 1 else ""}>{name}</th>' for i, name in enumerate(heads))
    body = "".join(
        f'<tr{" class=strong" if row.strong else ""}><th scope="row">{row.name}</th><td>{_strip(row, along, line, bar)}</td>'
        + "".join(f"<td>{cell}</td>" for cell in row.cells)
        + "</tr>"
        for row in rows
    )
    foot = ""
    if ticks:
        words = "".join(_tick(along.at(v), name) for v, name in along.ticks)
        foot = (
            f'<tfoot aria-hidden="true"><tr><td></td><td><svg class="ticks">{words}</svg></td>'
            f"{'<td></td>' * (len(heads) - 2)}</tr></tfoot>"
        )
    table = f'<table class="strips"><caption>{caption}</caption><thead><tr>{head}</tr></thead>{foot}<tbody>{body}</tbody></table>'
    return box(caption, table)


def _tick(at: float, name: str) -> str:
    anchor = "start" if at < 2 else "end" if at > 98 else "middle"
    return f'<text x="{_p(at)}" y="12" text-anchor="{anchor}">{name}</text>'


def gauge(
    ident: str, value: float, low: float | None, high: float | None, base: tuple[float, str] | None, title: str
) -> str:
    """The headline: a share on an axis from 0 to 100 %, its interval, and the baseline it has to beat."""
    parts = [
        '<line class="track" x1="0" x2="100%" y1="34" y2="34"/>',
        *(f'<line class="tick" x1="{_p(100 * v)}" x2="{_p(100 * v)}" y1="46" y2="51"/>' for v, _ in SHARE.ticks),
        *(
            f'<text class="axis" x="{_p(100 * v)}" y="65" text-anchor="{"start" if v == 0 else "end" if v == 1 else "middle"}">{n}</text>'
            for v, n in SHARE.ticks
        ),
    ]
    said = f"{title}: {percent(value)}"
    if base is not None:
        at, anchor, shift = SHARE.at(base[0]), *(("start", "6") if base[0] < 0.5 else ("end", "-6"))
        parts.append(f'<line class="base" x1="{_p(at)}" x2="{_p(at)}" y1="16" y2="88"/>')
        parts.append(f'<text class="note" x="{_p(at)}" dx="{shift}" y="88" text-anchor="{anchor}">{base[1]}</text>')
        said += f". {base[1]}"
    if low is not None and high is not None:
        start, end = SHARE.at(low), SHARE.at(high)
        parts.append(
            f'<rect class="band" x="{_p(start)}" width="{_p(max(end - start, 0.5))}" y="23" height="22" rx="5"/>'
        )
        parts.append(f'<text class="end" x="{_p(start)}" y="15" text-anchor="end">{100 * low:.1f}</text>')
        parts.append(f'<text class="end" x="{_p(end)}" y="15" text-anchor="start">{100 * high:.1f}</text>')
        said += f". 95 % interval from {percent(low)} to {percent(high)}"
    parts.append(f'<circle class="dot" cx="{_p(SHARE.at(value))}" cy="34" r="7"/>')
    return _svg("gauge", ident, title, said + ".", "".join(parts))


def _svg(kind: str, ident: str, title: str, said: str, inside: str) -> str:
    return (
        f'<svg class="plot {kind}" role="img" aria-labelledby="{ident}-t {ident}-d">'
        f'<title id="{ident}-t">{title}</title><desc id="{ident}-d">{said}</desc>{inside}</svg>'
    )


def _frame(across: Axis, up: Axis, x_name: str, y_name: str, x_ticks: Ticks | None = None) -> str:
    """Grid, tick words and axis names of a plot; the box's padding holds the words."""
    parts = []
    for value, name in up.ticks:
        y = _p(100 - up.at(value))
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="axis" x="-8" y="{y}" dy=".32em" text-anchor="end">{name}</text>')
    for value, name in across.ticks if x_ticks is None else x_ticks:
        at = across.at(value) if x_ticks is None else value
        parts.append(f'<line class="tick" x1="{_p(at)}" x2="{_p(at)}" y1="100%" y2="100%" transform="translate(0 5)"/>')
        parts.append(f'<text class="axis" x="{_p(at)}" y="100%" dy="18" text-anchor="middle">{name}</text>')
    parts.append(f'<text class="name" x="-8" y="0" dy="-14" text-anchor="start">{y_name}</text>')
    parts.append(f'<text class="name" x="100%" y="100%" dy="36" text-anchor="end">{x_name}</text>')
    return "".join(parts)


@dataclass(frozen=True)
class Point:
    """A point of the learning curve: `value` reached with `n` labelled examples."""

    n: float
    value: float
    low: float | None
    high: float | None


def curve(ident: str, known: Sequence[Point], doubled: Point | None, *, share: bool, title: str, y_name: str) -> str:
    """The learning curve over the logarithm of n, its band, and the point expected at twice the labels."""
    every = [*known, *([doubled] if doubled else [])]
    lows = [p.low if p.low is not None else p.value for p in every]
    highs = [p.high if p.high is not None else p.value for p in every]
    up = axis(min(lows), max(highs), share=share)
    first, last = math.log(every[0].n), math.log(every[-1].n)
    place = {p.n: 3 + 94 * (math.log(p.n) - first) / (last - first) if last > first else 50.0 for p in every}
    number = percent if share else figure

    def level(value: float) -> float:
        return 100 - up.at(value)

    ticks: list[tuple[float, str]] = []
    for p in reversed(every):  # from the right, dropping words that would touch
        if not ticks or ticks[-1][0] - place[p.n] > 11:
            ticks.append((place[p.n], count(p.n)))

    def track(marks: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{x:.2f},{y:.2f}" for x, y in marks)

    top = [(place[p.n], level(p.high)) for p in known if p.high is not None]
    bottom = [(place[p.n], level(p.low)) for p in known if p.low is not None]
    lines = f'<polygon class="band" points="{track([*top, *reversed(bottom)])}"/>' if len(top) > 1 else ""
    lines += f'<polyline class="line" points="{track([(place[p.n], level(p.value)) for p in known])}"/>'
    parts = []
    said = "; ".join(f"{number(p.value)} with {count(p.n)} labelled examples" for p in known)
    if doubled is not None:
        x, y = place[doubled.n], level(doubled.value)
        lines += (
            f'<polyline class="line guess" points="{track([(place[known[-1].n], level(known[-1].value)), (x, y)])}"/>'
        )
        if doubled.low is not None and doubled.high is not None:
            parts.append(
                f'<line class="whisker" x1="{_p(x)}" x2="{_p(x)}" y1="{_p(level(doubled.low))}" y2="{_p(level(doubled.high))}"/>'
            )
        parts.append(
            f'<circle class="hollow" cx="{_p(x)}" cy="{_p(y)}" r="5.5">{_tip(doubled, number, "expected")}</circle>'
        )
        said += f". Expected with {count(doubled.n)}: {number(doubled.value)}"
    for p in known:
        parts.append(
            f'<circle class="dot" cx="{_p(place[p.n])}" cy="{_p(level(p.value))}" r="4.5">{_tip(p, number, "measured")}</circle>'
        )
    stretched = f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">{lines}</svg>'
    frame = _frame(up, up, "labelled examples (each step to the right multiplies)", y_name, ticks)
    return f'<div class="padded">{_svg("curve", ident, title, said + ".", frame + stretched + "".join(parts))}</div>'


def _tip(p: Point, number: object, word: str) -> str:
    assert callable(number)
    interval = f", interval {number(p.low)} to {number(p.high)}" if p.low is not None and p.high is not None else ""
    return f"<title>{count(p.n)} labelled examples: {number(p.value)} {word}{interval}</title>"


@dataclass(frozen=True)
class Bin:
    """Answers given with a probability between `low` and `high`: how many, how sure they were, how often right."""

    low: float
    high: float
    n: float
    confidence: float
    accuracy: float


def reliability(ident: str, bins: Sequence[Bin]) -> str:
    """How often answers were right against how sure they were; on the diagonal, a probability means what it says."""
    most = max(b.n for b in bins)
    marks = ""
    for b in bins:
        x, y, exact = SHARE.at(b.confidence), 100 - SHARE.at(b.accuracy), 100 - SHARE.at(b.confidence)
        tip = f"<title>{count(b.n)} answers, sure to {percent(b.confidence)} on average, right in {percent(b.accuracy)}</title>"
        marks += f'<line class="gap" x1="{_p(x)}" x2="{_p(x)}" y1="{_p(exact)}" y2="{_p(y)}"/>'
        marks += f'<circle class="dot soft" cx="{_p(x)}" cy="{_p(y)}" r="{3.5 + 8 * math.sqrt(b.n / most):.1f}">{tip}</circle>'
    said = "; ".join(f"sure to {percent(b.confidence)}, right in {percent(b.accuracy)} of {count(b.n)}" for b in bins)
    diagonal = '<line class="base" x1="0" y1="100%" x2="100%" y2="0"/>'
    frame = _frame(SHARE, SHARE, "how sure it was", "how often it was right")
    return (
        f'<div class="padded square">{_svg("square", ident, "Reliability", said + ".", frame + diagonal + marks)}</div>'
    )


def scatter(ident: str, pairs: Sequence[tuple[float, float]]) -> str:
    """Predicted against true numbers on equal axes; on the diagonal a prediction is exact."""
    every = [v for pair in pairs for v in pair]
    both = axis(min(every), max(every))
    diagonal = '<line class="base" x1="0" y1="100%" x2="100%" y2="0"/>'
    marks = "".join(f'<circle cx="{_p(both.at(t))}" cy="{_p(100 - both.at(p))}" r="3"/>' for t, p in pairs)
    frame = _frame(both, both, "true", "predicted")
    said = f"{count(len(pairs))} held-out rows, true values from {figure(min(t for t, _ in pairs))} to {figure(max(t for t, _ in pairs))}."
    inside = f'{frame}{diagonal}<g class="cloud">{marks}</g>'
    return f'<div class="padded square">{_svg("square", ident, "Predicted against true", said, inside)}</div>'


def heat(
    caption: str,
    labels: Sequence[str],
    names: Sequence[str],
    counts: Sequence[Sequence[float]],
    rest: Sequence[float] | None,
) -> str:
    """A confusion table: rows are true, columns predicted; shades are shares of the row (blue right, orange wrong).

    labels: escaped labels; names: the same for tooltips; counts: (c, c); rest: mistakes of each row that fall outside
    the block, as a last column, or None.
    """
    head = "".join(f'<th scope="col"><span>{label}</span></th>' for label in labels)
    head += '<th scope="col"><span>elsewhere</span></th>' if rest is not None else ""
    body = []
    for i, row in enumerate(counts):
        total = sum(row) + (rest[i] if rest is not None else 0)
        cells = "".join(_shade(v, total, i == j) for j, v in enumerate(row))
        cells += _shade(rest[i], total, False) if rest is not None else ""
        body.append(f'<tr title="true label {names[i]}"><th scope="row">{labels[i]}</th>{cells}</tr>')
    table = (
        f'<table class="heat"><caption>{caption}</caption><thead><tr><td>true ↓ predicted →</td>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )
    return box(caption, table)


LEVELS = 8  # shades of each hue, written out in page.css


def _shade(value: float, total: float, right: bool) -> str:
    if value <= 0 or total <= 0:
        return '<td class="none">0</td>' if right else "<td></td>"
    share = value / total
    level = min(LEVELS, max(1, math.ceil(LEVELS * (share if right else math.sqrt(share)))))
    return f'<td class="{"r" if right else "w"}{level}">{count(value)}</td>'
