"""Which epoch is the best, and when to stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MONITORS: dict[str, int] = {  # metric: +1 more is better, -1 less is better
    "val_loss": -1,
    "val_accuracy": 1,
    "val_balanced_accuracy": 1,
    "val_macro_f1": 1,
    "val_macro_auroc": 1,
}
LABEL_MONITORS: dict[str, int] = {  # of task multilabel
    "val_loss": -1,
    "val_accuracy": 1,
    "val_macro_f1": 1,
    "val_macro_auroc": 1,
    "val_macro_average_precision": 1,
}


def compare_epoch(
    state: Mapping[str, Any],
    *,
    epoch: int,
    epochs: int,
    value: float,
    sign: int,
    start: int,
    planned: bool,
    patience: int | None,
    min_delta: float,
) -> dict[str, Any]:
    """What an epoch changes of the best so far, the best of the current cycle, and whether training stops.

    A warm restart, stages that are unfrozen and a new size of the images disturb the loss: each begins a cycle, and patience
    counts from the best of the current one. Where one of the latter two is still planned, nothing stops before it.

    Args:
        state: `best`, `cycle_best` and `stopped` before; None at the beginning.
        epoch: the one that ended, from 1.
        epochs: of the whole training.
        value: of the metric that is watched.
        sign: +1 where more is better, -1 where less is.
        start: first epoch (0-based) of the current cycle.
        planned: a stage will yet be unfrozen, or the size of the images change.
        patience: epochs without improvement; None never stops early.
        min_delta: the least improvement that counts for patience.

    Returns:
        `best`, `cycle_best` and `stopped` ("epochs", "early" or None) afterwards.

    >>> begin = {"best": None, "cycle_best": None}
    >>> first = compare_epoch(begin, epoch=1, epochs=9, value=0.5, sign=-1, start=0, planned=False, patience=1, min_delta=0.0)
    >>> first["best"], first["stopped"]
    ({'epoch': 1, 'value': 0.5}, None)
    >>> rule = {"sign": -1, "start": 0, "planned": False, "patience": 1, "min_delta": 0.0}
    >>> compare_epoch(first, epoch=2, epochs=9, value=0.6, **rule)["stopped"]
    'early'
    """
    best, cycle_best, stopped = state["best"], state["cycle_best"], None
    if best is None or sign * value > sign * best["value"]:
        best = {"epoch": epoch, "value": value}
    if cycle_best is None or cycle_best["start"] != start or sign * value > sign * cycle_best["value"] + min_delta:
        cycle_best = {"start": start, "epoch": epoch, "value": value}
    if epoch >= epochs:
        stopped = "epochs"
    elif patience is not None and not planned and epoch - cycle_best["epoch"] >= patience:
        stopped = "early"
    return {"best": best, "cycle_best": cycle_best, "stopped": stopped}
