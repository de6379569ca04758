"""A folder in the Hub's layout: what it says of itself. Everything is read as data, nothing is run.

Read are config.json, the files of a tokeniser, preprocessor_config.json, those that sentence-transformers adds
(modules.json, sentence_bert_config.json, 1_Pooling/config.json), and of README.md two lines of its first 64 KB.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from headstart import jsontext
from headstart.errors import InputError, ModelError, near

SMALL = (
    "config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "modules.json",
    "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json", "README.md", "LICENSE",
)  # fmt: skip
JSON_LIMIT = 8 << 20  # bytes of a configuration
TOKENISER_LIMIT = 64 << 20
CARD_LIMIT = 64 << 10  # bytes of README.md that are read
CODE = "which asks for its own Python code to be run (trust_remote_code). Headstart never runs code from a model."
PICKLE = (
    "only pickled weights, and to read a pickle is to run a program that its author chose. Ask the author for "
    "model.safetensors or an ONNX file, or convert it yourself where you trust it."
)

_PICKLED = re.compile(r"\.(bin|pt|pth|ckpt|pkl|pickle|h5|hdf5|keras|msgpack|joblib|npy|npz|nemo|pdparams|ot)$", re.I)
_REDUCED = re.compile(r"quant|int8|uint8|int4|q4|q8|bnb|fp16|float16|bf16|_o[1-4]\b|_o[1-4]\.", re.I)
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .+_\-]{0,60}")
SPDX = {
    name.lower(): name
    for name in (
        "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0",
        "CC-BY-NC-SA-4.0", "CC-BY-NC-ND-4.0", "CC-BY-ND-4.0", "GPL-3.0", "LGPL-3.0", "AGPL-3.0", "MPL-2.0",
        "Unlicense", "ISC", "AFL-3.0", "ECL-2.0", "EPL-2.0", "WTFPL", "Zlib", "MS-PL", "Artistic-2.0", "BSL-1.0",
    )
}  # fmt: skip
_MAGIC = (
    (b"PK\x03\x04", "a zip archive, as torch.save writes it, with a pickle inside"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x89HDF", "an HDF5 file (Keras)"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a NumPy file"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"version https://git-lfs", "a Git LFS pointer: the file itself was not fetched (git lfs pull)"),
)


@dataclass(frozen=True)
class Said:
    """What a folder says of itself."""

    inner: str = ""  # the folder inside with the network's own files, "0_Transformer" say
    config: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, Any] | None = None  # preprocessor_config.json, or what timm says
    tokens: int | None = None  # a text is cut after so many
    lower: bool = False  # texts are made lower case first
    prefix: str = ""  # put before every text
    licence: str = "unknown"
    notes: tuple[str, ...] = ()


def json(path: Path, limit: int = JSON_LIMIT) -> dict[str, Any]:
    """An object from a JSON file; {} where there is none. Raises ModelError."""
    if not path.is_file():
        return {}
    if path.stat().st_size > limit:
        raise ModelError(f"{path.name} has {path.stat().st_size:,} bytes; {limit:,} are allowed.")
    try:
        found = jsontext.parse(path.read_bytes().decode("utf-8-sig"))
    except ValueError as error:
        raise ModelError(f"{path.name} is not sound JSON: {error}.") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path.name} holds no object.")
    return found


def sniff(path: Path) -> str | None:
    """What a file is by its first bytes when that is none of ours, in words; its name is not asked.

    Where the framing of safetensors fits, that wins: the length of its header may look like the beginning of anything.
    """
    with open(path, "rb") as file:
        head = file.read(64)
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= path.stat().st_size - 8:
        return None
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return what
    if re.match(rb"\x80[\x02-\x05].", head, re.S) or re.match(rb"[(\]}clS].{0,40}\n", head, re.S):
        return "a pickle"
    return None


def licence(text: str) -> str:
    """The licence that the front matter of a README.md states: SPDX, the name of the terms, or "unknown".

    Read are the lines `license:` and `license_name:` before the second `---`, as plain words. Whatever else YAML can be
    (tags, anchors, aliases) is not read at all.
    """
    lines = text.lstrip("\ufeff").splitlines()
    if not lines or lines[0].rstrip() != "---":
        return "unknown"
    said: dict[str, str] = {}
    for number, line in enumerate(lines[1:], 1):
        if line.rstrip() == "---":
            break
        key, colon, value = line.partition(":")
        if colon and key in ("license", "license_name", "licence"):
            following = lines[number + 1].strip() if number + 1 < len(lines) else ""
            if not value.strip() and following.startswith("- "):
                value = following[2:]  # a list: the first of them
            said.setdefault(key, value.split(" #")[0].strip().strip("\"'"))
    else:
        return "unknown"  # it never ends
    name = said.get("license", said.get("licence", ""))
    if name.lower() in ("other", "") and said.get("license_name"):
        name = said["license_name"]
    if not _LICENCE.fullmatch(name) or name.lower() in ("unknown", "none", "null"):
        return "unknown"
    return SPDX.get(name.lower(), name)


def plain(path: Path, root: Path) -> Path:
    """A file of the folder with links followed; ModelError where they lead out of it (and of the Hub's blobs)."""
    real, home = path.resolve(), root.resolve()
    allowed = [home]
    if home.parent.name == "snapshots":  # models--owner--name/snapshots/COMMIT links to models--owner--name/blobs
        allowed.append(home.parent.parent / "blobs")
    if not any(real.is_relative_to(one) for one in allowed):
        raise ModelError(f"{path.name} is a link that leads out of its folder, to {real}.")
    if not real.is_file():
        raise ModelError(f"{path.name} is no plain file.")
    return real


def read(root: Path) -> Said:
    """What a folder says of itself. Raises InputError where it needs code run, ModelError where it is damaged."""
    for name in SMALL:
        if (root / name).exists():
            plain(root / name, root)
    notes: list[str] = []
    inner = _modules(json_list(root / "modules.json"), notes)
    home = root / inner if inner else root
    config = json(home / "config.json")
    tokeniser, pictures = json(home / "tokenizer_config.json"), json(home / "preprocessor_config.json")
    for name, found in (
        ("config.json", config),
        ("tokenizer_config.json", tokeniser),
        ("preprocessor_config.json", pictures),
    ):
        if found.get("auto_map") or found.get("custom_pipelines"):
            raise InputError(f"its {name} has auto_map, {CODE}")
    sentence = json(home / "sentence_bert_config.json")
    prompts = json(root / "config_sentence_transformers.json")
    _pooling(json(root / "1_Pooling" / "config.json"), notes)
    prefix = ""
    if (chosen := prompts.get("default_prompt_name")) and isinstance(prompts.get("prompts"), dict):
        prefix = str(prompts["prompts"].get(str(chosen), ""))[:500]
    if not pictures and isinstance(config.get("pretrained_cfg"), dict):
        pictures = timm(config["pretrained_cfg"])
    said = "unknown"
    if (root / "README.md").is_file():
        with open(root / "README.md", "rb") as file:
            said = licence(file.read(CARD_LIMIT).decode("utf-8", "replace"))
    return Said(
        inner=inner,
        config=config,
        pictures=pictures or None,
        tokens=_tokens(config, tokeniser, sentence),
        lower=sentence.get("do_lower_case") is True,
        prefix=prefix,
        licence=said,
        notes=tuple(notes),
    )


def json_list(path: Path) -> list[Any]:
    """A list from a JSON file; [] where there is none. Raises ModelError."""
    if not path.is_file():
        return []
    try:
        found = jsontext.parse(path.read_bytes()[: JSON_LIMIT + 1].decode("utf-8"))
    except ValueError as error:
        raise ModelError(f"{path.name} is not sound JSON: {error}.") from error
    if not isinstance(found, list):
        raise ModelError(f"{path.name} holds no list.")
    return found


def _modules(modules: list[Any], notes: list[str]) -> str:
    """The folder of the network's own files; what sentence-transformers puts on top is noted."""
    inner = ""
    for module in modules:
        said = module if isinstance(module, dict) else {}
        kind, path = str(said.get("type", "")), str(said.get("path", ""))
        if not kind.startswith("sentence_transformers."):
            raise InputError(f"its modules.json names {kind or 'a module'!r}, {CODE}")
        if kind.endswith(".Transformer"):
            inner = path
        elif kind.endswith((".Dense", ".LayerNorm", ".CNN", ".LSTM", ".WordWeights", ".BoW")):
            notes.append(f"its {kind.rsplit('.', 1)[1]} layer on top of the network is left out")
    if inner and (PurePosixPath(inner).is_absolute() or ".." in inner.split("/") or "\\" in inner):
        raise ModelError(f"modules.json names the folder {inner!r}, which leads out.")
    return inner


def _pooling(pooling: Mapping[str, Any], notes: list[str]) -> None:
    ways = [
        key.removeprefix("pooling_mode_")
        for key, on in pooling.items()
        if key.startswith("pooling_mode_") and on is True
    ]
    if ways and ways != ["mean_tokens"]:
        what = {"cls_token": "the first token's state", "max_tokens": "the largest over tokens"}.get(ways[0], ways[0])
        notes.append(
            f"its authors take {what} as the feature; cut {'max' if 'max' in ways[0] else 'top'} or another may differ"
        )


def _tokens(config: Mapping[str, Any], tokeniser: Mapping[str, Any], sentence: Mapping[str, Any]) -> int | None:
    """After how many tokens a text is cut: what sentence-transformers says, else the tokeniser, else the positions."""
    numbers = [sentence.get("max_seq_length"), tokeniser.get("model_max_length"), config.get("max_position_embeddings")]
    places = numbers[2]
    if isinstance(places, int) and config.get("model_type") in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        pad = config.get("pad_token_id", 1)
        numbers[2] = places = places - (pad + 1 if isinstance(pad, int) else 2)
    for number in numbers:
        if isinstance(number, int) and not isinstance(number, bool) and 0 < number <= 1 << 16:
            return min(number, places) if isinstance(places, int) and places > 0 else number
    return None


def timm(said: Mapping[str, Any]) -> dict[str, Any]:
    """The `pretrained_cfg` of a timm config.json in the words of a preprocessor_config.json. {} where it is not whole."""
    try:
        _, height, width = said["input_size"]
        share = float(said.get("crop_pct", 0.875))
        resample = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}[said.get("interpolation", "bicubic")]
        if said.get("crop_mode", "center") != "center" or not 0.1 <= share <= 1 or height != width:
            return {}
        return {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": int(height / share)},
            "do_center_crop": True,
            "crop_size": {"height": height, "width": width},
            "resample": resample,
            "do_normalize": True,
            "image_mean": list(said["mean"]),
            "image_std": list(said["std"]),
        }
    except (KeyError, TypeError, ValueError):
        return {}


def names(root: Path, inner: str = "") -> list[str]:
    """The files that can matter: those of the folder itself, of onnx/ in it, and of the network's own folder."""
    found = []
    for folder in dict.fromkeys(("", "onnx", inner, f"{inner}/onnx" if inner else "")):
        place = root / folder if folder else root
        if place.is_dir():
            found += [f"{folder}/{one.name}" if folder else one.name for one in place.iterdir() if one.is_file()]
    return sorted(found)


def graph_file(names: Iterable[str], asked: str | None = None) -> str | None:
    """The ONNX file to take, in float32 and of the picture side where there are two; None where there is none.

    Raises InputError where several could be meant.
    """
    found = sorted(name for name in names if name.lower().endswith(".onnx"))
    if asked is not None:
        if asked not in found:
            raise InputError(f"there is no ONNX file {asked!r}.{near(asked, found)}")
        return asked
    for stem in ("vision_model", "model"):
        for folder in ("onnx/", ""):
            if f"{folder}{stem}.onnx" in found:
                return f"{folder}{stem}.onnx"
    whole = [name for name in found if not _REDUCED.search(PurePosixPath(name).name)]
    if len(whole) == 1:
        return whole[0]
    if found:
        raise InputError(
            f"several ONNX files could be meant ({', '.join((whole or found)[:8])}): name one in a card, a TOML file with "
            f'the line file = "{(whole or found)[0]}", and give it with --card.'
        )
    return None


def precision(name: str) -> str:
    """What the name of an ONNX file says of its numbers: float32, float16 or int8."""
    found = _REDUCED.search(PurePosixPath(name).name)
    if found is None or found[0].lower().startswith("_o"):
        return "float32"
    return "float16" if "16" in found[0] else "int8"


def pickled(names: Iterable[str]) -> list[str]:
    """Those of the names that hold pickled (or otherwise executable) weights."""
    return sorted(name for name in names if _PICKLED.search(name))


def modules_folder(root: Path) -> str:
    """The folder of the network's own files that modules.json names, or ''."""
    return _modules(json_list(root / "modules.json"), [])
