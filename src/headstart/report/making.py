"""What the model was made from and how: the data, the choices, the time, and what it takes to make it again."""

from __future__ import annotations

from headstart.report import pictures
from headstart.report.pictures import Strip, strips
from headstart.report.prose import fold, listing, p, section
from headstart.report.words import (
    SENTENCE,
    Record,
    count,
    figure,
    number,
    percent,
    record,
    records,
    seconds,
    sequence,
    show,
    span,
)

NOTES = 60  # notes on the data shown
COUNTS = (
    ("rows", "rows read", True),  # key, name, shown when zero
    ("used", "rows used", True),
    ("unlabelled", "without a label", False),
    ("duplicates", "duplicates", False),
    ("conflicts", "same text, different labels", False),
    ("groups", "groups kept together", False),
    ("unlabelled_pool", "unlabelled rows used", False),
    ("test_overlap", "test rows also in training", True),
)


def data(facts: Record) -> str:
    """What was read, what was chosen, what was dropped."""
    given = record(facts.get("data"))
    pairs = [("file", show(given["name"]) if given.get("name") else "")]
    for key, name, zero in COUNTS:
        n = number(given.get(key))
        pairs.append((name, count(n) if n is not None and (n > 0 or zero) else ""))
    notes = "".join(f"<li>{show(note, SENTENCE)}</li>" for note in sequence(given.get("notes"))[:NOTES])
    body = listing(pairs) + (f'<ul class="notes">{notes}</ul>' if notes else "")
    rows = records(given.get("classes"))
    sizes = [(n, row.get("label")) for row in rows if (n := number(row.get("n"))) is not None and n >= 0]
    if sizes:
        sizes.sort(key=lambda size: -size[0])
        along = pictures.axis(0.0, max(1.0, sizes[0][0]))
        bars = [Strip(show(label), n, cells=(count(n),)) for n, label in sizes]
        table = strips("Rows of each label", ("label", "rows", "number"), bars, along, bar=True)
        body += fold(f"Rows of each label, {count(sizes[-1][0])} to {count(sizes[0][0])}", table)
    how = p("What was read, which columns were chosen and why, and what was left out.")
    return section("data", "Your data", how, body)


def made(facts: Record) -> str:
    """The head and why it was chosen, the backbone, and where the time went."""
    head, backbone, time = (record(facts.get(key)) for key in ("head", "backbone", "seconds"))
    body = ""
    if head.get("name"):
        why = show(head["why"], SENTENCE) if head.get("why") else ""
        body += "<h3>Head</h3>" + p(f"<strong>{show(head['name'])}</strong>{_details(head)}.", why)
    body += _candidates(records(head.get("candidates")), head)
    body += p(show(head["tie"], SENTENCE), kind="small") if head.get("tie") else ""
    agreement, width = number(backbone.get("agreement")), number(backbone.get("width"))
    pairs = [
        (key, show(backbone[key], 120))
        for key in ("name", "licence", "source", "cut", "precision")
        if backbone.get(key)
    ]
    pairs += [("answers as with float32", percent(agreement) if agreement is not None else "")]
    pairs += [("numbers for each text", count(width) if width is not None else "")]
    listed = listing(pairs)
    body += f"<h3>Backbone</h3>{listed}" if listed else ""
    rows = [
        Strip(key, value, cells=(seconds(value),))
        for key in ("read", "embed", "fit", "evaluate")
        if (value := number(time.get(key))) is not None and value >= 0
    ]
    if rows:
        total = number(time.get("total"))
        along = pictures.axis(0.0, max(0.1, *(row.value or 0.0 for row in rows)))
        body += f"<h3>Time{f', {seconds(total)} in all' if total is not None and total >= 0 else ''}</h3>"
        body += strips("Time spent", ("step", "seconds", "time"), rows, along, bar=True)
    how = p(
        "The <dfn>backbone</dfn> is a pre-trained network that turns each text into numbers; it stays as it is.",
        "The <dfn>head</dfn> is small and yours: it learns your labels from those numbers.",
    )
    if records(head.get("candidates")):
        how += p("The candidates were judged on the same held-out rows. Where bars overlap a lot, either would do.")
    return section("made", "How it was made", how, body)


def _details(choice: Record) -> str:
    strength = number(choice.get("strength"))
    said = [f"strength {figure(strength)}"] if strength is not None else []
    said += ["with unlabelled rows"] if choice.get("pool") is True else []
    return "".join(f", {each}" for each in said)


def _candidates(rows: list[Record], chosen: Record) -> str:
    drawn: list[Strip] = []
    ends: list[float] = []
    for row in rows:
        value, low, high = (number(row.get(key)) for key in ("accuracy", "low", "high"))
        if value is None:
            continue
        mine = all(
            row.get(a) == chosen.get(b) for a, b in (("head", "name"), ("strength", "strength"), ("pool", "pool"))
        )
        name = f"{show(row.get('head'))}<small>{_details(row)}{', chosen' if mine else ''}</small>"
        interval = span(low, high) if low is not None and high is not None else ""
        drawn.append(Strip(name, value, low, high, cells=(percent(value), interval), strong=mine))
        ends += [each for each in (value, low, high) if each is not None]
    if not drawn:
        return ""
    along = pictures.axis(min(ends), max(ends), share=True)
    return strips("Candidates", ("candidate", "on held-out rows", "value", "95 % interval"), drawn, along)


def again(facts: Record) -> str:
    """What it takes to make the same model again."""
    seed, form = number(facts.get("seed")), number(facts.get("format"))
    digests = [
        (word, record(facts.get(key)).get("digest")) for key, word in (("data", "data"), ("backbone", "backbone"))
    ]
    body = listing(
        [
            ("seed", f"{seed:.0f}" if seed is not None else ""),
            ("Headstart", show(facts["headstart"], 40) if facts.get("headstart") else ""),
            ("format of the model", f"{form:.0f}" if form is not None else ""),
            *((f"{word}, SHA-256", f"<code>{show(digest, 80)}</code>") for word, digest in digests if digest),
        ]
    )
    how = p("The same data, seed, backbone and version give the same model, byte for byte.")
    return section("again", "To make it again", how, body)
