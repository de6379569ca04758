"""How the final blocks were retrained: what was tried, what it gained, and how the training went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.report import pictures
from headstart.report.pictures import Strip, strips
from headstart.report.prose import p, section
from headstart.report.words import (
    SENTENCE,
    Kind,
    Record,
    count,
    figure,
    kind,
    number,
    percent,
    plural,
    points,
    record,
    records,
    seconds,
    sequence,
    show,
    span,
)

RUNGS = 20  # rungs shown
FOLDS = 12  # lines in a picture
EPOCHS = 500  # of a line
LINEAR = "linear"  # the rung below all others: only the head is trained
FIGURES = {"multilabel": "F1 a row", "regression": "R²"}  # else accuracy


def tuned(facts: Record) -> str:
    """What was retrained, the rungs that were tried, the losses by epoch, and how the network that is kept was made."""
    given, called = record(facts.get("tuning")), kind(facts)
    task = str(given.get("task") or facts.get("task"))
    table = _rungs(records(given.get("rungs"))[:RUNGS], task)
    losses = _losses(given)
    linear = given.get("kept") == LINEAR
    opening = "Tuning did not beat the head alone, so nothing was retrained." if linear else _what(given)
    body = p(opening, kind="lead")
    body += p(show(_sentence(given["said"]), SENTENCE), kind="small") if given.get("said") else ""
    body += table + losses + _made(given, called, linear)
    if not (opening or table or losses):
        return ""
    how = p(
        f"The head alone is trained on what the published network makes of each {called.one}. <dfn>Tuning</dfn> changes"
        " the final blocks of the network as well; what lies below them stays as published.",
    )
    if table:
        sizes = {number(row.get("n")) for row in records(given.get("rungs"))[:RUNGS]}
        n = sizes.pop() if len(sizes) == 1 else None
        held = called.rows if n is None else plural(n, called.row)
        how += p(
            f"Every rung was judged on the same {held} held out. <dfn>Gain</dfn> is over the head alone, with twice its"
            " standard error (±). With many examples a rung is kept when its gain is more than half of that; with few,"
            " where folds tell little, also what tuning usually brings is weighed in."
        )
    if losses:
        how += p(
            "A <dfn>loss</dfn> is how wrong the network is, and how unsure; lower is better. Each line is one fold. Where the"
            f" loss on held-out {called.rows} rises while that of training falls, the network learns by heart."
            " The two are not to be compared with each other: training is made harder on purpose."
        )
    return section("tuned", "Tuning was tried" if linear else "How it was tuned", how, body)


def _what(given: Record) -> str:
    """What was retrained, and what was not; '' when that is not known."""
    k, of, rank = (number(given.get(key)) for key in ("blocks", "of", "rank"))
    if k is None or k < 1:
        return ""
    base = show(given["base"]) if given.get("base") else "the base"
    last, verb = (f"last {count(k)}", "were") if k > 1 else ("last", "was")
    if of is not None and k >= of:
        which = f"All {plural(k, 'block')} of {base} were"
    elif of is not None:
        which = f"The {last} of the {plural(of, 'block')} of {base} {verb}"
    else:
        which = f"The {last} {'blocks' if k > 1 else 'block'} of {base} {verb}"
    started = f", starting from model {show(given['from'])}" if given.get("from") else ""
    low = f", by updates of rank {count(rank)}," if rank is not None and rank > 0 else ""
    return f"{which} retrained{low} together with the head{started}; the rest is the published base."


def _sentence(said: object) -> str:
    """Words of ours as a sentence."""
    words = str(said)[:SENTENCE].strip().rstrip(".")
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def _rungs(rows: Sequence[Record], task: str) -> str:
    """The rungs as a table, each with its interval and what it gained."""
    share = task != "regression"
    drawn = [row for each in rows if (row := _rung(each, share)).value is not None]
    if not drawn:
        return ""
    ends = [each for row in drawn for each in (row.value, row.low, row.high) if each is not None]
    name = FIGURES.get(task, "accuracy")
    gain = "gain, points" if share else "gain"
    heads = ("retrained", f"{name} and its interval", name, "95 % interval", gain, "time")
    return strips("What was tried", heads, drawn, pictures.axis(min(ends), max(ends), share=share))


def _rung(row: Record, share: bool) -> Strip:
    """One rung; its value is None where no figure is known."""
    value, low, high, took = (number(row.get(key)) for key in ("accuracy", "low", "high", "seconds"))
    name, first = str(row.get("rung") or ""), row.get("rung") == LINEAR
    k = number(row.get("blocks"))
    if first:
        name = "the head alone"
    elif k is not None and k >= 1:
        name = f"all {plural(k, 'block')}" if name == "all" else f"the last {plural(k, 'block') if k > 1 else 'block'}"
    else:
        name = show(name)
    fate = " <small>kept</small>" if row.get("kept") is True else ""
    shown, between = (percent, span) if share else (figure, lambda low, high: f"{figure(low)} to {figure(high)}")
    interval = between(low, high) if low is not None and high is not None else ""
    cells = (
        shown(value) if value is not None else "",
        interval,
        "" if first else _gain(row, share),
        seconds(took) if took is not None and took >= 0 and not first else "",
    )
    tip = f"interval {interval}" if interval else ""
    kept = row.get("kept") is True
    return Strip(name + fate, value, low, high, None, cells, tip, strong=kept, pale=not kept)


def _gain(row: Record, share: bool) -> str:
    """What a rung gained over the head alone, and twice the standard error of that."""
    gain, noise = number(row.get("gain")), number(row.get("noise"))
    if gain is None:
        return ""
    said = points(gain) if share else f"{'+' if gain >= 0 else ''}{figure(gain)}"
    if noise is None or noise < 0:
        return said
    return f"{said} ± {200 * noise:.1f}" if share else f"{said} ± {figure(2 * noise)}"


def _made(given: Record, called: Kind, linear: bool) -> str:
    """How many epochs were kept and how the final network was made; what else took part."""
    history = [sequence(fold) for fold in sequence(given.get("history"))]
    epochs, most = number(given.get("epochs")), max((len(fold) for fold in history), default=0)
    said = []
    if epochs is not None and epochs >= 1 and not linear:
        said.append(f"Kept after {count(epochs)} of {plural(max(most, epochs), 'epoch')}.")
    if given.get("how") and not linear:
        said.append(f"The final network is {show(given['how'], SENTENCE)}.")
        said.append(f"The figures are those of the networks of the folds, on {called.rows} that each had not seen.")
    free = number(given.get("unlabelled"))
    if free is not None and free >= 1:
        said.append(f"{plural(free, f'{called.row} without a label', f'{called.rows} without a label')} took part.")
    if given.get("interrupted") is True:
        said.append("The run was interrupted: this is the best of what was finished by then.")
    apart = number(given.get("torch"))
    if apart is not None and apart >= 0 and not linear:
        said.append(f"As it is saved it gives the features that it had in training, to {apart:.1g}.")
    return p(*said)


@dataclass(frozen=True)
class Line:
    """A fold's loss, epoch by epoch: (epoch, loss), epochs rising from 1."""

    fold: int
    points: tuple[tuple[int, float], ...]


def _losses(given: Record) -> str:
    """The loss on held-out rows and the loss of training, by epoch, a line a fold; '' with fewer than two epochs."""
    history = [records(fold)[:EPOCHS] for fold in sequence(given.get("history"))[:FOLDS]]
    kept = number(given.get("epochs"))
    drawn = ""
    for key, ident, name in (("held", "loss-held", "Loss on held-out rows"), ("loss", "loss-own", "Loss of training")):
        lines = []
        for fold, epochs in enumerate(history, 1):
            known = [(at, number(epoch.get(key))) for at, epoch in enumerate(epochs, 1)]
            line = Line(fold, tuple((at, value) for at, value in known if value is not None))
            lines += [line] if len(line.points) > 1 else []
        drawn += _plot(ident, name, lines, kept) if lines else ""
    return drawn


def _plot(ident: str, title: str, lines: Sequence[Line], kept: float | None) -> str:
    """Lines over epochs on a linear axis, with a dashed line after the epochs that were kept."""
    values = [value for line in lines for _, value in line.points]
    last = max(at for line in lines for at, _ in line.points)
    up = pictures.axis(min(values), max(values))

    def x(epoch: float) -> float:
        return 3 + 94 * (epoch - 1) / (last - 1)

    parts = ""
    for value, name in up.ticks:
        y = f"{100 - up.at(value):.2f}%"
        parts += f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
        parts += f'<text class="axis" x="-8" y="{y}" dy=".32em" text-anchor="end">{name}</text>'
    step = next((step for step in (1, 2, 5, 10, 20, 50, 100) if last / step <= 10), 100)
    for epoch in sorted({1, *range(step, last + 1, step)}):
        parts += f'<text class="axis" x="{x(epoch):.2f}%" y="100%" text-anchor="middle" dy="18">{epoch}</text>'
    parts += f'<text class="name" x="-8" y="0" text-anchor="start" dy="-16">{title.lower()}</text>'
    parts += '<text class="name" x="100%" y="100%" text-anchor="end" dy="37">epochs</text>'
    marked = kept is not None and 1 <= kept <= last and kept == int(kept)
    tracks, dots, said = "", "", []
    for line in lines:
        tracks += '<polyline class="line" points="{}"/>'.format(
            " ".join(f"{x(at):.2f},{100 - up.at(value):.2f}" for at, value in line.points)
        )
        (first, start), (end, stop) = line.points[0], line.points[-1]
        said.append(f"fold {line.fold}: {figure(start)} after epoch {first}, {figure(stop)} after epoch {end}")
        for at, value in line.points:
            if marked and at == kept:
                tip = f"fold {line.fold}, epoch {at}: {figure(value)}"
                place = f'cx="{x(at):.2f}%" cy="{100 - up.at(value):.2f}%"'
                dots += f'<circle class="dot" {place} r="3.5"><title>{tip}</title></circle>'
    if marked:
        assert kept is not None
        place, anchor, shift = f"{x(kept):.2f}%", *(("end", -7) if x(kept) > 50 else ("start", 7))
        parts += f'<line class="base" x1="{place}" x2="{place}" y1="0" y2="100%"/>'
        parts += f'<text class="note" x="{place}" y="0" dy="12" dx="{shift}" text-anchor="{anchor}">kept</text>'
        said.append(f"kept after epoch {count(kept)}")
    stretched = f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">{tracks}</svg>'
    return (
        f'<div class="padded"><svg class="plot curve" role="img" aria-labelledby="{ident}-t {ident}-d">'
        f'<title id="{ident}-t">{title}, by epoch</title><desc id="{ident}-d">{"; ".join(said)}.</desc>'
        f"{parts}{stretched}{dots}</svg></div>"
    )
