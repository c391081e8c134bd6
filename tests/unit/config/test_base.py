from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalyze.config.base import merge, parse_set, parse_yaml
from dermalyze.config.experiment import ExperimentSpec, build_experiment
from dermalyze.errors import ConfigError

BOMB = "a: &a [x, x]\n" + "\n".join(f"{b}: &{b} [*{a}, *{a}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.e-3", "0.1e-2", "+1e-3", ".001", "1.0e-3"])
def test_a_number_is_the_number_it_is(text: str) -> None:
    assert parse_yaml(f"lr: {text}", "x")["lr"] == pytest.approx(1e-3)


@pytest.mark.parametrize("text", ["e3", "1e", "1e-3a", "a1e3", '"1e-3"', "1e3.5"])
def test_what_only_looks_like_a_number_stays_text(text: str) -> None:
    assert parse_yaml(f"lr: {text}", "x")["lr"] == text.strip('"')


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_reads_back(value: float) -> None:
    assert parse_yaml(f"x: {value!r}", "x")["x"] == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: !!python/object/apply:os.system ['touch {marker}']",
            "x.yaml: line 1: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.system'; "
            "only plain YAML is read: no tags, no aliases",
        ),
        (BOMB, "x.yaml: line 2: YAML aliases (*name) are not allowed; write the value out"),
        ("b: 1\na:\n  <<: {{epochs: 3}}", "x.yaml: line 3: YAML merge keys (<<) are not allowed; write the keys out"),
        ("a: 1\na: 2", "x.yaml: line 2: key 'a' is given twice; keep one"),
        ("? [1, 2]\n: 3", "x.yaml: line 1: a key is a list or a mapping, must be a word"),
        ("a: 1\n  b: 2", "x.yaml: line 2: mapping values are not allowed here; only plain YAML is read: no tags, no aliases"),
        ("a: 1\n--- 2", "x.yaml: line 2: but found another document; only plain YAML is read: no tags, no aliases"),
        ("a: 2020-13-45", "x.yaml: not a YAML file that dermalyze reads: month must be in 1..12; only plain YAML is read"),
        ("#" * 1_000_001, "x.yaml: 1000001 characters; at most 1000000 are read"),
    ],
)
def test_what_is_no_plain_yaml_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text.format(marker=marker) if "{marker}" in text else text.replace("{{", "{").replace("}}", "}"), "x.yaml")
    assert str(caught.value) == message
    assert caught.value.exit_code == 2
    assert not marker.exists()


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "a: " + "9" * 6000, "\x00", "a: \ud800".encode("utf-8", "replace").decode() + "\x07"]
)
def test_depth_huge_numbers_and_control_characters_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^x: "):
        parse_yaml(text, "x")


def test_set_reads_dotted_keys_and_yaml_values() -> None:
    assert parse_set("train.loss={kind: focal, gamma: 1e0}") == {"train": {"loss": {"kind": "focal", "gamma": 1.0}}}
    assert parse_set("data.path=a=b") == {"data": {"path": "a=b"}}
    for bad in ("train.lr", "=3", "train..lr=3", "a=.inf"):
        with pytest.raises(ConfigError, match="--set"):
            parse_set(bad)


def test_merge_is_deep_and_another_kind_replaces() -> None:
    base = {"train": {"loss": {"kind": "focal", "gamma": 2}, "epochs": 3}}
    assert merge(base, {"train": {"loss": {"gamma": 1}}}) == {"train": {"loss": {"kind": "focal", "gamma": 1}, "epochs": 3}}
    assert merge(base, {"train": {"loss": {"kind": "cross_entropy"}}})["train"]["loss"] == {"kind": "cross_entropy"}
    assert base == {"train": {"loss": {"kind": "focal", "gamma": 2}, "epochs": 3}}


TEXTS = [
    "set #2",
    "0123",
    "2024-01-05",
    "1e3",
    "null",
    "a: b",
    "[x] y",
    "yes",
    "{a",
    "- a",
    "a, b",
    "&x",
    "*x",
    "!tag",
    "%d",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("key", ["data.path", "data.source.file", "evaluate.reader", "name"])
def test_set_takes_the_text_of_a_text_field_as_it_stands(key: str, text: str) -> None:
    value: Any = parse_set(f"{key}={text}", ExperimentSpec)
    for step in key.split("."):
        value = value[step]
    assert value == text


def test_set_of_other_fields_is_yaml() -> None:
    made = build_experiment(
        {}, sets=["data.path=[a, b]", "train.epochs=3", "train.amp=true", "evaluate.focus=[mel]", "seed=010"]
    )
    assert (made.data.path, made.train.epochs, made.train.amp, made.evaluate.focus) == (["a", "b"], 3, True, ["mel"])
    assert made.seed == 10, "as written, not an octal number"
    assert build_experiment({"evaluate": {"reader": "who"}}, sets=["evaluate.reader="]).evaluate.reader is None


def test_set_of_an_empty_mapping_or_list_replaces_what_is_there() -> None:
    before = {"model": {"backbone": "tiny_cnn", "kwargs": {"channels": [8]}}, "evaluate": {"subgroups": ["hospital"]}}
    assert build_experiment(before).model.kwargs == {"channels": [8]}
    made = build_experiment(before, sets=["model.kwargs={}", "evaluate.subgroups=[]"])
    assert made.model.kwargs == {}
    assert made.evaluate.subgroups == ()
