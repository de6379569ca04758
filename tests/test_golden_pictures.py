"""Golden numbers of the real picture backbones: the same picture gives the same feature, version after version.

python tests/test_golden_pictures.py writes them anew.
"""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import SHARED
from headstart.backbones import network
from headstart.preprocessing import Preprocessing

GOLDEN = Path(__file__).parent / "golden" / "pictures.json"
BASES = {
    "mobilenet_v1_1.0_224_embedding_extractor_fp32.onnx": 1 / 128,
    "mobilenet_v2_1.0_224_fp32.onnx": 1 / 128,
    "keras_mobilenet_v2_0.35_224.onnx": 1 / 127.5,
}


def picture() -> bytes:
    """Waves of colour, 320 x 240, as PNG."""
    y, x = np.mgrid[0:240, 0:320].astype(np.float64)
    waves = [np.sin(x / 17 + y / 31), np.cos(x / 41 - y / 13), np.sin((x + y) / 23)]
    file = io.BytesIO()
    Image.fromarray(np.uint8(np.rint(127.5 + 127 * np.stack(waves, 2)))).save(file, "PNG")
    return file.getvalue()


def feature(name: str, folder: Path) -> dict:
    """Cut, width and the first eight and the largest values of the feature."""
    (folder / "model.onnx").write_bytes((SHARED / "backbones" / name).read_bytes())
    how = Preprocessing(224, 224, resize="squash", scale=BASES[name], mean=(1.0, 1.0, 1.0))
    network.describe(folder, name="base", modality="image", licence="Apache-2.0", source="file", preprocessing=how)
    base = network.Network.open(folder)
    X = base.encode([picture()])[0]
    top = np.argsort(-X, kind="stable")[:4]
    return {
        "cut": base.card.cut, "width": base.card.width, "first": [round(float(v), 6) for v in X[:8]],
        "places": top.tolist(), "largest": [round(float(v), 6) for v in X[top]],
    }  # fmt: skip


@pytest.mark.parametrize("name", BASES)
def test_the_numbers_are_those_kept(name, shared, tmp_path):
    kept, found = json.loads(GOLDEN.read_text())[name], feature(name, tmp_path)
    assert (found["cut"], found["width"]) == (kept["cut"], kept["width"])
    assert found["places"] == kept["places"]
    np.testing.assert_allclose(found["first"], kept["first"], atol=1e-4)
    np.testing.assert_allclose(found["largest"], kept["largest"], atol=1e-4)


if __name__ == "__main__":
    import tempfile

    made = {}
    for each in BASES:
        with tempfile.TemporaryDirectory() as where:
            made[each] = feature(each, Path(where))
    GOLDEN.write_text(json.dumps(made, indent=1) + "\n")
