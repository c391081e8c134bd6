"""Progress on standard error: a bar with rate and time left on a terminal, one line of estimated time elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

LEARN_S, LONG_S = 2.0, 10.0  # how long a rate is watched; less than the second still to do is not worth a line


def say(message: str) -> None:
    """Print one line for a person on standard error (standard output belongs to results)."""
    print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(description: str, total: int, unit: str = "images", *, cost: bool = False) -> Iterator[Callable[[int], None]]:
    """Yield `advance(n)`; shows a bar with rate and time left on a terminal.

    Args:
        description: what is being done.
        total: how many there are.
        unit: of what.
        cost: without a terminal, print the estimated time once, after two seconds, if it is long.

    >>> with progress("decode", 2) as advance:
    ...     advance(2)
    """
    if not sys.stderr.isatty():
        started, done, told = time.monotonic(), 0, not cost

        def advance(n: int) -> None:
            nonlocal done, told
            done += n
            spent = time.monotonic() - started
            if not told and done and spent >= LEARN_S:
                told, left = True, spent / done * (total - done)
                if left >= LONG_S:
                    say(f"{description}: {total} {unit}, {done / spent:.0f} per second, about {left:.0f} s left")

        yield advance
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
