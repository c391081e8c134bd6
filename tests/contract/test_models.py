"""Every family behind one interface: shapes, gradients, stages, map target, saving, export; the documents' parameter counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dermalyze.artifact.graph import Graph
from dermalyze.config.model import ModelSpec
from dermalyze.errors import ConfigError, ModelError
from dermalyze.imaging.preprocess import Preprocessing
from dermalyze.models.cards import Card, cards
from dermalyze.models.classifier import Classifier, build_classifier
from dermalyze.models.deployed import Deployed, to_onnx
from dermalyze.models.names import names
from dermalyze.models.parity import TOLERANCE, measure_parity
from dermalyze.models.weights import load_state, save_state

SMALL: dict[str, tuple[dict[str, Any], int]] = {  # the smallest of each family: kwargs, edge in px
    "tiny_cnn": ({}, 32),
    "custom_cnn": ({"img_size": 32}, 32),
    "custom_cnn_gap": ({}, 40),
    "resnet18": ({}, 64),
    "seresnet18": ({}, 64),
    "efficientnet_b0": ({}, 64),
    "tf_efficientnetv2_b0": ({}, 64),
    "densenet121": ({"block_config": [2, 2, 2, 2]}, 64),
    "mobilenetv2_035": ({}, 64),
    "mobilenetv3_small_050": ({}, 64),
    "convnext_atto": ({}, 64),
    "swin_tiny_patch4_window7_224": ({"img_size": 64, "depths": [1, 1, 1, 1], "window_size": 2}, 64),
    "levit_128s": ({"img_size": 64}, 64),
    "convit_tiny": ({"img_size": 32}, 32),
    "cvt": ({"depth": [1, 2, 3]}, 64),
    "vit_tiny_patch16_224": ({"img_size": 32, "depth": 2}, 32),
    "vit_base_patch16_clip_224": ({"img_size": 32, "depth": 1}, 32),
    "vit_base_patch16_siglip_224": ({"img_size": 32, "depth": 1}, 32),
    "vit_small_patch14_dinov2": ({"img_size": 28, "depth": 2}, 28),
    "vit_small_patch16_dinov3": ({"img_size": 32, "depth": 2}, 32),
}
FAST_EXPORT = {"custom_cnn"}


def build(name: str, kwargs: dict[str, Any], classes: int = 3) -> Classifier:
    spec = ModelSpec.model_validate({"backbone": name, "kwargs": kwargs, "head": {"kind": "linear"}})
    return build_classifier(spec, classes, load_weights=False)


@pytest.mark.parametrize("name", SMALL)
def test_one_interface(name: str, tmp_path: Path) -> None:
    """Forward, backward, features, embed, stages, where the map is read, save and load."""
    torch.manual_seed(0)
    kwargs, edge = SMALL[name]
    model = build(name, kwargs).train()
    images = torch.randn(2, 3, edge, edge)
    torch.nn.functional.cross_entropy(model(images), torch.tensor([0, 2])).backward()
    stages = model.stages()
    assert sorted(map(id, model.backbone.parameters())) == sorted(id(p) for stage in stages for p in stage.parameters)
    assert stages[0].name == "stem"
    for stage in stages:
        assert any(p.grad is not None and bool(p.grad.any()) for p in stage.parameters), stage.name
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)

    model.eval()
    with torch.inference_mode():
        logits, embedding, maps = model(images), model.embed(images), model.features(images)
    assert logits.shape == (2, 3)
    assert embedding.shape == (2, model.width) == (2, model.backbone.width)
    assert maps.shape[:2] == (2, model.backbone.map_width)

    target, seen = model.cam_target(), []
    handle = target.module.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    score = model(images)[:, 1].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, seen[0])
    read, sloped = (target.as_map(tensor, (edge, edge)) for tensor in (seen[0], gradient))
    assert read.shape == sloped.shape == maps.shape
    assert (sloped != 0).flatten(2).any(dim=1).all(), "a place of the map has no gradient"

    save_state(tmp_path / "a.safetensors", model)
    other = build(name, kwargs).eval()
    load_state(tmp_path / "a.safetensors", other)
    with torch.inference_mode():
        assert torch.equal(other(images), logits)


def deployed(model: Any, edge: int) -> Deployed:
    p = Preprocessing("squash", edge, edge, 1.0, model.backbone.mean, model.backbone.std)
    return Deployed(model, p, (p.image,)).eval()


@pytest.mark.parametrize("name", [n if n in FAST_EXPORT else pytest.param(n, marks=pytest.mark.slow) for n in SMALL])
def test_export(name: str) -> None:
    """The graph gives the probabilities of PyTorch, with the batch free."""
    torch.manual_seed(0)
    kwargs, edge = SMALL[name]
    model = build(name, kwargs).eval()
    network = deployed(model, edge)
    graph = Graph(to_onnx(network), network.inputs, classes=3)
    assert measure_parity(network, graph)["max_probability_difference"] < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18", "vit_tiny_patch16_224", "tiny_cnn", "vit_small_patch14_dinov2", "vit_base_patch16_siglip_224"]
)
def test_int8(name: str, tmp_path: Path) -> None:
    """Static quantization of the graph: a third of the bytes at most, and logits nearer to the old ones than to zero."""
    from onnxruntime import InferenceSession, quantization

    torch.manual_seed(0)
    kwargs, edge = SMALL[name]
    model = build(name, kwargs).eval()
    full, small = tmp_path / "full.onnx", tmp_path / "small.onnx"
    full.write_bytes(to_onnx(deployed(model, edge)))
    images = np.random.default_rng(0).integers(0, 256, (11, edge, edge, 3), dtype=np.uint8)
    batches = iter([{"image": images[i : i + 2]} for i in range(0, 8, 2)])

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            return next(batches, None)

    quantization.quantize_static(full, small, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True)
    assert small.stat().st_size < full.stat().st_size / 3
    before, after = (InferenceSession(path).run(["logits"], {"image": images[8:]})[0] for path in (full, small))
    assert 0 < np.abs(after - before).max() < 0.5 * np.abs(before).max()


@pytest.mark.slow
@pytest.mark.parametrize("card", cards().values(), ids=lambda card: card.name)
def test_large_ones_really_run(card: Card) -> None:
    """One image at the network's own size; up to 100 M parameters also backwards."""
    torch.manual_seed(0)
    model = build(card.name, {})
    images = torch.randn(2 if card.parameters < 100e6 else 1, 3, *card.size)
    if card.parameters < 100e6:
        model.train()(images).square().sum().backward()
        assert all(any(p.grad is not None for p in stage.parameters) for stage in model.stages())
    model.eval()
    with torch.inference_mode():
        logits, embedding = model.forward_with_embedding(images)
        assert model.features(images).shape[:2] == (len(images), model.backbone.map_width)
    assert torch.isfinite(logits).all()
    assert embedding.shape == (len(images), card.width)


def on_meta(name: str, classes: int, **kwargs: Any) -> Classifier:
    with torch.device("meta"):
        return build(name, kwargs, classes)


# Millions as the documents state them. They count the classifier of 1,000 ImageNet classes.
STATED = {
    "resnet34": 22, "resnet50": 25.6, "resnet101": 45, "resnet152": 60,
    "efficientnet_b0": 5.3, "efficientnet_b1": 7.8, "efficientnet_b2": 9.2, "efficientnet_b3": 12, "efficientnet_b4": 19.3,
    "efficientnet_b5": 30, "tf_efficientnet_b6": 43, "tf_efficientnet_b7": 66,
    "densenet121": 8.0, "densenet169": 14, "densenet201": 20, "densenet264": 32,
    "vit_base": 86.6, "vit_large": 305, "vit_huge": 632,
    "efficientnet_v2_s": 21, "efficientnet_v2_m": 54, "efficientnet_v2_l": 118,
}  # fmt: skip


@pytest.mark.parametrize("name", STATED)
def test_parameters_are_the_documents(name: str) -> None:
    count = sum(p.numel() for p in on_meta(name, 1000).parameters())
    assert count / 1e6 == pytest.approx(STATED[name], rel=0.05)


def test_parameters_where_a_document_is_wrong() -> None:
    """12.5 M for "Custom CNN" (architecture guide) cannot be the network drawn: its first linear layer alone has 51.4 M."""
    model = on_meta("custom_cnn", 7)
    assert sum(p.numel() for p in model.parameters()) == 53_000_199
    first = model.backbone.net.neck[0]  # type: ignore[index, union-attr]
    assert (first.in_features, first.out_features) == (512 * 14 * 14, 512)
    # 11 M for ResNet-18 is 11.7 M cut off, or the network without the classifier that all the other figures count
    model = on_meta("resnet18", 1000)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(11.69, abs=0.01)
    assert sum(p.numel() for p in model.backbone.parameters()) / 1e6 == pytest.approx(11, rel=0.05)
    # timm's densenet264d, which a search for the document's DenseNet-264 finds, is another network
    assert sum(p.numel() for p in on_meta("densenet264d", 1000).parameters()) > 2 * 32e6


def test_the_custom_network_is_the_drawing() -> None:
    """Kernels, widths and order of the drawing, with the head that it ends in."""
    model = on_meta("custom_cnn", 7)
    layers = [m for m in model.modules() if not list(m.children())]
    shown = [type(m).__name__ for m in layers if not isinstance(m, torch.nn.Identity | torch.nn.Dropout)]
    assert shown == [*["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"] * 4, "Linear", "ReLU", "Linear", "ReLU", "Linear"]
    convolutions = [m for m in layers if isinstance(m, torch.nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(3, 64), (64, 128), (128, 256), (256, 512)]
    assert {(c.kernel_size, c.stride, c.padding) for c in convolutions} == {((3, 3), (1, 1), (1, 1))}
    linears = [(m.in_features, m.out_features) for m in layers if isinstance(m, torch.nn.Linear)]
    assert linears == [(512 * 14 * 14, 512), (512, 128), (128, 7)]


def test_the_custom_network_has_one_size_and_its_variant_any() -> None:
    model = build("custom_cnn", {"img_size": [32, 48]}).eval()
    assert model.backbone.default_size == (32, 48)
    with pytest.raises(ValueError, match="of 32x48 px, not 48x32"):
        model(torch.zeros(1, 3, 48, 32))
    free = build("custom_cnn_gap", {}).eval()
    assert free(torch.zeros(1, 3, 17, 50)).shape == (1, 3)
    with pytest.raises(ConfigError, match="img_size must be 16 px or more"):
        build("custom_cnn", {"img_size": 8})


@pytest.mark.parametrize(
    ("name", "width"),
    [("ResNet-50", 2048), ("EfficientNet-B3", 1536), ("DenseNet-121", 1024), ("ViT-Base", 768), ("densenet_264", 2688)],
)
def test_embedding_widths(name: str, width: int) -> None:
    assert on_meta(name, 7).width == width


@pytest.mark.parametrize("name", sorted({*names().aliases, *names().variants}))
def test_names_of_the_documents_are_known(name: str) -> None:
    from dermalyze.models.backbones import pretrained_cfg_of

    assert min(pretrained_cfg_of(ModelSpec(backbone=name)).size) >= 160


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"backbone": "densenet264", "pretrained": True}, ModelError, "no weights of densenet264 exist"),
        (
            {"backbone": "efficientnet_b7", "pretrained": True},
            ModelError,
            r"are on timm's hub \(those of tf_efficientnet_b7 are\)",
        ),
        (
            {"backbone": "cvt_21", "kwargs": {"depth": [1, 1, 1]}},
            ConfigError,
            "depth is what makes cvt_21; remove it, or write cvt",
        ),
        ({"backbone": "cvt_13", "kwargs": {"dept": 3}}, ConfigError, "unexpected keyword argument 'dept'"),
        ({"backbone": "vit_bas"}, ConfigError, "nearest: .*vit_base"),
    ],
)
def test_refusals(values: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        build_classifier(ModelSpec.model_validate(values), 3, load_weights=True)
    assert "\n" not in str(caught.value)
