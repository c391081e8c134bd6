"""Networks of two images: shapes, gradients, stages, save and load, export; what is shared and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from dermalyze.artifact.graph import Graph
from dermalyze.calibration.recipes import RECIPES, passes
from dermalyze.config.model import Image2Spec, ModelSpec
from dermalyze.config.train import AugmentSpec, StrategySpec
from dermalyze.errors import ModelError
from dermalyze.imaging.preprocess import Preprocessing
from dermalyze.imaging.samples import complete, take
from dermalyze.imaging.tabular import fit_encoder
from dermalyze.models.classifier import Classifier, build_classifier, inputs_of
from dermalyze.models.deployed import Deployed, to_onnx
from dermalyze.models.mc_dropout import DropoutSampler
from dermalyze.models.parity import TOLERANCE, measure_parity
from dermalyze.models.two_images import TwoImageBackbone
from dermalyze.models.weights import load_state, save_state
from dermalyze.training.augment import OTHER_DRAWS, augment_images, hide_inputs, mix
from dermalyze.training.transfer import STRATEGIES, Plan

KINDS = tuple(get_args(member.model_fields["kind"].annotation)[0] for member in get_args(get_args(Image2Spec)[0]))
HALF = (0.5, 0.5, 0.5)


def spec_of(kind: str | None, **changes: Any) -> ModelSpec:
    image_2 = {"image_2": {"kind": kind}} if kind else {}
    values = {"backbone": "tiny_cnn", "kwargs": {"channels": [4, 8]}, "head": {"kind": "linear"}, **image_2, **changes}
    return ModelSpec.model_validate(values)


def build(kind: str | None, *, seed: int = 0, **changes: Any) -> Classifier:
    torch.manual_seed(seed)
    model = build_classifier(spec_of(kind, **changes), 3, load_weights=False)
    if isinstance(model.backbone, TwoImageBackbone):
        torch.nn.init.normal_(model.backbone.missing)
    return model


def samples(count: int = 4, present: tuple[bool, ...] = (True, False, True, True)) -> dict[str, torch.Tensor]:
    """Normalized inputs by name."""
    there = torch.tensor(present[:count])
    image_2 = torch.randn(count, 3, 32, 40) * there.float().view(-1, 1, 1, 1)
    return {"image": torch.randn(count, 3, 32, 40), "image_2": image_2, "present": there[:, None]}


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("head", ["linear", "simple"])
@pytest.mark.parametrize("kind", KINDS)
def test_forward_backward_save_load(kind: str, head: str, tmp_path: Path) -> None:
    model = build(kind, head={"kind": head}).train()
    inputs = samples()
    logits = model(inputs)
    assert logits.shape == (4, 3)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2, 1, 0])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert model.backbone.missing.grad is not None
    assert model.backbone.missing.grad.abs().sum() > 0
    save_state(tmp_path / "a.safetensors", model)
    other = build(kind, head={"kind": head}, seed=1).eval()
    model.eval()
    with torch.inference_mode():
        assert not torch.equal(other(inputs), model(inputs))
        load_state(tmp_path / "a.safetensors", other)
        expected, embedding = model.forward_with_embedding(inputs)
        assert torch.equal(other(inputs), expected)
        assert embedding.shape == (4, model.width) == (4, 16)
        assert torch.equal(model.embed(inputs), embedding)


def test_shared_shares_and_separate_doubles() -> None:
    one, shared, separate = (build(kind).backbone for kind in (None, *KINDS))
    assert isinstance(shared, TwoImageBackbone)
    assert parameters(shared) == parameters(one) + shared.width // 2
    assert parameters(separate) == 2 * parameters(one) + shared.width // 2
    pixels = torch.randn(2, 3, 32, 40)
    both = {"image": pixels, "image_2": pixels, "present": torch.ones(2, 1, dtype=torch.bool)}
    for backbone, alike in ((shared, True), (separate, False)):
        left, right = backbone.eval().embed(both).chunk(2, dim=1)
        assert torch.equal(left, right) == alike


@pytest.mark.parametrize("kind", KINDS)
def test_each_picture_alone_reaches_its_own_network(kind: str) -> None:
    """The gradient of the second half of the features is of the second network, or of the one that both share."""
    backbone = build(kind).backbone.eval()
    assert isinstance(backbone, TwoImageBackbone)
    backbone.embed(samples(2, (True, True)))[:, 8:].sum().backward()

    def learns(net: torch.nn.Module) -> bool:
        return any(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())

    assert learns(backbone.first) == (kind == "shared")
    assert backbone.second is None or learns(backbone.second)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_second_picture_is_the_learned_stand_in_whatever_stands_there(kind: str) -> None:
    backbone = build(kind).backbone.eval()
    assert isinstance(backbone, TwoImageBackbone)
    missing = samples(2, (False, False))
    with torch.inference_mode():
        features = backbone.embed(missing)
        assert torch.equal(features[:, 8:], backbone.missing.expand(2, -1))
        assert torch.equal(backbone.embed({"image": missing["image"]}), features)  # what is not in the batch is missing
        assert torch.equal(backbone.embed({**missing, "image_2": torch.randn(2, 3, 32, 40)}), features)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("present", [(True, False, True, True), (False,) * 4])
def test_missing_ones_do_not_bend_batch_norm_in_training(kind: str, present: tuple[bool, ...]) -> None:
    """Whatever stands where a second image is missing, the running statistics come out the same; every one has a gradient."""
    found = []
    for fill in (0.0, 50.0):
        torch.manual_seed(1)
        inputs = samples(present=present)
        there = inputs["present"].view(-1, 1, 1, 1)
        inputs["image_2"] = torch.where(there, inputs["image_2"], torch.tensor(fill))
        model = build(kind).train()
        model(inputs).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        found.append([buffer.clone() for name, buffer in model.named_buffers() if "running" in name])
    assert found[0]
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


@pytest.mark.parametrize("backbone", ["resnet18", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("kind", KINDS)
def test_stages_hold_every_parameter_of_the_networks_once(kind: str, backbone: str) -> None:
    kwargs = {"img_size": 32} if backbone.startswith("vit") else {}
    pair = build(kind, backbone=backbone, kwargs=kwargs).backbone
    assert isinstance(pair, TwoImageBackbone)
    held = [id(parameter) for stage in pair.stages() for parameter in stage.parameters]
    assert len(held) == len(set(held))
    assert {id(parameter) for parameter in pair.parameters()} - set(held) == {id(pair.missing)}
    assert len(pair.stages()) == len(pair.first.stages())


STRATEGY_SPECS = {get_args(one.model_fields["kind"].annotation)[0]: one for one in get_args(get_args(StrategySpec)[0])}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", KINDS)
def test_strategies_treat_both_networks_alike(kind: str, strategy: str) -> None:
    changes = {"stages": 1} if "stages" in STRATEGY_SPECS[strategy].model_fields else {}
    model = build(kind, kwargs={"channels": [4, 8, 8]})
    plan = Plan(model, STRATEGY_SPECS[strategy](**changes), epochs=3)
    plan.enter(0)
    pair = model.backbone
    assert isinstance(pair, TwoImageBackbone)
    assert pair.missing.requires_grad
    assert pair.missing not in plan.paces  # as the head: the whole rate, from the start
    learns = [parameter.requires_grad for parameter in pair.first.parameters()]
    assert any(learns) == (strategy not in ("frozen", "gradual"))
    if pair.second is not None:
        assert [parameter.requires_grad for parameter in pair.second.parameters()] == learns
        scales = [[plan.paces[p].scale for p in one.parameters()] for one in (pair.first, pair.second)]
        assert scales[0] == scales[1]
        for one, two in zip(pair.first.modules(), pair.second.modules(), strict=True):
            assert one.training == two.training


@pytest.mark.parametrize(
    ("kind", "fusion"), [("shared", None), ("separate", "late"), ("shared", "film"), ("separate", "concat")]
)
def test_export_gives_the_same_numbers(kind: str, fusion: str | None) -> None:
    """With metadata and without; a missing second image is among the cases, and each recipe."""
    encoder = fit_encoder({"age": [30, 50, 70]}) if fusion else None
    metadata = {"metadata": {"columns": ["age"], "fusion": {"kind": fusion}}} if fusion else {}
    torch.manual_seed(0)
    model = build_classifier(spec_of(kind, **metadata), 3, load_weights=False, encoder=encoder).eval()
    assert isinstance(model.backbone, TwoImageBackbone)
    torch.nn.init.normal_(model.backbone.missing)
    p = Preprocessing("squash", 32, 40, 1.0, HALF, HALF)
    network = Deployed(model, p, inputs_of(spec_of(kind, **metadata), p, encoder)).eval()
    data = to_onnx(network)
    graph = Graph(data, network.inputs, classes=3, threads=1)
    parity = measure_parity(network, graph)
    assert parity["max_probability_difference"] <= TOLERANCE
    assert parity["recipes"] == list(RECIPES)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 40, 3), dtype=np.uint8)
    blank_M = None if encoder is None else encoder.blank
    batches = ({"image": pixels, "image_2": pixels[::-1].copy()}, {"image": pixels})
    with_it, without = (graph.run(complete(batch, graph.inputs, blank_M))[0] for batch in batches)
    assert np.abs(with_it - without).max() > 1e-3
    with pytest.raises(ModelError, match="the batch has image; the model takes image, image_2, present"):
        graph.run({"image": pixels})
    with pytest.raises(ModelError, match="input present"):
        Graph(data, [one for one in network.inputs if one.name != "present"], classes=3, threads=1)


def test_mc_dropout_asks_both_pictures() -> None:
    model = build("separate", head={"kind": "simple"})
    sampler = DropoutSampler(model, seed=1, passes=3)
    inputs = samples(2, (True, False))
    drawn = sampler(inputs, ["a", "b"])
    assert drawn.shape == (2, 3, 3)
    changed = {**inputs, "image_2": inputs["image_2"] + 1}
    moved = np.abs(sampler(changed, ["a", "b"]) - drawn).max(axis=(1, 2))
    assert moved[0] > 1e-4
    assert moved[1] == 0


def test_heads_that_read_a_map_are_refused() -> None:
    with pytest.raises(ValidationError, match="acrnn reads one feature map, and two images have two"):
        spec_of("shared", head={"kind": "acrnn"})


def test_records_always_say_whether_there_is_a_second_picture() -> None:
    assert spec_of(None).model_dump(mode="json")["image_2"] is None
    spec = spec_of("separate")
    assert ModelSpec.model_validate(spec.model_dump(mode="json")) == spec


class TestAugment:
    spec = AugmentSpec(policy="standard")

    def batch(self, present: tuple[bool, ...] = (True, True, False)) -> dict[str, torch.Tensor]:
        pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), dtype=np.uint8))
        return {"image": pixels, "image_2": pixels.clone(), "present": torch.tensor(present)[:, None]}

    def test_the_first_image_is_changed_as_alone(self) -> None:
        from dermalyze.training.augment import augment

        images = self.batch()["image"]
        address = {"seed": 1, "epoch": 2, "positions_B": np.arange(3)}
        alone = augment(images, self.spec, **address)
        assert torch.equal(augment_images({"image": images}, self.spec, **address)["image"], alone)
        assert torch.equal(augment_images(self.batch(), self.spec, **address)["image"], alone)

    def test_each_image_has_its_own_draw_and_neither_depends_on_the_batch(self) -> None:
        batch, positions = self.batch(), np.array([5, 6, 7])
        whole = augment_images(batch, self.spec, seed=1, epoch=0, positions_B=positions)
        assert whole["image_2"].shape == (3, 3, 20, 24)
        assert not torch.equal(whole["image"][0], whole["image_2"][0])  # the same image twice, changed differently
        alone = augment_images(take(batch, slice(1, 2)), self.spec, seed=1, epoch=0, positions_B=positions[1:2])
        assert torch.equal(alone["image_2"][0], whole["image_2"][1])
        later = augment_images(batch, self.spec, seed=1, epoch=1, positions_B=positions)
        assert not torch.equal(later["image_2"][0], whole["image_2"][0])
        assert OTHER_DRAWS > 2**32

    def test_the_stated_share_is_hidden_and_what_is_missing_stays_missing(self) -> None:
        tiny = torch.zeros(4000, 1, 1, 3, dtype=torch.uint8)
        batch = {"image": tiny, "image_2": tiny, "present": torch.ones(4000, 1, dtype=torch.bool)}
        hidden = hide_inputs(batch, {"image_2": 0.1}, seed=0, epoch=0, positions_B=np.arange(4000))["present"]
        assert 0.08 < (~hidden).float().mean() < 0.12
        kept = hide_inputs(self.batch(), {"image_2": 0.0}, seed=0, epoch=0, positions_B=np.arange(3))["present"]
        assert kept[:, 0].tolist() == [True, True, False]

    @pytest.mark.parametrize("kind", ["mixup", "cutmix"])
    def test_a_blend_with_a_sample_that_has_none_has_none(self, kind: str) -> None:
        """Both images are blended with those of the same other sample; the second one counts only where both have one."""
        spec = AugmentSpec.model_validate({"policy": "none", kind: 1.0})
        batch = augment_images(self.batch((True, True, False)), spec, seed=0, epoch=0, positions_B=np.arange(3))
        target, blends = torch.eye(3), 0
        for step in range(20):
            mixed, shares = mix(batch, target, spec, seed=0, epoch=0, step=step)
            without = shares[:, 2] > 0  # holds something of the sample without a second image
            blends += int(without.sum())
            assert not mixed["present"][without].any()
            assert mixed["present"][shares[:, :2].sum(1) > 1 - 1e-6].all()
        assert blends > 20


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_view_of_a_recipe_is_of_both_images(recipe: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 20, 3), dtype=np.uint8)
    seen: list[Any] = []

    def forward(batch: Any) -> tuple[Any, Any]:
        seen.append(batch)
        return np.zeros((2, 3), np.float32), np.zeros((2, 1), np.float32)

    passes(recipe, forward, {"image": pixels, "image_2": pixels, "present": np.array([[True], [False]])})
    assert len(seen) == len(RECIPES[recipe](pixels))
    for batch in seen:
        np.testing.assert_array_equal(batch["image"], batch["image_2"])
        assert batch["present"].tolist() == [[True], [False]]
