"""Conformal prediction: coverage and size of prediction sets, overall, by class and by subgroup."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.calibration import conformal
from dermalyze.metrics.ranking import Floats
from dermalyze.report.evaluation_data import Evaluation, Json
from dermalyze.report.subgroups import TITLES, divisions
from dermalyze.report.text import cell

Shares = dict[str, tuple[Floats, NDArray[np.bool_] | None]]
SHOWN = ("lac marginal", "lac by class")
"""Rules that the page also shows by class and by subgroup."""
DIVIDED_BY = ("age", "sex", "site", "ita")


def build(j: Evaluation) -> dict[str, Any]:
    """Coverage and size of conformal sets, calibrated on the reference split; null without one."""
    if j.known is None or j.reference is None:
        return {"conformal": None}
    inside = {name: (rule, _inside(j, rule)) for name, rule in _rules(j).items()}
    shares: Shares = {}
    for name, (_, inside_NC) in inside.items():
        covered, size = _covered(j, inside_NC), inside_NC.sum(axis=1).astype(np.float64)
        shares |= {
            f"{name}/coverage": (covered, None),
            f"{name}/size": (size, None),
            f"{name}/single": ((size == 1).astype(np.float64), None),
            f"{name}/empty": ((size == 0).astype(np.float64), None),
            **{f"{name}/{c}": (covered, j.scores.labels == c) for c in range(len(j.classes))},
            **{f"{name}/{c}/size": (size, j.scores.labels == c) for c in range(len(j.classes))},
        }
    levels = _levels(j)
    for name in SHOWN:
        covered, size = (shares[f"{name}/{key}"][0] for key in ("coverage", "size"))
        for k, (_, _, among) in enumerate(levels):
            shares |= {f"{name}/{k} coverage": (covered, among), f"{name}/{k} size": (size, among)}
    found = {name: one.as_dict() for name, one in j.share_estimates(shares).items()}
    return {
        "conformal": {
            "level": j.spec.set_level,
            "part": j.reference.meta["set"],
            "rules": {
                name: {
                    **{key: found[f"{name}/{key}"] for key in ("coverage", "size", "single", "empty")},
                    "by_class": {
                        label: {
                            **found[f"{name}/{c}"],
                            "size": found[f"{name}/{c}/size"],
                            "threshold_groups": rule.groups.get(label),
                            "estimable": rule.thresholds.get(label, 0.0) is not None,
                        }
                        for c, label in enumerate(j.classes)
                    },
                }
                for name, (rule, _) in inside.items()
            },
            "by_subgroup": [
                {
                    "column": column,
                    "level": level,
                    "images": int(among.sum()),
                    **{name: {key: found[f"{name}/{k} {key}"] for key in ("coverage", "size")} for name in SHOWN},
                }
                for k, (column, level, among) in enumerate(levels)
            ],
        }
    }


def _rules(j: Evaluation) -> dict[str, conformal.ConformalSets]:
    """Every score with one common threshold and with one threshold per class."""
    assert j.known is not None
    assert j.reference is not None
    return {
        f"{score} {'by class' if by_class else 'marginal'}": conformal.calibrate_conformal(
            j.known.probs, j.known.labels, j.reference.groups, j.classes, score=score, level=j.spec.set_level,
            by_class=by_class, seed=j.spec.seed,
        )
        for score in conformal.SCORES
        for by_class in (False, True)
    }  # fmt: skip


def _inside(j: Evaluation, rule: conformal.ConformalSets) -> NDArray[np.bool_]:
    return rule.of(j.scores.probs, j.classes, conformal.luck_of(j.p.ids))


def _covered(j: Evaluation, inside_NC: NDArray[np.bool_]) -> Floats:
    return np.asarray(inside_NC[np.arange(len(j.p)), j.scores.labels], dtype=np.float64)


def _levels(j: Evaluation) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """Column, level and images of every subgroup of a column that varies."""
    if j.rows is None or not len(j.p):
        return []
    columns = [d for d in divisions(j.rows, j.train, ()) if d.name in DIVIDED_BY and len(d.levels) > 1]
    return [(d.name, level, d.codes == code) for d in columns for code, level in enumerate(d.levels)]


SET_NAMES = {
    "lac": "least ambiguous (LAC)",
    "aps": "adaptive (APS)",
    "aps_randomised": "adaptive, randomized",
    "raps": "adaptive, regularized (RAPS)",
}


def view(m: Json) -> dict[str, Any] | None:
    """What the page shows on conformal prediction."""
    c = m["conformal"]
    if c is None:
        return None
    marginal, own = (c["rules"][name]["by_class"] for name in SHOWN)
    not_estimable = ("not estimable", "too few groups for this level; every set contains the class")
    return {
        "level": f"{100 * c['level']:g} %",
        "part": c["part"],
        "rules": [
            (
                SET_NAMES[name.split()[0]] + (", one threshold per class" if name.endswith("by class") else ""),
                [cell(rule[key]) for key in ("coverage", "size", "single", "empty")],
            )
            for name, rule in c["rules"].items()
        ],
        "classes": [
            {
                "name": name,
                "groups": own[name]["threshold_groups"],
                "cells": [
                    cell(marginal[name]),
                    cell(marginal[name]["size"]),
                    cell(own[name]) if own[name]["estimable"] else not_estimable,
                    cell(own[name]["size"]),
                ],
            }
            for name in m["classes"]
        ],
        "subgroups": [
            {
                "name": f"{TITLES.get(one['column'], one['column'])}: {one['level']}",
                "images": f"{one['images']:,}",
                "cells": [_guarded(one[name][key]) for name in SHOWN for key in ("coverage", "size")],
            }
            for one in c["by_subgroup"]
        ],
    }


def _guarded(estimate: Json) -> tuple[str, str]:
    """The estimate of a subgroup; only its number of groups if the subgroup is too small for an interval."""
    return cell(estimate) if estimate["low"] is not None else ("–", f"{estimate['groups']} groups")
