"""How good the model is: overall, label by label, against the true numbers, and with more labels."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.report import pictures
from headstart.report.pictures import Point, Strip, strips
from headstart.report.prose import fold, p, section
from headstart.report.words import (
    SENTENCE,
    Kind,
    Record,
    count,
    figure,
    kind,
    number,
    percent,
    plain,
    plural,
    points,
    record,
    records,
    sequence,
    shorter,
    show,
    span,
)

FEW = 20  # labels shown before the rest folds


@dataclass(frozen=True)
class Figure:
    """An overall figure: its key in the facts, the keys of its interval, its name."""

    key: str
    low: str
    high: str
    name: str


ACCURACY = Figure("accuracy", "low", "high", "accuracy")
MACRO_F1 = Figure("macro_f1", "macro_f1_low", "macro_f1_high", "macro F1")
MICRO_F1 = Figure("micro_f1", "micro_f1_low", "micro_f1_high", "micro F1")
EXACT = Figure("accuracy", "low", "high", "{} with every label right")
R2 = Figure("r2", "low", "high", "R²")

# The figures of each task; the first is the one it is judged by.
FIGURES = {"classification": (ACCURACY, MACRO_F1), "multilabel": (MICRO_F1, MACRO_F1, EXACT), "regression": (R2,)}
MEANING = {
    "classification": "<dfn>Accuracy</dfn> is the share of right answers on {} the model had not seen."
    " <dfn>Macro F1</dfn> is the average over labels of F1, so a rare label weighs as much as a common one.",
    "multilabel": "<dfn>F1</dfn> is one figure for two faults: labels given wrongly and labels missed; 100 % is"
    " neither. <dfn>Micro F1</dfn> counts every label given alike, <dfn>macro F1</dfn> is the average over labels, so a"
    " rare label weighs as much as a common one.",
    "regression": "<dfn>R²</dfn> is the share of the ups and downs in your numbers that the model predicts: 100 % is"
    " exact, 0 % is no better than always giving the average.",
}


def how_good(facts: Record) -> str:
    """The headline figure with its interval and baseline, and every other overall figure below it."""
    task, called = str(facts.get("task")), kind(facts)
    figures = FIGURES.get(task, FIGURES["classification"])
    head = figures[0]
    test, estimate = record(facts.get("test")), record(facts.get("estimate"))
    main = test if number(test.get(head.key)) is not None else estimate
    value, low, high = _values(main, head)
    if value is None:
        return ""
    base = _baseline(facts, main) if head is ACCURACY else None
    interval = (
        f', 95 % interval <span class="range">{span(low, high)}</span>' if low is not None and high is not None else ""
    )
    said = f"<strong>{percent(value)}</strong> {head.name} {_where(main, main is test, called)}{interval}"
    body = p(said, kind="big") + f'<div class="hero">{pictures.gauge("main", value, low, high, base, head.name)}</div>'
    apart = record(test.get("apart"))  # without the rows that are in the training data as well
    rows = [
        _row(source, each, word, called)
        for source, word in ((test, called.test), (apart, f"unseen test {called.rows}"), (estimate, "estimate"))
        for each in figures
        if not (source is main and each is head and number(record(main.get("at_half")).get(head.key)) is None)
    ]
    shown = [row for row in rows if row.value is not None]
    if shown:
        body += strips("Other overall figures", ("figure", "0 to 100 %", "value", "95 % interval"), shown)
    if any(row.second is not None for row in shown):
        body += p("The hollow mark is the same figure with every threshold at 0.5.", kind="small")
    body += _errors(test, called.test) + _errors(estimate, "estimate")
    how = p(MEANING.get(task, MEANING["classification"]).format(called.rows)) + p(
        f"The pale bar is the 95 % interval: with this many {called.rows}, the true figure may lie anywhere in it."
        f" More {called.rows} to judge on make it narrower.",
    )
    how += (
        p("The dashed line is what no model at all would reach, by always giving the commonest label.") if base else ""
    )
    how += (
        p(f"<em>Estimate</em>: every {called.row} was answered by a model trained without it.")
        if main is test and estimate
        else ""
    )
    return section("good", "How good it is", how, body)


def _values(source: Record, each: Figure) -> tuple[float | None, float | None, float | None]:
    return number(source.get(each.key)), number(source.get(each.low)), number(source.get(each.high))


def _where(main: Record, is_test: bool, called: Kind) -> str:
    n = number(main.get("n"))
    rows = plural(n, called.row) if n is not None else called.rows
    return f"on the {rows} of your {called.test}" if is_test else f"estimated on {rows} held out in turn"


def _baseline(facts: Record, main: Record) -> tuple[float, str] | None:
    """The share of the commonest label, among the rows judged if their labels are counted, else in the data."""
    same = (facts.get("per_class_from") == "test") == (main is facts.get("test"))
    rows = records(facts.get("per_class")) if same else []
    rows = rows or records(record(facts.get("data")).get("classes"))
    sizes = [(n, row.get("label")) for row in rows if (n := number(row.get("n"))) is not None and n >= 0]
    total = sum(n for n, _ in sizes)
    if len(sizes) < 2 or total <= 0:
        return None
    n, label = max(sizes, key=lambda size: size[0])
    return n / total, f"always {plain(label, 16)}: {percent(n / total)}"


def _row(source: Record, each: Figure, word: str, called: Kind) -> Strip:
    value, low, high = _values(source, each)
    name = each.name.format(called.rows)
    if value is None:
        return Strip(name, None)
    interval = span(low, high) if low is not None and high is not None else ""
    half = number(record(source.get("at_half")).get(each.key))
    tip = f"{name}, {word}: {percent(value)}{interval and ', interval ' + interval}"
    return Strip(f"{name} <small>{word}</small>", value, low, high, half, (percent(value), interval), tip)


def _errors(source: Record, word: str) -> str:
    """Regression: the usual error in the unit of the data, beside that of always giving the median."""
    named = (
        ("mae", "average error"),
        ("rmse", "the same, large errors weigh more (RMSE)"),
        ("baseline_mae", "average error of always giving the median"),
    )
    rows = [
        Strip(name, value, cells=(figure(value),), strong=key == "mae", pale=key == "baseline_mae")
        for key, name in named
        if (value := number(source.get(key))) is not None and value >= 0
    ]
    if not rows:
        return ""
    along = pictures.axis(0.0, max(row.value or 0.0 for row in rows))
    return strips(
        f"Errors, {word}",
        (f"error <small>{word}</small>", "in the unit of your numbers", "size"),
        rows,
        along,
        bar=True,
    )


def more_labels(facts: Record) -> str:
    """The learning curve and what twice the labels would bring."""
    given = record(facts.get("curve"))
    known = sorted((pt for row in records(given.get("points")) if (pt := _point(row)) is not None), key=lambda pt: pt.n)
    doubling = record(given.get("doubling"))
    doubled = _point(doubling)
    if doubled is not None and (not known or doubled.n <= known[-1].n):
        doubled = None
    task = str(facts.get("task"))
    body = p(show(given["says"], SENTENCE), kind="lead") if given.get("says") else ""
    if len(known) > 1:
        name = FIGURES.get(task, FIGURES["classification"])[0].name
        body += pictures.curve("curve", known, doubled, "Learning curve", name)
    gain, low, high = (number(doubling.get(key)) for key in ("gain", "gain_low", "gain_high"))
    if doubled is not None and gain is not None:
        between = f" (95 % interval {points(low)} to {points(high)})" if low is not None and high is not None else ""
        body += p(f"Twice the labels: <strong>{points(gain)} points</strong>{between}.", kind="small")
    body += fold("Which labels want more examples", _gains(records(given.get("per_class"))))
    how = p(f"Each point is a model trained on a part of your labels and judged on {kind(facts).rows} it had not seen.")
    how += p(
        "Still rising at the right: more labels help. Flat: mending wrong labels and mixed-up pairs helps more.",
        "The hollow mark is a projection, not a measurement." if doubled is not None else "",
    )
    return section("curve-h", "Would more labels help?", how, body)


def _point(row: Record) -> Point | None:
    n, value = number(row.get("n")), number(row.get("accuracy"))
    if n is None or value is None or n < 1:
        return None
    low, high = number(row.get("low")), number(row.get("high"))
    return Point(n, value, low, high) if low is not None and high is not None else Point(n, value, None, None)


def _gains(rows: list[Record]) -> str:
    found = []
    for row in rows:
        recall, half, gain, n = (number(row.get(key)) for key in ("recall", "recall_half", "gain", "n"))
        if recall is not None and half is not None:
            gain = recall - half if gain is None else gain
            cells = (percent(recall), percent(half), points(gain), count(n) if n is not None else "")
            found.append((gain, Strip(show(row.get("label")), recall, second=half, cells=cells)))
    found.sort(key=lambda pair: -pair[0])
    heads = ("label", "found with half (hollow) and all labels", "all", "half", "gain", "examples")
    return strips("Gain expected for each label", heads, [strip for _, strip in found]) if found else ""


def by_label(facts: Record) -> str:
    """F1 of each label with its interval, the weakest first."""
    rows, called = [], kind(facts)
    for row in records(facts.get("per_class")):
        f1, low, high = (number(row.get(key)) for key in ("f1", "f1_low", "f1_high"))
        if f1 is None:
            continue
        n, precision, recall = (number(row.get(key)) for key in ("n", "precision", "recall"))
        cells = (
            percent(f1),
            count(n) if n is not None else "",
            span(low, high) if low is not None and high is not None else "",
            percent(precision) if precision is not None else "",
            percent(recall) if recall is not None else "",
        )
        tip = f"{plain(row.get('label'))}: F1 {percent(f1)}{cells[2] and ', interval ' + cells[2]}"
        rows.append((f1, Strip(show(row.get("label")), f1, low, high, None, cells, tip)))
    rows.sort(key=lambda pair: pair[0])
    shown, hidden = shorter([strip for _, strip in rows], FEW)
    heads = ("label", "F1 and its interval", "F1", called.rows, "95 % interval", "precision", "recall")
    body = strips("Labels, weakest first", heads, shown) if shown else ""
    rest = strips("The other labels", heads, hidden) if hidden else ""
    body += fold(f"The other {plural(len(hidden), 'label')}", rest)
    source = f"on your {called.test}" if facts.get("per_class_from") == "test" else f"on {called.rows} held out in turn"
    how = p(f"Weakest first, judged {source}.") + p(
        f"<dfn>Precision</dfn>: of the {called.rows} given this label, how many deserved it. <dfn>Recall</dfn>: of the"
        f" {called.rows} that deserve it, how many got it. <dfn>F1</dfn> is low when either is low.",
    )
    return section("labels", "Label by label", how, body)


def against_true(facts: Record) -> str:
    """Regression: predicted against true numbers."""
    pairs = []
    for pair in map(sequence, sequence(facts.get("scatter"))[:500]):
        if len(pair) == 2 and (true := number(pair[0])) is not None and (predicted := number(pair[1])) is not None:
            pairs.append((true, predicted))
    body = pictures.scatter("scatter", pairs) if pairs else ""
    how = p(
        f"Each mark is one {kind(facts).row} the model had not seen. On the dashed line the prediction is exact;",
        "the distance up or down from it is the error.",
    )
    return section("scatter-h", "Predicted against true", how, body)
