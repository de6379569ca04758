"""What the page says, one function a section: facts in, HTML out, '' when the facts hold nothing to say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headstart.report import pictures
from headstart.report.confusion import mixed_up
from headstart.report.pictures import Bin, Point, Strip, strips
from headstart.report.words import (
    SENTENCE,
    TEXT,
    Record,
    clean,
    count,
    figure,
    number,
    percent,
    plain,
    plural,
    points,
    record,
    records,
    seconds,
    sequence,
    show,
    span,
)

FEW = 20  # rows of a long list shown before it folds
CARDS = 8  # examples shown before they fold


def section(ident: str, heading: str, how: str, body: str) -> str:
    """A section: its heading and how to read it on the left, its picture on the right; nothing without a body."""
    if not body:
        return ""
    return (
        f'<section aria-labelledby="{ident}"><div class="how"><h2 id="{ident}">{heading}</h2>{how}</div>'
        f'<div class="body">{body}</div></section>'
    )


def p(*sentences: str, kind: str = "") -> str:
    """A paragraph of escaped sentences; nothing without a sentence."""
    said = " ".join(s for s in sentences if s)
    return f"<p{f' class={kind}' if kind else ''}>{said}</p>" if said else ""


def fold(summary: str, body: str) -> str:
    """Something to open."""
    return f"<details><summary>{summary}</summary>{body}</details>" if body else ""


def facts_list(pairs: Sequence[tuple[str, str]]) -> str:
    """A description list of escaped pairs; pairs without a value are left out."""
    inside = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs if value)
    return f"<dl>{inside}</dl>" if inside else ""


def how_good(facts: Record) -> str:
    """The headline figure with its interval and baseline, and every other overall figure beside it."""
    test, estimate = record(facts.get("test")), record(facts.get("estimate"))
    task = facts.get("task")
    main = test if number(test.get(_headline(task)[0])) is not None else estimate
    key, name, low_key, high_key, meaning = _headline(task)
    value = number(main.get(key))
    if value is None:
        return ""
    low, high = number(main.get(low_key)), number(main.get(high_key))
    base = _baseline(facts, main) if task == "classification" else None
    where = _where(main, main is test)
    interval = f'<span class="range">{span(low, high)}</span>' if low is not None and high is not None else ""
    body = (
        f'<p class="big"><strong>{percent(value)}</strong> <span>{name} {where}{interval and ", 95 % interval " + interval}</span></p>'
        f'<div class="hero">{pictures.gauge("main", value, low, high, base, name)}</div>'
    )
    rows: list[Strip] = []
    for source, word in ((test, "test file"), (estimate, "estimate")):
        rows += _overall(source, word, str(task))
    if len(rows) > 1:
        body += strips("All overall figures", ("figure", "0 to 100 %", "value", "95 % interval"), rows, pictures.SHARE)
    if any(row.second is not None for row in rows):
        body += p("The hollow mark is the same figure with every threshold at 0.5.", kind="small")
    body += _errors(test, estimate)
    how = p(meaning) + p(
        "The bar is the interval: run the same work on other rows of the same kind, and the figure lands inside it about"
        " 19 times in 20. A wide bar means too few rows to say more.",
    )
    if base is not None:
        how += p("The dashed line is what you would get without a model, by always giving the commonest label.")
    return section("good", "How good it is", how, body)


def _headline(task: object) -> tuple[str, str, str, str, str]:
    """The key of the figure a task is judged by, its name, the keys of its interval, and what it means."""
    if task == "regression":
        return (
            "r2",
            "of the variation explained (R²)",
            "low",
            "high",
            (
                "R² is the share of the ups and downs in your numbers that the model predicts: 100 % is exact, 0 % is no better than"
                " always giving the average."
            ),
        )
    if task == "multilabel":
        return (
            "micro_f1",
            "micro F1",
            "micro_f1_low",
            "micro_f1_high",
            (
                "F1 is one figure for two faults: labels given wrongly and labels missed. 100 % is neither. Micro F1 counts every"
                " label given alike; macro F1 is the average over labels, so rare ones weigh as much as common ones."
            ),
        )
    return (
        "accuracy",
        "accuracy",
        "low",
        "high",
        (
            "Accuracy is the share of answers that are right, on rows the model had not seen. Macro F1 is the average over labels of"
            " F1, so a rare label weighs as much as a common one."
        ),
    )


def _where(main: Record, is_test: bool) -> str:
    n = number(main.get("n"))
    if is_test:
        return f"on the {plural(n, 'row')} of your test file" if n is not None else "on your test file"
    return (
        f"estimated on {plural(n, 'row')} held out in turn" if n is not None else "estimated on rows held out in turn"
    )


def _baseline(facts: Record, main: Record) -> tuple[float, str] | None:
    """The share of the commonest label, from the rows judged if they are known, else from the data."""
    same = (facts.get("per_class_from") == "test") == (main is facts.get("test"))
    rows = records(facts.get("per_class")) if same else records(record(facts.get("data")).get("classes"))
    sizes = [(n, row.get("label")) for row in rows if (n := number(row.get("n"))) is not None and n >= 0]
    total = sum(n for n, _ in sizes)
    if len(sizes) < 2 or total <= 0:
        return None
    n, label = max(sizes, key=lambda size: size[0])
    return n / total, f"always {plain(label, 16)}: {percent(n / total)}"


def _overall(source: Record, word: str, task: str) -> list[Strip]:
    half = record(source.get("at_half"))
    kinds = {
        "multilabel": (("micro_f1", "micro F1"), ("macro_f1", "macro F1"), ("accuracy", "all labels of a row right")),
        "regression": (("r2", "R²"),),
    }.get(task, (("accuracy", "accuracy"), ("macro_f1", "macro F1")))
    rows = []
    for key, name in kinds:
        value = number(source.get(key))
        if value is None:
            continue
        prefix = "" if key in ("accuracy", "r2") else f"{key}_"
        low, high = number(source.get(f"{prefix}low")), number(source.get(f"{prefix}high"))
        interval = span(low, high) if low is not None and high is not None else ""
        tip = f"{name}, {word}: {percent(value)}{interval and ', interval ' + interval}"
        cells = (percent(value), interval)
        rows.append(Strip(f"{name} <small>{word}</small>", value, low, high, number(half.get(key)), cells, tip))
    return rows


def _errors(test: Record, estimate: Record) -> str:
    """Regression: the typical error in the unit of the data, against always giving the average."""
    rows = []
    for source, word in ((test, "test file"), (estimate, "estimate")):
        for key, name in (
            ("mae", "mean error"),
            ("rmse", "root mean square error"),
            ("baseline_mae", "mean error of always the average"),
        ):
            value = number(source.get(key))
            if value is not None and value >= 0:
                cells = (figure(value),)
                rows.append(Strip(f"{name} <small>{word}</small>", value, cells=cells, strong=key == "mae"))
    if not rows:
        return ""
    along = pictures.axis(0.0, max(r.value or 0.0 for r in rows))
    return strips("Errors, in the unit of your numbers", ("error", "size", "value"), rows, along, bar=True)


def more_labels(facts: Record) -> str:
    """The learning curve and what twice the labels would bring."""
    given = record(facts.get("curve"))
    known = [point for row in records(given.get("points")) if (point := _point(row)) is not None]
    known.sort(key=lambda point: point.n)
    share = facts.get("task") != "regression"
    doubling = record(given.get("doubling"))
    doubled = _point(doubling)
    if doubled is not None and (not known or doubled.n <= known[-1].n):
        doubled = None
    body = p(show(given["says"], SENTENCE), kind="lead") if given.get("says") else ""
    if len(known) > 1:
        name = {"multilabel": "micro F1", "regression": "R²"}.get(str(facts.get("task")), "accuracy")
        body += pictures.curve("curve", known, doubled, share=share, title="Learning curve", y_name=name)
    gain, low, high = (number(doubling.get(key)) for key in ("gain", "gain_low", "gain_high"))
    if doubled is not None and gain is not None and share:
        between = f" (95 % interval {points(low)} to {points(high)})" if low is not None and high is not None else ""
        body += p(f"Twice the labels: <strong>{points(gain)} points</strong>{between}.", kind="small")
    body += fold("Label by label: which ones want more examples", _gains(records(given.get("per_class"))))
    how = p("Each point is a model trained on a part of your labels and judged on rows it had not seen.") + p(
        "Still rising at the right: more labels help. Flat: look at wrong labels and mixed-up pairs instead.",
        "The hollow mark is a projection to twice your labels, not a measurement." if doubled is not None else "",
    )
    return section("curve-h", "Would more labels help?", how, body)


def _point(row: Record) -> Point | None:
    n, value = number(row.get("n")), number(row.get("accuracy"))
    if n is None or value is None or n < 1:
        return None
    low, high = number(row.get("low")), number(row.get("high"))
    return Point(n, value, low, high) if low is not None and high is not None else Point(n, value, None, None)


def _gains(rows: list[Record]) -> str:
    strip = []
    for row in sorted(rows, key=lambda row: -(number(row.get("gain")) or 0.0)):
        recall, half, gain = (number(row.get(key)) for key in ("recall", "recall_half", "gain"))
        if recall is not None and half is not None:
            n = number(row.get("n"))
            cells = (
                percent(recall),
                percent(half),
                points(recall - half if gain is None else gain),
                count(n) if n is not None else "",
            )
            strip.append(Strip(show(row.get("label")), recall, second=half, cells=cells, tip=plain(row.get("label"))))
    heads = ("label", "found with half (hollow) and all labels", "all", "half", "gain expected", "examples")
    return strips("Gain expected for each label", heads, strip) if strip else ""


def by_label(facts: Record) -> str:
    """F1 of each label with its interval, the weakest first."""
    rows = []
    for row in records(facts.get("per_class")):
        f1 = number(row.get("f1"))
        if f1 is None:
            continue
        n, precision, recall, low, high = (
            number(row.get(key)) for key in ("n", "precision", "recall", "f1_low", "f1_high")
        )
        cells = (
            percent(f1),
            span(low, high) if low is not None and high is not None else "",
            count(n) if n is not None else "",
            percent(precision) if precision is not None else "",
            percent(recall) if recall is not None else "",
        )
        tip = f"{plain(row.get('label'))}: F1 {percent(f1)}{cells[1] and ', interval ' + cells[1]}"
        rows.append((f1, Strip(show(row.get("label")), f1, low, high, None, cells, tip)))
    rows.sort(key=lambda pair: pair[0])
    heads = ("label", "F1 and its interval", "F1", "95 % interval", "rows", "precision", "recall")
    shown, hidden = [strip for _, strip in rows[:FEW]], [strip for _, strip in rows[FEW:]]
    if len(hidden) <= 4:
        shown, hidden = shown + hidden, []
    body = strips("Labels, weakest first", heads, shown) if shown else ""
    body += (
        fold(f"The other {plural(len(hidden), 'label')}", strips("The other labels", heads, hidden)) if hidden else ""
    )
    source = "your test file" if facts.get("per_class_from") == "test" else "rows held out in turn"
    how = p(f"Weakest first, judged on {source}.") + p(
        "<dfn>Precision</dfn>: of the rows given this label, how many deserved it. <dfn>Recall</dfn>: of the rows that"
        " deserve it, how many got it. <dfn>F1</dfn> is low when either is low.",
    )
    return section("labels", "Label by label", how, body)


def mix_ups(facts: Record) -> str:
    """The confusion matrix and the most confused pairs with real examples."""
    matrix, note = mixed_up(record(facts.get("confusion")))
    pairs = ""
    for pair in records(facts.get("confused")):
        n = number(pair.get("count"))
        heading = f"{show(pair.get('true'))} <span class=to>taken for</span> {show(pair.get('predicted'))}"
        times = f" <small>{count(n)}×</small>" if n is not None else ""
        pairs += f"<h3>{heading}{times}</h3>" + _cards(records(pair.get("examples")), lambda row: [])
    body = matrix + p(note, kind="small") + pairs
    how = (
        p(
            "Each row of the table is a true label, each column an answer. Blue is right, orange is wrong, darker is more.",
        )
        if matrix
        else ""
    )
    how += p("Two labels often taken for each other may be one label, or need a clearer rule for people first.")
    return section("mixed", "What it mixes up", how, body)


def _cards(rows: Sequence[Record], more: Callable[[Record], list[str]]) -> str:
    """Examples as a list: the text, and below it where it is and what was said of it."""
    cards = []
    for row in rows:
        at, probability = number(row.get("row")), number(row.get("probability"))
        notes = [f"row {count(at)}"] if at is not None else []
        notes += more(row)
        notes += [f"sure to {percent(probability, 0)}"] if probability is not None else []
        small = f'<span class="small">{" · ".join(notes)}</span>' if notes else ""
        cards.append(f"<li><q>{show(row.get('text'), TEXT)}</q>{small}</li>")
    return f'<ul class="cards">{"".join(cards)}</ul>' if cards else ""


def wrong_labels(facts: Record) -> str:
    """Rows whose label looks wrong, most suspicious first."""

    def labels(row: Record) -> list[str]:
        return [f'given <b class="given">{show(row.get("given"))}</b>, looks like <b>{show(row.get("suggested"))}</b>']

    rows = records(facts.get("suspects"))
    body = _cards(rows[:CARDS], labels) + fold(f"{count(len(rows) - CARDS)} more", _cards(rows[CARDS:], labels))
    how = p(
        "Models trained without these rows disagree with their labels. Most suspicious first; nothing was changed."
    ) + p(
        "About half of such rows turn out to be truly wrong; the others are hard. Mend what is wrong in your file and fit again.",
    )
    return section("suspects", "Labels that look wrong", how, body)


def trust(facts: Record) -> str:
    """The reliability picture and the calibration error before and after."""
    given = record(facts.get("calibration"))
    bins = []
    for row in records(given.get("bins")):
        low, high, n, confidence, accuracy = (
            number(row.get(key)) for key in ("low", "high", "n", "confidence", "accuracy")
        )
        if n is not None and n > 0 and confidence is not None and accuracy is not None:
            bins.append(Bin(low or 0.0, high or 1.0, n, confidence, accuracy))
    before, after = number(given.get("ece_before")), number(given.get("ece_after"))
    body = pictures.reliability("reliability", bins) if bins else ""
    if after is not None:
        rows = [Strip("before", before, cells=(f"{100 * before:.1f} points",))] if before is not None else []
        rows.append(Strip("after", after, cells=(f"{100 * after:.1f} points",), strong=True))
        along = pictures.axis(0.0, max(row.value or 0.0 for row in rows), share=True)
        body += strips("Calibration error (ECE)", ("calibration", "average distance", "ECE"), rows, along, bar=True)
    method = clean(given.get("method", "none"))
    way = {
        "temperature": "The scores were adjusted by one number (temperature), chosen on held-out rows.",
        "isotonic": "The scores were adjusted by a rising curve (isotonic), chosen on held-out rows.",
        "none": "The scores needed no adjustment.",
    }.get(method, f"The scores were adjusted: {show(method)}.")
    how = p(
        "When it says 80 %, is it right in 80 of 100 cases? On the dashed line: yes. Below it the model is too sure, above it too modest."
    )
    how += p("Larger marks hold more answers.", way) + p(
        "<dfn>ECE</dfn>, the expected calibration error, is the average distance from the line, in percentage points.",
    )
    return section("trust", "Can its probabilities be trusted?", how, body)


def unknown(facts: Record) -> str:
    """What share of foreign input is caught, and at which cost."""
    given = record(facts.get("unknown"))
    caught, refused = number(given.get("caught")), number(given.get("refused"))
    low, high = number(given.get("caught_low")), number(given.get("caught_high"))
    rows = []
    if caught is not None:
        cells = (percent(caught), span(low, high) if low is not None and high is not None else "")
        rows.append(Strip("foreign input caught", caught, low, high, cells=cells, strong=True))
    if refused is not None:
        rows.append(Strip("good input refused", refused, cells=(percent(refused), "")))
    body = p(show(given["says"], SENTENCE), kind="lead") if given.get("says") else ""
    body += strips("Unknown input", ("share", "0 to 100 %", "value", "95 % interval"), rows) if rows else ""
    strip = []
    for row in sorted(records(given.get("per_class")), key=lambda row: number(row.get("caught")) or 0.0):
        share, n = number(row.get("caught")), number(row.get("n"))
        if share is not None:
            strip.append(
                Strip(show(row.get("label")), share, cells=(percent(share), count(n) if n is not None else ""))
            )
    if strip:
        body += fold(
            "Each label left out in turn",
            strips("Caught when the label is foreign", ("label left out", "caught", "value", "rows"), strip),
        )
    how = p("Input unlike everything in your data is answered with “unknown” instead of a guess.") + p(
        "To estimate how well, each label was left out of training and then sent in as foreign input. Input that is further away"
        " than a left-out label of yours (another language, another subject) is caught more often.",
    )
    return section("unknown", "When it says “unknown”", how, body)


def thresholds(facts: Record) -> str:
    """Several labels: the probability from which each label is given."""
    rows = []
    for row in records(facts.get("thresholds")):
        value, n = number(row.get("threshold")), number(row.get("n"))
        if value is not None:
            rows.append(Strip(show(row.get("label")), value, cells=(f"{value:.2f}", count(n) if n is not None else "")))
    along = pictures.Axis(0.0, 1.0, [(0, "0"), (0.25, "0.25"), (0.5, "0.5"), (0.75, "0.75"), (1, "1")])
    heads = ("label", "given from", "threshold", "rows")
    shown, hidden = (rows, []) if len(rows) <= FEW + 4 else (rows[:FEW], rows[FEW:])
    body = strips("Thresholds", heads, shown, along, line=0.5) if shown else ""
    body += (
        fold(
            f"The other {plural(len(hidden), 'label')}", strips("The other thresholds", heads, hidden, along, line=0.5)
        )
        if hidden
        else ""
    )
    how = p(
        "A row gets every label whose probability reaches that label's threshold. They were chosen on held-out rows for the best F1."
    ) + p(
        "With few rows a threshold stays near the common one, so that small labels are not tuned to chance.",
    )
    return section("thresholds", "When a label is given", how, body)


def against_true(facts: Record) -> str:
    """Regression: predicted against true numbers."""
    pairs = []
    for pair in list(sequence(facts.get("scatter")))[:500]:
        pair = sequence(pair)
        if len(pair) == 2 and (true := number(pair[0])) is not None and (predicted := number(pair[1])) is not None:
            pairs.append((true, predicted))
    body = pictures.scatter("scatter", pairs) if pairs else ""
    how = p(
        "Each mark is one held-out row. On the dashed line the prediction is exact; the distance up or down from it is the error."
    )
    return section("scatter-h", "Predicted against true", how, body)


def data(facts: Record) -> str:
    """What was read, what was chosen, what was dropped."""
    given = record(facts.get("data"))
    pairs = [("file", show(given["name"])) if given.get("name") else ("file", "")]
    for key, name in (
        ("rows", "rows read"),
        ("used", "rows used"),
        ("unlabelled", "without a label"),
        ("duplicates", "duplicates"),
        ("conflicts", "same text, different labels"),
        ("groups", "groups kept together"),
        ("unlabelled_pool", "unlabelled rows used"),
        ("test_overlap", "test rows also in training"),
    ):
        n = number(given.get(key))
        pairs.append((name, count(n) if n is not None and (n > 0 or key in ("rows", "used", "test_overlap")) else ""))
    notes = "".join(f"<li>{show(note, SENTENCE)}</li>" for note in sequence(given.get("notes"))[:60])
    body = facts_list(pairs) + (f'<ul class="notes">{notes}</ul>' if notes else "")
    sizes = [
        (n, row.get("label"))
        for row in records(given.get("classes"))
        if (n := number(row.get("n"))) is not None and n >= 0
    ]
    if sizes:
        sizes.sort(key=lambda size: -size[0])
        along = pictures.axis(0.0, max(1.0, sizes[0][0]))
        rows = [Strip(show(label), n, cells=(count(n),)) for n, label in sizes]
        body += fold(
            f"Rows of each label ({count(sizes[-1][0])} to {count(sizes[0][0])})",
            strips("Rows of each label", ("label", "rows", "number"), rows, along, bar=True),
        )
    how = p(
        "What was read, which columns were chosen and why, and what was left out.",
        "Duplicates are kept on one side of every split, so they cannot flatter the figures.",
    )
    return section("data", "Your data", how, body)


def made(facts: Record) -> str:
    """The backbone, the head, why it was chosen, and where the time went."""
    backbone, head, time = (record(facts.get(key)) for key in ("backbone", "head", "seconds"))
    body = ""
    name, strength = head.get("name"), number(head.get("strength"))
    if name:
        details = [f"strength {figure(strength)}"] if strength is not None else []
        details += ["with unlabelled rows"] if head.get("pool") is True else []
        body += "<h3>Head</h3>" + p(
            f"<strong>{show(name)}</strong>{', ' + ', '.join(details) if details else ''}.",
            show(head["why"], SENTENCE) if head.get("why") else "",
        )
    body += _candidates(records(head.get("candidates")), head)
    body += p(show(head["tie"], SENTENCE), kind="small") if head.get("tie") else ""
    agreement, width = number(backbone.get("agreement")), number(backbone.get("width"))
    pairs = [
        (word, show(backbone[key], 120))
        for key, word in (
            ("name", "name"),
            ("licence", "licence"),
            ("source", "source"),
            ("cut", "cut"),
            ("precision", "precision"),
        )
        if backbone.get(key)
    ]
    pairs += [("agreement with float32", percent(agreement))] if agreement is not None else []
    pairs += [("numbers a text", count(width))] if width is not None else []
    body += "<h3>Backbone</h3>" + facts_list(pairs) if pairs else ""
    rows = [
        Strip(word, value, cells=(seconds(value),))
        for key, word in (("read", "read"), ("embed", "embed"), ("fit", "fit"), ("evaluate", "evaluate"))
        if (value := number(time.get(key))) is not None and value >= 0
    ]
    total = number(time.get("total"))
    if rows:
        along = pictures.axis(0.0, max(0.1, *(row.value or 0.0 for row in rows)))
        spent = f"Time: {seconds(total)} in all" if total is not None and total >= 0 else "Time"
        body += f"<h3>{spent}</h3>" + strips("Time spent", ("step", "seconds", "time"), rows, along, bar=True)
    how = p(
        "The <dfn>backbone</dfn> is a pre-trained network that turns each text into a row of numbers; it is not changed. The <dfn>head</dfn> is small, and yours: it learns your labels from those numbers."
    )
    how += (
        p("The candidates were judged on the same held-out rows. Bars that overlap a lot are as good as equal.")
        if head.get("candidates")
        else ""
    )
    return section("made", "How it was made", how, body)


def _candidates(rows: list[Record], chosen: Record) -> str:
    strip, ends = [], []
    for row in rows:
        value, low, high, strength = (number(row.get(key)) for key in ("accuracy", "low", "high", "strength"))
        if value is None:
            continue
        details = [f"strength {figure(strength)}"] if strength is not None else []
        details += ["unlabelled rows"] if row.get("pool") is True else []
        mine = all(
            row.get(a) == chosen.get(b) for a, b in (("head", "name"), ("strength", "strength"), ("pool", "pool"))
        )
        interval = span(low, high) if low is not None and high is not None else ""
        label = f"{show(row.get('head'))} <small>{', '.join([*details, *(['chosen'] if mine else [])])}</small>"
        strip.append(Strip(label, value, low, high, cells=(percent(value), interval), strong=mine))
        ends += [each for each in (value, low, high) if each is not None]
    if not strip:
        return ""
    return strips(
        "Candidates",
        ("candidate", "on held-out rows", "value", "95 % interval"),
        strip,
        pictures.axis(min(ends), max(ends), share=True),
    )


def again(facts: Record) -> str:
    """What it takes to make the same model again."""
    given, backbone = record(facts.get("data")), record(facts.get("backbone"))
    seed, form = number(facts.get("seed")), number(facts.get("format"))

    def digest(value: object) -> str:
        return f"<code>{show(value, 80)}</code>" if value else ""

    body = facts_list(
        [
            ("seed", f"{seed:.0f}" if seed is not None else ""),
            ("Headstart", show(facts["headstart"], 40) if facts.get("headstart") else ""),
            ("format", f"{form:.0f}" if form is not None else ""),
            ("data, SHA-256", digest(given.get("digest"))),
            ("backbone, SHA-256", digest(backbone.get("digest"))),
        ]
    )
    how = p("The same data, seed, backbone and version give the same model, byte for byte.")
    return section("again", "To make it again", how, body)
