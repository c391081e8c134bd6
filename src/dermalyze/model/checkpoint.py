"""Checkpoints: the best weights, and the whole state from which training goes on. Tensors in safetensors, the rest in JSON."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from dermalyze.config.model import ModelSpec
from dermalyze.core.atomic import sha256_file, write_json
from dermalyze.core.errors import DermalyzeError, ModelError
from dermalyze.core.progress import say
from dermalyze.core.run import Run, read_json
from dermalyze.model.classifier import Classifier, build_classifier
from dermalyze.model.weights import load_state, read_tensors, save_state

Tensors = dict[str, Tensor]
STATE_KEYS = {"circumstances", "optimizer_scalars", "progress", "scaler", "tensors_sha256"}


def save_best(run: Run, model: nn.Module, record: dict[str, Any]) -> None:
    """Write `best.safetensors`, then `best.json` with its SHA-256 (a reader checks the pair)."""
    sha256 = save_state(run.best_weights_path, model)
    write_json(run.best_record_path, {**record, "weights_sha256": sha256})


def load_best(run: Run) -> tuple[Classifier, dict[str, Any]]:
    """The best checkpoint as a network in evaluation mode (fp32, CPU), and its record.

    Raises:
        UsageError: nothing has been trained.
        ModelError: the weights are damaged or not those of the record.
    """
    record = read_json(run.require(run.best_record_path, "train"))
    try:
        spec = TypeAdapter(ModelSpec).validate_python(record["model"])
        classes, expected, _ = list(record["classes"]), str(record["weights_sha256"]), dict(record["preprocessing"])
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise ModelError(f"best.json: not a checkpoint record ({type(error).__name__}); train again") from error
    model = build_classifier(spec, len(classes), load_weights=False)
    load_state(run.best_weights_path, model, expected_sha256=expected)
    return model.eval(), record


def require_best(run: Run) -> None:
    """Refuse a finished training whose best checkpoint is no longer whole: nothing would make it again.

    Raises:
        ModelError: it is gone or damaged.
    """
    try:
        whole = sha256_file(run.best_weights_path) == read_json(run.best_record_path).get("weights_sha256")
    except (DermalyzeError, OSError):
        whole = False
    if not whole:
        raise ModelError(
            f"{run.root.name}: trained to the end, but {run.best_weights_path.name} or its record is gone or damaged; put them "
            "back, or delete the checkpoints folder to train from the start"
        )


def save_state_pair(run: Run, step: int, tensors: Tensors, record: dict[str, Any]) -> None:
    """Write a resumable state; its JSON comes last, so a state without one never counts. The one before is kept."""
    weights, json_path = run.state_paths(step)
    sha256 = save_state(weights, tensors)
    write_json(json_path, {**record, "step": step, "tensors_sha256": sha256})
    for old in run.state_records()[2:]:
        old.with_suffix(".safetensors").unlink(missing_ok=True)
        old.unlink(missing_ok=True)


def load_state_pair(run: Run) -> tuple[Tensors, dict[str, Any]] | None:
    """The newest whole resumable state, or None where training has not begun; a damaged one falls back and says so.

    Raises:
        ModelError: states exist, and each is damaged.
    """
    records = run.state_records()
    for path in records:
        try:
            record = read_json(path)
            if not record.keys() >= STATE_KEYS:
                raise ModelError(f"{path.name}: {', '.join(sorted(STATE_KEYS - record.keys()))} is missing")
            tensors = read_tensors(path.with_suffix(".safetensors"), expected_sha256=str(record["tensors_sha256"]))
        except DermalyzeError as error:
            say(f"checkpoint {path.stem} is damaged ({error}); falling back to the one before")
            continue
        return tensors, record
    if records:
        raise ModelError(f"{run.root.name}: every checkpoint is damaged; delete the checkpoints folder to train from the start")
    return None


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
