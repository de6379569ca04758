"""The report in a real browser: headless Chromium, driven over its DevTools pipe (NUL-separated JSON)."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

import example_facts
import test_pareto
from headstart import pareto
from headstart.report import render

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars --remote-debugging-pipe"
)


class Page:
    """One tab of one browser; `events` keeps what it reported."""

    def __init__(self, profile: pathlib.Path) -> None:
        assert CHROMIUM is not None
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # The browser reads commands from its descriptor 3 and answers on 4.
        shell = f'exec 3<&{to_browser} 4>&{from_browser}; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", CHROMIUM, *FLAGS.split(), f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        os.set_blocking(self._read, False)
        self._buffer, self._last, self._session = b"", 0, None
        self.events: list[dict[str, Any]] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._last:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _receive(self, seconds: float = 60) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            assert time.monotonic() < end, "the browser does not answer"
            assert self._process.poll() is None, "the browser ended"
            try:
                self._buffer += os.read(self._read, 1 << 20)
            except BlockingIOError:
                time.sleep(0.005)
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, path: pathlib.Path, *, width: int = 1200, dark: bool = False, media: str = "screen") -> None:
        """Load a file and wait until it is there."""
        self.events.clear()
        self("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self("Page.navigate", url=path.as_uri())
        while not any(e["method"] == "Page.loadEventFired" for e in self.events):
            self._receive()

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression, run from outside the page and its policy."""
        answer = self("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def picture(self, path: pathlib.Path) -> None:
        """The whole page as PNG."""
        height = self.value("document.documentElement.scrollHeight")
        width = self.value("innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)


pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome on this machine")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    page = Page(tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("reports")
    for name, facts in example_facts.ALL.items():
        (folder / f"{name}.html").write_text(render(facts()), encoding="utf-8")
    (folder / "select.html").write_text(pareto.page(test_pareto.selection(40)), encoding="utf-8")
    (folder / "alone.svg").write_text(pareto.picture(test_pareto.candidates(40), recommended=None), encoding="utf-8")
    return folder


NAMES = [*example_facts.ALL, "select"]
OPEN_ALL = "document.querySelectorAll('details').forEach(d => d.open = true)"


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_nothing_and_complains_of_nothing(page: Page, reports: pathlib.Path, name: str) -> None:
    page.open(reports / f"{name}.html")
    page.value("1")
    asked = {
        e["params"]["request"]["url"].split(":")[0] for e in page.events if e["method"] == "Network.requestWillBeSent"
    }
    assert asked <= {"file", "data"}
    assert (
        sum(e["method"] == "Network.requestWillBeSent" and e["params"]["type"] == "Document" for e in page.events) == 1
    )
    complaints = (
        "Log.entryAdded",
        "Runtime.exceptionThrown",
        "Runtime.consoleAPICalled",
        "Page.javascriptDialogOpening",
    )
    assert [e for e in page.events if e["method"] in complaints] == []


@pytest.mark.parametrize("width", [320, 360, 1440])
@pytest.mark.parametrize("name", NAMES)
def test_the_page_never_scrolls_sideways(page: Page, reports: pathlib.Path, name: str, width: int) -> None:
    page.open(reports / f"{name}.html", width=width)
    for _ in range(2):  # closed, then with everything opened
        assert page.value("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
        outside = "[...document.querySelectorAll('svg.plot text')].filter(t => {const r = t.getBoundingClientRect();"
        assert page.value(f"{outside} return r.right > innerWidth || r.left < 0}}).map(t => t.textContent)") == []
        page.value(OPEN_ALL)


@pytest.mark.parametrize("name", ["eight", "many", "several", "regression", "images"])
def test_words_of_a_picture_do_not_touch(page: Page, reports: pathlib.Path, name: str) -> None:
    page.open(reports / f"{name}.html", width=360)
    touching = """[...document.querySelectorAll('svg')].flatMap(s => {
        const boxes = [...s.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
        return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([b, q]) =>
            p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 3 && q.top < p.bottom - 3
        ).map(([b]) => a + ' | ' + b));
    })"""
    assert page.value(touching) == []


def test_hostile_strings_are_text(page: Page, reports: pathlib.Path) -> None:
    page.open(reports / "hostile.html")
    assert (
        page.value("document.querySelectorAll('script, img, iframe, object, embed, form, base, [onerror]').length") == 0
    )
    assert page.value("document.querySelectorAll('h1').length") == 1
    assert page.value("document.querySelector('h1').textContent") == example_facts.HOSTILE[0]
    assert page.value("document.title").startswith("\u2068<script>")
    shown = page.value("document.body.innerText")
    assert '"><img src=x onerror=alert(1)>' in shown
    assert "</title></style></svg><h1>broken out</h1>" in shown
    assert "⟨U+202E⟩evil" in shown


def test_a_direction_stays_in_its_place(page: Page, reports: pathlib.Path) -> None:
    """A Hebrew label is isolated: the page itself reads from left to right, the number after it stays after it."""
    page.open(reports / "hostile.html")
    row = "[...document.querySelectorAll('#labels ~ .body tr')].find(r => r.textContent.includes('שלום'))"
    assert page.value(f"getComputedStyle({row}).direction") == "ltr"
    assert page.value(f"getComputedStyle({row}.querySelector('bdi')).unicodeBidi").startswith("isolate")


def test_the_policy_is_in_force(page: Page, reports: pathlib.Path) -> None:
    page.open(reports / "eight.html")
    page.value(
        "void document.head.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    assert page.value("window.ran === undefined")
    page.value(
        "void document.body.append(Object.assign(document.createElement('img'), {src: 'https://example.invalid/x'}))"
    )
    page.value("new Promise(done => setTimeout(done, 50))")
    sent = [e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
    blocked = [
        e for e in page.events if e["method"] == "Network.loadingFailed" and e["params"].get("blockedReason") == "csp"
    ]
    assert blocked or not any("example.invalid" in url for url in sent)


def test_light_dark_and_print(page: Page, reports: pathlib.Path) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    page.open(reports / "eight.html")
    light = page.value(background)
    page.open(reports / "eight.html", dark=True)
    assert page.value(background) != light
    page.open(reports / "eight.html", dark=True, media="print")
    assert page.value(background) == light
    assert page.value("getComputedStyle(document.querySelector('nav')).display") == "none"


def test_pictures_have_names(page: Page, reports: pathlib.Path) -> None:
    page.open(reports / "eight.html")
    tree = page("Accessibility.getFullAXTree")["nodes"]
    names = [n["name"]["value"] for n in tree if n.get("role", {}).get("value") == "image" and not n.get("ignored")]
    assert len(names) == 3
    assert all(len(name) > 40 for name in names)
    roles = {n["role"]["value"] for n in tree if "role" in n}
    assert {"banner", "main", "contentinfo", "navigation", "table", "rowheader", "columnheader"} <= roles


@pytest.mark.parametrize("dark", [False, True])
def test_names_in_the_picture_of_a_choice_do_not_touch(page: Page, reports: pathlib.Path, dark: bool) -> None:
    """Measured with the browser's own letters, at the size the picture has there; axis words too."""
    page.open(reports / "select.html", dark=dark)
    touching = """(() => {
        const boxes = [...document.querySelectorAll('svg.pareto text')].map(t => [t.textContent, t.getBoundingClientRect()]);
        return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([b, q]) =>
            p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 3 && q.top < p.bottom - 3
        ).map(([b]) => a + ' | ' + b));
    })()"""
    assert page.value(touching) == []
    outside = """(() => {
        const frame = document.querySelector('svg.pareto').getBoundingClientRect();
        return [...document.querySelectorAll('svg.pareto text')].filter(t => {
            const r = t.getBoundingClientRect();
            return r.left < frame.left - 1 || r.right > frame.right + 1 || r.top < frame.top || r.bottom > frame.bottom;
        }).map(t => t.textContent);
    })()"""
    assert page.value(outside) == []
    assert page.value("document.querySelectorAll('svg.pareto .label').length") > 5


def test_the_picture_of_a_choice_is_drawn_in_the_page_s_colours(page: Page, reports: pathlib.Path) -> None:
    colours = """[...document.querySelectorAll('svg.pareto .paper, svg.pareto .label, svg.pareto .dot')]
        .map(e => getComputedStyle(e).fill).filter((c, i, all) => all.indexOf(c) === i)"""
    ink = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    seen = []
    for dark in (False, True):
        page.open(reports / "select.html", dark=dark)
        assert set(page.value(ink)) <= set(page.value(colours))
        seen.append(page.value(colours))
    assert not set(seen[0]) & set(seen[1])


def test_the_picture_of_a_choice_stands_by_itself(page: Page, reports: pathlib.Path) -> None:
    page.open(reports / "alone.svg", dark=True)
    assert page.value("document.documentElement.tagName") == "svg"
    assert page.value("getComputedStyle(document.querySelector('.paper')).fill") == "rgb(21, 24, 27)"
    assert page.value("document.documentElement.getBoundingClientRect().width") <= 820


@pytest.mark.parametrize("width", [320, 1200])
def test_thumbnails_are_drawn_and_named(page: Page, reports: pathlib.Path, width: int) -> None:
    page.open(reports / "images.html", width=width)
    page.value(OPEN_ALL)
    broken = "[...document.images].filter(i => !i.complete || i.naturalWidth === 0 || i.getBoundingClientRect().width !== 96)"
    assert page.value(f"{broken}.length") == 0
    assert page.value("document.images.length") > 20
    assert page.value("getComputedStyle(document.images[0]).objectFit") == "contain"
    tree = page("Accessibility.getFullAXTree")["nodes"]
    names = [n["name"]["value"] for n in tree if n.get("role", {}).get("value") == "image" and not n.get("ignored")]
    assert sum("looks like" in name for name in names) == 11
    assert sum("taken for" in name for name in names) == page.value("document.images.length") - 11


def test_captions_stay_within_their_column(page: Page, reports: pathlib.Path) -> None:
    """A long file name without a space breaks instead of running into its neighbour."""
    page.open(reports / "images.html", width=320)
    page.value(OPEN_ALL)
    wider = "[...document.querySelectorAll('.thumbs li')].filter(e => e.scrollWidth > e.clientWidth + 1)"
    assert page.value(f"{wider}.map(e => e.textContent)") == []
    columns = "getComputedStyle(document.querySelector('.thumbs')).gridTemplateColumns.split(' ').length"
    assert page.value(columns) == 2
