"""A backbone from a source: the Hub, the catalogue, a local folder in the Hub's layout, or an ONNX file.

Whatever the source, a folder with the files that are needed comes first; of it the backbone's own folder is made, tried
on a few contents, and given its name by a rename. An ONNX file that the source already carries is preferred; without
one, encoders of the BERT family are written out here (backbones/bert.py), and everything else is exported once by
transformers (foreign.py) and compared. Nothing of a source is ever run, and pickled weights are not read.
"""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headstart import backbones, rowcache
from headstart.backbones import described
from headstart.errors import HeadstartError, InputError, ModelError, NotFound, StorageError, near
from headstart.hub import cards, catalogue, layout, pins, remote, speed, tokenisers
from headstart.storage import atomic_folder

Progress = Callable[[str, int, int], None]  # what is done, how much of it, of how much (bytes)

_NAME = re.compile(r"[a-z0-9][a-z0-9._\-]{0,63}")
LICENCE_LIMIT = 1 << 20  # bytes of a LICENSE that is taken along


@dataclass(frozen=True)
class Order:
    """What is to be made of which folder."""

    name: str
    source: str
    folder: Path
    card: cards.Card
    revision: str | None = None
    digests: Mapping[str, str] | None = None  # of the source's files, where it is the Hub
    notes: tuple[str, ...] = ()


def add(
    source: str,
    *,
    name: str | None = None,
    card: str | Path | None = None,
    licence: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Install a backbone from "hf:owner/name[@revision]", a catalogue's name, a folder or an .onnx file.

    `card` is a TOML file with what the source does not say (see cards.py). Gives facts: name, modality, width, cut,
    taps, parameters, licence, size, source, revision, folder, seconds, speed, notes, already. Raises InputError,
    NotFound, ModelError, MissingExtra, StorageError.
    """
    started = time.perf_counter()
    given = cards.read(Path(card)) if card is not None else cards.Card()
    if licence is not None:
        given = replace(given, licence=licence)
    base = source.partition("@")[0]
    entry = next((one for one in catalogue.entries() if source == one.name or base == one.source), None)
    if entry is not None:
        if not entry.source.startswith("hf:"):
            raise InputError(f"{source!r} is built in: there is nothing to add.")
        if source == entry.name:
            name, source = name if name is not None else given.name or entry.name, entry.source
        given = entry.filled(given)
    chosen = name if name is not None else given.name
    if not source.startswith("hf:"):
        facts = _install(_from_disk(source, chosen, given), progress)
    else:
        with _alone(source):
            facts = _hub_add(source, _named(chosen, source), given, progress)
    return {**facts, "seconds": time.perf_counter() - started}


def _hub_add(source: str, name: str, given: cards.Card, progress: Progress | None) -> dict[str, Any]:
    """Fetch, install and pin; the fetched files are kept until it is done."""
    order = _from_hub(source, name, given, progress)
    facts = _install(order, progress)
    pins.pin(order.source, str(order.revision), order.digests or {}, follow="@" not in source)
    shutil.rmtree(order.folder)
    return facts


@contextmanager
def _alone(source: str) -> Iterator[None]:
    """One process at a time fetches from a repository; another one waits, and finds it done."""
    folder, repo = backbones.folder() / ".parts", remote.parse(source)[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f"{repo.replace('/', '--')}.lock", "wb") as file:
            rowcache.lock(file)
            yield
    except OSError as error:
        if isinstance(error, HeadstartError):
            raise
        raise StorageError(f"{folder}: cannot be written: {error.strerror or error}.") from error


def remove(name: str) -> dict[str, Any]:
    """Take an installed backbone away; what it was pinned to is kept. Facts: name, folder, size. Raises NotFound."""
    if name in backbones.BUILT_IN:
        raise InputError(f"{name!r} is built in and cannot be removed.")
    folder = backbones.folder() / name
    if name not in backbones.installed():
        raise NotFound(f"no backbone {name!r} is installed.{near(name, backbones.installed())}")
    size = sum(path.stat().st_size for path in folder.iterdir())
    away = folder.with_name(f".{name}.{secrets.token_hex(4)}.removed")
    try:
        folder.rename(away)  # gone at once, whatever happens to its files
        shutil.rmtree(away)
    except OSError as error:
        raise StorageError(f"{folder}: could not be removed: {error.strerror or error}.") from error
    speed.forget(name)
    return {"name": name, "folder": str(folder), "size": size}


def _named(name: str | None, source: str) -> str:
    """The name a backbone gets: the given one, or the source's own in lower case. Raises InputError."""
    own = source.partition("@")[0].rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".onnx")
    chosen = name if name is not None else re.sub(r"[^a-z0-9._\-]+", "-", own.lower()).strip("-._")
    if not _NAME.fullmatch(chosen):
        raise InputError(f"{chosen!r} is no name for a backbone: use small letters, digits, dots and hyphens.")
    if chosen in backbones.BUILT_IN:
        raise InputError(f"{chosen!r} is the name of a built-in backbone: give another with --name.")
    return chosen


def _from_disk(source: str, name: str | None, given: cards.Card) -> Order:
    """A folder, or the folder of an ONNX file."""
    path = Path(source).expanduser()
    if path.is_dir():
        return Order(
            _named(name, path.resolve().name), f"folder {path.resolve().name}", path, given
        )  # no path: it travels
    if path.is_file():
        if path.suffix.lower() != ".onnx":
            what = layout.sniff(path)
            raise InputError(
                f"{path.name} is {what or 'no ONNX file'}: give an .onnx file, a folder, or hf:OWNER/NAME."
            )
        chosen, folder, file = _named(name, path.name), path.resolve().parent, path.name
        if folder.name == "onnx" and (folder.parent / "config.json").is_file():
            folder, file = folder.parent, f"onnx/{file}"
        return Order(chosen, f"file {path.name}", folder, replace(given, file=file))
    known = [one.name for one in catalogue.entries()]
    raise NotFound(
        f"{source!r} is no file, no folder and no name of the catalogue.{near(source, known)} A model of the Hub is "
        f"written hf:OWNER/NAME; `headstart backbones` lists the catalogue."
    )


def _from_hub(source: str, name: str, given: cards.Card, progress: Progress | None) -> Order:
    """A folder with the files that are needed, fetched and checked; it stays until the backbone is made of it."""
    repo, revision = remote.parse(source)
    base = f"hf:{repo}"
    pinned = pins.revision(base) if revision is None else None
    notes: tuple[str, ...] = ()
    if pinned:
        notes = (f"the commit of the first download is used; {base}@main asks for the newest",)
    listed = _listing(repo, revision or pinned, pins.files(base, pinned) if pinned else {})
    folder = backbones.folder() / ".parts" / f"{repo.replace('/', '--')}@{listed.revision}"
    digests: dict[str, str] = {}

    def fetch(file: str) -> None:
        digests[file] = remote.fetch(listed, file, folder / file, progress)

    modules = [file for file in ("modules.json",) if file in listed.files]
    for file in modules:
        fetch(file)
    inner = layout.modules_folder(folder)
    wanted = [*layout.SMALL, *(f"{inner}/{file}" for file in layout.SMALL if inner), "onnx/tokenizer.json"]
    for file in wanted:
        size = listed.files[file].size if file in listed.files else None
        if file in listed.files and not (file.endswith(("README.md", "LICENSE")) and (size or 0) > LICENCE_LIMIT):
            fetch(file)
    said = layout.read(folder)
    graph = layout.graph_file(listed.files, given.file or (given.hint if given.hint in listed.files else None))
    if graph is not None:
        large = [graph]
    else:
        large = [
            file
            for file in listed.files
            if re.fullmatch(r"model[-0-9a-z]*\.safetensors(\.index\.json)?", _inner(file, said.inner))
        ]
        _weights(repo, large, list(listed.files))
        _buildable(said)
    if progress:
        progress(f"{repo} at {listed.revision[:12]}", 0, sum(listed.files[file].size or 0 for file in large))
    for file in large:
        fetch(file)
    if graph is not None:
        beside = graph.rpartition("/")[0]
        for file in cards.outside(folder / graph):
            fetch(f"{beside}/{file}" if beside else file)
        given = replace(given, file=graph)
    pins.check(base, listed.revision, digests)
    return Order(name, base, folder, given, listed.revision, digests, notes)


def _inner(file: str, inner: str) -> str:
    return file.removeprefix(f"{inner}/") if inner else file


def _listing(repo: str, revision: str | None, known: Mapping[str, str]) -> remote.Listing:
    """The repository's files; without a request where the Hub's cache here holds all that was taken the first time."""
    if revision and known and all(remote.cached(repo, revision, file) for file in known):
        files = {file: remote.Remote(None, digest) for file, digest in known.items()}
        return remote.Listing(repo, revision, files, local=True)
    return remote.listing(repo, revision)


def _weights(where: str, safe: list[str], names: list[str]) -> None:
    """Raise InputError where there are no weights that may be read."""
    if safe:
        return
    if found := layout.pickled(names):
        raise InputError(f"{where} has no ONNX file and no safetensors, but {', '.join(found[:3])}: {layout.PICKLE}")
    raise InputError(f"{where} has neither an ONNX file nor model.safetensors: there is nothing to make a backbone of.")


def _buildable(said: layout.Said) -> None:
    """Raise InputError or MissingExtra where no graph can be made of safetensors with what is installed."""
    from headstart.backbones import bert

    if bert.unknown(said.config):
        from headstart.hub import foreign

        foreign.ready(said.config)


def _install(order: Order, progress: Progress | None) -> dict[str, Any]:
    """Make the backbone's folder and try it. Raises InputError when another one has the name."""
    from headstart.backbones import network

    target = backbones.folder() / order.name
    if progress:
        progress(f"making {order.name}", 0, 1)
    if target.exists():
        return _already(order, target)
    with atomic_folder(target) as new:
        _fill(order, new)
        trial = speed.tried(network.Network.open(new))
    if progress:
        progress(f"making {order.name}", 1, 1)
    speed.keep(order.name, trial)
    return {**_facts(target), "speed": trial["per_second"], "already": False}


def _already(order: Order, target: Path) -> dict[str, Any]:
    """The facts of the backbone that has the name, when it is the same one. Raises InputError."""
    there = described.read(target)
    if order.revision is None or (there.source, there.revision) != (order.source, order.revision):
        with tempfile.TemporaryDirectory(prefix=".again-", dir=target.parent) as folder:
            _fill(order, Path(folder))
            files = described.read(Path(folder)).files
        if files != there.files:
            raise InputError(
                f"a backbone {order.name!r} is installed already, of other files (from {there.source}): give another name "
                f"with --name, or remove it first: headstart backbones rm {order.name}"
            )
    facts = _facts(target)
    return {**facts, "already": True, "notes": [*facts["notes"], "it was installed already, of the same files"]}


def _fill(order: Order, new: Path) -> None:
    """Write the graph, the tokeniser and the index of a backbone into the folder `new`."""
    from headstart.backbones import network

    folder, given = order.folder, order.card
    said = layout.read(folder)
    home = folder / said.inner if said.inner else folder
    names = layout.names(folder, said.inner)
    if given.file is not None and (folder / given.file).is_file():
        names = [given.file]
    notes = [*order.notes, *said.notes, *given.notes]
    graph = layout.graph_file(names, given.file)
    if graph is not None:
        cards.take(folder, graph, new)
    else:
        safe = [one for one in names if _inner(one, said.inner) == "model.safetensors" or one.endswith(".index.json")]
        _weights(folder.name, safe, names)
        notes.append(_built(said, home, new))
    modality, picture = cards.kind(new / "model.onnx", given.modality)
    tokens = None
    if modality == "text":
        tokens = given.tokens or said.tokens
        prefix = given.prefix if given.prefix is not None else said.prefix
        places = [home, folder, (folder / graph).parent if graph else home]
        notes += tokenisers.take(places, new, said.config, lower=said.lower, prefix=prefix)
    pictures = cards.pictures(given, said, picture) if modality == "image" else None
    licence = next((one for one in (given.licence, said.licence) if one and one != "unknown"), given.fallback)
    if (folder / "LICENSE").is_file() and (folder / "LICENSE").stat().st_size <= LICENCE_LIMIT:
        shutil.copyfile(layout.plain(folder / "LICENSE", folder), new / "LICENSE")
    network.describe(
        new, name=order.name, modality=modality, licence=licence, source=order.source, revision=order.revision,
        preprocessing=pictures, tokens=tokens, notes=notes, cut=given.cut, precision=layout.precision(graph or ""),
    )  # fmt: skip


def _built(said: layout.Said, home: Path, new: Path) -> str:
    """Make model.onnx of safetensors; gives a sentence on how."""
    from headstart.backbones import bert

    weights = home / "model.safetensors"
    if not bert.unknown(said.config) and weights.is_file():
        if what := layout.sniff(weights):
            raise ModelError(
                f"model.safetensors is {what}, whatever its name says. {layout.PICKLE[0].upper()}{layout.PICKLE[1:]}"
            )
        bert.build(said.config, layout.plain(weights, home), new)
        return f"the graph was written out from config.json and model.safetensors ({said.config['model_type']})"
    from headstart.hub import foreign

    return foreign.export(home, said.config, said.pictures, new)


def _facts(folder: Path) -> dict[str, Any]:
    """What `add` says of an installed backbone."""
    made = described.read(folder)
    return {**catalogue.row(folder, made), "taps": [place.name for place in made.taps], "notes": list(made.notes)}
