"""The training loop, from top to bottom: epochs of steps, validation, the best weights, the state."""

# Shapes: N images of the validation split, C classes or labels.

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dermalyze.core.atomic import write_json, write_text
from dermalyze.core.progress import progress, say
from dermalyze.core.run import read_json
from dermalyze.data.loader import balanced_batches
from dermalyze.errors import DataError, InterruptedRunError
from dermalyze.imaging.samples import size_of, take, with_images
from dermalyze.tasks.early_stopping import compare_epoch
from dermalyze.training.checkpoint import save_best
from dermalyze.training.imbalance import draw_order
from dermalyze.training.log import columns, cost_line, epoch_line, log_scalars
from dermalyze.training.optim import set_lr
from dermalyze.training.schedules import cycle_start, lr_at
from dermalyze.training.setup import Training
from dermalyze.training.step import step

Rows = NDArray[np.int64]


def fit(training: Training) -> None:
    """Train to the end, from where the run's newest state left off.

    Raises:
        DataError: the loss or a gradient is not finite, the monitored metric is undefined, or too many images vanished.
        ModelError: checkpoints are refused.
        ResourceError: a checkpoint cannot be written, or a pass of the fewest images does not fit into memory.
        InterruptedRunError: a signal came; the state is saved.
    """
    run, state = training.run, training.state
    state.resume()
    if state.progress.stopped is None:
        state.require_space()
    try:
        while state.progress.stopped is None:
            train_epoch(training, state.progress.epoch)
            close_epoch(training, validate(training, state.progress.epoch))
    finally:
        training.loader.close()
    write_json(run.history_path, columns(state.progress.history))
    if (late := read_json(run.best_record_path)["late_fusion"]) is not None:
        say(
            f"late fusion: metadata have weight {late['strength']:g}; log loss of the validation split "
            f"{late['val_log_loss']:.4f}, by images alone {late['val_log_loss_image_alone']:.4f}"
        )


def train_epoch(training: Training, epoch: int) -> None:
    """The steps of an epoch (from 0) that are still to do."""
    settings, state = training.specs.train, training.state
    now = state.progress
    order = draw_order(
        settings.imbalance, training.labels["train"], seed=training.specs.seed, epoch=epoch, classes=training.classes,
        sources_N=training.sources_N,
    )  # fmt: skip
    positions = balanced_batches(np.arange(len(order)), settings.batch_size)
    steps_per_epoch = -(-len(positions) // settings.accumulate)
    total_steps = steps_per_epoch * settings.epochs
    todo = positions[now.group * settings.accumulate :]
    images = training.loader.batches([training.rows["train"][order[batch]] for batch in todo])
    training.plan.enter(epoch)
    started = saved = time.monotonic()
    spent = now.epoch_seconds
    with contextlib.closing(images), progress(f"epoch {epoch + 1}/{settings.epochs}", len(order)) as advance:
        advance(len(order) - sum(map(len, todo)))
        for group in range(now.group, steps_per_epoch):
            members = positions[group * settings.accumulate : (group + 1) * settings.accumulate]
            lr = lr_at(
                settings.schedule, now.step, steps_per_epoch=steps_per_epoch, total_steps=total_steps,
                lr=settings.optimizer.lr,
            )  # fmt: skip
            set_lr(state.learner.optimizer, lr)
            step(training, epoch, members, order, images)
            now.group, now.step, now.lr = group + 1, now.step + 1, lr
            advance(sum(map(len, members)))
            clock = time.monotonic()
            now.epoch_seconds = spent + clock - started
            if now.step == min(10, steps_per_epoch):
                say_cost(training, now.epoch_seconds / now.step * total_steps)
            if training.request.signal:
                stop(training)
            if clock - saved > settings.checkpoint_minutes * 60:
                state.save()
                saved = clock


@dataclass(frozen=True)
class Validation:
    """Result of a validation.

    Attributes:
        record: the epoch's line of `metrics.jsonl`.
        rows_N, labels, logits_NC: images of the validation split that could be read.
    """

    record: dict[str, Any]
    rows_N: Rows
    labels: Rows
    logits_NC: NDArray[np.float64]


def validate(training: Training, epoch: int) -> Validation:
    """Training sums and metrics of the validation split, by the averaged weights where there are any."""
    state, task = training.state, training.task
    logits = state.micro.fitting(lambda: validation_logits(training))
    if training.request.signal:  # only here: until now the model may have held the averaged weights
        stop(training)
    state.quarantine.note(training.loader.bad)
    kept = state.quarantine.good(training.rows["val"])
    if not np.isfinite(logits).all():
        raise DataError(
            f"validation logits are not finite after epoch {epoch + 1}; lower train.optimizer.lr; the best so far is kept"
        )
    labels, logits = training.labels["val"][kept], logits[kept]
    measured = task.measure(labels, task.probabilities(logits))
    images, loss, right, answers = state.progress.sums
    seconds = state.progress.epoch_seconds
    record = {
        "epoch": epoch + 1,
        "train_loss": loss / answers,
        "train_accuracy": right / answers,
        "val_loss": measured["log_loss"],
        **{name: measured[name.removeprefix("val_")] for name in task.monitors if name != "val_loss"},
        "lr": state.progress.lr,
        "seconds": round(seconds, 3),
        "images_per_s": round(images / max(seconds, 1e-9), 1),
        "micro_batch": state.micro.size,
        "quarantined": len(state.quarantine.known),
    }
    return Validation(record, training.rows["val"][kept], labels, logits)


@torch.no_grad()
def validation_logits(training: Training) -> NDArray[np.float64]:
    """(N, C) of the validation split; fewer rows where a signal came."""
    rows, device = training.rows["val"], training.runtime.device
    batches = np.array_split(rows, -(-len(rows) // (2 * training.specs.train.batch_size)))
    outputs, largest = [], np.iinfo(training.preprocessing.dtype).max
    training.model.eval()
    with training.state.learner.averaged():
        for raw in training.loader.batches(list(batches)):
            for part in training.state.micro.parts(size_of(raw)):
                batch = {name: values.to(device) for name, values in take(raw, part).items()}
                pixels = with_images(batch, lambda images: images.permute(0, 3, 1, 2).float().div_(largest))
                outputs.append(training.model(training.inputs(pixels)).float().cpu())
            if training.request.signal:
                break
    return np.asarray(torch.cat(outputs).double().numpy())


def close_epoch(training: Training, validation: Validation) -> None:
    """Note the epoch, keep the best weights, decide whether to stop, save."""
    run, settings, state, record = training.run, training.specs.train, training.state, validation.record
    now = state.progress
    now.history.append(record)
    now.seconds += now.epoch_seconds
    value = record[settings.monitor]
    if value is None:
        raise DataError(f"{settings.monitor} is not estimable on the validation split (a class is absent); monitor val_loss")
    done, patience, starts = record["epoch"], settings.early_stopping, [0, *training.changes]
    verdict = compare_epoch(
        vars(now), epoch=done, epochs=settings.epochs, value=value, sign=training.task.monitors[settings.monitor],
        start=max(cycle_start(settings.schedule, done - 1), *(start for start in starts if start < done)),
        planned=any(start >= done for start in starts),
        patience=patience.patience if patience else None, min_delta=patience.min_delta if patience else 0.0,
    )  # fmt: skip
    vars(now).update(verdict)
    best = verdict["best"]["epoch"] == done
    if best:
        keep_best(training, validation)
    now.epoch, now.group, now.sums, now.epoch_seconds = done, 0, [0.0] * 4, 0.0
    write_text(run.metrics_path, "".join(json.dumps(line) + "\n" for line in now.history))
    state.save()
    say(epoch_line(record, epochs=settings.epochs, best=best))
    log_scalars(run, record)
    if training.request.signal and now.stopped is None:
        stop(training, save=False)


def keep_best(training: Training, validation: Validation) -> None:
    """Save the weights that were validated, and what they are of."""
    state, settings, record = training.state, training.specs.train, validation.record
    about = {
        "classes": training.classes,
        "preprocessing": training.preprocessing.as_dict(),
        "model": training.specs.model.model_dump(mode="json"),
        "epoch": record["epoch"],
        "metric": settings.monitor,
        "value": record[settings.monitor],
        "seed": training.specs.seed,
        "accepted_leak": state.progress.accepted_leak,
        "micro_batch": state.micro.size,
        "quarantined": list(state.quarantine.known),
    }
    rows, labels, logits = validation.rows_N, validation.labels, validation.logits_NC
    with state.learner.averaged(), training.metadata.with_late_fusion(training.model, rows, logits, labels) as more:
        save_best(training.run, training.model, {**about, **more, **state.identity})


def stop(training: Training, *, save: bool = True) -> None:
    """Stop after a signal."""
    if save:
        training.state.save()
    raise InterruptedRunError(
        f"{training.request.signal}: state saved at step {training.state.progress.step}; "
        f"resume with: dermalyze train {training.run.root}"
    )


def say_cost(training: Training, seconds: float) -> None:
    """What the whole training will cost, after its first steps."""
    parameters = sum(p.numel() for p in training.model.parameters() if p.requires_grad)
    counts = (len(training.rows["train"]), len(training.rows["val"]), parameters)
    disk = training.state.learner.disk_bytes()
    say(cost_line(*counts, training.runtime.device, training.runtime.precision, seconds, disk))
    if training.changes:
        later = ", ".join(str(start + 1) for start in training.changes)
        say(f"at the current rate; from epoch {later} on more layers train or the images grow, which takes longer")
