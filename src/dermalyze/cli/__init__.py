"""The command line: a table of commands, each a thin shell around the library function of the same name.

`table` declares each command once: name, function, help, examples, group. The public names of `dermalyze`, the help,
completion, `docs/reference/cli.md` and the stub come from it. One file per group holds the options. `program` runs a command
and turns an expected error into one line and an exit code (`failures`). Nothing heavy is imported before a command needs it.
To add a command, write a row in `table` and a function with its options in the file of its group, then run `make reference`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dermalyze.cli.program import app, main

__all__ = ["app", "main"]


def __getattr__(name: str) -> Any:
    """The program and its entry point, imported when they are first used."""
    if name not in __all__:
        raise AttributeError(f"module 'dermalyze.cli' has no attribute '{name}'")
    from dermalyze.cli import program

    return getattr(program, name)
