"""Dropout at inference: only dropout draws, every draw has an address, and a network without dropout is refused."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dermalyze.config.model import ModelSpec
from dermalyze.config.train import FrozenStrategy
from dermalyze.errors import ConfigError, ModelError
from dermalyze.models.classifier import Classifier, build_classifier
from dermalyze.models.mc_dropout import AddressedDropout, DropoutSampler
from dermalyze.rng import positions_of
from dermalyze.training.transfer import Plan

IDS = [f"i{k}" for k in range(6)]
IMAGES = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 3, 32, 32)).astype(np.float32))


def network(head: dict[str, Any], **changes: Any) -> Classifier:
    torch.manual_seed(0)
    spec = ModelSpec.model_validate({"backbone": "tiny_cnn", "kwargs": {"channels": [8, 16]}, "head": head, **changes})
    return build_classifier(spec, 3, load_weights=False).eval()


def layer(p: float, *, channelwise: bool = False, number: int = 0, **changes: Any) -> AddressedDropout:
    made = AddressedDropout(p, channelwise=channelwise, **{"layer": 0, "layers": 1, "seed": 7, **changes})
    made.positions, made.number = positions_of(IDS), number
    return made


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_values_are_dropped_in_the_asked_share_and_the_rest_grows(p: float) -> None:
    out = layer(p)(torch.ones(6, 5000))
    assert out.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)])
    assert float((out == 0).float().mean()) == pytest.approx(p, abs=0.01)
    assert float(out.mean()) == pytest.approx(1, abs=0.06)


def test_whole_channels_are_dropped_where_the_layer_says_so() -> None:
    out = layer(0.5, channelwise=True)(torch.ones(6, 40, 3, 4))
    flat = out.flatten(2)
    assert bool((flat == flat[:, :, :1]).all())
    assert 0.3 < float((flat[:, :, 0] == 0).float().mean()) < 0.7


def test_a_draw_belongs_to_seed_pass_layer_and_image() -> None:
    values = torch.ones(6, 64)
    one = layer(0.5)(values)
    assert torch.equal(one, layer(0.5)(values))
    for changed in ({"number": 1}, {"seed": 8}, {"layer": 1, "layers": 2}):
        assert not torch.equal(one, layer(0.5, **changed)(values)), changed
    assert len({tuple(row.tolist()) for row in one}) == 6, "each image has its own"


def test_windows_of_an_image_take_its_draws_and_others_are_refused() -> None:
    cut = layer(0.5)(torch.ones(12, 8))
    assert torch.equal(cut.reshape(6, 16), layer(0.5)(torch.ones(6, 16)))
    with pytest.raises(ModelError, match="use recipe tta"):
        layer(0.5)(torch.ones(7, 8))


@pytest.mark.parametrize("head", [{"kind": "simple"}, {"kind": "linear", "dropout": 0.5}, {"kind": "acrnn", "dropout": 0.5}])
def test_passes_differ_repeat_and_do_not_depend_on_the_batch(head: dict[str, Any]) -> None:
    samples = DropoutSampler(network(head), seed=1, passes=3)(IMAGES, IDS)
    assert samples.shape == (6, 3, 3)
    assert samples.dtype == np.float32
    assert (samples[:, 0] != samples[:, 1]).any(axis=1).all()
    again = DropoutSampler(network(head), seed=1, passes=5)
    assert np.array_equal(again(IMAGES, IDS)[:, :3], samples), "more passes leave the first as they are"
    backwards = again(IMAGES.flip(0), IDS[::-1])[::-1, :3]
    assert np.allclose(backwards, samples, atol=1e-5)
    assert np.allclose(again(IMAGES[2:3], IDS[2:3])[:, :3], samples[2:3], atol=1e-5)
    assert not np.allclose(DropoutSampler(network(head), seed=2, passes=3)(IMAGES, IDS), samples, atol=1e-3)


def test_nothing_but_dropout_acts() -> None:
    """With dropout made void, every pass is the network in evaluation mode: BatchNorm uses and changes no batch statistics."""
    model = network({"kind": "simple"})
    before = copy.deepcopy(model.state_dict())
    with torch.inference_mode():
        expected = model(IMAGES).numpy()
    sampler = DropoutSampler(model, seed=1, passes=2)
    for drawing in sampler.layers:
        drawing.p = 0.0
    samples = sampler(IMAGES, IDS)
    assert np.array_equal(samples[:, 0], expected)
    assert np.array_equal(samples[:, 1], expected)
    assert not any(module.training for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_mean_of_many_passes_of_a_linear_head_is_the_plain_answer() -> None:
    """E[W (m * x) / (1 - p) + b] = W x + b: what inverted dropout keeps."""
    head = {"kind": "linear", "dropout": 0.3}
    with torch.inference_mode():
        plain = network(head)(IMAGES).numpy()
    samples = DropoutSampler(network(head), seed=1, passes=3000)(IMAGES, IDS).astype(np.float64)
    error = samples.std(axis=1) / np.sqrt(3000)
    assert (np.abs(samples.mean(axis=1) - plain) < 5 * error).all()


def test_dropout_of_a_backbone_draws_too_unless_it_was_frozen() -> None:
    def with_inner() -> Classifier:
        model = network({"kind": "linear", "dropout": 0.5})
        model.backbone.net.layers.append(nn.Dropout2d(0.5))  # type: ignore[union-attr, operator]
        return model.eval()

    drawing = DropoutSampler(with_inner(), seed=1, passes=2)
    assert (len(drawing.layers), drawing.head_only) == (2, False)
    assert np.isfinite(drawing(IMAGES, IDS)).all()
    kept = with_inner()
    Plan(kept, FrozenStrategy(), epochs=1)
    frozen = DropoutSampler(kept, seed=1, passes=2)
    assert (len(frozen.layers), frozen.head_only) == (1, True)


def test_a_network_without_dropout_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"set model\.head\.dropout above 0"):
        DropoutSampler(network({"kind": "linear", "dropout": 0.0}), seed=1, passes=2)


def test_a_faulty_network_gives_no_answer() -> None:
    model = network({"kind": "simple"})
    with torch.no_grad():
        next(model.head.parameters()).fill_(torch.nan)
    with pytest.raises(ModelError, match="NaN"):
        DropoutSampler(model, seed=1, passes=2)(IMAGES, IDS)
