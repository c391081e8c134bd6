"""Options of the commands under Choose and manage; their help and examples are in `table`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

import dermalyze
from dermalyze.cli.command import JsonOption, RunArgument, call, command, require_output, show, stage


@command
def advise(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="A run that is split: its data is counted.")] = None,
    images: Annotated[int | None, typer.Option("--images", metavar="N", help="Without a run: how many images.")] = None,
    classes: Annotated[int | None, typer.Option("--classes", metavar="N", help="Without a run: how many classes.")] = None,
    device: Annotated[str | None, typer.Option("--device", metavar="cpu|gpu", help="Default: what is here.")] = None,
    need: Annotated[
        str | None, typer.Option("--need", metavar="NEED", help="interpretability, speed, accuracy or edge.")
    ] = None,
    like: Annotated[str | None, typer.Option("--like", metavar="SET", help="pathmnist, chestmnist or dermamnist.")] = None,
    metadata: Annotated[bool, typer.Option("--metadata", help="Age, sex and site are available.")] = False,
    measure: Annotated[
        bool | None, typer.Option("--measure/--no-measure", help="Time the leaders here; default: for a run.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    opened = None if run is None else dermalyze.Run.open(run)
    options = {"images": images, "classes": classes, "device": device, "need": need, "like": like, "metadata": metadata}
    show(call("advise", opened, None if opened is None else opened.config(), **options, measure=measure), as_json)


@command
def models(
    action: Annotated[str, typer.Argument(metavar="list|show", help="What to do.")],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="show: the network.")] = None,
    as_json: JsonOption = False,
) -> None:
    show(call("models", action, name), as_json)


@command
def runs(
    action: Annotated[str, typer.Argument(metavar="list|show|diff|compare|tag|clean", help="What to do.")],
    words: Annotated[list[str] | None, typer.Argument(metavar="WORD", help="Folder, runs or tags; see below.")] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", metavar="TAG", help="tag: take a tag away.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="clean: delete without asking.")] = False,
    shared: Annotated[bool, typer.Option("--shared", help="compare: on the images that all test parts have.")] = False,
    by: Annotated[str, typer.Option("--by", metavar="image|lesion", help="compare: what counts as one case.")] = "image",
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.html", help="compare: write a page as well.")] = None,
    as_json: JsonOption = False,
) -> None:
    found = call("runs", action, words or (), remove=remove or (), yes=yes, shared=shared, by=by, out=out)
    show(found, as_json)
    if action == "clean" and found.values["items"] and not yes and not as_json:
        if not sys.stdin.isatty():
            typer.echo("nothing was removed; to remove it, add --yes", err=True)
        elif typer.confirm("Remove this?", err=True):
            show(call("runs", action, words or (), yes=True), as_json)


@command
def doctor(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the runs will be.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    found = call("doctor", folder)
    show(found, as_json)
    if not found.usable:
        raise typer.Exit(dermalyze.ResourceError.exit_code)


@command
def bench(
    run: RunArgument,
    num_batches: Annotated[int, typer.Option("--num-batches", metavar="N", min=1, help="Batches and steps to time.")] = 10,
    as_json: JsonOption = False,
) -> None:
    stage("bench", run, as_json, num_batches=num_batches)


@command
def schema(as_json: JsonOption = True) -> None:
    require_output()
    typer.echo(json.dumps(call("schema"), indent=2, ensure_ascii=False))
