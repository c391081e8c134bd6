"""The training cases that one image resembles most, with their diagnoses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.artifact.artifact import open_export
from dermalyze.calibration.recipes import apply_recipe
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.atomic import sha256_bytes, write_bytes, write_text
from dermalyze.core.result import DISCLAIMER
from dermalyze.core.run import Run
from dermalyze.data.splitting import read_division
from dermalyze.data.store import ImageStore
from dermalyze.data.thumbnails import small_pixels
from dermalyze.errors import ConfigError, DataError, UsageError
from dermalyze.imaging.decode import Preprocessing, pixel_sha256
from dermalyze.imaging.image import check_size
from dermalyze.imaging.modalities import modality
from dermalyze.imaging.preprocess import to_size
from dermalyze.imaging.samples import stack
from dermalyze.report.similar import shares_text, sheet_page, sheet_png
from dermalyze.scoring.features.retrieval import Neighbour, nearest_cases
from dermalyze.scoring.predictions import read_predictions
from dermalyze.tasks.base import Task

MAX_FILE_BYTES = 64 * 2**20
PICTURE_PX = 240


@dataclass(frozen=True)
class SimilarResult:
    """What resembles an image.

    Attributes:
        image: the first 12 digits of its SHA-256; its name may identify a person.
        known: where the image itself is in the run (`image_id`, `part`, `label`), or None.
        neighbours: the nearest first, one per group.
        shares: share of each class or label among them, of those where it is known; the largest first.
        accepted_leak: the reason with which training on leaking data was accepted, or None.
        out: the sheet that was written, or None.
    """

    image: str
    known: dict[str, str] | None
    neighbours: tuple[Neighbour, ...]
    shares: dict[str, float]
    accepted_leak: str | None
    out: Path | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**asdict(self), "out": str(self.out) if self.out else None, "disclaimer": DISCLAIMER}

    def lines(self) -> list[str]:
        """A table for a person."""
        known = self.known
        lines = [f"LEAK ACCEPTED, NOT A FAIR RESULT: {self.accepted_leak}"] if self.accepted_leak else []
        lines += [where_in_run(known)] if known else []
        width = max(len(one.image_id) for one in self.neighbours)
        lines += [f"{'training image':<{max(width, 14)}}  {'distance':>8}  label"]
        lines += [f"{one.image_id:<{max(width, 14)}}  {one.distance:8.4f}  {one.label}" for one in self.neighbours]
        lines.append(f"among these {len(self.neighbours)}, one per group: {shares_text(self.shares)}")
        lines += [f"sheet: {self.out}"] if self.out else []
        return [*lines, "Alike to the network is not alike in kind. " + DISCLAIMER]


def similar(
    run: Run, spec: ExperimentSpec, image: Path, *, image_2: Path | None = None, k: int = 10, out: Path | None = None
) -> SimilarResult:
    """The k training groups whose images are nearest to one image, by cosine distance of the network's features.

    The image goes the way of every answer: the same decoding, preprocessing, ONNX graph and recipe.

    Args:
        run: exported, with predictions of the training split.
        spec: `inference.recipe` is used; with `out`, `data` as well.
        image: a JPEG, PNG, WebP, AVIF or BMP file. If it is itself a training image, this is said and its own group left out.
        image_2: the second image of the sample, for a model of two.
        k: groups, 1 or more.
        out: a sheet with the images, .png or .html.

    Raises:
        UsageError: nothing exported or scored yet, k below 1, or another kind of sheet.
        DataError: the file is no image that is read, or manifest or split changed.
        ModelError: the artifact is refused, or the predictions are not of it.
    """
    if k < 1:
        raise UsageError(f"--k is {k}, must be 1 or more")
    if out is not None and out.suffix.lower() not in (".png", ".html"):
        raise UsageError(f"--out {out.name}: must end in .png or .html")
    data = read_image_file(image)
    artifact = open_export(run, spec.inference.recipe, threads=spec.train.threads)
    if image_2 is not None and not artifact.takes("image_2"):
        raise UsageError("--image-2: this model takes one image per sample; leave it out")
    preprocessing = Preprocessing.from_dict(artifact.preprocessing)
    sample = {"image": resized(data, "image", preprocessing)}
    if image_2 is not None:
        sample["image_2"] = resized(read_image_file(image_2), "image_2", preprocessing)
    shown = modality(preprocessing.modality).read(data).pixels
    p = read_predictions(run.require(run.predictions_path("train", spec.inference.recipe), "score"))
    if p.meta.get("scores_sha256") != artifact.record.scores_sha256 or p.embedding is None:
        raise UsageError(
            f"{run.root.name}: the training features are not of the exported model; run again: dermalyze score {run.root}"
        )
    _, query_1D = apply_recipe(artifact.recipe, artifact.run, stack([sample]))
    frame, parts = read_division(run)
    same = ((frame["sha256"] == sha256_bytes(data)) | (frame["pixel_sha256"] == pixel_sha256(shown))).to_numpy().nonzero()[0]
    known = None
    if len(same):
        row = frame.iloc[same[0]]
        known = {"image_id": str(row["image_id"]), "part": str(parts.iloc[same[0]]), "label": str(row["label"])}
    own = set(frame["group"].astype(str).iloc[same])
    neighbours = nearest_cases(p, query_1D, k, without=own)
    if not neighbours:
        raise DataError(f"{run.root.name}: the training split holds no group but the image's own")
    shares = shares_of([one.label for one in neighbours], p.classes, p.task)
    result = SimilarResult(sha256_bytes(data)[:12], known, neighbours, shares, artifact.record.accepted_leak, out)
    if out is not None:
        write_sheet(out, spec, result, shown, dict(zip(frame["image_id"].astype(str), frame["path"], strict=True)))
    return result


def shares_of(labels: Sequence[str], classes: Sequence[str], task: Task) -> dict[str, float]:
    """Share of each class or label among images, nearest first; the largest first, of equal ones that of the nearest.

    >>> from dermalyze.tasks.base import TASKS
    >>> shares_of(["nv", "mel", "mel"], ["bcc", "mel", "nv"], TASKS["multiclass"])
    {'mel': 0.6666666666666666, 'nv': 0.3333333333333333}
    >>> shares_of(["b", "a|b", "?a", "(none)"], ["a", "b"], TASKS["multilabel"])
    {'b': 0.5, 'a': 0.3333333333333333}
    """
    targets = task.targets(labels, classes)
    share_C, first_C = task.shares(targets, len(classes)), task.membership(targets, len(classes)).argmax(axis=0)
    order = sorted(np.flatnonzero(share_C).tolist(), key=lambda c: (-share_C[c], first_C[c]))
    return {classes[c]: float(share_C[c]) for c in order}


def read_image_file(image: Path) -> bytes:
    """The bytes of one file.

    Raises:
        DataError: not there, not a file, too large.
    """
    try:
        if image.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"image: larger than {MAX_FILE_BYTES >> 20} MiB; make it smaller")
        return image.read_bytes()
    except OSError as error:
        raise DataError(f"image: cannot be read: {error.strerror}; give one image file") from None


def resized(data: bytes, name: str, preprocessing: Preprocessing) -> NDArray[Any]:
    """A file's image at the network's size.

    Raises:
        DataError: no image that is read, or too small.
    """
    try:
        image = modality(preprocessing.modality).read(data, least=preprocessing.least).image
        check_size(*image.size)
    except DataError as error:
        raise type(error)(f"{name}: {error}") from None
    return to_size(image, preprocessing)


def where_in_run(known: dict[str, str]) -> str:
    """Where the image itself is in the run."""
    where = f"this image is {known['image_id']} ({known['label']}) of the run's {known['part']} part"
    if known["part"] != "train":
        return f"{where}; none of its group was trained on"
    return f"{where}, at distance 0 of itself; its own group is left out below"


def write_sheet(out: Path, spec: ExperimentSpec, result: SimilarResult, shown: Any, paths: dict[str, Any]) -> None:
    """The image and its neighbours, as a figure or a page; a training image that is gone leaves its frame."""
    try:
        store = ImageStore.open(spec.data)
    except (ConfigError, DataError):
        store = None
    pictures = [
        small_pixels(store, str(paths[one.image_id]), PICTURE_PX) if store is not None and one.image_id in paths else None
        for one in result.neighbours
    ]
    values = {**result.as_dict(), "where_in_run": where_in_run(result.known) if result.known else None}
    if out.suffix.lower() == ".png":
        write_bytes(out, sheet_png(values, shown, pictures))
    else:
        write_text(out, sheet_page(values, shown, pictures))
