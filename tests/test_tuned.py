"""A base whose last blocks were retrained: only they differ, every other thing is refused, and predicting needs no torch."""

import dataclasses
import json
import re
import shutil

import numpy as np
import onnx
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from conftest import ROOT
from headstart import api, backbones, learning, saved, shrinking, tensors
from headstart.backbones import changes, minilm, network, tuned
from headstart.dataset import read
from headstart.errors import InputError, ModelError, NotFound
from headstart.graph import flow
from headstart.graph.reading import takes
from headstart.keeping import Clock
from headstart.kept import examples as kept_examples
from headstart.kept import unseen
from headstart.model import load
from small_graphs import FACTS, convolutions, picture, picture_folder, text_folder, transformer, words

TEXTS = ["the apple of my owl", "iron and zinc", "", "wren", "plum " * 40, "iron and zinc"]
PICTURES = [picture(seed, (60 + seed, 50)) for seed in range(5)]
TOPICS = {"fruit": ["apple", "pear", "plum"], "metal": ["iron", "zinc", "tin"], "bird": ["crow", "owl", "wren"]}


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory):
    """A cache of this module's own with a small network for texts and one for pictures installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(tmp_path_factory.mktemp("cache")))
        backbones.folder().mkdir(parents=True)
        text_folder(backbones.folder() / "letters", name="letters")
        picture_folder(backbones.folder() / "scenes", name="scenes")
        yield


def weights(base):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in base.graph().graph.initializer}


def above(base, tap):
    """What can be changed, {name: values}: the float weights that the cut needs and the tap does not."""
    where = changes.blocks(base.graph(), base.found, tap, base.card.cut)
    return {name: W for name, W in weights(base).items() if where.get(name) and W.dtype == np.float32}


def scaled(base, tap, by=1.05):
    return {name: W * np.float32(by) for name, W in above(base, tap).items()}


CASES = {"letters": ("1", 2, TEXTS), "scenes": ("0", 2, PICTURES), "minilm": ("4", 2, TEXTS)}


@pytest.fixture(params=CASES)
def case(request):
    """(base, tap, blocks, contents)"""
    if request.param == "minilm":
        try:
            minilm.weights()
        except InputError as error:
            pytest.skip(str(error))
    return backbones.load(request.param), *CASES[request.param]


@pytest.fixture(params=["letters", "scenes"])
def small(request):
    """The same, without the real one."""
    return backbones.load(request.param), *CASES[request.param]


def made(folder, base, tap, blocks, changed):
    tuned.write(folder, base, tap, blocks, changed)
    return backbones.load(base.card.name, carried=folder)


@pytest.fixture
def letters():
    return backbones.load("letters")


@pytest.fixture
def folder(letters, tmp_path):
    """The folder of a small tuned network for texts, its last 2 blocks retrained."""
    tuned.write(tmp_path / "tuned", letters, "1", 2, scaled(letters, "1"))
    return tmp_path / "tuned"


def test_the_published_values_give_the_published_features(case, tmp_path):
    base, tap, blocks, contents = case
    same = made(tmp_path, base, tap, blocks, above(base, tap))
    assert isinstance(same, tuned.Tuned)
    assert np.abs(same.encode(contents) - base.encode(contents)).max() <= 1e-6
    assert same.card.fingerprint != base.card.fingerprint
    assert same.encode([]).shape == (0, base.card.width)


def test_only_what_is_above_the_tap_differs(small, tmp_path):
    base, tap, blocks, contents = small
    other = made(tmp_path, base, tap, blocks, scaled(base, tap))
    assert np.abs(other.encode(contents) - base.encode(contents)).max() > 1e-4
    below, one_up = other.at(tap), str(int(tap) + 1)
    assert np.abs(below.encode(contents) - base.at(tap).encode(contents)).max() <= 1e-6
    assert np.abs(other.at(one_up).encode(contents) - base.at(one_up).encode(contents)).max() > 1e-4
    assert len({base.at(tap).card.fingerprint, below.card.fingerprint, other.card.fingerprint}) == 3
    assert (below.card.width, below.taps) == (base.at(tap).card.width, base.taps)
    again = backbones.load(base.card.name, carried=tmp_path, cut=tap)
    assert again == below
    assert again.card == below.card
    found = other.check()
    everything = [W for W in weights(base).values() if W.dtype == np.float32]
    assert (found.blocks, found.base) == (blocks, base.card.name)
    assert found.tensors + found.others == len(everything)
    assert found.bytes == sum(W.nbytes for W in above(base, tap).values())
    assert f"the last {blocks} of {found.of} blocks of {base.card.name} differ: {found.tensors} tensors" in str(found)
    one = dataclasses.replace(found, blocks=1, bytes=1234)
    assert f"only the last of {found.of} blocks of {base.card.name} differs: {found.tensors} tensors, 1.2 kB; " in str(
        one
    )


def test_it_is_the_network_with_these_weights(letters, folder, tmp_path):
    """The oracle: the same weights written into model.onnx, opened as any network."""
    whole = onnx.load(letters.folder / "model.onnx")
    new = scaled(letters, "1")
    for tensor in whole.graph.initializer:
        if tensor.name in new:
            tensor.CopyFrom(numpy_helper.from_array(new[tensor.name], tensor.name))
    shutil.copytree(letters.folder, tmp_path / "whole")
    (tmp_path / "whole" / "backbone.json").unlink()
    onnx.save(whole, tmp_path / "whole" / "model.onnx")
    network.describe(tmp_path / "whole", name="whole", modality="text", tokens=16, **FACTS)
    oracle, mine = network.Network.open(tmp_path / "whole"), tuned.Tuned.open(folder)
    for cut in (letters.cut, "1", "2+max3", "top"):
        assert np.abs(mine.at(cut).encode(TEXTS) - oracle.at(cut).encode(TEXTS)).max() <= 1e-6
    alone = np.concatenate([mine.encode([text]) for text in TEXTS])
    assert np.abs(alone - mine.encode(TEXTS)).max() <= 1e-5
    assert mine.counted(TEXTS) == letters.counted(TEXTS)


def test_what_is_given_away_gives_the_same(small, tmp_path):
    base, tap, blocks, contents = small
    other = made(tmp_path, base, tap, blocks, scaled(base, tap))
    portable = other.portable()
    assert (portable.tokens, portable.preprocessing) == (base.portable().tokens, base.portable().preprocessing)
    assert all(not tensor.external_data for tensor in portable.model.graph.initializer)
    if portable.modality == "text":
        rows = [base.rows([text])[0] for text in contents]
        opened = tuned.runtime.session(portable.model.SerializeToString(), None)
        X = np.concatenate([opened.run(["features"], {"input_ids": np.array([row])})[0] for row in rows])
        assert np.abs(X - other.encode(contents)).max() <= 1e-5


def test_another_look_at_pictures(tmp_path):
    base = backbones.load("scenes")
    other = made(tmp_path, base, "0", 2, above(base, "0"))
    flipped = other.seen("flip")
    assert np.abs(flipped.encode(PICTURES) - base.seen("flip").encode(PICTURES)).max() <= 1e-6
    assert flipped.card.fingerprint != other.card.fingerprint
    assert (other.preprocessing, flipped.preprocessing.view) == (base.preprocessing, "flip")
    with pytest.raises(InputError):
        other.seen("sideways")
    with pytest.raises(InputError, match="for texts"):
        made(tmp_path / "t", backbones.load("letters"), "2", 1, scaled(backbones.load("letters"), "2")).seen("flip")


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**31))
def test_low_rank_is_merged(rows, columns, rank, seed):
    draw = np.random.default_rng(seed)
    W, up, down = (
        draw.normal(size=size).astype(np.float32) for size in ((rows, columns), (rows, rank), (rank, columns))
    )
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(W, "W"), numpy_helper.from_array(W, "V")])
    model = helper.make_model(graph)
    tuned.applied(model, {"W/up": up, "W/down": down, "gone": W})
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert np.abs(found["W"] - (W + up @ down)).max() <= 1e-5
    assert np.array_equal(found["V"], W)
    with pytest.raises(ModelError, match=r"'V'.*\(1, 1\)") if (rows, columns) != (1, 1) else pytest.raises(KeyError):
        tuned.applied(model, {"V": np.zeros((1, 1), np.float32)})
        raise KeyError


def test_low_rank_in_a_folder_is_the_whole_change(letters, tmp_path):
    draw = np.random.default_rng(0)
    low, whole = {}, {}
    for name, W in above(letters, "2").items():
        if W.ndim == 2:
            up, down = (draw.normal(0, 0.1, size).astype(np.float32) for size in ((len(W), 2), (2, W.shape[1])))
            low |= {f"{name}/up": up, f"{name}/down": down}
            whole[name] = W + up @ down
    one, other = (made(tmp_path / name, letters, "2", 1, each) for name, each in (("a", low), ("b", whole)))
    assert np.abs(one.encode(TEXTS) - other.encode(TEXTS)).max() <= 1e-6
    assert one.check().tensors == other.check().tensors == len(whole)
    assert one.check().bytes < other.check().bytes


def test_what_is_tuned_again_keeps_both_changes(letters, folder, tmp_path):
    first = tuned.Tuned.open(folder)
    name, W = next((name, W) for name, W in above(letters, "2").items() if W.ndim == 2)
    draw = np.random.default_rng(1)
    up, down = draw.normal(size=(len(W), 1)).astype(np.float32), draw.normal(size=(1, W.shape[1])).astype(np.float32)
    second = made(tmp_path / "again", first, "2", 1, {f"{name}/up": up, f"{name}/down": down})
    expected = scaled(letters, "1")
    expected[name] = expected[name] + up @ down
    assert (second.description.tap, second.description.blocks) == ("1", 2)
    assert second.description.base["fingerprint"] == letters.card.fingerprint
    assert np.abs(second.encode(TEXTS) - made(tmp_path / "b", letters, "1", 2, expected).encode(TEXTS)).max() <= 1e-6
    with pytest.raises(ModelError, match="not in the graph"):
        tuned.write(tmp_path / "c", first, "2", 1, {"strange": W})


def test_nothing_below_the_tap_can_be_changed(small, tmp_path):
    base, tap, blocks, _ = small
    nodes, place = list(base.graph().graph.node), next(one for one in base.found if one.name == tap)
    below = {name for i in flow.ancestors(nodes, [place.tensor]) for name in takes(nodes[i])}
    tried = [(name, W) for name, W in weights(base).items() if name in below and W.dtype == np.float32]
    assert len(tried) > 3
    for name, W in tried[:: max(1, len(tried) // 8)]:
        with pytest.raises(ModelError, match=re.escape(f"'{name}' lies below tap {tap}, where nothing may change")):
            tuned.write(tmp_path / "x", base, tap, blocks, {name: W + 1})
    assert not (tmp_path / "x").exists()
    name, W = next(iter(above(base, tap).items()))
    tuned.write(tmp_path / "x", base, tap, blocks, {name: W, tried[0][0]: tried[0][1]})  # unchanged: left out
    assert list(tuned.Tuned.open(tmp_path / "x").description.tensors) == [name]


def test_what_lies_above_the_cut_is_no_change(letters, tmp_path):
    name = next(iter(above(letters.at("3"), "2")))
    with pytest.raises(ModelError, match="above the cut 2"):
        tuned.write(tmp_path, letters.at("2"), "1", 1, {name: weights(letters)[name]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda W: W * np.float32(np.nan), "not all finite"),
        (lambda W: W[..., :-1], "does not fit the base's"),
    ],
)
def test_what_cannot_be_is_not_written(letters, tmp_path, change, message):
    name, W = next((name, W) for name, W in above(letters, "1").items() if W.ndim == 2)
    with pytest.raises(ModelError, match=message):
        tuned.write(tmp_path, letters, "1", 2, {name: change(W)})
    for more in ({f"{name}/up": W[:, :1]}, {f"{name}/up": W[:, :1], f"{name}/down": W[:2]}):
        with pytest.raises(ModelError, match=r"is not in the graph|does not fit"):
            tuned.write(tmp_path, letters, "1", 2, more)
    with pytest.raises(ModelError, match="changed twice"):
        tuned.write(tmp_path, letters, "1", 2, {name: W, f"{name}/up": W[:, :1], f"{name}/down": W[:1]})
    with pytest.raises(ModelError, match="3 blocks above tap 1"):
        tuned.write(tmp_path, letters, "1", 3, {name: W})
    assert list(tmp_path.iterdir()) == []


def test_a_base_that_cannot_be_had_by_name(letters, tmp_path):
    shutil.copytree(letters.folder, tmp_path / "elsewhere")
    facts = json.loads((tmp_path / "elsewhere" / "backbone.json").read_text())
    (tmp_path / "elsewhere" / "backbone.json").write_text(json.dumps({**facts, "name": "carried"}))
    own = network.Network.open(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"built in or installed.*'carried'"):
        tuned.write(tmp_path / "x", own, "1", 2, scaled(own, "1"))
    with pytest.raises(InputError, match=r"no network in float32|built in or installed"):
        tuned.write(tmp_path / "x", backbones.load("fake"), "1", 2, {})


def test_one_byte_changed_names_the_tensor(folder):
    path = folder / changes.ARRAYS
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    base = tuned.Tuned.open(folder)
    of_key = {changes.key(name): name for name in base.description.tensors}
    draw = np.random.default_rng(0)
    for key in draw.choice(sorted(of_key), 6, replace=False):
        at = start + int(draw.integers(*header[key]["data_offsets"]))
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(ModelError, match=re.escape(repr(of_key[key]))):
            tuned.Tuned.open(folder).encode(TEXTS)
    path.write_bytes(content)
    tuned.Tuned.open(folder).check()


def arrays(change):
    def apply(folder):
        held = tensors.load(folder / changes.ARRAYS)
        change(held)
        tensors.save(folder / changes.ARRAYS, held)

    return apply


def facts(change):
    def apply(folder):
        held = json.loads((folder / changes.INDEX).read_text())
        change(held)
        (folder / changes.INDEX).write_text(json.dumps(held))

    return apply


def first(held):
    return next(iter(held["tensors"].values()))


def below(held):
    name = next(name for name in sorted(held["tensors"]))
    held["tensors"]["w0"] = held["tensors"].pop(name)


DAMAGE = {
    "an array too many": (arrays(lambda held: held.update(more=np.zeros(2, np.float32))), "'more' is not known"),
    "an array too few": (arrays(lambda held: held.pop(sorted(held)[0])), "is missing"),
    "not finite": (arrays(lambda held: held.update({k: a * np.float32(np.inf) for k, a in held.items()})), "not finite"),
    "another shape": (arrays(lambda held: held.update({k: a.reshape(-1, 1) for k, a in held.items()})), "not float32"),
    "another type": (arrays(lambda held: held.update({k: a.astype("f8") for k, a in held.items()})), "is float64"),
    "other values": (arrays(lambda held: held.update({k: -a for k, a in held.items()})), "changed since it was trained"),
    "no arrays": (lambda folder: (folder / changes.ARRAYS).unlink(), "missing"),
    "a link": (
        lambda folder: (folder / changes.ARRAYS).rename(folder / "x") and (folder / changes.ARRAYS).symlink_to("x"),
        "no plain file",
    ),
    "too long": (lambda folder: (folder / changes.INDEX).write_bytes(b" " * (changes.LIMIT + 1)), "more than"),
    "not JSON": (lambda folder: (folder / changes.INDEX).write_bytes(b"\xff{"), r"tuned\.json"),
    "a newer format": (facts(lambda held: held.update(format=2)), "format 2"),
    "an unknown key": (facts(lambda held: held.update(code="x")), "'code' is not known"),
    "a missing key": (facts(lambda held: held.pop("tap")), "'tap' is missing"),
    "no object": (lambda folder: (folder / changes.INDEX).write_text("[]"), "no object"),
    "base with more": (facts(lambda held: held["base"].update(path="/")), "'path' is not known"),
    "base without a name": (facts(lambda held: held["base"].update(name="")), "base: name"),
    "a base elsewhere": (facts(lambda held: held["base"].update(name="remote:https://a.b#c")), "no name of a base"),
    "a precision": (facts(lambda held: held["base"].update(precision="int8")), "float32"),
    "a tap that is no name": (facts(lambda held: held.update(tap=1)), "tap"),
    "a tap that is not there": (facts(lambda held: held.update(tap="9")), "no tap '9'"),
    "a cut that is not there": (facts(lambda held: held["base"].update(cut="9")), "9"),
    "too many blocks": (facts(lambda held: held.update(blocks=3)), "3 blocks above tap 1"),
    "blocks that are true": (facts(lambda held: held.update(blocks=True)), "blocks"),
    "no tensors": (facts(lambda held: held.update(tensors={})), "tensors"),
    "a negative shape": (facts(lambda held: first(held).update(shape=[-1])), "shape"),
    "another block": (facts(lambda held: first(held).update(block=3 - first(held)["block"])), "block"),
    "block 0": (facts(lambda held: first(held).update(block=0)), "block"),
    "no digest": (facts(lambda held: first(held).update(sha256="0")), "sha256"),
    "a tensor below": (facts(below), "'w0'"),
    "a lower tap is not where it lies": (facts(lambda held: held.update(tap="2", blocks=1)), "must be a number|below tap 2"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_refused(folder, what):
    damage, message = DAMAGE[what]
    damage(folder)
    with pytest.raises((ModelError, InputError), match=message) as caught:
        tuned.Tuned.open(folder).encode(TEXTS)
    assert what == "a cut that is not there" or isinstance(caught.value, ModelError)


def test_random_damage_ends_in_our_error(folder):
    draw = np.random.default_rng(2)
    for name in (changes.INDEX, changes.ARRAYS):
        content = (folder / name).read_bytes()
        for _ in range(40):
            broken = bytearray(content)
            for at in draw.integers(0, min(len(content), 3000), 2):
                broken[at] = int(draw.integers(0, 256))
            (folder / name).write_bytes(broken)
            try:
                opened = tuned.Tuned.open(folder)
                changes.load(folder, opened.description)
            except (ModelError, InputError):
                continue
            assert name == changes.INDEX or bytes(broken) == content
        (folder / name).write_bytes(content)


def test_a_base_that_is_gone_or_another(letters, folder, tmp_path):
    base = tuned.Tuned.open(folder)
    aside = tmp_path / "aside"
    shutil.move(letters.folder, aside)
    try:
        with pytest.raises(NotFound, match="'letters'"):
            tuned.Tuned.open(folder).encode(TEXTS)
        text_folder(letters.folder, name="letters", tokens=15)
        with pytest.raises(ModelError, match=r"base letters with fingerprint .*Install the same base"):
            tuned.Tuned.open(folder).encode(TEXTS)
    finally:
        shutil.rmtree(letters.folder, ignore_errors=True)
        shutil.move(aside, letters.folder)
    base.encode(TEXTS)


def test_a_base_whose_weights_were_altered_is_refused(letters, folder):
    path = letters.folder / "model.onnx"
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-60] + bytes([content[-60] ^ 1]) + content[-59:])
        with pytest.raises(ModelError, match="not the file that was installed"):
            tuned.Tuned.open(folder).check()
    finally:
        path.write_bytes(content)


def test_names_of_every_kind(tmp_path):
    """Initialisers that are called as ours are, with slashes, or like the halves of another one's change."""
    model, _ = transformer(2, pre=True)
    where = {tensor.name: i for i, tensor in enumerate(model.graph.initializer)}
    last = [tensor.name for tensor in model.graph.initializer if sorted(tensor.dims) == [32, 64]][-4:]
    new = dict(zip(last, ["features", "headstart/constant3", "a::b/Mat Mul_1", "a::b/Mat Mul_1/up"], strict=True))
    for tensor in model.graph.initializer:
        tensor.name = new.get(tensor.name, tensor.name)
    for node in model.graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
    assert len(where) == len(model.graph.initializer)
    place = backbones.folder() / "named"
    place.mkdir()
    (place / "model.onnx").write_bytes(model.SerializeToString())
    words(place)
    network.describe(place, name="named", modality="text", tokens=16, **FACTS)
    base = backbones.load("named")
    try:
        there = above(base, "0")
        assert set(new.values()) <= set(there)
        same = made(tmp_path / "a", base, "0", 2, there)
        assert np.abs(same.encode(TEXTS) - base.encode(TEXTS)).max() <= 1e-6
        for name in new.values():
            other = made(tmp_path / changes.key(name), base, "0", 2, {name: there[name] * np.float32(2)})
            assert list(changes.load(other.folder, other.description)) == [name]
            assert other.check().tensors == 1
            assert np.abs(other.encode(TEXTS) - base.encode(TEXTS)).max() > 1e-3
    finally:
        shutil.rmtree(place)


@given(st.text(max_size=400), st.text(max_size=400))
def test_keys_are_names_of_arrays_and_differ(a, b):
    assert re.fullmatch(r"[A-Za-z0-9_.\-]{1,256}", changes.key(a))
    assert (changes.key(a) == changes.key(b)) == (a == b)


def table(n):
    draw = np.random.default_rng(3)
    labels = [list(TOPICS)[i % 3] for i in range(n)]
    return [(f"{draw.choice(TOPICS[label])} the {draw.choice(TOPICS[label])}", label) for label in labels]


@pytest.fixture(scope="module")
def model(tmp_path_factory, installed):
    """A model on a tuned base, saved, and its project; saving has a fresh process replay it."""
    base, project = backbones.load("letters"), tmp_path_factory.mktemp("project")
    changed = tmp_path_factory.mktemp("changed")
    tuned.write(changed, base, "1", 2, scaled(base, "1"))
    own = backbones.load("letters", carried=changed)
    saved_ = learning.supervised(
        "mine", read(table(150)), None, None, {}, own, Clock(), project=project, progress=print, carried=changed
    )
    shutil.rmtree(changed)
    return saved_


def test_a_saved_model_holds_what_changed_and_no_more(model):
    names = {path.name for path in model.folder.iterdir()}
    assert names >= saved.TUNED
    assert not names & {"model.onnx", "backbone.json"}
    assert model.card["backbone"]["name"] == "letters"
    assert model.card["backbone"]["said"] == "letters, its last 2 of 3 blocks retrained"
    for page in (saved.README, saved.REPORT):
        assert "its last 2 of 3 blocks retrained" in (model.folder / page).read_text("utf-8")
    again = load(model.folder)
    assert [p.label for p in again.predict(["apple the plum", "tin the iron"])] == ["fruit", "metal"]
    assert again.evaluate(table(30))["test"]["accuracy"] > 0.9


def test_verify_says_what_differs(model, tmp_path):
    found = api.verify(model.folder)
    assert re.fullmatch(
        r"only the last 2 of 3 blocks of letters differ: 27 tensors, 66\.8 kB; the other \d+ are the published ones "
        r"\(sha256 [0-9a-f]{16}\.\.\.\)",
        found["tuned"]["said"],
    )
    copy = shutil.copytree(model.folder, tmp_path / "v1")
    path = copy / changes.ARRAYS
    content = path.read_bytes()
    path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    with pytest.raises(ModelError, match=r"changed since the model was saved .*tensor 'w\d+' was changed since it was"):
        api.verify(copy)


def test_a_model_whose_base_is_gone_says_so(model, tmp_path):
    place = backbones.folder() / "letters"
    shutil.move(place, tmp_path / "aside")
    try:
        with pytest.raises(NotFound, match=r"^model 'mine' needs the base model it was made on: .*'letters'"):
            load(model.folder).predict(["apple"])
        text_folder(place, name="letters", tokens=15)
        with pytest.raises(ModelError, match=r"^model 'mine': the last 2 blocks were retrained on base letters"):
            load(model.folder).predict(["apple"])
    finally:
        shutil.rmtree(place, ignore_errors=True)
        shutil.move(tmp_path / "aside", place)


def test_an_export_holds_all_of_it(model, tmp_path):
    found = api.export(model.folder, tmp_path / "out")
    assert found["difference"] <= 1e-5
    held = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "out" / "model.onnx").graph.initializer}
    values = [W for W in scaled(backbones.load("letters"), "1").values() if W.ndim == 2]
    assert all(any(W.shape == V.shape and np.array_equal(W, V) for V in held.values()) for W in values)
    assert "its last 2 of 3 blocks retrained" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_shrinking_keeps_what_was_retrained():
    base = tuned.Tuned.open(ROOT / "tests" / "saved" / "format-3-tuned")
    assert base.card.name == minilm.NAME
    assert backbones.exact(base) is base
    assert backbones.exact(minilm.MiniLM("int8", "6")) == minilm.MiniLM("float32", "6")


def test_a_tuned_network_is_shrunk_as_it_is(model, tmp_path):
    base = model.backbone
    found = shrinking.shrink(base, read(table(150)), tmp_path / "made", max_loss=0.9)
    assert isinstance(found.base, network.Network)
    assert json.loads((tmp_path / "made" / "backbone.json").read_text())["notes"] == [f"made from {base.said}"]
    plan = shrinking.Plan(base, 1.0, False, False, 1.0)
    near = shrinking._made(plan, TEXTS, tmp_path / "near").base
    assert np.abs(near.encode(TEXTS) - base.encode(TEXTS)).max() < 0.002
    assert np.abs(near.encode(TEXTS) - base.base.encode(TEXTS)).max() > 0.01


def test_rows_a_network_was_trained_on_prove_nothing_about_it(model, tmp_path):
    """What is judged on them flatters: shrinking asks for others, and leaves out those it was trained on."""
    project = model.folder.parents[2]
    assert model.card["backbone"]["learned"] is True
    with pytest.raises(InputError, match=r"itself trained on the examples it keeps.*--data"):
        api.shrink(model.name, project=project)
    kept = kept_examples(model)
    with pytest.raises(InputError, match=r"every row of .* is among the examples"):
        unseen(model, kept, lambda line: None)
    said = []
    more = read(
        pa.table({"text": ["something new", *kept.texts()[:3]], "label": [kept.labels[0]] * 4}), known=kept.labels
    )
    assert unseen(model, more, said.append).texts() == ["something new"]
    assert "3 rows" in said[0]


def test_tuning_again_starts_from_the_published_base(model):
    from headstart.api import making

    said = []
    base = making._published(model, said.append)
    assert base == model.backbone.base.at(model.card["backbone"]["cut"])
    assert "as it was published" in said[0]


def test_pictures_with_more_outputs(tmp_path):
    """The top follows the last tap: what lies there is part of the last block."""
    place = picture_folder(backbones.folder() / "both", convolutions(classes="both")[0], name="both")
    try:
        base = backbones.load("both")
        other = made(tmp_path, base.at("top"), "1", 1, scaled(base.at("top"), "1"))
        assert other.check().blocks == 1
        assert np.isfinite(other.encode(PICTURES)).all()
    finally:
        shutil.rmtree(place)


def test_a_weight_that_is_called_like_half_a_change_is_itself_meant():
    W, up, down = np.ones((3, 3), np.float32), np.ones((3, 1), np.float32), np.ones((1, 3), np.float32)
    there = {"W": W, "W/up": up, "W/down": down}
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(value, name) for name, value in there.items()])
    model = helper.make_model(graph)
    tuned.applied(model, {"W/up": 2 * up, "W/down": 3 * down})
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert np.array_equal(found["W"], W)
    assert found["W/up"].max() == 2
    assert found["W/down"].max() == 3
