"""What is asked of the models that are served, and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headstart.answers import Answers
from headstart.serving.served import Served

LIVE, CANARY, SHADOW = (
    "live",
    "canary",
    "shadow",
)  # who answered: the version in use, its challenger, or one that only listens


@dataclass(frozen=True, slots=True)
class Question:
    """Contents for some models. All of them read one modality."""

    contents: Sequence[str] | Sequence[bytes]
    names: tuple[str, ...]  # of deployments, in the order of the answers; () asks all that read such contents
    deadline: float  # time.monotonic() from which on nobody waits for the answer
    key: str | None = None  # what a canary is dealt by; without it the contents
    judge: bool = True  # say which contents are unlike the training data
    why: bool = False  # and what holds up each answer
    version: str | None = None  # only this version will do
    by: str | None = None  # id of the API key
    fresh: bool = False  # past the memory of recent inputs


@dataclass(frozen=True, slots=True)
class Said:
    """What one model says of all contents of a question."""

    name: str
    served: Served
    arm: str  # live | canary
    answers: Answers
    id: str  # prediction i is called f"{id}.{i}"
    why: list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What was said, in the order of the names asked."""

    said: tuple[Said, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)  # encode: with the wait for its turn; answer: the heads
    hits: int = 0  # contents whose features were remembered
