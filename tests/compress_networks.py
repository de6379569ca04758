"""Small networks to compress: text transformers of random weights with trained tokenisers, and a picture network."""

import functools
import io
import json

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from headstart.backbone import Portable
from headstart.backbones.plain import joined

WORDS = [
    "the",
    "card",
    "was",
    "declined",
    "at",
    "a",
    "shop",
    "my",
    "new",
    "transfer",
    "is",
    "pending",
    "why",
    "top",
    "up",
    "failed",
    "again",
    "cash",
    "machine",
    "abroad",
    "exchange",
    "rate",
    "fees",
    "charged",
    "twice",
    "refund",
    "not",
    "arrived",
    "yet",
    "change",
    "pin",
    "lost",
    "phone",
    "stolen",
    "verify",
    "identity",
    "limits",
    "account",
]
WIDTH, INNER, HEADS, BLOCKS = 32, 128, 2, 2


def texts(n: int, seed: int = 0) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, draw.integers(1, 12))) for _ in range(n)]


@functools.cache  # training breaks ties as it likes
def tokeniser(kind: str) -> str:
    """A tokenizer.json trained on the texts and some others: WordPiece, Unigram, BPE or bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    more = [
        "completely different things about gardens, oceans and mountains; über façade naïve 12345",
        "quick fox jumps",
    ]
    corpus = texts(200) + more * 5
    if kind == "WordPiece":
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer()
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    elif kind == "Unigram":
        made = Tokenizer(models.Unigram())
        made.normalizer = normalizers.NFKC()
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        special = ["<s>", "<pad>", "</s>", "<unk>"]
        trainer = trainers.UnigramTrainer(
            vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    else:
        made = Tokenizer(models.BPE(unk_token=None if kind == "bytes" else "<unk>"))
        made.pre_tokenizer = pre_tokenizers.ByteLevel() if kind == "bytes" else pre_tokenizers.Metaspace()
        made.decoder = decoders.ByteLevel()
        special = ["<s>", "<pad>", "</s>", "<unk>"]
        trainer = trainers.BpeTrainer(
            vocab_size=500, special_tokens=special, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if kind == "bytes" else [],
        )  # fmt: skip
    made.train_from_iterator(corpus, trainer)
    first, last = (special[2], special[3]) if kind == "WordPiece" else (special[0], special[2])
    if kind == "bytes":
        made.post_processor = processors.RobertaProcessing(
            (last, made.token_to_id(last)), (first, made.token_to_id(first))
        )
    else:
        pair = [(first, made.token_to_id(first)), (last, made.token_to_id(last))]
        made.post_processor = processors.TemplateProcessing(single=f"{first} $A {last}", special_tokens=pair)
    made.add_special_tokens(["<mask>"])
    return made.to_str()


def text_network(kind: str = "WordPiece", *, gated: bool = False, masked: bool = False) -> Portable:
    """A pre-trained-looking transformer of random weights: MatMul and Add on (n, t, d), as torch exports them."""
    said = tokeniser(kind)
    pieces = 1 + max(json.loads(said)["added_tokens"][-1]["id"], _last(said))
    draw = np.random.default_rng(7)
    nodes, values = [], {}

    def op(what, *inputs, **attributes):
        nodes.append(helper.make_node(what, inputs, [f"{what}_{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    def constant(value, kind=np.float32):
        name = f"c{len(values)}"
        values[name] = np.asarray(value, kind)
        return name

    def linear(x, K, N):
        product = op("MatMul", x, constant(draw.standard_normal((K, N)) / K**0.5))
        return op("Add", constant(draw.standard_normal(N) * 0.1), product)

    def norm(x):
        gain, shift = constant(1 + 0.2 * draw.standard_normal(WIDTH)), constant(0.1 * draw.standard_normal(WIDTH))
        return op("LayerNormalization", x, gain, shift, axis=-1, epsilon=1e-5)

    x = norm(op("Gather", constant(draw.standard_normal((pieces, WIDTH))), "input_ids", axis=0))
    if masked:
        ones = op("Cast", op("Unsqueeze", "attention_mask", constant([1, 2], np.int64)), to=TensorProto.FLOAT)
        bias = op("Mul", op("Sub", constant(1.0), ones), constant(-1e9))
    for _ in range(BLOCKS):
        parts = []
        for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
            y = op("Reshape", linear(x, WIDTH, WIDTH), constant([0, 0, HEADS, WIDTH // HEADS], np.int64))
            parts.append(op("Transpose", y, perm=perm))
        score = op("Mul", op("MatMul", parts[0], parts[1]), constant((WIDTH / HEADS) ** -0.5))
        if masked:
            score = op("Add", score, bias)
        y = op("Transpose", op("MatMul", op("Softmax", score, axis=-1), parts[2]), perm=[0, 2, 1, 3])
        x = norm(op("Add", linear(op("Reshape", y, constant([0, 0, WIDTH], np.int64)), WIDTH, WIDTH), x))
        inner = op("Gelu", linear(x, WIDTH, INNER))
        if gated:
            inner = op("Mul", inner, linear(x, WIDTH, INNER))
        x = norm(op("Add", linear(inner, INNER, WIDTH), x))
    nodes.append(helper.make_node("ReduceMean", [x, constant([1], np.int64)], ["mean"], keepdims=0))
    inputs = ["input_ids", "attention_mask"] if masked else ["input_ids"]
    graph = helper.make_graph(
        nodes, "t", [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in inputs], [],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    joined(model, ["mean"], [WIDTH])
    return Portable(model, "text", said.encode(), 32)


def _last(said):
    vocabulary = json.loads(said)["model"]["vocab"]
    return len(vocabulary) - 1 if isinstance(vocabulary, list) else max(vocabulary.values())


def pictures(n: int, seed: int = 0) -> list[bytes]:
    from PIL import Image

    draw, found = np.random.default_rng(seed), []
    for _ in range(n):
        coarse = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize((32, 32)).save(file, "PNG")
        found.append(file.getvalue())
    return found


def picture_network() -> Portable:
    """Three convolutions, one of them depth-wise, with a batch norm."""
    from headstart.preprocessing import Preprocessing

    draw, values = np.random.default_rng(3), {}
    for name, shape in (("a", (16, 3, 3, 3)), ("b", (16, 1, 3, 3)), ("c", (24, 16, 1, 1))):
        values[name] = (draw.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    for name in ("gain", "var"):
        values[name] = draw.uniform(0.5, 2, 16).astype(np.float32)
    for name in ("shift", "mean"):
        values[name] = draw.standard_normal(16).astype(np.float32)
    node = helper.make_node
    nodes = [
        node("Conv", ["pixels", "a"], ["y1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", ["y1", "gain", "shift", "mean", "var"], ["y2"]),
        node("Relu", ["y2"], ["y3"]),
        node("Conv", ["y3", "b"], ["y4"], pads=[1, 1, 1, 1], group=16),
        node("Add", ["y4", "y3"], ["y5"]),
        node("Conv", ["y5", "c"], ["y6"]),
        node("Relu", ["y6"], ["y7"]),
        node("GlobalAveragePool", ["y7"], ["y8"]),
        node("Flatten", ["y8"], ["y9"]),
    ]
    graph = helper.make_graph(
        nodes, "p", [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 32, 32])], [],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    joined(model, ["y9"], [24])
    return Portable(model, "image", preprocessing=Preprocessing(width=32, height=32))
