"""Kinds of images: how bytes become pixels, what a valid input is, how training changes them by default, and their words.

No other module that serves all of them names an organ or a disease: it takes the words of the row.

To add a modality: its name in `config/data.py`, and a row of `MODALITIES`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from PIL import Image

from dermalyze.config.data import DataSpec, PreprocessSpec, modality_name
from dermalyze.config.train import AugmentSpec
from dermalyze.errors import ConfigError, nearest
from dermalyze.imaging.decode import decode
from dermalyze.imaging.image import Decoded, ImageError
from dermalyze.imaging.preprocess import Preprocessing
from dermalyze.imaging.quality import Likeness


class Decode(Protocol):
    """Bytes of a file to an upright image, with the options of `dermalyze.imaging.decode.decode`."""

    def __call__(
        self,
        data: bytes,
        *,
        formats: tuple[str, ...] = ...,
        max_pixels: int = ...,
        least: Callable[[int, int], tuple[int, int]] | None = ...,
    ) -> Decoded: ...


@dataclass(frozen=True)
class Limit:
    """Where a measure of `dermalyze.imaging.quality.Appraisal` becomes bad.

    Attributes:
        end: its bad end.
        caution, refer: the limits of caution and of referral, in the unit of the measure.
        mild, hard: what is said where it is outside of the first, and of the second.
    """

    end: Literal["low", "high"]
    caution: float
    refer: float
    mild: str
    hard: str


@dataclass(frozen=True)
class ValidInput:
    """What an image must be for a model to answer.

    Attributes:
        limits: of image quality, by measure.
        small, tiny: shorter edge as a share of the network's: below the first an image is answered with caution, below the
            second referred.
        reference: a file beside this one with what images of this kind look like (`Likeness`); None: not recorded.
        reference_sources: kinds of data sources that `reference` describes.
    """

    limits: Mapping[str, Limit]
    small: float
    tiny: float
    reference: str | None = None
    reference_sources: tuple[str, ...] = ()

    def likeness(self, source: str | None) -> Likeness | None:
        """The reference for a model that was trained on a source and records none of its own; None where there is none."""
        if self.reference is None or source not in self.reference_sources:
            return None
        return Likeness.from_dict(json.loads(Path(__file__).with_name(self.reference).read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Words:
    """What people read about images of a kind, in lower case.

    Attributes:
        subject, subjects: what an image shows, one and several.
        background: what is around it.
    """

    subject: str
    subjects: str
    background: str


@dataclass(frozen=True)
class Modality:
    """A kind of images.

    Attributes:
        name: in `data.modality`, and the key of its row.
        title: for people.
        channels: of an image's array (H, W, channels).
        dtype: of the array, as numpy names it.
        decode: bytes to an image.
        valid: the limits of a valid input.
        augmentation: what `train.augment` is where the experiment does not say.
        words: what people read.
    """

    name: str
    title: str
    channels: int
    dtype: str
    decode: Decode
    valid: ValidInput
    augmentation: AugmentSpec
    words: Words

    def resolve(
        self, spec: PreprocessSpec, *, size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]
    ) -> Preprocessing:
        """The preprocessing of its images; see `Preprocessing.resolve`."""
        return Preprocessing.resolve(spec, size=size, mean=mean, std=std, dtype=self.dtype, modality=self.name)

    def read(self, data: bytes, **options: Any) -> Decoded:
        """Decode one file, and check that its array is as promised.

        Args:
            data: the file.
            options: of `decode`.

        Raises:
            ImageError: it is no image that is read, or its array has other channels or another type.
        """
        decoded = self.decode(data, **options)
        image = decoded.image
        if isinstance(image, Image.Image):  # asked for its mode: its array would be a copy of every pixel
            channels, dtype = len(image.getbands()), "uint8"
        else:
            channels, dtype = image.shape[2], str(image.dtype)
        if (channels, dtype) != (self.channels, self.dtype):
            raise ImageError(f"{channels} channel(s) of {dtype}; {self.name} takes {self.channels} of {self.dtype}")
        return decoded


# Set on HAM10000's training split: at most 0.5 % is outside of the limits of caution, and none outside of those of referral.
_PHOTOGRAPH_LIMITS = {
    "sharpness": Limit("low", 9.0, 3.0, "the image is blurred", "the image shows hardly any edge: it is blurred or empty"),
    "contrast": Limit(
        "low", 0.03, 0.012, "the image has little contrast", "the image shows next to nothing: it has no contrast"
    ),
    "dark": Limit("high", 0.25, 0.6, "much of the image is black", "the image is black, or nearly so"),
    "light": Limit("high", 0.4, 0.7, "much of the image is white", "the image is white, or nearly so"),
}
_SKIN = Words(subject="lesion", subjects="lesions", background="skin")

MODALITIES: dict[str, Modality] = {
    "dermoscopy": Modality(
        name="dermoscopy",
        title="Dermoscopy",
        channels=3,
        dtype="uint8",
        decode=decode,
        valid=ValidInput(
            limits=_PHOTOGRAPH_LIMITS,
            small=0.5,
            tiny=0.25,
            reference="dermoscopy.json",
            reference_sources=("ham10000", "isic", "isic2019", "isic2020"),
        ),
        augmentation=AugmentSpec(policy="standard"),
        words=_SKIN,
    ),
    "clinical": Modality(
        name="clinical",
        title="Clinical photograph",
        channels=3,
        dtype="uint8",
        decode=decode,
        valid=ValidInput(limits=_PHOTOGRAPH_LIMITS, small=0.5, tiny=0.25),
        augmentation=AugmentSpec(policy="standard"),
        words=_SKIN,
    ),
}


def modality(name: str) -> Modality:
    """The row of a name.

    Raises:
        ConfigError: there is none.

    >>> modality("dermoscopy").words.subject
    'lesion'
    """
    if name not in MODALITIES:
        raise ConfigError(
            f"modality '{name}' is not supported; allowed: {', '.join(MODALITIES)}{nearest(name, list(MODALITIES))}"
        )
    return MODALITIES[name]


def modality_of(data: DataSpec) -> Modality:
    """The modality of a data set's images.

    >>> modality_of(DataSpec()).title
    'Dermoscopy'
    """
    return modality(modality_name(data))
