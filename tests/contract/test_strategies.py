"""Each transfer strategy on each kind of network: what learns in each epoch, at which rate, and what stays as it was."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dermalyze.config.model import LinearHead, ModelSpec
from dermalyze.config.train import AdamWOptimizer, FrozenStrategy, GradualStrategy, LastStrategy, StrategySpec
from dermalyze.errors import ConfigError
from dermalyze.models.classifier import Classifier, build_classifier
from dermalyze.training.optim import build_optimizer, set_lr
from dermalyze.training.transfer import Plan, scales_at

torch.set_num_threads(1)
BACKBONES: dict[str, tuple[dict[str, Any], int]] = {  # smallest of a kind: kwargs, px
    "resnet10t": ({"drop_path_rate": 0.05}, 32),
    "vit_tiny_patch16_224": ({"img_size": 32, "depth": 5, "drop_path_rate": 0.05, "pos_drop_rate": 0.2}, 32),
    "convnext_atto": ({"drop_path_rate": 0.05}, 32),
}
EPOCHS = 12  # the default of gradual unfreezes at 1 and 10
SPECS = [spec() for spec in get_args(get_args(StrategySpec)[0])]


def build(backbone: str) -> Classifier:
    torch.manual_seed(0)
    spec = ModelSpec(backbone=backbone, kwargs=BACKBONES[backbone][0], head=LinearHead(dropout=0.2))
    model = build_classifier(spec, 3, load_weights=False)
    with torch.no_grad():
        for parameter in model.parameters():  # branches that begin at zero would pass no gradient on
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def step(model: nn.Module, optimizer: torch.optim.Optimizer, px: int) -> None:
    torch.manual_seed(0)
    optimizer.zero_grad(set_to_none=True)
    images = torch.randn(4, 3, px, px, generator=torch.Generator().manual_seed(1))
    nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_what_learns(spec: Any, backbone: str) -> None:
    model = build(backbone)
    plan = Plan(model, spec, epochs=EPOCHS)
    optimizer = build_optimizer(model, AdamWOptimizer(lr=1e-3, weight_decay=0.5), plan.paces)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    depth = len(plan.stages)
    for epoch in (0, 1, 10):
        scales = scales_at(spec, depth, epoch)
        plan.enter(epoch)
        learning = {id(p) for stage, scale in zip(plan.stages, scales, strict=True) if scale for p in stage.parameters}
        learning |= {id(p) for p in model.head.parameters()}
        for stage, scale in zip(plan.stages, scales, strict=True):
            if scale:
                assert [rates[id(p)] for p in stage.parameters] == [1e-3 * scale] * len(stage.parameters)
            for module in stage.modules:
                assert all(inner.training == (scale > 0) for inner in module.modules()), stage.name
        before = state(model)
        step(model, optimizer, BACKBONES[backbone][1])
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == (id(parameter) in learning), name
            assert torch.equal(parameter, before[name]) == (id(parameter) not in learning), name
        assert {id(p) for p in optimizer.state} == learning, "no moments before it learns"
        for name, module in model.named_modules():
            if isinstance(module, _BatchNorm):
                frozen = module.weight is not None and id(module.weight) not in learning
                assert torch.equal(module.running_mean, before[f"{name}.running_mean"]) == frozen, name  # type: ignore[arg-type]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_rate_follows_the_schedule(backbone: str) -> None:
    for spec in SPECS:
        model = build(backbone)
        optimizer = build_optimizer(model, AdamWOptimizer(lr=1e-3), Plan(model, spec, epochs=EPOCHS).paces)
        first = [group["lr"] for group in optimizer.param_groups]
        set_lr(optimizer, 2e-3)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([2 * rate for rate in first])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_frozen_parts_repeat_themselves(backbone: str) -> None:
    """No dropout, stochastic depth or batch statistics in what is frozen, also where it stands between the stages."""
    model = build(backbone)
    depth, px = len(model.backbone.stages()), BACKBONES[backbone][1]
    Plan(model, LastStrategy(stages=1), epochs=1)
    seen: list[Tensor] = []
    last = model.backbone.stages()[-1].modules[0]
    last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    images = torch.randn(4, 3, px, px)
    for _ in range(2):
        model.eval().train()(images)
    assert depth > 1
    assert torch.equal(seen[0], seen[1])
    assert last.training


def test_what_the_network_itself_keeps_fixed_stays_fixed() -> None:
    model = build("vit_tiny_patch16_224")
    model.backbone.net.pos_embed.requires_grad_(False)  # type: ignore[union-attr, operator]
    plan = Plan(model, GradualStrategy(epochs=(1,), stages=99), epochs=2)
    plan.enter(0)
    plan.enter(1)
    assert not model.backbone.net.pos_embed.requires_grad  # type: ignore[union-attr]
    assert model.backbone.net.cls_token.requires_grad  # type: ignore[union-attr]
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("kind", ["se", "cbam", "self_attention"])
def test_attention_blocks_always_learn(kind: str) -> None:
    """They are new, as the head is; also where a later stage is frozen."""
    blocks = [{"kind": kind, "stage": 2}, {"kind": kind, "stage": 4}]
    spec = ModelSpec.model_validate({"backbone": "resnet10t", "head": {"kind": "linear"}, "attention": blocks})
    torch.manual_seed(0)
    model = build_classifier(spec, 3, load_weights=False)
    plan = Plan(model, FrozenStrategy(), epochs=1)
    optimizer = build_optimizer(model, AdamWOptimizer(lr=1e-3), plan.paces)
    assert {group["lr"] for group in optimizer.param_groups} == {1e-3}
    model.eval().train()
    step(model, optimizer, 64)
    learnt = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    behind = ("head.", "backbone.net.layer2.1.", "backbone.net.layer4.1.")
    new = {name for name, _ in model.named_parameters() if name.startswith(behind)}
    assert learnt == new
    assert len(new) > 2
    for name, module in model.backbone.named_modules():
        if isinstance(module, _BatchNorm):
            own = any(f"backbone.{name}.{each}" in new for each, _ in module.named_parameters())
            assert module.training == own, name


def test_stochastic_depth_is_timms_own() -> None:
    model = build("vit_tiny_patch16_224")
    rates = [module.drop_prob for module in model.modules() if type(module).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.05)
    with pytest.raises(ConfigError, match=r"densenet121 refuses model.kwargs .*drop_path_rate"):
        build_classifier(ModelSpec(backbone="densenet121", kwargs={"drop_path_rate": 0.1}), 3, load_weights=False)


def test_an_epoch_can_be_entered_without_those_before() -> None:
    """A resume begins anywhere."""
    one, two = build("resnet10t"), build("resnet10t")
    plan = Plan(one, GradualStrategy(), epochs=EPOCHS)
    for epoch in range(11):
        plan.enter(epoch)
    Plan(two, GradualStrategy(), epochs=EPOCHS).enter(10)
    assert [p.requires_grad for p in one.parameters()] == [p.requires_grad for p in two.parameters()]
    assert [m.training for m in one.modules()] == [m.training for m in two.modules()]


def test_starts_and_the_line_about_them(capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(build("resnet10t"), GradualStrategy(), epochs=11)
    assert plan.starts == [1, 10]
    names = [stage.name for stage in plan.stages]
    assert capsys.readouterr().err == ""
    plan.enter(0)
    plan.enter(1)
    assert capsys.readouterr().err == f"epoch 2: of the backbone {names[-1]}, {names[-2]} learn from here on\n"


def test_stages_never_reached_take_no_part() -> None:
    model = build("resnet10t")
    plan = Plan(model, GradualStrategy(), epochs=2)
    optimizer = build_optimizer(model, AdamWOptimizer(), plan.paces)
    listed = {id(p) for group in optimizer.param_groups for p in group["params"]}
    reached = [*plan.stages[-2].parameters, *plan.stages[-1].parameters, *model.head.parameters()]
    assert listed == {id(p) for p in reached}


def test_more_stages_than_there_are() -> None:
    with pytest.raises(ConfigError, match=r"train.strategy.stages is 9, and the backbone has \d; lower it"):
        Plan(build("resnet10t"), LastStrategy(stages=9), epochs=1)
