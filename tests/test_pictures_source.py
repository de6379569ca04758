"""Pictures as data: folders, tables of paths or bytes, archives with every trick; what is left out is named."""

import bz2
import gzip
import io
import json
import lzma
import os
import socket
import stat
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart import batches, example, picturecells, picturefile
from headstart.dataset import Dataset, read, read_contents
from headstart.errors import DataError, InputError, NotFound
from headstart.source import open_source
from headstart.sources import archive, tar

POSIX = pytest.mark.skipif(os.name != "posix", reason="links, pipes and odd names of POSIX")


def picture(seed: int, form: str = "PNG") -> bytes:
    """A small picture, another for every seed."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)).save(file, form)
    return file.getvalue()


FILES = {f"{label}/{i}.png": picture(10 * k + i) for k, label in enumerate(("cat", "dog")) for i in range(3)}
HEIC = b"\0\0\0\x20ftypheic" + b"\0" * 40


def laid(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as out:
        for name, content in files.items():
            out.writestr(name, content)
    return path


def tarred(path: Path, files: dict[str, bytes], packing: str = "") -> Path:
    with tarfile.open(path, f"w:{packing}") as out:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return path


def check(found: Dataset, files: dict[str, bytes] = FILES) -> None:
    """The data set holds these pictures, named and labelled."""
    assert found.modality == "image"
    assert dict(zip(found.texts(), found.raw(), strict=True)) == files
    assert [found.labels[code] for code in found.y] == [name.split("/")[-2] for name in found.texts()]
    assert (found.keys == example.keys(found.raw())).all()
    assert found.contents.type == pa.large_binary()


# Folders -------------------------------------------------------------------------------------------------------------


def test_a_folder_per_class(tmp_path):
    found = read(laid(tmp_path, {**FILES, "README.md": b"x", "cat/deep/1.png": picture(1), "cat/notes.md": b"x"}))
    check(found)
    assert found.faults == ()
    assert found.roles is not None
    assert (found.roles.text, found.roles.image, found.roles.content, found.roles.label) == (
        None,
        "image",
        "image",
        "label",
    )
    assert "6 pictures in 2 folders" in found.notes
    assert any("3 other things in the folder are not read" in note for note in found.notes)
    assert read(tmp_path).digest == found.digest
    (tmp_path / "cat" / "0.png").write_bytes(picture(99))
    assert read(tmp_path).digest != found.digest


def test_splits_above_classes(tmp_path):
    files = {f"{split}/{name}": content for split in ("train", "test") for name, content in FILES.items()}
    found = read(laid(tmp_path, files))
    check(found, files)
    assert found.split is not None
    assert found.split.tolist() == ["test"] * 6 + ["train"] * 6
    assert found.duplicates == 6
    assert any("6 rows repeat an earlier picture" in note for note in found.notes)


def test_pictures_without_classes(tmp_path):
    found = read(laid(tmp_path, {"a.png": picture(1), "b.gif": picture(2, "GIF"), "all.csv": b"x"}), labelled=False)
    assert found.texts() == ["a.png", "b.gif"]
    assert any("if all.csv has them, give that file instead" in note for note in found.notes)


def test_content_decides_and_what_is_broken_is_named(tmp_path):
    files = {
        **FILES, "cat/really.png": picture(1, "JPEG"), "cat/noending": picture(2), "cat/is.txt": picture(3),
        "dog/empty.jpg": b"", "dog/page.jpg": b"<!DOCTYPE html>", "dog/phone.heic": HEIC, "dog/zero.png": b"\0" * 99,
        "dog/._0.png": b"\0\5\x16\7" * 9, "dog/Thumbs.db": b"x", "dog/data.bin": b"x",
    }  # fmt: skip
    found = read(laid(tmp_path, files))
    broken = ("empty.jpg", "page.jpg", "phone.heic", "zero.png")
    check(found, {k: v for k, v in files.items() if picturefile.kind(v)})
    assert [fault.name for fault in found.faults] == [f"dog/{name}" for name in broken]
    assert [fault.reason.split(";")[0] for fault in found.faults] == [
        "it is empty", "it is a web page", "it is a HEIC picture", "it is nothing but zeros",
    ]  # fmt: skip
    assert [fault.row for fault in found.faults] == [10, 11, 12, 13]
    assert sorted([*found.rows, *[fault.row for fault in found.faults]]) == list(range(1, 14))
    note = next(note for note in found.notes if "left out" in note)
    assert note.startswith("4 of 13 files cannot be read as pictures and are left out: dog/empty.jpg: it is empty; ")
    assert "1 picture is of another kind than its ending says: cat/really.png" in found.notes
    assert any("3 other things" in note for note in found.notes)


def test_nothing_but_broken_pictures(tmp_path):
    with pytest.raises(DataError, match=r"none of its 2 rows has a picture that can be read \(a/1.jpg: it is empty\)"):
        read(laid(tmp_path, {"a/1.jpg": b"", "b/1.jpg": b""}))


def test_pictures_and_texts_in_one_folder(tmp_path):
    mixed = {**FILES, "cat/a.txt": b"x"}
    found = read(laid(tmp_path / "a", mixed))
    check(found)
    assert any("taken as pictures; 1 .txt files among them" in note for note in found.notes)
    texts = {f"{c}/{i}.txt": f"{c} text {i}".encode() for c in "ab" for i in range(3)}
    found = read(laid(tmp_path / "b", {**texts, "a/1.png": picture(1)}))
    assert found.modality == "text"
    assert found.raw() == found.texts()
    assert any("taken as texts; 1 pictures among them" in note for note in found.notes)
    with pytest.raises(DataError, match=r"6 \.txt files and 6 pictures"):
        read(laid(tmp_path / "c", {**texts, **FILES}))


@POSIX
def test_odd_things_among_pictures(tmp_path):
    laid(tmp_path / "d", FILES)
    root = tmp_path / "d"
    os.mkfifo(root / "cat" / "pipe.png")
    (root / "cat" / "loop.png").symlink_to(root / "cat" / "loop.png")
    (root / "cat" / "zero.png").symlink_to("/dev/zero")
    (root / "cat" / "same.png").symlink_to(root / "cat" / "0.png")
    (root / "dog" / "around").symlink_to(root)
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(root / "dog")
        listening.bind("s.png")
        os.chdir(here)
    with open(os.fsencode(root / "cat") + b"/\xff\n.png", "wb") as file:
        file.write(picture(77))
    found = read(root)
    assert len(found) == 8
    assert "cat/\\xff\\n.png" in found.texts()
    note = next(note for note in found.notes if "other things" in note)
    assert note.startswith("5 other things")
    (tmp_path / "secret.png").write_bytes(picture(5))
    (root / "cat" / "out.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match=r"cat/out\.png is a link to a file outside of the folder"):
        read(root)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_picture(tmp_path):
    laid(tmp_path, FILES)
    (tmp_path / "cat" / "0.png").chmod(0)
    assert [fault.reason for fault in read(tmp_path).faults] == ["no permission to read it"]


def test_a_picture_larger_than_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(picturefile, "LARGEST", 1000)
    found = read(laid(tmp_path, {**FILES, "cat/big.png": picture(1) + b"\0" * 1000}))
    assert found.faults[0].name == "cat/big.png"
    assert "at most 1,000 are read" in found.faults[0].reason


def test_one_picture(tmp_path):
    path = laid(tmp_path, {"a.jpg": picture(1, "JPEG")}) / "a.jpg"
    found = read(path, labelled=False)
    assert (found.texts(), found.raw(), found.modality) == (["a.jpg"], [picture(1, "JPEG")], "image")
    with pytest.raises(InputError, match="no column looks like a label"):
        read(path)


# Tables --------------------------------------------------------------------------------------------------------------


def table_of(root: Path, name: str, rows: list[dict[str, str]]) -> Path:
    laid(root, {f"img/{k}": v for k, v in FILES.items()})
    path = root / name
    if name.endswith(".csv"):
        text = "\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]) + "\n"
        path.write_text(text, "utf-8")
    elif name.endswith(".parquet"):
        pa.parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize("column", ["path", "file_name", "picture", "x"])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_column_of_paths(tmp_path, column, ending):
    rows = [{column: f"img/{name}", "kind": name.split("/")[0]} for name in FILES]
    found = read(table_of(tmp_path, f"t.{ending}", rows))
    check(found, {f"img/{k}": v for k, v in FILES.items()})
    assert found.roles is not None
    assert (found.roles.image, found.roles.label) == (column, "kind")
    before = found.digest
    (tmp_path / "img" / "cat" / "0.png").write_bytes(picture(1234))
    assert read(tmp_path / f"t.{ending}").digest != before  # the pictures belong to it, not only the table


def test_paths_that_cannot_be_read(tmp_path):
    rows = [{"path": f"img\\{name}".replace("/", "\\"), "label": name.split("/")[0]} for name in FILES]
    rows += [{"path": path, "label": "cat"} for path in ("img/gone.png", "", "https://x.org/a.png", "img/cat", "t.csv")]
    found = read(table_of(tmp_path, "t.csv", rows))
    assert len(found) == 6
    assert [(fault.row, fault.reason.split(";")[0]) for fault in found.faults] == [
        (7, "there is no such file"), (8, "the cell is empty"), (9, "it is an address, and nothing is fetched"),
        (10, "it is a folder"), (11, "it is no picture"),
    ]  # fmt: skip
    assert found.faults[1].name == "row 8"


@POSIX
def test_a_cell_that_names_a_pipe(tmp_path):
    rows = [{"path": f"img/{name}", "label": name.split("/")[0]} for name in FILES]
    path = table_of(
        tmp_path, "t.csv", [*rows, {"path": "pipe.png", "label": "cat"}, {"path": "/dev/zero", "label": "cat"}]
    )
    os.mkfifo(tmp_path / "pipe.png")
    assert {fault.reason for fault in read(path).faults} == {"it cannot be read: it is no regular file"}


def test_pictures_beside_texts(tmp_path):
    rows = [
        {"photo": f"img/{name}", "caption": f"this is a nice photo of number {i}", "label": name.split("/")[0]}
        for i, name in enumerate(FILES)
    ]
    path = table_of(tmp_path, "t.csv", rows)
    found = read(path)
    assert found.modality == "text"
    assert found.roles is not None
    assert found.roles.text == "caption"
    assert any("for those use --image photo" in note for note in found.notes)
    found = read(path, image="photo")
    check(found, {f"img/{k}": v for k, v in FILES.items()})
    assert read(path, modality="image").modality == "image"
    assert read(path, text="photo").texts()[0] == "img/cat/0.png"
    with pytest.raises(InputError, match="give either --text or --image"):
        read(path, image="photo", text="caption")
    with pytest.raises(NotFound, match="no column 'foto'"):
        read(path, image="foto")


def test_two_columns_of_pictures(tmp_path):
    rows = [{"left": f"img/{n}", "right": f"img/{n}", "label": n.split("/")[0]} for n in FILES]
    path = table_of(tmp_path, "t.csv", rows)
    with pytest.raises(InputError, match=r"which column holds the pictures.*'left', 'right'.*--image"):
        read(path)
    check(read(path, image="left"), {f"img/{k}": v for k, v in FILES.items()})


def test_paths_to_nowhere(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("path,label\nimg/a.png,x\nimg/b.png,y\nimg/c.png,x\n", "utf-8")
    for options in ({}, {"modality": "image"}):
        with pytest.raises(DataError, match=r"row 1, column 'path'.*no (picture )?'img/a\.png'.*relative to the file"):
            read(path, **options)
    assert read(path, text="path").modality == "text"


HUGGING = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def packed(kind: str) -> pa.Array:
    if kind == "struct":
        cells = [{"bytes": content, "path": name} for name, content in FILES.items()]
        return pa.array(cells, HUGGING)
    return pa.array(list(FILES.values()), {"binary": pa.binary(), "large": pa.large_binary()}[kind])


@pytest.mark.parametrize("kind", ["struct", "binary", "large"])
@pytest.mark.parametrize("how", ["parquet", "arrow", "memory"])
def test_bytes_in_cells(tmp_path, kind, how):
    table = pa.table({"image": packed(kind), "label": [name.split("/")[0] for name in FILES]})
    where: object = table
    if how == "parquet":
        pa.parquet.write_table(table, where := tmp_path / "t.parquet")
    elif how == "arrow":
        with pa.ipc.new_file(str(where := tmp_path / "t.arrow"), table.schema) as file:
            file.write_table(table)
    found = read(where)
    assert found.raw() == list(FILES.values())
    assert found.texts() == (list(FILES) if kind == "struct" else [f"row {i}" for i in range(1, 7)])
    assert found.modality == "image"


def test_bytes_that_are_no_pictures():
    cells = [*FILES.values(), b"", None, b"hello", HEIC]
    found = read(pa.table({"image": pa.array(cells, pa.binary()), "label": ["a", "b"] * 5}))
    assert [(fault.row, fault.name) for fault in found.faults] == [(i, f"row {i}") for i in (7, 8, 9, 10)]
    only = pa.table({"blob": pa.array([b"x", b"y"], pa.binary()), "label": ["a", "b"]})
    with pytest.raises(InputError, match="no column looks like a label"):
        read(only)
    with pytest.raises(DataError, match="none of its 2 rows has a picture"):
        read(only, image="blob")
    with pytest.raises(DataError, match=r"column 'n': its cells are int64, neither pictures nor paths"):
        read(pa.table({"n": [1, 2], "label": ["a", "b"]}), image="n")


def test_paths_in_the_structure_of_hugging_face(tmp_path):
    laid(tmp_path, FILES)
    cells = pa.array([{"bytes": None, "path": name} for name in FILES] + [{"bytes": None, "path": None}, None], HUGGING)
    pa.parquet.write_table(pa.table({"image": cells, "label": ["cat"] * 3 + ["dog"] * 5}), tmp_path / "t.parquet")
    found = read(tmp_path / "t.parquet")
    check(found)
    assert [fault.reason for fault in found.faults] == ["the cell is empty"] * 2


def test_hugging_face(tmp_path):
    datasets = pytest.importorskip("datasets")
    laid(tmp_path / "f", FILES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
        rows = {"image": [{"bytes": c, "path": n} for n, c in FILES.items()], "label": [0] * 3 + [1] * 3}
        data = datasets.Dataset.from_dict(rows, features=features)
        data.save_to_disk(str(tmp_path / "saved"))
        data.to_parquet(str(tmp_path / "t.parquet"))
        for where in (data, tmp_path / "saved", tmp_path / "t.parquet", datasets.DatasetDict({"train": data})):
            found = read(where)
            assert [name.split("/")[-1] for name in found.texts()] == ["0.png", "1.png", "2.png"] * 2
            assert found.raw() == list(FILES.values())
            assert (found.labels, found.y.tolist()) == (("cat", "dog"), [0] * 3 + [1] * 3)


def test_large_pictures_lie_on_disk_and_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "SPILL", 500)
    monkeypatch.setattr(picturecells, "BYTES", 400)
    laid(tmp_path, FILES)
    found = read(tmp_path)
    check(found)
    assert pa.total_allocated_bytes() >= 0
    part = found.take(np.array([4, 5, 0]))
    assert part.texts() == ["dog/1.png", "dog/2.png", "cat/0.png"]
    assert part.raw() == [FILES[name] for name in part.texts()]
    assert part.raw(np.array([2, 0])) == [FILES["cat/0.png"], FILES["dog/1.png"]]
    assert part.take(np.array([], int)).raw() == []
    before = pa.total_allocated_bytes()
    kept = [found.take(np.arange(1, 6)) for _ in range(100)]
    assert pa.total_allocated_bytes() - before < 5000 + 100 * sum(map(len, list(FILES))) * 8
    assert len(kept) == 100


# Streams -------------------------------------------------------------------------------------------------------------


def streamed(where: object, **options) -> list[tuple]:
    return [
        (int(row), content, cells, reasons.get(i))
        for rows, contents, given, _, reasons in read_contents(where, **options)[0]
        for i, (row, content, cells) in enumerate(zip(rows, contents.to_pylist(), given.to_pylist(), strict=True))
    ]


def test_a_stream_of_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(picturecells, "ROWS", 2)
    laid(tmp_path, {**FILES, "cat/a.jpg": b""})
    sizes = [len(rows) for rows, *_ in read_contents(tmp_path, modality="image")[0]]
    assert sizes == [2, 2, 2, 1]
    found = streamed(tmp_path, modality="image")
    assert [row for row, *_ in found] == list(range(1, 8))
    assert found[3] == (4, None, {"file": "cat/a.jpg", "label": "cat"}, "it is empty")
    assert found[4] == (5, FILES["dog/0.png"], {"file": "dog/0.png", "label": "dog"}, None)


def test_a_stream_of_tables(tmp_path):
    rows = [{"n": str(i), "path": f"img/{name}"} for i, name in enumerate([*FILES, "gone.png"])]
    found = streamed(table_of(tmp_path, "t.csv", rows), modality="image")
    assert found[0] == (1, FILES["cat/0.png"], {"n": "0", "path": "img/cat/0.png"}, None)
    assert found[6] == (7, None, {"n": "6", "path": "img/gone.png"}, "there is no such file")
    table = pa.table({"n": list(range(6)), "image": packed("struct"), "more": packed("binary")})
    assert streamed(table, image="image", modality="image")[2] == (
        3, FILES["cat/2.png"], {"file": "cat/2.png", "n": 2}, None,
    )  # fmt: skip
    (tmp_path / "one.png").write_bytes(picture(3))
    assert streamed(tmp_path / "one.png", modality="image") == [(1, picture(3), {"file": "one.png"}, None)]
    assert streamed(["a", None]) == [(1, "a", {"text": "a"}, None), (2, "", {"text": None}, None)]


def test_the_other_modality_is_refused(tmp_path):
    laid(tmp_path / "d", FILES)
    with pytest.raises(InputError, match="d holds pictures, but texts are wanted"):
        read_contents(tmp_path / "d")
    with pytest.raises(InputError, match="memory holds texts, but pictures are wanted"):
        read_contents(["a text", "another"], modality="image")
    for more in ({}, {"label": ["x"] * 6}):
        with pytest.raises(InputError, match="memory holds pictures, but texts are wanted"):
            read_contents(pa.table({"image": packed("binary"), **more}))


# Archives ------------------------------------------------------------------------------------------------------------


ARCHIVES = {
    "a.zip": zipped, "stored.zip": lambda p, f: zipped(p, f, zipfile.ZIP_STORED),
    "b.zip": lambda p, f: zipped(p, f, zipfile.ZIP_BZIP2), "a.tar": tarred, "a.tgz": lambda p, f: tarred(p, f, "gz"),
    "a.tar.bz2": lambda p, f: tarred(p, f, "bz2"), "a.tar.xz": lambda p, f: tarred(p, f, "xz"), "a.csv": zipped,
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_of_folders(tmp_path, name):
    plain = read(laid(tmp_path / "plain", FILES))
    found = read(ARCHIVES[name](tmp_path / name, FILES))
    check(found)
    assert found.name == name
    assert found.texts() == plain.texts()
    # one folder around it, and what a Mac adds
    more = {f"set/{k}": v for k, v in FILES.items()}
    more |= {"set/README.txt": b"x", "__MACOSX/set/cat/._0.png": b"\0\5\x16\7", "set/.DS_Store": b"x"}
    check(read(ARCHIVES[name](tmp_path / f"2{name}", more)))
    splits = {f"./data/{s}/{k}": v for s in ("train", "test") for k, v in FILES.items()}
    found = read(ARCHIVES[name](tmp_path / f"3{name}", splits))
    assert found.split is not None
    assert sorted(found.split) == ["test"] * 6 + ["train"] * 6
    assert len(streamed(tmp_path / name, modality="image")) == 6


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_with_a_table(tmp_path, name):
    rows = (
        "file,kind\n"
        + "".join(f"img/{k},{k.split('/')[0]}\n" for k in reversed(FILES))
        + "img/no.png,cat\n../x.png,cat\n"
    )
    files = {
        "top/labels.csv": rows.encode(),
        **{f"top/img/{k}": v for k, v in FILES.items()},
        "top/b/c.png": picture(5),
    }
    found = read(ARCHIVES[name](tmp_path / name, files))
    check(found, {f"img/{k}": v for k, v in FILES.items()})
    assert [fault.reason for fault in found.faults] == ["there is no such file in the archive"] * 2
    assert any("the table top/labels.csv in the archive" in note for note in found.notes)
    text = {"x/t.jsonl": b'{"text": "a b", "label": "x"}\n{"text": "c d", "label": "y"}\n'}
    assert read(ARCHIVES[name](tmp_path / f"2{name}", text)).texts() == ["a b", "c d"]
    texts = {f"{c}/{i}.txt": f"{c} {i}".encode() for c in "ab" for i in range(2)}
    found = read(ARCHIVES[name](tmp_path / f"3{name}", texts))
    assert (found.texts(), found.labels) == (["a 0", "a 1", "b 0", "b 1"], ("a", "b"))


def test_rows_against_the_order_of_a_packed_archive(tmp_path, monkeypatch):
    monkeypatch.setattr(tar, "REWINDS", 3)
    rows = "file,kind\n" + "".join(f"{k},{k.split('/')[0]}\n" for k in reversed(FILES))
    with pytest.raises(DataError, match="in another order than they lie in"):
        read(tarred(tmp_path / "a.tgz", {"l.csv": rows.encode(), **FILES}, "gz"))


EVIL = ["../x.png", "cat/../../x.png", "/cat/x.png", "C:/x.png", "c:x.png", "cat\\x.png", "cat//x.png", "cat/./x.png",
        "n" * 5000]  # fmt: skip


@pytest.mark.parametrize("evil", EVIL, ids=[e[:20] for e in EVIL])
@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz"])
def test_paths_that_lead_elsewhere(tmp_path, name, evil):
    with pytest.raises(DataError, match=r"the member .*(path|backslash|characters)"):
        read(ARCHIVES[name](tmp_path / name, {**FILES, evil: picture(1)}))


def test_the_same_member_twice(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
            for name in (*FILES, "cat/0.png"):
                out.writestr(name, picture(1))
    with pytest.raises(DataError, match=r"cat/0\.png is in the archive twice"):
        read(tmp_path / "a.zip")
    with tarfile.open(tmp_path / "a.tar", "w") as out:
        for name in ("cat/0.png", "./cat/0.png"):
            out.addfile(tarfile.TarInfo(name))
    with pytest.raises(DataError, match=r"cat/0\.png is in the archive twice"):
        read(tmp_path / "a.tar")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_links_and_devices_in_tar(tmp_path, kind):
    tarred(tmp_path / "a.tar", FILES)
    with tarfile.open(tmp_path / "a.tar", "a") as out:
        info = tarfile.TarInfo("cat/x.png")
        info.type, info.linkname = kind, "/etc/passwd"
        out.addfile(info)
    with pytest.raises(DataError, match=r"cat/x\.png is (a link|no plain file)"):
        read(tmp_path / "a.tar")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_zip(tmp_path, mode):
    zipped(tmp_path / "a.zip", FILES)
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as out:
        info = zipfile.ZipInfo("cat/x.png")
        info.create_system, info.external_attr = 3, (mode | 0o777) << 16
        out.writestr(info, b"/etc/passwd")
    with pytest.raises(DataError, match=r"cat/x\.png is (a link|no plain file)"):
        read(tmp_path / "a.zip")


def patched(path: Path, old: bytes, new: bytes, count: int = 1, last: bool = False) -> Path:
    content = path.read_bytes()
    assert old in content
    if last:
        head, _, tail = content.rpartition(old)
        path.write_bytes(head + new + tail)
    else:
        path.write_bytes(content.replace(old, new, count))
    return path


def test_headers_that_differ_from_the_directory(tmp_path):
    path = zipped(tmp_path / "a.zip", FILES)
    patched(path, b"cat/1.png", b"cat/9.png")  # in the member's own header only
    with pytest.raises(DataError, match=r"cat/1\.png has a header that differs"):
        read(path)
    path = patched(zipped(tmp_path / "b.zip", FILES), b"cat/1.png", b"dog/0.png", last=True)
    with pytest.raises(DataError, match=r"is in the archive twice|differs"):
        read(path)
    path = patched(zipped(tmp_path / "c.zip", FILES), b"cat/1.png", b"cat/\0.png", count=2)
    with pytest.raises(DataError, match="NUL"):
        read(path)


def test_members_over_one_another(tmp_path):
    path = zipped(tmp_path / "a.zip", {"cat/0.png": picture(1), "dog/0.png": picture(2)}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    second = content.rindex(b"PK\1\2")
    struct.pack_into("<I", content, second + 42, 0)  # both begin at the first
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"the member dog/0.png (has a header that differs|lies over)"):
        read(path)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as out:
        out.writestr("dog/0.png", picture(2))
    body = inner.getvalue()[: inner.getvalue().index(b"PK\1\2")]  # a whole member within another
    path = zipped(tmp_path / "b.zip", {"cat/0.png": body, "dog/0.png": picture(2)}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.rindex(b"PK\1\2") + 42, content.index(body))
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"the member dog/0.png lies over another"):
        read(path)


def test_an_encrypted_member(tmp_path):
    path = zipped(tmp_path / "a.zip", FILES)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\1\2") + 8] |= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"dog/2.png is encrypted"):
        read(path)


def test_a_wrong_check_sum_costs_one_picture(tmp_path):
    path = zipped(tmp_path / "a.zip", FILES, zipfile.ZIP_STORED)
    damaged = bytearray(FILES["cat/1.png"])
    damaged[-20] ^= 1
    found = read(patched(path, FILES["cat/1.png"], bytes(damaged)))
    assert len(found) == 5
    assert found.faults[0].name == "cat/1.png"
    assert "damaged in the archive" in found.faults[0].reason


def test_bombs_in_archives(tmp_path, monkeypatch):
    bomb = {"cat/x.bmp": b"\0" * (4 << 20), **FILES}
    with pytest.raises(DataError, match=r"cat/x\.bmp would unpack to 4,194,304 bytes from [0-9,]+; at most 200 times"):
        read(zipped(tmp_path / "a.zip", bomb))
    for name in ("a.tgz", "a.tar.bz2", "a.tar.xz"):
        with pytest.raises(DataError, match="it would unpack to more than"):
            read(ARCHIVES[name](tmp_path / name, bomb))
    with monkeypatch.context() as patch:
        patch.setattr(archive, "TOTAL", 1000)
        for name in ("b.zip", "a.tar"):
            with pytest.raises(DataError, match="to more than 1,000 bytes unpacked"):
                read(ARCHIVES[name](tmp_path / name, FILES))
    monkeypatch.setattr(archive, "MEMBERS", 5)
    with pytest.raises(DataError, match="more than 5 files"):
        read(ARCHIVES["a.tar"](tmp_path / "many.tar", FILES))


def test_a_declared_size_is_not_trusted(tmp_path):
    """A member that says 10 bytes and unpacks to many: no more than it says is read, and it is refused."""
    path = zipped(tmp_path / "a.zip", FILES)
    content = path.read_bytes()
    size = struct.pack("<I", len(FILES["cat/1.png"]))
    at, directory = content.index(b"cat/1.png") - 8, content.rindex(b"cat/1.png") - 22
    changed = bytearray(content)
    assert changed[at : at + 4] == changed[directory : directory + 4] == size
    changed[at : at + 4] = changed[directory : directory + 4] = struct.pack("<I", 40)
    path.write_bytes(bytes(changed))
    found = read(path)
    assert [fault.name for fault in found.faults] == ["cat/1.png"]


@pytest.mark.parametrize("name", ARCHIVES)
def test_damaged_archives(tmp_path, name):
    content = ARCHIVES[name](tmp_path / name, FILES).read_bytes()
    for share in (0.2, 0.6, 0.97):
        (tmp_path / name).write_bytes(content[: int(len(content) * share)])
        try:
            found = read(tmp_path / name)
        except DataError:
            continue
        check(found)  # nothing but the end of it is gone
        assert "tar" in name


def test_a_tar_cut_between_two_members_is_said(tmp_path):
    content = tarred(tmp_path / "a.tar", FILES).read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: content.index(b"dog/1.png")])
    found = read(tmp_path / "a.tar")
    assert len(found) == 4
    assert any("no mark at its end, so files may be missing" in note for note in found.notes)


def test_archives_without_examples(tmp_path):
    for name, make in ARCHIVES.items():
        with pytest.raises(DataError, match=r"holds no pictures or \.txt files|nothing in it|no files|not read"):
            read(make(tmp_path / name, {"a/b.bin": b"x", "c.md": b"x"}))
    with pytest.raises(DataError, match="a spreadsheet"):
        read(zipped(tmp_path / "book.xlsx", {"[Content_Types].xml": b"<x/>", "xl/a.xml": b"<x/>"}))
    for name, content in (("t.csv.gz", gzip.compress(b"text,label\na,b\n")), ("t.bz2", bz2.compress(b"text,label\n")),
                          ("t.xz", lzma.compress(b"text,label\na,b\n"))):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="archive; unpack it first"):
            open_source(tmp_path / name)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["a.zip", "stored.zip", "a.tar", "a.tgz", "a.tar.xz"]), at=st.floats(0, 1), new=st.binary(
    max_size=8), length=st.integers(0, 8), end=st.booleans())  # fmt: skip
def test_mutated_archives_give_data_or_an_error_of_ours(tmp_path, name, at, new, length, end):
    content = MADE.setdefault(name, ARCHIVES[name](tmp_path / name, FILES).read_bytes())
    place = len(content) - 1 - int(at * min(800, len(content) - 1)) if end else int(at * len(content))
    (tmp_path / name).write_bytes(content[:place] + new + content[place + length :])
    try:
        found = read(tmp_path / name, labelled=False)
    except InputError:
        return
    assert found.modality in ("image", "text")


MADE: dict[str, bytes] = {}


def test_real_pictures(shared, tmp_path):
    root = shared / "data" / "trashnet"
    plain = read(root)
    assert (len(plain), len(plain.labels), plain.faults) == (600, 6, ())
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as out, tarfile.open(tmp_path / "t.tar", "w") as other:
        for path in sorted(root.rglob("*")):
            out.write(path, path.relative_to(root.parent))
        other.add(root, "trashnet")
    for name in ("t.zip", "t.tar"):
        found = read(tmp_path / name)
        assert (found.keys == plain.keys).all()
        assert (found.y == plain.y).all()
        assert found.texts() == plain.texts()
