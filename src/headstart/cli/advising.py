"""advise: what to do with the data, from the cheapest answer up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from headstart.cli.app import Encoding, Image, Json, Label, Names, Text, app
from headstart.terminal import Progress, console, percent, plain, print_json, say

INTERRUPTED = 130


@app.command(
    epilog="Examples:\n\n`headstart advise tickets.csv`\n\n`headstart advise tickets.csv --budget 30m --html advice.html`\n\n"
    "`headstart advise PHOTOS/ --backbone mobilenet-v2 --licence commercial`"
)
def advise(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Labelled examples, as for fit.")],
    budget: Annotated[str, typer.Option(help="How long it may take, about: seconds, or 90s, 10m, 1h.")] = "10m",
    licence: Annotated[
        str, typer.Option(help="Of the base: any, commercial, or a list such as 'MIT,Apache-2.0'.")
    ] = "any",
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="The base to climb on.", show_default="the usual one")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the advice and its picture as a page.")] = None,
    text: Text = None,
    image: Image = None,
    label: Label = None,
    names: Names = None,
    encoding: Encoding = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    as_json: Json = False,
) -> None:
    """Say what to use: no model, one without a network, a head on frozen features, or a tuned base; with cost and proof."""
    from headstart import api

    with Progress(quiet=as_json) as progress:
        found = api.advise(
            data, budget=budget, licence=licence, backbone=backbone, text=text, image=image, label=label, names=names,
            encoding=encoding, seed=seed, page=html,
            say=lambda line: None if as_json else say(f"  [dim]{plain(line)}[/]"), progress=progress,
        )  # fmt: skip
    if as_json:
        print_json(found)
    else:
        _show(found, html)
    if found["interrupted"]:
        raise typer.Exit(INTERRUPTED)


def _show(found: dict[str, Any], html: Path | None) -> None:
    """The advice: the ladder, the sentences, what to do next."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    figure = {"regression": "R²", "multilabel": "F1 a row"}.get(found["task"], "accuracy")
    shown = (lambda value: f"{value:.3f}") if found["task"] == "regression" else percent
    for column in ("rung", "cut", figure, "95 % interval", "n", "gain", "to train", "ms", "MB"):
        right = column not in ("rung", "cut")
        table.add_column(column, justify="right" if right else "left", no_wrap=column != "cut", overflow="fold")
    for row in found["rungs"]:
        if not row["tried"]:
            table.add_row(plain(row["rung"]), "not tried", style="dim")
            continue
        gain = "" if row["gain"] is None else f"{100 * row['gain']:+.1f}"
        cut = "" if row["rung"] in ("majority", "no-network") else plain(row["cut"])
        cells = (
            plain(row["rung"]), cut, shown(row["accuracy"]), f"{shown(row['low'])} to {shown(row['high'])}", f"{row['n']:,}",
            gain, f"{row['seconds']:.1f} s", f"{row['ms']:.2f}", f"{row['mb']:,.1f}",
        )  # fmt: skip
        table.add_row(*cells, style="bold" if row["recommended"] else None)
    say()
    console().print(table)
    say()
    for i, sentence in enumerate(found["sentences"]):
        say(f"[bold]{plain(sentence)}[/]" if i == 0 else f"  {plain(sentence)}")
    for warning in found["warnings"]:
        say(f"  [yellow]{plain(warning)}[/]")
    reasons: dict[str, list[str]] = {}
    for one in found["not_tried"]:
        reasons.setdefault(one["why"], []).append(one["rung"])
    for why, which in reasons.items():
        say(f"  [dim]not tried: {plain(', '.join(which))}: {plain(why)}[/]")
    if html is not None:
        say(f"Picture: {plain(html)}")
    if found["next"]:
        say(f"Next:   {plain(found['next'])}  ({found['seconds']:.1f} s)")
