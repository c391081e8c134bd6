"""What a report says of the run itself: model, files, controls, and what a person wrote."""

from __future__ import annotations

from typing import Any

from dermalyze.config.classes import describe
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.config.report import load_report
from dermalyze.core.artefact import parse_record
from dermalyze.core.progress import say
from dermalyze.core.run import Run, read_json
from dermalyze.data.manifest import read_classes

FACTS = ("model", "files", "controls", "person")


def facts(run: Run, spec: ExperimentSpec, *, own: bool) -> dict[str, Any]:
    """Entries of `evaluation_metrics.json`: `model`, `files`, `controls` and `person`.

    Args:
        own: of the run's own test part; else (an external set) there are no files, controls or answers of a person.

    Raises:
        ConfigError: report.yaml in the run's folder is none.
    """
    return {
        "model": model_facts(run, spec),
        "files": run.present_files() if own else None,
        "controls": controls_of(run) if own else None,
        "person": person(run) if own else None,
    }


def model_facts(run: Run, spec: ExperimentSpec) -> dict[str, Any]:
    """What a model card names: the network, its classes, what it was made from."""
    record = parse_record(run.artefact_record_path.read_bytes()) if run.artefact_record_path.exists() else None
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
    """The controls, where they were done on the manifest that the run has now."""
    if not run.controls_path.exists():
        return None
    found = read_json(run.controls_path)
    if found.get("provenance", {}).get("manifest_sha256") != run.manifest_hash():
        say(f"{run.controls_path.name}: of another manifest, and left out; run again: dermalyze controls {run.root}")
        return None
    return found


def person(run: Run) -> dict[str, str]:
    """What a person wrote into report.yaml; nothing where there is none."""
    return load_report(run.report_answers_path).model_dump(exclude_none=True) if run.report_answers_path.exists() else {}
