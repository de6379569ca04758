"""A model as a folder: what is written, and how it is read back without trusting it.

    card.json            task, labels, backbone, head, data, figures, versions, seed; the SHA-256 of every other file
    head.safetensors     the arrays of head, calibration, thresholds and unknown
    probes.json          up to 64 inputs (pictures: 16, small, as PNG in base64)
    probes.safetensors   what the model answered to them when it was made: features and probabilities
    examples.parquet     the training examples, of pictures small copies and features, for `predict --why` (unless unwanted)
    facts.json           everything the report shows
    a backbone of the model's own, where it has one:
      backbone.json, model.onnx, tokenizer.json        one that was shrunk (of pictures: without tokenizer.json)
      tuned.json, changed.safetensors                  what was retrained of a base, and nothing else of it
      static.json, vectors.safetensors, tokenizer.json token vectors in place of a network
    report.html, README.md

Reading checks the format number, every digest, every array, and replays the probes' features through the head: a
folder that does not answer as the model did when it was trained is refused. No pickle, no absolute path, no code.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import jsontext, tensors
from headstart.errors import ModelError, NotFound, near

FORMAT = 3  # 1: texts only, no backbone of its own; 2: no retrained one, no token vectors
ARRAYS, PROBES, PROBE_ARRAYS, EXAMPLES = "head.safetensors", "probes.json", "probes.safetensors", "examples.parquet"
FACTS, REPORT, README, CARD = "facts.json", "report.html", "README.md", "card.json"
NEEDED = frozenset((ARRAYS, PROBES, PROBE_ARRAYS, FACTS, REPORT, README))
NETWORK = frozenset(("backbone.json", "model.onnx"))
TUNED = frozenset(("tuned.json", "changed.safetensors"))
STATIC = frozenset(("static.json", "vectors.safetensors", "tokenizer.json"))
OWN = {  # the backbones of a model's own that a format knows, as sets of files
    1: (frozenset(),),
    2: (frozenset(), NETWORK, NETWORK | {"tokenizer.json"}),
    3: (frozenset(), NETWORK, NETWORK | {"tokenizer.json"}, TUNED, STATIC),
}
CARRIED = NETWORK | TUNED | STATIC
FILES = NEEDED | CARRIED | {EXAMPLES}
LIMIT = 64 << 20  # bytes of one JSON file
PROBE_COUNT = {"text": 64, "image": 16}


def sha256(path: Path) -> str:
    """The hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _card_digest(card: Mapping[str, Any]) -> str:
    return hashlib.sha256(jsontext.write({k: v for k, v in card.items() if k != "digest"}).encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON a person can read, with sorted keys."""
    path.write_text(jsontext.write(value, indent=1) + "\n", "utf-8")


def seal(folder: Path, card: Mapping[str, Any]) -> dict[str, Any]:
    """Write card.json over the files that are there; return the card with `files` and `digest` filled in."""
    sealed = {**card, "format": FORMAT, "files": {p.name: sha256(p) for p in sorted(folder.iterdir())}}
    sealed["digest"] = _card_digest(sealed)
    write_json(folder / CARD, sealed)
    return sealed


def read_json(path: Path) -> Any:
    """Read a JSON file of a model. Raises ModelError."""
    try:
        if path.is_symlink() or not path.is_file():
            raise ModelError(f"{path}: missing, or not a plain file; the model is incomplete.")
        if path.stat().st_size > LIMIT:
            raise ModelError(f"{path}: larger than {LIMIT >> 20} MB; refused.")
        return jsontext.parse(path.read_text("utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}.") from error
    except ValueError as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path}: damaged: {error}.") from error


def read_card(folder: Path) -> dict[str, Any]:
    """Read and check card.json and the digest of every file it names. Raises NotFound or ModelError."""
    if not (folder / CARD).exists():
        siblings = [p.name for p in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise NotFound(f"{folder}: no model there (no {CARD})." + near(folder.name, siblings))
    card = read_json(folder / CARD)
    if not isinstance(card, dict) or not isinstance(card.get("format"), int):
        raise ModelError(f"{folder / CARD}: not a model card.")
    if card["format"] not in OWN and card["format"] <= FORMAT:
        raise ModelError(f"{folder / CARD}: there is no format {card['format']} of models.")
    if card["format"] > FORMAT:
        raise ModelError(
            f"{folder}: saved in format {card['format']} by headstart {card.get('versions', {}).get('headstart', '?')}; "
            f"this version reads up to {FORMAT}. Update: pip install -U headstart"
        )
    if card.get("digest") != _card_digest(card):
        raise ModelError(f"{folder / CARD}: changed since it was saved (its digest does not match).")
    files = card.get("files")
    if not isinstance(files, dict) or not set(files) >= NEEDED or not set(files) <= FILES:
        raise ModelError(f"{folder / CARD}: its list of files is not that of a model.")
    if (own := CARRIED & set(files)) not in OWN[card["format"]]:
        raise ModelError(
            f"{folder / CARD}: its files {', '.join(sorted(own))} together are no backbone of format {card['format']}."
        )
    for name, digest in files.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise ModelError(f"{path}: missing, or not a plain file; the model is incomplete.")
        if sha256(path) != digest:
            raise ModelError(
                f"{path}: changed since the model was saved (its SHA-256 does not match the card).{_where(folder, name)}"
            )
    return card


def _where(folder: Path, name: str) -> str:
    """Which tensor of a retrained backbone was changed, where its file was and that can be told; else ''."""
    if name not in TUNED:
        return ""
    from headstart.backbones import changes

    try:
        changes.load(folder, changes.read(folder))
    except ModelError as error:
        return f" {error}"
    return ""


def write_probes(
    folder: Path, inputs: Sequence[str], features: NDArray[np.float32], probabilities: NDArray[np.float32]
) -> None:
    """Store probe inputs, p texts or pictures as base64, with what the model makes of them.

    features (p, d); probabilities, or numbers, (p, c).
    """
    write_json(folder / PROBES, list(inputs))
    tensors.save(folder / PROBE_ARRAYS, {"features": features, "probabilities": probabilities})


def read_probes(folder: Path) -> tuple[list[str], NDArray[np.float32], NDArray[np.float32]]:
    """The probe inputs and the stored answers. Raises ModelError."""
    inputs = read_json(folder / PROBES)
    arrays = tensors.load(folder / PROBE_ARRAYS)
    if not isinstance(inputs, list) or not all(isinstance(one, str) for one in inputs):
        raise ModelError(f"{folder / PROBES}: not a list of texts.")
    if set(arrays) != {"features", "probabilities"}:
        raise ModelError(f"{folder / PROBE_ARRAYS}: holds {sorted(arrays)} instead of features and probabilities.")
    features, probabilities = arrays["features"], arrays["probabilities"]
    if features.ndim != 2 or probabilities.ndim != 2 or not len(inputs) == len(features) == len(probabilities):
        raise ModelError(f"{folder / PROBE_ARRAYS}: shapes {features.shape} and {probabilities.shape} do not fit.")
    return inputs, features.astype(np.float32), probabilities.astype(np.float32)


def replay_apart(folder: Path) -> subprocess.Popen[str]:
    """Start a fresh process that loads the folder and replays its probes from the content on."""
    return subprocess.Popen(
        [sys.executable, "-m", "headstart.replay", str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def replayed(process: subprocess.Popen[str], folder: Path) -> None:
    """Wait for `replay_apart`; raise ModelError when what was saved is not what was trained."""
    _, said = process.communicate()
    if process.returncode != 0:
        raise ModelError(
            f"{folder}: a fresh process did not get the answers the model gave while it was trained, so it was not "
            f"saved. {said.strip().splitlines()[-1] if said.strip() else f'exit code {process.returncode}'}"
        )
