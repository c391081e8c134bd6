"""Pictures that an audit wants a person to see, by id; the page finds and draws them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        image_id: as in the manifest.
        caption: what to see in it, one short line.
    """

    image_id: str
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Pictures of one finding.

    Attributes:
        kind: a word for machines, as that of the finding.
        title, explanation: for a person: what it is, and how to look at it.
        rows: pictures shown side by side, one pair for example; the most telling first.
    """

    kind: str
    title: str
    explanation: str
    rows: tuple[tuple[Picture, ...], ...]
