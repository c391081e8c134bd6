"""Advice: each rule counts where it should, and what is printed loads."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from typer.testing import CliRunner

from dermalyze.cli import app
from dermalyze.config.base import parse_yaml
from dermalyze.config.experiment import build_experiment, load_experiment
from dermalyze.errors import UsageError
from dermalyze.models.cards import cards
from dermalyze.tasks.base import TASKS
from dermalyze.workflows import advise as module
from dermalyze.workflows.advise import Measured, advise, chosen, rank
from dermalyze.workflows.guidelines import Device, Like, Need, Situation, guidelines, traits

ADVICE = guidelines()
EVERY = [
    Situation(images, device, need, like)
    for images in (300, 5_000, 10_000, 60_000)
    for device in get_args(Device)
    for need in (None, *get_args(Need))
    for like in (None, *get_args(Like))
]


def best(**asked: Any) -> list[str]:
    situation = {"images": 5_000, "classes": 7, "device": "gpu", **asked}
    return [c.card.name for c in advise(**situation).candidates]


def test_every_rule_speaks_of_a_candidate_and_can_hold() -> None:
    for rule in ADVICE.rules:
        assert any(rule.speaks_of(cards()[name]) for name in ADVICE.candidates), rule
        assert any(rule.holds(s) for s in EVERY), rule
        assert set(rule.backbones) <= set(ADVICE.candidates), rule
        assert {rule.trait} <= {None, *(t for card in cards().values() for t in traits(card))}, rule


def test_the_rows_of_the_documents_keep_their_order() -> None:
    rows = {
        "pathmnist": ["resnet50", "efficientnet_b3", "densenet121"],
        "chestmnist": ["efficientnet_b3", "resnet50", "densenet121"],
        "dermamnist": ["vit_base_patch16_224", "efficientnet_b3", "densenet201"],
    }
    for like, names in rows.items():
        plain, with_row = (
            {c.card.name: c.score for c in rank(Situation(5_000, "gpu", like=which))}
            for which in (None, like)  # type: ignore[arg-type]
        )
        gained = {name: with_row[name] - plain[name] for name in plain}
        assert [gained[name] for name in names] == [3, 2, 1]
        assert sum(gained.values()) == 6


def test_needs_and_devices_lead_where_they_should() -> None:
    assert best(need="edge", device="cpu")[0] in ("efficientnet_b0", "mobilenetv2_100", "mobilenetv3_large_100")
    places = [best(device=device, like="dermamnist").index("vit_base_patch16_224") for device in ("gpu", "cpu")]
    assert places[0] < places[1]
    assert best(images=60_000)[0].startswith(("vit", "swin"))
    assert best(images=800)[0] in ("resnet18", "efficientnet_b0", "resnet50", "efficientnet_b4")
    interpretable = advise(images=5_000, classes=7, device="gpu", need="interpretability").candidates
    assert {c.card.name for c in interpretable if any("rollout" in r for _, r, _ in c.reasons)} == {
        name for name in ADVICE.candidates if cards()[name].rollout
    }


def test_points_are_the_sum_of_the_reasons_and_the_cheaper_comes_first() -> None:
    ranked = advise(images=5_000, classes=7, device="cpu").candidates
    assert len(ranked) == len(ADVICE.candidates)
    for c in ranked:
        assert c.score == sum(points for points, _, _ in c.reasons)
    for first, second in pairwise(ranked):
        assert (-first.score, first.card.multiply_adds) <= (-second.score, second.card.multiply_adds)


@pytest.mark.parametrize("situation", EVERY, ids=str)
def test_what_is_printed_loads(situation: Situation, tmp_path: Path) -> None:
    given = {"images": situation.images, "device": situation.device, "need": situation.need, "like": situation.like}
    found = advise(classes=7, **given)  # type: ignore[arg-type]
    path = tmp_path / "advised.yaml"
    path.write_text(found.yaml)
    spec = load_experiment(path)
    assert spec.model.backbone == found.candidates[0].card.name
    assert spec.model.pretrained == (found.candidates[0].card.license is not None)


def test_tables_of_settings_leave_no_gap() -> None:
    for setting in (*ADVICE.strategies, *ADVICE.losses, *ADVICE.imbalance):
        build_experiment({"train": dict(setting.train)})
    for table in ([s for s in ADVICE.strategies if s.like is None], list(ADVICE.imbalance)):
        assert table[0].least == 0
        assert all(one.below == following.least for one, following in pairwise(table))
        assert table[-1].below > 1e9


def test_rare_classes_are_counted() -> None:
    situation = Situation(5_000, "cpu")
    kinds = {}
    for many in (10, 50, 580):
        times, told = TASKS["multiclass"].imbalance(np.repeat([0, 1], [many, 10]), 2)
        assert told == f"the commonest class has {times:.0f} training images for one of the rarest"
        kinds[times] = chosen(situation, times, pretrained=False)[0].train["imbalance"]
    assert kinds == {1.0: {"kind": "none"}, 5.0: {"kind": "weights"}, 58.0: {"kind": "weights", "power": 0.5}}


@pytest.mark.parametrize(("like", "gamma"), [("dermamnist", 2.5), ("pathmnist", 2.0)])
def test_a_set_that_is_named_has_the_documents_loss(like: str, gamma: float) -> None:
    found = advise(images=10_015, classes=7, device="cpu", like=like)
    spec = build_experiment(parse_yaml(found.yaml, "advised"))
    assert (spec.train.loss.kind, spec.train.loss.gamma, spec.train.imbalance.kind) == ("focal", gamma, "none")
    settings = chosen(Situation(10_015, "cpu"), 58.0, pretrained=False, like=like)
    assert [set(setting.train) for setting in settings] == [{"loss", "imbalance"}]  # not corrected a second time by weights


def test_no_other_set_has_a_loss_of_the_documents() -> None:
    for like in ("chestmnist", None):
        assert all("loss" not in setting.train for setting in chosen(Situation(9, "cpu"), 58.0, pretrained=True, like=like))


def test_a_network_without_weights_has_no_transfer_strategy() -> None:
    assert chosen(Situation(300, "cpu"), None, pretrained=False) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "name a run, or give both --images N and --classes C"),
        ({"images": 5}, "name a run, or give both"),
        ({"images": 0, "classes": 2}, "at least 1 image and 2 classes"),
        ({"images": 5, "classes": 1}, "at least 1 image and 2 classes"),
        ({"images": 5, "classes": 2, "need": "sped"}, "--need sped: must be .*; did you mean 'speed'"),
        ({"images": 5, "classes": 2, "device": "tpu"}, "--device tpu: must be cpu, gpu"),
        ({"images": 5, "classes": 2, "like": "dermmnist"}, "did you mean 'dermamnist'"),
    ],
)
def test_what_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        advise(**given)


def test_the_leaders_are_timed_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def timed(card: Any, classes: int, device: str) -> Measured:
        asked.append(card.name)
        return Measured(12.0, 30.0, 9.0)

    monkeypatch.setattr(module, "timed", timed)
    found = advise(images=800, classes=2, device="cpu", measure=True)
    assert asked == [c.card.name for c in found.candidates[:3]]
    assert "here: 12 ms an image, 30 images/s, 9 MiB of weights" in "\n".join(found.lines())


def test_a_small_network_is_timed() -> None:
    m = module.timed(cards()["tiny_cnn"], 3, "cpu")
    assert m.latency_ms > 0
    assert m.images_per_s > 0
    assert m.weights_mib == pytest.approx(sum((137_112, 96 * 512 + 512 + 1024, 512 * 256 + 256 + 512, 256 * 3 + 3)) * 4 / 2**20)


def test_on_the_command_line() -> None:
    words = ["advise", "--images", "800", "--classes", "2", "--device", "cpu", "--need", "edge", "--metadata"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    head, _, text = result.output.partition("\n\n")
    assert "which are not results of ours" in head
    assert "class imbalance is not known" in head
    assert build_experiment(parse_yaml(text, "printed")).model.backbone == "efficientnet_b0"
