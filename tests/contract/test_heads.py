"""Every head behind small backbones: shapes, gradients, save and load; the table agrees with its specs."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_args

import onnxruntime
import pytest
import torch

from dermalyze.config.model import AcrnnHead, HeadSpec, LinearHead, ModelSpec, SimpleHead
from dermalyze.errors import UsageError
from dermalyze.models.classifier import build_classifier
from dermalyze.models.heads import HEADS, build_head
from dermalyze.models.weights import load_state, save_state

SPECS = {get_args(member.model_fields["kind"].annotation)[0]: member for member in get_args(get_args(HeadSpec)[0])}
BACKBONES = ["tiny_cnn", "mobilenetv2_035", "resnet10t", "tf_efficientnetv2_b0", "mobilenetv3_small_050"]


def test_table_and_specs_name_the_same_heads() -> None:
    assert HEADS.keys() == SPECS.keys()


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_keyword_arguments_are_the_fields(kind: str) -> None:
    keywords = {n for n, p in inspect.signature(HEADS[kind]).parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert keywords == SPECS[kind].model_fields.keys() - {"kind"}


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_a_head_is_as_wide_as_what_it_takes(kind: str) -> None:
    head = build_head(SPECS[kind](), pooled_width=5, map_width=9, classes=3).eval()
    features = torch.zeros(1, 5) if head.takes == "pooled" else torch.zeros(1, 9, 2, 2)
    assert head(features).shape == (1, 3)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("kind", sorted(HEADS))
def test_forward_backward_save_load(kind: str, backbone: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = ModelSpec(backbone=backbone, head=SPECS[kind]())
    model = build_classifier(spec, 7, load_weights=False).train()
    images = torch.randn(2, 3, 48, 64)
    logits = model(images)
    assert logits.shape == (2, 7)
    assert logits.dtype == torch.float32
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 6])).backward()
    for name, parameter in model.named_parameters():
        if kind == "acrnn" and "v3_small" in backbone and ".conv_head." in name:  # after pooling: a head on the map skips it
            assert parameter.grad is None, name
            continue
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name

    save_state(tmp_path / "a.safetensors", model)
    other = build_classifier(spec, 7, load_weights=False).eval()
    model.eval()
    with torch.inference_mode():
        assert not torch.equal(other(images), model(images))
        load_state(tmp_path / "a.safetensors", other)
        expected, embedding = model.forward_with_embedding(images)
        assert torch.equal(other(images), expected)
        assert embedding.shape == (2, model.width)
        torch.testing.assert_close(model.embed(images), embedding)
        maps = model.features(images)
        pooled = maps.mean(dim=(2, 3)) if kind == "acrnn" else model.backbone.pooled(maps)
        torch.testing.assert_close(pooled, embedding)
        in_other_order = other.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
        torch.testing.assert_close(in_other_order, expected, rtol=1e-4, atol=1e-4)


def test_simple_is_the_documents() -> None:
    head = build_head(SimpleHead(), pooled_width=1280, map_width=1, classes=7)
    layers = [layer for layer in head.modules() if not list(layer.children())]
    names = "Dropout Linear BatchNorm1d ReLU Dropout Linear BatchNorm1d ReLU Dropout Linear"
    assert [type(layer).__name__ for layer in layers] == names.split()
    assert [layer.p for layer in layers if isinstance(layer, torch.nn.Dropout)] == [0.35] * 3
    linears = [(layer.in_features, layer.out_features) for layer in layers if isinstance(layer, torch.nn.Linear)]
    assert linears == [(1280, 512), (512, 256), (256, 7)]


def test_simple_refuses_a_training_batch_of_one() -> None:
    head = build_head(SimpleHead(), pooled_width=8, map_width=8, classes=3).train()
    with pytest.raises(UsageError, match="one image cannot pass BatchNorm"):
        head(torch.zeros(1, 8))
    assert head.eval()(torch.zeros(1, 8)).shape == (1, 3)


def test_linear_takes_a_training_batch_of_one() -> None:
    head = build_head(LinearHead(dropout=0.5), pooled_width=8, map_width=8, classes=3).train()
    assert head(torch.zeros(1, 8)).shape == (1, 3)


def test_acrnn_equals_its_definition_step_by_step() -> None:
    """Against the definition written with loops: raster order, same length, one softmax a feature."""
    torch.manual_seed(1)
    head = build_head(AcrnnHead(channels=5, hidden=4, attention=3), pooled_width=1, map_width=6, classes=2).eval()
    maps = torch.randn(2, 6, 2, 3)
    sequence = torch.stack([maps[:, :, row, column] for row in range(2) for column in range(3)], dim=2)
    state = head.lstm(torch.relu(head.conv(sequence)).transpose(1, 2))[0]
    assert state.shape == (2, 6, 4)
    logits = []
    for image in range(2):
        pooled = []
        for feature in range(3):
            score = torch.stack([head.score(state[image, t])[feature] for t in range(6)])
            value = torch.stack([head.value(state[image, t])[feature] for t in range(6)])
            pooled.append((score.exp() / score.exp().sum() * value).sum())
        logits.append(head.out(torch.stack(pooled)))
    torch.testing.assert_close(head(maps), torch.stack(logits))


def test_acrnn_widths_are_the_documents() -> None:
    head = build_head(AcrnnHead(), pooled_width=1, map_width=1280, classes=7)
    shapes = {name: tuple(p.shape) for name, p in head.named_parameters() if "weight" in name}
    assert shapes["conv.weight"] == (128, 1280, 3)
    assert shapes["lstm.weight_hh_l0"] == (4 * 64, 64)
    assert shapes["lstm.weight_ih_l0"] == (4 * 64, 128)
    assert shapes["score.weight"] == shapes["value.weight"] == (16, 64)
    assert shapes["out.weight"] == (7, 16)


def test_acrnn_sees_the_order_of_cells() -> None:
    torch.manual_seed(0)
    head = build_head(AcrnnHead(), pooled_width=1, map_width=4, classes=2).eval()
    maps = torch.randn(1, 4, 2, 3)
    assert not torch.allclose(head(maps), head(maps.transpose(2, 3)), atol=1e-6)


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_onnx_with_free_batch(kind: str) -> None:
    """The exporter keeps the batch free (an LSTM's first state is where it gets lost)."""
    torch.manual_seed(0)
    model = build_classifier(ModelSpec(backbone="tiny_cnn", head=SPECS[kind]()), 3, load_weights=False).eval()
    program = torch.onnx.export(
        model,
        (torch.randn(2, 3, 32, 48),),
        dynamo=True,
        opset_version=18,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        images = torch.randn(batch, 3, 32, 48)
        with torch.inference_mode():
            expected = model(images)
        (found,) = session.run(None, {"images": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)
