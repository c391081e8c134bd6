"""Pixels to a network's input: the same numbers in training, evaluation and serving. numpy and Pillow only."""

# Shapes: B images, H height, W width.

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermalyze.errors import ConfigError, ModelError
from dermalyze.imaging.enhance import enhanced, good_steps, require_steps
from dermalyze.imaging.samples import IMAGE, Input

if TYPE_CHECKING:
    from dermalyze.config.data import PreprocessSpec  # not above: to answer, no configuration is read

DTYPES = ("uint8", "uint16")
MAX_CHANNELS = 512
SMALL_PX = 200
"""Longer edge at which an image is appraised: what is finer, small networks do not see either."""


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become a network's input; the same numbers in training, export and serving.

    Attributes:
        kind: "squash" (whole frame to size), "resize_crop" (shorter edge, then center crop) or "pad" (whole frame, black bars).
        height, width: of the input, px, 8..4096.
        crop_ratio: resize_crop: crop edge / resized edge, in (0, 1].
        mean, std: of each channel on a scale of 0..1; std above 0.
        draft: decode JPEG files at a reduced scale where that is enough (see `decode`): faster, and slightly other pixels.
        dtype: of the pixels, "uint8" or "uint16".
        modality: of the images; a key of `dermalyze.imaging.modalities.MODALITIES`.
        steps: changes of color and contrast before the resize, in order: the kind, a key of `enhance.STEPS`, and its settings.
    """

    kind: Literal["squash", "resize_crop", "pad"]
    height: int
    width: int
    crop_ratio: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    draft: bool = False
    dtype: str = "uint8"
    modality: str = "dermoscopy"
    steps: tuple[Mapping[str, Any], ...] = ()

    @property
    def geometry(self) -> Preprocessing:
        """The same frame without the steps: for masks, and for an image as people see it."""
        return replace(self, steps=())

    @property
    def image(self) -> Input:
        """The network's input that is made so."""
        return Input(IMAGE, self.dtype, (self.height, self.width, len(self.mean)))

    @property
    def least(self) -> Callable[[int, int], tuple[int, int]] | None:
        """For `decode`: the size that a whole frame is resized to, or None where it is to be decoded in full."""
        return self.resized if self.draft and not self.steps else None

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) that a whole frame of that size is resized to, before it is cropped or padded.

        >>> half = (0.5, 0.5, 0.5)
        >>> Preprocessing("resize_crop", 224, 224, 0.875, half, half).resized(600, 450)
        (341, 256)
        """
        return _SIZES[self.kind](width, height, self)

    @classmethod
    def resolve(
        cls,
        spec: PreprocessSpec,
        *,
        size: tuple[int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        dtype: str = "uint8",
        modality: str = "dermoscopy",
    ) -> Preprocessing:
        """Fill what the spec leaves open with the backbone's own size (height, width), mean and std.

        Args:
            spec: `preprocess`.
            size, mean, std: of the backbone.
            dtype, modality: of the images; see `dermalyze.imaging.modalities.Modality.resolve`.

        >>> from dermalyze.config.data import PreprocessSpec
        >>> half = (0.5, 0.5, 0.5)
        >>> Preprocessing.resolve(PreprocessSpec(size=64), size=(224, 224), mean=half, std=half).width
        64
        """
        chosen = spec.size if spec.size is not None else size
        height, width = (chosen, chosen) if isinstance(chosen, int) else chosen
        values: dict[str, Any] = {
            "kind": spec.kind,
            "height": height,
            "width": width,
            "crop_ratio": spec.crop_ratio,
            "draft": spec.draft,
        }
        values |= {"dtype": dtype, "modality": modality}
        if spec.steps:
            if dtype != "uint8" or len(mean) != 3:
                raise ConfigError(f"preprocess.steps: are for RGB in eight bits, not for {len(mean)} x {dtype}; leave them out")
            values["steps"] = [step.model_dump(mode="json") for step in spec.steps]
        return cls.from_dict({**values, "mean": list(spec.mean or mean), "std": list(spec.std or std)})

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready fields; `steps` only where there are some."""
        values = {**asdict(self), "mean": list(self.mean), "std": list(self.std), "steps": [dict(step) for step in self.steps]}
        return values if self.steps else {name: value for name, value in values.items() if name != "steps"}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """Read and check the fields of `as_dict`.

        Raises:
            ModelError: a field is missing, unknown, of the wrong type or out of range.
            MissingExtraError: a step needs what is not installed.
        """
        names = set(cls.__dataclass_fields__) - {"steps"}
        if not isinstance(values, dict) or set(values) - {"steps"} != names:
            found = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise ModelError(f"preprocessing: has {found}, must have {sorted(names)}; export the model again")

        def number(value: Any) -> bool:
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

        def channels(value: Any, low: float) -> bool:
            return isinstance(value, list | tuple) and len(value) == count and all(number(v) and v > low for v in value)

        count = min(max(1, len(values["mean"])), MAX_CHANNELS) if isinstance(values["mean"], list | tuple) else 0

        edges = (values["height"], values["width"])
        good = {
            "kind": isinstance(values["kind"], str) and values["kind"] in _SIZES,
            "height and width": all(type(e) is int and 8 <= e <= 4096 for e in edges),
            "crop_ratio": number(values["crop_ratio"]) and 0 < values["crop_ratio"] <= 1,
            "mean": channels(values["mean"], -math.inf),
            "std": channels(values["std"], 0),
            "draft": isinstance(values["draft"], bool),
            "dtype": values["dtype"] in DTYPES,
            "modality": isinstance(values["modality"], str),
            "steps": good_steps(values.get("steps", [])),
        }
        bad = [name for name, fine in good.items() if not fine]
        if bad:
            raise ModelError(f"preprocessing: {', '.join(bad)} out of range or of the wrong type; export the model again")
        floats = {name: tuple(float(v) for v in values[name]) for name in ("mean", "std")}
        steps = tuple(dict(step) for step in values.get("steps", ()))
        require_steps(steps)
        return cls(**{**values, "crop_ratio": float(values["crop_ratio"]), "steps": steps, **floats})


def to_size(image: NDArray[Any] | Image.Image, p: Preprocessing) -> NDArray[Any]:
    """Bring an image to the network's size: (p.height, p.width, channels), of its own dtype.

    Pillow's bilinear filter, whose support widens when it reduces (antialias), is the one resize everywhere. What is not
    RGB in eight bits goes through it channel by channel, in float32.

    Args:
        image: (H, W, channels) uint8 or uint16, or Pillow's image of mode RGB, any size.
        p: steps, kind, height, width and crop_ratio are used.

    >>> p = Preprocessing("pad", 8, 8, 1.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    >>> to_size(np.full((10, 20, 3), 9, np.uint8), p)[:, 0, 0].tolist()
    [0, 0, 9, 9, 9, 9, 0, 0]
    """
    if p.steps:
        image = enhanced(image, p.steps)
    if isinstance(image, Image.Image):
        return np.asarray(_framed(image, p), np.uint8)
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(_framed(Image.fromarray(np.ascontiguousarray(image)), p), np.uint8)
    planes = [_framed(Image.fromarray(plane.astype(np.float32)), p) for plane in np.moveaxis(image, 2, 0)]
    return np.stack([np.rint(np.asarray(plane)) for plane in planes], axis=2).astype(image.dtype)


def _framed(image: Image.Image, p: Preprocessing) -> Image.Image:
    """An image of any mode at (p.width, p.height)."""
    size = p.resized(*image.size)
    resized = image.resize(size, Image.Resampling.BILINEAR)
    if size == (p.width, p.height):
        return resized
    left, top = round((size[0] - p.width) / 2), round((size[1] - p.height) / 2)
    if p.kind == "resize_crop":  # as torchvision's CenterCrop
        return resized.crop((left, top, left + p.width, top + p.height))
    frame = Image.new(image.mode, (p.width, p.height))
    frame.paste(resized, ((p.width - size[0]) // 2, (p.height - size[1]) // 2))
    return frame


def small(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of an image, its longer edge at most `SMALL_PX`.

    >>> small(Image.new("RGB", (400, 300))).shape
    (150, 200, 3)
    """
    scale = SMALL_PX / max(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(image, np.uint8)


def _squash(width: int, height: int, p: Preprocessing) -> tuple[int, int]:
    return p.width, p.height


def _resize_crop(width: int, height: int, p: Preprocessing) -> tuple[int, int]:
    """As torchvision's Resize(floor(size / crop_ratio)), generalized to a frame that is not square."""
    if p.height * width >= p.width * height:  # the height is what limits
        tall = math.floor(p.height / p.crop_ratio)
        return max(p.width, tall * width // height), tall
    wide = math.floor(p.width / p.crop_ratio)
    return wide, max(p.height, wide * height // width)


def _pad(width: int, height: int, p: Preprocessing) -> tuple[int, int]:
    scale = min(p.height / height, p.width / width)
    return max(1, min(p.width, round(width * scale))), max(1, min(p.height, round(height * scale)))


_SIZES: dict[str, Callable[[int, int, Preprocessing], tuple[int, int]]] = {
    "squash": _squash,
    "resize_crop": _resize_crop,
    "pad": _pad,
}


def normalize(pixels_BHWK: NDArray[Any], p: Preprocessing) -> NDArray[np.float32]:
    """(x / 255 - mean) / std as (B, channels, H, W) float32, computed in float32 in the order of the exported graph.

    Args:
        pixels_BHWK: uint8; of uint16 it is x / 65535.
        p: mean and std are used.

    >>> p = Preprocessing("squash", 8, 8, 1.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    >>> normalize(np.full((1, 8, 8, 3), 255, np.uint8), p)[0, :, 0, 0].tolist()
    [1.0, 1.0, 1.0]
    """
    unit = pixels_BHWK.astype(np.float32) / np.float32(np.iinfo(pixels_BHWK.dtype).max)
    scaled = (unit - np.asarray(p.mean, np.float32)) / np.asarray(p.std, np.float32)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
