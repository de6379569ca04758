"""The baseline for pictures that needs no network: how often each colour, each edge and each small pattern occurs.

Four histograms, each square-rooted (a dot product of square roots is the Bhattacharyya coefficient of two histograms,
and the distance Hellinger's) and of unit length, side by side:

- colour: Y, Cb and Cr together, in 6 x 8 x 8 bins, of the picture at 48 x 48 pixels; Cb and Cr in steps of 10 about grey;
- edges: the direction of the gradient in 9 bins by its size in 6 powers of two, in each quarter, at 96 x 96 grey pixels;
- shape: the gradient's direction, weighed by its size, in 4 x 4 cells (Dalal and Triggs 2005, section 6, without blocks);
- pattern: which of its 8 neighbours are brighter than a pixel (Ojala et al. 2002, section 2), by more than 3 of 256 levels,
  at 160 x 160 grey pixels, in 256 bins.

Measured on TrashNet, 50 training pictures a class, the rest tested, mean of 3 splits, with Headstart's linear head:
76.0 % (72.7, 79.3, 76.0). Each alone: colour 66, edges 57, shape 45, pattern 54; raw 16 x 16 pixels reach 50 in the
same way. A MobileNet's features are 72 to 85 there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from headstart.backbone import Card, Contents, Portable, Tap, arithmetic
from headstart.backbones.onnx import spread
from headstart.errors import ContentError, InputError

if TYPE_CHECKING:
    from PIL.Image import Image

NAME = "colours"
COLOUR, EDGE, PATTERN = 48, 96, 160  # pixels along each side
PARTS = {"colour": 384, "edges": 216, "shape": 144, "pattern": 256}
WIDTH = sum(PARTS.values())
STILL = 200.0  # gradient in a cell, grey levels, that counts for as much as the cell's own: flat cells stay small
NEIGHBOURS = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


def described(picture: Image) -> NDArray[np.float32]:
    """The feature (1000,) of one RGB picture, of unit length."""
    from PIL.Image import Resampling

    colour = np.asarray(picture.resize((COLOUR, COLOUR), Resampling.BOX).convert("YCbCr"), np.int64)
    grey = picture.convert("L")
    small, large = (np.asarray(grey.resize((side, side), Resampling.BOX), np.int64) for side in (EDGE, PATTERN))
    found = [_colour(colour), *_gradients(small), _pattern(large)]
    made = np.concatenate([part / max(float(np.linalg.norm(part)), 1e-12) for part in found])
    return np.asarray(made / max(float(np.linalg.norm(made)), 1e-12), np.float32)


def _colour(picture: Codes) -> Floats:
    """(48, 48, 3) Y, Cb, Cr -> (384,)."""
    light = picture[..., 0] * 6 // 256
    blue, red = (np.clip((picture[..., i] - 88) // 10, 0, 7) for i in (1, 2))
    return np.sqrt(np.bincount((light * 64 + blue * 8 + red).ravel(), minlength=384))


def _gradients(grey: Codes) -> tuple[Floats, Floats]:
    """(96, 96) -> edges (216,) and shape (144,)."""
    across, down = np.zeros(grey.shape), np.zeros(grey.shape)
    across[:, 1:-1] = grey[:, 2:] - grey[:, :-2]
    down[1:-1] = grey[2:] - grey[:-2]
    size = np.hypot(across, down)
    turn = np.arctan2(down, across) % np.pi / np.pi * 9  # light to dark is as dark to light
    low = turn.astype(np.int64) % 9
    share = turn - np.floor(turn)
    level = np.clip(np.log2(size + 1).astype(np.int64), 1, 6) - 1
    edges = np.bincount(((_cells(2) * 6 + level) * 9 + low).ravel(), minlength=216)
    cell = _cells(4) * 9
    shape = np.bincount((cell + low).ravel(), (size * (1 - share)).ravel(), 144)
    shape += np.bincount((cell + (low + 1) % 9).ravel(), (size * share).ravel(), 144)
    shape = shape.reshape(16, 9)
    return np.sqrt(edges), np.sqrt(shape / (shape.sum(1, keepdims=True) + STILL)).ravel()


def _cells(n: int) -> Codes:
    """(96, 96): the number of the cell, of n x n, in which each pixel lies."""
    along = np.arange(EDGE) * n // EDGE
    return np.asarray(along[:, None] * n + along, np.int64)


def _pattern(grey: Codes) -> Floats:
    """(160, 160) -> (256,)."""
    inside = PATTERN - 2
    middle = grey[1:-1, 1:-1] + 3
    code = np.zeros((inside, inside), np.int64)
    for bit, (y, x) in enumerate(NEIGHBOURS):
        code |= (grey[y : y + inside, x : x + inside] > middle).astype(np.int64) << bit
    return np.sqrt(np.bincount(code.ravel(), minlength=256))


@dataclass(frozen=True)
class Colours:
    """The histograms as a backbone."""

    @property
    def card(self) -> Card:
        """What is known of it."""
        said = f"headstart colours 1: {PARTS} {COLOUR} {EDGE} {PATTERN} {STILL}"
        return arithmetic(NAME, "image", WIDTH, said)

    @property
    def taps(self) -> tuple[Tap, ...]:
        """None: there is nothing to cut."""
        return ()

    def at(self, cut: str) -> Colours:
        """Itself at "top". Raises InputError for any other cut."""
        if cut != "top":
            raise InputError(f"no cut {cut!r} in {NAME}: it has no layers, only top.")
        return self

    def encode(self, contents: Contents) -> NDArray[np.float32]:
        """Features of n picture files, (n, 1000) float32 of unit length, one picture a core at a time.

        Raises ContentError with every picture that cannot be read, InputError on what is no bytes.
        """
        from headstart.modalities.image import decoded

        for i, content in enumerate(contents):
            if not isinstance(content, bytes):
                raise InputError(
                    f"content number {i + 1} of the call is a {type(content).__name__}, not a picture's bytes."
                )
        X = np.zeros((len(contents), WIDTH), np.float32)
        faults: list[tuple[int, str]] = []

        def one(i: int) -> None:
            try:
                picture = decoded(contents[i], PATTERN)  # type: ignore[arg-type]
            except ValueError as error:
                faults.append((i, str(error)))
            else:
                X[i] = described(picture)

        spread(one, range(len(contents)))
        if faults:
            raise ContentError(sorted(faults))
        return X

    def portable(self) -> Portable:
        """Raises InputError: there is no network."""
        raise InputError(
            f"there is no network in {NAME}: it is arithmetic on pixels, and has nothing to export or shrink."
        )
