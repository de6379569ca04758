"""Whether a base model's licence allows what is asked. What is not known is not allowed."""

from __future__ import annotations

from difflib import get_close_matches

from headstart.errors import InputError

# Licences of the SPDX list that allow commercial use without asking, by identifier in lower case.
COMMERCIAL = frozenset(
    [
        "0bsd",
        "afl-3.0",
        "apache-2.0",
        "artistic-2.0",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsd-3-clause-clear",
        "bsl-1.0",
        "cc-by-2.0",
        "cc-by-2.5",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc0-1.0",
        "cdla-permissive-1.0",
        "cdla-permissive-2.0",
        "ecl-2.0",
        "epl-2.0",
        "gpl-2.0",
        "gpl-3.0",
        "isc",
        "lgpl-2.1",
        "lgpl-3.0",
        "mit",
        "mpl-2.0",
        "ncsa",
        "ofl-1.1",
        "pddl",
        "postgresql",
        "unlicense",
        "wtfpl",
        "zlib",
        "agpl-3.0",
    ]
)
UNKNOWN = frozenset(("", "unknown", "other", "none", "noassertion"))


def refused(licence: str, wanted: str) -> str | None:
    """Why a licence is not among the wanted ones, or None when it is.

    wanted: "any"; "commercial", every licence known to allow commercial use; or a list "MIT, Apache-2.0".
    """
    name = licence.strip().lower()
    choice = [one.strip().lower() for one in wanted.split(",") if one.strip()]
    if choice == ["any"] or name in choice:
        return None
    if name in UNKNOWN:
        return "its licence is not known, and unknown means no"
    if "commercial" in choice:
        if name in COMMERCIAL:
            return None
        return f"its licence, {licence}, is not known to allow commercial use"
    return f"its licence is {licence}"


def checked(wanted: str) -> str:
    """The wish itself. Raises InputError where it is empty, or "any" or "commercial" misspelt."""
    choice = [one.strip().lower() for one in wanted.split(",") if one.strip()]
    if not choice:
        raise InputError("--licence is empty: give any, commercial, or a list such as 'MIT,Apache-2.0'.")
    for one in choice:
        meant = get_close_matches(one, ["any", "commercial"], 1, 0.75)
        if meant and one != meant[0] and one not in COMMERCIAL:
            raise InputError(f"no licence {one!r}. Did you mean {meant[0]!r}?")
    if "any" in choice and len(choice) > 1:
        raise InputError(f"--licence {wanted!r}: any allows every licence, so nothing can stand beside it.")
    return wanted
