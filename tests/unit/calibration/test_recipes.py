"""Inference recipes against their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dermalyze.calibration.recipes import RECIPES, apply_recipe, brighten, passes, pool, turn
from dermalyze.config.inference import InferenceSpec
from dermalyze.errors import ModelError
from dermalyze.imaging.samples import as_batch
from dermalyze.metrics.activation import softmax

Array = NDArray[np.float32]
IMAGES = np.random.default_rng(3).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
MAP = np.random.default_rng(4).normal(size=(6 * 5 * 3, 7)) / 500


def forward(batch: Any) -> tuple[Array, Array]:
    """Any function of pixels and their places."""
    images_BHW3 = as_batch(batch)["image"]
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


def test_tta_is_the_listed_views_and_no_other() -> None:
    views = RECIPES["tta"](IMAGES)
    expected = [
        IMAGES, IMAGES[:, :, ::-1], IMAGES[:, ::-1],
        turn(IMAGES, 5), turn(IMAGES, -5), brighten(IMAGES, 1.1), brighten(IMAGES, 0.9),
    ]  # fmt: skip
    assert len(views) == len(expected)
    for view, wanted in zip(views, expected, strict=True):
        assert view.dtype == np.uint8
        assert np.array_equal(view, wanted)
    probabilities = np.mean([softmax(forward(np.ascontiguousarray(view))[0]) for view in expected], axis=0)
    assert np.allclose(softmax(apply_recipe("tta", forward, IMAGES)[0]), probabilities, atol=1e-6)


@pytest.mark.parametrize("name", list(RECIPES))
def test_an_image_gets_the_same_answer_alone_and_in_a_batch(name: str) -> None:
    """The views of one image may not depend on its neighbours, or predict would differ from score."""
    for together, alone in zip(RECIPES[name](IMAGES), RECIPES[name](IMAGES[1:2]), strict=True):
        assert np.array_equal(together[1:2], alone)


@pytest.mark.parametrize("name", list(RECIPES))
def test_answers_are_the_pool_of_the_passes(name: str) -> None:
    samples, embedding = passes(name, forward, IMAGES)
    assert samples.shape == (4, len(RECIPES[name](IMAGES)), 7)
    answer = apply_recipe(name, forward, IMAGES)
    assert np.array_equal(answer[0], pool(samples))
    assert np.array_equal(answer[1], embedding)


def test_pool_is_the_mean_of_probabilities() -> None:
    samples = np.random.default_rng(5).normal(size=(6, 3, 4)).astype(np.float32) * 5
    mean = np.mean([softmax(samples[:, k]) for k in range(3)], axis=0)
    assert np.allclose(softmax(pool(samples)), mean, atol=1e-6)
    assert not np.allclose(softmax(samples.mean(axis=1)), mean, atol=1e-2), "the mean of logits is something else"
    assert np.array_equal(pool(samples[:, :1]), samples[:, 0])


@pytest.mark.parametrize("degrees", [5, -5, 30])
def test_turn_equals_pillow_away_from_the_edge(degrees: float) -> None:
    """Pillow counts in fixed point, so one gray level of difference is its rounding."""
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((64, 48))
    theirs = np.asarray(smooth.rotate(degrees, Image.Resampling.BILINEAR)).astype(int)[16:-16, 20:-20]
    ours = turn(np.asarray(smooth)[None], degrees)[0].astype(int)[16:-16, 20:-20]
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(ours - np.asarray(smooth).astype(int)[16:-16, 20:-20]).max() > 5


def test_turns_and_brightness_of_known_pictures() -> None:
    for quarter in (1, 2, 3):
        square = IMAGES[:, :5]
        assert np.array_equal(turn(square, 90 * quarter), np.rot90(square, quarter, axes=(1, 2)))
    assert np.array_equal(turn(IMAGES, 0), IMAGES)
    flat = np.full((1, 9, 12, 3), 77, np.uint8)
    assert np.array_equal(turn(flat, 5), flat), "nothing dark may come in at the corners"
    assert brighten(IMAGES, 1.0) is not IMAGES
    assert np.array_equal(brighten(IMAGES, 1.0), IMAGES)


def test_extreme_logits_stay_finite() -> None:
    def certain(batch: Any) -> tuple[Array, Array]:
        images = as_batch(batch)["image"]
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


def test_every_image_of_a_sample_is_seen_in_the_same_view_and_the_rest_as_it_is() -> None:
    images = np.random.default_rng(3).integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)
    rows = np.ones((2, 4), np.float32)
    seen: list[Any] = []

    def watched(batch: Any) -> tuple[Array, Array]:
        seen.append(batch)
        return forward(batch["image"])

    for name in RECIPES:
        seen.clear()
        apply_recipe(name, watched, {"image": images, "image_2": images, "metadata": rows})
        assert len(seen) == len(RECIPES[name](images))
        for batch in seen:
            assert list(batch) == ["image", "image_2", "metadata"]
            np.testing.assert_array_equal(batch["image"], batch["image_2"])
            assert batch["metadata"] is rows
