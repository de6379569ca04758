"""Fusing, 8 bits and fewer channels: near the whole, row by row, with facts and refusals."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress_networks import BLOCKS, INNER, picture_network, pictures, text_network, texts
from headstart.compress import channels, fuse, integers, layers, surgery, vocabulary
from headstart.errors import InputError

TEXTS = texts(200)


def unexplained(portable, whole, contents):
    """The share of what distinguishes the contents that is lost."""
    a, e = surgery.encode(portable, contents), surgery.encode(whole, contents)
    return float(((a - e) ** 2).sum() / ((e - e.mean(0)) ** 2).sum())


def test_fusing_changes_nothing_but_the_graph():
    for masked in (False, True):
        whole = text_network(masked=masked)
        fused, facts = fuse.plain(whole)
        np.testing.assert_allclose(surgery.encode(fused, TEXTS), surgery.encode(whole, TEXTS), rtol=0, atol=1e-6)
        assert facts.kept == len(fused.model.graph.node) < facts.of == len(whole.model.graph.node)
        assert [entry.name for entry in fused.model.graph.input] == ["input_ids"]
        assert sum(layer.W.shape == (32, 96) for layer in layers.linears(fused.model)) == BLOCKS
        assert len(whole.model.graph.input) == 1 + masked  # the one given is as it was


def test_a_change_that_moves_features_is_undone():
    def wrong(model):
        table = next(t for t in model.graph.initializer if t.name == "c0")
        table.raw_data = bytes(len(table.raw_data))

    assert fuse.changed(text_network(), wrong) is None


def test_a_mask_that_does_something_else_stays():
    from onnx import helper

    whole = text_network(masked=True)
    model = type(whole.model)()
    model.CopyFrom(whole.model)
    model.graph.node[-1].output[0] = "bare"
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["attention_mask"], ["counted"], to=1),
            helper.make_node("CumSum", ["counted", "features/axis"], ["places"]),
            helper.make_node("ReduceMean", ["places", "features/axis"], ["place"], keepdims=1),
            helper.make_node("Add", ["bare", "place"], ["features"]),
        ]
    )
    fused, _ = fuse.plain(replace(whole, model=model))
    assert [entry.name for entry in fused.model.graph.input] == ["input_ids", "attention_mask"]
    assert unexplained(fused, replace(whole, model=model), TEXTS) < 1e-10


@pytest.mark.parametrize("gated", [False, True])
def test_integers_are_near_and_small(gated):
    whole = fuse.plain(text_network(gated=gated))[0]
    small, facts = integers.quantise(whole, TEXTS[:100])
    assert unexplained(small, whole, TEXTS[100:]) < 0.01
    assert facts.kept == facts.of == len(layers.linears(whole.model)) >= 4 * BLOCKS
    weights = sum(layer.W.size for layer in layers.linears(whole.model))
    assert facts.bytes_before - facts.bytes_after > 2.5 * weights
    values = surgery.arrays(small.model)
    assert (
        max(abs(value.astype(int)).max() for name, value in values.items() if name.endswith("/int8")) == integers.LIMIT
    )
    assert not layers.linears(small.model)


def made(kind):
    whole = text_network(masked=True)
    fused = fuse.plain(whole)[0]
    if kind == "fused":
        return fused
    if kind == "channels":
        return channels.prune(fused, TEXTS, keep=0.5)[0]
    if kind == "integers":
        return integers.quantise(fused, TEXTS)[0]
    small = channels.prune(fused, TEXTS, keep=0.5)[0]
    small = integers.quantise(small, TEXTS)[0]
    return vocabulary.narrow(vocabulary.prune(small, TEXTS, most=0)[0])[0]


@pytest.mark.parametrize("kind", ["fused", "channels", "integers", "all"])
def test_rows_do_not_feel_one_another(kind):
    portable = made(kind)
    session = surgery.session(portable.model)
    draw = np.random.default_rng(0)
    ids = draw.integers(0, 60, (6, 7))
    whole = session.run(["features"], {"input_ids": ids})[0]
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    for i in range(6):
        alone = session.run(["features"], {"input_ids": ids[i : i + 1]})[0]
        np.testing.assert_allclose(alone[0], whole[i], rtol=0, atol=1e-5)
    assert (session.run(["features"], {"input_ids": ids})[0] == whole).all()


def test_made_twice_it_is_the_same():
    assert made("all").model.SerializeToString(deterministic=True) == made("all").model.SerializeToString(
        deterministic=True
    )


def test_smoothing_evens_out_a_loud_channel():
    draw = np.random.default_rng(0)
    x = draw.standard_normal((400, 64)).astype(np.float32)
    x[:, 3] *= 80
    W = draw.standard_normal((64, 32)).astype(np.float32)
    exact = x @ W
    plain, smooth = (integers._constants(x, W, c) for c in (np.ones(64, np.float32), integers.smoothing(x, W)))
    assert integers._error(x, exact, plain) > 5 * integers._error(x, exact, smooth)


def test_what_is_in_integers_passes_through():
    small = integers.quantise(text_network(), TEXTS)[0]
    again, facts = integers.quantise(small, TEXTS)
    assert again is small
    assert facts.of == 0
    with pytest.raises(InputError, match="before 8 bits"):
        channels.prune(small, TEXTS)


@pytest.mark.parametrize("gated", [False, True])
def test_fewer_channels(gated):
    whole = fuse.plain(text_network(gated=gated))[0]
    half, facts = channels.prune(whole, TEXTS, keep=0.5)
    assert (facts.kept, facts.of) == (BLOCKS * INNER // 2, BLOCKS * INNER)
    assert unexplained(half, whole, TEXTS) < 0.2
    quarter, _ = channels.prune(whole, TEXTS, keep=0.25)
    assert unexplained(half, whole, TEXTS) < unexplained(quarter, whole, TEXTS)
    assert surgery.size(quarter) < surgery.size(half) < surgery.size(whole)
    assert [len(pair.down.W) for pair in channels.pairs(half.model)] == [INNER // 2] * BLOCKS


def test_refitting_beats_leaving_out():
    """The same channels with the weights they had give a worse network."""
    whole = fuse.plain(text_network())[0]
    half, _ = channels.prune(whole, TEXTS, keep=0.5)
    bare = surgery.copied(whole)
    for pair, fitted in zip(channels.pairs(whole.model), channels.pairs(half.model), strict=True):
        columns = [int(np.flatnonzero((column == pair.ups[0].W.T).all(1))[0]) for column in fitted.ups[0].W.T]
        channels._sliced(bare.model, pair, np.array(columns), pair.down.W[columns], pair.down.b)
    assert unexplained(half, whole, TEXTS) < 0.5 * unexplained(bare, whole, TEXTS)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), left=st.integers(2, 7))
def test_the_fit_is_least_squares(seed, left):
    draw = np.random.default_rng(seed)
    h, Y = draw.standard_normal((500, 8)) + 1, draw.standard_normal((500, 3))
    Y[:, 0] += 5 * h[:, 2]
    m = channels.Moments(
        500, h.mean(0), Y.mean(0), np.cov(h.T, bias=True), (h - h.mean(0)).T @ (Y - Y.mean(0)) / 500,
        float(((Y - Y.mean(0)) ** 2).sum(1).mean()),
    )  # fmt: skip
    rows, W, b, error = channels._fitted(m, left)
    assert 2 in rows.tolist()
    A = np.column_stack([h[:, rows], np.ones(500)])
    want = np.linalg.lstsq(A, Y, rcond=None)[0]
    residual = ((Y - A @ want) ** 2).sum(1).mean()
    assert ((Y - h[:, rows] @ W - b) ** 2).sum(1).mean() == pytest.approx(residual, rel=1e-3)
    assert error == pytest.approx(residual / m.power, rel=1e-3)


def test_channels_that_do_nothing_leave_without_loss():
    whole = surgery.copied(fuse.plain(text_network())[0])
    for pair in channels.pairs(whole.model):
        rows = np.arange(INNER)
        W = pair.down.W.astype(np.float64)
        W[::2] = 0
        channels._sliced(whole.model, pair, rows, W, pair.down.b.astype(np.float64))
    half, _ = channels.prune(whole, TEXTS, keep=0.5)
    assert unexplained(half, whole, TEXTS) < 1e-3


def test_refusals():
    whole = text_network()
    with pytest.raises(InputError, match="between 0 and 1, not 7"):
        channels.prune(whole, TEXTS, keep=7)
    with pytest.raises(InputError, match="tokens are too few to fit 64 channels"):
        channels.prune(whole, TEXTS[:3])
    with pytest.raises(InputError, match="no feed-forward part"):
        channels.prune(picture_network(), pictures(2))
    with pytest.raises(InputError, match="there are none"):
        integers.quantise(whole, [])
    with pytest.raises(InputError, match="not str"):
        integers.quantise(whole, [b"bytes"])


def test_pictures_in_integers():
    whole = picture_network()
    seen, others = pictures(40), pictures(24, seed=1)
    small, facts = integers.quantise(whole, seen)
    assert facts.of == 3
    assert surgery.size(small) < 0.75 * surgery.size(whole)
    assert unexplained(small, whole, others) < 0.15
    session, feed = surgery.session(small.model), next(surgery.feeds(small, others))[1]
    whole_batch = session.run(["features"], feed)[0]
    for i in range(len(whole_batch)):
        alone = session.run(["features"], {"pixels": feed["pixels"][i : i + 1]})[0]
        np.testing.assert_allclose(alone[0], whole_batch[i], rtol=0, atol=1e-5)
    fused, note = fuse.plain(whole)
    assert fused is whole
    assert "picture" in note.notes[0]
    with pytest.raises(InputError, match="there are none"):
        integers.quantise(whole, [])


def test_the_mean_error_of_a_layer_is_taken_from_its_bias():
    whole = fuse.plain(text_network())[0]
    small = integers.quantise(whole, TEXTS)[0]
    given = [feed for _, feed in surgery.feeds(whole, TEXTS)]
    y = layers.linears(whole.model)[0].y
    exact, found = (surgery.seen(portable, [y], given)[y].mean(0) for portable in (whole, small))
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-5)
