"""Networks that carry no ONNX file and are not of the BERT family: exported once by transformers, and compared.

The only module that imports torch and transformers, and only when it is used. The folder is read as data: safetensors,
never pickles; no code of the folder is run (trust_remote_code is off); and nothing is fetched. It happens in this
process. The exported graph must give what transformers gives, to 1e-4 of the largest value, on probes of several shapes.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from headstart.errors import InputError, MissingExtra, ModelError
from headstart.hub import layout

INSTALL = 'pip install "headstart[torch]" transformers'
CLOSE = 1e-4
OPSET = 18
TOWERS = {"clip": "CLIPVisionModelWithProjection", "siglip": "SiglipVisionModel", "siglip2": "SiglipVisionModel"}
LENGTHS = (1, 7, 33)  # tokens of the probes
LOCATION = "model.onnx.data"


def ready(config: Mapping[str, Any]) -> None:
    """Raise MissingExtra unless torch and transformers are here; InputError for what transformers does not name."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise InputError(
            "its config.json names no model_type, so nothing here knows how to build it: ask for a repository with an "
            "ONNX file (onnx-community and Xenova carry many)."
        )
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"there is no ONNX file, and a network of type {kind!r} is exported by {' and '.join(missing)}: {INSTALL}\n"
            "Or give a repository with an ONNX file (onnx-community and Xenova carry many)."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """No request is made, whatever a library would like to ask, and nothing is printed."""
    from transformers.utils import logging

    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
    before = {name: os.environ.get(name) for name in names}
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    os.environ.update(dict.fromkeys(names, "1"))
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def export(home: Path, config: Mapping[str, Any], pictures: Mapping[str, Any] | None, new: Path) -> str:
    """Write model.onnx into `new`; gives a sentence on how. Raises InputError, MissingExtra, ModelError."""
    ready(config)
    for path in home.glob("*.safetensors"):
        if what := layout.sniff(layout.plain(path, home)):
            raise ModelError(f"{path.name} is {what}, whatever its name says; its weights are not read.")
    with _quiet():
        model, names = _model(home, config)
        probes = _probes(config, pictures)
        _write(model, names, probes[-1], new)
        worst = _apart(model, names, probes, new)
    if worst > CLOSE:
        raise ModelError(
            f"the exported graph differs from transformers by {worst:.2g} of the largest value, more than {CLOSE:g}: it "
            "is not accepted. Ask for a repository with an ONNX file."
        )
    import torch
    import transformers

    return (
        f"exported by torch {torch.__version__} and transformers {transformers.__version__}, from which it differs by "
        f"{worst:.1g} of the largest value at most"
    )


def _model(home: Path, config: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """The torch module that gives one tensor, and the names of its inputs."""
    import torch
    import transformers

    kind = str(config["model_type"])
    loader: Any = getattr(transformers, TOWERS[kind]) if kind in TOWERS else transformers.AutoModel
    extra = {} if kind in TOWERS else {"trust_remote_code": False}
    try:
        inner = loader.from_pretrained(
            str(home), use_safetensors=True, local_files_only=True, dtype=torch.float32,
            attn_implementation="eager", **extra,
        ).eval()  # fmt: skip
    except ValueError as error:  # some networks have one kind of attention only
        if "attention" not in str(error):
            raise InputError(f"transformers cannot load it: {str(error).splitlines()[0][:300]}") from error
        inner = loader.from_pretrained(
            str(home), use_safetensors=True, local_files_only=True, dtype=torch.float32, **extra
        ).eval()
    except (OSError, KeyError, RuntimeError, ImportError) as error:
        raise InputError(f"transformers cannot load it: {str(error).splitlines()[0][:300]}") from error
    picture = kind in TOWERS or hasattr(inner.config, "image_size") or inner.main_input_name == "pixel_values"

    class One(torch.nn.Module):  # type: ignore[misc]
        """The network with one input and one output."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, given: Any) -> Any:
            if picture:
                said = self.inner(pixel_values=given)
                found = getattr(said, "image_embeds", None)
                return found if found is not None else said.last_hidden_state
            return self.inner(input_ids=given, attention_mask=torch.ones_like(given)).last_hidden_state

    return One().eval(), ["pixel_values" if picture else "input_ids"]


def _probes(config: Mapping[str, Any], pictures: Mapping[str, Any] | None) -> list[Any]:
    """Inputs of several shapes: rows of token numbers, or pictures of noise."""
    import torch

    draw = torch.Generator().manual_seed(0)
    if pictures is None and "vocab_size" in config:
        words = int(config["vocab_size"])
        return [torch.randint(min(5, words - 1), words, (n + 1, t), generator=draw) for n, t in enumerate(LENGTHS)]
    from headstart.preprocessing import Preprocessing

    try:
        made = Preprocessing.from_hub(pictures or {})
    except ValueError as error:
        raise InputError(f"its preprocessor_config.json is not understood: {error}.") from error
    return [torch.randn((n, 3, made.height, made.width), generator=draw) for n in (1, 3, 2)]


def _write(model: Any, names: list[str], probe: Any, new: Path) -> None:
    """The graph in ONNX, its weights in one file beside it."""
    import onnx
    import torch

    axes = {0: "n", 1: "t"} if names == ["input_ids"] else {0: "n"}
    output = "last_hidden_state"
    try:
        with torch.no_grad():
            rank = model(probe).ndim
            torch.onnx.export(
                model, (probe,), str(new / "model.onnx"), input_names=names, output_names=[output],
                dynamic_axes={names[0]: axes, output: axes if rank == 3 and "t" in axes.values() else {0: "n"}},
                opset_version=OPSET, dynamo=False, do_constant_folding=True,
            )  # fmt: skip
    except Exception as error:  # torch raises of everything here
        raise InputError(f"torch cannot export it: {str(error).splitlines()[0][:300]}") from error
    made = onnx.load(str(new / "model.onnx"))
    for path in new.iterdir():  # large graphs come as many files
        path.unlink()
    onnx.save_model(
        made, str(new / "model.onnx"), save_as_external_data=True, all_tensors_to_one_file=True, location=LOCATION
    )


def _apart(model: Any, names: list[str], probes: list[Any], new: Path) -> float:
    """The largest difference between transformers and ONNX Runtime, as a share of the largest value."""
    import torch

    from headstart.backbones import onnx as runtime

    session = runtime.session((new / "model.onnx").read_bytes(), new)
    worst = 0.0
    for probe in probes:
        with torch.no_grad():
            want = model(probe).numpy()
        (got,) = session.run(None, {names[0]: probe.numpy()})
        if got.shape != want.shape or not np.isfinite(got).all():
            return float("inf")
        worst = max(worst, float(np.abs(got - want).max()) / max(1.0, float(np.abs(want).max())))
    return worst
