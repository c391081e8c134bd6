"""Behind `dermalyze verify`: is an artifact the one that was published, and does it still give its answers?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermalyze.artifact.artifact import Artifact
from dermalyze.artifact.record import RECORD_NAME, parse_record
from dermalyze.artifact.self_test import TOLERANCE, difference
from dermalyze.core.atomic import sha256_file
from dermalyze.core.result import DISCLAIMER
from dermalyze.errors import DermalyzeError, ModelError, ResourceError, UsageError
from dermalyze.imaging.samples import IMAGE


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        passed: whether it is as recorded; None: there was nothing to compare with.
        found: in words, one line.
    """

    name: str
    passed: bool | None
    found: str


@dataclass(frozen=True)
class VerifyResult:
    """What `verify` found.

    Attributes:
        name: of the folder.
        sha256: of `artifact.json`, the identity of the whole model; empty where there is none.
        checks: in order.
        compared: whether that was compared with a hash from elsewhere. Who changes a file can write new hashes into the record
            as well, so without such a hash an artifact can only be consistent with itself.
    """

    name: str
    sha256: str
    checks: tuple[Check, ...]
    compared: bool = False

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(check.passed is not False for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        checks = [check.__dict__ for check in self.checks]
        return {
            "name": self.name,
            "sha256": self.sha256,
            "compared": self.compared,
            "passed": self.passed,
            "checks": checks,
            "disclaimer": DISCLAIMER,
        }

    def lines(self) -> list[str]:
        """Lines for a person."""
        width = max(len(check.name) for check in self.checks)
        words = {True: "good", False: "BAD", None: "-"}
        rows = [f"{check.name:{width}}  {words[check.passed]:4}  {check.found}" for check in self.checks]
        what = "as published" if self.compared else "consistent with itself"
        verdict = f"{self.name}: {what if self.passed else f'NOT {what}'}"
        if self.passed and not self.compared:
            verdict += f", SHA-256 {self.sha256}; is it what was published? compare with the publisher's: verify --sha256 HASH"
        return [*rows, verdict, DISCLAIMER]


def verify(model: str | Path, *, sha256: str | None = None, threads: int | None = None) -> VerifyResult:
    """Hash every file again, and ask for the recorded answers to the reference images again.

    Args:
        model: the folder of an artifact; or a run, whose manifest, split and best weights are looked at as well.
        sha256: of the published `artifact.json`, as `export`, the model card of a server and `/v1/models` show it; None: the
            artifact is compared with its own record alone.
        threads: CPU threads of one pass; None: one per core.

    Raises:
        UsageError: neither a run nor an artifact, or a hash that is none.

    Example:
        assert verify("outputs/first").passed
    """
    folder, further = Path(model), []
    if sha256 is not None and re.fullmatch("[0-9a-f]{64}", sha256.strip().lower()) is None:
        raise UsageError(f"--sha256 {sha256!r}: must be the 64 hexadecimal digits of a SHA-256")
    if not (folder / RECORD_NAME).exists():
        from dermalyze.core.run import Run  # here, not above: an artifact alone doesn't need it

        run = Run(folder)
        if not run.config_path.exists():
            raise UsageError(f"{folder.name}: neither a run (config.yaml) nor an artifact ({RECORD_NAME}); give one of them")
        folder = run.require(run.artifact_dir, "export")
        further = list(_of_run(run, folder))
    checks = [*_of_artifact(folder, threads), *further]
    try:
        found = sha256_file(folder / RECORD_NAME)
    except OSError:
        found = ""
    if sha256 is not None:
        same = found == sha256.strip().lower()
        checks.insert(0, Check("published", same, f"SHA-256 of {RECORD_NAME} {found[:12]}…" + ("" if same else ", another")))
    return VerifyResult(folder.name, found, tuple(checks), compared=sha256 is not None)


def _of_artifact(folder: Path, threads: int | None) -> Iterator[Check]:
    try:
        record = parse_record((folder / RECORD_NAME).read_bytes())
    except FileNotFoundError:
        yield Check(RECORD_NAME, False, "is missing")
        return
    except OSError as error:
        raise ResourceError(f"{RECORD_NAME}: cannot be read: {error.strerror}") from error
    except ModelError as error:
        yield Check(RECORD_NAME, False, str(error))
        return
    yield Check(RECORD_NAME, True, f"format {record.schema_version}, {len(record.classes)} classes, recipe {record.recipe}")
    for name, expected in record.named.items():
        yield _hashed(folder / name, expected, name)
    try:
        artifact = Artifact.open(folder, threads=threads)
    except DermalyzeError as error:
        yield Check("opens", False, str(error))
        return
    yield Check("opens", True, "files, graph and weights are what the record says, and nothing else is there")
    yield _answers(artifact)
    yield Check("class-activation map", None, _map_of(artifact))
    yield Check("calibration", None, f"fitted on {record.calibration['images']} images" if record.calibration else "none")
    yield Check("evaluation", None, "of these very answers" if record.evaluation_files else "none")


def _answers(artifact: Artifact) -> Check:
    """The reference images, asked again."""
    name, record = "reference answers", artifact.record
    if record.reference is None:
        return Check(name, None, "none recorded; export it again to have some")
    image = next(one for one in artifact.inputs if one.name == IMAGE)
    try:
        worst = difference(record.reference.model_dump(), artifact.run, artifact.answering, image)
    except DermalyzeError as error:
        return Check(name, False, str(error))
    except ValueError:
        worst = float("inf")
    count = record.reference.images
    if worst == float("inf"):
        return Check(name, False, "the record's images or probabilities are not those that this version makes")
    said = f"{count} synthetic images, probabilities differ by at most {worst:.1e} (allowed {TOLERANCE:.0e})"
    return Check(name, worst <= TOLERANCE, said)


def _map_of(artifact: Artifact) -> str:
    cam = artifact.record.cam
    return f"{cam.height} x {cam.width} places; {artifact.cam_grade.words}" if cam.kind != "none" else f"none: {cam.reason}"


def _hashed(path: Path, expected: str, name: str) -> Check:
    try:
        found = sha256_file(path) if path.is_file() and not path.is_symlink() else None
    except OSError as error:
        return Check(name, False, f"cannot be read: {error.strerror}")
    if found is None:
        return Check(name, False, "is missing, or no plain file")
    said = f"SHA-256 {found[:12]}…" + ("" if found == expected else f", recorded {expected[:12]}…")
    return Check(name, found == expected, said)


def _of_run(run: Any, folder: Path) -> Iterator[Check]:
    """What the artifact was made from, where it is still there."""
    try:
        record = parse_record((folder / RECORD_NAME).read_bytes())
        certificate = run.certificate()
    except (OSError, DermalyzeError) as error:
        yield Check("run", False, str(error))
        return
    made_from = record.created_from
    yield Check(
        "manifest", certificate["manifest_sha256"] == made_from.get("manifest_sha256"), "that of the split, and of the artifact"
    )
    for part, expected in (certificate.get("files") or {}).items():
        yield _hashed(run.split_path(part), str(expected), run.split_path(part).name)
    if run.best_weights_path.exists():
        yield _hashed(run.best_weights_path, str(made_from.get("weights_sha256")), run.best_weights_path.name)
