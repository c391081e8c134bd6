"""Overlays: in place, the same for every scale of a map, cold where it is cold."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np

from dermalyze.report.heat import COLOURS, contoured, heat_of, overlay, scale_css


def test_heat_lies_where_the_map_does_and_is_free_of_its_scale() -> None:
    found = np.zeros((4, 6), np.float32)
    found[0, 5] = 0.003
    heat = heat_of(found, 40, 60)
    assert np.unravel_index(int(heat.argmax()), heat.shape)[0] < 10
    assert np.unravel_index(int(heat.argmax()), heat.shape)[1] >= 50
    assert np.allclose(heat, heat_of(found * 1000, 40, 60), atol=1e-5)


def test_a_map_against_the_class_is_cold_and_leaves_the_picture() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    cold = heat_of(-np.ones((4, 6), np.float32), 40, 60)
    assert not cold.any()
    assert (overlay(image, cold) == image).all()
    hot = overlay(image, np.ones((40, 60), np.float32)).astype(float)
    assert (hot.std(axis=(0, 1)) > 0.3 * image.std(axis=(0, 1))).all(), "the lesion is no longer seen"


def test_colours_rise_in_lightness_for_everybody() -> None:
    colours = np.asarray(mpl.colormaps[COLOURS](np.linspace(0, 1, 32)))[:, :3]
    luma = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luma) > 0).all()
    assert scale_css().count("rgb(") > 4


def test_the_outline_is_drawn_on_the_outline() -> None:
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    drawn = contoured(np.full((20, 20, 3), 128, np.uint8), mask)
    assert (drawn[5, 5:15] == 255).all()
    assert (drawn[4, 5:15] == 30).all()
    assert (drawn[8:12, 8:12] == 128).all()
    assert (drawn[:2] == 128).all()
