"""Pictures. The content is the file's bytes and so are its key's; decoding happens in here and nowhere else.

A decoded picture is RGB, 8 bits, upright, without metadata: the EXIF orientation is applied, transparency lies over
white, 16 bits are cut to the upper 8, CMYK is turned into RGB, and of several frames it is the first.
"""

from __future__ import annotations

import base64
import binascii
import io
import threading
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from headstart.errors import DataError
from headstart.picturefile import HEAD, LARGEST, kind, refusal

name = "image"

PIXELS = 64_000_000  # of one picture
SIDE = 100_000  # pixels
PROBE = 224  # pixels along the longer side of a picture that is kept in a model
OCCLUDED = 384  # pixels along the longer side of a picture whose parts are covered

_WHITE = (255, 255, 255)
_GREY = (127, 127, 127)
_ORIENTATION = 0x0112  # EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def canonical(contents: Sequence[object]) -> list[bytes]:
    """The bytes of each picture file, unchanged. Raises DataError for what is not bytes; rows are counted from 1."""
    found = []
    for row, content in enumerate(contents, 1):
        if not isinstance(content, bytes):
            raise DataError(f"a picture must be bytes, not {type(content).__name__}.", row=row)
        found.append(content)
    return found


def decoded(content: bytes, least: int = 0) -> Image.Image:
    """The picture in a file's bytes, in RGB. Raises ValueError with a short reason where it cannot be read.

    With `least`, a JPEG more than twice as large is decoded at a half, a quarter or an eighth of its size, such that its
    shorter side still has 2 * `least` pixels: much faster, and hardly another picture once it is resized to `least`.
    """
    if not isinstance(content, bytes):
        raise ValueError(f"a picture must be bytes, not {type(content).__name__}")
    if (why := refusal(content[:HEAD], len(content))) is not None:
        raise ValueError(why)
    form = kind(content[:HEAD])
    with _QUIET:
        try:
            with Image.open(io.BytesIO(content), formats=[str(form)]) as file:
                _check(file.size)
                if least and form == "JPEG":
                    file.draft(None, (2 * least, 2 * least))
                file.load()
                _check(file.size)
                turn = _turn(file)
                picture = _rgb(file)
            if turn is not None:
                picture = picture.transpose(turn)
        except MemoryError:
            raise ValueError("there is not enough memory to decode it") from None
        except _Refused as error:
            raise ValueError(str(error)) from None
        except Exception as error:  # Pillow raises a dozen kinds for damaged files
            raise ValueError(_reason(error, str(form))) from None
    picture.info = {}
    return picture


class _Refused(ValueError):
    """A reason of ours."""


def _check(size: tuple[int, int]) -> None:
    w, h = size
    if w < 1 or h < 1:
        raise _Refused(f"it has {w} x {h} pixels")
    if w * h > PIXELS or max(w, h) > SIDE:
        raise _Refused(f"it has {w:,} x {h:,} pixels; at most {PIXELS // 1_000_000} million are read, {SIDE:,} a side")


def _reason(error: Exception, form: str) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than the {PIXELS // 1_000_000} million pixels that are read"
    said = str(error)
    if "truncated" in said.lower() or isinstance(error, EOFError):
        return f"the {form} file is cut short"
    if isinstance(error, UnidentifiedImageError):
        return f"the beginning of the {form} file is damaged"
    said = " ".join("".join(c for c in said if c.isprintable()).split())[:80]
    return f"the {form} file is damaged" + (f" ({said})" if said and " object at 0x" not in said else "")


def _turn(file: Image.Image) -> Image.Transpose | None:
    """How a picture must be turned to stand upright; a damaged EXIF block turns nothing."""
    if not any(key in file.info for key in ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")):
        return None  # a TIFF is turned by Pillow itself
    try:
        return _TURNS.get(file.getexif().get(_ORIENTATION, 1))
    except Exception:  # the pixels are what counts
        return None


def _rgb(file: Image.Image) -> Image.Image:
    """A loaded picture of any mode in RGB."""
    mode = file.mode
    if mode == "RGB" and "transparency" not in file.info:
        return file  # as it is loaded; a copy costs a quarter of the decoding
    if mode.startswith("I") or mode == "F":
        return Image.fromarray(_eight(np.asarray(file))).convert("RGB")
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in file.info:
        over = file.convert("RGBA")
        under = Image.new("RGB", file.size, _WHITE)
        under.paste(over, mask=over.getchannel("A"))
        return under
    return file.convert("RGB")


def _eight(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey values of 16 or 32 bits (h, w) as 8: the upper 8 of 16; fractions up to 1, and what is wider, by its range."""
    if values.dtype.itemsize == 2:
        upper: NDArray[np.uint8] = (values.astype(np.uint16) >> 8).astype(np.uint8)
        return upper
    found = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(found.min()), float(found.max())
    if low < 0 or high > 65535:
        found = (found - low) / max(high - low, 1e-300) * 255
    elif values.dtype.kind == "f" and high <= 1:
        found = found * 255
    elif values.dtype.kind != "f" or high > 255:
        found = found // 256
    whole: NDArray[np.uint8] = (found + (0.5 if values.dtype.kind == "f" else 0)).clip(0, 255).astype(np.uint8)
    return whole


class _Quiet:
    """Pillow's warnings are silent while any thread is within: what matters of them is an error here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._saved: warnings.catch_warnings[None] | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._saved is not None:
                self._saved.__exit__(None, None, None)
                self._saved = None


_QUIET = _Quiet()


def shown(content: object, size: int = 96) -> str:
    """A JPEG at most `size` pixels along a side, without metadata, as a data URI. Raises ValueError."""
    picture = _small(content, size)
    return "data:image/jpeg;base64," + base64.b64encode(_saved(picture, "JPEG", quality=80)).decode()


def probe(content: object) -> str:
    """A PNG at most 224 pixels along a side, without metadata, as base64. Raises ValueError."""
    picture = _small(content, PROBE)
    return base64.b64encode(_saved(picture, "PNG", optimize=True)).decode()


def unprobe(kept: str) -> bytes:
    """The PNG that `probe` kept, as a content. Raises ValueError."""
    try:
        content = base64.b64decode(kept, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise ValueError(f"a kept picture is not base64 ({error})") from None
    if kind(content[:HEAD]) != "PNG" or len(content) > LARGEST:
        raise ValueError("a kept picture is not a PNG")
    return content


def occluded(content: bytes, grid: int = 7) -> tuple[list[tuple[float, float, float, float]], list[bytes]]:
    """The picture with one of grid x grid patches greyed, for each: where a model's score drops is what it looked at.

    Returns the patches (left, top, right, bottom as shares of the width and height) and as many pictures, row after
    row; a picture with fewer pixels than patches has fewer. Zeiler and Fergus 2014, section 4.2. Raises ValueError.
    """
    picture = _small(content, OCCLUDED)
    w, h = picture.size
    xs, ys = (np.linspace(0, side, min(grid, side) + 1).round().astype(int).tolist() for side in (w, h))
    regions, contents = [], []
    for top, bottom in pairwise(ys):
        for left, right in pairwise(xs):
            covered = picture.copy()
            covered.paste(_GREY, (left, top, right, bottom))
            regions.append((left / w, top / h, right / w, bottom / h))
            contents.append(_saved(covered, "PNG", compress_level=1))
    return regions, contents


def _small(content: object, side: int) -> Image.Image:
    """The picture at most `side` pixels along a side: pixels and nothing else, as a new one."""
    if not isinstance(content, bytes):
        raise ValueError(f"a picture must be bytes, not {type(content).__name__}")
    picture = decoded(content, side).copy()
    picture.thumbnail((side, side))
    picture.info = {}
    return picture


def _saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()
