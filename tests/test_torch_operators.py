"""Operator by operator: a graph of one node gives in torch what it gives in ONNX Runtime."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper  # noqa: E402

from headstart.errors import HeadstartError, ModelError  # noqa: E402
from headstart.graph.shapes import run, session  # noqa: E402
from headstart.training import operators  # noqa: E402
from headstart.training.graph import Graph  # noqa: E402

pytestmark = pytest.mark.torch
few = settings(max_examples=12, deadline=None)
seeds = st.integers(0, 2**16)
opsets = st.sampled_from([9, 11, 13, 17, 18, 20, 21])


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def shapes(least=1, most=4, side=4):
    return st.lists(st.integers(1, side), min_size=least, max_size=most).map(tuple)


def draw(seed, *dims, kind=np.float32):
    found = np.random.default_rng(seed).normal(0, 1.5, dims)
    return found.astype(kind) if kind != np.int64 else np.round(found * 3).astype(kind)


def model(kind, inputs, fixed, opset, domain, outputs, attributes):
    """One node; inputs with a number in `fixed` are initialisers, None is left out."""
    names = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
    node = helper.make_node(
        kind, names, [f"y{i}" for i in range(outputs)], name="the node", domain=domain, **attributes
    )
    free = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim)
        for i, (name, value) in enumerate(zip(names, inputs, strict=True)) if value is not None and i not in fixed
    ]  # fmt: skip
    weights = [numpy_helper.from_array(inputs[i], names[i]) for i in sorted(fixed) if inputs[i] is not None]
    made = [ValueInfoProto(name=f"y{i}") for i in range(outputs)]
    graph = helper.make_graph([node], "one", free, made, weights)
    ids = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=ids, ir_version=8)


def same(kind, *inputs, fixed=(), opset=17, domain="", outputs=1, tolerance=1e-5, **attributes):
    """The node gives the same in both, whether its inputs are known beforehand (`fixed`, or all but the first) or not."""
    arrays = [None if x is None else np.asarray(x) for x in inputs]
    for known in {frozenset(fixed), frozenset(fixed) | frozenset(range(1, len(arrays)))}:
        made = model(kind, arrays, known, opset, domain, outputs, attributes)
        feed = {f"x{i}": x for i, x in enumerate(arrays) if x is not None and i not in known}
        want = run(session(made, None), [f"y{i}" for i in range(outputs)], feed)
        graph = Graph(made, trainable=[])
        got = graph({name: torch.from_numpy(np.array(x)) for name, x in feed.items()})
        for one, other in zip(got, want, strict=True):
            assert tuple(one.shape) == other.shape
            assert one.numpy().dtype == other.dtype
            scale = max(1.0, float(np.abs(other[np.isfinite(other)]).max(initial=0))) if other.dtype.kind == "f" else 1
            np.testing.assert_allclose(one.numpy(), other, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize(
    "kind", ["Add", "Sub", "Mul", "Div", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Equal"]
)
@few
@given(shape=shapes(), seed=seeds, left=st.integers(0, 4), right=st.integers(0, 15), whole=st.booleans())
def test_pairs_broadcast(kind, shape, seed, left, right, whole):
    dtype = np.int64 if whole else np.float32
    a = draw(seed, *shape, kind=dtype)
    b = draw(seed + 1, *(1 if right >> i & 1 else d for i, d in enumerate(shape)), kind=dtype)
    if left < b.ndim:
        b = b[(0,) * left]
    if kind == "Div" and whole:
        b = np.where(b == 0, 1, b)
    same(kind, a, b)


@pytest.mark.parametrize("kind", ["Max", "Min", "Sum", "Mean"])
@few
@given(shape=shapes(), seed=seeds, many=st.integers(1, 4))
def test_any_number_of_tensors(kind, shape, seed, many):
    same(kind, *(draw(seed + i, *shape[i % len(shape) :]) for i in range(many)), opset=13)


@pytest.mark.parametrize("kind", ["And", "Or", "Xor"])
def test_truth(kind):
    a, b = np.array([[True, True, False, False]]).T, np.array([True, False])
    same(kind, a, b)
    same("Not", a)


ALONE = [
    "Sqrt", "Neg", "Exp", "Log", "Abs", "Reciprocal", "Sign", "Floor", "Ceil", "Round", "Sin",
    "Cos", "Tan", "Atan", "Sinh", "Cosh", "Erf", "Tanh",
    "Sigmoid", "Relu", "LeakyRelu", "Elu", "Celu", "Selu", "HardSigmoid", "HardSwish", "Softplus", "Softsign", "Mish", "ThresholdedRelu", "Identity", "IsNaN", "IsInf", "Gelu",
]  # fmt: skip


@pytest.mark.parametrize("kind", ALONE)
@settings(max_examples=5, deadline=None)
@given(shape=shapes(0), seed=seeds)
def test_one_tensor(kind, shape, seed):
    x = draw(seed, *shape)
    if kind in ("Sqrt", "Log", "Reciprocal"):
        x = np.abs(x) + np.float32(0.1)
    if kind in ("IsNaN", "IsInf") and x.size > 2:
        x.ravel()[:3] = np.nan, np.inf, -np.inf
    if kind == "Round" and x.size > 3:
        x.ravel()[:4] = 0.5, 1.5, 2.5, -0.5
    same(kind, x, opset=20)


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("LeakyRelu", {"alpha": 0.3}), ("Elu", {"alpha": 0.5}), ("Celu", {"alpha": 2.0}), ("Selu", {"alpha": 2.0, "gamma": 0.5}),
        ("HardSigmoid", {"alpha": 0.5, "beta": 0.1}), ("ThresholdedRelu", {"alpha": 0.2}),
        ("Gelu", {"approximate": "tanh"}), ("IsInf", {"detect_negative": 0}), ("IsInf", {"detect_positive": 0}),
    ],
)  # fmt: skip
def test_activations_with_attributes(kind, attributes):
    same(kind, np.array([-np.inf, -2.0, -0.1, 0.0, 0.15, 3.0, np.inf], np.float32)[1 if kind != "IsInf" else 0 : -1],
         opset=20, **attributes)  # fmt: skip


@few
@given(shape=shapes(1, 3), seed=seeds, power=st.sampled_from([2.0, 0.5, 3.0, -1.0, 1.7]))
def test_powers(shape, seed, power):
    same("Pow", np.abs(draw(seed, *shape)) + np.float32(0.1), np.float32(power))
    same("Pow", draw(seed, *shape, kind=np.int64), np.float32(2.0))


@few
@given(shape=shapes(1, 3), seed=seeds, fmod=st.booleans(), whole=st.booleans())
def test_remainders(shape, seed, fmod, whole):
    b = draw(seed + 1, *shape, kind=np.int64)
    b = np.where(b == 0, 2, b)
    if whole:
        same("Mod", draw(seed, *shape, kind=np.int64), b, fmod=int(fmod))
    else:
        same("Mod", draw(seed, *shape), b.astype(np.float32), fmod=1)


@few
@given(seed=seeds, low=st.none() | st.floats(-1, 0, width=32), high=st.none() | st.floats(0, 1, width=32))
def test_clip(seed, low, high):
    bounds = [None if v is None else np.float32(v) for v in (low, high)]
    same("Clip", draw(seed, 3, 4), *bounds, opset=13)
    same(
        "Clip",
        draw(seed, 3, 4),
        opset=9,
        **{k: float(v) for k, v in zip(("min", "max"), bounds, strict=True) if v is not None},
    )


@pytest.mark.parametrize(
    "to", [TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.DOUBLE]
)
@pytest.mark.parametrize("kind", [np.float32, np.int64, np.bool_])
def test_casts(kind, to):
    x = draw(1, 3, 5).astype(kind)
    same("Cast", x, to=to)
    same("CastLike", x, np.zeros(1, helper.tensor_dtype_to_np_dtype(to)))


def test_half_precision_is_computed_in_single():
    made = model("Cast", [draw(0, 3)], (), 17, "", 1, {"to": TensorProto.FLOAT16})
    x = torch.tensor([1.00001, 2.0, 3.0])
    assert torch.equal(Graph(made)({"x0": x})[0], x)


@few
@given(shape=shapes(), seed=seeds, where=st.integers(0, 7))
def test_where(shape, seed, where):
    mask = draw(seed, *(1 if where >> i & 1 else d for i, d in enumerate(shape))) > 0
    same("Where", mask, draw(seed + 1, *shape), draw(seed + 2, shape[-1]))


REDUCE = [
    "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd",
    "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp",
]  # fmt: skip


@pytest.mark.parametrize("kind", REDUCE)
@few
@given(data=st.data(), shape=shapes(), seed=seeds, opset=opsets, keep=st.booleans(), empty=st.booleans())
def test_reductions(kind, data, shape, seed, opset, keep, empty):
    x = draw(seed, *shape)
    if kind == "ReduceLogSum":
        x = np.abs(x) + np.float32(0.1)
    axes = data.draw(st.lists(st.integers(-len(shape), len(shape) - 1), max_size=3, unique_by=lambda a: a % len(shape)))
    if opset < 11:
        axes = [a % len(shape) for a in axes]
    if opset >= (13 if kind == "ReduceSum" else 18):
        given = [np.array(axes, np.int64)] if axes or empty else []
        same(kind, x, *given, opset=opset, keepdims=int(keep), noop_with_empty_axes=int(empty))
    else:
        same(kind, x, opset=opset, keepdims=int(keep), **({"axes": axes} if axes else {}))


@pytest.mark.parametrize("kind", ["ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd"])
def test_reductions_of_whole_numbers(kind):
    x = draw(3, 3, 4, kind=np.int64)
    same(kind, x, opset=11, axes=[1])
    same(kind, x.astype(np.int32), opset=11, axes=[0], keepdims=0)


@few
@given(
    data=st.data(),
    shape=shapes(1, 3),
    seed=seeds,
    keep=st.booleans(),
    last=st.booleans(),
    kind=st.sampled_from(["ArgMax", "ArgMin"]),
)
def test_places_of_the_largest(data, shape, seed, keep, last, kind):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = np.round(draw(seed, *shape))
    same(kind, x, opset=13, axis=axis, keepdims=int(keep), select_last_index=int(last))


@few
@given(
    data=st.data(), shape=shapes(1, 3), seed=seeds, exclusive=st.booleans(), reverse=st.booleans(), whole=st.booleans()
)
def test_running_sums(data, shape, seed, exclusive, reverse, whole):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = draw(seed, *shape, kind=np.int64 if whole else np.float32)
    same("CumSum", x, np.array(axis), fixed=[1], exclusive=int(exclusive), reverse=int(reverse))


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
@few
@given(data=st.data(), shape=shapes(1, 4), seed=seeds, opset=opsets)
def test_softmax(kind, data, shape, seed, opset):
    least = 0 if opset < 11 else -len(shape)
    axis = data.draw(st.integers(least, len(shape) - 1))
    same(kind, draw(seed, *shape), opset=opset, axis=axis)


def test_the_largest_few_and_unit_length():
    x = draw(5, 3, 7)
    same("TopK", x, np.array([3]), outputs=2, axis=-1)
    same("TopK", x, np.array([2]), outputs=2, axis=0, largest=0)
    x[1] = 0
    same("LpNormalization", x, axis=-1, p=2)
    same("LpNormalization", x, axis=0, p=1)


@pytest.mark.parametrize(
    ("dims", "zero"),
    [
        ((0, -1), 0),
        ((-1,), 0),
        ((2, 0, 2, 2), 0),
        ((4, -1, 3), 0),
        ((24,), 0),
        ((6, 1, 0), 0),
        ((2, 3, 4), 1),
        ((-1, 0, 1, 4), 0),
    ],
)
def test_reshape(dims, zero):
    same("Reshape", draw(0, 2, 3, 4), np.array(dims), allowzero=zero)


def test_shapes_of_nothing():
    same("Reshape", np.zeros((0, 6), np.float32), np.array([0, 2, 3]))
    same("Reshape", np.zeros((0, 6), np.float32), np.array([-1, 3]))
    same("Reshape", np.zeros((0, 6), np.float32), np.array([0, 2]), allowzero=1)
    same("Flatten", np.zeros((2, 0, 3), np.float32), axis=1)
    same("Concat", np.zeros((0, 3), np.float32), draw(1, 2, 3), axis=0)


@few
@given(data=st.data(), shape=shapes(1, 4), seed=seeds)
def test_transpose_flatten_expand_tile(data, shape, seed):
    x = draw(seed, *shape)
    same("Transpose", x)
    same("Transpose", x, perm=data.draw(st.permutations(range(len(shape)))))
    same("Flatten", x, axis=data.draw(st.integers(-len(shape), len(shape))))
    same("Tile", x, np.array(data.draw(st.lists(st.integers(1, 3), min_size=len(shape), max_size=len(shape)))))
    small = x[tuple(slice(0, 1) if data.draw(st.booleans()) else slice(None) for _ in shape)]
    same("Expand", small, np.array([2, *shape]))
    same("Expand", x, np.array([1] * data.draw(st.integers(1, len(shape)))))
    same("Shape", x, start=data.draw(st.integers(-5, 4)), end=data.draw(st.integers(-5, 5)))
    same("Shape", x)
    same("Size", x)


@few
@given(data=st.data(), shape=shapes(1, 3), seed=seeds, old=st.booleans())
def test_squeeze_and_unsqueeze(data, shape, seed, old):
    rank = len(shape) + 2
    axes = data.draw(
        st.lists(st.integers(0 if old else -rank, rank - 1), min_size=2, max_size=2, unique_by=lambda a: a % rank)
    )
    x = draw(seed, *shape)
    if old:
        same("Unsqueeze", x, opset=11, axes=axes)
    else:
        same("Unsqueeze", x, np.array(axes))
    wide = np.expand_dims(x, tuple(a % rank for a in axes))
    if old:
        same("Squeeze", wide, opset=11, axes=axes)
    else:
        same("Squeeze", wide, np.array(axes))
        same("Squeeze", wide)


@few
@given(data=st.data(), shape=shapes(1, 3), seed=seeds, many=st.integers(1, 4))
def test_concat_and_split(data, shape, seed, many):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    sizes = data.draw(st.lists(st.integers(0, 3), min_size=many, max_size=many).filter(any))
    parts = []
    for i, size in enumerate(sizes):
        dims = list(shape)
        dims[axis] = size
        parts.append(draw(seed + i, *dims))
    same("Concat", *parts, axis=axis)
    together = np.concatenate(parts, axis)
    same("Split", together, np.array(sizes), outputs=many, axis=axis)
    same("Split", together, opset=11, outputs=many, axis=axis, split=sizes)
    if together.shape[axis] >= many and -(-together.shape[axis] // many) * (many - 1) < together.shape[axis]:
        same("Split", together, opset=18, outputs=many, axis=axis, num_outputs=many)


@few
@given(data=st.data(), shape=shapes(1, 3, 6), seed=seeds)
def test_slices(data, shape, seed):
    axes = data.draw(st.lists(st.integers(-len(shape), len(shape) - 1), min_size=1, unique_by=lambda a: a % len(shape)))
    ends = st.integers(-8, 8) | st.sampled_from([2**31 - 1, 2**63 - 1, -(2**31)])
    starts = [data.draw(st.integers(-8, 8)) for _ in axes]
    stops = [data.draw(ends) for _ in axes]
    steps = [data.draw(st.sampled_from([1, 1, 2, 3, -1, -2])) for _ in axes]
    same("Slice", draw(seed, *shape), *map(np.array, (starts, stops, axes, steps)), fixed=[3])
    same("Slice", draw(seed, *shape), np.array(starts[:1]), np.array(stops[:1]))
    same("Slice", draw(seed, *shape), opset=9, starts=starts, ends=stops, axes=[a % len(shape) for a in axes])


@few
@given(data=st.data(), shape=shapes(1, 4), seed=seeds, to=shapes(0, 3))
def test_gathering(data, shape, seed, to):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x, source = draw(seed, *shape), np.random.default_rng(seed)
    same("Gather", x, source.integers(-shape[axis], shape[axis], to), axis=axis)
    same("Gather", x, source.integers(0, shape[axis], to).astype(np.int32), axis=axis)
    dims = list(shape)
    dims[axis] = 3
    same("GatherElements", x, source.integers(-shape[axis], shape[axis], dims), axis=axis)
    same(
        "ScatterElements",
        x,
        source.permutation(shape[axis])[:1].reshape([1] * len(shape)),
        draw(seed, *[1] * len(shape)),
        axis=axis,
    )


@few
@given(data=st.data(), shape=shapes(2, 4), seed=seeds)
def test_gathering_along_several_axes(data, shape, seed):
    lead = data.draw(st.integers(0, len(shape) - 1))
    deep = data.draw(st.integers(1, len(shape) - lead))
    source = np.random.default_rng(seed)
    index = np.stack([source.integers(-shape[lead + i], shape[lead + i], (*shape[:lead], 2)) for i in range(deep)], -1)
    same("GatherND", draw(seed, *shape), index, batch_dims=lead)
    if not lead:
        rows = np.stack([source.permutation(min(shape))[:1] for _ in range(deep)], -1)
        same("ScatterND", draw(seed, *shape), rows, draw(seed + 1, 1, *shape[deep:]))
        twice = np.concatenate([rows, rows])
        same("ScatterND", draw(seed, *shape), twice, draw(seed + 1, 2, *shape[deep:]), reduction="add", opset=18)


def test_made_out_of_nothing():
    same("ConstantOfShape", np.array([2, 3]))
    same("ConstantOfShape", np.array([2, 3]), value=numpy_helper.from_array(np.array([7])))
    same("ConstantOfShape", np.array([], np.int64), value=numpy_helper.from_array(np.array([True])))
    same("Range", np.array(2), np.array(9), np.array(3))
    same("Range", np.float32(1), np.float32(2), np.float32(0.25))
    same("NonZero", np.array([[1, 0, 2], [0, 0, 3]]))
    same("OneHot", np.array([[0, 2], [-1, 1]]), np.array([3]), np.array([0.5, 2.0], np.float32))
    same("OneHot", np.array([0, 2]), np.array([3]), np.array([0, 1]), axis=0)


@few
@given(shape=shapes(2, 3), seed=seeds, k=st.integers(-3, 3), upper=st.booleans())
def test_triangles(shape, seed, k, upper):
    same("Trilu", draw(seed, *shape), np.array(k), upper=int(upper))
    same("Trilu", draw(seed, *shape), upper=int(upper))


@few
@given(data=st.data(), shape=shapes(1, 4, 5), seed=seeds, mode=st.sampled_from(["constant", "reflect", "edge", "wrap"]))
def test_margins(data, shape, seed, mode):
    most = 3 if mode == "constant" else min(shape) - (mode == "reflect")
    width = st.integers(0, most)
    pads = data.draw(st.lists(width, min_size=2 * len(shape), max_size=2 * len(shape)))
    x = draw(seed, *shape)
    same("Pad", x, np.array(pads), opset=19, mode=mode)
    if mode == "constant":
        same("Pad", x, np.array(pads), np.float32(1.5), fixed=[1], mode=mode)
        same("Pad", x, np.array([1, 2]), np.float32(1.5), np.array([-1]), opset=18)
        same("Pad", x, opset=9, pads=pads, value=0.5)


@few
@given(
    data=st.data(),
    seed=seeds,
    left=st.booleans(),
    right=st.booleans(),
    alpha=st.sampled_from([1.0, 0.5]),
    beta=st.sampled_from([1.0, 2.0]),
)
def test_gemm(data, seed, left, right, alpha, beta):
    m, k, n = (data.draw(st.integers(1, 5)) for _ in range(3))
    a, b = draw(seed, *((k, m) if left else (m, k))), draw(seed + 1, *((n, k) if right else (k, n)))
    c = data.draw(st.sampled_from([None, (n,), (1, n), (m, 1), (m, n), (), (1,)]))
    attributes = {"transA": int(left), "transB": int(right), "alpha": alpha, "beta": beta}
    same("Gemm", a, b, *([] if c is None else [draw(seed + 2, *c)]), **attributes)


@few
@given(seed=seeds, lead=shapes(0, 2, 3), k=st.integers(1, 5))
def test_products(seed, lead, k):
    a, b = draw(seed, *lead, 3, k), draw(seed + 1, k, 2)
    same("MatMul", a, b)
    same("MatMul", a, draw(seed + 1, *lead, k, 2))
    same("MatMul", draw(seed, k), draw(seed, *lead, k, 2))
    same("MatMul", a, draw(seed, k))
    same("FusedMatMul", a, draw(seed, *lead, 2, k), domain="com.microsoft", transB=1, alpha=0.5)
    same("FusedMatMul", draw(seed, *lead, k, 3), draw(seed, *lead, k, 2), domain="com.microsoft", transA=1)
    same("Einsum", draw(seed, 2, 3, k), draw(seed, k, 4), equation="b i j, j k -> b i k")


@few
@given(data=st.data(), shape=shapes(1, 4), seed=seeds, bias=st.booleans(), tiny=st.sampled_from([1e-5, 1e-12, 0.1]))
def test_layer_norm(data, shape, seed, bias, tiny):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    inner = shape[axis % len(shape) :]
    if math.prod(inner) < 2:
        inner = shape = (*shape[: axis % len(shape)], 3)
        axis = -1
    rest = [draw(seed + 2, *inner)] if bias else []
    same(
        "LayerNormalization", draw(seed, *shape), draw(seed + 1, *inner), *rest, axis=axis, epsilon=tiny, tolerance=2e-5
    )
    same(
        "LayerNormalization",
        draw(seed, *shape),
        draw(seed + 1, *inner),
        *rest,
        outputs=3,
        axis=axis,
        epsilon=tiny + 1e-3,
        tolerance=2e-5,
    )
    same("RMSNormalization", draw(seed, *shape), draw(seed + 1, *inner), opset=23, axis=axis, epsilon=tiny)
    same("SimplifiedLayerNormalization", draw(seed, *shape), draw(seed + 1, shape[-1]), axis=-1, epsilon=tiny)


@few
@given(seed=seeds, n=st.integers(1, 3), groups=st.integers(1, 3), size=st.integers(1, 4))
def test_norms_of_pictures(seed, n, groups, size):
    c = 2 * groups
    x, scale, bias = draw(seed, n, c, size, 2), draw(seed + 1, c), draw(seed + 2, c)
    same(
        "BatchNormalization",
        x,
        scale,
        bias,
        draw(seed + 3, c),
        np.abs(draw(seed + 4, c)) + np.float32(0.1),
        epsilon=1e-3,
    )
    same("InstanceNormalization", x, scale, bias, epsilon=1e-2)
    same("GroupNormalization", x, scale, bias, opset=21, num_groups=groups, epsilon=1e-2)
    same("GroupNormalization", x, scale[:groups], bias[:groups], opset=18, num_groups=groups, epsilon=1e-2)
    same("LRN", draw(seed, n, c, size, 2), size=3, alpha=0.1, beta=0.6, bias=2.0)


def test_fused_activations_and_norms():
    x, skip, d = draw(0, 2, 3, 8), draw(1, 2, 3, 8), [draw(2 + i, 8) for i in range(3)]
    ms = {"domain": "com.microsoft"}
    same("Gelu", x, **ms)
    same("BiasGelu", x, d[0], **ms)
    same("FastGelu", x, d[0], **ms)
    same("FastGelu", x, **ms)
    same("QuickGelu", x, alpha=1.5, **ms)
    same("SkipLayerNormalization", x, skip, d[0], d[1], d[2], epsilon=1e-3, **ms)
    same("SkipLayerNormalization", x, skip, d[0], d[1], **ms)
    same("SkipSimplifiedLayerNormalization", x, skip, d[0], epsilon=1e-3, **ms)


@few
@given(data=st.data(), seed=seeds, rank=st.integers(1, 2), group=st.integers(1, 3), bias=st.booleans())
def test_convolution(data, seed, rank, group, bias):
    def each(low, high):
        return data.draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))

    kernel, stride, holes = each(1, 3), each(1, 3), each(1, 2)
    x = draw(seed, 2, 2 * group, *each(5, 8))
    weight = draw(seed + 1, 3 * group, 2, *kernel)
    rest = [draw(seed + 2, 3 * group)] if bias else []
    how = {"strides": stride, "group": group}
    same("Conv", x, weight, *rest, dilations=holes, pads=each(0, 2) + each(0, 2), **how)
    same("Conv", x, weight, *rest, auto_pad=data.draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"])), **how)
    same("Conv", x, weight, *rest) if group == 1 else None
    turned = draw(seed + 1, 2 * group, 3, *kernel)
    more = [min(m, s - 1) for m, s in zip(each(0, 1), stride, strict=True)]
    same(
        "ConvTranspose",
        x,
        turned,
        *([draw(seed + 2, 3 * group)] if bias else []),
        output_padding=more,
        pads=[k // 2 for k in kernel] * 2,
        **how,
    )


@few
@given(data=st.data(), seed=seeds, rank=st.integers(1, 2), up=st.booleans(), counted=st.booleans())
def test_pooling(data, seed, rank, up, counted):
    def each(low, high):
        return data.draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))

    x, kernel, stride = draw(seed, 2, 3, *each(5, 9)), each(2, 3), each(1, 3)
    how = {"kernel_shape": kernel, "strides": stride, "ceil_mode": int(up)}
    pads = [data.draw(st.integers(0, k - 1)) for k in kernel * 2]
    same("MaxPool", x, pads=pads, dilations=each(1, 2), **how)
    same("AveragePool", x, opset=19, pads=pads, count_include_pad=int(counted), **how)
    auto = data.draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
    stride = [min(pair) for pair in zip(stride, kernel, strict=True)]  # ONNX Runtime refuses gaps here
    same("MaxPool", x, auto_pad=auto, kernel_shape=kernel, strides=stride)
    same("AveragePool", x, auto_pad=auto, kernel_shape=kernel, strides=stride, count_include_pad=int(counted))
    same("GlobalAveragePool", x)
    same("GlobalMaxPool", x)


@few
@given(seed=seeds, mode=st.sampled_from(["nearest", "linear", "cubic"]), up=st.booleans(),
       how=st.sampled_from(["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]),
       near=st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
       size=st.tuples(st.integers(1, 9), st.integers(1, 9)))  # fmt: skip
def test_resize(seed, mode, up, how, near, size):
    x = draw(seed, 1, 2, 5, 4)
    attributes = {"mode": mode, "coordinate_transformation_mode": how} | (
        {"nearest_mode": near} if mode == "nearest" else {}
    )
    if up and how != "align_corners":
        same("Resize", x, None, np.array([1, 1, 2, 3], np.float32), **attributes)
    if mode != "nearest":
        same("Resize", x, None, None, np.array([1, 2, *size]), fixed=[3], **attributes)
    if up and mode != "cubic":
        same("Upsample", x, np.array([1, 1, 2, 3], np.float32), opset=9, mode=mode)


def test_depth_and_space():
    x = draw(0, 2, 8, 4, 6)
    same("DepthToSpace", x, blocksize=2)
    same("DepthToSpace", x, blocksize=2, mode="CRD")
    same("SpaceToDepth", x, blocksize=2)
    same("PRelu", x, draw(1, 8, 1, 1))


@pytest.mark.parametrize("masked", ["no", "row", "lengths", "bias"])
def test_attention_of_onnx_runtime(masked):
    x, d = draw(0, 2, 5, 8), 8
    mask = {"row": np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int32), "lengths": np.array([5, 3], np.int32)}.get(
        masked
    )
    extra = draw(4, 2, 2, 5, 5) if masked == "bias" else None
    ms = {"domain": "com.microsoft", "num_heads": 2}
    same("Attention", x, draw(1, d, 3 * d), draw(2, 3 * d), mask, None, extra, fixed=[1, 2], **ms)
    if masked != "lengths":
        same("MultiHeadAttention", x, draw(5, 2, 5, d), draw(6, 2, 5, d), draw(2, 3 * d), mask, extra, fixed=[3], **ms)


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_of_onnx(causal, masked):
    mask = draw(3, 5, 5) if masked else None
    q, k, v = (draw(i, 2, n, 5, 4) for i, n in enumerate((4, 2, 2)))
    same("Attention", q, k, v, mask, opset=23, is_causal=causal, scale=0.3)
    same("Attention", *(np.ascontiguousarray(a.transpose(0, 2, 1, 3).reshape(2, 5, -1)) for a in (q, k, v)), mask,
         opset=23, is_causal=causal, q_num_heads=4, kv_num_heads=2)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "attributes", "extra"),
    [
        ("ScatterND", {"reduction": "mul"}, [np.array([[0]]), np.zeros(1, np.float32)]),
        ("MaxPool", {"kernel_shape": [1]}, []),
        ("Resize", {"antialias": 1}, [None, np.ones(1, np.float32)]),
    ],
)
def test_what_is_not_known_is_said_with_the_node(kind, attributes, extra):
    outputs = 2 if kind == "MaxPool" else 1
    made = model(kind, [draw(0, 3), *extra], (), 18, "", outputs, attributes)
    with pytest.raises(ModelError, match=f"'the node' \\({kind}\\)"):
        Graph(made)


def test_shapes_that_do_not_fit_are_said_with_the_node():
    graph = Graph(model("MatMul", [draw(0, 2, 3), draw(1, 3, 2)], (), 17, "", 1, {}))
    with pytest.raises(HeadstartError, match=r"'the node' \(MatMul\) cannot be run on \(2, 3\), \(4, 2\)"):
        graph({"x0": torch.zeros(2, 3), "x1": torch.zeros(4, 2)})


def test_every_operator_is_one_of_onnx():
    import onnx

    assert {k for k in operators.OPERATORS if not onnx.defs.has(k)} <= {"SimplifiedLayerNormalization"}
