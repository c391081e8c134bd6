"""Networks of two pictures: shapes, gradients, stages, save and load, export; what is shared and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from dermalyze.imaging.cases import packed, statistics
from dermalyze.models.second import PairBackbone
from pydantic import ValidationError

from dermalyze.artifact.graph import Graph
from dermalyze.calibration.recipes import RECIPES
from dermalyze.config.model import ModelSpec, SecondSpec
from dermalyze.config.train import AugmentSpec, StrategySpec
from dermalyze.errors import ModelError
from dermalyze.imaging.tabular import fit_encoder
from dermalyze.models.classifier import Classifier, build_classifier
from dermalyze.models.deployed import DeployedPair, to_onnx
from dermalyze.models.mc_dropout import DropoutSampler
from dermalyze.models.parity import TOLERANCE, measure_parity
from dermalyze.models.weights import load_state, save_state
from dermalyze.training.augment import SECOND_DRAWS, augment_cases, mix
from dermalyze.training.transfer import STRATEGIES, Plan

KINDS = tuple(get_args(member.model_fields["kind"].annotation)[0] for member in get_args(get_args(SecondSpec)[0]))
HALF = (0.5, 0.5, 0.5)


def spec_of(kind: str | None, **changes: Any) -> ModelSpec:
    second = {"second": {"kind": kind}} if kind else {}
    values = {"backbone": "tiny_cnn", "kwargs": {"channels": [4, 8]}, "head": {"kind": "linear"}, **second, **changes}
    return ModelSpec.model_validate(values)


def build(kind: str | None, *, seed: int = 0, **changes: Any) -> Classifier:
    torch.manual_seed(seed)
    model = build_classifier(spec_of(kind, **changes), 3, load_weights=False)
    if isinstance(model.backbone, PairBackbone):
        torch.nn.init.normal_(model.backbone.missing)
    return model


def cases(count: int = 4, known: tuple[bool, ...] = (True, False, True, True)) -> torch.Tensor:
    """Normalised cases (B, 7, H, W)."""
    there = torch.tensor(known[:count]).float().view(-1, 1, 1, 1)
    second = torch.randn(count, 3, 32, 40) * there
    return torch.cat([torch.randn(count, 3, 32, 40), second, there.expand(-1, 1, 32, 40)], dim=1)


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("head", ["linear", "simple"])
@pytest.mark.parametrize("kind", KINDS)
def test_forward_backward_save_load(kind: str, head: str, tmp_path: Path) -> None:
    model = build(kind, head={"kind": head}).train()
    inputs = cases()
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
    assert isinstance(shared, PairBackbone)
    assert parameters(shared) == parameters(one) + shared.width // 2
    assert parameters(separate) == 2 * parameters(one) + shared.width // 2
    pixels = torch.randn(2, 3, 32, 40)
    both = torch.cat([pixels, pixels, torch.ones(2, 1, 32, 40)], dim=1)
    for backbone, alike in ((shared, True), (separate, False)):
        left, right = backbone.eval().embed(both).chunk(2, dim=1)
        assert torch.equal(left, right) == alike


@pytest.mark.parametrize("kind", KINDS)
def test_each_picture_alone_reaches_its_own_network(kind: str) -> None:
    """The gradient of the second half of the features is of the second network, or of the one that both share."""
    backbone = build(kind).backbone.eval()
    assert isinstance(backbone, PairBackbone)
    backbone.embed(cases(2, (True, True)))[:, 8:].sum().backward()

    def learns(net: torch.nn.Module) -> bool:
        return any(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())

    assert learns(backbone.first) == (kind == "shared")
    assert backbone.second is None or learns(backbone.second)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_second_picture_is_the_learned_stand_in_whatever_stands_there(kind: str) -> None:
    backbone = build(kind).backbone.eval()
    assert isinstance(backbone, PairBackbone)
    missing = cases(2, (False, False))
    with torch.inference_mode():
        features = backbone.embed(missing)
        assert torch.equal(features[:, 8:], backbone.missing.expand(2, -1))
        assert torch.equal(backbone.embed(missing[:, :3]), features)  # three planes: nothing is known of a second
        other = missing.clone()
        other[:, 3:6] = torch.randn(2, 3, 32, 40)
        assert torch.equal(backbone.embed(other), features)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("known", [(True, False, True, True), (False,) * 4])
def test_missing_ones_do_not_bend_batch_norm_in_training(kind: str, known: tuple[bool, ...]) -> None:
    """Whatever stands where a second picture is missing, the running statistics come out the same; every one has a gradient."""
    found = []
    for fill in (0.0, 50.0):
        torch.manual_seed(1)
        inputs = cases(known=known)
        inputs[:, 3:6] = torch.where(inputs[:, 6:] > 0, inputs[:, 3:6], torch.tensor(fill))
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
    assert isinstance(pair, PairBackbone)
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
    assert isinstance(pair, PairBackbone)
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
    """With metadata and without; a missing second picture is among the cases, and each recipe."""
    encoder = fit_encoder({"age": [30, 50, 70]}) if fusion else None
    metadata = {"metadata": {"columns": ["age"], "fusion": {"kind": fusion}}} if fusion else {}
    torch.manual_seed(0)
    model = build_classifier(spec_of(kind, **metadata), 3, load_weights=False, encoder=encoder).eval()
    assert isinstance(model.backbone, PairBackbone)
    torch.nn.init.normal_(model.backbone.missing)
    network = DeployedPair(model, HALF, HALF).eval()
    width = encoder.width if encoder is not None else 0
    data = to_onnx(network, 32, 40, width)
    graph = Graph(data, classes=3, height=32, width=40, metadata_width=width, second=True, threads=1)
    parity = measure_parity(network, graph, 32, 40)
    assert parity["max_probability_difference"] <= TOLERANCE
    assert parity["recipes"] == list(RECIPES)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 40, 3), dtype=np.uint8)
    known = (np.zeros((2, width), np.float32),) if width else ()
    with_it, without = (graph.run(packed(pixels, other), *known)[0] for other in (pixels[::-1], None))
    assert np.abs(with_it - without).max() > 1e-3
    with pytest.raises(ModelError, match=r"takes uint8 \(B, 32, 40, 7\)"):
        graph.run(pixels, *known)
    with pytest.raises(ModelError, match="input has_second"):
        Graph(data, classes=3, height=32, width=40, metadata_width=width, threads=1)


def test_mc_dropout_asks_both_pictures() -> None:
    model = build("separate", head={"kind": "simple"})
    sampler = DropoutSampler(model, seed=1, passes=3)
    inputs = cases(2, (True, False)).numpy()
    samples = sampler(inputs, ["a", "b"])
    assert samples.shape == (2, 3, 3)
    changed = inputs.copy()
    changed[:, 3:6] += 1
    moved = np.abs(sampler(changed, ["a", "b"]) - samples).max(axis=(1, 2))
    assert moved[0] > 1e-4
    assert moved[1] == 0


def test_heads_that_read_a_map_are_refused() -> None:
    with pytest.raises(ValidationError, match="acrnn reads one feature map, and two images have two"):
        spec_of("shared", head={"kind": "acrnn"})


def test_records_always_say_whether_there_is_a_second_picture() -> None:
    assert spec_of(None).model_dump(mode="json")["second"] is None
    spec = spec_of("separate")
    assert ModelSpec.model_validate(spec.model_dump(mode="json")) == spec


class TestAugment:
    spec = AugmentSpec(policy="standard")

    def batch(self, known: tuple[bool, ...] = (True, True, False)) -> torch.Tensor:
        pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), dtype=np.uint8)
        return torch.from_numpy(packed(pixels, pixels, np.array(known)))

    def test_one_picture_is_as_before(self) -> None:
        from dermalyze.training.augment import augment

        images = self.batch()[..., :3].contiguous()
        address = {"seed": 1, "epoch": 2, "positions_B": np.arange(3)}
        assert torch.equal(augment_cases(images, self.spec, **address), augment(images, self.spec, **address))

    def test_each_picture_has_its_own_draw_and_neither_depends_on_the_batch(self) -> None:
        batch, positions = self.batch(), np.array([5, 6, 7])
        whole = augment_cases(batch, self.spec, seed=1, epoch=0, positions_B=positions)
        assert whole.shape == (3, 7, 20, 24)
        assert not torch.equal(whole[0, :3], whole[0, 3:6])  # the same picture twice, changed differently
        alone = augment_cases(batch[1:2], self.spec, seed=1, epoch=0, positions_B=positions[1:2])
        assert torch.equal(alone[0], whole[1])
        later = augment_cases(batch, self.spec, seed=1, epoch=1, positions_B=positions)
        assert not torch.equal(later[0, 3:6], whole[0, 3:6])
        assert SECOND_DRAWS > 2**32

    def test_the_stated_share_is_hidden_and_what_is_missing_stays_missing(self) -> None:
        tiny = torch.from_numpy(packed(np.zeros((4000, 1, 1, 3), np.uint8), np.zeros((4000, 1, 1, 3), np.uint8)))
        none = AugmentSpec(policy="none")
        plane = augment_cases(tiny, none, seed=0, epoch=0, positions_B=np.arange(4000), hide=0.1)[:, 6]
        assert 0.08 < (plane == 0).float().mean() < 0.12
        assert augment_cases(self.batch(), none, seed=0, epoch=0, positions_B=np.arange(3))[:, 6, 0, 0].tolist() == [
            pytest.approx(1 / 255), pytest.approx(1 / 255), 0,
        ]  # fmt: skip

    @pytest.mark.parametrize("kind", ["mixup", "cutmix"])
    def test_a_blend_with_a_case_that_has_none_has_none(self, kind: str) -> None:
        """Both pictures are blended with those of the same other case; the mark stays only where both have a second one."""
        spec = AugmentSpec.model_validate({"policy": "none", kind: 1.0})
        pixels = augment_cases(self.batch((True, True, False)), spec, seed=0, epoch=0, positions_B=np.arange(3))
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in statistics(HALF, HALF))
        target = torch.eye(3)
        for step in range(20):
            mixed, (shares,) = mix(pixels, [target], spec, seed=0, epoch=0, step=step)
            known = ((mixed - mean) / std)[:, 6].amin(dim=(1, 2)) > 0.999
            blended = shares[:, 2] > 0.001  # holds something of the case without a second picture
            assert known.tolist() == (~blended).tolist()


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_view_of_a_recipe_is_of_both_pictures_and_keeps_the_mark(recipe: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 20, 3), dtype=np.uint8)
    for view in RECIPES[recipe](packed(pixels, pixels, np.array([True, False]))):
        np.testing.assert_array_equal(view[0, ..., :3], view[0, ..., 3:6])
        assert view[0, ..., 6].min() == view[0, ..., 6].max() == 1
        assert view[1, ..., 3:].max() == 0
