"""What needs torch: our numbers against the original network's, run live."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from headstart.backbones import load, minilm

pytestmark = pytest.mark.torch

TEXTS = [
    "Where is my parcel?",
    "",
    "naïve café 東京 🙂",
    "a",
    "The quick brown fox jumps over the lazy dog. " * 40,  # longer than the 256 tokens that are read
    "WHY WAS MY CARD DECLINED?!",
]


@pytest.fixture(scope="module")
def original():
    pytest.importorskip("torch")
    library = pytest.importorskip("sentence_transformers")
    spec = importlib.util.find_spec(minilm.MODULE)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the weights of all-MiniLM-L6-v2 are not installed")
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    return library.SentenceTransformer(str(folder), device="cpu", local_files_only=True)


@pytest.mark.filterwarnings("default")
def test_the_sentence_embedding_equals_sentence_transformers(original):
    expected = np.asarray(original.encode(TEXTS, convert_to_numpy=True))
    np.testing.assert_allclose(load("minilm", cut="6").encode(TEXTS), expected, atol=1e-5)


@pytest.mark.filterwarnings("default")
def test_the_default_feature_is_mean_and_max_of_the_last_block(original):
    import torch

    found = load("minilm").encode(TEXTS)
    states = original.encode(TEXTS, output_value="token_embeddings")
    for row, tokens in zip(found, states, strict=True):
        tokens = torch.as_tensor(tokens)
        pooled = [tokens.mean(0), tokens.max(0).values]
        expected = torch.cat([part / part.norm() for part in pooled]) / 2**0.5
        np.testing.assert_allclose(row, expected.numpy(), atol=1e-5)
