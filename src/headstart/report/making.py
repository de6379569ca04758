"""What the model was made from and how: the data, the choices, the time, and what it takes to make it again."""

from __future__ import annotations

from headstart.report import pictures
from headstart.report.pictures import Strip, strips
from headstart.report.prose import fold, listing, p, section
from headstart.report.words import (
    PICTURES,
    SENTENCE,
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
    seconds,
    sequence,
    show,
    size,
    span,
)

NOTES = 60  # notes on the data shown
FAULTS = 20  # files that could not be read shown
COUNTS = (
    ("rows", "{rows} read", True),  # key, name, shown when zero
    ("used", "{rows} used", True),
    ("unlabelled", "without a label", False),
    ("duplicates", "duplicates", False),
    ("conflicts", "same {one}, different labels", False),
    ("groups", "groups kept together", False),
    ("unlabelled_pool", "unlabelled {rows} used", False),
    ("test_overlap", "test {rows} also in training", True),
)


def data(facts: Record) -> str:
    """What was read, what was chosen, what was dropped."""
    given, called = record(facts.get("data")), kind(facts)
    pairs = [("data" if called is PICTURES else "file", show(given["name"]) if given.get("name") else "")]
    for key, name, zero in COUNTS:
        n = number(given.get(key))
        pairs.append(
            (name.format(one=called.one, rows=called.rows), count(n) if n is not None and (n > 0 or zero) else "")
        )
    notes = "".join(f"<li>{show(note, SENTENCE)}</li>" for note in sequence(given.get("notes"))[:NOTES])
    body = listing(pairs) + (f'<ul class="notes">{notes}</ul>' if notes else "") + _faults(given, called)
    rows = records(given.get("classes"))
    sizes = [(n, row.get("label")) for row in rows if (n := number(row.get("n"))) is not None and n >= 0]
    if sizes:
        sizes.sort(key=lambda size: -size[0])
        along = pictures.axis(0.0, max(1.0, sizes[0][0]))
        bars = [Strip(show(label), n, cells=(count(n),)) for n, label in sizes]
        table = strips(
            f"{called.rows.capitalize()} of each label", ("label", called.rows, "number"), bars, along, bar=True
        )
        body += fold(f"{called.rows.capitalize()} of each label, {count(sizes[-1][0])} to {count(sizes[0][0])}", table)
    how = p(
        "What was read, where the labels come from, and what was left out."
        if called is PICTURES
        else "What was read, which columns were chosen and why, and what was left out."
    )
    return section("data", "Your data", how, body)


def _faults(given: Record, called: Kind) -> str:
    """The files that could not be read: how many, and the first of them with the reason, to open."""
    faults = records(given.get("faults"))
    if not faults:
        return ""
    were = "was" if len(faults) == 1 else "were"
    said = p(f"{plural(len(faults), called.row)} could not be read and {were} left out.")
    lines = ""
    for fault in faults[:FAULTS]:
        at = number(fault.get("row"))
        where = f" <small>{called.row} {count(at)}</small>" if at is not None else ""
        lines += f"<li>{show(fault.get('name'), 120)}{where}: {show(fault.get('reason'), SENTENCE)}</li>"
    more = p(f"And {count(len(faults) - FAULTS)} more.", kind="small") if len(faults) > FAULTS else ""
    return said + fold("Which, and why", f'<ul class="notes">{lines}</ul>{more}')


def made(facts: Record) -> str:
    """The head and why it was chosen, the backbone, and where the time went."""
    head, backbone, time = (record(facts.get(key)) for key in ("head", "backbone", "seconds"))
    body, called = "", kind(facts)
    if head.get("name"):
        why = show(head["why"], SENTENCE) if head.get("why") else ""
        body += "<h3>Head</h3>" + p(f"<strong>{show(head['name'])}</strong>{_details(head, called)}.", why)
    body += _candidates(records(head.get("candidates")), head, called)
    body += p(show(head["tie"], SENTENCE), kind="small") if head.get("tie") else ""
    static = record(facts.get("distilled")).get("to") == "static"
    listed = listing(_backbone(backbone, called, static))
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
    kept = "its final blocks were retrained with the head" if backbone.get("said") else "it stays as it is"
    how = p(
        f"The <dfn>backbone</dfn> is a table of vectors that turns each {called.one} into numbers; no network is run."
        if static
        else f"The <dfn>backbone</dfn> is a pre-trained network that turns each {called.one} into numbers; {kept}.",
        "The <dfn>head</dfn> is small and yours: it learns your labels from those numbers.",
    )
    if record(facts.get("tuning")).get("kept") not in (None, "linear"):
        how += p("The head was chosen on frozen features, and then retrained with the final blocks: see below.")
    if records(head.get("candidates")):
        how += p(
            f"The candidates were judged on the same held-out {called.rows}. Where bars overlap a lot, either would do."
        )
    return section("made", "How it was made", how, body)


def _backbone(given: Record, called: Kind, static: bool) -> list[tuple[str, str]]:
    """What the backbone is, in pairs of name and value; '' where nothing is known. static: it is vectors of tokens."""
    pairs = [
        (name, show(given[key], 120) if given.get(key) else "")
        for key, name in (
            ("name", "name"),
            ("said", "what it is"),
            ("licence", "licence"),
            ("source", "source"),
            ("revision", "revision of the source"),
            ("cut", "cut"),
            ("precision", "precision"),
        )
    ]
    agreement, parameters, weight = (number(given.get(key)) for key in ("agreement", "parameters", "size"))
    pairs += [("answers as with float32", percent(agreement) if agreement is not None else "")]
    pairs += [("parameters below the cut", count(parameters) if parameters is not None and parameters >= 0 else "")]
    pairs += [("weights below the cut", size(weight) if weight is not None and weight >= 0 else "")]
    width, widths = number(given.get("width")), [number(each) for each in sequence(given.get("widths"))[:12]]
    said = count(width) if width is not None else ""
    if said and len(widths) > 1 and None not in widths:
        said += f" ({' + '.join(count(each) for each in widths if each is not None)})"
    pairs += [(f"numbers for each {called.one}", said)]
    return [*pairs, ("where its weights are", _place(given, static))]


def _place(given: Record, static: bool) -> str:
    """Where the weights of the backbone are; '' where that is not known."""
    carried = given.get("carried")
    if not isinstance(carried, bool):
        return ""
    if not carried:
        return "shared, outside the model's folder"
    if given.get("said"):
        return f"in the model's folder only what was changed; the base {show(given.get('name'))} must be installed"
    return "vectors of tokens in the model's folder, no network" if static else "in the model's folder"


def _details(choice: Record, called: Kind) -> str:
    strength = number(choice.get("strength"))
    said = [f"strength {figure(strength)}"] if strength is not None else []
    said += [f"with unlabelled {called.rows}"] if choice.get("pool") is True else []
    said += ["with mirrored views"] if choice.get("views") is True else []
    return "".join(f", {each}" for each in said)


def _candidates(rows: list[Record], chosen: Record, called: Kind) -> str:
    same = (("head", "name"), ("strength", "strength"), ("pool", "pool"), ("views", "views"))
    drawn: list[Strip] = []
    ends: list[float] = []
    for row in rows:
        value, low, high = (number(row.get(key)) for key in ("accuracy", "low", "high"))
        if value is None:
            continue
        mine = all((row.get(a) or None) == (chosen.get(b) or None) for a, b in same)
        name = f"{show(row.get('head'))}<small>{_details(row, called)}{', chosen' if mine else ''}</small>"
        interval = span(low, high) if low is not None and high is not None else ""
        drawn.append(Strip(name, value, low, high, cells=(percent(value), interval), strong=mine))
        ends += [each for each in (value, low, high) if each is not None]
    if not drawn:
        return ""
    along = pictures.axis(min(ends), max(ends), share=True)
    return strips("Candidates", ("candidate", f"on held-out {called.rows}", "value", "95 % interval"), drawn, along)


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
