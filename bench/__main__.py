"""python -m bench [NAME ...]: run all benchmarks, or those named."""

from __future__ import annotations

import sys
from importlib import import_module

from bench.table import HERE, SHARED, keep

NAMES = sorted(
    p.stem
    for p in HERE.glob("*.py")
    if p.stem not in {"__init__", "__main__", "table", "peer", "load", "service", "usual"}
)


def main(names: list[str]) -> None:
    """Run benchmarks by name; each has TITLE and rows()."""
    if wrong := set(names) - set(NAMES):
        sys.exit(f"no benchmark {', '.join(sorted(wrong))}; there is {', '.join(NAMES)}")
    if not SHARED.is_dir():
        sys.exit(f"no real data: {SHARED} is absent (set HEADSTART_SHARED)")
    for name in names or NAMES:
        module = import_module(f"bench.{name}")
        print(f"{name}: {module.TITLE}", flush=True)
        rows = module.rows()
        for row in rows:
            print(f"  {row.work}: {row.measured}  [{row.target}]", flush=True)
        keep(name, module.TITLE, rows)


if __name__ == "__main__":
    main(sys.argv[1:])
