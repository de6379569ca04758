"""Students taught by probabilities: static vectors and the head `mlp`."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from conftest import sentences  # noqa: E402
from headstart.backbones import static as kept  # noqa: E402
from headstart.backbones.static import Static  # noqa: E402
from headstart.errors import InputError  # noqa: E402
from headstart.head import CLASSIFICATION, MULTILABEL, REGRESSION  # noqa: E402
from headstart.heads.linear import Linear  # noqa: E402
from headstart.training import mlp, static  # noqa: E402
from test_static import ODD, PIECES, tokeniser  # noqa: E402

pytestmark = pytest.mark.torch
torch.set_num_threads(1)
SMALL = {"width": 16, "tokens": 32}


def easy(n: int = 150, seed: int = 0):
    """Texts, one-hot (n, 3) smoothed as a teacher's answers are, and the class."""
    texts, labels = zip(*sentences(n, seed), strict=True)
    y = np.unique(labels, return_inverse=True)[1]
    return list(texts), (0.1 / 3 + 0.9 * np.eye(3)[y]).astype(np.float32), y


def learned(texts, P, **options) -> static.Student:
    return static.student(texts, P, tokeniser=tokeniser(), **{**SMALL, **options})


def opened(student: static.Student, folder) -> Static:
    folder.mkdir()
    kept.write(folder, student.vectors, name="student", source="a test", licence="MIT", teacher=None)
    return Static.open(folder)


@pytest.fixture(scope="module")
def student():
    texts, P, _ = easy()
    return learned(texts, P)


def test_the_loss_falls_and_texts_not_seen_are_told_apart(student, tmp_path):
    assert student.losses[-1] < 0.6 * student.losses[0]
    texts, _, y = easy(90, seed=1)
    base = opened(student, tmp_path / "base")
    assert isinstance(student.head, Linear)
    assert (student.head.scores(base.encode(texts)).argmax(1) == y).mean() > 0.8


def test_any_text_can_be_encoded(student, tmp_path):
    X = opened(student, tmp_path / "base").encode(ODD)
    assert np.isfinite(student.head.scores(X)).all()


def test_what_torch_trains_is_what_numpy_answers(student, tmp_path, monkeypatch):
    """The answers while training, of the last weights and without rounding, against those from the folder."""
    texts, P, _ = easy()
    seen = {}

    def spied(torch, bags, T, table, *rest):
        result = trained(torch, bags, T, table, *rest)
        vectors, W, b, _ = result
        added = torch.nn.functional.embedding_bag(
            torch.from_numpy(np.concatenate(bags)),
            torch.from_numpy(vectors),
            torch.from_numpy(np.cumsum([0, *map(len, bags)])[:-1]),
            mode="sum",
        )
        seen["Z"] = (torch.nn.functional.normalize(added, dim=1) @ torch.from_numpy(W) + torch.from_numpy(b)).numpy()
        return result

    trained = static._trained
    monkeypatch.setattr(static, "_trained", spied)
    made = learned(texts, P)
    assert made.vectors.pieces.tobytes() == student.vectors.pieces.tobytes()
    Z = made.head.scores(opened(made, tmp_path / "base").encode(texts))
    assert abs(Z - seen["Z"]).max() < 0.03 * abs(seen["Z"]).max()  # int8
    assert (Z.argmax(1) == seen["Z"].argmax(1)).mean() > 0.98


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(student):
    texts, P, _ = easy()
    for seed, same in ((0, True), (1, False)):
        again = learned(texts, P, seed=seed)
        assert (again.vectors.pairs.tobytes() == student.vectors.pairs.tobytes()) is same
        assert (again.head.W.tobytes() == student.head.W.tobytes()) is same


def test_several_labels(tmp_path):
    texts, _, y = easy()
    P = (0.05 + 0.9 * np.stack([y == 0, y < 2, y == 2], axis=1)).astype(np.float32)
    made = learned(texts, P, task=MULTILABEL)
    found = made.head.scores(opened(made, tmp_path / "base").encode(texts)) > 0
    assert (found == (P > 0.5)).mean() > 0.95


def test_a_number_comes_back_in_its_own_unit(tmp_path):
    texts, _, y = easy()
    numbers = (1000 + 50 * y[:, None]).astype(np.float32)
    made = learned(texts, numbers, task=REGRESSION)
    assert made.head.name == "ridge"
    left = made.head.scores(opened(made, tmp_path / "base").encode(texts)) - numbers
    assert left.std() < 0.3 * numbers.std()
    assert abs(left.mean()) < 10


def test_a_weight_of_nought_is_a_text_left_out(tmp_path):
    texts, P, y = easy()
    wrong = P.copy()
    wrong[::2] = np.roll(P[::2], 1, axis=1)
    weight = np.where(np.arange(len(texts)) % 2, 1, 0).astype(np.float32)
    made = learned(texts, wrong, weight=weight)
    assert (made.head.scores(opened(made, tmp_path / "base").encode(texts)).argmax(1) == y).mean() > 0.9


def test_vectors_begin_as_the_teachers_embeddings(monkeypatch):
    """Untrained, the student's pieces lie as the teacher's embeddings do, but for their mean and their length."""
    E = np.random.default_rng(0).normal(size=(len(PIECES), 12)).astype(np.float32)
    texts, P, _ = easy(30)
    monkeypatch.setattr(static, "RATE", 0.0)
    made = learned(texts, P, start=E)
    ours, theirs = made.vectors.table[: len(PIECES)], E - E.mean(0)
    cosine = [np.linalg.norm(a, axis=1, keepdims=True) for a in (ours, theirs)]
    np.testing.assert_allclose(
        (ours / cosine[0]) @ (ours / cosine[0]).T, (theirs / cosine[1]) @ (theirs / cosine[1]).T, atol=0.03
    )
    assert not made.vectors.pairs.any()


def test_the_file_stays_within_its_megabytes(student):
    texts, P, _ = easy(30)
    for megabytes, pairs in ((8, static.PAIRS), (0.05, 2048), (0.006, 0)):
        made = learned(texts, P, megabytes=megabytes)
        assert made.vectors.size <= megabytes * 1e6
        assert len(made.vectors.pairs) == pairs
    with pytest.raises(InputError, match="allow more"):
        learned(texts, P, megabytes=0.001)
    with pytest.raises(InputError, match="too few for the"):
        learned(texts, P, start=np.ones((3, 4), np.float32))


@pytest.mark.parametrize("rows", [0, 5])
def test_texts_and_answers_that_do_not_fit_are_refused(rows):
    with pytest.raises(InputError, match="one row of answers"):
        learned(["a"] * rows, np.ones((4 if rows else 0, 2), np.float32))
    with pytest.raises(InputError, match="one row of answers"):
        mlp.student(np.ones((rows, 3), np.float32), np.ones((4 if rows else 0, 2), np.float32))


def test_texts_without_a_word_can_be_taught():
    P = np.full((3, 2), 0.5, np.float32)
    made = learned(["", " ", "a"], P)
    assert np.isfinite(made.vectors.table).all()
    assert np.isfinite(made.losses).all()


def test_progress_ends_at_one_and_only_rises():
    told: list[float] = []
    texts, P, _ = easy(20)
    learned(texts, P, progress=told.append)
    mlp.student(np.eye(20, dtype=np.float32), P, hidden=2, progress=told.append)
    half = told.index(1.0)
    assert told[-1] == 1.0
    assert told[: half + 1] == sorted(told[: half + 1])


def ring(n: int = 400, seed: int = 0):
    """Two classes that no line parts: inside and outside a circle."""
    X = np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32) * 0.05 + 3
    y = (((X - 3) ** 2).sum(1) > 0.0035).astype(int)
    return X, np.eye(2, dtype=np.float32)[y], y


def test_the_head_mlp_learns_what_a_line_cannot_part():
    X, P, _ = ring()
    other, _, y = ring(seed=1)
    head = mlp.student(X, P, hidden=32)
    assert (head.scores(other).argmax(1) == y).mean() > 0.9
    flat = mlp.student(X, P, hidden=1)
    assert (flat.scores(other).argmax(1) == y).mean() < 0.85
    assert head.scores(X).tobytes() == mlp.student(X, P, hidden=32).scores(X).tobytes()


def test_the_head_mlp_begins_at_the_linear_head(monkeypatch):
    X, P, _ = ring()
    rng = np.random.default_rng(0)
    start = rng.normal(size=(2, 2)).astype(np.float32), rng.normal(size=2).astype(np.float32)
    monkeypatch.setattr(mlp, "RATE", 0.0)
    for task in (CLASSIFICATION, MULTILABEL):
        np.testing.assert_allclose(
            mlp.student(X, P, start=start, task=task).scores(X), Linear(*start).scores(X), atol=1e-3
        )
    numbers = (X @ start[0][:, :1] * 100 + 7).astype(np.float32)
    line = start[0][:, :1] * 100, np.array([7], np.float32)
    np.testing.assert_allclose(mlp.student(X, numbers, start=line, task=REGRESSION).scores(X), numbers, rtol=1e-3)


def test_the_head_mlp_learns_a_number_and_several_labels():
    X, _, y = ring()
    numbers = (500 + 1e4 * ((X - 3) ** 2).sum(1, keepdims=True)).astype(np.float32)
    left = mlp.student(X, numbers, task=REGRESSION).scores(X) - numbers
    assert left.std() < 0.3 * numbers.std()
    several = mlp.student(X, np.stack([y, 1 - y, y * 0], axis=1).astype(np.float32), task=MULTILABEL).scores(X)
    assert ((several[:, 0] > 0) == y).mean() > 0.9
    assert (several[:, 2] < 0).all()


def test_a_weight_of_nought_is_a_row_left_out_of_the_mlp():
    X, P, y = ring()
    wrong = P.copy()
    wrong[::2] = P[::2, ::-1]
    head = mlp.student(X, wrong, hidden=32, weight=(np.arange(len(X)) % 2).astype(np.float32))
    assert (head.scores(X).argmax(1) == y).mean() > 0.9
