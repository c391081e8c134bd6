"""Painted copies of a run's images, at the network's size, for the trainings of the controls."""

# Shapes: N images, H height, W width.

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from dermalyze.artifact.artifact import Artifact
from dermalyze.config.data import CsvSource
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.atomic import replacing, sha256_bytes
from dermalyze.core.progress import progress
from dermalyze.core.run import Run
from dermalyze.data.grouping import keys
from dermalyze.data.manifest import read_manifest
from dermalyze.data.masks import mask_at, read_mask
from dermalyze.data.pixels import Source
from dermalyze.data.store import ImageStore
from dermalyze.imaging.inpaint import box, mark, only, ring
from dermalyze.imaging.modalities import modality_of
from dermalyze.imaging.samples import IMAGE, Array, concatenate, size_of
from dermalyze.models.backbones import pretrained_cfg_of
from dermalyze.rng import uniforms
from dermalyze.tasks.base import TASKS

CORNER = 4  # stream of `dermalyze.rng`
BATCH = 64
MASKED = 0.9
"""With masks for fewer images than this share, the masks are not used: who has one may itself tell the class."""

Painter = Callable[[NDArray[np.uint8], NDArray[np.bool_], int], NDArray[np.uint8]]


class ControlImages:
    """The run's images at the size of the controls' network, and their masks.

    Args:
        run: prepared and split.
        spec: the controls' experiment.
        frame: usable manifest rows with `group`.
        artifact: default: images as `spec` trains with; else samples as this model takes them.
    """

    def __init__(self, run: Run, spec: ExperimentSpec, frame: pd.DataFrame, artifact: Artifact | None = None) -> None:
        config = pretrained_cfg_of(spec.model)
        own = modality_of(spec.data).resolve(spec.preprocess, size=config.size, mean=config.mean, std=config.std)
        self.run, self.spec, self.frame = run, spec, frame
        how, size = (run, spec.data, spec.train), spec.inference.batch_size
        self.source = Source(*how, own, size=size) if artifact is None else Source.of_artifact(*how, artifact, size=size)
        self.preprocessing = self.source.preprocessing
        self.store = ImageStore.open(spec.data)
        self.mask_path = keys(frame, "mask_path")
        self.has_masks = bool(self.mask_path.notna().mean() >= MASKED)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.preprocessing.height, self.preprocessing.width

    def read(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, Array]:
        """The samples at some rows."""
        return concatenate(self.source.batches(self.frame.iloc[rows]))

    def mask(self, row: int) -> NDArray[np.bool_]:
        """(H, W) where the foreground is.

        Raises:
            DataError: the mask cannot be read.
        """
        picture = read_mask(self.store, str(self.mask_path.iloc[row]), str(self.frame["image_id"].iloc[row]))
        return mask_at(picture, self.preprocessing)

    def painters(self, target: str, parts: pd.Series) -> dict[str, Painter]:
        """How each kind of image is made from RGB, mask (all False without one) and row."""
        border = ring(*self.size)
        corner_N = (uniforms(self.spec.seed, 0, np.arange(len(self.frame)), 1, stream=CORNER)[:, 0] * 4).astype(int)
        marked_N = self.has(target) & (parts != "test").to_numpy()
        return {
            "foreground": lambda image, mask, row: only(image, mask),
            "background": lambda image, mask, row: only(image, ~box(mask)),
            "border": lambda image, mask, row: only(image, border & ~box(mask)),
            "planted": lambda image, mask, row: mark(image, corner_N[row]) if marked_N[row] else image,
        }

    def has(self, target: str) -> NDArray[np.bool_]:
        """(N,) rows of a class, or with a label."""
        task, texts = TASKS[self.spec.task.kind], self.frame["label"].tolist()
        names = task.names(texts)
        return task.membership(task.targets(texts, names), len(names))[:, names.index(target)]

    def used(self, kind: str) -> NDArray[np.bool_]:
        """(N,) rows that take part: those with a mask, where masks are used."""
        if kind == "planted" or not self.has_masks:
            return np.ones(len(self.frame), dtype=bool)
        known: NDArray[np.bool_] = self.mask_path.notna().to_numpy(dtype=bool)
        return known

    def paint(self, kinds: Sequence[str], target: str, parts: pd.Series) -> None:
        """Write the images of each kind that are not there yet, in one pass over images and masks."""
        todo = [kind for kind in kinds if not self.path(kind, target).exists()]
        if not todo:
            return
        painters = self.painters(target, parts)
        blank = np.zeros(self.size, dtype=bool)
        with ExitStack() as stack:
            archives = {}
            for kind in todo:
                temporary = stack.enter_context(replacing(self.path(kind, target)))
                archives[kind] = stack.enter_context(zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED))
            advance = stack.enter_context(progress(f"paint {', '.join(todo)}", len(self.frame), cost=True))
            row = 0
            for batch in self.source.batches(self.frame):
                for image in batch[IMAGE]:
                    masked = self.has_masks and isinstance(self.mask_path.iloc[row], str) and todo != ["planted"]
                    mask = self.mask(row) if masked else blank
                    for kind in todo:
                        if self.used(kind)[row]:
                            data = png(painters[kind](image, mask, row), str(self.frame["image_id"].iloc[row]))
                            archives[kind].writestr(zipfile.ZipInfo(member(row)), data)
                    row += 1
                advance(size_of(batch))

    def path(self, kind: str, target: str) -> Path:
        """Where the images of a kind are; the name changes with all that they are made from."""
        made_from = {
            "version": 1, "kind": kind, "target": target, "seed": self.spec.seed, "manifest": self.run.manifest_hash(),
            "preprocessing": self.preprocessing.as_dict(), "certificate": self.run.certificate().get("files"),
        }  # fmt: skip
        return self.run.control_pictures_path(kind, sha256_bytes(json.dumps(made_from, sort_keys=True).encode())[:12])

    def experiment(self, kind: str, target: str) -> ExperimentSpec:
        """The controls' experiment on painted images, which have the network's size already."""
        p = self.preprocessing
        size = {"kind": "squash", "size": [p.height, p.width], "mean": list(p.mean), "std": list(p.std), "draft": False}
        data = self.spec.data.model_copy(update={"path": [str(self.path(kind, target).absolute())], "source": CsvSource()})
        preprocess = type(self.spec.preprocess).model_validate({**self.spec.preprocess.model_dump(), **size})
        return self.spec.model_copy(update={"data": data, "preprocess": preprocess})

    def manifest(self, kind: str, target: str, part_of: Mapping[str, str]) -> pd.DataFrame:
        """The run's manifest with the painted images in place of its own; rows without one are quarantined."""
        path, places = self.path(kind, target), {}
        ids = self.frame["image_id"].tolist()
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                places[ids[int(name.partition(".")[0])]] = (f"{path.name}!{name}", sha256_bytes(archive.read(name)))
        manifest = with_splits(read_manifest(self.run), part_of)
        known = manifest["image_id"].isin(places.keys())
        manifest["path"] = [places.get(i, (p, ""))[0] for i, p in zip(manifest["image_id"], manifest["path"], strict=True)]
        manifest["sha256"] = [places.get(i, ("", s))[1] for i, s in zip(manifest["image_id"], manifest["sha256"], strict=True)]
        manifest.loc[~known & manifest["quarantine_reason"].isna(), "quarantine_reason"] = "no mask"
        return manifest


def member(row: int) -> str:
    """The name of an image in its archive."""
    return f"{row:07}.png"


def with_splits(manifest: pd.DataFrame, part_of: Mapping[str, str]) -> pd.DataFrame:
    """The manifest with the parts of a split in its `split` column."""
    return manifest.assign(split=[part_of.get(image_id) for image_id in manifest["image_id"]])


def png(image_HW3: NDArray[np.uint8], name: str) -> bytes:
    """A PNG that holds the image's id, so that two images painted alike are still two files, and join no groups."""
    text, stream = PngImagePlugin.PngInfo(), io.BytesIO()
    text.add_text("image_id", name)
    Image.fromarray(image_HW3).save(stream, format="PNG", pnginfo=text, compress_level=1)
    return stream.getvalue()
