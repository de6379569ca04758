"""models, show, verify, report, rm, cache: they parse, call one verb of `api`, and print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.app import Folder, Json, Name, app
from headstart.terminal import console, plain, print_json, say, show_verdict


@app.command()
def models(project: Folder = Path(), as_json: Json = False) -> None:
    """List the models of a project."""
    from headstart import api

    rows = api.models(project=project)
    if as_json:
        print_json(rows)
        return
    if not rows:
        say("No models here yet. Make one with: headstart fit DATA")
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("model", "version", "task", "labels", "rows", "figure", "made"):
        table.add_column(column, overflow="fold")
    for row in rows:
        if "error" in row:
            table.add_row(plain(row["name"]), "", f"[red]{plain(row['error'])}[/]")
            continue
        table.add_row(
            plain(row["name"]), row["version"], row["task"], str(row["labels"]), f"{row['n_train']:,}",
            plain(row["figure"]), row["made"],
        )  # fmt: skip
    console().print(table)


@app.command()
def show(
    name: Name,
    project: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Show what a model is, what it was made from and how good it is."""
    from headstart import api

    model = api.load(name, project=project)
    if as_json:
        print_json(dict(model.card))
        return
    facts = api.facts(model)
    show_verdict(facts["verdict"])
    card = model.card
    for title, value in (
        ("task", f"{model.task}, {len(model.labels)} labels" if model.labels else model.task),
        (
            "labels",
            ", ".join(model.labels[:20]) + (f" and {len(model.labels) - 20} more" if len(model.labels) > 20 else ""),
        ),
        (
            "made from",
            f"{card['data']['name']}, {card['data']['used']:,} rows, SHA-256 {card['data']['digest'][:16]}...",
        ),
        (
            "backbone",
            f"{card['backbone'].get('said') or card['backbone']['name']} ({card['backbone']['licence']}, "
            f"{card['backbone']['precision']})",
        ),
        ("head", card["head"]["name"] + (" with unlabelled rows" if card["head"]["pool"] else "")),
        ("made", f"{card['made']} by headstart {card['versions']['headstart']}, seed {card['seed']}"),
        ("digest", card["digest"]),
        ("folder", str(model.folder)),
    ):
        if value:
            say(f"  [dim]{title:<10}[/]{plain(value)}")


@app.command()
def verify(
    name: Name,
    project: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Check every digest of a model and that it still answers as when it was trained."""
    from headstart import api

    result = api.verify(name, project=project)
    if as_json:
        print_json(result)
    else:
        say(
            f"[green]sound[/]: {result['files']} files as saved; {result['probes']} probes answered as when it was trained "
            f"(features within {result['features']:.1e}, answers within {result['answers']:.1e})"
        )
        if "tuned" in result:
            say(plain(result["tuned"]["said"]))


@app.command()
def report(
    name: Name,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Copy the report there.")] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    project: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Say where a model's report is, copy it or open it."""
    from headstart import api

    path = api.report(name, output=output, project=project)
    if open_it:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
    if as_json:
        print_json({"report": str(path)})
    else:
        say(plain(path))


@app.command()
def rm(
    name: Annotated[str, typer.Argument(help="A model of the project.")],
    project: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Remove a model with all its versions."""
    from headstart import api

    versions = api.remove(name, project=project)
    if as_json:
        print_json({"removed": name, "versions": versions})
    else:
        say(f"removed {name} ({', '.join(f'v{v}' for v in versions)})")


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove every cached feature.")] = False,
    as_json: Json = False,
) -> None:
    """Show the feature cache's place and size, or clear it. It is always safe to delete."""
    from headstart import api

    found = api.cache(clear=clear)
    if as_json:
        print_json(found)
    else:
        done = "cleared, was " if clear else ""
        say(f"{plain(found['folder'])}, and states beside it: {done}{found['bytes'] / 1e6:,.1f} MB")
