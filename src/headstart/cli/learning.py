"""fit, predict, evaluate: they parse, call one verb of `api`, and print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.app import Broken, Encoding, Folder, Image, Json, Key, Label, Name, Names, Server, Text, app
from headstart.terminal import Progress, console, figures, plain, print_json, say, show_prediction, show_verdict


@app.command(
    epilog="Examples:\n\n"
    "`headstart fit tickets.csv`\n\n"
    "`headstart fit train.csv --test test.csv --unlabelled more.txt.csv --name tickets`\n\n"
    "`headstart fit PHOTOS/ --backbone mobilenet-v2`  (a folder of pictures for each class)\n\n"
    "`headstart fit --labels 'billing,delivery,refund' --name tickets`  (no examples at all)"
)
def fit(
    data: Annotated[
        str | None,
        typer.Argument(help="CSV, TSV, JSON lines, Parquet, Arrow, a zip or tar, or a folder with a folder per class."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name.", show_default="from the file's")] = None,
    test: Annotated[str | None, typer.Option(help="Rows used once, for the report only.")] = None,
    unlabelled: Annotated[str | None, typer.Option(help="More examples without labels; used if that helps.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Label names 'a,b,c', or a file of names and descriptions; without labelled rows: zero-shot."
        ),
    ] = None,
    text: Text = None,
    image: Image = None,
    label: Label = None,
    names: Names = None,
    task: Annotated[
        str | None, typer.Option(help="classification, multilabel or regression.", show_default="found")
    ] = None,
    head: Annotated[str, typer.Option(help="auto, linear, centroid, nearest or ridge.")] = "auto",
    backbone: Annotated[
        str, typer.Option(help="The base model, one that `headstart backbones` lists.", show_default="by the data")
    ] = "auto",
    cut: Annotated[
        str | None, typer.Option(help="Where the base is cut, such as 3, max6 or 3+6.", show_default="the base's usual")
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, float32 or int8.")] = "auto",
    views: Annotated[
        bool, typer.Option("--views/--no-views", help="Try mirrored pictures too; used if that helps.")
    ] = True,
    broken: Broken = "skip",
    balanced: Annotated[bool, typer.Option("--balanced", help="Weigh rare classes as much as common ones.")] = False,
    refuse: Annotated[float, typer.Option(help="Share of good input that may be called unknown.")] = 0.05,
    encoding: Encoding = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    keep_examples: Annotated[
        bool, typer.Option("--keep-examples/--no-examples", help="Keep the training examples in the model, for --why.")
    ] = True,
    project: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Train a model on labelled texts or pictures and report how good it is."""
    from headstart import api

    with Progress(quiet=as_json) as progress:
        model = api.fit(
            data, name=name, test=test, unlabelled=unlabelled, labels=labels, text=text, image=image, label=label,
            names=names, task=task, head=head, backbone=backbone, cut=cut, precision=precision, views=views, broken=broken,
            balanced=balanced, refuse=refuse, encoding=encoding, seed=seed, keep_examples=keep_examples, project=project, progress=progress,
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
    say(f"Next:   headstart predict {model.name} {_example(model.modality)} --why" + _flag(project))
    for words in api.behind(model, project=project):
        say(f"Served: {plain(words)}")


def _example(modality: str) -> str:
    return "'a new text'" if modality == "text" else "picture.jpg"


def _flag(project: Path) -> str:
    return "" if project == Path() else f" --project {project}"


@app.command(
    epilog="Examples:\n\n"
    "`headstart predict tickets 'where is my parcel?' --why`\n\n"
    "`headstart predict tickets new.csv -o labelled.csv`\n\n"
    "`headstart predict waste photo.jpg --why`\n\n"
    "`cat new.jsonl | headstart predict tickets - --json`\n\n"
    "`headstart predict tickets new.csv -o labelled.csv --server http://127.0.0.1:8400`"
)
def predict(
    name: Name,
    source: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="A file, a folder, '-' for standard input, a picture, or a quoted text."),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV, JSON lines or Parquet, by its ending.")
    ] = None,
    why: Annotated[
        bool,
        typer.Option(
            "--why", help="Nearest training examples, and the words or regions that matter; some 50 times the work."
        ),
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="The probability of every label.")] = False,
    text: Text = None,
    image: Image = None,
    encoding: Encoding = None,
    broken: Broken = "skip",
    server: Server = None,
    key: Key = None,
    project: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Label new texts or pictures. Streams: the input may be larger than memory; run again after an interruption."""
    from headstart import api

    model = api.load(name, project=project) if server is None else api.remote(server, name, key=key)
    if output is None and api.is_one(model, source):
        [row] = api.predict_one(model, [source], why=why, every=every)
        if as_json:
            print_json(row)
        else:
            show_prediction(row)
        return
    with Progress(quiet=as_json or (output is None and sys.stdout.isatty())) as progress:
        summary = api.predict_file(
            model, source, output=output, why=why, every=every, text=text, image=image, encoding=encoding, broken=broken,
            to_json=as_json, progress=progress,
        )  # fmt: skip
    if output is not None:
        if as_json:
            print_json(summary)
        else:
            rows = "1 row" if summary["rows"] == 1 else f"{summary['rows']:,} rows"
            say(f"{rows}, {summary['unknown']:,} unknown -> {plain(output)}")
    for note in summary["notes"]:
        console(stderr=True).print(f"  [dim]{plain(note)}[/]", highlight=False, soft_wrap=True)
    for fault in summary["broken"][:20]:
        line = f"row {fault['row']:,}, {fault['name']}: not read: {fault['reason']}"
        console(stderr=True).print(f"  [yellow]{plain(line)}[/]", highlight=False, soft_wrap=True)
    if len(summary["broken"]) > 20:
        console(stderr=True).print(
            f"  [yellow]{len(summary['broken']) - 20:,} more could not be read[/]", soft_wrap=True
        )


@app.command(epilog="Example: `headstart evaluate tickets test.csv`")
def evaluate(
    name: Name,
    data: Annotated[str, typer.Argument(metavar="FILE", help="Labelled texts or pictures.")],
    text: Text = None,
    image: Image = None,
    label: Label = None,
    names: Names = None,
    encoding: Encoding = None,
    broken: Broken = "skip",
    project: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Measure a model on labelled examples it has not seen."""
    from headstart import api

    model = api.load(name, project=project)
    with Progress(quiet=as_json) as progress:
        found = api.evaluate(
            model, data, text=text, image=image, label=label, names=names, encoding=encoding, broken=broken, progress=progress
        )  # fmt: skip
    if as_json:
        print_json(found)
        return
    say(f"[bold]{figures(model.task, found['test'])}[/]")
    for note in found["notes"]:
        say(f"  [dim]{plain(note)}[/]")
