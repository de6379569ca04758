"""From an RGB picture to a network's input: the same pixels as a plain resize and crop, in bounded memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.preprocessing import FILTERS, LARGEST, Preprocessing

PIXELS = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
PICTURE = Image.fromarray(PIXELS)
RAW = {"dtype": "uint8", "layout": "NHWC"}


def plain(shorter: int, side: int, rule: int = 2) -> np.ndarray:
    """Resize the whole picture, then crop its centre, as torchvision and transformers do."""
    w, h = PICTURE.size
    wide, high = (shorter, int(shorter * h / w)) if w <= h else (int(shorter * w / h), shorter)
    left, top = (wide - side) // 2, (high - side) // 2
    return np.asarray(PICTURE.resize((wide, high), rule).crop((left, top, left + side, top + side)))


@pytest.mark.parametrize(("shorter", "side"), [(64, 64), (64, 48), (90, 90), (37, 31)])
@pytest.mark.parametrize("name", ["bilinear", "bicubic", "nearest", "lanczos"])
def test_shortest_is_resize_then_crop(shorter, side, name):
    made = Preprocessing(side, side, shorter=shorter, filter=name, **RAW).apply(PICTURE)
    far = np.abs(made.astype(int) - plain(shorter, side, FILTERS[name]))
    assert far.max() <= (0 if shorter == 90 else 3) or (name == "nearest" and (far > 0).mean() < 0.1)


def test_squash_and_pad():
    made = Preprocessing(50, 40, "squash", **RAW).apply(PICTURE)
    assert (made == np.asarray(PICTURE.resize((50, 40), 2))).all()
    cropped = Preprocessing(40, 40, "squash", 50, **RAW).apply(PICTURE)
    whole = np.asarray(PICTURE.resize((50, 50), 2))[5:45, 5:45]
    assert np.abs(cropped.astype(int) - whole).max() <= 1
    padded = Preprocessing(60, 60, "pad", fill=9, **RAW).apply(PICTURE)
    assert (padded[:7] == 9).all()
    assert (padded[-7:] == 9).all()
    assert (padded[7:52] == np.asarray(PICTURE.resize((60, 45), 2))).all()


def test_values_order_and_layout():
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    made = Preprocessing(120, 90, "squash", mean=mean, std=std).apply(PICTURE)
    assert made.dtype == np.float32
    assert made.shape == (3, 90, 120)
    assert made.flags.c_contiguous
    expected = ((PIXELS / 255 - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(made, expected, atol=2e-6)
    bgr = Preprocessing(120, 90, "squash", order="BGR", scale=1.0, layout="NHWC", dtype="float16").apply(PICTURE)
    assert bgr.dtype == np.float16
    assert (bgr == PIXELS[:, :, ::-1]).all()
    # the mean belongs to the channels in their final order
    blue = Preprocessing(120, 90, "squash", order="BGR", scale=1.0, mean=(7.0, 0.0, 0.0)).apply(PICTURE)
    assert (blue[0] == PIXELS[:, :, 2].astype(np.float32) - 7).all()


def test_views():
    same = Preprocessing(120, 90, "squash", **RAW)
    flipped = Preprocessing(120, 90, "squash", view="flip", **RAW).apply(PICTURE)
    assert (flipped == PIXELS[:, ::-1]).all()
    near = Preprocessing(96, 72, "squash", view="crop", **RAW).apply(PICTURE)
    assert (near == PIXELS[9:81, 12:108]).all()
    assert same.least == 120
    assert Preprocessing(96, 72, "squash", view="crop").least == 120
    assert Preprocessing(10, 10, "pad", view="crop", **RAW).apply(PICTURE).shape == (10, 10, 3)


@settings(deadline=None, max_examples=60)
@given(
    w=st.sampled_from([1, 2, 3, 50, 1000, 100_000]), h=st.sampled_from([1, 2, 7, 333]), resize=st.sampled_from(
        ["squash", "shortest", "pad"]), view=st.sampled_from(["", "flip", "crop"]), name=st.sampled_from(list(FILTERS)),
)  # fmt: skip
def test_any_shape_of_picture(w, h, resize, view, name):
    made = Preprocessing(24, 16, resize, filter=name, view=view).apply(Image.new("RGB", (w, h), (255, 255, 255)))
    assert made.shape == (3, 16, 24)
    assert np.isfinite(made).all()
    if resize != "pad":
        assert (made == 1).all()


FACTS = {
    "width": st.integers(1, 64), "height": st.integers(1, 64), "resize": st.sampled_from(["squash", "shortest"]),
    "shorter": st.none() | st.integers(64, 99), "filter": st.sampled_from(list(FILTERS)),
    "scale": st.floats(1e-3, 2), "mean": st.tuples(*[st.floats(-3, 3)] * 3), "std": st.tuples(*[st.floats(0.1, 3)] * 3),
    "order": st.sampled_from(["RGB", "BGR"]), "layout": st.sampled_from(["NCHW", "NHWC"]),
    "dtype": st.sampled_from(["float32", "float16", "uint8"]), "fill": st.integers(0, 255),
    "view": st.sampled_from(["", "flip", "crop"]),
}  # fmt: skip


@given(st.fixed_dictionaries(FACTS))
def test_facts_come_back(facts):
    one = Preprocessing(**facts)
    assert Preprocessing.from_facts(one.facts()) == one
    assert set(one.facts()) == set(FACTS)


WRONG = [
    {"width": 0}, {"width": LARGEST + 1}, {"width": 2.0}, {"width": True}, {"width": "8"}, {"height": None},
    {"resize": "crop"}, {"resize": 3}, {"shorter": 4}, {"shorter": 9, "resize": "pad"}, {"filter": "cubic"},
    {"filter": []}, {"scale": 0}, {"scale": -1}, {"scale": float("nan")}, {"scale": "1"}, {"scale": None},
    {"mean": [0, 0]}, {"mean": 0.5}, {"mean": [0, 0, float("inf")]}, {"mean": ["a", 0, 0]}, {"std": [1, 1, 0]},
    {"std": [1, 1, -1]}, {"order": "GRB"}, {"layout": "CHW"}, {"dtype": "float64"}, {"fill": 256}, {"fill": 0.5},
    {"view": "turn"}, {"colour": 1},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_wrong_facts_are_refused(wrong):
    with pytest.raises(ValueError):
        Preprocessing.from_facts({"width": 8, "height": 8, **wrong})


def test_missing_facts():
    with pytest.raises(ValueError, match="'height'"):
        Preprocessing.from_facts({"width": 8})
    with pytest.raises(ValueError, match="list"):
        Preprocessing.from_facts([1])


IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HUB = [  # preprocessor_config.json as these models have it, and what it means
    ({"feature_extractor_type": "ViTFeatureExtractor", "do_normalize": True, "do_resize": True, "resample": 2,
      "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 224},
     Preprocessing(224, 224, "squash", mean=(0.5,) * 3, std=(0.5,) * 3)),
    ({"image_processor_type": "ViTImageProcessorFast", "size": {"height": 384, "width": 256}, "resample": 3,
      "rescale_factor": 1 / 255, "do_rescale": True, **IMAGENET},
     Preprocessing(256, 384, "squash", filter="bicubic", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))),
    ({"feature_extractor_type": "ConvNextFeatureExtractor", "crop_pct": 0.875, "resample": 3, "size": 224, **IMAGENET},
     Preprocessing(224, 224, shorter=256, filter="bicubic", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))),
    ({"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}, "resample": 3, **IMAGENET},
     Preprocessing(384, 384, "squash", filter="bicubic", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))),
    ({"feature_extractor_type": "CLIPFeatureExtractor", "crop_size": 224, "do_center_crop": True, "resample": 3,
      "size": 224, "image_mean": [0.48, 0.45, 0.4], "image_std": [0.26, 0.26, 0.27]},
     Preprocessing(224, 224, shorter=224, filter="bicubic", mean=(0.48, 0.45, 0.4), std=(0.26, 0.26, 0.27))),
    ({"image_processor_type": "BitImageProcessor", "crop_size": {"height": 224, "width": 224}, "resample": 3,
      "do_center_crop": True, "size": {"shortest_edge": 256}, "rescale_factor": 1 / 255, **IMAGENET},  # DINOv2
     Preprocessing(224, 224, shorter=256, filter="bicubic", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))),
    ({"image_processor_type": "SiglipImageProcessor", "size": {"height": 224, "width": 224}, "resample": 3,
      "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
     Preprocessing(224, 224, "squash", filter="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)),
    ({"image_processor_type": "MobileNetV2ImageProcessor", "size": {"shortest_edge": 256}, "resample": 2,
      "crop_size": {"height": 224, "width": 224}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
     Preprocessing(224, 224, shorter=256, mean=(0.5,) * 3, std=(0.5,) * 3)),
    ({"image_processor_type": "DeiTImageProcessor", "size": {"height": 256, "width": 256}, "do_center_crop": True,
      "crop_size": {"height": 224, "width": 224}, "resample": 3, **IMAGENET},
     Preprocessing(224, 224, "squash", 256, "bicubic", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))),
    ({"image_processor_type": "MobileViTImageProcessor", "size": {"shortest_edge": 288}, "do_flip_channel_order": True,
      "crop_size": {"height": 256, "width": 256}, "resample": 2},
     Preprocessing(256, 256, shorter=288, order="BGR")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "expected"), HUB, ids=lambda x: str(next(iter(x.values()))) if isinstance(x, dict) else ""
)
def test_configurations_of_the_hub(config, expected):
    assert Preprocessing.from_hub(config) == expected


NOT_UNDERSTOOD = [
    {"image_processor_type": "SamImageProcessor", "size": {"longest_edge": 1024}}, {"size": 224, **IMAGENET},
    {"image_processor_type": "ViTImageProcessor", "size": {"longest_edge": 224}},
    {"image_processor_type": "ViTImageProcessor", "do_resize": False},
    {"image_processor_type": "ViTImageProcessor", "do_pad": True},
    {"image_processor_type": "ViTImageProcessor", "resample": 9},
    {"image_processor_type": "ViTImageProcessor", "image_mean": [0.5]},
    {"image_processor_type": "ViTImageProcessor", "size": "224"},
    {"image_processor_type": "ViTImageProcessor", "size": {"height": 0, "width": 4}},
    {"image_processor_type": "ViTImageProcessor", "size": {"height": 99999, "width": 4}},
    {"image_processor_type": "CLIPImageProcessor", "size": 224, "do_center_crop": False},
    {"image_processor_type": "CLIPImageProcessor", "size": 200, "crop_size": 224},
    {"image_processor_type": "ConvNextImageProcessor", "size": 224, "crop_pct": 0},
    {"image_processor_type": "ViTImageProcessor", "rescale_factor": "1/255"},
    {"size": {"height": 224, "width": 224}},
]  # fmt: skip


@pytest.mark.parametrize("config", NOT_UNDERSTOOD, ids=str)
def test_what_is_not_understood_is_refused(config):
    with pytest.raises(ValueError):
        Preprocessing.from_hub(config)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["height", "width", "shortest_edge"]), inner, max_size=3), max_leaves=5)  # fmt: skip
KEYS = [
    "size", "crop_size", "crop_pct", "resample", "image_mean", "image_std", "rescale_factor", "do_center_crop",
    "do_rescale", "do_normalize", "rescale_offset", "include_top", "resize", "filter", "mean", "std", "width", "height",
    "shorter", "scale", "order", "layout", "dtype", "fill", "view",
]  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.sampled_from(KEYS), json_values, max_size=6), st.sampled_from(
    ["ViT", "CLIP", "ConvNext", "DeiT", "Levit", "PoolFormer", "EfficientNet", None]))  # fmt: skip
def test_whatever_a_file_holds(config, family):
    for call in (
        lambda: Preprocessing.from_facts({"width": 8, "height": 8, **config}),
        lambda: Preprocessing.from_hub(
            {**config, **({"image_processor_type": f"{family}ImageProcessor"} if family else {})}
        ),
    ):
        try:
            call()
        except ValueError:
            continue
