"""Pictures to look at, chosen by the audit: what its page shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """One picture of a gallery.

    Attributes:
        image_id: the user's key.
        caption: a few words to stand under it.
    """

    image_id: str
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Pictures that belong together, in rows.

    Attributes:
        kind: of the finding they belong to.
        title: one line.
        explanation: a sentence or two: what is shown, what to do.
        rows: what stands side by side.
    """

    kind: str
    title: str
    explanation: str
    rows: tuple[tuple[Picture, ...], ...]
