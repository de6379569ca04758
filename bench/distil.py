"""The Banking77 model tuned on all rows, and a static student of it: accuracy, size and speed, in the same run."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from bench import texts
from bench.table import Row

TITLE = "Banking77 full: tuned, and distilled into a static student"


def rate(model, contents: list[str]) -> float:
    """Texts a second, features and head, nothing cached: the median of 5 passes."""
    passes = []
    for _ in range(5):
        start = time.perf_counter()
        model.answer(model.backbone.encode(contents))
        passes.append(time.perf_counter() - start)
    return len(contents) / statistics.median(passes)


def rows() -> list[Row]:
    """Teachers: the head on frozen float32 features, and the tuned model."""
    import headstart
    from headstart import api

    test, made = texts.banking("test"), []
    new = [text for text, _ in test]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train, held = (texts.write_csv(folder / f"{part}.csv", texts.banking(part)) for part in ("train", "test"))
        given = {"test": str(held), "project": folder}
        frozen = headstart.fit(str(train), name="frozen", precision="float32", **given)
        start = time.perf_counter()
        tuned, facts = headstart.tune(str(train), as_name="tuned", blocks=2, **given)
        seconds = time.perf_counter() - start
        assert tuned is not None
        one, before = (api.facts(model)["test"] for model in (tuned, frozen))
        made.append(
            Row("Banking77 full, tune --blocks 2", f"{100 * one['accuracy']:.2f} % ({100 * one['low']:.1f} to {100 * one['high']:.1f})",
                ">= 94 %", one["accuracy"] >= 0.94,
                f"frozen, float32 {100 * before['accuracy']:.2f} %; kept {facts['kept']}; {seconds:.0f} s")
        )  # fmt: skip
        print("   ", made[-1], flush=True)
        for teacher, what in ((frozen, "the head on frozen features"), (tuned, f"tuned, {facts['kept']}")):
            start = time.perf_counter()
            student, _ = headstart.distil(teacher.name, to="static", **given)
            seconds = time.perf_counter() - start
            assert student.folder is not None
            size = (
                sum(
                    (student.folder / f).stat().st_size
                    for f in ("static.json", "vectors.safetensors", "tokenizer.json")
                )
                / 1e6
            )
            his, its = (api.facts(one)["test"]["accuracy"] for one in (teacher, student))
            slow = rate(teacher, new)
            first = rate(api.load("tuned-static" if teacher is tuned else "frozen-static", project=folder), new[:1])
            quick = rate(student, new)
            share = its / his
            made.append(
                Row(f"teacher {what}", f"{100 * its:.2f} % of {100 * his:.2f} %: {100 * share:.1f} %; {size:.2f} MB; "
                    f"{quick:,.0f} against {slow:,.0f} texts/s: {quick / slow:.0f} times",
                    ">= 97 %, <= 8 MB, >= 100 times", share >= 0.97 and size <= 8 and quick >= 100 * slow,
                    f"made in {seconds:.0f} s; one text alone {1000 / first:.2f} ms; the head is not in the MB")
            )  # fmt: skip
            print("   ", made[-1], flush=True)
    return made
