"""Maps against captum's on the same networks, and against the definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dermalyze.config.explain import IntegratedGradients
from dermalyze.config.model import ModelSpec
from dermalyze.explain.attribution import explain_batch
from dermalyze.models.cam_head import ClosedForm
from dermalyze.models.classifier import Classifier, build_classifier

captum = pytest.importorskip("captum.attr")


def build(backbone: str, head: str = "linear", **kwargs: Any) -> Classifier:
    torch.manual_seed(1)
    spec = ModelSpec.model_validate({"backbone": backbone, "kwargs": kwargs, "head": {"kind": head}})
    return build_classifier(spec, 4, load_weights=False).eval()


@pytest.mark.parametrize(
    ("model", "edge"),
    [
        (lambda: build("tiny_cnn"), 48),
        (lambda: build("tiny_cnn", "simple"), 48),
        (lambda: build("tiny_cnn", "acrnn"), 48),
        (lambda: build("custom_cnn", img_size=32), 32),
        (lambda: build("mobilenetv2_035"), 64),
    ],
)
@pytest.mark.parametrize("signed", [False, True])
def test_gradcam_is_captums(model: Any, edge: int, signed: bool) -> None:
    network, images = model(), torch.randn(3, 3, edge, edge)
    expected = captum.LayerGradCam(network, network.backbone.tap).attribute(
        images, target=[0, 1, 3], relu_attributions=not signed
    )[:, 0].detach()  # fmt: skip
    found = explain_batch(network, images, "gradcam", [0, 1, 3], signed=signed).grid
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max() + 1e-12))


def test_integrated_gradients_add_up_to_the_difference_of_the_logits() -> None:
    """Completeness (Sundararajan et al. 2017, proposition 1), from the image's mean color."""
    model, images = build("tiny_cnn"), torch.randn(2, 3, 32, 32)
    found = explain_batch(model, images, IntegratedGradients(steps=200), [1, 2], signed=True)
    plain = images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    with torch.no_grad():
        change = (model(images) - model(plain))[torch.arange(2), torch.tensor([1, 2])]
    assert torch.allclose(found.maps.sum(dim=(1, 2)), change, rtol=0.05)


def test_closed_form_of_a_linear_head_is_its_weights_times_the_map() -> None:
    """Zhou et al. 2016: the mean of the map and the bias are the logit."""
    model, images = build("tiny_cnn"), torch.randn(2, 3, 48, 32)
    found = explain_batch(model, images, "closed_form", 2, signed=True)
    layer: Any = model.head.layers[1]  # type: ignore[union-attr, index]
    with torch.no_grad():
        expected = torch.einsum("d,bdhw->bhw", layer.weight[2], model.features(images))
    assert torch.allclose(found.grid, expected, atol=1e-5)
    assert torch.allclose(found.grid.mean(dim=(1, 2)) + layer.bias[2], found.logits[:, 2], atol=1e-5)


@pytest.mark.parametrize("head", ["linear", "simple"])
def test_closed_form_is_gradcam_without_the_way_back(head: str) -> None:
    model, images = build("tiny_cnn", head), torch.randn(2, 3, 48, 32)
    closed, gradcam = (explain_batch(model, images, method, 1, signed=True).grid for method in ("closed_form", "gradcam"))
    assert torch.allclose(closed, 6 * gradcam, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        of_the_graph = ClosedForm(model).forward_with_cam(images)[2][:, 1]
    assert torch.allclose(closed, of_the_graph, rtol=1e-4, atol=1e-5)
