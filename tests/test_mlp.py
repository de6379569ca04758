"""The head `mlp`: the contract of every head, on arrays made by hand; training it is in test_torch_static.py."""

import numpy as np
import pytest

from headstart import heads, tensors
from headstart.folds import folds
from headstart.head import TASKS
from headstart.heads.linear import Linear
from headstart.heads.mlp import Mlp
from headstart.selection import choose

N, D, H, C = 20, 6, 5, 3


def made(seed: int = 0) -> Mlp:
    rng = np.random.default_rng(seed)
    shapes = ((D, C), (C,), (D, H), (H,), (H, C))
    return Mlp(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))


def rows(seed: int = 1):
    return np.random.default_rng(seed).normal(size=(N, D)).astype(np.float32)


def test_it_is_found_by_name_but_no_user_may_ask_for_it():
    assert heads.load("mlp") is Mlp
    assert "mlp" not in heads.NAMES
    assert Mlp.tasks == set(TASKS)


def test_scores_are_what_the_definition_says():
    head, X = made(), rows()
    expected = [
        [
            sum(max(0.0, float(x @ head.up[:, h] + head.bend[h])) * head.down[h, c] for h in range(H))
            + float(x @ head.W[:, c] + head.b[c])
            for c in range(C)
        ]
        for x in X
    ]
    S = head.scores(X)
    assert (S.shape, S.dtype) == ((N, C), np.float32)
    np.testing.assert_allclose(S, expected, atol=1e-4)
    assert head.scores(X[:0]).shape == (0, C)


def test_without_its_last_layer_it_is_the_linear_head():
    head = made()
    flat = Mlp(head.W, head.b, head.up, head.bend, np.zeros((H, C), np.float32))
    np.testing.assert_array_equal(flat.scores(rows()), Linear(head.W, head.b).scores(rows()))
    assert not np.allclose(head.scores(rows()), flat.scores(rows()))


def test_it_bends():
    one = np.ones((1, 1), np.float32)
    zero = np.zeros(1, np.float32)
    bent = Mlp(0 * one, zero, np.array([[1, -1]], np.float32), np.zeros(2, np.float32), np.ones((2, 1), np.float32))
    np.testing.assert_array_equal(bent.scores(np.array([[-2], [0], [3]], np.float32))[:, 0], [2, 0, 3])  # |x|


def test_arrays_survive_a_file(tmp_path):
    tensors.save(tmp_path / "head.safetensors", made().arrays())
    again = Mlp.from_arrays(tensors.load(tmp_path / "head.safetensors"))
    assert again.scores(rows()).tobytes() == made().scores(rows()).tobytes()


def test_arrays_that_are_missing_wrong_or_not_finite_are_refused():
    arrays = made().arrays()
    for name, array in arrays.items():
        with pytest.raises(ValueError, match="needed"):
            Mlp.from_arrays({key: value for key, value in arrays.items() if key != name})
        for wrong in (array[None], array[..., 0], array[:0], array.astype("U"), array > 0):
            with pytest.raises(ValueError, match=f"array {name} "):
                Mlp.from_arrays({**arrays, name: wrong})
        with pytest.raises(ValueError, match="do not fit"):
            Mlp.from_arrays({**arrays, name: np.concatenate([array, array[-1:]])})
        if array.ndim == 2:
            with pytest.raises(ValueError, match="do not fit"):
                Mlp.from_arrays({**arrays, name: np.concatenate([array, array[:, -1:]], axis=1)})
        for bad in (np.nan, np.inf):
            spoilt = array.copy()
            spoilt.flat[-1] = bad
            with pytest.raises(ValueError, match="not finite"):
                Mlp.from_arrays({**arrays, name: spoilt})
    with pytest.raises(ValueError, match="needed"):
        Mlp.from_arrays({**arrays, "extra": np.zeros(1, np.float32)})


def test_rows_are_scored_one_by_one_and_extremes_stay_finite():
    head, X = made(), rows()
    S = head.scores(X)
    np.testing.assert_allclose(np.concatenate([head.scores(x[None]) for x in X]), S, atol=1e-5)
    for size in (0.0, 1e-30, 1e6, 1e15, -1e15):
        assert np.isfinite(head.scores(np.full((2, D), size, np.float32))).all()


def test_auto_does_not_pick_it():
    y = np.arange(60) % C
    X = (np.random.default_rng(0).normal(size=(60, D)) + 3 * np.eye(C, D)[y]).astype(np.float32)
    choice = choose(X, np.eye(C, dtype=np.float32)[y], task="classification", folds=folds(y), head="auto")
    assert all(candidate["head"] != "mlp" for candidate in choice.candidates)
