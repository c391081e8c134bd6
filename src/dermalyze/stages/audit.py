"""Check a prepared data set for problems that would invalidate every result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermalyze.audit.checks import Finding, audit_frame, summary
from dermalyze.audit.image_statistics import artifact_galleries, audit_statistics, measure_images
from dermalyze.audit.label_errors import SMALL, LabelAudit, audit_labels, color_texture_features, require_questions
from dermalyze.audit.label_gallery import label_galleries
from dermalyze.audit.metadata_baseline import MetadataModel, column_table, metadata_model
from dermalyze.audit.out_of_fold import FOLDS
from dermalyze.audit.quality_cache import write_statistics
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.atomic import write_json, write_text
from dermalyze.core.progress import progress, say
from dermalyze.core.run import Run, read_json
from dermalyze.data.duplicates import Duplicates, find_duplicates, galleries, join_clusters, recorded
from dermalyze.data.grouping import describe_leaks, groups
from dermalyze.data.manifest import read_manifest, read_task, usable
from dermalyze.data.pixels import read_batches
from dermalyze.data.samples import Samples
from dermalyze.data.splitting import late_leaks
from dermalyze.data.store import ImageStore
from dermalyze.data.thumbnails import Gallery
from dermalyze.errors import DataError, ModelError
from dermalyze.imaging.decode import Preprocessing, normalize
from dermalyze.imaging.modalities import modality_of
from dermalyze.imaging.samples import IMAGE
from dermalyze.report.audit import audit_page
from dermalyze.tasks.base import Task

FATAL = ("label_conflict", "empty", "split_duplicates")
"""Findings that end the command with a refusal, after everything has been written."""


@dataclass(frozen=True)
class AuditResult:
    """What `audit` found, the worst first.

    Attributes:
        images: usable images that were looked at.
        quarantined: images that were left out by `prepare`.
        findings: see `dermalyze.audit.checks.Finding`.
        duplicates: near-duplicates.
        columns: how well each metadata column alone tells the label, see `column_table`.
        metadata: how well they do so together; None where none varies.
        looks: image statistics, see `audit_statistics`.
        labels: likely label errors, where they were asked for.
        galleries: images to review, in the order of the page.
    """

    images: int
    quarantined: int
    findings: tuple[Finding, ...]
    duplicates: Duplicates
    columns: list[dict[str, Any]] = field(default_factory=list)
    metadata: MetadataModel | None = None
    looks: dict[str, Any] = field(default_factory=dict)
    labels: LabelAudit | None = None
    galleries: tuple[Gallery, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values: the content of audit.json without the manifest's hash."""
        return {
            "images": self.images,
            "quarantined": self.quarantined,
            "summary": summary(self.findings),
            "findings": [finding.as_dict() for finding in self.findings],
            "duplicates": self.duplicates.as_dict(),
            "looks": self.looks,
            "metadata": {"columns": self.columns, "model": self.metadata.as_dict() if self.metadata else None},
            **({"labels": self.labels.as_dict()} if self.labels else {}),
        }

    def lines(self) -> list[str]:
        """Lines for a person: one per finding, then the count."""
        counts = summary(self.findings)
        found = [f"{finding.severity:<7}{finding.detail}" for finding in self.findings]
        total = ", ".join(f"{counts[severity]} {severity}" for severity in counts)
        told = [self.metadata.line()] if self.metadata else []
        told += self.labels.lines() if self.labels else []
        return [*found, *told, f"{self.images} images checked, {self.quarantined} quarantined; findings: {total}"]


def audit(run: Run, spec: ExperimentSpec, *, labels: bool = False) -> AuditResult:
    """Run every check, join near-duplicates in the manifest (where it is not split yet), write audit.json and audit.html.

    The same images again are not compared again.

    Args:
        labels: also check every label by a model that has not seen the image; needs the images and takes minutes.

    Raises:
        UsageError: not prepared yet.
        DataError: an image stands under two labels, or none is usable, or near-duplicates cross splits and the split was
            made before they were found; audit.json is written first and lists them all. An image is gone or changed.
            With `labels`: too few groups to check any label.
        ModelError: with `labels`, weights that the experiment names are refused.
        ResourceError: a worker was killed, or the run cannot be written.
    """
    manifest, task = read_manifest(run), read_task(run)
    frame = usable(manifest)
    if not labels and _had_labels(run):
        say(f"{run.audit_path.name}: findings of --labels are left out; to include them: dermalyze audit {run.root} --labels")
    store = ImageStore.open(spec.data) if frame["path"].notna().any() else ImageStore(())
    duplicates = recorded(run, frame)
    if duplicates is None:
        duplicates = find_duplicates(frame, store, workers=spec.data.workers)
    if not run.certificate_path.exists():
        frame = usable(join_clusters(run, manifest, duplicates))
    frame = frame.reset_index(drop=True)
    findings = [*late_findings(run, duplicates), *audit_frame(frame, spec.split, duplicates, task)]
    columns: list[dict[str, Any]] = []
    looks: dict[str, Any] = {}
    metadata, judged = None, None
    shown = list(galleries(frame, duplicates))
    pictures: list[Gallery] = []
    if len(frame):
        frame = frame.assign(group=groups(frame))
        if task.has("one_class"):
            columns, metadata = column_table(frame), metadata_model(frame)
        judged = find_label_errors(frame, spec, task) if labels else None
        if task.has("one_class"):
            found, looks, pictures = look(run, frame, store, spec)
            findings += found
    shown += [*(label_galleries(judged.errors) if judged else []), *pictures]
    findings += [finding for part in (metadata, judged) if part for finding in part.findings()]
    findings.sort(key=lambda finding: ("refuse", "warn", "info").index(finding.severity))
    counts = (len(frame), len(manifest) - len(frame))
    result = AuditResult(*counts, tuple(findings), duplicates, columns, metadata, looks, judged, tuple(shown))
    write_json(run.audit_path, {"schema_version": 1, "manifest_sha256": run.manifest_hash(), **result.as_dict()})
    stored = frame[frame["path"].notna()]
    paths = dict(zip(stored["image_id"].astype(str), stored["path"].astype(str), strict=True))
    write_text(run.audit_page_path, audit_page(result.as_dict(), shown, store, paths))
    for finding in result.findings:
        if finding.kind in FATAL:
            raise DataError(f"{run.root.name}: {finding.detail} (all of them: {run.audit_path.name})")
    return result


def _had_labels(run: Run) -> bool:
    """Whether an earlier audit checked the labels; a damaged file counts as none."""
    try:
        return run.audit_path.exists() and "labels" in read_json(run.audit_path)
    except ModelError:
        return False


def late_findings(run: Run, duplicates: Duplicates) -> list[Finding]:
    """Near-duplicates that cross the parts of a split which was made before they were found."""
    crossed = late_leaks(run, duplicates) if run.certificate_path.exists() else []
    if not crossed:
        return []
    detail = (
        f"near-duplicates cross splits, since the split was made before they were found: {describe_leaks(crossed)}; "
        f"split again: dermalyze split {run.root}"
    )
    examples = tuple(", ".join(leak["image_ids"][:4]) for leak in crossed)
    return [Finding("split_duplicates", "refuse", len(crossed), detail, examples)]


def look(
    run: Run, frame: pd.DataFrame, store: ImageStore, spec: ExperimentSpec
) -> tuple[list[Finding], dict[str, Any], list[Gallery]]:
    """Decode every image once: artifacts, and image statistics that predict the label or the source; measures are cached."""
    stored = frame[frame["path"].notna()].reset_index(drop=True)
    if stored.empty:
        return [], {}, []
    looks = measure_images(store, stored, workers=spec.data.workers)
    write_statistics(run, stored, looks)
    findings, tables = audit_statistics(stored, looks, modality_of(spec.data).words)
    return findings, tables, artifact_galleries(stored, looks)


def find_label_errors(frame: pd.DataFrame, spec: ExperimentSpec, task: Task) -> LabelAudit:
    """Confident learning on features of every image, see `dermalyze.audit.label_errors`.

    Args:
        frame: usable manifest rows with `group`.
    """
    models = sum(len(question.rows) > 0 for question in require_questions(frame, task))
    each = f" for each of {models} labels" if models > 1 else ""
    say(f"labels: {len(frame)} images, features computed once, then 2 to 5 times {FOLDS} fits of a linear model{each}")
    features_ND, what = image_features(frame, spec)
    with progress("check labels", 5 * FOLDS * models, "fits") as advance:
        return audit_labels(frame, features_ND, what, task=task, advance=advance)


def image_features(frame: pd.DataFrame, spec: ExperimentSpec) -> tuple[NDArray[np.float32], str]:
    """Features (N, D) of every image, and what they are.

    Colors and textures; where the experiment names pretrained weights, with that backbone's features. Weights that were
    trained on these very labels would repeat their errors; those of a run are never used here.
    """
    with network(spec) as (embed, preprocessing, what):
        samples = Samples.of(ImageStore.open(spec.data), frame, preprocessing, (preprocessing.image,))
        batches = read_batches(samples, size=spec.inference.batch_size, workers=spec.data.workers)
        found: list[NDArray[np.float32]] = []
        started = time.monotonic()
        with progress("describe", len(frame)) as advance:
            for batch in batches:
                images = batch[IMAGE]
                described = color_texture_features(images)
                found.append(np.concatenate([described, embed(images)], axis=1) if embed else described)
                if len(found) == 1:
                    say(f"labels: about {(time.monotonic() - started) / len(images) * len(frame):.0f} s for {what}")
                advance(len(images))
    return np.concatenate(found), what


@contextmanager
def network(
    spec: ExperimentSpec,
) -> Iterator[tuple[Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None, Preprocessing, str]]:
    """The pretrained backbone as a function of uint8 images, how these are read, and words for it; None where there is none."""
    if spec.model.weights is None and not spec.model.pretrained:
        yield None, SMALL, "colors and textures"
        return
    from dermalyze.core.runtime import applied, choose_runtime
    from dermalyze.models.embedding import Embedder

    runtime = choose_runtime(
        device=spec.train.device, threads=spec.train.threads, amp=False, channels_last=False, deterministic=True
    )
    with applied(runtime):
        embedder = Embedder(spec.model, device=runtime.device)
        preprocessing = modality_of(spec.data).resolve(
            spec.preprocess, size=embedder.size, mean=embedder.mean, std=embedder.std
        )
        what = f"colors, textures and {spec.model.backbone}'s features"
        yield lambda images: embedder(normalize(images, preprocessing)), preprocessing, what
