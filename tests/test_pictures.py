"""Pictures from end to end: folder, archive, table or bytes in; a proven model, a prediction and its reasons out."""

import base64
import csv
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image, ImageDraw

import headstart
from headstart import api, cli, features, learning, modalities, picturecells, saved
from headstart.backbones.colours import Colours
from headstart.dataset import read
from headstart.errors import ContentError, DataError, InputError, ModelError, NotFound
from headstart.keeping import Clock
from headstart.model import load, replay

KINDS = ("circle", "cross", "square")
MARKS = (b"MARK_OF_THE_PLACE", b"MARK_OF_A_COMMENT", b"MARK_OF_THE_FILE")


def drawn(kind: str, draw: random.Random) -> Image.Image:
    """One shape on 40 x 40 pixels, each kind in a colour of its own."""
    colour = {"circle": (200, 40, 40), "cross": (40, 160, 60), "square": (50, 60, 200)}[kind]
    picture = Image.new("RGB", (40, 40), tuple(draw.randrange(200, 256) for _ in range(3)))
    pen, at = ImageDraw.Draw(picture), draw.randrange(4, 14)
    if kind == "circle":
        pen.ellipse((at, at, at + 20, at + 20), fill=colour)
    elif kind == "square":
        pen.rectangle((at, at, at + 20, at + 20), fill=colour)
    else:
        pen.line((at, at + 10, at + 20, at + 10), fill=colour, width=5)
        pen.line((at + 10, at, at + 10, at + 20), fill=colour, width=5)
    return picture


def file_of(picture: Image.Image, form: str = "JPEG", **more) -> bytes:
    """The picture as the bytes of a file."""
    file = io.BytesIO()
    picture.save(file, form, **more)
    return file.getvalue()


def marked(picture: Image.Image) -> bytes:
    """A JPEG as a camera writes it, with a place, a comment and a description."""
    exif = Image.Exif()
    exif[0x010E] = MARKS[2].decode()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + MARKS[1]
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 13.0), 3: "E", 4: (11.0, 34.0, 42.0), 29: MARKS[0].decode()})
    return file_of(picture, exif=exif, comment=MARKS[2])


def album(folder: Path, each: int = 10, seed: int = 0) -> Path:
    """A folder for each kind, with pictures as a camera writes them."""
    draw = random.Random(seed)
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
        for i in range(each):
            (folder / kind / f"{kind}-{i}.jpg").write_bytes(marked(drawn(kind, draw)))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A project with an album and a model of it."""
    folder = tmp_path_factory.mktemp("pictures")
    album(folder / "album")
    headstart.fit(folder / "album", name="shapes", backbone="colours", project=folder)
    return folder


@pytest.fixture(scope="module")
def shapes(home):
    return headstart.load("shapes", project=home)


def answers(model, source, path, **more):
    """What `predict_file` writes, as rows."""
    api.predict_file(model, source, output=path, every=True, **more)
    return pyarrow.parquet.read_table(path).to_pylist()


def test_a_model_of_pictures(home, shapes):
    facts = api.facts(shapes)
    assert shapes.modality == "image"
    assert shapes.labels == KINDS
    assert facts["estimate"]["accuracy"] > 0.9
    assert {p.name for p in shapes.folder.iterdir()} == (saved.FILES - saved.CARRIED) | {saved.CARD}
    found = api.evaluate(shapes, album(home / "fresh", 4, seed=1))
    assert found["test"]["accuracy"] > 0.9
    assert found["test"]["n"] == 12


@pytest.mark.parametrize("seed", [1, 2])
def test_an_answer_does_not_depend_on_how_the_picture_comes(shapes, tmp_path, monkeypatch, seed):
    draw = random.Random(seed)
    forms = ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"]
    files = {
        f"{i}.{form.lower()}": file_of(drawn(draw.choice(KINDS), draw).resize((draw.randrange(9, 300),) * 2), form)
        for i, form in enumerate(forms)
    }
    (tmp_path / "photos").mkdir()
    for name, content in files.items():
        (tmp_path / "photos" / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    (tmp_path / "paths.csv").write_text("picture\n" + "".join(f"photos/{name}\n" for name in files))
    table = pa.table({"image": [{"bytes": content, "path": name} for name, content in files.items()]})
    pyarrow.parquet.write_table(table, tmp_path / "cells.parquet")

    def afresh(number):
        monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / f"cache{number}"))  # nothing is known from before

    found = []
    routes = [tmp_path / "photos", tmp_path / "photos.zip", tmp_path / "paths.csv", tmp_path / "cells.parquet", table]
    for number, source in enumerate(routes):
        afresh(number)
        rows = answers(shapes, str(source) if isinstance(source, Path) else source, tmp_path / "out.parquet")
        assert [row["error"] for row in rows] == [None] * len(files)
        found.append([tuple(row[f"probability {kind}"] for kind in KINDS) for row in rows])
    for number, given in enumerate(([tmp_path / "photos" / n for n in files], list(files.values())), len(routes)):
        afresh(number)
        found.append([tuple(p.probabilities[kind] for kind in KINDS) for p in shapes.predict(given, every=True)])
        afresh(f"{number} alone")
        alone = [shapes.predict(one, every=True)[0] for one in given]
        found.append([tuple(p.probabilities[kind] for kind in KINDS) for p in alone])
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=0, atol=1e-6)


def broken_album(folder: Path) -> dict[str, str]:
    """An album with files that cannot be read; their names and reasons."""
    album(folder)
    whole = (folder / "circle" / "circle-0.jpg").read_bytes()
    bad = {
        "circle/cut.jpg": (whole[: len(whole) * 2 // 3], "the JPEG file is cut short"),
        "cross/empty.jpg": (b"", "it is empty"),
        "square/note.jpg": (b"remember the milk", "it is no picture; JPEG, PNG, WebP, BMP, TIFF and GIF are read"),
    }
    for name, (content, _) in bad.items():
        (folder / name).write_bytes(content)
    return {name: why for name, (_, why) in bad.items()}


def test_broken_files_are_left_out_by_name_or_refused(shapes, tmp_path):
    bad = broken_album(tmp_path / "album")
    model = headstart.fit(tmp_path / "album", name="m", backbone="colours", project=tmp_path)
    notes = " ".join(api.facts(model)["data"]["notes"])
    assert all(f"{name}: {why}" in notes for name, why in bad.items())
    assert api.facts(model)["data"]["used"] == 30
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=r"3 files cannot be read .*circle/cut\.jpg: the JPEG .*--broken skip"):
        headstart.fit(tmp_path / "album", name="n", backbone="colours", project=tmp_path, broken="refuse")
    two = headstart.fit(
        shapes.folder.parents[2] / "album", test=tmp_path / "album",
        unlabelled=tmp_path / "album", name="m", backbone="colours", project=tmp_path / "two",
    )  # fmt: skip
    notes = api.facts(two)["data"]["notes"]
    for what in ("test", "unlabelled"):
        [note] = [note for note in notes if note.startswith(f"of the {what} rows, 3 files cannot be read (")]
        assert all(f"{name}: {why}" in note for name, why in bad.items())
    shutil.rmtree(tmp_path / "two")
    with pytest.raises(DataError, match="3 files cannot be read"):
        shapes.evaluate(str(tmp_path / "album"), broken="refuse")
    assert sorted(tmp_path.rglob("*")) == before
    assert shapes.evaluate(str(tmp_path / "album"))["test"]["n"] == 30
    for verb in (shapes.evaluate, lambda where, **more: api.predict_file(shapes, where, **more)):
        with pytest.raises(InputError, match="--broken maybe is neither"):
            verb(str(tmp_path / "album"), broken="maybe")


def test_broken_files_are_named_by_predict_whatever_names_them(shapes, tmp_path):
    bad = broken_album(tmp_path / "album")
    names = sorted(str(p.relative_to(tmp_path / "album")) for p in (tmp_path / "album").rglob("*.jpg"))
    (tmp_path / "album" / "list.csv").write_text("where,n\n" + "".join(f"{n},{i}\n" for i, n in enumerate(names)))
    (tmp_path / "list.csv").write_text("where\nalbum/circle/cut.jpg\nalbum/gone.jpg\nalbum/circle/circle-0.jpg\n")
    found = api.predict_file(shapes, str(tmp_path / "album" / "list.csv"), output=tmp_path / "out.csv", image="where")
    assert {one["name"]: one["reason"] for one in found["broken"]} == bad
    assert [names[one["row"] - 1] for one in found["broken"]] == [one["name"] for one in found["broken"]]
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["where"]: row["error"] for row in rows if row["error"]} == bad
    assert all((row["label"] == "") == (row["where"] in bad) for row in rows)
    with pytest.raises(DataError, match=r"list\.csv, row 1: album/circle/cut\.jpg: the JPEG file is cut short"):
        api.predict_file(shapes, str(tmp_path / "list.csv"), output=tmp_path / "no.csv", broken="refuse")
    whole = (tmp_path / "album/circle/circle-0.jpg").read_bytes()
    cells = pa.table({"image": [whole, b"", whole[:200]]})
    assert [f["name"] for f in api.predict_file(shapes, cells, output=tmp_path / "c.csv")["broken"]] == [
        "row 2",
        "row 3",
    ]
    assert not (tmp_path / "no.csv").exists()


def test_nothing_that_can_be_read_is_an_error(shapes, tmp_path):
    for kind in "ab":
        (tmp_path / "bad" / kind).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "bad" / kind / f"{i}.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    with pytest.raises(DataError, match=r"bad: no row can be read: a/0\.jpg: "):
        headstart.fit(tmp_path / "bad", backbone="colours", project=tmp_path)
    with pytest.raises(DataError, match=r"none of its 6 pictures can be read \(a/0\.jpg: "):
        api.predict_file(shapes, str(tmp_path / "bad"), output=tmp_path / "out.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["bad"]


def test_a_label_without_one_good_picture_is_never_lost_in_silence(tmp_path):
    album(tmp_path / "album", 4)
    for file in (tmp_path / "album" / "cross").iterdir():
        file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(DataError, match=r"no picture of 'cross' can be read, such as cross/cross-3\.jpg"):
        headstart.fit(tmp_path / "album", backbone="colours", project=tmp_path)
    for file in (tmp_path / "album" / "cross").iterdir():
        file.write_bytes(b"no picture")
    assert "no picture of 'cross' can be read: these labels are unknown" in read(tmp_path / "album").notes


def test_reasons(shapes, tmp_path):
    place = tmp_path / "one.png"
    half = Image.new("RGB", (40, 40), (230, 230, 230))
    half.paste((200, 40, 40), (0, 0, 20, 20))  # all that there is stands in the upper left quarter
    half.save(place)
    [row] = api.predict_one(shapes, [place], why=True)
    assert row["file"] == str(place)
    assert row["why"]["regions"]
    assert all(0 <= r["left"] < r["right"] <= 1 and r["drop"] > 0 for r in row["why"]["regions"])
    strongest = row["why"]["regions"][0]
    assert strongest["left"] < 0.5
    assert strongest["top"] < 0.5
    assert [set(near) for near in row["why"]["nearest"]] == [
        {"key", "row", "text", "label", "similarity", "picture"}
    ] * 3
    known = (shapes.folder.parents[2] / "album/cross/cross-3.jpg").read_bytes()
    [same] = api.predict_one(shapes, [known], why=True)
    assert "file" not in same
    assert same["why"]["nearest"][0]["text"] == "cross/cross-3.jpg"
    assert same["why"]["nearest"][0]["similarity"] > 0.999  # features are kept in half precision
    assert same["why"]["nearest"][0]["picture"].startswith("data:image/jpeg;base64,")


def test_reasons_in_a_file_say_how_far_they_are_and_carry_no_pictures(shapes, tmp_path):
    said = []
    source = str(album(tmp_path / "some", 1))
    api.predict_file(shapes, source, output=tmp_path / "out.jsonl", why=True, progress=lambda *now: said.append(now))
    assert [done for _, done, _ in said] == [0, 1, 2, 3, 3]
    assert {(what, total) for what, _, total in said} == {("predicting", 3)}
    for line in (tmp_path / "out.jsonl").read_text().splitlines():
        why = json.loads(json.loads(line)["why"])
        assert [set(near) for near in why["nearest"]] == [{"key", "row", "text", "label", "similarity"}] * 3
        assert "regions" in why


@dataclass(frozen=True)
class Mirrored(Colours):
    """Colours with a second look: the mean of the pictures of its label, or noise."""

    second: dict
    asked: list

    def seen(self, view):
        self.asked.append(view)
        return Second(self.second)


@dataclass(frozen=True)
class Second(Colours):
    second: dict

    @property
    def card(self):
        known = repr(sorted((key, row.tobytes()) for key, row in self.second.items()))
        return replace(super().card, fingerprint=hashlib.sha256(known.encode()).hexdigest())

    def encode(self, contents):
        return np.stack([self.second[hashlib.sha256(content).digest()] for content in contents])


@pytest.mark.parametrize("kind", ["helpful", "noise", "off"])
def test_mirrored_views_are_used_only_when_the_folds_say_so(tmp_path, kind):
    draw = np.random.default_rng(0)
    contents = [file_of(Image.fromarray(draw.integers(0, 255, (16, 16, 3), dtype=np.uint8)), "PNG") for _ in range(40)]
    train = read(pa.table({"image": contents, "label": ["ab"[i % 2] for i in range(40)]}))
    X = Colours().encode(contents)
    looks = {"helpful": [X[i % 2 :: 2].mean(0) for i in range(40)]}.get(kind)
    if looks is None:
        looks = list(draw.normal(size=X.shape).astype(np.float32))
    second = {hashlib.sha256(content).digest(): look for content, look in zip(contents, looks, strict=True)}
    base = Mirrored(second, [])
    model = learning.supervised(
        "m", train, None, None, {}, base, Clock(), views=kind != "off", project=tmp_path, progress=lambda *_: None,
        head="linear",
    )  # fmt: skip
    assert base.asked == ([] if kind == "off" else ["flip"])
    assert model.card["head"]["views"] is (kind == "helpful")


def test_what_a_camera_notes_is_nowhere_in_the_model(home, shapes):
    given = (home / "album/circle/circle-0.jpg").read_bytes()
    assert all(mark in given for mark in MARKS)
    table = pyarrow.parquet.read_table(shapes.folder / saved.EXAMPLES)
    small = [modalities.load("image").unprobe(one) for one in json.loads((shapes.folder / saved.PROBES).read_text())]
    small += [base64.b64decode(one.split(",")[1]) for one in table["picture"].to_pylist()]
    held = [path.read_bytes() for path in shapes.folder.iterdir()]
    held += [repr(table.drop_columns(["picture", "feature"]).to_pylist()).encode()]
    for content in [*held, *small]:
        assert not any(mark in content or mark.decode().encode("utf-16-le") in content for mark in MARKS)
    for content in small:
        with Image.open(io.BytesIO(content)) as picture:
            assert not picture.getexif()
            assert not set(picture.info) & {"exif", "comment", "xmp", "icc_profile", "photoshop"}


def test_probes_are_pictures_of_every_kind_and_answered_alike_in_a_fresh_process(shapes):
    kept, _, expected = saved.read_probes(shapes.folder)
    assert len(kept) == 16
    assert set(expected.argmax(1)) == {0, 1, 2}
    done = subprocess.run(
        [sys.executable, "-m", "headstart.replay", str(shapes.folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("16 probes")
    assert replay(load(shapes.folder)).features <= 1e-6


def test_a_probe_that_was_replaced_is_found(shapes, tmp_path):
    copy = shutil.copytree(shapes.folder, tmp_path / "v1")
    card = json.loads((copy / saved.CARD).read_text())
    (copy / saved.CARD).unlink()
    kept = json.loads((copy / saved.PROBES).read_text())
    for probe, message in ((kept[-1], "answered differently"), ("x", "a probe cannot be read")):
        saved.write_json(copy / saved.PROBES, [probe, *kept[1:]])
        (copy / saved.CARD).unlink(missing_ok=True)
        saved.seal(copy, {k: v for k, v in card.items() if k != "digest"})
        with pytest.raises(ModelError, match=message):
            replay(load(copy))


def test_the_other_kind_of_content_is_refused(home, shapes, tmp_path):
    (tmp_path / "texts.csv").write_text("text,label\n" + "".join(f"word {i},{'ab'[i % 2]}\n" for i in range(20)))
    words = headstart.fit(tmp_path / "texts.csv", name="words", backbone="fake", project=tmp_path)
    photos = str(home / "album")
    for call in (
        lambda: headstart.fit(tmp_path / "texts.csv", backbone="colours", project=tmp_path, name="x"),
        lambda: headstart.fit(photos, backbone="fake", project=tmp_path, name="x"),
        lambda: headstart.fit(photos, backbone="colours", test=tmp_path / "texts.csv", project=tmp_path, name="x"),
        lambda: headstart.fit(
            photos, backbone="colours", unlabelled=tmp_path / "texts.csv", project=tmp_path, name="x"
        ),
        lambda: shapes.evaluate(str(tmp_path / "texts.csv")),
        lambda: words.evaluate(photos),
        lambda: api.predict_file(shapes, str(tmp_path / "texts.csv"), output=tmp_path / "x.csv"),
        lambda: api.predict_file(words, photos, output=tmp_path / "x.csv"),
    ):
        with pytest.raises(InputError, match=r"holds (texts|pictures), but"):
            call()
    for model, given in ((words, b"bytes"), (words, Path("x")), (words, ["a", None]), (shapes, [3]), (shapes, 3)):
        with pytest.raises(InputError, match=r"reads (texts|pictures)|give one content"):
            model.predict(given)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["models", "texts.csv"]
    assert headstart.api.models(project=tmp_path)[0]["name"] == "words"


def test_one_picture_that_cannot_be_read_is_named(shapes, tmp_path):
    (tmp_path / "cut.jpg").write_bytes(marked(drawn("circle", random.Random(0)))[:-99])
    (tmp_path / "note.jpg").write_text("no picture")
    for name in ("cut.jpg", "note.jpg"):
        assert api.is_one(shapes, str(tmp_path / name))
        for call in (shapes.predict, lambda path: api.predict_one(shapes, [path])):
            with pytest.raises(DataError, match=rf"{name}: (the JPEG file is cut short|it is no picture)"):
                call(tmp_path / name)
    with pytest.raises(ContentError) as caught:
        shapes.predict([drawn_file := file_of(drawn("cross", random.Random(1))), drawn_file[:200]])
    assert caught.value.faults[0][0] == 1
    with pytest.raises(NotFound, match=r"'cut\.jpg'"):
        shapes.predict(tmp_path / "cit.jpg")
    assert shapes.predict([]) == []


def test_bytes_and_labels_from_python(home, tmp_path):
    paths = sorted((home / "album").rglob("*.jpg"))
    contents, labels = [p.read_bytes() for p in paths], [p.parent.name for p in paths]
    one = headstart.fit(contents, labels, name="m", backbone="colours", project=tmp_path)
    assert api.facts(one)["estimate"] == api.facts(headstart.load("shapes", project=home))["estimate"]
    two = headstart.fit(paths, labels, name="m", backbone="colours", project=tmp_path)
    assert (one.folder / saved.ARRAYS).read_bytes() == (two.folder / saved.ARRAYS).read_bytes()
    three = headstart.fit([*contents[:-1], None], labels, name="m", backbone="colours", project=tmp_path)
    assert "row 30: the cell is empty" in " ".join(api.facts(three)["data"]["notes"])
    for wrong in ([*contents[:-1], "text"], contents[:-1], [3] * 30, "text", Image.new("RGB", (9, 9))):
        with pytest.raises(InputError, match="as many texts, or of pictures as bytes or paths"):
            headstart.fit(wrong, labels, name="x", backbone="colours", project=tmp_path)


def test_pairs_of_pictures_and_labels_from_python():
    rows = [(file_of(drawn(kind, random.Random(i))), kind) for i in range(4) for kind in KINDS]
    found = read(rows)
    assert found.modality == "image"
    assert found.labels == KINDS
    assert found.raw() == [raw for raw, _ in rows]
    assert read([raw for raw, _ in rows], labelled=False).modality == "image"
    with pytest.raises(DataError, match="row 13: this is a pair, but the first row is a pair with a picture"):
        read([*rows, ("a text", "circle")])


def test_an_interrupted_fit_leaves_nothing_but_what_was_embedded(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(features, "CHUNK_PICTURES", 10)
    source = album(tmp_path / "album")

    def stop(what, done, total):
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        headstart.fit(source, name="m", backbone="colours", project=tmp_path / "p", progress=stop)
    assert not list((tmp_path / "p").rglob("*.json"))
    said = []
    model = headstart.fit(
        source, name="m", backbone="colours", project=tmp_path / "p", progress=lambda *now: said.append(now)
    )
    assert said[0] == ("embedding", 10, 10)  # the 20 before are in the cache
    assert model.folder.name == "v1"


def test_a_cache_that_cannot_be_written_is_said_once(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(picturecells, "ROWS", 2)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "file"))
    found = api.predict_file(shapes, str(album(tmp_path / "some", 2)), output=tmp_path / "out.csv")
    assert found["rows"] == 6
    assert len([note for note in found["notes"] if "cached" in note]) in (1, 2)


def test_a_stream_holds_a_few_pictures_at_a_time(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(picturecells, "ROWS", 4)
    said = []
    source = str(album(tmp_path / "some", 5))
    api.predict_file(shapes, source, output=tmp_path / "out.csv", progress=lambda *now: said.append(now[1]))
    assert said == [0, 4, 8, 12, 15]


def test_an_empty_first_batch_does_not_decide_the_types(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(picturecells, "ROWS", 2)
    whole, bad = file_of(drawn("circle", random.Random(3))), b"no picture"
    for cells in ([whole] * 3 + [bad], [bad] * 2 + [whole] * 2, [bad, whole, bad, bad]):
        rows = answers(shapes, pa.table({"image": cells, "n": pa.nulls(4)}), tmp_path / "out.parquet")
        assert [row["error"] is None for row in rows] == [cell == whole for cell in cells]
        assert [row["label"] for row in rows] == ["circle" if cell == whole else None for cell in cells]


def test_the_command_line_on_pictures(home, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(home)

    def ours(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["headstart", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        said = capfd.readouterr()
        assert (done.value.code or 0) == code, said.err
        return SimpleNamespace(stdout=said.out, stderr=said.err)

    assert ours("predict", "shapes", "album/circle/circle-1.jpg", "--why").stdout.startswith("circle  ")
    assert json.loads(ours("predict", "shapes", "album/cross/cross-1.jpg", "--json").stdout)["label"] == "cross"
    assert "1 row, " in ours("predict", "shapes", "album/circle/circle-1.jpg", "-o", tmp_path / "one.csv").stdout
    with open(tmp_path / "one.csv", newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["circle"]
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "a.jpg").write_bytes((home / "album/cross/cross-1.jpg").read_bytes())
    (tmp_path / "few" / "b.jpg").write_bytes(b"x" * 90)
    done = ours("predict", "shapes", tmp_path / "few")
    assert [row["label"] for row in csv.DictReader(done.stdout.splitlines())] == ["cross", ""]
    assert "row 2, b.jpg: not read: it is no picture" in done.stderr
    for arguments, words in (
        (["predict", "shapes", "album/circle/circle-11.jpg"], "'circle-1.jpg'"),
        (["predict", "shapes", "albun"], "'album'"),
        (["predict", "shapes", "red circle"], "Model 'shapes' reads pictures."),
        (["predict", "shapes", ""], "give a picture"),
        (["predict", "shapes", tmp_path / "few" / "b.jpg", "-o", tmp_path / "no.csv"], "b.jpg: it is no picture"),
        (["predict", "shapes", tmp_path / "few", "--broken", "refuse"], "b.jpg: it is no picture"),
        (["fit", tmp_path / "few", "--backbone", "colours"], "label"),
    ):
        assert words in ours(*arguments, code=2).stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["few", "one.csv"]


# With a real network -------------------------------------------------------------------------------------------------


CARD = """name = "mobilenet"
modality = "image"
licence = "Apache-2.0"
[preprocessing]
width = 224
height = 224
resize = "squash"
scale = 0.0078125
mean = [{mean}, {mean}, {mean}]
"""


def test_a_mobilenet_end_to_end(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    graph = shared / "backbones" / "mobilenet_v1_1.0_224_embedding_extractor_fp32.onnx"

    def install(mean):
        (tmp_path / "card.toml").write_text(CARD.format(mean=mean))
        api.add_base(str(graph), card=tmp_path / "card.toml")

    install(1.0)
    photos = tmp_path / "photos"
    for kind in ("cardboard", "glass", "metal"):
        (photos / kind).mkdir(parents=True)
        for path in sorted((shared / "data" / "trashnet" / kind).glob("*.jpg"))[:12]:
            shutil.copy(path, photos / kind)
    model = headstart.fit(photos, name="waste", backbone="mobilenet", project=tmp_path)
    assert api.facts(model)["estimate"]["accuracy"] > 0.7
    assert model.card["head"]["views"] in (True, False)
    assert api.verify("waste", project=tmp_path)["features"] <= 1e-5
    [row] = api.predict_one(model, [next((photos / "glass").iterdir())], why=True)
    assert row["label"] == "glass"
    assert row["why"]["regions"]
    api.remove_base("mobilenet")
    for use in (lambda m: m.predict(next((photos / "glass").iterdir())), replay):
        with pytest.raises(NotFound, match=r"model 'waste' needs the base model it was made on: .*'mobilenet'"):
            use(load(model.folder))
    install(0.5)
    for use in (lambda m: api.predict_file(m, str(photos), output=tmp_path / "out.csv"), replay):
        with pytest.raises(ModelError, match="was trained on backbone mobilenet with fingerprint"):
            use(load(model.folder))
    assert not os.path.exists(tmp_path / "out.csv")
