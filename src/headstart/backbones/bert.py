"""Text encoders of the BERT family, written out as an ONNX graph from a config.json and a model.safetensors: no torch.

BERT (Devlin et al. 2019, section 3), RoBERTa and XLM-RoBERTa (whose positions begin after the padding number),
CamemBERT, ELECTRA and DistilBERT (other names, no token types) are one network: token and position embeddings, a norm,
then blocks of attention and a feed-forward layer, each followed by a norm (post-norm; Vaswani et al. 2017, section
3.1). The graph takes `input_ids` (n, t) int64, rows of equally many tokens, so that it needs no mask; its output is
`last_hidden_state` (n, t, d). The pooling is not part of it.

The weights are copied into one file beside the graph, as float32, the linear layers turned to (in, out). Only the
tensors that the network needs are read, and no other format than safetensors is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from headstart import jsontext
from headstart.errors import ModelError

DATA = "model.onnx.data"
HEADER = 16 << 20  # bytes
PAGE = 4096  # bytes; each tensor begins at a multiple
KINDS: dict[str, Any] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F64": np.dtype("<f8"),
}
ACTIVATIONS = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu_fast": "tanh", "relu": ""}
_TENSOR = re.compile(r"[A-Za-z0-9_.\-]{1,256}")

BERT = {
    "query": "encoder.layer.{}.attention.self.query",
    "key": "encoder.layer.{}.attention.self.key",
    "value": "encoder.layer.{}.attention.self.value",
    "mixed": "encoder.layer.{}.attention.output.dense",
    "first norm": "encoder.layer.{}.attention.output.LayerNorm",
    "wide": "encoder.layer.{}.intermediate.dense",
    "narrow": "encoder.layer.{}.output.dense",
    "second norm": "encoder.layer.{}.output.LayerNorm",
}
DISTILBERT = {
    "query": "transformer.layer.{}.attention.q_lin",
    "key": "transformer.layer.{}.attention.k_lin",
    "value": "transformer.layer.{}.attention.v_lin",
    "mixed": "transformer.layer.{}.attention.out_lin",
    "first norm": "transformer.layer.{}.sa_layer_norm",
    "wide": "transformer.layer.{}.ffn.lin1",
    "narrow": "transformer.layer.{}.ffn.lin2",
    "second norm": "transformer.layer.{}.output_layer_norm",
}
FAMILY = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert")


def unknown(config: Mapping[str, Any]) -> str | None:
    """Why this config.json cannot be built here, in words, or None."""
    kind = config.get("model_type")
    if kind not in FAMILY:
        return f"model_type {kind!r} is none of {', '.join(FAMILY)}"
    if config.get("position_embedding_type", "absolute") != "absolute":
        return f"its positions are {config['position_embedding_type']!r}, not absolute"
    if config.get("is_decoder") or config.get("add_cross_attention"):
        return "it is a decoder"
    if config.get("embedding_size", _whole(config, "hidden_size", "dim")) != _whole(config, "hidden_size", "dim"):
        return "its embeddings have another width than its blocks"
    if _activation(config) not in ACTIVATIONS:
        return f"its activation {_activation(config)!r} is none of {', '.join(ACTIVATIONS)}"
    return None


def _activation(config: Mapping[str, Any]) -> str:
    return str(config.get("hidden_act", config.get("activation", "gelu")))


def _whole(config: Mapping[str, Any], *names: str) -> int:
    """A positive whole number of a config under one of its names. Raises ModelError."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 24:
            return value
    raise ModelError(f"config.json states no usable {' or '.join(names)}.")


def first_position(config: Mapping[str, Any]) -> int:
    """The row of the position table that the first token takes."""
    if config.get("model_type") in ("roberta", "xlm-roberta", "camembert"):
        pad = config.get("pad_token_id", 1)
        return int(pad) + 1 if isinstance(pad, int) else 2
    return 0


def tensors(path: Path) -> dict[str, tuple[str, list[int], NDArray[Any]]]:
    """name -> (kind, shape, bytes as a view of the mapped file). Raises ModelError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):  # checks the framing: lengths, offsets, overlaps, trailing bytes
            pass
        mapped = np.memmap(path, np.uint8, "r")
        start = 8 + int(mapped[:8].view("<u8")[0])
        if start > HEADER:
            raise ValueError(f"its header has {start:,} bytes; {HEADER:,} are allowed")
        header = jsontext.parse(mapped[8:start].tobytes().decode("utf-8"))
        found = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            if not _TENSOR.fullmatch(name):
                raise ValueError(f"bad tensor name {name[:40]!r}")
            low, high = entry["data_offsets"]
            found[name] = (entry["dtype"], entry["shape"], mapped[start + low : start + high])
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{path.name}: not a sound safetensors file: {error}.") from error
    return found


class _Weights:
    """The tensors of a file under the names of the network; what is written goes to the data file."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self.file, self.found = path, file, tensors(path)
        ends = [name for name in self.found if name.endswith("embeddings.word_embeddings.weight")]
        if len(ends) != 1:
            raise ModelError(f"{path.name} holds {len(ends)} tables of word embeddings where one is needed.")
        self.prefix = ends[0].removesuffix("embeddings.word_embeddings.weight")
        self.count = 0

    def read(self, name: str, *shape: int) -> NDArray[np.float32]:
        """A tensor as float32, of this shape (-1: any). Raises ModelError."""
        try:
            kind, found, raw = self.found[self.prefix + name]
        except KeyError:
            raise ModelError(f"{self.path.name} holds no {self.prefix + name}.") from None
        if kind not in KINDS:
            raise ModelError(f"{self.path.name}: {name} is of kind {kind}; {', '.join(KINDS)} can be read.")
        if len(found) != len(shape) or any(s not in (-1, f) for s, f in zip(shape, found, strict=True)):
            raise ModelError(f"{self.path.name}: {name} has shape {found}, the config asks for {list(shape)}.")
        values = raw.view(KINDS[kind]).reshape(found)
        if kind == "BF16":
            values = (values.astype("<u4") << 16).view("<f4")
        array = np.asarray(values, np.float32)
        if not np.isfinite(array).all():
            at = int(np.flatnonzero(~np.isfinite(array))[0])
            raise ModelError(f"{self.path.name}: {name} has a value that is not finite at position {at}.")
        return array

    def put(self, name: str, array: NDArray[np.float32]) -> Any:
        """The array in the data file -> onnx.TensorProto that points there."""
        from onnx import TensorProto

        self.file.write(b"\0" * (-self.file.tell() % PAGE))
        content = np.ascontiguousarray(array, "<f4").tobytes()
        tensor = TensorProto(
            name=name, data_type=TensorProto.FLOAT, dims=array.shape, data_location=TensorProto.EXTERNAL
        )
        for key, value in {"location": DATA, "offset": self.file.tell(), "length": len(content)}.items():
            tensor.external_data.add(key=key, value=str(value))
        self.file.write(content)
        self.count += array.size
        return tensor


def build(config: Mapping[str, Any], weights: Path, folder: Path) -> int:
    """Write model.onnx and its data file into `folder`; gives the number of parameters. Raises ModelError."""
    if reason := unknown(config):
        raise ModelError(f"{weights.name}: {reason}.")
    with open(folder / DATA, "wb") as file:
        source = _Weights(weights, file)
        model = _model(config, source)
    (folder / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    return source.count


def _model(config: Mapping[str, Any], source: _Weights) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    D = _whole(config, "hidden_size", "dim")
    heads = _whole(config, "num_attention_heads", "n_heads")
    blocks = _whole(config, "num_hidden_layers", "n_layers")
    inner = _whole(config, "intermediate_size", "hidden_dim")
    epsilon = config.get("layer_norm_eps", 1e-12)
    if D % heads or not isinstance(epsilon, float) or not 0 < epsilon < 1 or blocks > 200:
        raise ModelError(f"config.json: width {D}, {heads} heads, {blocks} blocks, epsilon {epsilon} cannot be.")
    form = ACTIVATIONS[_activation(config)]
    names = DISTILBERT if config["model_type"] == "distilbert" else BERT
    nodes: list[Any] = []
    kept: list[Any] = []

    def op(kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        out = out or f"{kind}_{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [out], name=out, **attributes))
        return out

    def constant(name: str, value: Any) -> str:
        kept.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(name: str, array: NDArray[np.float32]) -> str:
        kept.append(source.put(name, array))
        return name

    def linear(x: str, name: str, rows: int, columns: int) -> str:  # (n, t, columns) -> (n, t, rows)
        W = weight(f"{name}.weight", source.read(f"{name}.weight", rows, columns).T)
        return op("Add", op("MatMul", x, W), weight(f"{name}.bias", source.read(f"{name}.bias", rows)))

    def norm(x: str, name: str, out: str | None = None) -> str:
        scale, shift = (weight(f"{name}.{end}", source.read(f"{name}.{end}", D)) for end in ("weight", "bias"))
        return op("LayerNormalization", x, scale, shift, out=out, axis=-1, epsilon=epsilon)

    words = weight("embeddings.word_embeddings.weight", source.read("embeddings.word_embeddings.weight", -1, D))
    places = source.read("embeddings.position_embeddings.weight", -1, D)[first_position(config) :]
    if source.prefix + "embeddings.token_type_embeddings.weight" in source.found:
        places = places + source.read("embeddings.token_type_embeddings.weight", -1, D)[0]  # all tokens are of type 0
    length = op("Gather", op("Shape", "input_ids"), constant("one", np.array([1])), axis=0)  # (1,): t
    place = op("Slice", weight("positions", places), constant("zero", np.array([0])), length)  # (t, d)
    x = norm(op("Add", op("Gather", words, "input_ids", axis=0), place), "embeddings.LayerNorm", "block0")  # (n, t, d)
    split = constant("split", np.array([0, 0, heads, D // heads]))
    joined = constant("joined", np.array([0, 0, D]))
    root = constant("root", np.float32((D // heads) ** -0.5))
    for i in range(blocks):
        full = {part: name.format(i) for part, name in names.items()}
        q, k, v = (
            op("Transpose", op("Reshape", linear(x, full[part], D, D), split), perm=perm)
            for part, perm in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3]))
        )  # (n, heads, t, d/heads), the key (n, heads, d/heads, t)
        share = op("Softmax", op("Mul", op("MatMul", q, k), root), axis=-1)  # (n, heads, t, t)
        mixed = op("Reshape", op("Transpose", op("MatMul", share, v), perm=[0, 2, 1, 3]), joined)
        x = norm(op("Add", linear(mixed, full["mixed"], D, D), x), full["first norm"])
        wide = linear(x, full["wide"], inner, D)
        wide = op("Gelu", wide, approximate=form) if form else op("Relu", wide)
        last = "last_hidden_state" if i == blocks - 1 else f"block{i + 1}"
        x = norm(op("Add", linear(wide, full["narrow"], D, inner), x), full["second norm"], last)
    graph = helper.make_graph(
        nodes,
        str(config["model_type"]),
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "t"])],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["n", "t", D])],
        initializer=kept,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, producer_name="headstart"
    )
