"""What the gate knows of a request, for the routes: its id, its deadline, its key."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass

from starlette.types import Scope

from headstart.apikeys import Key

SCOPE = "headstart"  # where in the ASGI scope it is kept


@dataclass(frozen=True, slots=True)
class Context:
    """One request, as the gate let it in."""

    id: str  # comes back as X-Request-Id
    deadline: float  # time.monotonic() seconds
    key: Key | None = None  # None: no key was needed


def of(scope: Scope, timeout: float = 30.0) -> Context:
    """The context of a request; where no gate stands before the app, a new one with `timeout` seconds."""
    found = scope.get(SCOPE)
    if isinstance(found, Context):
        return found
    made = Context(uuid.uuid4().hex, time.monotonic() + timeout)
    scope[SCOPE] = made
    return made
