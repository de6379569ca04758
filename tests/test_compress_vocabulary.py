"""Fewer pieces: what is covered stays as it was, anything can still be spelled, what cannot be done is refused."""

import functools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress_networks import WORDS, text_network, texts
from headstart.compress import surgery, tokenisers, vocabulary
from headstart.compress.vocabulary import narrow, prune
from headstart.errors import InputError

KINDS = ("WordPiece", "Unigram", "BPE", "bytes")


@functools.cache
def both(kind):
    whole = text_network(kind)
    return whole, prune(whole, texts(60), most=0)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_covered_texts_keep_their_features(kind):
    whole, small = both(kind)
    covered = texts(60) + [t.upper() if kind == "WordPiece" else t for t in texts(30, seed=1)]
    np.testing.assert_allclose(surgery.encode(small, covered), surgery.encode(whole, covered), rtol=0, atol=1e-6)
    assert surgery.size(small) < 0.98 * surgery.size(whole)
    sizes = [len(json.loads(p.tokeniser)["model"]["vocab"]) for p in (whole, small)]
    assert sizes[1] < sizes[0]


@functools.cache
def tokenisers_of(kind):
    return tuple(surgery.tokeniser(replace(portable, tokens=0)) for portable in both(kind))  # whole texts


LETTERS = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz éü,.'1漢😀"), max_size=20)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(parts=st.lists(st.one_of(st.sampled_from(WORDS), LETTERS), max_size=8))
def test_a_text_of_kept_pieces_is_cut_as_before(kind, parts):
    text = " ".join(parts)
    whole, small = tokenisers_of(kind)
    before, after = ([cut.id_to_token(i) for i in cut.encode(text).ids] for cut in (whole, small))
    if all(small.token_to_id(piece) is not None for piece in before):
        assert after == before
    else:
        assert len(after) >= len(before) + (kind != "Unigram")
    unknown = ("[UNK]", "<unk>")
    assert sum(p in unknown for p in after) <= sum(p in unknown for p in before)
    if kind == "bytes":
        assert small.decode(small.encode(text).ids) == whole.decode(whole.encode(text).ids)


@pytest.mark.parametrize("kind", KINDS)
def test_the_specials_still_stand_around_a_text(kind):
    whole, small = tokenisers_of(kind)
    for text in ("", "card", "zzz"):
        before, after = whole.encode(text).tokens, small.encode(text).tokens
        assert (before[0], before[-1]) == (after[0], after[-1])
    assert small.token_to_id("<mask>") is not None
    assert max(small.get_vocab().values()) == len(small.get_vocab()) - 1


def test_more_pieces_leave_fewer_texts_changed():
    whole = text_network()
    others = ["completely different gardens", "oceans and mountains", "quick fox jumps"]
    E = surgery.encode(whole, others)
    moved = []
    for most in (0, 200, 10_000):
        small, facts = prune(whole, texts(60), most=most)
        assert facts.kept <= max(most, 200) or most == 10_000
        moved.append(float(((surgery.encode(small, others) - E) ** 2).sum()))
    assert moved[0] > 0.1
    assert moved[2] <= min(moved)  # between the two the order is not certain: trained tokenisers differ from run to run
    assert moved[2] < 1e-10
    assert facts.kept == facts.of


def test_the_nearest_come_before_the_frequent():
    E = np.eye(6, 4, dtype=np.float32)
    E[5] = [1, 0.1, 0, 0]
    assert vocabulary.nearest(E, [0], {0}, (0, 1, 2, 3, 4, 5))[0] == 5


def test_facts_tell_the_bytes():
    whole = text_network()
    small, facts = prune(whole, texts(60), most=0)
    assert (facts.bytes_before, facts.bytes_after) == (surgery.size(whole), surgery.size(small))
    assert facts.bytes_before - facts.bytes_after >= 4 * 32 * (facts.of - facts.kept)


@pytest.mark.parametrize(("kind", "near"), [("int8", 1e-2), ("float16", 1e-3)])
def test_a_narrow_table_gives_nearly_the_same(kind, near):
    whole = text_network()
    small, facts = narrow(whole, kind)
    moved = np.abs(surgery.encode(small, texts(40)) - surgery.encode(whole, texts(40))).max()
    assert 0 < moved < near
    saved = facts.of * 32 * 4 * (0.7 if kind == "int8" else 0.5)
    assert surgery.size(small) <= surgery.size(whole) - saved + 400
    with pytest.raises(InputError, match="embedding table"):
        narrow(small, kind)


def test_pruning_after_narrowing_is_refused_with_a_reason():
    with pytest.raises(InputError, match="2 embedding tables"):
        prune(narrow(text_network(), "int8")[0], texts(5))


def _said(change):
    whole = text_network()
    said = json.loads(whole.tokeniser)
    change(said)
    return replace(whole, tokeniser=json.dumps(said).encode())


def test_refusals():
    with pytest.raises(InputError, match="a WordLevel tokeniser cannot be pruned"):
        prune(_said(lambda said: said["model"].update(type="WordLevel")), texts(5))
    with pytest.raises(InputError, match="by chance"):
        tokenisers.read(json.dumps({"model": {"type": "BPE", "vocab": {}, "merges": [], "dropout": 0.1}}).encode())
    with pytest.raises(InputError, match="only a text network"):
        prune(replace(text_network(), modality="image"), texts(5))
    with pytest.raises(InputError, match="int8 or float16, not 'int4'"):
        narrow(text_network(), "int4")


def test_a_network_that_does_more_with_numbers_is_refused():
    from onnx import helper, numpy_helper

    whole = text_network()
    model = type(whole.model)()
    model.CopyFrom(whole.model)
    for output in model.graph.node[-1].output:
        assert output == "features"
    model.graph.node[-1].output[0] = "bare"
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["input_ids"], ["as float"], to=1),
            helper.make_node("ReduceMean", ["as float", "one"], ["number"], keepdims=1),
            helper.make_node("Add", ["bare", "number"], ["features"]),
        ]
    )
    with pytest.raises(InputError, match="more with token numbers"):
        prune(replace(whole, model=model), texts(20), most=0)


def test_numbers_are_changed_wherever_they_stand():
    said = json.loads(text_network("bytes").tokeniser)
    special, size = said["added_tokens"], len(said["model"]["vocab"])
    template = {"type": "TemplateProcessing", "special_tokens": {"<s>": {"ids": [0], "tokens": ["<s>"]}}}
    said["post_processor"] = {"type": "Sequence", "processors": [said["post_processor"], template]}
    for entry in special[:3]:  # the specials behind the others, as some tokenisers have them
        said["model"]["vocab"][entry["content"]] = entry["id"] = entry["id"] + 1000
    for key in ("cls", "sep"):
        said["post_processor"]["processors"][0][key][1] += 1000
    template["special_tokens"]["<s>"]["ids"] = [1000]
    found = tokenisers.read(json.dumps(said).encode())
    assert len(found.pieces) == size + 1  # <mask> stands outside the model
    made, old = tokenisers.rewritten(found, found.closed(found.must))
    made = json.loads(made)
    roberta, again = made["post_processor"]["processors"]
    assert (old[roberta["cls"][1]], old[roberta["sep"][1]]) == (1000, 1002)
    assert [old[number] for number in again["special_tokens"]["<s>"]["ids"]] == [1000]
    assert {old[entry["id"]] for entry in made["added_tokens"]} == {entry["id"] for entry in special}


def test_the_lowest_score_of_unigram_stays():
    vocab = [["<unk>", 0.0], ["a", -1.0], ["bc", -9.0], ["de", -2.0]]
    found = tokenisers.read(json.dumps({"model": {"type": "Unigram", "unk_id": 0, "vocab": vocab}}).encode())
    assert found.must == {0, 1, 2}
    assert found.order == (0, 1, 3, 2)
