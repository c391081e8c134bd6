from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dermalyze.config.model import ModelSpec
from dermalyze.errors import ModelError
from dermalyze.models import embedding
from dermalyze.models.backbones import create_backbone
from dermalyze.models.embedding import Embedder

SPEC = ModelSpec(backbone="tiny_cnn", pretrained=True)


def test_features_are_those_of_the_backbone_with_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    backbone = create_backbone(ModelSpec(backbone="tiny_cnn"), load_weights=False)
    asked = []

    def create(spec: ModelSpec, *, load_weights: bool) -> object:
        asked.append((spec, load_weights))
        return backbone.train()

    monkeypatch.setattr(embedding, "create_backbone", create)
    embedder = Embedder(SPEC)
    images = np.random.default_rng(0).normal(size=(3, 3, 48, 64)).astype(np.float32)
    found = embedder(images)
    assert asked == [(SPEC, True)]
    assert (embedder.size, embedder.width, found.shape, found.dtype) == ((96, 96), 96, (3, 96), np.float32)
    with torch.inference_mode():
        np.testing.assert_array_equal(found, backbone.eval().embed(torch.from_numpy(images)).numpy())
    np.testing.assert_allclose(embedder(images[1:2])[0], found[1], atol=1e-5)


def test_weights_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        Embedder(ModelSpec(backbone="tiny_cnn", weights=str(tmp_path / "gone.safetensors")))
