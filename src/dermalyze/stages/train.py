"""The training loop, from top to bottom."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dermalyze.config.experiment import ExperimentSpec
from dermalyze.config.model import ConcatFusion
from dermalyze.core.atomic import require_space, sha256_bytes, sha256_file, write_json, write_text
from dermalyze.core.progress import progress, say
from dermalyze.core.run import Run, read_json
from dermalyze.core.runtime import Runtime, StopRequest, applied, out_of_memory, stop_on_signals
from dermalyze.data.loader import balanced_batches, open_loader
from dermalyze.data.manifest import read_classes, source_codes
from dermalyze.data.metadata import fit_rows
from dermalyze.data.quarantine import Quarantine
from dermalyze.data.second import require_second, seconds_of
from dermalyze.data.splitting import read_division, require_no_leak
from dermalyze.errors import ConfigError, DataError, InterruptedRunError, ModelError, ResourceError, UsageError, nearest
from dermalyze.imaging.cases import statistics
from dermalyze.imaging.decode import Preprocessing
from dermalyze.models.backbones import pretrained_cfg_of
from dermalyze.models.classifier import Classifier, build_classifier, check_input
from dermalyze.report.training import columns, cost_line, epoch_line, log_scalars
from dermalyze.rng import dropout_seed
from dermalyze.tasks.base import TASKS
from dermalyze.tasks.early_stopping import judge_epoch
from dermalyze.training.augment import augment_cases, mix
from dermalyze.training.autotune import asked_runtime, fastest_runtime
from dermalyze.training.checkpoint import (
    Learner,
    load_state_pair,
    require_best,
    require_same,
    save_best,
    save_state_pair,
    settle_best,
)
from dermalyze.training.imbalance import draw_order
from dermalyze.training.metadata import Known
from dermalyze.training.micro_batches import OUT_OF_MEMORY, MicroBatches
from dermalyze.training.objective import build_objective
from dermalyze.training.optim import Ema, build_optimizer, set_lr
from dermalyze.training.schedules import cycle_start, lr_at
from dermalyze.training.transfer import Plan
from dermalyze.training.warp import resized


@dataclass(frozen=True)
class TrainResult:
    """What training came to.

    Attributes:
        epochs: epochs trained.
        best_epoch: epoch of the best weights, from 1.
        monitor: the metric that chose it.
        value: its value then.
        stopped: "epochs" (all done) or "early".
        seconds: time spent in training, all sessions.
        micro_batch: images a pass; fewer than `train.batch_size` where memory ran out.
        quarantined: images that could no longer be read while training streamed them.
        accepted_leak: the reason a leaking split was accepted for, or None.
    """

    epochs: int
    best_epoch: int
    monitor: str
    value: float
    stopped: str
    seconds: float
    micro_batch: int
    quarantined: int
    accepted_leak: str | None

    def as_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def lines(self) -> list[str]:
        how = "stopped early" if self.stopped == "early" else "all epochs done"
        line = f"trained {self.epochs} epochs in {self.seconds / 60:.1f} min ({how}); "
        lines = [line + f"best epoch {self.best_epoch}: {self.monitor} {self.value:.4f}"]
        if self.quarantined:
            lines.append(f"{self.quarantined} images could no longer be read and were left out from then on")
        return lines + ([f"LEAK ACCEPTED: {self.accepted_leak}"] if self.accepted_leak else [])


def train(run: Run, spec: ExperimentSpec, *, resume: Path | None = None, accept_leak: str | None = None) -> TrainResult:
    """Train the run's network; called again after an interruption, it goes on exactly where it stopped.

    Args:
        run: a run that has been prepared and split.
        spec: its experiment.
        resume: the run's folder or one of its checkpoints, for those who want to name it; it must be this run's.
        accept_leak: go on although the split leaks, for this reason, which then stands on every result.

    Raises:
        LeakError: the split leaks and no reason is given.
        UsageError: `resume` is not there, or another process works in the run.
        ConfigError: unknown metric to monitor.
        DataError: the loss or a gradient is not finite, or too many images changed or vanished.
        ModelError: weights or checkpoints are refused.
        ResourceError: the folder cannot be written, no disk, no memory, no such device, a decoder killed twice.
        InterruptedRunError: a signal came; the state is saved.
    """
    monitors = TASKS[spec.task.kind].monitors
    if spec.train.monitor not in monitors:
        hint = nearest(spec.train.monitor, list(monitors))
        raise ConfigError(f"train.monitor: '{spec.train.monitor}' is not one of {', '.join(monitors)}{hint}")
    with run.lock():
        reason = require_no_leak(run, accept_leak)
        if resume is not None and not resume.exists():
            raise UsageError(f"--resume {resume.name}: is not there; leave the option out to go on with the newest state")
        if resume is not None and run.root.resolve() not in (resume.resolve(), *resume.resolve().parents):
            raise ModelError(f"--resume {resume.name}: belongs to another run; continue it with: dermalyze train ITS_RUN")
        run.require_writable(run.checkpoints_dir)
        run.sweep()
        runtime = settled_runtime(run, spec)
        with applied(runtime), stop_on_signals() as request:
            try:
                return Training(run, spec, runtime, reason, request).fit()
            except (MemoryError, RuntimeError, OSError) as error:
                if not out_of_memory(error):
                    raise
                raise ResourceError(f"out of memory: {str(error)[:200]}; {OUT_OF_MEMORY}") from error


def settled_runtime(run: Run, spec: ExperimentSpec) -> Runtime:
    """The runtime of a training: as asked; in fast mode what is left at `auto` is measured once and recorded in the run."""
    runtime = asked_runtime(spec)
    if runtime.deterministic:
        return runtime
    config = pretrained_cfg_of(spec.model)
    p = Preprocessing.resolve(spec.preprocess, size=config.size, mean=config.mean, std=config.std)
    return fastest_runtime(run, spec, runtime, classes=len(read_classes(run)), size=(p.height, p.width))


class Training:
    """Everything the loop holds on to."""

    def __init__(self, run: Run, spec: ExperimentSpec, runtime: Runtime, reason: str | None, request: StopRequest) -> None:
        self.run, self.spec, self.settings, self.runtime, self.request = run, spec, spec.train, runtime, request
        self.classes, task = read_classes(run), TASKS[spec.task.kind]
        frame, parts = read_division(run)
        config = pretrained_cfg_of(spec.model)
        self.preprocessing = Preprocessing.resolve(spec.preprocess, size=config.size, mean=config.mean, std=config.std)
        self.rows: dict[str, NDArray[np.int64]] = {}
        self.labels: dict[str, NDArray[np.int64]] = {}
        for part in ("train", "val"):
            rows = np.flatnonzero(parts == part)
            if len(rows) < 2:
                raise DataError(f"the {part} part holds {len(rows)} images; at least 2 are needed; split again")
            self.rows[part] = rows.astype(np.int64)
            self.labels[part] = task.targets(frame["label"].iloc[rows].tolist(), self.classes)
        self.image_ids = frame["image_id"].tolist()
        total, limit = sum(map(len, self.rows.values())), spec.data.max_bad_fraction
        self.quarantine = Quarantine(self.image_ids, total=total, limit=limit, known={})
        images = list(zip(self.image_ids, frame["path"], frame["sha256"], strict=True))
        self.second = spec.model.second
        require_second(frame.iloc[self.rows["train"]], spec.model, what="the training part")
        self.loader = open_loader(
            spec.data, self.settings, images, self.preprocessing, pin=runtime.device == "cuda", check=self._check_before_start,
            seconds=seconds_of(frame) if self.second is not None else None,
        )  # fmt: skip
        self.sources = source_codes(frame["source"].iloc[self.rows["train"]]) if spec.train.balance_sources else None

        self.known = Known(
            fit_rows(frame, spec.model, self.rows["train"]), spec.model.metadata.fusion if spec.model.metadata else None,
            seed=spec.seed, rows=self.rows["train"], labels=self.labels["train"], classes=len(self.classes),
        )  # fmt: skip
        torch.manual_seed(spec.seed)
        model = build_classifier(spec.model, len(self.classes), load_weights=True, encoder=self.known.encoder)
        check_input(model, self.preprocessing.height, self.preprocessing.width)
        for size in self.settings.progressive:
            try:
                check_input(model, *self._size(size.epoch))
            except ModelError as error:
                raise ModelError(f"train.progressive: {error}; or raise scale {size.scale:g}") from error
        self.model: Classifier = model.to(runtime.device, memory_format=runtime.memory_format)  # type: ignore[call-overload]
        kind = self.settings.strategy.kind
        if kind in ("frozen", "last", "gradual") and not (spec.model.pretrained or spec.model.weights):
            say(f"train.strategy {kind} keeps random weights; give model.weights or model.pretrained: true")
        self.plan = Plan(self.model, self.settings.strategy, epochs=self.settings.epochs)
        self.changes = sorted({*self.plan.starts, *(size.epoch for size in self.settings.progressive if size.epoch)})
        if isinstance(self.known.fusion, ConcatFusion):
            say("model.metadata: the concat fusion has layers of its own in place of model.head")
        self.optimizer = build_optimizer(self.model, self.settings.optimizer, self.plan.paces)
        self.ema = Ema(self.model, self.settings.ema) if self.settings.ema else None
        self.scaler = torch.amp.GradScaler(runtime.device, enabled=runtime.precision == "fp16")
        self.micro = MicroBatches(self.settings.batch_size, self.model)
        self.learner = Learner(self.model, self.optimizer, self.ema, self.scaler)
        self.forward: Callable[..., Tensor] = torch.compile(self.model) if self.settings.compile else self.model
        self.objective = build_objective(
            task, self.settings, self.labels["train"], self.classes, sources=self.sources, device=runtime.device
        )
        planes = self.preprocessing.mean, self.preprocessing.std
        mean, std = planes if self.second is None else statistics(*planes)
        self.mean = torch.tensor(mean, device=runtime.device).view(1, -1, 1, 1)
        self.std = torch.tensor(std, device=runtime.device).view(1, -1, 1, 1)

        # of the last epoch's validation, and which of its images these are of
        nothing = np.zeros((0, len(self.classes))), np.zeros(len(self.rows["val"]), dtype=bool)
        self.val_logits: tuple[NDArray[np.float64], NDArray[np.bool_]] = nothing
        self.circumstances = {
            "dermalyze": importlib.metadata.version("dermalyze"),
            "torch": torch.__version__,
            "numpy": np.__version__,
            **runtime.as_dict(),
        }
        self.progress: dict[str, Any] = {
            "epoch": 0, "group": 0, "step": 0, "sums": [0.0, 0.0, 0.0], "seconds": 0.0, "epoch_seconds": 0.0,
            "history": [], "best": None, "cycle_best": None, "stopped": None, "accepted_leak": reason,
        }  # fmt: skip

    @cached_property
    def identity(self) -> dict[str, str]:
        """What a checkpoint must agree with; asked for only by a training, which gives the run its id."""
        return {
            "run_id": self.run.own_id(),
            "config_sha256": sha256_file(self.run.config_path),
            "manifest_sha256": self.run.manifest_hash(),
            "splits_sha256": sha256_bytes(b"".join(self.rows[part].tobytes() for part in ("train", "val"))),
        }

    # -- the loop ----------------------------------------------------------------------------------------------
    def fit(self) -> TrainResult:
        self._restore()
        state = self.progress
        if state["stopped"] is None:
            self._require_space()
        try:
            while state["stopped"] is None:
                self._train_epoch(state["epoch"])
                record = self._validate(state["epoch"])
                self._close_epoch(record)
        finally:
            self.loader.close()
        write_json(self.run.history_path, columns(state["history"]))
        best = state["best"]
        if (late := read_json(self.run.best_record_path)["late_fusion"]) is not None:
            say(
                f"late fusion: metadata count with weight {late['strength']:g}; log loss of the validation part "
                f"{late['val_log_loss']:.4f}, by images alone {late['val_log_loss_image_alone']:.4f}"
            )
        return TrainResult(
            len(state["history"]), best["epoch"], self.settings.monitor, best["value"], state["stopped"],
            state["seconds"], self.micro.size, len(self.quarantine.known), state["accepted_leak"],
        )  # fmt: skip

    def _train_epoch(self, epoch: int) -> None:
        settings, state = self.settings, self.progress
        order = draw_order(
            settings.imbalance, self.labels["train"], seed=self.spec.seed, epoch=epoch, classes=self.classes,
            sources_N=self.sources,
        )  # fmt: skip
        positions = balanced_batches(np.arange(len(order)), settings.batch_size)
        steps_per_epoch = -(-len(positions) // settings.accumulate)
        total_steps = steps_per_epoch * settings.epochs
        todo = positions[state["group"] * settings.accumulate :]
        images = self.loader.batches([self.rows["train"][order[batch]] for batch in todo])
        self.plan.enter(epoch)
        started = saved = time.monotonic()
        spent = state["epoch_seconds"]
        with contextlib.closing(images), progress(f"epoch {epoch + 1}/{settings.epochs}", len(order)) as advance:
            advance(len(order) - sum(map(len, todo)))
            for group in range(state["group"], steps_per_epoch):
                members = positions[group * settings.accumulate : (group + 1) * settings.accumulate]
                lr = lr_at(
                    settings.schedule, state["step"], steps_per_epoch=steps_per_epoch, total_steps=total_steps,
                    lr=settings.optimizer.lr,
                )  # fmt: skip
                set_lr(self.optimizer, lr)
                self.step(epoch, members, order, images)
                state["group"], state["step"], state["lr"] = group + 1, state["step"] + 1, lr
                advance(sum(map(len, members)))
                now = time.monotonic()
                state["epoch_seconds"] = spent + now - started
                if state["step"] == min(10, steps_per_epoch):
                    self._say_cost(state["epoch_seconds"] / state["step"] * total_steps)
                if self.request.signal:
                    self._stop()
                if now - saved > settings.checkpoint_minutes * 60:
                    self._save()
                    saved = now

    def step(self, epoch: int, members: list[NDArray[np.int64]], order: NDArray[np.int64], images: Iterator[Tensor]) -> None:
        """One optimizer step. Where memory runs out it is done again in micro-batches of half the size, from then on."""
        drawn = [next(images) for _ in members]
        if self.quarantine.note(self.loader.bad):
            self._save()  # first, so that whoever goes on leaves out the same images from the same step on
        sums = self.micro.fitting(lambda: self._gradient(epoch, members, order, drawn), self._save)
        if self.settings.clip_norm is not None:
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
            if self.runtime.precision != "fp16" and not math.isfinite(norm.item()):
                self._diverged("gradient norm", norm.item(), epoch, members, order)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.model)
        self.progress["sums"] = [sum(pair) for pair in zip(self.progress["sums"], sums, strict=True)]

    def _gradient(
        self, epoch: int, members: list[NDArray[np.int64]], order: NDArray[np.int64], drawn: list[Tensor]
    ) -> list[float]:
        """The gradient of one step, summed over its micro-batches; each counts by its share of the class weights, so that k
        micro-batches equal one batch of their union (where no BatchNorm is in play).

        Returns:
            Images, summed plain loss, right answers (under augmentation).
        """
        spec, device = self.spec, self.runtime.device
        pieces = []
        for batch, raw in zip(members, drawn, strict=True):
            taken = self.quarantine.stand_ins(self.rows["train"][order[batch]])
            label = torch.from_numpy(self.labels["train"][order[batch][taken]])
            whole = raw[taken] if self.quarantine.known else raw
            known = self.known.learned(epoch, batch, self.rows["train"][order[batch][taken]])
            pieces += [(batch[part], whole[part], label[part], known[part]) for part in self.micro.parts(len(batch))]
        shares = [self.objective.share(label) for _, _, label, _ in pieces]
        sums = [0.0, 0.0, 0.0]
        self.optimizer.zero_grad(set_to_none=True)
        for (batch, raw, label, known), share in zip(pieces, shares, strict=True):
            torch.manual_seed(dropout_seed(spec.seed, epoch, int(batch[0])))
            small = resized(raw.to(device, non_blocking=True), self._size(epoch))
            hide = self.second.hide if self.second is not None else 0.0
            pixels = augment_cases(small, self.settings.augment, seed=spec.seed, epoch=epoch, positions_B=batch, hide=hide)
            target = torch.cat([self.objective.target(label), known], dim=1).to(device)
            pixels, target = mix(pixels, target, self.settings.augment, seed=spec.seed, epoch=epoch, step=int(batch[0]))
            target, metadata = target[:, : len(self.classes)], target[:, len(self.classes) :]
            inputs = ((pixels - self.mean) / self.std).contiguous(memory_format=self.runtime.memory_format)
            with self.runtime.autocast():
                logits = self.forward(inputs, metadata if known.shape[1] else None)
            loss = self.objective.loss(logits.float(), target) * (share / sum(shares))
            if not math.isfinite(loss.item()):
                self._diverged("loss", loss.item(), epoch, members, order, inputs)
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            plain, right = self.objective.figures(logits.detach().float(), label.to(device))
            sums[0] += len(label)
            sums[1] += plain
            sums[2] += right
        self.scaler.unscale_(self.optimizer)
        return sums

    def _size(self, epoch: int) -> tuple[int, int]:
        """Height and width of training images in an epoch (0-based)."""
        scale = next((size.scale for size in reversed(self.settings.progressive) if size.epoch <= epoch), 1.0)
        return round(self.preprocessing.height * scale), round(self.preprocessing.width * scale)

    def _validate(self, epoch: int) -> dict[str, Any]:
        """The epoch's line: training sums and metrics of the validation part, by the averaged weights where there are any."""
        state = self.progress
        logits = self.micro.fitting(self._validation_logits)
        if self.request.signal:  # only here: until now the model may have held the averaged weights
            self._stop()
        self.quarantine.note(self.loader.bad)
        kept = self.quarantine.good(self.rows["val"])
        if not torch.isfinite(logits).all():
            raise DataError(
                f"validation logits are not finite after epoch {epoch + 1}; lower train.optimizer.lr; the best so far is kept"
            )
        self.val_logits = logits.numpy()[kept], kept
        measured = self.objective.measure(self.labels["val"][kept], logits[torch.from_numpy(kept)])
        images, loss, right = state["sums"]
        seconds = state["epoch_seconds"]
        return {
            "epoch": epoch + 1,
            "train_loss": loss / images,
            "train_accuracy": right / images,
            "val_loss": measured["log_loss"],
            **{name: measured[name.removeprefix("val_")] for name in self.objective.task.monitors if name != "val_loss"},
            "lr": state["lr"],
            "seconds": round(seconds, 3),
            "images_per_s": round(images / max(seconds, 1e-9), 1),
            "micro_batch": self.micro.size,
            "quarantined": len(self.quarantine.known),
        }

    @torch.no_grad()
    def _validation_logits(self) -> Tensor:
        """(N, C) of the validation part; fewer rows where a signal came."""
        batches = np.array_split(self.rows["val"], -(-len(self.rows["val"]) // (2 * self.settings.batch_size)))
        self.model.eval()
        outputs = []
        averaged = self.ema.swapped(self.model) if self.ema is not None else contextlib.nullcontext()
        with averaged:
            for raw, rows in zip(self.loader.batches(list(batches)), batches, strict=True):
                for part in self.micro.parts(len(raw)):
                    pixels = raw[part].to(self.runtime.device).permute(0, 3, 1, 2).float().div_(255)
                    inputs = ((pixels - self.mean) / self.std).contiguous(memory_format=self.runtime.memory_format)
                    known = self.known.of(rows[part])
                    outputs.append(self.model(inputs, None if known is None else known.to(inputs.device)).float().cpu())
                if self.request.signal:
                    break
        return torch.cat(outputs).double()

    def _close_epoch(self, record: dict[str, Any]) -> None:
        """Note the epoch, keep the best, decide whether to stop, save."""
        state, settings = self.progress, self.settings
        state["history"].append(record)
        state["seconds"] += state["epoch_seconds"]
        value = record[settings.monitor]
        if value is None:
            raise DataError(f"{settings.monitor} is not estimable on the validation part (a class is absent); monitor val_loss")
        done, patience, starts = record["epoch"], settings.early_stopping, [0, *self.changes]
        judged = judge_epoch(
            state, epoch=done, epochs=settings.epochs, value=value, sign=self.objective.task.monitors[settings.monitor],
            start=max(cycle_start(settings.schedule, done - 1), *(start for start in starts if start < done)),
            planned=any(start >= done for start in starts),
            patience=patience.patience if patience else None, min_delta=patience.min_delta if patience else 0.0,
        )  # fmt: skip
        state.update(judged)
        if judged["best"]["epoch"] == done:
            self._save_best(record)
        state.update(epoch=record["epoch"], group=0, sums=[0.0, 0.0, 0.0], epoch_seconds=0.0)
        write_text(self.run.metrics_path, "".join(json.dumps(line) + "\n" for line in state["history"]))
        self._save()
        say(epoch_line(record, epochs=settings.epochs, best=state["best"]["epoch"] == done))
        log_scalars(self.run, record)
        if self.request.signal and state["stopped"] is None:
            self._stop(save=False)

    # -- saving and going on -----------------------------------------------------------------------------------
    def _require_space(self) -> None:
        there = sum(path.stat().st_size for path in self.run.checkpoints_dir.iterdir())
        remedy = "free space on that disk, or use a run folder on another one"
        require_space(self.run.checkpoints_dir, self.learner.disk_bytes() - there, "checkpoints", remedy)

    def _save_best(self, record: dict[str, Any]) -> None:
        averaged = self.ema.swapped(self.model) if self.ema is not None else contextlib.nullcontext()
        about = {
            "classes": self.classes,
            "preprocessing": self.preprocessing.as_dict(),
            "model": self.spec.model.model_dump(mode="json"),
            "epoch": record["epoch"],
            "metric": self.settings.monitor,
            "value": record[self.settings.monitor],
            "seed": self.spec.seed,
            "accepted_leak": self.progress["accepted_leak"],
            "micro_batch": self.micro.size,
            "quarantined": list(self.quarantine.known),
        }
        logits, kept = self.val_logits
        with averaged, self.known.fused(self.model, self.rows["val"][kept], logits, self.labels["val"][kept]) as more:
            save_best(self.run, self.model, {**about, **more, **self.identity})

    def _save(self) -> None:
        tensors, rest = self.learner.pack()
        about = {
            "config": self.spec.model_dump(mode="json"),
            "circumstances": self.circumstances,
            "progress": self.progress,
            "halvings": self.micro.halvings,
            "quarantined": self.quarantine.known,
        }
        save_state_pair(self.run, self.progress["step"], tensors, {**self.identity, **about, **rest})

    def _restore(self) -> None:
        settle_best(self.run)
        found = load_state_pair(self.run)
        if found is None:
            return
        tensors, record = found
        require_same(self.run, record, self.identity, self.spec.model_dump(mode="json"))
        then = record["circumstances"]
        changed = [f"{k} {then.get(k)} -> {v}" for k, v in self.circumstances.items() if then.get(k) != v]
        if changed:
            say(f"resuming under other circumstances, so no longer bit for bit the same: {', '.join(changed)}")
        self.learner.unpack(tensors, record)
        reason = self.progress["accepted_leak"]
        self.progress |= {**record["progress"], "accepted_leak": record["progress"]["accepted_leak"] or reason}
        self.micro.halvings = record["halvings"]
        self.quarantine.known.update(record["quarantined"])
        if self.progress["best"] is not None:
            require_best(self.run)
        if self.progress["stopped"] is None:
            say(f"resuming at epoch {self.progress['epoch'] + 1}, step {self.progress['step']}")

    def _check_before_start(self) -> None:
        if self.request.signal:
            raise InterruptedRunError(
                f"{self.request.signal}: stopped before the first step; start again with: dermalyze train {self.run.root}"
            )

    def _stop(self, *, save: bool = True) -> None:
        if save:
            self._save()
        raise InterruptedRunError(
            f"{self.request.signal}: state saved at step {self.progress['step']}; go on with: dermalyze train {self.run.root}"
        )

    def _diverged(
        self,
        what: str,
        value: float,
        epoch: int,
        members: list[NDArray[np.int64]],
        order: NDArray[np.int64],
        inputs: Tensor | None = None,
    ) -> None:
        """Stop before the optimizer takes a bad step; the images of the batch are noted."""
        rows = self.rows["train"][order[np.concatenate(members)]]
        ids = [self.image_ids[row] for row in rows]
        write_json(self.run.diverged_path, {"epoch": epoch + 1, "step": self.progress["step"], "what": what, "image_ids": ids})
        cause = (
            "weights or learning rate"
            if inputs is None or torch.isfinite(inputs).all()
            else "an input image is not finite (check preprocess.std)"
        )
        raise DataError(
            f"{what} is {value} at epoch {epoch + 1}, step {self.progress['step'] + 1}: stopped before the optimizer step; "
            f"cause: {cause}; the batch is in {self.run.diverged_path.name}, the last good checkpoint is kept; "
            "lower train.optimizer.lr and use a new run"
        )

    def _say_cost(self, seconds: float) -> None:
        parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        counts = (len(self.rows["train"]), len(self.rows["val"]), parameters)
        say(cost_line(*counts, self.runtime.device, self.runtime.precision, seconds, self.learner.disk_bytes()))
        if self.changes:
            later = ", ".join(str(start + 1) for start in self.changes)
            say(f"at this pace; from epoch {later} on more of the network learns or the images grow, which takes longer")
