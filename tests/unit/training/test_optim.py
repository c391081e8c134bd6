"""Parameter groups, optimizers and the weights' moving average."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dermalyze.config.train import AdamWOptimizer, OptimizerSpec, SgdOptimizer
from dermalyze.errors import ConfigError, ModelError
from dermalyze.training.optim import Ema, Pace, build_optimizer, parameter_groups, set_lr

torch.set_num_threads(1)
SPECS: list[OptimizerSpec] = [
    AdamWOptimizer(lr=0.01, weight_decay=0.1),
    SgdOptimizer(lr=0.01, weight_decay=0.1),
    SgdOptimizer(lr=0.01, momentum=0.0, weight_decay=0.1),
]


class Tokens(nn.Module):
    """A layer with a two-dimensional parameter that it does not want decayed, as timm's transformers say it."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, 6))

    def no_weight_decay(self) -> set[str]:
        return {"position"}

    def forward(self, x: Tensor) -> Tensor:
        return x + self.position


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), Tokens())
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.backbone(x))
        return out


@pytest.fixture
def model() -> Small:
    torch.manual_seed(0)
    return Small()


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer.zero_grad()
    model(torch.randn(8, 4, generator=generator, dtype=next(model.parameters()).dtype)).square().mean().backward()
    optimizer.step()


def names(model: nn.Module, group: dict[str, list[Tensor]]) -> set[str]:
    return {name for name, parameter in model.named_parameters() if any(parameter is other for other in group["params"])}


def groups_of(model: nn.Module, **scales: float) -> list[dict[str, Any]]:
    """Groups where the parameters under a name have the scale given."""
    named = {p: Pace(scales[word]) for name, p in model.named_parameters() if (word := name.partition(".")[0]) in scales}
    return parameter_groups(model, lr=0.1, weight_decay=0.3, paces=named)


@pytest.mark.parametrize("scales", [{}, {"backbone": 0.1}, {"backbone": 0.1, "head": 0.2}])
def test_every_parameter_is_in_exactly_one_group(model: Small, scales: dict[str, float]) -> None:
    groups = groups_of(model, **scales)
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(listed) == sorted(id(parameter) for parameter in model.parameters())
    assert len({(group["name"], group["lr_scale"]) for group in groups}) == len(groups)


def test_biases_norms_and_exempt_names_are_not_decayed(model: Small) -> None:
    groups = {group["name"]: group for group in groups_of(model)}
    assert names(model, groups["decay"]) == {"backbone.0.weight", "head.1.weight"}
    assert groups["decay"]["weight_decay"] == 0.3
    assert groups["no_decay"]["weight_decay"] == 0.0
    assert "backbone.2.position" in names(model, groups["no_decay"])


@pytest.mark.parametrize("spec", [AdamWOptimizer(lr=1e-2), SgdOptimizer(lr=1e-2)])
def test_a_scale_is_kept_by_the_schedule(model: Small, spec: OptimizerSpec) -> None:
    optimizer = build_optimizer(model, spec, dict.fromkeys(model.backbone.parameters(), Pace(0.1)))
    for group in optimizer.param_groups:
        assert all(name.startswith("backbone.") == (group["lr_scale"] == 0.1) for name in names(model, group))
    for rate in (1e-2, 5.0):
        set_lr(optimizer, rate)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([rate, rate, rate / 10, rate / 10])


def test_what_never_learns_is_left_out(model: Small) -> None:
    head = {"head.1.weight", "head.1.bias"}
    assert set.union(*(names(model, group) for group in groups_of(model, backbone=0.0))) == head
    model.backbone.requires_grad_(False)
    assert set.union(*(names(model, group) for group in groups_of(model))) == head
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="everything is frozen"):
        groups_of(model)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_what_does_not_learn_yet_is_neither_changed_nor_remembered(model: Small, spec: OptimizerSpec) -> None:
    optimizer = build_optimizer(model, spec, dict.fromkeys(model.backbone.parameters(), Pace(1.0, start=1)))
    model.backbone.requires_grad_(False)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    step(model, optimizer)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith("backbone."), name
    assert {id(p) for p in optimizer.state} <= {id(p) for p in model.head.parameters()}
    model.backbone.requires_grad_(True)
    step(model, optimizer)
    assert not torch.equal(model.backbone[0].weight, before["backbone.0.weight"])
    if isinstance(spec, AdamWOptimizer):  # the correction of the moments' bias begins with its own first step
        assert optimizer.state[model.backbone[0].weight]["step"].item() == 1
        assert optimizer.state[model.head[1].weight]["step"].item() == 2


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_steps_are_torchs_plain_ones(model: Small, spec: OptimizerSpec) -> None:
    """Against the unfused one over two hand-made groups; float64, since the gradient of a bias before BatchNorm is noise."""
    twin = copy.deepcopy(model.double())
    ours = build_optimizer(model, spec)
    decayed = [twin.backbone[0].weight, twin.head[1].weight]
    rest = [p for p in twin.parameters() if all(p is not other for other in decayed)]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    plain: torch.optim.Optimizer
    if isinstance(spec, AdamWOptimizer):
        plain = torch.optim.AdamW(groups, lr=0.01, foreach=False, fused=False)
    else:
        plain = torch.optim.SGD(groups, lr=0.01, momentum=spec.momentum, nesterov=spec.momentum > 0, foreach=False, fused=False)
    for seed in range(5):
        step(model, ours, seed)
        step(twin, plain, seed)
    for ours_p, plain_p in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours_p, plain_p, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_state_survives_a_save(model: Small, spec: OptimizerSpec) -> None:
    optimizer = build_optimizer(model, spec)
    step(model, optimizer)
    twin = copy.deepcopy(model)
    again = build_optimizer(twin, spec)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert [group["lr_scale"] for group in again.param_groups] == [group["lr_scale"] for group in optimizer.param_groups]
    step(model, optimizer, 1)
    step(twin, again, 1)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


@settings(deadline=None)
@given(st.floats(0.01, 0.9999), st.lists(st.floats(-10, 10), min_size=1, max_size=30))
def test_the_average_by_hand(decay: float, values: list[float]) -> None:
    model = nn.Linear(1, 1, bias=False).double().requires_grad_(False)
    model.weight.fill_(3.0)
    ema, expected = Ema(model, decay), 3.0
    for n, value in enumerate(values, start=1):
        model.weight.fill_(value)
        ema.update(model)
        d = min(decay, (1 + n) / (10 + n))
        expected = d * expected + (1 - d) * value
    assert ema.shadow["weight"].item() == pytest.approx(expected, rel=1e-10, abs=1e-10)
    assert ema.updates == len(values)


def test_float_buffers_are_averaged_and_counters_copied(model: Small) -> None:
    ema, before = Ema(model, 0.5), model.backbone[1].running_mean.clone()
    model.train()(torch.randn(16, 4, generator=torch.Generator().manual_seed(1)) + 5)
    ema.update(model)
    after = model.backbone[1].running_mean
    assert not torch.equal(before, after)
    torch.testing.assert_close(ema.shadow["backbone.1.running_mean"], 2 / 11 * before + 9 / 11 * after)
    assert ema.shadow["backbone.1.num_batches_tracked"].item() == 1


def test_the_average_has_memory_of_its_own(model: Small) -> None:
    ema = Ema(model, 0.9)
    model.requires_grad_(False).head[1].bias.add_(1.0)
    assert not torch.equal(ema.shadow["head.1.bias"], model.head[1].bias)
    ema.update(model)
    assert not ema.shadow["head.1.bias"].requires_grad


def test_swapping_in_and_back_also_after_an_error(model: Small) -> None:
    ema, optimizer = Ema(model, 0.9), build_optimizer(model, AdamWOptimizer(lr=0.1))
    for seed in range(3):
        step(model, optimizer, seed)
        ema.update(model)
    trained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parameters = [id(parameter) for parameter in model.parameters()]

    def validate() -> None:
        with ema.swapped(model) as inside:
            assert inside is model
            assert all(torch.equal(tensor, ema.shadow[name]) for name, tensor in model.state_dict().items())
            assert not torch.equal(model.head[1].weight, trained["head.1.weight"])
            model.train()(torch.randn(4, 4))  # touches BatchNorm's buffers
            raise KeyError

    with pytest.raises(KeyError):
        validate()
    assert all(torch.equal(tensor, trained[name]) for name, tensor in model.state_dict().items())
    assert [id(parameter) for parameter in model.parameters()] == parameters
    assert not torch.equal(ema.shadow["head.1.weight"], trained["head.1.weight"])


def test_a_saved_average_goes_on_exactly(model: Small, tmp_path: Path) -> None:
    optimizer, ema = build_optimizer(model, AdamWOptimizer(lr=0.1)), Ema(model, 0.99)
    for seed in range(3):
        step(model, optimizer, seed)
        ema.update(model)
    save_file(ema.state_dict(), tmp_path / "ema.safetensors")
    again = Ema(Small(), 0.99)
    again.load_state_dict(load_file(tmp_path / "ema.safetensors"))
    step(model, optimizer, 9)
    for average in (ema, again):
        average.update(model)
    assert again.updates == ema.updates == 4
    assert all(torch.equal(again.shadow[name], tensor) for name, tensor in ema.shadow.items())


def test_an_average_of_another_model_is_refused_whole(model: Small) -> None:
    ema = Ema(model, 0.9)
    before = {name: tensor.clone() for name, tensor in ema.shadow.items()}
    missing, wrong = ema.state_dict(), ema.state_dict()
    del missing["shadow.head.1.bias"]
    wrong["shadow.head.1.bias"] = torch.zeros(5)
    for state, message in (
        (missing, r"1 names differ, first 'shadow.head.1.bias'"),
        (wrong, r"'head.1.bias' is \[5\], not \[3\]"),
    ):
        with pytest.raises(ModelError, match=message):
            ema.load_state_dict(state)
    assert all(torch.equal(ema.shadow[name], tensor) for name, tensor in before.items())
