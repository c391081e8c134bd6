"""Drawn sequences of simple changes: RandAugment, TrivialAugment, AutoAugment.

On uint8 as published, image by image: the result depends on an image and its own random numbers, not on its batch. Two things
differ from the publications: what a shift, shear or turn uncovers is filled by reflection, not with gray, and all of them are
about the middle, so that the subject stays in the frame.
"""

# Shapes: B or K images, H x W pixels, R rounds (changes one after another).

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from dermalyze.rng import Floats
from dermalyze.training.warp import warp

COLUMNS = 4  # random numbers a round: which, how strong, which sign, whether at all


@dataclass(frozen=True)
class Round:
    """One change for each image.

    Attributes:
        op_B: indices into `OPS`.
        magnitude_B: in the operation's own unit, with its sign.
    """

    op_B: npt.NDArray[np.int64]
    magnitude_B: Floats

    def apply(self, images_BHW3: Tensor, first: int) -> Tensor:
        """Changed copies of images that are `first` and so on of the batch; uint8, as they are."""
        part = slice(first, first + len(images_BHW3))
        out = images_BHW3.permute(0, 3, 1, 2).clone()
        for number, (_, op) in enumerate(OPS):
            if op is not None and len(rows := np.flatnonzero(self.op_B[part] == number)):
                index = torch.from_numpy(rows).to(out.device, non_blocking=True)
                out[index] = op(out[index], self.magnitude_B[part][rows])
        return out.permute(0, 2, 3, 1)


# -- operations: (K, 3, H, W) uint8 and a magnitude an image to the same --
def _column(magnitude_K: Floats, like: Tensor) -> Tensor:
    return torch.from_numpy(magnitude_K.astype(np.float32)).to(like.device, non_blocking=True)[:, None, None, None]


def _moved(images: Tensor, entries: dict[tuple[int, int], Floats]) -> Tensor:
    """Resampled under affine maps that are the identity but for (row, column), one map per image."""
    matrix_K23 = np.tile(np.eye(2, 3), (len(images), 1, 1))
    for (row, column), values in entries.items():
        matrix_K23[:, row, column] = values
    return warp(images.permute(0, 2, 3, 1), matrix_K23).round_().clamp_(0, 255).byte()


def shear_x(images: Tensor, magnitude_K: Floats) -> Tensor:
    """Slanted; magnitude is the tangent."""
    return _moved(images, {(0, 1): magnitude_K * images.shape[2] / images.shape[3]})


def shear_y(images: Tensor, magnitude_K: Floats) -> Tensor:
    """Slanted; magnitude is the tangent."""
    return _moved(images, {(1, 0): magnitude_K * images.shape[3] / images.shape[2]})


def translate_x(images: Tensor, magnitude_K: Floats) -> Tensor:
    """Shifted to the right by a share of the width."""
    return _moved(images, {(0, 2): -2 * magnitude_K})


def translate_y(images: Tensor, magnitude_K: Floats) -> Tensor:
    """Shifted downward by a share of the height."""
    return _moved(images, {(1, 2): -2 * magnitude_K})


def rotate(images: Tensor, magnitude_K: Floats) -> Tensor:
    """Turned counter-clockwise by degrees."""
    ratio = images.shape[2] / images.shape[3]
    cos, sin = np.cos(np.radians(magnitude_K)), np.sin(np.radians(magnitude_K))
    return _moved(images, {(0, 0): cos, (0, 1): -sin * ratio, (1, 0): sin / ratio, (1, 1): cos})


def _grey(images: Tensor) -> Tensor:
    weight = torch.tensor([0.299, 0.587, 0.114]).to(images.device, non_blocking=True).view(1, 3, 1, 1)
    return (images.float() * weight).sum(1, keepdim=True).floor_()


def _blended(images: Tensor, other: Tensor | float, magnitude_K: Floats) -> Tensor:
    """Away from (above 0) or towards `other`, which it is at -1."""
    factor = _column(1 + magnitude_K, images)
    return (images.float() * factor + other * (1 - factor)).clamp_(0, 255).byte()


def brightness(images: Tensor, magnitude_K: Floats) -> Tensor:
    """Away from black."""
    return _blended(images, 0.0, magnitude_K)


def color(images: Tensor, magnitude_K: Floats) -> Tensor:
    """Away from gray: saturation."""
    return _blended(images, _grey(images), magnitude_K)


def contrast(images: Tensor, magnitude_K: Floats) -> Tensor:
    """Away from the mean gray."""
    total = _grey(images).to(torch.int32).sum(dim=(1, 2, 3), keepdim=True)  # integers: the same sum in any order
    return _blended(images, total.float() / (images.shape[2] * images.shape[3]), magnitude_K)


def sharpness(images: Tensor, magnitude_K: Floats) -> Tensor:
    """Away from a 3x3 smoothing; the frame's outermost pixels stay."""
    kernel = torch.ones(3, 1, 3, 3, device=images.device)
    kernel[:, :, 1, 1] = 5.0
    other = images.float()
    if min(images.shape[2:]) > 2:
        other[:, :, 1:-1, 1:-1] = F.conv2d(images.float(), kernel / 13, groups=3).round_()
    return _blended(images, other, magnitude_K)


def posterize(images: Tensor, magnitude_K: Floats) -> Tensor:
    """The lowest `magnitude` bits set to 0."""
    mask = torch.from_numpy(256 - 2 ** np.rint(magnitude_K).astype(np.int64)).byte()
    return images & mask.to(images.device, non_blocking=True)[:, None, None, None]


def solarize(images: Tensor, magnitude_K: Floats) -> Tensor:
    """Inverted where at least 255 - magnitude."""
    return torch.where(images >= _column(255 - magnitude_K, images), 255 - images, images)


def auto_contrast(images: Tensor, magnitude_K: Floats) -> Tensor:
    """Each channel stretched to 0..255."""
    low, high = (edge(dim=(2, 3), keepdim=True).float() for edge in (images.amin, images.amax))
    flat = low == high
    step = torch.where(flat, 1.0, (high - low) * (1 / 255))
    return ((images.float() - torch.where(flat, 0.0, low)) / step).clamp_(0, 255).byte()


def equalize(images: Tensor, magnitude_K: Floats) -> Tensor:
    """Each channel with a flat histogram, as Pillow makes it: counts of what is darker, in steps that end at the brightest."""
    values = images.flatten(2).long()
    counts = torch.zeros(*values.shape[:2], 256, dtype=torch.long, device=images.device)
    counts.scatter_add_(2, values, torch.ones_like(values))
    up_to = counts.cumsum(2)
    brightest = counts.gather(2, values.amax(2, keepdim=True))
    step = (values.shape[2] - brightest) // 255
    table = ((up_to - counts + step // 2) // step.clamp(min=1)).clamp_(0, 255)
    return torch.where(step > 0, table.gather(2, values), values).byte().view(images.shape)


def invert(images: Tensor, magnitude_K: Floats) -> Tensor:
    """The negative."""
    return 255 - images


OPS: tuple[tuple[str, Callable[[Tensor, Floats], Tensor] | None], ...] = (
    ("identity", None),
    ("shear_x", shear_x),
    ("shear_y", shear_y),
    ("translate_x", translate_x),
    ("translate_y", translate_y),
    ("rotate", rotate),
    ("brightness", brightness),
    ("color", color),
    ("contrast", contrast),
    ("sharpness", sharpness),
    ("posterize", posterize),
    ("solarize", solarize),
    ("auto_contrast", auto_contrast),
    ("equalize", equalize),
    ("invert", invert),
)
_NUMBER = {name: number for number, (name, _) in enumerate(OPS)}
_SIGNED = np.array([1 <= number <= _NUMBER["sharpness"] for number in range(len(OPS))])
# Strongest magnitude of each operation, in the order of OPS: of RandAugment and AutoAugment, and of TrivialAugment (wide, whose
# shift of 32 pixels is taken at an edge of 224).
_NARROW = np.array([0, 0.3, 0.3, 150 / 331, 150 / 331, 30, 0.9, 0.9, 0.9, 0.9, 4, 255, 0, 0, 0])
_WIDE = np.array([0, 0.99, 0.99, 32 / 224, 32 / 224, 135, 0.99, 0.99, 0.99, 0.99, 6, 255, 0, 0, 0])
_LEVELS = 30  # magnitudes are multiples of a thirtieth of the strongest

_Half = tuple[str, float, int]
IMAGENET: tuple[tuple[_Half, _Half], ...] = (  # operation, probability, magnitude in ninths of the strongest
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 0)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 0), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 0)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 0)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 0), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 0)),
    (("equalize", 0.0, 0), ("equalize", 0.8, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 0)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 0)),
    (("color", 0.4, 0), ("equalize", 0.6, 0)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
)
_PAIR_OPS = np.array([[_NUMBER[name] for name, _, _ in pair] for pair in IMAGENET])
_PAIR_SHARES = np.array([[share for _, share, _ in pair] for pair in IMAGENET])
_PAIR_STRENGTHS = np.array([[level / 9 * _NARROW[_NUMBER[name]] for name, _, level in pair] for pair in IMAGENET])


# -- which, and how strong --
def randaugment(random_BR4: Floats, magnitude: int) -> list[Round]:
    """Any operation but the negative in each round, all at one magnitude, of either sign.

    Args:
        random_BR4: in [0, 1).
        magnitude: 0..30.

    Cubuk et al. 2020, arXiv:1909.13719
    """
    op_BR = (random_BR4[:, :, 0] * _NUMBER["invert"]).astype(np.int64)
    return _rounds(op_BR, np.full(op_BR.shape, magnitude / _LEVELS) * _NARROW[op_BR], random_BR4)


def trivialaugment(random_BR4: Floats, magnitude: int) -> list[Round]:
    """Any operation but the negative, at any magnitude of a wide range.

    Müller & Hutter 2021, arXiv:2103.10158
    """
    op_BR = (random_BR4[:, :, 0] * _NUMBER["invert"]).astype(np.int64)
    level_BR = np.floor(random_BR4[:, :, 1] * (_LEVELS + 1)) / _LEVELS
    return _rounds(op_BR, level_BR * _WIDE[op_BR], random_BR4)


def autoaugment(random_BR4: Floats, magnitude: int) -> list[Round]:
    """One of the 25 pairs of operations that were found on ImageNet.

    Cubuk et al. 2019, arXiv:1805.09501, table 9
    """
    pair_B = (random_BR4[:, 0, 0] * len(IMAGENET)).astype(np.int64)
    op_BR, strength_BR = _PAIR_OPS[pair_B], _PAIR_STRENGTHS[pair_B]
    return _rounds(np.where(random_BR4[:, :, 3] < _PAIR_SHARES[pair_B], op_BR, 0), strength_BR, random_BR4)


def _rounds(op_BR: npt.NDArray[np.int64], strength_BR: Floats, random_BR4: Floats) -> list[Round]:
    sign_BR = np.where(_SIGNED[op_BR] & (random_BR4[:, :, 2] < 0.5), -1.0, 1.0)
    return [Round(op_BR[:, r], strength_BR[:, r] * sign_BR[:, r]) for r in range(op_BR.shape[1])]


AUTO: dict[str, Callable[[Floats, int], list[Round]]] = {
    "randaugment": randaugment,
    "trivialaugment": trivialaugment,
    "autoaugment": autoaugment,
}
