"""Encoders give what `encode` gives, whoever else is in the run, on the thread that asks; and they go when they are dropped."""

import dataclasses
import gc
import subprocess
import sys
import threading
import weakref
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from conftest import ROOT
from headstart import backbones
from headstart.backbones import changes, minilm, network, tuned
from headstart.backbones import onnx as runtime
from headstart.backbones.fake import Fake
from headstart.errors import ContentError, InputError, ModelError
from headstart.serving.encoders import Encoders, Halved
from small_graphs import FACTS, Graph, picture, picture_folder, text_folder, words

here = pytest.mark.skipif(find_spec(minilm.MODULE) is None, reason="the weights of all-MiniLM-L6-v2 are not installed")
TEXTS = [
    "How do I reset my password?", "", "ok", "plum " * 120, "我的订单什么时候能到？ 🎉", "iron and zinc",
    "the apple of my owl", "ok", "a" * 300, "How do I change my password?",
]  # fmt: skip
PICTURES = [picture(seed, (40 + 15 * seed, 30), "PNG" if seed % 2 else "JPEG") for seed in range(11)]
SAVED = ROOT / "tests" / "saved"


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory):
    """A cache of this module's own with small networks installed, and folders of networks retrained on them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(tmp_path_factory.mktemp("cache")))
        backbones.folder().mkdir(parents=True)
        text_folder(backbones.folder() / "letters", name="letters")
        text_folder(backbones.folder() / "short", name="short", tokens=2)
        picture_folder(backbones.folder() / "scenes", name="scenes")
        feeling(backbones.folder() / "feeling")
        yield


def feeling(folder):
    """A network whose rows change one another in one run."""
    g = Graph(5)
    x = g.op("Gather", g.weight(20, 40), g.given("input_ids", TensorProto.INT64, ["n", "t"]))
    x = g.op("MatMul", g.op("ReduceMean", x, axes=[1], keepdims=0), g.weight(40, 40))
    g.op("Div", x, g.op("ReduceMax", x, keepdims=0), out="embedding")
    g.op("Add", "embedding", g.weight(40), out="y")
    folder.mkdir()
    (folder / "model.onnx").write_bytes(g.model("y", rank=2).SerializeToString())
    words(folder)
    network.describe(folder, name="feeling", modality="text", tokens=16, **FACTS)


def retrained(folder, base, tap, by):
    """A network of which all weights above a tap are `by` times the published ones."""
    model = base.graph()
    where = changes.blocks(model, base.found, tap, base.card.cut)
    new = {
        tensor.name: numpy_helper.to_array(tensor) * np.float32(by)
        for tensor in model.graph.initializer
        if where.get(tensor.name) and tensor.data_type == TensorProto.FLOAT
    }
    tuned.write(folder, base, tap, len(changes.span(base.found, tap, base.card.cut)[0]), new)
    return tuned.Tuned.open(folder)


BASES = {
    "fake": lambda _: backbones.load("fake"),
    "words": lambda _: backbones.load("words"),
    "colours": lambda _: backbones.load("colours"),
    "static": lambda _: backbones.load("", carried=SAVED / "format-3-static"),
    "letters": lambda _: backbones.load("letters"),
    "letters 1+max2": lambda _: backbones.load("letters", cut="1+max2"),
    "feeling": lambda _: backbones.load("feeling"),
    "scenes": lambda _: backbones.load("scenes"),
    "tuned letters": lambda folder: retrained(folder, backbones.load("letters"), "1", 1.05),
    "tuned letters top": lambda folder: retrained(folder, backbones.load("letters", cut="top"), "2", 1.05),
    "tuned scenes": lambda folder: retrained(folder, backbones.load("scenes"), "0", 1.05),
    "tuned below": lambda folder: retrained(folder, backbones.load("letters", cut="3"), "2", 1.05).at("1+3"),
    "minilm": lambda _: minilm.MiniLM(),
    "minilm int8": lambda _: minilm.MiniLM("int8"),
    "minilm int8 0+max3": lambda _: minilm.MiniLM("int8", "0+max3"),
    "tuned minilm": lambda _: tuned.Tuned.open(SAVED / "format-3-tuned"),
}
MARKED = [pytest.param(name, marks=[here] if "minilm" in name else []) for name in BASES]


@pytest.fixture(scope="module", params=MARKED)
def based(request, tmp_path_factory):
    """(name, base, contents, their features as another object like the base gives them, the base's encoder)"""
    base = BASES[request.param](tmp_path_factory.mktemp("tuned") / "folder")
    contents = TEXTS if base.card.modality == "text" else PICTURES
    return request.param, base, contents, dataclasses.replace(base).encode(contents), Encoders().add(base)


def together(encoder, items):
    """The places of the items that may run together."""
    groups = defaultdict(list)
    for i, item in enumerate(items):
        groups[encoder.size(item)].append(i)
    return groups.values()


def encoded(encoder, fingerprint, contents, at_most=10**9):
    """The features of contents, so many in a run."""
    items, rows = encoder.prepare(contents), {}
    for group in together(encoder, items):
        for low in range(0, len(group), at_most):
            some = group[low : low + at_most]
            found = encoder.run([items[i] for i in some], frozenset((fingerprint,)))
            assert list(found) == [fingerprint]
            rows.update(zip(some, found[fingerprint], strict=True))
    return np.array([rows[i] for i in range(len(contents))])


@pytest.fixture
def letters(tmp_path):
    """Four networks retrained above tap 1 of letters and one above tap 2: the last of the four at another cut."""
    base = backbones.load("letters")
    made = [retrained(tmp_path / f"{by}", base, "1", by) for by in (1.02, 1.05, 0.9)]
    made.append(retrained(tmp_path / "wide", base.at("1+max3"), "1", 1.1))
    return made, retrained(tmp_path / "other", base, "2", 1.05)


def test_an_encoder_gives_what_encode_gives(based):
    """C14, C16: alone, with others, in any order, in runs of any number."""
    name, base, contents, X, encoder = based
    fingerprint = base.card.fingerprint
    assert (encoder.modality, encoder.budget > 0, bool(encoder.key)) == (base.card.modality, True, True)
    assert isinstance(encoder, Halved) == (name.startswith("tuned") and name != "tuned below")
    order = np.random.default_rng(0).permutation(len(contents) * 2) % len(contents)
    for at_most in (1, 2, 10**9):
        Y = encoded(encoder, fingerprint, [contents[i] for i in order], at_most)
        assert Y.dtype == np.float32
        np.testing.assert_allclose(Y, X[order], rtol=0, atol=1e-5)
    assert encoder.run(encoder.prepare(contents[:1]), frozenset()) == {}
    assert encoder.prepare([]) == []
    np.testing.assert_allclose(base.encode(contents), X, rtol=0, atol=1e-5)  # its own, with what is loaded


def test_sizes_and_budgets(based):
    _, base, contents, _, encoder = based
    sizes = [encoder.size(item) for item in encoder.prepare(contents)]
    if base.card.modality == "image":
        assert (set(sizes), encoder.budget) == ({64}, 512)
    elif hasattr(base, "rows"):
        assert (sizes, encoder.budget) == (list(map(len, base.rows(contents))), 512)
    else:
        assert (sizes[0], sizes[3], encoder.size("x" * 256), encoder.size("x" * 513)) == (1, 4, 1, 4)


def test_nothing_is_run_on_another_thread(based, monkeypatch):
    name, base, contents, _, encoder = based
    items = encoder.prepare(contents)
    groups = list(together(encoder, items))
    started = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda self: (started.append(self), start(self))[1])
    monkeypatch.setattr(runtime.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for group in groups:
        encoder.run([items[i] for i in group], frozenset((base.card.fingerprint,)))
    assert len(started) <= (name == "colours")  # which takes one thread, and waits for it
    assert runtime.cores() == 8


def test_several_threads_run_one_encoder(based):
    _, base, contents, X, encoder = based
    fingerprint = base.card.fingerprint
    with ThreadPoolExecutor(4) as pool:
        orders = [np.random.default_rng(seed).permutation(len(contents)) for seed in range(4)]
        found = list(pool.map(lambda order: encoded(encoder, fingerprint, [contents[i] for i in order], 3), orders))
    for order, Y in zip(orders, found, strict=True):
        np.testing.assert_allclose(Y, X[order], rtol=0, atol=1e-5)


def test_what_is_dropped_is_freed(based):
    """G2: nothing but the one who asked holds it, and it can be loaded again."""
    name, base, contents, X, _ = based
    encoders, fingerprint = Encoders(), base.card.fingerprint
    base = dataclasses.replace(base)
    for _ in range(1 if "minilm" in name else 2):
        encoder = encoders.add(base)
        assert encoder is encoders.of(fingerprint)
        assert encoders.add(dataclasses.replace(base)) is encoder
        encoded(encoder, fingerprint, contents[:1])
        held = sessions(encoder)
        assert bool(held) == hasattr(base, "through")
        encoders.drop(fingerprint)
        np.testing.assert_allclose(encoded(encoders.of(fingerprint), fingerprint, contents[:2]), X[:2], atol=1e-5)
        del encoder
        encoders.drop(fingerprint)
        with pytest.raises(ModelError, match="not loaded any more"):
            encoders.of(fingerprint)
        with pytest.raises(ModelError, match="not loaded any more"):
            encoders.drop(fingerprint)
        gc.collect()
        assert [ref for ref in held if ref() is not None] == []
        np.testing.assert_allclose(base.encode(contents[:2]), X[:2], rtol=0, atol=1e-5)  # by itself


def sessions(encoder):
    """Weak references to the sessions of an encoder."""
    if isinstance(encoder, Halved):
        found = [encoder.lower.through.session, *(upper.session for upper in encoder.lower.uppers.values())]
    else:
        found = [encoder.base.through.session] if "through" in vars(encoder.base) else []
    return [weakref.ref(one) for one in found]


def test_networks_on_one_tap_share_what_is_below(letters, monkeypatch):
    same, other = letters
    encoders = Encoders()
    found = [encoders.add(base) for base in same]
    assert len({id(encoder) for encoder in found}) == len({encoder.key for encoder in found}) == 1
    apart = encoders.add(other)
    assert apart.key != found[0].key
    assert encoders.add(backbones.load("letters")).key not in (apart.key, found[0].key)
    encoder, counted = found[0], Counted(found[0].lower.through.session)
    object.__setattr__(encoder.lower.through, "session", counted)
    items = encoder.prepare(["iron and zinc", "the apple of"])
    X = encoder.run(items, frozenset(base.card.fingerprint for base in same))
    assert counted.runs == [2]
    for base in same:
        expected = dataclasses.replace(base).encode(["iron and zinc", "the apple of"])
        np.testing.assert_allclose(X[base.card.fingerprint], expected, rtol=0, atol=1e-5)
    assert len({X[base.card.fingerprint].tobytes() for base in same}) == len(same)
    assert list(encoder.run(items, frozenset((same[1].card.fingerprint,)))) == [same[1].card.fingerprint]


def test_a_base_that_reads_otherwise_shares_nothing(tmp_path):
    """The same graph and the same weights, but its texts are cut after two tokens; pictures that are turned round."""
    long, short = (retrained(tmp_path / name, backbones.load(name), "1", 1.05) for name in ("letters", "short"))
    scenes = retrained(tmp_path / "scenes", backbones.load("scenes"), "0", 1.05)
    encoders = Encoders()
    for base, contents in ((long, TEXTS), (short, TEXTS), (scenes, PICTURES), (scenes.seen("flip"), PICTURES)):
        X = encoded(encoders.add(base), base.card.fingerprint, contents)
        np.testing.assert_allclose(X, dataclasses.replace(base).encode(contents), rtol=0, atol=1e-5)
    assert len({encoder.key for encoder in encoders._encoders.values()}) == 4


def test_one_of_those_that_share_goes(letters):
    (first, second, *_), _ = letters
    encoders = Encoders()
    encoder = encoders.add(first)
    encoders.add(second)
    held = sessions(encoder)
    encoders.drop(first.card.fingerprint)
    gc.collect()
    assert [ref() is None for ref in held] == [False, True, False]
    items = encoder.prepare(TEXTS[:1])
    with pytest.raises(ModelError, match="not loaded any more"):
        encoder.run(items, frozenset((first.card.fingerprint,)))
    expected = dataclasses.replace(second).encode(TEXTS)
    np.testing.assert_allclose(encoded(encoder, second.card.fingerprint, TEXTS), expected, rtol=0, atol=1e-5)
    assert encoders.add(first) is encoder
    del encoder
    for base in (first, second):
        encoders.drop(base.card.fingerprint)
    gc.collect()
    assert held[0]() is None


@here
def test_retrained_minilms_share_what_is_below(tmp_path):
    base = tuned.Tuned.open(SAVED / "format-3-tuned")
    other = retrained(tmp_path / "other", minilm.MiniLM(cut="6+max6"), base.description.tap, 1.03)
    encoders = Encoders()
    encoder = encoders.add(base)
    assert encoders.add(other) is encoder
    items = [item for item in encoder.prepare(TEXTS[:1]) for _ in range(3)]
    X = encoder.run(items, frozenset((base.card.fingerprint, other.card.fingerprint)))
    for one in (base, other):
        expected = np.repeat(dataclasses.replace(one).encode(TEXTS[:1]), 3, axis=0)
        np.testing.assert_allclose(X[one.card.fingerprint], expected, rtol=0, atol=1e-5)


class Counted:
    """A session that keeps how many rows each run had."""

    def __init__(self, session):
        self.session, self.runs = session, []

    def run(self, outputs, feed):
        self.runs.append(len(next(iter(feed.values()))))
        return self.session.run(outputs, feed)


def test_rows_that_feel_one_another_are_run_one_by_one():
    base = backbones.load("feeling")
    encoder = Encoders().add(base)
    counted = Counted(base.through.session)
    vars(base)["through"] = runtime.Pass(counted, ["features"], False)
    encoded(encoder, base.card.fingerprint, ["iron", "zinc", "tin and iron"])
    assert counted.runs == [1, 1, 1]


def test_pictures_go_eight_in_a_run():
    base = backbones.load("scenes")
    encoder = Encoders().add(base)
    name = base._opened.get_inputs()[0].name
    counted = Counted(base._opened)
    counted.get_inputs = lambda: [type("Input", (), {"name": name})]
    vars(base)["_opened"] = counted
    encoder.run(encoder.prepare(PICTURES), frozenset((base.card.fingerprint,)))
    assert counted.runs == [8, 3]


@pytest.mark.parametrize("name", ["scenes", "colours", "tuned scenes"])
def test_pictures_that_cannot_be_read(name, tmp_path):
    base = BASES[name](tmp_path / "tuned")
    encoder = Encoders().add(base)
    with pytest.raises(ContentError) as raised:
        encoder.prepare([PICTURES[0], b"no picture", PICTURES[1], b""])
    assert [place for place, _ in raised.value.faults] == [1, 3]
    with pytest.raises(InputError, match="number 2 of the call is a str"):
        encoder.prepare([PICTURES[0], "text"])
    short = PICTURES[2][: len(PICTURES[2]) // 3]
    items = encoder.prepare([PICTURES[0], short, PICTURES[1], short])
    with pytest.raises(ContentError) as raised:
        encoder.run(items, frozenset((base.card.fingerprint,)))
    assert [place for place, _ in raised.value.faults] == [1, 3]


@pytest.mark.parametrize("name", ["fake", "words", "static", "letters", "tuned letters"])
def test_what_is_no_text(name, tmp_path):
    base = BASES[name](tmp_path / "tuned")
    encoder = Encoders().add(base)
    with pytest.raises(InputError, match="text number 1 of the call is a bytes"):
        encoder.prepare(["iron", b"zinc"])
    with pytest.raises(InputError, match="text number 1 of the call is not Unicode"):
        encoder.prepare(["iron", "\ud800", "zinc"])


class NoNumbers:
    def run(self, outputs, feed):
        return [np.array([[1.0, 0.0]] * (len(feed["input_ids"]) - 1) + [[np.nan, 1.0]], np.float32) for _ in outputs]


def test_a_network_that_gives_no_numbers(letters):
    for base in (backbones.load("letters"), *([minilm.MiniLM()] if find_spec(minilm.MODULE) else [])):
        encoder = Encoders().add(base)
        vars(base)["through"] = runtime.Pass(NoNumbers(), ["features"], False)
        with pytest.raises(ModelError, match="no finite numbers for content number 2 of the call"):
            encoder.run(encoder.prepare(["iron", "zinc"]), frozenset((encoder.key,)))
    base = letters[0][0]
    encoder = Encoders().add(base)
    object.__setattr__(encoder.lower.uppers[base.card.fingerprint], "session", Never())
    with pytest.raises(ModelError, match="its last 2 of 3 blocks retrained gives no finite numbers"):
        encoder.run(encoder.prepare(["iron", "zinc"]), frozenset((base.card.fingerprint,)))


class Never:
    def run(self, outputs, feed):
        return [np.full((2, 4), np.inf, np.float32)]


def test_a_base_that_cannot_be_loaded_leaves_nothing(tmp_path):
    base = retrained(tmp_path / "tuned", backbones.load("letters"), "1", 1.05)
    path = tmp_path / "tuned" / changes.ARRAYS
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    encoders = Encoders()
    with pytest.raises(ModelError, match="sha256"):
        encoders.add(base)
    with pytest.raises(ModelError, match="not loaded"):
        encoders.of(base.card.fingerprint)
    path.write_bytes(content)
    assert isinstance(encoders.add(base), Halved)


def test_a_change_that_is_not_where_it_is_said_to_be(tmp_path):
    base = retrained(tmp_path / "tuned", backbones.load("letters"), "1", 1.05)
    path = tmp_path / "tuned" / changes.INDEX
    path.write_text(path.read_text().replace('"tap": "1"', '"tap": "2"'))
    with pytest.raises(ModelError, match="2 blocks above tap 2"):
        Encoders().add(tuned.Tuned.open(base.folder))


def test_threads_add_and_drop():
    encoders, fingerprint = Encoders(), Fake().card.fingerprint

    def one(_):
        for _ in range(50):
            encoder = encoders.add(Fake())
            assert encoders.of(fingerprint) is encoder
            encoders.drop(fingerprint)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(4)))
    assert encoders._encoders == {}
    assert not encoders._uses


def test_on_this_thread():
    everywhere = runtime.cores()
    with runtime.on_this_thread():
        with runtime.on_this_thread():
            assert runtime.cores() == 1
        assert runtime.cores() == 1
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(runtime.cores).result() == everywhere
    assert runtime.cores() == everywhere
    with pytest.raises(InputError), runtime.on_this_thread():
        Fake().encode([b"no text"])
    assert runtime.cores() == everywhere


@pytest.mark.parametrize("name", ["fake", "words", "letters"])
def test_any_text(name):
    base = backbones.load(name)
    other, encoder = dataclasses.replace(base), Encoders().add(base)

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=700), min_size=1, max_size=8))
    def holds(texts):
        Y = encoded(encoder, encoder.key, texts, 3)
        np.testing.assert_allclose(Y, other.encode(texts), rtol=0, atol=1e-5)

    holds()


MEMORY = """
import ctypes, gc
from headstart.backbones.minilm import MiniLM
from headstart.serving.encoders import Encoders

def held():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return next(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Anonymous"))

encoders = Encoders()
for precision in ("int8", "float32") * 2:
    base = MiniLM(precision)
    encoder = encoders.add(base)
    encoder.run(encoder.prepare(["the apple of my owl"] * 40), frozenset((encoder.key,)))
    loaded = held()
    encoders.drop(encoder.key)
    del encoder
    print(precision, loaded, held())
"""


@here
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_memory_is_given_back():
    """G2: of two precisions twice, the second time leaves no more than the first; `base` is held all the while."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    least = {"int8": 15_000, "float32": 35_000}
    for precision, loaded, left in rows:
        assert int(loaded) - int(left) > least[precision], done.stdout
    assert abs(int(rows[3][2]) - int(rows[1][2])) < 2_000, done.stdout
