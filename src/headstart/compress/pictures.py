"""A picture network in 8-bit integers: convolutions with constants measured once on the user's pictures.

ONNX Runtime's own static quantiser does it (uint8 activations, one scale and zero point a tensor from the range seen;
weights with a scale a channel), with weights of 7 bits so that no 16-bit sum can overflow where a processor has no
8-bit dot product. Before it, batch norms are folded into the convolutions before them. The features themselves, from
the pooling on, stay in float32.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.backbone import Contents, Portable
from headstart.compress.surgery import Facts, Feed, copied, feeds, makers, put, size, spread
from headstart.errors import InputError

SAMPLE = 96  # pictures that constants are measured on
TREATED = ("Conv", "Gemm", "MatMul", "Add", "Mul", "Clip", "Relu", "MaxPool", "AveragePool", "Concat")


class Feeds:
    """Batches as the quantiser asks for them: one by one, then None."""

    def __init__(self, given: Sequence[Feed]) -> None:
        self.given = iter(given)

    def get_next(self) -> Feed | None:
        """The next batch."""
        return next(self.given, None)


def quantised(portable: Portable, contents: Contents) -> tuple[Portable, Facts]:
    """The network in 8 bits, constants from up to 96 of the pictures. Raises InputError where it has no convolution."""
    before, made = size(portable), folded(portable)
    convolutions = sum(node.op_type == "Conv" for node in made.model.graph.node)
    if not convolutions:
        raise InputError("this picture network has no convolutions in float32; only those are held in 8 bits.")
    given = [feed for _, feed in feeds(made, spread(contents, SAMPLE))]
    if not given:
        raise InputError("8-bit constants are measured on pictures, and there are none.")
    made = replace(made, model=_static(made.model, given))
    pictures = sum(len(next(iter(feed.values()))) for feed in given)
    note = f"{convolutions} convolutions in 8 bits, measured on {pictures:,} pictures."
    return made, Facts("integers", before, size(made), convolutions, convolutions, (note,))


def folded(portable: Portable) -> Portable:
    """The same network with batch norms in the convolutions before them, as ONNX Runtime's basic optimisations do."""
    import onnx
    import onnxruntime

    if all(node.op_type != "BatchNormalization" for node in portable.model.graph.node):
        return copied(portable)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        onnxruntime.InferenceSession(portable.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return replace(portable, model=onnx.load(options.optimized_model_filepath))


def _static(model: Any, given: Sequence[Feed]) -> Any:
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # `folded` has done it
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        path = Path(folder) / "integers.onnx"
        quantize_static(
            model,
            str(path),
            Feeds(given),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(TREATED),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_tail(model),
            calibrate_method=CalibrationMethod.MinMax,
        )
        made = onnx.load(str(path))
    made.ClearField("metadata_props")
    domains = {node.domain for node in made.graph.node}
    put(made, "opset_import", [opset for opset in made.opset_import if opset.domain in domains])
    return made


def _tail(model: Any) -> list[str]:
    """The names of the nodes that pool and scale: from the features back to the last convolution or what follows it."""
    made, left, found = makers(model), ["features"], []
    while left:
        node = made.get(left.pop())
        if (
            node is not None
            and node.op_type not in ("Conv", "Gemm", "MatMul", "Clip", "Relu")
            and node.name not in found
        ):
            found.append(node.name)
            if node.op_type not in ("GlobalAveragePool", "ReduceMean", "ReduceMax", "GlobalMaxPool"):
                left += list(node.input)
    return found
