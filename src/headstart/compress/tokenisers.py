"""A tokenizer.json with fewer pieces: what can go, what must stay for the rest to work, and the file rewritten.

A text whose pieces are all kept is cut into the same pieces as before:

- WordPiece takes the longest piece that fits, from the left; the longest of a smaller vocabulary is that of the larger
  one whenever that is kept (Wu et al. 2016, section 4.1);
- Unigram takes the cut of the highest sum of scores (Kudo 2018, section 3.2); fewer pieces mean fewer cuts, and the
  best of them is still there. The score of an unknown letter hangs on the lowest of all, so that piece stays;
- BPE joins the pair of the lowest rank, again and again (Sennrich et al. 2016, section 3.2); with every piece stay the
  pieces that it is joined of, so each join that led to it can still be made, and no new one comes in between.

Other texts are spelled with shorter pieces, for single letters and bytes stay.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from headstart.errors import InputError

KINDS = ("WordPiece", "Unigram", "BPE")


@dataclass(frozen=True)
class Vocabulary:
    """The pieces of a tokenizer.json by number, and what is known of them."""

    said: dict[str, Any]  # the file
    kind: str
    pieces: dict[int, str]  # number -> piece, added ones too
    must: frozenset[int]  # specials, single letters, bytes
    order: tuple[int, ...]  # the most frequent first, as far as the file tells

    parts: dict[int, tuple[int, ...]]  # in BPE: number -> numbers of the pieces it is joined of

    def closed(self, chosen: Iterable[int]) -> set[int]:
        """Numbers, with all that they need: in BPE the pieces a piece is joined of."""
        kept = set(chosen)
        stack = list(kept) if self.parts else []
        while stack:
            for part in self.parts.get(stack.pop(), ()):
                if part not in kept:
                    kept.add(part)
                    stack.append(part)
        return kept


def read(tokeniser: bytes) -> Vocabulary:
    """The vocabulary of a tokenizer.json. Raises InputError where its pieces cannot be dropped one by one."""
    said = json.loads(tokeniser)
    model = said.get("model") or {}
    kind = model.get("type") or ("BPE" if "merges" in model else "Unigram" if "unk_id" in model else "")
    if kind not in KINDS:
        raise InputError(
            f"the vocabulary of a {kind or 'nameless'} tokeniser cannot be pruned: what is dropped could not be spelled "
            f"any more. {', '.join(KINDS)} can."
        )
    if kind == "BPE" and model.get("dropout"):
        raise InputError("this tokeniser joins pieces by chance (BPE dropout); its vocabulary cannot be pruned.")
    if kind == "Unigram":
        pieces = {number: str(entry[0]) for number, entry in enumerate(model["vocab"])}
        scores = {number: float(entry[1]) for number, entry in enumerate(model["vocab"])}
        order = tuple(sorted(pieces, key=lambda number: (-scores[number], number)))
        lowest = {min(pieces, key=lambda number: (scores[number], number))} if pieces else set()
        unknown = {model["unk_id"]} if model.get("unk_id") is not None else set()
    else:
        pieces = {int(number): str(piece) for piece, number in model["vocab"].items()}
        order, lowest = tuple(sorted(pieces)), set()
        unknown = {number for number, piece in pieces.items() if piece == model.get("unk_token")}
    added = {int(entry["id"]): str(entry["content"]) for entry in said.get("added_tokens") or []}
    marks = [mark for mark in (model.get("continuing_subword_prefix"), model.get("end_of_word_suffix"), "▁") if mark]
    single = {number for number, piece in pieces.items() if len(bare(piece, marks)) <= 1 or piece[:3] == "<0x"}
    named = set(_named(said.get("post_processor")))
    special = {number for number, piece in pieces.items() if piece in named}
    must = frozenset(single | set(added) | special | unknown | lowest)
    return Vocabulary(said, kind, pieces | added, must, order, joined_of(model) if kind == "BPE" else {})


def joined_of(model: dict[str, Any]) -> dict[int, tuple[int, ...]]:
    """The number of each piece that joins make -> the numbers of the pieces it is joined of, in whatever way."""
    numbers, found = model["vocab"], dict[int, tuple[int, ...]]()
    for left, right in merges(model):
        whole = numbers.get(join(model, left, right))
        if whole is not None and left in numbers and right in numbers:
            found[whole] = (*found.get(whole, ()), numbers[left], numbers[right])
    return found


def bare(piece: str, marks: Iterable[str]) -> str:
    """A piece without the marks for the middle, the end or the beginning of a word."""
    for mark in marks:
        piece = piece.removeprefix(mark).removesuffix(mark)
    return piece


def merges(model: dict[str, Any]) -> list[tuple[str, str]]:
    """The joins of a BPE model, first rank first; written as pairs or with a space between."""
    found = []
    for entry in model["merges"]:
        left, right = entry.split(" ", 1) if isinstance(entry, str) else entry
        found.append((str(left), str(right)))
    return found


def join(model: dict[str, Any], left: str, right: str) -> str:
    """What two pieces of a BPE model make together."""
    return left + right.removeprefix(model.get("continuing_subword_prefix") or "")


def _named(entry: Any) -> Iterable[str]:
    """The pieces that a post-processor puts around a text."""
    if isinstance(entry, dict):
        for key in ("cls", "sep"):
            if isinstance(entry.get(key), list):
                yield str(entry[key][0])
        if isinstance(entry.get("special_tokens"), dict):
            for special in entry["special_tokens"].values():
                yield from map(str, special.get("tokens", []))
        for value in entry.get("processors") or []:
            yield from _named(value)


def rewritten(vocabulary: Vocabulary, kept: Iterable[int]) -> tuple[bytes, list[int]]:
    """The tokenizer.json with these pieces alone, numbered anew in the old order, and their old numbers in the new one.

    kept: numbers, closed (`Vocabulary.closed`) and with all of `must`.
    """
    old = sorted(kept)
    new = {number: place for place, number in enumerate(old)}
    said = json.loads(json.dumps(vocabulary.said))
    model = said["model"]
    if vocabulary.kind == "Unigram":
        size = len(model["vocab"])
        model["vocab"] = [model["vocab"][number] for number in old if number < size]
        if model.get("unk_id") is not None:
            model["unk_id"] = new[model["unk_id"]]
    else:
        model["vocab"] = {piece: new[number] for piece, number in model["vocab"].items() if number in new}
    if vocabulary.kind == "BPE":
        there = model["vocab"]
        model["merges"] = [
            [left, right]
            for left, right in merges(model)
            if left in there and right in there and join(model, left, right) in there
        ]
    for entry in said.get("added_tokens") or []:
        entry["id"] = new[int(entry["id"])]
    _renumbered(said.get("post_processor"), new)
    if isinstance(said.get("padding"), dict) and "pad_id" in said["padding"]:
        said["padding"]["pad_id"] = new.get(said["padding"]["pad_id"], 0)
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode("utf-8"), old


def _renumbered(entry: Any, new: dict[int, int]) -> None:
    """Change the numbers in a post-processor."""
    if not isinstance(entry, dict):
        return
    for key in ("cls", "sep"):
        if isinstance(entry.get(key), list):
            entry[key][1] = new[entry[key][1]]
    if isinstance(entry.get("special_tokens"), dict):
        for special in entry["special_tokens"].values():
            special["ids"] = [new[number] for number in special["ids"]]
    for value in entry.get("processors") or []:
        _renumbered(value, new)
