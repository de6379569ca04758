"""What training lowers. Letters: b examples, d feature width, c classes. Z (b, c) scores, T (b, c) targets, F (b, d)."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from headstart.head import MULTILABEL, REGRESSION

Tensor = Any
TEMPERATURE = 0.1


def wrong(Z: Tensor, T: Tensor, task: str) -> Tensor:
    """The loss of every row, (b,).

    One label: cross-entropy with class shares T that sum to 1 (a teacher's probabilities, or one-hot). Several labels: the
    mean of the binary cross-entropies. A number: the squared error, T being in standard deviations.
    """
    if task == REGRESSION:
        return ((Z - T) ** 2).mean(1)
    if task == MULTILABEL:
        return functional.binary_cross_entropy_with_logits(Z, T, reduction="none").mean(1)
    return -(T * Z.log_softmax(1)).sum(1)


def contrast(
    F: Tensor, T: Tensor, weight: Tensor, temperature: float = TEMPERATURE, *, several: bool = False
) -> Tensor:
    """The supervised contrastive loss over a batch (Khosla et al. 2020, equation 2), a number.

    Rows attract one another by what their targets share: for one-hot targets that is the published loss, for soft ones
    the product of their shares (so two uncertain rows attract little), for several labels the share of labels in common
    (Jaccard). The b x b similarities are all that is held. A row that shares its label with no other counts nothing.
    """
    F = functional.normalize(F, dim=1)
    own = torch.eye(len(F), dtype=torch.bool, device=F.device)
    similar = (F @ F.T / temperature).masked_fill(own, -1e9).log_softmax(1)  # (b, b)
    both = T @ T.T
    size = T.sum(1)
    alike = both / (size[:, None] + size - both).clamp(min=1e-6) if several else both
    weight = weight / weight.mean().clamp(min=1e-12)
    alike = (alike * weight).masked_fill(own, 0.0)
    total = alike.sum(1)
    rows = -(alike * similar).sum(1) / total.clamp(min=1e-6)
    counted = weight * (total > 1e-3)
    return (rows * counted).sum() / counted.sum().clamp(min=1e-6)
