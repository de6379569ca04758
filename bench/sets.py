"""Other real sets, as they lie, beside TF-IDF and a linear SVM on the same split."""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

from bench import texts
from bench.table import SHARED, Row, run

TITLE = "Other sets"


def fit(data: Path, project: Path, *more: str) -> dict:
    """`headstart fit --json` on a file."""
    done = run([sys.executable, "-m", "headstart", "fit", str(data), "--project", str(project), "--json", *more])
    return json.loads(done.out)


def tfidf(train: texts.Rows, test: texts.Rows) -> float:
    """Accuracy of TF-IDF (words 1-2, characters 2-5) with a linear SVM."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.svm import LinearSVC

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    model = make_pipeline(make_union(words, characters), LinearSVC())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(*zip(*train, strict=True))
    return float(np.mean(model.predict([t for t, _ in test]) == np.array([label for _, label in test])))


def halves(rows: texts.Rows) -> tuple[texts.Rows, texts.Rows]:
    """Four fifths and one fifth; equal texts on one side."""
    kinds = sorted({text for text, _ in rows})
    drawn = np.random.default_rng(0).random(len(kinds)) < 0.2
    testing = {text for text, test in zip(kinds, drawn, strict=True) if test}
    return [r for r in rows if r[0] not in testing], [r for r in rows if r[0] in testing]


def rows() -> list[Row]:
    """sms_spam as it lies; polarity and medical abstracts with a test part; several labels at once."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        lying = fit(SHARED / "data/sms_spam/spam.csv", here, "--name", "sms")
        estimate = lying["estimate"]
        found.append(
            Row("sms_spam as it lies, no flags, duplicates on one side", shown(estimate), ">= 98.5 %",
                estimate["accuracy"] >= 0.985, f"n = {estimate['n']:,}")
        )  # fmt: skip
        for name, all_rows in (("sentence_polarity", texts.polarity()), ("medical_abstracts", texts.medical())):
            train, test = halves(all_rows)
            texts.write_csv(here / "train.csv", train)
            texts.write_csv(here / "test.csv", test)
            ours = fit(here / "train.csv", here, "--test", str(here / "test.csv"), "--name", name.replace("_", "-"))
            found.append(
                Row(f"{name}, four fifths to train", shown(ours["test"]), "", None,
                    f"TF-IDF + linear SVM {100 * tfidf(train, test):.1f} %, n = {ours['test']['n']:,}; head {ours['head']['name']}")
            )  # fmt: skip
        several = texts.nlupp()
        with open(here / "nlupp.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text, "intents": intents}) + "\n" for text, intents in several)
        ours = fit(here / "nlupp.jsonl", here, "--name", "nlupp")["estimate"]
        half = ours["at_half"]
        found.append(
            Row("nlupp banking, several labels at once, cross-fitted", f"micro F1 {100 * ours['micro_f1']:.1f}, macro F1 "
                f"{100 * ours['macro_f1']:.1f}", "", None, f"at 0.5: micro {100 * half['micro_f1']:.1f}, macro "
                f"{100 * half['macro_f1']:.1f}; n = {ours['n']:,}")
        )  # fmt: skip
    return found


def shown(figures: dict) -> str:
    """Accuracy with its interval."""
    return f"{100 * figures['accuracy']:.1f} % ({100 * figures['low']:.1f} to {100 * figures['high']:.1f})"
