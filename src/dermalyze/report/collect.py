"""Collects from a run what a report needs: predictions, calibrator, reference split, other recipes, images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermalyze.audit.quality_cache import with_statistics
from dermalyze.config.data import DataSpec
from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.config.inference import InferenceSpec
from dermalyze.core.atomic import sha256_file
from dermalyze.core.progress import say
from dermalyze.core.run import Run, read_json
from dermalyze.data.splitting import read_part
from dermalyze.data.store import ImageStore
from dermalyze.data.thumbnails import small_pixels
from dermalyze.errors import ConfigError, DataError, ModelError
from dermalyze.report.discrimination import overall_estimates
from dermalyze.report.evaluation_data import Evaluation
from dermalyze.scoring.ood_results import read_ood_results
from dermalyze.scoring.predictions import Predictions, read_predictions
from dermalyze.tasks.answering import Answering

PICTURE_PX = 240


def gather(
    run: Run,
    p: Predictions,
    rows: pd.DataFrame,
    store: ImageStore | None,
    *,
    data: DataSpec,
    inference: InferenceSpec,
    evaluate: EvaluateSpec,
    home: Predictions | None = None,
    recalibrate: float | None = None,
    shift_C: NDArray[np.float64] | None = None,
) -> Evaluation:
    """The predictions with the manifest rows of their images in the same order, and the source of the images; see `Evaluation`.

    Args:
        recalibrate, shift_C: share of the groups to fit a calibrator on, and `scoring.class_prior.prior_shift` for it.
    """
    answering, fitted = read_calibration(run, p)
    train = with_statistics(run, read_part(run, "train").set_index("image_id"))
    return Evaluation(
        p, evaluate, answering, fitted, read_reference(run, p), rows, train, home, recalibrate, thumbnails_of(rows, store),
        read_others(run, p), read_ood_results(run, p), inference.calibration,
        shift_C, data,
    )  # fmt: skip


def thumbnails_of(rows: pd.DataFrame, store: ImageStore | None) -> Callable[[str], NDArray[np.uint8] | None] | None:
    """A function from image_id to thumbnail pixels; None without a store."""
    if store is None:
        return None
    paths = rows["path"].to_dict()
    return lambda image_id: small_pixels(store, paths[image_id], PICTURE_PX)


def read_others(run: Run, p: Predictions) -> tuple[tuple[Predictions, Answering], ...]:
    """Predictions of the same images by further recipes of the same model, and how each becomes an answer."""
    found = []
    for recipe in run.stored_recipes(p.meta["set"]):
        if recipe == p.meta["recipe"]:
            continue
        other = read_predictions(run.predictions_path(p.meta["set"], recipe))
        same = all(other.meta.get(key) == p.meta.get(key) for key in ("scores_sha256", "manifest_sha256", "classes"))
        if same and other.ids == p.ids and other.labels.tolist() == p.labels.tolist():
            found.append((other, read_calibration(run, other)[0]))
        else:
            again = f"dermalyze score {run.root} --recipes {recipe}"
            say(f"{run.root.name}: predictions by recipe {recipe} are of another model or other images, and left out; {again}")
    return tuple(found)


def manifest_store(data: DataSpec) -> ImageStore | None:
    """Where the run's images come from; None if they are gone: the metrics do not need them."""
    try:
        return ImageStore.open(data)
    except (ConfigError, DataError):
        return None


def read_calibration(run: Run, p: Predictions) -> tuple[Answering, dict[str, Any] | None]:
    """The calibration of the predictions' recipe and what it was fitted on; uncalibrated if `calibrate` has not run.

    Raises:
        ModelError: the calibration was fitted on the scores of another model.
    """
    path = run.calibration_path(p.meta["recipe"])
    if not path.exists():
        activation = p.task.activation
        how = f"to calibrate: dermalyze calibrate {run.root}"
        say(f"{run.root.name}: not calibrated; probabilities are the plain {activation}; {how}")
        return p.answering(), None
    known = read_json(path)
    if known.get("scores_sha256") != p.meta.get("scores_sha256"):
        raise ModelError(f"{path.name}: fitted on the scores of another model; run again: dermalyze calibrate {run.root}")
    calibration = known.get("calibration")
    if not isinstance(calibration, dict):
        raise ModelError(f"{path.name}: contains no calibration; run again: dermalyze calibrate {run.root}")
    fitted = {key: calibration.get(key) for key in ("part", "images", "groups")}
    fitted |= {"threshold_rule": calibration["threshold_rule"]} if "threshold_rule" in calibration else {}
    return p.answering(calibration), {**fitted, "trials": known.get("trials"), "sha256": sha256_file(path)}


def read_reference(run: Run, p: Predictions) -> Predictions | None:
    """Predictions of the split from which thresholds come, if they are of the same scores."""
    part = "cal" if run.split_path("cal").exists() else "val"
    path = run.predictions_path(part, p.meta["recipe"])
    if not path.exists():
        return None
    known = read_predictions(path)
    return known if known.meta.get("scores_sha256") == p.meta.get("scores_sha256") else None


def read_home(run: Run, p: Predictions) -> Predictions | None:
    """Predictions of the run's own test split, if they are of the same scores as those of the external set."""
    path = run.predictions_path("test", p.meta["recipe"])
    known = read_predictions(path) if path.exists() else None
    return known if known is not None and known.meta.get("scores_sha256") == p.meta.get("scores_sha256") else None


def validation_values(
    run: Run, recipe: str, evaluate: EvaluateSpec, test: Predictions, answering: Answering
) -> dict[str, Any] | None:
    """The same metrics on the validation split, for comparison; None if its predictions are not of the same model."""
    path = run.predictions_path("val", recipe)
    if not path.exists():
        return None
    p = read_predictions(path)
    same = all(p.meta.get(key) == test.meta.get(key) for key in ("manifest_sha256", "model_sha256", "classes"))
    return overall_estimates(p, evaluate, answering) if same and p.meta["set"] == "val" else None
