"""The command line: it parses, calls one verb of `api`, and prints. No logic lives here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from headstart.errors import HeadstartError
from headstart.terminal import Progress, console, figures, plain, print_json, say, show_prediction, show_verdict

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a file of labelled texts to a small model of your own, with proof of how good it is.",
    epilog="Start with: `headstart fit tickets.csv`  then  `headstart predict tickets 'where is my parcel?'`",
)

Folder = Annotated[Path, typer.Option("--project", help="The project folder.", show_default="this folder")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]


@app.command(
    epilog="Examples:\n\n"
    "`headstart fit tickets.csv`\n\n"
    "`headstart fit train.csv --test test.csv --unlabelled more.txt.csv --name tickets`\n\n"
    "`headstart fit --labels 'billing,delivery,refund' --name tickets`  (no examples at all)"
)
def fit(
    data: Annotated[
        str | None, typer.Argument(help="CSV, TSV, JSON lines, Parquet, Arrow, or a folder of .txt files per class.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name.", show_default="from the file's")] = None,
    test: Annotated[str | None, typer.Option(help="Rows used once, for the report only.")] = None,
    unlabelled: Annotated[str | None, typer.Option(help="More texts without labels; used if that helps.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Label names 'a,b,c', or a file of names and descriptions; without labelled rows: zero-shot."
        ),
    ] = None,
    text: Annotated[str | None, typer.Option(help="The text column.", show_default="found")] = None,
    label: Annotated[str | None, typer.Option(help="The label column.", show_default="found")] = None,
    names: Annotated[str | None, typer.Option(help="A file that names the label codes.")] = None,
    task: Annotated[
        str | None, typer.Option(help="classification, multilabel or regression.", show_default="found")
    ] = None,
    head: Annotated[str, typer.Option(help="auto, linear, centroid, nearest or ridge.")] = "auto",
    backbone: Annotated[str, typer.Option(help="The base model: minilm, or fake (hashing, instant).")] = "minilm",
    precision: Annotated[str, typer.Option(help="auto, float32 or int8.")] = "auto",
    balanced: Annotated[bool, typer.Option("--balanced", help="Weigh rare classes as much as common ones.")] = False,
    refuse: Annotated[float, typer.Option(help="Share of good input that may be called unknown.")] = 0.05,
    encoding: Annotated[str | None, typer.Option(help="The file's encoding.", show_default="found")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    keep_examples: Annotated[
        bool, typer.Option("--keep-examples/--no-examples", help="Keep the training texts in the model, for --why.")
    ] = True,
    project: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Train a model on labelled texts and report how good it is."""
    from headstart import api

    with Progress(quiet=as_json) as progress:
        model = api.fit(
            data, name=name, test=test, unlabelled=unlabelled, labels=labels, text=text, label=label, names=names,
            task=task, head=head, backbone=backbone, precision=precision, balanced=balanced, refuse=refuse, encoding=encoding, seed=seed,
            keep_examples=keep_examples, project=project, progress=progress,
        )  # fmt: skip
    facts = api.facts(model)
    if as_json:
        print_json(api.summary(model, facts))
        return
    for note in facts["data"]["notes"]:
        say(f"  [dim]{plain(note)}[/]")
    say()
    show_verdict(facts["verdict"])
    seconds = facts["seconds"]
    say(
        f"Model [bold]{model.name}[/] saved and answered its probes again from a fresh process "
        f"({seconds['total']:.1f} s in all: embed {seconds['embed']:.1f}, fit {seconds['fit']:.1f}, "
        f"evaluate {seconds['evaluate']:.1f})."
    )
    say(f"Report: {plain(model.folder)}/report.html")
    say(f"Next:   headstart predict {model.name} 'a new text' --why" + _flag(project))


def _flag(project: Path) -> str:
    return "" if project == Path() else f" --project {project}"


@app.command(
    epilog="Examples:\n\n"
    "`headstart predict tickets 'where is my parcel?' --why`\n\n"
    "`headstart predict tickets new.csv -o labelled.csv`\n\n"
    "`cat new.jsonl | headstart predict tickets - --json`"
)
def predict(
    name: Annotated[str, typer.Argument(help="A model of the project, or a model's folder.")],
    source: Annotated[str, typer.Argument(metavar="INPUT", help="A file, '-' for standard input, or a quoted text.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV, JSON lines or Parquet, by its ending.")
    ] = None,
    why: Annotated[bool, typer.Option("--why", help="Nearest training examples and the words that matter.")] = False,
    every: Annotated[bool, typer.Option("--all", help="The probability of every label.")] = False,
    text: Annotated[str | None, typer.Option(help="The text column.", show_default="found")] = None,
    encoding: Annotated[str | None, typer.Option(help="The file's encoding.", show_default="found")] = None,
    project: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Label new texts. Streams: the input may be larger than memory; run again after an interruption."""
    from headstart import api

    model = api.load(name, project=project)
    if api.is_text(source):
        [row] = api.predict_texts(model, [source], why=why, every=every)
        if as_json:
            print_json(row)
        else:
            show_prediction(row)
        return
    with Progress(quiet=as_json or (output is None and sys.stdout.isatty())) as progress:
        summary = api.predict_file(
            model, source, output=output, why=why, every=every, text=text, encoding=encoding,
            to_json=as_json, progress=progress,
        )  # fmt: skip
    if output is not None:
        if as_json:
            print_json(summary)
        else:
            say(f"{summary['rows']:,} rows, {summary['unknown']:,} unknown -> {plain(output)}")
    for note in summary["notes"]:
        console(stderr=True).print(f"  [dim]{plain(note)}[/]", highlight=False)


@app.command(epilog="Example: `headstart evaluate tickets test.csv`")
def evaluate(
    name: Annotated[str, typer.Argument(help="A model of the project, or a model's folder.")],
    data: Annotated[str, typer.Argument(metavar="FILE", help="Labelled texts.")],
    text: Annotated[str | None, typer.Option(help="The text column.", show_default="found")] = None,
    label: Annotated[str | None, typer.Option(help="The label column.", show_default="found")] = None,
    names: Annotated[str | None, typer.Option(help="A file that names the label codes.")] = None,
    encoding: Annotated[str | None, typer.Option(help="The file's encoding.", show_default="found")] = None,
    project: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Measure a model on labelled texts it has not seen."""
    from headstart import api

    model = api.load(name, project=project)
    with Progress(quiet=as_json) as progress:
        found = api.evaluate(model, data, text=text, label=label, names=names, encoding=encoding, progress=progress)
    if as_json:
        print_json(found)
        return
    say(f"[bold]{figures(model.task, found['test'])}[/]")
    for note in found["notes"]:
        say(f"  [dim]{plain(note)}[/]")


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
    name: Annotated[str, typer.Argument(help="A model of the project, or a model's folder.")],
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
        ("backbone", f"{card['backbone']['name']} ({card['backbone']['licence']}, {card['backbone']['precision']})"),
        ("head", card["head"]["name"] + (" with unlabelled rows" if card["head"]["pool"] else "")),
        ("made", f"{card['made']} by headstart {card['versions']['headstart']}, seed {card['seed']}"),
        ("digest", card["digest"]),
        ("folder", str(model.folder)),
    ):
        if value:
            say(f"  [dim]{title:<10}[/]{plain(value)}")


@app.command()
def verify(
    name: Annotated[str, typer.Argument(help="A model of the project, or a model's folder.")],
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


@app.command()
def report(
    name: Annotated[str, typer.Argument(help="A model of the project, or a model's folder.")],
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
        say(f"{plain(found['folder'])}: {done}{found['bytes'] / 1e6:,.1f} MB")


def _version(value: bool) -> None:
    if value:
        from headstart import __version__

        print(f"headstart {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """The entry point: every error we raise on purpose becomes one message and an exit code, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except HeadstartError as error:
        print("headstart: " + "".join(ch if ch.isprintable() else " " for ch in str(error)), file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as done:
        if done.code == 130:
            print(
                "headstart: interrupted. Run the same command again: what was embedded is not embedded twice.",
                file=sys.stderr,
            )
        raise


if __name__ == "__main__":
    main()
