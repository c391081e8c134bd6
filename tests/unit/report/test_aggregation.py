"""An image, a lesion, a patient: figures by hand, and nothing where nobody is known."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.report.aggregation import HEADLINE, build, view
from dermalyze.report.evaluation_data import Evaluation
from dermalyze.report.html import template
from dermalyze.report.text import MEANINGS
from dermalyze.scoring.predictions import Predictions

CLASSES = ["bkl", "mel", "nv"]


def judged(seed=0, patients=40, classes=CLASSES, **columns):
    """Patients of one to three lesions of one to three images; groups are patients."""
    generator = np.random.default_rng(seed)
    lesion_of_patient = np.repeat(np.arange(patients), generator.integers(1, 4, size=patients))
    lesion = np.repeat(np.arange(len(lesion_of_patient)), generator.integers(1, 4, size=len(lesion_of_patient)))
    labels = generator.integers(len(classes), size=len(lesion_of_patient))[lesion]
    logits = generator.normal(size=(len(lesion), len(classes))) + 1.2 * np.eye(len(classes))[labels]
    ids = [f"i{k}" for k in range(len(lesion))]
    patient = [f"P{p}" for p in lesion_of_patient[lesion]]
    rows = pd.DataFrame({"lesion_id": [f"L{k}" for k in lesion], "patient_id": patient, **columns}, index=ids)
    p = Predictions(
        ids, patient, labels, logits, None, {"classes": list(classes), "set": "test", "task": "multiclass", "recipe": "plain"}
    )
    return Evaluation(p, EvaluateSpec(resamples=100), p.answering(), rows=rows)


def frame_of(j):
    return pd.DataFrame(j.scores.probs, columns=j.classes).assign(
        label=j.scores.labels, lesion=j.rows["lesion_id"].to_numpy(), patient=j.rows["patient_id"].to_numpy()
    )


def test_lesions_and_patients_by_hand():
    j = judged()
    units = build(j)["units"]
    lesions = (
        frame_of(j).groupby("lesion", sort=False).agg({**dict.fromkeys(CLASSES, "mean"), "label": "first", "patient": "first"})
    )
    assert units["lesion"]["n"] == len(lesions)
    called = lesions[CLASSES].to_numpy().argmax(axis=1)
    assert units["lesion"]["metrics"]["accuracy"]["value"] == pytest.approx(accuracy_score(lesions["label"], called))
    assert set(units["lesion"]["metrics"]) == set(HEADLINE)
    lesions["bad"] = lesions["label"] == 1
    patients = lesions.groupby("patient").agg({"mel": "max", "bad": "max"})
    found = units["patient"]["malignant"]
    assert units["patient"]["n"] == len(patients)
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score(patients["bad"], patients["mel"]))
    assert found["recall"]["value"] == pytest.approx((patients["mel"][patients["bad"]] > 0.5).mean())
    assert found["recall"]["groups"] == patients["bad"].sum()
    images = frame_of(j)
    assert units["image"]["malignant"]["auroc"]["value"] == pytest.approx(roc_auc_score(images["label"] == 1, images["mel"]))


def test_intervals_are_over_patients_in_every_column():
    units = build(judged())["units"]
    assert units["lesion"]["metrics"]["accuracy"]["groups"] == units["patient"]["n"] == 40


def test_nobody_known_is_not_estimable():
    j = judged(patient_id=None)
    units = build(j)["units"]
    assert units["patient"]["n"] == 0
    cells = view({"units": units, "metrics": units["lesion"]["metrics"]})["rows"][-1]["cells"]
    assert cells[2][0] == "not estimable (n = 0)"
    assert build(Evaluation(j.p, j.spec, j.answering))["units"] is None
    assert view({"units": None}) is None


def test_lesions_of_two_labels_or_without_a_name_or_patient():
    j = judged()
    rows = j.rows.copy()
    rows.loc[rows.index[:2], "lesion_id"] = ["torn", "torn"]
    rows.loc[rows.index[2], "lesion_id"] = None
    rows.loc[rows.index[3:], "patient_id"] = None
    labels = j.p.labels.copy()
    labels[:2] = [0, 1]
    p = Predictions(j.p.ids, j.p.groups, labels, j.p.logits, None, j.p.meta)
    units = build(Evaluation(p, j.spec, j.answering, rows=rows))["units"]
    assert units["lesion"]["left_out"] == 1
    assert units["patient"]["n"] == 1
    notes = " ".join(view({"units": units, "metrics": units["lesion"]["metrics"]})["notes"])
    assert "1 lesions have images with different labels" in notes
    assert "have no recorded patient" in notes


def test_classes_of_no_known_malignancy_have_no_such_rows():
    found = build(judged(classes=["a", "b", "c"]))["units"]
    assert found["malignant"] is None
    assert found["image"]["malignant"] is None
    seen = view({"units": found, "metrics": found["lesion"]["metrics"]})
    assert [row["name"] for row in seen["rows"]] == [MEANINGS[name][0] for name in HEADLINE]


def test_what_is_printed_stands_in_the_file():
    units = build(judged())["units"]
    m = {"units": units, "metrics": units["lesion"]["metrics"]}
    page = template("units.html.jinja").render(m=m, v=view(m), pictures={})
    known = {f"{x:.3f}" for x in numbers(units) if isinstance(x, float)}
    shown = re.findall(r"\d\.\d{3}", page)
    assert len(shown) > 40
    assert set(shown) <= known


def numbers(value):
    if isinstance(value, dict):
        return [x for child in value.values() for x in numbers(child)]
    return [value]
