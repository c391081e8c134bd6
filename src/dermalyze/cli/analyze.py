"""Options of the commands under Analyze a run; their help and examples are in `table`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dermalyze.cli.command import JsonOption, LeakOption, RunArgument, command, stage

FeaturesOption = Annotated[
    str, typer.Option("--features", metavar="NAME", help="own (the run's network), or a name that embed stored.")
]


@command
def plot(run: RunArgument, as_json: JsonOption = False) -> None:
    stage("plot", run, as_json)


@command
def fit_check(run: RunArgument, as_json: JsonOption = False) -> None:
    stage("fit-check", run, as_json)


@command
def explain(
    run: RunArgument,
    images: Annotated[
        list[str] | None,
        typer.Option("--images", metavar="ID|FILE|FOLDER...", help="Default: mistakes, confusions, doubt, each class."),
    ] = None,
    methods: Annotated[
        list[str] | None, typer.Option("--methods", metavar="NAME...", help="Such as gradcam, rollout, occlusion; or all.")
    ] = None,
    compare: Annotated[
        list[Path] | None, typer.Option("--compare", metavar="RUN...", help="Further runs on the same test images.")
    ] = None,
    count: Annotated[int, typer.Option("--count", metavar="N", help="Test images on which maps are graded; 0: none.")] = 100,
    cases: Annotated[int, typer.Option("--cases", metavar="N", help="Images per section of the gallery.")] = 4,
    as_json: JsonOption = False,
) -> None:
    options = {"images": images or (), "methods": methods or (), "compare": compare or ()}
    stage("explain", run, as_json, **options, count=count, cases=cases)


@command
def embed(
    run: RunArgument,
    backbone: Annotated[str | None, typer.Option("--backbone", metavar="NAME", help="A timm network, from its hub.")] = None,
    weights: Annotated[Path | None, typer.Option("--weights", metavar="FILE", help="A local file with its sidecar.")] = None,
    clip: Annotated[
        Path | None, typer.Option("--clip", metavar="YAML", help="A CLIP-type model and prompts of the classes.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    stage("embed", run, as_json, backbone=backbone, weights=weights, clip=clip)


@command
def plot_embeddings(
    run: RunArgument,
    features: FeaturesOption = "own",
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="pca, tsne, or umap with its extra.")] = "tsne",
    by: Annotated[
        str, typer.Option("--by", metavar="NAME", help="Color by class, error, site, source, part, or the name of a class.")
    ] = "class",
    part: Annotated[str | None, typer.Option("--part", metavar="NAME", help="train, val, cal, test or all.")] = None,
    as_json: JsonOption = False,
) -> None:
    stage("plot-embeddings", run, as_json, features=features, method=method, by=by, part=part)


@command
def similar(
    run: RunArgument,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="One image.")],
    image_2: Annotated[
        Path | None, typer.Option("--image-2", metavar="IMAGE", help="The second image of the sample, for a model of two.")
    ] = None,
    k: Annotated[int, typer.Option("--k", metavar="N", min=1, help="Training cases to show, one per group.")] = 10,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="A sheet with the images: .png or .html.")] = None,
    as_json: JsonOption = False,
) -> None:
    stage("similar", run, as_json, image=image, image_2=image_2, k=k, out=out)


@command
def linear_probe(
    run: RunArgument, features: FeaturesOption = "own", accept_leak: LeakOption = None, as_json: JsonOption = False
) -> None:
    stage("linear-probe", run, as_json, features=features, accept_leak=accept_leak)
