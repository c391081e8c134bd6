"""The run folder: the only place that knows file names inside a run."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermalyze.config.experiment import ExperimentSpec, dump_experiment, load_experiment
from dermalyze.core.atomic import resource_errors, sha256_file, sweep, try_lock, write_bytes, write_json, write_text
from dermalyze.core.errors import ConfigError, DataError, ModelError, ResourceError, UsageError

if TYPE_CHECKING:
    from dermalyze.core.artefact import Artefact

MANIFEST_COLUMNS = (
    "image_id", "path", "sha256", "pixel_sha256", "width", "height", "mode", "patient_id", "lesion_id", "cluster_id", "label",
    "mask_path", "age", "sex", "site", "source", "split", "quarantine_reason",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One experiment's folder. Stages read it and write to it; nothing else passes between them."""

    root: Path

    # -- names -------------------------------------------------------------------------------------------------
    @property
    def config_path(self) -> Path:
        return self.root / "config.yaml"

    @property
    def environment_path(self) -> Path:
        return self.root / "environment.json"

    @property
    def manifest_path(self) -> Path:
        return self.root / "manifest.parquet"

    @property
    def id_path(self) -> Path:
        return self.root / "run_id.txt"

    @property
    def labels_path(self) -> Path:
        return self.root / "labels.csv"

    @property
    def summary_path(self) -> Path:
        return self.root / "summary.json"

    @property
    def audit_path(self) -> Path:
        return self.root / "audit.json"

    @property
    def audit_page_path(self) -> Path:
        return self.root / "audit.html"

    @property
    def looks_path(self) -> Path:
        return self.root / "looks.parquet"

    @property
    def splits_dir(self) -> Path:
        return self.root / "splits"

    def split_path(self, part: str) -> Path:
        return self.splits_dir / f"{part}_split.csv"

    @property
    def certificate_path(self) -> Path:
        return self.splits_dir / "certificate.json"

    @property
    def metrics_path(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def history_path(self) -> Path:
        return self.root / "training_history.json"

    @property
    def tensorboard_dir(self) -> Path:
        return self.root / "tensorboard"

    @property
    def checkpoints_dir(self) -> Path:
        return self.root / "checkpoints"

    @property
    def best_weights_path(self) -> Path:
        return self.checkpoints_dir / "best.safetensors"

    @property
    def best_record_path(self) -> Path:
        return self.checkpoints_dir / "best.json"

    @property
    def next_best_path(self) -> Path:
        """New best weights until `best.json` is theirs."""
        return self.checkpoints_dir / "best-next.safetensors"

    def state_paths(self, step: int) -> tuple[Path, Path]:
        """Tensors and record of the resumable state after `step` optimizer steps."""
        return self.checkpoints_dir / f"last-{step:08d}.safetensors", self.checkpoints_dir / f"last-{step:08d}.json"

    def state_records(self) -> list[Path]:
        """Records of the resumable states there are, newest first."""
        return sorted(self.checkpoints_dir.glob("last-*.json"), reverse=True)

    @property
    def diverged_path(self) -> Path:
        return self.checkpoints_dir / "diverged.json"

    @property
    def artefact_dir(self) -> Path:
        return self.root / "export"

    @property
    def predictions_dir(self) -> Path:
        return self.root / "predictions"

    def predictions_path(self, name: str, recipe: str) -> Path:
        return self.predictions_dir / f"{name}-{recipe}.parquet"

    def stored_recipes(self, name: str) -> list[str]:
        """Inference recipes whose predictions of a set are there, in order of their names."""
        found = sorted(path.stem.removeprefix(f"{name}-") for path in self.predictions_dir.glob(f"{name}-*.parquet"))
        return [recipe for recipe in found if "-" not in recipe]  # those are of an external set whose name begins alike

    def foreign_path(self, name: str, recipe: str) -> Path:
        """Predictions of pictures that are no skin; `synthetic` are those made by the program."""
        return self.predictions_dir / "foreign" / f"{name}-{recipe}.parquet"

    def foreign_paths(self, recipe: str) -> list[Path]:
        """All there are of a recipe, the synthetic ones first."""
        found = self.predictions_dir.glob(f"foreign/*-{recipe}.parquet")
        return sorted(found, key=lambda path: (path != self.foreign_path("synthetic", recipe), path.name))

    def corrupted_path(self, recipe: str) -> Path:
        """Predictions of corrupted copies of the test part."""
        return self.predictions_dir / "corrupted" / f"test-{recipe}.parquet"

    def calibration_path(self, recipe: str) -> Path:
        return self.root / "calibration" / f"{recipe}.json"

    def ood_path(self, recipe: str, kind: str) -> Path:
        """The arrays of a fitted out-of-distribution score."""
        return self.root / "calibration" / f"{recipe}-{kind}.bin"

    @property
    def report_dir(self) -> Path:
        return self.root / "report"

    @property
    def evaluation_path(self) -> Path:
        return self.report_dir / "evaluation_metrics.json"

    @property
    def report_page_path(self) -> Path:
        return self.report_dir / "report.html"

    @property
    def artefact_record_path(self) -> Path:
        return self.artefact_dir / "artefact.json"

    def external_report_dir(self, name: str) -> Path:
        return self.root / "report" / f"on-{name}"

    def given_report_dir(self, name: str) -> Path:
        """Of predictions that somebody else made."""
        return self.root / "report" / f"by-{name}"

    @property
    def features_dir(self) -> Path:
        return self.root / "features"

    def features_path(self, name: str) -> Path:
        """Features by another network than the run's own."""
        return self.features_dir / f"{name}.parquet"

    def stored_features(self) -> list[str]:
        """Names of those, in order."""
        return sorted(path.stem for path in self.features_dir.glob("*.parquet"))

    def map_path(self, name: str, suffix: str) -> Path:
        return self.report_dir / f"map-{name}{suffix}"

    def frozen_path(self, features: str) -> Path:
        """What simple models on frozen features reach."""
        return self.report_dir / f"frozen-{features}.json"

    @property
    def leak_bill_dir(self) -> Path:
        return self.root / "leak_bill"

    def leak_bill_run(self, kind: str) -> Path:
        """The folder of a run within this one: the same network on a random or a grouped split."""
        return self.leak_bill_dir / kind

    @property
    def leak_bill_path(self) -> Path:
        return self.report_dir / "leak_bill.json"

    @property
    def leak_bill_figure_path(self) -> Path:
        return self.report_dir / "leak_bill.png"

    @property
    def members_dir(self) -> Path:
        return self.root / "members"

    def member_dir(self, seed: int) -> Path:
        """The folder of a run within this one: a member of the ensemble that this run is."""
        return self.members_dir / f"seed-{seed}"

    @property
    def controls_dir(self) -> Path:
        return self.root / "controls"

    def control_run(self, kind: str) -> Path:
        """The folder of a run within this one: the same network on other labels or painted pictures."""
        return self.controls_dir / kind

    def control_pictures_path(self, kind: str, key: str) -> Path:
        """Painted pictures of one kind."""
        return self.controls_dir / "pictures" / f"{kind}-{key}.zip"

    @property
    def controls_path(self) -> Path:
        return self.report_dir / "controls.json"

    @property
    def report_answers_path(self) -> Path:
        """What a person wrote for the checklists."""
        return self.root / "report.yaml"

    @property
    def tags_path(self) -> Path:
        return self.root / "tags.json"

    # -- life --------------------------------------------------------------------------------------------------
    @classmethod
    def create(cls, root: Path, spec: ExperimentSpec) -> Run:
        """Make the folder and freeze the configuration; the same configuration again is no change.

        Raises:
            UsageError: a file stands there.
            ConfigError: the run exists with another configuration.
            ResourceError: the folder cannot be written.
        """
        run = cls(root)
        if root.exists() and not root.is_dir():
            raise UsageError(f"{root}: is a file, a run is a folder; choose another name")
        text = dump_experiment(spec)
        if run.config_path.exists():
            if run.config() != spec:
                changed = ", ".join(differences(run.config(), spec))
                raise ConfigError(
                    f"{root.name}: the run's configuration is frozen and differs in {changed}; use another run folder"
                )
            return run
        run.probe_write()
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
            raise UsageError(f"{root}: not a run folder (no config.yaml); make one with: dermalyze init {root}")
        return run

    def fill_data_path(self, paths: list[str]) -> ExperimentSpec:
        """Set `data.path` where the configuration left it open; the same paths again are no change.

        Raises:
            ConfigError: the configuration names other data.
        """
        spec = self.config()
        if spec.data.source.kind == "merged":
            raise ConfigError(f"{self.root.name}: the run merges sources, each with its own path; leave --data out")
        if spec.data.path is not None:
            known = [spec.data.path] if isinstance(spec.data.path, str) else spec.data.path
            if known != paths:
                raise ConfigError(f"{self.root.name}: the run is frozen on other data (data.path); use another run folder")
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

    def probe_write(self, folder: Path | None = None) -> None:
        """Fail before the work, not after it, where the run's folder, or one in it, cannot be written.

        Raises:
            ResourceError: read-only, no permission, no space.
        """
        probe = (folder or self.root) / ".probe"
        try:
            write_text(probe, "ok")
        finally:
            with contextlib.suppress(OSError):  # what the write said matters more
                probe.unlink()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run alone; the lock goes with the process, however it ends.

        Raises:
            UsageError: another process holds it.
        """
        with resource_errors(".lock"):
            self.root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not try_lock(descriptor):
                raise UsageError(
                    f"{self.root.name}: another process is working in this run; wait for it or use another run folder"
                )
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

    def artefact(self, recipe: str, *, threads: int | None = None) -> Artefact:
        """The exported model, checked to be of this manifest, of the best checkpoint (where that is kept) and for `recipe`.

        Args:
            recipe: the experiment's inference recipe.
            threads: CPU threads of one pass; None: one a core.

        Raises:
            UsageError: nothing has been exported.
            DataError: the manifest changed after the split.
            ModelError: it is another one's, or damaged.
        """
        from dermalyze.core.artefact import Artefact

        artefact = Artefact.open(self.require(self.artefact_dir, "export"), threads=threads)
        made_from, again = artefact.record.created_from, f"run again: dermalyze export {self.root}"
        if self.best_record_path.exists():  # it may be gone where checkpoints were deleted to save space
            best = read_json(self.best_record_path)
            if made_from.get("weights_sha256") != best.get("weights_sha256"):
                raise ModelError(f"{self.root.name}: the export is not of the best checkpoint; {again}")
            if artefact.classes != best.get("classes"):
                raise ModelError(f"{self.root.name}: the export's classes {artefact.classes} are not the checkpoint's; {again}")
        if made_from.get("manifest_sha256") != self.certificate()["manifest_sha256"]:
            raise ModelError(f"{self.root.name}: the artefact was made from another manifest; {again}")
        if artefact.recipe != recipe:
            raise ModelError(
                f"{self.root.name}: exported for recipe '{artefact.recipe}', the experiment says '{recipe}'; {again}"
            )
        return artefact

    def present_files(self) -> dict[str, str]:
        """Files that answer a reviewer's questions, by what they are: paths from the run's folder, of those that are there."""
        places = {
            "configuration": self.config_path,
            "environment": self.environment_path,
            "summary": self.summary_path,
            "audit": self.audit_path,
            "certificate": self.certificate_path,
            "history": self.history_path,
            "artefact": self.artefact_record_path,
        }
        found = {key: str(path.relative_to(self.root)) for key, path in places.items() if path.exists()}
        external = sorted(self.report_dir.glob(f"on-*/{self.evaluation_path.name}"))
        return found | ({"external": str(external[0].parent.relative_to(self.root))} if external else {})

    def describe(self) -> dict[str, bool]:
        """Which steps have left their result, in order."""
        return {
            "prepare": self.manifest_path.exists(),
            "audit": self.audit_path.exists(),
            "split": self.certificate_path.exists(),
            "train": self.history_path.exists(),
            "export": self.artefact_record_path.exists(),
            "probe": any(self.predictions_dir.glob("test-*.parquet")),
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
        raise ModelError(f"{path.name}: not valid JSON: {error}; delete it and run the command that makes it again") from error
    if not isinstance(value, dict):
        raise ModelError(
            f"{path.name}: holds {type(value).__name__}, must be an object; delete it and run the command that makes it again"
        )
    return value


__all__ = ["MANIFEST_COLUMNS", "Run", "differences", "read_json", "write_json"]
