"""The baseline on pictures: what it sees, row by row, and what it does with pictures that are none."""

import io

import numpy as np
import pytest
from PIL import Image

from headstart.backbones.colours import PARTS, WIDTH, Colours
from headstart.errors import ContentError, InputError
from headstart.folds import folds
from headstart.selection import choose


def picture(array, form="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(np.asarray(array, np.uint8)).save(file, form, **options)
    return file.getvalue()


def plain(*colour, size=(60, 80)):
    return picture(np.full((*size, 3), colour))


def stripes(turned, width=8, size=120):
    wave = np.where(np.arange(size) // width % 2, 230, 20)
    grey = np.broadcast_to(wave[:, None] if turned else wave, (size, size))
    return picture(np.repeat(grey[..., None], 3, 2))


def part(X, name):
    names = list(PARTS)
    start = sum(PARTS[other] for other in names[: names.index(name)])
    return X[:, start : start + PARTS[name]]


@pytest.fixture(scope="module")
def some():
    rng = np.random.default_rng(0)
    return [
        plain(200, 30, 30), plain(30, 30, 200), stripes(False), stripes(True), plain(0, 0, 0, size=(1, 1)),
        picture(rng.integers(0, 256, (90, 70, 3)), "JPEG"), picture(rng.integers(0, 256, (500, 700, 3)), "JPEG", quality=60),
    ]  # fmt: skip


def test_shape_card_and_length(some):
    X = Colours().encode(some)
    assert X.shape == (len(some), WIDTH) == (7, Colours().card.width) == (7, 1000)
    assert X.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1, atol=1e-6)
    assert Colours().encode([]).shape == (0, WIDTH)
    card = Colours().card
    assert (card.modality, card.cut, card.widths, len(card.fingerprint)) == ("image", "top", (WIDTH,), 64)


def test_a_row_depends_on_its_picture_alone(some):
    X = Colours().encode(some)
    np.testing.assert_array_equal(np.concatenate([Colours().encode([one]) for one in some]), X)
    np.testing.assert_array_equal(Colours().encode(some[::-1]), X[::-1])


def test_colour_is_seen(some):
    colour = part(Colours().encode(some), "colour")
    assert colour[0] @ colour[1] == 0
    again = part(Colours().encode([plain(203, 31, 29, size=(200, 100))]), "colour")
    assert again[0] @ colour[0] == pytest.approx((colour[0] @ colour[0]), rel=1e-3)


def test_directions_are_seen(some):
    X = Colours().encode(some)
    shape, edges = part(X, "shape"), part(X, "edges")
    across = shape[2].reshape(16, 9)
    assert (across.argmax(1) == 0).all()  # light changes from left to right
    assert (shape[3].reshape(16, 9)[:, 4] > 10 * shape[3].reshape(16, 9)[:, 0]).all()
    assert edges[2] @ edges[3] < 0.95 * (edges[2] @ edges[2])
    assert not shape[0].any()  # a plain picture has no shape


def test_a_direction_between_two_bins_counts_for_the_nearer():
    down, across = np.mgrid[:96, :96]
    ramp = 2.0 * across + 0.5 * down  # at 14 degrees: 0.7 bins of 20
    shape = part(Colours().encode([picture(np.repeat(ramp[..., None], 3, 2))]), "shape").reshape(16, 9) ** 2
    shares = shape.sum(0) / shape.sum()
    np.testing.assert_allclose(shares[:2], [0.3, 0.7], atol=0.03)


def test_size_hardly_matters():
    rng = np.random.default_rng(1)
    base = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((320, 320), Image.Resampling.BICUBIC)
    X = Colours().encode(
        [picture(base), picture(base.resize((640, 640), Image.Resampling.BICUBIC)), picture(base.rotate(90))]
    )
    assert X[0] @ X[1] > 0.97
    assert X[0] @ X[1] > X[0] @ X[2]


def test_all_broken_pictures_are_named_after_looking_at_all(some):
    with pytest.raises(ContentError) as raised:
        Colours().encode([some[0], b"no picture", some[1], some[5][:200], some[2]])
    assert [i for i, _ in raised.value.faults] == [1, 3]


@pytest.mark.parametrize("content", [None, "text", 3])
def test_what_is_no_bytes_is_refused(some, content):
    with pytest.raises(InputError, match="content number 2"):
        Colours().encode([some[0], content])


def test_there_is_nothing_to_cut_or_export():
    assert Colours().at("top") == Colours()
    assert Colours().taps == ()
    with pytest.raises(InputError, match="no cut"):
        Colours().at("0")
    with pytest.raises(InputError, match="there is no network"):
        Colours().portable()


def test_real_pictures_are_told_apart(shared):
    """TrashNet, 20 training pictures a class of 40: chance is 17 %."""
    paths = [
        sorted(folder.glob("*.jpg"))[:40]
        for folder in sorted((shared / "data" / "trashnet").iterdir())
        if folder.is_dir()
    ]
    X = Colours().encode([path.read_bytes() for kind in paths for path in kind])
    y = np.repeat(np.arange(len(paths)), 40)
    train = np.arange(len(y)) % 2 == 0
    T = np.eye(len(paths), dtype=np.float32)[y]
    head = choose(X[train], T[train], task="classification", folds=folds(y[train]), head="linear").head
    assert (head.scores(X[~train]).argmax(1) == y[~train]).mean() > 0.55
