"""Judge stored predictions: metrics with intervals, figures, one page. Pure; a CPU does it in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dermalyze.artifact.artifact import open_export
from dermalyze.audit.image_statistics import measure_images
from dermalyze.audit.quality_cache import KEPT, with_looks
from dermalyze.calibration.calibrators import Calibrator
from dermalyze.calibration.recipes import passes, pool
from dermalyze.config.data import PARTS
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.config.report import dump_report, load_report
from dermalyze.config.task import MultilabelTask
from dermalyze.core.atomic import write_json, write_text
from dermalyze.core.progress import progress, say
from dermalyze.core.run import Run
from dermalyze.data.manifest import read_classes, read_manifest
from dermalyze.data.metadata import encoder_of, lookup, remarks
from dermalyze.data.pixels import read_batches
from dermalyze.data.splitting import read_division, require_no_leak
from dermalyze.errors import DataError, LeakError, ModelError, UsageError, one_line
from dermalyze.imaging.decode import Preprocessing
from dermalyze.report import label_report
from dermalyze.report.collect import gather, manifest_store, pictures_of, read_home, validation_values
from dermalyze.report.croissant import croissant
from dermalyze.report.evaluation import judge, versions, write_report
from dermalyze.report.evaluation_data import Judged
from dermalyze.report.html import headline
from dermalyze.report.label_judged import gather_labels
from dermalyze.report.recalibration import divide_groups
from dermalyze.report.run_summary import FACTS, NOT_FOR, facts, head, provenance
from dermalyze.report.served import into_artifact
from dermalyze.report.text import interval_or_note, value_text
from dermalyze.scoring.external_set import open_external, read_label_map, shares_lesions, trained_on
from dermalyze.scoring.imported_predictions import Given, match, read_given, standing_alone
from dermalyze.scoring.isic_submission import submission_csv
from dermalyze.scoring.predictions import Predictions, read_predictions, write_predictions
from dermalyze.tasks.base import TASKS

"""What no model here is to be used for."""


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
        if m["accepted_leak"]:
            lines.append(f"LEAK ACCEPTED, NOT A FAIR RESULT: {m['accepted_leak']}")
        for name, estimate in (label_report.headline if m["task"] == "multilabel" else headline)(m):
            lines.append(f"{name:<26} {value_text(estimate)}  {interval_or_note(estimate)}".rstrip())
        return [*lines, f"intervals: {100 * m['level']:g} %, over groups", f"report: {self.page}", m["disclaimer"]]


def evaluate(
    run: Run,
    spec: ExperimentSpec,
    *,
    on: Path | None = None,
    label_map: Path | None = None,
    predictions: Path | None = None,
    scores: str | None = None,
    partial: bool = False,
    report_yaml: Path | None = None,
    accept_leak: str | None = None,
    submission: Path | None = None,
    recalibrate: float | None = None,
) -> EvaluateResult:
    """Report on the test part from stored predictions; or, with `on`, on any other labelled set (external validation); or, with
    `predictions`, on those that somebody else made for the test part.

    Args:
        run: a run whose predictions `score` has stored; with `on`, one that has been exported; with `predictions`, one that
            has been split, or a folder for the report alone where the file has a column `label`.
        spec: `inference.recipe` and `evaluate` are used; with `on`, `data.source` as well.
        on: a folder with one folder a class, a folder in the run's own layout, or a CSV.
        label_map: YAML or JSON, {label of that set: class of the model, or null to leave it out}.
        predictions: a CSV with image_id and one column a class, or what `score --model` stored; see
            `scoring.imported_predictions.read_given`.
        scores: what the CSV holds, probabilities or logits; None: as its values tell.
        partial: go on although test images are missing in the CSV.
        report_yaml: what only a person can tell (see `ReportSpec`), for the checklists; it is kept in the run's folder.
        accept_leak: go on although images were trained on, for this reason, which is stamped on page and figures.
        submission: also write the calibrated probabilities there, as the ISIC challenges take them.
        recalibrate: with `on`, the share of that set's groups on which a calibrator of its own is fitted, to be measured on the
            others beside the one there is.

    Raises:
        UsageError: no predictions yet, an empty reason, a label map or a recalibration without a set, or options that a run of
            another task does not take.
        ConfigError: `report_yaml` is unreadable or has unknown keys, `recalibrate` is no share, or `evaluate.subgroups`
            names a column that is not there.
        DataError: manifest or split changed; predictions are of other images or of another manifest.
        LeakError: images stand in a part that the model was made with, and no reason was given.
        ModelError: damaged predictions, NaN, other classes than the run's.
    """
    if isinstance(spec.task, MultilabelTask):
        given = (on, label_map, predictions, scores, report_yaml, submission, recalibrate)
        if partial or any(option is not None for option in given):
            TASKS[spec.task.kind].require("one_class", what="evaluate with any option but --accept-leak")
        return _evaluate_labels(run, spec, accept_leak)
    if accept_leak is not None and not accept_leak.strip():
        raise UsageError('--accept-leak needs a reason, for example: --accept-leak "to show what a leak flatters"')
    if predictions is not None and on is not None:
        raise UsageError("--predictions and --on exclude each other: name the predictions, or the set to predict")
    if predictions is None and (scores is not None or partial):
        raise UsageError("--scores and --partial belong to: --predictions FILE")
    if report_yaml is not None and (on is not None or predictions is not None):
        raise UsageError("--report-yaml belongs to the report on the run's own test part; leave out --on and --predictions")
    if on is not None:
        return _evaluate_external(run, spec, on, label_map, accept_leak, submission, recalibrate)
    if label_map is not None:
        raise UsageError("--label-map belongs to another set: give that with --on FOLDER or --on FILE.csv")
    if recalibrate is not None:
        raise UsageError("--recalibrate belongs to another set: give that with --on FOLDER or --on FILE.csv")
    if predictions is not None:
        return _evaluate_given(run, spec, read_given(predictions, _classes(run), scores), partial, accept_leak, submission)
    run.require_writable()
    answers = None if report_yaml is None else load_report(report_yaml)
    recipe = spec.inference.recipe
    path = run.require(run.predictions_path("test", recipe), "score")
    p = read_predictions(path)
    leak = check_test(run, p, recipe, accept_leak)
    certificate = run.certificate()
    frame = with_looks(run, read_manifest(run).set_index("image_id").loc[p.ids])
    judged = gather(run, spec, p, frame, manifest_store(spec))
    if answers is not None:
        write_text(run.report_answers_path, dump_report(answers))
    say(f"evaluate: {len(p)} images, {spec.evaluate.resamples} resamples")
    metrics = {
        **head(run, spec, "test part", p, leak),
        **facts(run, spec, own=True),
        **judge(judged),
        "validation": validation_values(run, spec, p, judged.calibrator),
        "split": {key: certificate[key] for key in ("passed", "seed", "counts", "used_for", "checks")},
        "external": None,
        "provenance": provenance(run, spec, p, path),
    }
    result = finish(run.report_dir, metrics, judged, submission)
    into_artifact(run, metrics, p.meta.get("scores_sha256"))
    write_json(run.croissant_path, croissant(run, spec))
    return EvaluateResult(result.metrics, (*result.files, run.croissant_path))


def _evaluate_labels(run: Run, spec: ExperimentSpec, accept_leak: str | None) -> EvaluateResult:
    """The report of a run whose images have any number of labels each."""
    run.require_writable()
    recipe = spec.inference.recipe
    path = run.require(run.predictions_path("test", recipe), "score")
    p = read_predictions(path)
    leak = check_test(run, p, recipe, accept_leak)
    frame = read_manifest(run).set_index("image_id").loc[p.ids]
    judged = gather_labels(run, spec, p, pictures_of(frame, manifest_store(spec)))
    say(f"evaluate: {len(p)} images, {spec.evaluate.resamples} resamples")
    certificate = run.certificate()
    metrics = {
        **head(run, spec, "test part", p, leak),
        "about": label_report.about(run, spec, p),
        **facts(run, spec, own=True),
        **label_report.judge(judged),
        "split": {key: certificate[key] for key in ("passed", "seed", "counts", "used_for", "checks")},
        "provenance": provenance(run, spec, p, path),
    }
    return EvaluateResult(metrics, tuple(label_report.write_report(run.report_dir, metrics, judged)))


def _evaluate_external(
    run: Run,
    spec: ExperimentSpec,
    on: Path,
    label_map: Path | None,
    accept_leak: str | None,
    submission: Path | None,
    recalibrate: float | None,
) -> EvaluateResult:
    run.require_writable()
    recipe = spec.inference.recipe
    artifact = open_export(run, recipe, threads=spec.train.threads)
    if artifact.record.second is not None:
        raise UsageError("--on: not made for models of two pictures a case yet; use a model of one")
    external = open_external(on, spec.data, artifact.classes, read_label_map(label_map) if label_map is not None else {})
    if recalibrate is not None:
        divide_groups(external.frame["group"].astype(str).tolist(), recalibrate, spec.evaluate.seed)  # refused before the work
    used = trained_on(run, external, spec.data)
    if used and accept_leak is None:
        raise LeakError(
            f"{external.name}: {sum(used.values())} of {len(external.frame)} images were used to make this model "
            f"({_counts(used)}); "
            'take them out, or go on with --accept-leak "reason", which is stamped on every figure'
        )
    here = f"{one_line(accept_leak)} ({_counts(used)})" if accept_leak and used else None
    leak = "; ".join(reason for reason in (artifact.record.accepted_leak, here) if reason) or None
    preprocessing = Preprocessing.from_dict(artifact.preprocessing)
    samples, embeddings = [], []
    encoder = encoder_of(artifact)
    known, lacking = lookup(encoder, external.frame), remarks(encoder, external.frame)
    ids = external.frame["image_id"].astype(str).tolist()
    for line in lacking:
        say(line)
    done = 0
    with progress(f"evaluate on {external.name}", len(external.frame), cost=True) as advance:
        size = spec.inference.batch_size
        for batch in read_batches(external.store, external.frame, preprocessing, size=size, workers=spec.data.workers):
            known_BM = known(ids[done : done + len(batch)])
            samples_BSC, embedding_BD = passes(recipe, artifact.knowing(known_BM), batch)
            done += len(batch)
            samples.append(samples_BSC)
            embeddings.append(embedding_BD)
            advance(len(batch))
    samples_NSC = np.concatenate(samples)
    predictions = Predictions(
        ids=ids,
        groups=external.frame["group"].astype(str).tolist(),
        labels=np.array([artifact.classes.index(label) for label in external.frame["label"]], dtype=np.int64),
        logits=pool(samples_NSC),
        embedding=np.concatenate(embeddings),
        meta={
            "classes": artifact.classes,
            "set": external.name,
            "recipe": recipe,
            "task": artifact.record.task,
            "model_sha256": artifact.model_sha256,
            "scores_sha256": artifact.record.scores_sha256,
            "manifest_sha256": run.manifest_hash(),
            "accepted_leak": leak,
        },
        samples=samples_NSC if samples_NSC.shape[1] > 1 else None,
    )
    path = run.predictions_path(external.name, recipe)
    write_predictions(path, predictions)
    compared = "file bytes, pixels, ISIC names" + (" and lesions" if shares_lesions(external.kind, spec.data) else "")
    told = "None of its images was used to make the model" if not used else f"Used to make the model: {_counts(used)}"
    looks = measure_images(external.store, external.frame, workers=spec.data.workers).frame[[*KEPT]]
    rows = external.frame.assign(**looks).set_index("image_id").loc[predictions.ids]
    home = read_home(run, predictions)
    judged = gather(run, spec, predictions, rows, external.store, home, recalibrate)
    metrics = {
        **head(run, spec, f"external validation on {external.name}", predictions, leak),
        **facts(run, spec, own=False),
        **judge(judged),
        "validation": None,
        "split": None,
        "external": {
            "sentence": f"Read as {external.kind}; {len(external.frame)} labelled images. {told} ({compared} compared).",
            "labels": external.labels,
            "notes": [*external.notes, *lacking],
        },
        "provenance": provenance(run, spec, predictions, path),
    }
    return finish(run.external_report_dir(external.name), metrics, judged, submission)


def finish(folder: Path, metrics: dict[str, Any], judged: Judged, submission: Path | None) -> EvaluateResult:
    """Write the report, and the submission where one is asked for."""
    if submission is not None:
        write_text(submission, submission_csv(judged.p.ids, judged.scores.probs, judged.classes))
    files = write_report(folder, metrics, judged)
    return EvaluateResult(metrics, (*files, *([submission] if submission is not None else [])))


def _classes(run: Run) -> list[str] | None:
    """Of the run; None where the folder is none, but the place for a report."""
    return read_classes(run) if run.config_path.is_file() else None


def _evaluate_given(
    run: Run, spec: ExperimentSpec, given: Given, partial: bool, accept_leak: str | None, submission: Path | None
) -> EvaluateResult:
    reference, leak, store, manifest = None, None, None, None
    if run.config_path.is_file():
        frame, parts = read_division(run)
        leak, manifest = require_no_leak(run, accept_leak), run.manifest_hash()
        if given.manifest_sha256 not in (None, manifest):
            raise DataError(
                f"{given.name}: was made for another manifest.parquet; run again: dermalyze score {run.root} --model FILE"
            )
        p, reference, notes = match(given, frame, parts, read_classes(run), partial=partial)
        rows, store = frame.set_index("image_id").loc[p.ids], manifest_store(spec)
    else:
        p, rows, notes = standing_alone(given)
    run.require_writable()
    say(f"evaluate: {len(p)} images, {given.kind} of {given.name}, {spec.evaluate.resamples} resamples")
    counts = np.bincount(p.labels, minlength=len(p.classes))
    judged = Judged(p, spec.evaluate, Calibrator("none", {}), None, reference, rows, picture=pictures_of(rows, store))
    metrics = {
        "schema_version": 1,
        "title": f"{spec.name}: predictions of {given.name}",
        "set": p.meta["set"],
        "recipe": p.meta["recipe"],
        "task": p.meta["task"],
        "accepted_leak": leak,
        "about": {
            "sentences": [
                f"Predictions of {given.model}, read from {given.name} as {given.kind} of {len(p.classes)} classes "
                f"({', '.join(p.classes)}). How that model was made is not known here, nor whether it was made with these "
                "images: if it was, these figures flatter."
            ],
            "not_for": list(NOT_FOR),
        },
        **dict.fromkeys(FACTS),
        "known_biases": [],
        **judge(judged),
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
    return finish(run.given_report_dir(given.name), metrics, judged, submission)


def check_test(run: Run, p: Predictions, recipe: str, accept_leak: str | None) -> str | None:
    """Refuse predictions that are not those of the run's test part, each image once, under its label and group.

    Returns:
        the reasons for which a leak was accepted, in training or here; None where nothing leaks.

    Raises:
        DataError, LeakError, ModelError: see `evaluate`.
    """
    again = f"run again: dermalyze score {run.root}"
    if p.meta.get("manifest_sha256") != run.manifest_hash():
        raise DataError(f"{run.root.name}: the predictions belong to another manifest.parquet (its SHA-256 differs); {again}")
    if p.meta["set"] != "test" or p.meta["recipe"] != recipe:
        got = f"set {p.meta['set']}, recipe {p.meta['recipe']}"
        raise DataError(f"{run.root.name}: the predictions are of {got}, not of set test, recipe {recipe}; {again}")
    classes = read_classes(run)
    if p.classes != classes:
        raise ModelError(f"{run.root.name}: the predictions have classes {p.classes}, the run {classes}; {again}")
    reasons = [reason for reason in (p.meta.get("accepted_leak"), accept_leak) if reason]
    crossing = require_no_leak(run, reasons[0] if reasons else None)
    frame, parts = read_division(run)
    part_of = dict(zip(frame["image_id"], parts, strict=True))
    found = [part_of.get(image_id) for image_id in p.ids]
    unknown = found.count(None)
    if unknown:
        raise DataError(f"{run.root.name}: {unknown} of {len(p)} predictions are of images that no part holds; {again}")
    used: dict[str, int] = {part: found.count(part) for part in PARTS if part != "test" and part in found}
    if used and accept_leak is None:
        raise LeakError(
            f"{run.root.name}: the test predictions hold images of other parts: {_counts(used)}; {again}, or go on with "
            '--accept-leak "reason", which is stamped on every figure'
        )
    test = frame[parts == "test"].set_index("image_id")
    if not used:
        if len(p) != len(test):
            raise DataError(f"{run.root.name}: {len(p)} predictions for {len(test)} images of the test part; {again}")
        expected = TASKS[run.config().task.kind].targets(test.loc[p.ids, "label"].tolist(), classes)
        if not np.array_equal(expected, p.labels) or test.loc[p.ids, "group"].tolist() != p.groups:
            raise DataError(f"{run.root.name}: labels or groups of the predictions are not the manifest's; {again}")
    stamped = [p.meta.get("accepted_leak"), crossing, one_line(accept_leak) if accept_leak and used else None]
    return "; ".join(dict.fromkeys(reason for reason in stamped if reason)) or None


def _counts(parts: dict[str, int]) -> str:
    return ", ".join(f"{n} of {part}" for part, n in parts.items())
