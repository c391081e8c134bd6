from __future__ import annotations

from pathlib import Path

import pytest

from dermalyze.config.experiment import build_experiment, load_experiment
from dermalyze.config.legacy import DOCUMENT, from_legacy, read_legacy
from dermalyze.errors import ConfigError
from dermalyze.models.backbones import check_name

SAMPLE = """\
model:
  name: efficientnet_v2
  size: medium             # a comment
  pretrained: true
  head_type: simple
  dropout_rate: 0.4
training:
  lr: 1e-3
  use_weighted_sampling: true
  fast_mode: false
  early_stopping_patience: 4
  scheduler:
    type: cosine
    T_0: 5
    T_mult: 2
    eta_min: 0.00001
loss:
  type: label_smoothing
  label_smoothing: 0.1
data:
  val_size: 0.15
  test_size: 0.2
  lesion_aware:true        # no space after the colon, as the document has it
"""


def test_the_preset_is_the_documents_configuration() -> None:
    preset = Path(__file__).parents[3] / "experiments" / "dermalyze.yaml"
    assert build_experiment(from_legacy("", "x")[0]) == load_experiment(preset)


def test_every_given_key_is_taken_and_said() -> None:
    values, lines = from_legacy(SAMPLE, "config.yaml")
    spec = build_experiment(values)
    assert (spec.model.backbone, spec.model.pretrained, spec.preprocess.size) == ("tf_efficientnetv2_m", True, 224)
    assert spec.model.head.model_dump(include={"kind", "dropout"}) == {"kind": "simple", "dropout": 0.4}
    assert (spec.train.optimizer.lr, spec.train.mode, spec.train.imbalance.kind) == (1e-3, "deterministic", "sampling")
    assert spec.train.schedule.model_dump(include={"t_0", "t_mult", "warmup"}) == {"t_0": 5, "t_mult": 2, "warmup": 0.05}
    assert spec.train.loss.model_dump() == {"kind": "label_smoothing", "smoothing": 0.1, "convention": "others"}
    assert spec.split.fractions == {"train": 0.65, "val": 0.15, "test": 0.2}
    assert spec.train.early_stopping is not None
    assert spec.train.early_stopping.patience == 4
    assert lines[0] == "lesion_aware:true has no space after the colon; read as lesion_aware: true"
    said = [line.split(":")[0] for line in lines[1:-1]]
    given = "name size pretrained head_type dropout_rate lr use_weighted_sampling fast_mode early_stopping_patience type T_0 "
    given += "T_mult eta_min type label_smoothing val_size test_size lesion_aware"
    assert sorted(line.split()[0].rpartition(".")[2] for line in said) == sorted(given.split())
    assert lines[-1].startswith("not set, so the document's default: ")
    assert "training.batch_size 32" in lines[-1]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "training: {use_weighted_sampling: true}",
            "class weights beside it, the document's default, would correct twice and are off",
        ),
        ("data: {lesion_aware: false}", "data.lesion_aware false: NOT FOLLOWED: a split that divides lesions leaks"),
        ("data: {val_size: 0.15}", "no cal split: calibration is cross-fitted on val"),
        ("model: {pretrained: true}", "model.pretrained, ImageNet weights from timm's hub"),
        ("training: {weight_decay: 0.02}", "decoupled (AdamW), not an L2 penalty"),
        ("loss: {label_smoothing: 0.1}", "loss.label_smoothing 0.1: not used by loss cross_entropy"),
        ("model: {num_classes: 7}", "not used: the number of classes is counted from the data"),
        ("training: {scheduler: {type: onecycle, T_0: 3}}", "training.scheduler.T_0 3: not used by schedule one_cycle"),
    ],
)
def test_differences_are_said(text: str, line: str) -> None:
    assert any(line in said for said in from_legacy(text, "x")[1])


@pytest.mark.parametrize(
    ("sampling", "weights", "kind"),
    [("true", "true", "sampling"), ("true", "false", "sampling"), ("false", "true", "weights"), ("false", "false", "none")],
)
def test_imbalance_is_never_corrected_twice(sampling: str, weights: str, kind: str) -> None:
    values, _ = from_legacy(f"training: {{use_weighted_sampling: {sampling}}}\nloss: {{use_class_weights: {weights}}}", "x")
    assert build_experiment(values).train.imbalance.kind == kind


def test_the_other_words_of_the_document() -> None:
    text = "model: {size: large, head_type: acrnn}\nloss: {type: focal, focal_gamma: 3, focal_alpha: 0.25}\n"
    text += "training: {seed: 7, scheduler: {type: none}, early_stopping_patience: 0, "
    text += "gradient_accumulation_steps: 2, gradient_clip: 5}"
    spec = build_experiment(from_legacy(text, "x")[0])
    assert (spec.model.backbone, spec.model.head.kind, spec.train.schedule.kind) == ("tf_efficientnetv2_l", "acrnn", "constant")
    assert spec.train.loss.model_dump() == {"kind": "focal", "gamma": 3.0, "alpha": 0.25}
    assert (spec.seed, spec.split.seed, spec.train.early_stopping, spec.train.accumulate, spec.train.clip_norm) == (
        7,
        7,
        None,
        2,
        5,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {learning_rte: 1}", "c.yaml: unknown key 'training.learning_rte'; did you mean 'training.lr'?"),
        ("modle: {}", "c.yaml: unknown key 'modle'; did you mean 'model'?"),
        (
            "data: {qqq: 1}",
            "c.yaml: unknown key 'data.qqq'; known here: data_dir, image_size, lesion_aware, seed, test_size, val_size",
        ),
        ("training: {lr: yes}", "c.yaml: training.lr: got True, must be a number"),
        ("training: {epochs: 1.5}", "c.yaml: training.epochs: got 1.5, must be a whole number"),
        ("model: {pretrained: 1}", "c.yaml: model.pretrained: got 1, must be true or false"),
        ("training: 3", "c.yaml: training: got 3, must be a mapping; write its keys below it"),
        ("model: {size: smal}", "c.yaml: model.size: got 'smal', allowed: small, medium, large; did you mean 'small'?"),
        (
            "data: {val_size: .9, test_size: .2}",
            "c.yaml: data.val_size 0.9 and data.test_size 0.2 must be above 0 and sum to less than 1",
        ),
        ("- 1", "c.yaml: holds a list, must be a mapping of keys (model, training, loss, data)"),
        ("other:true", "c.yaml: holds a str, must be a mapping of keys (model, training, loss, data)"),
    ],
)
def test_what_cannot_be_taken_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_legacy(text, "c.yaml")
    assert str(caught.value) == message


def test_reading_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(SAMPLE)
    assert read_legacy(path) == (from_legacy(SAMPLE, "config.yaml")[0], tuple(from_legacy(SAMPLE, "config.yaml")[1]))
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        read_legacy(tmp_path / "none.yaml")
    assert DOCUMENT["training"]["lr"] == 3e-4  # reading changes no table


@pytest.mark.parametrize(("old", "kind"), [("true", "frozen"), ("false", "full")])
def test_a_frozen_backbone_is_a_strategy(old: str, kind: str) -> None:
    values, lines = from_legacy(f"model: {{freeze_backbone: {old}}}", "config.yaml")
    assert build_experiment(values).train.strategy.kind == kind
    assert f"model.freeze_backbone {old}: train.strategy kind {kind}" in lines


# -- the MedMNIST guide's model -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "backbone", "dropout"),
    [
        ("architecture: resnet\nvariant: resnet50\npretrained: true\nnum_classes: 9\ndropout_rate: 0.3", "resnet50", 0.3),
        ("architecture: efficientnet\nvariant: b3\nnum_classes: 14\ndropout_rate: 0.3", "efficientnet_b3", 0.3),
        ("architecture: EfficientNet\nvariant: B7", "tf_efficientnet_b7", 0.0),
        ("architecture: densenet\nvariant: DenseNet-121\ndropout_rate: 0.2", "densenet121", 0.2),
        ("architecture: vit\nvariant: vit_base\ndropout_rate: 0.1\npatch_size: 16", "vit_base_patch16_224", 0.1),
        ("architecture: vit\nvariant: vit_huge\npretrained: false", "vit_huge_patch14_224", 0.0),
    ],
)
def test_the_models_of_the_guide(text: str, backbone: str, dropout: float) -> None:
    values, lines = from_legacy(text, "model.yaml")
    spec = build_experiment(values)
    assert (spec.model.backbone, spec.model.head.kind, spec.model.head.dropout) == (backbone, "linear", dropout)
    check_name(backbone)
    assert spec.model.pretrained == ("pretrained: false" not in text)
    keys = [line.partition(":")[0] for line in text.splitlines()]
    assert [line.split(" ")[0] for line in lines[:-1]] == keys  # every given key is said
    assert lines[-1].startswith("data, training and loss are not in this file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "architecture: resent",
            "architecture: got 'resent', allowed: resnet, densenet, efficientnet, vit; did you mean 'resnet'?",
        ),
        ("architecture: resnet\nvariant: b3", "variant: got 'b3', allowed: resnet18"),
        ("architecture: vit\nvariant: vit_huge\npatch_size: 16", "patch_size: got 16, allowed for vit_huge: 14"),
        ("architecture: resnet\npatch_size: 16", "patch_size: a resnet has no patches; leave it out"),
        ("architecture: resnet\ndropout: 0.3", "unknown key 'dropout'; did you mean 'dropout_rate'?"),
        ("architecture: resnet\nnum_classes: nine", "num_classes: got 'nine', must be a whole number"),
    ],
)
def test_what_is_no_model_of_the_guide_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_legacy(text, "model.yaml")
    assert str(caught.value).startswith(f"model.yaml: {message}")
