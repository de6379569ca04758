"""The demo: from a small file of support tickets to a model, in under a minute.

Run it with: make demo
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TICKETS = HERE / "tickets"
PROJECT = Path("demo")


def headstart(*arguments: str) -> None:
    """Run one headstart command as a user would, showing it first."""
    shown = " ".join(f'"{a}"' if " " in a else a for a in arguments)
    print(f"\n$ headstart {shown}", flush=True)
    done = subprocess.run([sys.executable, "-m", "headstart", *arguments])
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    """Fit, predict with reasons, verify, and say where the report is."""
    to = ("--project", str(PROJECT))
    headstart("fit", str(TICKETS / "tickets.csv"), "--test", str(TICKETS / "test.csv"), "--name", "tickets", *to)
    for line in (TICKETS / "new.txt").read_text("utf-8").splitlines()[:4]:
        headstart("predict", "tickets", line, "--why", *to)
    headstart("verify", "tickets", *to)
    headstart("report", "tickets", *to)


if __name__ == "__main__":
    main()
