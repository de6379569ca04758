import csv
import os
from pathlib import Path

import pytest

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # tests work on small matrices: threads would wait for one another

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("HEADSTART_SHARED", ROOT.parent / "shared"))


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Every test run has a cache of its own, and is offline."""
    os.environ["HEADSTART_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["HEADSTART_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def shared():
    """The folder of real data; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data: {SHARED} is absent (set HEADSTART_SHARED)")
    return SHARED


@pytest.fixture(scope="session")
def tickets():
    """The folder of the demo's data set."""
    return ROOT / "examples" / "tickets"


TOPICS = {
    "fruit": ["apple", "pear", "plum", "cherry", "grape", "fig"],
    "metal": ["iron", "copper", "zinc", "tin", "gold", "lead"],
    "bird": ["crow", "finch", "owl", "wren", "swan", "heron"],
}


def sentences(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """n short texts of three easy classes, as (text, label)."""
    import random

    draw = random.Random(seed)
    rows = []
    for i in range(n):
        label = list(TOPICS)[i % 3]
        words = [draw.choice(TOPICS[label]) for _ in range(3)] + [draw.choice(["the", "a", "my", "some"])] + [f"n{i}"]
        draw.shuffle(words)
        rows.append((" ".join(words), label))
    return rows


@pytest.fixture
def easy_csv(tmp_path):
    """A CSV of 60 easy rows with columns text,label."""
    path = tmp_path / "easy.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(sentences(60))
    return path
