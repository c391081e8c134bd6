"""Detectors on images whose truth is known: drawn here, or invented by `synth` with its plan available."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dermalyze.data.synthetic.photo import draw_session
from dermalyze.data.synthetic.plan import plan_set
from dermalyze.data.synthetic.synth import synthesize
from dermalyze.imaging.photo_artifacts import ARTIFACTS, LEAST_PX, evenness, jpeg_quality, measure, rim_colors

LESIONS, SEED = 160, 11


def skin(seed=0, size=(200, 150)):
    """Noisy pink skin with a round brown lesion in the middle."""
    image = Image.new("RGB", size, (225, 170, 160))
    middle = size[0] // 2, size[1] // 2
    ImageDraw.Draw(image).ellipse([(middle[0] - 35, middle[1] - 30), (middle[0] + 35, middle[1] + 30)], fill=(120, 70, 50))
    noise = np.random.default_rng(seed).normal(0, 2, (size[1], size[0], 1))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def seen(image):
    """Names of the artifacts that are found."""
    look = measure(np.asarray(image))
    return {name for name, artifact in ARTIFACTS.items() if getattr(look, name) >= artifact.threshold}


def draw_hair(image):
    for k in range(4):
        ImageDraw.Draw(image).line([(20 + 30 * k, 10), (60 + 30 * k, 140)], fill=(50, 30, 30), width=2)


def draw_ruler(image):
    for k in range(7):
        ImageDraw.Draw(image).line([(40 + 12 * k, 138), (40 + 12 * k, 145)], fill=(30, 30, 30), width=2)


def draw_ink(image):
    ImageDraw.Draw(image).line([(5, 20), (40, 8)], fill=(70, 40, 150), width=9)


def draw_dark_corners(image):
    rim = Image.new("L", image.size, 255)
    ImageDraw.Draw(rim).ellipse([(5, -20), (195, 170)], fill=0)
    image.paste((5, 5, 5), mask=rim)


def draw_glare(image):
    for k in range(4):
        ImageDraw.Draw(image).ellipse([(30 + 9 * k, 30), (32 + 9 * k, 33)], fill=(255, 255, 255))


DRAWN = {
    "hair": draw_hair,
    "ruler": draw_ruler,
    "ink": draw_ink,
    "dark_corners": draw_dark_corners,
    "glare": draw_glare,
}


def test_every_artifact_has_a_picture_here():
    assert set(DRAWN) == set(ARTIFACTS)


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("turned", [False, True])
def test_what_is_drawn_is_found_and_nothing_else(name, turned):
    image = skin()
    assert seen(image) == set()
    DRAWN[name](image)
    assert seen(image.rotate(90, expand=True) if turned else image) == {name}


def test_what_only_resembles_an_artifact():
    uneven, few, blue, vessels = (skin(k) for k in range(4))
    for x in (30, 37, 60, 78, 90, 140, 149):
        ImageDraw.Draw(uneven).line([(x, 138), (x, 145)], fill=(30, 30, 30), width=2)
    for x in (30, 42):
        ImageDraw.Draw(few).line([(x, 138), (x, 145)], fill=(30, 30, 30), width=2)
    ImageDraw.Draw(blue).ellipse([(30, 40), (170, 110)], fill=(60, 50, 140))  # a blue lesion in the middle
    for x in (10, 35, 145, 170):
        ImageDraw.Draw(vessels).line([(x, 10), (x + 20, 140)], fill=(222, 90, 95), width=2)
    assert [seen(image) for image in (uneven, few, blue, vessels)] == [set()] * 4


@pytest.fixture(scope="module")
def invented(tmp_path_factory):
    """(session, measures) of each invented photograph."""
    root = tmp_path_factory.mktemp("looks") / "set"
    synthesize(root, lesions=LESIONS, seed=SEED, balance="even", images_per_lesion=1.0, workers=1)
    found = []
    for plan in plan_set(LESIONS, SEED, "even", 1.0)[1]:
        session = draw_session(np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=(1, plan.index, 4))))
        with Image.open(root / plan.files[0][0]) as image:
            found.append((session, measure(np.asarray(image.convert("RGB")))))
    return found


@pytest.mark.parametrize(
    ("name", "there", "absent", "sensitivity", "specificity"),
    [
        ("hair", lambda s: s.hairs >= 8 and sum(s.hair_colour) < 1, lambda s: s.hairs == 0, 0.9, 0.85),
        ("ruler", lambda s: s.ruler, lambda s: not s.ruler, 0.8, 0.98),
        ("dark_corners", lambda s: s.tube < 0.9, lambda s: s.tube > 1, 0.9, 0.98),
    ],
    ids=["hair", "ruler", "dark corners"],
)
def test_sensitivity_and_specificity_on_invented_photographs(invented, name, there, absent, sensitivity, specificity):
    threshold = ARTIFACTS[name].threshold
    found = [getattr(look, name) >= threshold for session, look in invented if there(session)]
    false = [getattr(look, name) >= threshold for session, look in invented if absent(session)]
    assert len(found) >= 5
    assert np.mean(found) >= sensitivity
    assert 1 - np.mean(false) >= specificity


def test_no_invented_lesion_passes_for_ink_and_few_for_glare(invented):
    assert np.mean([look.ink >= ARTIFACTS["ink"].threshold for _, look in invented]) <= 0.01
    assert np.mean([look.glare >= ARTIFACTS["glare"].threshold for _, look in invented]) <= 0.10


def test_statistics_agree_with_their_definitions():
    pixels = np.random.default_rng(1).integers(0, 256, (50, 70, 3), np.uint8)
    look, x = measure(pixels), pixels.astype(float)
    luma = 0.299 * x[..., 0] + 0.587 * x[..., 1] + 0.114 * x[..., 2]
    edges = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * luma[1:-1, 1:-1]
    assert look.brightness == pytest.approx(luma.mean() / 255, abs=1e-5)
    assert look.contrast == pytest.approx(luma.std() / 255, abs=1e-5)
    assert look.sharpness == pytest.approx(edges.var(), rel=1e-4)
    assert look.saturation == pytest.approx(np.mean((x.max(2) - x.min(2)) / np.maximum(x.max(2), 1)), abs=1e-5)
    assert (look.red, look.green, look.blue) == pytest.approx(tuple(x.mean((0, 1)) / 255), abs=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (3, 150), (28, 28), (LEAST_PX - 1, 60)])
def test_small_and_narrow_pictures(size):
    look = measure(np.full((*size, 3), 200, np.uint8))
    assert math.isnan(look.hair) == (max(size) < LEAST_PX)
    assert look.brightness == pytest.approx(200 / 255, abs=1e-6)
    assert rim_colors(np.full((*size, 3), 200, np.uint8)).tolist() == [200] * 72


def test_the_rim_is_blind_to_the_middle():
    pixels = np.zeros((150, 200, 3), np.uint8)
    pixels[25:125, 25:175] = 255
    assert rim_colors(pixels).max() == 0
    pixels[:10, :10] = 255
    assert (rim_colors(pixels) > 0).sum() == 3


def test_an_even_row_among_others():
    even = np.array([0.0, 9.0, 18.1, 27.0])
    assert evenness(np.zeros(4), even) == 4.0
    assert evenness(np.zeros(8), np.concatenate([even, [70.0, 101.0, 140.0, 199.0]])) == 2.0
    assert evenness(np.zeros(2), even[:2]) == 0.0
    assert evenness(np.zeros(61), np.arange(61) * 9.0) == 0.0


@pytest.mark.parametrize("quality", [20, 50, 75, 92])
def test_jpeg_quality_of_what_pillow_wrote(quality):
    buffer = io.BytesIO()
    skin().save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        assert jpeg_quality(list(image.quantization.values())) == pytest.approx(quality, abs=1)
