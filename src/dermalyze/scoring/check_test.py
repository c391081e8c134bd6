"""Whether stored predictions are those of the test split, and of nothing else."""

from __future__ import annotations

import numpy as np

from dermalyze.config.data import PARTS
from dermalyze.core.run import Run
from dermalyze.data.manifest import read_classes
from dermalyze.data.splitting import read_division, require_no_leak
from dermalyze.errors import DataError, LeakError, ModelError, one_line
from dermalyze.scoring.predictions import Predictions
from dermalyze.tasks.base import TASKS


def check_test(run: Run, p: Predictions, recipe: str, accept_leak: str | None) -> str | None:
    """Refuse predictions that are not those of the run's test split, each image once, under its label and group.

    Returns:
        the reasons for which a leak was accepted, in training or here; None where nothing leaks.

    Raises:
        DataError, LeakError, ModelError: see `evaluate`.
    """
    again = f"run again: dermalyze score {run.root}"
    if p.meta.get("manifest_sha256") != run.manifest_hash():
        raise DataError(f"{run.root.name}: the predictions belong to another manifest.parquet (its SHA-256 differs); {again}")
    if p.meta["set"] != "test" or p.meta["recipe"] != recipe:
        got = f"set {p.meta['set']}, recipe {p.meta['recipe']}"
        raise DataError(f"{run.root.name}: the predictions are of {got}, not of set test, recipe {recipe}; {again}")
    classes = read_classes(run)
    if p.classes != classes:
        raise ModelError(f"{run.root.name}: the predictions have classes {p.classes}, the run {classes}; {again}")
    reasons = [reason for reason in (p.meta.get("accepted_leak"), accept_leak) if reason]
    crossing = require_no_leak(run, reasons[0] if reasons else None)
    frame, parts = read_division(run)
    part_of = dict(zip(frame["image_id"], parts, strict=True))
    found = [part_of.get(image_id) for image_id in p.ids]
    unknown = found.count(None)
    if unknown:
        raise DataError(f"{run.root.name}: {unknown} of {len(p)} predictions are of images that no part holds; {again}")
    used: dict[str, int] = {part: found.count(part) for part in PARTS if part != "test" and part in found}
    if used and accept_leak is None:
        raise LeakError(
            f"{run.root.name}: the test predictions hold images of other parts: {counts_text(used)}; {again}, or continue with "
            '--accept-leak "reason", which is stamped on every figure'
        )
    test = frame[parts == "test"].set_index("image_id")
    if not used:
        if len(p) != len(test):
            raise DataError(f"{run.root.name}: {len(p)} predictions for {len(test)} images of the test split; {again}")
        expected = TASKS[run.config().task.kind].targets(test.loc[p.ids, "label"].tolist(), classes)
        if not np.array_equal(expected, p.labels) or test.loc[p.ids, "group"].tolist() != p.groups:
            raise DataError(f"{run.root.name}: labels or groups of the predictions are not the manifest's; {again}")
    stamped = [p.meta.get("accepted_leak"), crossing, one_line(accept_leak) if accept_leak and used else None]
    return "; ".join(dict.fromkeys(reason for reason in stamped if reason)) or None


def counts_text(parts: dict[str, int]) -> str:
    return ", ".join(f"{n} of {part}" for part, n in parts.items())
