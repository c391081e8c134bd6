"""The program: every command with its options, and the entry point."""

from __future__ import annotations

import functools
import io
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
import typer.main

from dermalyze.cli.command import app
from dermalyze.cli.table import GROUPS
from dermalyze.errors import UsageError

__all__ = ["app", "main", "program", "spread"]

for _group in GROUPS:
    import_module(f"dermalyze.cli.{_group.module}")


@functools.cache
def program() -> Any:
    """The parser of the whole command line."""
    return typer.main.get_command(app)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":  # a letter it lacks is shown by its number
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        words = with_run(words)
    except UsageError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    program()(spread(words), prog_name="dermalyze")


def with_run(words: list[str]) -> list[str]:
    """The words with the run of `--checkpoint FILE`, as the source documents write it, as the command's first argument.

    Args:
        words: of the command line. A run's checkpoint, or a name of the documents for it (`checkpoint_best.pt`), means the
            run whose folder it is in.

    Raises:
        UsageError: a checkpoint of another program, which would have to be unpickled.

    >>> with_run(["predict", "--checkpoint", "outputs/a/checkpoint_best.pt", "photo.jpg"])
    ['predict', 'outputs/a', 'photo.jpg']
    >>> with_run(["score", "--checkpoint=outputs/a"])
    ['score', 'outputs/a']
    """
    at = next((i for i, word in enumerate(words) if word == "--checkpoint" or word.startswith("--checkpoint=")), None)
    value = [] if at is None else words[at].split("=", 1)[1:] or words[at + 1 : at + 2]
    if not at or not value:
        return words
    file, end = Path(value[0]), at + (1 if "=" in words[at] else 2)
    root = file.parent if file.suffix in (".pt", ".pth", ".safetensors", ".json") else file
    root = root.parent if root.name == "checkpoints" else root
    if file.suffix in (".pt", ".pth") and file.is_file():
        raise UsageError(
            f"--checkpoint {file.name}: a pickle, which is never loaded; convert it: dermalyze import-weights {file}"
        )
    rest = [*words[:at], *words[end:]]
    return [rest[0], str(root), *rest[1:]]


def several(command: Any) -> dict[str, bool]:
    """Options of a command that take several values, and whether these must be assignments.

    They are those whose parameter is a list. Values that are no assignments could be mistaken for the words of an argument
    that takes any number, so beside one of these such an option is given once a value.

    >>> several(program().commands["score"])
    {'--recipes': False, '--ood': False, '--set': True}
    >>> several(program().commands["serve"])
    {}
    """
    endless = any(parameter.nargs == -1 for parameter in command.params)
    options = {
        name: parameter for parameter in command.params if getattr(parameter, "multiple", False) for name in parameter.opts
    }
    assigned = {name: "=" in (option.metavar or "") for name, option in options.items()}
    return {name: must for name, must in assigned.items() if must or not endless}


def spread(words: list[str]) -> list[str]:
    """Give each of several values its option: `--data a.zip b.zip`, `--recipes tta flips`, `--set a=1 b=2`.

    >>> spread(["prepare", "RUN", "--data", "a.zip", "b.zip", "--json"])
    ['prepare', 'RUN', '--data', 'a.zip', '--data', 'b.zip', '--json']
    >>> spread(["score", "RUN", "--ood", "films", "pages", "--corruptions", "3"])
    ['score', 'RUN', '--ood', 'films', '--ood', 'pages', '--corruptions', '3']
    >>> spread(["predict", "RUN", "--metadata", "age=55", "sex=male", "a.jpg"])
    ['predict', 'RUN', '--metadata', 'age=55', '--metadata', 'sex=male', 'a.jpg']
    >>> spread(["init", "--set", "seed=1", "train.epochs=2", "RUN"])
    ['init', '--set', 'seed=1', '--set', 'train.epochs=2', 'RUN']
    >>> spread(["controls", "RUN", "--only", "border", "shortcut", "--epochs", "4"])
    ['controls', 'RUN', '--only', 'border', '--only', 'shortcut', '--epochs', '4']
    """
    command = program().commands.get(next((word for word in words if not word.startswith("-")), ""))
    options = several(command) if command is not None else {}
    spread_words: list[str] = []
    option: str | None = None
    taken = 0
    for word in words:
        if word.startswith("-"):
            option, taken = (word, 0) if word in options else (None, 0)
        elif option is not None:
            more = not options[option] or re.match(r"[A-Za-z_][\w.]*=", word)
            if taken and more:
                spread_words.append(option)
            elif taken:
                option = None
            taken += 1
        spread_words.append(word)
    return spread_words
