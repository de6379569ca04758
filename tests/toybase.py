"""A backbone of random projections that can be cut: the deeper the tap, the more of the label its features hold."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from headstart.backbone import Card, Portable, Tap
from headstart.errors import ContentError, InputError

WIDTH = 12


@dataclass(frozen=True)
class Toy:
    """Texts such as "fruit 17": the first word is the class, the second only noise. An x cannot be read."""

    name: str = "toy"
    signal: tuple[float, ...] = (0.2, 0.6, 2.0)  # at each tap
    cut: str = "2"
    licence: str = "MIT"
    megabytes: float = 30.0
    asked: list = field(default_factory=list, compare=False)

    @property
    def taps(self):
        last = len(self.signal) - 1
        return tuple(Tap(str(i), WIDTH, int(1e6 * (i + 1)), (i + 1) / (last + 1)) for i in range(len(self.signal)))

    @property
    def card(self):
        parts = self.cut.split("+")
        deepest = max(int(part.removeprefix("max")) for part in parts)
        print_ = hashlib.sha256(repr((self.name, self.signal, self.cut)).encode()).hexdigest()
        size = int(self.megabytes * 1e6 * (deepest + 1) / len(self.signal))
        return Card(
            self.name, "text", WIDTH * len(parts), self.licence, "made", "0" * 64, "float32", self.cut, print_,
            (WIDTH,) * len(parts), None, 1_000_000 * (deepest + 1), size,
        )  # fmt: skip

    def at(self, cut):
        known = {f"{kind}{i}" for kind in ("", "max") for i in range(len(self.signal))}
        if not set(cut.split("+")) <= known:
            raise InputError(f"no cut {cut}")
        return Toy(self.name, self.signal, cut, self.licence, self.megabytes, self.asked)

    def portable(self) -> Portable:
        raise InputError("the toy has no network.")

    def encode(self, contents):
        self.asked.append((self.cut, len(contents)))
        wrong = [(i, "it is an x") for i, text in enumerate(contents) if text == "x"]
        if wrong:
            raise ContentError(wrong)
        found = []
        for part in self.cut.split("+"):
            rows = []
            for text in contents:
                seed = int.from_bytes(hashlib.sha256(f"{part} {text}".encode()).digest()[:4], "little")
                noise = np.random.default_rng(seed).normal(size=WIDTH)
                word = int.from_bytes(hashlib.sha256(text.split()[0].encode()).digest()[:4], "little")
                noise += self.signal[int(part.removeprefix("max"))] * np.random.default_rng(word).normal(size=WIDTH)
                rows.append(noise)
            X = np.array(rows, np.float32).reshape(-1, WIDTH)
            found.append(X / np.linalg.norm(X, axis=1, keepdims=True))
        return np.concatenate(found, axis=1) / np.float32(np.sqrt(len(found)))
