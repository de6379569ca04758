"""tune and distil: retrain the final blocks where that pays; teach a small student."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from headstart.cli.app import Encoding, Folder, Image, Json, Label, Name, Names, Text, app
from headstart.terminal import Progress, console, percent, plain, print_json, say, show_verdict


@app.command(
    epilog="Examples:\n\n`headstart tune tickets`\n\n"
    "`headstart tune reviews.csv --test test.csv --blocks 2 --budget 10m --as reviews`\n\n"
    "`headstart tune reviews.csv --resume`  (after an interruption)"
)
def tune(
    source: Annotated[str, typer.Argument(metavar="NAME|DATA", help="A model of the project, or labelled data.")],
    test: Annotated[str | None, typer.Option(help="Rows used once, for the report only.")] = None,
    unlabelled: Annotated[str | None, typer.Option(help="More examples without labels; used if that helps.")] = None,
    blocks: Annotated[str, typer.Option(help="How many of the final blocks: auto, all, or a number.")] = "auto",
    low_rank: Annotated[
        int | None, typer.Option(help="Train updates of this rank in place of the whole weights.")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Time to be done in, such as 90s, 10m or 1h.")] = None,
    as_name: Annotated[
        str | None, typer.Option("--as", help="The tuned model's name.", show_default="NAME-tuned, or from the file's")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    text: Text = None,
    image: Image = None,
    label: Label = None,
    names: Names = None,
    task: Annotated[
        str | None, typer.Option(help="classification, multilabel or regression.", show_default="found")
    ] = None,
    backbone: Annotated[
        str, typer.Option(help="The base model, one that `headstart backbones` lists.", show_default="by the data")
    ] = "auto",
    cut: Annotated[
        str | None, typer.Option(help="Where the base is cut, such as 3, max6 or 3+6.", show_default="the base's usual")
    ] = None,
    refuse: Annotated[float, typer.Option(help="Share of good input that may be called unknown.")] = 0.05,
    encoding: Encoding = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    project: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Retrain the final blocks of a base model on your own rows; kept only where that beats the linear head on folds."""
    from headstart import api

    with Progress(quiet=as_json) as progress:
        model, facts = api.tune(
            source, test=test, unlabelled=unlabelled, blocks=blocks, low_rank=low_rank,
            budget=budget, as_name=as_name, resume=resume, text=text, image=image,
            label=label, names=names, task=task, backbone=backbone, cut=cut, refuse=refuse, encoding=encoding, seed=seed,
            project=project, progress=progress, say=lambda line: None if as_json else say(f"  [dim]{plain(line)}[/]"),
        )  # fmt: skip
    if as_json:
        found = {} if model is None else api.summary(model, api.facts(model))
        print_json({**found, "tuning": facts})
        if facts["interrupted"]:
            raise typer.Exit(130)
        return
    _rungs(facts)
    say()
    if model is None:
        tried = len(facts["rungs"]) > 1
        what = "Tuning does not beat the linear head here" if tried else "No blocks were retrained"
        say(f"[bold]{what}[/]: model {facts['from']} stays as it is.")
        return
    show_verdict(api.facts(model)["verdict"])
    say(f"Model [bold]{model.name}[/] saved. Report: {plain(model.folder)}/report.html")
    if facts["interrupted"]:
        raise typer.Exit(130)


def _rungs(facts: dict[str, Any]) -> None:
    """What was tried, a line each."""
    from rich.table import Table

    number = facts["task"] == "regression"
    shown = (lambda value: f"{value:.3f}") if number else percent
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in (
        "trained",
        {"regression": "R²", "multilabel": "F1 a row"}.get(facts["task"], "accuracy"),
        "95 % interval",
    ):
        table.add_column(column, justify="left" if column == "trained" else "right")
    for column in ("gain", "give or take", "held out", "seconds"):
        table.add_column(column, justify="right")
    for row in facts["rungs"]:
        what = {"linear": "the head alone", "all": f"all {row['blocks']} blocks"}.get(
            row["rung"], f"the last {row['blocks']} block{'s' if row['blocks'] > 1 else ''}"
        )
        first = row["rung"] == "linear"
        table.add_row(
            what, shown(row["accuracy"]), f"{shown(row['low'])} to {shown(row['high'])}",
            "" if first else shown(row["gain"]), "" if first else shown(2 * row["noise"]), f"{row['n']:,}",
            "" if first else f"{row['seconds']:.0f}", style="bold" if row["kept"] else None,
        )  # fmt: skip
    console().print(table)


@app.command(
    epilog="Examples:\n\n`headstart distil tickets --to static`\n\n"
    "`headstart distil tickets --to blocks:2 --unlabelled more.csv --as tickets-quick`"
)
def distil(
    name: Name,
    to: Annotated[
        str, typer.Option(help="static (token vectors), blocks:K (the first K blocks), or mlp (on frozen features).")
    ],
    data: Annotated[str | None, typer.Option(help="Labelled examples.", show_default="those the model keeps")] = None,
    test: Annotated[str | None, typer.Option(help="Rows used once, for the report only.")] = None,
    unlabelled: Annotated[str | None, typer.Option(help="More examples, which the model answers first.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Another base for the student.", show_default="the model's")
    ] = None,
    max_mb: Annotated[float, typer.Option(help="Megabytes that a static student may take.")] = 8.0,
    as_name: Annotated[
        str | None, typer.Option("--as", help="The student's name.", show_default="NAME-static and so on")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    project: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Teach a small, quick student what a model knows, on rows with and without labels."""
    from headstart import api

    with Progress(quiet=as_json) as progress:
        model, facts = api.distil(
            name, to=to, data=data, test=test, unlabelled=unlabelled, backbone=backbone, max_mb=max_mb, as_name=as_name,
            seed=seed, project=project, progress=progress,
            say=lambda line: None if as_json else say(f"  [dim]{plain(line)}[/]"),
        )  # fmt: skip
    if as_json:
        print_json({**api.summary(model, api.facts(model)), "distilled": facts})
        return
    _pair(facts)
    say()
    show_verdict(api.facts(model)["verdict"])
    say(f"Model [bold]{model.name}[/] saved. Report: {plain(model.folder)}/report.html")


def _pair(facts: dict[str, Any]) -> None:
    """Teacher and student side by side."""
    from rich.table import Table

    number = facts["task"] == "regression"
    shown = (lambda value: f"{value:.3f}") if number else percent
    table = Table(box=None, pad_edge=False, header_style="dim")
    figure = {"regression": "R²", "multilabel": "F1 a row"}.get(facts["task"], "accuracy")
    for column in ("", figure, "95 % interval", "MB", "a second"):
        table.add_column(column, justify="left" if not column else "right")
    for what in ("teacher", "student"):
        row = facts[what]
        table.add_row(
            what, shown(row["accuracy"]), f"{shown(row['low'])} to {shown(row['high'])}", f"{row['mb']:,.1f}",
            f"{row['per_second']:,.0f}",
        )  # fmt: skip
    console().print(table)
    say(
        f"[bold]{facts['smaller']:.1f} times smaller and {facts['quicker']:.1f} times as quick[/]; "
        + (
            f"correlation {facts['agreement']:.3f}"
            if number
            else f"{percent(facts['agreement'])} % of the answers the same"
        )
        + f" on {facts['n']:,} examples that the student had not seen. The teacher has seen them, so that the student's "
        "figure is a little too good; the teacher's is the one on its card."
    )
