"""The demo's data is what its planted.json says."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

TICKETS = Path(__file__).parent.parent / "examples" / "tickets"


def _rows(name: str) -> list[tuple[str, str]]:
    with (TICKETS / name).open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["message", "queue"]
    return [(message, queue) for message, queue in rows]


def test_the_planted_faults_are_there_and_no_others() -> None:
    rows, planted = _rows("tickets.csv"), json.loads((TICKETS / "planted.json").read_text("utf-8"))
    assert len(rows) == 300
    first: dict[str, int] = {}
    duplicates = []
    for n, (message, _) in enumerate(rows, 1):
        if message in first:
            duplicates.append({"row": n, "of": first[message]})
        first.setdefault(message, n)
    assert duplicates == planted["duplicates"]
    assert all(rows[d["row"] - 1] == rows[d["of"] - 1] for d in duplicates)
    assert [n for n, (_, queue) in enumerate(rows, 1) if not queue] == [d["row"] for d in planted["unlabelled"]]
    for fault in (*planted["wrong_labels"], *planted["foreign"]):
        assert rows[fault["row"] - 1][1] == fault["given"]
        assert fault["given"] != fault.get("true")
    sizes = Counter(queue for _, queue in rows if queue)
    assert len(sizes) == 8
    assert 30 <= min(sizes.values()) <= max(sizes.values()) <= 45


def test_the_test_rows_and_the_new_texts_are_unseen() -> None:
    seen = {message.casefold() for message, _ in _rows("tickets.csv")}
    test = _rows("test.csv")
    new = (TICKETS / "new.txt").read_text("utf-8").splitlines()
    assert set(Counter(queue for _, queue in test).values()) == {10}
    assert {queue for _, queue in test} == {queue for _, queue in _rows("tickets.csv")} - {""}
    texts = [message.casefold() for message, _ in test] + [text.casefold() for text in new]
    assert len(set(texts)) == 90
    assert not seen & set(texts)
