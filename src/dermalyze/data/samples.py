"""Samples of a manifest: where their named inputs are, how these are read, and what further images there are."""

# Shapes: N rows, B samples of a batch, M encoded metadata.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermalyze.config.columns import OPTIONAL_IMAGES, image_columns
from dermalyze.config.model import ModelSpec
from dermalyze.core.progress import say
from dermalyze.data.cache import UnusableImageError, read_image
from dermalyze.data.inspection import Inspected, Read, inspect_images
from dermalyze.data.sources.reading import MISSING_FILE, Row
from dermalyze.data.store import ImageStore
from dermalyze.errors import ConfigError
from dermalyze.imaging.decode import decode
from dermalyze.imaging.preprocess import Preprocessing
from dermalyze.imaging.samples import IMAGE, METADATA, PRESENT, Array, Batch, Input, stack
from dermalyze.imaging.tabular import Floats

File = tuple[str, str]
"""(manifest path, SHA-256) of an image."""
Job = Mapping[str, File | None]
"""The files of one sample, by the name of the input; None where it has none."""


def files_of(frame: pd.DataFrame, name: str) -> list[File | None]:
    """The file of a named image in each manifest row; None where there is none."""
    path, sha256, _ = image_columns(name)
    if sha256 not in frame:
        return [None] * len(frame)
    rows = zip(frame[path], frame[sha256], frame[sha256].notna(), strict=True)
    return [(str(where), str(mark)) if there else None for where, mark, there in rows]


def optional_images(frame: pd.DataFrame) -> list[str]:
    """Names of the optional images that a manifest has."""
    return [name for name in OPTIONAL_IMAGES if image_columns(name)[1] in frame]


@dataclass(frozen=True, eq=False)
class Samples:
    """The named inputs of manifest rows.

    Attributes:
        store: reads an image's bytes.
        preprocessing: of every image.
        inputs: of the network.
        ids: image_id of each row, for messages.
        files: of each image input, the file of each row or None.
        metadata_NM: encoded, or None.
    """

    store: ImageStore
    preprocessing: Preprocessing
    inputs: tuple[Input, ...]
    ids: list[str]
    files: dict[str, list[File | None]]
    metadata_NM: Floats | None = None

    @classmethod
    def of(
        cls,
        store: ImageStore,
        frame: pd.DataFrame,
        preprocessing: Preprocessing,
        inputs: tuple[Input, ...],
        metadata_NM: Floats | None = None,
    ) -> Samples:
        """The rows of a frame."""
        files = {one.name: files_of(frame, one.name) for one in inputs if one.is_image}
        return cls(store, preprocessing, inputs, frame["image_id"].astype(str).tolist(), files, metadata_NM)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def image_inputs(self) -> list[Input]:
        """Those inputs that are images."""
        return [one for one in self.inputs if one.is_image]

    def job(self, row: int) -> Job:
        """The files of a row."""
        return {name: files[row] for name, files in self.files.items()}

    def whole(self, images: Mapping[str, Array], rows_B: NDArray[np.int64]) -> dict[str, Array]:
        """A batch of some rows: their images, and beside them what else the network takes."""
        batch = dict(images)
        for one in self.inputs:
            if one.name == PRESENT:
                names = [other.name for other in self.inputs if other.optional]
                batch[PRESENT] = np.array([[self.files[name][row] is not None for name in names] for row in rows_B], bool)
            elif one.name == METADATA and self.metadata_NM is not None:
                batch[METADATA] = self.metadata_NM[rows_B]
        return batch


def read_sample(
    store: ImageStore, job: Job, inputs: Sequence[Input], preprocessing: Preprocessing, *, name: str | None = None
) -> dict[str, Array]:
    """The images of one sample, without the axis B; one that is missing is 0 everywhere.

    Args:
        inputs: images.
        name: as for `read_image`.

    Raises:
        UnusableImageError: a file is gone, damaged, or not the one that was prepared.
    """
    images = {}
    for one in inputs:
        file = job[one.name]
        try:
            images[one.name] = one.empty(1)[0] if file is None else read_image(store, *file, preprocessing, name=name)
        except UnusableImageError as error:
            if one.name == IMAGE:
                raise
            raise UnusableImageError(name or (job[IMAGE] or ("", "?"))[1][:12], f"{one.name}: {error.reason}") from None
    return images


def read_block(
    store: ImageStore, jobs: Sequence[Job], inputs: Sequence[Input], preprocessing: Preprocessing
) -> tuple[dict[str, Array], dict[int, str]]:
    """The images of some samples by name (B, ...), and why some are unusable, by place; those are 0 everywhere."""
    samples: list[Batch] = []
    bad: dict[int, str] = {}
    for place, job in enumerate(jobs):
        try:
            samples.append(read_sample(store, job, inputs, preprocessing))
        except UnusableImageError as error:
            bad[place] = error.reason
            samples.append({one.name: one.empty(1)[0] for one in inputs})
    return stack(samples), bad


# -- optional images in a manifest -------------------------------------------------------------------------------


def inspect_optional(
    store: ImageStore, rows: Sequence[Row], *, workers: int | None, read: Read = decode
) -> dict[str, list[Inspected | None]]:
    """Decode the optional images of each row, by name; None where none is named. Only names that some row has.

    Raises:
        As `inspect_images`.
    """
    inspected: dict[str, list[Inspected | None]] = {}
    for name in OPTIONAL_IMAGES:
        listed = [row.images.get(name) for row in rows]
        if all(path is None for path in listed):
            continue
        decoded = iter(inspect_images(store, [path for path in listed if path], workers=workers, read=read))
        inspected[name] = [
            None if path is None else next(decoded) if path else Inspected(MISSING_FILE) for path in listed
        ]  # fmt: skip
    return inspected


def as_samples(first: Sequence[Inspected], optional: Mapping[str, Sequence[Inspected | None]]) -> list[Inspected]:
    """The first images, unusable where any image of the sample is.

    >>> [one.reason for one in as_samples([Inspected(None)] * 2, {"image_2": [None, Inspected("truncated")]})]
    [None, 'image_2: truncated']
    """
    samples = list(first)
    for name, images in optional.items():
        for place, (sample, image) in enumerate(zip(samples, images, strict=True)):
            if sample.reason is None and image is not None and image.reason is not None:
                samples[place] = Inspected(f"{name}: {image.reason}")
    return samples


def optional_columns(row: Row, sample: Inspected, optional: Mapping[str, Inspected | None]) -> dict[str, str | None]:
    """The manifest's columns of the optional images of one row."""
    columns: dict[str, str | None] = {}
    for name, image in optional.items():
        good = image if image is not None and sample.reason is None else None
        values = (row.images.get(name) or None, good.sha256 if good else None, good.pixel_sha256 if good else None)
        columns |= dict(zip(image_columns(name), values, strict=True))
    return columns


def count_optional(frame: pd.DataFrame) -> dict[str, dict[str, int]]:
    """How many usable rows have each optional image, for summary.json.

    Args:
        frame: usable manifest rows.
    """
    counts = {}
    for name in optional_images(frame):
        _, sha256, pixels = image_columns(name)
        there = frame[sha256].notna()
        same = there & (frame[pixels] == frame["pixel_sha256"])
        counts[name] = {"samples": int(there.sum()), "missing": int((~there).sum()), "same_as_first": int(same.sum())}
    return counts


def optional_lines(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Lines for a person.

    >>> optional_lines({"image_2": {"samples": 9, "missing": 1, "same_as_first": 0}})
    ['image_2: 9 samples have one, 1 has none']
    """
    lines = []
    for name, count in counts.items():
        without = f", {count['missing']} {'has' if count['missing'] == 1 else 'have'} none" if count["missing"] else ""
        lines.append(f"{name}: {count['samples']} samples have one{without}")
        if count["same_as_first"]:
            lines.append(f"{name}: in {count['same_as_first']} samples it equals the first image")
    return lines


def require_images(frame: pd.DataFrame, spec: ModelSpec, *, what: str = "the set") -> None:
    """Refuse a network of two images where no sample has a second one; note images that are unused or never missing.

    Args:
        frame: manifest rows.
        spec: its `image_2`.
        what: the rows, in words.

    Raises:
        ConfigError: with the remedy.
    """
    there = sum(file is not None for file in files_of(frame, "image_2"))
    if spec.image_2 is None:
        if there:
            say(f"model.image_2 is not set: the network uses only the first image of {there} samples that have two")
    elif there == 0:
        raise ConfigError(
            f"model.image_2: {what} has no second images; name them in a column image_2_path of the CSV "
            "(data.source.columns maps another name to it), or leave model.image_2 out"
        )
    elif there == len(frame) and spec.image_2.hide == 0:
        say("model.image_2: no sample lacks its second image and hide is 0, so a prediction without one is unreliable")


def one_row_per_image(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per image instead of one per sample: optional ones under the image_id of their sample, after the first.

    >>> row = {"image_id": ["a"], "path": ["1.jpg"], "pixel_sha256": ["p"], "image_2_path": ["2.jpg"],
    ...        "image_2_sha256": ["t"], "image_2_pixel_sha256": ["q"]}
    >>> one_row_per_image(pd.DataFrame(row))["path"].tolist()
    ['1.jpg', '2.jpg']
    """
    frames = [frame]
    for name in optional_images(frame):
        columns = image_columns(name)
        rows = frame[frame[columns[1]].notna()]
        frames.append(rows.assign(**{one: rows[more] for one, more in zip(image_columns(IMAGE), columns, strict=True)}))
    return frame if len(frames) == 1 else pd.concat(frames).sort_values("image_id", kind="stable", ignore_index=True)


def shared_images(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """Samples whose optional image is in another sample too, in any place, pixel for pixel: their image_ids, sorted.

    >>> row = {"image_id": ["a", "b", "c"], "path": ["1", "2", "3"], "pixel_sha256": ["p", "q", "r"],
    ...        "image_2_path": ["4", "1", None], "image_2_sha256": ["t", "u", None], "image_2_pixel_sha256": ["s", "p", None]}
    >>> shared_images(pd.DataFrame(row))
    [('a', 'b')]
    """
    names = optional_images(frame)
    if not names:
        return []
    optional = set(pd.concat([frame[image_columns(name)[2]] for name in names]).dropna())
    shown = one_row_per_image(frame)
    shown = shown[shown["pixel_sha256"].isin(optional)]
    ids = shown["image_id"].astype(str).groupby(shown["pixel_sha256"]).agg(lambda one: tuple(sorted(set(one))))
    return sorted(several for several in ids if len(several) > 1)
