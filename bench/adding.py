"""`headstart backbones add` of a local folder in the Hub's layout, offline: config, tokeniser and safetensors, no ONNX."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile

from bench.table import Row, run

TITLE = "Adding a base model from a folder"
TURNS = 3


def rows() -> list[Row]:
    """The time of adding the MiniLM folder, and how far its features are from the embedded ones."""
    import numpy as np

    from headstart import backbones
    from headstart.backbones.minilm import weights

    seconds, facts = [], {}
    with tempfile.TemporaryDirectory() as folder:
        offline = {"HEADSTART_CACHE": folder, "HEADSTART_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
        for turn in range(TURNS):
            done = run(
                [sys.executable, "-m", "headstart", "backbones", "add", str(weights()), "--name", f"mini{turn}", "--json"],
                env=offline,
            )  # fmt: skip
            facts = json.loads(done.out)
            seconds.append(done.seconds)
        texts = ["where is my parcel", "the app crashes when I log in", "you charged me twice for one order"]
        os.environ["HEADSTART_CACHE"] = folder
        apart = max(
            float(
                np.abs(
                    backbones.load("mini0", cut=cut).encode(texts) - backbones.load("minilm", cut=cut).encode(texts)
                ).max()
            )
            for cut in ("0", "3", "6+max6")
        )
    return [
        Row("a folder in the Hub's layout (91 MB, safetensors), offline, without torch, whole command",
            f"works, {statistics.median(seconds):.1f} s", "works", True,
            f"{len(facts['taps'])} cuts found; features within {apart:.0e} of the embedded MiniLM's"),
    ]  # fmt: skip
