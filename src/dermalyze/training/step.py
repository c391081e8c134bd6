"""One optimizer step.

The gradient is that of the summed loss of the step's micro-batches, divided by their summed weight: both are sums, so k
micro-batches equal one batch of their union (where no BatchNorm is in play). Everything is queued on the device, which is
waited for once, before the optimizer acts.
"""

# Shapes: B samples of a micro-batch.

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from dermalyze.core.atomic import write_json
from dermalyze.errors import DataError
from dermalyze.imaging.samples import take, with_images
from dermalyze.rng import dropout_seed
from dermalyze.training.augment import augment_images, hide_inputs, mix
from dermalyze.training.setup import Training
from dermalyze.training.warp import resized

Rows = NDArray[np.int64]
Inputs = Mapping[str, Tensor]


def step(training: Training, epoch: int, members: Sequence[Rows], order: Rows, samples: Iterator[Inputs]) -> None:
    """One optimizer step. Where memory runs out it is done again in micro-batches of half the size, from then on.

    Args:
        training: its model, optimizer and sums change.
        epoch: from 0.
        members: positions in `order` of each batch of the step.
        order: which training image each draw of the epoch takes.
        samples: gives the batches, in order.
    """
    settings, state = training.specs.train, training.state
    model, optimizer, scaler, ema = state.learner.model, state.learner.optimizer, state.learner.scaler, state.learner.ema
    drawn = [next(samples) for _ in members]
    if state.quarantine.note(training.loader.bad):
        state.save()  # first, so that whoever resumes leaves out the same images from the same step on
    sums = state.micro.fitting(lambda: gradient(training, epoch, cut(training, epoch, members, order, drawn)), state.save)
    norm = get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    if settings.clip_norm is not None:
        clip_grads_with_norm_(model.parameters(), settings.clip_norm, norm)
    loss, *figures, norm_now = torch.cat([sums, norm.to(sums)[None]]).tolist()  # the one wait for the device
    if not math.isfinite(loss):
        raise diverged(training, "loss", loss, epoch, members, order, drawn)
    if training.runtime.precision != "fp16" and not math.isfinite(norm_now):  # the scaler skips such a step
        raise diverged(training, "gradient norm", norm_now, epoch, members, order, drawn)
    scaler.step(optimizer)
    scaler.update()
    if ema is not None:
        ema.update(model)
    seen = [float(sum(map(len, members))), *figures]
    state.progress.sums = [sum(pair) for pair in zip(state.progress.sums, seen, strict=True)]


@dataclass(frozen=True)
class MicroBatch:
    """Samples that go through the network at once.

    Attributes:
        positions_B: draw positions in the epoch, the address of their random numbers.
        inputs: by name, as they are stored.
        labels: as of the task.
    """

    positions_B: Rows
    inputs: Inputs
    labels: Rows


def cut(training: Training, epoch: int, members: Sequence[Rows], order: Rows, drawn: Sequence[Inputs]) -> list[MicroBatch]:
    """The micro-batches of a step, with stand-ins for images that can no longer be read."""
    rows, labels, quarantine = training.rows["train"], training.labels["train"], training.state.quarantine
    micro_batches = []
    for positions, raw in zip(members, drawn, strict=True):
        taken = quarantine.stand_ins(rows[order[positions]])
        inputs = take(raw, torch.from_numpy(taken)) if quarantine.known else raw
        images = order[positions][taken]
        for part in training.state.micro.parts(len(positions)):
            micro_batches.append(MicroBatch(positions[part], take(inputs, part), labels[images[part]]))
    return micro_batches


def gradient(training: Training, epoch: int, micro_batches: Sequence[MicroBatch]) -> Tensor:
    """Leave the gradient of a step in the parameters.

    Returns:
        (4,) on the device: mean loss; plain loss and right answers (under augmentation), summed; how many answers.
    """
    objective, scaler = training.objective, training.state.learner.scaler
    weight = sum(objective.weight(batch.labels) for batch in micro_batches) or 1.0  # 0: labels are missing, nothing to learn
    training.state.learner.optimizer.zero_grad(set_to_none=True)
    sums = torch.zeros(4, device=training.runtime.device)
    for batch in micro_batches:
        torch.manual_seed(dropout_seed(training.specs.seed, epoch, int(batch.positions_B[0])))
        target = objective.target(batch.labels).to(sums.device, non_blocking=True)
        inputs, mixed = augmented(training, epoch, batch, target)
        with training.runtime.autocast():
            logits = training.forward(inputs)
        loss = objective.loss(logits.float(), mixed)[0] / weight
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        sums += torch.cat([loss.detach()[None], objective.figures(logits.detach().float(), target)])
    scaler.unscale_(training.state.learner.optimizer)
    return sums


def augmented(training: Training, epoch: int, batch: MicroBatch, target: Tensor) -> tuple[Inputs, Tensor]:
    """A micro-batch as the network takes it, on the device, and its targets, blended by mixup alike."""
    spec, positions_B = training.specs.augment, batch.positions_B
    address: dict[str, Any] = {"seed": training.specs.seed, "epoch": epoch}
    encoder = training.metadata.encoder
    kept = hide_inputs(batch.inputs, training.hide, encoder=encoder, positions_B=positions_B, **address)
    moved = {name: values.to(target.device, non_blocking=True) for name, values in kept.items()}
    small = with_images(moved, lambda images: resized(images, training.size(epoch)))
    changed = augment_images(small, spec, positions_B=positions_B, **address)
    inputs, target = mix(changed, target, spec, step=int(positions_B[0]), **address)
    return training.inputs(inputs), target


def diverged(
    training: Training, what: str, value: float, epoch: int, members: Sequence[Rows], order: Rows, drawn: Sequence[Inputs]
) -> DataError:
    """Why training stops before a bad step; the images of the batch are noted."""
    run, done = training.run, training.state.progress.step
    ids = [training.image_ids[row] for row in training.rows["train"][order[np.concatenate(members)]]]
    write_json(run.diverged_path, {"epoch": epoch + 1, "step": done, "what": what, "image_ids": ids})
    cause = "weights or learning rate"
    for batch in cut(training, epoch, members, order, drawn):
        inputs, _ = augmented(training, epoch, batch, training.mean.new_zeros(len(batch.labels)))
        if not all(torch.isfinite(values).all() for values in inputs.values()):
            cause = "an input image is not finite (check preprocess.std)"
    return DataError(
        f"{what} is {value} at epoch {epoch + 1}, step {done + 1}: stopped before the optimizer step; "
        f"cause: {cause}; the batch is in {run.diverged_path.name}, the last good checkpoint is kept; "
        "lower train.optimizer.lr and use a new run"
    )
