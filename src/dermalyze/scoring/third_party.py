"""Somebody else's model over the images of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermalyze.artifact.third_party import ThirdPartyGraph
from dermalyze.config.data import PARTS, DataSpec, PreprocessSpec
from dermalyze.config.train import TrainSpec
from dermalyze.core.atomic import resource_errors, sha256_file
from dermalyze.core.progress import progress, say
from dermalyze.core.run import Run
from dermalyze.data.manifest import read_classes
from dermalyze.data.pixels import Source
from dermalyze.data.splitting import read_part
from dermalyze.errors import UsageError
from dermalyze.imaging.decode import Preprocessing
from dermalyze.imaging.samples import IMAGE, size_of
from dermalyze.scoring.external_set import set_name
from dermalyze.scoring.imported_predictions import ImportedPredictions
from dermalyze.scoring.predictions import write_predictions
from dermalyze.scoring.score_kind import kind_of
from dermalyze.tasks.base import Task

KINDS = {".onnx": "an ONNX graph", ".safetensors": "a network of timm"}


class ThirdPartyModel(Protocol):
    """Somebody else's classifier; see `dermalyze.artifact.third_party.ThirdPartyGraph`."""

    name: str
    normalized: bool

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) that it takes, px; None where it takes any."""
        ...

    def run(self, images_BHW3: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float64]:
        """Numbers (B, C) of images."""
        ...


def open_graph(model: Path, *, classes: int, threads: int | None) -> ThirdPartyGraph:
    """An ONNX file.

    Raises:
        UsageError: not such a file.
        ModelError: the graph is refused.
    """
    if model.suffix.lower() != ".onnx" or not model.is_file():
        raise UsageError(
            f"{model.name}: neither an ONNX file (.onnx) nor weights of a timm network (.safetensors); export the model to one "
            "file (docs/reference/cli.md says how)"
        )
    with resource_errors(model.name):
        data = model.read_bytes()
    return ThirdPartyGraph(data, model.name, classes=classes, threads=threads)


def score_third_party(
    run: Run,
    model: Path,
    wanted: PreprocessSpec,
    opened: Callable[..., ThirdPartyModel] = open_graph,
    *,
    task: Task,
    data: DataSpec,
    train: TrainSpec,
    size: int,
) -> tuple[str, dict[str, int]]:
    """Run somebody else's classifier over every part, one plain pass, and store its predictions as `by-NAME`.

    Args:
        run: split.
        model: a file; the model has one image input and a number for each class of the run, in the run's order of classes.
        wanted: how its input is made: size, kind, crop_ratio, mean, std.
        opened: opens it.
        task, data, train: of the run.
        size: images in memory at a time.

    Returns:
        the name under which they stand, and the images of each part.

    Raises:
        UsageError: no such file, or the input's size, mean or std is not known.
        ModelError: the model is refused, or gives NaN.
    """
    classes, name = read_classes(run), set_name(model)
    graph = opened(model, classes=len(classes), threads=train.threads)
    preprocessing = _input_of(graph, wanted)
    pixels = f"{preprocessing.height} x {preprocessing.width} px"
    say(f"score: {model.name} on {pixels}; {task.nouns} in the order {', '.join(classes)}")
    frames: dict[str, pd.DataFrame] = {part: read_part(run, part) for part in PARTS if run.split_path(part).exists()}
    source, values = Source(run, data, train, preprocessing, size=size), {}
    with progress(f"score ({name})", sum(map(len, frames.values())), cost=True) as advance:
        for part, frame in frames.items():
            done = []
            for batch in source.batches(frame):
                done.append(graph.run(batch[IMAGE], preprocessing.mean, preprocessing.std))
                advance(size_of(batch))
            values[part] = np.concatenate(done)
    table = pd.concat([frame.assign(part=part) for part, frame in frames.items()], ignore_index=True)
    every = np.concatenate(list(values.values()))
    sha256, labels = sha256_file(model), task.targets(table["label"].astype(str).tolist(), classes)
    ids = table["image_id"].astype(str).tolist()
    given = ImportedPredictions(name, sha256, ids, classes, every, kind_of(every, task), table[["image_id"]], task=task)
    for part in frames:
        rows = np.flatnonzero(table["part"] == part)
        stored = given.predictions(
            rows, labels[rows], table["group"].iloc[rows].astype(str).tolist(), set=part, model_sha256=sha256,
            model=f"{KINDS[model.suffix.lower()]} (SHA-256 {sha256[:12]}…)", manifest_sha256=run.manifest_hash(),
            preprocessing=preprocessing.as_dict(),
        )  # fmt: skip
        write_predictions(run.predictions_path(part, f"by-{name}"), stored)
    say(
        f"taken as {given.kind}; next: dermalyze evaluate {run.root} --predictions {run.predictions_path('test', f'by-{name}')}"
    )
    return f"by-{name}", {part: len(frame) for part, frame in frames.items()}


def _input_of(graph: ThirdPartyModel, wanted: PreprocessSpec) -> Preprocessing:
    """How an image is put into a third-party graph: nothing is guessed but what the graph itself says.

    Raises:
        UsageError: its size, mean or std stands nowhere.
        ModelError: a size that no image is brought to.
    """
    if graph.size is None and wanted.size is None:
        raise UsageError(f"{graph.name}: takes any size; say which: --set preprocess.size=224")
    if graph.normalized and (wanted.mean is None or wanted.std is None):
        raise UsageError(
            f"{graph.name}: takes normalized pixels; say how, for example: --set preprocess.mean=[0.485,0.456,0.406] "
            "preprocess.std=[0.229,0.224,0.225]"
        )
    blank = (0.5, 0.5, 0.5)  # of pixels that the graph normalizes itself: not used
    found = Preprocessing.resolve(wanted, size=graph.size or (8, 8), mean=blank, std=blank)
    if graph.size is not None and (found.height, found.width) != graph.size:
        if wanted.size is not None:
            say(f"{graph.name} takes {graph.size[0]} x {graph.size[1]} px; preprocess.size {wanted.size} is not used")
        found = replace(found, height=graph.size[0], width=graph.size[1])
    return found
