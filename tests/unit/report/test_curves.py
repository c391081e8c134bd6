"""Precision-recall and decision figures are PNGs, repeatable, whatever is missing."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dermalyze.metrics.decision_curve import decision_curve
from dermalyze.metrics.scores import Scores
from dermalyze.report.curves import decision_curve as draw_decision
from dermalyze.report.curves import pr_curves

NONE = {"value": None, "low": None, "high": None, "n": 0, "note": "not estimable (n = 0)"}
SOME = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 12, "note": ""}
STEP = (np.array([0.5, 1.0, 1.0]), np.array([1.0, 1.0, 0.5]))


def precision(leak=None):
    names = ["a", "_b", "$c", "d", "e"]
    return pr_curves([STEP, None, STEP, STEP, STEP], names, [SOME, NONE, SOME, SOME, SOME], images=40, title="t", leak=leak)


def decision(leak=None, groups=40):
    labels = np.tile([0, 0, 0, 1], 10)
    score = np.where(labels == 1, 0.6, 0.2) + np.arange(40) / 200
    scores = Scores(labels, np.stack([1 - score, score], axis=1))
    curve = decision_curve(scores, [str(k % groups) for k in range(40)], resamples=100, level=0.95, seed=0)
    return draw_decision(curve.as_dict(), "malignancy", title="t", leak=leak)


def red(data):
    image = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert 900 <= image.shape[1] <= 1700
    return int(((image[..., 0] > 150) & (image[..., 1] < 60) & (image[..., 2] < 80)).sum())


@pytest.mark.parametrize("figure", [precision, decision])
def test_repeatable_and_stamped_where_a_leak_was_accepted(figure):
    plain = figure()
    assert plain == figure()
    assert red(figure(leak="to show")) > red(plain) + 300


def test_a_band_is_drawn_only_where_there_are_groups_enough():
    assert decision(groups=40) != decision(groups=4)
