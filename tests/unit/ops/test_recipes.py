"""Inference recipes against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dermalyze.config.experiment import InferenceSpec
from dermalyze.core.errors import ModelError
from dermalyze.ops.recipes import RECIPES, apply_recipe, softmax

Array = NDArray[np.float32]
IMAGES = np.random.default_rng(3).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
MAP = np.random.default_rng(4).normal(size=(6 * 5 * 3, 7)) / 500


def forward(images_BHW3: NDArray[np.uint8]) -> tuple[Array, Array]:
    """Any function of pixels and their places."""
    assert images_BHW3.flags.c_contiguous
    logits = (images_BHW3.reshape(-1, len(MAP)) @ MAP).astype(np.float32)
    return logits, images_BHW3[:, 0, 0].astype(np.float32)


def test_table_and_spec_name_the_same_recipes() -> None:
    for name in RECIPES:
        assert InferenceSpec(recipe=name).recipe == name
    assert set(InferenceSpec.model_fields["recipe"].annotation.__args__) == set(RECIPES)


def test_plain_is_the_network_itself() -> None:
    for ours, theirs in zip(apply_recipe("plain", forward, IMAGES), forward(IMAGES), strict=True):
        assert np.array_equal(ours, theirs)


def test_flips_are_the_mean_probability_of_four_views() -> None:
    views = [IMAGES, IMAGES[:, :, ::-1], IMAGES[:, ::-1], IMAGES[:, ::-1, ::-1]]
    outputs = [forward(np.ascontiguousarray(view)) for view in views]
    probabilities = np.mean([softmax(logits) for logits, _ in outputs], axis=0)
    logits, embedding = apply_recipe("flips", forward, IMAGES)
    assert np.allclose(softmax(logits), probabilities, atol=1e-6)
    assert not np.allclose(softmax(logits), softmax(forward(IMAGES)[0]), atol=1e-3), "the views must differ for this to test"
    assert np.allclose(embedding, np.mean([e for _, e in outputs], axis=0), atol=1e-4)
    assert logits.dtype == embedding.dtype == np.float32


@pytest.mark.parametrize("axis", [(1,), (2,), (1, 2)])
def test_flips_do_not_see_mirroring(axis: tuple[int, ...]) -> None:
    one, other = (apply_recipe("flips", forward, images)[0] for images in (IMAGES, np.flip(IMAGES, axis)))
    assert np.allclose(one, other, atol=1e-5)


def test_extreme_logits_stay_finite() -> None:
    def certain(images: NDArray[np.uint8]) -> tuple[Array, Array]:
        return np.tile(np.array([1e4, -1e4, 0], np.float32), (len(images), 1)), np.zeros((len(images), 1), np.float32)

    logits, _ = apply_recipe("flips", certain, IMAGES)
    assert np.isfinite(logits).all()
    assert np.allclose(softmax(logits).sum(axis=1), 1)


@pytest.mark.parametrize("name", list(RECIPES))
def test_empty_batch(name: str) -> None:
    logits, embedding = apply_recipe(name, forward, IMAGES[:0])
    assert (logits.shape, embedding.shape) == ((0, 7), (0, 3))


def test_unknown_recipe() -> None:
    with pytest.raises(ModelError, match="did you mean 'flips'"):
        apply_recipe("flip", forward, IMAGES)
