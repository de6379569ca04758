"""The contract of every head (head.py), checked on each."""

import numpy as np
import pytest

from headstart import heads, tensors
from headstart.errors import NotFound
from headstart.head import REGRESSION, TASKS, checked, unit
from headstart.heads.centroid import Centroid
from headstart.heads.linear import Linear
from headstart.heads.mlp import Mlp
from headstart.heads.nearest import Nearest
from headstart.heads.prior import Prior
from headstart.heads.ridge import Ridge
from headstart.logistic import problem

N, D, C = 60, 7, 3


def data(seed: int = 0):
    """X (N, D), one-hot T (N, C) and numbers (N, 1)."""
    rng = np.random.default_rng(seed)
    y = np.arange(N) % C
    X = (rng.normal(size=(N, D)) + 4 * np.eye(C, D)[y]).astype(np.float32)
    return X, np.eye(C, dtype=np.float32)[y], (X @ rng.normal(size=(D, 1)) + 5).astype(np.float32)


def linear() -> Linear:
    X, T, _ = data()
    weights = problem(X, T).solve(0.03)
    return Linear(weights.W, weights.b)


def mlp() -> Mlp:
    """The linear head with a layer beside it that adds little."""
    head, rng = linear(), np.random.default_rng(5)
    up, down = rng.normal(size=(D, 4)).astype(np.float32), (0.01 * rng.normal(size=(4, C))).astype(np.float32)
    return Mlp(head.W, head.b, up, np.full(4, 0.1, np.float32), down)


FITS = {
    "centroid": lambda: Centroid.fit(*data()[:2]),
    "linear": linear,
    "mlp": mlp,
    "nearest": lambda: Nearest.fit(*data()[:2]),
    "nearest, a number": lambda: Nearest.fit(data()[0], data()[2], number=True),
    "prior": lambda: Prior.of(np.eye(C, D, dtype=np.float32), data()[0]),
    "ridge": lambda: Ridge.fit(data()[0], data()[2], 0.01),
}
LABELS = [kind for kind in FITS if kind not in ("ridge", "nearest, a number")]
each = pytest.mark.parametrize("kind", FITS)


def loaded(kind: str):
    return heads.load(kind.split(",")[0])


@each
def test_a_head_is_found_by_name_and_says_its_tasks(kind):
    head = FITS[kind]()
    assert loaded(kind) is type(head)
    assert head.name == kind.split(",")[0]
    assert head.tasks
    assert head.tasks <= set(TASKS)
    assert (REGRESSION in head.tasks) == (head.name in ("ridge", "nearest", "mlp"))


@pytest.mark.parametrize(("asked", "meant"), [("liner", "linear"), ("rigde", "ridge"), ("nearst", "nearest")])
def test_an_unknown_name_is_answered_with_a_near_one(asked, meant):
    with pytest.raises(NotFound, match=f"no head '{asked}'.*{meant}"):
        heads.load(asked)


def test_every_name_a_user_may_ask_for_loads():
    assert [heads.load(name).name for name in heads.NAMES] == list(heads.NAMES)


@each
@pytest.mark.parametrize("n", [0, 1, 2, N])
def test_scores_have_a_row_each_and_are_finite_single_precision(kind, n):
    head = FITS[kind]()
    S = head.scores(data(1)[0][:n])
    assert S.shape == (n, 1 if "number" in kind or kind == "ridge" else C)
    assert S.dtype == np.float32
    assert np.isfinite(S).all()


@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_found_on_rows_not_seen(kind):
    X, T, _ = data(1)
    assert (FITS[kind]().scores(X).argmax(1) == T.argmax(1)).mean() > 0.9


@pytest.mark.parametrize(("kind", "least"), [("nearest, a number", 0.5), ("ridge", 0.99)])
def test_numbers_are_found_on_rows_not_seen(kind, least):
    X, _, numbers = data()
    train = slice(0, N, 2)
    make = (
        Ridge.fit(X[train], numbers[train], 1e-3)
        if kind == "ridge"
        else Nearest.fit(X[train], numbers[train], 5, number=True)
    )
    left = numbers[1::2] - make.scores(X[1::2])
    assert 1 - left.var() / numbers[1::2].var() > least


@each
def test_arrays_survive_a_file_and_score_the_same_bytes(kind, tmp_path):
    head, X = FITS[kind](), data(1)[0]
    tensors.save(tmp_path / "head.safetensors", head.arrays())
    again = loaded(kind).from_arrays(tensors.load(tmp_path / "head.safetensors"))
    assert again.scores(X).tobytes() == head.scores(X).tobytes()
    tensors.save(tmp_path / "again.safetensors", again.arrays())
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "head.safetensors").read_bytes()


@each
def test_arrays_that_are_missing_or_too_many_are_refused(kind):
    arrays = FITS[kind]().arrays()
    for name in arrays:
        with pytest.raises(ValueError, match="needed"):
            loaded(kind).from_arrays({key: value for key, value in arrays.items() if key != name})
    with pytest.raises(ValueError, match="needed"):
        loaded(kind).from_arrays({**arrays, "extra": np.zeros(1, np.float32)})
    with pytest.raises(ValueError, match="needed"):
        loaded(kind).from_arrays({})


@each
def test_arrays_of_a_wrong_shape_or_type_are_refused(kind):
    arrays = FITS[kind]().arrays()
    for name, array in arrays.items():
        for wrong in (array[None], array[..., 0], array[:0], array.astype("U"), array.astype(complex), array > 0):
            with pytest.raises(ValueError, match=f"array {name} "):
                loaded(kind).from_arrays({**arrays, name: wrong})


@each
def test_arrays_that_do_not_fit_each_other_are_refused(kind):
    arrays = FITS[kind]().arrays()
    first = next(iter(arrays))  # the matrix; what goes with it is a row or a column too long
    for name, array in arrays.items():
        if name != first:
            longer = np.concatenate([array, array[-1:]])
            with pytest.raises(ValueError, match=r"fit|one number"):
                loaded(kind).from_arrays({**arrays, name: longer})


@each
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(kind, bad):
    arrays = FITS[kind]().arrays()
    for name, array in arrays.items():
        spoilt = array.astype(np.float32)
        spoilt.flat[-1] = bad
        with pytest.raises(ValueError, match=f"array {name} holds values that are not finite"):
            loaded(kind).from_arrays({**arrays, name: spoilt})


@pytest.mark.parametrize("pair", [(0, 0), (-1, 0), (N + 1, 0), (5, 2), (5, -1)])
def test_a_number_of_neighbours_that_cannot_be_is_refused(pair):
    arrays = FITS["nearest"]().arrays()
    with pytest.raises(ValueError, match="do not fit"):
        Nearest.from_arrays({**arrays, "kind": np.array(pair, np.int32)})


@each
def test_rows_are_scored_one_by_one(kind):
    """In another order or in parts the scores are those of the same rows."""
    head, X = FITS[kind](), data(1)[0]
    order = np.random.default_rng(2).permutation(N)
    S = head.scores(X)
    np.testing.assert_allclose(head.scores(X[order]), S[order], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([head.scores(X[:7]), head.scores(X[7:])]), S, rtol=1e-5, atol=1e-5)


@each
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e6, 1e15, -1e15])
def test_extreme_features_score_finite(kind, size):
    X = np.full((3, D), size, np.float32)
    X[1, ::2] = 0
    assert np.isfinite(FITS[kind]().scores(X)).all()


@each
def test_scoring_leaves_features_and_head_as_they_were(kind):
    head, X = FITS[kind](), data(1)[0]
    before, kept = X.copy(), {name: array.copy() for name, array in head.arrays().items()}
    head.scores(X)
    np.testing.assert_array_equal(X, before)
    for name, array in head.arrays().items():
        np.testing.assert_array_equal(array, kept[name])


@pytest.mark.parametrize("kind", ["centroid", "ridge"])
def test_a_weight_is_a_repeated_target(kind):
    X, T, numbers = data()
    times = np.random.default_rng(3).integers(1, 4, N)
    weight, many = times.astype(np.float32), np.repeat(np.arange(N), times)
    if kind == "ridge":
        one, two = Ridge.fit(X, numbers, 0.1, weight), Ridge.fit(X[many], numbers[many], 0.1)
        np.testing.assert_allclose(one.W, two.W, atol=1e-3)
        np.testing.assert_allclose(one.b, two.b, atol=1e-2)
    else:
        centred = X - X.mean(0)
        means = Centroid.fit(X, T, weight).means
        np.testing.assert_allclose(means, unit(T[many].T @ unit(centred)[many]), atol=1e-5)
        assert not np.allclose(means, Centroid.fit(X, T).means, atol=1e-3)


def test_ridge_is_that_of_scikit_learn():
    from sklearn.linear_model import Ridge as Reference

    X, _, numbers = data()
    strength = 0.2
    penalty = strength * float(((X - X.mean(0)) ** 2).sum(1).mean())
    theirs = Reference(alpha=penalty).fit(X.astype(float), numbers[:, 0])
    np.testing.assert_allclose(Ridge.fit(X, numbers, strength).scores(X)[:, 0], theirs.predict(X), atol=1e-3)


def test_one_row_and_constant_features_can_be_fitted():
    X, T, numbers = data()
    for rows in (X[:1], np.ones((1, D), np.float32)):
        for head in (Centroid.fit(rows, T[:1]), Nearest.fit(rows, T[:1]), Ridge.fit(rows, numbers[:1], 0.1)):
            assert np.isfinite(head.scores(X)).all()
    np.testing.assert_allclose(Ridge.fit(X[:1], numbers[:1], 0.1).scores(X), numbers[0, 0], atol=1e-4)


def test_nearest_asks_the_k_nearest_and_blocks_do_not_matter(monkeypatch):
    X, T, _ = data()
    other = data(1)[0]
    near = unit(other) @ unit(X).T
    one = Nearest.fit(X, T, 1)
    assert (one.scores(other).argmax(1) == T[near.argmax(1)].argmax(1)).all()
    ten = Nearest.fit(X, T)
    assert ten.k == 10
    whole = ten.scores(other)
    monkeypatch.setattr("headstart.heads.nearest.BLOCK", 7)
    np.testing.assert_allclose(ten.scores(other), whole, atol=1e-5)


def test_mlp_is_the_linear_head_and_what_its_units_add():
    head, X = mlp(), data(1)[0]
    expected = [
        sum(max(x @ u + e, 0) * o for u, e, o in zip(head.up.T, head.bend, head.down, strict=True)) for x in X
    ] + linear().scores(X)
    np.testing.assert_allclose(head.scores(X), expected, atol=1e-4)
    still = Mlp(head.W, head.b, head.up, head.bend, head.down * 0)
    np.testing.assert_array_equal(still.scores(X), linear().scores(X))
    assert "mlp" not in heads.NAMES  # it is taught by a model, and not fitted


def test_prior_without_other_texts_is_centred_on_the_names():
    names = np.random.default_rng(4).normal(size=(C, D)).astype(np.float32)
    assert (Prior.of(names).scores(names).argmax(1) == np.arange(C)).all()
    np.testing.assert_array_equal(Prior.of(names).centre, Prior.of(names, np.zeros((0, D), np.float32)).centre)
    shifted = Prior.of(names, names + 100)
    assert (shifted.scores(names + 100).argmax(1) == np.arange(C)).all()


def test_checked_gives_single_precision_in_the_order_asked_for():
    b, a = checked({"a": np.arange(3), "b": np.ones((2, 2))}, b=2, a=1)
    assert a.dtype == b.dtype == np.float32
    assert (a.shape, b.shape) == ((3,), (2, 2))


def test_unit_rows_have_length_one_and_zero_stays_zero():
    lengths = np.linalg.norm(unit(np.array([[3, 4], [0, 0], [1e-6, 0]], np.float32)), axis=1)
    np.testing.assert_allclose(lengths, [1, 0, 1], atol=1e-6)


def test_where_the_middle_of_the_features_lies_makes_no_difference_to_centroids():
    X, T, _ = data()
    np.testing.assert_allclose(Centroid.fit(X + 50, T).scores(X + 50), Centroid.fit(X, T).scores(X), atol=1e-2)
