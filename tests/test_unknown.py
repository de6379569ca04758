import time
from dataclasses import replace

import numpy as np
import pytest

from headstart import tensors, unknown
from headstart.unitrows import Rows
from headstart.unknown import Unknown, learn


def clusters(n, c, d=32, spread=0.5, seed=0, centres=None):
    """Features around c random directions, and the probabilities of a model that knows the directions."""
    rng = np.random.default_rng(seed)
    if centres is None:
        centres = np.random.default_rng(99).normal(size=(c, d))
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    y = rng.integers(0, len(centres), n)
    X = (centres[y] + spread * rng.normal(size=(n, d)) / np.sqrt(d)).astype(np.float32)
    return X, y, answers(X, c, d), centres


def answers(X, c, d=32):
    centres = np.random.default_rng(99).normal(size=(c, d))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    E = np.exp(8 * (X @ centres.T))
    return (E / E.sum(1, keepdims=True)).astype(np.float32)


def foreign(n, d=32, seed=5):
    """Features around directions that no training example has."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)).astype(np.float32) / np.sqrt(d)


@pytest.mark.parametrize("share", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("n", [400, 5000])
def test_the_chosen_share_of_good_input_is_refused(n, share):
    X, y, P, _ = clusters(n, 8)
    found, _ = learn(X, y, P, share=share)
    fresh, _, Q, _ = clusters(4000, 8, seed=1)
    assert found.refused(fresh, Q).mean() == pytest.approx(share, abs=0.02 if n > 1000 else 0.04)


def test_foreign_input_is_caught_and_the_estimate_says_so():
    X, y, P, _ = clusters(2000, 12, spread=0.6)
    found, caught = learn(X, y, P)
    strange = foreign(2000)
    share = found.refused(strange, answers(strange, 12)).mean()
    assert share > 0.9
    assert caught.low <= caught.caught <= caught.high
    assert caught.caught == pytest.approx(share, abs=0.15)
    assert caught.refused == pytest.approx(0.05, abs=0.01)
    assert sum(n for *_, n in caught.per_class) == 2000
    assert "were never" not in caught.says
    assert "12 classes in 10 rounds" in caught.says
    facts = caught.facts([str(i) for i in range(12)])
    assert set(facts) == {"refused", "caught", "caught_low", "caught_high", "per_class", "says"}
    assert len(facts["per_class"]) == 12


def test_the_estimate_is_what_a_model_without_the_class_does():
    """Hide two classes of six that lie between the others: refit without them, and compare with the estimate."""
    centres = np.random.default_rng(99).normal(size=(6, 32))
    centres = centres / np.linalg.norm(centres, axis=1, keepdims=True) + 0.25
    X, y, _, _ = clusters(1800, 6, spread=0.9, centres=centres)
    P = _crossfit(X, y, 6)
    _, caught = learn(X, y, P)
    truth = []
    for hidden in range(6):
        keep = y != hidden
        codes = y[keep] - (y[keep] > hidden)
        alone, _ = learn(X[keep], codes, _crossfit(X[keep], codes, 5))
        fresh, of, _, _ = clusters(1800, 6, spread=0.9, centres=centres, seed=1)
        strange = fresh[of == hidden]
        truth.append(alone.refused(strange, _fitted(X[keep], codes, 5)(strange)).mean())
    assert caught.caught == pytest.approx(np.mean(truth), abs=0.1)
    assert caught.low <= np.mean(truth) <= caught.high


def _fitted(X, y, c):
    T = np.eye(c)[y]
    W = np.linalg.solve(X.T @ X + np.eye(X.shape[1]), X.T @ T)

    def probabilities(Z):
        E = np.exp(6 * (Z @ W))
        return E / E.sum(1, keepdims=True)

    return probabilities


def _crossfit(X, y, c):
    P = np.empty((len(X), c))
    for i in range(5):
        held = np.arange(len(X)) % 5 == i
        P[held] = _fitted(X[~held], y[~held], c)(X[held])
    return P


def test_doubts_are_those_of_refitted_ridge_regressions():
    from headstart.unknown import _doubt, _Doubts, _slope, _softmax

    rng = np.random.default_rng(0)
    R, y = rng.normal(size=(90, 10)).astype(np.float32) / 3, np.arange(90) % 6
    R[np.arange(90), y] += 1
    hidden_in = np.array([0, 1, 2, 0, 1, 2])
    doubts = _Doubts(R, y, hidden_in, 3)
    Q, of = np.concatenate([R, R[:30] + 0.5]), np.concatenate([y, y[:30]])
    inside = np.arange(120) < 90

    def ridge(rows, row):
        T = np.eye(6)[y[rows]][:, hidden_in != 1]
        mean, rate = R[rows].mean(0), T.mean(0)
        Z = (R[rows] - mean).astype(np.float64)
        return (row - mean) @ np.linalg.solve(Z.T @ Z + np.eye(10), Z.T @ (T - rate)) + rate

    kept = np.flatnonzero(hidden_in[y] != 1)
    S = np.array([ridge(kept, row) for row in Q])
    close = np.array([ridge(kept[kept != i], Q[i]) if i < 90 and hidden_in[of[i]] != 1 else S[i] for i in range(120)])
    good = hidden_in[of] != 1
    column = np.cumsum(hidden_in != 1) - 1
    expected = _doubt(_softmax(_slope(close[good], column[of[good]]) * close))
    # leave-one-out in closed form keeps the mean of all rows, so it differs from refitting by less than 1 / n
    assert np.abs(doubts.without(1, Q, of, inside) - expected).max() < 0.15
    assert np.abs(_doubt(_softmax(_slope(S[good], column[of[good]]) * S)) - expected).max() > 0.5


def test_two_classes_cannot_be_hidden():
    X, y, P, _ = clusters(300, 2)
    found, caught = learn(X, y, P)
    assert caught.caught is None
    assert "With 2 classes none can be hidden" in caught.says
    assert found.refused(foreign(200), answers(foreign(200), 2)).mean() > 0.8


def test_three_classes_are_hidden_one_by_one():
    X, y, P, _ = clusters(300, 3)
    _, caught = learn(X, y, P)
    assert "3 classes in 3 rounds" in caught.says
    assert caught.caught > 0.8


def test_without_labels_distance_decides():
    X, _, _, _ = clusters(500, 5)
    found, caught = learn(X)
    assert caught.caught is None
    assert caught.says.startswith("Without single labels")
    assert found.refused(X, np.full((500, 1), 1e9)).mean() < 0.1
    assert found.refused(foreign(200)).mean() > 0.9


def test_duplicates_are_not_each_others_neighbours():
    X, y, P, _ = clusters(300, 5)
    twice, groups = np.repeat(X, 2, 0), np.repeat(np.arange(300), 2)
    naive, _ = learn(twice, np.repeat(y, 2), np.repeat(P, 2, 0))
    found, _ = learn(twice, np.repeat(y, 2), np.repeat(P, 2, 0), groups=groups)
    fresh, _, Q, _ = clusters(2000, 5, seed=1)
    assert found.refused(fresh, Q).mean() < 0.1 < naive.refused(fresh, Q).mean()


def test_unlabelled_and_untested_rows():
    X, y, P, _ = clusters(200, 4)
    y[:20], P[20:30] = -1, np.nan
    found, _ = learn(X, y, P)
    assert len(found.references) == 180
    with pytest.raises(ValueError, match="no labelled row"):
        learn(X, np.full(200, -1), P)
    with pytest.raises(ValueError, match="needs the probabilities"):
        found.scores(X)
    with pytest.raises(ValueError, match="between 0 and 1"):
        learn(X, y, P, share=1.5)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_hardly_any_rows(n):
    X, y, P, _ = clusters(n, 3)
    found, caught = learn(X, y, P)
    assert np.isfinite(found.threshold)
    assert found.scores(X, P).shape == (n,)
    assert isinstance(caught.says, str)


def test_tiny_data_is_said():
    X, y, P, _ = clusters(8, 2)
    assert "rests on 8 examples" in learn(X, y, P)[1].says


def test_large_sets_are_kept_small_and_every_class_is_in_it():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(20, 32))
    y = np.concatenate([np.arange(20).repeat(3), rng.integers(0, 2, 20_000)])
    X = (centres[y] + 0.1 * rng.normal(size=(len(y), 32))).astype(np.float32)
    P = np.full((len(y), 20), 0.001, np.float32)
    P[np.arange(len(y)), y] = 0.98
    found, _ = learn(X, y, P)
    assert found.references.shape == (4000, 32)
    assert found.refused(X[:60], P[:60]).mean() < 0.1


def test_row_by_row_and_seed_by_seed_the_same():
    X, y, P, _ = clusters(500, 4)
    found, again = learn(X, y, P, seed=3)[0], learn(X, y, P, seed=3)[0]
    assert np.array_equal(found.references, again.references)
    assert found.threshold == again.threshold
    one_by_one = [float(found.scores(X[i : i + 1], P[i : i + 1])[0]) for i in range(5)]
    assert one_by_one == pytest.approx(found.scores(X[:5], P[:5]).tolist(), abs=1e-4)
    assert found.scores(X[:0], P[:0]).shape == (0,)


def test_scale_of_features_does_not_matter():
    X, y, P, _ = clusters(500, 4)
    found = learn(X, y, P)[0]
    assert np.allclose(found.scores(7 * X, P), found.scores(X, P), atol=1e-3)


def test_arrays_bring_it_back():
    X, y, P, _ = clusters(300, 4)
    found = learn(X, y, P)[0]
    again = Unknown.from_arrays(found.arrays())
    assert np.array_equal(again.scores(X, P), found.scores(X, P))
    assert np.array_equal(again.refused(X, P), found.refused(X, P))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("references", np.zeros((0, 4), np.float16)),
        ("references", np.zeros(4, np.float16)),
        ("references", np.full((2, 4), np.inf, np.float16)),
        ("references", np.zeros((2, 4), np.int8)),
        ("centre", np.zeros(3, np.float32)),
        ("spread", np.array([-1.0, 1.0])),
        ("limits", np.array([np.nan, 0.05])),
    ],
)
def test_damaged_arrays_are_refused(name, value):
    X, y, P, _ = clusters(50, 3)
    good = learn(X, y, P)[0].arrays()
    with pytest.raises(ValueError, match="unknown"):
        Unknown.from_arrays({**good, name: value})
    del good[name]
    with pytest.raises(ValueError, match="lacks"):
        Unknown.from_arrays(good)


def test_is_fast():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(77, 384)).astype(np.float32) / 20
    y = rng.integers(0, 77, 10_000)
    X = centres[y] + rng.normal(size=(10_000, 384)).astype(np.float32) / 20
    P = rng.dirichlet(np.full(77, 0.1), 10_000).astype(np.float32)
    start = time.process_time()
    learn(X, y, P)
    assert time.process_time() - start < 2


def memorised(n=400, c=4, seed=0):
    """Features learned from these rows: a fold's own network has its rows further from the others than their place says.

    Gives X of the network that saw all (rows of a class in one point), y, P, folds, and for each fold the rows and the
    features of the network without them.
    """
    X, y, P, _ = clusters(n, c, spread=0.6, seed=seed)
    fold = np.arange(n) % 5
    whole = np.eye(c, X.shape[1])[y] + 0.01 * np.random.default_rng(1).normal(size=X.shape)
    spaces = []
    for part in range(5):
        rows = np.flatnonzero(fold == part)
        space = whole.copy()
        space[rows] = X[rows] @ np.eye(X.shape[1]) * 0.5 + np.eye(c, X.shape[1])[y[rows]]
        spaces.append((rows, space.astype(np.float32)))
    return whole.astype(np.float32), y, P, fold, spaces


def test_learned_features_are_judged_where_the_row_had_no_part():
    """As a network crowds what it saw together, distances among those would refuse nearly every new input."""
    X, y, P, _, spaces = memorised()
    naive, measured = learn(X, y, P)
    found, caught = learn(X, y, P, spaces=spaces)
    fresh, of, Q, _ = clusters(1000, 4, spread=0.6, seed=1)
    new = (fresh * 0.5 + np.eye(4, fresh.shape[1])[of]).astype(np.float32)  # as any of the networks sees what is new
    assert naive.refused(new, Q).mean() > 0.5
    assert found.refused(new, Q).mean() == pytest.approx(0.05, abs=0.05)
    assert measured.caught is not None
    assert (caught.caught, caught.per_class) == (None, ())
    assert "learned from every class" in caught.says
    np.testing.assert_array_equal(found.references, naive.references)


def test_spaces_of_one_and_the_same_network_are_no_spaces_but_for_the_fold():
    """Every row's neighbours are those outside its fold, by hand."""
    X, _, _, _ = clusters(60, 3)
    fold = np.arange(60) % 3
    spaces = [(np.flatnonzero(fold == part), X) for part in range(3)]
    found, _ = learn(X, None, None, spaces=spaces)
    U = X / np.linalg.norm(X, axis=1, keepdims=True)
    S = np.where(fold[:, None] == fold, -2, U @ U.T)
    distance = 1 - np.sort(S, axis=1)[:, -2:].mean(1)
    assert found.centre[0] == pytest.approx(distance.mean(), abs=1e-3)
    assert found.spread[0] == pytest.approx(distance.std(), abs=1e-3)


def test_groups_stay_apart_in_spaces_too():
    X, _, _, _ = clusters(60, 3)
    X = np.repeat(X[:30], 2, axis=0)
    fold = np.arange(60) % 2  # each of a pair in another fold
    spaces = [(np.flatnonzero(fold == part), X) for part in range(2)]
    near, _ = learn(X, spaces=spaces)
    apart, _ = learn(X, spaces=spaces, groups=np.arange(60) // 2)
    assert apart.centre[0] > near.centre[0] + 0.01


def _many(r=3000, d=24, confident=True, spread=0.7):
    X, y, P, _ = clusters(r, 6, d=d, spread=spread)
    found, _ = learn(X, y, P) if confident else learn(X)
    good, _, Q, _ = clusters(300, 6, d=d, spread=spread, seed=1)
    strange = foreign(300, d=d)
    return found, np.concatenate([good, strange]), np.concatenate([Q, answers(strange, 6, d)])


@pytest.mark.parametrize("confident", [True, False])
def test_looking_at_the_neighbourhood_first_refuses_the_same(confident):
    found, X, P = _many(confident=confident)
    assert len(found.references) >= unknown.MANY
    scores = found.scores(X, P)
    assert 0 < (scores > found.threshold).mean() < 1
    for at in (found.threshold, *scores[:20].astype(float), scores.min() - 1.0, scores.max() + 1.0):
        limit = replace(found, threshold=float(at))
        np.testing.assert_array_equal(limit.refused(X, P), scores > np.float32(at))  # at a row's own score too
        for few in (slice(270, 330), slice(0, 1), slice(299, 300), slice(400, 401)):
            for _ in range(2):  # at first without groups
                ones = found.scores(X[few], P[few])
                np.testing.assert_array_equal(limit.refused(X[few], P[few]), ones > np.float32(at))
    assert found.refused(X[:0], P[:0]).shape == (0,)


def test_good_input_is_compared_with_few_references(monkeypatch):
    found, X, P = _many()
    whole = []
    real = Unknown._nearest
    monkeypatch.setattr(Unknown, "_nearest", lambda self, U: whole.append(len(U)) or real(self, U))
    confident = np.flatnonzero(found.scores(X, P) < found.threshold - 2)
    whole.clear()
    found.refused(X[confident[:3]], P[confident[:3]])
    assert not whole
    found.refused(X[[confident[0], -1]], P[[confident[0], -1]])
    assert whole == [1]  # the foreign one


def test_refusals_of_several_models_are_those_of_each():
    models = []
    for seed, n in enumerate((1, 2, 40, 300, 3000)):
        X, y, P, _ = clusters(n, 6, seed=seed, spread=0.7)
        models += [learn(X, y, P)[0], learn(X)[0]]
    models.append(replace(models[4], spread=np.array([0, 1], np.float32)))
    models.append(replace(models[4], spread=np.array([0, 0], np.float32), threshold=-1.0))
    X = np.concatenate([clusters(40, 6, seed=9)[0], foreign(40)])
    P = np.stack([np.roll(answers(X, 6), j, axis=1) for j in range(len(models))], axis=2)
    found = unknown.refusals(models, unknown.unit(X), P)
    for j, one in enumerate(models):
        np.testing.assert_array_equal(found[:, j], one.refused(X, P[:, :, j]))
    assert 0 < found[:, 4].mean() < 1
    assert unknown.refusals(models[1::2][:2], unknown.unit(X), np.full((80, 1, 2), 1e9, np.float32)).shape == (80, 2)


def test_references_may_stay_in_their_file(tmp_path):
    found, X, P = _many()
    tensors.save(tmp_path / "x", found.arrays())
    lean = Unknown.from_arrays(tensors.load(tmp_path / "x", ("references",)))
    assert isinstance(lean.references, tensors.Stored)
    np.testing.assert_array_equal(lean.scores(X, P), found.scores(X, P))
    np.testing.assert_array_equal(lean.refused(X, P), found.refused(X, P))
    np.testing.assert_array_equal(lean.arrays()["references"], found.references)


def test_rounding_otherwise_in_parts_changes_no_answer(monkeypatch):
    found, X, P = _many(confident=False)
    scores, real = found.scores(X, P), Rows.near
    off = np.float32(2e-6)
    monkeypatch.setattr(Rows, "near", lambda self, U, k: real(self, U, k) + off)
    for at in scores[::10].astype(float):
        low = int(np.argmin(np.abs(scores - at)))
        few = slice(low, low + 5)
        expected = found.scores(X[few], P[few]) > np.float32(at)
        np.testing.assert_array_equal(replace(found, threshold=float(at)).refused(X[few], P[few]), expected)
