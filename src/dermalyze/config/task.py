"""The task: one class per image, or any number of labels. It decides targets, losses and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from dermalyze.config.base import Spec, merge
from dermalyze.config.data import CsvSource, DataSpec
from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.config.inference import InferenceSpec
from dermalyze.config.model import LateFusion, ModelSpec
from dermalyze.config.train import ImbalanceSpec, LossSpec, TrainSpec

MULTICLASS, MULTILABEL = "multiclass", "multilabel"


class MulticlassTask(Spec):
    """Each image has exactly one class."""

    defaults: ClassVar[Mapping[str, Any]] = {}

    kind: Literal["multiclass"] = "multiclass"


class MultilabelTask(Spec):
    """Each image has any number of labels, or none: findings of a chest film, attributes of what is seen."""

    defaults: ClassVar[Mapping[str, Any]] = {
        "train": {"loss": {"kind": "bce"}, "imbalance": {"kind": "none"}, "monitor": "val_macro_auroc"}
    }
    """Defaults of an experiment of this task."""

    kind: Literal["multilabel"] = "multilabel"
    separator: str = Field("|", min_length=1, max_length=1, description="separator between the labels in the column label")
    none: tuple[str, ...] = Field(
        (), description="names that mean no label, such as No Finding; an empty cell always means no label"
    )
    threshold: Literal["f1", "youden"] = Field(
        "f1",
        description="decision threshold of each label: maximizes, on the calibration split, F1 or the "
        "sum of sensitivity and specificity",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(not name.strip() for name in self.none):
            raise ValueError(f"none {list(self.none)} holds an empty text; remove it: an empty cell always means no label")
        return self


TaskSpec = Annotated[MulticlassTask | MultilabelTask, Field(discriminator="kind")]


def with_defaults(values: Any) -> Any:
    """An experiment's mapping with the defaults of its task below what it says itself.

    >>> with_defaults({"task": {"kind": "multilabel"}, "train": {"loss": {"kind": "asymmetric"}}})["train"]["loss"]
    {'kind': 'asymmetric'}
    """
    task = values.get("task") if isinstance(values, dict) else None
    kind = task.get("kind") if isinstance(task, dict) else getattr(task, "kind", None)
    if kind != MULTILABEL or not isinstance(values.get("train", {}), dict):
        return values
    return merge(dict(MultilabelTask.defaults), values)


def tasks_of(row: type) -> tuple[str, ...]:
    """The tasks that a row of a table belongs to; multiclass alone where it names none."""
    return tuple(getattr(row, "tasks", (MULTICLASS,)))


def misfit(
    task: TaskSpec, data: DataSpec, model: ModelSpec, train: TrainSpec, inference: InferenceSpec, evaluate: EvaluateSpec
) -> str | None:
    """Why a setting does not fit the task; None where all settings fit."""
    kind = task.kind
    for key, union, chosen in (
        ("train.loss", LossSpec, train.loss),
        ("train.imbalance", ImbalanceSpec, train.imbalance),
    ):
        if kind not in tasks_of(type(chosen)):
            rows = [row for row in get_args(get_args(union)[0]) if kind in tasks_of(row)]
            allowed = ", ".join(row.model_fields["kind"].default for row in rows)
            return f"{key}: kind '{chosen.kind}' does not belong to task {kind}; allowed: {allowed}"
    if isinstance(task, MultilabelTask):
        return _misfit_of_labels(data, model, train, inference, evaluate)
    if isinstance(data.source, CsvSource) and data.source.labels is not None:
        return "data.source.labels names several labels per image; set task: {kind: multilabel}, or leave it out"
    if inference.calibration == "platt":
        return "inference.calibration: platt belongs to task multilabel; here it is vector, temperature, isotonic, ..."
    return None


def _misfit_of_labels(
    data: DataSpec, model: ModelSpec, train: TrainSpec, inference: InferenceSpec, evaluate: EvaluateSpec
) -> str | None:
    metadata = model.metadata
    problems = {
        f"data.source.kind: {data.source.kind} has one class per image; task multilabel reads csv": not isinstance(
            data.source, CsvSource
        ),
        "train.balance_sources belongs to task multiclass; leave it out": train.balance_sources,
        "model.metadata.fusion: late multiplies probabilities of classes; task multilabel takes film or concat": metadata
        is not None
        and isinstance(metadata.fusion, LateFusion),
        f"inference.calibration: {inference.calibration} has one class per image; task multilabel takes auto, none or "
        "platt": inference.calibration not in ("auto", "none", "platt"),
        "inference.set_level builds sets with one true class; leave it out of task multilabel": inference.set_level is not None,
        "inference.coverage belongs to task multiclass; leave it out": inference.coverage is not None,
        f"inference.ood: {inference.ood} needs classes; task multilabel takes auto, none or knn": inference.ood
        not in ("auto", "none", "knn"),
        "evaluate.malignant is a two-class view of classes; leave it out of task multilabel": isinstance(
            evaluate.malignant, list
        ),
        "evaluate.reader and prevalence belong to task multiclass; leave them out": evaluate.reader is not None
        or evaluate.prevalence is not None,
    }
    return next((problem for problem, found in problems.items() if found), None)
