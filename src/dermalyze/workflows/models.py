"""The catalog of networks on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dermalyze.errors import UsageError, nearest
from dermalyze.models.cards import Card, cards

ACTIONS = ("list", "show")
HEADER = ("name", "M parameters", "G multiply-adds", "features", "size px", "weights' license", "can")


@dataclass(frozen=True)
class ModelsResult:
    """Networks in figures; one, or the rows of the documents' tables."""

    cards: tuple[Card, ...]
    one: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return self.cards[0].as_dict() if self.one else {"models": [card.as_dict() for card in self.cards]}

    def lines(self) -> list[str]:
        """Lines for a person."""
        return _show(self.cards[0]) if self.one else _table(self.cards)


def models(action: str = "list", name: str | None = None) -> ModelsResult:
    """What networks there are, what each costs, and what it can do.

    Args:
        action: "list" (the rows of the documents' tables) or "show" (any network by name, counted now).
        name: of the network to show: timm's, a document's, or one of dermalyze's own.

    Raises:
        UsageError: another action, or a name too few or too many.
        ConfigError: unknown name, with the nearest.
        ModelError: a network that cannot be counted.

    >>> models("list").cards[0].name
    'resnet18'
    """
    if action not in ACTIONS:
        raise UsageError(f"models {action}: unknown{nearest(action, ACTIONS)}; list or show NAME")
    if (action == "show") != (name is not None):
        raise UsageError("models list takes no name, models show takes one: dermalyze models show resnet50")
    if name is None:
        return ModelsResult(tuple(cards().values()), one=False)
    from dermalyze.config.model import ModelSpec
    from dermalyze.models.catalog import measure

    return ModelsResult((measure(ModelSpec(backbone=name)),), one=True)


def _table(cards: tuple[Card, ...]) -> list[str]:
    rows = [
        (
            card.name, f"{card.parameters / 1e6:.2f}", f"{card.multiply_adds / 1e9:.2f}", str(card.width),
            "x".join(map(str, card.size)), card.license or "no weights", ", ".join(card.can()),
        )
        for card in cards
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in (HEADER, *rows)) for i in range(len(HEADER))]
    texts = ["  ".join(_pad(cell, width, i) for i, (cell, width) in enumerate(zip(row, widths, strict=True))) for row in rows]
    head = "  ".join(_pad(cell, width, i) for i, (cell, width) in enumerate(zip(HEADER, widths, strict=True)))
    note = (
        "Parameters without a head; multiply-adds of one image at the size shown. Every other timm network: models show NAME."
    )
    return [head, *(text.rstrip() for text in texts), note]


def _pad(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if 1 <= column <= 3 else cell.ljust(width)


def _show(card: Card) -> list[str]:
    size = "x".join(map(str, card.size))
    license = "no weights under this name" if card.license is None else f"{card.license} (as timm states it)"
    tried = "" if card.family else "; ONNX and int8 were not tried with its family"
    return [
        f"{card.name}: {card.parameters / 1e6:.2f} M parameters without a head, {card.stages} stages",
        f"multiply-adds: {card.multiply_adds / 1e9:.2f} G for one image of {size} px, its own size",
        f"features of an embedding: {card.width}",
        f"license of the pretrained weights: {license}",
        f"can: {', '.join(card.can()) or 'classify'}{tried}",
    ]
