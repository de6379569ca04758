"""What a folder with a network in it says of itself: backbone.json, written once by `describe` and read strictly."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from headstart import jsontext
from headstart.errors import InputError, ModelError, NotFound
from headstart.graph.taps import KINDS
from headstart.preprocessing import Preprocessing
from headstart.storage import write_file

FORMAT = 1
INDEX, GRAPH, TOKENISER = "backbone.json", "model.onnx", "tokenizer.json"
LIMIT = 2**20  # bytes of backbone.json
STAGES = 3  # the last so many of a convolutional network make a feature
TOKENS = 8192  # the longest text a network can be said to take
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. +=@()-]{0,199}")
_KEYS = """
    format name modality licence source revision files graph cut tokens preprocessing precision taps top parameters
    alone notes
"""
KEYS = frozenset(_KEYS.split())
TAP = frozenset({"name", "tensor", "kind", "width", "parameters", "operations", "size"})


@dataclass(frozen=True)
class Place:
    """A place to cut at, as graph.taps.Found has it; the file holds what was found, and no graph is opened to know it."""

    name: str
    tensor: str
    kind: str
    width: int
    parameters: int
    operations: float
    size: int


@dataclass(frozen=True)
class Description:
    """What backbone.json holds."""

    name: str
    modality: str  # text | image
    licence: str
    source: str
    revision: str | None
    files: tuple[tuple[str, str], ...]  # (name, sha256), sorted
    graph: str
    cut: str  # the default
    tokens: int | None  # a text is cut after so many
    preprocessing: Preprocessing | None  # of pictures
    precision: str
    taps: tuple[Place, ...]
    top: Place | None
    parameters: int
    alone: bool  # rows are run one by one, because together they would change one another
    notes: tuple[str, ...]

    @property
    def places(self) -> tuple[Place, ...]:
        """The taps and the top."""
        return (*self.taps, self.top) if self.top else self.taps

    def chosen(self, cut: str) -> list[Place]:
        """For each part of a cut its place. Raises InputError. The rule is that of graph.cut.parts."""
        known = {place.name: place for place in self.places}
        names, found = cut.split("+"), []
        for name in names:
            bare = name.removeprefix("max") if name != "maxtop" else name
            if bare not in known or names.count(name) > 1:
                what = f"{name!r} stands twice in it" if bare in known else f"there is no tap {name!r}"
                raise InputError(
                    f"no cut {cut!r} in {self.name}: {what}. A cut is one of {', '.join(known)} (the mean over tokens or "
                    f"places), max{self.places[0].name} and so on (the largest), or several joined by +."
                )
            found.append(known[bare])
        return found


def describe(
    folder: Path,
    *,
    name: str,
    modality: str,
    licence: str,
    source: str,
    revision: str | None = None,
    preprocessing: Preprocessing | None = None,
    tokens: int | None = None,
    notes: Sequence[str] = (),
    cut: str | None = None,
    precision: str = "float32",
) -> None:
    """Analyse model.onnx in `folder`, in a process of its own, and write backbone.json beside it.

    Default cut: the network's own output when it is an embedding; the last tap when the output holds scores of classes,
    or is that tap's tensor; else the mean over the output. Of a network in stages the two stages before it stand beside
    it: on trashnet, 50 pictures a class, they are worth 1.2, 3.6 and 0.3 points for three MobileNets, and cost nothing. Every plain file in the folder is listed with its sha256.
    Raises ModelError for a graph that cannot be trusted, run or cut, InputError for facts that do not fit it.
    """
    from headstart.graph import trial

    folder = Path(folder)
    size = (preprocessing.height, preprocessing.width) if preprocessing else None
    longest = min(tokens or 512, TOKENS) if modality == "text" else None
    if modality == "image" and preprocessing is None:
        raise InputError(f"{name}: how a picture becomes the network's input must be said (preprocessing).")
    if modality == "text" and not (folder / TOKENISER).is_file():
        raise NotFound(f"{name}: a network for texts needs {TOKENISER} beside {GRAPH}.")
    found = trial.anatomy(folder / GRAPH, modality, size, longest)
    if preprocessing and (found.layout, found.dtype) != (preprocessing.layout, preprocessing.dtype):
        raise ModelError(
            f"{name}: the network takes {found.layout} {found.dtype}, and the preprocessing gives {preprocessing.layout} "
            f"{preprocessing.dtype}."
        )
    notes = [*notes]
    if found.alone:
        notes.append("rows are run one by one: together they would change one another")
    top, last = found.top, found.taps[-1] if found.taps else None
    if last is None and top is None:
        raise ModelError(f"{name}: there is nowhere to cut it.")
    embedding = top is not None and not found.classes and (last is None or top.tensor != last.tensor)
    usual = "top" if embedding or last is None else last.name
    if len(found.taps) > STAGES and all(tap.kind in ("map", "grid") for tap in found.taps):
        usual = "+".join([*(tap.name for tap in found.taps[-STAGES:-1]), usual])
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != INDEX and path.name[0] != ".")
    facts: dict[str, Any] = {
        "format": FORMAT, "name": name, "modality": modality, "licence": licence, "source": source,
        "revision": revision, "files": {path.name: digest(path) for path in files}, "graph": GRAPH, "cut": usual,
        "tokens": longest,
        "preprocessing": preprocessing.facts() if preprocessing else None, "precision": precision,
        "taps": [asdict(tap) for tap in found.taps], "top": asdict(found.top) if found.top else None,
        "parameters": found.parameters, "alone": found.alone, "notes": notes,
    }  # fmt: skip
    made = parsed(facts, name)
    if cut is not None:
        made.chosen(cut)
        facts["cut"] = cut
    if modality == "text":
        _words(folder, made, found.words)
    write_file(folder / INDEX, (jsontext.write(facts, indent=1) + "\n").encode())


def _words(folder: Path, made: Description, words: int) -> None:
    """Raise ModelError when a tokeniser gives numbers that the network has no embedding for."""
    from headstart.backbones.tokens import tokeniser

    found = tokeniser(folder / TOKENISER, made.tokens or 1)
    largest = max(found.get_vocab(with_added_tokens=True).values(), default=-1)
    if words and largest >= words:
        raise ModelError(
            f"{made.name}: {TOKENISER} gives token numbers up to {largest:,}, and the network has embeddings for "
            f"{words:,}: they do not belong together."
        )


def read(folder: Path) -> Description:
    """The description in a folder. Raises NotFound, ModelError."""
    path = Path(folder) / INDEX
    if not path.is_file():
        raise NotFound(f"{folder} holds no {INDEX}: it is no backbone.")
    if path.stat().st_size > LIMIT:
        raise ModelError(f"{path} has more than {LIMIT:,} bytes.")
    try:
        return parsed(jsontext.parse(path.read_bytes().decode("utf-8")), str(path))
    except (ValueError, UnicodeDecodeError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path}: {error}.") from None


def parsed(facts: Any, where: str) -> Description:
    """A description of facts, each checked. Raises ModelError with what is wrong."""

    def wrong(what: str) -> ModelError:
        return ModelError(f"{where}: {what}.")

    def text(key: str, most: int = 500) -> str:
        value = facts[key]
        if not isinstance(value, str) or not 0 < len(value) <= most:
            raise wrong(f"{key} must be text of 1 to {most} letters")
        return value

    if not isinstance(facts, dict):
        raise wrong("it is no object")
    if facts.get("format") != FORMAT:
        raise wrong(f"format {facts.get('format')!r}: this version of headstart reads {FORMAT}")
    if odd := sorted(set(facts) ^ KEYS):
        raise wrong(f"{odd[0]!r} is {'missing' if odd[0] in KEYS else 'not known'}")
    files = facts["files"]
    if not isinstance(files, dict) or not 0 < len(files) <= 64:
        raise wrong("files must list 1 to 64 files")
    for name, sha in files.items():
        if not FILE.fullmatch(name) or not isinstance(sha, str) or not re.fullmatch(r"[0-9a-f]{64}", sha):
            raise wrong(f"files: {name[:80]!r} is no plain name with a sha256")
    if not NAME.fullmatch(text("name", 100)):
        raise wrong(f"the name {facts['name']!r} holds letters that names do not have")
    if facts["modality"] not in ("text", "image"):
        raise wrong(f"modality {facts['modality']!r} is neither text nor image")
    if text("graph") not in files:
        raise wrong(f"the graph {facts['graph']!r} is not among the files")
    if facts["modality"] == "text" and (not _whole(facts["tokens"], 1, TOKENS) or TOKENISER not in files):
        raise wrong(f"a network for texts needs tokens from 1 to {TOKENS:,} and the file {TOKENISER}")
    try:
        pictures = None if facts["modality"] == "text" else Preprocessing.from_facts(facts["preprocessing"])
    except ValueError as error:
        raise wrong(str(error)) from None
    if (facts["tokens"] is not None) != (pictures is None) or (facts["preprocessing"] is not None) != (
        pictures is not None
    ):
        raise wrong("tokens belong to texts, preprocessing to pictures")
    if facts["revision"] is not None:
        text("revision")
    taps = facts["taps"]
    if not isinstance(taps, list) or len(taps) > 64 or not all(isinstance(tap, dict) for tap in taps):
        raise wrong("taps must be a list of at most 64")
    places = tuple(_place(tap, wrong) for tap in taps)
    top = None if facts["top"] is None else _place(facts["top"], wrong)
    names = [place.name for place in places]
    if len(set(names)) < len(names) or "top" in names or (top and top.name != "top") or not (names or top):
        raise wrong("taps need names of their own, and there must be one")
    if not _whole(facts["parameters"], 0, 2**50) or not isinstance(facts["alone"], bool):
        raise wrong("parameters must be a number, alone true or false")
    notes = facts["notes"]
    if not isinstance(notes, list) or len(notes) > 100 or not all(isinstance(n, str) and len(n) < 2000 for n in notes):
        raise wrong("notes must be a list of sentences")
    made = Description(
        name=facts["name"], modality=facts["modality"], licence=text("licence"), source=text("source"),
        revision=facts["revision"], files=tuple(sorted(files.items())), graph=facts["graph"], cut=text("cut"),
        tokens=facts["tokens"], preprocessing=pictures, precision=text("precision", 20), taps=places, top=top,
        parameters=facts["parameters"], alone=facts["alone"], notes=tuple(notes),
    )  # fmt: skip
    try:
        made.chosen(made.cut)
    except InputError as error:
        raise ModelError(f"{where}: {error}") from None
    return made


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _place(facts: Mapping[str, Any], wrong: Any) -> Place:
    """One tap of the file."""
    if set(facts) != TAP:
        raise wrong(f"a tap must have {', '.join(sorted(TAP))}")
    share = facts["operations"]
    fine = (
        isinstance(facts["name"], str) and re.fullmatch(r"[0-9]{1,4}|top", facts["name"])
        and isinstance(facts["tensor"], str) and 0 < len(facts["tensor"]) <= 1000 and facts["kind"] in KINDS
        and _whole(facts["width"], 1, 2**20) and _whole(facts["parameters"], 0, 2**50) and _whole(facts["size"], 0, 2**50)
        and isinstance(share, int | float) and not isinstance(share, bool) and math.isfinite(share) and 0 <= share <= 1
    )  # fmt: skip
    if not fine:
        raise wrong(f"the tap {str(facts['name'])[:20]!r} cannot be")
    return Place(**{**facts, "operations": float(share)})


def digest(path: Path) -> str:
    """The sha256 of a file, computed once while its size and time of change (ns) stay."""
    now = path.stat()
    return _digest(path, now.st_size, now.st_mtime_ns)


@cache
def _digest(path: Path, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
