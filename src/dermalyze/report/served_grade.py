"""Stores the grade of a run's maps, from `explain`, in the artifact; every served map carries it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dermalyze.artifact.cam_grade import MapGrade
from dermalyze.artifact.edit import rewrite
from dermalyze.artifact.record import WEIGHTS_NAME, check_record
from dermalyze.core.atomic import write_json
from dermalyze.core.progress import say
from dermalyze.core.run import Run, read_json
from dermalyze.errors import ModelError
from dermalyze.imaging.preprocess import Preprocessing

Json = dict[str, Any]
SAME_MAPS = ("closed_form", "gradcam")
"""Methods whose maps are those of the exported graph, where it has one: Grad-CAM's are closed-form maps divided by the
number of places (`tests/oracle/test_explainers.py`)."""


def grade_of(network: Mapping[str, Any], level: float) -> Json | None:
    """The grade of the served maps, from the result of `grade_network`; None if they were not graded.

    >>> grade_of({"grades": {"rollout": {}}}, 0.95) is None
    True
    """
    method = next((name for name in SAME_MAPS if name in network["grades"]), None)
    if method is None:
        return None
    found = network["grades"][method]
    faithfulness, over = network["methods"][method]["faithfulness"], found["over"]
    return {
        "verdict": found["verdict"],
        "words": found["sentence"],
        "faithfulness": _figure(faithfulness),
        "over": {floor: _figure(one) for floor, one in over.items()},
        "groups": network["groups"],
        "level": level,
    }


def keep_grade(run: Run, network: Mapping[str, Any], preprocessing: Preprocessing, level: float) -> MapGrade | None:
    """Store the grade next to the explanations and in the run's artifact. A grade on fewer groups than the stored one of the
    same network changes nothing.

    Args:
        run: run with an export, locked.
        network: the result of `grade_network`.
        preprocessing: of the graded network.
        level: of the intervals.

    Returns:
        The grade that the artifact now has; None if it has none.
    """
    grade, sha256 = grade_of(network, level), network["weights_sha256"]
    before = _stored(run, sha256, preprocessing)
    if grade is not None and (before is None or before["groups"] <= grade["groups"]):
        key = {"weights_sha256": sha256, "preprocessing": preprocessing.as_dict()}
        write_json(run.map_grade_path, {**key, "grade": grade})
    values = read_json(run.artifact_record_path)
    made = with_grade(run, values)
    if made != values:
        rewrite(run.artifact_dir, made)
    return check_record(made).cam_grade


def grade_line(grade: Mapping[str, Any]) -> str:
    """One line for a person.

    >>> grade_line({"words": "no better than a centered blob for this model", "groups": 40})
    'served heat maps: no better than a centered blob for this model (40 groups)'
    """
    return f"served heat maps: {grade['words']} ({grade['groups']} groups)"


def with_grade(run: Run, values: Mapping[str, Any]) -> Json:
    """A record with the run's stored grade if it is of the same network and the graph computes the maps; else without one.

    Args:
        run: the run whose `explain` may have stored a grade.
        values: the content of `artifact.json`.
    """
    bare = {**values, "cam_grade": None, "graded_scores_sha256": None}
    if values["cam"]["kind"] != "closed_form":
        return bare
    stored = _stored(run, values["files"][WEIGHTS_NAME], Preprocessing.from_dict(values["preprocessing"]))
    if stored is None:
        return bare
    return {**bare, "cam_grade": stored, "graded_scores_sha256": check_record(bare).scores_sha256}


def _stored(run: Run, weights_sha256: str, preprocessing: Preprocessing) -> Json | None:
    """The grade that `keep_grade` stored for a network; None if there is none."""
    if not run.map_grade_path.exists():
        return None
    try:
        found = read_json(run.map_grade_path)
        same = found["weights_sha256"] == weights_sha256 and Preprocessing.from_dict(found["preprocessing"]) == preprocessing
        return MapGrade.model_validate(found["grade"]).model_dump(mode="json") if same else None
    except (ModelError, ValueError, KeyError, TypeError):
        say(f"{run.map_grade_path.name}: cannot be read and is left out; run again: dermalyze explain {run.root}")
        return None


def _figure(estimate: Mapping[str, Any]) -> Json:
    return {name: estimate[name] for name in ("value", "low", "high")}
