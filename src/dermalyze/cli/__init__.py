"""The command line. `table` declares each command once; a file a group holds its options; `program` runs it.

Nothing is imported here before it is asked for: `import dermalyze` reads the table for the public names.
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
