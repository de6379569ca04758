"""Draw a small data set of pictures: python examples/shapes.py DIR makes DIR/circle, DIR/cross, DIR/square, 24 each."""

import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

KINDS = ("circle", "cross", "square")


def drawn(kind: str, draw: random.Random) -> Image.Image:
    """One shape of a random size, place and colour on a random background, 128 x 128."""
    picture = Image.new("RGB", (128, 128), tuple(draw.randrange(256) for _ in range(3)))
    pen = ImageDraw.Draw(picture)
    size, colour = draw.randrange(20, 45), tuple(draw.randrange(256) for _ in range(3))
    x, y = (draw.randrange(size + 4, 124 - size) for _ in range(2))
    if kind == "circle":
        pen.ellipse((x - size, y - size, x + size, y + size), fill=colour)
    elif kind == "square":
        pen.rectangle((x - size, y - size, x + size, y + size), fill=colour)
    else:
        pen.line((x - size, y, x + size, y), fill=colour, width=size // 3)
        pen.line((x, y - size, x, y + size), fill=colour, width=size // 3)
    return picture


def main(folder: Path, each: int = 24) -> None:
    """Write the pictures."""
    draw = random.Random(0)
    for kind in KINDS:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            drawn(kind, draw).save(folder / kind / f"{kind}-{i:02d}.jpg", quality=90)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
