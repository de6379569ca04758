"""The static backbone: sums of vectors, row by row the same, and a folder that is read strictly."""

import hashlib
import itertools
import json
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart import jsontext, tensors
from headstart.backbones import static
from headstart.backbones.static import INDEX, TOKENISER, VECTORS, Static, Vectors
from headstart.errors import InputError, ModelError, NotFound

PIECES = ["[UNK]", *"abcdefghijklmnopqrstuvwxyz?!-'", *("##" + c for c in "abcdefghijklmnopqrstuvwxyz"), "card", "my"]
ODD = [
    "my card?",
    "",
    "   \n\t ",
    "my",
    "😀 🎉",
    "a" * 10_000,
    "我的订单什么时候能到",
    "my-card my-card",
    "\x00\x01",
    "İstanbul",
    "word " * 700,
    "?!",
]
WIDTH = 8


def tokeniser() -> bytes:
    """A WordPiece tokenizer.json of some 60 pieces, without marks."""
    vocab = {piece: i for i, piece in enumerate(PIECES)}
    said = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    }
    return json.dumps(said).encode()


def vectors(pairs: int = 16, tokens: int = 256, seed: int = 0) -> Vectors:
    rng = np.random.default_rng(seed)
    tables = (rng.normal(size=(n, WIDTH)).astype(np.float32) for n in (len(PIECES), pairs))
    return Vectors.of(tokeniser(), tokens, *tables)


def written(folder, made: Vectors | None = None) -> Static:
    folder.mkdir(exist_ok=True)
    static.write(folder, made or vectors(), name="small", source="a test", licence="MIT", teacher="ab" * 32)
    return Static.open(folder)


@pytest.fixture
def base(tmp_path):
    return written(tmp_path / "base")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return written(tmp_path_factory.mktemp("static") / "base")


def test_card_taps_and_cut(base):
    card = base.card
    assert (card.name, card.source, card.licence, card.modality) == ("small", "a test", "MIT", "text")
    assert (card.width, card.widths, card.precision, card.cut) == (WIDTH, (WIDTH,), "int8", "top")
    assert len(card.fingerprint) == len(card.digest) == 64
    assert card.parameters == (len(PIECES) + 16) * WIDTH
    assert base.taps == ()
    assert base.at("top") is base
    with pytest.raises(InputError, match="no cut '3' in small"):
        base.at("3")
    with pytest.raises(InputError, match="no cut '0'"):
        Static.open(base.folder, cut="0")
    with pytest.raises(InputError, match="there is no network in small"):
        base.portable()


def test_reading_a_card_loads_no_tokeniser(base):
    before = set(sys.modules)
    assert Static.open(base.folder).card.width == WIDTH
    assert not {"torch", "onnx", "onnxruntime"} & (set(sys.modules) - before)


def test_rows_have_unit_length_or_are_zero(base):
    X = base.encode(ODD)
    assert (X.shape, X.dtype) == ((len(ODD), WIDTH), np.float32)
    nothing = [text in ("", "   \n\t ", "\x00\x01") for text in ODD]
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), [0 if none else 1 for none in nothing], atol=1e-5)
    assert base.encode([]).shape == (0, WIDTH)
    np.testing.assert_array_equal(base.encode(["MY Card?"]), base.encode(["  my\ncard? "]))


def by_hand(made: Vectors, text: str):
    """The definition, with no chunk kept and no batch."""
    tool = static.opened(made.tokeniser, made.tokens)
    chunks = text.lower().split()[: made.tokens]
    table = made.pieces * made.steps[: len(made.pieces), None]
    total = sum((table[i] for chunk in chunks for i in tool.encode(chunk).ids), np.zeros(WIDTH))
    if len(made.pairs):
        words = [word for chunk in chunks for word in (static.WORD.findall(chunk) or [chunk])]
        pairs = made.pairs * made.steps[len(made.pieces) :, None]
        bits = len(made.pairs).bit_length() - 1
        for left, right in itertools.pairwise(words):
            a, b = static.hashed(left), static.hashed(right)
            code = (a * int(static.LEFT) + b * int(static.RIGHT)) % 2**32
            total = total + pairs[code >> (32 - bits)]
    return total / max(np.linalg.norm(total), 1e-12)


@pytest.mark.parametrize("pairs", [0, 2, 16, 256])
def test_a_row_is_what_the_definition_says(tmp_path, pairs):
    made = vectors(pairs, tokens=32)
    base = written(tmp_path / "base", made)
    texts = [*ODD, "don't top-up my card - please", "a b a b a b", "my card my-card"]
    texts = [text[: 64 * 32] for text in texts]
    np.testing.assert_allclose(base.encode(texts), [by_hand(made, text) for text in texts], atol=1e-5)


def test_pairs_tell_the_order_and_pieces_do_not(tmp_path):
    flat, pairs = written(tmp_path / "flat", vectors(0)), written(tmp_path / "pairs")
    one, two = flat.encode(["my card lost", "lost card my"])
    np.testing.assert_allclose(one, two, atol=1e-6)
    one, two = pairs.encode(["my card lost", "lost card my"])
    assert abs(one - two).max() > 1e-2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=6))
def test_a_row_depends_on_its_text_alone(kept, texts):
    X = kept.encode(texts)
    assert np.isfinite(X).all()
    for row, text in zip(X, texts, strict=True):
        np.testing.assert_array_equal(row, kept.encode([text])[0])
    np.testing.assert_array_equal(kept.encode(texts[::-1]), X[::-1])


def test_batches_and_what_is_known_do_not_show(base, monkeypatch):
    texts = [f"{'my card ' * (i % 5)} {chr(97 + i % 26)}{i}" for i in range(300)] + ODD
    X = base.encode(texts)
    np.testing.assert_array_equal(base.encode(texts), X)  # all chunks known
    monkeypatch.setattr(static, "TEXTS", 7)
    np.testing.assert_array_equal(base.encode(texts), X)
    monkeypatch.setattr(static, "CHUNKS", 11)
    monkeypatch.setattr(static, "KNOWN", 300)
    np.testing.assert_array_equal(Static.open(base.folder).encode(texts), X)  # full again and again


def test_what_is_known_stays_bounded(base, monkeypatch):
    monkeypatch.setattr(static, "CHUNKS", 50)
    monkeypatch.setattr(static, "KNOWN", 100)
    for low in range(0, 1000, 10):
        base.encode([f"w{i}" for i in range(low, low + 10)])
    assert len(base._kept["known"].place) <= 100


def test_threads_may_share_it(base):
    texts = [f"my {chr(97 + i % 26)}{i % 13} card {i}" for i in range(400)]
    expected, faults = Static.open(base.folder).encode(texts), []

    def work(seed):
        order = np.random.default_rng(seed).permutation(len(texts))
        for part in np.array_split(order, 20):
            if not np.array_equal(base.encode([texts[i] for i in part]), expected[part]):
                faults.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def test_a_text_is_cut_after_its_tokens(tmp_path):
    base = written(tmp_path / "base", vectors(tokens=4))
    np.testing.assert_array_equal(*base.encode(["my card a b", "my card a b lost lost"]))
    np.testing.assert_array_equal(*base.encode(["my " + "a" * 4000, "my " + "a" * 5000 + " card"]))


@pytest.mark.parametrize("content", [None, 3, b"bytes", ["list"]])
def test_what_is_no_text_is_refused(base, content):
    with pytest.raises(InputError, match="number 1 of the call"):
        base.encode(["a", content])


def test_a_lone_surrogate_is_refused_and_named(base):
    with pytest.raises(InputError, match="text number 2 of the call is not Unicode"):
        base.encode(["a", "b", "x \ud800 y"])
    assert base.encode(["x"]).shape == (1, WIDTH)


def test_the_parts_for_training_add_up_to_the_feature(base):
    made = base.vectors
    bags = static.bags(static.opened(made.tokeniser, made.tokens), ODD, made.tokens, len(made.pieces), len(made.pairs))
    for row, (pieces, pairs) in zip(base.encode(ODD), bags, strict=True):
        total = made.table[pieces + pairs].sum(0)
        assert all(i < len(PIECES) for i in pieces)
        assert all(i >= len(PIECES) for i in pairs)
        np.testing.assert_allclose(row, total / max(np.linalg.norm(total), 1e-12), atol=1e-5)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_rounding_is_within_half_a_step(v, d, seed):
    table = np.random.default_rng(seed).normal(size=(v, d)).astype(np.float32) * 10
    table[0] = 0
    made = Vectors.of(b"", 8, table, np.zeros((0, d), np.float32))
    assert (abs(made.table - table) <= abs(table).max(1, keepdims=True) / 254 * 1.001).all()
    assert not made.wrong()


def test_a_folder_round_trips_to_the_same_bytes(base, tmp_path):
    again = written(tmp_path / "again", base.vectors)
    for name in (INDEX, TOKENISER, VECTORS):
        assert (again.folder / name).read_bytes() == (base.folder / name).read_bytes()
    np.testing.assert_array_equal(again.encode(ODD), base.encode(ODD))
    assert again.card.fingerprint == base.card.fingerprint


def test_the_fingerprint_is_of_what_decides(tmp_path):
    one = written(tmp_path / "one")
    static.write(one.folder, vectors(), name="other", source="b", licence="MIT", teacher=None)
    assert Static.open(one.folder).card.fingerprint == one.card.fingerprint
    assert written(tmp_path / "two", vectors(seed=1)).card.fingerprint != one.card.fingerprint
    assert written(tmp_path / "three", vectors(tokens=128)).card.fingerprint != one.card.fingerprint


def used(folder):
    Static.open(folder).encode(["my card"])


def test_any_flipped_byte_is_noticed(base):
    rng = np.random.default_rng(0)
    for name in (INDEX, TOKENISER, VECTORS):
        path = base.folder / name
        good = path.read_bytes()
        for place in rng.choice(len(good), 40, replace=False):
            bad = bytearray(good)
            bad[place] ^= 1 << int(rng.integers(8))
            if name == INDEX and bytes(bad).split() == good.split():
                continue  # a space became another
            path.write_bytes(bytes(bad))
            with pytest.raises(ModelError):
                used(base.folder)
        path.write_bytes(good)
    used(base.folder)


@pytest.mark.parametrize("name", [INDEX, TOKENISER, VECTORS])
def test_a_file_that_is_missing_cut_short_or_a_link_is_refused(base, name):
    path = base.folder / name
    good = path.read_bytes()
    path.write_bytes(good[:-20])
    with pytest.raises(ModelError):
        used(base.folder)
    path.unlink()
    with pytest.raises(NotFound if name == INDEX else ModelError):
        used(base.folder)
    elsewhere = base.folder.parent / "elsewhere"
    elsewhere.write_bytes(good)
    path.symlink_to(elsewhere)
    with pytest.raises(ModelError, match="link"):
        used(base.folder)


def resigned(folder, **change):
    """static.json with other words, and a digest that fits them and the files."""
    said = {**json.loads((folder / INDEX).read_text()), **change}
    if "files" not in change:
        said["files"] = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in (TOKENISER, VECTORS)}
    said.pop("digest")
    said["digest"] = hashlib.sha256(jsontext.write(said).encode()).hexdigest()
    (folder / INDEX).write_text(jsontext.write(said))


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2}, {"format": True}, {"name": ""}, {"name": "a\nb"}, {"source": 3}, {"licence": "x" * 501},
        {"teacher": 5}, {"tokens": 0}, {"tokens": 10**9}, {"tokens": True}, {"width": 8.0}, {"width": 10**12},
        {"pieces": 0}, {"pieces": 10**15}, {"pairs": -1}, {"pairs": 2**60}, {"more": 1}, {"files": {}},
        {"files": {TOKENISER: "0" * 64, VECTORS: "0" * 64, "../x": "0" * 64}},
        {"files": {TOKENISER: "0" * 64, VECTORS: "0" * 63}}, {"files": []}, {"width": 9}, {"pieces": 12}, {"pairs": 32},
    ],
)  # fmt: skip
def test_words_that_cannot_be_are_refused_even_with_a_digest_that_fits(base, change):
    resigned(base.folder)
    used(base.folder)
    resigned(base.folder, **change)
    with pytest.raises(ModelError):
        used(base.folder)


def test_what_is_no_json_is_refused(base):
    for bad in (b"", b"[]", b"{", b'{"format": NaN}', b"\xff", b"[" * 100_000):
        (base.folder / INDEX).write_bytes(bad)
        with pytest.raises(ModelError):
            used(base.folder)
    (base.folder / INDEX).write_bytes(b" " * (static.SIZES[INDEX] + 1))
    with pytest.raises(ModelError, match="larger"):
        used(base.folder)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: a.pop("steps"),
        lambda a: a.update(extra=np.zeros(1)),
        lambda a: a.update(pieces=a["pieces"].astype(np.float32)),
        lambda a: a.update(pieces=a["pieces"][0]),
        lambda a: a.update(pieces=a["pieces"][:, :-1]),
        lambda a: a.update(pieces=a["pieces"][:-1]),
        lambda a: a.update(pairs=a["pairs"][:-1]),
        lambda a: a.update(pairs=a["pairs"][:0]),
        lambda a: a.update(steps=a["steps"][:-1]),
        lambda a: a.update(steps=a["steps"].astype(np.float64)),
        lambda a: a["steps"].__setitem__(3, np.nan),
        lambda a: a["steps"].__setitem__(3, np.inf),
        lambda a: a["steps"].__setitem__(3, -1),
        lambda a: a["steps"].__setitem__(3, 1e30),
    ],
)
def test_tables_that_cannot_be_are_refused(base, spoil):
    arrays = {name: array.copy() for name, array in tensors.load(base.folder / VECTORS).items()}
    spoil(arrays)
    tensors.save(base.folder / VECTORS, arrays)
    resigned(base.folder)
    with pytest.raises(ModelError):
        used(base.folder)


def test_a_tokeniser_that_is_none_or_has_more_pieces_is_refused(base):
    for bad in (b"", b"{}", b"[]", tokeniser().replace(b'"[UNK]": 0', b'"[UNK]": 0, "extra": 5000')):
        (base.folder / TOKENISER).write_bytes(bad)
        resigned(base.folder)
        with pytest.raises(ModelError, match=r"tokeniser|piece number"):
            used(base.folder)


def test_tables_that_cannot_be_are_not_written(tmp_path):
    good = vectors()
    bad = Vectors(good.tokeniser, good.tokens, good.pieces, good.pairs[:3], good.steps)
    with pytest.raises(InputError, match="cannot be written"):
        written(tmp_path / "bad", bad)
    assert not (tmp_path / "bad" / INDEX).exists()


def test_marks_go_and_a_chunk_is_cut_as_a_word_in_a_text():
    """What training does to a tokenizer.json: in byte-level BPE a word inside a text begins with a space."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    from headstart.training.static import unmarked

    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocab = {**letters, "my": 256, "Ġmy": 257, "<s>": 258}
    whole = Tokenizer(models.BPE(vocab=vocab, merges=[("m", "y"), ("Ġ", "my")]))
    whole.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    whole.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 258)])
    whole.decoder = decoders.ByteLevel()
    whole.enable_truncation(3)
    assert whole.encode("a my").ids == [258, letters["a"], 257]
    ours = static.opened(unmarked(whole.to_str().encode()), 256)
    assert static.bags(ours, ["a my"], 256, 259, 0) == [([letters["Ġ"], letters["a"], 257], [])]
