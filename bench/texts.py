"""The text sets of $HEADSTART_SHARED as files that `headstart fit` and its peers read alike."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import numpy as np

from bench.table import SHARED

Rows = list[tuple[str, str]]


def banking(part: str) -> Rows:
    """Banking77, part 'train' or 'test'."""
    with open(SHARED / "data/banking77/banking_data" / f"{part}.csv", newline="", encoding="utf-8") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


def few(rows: Rows, n: int, seed: int) -> tuple[Rows, Rows]:
    """n rows a class, drawn class by class in sorted order, and the rest."""
    draw, labels = np.random.default_rng(seed), np.array([label for _, label in rows])
    chosen: set[int] = set()
    for label in sorted(set(labels)):
        chosen |= set(draw.choice(np.flatnonzero(labels == label), n, replace=False).tolist())
    return [rows[i] for i in sorted(chosen)], [row for i, row in enumerate(rows) if i not in chosen]


def polarity() -> Rows:
    """Film-review sentences, positive or negative."""
    rows: Rows = []
    with zipfile.ZipFile(SHARED / "data/sentence_polarity/sentence_polarity.zip") as archive:
        for name in sorted(archive.namelist()):
            if name.endswith((".pos", ".neg")):
                lines = archive.read(name).decode("latin-1").splitlines()
                rows += [(line.strip(), name[-3:]) for line in lines if line.strip()]
    return rows


def medical() -> Rows:
    """Medical abstracts with the names of their conditions."""
    folder = SHARED / "data/medical_abstracts"
    with open(folder / "medical_tc_labels.csv", newline="", encoding="utf-8") as file:
        names = {row["condition_label"]: row["condition_name"] for row in csv.DictReader(file)}
    with open(folder / "medical_tc_test.csv", newline="", encoding="utf-8") as file:
        return [(row["medical_abstract"], names[row["condition_label"]]) for row in csv.DictReader(file)]


def sms() -> Rows:
    """SMS messages, spam or ham."""
    with open(SHARED / "data/sms_spam/spam.csv", newline="", encoding="cp1252") as file:
        return [(row[1], row[0]) for row in list(csv.reader(file))[1:]]


def nlupp() -> list[tuple[str, list[str]]]:
    """NLU++ banking: texts with their intents, several at once."""
    rows = []
    for path in sorted((SHARED / "data/nlupp").rglob("banking/fold*.json")):
        for row in json.loads(path.read_text("utf-8")):
            rows.append((row["text"], row.get("intents", [])))
    return rows


def write_csv(path: Path, rows: Rows) -> Path:
    """Write rows with the header text,category."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "category"), *rows])
    return path
