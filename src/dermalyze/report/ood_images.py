"""Out-of-distribution images and the rule that refers them: how well each score detects them, and the rule's results."""

from __future__ import annotations

from typing import Any

import numpy as np

from dermalyze.calibration.decision_rule import DECISIONS, OUTCOMES, decision_shares, threshold_band
from dermalyze.metrics.bootstrap import estimate, group_weights
from dermalyze.metrics.ood_separation import MEASURES, separation
from dermalyze.report.evaluation_data import Evaluation, Json
from dermalyze.report.text import cell, number

SCORE_NAMES = {
    "max_softmax": "largest probability",
    "energy": "energy",
    "relative_mahalanobis": "relative Mahalanobis distance",
    "knn": "distance to the nearest neighbors",
}


def build_ood(j: Evaluation) -> dict[str, Any]:
    """How well each score separates every out-of-distribution set from the evaluated images; null without such sets."""
    b = j.beyond
    if b is None or not b.detectors or not b.ood or j.p.embedding is None or not len(j.p):
        return {"ood": None}
    scores = {}
    for kind, detector in b.detectors.items():
        threshold = b.table["scores"][kind]["threshold"]
        refused, sets = separation(
            detector(j.p.logits, j.p.embedding),
            {name: detector(pictures.logits, pictures.embedding) for name, pictures in b.ood.items()},
            j.p.groups, threshold=threshold, resamples=j.spec.resamples, level=j.spec.level, seed=j.spec.seed,
        )  # fmt: skip
        scores[kind] = {
            "threshold": threshold,
            "mean_auroc_at_choice": b.table["scores"][kind]["mean_auroc"],
            "refused_here": refused.as_dict(),
            "sets": {name: {m: found[m].as_dict() for m in MEASURES} for name, found in sets.items()},
        }
    return {
        "ood": {
            "chosen": b.rule.limit.kind if b.rule.limit is not None else None,
            "choice": b.table["choice"],
            "missing": dict(b.table["missing"]),
            "pictures": {name: len(pictures.logits) for name, pictures in b.ood.items()},
            "scores": scores,
        }
    }


def ood_view(m: Json) -> dict[str, Any] | None:
    """Tables of AUROC and of the share refused: one row per set, one column per score."""
    o = m["ood"]
    if o is None:
        return None
    kinds = list(o["scores"])
    return {
        "chosen": SCORE_NAMES.get(o["chosen"]),
        "choice": o["choice"],
        "missing": [f"{SCORE_NAMES[kind]}: {why}" for kind, why in o["missing"].items()],
        "names": [SCORE_NAMES[kind] for kind in kinds],
        "tables": {
            measure: [
                (name.replace("_", " "), count, [cell(o["scores"][kind]["sets"][name][measure]) for kind in kinds])
                for name, count in o["pictures"].items()
            ]
            for measure in ("auroc", "refused", "passed")
        },
        "here": [cell(o["scores"][kind]["refused_here"]) for kind in kinds],
        "at_choice": [number(o["scores"][kind]["mean_auroc_at_choice"]) for kind in kinds],
    }


def build_decision(j: Evaluation) -> dict[str, Any]:
    """Results of the served rule on the evaluated images and on each out-of-distribution set; null if all is answered."""
    b = j.beyond
    if b is None or not (b.rule.limit or b.rule.referral or b.rule.sets) or not len(j.p):
        return {"decision": None}
    rule, scores = b.rule, j.scores
    outcome_N = rule.outcomes(scores.probs, j.classes, b.foreignness(j.p))
    inside = rule.inside(scores.probs, j.classes)
    covered_N = None if inside is None else inside[np.arange(len(j.p)), scores.labels]
    found = j.share_estimates(decision_shares(outcome_N, scores.right, covered_N))
    foreign = {}
    for name, pictures in b.ood.items():
        probs = j.answering.probabilities(pictures.logits)
        outcomes = rule.outcomes(probs, j.classes, b.foreignness(pictures))
        referred_M = np.array([DECISIONS[i] == "refer" for i in outcomes], dtype=np.float64)
        m = len(referred_M)
        drawn = [referred_M @ w / m for w in group_weights(np.arange(m), m, j.spec.resamples, j.spec.seed)]
        share, resampled = float(referred_M.mean()), np.concatenate(drawn)
        foreign[name] = estimate(share, resampled, n=m, groups=m, level=j.spec.level, share=True).as_dict()
    return {
        "decision": {
            "foreign_above": None if rule.limit is None else {"kind": rule.limit.kind, "threshold": rule.limit.threshold},
            "unsure_below": None if rule.referral is None else rule.referral.threshold,
            "set_level": None if rule.sets is None else rule.sets.level,
            "shares": {name: one.as_dict() for name, one in found.items()},
            "chance": _chance(j),
            "foreign": foreign,
        }
    }


def _chance(j: Evaluation) -> dict[str, Any]:
    """The range of each threshold's share by chance alone, on a set like the split that it comes from; groups are cases."""
    if j.beyond is None or j.reference is None or not len(j.reference):
        return {}
    rule, known, here = j.beyond.rule, len(set(j.reference.groups)), len(set(j.p.groups))
    passed = {
        "foreign": None if rule.limit is None else rule.limit.kept,
        "unsure": None if rule.referral is None else rule.referral.coverage,
    }
    found = {}
    for name, share in passed.items():
        if share is not None:
            low, high = threshold_band(known, here, share, j.spec.level)
            found[name] = {
                "expected": 1 - share, "low": low, "high": high, "level": j.spec.level,
                "part": j.reference.meta["set"], "known_groups": known, "groups": here,
            }  # fmt: skip
    return found


SHARE_NAMES = {
    "answer": "answered with one class",
    "set": "answered with a set of classes",
    "refer": "referred to a person, in total",
    "foreign": "referred: unlike the training images",
    "unsure": "referred: low confidence",
    "no_class": "referred: no class fits",
    "error": "error rate of those answered with one class",
    "wrong_answered": "answered with one class and wrong, share of all images",
    "set_error": "sets that do not contain the true class",
    "error_all": "error rate if everything were answered",
}


def decision_view(m: Json) -> dict[str, Any] | None:
    """The rule in words, and its shares; outcomes that the rule cannot give are left out."""
    d = m["decision"]
    if d is None:
        return None
    has = {"foreign": d["foreign_above"], "unsure": d["unsure_below"], "no_class": d["set_level"], "set": d["set_level"]}
    rules = []
    if d["foreign_above"] is not None:
        kind, threshold = d["foreign_above"]["kind"], number(d["foreign_above"]["threshold"])
        rules.append(f"refer images unlike the training images ({SCORE_NAMES[kind]} above {threshold})")
    if d["unsure_below"] is not None:
        rules.append(f"refer images with a confidence below {number(d['unsure_below'])}")
    if d["set_level"] is not None:
        rules.append(
            f"refer images that no class fits, and answer with a set ({100 * d['set_level']:g} %) if it has several classes"
        )
    shown = [name for name in SHARE_NAMES if name in d["shares"] and (name not in OUTCOMES or has.get(name, True) is not None)]
    return {
        "rules": rules,
        "rows": [(SHARE_NAMES[name], cell(d["shares"][name])) for name in shown],
        "chance": [
            {
                "name": SHARE_NAMES[name],
                "part": one["part"],
                "groups": [one["known_groups"], one["groups"]],
                **{key: number(one[key]) for key in ("expected", "low", "high")},
                "level": f"{100 * one['level']:g} %",
                "place": _place(d["shares"][name]["value"], one["low"], one["high"]),
                "here": number(d["shares"][name]["value"]),
            }
            for name, one in d["chance"].items()
        ],
        "foreign": [(name.replace("_", " "), one["n"], cell(one)) for name, one in d["foreign"].items()],
    }


def _place(value: float, low: float, high: float) -> str:
    """Where a share lies relative to the range of chance.

    >>> _place(0.08, 0.03, 0.07)
    'above that'
    """
    return "above that" if value > high else "below that" if value < low else "within that"
