"""What label names mean: the text that stands for a class before it has any example."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from headstart.dataset import read_texts
from headstart.errors import InputError

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_CODE = re.compile(r"[\W\d_]*|[A-Za-z]{0,3}[\W_]*\d+|[A-Za-z]", re.ASCII)


def given(labels: str | Sequence[str] | Mapping[str, str] | None) -> dict[str, str]:
    """Label names and descriptions as a user gives them: 'a,b,c', 'a: what it is; b', a file, a list, a dict.

    Returns {name: description}, the description '' where none was given. A file has the columns name and description
    (the first two, whatever they are called). Raises InputError.
    """
    if labels is None:
        return {}
    if isinstance(labels, Mapping):
        pairs = list(labels.items())
    elif not isinstance(labels, str):
        pairs = [(str(name), "") for name in labels]
    elif "\n" not in labels and Path(labels).suffix and Path(labels).is_file():
        pairs = _from_file(labels)
    else:
        parts = re.split(r"[;\n]" if ";" in labels or "\n" in labels else ",", labels)
        pairs = [(name, about.strip()) for name, _, about in (part.partition(":") for part in parts)]
    cleaned = [(unicodedata.normalize("NFC", name).strip(), about.strip()) for name, about in pairs]
    found = {name: about for name, about in cleaned if name}
    if len(found) < 2:
        raise InputError(f"--labels names {len(found)} label{'s' if len(found) != 1 else ''}; at least 2 are needed.")
    if len(found) < len([name for name, _ in cleaned if name]):
        raise InputError("--labels names a label twice.")
    return found


def _from_file(path: str) -> list[tuple[str, str]]:
    batches, source = read_texts(path, text=None)
    pairs: list[tuple[str, str]] = []
    for _, _, batch in batches:
        columns = [column.to_pylist() for column in batch.columns[:2]]
        pairs += [(str(row[0] or ""), str(row[1] or "") if len(row) > 1 else "") for row in zip(*columns, strict=True)]
    if not pairs:
        raise InputError(f"{source.name}: names no labels.")
    return pairs


def meaning(name: str) -> str:
    """The words in a label name: 'card_arrival' -> 'card arrival', 'lateDelivery' -> 'late Delivery', 'c7' -> ''."""
    if _CODE.fullmatch(name):
        return ""
    return " ".join(_CAMEL.sub(" ", name).replace("_", " ").replace("-", " ").replace("/", " ").split())


def meanings(labels: Sequence[str], descriptions: Mapping[str, str]) -> list[str] | None:
    """The text that stands for each label, or None when some label is a mere code without a description."""
    texts = [
        f"{meaning(name)}: {about}".removeprefix(": ") if (about := descriptions.get(name, "")) else meaning(name)
        for name in labels
    ]
    return texts if texts and all(texts) else None
