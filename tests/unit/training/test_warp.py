"""Resampling: what is the identity changes nothing, sizes shrink as an independent resize shrinks them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from dermalyze.training.warp import perspective, resized, warp

torch.set_num_threads(1)
NOISE = torch.randint(0, 256, (3, 24, 36, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(2, 3), (3, 3)])
def test_the_identity(shape: tuple[int, int]) -> None:
    out = warp(NOISE, np.tile(np.eye(*shape), (3, 1, 1)))
    torch.testing.assert_close(out, NOISE.permute(0, 3, 1, 2).float(), rtol=0, atol=1e-2)
    assert np.allclose(perspective(np.zeros((1, 4, 2))), np.eye(3))


@pytest.mark.parametrize("size", [(12, 18), (18, 27), (7, 36)])
def test_as_pillow_resizes(size: tuple[int, int]) -> None:
    found = resized(NOISE, size)
    assert found.shape == (3, *size, 3)
    assert found.dtype == torch.uint8
    for image, out in zip(NOISE, found, strict=True):
        expected = Image.fromarray(image.numpy()).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(expected).astype(int) - out.numpy()).max() <= 1


def test_the_same_size_is_the_same_tensor() -> None:
    assert resized(NOISE, (24, 36)) is NOISE


def test_corners_move_where_they_are_told() -> None:
    inward = np.random.default_rng(0).uniform(0, 0.8, (5, 4, 2))
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    moved = np.concatenate([corners * (1 - inward), np.ones((5, 4, 1))], 2)
    back = moved @ perspective(inward).transpose(0, 2, 1)
    np.testing.assert_allclose(back[..., :2] / back[..., 2:], np.broadcast_to(corners, (5, 4, 2)), atol=1e-9)
