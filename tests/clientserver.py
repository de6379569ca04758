"""A server of four small models for the tests that talk to it with the clients people have."""

import atexit
import functools
import io
import random
import shutil
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import uvicorn
from PIL import Image

import headstart
from conftest import sentences
from headstart.apikeys import Keyring
from headstart.server.app import build
from headstart.server.gate import Gate
from headstart.server.metrics import Metrics
from headstart.server.service import Service
from headstart.server.settings import Settings
from headstart.serving.engine import Engine

COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200)}
TEXTS = ["my apple fig", "iron zinc tin", "a wren", "the swan and the gold"]


def plain(colour, size=20):
    """A PNG of one colour."""
    file = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), colour, np.uint8)).save(file, "PNG")
    return file.getvalue()


@functools.cache
def project() -> Path:
    """A folder that is only read, made once a process, of the models

    topics (texts, three labels), tags (texts, several labels), size (texts, a number), colours (pictures).
    """
    root = Path(tempfile.mkdtemp(prefix="headstart-clients-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    draw, rows = random.Random(0), sentences(60)
    texts = [text for text, _ in rows]
    headstart.fit(texts, [label for _, label in rows], name="topics", backbone="fake", project=root)
    tags = [[label, "long"] if len(text) > 20 else [label] for text, label in rows]
    headstart.fit(texts, tags, name="tags", backbone="fake", project=root)
    headstart.fit(
        texts, [float(len(text)) for text in texts], name="size", task="regression", backbone="fake", project=root
    )
    shades = [(name, [max(0, c + draw.randrange(-25, 25)) for c in COLOURS[name]]) for name in list(COLOURS) * 20]
    pictures = [plain(colour) for _, colour in shades]
    headstart.fit(pictures, [name for name, _ in shades], name="colours", backbone="colours", project=root)
    return root


def serve(root: Path, **changed) -> Service:
    """A service whose models are loaded."""
    settings = Settings(root, **changed)
    metrics = Metrics()
    engine = Engine(root, models=settings.models, threads=2, limit=settings.queue, ran=metrics.ran)
    engine.start()
    return Service(engine, settings, Keyring.of(root), None, metrics)


@functools.cache
def app(service: Service) -> Gate:
    """Its routes behind the gate."""
    return Gate(build(service), service.settings, service.door, service.engine.busy)


class Live:
    """An app on a real port, in a thread, for as long as `with` lasts."""

    def __init__(self, asgi):
        self.server = uvicorn.Server(uvicorn.Config(asgi, port=0, log_level="warning", lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> str:
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            self.thread.join(0.01)
        return f"127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join(10)


def changed(service: Service, **settings) -> Service:
    """The same models under other settings."""
    return replace(service, settings=replace(service.settings, **settings))
