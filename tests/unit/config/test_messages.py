"""The message of every fault of a configuration, word for word."""

from __future__ import annotations

from pathlib import Path

import pytest

from dermalyze.config.experiment import ExperimentSpec, load_experiment
from dermalyze.config.messages import SYNONYMS, closest, schema_keys
from dermalyze.errors import ConfigError

ROOT_KEYS = "allowed: data, evaluate, inference, model, name, preprocess, schema_version, seed, split, task, train"

GOLDEN = {
    "train: {learning_rte: 1}": "unknown key 'train.learning_rte'; did you mean 'train.optimizer.lr'?",
    "learning_rte: 1": "unknown key 'learning_rte'; did you mean 'train.optimizer.lr'?",
    "train: {lr: 1e-3}": "unknown key 'train.lr'; did you mean 'train.optimizer.lr'?",
    "training: {}": "unknown key 'training'; did you mean 'train'?",
    "trian: {}": "unknown key 'trian'; did you mean 'train'?",
    "train: {epoch: 3}": "unknown key 'train.epoch'; did you mean 'train.epochs'?",
    "train: {scheduler: {}}": "unknown key 'train.scheduler'; did you mean 'train.schedule'?",
    "model: {head: {dropout_rate: .3}}": "unknown key 'model.head.dropout_rate'; did you mean 'model.head.dropout'?",
    "train: {early_stopping: {patiense: 3}}": "unknown key 'train.early_stopping.patiense'; did you mean "
    "'train.early_stopping.patience'?",
    "qqq: 1": f"unknown key 'qqq'; {ROOT_KEYS}",
    "data: {source: {zzz: 1}}": "unknown key 'data.source.zzz'; allowed: columns, extension, file, images, kind, label, "
    "labels, sources",
    "train: {loss: {kind: cross_entropy, gamma: 2}}": "unknown key 'train.loss.gamma'; it belongs to kind focal",
    "train: {loss: {kind: focall}}": "train.loss: kind 'focall' is not one of cross_entropy, focal, label_smoothing, bce, "
    "asymmetric; did you mean 'focal'?",
    "train: {loss: focal}": "train.loss: got 'focal', must be a mapping; write {kind: focal}",
    "train: [1]": "train: got [1], must be a mapping; write its keys below it",
    "train: {early_stopping: none}": "train.early_stopping: got 'none', must be a mapping; write its keys below it; "
    "null switches it off",
    "train: {optimizer: {lr: fast}}": "train.optimizer.lr: Input should be a valid number, unable to parse string as a number, "
    "got 'fast'",
    "train: {optimizer: {lr: .inf}}": "train.optimizer.lr: Input should be a finite number, got inf",
    "train: {optimizer: {lr: -1}}": "train.optimizer.lr: Input should be greater than 0, got -1",
    "train: {epochs: yes}": "train: epochs is true (YAML reads yes, no, on, off so), must be a value of its own",
    "split: {fractions: {train: .5, val: .2, test: .2}}": "split: fractions sum to 0.9, must be 1",
    "split: {fractions: {train: .7, validation: .15, test: .15}}": "split.fractions.validation: Input should be 'train', "
    "'val', 'cal' or 'test', got 'validation'",
    "data: {classes: [no, mel]}": "data.classes.0: Input should be a valid string, got False; YAML reads it so without quotes: "
    "write it in quotes",
    "name: 7": "name: Input should be a valid string, got 7; YAML reads it so without quotes: write it in quotes",
    "1: 2": "1: Keys should be strings, got 1",
    "- 1": "holds a list, must be a mapping of keys (data, model, train, ...)",
    "just words": "holds a str, must be a mapping of keys (data, model, train, ...)",
    "seed: -1\ntrain: {epochs: 0}": "seed: Input should be greater than or equal to 0, got -1; "
    "train.epochs: Input should be greater than or equal to 1, got 0",
}


@pytest.mark.parametrize("text", GOLDEN)
def test_golden_message(text: str, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_experiment(path)
    assert str(caught.value) == f"my.yaml: {GOLDEN[text]}"
    assert caught.value.exit_code == 2


def test_every_synonym_stands_for_a_key_that_exists_and_is_none_itself() -> None:
    names = {key.name for key in schema_keys(ExperimentSpec)}
    assert set(SYNONYMS.values()) <= names
    assert not set(SYNONYMS) & names


def test_a_key_beside_the_typo_beats_a_better_match_elsewhere() -> None:
    assert closest("lerning", "a", ["a.learnings", "b.lerning_x"]) == "a.learnings"
    assert closest("qqq", "a", ["a.learnings"]) is None


def test_paths_in_the_schema_are_those_of_the_file() -> None:
    paths = {key.path for key in schema_keys(ExperimentSpec)}
    assert {"train.optimizer.lr", "train.schedule.t_0", "split.fractions", "data.source.columns", "model.head.hidden"} <= paths
