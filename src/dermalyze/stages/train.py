"""The training loop, from top to bottom."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.atomic import sha256_bytes, sha256_file, write_json, write_text
from dermalyze.core.errors import ConfigError, DataError, InterruptedRunError, ModelError, UsageError, nearest
from dermalyze.core.progress import progress, say
from dermalyze.core.run import Run
from dermalyze.core.runtime import Runtime, StopRequest, applied, choose_runtime, stop_on_signals
from dermalyze.data.cache import cache_bytes, open_cache
from dermalyze.data.images import Preprocessing
from dermalyze.data.loader import Loader, MappedLoader, StreamLoader, balanced_batches
from dermalyze.data.manifest import read_classes
from dermalyze.data.splitting import read_division, require_no_leak
from dermalyze.data.store import ImageStore
from dermalyze.model.augment import augment, mix
from dermalyze.model.backbones import pretrained_cfg_of
from dermalyze.model.checkpoint import (
    load_state_pair,
    pack_optimizer,
    prefixed,
    require_best,
    save_best,
    save_state_pair,
    unpack_optimizer,
    without_prefix,
)
from dermalyze.model.classifier import Classifier, build_classifier, check_input
from dermalyze.model.losses import build_loss
from dermalyze.model.optim import Ema, build_optimizer, set_lr
from dermalyze.model.schedules import cycle_start, lr_at
from dermalyze.model.speed import fastest_runtime
from dermalyze.ops.counter import words
from dermalyze.ops.imbalance import class_weights, draw_order
from dermalyze.ops.metrics import measure

MONITORS: dict[str, int] = {  # metric: +1 more is better, -1 less is better
    "val_loss": -1,
    "val_accuracy": 1,
    "val_balanced_accuracy": 1,
    "val_macro_f1": 1,
    "val_macro_auroc": 1,
}
DROPOUT = 3  # stream of ops.counter


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
        accepted_leak: the reason a leaking split was accepted for, or None.
    """

    epochs: int
    best_epoch: int
    monitor: str
    value: float
    stopped: str
    seconds: float
    accepted_leak: str | None

    def as_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def lines(self) -> list[str]:
        how = "stopped early" if self.stopped == "early" else "all epochs done"
        line = f"trained {self.epochs} epochs in {self.seconds / 60:.1f} min ({how}); "
        lines = [line + f"best epoch {self.best_epoch}: {self.monitor} {self.value:.4f}"]
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
        DataError: the loss or a gradient is not finite, or the data changed.
        ModelError: weights or checkpoints are refused.
        ResourceError: the folder cannot be written, no disk, no such device.
        InterruptedRunError: a signal came; the state is saved.
    """
    if spec.train.monitor not in MONITORS:
        hint = nearest(spec.train.monitor, list(MONITORS))
        raise ConfigError(f"train.monitor: '{spec.train.monitor}' is not one of {', '.join(MONITORS)}{hint}")
    with run.lock():
        run.probe_write(run.checkpoints_dir)
        reason = require_no_leak(run, accept_leak)
        if resume is not None and not resume.exists():
            raise UsageError(f"--resume {resume.name}: is not there; leave the option out to go on with the newest state")
        if resume is not None and run.root.resolve() not in (resume.resolve(), *resume.resolve().parents):
            raise ModelError(f"--resume {resume.name}: belongs to another run; continue it with: dermalyze train ITS_RUN")
        runtime = settled_runtime(run, spec)
        with applied(runtime), stop_on_signals() as request:
            return Training(run, spec, runtime, reason, request).fit()


def asked_runtime(spec: ExperimentSpec) -> Runtime:
    """The runtime that the experiment asks for, `auto` taken as fp32 and channels-last; nothing is measured.

    Raises:
        ResourceError: no such device.
    """
    settings = spec.train
    return choose_runtime(
        device=settings.device,
        threads=settings.threads,
        amp=settings.amp is True,
        channels_last=settings.channels_last is not False,
        deterministic=settings.mode == "deterministic",
    )


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
        self.classes = read_classes(run)
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
            self.labels[part] = np.array([self.classes.index(name) for name in frame["label"].iloc[rows]], dtype=np.int64)
        self.image_ids = frame["image_id"].tolist()
        self.loader = self._make_loader(frame["path"].tolist(), frame["sha256"].tolist())

        torch.manual_seed(spec.seed)
        model = build_classifier(spec.model, len(self.classes), load_weights=True)
        check_input(model, self.preprocessing.height, self.preprocessing.width)
        self.model: Classifier = model.to(runtime.device, memory_format=runtime.memory_format)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(self.model, self.settings.optimizer)
        self.ema = Ema(self.model, self.settings.ema) if self.settings.ema else None
        self.scaler = torch.amp.GradScaler(runtime.device, enabled=runtime.precision == "fp16")
        self.forward: Callable[[Tensor], Tensor] = torch.compile(self.model) if self.settings.compile else self.model
        counts = np.bincount(self.labels["train"], minlength=len(self.classes))
        weights = class_weights(self.settings.imbalance, counts, self.classes)
        self.weight_C = torch.ones(len(self.classes)) if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.loss = build_loss(self.settings.loss, None if weights is None else self.weight_C.to(runtime.device))
        self.mean = torch.tensor(self.preprocessing.mean, device=runtime.device).view(1, 3, 1, 1)
        self.std = torch.tensor(self.preprocessing.std, device=runtime.device).view(1, 3, 1, 1)

        self.identity = {
            "config_sha256": sha256_file(run.config_path),
            "manifest_sha256": run.manifest_hash(),
            "splits_sha256": sha256_bytes(b"".join(self.rows[part].tobytes() for part in ("train", "val"))),
        }
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

    # -- the loop ----------------------------------------------------------------------------------------------
    def fit(self) -> TrainResult:
        self._restore()
        state = self.progress
        if state["stopped"] is not None:
            require_best(self.run)
        while state["stopped"] is None:
            self._train_epoch(state["epoch"])
            record = self._validate(state["epoch"])
            self._close_epoch(record)
        write_json(self.run.history_path, _columns(state["history"]))
        best = state["best"]
        return TrainResult(
            len(state["history"]), best["epoch"], self.settings.monitor, best["value"], state["stopped"],
            state["seconds"], state["accepted_leak"],
        )  # fmt: skip

    def _train_epoch(self, epoch: int) -> None:
        settings, state = self.settings, self.progress
        order = draw_order(settings.imbalance, self.labels["train"], seed=self.spec.seed, epoch=epoch, classes=self.classes)
        positions = balanced_batches(np.arange(len(order)), settings.batch_size)
        steps_per_epoch = -(-len(positions) // settings.accumulate)
        total_steps = steps_per_epoch * settings.epochs
        todo = positions[state["group"] * settings.accumulate :]
        images = self.loader.batches([self.rows["train"][order[batch]] for batch in todo])
        self.model.train()
        started = saved = time.monotonic()
        spent = state["epoch_seconds"]
        with progress(f"epoch {epoch + 1}/{settings.epochs}", len(order)) as advance:
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
                    self._say_cost(state["epoch_seconds"], steps_per_epoch)
                if self.request.signal:
                    self._stop()
                if now - saved > settings.checkpoint_minutes * 60:
                    self._save()
                    saved = now

    def step(self, epoch: int, members: list[NDArray[np.int64]], order: NDArray[np.int64], images: Iterator[Tensor]) -> None:
        """One optimizer step over its micro-batches; each counts by its share of the class weights, so that k
        micro-batches equal one batch of their union (where no BatchNorm is in play)."""
        spec, device = self.spec, self.runtime.device
        labels = [torch.from_numpy(self.labels["train"][order[batch]]) for batch in members]
        shares = [float(self.weight_C[label].sum()) for label in labels]
        self.optimizer.zero_grad(set_to_none=True)
        for batch, label, share in zip(members, labels, shares, strict=True):
            torch.manual_seed(_dropout_seed(spec.seed, epoch, int(batch[0])))
            raw = next(images).to(device, non_blocking=True)
            pixels = augment(raw, self.settings.augment, seed=spec.seed, epoch=epoch, positions_B=batch)
            target = functional.one_hot(label, len(self.classes)).float().to(device)
            pixels, target = mix(pixels, target, self.settings.augment, seed=spec.seed, epoch=epoch, step=int(batch[0]))
            inputs = ((pixels - self.mean) / self.std).contiguous(memory_format=self.runtime.memory_format)
            with self.runtime.autocast():
                logits = self.forward(inputs)
            loss = self.loss(logits.float(), target) * (share / sum(shares))
            if not math.isfinite(loss.item()):
                self._diverged("loss", loss.item(), epoch, members, order, inputs)
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self._count(logits.detach().float(), label.to(device))
        self.scaler.unscale_(self.optimizer)
        if self.settings.clip_norm is not None:
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
            if self.runtime.precision != "fp16" and not math.isfinite(norm.item()):
                self._diverged("gradient norm", norm.item(), epoch, members, order, inputs)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.model)

    def _count(self, logits: Tensor, label: Tensor) -> None:
        """Running sums of the epoch: images, plain cross-entropy, right answers (under augmentation)."""
        sums = self.progress["sums"]
        sums[0] += len(label)
        sums[1] += functional.cross_entropy(logits, label, reduction="sum").item()
        sums[2] += (logits.argmax(1) == label).sum().item()

    @torch.no_grad()
    def _validate(self, epoch: int) -> dict[str, Any]:
        """The epoch's line: training sums and metrics of the validation part, by the averaged weights where there are any."""
        state, settings = self.progress, self.settings
        batches = np.array_split(self.rows["val"], -(-len(self.rows["val"]) // (2 * settings.batch_size)))
        self.model.eval()
        outputs = []
        averaged = self.ema.swapped(self.model) if self.ema is not None else contextlib.nullcontext()
        with averaged:
            for raw in self.loader.batches(list(batches)):
                pixels = raw.to(self.runtime.device).permute(0, 3, 1, 2).float().div_(255)
                inputs = ((pixels - self.mean) / self.std).contiguous(memory_format=self.runtime.memory_format)
                outputs.append(self.model(inputs).float().cpu())
                if self.request.signal:
                    break
        if self.request.signal:  # only here: inside the block above the model holds the averaged weights
            self._stop()
        logits = torch.cat(outputs).double()
        if not torch.isfinite(logits).all():
            raise DataError(
                f"validation logits are not finite after epoch {epoch + 1}; lower train.optimizer.lr; the best so far is kept"
            )
        measured = measure(self.labels["val"], logits.softmax(1).numpy())
        images, loss, right = state["sums"]
        seconds = state["epoch_seconds"]
        return {
            "epoch": epoch + 1,
            "train_loss": loss / images,
            "train_accuracy": right / images,
            "val_loss": measured["log_loss"],
            **{name: measured[name.removeprefix("val_")] for name in MONITORS if name != "val_loss"},
            "lr": state["lr"],
            "seconds": round(seconds, 3),
            "images_per_s": round(images / max(seconds, 1e-9), 1),
        }

    def _close_epoch(self, record: dict[str, Any]) -> None:
        """Note the epoch, keep the best, decide whether to stop, save."""
        state, settings = self.progress, self.settings
        state["history"].append(record)
        state["seconds"] += state["epoch_seconds"]
        value, sign = record[settings.monitor], MONITORS[settings.monitor]
        if value is None:
            raise DataError(f"{settings.monitor} is not estimable on the validation part (a class is absent); monitor val_loss")
        if state["best"] is None or sign * value > sign * state["best"]["value"]:
            state["best"] = {"epoch": record["epoch"], "value": value}
            self._save_best(record)
        # a warm restart raises the loss: patience counts from the best of the current cycle
        start, patience = cycle_start(settings.schedule, record["epoch"] - 1), settings.early_stopping
        best = state["cycle_best"]
        margin = patience.min_delta if patience else 0.0
        if best is None or best["start"] != start or sign * value > sign * best["value"] + margin:
            state["cycle_best"] = best = {"start": start, "epoch": record["epoch"], "value": value}
        if record["epoch"] >= settings.epochs:
            state["stopped"] = "epochs"
        elif patience is not None and record["epoch"] - best["epoch"] >= patience.patience:
            state["stopped"] = "early"
        state.update(epoch=record["epoch"], group=0, sums=[0.0, 0.0, 0.0], epoch_seconds=0.0)
        write_text(self.run.metrics_path, "".join(json.dumps(line) + "\n" for line in state["history"]))
        self._save()
        self._tell(record)
        if self.request.signal and state["stopped"] is None:
            self._stop(save=False)

    # -- saving and going on -----------------------------------------------------------------------------------
    def _save_best(self, record: dict[str, Any]) -> None:
        averaged = self.ema.swapped(self.model) if self.ema is not None else contextlib.nullcontext()
        with averaged:
            save_best(
                self.run,
                self.model,
                {
                    "classes": self.classes,
                    "preprocessing": self.preprocessing.as_dict(),
                    "model": self.spec.model.model_dump(mode="json"),
                    "epoch": record["epoch"],
                    "metric": self.settings.monitor,
                    "value": record[self.settings.monitor],
                    "seed": self.spec.seed,
                    "accepted_leak": self.progress["accepted_leak"],
                    **self.identity,
                },
            )

    def _save(self) -> None:
        tensors, scalars = pack_optimizer(self.optimizer)
        tensors |= prefixed("model", self.model.state_dict())
        if self.ema is not None:
            tensors |= prefixed("ema", self.ema.state_dict())
        record = {
            **self.identity,
            "circumstances": self.circumstances,
            "optimizer_scalars": scalars,
            "scaler": self.scaler.state_dict(),
            "progress": self.progress,
        }
        save_state_pair(self.run, self.progress["step"], tensors, record)

    def _restore(self) -> None:
        found = load_state_pair(self.run)
        if found is None:
            return
        tensors, record = found
        for name, value in self.identity.items():
            if record.get(name) != value:
                what = {"config_sha256": "configuration", "manifest_sha256": "manifest", "splits_sha256": "split"}[name]
                raise ModelError(f"{self.run.root.name}: the checkpoint was made with another {what}; use another run folder")
        then = record["circumstances"]
        changed = [f"{k} {then.get(k)} -> {v}" for k, v in self.circumstances.items() if then.get(k) != v]
        if changed:
            say(f"resuming under other circumstances, so no longer bit for bit the same: {', '.join(changed)}")
        self.model.load_state_dict(without_prefix("model", tensors))
        if self.ema is not None:
            self.ema.load_state_dict(without_prefix("ema", tensors))
        unpack_optimizer(self.optimizer, tensors, record["optimizer_scalars"])
        self.scaler.load_state_dict(record["scaler"])
        reason = self.progress["accepted_leak"]
        self.progress = {**record["progress"], "accepted_leak": record["progress"]["accepted_leak"] or reason}
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
        self, what: str, value: float, epoch: int, members: list[NDArray[np.int64]], order: NDArray[np.int64], inputs: Tensor
    ) -> None:
        """Stop before the optimizer takes a bad step; the images of the batch are noted."""
        rows = self.rows["train"][order[np.concatenate(members)]]
        ids = [self.image_ids[row] for row in rows]
        write_json(self.run.diverged_path, {"epoch": epoch + 1, "step": self.progress["step"], "what": what, "image_ids": ids})
        cause = (
            "weights or learning rate"
            if torch.isfinite(inputs).all()
            else "an input image is not finite (check preprocess.std)"
        )
        raise DataError(
            f"{what} is {value} at epoch {epoch + 1}, step {self.progress['step'] + 1}: stopped before the optimizer step; "
            f"cause: {cause}; the batch is in {self.run.diverged_path.name}, the last good checkpoint is kept; "
            "lower train.optimizer.lr and use a new run"
        )

    # -- talking -----------------------------------------------------------------------------------------------
    def _make_loader(self, paths: list[str], hashes: list[str]) -> Loader:
        settings, store = self.settings, ImageStore.open(self.spec.data)
        pin = self.runtime.device == "cuda"
        fits = cache_bytes(len(paths), self.preprocessing) <= settings.cache_limit_gib * 2**30
        if settings.cache == "memory_map" or (settings.cache == "auto" and fits):
            images = open_cache(
                store, paths, hashes, self.preprocessing, workers=self.spec.data.workers, check=self._check_before_start
            )
            return MappedLoader(images, pin=pin)
        return StreamLoader(
            store, paths, hashes, self.preprocessing, workers=settings.num_workers, prefetch=settings.prefetch_factor,
            persistent=settings.persistent_workers, pin=pin,
        )  # fmt: skip

    def _say_cost(self, seconds: float, steps_per_epoch: int) -> None:
        steps = min(10, steps_per_epoch)
        minutes = seconds / steps * steps_per_epoch * self.settings.epochs / 60
        parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        say(
            f"{len(self.rows['train'])} training and {len(self.rows['val'])} validation images, "
            f"{parameters / 1e6:.2f} M parameters on {self.runtime.device} ({self.runtime.precision}): "
            f"at most {minutes:.1f} min for {self.settings.epochs} epochs"
        )

    def _tell(self, record: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        left = (self.settings.epochs - record["epoch"]) * record["seconds"] / 60
        auroc = record["val_macro_auroc"]
        say(
            f"epoch {record['epoch']:3d}/{self.settings.epochs}  train loss {record['train_loss']:.4f}  "
            f"val loss {record['val_loss']:.4f}  "
            f"balanced accuracy {record['val_balanced_accuracy']:.3f}  AUROC {'-' if auroc is None else f'{auroc:.3f}'}  "
            f"{record['images_per_s']:.0f} images/s  {left:.1f} min left"
            + ("  *" if self.progress["best"]["epoch"] == record["epoch"] else "")
        )
        with SummaryWriter(str(self.run.tensorboard_dir), purge_step=record["epoch"]) as writer:
            for name, value in record.items():
                if name != "epoch" and value is not None:
                    writer.add_scalar(name, value, record["epoch"])


def _dropout_seed(seed: int, epoch: int, position: int) -> int:
    """Dropout is a function of the draw position, not of what was drawn before: a resume needs no generator's state."""
    return int(words(seed, epoch, [position], 1, stream=DROPOUT)[0, 0] >> np.uint64(1))


def _columns(history: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """`metrics.jsonl` as one list a metric, under the Dermalyze document's short names where it has them."""
    short = {"train_accuracy": "train_acc", "val_accuracy": "val_acc"}
    return {short.get(name, name): [line[name] for line in history] for name in (history[0] if history else ())}
