"""The rows of the documents' model tables in figures. Nothing heavy is imported here, so that the list is there at once."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter


@dataclass(frozen=True)
class Card:
    """A backbone in figures, without a head.

    Attributes:
        name: for `model.backbone`.
        parameters: count.
        multiply_adds: of one image at `size`: multiplications with addition, in convolutions and matrix products.
        width: features of an embedding.
        size: (height, width) that it was made for, px.
        stages: parts, stem included.
        license: of the weights that `pretrained: true` takes; "unknown" where timm does not say, None without such weights.
        cam: it has a map to read a class activation from.
        rollout: it is a transformer with a class token from the first block on.
    """

    name: str
    parameters: int
    multiply_adds: int
    width: int
    size: tuple[int, int]
    stages: int
    license: str | None
    cam: bool
    rollout: bool

    @property
    def family(self) -> str | None:
        """Its key in `families()`, or None."""
        name = self.name.partition(".")[0]
        return next((key for key, family in families().items() if any(card.name == name for card in family.cards)), None)

    def can(self) -> tuple[str, ...]:
        """What works with it: CAM, rollout, ONNX, int8; the last two as far as its family was tried."""
        family = families()[self.family] if self.family is not None else None
        onnx, int8 = (family.onnx, family.int8) if family is not None else (False, False)
        found = {"CAM": self.cam, "rollout": self.rollout, "ONNX": onnx, "int8": int8}
        return tuple(name for name, works in found.items() if works)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**asdict(self), "size": list(self.size), "family": self.family, "can": list(self.can())}


@dataclass(frozen=True)
class Family:
    """Networks of one kind, and what was tried with the smallest of them; slow tests hold it.

    Attributes:
        onnx: as an ONNX graph it gives the same probabilities.
        int8: its graph takes static int8 quantization (QDQ) and still answers: with random weights and random images its logits
            are nearer to those in fp32 than to zero. That says nothing of accuracy, which hangs on weights and calibration
            images. CvT's are not; the other families were not tried.
        cards: counted by `catalog.measure`; a test counts again.
    """

    onnx: bool
    int8: bool
    cards: tuple[Card, ...]


@functools.cache
def families() -> dict[str, Family]:
    """Name to family, from `cards.json`, read once."""
    text = Path(__file__).with_name("cards.json").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Family]).validate_json(text, strict=True)


@functools.cache
def cards() -> dict[str, Card]:
    """Name to card, family by family."""
    return {card.name: card for family in families().values() for card in family.cards}
