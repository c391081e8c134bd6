"""From the best checkpoint to the artifact: one ONNX graph, its weights, and a record with the hash of each; parity checked."""

# Shapes: B images, H height, W width, C classes, D width of the embedding, M encoded metadata.

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dermalyze.artifact.artifact import OOD_NAME, Artifact, open_export
from dermalyze.artifact.edit import earlier_evaluation
from dermalyze.artifact.graph import GRAPH_NAME, Graph
from dermalyze.artifact.quantize import Precision
from dermalyze.artifact.record import NOTHING_YET, RECORD_NAME, WEIGHTS_NAME, check_record, sealed
from dermalyze.artifact.self_test import answers
from dermalyze.audit.quality_reference import training_appearance
from dermalyze.config.classes import describe
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.config.model import ModelSpec
from dermalyze.core.atomic import publish, resource_errors, sha256_bytes
from dermalyze.core.progress import say
from dermalyze.core.result import DISCLAIMER, Result
from dermalyze.core.run import Run, read_json
from dermalyze.data.manifest import read_classes
from dermalyze.errors import ModelError, UsageError
from dermalyze.imaging.decode import Preprocessing
from dermalyze.imaging.samples import complete
from dermalyze.imaging.tabular import Encoder
from dermalyze.models.cam_head import ClosedForm, cam_record, map_size, reason_against
from dermalyze.models.classifier import Classifier, inputs_of
from dermalyze.models.deployed import Deployed, to_onnx
from dermalyze.models.parity import TOLERANCE, measure_parity
from dermalyze.models.program import write_program
from dermalyze.report.served_grade import with_grade
from dermalyze.scoring.quantize_gate import export_precision
from dermalyze.tasks.answering import Answering
from dermalyze.tasks.base import TASKS
from dermalyze.training.checkpoint import load_best

LICENCE_NOTE = (
    "The license of the training images governs what this model may be used for; "
    "HAM10000 is CC BY-NC 4.0: with attribution (Tschandl et al. 2018, doi:10.1038/sdata.2018.161), not commercially."
)


@dataclass(frozen=True)
class ExportResult:
    """What was exported.

    Attributes:
        folder: of the artifact.
        sha256: of `artifact.json`, the identity of the whole model.
        files: name to SHA-256.
        graph_bytes: size of the ONNX graph.
        parity: largest differences from PyTorch; see `measure_parity`.
    """

    folder: Path
    sha256: str
    files: dict[str, str]
    graph_bytes: int
    parity: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"folder": str(self.folder), **{k: v for k, v in self.__dict__.items() if k != "folder"}}

    def lines(self) -> list[str]:
        """Lines for a person."""
        difference = self.parity["max_probability_difference"]
        return [
            f"exported {GRAPH_NAME} ({self.graph_bytes / 2**20:.1f} MiB) and {WEIGHTS_NAME} to {self.folder}",
            f"parity with PyTorch: probabilities differ by at most {difference:.1e} (allowed {TOLERANCE:.0e})",
        ]


def export(run: Run, spec: ExperimentSpec, *, precision: Precision | None = None, torch_export: bool = False) -> Result:
    """Write `RUN/export`, all at once: an export that fails or is killed leaves the one before, or none.

    Args:
        run: trained.
        spec: `inference.recipe` is the artifact's inference recipe.
        precision: int8, fp16 or bf16: write `RUN/export-int8` (or so) instead, of an export that is scored and calibrated; see
            `dermalyze.scoring.quantize_gate`.
        torch_export: write `RUN/export-torch` instead, of an export; see `dermalyze.models.program`.

    Raises:
        UsageError: nothing has been trained (or exported, for what is made of an export), or another process works in the run.
        ModelError: the checkpoint is damaged or another run's, the network can't be exported, or its numbers differ.
        ResourceError: the folder can't be written.
    """
    if precision is not None and torch_export:
        raise UsageError(f"--{precision} and --torch-export are both set; export once with each")
    if precision is not None:
        return export_precision(
            run,
            precision,
            task=spec.task,
            data=spec.data,
            train=spec.train,
            inference=spec.inference,
            evaluate=spec.evaluate,
            seed=spec.seed,
        )
    with run.lock():
        run.require_writable()
        if torch_export:
            return write_program(run, open_export(run, spec.inference.recipe, threads=spec.train.threads), deployable(run)[0])
        for leftover in run.root.glob(f".{run.artifact_dir.name}-*.tmp"):  # of an export that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        network, classifier, best = deployable(run)
        classes, preprocessing = best["classes"], Preprocessing.from_dict(best["preprocessing"])
        parameters = sum(parameter.numel() for parameter in network.parameters())
        say(f"export: {parameters / 1e6:.2f} M parameters to ONNX, then a comparison with PyTorch")
        encoder = Encoder.from_dict(best["metadata"]) if best["metadata"] is not None else None
        against = reason_against(classifier)
        cam_size = None if against is not None else map_size(classifier, preprocessing.height, preprocessing.width)
        graph_bytes = to_onnx(network)
        with resource_errors("the export"):
            weights = run.best_weights_path.read_bytes()
        if sha256_bytes(weights) != best["weights_sha256"]:
            raise ModelError(f"{run.best_weights_path.name}: changed while it was exported; export again")
        graph = Graph(graph_bytes, network.inputs, classes=len(classes), cam=cam_size)
        task = TASKS[spec.task.kind]
        parity = measure_parity(network, graph, task)
        files = {GRAPH_NAME: graph_bytes, WEIGHTS_NAME: weights}
        hashes = {name: sha256_bytes(data) for name, data in files.items()}
        values = make_record(run, spec, best, encoder, graph, hashes, parity)
        values |= {"cam": cam_record(against, cam_size), "looks": training_appearance(run, spec.data)}
        record, more = with_calibration(run, values)
        record["reference"] = reference_answers(graph, record)
        record, evaluation = earlier_evaluation(run.artifact_dir, with_grade(run, record))
        text = sealed(record)
        publish({**files, **more, **evaluation, RECORD_NAME: text}, run.artifact_dir, check=Artifact.open)
        return ExportResult(run.artifact_dir, sha256_bytes(text), hashes, len(graph_bytes), parity)


def deployable(run: Run) -> tuple[Deployed, Classifier, dict[str, Any]]:
    """The network of the best checkpoint as it is deployed, the classifier in it, and the checkpoint's record.

    Raises:
        UsageError: nothing has been trained.
        ModelError: the checkpoint is damaged, or is that of another manifest or of other classes.
    """
    classifier, best = load_best(run)
    if best.get("manifest_sha256") != run.certificate()["manifest_sha256"]:
        raise ModelError(f"{run.root.name}: the checkpoint was trained on another manifest; train in a new run folder")
    if best["classes"] != (classes := read_classes(run)):
        raise ModelError(
            f"{run.best_record_path.name}: its classes {best['classes']} are not the run's {classes}, or in another order; "
            "train in a new run folder"
        )
    preprocessing = Preprocessing.from_dict(best["preprocessing"])
    answering = classifier if reason_against(classifier) is not None else ClosedForm(classifier)
    encoder = Encoder.from_dict(best["metadata"]) if best["metadata"] is not None else None
    inputs = inputs_of(ModelSpec.model_validate(best["model"]), preprocessing, encoder)
    return Deployed(answering, preprocessing, inputs).eval(), classifier, best


def reference_answers(graph: Graph, record: dict[str, Any]) -> dict[str, Any]:
    """The graph's predictions for synthetic images with nothing beside them."""
    blank_M = None if record["metadata"] is None else np.array(record["metadata"]["blank"], np.float32)
    classes = [entry["name"] for entry in record["classes"]]
    answering = Answering.read(record["task"], classes, record["recipe"], record["calibration"])
    image = Preprocessing.from_dict(record["preprocessing"]).image
    return answers(lambda batch: graph.run(complete(batch, graph.inputs, blank_M)), answering, image)


def graph_record(graph: Graph) -> dict[str, Any]:
    """The named inputs and outputs of a graph, as `artifact.json` has them."""
    inputs = [{"name": i.name, "dtype": i.dtype, "shape": list(i.shape), "optional": i.optional} for i in graph.inputs]
    return {"inputs": inputs, "outputs": [{"name": name, "shape": list(shape)} for name, shape in graph.outputs.items()]}


def make_record(
    run: Run,
    spec: ExperimentSpec,
    best: dict[str, Any],
    encoder: Encoder | None,
    graph: Graph,
    hashes: dict[str, str],
    parity: dict[str, Any],
) -> dict[str, Any]:
    """The content of `artifact.json`: no time, no path, so that the same checkpoint gives the same bytes."""
    model = dict(best["model"])
    if model["weights"] is not None:
        model["weights"] = Path(model["weights"]).name
    return {
        "schema_version": 2,
        "name": spec.name,
        "created_from": {
            "manifest_sha256": best["manifest_sha256"],
            "config_sha256": best["config_sha256"],
            "weights_sha256": best["weights_sha256"],
            "seed": best["seed"],
        },
        "classes": [{"name": name, "description": describe(name)} for name in best["classes"]],
        "preprocessing": best["preprocessing"],
        "model": model,
        "recipe": spec.inference.recipe,
        "task": spec.task.kind,
        "metadata": {"encoder": encoder.as_dict(), "blank": encoder.blank.tolist()} if encoder is not None else None,
        **graph_record(graph),
        "training": {
            "source": spec.data.source.kind,
            "images": run.certificate()["counts"],
            **{key: best[key] for key in ("epoch", "metric", "value", "late_fusion")},
        },
        "accepted_leak": best["accepted_leak"],
        "disclaimer": DISCLAIMER,
        "licence_note": LICENCE_NOTE,
        "files": hashes,
        "parity": parity,
        **NOTHING_YET,
    }


def with_calibration(run: Run, record: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Path]]:
    """The record with the run's calibration and its file, where that was fitted on the very scores that this artifact gives."""
    path = run.calibration_path(record["recipe"])
    known = read_json(path) if path.exists() else {}
    if known.get("scores_sha256") != check_record(record).scores_sha256:
        return record, {}
    calibration = known["calibration"]
    ood = calibration.get("ood") or {}
    files = {OOD_NAME: ood["sha256"]} if ood.get("sha256") else {}
    more = {OOD_NAME: run.require(run.ood_path(record["recipe"], ood["kind"]), "calibrate")} if files else {}
    return {**record, "calibration": calibration, "calibration_files": files}, more
