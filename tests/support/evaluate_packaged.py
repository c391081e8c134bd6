"""Evaluate the packaged model again on the splits it was made with, without training, and store the evaluation in it.

python tests/support/evaluate_packaged.py FOLDER_OF_HAM10000 RUN

RUN is a new folder for the run. The calibrator, the answers and the grade of its heat maps stay as they are; operating points,
metrics and model card are written anew. About two minutes.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from dermalyze import audit, calibrate, evaluate, prepare, score, split
from dermalyze.artifact.artifact import CARD_NAME, METRICS_NAME, Artifact
from dermalyze.artifact.edit import rewrite, with_evaluation
from dermalyze.artifact.record import NOTHING_YET, sealed
from dermalyze.config.experiment import load_experiment
from dermalyze.core.run import Run
from dermalyze.serve.predictor.packaged import FOLDER

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "small.yaml"


def evaluated(data: Path, root: Path) -> dict[str, Any]:
    """The record of the packaged model after `calibrate` and `evaluate` in a run with its network."""
    spec = load_experiment(EXPERIMENT, [f"data.path={data}"])
    run = Run.create(root, spec)
    for step in (prepare, audit, split):
        step(run, spec)
    record = json.loads((FOLDER / "artifact.json").read_text())
    counted = {part: found["groups"] for part, found in record["training"]["images"].items()}
    certificate = run.certificate()
    if counted != {part: found["groups"] for part, found in certificate["counts"].items()}:
        raise SystemExit(f"other splits than the model was made with: {certificate['counts']}, must have groups {counted}")
    run.artifact_dir.mkdir()
    for name in record["files"]:
        shutil.copy(FOLDER / name, run.artifact_dir / name)
    named = {**record["created_from"], "manifest_sha256": certificate["manifest_sha256"]}  # its columns became more
    blank = {**record, **NOTHING_YET, "created_from": named}
    (run.artifact_dir / "artifact.json").write_bytes(sealed({key: value for key, value in blank.items() if key != "sha256"}))
    for stage in (score, calibrate, evaluate):
        stage(run, spec)
    return dict(json.loads(run.artifact_record_path.read_text()))


def main() -> None:
    """Take the evaluation over into the package."""
    data, root = map(Path, sys.argv[1:3])
    made = evaluated(data, root)
    record = json.loads((FOLDER / "artifact.json").read_text())
    calibration = {**record["calibration"], "operating_points": made["calibration"]["operating_points"]}
    if {**made["calibration"], "ood": None} != {**calibration, "ood": None}:
        raise SystemExit("the calibrator is another one than that of the packaged model; nothing is changed")
    files = {name: (root / "export" / name).read_bytes() for name in (CARD_NAME, METRICS_NAME)}
    values = {**{key: value for key, value in record.items() if key != "sha256"}, "calibration": calibration}
    rewrite(FOLDER, with_evaluation(values, files), files)
    Artifact.open(FOLDER)


if __name__ == "__main__":
    main()
