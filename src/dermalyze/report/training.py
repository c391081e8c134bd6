"""Reads a training history and assesses the fit: overfitting, underfitting or good fit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dermalyze.core.run import Run, read_json
from dermalyze.errors import ModelError, ResourceError
from dermalyze.tasks.baseline import Baseline

Verdict = Literal["overfitting", "underfitting", "good fit", "too short to tell"]
History = Mapping[str, Sequence[float | None]]

JUDGED_BY = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")  # and the metric of skill
LEAST_EPOCHS = 5  # fewer show no trend
LEAST_SKILL = 0.15  # of the way from chance to a perfect metric of skill; below it the model has learned almost nothing
LARGEST_GAP = 0.15  # train accuracy minus validation accuracy at the epoch kept
LARGEST_RISE = 0.10  # of the validation loss above its lowest, at the end, relative
LARGEST_FALL = 0.05  # of the validation loss between the last two eighths of the epochs, relative: it is still falling


def read_history(run: Run) -> dict[str, list[float | None]]:
    """`metrics.jsonl` as one list per key with one entry per epoch; None where a value was undefined.

    Raises:
        UsageError: nothing has been trained.
        ModelError: a damaged line, or epochs that are not 1, 2, 3 ..
    """
    path = run.require(run.metrics_path, "train")
    lines: list[dict[str, Any]] = []
    try:
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            line = json.loads(text)
            if not isinstance(line, dict) or line.get("epoch") != number:
                raise ValueError(f"line {number} is not epoch {number}")
            lines.append(line)
    except OSError as error:
        raise ResourceError(f"{path.name}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{path.name}: damaged ({error}); it is written again by: dermalyze train {run.root}") from None
    if not lines:
        raise ModelError(f"{path.name}: contains no epoch yet; resume with: dermalyze train {run.root}")
    keys = dict.fromkeys(key for line in lines for key in line)
    return {key: [_number(line.get(key)) for line in lines] for key in keys}


def kept_epoch(run: Run) -> tuple[int, str]:
    """The epoch whose weights were kept (from 1), and the metric that selected it.

    Raises:
        UsageError: nothing has been trained.
        ModelError: best.json is damaged.
    """
    path = run.require(run.best_record_path, "train")
    epoch, metric = (read_json(path).get(key) for key in ("epoch", "metric"))
    if not isinstance(epoch, int) or not isinstance(metric, str):
        raise ModelError(f"{path.name}: names no epoch and metric; train again in a new run folder")
    return epoch, metric


@dataclass(frozen=True)
class Fit:
    """The assessment of a training.

    Attributes:
        verdict: of the training as a whole.
        reasons: one sentence each, with its numbers; the first is decisive.
        numbers: every value that the verdict uses.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    numbers: dict[str, float | int | None]


def assess_fit(history: History, kept: int, guess: Baseline) -> Fit:
    """Assess the fit: overfitting, underfitting or good fit.

    In this order: no skill is underfitting; a large gap between train and validation accuracy at the epoch kept, or a
    validation loss that rose well above its lowest while the training loss fell, is overfitting; a validation loss that
    still falls is underfitting (more epochs would help); anything else is a good fit.

    Args:
        history: lists by key, from `read_history`.
        kept: epoch whose weights were kept, from 1.
        guess: what answers without skill reach on the validation split.

    >>> flat = {"train_loss": [1.0] * 6, "val_loss": [1.0] * 6, "train_accuracy": [0.7] * 6, "val_accuracy": [0.7] * 6,
    ...         "val_balanced_accuracy": [0.6] * 6}
    >>> assess_fit(flat, 3, Baseline(0.5, "always saying a", "balanced_accuracy", "balanced", 0.5, 0.69)).verdict
    'good fit'
    """
    val, train = _column(history, "val_loss"), _column(history, "train_loss")
    epochs, at = len(val), kept - 1

    def value(key: str) -> float:
        column = _column(history, key)
        return column[at] if 0 <= at < len(column) else math.nan

    reached, accuracy, train_accuracy = value(f"val_{guess.metric}"), value("val_accuracy"), value("train_accuracy")
    skill = (reached - guess.chance) / (1 - guess.chance)
    gap = train_accuracy - accuracy
    tail = max(2, round(epochs / 8))
    lowest = min((v for v in val if not math.isnan(v)), default=math.nan)
    last = _mean(val[-min(3, epochs) :])
    rise = last / lowest - 1 if lowest > 0 else math.nan
    before = _mean(val[-2 * tail : -tail]) if epochs >= 2 * tail else val[0]
    fall = 1 - _mean(val[-tail:]) / before if before > 0 else math.nan
    train_fall = train[at] - _mean(train[-min(3, epochs) :]) if 0 <= at < len(train) else math.nan
    numbers: dict[str, float | int | None] = {
        "epochs": epochs, "kept_epoch": kept, "train_loss": _known(value("train_loss")), "val_loss": _known(value("val_loss")),
        "loss_gap": _known(value("val_loss") - value("train_loss")), "uniform_guess_loss": guess.loss,
        "train_accuracy": _known(train_accuracy), "val_accuracy": _known(accuracy), "accuracy_gap": _known(gap),
        "majority_accuracy": guess.accuracy, f"val_{guess.metric}": _known(reached), f"chance_{guess.metric}": guess.chance,
        "skill": _known(skill), "val_loss_rise_from_lowest": _known(rise), "val_loss_fall_at_the_end": _known(fall),
        "train_loss_fall_since_kept": _known(train_fall),
    }  # fmt: skip
    if epochs < LEAST_EPOCHS:
        return Fit("too short to tell", (f"{epochs} epochs; at least {LEAST_EPOCHS} are needed to see a trend",), numbers)
    learnt = (
        f"validation accuracy {accuracy:.3f} ({guess.answer}: {guess.accuracy:.3f}), {guess.title} "
        f"{'not estimable' if math.isnan(reached) else f'{reached:.3f}'} (chance: {guess.chance:.3f})"
    )
    spread = f"train accuracy {train_accuracy:.3f}, validation {accuracy:.3f} at epoch {kept}: a gap of {gap:+.3f}"
    risen = f"the validation loss ended {100 * rise:.0f} % above its lowest"
    falling = f"the validation loss of the last {tail} epochs is {100 * fall:.1f} % below that of the {tail} before"
    if skill < LEAST_SKILL:
        return Fit("underfitting", (f"barely better than chance: {learnt}", spread), numbers)
    if gap > LARGEST_GAP:
        return Fit("overfitting", (f"{spread}, more than {LARGEST_GAP}", risen, learnt), numbers)
    if rise > LARGEST_RISE and train_fall > 0:
        kept_text = f"the weights kept are those of epoch {kept} of {epochs}"
        return Fit("overfitting", (f"{risen} while the training loss kept falling; {kept_text}", spread, learnt), numbers)
    if fall > LARGEST_FALL:
        return Fit("underfitting", (f"still improving: {falling}; train for more epochs", spread, learnt), numbers)
    return Fit("good fit", (spread, risen, learnt), numbers)


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


def _column(history: History, key: str) -> list[float]:
    return [math.nan if v is None else float(v) for v in history.get(key, [])]


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
