"""Why a model says what it says: the nearest training examples, and the words that hold up the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.parquet

from headstart import saved
from headstart.answers import Answers
from headstart.head import REGRESSION
from headstart.model import Model
from headstart.rowcache import Cache
from headstart.why import words


class Reasons:
    """The kept training examples of one model, embedded (from the cache, as a rule) when first asked for."""

    def __init__(self, model: Model, cache: Cache, *, nearest: int = 3) -> None:
        self.model, self.cache, self.nearest = model, cache, nearest
        self.keys: list[str] = []
        self.X = np.empty((0, 0), np.float32)
        if model.folder is not None and (model.folder / saved.EXAMPLES).exists():
            table = pyarrow.parquet.read_table(model.folder / saved.EXAMPLES)
            self.keys, self.texts = table["key"].to_pylist(), table["text"].to_pylist()
            self.labels, self.rows = table["label"].to_pylist(), table["row"].to_pylist()
            self.X = _unit(model.features(self.texts, cache=cache).values)

    def of(self, texts: Sequence[str], X: np.ndarray[Any, Any], answers: Answers) -> list[dict[str, Any]]:
        """For each text {nearest: [{key, row, text, label, similarity}], words: [{text, start, end, drop}]}."""
        found = []
        near = _unit(X) @ self.X.T if self.keys else np.empty((len(texts), 0), np.float32)
        for i, text in enumerate(texts):
            column = 0 if self.model.task == REGRESSION else int(answers.P[i].argmax())
            best = np.argsort(-near[i], kind="stable")[: self.nearest]
            found.append(
                {
                    "nearest": [
                        {
                            "key": self.keys[j], "row": self.rows[j], "text": self.texts[j], "label": self.labels[j],
                            "similarity": round(float(near[i, j]), 4),
                        }
                        for j in best
                    ],
                    "words": [
                        {"text": w.text, "start": w.start, "end": w.end, "drop": round(w.drop, 4)}
                        for w in words(text, column, self._answer)
                    ],
                }
            )  # fmt: skip
        return found

    def _answer(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        """(m, c) probabilities of texts that are not worth keeping in the cache."""
        return self.model.answer(self.model.backbone.encode(texts)).P


def _unit(X: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Rows of length 1; (n, d)."""
    return np.asarray(X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12))
