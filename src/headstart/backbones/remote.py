"""Any server that speaks the OpenAI embeddings protocol, as a backbone: for bases whose owner shares features alone.

`Remote("https://host/v1", "model")` posts texts to https://host/v1/embeddings. Nobody can see such a model's weights,
so what stands for them is a probe: the vectors of three fixed texts, asked for once and kept in the cache folder. In
every process the probe is asked for again before the first text; where it no longer points the same way the model has
changed, and features made before and after must not be mixed: ModelError. Servers are not deterministic to the last
bit, so the comparison is by cosine; and what enters the fingerprint is coarse (see `signature`), so that a model that
was fitted on one machine is known again on another.

Texts go out in batches bounded by number and by letters. What may pass (429, 5xx, a broken connection) is tried again
after a pause that doubles, with jitter, or as long as the server's Retry-After says. The key is read from the
environment when a request is made and is in no message, card or file.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import math
import os
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from headstart import jsontext, tensors
from headstart.backbone import Card, Contents, Portable, Tap, cache_folder
from headstart.backbones import wire
from headstart.errors import InputError, ModelError, StorageError
from headstart.storage import write_file

PREFIX = "remote:"
PROBES = (
    "How do I reset my password?",
    "The second parcel came on Monday, wet through and torn open at one side.",
    "Обратите внимание: 27 % of 3,480 items, 明日まで, ont été livrés à temps.",
)
SAME = 0.999  # cosine to the kept probe; the noise of servers is far below
LONGEST = 32_000  # letters of a text that are sent, about 8,000 tokens: the most that such models read
TRIES = 6
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0  # seconds
PASSING = {408, 425, 429, 500, 502, 503, 504, 529}  # statuses that another try may cure
TOO_MUCH = {400, 413, 422}  # statuses that a smaller request may cure
CHANGED = "features from before and after do not go together. Fit the models that rest on it anew."

Floats = NDArray[np.float32]
_pace = threading.Lock()
_next: dict[str, float] = {}  # when the next request to a server may go out


class _Refused(InputError):
    """The server refused a request for good."""

    def __init__(self, status: int, said: str, message: str) -> None:
        self.status, self.said = status, said
        super().__init__(message)


@dataclass
class Spent:
    """What this process has had from a server: the sum over its answers."""

    requests: int = 0
    texts: int = 0
    tokens: int = 0
    price_per_million: float | None = None  # tokens

    @property
    def money(self) -> float | None:
        """The cost in the currency of the price, or None where no price was given."""
        return None if self.price_per_million is None else self.tokens / 1e6 * self.price_per_million

    def said(self) -> str:
        """In words."""
        money = "" if self.money is None else f", {self.money:.4f} at {self.price_per_million:g} a million"
        return f"{self.texts:,} texts in {self.requests:,} requests, {self.tokens:,} tokens{money}"


@dataclass(frozen=True)
class Remote:
    """A model behind a URL; its name, "remote:URL#MODEL", is all that a saved model needs to find it again (`named`).

    The key comes from the environment variable `key_env`, else HEADSTART_REMOTE_KEY, else, for api.openai.com alone,
    OPENAI_API_KEY; without one none is sent. `dimensions` asks for shortened vectors, where a server can do that.
    """

    url: str  # without the final /embeddings
    model: str
    key_env: str | None = None
    dimensions: int | None = None
    batch: int = 64  # texts in one request at most
    timeout: float = 60.0  # seconds for one request, all in all
    price_per_million: float | None = None  # tokens
    per_minute: int | None = None  # requests
    spent: Spent = field(default_factory=Spent, compare=False, repr=False)

    def __post_init__(self) -> None:
        _checked(self.url, self.model)
        if self.dimensions is not None and not 1 <= self.dimensions <= wire.WIDEST:
            raise InputError(f"dimensions must be from 1 to {wire.WIDEST:,}, not {self.dimensions}.")
        if self.batch < 1 or self.timeout <= 0 or (self.per_minute is not None and self.per_minute < 1):
            raise InputError("batch and per_minute must be at least 1, and timeout more than 0 seconds.")
        if self.price_per_million is not None and not (0 <= self.price_per_million < math.inf):
            raise InputError(f"a price must be 0 or more, not {self.price_per_million}.")
        self.spent.price_per_million = self.price_per_million

    @property
    def name(self) -> str:
        """What `named` takes."""
        return formatted(self.url, self.model, self.dimensions)

    @property
    def card(self) -> Card:
        """What is known of it. The first time on this machine the server is asked for its probe."""
        kept = self._known
        digest = signature(kept)
        server = urlsplit(self.url)
        parts = ["remote", server.netloc, server.path.rstrip("/"), self.model, self.dimensions, LONGEST, digest]
        return Card(
            name=self.name,
            modality="text",
            width=kept.shape[1],
            licence="unknown",
            source=f"{self.url} {self.model}",
            digest=digest,
            precision="float32",
            cut="top",
            fingerprint=hashlib.sha256(jsontext.write(parts).encode()).hexdigest(),
            widths=(kept.shape[1],),
        )

    @property
    def taps(self) -> tuple[Tap, ...]:
        """None: only what comes out at the top can be seen."""
        return ()

    def at(self, cut: str) -> Remote:
        """Itself at "top". Raises InputError for any other cut."""
        if cut != "top":
            raise InputError(f"no cut {cut!r} in {self.name}: a remote base shows only its top.")
        return self

    def portable(self) -> Portable:
        """Raises InputError: the weights are their owner's."""
        raise InputError(
            f"{self.name} cannot be exported or shrunk: its owner shares features, not weights. "
            "Fit on a base that is on this machine."
        )

    def encode(self, contents: Contents) -> Floats:
        """Features of n texts, (n, d) float32 of unit length; zeros for a text of nothing but spaces.

        Of a text 32,000 letters are sent. Raises InputError on what is no text, and where the server cannot be reached
        or refuses; ModelError where it answers nonsense or its model has changed.
        """
        texts = [self._text(i, content) for i, content in enumerate(contents)]
        rows = [i for i, text in enumerate(texts) if text.strip()]
        X = np.zeros((len(texts), (self._probed if rows else self._known).shape[1]), np.float32)
        for some in wire.batches([len(texts[i]) for i in rows], self.batch):
            X[[rows[j] for j in some]] = self._vectors([texts[rows[j]] for j in some])
        return X

    def _text(self, i: int, content: object) -> str:
        if not isinstance(content, str):
            raise InputError(f"text number {i} of the call is a {type(content).__name__}, not a str.")
        if any("\ud800" <= letter <= "\udfff" for letter in content):
            raise InputError(f"text number {i} of the call is not Unicode: a lone surrogate.")
        return content[:LONGEST]

    @cached_property
    def _kept(self) -> Floats | None:
        """The probe that was kept, (3, d), or None. Raises ModelError when the file is damaged."""
        path = self.probe
        if not path.is_file():
            return None
        kept = tensors.load(path).get("probe")
        if kept is None or kept.dtype != np.float32 or kept.ndim != 2 or len(kept) != len(PROBES):
            raise ModelError(f"{path} holds no probe of a remote model. Remove it.")
        return np.asarray(kept, np.float32)

    @cached_property
    def _probed(self) -> Floats:
        """The kept probe, found to be what the model says today; asked for and kept where there was none."""
        kept = self._kept
        now = self._vectors(PROBES)
        if kept is None:
            from safetensors.numpy import save

            try:
                self.probe.parent.mkdir(parents=True, exist_ok=True)
                write_file(self.probe, save({"probe": now}))
            except OSError as error:
                raise StorageError(f"{self.probe}: the probe of {self.name} could not be kept: {error}") from error
            self.__dict__["_kept"] = now
            return now
        cosine = float((kept * now).sum(1).min())
        if cosine < SAME:
            raise ModelError(
                f"{self.name} is no longer the model it was: for a text it has seen before its vector now has cosine "
                f"{cosine:.4f} to the one it gave then, and {SAME} is asked; {CHANGED} First remove its old probe, {self.probe}"
            )
        return kept

    @property
    def probe(self) -> Path:
        """Where the probe is kept."""
        name = hashlib.sha256(f"{self.name}\n{PROBES}".encode()).hexdigest()[:32]
        return cache_folder() / "remote" / f"{name}.safetensors"

    @property
    def _known(self) -> Floats:
        """The kept probe without asking again, or else a first one."""
        return self._probed if self._kept is None else self._kept

    def _vectors(self, texts: Sequence[str]) -> Floats:
        """(n, d) of unit length; a request that is too large for the server is halved."""
        try:
            return self._asked(texts)
        except _Refused as error:
            if error.status not in TOO_MUCH:
                raise
            if self._encoding == "base64" and re.search("encoding|base64", error.said):
                self.__dict__["_encoding"] = "float"
                return self._vectors(texts)
            if len(texts) == 1:
                raise
        half = len(texts) // 2
        return np.concatenate([self._vectors(texts[:half]), self._vectors(texts[half:])])

    def _asked(self, texts: Sequence[str]) -> Floats:
        """The vectors of one request, (n, d) of unit length."""
        asked: dict[str, Any] = {"model": self.model, "input": list(texts), "encoding_format": self._encoding}
        if self.dimensions is not None:
            asked["dimensions"] = self.dimensions
        kept = self._kept
        width = wire.WIDEST if kept is None else kept.shape[1]
        answer = self._insisted(jsontext.write(asked).encode(), (1 << 20) + len(texts) * width * 32)
        try:
            value = jsontext.parse(answer.decode("utf-8"))
            found = wire.vectors(value, len(texts))
            usage = value.get("usage")
            tokens = usage.get("total_tokens", usage.get("prompt_tokens", 0)) if isinstance(usage, dict) else 0
        except ValueError as error:
            said = wire.complaint(str(error).encode(), self._key())  # it may quote the answer
            raise ModelError(f"{self.name} gave an answer that cannot be used: {said}.") from None
        expected = self.dimensions or (None if kept is None else kept.shape[1])
        if expected is not None and found.shape[1] != expected:
            why = f"and {expected} were asked for." if self.dimensions else f"and {expected} before; {CHANGED}"
            raise ModelError(f"{self.name} answered {found.shape[1]} numbers a text, {why}")
        self.spent.requests += 1
        self.spent.texts += len(texts)
        self.spent.tokens += tokens if isinstance(tokens, int) and tokens > 0 else 0
        return found

    @cached_property
    def _encoding(self) -> str:
        """How vectors are asked for; "float" once the server has said that it knows no other."""
        return "base64"

    def _insisted(self, asked: bytes, most: int) -> bytes:
        """The body of the answer, after as many tries as may help."""
        if os.environ.get("HEADSTART_OFFLINE", "0").lower() not in ("", "0", "false", "no"):
            raise InputError(f"{self.name} is on a server, and HEADSTART_OFFLINE is set: no server is asked.")
        key = self._key()
        for tried in range(1, TRIES + 1):
            self._wait()
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (tried - 1)) * random.uniform(0.75, 1.25)
            try:
                status, headers, body = wire.posted(
                    self.url.rstrip("/") + "/embeddings", asked, key, self.timeout, most
                )
            except ssl.SSLCertVerificationError as error:
                raise InputError(f"{self.name}: its certificate is not valid: {error.verify_message}.") from None
            except (OSError, http.client.HTTPException) as error:
                said = wire.complaint(f"{type(error).__name__}: {error}".removesuffix(": ").encode(), key)
                if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
                    raise InputError(f"{self.name}: there is no such server. Look at the URL.") from None
            else:
                if status == 200:
                    return body
                said = wire.complaint(body, key)
                if status not in PASSING or "insufficient_quota" in said:
                    raise self._refused(status, said)
                said = f"status {status} {said}".strip()
                if (asked_for := wire.retry_after(headers.get("retry-after"))) is not None:
                    pause = asked_for + random.uniform(0, 0.1)
                    if pause > 2 * LONGEST_PAUSE:
                        raise InputError(
                            f"{self.name} asks for {pause:,.0f} seconds of patience ({said}). Try again then."
                        )
            if tried < TRIES:
                time.sleep(pause)
        raise InputError(
            f"{self.name} gave no answer in {TRIES} tries; the last: {said}. Try again later, or look at the URL."
        )

    def _refused(self, status: int, said: str) -> _Refused:
        """The error for a status that no other try can cure."""
        if status in (401, 403):
            name = self.key_env or "HEADSTART_REMOTE_KEY"
            what = "refuses the key" if self._key() else "asks for a key"
            return _Refused(status, "", f"{self.name} {what} (status {status}): set the environment variable {name}.")
        if 300 <= status < 400:
            return _Refused(
                status,
                said,
                f"{self.name} sends us elsewhere (status {status}), which is not followed: give the final URL.",
            )
        if status == 404:
            said = f"no such model or URL. {said}"
        return _Refused(status, said, f"{self.name} refused (status {status}): {said.strip() or 'no reason given.'}")

    def _wait(self) -> None:
        """Wait until one more request keeps within `per_minute`."""
        if self.per_minute is None:
            return
        with _pace:
            now = time.monotonic()
            at = max(now, _next.get(self.url, 0.0))
            _next[self.url] = at + 60 / self.per_minute
        time.sleep(at - now)

    def _key(self) -> str | None:
        """The key from the environment. Raises InputError where `key_env` was said and is not set, or it is no key."""
        if self.key_env is not None:
            name = self.key_env
        elif os.environ.get("HEADSTART_REMOTE_KEY", "").strip() or urlsplit(self.url).hostname != "api.openai.com":
            name = "HEADSTART_REMOTE_KEY"
        else:
            name = "OPENAI_API_KEY"
        key = os.environ.get(name, "").strip()
        if self.key_env is not None and not key:
            raise InputError(f"{self.name} needs a key in the environment variable {name}, which is not set.")
        if not re.fullmatch(r"[\x21-\x7e]*", key):
            raise InputError(
                f"the environment variable {name} holds no key: there are spaces or strange letters in it."
            )
        return key or None


def named(name: str) -> Remote:
    """The backbone of "remote:URL#MODEL" or, with its vectors shortened, "remote:URL#MODEL;dimensions=256".

    Asks no server. Raises InputError.
    """
    url, model, dimensions = parsed(name)
    return Remote(url, model, dimensions=dimensions)


def formatted(url: str, model: str, dimensions: int | None = None) -> str:
    """("https://host/v1", "m") -> "remote:https://host/v1#m"; with dimensions "...#m;dimensions=256". Raises InputError."""
    _checked(url, model)
    return f"{PREFIX}{url}#{model}" + (f";dimensions={dimensions}" if dimensions else "")


def parsed(name: str) -> tuple[str, str, int | None]:
    """The inverse of `formatted`: (url, model, dimensions). Raises InputError."""
    found = re.fullmatch(rf"{PREFIX}([^#]+)#([^#;]+)(?:;dimensions=([1-9]\d{{0,4}}))?", name)
    if not found:
        raise InputError(f"{name!r} names no remote base: write remote:URL#MODEL, as in remote:https://host/v1#model.")
    url, model, dimensions = found.groups()
    _checked(url, model)
    return url, model, int(dimensions) if dimensions else None


def _checked(url: str, model: str) -> None:
    """Raise InputError unless texts and a key may be sent to the URL, and the model's name is one."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise InputError(f"a remote base's URL cannot be read: {error}.") from None
    if parts.username is not None or parts.password is not None:
        raise InputError("a remote base's URL must hold no user or password: a key belongs in HEADSTART_REMOTE_KEY.")
    if not host or not re.fullmatch(r"[\x21-\x7e]+", url) or "#" in url or "?" in url:
        raise InputError(f"{url!r} is no URL of a remote base: write https://host/v1, without ? and #.")
    if parts.scheme != "https" and not (parts.scheme == "http" and _loopback(host)):
        raise InputError(f"{url}: texts and keys are sent by https alone, or by http to this machine itself.")
    if not re.fullmatch(r"[^\s#;]{1,200}", model) or not model.isprintable():
        raise InputError(f"{model[:80]!r} is no name of a remote model.")


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def signature(probe: Floats) -> str:
    """A coarse digest of a probe (3, d) that the noise of servers does not change, but another model does.

    Twelve sums of all its numbers with fixed random signs (each about N(0, 3)), rounded to halves. Noise of relative
    size e changes one of them with probability of about 35 e; another model agrees in all with one of about 1e-10.
    """
    v = np.asarray(probe, np.float64).ravel()
    bits = np.frombuffer(hashlib.shake_128(b"headstart remote probe 1").digest(-(-12 * len(v) // 8)), np.uint8)
    signs = np.unpackbits(bits)[: 12 * len(v)].reshape(12, -1) * 2.0 - 1.0  # (12, 3 d)
    rounded = np.rint(2 * (signs @ v)).astype(np.int64).tolist()
    return hashlib.sha256(f"{probe.shape} {rounded}".encode()).hexdigest()
