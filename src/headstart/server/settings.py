"""What a server is told when it starts: one frozen value, checked before anything is opened."""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass
from pathlib import Path

from headstart import apikeys
from headstart.errors import InputError

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]{1,255}")
_FLAGS: dict[str, tuple[str, float, str]] = {  # setting -> its flag, what its value is multiplied by there, the unit
    "port": ("--port", 1, ""),
    "grpc_port": ("--grpc-port", 1, ""),
    "max_wait": ("--max-wait", 1000, "milliseconds"),
    "cache": ("--cache-mb", 2**-20, "MB"),
    "max_body": ("--max-body", 2**-20, "MB"),
    "max_json": ("--max-json", 2**-20, "MB"),
    "max_inputs": ("--max-inputs", 1, "inputs"),
    "max_text": ("--max-text", 1, "letters"),
    "max_names": ("--max-names", 1, "names"),
}  # of others the unit is seconds
_HOST = re.compile(r"[A-Za-z0-9.\-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")


@dataclass(frozen=True)
class Settings:
    """Times are seconds, sizes bytes. What is absent here is not to be set."""

    project: Path
    host: str = "127.0.0.1"
    port: int = 8400  # 0: any free one
    models: tuple[str, ...] | None = None  # None: every model of the project, and its deployments
    workers: int = 1  # processes
    max_wait: float = 0.005  # a row waits so long at most for a fuller run
    deadline: float = 10.0  # of a request that names none
    queue: float = 5.0  # seconds of work that may wait
    max_body: int = 32 << 20  # of one request; a stream of lines has no end, each of its lines has this one
    max_json: int = 8 << 20
    max_inputs: int = 1024
    max_text: int = 1_000_000  # characters
    max_names: int = 10_000  # models asked by one request
    cache: int = 64 << 20  # of recent features
    log: str = "off"  # the prediction log: off, on, wait (a prediction is answered when its row is on the disk)
    log_inputs: bool = False
    log_format: str = "human"  # human, json
    insecure: bool = False  # serve others without a key
    hosts: tuple[str, ...] = ()  # further names by which browsers may call us
    cors: tuple[str, ...] = ()  # origins whose pages may call us
    grpc_port: int | None = None
    otel: bool = False
    header_time: float = 10.0  # a client gets so long to send the headers of a request,
    body_time: float = 30.0  # its body (longer for a long one that keeps coming),
    send_time: float = 30.0  # and to take what waits for it
    keep_alive: float = 30.0  # a connection without a request is kept so long
    grace: float = 30.0  # requests in flight get so long to finish when the server stops

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach `host`."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    def _said(self, name: str) -> str:
        """A setting as it was given: its flag, and its value in the flag's unit."""
        flag, times, unit = _FLAGS.get(name, (f"--{name.replace('_', '-')}", 1, "seconds"))
        return f"{flag} is {getattr(self, name) * times:g} {unit}".rstrip()

    def checked(self) -> Settings:
        """Itself if it can be served so. Raises InputError with what to change."""
        if self.log not in ("off", "on", "wait"):
            raise InputError(f"--log can be off, on or wait, not {self.log!r}.")
        if self.log_format not in ("human", "json"):
            raise InputError(f"--log-format can be human or json, not {self.log_format!r}.")
        for name in ("port", "grpc_port"):
            if not 0 <= (getattr(self, name) or 0) <= 65535:
                raise InputError(f"{self._said(name)}, and must be between 0 and 65535.")
        if not 1 <= self.workers <= 256:
            raise InputError(f"--workers is {self.workers}, and must be between 1 and 256.")
        for name in ("deadline", "queue", "header_time", "body_time", "send_time", "keep_alive"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"{self._said(name)}, and must be more than 0.")
        for name in ("max_wait", "grace", "cache"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InputError(f"{self._said(name)}, and must be 0 or more.")
        for name in ("max_body", "max_json", "max_inputs", "max_text", "max_names"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{self._said(name)}, and must be {'more than 0' if name == 'max_body' else '1 or more'}."
                )
        for origin in self.cors:
            if not _ORIGIN.fullmatch(origin):
                raise InputError(
                    f"--cors {origin[:80]!r} is no origin: write it like https://app.example.com (no path, no *)."
                )
        for host in self.hosts:
            if not _HOST.fullmatch(host):
                raise InputError(
                    f"--allow-host {host[:80]!r} is no host name: write it like models.example.com (no port, no path)."
                )
        if not (self.loopback or self.insecure or apikeys.Keyring.of(self.project).known):
            raise InputError(
                f"--host {self.host} lets other machines in, and this project has no API key. Make one with: "
                "headstart keys create NAME. Or say --insecure, and everybody who reaches the port may use the server."
            )
        return self
