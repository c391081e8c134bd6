"""What the values of somebody else's predictions are: probabilities, one-vs-rest scores or logits."""

# Shapes: N rows, C classes.

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dermalyze.core.tables import Table
from dermalyze.errors import ModelError
from dermalyze.tasks.base import Task

Kind = Literal["probabilities", "one-vs-rest", "logits"]
"""Probabilities of an image sum to 1, unless it may have several labels. One-vs-rest scores are in 0..1 as well, but each is of
its class alone, as sigmoid outputs are: they rank images and sum to nothing. Logits are any numbers."""
SCORE_KINDS: tuple[Kind, ...] = get_args(Kind)
ONE_VS_REST: Kind = "one-vs-rest"
SUM_TOLERANCE = 1e-3 - 1e-6  # a little under what metrics allow, which see the numbers in float32
ROUNDED = 0.05
"""Rows that all sum to 1 within this are probabilities of too few digits, not scores of single classes."""
SINGLE = (
    "The rows do not sum to 1: each class has a score of its own (one-vs-rest, as from a sigmoid). Images are ranked by these "
    "scores as they are; they are no probabilities of the classes, so calibration, ECE, Brier score, log loss and net benefit "
    "are not computed."
)


def kind_of(values_NC: NDArray[np.float64], task: Task) -> Kind:
    """What values are that come without a word.

    >>> from dermalyze.tasks.base import TASKS
    >>> kind_of(np.array([[0.2, 0.8]]), TASKS["multiclass"]), kind_of(np.array([[0.9, 0.8]]), TASKS["multiclass"])
    ('probabilities', 'one-vs-rest')
    >>> kind_of(np.array([[0.2, 0.3]]), TASKS["multilabel"]), kind_of(np.array([[0.2, -3.0]]), TASKS["multiclass"])
    ('probabilities', 'logits')
    """
    if _outside(values_NC).any():
        return "logits"
    return "probabilities" if task.are_probabilities(values_NC, SUM_TOLERANCE).all() else ONE_VS_REST


def checked_kind(values_NC: NDArray[np.float64], table: Table, scores: str | None, task: Task) -> Kind:
    """What the values of a CSV are, as the user says or as they tell.

    Args:
        values_NC: finite.
        table: where they stand, for messages.
        scores: of `SCORE_KINDS`; None: not said.

    Raises:
        ModelError: they are not what the user says, or percentages, or more likely probabilities with a fault than scores of
            single classes, of which some rows sum to more than 1.
    """
    found = kind_of(values_NC, task)
    if scores == "logits":
        return "logits"
    if scores is None and found == "logits":
        if (values_NC >= 0).all() and (values_NC < 101).all() and task.are_probabilities(values_NC / 100, 0.005).all():
            raise ModelError(f"{table.name}: the values are percentages; divide them by 100 (or, if not: --scores logits)")
        return "logits"
    faults = {"outside 0..1 in their": _outside(values_NC)}
    if scores == "probabilities" or (scores is None and found == ONE_VS_REST and _meant(values_NC, task)):
        faults["that do not sum to 1 in their"] = ~task.are_probabilities(values_NC, SUM_TOLERANCE)
    for fault, rows_N in faults.items():
        if rows_N.any():
            raise ModelError(
                f"{table.name} line {table.lines[int(rows_N.argmax())]}: {int(rows_N.sum())} of {len(rows_N)} rows have values "
                f"{fault} probabilities; give {task.activation} outputs with at least 5 digits, or say what they are: --scores "
                + " or ".join(kind for kind in SCORE_KINDS[1:] if kind == "logits" or not _outside(values_NC).any())
            )
    return ONE_VS_REST if scores == ONE_VS_REST else found


def _outside(values_NC: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(((values_NC < -1e-6) | (values_NC > 1 + 1e-6)).any(axis=1))


def _meant(values_NC: NDArray[np.float64], task: Task) -> bool:
    """Whether they are probabilities with a fault: rounded, damaged in fewer than half of the rows, or short of a class."""
    sums_N = values_NC.sum(axis=1)
    rounded = (np.abs(sums_N - 1) <= ROUNDED).all()
    damaged = task.are_probabilities(values_NC, SUM_TOLERANCE).mean() > 0.5
    return bool(rounded or damaged or (sums_N <= 1 + SUM_TOLERANCE).all())
