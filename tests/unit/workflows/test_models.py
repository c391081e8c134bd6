"""The catalog: the stored figures are those of the networks, and the command shows them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from dermalyze.cli import app
from dermalyze.config.model import ModelSpec
from dermalyze.errors import ConfigError, UsageError
from dermalyze.models.cards import cards, families
from dermalyze.models.catalog import measure
from dermalyze.workflows.models import models

CARDS = [card for family in families().values() for card in family.cards]
QUICK = {"resnet18", "tiny_cnn", "custom_cnn", "densenet264", "vit_tiny_patch16_224", "convit_tiny", "vit_small_patch16_dinov3"}


@pytest.mark.parametrize(
    "card", [c if c.name in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in CARDS], ids=lambda c: c.name
)
def test_stored_figures_are_counted_figures(card) -> None:  # type: ignore[no-untyped-def]
    assert measure(ModelSpec(backbone=card.name)) == card


def test_published_multiply_adds() -> None:
    """As the papers and torchvision's table of weights state them."""
    known = {c.name: c.multiply_adds / 1e9 for c in CARDS}
    published = {"resnet18": 1.8, "resnet50": 4.1, "efficientnet_b0": 0.39, "densenet121": 2.87, "vit_base_patch16_224": 17.56}
    for name, value in published.items():
        assert known[name] == pytest.approx(value, rel=0.03), name


def test_names_stand_once_and_families_are_known() -> None:
    assert len({c.name for c in CARDS}) == len(CARDS)
    assert list(cards().values()) == CARDS
    assert all(family.onnx for family in families().values() if family.int8)


def test_list_and_show() -> None:
    found = models("list")
    lines = found.lines()
    assert len(lines) == len(CARDS) + 2
    assert lines[1].split()[:4] == ["resnet18", "11.18", "1.81", "512"]
    shown = models("show", "ResNet-18").lines()
    assert shown[0] == "resnet18: 11.18 M parameters without a head, 5 stages"
    assert "apache-2.0" in shown[3]
    other = models("show", "resnet10t")
    assert "ONNX and int8 were not tried" in other.lines()[-1]
    assert other.as_dict()["family"] is None


def test_tags_and_documents_names_belong_to_their_family() -> None:
    assert models("show", "resnet18.a1_in1k").as_dict()["family"] == "ResNet"
    assert models("show", "DenseNet-264").as_dict()["name"] == "densenet264"


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("lst",), UsageError, "did you mean 'list'"),
        (("show",), UsageError, "models show takes one"),
        (("list", "resnet18"), UsageError, "takes no name"),
        (("show", "resnet81"), ConfigError, "nearest: .*resnet"),
    ],
)
def test_refusals(words: tuple[str, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        models(*words)


def test_json() -> None:
    result = CliRunner().invoke(app, ["models", "list", "--json"])
    rows = json.loads(result.output)["models"]
    assert [row["name"] for row in rows] == [card.name for card in CARDS]
    assert rows[0]["can"][0] == "CAM"
    assert rows[0]["size"] == [224, 224]


def test_the_list_loads_neither_torch_nor_timm() -> None:
    script = "import sys, dermalyze; dermalyze.models('list').lines(); assert not {'torch', 'timm'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", script], check=True)
