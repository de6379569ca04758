"""What shapes the tensors of a graph have, seen by running it on a little made-up content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import ModelError
from headstart.graph import flow
from headstart.graph.reading import said

DTYPES = {1: np.float32, 2: np.uint8, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16, 11: np.float64}


def session(model: Any, folder: Path | None, *, plain: bool = False) -> Any:
    """A session of a graph on one core; `plain` leaves every node as it is. Raises ModelError with the runtime's words."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has a class for each of its states, and no common one
        raise ModelError(f"ONNX Runtime does not take it: {_words(error)}") from None


def run(session: Any, outputs: Sequence[str], feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Outputs of a session. Raises ModelError with the runtime's words."""
    try:
        return list(session.run(list(outputs), dict(feed)))
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot run it: {_words(error)}") from None


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def feed(
    model: Any, modality: str | None, rows: int, tokens: int, size: tuple[int, int] | None, words: int, seed: int = 0
) -> dict[str, NDArray[Any]]:
    """Made-up content for every input: n rows of tokens, or n pictures of (height, width). Raises ModelError."""
    draw = np.random.default_rng(seed)
    main = flow.data(model, modality)
    found: dict[str, NDArray[Any]] = {}
    for value in flow.inputs(model):
        dtype = DTYPES.get(flow.kind(value))
        if dtype is None:
            raise ModelError(f"the input {said(value.name)} has a data type that is not given.")
        if value.name == main.name:
            shape = _shape(value, rows, tokens, size)
            if dtype in (np.int64, np.int32):
                found[value.name] = draw.integers(0, max(1, words), shape).astype(dtype)
            elif dtype == np.uint8:
                found[value.name] = draw.integers(0, 256, shape).astype(dtype)
            else:
                found[value.name] = draw.uniform(-1, 1, shape).astype(dtype)
        elif value.name in flow.SIDES:
            found[value.name] = side(value.name, rows, tokens).astype(dtype)
        else:
            raise ModelError(f"it has an input {said(value.name)}, and nothing is known to give it.")
    return found


def side(name: str, rows: int, tokens: int) -> NDArray[np.int64]:
    """What a side input holds for rows (n, t) without padding."""
    if name == "position_ids":
        return np.tile(np.arange(tokens), (rows, 1))
    return np.full((rows, tokens), int(name == "attention_mask"), np.int64)


def _shape(value: Any, rows: int, tokens: int, size: tuple[int, int] | None) -> list[int]:
    """Of made-up content: the declared shape, what is free filled in."""
    declared = flow.dims(value)
    if declared is None or len(declared) not in (2, 3, 4):
        raise ModelError(f"the input {said(value.name)} is declared with the shape {declared}: it takes no content.")
    if len(declared) < 4:
        return [declared[0] or rows, *(d or tokens for d in declared[1:])]
    height, width = size or (224, 224)
    last = declared[3] in (1, 3) and declared[1] not in (1, 3)
    free = [rows, height, width, 3] if last else [rows, 3, height, width]
    shape = [d or f for d, f in zip(declared, free, strict=True)]
    if size and shape[1:] != free[1:]:
        raise ModelError(
            f"it takes pictures {said_shape(shape[1:])}, and the preprocessing gives {said_shape(free[1:])}."
        )
    return shape


def said_shape(dims: Sequence[int]) -> str:
    """Dimensions in words."""
    return " x ".join(map(str, dims))


def observe(
    model: Any,
    names: Iterable[str],
    feeds: Sequence[Mapping[str, NDArray[Any]]],
    folder: Path | None,
    typed: Iterable[str] = (),
) -> tuple[list[dict[str, tuple[int, ...]]], dict[str, bool]]:
    """The shapes of the named tensors on each feed, and which of those `typed` hold floating-point numbers.

    Nothing but shapes leaves the runtime.
    """
    from onnx import TensorProto, helper

    probe = type(model)()
    probe.CopyFrom(model)
    wanted, asked = list(dict.fromkeys(names)), list(dict.fromkeys(typed))
    probe.graph.ClearField("output")
    for i, name in enumerate(wanted):
        probe.graph.node.append(helper.make_node("Shape", [name], [f"headstart/shape{i}"]))
        probe.graph.output.append(helper.make_tensor_value_info(f"headstart/shape{i}", TensorProto.INT64, [None]))
    for name in asked:
        probe.graph.output.add(name=name)  # the runtime finds its type
    opened = session(probe, folder, plain=True)
    outputs = [f"headstart/shape{i}" for i in range(len(wanted))]
    seen = [
        {name: tuple(map(int, dims)) for name, dims in zip(wanted, run(opened, outputs, one), strict=True)}
        for one in feeds
    ]
    types = {output.name: output.type for output in opened.get_outputs()}
    return seen, {name: types[name] in ("tensor(float)", "tensor(float16)", "tensor(double)") for name in asked}
