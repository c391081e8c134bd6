"""Ranges and defaults of every spec, by walking all of them."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from dermalyze.config.base import Spec
from dermalyze.config.data import PARTS, DataSpec, PreprocessSpec, SourceSpec, SplitSpec
from dermalyze.config.experiment import ExperimentSpec
from dermalyze.config.model import HeadSpec, ModelSpec
from dermalyze.config.train import AugmentSpec, ImbalanceSpec, LossSpec, OptimizerSpec, ScheduleSpec, TrainSpec


def all_specs(base: type[BaseModel] = Spec) -> list[type[BaseModel]]:
    return [spec for child in base.__subclasses__() for spec in (child, *all_specs(child))]


def test_every_spec_has_whole_defaults_and_refuses_unknown_keys() -> None:
    specs = all_specs()
    assert len(specs) > 20
    for spec in specs:
        if not any(field.is_required() for field in spec.model_fields.values()):  # as those of a study are
            spec.model_validate({})
        with pytest.raises(ValidationError, match="not_a_key"):
            spec.model_validate({"not_a_key": 1})


@pytest.mark.parametrize("union", [SourceSpec, HeadSpec, LossSpec, OptimizerSpec, ScheduleSpec, ImbalanceSpec])
def test_kinds_of_a_union_differ(union: Any) -> None:
    kinds = [member.model_fields["kind"].default for member in get_args(get_args(union)[0])]
    assert len(kinds) == len(set(kinds)) > 1


def test_defaults_are_the_documents() -> None:
    train, model, split = TrainSpec(), ModelSpec(), SplitSpec()
    assert (train.batch_size, train.epochs, train.optimizer.lr, train.optimizer.weight_decay) == (32, 40, 3e-4, 0.02)
    assert train.early_stopping is not None
    assert (train.early_stopping.patience, train.monitor) == (6, "val_loss")
    assert train.schedule.model_dump(include={"kind", "eta_min", "warmup"}) == {
        "kind": "cosine_restarts",
        "eta_min": 1e-5,
        "warmup": 0.05,
    }
    assert model.head.model_dump() == {"kind": "simple", "dropout": 0.35, "hidden": (512, 256)}
    assert split.fractions == {"train": 0.65, "val": 0.1, "cal": 0.1, "test": 0.15}
    assert tuple(split.fractions) == PARTS
    assert split.seed == ExperimentSpec().seed == 42


def test_default_fractions_are_not_shared_between_specs() -> None:
    SplitSpec().fractions["train"] = 0.1
    assert SplitSpec().fractions["train"] == 0.65


@pytest.mark.parametrize(
    ("spec", "values", "message"),
    [
        (SplitSpec, {"fractions": {"train": 0.8, "test": 0.2}}, "must name train, val and test"),
        (SplitSpec, {"fractions": {"train": 0.8, "val": 0.1, "test": 0.2}}, "sum to 1.1, must be 1"),
        (SplitSpec, {"fractions": {"train": 1.0, "val": 0.0, "test": 0.0}}, "greater than 0"),
        (SplitSpec, {"kind": "kfold", "folds": 5, "fold": 5}, "fold 5 must be below folds 5"),
        (SplitSpec, {"kind": "kfold", "folds": 1}, "greater than or equal to 2"),
        (PreprocessSpec, {"size": 4}, "outside 8..4096"),
        (PreprocessSpec, {"size": [224, 9000]}, "outside 8..4096"),
        (PreprocessSpec, {"std": [0.2, 0.0, 0.2]}, "must be above 0"),
        (AugmentSpec, {"scale": [1.1, 0.9]}, "must be"),
        (AugmentSpec, {"magnitude": 9}, "ops and magnitude belong to policy randaugment, not the default"),
        (AugmentSpec, {"hflip": 1.5}, "less than or equal to 1"),
        (ModelSpec, {"pretrained": True, "weights": "a.safetensors"}, "both set; keep one"),
        (DataSpec, {"max_bad_fraction": 2}, "less than or equal to 1"),
        (TrainSpec, {"batch_size": 1}, "greater than or equal to 2"),
        (TrainSpec, {"batch_size": True}, "batch_size is true"),
        (TrainSpec, {"early_stopping": {"patience": True}}, "patience is true"),
        (TrainSpec, {"ema": 1.0}, "less than 1"),
        (TrainSpec, {"strategy": {"kind": "gradual", "epochs": [1, 5, 5]}}, "epochs 1, 5, 5 must rise"),
        (TrainSpec, {"strategy": {"kind": "gradual", "epochs": []}}, "at least 1 item"),
        (TrainSpec, {"strategy": {"kind": "layerwise_decay", "factor": 1.0}}, "less than 1"),
        (TrainSpec, {"progressive": [{"epoch": 0, "scale": 0.5}]}, "must end at scale 1 before epoch 40, ends at 0.5 in 0"),
        (TrainSpec, {"progressive": [{"epoch": 9, "scale": 1}], "epochs": 9}, "before epoch 9, ends at 1 in 9"),
        (TrainSpec, {"progressive": [{"epoch": 2, "scale": 0.5}, {"epoch": 2, "scale": 1}]}, "epochs 2, 2 must rise"),
        (ModelSpec, {"freeze_backbone": False}, "Extra inputs are not permitted"),
        (TrainSpec, {"optimizer": {"backbone_lr": None}}, "Extra inputs are not permitted"),
    ],
)
def test_values_out_of_range_are_refused(spec: type[BaseModel], values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec.model_validate(values)


def test_booleans_stay_where_they_are_meant() -> None:
    assert TrainSpec.model_validate({"amp": True, "early_stopping": None}).amp
    assert ModelSpec.model_validate({"kwargs": {"a": True}}).kwargs == {"a": True}
