"""Specs of the data way: source, preprocessing, split."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dermalyze.config.base import Spec

Fraction = Annotated[float, Field(gt=0, lt=1)]
Part = Literal["train", "val", "cal", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "cal", "test")
PART_WORDS: dict[str, Part] = {
    "train": "train", "training": "train",
    "val": "val", "validation": "val", "valid": "val", "dev": "val",
    "cal": "cal", "calib": "cal", "calibration": "cal",
    "test": "test", "testing": "test",
}  # fmt: skip
"""What a user's own split column may say, in lower case, and the part it means."""
DEFAULT_FRACTIONS: dict[Part, float] = {"train": 0.65, "val": 0.10, "cal": 0.10, "test": 0.15}


class Ham10000Source(Spec):
    """HAM10000: the official zips or their unpacked folders, with `HAM10000_metadata.csv`."""

    kind: Literal["ham10000"] = "ham10000"


class FolderSource(Spec):
    """One folder a class."""

    kind: Literal["folder"] = "folder"


class CsvSource(Spec):
    """A CSV with one row an image; `columns` maps our names to the file's."""

    kind: Literal["csv"] = "csv"
    file: str | None = Field(None, description="name of the CSV inside the data folder; default: the only one there")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="our name (image_id, path, label, patient_id, lesion_id, age, sex, site, split, mask_path) to the file's",
    )
    extension: str = Field(".jpg", description="appended to image_id where the file has no path column")


SourceSpec = Annotated[Ham10000Source | FolderSource | CsvSource, Field(discriminator="kind")]


class DataSpec(Spec):
    """Where the images come from and how strictly they are taken."""

    source: SourceSpec = Ham10000Source()
    path: str | list[str] | None = Field(None, description="a folder, or the archives; relative to the working folder")
    classes: list[str] | None = Field(None, description="class names in order; default: the source's own")
    label_map: dict[str, str] = Field(default_factory=dict, description="label in the file to class name")
    max_bad_fraction: float = Field(0.01, ge=0, le=1, description="more quarantined images than this refuse the set")
    follow_links: bool = Field(False, description="accept symbolic links that leave the data folder")
    workers: int | None = Field(None, ge=0, le=256, description="decoding processes; default: one a core")


class PreprocessSpec(Spec):
    """How a decoded RGB image becomes the network's input. The same numbers in training, export and serving."""

    kind: Literal["squash", "resize_crop", "pad"] = Field(
        "squash",
        description="squash: whole frame to size; resize_crop: shorter edge then centre crop; pad: whole frame, black bars",
    )
    size: int | tuple[int, int] | None = Field(None, description="pixels, edge or (height, width); default: the backbone's own")
    crop_ratio: float = Field(0.875, gt=0, le=1, description="resize_crop: crop edge / resized edge (224/256)")
    mean: tuple[float, float, float] | None = Field(None, description="of RGB in 0..1; default: the backbone's own")
    std: tuple[float, float, float] | None = Field(None, description="of RGB in 0..1; default: the backbone's own")
    draft: bool = Field(
        False,
        description="decode JPEG at 1/2, 1/4 or 1/8 where that is still as large as needed: faster, slightly other pixels",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        edges = () if self.size is None else (self.size,) if isinstance(self.size, int) else self.size
        if any(not 8 <= edge <= 4096 for edge in edges):
            raise ValueError(f"size {self.size} px is outside 8..4096")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std {self.std} must be above 0")
        return self


class SplitSpec(Spec):
    """Stratified by class, grouped by patient, lesion and near-duplicate cluster together."""

    kind: Literal["holdout", "kfold"] = "holdout"
    fractions: dict[Part, Fraction] = Field(
        default_factory=DEFAULT_FRACTIONS.copy,
        description="holdout: share of each part; without `cal`, calibration is cross-fitted on val",
    )
    folds: int = Field(5, ge=2, le=50, description="kfold: number of folds; test is one fold")
    fold: int = Field(0, ge=0, description="kfold: which fold is the test part")
    seed: int = Field(42, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        total = sum(self.fractions.values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"fractions sum to {total:g}, must be 1")
        if not {"train", "val", "test"} <= set(self.fractions):
            raise ValueError("fractions must name train, val and test (cal is optional)")
        if self.kind == "kfold" and self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} must be below folds {self.folds}")
        return self
