"""Tensors of the Open Inference Protocol: what a client claims is compared with what came (C21)."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import InputError

orjson = pytest.importorskip("orjson")

codec = pytest.importorskip("headstart.server.tensorcodec")

LIMIT = 100
ELEMENTS = st.lists(st.binary(max_size=40), max_size=LIMIT)


def body(tensor=None, raw=b"", **more):
    """(body, header) of a request with one input."""
    made = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"], **(tensor or {})}
    made = {key: value for key, value in made.items() if value is not None}
    head = json.dumps({"inputs": [made], **more}).encode()
    return head + raw, str(len(head)) if raw else None


def refused(tensor=None, raw=b"", words="", **more):
    with pytest.raises(InputError) as found:
        codec.read(*body(tensor, raw, **more), LIMIT)
    assert words in str(found.value)


@given(ELEMENTS)
def test_what_is_packed_is_unpacked(items):
    raw = codec.pack(codec.Out("text", codec.BYTES, items))
    assert codec.unpack(raw, len(items), "text") == items
    tensor = {"shape": [len(items), 1], "data": None, "parameters": {"binary_data_size": len(raw)}}
    head, length = body(tensor, raw or b"")
    assert codec.read(head, length, LIMIT).given == (codec.Given("text", items),)


@given(ELEMENTS)
def test_bytes_are_packed_as_tritonclient_does(items):
    utils = pytest.importorskip("tritonclient.utils")
    raw = codec.pack(codec.Out("text", codec.BYTES, items))
    theirs = utils.serialize_byte_tensor(np.array(items, np.object_))
    assert raw == (theirs.item() if theirs.size else b"")


@given(st.lists(st.text(max_size=20), min_size=1, max_size=20), st.booleans())
def test_json_data_is_flat_or_one_in_a_list(items, nested):
    try:
        json.dumps(items, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    n = len(items)
    tensor = {"shape": [n, 1] if nested else [n], "data": [[one] for one in items] if nested else items}
    assert codec.read(*body(tensor), LIMIT).given == (codec.Given("text", items),)


@given(st.binary(max_size=300), st.integers(0, LIMIT))
def test_random_bytes_give_elements_or_our_error(raw, n):
    try:
        items = codec.unpack(raw, n, "text")
    except InputError:
        return
    assert sum(4 + len(one) for one in items) == len(raw)
    assert len(items) == n


FIELDS = st.sampled_from(
    ["inputs", "outputs", "name", "shape", "datatype", "data", "parameters", "binary_data_size", "id"]
)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["BYTES", "text"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS | st.text(max_size=4), inner, max_size=6),
    max_leaves=25,
)
LIKELY = st.fixed_dictionaries({"name": JSONS, "shape": JSONS, "datatype": st.just("BYTES")}, optional={"data": JSONS, "parameters": JSONS})  # fmt: skip


@given(st.fixed_dictionaries({"inputs": st.lists(LIKELY, max_size=2) | JSONS}, optional={"outputs": JSONS, "id": JSONS, "parameters": JSONS}), st.binary(max_size=40), st.booleans())  # fmt: skip
def test_any_json_gives_a_request_or_our_error(found, raw, said):
    head = json.dumps(found).encode()
    try:
        codec.read(head + raw, str(len(head)) if said else None, LIMIT)
    except InputError:
        return


@given(st.binary(max_size=200), st.none() | st.text(max_size=6) | st.integers(0, 210).map(str))
def test_any_body_gives_a_request_or_our_error(raw, header):
    try:
        codec.read(raw, header, LIMIT)
    except InputError:
        return


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ([2], "2 elements, its data has 1"),
        ([-1], "from 0 on"),
        ([2**63], "at most 100"),
        ([2**400], "at most 100"),
        ([LIMIT + 1], "at most 100"),
        ([1, 2], "[n, 2]"),
        ([1, 1, 1], "[n] or [n, 1]"),
        ([], "[n] or [n, 1]"),
        (1, "[n] or [n, 1]"),
        ("1", "[n] or [n, 1]"),
        ([1.0], "whole number"),
        ([True], "whole number"),
        ([None], "whole number"),
        (None, "[n] or [n, 1]"),
    ],
)
def test_a_shape_is_not_believed(shape, words):
    """C21: nothing is made from a shape before it is compared with what came."""
    refused({"shape": shape}, words=words)


@pytest.mark.parametrize("kind", ["FP16", "FP32", "BYTE", "bytes", None, 7, ["BYTES"], {"a": 1}])
def test_only_bytes_are_read(kind):
    """C21."""
    refused({"datatype": kind}, words="BYTES")


def test_lengths_in_binary_data_are_not_believed():
    """C21: beyond the rest, over another tensor, too few, too many."""

    def binary(raw, n=1, size=None, words=""):
        parameters = {"binary_data_size": len(raw) if size is None else size}
        refused({"shape": [n], "data": None, "parameters": parameters}, raw, words)

    binary(b"\xff\xff\xff\xff", words="only 0 are left")
    binary(b"\x02\0\0\0a", words="only 1 are left")
    binary(b"\x01\0\0\0ab", words="1 bytes follow its last element")
    binary(b"\x01\0\0\0a", n=2, words="need at least 8 bytes")
    binary(b"\x02\0\0\0ab\0\0", n=2, words="ends before the length")
    binary(b"\x01\0\0\0a", size=4, words="only 0 are left")
    binary(b"\x01\0\0\0a", size=6, words="from 0 to the 5 bytes")
    binary(b"\x01\0\0\0a", size=-1, words="from 0 to")
    binary(b"\x01\0\0\0a", size=2**70, words="from 0 to")
    binary(b"\x01\0\0\0a", size=True, words="from 0 to")
    raw = codec.pack(codec.Out("text", codec.BYTES, [b"a"]))
    refused(raw=raw, words="5 bytes follow the last binary tensor")
    refused({"parameters": {"binary_data_size": 5}}, raw, words="both")
    one = {"name": "a", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}}
    head = json.dumps({"inputs": [one, {**one, "name": "b"}]}).encode()
    with pytest.raises(InputError, match=r"'b'.*from 0 to the 0 bytes left"):
        codec.read(head + raw, str(len(head)), LIMIT)
    found = codec.read(head + raw + raw, str(len(head)), LIMIT)
    assert found.given == (codec.Given("a", [b"a"]), codec.Given("b", [b"a"]))


@pytest.mark.parametrize("header", ["-1", "1e3", " 5", "٥", "", "9" * 30, "100000"])
def test_the_length_of_the_json_part_is_checked(header):
    with pytest.raises(InputError, match="Inference-Header-Content-Length"):
        codec.read(body()[0], header, LIMIT)


def test_json_is_the_strict_one():
    """C4."""
    for text in (b'{"inputs": NaN}', b'{"id":"a","id":"b"}', b"[" * 100_000, b'"\\ud800"', b"\xff", b"", b"9" * 5000):
        with pytest.raises(InputError):
            codec.read(text, None, LIMIT)


def test_an_error_does_not_grow_with_the_request():
    with pytest.raises(InputError) as found:
        codec.read(*body({"name": "a" * 100_000}), LIMIT)
    assert len(str(found.value)) < 200


def test_other_fields_are_checked():
    refused(words="id must be a string", id=5)
    refused(words="`outputs` must be a list", outputs="label")
    refused(words="two outputs", outputs=[{"name": "a"}, {"name": "a"}])
    refused(words="binary_data must be true or false", outputs=[{"name": "a", "parameters": {"binary_data": 1}}])
    refused(words="must be a JSON object", parameters=[])
    refused({"parameters": []}, words="must be a JSON object")
    refused({"data": [["a", "b"]]}, words="no string")
    refused({"data": [b"a".hex(), 1][1:]}, words="no string")
    refused({"data": None}, words="no `data`")
    with pytest.raises(InputError, match="`inputs` must be a list"):
        codec.read(b"{}", None, LIMIT)
    found = codec.read(
        *body(id="7", outputs=[{"name": "a", "parameters": {"binary_data": True}}, {"name": "b"}]), LIMIT
    )
    assert (found.id, found.wanted, found.binary, found.all_binary) == ("7", ("a", "b"), {"a": True}, False)
    assert codec.read(*body(parameters={"binary_data_output": True, "timeout": 5}), LIMIT).all_binary


def test_numbers_go_out_little_endian_row_by_row():
    P = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    out = codec.Out("probabilities", codec.FP32, P)
    assert out.shape == (2, 3)
    assert codec.pack(out) == np.arange(6, dtype="<f4").tobytes()
    assert codec.pack(codec.Out("unknown", codec.BOOL, np.array([True, False]))) == b"\x01\x00"
    head, raw = codec.described(out, binary=True)
    assert head["parameters"] == {"binary_data_size": 24} == {"binary_data_size": len(raw)}
    head, raw = codec.described(out, binary=False)
    assert (head["shape"], written(head), raw) == ([2, 3], [0, 1, 2, 3, 4, 5], b"")
    many = np.random.default_rng(0).random((2 * codec.PIECE + 5, 3), np.float32)
    head, _ = codec.described(codec.Out("p", codec.FP32, many), binary=False)
    np.testing.assert_array_equal(np.array(written(head), np.float32), many.ravel())
    head, _ = codec.described(codec.Out("unknown", codec.BOOL, many[:0, 0] > 0), binary=False)
    assert written(head) == []


def written(head):
    return json.loads(orjson.dumps(head))["data"]
