"""From a verdict on maps to the artifact: of the same network only, and never on fewer groups than before."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mapped import CAM_RECORD, GRADES, mapped_graph

from dermalyze.artifact.artifact import Artifact
from dermalyze.artifact.edit import rewrite, with_evaluation
from dermalyze.core.run import Run
from dermalyze.imaging.preprocess import Preprocessing
from dermalyze.report.served_grade import grade_line, grade_of, keep_grade, with_grade

LEVEL = 0.95


@pytest.fixture
def run(tmp_path: Path, artifact_writer: Callable[..., Path]) -> Run:
    """A run's folder with an export and nothing else."""
    made = Run(tmp_path / "run")
    made.root.mkdir()
    made.explain_dir.mkdir()
    artifact_writer(made.artifact_dir, graph=mapped_graph(), cam=CAM_RECORD)
    return made


def record_of(run: Run) -> dict[str, Any]:
    return dict(json.loads(run.artifact_record_path.read_text()))


def network_of(run: Run, verdict: str = "better", method: str = "closed_form", **changes: Any) -> dict[str, Any]:
    """As `grade_network` says it of the run's own network."""
    grade = {**GRADES[verdict], **changes}

    def whole(figure: dict[str, Any]) -> dict[str, Any]:
        return {**figure, "n": grade["groups"], "groups": grade["groups"], "undefined": 0, "note": ""}

    return {
        "run": "run",
        "weights_sha256": record_of(run)["files"]["model.safetensors"],
        "groups": grade["groups"],
        "methods": {method: {"faithfulness": whole(grade["faithfulness"])}},
        "grades": {
            method: {
                "over": {floor: whole(one) for floor, one in grade["over"].items()},
                "verdict": grade["verdict"],
                "sentence": grade["words"],
            }
        },
    }


def keep(run: Run, network: dict[str, Any]) -> str | None:
    """The verdict that the artifact then has."""
    found = keep_grade(run, network, preprocessing(run), LEVEL)
    assert (found.model_dump() if found else None) == record_of(run)["cam_grade"]
    return found.verdict if found else None


def preprocessing(run: Run) -> Preprocessing:
    return Preprocessing.from_dict(record_of(run)["preprocessing"])


@pytest.mark.parametrize("verdict", GRADES)
@pytest.mark.parametrize("method", ["closed_form", "gradcam"])
def test_the_grade_goes_into_the_artifact(run: Run, verdict: str, method: str) -> None:
    before = Artifact.open(run.artifact_dir, threads=1)
    assert before.cam_grade.verdict == "not graded"
    assert keep(run, network_of(run, verdict, method)) == verdict
    after = Artifact.open(run.artifact_dir, threads=1)
    assert after.cam_grade.model_dump() == GRADES[verdict]
    assert after.sha256 != before.sha256, "the grade is part of the model's identity"
    assert after.record.scores_sha256 == before.record.scores_sha256, "and changes no score"
    assert str(GRADES[verdict]["groups"]) in grade_line(after.cam_grade.model_dump())


def test_maps_of_another_method_say_nothing_of_those_that_are_served(run: Run) -> None:
    network = network_of(run, method="rollout")
    assert grade_of(network, LEVEL) is None
    assert keep(run, network) is None
    assert not run.map_grade_path.exists()
    both = network_of(run, "no better")
    both["grades"]["gradcam"] = network_of(run, "better", "gradcam")["grades"]["gradcam"]
    assert keep(run, both) == "no better", "where both were evaluated, the maps that are served count"
    assert keep(run, network) == "no better", "and stay"


def test_fewer_groups_take_no_grade_away(run: Run) -> None:
    assert keep(run, network_of(run, "no better", groups=40)) == "no better"
    assert keep(run, network_of(run, "not graded", groups=5)) == "no better"
    assert keep(run, network_of(run, "better", groups=39)) == "no better", "nor give a better one"
    assert keep(run, network_of(run, "better", groups=40)) == "better"
    assert keep(run, network_of(run, "no better", groups=100)) == "no better"


def test_another_network_has_no_grade(run: Run, artifact_writer: Callable[..., Path]) -> None:
    keep(run, network_of(run))
    values = record_of(run)
    assert with_grade(run, values) == values
    others = (
        {"files": {**values["files"], "model.safetensors": "0" * 64}},
        {"preprocessing": {**values["preprocessing"], "mean": [0.4] * 3}},
        {"cam": {"kind": "none", "reason": "no such head", "height": 0, "width": 0}},
    )
    for change in others:
        found = with_grade(run, {**values, **change})
        assert (found["cam_grade"], found["graded_scores_sha256"]) == (None, None)
    foreign = {**network_of(run, "no better", groups=1000), "weights_sha256": "0" * 64}
    assert keep(run, foreign) is None, "what was evaluated is not what is served, and what was said of it has been overwritten"


def test_the_grade_survives_a_new_calibration_and_the_evaluation_a_new_grade(run: Run) -> None:
    keep(run, network_of(run))
    rewrite(run.artifact_dir, {**record_of(run), "calibration": {"kind": "none"}})
    assert Artifact.open(run.artifact_dir, threads=1).cam_grade.verdict == "better"
    files = {"model_card.md": b"# Card\n", "metrics.json": b"{}\n"}
    rewrite(run.artifact_dir, with_evaluation(record_of(run), files), files)
    assert keep(run, network_of(run, "no better", groups=50)) == "no better"
    assert Artifact.open(run.artifact_dir, threads=1).card == "# Card\n"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"grade": {"verdict": "better"}}'])
def test_a_damaged_grade_is_left_out_and_measured_anew(run: Run, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    keep(run, network_of(run))
    run.map_grade_path.write_text(damage)
    assert with_grade(run, record_of(run))["cam_grade"] is None
    said = capsys.readouterr().err
    assert "grade.json: cannot be read and is left out; run again: dermalyze explain" in said
    assert keep(run, network_of(run, "no better")) == "no better"
