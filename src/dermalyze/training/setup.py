"""Builds everything that a training needs from the run and its specs."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dermalyze.config.data import DataSpec, PreprocessSpec
from dermalyze.config.model import ConcatFusion, LateFusion, ModelSpec
from dermalyze.config.train import AugmentSpec, TrainSpec
from dermalyze.core.atomic import sha256_bytes
from dermalyze.core.progress import say
from dermalyze.core.run import Run
from dermalyze.core.runtime import Runtime, StopRequest
from dermalyze.data.loader import Loader, open_loader
from dermalyze.data.manifest import read_classes, source_codes
from dermalyze.data.metadata import fit_rows
from dermalyze.data.quarantine import Quarantine
from dermalyze.data.samples import Samples, require_images
from dermalyze.data.splitting import read_division
from dermalyze.data.store import ImageStore
from dermalyze.errors import DataError, InterruptedRunError, ModelError
from dermalyze.imaging.modalities import modality_of
from dermalyze.imaging.preprocess import Preprocessing
from dermalyze.imaging.samples import METADATA, with_images
from dermalyze.models.backbones import pretrained_cfg_of
from dermalyze.models.classifier import Classifier, build_classifier, check_input, inputs_of
from dermalyze.tasks.base import TASKS, Task
from dermalyze.training.autotune import asked_runtime, fastest_runtime
from dermalyze.training.metadata import Metadata
from dermalyze.training.micro_batches import MicroBatches
from dermalyze.training.objectives import Objective, build_objective
from dermalyze.training.optim import Ema, build_optimizer
from dermalyze.training.state import Learner, Progress, State
from dermalyze.training.transfer import Plan


@dataclass(frozen=True)
class TrainingSpecs:
    """What a training takes of an experiment.

    Attributes:
        seed, data, preprocess, model, train: as in the experiment.
        task: its kind.
        experiment: all of it as JSON, which is saved with each state.
    """

    seed: int
    task: str
    data: DataSpec
    preprocess: PreprocessSpec
    model: ModelSpec
    train: TrainSpec
    experiment: dict[str, Any]

    @property
    def augment(self) -> AugmentSpec:
        """`train.augment`, with the modality's own policy where it names none."""
        spec = self.train.augment
        own = modality_of(self.data).augmentation.policy
        return spec if spec.policy is not None else spec.model_copy(update={"policy": own})

    def preprocessing(self) -> Preprocessing:
        """The preprocessing, with what the pretrained weights expect where the spec leaves it open."""
        config = pretrained_cfg_of(self.model)
        return modality_of(self.data).resolve(self.preprocess, size=config.size, mean=config.mean, std=config.std)


@dataclass(frozen=True)
class Training:
    """A training that is ready to begin. Only `state`, and what it holds, changes.

    Attributes:
        task, classes, image_ids: of the run; an id per row of the manifest.
        rows, labels: of the splits "train" and "val": rows of the manifest, and their targets.
        sources_N: source of each training image where sources are drawn equally often, or None.
        forward: the model, compiled where that is asked for.
        plan: which stages learn.
        changes: epochs (from 0) from which more of the network learns or images have another size.
        hide: by name of an optional input the share that is hidden in training.
        mean, std: of each channel, on the device.
    """

    run: Run
    specs: TrainingSpecs
    runtime: Runtime
    request: StopRequest
    task: Task
    classes: list[str]
    image_ids: list[str]
    rows: dict[str, NDArray[np.int64]]
    labels: dict[str, NDArray[np.int64]]
    sources_N: NDArray[np.int64] | None
    preprocessing: Preprocessing
    loader: Loader
    metadata: Metadata
    model: Classifier
    forward: Callable[..., Tensor]
    plan: Plan
    changes: list[int]
    objective: Objective
    hide: dict[str, float]
    mean: Tensor
    std: Tensor
    state: State

    def size(self, epoch: int) -> tuple[int, int]:
        """Height and width of training images in an epoch (from 0), px."""
        return training_size(self.specs.train, self.preprocessing, epoch)

    def inputs(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A batch with images (B, channels, H, W) in 0..1 as the network takes it."""

        def normalized(pixels: Tensor) -> Tensor:
            return ((pixels - self.mean) / self.std).contiguous(memory_format=self.runtime.memory_format)

        return with_images(batch, normalized)


def training_size(settings: TrainSpec, preprocessing: Preprocessing, epoch: int) -> tuple[int, int]:
    """Height and width of training images in an epoch (from 0), px."""
    scale = next((size.scale for size in reversed(settings.progressive) if size.epoch <= epoch), 1.0)
    return round(preprocessing.height * scale), round(preprocessing.width * scale)


def settle_runtime(run: Run, specs: TrainingSpecs) -> Runtime:
    """The runtime of a training: as asked; in fast mode what is left at `auto` is measured once and recorded in the run."""
    runtime = asked_runtime(specs.train)
    if runtime.deterministic:
        return runtime
    p = specs.preprocessing()
    return fastest_runtime(
        run, specs.model, specs.train, runtime, classes=len(read_classes(run)), size=(p.height, p.width)
    )  # fmt: skip


def build_training(
    run: Run, specs: TrainingSpecs, runtime: Runtime, request: StopRequest, *, accepted_leak: str | None = None
) -> Training:
    """Build all of it. The run gets nothing but its image cache.

    Args:
        run: prepared and split.
        specs: of its experiment.
        runtime: in force while this is called.
        request: asked while the image cache is made.
        accepted_leak: the reason a leaking split was accepted for, or None.

    Raises:
        DataError: splits that are too small, a class without a training image, images that changed.
        ConfigError: settings that do not fit the network or the data.
        ModelError: weights that are refused, or a size that the network does not take.
        InterruptedRunError: a signal came while the image cache was made.
    """
    settings = specs.train
    classes, task = read_classes(run), TASKS[specs.task]
    frame, part_of = read_division(run)
    preprocessing = specs.preprocessing()
    rows: dict[str, NDArray[np.int64]] = {}
    labels: dict[str, NDArray[np.int64]] = {}
    for part in ("train", "val"):
        rows[part] = np.flatnonzero(part_of == part).astype(np.int64)
        if len(rows[part]) < 2:
            raise DataError(f"the {part} split holds {len(rows[part])} images; at least 2 are needed; split again")
        labels[part] = task.targets(frame["label"].iloc[rows[part]].tolist(), classes)
    image_ids = frame["image_id"].tolist()
    total = sum(map(len, rows.values()))
    quarantine = Quarantine(image_ids, total=total, limit=specs.data.max_bad_fraction, known={})
    require_images(frame.iloc[rows["train"]], specs.model, what="the training split")

    def check() -> None:
        if request.signal:
            raise InterruptedRunError(f"{request.signal}: stopped before the first step; run again: dermalyze train {run.root}")

    sources_N = source_codes(frame["source"].iloc[rows["train"]]) if settings.balance_sources else None
    metadata = Metadata(
        fit_rows(frame, specs.model, rows["train"]), specs.model.metadata.fusion if specs.model.metadata else None,
        rows=rows["train"], labels=labels["train"], classes=len(classes),
    )  # fmt: skip
    inputs = inputs_of(specs.model, preprocessing, metadata.encoder)
    samples = Samples.of(ImageStore.open(specs.data), frame, preprocessing, inputs, metadata.learned_NM)
    loader = open_loader(specs.data, settings, samples, pin=runtime.device == "cuda", check=check)
    model = _model(specs, runtime, preprocessing, metadata, len(classes))
    plan = Plan(model, settings.strategy, epochs=settings.epochs)
    if isinstance(metadata.fusion, ConcatFusion):
        say("model.metadata: the concat fusion has its own layers in place of model.head")
    learner = Learner(
        model, build_optimizer(model, settings.optimizer, plan.paces), Ema(model, settings.ema) if settings.ema else None,
        torch.amp.GradScaler(runtime.device, enabled=runtime.precision == "fp16"),
    )  # fmt: skip
    state = State(
        run, specs.experiment, _circumstances(runtime), sha256_bytes(b"".join(rows[part].tobytes() for part in rows)),
        learner, MicroBatches(settings.batch_size, model), quarantine, Progress(accepted_leak=accepted_leak),
    )  # fmt: skip
    mean, std = (
        torch.tensor(values, device=runtime.device).view(1, -1, 1, 1) for values in (preprocessing.mean, preprocessing.std)
    )
    return Training(
        run, specs, runtime, request, task, classes, image_ids, rows, labels, sources_N, preprocessing, loader, metadata,
        model=model,
        forward=torch.compile(model) if settings.compile else model,
        plan=plan,
        changes=sorted({*plan.starts, *(size.epoch for size in settings.progressive if size.epoch)}),
        objective=build_objective(
            task.kind, settings.loss, settings.imbalance, labels["train"], classes,
            sources_N=sources_N, device=runtime.device,
        ),
        hide=hidden_shares(specs.model),
        mean=mean,
        std=std,
        state=state,
    )  # fmt: skip


def hidden_shares(spec: ModelSpec) -> dict[str, float]:
    """By name of an input the share of samples from which training hides it."""
    shares = {} if spec.image_2 is None else {"image_2": spec.image_2.hide}
    fusion = None if spec.metadata is None else spec.metadata.fusion
    return shares if fusion is None or isinstance(fusion, LateFusion) else {**shares, METADATA: fusion.hide}


def _model(
    specs: TrainingSpecs, runtime: Runtime, preprocessing: Preprocessing, metadata: Metadata, classes: int
) -> Classifier:
    """The network on its device; every size of the training was tried."""
    torch.manual_seed(specs.seed)
    model = build_classifier(specs.model, classes, load_weights=True, encoder=metadata.encoder)
    check_input(model, preprocessing.height, preprocessing.width)
    for size in specs.train.progressive:
        try:
            check_input(model, *training_size(specs.train, preprocessing, size.epoch))
        except ModelError as error:
            raise ModelError(f"train.progressive: {error}; or raise scale {size.scale:g}") from error
    kind = specs.train.strategy.kind
    if kind in ("frozen", "last", "gradual") and not (specs.model.pretrained or specs.model.weights):
        say(f"train.strategy {kind} keeps random weights; give model.weights or model.pretrained: true")
    return model.to(runtime.device, memory_format=runtime.memory_format)  # type: ignore[call-overload, no-any-return]


def _circumstances(runtime: Runtime) -> dict[str, Any]:
    """What a resume must share for the same bits."""
    version = importlib.metadata.version("dermalyze")
    return {"dermalyze": version, "torch": torch.__version__, "numpy": np.__version__, **runtime.as_dict()}
