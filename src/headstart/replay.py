"""python -m headstart.replay FOLDER: load a model in a fresh process and answer its probes again.

Exit code 0 when it answers as it did when it was trained; else 2, with the reason on standard error.
"""

from __future__ import annotations

import sys
from pathlib import Path

from headstart.errors import HeadstartError
from headstart.model import load, replay


def main(arguments: list[str]) -> int:
    """Replay one folder."""
    try:
        result = replay(load(Path(arguments[0])))
    except HeadstartError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{result.probes} probes, features within {result.features:.1e}, answers within {result.answers:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
