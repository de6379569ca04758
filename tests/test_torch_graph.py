"""Graphs as torch modules: equal to ONNX Runtime, with the right weights, gradients, updates of low rank, and back again."""

import copy
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import onnx  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from compress_networks import picture_network  # noqa: E402
from headstart.errors import InputError, MissingExtra, ModelError  # noqa: E402
from headstart.graph import cut, shapes, taps  # noqa: E402
from headstart.training.graph import Graph, lacking  # noqa: E402
from small_graphs import Graph as Made  # noqa: E402
from small_graphs import convolutions, transformer  # noqa: E402

pytestmark = pytest.mark.torch
CLOSE = 1e-5


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def feeds(model, n=3, t=7, seed=0, size=32):
    """Content and side inputs for a whole network, row 1 masked from its middle on."""
    draw, found = np.random.default_rng(seed), {}
    for value in model.graph.input:
        name, kind = value.name, value.type.tensor_type.elem_type
        if name in {tensor.name for tensor in model.graph.initializer}:
            continue
        if kind == TensorProto.FLOAT:
            dims = [d.dim_value or n for d in value.type.tensor_type.shape.dim]
            found[name] = draw.standard_normal(dims).astype(np.float32)
        elif name == "attention_mask":
            found[name] = np.ones((n, t), np.int64)
            found[name][1:2, t // 2 :] = 0
        else:
            found[name] = draw.integers(0, 2 if name == "token_type_ids" else 40, (n, t))
    return found


def tensors(feed):
    return {name: torch.from_numpy(np.array(value)) for name, value in feed.items()}


def runtime(model, feed):
    return shapes.run(shapes.session(model, None), [value.name for value in model.graph.output], feed)


def apart(got, want):
    """The largest difference, as a share of the largest value."""
    return max(
        float(np.abs(one.detach().numpy() - other).max()) / max(1.0, float(np.abs(other).max()))
        for one, other in zip(got, want, strict=True)
    )


def equal(model, feed, **how):
    graph = Graph(model, **how).eval()
    assert apart(graph(tensors(feed)), runtime(model, feed)) < CLOSE
    return graph


@pytest.fixture(scope="module")
def minilm():
    from headstart.backbones import minilm as built_in

    try:
        folder = built_in.weights()
    except InputError:
        pytest.skip("the weights of all-MiniLM-L6-v2 are not installed")
    model = onnx.load(str(built_in.GRAPHS["float32"]), load_external_data=False)
    onnx.external_data_helper.load_external_data_for_model(model, str(folder))
    tap = next(found for found in taps.find(model) if found.name == "4")
    output = next(v.name for v in model.graph.output if v.name.endswith("6"))
    return cut.halves(model, tap, output)


def minilm_feed(below, n=4, t=9):
    ids = np.random.default_rng(0).integers(1000, 2000, (n, t))
    feed = {"input_ids": ids, "attention_mask": np.ones((n, t), np.int64), "token_type_ids": np.zeros((n, t), np.int64)}
    feed["attention_mask"][1, 4:] = 0
    given = {v.name for v in below.graph.input}
    lower = runtime(below, {name: value for name, value in feed.items() if name in given})
    return feed, dict(zip([v.name for v in below.graph.output], lower, strict=True))


@pytest.mark.parametrize("pre", [False, True])
@pytest.mark.parametrize("opset", [13, 17])
def test_transformers_are_equal(pre, opset):
    model, _ = transformer(2, pre=pre, opset=opset)
    equal(model, feeds(model))
    equal(model, feeds(model, n=1, t=1))


def test_picture_networks_are_equal():
    for model in (convolutions()[0], convolutions(flat="Reshape", batch=3)[0], convolutions(classes=True)[0]):
        equal(model, feeds(model))
    made = picture_network().model
    equal(made, feeds(made))


def test_the_upper_half_of_minilm_is_equal(minilm):
    below, above = minilm
    feed, lower = minilm_feed(below)
    given = {v.name: lower.get(v.name, feed.get(v.name)) for v in above.graph.input}
    graph = equal(above, given)
    names = set(graph.weights())
    assert len([n for n in names if "layer.4" in n]) == len([n for n in names if "layer.5" in n]) == 16
    assert all(name.startswith("encoder.layer.") for name in names)
    assert lacking(above) == []


def test_mobilenets_are_equal(shared):
    files = sorted((shared / "backbones").glob("*.onnx"))
    assert files
    for path in files:
        model = onnx.load(str(path))
        value = model.graph.input[0]
        dims = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
        feed = {value.name: np.random.default_rng(0).uniform(-1, 1, dims).astype(np.float32)}
        graph = equal(model, feed)
        moving = {n for node in model.graph.node if node.op_type == "BatchNormalization" for n in node.input[3:5]}
        assert not moving & set(graph.weights())
        floats = {t.name for t in model.graph.initializer if t.data_type == 1 and np.prod(t.dims) > 1}
        assert set(graph.weights()) == floats - moving


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
WORDS = {"vocab_size": 60, "max_position_embeddings": 64, **SMALL}
PICTURE = {"image_size": 32, "patch_size": 8, **SMALL}
EXPORTED = {
    "BertConfig": WORDS,
    "MPNetConfig": WORDS,
    "ModernBertConfig": WORDS | dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0),
    "DistilBertConfig": {"vocab_size": 60, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    "RobertaConfig": WORDS,
    "ViTConfig": PICTURE,
    "Dinov2Config": {name: value for name, value in PICTURE.items() if name != "intermediate_size"},
    "ConvNextConfig": {"image_size": 32, "hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "patch_size": 2},
    "SwinConfig": {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", EXPORTED)
def test_exports_of_transformers_are_equal(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    from headstart.hub import foreign

    torch.manual_seed(0)
    with foreign._quiet():
        config = getattr(transformers, name)(**EXPORTED[name])
        transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
        pictures = [torch.randn(n, 3, 32, 32) for n in (1, 3, 2)]
        probes = pictures if "image_size" in EXPORTED[name] else foreign._probes(config.to_dict(), None)
        network, names = foreign._model(tmp_path, config.to_dict())
        (tmp_path / "new").mkdir()
        foreign._write(network, names, probes[-1], tmp_path / "new")
    model = onnx.load(str(tmp_path / "new" / "model.onnx"))
    for probe in probes:
        graph = equal(model, {names[0]: probe.numpy()})
    got = graph({names[0]: probes[-1]})[0]
    (got * torch.randn_like(got)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in graph.parameters())
    trained, all_of_it = (sum(p.numel() for p in one.parameters()) for one in (graph, network))
    assert trained > 0.9 * all_of_it  # the rest is the pooler, which is not in the graph


def test_what_is_a_weight():
    g = Made()
    x = g.given("x", TensorProto.FLOAT, ["n", 4, 8])
    place = g.given("position_ids", TensorProto.INT64, ["n", 4])
    W, b, scale, token, table, shift = (
        g.weight(8, 8),
        g.weight(8),
        g.weight(8),
        g.weight(1, 1, 8),
        g.weight(9, 8),
        g.weight(9, 8),
    )
    mask = g.constant(np.where(np.eye(5, dtype=bool), 0, -100).astype(np.float32))
    half, far = g.constant(np.float32(0.5)), g.constant(np.full((2,), 3, np.float32))
    turned = g.constant(np.float32(g.draw.normal(size=(8, 8))).astype(np.float16))
    first = g.op("Expand", token, g.op("Concat", g.op("Shape", x, end=1), g.constant(np.array([1, 8])), axis=0))
    y = g.op("Add", g.op("MatMul", x, W), b)
    y = g.op("Mul", g.op("Add", y, g.op("Gather", shift, place)), scale)
    y = g.op("Mul", y, g.op("Gather", table, place))  # as rotary positions
    y = g.op("Concat", first, y, axis=1)
    y = g.op("MatMul", y, g.op("Transpose", g.op("Cast", turned, to=1)))
    scores = g.op("Add", g.op("MatMul", y, g.op("Transpose", y, perm=[0, 2, 1])), mask)
    y = g.op("MatMul", g.op("Softmax", g.op("Mul", scores, half), axis=-1), y)
    g.op("Div", y, g.op("ReduceMax", far, keepdims=0), out="y")
    graph = Graph(g.model("y"))
    assert set(graph.weights()) == {W, b, scale, token, shift, turned}
    assert {p.dtype for p in graph.parameters()} == {torch.float32}
    assert set(Graph(g.model("y"), rank=2).weights()) == {W, turned}
    assert set(Graph(g.model("y"), trainable=[b, mask]).weights()) == {b, mask}
    assert len(graph._steps) == len(g.nodes) - 1  # the largest of constants is known


def test_running_statistics_are_never_trained():
    model = picture_network().model
    feed = tensors(feeds(model))
    graph = Graph(model).train()
    before = graph(feed)[0]
    assert {"a", "b", "c", "gain", "shift"} == set(graph.weights())
    assert torch.equal(graph(feed)[0], before)
    with pytest.raises(InputError, match="running mean"):
        Graph(model, trainable=["mean"])
    with pytest.raises(InputError, match="Did you mean 'gain'"):
        Graph(model, trainable=["gains"])


def test_a_weight_used_twice_stays_one():
    g = Made()
    x, W = g.given("x", TensorProto.FLOAT, ["n", 6]), g.weight(6, 6)
    g.op("MatMul", g.op("Tanh", g.op("MatMul", x, W)), g.op("Transpose", W), out="y")
    model = g.model("y", rank=2)
    graph = equal(model, {"x": np.eye(6, dtype=np.float32)})
    assert len(list(graph.parameters())) == 1
    equal(model, {"x": np.eye(6, dtype=np.float32)}, rank=2)


@pytest.mark.parametrize("rank", [None, 2])
def test_gradients_are_those_of_finite_differences(rank):
    torch.manual_seed(0)
    model, _ = transformer(1, d=8, words=10)
    graph = Graph(model, rank=rank).double()
    feed = {name: value % 10 for name, value in tensors(feeds(model, n=2, t=3)).items()}
    if rank:
        for up, _ in graph.weights().values():
            torch.nn.init.normal_(up)
    share = torch.randn(2, 3, 8, dtype=torch.float64)

    def loss():
        return (graph(feed)[0] * share).sum()

    loss().backward()
    with torch.no_grad():
        for parameter in graph.parameters():
            place = int(parameter.grad.abs().argmax())
            flat, step = parameter.view(-1), 1e-6
            flat[place] += step
            up = loss()
            flat[place] -= 2 * step
            slope = (up - loss()) / (2 * step)
            flat[place] += step
            assert torch.isclose(parameter.grad.view(-1)[place], slope, rtol=1e-5, atol=1e-7)


def written(model, changed):
    """The graph with new values in its initialisers."""
    new = copy.deepcopy(model)
    for tensor in new.graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name], tensor.name))
        elif f"{tensor.name}/up" in changed:
            value = numpy_helper.to_array(tensor) + changed[f"{tensor.name}/up"] @ changed[f"{tensor.name}/down"]
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return new


def step(graph, feed):
    torch.manual_seed(1)
    for _ in range(3):
        graph.zero_grad()
        got = graph(feed)[0]
        (got * torch.randn_like(got)).mean().backward()
        with torch.no_grad():
            for parameter in graph.parameters():
                parameter -= 0.01 * parameter.grad.sign()


@pytest.mark.parametrize("rank", [None, 3])
def test_what_was_trained_goes_back_into_the_graph(rank):
    model, _ = transformer(2)
    feed = feeds(model)
    graph = Graph(model, rank=rank)
    assert graph.changed() == {}
    step(graph, tensors(feed))
    changed = graph.changed()
    after = written(model, changed)
    assert apart(graph(tensors(feed)), runtime(after, feed)) < CLOSE
    assert apart(graph(tensors(feed)), runtime(model, feed)) > 0.01
    again = Graph(model, rank=rank)
    again.load(changed)
    assert torch.equal(again(tensors(feed))[0], graph(tensors(feed))[0])
    assert changed.keys() == again.changed().keys()
    again.load({})
    assert apart(again(tensors(feed)), runtime(model, feed)) < CLOSE
    assert again.changed() == {}
    with pytest.raises(InputError, match="no weight that is trained"):
        again.load({"else": np.zeros(3, np.float32)})
    name = next(iter(changed))
    with pytest.raises(InputError, match="is needed"):
        again.load({name: np.zeros(3, np.float32)})


def test_only_what_is_named_is_trained():
    model, _ = transformer(2)
    matrices = [name for name, parts in Graph(model).weights().items() if parts[0].ndim == 2]
    chosen = matrices[-2:]
    graph = Graph(model, trainable=chosen)
    step(graph, tensors(feeds(model)))
    assert set(graph.changed()) == set(chosen)


def test_updates_of_low_rank_are_few_and_begin_at_nought():
    model, _ = transformer(2)
    feed = feeds(model)
    graph = equal(model, feed, rank=2)
    assert all(up.shape[1] == down.shape[0] == 2 for up, down in graph.weights().values())
    assert all(not up.any() and down.std() > 0 for up, down in graph.weights().values())
    tables = {node.input[0] for node in model.graph.node if node.op_type in ("Gather", "Slice")}
    assert not tables & set(graph.weights())
    assert sum(p.numel() for p in graph.parameters()) < 0.3 * sum(p.numel() for p in Graph(model).parameters())


def test_dropout_is_for_training_alone():
    model, _ = transformer(2)
    feed = tensors(feeds(model))
    plain, graph = Graph(model), Graph(model, dropout=0.5)
    drops = [op for op in graph._ops if op.kind == "Dropped"]
    assert len(drops) == 2 * 3  # in each block: probabilities, attention, feed-forward
    assert torch.equal(graph.eval()(feed)[0], plain(feed)[0])
    graph.train()
    torch.manual_seed(0)
    first, second = graph(feed)[0], graph(feed)[0]
    torch.manual_seed(0)
    assert torch.equal(graph(feed)[0], first)
    assert not torch.allclose(first, second)
    assert torch.equal(Graph(model, dropout=0.0).train()(feed)[0], plain(feed)[0])
    for wrong in (-0.1, 1.0):
        with pytest.raises(InputError, match="dropout"):
            Graph(model, dropout=wrong)


def test_pictures_and_rows_keep_their_numbers_under_dropout():
    model, _ = convolutions()
    assert not [op for op in Graph(model, dropout=0.5)._ops if op.kind == "Dropped"]


def test_copies_are_apart():
    model, _ = transformer(1)
    feed = tensors(feeds(model))
    graph = Graph(model, dropout=0.5)
    teacher = copy.deepcopy(graph).eval()
    graph.train()
    before = teacher(feed)[0].detach()
    step(graph, feed)
    assert torch.equal(teacher(feed)[0], before)


def test_half_precision_weights_become_single():
    model, _ = transformer(1)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2:
            rounded = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(rounded.astype(np.float32), tensor.name))
    want = runtime(model, feeds(model))
    nodes = list(model.graph.node)
    model.graph.ClearField("node")
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}/half"))
            model.graph.node.append(helper.make_node("Cast", [f"{name}/half"], [name], to=TensorProto.FLOAT))
    model.graph.node.extend(nodes)
    graph = Graph(model)
    assert apart(graph(tensors(feeds(model))), want) < CLOSE
    assert {p.dtype for p in graph.parameters()} == {torch.float32}
    step(graph, tensors(feeds(model)))
    assert any(name.endswith("/half") for name in graph.changed())


def test_autocast():
    model, _ = transformer(1)
    feed = tensors(feeds(model))
    graph = Graph(model)
    want = graph(feed)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = graph(feed)[0]
    assert 0 < (got - want).abs().max() < 0.1
    got.sum().backward()
    assert {p.grad.dtype for p in graph.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile warns of itself
def test_compile():
    model, _ = transformer(1)
    feed = tensors(feeds(model))
    graph = Graph(model)
    assert torch.allclose(torch.compile(graph, backend="eager")(feed)[0], graph(feed)[0], atol=1e-6)


@pytest.mark.parametrize("rank", [None, 2])
def test_shapes_stay_on_the_cpu(rank):
    """On the device `meta`, which has shapes and no numbers, nothing can be read back."""
    for model in (transformer(2, pre=True)[0], convolutions(flat="Reshape", batch=3)[0]):
        feed = tensors(feeds(model))
        graph = Graph(model, rank=rank, dropout=0.1)
        want = graph(feed)[0].shape
        got = graph.to("meta")({name: value.to("meta") for name, value in feed.items()})[0]
        assert (got.shape, got.device.type) == (want, "meta")


def test_what_is_lacking_is_said():
    g = Made()
    x = g.given("x", TensorProto.FLOAT, ["n", 3])
    g.op("Det", g.op("STFT", x), out="y")
    model = g.model("y")
    assert lacking(model) == ["Det", "STFT"]
    with pytest.raises(ModelError, match="the operators Det, STFT are not known"):
        Graph(model)


def test_what_cannot_be_is_said():
    model, _ = transformer(1)
    with pytest.raises(InputError, match="rank 0"):
        Graph(model, rank=0)
    with pytest.raises(InputError, match="the graph needs 'attention_mask'"):
        Graph(model)({"input_ids": torch.ones(1, 2, dtype=torch.int64)})
    model.graph.initializer[-1].data_location = TensorProto.EXTERNAL
    with pytest.raises(InputError, match="outside the graph"):
        Graph(model)


def test_without_torch_the_pip_line_is_said(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    from headstart.training import torch as needed

    with pytest.raises(MissingExtra, match=r"pip install 'headstart\[torch\]'"):
        needed()


def test_tensors_are_let_go_after_their_last_use():
    model, _ = transformer(2)
    graph = Graph(model).eval()
    seen = []

    def watched(run):
        def outer(*given):
            result = run(*given)
            seen.append((weakref.ref(result), sum(ref() is not None for ref, _ in seen)))
            return result

        return outer

    graph._steps = [(watched(run), *rest) for run, *rest in graph._steps]
    with torch.no_grad():
        graph(tensors(feeds(model)))
    assert len(seen) > 40
    assert max(alive for _, alive in seen) < 12
