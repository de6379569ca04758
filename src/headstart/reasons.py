"""Why a model says what it says: the nearest training examples, and the words, or the regions of a picture, that hold
up the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.parquet

from headstart import saved
from headstart.answers import Answers
from headstart.backbone import Contents
from headstart.head import REGRESSION
from headstart.model import Model
from headstart.rowcache import Cache
from headstart.why import place, regions, words


class Reasons:
    """The kept training examples of one model with their features.

    With `pictures` the small pictures of the nearest are given too. A text is answered up to 65 times for its words, a
    picture 50 times for its regions.
    """

    def __init__(self, model: Model, cache: Cache, *, nearest: int = 3, pictures: bool = True) -> None:
        self.model, self.cache, self.nearest = model, cache, nearest
        self.keys: list[str] = []
        self.X = np.empty((0, 0), np.float32)
        if model.folder is not None and (model.folder / saved.EXAMPLES).exists():
            table = pyarrow.parquet.read_table(model.folder / saved.EXAMPLES)
            kept = set(table.column_names)
            self.keys, self.texts = table["key"].to_pylist(), table["text"].to_pylist()
            self.labels, self.rows = table["label"].to_pylist(), table["row"].to_pylist()
            self.pictures = table["picture"].to_pylist() if pictures and "picture" in kept else None
            if "feature" not in kept:  # texts are embedded again, from the cache as a rule
                self.X = _unit(model.features(self.texts, cache=cache).values)
            else:
                joined = b"".join(table["feature"].to_pylist())
                self.X = _unit(np.frombuffer(joined, "<f2").reshape(len(self.keys), -1).astype(np.float32))

    def of(
        self,
        contents: Contents,
        X: np.ndarray[Any, Any],
        answers: Answers,
        progress: Callable[[int], None] | None = None,
    ) -> list[dict[str, Any]]:
        """For each content what holds up its answer; `progress` is told after each how many are done.

        {nearest: [{key, row, text, label, similarity}], words: [{text, start, end, drop}]}; for a picture `nearest` has
        also `picture`, a small one, and `regions` [{place, left, top, right, bottom, drop}] stand in place of words.
        """
        found = []
        near = _unit(X) @ self.X.T if self.keys else np.empty((len(contents), 0), np.float32)
        for i in range(len(contents)):
            column = 0 if self.model.task == REGRESSION else int(answers.P[i].argmax())
            best = np.argsort(-near[i], kind="stable")[: self.nearest].tolist()
            nearest = [self._example(j, float(near[i, j])) for j in best]
            found.append({"nearest": nearest, **self._parts(contents[i], column)})
            if progress is not None:
                progress(i + 1)
        return found

    def _example(self, j: int, similarity: float) -> dict[str, Any]:
        """One kept training example."""
        found = {
            "key": self.keys[j], "row": self.rows[j], "text": self.texts[j], "label": self.labels[j],
            "similarity": round(similarity, 4),
        }  # fmt: skip
        return found if self.pictures is None else {**found, "picture": self.pictures[j]}

    def _parts(self, content: str | bytes, column: int) -> dict[str, Any]:
        """The words of a text, or the regions of a picture, whose loss changes the answer most."""
        if isinstance(content, str):
            return {
                "words": [
                    {"text": w.text, "start": w.start, "end": w.end, "drop": round(w.drop, 4)}
                    for w in words(content, column, self._answer)
                ]
            }
        from headstart.modalities import image  # Pillow is loaded for pictures only

        boxes, covered = image.occluded(content)
        found = regions(boxes, self._answer([content, *covered]), column)
        return {
            "regions": [
                {
                    "place": place(r), "left": r.left, "top": r.top, "right": r.right, "bottom": r.bottom,
                    "drop": round(r.drop, 4),
                }
                for r in found
            ]
        }  # fmt: skip

    def _answer(self, contents: Contents) -> np.ndarray[Any, Any]:
        """(m, c) probabilities of contents that are not worth keeping in the cache."""
        return self.model.answer(self.model.backbone.encode(contents)).P


def _unit(X: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Rows of length 1; (n, d)."""
    return np.asarray(X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12))
