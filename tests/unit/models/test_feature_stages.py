"""Stages: every parameter in exactly one, in depth order, modules with their parameters; over all families."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dermalyze.config.model import ModelSpec
from dermalyze.models.backbones import Backbone, create_backbone
from dermalyze.models.feature_stages import split_stages

FAMILIES = {
    "tiny_cnn": ["stem", "layers.4", "layers.8", "layers.12"],
    "resnet50": ["stem", "layer1", "layer2", "layer3", "layer4"],
    "densenet121": ["stem", *(f"features.denseblock{i}" for i in range(1, 5))],  # the closing norm belongs to the last block
    "efficientnet_b0": ["stem", *(f"blocks.{i}" for i in range(7))],
    "mobilenetv3_small_050": ["stem", *(f"blocks.{i}" for i in range(6)), "conv_head"],
    "convnext_atto": ["stem", *(f"stages.{i}" for i in range(4))],
    "swin_tiny_patch4_window7_224": ["stem", *(f"layers.{i}" for i in range(4))],
    "levit_128s": ["stem", *(f"stages.{i}" for i in range(3))],
    "vit_tiny_patch16_224": ["stem", *(f"blocks.{i}" for i in range(12))],
    "vit_base_patch16_siglip_224": ["stem", *(f"blocks.{i}" for i in range(12)), "attn_pool"],
    "vit_small_patch16_dinov3": ["stem", *(f"blocks.{i}" for i in range(12))],
    "convit_tiny": ["stem", *(f"blocks.{i}" for i in range(12))],
    "rdnet_tiny": ["stem", *(f"dense_stages.{i}" for i in range(7))],  # says nothing of its parts
    "coat_tiny": [  # modules that share parameters
        "stem",
        "serial_blocks1.0.norm1",
        "serial_blocks1.1.norm1",
        *(part for i in (2, 3, 4) for part in (f"patch_embed{i}", f"serial_blocks{i}.0.norm1", f"serial_blocks{i}.1.norm1")),
        *(f"parallel_blocks.{i}.norm12" for i in range(6)),
    ],
    "pit_ti_224": ["stem", *(f"transformers.{i}" for i in range(3))],
}


def on_meta(name: str) -> Backbone:
    with torch.device("meta"):
        return create_backbone(ModelSpec(backbone=name), load_weights=False)


@pytest.mark.parametrize("name", FAMILIES)
def test_stages_of_a_family(name: str) -> None:
    backbone = on_meta(name)
    stages = backbone.stages()
    assert [stage.name for stage in stages] == FAMILIES[name]
    found = [id(parameter) for stage in stages for parameter in stage.parameters]
    assert sorted(found) == sorted(id(parameter) for parameter in backbone.parameters())
    direct = {id(parameter) for parameter in backbone.net.parameters(recurse=False)}
    for stage in stages:  # modules hold what is theirs, and all of it but what hangs on the network itself
        inside = {id(parameter) for module in stage.modules for parameter in module.parameters()}
        assert inside == {id(parameter) for parameter in stage.parameters} - direct
    in_stages = {id(module) for stage in stages for part in stage.modules for module in part.modules()}
    norms = (nn.BatchNorm2d, nn.BatchNorm1d)
    assert all(id(module) in in_stages for module in backbone.modules() if isinstance(module, norms))


def test_order_is_that_of_the_pass() -> None:
    """The first module of each stage is reached in the order of the stages."""
    backbone = create_backbone(ModelSpec(backbone="densenet121"), load_weights=False).eval()
    reached: list[str] = []
    for stage in backbone.stages():
        stage.modules[0].register_forward_hook(lambda *_, name=stage.name: reached.append(name))  # type: ignore[arg-type, misc]
    with torch.inference_mode():
        backbone.embed(torch.zeros(1, 3, 64, 64))
    assert reached == [stage.name for stage in backbone.stages()]


@pytest.mark.parametrize("groups", [[["0.weight"]], [["0.weight", "0.bias"], ["0.bias"]]])
def test_a_parameter_lost_or_twice_is_an_error(groups: list[list[str]]) -> None:
    with pytest.raises(ValueError, match="every parameter exactly once"):
        split_stages(nn.Sequential(nn.Linear(2, 2)), groups)
