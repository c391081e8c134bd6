"""Options of the commands under Predict and serve; their help and examples are in `table`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

import dermalyze
from dermalyze.cli.command import JsonOption, call, command, require_output, show


def assignment(word: str) -> tuple[str, str]:
    """A name and its value.

    >>> assignment("site=lower extremity")
    ('site', 'lower extremity')
    """
    name, equals, value = word.partition("=")
    if not name or not equals:
        raise dermalyze.UsageError(f"--metadata {word}: write NAME=VALUE, for example age=55")
    return name, value


class Counted:
    """Iterate over rows and count them."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self.source, self.rows = rows, 0

    def __iter__(self) -> Iterator[Any]:
        for row in self.source:
            self.rows += 1
            yield row


class Format(StrEnum):
    """Forms of answers."""

    table = "table"
    jsonl = "jsonl"
    csv = "csv"


class Provider(StrEnum):
    """What computes the network."""

    auto = "auto"
    onnxruntime = "onnxruntime"
    openvino = "openvino"


SensitivityOption = Annotated[
    float | None,
    typer.Option("--sensitivity", metavar="S", help="Use the operating point measured for it; default: the model's first."),
]


@command
def predict(
    asked: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] IMAGE",
            help="A run or artifact (default: the package's small model), then files, folders, CSV, zip, - for standard input.",
        ),
    ],
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.table,
    no_names: Annotated[bool, typer.Option("--no-names", help="Hide file names, which may identify a person.")] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Images in memory at a time.")] = 32,
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", min=1, help="CPU threads; default: one per core.")
    ] = None,
    prevalence: Annotated[
        Path | None, typer.Option("--prevalence", metavar="FILE", help="YAML: the share of each class where you work.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", metavar="NAME=VALUE...", help="Metadata of patient and lesion: age=55 sex=male."),
    ] = None,
    sensitivity: SensitivityOption = None,
    top: Annotated[
        int | None, typer.Option("--top-k", metavar="K", min=1, help="List so many classes, in the table and in JSON lines.")
    ] = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="For programs: class and probabilities of refused images too; no result.")
    ] = False,
    image_2: Annotated[
        str | None, typer.Option("--image-2", metavar="IMAGE", help="The second image of the sample, for a model of two.")
    ] = None,
    explain: Annotated[
        Path | None, typer.Option("--explain", metavar="DIR", help="Write each image there with its heat map.")
    ] = None,
    provider: Annotated[
        Provider, typer.Option("--provider", help="What computes the network; auto measures both.")
    ] = Provider.onnxruntime,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format jsonl.")] = False,
) -> None:
    require_output()
    from dermalyze.config.base import read_mapping
    from dermalyze.core.progress import say
    from dermalyze.serve.predictor.output import write
    from dermalyze.serve.predictor.packaged import FOLDER, TOLD, told_apart

    model, images = told_apart(asked)
    if not images:
        raise dermalyze.UsageError(f"{model.name} is a model; name the images to classify")
    if model == FOLDER:
        say(TOLD)
    shares = read_mapping(prevalence, "of each class to its share, such as mel: 0.03") if prevalence is not None else None
    if scores and not as_json and form is Format.table:
        raise dermalyze.UsageError("--scores is for programs; add --format jsonl or --format csv")
    if top is not None and not as_json and form is Format.csv:
        raise dermalyze.UsageError("--top-k is for the table and JSON lines; the CSV has the probability of every class")
    known = dict(map(assignment, metadata or ()))
    given: dict[str, Any] = {"prevalence": shares, "metadata": known, "image_2": image_2, "explain": explain}
    given |= {"sensitivity": sensitivity, "scores": scores, "provider": provider.value}
    answers = call("predict", model, images, batch_size=batch_size, threads=threads, **given)
    counted = Counted(answers.rows)
    shown = {
        "classes": answers.classes,
        "task": answers.task,
        "points": answers.points,
        "format": "jsonl" if as_json else form.value,
    }
    errors = write(counted, sys.stdout, **shown, top=top, names=not no_names)
    if counted.rows == 0:
        raise dermalyze.DataError("no image found; name image files, or a folder, zip or CSV that holds some")
    if errors == counted.rows:
        raise dermalyze.DataError(
            f"no image was answered ({errors} of {counted.rows} could not be read); fix what their lines name"
        )
    if errors:
        say(f"{errors} of {counted.rows} images could not be read; their lines say why")


@command
def serve(
    models: Annotated[
        list[Path] | None,
        typer.Argument(metavar="MODEL", help="Runs or artifacts; the first is the default. None: the package's small model."),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", help="0 takes a free one.")] = 8000,
    hosts: Annotated[
        list[str] | None, typer.Option("--allow-host", metavar="NAME", help="A name it may be called by; * allows all.")
    ] = None,
    origins: Annotated[
        list[str] | None, typer.Option("--allow-origin", metavar="URL", help="A page elsewhere that may post to it.")
    ] = None,
    keys_file: Annotated[
        Path | None, typer.Option("--keys-file", metavar="FILE", help="API keys, one per line; else DERMALYZE_API_KEYS.")
    ] = None,
    queue: Annotated[int | None, typer.Option("--queue", metavar="N", help="Requests that may wait; default 8.")] = None,
    body_mib: Annotated[int | None, typer.Option("--body-mib", metavar="MIB", help="Largest request; default 32.")] = None,
    deadline_s: Annotated[
        float | None, typer.Option("--deadline", metavar="SECONDS", help="Until a request is given up; default 30.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", help="CPU threads of one pass; default: half of the cores.")
    ] = None,
    sensitivity: SensitivityOption = None,
    provider: Annotated[
        Provider, typer.Option("--provider", help="What computes the network; auto measures both.")
    ] = Provider.onnxruntime,
    as_json: Annotated[bool, typer.Option("--json", help="Print the address as one JSON object once it listens.")] = False,
) -> None:
    from dermalyze.serve.predictor.packaged import FOLDER
    from dermalyze.serve.server.server import spec_of

    given = {"host": host, "port": port, "hosts": tuple(hosts or ()), "origins": tuple(origins or ())}
    limits = {"queue": queue, "body_mib": body_mib, "deadline_s": deadline_s, "threads": threads, "sensitivity": sensitivity}
    spec = spec_of({**given, **limits, "provider": provider.value})
    tell = (lambda address: typer.echo(json.dumps({"address": address}))) if as_json else None
    call("serve", models or [FOLDER], spec, keys_file=keys_file, started=tell)


@command
def verify(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run, or an artifact (its export folder).")],
    sha256: Annotated[
        str | None, typer.Option("--sha256", metavar="HASH", help="Of the published model: is it that one?")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    found = call("verify", model, sha256=sha256)
    show(found, as_json)
    if not found.passed:
        raise typer.Exit(dermalyze.ModelError.exit_code)


@command
def import_weights(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint as torch.save writes it.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The file to make.")],
    trust: Annotated[bool, typer.Option("--trust", help="Run the file's own code if it holds more than tensors.")] = False,
    as_json: JsonOption = False,
) -> None:
    show(call("import-weights", source, out, trust=trust), as_json)
