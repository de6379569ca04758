"""Which part of a confusion matrix to show: all of it, or the block of labels that are mixed up most."""

from __future__ import annotations

from headstart.report.pictures import heat
from headstart.report.words import Record, count, number, plain, plural, sequence, show

BLOCK = 24  # labels shown when there are more than fit


def most_confused(counts: list[list[float]], most: int) -> list[int]:
    """At most `most` labels by the mistakes between them, ordered so that those taken for each other are neighbours.

    Pairs are taken by their mistakes in both directions, the largest first (ties by position); a label new to the block
    is put beside the one it is taken for.
    """
    c = len(counts)
    pairs = sorted(
        (-(counts[i][j] + counts[j][i]), i, j) for i in range(c) for j in range(i + 1, c) if counts[i][j] + counts[j][i]
    )
    order: list[int] = []
    for _, i, j in pairs:
        new = [k for k in (i, j) if k not in order]
        if len(order) + len(new) > most:
            continue
        if len(new) == 1:
            order.insert(order.index(j if new[0] == i else i) + 1, new[0])
        else:
            order += new
    return order


def mixed_up(confusion: Record) -> tuple[str, str]:
    """The heat map of a confusion record {"labels", "counts"} and a sentence on what it leaves out; ('', '') if unusable."""
    names = list(sequence(confusion.get("labels")))
    counts = [[max(0.0, number(v) or 0.0) for v in sequence(row)] for row in sequence(confusion.get("counts"))]
    c = len(names)
    if not c or len(counts) != c or any(len(row) != c for row in counts):
        return "", ""
    if c <= BLOCK:
        return heat("Confusion table", [show(n, 40) for n in names], [plain(n) for n in names], counts, None), ""
    block = most_confused(counts, BLOCK)
    wrong = sum(sum(row) for row in counts) - sum(counts[i][i] for i in range(c))
    if not block:
        return "", f"None of the {count(c)} labels was taken for another."
    inside = [[counts[i][j] for j in block] for i in block]
    rest = [sum(counts[i]) - sum(row) for i, row in zip(block, inside, strict=True)]
    kept = sum(sum(row) for row in inside) - sum(counts[i][i] for i in block)
    said = (
        f"Of {count(c)} labels the table shows the {count(len(block))} that are taken for each other most, neighbours side by side:"
        f" {count(kept)} of all {plural(wrong, 'mistake')}. “Elsewhere” counts answers outside them."
    )
    return heat(
        "Confusion table of the labels mixed up most",
        [show(names[i], 40) for i in block],
        [plain(names[i]) for i in block],
        inside,
        rest,
    ), said
