"""backbones and select: the base models there are, and which one suits the data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from headstart.cli.app import Encoding, Image, Json, Label, Names, Text, app
from headstart.terminal import Progress, console, percent, plain, print_json, say

group = typer.Typer(no_args_is_help=False, rich_markup_mode="markdown")
app.add_typer(group, name="backbones")


@group.callback(
    invoke_without_command=True,
    epilog="Examples:\n\n`headstart backbones`\n\n`headstart backbones add mobilenet-v2`\n\n"
    "`headstart backbones add hf:owner/name@revision`\n\n`headstart backbones add ./model.onnx --card card.toml`",
)
def backbones(
    context: typer.Context,
    measure: Annotated[bool, typer.Option("--measure", help="Time those that are here, on this machine.")] = False,
    as_json: Json = False,
) -> None:
    """List the base models that are here and that can be added."""
    if context.invoked_subcommand is not None:
        return
    from headstart import api

    found = api.bases(measure=measure)
    if as_json:
        print_json(found)
        return
    here = [*found["built_in"], *found["installed"]]
    rest = [row for row in found["catalogue"] if not row["installed"]]
    for title, rows in (("Here", here), ("To add: headstart backbones add NAME", rest)):
        for modality, kind in (("text", "texts"), ("image", "pictures")):
            _listed(f"{title}, for {kind}", [row for row in rows if row.get("modality") == modality])
    say(f"[dim]Installed networks run on {found['provider']} (HEADSTART_PROVIDER chooses another).[/]")
    for row in here:
        if "fault" in row:
            say(f"[red]{plain(row['name'])}: {plain(row['fault'])}[/]")
    if any(row["unverified"] for row in rest):
        say(
            "[dim]? was not found in a document; --json says which documents were read, and where each base comes from[/]"
        )


def _listed(title: str, rows: list[dict[str, Any]]) -> None:
    """Base models of one modality, two lines each."""
    if not rows:
        return
    say(f"[bold]{title}[/]")
    for row in rows:
        unsure = set(row.get("unverified", ()))
        facts = [
            text + (" ?" if key in unsure else "")
            for key, text in (
                ("width", f"{row['width']} wide"), ("depth", f"{row['depth']} blocks"),
                ("parameters", f"{(row['parameters'] or 0) / 1e6:.0f} M parameters"),
                ("size", f"{(row['size'] or 0) / 1e6:.0f} MB"), ("licence", str(row["licence"])),
            )
            if row[key]
        ]  # fmt: skip
        if row.get("speed"):
            facts.append(f"{row['speed']:,.0f} a second here")
        say(f"  {plain(row['name']):<25} {plain(', '.join(facts))}")
        source = row.get("about") or str(row["source"]) + (f"@{row['revision'][:8]}" if row.get("revision") else "")
        say(f"  {'':<25} [dim]{plain(source)}[/]")
    say()


@group.command(
    epilog="Examples:\n\n`headstart backbones add bge-small-en`\n\n`headstart backbones add ./folder --name mine`\n\n"
    "`headstart backbones add extractor.onnx --card extractor.toml --licence Apache-2.0`"
)
def add(
    source: Annotated[
        str, typer.Argument(help="A name of the catalogue, hf:owner/name[@revision], a folder, or an .onnx file.")
    ],
    name: Annotated[str | None, typer.Option(help="What to call it.", show_default="from the source")] = None,
    card: Annotated[
        Path | None, typer.Option(help="A TOML file with what the source does not say (docs/backbones.md).")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Its licence, where the source does not say.")] = None,
    as_json: Json = False,
) -> None:
    """Install a base model: its files are checked, its graph is read, its places to cut are found. Nothing is executed."""
    from headstart import api

    with Progress(quiet=as_json) as progress:
        facts = api.add_base(
            source, name=name, card=card, licence=licence, progress=progress
        )  # fmt: skip
    if as_json:
        print_json(facts)
        return
    done = "is here already" if facts.get("already") else "added"
    say(
        f"[bold]{plain(facts['name'])}[/] {done}: reads {'texts' if facts['modality'] == 'text' else 'pictures'}, "
        f"{facts['width']:,} wide, {len(facts['taps'])} places to cut, {facts['size'] / 1e6:,.1f} MB, licence "
        f"{plain(facts['licence'])} ({facts['seconds']:.1f} s)"
    )
    for note in facts["notes"]:
        say(f"  [dim]{plain(note)}[/]")
    say(f"Next:   headstart fit DATA --backbone {plain(facts['name'])}")


@group.command()
def rm(
    name: Annotated[str, typer.Argument(help="An installed base model.")],
    as_json: Json = False,
) -> None:
    """Remove an installed base model; models made on it can then no longer predict."""
    from headstart import api

    facts = api.remove_base(name)
    if as_json:
        print_json(facts)
    else:
        say(f"removed {plain(name)} ({facts['size'] / 1e6:,.1f} MB)")


@app.command(
    epilog="Examples:\n\n`headstart select tickets.csv`\n\n"
    "`headstart select PHOTOS/ --licence commercial --max-size 20 --max-latency 30`"
)
def select(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Labelled examples, as for fit.")],
    backbone: Annotated[
        list[str] | None,
        typer.Option("--backbone", help="Try this one; may be given several times.", show_default="all"),
    ] = None,
    licence: Annotated[str, typer.Option(help="any, commercial, or a list such as 'MIT,Apache-2.0'.")] = "any",
    max_size: Annotated[float | None, typer.Option(help="Megabytes of the base below its cut.")] = None,
    max_latency: Annotated[float | None, typer.Option(help="Milliseconds an example, measured here.")] = None,
    budget: Annotated[float | None, typer.Option(help="Seconds the choice may take, about.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the table and its picture as a page.")] = None,
    text: Text = None,
    image: Image = None,
    label: Label = None,
    names: Names = None,
    encoding: Encoding = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    as_json: Json = False,
) -> None:
    """Find the base model, and where to cut it, that suits the data, the licence and the machine."""
    from headstart import api

    with Progress(quiet=as_json) as progress:
        found = api.select(
            data, backbones=backbone, licence=licence, max_size=max_size, max_latency=max_latency, budget=budget, text=text,
            image=image, label=label, names=names, encoding=encoding, seed=seed, page=html,
            say=lambda line: None if as_json else say(f"  [dim]{plain(line)}[/]"), progress=progress,
        )  # fmt: skip
    if as_json:
        print_json(found)
        return
    _choices(found)
    best = found["recommended"]
    say()
    say(f"[bold]{plain(best['why'])}[/]")
    for warning in found["warnings"]:
        say(f"  [yellow]{plain(warning)}[/]")
    for one in found["excluded"]:
        say(f"  [dim]not tried: {plain(one['backbone'])}: {plain(one['why'])}[/]")
    if found["not_installed"]:
        some = ", ".join(found["not_installed"][:4]) + (", ..." if len(found["not_installed"]) > 4 else "")
        say(f"  [dim]not installed, so not tried: {plain(some)} (see: headstart backbones)[/]")
    if html is not None:
        say(f"Picture: {plain(html)}")
    cut = "" if best["simple"] else f" --cut {best['cut']}"
    say(
        f"Next:   headstart fit {plain(data)} --backbone {plain(best['backbone'])}{plain(cut)}  ({found['seconds']:.1f} s)"
    )


def _choices(found: dict[str, Any]) -> None:
    """The candidates as a table, the best first."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    figure = {"regression": "R²", "multilabel": "F1 a row"}.get(found["task"], "accuracy")
    shown = (lambda value: f"{value:.3f}") if found["task"] == "regression" else percent
    columns = ("base", "cut", figure, "95 % interval", "n", "MB", "ms", "distance")
    for column in columns:
        right = column not in ("base", "cut", "distance")
        table.add_column(column, justify="right" if right else "left", no_wrap=column != "base", overflow="fold")
    for row in found["candidates"]:
        chosen = (row["backbone"], row["cut"]) == (found["recommended"]["backbone"], found["recommended"]["cut"])
        cells = (
            plain(row["backbone"]), "" if row["simple"] else plain(row["cut"]), shown(row["accuracy"]),
            f"{shown(row['low'])} to {shown(row['high'])}", f"{row['n']:,}", f"{row['mb']:,.1f}",
            ("" if row["measured"] else "~") + f"{row['ms']:.2f}", row["distance"],
        )  # fmt: skip
        table.add_row(*cells, style="bold" if chosen else None)
    console().print(table)
    licences = dict.fromkeys(f"{row['backbone']} {row['licence']}" for row in found["candidates"])
    say(f"[dim]licences: {plain(', '.join(licences))}[/]")
