"""Behind `export --int8`, `--fp16` and `--bf16`: a smaller artifact, written only where it answers as the full one does.

The groups of the calibration split are halved. Ranges and trial calibrators come from one half; the gate looks at the other,
which neither has seen. What passes is calibrated anew on the whole part, as the full artifact is.
"""

# Shapes: N images, S passes, C classes, D width of the embedding.

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.artifact import self_test
from dermalyze.artifact.artifact import OOD_NAME, Artifact, open_export
from dermalyze.artifact.graph import CAM, GRAPH_NAME, Graph
from dermalyze.artifact.onnx_prune import prune
from dermalyze.artifact.quantize import Precision, halve, quantize
from dermalyze.artifact.record import NOTHING_YET, RECORD_NAME, WEIGHTS_NAME, check_record, sealed
from dermalyze.calibration import ood
from dermalyze.calibration.recipes import passes
from dermalyze.config.data import DataSpec
from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.config.inference import InferenceSpec
from dermalyze.config.task import TaskSpec
from dermalyze.config.train import TrainSpec
from dermalyze.core.atomic import publish, sha256_bytes
from dermalyze.core.progress import progress, say
from dermalyze.core.run import Run, read_json
from dermalyze.data.pixels import Source
from dermalyze.data.splitting import read_part
from dermalyze.errors import ModelError, UsageError
from dermalyze.imaging.decode import Preprocessing
from dermalyze.imaging.samples import Batch, concatenate, size_of
from dermalyze.rng import positions_of, words
from dermalyze.scoring.class_prior import prior_shift
from dermalyze.scoring.fit_calibration import calibration_of
from dermalyze.scoring.predictions import Predictions, read_predictions
from dermalyze.tasks.answering import Answering
from dermalyze.tasks.base import TASKS, Task

LEAST_AGREEMENT, MOST_AUROC_CHANGE, MOST_LOSS_CHANGE = 0.99, 0.002, 0.002
RANGE_IMAGES = 128


@dataclass(frozen=True)
class Gate:
    """What less precise numbers change, on images that had no part in making them.

    Attributes:
        images: of the half that is looked at; groups: of them.
        agreement: share of images that are answered alike; of labels that of the label for which it is least.
        macro_auroc, log_loss: of the full and of the small model, each at a calibrator of the other half.
        task: what they answer.
    """

    images: int
    groups: int
    agreement: float
    macro_auroc: tuple[float | None, float | None]
    log_loss: tuple[float | None, float | None]
    task: Task = TASKS["multiclass"]

    @property
    def problems(self) -> list[str]:
        """What is too much, in words; none where it passes."""
        found = []
        if not self.agreement >= LEAST_AGREEMENT:
            found.append(f"{self.task.agreeing} agrees for {self.agreement:.1%} (at least {LEAST_AGREEMENT:.0%})")
        limits = {"macro_auroc": MOST_AUROC_CHANGE, "log_loss": MOST_LOSS_CHANGE}
        for name, limit in limits.items():
            before, after = getattr(self, name)
            said = name.replace("_", " ").replace("auroc", "AUROC")
            if before is None or after is None:
                found.append(f"{said} is not estimable on {self.images} images of {self.groups} groups")
            elif not abs(after - before) <= limit:
                found.append(f"{said} goes from {before:.4f} to {after:.4f} (by at most {limit:g})")
        return found

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        values = {key: value for key, value in self.__dict__.items() if key != "task"}
        return {**values, "macro_auroc": list(self.macro_auroc), "log_loss": list(self.log_loss)}


@dataclass(frozen=True)
class PrecisionResult:
    """What was written.

    Attributes:
        precision: int8, fp16 or bf16.
        folder: of the artifact.
        sha256: of its record, the identity of the whole model.
        method: how its numbers were made.
        graph_bytes: of the small graph; full_bytes: of the one before.
        gate: what it passed.
    """

    precision: Precision
    folder: Path
    sha256: str
    method: str
    graph_bytes: int
    full_bytes: int
    gate: Gate

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**self.__dict__, "folder": str(self.folder), "gate": self.gate.as_dict()}

    def lines(self) -> list[str]:
        """Lines for a person."""
        (auroc, auroc8), (loss, loss8) = self.gate.macro_auroc, self.gate.log_loss
        return [
            f"exported {GRAPH_NAME} in {self.precision} ({self.graph_bytes / 2**20:.1f} MiB instead of "
            f"{self.full_bytes / 2**20:.1f}) to {self.folder}: {self.method}",
            f"on {self.gate.images} images that had no part in it: {self.gate.task.agreeing} agrees for "
            f"{self.gate.agreement:.1%}, macro AUROC {auroc:.4f} and {auroc8:.4f}, log loss {loss:.4f} and {loss8:.4f}",
        ]


def export_precision(
    run: Run,
    precision: Precision,
    *,
    task: TaskSpec,
    data: DataSpec,
    train: TrainSpec,
    inference: InferenceSpec,
    evaluate: EvaluateSpec,
    seed: int,
) -> PrecisionResult:
    """Write `RUN/export-int8`, `-fp16` or `-bf16` where the gate lets it through; what was there stays otherwise.

    Args:
        run: calibrated.
        precision: int8, fp16 or bf16.
        task, data, train, inference, evaluate, seed: of its experiment.

    Raises:
        UsageError: no export, no scores or no calibration yet, or another process works in the run.
        DataError: manifest, split or an image changed.
        ModelError: the gate refuses, with the figures; predictions of another model; a graph that can't be converted.
        MissingExtraError: onnx is not installed.
        ResourceError: the folder can't be written.
    """
    with run.lock():
        run.require_writable()
        artifact = open_export(run, inference.recipe, threads=train.threads)
        known = artifact.record.calibration
        if known is None:
            raise UsageError(f"{run.root.name}: the export is not calibrated; run first: dermalyze calibrate {run.root}")
        part = str(known["part"])
        full = _stored(run, artifact, part)
        halves_N = _halves(full.groups, seed, precision)
        ranged = f", ranges of {min(RANGE_IMAGES, int((~halves_N).sum()))} images of {part}" if precision == "int8" else ""
        say(f"export: {precision}{ranged}")
        frame = read_part(run, part)
        source = Source.of_artifact(run, data, train, artifact, size=inference.batch_size)
        ranges = np.flatnonzero(~halves_N)
        ranges = ranges[np.linspace(0, len(ranges) - 1, min(RANGE_IMAGES, len(ranges))).astype(int)]
        batch = artifact.complete(concatenate(source.batches(frame.iloc[np.unique(ranges)])))
        whole = prune((run.artifact_dir / GRAPH_NAME).read_bytes(), [CAM], GRAPH_NAME)
        shift_C = prior_shift(run, full.task, train, full.classes)
        for sparing in (False, True):  # the second only where the first, which is faster, is refused
            small_graph, method, quantized = _reduced(artifact, whole, precision, batch, sparing, train.threads)
            small = _scored(run, quantized, full, source, precision)
            gate = compare_precisions(full, small, halves_N, str(known["kind"]), shift_C, artifact.answering.thresholds)
            if not gate.problems or not method.startswith("static"):
                break
            say(f"export: {precision} ({method}): {'; '.join(gate.problems)}")
        if gate.problems:
            raise ModelError(
                f"{precision}: refused on {gate.images} images of {part} that had no part in making it: "
                f"{'; '.join(gate.problems)}; nothing was written; serve the fp32 export"
            )
        fitted = full.task.fit_calibrator(str(known["kind"]), small.logits.astype(np.float64), small.labels, shift_C)
        calibration = calibration_of(small, fitted, part, task=task, data=data, inference=inference, evaluate=evaluate)
        calibration["ood"] = _limit(artifact, small)
        weights = run.artifact_dir / WEIGHTS_NAME
        values = _record(read_json(run.artifact_record_path), precision, small_graph, method, gate, calibration)
        answering = Answering.read(full.task.kind, artifact.classes, artifact.recipe, calibration)
        image = Preprocessing.from_dict(artifact.preprocessing).image
        values["reference"] = self_test.answers(quantized.run, answering, image)
        text = sealed(values)
        files: dict[str, bytes | Path] = {GRAPH_NAME: small_graph, WEIGHTS_NAME: weights, RECORD_NAME: text}
        folder = run.precision_dir(precision)
        publish({**files, **({OOD_NAME: artifact.ood} if artifact.ood else {})}, folder, check=Artifact.open)
        return PrecisionResult(precision, folder, sha256_bytes(text), method, len(small_graph), len(whole), gate)


def _reduced(
    artifact: Artifact, whole: bytes, precision: Precision, batch: Batch, sparing: bool, threads: int | None
) -> tuple[bytes, str, Artifact]:
    """The small graph, how it was made, and the artifact with it in the full one's place."""
    data, method = quantize(whole, batch, sparing=sparing) if precision == "int8" else halve(whole, precision)
    graph = Graph(data, artifact.inputs, classes=len(artifact.classes), threads=threads)
    return data, method, replace(artifact, graph=graph)


def compare_precisions(
    full: Predictions,
    small: Predictions,
    gate_N: NDArray[np.bool_],
    kind: str,
    shift_C: NDArray[np.float64],
    thresholds_C: NDArray[np.float64] | None = None,
) -> Gate:
    """Compare two models on the images of `gate_N`, each calibrated on the others.

    Args:
        full, small: of the same images.
        gate_N: which are looked at.
        kind, shift_C: of the calibrator; see `dermalyze.calibration.calibrators.fit`.
        thresholds_C: from which probability on each label is called, by either; None: as the task does without.
    """
    task, figures, called = full.task, [], []
    for p in (full, small):
        logits = p.logits.astype(np.float64)
        probs = task.fit_calibrator(kind, logits[~gate_N], p.labels[~gate_N], shift_C)(logits[gate_N])
        figures.append(task.measure(p.labels[gate_N], probs))
        called.append(task.called(probs, thresholds_C))
    pairs = {name: (figures[0][name], figures[1][name]) for name in ("macro_auroc", "log_loss")}
    groups = len({group for group, looked_at in zip(full.groups, gate_N, strict=True) if looked_at})
    return Gate(int(gate_N.sum()), groups, task.agreement(called[0], called[1]), pairs["macro_auroc"], pairs["log_loss"], task)


def _halves(groups: list[str], seed: int, precision: Precision) -> NDArray[np.bool_]:
    """(N,) half of the groups, always the same for a seed.

    Raises:
        ModelError: fewer than two groups.
    """
    names = sorted(set(groups))
    if len(names) < 2:
        raise ModelError(
            f"{precision}: the calibration split has {len(names)} group(s); two are needed to make and to evaluate it"
        )
    order = words(seed, 0, positions_of(names), 1)[:, 0].argsort(kind="stable")
    chosen = {names[k] for k in order[: len(names) // 2]}
    return np.array([group in chosen for group in groups])


def _stored(run: Run, artifact: Artifact, part: str) -> Predictions:
    """The full model's predictions of the part."""
    p = read_predictions(run.require(run.predictions_path(part, artifact.recipe), "score"))
    expected = {"scores_sha256": artifact.record.scores_sha256, "manifest_sha256": run.manifest_hash(), "set": part}
    if any(p.meta.get(key) != value for key, value in expected.items()):
        raise ModelError(
            f"{run.root.name}: the predictions of {part} are not of the exported model; run again: dermalyze score {run.root}"
        )
    return p


def _scored(run: Run, small: Artifact, full: Predictions, source: Source, precision: Precision) -> Predictions:
    """The small model's predictions of the same images."""
    frame = read_part(run, full.meta["set"])
    samples, embeddings = [], []
    with progress(f"export --{precision}", len(frame)) as advance:
        for batch in source.batches(frame):
            samples_BSC, embedding_BD = passes(small.recipe, small.run, batch)
            samples.append(samples_BSC)
            embeddings.append(embedding_BD)
            advance(size_of(batch))
    return replace(full, logits=full.task.pool(np.concatenate(samples)), embedding=np.concatenate(embeddings), samples=None)


def _limit(artifact: Artifact, small: Predictions) -> dict[str, Any] | None:
    """The out-of-distribution score as it was fitted, from which the small model's threshold is measured."""
    known = (artifact.record.calibration or {}).get("ood")
    if known is None or small.embedding is None:
        return None
    width = small.embedding.shape[1]
    detector = ood.Detector.from_bytes(
        known["kind"], known.get("shapes"), artifact.ood, classes=len(artifact.classes), width=width
    )
    return {**known, "threshold": ood.threshold_of(detector(small.logits, small.embedding))}


def _record(
    values: dict[str, Any], kind: Precision, data: bytes, method: str, gate: Gate, calibration: dict[str, Any]
) -> dict[str, Any]:
    """The full artifact's record, as the small one's."""
    precision = {"kind": kind, "method": method, "of_model_sha256": values["files"][GRAPH_NAME]}
    made = {
        **values,
        **{key: value for key, value in NOTHING_YET.items() if key not in ("calibration_files", "looks")},
        "model": {**values["model"], "precision": precision},
        "files": {**values["files"], GRAPH_NAME: sha256_bytes(data)},
        "parity": {"against": "the fp32 graph, on half of the calibration split", **gate.as_dict()},
        "outputs": [one for one in values["outputs"] if one["name"] != CAM],
        "cam": {
            "kind": "none",
            "height": 0,
            "width": 0,
            "reason": f"the {kind} graph gives no map; explain with the fp32 export",
        },
        "calibration": calibration,
    }
    check_record(made)
    return made
