"""Look at a prepared set for what would make any result from it worthless."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.atomic import write_json, write_text
from dermalyze.core.errors import DataError
from dermalyze.core.run import Run
from dermalyze.data.checks import Finding, audit_frame, summary
from dermalyze.data.gallery import Gallery
from dermalyze.data.grouping import groups
from dermalyze.data.manifest import read_manifest, usable
from dermalyze.data.statistics import artefact_galleries, audit_looks, measure_images
from dermalyze.data.store import ImageStore
from dermalyze.report.audit import audit_page


@dataclass(frozen=True)
class AuditResult:
    """What `audit` found, the worst first.

    Attributes:
        images: usable images that were looked at.
        quarantined: images that were left out by `prepare`.
        findings: see `dermalyze.data.checks.Finding`.
        tables: figures behind them, as `dermalyze.report.audit.tables_in` takes them, by name.
    """

    images: int
    quarantined: int
    findings: tuple[Finding, ...]
    tables: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values: the content of audit.json without the manifest's hash."""
        return {
            "images": self.images,
            "quarantined": self.quarantined,
            "summary": summary(self.findings),
            "findings": [finding.as_dict() for finding in self.findings],
            "tables": self.tables,
        }

    def lines(self) -> list[str]:
        """Lines for a person: one a finding, then the count."""
        counts = summary(self.findings)
        found = [f"{finding.severity:<7}{finding.detail}" for finding in self.findings]
        total = ", ".join(f"{counts[severity]} {severity}" for severity in counts)
        return [*found, f"{self.images} images looked at, {self.quarantined} in quarantine; findings: {total}"]


def audit(run: Run, spec: ExperimentSpec) -> AuditResult:
    """Run every check and write audit.json, and audit.html with pictures.

    Raises:
        UsageError: not prepared yet.
        DataError: an image stands under two labels, or none is usable; both files are written first and list them all.
            Or the data folder is gone, or reaches outside itself.
        ResourceError: decoding was stopped, or the run cannot be written.
    """
    manifest = read_manifest(run)
    frame = usable(manifest).reset_index(drop=True)
    findings, tables = audit_frame(frame, spec.split), dict[str, Any]()
    galleries: list[Gallery] = []
    stored = frame[frame["path"].notna()]
    store = ImageStore.open(spec.data) if len(stored) else None
    if store is not None:
        found, tables["looks"], shown = look(stored, store, spec)
        findings += found
        galleries += shown
    findings.sort(key=lambda finding: ("refuse", "warn", "info").index(finding.severity))
    result = AuditResult(len(frame), len(manifest) - len(frame), tuple(findings), tables)
    write_json(run.audit_path, {"schema_version": 1, "manifest_sha256": run.manifest_hash(), **result.as_dict()})
    paths = dict(zip(stored["image_id"].astype(str), stored["path"].astype(str), strict=True))
    write_text(run.audit_page_path, audit_page(result.as_dict(), galleries, store, paths))
    for finding in result.findings:
        if finding.kind in ("label_conflict", "empty"):
            raise DataError(f"{run.root.name}: {finding.detail} (all of them: {run.audit_path.name})")
    return result


def look(frame: pd.DataFrame, store: ImageStore, spec: ExperimentSpec) -> tuple[list[Finding], dict[str, Any], list[Gallery]]:
    """Decode every picture once: artefacts, and looks that give the label or the source away."""
    frame = frame.reset_index(drop=True)
    frame = frame.assign(group=groups(frame))
    looks = measure_images(store, frame, workers=spec.data.workers)
    findings, tables = audit_looks(frame, looks)
    return findings, tables, artefact_galleries(frame, looks)
