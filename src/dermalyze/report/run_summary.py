"""What a report says about the run itself: model, files, controls, and what a person wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dermalyze.artifact.record import parse_record
from dermalyze.config.classes import describe
from dermalyze.config.report import load_report
from dermalyze.core.atomic import sha256_file
from dermalyze.core.progress import say
from dermalyze.core.run import Run, read_json
from dermalyze.data.manifest import read_classes, read_manifest
from dermalyze.data.sources.cards import biases_of, data_sets
from dermalyze.report.evaluation import versions
from dermalyze.scoring.predictions import Predictions
from dermalyze.tasks.base import Task

NOT_FOR = (
    "diagnosis, triage or any decision about a person",
    "images of another kind than the training images (another device, body site or imaging technique)",
    "conditions that are not among its classes: it assigns each image to one of its classes",
    "groups of people with few cases in the data; without a measurement, performance is unknown",
)

LABELS_NOT_FOR = "findings that are not among its labels: it cannot predict others"
"""Replaces the third item if an image may have no label."""
FACTS = ("model", "files", "controls", "person")


def run_entries(run: Run, *, own: bool) -> dict[str, Any]:
    """Entries of `evaluation_metrics.json`: `model`, `files`, `controls` and `person`.

    Args:
        own: the run's own test split; an external set has no files, controls or answers of a person.

    Raises:
        ConfigError: report.yaml in the run's folder is not valid.
    """
    return {
        "model": model_entries(run),
        "files": run.present_files() if own else None,
        "controls": controls_of(run) if own else None,
        "person": person(run) if own else None,
    }


def model_entries(run: Run) -> dict[str, Any]:
    """What a model card names: the network, its classes and its source data."""
    spec = run.config()
    record = parse_record(run.artifact_record_path.read_bytes()) if run.artifact_record_path.exists() else None
    size = None if record is None else [record.preprocessing["height"], record.preprocessing["width"]]
    return {
        "name": spec.name,
        "backbone": spec.model.backbone,
        "head": spec.model.head.kind,
        "source": spec.data.source.kind,
        "size_px": size,
        "classes": [{"name": name, "description": describe(name)} for name in read_classes(run)],
        "epoch": None if record is None else record.training.get("epoch"),
    }


def controls_of(run: Run) -> dict[str, Any] | None:
    """The negative controls, if they were run on the current manifest."""
    if not run.controls_path.exists():
        return None
    found = read_json(run.controls_path)
    if found.get("provenance", {}).get("manifest_sha256") != run.manifest_hash():
        say(f"{run.controls_path.name}: of another manifest and left out; run again: dermalyze controls {run.root}")
        return None
    return found


def person(run: Run) -> dict[str, str]:
    """What a person wrote into report.yaml; empty if there is none."""
    return load_report(run.report_answers_path).model_dump(exclude_none=True) if run.report_answers_path.exists() else {}


def head(run: Run, what: str, p: Predictions, leak: str | None) -> dict[str, Any]:
    """Entries of `evaluation_metrics.json` on the run, the predictions and the data sets of the manifest."""
    spec = run.config()
    found = data_sets(spec.data.source, read_manifest(run)["image_id"].astype(str))
    return {
        "schema_version": 1,
        "title": f"{spec.name}: {what}",
        "set": p.meta["set"],
        "recipe": p.meta["recipe"],
        "task": p.meta["task"],
        "accepted_leak": leak,
        "about": about(run, p),
        "known_biases": biases_of(found.values()),
        "data_sets": [
            {"kind": kind, **{key: getattr(card, key) for key in ("name", "tags", "license", "license_note")}}
            for kind, card in found.items()
        ],
    }


def about(run: Run, p: Predictions) -> dict[str, list[str]]:
    """What the model is, how it was trained, and what it must not be used for, in sentences."""
    counts, spec = run.certificate()["counts"], run.config()
    train = counts["train"]
    weights = "existing weights" if spec.model.weights or spec.model.pretrained else "random weights"
    kept = read_json(run.best_record_path)["preprocessing"] if run.best_record_path.exists() else None
    size = f" on images of {kept['height']} x {kept['width']} px" if kept else ""
    calibrated = "calibrated probabilities" if run.calibration_path(p.meta["recipe"]).exists() else "probabilities"
    judged = "images" if spec.model.image_2 is None else "samples of two images"
    told = {
        "multiclass": f"A classifier of {judged} into {len(p.classes)} classes ({', '.join(p.classes)}) with {calibrated}",
        "multilabel": f"A network that predicts {calibrated} of {len(p.classes)} labels ({', '.join(p.classes)}) for "
        f"{judged}, which may have several labels or none",
    }
    return {
        "sentences": [
            f"{told[p.task.kind]}: "
            f"{spec.model.backbone} with a head of kind {spec.model.head.kind}{size}, trained from {weights} on "
            f"{train['images']:,} images of {train['groups']:,} groups.",
        ],
        "not_for": not_for(p.task),
    }


def not_for(task: Task) -> list[str]:
    """What a model of the task is not to be used for."""
    return [*NOT_FOR[:2], NOT_FOR[2] if task.has("one_class") else LABELS_NOT_FOR, *NOT_FOR[3:]]


def provenance(run: Run, p: Predictions, path: Path) -> dict[str, Any]:
    """Seeds, hashes and versions on which the numbers depend."""
    spec = run.config()
    return {
        "seed": spec.seed,
        "bootstrap_seed": spec.evaluate.seed,
        "config_sha256": sha256_file(run.config_path),
        "manifest_sha256": p.meta.get("manifest_sha256"),
        "predictions_sha256": sha256_file(path),
        "calibration_sha256": sha256_file(calibration)
        if (calibration := run.calibration_path(p.meta["recipe"])).exists()
        else None,
        "model_sha256": p.meta.get("model_sha256"),
        "versions": versions(),
    }
