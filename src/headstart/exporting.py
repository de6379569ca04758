"""A model as a folder that predicts without Headstart: ONNX Runtime, and tokenizers or Pillow, are enough.

    model.onnx           from token numbers, or a preprocessed picture, to probabilities and `unknown`; says what it is
    tokenizer.json       of texts; it cuts after the base's token limit
    preprocessing.json   of pictures
    labels.json          task, labels, thresholds, licence, base, digest
    predict.py           some 25 lines, made for this very model
    README.md            what it is, its figures, its licence, how it is run

The network is the part below the cut, with nothing above it. Before the folder takes its name a fresh process, in
which Headstart cannot be imported, runs its predict.py on the model's stored probes; other answers are refused.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from headstart import answering, exported_predict, modalities, saved
from headstart.answers import Answers
from headstart.backbone import Portable
from headstart.errors import InputError, ModelError
from headstart.head import CLASSIFICATION, MULTILABEL, REGRESSION
from headstart.model import TOLERANCE, Model, difference
from headstart.storage import atomic_folder

GRAPH, TOKENISER, PREPROCESSING = "model.onnx", "tokenizer.json", "preprocessing.json"
LABELS, PREDICT, README = "labels.json", "predict.py", "README.md"
LARGEST = (1 << 31) - (1 << 20)  # bytes of an ONNX file: the limit of its format, protobuf
NEAR = 1e-3  # a novelty as near as this to its threshold may fall on either side
ABSENT = ("headstart", "onnx", "torch", "transformers", "pyarrow", "safetensors")  # what an export must not need

CHECK = f"""
import json, runpy, sys
for name in {ABSENT!r}:
    sys.modules[name] = None
script = runpy.run_path(sys.argv[1])
contents = json.load(sys.stdin)
found = [([part.tolist() for part in script["answer"](content)], script["predict"](content)) for content in contents]
print(json.dumps(found))
"""


def export(model: Model, folder: Path, *, unknown: bool = True) -> dict[str, Any]:
    """Write the folder: {folder, files: {name: bytes}, bytes, probes, difference, name, modality, unknown}.

    Without `unknown` the features of training examples that tell foreign input stay out of it, and so does that answer.
    `difference` is the largest of a probability (of a number: relative to it) over the probes. Raises InputError where
    there is no network to give away or the folder is there and not empty, ModelError where the answers would differ.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is already there and not empty: name a folder that is not there yet.")
    if model.folder is None:
        raise InputError(f"model {model.name!r} was not saved, so there are no probes to check an export on.")
    try:
        portable = model.backbone.portable()
    except InputError as error:
        todo = (
            ""
            if model.backbone.taps
            else " Fit it on a network, one that `headstart backbones` lists, and export that."
        )
        raise InputError(f"model {model.name!r} cannot be exported: {error}{todo}") from error
    foreign = model.unknown if unknown else None
    network = composed(model, portable, foreign is not None)
    with atomic_folder(folder) as new:
        (new / GRAPH).write_bytes(network.SerializeToString())
        inputs = [given.name for given in network.graph.input]
        if portable.modality == "text":
            (new / TOKENISER).write_bytes(_tokeniser(portable))
            script = exported_predict.text(model.task, inputs, unknown=foreign is not None)
        else:
            assert portable.preprocessing is not None
            saved.write_json(new / PREPROCESSING, portable.preprocessing.facts())
            script = exported_predict.picture(
                model.task, inputs[0], portable.preprocessing, unknown=foreign is not None
            )
        (new / PREDICT).write_text(script, "utf-8", newline="\n")
        saved.write_json(new / LABELS, facts(model))
        (new / README).write_text(_readme(model, portable, foreign is not None), "utf-8", newline="\n")
        probes, apart = checked(model, new, foreign is not None)
        files = {path.name: path.stat().st_size for path in sorted(new.iterdir())}
        if folder.exists() and sys.platform == "win32":
            folder.rmdir()  # elsewhere the rename replaces an empty folder
    return {
        "name": model.name, "folder": str(folder), "modality": portable.modality, "files": files,
        "bytes": sum(files.values()), "probes": probes, "difference": apart, "unknown": foreign is not None,
    }  # fmt: skip


def facts(model: Model) -> dict[str, Any]:
    """What labels.json says."""
    base = model.card["backbone"]
    return {
        "name": model.name,
        "digest": model.card.get("digest"),
        "task": model.task,
        "labels": list(model.labels),
        "thresholds": None if model.thresholds is None else [float(value) for value in model.thresholds],
        "backbone": {key: base.get(key) for key in ("name", "source", "revision", "licence", "precision", "cut")},
    }


def composed(model: Model, portable: Portable, unknown: bool) -> onnx.ModelProto:
    """The network below the cut and the answers above it, as one. Raises ModelError where they do not fit."""
    whole = onnx.ModelProto()
    whole.CopyFrom(portable.model)
    _fits(whole.graph, portable)
    opset = next((part.version for part in whole.opset_import if part.domain in ("", "ai.onnx")), 0)
    if opset < answering.OLDEST:
        try:
            whole = onnx.version_converter.convert_version(whole, answering.OLDEST)
        except (onnx.version_converter.ConvertError, RuntimeError) as error:
            raise ModelError(
                f"the network of opset {opset} cannot be brought to {answering.OLDEST}: {error}"
            ) from error
    width = int(model.card["backbone"]["width"])
    above = answering.graph(model.head, model.calibration, model.unknown if unknown else None, model.task, width)
    if _names(whole.graph) & (_names(above) - {answering.FEATURES}):
        whole = onnx.compose.add_prefix(whole, "network/", rename_inputs=False, rename_outputs=False)
    whole.graph.node.extend(above.node)
    whole.graph.initializer.extend(above.initializer)
    whole.graph.ClearField("output")
    whole.graph.output.extend(above.output)
    _cleared(whole)
    whole.graph.name = model.name
    whole.producer_name, whole.producer_version = "headstart", version("headstart")
    said = {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts(model).items()}
    onnx.helper.set_model_props(whole, said)
    if whole.ByteSize() > LARGEST:
        raise InputError(f"the network has {whole.ByteSize() / 1e9:.1f} GB, and an ONNX file holds at most 2.")
    try:
        onnx.checker.check_model(whole)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"the network cannot be exported: {error}") from error
    return whole


def _fits(graph: onnx.GraphProto, portable: Portable) -> None:
    """Raise ModelError unless a network has the inputs and the output that `Portable` says."""
    inputs, outputs = [given.name for given in graph.input], [made.name for made in graph.output]
    known = {"input_ids", *exported_predict.NUMBERS}
    fits = set(inputs) <= known and "input_ids" in inputs if portable.modality == "text" else len(inputs) == 1
    if not fits or outputs != [answering.FEATURES]:
        raise ModelError(f"a network from {inputs} to {outputs} is not one of {portable.modality} features.")


def _names(graph: onnx.GraphProto) -> set[str]:
    """Every name of a tensor in a graph."""
    found = {part.name for field in (graph.input, graph.output, graph.initializer) for part in field}
    return found.union(*(set(node.input) | set(node.output) for node in graph.node))


def _cleared(model: onnx.ModelProto) -> None:
    """Take out remarks, which may name the paths and lines of the program that wrote the graph."""
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer, *model.graph.input):
        part.ClearField("doc_string")
        if "metadata_props" in part.DESCRIPTOR.fields_by_name:
            part.ClearField("metadata_props")


def _tokeniser(portable: Portable) -> bytes:
    """tokenizer.json as it is, but cutting after the token limit and without padding."""
    described = json.loads(portable.tokeniser)
    described["padding"] = described["truncation"] = None
    if portable.tokens:
        described["truncation"] = {
            "direction": "Right", "max_length": portable.tokens, "strategy": "LongestFirst", "stride": 0,
        }  # fmt: skip
    return json.dumps(described, ensure_ascii=False).encode()


def checked(model: Model, folder: Path, unknown: bool) -> tuple[int, float]:
    """Have a fresh process run the folder's predict.py on the stored probes: their number and the largest difference.

    Of pictures the first probe is asked about once more, as a photograph: large, a JPEG, to be turned upright. Raises
    ModelError when the process fails, or answers otherwise than the model does here, or did when it was trained.
    """
    assert model.folder is not None
    kept, _, stored = saved.read_probes(model.folder)
    if not kept:
        raise ModelError(f"model {model.name!r} has no probes to check an export on: fit it anew.")
    modality = modalities.load(model.modality)
    try:
        contents = [modality.unprobe(probe) for probe in kept]
    except ValueError as error:
        raise ModelError(f"{model.folder / saved.PROBES}: a probe cannot be read: {error}.") from error
    contents += [_photograph(content) for content in contents[:1] if isinstance(content, bytes)]
    X = model.backbone.encode(contents)  # type: ignore[arg-type]
    expected = model.answer(X)
    if not difference(expected.P[: len(kept)], stored) <= 10 * TOLERANCE:
        raise ModelError(
            f"model {model.name!r} does not answer as it did when it was trained: see `headstart verify {model.name}`."
        )
    found = _asked(folder, contents)
    apart = difference(np.array([outputs[0][0] for outputs, _ in found], np.float32), expected.P)
    if not apart <= TOLERANCE:
        raise ModelError(
            f"the exported files would answer the {len(kept)} probes of model {model.name!r} otherwise than the model "
            f"does, by up to {apart:.2g}: nothing was written."
        )
    for i, (_, said) in enumerate(found):
        if not _same(model, said, expected, i):
            raise ModelError(f"the exported files would give probe {i + 1} another label: nothing was written.")
    if unknown and model.unknown is not None:
        novelty = model.unknown.scores(X, expected.P)
        flags = np.array([outputs[1][0] for outputs, _ in found]) != expected.unknown
        if (flags & (np.abs(novelty - model.unknown.threshold) > NEAR)).any():
            raise ModelError(
                f"the exported files would call {flags.sum()} probes otherwise 'unknown': nothing was written."
            )
    return len(kept), apart


def _photograph(content: bytes) -> bytes:
    """A picture as a large JPEG that lies on its side and says so."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as file:
        picture = file.convert("RGB")
    share = 1600 / max(picture.size)
    picture = picture.resize((max(1, round(picture.width * share)), max(1, round(picture.height * share))))
    exif, made = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # orientation: to be turned by 90 degrees
    picture.transpose(Image.Transpose.ROTATE_90).save(made, "JPEG", exif=exif)
    return made.getvalue()


def _same(model: Model, said: Mapping[str, Any], expected: Answers, i: int) -> bool:
    """Whether what predict.py said of probe i is the model's answer; of labels equally likely either will do."""
    P = expected.P[i]
    if model.task == REGRESSION:
        return difference(np.array([said["value"]], np.float32), P) <= TOLERANCE
    names = {label: j for j, label in enumerate(model.labels)}
    if model.task == CLASSIFICATION:
        j = names[said["label"]]
        return bool(P[j] >= P.max() - TOLERANCE and abs(P[j] - said["probability"]) <= TOLERANCE)
    chosen = np.zeros(len(P), np.bool_)
    chosen[[names[label] for label in said["labels"]]] = True
    assert model.task == MULTILABEL
    assert model.thresholds is not None
    return not ((chosen != expected.chosen[i]) & (np.abs(P - model.thresholds) > TOLERANCE)).any()


def _asked(folder: Path, contents: Sequence[str | bytes]) -> list[tuple[list[Any], dict[str, Any]]]:
    """What a fresh process gets from the folder's predict.py: for each content the outputs, and what it would print."""
    with tempfile.TemporaryDirectory(prefix="headstart-") as place:
        given = []
        for i, content in enumerate(contents):
            if isinstance(content, bytes):
                (Path(place) / str(i)).write_bytes(content)
            given.append(str(Path(place) / str(i)) if isinstance(content, bytes) else content)
        done = subprocess.run(
            [sys.executable, "-P", "-c", CHECK, str(folder / PREDICT)],
            input=json.dumps(given), capture_output=True, text=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ModelError(f"the exported {PREDICT} does not run, so nothing was written: {said}")
    found: list[tuple[list[Any], dict[str, Any]]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _readme(model: Model, portable: Portable, unknown: bool) -> str:
    """README.md of the folder."""
    base, text = model.card["backbone"], portable.modality == "text"
    packages = {
        "onnxruntime": "onnxruntime",
        "numpy": "numpy",
        **({"tokenizers": "tokenizers"} if text else {"pillow": "PIL"}),
    }
    line = " ".join(f"{package}=={import_module(module).__version__}" for package, module in packages.items())
    example = 'python predict.py "a text" "another text"\npython predict.py < texts.txt   # a text a line'
    nearest = model.head.name == "nearest"
    holds = [
        *(["the features of all training examples (its head compares with the nearest of them)"] if nearest else []),
        *([f"the features of {len(model.unknown.references):,} training examples (`unknown` is the distance from them)"]
          if unknown and model.unknown else []),
    ]  # fmt: skip
    kinds = {CLASSIFICATION: "one of", MULTILABEL: "any of"}
    gives = f"{kinds[model.task]} {len(model.labels):,} labels" if model.task != REGRESSION else "a number"
    licence = _code(base["licence"]) + (
        "" if base["licence"] != "unknown" else ": find out what its source allows before you pass this folder on"
    )
    rows = [
        f"# {model.name}",
        "",
        f"Gives a {'text' if text else 'picture'} {gives}. Made with Headstart, which is not needed to run it.",
        "",
        f"{_figure(model.card)}",
        "",
        "```",
        f"pip install {line}",
        example if text else "python predict.py one.jpg another.png",
        "```",
        "",
        "One line of JSON for each comes out."
        + (" A text that itself holds line breaks is given as an argument." if text else "")
        + (" `unknown` true means: unlike the training data, do not rely on the answer." if unknown else ""),
        "",
        f"- `{GRAPH}`: from {'token numbers' if text else 'the preprocessed picture'} to "
        f"{'`value`' if model.task == REGRESSION else '`probabilities`'}{' and `unknown`' if unknown else ''}. "
        "Its metadata say what it is.",
        f"- `{TOKENISER}`: the tokeniser; a text is cut after {portable.tokens} tokens."
        if text
        else f"- `{PREPROCESSING}`: how a picture becomes the network's input; `{PREDICT}` does it.",
        f"- `{LABELS}`: " + ("names" if model.task != REGRESSION else "the task")
        + (", thresholds" if model.thresholds is not None else "") + ", the base and the model's digest.",
        "",
        "## Rights",
        "",
        f"The base network, {_code(base['source'])}"
        f"{' at ' + _code(str(base['revision'])) if base.get('revision') else ''}"
        f"{' (' + _code(str(base['said'])) + ')' if base.get('said') else ''}, is in `{GRAPH}`, below the cut at "
        f"{_code(base['cut'])}, in {base['precision']}. Its licence: {licence}. The rights in the training data are those "
        "of whoever owns it.",
        "",
        "## What it tells of the training data",
        "",
        "No training example is in this folder. "
        + (
            f"`{GRAPH}` holds {' and '.join(holds)}. Features are numbers, but something of "
            f"{'a text' if text else 'a picture'} can be guessed from them: treat them as you treat the examples."
            if holds
            else f"`{GRAPH}` holds what was learned from all of them together, and the features of none."
        ),
        "",
    ]  # fmt: skip
    return "\n".join(rows)


def _code(said: str) -> str:
    """A name as Markdown shows it unread."""
    return "`" + "".join(letter if letter.isprintable() and letter != "`" else " " for letter in said) + "`"


def _figure(card: Mapping[str, Any]) -> str:
    """How good the model is, with its interval."""
    measured, test = card["figures"]["test"] or card["figures"]["estimate"], bool(card["figures"]["test"])
    if not measured:
        return "How good it is was not measured."
    where = f"{measured['n']:,} {'test rows' if test else 'examples, cross-fitted'}"
    if card["task"] == REGRESSION:
        return (
            f"R² {measured['r2']:.3f} (95 % interval {measured['low']:.3f} to {measured['high']:.3f}) on {where}; off by "
            f"{measured['mae']:.4g} on average."
        )
    interval = f"(95 % interval {100 * measured['low']:.1f} to {100 * measured['high']:.1f})"
    if card["task"] == MULTILABEL:
        return (
            f"Micro F1 {100 * measured['micro_f1']:.1f} %, every label right on {100 * measured['accuracy']:.1f} % "
            f"{interval} of {where}."
        )
    return f"Right on {100 * measured['accuracy']:.1f} % {interval} of {where}."
