"""shrink and export: a smaller model, and one that needs no Headstart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from headstart.cli.app import Folder, Json, Name, app
from headstart.terminal import Progress, console, percent, plain, print_json, say


@app.command(
    epilog="Examples:\n\n`headstart shrink tickets`\n\n`headstart shrink tickets --max-loss 0.5 --as tickets-phone`"
)
def shrink(
    name: Name,
    data: Annotated[
        str | None, typer.Option(help="Labelled examples to judge on.", show_default="those the model keeps")
    ] = None,
    max_loss: Annotated[float, typer.Option(help="Points of accuracy that may be lost, on folds.")] = 1.0,
    as_name: Annotated[
        str | None, typer.Option("--as", help="The smaller model's name.", show_default="NAME-small")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    project: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Make a smaller, quicker model and prove what it costs: fewer blocks, 8 bits, fewer channels, a smaller vocabulary."""
    from headstart import api

    with Progress(quiet=as_json) as progress:
        model, facts = api.shrink(
            name, data=data, max_loss=max_loss, as_name=as_name, seed=seed, project=project, progress=progress,
            say=lambda line: None if as_json else say(f"  [dim]{plain(line)}[/]"),
        )  # fmt: skip
    if as_json:
        print_json(facts)
        return
    before, after = facts["before"], facts["after"]
    _steps([before, *facts["steps"]], facts["task"])
    say()
    smaller, quicker = (before[key] / max(after[key], 1e-9) for key in ("mb", "ms"))
    same = "" if facts["task"] == "regression" else f"; {percent(after['agreement'])} % of the answers the same"
    say(
        f"[bold]{smaller:.1f} times smaller and {quicker:.1f} times as quick[/]; {_lost(after, facts['task'])} lost on "
        f"{after['n']:,} examples (95 % interval {_between(after, facts['task'])}){same}."
    )
    for note in after["notes"]:
        say(f"  [dim]not done: {plain(note)}[/]")
    say(f"Model [bold]{model.name}[/] saved. Report: {plain(model.folder)}/report.html")


def _lost(row: dict[str, Any], task: str) -> str:
    return f"{row['loss']:.3f} of R²" if task == "regression" else f"{100 * row['loss']:.1f} points"


def _between(row: dict[str, Any], task: str) -> str:
    times, digits = (1, 3) if task == "regression" else (100, 1)
    return f"{times * row['loss_low']:.{digits}f} to {times * row['loss_high']:.{digits}f}"


def _steps(rows: list[dict[str, Any]], task: str) -> None:
    """What was tried, a line each."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    figure = {"regression": "R²", "multilabel": "F1 a row"}.get(task, "accuracy")
    shown = (lambda value: f"{value:.3f}") if task == "regression" else percent
    same = "correlation" if task == "regression" else "same"
    for column in ("step", figure, "lost", "95 % interval", same, "MB", "ms"):
        table.add_column(
            column, justify="left" if column == "step" else "right", no_wrap=column != "step", overflow="fold"
        )
    for row in rows:
        agreement = row["agreement"]
        table.add_row(
            plain(row["name"]), shown(row["accuracy"]), _lost(row, task).split()[0], _between(row, task),
            f"{agreement:.3f}" if task == "regression" else percent(agreement), f"{row['mb']:,.1f}", f"{row['ms']:.2f}",
            style="bold" if row["kept"] else None,
        )  # fmt: skip
    console().print(table)


@app.command(
    epilog="Example: `headstart export tickets tickets-onnx/`  then  `python tickets-onnx/predict.py 'where is it?'`"
)
def export(
    name: Name,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    unknown: Annotated[
        bool, typer.Option("--unknown/--no-unknown", help="Take along the features that tell unknown input.")
    ] = True,
    project: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Write a model as plain ONNX with everything needed to predict without Headstart."""
    from headstart import api

    facts = api.export(name, folder, unknown=unknown, project=project)
    if as_json:
        print_json(facts)
        return
    say(
        f"[bold]{plain(folder)}[/]: {len(facts['files'])} files, {facts['bytes'] / 1e6:,.1f} MB; {facts['probes']} probes "
        f"answered alike by onnxruntime alone (within {facts['difference']:.1e})"
    )
    example = "'a new text'" if facts["modality"] == "text" else "picture.jpg"
    say(f"Try:    python {plain(folder)}/predict.py {example}")
