"""Selective prediction: thresholds from one split, metrics from another."""

from __future__ import annotations

from typing import Any

import numpy as np

from dermalyze.config.classes import describe
from dermalyze.metrics import selective
from dermalyze.metrics.ranking import Floats, spearman_p
from dermalyze.report import figures
from dermalyze.report.evaluation_data import Evaluation, Json
from dermalyze.report.section import Figure, figure_title
from dermalyze.report.subgroups import first_focus
from dermalyze.report.text import cell, number, with_p


def build(j: Evaluation) -> dict[str, Any]:
    """Quality of each confidence measure, and metrics of the predictions that remain at several coverages."""
    scores = j.scores
    wrong = (~scores.right).astype(np.float64)
    focus = first_focus(j)
    rows = []
    if j.known is not None:
        confidence, known = (selective.confidence_of(selective.CONFIDENCE, j.task.choices(s.probs)) for s in (scores, j.known))
        for asked in selective.COVERAGES:
            threshold = selective.threshold_for(known, asked)
            found = j.share_estimates(
                selective.answered_shares(confidence >= threshold, scores, None if focus is None else j.classes.index(focus))
            )
            rows.append({"asked": asked, "threshold": threshold, **{name: one.as_dict() for name, one in found.items()}})
    return {
        "selective": {
            "confidence": selective.CONFIDENCE,
            "part": j.reference.meta["set"] if j.reference is not None else None,
            "focus": focus,
            "quality": {
                name: quality(selective.confidence_of(name, j.task.choices(scores.probs)), wrong, len(set(j.p.groups)))
                for name in selective.CONFIDENCES
            },
            "coverages": rows,
        }
    }


def quality(confidence_N: Floats, wrong_N: Floats, groups: int) -> dict[str, float | None]:
    """`selective.quality`, with the p-value of the rank correlation, for which a group counts once."""
    found = selective.quality(confidence_N, wrong_N)
    return {**found, "spearman_p": spearman_p(found["spearman"], groups)}


CONFIDENCE_NAMES = {
    "max_probability": "largest probability",
    "margin": "margin over the second class",
    "neg_entropy": "entropy (negative)",
}


def view(m: Json) -> dict[str, Any]:
    """What the page shows on selective prediction."""
    s = m["selective"]
    focus = None if s["focus"] is None else describe(s["focus"])
    columns = ["coverage", "accuracy of answered images"]
    columns += [f"{focus}: sensitivity among answered", f"{focus}: predicted as another class"] if focus else []
    keys = ["coverage", "accuracy", *(["sensitivity", "missed"] if focus else [])]
    return {
        "columns": columns,
        "part": s["part"],
        "rows": [
            {
                "asked": f"{100 * row['asked']:g} %",
                "threshold": number(row["threshold"]),
                "cells": [cell(row[key]) for key in keys],
            }
            for row in s["coverages"]
        ],
        "quality": [
            (
                CONFIDENCE_NAMES[name],
                [
                    *(number(q[key]) for key in ("error_auroc", "aurc", "e_aurc", "augrc")),
                    with_p(q["spearman"], q["spearman_p"]),
                ],
            )
            for name, q in s["quality"].items()
        ],
    }


def draw(m: Json, j: Evaluation) -> dict[str, Figure]:
    """The risk-coverage curve."""
    confidence = selective.confidence_of(selective.CONFIDENCE, j.task.choices(j.scores.probs))
    wrong = (~j.scores.right).astype(np.float64)
    title = figure_title("Risk-coverage curve", m)
    return {
        "risk_coverage.png": Figure(
            figures.risk_coverage(confidence, wrong, m["selective"]["coverages"], title=title, leak=m["accepted_leak"]),
            "Risk-coverage curve: the error rate when only the most confident predictions are kept. The further the curve lies "
            "below the dotted line, the better the confidence separates correct from wrong predictions. The dashed line is the "
            "best possible order of the same predictions. Points: thresholds from the calibration split, measured on this set.",
        )
    }
