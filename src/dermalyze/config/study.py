"""A study: one experiment and named variants of it, which share data and split and are compared on the same test images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from dermalyze.config.base import Spec, merge, read_mapping
from dermalyze.config.experiment import ExperimentSpec, build_experiment
from dermalyze.config.messages import validation_message
from dermalyze.errors import ConfigError, nearest

CHANGEABLE = ("preprocess", "model", "train", "inference")
"""First words of settings in which a variant may differ; the others are what all share."""
OF_THE_BACKBONE = ("kwargs", "weights", "pretrained")

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,39}$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class ComparisonSpec(Spec):
    """One question: some variants against one of them."""

    reference: Name
    variants: tuple[Name, ...] = Field(min_length=1, description="variants compared with the reference")


class StudySpec(Spec):
    """Which variants are compared."""

    schema_version: Literal[1] = 1
    name: str = Field("study", pattern=r"^[\w .-]{1,40}$")
    experiment: dict[str, Any] | str = Field(description="settings shared by all variants, or a file of them next to this one")
    variants: dict[Name, dict[str, Any] | None] = Field(
        min_length=2, description="variant name to its changed settings, nested or dotted; empty: the experiment itself"
    )
    reference: Name | None = Field(None, description="reference of the comparisons; default: the first variant")
    comparisons: dict[str, ComparisonSpec] = Field(
        default_factory=dict, description="title to a question; default: one, of all variants against the reference"
    )
    seeds: tuple[Seed, ...] = Field((42,), min_length=1, description="seeds of every variant; the first one is tested")
    more_seeds: dict[Name, tuple[Seed, ...]] = Field(default_factory=dict, description="further seeds of single variants")

    @model_validator(mode="after")
    def _check(self) -> Self:
        named = [self.reference] if self.reference is not None else []
        named += [name for c in self.comparisons.values() for name in (c.reference, *c.variants)]
        for name in (*named, *self.more_seeds):
            if name not in self.variants:
                raise ValueError(f"'{name}' is not a variant{nearest(name, list(self.variants))}")
        for title, c in self.comparisons.items():
            if c.reference in c.variants or len(set(c.variants)) < len(c.variants):
                raise ValueError(f"comparison '{title}' lists a variant twice; keep one")
        for name in self.variants:
            seeds = self.seeds_of(name)
            if len(set(seeds)) < len(seeds):
                raise ValueError(f"a seed of '{name}' is listed twice; keep one")
        return self

    def seeds_of(self, variant: str) -> tuple[int, ...]:
        """Seeds of a variant; the first one is tested."""
        return (*self.seeds, *self.more_seeds.get(variant, ()))

    def questions(self) -> dict[str, ComparisonSpec]:
        """The comparisons, or the one of all variants."""
        first = self.reference or next(iter(self.variants))
        others = tuple(name for name in self.variants if name != first)
        return self.comparisons or {f"All against {first}": ComparisonSpec(reference=first, variants=others)}


@dataclass(frozen=True)
class Study:
    """A study, its variants built and checked.

    Attributes:
        spec: as the file says.
        variants: name to the experiment with the first seed.
    """

    spec: StudySpec
    variants: dict[str, ExperimentSpec]

    @property
    def shared(self) -> ExperimentSpec:
        """An experiment with the data, the split and the evaluation that all share."""
        one = next(iter(self.variants.values()))
        kept = {"task": one.task, "data": one.data, "split": one.split, "evaluate": one.evaluate}
        return ExperimentSpec(name=f"{self.spec.name} data", **kept)


def load_study(path: Path, sets: Iterable[str] = ()) -> Study:
    """Read a study's YAML file and build every variant.

    Args:
        path: of the file.
        sets: `key=value` assignments on top of every variant.

    Raises:
        ConfigError: unreadable, an unknown key (the nearest is named), an unknown variant, or one that differs in a
            shared setting.
    """
    values = read_mapping(path, "of keys (experiment, variants, ...)")
    try:
        spec = StudySpec.model_validate(values)
    except ValidationError as error:
        raise ConfigError(validation_message(error, StudySpec, path.name)) from None
    base = spec.experiment
    if isinstance(base, str):
        base = read_mapping(path.parent / base, "of keys (data, model, train, ...)")
    sets = list(sets)
    for key in (assignment.partition("=")[0].strip() for assignment in sets):
        if key.partition(".")[0] in ("seed", "name"):
            raise ConfigError(f"--set {key}: a study gives each run its own; write seeds in {path.name}")
    build_experiment(base, f"{path.name}, experiment", sets)  # what is wrong for all is said once
    return Study(
        spec, {name: variant(base, name, changes or {}, spec, path.name, sets) for name, changes in spec.variants.items()}
    )


def variant(
    base: Mapping[str, Any], name: str, changes: Mapping[str, Any], spec: StudySpec, file: str, sets: Iterable[str]
) -> ExperimentSpec:
    """The experiment of one variant.

    Raises:
        ConfigError: see `load_study`.
    """
    where = f"{file}, variant {name}"
    nested = nest(changes, where)
    for key in nested:
        if key in ExperimentSpec.model_fields and key not in CHANGEABLE:
            raise ConfigError(f"{where}: {key} is shared by all variants; they may differ in {', '.join(CHANGEABLE)}")
    values = merge(without_weights(base) if "backbone" in (nested.get("model") or {}) else dict(base), nested)
    built = build_experiment(values, where, sets)
    return built.model_copy(update={"name": f"{spec.name} {name}", "seed": spec.seeds[0]})


def nest(changes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Settings with dotted names, as nested ones.

    Raises:
        ConfigError: a setting of a setting that is no mapping.

    >>> nest({"train.epochs": 3, "train": {"batch_size": 8}}, "x")
    {'train': {'epochs': 3, 'batch_size': 8}}
    """
    nested: dict[str, Any] = {}
    for key, value in changes.items():
        steps = str(key).split(".")
        if not all(steps):
            raise ConfigError(f"{where}: '{key}' is not a setting; for example: train.epochs: 3")
        for step in reversed(steps):
            value = {step: value}
        nested = merge(nested, value)
    return nested


def without_weights(base: Mapping[str, Any]) -> dict[str, Any]:
    """The experiment without what belongs to its backbone alone: another one has other keyword arguments and weights.

    >>> without_weights({"model": {"backbone": "resnet18", "weights": "a.safetensors", "head": {"kind": "linear"}}})
    {'model': {'backbone': 'resnet18', 'head': {'kind': 'linear'}}}
    """
    model = base.get("model")
    if not isinstance(model, dict):
        return dict(base)
    return {**base, "model": {key: value for key, value in model.items() if key not in OF_THE_BACKBONE}}
