"""Files of checkpoints: the best weights, and states from which training resumes. Tensors in safetensors, the rest in JSON."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from dermalyze.config.model import ModelSpec
from dermalyze.core.atomic import resource_errors, sha256_file, sync_folder, write_json
from dermalyze.core.progress import say
from dermalyze.core.run import Run, differences, read_json
from dermalyze.errors import DermalyzeError, ModelError, ResourceError
from dermalyze.imaging.tabular import Encoder
from dermalyze.models.classifier import Classifier, build_classifier
from dermalyze.models.weights import load_state, read_tensors, save_state

Tensors = dict[str, Tensor]
STATE_KEYS = {"circumstances", "halvings", "optimizer_scalars", "progress", "quarantined", "scaler", "tensors_sha256"}
HARMLESS_KEYS = {  # where images are read and how often states are saved; the images' hashes are checked either way
    "name", "data.path", "data.workers", "train.cache", "train.cache_limit_gib", "train.num_workers", "train.prefetch_factor",
    "train.persistent_workers", "train.checkpoint_minutes",
}  # fmt: skip


def save_best(run: Run, model: nn.Module, record: dict[str, Any]) -> None:
    """Write the best weights and their record. The record decides: until it is replaced, the pair before stands."""
    sha256 = save_state(run.next_best_path, model)
    write_json(run.best_record_path, {**record, "weights_sha256": sha256})
    settle_best(run)


def settle_best(run: Run) -> None:
    """Give the best weights their name, also where a kill came between their record and that."""
    staged = run.next_best_path
    if not staged.exists():
        return
    try:
        decided = run.best_record_path.exists() and read_json(run.best_record_path).get("weights_sha256") == sha256_file(staged)
    except ModelError:
        return  # a damaged record decides nothing, and whoever fixes it may need these weights
    with resource_errors(staged.name):
        if decided:
            staged.replace(run.best_weights_path)
        else:
            staged.unlink()
        sync_folder(run.checkpoints_dir)


def load_best(run: Run) -> tuple[Classifier, dict[str, Any]]:
    """The best checkpoint as a network in evaluation mode (fp32, CPU), and its record.

    Raises:
        UsageError: nothing has been trained.
        ModelError: the weights are damaged or not those of the record.
    """
    record = read_json(run.require(run.best_record_path, "train"))
    settle_best(run)
    try:
        spec = TypeAdapter(ModelSpec).validate_python(record["model"])
        classes, expected, _ = list(record["classes"]), str(record["weights_sha256"]), dict(record["preprocessing"])
        encoder = Encoder.from_dict(record["metadata"]) if record["metadata"] is not None else None
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise ModelError(f"best.json: not a checkpoint record ({type(error).__name__}); train again") from error
    model = build_classifier(spec, len(classes), load_weights=False, encoder=encoder)
    load_state(run.best_weights_path, model, expected_sha256=expected)
    return model.eval(), record


def require_best(run: Run) -> None:
    """Refuse to resume where the best checkpoint is damaged: nothing would write it again.

    Raises:
        ModelError: it is gone or damaged.
    """
    try:
        whole = sha256_file(run.best_weights_path) == read_json(run.best_record_path).get("weights_sha256")
    except (DermalyzeError, OSError):
        whole = False
    if not whole:
        raise ModelError(
            f"{run.root.name}: {run.best_weights_path.name} or its record is gone or damaged; restore them, or delete the "
            "checkpoints folder to train from the start"
        )


def save_state_pair(run: Run, step: int, tensors: Tensors, record: dict[str, Any]) -> None:
    """Write a resumable state; its JSON comes last, so a state without one never counts. The one before is kept."""
    weights, json_path = run.state_paths(step)
    sha256 = save_state(weights, tensors)
    write_json(json_path, {**record, "step": step, "tensors_sha256": sha256})
    records = run.state_records()
    place = records.index(json_path)
    for old in records[:place] + records[place + 2 :]:  # what is newer than the newest was damaged
        with resource_errors(old.name):
            old.unlink(missing_ok=True)
            old.with_suffix(".safetensors").unlink(missing_ok=True)


def load_state_pair(run: Run) -> tuple[Tensors, dict[str, Any]] | None:
    """The newest whole resumable state, or None where training has not begun; a damaged one falls back and says so.

    Raises:
        ModelError: states exist, and each is damaged.
        ResourceError: a state may not be read.
    """
    records = run.state_records()
    for path in records:
        try:
            record = read_json(path)
            if not record.keys() >= STATE_KEYS:
                raise ModelError(f"{path.name}: {', '.join(sorted(STATE_KEYS - record.keys()))} is missing")
            tensors = read_tensors(path.with_suffix(".safetensors"), expected_sha256=str(record["tensors_sha256"]))
        except (DermalyzeError, OSError) as error:
            if isinstance(error, PermissionError) or isinstance(error.__cause__, PermissionError):
                raise ResourceError(f"checkpoint {path.stem} cannot be read; give read permission") from error
            say(f"checkpoint {path.stem} is damaged ({error}); falling back to the one before")
            continue
        return tensors, record
    if records:
        raise ModelError(f"{run.root.name}: every checkpoint is damaged; delete the checkpoints folder to train from the start")
    return None


def require_same(run: Run, record: dict[str, Any], identity: dict[str, Any], config: dict[str, Any]) -> None:
    """Refuse a state of another run, manifest, split or configuration; report changes that do not affect results.

    Args:
        record: the state's.
        identity: `run_id`, `config_sha256`, `manifest_sha256`, `splits_sha256` as they are now.
        config: the experiment now, as JSON.

    Raises:
        ModelError: with what differs.
    """
    other = "use another run folder, or restore the checkpoints of this one"
    for name, what in (("run_id", "run"), ("manifest_sha256", "manifest"), ("splits_sha256", "split")):
        if record.get(name) != identity[name]:
            then, now = str(record.get(name))[:12], str(identity[name])[:12]
            raise ModelError(f"{run.root.name}: the checkpoint was made with another {what} ({then}, here {now}); {other}")
    if record["config_sha256"] == identity["config_sha256"]:
        return
    changed = differences(record["config"], config)
    telling = [key for key in changed if key not in HARMLESS_KEYS]
    if telling:
        values = ", ".join(f"{key} {_value(record['config'], key)} -> {_value(config, key)}" for key in telling)
        raise ModelError(f"{run.root.name}: the checkpoint was made with another configuration ({values}); {other}")
    if changed:
        say(f"{', '.join(changed)} changed since the checkpoint; the result stays the same")


def _value(config: dict[str, Any], key: str) -> str:
    value: Any = config
    for word in key.split("."):
        value = value.get(word) if isinstance(value, dict) else None
    return json.dumps(value)
