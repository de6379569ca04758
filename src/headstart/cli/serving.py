"""serve, deploy, rollback, undeploy, deployments, keys: they parse, call one verb of `api`, and print."""

from __future__ import annotations

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from headstart.cli.app import Folder, Json, Key, Server, app
from headstart.errors import InputError, MissingExtra
from headstart.terminal import console, plain, print_json, say

DEPLOYED = Annotated[str, typer.Argument(metavar="NAME", help="A deployed name.")]
Expected = Annotated[
    int | None, typer.Option("--expected", help="Refuse unless this is the name's last commit.", show_default="any")
]
_EXTRA = ("fastapi", "uvicorn", "httptools", "orjson", "prometheus_client")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}

keys = typer.Typer(no_args_is_help=True, help="API keys of a project: create, list, revoke.")
app.add_typer(keys, name="keys")


@app.command(
    epilog="Examples:\n\n"
    "`headstart serve`  (every model of this folder, for this machine alone)\n\n"
    "`headstart serve --models tickets,waste --port 9000 --log on`\n\n"
    "`headstart keys create web` then `headstart serve --host 0.0.0.0 --workers 4`\n\n"
    "`curl -d '{\"inputs\": \"where is my parcel?\"}' -H 'Content-Type: application/json' "
    "localhost:8400/v1/models/tickets/predict`"
)
def serve(
    project: Folder = Path(),
    host: Annotated[str, typer.Option(help="Where to listen; beyond this machine only with an API key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.")] = 8400,
    models: Annotated[
        str | None, typer.Option(help="Serve only these names: a,b.", show_default="all of the project")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes, each with every model in memory.")] = 1,
    max_wait: Annotated[
        float,
        typer.Option(
            "--max-wait", help="Milliseconds an input may be passed over for fuller batches of another length."
        ),
    ] = 5.0,
    deadline: Annotated[float, typer.Option(help="Seconds to answer in; X-Timeout-Ms says another.")] = 10.0,
    max_body: Annotated[float, typer.Option("--max-body", help="MB of one request.")] = 32.0,
    max_inputs: Annotated[int, typer.Option("--max-inputs", help="Inputs of one request.")] = 1024,
    cache_mb: Annotated[
        float, typer.Option("--cache-mb", help="MB of memory for features of recent inputs; 0: none.")
    ] = 64.0,
    log: Annotated[
        str, typer.Option(help="Keep predictions in the project: off, on, or wait (answer when they are on the disk).")
    ] = "off",
    log_inputs: Annotated[bool, typer.Option("--log-inputs", help="Keep the texts of predictions too.")] = False,
    log_format: Annotated[
        str, typer.Option("--log-format", help="What is printed while serving: human or json.")
    ] = "human",
    insecure: Annotated[bool, typer.Option("--insecure", help="Let other machines in without an API key.")] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="A name this server is called by; may be repeated.")
    ] = None,
    cors: Annotated[
        list[str] | None, typer.Option(help="An origin whose pages may ask, https://app.example.com; may be repeated.")
    ] = None,
    grpc_port: Annotated[
        int | None, typer.Option("--grpc-port", help="The Open Inference Protocol by gRPC too.", show_default="off")
    ] = None,
    otel: Annotated[bool, typer.Option("--otel", help="Send OpenTelemetry traces, as OTEL_... variables say.")] = False,
    grace: Annotated[float, typer.Option(help="Seconds to finish what was accepted when it is stopped.")] = 30.0,
) -> None:
    """Serve the models of a project over HTTP, all on shared base models, until Ctrl+C."""
    if missing := [name for name in _EXTRA if find_spec(name) is None]:
        raise MissingExtra(f"serving needs {', '.join(missing)}: pip install 'headstart[serve]'")
    for threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(threads, "1")  # before numpy is loaded: the threads that compute are ours
    from headstart.server.running import run
    from headstart.server.settings import Settings

    if not project.is_dir():
        raise InputError(f"{project}: there is no such folder. Give the project with --project.")
    settings = Settings(
        project=project,
        host=host,
        port=port,
        models=None if models is None else tuple(name.strip() for name in models.split(",") if name.strip()),
        workers=workers,
        max_wait=max_wait / 1000,
        deadline=deadline,
        max_body=_bytes(max_body, "--max-body"),
        max_inputs=max_inputs,
        cache=_bytes(cache_mb, "--cache-mb"),
        log=log,
        log_inputs=log_inputs,
        log_format=log_format,
        insecure=insecure,
        hosts=tuple(allow_host or ()),
        cors=tuple(cors or ()),
        grpc_port=grpc_port,
        otel=otel,
        grace=grace,
    )
    raise typer.Exit(run(settings))


@app.command(
    epilog="Examples:\n\n"
    "`headstart deploy tickets`  (its current version)\n\n"
    "`headstart deploy tickets@v4 --shadow`  (answers too, is compared, never returned)\n\n"
    "`headstart deploy tickets@v4 --canary 10%`\n\n"
    "`headstart deploy tickets@v4 --as support --server https://models.example.com`"
)
def deploy(
    model: Annotated[str, typer.Argument(metavar="MODEL[@VERSION]", help="A model, and which version of it.")],
    name: Annotated[
        str | None, typer.Option("--as", help="The name that it answers to.", show_default="the model's")
    ] = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Beside the live version: answers unheard, and is compared.")
    ] = False,
    canary: Annotated[
        str | None, typer.Option("--canary", help="Answer this share of the requests: 10%.", show_default="none")
    ] = None,
    expected: Expected = None,
    server: Server = None,
    key: Key = None,
    project: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Let a version of a model answer under a name, at once and without a restart."""
    from headstart import api

    share = None if canary is None else _share(canary)
    made = api.deploy(
        model, name=name, shadow=shadow, canary=share, expected=expected, server=server, key=key, project=project
    )
    _changed(made, as_json=as_json)


@app.command(epilog="Example: `headstart rollback tickets`")
def rollback(
    name: DEPLOYED,
    expected: Expected = None,
    server: Server = None,
    key: Key = None,
    project: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Take a shadow or canary away; without one, let the version before answer again."""
    from headstart import api

    _changed(api.rollback(name, expected=expected, server=server, key=key, project=project), as_json=as_json)


@app.command(epilog="Example: `headstart undeploy tickets`  (the model stays; `headstart rollback tickets` undoes it)")
def undeploy(
    name: DEPLOYED,
    expected: Expected = None,
    server: Server = None,
    key: Key = None,
    project: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Let nothing answer under a name any more."""
    from headstart import api

    _changed(api.undeploy(name, expected=expected, server=server, key=key, project=project), as_json=as_json)


@app.command(
    epilog="Examples:\n\n`headstart deployments`\n\n`headstart deployments tickets`  (its history)\n\n"
    "`headstart deployments --server http://127.0.0.1:8400`"
)
def deployments(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show what was changed under this name.")] = None,
    server: Server = None,
    key: Key = None,
    project: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Show which version answers under which name, and how a challenger agrees with it (with --server)."""
    from headstart import api

    if name is not None:
        _history(api.history(name, server=server, key=key, project=project), as_json=as_json)
        return
    rows = api.deployments(server=server, key=key, project=project)
    if as_json:
        print_json(rows)
        return
    if not rows:
        say("Nothing is deployed here. Make a model with: headstart fit DATA")
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("name", "live", "challenger", "share", "agreement"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(plain, (row["name"], _live(row), _challenger(row), _shared(row), _agreement(row))))
    console().print(table)


@keys.command(
    "create",
    epilog="Examples:\n\n"
    "`headstart keys create web`  (may predict and read)\n\n"
    "`headstart keys create nightly --scopes predict --rate 100 --expires 90d`",
)
def keys_create(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    scopes: Annotated[str, typer.Option(help="What it may: predict, read, deploy.")] = "predict,read",
    rate: Annotated[float | None, typer.Option(help="Requests a second.", show_default="no bound")] = None,
    expires: Annotated[str | None, typer.Option(help="After how long: 12h, 90d, 1y.", show_default="never")] = None,
    project: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Make an API key. It is printed once; only its hash is kept."""
    from headstart import api

    seconds = None if expires is None else _seconds(expires)
    wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    made = api.keys_create(name, wanted, rate=rate, expires=seconds, project=project)
    if as_json:
        print_json(made)
    else:
        say(plain(made["secret"]))
        console(stderr=True).print(
            f"[dim]This is the only time it is shown. {plain(_may(made))}.[/]", highlight=False, soft_wrap=True
        )
    _refused(made["servers"])


@keys.command("list", epilog="Example: `headstart keys list`")
def keys_list(project: Folder = Path(), as_json: Json = False) -> None:
    """List the API keys of a project, without their secrets."""
    from headstart import api

    rows = api.keys_list(project=project)
    if as_json:
        print_json(rows)
        return
    if not rows:
        say("No API keys here. Make one with: headstart keys create NAME")
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("id", "name", "scopes", "rate", "made", "expires", "revoked"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(
            row["id"], plain(row["name"]), ",".join(row["scopes"]), f"{row['rate']:g}/s" if row["rate"] else "",
            row["made"], _day(row["expires"]), row["revoked"] or "",
        )  # fmt: skip
    console().print(table)


@keys.command("revoke", epilog="Example: `headstart keys revoke web`")
def keys_revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its name or id.")],
    project: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Make an API key void, at once also in running servers."""
    from headstart import api

    gone = api.keys_revoke(key, project=project)
    if as_json:
        print_json(gone)
    else:
        say(f"revoked {plain(gone['name'])} ({gone['id']})")
    _refused(gone["servers"])


def _history(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """Show the changes of a name, the newest last."""
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("number", "at", "change", "live", "challenger", "share"):
        table.add_column(column, overflow="fold")
    for row in rows:
        cells = (str(row["seq"]), row["at"], row["action"], _point(row["live"]), _challenger(row), _shared(row))
        table.add_row(*map(plain, cells))
    console().print(table)


def _changed(made: dict[str, Any], *, as_json: bool) -> None:
    """Say what became of a change; exit code 1 where a server could not follow."""
    servers = made["servers"]
    if as_json:
        print_json(made)
    else:
        beside = f"; {_challenger(made)}, {_shared(made)}" if made["challenger"] else ""
        say(f"[bold]{plain(made['name'])}[/] is answered by {plain(_live(made))}{plain(beside)}")
        if made.get("note"):
            say(f"  [dim]{plain(made['note'])}[/]")
        told = sum(one["ok"] and one.get("serves", True) for one in servers)
        for one in servers:
            if one["ok"] and not one.get("serves", True):
                say(f"  [dim]server process {one['pid']}: {plain(one['detail'])}[/]")
        if not servers:
            say("  [dim]No server of this project runs here: it holds from the next start on.[/]")
        elif told:
            say(f"  [dim]{told} server process{'' if told == 1 else 'es'} followed.[/]")
    _refused(servers)


def _refused(servers: list[dict[str, Any]]) -> None:
    from headstart import api

    words = api.refusals(servers)
    for one in words:
        print("headstart: " + "".join(ch if ch.isprintable() else " " for ch in one), file=sys.stderr)
    if words:
        raise typer.Exit(1)


def _point(pointer: dict[str, Any] | None) -> str:
    return "nothing" if pointer is None else f"{pointer['model']}@{pointer['version']}"


def _live(row: dict[str, Any]) -> str:
    fault = f" (cannot answer: {row['fault']})" if row.get("fault") else ""
    return _point(row["live"]) + fault


def _challenger(row: dict[str, Any]) -> str:
    return f"{row['mode']} {_point(row['challenger'])}" if row["challenger"] else ""


def _shared(row: dict[str, Any]) -> str:
    if not row["challenger"]:
        return ""
    return f"{100 * row['share']:g} %" if row["mode"] == "canary" else "unheard"


def _agreement(row: dict[str, Any]) -> str:
    counts = row.get("counts")
    if not row["challenger"] or not counts or not counts["compared"]:
        return ""
    processes = row.get("processes") or 1
    where = f", of one of {processes} processes" if processes > 1 else ""
    return f"{100 * counts['agreed'] / counts['compared']:.1f} % of {counts['compared']:,}{where}"


def _may(key: dict[str, Any]) -> str:
    bounds = [f"{key['rate']:g} requests a second"] if key["rate"] else []
    bounds += [f"until {_day(key['expires'])}"] if key["expires"] else []
    return ", ".join([f"It may {' and '.join(key['scopes'])}", *bounds])


def _day(seconds: float | None) -> str:
    if seconds is None:
        return ""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _bytes(megabytes: float, option: str) -> int:
    """MB -> bytes. Raises InputError."""
    if not 0 <= megabytes < 1e6:
        raise InputError(f"{option} {megabytes:g} is no size: give MB, from 0 to 999,999.")
    return int(megabytes * 2**20)


def _share(text: str) -> float:
    """ "10%" or "0.1" -> 0.1. Raises InputError."""
    found = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?|0?\.[0-9]{1,6})\s*(%?)", text.strip())
    share = float(found[1]) / (100 if found[2] else 1) if found else 0.0
    if not 0 < share <= 1:
        raise InputError(f"--canary {text[:40]} is no share of the requests: write 10% or 0.1.")
    return share


def _seconds(text: str) -> float:
    """ "90d" -> 7,776,000. Raises InputError."""
    found = re.fullmatch(r"([0-9]{1,6})([mhdwy])", text.strip())
    if found is None or not int(found[1]):
        raise InputError(f"--expires {text[:40]} is no time: write 30m, 12h, 90d, 6w or 1y.")
    return int(found[1]) * float(_SECONDS[found[2]])
