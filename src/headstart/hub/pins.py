"""What was fetched once, from which commit and with which digests: pinned at the first download, checked ever after.

The file pins.json lies beside the installed backbones and outlives them: a backbone that is removed and added again is
the same one, or is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart import jsontext
from headstart.backbone import cache_folder
from headstart.errors import ModelError, StorageError
from headstart.storage import write_file

FORMAT = 1
_DIGEST = re.compile(r"[0-9a-f]{64}")


def place() -> Path:
    """Where the pins are kept."""
    return cache_folder() / "backbones" / "pins.json"


def _read() -> dict[str, Any]:
    path = place()
    if not path.exists():
        return {"format": FORMAT, "revisions": {}, "digests": {}}
    try:
        found = jsontext.parse(path.read_text("utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']!r}, and {FORMAT} is known")
        for source, revision in found["revisions"].items():
            if not isinstance(revision, str) or not isinstance(source, str):
                raise ValueError(f"{source!r} has no revision")
        for source, digests in found["digests"].items():
            for name, digest in digests.items():
                if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
                    raise ValueError(f"{source!r}: {name!r} has no digest")
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} is damaged ({error}). Look at it; remove it to trust the next download anew."
        ) from error
    return dict(found)


def revision(source: str) -> str | None:
    """The commit that a source without a revision, "hf:owner/name", was pinned to."""
    found = _read()["revisions"].get(source)
    return str(found) if found is not None else None


def files(source: str, revision: str) -> dict[str, str]:
    """The digests of the files that were taken of a source at a commit: name -> sha256."""
    return dict(_read()["digests"].get(f"{source}@{revision}", {}))


def check(source: str, revision: str, digests: Mapping[str, str]) -> None:
    """Raise ModelError when a file of this source and commit had another digest before."""
    for name, before in files(source, revision).items():
        now = digests.get(name, before)
        if now != before:
            raise ModelError(
                f"{name} of {source} at {revision[:12]} has changed: its sha256 was {before} at the first download and "
                f"is {now} now. A commit never changes: do not trust this source. To trust it all the same, remove its "
                f"lines from {place()}."
            )


def pin(source: str, revision: str, digests: Mapping[str, str], *, follow: bool) -> None:
    """Keep the digests; with `follow`, the source without a revision means this commit from now on."""
    check(source, revision, digests)
    found = _read()
    if follow:
        found["revisions"][source] = revision
    kept = found["digests"].setdefault(f"{source}@{revision}", {})
    kept.update(digests)
    try:
        place().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{place().parent}: could not be made: {error.strerror}.") from error
    write_file(place(), (jsontext.write(found, indent=1) + "\n").encode())
