"""Progress on standard error: rate and time left for a person, silence for a pipe."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


def say(message: str) -> None:
    """Print one line for a person on standard error (standard output belongs to results)."""
    print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(description: str, total: int, unit: str = "images") -> Iterator[Callable[[int], None]]:
    """Yield `advance(n)`; shows a bar with rate and time left on a terminal, one closing line elsewhere.

    >>> with progress("decode", 2) as advance:
    ...     advance(2)
    """
    if not sys.stderr.isatty():
        yield lambda n: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Task as RichTask
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: RichTask) -> Text:
            return Text(f"{task.speed:.0f} {unit}/s" if task.speed else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda n: bar.advance(task, n)
