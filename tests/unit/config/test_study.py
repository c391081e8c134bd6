"""Study files: what they say, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from dermalyze.config.study import Study, load_study
from dermalyze.errors import ConfigError


def study(root: Path, text: str, *sets: str) -> Study:
    path = root / "study.yaml"
    path.write_text(text)
    return load_study(path, sets)


def test_settings_are_nested_or_dotted(tmp_path: Path) -> None:
    text = "{experiment: {train: {epochs: 5}}, variants: {a: , b: {train.batch_size: 8}, c: {train: {batch_size: 8}}}}"
    made = study(tmp_path, text).variants
    assert made["b"].train == made["c"].train
    assert (made["a"].train.batch_size, made["b"].train.epochs) == (32, 5)


def test_sets_win_over_every_variant(tmp_path: Path) -> None:
    text = "{experiment: {}, variants: {a: {train.epochs: 9}, b: }}"
    assert {spec.train.epochs for spec in study(tmp_path, text, "train.epochs=1").variants.values()} == {1}


def test_another_backbone_leaves_what_belongs_to_the_first(tmp_path: Path) -> None:
    text = (
        "{experiment: {model: {backbone: x, kwargs: {k: 1}, weights: w, head: {kind: linear}}}, "
        "variants: {a: , b: {model.backbone: y}, c: {model.weights: null}}}"
    )
    made = study(tmp_path, text).variants
    assert (made["b"].model.kwargs, made["b"].model.weights, made["b"].model.head.kind) == ({}, None, "linear")
    assert (made["c"].model.kwargs, made["c"].model.weights) == ({"k": 1}, None)


def test_an_experiment_may_stand_in_a_file_beside(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("train: {epochs: 3}")
    assert study(tmp_path, "{experiment: base.yaml, variants: {a: , b: }}").variants["b"].train.epochs == 3


def test_seeds_and_questions(tmp_path: Path) -> None:
    made = study(tmp_path, "{experiment: {}, variants: {a: , b: , c: }, seeds: [1], more_seeds: {b: [2, 3]}}").spec
    assert (made.seeds_of("a"), made.seeds_of("b")) == ((1,), (1, 2, 3))
    (question,) = made.questions().values()
    assert (question.reference, question.variants) == ("a", ("b", "c"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{experiment: {}, variants: {a: , b: }, referense: a}", "unknown key 'referense'; did you mean 'reference'"),
        ("{experiment: {}, variants: {a: , b: {train.epoch: 3}}}", "variant b: unknown key 'train.epoch'; did you mean"),
        ("{experiment: {trian: {}}, variants: {a: , b: }}", "experiment: unknown key 'trian'; did you mean 'train'"),
        ("{experiment: {}, variants: {a: , b: {split.seed: 3}}}", "variant b: split is shared by all variants"),
        ("{experiment: {}, variants: {a: , b: {seed: 3}}}", "variant b: seed is shared by all variants"),
        ("{experiment: {}, variants: {small: , b: }, reference: smal}", "'smal' is not a variant; did you mean 'small'"),
        ("{experiment: {}, variants: {a: , b: }, comparisons: {x: {reference: a, variants: [a]}}}", "lists a variant twice"),
        ("{experiment: {}, variants: {a: , b: }, seeds: [1, 1]}", "is listed twice"),
        ("{experiment: {}, variants: {a: }}", "variants"),
        ("{experiment: {}, variants: {../up: , b: }}", "variants"),
        ("{experiment: {}, variants: {a: , b: {train..epochs: 3}}}", "is not a setting"),
        ("{variants: {a: , b: }}", "experiment"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        study(tmp_path, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_seed_is_no_setting_of_a_study(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--set seed: a study gives each run its own; write seeds"):
        study(tmp_path, "{experiment: {}, variants: {a: , b: }}", "seed=3")
