"""What a picture file is, by its first bytes (its content decides, never the ending of its name), and its bytes."""

from __future__ import annotations

import io
import os
import re
import stat
from pathlib import Path

LARGEST = 64 << 20  # bytes of one picture file
ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif")
HEAD = 32  # bytes that `kind` looks at

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_OF_ENDING = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP",
    ".dib": "BMP", ".tif": "TIFF", ".tiff": "TIFF", ".gif": "GIF",
}  # fmt: skip
_NOT_READ = {
    ".heic": "HEIC", ".heif": "HEIC", ".avif": "AVIF", ".svg": "SVG", ".svgz": "SVG", ".pdf": "PDF", ".psd": "PSD",
    ".jp2": "JPEG 2000", ".ico": "ICO", ".jxl": "JPEG XL", ".eps": "EPS", ".xcf": "XCF", ".dng": "DNG", ".cr2": "CR2",
    ".nef": "NEF", ".raw": "RAW", ".tga": "TGA",
}  # fmt: skip
READ = "JPEG, PNG, WebP, BMP, TIFF and GIF are read"


def kind(head: bytes) -> str | None:
    """JPEG, PNG, WEBP, BMP, TIFF or GIF by the first `HEAD` bytes; None where it is none of them."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in (12, 16, 40, 52, 56, 64, 108, 124):
        return "BMP"
    return None


def read(path: Path) -> bytes:
    """The bytes of a picture file. Raises ValueError with the reason where it is none, or cannot be read."""
    try:
        with _opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            first = file.read(HEAD)
            if (why := refusal(first, size)) is not None:
                raise ValueError(why)
            content = first + file.read(LARGEST + 1 - len(first))
    except FileNotFoundError:
        raise ValueError("there is no such file") from None
    except IsADirectoryError:
        raise ValueError("it is a folder") from None
    except PermissionError:
        raise ValueError("no permission to read it") from None
    except OSError as error:
        raise ValueError(f"it cannot be read: {(error.strerror or str(error)).lower()}") from None
    if (why := refusal(content[:HEAD], len(content))) is not None:  # it may have grown
        raise ValueError(why)
    return content


def read_beside(folder: Path, cell: str) -> bytes:
    """The picture a cell names, by a path from `folder`. Raises ValueError with the reason."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", cell):
        raise ValueError("it is an address, and nothing is fetched; give a path")
    if "\0" in cell:
        raise ValueError("a path cannot hold a NUL character")
    path = folder / cell
    if "\\" in cell and not os.path.lexists(path):  # written on Windows
        path = folder / cell.replace("\\", "/")
    return read(path)


def head(path: Path) -> bytes:
    """The first bytes of a regular file. Raises OSError; nothing but a regular file is opened."""
    with _opened(path) as file:
        return file.read(HEAD)


def _opened(path: Path) -> io.BufferedReader:
    """A regular file, opened so that nothing else can hang or be disturbed. Raises OSError."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError
    if not stat.S_ISREG(mode):
        raise OSError("it is no regular file")
    return open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb")


def ending(name: str) -> str:
    """The ending of a file's name, in small letters, with its dot."""
    at = name.rfind(".")
    return name[at:].lower() if at > max(name.rfind("/"), name.rfind("\\")) else ""


def misnamed(name: str, head: bytes) -> bool:
    """Whether the ending of a picture's name promises another kind of picture than the content is."""
    promised = _OF_ENDING.get(ending(name))
    return promised is not None and kind(head) not in (None, promised)


def is_like(name: str) -> bool:
    """Whether a name ends like a picture's, also one of a kind that is not read."""
    return ending(name) in _OF_ENDING or ending(name) in _NOT_READ


def refusal(head: bytes, size: int | None = None) -> str | None:
    """Why a file that begins with `head` cannot be a picture; None where it may be one. `size` in bytes, where known."""
    if not head or size == 0:
        return "it is empty"
    if kind(head) is None:
        return f"it is {_instead(head)}; {READ}"
    if size is not None and size > LARGEST:
        return f"it has {size:,} bytes; at most {LARGEST:,} are read"
    return None


def _instead(head: bytes) -> str:
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in (b"avif", b"avis"):
            return "an AVIF picture"
        if brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"):
            return "a HEIC picture"
        return "a video"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"%PDF"):
        return "a PDF document"
    if start.startswith((b"<svg", b"<?xml")):
        return "an SVG drawing or another XML file"
    if start.startswith((b"<!doctype", b"<html", b"<head")):
        return "a web page"
    if head.startswith((b"8BPS", b"\0\0\x01\0", b"\0\0\0\x0cjP", b"\xff\x0a", b"\0\0\0\x0cJXL")):
        return "a picture of a kind that is not read"
    if head.startswith((b"\x1f\x8b", b"PK\x03\x04")):
        return "an archive"
    if not head.strip(b"\0"):
        return "nothing but zeros"
    return "no picture"
