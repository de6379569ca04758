"""Learn and prove: from features and labels to a head, its calibration and thresholds, and the facts about them.

Every figure comes from out-of-fold scores: an example is judged by a head that saw neither it, nor its duplicates, nor
its group. A test set given apart is looked at once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import curation, curve, evaluation, heads, thresholds
from headstart.calibration import Calibration, calibrate, calibrate_multilabel
from headstart.dataset import Dataset
from headstart.errors import InputError
from headstart.folds import folds, overlap, tied
from headstart.head import CLASSIFICATION, MULTILABEL, REGRESSION, Head
from headstart.selection import Choice, choose
from headstart.unknown import Unknown

Floats = NDArray[np.float32]
Clock = Callable[[str], AbstractContextManager[None]]
SHOWN = 50  # suspects and scatter points kept in the facts


@dataclass(frozen=True)
class Learned:
    """A head with everything around it, and what is known of it."""

    task: str
    labels: tuple[str, ...]
    head: Head
    choice: dict[str, Any]
    calibration: Calibration
    unknown: Unknown | None
    thresholds: Floats | None
    facts: dict[str, Any]
