"""What the figures mean, in sentences: facts in, sentences out, the most important first.

`facts` is the dictionary that `proof` makes and the report shows; docs/report.md explains every piece.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]


def _rows(facts: Facts) -> str:
    return "pictures" if facts.get("modality") == "image" else "rows"


def _many(facts: Facts) -> str:
    return "pictures" if facts.get("modality") == "image" else "texts"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _range(figures: Facts) -> str:
    return f"{100 * figures['low']:.1f} to {100 * figures['high']:.1f}"


def figure(card: Facts) -> str:
    """The headline figure of a model's card, in a few words."""
    figures = card["figures"]["test"] or card["figures"]["estimate"]
    if figures is None:
        return "not measured"
    where = "test" if card["figures"]["test"] else "cross-fitted"
    if card["task"] == "regression":
        return f"R² {figures['r2']:.3f} ({where})"
    if card["task"] == "multilabel":
        return f"micro F1 {_percent(figures['micro_f1'])} ({where})"
    return f"{_percent(figures['accuracy'])} ({_range(figures)}, {where})"


def sentences(facts: Facts) -> list[str]:
    """The verdict on a model; the first sentence says how good it is."""
    if facts["estimate"] is None and facts["test"] is None:
        found = [_unproven(facts)]
    elif facts["task"] == "regression":
        found = [_number(facts)]
    elif facts["task"] == "multilabel":
        found = [_several(facts)]
    else:
        found = [_one_label(facts), *_against_majority(facts)]
    found += _curve(facts)
    found += _tuning(facts) + _student(facts) + _base(facts)
    if facts.get("advice"):
        found.append(facts["advice"])
    found += _weak(facts)
    found += _suspects(facts)
    found += _unknown(facts)
    found += _overlap(facts)
    found += _faults(facts)
    if facts["head"].get("tie"):
        found.append(facts["head"]["tie"])
    return found


def _shown(facts: Facts) -> tuple[Facts, str]:
    if facts["test"] is not None:
        return facts["test"], f"the {facts['test']['n']:,} test {_rows(facts)}"
    return facts[
        "estimate"
    ], f"{_many(facts)} like these ({facts['estimate']['n']:,} examples, {facts['estimate']['how']})"


def _unproven(facts: Facts) -> str:
    if facts["head"]["name"] == "prior":
        return (
            "A zero-shot model: it knows only the label names, nothing was measured. Label 8 examples a class and fit "
            "again to know how good it is."
        )
    return (
        f"Nothing could be measured: {facts['data']['used']:,} examples are too few to hold any out. "
        "Label at least 2, better 8, a class, or give --test."
    )


def _one_label(facts: Facts) -> str:
    figures, where = _shown(facts)
    line = f"Right on {_percent(figures['accuracy'])} of {where}; 95 % interval {_range(figures)}."
    if figures["n"] < 100:
        line += f" With {figures['n']} examples that is a rough figure."
    return line


def _several(facts: Facts) -> str:
    figures, where = _shown(facts)
    half = figures.get("at_half")
    line = (
        f"Micro F1 {_percent(figures['micro_f1'])}, macro F1 {_percent(figures['macro_f1'])}, every label right on "
        f"{_percent(figures['accuracy'])} ({_range(figures)}) of {where}."
    )
    if half:
        line += f" Without tuned thresholds: {_percent(half['micro_f1'])} and {_percent(half['macro_f1'])}."
    return line


def _number(facts: Facts) -> str:
    figures, where = _shown(facts)
    return (
        f"R² {figures['r2']:.3f} (95 % interval {figures['low']:.3f} to {figures['high']:.3f}) on {where}; off by "
        f"{figures['mae']:.4g} on average, where always saying the median is off by {figures['baseline_mae']:.4g}."
    )


def _against_majority(facts: Facts) -> list[str]:
    classes = facts["data"]["classes"]
    total = sum(row["n"] for row in classes)
    if not total:
        return []
    common = max(classes, key=lambda row: row["n"])
    share = common["n"] / total
    figures, _ = _shown(facts)
    line = f"Always saying {common['label']!r} would be right on {_percent(share)}."
    if figures["low"] <= share:
        return [
            line
            + f" The model is not shown to be better than that: these {_many(facts)} may not tell the labels apart."
        ]
    return [line] if share >= 0.3 else []


def _curve(facts: Facts) -> list[str]:
    return [facts["curve"]["says"]] if facts.get("curve") else []


def _tuning(facts: Facts) -> list[str]:
    """What tuning brought, or that it brought nothing."""
    tuning = facts.get("tuning")
    if not tuning:
        return []
    tried = [row for row in tuning["rungs"] if row["rung"] != "linear"]
    best = next((row for row in tried if row["kept"]), None)
    if best is not None:
        k, of = best["blocks"], tuning.get("of")
        last = f"the last {k}" if k > 1 else "the last"
        which = (
            f"all {k} blocks" if k == of else f"{last} of {of} blocks" if of else f"{last} block{'s' if k > 1 else ''}"
        )
        return [
            f"Tuning {which} gained {_gain(best['gain'], facts)} on folds (give or take "
            f"{_gain(2 * best['noise'], facts, unit=False)}) over the head alone."
        ]
    if not tried:
        return ["Tuning was not tried: it would not have been finished in time. The head alone is what was saved."]
    return ["Tuning was tried and did not beat the head alone."]


def _gain(value: float, facts: Facts, *, unit: bool = True) -> str:
    """A difference: points of accuracy or F1, or R²."""
    if facts["task"] == "regression":
        return f"{value:.3f}{' of R²' if unit else ''}"
    return f"{100 * value:.1f}{' points' if unit else ''}"


def _student(facts: Facts) -> list[str]:
    """How a student compares with its teacher."""
    found = facts.get("distilled")
    if not found:
        return []
    alike, times = found["agreement"], found["quicker"]
    told = f"gives {100 * alike:.0f} % of its answers"
    if facts["task"] == "regression":
        told = f"gives numbers that correlate with its by {alike:.3f}"
    speed = "about its speed" if abs(times - 1) <= 0.2 else f"{float(f'{times:.2g}'):,g} times its speed"
    line = f"A student of {found['from']}: {told} at {speed}."
    if facts.get("test") is not None:
        return [line]
    return [
        line,
        "Its figure flatters: the student had not seen these examples, but its teacher had, and tells of them through its "
        "other answers. Measure it on examples that neither has seen: headstart evaluate.",
    ]


def _base(facts: Facts) -> list[str]:
    """What is to be said of a backbone that is not as it was published, where nothing else says it."""
    said = facts["backbone"].get("said") if facts.get("backbone") else None
    if not said or facts.get("tuning") or facts.get("distilled"):
        return []
    return [f"Its base is {said}; what was retrained is in the model's folder."]


def _weak(facts: Facts) -> list[str]:
    rows = [row for row in facts.get("per_class") or [] if row["n"] >= 5]
    if len(rows) < 3 or not facts["estimate"]:
        return []
    weak = sorted(rows, key=lambda row: row["f1"])[:3]
    if weak[0]["f1"] > 0.9:
        return []
    return ["Weakest: " + ", ".join(f"{row['label']} (F1 {_percent(row['f1'])}, n {row['n']})" for row in weak) + "."]


def _suspects(facts: Facts) -> list[str]:
    n = len(facts.get("suspects") or [])
    if not n:
        return []
    return [f"{n} label{'s look' if n > 1 else ' looks'} wrong; the report lists them. Correct them and fit again."]


def _unknown(facts: Facts) -> list[str]:
    return [facts["unknown"]["says"]] if facts.get("unknown") else []


def _overlap(facts: Facts) -> list[str]:
    overlap = facts["data"].get("test_overlap")
    if not overlap:
        return []
    line = f"{overlap:,} test {_rows(facts)} also occur in the training data, so the test figure flatters."
    apart = facts["test"].get("apart")
    if apart:
        line += f" Without them: {_percent(apart['accuracy'])} ({_range(apart)}, n = {apart['n']:,})."
    return [line]


def _faults(facts: Facts) -> list[str]:
    faults = facts["data"].get("faults")
    if not faults:
        return []
    first = f"{faults[0]['name']} ({faults[0]['reason'].rstrip('.')})"
    if len(faults) == 1:
        return [f"One file could not be read and was left out: {first}."]
    return [f"{len(faults):,} files could not be read and were left out, the first is {first}; the report lists them."]
