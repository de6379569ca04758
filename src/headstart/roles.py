"""What each column is for: found from names and content, with the reason in words; or as asked.

A choice that cannot be made is not guessed: the error lists the columns and the flag that settles it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headstart.errors import DataError, InputError, NotFound, near
from headstart.picturecells import is_packed
from headstart.source import open_source

SPLITS = {
    "train": "train", "training": "train", "test": "test", "testing": "test", "eval": "validation",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
}  # fmt: skip

_TEXT = (
    "text", "texts", "message", "messages", "msg", "sentence", "sentences", "content", "contents", "body",
    "utterance", "comment", "review", "document", "doc", "tweet", "post", "email", "abstract", "description",
    "transcript", "query", "question", "prompt", "paragraph", "passage", "article", "snippet", "input", "sms",
)  # fmt: skip
_TEXT_TOO = (
    "title", "subject", "headline", "summary", "name", "note", "notes",
)  # fmt: skip
_LABEL = (
    "label", "labels", "class", "classes", "category", "categories", "target", "targets", "intent", "intents",
    "tag", "tags", "topic", "topics", "sentiment", "y",
)  # fmt: skip
_LABEL_TOO = (
    "type", "kind", "genre", "polarity", "rating", "ratings", "score", "scores", "stars", "department", "priority",
    "status", "emotion", "output", "outcome", "answer", "group", "language", "code",
)  # fmt: skip
_GROUP = (
    "group", "groups", "user", "users", "author", "patient", "customer", "client", "session", "conversation",
    "thread", "speaker", "subject",
)  # fmt: skip
_ID = (
    "id", "ids", "idx", "index", "uid", "uuid", "guid", "key", "rowid", "unnamed",
)  # fmt: skip
_SPLIT = (
    "split", "splits", "set", "subset", "partition", "fold",
)  # fmt: skip
_WEIGHT = ("weight", "weights", "sample_weight", "sample_weights", "sampleweight")


@dataclass(frozen=True)
class Roles:
    """The column that plays each role, None where there is none, and why it was chosen. Either text or image is given."""

    text: str | None
    label: str | None = None
    split: str | None = None
    group: str | None = None
    id: str | None = None
    weight: str | None = None
    why: tuple[str, ...] = ()
    image: str | None = None

    @property
    def content(self) -> str:
        """The column of texts, or of pictures."""
        return str(self.text if self.image is None else self.image)


@dataclass(frozen=True)
class Profile:
    """What the first rows show of one column."""

    name: str
    kind: str  # text | number | truth | list | other
    n: int  # rows looked at
    filled: int
    distinct: int
    length: float  # mean characters of a filled cell
    words: float  # mean words of a filled cell

    @property
    def unique(self) -> bool:
        """Whether no value comes twice."""
        return self.filled == self.distinct


def choose(
    name: str,
    sample: pa.Table,
    asked: Mapping[str, str | None],
    *,
    labelled: bool,
    searched: bool = True,
    pictures: Mapping[str, str] | None = None,
    modality: str | None = None,
) -> Roles:
    """Roles of the columns of a source, from its first rows.

    `asked` maps role names to the columns the user named (None: not named); they are taken as they are. Without
    `labelled` only content and id are looked for. `pictures` are the columns that hold pictures, and why they seem to;
    where there is a good column of text too, that is taken, unless `modality` is "image". Raises NotFound for a column
    that does not exist and InputError when the content or the label column cannot be told; both say what to do.
    """
    columns = sample.column_names
    pictures = pictures or {}
    taken: dict[str, str] = {}
    why: list[str] = []
    for role, column in asked.items():
        if column is None:
            continue
        if column not in columns:
            raise NotFound(f"{name}: there is no column {column!r}.{near(column, columns) or _list(columns)}")
        if column in taken.values():
            other = next(r for r, c in taken.items() if c == column)
            raise InputError(f"{name}: the column {column!r} cannot be both {other} and {role}.")
        taken[role] = column
        why.append(f"{role} column {column!r}: as asked")
    if "text" in taken and "image" in taken:
        raise InputError(f"{name}: examples are texts or pictures; give either --text or --image.")
    profiles = [profile(column, sample.column(column)) for column in columns]

    def free() -> list[Profile]:
        return [p for p in profiles if p.name not in taken.values() and p.name not in pictures]

    def take(role: str, found: tuple[Profile, str] | None) -> None:
        if found is not None:
            taken[role] = found[0].name
            why.append(f"{role} column {found[0].name!r}: {found[1]}")

    if labelled and searched:
        for role, find in (("split", _split), ("weight", _weight)):
            if role not in taken:
                take(role, find(free(), sample))
    if "text" not in taken and "image" not in taken:
        texty = [p.name for p in free() if _is_texty(p)] if pictures and modality != "image" else []
        if modality == "text" and pictures and not texty:
            raise InputError(f"{name} holds pictures, but texts are wanted. Name a column of texts with --text.")
        if not pictures or texty or modality == "text":
            take("text", _text(name, free(), labelled))
            if pictures:
                why.append(
                    f"text column {taken['text']!r}: there are pictures too; for those use --image {min(pictures)}"
                )
        else:
            column = _picture(name, pictures)
            taken["image"] = column
            why.append(f"image column {column!r}: {pictures[column]}")
    if labelled and "label" not in taken:
        take("label", _label(name, free(), taken.get("text") or taken["image"], "text" if "text" in taken else "image"))
    if labelled and searched and "group" not in taken:
        take("group", _group(free()))
    if searched and "id" not in taken:
        take("id", _id(free()))
    order = ("text", "image", "label", "split", "group", "id", "weight")
    why.sort(key=lambda line: order.index(line.split()[0]))
    return Roles(
        taken.get("text"),
        taken.get("label"),
        taken.get("split"),
        taken.get("group"),
        taken.get("id"),
        taken.get("weight"),
        why=tuple(why),
        image=taken.get("image"),
    )


def code_names(names: object, wanted: Set[str]) -> dict[str, str]:
    """What the codes in a label column are called.

    From a dict; from a file with a column of codes, which holds the `wanted`, and one of names; or from a file with
    names alone, whose order gives the code (from 0, or from 1 if the codes do so). Raises InputError or DataError.
    """
    if isinstance(names, Mapping):
        return {str(code): _stripped(name) for code, name in names.items()}
    source = open_source(names)
    table: dict[str, list[str]] = {column: [] for column in source.columns}
    for batch in source.batches():
        for column, values in table.items():
            values += [_stripped(value) for value in batch.column(column).to_pylist()]
    if len(table) == 1:
        (values,) = table.values()
        whole = [int(code) for code in wanted if re.fullmatch("[0-9]{1,9}", code)]
        start = 1 if whole and min(whole) >= 1 and max(whole) == len(values) else 0
        return {str(number): name for number, name in enumerate(values, start)}
    covered = {column: len(wanted & set(values)) for column, values in table.items()}
    code = max(covered, key=lambda column: covered[column])
    if not covered[code]:
        raise InputError(
            f"{source.name}: no column holds the codes of the label column, such as {min(wanted, default='')!r}."
            f"{_list(source.columns)}"
        )
    others = [column for column in table if column != code]
    if len(others) > 1:
        others = _best_names(others)
    if len(others) > 1:
        raise InputError(
            f"{source.name}: cannot tell which column names the codes in {code!r}.{_list(others)}"
            " Give a file with two columns."
        )
    found: dict[str, str] = {}
    for row, (key, name) in enumerate(zip(table[code], table[others[0]], strict=True), 1):
        if key and not name:
            raise DataError(f"the code {key!r} has no name.", file=source.name, row=row, column=others[0])
        if key and found.setdefault(key, name) != name:
            raise DataError(f"the code {key!r} has two names.", file=source.name, row=row, column=code)
    return found


def _best_names(columns: list[str]) -> list[str]:
    """The columns whose own name says that they hold names."""
    for wanted in ("name", "label", "title"):
        found = [column for column in columns if wanted in words(column)]
        if found:
            return found
    return columns


def _stripped(value: object) -> str:
    return "" if value is None else unicodedata.normalize("NFC", str(value).strip())


def profile(name: str, column: pa.ChunkedArray) -> Profile:
    """Look at the values of one column."""
    kind = column.type
    n = len(column)
    if is_packed(kind):
        return Profile(name, "other", n, n - column.null_count, 0, 0.0, 0.0)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return Profile(name, "list", n, n - column.null_count, 0, 0.0, 0.0)
    if pa.types.is_boolean(kind):
        return Profile(name, "truth", n, n - column.null_count, pc.count_distinct(column).as_py(), 5.0, 1.0)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    try:
        texts = column.cast(pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return Profile(name, "other", n, n - column.null_count, 0, 0.0, 0.0)
    texts = pc.utf8_trim_whitespace(texts.drop_null())
    texts = texts.filter(pc.not_equal(texts, ""))
    filled = len(texts)
    if filled == 0:
        return Profile(name, "number" if number else "text", n, 0, 0, 0.0, 0.0)
    if not number and not pa.types.is_temporal(kind):
        number = pc.all(pc.match_substring_regex(texts, NUMBER)).as_py()
    return Profile(
        name,
        "number" if number else "other" if pa.types.is_temporal(kind) else "text",
        n,
        filled,
        pc.count_distinct(texts).as_py(),
        float(pc.mean(pc.utf8_length(texts)).as_py()),
        float(pc.mean(pc.count_substring_regex(texts, r"\S+")).as_py()),
    )


NUMBER = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"


def words(name: str) -> list[str]:
    """The lower-case words of a column name: 'class_label', 'classLabel' and 'Class Label' give class, label."""
    return re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())


def _rank(name: str, first: Sequence[str], second: Sequence[str] = ()) -> int:
    """How well a name says a role: 0 not at all, up to 5 for the role's own name."""
    parts = words(name)
    if not parts or (len(parts) > 1 and parts[-1] in _ID):
        return 0
    if parts == [first[0]]:
        return 5
    if len(parts) == 1 and parts[0] in first:
        return 4
    if parts[-1] in first:
        return 3
    if any(part in first for part in parts):
        return 2
    return 1 if any(part in second for part in parts) else 0


def _best(found: list[Profile], rank: Callable[[Profile], int]) -> list[Profile]:
    top = max((rank(p) for p in found), default=0)
    return [p for p in found if rank(p) == top] if top else []


def _text(name: str, free: list[Profile], labelled: bool) -> tuple[Profile, str]:
    texts = [p for p in free if p.kind == "text" and p.filled]
    if not texts:
        empty = [p for p in free if p.kind == "text"]
        if len(free) == 1 and len(empty) == 1:
            return empty[0], "the only column"
        said = "every column is empty" if empty else "no column holds text"
        raise InputError(f"{name}: {said}.{_list([p.name for p in free])} Name the text column with --text.")
    if len(texts) == 1 and (not labelled or len(free) > 1):
        only = texts[0]
        return only, "the only column with text" if len(free) > 1 else "the only column"
    unlike_label = [p for p in texts if _rank(p.name, _LABEL) < 4 or p.words > 4]
    named = _best(unlike_label, lambda p: _rank(p.name, _TEXT, _TEXT_TOO))
    said = "{:.0f} characters on average"
    if len(named) == 1:
        return named[0], f"by its name; {said.format(named[0].length)}"
    among = named or texts
    by_length = sorted(among, key=lambda p: -p.length)
    longest, second = by_length[0], by_length[1] if len(by_length) > 1 else None
    texty = second is None or longest.words >= 2 or longest.distinct > second.distinct
    if second is None or (texty and longest.length >= 1.5 * second.length):
        return longest, f"it holds the longest texts; {said.format(longest.length)}"
    raise InputError(
        f"{name}: cannot tell which column is the text.{_list([p.name for p in by_length])} Name it with --text."
    )


def _is_texty(p: Profile) -> bool:
    """Whether a column beside pictures holds texts that may be meant: by its name, or by its length."""
    return p.kind == "text" and _rank(p.name, _LABEL) < 4 and (_rank(p.name, _TEXT) >= 3 or p.words >= 4)


def _picture(name: str, pictures: Mapping[str, str]) -> str:
    """The one column of pictures. Raises InputError."""
    named = [column for column in pictures if "image" in words(column)] if len(pictures) > 1 else []
    found = named if len(named) == 1 else list(pictures)
    if len(found) > 1:
        raise InputError(f"{name}: cannot tell which column holds the pictures.{_list(found)} Name it with --image.")
    return found[0]


def _label(name: str, free: list[Profile], content: str, kind: str) -> tuple[Profile, str]:
    usable = [p for p in free if p.filled and p.kind != "other"]
    named = _best(usable, lambda p: _rank(p.name, _LABEL, _LABEL_TOO))
    if len(named) > 1:
        named = [p for p in named if p.kind == "list" or p.distinct > 1] or named
    if len(named) == 1:
        return named[0], f"by its name; {_values(named[0])}"
    if len(named) > 1:
        raise InputError(
            f"{name}: cannot tell which column is the label.{_list([p.name for p in named])} Name it with --label."
        )
    usable = [p for p in usable if not _says_id(p)]
    few = [p for p in usable if p.kind in ("list", "truth") or _comes_again(p)]
    if len(few) == 1:
        return few[0], f"the only other column whose values come again; {_values(few[0])}"
    if len(few) > 1:
        raise InputError(
            f"{name}: cannot tell which column is the label.{_list([p.name for p in few])} Name it with --label."
        )
    if len(usable) == 1 and (usable[0].kind == "number" or not usable[0].unique or usable[0].words <= 3):
        return usable[0], f"the only other column; {_values(usable[0])}"
    others = [p.name for p in free]
    raise InputError(
        f"{name}: the {kind} column is {content!r}, and no column looks like a label.{_list(others)} Name it with --label,"
        " or give the names of the classes with --labels a,b,c for a model without any labelled rows."
    )


def _comes_again(p: Profile) -> bool:
    return 2 <= p.distinct <= max(2, p.filled / 2) and p.words <= 8


def _split(free: list[Profile], sample: pa.Table) -> tuple[Profile, str] | None:
    for p in free:
        if p.kind == "text" and words(p.name)[-1:] and words(p.name)[-1] in _SPLIT and 0 < p.distinct <= 8:
            found = sample.column(p.name).unique().to_pylist()
            values = {str(v).strip().lower() for v in found if v is not None} - {""}
            if values <= SPLITS.keys():
                return p, f"by its name; it holds {', '.join(sorted(values))}"
    return None


def _weight(free: list[Profile], sample: pa.Table) -> tuple[Profile, str] | None:
    del sample
    found = [p for p in free if p.name.lower() in _WEIGHT and p.kind == "number"]
    return (found[0], "by its name") if len(found) == 1 else None


def _group(free: list[Profile]) -> tuple[Profile, str] | None:
    found = []
    for p in free:
        parts = words(p.name)
        plain = parts[:-1] if len(parts) > 1 and parts[-1] in _ID else parts
        if len(plain) == 1 and plain[0] in _GROUP and p.distinct > 1 and not p.unique and p.words <= 4:
            found.append(p)
    if len(found) != 1:
        return None
    return found[0], f"by its name; rows of one {found[0].name} stay on one side of every split"


def _id(free: list[Profile]) -> tuple[Profile, str] | None:
    found = [p for p in free if _says_id(p) and p.unique and p.filled == p.n and p.kind in ("text", "number")]
    exact = [p for p in found if words(p.name) == ["id"]] or found
    return (exact[0], "by its name; its values are all different") if len(exact) == 1 else None


def _says_id(p: Profile) -> bool:
    parts = words(p.name)
    return (bool(parts) and parts[-1] in _ID) or (p.name == "column_1" and p.unique and p.kind == "number")


def _values(p: Profile) -> str:
    if p.kind == "list":
        return "a list in each row"
    first = "the first " if p.n >= 10_000 else ""
    return f"{p.distinct:,} different values in {first}{p.n:,} rows"


def _list(columns: Sequence[Any]) -> str:
    shown = ", ".join(repr(c) for c in columns[:12])
    return f" The columns are {shown}{', ...' if len(columns) > 12 else ''}." if columns else ""
