"""Resampling of images under affine and projective maps."""

# Shapes: B images, H x W pixels.

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dermalyze.rng import Floats

_CORNERS = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def warp(images_BHW3: Tensor, matrix_B23: Floats) -> Tensor:
    """Bilinear resampling; what lies outside is filled by reflection.

    Args:
        images_BHW3: uint8.
        matrix_B23: maps from output to input, in coordinates -1..1 across the image; (B, 3, 3) where they are projective.

    Returns:
        (B, 3, H, W) float32 in 0..255.
    """
    batch, height, width, _ = images_BHW3.shape
    device = images_BHW3.device
    matrix = torch.from_numpy(matrix_B23.astype(np.float32)).to(device, non_blocking=True)
    x = (2 * torch.arange(width, device=device) + 1) / width - 1
    y = (2 * torch.arange(height, device=device) + 1) / height - 1
    grid = torch.empty(batch, height, width, matrix.shape[1], device=device)
    for axis in range(matrix.shape[1]):
        row = matrix[:, axis, 0, None] * x + matrix[:, axis, 2, None]
        column = matrix[:, axis, 1, None] * y
        torch.add(row[:, None, :], column[:, :, None], out=grid[..., axis])
    if matrix.shape[1] == 3:
        grid = grid[..., :2] / grid[..., 2:]
    return F.grid_sample(
        images_BHW3.permute(0, 3, 1, 2).float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def resized(images_BHW3: Tensor, size: tuple[int, int]) -> Tensor:
    """Images at another (height, width), bilinear with antialiasing; uint8 in and out, and themselves where nothing changes.

    >>> resized(torch.tensor([[[[0] * 3, [100] * 3]]], dtype=torch.uint8), (1, 1)).flatten().tolist()
    [50, 50, 50]
    """
    if tuple(images_BHW3.shape[1:3]) == size:
        return images_BHW3
    pixels = images_BHW3.permute(0, 3, 1, 2).float()
    out = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    return out.round_().clamp_(0, 255).byte().permute(0, 2, 3, 1)


def perspective(inward_B42: Floats) -> Floats:
    """Maps, from output to input, under which the image's corners move inwards.

    Args:
        inward_B42: by how much, of half the edge, 0..1 (not 1); corners from the top left clockwise, x and y.

    Returns:
        (B, 3, 3), in coordinates -1..1.

    >>> map_33 = perspective(np.array([[[0.5, 0.25], [0, 0], [0, 0], [0, 0]]]))[0]
    >>> x, y, scale = map_33 @ [-0.5, -0.75, 1.0]
    >>> float(round(x / scale, 6)), float(round(y / scale, 6))
    (-1.0, -1.0)
    """
    moved_B42 = _CORNERS * (1 - inward_B42)
    x, y = moved_B42[..., 0], moved_B42[..., 1]
    one, zero = np.ones_like(x), np.zeros_like(x)
    system = [
        np.stack(row, -1)
        for row in (
            [x, y, one, zero, zero, zero, -_CORNERS[:, 0] * x, -_CORNERS[:, 0] * y],
            [zero, zero, zero, x, y, one, -_CORNERS[:, 1] * x, -_CORNERS[:, 1] * y],
        )
    ]
    target = np.broadcast_to(np.concatenate([_CORNERS[:, 0], _CORNERS[:, 1]]), (len(x), 8))
    solved = np.linalg.solve(np.concatenate(system, 1), target[..., None])[..., 0]
    return np.concatenate([solved, np.ones((len(x), 1))], 1).reshape(-1, 3, 3)
