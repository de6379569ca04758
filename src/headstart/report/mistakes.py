"""Where the model goes wrong, and where the labels might: mix-ups with real examples, and rows to look at again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headstart.report.pictures import heat
from headstart.report.prose import fold, p, section
from headstart.report.words import (
    PICTURES,
    TEXT,
    Kind,
    Record,
    count,
    kind,
    number,
    percent,
    plain,
    plural,
    record,
    records,
    sequence,
    shorter,
    show,
    thumbnail,
)

WHOLE = 24  # labels up to which the whole confusion table is shown
BLOCK = 20  # labels in the table when there are more
PAIRS = 3  # pairs shown before the rest folds
CARDS = 6  # examples shown before the rest folds
THUMBNAILS = 24  # pictures shown before the rest folds
MOST = 30  # pictures in a section; further ones are only named
NAME = 80  # characters of a file name shown


def mix_ups(facts: Record) -> str:
    """The confusion table and the most confused pairs with real examples."""
    table, note = confusion(record(facts.get("confusion")))
    called, pairs, left = kind(facts), [], MOST
    for pair in records(facts.get("confused")):
        n, examples = number(pair.get("count")), records(pair.get("examples"))
        times = f" <small>{count(n)}×</small>" if n is not None else ""
        heading = f'{show(pair.get("true"))} <span class="to">taken for</span> {show(pair.get("predicted"))}{times}'
        if called is PICTURES:
            said = f"{plain(pair.get('true'))} taken for {plain(pair.get('predicted'))}"
            listed = _thumbnails(examples[:left], [said] * left) + _cards(examples[left:], called)
            left = max(0, left - len(examples))
        else:
            listed = _cards(examples, called)
        pairs.append(f"<h3>{heading}</h3>" + listed)
    shown, hidden = shorter(pairs, PAIRS)
    body = table + p(note, kind="small") + "".join(shown) + fold(f"{plural(len(hidden), 'more pair')}", "".join(hidden))
    how = p("Rows are true labels, columns answers. Blue is right, orange is wrong, stronger is more.") if table else ""
    how += p("Two labels often taken for each other may be one label, or need a clearer rule between people first.")
    return section("mixed", "What it mixes up", how, body)


def confusion(given: Record) -> tuple[str, str]:
    """The table of a record {"labels", "counts"}, and a sentence on what it leaves out; ('', '') if it is unusable."""
    names = list(sequence(given.get("labels")))
    counts = [[max(0.0, number(v) or 0.0) for v in sequence(row)] for row in sequence(given.get("counts"))]
    c = len(names)
    if c == 0 or len(counts) != c or any(len(row) != c for row in counts):
        return "", ""
    if c <= WHOLE:
        labels = [show(name, 40) for name in names]
        return heat("Confusion table", labels, [plain(name) for name in names], counts, None), ""
    block = most_confused(counts, BLOCK)
    if not block:
        return "", f"None of the {count(c)} labels was taken for another."
    labels, tips = [show(names[i], 40) for i in block], [plain(names[i]) for i in block]
    inside = [[counts[i][j] for j in block] for i in block]
    rest = [sum(counts[i]) - sum(row) for i, row in zip(block, inside, strict=True)]
    wrong = sum(map(sum, counts)) - sum(counts[i][i] for i in range(c))
    kept = sum(map(sum, inside)) - sum(counts[i][i] for i in block)
    note = (
        f"Of {count(c)} labels, these {count(len(block))} are taken for each other most; neighbours are alike."
        f" The table holds {count(kept)} of all {plural(wrong, 'mistake')}; “elsewhere” counts answers outside it."
    )
    return heat("Confusion table of the labels mixed up most", labels, tips, inside, rest), note


def most_confused(counts: Sequence[Sequence[float]], most: int) -> list[int]:
    """At most `most` labels by the mistakes between them, those taken for each other side by side.

    counts: (c, c), rows true, columns predicted. Pairs are taken by their mistakes in both directions, the largest
    first (ties by position); a label new to the block is put beside the one it is taken for.
    """
    c = len(counts)
    pairs = sorted((-(counts[i][j] + counts[j][i]), i, j) for i in range(c) for j in range(i + 1, c))
    order: list[int] = []
    for mistakes, i, j in pairs:
        new = [k for k in (i, j) if k not in order]
        if mistakes == 0 or len(order) + len(new) > most:
            continue
        if len(new) == 1:
            order.insert(order.index(j if new[0] == i else i) + 1, new[0])
        else:
            order += new
    return order


def wrong_labels(facts: Record) -> str:
    """Rows whose label looks wrong, most suspicious first."""

    def labels(row: Record) -> str:
        return f'given <b class="given">{show(row.get("given"))}</b>, looks like <b>{show(row.get("suggested"))}</b>'

    called, rows = kind(facts), records(facts.get("suspects"))
    if called is PICTURES:
        said = [f"given {plain(row.get('given'))}, looks like {plain(row.get('suggested'))}" for row in rows]
        to = '<span class="to">→</span>'
        more = [
            f'<b class="given">{show(row.get("given"))}</b> {to} <b>{show(row.get("suggested"))}</b>' for row in rows
        ]
        cut = len(shorter(rows[:MOST], THUMBNAILS)[0])
        body = _thumbnails(rows[:cut], said, more)
        rest = _thumbnails(rows[cut:MOST], said[cut:], more[cut:]) + _cards(rows[MOST:], called, labels)
        body += fold(f"{count(len(rows) - cut)} more", rest)
    else:
        shown, hidden = shorter(rows, CARDS)
        body = _cards(shown, called, labels) + fold(f"{count(len(hidden))} more", _cards(hidden, called, labels))
    how = p(
        f"Models trained without these {called.rows} disagree with their labels.",
        "Most suspicious first; nothing was changed.",
    )
    how += p(
        f"Often the label is wrong, sometimes the {called.row} is only hard: you decide.",
        "Move the file to the folder of the right label, or mend its row in the list, and fit again."
        if called is PICTURES
        else "Mend the file at the row given and fit again.",
    )
    return section("suspects", "Labels that look wrong", how, body)


def _cards(rows: Sequence[Record], called: Kind, more: Callable[[Record], str] | None = None) -> str:
    """Examples as a list: the text, and below it where it is and what was said of it."""
    cards = []
    for row in rows:
        notes = _where(row, called) + ([more(row)] if more is not None else []) + _sure(row)
        small = f'<span class="small">{" · ".join(notes)}</span>' if notes else ""
        cards.append(f"<li><q>{show(row.get('text'), TEXT)}</q>{small}</li>")
    return f'<ul class="cards">{"".join(cards)}</ul>' if cards else ""


def _thumbnails(rows: Sequence[Record], said: Sequence[str], more: Sequence[str] = ()) -> str:
    """Pictures side by side, each above its file name, what was said of it and how sure the model was.

    said: for each row, safe in an attribute: it is read out in place of the picture. more: for each row, shown as well.
    """
    cards = []
    for k, row in enumerate(rows):
        uri = thumbnail(row.get("picture"))
        alt = f"{plain(row.get('text'), NAME)}: {said[k]}"
        picture = f'<img src="{uri}" alt="{alt}">' if uri else '<span class="blank">not shown</span>'
        lines = [f'<span class="name">{show(row.get("text"), NAME)}</span>', *more[k : k + 1]]
        lines += [" · ".join(note.replace(" ", "\u00a0") for note in _sure(row) + _where(row, PICTURES))]
        cards.append(f"<li>{picture}<p>{'<br>'.join(line for line in lines if line)}</p></li>")
    return f'<ul class="thumbs">{"".join(cards)}</ul>' if cards else ""


def _where(row: Record, called: Kind) -> list[str]:
    at = number(row.get("row"))
    return [f"{called.row} {count(at)}"] if at is not None else []


def _sure(row: Record) -> list[str]:
    probability = number(row.get("probability"))
    return [f"{percent(probability, 0)} sure"] if probability is not None else []
