"""A data set as it is read: tasks, labels, what is left out, what is said; and streams of texts."""

from __future__ import annotations

import gc
import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart import batches, dataset, example
from headstart.dataset import read, read_texts
from headstart.errors import DataError, InputError, StorageError
from headstart.head import CLASSIFICATION, MULTILABEL, REGRESSION


def texts(n: int) -> list[str]:
    return [f"text number {i}" for i in range(n)]


def labelled(labels: list) -> dataset.Dataset:
    return read(list(zip(texts(len(labels)), labels, strict=True)))


# Real files ----------------------------------------------------------------------------------------------------------


def test_banking77(shared):
    found = read(shared / "data/banking77/banking_data/train.csv")
    assert (len(found), found.task, len(found.labels)) == (10_003, CLASSIFICATION, 77)
    assert found.roles is not None
    assert (found.roles.text, found.roles.label) == ("text", "category")
    assert found.labels == tuple(
        sorted(json.loads((shared / "data/banking77/banking_data/categories.json").read_text()))
    )
    assert len(found.digest) == 64
    assert found.texts(np.array([0])) == ["I am still waiting on my card?"]


def test_sms_spam(shared):
    found = read(shared / "data/sms_spam/spam.csv")
    assert (len(found), found.labels, found.duplicates, found.conflicts) == (5_573, ("ham", "spam"), 403, 0)
    assert found.roles is not None
    assert (found.roles.text, found.roles.label) == ("message", "class_label")
    assert found.notes[0] == "read as Windows-1252: byte 0xe5 at line 7 is not UTF-8"
    assert "the last 3 columns have no name and are left out" in found.notes[1]


def test_medical_abstracts(shared):
    folder = shared / "data/medical_abstracts"
    found = read(folder / "medical_tc_test.csv", names=folder / "medical_tc_labels.csv")
    assert (len(found), found.task, len(found.labels)) == (2_888, CLASSIFICATION, 5)
    assert found.labels[found.y[0]] == "nervous system diseases"
    assert found.conflicts == 113
    assert read(folder / "medical_tc_test.csv").labels == ("1", "2", "3", "4", "5")


def test_nlupp(shared):
    found = read(shared / "data/nlupp/nlupp/data/banking/fold0.json")
    assert (len(found), found.task) == (104, MULTILABEL)
    assert {found.labels[j] for j in np.flatnonzero(found.T[0])} == {"how_long", "pin", "arrival", "new"}


def test_a_table_without_texts_is_refused(shared):
    with pytest.raises(InputError, match="no column holds text"):
        read(shared / "data/credit_default/UCI_Credit_Card.csv")


# Tasks ---------------------------------------------------------------------------------------------------------------


def test_one_label_of_many():
    found = labelled(["b", "a", None, " a ", ""])
    assert found.labels == ("a", "b")
    assert found.y.tolist() == [1, 0, -1, 0, -1]
    assert found.y.dtype == np.int32
    assert found.T.shape == (5, 0)
    assert found.targets().tolist() == [[0, 1], [1, 0], [0, 0], [1, 0], [0, 0]]
    assert "2 rows have no label and serve as unlabelled" in found.notes
    assert "1 label has only one example and cannot be evaluated: 'b' (row 1)" in found.notes


def test_several_labels():
    for cells in ([["x", "y"], ["y"], None, []], [{"x", "y"}, {"y"}, None, set()]):
        found = labelled(cells)
        assert (found.task, found.labels) == (MULTILABEL, ("x", "y"))
        assert found.T.tolist() == [[1, 1], [0, 1], [0, 0], [0, 0]]
        assert found.y.tolist() == [0, 0, -1, 0]
    found = labelled(['["x", "y"]', '["y"]', "", "[]"])
    assert found.T.tolist() == [[1, 1], [0, 1], [0, 0], [0, 0]]
    assert found.y.tolist() == [0, 0, -1, 0]


@pytest.mark.parametrize("separator", [";", "|", " ; "])
def test_labels_between_separators(separator):
    found = labelled([f"x{separator}y", "x", "y", f"y{separator}z", "z"] * 2)
    assert (found.task, found.labels) == (MULTILABEL, ("x", "y", "z"))
    assert found.T[:5].tolist() == [[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert any("parted by" in note for note in found.notes)


@pytest.mark.parametrize(
    "cells", [["R&D; Sales", "HR"] * 5, ["a|b", "c|d", "e"] * 5, ["x, y", "x", "y"] * 5, ["a;", "b"] * 5]
)
def test_a_separator_alone_is_no_evidence(cells):
    assert labelled(cells).task == CLASSIFICATION


def test_task_as_asked():
    rows = list(zip(texts(4), ["x,y", "x", "y", ""], strict=True))
    found = read(rows, task="multilabel")
    assert found.T.tolist() == [[1, 1], [1, 0], [0, 1], [0, 0]]
    assert read(list(zip(texts(6), [1, 2, 3] * 2, strict=True)), task="regression").task == REGRESSION
    assert read(list(zip(texts(9), range(9), strict=True)), task="classification").labels == tuple("012345678")
    with pytest.raises(InputError, match="There is no task 'regresion'\\. Did you mean 'regression'"):
        read(rows, task="regresion")
    with pytest.raises(DataError, match="row 1, column 'label': 'x,y' is not a finite number"):
        read(rows, task="regression")


def test_numbers():
    found = labelled([1.5, 2.25, None, 3.5, 1e30] + [float(i) + 0.5 for i in range(20)])
    assert (found.task, found.labels) == (REGRESSION, ())
    assert found.T.shape == (25, 1)
    assert np.isnan(found.T[2, 0])
    assert found.T[1, 0] == 2.25
    assert found.y[:4].tolist() == [0, 0, -1, 0]
    for wrong in ("1e400", "nope"):
        with pytest.raises(DataError, match="row 2, column 'label'"):
            read([("a", "1.5"), ("b", wrong), ("c", "2.5")], task="regression")
    with pytest.raises(DataError, match="every number is 1"):
        read([("a", "1"), ("b", "1")], task="regression")


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        ([0, 1] * 5, CLASSIFICATION),
        ([1, 2, 3, 4, 5] * 4, CLASSIFICATION),  # stars
        (list(range(77)) * 6, CLASSIFICATION),  # codes without a gap
        ([i % 61 + 18 for i in range(300)], REGRESSION),  # ages
        ([i * 37 % 1001 for i in range(300)], REGRESSION),
        ([0.5 * (i % 40) for i in range(300)], REGRESSION),
        ([12, 80, 33, 7, 51, 68], REGRESSION),
        ([10.0, 20.0, float("nan"), 10.0, 20.0], CLASSIFICATION),
        ([True, False, True], CLASSIFICATION),
    ],
)
def test_number_or_class(labels, task):
    assert labelled(labels).task == task


def test_whole_numbers_that_were_made_floats():
    assert labelled([1.0, 2.0, None, 10.0, 1.0, 2.0, 10.0, 10.0]).labels == ("1", "10", "2")
    assert labelled([True, False, None]).labels == ("false", "true")


# Labels --------------------------------------------------------------------------------------------------------------

NAUGHTY = [
    "__proto__", "constructor", "None", "NaN", "nan", "null", "true", "undefined", "NIL", "-", "1/0", "0x0", "١٢٣",
    "<script>alert(1)</script>", "' OR 1=1 --", "../../etc/passwd", "con", "\u202eright to left", "a\u200bb",
    "👩‍👩‍👧‍👦", "Ω≈ç√",
    "\x1b[31mred", "two\nlines", "tab\tin", "=1+1", "@SUM(1)", "%s%n", "{0}",
    "Z̮̞̠͙͔ͅḀ̗̞͈̻̗Ḷ͙͎̯̹̞͓G̻O̭̗̮", "ﷺ", "\ufeffmark", "a" * 2000, "\x07",
]  # fmt: skip


def test_naughty_strings_come_through(tmp_path: Path):
    rows = [{"text": f"text: {s}", "label": s} for s in NAUGHTY * 2]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    for where in (rows, path):
        found = read(where)
        normal = [unicodedata.normalize("NFC", s.strip()) for s in NAUGHTY]
        assert set(found.labels) == set(normal)
        assert found.texts()[: len(NAUGHTY)] == [f"text: {s}" for s in NAUGHTY]
        assert [found.labels[code] for code in found.y[: len(NAUGHTY)]] == normal
        assert all(note.isprintable() for note in found.notes)


def test_labels_that_look_the_same_are_one():
    found = labelled(["é", "e\u0301", " é", "E", "e"])
    assert found.labels == ("E", "e", "é")
    assert found.y.tolist() == [2, 2, 2, 0, 1]
    assert "labels that differ only in case are kept apart: 'E', 'e'" in found.notes


def test_nan_as_text_is_a_label():
    assert labelled(["NaN", "x", None, float("nan")]).y.tolist() == [0, 1, -1, -1]


def test_codes_named_by_a_second_file(tmp_path: Path):
    names = tmp_path / "names.csv"
    names.write_text("code,name\n1,cats\n2,dogs\n3,cats\n4,owls\n", "utf-8")
    rows = list(zip(texts(6), [1, 2, 3, None, 1.0, "2"], strict=True))
    found = read(rows, names=names)
    assert found.labels == ("cats", "dogs")
    assert found.y.tolist() == [0, 1, 0, -1, 0, 1]
    assert read([("a", [1, 4]), ("b", [2])], names=names).labels == ("cats", "dogs", "owls")
    with pytest.raises(DataError, match="row 2, column 'label': the file of names has no name for '9'"):
        read([("a", 1), ("b", 9)], names=names)


BAD_LABELS = [
    ([f"l{i % 10_000}" for i in range(10_050)], "10,000 distinct labels on 10,050 rows: this looks like an identifier"),
    ([5_000 + i for i in range(300)], "300 distinct labels on 300 rows: this looks like an identifier"),
    (["x"] * 5, "there is only one class, 'x', in 5 rows"),
    ([["x"], ["x"]], "there is only one label, 'x'"),
    ([None, ""], "every cell is empty"),
    ([None, []], "no row has a label"),
    ([b"x", b"y"], "type bytes is no label"),
]


@pytest.mark.parametrize(("labels", "said"), BAD_LABELS)
def test_labels_nothing_can_be_learnt_from(labels, said):
    with pytest.raises(DataError) as caught:
        read(list(zip(texts(len(labels)), labels, strict=True)), label="label")
    assert said in str(caught.value)
    assert caught.value.column == "label"


def test_one_example_a_class_is_said_and_not_refused():
    found = labelled([f"class {i}" for i in range(77)])
    assert len(found.labels) == 77
    assert any("77 labels have only one example" in note for note in found.notes)


def test_many_classes_with_enough_rows():
    assert len(labelled([f"c{i % 2_000}" for i in range(6_000)]).labels) == 2_000


def test_a_file_to_measure_a_model_on():
    found = read([("a", "y"), ("b", "y"), ("c", None)], known=["y", "x"])
    assert (found.labels, found.y.tolist()) == (("y", "x"), [0, 0, -1])
    with pytest.raises(DataError, match="row 2, column 'label': the label 'why' is not one of the model's 2"):
        read([("a", "y"), ("b", "why")], known=["y", "x"])
    found = read([("a", "y;x"), ("b", "y")], known=["x", "y"], task="multilabel")
    assert found.T.tolist() == [[1, 1], [0, 1]]


# Rows ----------------------------------------------------------------------------------------------------------------


def test_blank_texts_are_left_out_and_counted(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text('text,label\none,x\n"  ",y\n\u200b\u200d,x\ntwo,y\n,x\nthree,x\n\n', "utf-8")
    found = read(path)
    assert found.texts() == ["one", "two", "three"]
    assert found.rows.tolist() == [1, 4, 6]
    assert "3 of 6 rows have a blank text and are left out (row 2, 3, 5)" in found.notes
    assert "1 blank line skipped" in found.notes
    with pytest.raises(DataError, match="every text is blank"):
        read([(" ", "x"), ("", "y")], text="text", label="label")


def test_duplicates_and_conflicts_are_counted_with_rows():
    found = read([("a", "x"), ("b", "y"), ("a", "y"), ("c", "x"), ("b", "y"), ("a", "x"), ("c", None)])
    assert (found.duplicates, found.conflicts) == (4, 1)
    assert (
        "4 rows repeat an earlier text: row 3 as row 1, row 5 as row 2, row 6 as row 3, row 7 as row 4" in found.notes
    )
    assert "1 text comes with different labels: rows 1 and 3, rows 3 and 6" in found.notes
    part = found.take(np.array([5, 1, 4]))
    assert (part.duplicates, part.conflicts, part.texts()) == (1, 0, ["a", "b", "b"])
    several = read([("a", ["x"]), ("a", ["x", "y"]), ("b", ["y"])])
    assert (several.duplicates, several.conflicts) == (1, 1)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["x", "y", "z"])), min_size=1, max_size=30))
def test_duplicates_and_conflicts_are_those_of_a_plain_count(rows):
    rows = [*rows, ("first", "x"), ("second", "y")]
    found = read(rows)
    seen: dict[str, set[str]] = {}
    for text, label in rows:
        seen.setdefault(text, set()).add(label)
    assert found.duplicates == len(rows) - len(seen)
    # a conflict between neighbours in order of rows: any content with two labels has one
    assert found.conflicts == sum(len(labels) > 1 for labels in seen.values())


def test_every_role(tmp_path: Path):
    path = tmp_path / "t.csv"
    rows = ["1,one two,x,Train,u,1", "2,three four,y,dev,u,0.5", "3,five six,x,,v,", "4,seven,y,test,,2"]
    path.write_text("\n".join(["id,text,label,split,user,weight", *rows]), "utf-8")
    found = read(path)
    assert found.split is not None
    assert found.group is not None
    assert found.ids is not None
    assert found.weight is not None
    assert found.split.tolist() == ["train", "validation", "train", "test"]
    assert len(set(found.group.tolist())) == 3
    assert found.group[0] == found.group[1]
    assert found.ids.to_pylist() == ["1", "2", "3", "4"]
    assert found.weight.tolist() == [1, 0.5, 1, 2]
    for wrong, said in [
        ("x,elsewhere,u,1", "names no split"),
        ("x,test,u,-1", "is no weight"),
        ("x,test,u,inf", "is no weight"),
    ]:
        path.write_text(f"text,label,split,user,weight\na b,y,train,u,1\nb c,{wrong}\n", "utf-8")
        with pytest.raises(DataError, match=f"row 2.*{said}"):
            read(path, split="split", weight="weight", label="label", text="text")


def test_no_rows(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text("text,label\n", "utf-8")
    for reading in (read, lambda where: list(read_texts(where)[0])):
        with pytest.raises(DataError, match=r"t\.csv: there are no rows"):
            reading(path)


def test_more_rows_than_a_data_set_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pa.parquet.write_table(pa.table({"text": ["a"] * 200, "label": ["x"] * 200}), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("text,label\n" + "a,x\nb,y\n" * 100, "utf-8")
    monkeypatch.setattr(dataset, "ROW_LIMIT", 100)
    for name in ("t.parquet", "t.csv"):
        with pytest.raises(DataError, match="a data set may have"):
            read(tmp_path / name)


# Digests and large files ---------------------------------------------------------------------------------------------


def test_digests(tmp_path: Path):
    a, b = tmp_path / "a.csv", tmp_path / "b.csv"
    a.write_text("text,label\none,x\ntwo,y\n", "utf-8")
    b.write_text("text,label\none,x\ntwo,z\n", "utf-8")
    assert read(a).digest != read(b).digest
    rows = [("one", "x"), ("two", "y")]
    assert read(rows).digest == read(pa.table({"text": ["one", "two"], "label": ["x", "y"]})).digest
    assert read(rows).digest != read([("one", "x"), ("two", "z")]).digest


def test_large_contents_lie_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batches, "SPILL", 1 << 20)
    monkeypatch.setattr(batches.tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    path = tmp_path / "t.csv"
    rows = [f"a longer text with the number {i} in it" for i in range(100_000)]
    path.write_text("text,label\n" + "".join(f"{t},{'xy'[i % 2]}\n" for i, t in enumerate(rows)), "utf-8")
    before = pa.total_allocated_bytes()
    found = read(path)
    assert pa.total_allocated_bytes() - before < 1 << 21
    assert found.contents.nbytes > 3 << 20
    assert found.texts() == rows
    assert (found.rows == np.arange(1, 100_001)).all()
    assert found.texts(np.array([99_999, 0])) == [rows[-1], rows[0]]
    if os.name == "posix":
        assert list((tmp_path / "tmp").iterdir()) == []
    stopped = batches.Contents()
    stopped.add(pa.array(rows, pa.large_string()))
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    del stopped
    gc.collect()
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batches, "SPILL", 1)
    monkeypatch.setattr(batches.tempfile, "mkstemp", lambda **_: (os.open("/dev/null", os.O_RDONLY), "/dev/full"))
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with pytest.raises(StorageError, match="the disk is full"):
        read([("a" * 100_000, "x"), ("b", "y")])


# Streams -------------------------------------------------------------------------------------------------------------


def test_a_stream_gives_every_row(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text("n,message\n1,one two three\n2,\n3,  \n4,four five six\n", "utf-8")
    stream, source = read_texts(path)
    ((rows, found, batch),) = list(stream)
    assert rows.tolist() == [1, 2, 3, 4]
    assert found.to_pylist() == ["one two three", "", "  ", "four five six"]
    assert batch.schema.names == ["n", "message"]
    assert source.columns == ("n", "message")
    assert any(note.startswith("text column 'message'") for note in source.notes)
    ((_, found, _),) = list(read_texts(path, text="n")[0])
    assert found.to_pylist() == ["1", "2", "3", "4"]


def test_a_stream_of_what_python_has():
    ((rows, found, _),) = list(read_texts(["a", None, "b"])[0])
    assert (rows.tolist(), found.to_pylist()) == ([1, 2, 3], ["a", "", "b"])
    with pytest.raises(DataError, match="row 1, column 'tags': its cells are"):
        list(read_texts([{"t": "a", "tags": ["x"]}], text="tags")[0])


def test_rows_are_counted_over_batches():
    table = pa.table({"text": texts(40_000)})
    rows = np.concatenate([rows for rows, _, _ in read_texts(table)[0]])
    assert (rows == np.arange(1, 40_001)).all()


# Other libraries -----------------------------------------------------------------------------------------------------

ROWS = {"text": ["one two", "two three", None, "four"], "label": ["x", "y", "x", "x"]}


def check(found: dataset.Dataset) -> None:
    assert found.texts() == ["one two", "two three", "four"]
    assert found.rows.tolist() == [1, 2, 4]
    assert found.labels == ("x", "y")
    assert found.y.tolist() == [0, 1, 0]
    assert (found.keys == example.keys([b"one two", b"two three", b"four"])).all()


def test_pandas():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(ROWS)
    check(read(frame))
    check(read(frame.astype({"label": "category"}).set_index(pd.Index([5, 6, 7, 8]))))
    assert read(frame["text"], labelled=False).texts() == ["one two", "two three", "four"]
    assert read(frame["text"].to_numpy(), labelled=False).texts() == ["one two", "two three", "four"]
    with pytest.raises(DataError, match="this table cannot be read"):
        read(pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"], "odd": [[1], "x"]}))


def test_polars():
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame(ROWS)
    check(read(frame))
    check(read(frame.with_columns(pl.col("label").cast(pl.Categorical))))
    assert read(frame["text"], labelled=False).texts() == ["one two", "two three", "four"]
    listed = read(pl.DataFrame({"text": ["a", "b"], "label": [["x"], ["x", "y"]]}))
    assert (listed.task, listed.T.tolist()) == (MULTILABEL, [[1, 0], [1, 1]])


def test_hugging_face(tmp_path: Path):
    hf = pytest.importorskip("datasets")
    hf.disable_progress_bars()
    features = hf.Features({"text": hf.Value("string"), "label": hf.ClassLabel(names=["zebra", "ant"])})
    data = hf.Dataset.from_dict({"text": ["a b", "b c", "c d"], "label": [0, 1, -1]}, features=features)
    both = hf.DatasetDict(train=data, test=data.select([1, 0]))
    data.save_to_disk(tmp_path / "one")
    both.save_to_disk(tmp_path / "both")
    data.to_parquet(tmp_path / "t.parquet")
    for where in (data, tmp_path / "one", tmp_path / "t.parquet"):
        found = read(where)
        assert found.labels == ("ant", "zebra")
        assert found.y.tolist() == [1, 0, -1]
        assert found.texts() == ["a b", "b c", "c d"]
    assert read(data.select([2, 0, 1])).texts() == ["c d", "a b", "b c"]
    for where in (both, tmp_path / "both"):
        found = read(where)
        assert found.split is not None
        assert found.split.tolist() == ["train"] * 3 + ["test"] * 2
        assert found.y.tolist() == [1, 0, -1, 0, 1]
    listed = hf.Features({"text": hf.Value("string"), "label": hf.List(hf.ClassLabel(names=["p", "q"]))})
    found = read(hf.Dataset.from_dict({"text": ["a", "b", "c"], "label": [[0], [], [0, 1]]}, features=listed))
    assert found.T.tolist() == [[1, 0], [0, 0], [1, 1]]


def test_a_damaged_saved_folder(tmp_path: Path):
    folder = tmp_path / "saved"
    folder.mkdir()
    table = pa.table({"text": ["a", "b"], "label": [0, 7]})
    with pa.ipc.new_stream(str(folder / "data.arrow"), table.schema) as out:
        out.write_table(table)
    state = folder / "state.json"
    for content, said in [
        ("{}", "names no data files"),
        ("[]", "not a JSON object"),
        ("{", "not JSON"),
        ('{"_data_files": [{"filename": "../data.arrow"}]}', "no plain file name"),
        ('{"_data_files": [{"filename": "other.arrow"}]}', "no such file"),
    ]:
        state.write_text(content, "utf-8")
        with pytest.raises(InputError, match=said):
            read(folder)
    state.write_text('{"_data_files": [{"filename": "data.arrow"}]}', "utf-8")
    assert read(folder).labels == ("0", "7")
    (folder / "dataset_info.json").write_text(
        '{"features": {"label": {"_type": "ClassLabel", "names": ["p", "q"]}}}', "utf-8"
    )
    with pytest.raises(
        DataError, match="row 2, column 'label': the class code 7 has no name; the file names 2 classes"
    ):
        read(folder)


# Folders -------------------------------------------------------------------------------------------------------------


def folder_of(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")
    return root


def test_a_folder_per_class(tmp_path: Path):
    root = folder_of(
        tmp_path / "d", {"neg/1.txt": "bad film", "neg/2.txt": "worse", "pos/1.txt": "good\nfilm", "README.md": "x"}
    )
    (root / "pos" / "caf.txt").write_bytes(b"tr\xe8s bien")
    found = read(root)
    assert found.labels == ("neg", "pos")
    assert found.texts() == ["bad film", "worse", "good\nfilm", "très bien"]
    assert found.ids is not None
    assert found.ids.to_pylist() == ["neg/1.txt", "neg/2.txt", "pos/1.txt", "pos/caf.txt"]
    assert any("1 other thing in the folder is not read: README.md" in note for note in found.notes)
    assert any("1 files read as Windows-1252, the first pos/caf.txt" in note for note in found.notes)
    digest = found.digest
    (root / "neg" / "1.txt").write_text("bad movie", "utf-8")
    assert read(root).digest != digest
    split = folder_of(
        tmp_path / "s", {f"{s}/{c}/{i}.txt": f"{s} {c} {i}" for s in ("train", "test") for c in "ab" for i in range(2)}
    )
    found = read(split)
    assert found.split is not None
    assert found.split.tolist() == ["test"] * 4 + ["train"] * 4
    assert [
        batch.to_pylist() for _, batch, _ in read_texts(folder_of(tmp_path / "f", {"a.txt": "one", "b.txt": ""}))[0]
    ] == [["one", ""]]


def test_a_folder_without_texts(tmp_path: Path):
    with pytest.raises(DataError, match=r"no \.txt files.*Make a subfolder"):
        read(tmp_path)
    (tmp_path / "train.csv").write_text("text,label\na,x\n", "utf-8")
    with pytest.raises(DataError, match=r"Name one of the files in it: train\.csv"):
        read(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="links, pipes and odd names of POSIX")
def test_odd_things_in_a_folder(tmp_path: Path):
    root = folder_of(tmp_path / "d", {"a/1.txt": "one", "A/1.txt": "two", "a/" + "x" * 251 + ".txt": "three"})
    os.mkfifo(root / "a" / "pipe.txt")
    (root / "a" / "loop.txt").symlink_to(root / "a" / "loop.txt")
    (root / "a" / "around").symlink_to(root)
    (root / "a" / "same.txt").symlink_to(root / "a" / "1.txt")
    (root / "a" / "two\nlines.txt").write_text("four", "utf-8")
    with open(os.fsencode(root / "a") + b"/\xff.txt", "w") as file:
        file.write("five")
    found = read(root)
    assert found.labels == ("A", "a")
    assert found.texts() == ["two", "one", "one", "four", "three", "five"]
    assert found.ids is not None
    assert "a/\\xff.txt" in found.ids.to_pylist()
    note = next(note for note in found.notes if "other things" in note)
    assert note.startswith("3 other things")
    assert all(name in note for name in ("a/pipe.txt", "a/loop.txt", "a/around"))
    (root / "A" / "out.txt").symlink_to("/etc/hostname")
    with pytest.raises(DataError, match=r"A/out\.txt is a link to a file outside of the folder"):
        read(root)
    (root / "A" / "out.txt").unlink()
    (root / "a" / "big.txt").write_text("x" * (1 << 21), "utf-8")
    with pytest.raises(DataError, match=r"big\.txt.*more than 1,048,576 bytes"):
        read(root)
    (root / "a" / "big.txt").unlink()
    os.mkdir(os.fsencode(root) + b"/\xff")
    with open(os.fsencode(root) + b"/\xff/1.txt", "w") as file:
        file.write("six")
    with pytest.raises(DataError, match="is not UTF-8, so it is no label"):
        read(root)
