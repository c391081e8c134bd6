"""What the documents advise, as tables. Rules speak for or against networks; they are guidance from text, not our results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dermalyze.models.cards import FAMILIES, Card

Device = Literal["cpu", "gpu"]
Need = Literal["interpretability", "speed", "accuracy", "edge"]
Like = Literal["pathmnist", "chestmnist", "dermamnist"]
ANY = 1 << 62

GUIDE, ROWS, MODALITY = "architecture guide", "MedMNIST guide", "multi-modality system"
"""The documents, by what they are."""


@dataclass(frozen=True)
class Situation:
    """What is known of a task.

    Attributes:
        images: in the whole set.
        device: what it will be trained and run on.
        need: what matters most, or None.
        like: the set of the documents that it resembles, or None.
    """

    images: int
    device: Device
    need: Need | None = None
    like: Like | None = None


@dataclass(frozen=True)
class Rule:
    """One piece of advice. It holds where all its conditions do; what is left out always holds.

    Attributes:
        points: for (or, below 0, against) the networks it speaks of.
        reason: in words.
        source: the document, or "counted" where the catalog tells it.
        backbones, families: of which it speaks.
        trait: it speaks of all that have it: pretrained, rollout, CAM, int8, light (under 6 M parameters) or heavy (over 50 M).
        images: least, and fewer than.
        device, need, like: of the situation.
    """

    points: int
    reason: str
    source: str
    backbones: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    trait: str | None = None
    images: tuple[int, int] = (0, ANY)
    device: Device | None = None
    need: Need | None = None
    like: Like | None = None

    def holds(self, s: Situation) -> bool:
        """Whether its conditions are met."""
        asked = ((self.device, s.device), (self.need, s.need), (self.like, s.like))
        return self.images[0] <= s.images < self.images[1] and all(want in (None, is_) for want, is_ in asked)

    def speaks_of(self, card: Card) -> bool:
        """Whether it is about a network."""
        return card.name in self.backbones or card.family in self.families or self.trait in traits(card)


def traits(card: Card) -> tuple[str, ...]:
    """What rules can ask of a network.

    >>> traits(FAMILIES["MobileNet"][0])
    ('light', 'CAM', 'ONNX')
    """
    size = ("light",) if card.parameters < 6e6 else ("heavy",) if card.parameters > 50e6 else ()
    return (*(("pretrained",) if card.licence else ()), *size, *card.can())


CANDIDATES = (
    "resnet18", "resnet50", "efficientnet_b0", "efficientnet_b3", "efficientnet_b4", "tf_efficientnetv2_s", "densenet121",
    "densenet201", "mobilenetv2_100", "mobilenetv3_large_100", "vit_tiny_patch16_224", "vit_small_patch16_224",
    "vit_base_patch16_224", "convnext_tiny", "swin_tiny_patch4_window7_224", "custom_cnn_gap",
)  # fmt: skip
"""Networks that are ranked: those that the documents name as a choice, one or two of each kind."""

SMALL = ("ResNet", "EfficientNet")
QUICK = ("efficientnet_b0", "mobilenetv2_100", "mobilenetv3_large_100")
RULES: tuple[Rule, ...] = (
    # data
    Rule(2, "under 1,000 images: transfer learning with ResNet or EfficientNet", GUIDE, families=SMALL, images=(0, 1000)),
    Rule(2, "up to 10,000 images: fine-tune pretrained weights", GUIDE, trait="pretrained", images=(0, 10_001)),
    Rule(1, "dense connections do well on limited data", ROWS, families=("DenseNet",), images=(0, 10_001)),
    Rule(-2, "transformers overfit small sets and need strong regularisation", ROWS, families=("ViT",), images=(0, 10_000)),
    Rule(2, "over 10,000 images: transformers", GUIDE, families=("ViT", "Swin"), images=(10_001, ANY)),
    Rule(1, "pretrained weights help at any size", MODALITY, trait="pretrained", images=(10_001, ANY)),
    # compute
    Rule(2, "limited resources: EfficientNet-B0 or MobileNet", GUIDE, backbones=QUICK, device="cpu"),
    Rule(-3, "over 50 M parameters are slow without a GPU", "counted", trait="heavy", device="cpu"),
    Rule(1, "standard resources: ResNet-50 or EfficientNet-B4", GUIDE, backbones=("resnet50", "efficientnet_b4"), device="gpu"),
    # need
    Rule(2, "interpretability: attention maps by rollout", GUIDE, trait="rollout", need="interpretability"),
    Rule(1, "interpretability: class activation maps", GUIDE, trait="CAM", need="interpretability"),
    Rule(2, "real-time: EfficientNet or MobileNet", GUIDE, backbones=QUICK, need="speed"),
    Rule(1, "under 6 M parameters", "counted", trait="light", need="speed"),
    Rule(-2, "over 50 M parameters", "counted", trait="heavy", need="speed"),
    Rule(3, "mobile and edge: EfficientNet or MobileNet", GUIDE, backbones=QUICK, need="edge"),
    Rule(1, "keeps its answers in int8", "counted", trait="int8", need="edge"),
    Rule(2, "under 6 M parameters", "counted", trait="light", need="edge"),
    Rule(-4, "over 50 M parameters", "counted", trait="heavy", need="edge"),
    Rule(2, "high accuracy: large models", GUIDE, need="accuracy",
         backbones=("vit_base_patch16_224", "efficientnet_b4", "tf_efficientnetv2_s", "convnext_tiny")),
    # the documents' rows
    Rule(3, "PathMNIST, first choice: proven baseline", ROWS, backbones=("resnet50",), like="pathmnist"),
    Rule(2, "PathMNIST, second choice: efficiency", ROWS, backbones=("efficientnet_b3",), like="pathmnist"),
    Rule(1, "PathMNIST, third choice: few parameters", ROWS, backbones=("densenet121",), like="pathmnist"),
    Rule(3, "ChestMNIST, first choice: good balance", ROWS, backbones=("efficientnet_b3",), like="chestmnist"),
    Rule(2, "ChestMNIST, second choice: stable baseline", ROWS, backbones=("resnet50",), like="chestmnist"),
    Rule(1, "ChestMNIST, third choice: efficient", ROWS, backbones=("densenet121",), like="chestmnist"),
    Rule(3, "DermaMNIST, first choice: colour", ROWS, backbones=("vit_base_patch16_224",), like="dermamnist"),
    Rule(2, "DermaMNIST, second choice: good trade-off", ROWS, backbones=("efficientnet_b3",), like="dermamnist"),
    Rule(1, "DermaMNIST, third choice: few parameters", ROWS, backbones=("densenet201",), like="dermamnist"),
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What to write in `train`, in a range, and why.

    Attributes:
        least, below: of the number that decides: images for a strategy, times more images for rare classes.
        train: settings.
        like: only for a set of that kind.
    """

    least: float
    below: float
    train: Mapping[str, Any]
    reason: str
    source: str
    like: Like | None = None


STRATEGIES: tuple[Setting, ...] = (
    Setting(0, ANY, {"strategy": {"kind": "gradual"}}, "DermaMNIST row: gradual unfreezing", ROWS, "dermamnist"),
    Setting(0, 5_000, {"strategy": {"kind": "frozen"}}, "under 5,000 images: train the head alone, quick and stable", ROWS),
    Setting(5_000, 50_000, {"strategy": {"kind": "layerwise_decay"}}, "the standard for medical fine-tuning", ROWS),
    Setting(50_000, ANY, {"strategy": {"kind": "full"}}, "over 50,000 images: train everything", ROWS),
)
"""The first that fits holds; for pretrained weights."""

IMBALANCE: tuple[Setting, ...] = (
    Setting(0, 3, {"imbalance": {"kind": "none"}}, "under 3:1: nothing to correct", "own judgement"),
    Setting(3, 20, {"imbalance": {"kind": "weights"}}, "moderate: class weights in the loss", ROWS),
    Setting(20, ANY, {"imbalance": {"kind": "weights", "power": 0.5}},
            "severe: square-root weights, for full ones let a few images rule a batch", "own judgement"),
)  # fmt: skip
"""By how often the commonest class stands for one image of the rarest."""

ALTERNATIVES = (
    "instead of weights: train.imbalance {kind: sampling} repeats the rare images, and train.loss {kind: focal, gamma: 2.0} "
    "is the documents' choice for PathMNIST (2.5 for DermaMNIST); weights and sampling together correct twice"
)
CARDS: dict[str, Card] = {card.name: card for cards in FAMILIES.values() for card in cards}
