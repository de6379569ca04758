"""Zip archives. What their directory says is held against what stands before each member."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from pathlib import Path

from headstart import picturefile
from headstart.errors import DataError
from headstart.rawfile import shown, stamp
from headstart.source import Source
from headstart.sources.archive import MEMBERS, Archive, Member, check_size, checked, refused, source

_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    struct.error,
    NotImplementedError,
)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)  # LZMA asks for as much memory as it likes


def read(path: Path, encoding: str | None = None) -> Source:
    """A source of a zip archive. Raises DataError for a damaged one, and for members that may do harm."""
    return source(_open(path), encoding)


def _open(path: Path) -> Archive:
    name = shown(path.name)
    _check_directory(path, name)
    before = stamp(path)
    try:
        opened = zipfile.ZipFile(_Closing(str(path), "rb"))
    except _FAULTS as error:
        raise DataError(f"this is a damaged zip archive ({_said(error)}).", file=name) from None
    infos = {}
    seen: set[str] = set()
    total = 0
    for info in opened.infolist():
        at = checked(info.orig_filename, seen, name)
        if at is None:
            continue
        _check(info, name)
        total += info.file_size
        check_size(info.orig_filename, info.file_size, info.compress_size, total, name)
        if not info.is_dir():
            infos[at] = info
    try:
        _check_places(opened, sorted(infos.values(), key=lambda info: info.header_offset), name)
    except DataError:
        raise
    except _FAULTS as error:
        raise DataError(f"this is a damaged zip archive ({_said(error)}).", file=name) from None

    def load(at: str, most: int) -> bytes:
        info = infos[at]
        if info.file_size > most:
            raise ValueError(f"it has {info.file_size:,} bytes; at most {most:,} are read")
        if stamp(path) != before:
            raise DataError("the file changed while it was being read.", file=name, todo="Try again.")
        try:
            with opened.open(info) as file:
                content = file.read(most + 1)
        except _FAULTS as error:
            raise ValueError(f"it is damaged in the archive ({_said(error)})") from None
        if len(content) != info.file_size:
            raise ValueError(f"it has {len(content):,} bytes in the archive, where {info.file_size:,} are declared")
        return content

    def head(info: zipfile.ZipInfo) -> bytes:
        try:
            with opened.open(info) as file:
                return file.read(picturefile.HEAD)
        except _FAULTS:
            return b""

    order = sorted(infos, key=lambda at: [part.encode("utf-8", "surrogateescape") for part in at.split("/")])
    return Archive(path, tuple(Member(at, infos[at].file_size, head(infos[at])) for at in order), load)


class _Closing(io.FileIO):
    """A file that is closed with the source it belongs to."""

    def __del__(self) -> None:
        self.close()


def _said(error: BaseException) -> str:
    return shown(str(error)[:120]) or type(error).__name__


def _check_directory(path: Path, name: str) -> None:
    """Refuse a directory of too many members before it is read into memory."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 65_557))
        end = file.read()
    at = end.rfind(b"PK\5\6")
    if at < 0 or len(end) < at + 22:
        raise DataError("this is a damaged zip archive (its directory is missing).", file=name)
    disk, _, _, count, length = struct.unpack("<4H1I", end[at + 4 : at + 16])
    if disk not in (0, 0xFFFF):
        raise DataError("this is one part of a zip archive in several.", file=name)
    if count == 0xFFFF or length == 0xFFFFFFFF:  # zip64: the true numbers stand before
        before = end[max(0, at - 20) : at]
        if before[:4] == b"PK\6\7":
            (offset,) = struct.unpack("<Q", before[8:16])
            with open(path, "rb") as file:
                file.seek(min(offset, size))
                record = file.read(56)
            if record[:4] == b"PK\6\6" and len(record) == 56:
                count, length = struct.unpack("<2Q", record[32:48])
    if count > MEMBERS or length > 512 * MEMBERS:
        raise DataError(f"more than {MEMBERS:,} files in this archive.", file=name)


def _check(info: zipfile.ZipInfo, name: str) -> None:
    mode = info.external_attr >> 16
    if info.create_system == 3 and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise refused(info.orig_filename, "is a link" if stat.S_ISLNK(mode) else "is no plain file", name)
    if info.flag_bits & 0x41:
        raise refused(info.orig_filename, "is encrypted", name)
    if info.compress_type not in _METHODS:
        raise refused(info.orig_filename, f"is packed in a way that is not read (method {info.compress_type})", name)


def _check_places(opened: zipfile.ZipFile, infos: list[zipfile.ZipInfo], name: str) -> None:
    """Each member's own header says what the directory says, and no two members share bytes."""
    file = opened.fp
    end = 0
    for info in infos:
        file.seek(info.header_offset)  # type: ignore[union-attr]
        local = file.read(30)  # type: ignore[union-attr]
        if len(local) < 30 or local[:4] != b"PK\3\4":
            raise refused(info.orig_filename, "has no header where the directory says", name)
        flags, method = struct.unpack("<2H", local[6:10])
        packed, size, named, extra = struct.unpack("<2I2H", local[18:30])
        own = file.read(named)  # type: ignore[union-attr]
        wanted = info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437", "replace")
        sizes = (packed, size) in ((info.compress_size, info.file_size), (0xFFFFFFFF, 0xFFFFFFFF))
        if own != wanted or method != info.compress_type or flags & 0x41 or not (sizes or flags & 8):
            raise refused(info.orig_filename, "has a header that differs from the archive's directory", name)
        if info.header_offset < end:
            raise refused(info.orig_filename, "lies over another one", name)
        end = info.header_offset + 30 + named + extra + info.compress_size
