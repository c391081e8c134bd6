"""What needs the model: logits and embedding of every image of every part, by the graph that is served."""

# Shapes: B images, H height, W width, N rows.

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermalyze.config.data import PARTS, PreprocessSpec
from dermalyze.config.experiment import ExperimentSpec, build_experiment
from dermalyze.core.artefact import Artefact
from dermalyze.core.atomic import resource_errors, sha256_bytes
from dermalyze.core.errors import ModelError, UsageError
from dermalyze.core.foreign import ForeignGraph
from dermalyze.core.progress import progress, say
from dermalyze.core.run import Run
from dermalyze.data.cache import cache_bytes, open_cache
from dermalyze.data.external import read_batches, set_name
from dermalyze.data.given import Given, scores_kind
from dermalyze.data.images import Preprocessing
from dermalyze.data.looks import ensure_looks
from dermalyze.data.manifest import read_classes, read_manifest, usable
from dermalyze.data.predictions import Predictions, read_predictions, write_predictions
from dermalyze.data.splitting import read_part
from dermalyze.data.store import ImageStore
from dermalyze.ops.recipes import apply_recipe


@dataclass(frozen=True)
class ProbeResult:
    """What was stored.

    Attributes:
        recipe: the inference recipe.
        images: images of each part.
        skipped: parts whose predictions were there already, from the same model and manifest.
        seconds: time spent on the others.
    """

    recipe: str
    images: dict[str, int]
    skipped: list[str]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return dict(self.__dict__)

    def lines(self) -> list[str]:
        """Lines for a person."""
        counts = ", ".join(f"{part} {n}" + (" (kept)" if part in self.skipped else "") for part, n in self.images.items())
        return [f"predictions by recipe {self.recipe}: {counts}; {self.seconds:.1f} s"]


def probe(run: Run, spec: ExperimentSpec, *, model: Path | None = None, sets: Sequence[str] = ()) -> ProbeResult:
    """Run the artefact over every part of the split; a part that is done for this model and manifest is left as it is.

    With `model`, run somebody else's ONNX classifier instead, one plain pass; `evaluate(predictions=...)` judges what it gives.

    Args:
        model: an ONNX file with one image input and a number for each class of the run, in the run's order of classes.
        sets: how its input is made, where the run's configuration does not say so: preprocess.size, kind, mean, std.

    Raises:
        UsageError: no export or no split yet, another process works in the run, or the input's size, mean or std is not known.
        DataError: an image or the manifest changed since it was prepared.
        ModelError: the artefact is refused, is older than the checkpoint, or gives NaN.
    """
    if sets and model is None:
        raise UsageError("--set belongs to: dermalyze probe RUN --model FILE.onnx; a run's own model is made as it was trained")
    with run.lock():
        run.probe_write()
        if model is not None:
            return _probe_foreign(run, spec, model, sets)
        recipe = spec.inference.recipe
        artefact = run.artefact(recipe, threads=spec.train.threads)
        preprocessing = Preprocessing.from_dict(artefact.preprocessing)
        frames: dict[str, pd.DataFrame] = {part: read_part(run, part) for part in PARTS if run.split_path(part).exists()}
        meta = {
            "classes": artefact.classes,
            "recipe": recipe,
            "model_sha256": artefact.model_sha256,
            "scores_sha256": artefact.record.scores_sha256,
            "manifest_sha256": run.manifest_hash(),
            "accepted_leak": artefact.record.accepted_leak,
        }
        todo = {p: frame for p, frame in frames.items() if not is_done(run, frame, {**meta, "set": p})}
        total = sum(map(len, todo.values()))
        started = time.monotonic()
        if todo:
            source = Source(run, spec, preprocessing)
            say(f"probe: {total} images by recipe {recipe}")
            with progress(f"probe ({recipe})", total) as advance:
                for part, frame in todo.items():
                    batches = source.batches(frame, spec.inference.batch_size)
                    stored = run_part(artefact, frame, batches, {**meta, "set": part}, total, advance)
                    write_predictions(run.predictions_path(part, recipe), stored)
                    total = 0  # the cost is said once
        ensure_looks(run, pd.concat(frames.values()), ImageStore.open(spec.data), workers=spec.data.workers)
        images = {str(part): len(frame) for part, frame in frames.items()}
        return ProbeResult(recipe, images, [p for p in images if p not in todo], time.monotonic() - started)


def _probe_foreign(run: Run, spec: ExperimentSpec, model: Path, sets: Sequence[str]) -> ProbeResult:
    if strange := [text for text in sets if not text.startswith("preprocess.")]:
        raise UsageError(f"--set {strange[0]}: only preprocess.size, kind, crop_ratio, mean and std say how an image is put in")
    if model.suffix.lower() != ".onnx" or not model.is_file():
        raise UsageError(
            f"{model.name}: not an ONNX file; export the model to one file that ends in .onnx (docs/cli.md says how)"
        )
    classes, name = read_classes(run), set_name(model)
    with resource_errors(model.name):
        data = model.read_bytes()
    graph = ForeignGraph(data, model.name, classes=len(classes), threads=spec.train.threads)
    wanted = build_experiment(spec.model_dump(mode="json"), run.root.name, sets).preprocess
    preprocessing = _input_of(graph, wanted)
    say(f"probe: {model.name} on {preprocessing.height} x {preprocessing.width} px; classes in the order {', '.join(classes)}")
    frames: dict[str, pd.DataFrame] = {part: read_part(run, part) for part in PARTS if run.split_path(part).exists()}
    total, started = sum(map(len, frames.values())), time.monotonic()
    source, values = Source(run, spec, preprocessing), {}
    with progress(f"probe ({name})", total, cost=True) as advance:
        for part, frame in frames.items():
            done = []
            for batch in source.batches(frame, spec.inference.batch_size):
                done.append(graph.run(batch, preprocessing.mean, preprocessing.std))
                advance(len(batch))
            values[part] = np.concatenate(done)
    table = pd.concat([frame.assign(part=part) for part, frame in frames.items()], ignore_index=True)
    every = np.concatenate(list(values.values()))
    sha256, labels = sha256_bytes(data), label_indices(table, classes)
    ids = table["image_id"].astype(str).tolist()
    given = Given(name, sha256, ids, classes, every, scores_kind(every), table[["image_id"]])
    for part in frames:
        rows = np.flatnonzero(table["part"] == part)
        stored = given.predictions(
            rows, labels[rows], table["group"].iloc[rows].astype(str).tolist(), set=part, model_sha256=sha256,
            model=f"an ONNX graph (SHA-256 {sha256[:12]}…)", manifest_sha256=run.manifest_hash(),
            preprocessing=preprocessing.as_dict(),
        )  # fmt: skip
        write_predictions(run.predictions_path(part, f"by-{name}"), stored)
    say(
        f"taken as {given.kind}; next: dermalyze evaluate {run.root} --predictions {run.predictions_path('test', f'by-{name}')}"
    )
    return ProbeResult(f"by-{name}", {part: len(frame) for part, frame in frames.items()}, [], time.monotonic() - started)


def _input_of(graph: ForeignGraph, wanted: PreprocessSpec) -> Preprocessing:
    """How an image is put into a foreign graph: nothing is guessed but what the graph itself says.

    Raises:
        UsageError: its size, mean or std stands nowhere.
        ModelError: a size that no image is brought to.
    """
    if graph.size is None and wanted.size is None:
        raise UsageError(f"{graph.name}: takes any size; say which: --set preprocess.size=224")
    if graph.normalised and (wanted.mean is None or wanted.std is None):
        raise UsageError(
            f"{graph.name}: takes normalised pixels; say how, for example: --set preprocess.mean=[0.485,0.456,0.406] "
            "preprocess.std=[0.229,0.224,0.225]"
        )
    blank = (0.5, 0.5, 0.5)  # of pixels that the graph normalises itself: not used
    found = Preprocessing.resolve(wanted, size=graph.size or (8, 8), mean=blank, std=blank)
    if graph.size is not None and (found.height, found.width) != graph.size:
        if wanted.size is not None:
            say(f"{graph.name} takes {graph.size[0]} x {graph.size[1]} px; preprocess.size {wanted.size} is not used")
        found = replace(found, height=graph.size[0], width=graph.size[1])
    return found


def run_part(
    artefact: Artefact,
    frame: pd.DataFrame,
    batches: Iterable[NDArray[np.uint8]],
    meta: dict[str, Any],
    total: int,
    advance: Callable[[int], None],
) -> Predictions:
    """One part's predictions.

    Args:
        artefact: the model.
        frame: N rows with image_id, group and label.
        batches: their images (B, H, W, 3) uint8, in order.
        meta: with `recipe` and `set`.
        total: images of all parts, to say what that costs after the first batch; 0: say nothing.
        advance: is told how many images are done.
    """
    logits: list[NDArray[np.float32]] = []
    embeddings: list[NDArray[np.float32]] = []
    for batch in batches:
        begun = time.monotonic()
        logits_BC, embedding_BD = apply_recipe(meta["recipe"], artefact.run, batch)
        if total and not logits:
            say(f"probe: about {(time.monotonic() - begun) / len(batch) * total:.0f} s for the model")
        logits.append(logits_BC)
        embeddings.append(embedding_BD)
        advance(len(batch))
    return Predictions(
        ids=frame["image_id"].astype(str).tolist(),
        groups=frame["group"].astype(str).tolist(),
        labels=label_indices(frame, artefact.classes),
        logits=np.concatenate(logits),
        embedding=np.concatenate(embeddings),
        meta=meta,
    )


def label_indices(frame: pd.DataFrame, classes: Sequence[str]) -> NDArray[np.int64]:
    """(N,) class index of each row.

    Raises:
        ModelError: a label that the model doesn't know.
    """
    index = {name: i for i, name in enumerate(classes)}
    if unknown := sorted(set(frame["label"]) - set(index)):
        raise ModelError(f"the model has no class for labels {unknown}; it has {list(classes)}; train on this split")
    return np.array([index[name] for name in frame["label"]], dtype=np.int64)


def is_done(run: Run, frame: pd.DataFrame, meta: dict[str, Any]) -> bool:
    """Whether the part's file is there, undamaged, and of this model, manifest, recipe and these images."""
    path = run.predictions_path(meta["set"], meta["recipe"])
    if not path.exists():
        return False
    try:
        known = read_predictions(path)
    except ModelError as error:
        say(f"{error}: doing so")
        return False
    return known.meta == meta and known.ids == frame["image_id"].astype(str).tolist()


class Source:
    """Pixels at the network's size: from the training's memory map where it is used, else decoded on the way.

    Args:
        run: for its manifest, in whose order the map is made.
        spec: for `data` and the `train.cache` settings.
        preprocessing: the artefact's.
    """

    def __init__(self, run: Run, spec: ExperimentSpec, preprocessing: Preprocessing) -> None:
        self.store, self.preprocessing = ImageStore.open(spec.data), preprocessing
        self.workers = spec.data.workers
        self.map: NDArray[np.uint8] | None = None
        frame = usable(read_manifest(run)).reset_index(drop=True)
        settings = spec.train
        fits = cache_bytes(len(frame), preprocessing) <= settings.cache_limit_gib * 2**30
        if settings.cache == "memory_map" or (settings.cache == "auto" and fits):
            self.row_of = {image_id: row for row, image_id in enumerate(frame["image_id"])}
            paths, hashes = frame["path"].tolist(), frame["sha256"].tolist()
            self.map = open_cache(self.store, paths, hashes, preprocessing, workers=spec.data.workers)

    def batches(self, frame: pd.DataFrame, size: int) -> Iterator[NDArray[np.uint8]]:
        """Batches (B, H, W, 3) uint8 of the frame's images, in order.

        Raises:
            DataError: an image is gone or changed; named by its hash.
        """
        if self.map is not None:
            rows = np.array([self.row_of[image_id] for image_id in frame["image_id"]], dtype=np.int64)
            for start in range(0, len(rows), size):
                yield self.map[rows[start : start + size]]
            return
        yield from read_batches(self.store, frame, self.preprocessing, size=size, workers=self.workers)
