"""What an audit found, as rows of pictures for a page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """One picture of a gallery.

    Attributes:
        image_id: the user's key.
        caption: one line under it.
    """

    image_id: str
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Pictures of one kind of finding.

    Attributes:
        kind: a word for machines, as `Finding.kind`.
        title: a heading.
        explanation: what is seen, and what to do.
        rows: pictures to be shown side by side, e.g. one pair a row.
    """

    kind: str
    title: str
    explanation: str
    rows: tuple[tuple[Picture, ...], ...]
