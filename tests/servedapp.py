"""The whole application over four small models, for the tests of its routes."""

import shutil
from contextlib import contextmanager

from starlette.testclient import TestClient

import clientserver
import headstart
from conftest import sentences
from headstart.server.app import build
from headstart.server.gate import Gate
from headstart.server.service import open_service
from headstart.server.settings import Settings

_MADE = []


def project(tmp_path_factory):
    """topics in two versions, tags, size, colours; made once, to be copied by whoever changes it."""
    if not _MADE:
        _MADE.append(made(tmp_path_factory.mktemp("served") / "project"))
    return _MADE[0]


def made(root):
    """The project, in a folder that is not there yet."""
    served = shutil.ignore_patterns("headstart.db*", "serving")  # what serving it elsewhere left behind
    shutil.copytree(clientserver.project(), root, ignore=served)
    headstart.fit(sentences(90, seed=1), name="topics", backbone="fake", project=root)
    return root


def copied(made, root):
    """A project of its own to change."""
    shutil.copytree(made, root)
    return root


@contextmanager
def client(root, *, gate=False, **settings):
    """A client of the application, which has `service`."""
    service = open_service(Settings(root, **settings))
    service.engine.start()
    app = inner = build(service)
    if gate:
        guarded = Gate(inner, service.settings, service.door, service.engine.busy)

        async def app(scope, receive, send):
            await (guarded if scope["type"] == "http" else inner)(scope, receive, send)

    try:
        with TestClient(app, raise_server_exceptions=False, base_url="http://127.0.0.1") as found:
            found.service = service
            yield found
    finally:
        assert service.engine.close(10)
        if service.log is not None:
            service.log.close()
