"""Scores of images that are no part of the set: out-of-distribution images, and corrupted copies of the test split."""

# Shapes: B images, H height, W width, N rows, C classes, D width of the embedding.

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermalyze.artifact.artifact import Artifact
from dermalyze.calibration.recipes import apply_recipe
from dermalyze.core.progress import progress, say
from dermalyze.core.run import Run
from dermalyze.data.pixels import Source
from dermalyze.errors import ModelError, UsageError
from dermalyze.imaging.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from dermalyze.imaging.decode import Preprocessing
from dermalyze.imaging.samples import Array, Batch, size_of, take, with_images
from dermalyze.rng import permutation
from dermalyze.scoring.ood_images import EACH, SYNTHETIC, OodImage, name_of, read_ood_images, synthetic
from dermalyze.scoring.predictions import Predictions, read_predictions, write_predictions
from dermalyze.tasks.base import TASKS


def score_synthetic(run: Run, artifact: Artifact, meta: dict[str, Any], *, seed: int, size: int) -> int:
    """Score the synthetic out-of-distribution images, unless that is done; how many there are."""
    meta = {**meta, "set": "synthetic", "kinds": list(SYNTHETIC), "each": EACH, "seed": seed, "labelled": False}
    known = read_done(run.foreign_path("synthetic", meta["recipe"]))
    if known is not None and known.meta == meta:
        return len(known)
    preprocessing = Preprocessing.from_dict(artifact.preprocessing)
    return _write_ood(run, artifact, list(synthetic(preprocessing, seed=seed)), meta, size)


def score_ood_images(
    run: Run, artifact: Artifact, paths: Sequence[Path], meta: dict[str, Any], *, seed: int, size: int
) -> dict[str, int]:
    """Score sets of out-of-distribution images, folders or MedMNIST files; how many each has."""
    preprocessing, counts = Preprocessing.from_dict(artifact.preprocessing), {}
    for path in paths:
        images = list(read_ood_images(path, preprocessing, seed=seed))
        counts[name_of(path)] = _write_ood(run, artifact, images, {**meta, "set": name_of(path), "labelled": False}, size)
    return counts


def check_ood_names(paths: Sequence[Path]) -> None:
    """Refuse sets that could not be told apart.

    Raises:
        UsageError: two of one name, or one named like what is made here.
    """
    names = {name_of(path) for path in paths}
    if len(names) < len(paths) or names & {"synthetic", *SYNTHETIC}:
        raise UsageError(
            f"--ood {' '.join(path.name for path in paths)}: each set needs a name of its own, and other than "
            f"synthetic, {', '.join(SYNTHETIC)}; rename one"
        )


def _write_ood(run: Run, artifact: Artifact, pictures: list[OodImage], meta: dict[str, Any], size: int) -> int:
    """Score out-of-distribution images; their group is their kind, and their label says nothing."""
    names = [
        one.name for one in artifact.inputs if one.is_image
    ]  # in every place: that one is missing must not tell them apart
    stacks = (np.stack([p.pixels for p in pictures[i : i + size]]) for i in range(0, len(pictures), size))
    batches = (dict.fromkeys(names, images) for images in stacks)
    with progress(f"score out-of-distribution images: {meta['set']}", len(pictures), cost=True) as advance:
        logits, embedding = score(artifact, meta["recipe"], batches, advance)
    stored = Predictions(
        ids=[p.image_id for p in pictures],
        groups=[p.kind for p in pictures],
        labels=TASKS[artifact.record.task].unlabelled(len(pictures), len(artifact.classes)),
        logits=logits,
        embedding=embedding,
        meta=meta,
    )
    write_predictions(run.foreign_path(meta["set"], meta["recipe"]), stored)
    return len(pictures)


def score_corrupted(
    run: Run, artifact: Artifact, source: Source, test: pd.DataFrame, count: int, meta: dict[str, Any], *, seed: int
) -> int:
    """Score every corruption in every severity of a seeded sample of the test split; how many images that is."""
    frame = test.iloc[spread_sample(test["label"].astype(str).tolist(), count, seed)]
    grid = [(kind, severity) for kind in CORRUPTIONS for severity in SEVERITIES]
    names = frame["image_id"].astype(str).tolist()
    ids = [f"{name}/{kind}/{severity}" for name in names for kind, severity in grid]
    strengths = {kind: list(values) for kind, (_, values) in CORRUPTIONS.items()}
    path, meta = run.corrupted_path(meta["recipe"]), {**meta, "set": "corrupted test", "seed": seed, "kinds": strengths}
    known = read_done(path)
    if known is not None and known.meta == meta and known.ids == ids:
        return len(frame)

    def batches() -> Iterator[dict[str, Array]]:
        samples = (take(batch, slice(i, i + 1)) for batch in source.batches(frame) for i in range(size_of(batch)))
        for name, sample in zip(names, samples, strict=True):
            copies = {key: np.repeat(values, len(grid), axis=0) for key, values in sample.items()}
            yield with_images(
                copies,
                lambda images, name=name: np.stack(  # type: ignore[misc]
                    [
                        corrupt(pixels, kind, severity, image_id=name, seed=seed)
                        for pixels, (kind, severity) in zip(images, grid, strict=True)
                    ]
                ),
            )

    say(f"score: {len(CORRUPTIONS)} corruptions in {len(SEVERITIES)} severities of {len(frame)} test images: {len(ids)} copies")
    with progress("score corrupted copies", len(ids), cost=True) as advance:
        logits, embedding = score(artifact, meta["recipe"], batches(), advance)
    groups = frame["group"].astype(str).tolist()
    labels = TASKS[artifact.record.task].targets(frame["label"].tolist(), artifact.classes)
    labels, groups = np.repeat(labels, len(grid), axis=0), np.repeat(groups, len(grid)).tolist()
    stored = Predictions(ids, groups, labels, logits, embedding, meta)
    write_predictions(path, stored)
    return len(frame)


def spread_sample(labels: Sequence[str], count: int, seed: int) -> NDArray[np.int64]:
    """Ascending rows of a random sample in which every class has its share, to the nearest image.

    >>> labels = ["nv"] * 90 + ["df"] * 10
    >>> [labels[i] for i in spread_sample(labels, 10, seed=0)].count("df")
    1
    """
    drawn = permutation(seed, 0, len(labels))
    by_class = drawn[np.argsort(np.array(labels)[drawn], kind="stable")]
    count = min(count, len(labels))
    return np.sort(by_class[((np.arange(count) + 0.5) * len(labels) / max(1, count)).astype(np.int64)])


def score(
    artifact: Artifact,
    recipe: str,
    batches: Iterable[Batch],
    advance: Callable[[int], None],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits (N, C) and embedding (N, D) of batches; what they lack is missing."""
    logits: list[NDArray[np.float32]] = []
    embeddings: list[NDArray[np.float32]] = []
    for batch in batches:
        logits_BC, embedding_BD = apply_recipe(recipe, artifact.run, batch, TASKS[artifact.record.task].pool)
        logits.append(logits_BC)
        embeddings.append(embedding_BD)
        advance(size_of(batch))
    return np.concatenate(logits), np.concatenate(embeddings)


def read_done(path: Path) -> Predictions | None:
    """Stored predictions; None where there are none, or where they are damaged and have to be made again."""
    if not path.exists():
        return None
    try:
        return read_predictions(path)
    except ModelError as error:
        say(f"{error}: doing so")
        return None
