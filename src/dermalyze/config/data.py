"""Specs of the data: source, preprocessing, split."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from dermalyze.config.base import Spec
from dermalyze.config.classes import LABEL_MAP_CLASSES, LABEL_MAPS
from dermalyze.errors import nearest

Fraction = Annotated[float, Field(gt=0, lt=1)]
Part = Literal["train", "val", "cal", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "cal", "test")
PART_WORDS: dict[str, Part] = {
    "train": "train", "training": "train",
    "val": "val", "validation": "val", "valid": "val", "dev": "val",
    "cal": "cal", "calib": "cal", "calibration": "cal",
    "test": "test", "testing": "test",
}  # fmt: skip
"""What a user's own split column may say, in lower case, and the split it means."""
DEFAULT_FRACTIONS: dict[Part, float] = {"train": 0.65, "val": 0.10, "cal": 0.10, "test": 0.15}
ModalityName = Literal["dermoscopy", "clinical"]
"""Rows of `dermalyze.imaging.modalities.MODALITIES`."""


class _Source(Spec):
    """The layout of a data set."""

    @property
    def modalities(self) -> tuple[ModalityName, ...]:
        """What its images are; of two images per case, what the first one is. Several where they differ."""
        return ("dermoscopy",)


class Ham10000Source(_Source):
    """HAM10000: the official zips or their unpacked folders, with `HAM10000_metadata.csv`."""

    kind: Literal["ham10000"] = "ham10000"


class FolderSource(_Source):
    """One folder per class."""

    kind: Literal["folder"] = "folder"


class CsvSource(_Source):
    """A CSV with one row per image; `columns` maps our names to the file's."""

    kind: Literal["csv"] = "csv"
    file: str | None = Field(None, description="name of the CSV inside the data folder; default: the only one there")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="our name (image_id, path, image_2_path, label, patient_id, lesion_id, age, sex, site, split, mask_path) "
        "to the file's",
    )
    extension: str = Field(".jpg", description="appended to image_id where the file has no path column")
    labels: list[str] | None = Field(
        None, min_length=1, description="task multilabel: label columns with 1 where an image has the label and 0 elsewhere"
    )


class Isic2018Source(_Source):
    """ISIC 2018, task 3: one-hot ground truth, with the lesion groupings where they are there."""

    kind: Literal["isic2018"] = "isic2018"


class Isic2019Source(_Source):
    """ISIC 2019: one-hot ground truth and metadata."""

    kind: Literal["isic2019"] = "isic2019"


class Isic2020Source(_Source):
    """ISIC 2020 (SIIM-ISIC): one table, of either version."""

    kind: Literal["isic2020"] = "isic2020"
    label: Literal["benign_malignant", "diagnosis"] = Field("benign_malignant", description="column that is the label")


class IsicArchiveSource(_Source):
    """A download of isic-cli: images and `metadata.csv`."""

    kind: Literal["isic_archive"] = "isic_archive"
    label: str | None = Field(None, description="column that is the label; default: diagnosis, else diagnosis_3")


class PadUfes20Source(_Source):
    """PAD-UFES-20: photographs of a smartphone."""

    kind: Literal["pad_ufes_20"] = "pad_ufes_20"

    @property
    def modalities(self) -> tuple[ModalityName, ...]:
        """Photographs."""
        return ("clinical",)


class Bcn20000Source(_Source):
    """BCN20000: dermoscopy from Barcelona."""

    kind: Literal["bcn20000"] = "bcn20000"


class Derm7ptSource(_Source):
    """Derm7pt, the seven-point checklist: a dermoscopic and a clinical image per case."""

    kind: Literal["derm7pt"] = "derm7pt"
    images: Literal["dermoscopic", "clinical", "both", "paired"] = Field(
        "dermoscopic", description="which images of each case; paired: the dermoscopic one, and the clinical one as its second"
    )

    @property
    def modalities(self) -> tuple[ModalityName, ...]:
        """By the choice of images."""
        chosen: dict[str, tuple[ModalityName, ...]] = {"clinical": ("clinical",), "both": ("dermoscopy", "clinical")}
        return chosen.get(self.images, ("dermoscopy",))


class Fitzpatrick17kSource(_Source):
    """Fitzpatrick17k: clinical photographs from two atlases."""

    kind: Literal["fitzpatrick17k"] = "fitzpatrick17k"
    label: Literal["three_partition_label", "nine_partition_label", "label"] = Field(
        "three_partition_label", description="column that is the label"
    )

    @property
    def modalities(self) -> tuple[ModalityName, ...]:
        """Photographs."""
        return ("clinical",)


OneSource = (
    Ham10000Source
    | FolderSource
    | CsvSource
    | Isic2018Source
    | Isic2019Source
    | Isic2020Source
    | IsicArchiveSource
    | PadUfes20Source
    | Bcn20000Source
    | Derm7ptSource
    | Fitzpatrick17kSource
)


def _label_map(value: Any) -> Any:
    """A map given by name, written out."""
    if not isinstance(value, str):
        return value
    if value not in LABEL_MAPS:
        names = list(LABEL_MAPS)
        raise ValueError(f"unknown label map '{value}'; allowed: {', '.join(names)}{nearest(value, names)}")
    return LABEL_MAPS[value]


LabelMap = Annotated[
    dict[str, str | None],
    BeforeValidator(_label_map),
    WithJsonSchema(
        {"anyOf": [{"type": "object", "additionalProperties": {"type": ["string", "null"]}}, {"enum": list(LABEL_MAPS)}]}
    ),
]
_LABEL_MAP = "label in the file to class name, null leaves its images out; or a known map by its name: " + ", ".join(LABEL_MAPS)


class MergedPart(Spec):
    """One of several sources."""

    name: str | None = Field(None, pattern=r"^[a-z0-9_]{1,40}$", description="in the source column; default: the source's kind")
    path: str | list[str] | None = Field(None, description="as data.path, of this source")
    source: OneSource = Field(Ham10000Source(), discriminator="kind")
    label_map: LabelMap = Field(default_factory=dict, description=_LABEL_MAP)
    own_ids: bool = Field(False, description="keep its lesion_id and patient_id separate from those of the other sources")

    @property
    def title(self) -> str:
        """The name, or the source's kind."""
        return self.name or self.source.kind


class MergedSource(_Source):
    """Several sources as one set; each has its own path and label map, and its name is kept in the source column."""

    kind: Literal["merged"] = "merged"
    sources: tuple[MergedPart, ...] = ()

    @property
    def modalities(self) -> tuple[ModalityName, ...]:
        """Those of its sources."""
        return tuple(dict.fromkeys(name for part in self.sources for name in part.source.modalities)) or super().modalities

    @model_validator(mode="after")
    def _check(self) -> Self:
        titles = [part.title for part in self.sources]
        twice = sorted({title for title in titles if titles.count(title) > 1})
        if twice:
            raise ValueError(f"source name '{twice[0]}' is used twice; give each source its own name")
        return self


SourceSpec = Annotated[OneSource | MergedSource, Field(discriminator="kind")]


class DataSpec(Spec):
    """Where the images come from and how many bad ones are tolerated."""

    source: SourceSpec = Ham10000Source()
    modality: ModalityName | None = Field(
        None, description="kind of the images: how they are decoded, what a valid one is, and words; null: the source's own"
    )
    path: str | list[str] | None = Field(None, description="a folder, or the archives; relative to the working folder")
    classes: list[str] | None = Field(
        None, description="class names in order; default: those of a label map given by name, else the source's own"
    )
    label_map: LabelMap = Field(default_factory=dict, description=_LABEL_MAP)
    missing_values: list[str] | None = Field(
        None,
        description="cells of ids and metadata that mean missing, beside empty ones, unknown, nan, na, n/a, none and null; "
        "null: `prepare` asks where an id looks like a placeholder",
    )
    max_bad_fraction: float = Field(0.01, ge=0, le=1, description="largest share of quarantined images; more is an error")
    follow_links: bool = Field(False, description="accept symbolic links that leave the data folder")
    workers: int | None = Field(None, ge=0, le=256, description="decoding processes; default: one per core")

    @model_validator(mode="before")
    @classmethod
    def _classes_of_a_named_map(cls, values: Any) -> Any:
        name = values.get("label_map") if isinstance(values, dict) else None
        if isinstance(name, str) and name in LABEL_MAP_CLASSES and values.get("classes") is None:
            return {**values, "classes": list(LABEL_MAP_CLASSES[name])}
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.source, MergedSource) and self.path is not None:
            raise ValueError("path is set together with source.kind merged; set a path for each of source.sources instead")
        modality_name(self)
        return self


def modality_name(data: DataSpec) -> ModalityName:
    """The modality of a data set: `data.modality`, else the source's own.

    Raises:
        ValueError: the source has images of several, and `data.modality` names none.

    >>> modality_name(DataSpec(source=PadUfes20Source()))
    'clinical'
    """
    if data.modality is not None:
        return data.modality
    names = data.source.modalities
    if len(names) > 1:
        raise ValueError(
            f"modality: the images of source {data.source.kind} are of several modalities ({', '.join(names)}); "
            f"set data.modality to one of them, as in --set data.modality={names[0]}"
        )
    return names[0]


class ClaheStep(Spec):
    """Contrast-limited adaptive histogram equalization of the lightness."""

    kind: Literal["clahe"] = "clahe"
    clip: float = Field(2.0, gt=0, le=100, description="highest count of a bin, in multiples of an even histogram's")
    tiles: int = Field(8, ge=1, le=64, description="in each direction")


class ShadesOfGrayStep(Spec):
    """Color constancy: the color of the light becomes gray."""

    kind: Literal["shades_of_gray"] = "shades_of_gray"
    power: float = Field(6.0, ge=1, le=20, description="of the Minkowski mean; 1 is gray-world")


class HairRemovalStep(Spec):
    """Dark thin lines are painted over; needs OpenCV (`dermalyze[cv]`), for prediction too."""

    kind: Literal["hair_removal"] = "hair_removal"
    threshold: int = Field(10, ge=1, le=255, description="levels by which a line is darker than its surroundings")


StepSpec = Annotated[ClaheStep | ShadesOfGrayStep | HairRemovalStep, Field(discriminator="kind")]


class PreprocessSpec(Spec):
    """How a decoded RGB image becomes the network's input, identical in training, export and serving."""

    steps: tuple[StepSpec, ...] = Field((), description="changes of color and contrast, in this order, before the resize")

    kind: Literal["squash", "resize_crop", "pad"] = Field(
        "squash",
        description="squash: whole frame to size; resize_crop: shorter edge, then center crop; pad: whole frame, black bars",
    )
    size: int | tuple[int, int] | None = Field(None, description="pixels, edge or (height, width); default: the backbone's own")
    crop_ratio: float = Field(0.875, gt=0, le=1, description="resize_crop: crop edge / resized edge (224/256)")
    mean: tuple[float, float, float] | None = Field(None, description="of RGB in 0..1; default: the backbone's own")
    std: tuple[float, float, float] | None = Field(None, description="of RGB in 0..1; default: the backbone's own")
    draft: bool = Field(
        False,
        description="decode JPEG at 1/2, 1/4 or 1/8 where that is large enough: faster, slightly different pixels",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        edges = () if self.size is None else (self.size,) if isinstance(self.size, int) else self.size
        if any(not 8 <= edge <= 4096 for edge in edges):
            raise ValueError(f"size {self.size} px is outside 8..4096")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std {self.std} must be above 0")
        if self.steps and self.draft:
            raise ValueError("draft: true decodes at a reduced scale, before the steps; leave draft or steps out")
        return self


class SplitSpec(Spec):
    """Stratified by class, grouped by patient, lesion and near-duplicate cluster together."""

    kind: Literal["holdout", "kfold"] = "holdout"
    fractions: dict[Part, Fraction] = Field(
        default_factory=DEFAULT_FRACTIONS.copy,
        description="holdout: share of each split; without `cal`, calibration is cross-fitted on val",
    )
    folds: int = Field(5, ge=2, le=50, description="kfold: number of folds; test is one fold")
    fold: int = Field(0, ge=0, description="kfold: index of the fold that is the test split")
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
