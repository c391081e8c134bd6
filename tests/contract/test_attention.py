"""Every attention block behind stages of convolutional networks; the table agrees with its specs."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, get_args

import onnxruntime
import pytest
import torch
from pydantic import ValidationError

from dermalyze.config.model import AttentionSpec, ModelSpec
from dermalyze.errors import ConfigError
from dermalyze.models.attention import ATTENTION, NonLocal, Se, Spatial
from dermalyze.models.backbones import create_backbone
from dermalyze.models.classifier import Classifier, build_classifier
from dermalyze.models.weights import load_state, save_state

SPECS = {get_args(member.model_fields["kind"].annotation)[0]: member for member in get_args(get_args(AttentionSpec)[0])}
PLACES = {  # a stage in the middle and the last that has a map; its module without attention
    "tiny_cnn": {1: "layers.5", 3: "layers.13"},
    "resnet10t": {2: "layer2", 4: "layer4"},
    "densenet121": {1: "features.transition1", 4: "features.norm5"},
    "efficientnet_b0": {3: "blocks.2", 7: "bn2"},
    "mobilenetv3_small_050": {0: "bn1", 6: "blocks.5"},
    "convnext_atto": {2: "stages.1", 4: "stages.3"},
}


def build(backbone: str, *attention: dict[str, Any]) -> Classifier:
    spec = ModelSpec.model_validate({"backbone": backbone, "attention": attention, "head": {"kind": "linear"}})
    return build_classifier(spec, 3, load_weights=False)


def test_table_and_specs_name_the_same_blocks() -> None:
    assert ATTENTION.keys() == SPECS.keys()


@pytest.mark.parametrize("kind", sorted(ATTENTION))
def test_keyword_arguments_are_the_fields(kind: str) -> None:
    keywords = {n for n, p in inspect.signature(ATTENTION[kind]).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert keywords == SPECS[kind].model_fields.keys() - {"kind", "stage"}


@pytest.mark.parametrize("kind", sorted(ATTENTION))
def test_shape_gradient_and_save(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = SPECS[kind](stage=1)
    block = ATTENTION[kind](6, **spec.model_dump(exclude={"kind", "stage"}))
    maps = torch.randn(2, 6, 3, 5, requires_grad=True)
    out = block(maps)
    assert out.shape == maps.shape
    out.square().sum().backward()
    assert maps.grad is not None
    assert torch.isfinite(maps.grad).all()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in block.parameters())
    save_state(tmp_path / "a.safetensors", block)
    other = ATTENTION[kind](6, **spec.model_dump(exclude={"kind", "stage"}))
    load_state(tmp_path / "a.safetensors", other)
    assert torch.equal(other.eval()(maps), block.eval()(maps))


@pytest.mark.parametrize("backbone", PLACES)
def test_behind_stages(backbone: str) -> None:
    """The parts stay and grow by their blocks, which stand at the stage's end and learn."""
    torch.manual_seed(0)
    plain = build(backbone)
    (middle, name), (last, last_name) = PLACES[backbone].items()
    torch.manual_seed(0)
    model = build(
        backbone, {"kind": "se", "stage": middle}, {"kind": "spatial", "stage": middle}, {"kind": "cbam", "stage": last}
    )
    assert [stage.name.partition(".")[0] for stage in model.stages()] == [s.name.partition(".")[0] for s in plain.stages()]
    grown = [len(a.parameters) - len(b.parameters) for a, b in zip(model.stages(), plain.stages(), strict=True)]
    assert {i: n for i, n in enumerate(grown) if n} == {middle: 4 + 3, last: 4 + 3}
    first, second = (model.backbone.net.get_submodule(n) for n in (name, last_name))
    assert [type(m) for m in first.modules()].count(Se) == [type(m) for m in first.modules()].count(Spatial) == 1  # type: ignore[attr-defined]
    assert isinstance(second, torch.nn.Sequential)
    logits = model.train()(torch.randn(2, 3, 64, 64))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    found = [m for m in model.modules() if isinstance(m, Se | Spatial)]
    assert len(found) == 4
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for block in found for p in block.parameters())


def embed(images: torch.Tensor, **values: Any) -> torch.Tensor:
    torch.manual_seed(0)
    spec = ModelSpec.model_validate(values)
    with torch.inference_mode():
        return create_backbone(spec, load_weights=spec.weights is not None).eval().embed(images)


@pytest.mark.parametrize("backbone", ["resnet10t", "densenet121"])
def test_self_attention_begins_as_the_identity(backbone: str) -> None:
    images = torch.randn(2, 3, 64, 64)
    block = {"kind": "self_attention", "stage": 3}
    assert torch.equal(embed(images, backbone=backbone, attention=[block]), embed(images, backbone=backbone))


def test_weights_are_loaded_before_the_blocks_stand(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    sidecar = {
        "file": path.name, "sha256": save_state(path, create_backbone(ModelSpec(backbone="tiny_cnn"), load_weights=False).net),
        "create_name": "tiny_cnn", "create_kwargs": {}, "input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3,
    }  # fmt: skip
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    images, common = torch.randn(1, 3, 32, 32), {"backbone": "tiny_cnn", "weights": str(path)}
    loaded = embed(images, **common)
    assert torch.equal(embed(images, **common, attention=[{"kind": "self_attention", "stage": 2}]), loaded)
    assert not torch.equal(embed(images, backbone="tiny_cnn"), loaded)


@pytest.mark.parametrize(
    ("backbone", "stage", "message"),
    [
        ("resnet10t", 5, r"stage 5 of a network of stages 0 \(the stem\) to 4"),
        ("mobilenetv3_small_050", 7, r"stage 7 \(conv_head\) of MobileNetV3 gives no map"),
        ("vit_tiny_patch16_224", None, "of VisionTransformer gives no map"),
        ("vit_tiny_patch16_224", 3, "gives no map of channels; attention stands behind stages of convolutional networks"),
        ("swin_tiny_patch4_window7_224", 2, "SwinTransformer is a transformer and has attention; remove it"),
    ],
)
def test_refusals(backbone: str, stage: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(backbone, {"kind": "se", "stage": stage})
    assert "\n" not in str(caught.value)


def test_without_a_stage_it_stands_behind_the_last_map() -> None:
    net = build("mobilenetv3_small_050", {"kind": "se"}).backbone.net
    assert isinstance(net.get_submodule("blocks.5.1"), Se)


def test_unknown_kind_and_stage() -> None:
    for wrong in ({"kind": "see", "stage": 1}, {"kind": "se", "stage": -1}):
        with pytest.raises(ValidationError):
            ModelSpec.model_validate({"attention": [wrong]})


def test_se_equals_its_definition() -> None:
    torch.manual_seed(0)
    block, maps = Se(4, reduction=2), torch.randn(1, 4, 2, 2)
    first, second = block.layers[0], block.layers[2]
    weight = torch.sigmoid(second.weight @ torch.relu(first.weight @ maps.mean((2, 3))[0] + first.bias) + second.bias)
    for channel in range(4):
        torch.testing.assert_close(block(maps)[0, channel], maps[0, channel] * weight[channel])


def test_self_attention_equals_its_definition() -> None:
    """Against loops over places: weights of a place sum to 1 over all places, and it gathers their values."""
    torch.manual_seed(0)
    block, maps = NonLocal(4, reduction=2), torch.randn(1, 4, 2, 3)
    torch.nn.init.normal_(block.out.weight)
    query, key, value = (layer(maps)[0].flatten(1).T for layer in (block.query, block.key, block.value))
    gathered = torch.stack([(torch.softmax(key @ q / 2**0.5, 0)[:, None] * value).sum(0) for q in query])
    expected = maps[0].flatten(1).T + gathered @ block.out.weight[:, :, 0, 0].T
    torch.testing.assert_close(block(maps)[0].flatten(1).T, expected)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_onnx_with_every_block() -> None:
    torch.manual_seed(0)
    model = build("tiny_cnn", *({"kind": kind, "stage": 1 + i % 3} for i, kind in enumerate(sorted(ATTENTION)))).eval()
    program = torch.onnx.export(
        model, (torch.randn(2, 3, 32, 48),), dynamo=True, opset_version=18, input_names=["images"], verbose=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )  # fmt: skip
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        images = torch.randn(batch, 3, 32, 48)
        with torch.inference_mode():
            expected = model(images)
        torch.testing.assert_close(
            torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), expected, rtol=1e-4, atol=1e-5
        )
