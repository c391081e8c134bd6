"""Specs of training: loss, optimizer, schedule, imbalance, augmentation, stopping. Defaults are the Dermalyze document's."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self, TypeVar

from pydantic import Field, model_validator

from dermalyze.config.base import Spec

S = TypeVar("S")
Unit = Annotated[float, Field(ge=0, le=1)]


def _rising(spec: S, epochs: tuple[int, ...]) -> S:
    if any(later <= earlier for earlier, later in pairwise(epochs)):
        raise ValueError(f"epochs {', '.join(map(str, epochs))} must rise")
    return spec


class CrossEntropyLoss(Spec):
    """Plain cross-entropy."""

    kind: Literal["cross_entropy"] = "cross_entropy"


class FocalLoss(Spec):
    """Cross-entropy that discounts easy examples (Lin et al. 2017)."""

    tasks: ClassVar = ("multiclass", "multilabel")

    kind: Literal["focal"] = "focal"
    gamma: float = Field(2.0, ge=0, le=10)
    alpha: float | list[float] | None = Field(
        None,
        description="one number, or one per class in class order; multilabel: the weight of a present label, "
        "1 - alpha of an absent one",
    )


class LabelSmoothingLoss(Spec):
    """Cross-entropy against softened targets."""

    kind: Literal["label_smoothing"] = "label_smoothing"
    smoothing: float = Field(0.05, ge=0, lt=1)
    convention: Literal["others", "all"] = Field(
        "others", description="others: eps/(C-1) on the other classes (Dermalyze); all: eps/C on every class (torch)"
    )


class BceLoss(Spec):
    """Binary cross-entropy of each label."""

    tasks: ClassVar = ("multilabel",)

    kind: Literal["bce"] = "bce"
    smoothing: float = Field(0.0, ge=0, lt=1, description="targets eps/2 and 1 - eps/2 in place of 0 and 1")


class AsymmetricLoss(Spec):
    """Binary cross-entropy that discounts easy negatives more than easy positives (Ridnik et al. 2021)."""

    tasks: ClassVar = ("multilabel",)

    kind: Literal["asymmetric"] = "asymmetric"
    gamma_positive: float = Field(0.0, ge=0, le=10)
    gamma_negative: float = Field(4.0, ge=0, le=10)
    margin: float = Field(0.05, ge=0, lt=1, description="negatives of a lower probability count nothing")


LossSpec = Annotated[CrossEntropyLoss | FocalLoss | LabelSmoothingLoss | BceLoss | AsymmetricLoss, Field(discriminator="kind")]


class AdamWOptimizer(Spec):
    """AdamW with decoupled decay; biases and normalization layers are not decayed."""

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.02, ge=0)


class SgdOptimizer(Spec):
    """SGD with Nesterov momentum."""

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(0.01, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)


OptimizerSpec = Annotated[AdamWOptimizer | SgdOptimizer, Field(discriminator="kind")]


class FullStrategy(Spec):
    """Train everything at the same rate, for random weights or more than about 50,000 images."""

    kind: Literal["full"] = "full"


class FrozenStrategy(Spec):
    """Train the head alone."""

    kind: Literal["frozen"] = "frozen"


class LastStrategy(Spec):
    """Train the head and the last stages of the backbone."""

    kind: Literal["last"] = "last"
    stages: int = Field(2, ge=1, description="of the backbone, counted from the head")


class DifferentialStrategy(Spec):
    """Train everything, the backbone at its own rate."""

    kind: Literal["differential"] = "differential"
    factor: float = Field(0.01, gt=0, le=1, description="of optimizer.lr, for the backbone; 0.01 with lr 1e-3 gives 1e-5")


class LayerwiseDecayStrategy(Spec):
    """Train everything, each stage at the rate of the one after it times a factor (ELECTRA, BEiT)."""

    kind: Literal["layerwise_decay"] = "layerwise_decay"
    factor: float = Field(0.75, gt=0, lt=1, description="a stage; the head has optimizer.lr")


class GradualStrategy(Spec):
    """Train the head first, and the backbone's stages with it from the named epochs on, deepest first (ULMFiT)."""

    kind: Literal["gradual"] = "gradual"
    epochs: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (1, 10, 20), min_length=1, description="epochs done before each unfreezing, rising"
    )
    stages: int = Field(2, ge=1, description="unfrozen each time")

    @model_validator(mode="after")
    def _check(self) -> Self:
        return _rising(self, self.epochs)


StrategySpec = Annotated[
    FullStrategy | FrozenStrategy | LastStrategy | DifferentialStrategy | LayerwiseDecayStrategy | GradualStrategy,
    Field(discriminator="kind"),
]


class _Warmup(Spec):
    warmup: float = Field(0.05, ge=0, lt=1, description="share of all steps with a linear warm-up")
    warmup_epochs: float | None = Field(None, ge=0, description="the same in epochs; takes precedence")
    eta_min: float = Field(1e-5, ge=0, description="lowest learning rate")


class CosineRestartsSchedule(_Warmup):
    """Cosine annealing with warm restarts (Loshchilov & Hutter 2017); T_0 5, T_mult 2 restarts at epochs 5, 15, 35."""

    kind: Literal["cosine_restarts"] = "cosine_restarts"
    t_0: float = Field(20, gt=0, description="epochs of the first cycle")
    t_mult: int = Field(1, ge=1, description="each cycle is this many times as long as the one before")


class CosineSchedule(_Warmup):
    """One cosine from lr to eta_min."""

    kind: Literal["cosine"] = "cosine"


class OneCycleSchedule(Spec):
    """Up to lr and down to almost nothing, by cosine (Smith 2018; torch's OneCycleLR)."""

    kind: Literal["one_cycle"] = "one_cycle"
    pct_start: float = Field(0.3, gt=0, lt=1, description="share of all steps that rise")
    div_factor: float = Field(25.0, gt=1, description="lr / first lr")
    final_div_factor: float = Field(1e4, gt=1, description="first lr / last lr")


class ConstantSchedule(_Warmup):
    """The same learning rate throughout, after the warm-up."""

    kind: Literal["constant"] = "constant"
    eta_min: float = Field(0.0, ge=0, description="learning rate at the start of the warm-up")


ScheduleSpec = Annotated[
    CosineRestartsSchedule | CosineSchedule | OneCycleSchedule | ConstantSchedule, Field(discriminator="kind")
]


class NoImbalance(Spec):
    """No correction for class imbalance."""

    tasks: ClassVar = ("multiclass", "multilabel")

    kind: Literal["none"] = "none"


class WeightsImbalance(Spec):
    """Class weights in the loss: N / (C n_c), raised to `power` (0.5: square-root weights), or set by `values`.

    multilabel: weights of where a label is, against where it is not: (N - n_c) / n_c, raised to `power`.
    """

    tasks: ClassVar = ("multiclass", "multilabel")

    kind: Literal["weights"] = "weights"
    power: float = Field(1.0, gt=0, le=1)
    values: dict[str, float] | None = Field(None, description="class name to weight; power is then unused")


class SamplingImbalance(Spec):
    """Sample with replacement, each class equally often."""

    kind: Literal["sampling"] = "sampling"


class BothImbalance(Spec):
    """Weighted sampling and class weights together: a double correction, only on explicit request."""

    kind: Literal["sampling_and_weights"] = "sampling_and_weights"
    power: float = Field(1.0, gt=0, le=1)


ImbalanceSpec = Annotated[NoImbalance | WeightsImbalance | SamplingImbalance | BothImbalance, Field(discriminator="kind")]


PolicyName = Literal["none", "conservative", "standard", "strong", "randaugment", "trivialaugment", "autoaugment"]


class AugmentSpec(Spec):
    """Random changes of a training batch. A policy sets every value; an explicit value overrides it."""

    policy: PolicyName | None = Field(None, description="default: the modality's, standard for photographs")
    hflip: Unit | None = Field(None, description="probability")
    vflip: Unit | None = Field(None, description="probability")
    rotate_deg: float | None = Field(None, ge=0, le=180, description="rotation uniform in ± this")
    translate: float | None = Field(None, ge=0, le=0.5, description="shift uniform in ± this share of the edge")
    scale: tuple[float, float] | None = Field(None, description="zoom drawn uniform from this range")
    brightness: Unit | None = None
    contrast: Unit | None = None
    saturation: Unit | None = None
    hue: float | None = Field(None, ge=0, le=0.5, description="turns")
    blur: Unit | None = Field(None, description="probability of a Gaussian blur")
    cutout: Unit | None = Field(None, description="probability of masking a rectangle (random erasing)")
    perspective: float | None = Field(None, ge=0, le=0.8, description="corners move in by up to this share of half an edge")
    ops: int | None = Field(None, ge=1, le=10, description="randaugment: operations per image, one after another; default 2")
    magnitude: int | None = Field(None, ge=0, le=30, description="randaugment: strength of each; default 9")
    mixup: float = Field(0.0, ge=0, description="Beta parameter; 0 is off (Zhang et al. 2018)")
    cutmix: float = Field(0.0, ge=0, description="Beta parameter; 0 is off (Yun et al. 2019)")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.scale is not None and not 0.1 <= self.scale[0] <= self.scale[1] <= 10:
            raise ValueError(f"scale {self.scale} must be (low, high) within 0.1..10")
        if self.policy != "randaugment" and (self.ops is not None or self.magnitude is not None):
            raise ValueError(f"ops and magnitude belong to policy randaugment, not {self.policy or 'the default'}")
        return self


class SizeSpec(Spec):
    """The size of training images from an epoch on."""

    epoch: int = Field(0, ge=0, description="epochs done before")
    scale: float = Field(1.0, gt=0.1, le=1, description="of the edges of preprocess.size")


class EarlyStoppingSpec(Spec):
    """Stop when the metric has not improved for `patience` epochs, counted from the best of the current cycle."""

    patience: int = Field(6, ge=1)
    min_delta: float = Field(0.0, ge=0)


class TrainSpec(Spec):
    """The training loop."""

    epochs: int = Field(40, ge=1, le=10_000)
    batch_size: int = Field(32, ge=2)
    accumulate: int = Field(1, ge=1, description="micro-batches of batch_size per optimizer step")
    optimizer: OptimizerSpec = AdamWOptimizer()
    strategy: StrategySpec = FullStrategy()
    schedule: ScheduleSpec = CosineRestartsSchedule()
    loss: LossSpec = CrossEntropyLoss()
    imbalance: ImbalanceSpec = WeightsImbalance()
    balance_sources: bool = Field(
        False, description="sample each source of merged data equally often, then within a source as set by imbalance"
    )
    augment: AugmentSpec = AugmentSpec()
    progressive: tuple[SizeSpec, ...] = Field(
        (), description="smaller images first; at full size before the first entry, from the last on, and in validation"
    )
    monitor: str = Field("val_loss", description="metric that selects the best epoch and stops early; see metrics.jsonl")
    early_stopping: EarlyStoppingSpec | None = EarlyStoppingSpec()
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay per step of the weights' moving average, which is validated and exported"
    )
    clip_norm: float | None = Field(1.0, gt=0, description="largest gradient norm")
    amp: bool | Literal["auto"] = Field(
        "auto",
        description="autocast: fp16 with scaling on CUDA, bf16 elsewhere; auto: on if faster (measured in fast mode), else off",
    )
    compile: bool = Field(False, description="torch.compile")
    mode: Literal["fast", "deterministic"] = "deterministic"
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads; default: all cores")
    channels_last: bool | Literal["auto"] = Field(
        "auto",
        description="channels-last memory format of images and weights; auto: the faster one (measured in fast mode), else on",
    )
    cache: Literal["auto", "memory_map", "stream"] = Field(
        "auto", description="memory_map: decode once to disk; stream: decode in worker processes; auto: memory_map if it fits"
    )
    cache_limit_gib: float = Field(16.0, gt=0, description="auto: stream if the cache would be larger than this")
    num_workers: int = Field(2, ge=0, description="stream: decoding processes")
    prefetch_factor: int = Field(2, ge=1, description="stream: batches prefetched per worker")
    persistent_workers: bool = Field(True, description="stream: keep workers between epochs")
    checkpoint_minutes: float = Field(3.0, gt=0, description="maximum time between checkpoints within an epoch")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.progressive:
            _rising(self, tuple(size.epoch for size in self.progressive))
            last = self.progressive[-1]
            if last.scale != 1 or last.epoch >= self.epochs:
                raise ValueError(
                    f"progressive must end at scale 1 before epoch {self.epochs}, ends at {last.scale:g} in {last.epoch}"
                )
        return self
