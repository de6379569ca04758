"""A graph exported for one row at a time, made one for n."""

from __future__ import annotations

from typing import Any

from headstart.graph import flow


def freed(model: Any, modality: str | None = None) -> Any:
    """A copy whose first dimension is free, and the shapes of reshapes with it; the model itself where it is free.

    Whether the copy gives the same for every row is for the caller to see: taps.anatomy does.
    """
    import numpy as np
    from onnx import numpy_helper

    main = flow.data(model, modality)
    batch = (flow.dims(main) or [None])[0]
    if batch is None:
        return model
    new = type(model)()
    new.CopyFrom(model)
    graph = new.graph
    for value in (*graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if len(dims) and dims[0].HasField("dim_value") and dims[0].dim_value == batch:
            dims[0].dim_param = "n"
    graph.ClearField("value_info")
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            constants.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
    content = flow.carried(graph.node, main.name)
    for i, node in enumerate(graph.node):
        if node.op_type != "Reshape" or node.input[0] not in content or node.input[1] not in constants:
            continue
        shape = numpy_helper.to_array(constants[node.input[1]]).copy()
        if len(shape) < 2 or shape[0] != batch:
            continue
        shape[0] = 0 if (shape[1:] == -1).any() else -1  # 0: as it comes in
        name = f"headstart/shape of node {i}"
        graph.initializer.append(numpy_helper.from_array(shape.astype(np.int64), name))
        node.input[1] = name
    return new
