"""Pictures of every kind become RGB as they look; what is broken becomes a ValueError, and nothing else."""

import base64
import io
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from headstart import example, modalities
from headstart.errors import DataError, NotFound
from headstart.modalities import image
from headstart.modalities.image import decoded, occluded, probe, shown, unprobe

RED, GREEN, BLUE, GREY, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (90, 90, 90), (255, 255, 255)


def saved(picture: Image.Image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def corners() -> Image.Image:
    """40 x 20: red, green over blue, grey."""
    picture = Image.new("RGB", (40, 20), RED)
    picture.paste(GREEN, (20, 0, 40, 10))
    picture.paste(BLUE, (0, 10, 20, 20))
    picture.paste(GREY, (20, 10, 40, 20))
    return picture


def seen(content: bytes) -> list[tuple[int, ...]]:
    """The colours in the middle of the four quarters, row by row."""
    picture = decoded(content)
    assert picture.mode == "RGB"
    assert picture.info == {}
    w, h = picture.size
    return [picture.getpixel((x, y)) for y in (h // 4, 3 * h // 4) for x in (w // 4, 3 * w // 4)]


def near(found, expected, far=3) -> bool:
    return np.abs(np.array(found, int) - np.array(expected, int)).max() <= far


# Every kind of file, every mode --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}), ("JPEG", {"quality": 95, "progressive": True, "subsampling": 0}),
        ("PNG", {}), ("WEBP", {"lossless": True}), ("WEBP", {"quality": 95}), ("BMP", {}), ("TIFF", {}), ("GIF", {}),
        ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "tiff_deflate"}),
        ("TIFF", {"compression": "packbits"}), ("TIFF", {"compression": "jpeg", "quality": 95}),
    ],
)  # fmt: skip
def test_every_format(form, options):
    assert near(seen(saved(corners(), form, **options)), [RED, GREEN, BLUE, GREY], 16 if "quality" in options else 0)


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk(form):
    found = seen(saved(corners().convert("CMYK"), form, **({"quality": 95} if form == "JPEG" else {})))
    assert near(found, [RED, GREEN, BLUE, GREY], 12)


def test_cmyk_as_photoshop_writes_it():
    """Four channels and an Adobe marker: the values are inverted, and read so."""
    raw = saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)  # red
    assert b"Adobe" in raw
    assert near([decoded(raw).getpixel((8, 8))], [RED], 12)


def deep(mode: str, values: np.ndarray, form: str) -> bytes:
    return saved(Image.fromarray(values.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])), form)


RAMP = np.array([[0, 256, 32768], [65535, 255, 5 * 256]])


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_cut_to_the_upper_eight(form):
    picture = decoded(deep("I;16", RAMP, form))
    assert np.asarray(picture)[:, :, 0].tolist() == [[0, 1, 128], [255, 0, 5]]


def test_sixteen_bits_high_byte_first():
    content = saved(Image.frombytes("I;16B", (3, 2), RAMP.astype(">u2").tobytes()), "TIFF")
    assert np.asarray(decoded(content))[:, :, 0].tolist() == [[0, 1, 128], [255, 0, 5]]


def png(w: int, h: int, depth: int, colour: int, rows: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG made by hand; rows with their filter bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">2I5B", w, h, depth, colour, 0, 0, 0))
    body = b"".join(chunk(*one) for one in more) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + body


def test_png_of_every_depth():
    rgb16 = struct.pack(">B6H", 0, 65535, 256, 0, 0, 128 * 256, 65535)
    assert [decoded(png(2, 1, 16, 2, rgb16)).getpixel((x, 0)) for x in (0, 1)] == [(255, 1, 0), (0, 128, 255)]
    grey_alpha16 = struct.pack(">B4H", 0, 0, 65535, 0, 0)  # black, and nothing at all
    assert [decoded(png(2, 1, 16, 4, grey_alpha16)).getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), WHITE]
    rgba16 = struct.pack(">B8H", 0, 65535, 0, 0, 65535, 65535, 0, 0, 0)
    assert [decoded(png(2, 1, 16, 6, rgba16)).getpixel((x, 0)) for x in (0, 1)] == [RED, WHITE]
    assert np.asarray(decoded(png(8, 1, 1, 0, b"\0\xa5")))[0, :, 0].tolist() == [255, 0, 255, 0, 0, 255, 0, 255]
    assert np.asarray(decoded(png(4, 1, 2, 0, b"\0\x1b")))[0, :, 0].tolist() == [0, 85, 170, 255]
    assert np.asarray(decoded(png(2, 1, 4, 0, b"\0\x0f")))[0, :, 0].tolist() == [0, 255]


def test_transparent_colours_lie_over_white():
    grey = png(2, 1, 8, 0, b"\0\x05\x09", (b"tRNS", b"\0\x05"))
    assert [decoded(grey).getpixel((x, 0)) for x in (0, 1)] == [WHITE, (9, 9, 9)]
    rgb = png(2, 1, 8, 2, b"\0\x01\x02\x03\x04\x05\x06", (b"tRNS", b"\0\x01\0\x02\0\x03"))
    assert [decoded(rgb).getpixel((x, 0)) for x in (0, 1)] == [WHITE, (4, 5, 6)]
    palette = png(3, 1, 8, 3, b"\0\0\1\2", (b"PLTE", bytes([*RED, *GREEN, *BLUE])), (b"tRNS", b"\0\xff\x80"))
    assert near([decoded(palette).getpixel((x, 0)) for x in range(3)], [WHITE, GREEN, (127, 127, 255)], 1)


def half(mode: str) -> Image.Image:
    """Red or grey at half opacity on the left, nothing at all on the right."""
    picture = Image.new("RGBA", (40, 20), (255, 0, 0, 0))
    picture.paste((255, 0, 0, 128), (0, 0, 20, 20))
    return picture.convert(mode)


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_alpha_lies_over_white(form, options):
    left, right, *_ = seen(saved(half("RGBA"), form, **options))
    assert near([left, right], [(255, 127, 127), WHITE], 1)


def test_grey_with_alpha():
    left, right, *_ = seen(saved(half("LA")))
    assert near([left, right], [(165, 165, 165), WHITE], 2)


@pytest.mark.parametrize("mode", ["L", "1", "P", "F", "I"])
def test_grey_of_every_mode(mode):
    picture = Image.new("L", (40, 20), 0)
    picture.paste(255, (20, 0, 40, 20))
    content = saved(picture.convert(mode), "TIFF") if mode in "FI" else saved(picture.convert(mode))
    assert seen(content)[:2] == ([(0, 0, 0), WHITE] if mode != "I" else [(0, 0, 0), (0, 0, 0)])  # I: 255 of 65,535


def test_fractions_and_wide_numbers():
    for values, expected in (
        ([[0.0, 0.5, 1.0]], [0, 128, 255]),
        ([[0.0, 100.0, 255.0]], [0, 100, 255]),
        ([[0.0, 32768.0, 65535.0]], [0, 128, 255]),
        ([[-1.0, 0.0, 1.0]], [0, 128, 255]),
        ([[float("nan"), float("inf"), 1.0]], [0, 0, 255]),
        ([[7e30, 7e30, 7e30]], [0, 0, 0]),
    ):
        assert np.asarray(decoded(deep("F", np.array(values), "TIFF")))[0, :, 0].tolist() == expected
    wide = deep("I", np.array([[0, 1 << 30, (1 << 31) - 1]]), "TIFF")
    assert np.asarray(decoded(wide))[0, :, 0].tolist() == [0, 127, 255]


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several(form):
    others = [Image.new("RGB", (40, 20), BLUE), Image.new("RGB", (40, 20), GREEN)]
    options = {"lossless": True} if form == "WEBP" else {}
    content = saved(corners(), form, save_all=True, append_images=others, **options)
    assert near(seen(content), [RED, GREEN, BLUE, GREY])


def test_two_pictures_of_one_shot():
    content = saved(corners(), "MPO", save_all=True, append_images=[Image.new("RGB", (40, 20), BLUE)], quality=95)
    assert content[:3] == b"\xff\xd8\xff"
    assert near(seen(content), [RED, GREEN, BLUE, GREY], 90)
    assert decoded(content).resize((8, 8)).size == (8, 8)  # pixels are there without the file


TURNED = {
    1: [RED, GREEN, BLUE, GREY], 2: [GREEN, RED, GREY, BLUE], 3: [GREY, BLUE, GREEN, RED], 4: [BLUE, GREY, RED, GREEN],
    5: [RED, BLUE, GREEN, GREY], 6: [BLUE, RED, GREY, GREEN], 7: [GREY, GREEN, BLUE, RED], 8: [GREEN, GREY, RED, BLUE],
}  # fmt: skip


@pytest.mark.parametrize("turn", TURNED)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_stand_upright(form, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(form, {})
    content = saved(corners(), form, exif=exif, **options)
    assert near(seen(content), TURNED[turn], 12)
    assert decoded(content).size == ((40, 20) if turn < 5 else (20, 40))


def test_a_damaged_note_of_the_camera_is_no_damaged_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved(corners(), "JPEG", exif=exif, quality=95)
    at = content.index(b"Exif\0\0") + 6
    for broken in (content[:at] + b"XX*\0" + content[at + 4 :], content[: at + 4] + b"\xff" * 4 + content[at + 8 :]):
        assert decoded(broken).size == (40, 20)


def test_large_jpegs_are_decoded_small():
    """No smaller than asked, hardly different, and the same every time."""
    y, x = np.mgrid[0:1600, 0:2400]
    ramp = np.stack([x / 2400 * 255, y / 1600 * 255, (x + y) / 4000 * 255], -1).astype(np.uint8)
    content = saved(Image.fromarray(ramp), "JPEG", quality=95)
    for least, size in (
        (0, (2400, 1600)),
        (224, (1200, 800)),
        (200, (600, 400)),
        (100, (300, 200)),
        (900, (2400, 1600)),
    ):
        picture = decoded(content, least)
        assert picture.size == size
        assert near(picture.resize((60, 40)), Image.fromarray(ramp).resize((60, 40)), 3)
    assert decoded(saved(Image.fromarray(ramp)), 100).size == (2400, 1600)


# What cannot be read -------------------------------------------------------------------------------------------------


def header(form: str, w: int, h: int) -> bytes:
    """A small file that says it has w x h pixels."""
    if form == "PNG":
        return png(w, h, 8, 2, b"\0")
    if form == "GIF":
        content = bytearray(saved(Image.new("P", (1, 1)), "GIF"))
        content[6:10] = struct.pack("<2H", w, h)
        return bytes(content)
    if form == "BMP":
        content = bytearray(saved(Image.new("RGB", (1, 1)), "BMP"))
        content[18:26] = struct.pack("<2i", w, h)
        return bytes(content)
    if form == "JPEG":
        content = bytearray(saved(Image.new("RGB", (8, 8)), "JPEG"))
        at = content.index(b"\xff\xc0") + 5
        content[at : at + 4] = struct.pack(">2H", h, w)
        return bytes(content)
    content = bytearray(saved(Image.new("RGB", (1, 1)), "TIFF"))
    for tag, value in ((256, w), (257, h)):
        at = content.index(struct.pack("<H", tag), 8)
        content[at : at + 12] = struct.pack("<2H2I", tag, 4, 1, value)
    return bytes(content)


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP", "JPEG", "TIFF"])
@pytest.mark.parametrize(("w", "h"), [(50_000, 50_000), (10_000, 9_000), (60_000, 2_000)])
def test_bombs_are_refused_by_their_header(form, w, h):
    content = header(form, w, h)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match="64 million"):
            decoded(content)
    assert said == []


def test_a_picture_that_is_too_long():
    with pytest.raises(ValueError, match="100,000 a side"):
        decoded(png(200_000, 1, 8, 0, b"\0" * 200_001))
    assert decoded(png(100_000, 1, 8, 0, b"\0" * 100_001)).size == (100_000, 1)


REFUSED = [
    (b"", "it is empty"), (b"\0" * 500, "nothing but zeros"), (b"hello", "no picture"), (b"%PDF-1.7", "a PDF document"),
    (b'<?xml version="1.0"?><svg/>', "an SVG drawing"), (b"<svg xmlns='x'/>", "an SVG drawing"),
    (b"\0\0\0\x20ftypheic\0\0\0\0", "a HEIC picture"), (b"\0\0\0\x20ftypavif\0\0\0\0", "an AVIF picture"),
    (b"\0\0\0\x20ftypisom\0\0\0\0", "a video"), (b"<!DOCTYPE html><html>", "a web page"),
    (b"PK\x03\x04" + b"x" * 40, "an archive"), (b"8BPS" + b"\0" * 40, "a kind that is not read"),
    (b"%!PS-Adobe-3.0 EPSF-3.0", "no picture"), (png(0, 5, 8, 2, b""), "0 x 5|damaged"),
    (png(5, 0, 8, 2, b""), "5 x 0|damaged"), (b"\xff\xd8\xff", "damaged|cut short"), (b"\x89PNG\r\n\x1a\n", "damaged"),
    (b"GIF89a", "damaged|cut short"), (b"RIFF\0\0\0\0WEBP", "damaged"), (b"II*\0", "damaged|cut short"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_is_no_picture(content, said):
    with pytest.raises(ValueError, match=said) as caught:
        decoded(content)
    assert not str(caught.value).endswith(".")
    assert type(caught.value) is ValueError


def test_other_formats_of_pillow_are_not_tried():
    for form in ("PPM", "ICO", "TGA", "PCX", "SGI", "DDS"):
        with pytest.raises(ValueError, match="JPEG, PNG, WebP, BMP, TIFF and GIF are read"):
            decoded(saved(corners(), form))


def test_what_is_not_bytes():
    for call in (decoded, shown, probe):
        with pytest.raises(ValueError, match="must be bytes, not str"):
            call("a.jpg")


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8))


SEEDS = {
    "JPEG": saved(noise(), "JPEG"), "progressive": saved(noise(), "JPEG", progressive=True), "PNG": saved(noise()),
    "palette": saved(noise().convert("P")), "interlaced": saved(noise().convert("L"), "PNG"),
    "WEBP": saved(noise(), "WEBP"), "GIF": saved(noise(), "GIF", save_all=True, append_images=[corners()]),
    "BMP": saved(noise(), "BMP"), "TIFF": saved(noise(), "TIFF"), "lzw": saved(noise(), "TIFF", compression="tiff_lzw"),
    "16": deep("I;16", np.arange(400).reshape(20, 20) * 150, "TIFF"), "CMYK": saved(noise().convert("CMYK"), "JPEG"),
}  # fmt: skip


@pytest.mark.parametrize("name", [n for n in SEEDS if n != "GIF"])
def test_cut_short(name):
    content = SEEDS[name]
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(ValueError, match=r"cut short|damaged"):
            decoded(content[: int(len(content) * share)])


@settings(deadline=None, max_examples=400)
@given(
    name=st.sampled_from(sorted(SEEDS)), cut=st.floats(0, 1), at=st.floats(0, 1), new=st.binary(max_size=6),
    early=st.booleans(), length=st.integers(0, 6),
)  # fmt: skip
def test_mutated_pictures_give_a_picture_or_a_reason(name, cut, at, new, early, length):
    content = SEEDS[name][: max(40, int(len(SEEDS[name]) * (0.3 + cut)))]
    place = int(at * (min(len(content), 200) if early else len(content)))
    try:
        picture = decoded(content[:place] + new + content[place + length :], 16)
    except ValueError as error:
        if type(error) is ValueError and 0 < len(str(error)) < 200:
            return
        raise
    assert picture.mode == "RGB"
    assert picture.resize((4, 4)).size == (4, 4)


@settings(deadline=None, max_examples=200)
@given(start=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"RIFF1234WEBP"]),
       rest=st.binary(max_size=300))  # fmt: skip
def test_any_bytes_give_a_picture_or_a_reason(start, rest):
    try:
        decoded(start + rest)
    except ValueError as error:
        if type(error) is not ValueError:
            raise AssertionError("of another kind") from error


def test_every_odd_exception_is_a_reason(monkeypatch):
    for odd in (SyntaxError("x"), struct.error("x"), MemoryError(), EOFError(), zlib.error("x"), IndexError(), KeyError(1),
                RecursionError("x"), OverflowError("x"), AssertionError(), OSError("x")):  # fmt: skip

        def broken(*_, odd=odd):
            raise odd

        monkeypatch.setattr(ImageFile.ImageFile, "load", broken)
        with pytest.raises(ValueError, match=r"damaged|memory|cut short"):
            decoded(SEEDS["PNG"])


def test_many_threads_at_once():
    expected = {name: decoded(content).tobytes() for name, content in SEEDS.items()}
    wrong: list[str] = []
    before = list(warnings.filters)

    def work() -> None:
        for _ in range(10):
            for name, content in SEEDS.items():
                if decoded(content).tobytes() != expected[name]:
                    wrong.append(name)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert warnings.filters == before


# The modality --------------------------------------------------------------------------------------------------------


def test_listed_and_loaded():
    assert modalities.NAMES == ("image", "text")
    assert modalities.load("image").name == "image"
    with pytest.raises(NotFound, match="no modality 'imag'"):
        modalities.load("imag")


def test_the_key_is_that_of_the_bytes():
    contents = [SEEDS["PNG"], SEEDS["JPEG"], b"anything"]
    assert image.canonical(contents) == contents
    assert (example.keys(image.canonical(contents)) == example.keys(contents)).all()
    with pytest.raises(DataError, match="row 2: a picture must be bytes, not str"):
        image.canonical([b"", "a.jpg"])


def secret() -> bytes:
    """A JPEG that says where it was taken, and more."""
    exif = Image.Exif()
    exif[0x010F] = "SECRETCAMERA"
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.5)
    exif.get_ifd(0x8825)[29] = "SECRETDATE"
    picture = Image.new("RGB", (400, 300), RED)
    return saved(picture, "JPEG", exif=exif, comment=b"SECRETNOTE", icc_profile=b"SECRETPROFILE" * 20, dpi=(77, 77))


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_nothing_of_the_camera_is_kept(form):
    content = secret()
    if form == "PNG":
        with Image.open(io.BytesIO(content)) as file:
            content = saved(file.copy(), "PNG", exif=file.getexif())
    assert b"SECRETCAMERA" in content
    small = base64.b64decode(shown(content).split(",")[1])
    kept = unprobe(probe(content))
    covered = occluded(content, 2)[1]
    for made in (small, kept, *covered):
        assert b"SECRET" not in made
        assert b"Exif" not in made
        with Image.open(io.BytesIO(made)) as file:
            assert dict(file.getexif()) == {}
            assert not {"exif", "comment", "icc_profile", "xmp"} & set(file.info)


def test_shown_and_probe_are_small():
    content = secret()
    assert shown(content).startswith("data:image/jpeg;base64,")
    assert decoded(base64.b64decode(shown(content).split(",")[1])).size == (96, 72)
    assert decoded(base64.b64decode(shown(content, 40).split(",")[1])).size == (40, 30)
    assert decoded(unprobe(probe(content))).size == (224, 168)
    tiny = saved(corners())
    assert seen(unprobe(probe(tiny))) == seen(tiny)
    assert unprobe(probe(unprobe(probe(content)))) == unprobe(probe(content))  # one and the same once it is kept


@pytest.mark.parametrize("kept", ["", "@@", "aGVsbG8=", "é", 5, None])
def test_what_was_not_kept_by_probe(kept):
    with pytest.raises(ValueError, match="kept picture"):
        unprobe(kept)


def test_occluded():
    regions, contents = occluded(saved(corners()), grid=2)
    assert regions == [(0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5), (0, 0.5, 0.5, 1), (0.5, 0.5, 1, 1)]
    grey = (127, 127, 127)
    for i, content in enumerate(contents):
        expected: list[tuple[int, ...]] = [RED, GREEN, BLUE, GREY]
        expected[i] = grey
        assert seen(content) == expected
    regions, contents = occluded(saved(Image.new("RGB", (3, 100))), grid=7)
    assert len(regions) == len(contents) == 21
    assert len(occluded(SEEDS["JPEG"])[1]) == 49
    with pytest.raises(ValueError, match="empty"):
        occluded(b"")
