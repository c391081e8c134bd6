"""The state of a training: how it is saved and restored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dermalyze.core.atomic import require_space, sha256_file
from dermalyze.core.progress import say
from dermalyze.core.run import Run
from dermalyze.data.quarantine import Quarantine
from dermalyze.models.classifier import Classifier
from dermalyze.training.checkpoint import Tensors, load_state_pair, require_best, require_same, save_state_pair, settle_best
from dermalyze.training.micro_batches import MicroBatches
from dermalyze.training.optim import Ema

SLACK_BYTES = 2**17  # records, headers, whole disk blocks


@dataclass(frozen=True)
class Learner:
    """Everything that training changes, except its own counts.

    Attributes:
        model, optimizer, scaler: as in training.
        ema: the weights' moving average, or None.
    """

    model: Classifier
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    scaler: torch.amp.GradScaler

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The model with the weights that are validated and exported: their moving average where there is one."""
        with self.ema.swapped(self.model) if self.ema is not None else contextlib.nullcontext():
            yield

    def pack(self) -> tuple[Tensors, dict[str, Any]]:
        """Tensors, and the rest as JSON."""
        tensors, scalars = pack_optimizer(self.optimizer)
        tensors |= prefixed("model", self.model.state_dict())
        if self.ema is not None:
            tensors |= prefixed("ema", self.ema.state_dict())
        return tensors, {"optimizer_scalars": scalars, "scaler": self.scaler.state_dict()}

    def unpack(self, tensors: Tensors, record: dict[str, Any]) -> None:
        """Restore what `pack` returned."""
        self.model.load_state_dict(without_prefix("model", tensors))
        if self.ema is not None:
            self.ema.load_state_dict(without_prefix("ema", tensors))
        unpack_optimizer(self.optimizer, tensors, record["optimizer_scalars"])
        self.scaler.load_state_dict(record["scaler"])

    def disk_bytes(self) -> int:
        """At most what the checkpoints take together: two states kept and one being written, and the best weights."""
        weights = _bytes(self.model.state_dict().values())
        learning = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        moments = 2 * _bytes(learning)  # AdamW's; SGD has one
        state = weights * (2 if self.ema is not None else 1) + moments
        return max(3 * state + weights, 2 * state + 2 * weights) + SLACK_BYTES


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        epoch: epochs that are done.
        group: optimizer steps that are done in the current epoch.
        step: optimizer steps that are done.
        lr: learning rate of the last of them.
        sums: over the current epoch: images, plain loss, right answers, and how many answers the last two are sums of.
        seconds, epoch_seconds: spent in epochs that are done, and in the current one.
        history: the lines of `metrics.jsonl`.
        best, cycle_best, stopped: see `tasks.early_stopping`.
        accepted_leak: the reason a leaking split was accepted for, or None.
    """

    epoch: int = 0
    group: int = 0
    step: int = 0
    lr: float = 0.0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    cycle_best: dict[str, Any] | None = None
    stopped: str | None = None
    accepted_leak: str | None = None


@dataclass
class State:
    """A training as it stands, and as it stands on disk.

    Attributes:
        run: where it is saved.
        experiment: the whole configuration as JSON; a state of another one is refused.
        circumstances: versions and device; on others it is resumed, but no longer bit for bit the same.
        splits_sha256: of the images that are trained and validated on.
        learner, progress: what is saved, with
        micro, quarantine: how many images fit into a pass, and which are left out.
    """

    run: Run
    experiment: dict[str, Any]
    circumstances: Mapping[str, Any]
    splits_sha256: str
    learner: Learner
    micro: MicroBatches
    quarantine: Quarantine
    progress: Progress

    @cached_property
    def identity(self) -> dict[str, str]:
        """What a checkpoint must agree with; asked for only by a training, which gives the run its id."""
        return {
            "run_id": self.run.own_id(),
            "config_sha256": sha256_file(self.run.config_path),
            "manifest_sha256": self.run.manifest_hash(),
            "splits_sha256": self.splits_sha256,
        }

    def require_space(self) -> None:
        """Fail early if the checkpoints do not fit on disk.

        Raises:
            ResourceError: too little space.
        """
        there = sum(path.stat().st_size for path in self.run.checkpoints_dir.iterdir())
        remedy = "free space on that disk, or use a run folder on another one"
        require_space(self.run.checkpoints_dir, self.learner.disk_bytes() - there, "checkpoints", remedy)

    def save(self) -> None:
        """Write it, so that a kill at any moment leaves this state or the one before."""
        tensors, rest = self.learner.pack()
        about = {
            "config": self.experiment,
            "circumstances": self.circumstances,
            "progress": vars(self.progress),
            "halvings": self.micro.halvings,
            "quarantined": self.quarantine.known,
        }
        save_state_pair(self.run, self.progress.step, tensors, {**self.identity, **about, **rest})

    def resume(self) -> None:
        """Restore the newest complete state; nothing happens if training has not started.

        Raises:
            ModelError: it is another run's, or damaged.
        """
        settle_best(self.run)
        saved = load_state_pair(self.run)
        if saved is None:
            return
        tensors, record = saved
        require_same(self.run, record, self.identity, self.experiment)
        then = record["circumstances"]
        changed = [f"{k} {then.get(k)} -> {v}" for k, v in self.circumstances.items() if then.get(k) != v]
        if changed:
            say(f"resuming with other versions or hardware, so results are no longer bit-identical: {', '.join(changed)}")
        self.learner.unpack(tensors, record)
        reason = record["progress"]["accepted_leak"] or self.progress.accepted_leak
        vars(self.progress).update({**record["progress"], "accepted_leak": reason})
        self.micro.halvings = record["halvings"]
        self.quarantine.known.update(record["quarantined"])
        if self.progress.best is not None:
            require_best(self.run)
        if self.progress.stopped is None:
            say(f"resuming at epoch {self.progress.epoch + 1}, step {self.progress.step}")


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[Tensors, dict[str, Any]]:
    """An optimizer's state as tensors and JSON; learning rates are left out (the schedule sets them each step)."""
    state = optimizer.state_dict()["state"]
    tensors = {f"optimizer.{i}.{k}": v for i, slots in state.items() for k, v in slots.items() if isinstance(v, Tensor)}
    scalars = {str(i): {k: v for k, v in slots.items() if not isinstance(v, Tensor)} for i, slots in state.items()}
    return tensors, scalars


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors, scalars: dict[str, Any]) -> None:
    """Inverse of `pack_optimizer`, into an optimizer over the same parameters; memory formats follow the parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {int(i): dict(slots) for i, slots in scalars.items()}
    for name, tensor in without_prefix("optimizer", tensors).items():
        index, slot = name.split(".", 1)
        like = parameters[int(index)]
        state.setdefault(int(index), {})[slot] = torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape else tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    """Names with `prefix.` put before them."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Tensors) -> Tensors:
    """The tensors under `prefix.`, by their names without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(prefix + ".")}
