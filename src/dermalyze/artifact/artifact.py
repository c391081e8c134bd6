"""The artifact: one folder that holds a whole model, opened with suspicion. Needs onnxruntime and numpy, never torch."""

# Shapes: B samples, H height, W width, C classes, D width of the embedding, M encoded metadata.

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.artifact.cam_grade import UNGRADED, MapGrade
from dermalyze.artifact.graph import GRAPH_NAME, REMEDY, Graph
from dermalyze.artifact.integrity import check_safetensors, open_regular, regular_files, strict_json
from dermalyze.artifact.onnx_session import brief
from dermalyze.artifact.record import RECORD_NAME, WEIGHTS_NAME, ArtifactRecord, inputs_of, parse_record
from dermalyze.calibration.ood import MAX_OOD_BYTES
from dermalyze.core.run import Run, read_json
from dermalyze.errors import ModelError
from dermalyze.imaging.samples import Array, Batch, Input, as_batch, complete
from dermalyze.tasks.answering import Answering

OOD_NAME = "ood.bin"
"""Arrays of the calibration's out-of-distribution score; shapes are in `calibration`."""
MAX_GRAPH_BYTES = 2**31 - 1  # a protobuf message cannot be larger
CARD_NAME, METRICS_NAME = "model_card.md", "metrics.json"
"""What `evaluate` adds: the model card, and the figures that a server shows (`dermalyze.report.served`)."""
MAX_RECORD_BYTES = 16 * 2**20
MAX_CARD_BYTES = 4 * 2**20

LIMITS = {GRAPH_NAME: MAX_GRAPH_BYTES, OOD_NAME: MAX_OOD_BYTES, CARD_NAME: MAX_CARD_BYTES, METRICS_NAME: MAX_CARD_BYTES}
"""Files that are read into memory, and how large each may be."""


@dataclass(frozen=True, eq=False)
class Artifact:
    """An opened, verified artifact.

    Attributes:
        record: the content of `artifact.json`.
        sha256: of `artifact.json`, which names the hash of every other file: the identity of the whole model.
        graph: runs the network.
        ood: the bytes of `OOD_NAME`; empty without it.
        card: the model card, Markdown; empty until the run was evaluated.
        metrics: the figures of the test split that a server shows (see `dermalyze.report.served`); None likewise.
    """

    record: ArtifactRecord
    sha256: str
    graph: Graph
    ood: bytes = b""
    card: str = ""
    metrics: dict[str, Any] | None = None

    @property
    def calibrated(self) -> bool:
        """Whether its probabilities come from a calibrator that was tested on the test split."""
        return self.answering.calibrator.kind != "none" and self.metrics is not None

    @classmethod
    def open(cls, folder: Path, *, threads: int | None = None) -> Artifact:
        """Open a folder; each file is read once, and what was hashed is what runs.

        Args:
            folder: holds `artifact.json`, `model.onnx`, `model.safetensors`, and nothing that the record doesn't name.
            threads: CPU threads of one pass; None: one per core.

        Raises:
            ModelError: a file is missing, changed, a link, too large, not what its name says, or not named in the record.
            ResourceError: a file cannot be read.
        """
        present = regular_files(folder)
        if RECORD_NAME not in present:
            raise ModelError(f"{folder.name}: not an artifact (no {RECORD_NAME}); make one with: dermalyze export RUN")
        with open_regular(folder / RECORD_NAME, MAX_RECORD_BYTES) as stream:
            text = stream.read()
        record = parse_record(text)
        files = record.named
        strangers, missing = sorted(present - {RECORD_NAME, *files}), sorted(files.keys() - present)
        if missing:
            raise ModelError(f"{folder.name}: files {missing} of {RECORD_NAME} are missing; {REMEDY}")
        if strangers:
            raise ModelError(f"{folder.name}: files {strangers} are not named in {RECORD_NAME}; remove them, or {REMEDY}")
        if record.evaluation_files and record.evaluated_answers_sha256 != record.answers_sha256:
            raise ModelError(f"{RECORD_NAME}: its evaluation is of other answers than the model gives; evaluate the run again")
        if record.cam_grade is not None and record.graded_scores_sha256 != record.scores_sha256:
            raise ModelError(f"{RECORD_NAME}: the grade of its maps is of another model; explain the run again")
        kept = dict.fromkeys(LIMITS, b"")
        for name, expected in files.items():
            with open_regular(folder / name, LIMITS.get(name)) as stream:
                if name in kept:
                    kept[name] = stream.read()
                    found = hashlib.sha256(kept[name]).hexdigest()
                else:
                    found = hashlib.file_digest(stream, "sha256").hexdigest()
                if found != expected:
                    raise ModelError(
                        f"{name}: SHA-256 {found[:12]}… is not the {expected[:12]}… of {RECORD_NAME} (changed or damaged); "
                        f"{REMEDY}"
                    )
                if name == WEIGHTS_NAME:
                    check_safetensors(stream, name)
        loaded = Graph(
            kept[GRAPH_NAME], inputs_of(record), classes=len(record.classes),
            cam=(record.cam.height, record.cam.width) if record.cam.kind != "none" else None, threads=threads,
        )  # fmt: skip
        if {one.name: tuple(one.shape) for one in record.outputs} != loaded.outputs:
            raise ModelError(f"{RECORD_NAME}: its outputs are not those of {GRAPH_NAME}, {loaded.outputs}; {REMEDY}")
        card, metrics = _evaluation(kept[CARD_NAME], kept[METRICS_NAME])
        return cls(record, hashlib.sha256(text).hexdigest(), loaded, kept[OOD_NAME], card, metrics)

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the logits."""
        return [entry.name for entry in self.record.classes]

    @property
    def descriptions(self) -> dict[str, str]:
        """Class name to description."""
        return {entry.name: entry.description for entry in self.record.classes}

    @property
    def cam_grade(self) -> MapGrade:
        """How far its class-activation maps are to be trusted."""
        return self.record.cam_grade or UNGRADED

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Fields of `dermalyze.imaging.decode.Preprocessing`."""
        return self.record.preprocessing

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What the graph takes."""
        return self.graph.inputs

    def takes(self, name: str) -> bool:
        """Whether the graph has an input of that name."""
        return any(one.name == name for one in self.inputs)

    @property
    def recipe(self) -> str:
        """The inference recipe the model is measured and served with."""
        return self.record.recipe

    @cached_property
    def answering(self) -> Answering:
        """How its scores become answers.

        Raises:
            ModelError: its calibration is damaged.
        """
        return Answering.read(self.record.task, self.classes, self.recipe, self.record.calibration)

    @property
    def model_sha256(self) -> str:
        """SHA-256 of the ONNX graph."""
        return self.record.files[GRAPH_NAME]

    def complete(self, batch: Batch | Array) -> dict[str, Array]:
        """A batch with every input; what is not in it is missing. Images alone may come as an array."""
        blank_M = np.array(self.record.metadata.blank, np.float32) if self.record.metadata is not None else None
        return complete(as_batch(batch), self.inputs, blank_M)

    def run(self, batch: Batch | Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits (B, C) and embedding (B, D) of one pass over a batch, which is completed; see `Graph.run`."""
        return self.graph.run(self.complete(batch))

    def cam(self, batch: Batch | Array) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Logits (B, C), embedding (B, D) and class-activation map (B, C, h, w), signed, of one pass.

        The map is in units of logits: its mean over the places is the image's part of the class's logit, for head `linear`
        exactly (bias apart), for head `simple` to first order.

        Raises:
            ModelError: the model has no such map, with the reason; or see `run`.
        """
        self.require_cam()
        logits_BC, embedding_BD, cam_BChw = self.graph.fetch(("logits", "embedding", "cam"), self.complete(batch))
        return logits_BC, embedding_BD, cam_BChw

    def require_cam(self) -> None:
        """Refuse a map where there is none.

        Raises:
            ModelError: with the reason.
        """
        if self.graph.cam_shape is None:
            reason = self.record.cam.reason
            raise ModelError(f"{self.record.name}: has no class-activation map ({reason}); leave the explanation out")


def _evaluation(card: bytes, metrics: bytes) -> tuple[str, dict[str, Any] | None]:
    """The model card and the figures of an evaluation; empty and None without."""
    try:
        figures = strict_json(metrics, METRICS_NAME) if metrics else None
        if figures is not None and not isinstance(figures, dict):
            raise ValueError(f"{METRICS_NAME} is no object")
        return card.decode(), figures
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{METRICS_NAME}, {CARD_NAME}: cannot be read ({brief(error)}); evaluate the run again") from error


def open_export(run: Run, recipe: str, *, threads: int | None = None) -> Artifact:
    """The exported model, checked to be of this manifest, of the best checkpoint (where that is kept) and for `recipe`.

    Args:
        run: exported.
        recipe: the experiment's inference recipe.
        threads: CPU threads of one pass; None: one per core.

    Raises:
        UsageError: nothing has been exported.
        DataError: the manifest changed after the split.
        ModelError: it is another one's, or damaged.
    """
    artifact = Artifact.open(run.require(run.artifact_dir, "export"), threads=threads)
    made_from, again = artifact.record.created_from, f"run again: dermalyze export {run.root}"
    if run.best_record_path.exists():  # it may be gone where checkpoints were deleted to save space
        best = read_json(run.best_record_path)
        if made_from.get("weights_sha256") != best.get("weights_sha256"):
            raise ModelError(f"{run.root.name}: the export is not of the best checkpoint; {again}")
        if artifact.classes != best.get("classes"):
            raise ModelError(f"{run.root.name}: the export's classes {artifact.classes} are not the checkpoint's; {again}")
    if made_from.get("manifest_sha256") != run.certificate()["manifest_sha256"]:
        raise ModelError(f"{run.root.name}: the artifact was made from another manifest; {again}")
    if artifact.recipe != recipe:
        raise ModelError(f"{run.root.name}: exported for recipe '{artifact.recipe}', the experiment says '{recipe}'; {again}")
    return artifact
