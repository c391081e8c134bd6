"""Training logs: lines of text, TensorBoard and `history.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dermalyze.core.atomic import resource_errors, size_text
from dermalyze.core.run import Run

EPOCH_FIGURES = {"val_balanced_accuracy": "balanced accuracy", "val_macro_average_precision": "average precision"}
"""What stands beside the AUROC in the line of an epoch: the first that its task measures."""


def cost_line(images: int, val_images: int, parameters: int, device: str, precision: str, seconds: float, disk: int) -> str:
    """Estimated cost of a training, shown after its first steps.

    >>> cost_line(6500, 1000, 20_000_000, "cpu", "fp32", 7200.0, 45 * 2**20)
    '6500 training and 1000 validation images, 20.00 M parameters on cpu (fp32): at most 120.0 min, checkpoints 45 MiB'
    """
    return (
        f"{images} training and {val_images} validation images, {parameters / 1e6:.2f} M parameters on {device} ({precision}): "
        f"at most {seconds / 60:.1f} min, checkpoints {size_text(disk)}"
    )


def epoch_line(record: Mapping[str, Any], *, epochs: int, best: bool) -> str:
    """One epoch for a person; `record` is its line of `metrics.jsonl`; a star marks the best so far, a dash the undefined."""
    left = (epochs - record["epoch"]) * record["seconds"] / 60
    key = next(key for key in EPOCH_FIGURES if key in record)
    figure, auroc = ("-" if record[key] is None else f"{record[key]:.3f}" for key in (key, "val_macro_auroc"))
    return (
        f"epoch {record['epoch']:3d}/{epochs}  train loss {record['train_loss']:.4f}  "
        f"val loss {record['val_loss']:.4f}  "
        f"{EPOCH_FIGURES[key]} {figure}  AUROC {auroc}  "
        f"{record['images_per_s']:.0f} images/s  {left:.1f} min left" + ("  *" if best else "")
    )


def log_scalars(run: Run, record: Mapping[str, Any]) -> None:
    """Give an epoch's numbers to TensorBoard; what it had for this epoch and later ones is void.

    Raises:
        ResourceError: the folder cannot be written.
    """
    from torch.utils.tensorboard import SummaryWriter

    with (
        resource_errors(run.tensorboard_dir.name),
        SummaryWriter(str(run.tensorboard_dir), purge_step=record["epoch"]) as writer,
    ):
        for name, value in record.items():
            if name != "epoch" and value is not None:
                writer.add_scalar(name, value, record["epoch"])


def columns(history: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """`metrics.jsonl` as one list per metric."""
    return {name: [line.get(name) for line in history] for name in (history[0] if history else ())}
