"""From stored scores to probabilities that can be taken at their word: fit, choose, and put it into the artifact."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dermalyze.artifact.artifact import OOD_NAME
from dermalyze.artifact.edit import rewrite
from dermalyze.artifact.record import ArtifactRecord, parse_record
from dermalyze.artifact.self_test import with_probabilities
from dermalyze.calibration.calibrators import Trial
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.atomic import sha256_bytes, sha256_file, write_bytes, write_json
from dermalyze.core.run import Run, read_json
from dermalyze.data.splitting import read_part
from dermalyze.errors import DataError, ModelError
from dermalyze.scoring.class_prior import prior_shift
from dermalyze.scoring.fit_calibration import calibration_of
from dermalyze.scoring.fit_ood import choose, fit_ood
from dermalyze.scoring.predictions import Predictions, read_predictions
from dermalyze.tasks.answering import Answering


@dataclass(frozen=True)
class CalibrateResult:
    """What was fitted.

    Attributes:
        recipe: the inference recipe it belongs to.
        part: the part it was fitted on: cal, or val where a split has no cal.
        images: of that part; groups: of them.
        kind: the calibrator.
        parameters: its numbers.
        referral: from which confidence on it answers, or None where it always does.
        trials: log loss of each calibrator on images that its fit had not seen.
        ood: what refuses images unlike the training split, and from which score on; None: nothing does.
        further: of the recipes that `score` has stored beside it.
        thresholds: of task multilabel: from which probability on each label is called.
    """

    recipe: str
    part: str
    images: int
    groups: int
    kind: str
    parameters: dict[str, Any]
    referral: dict[str, Any] | None
    ood: dict[str, Any] | None
    trials: tuple[Trial, ...]
    further: tuple[CalibrateResult, ...] = ()
    thresholds: dict[str, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        further = [result.as_dict() for result in self.further]
        return {**self.__dict__, "trials": [trial.as_dict() for trial in self.trials], "further": further}

    def lines(self) -> list[str]:
        """Lines for a person."""
        lines = [f"recipe {self.recipe}, fitted on {self.images} images ({self.groups} groups) of {self.part}: {self.said()}"]
        lines += [f"  {t.kind:<18} log loss {t.log_loss:.4f}" + ("  *" if t.kind == self.kind else "") for t in self.trials]
        lines.append("log loss by cross-validation within that part; * is the one taken")
        if self.thresholds is not None:
            lines.append("called from: " + ", ".join(f"{name} {value:.3f}" for name, value in self.thresholds.items()))
        if self.referral is not None:
            lines.append(
                f"refers what is less sure than {self.referral['threshold']:.3f}: all but {self.referral['coverage']:.0%}"
            )
        if self.ood is not None:
            lines.append(
                f"refers what is unlike the training split: {self.ood['kind'].replace('_', ' ')} above "
                f"{self.ood['threshold']:.4g}, which {self.ood['kept']:.0%} of {self.part} do not exceed"
            )
        return [*lines, *(f"recipe {result.recipe}, to be compared: {result.said()}" for result in self.further)]

    def said(self) -> str:
        """The calibrator in words."""
        number = self.parameters.get("temperature")
        return self.kind.replace("_", " ") + (f" {number:.3f}" if number else "")


def calibrate(run: Run, spec: ExperimentSpec) -> CalibrateResult:
    """Fit the calibrator of the run's inference recipe on its calibration split, and write it into the artifact.

    Each recipe that `score` has stored beside it gets its own as well, for `evaluate` to compare; it is not served.

    Every calibrator is tried by cross-validation over whole groups; `inference.calibration` names the one to take, or
    leaves the choice to that (see `calibrators.CHOICES`). The out-of-distribution scores are fitted on the training split,
    with thresholds from the calibration split; `inference.ood` names the one to serve, or leaves it to
    `dermalyze.scoring.fit_ood.choose`. Without a calibration split it is the validation split, which early stopping
    has used; the result reports this.

    Raises:
        UsageError: no scores or no export yet, or another process works in the run.
        ConfigError: `evaluate.malignant` or `evaluate.focus` does not fit the classes.
        DataError: manifest or split changed; predictions of other images.
        ModelError: predictions of another model.
    """
    with run.lock():
        run.require_writable()
        served = spec.inference.recipe
        part = "cal" if run.split_path("cal").exists() else "val"
        run.require(run.predictions_path(part, served), "score")
        record = parse_record(run.require(run.artifact_record_path, "export").read_bytes())
        result = _calibrate_recipe(run, spec, served, part, record)
        further = [_calibrate_recipe(run, spec, name, part, record) for name in _further(run, served, part, record)]
        return replace(result, further=tuple(further))


def _further(run: Run, served: str, part: str, record: ArtifactRecord) -> list[str]:
    """Recipes that are stored beside the served one, of the same model."""
    names = [name for name in run.stored_recipes(part) if name != served]
    meta = {name: read_predictions(run.predictions_path(part, name)).meta for name in names}
    return [name for name in names if meta[name].get("scores_sha256") == record.scores_sha256]


def _calibrate_recipe(run: Run, spec: ExperimentSpec, recipe: str, part: str, record: ArtifactRecord) -> CalibrateResult:
    """Fit, choose and write the calibration of one recipe; into the artifact too, where it serves the recipe."""
    path = run.predictions_path(part, recipe)
    p = read_predictions(path)
    _check(run, p, part, record.scores_sha256)
    asked = spec.inference.calibration
    logits, task = p.logits.astype(np.float64), p.task
    shift_C = prior_shift(run, task, spec.train, p.classes)
    trials = task.cross_validate(logits, p.labels, p.groups, shift_C)
    calibrator = task.fit_calibrator(task.choose_calibrator(asked, trials), logits, p.labels, shift_C)
    settings: dict[str, Any] = {"data": spec.data, "inference": spec.inference, "evaluate": spec.evaluate}
    fitted = calibration_of(p, calibrator, part, task=spec.task, **settings)
    kind, groups, calibration = fitted["kind"], fitted["groups"], dict(fitted)
    served = recipe == spec.inference.recipe  # only of it is there what such scores are fitted on
    fits, missing, synthetic_sha256 = fit_ood(run, p, spec.inference.ood, spec.seed) if served else ({}, {}, None)
    chosen = choose(fits, missing, spec.inference.ood) if served else None
    calibration["ood"] = fits[chosen].as_dict() if chosen is not None else None
    for name, one in fits.items():
        if data := one.detector.to_bytes():
            write_bytes(run.ood_path(recipe, name), data)
    write_json(
        run.calibration_path(recipe),
        {
            "schema_version": 1,
            "recipe": recipe,
            "scores_sha256": record.scores_sha256,
            "predictions_sha256": sha256_file(path),
            "asked": asked,
            "calibration": calibration,
            "trials": [trial.as_dict() for trial in trials],
            "synthetic_sha256": synthetic_sha256,
            "ood": {
                "choice": "largest mean AUROC of the kinds of synthetic out-of-distribution images against this part",
                "missing": missing,
                "scores": {k: {**f.as_dict(), "auroc": f.aurocs, "mean_auroc": f.mean_auroc} for k, f in fits.items()},
            },
        },
    )
    if served:
        _into_artifact(run, record, calibration, fits[chosen].detector.to_bytes() if chosen is not None else b"")
    return CalibrateResult(
        recipe, part, len(p), groups, kind, fitted["parameters"], fitted.get("referral"), calibration["ood"], trials,
        thresholds=fitted.get("thresholds"),
    )  # fmt: skip


def _into_artifact(run: Run, record: ArtifactRecord, calibration: dict[str, Any], arrays: bytes) -> None:
    """Put the calibration, and the arrays of its out-of-distribution score, into the exported artifact, all at once."""
    files = {OOD_NAME: sha256_bytes(arrays)} if arrays else {}
    values = {**read_json(run.artifact_record_path), "calibration": calibration, "calibration_files": files}
    if values.get("reference") is not None:
        answering = Answering.read(record.task, [entry.name for entry in record.classes], record.recipe, calibration)
        values["reference"] = with_probabilities(values["reference"], answering)
    rewrite(run.artifact_dir, values, {OOD_NAME: arrays} if files != record.calibration_files and arrays else {})


def _check(run: Run, p: Predictions, part: str, scores_sha256: str) -> None:
    """Refuse predictions that are not this model's of this part."""
    again = f"run again: dermalyze score {run.root}"
    if p.meta.get("scores_sha256") != scores_sha256:
        raise ModelError(f"{run.root.name}: the predictions of {part} are not of the exported model; {again}")
    if p.meta.get("manifest_sha256") != run.manifest_hash() or p.meta["set"] != part:
        raise DataError(f"{run.root.name}: the predictions are not of the part {part} of this manifest; {again}")
    if p.ids != read_part(run, part)["image_id"].astype(str).tolist():
        raise DataError(f"{run.root.name}: the predictions hold other images than the part {part}; {again}")
