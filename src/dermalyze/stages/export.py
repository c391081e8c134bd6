"""From the best checkpoint to the artefact: one ONNX graph, its weights, and a record with the hash of each; parity checked."""

# Shapes: B images, H height, W width, C classes, D width of the embedding, M encoded metadata.

from __future__ import annotations

import contextlib
import io
import json
import logging
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dermalyze.config.classes import describe
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.artefact import (
    GRAPH_NAME,
    MAX_GRAPH_BYTES,
    OOD_NAME,
    RECORD_NAME,
    WEIGHTS_NAME,
    Artefact,
    Graph,
    SecondRecord,
    parse_record,
)
from dermalyze.core.atomic import json_bytes, publish, resource_errors, sha256_bytes, sha256_file
from dermalyze.core.errors import MissingExtraError, ModelError
from dermalyze.core.progress import say
from dermalyze.core.result import DISCLAIMER
from dermalyze.core.run import Run, read_json
from dermalyze.core.second import packed, statistics, unpacked
from dermalyze.data.images import Preprocessing
from dermalyze.data.manifest import read_classes
from dermalyze.model.checkpoint import load_best
from dermalyze.ops.recipes import RECIPES, apply_recipe
from dermalyze.ops.tabular import Encoder
from dermalyze.ops.tasks import TASKS, Task

OPSET = 18
TOLERANCE = 1e-4  # largest difference of a probability between PyTorch and the graph
PARITY_BATCHES = (1, 3)
LICENCE_NOTE = (
    "The licence of the training images governs what this model may be used for; "
    "HAM10000 is CC BY-NC 4.0: with attribution (Tschandl et al. 2018, doi:10.1038/sdata.2018.161), not commercially."
)


@dataclass(frozen=True)
class ExportResult:
    """What was exported.

    Attributes:
        folder: of the artefact.
        sha256: of `artefact.json`, the identity of the whole model.
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


class Deployed(nn.Module):
    """What goes into the graph: pixels as they are stored, to logits and embedding; normalisation is inside.

    Args:
        network: has `forward_with_embedding(images (B, 3, H, W)[, metadata (B, M)]) -> (logits (B, C), embedding (B, D))`.
        mean: of RGB in 0..1.
        std: of RGB in 0..1.
    """

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))

    def forward(self, images: Tensor, metadata: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images (B, H, W, 3) uint8 RGB, and metadata (B, M) where they are taken, to logits (B, C) and embedding (B, D)."""
        pixels = images.permute(0, 3, 1, 2).to(torch.float32) / 255
        normalised = (pixels - self.get_buffer("mean")) / self.get_buffer("std")
        forward: Callable[..., tuple[Tensor, Tensor]] = self.network.forward_with_embedding  # type: ignore[assignment]
        logits, embedding = forward(normalised) if metadata is None else forward(normalised, metadata)
        return logits, embedding


class DeployedPair(Deployed):
    """As `Deployed`, of a network of two pictures a case."""

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__(network, mean, std)
        mean, std = statistics(mean, std)
        self.mean, self.std = torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)

    def forward(  # type: ignore[override]
        self, images: Tensor, images2: Tensor, has_second: Tensor, metadata: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both pictures (B, H, W, 3) uint8 RGB, whether there is a second (B,) bool, and metadata where they are taken."""
        known = has_second.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, images.shape[1], images.shape[2], 1)
        return super().forward(torch.cat([images, images2, known], dim=3), metadata)


def export(run: Run, spec: ExperimentSpec) -> ExportResult:
    """Write `RUN/export`, all at once: an export that fails or is killed leaves the one before, or none.

    Raises:
        UsageError: nothing has been trained, or another process works in the run.
        ModelError: the checkpoint is damaged or another run's, the network can't be exported, or its numbers differ.
        ResourceError: the folder can't be written.
    """
    with run.lock():
        run.probe_write()
        for leftover in run.root.glob(f".{run.artefact_dir.name}-*.tmp"):  # of an export that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        classifier, best = load_best(run)
        if best.get("manifest_sha256") != run.certificate()["manifest_sha256"]:
            raise ModelError(f"{run.root.name}: the checkpoint was trained on another manifest; train in a new run folder")
        if best["classes"] != (classes := read_classes(run)):
            raise ModelError(
                f"{run.best_record_path.name}: its classes {best['classes']} are not the run's {classes}, or in another order; "
                "train in a new run folder"
            )
        preprocessing = Preprocessing.from_dict(best["preprocessing"])
        parameters = sum(parameter.numel() for parameter in classifier.parameters())
        say(f"export: {parameters / 1e6:.2f} M parameters to ONNX, then its numbers against PyTorch's")
        second = best["model"].get("second") is not None
        network = (DeployedPair if second else Deployed)(classifier, preprocessing.mean, preprocessing.std).eval()
        encoder = Encoder.from_dict(best["metadata"]) if best.get("metadata") is not None else None
        metadata_width = encoder.width if encoder is not None else 0
        graph_bytes = to_onnx(network, preprocessing.height, preprocessing.width, metadata_width)
        with resource_errors("the export"):
            weights = run.best_weights_path.read_bytes()
        if sha256_bytes(weights) != best["weights_sha256"]:
            raise ModelError(f"{run.best_weights_path.name}: changed while it was exported; export again")
        graph = Graph(
            graph_bytes, classes=len(best["classes"]), height=preprocessing.height, width=preprocessing.width,
            metadata_width=metadata_width, second=second,
        )  # fmt: skip
        task = TASKS[spec.task.kind]
        parity = measure_parity(network, graph, preprocessing.height, preprocessing.width, task)
        files = {GRAPH_NAME: graph_bytes, WEIGHTS_NAME: weights}
        hashes = {name: sha256_bytes(data) for name, data in files.items()}
        record, more = with_calibration(run, make_record(run, spec, best, encoder, hashes, parity))
        text = json_bytes(record)
        publish({**files, **more, RECORD_NAME: text}, run.artefact_dir, check=Artefact.open)
        return ExportResult(run.artefact_dir, sha256_bytes(text), hashes, len(graph_bytes), parity)


def to_onnx(network: Deployed, height: int, width: int, metadata_width: int = 0) -> bytes:
    """The network as a self-contained ONNX graph with a free batch size; the same network gives the same bytes.

    Raises:
        ModelError: an operation has no ONNX form, or the graph would be 2 GiB or more.
        MissingExtraError: onnx or onnxscript is not installed.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > MAX_GRAPH_BYTES - 2**24:
        raise ModelError(
            f"the network has {size / 2**30:.1f} GiB of weights; one ONNX file holds under 2 GiB: use a smaller one"
        )
    example = [torch.zeros(2, height, width, 3, dtype=torch.uint8)]  # two: a batch of one would be taken for a constant
    batch = torch.export.Dim("batch")
    shapes = {"images": {0: batch}}
    if isinstance(network, DeployedPair):
        example += [example[0].clone(), torch.ones(2, dtype=torch.bool)]
        shapes |= {"images2": {0: batch}, "has_second": {0: batch}}
    if metadata_width:
        example.append(torch.zeros(2, metadata_width))
        shapes["metadata"] = {0: batch}
    level = logging.root.manager.disable
    try:
        logging.disable(logging.CRITICAL)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")  # the exporter warns of its own internals
            program = torch.onnx.export(
                network,
                tuple(example),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(shapes),
                output_names=["logits", "embedding"],
                dynamic_shapes=shapes,
                external_data=False,
                verbose=False,
            )
            assert program is not None
            model = program.model_proto
    except ModuleNotFoundError as error:
        raise MissingExtraError("export", "train") from error
    except Exception as error:  # the exporter raises whatever its passes raise
        cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"the network cannot be exported to ONNX: {cause[:300]}; choose another backbone or head") from error
    finally:
        logging.disable(level)
    _strip(model)
    return bytes(model.SerializeToString(deterministic=True))


def _strip(message: Any) -> None:
    """Take out what the exporter notes about its own work: stack traces with the paths of this machine, and docs."""
    for field, value in list(message.ListFields()):
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None and field.message_type.name != "TensorProto":
            try:
                for child in value:
                    _strip(child)
            except TypeError:  # not repeated
                _strip(value)


def measure_parity(
    network: Deployed, graph: Graph, height: int, width: int, task: Task = TASKS["multiclass"]
) -> dict[str, Any]:
    """Largest differences between PyTorch and the graph, over noise and smooth pictures, batch sizes and recipes; metadata,
    where they are taken, are noise.

    Raises:
        ModelError: a probability differs by more than `TOLERANCE`, or is not finite.
    """

    metadata_BM = np.random.default_rng(1).standard_normal((max(PARITY_BATCHES), graph.metadata_width)).astype(np.float32)

    def known(images_BHW3: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        return [metadata_BM[: len(images_BHW3)]] if graph.metadata_width else []

    def forward(images_BHW3: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.inference_mode():
            pixels = unpacked(images_BHW3) if graph.second else (images_BHW3,)
            logits, embedding = network(*map(torch.from_numpy, (*pixels, *known(images_BHW3))))
        return logits.numpy(), embedding.numpy()

    def exported(images_BHW3: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return graph.run(images_BHW3, *known(images_BHW3))

    worst_probability = worst_embedding = 0.0
    for images in parity_images(max(PARITY_BATCHES), height, width, second=graph.second):
        for batch in PARITY_BATCHES:
            for recipe in RECIPES:
                ours, theirs = (apply_recipe(recipe, run, images[:batch], task.pool) for run in (forward, exported))
                probability = float(np.abs(task.probabilities(ours[0]) - task.probabilities(theirs[0])).max())
                scale = 1.0 + float(np.abs(ours[1]).max())
                embedding = float(np.abs(ours[1] - theirs[1]).max()) / scale
                if not (probability <= TOLERANCE and embedding <= 10 * TOLERANCE):
                    raise ModelError(
                        f"export: the graph's numbers are not PyTorch's: probabilities differ by {probability:.2g} (allowed "
                        f"{TOLERANCE:g}; recipe {recipe}, batch {batch}), embedding by {embedding:.2g}; nothing was exported"
                    )
                worst_probability, worst_embedding = max(worst_probability, probability), max(worst_embedding, embedding)
    return {
        "max_probability_difference": worst_probability,
        "max_relative_embedding_difference": worst_embedding,
        "tolerance": TOLERANCE,
        "batches": list(PARITY_BATCHES),
        "recipes": list(RECIPES),
        "opset": OPSET,
        "torch": torch.__version__,
    }


def parity_images(count: int, height: int, width: int, *, second: bool = False) -> list[NDArray[np.uint8]]:
    """Two batches (count, height, width, 3) of pictures, always the same: noise, and smooth colours with a dark disc.

    With `second`, cases whose second picture is of the other batch; of one it is missing, in the second batch of the first.
    """
    noise = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    skin = np.stack([200 + 40 * x, 150 + 30 * y, 130 + 20 * x * y], axis=-1)
    smooth = np.stack([skin * np.where(x**2 + y**2 < (0.2 + 0.2 * i) ** 2, 0.4, 1.0)[..., None] for i in range(count)])
    pictures = [noise, smooth.clip(0, 255).astype(np.uint8)]
    if not second:
        return pictures
    there = np.arange(count)
    return [packed(pictures[0], pictures[1], there != 1), packed(pictures[1], pictures[0], there != 0)]


def make_record(
    run: Run,
    spec: ExperimentSpec,
    best: dict[str, Any],
    encoder: Encoder | None,
    hashes: dict[str, str],
    parity: dict[str, Any],
) -> dict[str, Any]:
    """The content of `artefact.json`: no time, no path, so that the same checkpoint gives the same bytes."""
    model = dict(best["model"])
    if model.get("weights"):
        model["weights"] = Path(model["weights"]).name
    return {
        "schema_version": 1,
        "name": spec.name,
        "created_from": {
            "manifest_sha256": best["manifest_sha256"],
            "config_sha256": best.get("config_sha256") or sha256_file(run.config_path),
            "weights_sha256": best["weights_sha256"],
            "seed": best.get("seed", spec.seed),
        },
        "classes": [{"name": name, "description": describe(name)} for name in best["classes"]],
        "preprocessing": best["preprocessing"],
        "model": model,
        "recipe": spec.inference.recipe,
        **({"task": spec.task.kind} if spec.task.kind != "multiclass" else {}),
        **({"metadata": {"encoder": encoder.as_dict(), "blank": encoder.blank.tolist()}} if encoder is not None else {}),
        **({"second": SecondRecord().model_dump()} if model.get("second") is not None else {}),
        "training": {
            "source": spec.data.source.kind,
            "images": run.certificate().get("counts", {}),
            **{key: best.get(key) for key in ("epoch", "metric", "value")},
            **({"late_fusion": best["late_fusion"]} if best.get("late_fusion") else {}),
        },
        "accepted_leak": best.get("accepted_leak"),
        "disclaimer": DISCLAIMER,
        "licence_note": LICENCE_NOTE,
        "files": hashes,
        "parity": parity,
    }


def with_calibration(run: Run, record: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Path]]:
    """The record with the run's calibration and its file, where that was fitted on the very scores that this artefact gives."""
    path = run.calibration_path(record["recipe"])
    known = read_json(path) if path.exists() else {}
    if known.get("scores_sha256") != parse_record(json.dumps(record).encode()).scores_sha256:
        return {**record, "calibration": None}, {}
    calibration = known["calibration"]
    ood = calibration.get("ood") or {}
    files = {OOD_NAME: ood["sha256"]} if ood.get("sha256") else {}
    more = {OOD_NAME: run.require(run.ood_path(record["recipe"], ood["kind"]), "calibrate")} if files else {}
    return {**record, "calibration": calibration, "calibration_files": files}, more
