"""A corpus of bad files, made here, and what must be said of each."""

from __future__ import annotations

import io
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from headstart import textfile
from headstart.errors import DataError, InputError, NotFound
from headstart.source import open_source


def read_all(where: object, **options) -> list[dict]:
    return [row for batch in open_source(where, **options).batches() for row in batch.to_pylist()]


def refused(path: Path, content: bytes, **options) -> DataError:
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_all(path, **options)
    error = caught.value
    assert error.exit_code == 2
    assert error.file == path.name
    return error


# Text with a separator -----------------------------------------------------------------------------------------------

SPECTRUM = {  # the cases of csv-spectrum, written anew
    "comma_in_quotes": ('a,b\n1,"x, y"\n', [["1", "x, y"]]),
    "empty": ('a,b,c\n1,"",""\n2,3,4\n', [["1", "", ""], ["2", "3", "4"]]),
    "empty_crlf": ('a,b,c\r\n1,"",""\r\n2,3,4\r\n', [["1", "", ""], ["2", "3", "4"]]),
    "escaped_quotes": ('a,b\n1,"ha ""ha"" ha"\n3,4\n', [["1", 'ha "ha" ha'], ["3", "4"]]),
    "json": ('key,val\n1,"{""at"": [1.0, 2.0], ""b"": {}}"\n', [["1", '{"at": [1.0, 2.0], "b": {}}']]),
    "newlines": ('a,b\n1,2\n"Once upon \na time",5\n7,8\n', [["1", "2"], ["Once upon \na time", "5"], ["7", "8"]]),
    "newlines_crlf": ('a,b\r\n"Once\r\nupon",5\r\n', [["Once\r\nupon", "5"]]),
    "quotes_and_newlines": ('a,b\n1,"ha \n""ha"" \nha"\n3,4\n', [["1", 'ha \n"ha" \nha'], ["3", "4"]]),
    "simple": ("a,b,c\n1,2,3\n", [["1", "2", "3"]]),
    "simple_crlf": ("a,b,c\r\n1,2,3\r\n", [["1", "2", "3"]]),
    "utf8": ("a,b,c\n1,2,3\n4,5,ʤ\n", [["1", "2", "3"], ["4", "5", "ʤ"]]),
    "location_coordinates": ("Contact,At\nA,\"17.0384° N, 1.5\"\n", [["A", "17.0384° N, 1.5"]]),
}  # fmt: skip


@pytest.mark.parametrize("name", SPECTRUM)
def test_spectrum(tmp_path: Path, name: str):
    text, rows = SPECTRUM[name]
    path = tmp_path / f"{name}.csv"
    path.write_bytes(text.encode())
    assert [list(row.values()) for row in read_all(path)] == rows


CSV = [  # content, row, line, column, words of the message
    (b'text,label\n"a b,x\nc,y\n', 1, 2, "text", "never closes"),
    (b'text,label\nfine,x\n"a b",x\n"c d,y\ne,z\n', 3, 4, "text", "never closes"),
    (b'text,label\nfine,"x\n"a b",y\n', 1, 2, "label", "closes before something other"),
    (b'text,label\n"two\nlines",x\n"a" b,y\nc,z\n', 2, 4, "text", "closes before something other"),
    (b"text,label\na,x\nb\nc,y\n", 2, 3, None, "1 cell where the header has 2 columns"),
    (b'text,label\n"a\nb",x\n\nb,y,z\n', 2, 5, None, "3 cells where the header has 2 columns"),
    (b"text,label\nHello, world,x\n", 1, 2, None, "Put a cell that holds ',' in double quotes"),
    (b"text,label\na,x\nb\0,y\n", None, 3, None, "NUL"),
    (b"text,label,text\na,x,b\n", None, None, None, "columns 1 and 3 have the same name 'text'"),
    (b",,\na,b,c\nd,e,f\n", None, 1, None, "no column names"),
    (b"\n \n\n", None, None, None, "nothing in it but blank lines"),
    (b"", None, None, None, "the file is empty"),
    (b'"text,label\na,x\n', None, 1, None, "the first quote never closes"),
]


@pytest.mark.parametrize(("content", "row", "line", "column", "said"), CSV)
def test_bad_csv(tmp_path: Path, content, row, line, column, said):
    error = refused(tmp_path / "bad.csv", content)
    assert said in str(error)
    assert (error.row, error.line, error.column) == (row, line, column)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("k", [0, 999, 40_000, 59_999])
def test_the_row_of_a_quote_far_down(tmp_path: Path, k: int, end: str):
    rows = [f'"row {i},{end} on two lines",x' if i % 3 == 0 else f"row {i},y" for i in range(60_000)]
    rows[k] = f'"row {k},x'
    text = end.join(["text,label", *rows]) + end
    error = refused(tmp_path / "bad.csv", text.encode())
    assert error.row == k + 1
    assert error.line == 2 + sum(2 if i % 3 == 0 else 1 for i in range(k))
    assert error.column == "text"


def test_cells_of_ten_megabytes(tmp_path: Path):
    big = b"x" * 10_000_000
    error = refused(tmp_path / "bad.csv", b"text,label\na,x\n" + big + b",y\n")
    assert (error.row, error.column) == (2, "text")
    assert "1,048,576" in str(error)
    error = refused(tmp_path / "bad.jsonl", b'{"text": "a"}\n{"text": "' + big + b'"}\n')
    assert (error.row, error.column) == (2, "text")
    pa.parquet.write_table(pa.table({"text": ["a", "b", "x" * 10_000_000]}), tmp_path / "bad.parquet")
    with pytest.raises(DataError, match=r"row 3, column 'text': a cell of 10,000,000 bytes"):
        read_all(tmp_path / "bad.parquet")
    with pytest.raises(DataError, match=r"row 2, column 'text': a cell"):
        read_all(["a", "x" * 10_000_000])
    ok = tmp_path / "ok.csv"
    ok.write_bytes(b"text,label\n" + b"y" * 1_000_000 + b",x\n")
    assert len(read_all(ok)[0]["text"]) == 1_000_000


def test_a_line_of_many_megabytes(tmp_path: Path):
    error = refused(tmp_path / "bad.csv", b"text,label\n" + b"a," * 20_000_000)
    assert "16,777,216 characters" in str(error)
    assert error.line == 2
    error = refused(tmp_path / "wide.csv", b",".join(b"c%d" % i for i in range(300_000)) + b"\n1,2\n")
    assert error.line == 1 or "columns" in str(error)


def test_columns_without_a_name(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text("label,text,,,\nx,one,,,\ny,two, three,,\nx,four\ny,five,,,,\n", "utf-8")
    source = open_source(path)
    rows = [row for batch in source.batches() for row in batch.to_pylist()]
    assert rows == [{"label": y, "text": t} for y, t in [("x", "one"), ("y", "two"), ("x", "four"), ("y", "five")]]
    assert (
        "the last 3 columns have no name and are left out (1 cells there hold something, first in row 2)"
        in source.notes
    )
    path.write_text(",text,label\n0,one,x\n1,two,y\n", "utf-8")  # as pandas writes its index
    source = open_source(path)
    assert source.columns == ("column_1", "text", "label")
    assert "columns without a name are called column_1" in source.notes


def test_a_table_without_a_header(tmp_path: Path):
    path = tmp_path / "t.tsv"
    path.write_text('ham\t"Hello" he said\nspam\twin, "now\nham\tyes\nham\tno\nspam\twin\nham\tno way\n', "utf-8")
    source = open_source(path)
    assert source.columns == ("column_1", "column_2")
    rows = [row for batch in source.batches() for row in batch.to_pylist()]
    assert len(rows) == 6
    assert rows[0]["column_2"] == '"Hello" he said'
    assert any("the first line is data and not column names" in note for note in source.notes)
    assert any("quotes are ordinary characters" in note for note in source.notes)


def test_a_column_without_a_header(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text("How do I do this?\nWhere is it?\n", "utf-8")
    source = open_source(path)
    assert [r["text"] for b in source.batches() for r in b.to_pylist()] == ["How do I do this?", "Where is it?"]
    assert "the first line is a text and not a column name" in source.notes[0]


def test_quotes_escaped_by_a_backslash(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text('text,label\n"He said \\"hi\\", then left",x\n"b",y\n', "utf-8")
    source = open_source(path)
    assert [row["text"] for b in source.batches() for row in b.to_pylist()] == ['He said "hi", then left', "b"]
    assert any("backslash" in note for note in source.notes)


def test_header_only_and_one_column(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text("text,label\n", "utf-8")
    assert read_all(path) == []
    path.write_text('text\none\n\n"two, three"\n', "utf-8")
    source = open_source(path)
    assert [r for b in source.batches() for r in b.to_pylist()] == [{"text": "one"}, {"text": "two, three"}]
    assert source.notes == ["1 blank line skipped"]


def test_formulas_are_kept_as_they_are(tmp_path: Path):
    cells = ["=cmd|' /C calc'!A0", "@SUM(1)", "+1", "-2"]
    path = tmp_path / "t.csv"
    path.write_text("text,label\n" + "".join(f"{c},x\n" for c in cells), "utf-8")
    assert [row["text"] for row in read_all(path)] == cells


# Encodings -----------------------------------------------------------------------------------------------------------

ENCODED = [  # content, line, words
    (b"text,label\nok,x\nhalf \xed\xa0\x80,y\n", 3, "surrogate pair"),
    (
        b"text,label\n" + "grün,x\n".encode() * 9 + b"br\xf6sel,y\n",
        11,
        "byte 0xf6 is not UTF-8, though 9 of the 10 lines",
    ),
    (b"text,label\nok,x\n\x81\x8d,y\n", 3, "byte 0x81 is neither UTF-8 nor Windows-1252"),
    ("text,label\nприветствую вас,x\nдо свидания,y\n".encode("cp1251"), 2, "too many for Windows-1252"),
    (b"\xff\xfe" + "text,label\nok,x\n".encode("utf-16-le") + b"\x00\xd8y\0\n\0", 3, "is not UTF-16"),
    ("text,label\nok,x\n".encode("utf-16")[:-1], 2, "is not UTF-16"),
]


@pytest.mark.parametrize(("content", "line", "said"), ENCODED)
def test_bad_encoding(tmp_path: Path, content, line, said):
    error = refused(tmp_path / "bad.csv", content)
    assert said in str(error)
    assert error.line == line


def test_lines_are_counted_where_a_block_ends_within_a_line_end():
    with pytest.raises(textfile._Undecodable) as caught:
        list(textfile._decoded([b"a\r", b"\nb\r", b"c\r\n", b"\xff"], "utf-8", "t"))
    assert caught.value.line == 4


def test_encoding_as_asked(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_bytes("text,label\nпривет,x\nпока,y\n".encode("cp1251"))
    assert [row["text"] for row in read_all(path, encoding="cp1251")] == ["привет", "пока"]
    assert "read as cp1251, as asked" in open_source(path, encoding="cp1251").notes
    with pytest.raises(DataError, match="line 2: byte 0xef is not utf-8"):
        read_all(path, encoding="utf-8")
    for wrong in ("utf-99", "zlib", "a\0b"):
        with pytest.raises(InputError, match="There is no encoding"):
            open_source(path, encoding=wrong)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    "text", ["text,label\nhello there,x\n", "text,label\r\nпривет,да\r\n", "文本,标签\n" + "你好世界,是\n" * 9]
)
def test_utf_16_without_its_mark(tmp_path: Path, text: str, encoding: str):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode(encoding))
    source = open_source(path)
    assert source.columns == tuple(text.split()[0].split(","))
    assert source.notes[0] == "read as UTF-16 without its mark: every other byte is zero"
    assert len(list(source.batches())) == 1


def test_a_mark_is_no_part_of_the_first_name(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbftext,label\na,x\n")
    assert open_source(path).columns == ("text", "label")
    assert read_all(path, encoding="utf-8") == [{"text": "a", "label": "x"}]


# JSON ----------------------------------------------------------------------------------------------------------------


def not_json() -> Iterator[bytes]:
    """Texts no JSON reader may take, after the n_ files of nst/JSONTestSuite."""
    yield from (
        b"[1 true]", b"[a\xc3\xa5]", b'["": 1]', b'[""],', b"[,1]", b"[1,,2]", b'["x",,]', b'["x"]]', b'["",]', b'["x"',
        b"[x", b"[3[4]]", b"[1:2]", b"[,]", b"[-]",
        b"[   , \"\"]", b'["a",\n4\n,1,', b"[1,]", b"[*]", b'[""', b"[1,\n1\n,1",
        b"[{}", b"[fals]", b"[nul]", b"[tru]", b"[++1234]",
        b"[+1]", b"[+Inf]", b"[-01]", b"[-1.0.]", b"[-2.]", b"[-NaN]",
        b"[.-1]", b"[.2e-3]", b"[0.1.2]", b"[0.3e+]", b"[0.3e]",
        b"[0.e1]", b"[0E+]", b"[1.0e+]", b"[1 000.0]", b"[1eE2]",
        b"[2.e+3]", b"[9.e+]", b"[Inf]", b"[NaN]", b"[Infinity]",
        b"[-Infinity]", b"[1+2]", b"[0x1]", b"[- 1]", b"[-012]",
        b"[012]", b"[1a]", b'["x", truth]', b'{[: "x"}',
        b'{"x", null}', b'{"x"::"b"}', b'{"a":"a" 123}', b"{key: 'value'}",
        b'{"a" b}', b'{:"b"}', b'{"a" "b"}', b'{"a":', b'{"a"', b"{1:1}", b'{"id":0,,,,,}', b"{'a':0}", b'{"id":0,}',
        b'{"a":"b"}/**/', b'{"a":"b"}#', b'{"a":"b",,"c":"d"}', b'{a: "b"}', b'{"a":"a', b'{ "foo" : "bar", "a" }',
        b'["\\uD800\\"]', b'["\\uD800\\u1"]', b'["\\u00A"]', b'["\\a"]',
        b'["\\x00"]', b"['x']", b'["\\', b'["\\u', b'["\x01"]',
        b'["a\tb"]', b"[\\n]", b"abc", b"[<null>]", b"{}}",
        b'{"":', b"[\"asd]", b"*", b'{"a":"b"}#{}', b"[1", b"[ false, nul",
        b"\xe2\x81\xa0", b"[\xc2\xa0]", b"{", b"}", b"[", b"]", b"[1]x", b"TRUE", b"1]", b'{"x": true,', b"[][]", b"2@",
        b"<.>", b"[\x0c]", b'{"a":1}{"b":2}', b'{"a":1} {"b":2}', b'{"a":1, "a":2}', b'{"a":1e400}', b'{"a":NaN}',
        b'{"a":-Infinity}', b'{"a":' + b"9" * 5000 + b"}", b'{"a":"\\ud800"}', b'{"a":"\\udc00 x"}',
    )  # fmt: skip
    yield b"[" * 100_000
    yield b'[{"":' * 50_000
    yield b'{"a":' * 50_000 + b"1" + b"}" * 50_000


def json_values() -> Iterator[bytes]:
    """JSON every reader must take, after the y_ files of nst/JSONTestSuite: as the value of one key."""
    yield from (
        b"[[]   ]", b'[""]', b"[]", b'["a"]', b"[false]",
        b'[null, 1, "1", {}]', b"[null]", b"[1\t]", b" [1]", b"[1,null]", b"[2]",
        b"[123e65]", b"[0e+1]", b"[ 4]", b"[-0.000000000000000000000000000001]",
        b"[20e1]", b"[-0]", b"[-123]", b"[1E22]",
        b"[1E-2]", b"[123.456e78]", b'{"asd":"sdf", "dfg":"fgh"}',
        b"{}", b'{"":0}', b'{"foo\\u0000bar": 42}', b'{"a":[]}',
        b'["\\u0060\\u012a\\u12AB"]', b'["\\uD801\\udc37"]',
        b'["\\"\\\\\\/\\b\\f\\n\\r\\t"]', b'["\\u0000"]', b'["\\u200B"]',
        b'["a/*b*/c"]', b'["\xe2\x82\xac\xf0\x9d\x84\x9e"]', b'"\\uDBFF\\uDFFF"', b'"\x7f"',
        b"false", b"42", b"-0.1", b"null",
        b'"asd"', b"true", b'""', b"1E400".replace(b"400", b"300"), b"123456789012345678901234567890",
    )  # fmt: skip


@pytest.mark.parametrize("number", range(len(list(not_json()))))
def test_what_is_not_json(tmp_path: Path, number: int):
    content = list(not_json())[number]
    error = refused(tmp_path / "a.jsonl", b'{"text": "fine"}\n\n' + content + b'\n{"text": "too"}\n')
    assert error.line is not None
    assert error.line >= 3
    error = refused(tmp_path / "b.json", b'[{"text": "fine"},\n' + content + b"\n]")
    assert error.line is not None


@pytest.mark.parametrize("number", range(len(list(json_values()))))
def test_what_is_json(tmp_path: Path, number: int):
    content = list(json_values())[number]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "fine", "v": ' + content + b"}\n")
    (row,) = read_all(path)
    value = json.loads(content)
    assert row["v"] == value or json.loads(row["v"]) == value
    path.write_bytes(b'[{"text": "fine", "v": ' + content + b"}]")
    assert read_all(path) == [row]


def test_lines_of_json(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a", "label": "x"}\r\n\r\n  {"label": "y", "text": "b"}\r\n{"text": "c"}')
    assert read_all(path) == [{"text": t, "label": y} for t, y in [("a", "x"), ("b", "y"), ("c", None)]]
    path.write_bytes(b'"a"\n"b"\n')
    assert read_all(path) == [{"text": "a"}, {"text": "b"}]
    path.write_bytes(b'["a", "x"]\n["b", ["x", "y"]]\n')
    assert read_all(path)[1]["text"] == "b"
    for line, said in [
        (b"5", "a number"),
        (b"null", "null"),
        (b"{}", "an object without keys"),
        (b"[1,2,3]", "a list of 3"),
    ]:
        error = refused(path, b'{"text": "a"}\n' + line + b"\n")
        assert said in str(error)
        assert error.line == 2


def test_two_objects_on_a_line_and_a_line_cut_off(tmp_path: Path):
    """Also where the next lines would make up for it if lines were not looked at one by one."""
    for content, line in [
        (b'{"a":1},{"b":2}\n{"c":[1\n2]}\n', 1),
        (b'{"a":"x"}\n{"a":"y"} {"a":"z"}\n', 2),
        (b'{"a":1},{"b":2}\n{"c":[{}\n{}]}\n', 1),
        (b'{"a":"x"},\n{"a":"y"}\n', 1),
        (b'{"a":"}\n{"}\n', 1),
        (b'{"a":1},{"b":2}\n{"c":"}"}\n', 1),
        (b'{"a":[1}\n{"b":2]}\n', 1),
    ]:
        assert refused(tmp_path / "t.jsonl", content).line == line
    error = refused(tmp_path / "t.jsonl", b'{"a":"x"}\n{"a":"y"}\n{"a":"z')
    assert error.line == 3
    assert "the last line is cut off" in str(error)
    error = refused(tmp_path / "t.json", b'[{"a":"x"},\n{"a":"y"},\n{"a":"z')
    assert error.line == 3


def test_a_key_that_comes_late(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a"}\n' * 200_000 + '{"text": "b", "late": 1}\n', "utf-8")
    source = open_source(path)
    assert sum(batch.num_rows for batch in source.batches()) == 200_001
    assert source.notes == ["the key 'late' first comes in row 200,001 and is left out (1 rows have it)"]


# Files that are no data ----------------------------------------------------------------------------------------------

BINARY = {
    "zip": b"PK\x03\x04\x14\0\0\0",
    "gzip": b"\x1f\x8b\x08\0", "pdf": b"%PDF-1.7\n",
    "pickle": b"\x80\x04\x95\0\0", "sqlite": b"SQLite format 3\0", "elf": b"\x7fELF\x02\x01",
    "noise": bytes(range(256)) * 40,
}  # fmt: skip


@pytest.mark.parametrize("kind", BINARY)
def test_binary_files_named_csv(tmp_path: Path, kind: str):
    assert "this is a" in str(refused(tmp_path / "bad.csv", BINARY[kind]))


def test_content_and_not_the_ending_decides(tmp_path: Path):
    table = pa.table({"text": ["a"], "label": ["x"]})
    path = tmp_path / "parquet.csv"
    pa.parquet.write_table(table, path)
    assert read_all(path) == [{"text": "a", "label": "x"}]
    path = tmp_path / "json.csv"
    path.write_text('{"text": "a", "label": "x"}\n', "utf-8")
    assert read_all(path) == [{"text": "a", "label": "x"}]
    path = tmp_path / "csv.dat"
    path.write_text("text,label\na,x\n", "utf-8")
    assert read_all(path) == [{"text": "a", "label": "x"}]


def test_missing_file_offers_near_names(tmp_path: Path):
    (tmp_path / "tickets.csv").write_text("text,label\na,x\n", "utf-8")
    with pytest.raises(NotFound, match=r"Did you mean 'tickets\.csv'"):
        open_source(tmp_path / "tikcets.csv")
    with pytest.raises(NotFound, match="nor a folder"):
        open_source(tmp_path / "none" / "tickets.csv")
    with pytest.raises(InputError):
        open_source("a\0b.csv")
    with pytest.raises(InputError):
        open_source("x" * 5000)
    with pytest.raises(InputError):
        open_source("")


@pytest.mark.skipif(os.name != "posix", reason="pipes, sockets and permissions of POSIX")
def test_special_files_are_refused_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="this is a pipe"):
        open_source(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="this is a device"):
        open_source("/dev/zero")
    where = os.getcwd()
    os.chdir(tmp_path)
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("socket.csv")
            with pytest.raises(DataError, match="this is a socket"):
                open_source("socket.csv")
    finally:
        os.chdir(where)
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    with pytest.raises(InputError):
        open_source(tmp_path / "loop.csv")
    closed = tmp_path / "closed.csv"
    closed.write_text("text,label\na,x\n", "utf-8")
    closed.chmod(0)
    if os.geteuid() != 0:
        with pytest.raises(InputError, match="permission"):
            open_source(closed)


def test_no_permission_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "closed.csv"
    path.write_text("text,label\na,x\n", "utf-8")
    real = os.open

    def no(file, *rest, **more):
        if Path(file) == path:
            raise PermissionError(13, "Permission denied")
        return real(file, *rest, **more)

    monkeypatch.setattr(os, "open", no)
    with pytest.raises(InputError, match=r"closed\.csv.*permission"):
        read_all(path)


def test_a_file_that_changes_is_refused(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text("text,label\n" + "a,x\n" * 40_000, "utf-8")
    for change in (
        lambda: path.open("a").close() or os.utime(path, ns=(1, 1)),  # written to, same bytes
        lambda: path.write_text("text,label\n" + "b,x\n" * 40_000, "utf-8"),  # other bytes of the same size
        lambda: path.write_text("text,label\na,x\n", "utf-8"),  # cut short
    ):
        path.write_text("text,label\n" + "a,x\n" * 40_000, "utf-8")
        stream = open_source(path).batches()
        next(stream)
        change()
        with pytest.raises(DataError, match="the file changed while it was being read"):
            list(stream)
    parquet = tmp_path / "t.parquet"
    pa.parquet.write_table(pa.table({"text": ["a"] * 5000}), parquet)
    stream = open_source(parquet).batches()
    next(stream)
    os.utime(parquet, ns=(1, 1))
    with pytest.raises(DataError, match="changed"):
        list(stream)


def test_changed_between_opening_and_reading(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text("text,label\na,x\n", "utf-8")
    source = open_source(path)
    path.write_text("text,label\nb,x\n", "utf-8")
    with pytest.raises(DataError, match="changed"):
        list(source.batches())


# Arrow ---------------------------------------------------------------------------------------------------------------


def test_types_that_would_run_a_pickle_are_refused(tmp_path: Path):
    field = pa.field(
        "text",
        pa.string(),
        metadata={"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": "x"},
    )
    with pa.ipc.new_stream(str(tmp_path / "t.arrow"), pa.schema([field])) as out:
        out.write_batch(pa.record_batch([pa.array(["a"])], schema=pa.schema([field])))
    with pytest.raises(DataError, match="would run code"):
        open_source(tmp_path / "t.arrow")


def test_a_billion_rows_in_a_small_parquet_are_streamed(tmp_path: Path):
    path = tmp_path / "t.parquet"
    batch = pa.table({"text": pa.array(["word " * 200]).take(pa.array([0] * 200_000))})
    pa.parquet.write_table(batch, path)
    assert path.stat().st_size < 100_000
    source = open_source(path)
    assert source.rows == 200_000
    stream = source.batches()
    assert next(stream).nbytes < 2_000_000


def test_two_columns_of_one_name(tmp_path: Path):
    pa.parquet.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="have the same name 'text'"):
        open_source(tmp_path / "t.parquet")


# Standard input ------------------------------------------------------------------------------------------------------


def through_a_pipe(content: bytes) -> subprocess.CompletedProcess[bytes]:
    code = (
        "from headstart.source import open_source\n"
        "s = open_source('-')\n"
        "print([r for b in s.batches() for r in b.to_pylist()][-1], s.digest()[:8], s.notes)\n"
    )
    return subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, check=False, timeout=60)


def test_standard_input():
    done = through_a_pipe(b"text,label\n" + b"a b c,x\n" * 50_000 + b"last,y\n")
    assert done.returncode == 0, done.stderr.decode()
    assert b"'text': 'last'" in done.stdout
    done = through_a_pipe(b"text,label\n" + b"a b c,x\n" * 50_000 + b"caf\xe9,y\n")
    assert b"line 50002: byte 0xe9 is not utf-8" in done.stderr
    done = through_a_pipe(b"text,label\ncaf\xe9 au lait,x\n")
    assert "café au lait" in done.stdout.decode()
    assert b"Windows-1252" in done.stdout


# Memory --------------------------------------------------------------------------------------------------------------

MEMORY = [
    ([], "there are no rows"),
    (["a", ("b", "x")], "row 2: this is a pair, but the first row is a text"),
    (["a", 5], "row 2: a row of type int is neither"),
    ([("a", "x"), ("b\ud800", "y")], "row 2, column 'text': half of a surrogate pair"),
    ([{"text": "a"}, {1: "b"}], "row 2: the key 1 is not a text"),
    ([{}], "there are no columns"),
    ([("a", object()), ("b", object())], "column 'label': its values cannot stand in one column"),
]


@pytest.mark.parametrize(("data", "said"), MEMORY)
def test_bad_tables_in_memory(data, said):
    with pytest.raises(DataError) as caught:
        read_all(data)
    assert said in str(caught.value)


@pytest.mark.parametrize("data", [5, None, object(), {"text": "a"}, io.BytesIO(b"text\na\n")])
def test_things_that_are_no_table(data):
    with pytest.raises(InputError):
        read_all(data)


def test_names_are_fit_to_be_printed(tmp_path: Path):
    path = tmp_path / "evil\n\x1b[31m\u202ename.csv"
    path.write_text("text,label\na\n", "utf-8")
    with pytest.raises(DataError) as caught:
        read_all(path)
    assert str(caught.value).isprintable()
    assert stat.S_ISREG(path.stat().st_mode)
