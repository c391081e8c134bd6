"""Look at a prepared set for what would make any result from it worthless."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.atomic import write_json
from dermalyze.core.errors import DataError
from dermalyze.core.run import Run
from dermalyze.data.checks import Finding, audit_frame, summary
from dermalyze.data.manifest import read_manifest, usable


@dataclass(frozen=True)
class AuditResult:
    """What `audit` found, the worst first.

    Attributes:
        images: usable images that were looked at.
        quarantined: images that were left out by `prepare`.
        findings: see `dermalyze.data.checks.Finding`.
    """

    images: int
    quarantined: int
    findings: tuple[Finding, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values: the content of audit.json without the manifest's hash."""
        return {
            "images": self.images,
            "quarantined": self.quarantined,
            "summary": summary(self.findings),
            "findings": [finding.as_dict() for finding in self.findings],
        }

    def lines(self) -> list[str]:
        """Lines for a person: one a finding, then the count."""
        counts = summary(self.findings)
        found = [f"{finding.severity:<7}{finding.detail}" for finding in self.findings]
        total = ", ".join(f"{counts[severity]} {severity}" for severity in counts)
        return [*found, f"{self.images} images looked at, {self.quarantined} in quarantine; findings: {total}"]


def audit(run: Run, spec: ExperimentSpec) -> AuditResult:
    """Run every check and write audit.json.

    Raises:
        UsageError: not prepared yet.
        DataError: an image stands under two labels, or none is usable; audit.json is written first and lists them all.
    """
    manifest = read_manifest(run)
    frame = usable(manifest)
    result = AuditResult(len(frame), len(manifest) - len(frame), tuple(audit_frame(frame, spec.split)))
    write_json(run.audit_path, {"schema_version": 1, "manifest_sha256": run.manifest_hash(), **result.as_dict()})
    for finding in result.findings:
        if finding.kind in ("label_conflict", "empty"):
            raise DataError(f"{run.root.name}: {finding.detail} (all of them: {run.audit_path.name})")
    return result
