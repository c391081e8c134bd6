from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from dermalyze.config.experiment import ExperimentSpec, build_experiment, dump_experiment, json_schema, load_experiment
from dermalyze.errors import ConfigError


def test_an_empty_file_is_every_default(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("")
    assert load_experiment(path) == ExperimentSpec()


def test_the_whole_experiment_reads_back_equal(tmp_path: Path) -> None:
    spec = build_experiment(
        {"preprocess": {"size": [96, 128]}, "model": {"head": {"kind": "acrnn"}}, "train": {"augment": {"scale": [0.9, 1.1]}}},
        sets=["train.optimizer.lr=1e-4", "train.loss.kind=focal", "data.path=[a.zip, b.zip]"],
    )
    path = tmp_path / "a.yaml"
    path.write_text(dump_experiment(spec))
    assert load_experiment(path) == spec
    assert dump_experiment(load_experiment(path)) == dump_experiment(spec)


def test_set_wins_over_the_file_and_the_last_one_over_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("train: {epochs: 3, optimizer: {lr: 1e-3}}")
    spec = load_experiment(path, ["train.epochs=4", "train.epochs=5"])
    assert (spec.train.epochs, spec.train.optimizer.lr) == (5, 1e-3)


def test_a_mapping_without_kind_means_the_default_kind() -> None:
    assert build_experiment({"train": {"optimizer": {"lr": 1e-4}}}).train.optimizer.kind == "adamw"
    assert build_experiment({}, sets=["train.optimizer.kind=sgd"]).train.optimizer.lr == 0.01


def test_specs_are_frozen() -> None:
    with pytest.raises(ValidationError):
        ExperimentSpec().train.epochs = 3  # type: ignore[misc]


def test_unreadable_files_and_other_encodings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load_experiment(tmp_path / "none.yaml")
    path = tmp_path / "a.yaml"
    path.write_bytes("seed: 1".encode("utf-16"))
    with pytest.raises(ConfigError, match=r"a\.yaml: cannot be read"):
        load_experiment(path)
    path.write_bytes(b"\xef\xbb\xbfseed: 7\r\n")  # byte-order mark and Windows line ends are fine
    assert load_experiment(path).seed == 7


def test_another_schema_version_is_refused() -> None:
    with pytest.raises(ConfigError, match="schema_version: Input should be 2, got 3"):
        build_experiment({"schema_version": 3})
    with pytest.raises(ConfigError, match=r"is of dermalyze 0\.1 .* run its experiment again in a new one"):
        build_experiment({"schema_version": 1, "train": {"epochs": 3}})


def test_the_json_schema_is_closed_and_describes_every_section() -> None:
    schema = json.loads(json.dumps(json_schema()))
    assert set(schema["properties"]) == set(ExperimentSpec.model_fields)
    objects = [definition for definition in schema["$defs"].values() if definition["type"] == "object"]
    assert len(objects) > 20
    assert all(definition["additionalProperties"] is False for definition in objects)


def test_the_dump_is_plain_yaml() -> None:
    assert yaml.safe_load(dump_experiment(ExperimentSpec()))["split"]["fractions"]["cal"] == 0.1
