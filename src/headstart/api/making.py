"""The verbs that make a model: fit, tune, distil, shrink."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart import backbones, classnames, heads, learning, saved
from headstart.api.managing import load
from headstart.embedding import BROKEN, SKIP
from headstart.errors import InputError, NotFound, near
from headstart.gathering import Columns, gather
from headstart.head import TASKS
from headstart.keeping import Clock
from headstart.kept import examples, unseen
from headstart.model import Model
from headstart.progress import Progress, silent
from headstart.project import Project, checked_name, name_from


def fit(
    data: object = None,
    y: Sequence[object] | None = None,
    *,
    name: str | None = None,
    test: object = None,
    unlabelled: object = None,
    labels: str | Sequence[str] | Mapping[str, str] | None = None,
    text: str | None = None,
    image: str | None = None,
    label: str | None = None,
    names: object = None,
    task: str | None = None,
    head: str = "auto",
    backbone: str = "auto",
    cut: str | None = None,
    precision: str = "auto",
    views: bool = True,
    broken: str = SKIP,
    balanced: bool = False,
    refuse: float = 0.05,
    encoding: str | None = None,
    seed: int = 0,
    keep_examples: bool = True,
    project: str | Path = ".",
    progress: Progress = silent,
) -> Model:
    """Train a model on labelled texts or pictures, prove how good it is, save it in the project, and return it.

    `data` is a path or a table in memory (see docs/data.md); with `y`, a sequence of texts, or of picture files as bytes.
    Every other argument is the flag of the same name of `headstart fit`. Raises InputError, NotFound or DataError on what
    cannot be used, ModelError when the saved model does not answer as the trained one, StorageError when the disk
    refuses; then nothing is saved.
    """
    _check(task=task, head=head, refuse=refuse, seed=seed, broken=broken, project=Path(project))
    chosen_name = checked_name(name if name is not None else name_from(_name_of(data)))
    given = classnames.given(labels)
    clock = Clock()
    columns = Columns(text=text, image=image, label=label, names=names, encoding=encoding)
    with clock("read"):
        train, held, pool = gather(data, y, test, unlabelled, given, columns, task)
    if train is None:
        base = backbones.load(_named(backbone, "text"), cut=cut, precision=None if precision == "auto" else precision)
        return learning.zero_shot(chosen_name, given, pool, base, seed, Path(project), clock)
    with clock("embed"):
        base, agreement, said = learning.backbone(_named(backbone, train.modality), cut, precision, train)
    return learning.supervised(
        chosen_name, train, held, pool, given, base, clock, agreement=agreement, said=said, head=head, views=views,
        broken=broken, balanced=balanced, refuse=refuse, seed=seed, keep_examples=keep_examples, project=Path(project),
        progress=progress,
    )  # fmt: skip


def tune(
    source: object,
    *,
    test: object = None,
    unlabelled: object = None,
    blocks: str | int = "auto",
    low_rank: int | None = None,
    budget: float | str | None = None,
    as_name: str | None = None,
    resume: bool = False,
    text: str | None = None,
    image: str | None = None,
    label: str | None = None,
    names: object = None,
    task: str | None = None,
    backbone: str = "auto",
    cut: str | None = None,
    refuse: float = 0.05,
    encoding: str | None = None,
    seed: int = 0,
    project: str | Path = ".",
    say: Callable[[str], None] = lambda line: None,
    progress: Progress = silent,
) -> tuple[Model | None, dict[str, Any]]:
    """Retrain the final blocks of a base on one's own rows, and keep that where it beats the linear head on folds.

    source: a model of the project (its base, and the examples it keeps) or labelled data as for `fit`. blocks: how many,
    "all", or "auto". low_rank: the rank of updates in place of whole weights. budget: about how long it may take, in
    seconds or as "10m". resume: go on with
    an interrupted run. Returns the model, and what was tried; where nothing beats the linear head the model of `data` is
    the linear one, and of a model None. Raises MissingExtra without torch, InputError, NotFound, DataError, ModelError.
    """
    from headstart import ladder, retraining, training

    training.torch()
    _check(task=task, head="auto", refuse=refuse, seed=seed, broken=SKIP, project=Path(project))
    steps = _blocks(blocks)
    if low_rank is not None and not 1 <= low_rank <= 256:
        raise InputError(f"--low-rank {low_rank} is not a rank from 1 to 256, such as 8.")
    time = None if budget is None else ladder.seconds(budget)
    clock, columns = Clock(), Columns(text=text, image=image, label=label, names=names, encoding=encoding)
    model = _model_of(source, project)
    chosen_name = checked_name(as_name if as_name is not None else _tuned_name(model, source))
    with clock("read"):
        if model is None:
            train, held, pool = gather(source, None, test, unlabelled, {}, columns, task)
            if train is None:
                raise InputError("no example has a label; blocks are retrained on labelled ones.")
            base: Any = backbones.exact(backbones.load(_named(backbone, train.modality), cut=cut))
        else:
            if chosen_name == model.name:
                raise InputError(f"the tuned model needs another name than {model.name!r}; give one with --as.")
            try:
                train = examples(model)
            except InputError as error:
                raise InputError(f"{str(error).split(';')[0]}; tune the labelled data themselves: tune DATA.") from None
            base = _published(model, say)
            held = None if test is None else examples(model, test)
            pool = None if unlabelled is None else columns.bare(unlabelled, train.modality)
    made, facts = retraining.retrain(
        chosen_name, train, held, pool, {}, base, clock, blocks=steps, rank=low_rank, budget=time, resume=resume,
        refuse=refuse, seed=seed, made_from=None if model is None else model.name, project=Path(project), say=say,
        progress=progress,
    )  # fmt: skip
    if made is None and model is None:
        tried = len(facts["rungs"]) > 1
        why = "tuning does not beat the linear head on folds" if tried else "no blocks were retrained"
        say(f"{why}: the linear model is saved")
        made = learning.supervised(
            chosen_name, train, held, pool, {}, base, clock, refuse=refuse, seed=seed, project=Path(project),
            progress=progress, more={"tuning": facts},
        )  # fmt: skip
    return made, facts


def shrink(
    name: str | Path,
    *,
    data: object = None,
    max_loss: float = 1.0,
    as_name: str | None = None,
    seed: int = 0,
    project: str | Path = ".",
    say: Callable[[str], None] = lambda line: None,
    progress: Progress = silent,
) -> tuple[Model, dict[str, Any]]:
    """A smaller, quicker model that loses at most `max_loss` points on folds, saved as a new one, and what it took.

    The facts are {name, before, after, steps}. data: labelled examples; by default those the model keeps. Raises
    InputError when nothing smaller keeps to the loss.
    """
    from headstart import shrinking

    if not 0 <= max_loss <= 100:
        raise InputError(f"--max-loss {max_loss:g} is not a number of points from 0 to 100.")
    model = load(name, project=project)
    chosen_name = checked_name(as_name if as_name is not None else f"{model.name}-small")
    if chosen_name == model.name:
        raise InputError(f"the smaller model needs another name than {model.name!r}; give one with --as.")
    if not model.card["data"]["used"]:
        raise InputError(
            f"model {model.name!r} was made from label names alone, and shrinking needs labelled examples to judge on: fit a "
            "model on some first."
        )
    learned = bool(model.card["backbone"].get("learned"))
    if learned and data is None:
        raise InputError(
            f"the network of model {model.name!r} was itself trained on the examples it keeps, so they cannot show what is "
            "lost; give labelled ones that it has not seen with --data."
        )
    clock = Clock()
    with clock("read"):
        train = unseen(model, examples(model, data), say) if learned else examples(model, data)
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        made = shrinking.shrink(
            model.backbone, train, Path(folder) / "made", max_loss=max_loss / 100, seed=seed, say=say
        )  # fmt: skip
        shrunk = {"from": model.name, **made.facts}
        smaller = learning.supervised(
            chosen_name, train, None, None, {}, made.base, clock, seed=seed, project=Path(project), progress=progress,
            more={"shrunk": shrunk, "learned": learned}, carried=made.folder,
        )  # fmt: skip
    return smaller, {"name": smaller.name, **shrunk}


def distil(
    name: str | Path,
    *,
    to: str,
    data: object = None,
    test: object = None,
    unlabelled: object = None,
    backbone: str | None = None,
    max_mb: float = 8.0,
    as_name: str | None = None,
    seed: int = 0,
    project: str | Path = ".",
    say: Callable[[str], None] = lambda line: None,
    progress: Progress = silent,
) -> tuple[Model, dict[str, Any]]:
    """Teach a small student what a model knows, and save it as a new model.

    to: static (token vectors, no network), blocks:K (the first K blocks of the base), or mlp (a small network on frozen
    features). data: labelled examples; by default those the model keeps. unlabelled: more examples to answer. backbone:
    another base for the student. max_mb: of a static one. Returns the model and {from, to, teacher, student, agreement,
    n, disagree, ...}. Raises MissingExtra without torch, InputError, NotFound, DataError, ModelError.
    """
    from headstart import distilling, training

    training.torch()
    distilling.kind(to)
    if not 0.1 <= max_mb <= 1000:
        raise InputError(f"--max-mb {max_mb:g} is not a size from 0.1 to 1000 megabytes.")
    if seed < 0:
        raise InputError(f"--seed {seed} is negative: give 0 or more.")
    teacher = load(name, project=project)
    chosen_name = checked_name(as_name if as_name is not None else f"{teacher.name}-{to.replace(':', '-')}")
    if chosen_name == teacher.name:
        raise InputError(f"the student needs another name than {teacher.name!r}; give one with --as.")
    if not teacher.card["data"]["used"]:
        raise InputError(
            f"model {teacher.name!r} was made from label names alone, and a student is measured on labelled examples: give "
            "some with --data, or fit a model on some first."
        )
    base = None if backbone is None else backbones.load(backbone)
    if base is not None and base.card.modality != teacher.modality:
        raise InputError(f"base model {backbone} does not read what {teacher.name!r} reads; choose another --backbone.")
    clock, columns = Clock(), Columns()
    with clock("read"):
        train = examples(teacher, data)
        held = None if test is None else examples(teacher, test)
        pool = None if unlabelled is None else columns.bare(unlabelled, train.modality)
    return distilling.distil(
        teacher, chosen_name, train, held, pool, clock, to=to, base=base, max_mb=max_mb, seed=seed, project=Path(project),
        say=say, progress=progress,
    )  # fmt: skip


def _named(backbone: str, modality: str) -> str:
    return backbones.usual(modality) if backbone == "auto" else backbone


def _check(*, task: str | None, head: str, refuse: float, seed: int, broken: str, project: Path) -> None:
    """Refuse flags that mean nothing before any work is done."""
    if task is not None and task not in TASKS:
        raise InputError(f"no task {task!r}." + near(task, TASKS))
    if head != "auto" and head not in heads.NAMES:
        raise InputError(f"no head {head!r}." + near(head, ["auto", *heads.NAMES]))
    if broken not in BROKEN:
        raise InputError(f"--broken {broken} is neither skip nor refuse.")
    if not 0 < refuse < 0.5:
        raise InputError(f"--refuse {refuse} is not a share of good input between 0 and 0.5, such as 0.05.")
    if seed < 0:
        raise InputError(f"--seed {seed} is negative: give 0 or more.")
    if project.exists() and not project.is_dir():
        raise InputError(f"--project {project} is a file; give a folder.")


def _name_of(data: object) -> str:
    return str(data) if isinstance(data, str | Path) and str(data) != "-" else "model"


def _published(model: Model, say: Callable[[str], None]) -> Any:
    """The base a model's blocks are retrained from: of one that was tuned the published one. Raises InputError."""

    base: Any = model.backbone
    if model.card["backbone"].get("learned"):
        if not hasattr(base, "base"):
            raise InputError(
                f"the network of model {model.name!r} was itself learned from these examples, so they cannot show what "
                "tuning gains; tune the data, or the model it was made from."
            )
        base = base.base.at(base.card.cut)
        say(f"starting from {base.card.name} as it was published, not from what model {model.name!r} made of it")
    return backbones.exact(base)


def _blocks(blocks: str | int) -> str:
    """Checked --blocks. Raises InputError."""
    if str(blocks) not in ("auto", "all") and not (str(blocks).isascii() and str(blocks).isdigit() and int(blocks) > 0):
        raise InputError(f"--blocks {blocks} is neither auto, all, nor a number of blocks such as 2.")
    return str(blocks)


def _model_of(source: object, project: str | Path) -> Model | None:
    """The model that `source` names, or None where it is data. Raises NotFound, ModelError."""
    if not isinstance(source, str | Path):
        return None
    path = Path(source)
    if (path / saved.CARD).is_file() or str(source) in Project(Path(project)).names():
        return load(source, project=project)
    if not path.exists() and len(path.parts) == 1 and not path.suffix:
        raise NotFound(
            f"{source}: neither a model of this project nor a file."
            + near(str(source), [*Project(Path(project)).names(), *(p.name for p in Path().iterdir())])
        )
    return None


def _tuned_name(model: Model | None, source: object) -> str:
    return name_from(_name_of(source)) if model is None else f"{model.name}-tuned"
