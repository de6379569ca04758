import numpy as np
import pytest

from headstart import selection
from headstart.errors import InputError
from headstart.folds import folds as deal
from headstart.head import CLASSIFICATION, MULTILABEL, REGRESSION
from headstart.selection import Choice, choose


def blobs(n: int, c: int = 3, d: int = 12, noise: float = 0.7, seed: int = 0):
    """X (n, d) around axes of its own for each class, codes (n,), one-hot T (n, c)."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % c
    X = (2 * np.eye(c, d)[y] + noise * rng.normal(size=(n, d))).astype(np.float32)
    return X, y, np.eye(c, dtype=np.float32)[y]


def several(n: int = 120, seed: int = 0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 6)).astype(np.float32)
    return X, (X[:, :3] > 0.3).astype(np.float32)


def numbers(n: int = 120, seed: int = 0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 6)).astype(np.float32)
    return X, (X @ rng.normal(size=(6, 1)) + 0.1 * rng.normal(size=(n, 1)) + 20).astype(np.float32)


def easy(task: str):
    """X, T, folds of two deals in which a few rows always train."""
    if task == CLASSIFICATION:
        X, y, T = blobs(120)
        dealt = deal(y, k=4, repeats=2)
    else:
        X, T = several() if task == MULTILABEL else numbers()
        dealt = deal(T, k=4, repeats=2)
    dealt[:, :5] = -1
    return X, T, dealt


TASKS = pytest.mark.parametrize("task", [CLASSIFICATION, MULTILABEL, REGRESSION])
HEADS = {
    CLASSIFICATION: {"centroid", "nearest", "linear"},
    MULTILABEL: {"nearest", "linear"},
    REGRESSION: {"nearest", "ridge"},
}


def right(choice: Choice, T, task: str) -> float:
    """Accuracy of whole rows, or R2, of the first deal."""
    held = np.isfinite(choice.scores[0]).all(1)
    S, T = choice.scores[0][held], T[held]
    if task == CLASSIFICATION:
        return float((S.argmax(1) == T.argmax(1)).mean())
    if task == MULTILABEL:
        return float(((S > 0) == (T > 0)).all(1).mean())
    return float(1 - ((S - T) ** 2).mean() / T.var())


@TASKS
def test_easy_examples_are_learnt_and_the_choice_is_whole(task):
    X, T, dealt = easy(task)
    choice = choose(X, T, task=task, folds=dealt)
    assert right(choice, T, task) > (0.75 if task == MULTILABEL else 0.93)
    assert choice.scores.shape == (2, *T.shape)
    assert choice.scores.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(choice.scores), np.repeat((dealt == -1)[:, :, None], T.shape[1], 2))
    assert choice.head.name == choice.name
    assert choice.name in HEADS[task]
    assert choice.head.scores(X).shape == T.shape
    assert {one["head"] for one in choice.candidates} == HEADS[task]
    listed = [one["accuracy"] for one in choice.candidates]
    assert listed == sorted(listed, reverse=True)
    for one in choice.candidates:
        assert set(one) == {"head", "strength", "metric", "pool", "views", "accuracy", "low", "high"}
        assert one["low"] <= one["accuracy"] <= one["high"]
        assert one["pool"] is False
    assert choice.candidates[0]["head"] == choice.name
    assert choice.candidates[0]["strength"] == choice.strength
    assert choice.candidates[0]["accuracy"] > (0.8 if task == MULTILABEL else 0.93)
    assert choice.pool is False


@TASKS
def test_why_names_the_winner_its_figure_and_every_other(task):
    X, T, dealt = easy(task)
    choice = choose(X, T, task=task, folds=dealt)
    assert choice.why.startswith(choice.name)
    assert {CLASSIFICATION: "accuracy", MULTILABEL: "F1", REGRESSION: "R²"}[task] in choice.why
    assert f"{choice.candidates[0]['accuracy']:.3f} on folds" in choice.why
    for one in choice.candidates:
        assert one["head"] in choice.why
        assert f"{one['accuracy']:.3f}" in choice.why
    assert "\n" not in choice.why


@TASKS
def test_the_scores_are_of_rows_not_trained_on(task):
    """What row 7 is said to be changes no score of row 7, and does change others."""
    X, T, dealt = easy(task)
    head = {CLASSIFICATION: "centroid", MULTILABEL: "nearest", REGRESSION: "nearest"}[task]
    other = T.copy()
    other[7] = 1 - T[7] if task != REGRESSION else 500
    one, two = (choose(X, targets, task=task, folds=dealt, head=head).scores for targets in (T, other))
    np.testing.assert_allclose(one[:, 7], two[:, 7], atol=1e-5)
    assert not np.allclose(one, two, atol=1e-3, equal_nan=True)


@TASKS
def test_the_same_seed_gives_the_same_bytes(task):
    X, T, dealt = easy(task)
    one, two = (choose(X, T, task=task, folds=dealt, seed=3) for _ in range(2))
    assert one.scores.tobytes() == two.scores.tobytes()
    assert (one.why, one.tie, one.candidates) == (two.why, two.tie, two.candidates)
    for name, array in one.head.arrays().items():
        assert array.tobytes() == two.head.arrays()[name].tobytes()


@pytest.mark.parametrize(("task", "head"), [(task, head) for task, names in HEADS.items() for head in sorted(names)])
def test_a_head_asked_for_is_the_only_one(task, head):
    X, T, dealt = easy(task)
    choice = choose(X, T, task=task, folds=dealt, head=head)
    assert choice.name == choice.head.name == head
    assert {one["head"] for one in choice.candidates} == {head}
    assert choice.tie is None


@pytest.mark.parametrize(
    ("task", "head"),
    [
        (CLASSIFICATION, "ridge"),
        (MULTILABEL, "centroid"),
        (MULTILABEL, "ridge"),
        (REGRESSION, "linear"),
        (REGRESSION, "centroid"),
    ],
)
def test_a_head_that_cannot_do_the_task_is_refused(task, head):
    X, T, dealt = easy(task)
    with pytest.raises(InputError, match=f"'{head}' cannot do {task}"):
        choose(X, T, task=task, folds=dealt, head=head)


@pytest.mark.parametrize("k", [2, 5])
def test_two_classes_of_two_examples(k):
    X, y, T = blobs(4, c=2, noise=0.2)
    choice = choose(X, T, task=CLASSIFICATION, folds=deal(y, k=k, repeats=2))
    assert np.isfinite(choice.scores).all()
    assert (choice.head.scores(X).argmax(1) == y).all()
    new, labels, _ = blobs(60, c=2, noise=0.2, seed=1)
    assert (choice.head.scores(new).argmax(1) == labels).mean() > 0.9


@pytest.mark.parametrize("head", ["auto", "linear"])
def test_no_folds_still_train_a_head(head):
    X, y, T = blobs(6, c=2, noise=0.2)
    choice = choose(X, T, task=CLASSIFICATION, folds=np.full((1, 6), -1), head=head)
    assert np.isnan(choice.scores).all()
    assert (choice.head.scores(X).argmax(1) == y).all()


def test_equal_rows_of_each_class_are_learnt():
    X, y, T = blobs(4, c=4, d=16)
    X, y, T = np.repeat(X, 6, 0), np.repeat(y, 6), np.repeat(T, 6, 0)
    for head in ("auto", "linear"):
        choice = choose(X, T, task=CLASSIFICATION, folds=deal(y, k=3), head=head)
        assert right(choice, T, CLASSIFICATION) == 1
        assert (choice.head.scores(X).argmax(1) == y).all()


@pytest.mark.parametrize("each", [1, 2])
def test_what_names_mean_helps_with_few_examples(each):
    c = 4
    gained = []
    for seed in range(5):
        X, y, T = blobs(each * c, c=c, noise=1.2, seed=seed)
        new, labels, _ = blobs(200, c=c, noise=1.2, seed=seed + 100)
        names = 2 * np.eye(c, 12, dtype=np.float32)
        dealt = deal(y, k=2) if each > 1 else np.full((1, c), -1)
        with_names, without = (
            (choose(X, T, task=CLASSIFICATION, folds=dealt, names=given).head.scores(new).argmax(1) == labels).mean()
            for given in (names, None)
        )
        gained.append(with_names - without)
    assert np.mean(gained) > 0.05


def test_unlabelled_rows_are_used_where_they_help():
    X, y, T = blobs(24, c=4, d=40, noise=0.7, seed=2)
    pool, _, _ = blobs(400, c=4, d=40, noise=0.7, seed=3)
    new, truth, _ = blobs(400, c=4, d=40, noise=0.7, seed=4)
    alone, choice = (
        choose(X, T, task=CLASSIFICATION, folds=deal(y, k=4), head="linear", pool=given) for given in (None, pool)
    )
    assert choice.pool
    assert not alone.pool
    assert "with unlabelled rows" in choice.why.split(";")[0]
    assert [one["pool"] for one in choice.candidates] == [True, False]
    one, two = ((found.head.scores(new).argmax(1) == truth).mean() for found in (alone, choice))
    assert two > one + 0.05


@pytest.mark.parametrize("seed", range(3))
def test_unlabelled_rows_of_noise_are_not_used(seed):
    X, y, T = blobs(80, c=4, seed=seed)
    pool = np.random.default_rng(seed).normal(size=(200, 12)).astype(np.float32)
    alone, choice = (
        choose(X, T, task=CLASSIFICATION, folds=deal(y, k=4), head="linear", pool=given) for given in (None, pool)
    )
    assert not choice.pool
    assert "with unlabelled rows" in choice.why
    assert sorted(one["pool"] for one in choice.candidates) == [False, True]
    np.testing.assert_array_equal(choice.head.arrays()["W"], alone.head.arrays()["W"])
    np.testing.assert_array_equal(choice.scores, alone.scores)


@pytest.mark.parametrize("size", [0, 1])
def test_a_pool_of_next_to_nothing_does_no_harm(size):
    X, y, T = blobs(12, c=3)
    choice = choose(X, T, task=CLASSIFICATION, folds=deal(y, k=2), head="linear", pool=np.ones((size, 12), np.float32))
    assert np.isfinite(choice.head.scores(X)).all()


def test_a_pool_of_another_task_is_left_alone():
    X, T, dealt = easy(MULTILABEL)
    choice = choose(X, T, task=MULTILABEL, folds=dealt, pool=X)
    assert not any(one["pool"] for one in choice.candidates)


def test_more_unlabelled_rows_than_are_used_are_sampled(monkeypatch):
    monkeypatch.setattr(selection, "MOST_POOL", 30)
    asked = []
    monkeypatch.setattr(
        selection, "spread", lambda A, T, U, S: asked.append(U.shape) or np.full((len(U), 3), 1 / 3, np.float32)
    )
    X, y, T = blobs(24)
    choose(X, T, task=CLASSIFICATION, folds=deal(y, k=2), head="linear", pool=blobs(100, seed=1)[0])
    assert set(asked) == {(30, 12)}


@pytest.mark.parametrize(
    ("task", "head"),
    [(CLASSIFICATION, "centroid"), (CLASSIFICATION, "linear"), (MULTILABEL, "linear"), (REGRESSION, "ridge")],
)
def test_row_weights_matter(task, head):
    """Half the rows have wrong targets; with next to no weight they do no harm."""
    X, T, dealt = easy(task)
    wrong = T.copy()
    spoilt = np.random.default_rng(6).permutation(len(T))[: len(T) // 2]
    change = {CLASSIFICATION: lambda t: np.roll(t, 1, 1), MULTILABEL: lambda t: 1 - t, REGRESSION: lambda t: t + 3}
    wrong[spoilt] = change[task](T[spoilt])
    weight = np.ones(len(T), np.float32)
    weight[spoilt] = 1e-5
    scored = []
    for given in (weight, None):
        S = choose(X, wrong, task=task, folds=dealt, head=head, weight=given).head.scores(X)
        if task == REGRESSION:
            scored.append(1 - ((S - T) ** 2).mean() / T.var())
        else:
            scored.append(((S > 0) == (T > 0)).mean() if task == MULTILABEL else (S.argmax(1) == T.argmax(1)).mean())
    assert scored[0] > 0.9
    assert scored[0] > scored[1] + 0.03


@TASKS
def test_of_very_many_rows_a_sample_is_folded_and_all_are_trained_on(task, monkeypatch):
    monkeypatch.setattr(selection, "MOST_FOLDED", 60)
    X, T, dealt = easy(task)
    dealt[:, :5] = 0
    choice = choose(X, T, task=task, folds=dealt, weight=np.ones(len(X), np.float32))
    known = np.isfinite(choice.scores).all(2)
    np.testing.assert_array_equal(known.sum(1), [60, 60])
    np.testing.assert_array_equal(known[0], known[1])
    assert right(choice, T, task) > (0.6 if task == MULTILABEL else 0.9)
    whole = choose(X, T, task=task, folds=dealt, head="nearest")
    assert len(whole.head.arrays()["X"]) == len(X)


def test_many_rows_are_compared_on_one_fold_and_many_neighbours_not_at_all(monkeypatch):
    monkeypatch.setattr(selection, "LARGE", 60)
    monkeypatch.setattr(selection, "MOST_NEAREST", 100)
    X, T, dealt = easy(CLASSIFICATION)
    choice = choose(X, T, task=CLASSIFICATION, folds=dealt)
    assert {one["head"] for one in choice.candidates} == {"centroid", "linear"}
    assert next(one["metric"] for one in choice.candidates if one["head"] == "linear") == "within"
    assert right(choice, T, CLASSIFICATION) > 0.93


def test_candidates_that_chance_could_reorder_are_called_a_tie():
    X, y, T = blobs(60, noise=0.2)
    choice = choose(X, T, task=CLASSIFICATION, folds=deal(y, k=5))
    assert [one["accuracy"] for one in choice.candidates] == [1, 1, 1]
    assert choice.tie is not None
    assert choice.tie.startswith("These examples do not tell ")
    assert choice.tie.endswith(": a tie.")
    assert all(one["head"] in choice.tie for one in choice.candidates)


def test_candidates_far_apart_are_no_tie():
    """A class on both sides of another: means and lines fail, neighbours do not."""
    rng = np.random.default_rng(7)
    side = np.arange(150) % 3
    X = (np.array([[3, 0], [0, 3], [-3, 0]])[side] + 0.3 * rng.normal(size=(150, 2))).astype(np.float32)
    y = (side == 1).astype(int)
    X[:, 1] -= 3 * (rng.integers(0, 2, 150) * 2 * y)  # class 1 above and below, class 0 left and right
    choice = choose(X, np.eye(2, dtype=np.float32)[y], task=CLASSIFICATION, folds=deal(y, k=5))
    assert choice.name == "nearest"
    assert choice.tie is None
    assert choice.candidates[0]["accuracy"] > choice.candidates[1]["high"]


def test_a_class_that_a_fold_never_trains_on_is_scored_all_the_same():
    X, y, T = blobs(20, c=2)
    X, T = X[:19], np.concatenate([T[:19], np.zeros((19, 1), np.float32)], 1)
    T[18] = [0, 0, 1]
    dealt = deal(y[:19], k=3)
    choice = choose(X, T, task=CLASSIFICATION, folds=dealt)
    assert np.isfinite(choice.scores).all()


def test_features_are_read_and_not_written(tmp_path):
    X, T, dealt = easy(CLASSIFICATION)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    one, two = (choose(rows, T, task=CLASSIFICATION, folds=dealt) for rows in (mapped, X))
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-4)
    assert one.candidates == two.candidates


def test_second_views_are_used_where_they_help_and_only_there():
    rng = np.random.default_rng(0)
    y = np.arange(240) % 2
    T = np.eye(2, dtype=np.float32)[y]
    dealt = deal(y, repeats=1, seed=0)
    # a nuisance that a view turns round: seen both ways it cannot mislead
    noise = rng.normal(size=(240, 30)).astype(np.float32)
    X = np.concatenate([noise, (2 * y - 1)[:, None] * 0.5 + rng.normal(size=(240, 1))], 1).astype(np.float32)
    flipped = np.concatenate([-noise, X[:, 30:]], 1)
    helped = choose(X, T, task=CLASSIFICATION, folds=dealt, head="linear", views=flipped)
    assert helped.views
    assert [one["views"] for one in helped.candidates] == [True, False]
    assert "with mirrored views" in helped.why
    weight = np.abs(helped.head.arrays()["W"]).mean(1)
    assert weight[30] > 10 * weight[:30].max()  # what the views contradict carries nothing
    useless = choose(X, T, task=CLASSIFICATION, folds=dealt, head="linear", views=X.copy())
    assert not useless.views


@TASKS
def test_the_choice_can_train_on_other_rows(task):
    """On all rows `train` gives the head itself; on a fold's the scores that were given out of fold."""
    X, T, dealt = easy(task)
    weight = np.random.default_rng(0).uniform(0.5, 2, len(X)).astype(np.float32)
    choice = choose(X, T, task=task, folds=dealt, weight=weight)
    again = choice.train(X, T, weight)
    for name, array in choice.head.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array)
    for fold in range(4):
        out = dealt[0] == fold
        S = choice.train(X[~out], T[~out], weight[~out]).scores(X[out])
        np.testing.assert_allclose(S, choice.scores[0][out], atol=1e-5)


def test_the_choice_trains_with_its_unlabelled_rows():
    X, y, T = blobs(24, c=4, d=40, noise=0.7, seed=2)
    pool = blobs(400, c=4, d=40, noise=0.7, seed=3)[0]
    choice = choose(X, T, task=CLASSIFICATION, folds=deal(y, k=4), head="linear", pool=pool)
    assert choice.pool
    np.testing.assert_array_equal(choice.train(X, T, None).arrays()["W"], choice.head.arrays()["W"])


def test_how_right_scores_are():
    one = np.array([[2, 1], [0, 3], [np.nan, np.nan], [1, 0]], np.float32)
    T = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    np.testing.assert_array_equal(selection.right(one, T, CLASSIFICATION), [1, 0, np.nan, 0])
    several = np.array([[1, -1, 1], [-1, -1, -1], [-1, 1, -1], [np.nan, 1, 1]], np.float32)
    T = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0], [1, 1, 1]], np.float32)
    np.testing.assert_allclose(selection.right(several, T, MULTILABEL), [0.5, 1, 0, np.nan])
    T = np.array([[1], [3], [5]], np.float32)
    number = np.array([[1], [np.nan], [3]], np.float32)
    np.testing.assert_allclose(selection.right(number, T, REGRESSION), [0, np.nan, -4 / T.var()])
    held = np.array([1.0, 2.0, 4.0])[:, None]
    assert 1 + selection.right(held, T, REGRESSION).mean() == pytest.approx(1 - ((held - T) ** 2).mean() / T.var())
