import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart import tensors
from headstart.errors import ModelError

GOOD = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([1, 2], np.int64)}


def test_round_trip_and_same_bytes(tmp_path):
    tensors.save(tmp_path / "1", GOOD)
    tensors.save(tmp_path / "2", dict(reversed(GOOD.items())))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    back = tensors.load(tmp_path / "1")
    assert back.keys() == GOOD.keys()
    for name, array in GOOD.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype


def framed(header: str, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header.encode())) + header.encode() + data


ENTRY = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "truncated"),
        (struct.pack("<Q", 2**63), "truncated"),
        (b"\x80\x04]q\x00." + b"x" * 60, "truncated"),
        (struct.pack("<Q", 5 << 20) + b"{" + b" " * (5 << 20), "claims"),
        (framed(" {}"), "start"),
        (framed(f'{{"a":{ENTRY},"a":{ENTRY}}}', b"\0\0\0\0"), "twice"),
        (framed(f'{{"../../etc/passwd":{ENTRY}}}', b"\0\0\0\0"), "name"),
        (framed(f'{{"a\\nb":{ENTRY}}}', b"\0\0\0\0"), "name"),
        (framed(f'{{"a":{ENTRY}}}', struct.pack("<f", float("nan"))), "not finite"),
        (framed(f'{{"a":{ENTRY}}}', struct.pack("<f", float("inf"))), "not finite"),
        (framed(f'{{"a":{ENTRY}}}', b"\0\0\0\0trailing"), "sound"),
        (framed(f'{{"a":{ENTRY}}}', b"\0\0"), "sound"),
        (framed('{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}', b"\0\0"), "sound"),
        (framed("[1]"), "start"),
    ],
)
def test_hostile_files_are_refused_with_the_reason(tmp_path, content, word):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=word):
        tensors.load(path)


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_any_flipped_bit_is_refused_or_still_well_formed(tmp_path_factory, at, bit):
    path = tmp_path_factory.mktemp("flip") / "x"
    tensors.save(path, GOOD)
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << bit
    path.write_bytes(content)
    try:
        arrays = tensors.load(path)
    except ModelError:
        return
    assert all(np.isfinite(a).all() for a in arrays.values())


def test_parts():
    arrays = tensors.prefixed(GOOD, "head")
    assert set(arrays) == {"head.a", "head.b"}
    assert tensors.part({**arrays, "other.a": GOOD["a"]}, "head").keys() == GOOD.keys()


def test_header_json_is_plain(tmp_path):
    tensors.save(tmp_path / "x", GOOD)
    content = (tmp_path / "x").read_bytes()
    assert set(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])) == {"a", "b"}


@given(st.integers(1, 9), st.integers(1, 5), st.slices(9), st.sampled_from([np.float16, np.float32, np.int64]))
def test_what_stays_in_the_file_is_read_when_it_is_asked_for(tmp_path_factory, r, d, rows, dtype):
    path = tmp_path_factory.mktemp("stored") / "x"
    kept = np.arange(r * d).astype(dtype).reshape(r, d)
    tensors.save(path, {**GOOD, "kept": kept, "z": GOOD["b"]})
    arrays = tensors.load(path, ("kept", "missing"))
    assert set(arrays) == {"a", "b", "kept", "z"}
    there = arrays["kept"]
    assert isinstance(there, tensors.Stored)
    assert (there.shape, there.dtype, there.ndim, there.size, len(there)) == ((r, d), dtype, 2, r * d, r)
    np.testing.assert_array_equal(np.asarray(there), kept)
    assert np.asarray(there, np.float32).dtype == np.float32
    rows = slice(rows.start, rows.stop)
    np.testing.assert_array_equal(there[rows], kept[rows])


def test_what_stays_in_the_file_is_checked_like_the_rest(tmp_path):
    tensors.save(tmp_path / "x", {"kept": np.array([1, np.inf], np.float16)})
    with pytest.raises(ModelError, match="not finite at position 1"):
        tensors.load(tmp_path / "x", ("kept",))


@pytest.mark.parametrize("change", ["gone", "shorter", "other"])
def test_a_file_that_is_no_longer_what_it_was_is_no_array(tmp_path, change):
    path = tmp_path / "x"
    tensors.save(path, GOOD)
    there = tensors.load(path, ("b",))["b"]
    assert len(list(there[:1])) == 1
    if change == "gone":
        path.unlink()
    elif change == "shorter":
        path.write_bytes(path.read_bytes()[:-4])
    else:
        path.rename(tmp_path / "old")
        tensors.save(path, {**GOOD, "b": GOOD["b"] + 1})
    with pytest.raises(ModelError, match="any more" if change == "gone" else "changed since"):
        np.asarray(there)
