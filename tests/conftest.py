"""For all tests: torchvision importable, one torch thread, and no network by accident."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

if importlib.util.find_spec("torch") is not None:
    import torch

    from dermalyze.core import torch_guard

    torch_guard.install()
    torch.set_num_threads(1)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the repository that holds real data and weights; a test skips where what it needs is missing."""
    return SHARED
