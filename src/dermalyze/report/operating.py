"""Operating points: malignant or not, one class or not; thresholds from one split, metrics and net benefit on another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from dermalyze.config.classes import describe
from dermalyze.data.sources.cards import class_notes
from dermalyze.metrics import bootstrap
from dermalyze.metrics import classification as metrics
from dermalyze.metrics import decision_curve as decision
from dermalyze.metrics import operating_points as operating
from dermalyze.metrics.ranking import Floats
from dermalyze.metrics.scores import Scores, Tally
from dermalyze.report import curves
from dermalyze.report.evaluation_data import Evaluation, Json
from dermalyze.report.section import Figure, figure_title
from dermalyze.report.text import cell, number

EVEN = 0.5


def build(j: Evaluation) -> dict[str, Any]:
    """For each question: ranking, results at each threshold, net benefit; null if no question applies."""
    asked = operating.questions(j.classes, j.malignant, j.focus)
    if not asked:
        return {"operating": None}
    chosen = (
        operating.operating_points(
            j.known, j.reference.groups, j.classes, asked, sensitivity=j.spec.sensitivity, miss_cost=j.spec.miss_cost
        )
        if j.known is not None and j.reference is not None
        else {}
    )
    return {
        "operating": {
            "part": j.reference.meta["set"] if j.reference is not None and chosen else None,
            "prevalence": j.spec.prevalence,
            "questions": {
                name: _question(j, name, yes, chosen[name]["points"] if chosen else {}) for name, yes in asked.items()
            },
        }
    }


def _question(j: Evaluation, name: str, yes: tuple[str, ...], points: dict[str, dict[str, Any]]) -> dict[str, Any]:
    scores = operating.two_classes(j.scores, j.classes, yes)
    how: dict[str, Any] = {"resamples": j.spec.resamples, "level": j.spec.level, "seed": j.spec.seed}
    names = (f"other than {name}", name)
    ranking: dict[str, Callable[[Tally], Floats]] = {
        "auroc": metrics.auroc,
        "average_precision": metrics.average_precision,
        "partial_auroc": partial(metrics.partial_auroc, floor=j.spec.sensitivity_floor),
    }
    found = bootstrap.estimates(scores, j.p.groups, ranking, names=names, **how)
    prevalence = j.spec.prevalence if name == operating.MALIGNANT else None
    even = operating.Point(None, EVEN, 0, 0, 0).as_dict()
    drawn = name == operating.MALIGNANT and not scores.ranks_only  # net benefit weighs errors by a probability
    curve = decision.decision_curve(scores, j.p.groups, **how) if drawn else None
    return {
        "classes": list(yes),
        "notes": class_notes(yes, j.data) if name == operating.MALIGNANT else {},
        "others": [label for label in j.classes if label not in yes],
        "images": int(scores.support[1]),
        "groups": _groups(j, scores),
        "share": float(scores.labels.mean()) if len(scores.labels) else None,
        "ranking": {key: one[1].as_dict() for key, one in found.items() if isinstance(one, list)},
        "points": {
            criterion: {
                **point,
                "found": {
                    key: one.as_dict()
                    for key, one in operating.at_threshold(
                        scores, j.p.groups, point["threshold"], prevalence=prevalence, names=names, **how
                    ).items()
                }
                if point["threshold"] is not None
                else None,
            }
            for criterion, point in {"even": even, **points}.items()
        },
        "decision": None if curve is None else curve.as_dict(),
    }


def _groups(j: Evaluation, scores: Scores) -> int:
    return len(np.unique(np.asarray(j.p.groups)[scores.labels == 1]))


def measured_points(measured: Json | None) -> dict[str, Any]:
    """Question to operating point to its threshold and what was measured there; without points that could not be chosen.

    Args:
        measured: `operating` of `evaluation_metrics.json`; None where no question applies.
    """
    return {
        name: {
            key: {
                **{name: point[name] for name in ("target", "threshold")},
                **{name: point["found"][name] for name in ("sensitivity", "specificity")},
            }
            for key, point in question["points"].items()
            if key != "even" and point["found"] is not None
        }
        for name, question in (measured or {"questions": {}})["questions"].items()
    }


RANKING = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "partial_auroc": "partial AUROC above sensitivity {floor}",
}
HERE = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "number_needed": "number needed",
}
THERE = {"ppv_at": "PPV", "npv_at": "NPV", "number_needed_at": "number needed"}


def view(m: Json) -> dict[str, Any] | None:
    """What the page shows for each question."""
    o = m["operating"]
    return None if o is None else {"part": o["part"], "questions": [_question_view(m, name) for name in o["questions"]]}


def _question_view(m: Json, name: str) -> dict[str, Any]:
    o = m["operating"]
    q, floor = o["questions"][name], m["sensitivity_floor"]
    titles = {key: title.format(floor=f"{floor:g}") for key, title in RANKING.items()}
    if floor == 0.8:
        titles["partial_auroc"] += " (ISIC 2024)"
    named = name if name == operating.MALIGNANT else describe(name)
    prevalence = o["prevalence"] if name == operating.MALIGNANT else None
    return {
        "name": named,
        "title": f"{named[:1].upper()}{named[1:]} against the rest",
        "counted": f"Classes counted as {named}: {', '.join(q['classes'])}; not counted: {', '.join(q['others'])}. "
        f"{q['images']:,} of {m['n_images']:,} images ({q['groups']:,} groups).",
        "notes": q["notes"],
        "ranking": [(titles[key], cell(q["ranking"][key])) for key in RANKING],
        "best_partial": f"{1 - floor:g}",
        "columns": list(HERE.values()),
        "points": [_point_view(criterion, point, HERE) for criterion, point in q["points"].items()],
        "prevalence": None if prevalence is None else f"{100 * prevalence:g} %",
        "columns_there": list(THERE.values()),
        "points_there": []
        if prevalence is None
        else [_point_view(criterion, point, THERE) for criterion, point in q["points"].items()],
        "share": "–" if q["share"] is None else f"{100 * q['share']:.1f} %",
        "decision": q["decision"] is not None,
    }


def _point_view(criterion: str, point: Json, columns: dict[str, str]) -> dict[str, Any]:
    said = {
        "even": "more likely than not (0.5, not tuned)",
        "youden": "largest sensitivity + specificity (Youden)",
        "cost": f"lowest cost, one miss counted as {point['target'] or 0:g} false positives",
    }
    return {
        "name": said.get(criterion, f"sensitivity of at least {100 * (point['target'] or 0):g} %"),
        "threshold": number(point["threshold"]),
        "note": point["note"],
        "cells": [] if point["found"] is None else [_cell(key, point["found"][key]) for key in columns],
    }


def _cell(key: str, estimate: Json) -> tuple[str, str]:
    if not key.startswith("number_needed") or estimate["value"] is None:
        return cell(estimate)
    interval = estimate["note"] if estimate["low"] is None else f"{estimate['low']:.1f} – {estimate['high']:.1f}"
    return f"{estimate['value']:.1f}", interval


def figures(m: Json, j: Evaluation) -> dict[str, Figure]:
    """The decision curve of the question malignant or not."""
    q = m["operating"]["questions"].get(operating.MALIGNANT)
    if q is None or q["decision"] is None:
        return {}
    title = figure_title("Decision curve", m)
    better = q["decision"]["better"]
    worth = (
        f"Here the model's line is above both others from {100 * better[0]:g} % to {100 * better[1]:g} %."
        if better
        else "Here the model's line is not above both others at any threshold."
    )
    return {
        "decision_curve.png": Figure(
            curves.decision_curve(q["decision"], "malignancy", title=title, leak=m["accepted_leak"]),
            "Decision curve: calling a case positive from a threshold probability p on means that a miss is (1 − p) / p times "
            "as bad as a false positive. Net benefit is the number of true positives minus the false positives at "
            f"that weight. {worth} The band is the {100 * m['level']:g} % interval at each point. It is valid for the mix of "
            f"this set, {100 * q['share']:.1f} % malignant; with fewer malignancies the benefit is smaller.",
        )
    }
