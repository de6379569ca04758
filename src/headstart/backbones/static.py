"""A text's feature as the sum of vectors of its pieces and of its neighbouring words: a table and no network.

What `training/static.py` makes of a larger model. A text in lower case is cut at white space into chunks; the tokeniser
cuts each chunk into pieces, and each piece has a vector; each two words that follow one another have one too, found
by a hash in a table of bounded size (Weinberger et al. 2009, section 2; Joulin et al. 2017, section 2.1). Their sum,
divided by its length, is the feature; the length of a vector is the weight of its piece, and was learned.

Speed comes from the chunks: the sum over the pieces of a chunk is kept, so a text of known chunks is as many lookups
as it has chunks, in a dict, and the additions are done for a batch at a time. The tokeniser sees only new chunks.

The folder holds static.json, tokenizer.json and vectors.safetensors: int8, with a step a row.

Letters: n texts, d feature width, v pieces, m pairs (none, or a power of two).
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import jsontext, tensors
from headstart.backbone import Card, Contents, Portable, Tap
from headstart.errors import InputError, ModelError, NotFound
from headstart.head import unit
from headstart.storage import write_file

FORMAT = 1
INDEX, TOKENISER, VECTORS = "static.json", "tokenizer.json", "vectors.safetensors"
FACTS = ("name", "source", "licence", "teacher", "tokens", "width", "pieces", "pairs")
KEYS = frozenset({*FACTS, "format", "files", "digest"})
SIZES = {INDEX: 2**20, TOKENISER: 2**26, VECTORS: 2**28}  # bytes allowed
WIDEST, MOST = 4096, 2**20  # the widest feature, the most rows of a table
LONGEST = 8192  # the most tokens a text can be said to have
LETTERS = 64  # a token: of a text, so many times its tokens are read
WORD = re.compile(r"[^\W_]+")
LEFT, RIGHT = np.uint32(0x9E3779B1), np.uint32(0x85EBCA77)  # odd: the words of a pair are multiplied by them
TEXTS, CHUNKS, KNOWN = 1024, 16_384, 49_152  # worked on at a time; chunks kept
LOCK = threading.Lock()  # while chunks are learned

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Vectors:
    """The tables and the tokeniser that goes with them.

    pieces (v, d) and pairs (m, d) int8; steps (v + m,) float32: row i of both, one under the other, times steps[i].
    The tokeniser puts no marks around a text, and numbers its pieces below v.
    """

    tokeniser: bytes  # tokenizer.json
    tokens: int  # chunks of a text, and pieces of a chunk, that are read
    pieces: NDArray[np.int8]
    pairs: NDArray[np.int8]
    steps: Floats

    @classmethod
    def of(cls, tokeniser: bytes, tokens: int, pieces: Floats, pairs: Floats) -> Vectors:
        """Round tables (v, d) and (m, d) of float32 to int8, each row by its own largest value."""
        both = np.concatenate([pieces, pairs])
        steps = np.asarray(np.abs(both).max(1) / 127, np.float32)
        rounded = np.rint(both / np.maximum(steps, np.float32(1e-30))[:, None]).astype(np.int8)
        return cls(tokeniser, tokens, rounded[: len(pieces)], rounded[len(pieces) :], steps)

    @property
    def width(self) -> int:
        """Of a feature."""
        return int(self.pieces.shape[1])

    @property
    def size(self) -> int:
        """Bytes of what is written."""
        return len(self.tokeniser) + self.pieces.nbytes + self.pairs.nbytes + self.steps.nbytes

    @cached_property
    def table(self) -> Floats:
        """(v + m, d) float32."""
        both = np.concatenate([self.pieces, self.pairs])
        return np.asarray(both * self.steps[:, None], np.float32)

    def wrong(self) -> str:
        """Why these cannot be used, or ""."""
        v, m, steps = self.pieces, self.pairs, self.steps
        if v.ndim != 2 or m.ndim != 2 or v.dtype != np.int8 or m.dtype != np.int8 or steps.dtype != np.float32:
            return (
                f"pieces {v.dtype} {v.shape}, pairs {m.dtype} {m.shape} and steps {steps.dtype} are not what is needed"
            )
        if not 1 <= v.shape[1] <= WIDEST or not 1 <= len(v) <= MOST or m.shape[1] != v.shape[1] or len(m) > MOST:
            return f"pieces {v.shape} and pairs {m.shape} do not fit"
        if len(m) & (len(m) - 1) or steps.shape != (len(v) + len(m),):
            return f"{len(m)} pairs and {len(steps)} steps do not fit {len(v)} pieces"
        if not np.isfinite(steps).all() or (steps < 0).any() or (steps > 1e6).any():
            return "a step is negative, too large or no number"
        return ""


def split(text: str, tokens: int) -> list[str]:
    """The chunks of a text: what stands between white space, in lower case, at most `tokens`."""
    return text[: LETTERS * tokens].lower().split()[:tokens]


def hashed(word: str) -> int:
    """32 bits of a word."""
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "little")


def paired(left: NDArray[np.uint32], right: NDArray[np.uint32], pairs: int) -> Numbers:
    """The rows of pairs of words, given by their hashes, in a table of so many (a power of two from 2)."""
    both = left * LEFT + right * RIGHT  # wraps around, as it may
    return (both >> np.uint32(33 - pairs.bit_length())).astype(np.int64)


def opened(tokeniser: bytes, tokens: int) -> Any:
    """The tokeniser in a tokenizer.json. Raises ModelError."""
    from tokenizers import Tokenizer

    try:
        found = Tokenizer.from_buffer(tokeniser)
        found.no_padding()
        found.enable_truncation(tokens)
    except Exception as error:  # tokenizers raises Exception itself
        raise ModelError(f"{TOKENISER} is no tokeniser: {' '.join(str(error).split())[:200]}.") from None
    return found


def summed(table: Floats, numbers: Numbers, counts: Numbers) -> Floats:
    """(n, d): for every text the sum of its rows of the table, counts (n,) saying how many numbers each has.

    The texts with most numbers first, all first rows are added, then all second ones: every step is one addition of
    long arrays, and the order of a text's additions is its own.
    """
    total = np.zeros((len(counts), table.shape[1]), np.float32)
    order = np.argsort(-counts, kind="stable")
    start, held = (np.cumsum(counts) - counts)[order], counts[order]
    most = int(held[0]) if len(held) else 0
    live = len(counts) - np.searchsorted(held[::-1], np.arange(1, most + 1))
    for j, k in enumerate(live.tolist()):
        total[:k] += table[numbers[start[:k] + j]]
    found = np.empty_like(total)
    found[order] = total
    return found


@dataclass
class _Known:
    """Chunks seen, and what is kept of each. Rows are only ever added, before their names are: readers need no lock."""

    rows: Floats  # (KNOWN, d) sum of a chunk's vectors
    ends: NDArray[np.uint32]  # (2, KNOWN) hashes of its first and last word
    place: dict[str, int] = field(default_factory=dict)

    @classmethod
    def none(cls, width: int) -> _Known:
        """Without chunks; the memory is taken as it is used."""
        return cls(np.empty((KNOWN, width), np.float32), np.empty((2, KNOWN), np.uint32))


@dataclass(frozen=True)
class Static:
    """The backbone. Nothing is loaded before the first `encode`."""

    folder: Path
    name: str
    source: str
    licence: str
    teacher: str | None  # the fingerprint of the model that taught it
    tokens: int
    width: int
    pieces: int
    pairs: int
    files: tuple[tuple[str, str], ...]  # (name, sha256)
    _kept: dict[str, _Known] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def open(cls, folder: Path, *, cut: str | None = None) -> Static:
        """The backbone in a folder; its tables are checked before the first use. Raises NotFound, ModelError, InputError."""
        folder = Path(folder)
        said = _read(folder / INDEX)
        files = tuple(sorted(said["files"].items()))
        found = cls(folder, files=files, **{key: said[key] for key in FACTS})
        for name, _ in files:
            path = folder / name
            if path.is_symlink() or not path.is_file():
                raise ModelError(f"{folder}: the file {name} is {'a link' if path.is_symlink() else 'missing'}.")
        return found.at(cut or "top")

    @property
    def card(self) -> Card:
        """What is known of it; reading it loads nothing."""
        decides = {"format": FORMAT, "tokens": self.tokens, "width": self.width, "files": dict(self.files)}
        rows = self.pieces + self.pairs
        fingerprint = hashlib.sha256(jsontext.write(decides).encode()).hexdigest()
        return Card(
            self.name, "text", self.width, self.licence, self.source, dict(self.files)[VECTORS], "int8", "top",
            fingerprint, (self.width,), parameters=rows * self.width, size=rows * (self.width + 4),
        )  # fmt: skip

    @property
    def learned(self) -> bool:
        """That it was learned from labelled rows, so that these rows prove nothing about it."""
        return True

    @property
    def taps(self) -> tuple[Tap, ...]:
        """None: there is nothing to cut."""
        return ()

    def at(self, cut: str) -> Static:
        """Itself at "top". Raises InputError for any other cut."""
        if cut != "top":
            raise InputError(
                f"no cut {cut!r} in {self.name}: it is a table of vectors without layers, and has only top."
            )
        return self

    def portable(self) -> Portable:
        """Raises InputError: there is no network."""
        raise InputError(
            f"there is no network in {self.name}: it is a table of vectors of pieces and of pairs of words, which numpy "
            "adds up. Its folder can be copied as it is."
        )

    def check(self) -> None:
        """Raise ModelError unless every file is the one that was written."""
        for name, sha in self.files:
            path = self.folder / name
            if path.stat().st_size > SIZES[name]:
                raise ModelError(f"{path} has {path.stat().st_size:,} bytes, and {SIZES[name]:,} are allowed.")
            found = hashlib.sha256(path.read_bytes()).hexdigest()
            if found != sha:
                raise ModelError(f"{path} is not the file that was written: its sha256 is {found}, not {sha}.")

    @cached_property
    def vectors(self) -> Vectors:
        """The tables. Raises ModelError on files that were altered or do not fit."""
        self.check()
        path = self.folder / VECTORS
        arrays: Mapping[str, Any] = tensors.load(path)
        if set(arrays) != {"pieces", "pairs", "steps"}:
            raise ModelError(f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}; pieces, pairs, steps are needed.")
        made = Vectors((self.folder / TOKENISER).read_bytes(), self.tokens, **arrays)
        if why := made.wrong():
            raise ModelError(f"{path}: {why}.")
        if (len(made.pieces), len(made.pairs), made.width) != (self.pieces, self.pairs, self.width):
            raise ModelError(
                f"{path}: pieces {made.pieces.shape} and pairs {made.pairs.shape} are not as {INDEX} says."
            )
        return made

    @cached_property
    def _tokeniser(self) -> Any:
        found = opened(self.vectors.tokeniser, self.tokens)
        most = max(found.get_vocab(with_added_tokens=True).values(), default=0)
        if most >= self.pieces:
            raise ModelError(f"{self.folder / TOKENISER} has piece number {most:,}; there are {self.pieces:,} vectors.")
        return found

    def encode(self, contents: Contents) -> NDArray[np.float32]:
        """Features of n texts, (n, d) float32 of unit length; without pieces, zeros. Raises InputError, ModelError."""
        texts: list[str] = list(contents)  # type: ignore[arg-type]  # looked at below
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"text number {i} of the call is a {type(text).__name__}, not a str.")
        X = np.empty((len(texts), self.width), np.float32)
        for low in range(0, len(texts), TEXTS):
            batch = texts[low : low + TEXTS]
            rows = [text.lower().split() for text in batch] if max(map(len, batch)) <= LETTERS * self.tokens else []
            if not rows or max(map(len, rows)) > self.tokens:
                rows = [split(text, self.tokens) for text in batch]
            try:
                X[low : low + TEXTS] = self._added(rows)
            except UnicodeError:
                wrong = next((i for i, text in enumerate(texts) if any("\ud800" <= c <= "\udfff" for c in text)), 0)
                raise InputError(f"text number {wrong} of the call is not Unicode: a lone surrogate.") from None
        return X

    def _added(self, rows: list[list[str]]) -> Floats:
        """Features of texts given as chunks."""
        counts = np.fromiter(map(len, rows), np.int64, len(rows))
        if counts.sum() > CHUNKS and len(rows) > 1:
            half = len(rows) // 2
            return np.concatenate([self._added(rows[:half]), self._added(rows[half:])])
        flat = [chunk for row in rows for chunk in row]
        known = self._kept.get("known") or self._learned(())
        numbers = np.fromiter(map(known.place.get, flat, repeat(-1)), np.int64, len(flat))
        if len(flat) and numbers.min() < 0:
            known = self._learned(flat)
            numbers = np.fromiter(map(known.place.__getitem__, flat), np.int64, len(flat))
        X = summed(known.rows, numbers, counts)
        if self.pairs and len(flat) > 1:
            pairs = np.ones(len(flat), bool)  # whether a chunk follows another in its text
            pairs[(np.cumsum(counts) - counts)[counts > 0]] = False
            after = np.flatnonzero(pairs)
            found = paired(known.ends[1, numbers[after - 1]], known.ends[0, numbers[after]], self.pairs)
            X += summed(self.vectors.table[self.pieces :], found, np.maximum(counts - 1, 0))
        return unit(X)

    def _learned(self, chunks: Sequence[str]) -> _Known:
        """What is known, these chunks with it; once it is full, these alone."""
        tokeniser, table = self._tokeniser, self.vectors.table
        with LOCK:
            known = self._kept.get("known") or _Known.none(self.width)
            new = [chunk for chunk in dict.fromkeys(chunks) if chunk not in known.place]
            if len(known.place) + len(new) > KNOWN:
                known, new = _Known.none(self.width), list(dict.fromkeys(chunks))
            if new:
                low = len(known.place)
                bags, hashes = parsed(tokeniser, new, self.pieces, self.pairs)
                known.rows[low : low + len(new)] = summed(
                    table, np.array([i for bag in bags for i in bag], np.int64), np.array([len(bag) for bag in bags])
                )
                known.ends[:, low : low + len(new)] = np.array([(own[0], own[-1]) for own in hashes], np.uint32).T
                known.place.update(zip(new, range(low, low + len(new)), strict=True))
            self._kept["known"] = known
            return known


def parsed(tokeniser: Any, chunks: Sequence[str], pieces: int, pairs: int) -> tuple[list[list[int]], list[list[int]]]:
    """For every chunk the rows of the table of its pieces and of the pairs inside it, and the hashes of its words.

    A chunk without words has the hash of itself. Raises UnicodeError on a lone surrogate.
    """
    try:
        bags = [one.ids for one in tokeniser.encode_batch_fast(chunks, add_special_tokens=False)]
    except TypeError as error:  # what the tokeniser makes of a lone surrogate
        raise UnicodeError(str(error)) from error
    hashes = [[hashed(word) for word in WORD.findall(chunk)] or [hashed(chunk)] for chunk in chunks]
    if pairs:
        for bag, own in zip(bags, hashes, strict=True):
            if len(own) > 1:
                code = np.array(own, np.uint32)
                bag += (pieces + paired(code[:-1], code[1:], pairs)).tolist()
    return bags, hashes


def bags(
    tokeniser: Any, texts: Sequence[str], tokens: int, pieces: int, pairs: int
) -> list[tuple[list[int], list[int]]]:
    """For every text the rows of its pieces, and those of its pairs of words: what `Static.encode` adds up."""
    rows = [split(text, tokens) for text in texts]
    names = list(dict.fromkeys(chunk for row in rows for chunk in row))
    place = {name: i for i, name in enumerate(names)}
    inside, hashes = parsed(tokeniser, names, pieces, pairs)
    ends = np.array([(own[0], own[-1]) for own in hashes], np.uint32).reshape(-1, 2)
    found = []
    for row in rows:
        at = [place[chunk] for chunk in row]
        one = [number for i in at for number in inside[i]]
        across = (pieces + paired(ends[at[:-1], 1], ends[at[1:], 0], pairs)).tolist() if pairs and len(at) > 1 else []
        found.append(([i for i in one if i < pieces], [i for i in one if i >= pieces] + across))
    return found


def write(folder: Path, vectors: Vectors, *, name: str, source: str, licence: str, teacher: str | None) -> None:
    """The files of a static backbone, in a folder that is there. Raises InputError on tables that cannot be used."""
    if why := vectors.wrong():
        raise InputError(f"these vectors cannot be written: {why}.")
    write_file(folder / TOKENISER, vectors.tokeniser)
    tensors.save(folder / VECTORS, {"pieces": vectors.pieces, "pairs": vectors.pairs, "steps": vectors.steps})
    said: dict[str, Any] = {
        "format": FORMAT, "name": name, "source": source, "licence": licence, "teacher": teacher,
        "tokens": vectors.tokens, "width": vectors.width, "pieces": len(vectors.pieces), "pairs": len(vectors.pairs),
        "files": {file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in (TOKENISER, VECTORS)},
    }  # fmt: skip
    said["digest"] = hashlib.sha256(jsontext.write(said).encode()).hexdigest()
    _checked(folder / INDEX, said)
    write_file(folder / INDEX, jsontext.write(said, indent=1).encode())


def _read(path: Path) -> dict[str, Any]:
    """static.json, checked. Raises NotFound, ModelError."""
    if not path.is_file():
        raise NotFound(f"{path.parent} holds no {INDEX}: it is no static backbone.")
    if path.is_symlink() or path.stat().st_size > SIZES[INDEX]:
        raise ModelError(f"{path} is a link, or larger than {SIZES[INDEX]:,} bytes.")
    try:
        said = jsontext.parse(path.read_bytes().decode("utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: {error}.") from None
    if not isinstance(said, dict) or set(said) != KEYS:
        raise ModelError(f"{path}: the keys {', '.join(sorted(KEYS))} are needed, no more and no fewer.")
    return _checked(path, said)


def _checked(path: Path, said: dict[str, Any]) -> dict[str, Any]:
    """What static.json says, if it can be. Raises ModelError."""
    if said["format"] != FORMAT or isinstance(said["format"], bool):
        raise ModelError(
            f"{path} has format {str(said['format'])[:20]}; this Headstart reads {FORMAT}: update Headstart."
        )
    for key in ("name", "source", "licence", "digest", "teacher"):
        text = said[key]
        if not (isinstance(text, str) and 0 < len(text) <= 500 and text.isprintable()) and (key, text) != (
            "teacher",
            None,
        ):
            raise ModelError(f"{path}: {key} is no text of 1 to 500 printable letters.")
    for key, least, most in (("tokens", 1, LONGEST), ("width", 1, WIDEST), ("pieces", 1, MOST), ("pairs", 0, MOST)):
        if type(said[key]) is not int or not least <= said[key] <= most:
            raise ModelError(f"{path}: {key} is not a whole number from {least} to {most:,}.")
    files = said["files"]
    if not isinstance(files, dict) or set(files) != {TOKENISER, VECTORS}:
        raise ModelError(f"{path}: files must name {TOKENISER} and {VECTORS}.")
    if not all(isinstance(sha, str) and re.fullmatch("[0-9a-f]{64}", sha) for sha in files.values()):
        raise ModelError(f"{path}: a file has no sha256 of 64 hexadecimal digits.")
    rest = {key: value for key, value in said.items() if key != "digest"}
    if hashlib.sha256(jsontext.write(rest).encode()).hexdigest() != said["digest"]:
        raise ModelError(f"{path} was altered: its digest is not that of what it says.")
    return said
