"""Every family of networks with every method: a map, or one line that says why not and what to use instead."""

from __future__ import annotations

import functools
import gc
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import nn

from dermalyze.config.explain import METHODS, IntegratedGradients, Method, Occlusion, method_spec
from dermalyze.config.model import MetadataSpec, ModelSpec
from dermalyze.errors import ModelError, UsageError
from dermalyze.explain.attention import multiply, read_out, with_prefix
from dermalyze.explain.attribution import EXPLAINERS, LAYERED, explain_batch, refusal
from dermalyze.explain.cams import Question
from dermalyze.imaging.tabular import fit_encoder
from dermalyze.models.cam_head import ClosedForm, reason_against
from dermalyze.models.classifier import Classifier, build_classifier

CAMS = {"gradcam", "gradcam++", "layercam"}
EVERYWHERE = CAMS | {"integrated_gradients", "occlusion"}
ON_MEAN, ATTENDING = EVERYWHERE | {"closed_form"}, EVERYWHERE | {"rollout", "gradient_attention"}
FUSED = {"columns": ["age"], "fusion": {"kind": "concat"}}
FAMILIES: dict[str, tuple[dict[str, Any], int, set[str]]] = {  # spec, edge in px, methods that work; the rest must refuse
    "tiny_cnn": ({}, 32, ON_MEAN),
    "custom_cnn": ({"kwargs": {"img_size": 32}}, 32, EVERYWHERE),
    "custom_cnn_gap": ({}, 40, ON_MEAN),
    "resnet18": ({}, 64, ON_MEAN),
    "seresnet18": ({}, 64, ON_MEAN),
    "efficientnet_b0": ({}, 64, ON_MEAN),
    "densenet121": ({"kwargs": {"block_config": [2, 2, 2, 2]}}, 64, ON_MEAN),
    "mobilenetv2_035": ({}, 64, ON_MEAN),
    "mobilenetv3_small_050": ({}, 64, ON_MEAN),
    "convnext_atto": ({}, 64, ON_MEAN),
    "swin_tiny_patch4_window7_224": ({"kwargs": {"img_size": 64, "depths": [1, 1, 1, 1], "window_size": 2}}, 64, ON_MEAN),
    "levit_128s": ({"kwargs": {"img_size": 128}}, 128, ON_MEAN),
    "convit_tiny": ({"kwargs": {"img_size": 32}}, 32, ATTENDING),
    "cvt": ({"kwargs": {"depth": [1, 2, 3]}}, 64, EVERYWHERE),
    "vit_tiny_patch16_224": ({"kwargs": {"img_size": [32, 48], "depth": 2}}, 32, ATTENDING),
    "vit_base_patch16_clip_224": ({"kwargs": {"img_size": 32, "depth": 1}}, 32, ATTENDING),
    "vit_base_patch16_siglip_224": ({"kwargs": {"img_size": 32, "depth": 1}}, 32, ATTENDING),
    "vit_small_patch14_dinov2": ({"kwargs": {"img_size": 28, "depth": 2}}, 28, ATTENDING),
    "vit_small_patch16_dinov3": ({"kwargs": {"img_size": 32, "depth": 2}}, 32, ATTENDING),
    "concat": ({"backbone": "tiny_cnn", "metadata": FUSED}, 32, ON_MEAN),
    "film": ({"backbone": "tiny_cnn", "metadata": {**FUSED, "fusion": {"kind": "film"}}}, 32, ON_MEAN),
    "acrnn": ({"backbone": "tiny_cnn", "head": {"kind": "acrnn"}}, 32, EVERYWHERE),
    "acrnn on a transformer": (
        {"backbone": "vit_tiny_patch16_224", "kwargs": {"img_size": 32, "depth": 1}, "head": {"kind": "acrnn"}}, 32, ATTENDING,
    ),
}  # fmt: skip
CHEAP: dict[str, Method] = {
    "integrated_gradients": IntegratedGradients(steps=2),
    "occlusion": Occlusion(window=0.5, stride=0.5),
}


@functools.lru_cache(maxsize=2)
def network(family: str) -> tuple[Classifier, torch.Tensor, torch.Tensor | None]:
    """A network of random weights, two images, and metadata where it takes them."""
    torch.manual_seed(0)
    fields, edge, _ = FAMILIES[family]
    spec = ModelSpec.model_validate({"backbone": family, "head": {"kind": "linear"}, **fields})
    encoder = fit_encoder({"age": [40.0, 60.0, 50.0]}) if isinstance(spec.metadata, MetadataSpec) else None
    model = build_classifier(spec, 3, load_weights=False, encoder=encoder).eval()
    for parameter in model.parameters():
        if family.startswith("levit") and not bool(parameter.any()):
            torch.nn.init.normal_(parameter, std=3.0)  # it begins with branches switched off and attention the same everywhere
    width = 48 if family == "vit_tiny_patch16_224" else edge
    metadata = None if encoder is None else torch.from_numpy(encoder({"age": [41.0, 55.0]}))
    return model, torch.randn(2, 3, edge, width), metadata


def state_of(model: nn.Module) -> dict[str, Any]:
    """All that a look into a network could have changed."""
    return {
        "tensors": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "gradients": [parameter.grad is None and parameter.requires_grad for parameter in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) + len(module._backward_hooks) for module in model.modules()],
        "fused": [getattr(module, "fused_attn", None) for module in model.modules()],
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    tensors, others = before.pop("tensors"), after.pop("tensors")
    assert before == after
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)


def inputs_of(images: torch.Tensor, metadata: torch.Tensor | None) -> dict[str, torch.Tensor]:
    return {"image": images, **({} if metadata is None else {"metadata": metadata})}


def test_the_table_is_that_of_the_specs() -> None:
    kinds = [one.model_fields["kind"].default for one in get_args(get_args(Method)[0])]
    assert tuple(kinds) == METHODS == tuple(EXPLAINERS)
    assert all(method_spec(name).kind == name for name in METHODS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_works_or_refuses(family: str, method: str) -> None:
    model, images, metadata = network(family)
    works = FAMILIES[family][2]
    before, ask = state_of(model), CHEAP.get(method, method)
    if method not in works:
        with pytest.raises(ModelError, match=rf"^{method}: .+; use (\w|\+)+$") as caught:
            explain_batch(model, inputs_of(images, metadata), ask)
        assert str(caught.value).rpartition(" ")[2] in works, "what it recommends must work"
        assert refusal(model, inputs_of(images, metadata), ask) == str(caught.value)
    else:
        found = explain_batch(
            model, inputs_of(images, metadata), ask, [2, 1], signed=method not in ("rollout", "gradient_attention")
        )
        assert found.maps.shape == (2, *images.shape[2:])
        assert found.grid.shape[1:] > (1, 1)
        assert torch.isfinite(found.maps).all()
        assert (found.grid.amax(dim=(1, 2)) > found.grid.amin(dim=(1, 2))).all(), "a flat map"
        assert found.classes.tolist() == [2, 1]
        with torch.no_grad():
            assert torch.allclose(found.logits, model(inputs_of(images, metadata)), atol=1e-4)
    assert_same(before, state_of(model))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_graphs_map_is_the_same_wherever_it_has_one(family: str) -> None:
    model, images, metadata = network(family)
    if reason_against(model) is None:
        with torch.no_grad():
            cam_BChw = ClosedForm(model).forward_with_cam(inputs_of(images, metadata))[2]
        found = explain_batch(model, inputs_of(images, metadata), "closed_form", [2, 1], signed=True).grid
        assert torch.allclose(found, cam_BChw[torch.arange(2), torch.tensor([2, 1])], rtol=1e-3, atol=1e-5)
    else:
        assert family not in ("tiny_cnn", "resnet18", "densenet121", "mobilenetv2_035")


@pytest.mark.parametrize("method", sorted(ON_MEAN | ATTENDING))
def test_a_batch_is_its_images(method: str) -> None:
    model, images, _ = network("vit_tiny_patch16_224" if method not in ON_MEAN else "tiny_cnn")
    ask = CHEAP.get(method, method)
    whole = explain_batch(model, images, ask, 1).maps
    alone = torch.cat([explain_batch(model, images[i : i + 1], ask, 1).maps for i in range(2)])
    assert torch.allclose(whole, alone, atol=1e-5 * float(whole.abs().max()))


def bright_finder() -> Classifier:
    """Class 0 is sure of bright pixels, class 1 is against them."""
    spec = ModelSpec.model_validate({"backbone": "tiny_cnn", "kwargs": {"channels": [2, 2]}, "head": {"kind": "linear"}})
    model = build_classifier(spec, 2, load_weights=False).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.1)
        model.head.layers[1].weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))  # type: ignore[attr-defined, index, operator, union-attr]
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
                module.eval()
    return model


@pytest.mark.parametrize("method", sorted(ON_MEAN))
@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_hot_corner_is_found_where_it_is(method: str, corner: tuple[int, int]) -> None:
    model, images = bright_finder(), torch.zeros(1, 3, 32, 48)
    rows, columns = (slice(0, 8), slice(24, 32))[corner[0]], (slice(0, 8), slice(40, 48))[corner[1]]
    images[:, :, rows, columns] = 5.0
    found = explain_batch(model, images, method, 0)
    row, column = divmod(int(found.maps[0].argmax()), 48)
    assert (row >= 16, column >= 24) == (corner[0] == 1, corner[1] == 1)
    assert found.maps.min() >= 0
    # for the other class the same place speaks against it: nothing is left of the positive side, and nothing is NaN
    if method in CAMS | {"closed_form"}:
        assert explain_batch(model, images, method, 1).maps.abs().max() <= 1e-3 * found.maps.max()
    if method != "gradcam++":  # it weighs by positive gradients alone
        signed = explain_batch(model, images, method, 1, signed=True).maps[0]
        assert divmod(int(signed.argmin()), 48)[0] // 16 == corner[0]
        assert signed.min() < 0


def test_the_networks_answer_is_explained_unless_a_class_is_named() -> None:
    model, images, _ = network("tiny_cnn")
    with torch.no_grad():
        called = model(images).argmax(dim=1)
    free, named = explain_batch(model, images, "gradcam"), explain_batch(model, images, "gradcam", called)
    assert free.classes.tolist() == called.tolist()
    assert torch.equal(free.maps, named.maps)
    other = explain_batch(model, images, "gradcam", (called + 1) % 3, signed=True)
    assert not torch.allclose(other.maps, explain_batch(model, images, "gradcam", called, signed=True).maps)


def test_any_layer_with_a_map_can_be_read() -> None:
    model, images, _ = network("resnet18")
    for method in LAYERED:
        early = explain_batch(model, images, method, 1, layer="layer2")
        assert early.grid.shape == (2, 8, 8)
        assert early.maps.shape == (2, 64, 64)
    in_place = explain_batch(model, images, "gradcam", 1, layer="bn1", signed=True)  # a ReLU follows that works in place
    assert in_place.grid.shape == (2, 32, 32)
    with pytest.raises(UsageError, match="no such module; did you mean 'layer4'"):
        explain_batch(model, images, "gradcam", layer="layer44")
    with pytest.raises(UsageError, match="occlusion reads no single layer"):
        explain_batch(model, images, "occlusion", layer="layer4")
    with pytest.raises(ModelError, match="no map"):
        explain_batch(model, images, "gradcam", layer="global_pool")
    with pytest.raises(UsageError, match=r"classes \[3, 3\] of 2 images"):
        explain_batch(model, images, "gradcam", 3)
    with pytest.raises(UsageError, match=r"classes \[0, 1, 2\] of 2 images"):
        explain_batch(model, images, "gradcam", [0, 1, 2])


@pytest.mark.parametrize(("family", "method"), [("tiny_cnn", "gradcam"), ("vit_tiny_patch16_224", "gradient_attention")])
def test_five_hundred_calls_leave_memory_and_model_alone(family: str, method: str) -> None:
    model, images, _ = network(family)
    model.train()
    model.backbone.eval()  # a part in another mode than the rest
    before = state_of(model)

    def living() -> int:
        gc.collect()
        return sum(isinstance(one, torch.Tensor) for one in gc.get_objects())

    try:
        explain_batch(model, images[:1], method, 1)
        count = living()
        for _ in range(500):
            explain_batch(model, images[:1], method, 1)
        assert living() == count
        assert_same(before, state_of(model))
        assert torch.is_grad_enabled()
    finally:
        model.eval()


def test_hooks_go_when_the_network_fails() -> None:
    model, _, _ = network("vit_tiny_patch16_224")
    before = state_of(model)
    for method in ("gradcam", "rollout"):
        with pytest.raises((AssertionError, RuntimeError)):
            explain_batch(model, torch.zeros(1, 3, 31, 48), method)
    assert_same(before, state_of(model))
    assert torch.is_grad_enabled()


def test_columns_of_class_token_and_registers_are_dropped() -> None:
    """Tokens are places in raster order, and what the class token took from itself is no place."""
    model, images, _ = network("vit_tiny_patch16_224")
    question = Question(model, {"image": images[:1]}, None, model.cam_target(), False, method_spec("rollout"))
    flow = torch.zeros(1, 7, 7)
    flow[0, 0] = torch.tensor([100.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    assert read_out(question, flow, None)[0].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    grown = with_prefix(torch.full((1, 2, 2), 0.5), 3)
    assert grown[0].tolist() == [[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]]


def test_rollout_is_the_product_of_the_layers_weights() -> None:
    """By hand from queries and keys, without the hooks."""
    model, images, _ = network("vit_tiny_patch16_224")
    net: Any = model.backbone.net
    with torch.no_grad():
        tokens = net._pos_embed(net.patch_embed(images))
        layers = []
        for block in net.blocks:
            qkv = block.attn.qkv(block.norm1(tokens)).reshape(2, 7, 3, block.attn.num_heads, -1).permute(2, 0, 3, 1, 4)
            weights = (qkv[0] @ qkv[1].transpose(-2, -1) * block.attn.scale).softmax(dim=-1).mean(dim=1)
            layers.append((weights + torch.eye(7)) / 2)
            tokens = block(tokens)
    expected = multiply(layers)[:, 0, 1:].reshape(2, 2, 3)
    assert np.allclose(explain_batch(model, images, "rollout").grid, expected, atol=1e-6)


@pytest.mark.parametrize("method", ["gradcam", "layercam", "integrated_gradients", "occlusion"])
@pytest.mark.parametrize("kind", ["shared", "separate"])
def test_a_map_is_of_the_first_image_and_the_second_one_stays(kind: str, method: str) -> None:
    torch.manual_seed(0)
    spec = ModelSpec.model_validate(
        {"backbone": "tiny_cnn", "kwargs": {"channels": [4, 8]}, "head": {"kind": "linear"}, "image_2": {"kind": kind}}
    )
    model = build_classifier(spec, 3, load_weights=False).eval()
    inputs = {
        "image": torch.randn(2, 3, 32, 40), "image_2": torch.randn(2, 3, 32, 40), "present": torch.tensor([[True], [False]])
    }  # fmt: skip
    ask = CHEAP.get(method, method)
    found = explain_batch(model, inputs, ask, [2, 1], signed=True)
    with torch.no_grad():
        torch.testing.assert_close(found.logits, model(inputs))
    blank = {**inputs, "image": torch.zeros(2, 3, 32, 40)}
    assert not torch.allclose(explain_batch(model, blank, ask, [2, 1], signed=True).maps, found.maps)
    without = {**inputs, "image_2": torch.zeros(2, 3, 32, 40)}
    again = explain_batch(model, without, ask, [2, 1], signed=True)
    torch.testing.assert_close(again.maps[1], found.maps[1])
    if method == "gradcam":  # the pooled features of the two are side by side, so the first map does not hang on the second
        torch.testing.assert_close(again.maps, found.maps)
