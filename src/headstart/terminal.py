"""What the command line prints: words for a person, JSON for a script, a progress line while it works."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def say(line: str = "") -> None:
    """Print a line with rich markup."""
    console().print(line, highlight=False, soft_wrap=True)


def console(*, stderr: bool = False) -> Console:
    """A rich console, imported at its first use."""
    from rich.console import Console

    return Console(stderr=stderr)


def plain(text: object) -> str:
    """Text from a user's file, made safe for a terminal: no escape sequences, no markup, one line."""
    from rich.markup import escape

    return escape("".join(ch if ch.isprintable() else " " for ch in str(text)))


def print_json(value: Any) -> None:
    """Print one JSON object on one line."""
    sys.stdout.write(json.dumps(value, ensure_ascii=not _utf8(), allow_nan=False) + "\n")


def _utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def percent(value: float) -> str:
    """0.934 -> '93.4'."""
    return f"{100 * value:.1f}"


def figures(task: str, found: dict[str, Any]) -> str:
    """The figures of a test in a line."""
    if task == "regression":
        return (
            f"R² {found['r2']:.3f} ({found['low']:.3f} to {found['high']:.3f}), mean absolute error "
            f"{found['mae']:.4g} (always the median: {found['baseline_mae']:.4g}), n = {found['n']:,}"
        )
    line = (
        f"accuracy {percent(found['accuracy'])} % ({percent(found['low'])} to {percent(found['high'])}), "
        f"macro F1 {percent(found['macro_f1'])} %"
    )
    if "micro_f1" in found:
        line += f", micro F1 {percent(found['micro_f1'])} %"
    return line + f", n = {found['n']:,}"


def show_verdict(sentences: list[str]) -> None:
    """Print a verdict, its first sentence strong."""
    for i, sentence in enumerate(sentences):
        say(f"[bold]{plain(sentence)}[/]" if i == 0 else f"  {plain(sentence)}")
    say()


def show_prediction(row: dict[str, Any]) -> None:
    """Print one prediction with its reasons."""
    if row.get("value") is not None:
        say(f"[bold]{row['value']:.6g}[/]")
    elif "labels" in row:
        say(f"[bold]{plain(', '.join(row['labels'])) or 'no label applies'}[/]")
    else:
        say(f"[bold]{plain(row['label'])}[/]  {percent(row['probability'])} %")
    if row["unknown"]:
        say("  [yellow]unknown: this is unlike the training data; do not rely on the answer[/]")
    for name, probability in sorted(row.get("probabilities", {}).items(), key=lambda item: -item[1]):
        say(f"  {percent(probability):>6} %  {plain(name)}")
    why = row.get("why")
    if not why:
        return
    if why.get("regions"):
        places: dict[str, float] = {}  # regions that lie close together have one name: the strongest is said
        for region in why["regions"]:
            places.setdefault(region["place"], region["drop"])
        say("  [dim]regions that matter[/]  " + ", ".join(f"{place} ({drop:+.2f})" for place, drop in places.items()))
    elif "regions" in why:
        say("  [dim]no region of it matters on its own[/]")
    if why.get("words"):
        say("  [dim]words that matter[/]  " + ", ".join(f"{plain(w['text'])} ({w['drop']:+.2f})" for w in why["words"]))
    if why["nearest"]:
        say("  [dim]nearest training examples[/]")
    for near in why["nearest"]:
        say(f"    {near['similarity']:.2f}  [bold]{plain(near['label'])}[/]  {plain(near['text'][:100])}")


class Progress:
    """A progress line on standard error, when a person is watching; calling it reports (what, done, total)."""

    def __init__(self, *, quiet: bool) -> None:
        self.bar: Any = None
        self.tasks: dict[str, Any] = {}
        if not quiet and sys.stderr.isatty():
            from rich import progress

            self.bar = progress.Progress(
                progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn(),
                progress.TimeRemainingColumn(), console=console(stderr=True), transient=True,
            )  # fmt: skip

    def __enter__(self) -> Progress:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Move the line of `what` to `done` of `total`."""
        if not self.bar:
            return
        if what not in self.tasks:
            self.tasks[what] = self.bar.add_task(what, total=total)
        self.bar.update(self.tasks[what], completed=done, total=total)
