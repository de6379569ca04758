"""A file of text, or standard input, as lines: its encoding found and said, its digest, and the line of every fault.

UTF-8 is tried first, over the whole file; UTF-16 and UTF-32 are known by their mark or by where their zero bytes lie;
what is left is Windows-1252 if nothing speaks against it. Nothing is ever replaced by a question mark.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from headstart.errors import DataError, InputError
from headstart.rawfile import BLOCK, blocks, changed, shown

HEAD = 1 << 17  # bytes looked at to find the format
LINE_LIMIT = 1 << 24  # characters

_MARKS = (
    (b"\xff\xfe\0\0", "utf-32", "UTF-32"),
    (b"\0\0\xfe\xff", "utf-32", "UTF-32"),
    (b"\xef\xbb\xbf", "utf-8-sig", "UTF-8"),
    (b"\xff\xfe", "utf-16", "UTF-16"),
    (b"\xfe\xff", "utf-16", "UTF-16"),
)
_NOT_IN_1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
_SAY = "Say what it is with encoding, for example cp1251, gb18030 or shift_jis."


@dataclass(frozen=True)
class TextFile:
    """Text that can be read from its beginning, as often as wanted (standard input: once)."""

    name: str
    ending: str  # of the file name, lower case, with its dot; "" for standard input
    encoding: str  # a Python codec
    notes: tuple[str, ...]
    head: str  # the first characters
    whole: bool  # whether head is everything
    sha256: str | None  # of all bytes at the first look; None for standard input
    _blocks: Callable[[], Iterator[bytes]]
    _digests: list[str] = field(default_factory=list)  # of each complete reading

    def pieces(self, *, whole_lines: bool = True) -> Iterator[str]:
        """Characters in pieces, of whole lines if wanted. Raises DataError with the line of the first fault."""
        sha = hashlib.sha256()

        def hashed() -> Iterator[bytes]:
            for block in self._blocks():
                sha.update(block)
                yield block

        try:
            texts = _decoded(hashed(), self.encoding, self.name)
            yield from _whole_lines(texts, self.name) if whole_lines else texts
        except _Undecodable as fault:  # standard input, past what was looked at
            raise DataError(f"{fault} is not {self.encoding}.", file=self.name, line=fault.line, todo=_SAY) from None
        if self.sha256 not in (None, sha.hexdigest()):
            raise changed(self.name)
        self._digests.append(sha.hexdigest())

    def lines(self) -> Iterator[str]:
        """The lines with their ends (\\n, \\r\\n or \\r)."""
        return chain.from_iterable(map(split_lines, self.pieces()))

    def digest(self) -> str | None:
        """Sha256 of the bytes, in hex; for standard input None until it has been read to its end."""
        return self.sha256 or (self._digests[-1] if self._digests else None)


def open_text(path: Path | None, encoding: str | None = None) -> TextFile:
    """Look at a file (or, for None, standard input) and find its encoding. Reads a file once, to its end."""
    if encoding is not None:
        _check_codec(encoding)
    if path is None:
        return _standard_input(encoding)
    where, name = path, shown(path.name)
    sha = hashlib.sha256()
    head = b""
    size = 0

    def hashed() -> Iterator[bytes]:
        nonlocal head, size
        for block in blocks(where):
            if not head:
                head = block[:HEAD]
            size += len(block)
            sha.update(block)
            yield block

    stream = hashed()
    first = next(stream, b"")
    found, notes = _find(lambda: chain([first], stream), lambda: blocks(where), head, name, encoding)
    for _ in stream:  # the digest is of everything
        pass
    text = _head_text(head, found, whole=size <= len(head))
    return TextFile(
        name, where.suffix.lower(), found, notes, text, size <= len(head), sha.hexdigest(), lambda: blocks(where)
    )


def decode(data: bytes, name: str, encoding: str | None = None) -> tuple[str, tuple[str, ...]]:
    """One small file's text and what there is to say of its encoding. Raises DataError."""
    found, notes = _find(lambda: iter([data]), lambda: iter([data]), data[:HEAD], name, encoding)
    return "".join(_decoded(iter([data]), found, name)), notes


def _standard_input(encoding: str | None) -> TextFile:
    stream = sys.stdin.buffer
    name = "standard input"
    head = stream.read(HEAD)
    whole = len(head) < HEAD
    used = False

    def once() -> Iterator[bytes]:
        nonlocal used
        if used:
            raise InputError("Standard input can be read only once. Save it to a file first.")
        used = True
        yield head
        while block := stream.read1(BLOCK) if hasattr(stream, "read1") else stream.read(BLOCK):
            yield block

    cut = head if whole else head[: head.rfind(b"\n") + 1] or head
    found, notes = _find(lambda: iter([cut]), lambda: iter([cut]), head, name, encoding)
    return TextFile(name, "", found, notes, _head_text(head, found, whole=whole), whole, None, once)


def _find(
    first: Callable[[], Iterator[bytes]],
    again: Callable[[], Iterator[bytes]],
    head: bytes,
    name: str,
    encoding: str | None,
) -> tuple[str, tuple[str, ...]]:
    """The codec of some bytes and the notes on it. Every byte is looked at, so that reading it later cannot fail."""
    if encoding is not None:
        codec = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
        notes: tuple[str, ...] = (f"read as {encoding}, as asked",)
    else:
        codec, notes = _by_mark(head)
    try:
        for _ in _decoded(first(), codec, name):
            pass
    except _Undecodable as fault:
        if encoding is not None or codec not in ("utf-8", "utf-8-sig"):
            said = encoding or codec.upper()
            raise DataError(f"{fault} is not {said}.", file=name, line=fault.line, todo=_SAY) from None
        if fault.surrogate:
            raise DataError(
                "half of a surrogate pair (U+D800 to U+DFFF) is not a character.", file=name, line=fault.line
            ) from None
        _check_1252(again, name, fault)
        return "cp1252", (f"read as Windows-1252: {fault} at line {fault.line:,} is not UTF-8",)
    return codec, notes


def _by_mark(head: bytes) -> tuple[str, tuple[str, ...]]:
    for mark, marked, said in _MARKS:
        if head.startswith(mark):
            return marked, () if said == "UTF-8" else (f"read as {said}: its byte order mark says so",)
    codec = utf16_without_mark(head)
    if codec is not None:
        return codec, ("read as UTF-16 without its mark: every other byte is zero",)
    return "utf-8", ()


def utf16_without_mark(head: bytes) -> str | None:
    """The codec, if zero bytes lie where UTF-16 has them and the line ends are those of UTF-16; else None."""
    head = head[: len(head) // 2 * 2]
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if min(even, odd) > 0.05 * max(even, odd) or max(even, odd) < max(1, 0.01 * len(head)):
        return None
    codec = "utf-16-be" if even > odd else "utf-16-le"
    ends = head.count(b"\n") + head.count(b"\r")
    text = head.decode(codec, "ignore")
    if ends == 0:
        return codec if max(even, odd) > 0.12 * len(head) else None
    return codec if text.count("\n") + text.count("\r") >= 0.8 * ends else None


def _check_1252(stream: Callable[[], Iterator[bytes]], name: str, fault: _Undecodable) -> None:
    """Refuse bytes that are more likely damaged UTF-8, or another encoding, than Windows-1252."""
    good = bad = high = letters = line = 0
    for raw in _byte_lines(stream()):
        line += 1
        letters += len(raw) - raw.count(b" ")
        if raw.isascii():
            continue
        if undefined := _NOT_IN_1252.search(raw):
            byte = raw[undefined.start()]
            raise DataError(
                f"byte 0x{byte:02x} is neither UTF-8 nor Windows-1252.", file=name, line=line, todo=_SAY
            ) from None
        high += len(raw) - len(raw.translate(None, bytes(range(128, 256))))
        try:
            raw.decode("utf-8")
            good += 1
        except UnicodeDecodeError:
            bad += 1
    if good > bad:
        raise DataError(
            f"{fault} is not UTF-8, though {good:,} of the {good + bad:,} lines beyond ASCII are.",
            file=name,
            line=fault.line,
            todo="Repair that line, or say encoding cp1252 if the whole file is Windows-1252.",
        ) from None
    if high > 0.25 * letters and high > 20:
        raise DataError(
            f"{fault} is not UTF-8, and {high / letters:.0%} of the bytes are beyond ASCII, too many for Windows-1252.",
            file=name,
            line=fault.line,
            todo=_SAY,
        ) from None


def _byte_lines(stream: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for block in stream:
        *complete, rest = (rest + block).split(b"\n")
        yield from complete
    yield rest


class _Undecodable(Exception):
    """Some bytes are not in the encoding tried."""

    def __init__(self, error: UnicodeDecodeError, line: int) -> None:
        data = bytes(error.object[error.start : error.start + 3])
        super().__init__(f"byte 0x{data[0]:02x}" if data else "the end")
        self.line = line
        self.surrogate = len(data) == 3 and data[0] == 0xED and data[1] >= 0xA0 and data[2] >= 0x80


def _decoded(stream: Iterable[bytes], encoding: str, name: str) -> Iterator[str]:
    """Blocks of characters. Raises _Undecodable with its line, and DataError for a NUL."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    split = False  # whether the last block ended between \r and, perhaps, \n
    for block in chain(stream, [b""]):
        try:
            text = decoder.decode(block, not block)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(error.encoding, errors="ignore")
            raise _Undecodable(error, line + breaks(before)) from None
        except UnicodeError as error:  # UTF-16 that ends within its mark
            raise DataError(f"this is not {encoding}: {error}.", file=name, line=line) from None
        if "\0" in text:
            nul = line + breaks(text[: text.index("\0")])
            raise DataError(
                "a NUL character, which no text has.",
                file=name,
                line=nul,
                todo="The file is damaged or not a text file; remove it, or write the file anew.",
            )
        line += breaks(text) - (split and text.startswith("\n"))
        split = text.endswith("\r")
        if text:
            yield text


def breaks(text: str) -> int:
    """How many lines end in a text."""
    if "\r" not in text:
        return text.count("\n")
    return text.count("\n") + text.count("\r") - text.count("\r\n")


def split_lines(piece: str) -> Iterator[str]:
    """The lines of a piece of text, with their ends; unlike str.splitlines, only at \\n, \\r\\n and \\r."""
    return io.StringIO(piece, newline="")


def _whole_lines(texts: Iterable[str], name: str) -> Iterator[str]:
    rest = ""
    line = 1
    for text in texts:
        whole = rest + text
        end = max(whole.rfind("\n"), whole.rfind("\r", 0, -1)) + 1  # a last \r may be half of \r\n
        piece, rest = whole[:end], whole[end:]
        line += breaks(piece)
        if len(rest) > LINE_LIMIT:
            raise DataError(f"a line of more than {LINE_LIMIT:,} characters.", file=name, line=line)
        if piece:
            yield piece
    if rest:
        yield rest


def _head_text(head: bytes, encoding: str, *, whole: bool) -> str:
    return codecs.getincrementaldecoder(encoding)(errors="strict" if whole else "ignore").decode(head, whole)


def _check_codec(encoding: str) -> None:
    try:
        "a".encode(encoding)
    except (LookupError, UnicodeError, ValueError):
        raise InputError(
            f"There is no encoding {encoding!r}. Known are utf-8, utf-16, cp1252, latin-1, cp1251, shift_jis, gb18030"
            " and Python's other text codecs."
        ) from None
