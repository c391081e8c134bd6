"""What the documents advise, as tables. Rules speak for or against networks; they are guidance from text, not our results."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from dermalyze.models.cards import Card

Device = Literal["cpu", "gpu"]
Need = Literal["interpretability", "speed", "accuracy", "edge"]
Like = Literal["pathmnist", "chestmnist", "dermamnist"]


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
        source: the document, by what it is, or "counted" where the catalog tells it.
        backbones, families: of which it speaks.
        trait: it speaks of all that have it: pretrained, rollout, CAM, int8, light (under 6 M parameters) or heavy (over 50 M).
        least, below: images: at least, and fewer than.
        device, need, like: of the situation.
    """

    points: int
    reason: str
    source: str
    backbones: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    trait: str | None = None
    least: int = 0
    below: float = math.inf
    device: Device | None = None
    need: Need | None = None
    like: Like | None = None

    def holds(self, s: Situation) -> bool:
        """Whether its conditions are met."""
        asked = ((self.device, s.device), (self.need, s.need), (self.like, s.like))
        return self.least <= s.images < self.below and all(want in (None, is_) for want, is_ in asked)

    def speaks_of(self, card: Card) -> bool:
        """Whether it is about a network."""
        return card.name in self.backbones or card.family in self.families or self.trait in traits(card)


def traits(card: Card) -> tuple[str, ...]:
    """What rules can ask of a network.

    >>> from dermalyze.models.cards import cards
    >>> traits(cards()["mobilenetv2_035"])
    ('light', 'CAM', 'ONNX')
    """
    size = ("light",) if card.parameters < 6e6 else ("heavy",) if card.parameters > 50e6 else ()
    return (*(("pretrained",) if card.license else ()), *size, *card.can())


@dataclass(frozen=True)
class Setting:
    """What to write in `train`, in a range, and why.

    Attributes:
        least, below: of the number that decides: images for a strategy, times more images for rare classes.
        train: settings.
        like: only for a set of that kind.
    """

    least: int
    train: dict[str, Any]
    reason: str
    source: str
    below: float = math.inf
    like: Like | None = None


@dataclass(frozen=True)
class Guidelines:
    """The content of `guidelines.json`.

    Attributes:
        candidates: networks that are ranked: those that the documents name as a choice, one or two of each kind.
        rules: on data, on compute, on needs, and the documents' rows of data sets.
        strategies: by images; for pretrained weights; the first that fits holds.
        losses: of the documents' rows of data sets.
        imbalance: by `Task.imbalance`; where a loss is advised, none.
        alternatives: what to do instead of weights, by task.
    """

    candidates: tuple[str, ...]
    rules: tuple[Rule, ...]
    strategies: tuple[Setting, ...]
    losses: tuple[Setting, ...]
    imbalance: tuple[Setting, ...]
    alternatives: dict[str, str]


@functools.cache
def guidelines() -> Guidelines:
    """What is advised, read once."""
    text = Path(__file__).with_name("guidelines.json").read_text(encoding="utf-8")
    return TypeAdapter(Guidelines).validate_json(text, strict=True)
