"""Options of the commands under Steps of a run; their help and examples are in `table`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import dermalyze
from dermalyze.cli.command import JsonOption, LeakOption, RunArgument, SetOption, call, command, show, stage


@command
def init(
    run: RunArgument,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="The experiment's YAML file; without it, every default.")
    ] = None,
    legacy: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="An older config.yaml (the Dermalyze document's keys).")
    ] = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    show(call("init", run, config=config, legacy=legacy, sets=sets or ()), as_json)


@command
def prepare(
    run: RunArgument,
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", metavar="FOLDER|ZIP...", help="The images, where the configuration names none."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    if data:
        for path in data:
            if not path.exists():
                raise dermalyze.UsageError(f"--data {path}: not there; relative paths start from the working folder")
        with dermalyze.Run.open(run).filled_data_path([str(path.absolute()) for path in data]):
            stage("prepare", run, as_json)
    else:
        stage("prepare", run, as_json)


@command
def audit(
    run: RunArgument,
    labels: Annotated[
        bool, typer.Option("--labels", help="Check every label with a model that has not seen the image.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    stage("audit", run, as_json, labels=labels)


@command
def split(run: RunArgument, as_json: JsonOption = False) -> None:
    stage("split", run, as_json)


@command
def train(
    run: RunArgument,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="PATH", help="A checkpoint of this run; default: the newest.")
    ] = None,
    accept_leak: LeakOption = None,
    as_json: JsonOption = False,
) -> None:
    stage("train", run, as_json, resume=resume, accept_leak=accept_leak)


@command
def export(
    run: RunArgument,
    int8: Annotated[
        bool, typer.Option("--int8", help="A smaller int8 artifact, if it predicts the same; after calibrate.")
    ] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="The same in half precision.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="The same with bfloat16 weights.")] = False,
    torch_export: Annotated[
        bool, typer.Option("--torch-export", help="The network alone as a torch.export program; after export.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    asked = [name for name, wanted in {"int8": int8, "fp16": fp16, "bf16": bf16}.items() if wanted]
    if len(asked) > 1:
        raise dermalyze.UsageError(f"--{asked[0]} and --{asked[1]} are both set; export once with each")
    stage("export", run, as_json, precision=asked[0] if asked else None, torch_export=torch_export)


@command
def score(
    run: RunArgument,
    recipes: Annotated[
        list[str] | None,
        typer.Option(
            "--recipes", metavar="NAME...", help="Further inference recipes to compare: plain, flips, tta, mc_dropout."
        ),
    ] = None,
    passes: Annotated[int, typer.Option("--passes", metavar="N", min=2, help="Forward passes of mc_dropout.")] = 20,
    ood: Annotated[
        list[Path] | None,
        typer.Option("--ood", metavar="FOLDER|NPZ...", help="Out-of-distribution images, to measure what is refused."),
    ] = None,
    corruptions: Annotated[
        int, typer.Option("--corruptions", metavar="N", min=0, help="Test images to score corrupted copies of.")
    ] = 0,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="FILE", help="Another model (.onnx, .safetensors), not its own.")
    ] = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    options = {"recipes": recipes, "passes": passes, "ood": ood or (), "corruptions": corruptions}
    stage("score", run, as_json, **options, model=model, sets=sets or ())


@command
def calibrate(run: RunArgument, as_json: JsonOption = False) -> None:
    stage("calibrate", run, as_json)


@command
def evaluate(
    run: RunArgument,
    on: Annotated[Path | None, typer.Option("--on", "--test-csv", metavar="FOLDER|CSV", help="Another labelled set.")] = None,
    images_dir: Annotated[
        Path | None, typer.Option("--images-dir", metavar="FOLDER", help="Its images, if they are not beside the CSV.")
    ] = None,
    label_map: Annotated[
        Path | None, typer.Option("--label-map", metavar="FILE", help="Labels of that set to classes.")
    ] = None,
    submission: Annotated[
        Path | None, typer.Option("--submission", metavar="FILE.csv", help="Probabilities as the ISIC challenges take them.")
    ] = None,
    recalibrate: Annotated[
        float | None,
        typer.Option("--recalibrate", metavar="SHARE", help="Fit a calibrator on this share of that set, measure on the rest."),
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", metavar="FILE", help="Of another model: image_id and a column per class.")
    ] = None,
    scores: Annotated[
        str | None,
        typer.Option("--scores", metavar="probabilities|one-vs-rest|logits", help="What FILE holds; default: detected."),
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Accept a FILE that lacks test images.")] = False,
    report_yaml: Annotated[
        Path | None, typer.Option("--report-yaml", metavar="FILE", help="What only the authors can report, for the checklists.")
    ] = None,
    accept_leak: LeakOption = None,
    as_json: JsonOption = False,
) -> None:
    refuse_mixed(on, images_dir, label_map, recalibrate, predictions, scores, partial, report_yaml)
    asked: dict[str, Any] = {"accept_leak": accept_leak, "submission": submission}
    if predictions is not None:
        alone = not dermalyze.Run(run).config_path.is_file()  # a folder for the report of a file that has labels of its own
        opened = dermalyze.Run(run) if alone else dermalyze.Run.open(run)
        spec = dermalyze.ExperimentSpec() if alone else opened.config()
        result = dermalyze.evaluate_predictions(opened, spec, predictions, scores=scores, partial=partial, **asked)
    else:
        opened = dermalyze.Run.open(run)
        spec = opened.config()
        if on is None:
            result = dermalyze.evaluate(opened, spec, report_yaml=report_yaml, **asked)
        elif recalibrate is None:
            result = dermalyze.evaluate_external(opened, spec, on, images=images_dir, label_map=label_map, **asked)
        else:
            result = dermalyze.recalibrate(opened, spec, on, recalibrate, images=images_dir, label_map=label_map, **asked)
    show(result, as_json)


def refuse_mixed(
    on: Path | None,
    images_dir: Path | None,
    label_map: Path | None,
    recalibrate: float | None,
    predictions: Path | None,
    scores: str | None,
    partial: bool,
    report_yaml: Path | None,
) -> None:
    """Refuse options of `evaluate` that do not go together.

    Raises:
        UsageError: with the remedy.
    """
    if predictions is not None and on is not None:
        raise dermalyze.UsageError("--predictions and --on exclude each other: name the predictions, or the set to predict")
    if predictions is None and (scores is not None or partial):
        raise dermalyze.UsageError("--scores and --partial belong to: --predictions FILE")
    if report_yaml is not None and (on is not None or predictions is not None):
        raise dermalyze.UsageError(
            "--report-yaml belongs to the report on the run's own test split; leave out --on and --predictions"
        )
    for option, value in (("--images-dir", images_dir), ("--label-map", label_map), ("--recalibrate", recalibrate)):
        if on is None and value is not None:
            raise dermalyze.UsageError(f"{option} belongs to another set: give that with --on FOLDER or --on FILE.csv")


@command
def run(
    config: Annotated[Path, typer.Argument(metavar="EXPERIMENT.YAML", help="The experiment.")],
    root: Annotated[Path | None, typer.Argument(metavar="RUN", help="The run folder; default: outputs/run_DATE_TIME.")] = None,
    sets: SetOption = None,
    accept_leak: LeakOption = None,
    as_json: JsonOption = False,
) -> None:
    show(call("run", config, root, sets=sets or (), accept_leak=accept_leak), as_json)
