"""Recalibration on a new site: a calibrator or class shares from some of its cases, measured on the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.calibration.calibrators import CHOICES, reprior
from dermalyze.errors import ConfigError, DataError
from dermalyze.metrics.difference import Scored, compare
from dermalyze.metrics.ranking import Floats
from dermalyze.report.evaluation_data import Evaluation, Json
from dermalyze.report.text import cell, meanings

LEAST_GROUPS = 30
"""Minimum number of groups, both to fit a calibrator and to measure it."""
PRIOR_IMAGES = 30
"""Weight, in images, of the class shares of the calibration split when those of the new site are estimated."""
MEASURED = ("log_loss", "brier", "ece", "accuracy", "balanced_accuracy", "macro_brier", "macro_ece", "hamming_loss")
KINDS = {
    "none": "no calibrator: the plain softmax",
    "prior": "class shares of the new site, unchanged calibrator",
    "refit": "a calibrator fitted on the new site",
}


def divide_groups(groups_N: list[str], share: float, seed: int) -> NDArray[np.bool_]:
    """(N,) whether an image's group is used for fitting: a seeded choice of whole groups.

    Raises:
        ConfigError: the share is not between 0 and 1.
        DataError: one side has fewer than `LEAST_GROUPS` groups.

    >>> chosen = divide_groups([str(i // 2) for i in range(200)], 0.5, seed=0)
    >>> int(chosen.sum()), bool((chosen[::2] == chosen[1::2]).all())
    (100, True)
    """
    if not 0 < share < 1:
        raise ConfigError(f"--recalibrate {share:g}: must be a share between 0 and 1, such as 0.3")
    names = sorted(set(groups_N))
    count = round(share * len(names))
    if min(count, len(names) - count) < LEAST_GROUPS:
        raise DataError(
            f"--recalibrate {share:g}: {count} of the set's {len(names)} groups to fit on and {len(names) - count} to measure "
            f"on; at least {LEAST_GROUPS} of each are needed: choose another share, or a larger set"
        )
    chosen = {names[k] for k in np.random.default_rng(seed).permutation(len(names))[:count]}
    return np.array([group in chosen for group in groups_N])


def build(j: Evaluation) -> dict[str, Any]:
    """Fit on some of the groups, measure every method on the others, with paired intervals of the differences."""
    if j.recalibrate is None:
        return {"recalibration": None}
    chosen = divide_groups(j.p.groups, j.recalibrate, j.spec.seed)
    rest = ~chosen
    logits, labels = j.p.logits.astype(np.float64), j.p.labels
    groups = [group for group, inside in zip(j.p.groups, rest, strict=True) if inside]
    answers, kind, parameters = _answers(j, logits, labels, chosen)
    table = j.task.overall_metrics(j.spec.ece_bins)
    measured = {name: table[name] for name in MEASURED if name in table}
    thresholds = j.answering.thresholds
    before = Scored(j.task.scores(labels[rest], j.scores.probs[rest], thresholds), groups)
    found = {}
    for name, probs_NC in answers.items():
        after = Scored(j.task.scores(labels[rest], probs_NC[rest], thresholds), groups)
        sides = compare(after, before, measured, resamples=j.spec.resamples, level=j.spec.level, seed=j.spec.seed)
        names = {"a": "after", "b": "before", "difference": "difference"}
        found[name] = {metric: {names[k]: one.as_dict() for k, one in of.items()} for metric, of in sides.items()}
    return {
        "recalibration": {
            "share": j.recalibrate,
            "fitted": {"images": int(chosen.sum()), "groups": len(set(j.p.groups)) - len(set(groups))},
            "measured": {"images": int(rest.sum()), "groups": len(set(groups))},
            "asked": j.calibration,
            "kind": kind,
            "parameters": parameters,
            "methods": found,
        }
    }


def _answers(
    j: Evaluation, logits_NC: Floats, labels_N: NDArray[np.int64], chosen_N: NDArray[np.bool_]
) -> tuple[dict[str, Floats], str, dict[str, Any]]:
    """Probabilities by each method, and the fitted calibrator: the one in `inference.calibration`, or selected on the new site
    as `calibrate` does."""
    new, labels = logits_NC[chosen_N], labels_N[chosen_N]
    shift_C = np.zeros(logits_NC.shape[1]) if j.training_shift is None else j.training_shift
    task = j.task
    found = {} if j.calibrator.kind == "none" else {"none": task.probabilities(logits_NC)}  # else it is as it was
    if j.reference is not None and task.has(
        "class_prior"
    ):  # few cases of a rare class say little of its share, and one that is absent is not ruled out
        there, here = (np.bincount(z, minlength=logits_NC.shape[1]) for z in (j.reference.labels, labels))
        known = (there + 1) / (there + 1).sum()
        wanted = (here + PRIOR_IMAGES * known) / (here.sum() + PRIOR_IMAGES)
        found["prior"] = reprior(j.scores.probs, known, wanted)
        shift_C = shift_C + np.log(wanted / known)  # what training undid, and how this site differs
    groups = [group for group, inside in zip(j.p.groups, chosen_N, strict=True) if inside]
    kind = task.choose_calibrator(j.calibration, task.cross_validate(new, labels, groups, shift_C))
    fitted = task.fit_calibrator(kind, new, labels, shift_C)
    return {**found, "refit": fitted(logits_NC)}, kind, fitted.parameters


def view(m: Json) -> dict[str, Any] | None:
    """Before and after: one row per method and metric."""
    r = m["recalibration"]
    if r is None:
        return None
    words = meanings(m)
    return {
        "fitted": r["fitted"],
        "measured": r["measured"],
        "kind": r["kind"].replace("_", " "),
        "left_open": r["asked"] in CHOICES,
        "methods": [
            {
                "name": KINDS[name],
                "rows": [
                    (
                        words[metric][0],
                        cell(of["before"]),
                        cell(of["after"]),
                        cell(of["difference"]),
                        _verdict(words[metric][1], of),
                    )
                    for metric, of in found.items()
                ],
            }
            for name, found in r["methods"].items()
        ],
    }


def _verdict(best: str, of: Json) -> str:
    low, high = of["difference"]["low"], of["difference"]["high"]
    if low is None or low <= 0 <= high:
        return ""
    return "better" if (low > 0) == (best == "1") else "worse"
