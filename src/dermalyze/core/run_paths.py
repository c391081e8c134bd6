"""The names of all files inside a run folder; nothing else knows them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunPaths:
    """Paths inside a run's folder.

    Attributes:
        root: the folder.
    """

    root: Path

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
    def artifact_dir(self) -> Path:
        return self.root / "export"

    def precision_dir(self, precision: str) -> Path:
        """The artifact of less precise numbers (int8, fp16, bf16), beside the other."""
        return self.root / f"export-{precision}"

    @property
    def program_dir(self) -> Path:
        """The network as a torch.export program, for others."""
        return self.root / "export-torch"

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
        """Predictions of out-of-distribution images; `synthetic` are generated ones."""
        return self.predictions_dir / "foreign" / f"{name}-{recipe}.parquet"

    def foreign_paths(self, recipe: str) -> list[Path]:
        """All there are of a recipe, the synthetic ones first."""
        found = self.predictions_dir.glob(f"foreign/*-{recipe}.parquet")
        return sorted(found, key=lambda path: (path != self.foreign_path("synthetic", recipe), path.name))

    def corrupted_path(self, recipe: str) -> Path:
        """Predictions of corrupted copies of the test split."""
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
    def artifact_record_path(self) -> Path:
        return self.artifact_dir / "artifact.json"

    def external_report_dir(self, name: str) -> Path:
        return self.root / "report" / f"on-{name}"

    def given_report_dir(self, name: str) -> Path:
        """Imported predictions."""
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

    def embeddings_path(self, name: str, suffix: str) -> Path:
        return self.report_dir / f"embeddings-{name}{suffix}"

    def linear_probe_path(self, features: str) -> Path:
        """Results of linear probes and nearest neighbors."""
        return self.report_dir / f"linear-probe-{features}.json"

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
        """The folder of a run within this one: the same network on other labels or painted images."""
        return self.controls_dir / kind

    def control_pictures_path(self, kind: str, key: str) -> Path:
        """Painted images of one kind."""
        return self.controls_dir / "pictures" / f"{kind}-{key}.zip"

    @property
    def controls_path(self) -> Path:
        return self.report_dir / "controls.json"

    @property
    def explain_dir(self) -> Path:
        return self.root / "explain"

    @property
    def explanations_path(self) -> Path:
        return self.explain_dir / "explanations.json"

    @property
    def gallery_path(self) -> Path:
        return self.explain_dir / "gallery.html"

    @property
    def map_grade_path(self) -> Path:
        """The verdict on the maps that the export gives; see `dermalyze.report.served_grade`."""
        return self.explain_dir / "grade.json"

    def map_scores_path(self, weights_sha256: str) -> Path:
        """What maps of one network scored, image by image; it may be another run's network."""
        return self.explain_dir / f"scores-{weights_sha256[:12]}.json"

    @property
    def report_answers_path(self) -> Path:
        """Free text for the checklists."""
        return self.root / "report.yaml"

    @property
    def croissant_path(self) -> Path:
        """Machine-readable description of the data set, next to the files that it names."""
        return self.root / "croissant.json"

    @property
    def tags_path(self) -> Path:
        return self.root / "tags.json"
