"""Which files of a tree are the examples: a folder per class, above those perhaps folders named train, test and so on.

Folders and archives are read alike; they say what lies where, and this says what it means.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from headstart import picturefile
from headstart.errors import DataError
from headstart.rawfile import shown
from headstart.source import IMAGE_COLUMN

SPLITS = frozenset(("train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"))
TEXT, IMAGE, LIKE, OTHER = "text", "image", "like", "other"  # LIKE: named like a picture, but none that is read
AT_ONCE = 1024  # files a batch
_MUTE = ("SOURCE.txt", "README.txt", "LICENSE.txt")


@dataclass(frozen=True)
class Leaf:
    """One file; a folder that is not looked into has a path that ends in a slash."""

    path: str  # in the tree, with slashes; undecodable bytes as surrogates
    kind: str = OTHER


@dataclass(frozen=True)
class Row:
    """One example."""

    path: str
    id: str  # the path, printable
    label: str | None
    split: str | None


@dataclass(frozen=True)
class Layout:
    """The examples of a tree, in the order of the leaves, and what is said of the rest."""

    rows: tuple[Row, ...]
    modality: str
    labelled: bool
    splits: bool
    notes: tuple[str, ...]


def kind(path: str, head: bytes | None) -> str:
    """What a file is by its first bytes (None: unreadable) and, where they do not tell, its name."""
    name = path.rsplit("/", 1)[-1]
    if name.startswith("._") or name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        return OTHER
    if head and picturefile.kind(head) is not None:
        return IMAGE
    if name.lower().endswith(".txt"):
        return TEXT
    return LIKE if picturefile.is_like(name) else OTHER


def arrange(leaves: Sequence[Leaf], name: str) -> Layout | None:
    """The examples among the leaves; None where there are none. Raises DataError for a mixture of texts and pictures."""
    tops = {leaf.path.split("/", 1)[0] for leaf in leaves if "/" in leaf.path and not leaf.path.startswith(".")}
    splits = are_splits(tops)
    depth = 3 if splits else 2
    placed = [leaf for leaf in leaves if leaf.path.count("/") == depth - 1 and leaf.kind != OTHER]
    placed = [leaf for leaf in placed if not leaf.path.endswith("/") and not _hidden(leaf.path)]
    labelled = bool(placed)
    if not labelled:  # no classes: contents without labels
        splits = False
        placed = [x for x in leaves if "/" not in x.path and x.kind != OTHER and x.path not in _MUTE]
    if not placed:
        return None
    modality, notes = _modality(placed, name)
    wanted = (TEXT,) if modality == "text" else (IMAGE, LIKE)
    chosen = [leaf for leaf in placed if leaf.kind in wanted]
    rows = tuple(_row(leaf.path, labelled, splits, name) for leaf in chosen)
    taken = {leaf.path for leaf in chosen}
    rest = [printable(leaf.path) for leaf in leaves if leaf.path not in taken]
    if not labelled:
        rest = [path for path in rest if "/" not in path]
    said = ".txt files" if modality == "text" else "pictures"
    classes = f" in {len({row.label for row in rows}):,} folders" if labelled else ""
    notes = (f"{len(rows):,} {said}{classes}", *notes)
    if rest:
        what = "other thing in the folder is" if len(rest) == 1 else "other things in the folder are"
        notes = (*notes, _few(f"{len(rest):,} {what} not read: ", rest))
    return Layout(rows, modality, labelled, splits, notes)


def are_splits(tops: set[str]) -> bool:
    """Whether the folders at the top are all named after a split."""
    return bool(tops) and all(top.lower() in SPLITS for top in tops)


def printable(path: str) -> str:
    """A path as text: bytes that are not UTF-8 are written out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def names(rows: Sequence[Row], columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """Batches of pictures' paths (undecodable bytes are written out), labels and splits."""
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        cells = {IMAGE_COLUMN: [r.id for r in part], "label": [r.label for r in part], "split": [r.split for r in part]}
        yield pa.RecordBatch.from_arrays([pa.array(cells[c], pa.large_string()) for c in columns], names=list(columns))


def _hidden(path: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/")[:-1])


def _modality(placed: Sequence[Leaf], name: str) -> tuple[str, tuple[str, ...]]:
    texts = [leaf for leaf in placed if leaf.kind == TEXT]
    pictures = len(placed) - len(texts)
    if not texts or not pictures:
        return ("text" if texts else "image"), ()
    if 4 * min(len(texts), pictures) > max(len(texts), pictures):
        raise DataError(
            f"{len(texts):,} .txt files and {pictures:,} pictures: which of them are the examples?",
            file=name,
            todo="Put them into different folders.",
        )
    if len(texts) > pictures:
        return "text", (f"the files are taken as texts; {pictures:,} pictures among them are not read",)
    return "image", (f"the files are taken as pictures; {len(texts):,} .txt files among them are not read",)


def _row(path: str, labelled: bool, splits: bool, name: str) -> Row:
    parts = path.split("/")
    label = _label(parts[1 if splits else 0], name) if labelled else None
    return Row(path, printable(path), label, parts[0].lower() if splits else None)


def _label(folder: str, name: str) -> str:
    try:
        return os.fsencode(folder).decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(
            f"the folder name {os.fsencode(folder)!r} is not UTF-8, so it is no label.", file=name, todo="Rename it."
        ) from None


def _few(said: str, names: Sequence[str]) -> str:
    return said + ", ".join(shown(name) for name in names[:5]) + ", ..." * (len(names) > 5)
