"""How a picture becomes the input of a network: resized, cropped, scaled and laid out.

It belongs to a backbone and to its fingerprint: two networks that differ only here give different features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

RESIZES = ("squash", "shortest", "pad")
FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}  # Pillow's numbers
VIEWS = ("", "flip", "crop")
DTYPES = {"float32": np.float32, "float16": np.float16, "uint8": np.uint8}
LARGEST = 4096  # pixels along a side
CROP = 0.8  # of each side, in the view "crop"

_PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an RGB picture before a network sees it. Raises ValueError where it cannot be done.

    squash: to width x height, whatever the shape; with `shorter`, to a square of that side, then the centre is cropped.
    shortest: the shorter side becomes `shorter` (None: the larger of width and height), then the centre is cropped.
    pad: the whole picture fits, in the middle; the rest is `fill`.
    """

    width: int  # pixels of the network's input
    height: int
    resize: str = "shortest"  # squash | shortest | pad
    shorter: int | None = None
    filter: str = "bilinear"  # nearest | box | bilinear | hamming | bicubic | lanczos
    scale: float = 1 / 255  # (pixel * scale - mean) / std
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    order: str = "RGB"  # of the channels, and of mean and std; or BGR
    layout: str = "NCHW"  # or NHWC
    dtype: str = "float32"  # float16; uint8: pixels as they are
    fill: int = 0  # 0 to 255
    view: str = ""  # "flip" (mirrored) and "crop" (the middle, larger) are second looks at the same picture

    def __post_init__(self) -> None:
        sides = (self.width, self.height, *(() if self.shorter is None else (self.shorter,)))
        for side in sides:
            if isinstance(side, bool) or not isinstance(side, int) or not 1 <= side <= LARGEST:
                raise ValueError(f"a side of {side!r} pixels; it must be a whole number from 1 to {LARGEST:,}")
        if self.shorter is not None and (self.resize == "pad" or self.shorter < max(self.width, self.height)):
            raise ValueError(f"a picture resized to {self.shorter} cannot be cropped to {self.width} x {self.height}")
        for what, value, allowed in (
            ("resize", self.resize, RESIZES),
            ("filter", self.filter, tuple(FILTERS)),
            ("order", self.order, ("RGB", "BGR")),
            ("layout", self.layout, ("NCHW", "NHWC")),
            ("dtype", self.dtype, tuple(DTYPES)),
            ("view", self.view, VIEWS),
        ):
            if value not in allowed:
                raise ValueError(f"{what} {value!r} is none of {', '.join(map(repr, allowed))}")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError("mean and std need three numbers each, one a channel")
        numbers = (self.scale, *self.mean, *self.std)
        if not all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in numbers):
            raise ValueError("scale, mean and std must be finite numbers")
        if self.scale <= 0 or min(self.std) <= 0:
            raise ValueError("scale and std must be above 0")
        if isinstance(self.fill, bool) or not isinstance(self.fill, int) or not 0 <= self.fill <= 255:
            raise ValueError(f"fill {self.fill!r} must be a whole number from 0 to 255")

    @property
    def least(self) -> int:
        """Pixels a decoded picture needs along its shorter side for nothing to be lost; see `image.decoded`."""
        side = max(self.width, self.height, self.shorter or 0)
        return math.ceil(side / CROP) if self.view == "crop" else side

    def apply(self, picture: Image) -> NDArray[Any]:
        """An RGB picture as (3, height, width), or (height, width, 3) where the layout is NHWC."""
        pixels = np.asarray(self._resized(picture))  # (h, w, 3) uint8
        if self.order == "BGR":
            pixels = pixels[:, :, ::-1]
        if self.layout == "NCHW":
            pixels = pixels.transpose(2, 0, 1)
        pixels = np.ascontiguousarray(pixels)  # first, while they are bytes: the fastest order of these steps
        if self.dtype == "uint8":
            return pixels
        slope, start = self._line
        made: NDArray[np.float32] = pixels.astype(np.float32)
        made *= slope
        made += start
        return made if self.dtype == "float32" else made.astype(np.float16)

    @cached_property
    def _line(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Slope and intercept by channel, so that a pixel's value is pixel * slope + intercept."""
        std = np.array(self.std, np.float64)
        line = np.stack([self.scale / std, -np.array(self.mean, np.float64) / std]).astype(np.float32)  # (2, 3)
        shaped = line.reshape((2, 3, 1, 1) if self.layout == "NCHW" else (2, 1, 1, 3))
        return shaped[0], shaped[1]

    def _resized(self, picture: Image) -> Image:
        """The picture at width x height. The crop is taken out of the picture itself, so that nothing larger is made."""
        size, rule = (self.width, self.height), FILTERS[self.filter]
        if self.resize == "pad":
            made = self._padded(picture)
        else:
            made = picture.resize(size, rule, box=self._box(*picture.size))
        if self.view == "flip":
            made = made.transpose(0)  # type: ignore[arg-type]  # FLIP_LEFT_RIGHT
        return made

    def _box(self, w: int, h: int) -> tuple[float, float, float, float]:
        """The part of a w x h picture that the network sees: left, top, right, bottom in its pixels."""
        wide, high = self.width, self.height  # of the whole picture, resized
        if self.resize == "squash":
            if self.shorter is not None:
                wide = high = self.shorter
        else:
            shorter = self.shorter or max(self.width, self.height)
            wide, high = (shorter, int(shorter * h / w)) if w <= h else (int(shorter * w / h), shorter)
        left, top = (wide - self.width) // 2, (high - self.height) // 2
        box = (left * w / wide, top * h / high, (left + self.width) * w / wide, (top + self.height) * h / high)
        return self._nearer(*box) if self.view == "crop" else (box[0], box[1], min(box[2], w), min(box[3], h))

    @staticmethod
    def _nearer(left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float]:
        x, y = (right - left) * (1 - CROP) / 2, (bottom - top) * (1 - CROP) / 2
        return left + x, top + y, right - x, bottom - y

    def _padded(self, picture: Image) -> Image:
        from PIL import Image as pillow

        w, h = picture.size
        share = min(self.width / w, self.height / h)
        inner = (max(1, min(self.width, round(w * share))), max(1, min(self.height, round(h * share))))
        box = self._nearer(0, 0, w, h) if self.view == "crop" else None
        small = picture.resize(inner, FILTERS[self.filter], box=box)
        whole = pillow.new("RGB", (self.width, self.height), (self.fill,) * 3)
        whole.paste(small, ((self.width - inner[0]) // 2, (self.height - inner[1]) // 2))
        return whole

    def facts(self) -> dict[str, Any]:
        """Everything that decides a pixel's value, for JSON; `from_facts` reads it back."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Preprocessing:
        """What `facts` gave. Raises ValueError for anything unknown, missing or out of bounds."""
        if not isinstance(facts, Mapping):
            raise ValueError(f"preprocessing is a {type(facts).__name__} and not an object")
        if unknown := sorted(set(facts) - {field.name for field in fields(cls)}):
            raise ValueError(f"preprocessing has {unknown[0]!r}, which is not known")
        if missing := sorted({"width", "height"} - set(facts)):
            raise ValueError(f"preprocessing has no {missing[0]!r}")
        read = dict(facts)
        for name in ("mean", "std"):
            if name in read:
                if not isinstance(read[name], list | tuple):
                    raise ValueError(f"{name} must be a list of three numbers")
                read[name] = tuple(read[name])
        for name in ("resize", "filter", "order", "layout", "dtype", "view"):
            if name in read and not isinstance(read[name], str):
                raise ValueError(f"{name} {read[name]!r} is not a word")
        return cls(**read)

    @classmethod
    def from_hub(cls, config: Mapping[str, Any]) -> Preprocessing:
        """From a Hugging Face preprocessor_config.json. Raises ValueError with what is not understood."""
        return cls(**_hub(config))


# The image processors of Hugging Face transformers, and what they do to a `size` that is one number. -----------------

_BY_SHORTEST = {
    "CLIP",
    "ConvNext",
    "Bit",
    "MobileNetV1",
    "MobileNetV2",
    "MobileViT",
    "PoolFormer",
    "Levit",
    "ChineseCLIP",
}
_SQUASHED = {"ViT", "Siglip", "DeiT", "Beit", "EfficientNet", "Blip", "Dinov2", "DINOv3ViT", "ViTHybrid"}
_BICUBIC = {"CLIP", "ChineseCLIP", "Bit", "DeiT", "Beit", "Siglip", "PoolFormer", "Levit", "Blip", "ViTHybrid"}
_HALF = {"ViT", "MobileNetV1", "MobileNetV2", "Siglip"}  # mean and std 0.5 where the file does not say
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


def _hub(config: Mapping[str, Any]) -> dict[str, Any]:
    said = config.get("image_processor_type", config.get("feature_extractor_type"))
    kind = _family(said)
    if not config.get("do_resize", True):
        raise ValueError("do_resize is false; the network's input has no size of its own")
    if config.get("do_pad") or config.get("do_split_image") or config.get("do_image_splitting"):
        raise ValueError("pictures are padded or split into tiles, which is not understood")
    number = config.get("resample", 0 if kind == "EfficientNet" else 3 if kind in _BICUBIC else 2)
    names = {value: name for name, value in FILTERS.items()}
    if isinstance(number, bool) or not isinstance(number, int) or number not in names:
        raise ValueError(f"resample {number!r} is not understood")
    made = {**_hub_size(kind, config), "filter": names[number], **_hub_values(kind, config)}
    if config.get("do_flip_channel_order", kind == "MobileViT"):
        made["order"] = "BGR"
    return made


def _family(said: object) -> str:
    if said is None:
        return ""
    kind = str(said)
    for end in ("Fast", "ImageProcessor", "FeatureExtractor"):
        kind = kind.removesuffix(end)
    if kind not in _BY_SHORTEST | _SQUASHED:
        raise ValueError(f"the image processor {said!r} is not understood")
    return kind


def _hub_size(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """width, height, resize and shorter."""
    size = config.get("size", 224)
    if isinstance(size, int) and not kind:
        raise ValueError(f"size {size} without an image_processor_type: to which side does it belong?")
    if isinstance(size, int):
        size = {"shortest_edge": size} if kind in _BY_SHORTEST else {"height": size, "width": size}
    crop = _pair("crop_size", config.get("crop_size", 224)) if _crops(kind, config) else None
    if isinstance(size, Mapping) and set(size) == {"height", "width"}:
        width, height = _pair("size", size)
        if crop is None or crop == (width, height):
            return {"width": width, "height": height, "resize": "squash"}
        if width != height:
            raise ValueError(f"a size of {width} x {height} with a crop is not understood")
        return {"width": crop[0], "height": crop[1], "resize": "squash", "shorter": width}
    if not isinstance(size, Mapping) or set(size) != {"shortest_edge"}:
        raise ValueError(f"size {size!r} is not understood")
    shorter = _whole("size", size["shortest_edge"])
    if kind == "ConvNext":
        share = 224 / 256 if config.get("crop_pct") is None else config["crop_pct"]
        if shorter >= 384:
            return {"width": shorter, "height": shorter, "resize": "squash"}
        return {"width": shorter, "height": shorter, "shorter": int(shorter / _share(share))}
    if kind == "PoolFormer":
        crop = crop or (shorter, shorter)
        return {"width": crop[0], "height": crop[1], "shorter": int(crop[0] / _share(config.get("crop_pct", 0.9)))}
    if kind == "Levit":
        shorter = int(256 / 224 * shorter)
    if crop is None:
        raise ValueError("the shorter side is resized and nothing is cropped; the input has no fixed shape")
    return {"width": crop[0], "height": crop[1], "shorter": shorter}


def _crops(kind: str, config: Mapping[str, Any]) -> bool:
    default = kind in _BY_SHORTEST - {"ConvNext"} or kind in ("DeiT", "ViTHybrid")
    return bool(config.get("do_center_crop", default))


def _hub_values(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """scale, mean and std."""
    scale = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    if not config.get("do_normalize", kind != "MobileViT"):
        mean, std = _PLAIN
    else:
        default = _PLAIN if not kind else (_MEAN, _STD)
        if kind in _HALF:
            default = ((0.5,) * 3, (0.5,) * 3)
        elif kind in ("CLIP", "ChineseCLIP", "Bit", "Blip", "ViTHybrid"):
            default = (_CLIP_MEAN, _CLIP_STD)
        given = config.get("image_mean", default[0]), config.get("image_std", default[1])
        if not kind and not {"image_mean", "image_std"} <= set(config):
            raise ValueError("image_mean and image_std are not given")
        mean, std = _three("image_mean", given[0]), _three("image_std", given[1])
    if config.get("rescale_offset"):  # to -1 .. 1 before the mean is taken away
        mean = (mean[0] + 1, mean[1] + 1, mean[2] + 1)
    if kind == "EfficientNet" and config.get("include_top", True) and config.get("do_normalize", True):
        std = (std[0] ** 2, std[1] ** 2, std[2] ** 2)  # divided by it once more
    return {"scale": scale, "mean": mean, "std": std}


def _whole(what: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{what} {value!r} is not a whole number")
    return value


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.1 <= value <= 1:
        raise ValueError(f"crop_pct {value!r} is not between 0.1 and 1")
    return float(value)


def _pair(what: str, value: object) -> tuple[int, int]:
    """(width, height) of a number or of {"height", "width"}."""
    if isinstance(value, Mapping) and set(value) == {"height", "width"}:
        return _whole(what, value["width"]), _whole(what, value["height"])
    side = _whole(what, value)
    return side, side


def _three(what: str, value: object) -> tuple[float, float, float]:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError(f"{what} {value!r} is not a list of three numbers")
    if any(isinstance(one, bool) or not isinstance(one, int | float) for one in value):
        raise ValueError(f"{what} {value!r} is not a list of three numbers")
    return tuple(value)
