"""The files for running a server somewhere: what they say is what the command line and the operating system understand."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from headstart.cli import app
from headstart.server.groups import group, scope_of

DEPLOY = Path(__file__).parent.parent / "deploy"


def served(words: list[str]) -> dict:
    """The options that `headstart serve` understands of a command line; fails on any it does not know."""
    assert words[0] == "serve"
    command = typer.main.get_command(app).commands["serve"]
    return command.make_context("serve", words[1:]).params


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Containerfile, lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Containerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split(None, 1)[1]) for line in lines if line.strip()]


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str
    parser.read(DEPLOY / "headstart.service", "utf-8")
    return parser


def test_the_containers_command_is_one_of_ours():
    found = instructions()
    kinds = [kind for kind, _ in found]
    last = dict(found)
    assert kinds.count("FROM") == 2
    assert last["FROM"] == "python:3.12-slim"
    assert json.loads(last["ENTRYPOINT"]) == ["headstart"]
    options = served(json.loads(last["CMD"]))
    assert options["host"] == "0.0.0.0"
    assert not options["insecure"]  # a key is asked for
    assert str(options["project"]) == last["VOLUME"] == last["WORKDIR"]
    assert str(options["port"]) == last["EXPOSE"]


def test_the_container_is_nobody_and_says_how_it_is():
    found = instructions()
    last = dict(found)
    user = re.fullmatch(r"([1-9]\d+):([1-9]\d+)", last["USER"])
    assert user
    assert found.index(("USER", last["USER"])) > max(i for i, (kind, _) in enumerate(found) if kind == "RUN")
    check = last["HEALTHCHECK"].partition("CMD ")[2]
    code = json.loads(check)
    assert code[:2] == ["python", "-c"]
    compile(code[2], "healthcheck", "exec")
    place = re.search(r"http://127\.0\.0\.1:(\d+)(/[a-z/]+)", code[2])
    assert place[1] == last["EXPOSE"]
    assert scope_of("GET", group(place[2])) is None  # needs no key
    assert last["STOPSIGNAL"] == "SIGTERM"


def test_the_container_is_built_from_what_is_there():
    root = DEPLOY.parent
    for kind, words in instructions():
        if kind == "COPY" and "--from" not in words:
            for name in words.split()[:-1]:
                assert (root / name).exists(), name
    extras = (root / "pyproject.toml").read_text("utf-8")
    for extra in re.findall(r"'\.\[(\w+)\]'", dict(instructions()).get("RUN", "") + str(instructions())):
        assert re.search(rf"^{extra} = \[", extras, re.MULTILINE), extra


def test_the_units_command_is_one_of_ours():
    service = unit()["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert Path(program).name == "headstart"
    options = served(words)
    assert options["host"] == "127.0.0.1"
    assert str(options["project"]) == service["WorkingDirectory"] == f"/var/lib/{service['StateDirectory']}"
    assert service["KillSignal"] == "SIGTERM"
    assert int(service["TimeoutStopSec"]) > options["grace"]
    for name in ("DynamicUser", "NoNewPrivileges", "PrivateTmp"):
        assert service[name] == "yes"
    assert service["ProtectSystem"] == "strict"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_understands_the_unit(tmp_path):
    text = (DEPLOY / "headstart.service").read_text("utf-8")
    here = tmp_path / "headstart.service"
    here.write_text(text.replace("/opt/headstart/bin/headstart", sys.executable), "utf-8")
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(here)], capture_output=True, text=True, timeout=30
    )
    said = [line for line in (found.stderr + found.stdout).splitlines() if "headstart" in line]
    assert (found.returncode, said) == (0, [])
    offline = ["systemd-analyze", "security", "--offline=yes", "--threshold=25", str(here)]
    found = subprocess.run(offline, capture_output=True, text=True, timeout=30)
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr


def test_the_manifest_is_one_kubernetes_takes():
    yaml = pytest.importorskip("yaml")
    pod, service = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8"))
    assert (pod["kind"], service["kind"]) == ("Deployment", "Service")
    spec = pod["spec"]["template"]["spec"]
    [container] = spec["containers"]
    options = served(container["args"])
    assert options["host"] == "0.0.0.0"
    assert not options["insecure"]
    assert container["ports"][0]["containerPort"] == options["port"]
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    labels = pod["spec"]["template"]["metadata"]["labels"]
    assert pod["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["selector"].items() <= labels.items()
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] > options["grace"] + pause
    probes = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert probes == {
        "startupProbe": "/health/live", "livenessProbe": "/health/live", "readinessProbe": "/health/ready"
    }  # fmt: skip
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert {one["name"] for one in spec["volumes"]} == set(mounts)
    assert mounts["project"] == str(options["project"])
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert spec["securityContext"]["runAsNonRoot"]
    user = dict(instructions())["USER"].partition(":")[0]
    assert str(spec["securityContext"]["runAsUser"]) == user
    assert {"cpu", "memory"} == set(container["resources"]["requests"])
