"""The network: freezing, embedding, memory format, the input check."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dermalyze.config.model import ModelSpec
from dermalyze.config.train import FrozenStrategy
from dermalyze.errors import ModelError
from dermalyze.models.classifier import Classifier, build_classifier, check_input
from dermalyze.training.transfer import Plan


def build(**values: object) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(ModelSpec.model_validate({"backbone": "tiny_cnn", **values}), 3, load_weights=False)


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def step(model: Classifier) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    logits = model(torch.randn(4, 3, 32, 32))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()


@pytest.mark.parametrize("kind", ["linear", "simple", "acrnn"])
def test_a_frozen_backbone_stays_bit_for_bit(kind: str) -> None:
    model = build(head={"kind": kind})
    Plan(model, FrozenStrategy(), epochs=1)
    model.eval().train().train()
    before, head_before = state(model.backbone), state(model.head)
    assert model.training
    assert model.head.training
    assert not any(module.training for module in model.backbone.modules())
    step(model)
    for name, tensor in model.backbone.state_dict().items():  # running means and counters included
        assert torch.equal(tensor, before[name]), name
    assert any(not torch.equal(tensor, head_before[name]) for name, tensor in model.head.state_dict().items())
    assert all(parameter.grad is None for parameter in model.backbone.parameters())


def test_a_free_backbone_learns() -> None:
    model = build().train()
    before = state(model.backbone)
    step(model)
    assert all(not torch.equal(tensor, before[name]) for name, tensor in model.backbone.state_dict().items())


def test_frozen_dropout_is_off() -> None:
    model = build(backbone="resnet10t", kwargs={"drop_rate": 0.5, "drop_path_rate": 0.5})
    Plan(model, FrozenStrategy(), epochs=1)
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(model.embed(images), model.embed(images))


@pytest.mark.parametrize("kind", ["linear", "simple", "acrnn"])
def test_embedding_and_logits_come_from_one_pass(kind: str) -> None:
    model = build(head={"kind": kind}).eval()
    calls = []
    model.backbone.net.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[arg-type]
    model.backbone.net.layers.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[operator, union-attr]
    images = torch.randn(2, 3, 48, 80)
    with torch.inference_mode():
        logits, embedding = model.forward_with_embedding(images)
        assert len(calls) == 1
        assert torch.equal(logits, model(images))
        assert torch.equal(embedding, model.embed(images))
        torch.testing.assert_close(embedding, model.features(images).mean(dim=(2, 3)))
    assert embedding.shape == (2, model.width)


def test_the_embedding_of_a_map_head_holds_no_untrained_layer() -> None:
    """MobileNetV3 ends in a layer after pooling, which ACRNN never trains."""
    model = build(backbone="mobilenetv3_small_050", head={"kind": "acrnn"}).eval()
    with torch.inference_mode():
        embedding = model.embed(torch.randn(1, 3, 64, 64))
    assert embedding.shape == (1, model.width) == (1, 288)
    assert build(backbone="mobilenetv3_small_050").width == 1024


def test_channels_last_gives_the_same_logits() -> None:
    model = build(head={"kind": "acrnn"}).eval()
    images = torch.randn(2, 3, 32, 48)
    with torch.inference_mode():
        expected = model(images)
        found = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected)


def test_the_seed_decides_the_random_weights() -> None:
    first, second = build(), build()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("classes", [0, 1])
def test_too_few_classes(classes: int) -> None:
    with pytest.raises(ModelError, match="2 or more"):
        build_classifier(ModelSpec(backbone="tiny_cnn"), classes, load_weights=False)


def test_check_input_refuses_a_size_and_changes_nothing() -> None:
    model = build().train()
    before = state(model)
    check_input(model, 64, 96)
    with pytest.raises(ModelError, match=r"does not take 8x8 px: .*its own size is 96x96"):
        check_input(model, 8, 8)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
