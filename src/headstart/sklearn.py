"""HeadstartClassifier: a scikit-learn classifier on frozen features. Needs `pip install "headstart[sklearn]"`.

Texts (a list, array or series of str) and pictures (of the bytes of their files) are embedded through the feature
cache; numeric arrays are taken as features. Nothing is written but the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart import backbones
from headstart.calibration import calibrate
from headstart.errors import MissingExtra
from headstart.features import embed
from headstart.folds import folds, tied
from headstart.head import CLASSIFICATION
from headstart.rowcache import Cache
from headstart.selection import choose

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise MissingExtra('scikit-learn is needed here: pip install "headstart[sklearn]"') from error


class HeadstartClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Choose a head on folds and calibrate it, for texts, for pictures, or for features that are there already.

    Parameters: head ('auto', 'linear', 'centroid', 'nearest'), balanced (weigh rare classes as much as common ones),
    backbone (the name of one that reads what is given), precision ('float32' or 'int8') and random_state (the seed of the folds).
    """

    def __init__(
        self,
        head: str = "auto",
        *,
        balanced: bool = False,
        backbone: str = "minilm",
        precision: str = "float32",
        random_state: int = 0,
    ) -> None:
        self.head = head
        self.balanced = balanced
        self.backbone = backbone
        self.precision = precision
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        return tags

    def fit(self, X: Any, y: ArrayLike) -> Self:
        """X: n texts or pictures, or (n, d) features; y: (n,) labels of at least two kinds.

        There are no sample weights: a weight of 2 would not equal a repeated row, which the folds keep on one side.
        """
        values, keys = self._features(X, reset=True)
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        check_consistent_length(values, y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        c = len(self.classes_)
        if c < 2:
            raise ValueError(f"y has 1 class, {self.classes_[:1]}: there is nothing to tell apart.")
        weight = None
        if self.balanced:
            counts = np.bincount(codes, minlength=c)
            weight = (len(codes) / (c * counts[codes])).astype(np.float32)
        groups = None if keys is None else tied(keys=keys)
        dealt = folds(codes, groups=groups, seed=self.random_state)
        T = np.eye(c, dtype=np.float32)[codes]
        choice = choose(
            values, T, task=CLASSIFICATION, folds=dealt, head=self.head, weight=weight, seed=self.random_state
        )
        self.head_ = choice.head
        self.calibration_, _ = calibrate(choice.scores[0], codes, fold=dealt[0], seed=self.random_state)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """(n, c) calibrated probabilities, columns in the order of `classes_`."""
        check_is_fitted(self)
        values, _ = self._features(X, reset=False)
        P = self.calibration_.apply(self.head_.scores(values)).astype(np.float64)
        return np.asarray(P / P.sum(1, keepdims=True))

    def predict(self, X: Any) -> NDArray[Any]:
        """(n,) labels."""
        check_is_fitted(self)
        return np.asarray(self.classes_[self.predict_proba(X).argmax(1)])

    def _features(self, X: Any, *, reset: bool) -> tuple[NDArray[np.float32], NDArray[np.uint64] | None]:
        if _are_contents(X):
            found = embed(list(X), backbones.load(self.backbone, precision=self.precision), Cache())
            if reset:
                self.__dict__.pop("n_features_in_", None)
            return found.values, found.keys
        values = validate_data(self, X, reset=reset, dtype=np.float64)
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
        return np.clip(values, -1e18, 1e18), None


def _are_contents(X: Any) -> bool:
    if hasattr(X, "ndim") and X.ndim != 1:
        return False
    if not hasattr(X, "__len__") or isinstance(X, str | bytes) or len(X) == 0:
        return False
    contents = X if isinstance(X, Sequence) else list(X)
    return any(all(isinstance(one, kind) for one in contents) for kind in (str, bytes))
