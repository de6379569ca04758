"""What training lowers, against torch's own losses and the published formula worked out in numpy."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch.nn import functional  # noqa: E402

from headstart.head import CLASSIFICATION, MULTILABEL, REGRESSION  # noqa: E402
from headstart.training.losses import TEMPERATURE, contrast, wrong  # noqa: E402

pytestmark = pytest.mark.torch
torch.set_num_threads(1)


def drawn(b: int, c: int, d: int, seed: int = 0):
    """Scores (b, c), one-hot (b, c), soft shares (b, c), features (b, d)."""
    rng = np.random.default_rng(seed)
    Z, F = rng.normal(size=(b, c)).astype(np.float32), rng.normal(size=(b, d)).astype(np.float32)
    T = np.eye(c, dtype=np.float32)[rng.integers(0, c, b)]
    soft = rng.dirichlet(np.ones(c), b).astype(np.float32)
    return tuple(torch.from_numpy(one) for one in (Z, T, soft, F))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(2, 6), st.integers(0, 99))
def test_one_label_is_torchs_cross_entropy_also_of_shares(b, c, seed):
    Z, T, soft, _ = drawn(b, c, 2, seed)
    for targets in (T, soft):
        expected = functional.cross_entropy(Z, targets, reduction="none")
        torch.testing.assert_close(wrong(Z, targets, CLASSIFICATION), expected, atol=1e-5, rtol=1e-5)
    codes = functional.cross_entropy(Z, T.argmax(1), reduction="none")
    torch.testing.assert_close(wrong(Z, T, CLASSIFICATION), codes, atol=1e-5, rtol=1e-5)


def test_several_labels_and_a_number():
    Z, _, soft, _ = drawn(7, 4, 2)
    T = (soft > 0.2).float()
    expected = functional.binary_cross_entropy(Z.sigmoid(), T, reduction="none").mean(1)
    torch.testing.assert_close(wrong(Z, T, MULTILABEL), expected, atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(
        wrong(torch.tensor([[1.5], [0.0]]), torch.tensor([[1.0], [2.0]]), REGRESSION), [0.25, 4.0]
    )


def by_hand(F, y, weight):
    """Khosla et al. (2020), equation 2, row by row and pair by pair; a pair and a row count by their weights."""
    F = F / np.linalg.norm(F, axis=1, keepdims=True)
    n, rows, counted = len(F), [], []
    for i in range(n):
        others = [a for a in range(n) if a != i]
        below = sum(np.exp(F[i] @ F[a] / TEMPERATURE) for a in others)
        partners = [p for p in others if y[p] == y[i] and weight[p] > 0]
        if partners:
            logs = [weight[p] * np.log(np.exp(F[i] @ F[p] / TEMPERATURE) / below) for p in partners]
            rows.append(-sum(logs) / sum(weight[p] for p in partners))
            counted.append(weight[i])
    return float(np.dot(rows, counted) / max(sum(counted), 1e-6)) if rows else 0.0


@pytest.mark.parametrize("y", [[0, 0, 1, 1, 1], [0, 0, 0, 1, 2], [0, 1, 2, 3, 0]])
@pytest.mark.parametrize("weight", [[1, 1, 1, 1, 1], [1, 3, 0.5, 2, 1], [0, 1, 1, 1, 1]])
def test_the_contrast_is_the_published_formula(y, weight):
    F = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    found = contrast(torch.tensor(F), torch.eye(4)[y], torch.tensor(weight, dtype=torch.float32))
    assert float(found) == pytest.approx(by_hand(F.astype(np.float64), y, weight), rel=1e-4)


def test_rows_without_a_partner_count_nothing():
    F = torch.from_numpy(np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)).requires_grad_()
    alone = contrast(F, torch.eye(4), torch.ones(4))
    alone.backward()
    assert float(alone.detach()) == 0
    assert not F.grad.any()
    # one lonely row more is in the denominators alone: the mean is still over the two that have a partner
    y, weight = [0, 0, 1], [1.0, 1.0, 100.0]
    found = contrast(F[:3].detach(), torch.eye(2)[y], torch.tensor(weight))
    assert float(found) == pytest.approx(by_hand(F[:3].detach().numpy().astype(np.float64), y, weight), rel=1e-4)


def test_the_size_of_the_weights_does_not_matter():
    _, T, _, F = drawn(12, 3, 4)
    one, other = (contrast(F, T, torch.full((12,), size)) for size in (1.0, 1e-4))
    assert float(one) > 0.1
    assert float(one) == pytest.approx(float(other), rel=1e-3)


def test_several_labels_attract_by_what_they_share():
    """{a, b} beside {a}, {c} and {a, b}: shares of 1/2, 0 and 1 of all their labels, from both sides."""
    F = np.random.default_rng(3).normal(size=(5, 3))
    T = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [1, 1, 0], [1, 0, 0]], np.float64)
    U = F / np.linalg.norm(F, axis=1, keepdims=True)
    S = U @ U.T / TEMPERATURE
    np.fill_diagonal(S, -np.inf)
    logs = S - np.log(np.exp(S).sum(1, keepdims=True))
    both = T @ T.T
    alike = both / (T.sum(1)[:, None] + T.sum(1) - both)
    np.fill_diagonal(alike, 0)
    np.fill_diagonal(logs, 0)
    total = alike.sum(1)
    expected = (-(alike * logs).sum(1)[total > 0] / total[total > 0]).mean()
    found = contrast(
        torch.tensor(F, dtype=torch.float32), torch.tensor(T, dtype=torch.float32), torch.ones(5), several=True
    )
    assert float(found) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1.0, 1e4])
def test_gradients_are_finite(scale):
    Z, T, soft, F = drawn(8, 3, 5)
    F[1] = F[0]  # equal rows
    for targets in (T, soft, (soft > 0.3).float(), T * 0):
        for weight in (torch.ones(8), torch.zeros(8), torch.rand(8)):
            features, scores = (F * scale).requires_grad_(), (Z * scale).requires_grad_()
            loss = contrast(features, targets, weight)
            for task in (CLASSIFICATION, MULTILABEL, REGRESSION):
                loss = loss + wrong(scores, targets, task).mean()
            loss.backward()
            assert torch.isfinite(loss)
            assert torch.isfinite(features.grad).all()
            assert torch.isfinite(scores.grad).all()
