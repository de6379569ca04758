"""Small ONNX graphs with known joints, and backbone folders of them, for the tests of graph/ and of networks."""

import io

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from headstart.backbones import network
from headstart.preprocessing import Preprocessing

OPSET = 17
WORDS = [
    "[UNK]",
    "[PAD]",
    *["apple", "pear", "plum", "iron", "zinc", "tin", "crow", "owl", "wren", "the", "a", "my", "some", "of", "and"],
]
FACTS = {"licence": "Apache-2.0", "source": "made in a test", "revision": "1"}


class Graph:
    """Nodes and weights as they are added; `op` gives the name of the output."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes, self.weights, self.inputs, self.draw = [], [], [], np.random.default_rng(seed)

    def given(self, name: str, kind: int, dims: list) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, dims))
        return name

    def op(self, kind: str, *given: str, out: str | None = None, **attributes) -> str:
        out = out or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, given, [out], name=f"node{len(self.nodes)}", **attributes))
        return out

    def weight(self, *dims: int) -> str:
        values = self.draw.normal(0, 1 / np.sqrt(dims[0] if dims else 1), dims).astype(np.float32)
        return self.constant(values)

    def constant(self, value) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def model(self, *outputs: str, opset: int = OPSET, rank: int | None = None):
        shape = None if rank is None else ["n", *[None] * (rank - 1)]
        made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs]
        graph = helper.make_graph(self.nodes, "small", self.inputs, made, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def transformer(blocks: int = 3, *, pre: bool = False, d: int = 32, words: int = 50, opset: int = OPSET):
    """A text network with a mask and token types; norms before (`pre`) or after each sum. Output: states (n, t, d)."""
    g = Graph()
    ids = g.given("input_ids", TensorProto.INT64, ["n", "t"])
    mask = g.given("attention_mask", TensorProto.INT64, ["n", "t"])
    kinds = g.given("token_type_ids", TensorProto.INT64, ["n", "t"])
    far = g.op("Mul", g.op("Sub", g.constant(np.float32(1)), g.op("Cast", mask, to=1)), g.constant(np.float32(-1e4)))
    bias = g.op("Unsqueeze", far, g.constant(np.array([1])))  # (n, 1, t)
    length = g.op("Gather", g.op("Shape", ids), g.constant(np.array([1])), axis=0)
    places = g.op("Slice", g.weight(64, d), g.constant(np.array([0])), length)  # (t, d)
    x = g.op("Add", g.op("Gather", g.weight(words, d), ids), g.op("Gather", g.weight(2, d), kinds))

    def norm(x: str) -> str:
        mean = g.op("ReduceMean", x, axes=[-1], keepdims=1)
        centred = g.op("Sub", x, mean)
        spread = g.op("ReduceMean", g.op("Mul", centred, centred), axes=[-1], keepdims=1)
        whole = g.op("Div", centred, g.op("Sqrt", g.op("Add", spread, g.constant(np.float32(1e-5)))))
        return g.op("Add", g.op("Mul", whole, g.weight(d)), g.weight(d))

    def attention(x: str) -> str:
        q, k, v = (g.op("MatMul", x, g.weight(d, d)) for _ in range(3))
        scores = g.op("Add", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 1])), bias)
        return g.op("MatMul", g.op("MatMul", g.op("Softmax", scores, axis=-1), v), g.weight(d, d))

    def forward(x: str) -> str:
        return g.op("MatMul", g.op("Relu", g.op("MatMul", x, g.weight(d, 2 * d))), g.weight(2 * d, d))

    ends = [x := g.op("Add", x, places) if pre else norm(g.op("Add", x, places))]
    for _ in range(blocks):
        if pre:
            x = g.op("Add", attention(norm(x)), x)
            x = g.op("Add", forward(norm(x)), x)
        else:
            x = norm(g.op("Add", attention(x), x))
            x = norm(g.op("Add", forward(x), x))
        ends.append(x)
    if pre:
        x = norm(x)
    g.op("Identity", x, out="last_hidden_state")
    return g.model("last_hidden_state", opset=opset, rank=3), ends


def convolutions(*, batch: int | str = "n", classes: bool = False, flat: str = "Flatten"):
    """A picture network 3 x 32 x 32 of three stages with residual blocks; output `embedding` (n, 48), or logits too."""
    g = Graph()
    x = g.given("input", TensorProto.FLOAT, [batch, 3, 32, 32])
    ends = []
    channels = 3
    for width in (8, 16, 48):
        x = g.op("Relu", g.op("Conv", x, g.weight(width, channels, 3, 3), strides=[2, 2], pads=[1] * 4))
        for _ in range(2):
            inner = g.op("Relu", g.op("Conv", x, g.weight(width, width, 3, 3), pads=[1] * 4))
            x = g.op("Relu", g.op("Add", x, g.op("Conv", inner, g.weight(width, width, 1, 1))))
        channels = width
        ends.append(x)
    pooled = g.op("GlobalAveragePool", x)
    if flat == "Flatten":
        g.op("Flatten", pooled, out="embedding")
    else:
        g.op("Reshape", pooled, g.constant(np.array([batch if isinstance(batch, int) else -1, 48])), out="embedding")
    outputs = ["embedding"]
    if classes:
        g.op("Gemm", "embedding", g.weight(48, 1000), out="logits")
        outputs = ["logits", "embedding"] if classes == "both" else ["logits"]
    return g.model(*outputs, rank=2), ends


def picture(seed=0, size=(40, 30), form="JPEG"):
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((size[0] * 2, size[1] * 2)).save(file, form)
    return file.getvalue()


def words(folder, names=WORDS):
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(names)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))


def text_folder(folder, **facts):
    folder.mkdir()
    (folder / "model.onnx").write_bytes(transformer(3, pre=True)[0].SerializeToString())
    words(folder)
    network.describe(folder, **{"name": "small", "modality": "text", "tokens": 16, **FACTS, **facts})
    return folder


def picture_folder(folder, model=None, **facts):
    folder.mkdir()
    (folder / "model.onnx").write_bytes((model or convolutions()[0]).SerializeToString())
    how = Preprocessing(32, 32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    network.describe(folder, **{"name": "small", "modality": "image", "preprocessing": how, **FACTS, **facts})
    return folder
