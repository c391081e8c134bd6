"""The worst mistakes: which are chosen, in what order, and what stands where an image is gone."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.report import largest_errors
from dermalyze.report.evaluation_data import Evaluation
from dermalyze.scoring.predictions import Predictions

CLASSES = ["mel", "nv", "vasc"]


def judged(labels, logits, groups=None, classes=CLASSES, focus="auto"):
    n = len(labels)
    meta = {"classes": classes, "set": "test", "task": "multiclass", "recipe": "plain"}
    p = Predictions(
        [f"i{k}" for k in range(n)], groups or [f"g{k}" for k in range(n)], np.array(labels), np.array(logits), None, meta
    )
    return Evaluation(p, EvaluateSpec(resamples=100, focus=focus), p.answering())


def ids(found, missed=None):
    errors = found["largest_errors"]
    return [one["image_id"] for one in (errors["all"] if missed is None else errors["missed"][missed])["worst"]]


def test_the_surest_mistakes_come_first_one_a_group():
    labels = [0, 1, 0, 0, 2]
    logits = [[0, 3, 0], [0, 5, 0], [0, 6, 0], [0, 4, 0], [2, 0, 0]]
    found = largest_errors.build(judged(labels, logits, groups=["a", "b", "a", "c", "d"]))
    assert ids(found) == ["i2", "i3", "i4"]  # i0 is of the same group as i2, and i1 is right
    assert ids(found, "mel") == ["i2", "i3"]
    assert found["largest_errors"]["all"]["mistakes"] == 4
    first = found["largest_errors"]["all"]["worst"][0]
    assert (first["label"], first["called"]) == ("mel", "nv")
    assert first["probability"] == pytest.approx(np.exp(6) / (np.exp(6) + 2))
    assert first["of_label"] == pytest.approx(1 / (np.exp(6) + 2))


def test_no_more_than_there_is_room_for():
    found = largest_errors.build(judged([0] * 30, [[0.0, 1 + k / 10, 0] for k in range(30)]))
    assert ids(found) == [f"i{29 - k}" for k in range(largest_errors.WORST)]


def test_nothing_is_shown_of_a_model_without_mistakes():
    j = judged([0, 1], [[1, 0, 0], [0, 1, 0]])
    m = {**largest_errors.build(j), "n_images": 2}
    assert largest_errors.view(m) is None


def test_a_set_without_melanoma_has_no_missed_ones():
    assert largest_errors.build(judged([0], [[0, 1]], classes=["a", "b"]))["largest_errors"]["missed"] == {}


def test_each_class_of_the_focus_has_its_missed_images():
    j = judged([0, 1, 2], [[0, 3, 0], [2, 0, 0], [1, 0, 0]], focus=["vasc", "nv"])
    m = {**largest_errors.build(j), "set": "test", "n_images": 3, "n_groups": 3, "recipe": "plain", "accepted_leak": None}
    assert {name: kind["mistakes"] for name, kind in m["largest_errors"]["missed"].items()} == {"vasc": 1, "nv": 1}
    assert (ids(m, "vasc"), ids(m, "nv")) == (["i2"], ["i1"])
    gray = np.full((30, 40, 3), 90, np.uint8)
    sheets = largest_errors.figures(m, replace(j, thumbnail=lambda image_id: gray))
    assert list(sheets) == ["largest_errors.png", "missed_vasc.png", "missed_nv.png"]
    assert sheets["missed_nv.png"].caption.startswith("Missed images of Melanocytic nevi:")


def test_pictures_that_are_gone_leave_their_frame():
    j = judged([0, 0], [[0, 1, 0], [0, 2, 0]])
    m = {**largest_errors.build(j), "set": "test", "n_images": 2, "n_groups": 2, "recipe": "plain", "accepted_leak": None}
    assert largest_errors.figures(m, j) == {}
    assert largest_errors.figures(m, replace(j, thumbnail=lambda image_id: None)) == {}
    red = np.full((30, 40, 3), (200, 0, 0), np.uint8)
    sheets = largest_errors.figures(m, replace(j, thumbnail=lambda image_id: red if image_id == "i1" else None))
    assert set(sheets) == {"largest_errors.png", "missed_mel.png"}
    with Image.open(io.BytesIO(sheets["largest_errors.png"].data)) as image:
        painted = (np.asarray(image.convert("RGB")) == (200, 0, 0)).all(axis=2).mean()
    assert 0.03 < painted < 0.25
