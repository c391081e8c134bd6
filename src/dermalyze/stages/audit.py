"""Look at a prepared set for what would make any result from it worthless."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.atomic import write_json
from dermalyze.core.errors import DataError
from dermalyze.core.run import Run
from dermalyze.data.checks import Finding, audit_frame, summary
from dermalyze.data.duplicates import Duplicates, comparable, find_duplicates, galleries, join_clusters, recorded
from dermalyze.data.gallery import Gallery
from dermalyze.data.grouping import describe_leaks
from dermalyze.data.manifest import read_manifest, usable
from dermalyze.data.splitting import late_leaks
from dermalyze.data.store import ImageStore


@dataclass(frozen=True)
class AuditResult:
    """What `audit` found, the worst first.

    Attributes:
        images: usable images that were looked at.
        quarantined: images that were left out by `prepare`.
        findings: see `dermalyze.data.checks.Finding`.
        duplicates: near-duplicates.
        galleries: pictures to be looked at, for a page.
    """

    images: int
    quarantined: int
    findings: tuple[Finding, ...]
    duplicates: Duplicates
    galleries: tuple[Gallery, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values: the content of audit.json without the manifest's hash."""
        return {
            "images": self.images,
            "quarantined": self.quarantined,
            "summary": summary(self.findings),
            "findings": [finding.as_dict() for finding in self.findings],
            "duplicates": self.duplicates.as_dict(),
        }

    def lines(self) -> list[str]:
        """Lines for a person: one a finding, then the count."""
        counts = summary(self.findings)
        found = [f"{finding.severity:<7}{finding.detail}" for finding in self.findings]
        total = ", ".join(f"{counts[severity]} {severity}" for severity in counts)
        return [*found, f"{self.images} images looked at, {self.quarantined} in quarantine; findings: {total}"]


def audit(run: Run, spec: ExperimentSpec) -> AuditResult:
    """Run every check, join near-duplicates in the manifest (where it is not split yet), and write audit.json.

    The same images again are not compared again.

    Raises:
        UsageError: not prepared yet.
        DataError: an image stands under two labels, or none is usable, or near-duplicates cross the parts of a split that was
            made before they were found; audit.json is written first and lists them all. An image is gone or changed.
        ResourceError: a worker was killed, or the run cannot be written.
    """
    manifest = read_manifest(run)
    frame = usable(manifest)
    duplicates = recorded(run, frame)
    if duplicates is None:
        store = ImageStore.open(spec.data) if len(comparable(frame)) else ImageStore(())
        duplicates = find_duplicates(frame, store, workers=spec.data.workers)
    if not run.certificate_path.exists():
        frame = usable(join_clusters(run, manifest, duplicates))
    findings = audit_frame(frame, spec.split, duplicates)
    crossed = late_leaks(run, duplicates) if run.certificate_path.exists() else []
    if crossed:
        detail = (
            f"near-duplicates cross the parts of the split, which was made before they were found: {describe_leaks(crossed)}; "
            f"split again: dermalyze split {run.root}"
        )
        examples = tuple(", ".join(leak["image_ids"][:4]) for leak in crossed)
        findings = [Finding("split_duplicates", "refuse", len(crossed), detail, examples), *findings]
    result = AuditResult(len(frame), len(manifest) - len(frame), tuple(findings), duplicates, galleries(frame, duplicates))
    write_json(run.audit_path, {"schema_version": 1, "manifest_sha256": run.manifest_hash(), **result.as_dict()})
    for finding in result.findings:
        if finding.kind in ("label_conflict", "empty", "split_duplicates"):
            raise DataError(f"{run.root.name}: {finding.detail} (all of them: {run.audit_path.name})")
    return result
