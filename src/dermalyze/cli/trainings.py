"""Options of the commands under Train several times; their help and examples are in `table`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dermalyze.cli.command import JsonOption, RunArgument, SetOption, call, command, show, stage


@command
def ensemble(
    roots: Annotated[list[Path], typer.Argument(metavar="RUN... OUT", help="Finished runs, then the folder to make.")],
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="An experiment; its members are trained by seeds, and OUT alone is named."
        ),
    ] = None,
    members: Annotated[int, typer.Option("--members", metavar="N", min=2, help="With --config: how many to train.")] = 5,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    show(call("ensemble", *roots, config=config, members=members, sets=sets or ()), as_json)


@command
def compare(
    study: Annotated[Path, typer.Argument(metavar="STUDY.YAML", help="An experiment and its variants.")],
    out: Annotated[Path | None, typer.Argument(metavar="OUT", help="The folder; default: outputs/ and the name.")] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", metavar="N", min=1, help="Epochs of every training, for a rehearsal.")
    ] = None,
    sets: SetOption = None,
    cost_only: Annotated[bool, typer.Option("--cost-only", help="Measure what it will cost, and stop.")] = False,
    as_json: JsonOption = False,
) -> None:
    show(call("compare", study, out, epochs=epochs, sets=sets or (), cost_only=cost_only), as_json)


@command
def leakage(
    run: RunArgument,
    epochs: Annotated[int, typer.Option("--epochs", metavar="N", min=1, help="Epochs of each of the two trainings.")] = 10,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    stage("leakage", run, as_json, epochs=epochs, sets=sets or ())


@command
def controls(
    run: RunArgument,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="NAME...",
            help="Some of: shuffled, metadata, foreground, background, border, shortcut, planted.",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", metavar="N", min=1, help="Epochs of each training.")] = 6,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    stage("controls", run, as_json, only=only or (), epochs=epochs, sets=sets or ())
