"""What a long training has finished, on the disk, so that it can be gone on with: one file for every network.

A finished one is NAME.json (facts, and the names of its arrays) beside NAME.safetensors, written in that order reversed:
where the JSON is, everything is. An unfinished one is NAME.part, which the training loop writes and reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from headstart import jsontext, tensors
from headstart.errors import StorageError
from headstart.storage import write_file

Arrays = dict[str, NDArray[Any]]


def unfinished(file: Path) -> Path:
    """Where the training of a network notes how far it is."""
    return file.with_name(file.name + ".part")


def write(
    file: Path, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], changed: Mapping[str, NDArray[Any]]
) -> None:
    """Note a finished network: facts, its own arrays, and the changed ones by names of any kind."""
    names = sorted(changed)
    kept = {f"changed.{i}": changed[name] for i, name in enumerate(names)}
    kept |= {f"own.{name}": value for name, value in arrays.items()}
    write_file(file.with_name(file.name + ".safetensors"), tensors.packed(kept))
    write_file(file.with_name(file.name + ".json"), jsontext.write({**facts, "changed": names}).encode())
    unfinished(file).unlink(missing_ok=True)


def read(file: Path) -> tuple[dict[str, Any], Arrays, Arrays] | None:
    """Facts, own arrays and changed ones of a finished network; None where it is not finished. Raises ModelError."""
    index = file.with_name(file.name + ".json")
    if not index.exists():
        return None
    try:
        facts = jsontext.parse(index.read_text("utf-8"))
        arrays = tensors.load(file.with_name(file.name + ".safetensors"))
        changed: Arrays = {name: arrays[f"changed.{i}"] for i, name in enumerate(facts.pop("changed"))}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{index}: cannot be read ({error}); start without --resume.") from error
    return facts, dict(tensors.part(arrays, "own")), changed


def once(file: Path, number: int) -> int:
    """A number that is decided once: the one noted beside `file` by an earlier run, else `number`, which is noted."""
    note = file.with_name(file.name + ".number")
    if note.exists() and note.read_text("utf-8").isdigit():
        return int(note.read_text("utf-8"))
    if number:
        write_file(note, str(number).encode())
    return number
