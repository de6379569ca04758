"""Cutting: halves composed are the whole, features are what NumPy makes of the states, and nothing above is kept."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from headstart.errors import InputError
from headstart.graph import cut, flow, freeing, reading, shapes, taps
from small_graphs import Graph, convolutions, transformer

TEXT = {"input_ids": np.random.default_rng(0).integers(0, 50, (4, 6)).astype(np.int64)}
SIDES = {name: shapes.side(name, 4, 6) for name in ("attention_mask", "token_type_ids")}
PICTURES = {"input": np.random.default_rng(0).uniform(-1, 1, (4, 3, 32, 32)).astype(np.float32)}
MADE = {
    "post": (lambda: transformer(3)[0], {**TEXT, **SIDES}),
    "pre": (lambda: transformer(3, pre=True)[0], {**TEXT, **SIDES}),
    "opset13": (lambda: transformer(2, opset=13)[0], {**TEXT, **SIDES}),
    "convolutions": (lambda: convolutions()[0], PICTURES),
    "one by one": (lambda: freeing.freed(convolutions(batch=1, flat="Reshape")[0]), PICTURES),
}


def run(model, feed, *, checked=True):
    if checked:
        onnx.checker.check_model(model)
    session = shapes.session(model, None)
    return dict(
        zip([o.name for o in session.get_outputs()], session.run(None, {i.name: feed[i.name] for i in session.get_inputs()}), strict=True)
    )  # fmt: skip


def places(model):
    found = taps.anatomy(model)
    return [*found.taps, found.top]


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


@pytest.fixture(params=MADE)
def made(request):
    build, feed = MADE[request.param]
    model = build()
    return model, feed, places(model)


def test_halves_composed_are_the_whole(made):
    model, feed, found = made
    whole = run(model, feed)
    for tap in found[:-1]:
        below, above = cut.halves(model, tap)
        states = run(below, feed, checked=False)  # shapes are not declared
        composed = run(above, {**feed, **states}, checked=False)
        for name, value in composed.items():
            assert np.abs(value - whole[name]).max() <= 1e-5
        weights = [{tensor.name for tensor in half.graph.initializer} for half in (below, above)]
        assert above.graph.input[0].name == tap.tensor == below.graph.output[0].name
        assert weights[0]
        assert weights[1] or tap is found[-2]
        assert all(value.name != flow.data(model).name for value in above.graph.input)


def test_features_are_pooled_states_of_unit_length(made):
    model, feed, found = made
    data = {name: value for name, value in feed.items() if name not in flow.SIDES}
    for tap in found:
        states = run(cut.states(model, [tap.name], found), data)[f"states {tap.name}"]
        assert states.ndim == 3
        assert states.shape[::2] == (4, tap.width)
        got = run(cut.features(model, tap.name, found), data)["features"]
        assert np.abs(got - unit(states.mean(1))).max() <= 1e-5
        if tap.name != "top":
            got = run(cut.features(model, f"max{tap.name}", found), data)["features"]
            assert np.abs(got - unit(states.max(1))).max() <= 1e-5


def test_several_taps_in_one_pass_are_those_one_by_one(made):
    model, feed, found = made
    data = {name: value for name, value in feed.items() if name not in flow.SIDES}
    names = [tap.name for tap in found] + ["max0"]
    whole = run(cut.features(model, "+".join(names), found), data)["features"]
    alone = [run(cut.features(model, name, found), data)["features"] for name in names]
    assert np.abs(whole - np.concatenate(alone, axis=1) / np.sqrt(len(names))).max() <= 1e-6
    assert np.allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)


def test_what_is_above_is_gone(made):
    model, _, found = made
    sizes = [cut.features(model, tap.name, found).ByteSize() for tap in found[:-1]]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] <= 1.2 * model.ByteSize()
    small = cut.features(model, found[0].name, found)
    held = sum(reading.count(t) for t in small.graph.initializer if t.data_type == 1 and len(t.dims))
    assert held == found[0].parameters
    assert [o.name for o in small.graph.output] == ["features"]
    assert len(small.graph.input) == 1
    reading.check(small)


@settings(max_examples=20, deadline=None)
@given(st.permutations(["0", "max1", "2", "top", "max2"]), st.integers(1, 5))
def test_any_cut_of_known_parts_can_be_made(names, count):
    model, _ = convolutions()
    found = places(model)
    chosen = "+".join(names[:count])
    got = run(cut.features(model, chosen, found), PICTURES)["features"]
    assert got.shape == (4, sum(tap.width for tap, _ in cut.parts(chosen, found)))
    assert np.isfinite(got).all()


@pytest.mark.parametrize("name", ["9", "max9", "maxtop", "0+0", "", "0+", "top top", "max"])
def test_other_cuts_are_refused(name):
    model, _ = convolutions()
    with pytest.raises(InputError, match=r"cannot be made|no tap"):
        cut.features(model, name, places(model))
    with pytest.raises(InputError, match="no tap"):
        cut.states(model, ["9"], places(model))


def test_token_numbers_may_have_another_name_and_width():
    model, _ = transformer(2)
    model.graph.input[0].type.tensor_type.elem_type = 6
    found = places(model)
    small = cut.features(model, "1", found)
    assert (small.graph.input[0].name, flow.kind(small.graph.input[0])) == ("input_ids", 7)
    other, _ = transformer(2)
    want = run(cut.features(other, "1", found), TEXT)["features"]
    assert np.abs(run(small, TEXT)["features"] - want).max() <= 1e-6


def test_a_tap_that_is_no_joint_has_no_halves():
    model, _ = transformer(2)
    inner = next(node.output[0] for node in model.graph.node if node.op_type == "Softmax")
    with pytest.raises(InputError, match="is no joint"):
        cut.halves(model, taps.Found("7", inner, "tokens", 6, 0, 0.5))
    found = places(model)
    with pytest.raises(InputError, match="nothing is above"):
        cut.halves(model, found[-1])


@pytest.mark.parametrize("kind", ["post", "pre", "opset13"])
def test_side_inputs_made_inside_are_those_given_from_outside(kind):
    model, feed = MADE[kind][0](), MADE[kind][1]
    whole = run(model, feed)["last_hidden_state"]
    got = run(cut.features(model, "top", places(model)), TEXT)["features"]
    assert np.abs(got - unit(whole.mean(1))).max() <= 1e-5


def test_positions_are_counted_from_nought():
    g = Graph()
    ids, at = (g.given(name, TensorProto.INT64, ["n", "t"]) for name in ("input_ids", "position_ids"))
    g.op("Add", g.op("Gather", g.weight(50, 40), ids), g.op("Gather", g.weight(64, 40), at), out="y")
    model = g.model("y", rank=3)
    whole = run(model, {**TEXT, "position_ids": np.tile(np.arange(6), (4, 1))})["y"]
    found = taps.Found("top", "y", "tokens", 40, 0, 1.0)
    assert np.abs(run(cut.states(model, ["top"], [found]), TEXT)["states top"] - whole).max() <= 1e-6


def test_what_was_cut_can_be_cut_again_and_again(made):
    model, feed, found = made
    data = {name: value for name, value in feed.items() if name not in flow.SIDES}
    whole = cut.features(model, f"{found[-2].name}+max{found[-2].name}", found)
    expected = run(whole, data)["features"]
    for _ in range(3):
        top = taps.anatomy(whole).top
        assert top is not None
        whole = cut.features(whole, "top", [top])
        assert np.abs(run(whole, data)["features"] - expected).max() <= 1e-6
