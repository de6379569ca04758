"""Everything the documentation shows is run, in the order it is shown."""

import re
import shlex
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest
import typer

from conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```", re.S | re.M)
HTTP, GRPC = "localhost:8400", "localhost:8401"  # where the pages say that a server is
OPTIONAL = ("fastapi", "openai", "tritonclient")  # what those pages need beside the core


def blocks(page):
    return [(match[1], match[2]) for match in BLOCK.finditer(page.read_text("utf-8"))]


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A folder with the demo's files and a model made from them, once; each page has a copy."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("tickets.csv", "test.csv", "new.csv"):
        shutil.copy(ROOT / "examples" / "tickets" / name, folder / name)
    run([sys.executable, str(ROOT / "examples" / "shapes.py"), "shapes"], folder)
    run(["headstart", "fit", "tickets.csv"], folder)
    return folder


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.name)
def test_the_page_runs(page, project, tmp_path):
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    if page.name in ("README.md", "fit.md"):  # they make their model themselves
        shutil.rmtree(tmp_path / "models")
    if HTTP not in "".join(code for _, code in blocks(page)):
        follow(page, tmp_path)
        return
    for name in OPTIONAL:
        pytest.importorskip(name)
    with served(tmp_path) as places:
        follow(page, tmp_path, places)


def follow(page, folder, places=None):
    """Run the blocks of a page; `places` are put where it says that a server is."""
    for kind, code in blocks(page):
        for said, place in (places or {}).items():
            code = code.replace(said, place)
        if kind == "python":
            run([sys.executable, "-c", code], folder)
            continue
        for line in code.splitlines():
            if line.startswith("$ headstart "):
                run(shlex.split(line[2:]), folder)


@contextmanager
def served(folder):
    """A server of the project in `folder`; gives where it is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        grpc = free.getsockname()[1]
    command = [sys.executable, "-m", "headstart", "serve", "--port", "0", "--log", "on", "--grpc-port", str(grpc)]
    with (
        open(folder / "server.log", "wb") as log,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        try:
            found = re.search(r"http://([0-9.:]+)", server.stdout.readline())
            assert found, (folder / "server.log").read_text("utf-8")
            yield {HTTP: found[1], GRPC: f"127.0.0.1:{grpc}"}
        finally:
            server.terminate()
    assert server.returncode == 0, (folder / "server.log").read_text("utf-8")


def run(command, cwd):
    if command[0] == "headstart":
        command = [sys.executable, "-m", *command]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def test_every_command_and_flag_is_documented():
    from headstart.cli import app

    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    for name, command in commands(typer.main.get_command(app)):
        assert f"headstart {name}" in text or f"`{name}`" in text, name
        for parameter in command.params:
            for flag in parameter.opts:
                if flag.startswith("--") and flag != "--help":
                    assert flag in text, f"{name} {flag}"


def commands(group, before=""):
    for name, command in group.commands.items():
        yield before + name, command
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
