"""What a model gains by keeping silent or by answering with a set: thresholds from one part, figures from another."""

from __future__ import annotations

from typing import Any

import numpy as np

from dermalyze.config.experiment import EvaluateSpec
from dermalyze.data.predictions import Predictions
from dermalyze.ops import bootstrap
from dermalyze.ops import conformal as sets
from dermalyze.ops import selective as silence
from dermalyze.ops.calibrators import Calibrator
from dermalyze.ops.ranking import Floats
from dermalyze.report.evaluation import scores_of


def selective(p: Predictions, spec: EvaluateSpec, calibrator: Calibrator, reference: Predictions | None) -> dict[str, Any]:
    """What silence would gain: quality of each confidence, and the answers that remain at several coverages.

    Args:
        p: predictions to judge.
        spec: resamples, level and seed.
        calibrator: of both.
        reference: predictions of the calibration part, from which the thresholds come; None: no thresholds.
    """
    scores = scores_of(p, calibrator)
    wrong = (scores.predicted != scores.labels).astype(np.float64)
    focus = p.classes.index("mel") if "mel" in p.classes else None
    rows = []
    if reference is not None and len(reference):
        confidence, known = (silence.CONFIDENCES[silence.CONFIDENCE](scores_of(q, calibrator).probs) for q in (p, reference))
        for asked in silence.COVERAGES:
            threshold = silence.threshold_for(known, asked)
            shares = silence.answered_shares(confidence >= threshold, scores, focus)
            found = bootstrap.share_estimates(
                scores, p.groups, shares, resamples=spec.resamples, level=spec.level, seed=spec.seed
            )
            rows.append({"asked": asked, "threshold": threshold, **{name: one.as_dict() for name, one in found.items()}})
    return {
        "confidence": silence.CONFIDENCE,
        "part": reference.meta["set"] if reference is not None else None,
        "focus": None if focus is None else "mel",
        "quality": {name: silence.quality(of(scores.probs), wrong) for name, of in silence.CONFIDENCES.items()},
        "coverages": rows,
    }


def conformal(
    p: Predictions, spec: EvaluateSpec, calibrator: Calibrator, reference: Predictions | None
) -> dict[str, Any] | None:
    """Coverage and size of conformal sets, calibrated on another part; None without one.

    Args:
        p: predictions to judge.
        spec: `set_level`, resamples, level and seed.
        calibrator: of both.
        reference: predictions of the calibration part.
    """
    if reference is None or not len(reference):
        return None
    scores, known, classes = scores_of(p, calibrator), scores_of(reference, calibrator), p.classes
    luck, rows = sets.luck_of(p.ids), []
    shares: dict[str, tuple[Floats, silence.Masks | None]] = {}
    for score in sets.SCORES:
        for by_class in (False, True):
            rule = sets.calibrate_sets(
                known.probs, known.labels, reference.groups, classes, score=score, level=spec.set_level, by_class=by_class,
                seed=spec.seed,
            )  # fmt: skip
            inside = rule.of(scores.probs, classes, luck)
            covered, size = inside[np.arange(len(p)), scores.labels].astype(np.float64), inside.sum(axis=1).astype(np.float64)
            name = f"{score} {'by class' if by_class else 'marginal'}"
            shares |= {
                f"{name}/coverage": (covered, None),
                f"{name}/size": (size, None),
                f"{name}/single": ((size == 1).astype(np.float64), None),
                f"{name}/empty": ((size == 0).astype(np.float64), None),
                **{f"{name}/{c}": (covered, scores.labels == c) for c in range(len(classes))},
            }
            rows.append((name, rule))
    found = bootstrap.share_estimates(scores, p.groups, shares, resamples=spec.resamples, level=spec.level, seed=spec.seed)
    return {
        "level": spec.set_level,
        "part": reference.meta["set"],
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
