"""Measure stored predictions: metrics with intervals, figures, one page. Pure; a CPU does it in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dermalyze.artifact.artifact import Artifact, open_export
from dermalyze.audit.image_statistics import measure_images
from dermalyze.audit.quality_cache import KEPT, with_statistics
from dermalyze.calibration.recipes import passes
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.config.report import dump_report, load_report
from dermalyze.core.atomic import write_json, write_text
from dermalyze.core.progress import progress, say
from dermalyze.core.run import Run
from dermalyze.data.manifest import read_classes, read_manifest
from dermalyze.data.metadata import encode_rows, encoder_of, remarks
from dermalyze.data.pixels import read_batches
from dermalyze.data.samples import Samples
from dermalyze.data.splitting import read_division, require_no_leak
from dermalyze.errors import DataError, LeakError, UsageError, one_line
from dermalyze.imaging.decode import Preprocessing
from dermalyze.imaging.samples import size_of
from dermalyze.report.collect import gather, manifest_store, read_home, thumbnails_of, validation_values
from dermalyze.report.croissant import croissant
from dermalyze.report.evaluation import measure, versions, write_report
from dermalyze.report.evaluation_data import Evaluation
from dermalyze.report.recalibration import divide_groups
from dermalyze.report.run_summary import FACTS, head, not_for, provenance, run_entries
from dermalyze.report.sections import headline
from dermalyze.report.served import into_artifact
from dermalyze.report.text import interval_or_note, value_text
from dermalyze.scoring.check_test import check_test, counts_text
from dermalyze.scoring.class_prior import prior_shift
from dermalyze.scoring.external_set import ExternalSet, open_external, read_label_map, shares_lesions, trained_on
from dermalyze.scoring.imported_predictions import match, read_imported, standing_alone
from dermalyze.scoring.isic_submission import submission_csv
from dermalyze.scoring.predictions import Predictions, read_predictions, write_predictions
from dermalyze.tasks.base import TASKS


@dataclass(frozen=True)
class EvaluateResult:
    """What `evaluate` found.

    Attributes:
        metrics: the content of evaluation_metrics.json.
        files: what was written; the page is among them.
    """

    metrics: dict[str, Any]
    files: tuple[Path, ...]

    @property
    def page(self) -> Path:
        """The report to open."""
        return next(path for path in self.files if path.suffix == ".html")

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values: the metrics, and where the report is."""
        return {**self.metrics, "report": str(self.page)}

    def lines(self) -> list[str]:
        """Lines for a person: the headline figures with their intervals, where the report is, and what this is not."""
        m = self.metrics
        lines = [f"{m['title']}: {m['n_images']} images of {m['n_groups']} groups, recipe {m['recipe']}"]
        lines += m["warnings"]
        if m["accepted_leak"]:
            lines.append(f"LEAK ACCEPTED, NOT A FAIR RESULT: {m['accepted_leak']}")
        for name, estimate in headline(m):
            lines.append(f"{name:<26} {value_text(estimate)}  {interval_or_note(estimate)}".rstrip())
        return [*lines, f"intervals: {100 * m['level']:g} %, over groups", f"report: {self.page}", m["disclaimer"]]


def evaluate(
    run: Run,
    spec: ExperimentSpec,
    *,
    report_yaml: Path | None = None,
    accept_leak: str | None = None,
    submission: Path | None = None,
) -> EvaluateResult:
    """Report on the run's test split from stored predictions.

    Args:
        run: a run whose predictions `score` has stored.
        spec: `inference.recipe` and `evaluate` are used.
        report_yaml: what only a person can tell (see `ReportSpec`), for the checklists; it is kept in the run's folder.
        accept_leak: continue although images were trained on, for this reason, which is stamped on page and figures.
        submission: also write the calibrated probabilities there, as the ISIC challenges take them.

    Raises:
        UsageError: no predictions yet, or an empty reason.
        ConfigError: `report_yaml` is unreadable or has unknown keys, or `evaluate.subgroups` names a column that is not there.
        DataError: manifest or split changed; predictions are of other images or of another manifest.
        LeakError: images are in a part that the model was made with, and no reason was given.
        ModelError: damaged predictions, NaN, other classes than the run's.
    """
    require_reason(accept_leak)
    run.require_writable()
    answers = None if report_yaml is None else load_report(report_yaml)
    recipe = spec.inference.recipe
    path = run.require(run.predictions_path("test", recipe), "score")
    p = read_predictions(path)
    leak = check_test(run, p, recipe, accept_leak)
    certificate = run.certificate()
    frame = with_statistics(run, read_manifest(run).set_index("image_id").loc[p.ids])
    settings: dict[str, Any] = {"data": spec.data, "inference": spec.inference, "evaluate": spec.evaluate}
    e = gather(run, p, frame, manifest_store(spec.data), **settings)
    if answers is not None:
        write_text(run.report_answers_path, dump_report(answers))
    say(f"evaluate: {len(p)} images, {spec.evaluate.resamples} resamples")
    metrics = {
        **head(run, "test split", p, leak),
        **run_entries(run, own=True),
        **measure(e),
        "validation": validation_values(run, recipe, spec.evaluate, p, e.answering),
        "split": {key: certificate[key] for key in ("passed", "seed", "counts", "used_for", "checks")},
        "external": None,
        "provenance": provenance(run, p, path),
    }
    result = finish(run.report_dir, metrics, e, submission)
    into_artifact(run, metrics, p.meta.get("scores_sha256"))
    write_json(run.croissant_path, croissant(run, spec.name))
    return EvaluateResult(result.metrics, (*result.files, run.croissant_path))


def evaluate_external(
    run: Run,
    spec: ExperimentSpec,
    on: Path,
    *,
    images: Path | None = None,
    label_map: Path | None = None,
    accept_leak: str | None = None,
    submission: Path | None = None,
) -> EvaluateResult:
    """Run the exported model on another labelled set, and report on it: external validation.

    Args:
        run: one that has been exported.
        spec: `inference`, `evaluate`, `data` and `task` are used.
        on: a folder with one folder a class, a folder in the run's own layout, or a CSV.
        images: the folder of the images of a CSV that does not lie beside them.
        label_map: YAML or JSON, {label of that set: class of the model, or null to leave it out}.
        accept_leak, submission: as for `evaluate`.

    Raises:
        UsageError: the set or the export is not there, or an empty reason.
        ConfigError: the label map is none, or leads to no class of the model.
        DataError: labels that are no classes, unusable images.
        LeakError: images of the set were used to make the model, and no reason was given.
        ModelError: the artifact is refused.
    """
    return _external(run, spec, on, images, label_map, accept_leak, submission, None)


def recalibrate(
    run: Run,
    spec: ExperimentSpec,
    on: Path,
    share: float,
    *,
    images: Path | None = None,
    label_map: Path | None = None,
    accept_leak: str | None = None,
    submission: Path | None = None,
) -> EvaluateResult:
    """The same with a calibrator of that set's own: fitted on a share of its groups, measured on the others beside the one
    there is.

    Args:
        share: of the groups to fit on, between 0 and 1.
        run, spec, on, images, label_map, accept_leak, submission: as for `evaluate_external`.

    Raises:
        ConfigError: the share is none; else as for `evaluate_external`.
        DataError: too few groups on either side.
    """
    return _external(run, spec, on, images, label_map, accept_leak, submission, share)


def evaluate_predictions(
    run: Run,
    spec: ExperimentSpec,
    predictions: Path,
    *,
    scores: str | None = None,
    partial: bool = False,
    accept_leak: str | None = None,
    submission: Path | None = None,
) -> EvaluateResult:
    """Report on predictions that somebody else made for the test split.

    Args:
        run: one that has been split, or a folder for the report alone where the file has a column `label`.
        spec: `evaluate` and `task` are used.
        predictions: a CSV with image_id and one column a class, or what `score --model` stored; see `read_imported`.
        scores: what the CSV holds, probabilities, one-vs-rest scores or logits; None: as its values tell.
        partial: continue although test images are missing in the CSV.
        accept_leak, submission: as for `evaluate`.

    Raises:
        UsageError: the file is not there, or an empty reason.
        DataError: columns or images missing; another manifest.
        LeakError: the split leaks, and no reason was given.
        ModelError: NaN, no probabilities, other classes than the run's.
    """
    require_reason(accept_leak)
    task = TASKS[spec.task.kind]
    given = read_imported(predictions, read_classes(run) if run.config_path.is_file() else None, scores, task)
    reference, leak, store, manifest = None, None, None, None
    if run.config_path.is_file():
        frame, parts = read_division(run)
        leak, manifest = require_no_leak(run, accept_leak), run.manifest_hash()
        if given.manifest_sha256 not in (None, manifest):
            raise DataError(
                f"{given.name}: was made for another manifest.parquet; run again: dermalyze score {run.root} --model FILE"
            )
        p, reference, notes = match(given, frame, parts, read_classes(run), partial=partial)
        rows, store = frame.set_index("image_id").loc[p.ids], manifest_store(spec.data)
    else:
        p, rows, notes = standing_alone(given)
    run.require_writable()
    say(f"evaluate: {len(p)} images, {given.kind} of {given.name}, {spec.evaluate.resamples} resamples")
    counts = task.membership(p.labels, len(p.classes)).sum(axis=0)
    e = Evaluation(p, spec.evaluate, p.answering(), None, reference, rows, thumbnail=thumbnails_of(rows, store), data=spec.data)
    metrics = {
        "schema_version": 1,
        "title": f"{spec.name}: predictions of {given.name}",
        "set": p.meta["set"],
        "recipe": p.meta["recipe"],
        "task": p.meta["task"],
        "accepted_leak": leak,
        "about": {
            "sentences": [
                f"Predictions of {given.model}, read from {given.name} as {given.kind} of {len(p.classes)} {task.nouns} "
                f"({', '.join(p.classes)}). How that model was made is not known here, nor whether it was made with these "
                "images: if it was, these figures flatter."
            ],
            "not_for": not_for(task),
        },
        **dict.fromkeys(FACTS),
        "known_biases": [],
        "data_sets": [],
        **measure(e),
        "validation": None,
        "split": None,
        "external": {
            "sentence": f"{len(p)} labelled images with predictions of {given.name}.",
            "labels": [{"label": c, "class": c, "images": int(n)} for c, n in zip(p.classes, counts, strict=True)],
            "notes": notes,
        },
        "provenance": {
            "bootstrap_seed": spec.evaluate.seed,
            "manifest_sha256": manifest,
            "predictions_sha256": given.sha256,
            "versions": versions(),
        },
    }
    return finish(run.given_report_dir(given.name), metrics, e, submission)


def _external(
    run: Run,
    spec: ExperimentSpec,
    on: Path,
    images: Path | None,
    label_map: Path | None,
    accept_leak: str | None,
    submission: Path | None,
    share: float | None,
) -> EvaluateResult:
    require_reason(accept_leak)
    run.require_writable()
    recipe = spec.inference.recipe
    artifact = open_export(run, recipe, threads=spec.train.threads)
    names = read_label_map(label_map) if label_map is not None else {}
    external = open_external(on, spec.data, artifact.classes, names, spec.task, images)
    if share is not None:
        divide_groups(external.frame["group"].astype(str).tolist(), share, spec.evaluate.seed)  # refused before the work
    used = trained_on(run, external, spec.data)
    if used and accept_leak is None:
        raise LeakError(
            f"{external.name}: {sum(used.values())} of {len(external.frame)} images were used to make this model "
            f"({counts_text(used)}); "
            'take them out, or continue with --accept-leak "reason", which is stamped on every figure'
        )
    here = f"{one_line(accept_leak)} ({counts_text(used)})" if accept_leak and used else None
    leak = "; ".join(reason for reason in (artifact.record.accepted_leak, here) if reason) or None
    encoder = encoder_of(artifact)
    lacking = remarks(encoder, external.frame)
    for line in lacking:
        say(line)
    predictions = _score(run, spec, artifact, external, leak)
    path = run.predictions_path(external.name, recipe)
    write_predictions(path, predictions)
    compared = "file bytes, pixels, ISIC names" + (" and lesions" if shares_lesions(external.kind, spec.data) else "")
    told = "None of its images was used to make the model" if not used else f"Used to make the model: {counts_text(used)}"
    looks = measure_images(external.store, external.frame, workers=spec.data.workers).frame[[*KEPT]]
    rows = external.frame.assign(**looks).set_index("image_id").loc[predictions.ids]
    shift_C = None if share is None else prior_shift(run, predictions.task, spec.train, predictions.classes)
    settings: dict[str, Any] = {"data": spec.data, "inference": spec.inference, "evaluate": spec.evaluate}
    known: dict[str, Any] = {"home": read_home(run, predictions), "recalibrate": share, "shift_C": shift_C}
    e = gather(run, predictions, rows, external.store, **settings, **known)
    metrics = {
        **head(run, f"external validation on {external.name}", predictions, leak),
        **run_entries(run, own=False),
        **measure(e),
        "validation": None,
        "split": None,
        "external": {
            "sentence": f"Read as {external.kind}; {len(external.frame)} labelled images. {told} ({compared} compared).",
            "labels": external.labels,
            "notes": [*external.notes, *lacking],
        },
        "provenance": provenance(run, predictions, path),
    }
    return finish(run.external_report_dir(external.name), metrics, e, submission)


def _score(run: Run, spec: ExperimentSpec, artifact: Artifact, external: ExternalSet, leak: str | None) -> Predictions:
    """The model's predictions of another set."""
    answering = artifact.answering
    preprocessing = Preprocessing.from_dict(artifact.preprocessing)
    metadata_NM = encode_rows(encoder_of(artifact), external.frame)
    inputs = Samples.of(external.store, external.frame, preprocessing, artifact.inputs, metadata_NM)
    ids = external.frame["image_id"].astype(str).tolist()
    samples, embeddings = [], []
    with progress(f"evaluate on {external.name}", len(external.frame), cost=True) as advance:
        size = spec.inference.batch_size
        for batch in read_batches(inputs, size=size, workers=spec.data.workers):
            samples_BSC, embedding_BD = passes(answering.recipe, artifact.run, batch)
            samples.append(samples_BSC)
            embeddings.append(embedding_BD)
            advance(size_of(batch))
    samples_NSC = np.concatenate(samples)
    return Predictions(
        ids=ids,
        groups=external.frame["group"].astype(str).tolist(),
        labels=answering.task.targets(external.frame["label"].tolist(), artifact.classes),
        logits=answering.task.pool(samples_NSC),
        embedding=np.concatenate(embeddings),
        meta={
            "classes": artifact.classes,
            "set": external.name,
            "recipe": answering.recipe,
            "task": artifact.record.task,
            "model_sha256": artifact.model_sha256,
            "scores_sha256": artifact.record.scores_sha256,
            "manifest_sha256": run.manifest_hash(),
            "accepted_leak": leak,
        },
        samples=samples_NSC if samples_NSC.shape[1] > 1 else None,
    )


def finish(folder: Path, metrics: dict[str, Any], e: Evaluation, submission: Path | None) -> EvaluateResult:
    """Write the report, and the submission where one is asked for."""
    if submission is not None:
        write_text(submission, submission_csv(e.p.ids, e.scores.probs, e.classes))
    files = write_report(folder, metrics, e)
    return EvaluateResult(metrics, (*files, *([submission] if submission is not None else [])))


def require_reason(accept_leak: str | None) -> None:
    """Refuse an empty reason.

    Raises:
        UsageError: there is one, and nothing in it.
    """
    if accept_leak is not None and not accept_leak.strip():
        raise UsageError('--accept-leak needs a reason, for example: --accept-leak "to show what a leak flatters"')
