"""What the climb of the ladder says, in sentences: facts in, sentences out, the most important first.

`facts` is what `advising.advise` makes. Figures are accuracy, F1 a row or R², by the task.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import distance, ladder

Facts = Mapping[str, Any]
FEW = 100  # rows below which a figure is said to be rough
PROMISED = 0.03  # gain from which a rung that was not tried is recommended with its price
NAMED = 5  # classes
SAID = {
    ladder.MAJORITY: "No model yet",
    ladder.NO_NETWORK: "A baseline without a network",
    ladder.STATIC: "The averaged token vectors of {base}",
    ladder.LINEAR: "A linear head on frozen features of {base}, cut {cut}",
    ladder.ALL: "All blocks of {base}, tuned",
}


def weakest(per_class: Sequence[Facts]) -> list[dict[str, Any]]:
    """The classes that more labels would help most: those that gained with the second half, then the least recalled.

    Gains of small classes move by chance, so they are shrunk before they are compared.
    """

    def need(row: Facts) -> float:
        size = row["n"] / (row["n"] + 20)
        return float(max(0.0, row["gain"]) * size + 0.5 * (1 - row["recall"]) * size)

    found = [row for row in per_class if row["gain"] > 0.02 or row["recall"] < 0.9]
    found = sorted(found, key=lambda row: -need(row))[:NAMED]
    return [{key: row[key] for key in ("label", "n", "recall", "gain")} for row in found]


def figure(task: str) -> str:
    """What the figures are."""
    return {"regression": "R²", "multilabel": "F1 a row"}.get(task, "accuracy")


def value(number: float, task: str) -> str:
    """A figure in words."""
    return f"{number:.3f}" if task == "regression" else f"{100 * number:.1f} %"


def span(row: Facts, task: str) -> str:
    """An interval in words."""
    if task == "regression":
        return f"{row['low']:.3f} to {row['high']:.3f}"
    return f"{100 * row['low']:.1f} to {100 * row['high']:.1f} %"


def name(row: Facts) -> str:
    """A rung in words."""
    kind = SAID.get(row["rung"], f"The last {row['rung'].removeprefix('blocks:')} blocks of {{base}}, tuned")
    if row["rung"] == "blocks:1":
        kind = "The last block of {base}, tuned"
    return kind.format(base=row["backbone"], cut=row["cut"])


def command(facts: Facts, data: str) -> str | None:
    """The next command, or None where there is nothing to fit. data: as the user names it."""
    best = facts["recommended"]
    if best["rung"] == ladder.MAJORITY:
        return None
    data = shlex.quote(data)
    if best["rung"] in (ladder.NO_NETWORK, ladder.STATIC, ladder.LINEAR):
        cut = "" if best["rung"] == ladder.NO_NETWORK else f" --cut {best['cut']}"
        return f"headstart fit {data} --backbone {best['backbone']}{cut}"
    k = facts["blocks"] if best["rung"] == ladder.ALL else best["rung"].removeprefix("blocks:")
    base = "" if best["backbone"] == "minilm" else f" --backbone {best['backbone']}"
    return f"headstart tune {data} --blocks {k}{base}"


def warnings(facts: Facts) -> list[str]:
    """What a reader of the page must know before relying on it."""
    best, found = facts["recommended"], []
    if facts["interrupted"]:
        found.append("Interrupted: this is what was found so far; rungs further up were not tried.")
    if best["n"] < FEW:
        found.append(f"{best['n']:,} examples are few to judge by: rungs that are points apart look alike here.")
    if facts["distance"]["level"] == "too far":
        found.append(facts["distance"]["sentence"])
    usual = facts["rungs"][0]["accuracy"]
    if facts["task"] == "classification" and usual is not None and best["low"] <= usual:
        found.append(
            f"It is not shown to be better than the same answer to everything ({value(usual, facts['task'])})."
        )
    return found


def sentences(facts: Facts) -> list[str]:
    """The advice; the first sentence says what to use."""
    best, task = facts["recommended"], facts["task"]
    found = [
        f"Use {name(best)[0].lower()}{name(best)[1:]}: {figure(task)} {value(best['accuracy'], task)} expected "
        f"({span(best, task)}, {best['n']:,} held-out examples)."
    ]
    if best["rung"] == ladder.MAJORITY:
        found = [
            f"Fit no model yet: nothing is better than the same answer to everything, {figure(task)} "
            f"{value(best['accuracy'], task)} ({span(best, task)}, {best['n']:,} held-out examples)."
        ]
    else:
        found.append(
            f"It took {best['seconds']:.1f} s to train and judge here; an example takes {best['ms']:.2g} ms, and it is "
            f"{best['mb']:,.1f} MB."
        )
    found += _ties(facts) + _tuning(facts)
    if facts["curve"] is not None:
        found.append(facts["curve"]["says"])
    if facts["classes"]:
        said = ", ".join(
            f"{row['label']} ({100 * row['recall']:.0f} % found, n {row['n']})" for row in facts["classes"]
        )
        found.append(f"The next labels help most with {said}.")
    if facts["distance"]["sentence"] and facts["distance"]["level"] != "too far":
        found.append(facts["distance"]["sentence"])
    if facts["n"] < facts["labelled"]:
        found.append(
            f"Judged on {facts['n']:,} of {facts['labelled']:,} labelled examples; with all of them it should be a little better."
        )
    return found


def _ties(facts: Facts) -> list[str]:
    """What cannot be told apart from it."""
    names = [row["rung"] for row in facts["rungs"]]
    at = names.index(facts["recommended"]["rung"])
    ties = [row["rung"] for row in facts["rungs"] if row["tie"]]
    dearer = [name for name in ties if names.index(name) > at]
    cheaper = [name for name in ties if names.index(name) < at and name != ladder.MAJORITY]
    found = []
    if dearer:
        found.append(f"These examples do not tell it from {' or '.join(dearer)}: a tie, and a tie goes to the cheaper.")
    if cheaper:
        found.append(
            f"These examples do not tell it from {' or '.join(cheaper)}, at less cost; on other sets the dearer rung is better, and that "
            "decides."
        )
    return found


def _tuning(facts: Facts) -> list[str]:
    """Whether tuning pays, as seen or as foreseen."""
    tuned = [row for row in facts["rungs"] if row["rung"] == ladder.ALL or row["rung"].startswith("blocks:")]
    tried, forecast = [row for row in tuned if row["tried"]], facts["forecast"]
    if tried or forecast is None:
        return []
    found = [forecast["says"]]
    why = next((row["why"] for row in tuned), "")
    if forecast["gain"] >= PROMISED and why:
        found.append(f"It was not tried: {why.rstrip('.')}.")
    return found


def worth(
    X: NDArray[np.float32], y: NDArray[np.integer[Any]], scores: NDArray[np.float32], *, name: str, modality: str = "text",
    groups: NDArray[np.int64] | None = None, seed: int = 0,
) -> str | None:  # fmt: skip
    """A sentence for `fit` where tuning would probably pay, else None.

    X: (n, d) the frozen features that were fitted; y: (n,) codes, -1 unlabelled; scores: (n, c) out of fold, NaN where a
    row was not held out. Costs a search for neighbours, and nothing where too little is wrong for a gain to be told.
    """
    held = np.flatnonzero(np.isfinite(scores).all(1) & (y >= 0))
    if modality != "text" or len(held) < ladder.FEW or scores.shape[1] < 2:
        return None
    accuracy = float((scores[held].argmax(1) == y[held]).mean())
    if ladder.paying(accuracy, n=len(held), signs=ladder.Signs(0.0))[0] < ladder.TOLD:
        return None
    lift = distance.neighbour_agreement(X, y, groups=groups, seed=seed).lift
    return ladder.worth(accuracy, n=len(held), signs=ladder.Signs(lift), name=name)
