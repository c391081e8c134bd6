"""Each table of the training room against its specs: same kinds, same fields, and every row works from its defaults."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import nn

from dermalyze.config.base import Spec
from dermalyze.config.task import tasks_of
from dermalyze.config.train import (
    AugmentSpec,
    BceLoss,
    ImbalanceSpec,
    LossSpec,
    OptimizerSpec,
    PolicyName,
    ScheduleSpec,
    StrategySpec,
    TrainSpec,
    WeightsImbalance,
)
from dermalyze.imaging.modalities import MODALITIES
from dermalyze.tasks.base import TASKS
from dermalyze.training.augment import POLICIES, Policy, augment, mix
from dermalyze.training.auto_augment import AUTO
from dermalyze.training.imbalance import IMBALANCE, class_weights, draw_order
from dermalyze.training.losses import LOSSES, build_loss
from dermalyze.training.multilabel_losses import LABEL_LOSSES
from dermalyze.training.objectives import OBJECTIVES, build_objective
from dermalyze.training.optim import OPTIMIZERS, build_optimizer, set_lr
from dermalyze.training.schedules import SCHEDULES, cycle_start, lr_at
from dermalyze.training.transfer import STRATEGIES, scales_at

torch.set_num_threads(1)


def members(union: Any, task: str = "multiclass") -> list[type[Spec]]:
    """The spec classes of Annotated[A | B | ..., discriminator] that belong to a task."""
    return [spec for spec in get_args(get_args(union)[0]) if task in tasks_of(spec)]


TABLES: dict[str, tuple[dict[str, Callable[..., Any]], list[type[Spec]], set[str]]] = {
    "LOSSES": (LOSSES, members(LossSpec), {"weight_C"}),
    "LABEL_LOSSES": (LABEL_LOSSES, members(LossSpec, "multilabel"), {"weight_C"}),
    "SCHEDULES": (SCHEDULES, members(ScheduleSpec), {"steps_per_epoch", "total_steps", "lr"}),
    "OPTIMIZERS": (OPTIMIZERS, members(OptimizerSpec), {"paces"}),
    "STRATEGIES": (STRATEGIES, members(StrategySpec), set()),
    "IMBALANCE": ({kind: row.weights for kind, row in IMBALANCE.items()}, members(ImbalanceSpec), set()),
}
ROWS = [
    pytest.param(table[spec().kind], spec, given, id=f"{name}-{spec().kind}")  # type: ignore[attr-defined]
    for name, (table, specs, given) in TABLES.items()
    for spec in specs
]


@pytest.mark.parametrize("name", TABLES)
def test_keys_are_the_kinds(name: str) -> None:
    table, specs, _ = TABLES[name]
    assert list(table) == [spec().kind for spec in specs]  # type: ignore[attr-defined]


def test_every_loss_belongs_to_a_task() -> None:
    assert {*members(LossSpec), *members(LossSpec, "multilabel")} == set(get_args(get_args(LossSpec)[0]))


@pytest.mark.parametrize(("function", "spec", "given"), ROWS)
def test_keyword_arguments_are_the_fields(function: Callable[..., Any], spec: type[Spec], given: set[str]) -> None:
    """All keyword-only and without defaults: defaults are in specs only."""
    keywords = {p.name: p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    assert set(keywords) - given == set(spec.model_fields) - {"kind"}
    assert given <= set(keywords)
    assert all(p.default is p.empty for p in keywords.values())


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Policy) if f.name != "affine_deg"])
def test_policy_fields_are_the_specs(name: str) -> None:
    assert AugmentSpec.model_fields[name].default is None, "None leaves it to the policy"


def test_policies_are_the_specs() -> None:
    assert list(POLICIES) == list(get_args(PolicyName))
    own = {"policy", "mixup", "cutmix"}
    assert set(AugmentSpec.model_fields) - own == {f.name for f in dataclasses.fields(Policy)} - {"affine_deg"}
    for name, policy in POLICIES.items():  # every number of a policy could be given by hand
        numbers = dataclasses.asdict(policy)
        for key in ("affine_deg", *(("ops", "magnitude") if name != "randaugment" else ())):
            del numbers[key]
        AugmentSpec(policy=name, **numbers)  # type: ignore[arg-type]
    assert set(AUTO) == {name for name, policy in POLICIES.items() if policy.ops}


def test_standard_is_the_documents_list() -> None:
    assert POLICIES["standard"] == Policy(
        hflip=0.5, vflip=0.3, rotate_deg=25, affine_deg=15, translate=0.1, scale=(0.9, 1.1),
        brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1, blur=0.1, cutout=0.1,
    )  # fmt: skip
    assert TrainSpec().augment.policy is None
    assert all(row.augmentation == AugmentSpec(policy="standard") for row in MODALITIES.values())


@pytest.mark.parametrize("spec", [spec() for spec in members(LossSpec)], ids=lambda spec: spec.kind)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_loss(spec: LossSpec, weighted: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 3, requires_grad=True)
    target = torch.softmax(torch.randn(6, 3), 1)
    loss, weight = build_loss(spec, torch.tensor([1.0, 2.0, 3.0]) if weighted else None)(logits, target)
    assert loss.shape == weight.shape == ()
    assert loss.dtype == weight.dtype == torch.float32
    assert not weight.requires_grad
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad != 0).all()


@pytest.mark.parametrize("spec", [spec() for spec in members(LossSpec, "multilabel")], ids=lambda spec: spec.kind)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_loss_of_labels(spec: LossSpec, weighted: bool) -> None:
    """Hard and mixed targets, scores that saturate, and as much from two halves of a batch as from the whole."""
    torch.manual_seed(0)
    logits = torch.cat([torch.randn(5, 3), torch.tensor([[100.0, -100.0, 100.0]])]).requires_grad_()
    present = torch.cat([torch.rand(3, 3), torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]])])
    target = torch.stack([present, 1 - present], 1)
    weight = torch.tensor([1.0, 2.0, 3.0]) if weighted else None
    loss = build_loss(spec, weight, LABEL_LOSSES)
    whole, count = loss(logits, target)
    assert whole.shape == count.shape == ()
    assert whole.dtype == count.dtype == torch.float32
    assert count == 18
    whole.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[:5] != 0).sum() >= 12, "asymmetric leaves out the easiest negatives"
    halves = loss(logits[:3], target[:3])[0] + loss(logits[3:], target[3:])[0]
    assert torch.allclose(whole, halves)
    if weighted:
        assert whole > build_loss(spec, None, LABEL_LOSSES)(logits, target)[0]


LABELS = {"multiclass": np.array([0, 2, 1, 0, 0, 2]), "multilabel": np.array([[1, 0, -1], [0, 1, 1], [-1, -1, 0]] * 2)}


def test_every_task_has_an_objective() -> None:
    assert list(OBJECTIVES) == list(TASKS) == list(LABELS)


@pytest.mark.parametrize("kind", OBJECTIVES)
@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_every_objective(kind: str, mixup: float) -> None:
    """Sums over micro-batches are those of one batch, the weight that is known beforehand is the loss's; no value is read."""
    labels = LABELS[kind]
    spec = next(spec() for spec in members(LossSpec, kind))
    objective = build_objective(kind, spec, WeightsImbalance(), labels, ["a", "b", "c"], sources_N=None, device="cpu")
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    target = objective.target(labels)
    assert target.shape[0] == 6
    assert ((target >= 0) & (target <= 1)).all()
    parts = [slice(0, 1), slice(1, 4), slice(4, 6)]
    images, augment_spec = torch.zeros(6, 3, 4, 4), AugmentSpec(mixup=mixup)
    _, mixed = mix({"image": images}, target, augment_spec, seed=1, epoch=0, step=0)
    loss, weight = objective.loss(logits, mixed)
    assert weight.item() == pytest.approx(objective.weight(labels), rel=1e-6)
    assert objective.weight(labels) == pytest.approx(sum(objective.weight(labels[part]) for part in parts))
    assert torch.allclose(loss, sum((objective.loss(logits[part], mixed[part])[0] for part in parts), torch.zeros(())))
    figures = torch.stack([objective.figures(logits[part], target[part]) for part in parts]).sum(0)
    assert torch.allclose(figures, objective.figures(logits, target))
    assert figures[2] == (labels >= 0).sum()
    assert 0 <= figures[1] <= figures[2]
    nothing = logits.to("meta"), target.to("meta")  # of which no value can be read
    assert objective.loss(*nothing)[0].shape == ()
    assert objective.figures(*nothing).shape == (3,)


def test_a_missing_label_is_in_no_count() -> None:
    """Two of the three labels are known of each image: the weight of presence is absent over present of these."""
    labels = np.array([[1, 0, -1], [0, 1, 1], [-1, 0, 0], [0, -1, 1]])
    objective = build_objective("multilabel", BceLoss(), WeightsImbalance(), labels, "abc", sources_N=None, device="cpu")
    logits = torch.zeros(1, 3)
    costs = [objective.loss(logits, objective.target(np.eye(3, dtype=np.int64)[c : c + 1]))[0].item() for c in range(3)]
    assert costs == pytest.approx([(w + 2) * np.log(2) for w in (2 / 1, 2 / 1, 1 / 2)])


@pytest.mark.parametrize("spec", [spec() for spec in members(ScheduleSpec)], ids=lambda spec: spec.kind)
def test_every_schedule(spec: ScheduleSpec) -> None:
    rates = [lr_at(spec, step, steps_per_epoch=10, total_steps=400, lr=0.1) for step in range(400)]
    assert all(isinstance(rate, float) and 0 < rate <= 0.1 for rate in rates)
    assert max(rates) == 0.1
    assert all(0 <= cycle_start(spec, epoch) <= epoch for epoch in range(40))


@pytest.mark.parametrize("spec", [spec() for spec in members(StrategySpec)], ids=lambda spec: spec.kind)
def test_every_strategy(spec: StrategySpec) -> None:
    before = [0.0] * 7
    for epoch in range(30):
        scales = scales_at(spec, 7, epoch)
        assert len(scales) == 7
        assert all(0 <= scale <= 1 for scale in scales)
        assert scales == sorted(scales), "what is nearer to the head learns at least as fast"
        assert all(new >= old for new, old in zip(scales, before, strict=True)), "nothing is frozen again"
        before = scales


@pytest.mark.parametrize("spec", [spec() for spec in members(OptimizerSpec)], ids=lambda spec: spec.kind)
def test_every_optimizer(spec: OptimizerSpec) -> None:
    model = nn.Linear(3, 2)
    optimizer, before = build_optimizer(model, spec), model.weight.detach().clone()
    assert {group["lr"] for group in optimizer.param_groups} == {spec.lr}
    set_lr(optimizer, 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}
    model(torch.ones(4, 3)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model.weight, before)


@pytest.mark.parametrize("spec", [spec() for spec in members(ImbalanceSpec)], ids=lambda spec: spec.kind)
def test_every_correction(spec: ImbalanceSpec) -> None:
    weights = class_weights(spec, [6, 2], ["nv", "mel"])
    assert weights is None or (weights.shape == (2,) and weights[1] > weights[0])
    order = draw_order(spec, np.array([0] * 6 + [1] * 2), seed=1, epoch=0)
    assert order.shape == (8,)
    assert (weights is not None) == ("weights" in spec.kind)
    assert ((order >= 6).sum() == 4) == ("sampling" in spec.kind)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy(policy: Any) -> None:
    images = torch.randint(0, 256, (5, 24, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    out = augment(images, AugmentSpec(policy=policy), seed=1, epoch=0, positions_B=np.arange(5))
    assert out.shape == (5, 3, 24, 32)
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 1
    unchanged = torch.equal(out, images.permute(0, 3, 1, 2) / 255)
    assert unchanged == (policy == "none")


@pytest.mark.parametrize("policy", POLICIES)
def test_no_policy_waits_for_the_device(policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be read from a meta tensor: asking for a value of it is an error."""
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **fields: contextlib.nullcontext())  # knows no meta device
    images = torch.zeros(64, 24, 32, 3, dtype=torch.uint8, device="meta")
    spec = AugmentSpec(policy=policy, mixup=0.5, cutmix=0.5)
    out = augment(images, spec, seed=1, epoch=0, positions_B=np.arange(64))
    for step in range(8):
        mixed, target = mix({"image": out}, torch.zeros(64, 3, device="meta"), spec, seed=1, epoch=0, step=step)
        assert mixed["image"].shape == (64, 3, 24, 32)
        assert target.shape == (64, 3)
    with pytest.raises((NotImplementedError, RuntimeError)):
        out.sum().item()
