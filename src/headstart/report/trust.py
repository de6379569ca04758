"""Whether its probabilities mean what they say, when it answers "unknown", and when a label is given."""

from __future__ import annotations

from headstart.report import pictures
from headstart.report.pictures import Bin, Strip, strips
from headstart.report.prose import fold, p, section
from headstart.report.words import (
    SENTENCE,
    Record,
    count,
    kind,
    number,
    percent,
    plural,
    record,
    records,
    shorter,
    show,
    span,
)

FEW = 20  # labels shown before the rest folds
METHODS = {
    "temperature": "The scores were divided by one number (temperature), chosen on held-out {}.",
    "isotonic": "The scores were mapped by a rising curve (isotonic regression), chosen on held-out {}.",
    "platt": "The scores of each label were stretched and shifted by two numbers (Platt), chosen on held-out {}.",
    "none": "The scores were left as they are: no adjustment made them better.",
}


def probabilities(facts: Record) -> str:
    """The reliability picture and the calibration error before and after."""
    given = record(facts.get("calibration"))
    bins = []
    for row in records(given.get("bins")):
        n, confidence, accuracy = (number(row.get(key)) for key in ("n", "confidence", "accuracy"))
        if n is not None and n > 0 and confidence is not None and accuracy is not None:
            bins.append(Bin(n, confidence, accuracy))
    body = pictures.reliability("reliability", bins) if bins else ""
    rows = []
    noise = number(given.get("noise"))
    named = (("ece_before", "before", True), ("ece_after", "after", False), ("noise", "by chance alone", True))
    for key, name, pale in named:
        if (value := number(given.get(key))) is not None and value >= 0:
            rows.append(Strip(name, value, cells=(f"{100 * value:.1f} points",), pale=pale, strong=not pale))
    if rows:
        along = pictures.axis(0.0, max(row.value or 0.0 for row in rows), share=True)
        heads = ("adjustment", "average distance from the line", "ECE")
        body += strips("Expected calibration error", heads, rows, along, bar=True)
    method = given.get("method")
    how = p(
        "When it says 80 %, is it right 80 times in 100? On the dashed line, yes. Below the line it is too sure,",
        "above it too modest. Larger marks hold more answers.",
    )
    how += p(
        "<dfn>ECE</dfn>, the expected calibration error, is the average distance from the line, in percentage points."
    )
    if noise is not None:
        how += p(
            f"So few {kind(facts).rows} scatter even if every probability is exact:",
            "that is the part that comes by chance alone.",
        )
    how += p(METHODS[method].format(kind(facts).rows)) if isinstance(method, str) and method in METHODS else ""
    return section("trust", "Can its probabilities be trusted?", how, body)


def unknown(facts: Record) -> str:
    """What share of foreign input is caught, and at which cost."""
    given = record(facts.get("unknown"))
    caught, low, high, refused = (number(given.get(key)) for key in ("caught", "caught_low", "caught_high", "refused"))
    rows = []
    if caught is not None:
        cells = (percent(caught), span(low, high) if low is not None and high is not None else "")
        rows.append(Strip("foreign input caught", caught, low, high, cells=cells, strong=True))
    if refused is not None:
        rows.append(Strip("good input refused", refused, cells=(percent(refused), ""), pale=True))
    body = p(show(given["says"], SENTENCE), kind="lead") if given.get("says") else ""
    body += strips("Unknown input", ("share", "0 to 100 %", "value", "95 % interval"), rows) if rows else ""
    left_out = []
    for row in records(given.get("per_class")):
        share, n = number(row.get("caught")), number(row.get("n"))
        if share is not None:
            cells = (percent(share), count(n) if n is not None else "")
            left_out.append((share, Strip(show(row.get("label")), share, cells=cells)))
    left_out.sort(key=lambda pair: pair[0])
    if left_out:
        heads = ("label left out", "caught", "value", kind(facts).rows)
        body += fold("Each label left out in turn", strips("Caught", heads, [strip for _, strip in left_out]))
    how = p("Input unlike everything in your data is answered with “unknown” instead of a guess.")
    how += p(
        "To see how well, each label was left out of training in turn and then sent in as foreign input.",
        "That is the hard case: input from another world altogether is caught more often.",
    )
    return section("unknown-h", "When it says “unknown”", how, body)


def thresholds(facts: Record) -> str:
    """Several labels: the probability from which each label is given."""
    rows, called = [], kind(facts)
    for row in records(facts.get("thresholds")):
        value, n = number(row.get("threshold")), number(row.get("n"))
        if value is not None:
            rows.append(Strip(show(row.get("label")), value, cells=(f"{value:.2f}", count(n) if n is not None else "")))
    shown, hidden = shorter(rows, FEW)
    along = pictures.Axis(0.0, 1.0, [(0, "0"), (0.5, "0.5"), (1, "1")])
    heads = ("label", "given from", "threshold", called.rows)
    body = strips("Thresholds", heads, shown, along, line=0.5) if shown else ""
    rest = strips("The other thresholds", heads, hidden, along, line=0.5) if hidden else ""
    body += fold(f"The other {plural(len(hidden), 'label')}", rest)
    how = p(
        f"A {called.row} gets every label whose probability reaches that label's threshold,",
        f"chosen on held-out {called.rows} for the best F1.",
    )
    how += p(
        f"A label with few {called.rows} keeps a threshold near the common one, so that it is not tuned to chance."
    )
    return section("thresholds", "When a label is given", how, body)
