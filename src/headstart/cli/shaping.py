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
    _steps([before, *facts["steps"]])
    say()
    say(
        f"[bold]{before['mb'] / max(after['mb'], 1e-9):.1f} times smaller and {before['ms'] / max(after['ms'], 1e-9):.1f} times "
        f"as quick[/]; {100 * after['loss']:.1f} points lost on {after['n']:,} examples, {percent(after['agreement'])} % of the "
        "answers the same."
    )
    say(f"Model [bold]{model.name}[/] saved. Report: {plain(model.folder)}/report.html")


def _steps(rows: list[dict[str, Any]]) -> None:
    """What was tried, a line each."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("step", "accuracy", "95 % interval", "lost", "agreement", "MB", "ms"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(
            plain(row["name"]), percent(row["accuracy"]), f"{percent(row['low'])} to {percent(row['high'])}",
            f"{100 * row['loss']:.1f}", percent(row["agreement"]), f"{row['mb']:,.1f}", f"{row['ms']:.2f}",
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
