"""The worst mistakes: which are chosen, in what order, and what stands where a picture is gone."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.report import failures
from dermalyze.report.evaluation_data import Evaluation
from dermalyze.scoring.predictions import Predictions

CLASSES = ["mel", "nv", "vasc"]


def judged(labels, logits, groups=None, classes=CLASSES):
    n = len(labels)
    meta = {"classes": classes, "set": "test", "task": "multiclass", "recipe": "plain"}
    p = Predictions(
        [f"i{k}" for k in range(n)], groups or [f"g{k}" for k in range(n)], np.array(labels), np.array(logits), None, meta
    )
    return Evaluation(p, EvaluateSpec(resamples=100), p.answering())


def ids(found, kind="all"):
    return [one["image_id"] for one in found["failures"][kind]["worst"]]


def test_the_surest_mistakes_come_first_one_a_group():
    labels = [0, 1, 0, 0, 2]
    logits = [[0, 3, 0], [0, 5, 0], [0, 6, 0], [0, 4, 0], [2, 0, 0]]
    found = failures.build(judged(labels, logits, groups=["a", "b", "a", "c", "d"]))
    assert ids(found) == ["i2", "i3", "i4"]  # i0 is of the same group as i2, and i1 is right
    assert ids(found, "mel") == ["i2", "i3"]
    assert found["failures"]["all"]["mistakes"] == 4
    first = found["failures"]["all"]["worst"][0]
    assert (first["label"], first["called"]) == ("mel", "nv")
    assert first["probability"] == pytest.approx(np.exp(6) / (np.exp(6) + 2))
    assert first["of_label"] == pytest.approx(1 / (np.exp(6) + 2))


def test_no_more_than_there_is_room_for():
    found = failures.build(judged([0] * 30, [[0.0, 1 + k / 10, 0] for k in range(30)]))
    assert ids(found) == [f"i{29 - k}" for k in range(failures.WORST)]


def test_nothing_is_shown_of_a_model_without_mistakes():
    j = judged([0, 1], [[1, 0, 0], [0, 1, 0]])
    m = {**failures.build(j), "n_images": 2}
    assert failures.view(m) is None


def test_a_set_without_melanoma_has_no_missed_ones():
    assert set(failures.build(judged([0], [[0, 1]], classes=["a", "b"]))["failures"]) == {"all"}


def test_pictures_that_are_gone_leave_their_frame():
    j = judged([0, 0], [[0, 1, 0], [0, 2, 0]])
    m = {**failures.build(j), "set": "test", "n_images": 2, "n_groups": 2, "recipe": "plain", "accepted_leak": None}
    assert failures.figures(m, j) == {}
    assert failures.figures(m, replace(j, picture=lambda image_id: None)) == {}
    red = np.full((30, 40, 3), (200, 0, 0), np.uint8)
    sheets = failures.figures(m, replace(j, picture=lambda image_id: red if image_id == "i1" else None))
    assert set(sheets) == {"worst_mistakes.png", "missed_melanomas.png"}
    with Image.open(io.BytesIO(sheets["worst_mistakes.png"].data)) as image:
        painted = (np.asarray(image.convert("RGB")) == (200, 0, 0)).all(axis=2).mean()
    assert 0.03 < painted < 0.25
