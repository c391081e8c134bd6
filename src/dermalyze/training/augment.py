"""Random changes of training images, a batch at a time, on whatever device the batch is on.

Every random number comes from (seed, epoch, draw position), so an image's augmentation depends on neither the batch it is
in nor the number of workers. Flip, rotation, shift and zoom are one affine map and one resampling; brightness, contrast,
saturation and hue are one 3x4 color matrix; what is switched off costs nothing, and nothing waits for the device.
"""

# Shapes: B images, H x W pixels, C classes.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.special import betaincinv
from torch import Tensor

from dermalyze.config.train import AugmentSpec
from dermalyze.imaging.samples import IMAGE, METADATA, PRESENT, image_names
from dermalyze.imaging.tabular import Encoder
from dermalyze.rng import AUGMENT, HIDE, MIX, OPTIONAL, POLICY, Floats, Ints, uniforms
from dermalyze.training.auto_augment import AUTO, COLUMNS, Round
from dermalyze.training.warp import perspective, warp


@dataclass(frozen=True)
class Policy:
    """What `AugmentSpec` leaves open. Same names and units; 0 (scale: 1 to 1) is off."""

    hflip: float = 0.0
    vflip: float = 0.0
    rotate_deg: float = 0.0
    translate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    blur: float = 0.0
    cutout: float = 0.0
    perspective: float = 0.0
    ops: int = 0
    magnitude: int = 0
    affine_deg: float = 0.0
    """a second, independent rotation that adds to the first; off when the spec gives rotate_deg"""


POLICIES: dict[str, Policy] = {
    "none": Policy(),
    # The frame stays as it is: for small sets of standardized images, and as a cautious baseline.
    "conservative": Policy(hflip=0.5, vflip=0.5, brightness=0.1, contrast=0.1),
    # The Dermalyze document's list: rotation 25 degrees, then an affine map with 15 more.
    "standard": Policy(
        hflip=0.5,
        vflip=0.3,
        rotate_deg=25.0,
        affine_deg=15.0,
        translate=0.1,
        scale=(0.9, 1.1),
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        hue=0.1,
        blur=0.1,
        cutout=0.1,
    ),
    # Such images have no upright: any angle. Light goes further than the document's; hue less far: it carries the diagnosis.
    "strong": Policy(
        hflip=0.5,
        vflip=0.5,
        rotate_deg=180.0,
        translate=0.15,
        scale=(0.8, 1.25),
        brightness=0.3,
        contrast=0.3,
        saturation=0.3,
        hue=0.05,
        blur=0.2,
        cutout=0.25,
    ),
    # Made for photographs: solarizing, inverting or equalizing changes the colors that a diagnosis rests on.
    "randaugment": Policy(hflip=0.5, vflip=0.5, ops=2, magnitude=9),
    "trivialaugment": Policy(hflip=0.5, vflip=0.5, ops=1),
    "autoaugment": Policy(hflip=0.5, vflip=0.5, ops=2),
}

# Column of each random number. Fixed, so that switching one change on or off leaves the others as they were.
_COLUMNS = (
    "hflip", "vflip", "rotate", "affine", "shift_x", "shift_y", "scale", "brightness", "contrast", "saturation", "hue",
    "blur", "sigma", "cutout", "area", "aspect", "top", "left", *(f"corner_{i}" for i in range(8)),
)  # fmt: skip
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as the gray of Pillow and torchvision
_TO_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
_SIGMA = (0.1, 2.0)  # blur in pixels where the short edge has 224
_AREA = (0.02, 0.15)  # cutout's share of the image
_CHUNK_PX = 500_000
_ASPECT = 3.0  # cutout's height / width within 1/3 .. 3


def resolve(spec: AugmentSpec) -> Policy:
    """The spec's policy with the fields given in the spec put over it.

    >>> resolve(AugmentSpec(policy="standard", rotate_deg=90, blur=0)).affine_deg
    0.0
    """
    given = {f.name: getattr(spec, f.name) for f in fields(Policy) if getattr(spec, f.name, None) is not None}
    if "rotate_deg" in given:
        given["affine_deg"] = 0.0
    return replace(POLICIES[spec.policy or "standard"], **given)


@torch.no_grad()
def augment(images_BHW3: Tensor, spec: AugmentSpec, *, seed: int, epoch: int, positions_B: npt.ArrayLike) -> Tensor:
    """Randomly changed images.

    Color jitter draws factors uniform in 1 ± brightness, contrast and saturation and a hue turn uniform in ± hue, and clips
    once at the end. A perspective moves each corner inwards by a share of half the edge, uniform in 0 to `perspective`. What
    the map uncovers is filled by reflection. Blur draws its sigma from 0.1 to 2 pixels at a short edge of 224, cutout a
    rectangle of 2 to 15 % of the area, filled with the image's mean color. The operations of `auto_augment` come before all.

    Args:
        images_BHW3: uint8 RGB, any device; not changed.
        spec: `train.augment`; mixup and cutmix are `mix`'s.
        seed, epoch: the address of the random numbers.
        positions_B: draw position of each image within the epoch.

    Returns:
        (B, 3, H, W) float32 in 0..1, not normalized, laid out channels last.

    >>> images = torch.full((1, 2, 2, 3), 51, dtype=torch.uint8)
    >>> augment(images, AugmentSpec(policy="none"), seed=42, epoch=0, positions_B=[0])[0, 0]
    tensor([[0.2000, 0.2000],
            [0.2000, 0.2000]])
    """
    batch, height, width, _ = images_BHW3.shape
    device = images_BHW3.device
    policy = resolve(spec)
    drawn = uniforms(seed, epoch, positions_B, len(_COLUMNS), stream=AUGMENT)
    rounds: list[Round] = []
    if spec.policy in AUTO:
        random_BR4 = uniforms(seed, epoch, positions_B, policy.ops * COLUMNS, stream=POLICY).reshape(batch, policy.ops, COLUMNS)
        rounds = AUTO[spec.policy](random_BR4, policy.magnitude)
    # On a CPU a few images at a time: what lies between the steps then stays in the cache, which halves the time.
    chunk = max(1, _CHUNK_PX // (height * width)) if device.type == "cpu" else max(1, batch)
    out = torch.empty(batch, 3, height, width, device=device, memory_format=torch.channels_last)
    with torch.autocast(device.type, enabled=False):
        for first in range(0, batch, chunk):
            random = dict(zip(_COLUMNS, drawn[first : first + chunk].T, strict=True))
            part = images_BHW3[first : first + chunk]
            for changes in rounds:
                part = changes.apply(part, first)
            out[first : first + chunk] = _augment(part, policy, random)
    return out


def _augment(images_BHW3: Tensor, policy: Policy, random: dict[str, Floats]) -> Tensor:
    batch, height, width, _ = images_BHW3.shape
    mean_B3 = (
        _mean_colours(images_BHW3) if policy.contrast or policy.cutout else torch.zeros(batch, 3, device=images_BHW3.device)
    )
    flip_x, flip_y = random["hflip"] < policy.hflip, random["vflip"] < policy.vflip
    if policy.rotate_deg or policy.affine_deg or policy.translate or policy.scale != (1.0, 1.0) or policy.perspective:
        matrix = _affine(policy, random, flip_x, flip_y, height / width)
        if policy.perspective:
            inward = policy.perspective * np.stack([random[f"corner_{i}"] for i in range(8)], -1).reshape(-1, 4, 2)
            whole = np.concatenate([matrix, np.broadcast_to([[[0.0, 0.0, 1.0]]], (len(matrix), 1, 3))], 1)
            matrix = whole @ perspective(inward)
        images = warp(images_BHW3, matrix)
    else:
        images = _flip(images_BHW3, flip_x, flip_y).permute(0, 3, 1, 2).float()
    if policy.brightness or policy.contrast or policy.saturation or policy.hue:
        images, fill_B3 = _recolour(images, policy, random, mean_B3)
    else:
        images, fill_B3 = images.div_(255.0), mean_B3 / 255
    if len(chosen := np.flatnonzero(random["blur"] < policy.blur)):
        sigma_K = (_SIGMA[0] + (_SIGMA[1] - _SIGMA[0]) * random["sigma"][chosen]) * min(height, width) / 224
        rows = torch.from_numpy(chosen).to(images.device, non_blocking=True)
        images[rows] = _blur(images[rows], sigma_K)
    for row in np.flatnonzero(random["cutout"] < policy.cutout):
        area = (_AREA[0] + (_AREA[1] - _AREA[0]) * random["area"][row]) * height * width
        aspect = _ASPECT ** (2 * random["aspect"][row] - 1)
        edge_y = min(height, max(1, round(math.sqrt(area * aspect))))
        edge_x = min(width, max(1, round(math.sqrt(area / aspect))))
        top, left = int(random["top"][row] * (height - edge_y + 1)), int(random["left"][row] * (width - edge_x + 1))
        images[row, :, top : top + edge_y, left : left + edge_x] = fill_B3[row].clamp(0, 1)[:, None, None]
    return images


def _mean_colours(images_BHW3: Tensor) -> Tensor:
    """(B, 3) mean of each channel, 0..255, from a grid of at most about 50 x 50 pixels: it need not be exact."""
    step_y, step_x = (max(1, edge // 48) for edge in images_BHW3.shape[1:3])
    sample = images_BHW3[:, ::step_y, ::step_x].to(torch.int32)
    total = sample.sum(dim=(1, 2))  # integers: the same sum in any order
    return total.float() / (sample.shape[1] * sample.shape[2])


def _affine(
    policy: Policy, random: dict[str, Floats], flip_x: npt.NDArray[np.bool_], flip_y: npt.NDArray[np.bool_], ratio: float
) -> Floats:
    """(B, 2, 3) maps from output to input, in coordinates -1..1; `ratio` is height / width, so that circles stay circles."""
    angle = np.radians(policy.rotate_deg * (2 * random["rotate"] - 1) + policy.affine_deg * (2 * random["affine"] - 1))
    zoom = policy.scale[0] + (policy.scale[1] - policy.scale[0]) * random["scale"]
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    linear = np.stack([np.stack([cos, sin * ratio], -1), np.stack([-sin / ratio, cos], -1)], 1)
    shift = 2 * policy.translate * (2 * np.stack([random["shift_x"], random["shift_y"]], -1) - 1)
    offset = -(linear @ shift[:, :, None])
    sign = np.where(np.stack([flip_x, flip_y], -1), -1.0, 1.0)[:, :, None]
    return np.asarray(np.concatenate([linear, offset], 2) * sign)


def _flip(images_BHW3: Tensor, flip_x: npt.NDArray[np.bool_], flip_y: npt.NDArray[np.bool_]) -> Tensor:
    """Exact flips, without resampling."""
    images = images_BHW3
    for flips, axis in ((flip_x, 2), (flip_y, 1)):
        if len(rows := np.flatnonzero(flips)):
            images = images.clone() if images is images_BHW3 else images
            index = torch.from_numpy(rows).to(images.device, non_blocking=True)
            images[index] = images[index].flip(axis)
    return images


def _recolour(images: Tensor, policy: Policy, random: dict[str, Floats], mean_B3: Tensor) -> tuple[Tensor, Tensor]:
    """Images 0..255 changed in color, 0..1, and what becomes of their mean colors.

    Brightness scales; contrast scales about the mean gray; saturation scales, and hue turns, the plane of chroma (YIQ), which
    leaves grays alone. All are linear, so they compose.
    """
    batch, _, height, width = images.shape
    bright, contrast, saturation = (
        1 + getattr(policy, name) * (2 * random[name] - 1) for name in ("brightness", "contrast", "saturation")
    )
    angle = 2 * np.pi * policy.hue * (2 * random["hue"] - 1)
    cos, sin = saturation * np.cos(angle), saturation * np.sin(angle)
    one, zero = np.ones_like(cos), np.zeros_like(cos)
    turn = np.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], -1).reshape(-1, 3, 3)
    matrix_B33 = _tensor((bright * contrast)[:, None, None] * (_FROM_YIQ @ turn @ _TO_YIQ) / 255, images.device)
    grey_B3 = _tensor(((1 - contrast) * bright / 255)[:, None] * _LUMA, images.device)
    offset_B11 = (grey_B3 * mean_B3).sum(1)[:, None, None]
    out = torch.bmm(matrix_B33, images.reshape(batch, 3, height * width)).add_(offset_B11).clamp_(0.0, 1.0)
    return out.view(batch, 3, height, width), (torch.bmm(matrix_B33, mean_B3[:, :, None]) + offset_B11)[:, :, 0]


def _tensor(values: npt.NDArray[np.floating[Any]], device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(device, non_blocking=True)


def _blur(images_K3HW: Tensor, sigma_K: Floats) -> Tensor:
    """Gaussian blur, a sigma per image, as two one-dimensional convolutions."""
    count, channels, height, width = images_K3HW.shape
    radius = max(1, math.ceil(3 * float(sigma_K.max())))
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma_K[:, None]) ** 2)
    kernel /= kernel.sum(1, keepdims=True)
    weight = _tensor(kernel, images_K3HW.device).repeat_interleave(channels, 0)[:, None, None, :]
    flat = images_K3HW.reshape(1, count * channels, height, width)
    flat = F.conv2d(F.pad(flat, (radius, radius, 0, 0), mode="replicate"), weight, groups=count * channels)
    flat = F.conv2d(F.pad(flat, (0, 0, radius, radius), mode="replicate"), weight.transpose(2, 3), groups=count * channels)
    return flat.view(count, channels, height, width)


@torch.no_grad()
def mix(
    batch: Mapping[str, Tensor], target: Tensor, spec: AugmentSpec, *, seed: int, epoch: int, step: int
) -> tuple[Mapping[str, Tensor], Tensor]:
    """Mixup or cutmix: each sample blended with, or pasted over by a box of, another of the batch, and the target likewise.

        lambda ~ Beta(a, a);   target = lambda t + (1 - lambda) t_other

    One lambda and one box per batch, for every image of a sample. Metadata are blended; a blend has an optional image where
    both samples have it. Where both are on, a fair coin decides. Where both are off, the arguments come back.

    Args:
        batch: inputs by name, images (B, 3, H, W) float; not changed.
        target: float (B, ...).
        spec: its `mixup` and `cutmix` are the Beta parameters, 0 is off.
        seed, epoch, step: the address of the random numbers.

    Returns:
        Inputs and target, new tensors.

    Zhang et al. 2018, arXiv:1710.09412; Yun et al. 2019, arXiv:1905.04899
    """
    if not (spec.mixup or spec.cutmix):
        return batch, target
    count, device = len(target), target.device
    coin, share, top, left, *ranks = uniforms(seed, epoch, [step], 4 + count, stream=MIX)[0]
    other = torch.from_numpy(np.argsort(ranks, kind="stable")).to(device, non_blocking=True)
    cut = bool(spec.cutmix) and (not spec.mixup or coin < 0.5)
    beta = spec.cutmix if cut else spec.mixup
    keep = float(betaincinv(beta, beta, share))  # the inverse of Beta's distribution function
    mixed, images = dict(batch), image_names(batch)
    if cut:
        (y0, y1), (x0, x1), keep = _box(batch[IMAGE].shape[2:], keep, top, left)
    for name, values in batch.items():
        if values.dtype == torch.bool:
            mixed[name] = values & values[other]
        elif cut and name in images:
            mixed[name] = values.clone()
            mixed[name][:, :, y0:y1, x0:x1] = values[other, :, y0:y1, x0:x1]
        else:
            mixed[name] = torch.lerp(values[other], values, keep)
    return mixed, torch.lerp(target[other], target, keep)


def _box(size: Sequence[int], keep: float, top: float, left: float) -> tuple[tuple[int, int], tuple[int, int], float]:
    """A box of 1 - keep of the area, cut at the frame: its rows, its columns, and the share that is really kept."""
    height, width = size
    edge = math.sqrt(1 - keep)
    (y0, y1), (x0, x1) = (
        (max(0, round(size * (at - edge / 2))), min(size, round(size * (at + edge / 2))))
        for size, at in ((height, top), (width, left))
    )
    return (y0, y1), (x0, x1), 1 - (y1 - y0) * (x1 - x0) / (height * width)


OTHER_DRAWS = 1 << 40
"""Added to a draw position for each further image of a sample: no epoch is so long."""


def augment_images(
    batch: Mapping[str, Tensor], spec: AugmentSpec, *, seed: int, epoch: int, positions_B: Ints
) -> dict[str, Tensor]:
    """`augment` for every image of a batch, each with its own draw; the other inputs as they are.

    Args:
        batch: inputs by name; images (B, H, W, 3) uint8.
        spec, seed, epoch, positions_B: as for `augment`.

    Returns:
        The same names; images (B, 3, H, W) float32, 0..1, not normalized.
    """
    return dict(batch) | {
        name: augment(batch[name], spec, seed=seed, epoch=epoch, positions_B=positions_B + number * OTHER_DRAWS)
        for number, name in enumerate(image_names(batch))
    }


def hide_inputs(
    batch: Mapping[str, Tensor],
    hide: Mapping[str, float],
    *,
    seed: int,
    epoch: int,
    positions_B: Ints,
    encoder: Encoder | None = None,
) -> dict[str, Tensor]:
    """Take optional inputs away from some samples, so that the network meets missing ones.

    Args:
        batch: inputs by name, on the CPU.
        hide: by name (an optional image, or `metadata`, whose columns are hidden one by one) the share that is taken away.
        seed, epoch, positions_B: the address of the random numbers.
        encoder: of the metadata.
    """
    changed = dict(batch)
    if PRESENT in batch:
        optional = [name for name in image_names(batch) if name != IMAGE]
        drawn_BK = uniforms(seed, epoch, positions_B, len(optional), stream=OPTIONAL)
        kept_BK = drawn_BK >= np.array([hide.get(name, 0.0) for name in optional])
        changed[PRESENT] = batch[PRESENT] & torch.from_numpy(kept_BK)
    if METADATA in batch and encoder is not None:
        drawn_BK = uniforms(seed, epoch, positions_B, len(encoder.columns), stream=HIDE)
        rows_BM = encoder.hidden(batch[METADATA].numpy(), drawn_BK < hide.get(METADATA, 0.0))
        changed[METADATA] = torch.from_numpy(rows_BM)
    return changed
