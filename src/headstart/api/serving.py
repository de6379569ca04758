"""The verbs of serving: a model on a server; deploy, rollback, undeploy and deployments, here or on a server; API keys.

Without a server the project's database is changed, and the running servers of the project are told: what they said is
in `servers`, a row a process {"pid", "ok", "detail"}. With one, it is asked by HTTP, and changes its own project.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from headstart import apikeys, saved
from headstart import deployments as commits
from headstart.deployments import Deployment, Pointer
from headstart.errors import Conflict, InputError, ModelError, NotFound, near
from headstart.model import Model, load, replay
from headstart.project import Project, checked_name

if TYPE_CHECKING:
    from headstart.client import Remote, Server

LOADING = 600.0  # seconds a server gets to load a model


def remote(server: str, name: str, *, key: str | None = None) -> Remote:
    """A model on a server, for `predict_one` and `predict_file`. Raises NotFound, Denied, Unreachable, InputError."""
    from headstart.client import Remote

    return Remote.open(server, name, key)


def deploy(
    model: str,
    version: str | None = None,
    *,
    name: str | None = None,
    shadow: bool = False,
    canary: float | None = None,
    expected: int | None = None,
    server: str | None = None,
    key: str | None = None,
    project: str | Path = ".",
) -> dict[str, Any]:
    """Let a version ("tickets", "tickets@v3", or version="v3"; the current one without) answer under a name.

    shadow: it answers beside the live version, unheard; canary: it answers this share (0 to 1) of the requests. The version
    is loaded and its probes are answered before anything is changed. Returns {name, live, challenger, mode, share, seq,
    servers, note}; note: a challenger has other labels, say, or None. Raises NotFound with the versions there, ModelError, InputError, Conflict; with a server Unreachable, Denied.
    """
    model, at, said = model.partition("@")
    if at and version is not None:
        raise InputError(f"give one version, not both @{said} and {version}.")
    version = _version(said if at else version)
    if shadow and canary is not None:
        raise InputError("a challenger is a shadow or a canary, not both.")
    if canary is not None and not 0 < canary <= 1:
        raise InputError(f"a canary answers a share of the requests between 0 and 1, not {canary:g}.")
    name = checked_name(name or model)
    if server is not None:
        asked = {
            "model": model,
            "version": version,
            "as": name,
            "shadow": shadow or None,
            "canary": canary,
            "expected": expected,
        }
        return _changed(_server(server, key), "POST", "", {k: v for k, v in asked.items() if v is not None})
    root = Path(project)
    folder = _folder(Project(root), model, version)
    whole = load(folder)
    mode = "shadow" if shadow else "canary" if canary is not None else None
    pointer = Pointer(model, folder.name, str(whole.card["digest"]))
    note, live = None, None
    known = commits.table(root).get(name)
    if known is None:
        live = _answering(Project(root), name)
    if mode is not None:
        if live == pointer:
            others = [number for number in Project(root).versions(model) if f"v{number}" != pointer.version]
            pin = f"pin what answers first, headstart deploy {model}@v{others[-1]}" if others else "it is the only one."
            raise Conflict(f"{model}@{pointer.version} is the current version, and nothing else is live: {pin}")
        beside = known.live if known else live
        if beside is not None:
            from headstart.serving.shelf import suited

            note = suited(name, _load(root, beside), whole)
    replay(whole)
    made = commits.deploy(root, name, pointer, mode=mode, share=canary or 0.0, expected=expected, live=live)
    return {**_told(root, made), "note": note}


def rollback(
    name: str,
    *,
    expected: int | None = None,
    server: str | None = None,
    key: str | None = None,
    project: str | Path = ".",
) -> dict[str, Any]:
    """Take a challenger away; without one let the version that was live before answer again. Returns as `deploy`.

    That is loaded and its probes are answered first. Raises NotFound, ModelError, Conflict, also where there is nothing to
    go back to; then nothing has changed.
    """
    if server is not None:
        body = {} if expected is None else {"expected": expected}
        return _changed(_server(server, key), "POST", f"/{quote(name, safe='')}/rollback", body)
    root = Path(project)
    target = commits.behind(root, name, expected=expected)
    if target is not None:
        expected = target.seq
        if target.live is not None and target.live != commits.table(root)[name].live:
            replay(_load(root, target.live))
    return _told(root, commits.rollback(root, name, expected=expected))


def undeploy(
    name: str,
    *,
    expected: int | None = None,
    server: str | None = None,
    key: str | None = None,
    project: str | Path = ".",
) -> dict[str, Any]:
    """Let nothing answer under a name any more; the model stays in the project. Returns and raises as `rollback`."""
    if server is not None:
        query = "" if expected is None else f"?expected={expected}"
        return _changed(_server(server, key), "DELETE", f"/{quote(name, safe='')}{query}", None)
    root = Path(project)
    live = None if name in commits.table(root) else _answering(Project(root), checked_name(name))
    return _told(root, commits.undeploy(root, name, expected=expected, live=live))


def deployments(
    *, server: str | None = None, key: str | None = None, project: str | Path = "."
) -> list[dict[str, Any]]:
    """Every name that answers, or was undeployed: {name, live, challenger, mode, share, seq, counts}.

    live and challenger: {model, version, digest} or None; seq 0: never deployed, the current version answers. counts, of
    a server only: how often the challenger was compared and agreed.
    """
    if server is not None:
        said = _server(server, key).ask("GET", "/v1/deployments")
        rows = said.get("deployments") if isinstance(said, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) and "name" in row for row in rows):
            raise InputError(f"{server} gives no list of deployments. Is it a Headstart server?")
        return rows
    root = Path(project)
    found = {name: _row(one) for name, one in commits.table(root).items()}
    for name in Project(root).names():
        if name not in found:
            live = _answering(Project(root), name)
            assert live is not None
            found[name] = _row(Deployment(name, live, None, None, 0.0, 0, ""))
    return [found[name] for name in sorted(found)]


def history(
    name: str, *, server: str | None = None, key: str | None = None, project: str | Path = "."
) -> list[dict[str, Any]]:
    """What was changed under a name, the oldest first: {seq, at, action, live, challenger, mode, share}; of a server the
    last 50. Raises NotFound for a name that was never deployed.
    """
    if server is not None:
        said = _server(server, key).ask("GET", f"/v1/deployments/{quote(name, safe='')}")
        rows = said.get("history") if isinstance(said, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) and "seq" in row for row in rows):
            raise InputError(f"{server} gives no history of {name!r}. Is it a Headstart server of this version?")
        if not rows:
            raise _never(name)
        return rows
    root = Path(project)
    found = commits.history(root, name)
    if not found:
        known = {*commits.table(root), *Project(root).names()}
        if name in known:
            raise _never(name)
        raise NotFound(f"nothing was ever deployed as {name!r}.{near(name, known)}")
    return found


def behind(model: Model, *, project: str | Path = ".") -> list[str]:
    """Sentences about the names that another version of a saved model answers under."""
    if model.folder is None:
        return []
    return commits.lagging(Path(project), {model.name: model.folder.name})


def keys_create(
    name: str,
    scopes: Iterable[str] = ("predict", "read"),
    *,
    rate: float | None = None,
    expires: float | None = None,
    project: str | Path = ".",
) -> dict[str, Any]:
    """Make an API key: {id, name, scopes, rate, made, expires, revoked, secret, servers}. The secret is given this once.

    scopes: of predict, read and deploy; rate: requests a second; expires: seconds from now. Raises InputError.
    """
    until = None if expires is None else time.time() + expires
    made, secret = apikeys.create(_there(project), name, scopes, rate, until)
    return {**_shown(made), "secret": secret, "servers": _tell(Path(project))}


def keys_list(*, project: str | Path = ".") -> list[dict[str, Any]]:
    """The API keys of a project, revoked ones too, without their secrets."""
    return [_shown(one) for one in apikeys.keys(Path(project))]


def keys_revoke(id_or_name: str, *, project: str | Path = ".") -> dict[str, Any]:
    """Make an API key void, at once also in running servers. Raises NotFound."""
    return {**_shown(apikeys.revoke(Path(project), id_or_name)), "servers": _tell(Path(project))}


def refusals(servers: Sequence[dict[str, Any]]) -> list[str]:
    """What the servers said that could not follow a change, in words."""
    return [
        f"a server: {one['detail']}" if one["pid"] is None else f"server process {one['pid']}: {one['detail']}"
        for one in servers
        if not one["ok"]
    ]


def _never(name: str) -> NotFound:
    return NotFound(f"{name!r} was never deployed, so it has no history: its current version answers.")


def _version(given: str | None) -> str | None:
    """ "3" or "v3" -> "v3". Raises InputError."""
    if given is None:
        return None
    number = re.fullmatch(r"v?([1-9][0-9]{0,8})", given)
    if number is None:
        raise InputError(f"{given[:40]!r} is no version: write MODEL@v3, or MODEL alone for the current one.")
    return f"v{number[1]}"


def _folder(project: Project, model: str, version: str | None) -> Path:
    """Where a version lies. Raises NotFound with those there."""
    current = project.current(model)
    if version is None:
        return current
    there = [f"v{number}" for number in project.versions(model)]
    if version not in there:
        raise NotFound(
            f"model {model!r} has no version {version}.{near(version, there) or f' The last is {there[-1]}.'}"
        )
    return current.parent / version


def _answering(project: Project, name: str) -> Pointer | None:
    """What would answer under a name that was never deployed: the current version of the model of that name."""
    if name not in project.names():
        return None
    folder = project.current(name)
    return Pointer(name, folder.name, str(saved.read_card(folder)["digest"]))


def _told(root: Path, made: Deployment) -> dict[str, Any]:
    from headstart import notice

    return {**_row(made), "servers": notice.about(made.name, _tell(root))}


def _load(root: Path, pointer: Pointer) -> Model:
    """The version that a pointer names. Raises NotFound, and ModelError where it is not the one that was deployed."""
    found = load(_folder(Project(root), pointer.model, pointer.version))
    if found.card["digest"] != pointer.digest:
        raise ModelError(
            f"{found.folder} is not what was deployed: its digest is {found.card['digest'][:16]}..., not "
            f"{pointer.digest[:16]}..."
        )
    return found


def _tell(root: Path) -> list[dict[str, Any]]:
    from headstart import notice  # asyncio is loaded for this alone

    return notice.tell(root)


def _row(one: Deployment) -> dict[str, Any]:
    return {**asdict(one), "counts": None}


def _shown(key: apikeys.Key) -> dict[str, Any]:
    return {**asdict(key), "scopes": sorted(key.scopes)}


def _there(project: str | Path) -> Path:
    """The folder of a project. Raises NotFound."""
    if not Path(project).is_dir():
        raise NotFound(f"{project}: there is no such folder.")
    return Path(project)


def _server(url: str, key: str | None) -> Server:
    from headstart.client import Server

    return Server(url, key)


def _changed(server: Server, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    """Ask a server for a change; what its processes said is in `servers`, as for a project here."""
    said = server.ask(method, f"/v1/deployments{path}", body, timeout=LOADING)
    if not isinstance(said, dict):
        raise InputError(f"{server.url} does not say what became of it. Is it a Headstart server?")
    rows = said.get("servers")
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and {"pid", "ok", "detail"} <= {*row} for row in rows
    ):
        raise InputError(f"{server.url} does not say which of its processes followed. Is it a Headstart server?")
    return said
