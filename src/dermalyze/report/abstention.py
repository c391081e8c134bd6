"""What a model gains by keeping silent or by answering with a set: thresholds from one part, figures from another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dermalyze.config.experiment import EvaluateSpec
from dermalyze.data.predictions import Predictions
from dermalyze.ops import bootstrap, metrics
from dermalyze.ops import conformal as sets
from dermalyze.ops import selective as silence
from dermalyze.ops.calibrators import Calibrator
from dermalyze.ops.ranking import Floats, ratio
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
            wanted = silence.answered_metrics((confidence >= threshold).astype(np.float64), scores, focus)
            found = bootstrap.estimates(
                scores, p.groups, wanted, resamples=spec.resamples, level=spec.level, seed=spec.seed, names=p.classes
            )
            rows.append({"asked": asked, "threshold": threshold, **{k: e.as_dict() for k, e in found.items()}})  # type: ignore[union-attr]
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
    wanted: dict[str, Callable[[metrics.Tally], Floats]] = {}
    for score in sets.SCORES:
        for by_class in (False, True):
            rule = sets.calibrate_sets(
                known.probs, known.labels, reference.groups, classes, score=score, level=spec.set_level, by_class=by_class,
                seed=spec.seed,
            )  # fmt: skip
            inside = rule.of(scores.probs, classes, luck)
            covered, size = inside[np.arange(len(p)), scores.labels].astype(np.float64), inside.sum(axis=1).astype(np.float64)
            name = f"{score} {'by class' if by_class else 'marginal'}"
            wanted |= {
                f"{name}/coverage": _share(covered),
                f"{name}/size": _share(size),
                f"{name}/single": _share((size == 1).astype(np.float64)),
                f"{name}/empty": _share((size == 0).astype(np.float64)),
                **{f"{name}/{c}": _share(covered, scores.labels == c) for c in range(len(classes))},
            }
            rows.append((name, rule))
    found = bootstrap.estimates(
        scores, p.groups, wanted, resamples=spec.resamples, level=spec.level, seed=spec.seed, names=classes
    )
    return {
        "level": spec.set_level,
        "part": reference.meta["set"],
        "rules": {
            name: {
                **{key: found[f"{name}/{key}"].as_dict() for key in ("coverage", "size", "single", "empty")},  # type: ignore[union-attr]
                "by_class": {
                    label: {
                        **found[f"{name}/{c}"].as_dict(),  # type: ignore[union-attr]
                        "lesions": rule.lesions.get(label),
                        "estimable": rule.thresholds.get(label, 0.0) is not None,
                    }
                    for c, label in enumerate(classes)
                },
            }
            for name, rule in rows
        },
    }


def _share(value_N: Floats, among_N: Any = None) -> Callable[[metrics.Tally], Floats]:
    """The weighted mean of a value, among some images or all, for the bootstrap."""
    rests_on = np.ones(len(value_N)) if among_N is None else np.asarray(among_N, dtype=np.float64)
    return lambda t: ratio((value_N * rests_on) @ t.weights, rests_on @ t.weights)
