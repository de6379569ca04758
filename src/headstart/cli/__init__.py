"""The command line: every command parses, calls one verb of `api`, and prints. No logic lives here."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from headstart.cli import advising, bases, learning, managing, serving, shaping, tuning
from headstart.cli.app import app
from headstart.errors import HeadstartError

__all__ = ["advising", "app", "bases", "learning", "main", "managing", "serving", "shaping", "tuning"]


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
                "headstart: interrupted. Run the same command again: what was embedded is not embedded twice"
                + ("; add --resume to go on where tune was." if "tune" in sys.argv[1:2] else "."),
                file=sys.stderr,
            )
        raise


if __name__ == "__main__":
    main()
