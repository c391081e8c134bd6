"""The operations of RandAugment and the like against torchvision's, and their tables against its."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, InterpolationMode, RandAugment, TrivialAugmentWide
from torchvision.transforms.v2 import functional as tv

from dermalyze.training import auto_augment as ours
from dermalyze.training.warp import perspective, warp

torch.set_num_threads(1)
OPS = dict(ours.OPS)
PLAIN: dict[str, Any] = {  # our name: torchvision's function of an image and our magnitude
    "brightness": lambda image, m: tv.adjust_brightness(image, 1 + m),
    "color": lambda image, m: tv.adjust_saturation(image, 1 + m),
    "contrast": lambda image, m: tv.adjust_contrast(image, 1 + m),
    "sharpness": lambda image, m: tv.adjust_sharpness(image, 1 + m),
    "posterize": lambda image, m: tv.posterize(image, 8 - int(m)),
    "solarize": lambda image, m: tv.solarize(image, 255 - m),
    "auto_contrast": lambda image, m: tv.autocontrast(image),
    "equalize": lambda image, m: tv.equalize(image),
    "invert": lambda image, m: tv.invert(image),
}
BILINEAR = InterpolationMode.BILINEAR
MOVES: dict[str, Any] = {
    "shear_x": lambda image, m: tv.affine(image, 0.0, [0, 0], 1.0, [math.degrees(math.atan(m)), 0.0], BILINEAR),
    "shear_y": lambda image, m: tv.affine(image, 0.0, [0, 0], 1.0, [0.0, math.degrees(math.atan(m))], BILINEAR),
    "translate_x": lambda image, m: tv.affine(image, 0.0, [round(m * 60), 0], 1.0, [0.0, 0.0], BILINEAR),
    "translate_y": lambda image, m: tv.affine(image, 0.0, [0, round(m * 40)], 1.0, [0.0, 0.0], BILINEAR),
    "rotate": lambda image, m: tv.rotate(image, m, BILINEAR),
}


def pictures() -> Tensor:
    """Smooth and noisy ones, a flat one, one of few levels, and one of a narrow range, (5, 3, 40, 60)."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 5, 7, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (40, 60), mode="bicubic").clamp(0, 1)
    noise = torch.rand(1, 3, 40, 60, generator=generator)
    flat = torch.full((1, 3, 40, 60), 0.4)
    few = (noise * 3).floor() / 3
    return (torch.cat([smooth, noise, flat, few, 0.3 + 0.2 * smooth]) * 255).round().byte()


@pytest.mark.parametrize("name", PLAIN)
def test_colours(name: str) -> None:
    images = pictures()
    magnitudes = {"posterize": [0.0, 1, 2, 3, 4], "solarize": [0.0, 50, 100, 200, 255]}.get(name, [-0.9, -0.3, 0.0, 0.3, 0.9])
    found = OPS[name](images, np.array(magnitudes))  # type: ignore[misc]
    for image, magnitude, out in zip(images, magnitudes, found, strict=True):
        off = (out.int() - PLAIN[name](image, magnitude).int()).abs()
        if name in ("color", "sharpness"):  # weights of gray that differ by 1e-4, sums in another order
            assert off.max() <= 1
            assert (off > 0).float().mean() < 0.3
        else:
            assert off.max() == 0


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("sign", [-1, 1])
def test_moves(name: str, sign: int) -> None:
    """In the middle, where nothing is uncovered."""
    images = pictures()[:1]
    magnitude = sign * {"rotate": 17.0, "translate_x": 0.1, "translate_y": 0.1}.get(name, 0.2)
    found = OPS[name](images, np.array([magnitude]))[0]  # type: ignore[misc]
    expected = MOVES[name](images[0], magnitude)
    middle = (slice(None), slice(14, 26), slice(20, 40))
    assert (found.int() - expected.int()).abs()[middle].max() <= 1
    assert not torch.equal(found[middle], images[0][middle])


def test_perspective() -> None:
    images = pictures()[:1]
    inward = np.array([[[0.2, 0.1], [0.05, 0.3], [0.15, 0.0], [0.0, 0.25]]])
    found = warp(images.permute(0, 2, 3, 1), perspective(inward))[0]
    start = [[0, 0], [60, 0], [60, 40], [0, 40]]
    sign = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    end = (np.array(start) + sign * inward[0] * [30, 20]).tolist()
    # torchvision's grid has its pixels' centers half a pixel off the corners that it is given
    coefficients = solve([[x, y] for x, y in end], start)
    expected = tv.perspective(images[0].float(), None, None, BILINEAR, coefficients=coefficients)
    middle = (slice(None), slice(14, 26), slice(20, 40))
    assert (found - expected).abs()[middle].max() < 2


def solve(to: list[list[float]], source: list[list[int]]) -> list[float]:
    rows, right = [], []
    for (x, y), (u, v) in zip(to, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    return np.linalg.lstsq(np.array(rows, dtype=float), np.array(right, dtype=float), rcond=None)[0].tolist()


def test_the_pairs_of_autoaugment() -> None:
    theirs = AutoAugment(AutoAugmentPolicy.IMAGENET)
    spelled = {name.replace("_", ""): name for name, _ in ours.OPS}
    named = [tuple((spelled[name.lower()], share, level or 0) for name, share, level in pair) for pair in theirs.policies]
    assert named == list(ours.IMAGENET)


@pytest.mark.parametrize(("theirs", "table"), [(RandAugment(), ours._NARROW), (TrivialAugmentWide(), ours._WIDE)])
def test_the_magnitudes(theirs: Any, table: Any) -> None:
    wide = isinstance(theirs, TrivialAugmentWide)
    space = theirs._augmentation_space(31) if wide else theirs._augmentation_space(31, (224, 224))
    assert [name.lower() for name in space] == [name.replace("_", "") for name, _ in ours.OPS[:-1]]
    for number, (name, (levels, signed)) in enumerate(space.items()):
        assert bool(ours._SIGNED[number]) == signed
        if levels.ndim == 0:
            assert table[number] == 0
            continue
        mine = np.arange(31) / 30 * table[number]
        mine = {"Posterize": 8 - np.rint(mine), "Solarize": 255 - mine}.get(name, mine)
        mine = mine * 224 if name.startswith("Translate") else mine
        np.testing.assert_allclose(mine, levels.numpy(), atol=1e-4)


def test_draws_have_the_shares_they_should() -> None:
    random = np.random.default_rng(0).random((20_000, 2, ours.COLUMNS))
    for rounds, strengths in ((ours.randaugment(random, 9), 1), (ours.trivialaugment(random[:, :1], 0), 31)):
        for each in rounds:
            counts = np.bincount(each.op_B, minlength=15)
            assert counts[-1] == 0, "the negative is AutoAugment's alone"
            assert np.abs(counts[:-1] / 20_000 - 1 / 14).max() < 0.01
            turned = each.magnitude_B[each.op_B == 5]
            assert abs((turned > 0).mean() - 0.5) < 0.06
            assert len(np.unique(np.abs(turned).round(6))) == strengths
    first, second = ours.autoaugment(random, 0)
    pairs = np.bincount(first.op_B * 15 + second.op_B, minlength=225) / 20_000
    names = [name for name, _ in ours.OPS]
    posterize, solarize = names.index("posterize"), names.index("solarize")
    assert abs(pairs[posterize * 15 + posterize] - 0.6 * 0.6 / 25) < 0.004
    assert abs((second.op_B == solarize).mean() - (0.2 + 0.6 + 0.8 + 0.2) / 25) < 0.01


@pytest.mark.parametrize("policy", ours.AUTO)
def test_an_image_does_not_depend_on_its_batch(policy: str) -> None:
    """Bit for bit."""
    images = pictures().permute(0, 2, 3, 1).repeat(12, 1, 1, 1)
    random = np.random.default_rng(1).random((60, 2, ours.COLUMNS))
    whole = images
    for changes in ours.AUTO[policy](random, 9):
        whole = changes.apply(whole, 0)
    for at in range(0, 60, 7):
        part = images[at : at + 7]
        for changes in ours.AUTO[policy](random, 9):
            part = changes.apply(part, at)
        assert torch.equal(part, whole[at : at + 7])
    assert not torch.equal(whole, images)
