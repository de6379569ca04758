"""The predict.py of an exported folder: a short script, written for one model, that its reader can follow.

It holds only what this model needs: its inputs, its kind of answer, its preprocessing. It has two functions, `answer`
(what the network gives) and `predict` (what is printed), so that it can be imported as well as run.
"""

from __future__ import annotations

from collections.abc import Sequence

from headstart.errors import ModelError
from headstart.head import MULTILABEL, REGRESSION
from headstart.preprocessing import Preprocessing

NUMBERS = {  # how the inputs of a text network follow from `ids` (1, t)
    "input_ids": "ids",
    "attention_mask": "np.ones_like(ids)",
    "token_type_ids": "np.zeros_like(ids)",
}

TOP = """\
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
"""

PLACES = """
HERE = Path(__file__).parent
FACTS = json.loads((HERE / "labels.json").read_text("utf-8"))
network = onnxruntime.InferenceSession(str(HERE / "model.onnx"), providers=["CPUExecutionProvider"])
"""

TEXT = """\
words = Tokenizer.from_file(str(HERE / "tokenizer.json"))


def answer(text):
    ids = np.array([words.encode(text).ids or [0]], np.int64)  # (1, tokens)
    return network.run(None, {{{feed}}})


"""

PICTURE = """

def pixels(path):
    image = Image.open(path)
    image.draft(None, ({least}, {least}))  # a large JPEG is decoded smaller, which is faster
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.new("RGB", over.size, "white")
        image.paste(over, mask=over)
    image = image.convert("RGB")
{resized}
{numbers}


def answer(path):
    return network.run(None, {{"{name}": pixels(path)}})


"""

SQUASHED = """\
    image = image.resize(({width}, {height}), Image.Resampling.{rule})"""

CROPPED = """\
    w, h = image.size
    wide, high = {whole}  # as it would be resized, to be cropped
    left, top = (wide - {width}) // 2, (high - {height}) // 2
    right, bottom = min((left + {width}) * w / wide, w), min((top + {height}) * h / high, h)
    box = (left * w / wide, top * h / high, right, bottom)  # the crop in the picture as it is
    image = image.resize(({width}, {height}), Image.Resampling.{rule}, box=box)"""

PADDED = """\
    w, h = image.size
    share = min({width} / w, {height} / h)
    inner = max(1, min({width}, round(w * share))), max(1, min({height}, round(h * share)))
    small = image.resize(inner, Image.Resampling.{rule})
    image = Image.new("RGB", ({width}, {height}), ({fill}, {fill}, {fill}))
    image.paste(small, (({width} - inner[0]) // 2, ({height} - inner[1]) // 2))"""

LABEL = """\
def predict({content}):
    {outputs} = answer({content})
    best = probabilities[0].argmax()
    return {{"label": FACTS["labels"][best], "probability": float(probabilities[0, best]){unknown}}}
"""

SEVERAL = """\
def predict({content}):
    {outputs} = answer({content})
    rows = zip(FACTS["labels"], probabilities[0], FACTS["thresholds"])
    return {{"labels": [label for label, p, threshold in rows if p >= np.float32(threshold)]{unknown}}}
"""

NUMBER = """\
def predict({content}):
    {outputs} = answer({content})
    return {{"value": float(value[0, 0]){unknown}}}
"""

RUN = """

if __name__ == "__main__":
    sys.stdin.reconfigure(encoding="utf-8", newline="\\n")
    sys.stdout.reconfigure(encoding="utf-8")
    for {content} in sys.argv[1:] or (line.rstrip("\\r\\n") for line in sys.stdin):
        print(json.dumps(predict({content}), ensure_ascii=False))
"""


def text(task: str, inputs: Sequence[str], *, unknown: bool) -> str:
    """The script of a text model, for a network with these inputs."""
    said = '"""Predict: python predict.py "a text" "another text", or one text a line on standard input."""\n\n'
    feed = ", ".join(f'"{name}": {NUMBERS[name]}' for name in inputs)
    head = said + TOP + "from tokenizers import Tokenizer\n" + PLACES
    return head + TEXT.format(feed=feed) + _predict(task, "text", unknown) + RUN.format(content="text")


def picture(task: str, name: str, look: Preprocessing, *, unknown: bool) -> str:
    """The script of a picture model, for a network with this input. Raises ModelError for a view that is none."""
    if look.view:
        raise ModelError(f"a model on the view {look.view!r} of its pictures cannot be exported.")
    said = '"""Predict: python predict.py one.jpg another.png, or one path a line on standard input."""\n\n'
    body = PICTURE.format(name=name, least=2 * look.least, resized=_resized(look), numbers=_numbers(look))
    head = said + TOP + "from PIL import Image, ImageOps\n" + PLACES
    return head + body + _predict(task, "path", unknown) + RUN.format(content="path")


def _resized(look: Preprocessing) -> str:
    """The lines that bring a picture to the network's size, as `Preprocessing.apply` does."""
    shorter = look.shorter or max(look.width, look.height)
    whole = f"({shorter}, int({shorter} * h / w)) if w <= h else (int({shorter} * w / h), {shorter})"
    form = {"squash": SQUASHED, "pad": PADDED}.get(look.resize, CROPPED)
    if look.resize == "squash" and look.shorter:
        form, whole = CROPPED, f"{shorter}, {shorter}"
    rule = look.filter.upper()
    return form.format(width=look.width, height=look.height, rule=rule, fill=look.fill, whole=whole)


def _numbers(look: Preprocessing) -> str:
    """The lines that make numbers of the resized picture."""
    lines = ["    rows = np.asarray(image)" + ("[:, :, ::-1]" if look.order == "BGR" else "") + "  # (h, w, 3)"]
    if look.dtype != "uint8":
        lines.append(f"    rows = (rows * {look.scale!r} - {list(look.mean)}) / {list(look.std)}")
    turned = ".transpose(2, 0, 1)" if look.layout == "NCHW" else ""
    lines.append(f"    return rows{turned}[None].astype(np.{look.dtype})")
    return "\n".join(lines)


def _predict(task: str, content: str, unknown: bool) -> str:
    """The function that names the answer."""
    form = {MULTILABEL: SEVERAL, REGRESSION: NUMBER}.get(task, LABEL)
    outputs = ["value" if task == REGRESSION else "probabilities", *(["unknown"] if unknown else [])]
    return form.format(
        content=content,
        outputs=", ".join(outputs) if unknown else f"({outputs[0]},)",
        unknown=', "unknown": bool(unknown[0])' if unknown else "",
    )
