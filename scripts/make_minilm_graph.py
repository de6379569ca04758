"""Make the ONNX graphs of all-MiniLM-L6-v2 that lie in src/headstart/backbones.

    python scripts/make_minilm_graph.py              writes minilm.onnx and minilm-int8.onnx
    python scripts/make_minilm_graph.py --calibrate  measures minilm-int8.safetensors anew first, on calibration.txt

minilm.onnx is the float32 network in standard operators (opset 20), written out by hand from the BERT paper (Devlin et
al. 2019, section 3; post-norm blocks as in Vaswani et al. 2017, section 3.1). Its weights are not in it: every
initialiser points by offset into the published model.safetensors. minilm-int8.onnx is the same network with its 24
linear layers in 8-bit integers; backbones/int8.py says how, and makes their weights when the network is loaded.

Letters: b texts, s tokens a text, 384 channels, 12 attention heads of 32 channels.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from headstart.backbones import int8, minilm
from headstart.backbones.tokens import tokenise

HERE = Path(__file__).parent
BLOCKS, HEADS, WIDTH = 6, 12, 384
FILE = minilm.WEIGHTS_FILE


class Graph:
    """Nodes and initialisers as they are added; a node's output bears its number."""

    def __init__(self, header: dict[str, dict]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: dict[str, onnx.TensorProto] = {}
        self.header = header

    def op(self, kind: str, *inputs: str, out: str | None = None, domain: str = "", **attributes) -> str:
        out = out or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [out], name=out, domain=domain, **attributes))
        return out

    def split3(self, x: str) -> list[str]:
        out = [f"Split_{len(self.nodes)}_{i}" for i in range(3)]
        self.nodes.append(helper.make_node("Split", [x], out, name=out[0], axis=0, num_outputs=3))
        return out

    def constant(self, name: str, value) -> str:
        """A small tensor inside the graph."""
        self.initialisers[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def external(self, name: str, location: str, kind: int, shape: Iterable[int], **where: int) -> str:
        """A tensor outside the graph."""
        tensor = TensorProto(name=name, data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)
        for key, value in {"location": location, **where}.items():
            tensor.external_data.add(key=key, value=str(value))
        self.initialisers[name] = tensor
        return name

    def weight(self, name: str) -> str:
        """A tensor of the published file, by offset."""
        entry = self.header[name]
        start, end = entry["data_offsets"]
        return self.external(
            name, FILE, TensorProto.FLOAT, entry["shape"], offset=self.header["first byte"] + start, length=end - start
        )

    def made(self, name: str, kind: int, shape: Iterable[int], size: int) -> str:
        """A tensor that is made when the network is loaded."""
        return self.external(name, int8.LOCATION, kind, shape, offset=0, length=size)

    def linear(self, x: str, name: str) -> str:
        """(b*s, K) -> (b*s, N): x @ W.T + bias, W (N, K) as the published file holds it."""
        return self.op("Gemm", x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"), transB=1)

    def norm(self, x: str, name: str) -> str:
        return self.op(
            "LayerNormalization", x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"), axis=-1, epsilon=1e-12
        )


def header(weights: Path) -> dict[str, dict]:
    """The table of contents of a safetensors file; "first byte" is where its data begin."""
    with open(weights / FILE, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return {**json.loads(file.read(size)), "first byte": 8 + size}


def network(
    g: Graph, attention: Callable[[str, int], str], linear: Callable[[str, str], str], *, mask: bool
) -> onnx.ModelProto:
    """The parts both precisions share: embeddings, norms, pooling at every tap, inputs and outputs."""
    flat = g.constant("flat", np.array([-1, WIDTH]))
    first, second = g.constant("first", np.array([0])), g.constant("second", np.array([1]))
    shape = g.op("Shape", "input_ids", out="shape")  # (b, s)
    ragged = g.op("Concat", shape, g.constant("width", np.array([WIDTH])), axis=0)  # (b, s, 384)
    length = g.op("Gather", shape, second, axis=0)  # (1,): s
    position = g.op("Slice", g.weight("embeddings.position_embeddings.weight"), first, length)  # (s, 384)
    kind = g.op("Gather", g.weight("embeddings.token_type_embeddings.weight"), first, axis=0)  # (1, 384)
    word = g.op("Gather", g.weight("embeddings.word_embeddings.weight"), "input_ids", axis=0)  # (b, s, 384)
    x = g.norm(g.op("Add", word, g.op("Add", position, kind)), "embeddings.LayerNorm")
    x = g.op("Reshape", x, flat)  # (b*s, 384): the stream
    if mask:
        kept = g.op("Cast", "attention_mask", to=TensorProto.FLOAT, out="mask")  # (b, s): 1 for a token, 0 for padding
        weight = g.op("Unsqueeze", kept, g.constant("third", np.array([2])))  # (b, s, 1)
        tokens = g.op("ReduceSum", weight, second, keepdims=0)  # (b, 1)
        padding = g.op("Sub", g.constant("one", np.float32(1)), "mask")
        far = g.op("Mul", padding, g.constant("far", np.float32(-1e4)), out="far_off")  # (b, s): -10000 at padding
        below = g.op("Unsqueeze", far, "third")  # (b, s, 1)

    def tap(x: str, block: int) -> None:
        """The mean and the largest of the block's token states, outputs of the graph."""
        states = g.op("Reshape", x, ragged, out=f"block{block}")  # (b, s, 384)
        if mask:
            total = g.op("ReduceSum", g.op("Mul", states, weight), second, keepdims=0)
            g.op("Div", total, tokens, out=f"mean{block}")
            g.op("ReduceMax", g.op("Add", states, below), second, keepdims=0, out=f"max{block}")
        else:
            g.op("ReduceMean", states, second, keepdims=0, out=f"mean{block}")
            g.op("ReduceMax", states, second, keepdims=0, out=f"max{block}")

    tap(x, 0)
    gelu = "none" if mask else "tanh"  # in int8 the quicker form, 5e-4 away at most, is lost in the rounding
    for block in range(BLOCKS):
        layer = f"encoder.layer.{block}"
        x = g.norm(g.op("Add", attention(x, block), x), f"{layer}.attention.output.LayerNorm")
        inner = g.op("Gelu", linear(x, f"{layer}.intermediate.dense"), approximate=gelu)  # (b*s, 1536)
        x = g.norm(g.op("Add", linear(inner, f"{layer}.output.dense"), x), f"{layer}.output.LayerNorm")
        tap(x, block + 1)
    inputs = ["input_ids", "attention_mask"] if mask else ["input_ids"]
    graph = helper.make_graph(
        g.nodes,
        "all-MiniLM-L6-v2",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "s"]) for name in inputs],
        [
            helper.make_tensor_value_info(f"{kind}{block}", TensorProto.FLOAT, ["b", WIDTH])
            for kind in ("mean", "max")
            for block in range(BLOCKS + 1)
        ],
        initializer=list(g.initialisers.values()),
    )
    domains = [helper.make_opsetid("", 20)] + ([] if mask else [helper.make_opsetid("com.microsoft", 1)])
    return helper.make_model(graph, opset_imports=domains, ir_version=10, producer_name="headstart")


def float32(contents: dict[str, dict]) -> onnx.ModelProto:
    """The float32 graph: input_ids, attention_mask (b, s) int64 -> mean0 ... mean6, max0 ... max6 (b, 384)."""
    g = Graph(contents)
    shape = g.constant("heads", np.array([HEADS, WIDTH // HEADS]))

    def attention(x: str, block: int) -> str:
        if block == 0:
            g.op("Concat", "shape", shape, axis=0, out="split")  # (b, s, 12, 32)
            g.op("Unsqueeze", "far_off", g.constant("middle", np.array([1, 2])), out="bias")  # (b, 1, 1, s)
        layer = f"encoder.layer.{block}.attention"
        q, k, v = (
            g.op("Transpose", g.op("Reshape", g.linear(x, f"{layer}.self.{part}"), "split"), perm=perm)
            for part, perm in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3]))
        )
        score = g.op("Mul", g.op("MatMul", q, k), g.constant("scale", np.float32((WIDTH // HEADS) ** -0.5)))
        share = g.op("Softmax", g.op("Add", score, "bias"), axis=-1)  # (b, 12, s, s)
        y = g.op("Transpose", g.op("MatMul", share, v), perm=[0, 2, 1, 3])
        return g.linear(g.op("Reshape", y, "flat"), f"{layer}.output.dense")

    return network(g, attention, g.linear, mask=True)


def int8_graph(contents: dict[str, dict], constants: dict[str, NDArray]) -> onnx.ModelProto:
    """The int8 graph: input_ids (b, s) int64 -> mean0 ... mean6, max0 ... max6 (b, 384)."""
    g = Graph(contents)
    shape = g.constant("heads", np.array([3, HEADS, WIDTH // HEADS]))

    def linear(x: str, name: str, smoothed: bool = False) -> str:
        joined = name.endswith(".self")  # query, key and value as one layer
        N, K = contents[f"{name}.query.weight" if joined else f"{name}.weight"]["shape"]
        N *= 3 if joined else 1
        if not smoothed:
            x = g.op("Mul", x, g.made(f"{name}.inverse", TensorProto.FLOAT, [K], 4 * K))
        scale = g.constant(f"{name}.scale", constants[f"{name}.scale"])
        zero = g.constant(f"{name}.zero", constants[f"{name}.zero"])
        W = g.made(f"{name}.int8", TensorProto.INT8, [K, N], K * N)
        step = g.made(f"{name}.step", TensorProto.FLOAT, [N], 4 * N)
        bias = g.made(f"{name}.offset", TensorProto.FLOAT, [N], 4 * N)
        x = g.op("QuantizeLinear", x, scale, zero)
        return g.op("MatMulIntegerToFloat", x, W, scale, step, zero, "", bias, domain="com.microsoft")

    def attention(x: str, block: int) -> str:
        if block == 0:
            g.op("Concat", "shape", shape, axis=0, out="split")  # (b, s, 3, 12, 32)
        layer = f"encoder.layer.{block}.attention"
        qkv = g.op("Reshape", linear(x, f"{layer}.self"), "split")
        q, k, v = (g.op("Squeeze", part, "first") for part in g.split3(g.op("Transpose", qkv, perm=[2, 0, 3, 1, 4])))
        share = g.op("Softmax", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2])), axis=-1)  # (b, 12, s, s)
        y = g.op("Transpose", g.op("MatMul", share, v), perm=[0, 2, 1, 3])
        return linear(g.op("Reshape", y, "flat"), f"{layer}.output.dense", smoothed=True)

    return network(g, attention, linear, mask=False)


def calibrate(weights: Path, texts: list[str]) -> dict[str, NDArray]:
    """Run the float32 network on texts, look at what goes into every linear layer, and derive the int8 constants."""
    import onnxruntime

    model = float32(header(weights))
    entering = {node.input[1]: node.input[0] for node in model.graph.node if node.op_type == "Gemm"}
    for tensor in sorted(set(entering.values())):
        model.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    seen: dict[str, list[NDArray]] = {name: [] for name in names}
    for ids in tokenise(minilm.tokeniser(weights), texts, minilm.TOKENS):
        tokens = np.array([ids], np.int64)
        feed = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
        for name, value in zip(names, session.run(None, feed), strict=True):
            seen[name].append(value)
    inputs = {weight.removesuffix(".weight"): np.concatenate(seen[tensor]) for weight, tensor in entering.items()}
    return int8.calibrated(inputs, minilm.published(weights))


def main(arguments: list[str]) -> None:
    from safetensors.numpy import load_file, save_file

    weights = minilm.weights()
    if "--calibrate" in arguments:
        save_file(calibrate(weights, (HERE / "calibration.txt").read_text("utf-8").splitlines()), minilm.CONSTANTS)
    contents = header(weights)
    made = {"float32": float32(contents), "int8": int8_graph(contents, load_file(minilm.CONSTANTS))}
    for precision, model in made.items():
        path = minilm.GRAPHS[precision]
        path.write_bytes(model.SerializeToString(deterministic=True))
        print(f"{path}: {path.stat().st_size:,} bytes, {len(model.graph.node)} nodes")


if __name__ == "__main__":
    main(sys.argv[1:])
