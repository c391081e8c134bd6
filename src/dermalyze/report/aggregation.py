"""The same metrics per image, per lesion and per patient."""

from __future__ import annotations

from typing import Any

from dermalyze.data.grouping import keys, lesion_names
from dermalyze.metrics import bootstrap
from dermalyze.metrics import classification as metrics
from dermalyze.metrics.aggregation import Pooled, any_of, pool, worst_of
from dermalyze.metrics.classification import Scores
from dermalyze.report.evaluation_data import Evaluation, Json
from dermalyze.report.text import MEANINGS, cell
from dermalyze.tasks.base import TASKS

HEADLINE = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "log_loss", "brier", "ece")
TWO_CLASSES = {"auroc": metrics.auroc, "recall": metrics.recall, "specificity": metrics.specificity}


def build(j: Evaluation) -> dict[str, Any]:
    """Headline metrics per lesion, and malignant against benign per image, lesion and patient; null without rows."""
    if j.rows is None:
        return {"units": None}
    groups = j.p.groups
    lesions = pool(j.scores, lesion_names(j.rows.assign(image_id=j.p.ids)), groups)
    malignant = [j.classes.index(name) for name in j.malignant]
    two = bool(malignant)
    units: dict[str, Any] = {
        "image": {"n": len(j.p), "several": 0, "left_out": 0, "metrics": None},
        "lesion": {
            "n": len(lesions.units),
            "several": lesions.several,
            "left_out": len(lesions.disagreeing),
            "metrics": _estimates(
                j,
                lesions.scores,
                lesions.groups,
                {name: TASKS["multiclass"].overall_metrics(j.spec.ece_bins)[name] for name in HEADLINE},
            ),
        },
        "patient": _patients(j, lesions, malignant if two else None),
    }
    for name, scores, owners in (("image", j.scores, groups), ("lesion", lesions.scores, lesions.groups)):
        units[name]["malignant"] = _two_classes(j, any_of(scores, malignant), owners) if two else None
    return {"units": {"malignant": [j.classes[c] for c in malignant] if two else None, **units}}


def _patients(j: Evaluation, lesions: Pooled, malignant: list[int] | None) -> dict[str, Any]:
    """Malignant against benign, one row per patient; only lesions whose patient is recorded."""
    assert j.rows is not None
    patient_of = dict(zip(lesion_names(j.rows.assign(image_id=j.p.ids)), keys(j.rows, "patient_id"), strict=True))
    known = [i for i, unit in enumerate(lesions.units) if isinstance(patient_of[unit], str)]
    owners = [str(patient_of[lesions.units[i]]) for i in known]
    found: dict[str, Any] = {"n": len(set(owners)), "left_out": len(lesions.units) - len(known), "several": 0, "metrics": None}
    if malignant is None or not known:
        return {**found, "malignant": None}
    two = any_of(Scores(lesions.scores.labels[known], lesions.scores.probs[known]), malignant)
    patients = worst_of(two, owners, [lesions.groups[i] for i in known])
    return {**found, "several": patients.several, "malignant": _two_classes(j, patients.scores, patients.groups)}


def _two_classes(j: Evaluation, scores: Scores, groups: list[str]) -> dict[str, Any]:
    """AUROC, and sensitivity and specificity at probability 0.5 of malignancy."""
    settings = {"resamples": j.spec.resamples, "level": j.spec.level, "seed": j.spec.seed}
    found = bootstrap.estimates(scores, groups, TWO_CLASSES, names=["benign", "malignant"], **settings)  # type: ignore[arg-type]
    return {name: found[name][1].as_dict() for name in TWO_CLASSES}  # type: ignore[index]


def _estimates(j: Evaluation, scores: Scores, groups: list[str], table: dict[str, Any]) -> dict[str, Any]:
    found = bootstrap.estimates(
        scores, groups, table, resamples=j.spec.resamples, level=j.spec.level, seed=j.spec.seed, names=j.classes,
        basic=frozenset({"ece"}),
    )  # fmt: skip
    return {name: found[name].as_dict() for name in table}  # type: ignore[union-attr]


def view(m: Json) -> dict[str, Any] | None:
    """The table: one row per metric, one column per level."""
    units = m["units"]
    if units is None:
        return None
    image, lesion, patient = (units[name] for name in ("image", "lesion", "patient"))
    rows = [
        {"name": MEANINGS[name][0], "cells": [cell(m["metrics"][name]), cell(lesion["metrics"][name]), ("–", "")]}
        for name in HEADLINE
    ]
    if units["malignant"]:
        none = {name: {"value": None, "low": None, "n": patient["n"], "note": ""} for name in TWO_CLASSES}
        said = {"auroc": "AUROC", "recall": "sensitivity", "specificity": "specificity"}
        rows += [
            {
                "name": f"malignant: {said[name]}",
                "cells": [cell((unit["malignant"] or none)[name]) for unit in (image, lesion, patient)],
            }
            for name in TWO_CLASSES
        ]
    notes = []
    if lesion["left_out"]:
        notes.append(f"{lesion['left_out']:,} lesions have images with different labels and are left out.")
    if patient["n"] == 0:
        notes.append("No patient is recorded for this set, so nothing is estimable per patient.")
    elif patient["left_out"]:
        notes.append(f"{patient['left_out']:,} lesions have no recorded patient and are left out of the last column.")
    return {
        "columns": [
            f"per image (n = {image['n']:,})",
            f"per lesion (n = {lesion['n']:,})",
            f"per patient (n = {patient['n']:,})",
        ],
        "rows": rows,
        "several": f"{lesion['several']:,}",
        "malignant": ", ".join(units["malignant"] or []),
        "notes": notes,
    }
