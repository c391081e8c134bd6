"""The experiment: one YAML file, validated, frozen."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from dermalyze.config.base import Spec, merge, parse_set, read_mapping
from dermalyze.config.data import DataSpec, PreprocessSpec, SplitSpec
from dermalyze.config.messages import validation_message
from dermalyze.config.model import ModelSpec
from dermalyze.config.task import MulticlassTask, TaskSpec, misfit, with_defaults
from dermalyze.config.train import TrainSpec
from dermalyze.errors import ConfigError

SCHEMA_VERSION: Literal[1] = 1


class InferenceSpec(Spec):
    """How an answer is made from the network. A recipe is measured, exported and served as one thing."""

    recipe: Literal["plain", "flips", "tta"] = Field(
        "plain",
        description="plain: one pass; flips: mean probability over the image, its two mirror images and the half turn; tta: "
        "over the image, its two mirror images, turned by 5 degrees either way, a tenth brighter and a tenth darker",
    )
    batch_size: int = Field(64, ge=1)
    calibration: Literal["auto", "any", "none", "temperature", "prior_temperature", "vector", "isotonic", "platt"] = Field(
        "auto",
        description="from scores to probabilities, chosen by cross-validation: auto: of those that change no answer, only how "
        "sure it is (none, temperature); any: of all; task multilabel: none or platt, a scale and a shift for each label",
    )
    set_level: float | None = Field(
        None,
        gt=0.5,
        lt=1,
        description="answers also name a set that holds the right class in this share of cases; null: none",
    )
    coverage: float | None = Field(
        None, gt=0, le=1, description="share of the calibration part that is answered; what is less sure is referred; null: all"
    )

    @field_validator("recipe", mode="before")
    @classmethod
    def _served(cls, value: object) -> object:
        if value == "mc_dropout":
            raise ValueError(
                "mc_dropout cannot be served: the exported graph has no dropout to draw; serve plain, flips or tta, and "
                "measure it beside that with: dermalyze probe RUN --recipes mc_dropout"
            )
        return value

    ood: Literal["auto", "none", "max_softmax", "energy", "relative_mahalanobis", "knn"] = Field(
        "auto",
        description="score by which pictures unlike the training part are referred; auto: the one that tells the synthetic "
        "foreign pictures best from the calibration part; none: none are",
    )


class EvaluateSpec(Spec):
    """How results are summed up."""

    resamples: int = Field(2000, ge=100, description="bootstrap resamples over lesions (or patients)")
    level: float = Field(0.95, gt=0.5, lt=1, description="of the intervals")
    set_level: float = Field(0.9, gt=0.5, lt=1, description="share of cases that the conformal sets of the report are to cover")
    ece_bins: int = Field(15, ge=2, le=100, description="equal-width bins of the expected calibration error")
    malignant: Literal["auto"] | list[str] | None = Field(
        "auto",
        description="classes that count as malignant or precancer, for the two-class view; auto: those known by name, such as "
        "mel, bcc and akiec of HAM10000; null: no such view",
    )
    sensitivity: float = Field(0.95, gt=0.5, lt=1, description="of the operating point that may miss few")
    miss_cost: float = Field(
        10.0, gt=0, description="a miss weighs as much as this number of false alarms, for the cost-weighted operating point"
    )
    sensitivity_floor: float = Field(
        0.8, ge=0, lt=1, description="the partial AUROC is the area above this sensitivity; 0.8 as in ISIC 2024"
    )
    prevalence: float | None = Field(
        None, gt=0, lt=1, description="share of malignant cases where you work; predictive values are given for it too"
    )
    reader: str | None = Field(
        None, min_length=1, description="column of the manifest with a person's answers, to be compared; never a model's input"
    )
    subgroups: tuple[str, ...] = Field(
        (), description="columns of the manifest by which results are broken down too, beside age, sex, site, source and looks"
    )
    seed: int = Field(0, ge=0)


class ExperimentSpec(Spec):
    """Everything that defines a run."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = Field("dermalyze", pattern=r"^[\w .-]{1,80}$")
    seed: int = Field(42, ge=0, lt=2**31)
    task: TaskSpec = MulticlassTask()
    data: DataSpec = DataSpec()
    preprocess: PreprocessSpec = PreprocessSpec()
    split: SplitSpec = SplitSpec()
    model: ModelSpec = ModelSpec()
    train: TrainSpec = TrainSpec()
    inference: InferenceSpec = InferenceSpec()
    evaluate: EvaluateSpec = EvaluateSpec()

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_task(cls, values: Any) -> Any:
        return with_defaults(values)

    @model_validator(mode="after")
    def _goes_with_the_task(self) -> Self:
        if (problem := misfit(self)) is not None:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _reader_is_no_input(self) -> Self:
        columns = self.model.metadata.columns if self.model.metadata is not None else ()
        if self.evaluate.reader is not None and self.evaluate.reader.lower() in {column.lower() for column in columns}:
            raise ValueError(
                f"model.metadata.columns names '{self.evaluate.reader}', the reader's answers of evaluate.reader; the model "
                "would copy the reader it is compared with: leave it out of one of the two"
            )
        return self


def build_experiment(values: dict[str, Any], name: str = "configuration", sets: Iterable[str] = ()) -> ExperimentSpec:
    """Validate a mapping, after merging `--set` assignments into it.

    Raises:
        ConfigError: with every problem, its place and the nearest key.

    >>> build_experiment({"train": {"epochs": 3}}, sets=["train.optimizer.lr=1e-3"]).train.optimizer.lr
    0.001
    """
    for assignment in sets:
        values = merge(values, parse_set(assignment))
    try:
        return ExperimentSpec.model_validate(values)
    except ValidationError as error:
        raise ConfigError(validation_message(error, ExperimentSpec, name)) from None


def load_experiment(path: Path, sets: Iterable[str] = ()) -> ExperimentSpec:
    """Read and validate an experiment's YAML file.

    Raises:
        ConfigError: unreadable, not YAML, not a mapping, or invalid.
    """
    return build_experiment(read_mapping(path, "of keys (data, model, train, ...)"), path.name, sets)


def dump_experiment(spec: ExperimentSpec) -> str:
    """The whole experiment as YAML, every default written out; reads back to an equal spec."""
    return yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of an experiment's file."""
    return ExperimentSpec.model_json_schema()
