"""What the commands share: the application, their registration, common options, and how a result is printed."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import dermalyze
from dermalyze.cli.failures import explain
from dermalyze.cli.table import COMMANDS, GROUPS
from dermalyze.errors import DermalyzeError, ResourceError

if TYPE_CHECKING:
    from dermalyze.core.result import Result


class GroupedHelp(TyperGroup):
    """Help with one heading a group of commands."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the tables of commands."""
        width = max(map(len, COMMANDS))
        for group in GROUPS:
            with formatter.section(group.title):
                formatter.write_dl([(command.name.ljust(width), command.help) for command in group.commands])


def examples(*lines: str) -> str:
    """The end of a help page, unwrapped."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


app = typer.Typer(
    name="dermalyze",
    cls=GroupedHelp,
    help="Train, evaluate and serve classifiers of medical images. Not for diagnosis.",
    epilog=examples("dermalyze run experiment.yaml outputs/first", "dermalyze predict outputs/first photo.jpg"),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def command(body: Callable[..., None]) -> Callable[..., None]:
    """Register the command of a function's name; every expected failure becomes one line and an exit code."""
    row = COMMANDS[body.__name__.replace("_", "-")]

    @functools.wraps(body)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            body(*args, **kwargs)
        except (DermalyzeError, OSError, MemoryError, ImportError) as error:
            line, code = explain(error, row.name)
            if line is None:
                raise
            typer.echo(f"error: {line}", err=True)
            raise typer.Exit(code) from None

    app.command(row.name, help=row.help, epilog=examples(*row.lines))(guarded)
    return guarded


def call(name: str, *args: Any, **kwargs: Any) -> Any:
    """Call the library function of a command, imported now."""
    return getattr(dermalyze, COMMANDS[name].public)(*args, **kwargs)


def require_output() -> None:
    """Refuse a closed standard output (`>&-`) where what is printed is the result.

    Raises:
        ResourceError: it is closed.
    """
    if sys.stdout is None:
        raise ResourceError("standard output is closed, so the result would be lost; write it to a file: > FILE")


def show(result: Result, as_json: bool) -> None:
    """Print a result for a machine or for a person.

    Raises:
        ResourceError: it is for a machine, and standard output is closed.
    """
    if as_json:
        require_output()
        typer.echo(json.dumps(result.as_dict(), ensure_ascii=False, allow_nan=False))
    else:
        for line in result.lines():
            typer.echo(line)


def stage(name: str, root: Path, as_json: bool, **kwargs: Any) -> None:
    """Run one stage on a run folder."""
    run = dermalyze.Run.open(root)
    show(call(name, run, run.config(), **kwargs), as_json)


RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE...", help="Change settings, for example train.epochs=20."),
]
LeakOption = Annotated[
    str | None,
    typer.Option("--accept-leak", metavar="REASON", help="Accept that data leaks; the reason is shown on every result."),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(dermalyze.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Options of the program itself."""
