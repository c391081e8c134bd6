"""What needs the model: logits and embedding of every image of every part, and of foreign and corrupted pictures."""

# Shapes: B images, H height, W width, N rows.

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermalyze.config.data import PARTS
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.artefact import Artefact
from dermalyze.core.errors import ModelError, UsageError
from dermalyze.core.progress import progress, say
from dermalyze.core.run import Run
from dermalyze.data.cache import cache_bytes, open_cache
from dermalyze.data.external import read_batches
from dermalyze.data.foreign import EACH, SYNTHETIC, Foreign, name_of, read_foreign, synthetic
from dermalyze.data.images import Preprocessing
from dermalyze.data.manifest import read_manifest, usable
from dermalyze.data.predictions import Predictions, read_predictions, write_predictions
from dermalyze.data.splitting import read_part
from dermalyze.data.store import ImageStore
from dermalyze.ops.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from dermalyze.ops.counter import permutation
from dermalyze.ops.recipes import apply_recipe


@dataclass(frozen=True)
class ProbeResult:
    """What was stored.

    Attributes:
        recipe: the inference recipe.
        images: images of each part.
        skipped: parts whose predictions were there already, from the same model and manifest.
        seconds: time spent on the others.
        foreign: pictures of each set that is no skin.
        corrupted: images of the test part of which corrupted copies were scored.
    """

    recipe: str
    images: dict[str, int]
    skipped: list[str]
    seconds: float
    foreign: dict[str, int]
    corrupted: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return dict(self.__dict__)

    def lines(self) -> list[str]:
        """Lines for a person."""
        counts = ", ".join(f"{part} {n}" + (" (kept)" if part in self.skipped else "") for part, n in self.images.items())
        more = ", ".join(f"{name} {n}" for name, n in self.foreign.items())
        copies = f"; corrupted copies of {self.corrupted} test images" if self.corrupted else ""
        return [f"predictions by recipe {self.recipe}: {counts}; foreign pictures: {more}{copies}; {self.seconds:.1f} s"]


def probe(run: Run, spec: ExperimentSpec, *, foreign: Sequence[Path] = (), corruptions: int = 0) -> ProbeResult:
    """Run the artefact over every part of the split; a part that is done for this model and manifest is left as it is.

    A few synthetic pictures that are no skin (`dermalyze.data.foreign.SYNTHETIC`) are always among them: from these
    `calibrate` chooses what refuses such pictures.

    Args:
        run: exported.
        spec: `inference` and `data` are used.
        foreign: folders of pictures that are no skin, or MedMNIST files; each becomes a set of its own in the report.
        corruptions: test images of which every corruption in every severity is scored (`dermalyze.ops.corruptions`), a
            seeded sample; 0: none.

    Raises:
        UsageError: no export or no split yet, another process works in the run, or two foreign sets of one name.
        DataError: an image or the manifest changed since it was prepared; a foreign set without a readable picture.
        ModelError: the artefact is refused, is older than the checkpoint, or gives NaN.
    """
    with run.lock():
        run.probe_write()
        recipe = spec.inference.recipe
        artefact = run.artefact(recipe, threads=spec.train.threads)
        preprocessing = Preprocessing.from_dict(artefact.preprocessing)
        frames: dict[str, pd.DataFrame] = {part: read_part(run, part) for part in PARTS if run.split_path(part).exists()}
        sets = {name_of(path): path for path in foreign}
        if len(sets) < len(foreign) or sets.keys() & {"synthetic", *SYNTHETIC}:
            raise UsageError(
                f"--foreign {' '.join(path.name for path in foreign)}: each set needs a name of its own, and other than "
                f"synthetic, {', '.join(SYNTHETIC)}; rename one"
            )
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
        counts = {"synthetic": _synthetic(run, spec, artefact, preprocessing, meta)}
        for name, path in sets.items():
            pictures = list(read_foreign(path, preprocessing, seed=spec.seed))
            counts[name] = _write_foreign(run, spec, artefact, pictures, {**meta, "set": name, "labelled": False})
        if corruptions:
            corruptions = _corrupted(run, spec, artefact, preprocessing, frames["test"], corruptions, meta)
        images = {str(part): len(frame) for part, frame in frames.items()}
        skipped = [p for p in images if p not in todo]
        return ProbeResult(recipe, images, skipped, time.monotonic() - started, counts, corruptions)


def _synthetic(run: Run, spec: ExperimentSpec, artefact: Artefact, preprocessing: Preprocessing, meta: dict[str, Any]) -> int:
    """Score the synthetic foreign pictures, unless that is done; how many there are."""
    meta = {**meta, "set": "synthetic", "kinds": list(SYNTHETIC), "each": EACH, "seed": spec.seed, "labelled": False}
    known = read_done(run.foreign_path("synthetic", meta["recipe"]))
    if known is not None and known.meta == meta:
        return len(known)
    return _write_foreign(run, spec, artefact, list(synthetic(preprocessing, seed=spec.seed)), meta)


def _write_foreign(run: Run, spec: ExperimentSpec, artefact: Artefact, pictures: list[Foreign], meta: dict[str, Any]) -> int:
    """Score pictures that are no skin; their group is their kind, and their label says nothing."""
    size = spec.inference.batch_size
    batches = (np.stack([p.pixels for p in pictures[i : i + size]]) for i in range(0, len(pictures), size))
    with progress(f"probe foreign pictures: {meta['set']}", len(pictures), cost=True) as advance:
        logits, embedding = score(artefact, meta["recipe"], batches, advance)
    stored = Predictions(
        ids=[p.image_id for p in pictures],
        groups=[p.kind for p in pictures],
        labels=np.zeros(len(pictures), dtype=np.int64),
        logits=logits,
        embedding=embedding,
        meta=meta,
    )
    write_predictions(run.foreign_path(meta["set"], meta["recipe"]), stored)
    return len(pictures)


def _corrupted(
    run: Run,
    spec: ExperimentSpec,
    artefact: Artefact,
    preprocessing: Preprocessing,
    test: pd.DataFrame,
    count: int,
    meta: dict[str, Any],
) -> int:
    """Score every corruption in every severity of a seeded sample of the test part; how many images that is."""
    frame = test.iloc[spread_sample(test["label"].astype(str).tolist(), count, spec.seed)]
    grid = [(kind, severity) for kind in CORRUPTIONS for severity in SEVERITIES]
    names = frame["image_id"].astype(str).tolist()
    ids = [f"{name}/{kind}/{severity}" for name in names for kind, severity in grid]
    strengths = {kind: list(values) for kind, (_, values) in CORRUPTIONS.items()}
    path, meta = run.corrupted_path(meta["recipe"]), {**meta, "set": "corrupted test", "seed": spec.seed, "kinds": strengths}
    known = read_done(path)
    if known is not None and known.meta == meta and known.ids == ids:
        return len(frame)

    def batches() -> Iterator[NDArray[np.uint8]]:
        pictures = (
            one for batch in Source(run, spec, preprocessing).batches(frame, spec.inference.batch_size) for one in batch
        )
        for name, pixels in zip(names, pictures, strict=True):
            yield np.stack([corrupt(pixels, kind, s, image_id=name, seed=spec.seed) for kind, s in grid])

    say(f"probe: {len(CORRUPTIONS)} corruptions in {len(SEVERITIES)} severities of {len(frame)} test images: {len(ids)} copies")
    with progress("probe corrupted copies", len(ids), cost=True) as advance:
        logits, embedding = score(artefact, meta["recipe"], batches(), advance)
    groups, labels = frame["group"].astype(str).tolist(), label_indices(frame, artefact.classes)
    stored = Predictions(ids, np.repeat(groups, len(grid)).tolist(), np.repeat(labels, len(grid)), logits, embedding, meta)
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
    artefact: Artefact, recipe: str, batches: Iterable[NDArray[np.uint8]], advance: Callable[[int], None]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits (N, C) and embedding (N, D) of batches of pixels."""
    logits: list[NDArray[np.float32]] = []
    embeddings: list[NDArray[np.float32]] = []
    for batch in batches:
        logits_BC, embedding_BD = apply_recipe(recipe, artefact.run, batch)
        logits.append(logits_BC)
        embeddings.append(embedding_BD)
        advance(len(batch))
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
    known = read_done(run.predictions_path(meta["set"], meta["recipe"]))
    return known is not None and known.meta == meta and known.ids == frame["image_id"].astype(str).tolist()


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
