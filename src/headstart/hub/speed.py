"""How fast a backbone is on this machine, measured when it is added; the trial also shows that it runs at all."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np

from headstart import jsontext
from headstart.backbone import Backbone, cache_folder
from headstart.errors import HeadstartError, ModelError
from headstart.storage import write_file

TEXTS = (
    "short",
    "A sentence of an ordinary length, with a comma and 3 numbers: 4, 5.",
    "Grüße aus Köln! 你好 мир " * 3,
    "My order has not arrived yet and nobody answers the telephone; please tell me where the parcel is. " * 4,
)
ENOUGH = 0.5  # seconds of measuring
SAME = 1e-4  # a row alone and among others


def contents(modality: str) -> list[Any]:
    """Four texts of different lengths, or two pictures of noise as PNG files."""
    if modality == "text":
        return list(TEXTS)
    from PIL import Image

    draw = np.random.default_rng(0)
    made = []
    for shape in ((240, 320, 3), (300, 200, 3)):
        file = io.BytesIO()
        Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8)).save(file, "PNG")
        made.append(file.getvalue())
    return made


def tried(backbone: Backbone) -> dict[str, Any]:
    """Run a backbone: facts fingerprint and per_second (contents). Raises ModelError when its features are not sound."""
    probes = contents(backbone.card.modality)
    try:
        X = backbone.encode(probes)
        alone = np.concatenate([backbone.encode([probe]) for probe in probes])
    except HeadstartError:
        raise
    except Exception as error:  # whatever ONNX Runtime has against a graph
        raise ModelError(f"it was made, but it does not run: {str(error)[:300]}") from error
    if X.shape != (len(probes), backbone.card.width) or not np.isfinite(X).all():
        raise ModelError(f"its features are not sound: shape {X.shape}, or numbers that are not finite.")
    if (apart := float(np.abs(X - alone).max())) > SAME:
        raise ModelError(f"its rows feel one another: a content alone and among others differs by {apart:.1g}.")
    start, done, batch = time.perf_counter(), 0, probes * 2
    while (spent := time.perf_counter() - start) < ENOUGH:
        backbone.encode(batch)
        done += len(batch)
        if len(batch) < 64:
            batch = batch * 2
    return {"fingerprint": backbone.card.fingerprint, "per_second": round(done / spent, 1)}


def _place() -> Path:
    return cache_folder() / "backbones" / "speeds.json"


def measured() -> dict[str, dict[str, Any]]:
    """name -> what `tried` gave; {} where nothing was measured, or the file is not sound."""
    try:
        found = jsontext.parse(_place().read_text("utf-8"))
    except (OSError, ValueError):
        return {}  # a measurement is worth no error
    return found if isinstance(found, dict) else {}


def keep(name: str, trial: dict[str, Any]) -> None:
    """Note a measurement beside the backbones."""
    _place().parent.mkdir(parents=True, exist_ok=True)
    write_file(_place(), (jsontext.write({**measured(), name: trial}, indent=1) + "\n").encode())


def forget(name: str) -> None:
    """Drop a measurement."""
    if name in (kept := measured()):
        write_file(_place(), (jsontext.write({k: v for k, v in kept.items() if k != name}, indent=1) + "\n").encode())
