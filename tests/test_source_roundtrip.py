"""Whatever Python writes as a table is read back exactly; whatever is damaged gives equal data or a DataError."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from headstart.errors import HeadstartError, InputError
from headstart.source import Source, open_source
from headstart.textfile import utf16_without_mark

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

# What a cell may hold: no NUL and no surrogates, which are refused.
characters = st.characters(blacklist_categories=("Cs",), blacklist_characters="\0")
cells = st.text(characters, max_size=12) | st.sampled_from(
    [
        '"',
        '""',
        'a "b" c',
        "x,y",
        "x;y",
        "x|y",
        "x\ty",
        "two\nlines",
        "two\r\nlines",
        "\r",
        "\\",
        '\\"',
        "=1+1",
        "-",
        "N/A",
        "NaN",
    ]
)


def table(width: int):
    row = st.lists(cells, min_size=width, max_size=width)
    return st.lists(row, min_size=1, max_size=6)


tables = st.integers(2, 4).flatmap(table)


def names(width: int) -> list[str]:
    return ["text", "label", "split", "extra"][:width]


def collected(source: Source) -> list[list[object]]:
    rows: list[list[object]] = []
    for batch in source.batches():
        assert tuple(batch.schema.names) == source.columns
        rows += [list(row.values()) for row in batch.to_pylist()]
    return rows


def written(rows: list[list[str]], delimiter: str, end: str, quoting: int) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow(names(len(rows[0])))
    writer.writerows(rows)
    return out.getvalue()


@quick
@given(
    rows=tables,
    delimiter=st.sampled_from(",;|\t"),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]),
)
@example(rows=[["a", "b"]] * 3, delimiter=",", end="\n", quoting=csv.QUOTE_MINIMAL, encoding="utf-16-le")
@example(rows=[["", "b"], ["a", ""]], delimiter="\t", end="\r", quoting=csv.QUOTE_ALL, encoding="utf-8")
def test_any_csv(tmp_path: Path, rows, delimiter, end, quoting, encoding):
    if end != "\r\n":  # the writer quotes only the line end it writes, not the other ones
        quoting = csv.QUOTE_ALL
    path = tmp_path / ("t.tsv" if delimiter == "\t" else "t.csv")
    text = written(rows, delimiter, end, quoting)
    path.write_bytes(text.encode(encoding))
    assume(not repeats(rows))
    if encoding in ("utf-16-le", "utf-16-be"):
        assume(utf16_without_mark(text.encode(encoding)) == encoding)  # else it is not to be told
    source = open_source(path)
    assert collected(source) == rows
    assert ("UTF-16" in " ".join(source.notes)) == encoding.startswith("utf-16")
    assert collected(source) == rows  # and again


def repeats(rows: list[list[str]]) -> bool:
    """A column whose cells are all like its name would be taken for a table without a header."""
    return any(name in (row[i] for row in rows) for i, name in enumerate(names(len(rows[0]))))


@quick
@given(
    rows=st.lists(
        st.lists(st.text(st.sampled_from('abcdefgh é’“ß€\n,"'), max_size=9), min_size=2, max_size=2), min_size=1
    )
)
def test_any_windows_1252(tmp_path: Path, rows):
    path = tmp_path / "t.csv"
    raw = written([*rows, ["plain " * 20, "padding"]], ",", "\n", csv.QUOTE_MINIMAL).encode("cp1252")
    path.write_bytes(raw)
    try:
        raw.decode("utf-8")
        is_utf8 = True
    except UnicodeDecodeError:
        is_utf8 = False
    source = open_source(path)
    if not is_utf8:
        assert collected(source)[:-1] == rows
        assert "read as Windows-1252: byte 0x" in source.notes[0]
        assert "is not UTF-8" in source.notes[0]
    assert collected(open_source(path, encoding="cp1252"))[:-1] == rows


json_scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
json_texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=12)


@quick
@given(
    texts=st.lists(json_texts, min_size=1, max_size=6),
    ascii=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\n\n", " \n"]),
    array=st.booleans(),
    indent=st.sampled_from([None, 2]),
    last=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_any_json(tmp_path: Path, texts, ascii, end, array, indent, last, encoding):
    rows = [{"text": text, "label": [text, "b"], "n": i} for i, text in enumerate(texts)]
    if array:
        path, content = tmp_path / "t.json", json.dumps(rows, ensure_ascii=ascii, indent=indent)
    else:
        path = tmp_path / "t.jsonl"
        content = end.join(json.dumps(row, ensure_ascii=ascii) for row in rows) + (end if last else "")
    path.write_bytes(content.encode(encoding))
    batches = list(open_source(path).batches())
    assert [row for batch in batches for row in batch.to_pylist()] == rows


@quick
@given(values=st.lists(json_scalars | st.lists(json_scalars, max_size=3) | json_texts, min_size=1, max_size=5))
def test_any_json_cell_is_kept(tmp_path: Path, values):
    """Cells of one kind come back as they were; mixed ones come back as text that is their JSON."""
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"text": "x", "v": v}) + "\n" for v in values), "utf-8")
    (batch,) = open_source(path).batches()
    for found, value in zip(batch.column("v").to_pylist(), values, strict=True):
        if found == value:
            continue
        assert isinstance(found, str) or found == pytest.approx(value)
        assert not isinstance(found, str) or json.loads(found) == value


arrow_rows = st.lists(
    st.tuples(st.none() | st.text(characters, max_size=10), st.sampled_from(["a", "b"]), st.integers(-9, 9)),
    min_size=1, max_size=8,
)  # fmt: skip


@quick
@given(
    rows=arrow_rows,
    form=st.sampled_from(["parquet", "feather", "lz4", "stream", "memory", "reader"]),
    dictionary=st.booleans(),
)
def test_any_arrow(tmp_path: Path, rows, form, dictionary):
    columns = [list(column) for column in zip(*rows, strict=True)]
    label = pa.array(columns[1])
    given = pa.table({"text": columns[0], "label": label.dictionary_encode() if dictionary else label, "n": columns[2]})
    where: object = tmp_path / "t.bin"
    if form == "parquet":
        pa.parquet.write_table(given, where)
    elif form in ("feather", "lz4"):
        pa.feather.write_feather(given, str(where), compression="lz4" if form == "lz4" else "uncompressed")
    elif form == "stream":
        with pa.ipc.new_stream(str(where), given.schema) as out:
            out.write_table(given, max_chunksize=3)
    else:
        where = given if form == "memory" else given.to_reader()
    source = open_source(where)
    assert [tuple(row) for row in collected(source)] == rows
    assert source.digest() is None if form in ("memory", "reader") else len(source.digest() or "") == 64


def seeds() -> dict[str, bytes]:
    rows = [['how, "are" you', "a"], ["two\nlines", "b"], ["über", "a"], ["plain", "b"], ["", "a"]]
    flat = pa.table(
        {"text": [r[0] for r in rows], "label": [r[1] for r in rows], "tags": [["x"], [], None, ["y", "x"], ["x"]]}
    )
    parquet, feather, stream = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pa.parquet.write_table(flat, parquet)
    pa.feather.write_feather(flat, feather, compression="uncompressed")
    with pa.ipc.new_stream(stream, flat.schema) as out:
        out.write_table(flat)
    return {
        "t.csv": written(rows, ",", "\n", csv.QUOTE_MINIMAL).encode(),
        "u.csv": written(rows, ";", "\r\n", csv.QUOTE_ALL).encode("utf-16"),
        "t.tsv": written(rows, "\t", "\n", csv.QUOTE_MINIMAL).encode("cp1252"),
        "t.jsonl": "".join(json.dumps({"text": r[0], "label": r[1]}) + "\n" for r in rows).encode(),
        "t.json": json.dumps([{"text": r[0], "label": [r[1], "z"]} for r in rows], indent=1).encode(),
        "t.parquet": parquet.getvalue(),
        "t.feather": feather.getvalue(),
        "t.arrow": stream.getvalue(),
        "t.txt": "\n".join(r[0] for r in rows).encode(),
    }


SEEDS = seeds()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(sorted(SEEDS)))
def test_every_mutation_gives_data_or_an_error_of_ours(tmp_path: Path, data, name):
    raw = bytearray(SEEDS[name])
    for _ in range(data.draw(st.integers(1, 4))):
        if not raw:
            break
        at = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(["flip", "set", "cut", "drop", "insert", "repeat"])):
            case "flip":
                raw[at] ^= 1 << data.draw(st.integers(0, 7))
            case "set":
                raw[at] = data.draw(st.sampled_from(b'\0"\n\r,;{}[]\\\x80\xff'))
            case "cut":
                del raw[at:]
            case "drop":
                del raw[at : at + data.draw(st.integers(1, 8))]
            case "insert":
                raw[at:at] = data.draw(
                    st.sampled_from([b'"', b"\n", b",,", b"\0", b"\xed\xa0\x80", b"NaN", b"{", b"]", b"\xff"])
                )
            case "repeat":
                raw[at:at] = raw[at : at + 16]
    path = tmp_path / name
    path.write_bytes(raw)
    try:
        rows, error = collected(open_source(path)), None
    except HeadstartError as caught:
        rows, error = [], caught
    assert all(len(row) == len(rows[0]) for row in rows)
    assert error is None or (isinstance(error, InputError) and str(error).isprintable())


def test_many_rows_in_bounded_batches(tmp_path: Path):
    rng = np.random.default_rng(0)
    rows = [[f'text {i}, {"x" * int(rng.integers(0, 90))}\n"{i}"', f"l{i % 7}"] for i in range(60_000)]
    path = tmp_path / "t.csv"
    path.write_text(written(rows, ",", "\n", csv.QUOTE_MINIMAL), "utf-8", newline="")
    lines = tmp_path / "t.jsonl"
    lines.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows), "utf-8")
    for where in (path, lines):
        source = open_source(where)
        sizes = [batch.num_rows for batch in source.batches()]
        assert sum(sizes) == len(rows)
        assert max(sizes) <= 16_384
        assert collected(source) == rows
