"""The run folder: made, opened, locked, and asked for what stages need; the names in it are in `core/run_paths.py`."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermalyze.config.columns import OPTIONAL_COLUMNS
from dermalyze.config.experiment import ExperimentSpec, dump_experiment, load_experiment
from dermalyze.core.atomic import resource_errors, sha256_file, sweep, try_lock, write_bytes, write_json, write_text
from dermalyze.core.run_paths import RunPaths
from dermalyze.errors import ConfigError, DataError, ModelError, ResourceError, UsageError

MANIFEST_COLUMNS = (
    "image_id", "path", "sha256", "pixel_sha256", "width", "height", "mode", "patient_id", "lesion_id", "cluster_id", "label",
    "mask_path", "age", "sex", "site", "source", "split", "quarantine_reason",
)  # fmt: skip
OWN_NAMES = (*MANIFEST_COLUMNS, *OPTIONAL_COLUMNS)
"""Names in a manifest that no column of a user may have."""


@dataclass(frozen=True)
class Run(RunPaths):
    """One experiment's folder. Stages read it and write to it; nothing else passes between them."""

    # -- life --------------------------------------------------------------------------------------------------
    @classmethod
    def create(cls, root: Path, spec: ExperimentSpec) -> Run:
        """Make the folder and freeze the configuration; the same configuration again is no change.

        Raises:
            UsageError: a file of that name exists.
            ConfigError: the run exists with another configuration.
            ResourceError: the folder cannot be written.
        """
        run = cls(root)
        if root.exists() and not root.is_dir():
            raise UsageError(f"{root}: is a file, must be a folder; choose another name")
        text = dump_experiment(spec)
        if run.config_path.exists():
            if run.config() != spec:
                changed = ", ".join(differences(run.config(), spec))
                raise ConfigError(
                    f"{root.name}: the run's configuration is frozen and differs in {changed}; use another run folder"
                )
            return run
        run.require_writable()
        write_text(run.config_path, text)
        return run

    @classmethod
    def open(cls, root: Path | str) -> Run:
        """Open an existing run.

        Raises:
            UsageError: the folder is not a run.
        """
        run = cls(Path(root))
        if not run.config_path.is_file():
            raise UsageError(f"{root}: not a run folder (no config.yaml); create one: dermalyze init {root}")
        return run

    def fill_data_path(self, paths: list[str]) -> ExperimentSpec:
        """Set `data.path` where the configuration left it open; the same paths again are no change.

        Raises:
            ConfigError: the configuration names other data.
        """
        spec = self.config()
        if spec.data.source.kind == "merged":
            raise ConfigError(
                f"{self.root.name}: --data is set, but the run merges sources with their own paths; leave --data out"
            )
        if spec.data.path is not None:
            known = [spec.data.path] if isinstance(spec.data.path, str) else spec.data.path
            if known != paths:
                raise ConfigError(f"{self.root.name}: data.path is frozen to other data; use another run folder")
            return spec
        filled = spec.model_copy(update={"data": spec.data.model_copy(update={"path": paths})})
        write_text(self.config_path, dump_experiment(filled))
        return filled

    @contextlib.contextmanager
    def filled_data_path(self, paths: list[str]) -> Iterator[ExperimentSpec]:
        """`fill_data_path` for as long as what is done with it succeeds; a refusal leaves the configuration as it was."""
        before = self.config_path.read_bytes()
        try:
            yield self.fill_data_path(paths)
        except BaseException:
            if self.config_path.read_bytes() != before:
                write_bytes(self.config_path, before)
            raise

    def config(self) -> ExperimentSpec:
        """The frozen experiment."""
        return load_experiment(self.config_path)

    def require_writable(self, folder: Path | None = None) -> None:
        """Fail early if the run's folder, or one in it, is not writable.

        Raises:
            ResourceError: read-only, no permission, no space.
        """
        trial = (folder or self.root) / ".writable"
        try:
            write_text(trial, "ok")
        finally:
            with contextlib.suppress(OSError):  # what the write said matters more
                trial.unlink()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the run; the lock ends with the process.

        Raises:
            UsageError: another process holds it.
        """
        with resource_errors(".lock"):
            self.root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not try_lock(descriptor):
                raise UsageError(f"{self.root.name}: another process uses this run; wait for it or use another run folder")
            yield
        finally:
            os.close(descriptor)

    def sweep(self) -> None:
        """Remove what a killed training left half-written; for who holds the lock."""
        for folder in (self.root, self.checkpoints_dir):
            sweep(folder)
        for tensors in self.checkpoints_dir.glob("last-*.safetensors"):
            if not tensors.with_suffix(".json").exists():
                tensors.unlink()

    def own_id(self) -> str:
        """A random name of this run, made when first asked for, so that another run's checkpoints are known."""
        if not self.id_path.exists():
            write_text(self.id_path, secrets.token_hex(8) + "\n")
        return self.id_path.read_text(encoding="utf-8", errors="replace").strip()

    # -- what stages ask ---------------------------------------------------------------------------------------
    def require(self, path: Path, command: str) -> Path:
        """`path` if it exists, else say which command makes it.

        Raises:
            UsageError: the step before has not run.
        """
        if not path.exists():
            raise UsageError(f"{self.root.name}: {path.name} is missing; run first: dermalyze {command} {self.root}")
        return path

    def manifest_hash(self) -> str:
        """SHA-256 of the manifest file."""
        return sha256_file(self.require(self.manifest_path, "prepare"))

    def certificate(self) -> dict[str, Any]:
        """The split certificate, checked against the manifest it was made from.

        Raises:
            DataError: the manifest changed after the split, or the certificate was edited.
        """
        certificate = read_json(self.require(self.certificate_path, "split"))
        if certificate.get("manifest_sha256") != self.manifest_hash():
            raise DataError(
                f"{self.root.name}: manifest.parquet is not the one that was split (its SHA-256 differs); "
                "run prepare and split again in a new run folder"
            )
        if not _is_whole(certificate):
            raise DataError(f"{self.certificate_path.name}: is not what split wrote; run again: dermalyze split {self.root}")
        return certificate

    def present_files(self) -> dict[str, str]:
        """Existing files that answer a reviewer's questions, by name: paths relative to the run's folder."""
        places = {
            "configuration": self.config_path,
            "environment": self.environment_path,
            "summary": self.summary_path,
            "audit": self.audit_path,
            "certificate": self.certificate_path,
            "history": self.history_path,
            "artifact": self.artifact_record_path,
        }
        found = {key: str(path.relative_to(self.root)) for key, path in places.items() if path.exists()}
        external = sorted(self.report_dir.glob(f"on-*/{self.evaluation_path.name}"))
        return found | ({"external": str(external[0].parent.relative_to(self.root))} if external else {})

    def describe(self) -> dict[str, bool]:
        """Finished steps, in order."""
        return {
            "prepare": self.manifest_path.exists(),
            "audit": self.audit_path.exists(),
            "split": self.certificate_path.exists(),
            "train": self.history_path.exists(),
            "export": self.artifact_record_path.exists(),
            "score": any(self.predictions_dir.glob("test-*.parquet")),
            "calibrate": any((self.root / "calibration").glob("*.json")),
            "evaluate": self.evaluation_path.exists(),
        }


def differences(old: ExperimentSpec | Mapping[str, Any], new: ExperimentSpec | Mapping[str, Any]) -> list[str]:
    """Dotted names of the settings in which two experiments, or their JSON, differ.

    >>> differences({"seed": 1, "train": {"epochs": 2}}, {"seed": 1, "train": {"epochs": 3}})
    ['train.epochs']
    """

    def flat(value: Any, prefix: str) -> dict[str, Any]:
        if isinstance(value, Mapping) and value:
            return {k: v for key, child in value.items() for k, v in flat(child, f"{prefix}.{key}".strip(".")).items()}
        return {prefix: value}

    old, new = (spec.model_dump(mode="json") if isinstance(spec, ExperimentSpec) else spec for spec in (old, new))
    before, after = flat(old, ""), flat(new, "")
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def _is_whole(certificate: dict[str, Any]) -> bool:
    """Whether a certificate has what reports are made from."""
    kinds = {"passed": bool, "seed": int, "counts": dict, "used_for": dict, "checks": list}
    if not all(isinstance(certificate.get(key), kind) for key, kind in kinds.items()):
        return False
    parts = list(certificate["counts"].values())
    counted = all(isinstance(part, dict) and {"images", "groups", "classes"} <= part.keys() for part in parts)
    return (
        counted
        and {"train", "val", "test"} <= certificate["counts"].keys()
        and all(
            isinstance(part["classes"], dict) and all(isinstance(n, int) for n in part["classes"].values()) for part in parts
        )
        and all(isinstance(check, dict) and {"name", "passed", "detail"} <= check.keys() for check in certificate["checks"])
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelError: not a JSON object.
        ResourceError: unreadable.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResourceError(f"{path.name}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path.name}: not valid JSON: {error}; delete it and rerun the command that writes it") from error
    if not isinstance(value, dict):
        raise ModelError(
            f"{path.name}: holds {type(value).__name__}, must be an object; delete it and rerun the command that writes it"
        )
    return value


__all__ = ["MANIFEST_COLUMNS", "OWN_NAMES", "Run", "differences", "read_json", "write_json"]
