"""The experiment: one YAML file, validated, frozen."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from dermalyze.config.base import Spec, merge, parse_set, read_mapping
from dermalyze.config.data import DataSpec, PreprocessSpec, SplitSpec
from dermalyze.config.evaluate import EvaluateSpec
from dermalyze.config.inference import InferenceSpec
from dermalyze.config.messages import validation_message
from dermalyze.config.model import ModelSpec
from dermalyze.config.task import MulticlassTask, TaskSpec, misfit, with_defaults
from dermalyze.config.train import TrainSpec
from dermalyze.errors import ConfigError

SCHEMA_VERSION: Literal[2] = 2


class ExperimentSpec(Spec):
    """Everything that defines a run."""

    schema_version: Literal[2] = SCHEMA_VERSION
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
        if (problem := misfit(self.task, self.data, self.model, self.train, self.inference, self.evaluate)) is not None:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _reader_is_no_input(self) -> Self:
        columns = self.model.metadata.columns if self.model.metadata is not None else ()
        if self.evaluate.reader is not None and self.evaluate.reader.lower() in {column.lower() for column in columns}:
            raise ValueError(
                f"model.metadata.columns names '{self.evaluate.reader}', the reader's answers of evaluate.reader; the model "
                "would copy the reader it is compared with: remove it from one of the two"
            )
        return self


def build_experiment(values: dict[str, Any], name: str = "configuration", sets: Iterable[str] = ()) -> ExperimentSpec:
    """Merge `--set` assignments into a mapping and validate it.

    Raises:
        ConfigError: with every problem, its place and the nearest key.

    >>> build_experiment({"train": {"epochs": 3}}, sets=["train.optimizer.lr=1e-3"]).train.optimizer.lr
    0.001
    """
    if values.get("schema_version") == 1:
        raise ConfigError(
            f"{name}: is of dermalyze 0.1 (schema_version 1), this version reads {SCHEMA_VERSION}. An experiment: remove "
            "schema_version, and write model.image_2 for model.second. A run folder: run its experiment again in a new one, or "
            "continue it with dermalyze 0.1"
        )
    for assignment in sets:
        values = merge(values, parse_set(assignment, ExperimentSpec), empty_replaces=True)
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
