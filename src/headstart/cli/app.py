"""The application every command hangs on, and the options they share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From labelled texts or pictures to a small model of your own, with proof of how good it is.",
    epilog="Start with: `headstart fit tickets.csv`  then  `headstart predict tickets 'where is my parcel?'`",
)

Folder = Annotated[Path, typer.Option("--project", help="The project folder.", show_default="this folder")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]
Text = Annotated[str | None, typer.Option("--text", help="The text column.", show_default="found")]
Image = Annotated[
    str | None, typer.Option("--image", help="The column of pictures or their paths.", show_default="found")
]
Label = Annotated[str | None, typer.Option("--label", help="The label column.", show_default="found")]
Names = Annotated[str | None, typer.Option("--names", help="A file that names the label codes.")]
Encoding = Annotated[str | None, typer.Option("--encoding", help="The file's encoding.", show_default="found")]
Broken = Annotated[str, typer.Option("--broken", help="Pictures that cannot be read: skip or refuse.")]
Name = Annotated[str, typer.Argument(help="A model of the project, or a model's folder.")]
Server = Annotated[
    str | None,
    typer.Option("--server", help="The URL of a server to use, as http://127.0.0.1:8400.", show_default="none"),
]
Key = Annotated[
    str | None,
    typer.Option("--key", help="The server's API key; better in HEADSTART_KEY.", show_default="from HEADSTART_KEY"),
]
