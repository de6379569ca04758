"""What a student was taught: the student beside its teacher, and where the two disagree."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.report import pictures
from headstart.report.pictures import Strip, box, strips
from headstart.report.prose import fold, p, section
from headstart.report.words import (
    Kind,
    Record,
    count,
    figure,
    kind,
    number,
    percent,
    plural,
    record,
    records,
    shorter,
    show,
    size,
    span,
    times,
)

FIGURES = {"multilabel": "F1 a row", "regression": "R²"}  # else accuracy
FEW = 8  # disagreements shown before the rest folds
LONG = 180  # characters of a text in a table
MOST = 100  # disagreements shown at all
ALIKE = 0.2  # from a factor of 1, within which speed and size count as the same
KINDS = {"static": "vectors of tokens, without a network", "mlp": "a small network on frozen features of the base"}


def distilled(facts: Record) -> str:
    """Teacher and student side by side, how often they agree, and the rows on which they do not."""
    given, called = record(facts.get("distilled")), kind(facts)
    task = str(given.get("task") or facts.get("task"))
    table = _pair(given, task)
    lead = _said(given, task)
    if not (table or lead):
        return ""
    n, free = number(given.get("n")), number(given.get("unlabelled"))
    said = f"Measured on {plural(n, called.row)} held out from the student." if n is not None and n >= 0 else ""
    more = f"It also learned from {plural(free, called.row)} without a label." if free is not None and free >= 1 else ""
    warning = (
        f"The student has not seen the {called.rows} its figure is from, <strong>but its teacher has</strong>, and tells of"
        f" them through its other answers: the figure flatters, by much where labels are wrong. The teacher's own figure is"
        f" the one on its card. Only {called.rows} that neither has seen compare them fairly: headstart evaluate."
        if table and record(given.get("teacher"))
        else ""
    )
    body = p(lead, kind="lead") + table + p(said, more) + p(warning)
    rows = records(given.get("disagree"))[:MOST]
    if rows:
        shown, hidden = shorter(rows, FEW)
        body += "<h3>Where they disagree</h3>" + _disagreements(shown, called, "Where teacher and student disagree")
        body += fold(
            f"{plural(len(hidden), f'more {called.row}')}", _disagreements(hidden, called, "Further disagreements")
        )
    how = p(
        "A <dfn>student</dfn> is a small model that learned from the answers of a larger one, its <dfn>teacher</dfn>,",
        "with their probabilities, and not from the labels alone.",
    )
    how += p(f"Speed is how many {called.many} a second its network reads, where it was made.") if table else ""
    how += (
        p(
            f"Of the {called.rows} on which they differ, the surest answers of the teacher come first; what is right is bold."
        )
        if rows
        else ""
    )
    return section("distilled", "What it was taught", how, body)


def _said(given: Record, task: str) -> str:
    """The student in a sentence; '' where nothing is known of it."""
    alike, quicker, smaller = (number(given.get(key)) for key in ("agreement", "quicker", "smaller"))
    teacher = f"model {show(given['from'])}" if given.get("from") else "a larger model"
    to = str(given.get("to") or "")
    what = KINDS.get(to, "")
    if to.startswith("blocks:") and to[7:].isascii() and to[7:].isdigit():
        what = f"the first {to[7:]} blocks of the base, retrained" if to[7:] != "1" else "its first block, retrained"
    parts = []
    if alike is not None:
        parts.append(
            f"gives numbers that correlate with its teacher's by {figure(alike)}"
            if task == "regression"
            else f"gives {percent(alike)} of its teacher's answers"
        )
    if quicker is not None and quicker > 0:
        parts.append("is about as quick" if abs(quicker - 1) <= ALIKE else f"runs at {times(quicker)} its speed")
    if smaller is not None and smaller > 0:
        least = max(smaller, 1 / smaller)
        other = f"is {times(least)} {'smaller' if smaller > 1 else 'larger'}"
        parts.append("is about as large" if abs(smaller - 1) <= ALIKE else other)
    if not (parts or what):
        return ""
    told = f": it {', '.join(parts[:-1])}{' and ' if len(parts) > 1 else ''}{parts[-1]}" if parts else ""
    return f"A student of {teacher}{f', {what}' if what else ''}{told}."


def _pair(given: Record, task: str) -> str:
    """Teacher and student as a table."""
    share, name = task != "regression", FIGURES.get(task, "accuracy")
    rows = [_row(key, record(given.get(key)), share) for key in ("teacher", "student")]
    drawn = [row for row in rows if row.value is not None]
    if not drawn:
        return ""
    ends = [each for row in drawn for each in (row.value, row.low, row.high) if each is not None]
    heads = ("model", f"{name} and its interval", name, "95 % interval", "a second", "size")
    return strips("Teacher and student", heads, drawn, pictures.axis(min(ends), max(ends), share=share))


def _row(name: str, source: Record, share: bool) -> Strip:
    """One of the two; its value is None where no figure is known."""
    value, low, high, rate, mb = (number(source.get(key)) for key in ("accuracy", "low", "high", "per_second", "mb"))
    shown, between = (percent, span) if share else (figure, lambda low, high: f"{figure(low)} to {figure(high)}")
    interval = between(low, high) if low is not None and high is not None else ""
    cells = (
        shown(value) if value is not None else "",
        interval,
        count(rate) if rate is not None and rate >= 0 else "",
        size(1e6 * mb) if mb is not None and mb >= 0 else "",
    )
    mine = name == "student"
    if not mine:
        name += " <small>by its card</small>"
    return Strip(
        name, value, low, high, None, cells, f"interval {interval}" if interval else "", strong=mine, pale=not mine
    )


def _disagreements(rows: Sequence[Record], called: Kind, caption: str) -> str:
    """A table of rows with what each of the two said, and what is right."""
    if not rows:
        return ""
    head = "".join(
        f'<th scope="col"{wide}>{name}</th>'
        for name, wide in (
            ("label", ""),
            (called.one, ' class="wide"'),
            ("teacher", ""),
            ("student", ""),
        )
    )
    body = ""
    for row in rows:
        at = number(row.get("row"))
        cells = "".join(f"<td>{_answer(row, key)}</td>" for key in ("teacher", "student"))
        where = f" <small>{called.row} {count(at)}</small>" if at is not None else ""
        label = show(row["label"]) if row.get("label") is not None else ""
        body += f'<tr><th scope="row">{label}</th><td>{show(row.get("text"), LONG)}{where}</td>{cells}</tr>'
    return box(
        caption,
        f'<table class="strips"><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>',
    )


def _answer(row: Record, who: str) -> str:
    """What one of the two said, bold where it is right; '' where that is not known."""
    if row.get(who) is None:
        return ""
    said = show(row[who])
    return f"<strong>{said}</strong>" if row[who] == row.get("label") else said
