"""Closed-form class-activation maps against automatic differentiation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dermalyze.config.model import ModelSpec
from dermalyze.models.cam_head import ClosedForm, cam_record, map_size, reason_against
from dermalyze.models.classifier import Classifier, build_classifier
from dermalyze.models.fusion import Late

HEADS = [{"kind": "linear"}, {"kind": "simple", "hidden": [24, 16]}]


def network(head: dict[str, object], backbone: str = "tiny_cnn", seed: int = 0, **more: object) -> Classifier:
    torch.manual_seed(seed)
    kwargs = {"kwargs": {"channels": [8, 12]}} if backbone == "tiny_cnn" else {}
    spec = ModelSpec.model_validate({"backbone": backbone, **kwargs, "head": head, **more})
    model = build_classifier(spec, 4, load_weights=False)
    for module in model.modules():  # statistics that are not those of a new layer
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.2, 3.0)  # type: ignore[arg-type]
    return model.eval()


def differentiated(model: Classifier, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and gradient times activation summed over the channels, times the number of places: (B, C, h, w)."""
    target, seen = model.cam_target(), []
    handle = target.module.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    logits = model(images)
    handle.remove()
    size = (images.shape[2], images.shape[3])
    maps = []
    for c in range(logits.shape[1]):
        (gradient,) = torch.autograd.grad(logits[:, c].sum(), seen[0], retain_graph=True)
        maps.append((target.as_map(gradient, size) * target.as_map(seen[0], size)).sum(dim=1))
    cam = torch.stack(maps, dim=1)
    return logits, cam * cam.shape[2] * cam.shape[3]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head["kind"])
def test_gradient_times_activation(head: dict[str, object]) -> None:
    model, images = network(head), torch.randn(3, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    assert reason_against(model) is None
    expected_logits, expected = differentiated(model, images)
    with torch.inference_mode():
        logits, embedding, cam = ClosedForm(model).forward_with_cam(images)
        again = model.forward_with_embedding(images)
    assert map_size(model, 32, 48) == tuple(cam.shape[2:]) == (8, 12)
    torch.testing.assert_close(cam, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits, expected_logits, rtol=1e-5, atol=1e-5)
    assert torch.equal(logits, again[0])
    assert torch.equal(embedding, again[1])


def test_linear_maps_sum_to_the_logits() -> None:
    model, images = network(HEADS[0]), torch.randn(5, 3, 32, 32)
    with torch.inference_mode():
        logits, _, cam = ClosedForm(model).forward_with_cam(images)
    bias = model.head.layers[-1].bias  # type: ignore[union-attr]
    torch.testing.assert_close(cam.mean(dim=(2, 3)) + bias, logits, rtol=1e-5, atol=1e-5)


def test_simple_maps_average_to_jacobian_times_embedding() -> None:
    model, scales = network(HEADS[1]), torch.tensor([0.1, 0.5, 1.0, 2.0, 4.0, 8.0]).view(-1, 1, 1, 1)
    images = scales * torch.randn(6, 3, 32, 32) + torch.randn(6, 3, 1, 1)
    with torch.no_grad():
        _, embedding, cam = ClosedForm(model).forward_with_cam(images)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda e: model.head(e[None])[0]))(embedding)
    torch.testing.assert_close(
        cam.mean(dim=(2, 3)), torch.einsum("bcd,bd->bc", jacobian.detach(), embedding), rtol=1e-4, atol=1e-5
    )
    assert bool((jacobian != jacobian[:1]).any()), "the images must open other ReLUs, or the test says nothing of them"


def test_late_fusion_shows_the_image_part() -> None:
    model, images = network(HEADS[0]), torch.randn(2, 3, 32, 32)
    fused = Classifier(model.backbone, Late(model.head, 4, np.zeros(5, np.float32)), classes=4).eval()
    assert reason_against(fused) is None
    with torch.inference_mode():
        torch.testing.assert_close(
            ClosedForm(fused).forward_with_cam({"image": images, "metadata": torch.randn(2, 5)})[2],
            ClosedForm(model).forward_with_cam(images)[2],
        )


@pytest.mark.parametrize(
    ("backbone", "head", "said"),
    [
        ("tiny_cnn", {"kind": "acrnn"}, "takes the map"),
        ("custom_cnn_gap", {"kind": "linear"}, "not the mean of the last map"),
        pytest.param("custom_cnn", {"kind": "linear"}, "of any size", marks=pytest.mark.slow),
        pytest.param("convnext_atto", {"kind": "linear"}, "not the mean", marks=pytest.mark.slow),
        pytest.param("mobilenetv3_small_050", {"kind": "linear"}, "not the mean", marks=pytest.mark.slow),
        pytest.param("vit_tiny_patch16_224", {"kind": "linear"}, "pools tokens", marks=pytest.mark.slow),
    ],
)
def test_others_have_none_and_a_reason(backbone: str, head: dict[str, object], said: str) -> None:
    reason = reason_against(network(head, backbone))
    assert reason is not None
    assert said in reason
    assert cam_record(reason) == {"kind": "none", "reason": reason, "height": 0, "width": 0}


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone", ["resnet18", "densenet121", "mobilenetv2_050", "efficientnet_b0", "swin_tiny_patch4_window7_224"]
)
def test_usual_backbones_have_one(backbone: str) -> None:
    model = network(HEADS[0], backbone)
    assert reason_against(model) is None
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        logits, _, cam = ClosedForm(model).forward_with_cam(images)
    torch.testing.assert_close(cam.mean(dim=(2, 3)) + model.head.layers[-1].bias, logits, rtol=1e-3, atol=1e-3)  # type: ignore[union-attr]
