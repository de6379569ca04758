"""The whole way down, on the embedded backbone: smaller and near."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from compress_networks import texts
from headstart.backbones import minilm
from headstart.backbones.minilm import MiniLM
from headstart.compress import channels, fuse, integers, layers, surgery, vocabulary

here = pytest.mark.skipif(
    importlib.util.find_spec(minilm.MODULE) is None, reason="the weights of all-MiniLM-L6-v2 are not installed"
)
SEEN, OTHERS = texts(250), texts(60, seed=1)


def kept(small, whole):
    a, e = surgery.encode(small, OTHERS), surgery.encode(whole, OTHERS)
    return 1 - ((a - e) ** 2).sum() / ((e - e.mean(0)) ** 2).sum()


@pytest.fixture(scope="module")
def whole():
    return fuse.plain(MiniLM(cut="1+max2").portable())[0]


@here
def test_the_parts_are_found(whole):
    assert surgery.encode(whole, OTHERS) == pytest.approx(MiniLM(cut="1+max2").encode(OTHERS), abs=1e-6)
    assert [layer.W.shape for layer in layers.linears(whole.model)] == 2 * [
        (384, 1152), (384, 384), (384, 1536), (1536, 384),
    ]  # fmt: skip
    assert [len(pair.down.W) for pair in channels.pairs(whole.model)] == [1536, 1536]
    assert all(pair.stream for pair in channels.pairs(whole.model))


@here
def test_all_the_way_down(whole):
    half, _ = channels.prune(whole, SEEN, keep=0.25)
    assert kept(half, whole) > 0.95
    small, _ = integers.quantise(half, SEEN)
    assert kept(small, half) > 0.97
    few, facts = vocabulary.prune(small, SEEN, most=4_000)
    assert facts.kept == 4_000
    np.testing.assert_allclose(surgery.encode(few, SEEN), surgery.encode(small, SEEN), rtol=0, atol=1e-6)
    last, _ = vocabulary.narrow(few)
    assert kept(last, few) > 0.998
    assert surgery.size(last) < surgery.size(whole) / 12
    session = surgery.session(last.model)
    ids = np.random.default_rng(0).integers(5, 4_000, (8, 11))
    batch = session.run(["features"], {"input_ids": ids})[0]
    for i in range(8):
        np.testing.assert_allclose(session.run(["features"], {"input_ids": ids[i : i + 1]})[0][0], batch[i], atol=1e-5)


@here
def test_unseen_words_are_spelled(whole):
    few, _ = vocabulary.prune(whole, ["card", "top up"], most=0)
    cut = surgery.tokeniser(replace(few, tokens=0))
    assert cut.encode("Cardinal", add_special_tokens=False).tokens[0] == "card"
    assert cut.encode("qx", add_special_tokens=False).tokens == ["q", "##x"]
    strange = "Straße naïve 12345 漢字 ?! \U0001f600"
    unknown = [words.encode(strange).tokens.count("[UNK]") for words in (cut, surgery.tokeniser(whole))]
    assert unknown[0] == unknown[1]


@here
def test_the_published_int8_network_takes_the_vocabulary_too():
    whole = MiniLM("int8", "1").portable()
    assert integers.quantise(whole, SEEN)[0] is whole
    small = vocabulary.narrow(vocabulary.prune(whole, SEEN, most=3_000)[0], "float16")[0]
    assert kept(small, whole) > 0.999
