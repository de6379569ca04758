"""Tar archives, also packed with gzip, bzip2 or xz. A packed one is read from its beginning to its end."""

from __future__ import annotations

import bz2
import io
import lzma
import os
import tarfile
import zlib
from pathlib import Path
from typing import Any

from headstart import picturefile
from headstart.errors import DataError
from headstart.rawfile import shown, stamp
from headstart.source import Source
from headstart.sources.archive import EXEMPT, RATIO, TOTAL, Archive, Member, check_size, checked, refused, source

REWINDS = 100  # times a packed archive is read from its beginning again, before we say so
MEMORY = 512 << 20  # bytes an xz archive may ask for
_FAULTS = (
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    IndexError,
    KeyError,
)
_PACKED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz"}


def read(path: Path, encoding: str | None = None) -> Source:
    """A source of a tar archive. Raises DataError for a damaged one, and for members that may do harm."""
    return source(_open(path), encoding)


def is_tar(path: Path) -> bool:
    """Whether a file, packed or not, begins like a tar archive."""
    try:
        stream = _stream(path)
        first = stream.read(512)
    except _FAULTS:
        return False
    try:
        tarfile.TarInfo.frombuf(first, "utf-8", "surrogateescape")
    except _FAULTS:
        return False
    return True


def _open(path: Path) -> Archive:
    name = shown(path.name)
    before = stamp(path)
    stream = _stream(path)
    places: dict[str, tuple[int, int]] = {}
    members = []
    seen: set[str] = set()
    total = 0
    try:
        with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as opened:
            while (info := opened.next()) is not None:
                opened.members = []  # type: ignore[attr-defined]  # it would keep them all
                at = checked(info.name, seen, name)
                if at is None or info.isdir():
                    continue
                if not info.isreg() or info.issparse():
                    what = "a link" if info.issym() or info.islnk() else "no plain file"
                    raise refused(info.name, f"is {what}", name)
                total += info.size
                check_size(info.name, info.size, None, total, name)
                places[at] = (info.offset_data, info.size)
                stream.seek(info.offset_data)
                members.append(Member(at, info.size, stream.read(min(info.size, picturefile.HEAD))))
            stream.seek(opened.offset)
            ended = bool(stream.read(512))
    except DataError:
        raise
    except _FAULTS as error:
        if not members:
            raise DataError(f"this is a damaged tar archive ({_said(error)}).", file=name) from None
        raise DataError(
            f"the archive is damaged after the member {shown(members[-1].path)} ({_said(error)}).", file=name
        ) from None

    def load(at: str, most: int) -> bytes:
        offset, size = places[at]
        if size > most:
            raise ValueError(f"it has {size:,} bytes; at most {most:,} are read")
        if stamp(path) != before:
            raise DataError("the file changed while it was being read.", file=name, todo="Try again.")
        try:
            stream.seek(offset)
            content: bytes = stream.read(size)
        except DataError:
            raise
        except _FAULTS as error:
            raise ValueError(f"it is damaged in the archive ({_said(error)})") from None
        if len(content) != size:
            raise ValueError("the archive ends within it")
        return content

    if isinstance(stream, _File):
        members.sort(key=lambda m: [part.encode("utf-8", "surrogateescape") for part in m.path.split("/")])
    notes = () if ended else ("the archive has no mark at its end, so files may be missing",)
    return Archive(path, tuple(members), load, notes)


def _said(error: BaseException) -> str:
    return shown(str(error)[:120]) or type(error).__name__


class _File(io.FileIO):
    """A file that is closed with the source it belongs to."""

    def __del__(self) -> None:
        self.close()


def _stream(path: Path) -> Any:
    with open(path, "rb") as file:
        packing = _PACKED.get(file.read(2))
    return _File(str(path), "rb") if packing is None else _Unpacked(path, packing)


class _Unpacked:
    """The unpacked bytes of a gzip, bzip2 or xz file: bounded, forwards, and backwards by beginning again."""

    def __init__(self, path: Path, packing: str) -> None:
        self.name = shown(path.name)
        self.packing = packing
        self.file = _File(str(path), "rb")
        self.limit = min(TOTAL, max(EXEMPT, RATIO * os.fstat(self.file.fileno()).st_size))
        self.rewinds = -1
        self._begin()

    def _begin(self) -> None:
        self.rewinds += 1
        if self.rewinds > REWINDS:
            raise DataError(
                "its files are named in another order than they lie in, which takes for ever in a packed archive.",
                file=self.name,
                todo="Make a zip archive or unpack it.",
            )
        self.file.seek(0)
        self.unpacker: Any = self._unpacker()
        self.fed = b""
        self.at = 0  # of the next byte given
        self.ready = b""

    def _unpacker(self) -> Any:
        if self.packing == "gzip":
            return zlib.decompressobj(31)
        return bz2.BZ2Decompressor() if self.packing == "bzip2" else lzma.LZMADecompressor(memlimit=MEMORY)

    def _more(self) -> bool:
        """Unpack at most 64 KiB more; False at the end."""
        while True:
            if self.unpacker.eof:
                rest = self.unpacker.unused_data or self.fed or self.file.read(1 << 16)
                if not rest.strip(b"\0"):
                    return False
                self.unpacker, self.fed = self._unpacker(), rest
            if not self.fed and (self.packing == "gzip" or self.unpacker.needs_input):
                self.fed = self.file.read(1 << 16)
                if not self.fed:
                    raise EOFError("it is cut short")
            made = self.unpacker.decompress(self.fed, 1 << 16)
            self.fed = self.unpacker.unconsumed_tail if self.packing == "gzip" else b""
            if made:
                self.ready = made
                return True

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            raise ValueError("a read without an end")
        parts = []
        while size:
            if not self.ready and not self._more():
                break
            part, self.ready = self.ready[:size], self.ready[size:]
            size -= len(part)
            self.at += len(part)
            if self.at > self.limit:
                raise DataError(
                    f"it would unpack to more than {self.limit:,} bytes; at most {RATIO} times as many as the file has,"
                    f" and {TOTAL:,}, are read.",
                    file=self.name,
                )
            parts.append(part)
        return b"".join(parts)

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence or offset < 0:
            raise ValueError("a seek that is not from the beginning")
        if offset < self.at:
            self._begin()
        while self.at < offset and self.read(min(1 << 20, offset - self.at)):
            pass
        return self.at

    def tell(self) -> int:
        return self.at
