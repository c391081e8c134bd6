"""What a model gains by keeping silent or by answering with a set: thresholds from one part, figures from another."""

from __future__ import annotations

from typing import Any

import numpy as np

from dermalyze.ops import conformal as sets
from dermalyze.ops import selective as silence
from dermalyze.ops.ranking import Floats
from dermalyze.report import figures
from dermalyze.report.judged import Json, Judged
from dermalyze.report.section import Figure, figure_title
from dermalyze.report.text import cell, number


def build_silence(j: Judged) -> dict[str, Any]:
    """What silence would gain: quality of each confidence, and the answers that remain at several coverages."""
    scores = j.scores
    wrong = (scores.predicted != scores.labels).astype(np.float64)
    focus = j.classes.index("mel") if "mel" in j.classes else None
    rows = []
    if j.known is not None:
        confidence, known = (silence.CONFIDENCES[silence.CONFIDENCE](s.probs) for s in (scores, j.known))
        for asked in silence.COVERAGES:
            threshold = silence.threshold_for(known, asked)
            found = j.share_estimates(silence.answered_shares(confidence >= threshold, scores, focus))
            rows.append({"asked": asked, "threshold": threshold, **{name: one.as_dict() for name, one in found.items()}})
    return {
        "selective": {
            "confidence": silence.CONFIDENCE,
            "part": j.reference.meta["set"] if j.reference is not None else None,
            "focus": None if focus is None else "mel",
            "quality": {name: silence.quality(of(scores.probs), wrong) for name, of in silence.CONFIDENCES.items()},
            "coverages": rows,
        }
    }


def build_sets(j: Judged) -> dict[str, Any]:
    """Coverage and size of conformal sets, calibrated on the reference part; null without one."""
    if j.known is None or j.reference is None:
        return {"conformal": None}
    scores, classes = j.scores, j.classes
    luck, rows = sets.luck_of(j.p.ids), []
    shares: dict[str, tuple[Floats, silence.Masks | None]] = {}
    for score in sets.SCORES:
        for by_class in (False, True):
            rule = sets.calibrate_sets(
                j.known.probs, j.known.labels, j.reference.groups, classes, score=score, level=j.spec.set_level,
                by_class=by_class, seed=j.spec.seed,
            )  # fmt: skip
            inside = rule.of(scores.probs, classes, luck)
            covered, size = inside[np.arange(len(j.p)), scores.labels].astype(np.float64), inside.sum(axis=1).astype(np.float64)
            name = f"{score} {'by class' if by_class else 'marginal'}"
            shares |= {
                f"{name}/coverage": (covered, None),
                f"{name}/size": (size, None),
                f"{name}/single": ((size == 1).astype(np.float64), None),
                f"{name}/empty": ((size == 0).astype(np.float64), None),
                **{f"{name}/{c}": (covered, scores.labels == c) for c in range(len(classes))},
            }
            rows.append((name, rule))
    found = j.share_estimates(shares)
    return {
        "conformal": {
            "level": j.spec.set_level,
            "part": j.reference.meta["set"],
            "rules": {
                name: {
                    **{key: found[f"{name}/{key}"].as_dict() for key in ("coverage", "size", "single", "empty")},
                    "by_class": {
                        label: {
                            **found[f"{name}/{c}"].as_dict(),
                            "lesions": rule.lesions.get(label),
                            "estimable": rule.thresholds.get(label, 0.0) is not None,
                        }
                        for c, label in enumerate(classes)
                    },
                }
                for name, rule in rows
            },
        }
    }


CONFIDENCE_NAMES = {
    "max_probability": "largest probability",
    "margin": "lead over the second",
    "neg_entropy": "entropy (negative)",
}


def silence_view(m: Json) -> dict[str, Any]:
    """What is said of keeping silent."""
    s = m["selective"]
    focus = s["focus"] is not None
    columns = ["share answered", "accuracy of the answered"]
    columns += ["melanoma: found among the answered", "melanoma: answered as something else"] if focus else []
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
            (CONFIDENCE_NAMES[name], [number(q[key]) for key in ("error_auroc", "aurc", "e_aurc", "augrc")])
            for name, q in s["quality"].items()
        ],
    }


def draw_silence(m: Json, j: Judged) -> dict[str, Figure]:
    """The risk-coverage curve."""
    confidence = silence.CONFIDENCES[silence.CONFIDENCE](j.scores.probs)
    wrong = (j.scores.predicted != j.scores.labels).astype(np.float64)
    title = figure_title("Keeping silent", m)
    return {
        "risk_coverage.png": Figure(
            figures.risk_coverage(confidence, wrong, m["selective"]["coverages"], title=title, leak=m["accepted_leak"]),
            "Keeping silent: when only the surest cases are answered, how many of those answers are wrong. The further the "
            "curve lies below the dotted line, the better the model knows when it is wrong; the dashed line is the best that "
            "the same answers allow. Points: thresholds taken from the calibration part, as they turn out here.",
        )
    }


SET_NAMES = {
    "lac": "least ambiguous (LAC)",
    "aps": "adaptive (APS)",
    "aps_randomised": "adaptive, randomised",
    "raps": "adaptive, regularised (RAPS)",
}


def sets_view(m: Json) -> dict[str, Any] | None:
    """What is said of answering with a set of classes."""
    c = m["conformal"]
    if c is None:
        return None
    marginal, own = c["rules"]["lac marginal"]["by_class"], c["rules"]["lac by class"]["by_class"]
    not_estimable = ("not estimable", "too few lesions for this level; the class is in every set")
    return {
        "level": f"{100 * c['level']:g} %",
        "part": c["part"],
        "rules": [
            (
                SET_NAMES[name.split()[0]] + (", a threshold a class" if name.endswith("by class") else ""),
                [cell(rule[key]) for key in ("coverage", "size", "single", "empty")],
            )
            for name, rule in c["rules"].items()
        ],
        "classes": [
            {
                "name": name,
                "lesions": own[name]["lesions"],
                "marginal": cell(marginal[name]),
                "own": cell(own[name]) if own[name]["estimable"] else not_estimable,
            }
            for name in m["classes"]
        ],
    }
